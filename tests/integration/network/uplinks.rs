//! Uplinks that are narrow or fail, made by the kernel and not by our own impairment.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::Machine;
use crate::rig::process::{Program, share_turn, take_turn};

const LINK: &str = "http://192.168.5.7:7340/s";

/// Two machines with a cable between them. `None`, with the reason printed, where that is not
/// possible.
fn connected() -> Option<[Machine; 2]> {
    let [one, other] = Machine::two()?;
    one.cable(&other);
    one.address("eth0", &["192.168.5.7/24"]);
    other.address("eth0", &["192.168.5.8/24"]);
    Some([one, other])
}

/// Lets the machine send so much, with a queue of 300 ms. Returns whether the system can do that.
fn narrow(machine: &Machine, rate: &str) -> bool {
    let line = format!("tc qdisc add dev eth0 root tbf rate {rate} burst 3000 latency 300ms");
    let is_narrow = machine.has(&line);
    if !is_narrow {
        eprintln!("SKIPPED: no `tc`, or no token bucket filter in the kernel");
    }
    is_narrow
}

/// How many packets the queue of a machine has passed on, and how many it has dropped.
fn queue_counts(machine: &Machine) -> (u64, u64) {
    let mut command = machine.enter();
    let output = command.args(["tc", "-s", "qdisc", "show", "dev", "eth0"]).output();
    let text = String::from_utf8(output.expect("tc runs").stdout).expect("it prints text");
    let number = |before: &str| {
        let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before}: {text}"));
        let digits: String = rest.trim().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{before}: {text}"))
    };
    (number(" bytes "), number("(dropped "))
}

/// Starts the program on a machine with a camera and a microphone.
fn sender(machine: &Machine, args: &[&str]) -> Program {
    let sources = ["--camera", "pattern:640x360@15", "--microphone", "tone:440"];
    let args = [args, &sources, &["--speaker", "none"]].concat();
    Program::start_wrapped(machine.enter(), &args)
}

/// The first participant in some statistics, if it is one that was heard or seen.
fn first_participant(stats: &Value) -> Option<&Value> {
    let sessions = stats["sessions"].as_array()?;
    sessions.first()?["participants"].as_array()?.first()
}

/// The next statistics that a program prints. Those that wait to be read are older.
fn newest(program: &mut Program) -> Value {
    loop {
        let begun = Instant::now();
        let stats = program.wait_next("statistics", |event| event["event"] == "stats");
        if begun.elapsed() >= Duration::from_millis(100) {
            return stats;
        }
    }
}

/// The frames that a viewer has decoded of the first participant, in the newest statistics.
fn decoded(viewer: &mut Program) -> u64 {
    let stats = newest(viewer);
    let video = first_participant(&stats).map(|one| &one["video"]["decoded"]);
    video.and_then(Value::as_u64).unwrap_or(0)
}

/// Waits until a viewer has decoded video.
fn wait_for_video(viewer: &mut Program) {
    viewer.wait("video", |event| {
        let decoded = first_participant(event).and_then(|one| one["video"]["decoded"].as_u64());
        event["event"] == "stats" && decoded > Some(2)
    });
}

#[test]
fn video_and_audio_pass_a_narrow_uplink_without_a_flood() {
    let _turn = take_turn();
    let Some([one, other]) = connected() else { return };
    if !narrow(&one, "400kbit") {
        return;
    }
    let mut opener = sender(
        &one,
        &["open", "--kind", "audio+video/one-way", "--id", "a", "--listen", "0.0.0.0"],
    );
    opener.event("opened");
    let mut viewer = other.quintet(&["join", &format!("{LINK}/a")]);
    wait_for_video(&mut viewer);
    thread::sleep(Duration::from_secs(5));
    let (before, passed_before, begun) = (decoded(&mut viewer), queue_counts(&one), Instant::now());
    thread::sleep(Duration::from_secs(10));
    let (after, passed) = (decoded(&mut viewer), queue_counts(&one));
    let fps = (after - before) as f64 / begun.elapsed().as_secs_f64();
    let (packets, dropped) = (passed.0 - passed_before.0, passed.1 - passed_before.1);
    println!("{fps:.1} frames a second, {dropped} of {packets} packets dropped");
    assert!(fps >= 4.0, "{fps}");
    assert!(packets >= 400, "{packets}");
    assert!(dropped * 20 <= packets, "{dropped} of {packets}");
}

#[test]
fn media_are_back_within_seconds_after_the_cable_was_out_and_after_a_changed_address() {
    let _turn = share_turn();
    let outage = |seconds| {
        move |[opener, _]: &[Machine; 2]| {
            opener.run("ip link set eth0 down");
            thread::sleep(Duration::from_secs(seconds));
            opener.run("ip link set eth0 up");
        }
    };
    let address = |[_, viewer]: &[Machine; 2]| {
        viewer.run("ip addr del 192.168.5.8/24 dev eth0");
        viewer.address("eth0", &["192.168.5.9/24"]);
    };
    thread::scope(|scope| {
        for seconds in [3, 10, 30] {
            scope.spawn(move || {
                assert_media_return(&format!("an outage of {seconds} s"), outage(seconds));
            });
        }
        scope.spawn(move || assert_media_return("a changed address", address));
    });
}

/// Asserts that video is back within 10 s after something happened to the network of two machines.
fn assert_media_return(what: &str, disturb: impl FnOnce(&[Machine; 2])) {
    let Some(machines) = connected() else { return };
    let [one, other] = &machines;
    let mut opener =
        sender(one, &["open", "--kind", "audio+video/one-way", "--id", "a", "--listen", "0.0.0.0"]);
    opener.event("opened");
    let mut viewer = other.quintet(&["join", &format!("{LINK}/a")]);
    wait_for_video(&mut viewer);
    disturb(&machines);
    println!("back {:.1?} after {what}", time_to_video(&mut viewer));
}

/// How long it takes until a viewer decodes again, in steps of a second. Fails after 10 s,
/// which a connection that has to be replaced takes.
fn time_to_video(viewer: &mut Program) -> Duration {
    let begun = Instant::now();
    let before = decoded(viewer);
    while decoded(viewer) <= before + 2 {
        assert!(begun.elapsed() < Duration::from_secs(10), "no video");
    }
    begun.elapsed()
}
