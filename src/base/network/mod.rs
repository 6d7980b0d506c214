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

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

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

/// How often [`until_gone`] looks.
const GONE_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Whether an address that a socket is bound to is no longer one of this machine's. The socket stays
/// open then, and no packet leaves or reaches it. A cable that is out does not count where the
/// address stays, and neither does a failure to find out.
pub fn is_gone(local: SocketAddr) -> bool {
    !local.ip().to_canonical().is_loopback() && interfaces::is_unavailable(local)
}

/// Returns within 0.2 s after the address [is gone](is_gone). Never returns for a loopback address.
pub async fn until_gone(local: SocketAddr) {
    if local.ip().to_canonical().is_loopback() {
        return std::future::pending().await;
    }
    while !is_gone(local) {
        tokio::time::sleep(GONE_CHECK_INTERVAL).await;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_of_no_machine_is_gone_and_one_of_this_machine_is_not() {
        assert!(is_gone(at("192.0.2.1:7340")), "for documentation (RFC 5737)");
        let is_kept = |local: &IpAddr| !is_gone(SocketAddr::new(*local, 7340));
        assert!(candidates(&KnownPaths::default()).iter().all(is_kept));
        assert!(!is_gone(at("127.0.0.1:7340")) && !is_gone(at("0.0.0.0:7340")));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_an_address_to_go_ends_at_once_if_it_has_gone_and_never_on_loopback() {
        let limit = Duration::from_secs(60);
        let wait = async |local| tokio::time::timeout(limit, until_gone(at(local))).await.is_ok();
        assert_eq!([wait("192.0.2.1:7340").await, wait("127.0.0.1:7340").await], [true, false]);
    }
}
