//! Measured round trip times.

use std::time::Duration;

/// The newest round trip time and the sum of all.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::transport) struct RoundTrip {
    latest: Option<Duration>,
    total: Duration,
    count: u64,
}

impl RoundTrip {
    /// Adds a measurement.
    pub(in crate::transport) fn record(&mut self, time: Duration) {
        self.latest = Some(time);
        self.total += time;
        self.count += 1;
    }

    /// The newest one.
    pub(in crate::transport) const fn latest(&self) -> Option<Duration> {
        self.latest
    }

    /// The sum of all.
    pub(in crate::transport) const fn total(&self) -> Duration {
        self.total
    }

    /// How many there were.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}
