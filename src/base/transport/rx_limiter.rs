//! Limits how fast a connection's socket is read.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::model::{TokenBucket, TokenRate};

/// The average time per datagram that is read. 4000 a second are three times what video at 6 Mbit/s
/// needs with every packet retransmitted, audio and checks included.
const DATAGRAM_INTERVAL: Duration = Duration::from_micros(250);

/// Datagrams that may be read without a pause: more than the kernel's buffer holds after a stall.
const DATAGRAM_BURST: u32 = 2000;

/// Limits how fast datagrams of admitted sources are read. Datagrams of other sources cost little
/// and are not counted: otherwise a flood of them would keep out the admitted ones.
#[derive(Debug)]
pub(super) struct RxLimiter {
    bucket: TokenBucket<Instant>,
    /// Pending while nothing is read because too much arrived.
    pause: Option<Pin<Box<Sleep>>>,
}

impl RxLimiter {
    /// Nothing was read yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            bucket: TokenBucket::new(TokenRate::every(DATAGRAM_INTERVAL, DATAGRAM_BURST), now),
            pause: None,
        }
    }

    /// Ready when the next datagram may be read.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// Counts datagrams that were read.
    pub(super) fn on_received(&mut self, datagrams: u32, now: Instant) {
        let resume = self.bucket.take(datagrams, now);
        self.pause = (resume > now).then(|| Box::pin(sleep_until(resume)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_read_at_once_and_a_flood_is_slowed_down() {
        let start = Instant::now();
        let mut limiter = RxLimiter::new(start);
        limiter.on_received(DATAGRAM_BURST, start);
        assert!(limiter.pause.is_none());
        for _ in 0..10 {
            std::future::poll_fn(|cx| limiter.poll_ready(cx)).await;
            limiter.on_received(64, Instant::now());
        }
        assert!(start.elapsed() >= DATAGRAM_INTERVAL * 64 * 9);
    }
}
