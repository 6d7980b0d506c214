//! The current level of an audio stream: one thread writes it, any thread reads it, without a lock.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// The level of silence, and of a stream that is not measured, in dB relative to full scale.
pub const SILENCE_DBFS: f32 = -120.0;

/// A level in dB relative to full scale. Clones share one value.
#[derive(Clone, Debug)]
pub struct Meter(Arc<AtomicU32>);

impl Default for Meter {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(SILENCE_DBFS.to_bits())))
    }
}

impl Meter {
    /// Sets the level. Safe on real-time threads.
    pub fn set(&self, dbfs: f32) {
        self.0.store(dbfs.to_bits(), Ordering::Relaxed);
    }

    /// The last level that was set.
    pub fn dbfs(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_shows_silence_until_a_level_is_set() {
        let meter = Meter::default();
        let reader = meter.clone();
        assert_eq!(reader.dbfs(), SILENCE_DBFS);
        meter.set(-20.5);
        assert_eq!(reader.dbfs(), -20.5);
    }
}
