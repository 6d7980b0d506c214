//! How much one client and one address may have, and how fast.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::model::MediaTime;

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// From everywhere.
    pub(super) all: usize,
    /// From one other machine. This machine's own programs may use all: a proxy is one.
    pub(super) per_source: usize,
}

impl Default for Links {
    /// 4096 and 64: a large broadcast several times over, and an office behind one address.
    fn default() -> Self {
        Self { all: 4096, per_source: 64 }
    }
}

/// Words that one link may say: a second's worth, and at once.
///
/// An opener of 256 seats trickles some 2800 words when all come back; they take 12 s. Faster
/// ones are read later, none is lost.
const WORDS: Pace = Pace { per_second: 200, burst: 400 };

/// Joins and opens from one other machine: ten people behind one address are back in their five
/// sessions two seconds after a restart.
const ENTRIES: Pace = Pace { per_second: 10, burst: 30 };

/// Joins and opens from this machine, by tests and by the people behind a proxy.
const LOCAL_ENTRIES: Pace = Pace { per_second: 200, burst: 400 };

/// How long a join or open may be put off before it is refused: short of what makes a link look
/// silent, to the hub or to its client.
const ENTRY_PATIENCE: Duration = Duration::from_secs(3);

/// How often something may happen.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: i64,
    burst: i64,
}

/// A token bucket: full at first, one token taken each time.
#[derive(Debug)]
pub(super) struct Bucket {
    pace: Pace,
    /// What is in it, in millionths of a token; less than nothing if tokens are promised.
    level: i64,
    /// When it was last filled up.
    filled: MediaTime,
}

/// One token, in the unit of [`Bucket::level`].
const TOKEN: i64 = 1_000_000;

impl Bucket {
    /// The words of one link.
    pub(super) fn words(now: MediaTime) -> Self {
        Self::new(WORDS, now)
    }

    /// Takes a token that is there, or will be within `patience`; tells when, as a span from now.
    /// `None` if it would take longer.
    pub(super) fn take(&mut self, patience: Duration, now: MediaTime) -> Option<Duration> {
        self.fill(now);
        let rest = self.level - TOKEN;
        let missing = (-rest).max(0) as u64;
        let wait = Duration::from_micros(missing.div_ceil(self.pace.per_second as u64));
        (wait <= patience).then(|| {
            self.level = rest;
            wait
        })
    }

    fn new(pace: Pace, now: MediaTime) -> Self {
        Self { pace, level: pace.burst * TOKEN, filled: now }
    }

    fn is_full(&mut self, now: MediaTime) -> bool {
        self.fill(now);
        self.level == self.pace.burst * TOKEN
    }

    fn fill(&mut self, now: MediaTime) {
        let micros = i64::try_from(now.since(self.filled).as_micros()).unwrap_or(i64::MAX);
        let gain = micros.saturating_mul(self.pace.per_second);
        self.level = self.level.saturating_add(gain).min(self.pace.burst * TOKEN);
        self.filled = now;
    }
}

/// The joins and opens of all addresses.
#[derive(Debug, Default)]
pub(super) struct Entries {
    sources: BTreeMap<IpAddr, Source>,
}

#[derive(Debug)]
struct Source {
    links: usize,
    bucket: Bucket,
}

impl Entries {
    /// Notes a link from there. Forgets addresses that have none and have rested: those that
    /// have not are kept, or a new link would be a new allowance.
    pub(super) fn arrived(&mut self, ip: IpAddr, now: MediaTime) {
        self.sources.retain(|_, source| source.links > 0 || !source.bucket.is_full(now));
        let pace = if ip.is_loopback() { LOCAL_ENTRIES } else { ENTRIES };
        let fresh = || Source { links: 0, bucket: Bucket::new(pace, now) };
        self.sources.entry(ip).or_insert_with(fresh).links += 1;
    }

    /// Notes that a link from there is gone.
    pub(super) fn gone(&mut self, ip: IpAddr) {
        if let Some(source) = self.sources.get_mut(&ip) {
            source.links = source.links.saturating_sub(1);
        }
    }

    /// How long a link from there is to wait before it joins or opens a session; `None` if too
    /// many wait already.
    pub(super) fn enter(&mut self, ip: IpAddr, now: MediaTime) -> Option<Duration> {
        self.sources.get_mut(&ip)?.bucket.take(ENTRY_PATIENCE, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MediaTime = MediaTime::from_micros(5_000_000);

    fn after(ms: u64) -> MediaTime {
        START + Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_pace() {
        let mut bucket = Bucket::words(START);
        let none = Duration::ZERO;
        let taken = |bucket: &mut Bucket, now| {
            (0..1000).take_while(|_| bucket.take(none, now) == Some(none)).count()
        };
        assert_eq!(taken(&mut bucket, START), 400);
        assert_eq!(bucket.take(Duration::from_millis(4), START), None);
        assert_eq!(bucket.take(Duration::from_millis(5), START), Some(Duration::from_millis(5)));
        assert_eq!(bucket.take(none, after(5)), None, "that one was promised");
        assert_eq!(bucket.take(none, after(10)), Some(none));
        assert_eq!(taken(&mut bucket, after(1010)), 200);
        assert_eq!(taken(&mut bucket, after(3_600_000)), 400, "it does not hold more");
    }

    #[test]
    fn all_links_of_an_address_share_its_entries_and_wait_their_turn() {
        let mut entries = Entries::default();
        let (office, other): (IpAddr, IpAddr) =
            ("192.168.1.5".parse().unwrap(), "192.168.1.6".parse().unwrap());
        entries.arrived(office, START);
        entries.arrived(office, START);
        entries.arrived(other, START);
        let waits: Vec<_> = (0..100).map_while(|_| entries.enter(office, START)).collect();
        assert_eq!(waits.len(), 60, "30 at once, 30 within three seconds, no more");
        assert_eq!(waits[29], Duration::ZERO);
        assert_eq!(waits[30], Duration::from_millis(100));
        assert_eq!(waits[59], Duration::from_secs(3));
        assert_eq!(entries.enter(other, START), Some(Duration::ZERO));
        let later = (0..100).map_while(|_| entries.enter(office, after(1000))).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn a_new_link_is_no_new_allowance_and_a_rested_address_is_forgotten() {
        let mut entries = Entries::default();
        let ip: IpAddr = "192.168.1.5".parse().unwrap();
        entries.arrived(ip, START);
        while entries.enter(ip, START).is_some() {}
        entries.gone(ip);
        entries.arrived(ip, START);
        assert_eq!(entries.enter(ip, START), None);
        entries.gone(ip);
        entries.arrived("192.168.1.7".parse().unwrap(), after(5_999));
        assert_eq!(entries.sources.len(), 2);
        entries.arrived("192.168.1.7".parse().unwrap(), after(6_000));
        assert_eq!(entries.sources.len(), 1);
    }

    #[test]
    fn this_machine_may_enter_more_often() {
        let mut entries = Entries::default();
        let ip: IpAddr = "127.0.0.1".parse().unwrap();
        entries.arrived(ip, START);
        let waits: Vec<_> = (0..2000).map_while(|_| entries.enter(ip, START)).collect();
        assert_eq!((waits.len(), waits[399]), (1000, Duration::ZERO));
    }
}
