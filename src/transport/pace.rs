//! A leaky bucket: how much of a thing is taken at once, and how fast after that.

use std::time::Duration;

use tokio::time::Instant;

/// The bucket.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time that one takes, on average.
    each: Duration,
    /// How many are taken at once.
    burst: u32,
    /// When the bucket is empty.
    empty: Instant,
}

impl Pace {
    /// An empty bucket.
    pub(super) const fn new(each: Duration, burst: u32, now: Instant) -> Self {
        Self { each, burst, empty: now }
    }

    /// Counts so many that were taken, and returns the time at which the last had its turn.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> Instant {
        self.empty = self.empty.max(now) + self.each * count;
        let turn = self.empty.checked_sub(self.each * self.burst).unwrap_or(now);
        turn.max(now)
    }

    /// Whether so many would have their turn at once.
    pub(super) fn has_room(&self, count: u32, now: Instant) -> bool {
        self.empty.max(now) + self.each * count <= now + self.each * self.burst
    }

    /// When the bucket is empty, if nothing more is taken.
    pub(super) const fn empty_at(&self) -> Instant {
        self.empty
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_what_follows_at_its_pace() {
        let (now, each, burst) = (Instant::now(), Duration::from_millis(25), 64);
        let mut pace = Pace::new(each, burst, now);
        assert!((0..burst).all(|_| pace.take(1, now) == now));
        assert_eq!(pace.take(1, now), now + each);
        assert_eq!(pace.take(1, now + each), now + 2 * each);
        let later = now + each * 1000;
        assert_eq!(pace.take(burst, later), later, "the bucket is empty again");
        assert_eq!(pace.take(3, later), later + 3 * each);
        assert!(!pace.has_room(1, later + 3 * each) && pace.has_room(1, later + 4 * each));
        assert_eq!(pace.empty_at(), later + each * (burst + 3));
    }
}
