//! Selects addresses from what the system reports about them, without any list of interface names.

use std::{
    cmp::Reverse,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{interfaces::LocalAddress, paths::Sources};

/// Addresses that one connection binds: each is a socket and a candidate to be checked.
///
/// Enough for wired, wireless and a tunnel in both families; machines with dozens of container
/// bridges would otherwise spend more on checks than on media.
pub const MAX_CANDIDATES: usize = 6;

/// The address families on which a hub listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressFamilies {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// The addresses to bind, best first: the preferred ones in their order, then the others, devices
/// before bridges and those before tunnels. Without any of these, link-local IPv4; without that,
/// loopback.
///
/// Of the other IPv6 addresses, one per interface is enough (an interface has stable, temporary and
/// deprecated ones). A stable address is replaced by the temporary one of the same network (RFC
/// 8981), because it would identify this machine for long. It is kept only if remote peers have
/// reached us on it, because they know it already. Addresses that cannot be bound are left out.
pub(super) fn select_candidates(
    addresses: &[LocalAddress],
    preferred: &Sources,
    mut binds: impl FnMut(IpAddr) -> bool,
) -> Vec<IpAddr> {
    let mut chosen: Vec<&LocalAddress> = vec![];
    let mut others: Vec<_> = addresses.iter().filter(|one| !is_link_local(one.ip)).collect();
    others.sort_by_key(|one| (one.is_deprecated, one.is_tunnel, !one.is_hardware));
    let known = |ip: &IpAddr| addresses.iter().find(|one| one.ip == *ip);
    let confirmed = preferred.confirmed.iter().filter_map(known);
    let mut temporary_if_any = |one| match temporary_of(one, addresses) {
        Some(temporary) if binds(temporary.ip) => temporary,
        Some(_) | None => one,
    };
    let routes: Vec<_> =
        preferred.routes.iter().filter_map(known).map(&mut temporary_if_any).collect();
    let others: Vec<_> = others.into_iter().map(&mut temporary_if_any).collect();
    for one in confirmed.chain(routes) {
        if chosen.len() < MAX_CANDIDATES && !contains(&chosen, one) && binds(one.ip) {
            chosen.push(one);
        }
    }
    for one in others {
        let has_ipv6 =
            |known: &&LocalAddress| known.ip.is_ipv6() && known.interface == one.interface;
        let is_redundant = one.ip.is_ipv6() && chosen.iter().any(has_ipv6);
        if chosen.len() < MAX_CANDIDATES
            && !contains(&chosen, one)
            && !is_redundant
            && binds(one.ip)
        {
            chosen.push(one);
        }
    }
    let mut chosen: Vec<IpAddr> = chosen.into_iter().map(|one| one.ip).collect();
    let fallbacks = [
        addresses.iter().map(|one| one.ip).filter(|ip| is_link_local(*ip)).collect(),
        vec![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()],
    ];
    for fallback in fallbacks {
        if chosen.is_empty() {
            chosen = fallback.into_iter().filter(|ip| binds(*ip)).take(MAX_CANDIDATES).collect();
        }
    }
    chosen
}

/// The address that most other machines can reach. An address on a default route is preferred, then
/// one of a device, then IPv4, then a stable one. Of equal addresses it is the first in the
/// system's order.
pub(super) fn link_address(
    addresses: &[LocalAddress],
    defaults: &[IpAddr],
    families: AddressFamilies,
) -> Option<IpAddr> {
    let is_listened_on = |one: &&LocalAddress| match one.ip {
        IpAddr::V4(_) => families.ipv4,
        IpAddr::V6(_) => families.ipv6,
    };
    let rank = |one: &LocalAddress| {
        let leads_out = defaults.iter().any(|source| shares_route(one, *source, addresses));
        (
            (Reverse(is_link_local(one.ip) || is_translated(one.ip)), leads_out),
            Reverse((one.is_deprecated, one.is_tunnel, !one.is_hardware)),
            one.ip.is_ipv4(),
            Reverse(one.is_temporary),
        )
    };
    let listened = addresses.iter().filter(is_listened_on);
    let best = listened.reduce(|best, next| if rank(next) > rank(best) { next } else { best });
    best.map(|one| one.ip)
}

/// Whether an address is the source of a default route, or an IPv6 address in the same /64 as such
/// a source. The system sends from its temporary address, but a session link names the stable one.
fn shares_route(one: &LocalAddress, source: IpAddr, addresses: &[LocalAddress]) -> bool {
    let is_on = |ip: IpAddr| {
        addresses.iter().any(|other| other.ip == ip && other.interface == one.interface)
    };
    match (one.ip, source) {
        (IpAddr::V4(own), IpAddr::V4(source)) => own == source,
        (IpAddr::V6(own), IpAddr::V6(source)) => {
            own.to_bits() >> 64 == source.to_bits() >> 64 && is_on(IpAddr::V6(source))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// The temporary address of the network of a stable IPv6 address.
fn temporary_of<'a>(
    stable: &LocalAddress,
    addresses: &'a [LocalAddress],
) -> Option<&'a LocalAddress> {
    let network = |ip: IpAddr| match ip {
        IpAddr::V6(ip) => Some(ip.to_bits() >> 64),
        IpAddr::V4(_) => None,
    };
    let prefix = network(stable.ip).filter(|_| !stable.is_temporary)?;
    addresses.iter().find(|one| {
        one.is_temporary
            && !one.is_deprecated
            && one.interface == stable.interface
            && network(one.ip) == Some(prefix)
    })
}

fn contains(chosen: &[&LocalAddress], one: &LocalAddress) -> bool {
    chosen.iter().any(|known| known.ip == one.ip)
}

/// Link-local IPv4 (RFC 3927); link-local IPv6 is not among the addresses.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_link_local())
}

/// An address that exists only on this machine, to reach IPv4 through an IPv6 network (RFC 7335).
fn is_translated(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets(), [192, 0, 0, 0..=7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: AddressFamilies = AddressFamilies { ipv4: true, ipv6: true };

    fn address(interface: &str, ip: &str) -> LocalAddress {
        LocalAddress {
            interface: interface.to_owned(),
            ip: ip.parse().unwrap(),
            is_tunnel: false,
            is_hardware: true,
            is_temporary: false,
            is_deprecated: false,
        }
    }

    fn bridge(interface: &str, ip: &str) -> LocalAddress {
        LocalAddress { is_hardware: false, ..address(interface, ip) }
    }

    fn tunnel(interface: &str, ip: &str) -> LocalAddress {
        LocalAddress { is_tunnel: true, ..bridge(interface, ip) }
    }

    fn temporary(interface: &str, ip: &str) -> LocalAddress {
        LocalAddress { is_temporary: true, ..address(interface, ip) }
    }

    /// Bridges of containers, which the system lists first if they were created first.
    fn bridges(count: usize) -> Vec<LocalAddress> {
        (0..count).map(|n| bridge(&format!("b{n}"), &format!("172.16.{n}.1"))).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn chosen(addresses: &[LocalAddress], preferred: &[&str]) -> Vec<String> {
        let preferred = Sources { confirmed: vec![], routes: ips(preferred) };
        let chosen = select_candidates(addresses, &preferred, |_| true);
        chosen.iter().map(IpAddr::to_string).collect()
    }

    fn named_in_link(addresses: &[LocalAddress], defaults: &[&str]) -> String {
        let best = link_address(addresses, &ips(defaults), BOTH);
        best.map_or_else(|| "none".to_owned(), |ip| ip.to_string())
    }

    #[test]
    fn the_source_of_a_route_goes_before_any_number_of_bridges() {
        let mut list = bridges(40);
        list.push(address("eth0", "192.0.2.7"));
        list.push(address("eth0", "2001:db8::7"));
        list.push(tunnel("tun0", "10.8.0.2"));
        let chosen = chosen(&list, &["192.0.2.7", "2001:db8::7"]);
        assert_eq!(chosen[..2], ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(chosen.len(), MAX_CANDIDATES);
    }

    #[test]
    fn addresses_that_lead_to_the_remote_peer_are_chosen_even_on_a_bridge_or_a_tunnel() {
        let mut list = bridges(40);
        list.push(tunnel("tun0", "10.8.0.2"));
        list.push(address("eth0", "192.0.2.7"));
        let chosen = chosen(&list, &["192.0.2.7", "10.8.0.2", "172.16.33.1"]);
        assert_eq!(chosen[..3], ["192.0.2.7", "10.8.0.2", "172.16.33.1"]);
    }

    #[test]
    fn without_a_route_devices_go_before_bridges_and_tunnels_go_last() {
        let mut list = vec![tunnel("tun0", "10.8.0.2")];
        list.extend(bridges(3));
        list.push(address("eth0", "192.0.2.7"));
        list.push(address("wlan0", "2001:db8:1::1"));
        let expected =
            ["192.0.2.7", "2001:db8:1::1", "172.16.0.1", "172.16.1.1", "172.16.2.1", "10.8.0.2"];
        assert_eq!(chosen(&list, &[]), expected);
    }

    #[test]
    fn a_preferred_address_that_is_gone_is_not_bound_and_none_is_bound_twice() {
        let list = [address("eth0", "192.0.2.7"), address("eth1", "192.0.2.7")];
        assert_eq!(chosen(&list, &["198.51.100.9", "192.0.2.7", "192.0.2.7"]), ["192.0.2.7"]);
    }

    #[test]
    fn one_ipv6_address_per_interface_is_chosen_unless_routes_prefer_more() {
        let list = [
            address("eth0", "2001:db8::1"),
            temporary("eth0", "2001:db8::aaaa"),
            address("eth0", "fd00::1"),
            address("wlan0", "2001:db8:1::1"),
            temporary("wlan0", "2001:db8:1::2"),
        ];
        assert_eq!(chosen(&list, &[]), ["2001:db8::aaaa", "2001:db8:1::2"]);
        let preferred = ["2001:db8::aaaa", "fd00::1"];
        assert_eq!(chosen(&list, &preferred), ["2001:db8::aaaa", "fd00::1", "2001:db8:1::2"]);
    }

    #[test]
    fn a_temporary_address_replaces_a_stable_one_unless_remote_peers_know_that() {
        let mut list = [
            address("eth0", "2001:db8::1"),
            temporary("eth0", "2001:db8::aaaa"),
            temporary("eth0", "2001:db8:1::bbbb"),
            temporary("wlan0", "2001:db8::cccc"),
        ];
        // A system that sends from the stable address nevertheless.
        assert_eq!(chosen(&list, &["2001:db8::1"])[0], "2001:db8::aaaa");
        let confirmed = Sources { confirmed: ips(&["2001:db8::1"]), routes: vec![] };
        assert_eq!(select_candidates(&list, &confirmed, |_| true)[0], ips(&["2001:db8::1"])[0]);
        let only_stable = |ip: IpAddr| ip == ips(&["2001:db8::1"])[0];
        let route = Sources { confirmed: vec![], routes: ips(&["2001:db8::1"]) };
        assert_eq!(select_candidates(&list, &route, only_stable), ips(&["2001:db8::1"]));
        list[1].is_deprecated = true;
        assert_eq!(chosen(&list, &["2001:db8::1"])[0], "2001:db8::1");
    }

    #[test]
    fn without_other_addresses_link_local_ones_are_chosen_and_then_loopback() {
        assert_eq!(chosen(&[], &[]), ["127.0.0.1", "::1"]);
        let cable = [address("eth0", "169.254.3.4")];
        assert_eq!(chosen(&cable, &[]), ["169.254.3.4"]);
        let both = [address("eth0", "169.254.3.4"), address("wlan0", "192.0.2.7")];
        assert_eq!(chosen(&both, &[]), ["192.0.2.7"]);
        assert_eq!(chosen(&both, &["169.254.3.4"]), ["169.254.3.4", "192.0.2.7"]);
    }

    #[test]
    fn an_address_that_cannot_be_bound_is_skipped() {
        let mut list = bridges(4);
        list.extend((0..6).map(|n| address(&format!("e{n}"), &format!("192.0.2.{n}"))));
        let preferred = Sources { confirmed: vec![], routes: ips(&["192.0.2.3"]) };
        let chosen = select_candidates(&list, &preferred, |ip| ip.to_string().starts_with("172"));
        assert_eq!(chosen.len(), 4);
        assert!(select_candidates(&list, &Sources::default(), |_| false).is_empty());
    }

    #[test]
    fn a_link_names_the_address_of_the_default_route() {
        let list = [bridge("cni0", "10.42.0.1"), address("eth0", "192.168.5.7")];
        assert_eq!(named_in_link(&list, &["192.168.5.7"]), "192.168.5.7");
        let inside_a_container = [bridge("eth0", "172.17.0.2"), address("usb0", "10.0.0.1")];
        assert_eq!(named_in_link(&inside_a_container, &["172.17.0.2"]), "172.17.0.2");
        let over_a_modem = [address("eth0", "192.168.5.7"), tunnel("ppp0", "203.0.113.5")];
        assert_eq!(named_in_link(&over_a_modem, &["203.0.113.5"]), "203.0.113.5");
    }

    #[test]
    fn of_two_default_routes_a_link_names_ipv4() {
        let list = [address("eth0", "2001:db8::5"), address("eth0", "192.168.5.7")];
        assert_eq!(named_in_link(&list, &["192.168.5.7", "2001:db8::5"]), "192.168.5.7");
        let only_ipv6 = AddressFamilies { ipv4: false, ipv6: true };
        let best = link_address(&list, &ips(&["192.168.5.7", "2001:db8::5"]), only_ipv6);
        assert_eq!(best, Some("2001:db8::5".parse().unwrap()));
    }

    #[test]
    fn an_ipv6_route_is_preferred_to_an_ipv4_address_without_a_route() {
        let list = [bridge("docker0", "172.17.0.1"), address("eth0", "2001:db8::5")];
        assert_eq!(named_in_link(&list, &["2001:db8::5"]), "2001:db8::5");
        let translated = [address("clat", "192.0.0.2"), address("eth0", "2001:db8::5")];
        assert_eq!(named_in_link(&translated, &["192.0.0.2", "2001:db8::5"]), "2001:db8::5");
    }

    #[test]
    fn a_link_names_a_stable_ipv6_address() {
        let list = [
            temporary("eth0", "2001:db8::a1b2"),
            address("eth0", "2001:db8::5"),
            address("eth0", "fd00::5"),
            address("eth1", "2001:db8:0:1::5"),
        ];
        assert_eq!(named_in_link(&list, &["2001:db8::a1b2"]), "2001:db8::5");
        assert_eq!(named_in_link(&list[..1], &["2001:db8::a1b2"]), "2001:db8::a1b2");
        let mut old = list.to_vec();
        old[1].is_deprecated = true;
        assert_eq!(named_in_link(&old, &["2001:db8::a1b2"]), "2001:db8::a1b2");
    }

    #[test]
    fn without_a_default_route_a_link_names_a_device_before_a_bridge_and_a_tunnel_last() {
        let list = [
            tunnel("wg0", "10.9.0.1"),
            bridge("docker0", "172.17.0.1"),
            address("eth0", "169.254.3.4"),
            address("wlan0", "192.168.5.7"),
        ];
        assert_eq!(named_in_link(&list, &[]), "192.168.5.7");
        assert_eq!(named_in_link(&list[..3], &[]), "172.17.0.1");
        assert_eq!(named_in_link(&list[2..3], &[]), "169.254.3.4");
        assert_eq!(named_in_link(&[], &[]), "none");
    }
}
