//! A leaky bucket: a rate limiter with a burst and an average rate.

use std::time::Duration;

use tokio::time::Instant;

/// A rate limiter for items: `burst` of them without a pause, and then one per interval.
#[derive(Debug)]
pub(super) struct LeakyBucket {
    /// The average time per item.
    interval: Duration,
    /// How many items are allowed without a pause.
    burst: u32,
    /// When the bucket will be empty.
    empty_at: Instant,
}

impl LeakyBucket {
    /// An empty bucket.
    pub(super) const fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, empty_at: now }
    }

    /// Counts `count` items, and returns the time from which the last of them is allowed.
    pub(super) fn take(&mut self, count: u32, now: Instant) -> Instant {
        self.empty_at = self.empty_at.max(now) + self.interval * count;
        let allowed_at = self.empty_at.checked_sub(self.interval * self.burst).unwrap_or(now);
        allowed_at.max(now)
    }

    /// Whether `count` items would be allowed without a pause.
    pub(super) fn has_room(&self, count: u32, now: Instant) -> bool {
        self.empty_at.max(now) + self.interval * count <= now + self.interval * self.burst
    }

    /// When the bucket will be empty, if no further items are counted.
    pub(super) const fn empty_at(&self) -> Instant {
        self.empty_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_at_once_and_further_items_at_the_average_rate() {
        let (now, interval, burst) = (Instant::now(), Duration::from_millis(25), 64);
        let mut bucket = LeakyBucket::new(interval, burst, now);
        assert!((0..burst).all(|_| bucket.take(1, now) == now));
        assert_eq!(bucket.take(1, now), now + interval);
        assert_eq!(bucket.take(1, now + interval), now + 2 * interval);
        let later = now + interval * 1000;
        assert_eq!(bucket.take(burst, later), later, "the bucket is empty again");
        assert_eq!(bucket.take(3, later), later + 3 * interval);
        assert!(
            !bucket.has_room(1, later + 3 * interval) && bucket.has_room(1, later + 4 * interval)
        );
        assert_eq!(bucket.empty_at(), later + interval * (burst + 3));
    }
}
