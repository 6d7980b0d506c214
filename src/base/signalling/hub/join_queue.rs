//! A queue for joining and opening sessions: the connections of one source address take turns, so
//! that a connection that asks without end does not delay the others. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::{
    model::{MediaTime, TokenBucket, TokenRate},
    signalling::rooms::ConnectionId,
};

/// Joins and opens from one other machine: ten people behind one address are back in their five
/// sessions two seconds after a restart.
const SOURCE_RATE: TokenRate = TokenRate::per_second(10, 30);

/// Joins and opens of one connection from another machine: more sessions than a person is in at
/// once.
const CONNECTION_RATE: TokenRate = TokenRate::per_second(2, 16);

/// Joins and opens from this machine, of each connection and of all together: tests, and programs
/// that come back to a restarted hub.
const LOCAL_RATE: TokenRate = TokenRate::per_second(200, 400);

/// How long a join or open may wait before it is refused: shorter than the silence after which a
/// connection counts as silent, for the hub or for its client.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// The pending joins and opens of all source addresses. A connection has one at a time.
#[derive(Debug, Default)]
pub(super) struct JoinQueue {
    sources: BTreeMap<IpAddr, SourceQueue>,
    /// The number of requests granted so far; it orders the connections.
    granted: u64,
}

#[derive(Debug)]
struct SourceQueue {
    bucket: TokenBucket,
    connections: BTreeMap<ConnectionId, QueuedConnection>,
}

#[derive(Debug)]
struct QueuedConnection {
    bucket: TokenBucket,
    /// The value of [`JoinQueue::granted`] at its last grant; 0 if there was none.
    last_grant: u64,
    waiting: Option<PendingJoin>,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct PendingJoin {
    /// Whether the participant has no seat in the session yet. Participants with a seat come first.
    has_no_seat: bool,
    since: MediaTime,
}

/// The decision on a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct JoinDecision {
    /// The connection that asked.
    pub(super) connection: ConnectionId,
    /// Whether it may join or open; otherwise it has waited for too long.
    pub(super) is_granted: bool,
}

impl JoinQueue {
    /// Adds a connection. Removes sources without connections whose bucket is full; others are
    /// kept, or a new connection would come with a new budget.
    pub(super) fn add_connection(&mut self, ip: IpAddr, connection: ConnectionId, now: MediaTime) {
        self.sources
            .retain(|_, source| !source.connections.is_empty() || !source.bucket.is_full(now));
        let (all, each) = if ip.is_loopback() {
            (LOCAL_RATE, LOCAL_RATE)
        } else {
            (SOURCE_RATE, CONNECTION_RATE)
        };
        let fresh =
            || SourceQueue { bucket: TokenBucket::new(all, now), connections: BTreeMap::new() };
        let queued =
            QueuedConnection { bucket: TokenBucket::new(each, now), last_grant: 0, waiting: None };
        self.sources.entry(ip).or_insert_with(fresh).connections.insert(connection, queued);
    }

    /// Removes a connection.
    pub(super) fn remove_connection(&mut self, ip: IpAddr, connection: ConnectionId) {
        if let Some(source) = self.sources.get_mut(&ip) {
            source.connections.remove(&connection);
        }
    }

    /// A connection asks to join or open a session; `has_seat` if its participant has a seat in it.
    /// [`Self::poll`] returns the decision.
    pub(super) fn request(
        &mut self,
        ip: IpAddr,
        connection: ConnectionId,
        has_seat: bool,
        now: MediaTime,
    ) {
        let queued =
            self.sources.get_mut(&ip).and_then(|source| source.connections.get_mut(&connection));
        if let Some(queued) = queued {
            queued.waiting = Some(PendingJoin { has_no_seat: !has_seat, since: now });
        }
    }

    /// The requests that are granted now, in order, and those that have waited for too long.
    pub(super) fn poll(&mut self, now: MediaTime) -> Vec<JoinDecision> {
        let mut decisions = vec![];
        for source in self.sources.values_mut() {
            while source.bucket.has_tokens(1, now)
                && let Some(connection) = source.next_connection(now)
            {
                source.bucket.spend_tokens(1);
                self.granted += 1;
                if let Some(queued) = source.connections.get_mut(&connection) {
                    queued.bucket.spend_tokens(1);
                    (queued.last_grant, queued.waiting) = (self.granted, None);
                }
                decisions.push(JoinDecision { connection, is_granted: true });
            }
            for (connection, queued) in &mut source.connections {
                if queued.waiting.take_if(|one| now >= one.since + MAX_WAIT).is_some() {
                    decisions.push(JoinDecision { connection: *connection, is_granted: false });
                }
            }
        }
        decisions
    }

    /// When [`Self::poll`] has something to return next, unless a new request comes.
    pub(super) fn next_due(&mut self, now: MediaTime) -> Option<MediaTime> {
        self.sources.values_mut().filter_map(|source| source.next_due(now)).min()
    }
}

impl SourceQueue {
    /// The connection whose turn it is: with a seat first, then the one whose last grant is the
    /// oldest.
    fn next_connection(&mut self, now: MediaTime) -> Option<ConnectionId> {
        let may = |(connection, queued): (&ConnectionId, &mut QueuedConnection)| {
            let waiting = queued.waiting?;
            queued
                .bucket
                .has_tokens(1, now)
                .then_some(((waiting.has_no_seat, queued.last_grant, waiting.since), *connection))
        };
        self.connections.iter_mut().filter_map(may).min().map(|(_, connection)| connection)
    }

    fn next_due(&mut self, now: MediaTime) -> Option<MediaTime> {
        let turn = now + self.bucket.time_until_token(now);
        let due = |queued: &mut QueuedConnection| {
            let expiry = queued.waiting?.since + MAX_WAIT;
            Some(expiry.min(turn.max(now + queued.bucket.time_until_token(now))))
        };
        self.connections.values_mut().filter_map(due).min()
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
    fn granted(queue: &mut JoinQueue, now: MediaTime) -> Vec<u64> {
        let decisions = queue.poll(now);
        decisions.into_iter().filter(|one| one.is_granted).map(|one| one.connection.0).collect()
    }

    /// The number of grants within `ms` for connections that ask again after each decision.
    fn grant_counts(
        queue: &mut JoinQueue,
        source: IpAddr,
        connections: &[u64],
        ms: u64,
    ) -> BTreeMap<u64, usize> {
        let (mut now, mut count) = (START, BTreeMap::new());
        for connection in connections {
            queue.request(source, ConnectionId(*connection), false, now);
        }
        while now <= after(ms) {
            for decision in queue.poll(now) {
                *count.entry(decision.connection.0).or_default() +=
                    usize::from(decision.is_granted);
                queue.request(source, decision.connection, false, now);
            }
            now = queue.next_due(now).unwrap();
        }
        count
    }

    #[test]
    fn a_connection_has_16_grants_at_once_and_two_a_second() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        queue.add_connection(office, ConnectionId(1), START);
        assert_eq!(grant_counts(&mut queue, office, &[1], 0), BTreeMap::from([(1, 16)]));
        let mut queue = JoinQueue::default();
        queue.add_connection(office, ConnectionId(1), START);
        assert_eq!(grant_counts(&mut queue, office, &[1], 10_000), BTreeMap::from([(1, 36)]));
    }

    #[test]
    fn the_connections_of_an_address_take_turns() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        let connections: Vec<u64> = (1..=20).collect();
        for connection in &connections {
            queue.add_connection(office, ConnectionId(*connection), START);
        }
        let count = grant_counts(&mut queue, office, &connections, 7_000);
        assert_eq!(count.values().sum::<usize>(), 100, "30 at once, 10 a second");
        assert!(count.len() == 20 && count.values().all(|count| *count == 5), "{count:?}");
    }

    #[test]
    fn a_first_request_is_granted_before_forty_connections_that_ask_without_end() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        let greedy_connections: Vec<u64> = (1..=40).collect();
        for connection in &greedy_connections {
            queue.add_connection(office, ConnectionId(*connection), START);
        }
        grant_counts(&mut queue, office, &greedy_connections, 10_000);
        let now = after(10_000);
        for connection in 51..=58 {
            queue.add_connection(office, ConnectionId(connection), now);
            queue.request(office, ConnectionId(connection), false, now);
        }
        let (mut honest, mut now) = (vec![], now);
        while now <= after(10_900) {
            for decision in queue.poll(now) {
                if decision.connection.0 > 50 {
                    honest.push(decision.is_granted);
                } else {
                    queue.request(office, decision.connection, false, now);
                }
            }
            now = queue.next_due(now).unwrap();
        }
        assert_eq!(honest, [true; 8]);
    }

    #[test]
    fn a_participant_with_a_seat_comes_before_earlier_requests() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        for connection in 1..=50 {
            queue.add_connection(office, ConnectionId(connection), START);
            queue.request(office, ConnectionId(connection), connection == 50, START);
        }
        let entered = granted(&mut queue, START);
        assert_eq!((entered[0], entered[1], entered.len()), (50, 1, 30));
    }

    #[test]
    fn a_request_is_refused_after_three_seconds_and_may_be_repeated() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        for connection in 1..=61 {
            queue.add_connection(office, ConnectionId(connection), START);
            queue.request(office, ConnectionId(connection), false, START);
        }
        assert_eq!(granted(&mut queue, START).len(), 30);
        assert_eq!(queue.next_due(START), Some(after(100)));
        assert_eq!(granted(&mut queue, after(2_999)).len(), 29);
        let last = queue.poll(after(3_000));
        let decision = |connection, is_granted| JoinDecision {
            connection: ConnectionId(connection),
            is_granted,
        };
        assert_eq!(last, [decision(60, true), decision(61, false)]);
        assert_eq!(queue.next_due(after(3_000)), None);
        queue.request(office, ConnectionId(61), false, after(3_000));
        assert_eq!(granted(&mut queue, after(3_100)), [61]);
    }

    #[test]
    fn another_address_and_this_machine_have_their_own_queues() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        for connection in 1..=60 {
            queue.add_connection(office, ConnectionId(connection), START);
            queue.request(office, ConnectionId(connection), false, START);
        }
        granted(&mut queue, START);
        for (connection, from) in [(70, "192.168.1.6"), (71, "127.0.0.1")] {
            queue.add_connection(ip(from), ConnectionId(connection), START);
            queue.request(ip(from), ConnectionId(connection), false, START);
        }
        assert_eq!(granted(&mut queue, START), [71, 70]);
        assert_eq!(grant_counts(&mut queue, ip("127.0.0.1"), &[71], 0)[&71], 399);
    }

    #[test]
    fn a_new_connection_brings_no_new_budget_and_a_full_bucket_is_removed() {
        let (mut queue, office) = (JoinQueue::default(), ip("192.168.1.5"));
        for connection in 1..=40 {
            queue.add_connection(office, ConnectionId(connection), START);
            queue.request(office, ConnectionId(connection), false, START);
        }
        assert_eq!(granted(&mut queue, START).len(), 30);
        for connection in 1..=40 {
            queue.remove_connection(office, ConnectionId(connection));
        }
        queue.add_connection(office, ConnectionId(50), START);
        queue.request(office, ConnectionId(50), false, START);
        assert_eq!(queue.poll(START), []);
        queue.remove_connection(office, ConnectionId(50));
        assert_eq!(queue.next_due(START), None, "a removed connection has no deadline");
        queue.add_connection(ip("192.168.1.7"), ConnectionId(51), after(2_999));
        assert_eq!(queue.sources.len(), 2);
        queue.add_connection(ip("192.168.1.7"), ConnectionId(52), after(3_000));
        assert_eq!(queue.sources.len(), 1);
    }
}
