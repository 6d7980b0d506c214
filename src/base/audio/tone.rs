//! Finds the strongest tone in audio.

use super::{fft::power_spectrum, level_dbfs};
use crate::media::AUDIO_RATE;

/// Below this level there is only coding noise, in dB relative to full scale.
const AUDIBLE_DBFS: f64 = -70.0;

/// The lowest tone that is looked for, in hertz. Below it are rumble and the DC offset of
/// microphones.
const MIN_TONE_HZ: f32 = 30.0;

/// The strongest tone in the samples, in hertz. Within 2 Hz for a pure tone of 50 Hz to 8 kHz in a
/// second of audio. `None` for silence.
///
/// Takes one to two milliseconds: not for the audio path.
pub fn tone_hz(samples: &[f32]) -> Option<f64> {
    if level_dbfs(samples) < AUDIBLE_DBFS {
        return None;
    }
    // The main lobe of a Hann window is nearly a parabola in decibels, see `peak_offset`.
    let mut windowed: Vec<_> = samples
        .iter()
        .enumerate()
        .map(|(n, sample)| {
            let phase = std::f32::consts::TAU * n as f32 / samples.len() as f32;
            sample * (0.5 - 0.5 * phase.cos())
        })
        .collect();
    windowed.resize(windowed.len().next_power_of_two().max(4), 0.0);
    let bin_hz = f64::from(AUDIO_RATE) / windowed.len() as f64;
    let powers = power_spectrum(&windowed);
    let lowest = (f64::from(MIN_TONE_HZ) / bin_hz) as usize + 1;
    let inner = powers.iter().enumerate().take(powers.len() - 1).skip(lowest);
    let (peak, _) = inner.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    Some((peak as f64 + peak_offset(&powers[peak - 1..=peak + 1])) * bin_hz)
}

/// The distance in bins from the middle of three powers to the peak of the parabola through them,
/// taken in decibels.
fn peak_offset(powers: &[f32]) -> f64 {
    let db: Vec<_> = powers.iter().map(|power| f64::from(*power).max(1e-30).ln()).collect();
    let curvature = db[0] - 2.0 * db[1] + db[2];
    if curvature < 0.0 { ((db[0] - db[2]) / (2.0 * curvature)).clamp(-0.5, 0.5) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, level: f64) -> Vec<f32> {
        (0..48_000_u32)
            .map(|n| (level * (f64::from(n) * hz / 48_000.0 * std::f64::consts::TAU).sin()) as f32)
            .collect()
    }

    #[test]
    fn a_pure_tone_is_found_within_two_hertz_from_50_hz_to_8_khz() {
        for hz in [50.0, 61.3, 100.0, 220.0, 440.0, 441.7, 1000.0, 3333.3, 7999.0] {
            for level in [0.9, 0.01] {
                let found = tone_hz(&tone(hz, level)).unwrap();
                assert!((found - hz).abs() < 0.2, "{hz} was found as {found}");
            }
        }
    }

    #[test]
    fn the_stronger_of_two_tones_is_found_even_in_noise() {
        let (one, other) = (tone(440.0, 0.1), tone(660.0, 0.2));
        let mut seed = 1_u32;
        let mixed: Vec<_> = one
            .iter()
            .zip(&other)
            .map(|(a, b)| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                a + b + (seed >> 16) as f32 / 65_536.0 * 0.1
            })
            .collect();
        let found = tone_hz(&mixed).unwrap();
        assert!((found - 660.0).abs() < 1.0, "{found}");
    }

    #[test]
    fn silence_has_no_tone() {
        assert_eq!(tone_hz(&[]), None);
        assert_eq!(tone_hz(&[0.0; 48_000]), None);
        assert_eq!(tone_hz(&tone(440.0, 0.0003)), None);
        assert!(tone_hz(&tone(440.0, 0.001)).is_some());
    }
}
