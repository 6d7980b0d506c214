//! The local addresses a connection binds, and so offers as host candidates (RFC 8445, 5.1.1).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    vec,
};

use if_addrs::{IfOperStatus, Interface};

/// Addresses bound at most: each is a socket per connection and a candidate to be checked.
///
/// Enough for wired, wireless and a tunnel in both families; machines with dozens of container
/// bridges would otherwise spend more on checks than on media.
const MAX_ADDRESSES: usize = 6;

/// The machine's usable addresses, enumerated anew whenever sockets are bound: at the start,
/// and again at every ICE restart, so that a restart follows the machine into another network.
///
/// Loopback is taken when there is nothing else. The library's own wildcard leaves it out and
/// so offers, on a machine that is offline, an address that nobody can use.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostAddresses;

impl ToSocketAddrs for HostAddresses {
    type Iter = vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!(%error, "the network interfaces cannot be listed; loopback only");
            vec![]
        });
        let chosen = choose(&interfaces, |ip| UdpSocket::bind((ip, 0)).is_ok());
        Ok(chosen.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect::<Vec<_>>().into_iter())
    }
}

/// The addresses to bind, best first: routable ones, else link-local IPv4, else loopback.
///
/// Of each interface's IPv6 addresses (stable, temporary, old temporary) the first is enough.
/// Link-local IPv6 is left out: it needs a zone that candidates cannot carry (RFC 8839, 5.1).
/// An address that cannot be bound (IPv6 ones that are still being verified) is left out too.
fn choose(interfaces: &[Interface], mut binds: impl FnMut(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut routable: Vec<(&str, IpAddr)> = vec![];
    let mut link_local = vec![];
    for interface in interfaces.iter().filter(|interface| may_be_up(interface)) {
        let ip = interface.ip();
        let same = |(name, known): &(&str, IpAddr)| {
            *known == ip || ip.is_ipv6() && known.is_ipv6() && *name == interface.name
        };
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            continue;
        } else if interface.is_link_local() {
            link_local.extend(ip.is_ipv4().then_some(ip));
        } else if !routable.iter().any(same) && binds(ip) {
            routable.push((&interface.name, ip));
        }
    }
    let mut chosen: Vec<IpAddr> = routable.into_iter().map(|(_, ip)| ip).collect();
    if chosen.is_empty() {
        link_local.retain(|ip| binds(*ip));
        chosen = link_local;
    }
    if chosen.is_empty() {
        chosen = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        chosen.retain(|ip| binds(*ip));
    }
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

/// Tunnels and some virtual interfaces never say that they are up, so only a clear no counts.
fn may_be_up(interface: &Interface) -> bool {
    !matches!(
        interface.oper_status,
        IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
    )
}

#[cfg(test)]
mod tests {
    use if_addrs::{IfAddr, Ifv4Addr, Ifv6Addr};

    use super::*;

    fn interface(name: &str, ip: &str) -> Interface {
        let addr = match ip.parse().unwrap() {
            IpAddr::V4(ip) => IfAddr::V4(Ifv4Addr {
                ip,
                netmask: Ipv4Addr::UNSPECIFIED,
                prefixlen: 24,
                broadcast: None,
            }),
            IpAddr::V6(ip) => IfAddr::V6(Ifv6Addr {
                ip,
                netmask: Ipv6Addr::UNSPECIFIED,
                prefixlen: 64,
                broadcast: None,
            }),
        };
        Interface {
            name: name.to_owned(),
            addr,
            index: None,
            oper_status: IfOperStatus::Unknown,
            is_p2p: false,
            #[cfg(windows)]
            adapter_name: String::new(),
        }
    }

    fn chosen(interfaces: &[Interface]) -> Vec<String> {
        choose(interfaces, |_| true).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn routable_addresses_are_bound_and_one_ipv6_per_interface() {
        let list = [
            interface("lo", "127.0.0.1"),
            interface("eth0", "192.0.2.7"),
            interface("eth0", "fe80::1"),
            interface("eth0", "2001:db8::1"),
            interface("eth0", "2001:db8::2"),
            interface("wlan0", "169.254.3.4"),
            interface("wlan0", "2001:db8:1::1"),
        ];
        assert_eq!(chosen(&list), ["192.0.2.7", "2001:db8::1", "2001:db8:1::1"]);
    }

    #[test]
    fn a_machine_without_network_uses_loopback() {
        let list = [interface("lo", "127.0.0.1"), interface("lo", "::1")];
        assert_eq!(chosen(&list), ["127.0.0.1", "::1"]);
        assert_eq!(chosen(&[]), ["127.0.0.1", "::1"]);
        assert_eq!(chosen(&[interface("eth0", "fe80::1")]), ["127.0.0.1", "::1"]);
    }

    #[test]
    fn a_cable_between_two_machines_uses_its_link_local_address() {
        assert_eq!(chosen(&[interface("eth0", "169.254.3.4")]), ["169.254.3.4"]);
    }

    #[test]
    fn an_interface_that_is_down_or_an_address_that_cannot_be_bound_is_left_out() {
        let mut down = interface("eth1", "198.51.100.1");
        down.oper_status = IfOperStatus::Down;
        let list = [down, interface("eth0", "2001:db8::1"), interface("eth0", "192.0.2.7")];
        let bound = choose(&list, |ip| ip.is_ipv4());
        assert_eq!(bound, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn dozens_of_bridges_are_not_all_bound() {
        let list: Vec<_> =
            (0..40).map(|n| interface(&format!("br{n}"), &format!("172.16.{n}.1"))).collect();
        assert_eq!(chosen(&list).len(), MAX_ADDRESSES);
    }
}
