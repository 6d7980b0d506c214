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
    /// How many ticks the stream is ahead of the process's clock, times [`Self::SMOOTHING`]; [`UNKNOWN`]
    /// before the first frame.
    offset: AtomicI64,
}

/// Stands for no offset.
const UNKNOWN: i64 = i64::MIN;

impl SendClock {
    /// The part of a difference that is followed at once is one of so many: times of capture jitter by
    /// some milliseconds, and sender reports with that jitter move the other end's picture.
    const SMOOTHING: i64 = 64;

    /// A difference of more than a twentieth of a second is followed at once: it is another source.
    const JUMPS_A_SECOND: i64 = 20;

    pub(in crate::transport) fn new(rate: u32) -> Arc<Self> {
        Arc::new(Self { rate, offset: AtomicI64::new(UNKNOWN) })
    }

    /// Records that the media at `ticks` were captured at `time`. Returns the RTP timestamp.
    pub(in crate::transport) fn record(&self, time: MediaTime, ticks: u64) -> u32 {
        let latest = (ticks.wrapping_sub(self.ticks(time)) as i64).wrapping_mul(Self::SMOOTHING);
        let before = self.offset.load(Ordering::Relaxed);
        let difference = latest.wrapping_sub(before);
        let jump = i64::from(self.rate) * Self::SMOOTHING / Self::JUMPS_A_SECOND;
        let is_jump = before == UNKNOWN || difference.unsigned_abs() > jump as u64;
        let offset =
            if is_jump { latest } else { before.wrapping_add(difference / Self::SMOOTHING) };
        self.offset.store(offset, Ordering::Relaxed);
        ticks as u32
    }

    /// The RTP timestamp of media captured at `time`, modulo 2³².
    pub(in crate::transport) fn timestamp_at(&self, time: MediaTime) -> u32 {
        let offset = match self.offset.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            scaled => scaled / Self::SMOOTHING,
        };
        self.ticks(time).wrapping_add(offset as u64) as u32
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

    #[test]
    fn times_of_capture_that_jitter_move_the_clock_by_a_fraction() {
        let (clock, at) = (SendClock::new(48_000), |ms: u64| MediaTime::from_micros(ms * 1000));
        for packet in 0..500_u64 {
            // The capture time is up to 9 ms late.
            let late = packet * packet * 31 % 10;
            clock.record(at(1000 + packet * 20 + late), packet * 960);
            if packet > 200 {
                let exact = packet * 960;
                let told = clock.timestamp_at(at(1000 + packet * 20));
                let error = i64::from(told) - exact as i64;
                assert!((-6 * 48..=-3 * 48).contains(&error), "{packet}: {error}");
            }
        }
    }
}
