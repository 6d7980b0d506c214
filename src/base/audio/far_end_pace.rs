//! Adapts the far end to the clock of the microphone.

use std::{collections::VecDeque, f64::consts::PI};

use crate::media::BLOCK_SAMPLES;

/// Resamples the far end so that it has as many samples as the microphone, although the clocks of
/// both devices differ by some parts per million: the delay of the echo then stays the same.
///
/// The rate comes from the delays that are found in the echo itself.
#[derive(Clone, Debug)]
pub struct FarEndPace {
    /// Input samples to one output sample.
    ratio: f64,
    /// The position of the next output after the first kept input sample.
    position: f64,
    /// Input samples that the next outputs need, oldest first.
    past: VecDeque<f32>,
    /// Output samples of the next block.
    ready: Vec<f32>,
    /// The sine and the cosine of the angle of each tap in the window.
    window: [(f64, f64); 2 * HALF_TAPS],
    /// The newest delays in seconds, each with the time at which it was found.
    delays: VecDeque<(f64, f64)>,
}

/// Input samples on each side of an output.
const HALF_TAPS: usize = 8;

/// The angle of the window from one tap to the next.
const WINDOW_ANGLE: f64 = PI / (HALF_TAPS as f64 + 0.5);

/// Delays that make an estimate: some eight seconds with sound.
const DELAYS: usize = 40;

/// By how much a delay may differ from the one before, in seconds. A larger step is an interruption
/// of a device, and the estimate starts again.
const MAX_STEP: f64 = 0.000_5;

/// The largest error of a single delay with which the estimate counts, in seconds.
const MAX_ERROR: f64 = 0.000_1;

/// The largest difference of the clocks: devices keep 100 ppm, cheap ones 300.
const MAX_DRIFT: f64 = 0.000_5;

impl Default for FarEndPace {
    fn default() -> Self {
        Self {
            ratio: 1.0,
            position: 0.0,
            past: std::iter::repeat_n(0.0, HALF_TAPS - 1).collect(),
            ready: vec![],
            window: std::array::from_fn(|tap| {
                (WINDOW_ANGLE * (tap as f64 - (HALF_TAPS - 1) as f64)).sin_cos()
            }),
            delays: VecDeque::new(),
        }
    }
}

impl FarEndPace {
    /// Takes a block, and passes the blocks that are complete to `each`: usually one.
    pub fn push(
        &mut self,
        block: &[f32; BLOCK_SAMPLES],
        mut each: impl FnMut(&[f32; BLOCK_SAMPLES]),
    ) {
        if self.ratio == 1.0 {
            // Nothing is known yet.
            return each(block);
        }
        self.past.extend(block);
        while (self.position as usize) + 2 * HALF_TAPS <= self.past.len() {
            self.ready.push(self.output());
            self.position += self.ratio;
            if let Ok(block) = self.ready.as_slice().try_into() {
                each(block);
                self.ready.clear();
            }
        }
        let used = (self.position as usize).min(self.past.len());
        self.past.drain(..used);
        self.position -= used as f64;
    }

    /// Takes the delay of the echo at a time, both in seconds of the microphone's samples.
    pub fn on_delay(&mut self, delay: f64, at: f64) {
        if self.delays.back().is_some_and(|(_, last)| (delay - last).abs() > MAX_STEP) {
            self.delays.clear();
        }
        self.delays.push_back((at, delay));
        if self.delays.len() < DELAYS {
            return;
        }
        if let Some(slope) = slope(&self.delays) {
            // A far end with too many samples comes earlier and earlier.
            let ratio = self.ratio * (1.0 - slope);
            self.ratio = ratio.clamp(1.0 - MAX_DRIFT, 1.0 + MAX_DRIFT);
        }
        self.delays.clear();
    }

    /// The next output: a sinc with a Hann window. The angles of all taps follow from two.
    fn output(&self) -> f32 {
        let (first, part) = (self.position as usize, self.position.fract());
        let sin = (PI * part).sin();
        let (window_sin, window_cos) = (WINDOW_ANGLE * part).sin_cos();
        let taps = self.past.range(first..first + 2 * HALF_TAPS).zip(&self.window).enumerate();
        taps.map(|(tap, (sample, (tap_sin, tap_cos)))| {
            let x = tap as f64 - (HALF_TAPS - 1) as f64 - part;
            let sin = if tap % 2 == 0 { sin } else { -sin };
            let sinc = if x.abs() < 1e-9 { 1.0 } else { sin / (PI * x) };
            let window = 0.5 + 0.5 * (tap_cos * window_cos + tap_sin * window_sin);
            sample * (sinc * window) as f32
        })
        .sum()
    }
}

/// The slope of the line through the points (least squares), if they are close to it.
fn slope(points: &VecDeque<(f64, f64)>) -> Option<f64> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>() / spread;
    let error: f64 = points.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2)).sum();
    ((error / count).sqrt() <= MAX_ERROR && slope.is_finite()).then_some(slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 48_000.0;

    #[test]
    fn a_tone_of_a_clock_that_is_fast_becomes_one_of_the_microphones_clock() {
        for ppm in [100.0, -250.0] {
            let mut pace = FarEndPace::default();
            let drift = ppm / 1e6;
            for n in 0..DELAYS {
                let at = n as f64 * 0.2;
                pace.on_delay(0.08 - drift * at, at);
            }
            let angle = std::f64::consts::TAU * 1000.0 / RATE;
            let mut output = vec![];
            for n in 0..200 {
                let sample = |m: usize| (angle * (n * 480 + m) as f64 / (1.0 + drift)).sin() as f32;
                pace.push(&std::array::from_fn(sample), |block| output.extend_from_slice(block));
            }
            let error = output
                .iter()
                .enumerate()
                .skip(480)
                .map(|(n, sample)| (f64::from(*sample) - (angle * n as f64).sin()).abs());
            let error = error.fold(0.0, f64::max);
            assert!(error < 0.02 && output.len() > 199 * 480 - 960, "{ppm}: {error}");
        }
    }

    #[test]
    fn delays_that_lie_on_no_line_change_nothing() {
        let uncertain = |n: usize| if n.is_multiple_of(3) { 0.0004 } else { 0.0 };
        let interrupted = |n: usize| (n / 30) as f64 * 0.01;
        for delay in [&uncertain as &dyn Fn(usize) -> f64, &interrupted] {
            let mut pace = FarEndPace::default();
            (0..10 * DELAYS).for_each(|n| pace.on_delay(0.08 + delay(n), n as f64 * 0.2));
            assert_eq!(pace.ratio, 1.0);
        }
    }
}
