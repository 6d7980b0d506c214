//! Addresses that are known to lead to remote peers.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::watch;

/// Local addresses that are kept: one for each path that remote peers use at the same time.
const MAX_LOCAL: usize = 4;

/// The newest remote addresses that are kept: enough for the candidates of the newest remote peer,
/// and few enough to look up a route to each for every connection.
const MAX_REMOTE: usize = 16;

/// The known paths to remote peers: the local addresses on which a peer was reached, and the
/// addresses that peers name as theirs.
///
/// Clones share the addresses. Untrusted input can fill the list; this costs some queries of the
/// routing table, and never displaces the default routes.
#[derive(Clone, Debug, Default)]
pub struct KnownPaths(Arc<watch::Sender<KnownAddresses>>);

#[derive(Debug, Default)]
struct KnownAddresses {
    /// The newest first.
    local: Vec<IpAddr>,
    /// The newest first.
    remote: Vec<IpAddr>,
}

impl KnownPaths {
    /// Records a local address from which a remote machine was reached, or that a remote machine
    /// has reached.
    pub fn record_local(&self, ip: IpAddr) {
        self.0.send_modify(|known| put_first(&mut known.local, ip, MAX_LOCAL));
    }

    /// Records an address at which a remote machine may be reached.
    pub fn record_remote(&self, ip: IpAddr) {
        self.0.send_modify(|known| put_first(&mut known.remote, ip, MAX_REMOTE));
    }

    /// The source addresses to prefer, best first: those on which a peer was reached, those of the
    /// default routes, then those towards the remote addresses.
    pub(super) fn sources(
        &self,
        defaults: Vec<IpAddr>,
        source_towards: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> Sources {
        let (local, remote) = {
            let known = self.0.borrow();
            (known.local.clone(), known.remote.clone())
        };
        let towards = remote.into_iter().filter_map(source_towards);
        Sources { confirmed: local, routes: defaults.into_iter().chain(towards).collect() }
    }
}

/// Source addresses to prefer, best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sources {
    /// Addresses on which a remote peer was reached, so that it knows them already.
    pub(super) confirmed: Vec<IpAddr>,
    /// Source addresses of routes.
    pub(super) routes: Vec<IpAddr>,
}

fn put_first(list: &mut Vec<IpAddr>, ip: IpAddr, capacity: usize) {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return;
    }
    list.retain(|known| *known != ip);
    list.insert(0, ip);
    list.truncate(capacity);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn confirmed_addresses_come_before_the_default_routes_and_others_after_them() {
        let paths = KnownPaths::default();
        paths.record_local(ip("::ffff:192.168.5.7"));
        paths.clone().record_remote(ip("10.8.0.9"));
        paths.record_remote(ip("203.0.113.1"));
        let route = |remote: IpAddr| (remote == ip("10.8.0.9")).then(|| ip("10.8.0.2"));
        let sources = paths.sources(vec![ip("192.0.2.1")], route);
        let (confirmed, routes) = (vec![ip("192.168.5.7")], vec![ip("192.0.2.1"), ip("10.8.0.2")]);
        assert_eq!(sources, Sources { confirmed, routes });
    }

    #[test]
    fn the_newest_addresses_are_kept_and_loopback_is_ignored() {
        let paths = KnownPaths::default();
        for n in 0..=255 {
            paths.record_remote(IpAddr::from([198, 51, 100, n]));
            paths.record_local(IpAddr::from([192, 0, 2, n]));
        }
        paths.record_local(ip("127.0.0.1"));
        paths.record_remote(ip("::1"));
        let sources = paths.sources(vec![], Some);
        assert_eq!((sources.confirmed.len(), sources.routes.len()), (MAX_LOCAL, MAX_REMOTE));
        assert_eq!(sources.confirmed[0], ip("192.0.2.255"));
        assert_eq!(sources.routes[0], ip("198.51.100.255"));
    }
}
