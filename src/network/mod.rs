//! This machine's addresses, and which of them the system would send from.
//!
//! Two parts of the program need that: a hub names one address in its links, and a connection
//! offers some as ICE candidates. Both ask the routing table, by a UDP socket that is connected
//! and never sent on: the system then says which address it would send from. That works alike on
//! Linux, macOS and Windows, follows policy routing and VPNs, and needs no list of names.
//!
//! The calls block for as long as the system takes to list its interfaces, usually well under a
//! millisecond. Nothing is sent.

mod interfaces;
mod order;
mod paths;

use std::net::IpAddr;

pub use order::{Families, MAX_CANDIDATES};
pub use paths::KnownPaths;

/// The addresses to bind for one connection, best first, at most [`MAX_CANDIDATES`]: those that
/// are known to lead to others, then those of the default routes, then what else there is. Where the
/// system makes temporary IPv6 addresses (RFC 8981) and says so, others are told these.
/// Loopback addresses if there is nothing else.
pub fn candidates(known: &KnownPaths) -> Vec<IpAddr> {
    let preferred = known.sources(interfaces::default_sources(), interfaces::source_towards);
    order::candidates(&interfaces::list(), &preferred, interfaces::can_be_bound)
}

/// Whether the address is one of this machine's, loopback included.
pub fn is_own(ip: IpAddr) -> bool {
    let names_one = !ip.is_unspecified() && !ip.is_multicast();
    names_one && (ip.is_loopback() || interfaces::can_be_bound(ip))
}

/// The address that a link names for something that listens on all addresses of these families;
/// `None` if only this machine could use it.
pub fn link_address(families: Families) -> Option<IpAddr> {
    order::link_address(&interfaces::list(), &interfaces::default_sources(), families)
}
