//! How loud a sound is.

/// The level of silence, and the least that is told, in dB below full scale.
pub const SILENCE_DBFS: f64 = -120.0;

/// The level of the samples (RMS) in dB against full scale ±1: a full-scale sine has -3.01, a
/// full-scale square 0. At least [`SILENCE_DBFS`].
pub fn level_dbfs(samples: &[f32]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample) * f64::from(*sample)).sum();
    let mean = energy / samples.len().max(1) as f64;
    if mean.is_finite() { (10.0 * mean.log10()).max(SILENCE_DBFS) } else { SILENCE_DBFS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_textbook() {
        let sine: Vec<_> = (0..48_000_u16)
            .map(|n| 0.1 * (f32::from(n) * 440.0 / 48_000.0 * std::f32::consts::TAU).sin())
            .collect();
        assert!((level_dbfs(&sine) - -23.01).abs() < 0.01, "{}", level_dbfs(&sine));
        assert!((level_dbfs(&[1.0, -1.0])).abs() < 1e-9);
        for silent in [&[][..], &[0.0; 480], &[1e-9; 480], &[f32::NAN]] {
            assert_eq!(level_dbfs(silent).max(SILENCE_DBFS), SILENCE_DBFS, "{silent:?}");
        }
    }
}
