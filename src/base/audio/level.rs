//! The level of an audio signal.

use crate::media::BLOCK_SAMPLES;

/// The level of silence, and the lowest level that is reported, in dB relative to full scale.
pub const SILENCE_DBFS: f64 = -120.0;

/// The level of the samples (RMS) in dB relative to full scale ±1: a full-scale sine has -3.01, a
/// full-scale square wave 0. At least [`SILENCE_DBFS`].
pub fn level_dbfs(samples: &[f32]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample) * f64::from(*sample)).sum();
    let mean = energy / samples.len().max(1) as f64;
    if mean.is_finite() { decibels(mean) } else { SILENCE_DBFS }
}

/// The level of the newest `BLOCKS` blocks of 10 ms, updated block by block: by default of the last
/// tenth of a second.
#[derive(Clone, Debug)]
pub struct LevelWindow<const BLOCKS: usize = 10> {
    /// The sum of the squared samples of each block.
    energies: [f64; BLOCKS],
    next: usize,
}

impl<const BLOCKS: usize> Default for LevelWindow<BLOCKS> {
    fn default() -> Self {
        Self { energies: [0.0; BLOCKS], next: 0 }
    }
}

impl<const BLOCKS: usize> LevelWindow<BLOCKS> {
    /// Adds a block. Returns the level of the window in dB relative to full scale, as defined by
    /// [`level_dbfs`].
    pub fn push(&mut self, block: &[f32; BLOCK_SAMPLES]) -> f32 {
        self.energies[self.next] = block.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        self.next = (self.next + 1) % BLOCKS;
        let mean = self.energies.iter().sum::<f64>() / (BLOCKS * BLOCK_SAMPLES) as f64;
        if mean.is_finite() { decibels(mean) as f32 } else { SILENCE_DBFS as f32 }
    }
}

/// A level in dB relative to full scale as a factor: 1 is full scale, and 0 is silence.
pub fn linear_level(dbfs: f64) -> f64 {
    if dbfs <= SILENCE_DBFS { 0.0 } else { 10_f64.powf(dbfs / 20.0).min(1.0) }
}

fn decibels(mean: f64) -> f64 {
    (10.0 * mean.log10()).max(SILENCE_DBFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_rises_and_falls_within_a_tenth_of_a_second() {
        let mut window = LevelWindow::<10>::default();
        let square = [0.1; BLOCK_SAMPLES];
        let rising: Vec<_> = (0..10).map(|_| window.push(&square)).collect();
        assert!((rising[0] - -30.0).abs() < 0.01 && (rising[9] - -20.0).abs() < 0.01, "{rising:?}");
        let falling: Vec<_> = (0..10).map(|_| window.push(&[0.0; BLOCK_SAMPLES])).collect();
        assert!((falling[8] - -30.0).abs() < 0.01, "{falling:?}");
        assert_eq!(falling[9], SILENCE_DBFS as f32);
        assert_eq!(window.push(&[f32::NAN; BLOCK_SAMPLES]), SILENCE_DBFS as f32);
    }

    #[test]
    fn levels_match_known_signals() {
        let sine: Vec<_> = (0..48_000_u16)
            .map(|n| 0.1 * (f32::from(n) * 440.0 / 48_000.0 * std::f32::consts::TAU).sin())
            .collect();
        assert!((level_dbfs(&sine) - -23.01).abs() < 0.01, "{}", level_dbfs(&sine));
        assert!((level_dbfs(&[1.0, -1.0])).abs() < 1e-9);
        for silent in [&[][..], &[0.0; 480], &[1e-9; 480], &[f32::NAN]] {
            assert_eq!(level_dbfs(silent).max(SILENCE_DBFS), SILENCE_DBFS, "{silent:?}");
        }
    }

    #[test]
    fn a_linear_level_is_a_factor_and_silence_is_zero() {
        assert_eq!([0.0, 3.0, SILENCE_DBFS, -130.0].map(linear_level), [1.0, 1.0, 0.0, 0.0]);
        assert!((linear_level(-20.0) - 0.1).abs() < 1e-9);
    }
}
