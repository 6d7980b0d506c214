//! Limits the number of connections: in total, for each source address, and with a reserve for
//! returning clients.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::task::Id;

use super::limits::Links;

/// The most connections beyond the limits that get an HTTP response at a time; others are closed
/// without one.
const MAX_REFUSALS: usize = 64;

/// Counts the connections, and decides on new ones.
#[derive(Debug)]
pub(super) struct Crowd {
    limits: Links,
    visits: BTreeMap<Id, Visit>,
    links: BTreeMap<IpAddr, Count>,
    refusals: usize,
}

/// A counted connection.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// The address that it counts for; `None` while a proxy has not reported the client.
    from: Option<IpAddr>,
    welcome: Welcome,
}

/// The connections of one source address.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    served: usize,
    reserved: usize,
}

/// Whether a connection is within the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Welcome {
    /// It is within the limits.
    Served,
    /// It is beyond the limits, but is accepted if the client has a seat and returns.
    Reserved,
    /// It is beyond the limits and refused.
    Refused,
}

impl Crowd {
    /// A limiter without connections.
    pub(super) fn new(limits: Links) -> Self {
        Self { limits, visits: BTreeMap::new(), links: BTreeMap::new(), refusals: 0 }
    }

    /// Decides on a new connection; `None` if not even a refusal is to be sent. The source of a
    /// connection from a trusted proxy is `None` until the proxy has reported the client.
    pub(super) fn welcome(&self, source: Option<IpAddr>) -> Option<Welcome> {
        let admit = match self.visits.len() - self.refusals < self.limits.all {
            true => source.map_or(Welcome::Served, |source| self.place(source)),
            false => Welcome::Refused,
        };
        (admit != Welcome::Refused || self.refusals < MAX_REFUSALS).then_some(admit)
    }

    /// Counts a connection.
    pub(super) fn came(&mut self, id: Id, source: Option<IpAddr>, admit: Welcome) {
        self.visits.insert(id, Visit { from: source, welcome: admit });
        self.count(Visit { from: source, welcome: admit }, 1);
    }

    /// Counts a connection from a proxy for its client, and decides on it again.
    pub(super) fn is_for(&mut self, id: Id, client: IpAddr) -> Welcome {
        let Some(permit) = self.visits.get(&id).copied() else { return Welcome::Refused };
        let admit = match permit.welcome {
            Welcome::Served => self.place(client),
            refused @ (Welcome::Reserved | Welcome::Refused) => refused,
        };
        self.change(id, Visit { from: Some(client), welcome: admit });
        admit
    }

    /// Counts the connection of a returning client like any other from now on; the normal limit may
    /// be exceeded by that.
    pub(super) fn is_back(&mut self, id: Id) {
        if let Some(permit) = self.visits.get(&id).copied() {
            self.change(id, Visit { welcome: Welcome::Served, ..permit });
        }
    }

    /// Removes a connection.
    pub(super) fn left(&mut self, id: Id) {
        if let Some(permit) = self.visits.remove(&id) {
            self.count(permit, -1);
        }
    }

    /// Decides on one more connection from a source.
    fn place(&self, source: IpAddr) -> Welcome {
        let count = self.links.get(&source).copied().unwrap_or_default();
        if source.is_loopback() || count.served < self.limits.per_source {
            Welcome::Served
        } else if count.reserved < self.limits.reserve {
            Welcome::Reserved
        } else {
            Welcome::Refused
        }
    }

    fn change(&mut self, id: Id, permit: Visit) {
        if let Some(before) = self.visits.insert(id, permit) {
            self.count(before, -1);
        }
        self.count(permit, 1);
    }

    fn count(&mut self, Visit { from: source, welcome: admit }: Visit, delta: isize) {
        let add = |number: &mut usize| *number = number.saturating_add_signed(delta);
        if admit == Welcome::Refused {
            return add(&mut self.refusals);
        }
        let Some(source) = source else { return };
        let count = self.links.entry(source).or_default();
        add(if admit == Welcome::Served { &mut count.served } else { &mut count.reserved });
        if count.served + count.reserved == 0 {
            self.links.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn visit(limiter: &mut Crowd, source: &str) -> (Option<Welcome>, Id) {
        let source = (!source.is_empty()).then(|| source.parse().unwrap());
        let id = tokio::spawn(async {}).id();
        let admit = limiter.welcome(source);
        if let Some(admit) = admit {
            limiter.came(id, source, admit);
        }
        (admit, id)
    }

    async fn fill(limiter: &mut Crowd, source: &str, count: usize, expected: Welcome) -> Vec<Id> {
        let mut ids = vec![];
        for _ in 0..count {
            let (admit, id) = visit(limiter, source).await;
            assert_eq!(admit, Some(expected));
            ids.push(id);
        }
        ids
    }

    #[tokio::test]
    async fn one_address_has_64_connections_and_this_machine_all_4096() {
        let mut limiter = Crowd::new(Links::default());
        let first = fill(&mut limiter, "192.168.1.5", 64, Welcome::Served).await[0];
        fill(&mut limiter, "192.168.1.5", 16, Welcome::Reserved).await;
        let refused = fill(&mut limiter, "192.168.1.5", 1, Welcome::Refused).await[0];
        limiter.left(first);
        fill(&mut limiter, "192.168.1.5", 1, Welcome::Served).await;
        fill(&mut limiter, "127.0.0.1", 4096 - 80, Welcome::Served).await;
        fill(&mut limiter, "127.0.0.1", 1, Welcome::Refused).await;
        limiter.left(refused);
        fill(&mut limiter, "192.168.1.9", 63, Welcome::Refused).await;
        assert_eq!(visit(&mut limiter, "192.168.1.9").await.0, None, "not even a refusal");
    }

    #[tokio::test]
    async fn a_returned_client_does_not_count_for_the_reserve() {
        let mut limiter = Crowd::new(Links { all: 100, per_source: 2, reserve: 1 });
        fill(&mut limiter, "192.168.1.5", 2, Welcome::Served).await;
        let returned = fill(&mut limiter, "192.168.1.5", 1, Welcome::Reserved).await[0];
        fill(&mut limiter, "192.168.1.5", 1, Welcome::Refused).await;
        limiter.is_back(returned);
        let newcomer = fill(&mut limiter, "192.168.1.5", 1, Welcome::Reserved).await[0];
        limiter.left(newcomer);
        limiter.left(returned);
        fill(&mut limiter, "192.168.1.5", 1, Welcome::Reserved).await;
    }

    #[tokio::test]
    async fn a_connection_from_a_proxy_counts_for_its_client() {
        let mut limiter = Crowd::new(Links { all: 100, per_source: 2, reserve: 1 });
        let (client, other) = ("203.0.113.9".parse().unwrap(), "203.0.113.8".parse().unwrap());
        let ids = fill(&mut limiter, "", 5, Welcome::Served).await;
        let admitted: Vec<_> = ids[..4].iter().map(|id| limiter.is_for(*id, client)).collect();
        let expected = [Welcome::Served, Welcome::Served, Welcome::Reserved, Welcome::Refused];
        assert_eq!(admitted, expected);
        assert_eq!(limiter.is_for(ids[4], other), Welcome::Served);
        limiter.left(ids[0]);
        let next = fill(&mut limiter, "", 1, Welcome::Served).await[0];
        assert_eq!(limiter.is_for(next, client), Welcome::Served);
        for id in [&ids[1..], &[next]].concat() {
            limiter.left(id);
        }
        assert!(limiter.visits.is_empty() && limiter.links.is_empty() && limiter.refusals == 0);
    }

    #[tokio::test]
    async fn closed_connections_leave_nothing_behind() {
        let mut limiter = Crowd::new(Links { all: 1, per_source: 1, reserve: 0 });
        for _ in 0..10 {
            let (served, one) = visit(&mut limiter, "192.168.1.5").await;
            let (refused, other) = visit(&mut limiter, "192.168.1.6").await;
            assert_eq!((served, refused), (Some(Welcome::Served), Some(Welcome::Refused)));
            limiter.left(one);
            limiter.left(other);
        }
        assert!(limiter.visits.is_empty() && limiter.links.is_empty() && limiter.refusals == 0);
    }
}
