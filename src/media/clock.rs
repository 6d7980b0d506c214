//! The process's one monotonic clock.

use std::{
    sync::OnceLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use crate::model::MediaTime;

/// The epoch, as both clocks showed it.
struct Epoch {
    monotonic: Instant,
    unix_micros: u64,
}

fn epoch() -> &'static Epoch {
    static EPOCH: OnceLock<Epoch> = OnceLock::new();
    EPOCH.get_or_init(|| Epoch {
        monotonic: Instant::now(),
        unix_micros: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as u64),
    })
}

/// The time now, on the process's monotonic clock. Its epoch is the first call.
pub fn now() -> MediaTime {
    MediaTime::from_micros(epoch().monotonic.elapsed().as_micros() as u64)
}

/// That time as Unix milliseconds, by the wall clock as it stood at the epoch.
pub fn unix_ms(time: MediaTime) -> u64 {
    (epoch().unix_micros + time.as_micros()) / 1000
}
