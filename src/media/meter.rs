//! How loud something is now, written by one thread and read by any, without a lock.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The level of silence, and of what is measured by nobody.
pub const SILENCE_DBFS: f32 = -120.0;

/// A level in dB against full scale. Clones are the same meter.
#[derive(Clone, Debug)]
pub struct Meter(Arc<AtomicU32>);

impl Default for Meter {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(SILENCE_DBFS.to_bits())))
    }
}

impl Meter {
    /// Shows another level; for real-time threads too.
    pub fn set(&self, dbfs: f32) {
        self.0.store(dbfs.to_bits(), Ordering::Relaxed);
    }

    /// The level that was shown last.
    pub fn dbfs(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_is_silent_until_somebody_measures() {
        let meter = Meter::default();
        let seen = meter.clone();
        assert_eq!(seen.dbfs(), SILENCE_DBFS);
        meter.set(-20.5);
        assert_eq!(seen.dbfs(), -20.5);
    }
}
