//! Computes when a block of a device's audio was captured.

use std::time::Duration;

use crate::{
    media::{AUDIO_RATE, BLOCK_SAMPLES},
    model::MediaTime,
};

/// How far the time counted in samples may lag behind the arrival time before the samples between
/// them are regarded as lost.
const REANCHOR_THRESHOLD: Duration = Duration::from_millis(50);

/// With each block, 1/1024 of the difference to the arrival time is corrected.
///
/// A full correction takes about ten seconds: late callbacks do not show, and the drift of the
/// device's clock cannot add up.
const SLEW_DIVISOR: i64 = 1024;

/// The correction per block when the counted time is far ahead, in microseconds.
const CATCH_UP_MICROS: u64 = 500;

/// Gives each block the capture time of its first sample: counted in samples, anchored to the
/// arrival time.
///
/// The time rises by 10 ms per block, with corrections of some microseconds for the drift of the
/// device's clock. It jumps only when samples were lost.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleClock {
    next_micros: Option<u64>,
}

impl SampleClock {
    /// The capture time of a block that is read at `now`; `waiting` is the duration of the newer
    /// audio that is already buffered.
    pub(super) fn block_time(&mut self, now: MediaTime, waiting: Duration) -> MediaTime {
        let length = BLOCK_SAMPLES as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        let behind = waiting.as_micros() as u64 + length;
        let arrived = now.as_micros().saturating_sub(behind);
        let time = match self.next_micros {
            None => arrived,
            Some(next) if arrived > next + REANCHOR_THRESHOLD.as_micros() as u64 => arrived,
            // Capture times never go back. The counted time is slowed down until the arrival
            // time has caught up.
            Some(next) if next > arrived + REANCHOR_THRESHOLD.as_micros() as u64 => {
                next - CATCH_UP_MICROS
            }
            Some(next) => next.saturating_add_signed((arrived as i64 - next as i64) / SLEW_DIVISOR),
        };
        self.next_micros = Some(time + length);
        MediaTime::from_micros(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 10_000;

    #[test]
    fn late_callbacks_do_not_show_and_the_drift_of_a_fast_device_is_followed() {
        let mut clock = SampleClock::default();
        let mut last =
            clock.block_time(MediaTime::from_micros(1_000_000), Duration::ZERO).as_micros();
        for n in 1..60_000_u64 {
            // The device's clock is 200 ppm fast; every seventh block is 25 ms late.
            let due = 1_000_000 + n * (BLOCK - 2);
            let late = if n % 7 == 0 { 25_000 } else { 0 };
            let time =
                clock.block_time(MediaTime::from_micros(due + late), Duration::ZERO).as_micros();
            assert!((9_900..=10_100).contains(&(time - last)), "block {n}: {}", time - last);
            assert!(time.abs_diff(due - BLOCK) < 10_000, "block {n}");
            last = time;
        }
    }

    #[test]
    fn lost_samples_make_a_jump_and_time_never_goes_back() {
        let mut clock = SampleClock::default();
        let at = |ms: u64| MediaTime::from_micros(ms * 1000);
        assert_eq!(clock.block_time(at(1000), Duration::from_millis(10)), at(980));
        assert_eq!(clock.block_time(at(1000), Duration::ZERO), at(990));
        assert_eq!(clock.block_time(at(1200), Duration::ZERO), at(1190), "180 ms were lost");
        let time = clock.block_time(at(1100), Duration::ZERO).as_micros();
        assert_eq!(time, 1_199_500, "110 ms ahead: slower, but never back");
    }
}
