//! Limits the connectivity checks to addresses that have never answered.
//!
//! The remote peer chooses the addresses, so it must not choose the number of checks: without a
//! limit, one guest could make this program flood any address. Checks beyond a limit are dropped,
//! as a network would drop them.
//!
//! A check that follows an authenticated request from the same address is free (a triggered check,
//! RFC 8445, section 7.3.1.4): there are no more of these than requests came in. So a limit that is
//! used up by others never delays a peer that can already reach us.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::setup::CHECK_INTERVAL;
use crate::model::{TokenBucket, TokenRate};

/// Checks without a pause for one participant: 16 candidates from three addresses of one family.
const PARTICIPANT_BURST: u32 = 50;

/// The average time between further checks for one participant: 90 a second.
const PARTICIPANT_INTERVAL: Duration = Duration::from_micros(11_112);

/// Checks without a pause for all participants together: a hundred guests of ten pairs each.
const PROCESS_BURST: u32 = 1000;

/// The average time between further checks for all participants together: 300 a second.
const PROCESS_INTERVAL: Duration = Duration::from_micros(3_334);

/// One in this many checks of a burst is reserved for the first checks of pairs.
const RESERVED_FRACTION: u32 = 4;

/// Checks of a pair that are sent at the rate of webrtc-rs, 25 ms apart.
const QUICK_CHECKS: u32 = 4;

/// The interval to which further checks back off from 25 ms, for the first addresses of a socket.
const MAX_INTERVAL: Duration = Duration::from_millis(200);

/// The same for all other addresses, which an honest peer rarely has.
const LONG_MAX_INTERVAL: Duration = Duration::from_millis(800);

/// How many addresses of a socket count as its first: candidates arrive in the order of their
/// priority.
const FIRST_ADDRESSES: usize = 4;

/// Addresses that are remembered per socket. The limits on candidates and on peer-reflexive
/// addresses admit fewer.
const MAX_PAIRS: usize = 64;

/// The check limits of one process, with one budget per participant. `K` identifies a participant.
///
/// A budget belongs to the participant and not to a connection, so that a new connection does not
/// refill it. A participant that leaves and returns under another name takes over a budget that is
/// no longer in use and not yet full again. So there are never more budgets in use than
/// participants at once.
#[derive(Debug)]
pub struct CheckBudgets<K> {
    process: Arc<Mutex<TokenBucket<Instant>>>,
    participants: Vec<ParticipantBudget<K>>,
}

/// The check limit of one participant; clones share it.
#[derive(Clone, Debug)]
pub struct CheckBudget {
    limiter: CheckLimiter,
    /// Held by the participant's connections, but not by their sockets, which close later.
    holder: Arc<()>,
}

#[derive(Debug)]
struct ParticipantBudget<K> {
    participant: K,
    budget: CheckBudget,
}

/// The limits that apply to the sockets of a connection: the participant's and the process's.
#[derive(Clone, Debug)]
pub(super) struct CheckLimiter {
    participant: Arc<Mutex<TokenBucket<Instant>>>,
    process: Arc<Mutex<TokenBucket<Instant>>>,
}

impl<K: PartialEq> CheckBudgets<K> {
    /// Limits of which nothing is used yet.
    pub fn new() -> Self {
        let process =
            TokenBucket::new(TokenRate::every(PROCESS_INTERVAL, PROCESS_BURST), Instant::now());
        Self { process: Arc::new(Mutex::new(process)), participants: vec![] }
    }

    /// That participant's budget, for one more connection to it.
    pub fn for_participant(&mut self, participant: K) -> CheckBudget {
        let now = Instant::now();
        if let Some(known) = self.participants.iter().find(|one| one.participant == participant) {
            return known.budget.clone();
        }
        self.participants.retain(|one| one.is_in_use() || one.budget.limiter.is_used(now));
        let unused = self.participants.iter_mut().filter(|one| !one.is_in_use());
        if let Some(most_used) = unused.max_by_key(|one| one.budget.limiter.used_until()) {
            most_used.participant = participant;
            return most_used.budget.clone();
        }
        let limiter = CheckLimiter::new(Arc::clone(&self.process), now);
        let budget = CheckBudget { limiter, holder: Arc::default() };
        self.participants.push(ParticipantBudget { participant, budget: budget.clone() });
        budget
    }
}

impl<K: PartialEq> Default for CheckBudgets<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> ParticipantBudget<K> {
    /// Whether a connection to the participant is open.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.budget.holder) > 1
    }
}

impl CheckBudget {
    /// The limits for the sockets of a connection.
    pub(super) fn limiter(&self) -> CheckLimiter {
        self.limiter.clone()
    }
}

/// The budget of the only participant of this process.
impl Default for CheckBudget {
    fn default() -> Self {
        CheckBudgets::new().for_participant(())
    }
}

impl CheckLimiter {
    fn new(process: Arc<Mutex<TokenBucket<Instant>>>, now: Instant) -> Self {
        let participant =
            TokenBucket::new(TokenRate::every(PARTICIPANT_INTERVAL, PARTICIPANT_BURST), now);
        Self { participant: Arc::new(Mutex::new(participant)), process }
    }

    /// Whether a check may be sent now. A part of both limits is reserved for first checks, so that
    /// a new participant is reached while checks to others are retried again and again.
    fn has_room(&self, is_first: bool, now: Instant) -> bool {
        [(&self.participant, PARTICIPANT_BURST), (&self.process, PROCESS_BURST)].iter().all(
            |(bucket, burst)| {
                let reserved = if is_first { 0 } else { burst / RESERVED_FRACTION };
                lock(bucket).has_tokens(1 + reserved as usize, now)
            },
        )
    }

    /// Counts a check that was sent.
    fn take(&self, now: Instant) {
        for bucket in [&self.participant, &self.process] {
            lock(bucket).take(1, now);
        }
    }

    fn is_used(&self, now: Instant) -> bool {
        self.used_until() > now
    }

    /// When this participant's limit is fully available again.
    fn used_until(&self) -> Instant {
        lock(&self.participant).full_at()
    }
}

fn lock(bucket: &Mutex<TokenBucket<Instant>>) -> std::sync::MutexGuard<'_, TokenBucket<Instant>> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses to which one socket has sent checks and that have not answered.
#[derive(Debug)]
pub(super) struct UnansweredChecks {
    checks: CheckLimiter,
    pairs: VecDeque<PairChecks>,
}

/// The checks of one candidate pair.
#[derive(Debug)]
struct PairChecks {
    address: SocketAddr,
    count: u32,
    /// When the next check may be sent.
    next_at: Instant,
    /// Checks that are free because an authenticated request came from this address.
    triggered: u32,
    max_interval: Duration,
}

impl UnansweredChecks {
    pub(super) const fn new(checks: CheckLimiter) -> Self {
        Self { checks, pairs: VecDeque::new() }
    }

    /// Whether the address is among them.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.pairs.iter().any(|tries| tries.address == address)
    }

    /// Whether a check may be sent to that address now.
    pub(super) fn may_send(&self, to: SocketAddr, now: Instant) -> bool {
        match self.pairs.iter().find(|pair| pair.address == to) {
            Some(pair) if pair.triggered > 0 => true,
            Some(pair) => now >= pair.next_at && self.checks.has_room(pair.count == 0, now),
            None => self.checks.has_room(true, now),
        }
    }

    /// Counts a check that was sent.
    pub(super) fn on_sent(&mut self, to: SocketAddr, now: Instant) {
        let limiter = self.checks.clone();
        let pair = self.pair_mut(to, now);
        if pair.triggered > 0 {
            pair.triggered -= 1;
            return;
        }
        limiter.take(now);
        pair.count += 1;
        let doublings = pair.count.saturating_sub(QUICK_CHECKS).min(8);
        let interval = (CHECK_INTERVAL * 2_u32.pow(doublings)).min(pair.max_interval);
        // Slightly earlier than the interval, so that the timer of webrtc-rs sets the rate of the
        // quick checks.
        pair.next_at = now + interval - CHECK_INTERVAL / 2;
    }

    /// Records that an authenticated request came from that address: one triggered check is free.
    pub(super) fn on_authenticated_request(&mut self, from: SocketAddr, now: Instant) {
        self.pair_mut(from, now).triggered = 1;
    }

    /// Forgets an address that has answered.
    pub(super) fn on_answered(&mut self, by: SocketAddr) {
        self.pairs.retain(|pair| pair.address != by);
    }

    fn pair_mut(&mut self, address: SocketAddr, now: Instant) -> &mut PairChecks {
        let known = self.pairs.iter().position(|pair| pair.address == address);
        let index = known.unwrap_or_else(|| {
            if self.pairs.len() == MAX_PAIRS {
                self.pairs.pop_front();
            }
            let is_among_first = self.pairs.len() < FIRST_ADDRESSES;
            let max_interval = if is_among_first { MAX_INTERVAL } else { LONG_MAX_INTERVAL };
            let pair = PairChecks { address, count: 0, next_at: now, triggered: 0, max_interval };
            self.pairs.push_back(pair);
            self.pairs.len() - 1
        });
        &mut self.pairs[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// The number of checks that are sent within that time if webrtc-rs makes one for each port
    /// every 25 ms.
    fn flood(
        unanswered: &mut UnansweredChecks,
        ports: std::ops::Range<u16>,
        from: Instant,
        seconds: u64,
    ) -> u32 {
        let mut sent = 0;
        for tick in 0..seconds * 40 {
            let now = from + CHECK_INTERVAL * tick as u32;
            for port in ports.clone() {
                if unanswered.may_send(address(port), now) {
                    unanswered.on_sent(address(port), now);
                    sent += 1;
                }
            }
        }
        sent
    }

    fn socket_of(budget: &CheckBudget) -> UnansweredChecks {
        UnansweredChecks::new(budget.limiter())
    }

    #[tokio::test]
    async fn a_pair_is_checked_quickly_at_first_and_then_ever_more_slowly() {
        let mut socket = socket_of(&CheckBudget::default());
        let start = Instant::now();
        let mut sent = vec![];
        for tick in 0..320 {
            let now = start + CHECK_INTERVAL * tick;
            if socket.may_send(address(1), now) {
                socket.on_sent(address(1), now);
                sent.push((now - start).as_millis());
            }
        }
        assert_eq!(sent[..8], [0, 25, 50, 75, 100, 150, 250, 450]);
        assert!((40..50).contains(&sent.len()), "{sent:?}");
    }

    #[tokio::test]
    async fn one_participant_is_bounded_whatever_its_candidates_sockets_and_connections() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let mut sent = 0;
        for connection in 0..20 {
            let budget = budgets.for_participant("mallory");
            // Each connection has its own sockets, and candidates that were never checked.
            let at = start + Duration::from_millis(500) * connection;
            let ports = connection as u16 * 100..connection as u16 * 100 + 16;
            for _socket in 0..3 {
                sent += flood(&mut socket_of(&budget), ports.clone(), at, 1);
            }
        }
        assert!((800..1000).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn a_participant_that_returns_under_another_name_gets_no_new_budget() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let mut sent = 0;
        for name in 0..100_u16 {
            let budget = budgets.for_participant(name);
            sent += flood(&mut socket_of(&budget), name * 16..name * 16 + 16, start, 1);
        }
        assert!((100..150).contains(&sent), "{sent}");
        assert_eq!(budgets.participants.len(), 1);
        let (_one, _other) = (budgets.for_participant(1000), budgets.for_participant(1001));
        assert_eq!(
            budgets.participants.len(),
            2,
            "participants at the same time have separate budgets"
        );
    }

    #[tokio::test]
    async fn all_participants_together_are_bounded_too() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let held: Vec<_> = (0..24).map(|guest| budgets.for_participant(guest)).collect();
        let mut sockets: Vec<_> = held.iter().map(socket_of).collect();
        let mut sent = 0;
        for tick in 0..400 {
            let now = start + CHECK_INTERVAL * tick;
            for (guest, socket) in sockets.iter_mut().enumerate() {
                let first = (guest as u16 * 400 + tick as u16) * 2;
                for port in first..first + 16 {
                    if socket.may_send(address(port), now) {
                        socket.on_sent(address(port), now);
                        sent += 1;
                    }
                }
            }
        }
        assert!((3000..4000).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn first_checks_are_sent_while_others_are_retried() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let held: Vec<_> = (0..100).map(|guest| budgets.for_participant(guest)).collect();
        let mut retrying: Vec<_> = held.iter().map(socket_of).collect();
        for tick in 0..400 {
            let now = start + CHECK_INTERVAL * tick;
            for socket in &mut retrying {
                for port in 0..6 {
                    if socket.may_send(address(port), now) {
                        socket.on_sent(address(port), now);
                    }
                }
            }
        }
        let now = start + CHECK_INTERVAL * 400;
        let newcomers: Vec<_> = (100..120).map(|guest| budgets.for_participant(guest)).collect();
        for newcomer in &newcomers {
            let mut socket = socket_of(newcomer);
            for port in 0..6 {
                assert!(socket.may_send(address(port), now));
                socket.on_sent(address(port), now);
            }
        }
    }

    #[tokio::test]
    async fn one_triggered_check_is_free_for_each_authenticated_request() {
        let now = Instant::now();
        let budget = CheckBudget::default();
        let mut socket = socket_of(&budget);
        flood(&mut socket, 0..60, now, 1);
        assert!(!socket.may_send(address(100), now));
        socket.on_authenticated_request(address(100), now);
        assert!(socket.may_send(address(100), now));
        socket.on_sent(address(100), now);
        assert!(!socket.may_send(address(100), now));
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut socket = socket_of(&CheckBudget::default());
        for port in 0..1000 {
            socket.on_authenticated_request(address(port), Instant::now());
        }
        assert_eq!(socket.pairs.len(), MAX_PAIRS);
        socket.on_answered(address(999));
        assert_eq!(socket.pairs.len(), MAX_PAIRS - 1);
    }
}
