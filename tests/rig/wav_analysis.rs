//! Measures the audio in a WAV file that a program has written.

use std::path::Path;

/// The samples of a mono WAV file, full scale ±1, and its sample rate.
pub(crate) fn read_wav(path: &Path) -> (Vec<f32>, f32) {
    let mut reader = hound::WavReader::open(path).expect("a WAV file was written");
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.bits_per_sample), (1, 16));
    let samples = reader.samples::<i16>().map_while(Result::ok);
    (samples.map(|sample| f32::from(sample) / 32768.0).collect(), spec.sample_rate as f32)
}

/// The level of one frequency in dB relative to a full-scale sine: the highest over windows of a
/// quarter of a second, each measured with Goertzel's algorithm.
pub(crate) fn tone_level_db(samples: &[f32], rate: f32, hz: f32) -> f32 {
    let window = (rate / 4.0) as usize;
    let loudest = samples
        .chunks_exact(window)
        .map(|chunk| {
            let step = 2.0 * std::f32::consts::PI * hz / rate;
            let (mut s1, mut s2, mut weight) = (0.0_f64, 0.0_f64, 0.0_f64);
            for (n, sample) in chunk.iter().enumerate() {
                let phase = std::f64::consts::TAU * n as f64 / chunk.len() as f64;
                let hann = 0.5 - 0.5 * phase.cos();
                weight += hann;
                let s0 = f64::from(*sample) * hann + 2.0 * f64::from(step.cos()) * s1 - s2;
                (s2, s1) = (s1, s0);
            }
            let power = s1 * s1 + s2 * s2 - 2.0 * f64::from(step.cos()) * s1 * s2;
            2.0 * power.max(0.0).sqrt() / weight
        })
        .fold(1e-6_f64, f64::max);
    20.0 * loudest.log10() as f32
}

/// The audio from one second after it begins to half a second before it ends. Switching a tone on
/// or off makes a short sound at all frequencies, which is cut off here.
pub(crate) fn steady_part(samples: &[f32], rate: f32) -> &[f32] {
    let is_loud = |sample: &f32| sample.abs() > 0.01;
    let first = samples.iter().position(is_loud).expect("something was played");
    let last = samples.iter().rposition(is_loud).expect("something was played");
    let (from, to) = (first + rate as usize, last.saturating_sub(rate as usize / 2));
    assert!(to > from + rate as usize, "at least a second of steady sound");
    &samples[from..to]
}
