//! The test tone: a steady sine.

use std::{f64::consts::TAU, time::Duration};

use super::source::{FrameClock, Next, Source, SourceError};
use crate::media::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, now};

/// The peak amplitude of the sine. Its level is -20 dBFS (RMS), that of a calm voice.
const PEAK: f64 = 0.1 * std::f64::consts::SQRT_2;

/// How late a block may be. A machine that was suspended for longer loses the blocks of that time.
pub(super) const MAX_BLOCK_LATENESS: Duration = Duration::from_secs(1);

/// Blocks per second.
pub(super) const BLOCK_RATE: u64 = AUDIO_RATE as u64 / BLOCK_SAMPLES as u64;

/// A sine of one frequency that starts now.
pub(super) struct Tone {
    clock: FrameClock,
    /// Periods of the sine per sample.
    phase_step: f64,
    /// The current phase in periods, from 0 up to, but without, 1.
    phase: f64,
}

impl Tone {
    /// A sine of `hz` hertz.
    pub(super) fn new(hz: f32) -> Self {
        let clock = FrameClock::new(now(), BLOCK_RATE, 1, MAX_BLOCK_LATENESS);
        Self { clock, phase_step: f64::from(hz) / f64::from(AUDIO_RATE), phase: 0.0 }
    }

    fn samples(&mut self) -> [f32; BLOCK_SAMPLES] {
        std::array::from_fn(|_| {
            let sample = (self.phase * TAU).sin() * PEAK;
            self.phase = (self.phase + self.phase_step).fract();
            sample as f32
        })
    }
}

impl Source<AudioBlock> for Tone {
    fn next(&mut self) -> Result<Next<AudioBlock>, SourceError> {
        let Some(time) = self.clock.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(AudioBlock::mono(time, self.samples())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tone_has_its_level_and_is_continuous_across_blocks() {
        for hz in [20.0_f32, 440.0, 997.3] {
            let mut tone = Tone::new(hz);
            let audio: Vec<f32> = (0..100).flat_map(|_| tone.samples()).collect();
            let power = audio.iter().map(|s| f64::from(s * s)).sum::<f64>() / audio.len() as f64;
            assert!((10.0 * power.log10() + 20.0).abs() < 0.1, "{hz} Hz: {power}");
            let steepest = PEAK * TAU * f64::from(hz) / 48_000.0;
            let jump = audio.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
            assert!(f64::from(jump) < steepest * 1.01 + 1e-6, "{hz} Hz: {jump}");
            let rises = audio.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
            assert!((rises as f64 - f64::from(hz)).abs() <= 1.0, "{hz} Hz: {rises}");
        }
    }
}
