//! A token bucket for rate limits. Pure: time is passed in as a value.

use std::time::Duration;

use crate::model::MediaTime;

/// The rate and the burst of a token bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Tokens that are added each second.
    pub(super) per_second: i64,
    /// The most tokens that the bucket holds.
    pub(super) burst: i64,
}

/// A token bucket, full at first.
#[derive(Debug)]
pub(super) struct TokenBucket {
    rate: Rate,
    /// The content, in millionths of a token; negative while tokens are promised for later.
    level: i64,
    /// When it was last refilled.
    refilled_at: MediaTime,
}

/// One token, in the unit of [`TokenBucket::level`].
const TOKEN: i64 = 1_000_000;

impl TokenBucket {
    /// A full bucket.
    pub(super) fn new(rate: Rate, now: MediaTime) -> Self {
        Self { rate, level: rate.burst * TOKEN, refilled_at: now }
    }

    /// Takes a token that is available now or within `max_wait`; returns the time until then.
    /// `None` if it would take longer.
    pub(super) fn take_within(&mut self, max_wait: Duration, now: MediaTime) -> Option<Duration> {
        let wait = self.time_until_token(now);
        (wait <= max_wait).then(|| {
            self.level -= TOKEN;
            wait
        })
    }

    /// The time until a token is available.
    pub(super) fn time_until_token(&mut self, now: MediaTime) -> Duration {
        self.refill(now);
        let missing = (TOKEN - self.level).max(0) as u64;
        Duration::from_micros(missing.div_ceil(self.rate.per_second as u64))
    }

    /// Whether so many tokens are available.
    pub(super) fn has_tokens(&mut self, tokens: usize, now: MediaTime) -> bool {
        self.refill(now);
        i64::try_from(tokens).is_ok_and(|tokens| tokens.saturating_mul(TOKEN) <= self.level)
    }

    /// Takes so many tokens; the caller has checked [`Self::has_tokens`].
    pub(super) fn spend_tokens(&mut self, tokens: usize) {
        self.level -= tokens as i64 * TOKEN;
    }

    /// Whether the bucket is full.
    pub(super) fn is_full(&mut self, now: MediaTime) -> bool {
        self.refill(now);
        self.level == self.rate.burst * TOKEN
    }

    fn refill(&mut self, now: MediaTime) {
        let micros = i64::try_from(now.since(self.refilled_at).as_micros()).unwrap_or(i64::MAX);
        let gain = micros.saturating_mul(self.rate.per_second);
        self.level = self.level.saturating_add(gain).min(self.rate.burst * TOKEN);
        self.refilled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MediaTime = MediaTime::from_micros(5_000_000);
    const PACE: Rate = Rate { per_second: 200, burst: 400 };

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
}
