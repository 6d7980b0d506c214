//! The discrete Fourier transform.

use std::f32::consts::{PI, TAU};

/// The power spectrum of real samples: half as many bins as samples, from zero hertz up.
///
/// # Panics
/// If the number of samples is not a power of two of at least 4.
pub(super) fn power_spectrum(samples: &[f32]) -> Vec<f32> {
    let half = samples.len() / 2;
    assert!(samples.len() >= 4 && samples.len().is_power_of_two(), "the length is a power of two");
    // Even and odd samples form one complex series of half the length. Its transform is split
    // below.
    let mut packed: Vec<_> = samples.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    transform(&mut packed);
    (0..half)
        .map(|k| {
            let ((a, b), (c, d)) = (packed[k], packed[(half - k) % half]);
            let (even, odd) = (((a + c) / 2.0, (b - d) / 2.0), ((b + d) / 2.0, (c - a) / 2.0));
            let (sin, cos) = (-PI * k as f32 / half as f32).sin_cos();
            let re = even.0 + odd.0 * cos - odd.1 * sin;
            let im = even.1 + odd.0 * sin + odd.1 * cos;
            re * re + im * im
        })
        .collect()
}

/// The transform in place: decimation in time, radix 2 (Cooley and Tukey, 1965).
pub(super) fn transform(values: &mut [(f32, f32)]) {
    let count = values.len();
    let bits = count.trailing_zeros();
    for n in 0..count {
        let reversed = n.reverse_bits() >> (usize::BITS - bits);
        if n < reversed {
            values.swap(n, reversed);
        }
    }
    let twiddles: Vec<_> = (0..count / 2)
        .map(|n| (-TAU * n as f32 / count as f32).sin_cos())
        .map(|(sin, cos)| (cos, sin))
        .collect();
    let mut span = 2;
    while span <= count {
        let stride = count / span;
        for group in values.chunks_exact_mut(span) {
            let (low, high) = group.split_at_mut(span / 2);
            let twiddles = twiddles.iter().step_by(stride);
            for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(twiddles) {
                let rotated = (b.0 * cos - b.1 * sin, b.0 * sin + b.1 * cos);
                *b = (a.0 - rotated.0, a.1 - rotated.1);
                *a = (a.0 + rotated.0, a.1 + rotated.1);
            }
        }
        span *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spectrum_equals_that_of_the_plain_discrete_fourier_transform() {
        let samples: Vec<_> = (0..64_u16).map(|n| f32::from(n * 79 % 97) / 97.0 - 0.5).collect();
        for (k, power) in power_spectrum(&samples).into_iter().enumerate() {
            let (re, im) = samples.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, sample)| {
                let (sin, cos) = (-std::f64::consts::TAU * (k * n) as f64 / 64.0).sin_cos();
                (re + f64::from(*sample) * cos, im + f64::from(*sample) * sin)
            });
            let expected = re * re + im * im;
            assert!((f64::from(power) - expected).abs() < 1e-3, "{k}: {power} is not {expected}");
        }
    }
}
