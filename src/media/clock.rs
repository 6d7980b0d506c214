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

/// Converts a time to Unix milliseconds, by the wall clock as it was at the epoch: later changes
/// of the wall clock have no effect.
pub fn unix_ms(time: MediaTime) -> u64 {
    (epoch().unix_micros + time.as_micros()) / 1000
}
