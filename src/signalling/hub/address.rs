//! Which of this machine's addresses others can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::HubUrl;

/// How interfaces of containers and virtual machines are called: others do not reach those.
const INNER: &[&str] = &["br-", "docker", "lxc", "podman", "vboxnet", "veth", "virbr", "vmnet"];

/// What links of a hub that listens there start with.
///
/// If it listens on all interfaces, the best one's address; 127.0.0.1 if there is no other.
pub(super) fn reachable(listening: SocketAddr) -> HubUrl {
    let ip = if listening.ip().is_unspecified() {
        // A machine whose interfaces cannot be listed can still be used from itself.
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let up = interfaces.iter().filter(|interface| interface.is_oper_up());
        best(up.map(|interface| (interface.name.as_str(), interface.ip())), listening.is_ipv6())
    } else {
        listening.ip()
    };
    let text = format!("http://{}", SocketAddr::new(ip, listening.port()));
    text.parse().expect("an address and a port make a URL")
}

/// The address that most others can reach: IPv4 first, containers last.
fn best<'a>(interfaces: impl Iterator<Item = (&'a str, IpAddr)>, takes_ipv6: bool) -> IpAddr {
    let rank = |name: &str, ip: IpAddr| {
        let is_inner = INNER.iter().any(|inner| name.starts_with(inner));
        let is_far = match ip {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        (is_far, !is_inner, ip.is_ipv4())
    };
    interfaces
        .filter(|(_, ip)| !ip.is_loopback() && !ip.is_unspecified())
        .filter(|(_, ip)| match ip {
            IpAddr::V4(_) => true,
            // A link-local IPv6 address needs a zone, which a link cannot carry.
            IpAddr::V6(ip) => takes_ipv6 && !ip.is_unicast_link_local(),
        })
        // The first of the best, in the system's order: `max_by_key` would take the last.
        .reduce(|best, next| if rank(next.0, next.1) > rank(best.0, best.1) { next } else { best })
        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |(_, ip)| ip)
}

/// Whom the limits of an address concern: an IPv6 host has a whole /64 of them.
pub(super) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best_of(interfaces: &[(&str, &str)], takes_ipv6: bool) -> String {
        let parsed = interfaces.iter().map(|(name, ip)| (*name, ip.parse().unwrap()));
        best(parsed, takes_ipv6).to_string()
    }

    #[test]
    fn the_best_address_is_one_that_others_reach() {
        let all = [
            ("lo", "127.0.0.1"),
            ("eth9", "169.254.1.2"),
            ("docker0", "172.17.0.1"),
            ("eth0", "2001:db8::5"),
            ("eth0", "192.168.1.5"),
            ("wlan0", "192.168.1.6"),
        ];
        assert_eq!(best_of(&all, true), "192.168.1.5");
        assert_eq!(best_of(&all[..4], true), "2001:db8::5");
        assert_eq!(best_of(&all[..4], false), "172.17.0.1");
        assert_eq!(best_of(&all[..2], false), "169.254.1.2");
        assert_eq!(best_of(&all[..1], true), "127.0.0.1");
        assert_eq!(best_of(&[("eth0", "fe80::1")], true), "127.0.0.1");
    }

    #[test]
    fn a_hub_on_all_interfaces_names_one_and_keeps_its_port() {
        for listening in ["0.0.0.0:7340", "[::]:7340"] {
            let url = reachable(listening.parse().unwrap());
            assert!(url.as_str().ends_with(":7340"), "{url}");
            assert!(!url.as_str().contains("0.0.0.0") && !url.as_str().contains("[::]"), "{url}");
        }
        let exact = reachable("[::1]:7341".parse().unwrap());
        assert_eq!(exact.as_str(), "http://[::1]:7341");
    }

    #[test]
    fn an_ipv6_host_is_one_source_however_many_addresses_it_takes() {
        let source = |text: &str| source(text.parse().unwrap()).to_string();
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), source("2001:db8:1:2:ffff::1"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.168.1.5"), "192.168.1.5");
        assert_eq!(source("::1"), "::1");
    }
}
