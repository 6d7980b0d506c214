//! A queue for joining and opening sessions: the connections of one source address take turns, so
//! that a connection that asks without end does not delay the others. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    model::MediaTime,
    signalling::{
        bucket::{Bucket, Pace},
        rooms::LinkId,
    },
};

/// Joins and opens from one other machine: ten people behind one address are back in their five
/// sessions two seconds after a restart.
const ADDRESS: Pace = Pace { per_second: 10, burst: 30 };

/// Joins and opens of one connection from another machine: more sessions than a person is in at
/// once.
const LINK: Pace = Pace { per_second: 2, burst: 16 };

/// Joins and opens from this machine, of each connection and of all together: tests, and programs
/// that come back to a restarted hub.
const LOCAL: Pace = Pace { per_second: 200, burst: 400 };

/// How long a join or open may wait before it is refused: shorter than the silence after which a
/// connection counts as silent, for the hub or for its client.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pending joins and opens of all source addresses. A connection has one at a time.
#[derive(Debug, Default)]
pub(super) struct Entries {
    sources: BTreeMap<IpAddr, Source>,
    /// The number of requests granted so far; it orders the connections.
    entered: u64,
}

#[derive(Debug)]
struct Source {
    bucket: Bucket,
    links: BTreeMap<LinkId, Entrant>,
}

#[derive(Debug)]
struct Entrant {
    bucket: Bucket,
    /// The value of [`JoinQueue::granted`] at its last grant; 0 if there was none.
    last: u64,
    waiting: Option<Waiting>,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Whether the participant has no seat in the session yet. Participants with a seat come first.
    is_stranger: bool,
    since: MediaTime,
}

/// The decision on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    /// The connection that asked.
    pub(super) link: LinkId,
    /// Whether it may join or open; otherwise it has waited for too long.
    pub(super) may_enter: bool,
}

impl Entries {
    /// Adds a connection. Removes sources without connections whose bucket is full; others are
    /// kept, or a new connection would come with a new budget.
    pub(super) fn arrived(&mut self, ip: IpAddr, connection: LinkId, now: MediaTime) {
        self.sources.retain(|_, source| !source.links.is_empty() || !source.bucket.is_full(now));
        let (all, each) = if ip.is_loopback() { (LOCAL, LOCAL) } else { (ADDRESS, LINK) };
        let fresh = || Source { bucket: Bucket::new(all, now), links: BTreeMap::new() };
        let queued = Entrant { bucket: Bucket::new(each, now), last: 0, waiting: None };
        self.sources.entry(ip).or_insert_with(fresh).links.insert(connection, queued);
    }

    /// Removes a connection.
    pub(super) fn gone(&mut self, ip: IpAddr, connection: LinkId) {
        if let Some(source) = self.sources.get_mut(&ip) {
            source.links.remove(&connection);
        }
    }

    /// A connection asks to join or open a session; `has_seat` if its participant has a seat in it.
    /// [`Self::poll`] returns the decision.
    pub(super) fn ask(&mut self, ip: IpAddr, connection: LinkId, has_seat: bool, now: MediaTime) {
        let queued = self.sources.get_mut(&ip).and_then(|source| source.links.get_mut(&connection));
        if let Some(queued) = queued {
            queued.waiting = Some(Waiting { is_stranger: !has_seat, since: now });
        }
    }

    /// The requests that are granted now, in order, and those that have waited for too long.
    pub(super) fn poll(&mut self, now: MediaTime) -> Vec<Verdict> {
        let mut decisions = vec![];
        for source in self.sources.values_mut() {
            while source.bucket.has(1, now)
                && let Some(connection) = source.next(now)
            {
                source.bucket.spend(1);
                self.entered += 1;
                if let Some(queued) = source.links.get_mut(&connection) {
                    queued.bucket.spend(1);
                    (queued.last, queued.waiting) = (self.entered, None);
                }
                decisions.push(Verdict { link: connection, may_enter: true });
            }
            for (connection, queued) in &mut source.links {
                if queued.waiting.take_if(|one| now >= one.since + PATIENCE).is_some() {
                    decisions.push(Verdict { link: *connection, may_enter: false });
                }
            }
        }
        decisions
    }

    /// When [`Self::poll`] has something to return next, unless a new request comes.
    pub(super) fn due(&mut self, now: MediaTime) -> Option<MediaTime> {
        self.sources.values_mut().filter_map(|source| source.due(now)).min()
    }
}

impl Source {
    /// The connection whose turn it is: with a seat first, then the one whose last grant is the
    /// oldest.
    fn next(&mut self, now: MediaTime) -> Option<LinkId> {
        let may = |(connection, queued): (&LinkId, &mut Entrant)| {
            let waiting = queued.waiting?;
            queued
                .bucket
                .has(1, now)
                .then_some(((waiting.is_stranger, queued.last, waiting.since), *connection))
        };
        self.links.iter_mut().filter_map(may).min().map(|(_, connection)| connection)
    }

    fn due(&mut self, now: MediaTime) -> Option<MediaTime> {
        let turn = now + self.bucket.wait(now);
        let due = |queued: &mut Entrant| {
            let expiry = queued.waiting?.since + PATIENCE;
            Some(expiry.min(turn.max(now + queued.bucket.wait(now))))
        };
        self.links.values_mut().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MediaTime = MediaTime::from_micros(5_000_000);

    fn after(ms: u64) -> MediaTime {
        START + Duration::from_millis(ms)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The connections that are granted their requests now.
    fn let_in(queue: &mut Entries, now: MediaTime) -> Vec<u64> {
        let decisions = queue.poll(now);
        decisions.into_iter().filter(|one| one.may_enter).map(|one| one.link.0).collect()
    }

    /// The number of grants within `ms` for connections that ask again after each decision.
    fn greedy(
        queue: &mut Entries,
        source: IpAddr,
        connections: &[u64],
        ms: u64,
    ) -> BTreeMap<u64, usize> {
        let (mut now, mut count) = (START, BTreeMap::new());
        for connection in connections {
            queue.ask(source, LinkId(*connection), false, now);
        }
        while now <= after(ms) {
            for decision in queue.poll(now) {
                *count.entry(decision.link.0).or_default() += usize::from(decision.may_enter);
                queue.ask(source, decision.link, false, now);
            }
            now = queue.due(now).unwrap();
        }
        count
    }

    #[test]
    fn a_connection_has_16_grants_at_once_and_two_a_second() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        queue.arrived(office, LinkId(1), START);
        assert_eq!(greedy(&mut queue, office, &[1], 0), BTreeMap::from([(1, 16)]));
        let mut queue = Entries::default();
        queue.arrived(office, LinkId(1), START);
        assert_eq!(greedy(&mut queue, office, &[1], 10_000), BTreeMap::from([(1, 36)]));
    }

    #[test]
    fn the_connections_of_an_address_take_turns() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        let connections: Vec<u64> = (1..=20).collect();
        for connection in &connections {
            queue.arrived(office, LinkId(*connection), START);
        }
        let count = greedy(&mut queue, office, &connections, 7_000);
        assert_eq!(count.values().sum::<usize>(), 100, "30 at once, 10 a second");
        assert!(count.len() == 20 && count.values().all(|count| *count == 5), "{count:?}");
    }

    #[test]
    fn a_first_request_is_granted_before_forty_connections_that_ask_without_end() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        let greedy_connections: Vec<u64> = (1..=40).collect();
        for connection in &greedy_connections {
            queue.arrived(office, LinkId(*connection), START);
        }
        greedy(&mut queue, office, &greedy_connections, 10_000);
        let now = after(10_000);
        for connection in 51..=58 {
            queue.arrived(office, LinkId(connection), now);
            queue.ask(office, LinkId(connection), false, now);
        }
        let (mut honest, mut now) = (vec![], now);
        while now <= after(10_900) {
            for decision in queue.poll(now) {
                if decision.link.0 > 50 {
                    honest.push(decision.may_enter);
                } else {
                    queue.ask(office, decision.link, false, now);
                }
            }
            now = queue.due(now).unwrap();
        }
        assert_eq!(honest, [true; 8]);
    }

    #[test]
    fn a_participant_with_a_seat_comes_before_earlier_requests() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        for connection in 1..=50 {
            queue.arrived(office, LinkId(connection), START);
            queue.ask(office, LinkId(connection), connection == 50, START);
        }
        let entered = let_in(&mut queue, START);
        assert_eq!((entered[0], entered[1], entered.len()), (50, 1, 30));
    }

    #[test]
    fn a_request_is_refused_after_three_seconds_and_may_be_repeated() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        for connection in 1..=61 {
            queue.arrived(office, LinkId(connection), START);
            queue.ask(office, LinkId(connection), false, START);
        }
        assert_eq!(let_in(&mut queue, START).len(), 30);
        assert_eq!(queue.due(START), Some(after(100)));
        assert_eq!(let_in(&mut queue, after(2_999)).len(), 29);
        let last = queue.poll(after(3_000));
        let decision =
            |connection, is_granted| Verdict { link: LinkId(connection), may_enter: is_granted };
        assert_eq!(last, [decision(60, true), decision(61, false)]);
        assert_eq!(queue.due(after(3_000)), None);
        queue.ask(office, LinkId(61), false, after(3_000));
        assert_eq!(let_in(&mut queue, after(3_100)), [61]);
    }

    #[test]
    fn another_address_and_this_machine_have_their_own_queues() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        for connection in 1..=60 {
            queue.arrived(office, LinkId(connection), START);
            queue.ask(office, LinkId(connection), false, START);
        }
        let_in(&mut queue, START);
        for (connection, from) in [(70, "192.168.1.6"), (71, "127.0.0.1")] {
            queue.arrived(ip(from), LinkId(connection), START);
            queue.ask(ip(from), LinkId(connection), false, START);
        }
        assert_eq!(let_in(&mut queue, START), [71, 70]);
        assert_eq!(greedy(&mut queue, ip("127.0.0.1"), &[71], 0)[&71], 399);
    }

    #[test]
    fn a_new_connection_brings_no_new_budget_and_a_full_bucket_is_removed() {
        let (mut queue, office) = (Entries::default(), ip("192.168.1.5"));
        for connection in 1..=40 {
            queue.arrived(office, LinkId(connection), START);
            queue.ask(office, LinkId(connection), false, START);
        }
        assert_eq!(let_in(&mut queue, START).len(), 30);
        for connection in 1..=40 {
            queue.gone(office, LinkId(connection));
        }
        queue.arrived(office, LinkId(50), START);
        queue.ask(office, LinkId(50), false, START);
        assert_eq!(queue.poll(START), []);
        queue.gone(office, LinkId(50));
        assert_eq!(queue.due(START), None, "a removed connection has no deadline");
        queue.arrived(ip("192.168.1.7"), LinkId(51), after(2_999));
        assert_eq!(queue.sources.len(), 2);
        queue.arrived(ip("192.168.1.7"), LinkId(52), after(3_000));
        assert_eq!(queue.sources.len(), 1);
    }
}
