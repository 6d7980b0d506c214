//! Converts any sample rate to the rate at which all audio is processed.

use std::f64::consts::PI;

use crate::media::AUDIO_RATE;

/// Resamples mono audio from one rate to [`AUDIO_RATE`], with constant delay at all frequencies.
///
/// A windowed sinc in 256 steps between two input samples, interpolated linearly between the steps:
/// aliases and images are about 80 dB down. Streaming: the filter keeps its past input, and the
/// output covers exactly the time of the input.
#[derive(Clone, Debug)]
pub struct Resampler {
    rate: u32,
    taps: usize,
    /// `PHASES + 1` rows of `taps`.
    kernel: Vec<f32>,
    /// Input samples that the next outputs need, oldest first.
    past: Vec<f32>,
    /// The position of the next output after the first kept input sample, in `1 / AUDIO_RATE` input
    /// samples.
    position: u64,
}

/// Steps between two input samples.
const PHASES: usize = 256;

/// Input samples on each side of an output when upsampling.
const HALF_TAPS: f64 = 24.0;

/// The parameter of the Kaiser window for an 80 dB stop band (Kaiser 1974).
const BETA: f64 = 8.0;

/// The share of the lower rate's band that passes. The remainder is the filter's transition band.
const BAND: f64 = 0.94;

impl Resampler {
    /// A resampler from `rate` in hertz.
    ///
    /// # Panics
    /// If the rate is 0, which is a bug of the caller.
    pub fn new(rate: u32) -> Self {
        assert!(rate > 0, "the sample rate is positive");
        // Downsampling needs a wider filter, which removes what is above the new band.
        let widening = (f64::from(rate) / f64::from(AUDIO_RATE)).max(1.0);
        let half = (HALF_TAPS * widening).ceil() as usize;
        let taps = 2 * half;
        let kernel = (0..=PHASES)
            .flat_map(|phase| kernel_row(phase as f64 / PHASES as f64, half, widening))
            .collect();
        // The first output is at the time of the first input sample. Silence precedes it.
        Self { rate, taps, kernel, past: vec![0.0; half - 1], position: 0 }
    }

    /// A resampler that is at the same place, after silence.
    #[must_use]
    pub fn after_silence(&self) -> Self {
        Self { past: vec![0.0; self.past.len()], ..self.clone() }
    }

    /// Whether only silence is left in the filter.
    pub fn is_silent(&self) -> bool {
        self.past.iter().all(|sample| *sample == 0.0)
    }

    /// Takes input samples and appends the output samples that are complete.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        if self.rate == AUDIO_RATE {
            output.extend_from_slice(input);
            return;
        }
        self.past.extend_from_slice(input);
        let scale = u64::from(AUDIO_RATE);
        loop {
            let first = (self.position / scale) as usize;
            let Some(window) = self.past.get(first..first + self.taps) else { break };
            let part = (self.position % scale) as f64 / scale as f64 * PHASES as f64;
            output.push(self.filter(window, part));
            self.position += u64::from(self.rate);
        }
        let used = ((self.position / scale) as usize).min(self.past.len());
        self.past.drain(..used);
        self.position -= used as u64 * scale;
    }

    fn filter(&self, window: &[f32], part: f64) -> f32 {
        let (phase, blend) = (part as usize, part.fract() as f32);
        let row = |phase: usize| &self.kernel[phase * self.taps..(phase + 1) * self.taps];
        let taps = window.iter().zip(row(phase)).zip(row(phase + 1));
        taps.map(|((sample, one), next)| sample * (one + (next - one) * blend)).sum()
    }
}

/// The filter for an output that lies `part` of a sample after the middle of its window.
fn kernel_row(part: f64, half: usize, widening: f64) -> Vec<f32> {
    let cutoff = BAND / widening;
    let weight = |tap: usize| {
        let x = tap as f64 - (half as f64 - 1.0) - part;
        let angle = PI * x * cutoff;
        let sinc = if angle.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
        let across = 1.0 - (x / half as f64).powi(2);
        cutoff * sinc * bessel(BETA * across.max(0.0).sqrt()) / bessel(BETA)
    };
    let row: Vec<_> = (0..2 * half).map(weight).collect();
    // Normalised, so that every phase passes a constant unchanged.
    let sum: f64 = row.iter().sum();
    row.into_iter().map(|weight| (weight / sum) as f32).collect()
}

/// The modified Bessel function of the first kind and order zero.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    (1..40).fold(1.0, |sum, k| {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum + term
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: u32, seconds: f64) -> Vec<f32> {
        let sample = |n: usize| (2.0 * PI * hz * n as f64 / f64::from(rate)).sin() as f32;
        (0..(seconds * f64::from(rate)) as usize).map(sample).collect()
    }

    fn resampled(input: &[f32], rate: u32, chunk: usize) -> Vec<f32> {
        let (mut resampler, mut output) = (Resampler::new(rate), vec![]);
        input.chunks(chunk).for_each(|part| resampler.push(part, &mut output));
        output
    }

    /// The level of the noise relative to the tone, in dB, without the edges.
    fn noise_db(signal: &[f32], hz: f64) -> f64 {
        let body = &signal[4800..signal.len() - 4800];
        let exact = sine(hz, AUDIO_RATE, signal.len() as f64 / f64::from(AUDIO_RATE));
        let noise: f64 =
            body.iter().zip(&exact[4800..]).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        10.0 * (noise / (body.len() as f64 / 2.0)).log10()
    }

    #[test]
    fn a_resampled_tone_is_in_phase_and_clean() {
        for rate in [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 88_200, 96_000, 192_000]
        {
            let output = resampled(&sine(997.0, rate, 1.0), rate, 777);
            let noise = noise_db(&output, 997.0);
            assert!(noise < -75.0, "{rate} Hz: {noise:.1} dB");
            assert!((47_000..=48_000).contains(&output.len()), "{rate} Hz: {}", output.len());
        }
    }

    #[test]
    fn frequencies_above_the_new_band_are_removed() {
        let output = resampled(&sine(30_000.0, 96_000, 1.0), 96_000, 960);
        let loudest = output[1000..47_000].iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn the_size_of_the_input_chunks_does_not_change_the_output() {
        let input = sine(440.0, 44_100, 0.5);
        let whole = resampled(&input, 44_100, input.len());
        assert_eq!(resampled(&input, 44_100, 1), whole);
        assert_eq!(resampled(&input, AUDIO_RATE, 100), input, "the target rate passes unchanged");
    }
}
