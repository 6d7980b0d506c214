//! A gain that changes without clicks.

use crate::media::StereoBlock;

/// A gain that moves linearly towards its target.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fade {
    gain: f32,
}

impl Fade {
    /// Starts at silence.
    pub const SILENT: Self = Self { gain: 0.0 };

    /// Starts at full gain.
    pub const FULL: Self = Self { gain: 1.0 };

    /// Starts at the given gain, 0 to 1.
    pub const fn at(gain: f32) -> Self {
        Self { gain }
    }

    /// Applies the gain to the samples while it moves towards `target`. A move between silence and
    /// full gain takes `span` samples.
    pub fn apply(&mut self, samples: &mut [f32], target: f32, span: usize) {
        let step = 1.0 / span.max(1) as f32;
        for sample in samples {
            self.gain += (target - self.gain).clamp(-step, step);
            *sample *= self.gain;
        }
    }

    /// Does what [`Self::apply`] does, to both channels alike.
    pub fn apply_to_block(&mut self, block: &mut StereoBlock, target: f32, span: usize) {
        if let Some(side) = &mut block.side {
            let mut same = *self;
            same.apply(side, target, span);
        }
        self.apply(&mut block.mid, target, span);
    }

    /// Whether the gain is zero.
    pub fn is_silent(self) -> bool {
        self.gain <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fade_moves_linearly_across_blocks_and_stays_at_its_target() {
        let mut fade = Fade::FULL;
        let mut samples = [1.0; 200];
        let (first, second) = samples.split_at_mut(60);
        fade.apply(first, 0.0, 100);
        fade.apply(second, 0.0, 100);
        let steps: Vec<_> = samples.windows(2).map(|pair| pair[0] - pair[1]).collect();
        assert!(steps.iter().all(|step| (-1e-6..=0.010_01).contains(step)), "{steps:?}");
        assert!(samples[98] > 0.0 && samples[101..].iter().all(|sample| *sample == 0.0));
        assert!(fade.is_silent() && !Fade::FULL.is_silent());
        fade.apply(&mut samples[..50], 1.0, 100);
        assert!(!fade.is_silent());
    }
}
