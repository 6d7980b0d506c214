//! What is known about the ways to others.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::watch;

/// Own addresses kept: one for each way that others use at a time.
const OWN: usize = 4;

/// Addresses of others kept, the newest: enough for the candidates of the newest other end, and
/// few enough to be asked about for each connection.
const OTHERS: usize = 16;

/// Ways to others that this process knows: the addresses of this machine on which somebody was
/// reached, and the addresses that others name as theirs.
///
/// Shared by its clones. A stranger can fill it with addresses; that costs some questions to the
/// routing table and never displaces the default routes.
#[derive(Clone, Debug, Default)]
pub struct KnownPaths(Arc<watch::Sender<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The newest first.
    own: Vec<IpAddr>,
    /// The newest first.
    others: Vec<IpAddr>,
}

impl KnownPaths {
    /// Notes an address of this machine that somebody elsewhere was reached from, or reached.
    pub fn note_own(&self, ip: IpAddr) {
        self.0.send_modify(|known| put_first(&mut known.own, ip, OWN));
    }

    /// Notes an address that somebody elsewhere may be reached at.
    pub fn note_other(&self, ip: IpAddr) {
        self.0.send_modify(|known| put_first(&mut known.others, ip, OTHERS));
    }

    /// The source addresses to prefer, best first: those that have worked, those of the default
    /// routes, then those towards the others.
    pub(super) fn sources(
        &self,
        defaults: Vec<IpAddr>,
        source_towards: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> Sources {
        let (own, others) = {
            let known = self.0.borrow();
            (known.own.clone(), known.others.clone())
        };
        let towards = others.into_iter().filter_map(source_towards);
        Sources { own, routes: defaults.into_iter().chain(towards).collect() }
    }
}

/// Source addresses to prefer, best first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Sources {
    /// Those on which somebody was reached, who therefore knows them.
    pub(super) own: Vec<IpAddr>,
    /// Those of routes.
    pub(super) routes: Vec<IpAddr>,
}

fn put_first(list: &mut Vec<IpAddr>, ip: IpAddr, most: usize) {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return;
    }
    list.retain(|known| *known != ip);
    list.insert(0, ip);
    list.truncate(most);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_has_worked_goes_before_the_default_routes_and_others_come_after() {
        let paths = KnownPaths::default();
        paths.note_own(ip("::ffff:192.168.5.7"));
        paths.clone().note_other(ip("10.8.0.9"));
        paths.note_other(ip("203.0.113.1"));
        let route = |other: IpAddr| (other == ip("10.8.0.9")).then(|| ip("10.8.0.2"));
        let sources = paths.sources(vec![ip("192.0.2.1")], route);
        let (own, routes) = (vec![ip("192.168.5.7")], vec![ip("192.0.2.1"), ip("10.8.0.2")]);
        assert_eq!(sources, Sources { own, routes });
    }

    #[test]
    fn the_newest_are_kept_and_loopback_leads_nowhere() {
        let paths = KnownPaths::default();
        for n in 0..=255 {
            paths.note_other(IpAddr::from([198, 51, 100, n]));
            paths.note_own(IpAddr::from([192, 0, 2, n]));
        }
        paths.note_own(ip("127.0.0.1"));
        paths.note_other(ip("::1"));
        let sources = paths.sources(vec![], Some);
        assert_eq!((sources.own.len(), sources.routes.len()), (OWN, OTHERS));
        assert_eq!(sources.own[0], ip("192.0.2.255"));
        assert_eq!(sources.routes[0], ip("198.51.100.255"));
    }
}
