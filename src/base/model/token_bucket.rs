//! A token bucket: a rate limiter with a burst and an average rate.

use std::{
    ops,
    time::{Duration, Instant},
};

use super::MediaTime;

/// A point in time of a monotonic clock.
pub trait TimePoint: Copy + Ord + ops::Add<Duration, Output = Self> {
    /// The time between `earlier` and this time; zero if `earlier` is later.
    fn since(self, earlier: Self) -> Duration;
}

impl TimePoint for MediaTime {
    fn since(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl TimePoint for Instant {
    fn since(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// The rate and the burst of a [`TokenBucket`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenRate {
    /// Tokens that are added in each period.
    tokens: u32,
    /// The period in nanoseconds.
    period: i64,
    /// The most tokens that the bucket holds.
    burst: u32,
}

impl TokenRate {
    /// So many tokens each second, and at most `burst` at once.
    pub const fn per_second(tokens: u32, burst: u32) -> Self {
        Self { tokens, period: 1_000_000_000, burst }
    }

    /// One token in each period, which is shorter than 292 years, and at most `burst` at once.
    pub const fn every(period: Duration, burst: u32) -> Self {
        Self { tokens: 1, period: period.as_nanos() as i64, burst }
    }
}

/// A token bucket, full at first. Time is passed in as a value, of whatever clock the owner uses.
///
/// All amounts are exact. Times are rounded up to a microsecond, the resolution of [`MediaTime`], so
/// that a token is there at the time that is returned.
#[derive(Debug)]
pub struct TokenBucket<T = MediaTime> {
    rate: TokenRate,
    /// The content: tokens times the nanoseconds of the period. Negative while tokens are promised
    /// for later.
    level: i64,
    /// When it was last refilled.
    refilled_at: T,
}

impl<T: TimePoint> TokenBucket<T> {
    /// A full bucket.
    pub const fn new(rate: TokenRate, now: T) -> Self {
        Self { rate, level: rate.burst as i64 * rate.period, refilled_at: now }
    }

    /// Takes so many tokens, whether they are there or not. Returns the time from which they are.
    pub fn take(&mut self, tokens: u32, now: T) -> T {
        self.refill(now);
        self.spend_tokens(tokens as usize);
        now + self.time_to_gain(self.level_at(now).saturating_neg())
    }

    /// Takes a token that is available now or within `max_wait`; returns the time until then.
    /// `None` if it would take longer.
    pub fn take_within(&mut self, max_wait: Duration, now: T) -> Option<Duration> {
        let wait = self.time_until_token(now);
        (wait <= max_wait).then(|| {
            self.spend_tokens(1);
            wait
        })
    }

    /// The time until a token is available.
    pub fn time_until_token(&mut self, now: T) -> Duration {
        self.refill(now);
        self.time_to_gain(self.rate.period.saturating_sub(self.level_at(now)))
    }

    /// Whether so many tokens are available.
    pub fn has_tokens(&mut self, tokens: usize, now: T) -> bool {
        self.refill(now);
        self.amount(tokens) <= self.level_at(now)
    }

    /// Takes so many tokens; the caller has checked [`Self::has_tokens`].
    pub fn spend_tokens(&mut self, tokens: usize) {
        self.level = self.level.saturating_sub(self.amount(tokens));
    }

    /// Whether the bucket is full.
    pub fn is_full(&mut self, now: T) -> bool {
        self.refill(now);
        self.level_at(now) == self.capacity()
    }

    /// When the bucket will be full, if no further tokens are taken.
    pub fn full_at(&self) -> T {
        self.refilled_at + self.time_to_gain(self.capacity().saturating_sub(self.level))
    }

    fn refill(&mut self, now: T) {
        let gain = self.gain(now.since(self.refilled_at));
        self.level = self.level.saturating_add(gain).min(self.capacity());
        self.refilled_at = self.refilled_at.max(now);
    }

    /// The level at a time that may be earlier than the last refill: another thread may have read
    /// the clock before.
    fn level_at(&self, now: T) -> i64 {
        self.level.saturating_sub(self.gain(self.refilled_at.since(now)))
    }

    /// By how much the level rises in that time.
    fn gain(&self, time: Duration) -> i64 {
        let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        nanos.saturating_mul(i64::from(self.rate.tokens))
    }

    /// The time in which the level rises by that much.
    fn time_to_gain(&self, amount: i64) -> Duration {
        let nanos_per_micro = 1000;
        let per_micro = u64::from(self.rate.tokens) * nanos_per_micro;
        Duration::from_micros((amount.max(0) as u64).div_ceil(per_micro))
    }

    const fn capacity(&self) -> i64 {
        self.rate.burst as i64 * self.rate.period
    }

    fn amount(&self, tokens: usize) -> i64 {
        i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(self.rate.period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MediaTime = MediaTime::from_micros(5_000_000);
    const PACE: TokenRate = TokenRate::per_second(200, 400);

    fn after(ms: u64) -> MediaTime {
        START + Duration::from_millis(ms)
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut bucket = TokenBucket::new(PACE, START);
        let none = Duration::ZERO;
        let take_all = |bucket: &mut TokenBucket, now| {
            (0..1000).take_while(|_| bucket.take_within(none, now) == Some(none)).count()
        };
        assert_eq!(take_all(&mut bucket, START), 400);
        assert_eq!(bucket.take_within(Duration::from_millis(4), START), None);
        assert_eq!(
            bucket.take_within(Duration::from_millis(5), START),
            Some(Duration::from_millis(5))
        );
        assert_eq!(bucket.take_within(none, after(5)), None, "that one was promised");
        assert_eq!(bucket.take_within(none, after(10)), Some(none));
        assert_eq!(take_all(&mut bucket, after(1010)), 200);
        assert_eq!(take_all(&mut bucket, after(3_600_000)), 400, "it does not hold more");
    }

    #[test]
    fn many_tokens_are_taken_only_if_all_are_available() {
        let mut bucket = TokenBucket::new(PACE, START);
        assert!(
            bucket.has_tokens(400, START)
                && !bucket.has_tokens(401, START)
                && !bucket.has_tokens(usize::MAX, START)
        );
        bucket.spend_tokens(300);
        assert!(bucket.has_tokens(100, START) && !bucket.has_tokens(101, START));
        assert!(bucket.has_tokens(300, after(1000)) && !bucket.is_full(after(1499)));
        assert!(bucket.is_full(after(1500)));
    }

    #[test]
    fn tokens_can_be_taken_before_they_are_there() {
        let (now, interval, burst) = (Instant::now(), Duration::from_millis(25), 64);
        let mut bucket = TokenBucket::new(TokenRate::every(interval, burst), now);
        assert!((0..burst).all(|_| bucket.take(1, now) == now));
        assert_eq!(bucket.take(1, now), now + interval);
        assert_eq!(bucket.take(1, now + interval), now + 2 * interval);
        let later = now + interval * 1000;
        assert_eq!(bucket.take(burst, later), later, "the bucket is full again");
        assert_eq!(bucket.take(3, later), later + 3 * interval);
        assert!(
            !bucket.has_tokens(1, later + 3 * interval)
                && bucket.has_tokens(1, later + 4 * interval)
        );
        assert_eq!(bucket.full_at(), later + interval * (burst + 3));
    }

    #[test]
    fn a_token_is_there_at_the_time_that_was_promised_and_time_that_goes_back_adds_none() {
        // Neither rate is a whole number of microseconds for each token.
        for rate in [TokenRate::per_second(128 * 1024, 10), TokenRate::per_second(7, 10)] {
            let mut bucket = TokenBucket::new(rate, START);
            bucket.spend_tokens(10);
            let mut now = START;
            for _ in 0..1000 {
                let wait = bucket.time_until_token(now);
                assert!(wait > Duration::ZERO && !bucket.has_tokens(1, START));
                now = now + wait;
                assert!(bucket.has_tokens(1, now));
                bucket.spend_tokens(1);
            }
            assert!(!bucket.has_tokens(1, now));
        }
    }
}
