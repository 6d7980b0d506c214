//! TCP connections to a host by name, at the address that answers first (RFC 8305, "happy
//! eyeballs"): an unreachable first address costs a quarter of a second, not the connection.

use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, sleep_until},
};

/// The delay after an attempt before the next one starts beside it (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long after the last address was tried all are tried again, beside the attempts that run. After an
/// outage the system repeats a lost first packet only 1, 3 and 7 s after it.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// No address is known for the name.
    #[error("no address is known for it: {0}")]
    Unknown(io::Error),
    /// No address could be reached; the most informative error of all attempts.
    #[error(transparent)]
    Unreachable(io::Error),
}

/// Connects to a host, given as in a URL: a name, or an address, IPv6 ones in brackets.
///
/// It does not give up while an address may still answer: the caller sets a timeout.
///
/// # Errors
/// [`DialError`].
pub(super) async fn dial(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let name = host.trim_matches(['[', ']']);
    // The system sorts them by its knowledge of routes (RFC 6724).
    let addresses = lookup_host((name, port)).await.map_err(DialError::Unknown)?;
    let attempts = Attempts::new(interleave(addresses.collect()));
    let stream =
        run_attempts(attempts, TcpStream::connect).await.map_err(DialError::Unreachable)?;
    // Messages to a hub are small and wait for an answer.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    Ok(stream)
}

/// Alternates the address families, beginning with that of the first address (RFC 8305, section 4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let begins_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_ipv6);
    let longer = first.len().max(second.len());
    let pairs = (0..longer).flat_map(|index| [first.get(index), second.get(index)]);
    pairs.flatten().copied().collect()
}

/// Starts attempts as they fall due, until one succeeds; then drops the others.
async fn run_attempts<T, F>(
    mut attempts: Attempts,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let start = Instant::now();
    let mut running = FuturesUnordered::new();
    loop {
        let due = match attempts.next_step(start.elapsed()) {
            Step::Connect(address) => {
                running.push(connect(address));
                continue;
            }
            Step::WaitUntil(time) => start + time,
            Step::GiveUp(error) => return Err(error),
        };
        tokio::select! {
            Some(outcome) = running.next() => match outcome {
                Ok(connected) => return Ok(connected),
                Err(error) => attempts.on_failure(error, start.elapsed()),
            },
            () = sleep_until(due) => {}
        }
    }
}

/// Schedules the attempts. Pure: times are spans since the first step.
#[derive(Debug)]
struct Attempts {
    all: VecDeque<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    running: usize,
    /// When the next attempt may start although others still run.
    next_at: Duration,
    /// When all are tried again.
    again_at: Duration,
    /// The most informative error so far.
    best_error: io::Error,
}

/// What the caller is to do now.
#[derive(Debug)]
enum Step {
    /// Start an attempt, then ask again.
    Connect(SocketAddr),
    /// Ask again at this time, or when an attempt has failed.
    WaitUntil(Duration),
    /// All attempts have failed.
    GiveUp(io::Error),
}

impl Attempts {
    fn new(waiting: VecDeque<SocketAddr>) -> Self {
        let best_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        Self {
            all: waiting.clone(),
            waiting,
            running: 0,
            next_at: Duration::ZERO,
            again_at: Duration::ZERO,
            best_error,
        }
    }

    fn next_step(&mut self, now: Duration) -> Step {
        if self.waiting.is_empty() && self.running > 0 && now >= self.again_at {
            self.waiting.clone_from(&self.all);
        }
        if now >= self.next_at
            && let Some(address) = self.waiting.pop_front()
        {
            self.running += 1;
            self.next_at = now + ATTEMPT_DELAY;
            self.again_at = now + AGAIN_AFTER;
            return Step::Connect(address);
        }
        match (self.waiting.is_empty(), self.running) {
            (false, _) => Step::WaitUntil(self.next_at),
            (true, 0) => {
                Step::GiveUp(std::mem::replace(&mut self.best_error, io::ErrorKind::Other.into()))
            }
            (true, _) => Step::WaitUntil(self.again_at),
        }
    }

    /// Notes that an attempt has failed; the next one starts at once.
    fn on_failure(&mut self, error: io::Error, now: Duration) {
        self.running -= 1;
        self.next_at = now;
        if failure_rank(&error) >= failure_rank(&self.best_error) {
            self.best_error = error;
        }
    }
}

/// How informative an error is: an answer of the machine says more than a missing route.
fn failure_rank(error: &io::Error) -> u8 {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound,
        TimedOut,
    };
    let rising: [&[io::ErrorKind]; 3] =
        [&[NotFound], &[AddrNotAvailable, NetworkUnreachable, HostUnreachable], &[TimedOut]];
    let kind = error.kind();
    match rising.iter().position(|kinds| kinds.contains(&kind)) {
        Some(rank) => rank as u8,
        None if kind == ConnectionRefused => 4,
        // The other machine refused it, or a rule of this one.
        None => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn attempts(count: u16) -> Attempts {
        Attempts::new((1..=count).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect())
    }

    fn connect_port(step: &Step) -> Option<u16> {
        if let Step::Connect(address) = step { Some(address.port()) } else { None }
    }

    #[test]
    fn families_alternate_and_begin_with_the_first_of_the_system() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let wanted = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(interleave(addresses(&given)), addresses(&wanted));
        let given = ["1.1.1.1:1", "2.2.2.2:1", "[::1]:1"];
        assert_eq!(
            interleave(addresses(&given)),
            addresses(&["1.1.1.1:1", "[::1]:1", "2.2.2.2:1"])
        );
        assert!(interleave(vec![]).is_empty());
    }

    #[test]
    fn the_next_address_is_tried_a_quarter_of_a_second_after_a_silent_one() {
        let mut attempts = attempts(3);
        assert_eq!(connect_port(&attempts.next_step(MS(0))), Some(1));
        assert!(matches!(attempts.next_step(MS(0)), Step::WaitUntil(at) if at == MS(250)));
        assert!(matches!(attempts.next_step(MS(249)), Step::WaitUntil(_)));
        assert_eq!(connect_port(&attempts.next_step(MS(250))), Some(2));
        assert_eq!(connect_port(&attempts.next_step(MS(499))), None);
        assert_eq!(connect_port(&attempts.next_step(MS(510))), Some(3));
        assert!(matches!(attempts.next_step(MS(510)), Step::WaitUntil(at) if at == MS(1510)));
        assert_eq!(attempts.running, 3, "no attempt is given up for another");
    }

    #[test]
    fn addresses_that_stay_silent_are_tried_again_each_second() {
        let mut attempts = attempts(1);
        let mut tried = vec![];
        for ms in (0..5000).step_by(10) {
            if connect_port(&attempts.next_step(MS(ms))).is_some() {
                tried.push(ms);
            }
        }
        assert_eq!(tried, [0, 1000, 2000, 3000, 4000]);
        let refused = || io::ErrorKind::ConnectionRefused.into();
        (0..4).for_each(|_| attempts.on_failure(refused(), MS(4990)));
        assert!(matches!(attempts.next_step(MS(4990)), Step::WaitUntil(_)));
        attempts.on_failure(refused(), MS(4995));
        assert!(matches!(attempts.next_step(MS(4995)), Step::GiveUp(_)), "none runs");
    }

    #[test]
    fn the_next_address_is_tried_at_once_after_a_failure() {
        let mut attempts = attempts(2);
        assert_eq!(connect_port(&attempts.next_step(MS(0))), Some(1));
        attempts.on_failure(io::ErrorKind::ConnectionRefused.into(), MS(3));
        assert_eq!(connect_port(&attempts.next_step(MS(3))), Some(2));
        attempts.on_failure(io::ErrorKind::NetworkUnreachable.into(), MS(4));
        let Step::GiveUp(error) = attempts.next_step(MS(4)) else { panic!("all have failed") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "the most informative error");
    }

    #[test]
    fn a_name_without_addresses_fails() {
        assert!(matches!(attempts(0).next_step(MS(0)), Step::GiveUp(_)));
    }

    #[tokio::test]
    async fn the_first_address_that_answers_wins() {
        let connect = |address: SocketAddr| async move {
            match address.port() {
                1 => std::future::pending().await,
                2 => Err(io::ErrorKind::ConnectionRefused.into()),
                port => Ok(port),
            }
        };
        assert_eq!(run_attempts(attempts(5), connect).await.unwrap(), 3);
        let none =
            run_attempts(attempts(2), |_| async { Err::<(), _>(io::ErrorKind::TimedOut.into()) });
        assert_eq!(none.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
