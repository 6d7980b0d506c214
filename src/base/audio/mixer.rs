//! Mixes audio streams.

use crate::media::{BLOCK_SAMPLES, StereoBlock};

/// Sums the blocks of many audio streams, 10 ms at a time, without allocating.
#[derive(Clone, Debug)]
pub struct Mixer {
    sum: StereoBlock,
}

impl Mixer {
    /// Below this magnitude the sum is exact. Above it, the sum is compressed so that it never
    /// exceeds full scale.
    pub const KNEE: f32 = 0.8;

    /// An empty mix.
    pub const fn new() -> Self {
        Self { sum: StereoBlock::mono([0.0; BLOCK_SAMPLES]) }
    }

    /// Adds a block of one stream. NaN and infinite samples count as silence.
    pub fn add(&mut self, block: &StereoBlock) {
        add(&mut self.sum.mid, &block.mid);
        if let Some(side) = &block.side {
            add(self.sum.side.get_or_insert([0.0; BLOCK_SAMPLES]), side);
        }
    }

    /// Returns the mix, each channel within ±1, and starts an empty one. It has two channels if one of
    /// the streams has.
    pub fn take(&mut self) -> StereoBlock {
        let mut mix = std::mem::take(self).sum;
        match &mut mix.side {
            None => mix.mid.iter_mut().for_each(|sample| *sample = soft_clip(*sample)),
            Some(side) => {
                for (mid, side) in mix.mid.iter_mut().zip(side) {
                    let (left, right) = (soft_clip(*mid + *side), soft_clip(*mid - *side));
                    (*mid, *side) = (f32::midpoint(left, right), (left - right) / 2.0);
                }
            }
        }
        mix
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self::new()
    }
}

fn add(sum: &mut [f32; BLOCK_SAMPLES], block: &[f32; BLOCK_SAMPLES]) {
    for (sum, sample) in sum.iter_mut().zip(block) {
        *sum += if sample.is_finite() { *sample } else { 0.0 };
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
            mixer.add(&StereoBlock::mono([part; BLOCK_SAMPLES]));
        }
        assert_eq!(mixer.take().mid, [0.3125; BLOCK_SAMPLES]);
        assert_eq!(mixer.take().mid, [0.0; BLOCK_SAMPLES]);
    }

    #[test]
    fn loud_streams_never_exceed_full_scale_and_a_louder_input_stays_louder() {
        let mixed = |level: f32| {
            let mut mixer = Mixer::new();
            (0..24).for_each(|_| mixer.add(&StereoBlock::mono([level; BLOCK_SAMPLES])));
            mixer.take().mid[7]
        };
        let levels = [-1.0, -0.05, -0.04, 0.0, 0.03, 0.034, 0.04, 0.05, 1.0].map(mixed);
        assert!(levels.iter().all(|level| level.abs() <= 1.0), "{levels:?}");
        assert!(levels[1..8].is_sorted_by(|a, b| a < b), "{levels:?}");
        assert!((mixed(0.8001 / 24.0) - 0.8).abs() < 0.001, "no step at the knee");
    }

    #[test]
    fn nan_and_infinite_samples_are_silence() {
        let mut mixer = Mixer::new();
        mixer.add(&StereoBlock::mono([f32::NAN; BLOCK_SAMPLES]));
        mixer.add(&StereoBlock::mono([f32::INFINITY; BLOCK_SAMPLES]));
        mixer.add(&StereoBlock::mono([0.5; BLOCK_SAMPLES]));
        assert_eq!(mixer.take().mid, [0.5; BLOCK_SAMPLES]);
    }

    #[test]
    fn streams_of_two_channels_keep_them_and_each_is_within_full_scale() {
        let mut mixer = Mixer::new();
        let left = StereoBlock {
            side: Some([0.5; BLOCK_SAMPLES]),
            ..StereoBlock::mono([0.5; BLOCK_SAMPLES])
        };
        mixer.add(&left);
        mixer.add(&StereoBlock::mono([0.25; BLOCK_SAMPLES]));
        mixer.add(&left);
        let StereoBlock { mid, side } = mixer.take();
        let (left, right) = (mid[7] + side.unwrap()[7], mid[7] - side.unwrap()[7]);
        assert!((0.99..=1.0).contains(&left) && (right - 0.25).abs() < 1e-6, "{left} {right}");
        assert_eq!(mixer.take(), StereoBlock::mono([0.0; BLOCK_SAMPLES]));
    }
}
