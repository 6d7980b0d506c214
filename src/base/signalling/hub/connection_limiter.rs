//! Limits the number of connections: in total, for each source address, and with a reserve for
//! returning clients.

use std::{collections::BTreeMap, net::IpAddr};

use tokio::task::Id;

use super::limits::ConnectionLimits;

/// The most connections beyond the limits that get an HTTP response at a time; others are closed
/// without one.
const MAX_REFUSALS: usize = 64;

/// Counts the connections, and decides on new ones.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    limits: ConnectionLimits,
    permits: BTreeMap<Id, ConnectionPermit>,
    by_source: BTreeMap<IpAddr, SourceCount>,
    refusals: usize,
}

/// A counted connection.
#[derive(Clone, Copy, Debug)]
struct ConnectionPermit {
    /// The address that it counts for; `None` while a proxy has not reported the client.
    source: Option<IpAddr>,
    admit: Admit,
}

/// The connections of one source address.
#[derive(Clone, Copy, Default, Debug)]
struct SourceCount {
    allowed: usize,
    returning: usize,
}

/// Whether a connection is within the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admit {
    /// It is within the limits.
    Allowed,
    /// It is beyond the limits, but is accepted if the client has a seat and returns.
    ReturningOnly,
    /// It is beyond the limits and refused.
    Refused,
}

impl ConnectionLimiter {
    /// A limiter without connections.
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, permits: BTreeMap::new(), by_source: BTreeMap::new(), refusals: 0 }
    }

    /// Decides on a new connection; `None` if not even a refusal is to be sent. The source of a
    /// connection from a trusted proxy is `None` until the proxy has reported the client.
    pub(super) fn admit(&self, source: Option<IpAddr>) -> Option<Admit> {
        let admit = match self.permits.len() - self.refusals < self.limits.total {
            true => source.map_or(Admit::Allowed, |source| self.admit_from(source)),
            false => Admit::Refused,
        };
        (admit != Admit::Refused || self.refusals < MAX_REFUSALS).then_some(admit)
    }

    /// Counts a connection.
    pub(super) fn add(&mut self, id: Id, source: Option<IpAddr>, admit: Admit) {
        self.permits.insert(id, ConnectionPermit { source, admit });
        self.adjust(ConnectionPermit { source, admit }, 1);
    }

    /// Counts a connection from a proxy for its client, and decides on it again.
    pub(super) fn set_client(&mut self, id: Id, client: IpAddr) -> Admit {
        let Some(permit) = self.permits.get(&id).copied() else { return Admit::Refused };
        let admit = match permit.admit {
            Admit::Allowed => self.admit_from(client),
            refused @ (Admit::ReturningOnly | Admit::Refused) => refused,
        };
        self.replace(id, ConnectionPermit { source: Some(client), admit });
        admit
    }

    /// Counts the connection of a returning client like any other from now on; the normal limit may
    /// be exceeded by that.
    pub(super) fn set_returned(&mut self, id: Id) {
        if let Some(permit) = self.permits.get(&id).copied() {
            self.replace(id, ConnectionPermit { admit: Admit::Allowed, ..permit });
        }
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, id: Id) {
        if let Some(permit) = self.permits.remove(&id) {
            self.adjust(permit, -1);
        }
    }

    /// Decides on one more connection from a source.
    fn admit_from(&self, source: IpAddr) -> Admit {
        let count = self.by_source.get(&source).copied().unwrap_or_default();
        if source.is_loopback() || count.allowed < self.limits.per_source {
            Admit::Allowed
        } else if count.returning < self.limits.returning_per_source {
            Admit::ReturningOnly
        } else {
            Admit::Refused
        }
    }

    fn replace(&mut self, id: Id, permit: ConnectionPermit) {
        if let Some(before) = self.permits.insert(id, permit) {
            self.adjust(before, -1);
        }
        self.adjust(permit, 1);
    }

    fn adjust(&mut self, ConnectionPermit { source, admit }: ConnectionPermit, delta: isize) {
        let add = |number: &mut usize| *number = number.saturating_add_signed(delta);
        if admit == Admit::Refused {
            return add(&mut self.refusals);
        }
        let Some(source) = source else { return };
        let count = self.by_source.entry(source).or_default();
        add(if admit == Admit::Allowed { &mut count.allowed } else { &mut count.returning });
        if count.allowed + count.returning == 0 {
            self.by_source.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connect(limiter: &mut ConnectionLimiter, source: &str) -> (Option<Admit>, Id) {
        let source = (!source.is_empty()).then(|| source.parse().unwrap());
        let id = tokio::spawn(async {}).id();
        let admit = limiter.admit(source);
        if let Some(admit) = admit {
            limiter.add(id, source, admit);
        }
        (admit, id)
    }

    async fn connect_many(
        limiter: &mut ConnectionLimiter,
        source: &str,
        count: usize,
        expected: Admit,
    ) -> Vec<Id> {
        let mut ids = vec![];
        for _ in 0..count {
            let (admit, id) = connect(limiter, source).await;
            assert_eq!(admit, Some(expected));
            ids.push(id);
        }
        ids
    }

    #[tokio::test]
    async fn one_address_has_64_connections_and_this_machine_all_4096() {
        let mut limiter = ConnectionLimiter::new(ConnectionLimits::default());
        let first = connect_many(&mut limiter, "192.168.1.5", 64, Admit::Allowed).await[0];
        connect_many(&mut limiter, "192.168.1.5", 16, Admit::ReturningOnly).await;
        let refused = connect_many(&mut limiter, "192.168.1.5", 1, Admit::Refused).await[0];
        limiter.remove(first);
        connect_many(&mut limiter, "192.168.1.5", 1, Admit::Allowed).await;
        connect_many(&mut limiter, "127.0.0.1", 4096 - 80, Admit::Allowed).await;
        connect_many(&mut limiter, "127.0.0.1", 1, Admit::Refused).await;
        limiter.remove(refused);
        connect_many(&mut limiter, "192.168.1.9", 63, Admit::Refused).await;
        assert_eq!(connect(&mut limiter, "192.168.1.9").await.0, None, "not even a refusal");
    }

    #[tokio::test]
    async fn a_returned_client_does_not_count_for_the_reserve() {
        let mut limiter = ConnectionLimiter::new(ConnectionLimits {
            total: 100,
            per_source: 2,
            returning_per_source: 1,
        });
        connect_many(&mut limiter, "192.168.1.5", 2, Admit::Allowed).await;
        let returned = connect_many(&mut limiter, "192.168.1.5", 1, Admit::ReturningOnly).await[0];
        connect_many(&mut limiter, "192.168.1.5", 1, Admit::Refused).await;
        limiter.set_returned(returned);
        let newcomer = connect_many(&mut limiter, "192.168.1.5", 1, Admit::ReturningOnly).await[0];
        limiter.remove(newcomer);
        limiter.remove(returned);
        connect_many(&mut limiter, "192.168.1.5", 1, Admit::ReturningOnly).await;
    }

    #[tokio::test]
    async fn a_connection_from_a_proxy_counts_for_its_client() {
        let mut limiter = ConnectionLimiter::new(ConnectionLimits {
            total: 100,
            per_source: 2,
            returning_per_source: 1,
        });
        let (client, other) = ("203.0.113.9".parse().unwrap(), "203.0.113.8".parse().unwrap());
        let ids = connect_many(&mut limiter, "", 5, Admit::Allowed).await;
        let admitted: Vec<_> = ids[..4].iter().map(|id| limiter.set_client(*id, client)).collect();
        let expected = [Admit::Allowed, Admit::Allowed, Admit::ReturningOnly, Admit::Refused];
        assert_eq!(admitted, expected);
        assert_eq!(limiter.set_client(ids[4], other), Admit::Allowed);
        limiter.remove(ids[0]);
        let next = connect_many(&mut limiter, "", 1, Admit::Allowed).await[0];
        assert_eq!(limiter.set_client(next, client), Admit::Allowed);
        for id in [&ids[1..], &[next]].concat() {
            limiter.remove(id);
        }
        assert!(
            limiter.permits.is_empty() && limiter.by_source.is_empty() && limiter.refusals == 0
        );
    }

    #[tokio::test]
    async fn closed_connections_leave_nothing_behind() {
        let mut limiter = ConnectionLimiter::new(ConnectionLimits {
            total: 1,
            per_source: 1,
            returning_per_source: 0,
        });
        for _ in 0..10 {
            let (served, one) = connect(&mut limiter, "192.168.1.5").await;
            let (refused, other) = connect(&mut limiter, "192.168.1.6").await;
            assert_eq!((served, refused), (Some(Admit::Allowed), Some(Admit::Refused)));
            limiter.remove(one);
            limiter.remove(other);
        }
        assert!(
            limiter.permits.is_empty() && limiter.by_source.is_empty() && limiter.refusals == 0
        );
    }
}
