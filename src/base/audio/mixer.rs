//! Mixes audio streams.

use crate::media::BLOCK_SAMPLES;

/// Sums the blocks of many audio streams, 10 ms at a time, without allocating.
#[derive(Clone, Debug)]
pub struct Mixer {
    sum: [f32; BLOCK_SAMPLES],
}

impl Mixer {
    /// Below this magnitude the sum is exact. Above it, the sum is compressed so that it never
    /// exceeds full scale.
    pub const KNEE: f32 = 0.8;

    /// An empty mix.
    pub const fn new() -> Self {
        Self { sum: [0.0; BLOCK_SAMPLES] }
    }

    /// Adds a block of one stream. NaN and infinite samples count as silence.
    pub fn add(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        for (sum, sample) in self.sum.iter_mut().zip(block) {
            *sum += if sample.is_finite() { *sample } else { 0.0 };
        }
    }

    /// Returns the mix, within ±1, and starts an empty one.
    pub fn take(&mut self) -> [f32; BLOCK_SAMPLES] {
        let mut mix = std::mem::replace(&mut self.sum, [0.0; BLOCK_SAMPLES]);
        mix.iter_mut().for_each(|sample| *sample = soft_clip(*sample));
        mix
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self::new()
    }
}

/// Compresses a sample towards ±1 above the knee, with a continuous slope at the knee.
fn soft_clip(sample: f32) -> f32 {
    let (magnitude, headroom) = (sample.abs(), 1.0 - Mixer::KNEE);
    if magnitude <= Mixer::KNEE {
        return sample;
    }
    (Mixer::KNEE + headroom * ((magnitude - Mixer::KNEE) / headroom).tanh()).copysign(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_streams_add_up_exactly_and_the_next_mix_starts_empty() {
        let mut mixer = Mixer::new();
        for part in [0.25, 0.125, -0.0625] {
            mixer.add(&[part; BLOCK_SAMPLES]);
        }
        assert_eq!(mixer.take(), [0.3125; BLOCK_SAMPLES]);
        assert_eq!(mixer.take(), [0.0; BLOCK_SAMPLES]);
    }

    #[test]
    fn loud_streams_never_exceed_full_scale_and_a_louder_input_stays_louder() {
        let mixed = |level: f32| {
            let mut mixer = Mixer::new();
            (0..24).for_each(|_| mixer.add(&[level; BLOCK_SAMPLES]));
            mixer.take()[7]
        };
        let levels = [-1.0, -0.05, -0.04, 0.0, 0.03, 0.034, 0.04, 0.05, 1.0].map(mixed);
        assert!(levels.iter().all(|level| level.abs() <= 1.0), "{levels:?}");
        assert!(levels[1..8].is_sorted_by(|a, b| a < b), "{levels:?}");
        assert!((mixed(0.8001 / 24.0) - 0.8).abs() < 0.001, "no step at the knee");
    }

    #[test]
    fn nan_and_infinite_samples_are_silence() {
        let mut mixer = Mixer::new();
        mixer.add(&[f32::NAN; BLOCK_SAMPLES]);
        mixer.add(&[f32::INFINITY; BLOCK_SAMPLES]);
        mixer.add(&[0.5; BLOCK_SAMPLES]);
        assert_eq!(mixer.take(), [0.5; BLOCK_SAMPLES]);
    }
}
