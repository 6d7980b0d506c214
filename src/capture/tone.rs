//! A steady sine: a sound to recognise.

use std::{f64::consts::TAU, time::Duration};

use super::source::{Next, Pace, Source, SourceError};
use crate::media::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, now};

/// The sine's peak: its level is -20 dBFS (RMS), that of a calm voice.
const PEAK: f64 = 0.1 * std::f64::consts::SQRT_2;

/// How late a block may be made: a machine that stood still for longer has lost the sound.
pub(super) const BLOCK_SLACK: Duration = Duration::from_secs(1);

/// Blocks a second.
pub(super) const BLOCK_RATE: u64 = AUDIO_RATE as u64 / BLOCK_SAMPLES as u64;

/// A sine of one frequency, from now on.
pub(super) struct Tone {
    pace: Pace,
    /// Turns of the sine for each sample.
    step: f64,
    /// Turns so far, below one.
    phase: f64,
}

impl Tone {
    /// The sine of that many hertz.
    pub(super) fn new(hz: f32) -> Self {
        let pace = Pace::new(now(), BLOCK_RATE, 1, BLOCK_SLACK);
        Self { pace, step: f64::from(hz) / f64::from(AUDIO_RATE), phase: 0.0 }
    }

    fn samples(&mut self) -> [f32; BLOCK_SAMPLES] {
        std::array::from_fn(|_| {
            let sample = (self.phase * TAU).sin() * PEAK;
            self.phase = (self.phase + self.step).fract();
            sample as f32
        })
    }
}

impl Source<AudioBlock> for Tone {
    fn next(&mut self) -> Result<Next<AudioBlock>, SourceError> {
        let Some(time) = self.pace.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(AudioBlock { time, samples: self.samples() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_has_its_level_and_no_seam_between_blocks() {
        for hz in [20.0_f32, 440.0, 997.3] {
            let mut tone = Tone::new(hz);
            let sound: Vec<f32> = (0..100).flat_map(|_| tone.samples()).collect();
            let power = sound.iter().map(|s| f64::from(s * s)).sum::<f64>() / sound.len() as f64;
            assert!((10.0 * power.log10() + 20.0).abs() < 0.1, "{hz} Hz: {power}");
            let steepest = PEAK * TAU * f64::from(hz) / 48_000.0;
            let jump = sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
            assert!(f64::from(jump) < steepest * 1.01 + 1e-6, "{hz} Hz: {jump}");
            let rises = sound.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            assert!((rises as f64 - f64::from(hz)).abs() <= 1.0, "{hz} Hz: {rises}");
        }
    }
}
