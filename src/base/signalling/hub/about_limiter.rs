//! Limits how often one source address may ask about sessions. Pure.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use crate::model::{MediaTime, TokenBucket, TokenRate};

/// Questions of one other machine: as many as joins, so that guessing ids is no faster.
const SOURCE_RATE: TokenRate = TokenRate::per_second(10, 30);

/// Questions of this machine, where a proxy may run.
const LOCAL_RATE: TokenRate = TokenRate::per_second(200, 400);

/// What the source addresses may still ask. Joins have a budget of their own: pages that wait for a
/// session to open must not keep those behind the same address out of other sessions.
#[derive(Debug, Default)]
pub(super) struct AboutLimiter {
    sources: BTreeMap<IpAddr, TokenBucket>,
}

impl AboutLimiter {
    /// Counts a question.
    ///
    /// # Errors
    /// The time after which the address may ask again.
    pub(super) fn take(&mut self, source: IpAddr, now: MediaTime) -> Result<(), Duration> {
        // A full bucket is as good as a new one.
        self.sources.retain(|_, bucket| !bucket.is_full(now));
        let rate = if source.is_loopback() { LOCAL_RATE } else { SOURCE_RATE };
        let bucket = self.sources.entry(source).or_insert_with(|| TokenBucket::new(rate, now));
        if bucket.has_tokens(1, now) {
            bucket.spend_tokens(1);
            return Ok(());
        }
        Err(bucket.time_until_token(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_asks_thirty_times_at_once_and_ten_times_a_second() {
        let (mut limiter, mut now) = (AboutLimiter::default(), MediaTime::from_micros(1_000_000));
        let office = ip("192.168.1.5");
        let at_once = (0..100).filter(|_| limiter.take(office, now).is_ok()).count();
        assert_eq!(at_once, 30);
        assert_eq!(limiter.take(office, now), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(ip("192.168.1.6"), now), Ok(()), "others are not affected");
        now = now + Duration::from_secs(1);
        let later = (0..100).filter(|_| limiter.take(office, now).is_ok()).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn addresses_that_asked_long_ago_are_forgotten() {
        let (mut limiter, now) = (AboutLimiter::default(), MediaTime::from_micros(1_000_000));
        for last in 1..=100 {
            limiter.take(IpAddr::from([192, 0, 2, last]), now).unwrap();
        }
        assert_eq!(limiter.sources.len(), 100);
        limiter.take(ip("127.0.0.1"), now + Duration::from_millis(100)).unwrap();
        assert_eq!(limiter.sources.len(), 1);
    }
}
