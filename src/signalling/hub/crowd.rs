//! Who is connected, and who may come: so many of each address, and some more who come back.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::task::Id;

use super::limits::Links;

/// Connections beyond the limits that are told so at a time; others are closed without a word.
const MAX_REFUSALS: usize = 64;

/// Who is connected.
#[derive(Debug)]
pub(super) struct Crowd {
    limits: Links,
    visits: BTreeMap<Id, Visit>,
    links: BTreeMap<IpAddr, Count>,
    refusals: usize,
}

/// A connection that counts.
#[derive(Clone, Copy, Debug)]
struct Visit {
    /// Whose it counts as; none while a proxy has not said yet whom it comes from.
    from: Option<IpAddr>,
    welcome: Welcome,
}

/// The connections of one address.
#[derive(Clone, Copy, Default, Debug)]
struct Count {
    served: usize,
    reserved: usize,
}

/// Whether a connection is within the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Welcome {
    /// It is.
    Served,
    /// It is not, but may be of somebody who has a seat and comes back; else it is refused.
    Reserved,
    /// It is not.
    Refused,
}

impl Crowd {
    /// Nobody.
    pub(super) fn new(limits: Links) -> Self {
        Self { limits, visits: BTreeMap::new(), links: BTreeMap::new(), refusals: 0 }
    }

    /// What a connection from there may expect; `None` if not even a refusal. That of a trusted
    /// proxy comes from nowhere until the proxy has said whom it is for.
    pub(super) fn welcome(&self, from: Option<IpAddr>) -> Option<Welcome> {
        let place = match self.visits.len() - self.refusals < self.limits.all {
            true => from.map_or(Welcome::Served, |from| self.place(from)),
            false => Welcome::Refused,
        };
        (place != Welcome::Refused || self.refusals < MAX_REFUSALS).then_some(place)
    }

    /// Counts a connection.
    pub(super) fn came(&mut self, id: Id, from: Option<IpAddr>, welcome: Welcome) {
        self.visits.insert(id, Visit { from, welcome });
        self.count(Visit { from, welcome }, 1);
    }

    /// Counts a connection of a proxy as that of the client that it is for; what that may expect.
    pub(super) fn is_for(&mut self, id: Id, client: IpAddr) -> Welcome {
        let Some(visit) = self.visits.get(&id).copied() else { return Welcome::Refused };
        let welcome = match visit.welcome {
            Welcome::Served => self.place(client),
            refused @ (Welcome::Reserved | Welcome::Refused) => refused,
        };
        self.change(id, Visit { from: Some(client), welcome });
        welcome
    }

    /// A connection is of somebody who has come back: it is like any other from now on, though
    /// there may be more of them than usual.
    pub(super) fn is_back(&mut self, id: Id) {
        if let Some(visit) = self.visits.get(&id).copied() {
            self.change(id, Visit { welcome: Welcome::Served, ..visit });
        }
    }

    /// Forgets a connection.
    pub(super) fn left(&mut self, id: Id) {
        if let Some(visit) = self.visits.remove(&id) {
            self.count(visit, -1);
        }
    }

    /// What one more from that address may expect.
    fn place(&self, from: IpAddr) -> Welcome {
        let here = self.links.get(&from).copied().unwrap_or_default();
        if from.is_loopback() || here.served < self.limits.per_source {
            Welcome::Served
        } else if here.reserved < self.limits.reserve {
            Welcome::Reserved
        } else {
            Welcome::Refused
        }
    }

    fn change(&mut self, id: Id, visit: Visit) {
        if let Some(before) = self.visits.insert(id, visit) {
            self.count(before, -1);
        }
        self.count(visit, 1);
    }

    fn count(&mut self, Visit { from, welcome }: Visit, more: isize) {
        let count = |number: &mut usize| *number = number.saturating_add_signed(more);
        if welcome == Welcome::Refused {
            return count(&mut self.refusals);
        }
        let Some(from) = from else { return };
        let here = self.links.entry(from).or_default();
        count(if welcome == Welcome::Served { &mut here.served } else { &mut here.reserved });
        if here.served + here.reserved == 0 {
            self.links.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn visit(crowd: &mut Crowd, from: &str) -> (Option<Welcome>, Id) {
        let from = (!from.is_empty()).then(|| from.parse().unwrap());
        let id = tokio::spawn(async {}).id();
        let welcome = crowd.welcome(from);
        if let Some(welcome) = welcome {
            crowd.came(id, from, welcome);
        }
        (welcome, id)
    }

    async fn fill(crowd: &mut Crowd, from: &str, count: usize, expected: Welcome) -> Vec<Id> {
        let mut ids = vec![];
        for _ in 0..count {
            let (welcome, id) = visit(crowd, from).await;
            assert_eq!(welcome, Some(expected));
            ids.push(id);
        }
        ids
    }

    #[tokio::test]
    async fn one_address_has_64_links_this_machine_has_4096_and_there_are_no_more() {
        let mut crowd = Crowd::new(Links::default());
        let first = fill(&mut crowd, "192.168.1.5", 64, Welcome::Served).await[0];
        fill(&mut crowd, "192.168.1.5", 16, Welcome::Reserved).await;
        let refused = fill(&mut crowd, "192.168.1.5", 1, Welcome::Refused).await[0];
        crowd.left(first);
        fill(&mut crowd, "192.168.1.5", 1, Welcome::Served).await;
        fill(&mut crowd, "127.0.0.1", 4096 - 80, Welcome::Served).await;
        fill(&mut crowd, "127.0.0.1", 1, Welcome::Refused).await;
        crowd.left(refused);
        fill(&mut crowd, "192.168.1.9", 63, Welcome::Refused).await;
        assert_eq!(visit(&mut crowd, "192.168.1.9").await.0, None, "not even a refusal");
    }

    #[tokio::test]
    async fn who_has_come_back_takes_no_reserved_place_any_more() {
        let mut crowd = Crowd::new(Links { all: 100, per_source: 2, reserve: 1 });
        fill(&mut crowd, "192.168.1.5", 2, Welcome::Served).await;
        let back = fill(&mut crowd, "192.168.1.5", 1, Welcome::Reserved).await[0];
        fill(&mut crowd, "192.168.1.5", 1, Welcome::Refused).await;
        crowd.is_back(back);
        let stranger = fill(&mut crowd, "192.168.1.5", 1, Welcome::Reserved).await[0];
        crowd.left(stranger);
        crowd.left(back);
        fill(&mut crowd, "192.168.1.5", 1, Welcome::Reserved).await;
    }

    #[tokio::test]
    async fn what_a_proxy_passes_on_counts_as_the_client_that_it_is_for() {
        let mut crowd = Crowd::new(Links { all: 100, per_source: 2, reserve: 1 });
        let (client, other) = ("203.0.113.9".parse().unwrap(), "203.0.113.8".parse().unwrap());
        let ids = fill(&mut crowd, "", 5, Welcome::Served).await;
        let places: Vec<_> = ids[..4].iter().map(|id| crowd.is_for(*id, client)).collect();
        let expected = [Welcome::Served, Welcome::Served, Welcome::Reserved, Welcome::Refused];
        assert_eq!(places, expected);
        assert_eq!(crowd.is_for(ids[4], other), Welcome::Served);
        crowd.left(ids[0]);
        let next = fill(&mut crowd, "", 1, Welcome::Served).await[0];
        assert_eq!(crowd.is_for(next, client), Welcome::Served);
        for id in [&ids[1..], &[next]].concat() {
            crowd.left(id);
        }
        assert!(crowd.visits.is_empty() && crowd.links.is_empty() && crowd.refusals == 0);
    }

    #[tokio::test]
    async fn nothing_is_remembered_of_those_who_left() {
        let mut crowd = Crowd::new(Links { all: 1, per_source: 1, reserve: 0 });
        for _ in 0..10 {
            let (served, one) = visit(&mut crowd, "192.168.1.5").await;
            let (refused, other) = visit(&mut crowd, "192.168.1.6").await;
            assert_eq!((served, refused), (Some(Welcome::Served), Some(Welcome::Refused)));
            crowd.left(one);
            crowd.left(other);
        }
        assert!(crowd.visits.is_empty() && crowd.links.is_empty() && crowd.refusals == 0);
    }
}
