//! The built program on simulated machines (network namespaces): the address in its session links,
//! the path of its media, and its events if there is no path.
//!
//! The tests need Linux, root, iproute2 and (one test) iptables. Without these, a test prints that
//! it is skipped. The rules have unit tests in `network`, `signalling/hub` and `conference`.

mod uplinks;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::rig::process::{Program, share_turn};

/// A simulated machine: a network namespace that is removed on drop.
struct Machine {
    holder: Child,
}

impl Machine {
    /// Creates a machine with nothing but loopback. Returns `None` and prints why, if that is not
    /// possible.
    fn new() -> Option<Self> {
        let shell = "ip link set lo up && echo ready && exec sleep infinity";
        let holder = Command::new("unshare")
            .args(["--net", "sh", "-c", shell])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(holder) = holder else {
            eprintln!("SKIPPED: no `unshare`");
            return None;
        };
        let mut machine = Self { holder };
        let mut line = String::new();
        let out = machine.holder.stdout.take().expect("its output is piped");
        let read = BufReader::new(out).read_line(&mut line);
        if read.is_err() || line.trim() != "ready" {
            eprintln!("SKIPPED: network namespaces need root and iproute2");
            return None;
        }
        Some(machine)
    }

    fn two() -> Option<[Self; 2]> {
        Some([Self::new()?, Self::new()?])
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string(), "--"]);
        command
    }

    /// Runs a command on it, which must succeed.
    fn run(&self, line: &str) {
        let status = self.enter().args(line.split_whitespace()).status();
        assert!(status.expect("nsenter runs").success(), "{line}");
    }

    /// Whether a command can be run on it.
    fn has(&self, line: &str) -> bool {
        let mut command = self.enter();
        command.args(line.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Adds a network interface with these addresses. Its peer interface is not connected.
    fn bridge(&self, name: &str, addresses: &[&str]) {
        self.run(&format!("ip link add {name} type veth peer name x-{name}"));
        self.run(&format!("ip link set x-{name} up"));
        self.address(name, addresses);
    }

    /// Connects `eth0` of this machine to `eth0` of another one.
    fn cable(&self, other: &Self) {
        let pid = other.holder.id();
        self.run(&format!("ip link add eth0 type veth peer name eth0 netns {pid}"));
    }

    fn address(&self, name: &str, addresses: &[&str]) {
        for address in addresses {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.run(&format!("ip addr add {address} dev {name} {nodad}"));
        }
        self.run(&format!("ip link set {name} up"));
    }

    /// Starts the program on it, without devices.
    fn quintet(&self, args: &[&str]) -> Program {
        let without_devices = ["--camera", "none", "--microphone", "none", "--speaker", "none"];
        Program::start_wrapped(self.enter(), &[args, &without_devices].concat())
    }

    /// Opens the session `a` on this machine, with the program's own hub.
    fn open(&self) -> Program {
        let mut opener = self.quintet(&["open", "--kind", "data/many-to-many", "--id", "a"]);
        opener.event("opened");
        opener
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[test]
fn media_connect_in_both_families_despite_a_dozen_bridges() {
    let _turn = share_turn();
    for (own_address, other_address, link) in [
        ("192.168.5.7/24", "192.168.5.8/24", "http://192.168.5.7:7340/s/a"),
        ("fd00:5::7/64", "fd00:5::8/64", "http://[fd00:5::7]:7340/s/a"),
    ] {
        let Some([one, other]) = Machine::two() else { return };
        for machine in [&one, &other] {
            for n in 0..12 {
                let addresses = [format!("172.2{n}.0.1/16"), format!("fd00:{n}a::1/64")];
                machine.bridge(&format!("b{n}"), &addresses.each_ref().map(String::as_str));
            }
        }
        one.cable(&other);
        one.address("eth0", &[own_address]);
        other.address("eth0", &[other_address]);
        let mut opener = one.open();
        let mut guest = other.quintet(&["join", link]);
        guest.wait("a live participant", |event| event["state"] == "live");
        opener.wait("a live participant", |event| event["state"] == "live");
        assert_eq!(guest.terminate().code, Some(0));
    }
}

#[test]
fn the_link_follows_the_default_route_and_a_change_is_reported() {
    let _turn = share_turn();
    let Some(machine) = Machine::new() else { return };
    machine.bridge("cni0", &["10.42.0.1/24"]);
    machine.bridge("eth0", &["192.168.5.7/24"]);
    machine.run("ip route add default via 192.168.5.1 dev eth0");
    let mut opener = machine.open();
    assert_eq!(opener.event("opened")["link"], "http://192.168.5.7:7340/s/a");
    // Another program on this machine uses the same hub.
    let mut guest = machine.quintet(&["join", "a"]);
    guest.event("joined");

    machine.run("ip addr del 192.168.5.7/24 dev eth0");
    machine.address("eth0", &["192.168.9.33/24"]);
    machine.run("ip route add default via 192.168.9.1 dev eth0");
    for program in [&mut opener, &mut guest] {
        let link = "http://192.168.9.33:7340/s/a";
        program.wait(link, |event| event["event"] == "link-changed" && event["link"] == link);
    }
    let mut late = machine.quintet(&["open", "--kind", "data/many-to-many", "--id", "b"]);
    assert_eq!(late.event("opened")["link"], "http://192.168.9.33:7340/s/b");

    machine.run("ip addr del 192.168.9.33/24 dev eth0");
    machine.address("eth0", &["2001:db8::5/64"]);
    machine.run("ip -6 route add default via 2001:db8::1 dev eth0");
    let link = "http://[2001:db8::5]:7340/s/a";
    opener.wait(link, |event| event["link"] == link);
}

#[test]
fn a_hub_that_started_before_the_network_reports_its_address_once_it_has_one() {
    let _turn = share_turn();
    let Some(machine) = Machine::new() else { return };
    let mut hub = Program::start_wrapped(machine.enter(), &["serve"]);
    assert_eq!(hub.event("listening")["hub"], "http://127.0.0.1:7340");
    machine.bridge("eth0", &["2001:db8::5/64"]);
    machine.run("ip -6 route add default via 2001:db8::1 dev eth0");
    hub.wait("its address", |event| event["hub"] == "http://[2001:db8::5]:7340");
    machine.address("eth0", &["192.168.5.7/24"]);
    machine.run("ip route add default via 192.168.5.1 dev eth0");
    hub.wait("the other family", |event| event["hub"] == "http://192.168.5.7:7340");
}

#[test]
fn blocked_udp_is_reported_with_its_reason_and_so_is_the_recovery() {
    let _turn = share_turn();
    let Some([one, other]) = Machine::two() else { return };
    one.cable(&other);
    one.address("eth0", &["192.168.5.7/24"]);
    other.address("eth0", &["192.168.5.8/24"]);
    if !other.has("iptables -L") {
        return eprintln!("SKIPPED: no iptables, or no netfilter in the kernel");
    }
    other.run("iptables -A INPUT -p udp -j DROP");
    let mut opener = one.open();
    let link = "http://192.168.5.7:7340/s/a";
    let mut guest = other.quintet(&["join", link]);
    for program in [&mut opener, &mut guest] {
        let error = program.wait("an error", |event| event["code"] == "connection");
        assert_eq!(error["reason"], "no-pair-answered", "{error}");
        program.wait("unreachable", |event| event["state"] == "unreachable");
    }
    let unreachable = other.quintet(&["join", link, "--for", "2s"]).wait_for_exit();
    assert_eq!(unreachable.code, Some(8), "{:#?}", unreachable.events);

    other.run("iptables -D INPUT -p udp -j DROP");
    guest.wait("a live participant", |event| event["state"] == "live");
    assert_eq!(guest.terminate().code, Some(0));
    assert_eq!(opener.terminate().code, Some(0));
}
