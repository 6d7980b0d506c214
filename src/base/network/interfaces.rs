//! The system's interfaces, their addresses, and the source addresses of its routes.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use if_addrs::{IfOperStatus, Interface};

/// An address of this machine that is neither loopback nor link-local IPv6.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LocalAddress {
    /// The interface that has it.
    pub(super) interface: String,
    /// The address.
    pub(super) ip: IpAddr,
    /// Whether the interface is point-to-point, as most VPNs are.
    pub(super) is_tunnel: bool,
    /// Whether a hardware device is below the interface. True where the system does not report it.
    pub(super) is_hardware: bool,
    /// Whether the system replaces the address after about a day (RFC 8981). False where the system
    /// does not report it.
    pub(super) is_temporary: bool,
    /// Whether new connections should no longer use the address (RFC 4862, section 5.5.4).
    pub(super) is_deprecated: bool,
}

/// Addresses that are reached by the default routes on any network: those of a root name server.
/// They are only looked up in the routing table; nothing is sent to them.
const ROUTE_PROBES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30)),
];

/// An arbitrary port: nothing is sent to it.
const DISCARD_PORT: u16 = 9;

/// The addresses of interfaces that may be up, in the system's order. If they cannot be listed,
/// this is logged and the result is empty.
pub(super) fn list_addresses() -> Vec<LocalAddress> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the network interfaces cannot be listed");
        vec![]
    });
    let flags = ipv6_flags();
    interfaces.iter().filter_map(|interface| local_address(interface, &flags)).collect()
}

/// The source addresses of the default routes, IPv4 first. A family without a default route has
/// none.
pub(super) fn default_sources() -> Vec<IpAddr> {
    ROUTE_PROBES.into_iter().filter_map(source_towards).collect()
}

/// The source address from which the system would send to `remote`; `None` without a route.
pub(super) fn source_towards(remote: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((remote, DISCARD_PORT)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_unspecified()).then_some(source)
}

/// Whether a socket can be bound to the address. An IPv6 address that is still being verified
/// cannot be bound.
pub(super) fn can_bind(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Whether the system says that the address is none of this machine's. The zone of an IPv6 address
/// counts.
pub(super) fn is_unavailable(mut local: SocketAddr) -> bool {
    local.set_port(0);
    UdpSocket::bind(local).is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

fn local_address(interface: &Interface, flags: &[(Ipv6Addr, Ipv6Flags)]) -> Option<LocalAddress> {
    let ip = interface.ip();
    if !may_be_up(interface) || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let flags = match ip {
        // A link-local IPv6 address needs a zone, which neither session links nor candidates can
        // carry (RFC 8839, section 5.1).
        IpAddr::V6(ip) if ip.is_unicast_link_local() => return None,
        IpAddr::V6(ip) => flags.iter().find(|(known, _)| *known == ip).map(|(_, flags)| *flags),
        IpAddr::V4(_) => None,
    };
    let flags = flags.unwrap_or_default();
    (!flags.is_unverified).then(|| LocalAddress {
        interface: interface.name.clone(),
        ip,
        is_tunnel: interface.is_p2p(),
        is_hardware: has_device(&interface.name),
        is_temporary: flags.is_temporary,
        is_deprecated: flags.is_deprecated,
    })
}

/// Whether the interface is not reported as down. Tunnels and some virtual interfaces never report
/// that they are up.
fn may_be_up(interface: &Interface) -> bool {
    !matches!(
        interface.oper_status,
        IfOperStatus::Down | IfOperStatus::NotPresent | IfOperStatus::LowerLayerDown
    )
}

/// The system's flags of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ipv6Flags {
    is_temporary: bool,
    is_deprecated: bool,
    /// It is still being verified, or another machine was found to have it.
    is_unverified: bool,
}

#[cfg(target_os = "linux")]
fn ipv6_flags() -> Vec<(Ipv6Addr, Ipv6Flags)> {
    // The file does not exist if IPv6 is disabled.
    read_flags(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
fn ipv6_flags() -> Vec<(Ipv6Addr, Ipv6Flags)> {
    vec![]
}

/// Parses Linux's table of IPv6 addresses. Its columns are address, index, prefix length, scope,
/// flags and name; the flags are those of `linux/if_addr.h`.
#[cfg(any(target_os = "linux", test))]
fn read_flags(table: &str) -> Vec<(Ipv6Addr, Ipv6Flags)> {
    const TEMPORARY: u32 = 0x01;
    const DAD_FAILED: u32 = 0x08;
    const DEPRECATED: u32 = 0x20;
    const TENTATIVE: u32 = 0x40;
    let read = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let ip = u128::from_str_radix(columns.next()?, 16).ok()?;
        let bits = u32::from_str_radix(columns.nth(3)?, 16).ok()?;
        let flags = Ipv6Flags {
            is_temporary: bits & TEMPORARY != 0,
            is_deprecated: bits & DEPRECATED != 0,
            is_unverified: bits & (TENTATIVE | DAD_FAILED) != 0,
        };
        Some((Ipv6Addr::from_bits(ip), flags))
    };
    table.lines().filter_map(read).collect()
}

/// Whether a hardware device is below an interface, directly or through a bridge, bond or VLAN.
/// Bridges of containers and virtual machines have none; a bridge with a network card has one.
#[cfg(target_os = "linux")]
fn has_device(interface: &str) -> bool {
    /// The deepest nesting that is searched. A VLAN on a bond in a bridge is the deepest in use.
    const MAX_DEPTH: u32 = 4;
    fn has_device_below(folder: &std::path::Path, depth: u32) -> bool {
        if folder.join("device").exists() {
            return true;
        }
        let Ok(entries) = std::fs::read_dir(folder) else { return false };
        let is_lower =
            |entry: &std::fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b"lower_");
        depth > 0
            && entries
                .flatten()
                .filter(is_lower)
                .any(|one| has_device_below(&one.path(), depth - 1))
    }
    // An address may have the name of an alias, such as eth0:1.
    let interface = interface.split(':').next().unwrap_or(interface);
    has_device_below(&std::path::Path::new("/sys/class/net").join(interface), MAX_DEPTH)
}

#[cfg(not(target_os = "linux"))]
const fn has_device(_interface: &str) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_ipv6_addresses_are_parsed_from_linuxs_table() {
        let table = "\
            20010db8000000000000000000000005 02 40 00 80     eth0\n\
            20010db800000000a1b2c3d4e5f60718 02 40 00 01     eth0\n\
            20010db8000000000000000000000006 02 40 00 a0     eth0\n\
            20010db8000000000000000000000007 02 40 00 c0     eth0\n\
            no line\n";
        let read = read_flags(table);
        let flags = |ip: &str| {
            let ip: Ipv6Addr = ip.parse().unwrap();
            read.iter().find(|(known, _)| *known == ip).unwrap().1
        };
        assert_eq!(read.len(), 4);
        assert_eq!(flags("2001:db8::5"), Ipv6Flags::default());
        assert!(flags("2001:db8::a1b2:c3d4:e5f6:718").is_temporary);
        assert!(flags("2001:db8::6").is_deprecated);
        assert!(flags("2001:db8::7").is_unverified);
    }

    #[test]
    fn the_source_address_towards_loopback_is_loopback() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(source_towards(loopback), Some(loopback));
        assert!(can_bind(loopback));
        assert!(list_addresses().iter().all(|one| !one.ip.is_loopback()));
    }

    #[test]
    fn an_interface_that_is_down_has_no_usable_address() {
        let addr = if_addrs::IfAddr::V4(if_addrs::Ifv4Addr {
            ip: Ipv4Addr::new(198, 51, 100, 1),
            netmask: Ipv4Addr::UNSPECIFIED,
            prefixlen: 24,
            broadcast: None,
        });
        let with = |oper_status| Interface {
            name: "eth1".to_owned(),
            addr: addr.clone(),
            index: None,
            oper_status,
            is_p2p: false,
            #[cfg(windows)]
            adapter_name: String::new(),
        };
        let is_usable = |status| local_address(&with(status), &[]).is_some();
        assert!(is_usable(IfOperStatus::Up) && is_usable(IfOperStatus::Unknown));
        assert!(!is_usable(IfOperStatus::Down) && !is_usable(IfOperStatus::LowerLayerDown));
    }
}
