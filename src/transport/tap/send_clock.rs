//! The RTP clock of a sent stream.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::model::MediaTime;

/// The RTP clock rate of video (RFC 6184, section 8.2.1).
pub(in crate::transport) const VIDEO_CLOCK_RATE: u32 = 90_000;

/// The RTP clock of a sent stream, relative to the process's clock.
#[derive(Debug)]
pub(in crate::transport) struct SendClock {
    /// Ticks per second.
    rate: u32,
    /// How many ticks the stream is ahead of the process's clock.
    offset: AtomicI64,
}

impl SendClock {
    pub(in crate::transport) fn new(rate: u32) -> Arc<Self> {
        Arc::new(Self { rate, offset: AtomicI64::new(0) })
    }

    /// Records that the media at `ticks` were captured at `time`. Returns the RTP timestamp.
    pub(in crate::transport) fn record(&self, time: MediaTime, ticks: u64) -> u32 {
        let offset = ticks.wrapping_sub(self.ticks(time)) as i64;
        self.offset.store(offset, Ordering::Relaxed);
        ticks as u32
    }

    /// The RTP timestamp of media captured at `time`, modulo 2³².
    pub(in crate::transport) fn timestamp_at(&self, time: MediaTime) -> u32 {
        self.ticks(time).wrapping_add(self.offset.load(Ordering::Relaxed) as u64) as u32
    }

    /// `time` in ticks of this clock's rate.
    pub(in crate::transport) fn ticks(&self, time: MediaTime) -> u64 {
        (u128::from(time.as_micros()) * u128::from(self.rate) / 1_000_000) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_gives_the_timestamp_of_media_captured_at_a_time_not_sent_at_it() {
        let (clock, second) = (SendClock::new(48_000), MediaTime::from_micros(1_000_000));
        assert_eq!(clock.record(second, 96_000), 96_000);
        assert_eq!(
            clock.timestamp_at(second + std::time::Duration::from_millis(80)),
            96_000 + 80 * 48
        );
        assert_eq!(clock.record(second, 5), 5, "a new source restarts the count");
        assert_eq!(clock.timestamp_at(MediaTime::default()), 5_u32.wrapping_sub(48_000));
    }
}
