//! How many connectivity checks go to addresses that have never answered.
//!
//! The other end says where to, so it must not say how many: without a bound, one guest has this
//! program flood whomever it likes. What is over a bound is dropped, as by a network.
//!
//! A check is free that follows an authenticated one from the same address (a triggered check, RFC
//! 8445, section 7.3.1.4): there are no more of these than came in. So whoever is reached by the
//! other end is never held up by a bound that others have used up.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{pace::Pace, setup::CHECK_INTERVAL};

/// Checks at once for one participant: 16 candidates from three addresses of a family.
const SHARE_BURST: u32 = 50;

/// The time between two more of a participant's, on average: 90 a second.
const SHARE_PACE: Duration = Duration::from_micros(11_112);

/// Checks at once for everybody together: a hundred guests of ten pairs each.
const PROCESS_BURST: u32 = 1000;

/// The time between two more of everybody's, on average: 300 a second.
const PROCESS_PACE: Duration = Duration::from_micros(3_334);

/// The part of a burst that is kept for first checks: one in four.
const KEPT_FOR_FIRST: u32 = 4;

/// Checks of a pair that are sent as the library makes them, 25 ms apart.
const QUICK_CHECKS: u32 = 4;

/// What the wait of further checks grows to, from 25 ms: for the first addresses of a socket.
const WAIT: Duration = Duration::from_millis(200);

/// And for the others, which an honest end rarely has.
const LONG_WAIT: Duration = Duration::from_millis(800);

/// The first addresses of a socket: candidates come in the order of their priority.
const FIRST_ADDRESSES: usize = 4;

/// Addresses of one socket that are remembered; the rule for candidates and the bound on
/// peer-reflexive ones let in fewer.
const MAX_TRIED: usize = 64;

/// The bounds of one process, with a share for each participant. `K` says which participant.
///
/// A share belongs to the participant and not to a connection, so that a new one fills nothing.
/// Who leaves and comes back under another name takes a share that was left and is not full yet:
/// there are never more shares in use than participants at once.
#[derive(Debug)]
pub struct CheckBudgets<K> {
    process: Arc<Mutex<Pace>>,
    shares: Vec<Share<K>>,
}

/// A participant's bound on checks; clones share it.
#[derive(Clone, Debug)]
pub struct CheckBudget {
    checks: Checks,
    /// Held by the participant's connections, and not by their sockets, which close later.
    holder: Arc<()>,
}

#[derive(Debug)]
struct Share<K> {
    owner: K,
    budget: CheckBudget,
}

/// A [`CheckBudget`] as sockets have it.
#[derive(Clone, Debug)]
pub(super) struct Checks {
    share: Arc<Mutex<Pace>>,
    process: Arc<Mutex<Pace>>,
}

impl<K: PartialEq> CheckBudgets<K> {
    /// Bounds of which nothing is used yet.
    pub fn new() -> Self {
        let process = Pace::new(PROCESS_PACE, PROCESS_BURST, Instant::now());
        Self { process: Arc::new(Mutex::new(process)), shares: vec![] }
    }

    /// That participant's bound, for one more connection to it.
    pub fn of(&mut self, owner: K) -> CheckBudget {
        let now = Instant::now();
        if let Some(known) = self.shares.iter().find(|share| share.owner == owner) {
            return known.budget.clone();
        }
        self.shares.retain(|share| share.is_held() || share.budget.checks.is_used(now));
        let left = self.shares.iter_mut().filter(|share| !share.is_held());
        if let Some(most_used) = left.max_by_key(|share| share.budget.checks.used_until()) {
            most_used.owner = owner;
            return most_used.budget.clone();
        }
        let checks = Checks::new(Arc::clone(&self.process), now);
        let budget = CheckBudget { checks, holder: Arc::default() };
        self.shares.push(Share { owner, budget: budget.clone() });
        budget
    }
}

impl<K: PartialEq> Default for CheckBudgets<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> Share<K> {
    /// Whether a connection of the participant's is open.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.budget.holder) > 1
    }
}

impl CheckBudget {
    /// What the sockets of a connection go by.
    pub(super) fn checks(&self) -> Checks {
        self.checks.clone()
    }
}

/// The bound of somebody who is alone in this process.
impl Default for CheckBudget {
    fn default() -> Self {
        CheckBudgets::new().of(())
    }
}

impl Checks {
    fn new(process: Arc<Mutex<Pace>>, now: Instant) -> Self {
        let share = Pace::new(SHARE_PACE, SHARE_BURST, now);
        Self { share: Arc::new(Mutex::new(share)), process }
    }

    /// Whether a check may be sent now. Of both bounds a part is kept for first checks: somebody
    /// who is new is reached while others are tried again and again.
    fn has_room(&self, is_first: bool, now: Instant) -> bool {
        [(&self.share, SHARE_BURST), (&self.process, PROCESS_BURST)].iter().all(|(pace, burst)| {
            let kept = if is_first { 0 } else { burst / KEPT_FOR_FIRST };
            lock(pace).has_room(1 + kept, now)
        })
    }

    /// Counts a check that was sent.
    fn take(&self, now: Instant) {
        for pace in [&self.share, &self.process] {
            lock(pace).take(1, now);
        }
    }

    fn is_used(&self, now: Instant) -> bool {
        self.used_until() > now
    }

    /// When this participant's bound is as good as new.
    fn used_until(&self) -> Instant {
        lock(&self.share).empty_at()
    }
}

fn lock(pace: &Mutex<Pace>) -> std::sync::MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses that one socket has sent checks to and that have not answered.
#[derive(Debug)]
pub(super) struct Unanswered {
    checks: Checks,
    tries: VecDeque<Tries>,
}

/// The checks of one pair.
#[derive(Debug)]
struct Tries {
    address: SocketAddr,
    count: u32,
    /// When the next may be sent.
    next: Instant,
    /// Checks that are free, because as many came from there.
    triggered: u32,
    longest_wait: Duration,
}

impl Unanswered {
    pub(super) const fn new(checks: Checks) -> Self {
        Self { checks, tries: VecDeque::new() }
    }

    /// Whether it is among them.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.tries.iter().any(|tries| tries.address == address)
    }

    /// Whether a check may be sent to that address now.
    pub(super) fn may_send(&self, to: SocketAddr, now: Instant) -> bool {
        match self.tries.iter().find(|tries| tries.address == to) {
            Some(tries) if tries.triggered > 0 => true,
            Some(tries) => now >= tries.next && self.checks.has_room(tries.count == 0, now),
            None => self.checks.has_room(true, now),
        }
    }

    /// Counts a check that was sent.
    pub(super) fn sent(&mut self, to: SocketAddr, now: Instant) {
        let checks = self.checks.clone();
        let tries = self.tries_of(to, now);
        if tries.triggered > 0 {
            tries.triggered -= 1;
            return;
        }
        checks.take(now);
        tries.count += 1;
        let doublings = tries.count.saturating_sub(QUICK_CHECKS).min(8);
        let wait = (CHECK_INTERVAL * 2_u32.pow(doublings)).min(tries.longest_wait);
        // A little less: the library's own clock decides while checks are quick.
        tries.next = now + wait - CHECK_INTERVAL / 2;
    }

    /// Notes that an authenticated check came from there: one that answers it is free.
    pub(super) fn triggered(&mut self, from: SocketAddr, now: Instant) {
        self.tries_of(from, now).triggered = 1;
    }

    /// Forgets an address that has answered.
    pub(super) fn answered(&mut self, by: SocketAddr) {
        self.tries.retain(|tries| tries.address != by);
    }

    fn tries_of(&mut self, address: SocketAddr, now: Instant) -> &mut Tries {
        let known = self.tries.iter().position(|tries| tries.address == address);
        let index = known.unwrap_or_else(|| {
            if self.tries.len() == MAX_TRIED {
                self.tries.pop_front();
            }
            let is_among_first = self.tries.len() < FIRST_ADDRESSES;
            let longest_wait = if is_among_first { WAIT } else { LONG_WAIT };
            let tries = Tries { address, count: 0, next: now, triggered: 0, longest_wait };
            self.tries.push_back(tries);
            self.tries.len() - 1
        });
        &mut self.tries[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// The checks that leave in that time of those that the library makes, one for each port every
    /// 25 ms.
    fn flood(
        unanswered: &mut Unanswered,
        ports: std::ops::Range<u16>,
        from: Instant,
        s: u64,
    ) -> u32 {
        let mut sent = 0;
        for tick in 0..s * 40 {
            let now = from + CHECK_INTERVAL * tick as u32;
            for port in ports.clone() {
                if unanswered.may_send(address(port), now) {
                    unanswered.sent(address(port), now);
                    sent += 1;
                }
            }
        }
        sent
    }

    fn socket_of(budget: &CheckBudget) -> Unanswered {
        Unanswered::new(budget.checks())
    }

    #[tokio::test]
    async fn a_pair_is_checked_quickly_at_first_and_then_ever_more_slowly() {
        let mut socket = socket_of(&CheckBudget::default());
        let start = Instant::now();
        let mut sent = vec![];
        for tick in 0..320 {
            let now = start + CHECK_INTERVAL * tick;
            if socket.may_send(address(1), now) {
                socket.sent(address(1), now);
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
            let budget = budgets.of("mallory");
            // Each has sockets of its own, and candidates that were never tried.
            let at = start + Duration::from_millis(500) * connection;
            let ports = connection as u16 * 100..connection as u16 * 100 + 16;
            for _socket in 0..3 {
                sent += flood(&mut socket_of(&budget), ports.clone(), at, 1);
            }
        }
        assert!((800..1000).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn who_comes_back_under_another_name_finds_its_bound_as_it_was() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let mut sent = 0;
        for name in 0..100_u16 {
            let budget = budgets.of(name);
            sent += flood(&mut socket_of(&budget), name * 16..name * 16 + 16, start, 1);
        }
        assert!((100..150).contains(&sent), "{sent}");
        assert_eq!(budgets.shares.len(), 1);
        let (_one, _other) = (budgets.of(1000), budgets.of(1001));
        assert_eq!(budgets.shares.len(), 2, "who is there at the same time has its own");
    }

    #[tokio::test]
    async fn many_participants_together_are_bounded_too() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let held: Vec<_> = (0..24).map(|guest| budgets.of(guest)).collect();
        let mut sockets: Vec<_> = held.iter().map(socket_of).collect();
        let mut sent = 0;
        for tick in 0..400 {
            let now = start + CHECK_INTERVAL * tick;
            for (guest, socket) in sockets.iter_mut().enumerate() {
                let first = (guest as u16 * 400 + tick as u16) * 2;
                for port in first..first + 16 {
                    if socket.may_send(address(port), now) {
                        socket.sent(address(port), now);
                        sent += 1;
                    }
                }
            }
        }
        assert!((3000..4000).contains(&sent), "{sent}");
    }

    #[tokio::test]
    async fn first_checks_find_room_while_others_are_repeated() {
        let start = Instant::now();
        let mut budgets = CheckBudgets::new();
        let held: Vec<_> = (0..100).map(|guest| budgets.of(guest)).collect();
        let mut tired: Vec<_> = held.iter().map(socket_of).collect();
        for tick in 0..400 {
            let now = start + CHECK_INTERVAL * tick;
            for socket in &mut tired {
                for port in 0..6 {
                    if socket.may_send(address(port), now) {
                        socket.sent(address(port), now);
                    }
                }
            }
        }
        let now = start + CHECK_INTERVAL * 400;
        let newcomers: Vec<_> = (100..120).map(|guest| budgets.of(guest)).collect();
        for newcomer in &newcomers {
            let mut socket = socket_of(newcomer);
            for port in 0..6 {
                assert!(socket.may_send(address(port), now));
                socket.sent(address(port), now);
            }
        }
    }

    #[tokio::test]
    async fn a_check_that_was_triggered_is_free_and_there_is_one_for_each_that_came() {
        let now = Instant::now();
        let budget = CheckBudget::default();
        let mut socket = socket_of(&budget);
        flood(&mut socket, 0..60, now, 1);
        assert!(!socket.may_send(address(100), now));
        socket.triggered(address(100), now);
        assert!(socket.may_send(address(100), now));
        socket.sent(address(100), now);
        assert!(!socket.may_send(address(100), now));
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut socket = socket_of(&CheckBudget::default());
        for port in 0..1000 {
            socket.triggered(address(port), Instant::now());
        }
        assert_eq!(socket.tries.len(), MAX_TRIED);
        socket.answered(address(999));
        assert_eq!(socket.tries.len(), MAX_TRIED - 1);
    }
}
