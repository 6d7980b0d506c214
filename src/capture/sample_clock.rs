//! When a block of a device's sound was captured.

use std::time::Duration;

use crate::{
    media::{AUDIO_RATE, BLOCK_SAMPLES},
    model::MediaTime,
};

/// How far the count of samples may be from the clock before samples were lost.
const REANCHOR: Duration = Duration::from_millis(50);

/// The share of the distance that is taken back with each block: some ten seconds for all of it,
/// so that late callbacks do not show, but a device's own clock never drifts away.
const SLEW: i64 = 1024;

/// What is taken back with each block when time is far ahead, in microseconds.
const CATCH_UP: u64 = 500;

/// Gives each block the time of its first sample: counted in samples, anchored to arrival.
///
/// Times rise by 10 ms a block, corrected by some microseconds as the device's clock drifts, and
/// jump only when sound was lost.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleClock {
    next: Option<u64>,
}

impl SampleClock {
    /// The time of a block that is taken now, when that much sound waits behind it.
    pub(super) fn block(&mut self, now: MediaTime, waiting: Duration) -> MediaTime {
        let length = BLOCK_SAMPLES as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        let behind = waiting.as_micros() as u64 + length;
        let arrived = now.as_micros().saturating_sub(behind);
        let time = match self.next {
            None => arrived,
            Some(next) if arrived > next + REANCHOR.as_micros() as u64 => arrived,
            // Never back: a time that was given stays given. It is caught up with in a second.
            Some(next) if next > arrived + REANCHOR.as_micros() as u64 => next - CATCH_UP,
            Some(next) => next.saturating_add_signed((arrived as i64 - next as i64) / SLEW),
        };
        self.next = Some(time + length);
        MediaTime::from_micros(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 10_000;

    #[test]
    fn late_callbacks_do_not_show_and_a_fast_device_is_followed() {
        let mut clock = SampleClock::default();
        let mut last = clock.block(MediaTime::from_micros(1_000_000), Duration::ZERO).as_micros();
        for n in 1..60_000_u64 {
            // The device's clock is 200 ppm fast; every seventh block is 25 ms late.
            let due = 1_000_000 + n * (BLOCK - 2);
            let late = if n % 7 == 0 { 25_000 } else { 0 };
            let time = clock.block(MediaTime::from_micros(due + late), Duration::ZERO).as_micros();
            assert!((9_900..=10_100).contains(&(time - last)), "block {n}: {}", time - last);
            assert!(time.abs_diff(due - BLOCK) < 10_000, "block {n}");
            last = time;
        }
    }

    #[test]
    fn lost_sound_is_a_jump_and_time_never_goes_back() {
        let mut clock = SampleClock::default();
        let at = |ms: u64| MediaTime::from_micros(ms * 1000);
        assert_eq!(clock.block(at(1000), Duration::from_millis(10)), at(980));
        assert_eq!(clock.block(at(1000), Duration::ZERO), at(990));
        assert_eq!(clock.block(at(1200), Duration::ZERO), at(1190), "180 ms were lost");
        let time = clock.block(at(1100), Duration::ZERO).as_micros();
        assert_eq!(time, 1_199_500, "110 ms ahead: slower, but never back");
    }
}
