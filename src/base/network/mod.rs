//! This machine's addresses, and which of them the system would send from.
//!
//! Two parts of the program need them: a hub names one address in its session links, and a
//! connection offers some as ICE candidates. Both query the routing table by a UDP socket that is
//! connected and never sent on: the system then reports the address from which it would send. This
//! works alike on Linux, macOS and Windows, respects policy routing and VPNs, and needs no list of
//! interface names.
//!
//! The calls block for as long as the system takes to list its interfaces, usually well under a
//! millisecond. Nothing is sent.

mod address_selection;
mod interfaces;
mod paths;

use std::net::IpAddr;

pub use address_selection::{AddressFamilies, MAX_CANDIDATES};
pub use paths::KnownPaths;

/// The addresses to bind for one connection, best first, at most [`MAX_CANDIDATES`]: those on which
/// remote peers were reached before, then those of the default routes, then all others. Where the
/// system reports temporary IPv6 addresses (RFC 8981), these replace the stable ones. If there are
/// no other addresses, loopback addresses.
pub fn candidates(known: &KnownPaths) -> Vec<IpAddr> {
    let preferred = known.sources(interfaces::default_sources(), interfaces::source_towards);
    address_selection::select_candidates(
        &interfaces::list_addresses(),
        &preferred,
        interfaces::can_bind,
    )
}

/// Whether the address is one of this machine's, loopback included.
pub fn is_local_address(ip: IpAddr) -> bool {
    let is_specific = !ip.is_unspecified() && !ip.is_multicast();
    is_specific && (ip.is_loopback() || interfaces::can_bind(ip))
}

/// The address that a session link names for a hub that listens on all addresses of these families;
/// `None` if only this machine could use it.
pub fn link_address(families: AddressFamilies) -> Option<IpAddr> {
    address_selection::link_address(
        &interfaces::list_addresses(),
        &interfaces::default_sources(),
        families,
    )
}
