//! The monotonic clock of the process.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::model::MediaTime;

/// The epoch on both clocks.
struct Epoch {
    monotonic: Instant,
    unix_micros: u64,
}

fn epoch() -> &'static Epoch {
    static EPOCH: OnceLock<Epoch> = OnceLock::new();
    EPOCH.get_or_init(|| Epoch {
        monotonic: Instant::from_std(std::time::Instant::now()),
        unix_micros: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64),
    })
}

/// The current time on the process's monotonic clock, whose epoch is the first call.
///
/// It is tokio's clock: the system's, except in a test that has paused it.
pub fn now() -> MediaTime {
    MediaTime::from_micros(epoch().monotonic.elapsed().as_micros() as u64)
}

/// Converts a time to an NTP time, seconds since 1900 in 32.32 fixed point, by the same wall clock as
/// [`unix_ms`].
pub fn ntp_time(time: MediaTime) -> u64 {
    const SECONDS_FROM_1900_TO_1970: u64 = 2_208_988_800;
    let micros = epoch().unix_micros + time.as_micros();
    let seconds = micros / 1_000_000 + SECONDS_FROM_1900_TO_1970;
    (seconds << 32) | (((micros % 1_000_000) << 32) / 1_000_000)
}

/// Converts a time to Unix milliseconds, by the wall clock as it was at the epoch: later changes
/// of the wall clock have no effect.
pub fn unix_ms(time: MediaTime) -> u64 {
    (epoch().unix_micros + time.as_micros()) / 1000
}
