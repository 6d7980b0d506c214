//! The sound by which a user finds out whether the speaker works.

use std::f32::consts::TAU;

use super::Fade;
use crate::media::AUDIO_RATE;

/// The notes, in hertz.
const NOTES: [f32; 3] = [523.25, 659.26, 783.99];

/// The length of a note in samples: 350 ms.
const NOTE_SAMPLES: usize = AUDIO_RATE as usize * 350 / 1000;

/// The length of the fades of a note in samples: 30 ms.
const FADE_SAMPLES: usize = AUDIO_RATE as usize * 30 / 1000;

/// The amplitude of the notes: -15 dBFS, as loud as somebody who speaks.
const AMPLITUDE: f32 = 0.25;

/// Three rising notes at 48 kHz, a second in all.
pub fn test_sound() -> Vec<f32> {
    let note = |hz: f32| {
        let phase = move |n: usize| (n as f32 * hz / AUDIO_RATE as f32).fract() * TAU;
        let mut samples: Vec<_> = (0..NOTE_SAMPLES).map(|n| AMPLITUDE * phase(n).sin()).collect();
        fade_ends(&mut samples, FADE_SAMPLES);
        samples
    };
    NOTES.into_iter().flat_map(note).collect()
}

/// Fades the first and the last `span` samples, so that a sound begins and ends without a click.
pub fn fade_ends(samples: &mut [f32], span: usize) {
    let end = samples.len().saturating_sub(span);
    let (mut rising, mut falling) = (Fade::SILENT, Fade::FULL);
    rising.apply(&mut samples[..end], 1.0, span);
    falling.apply(&mut samples[end..], 0.0, span);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{level_dbfs, tone_hz};

    #[test]
    fn the_test_sound_has_three_notes_as_loud_as_speech_and_no_click() {
        let sound = test_sound();
        for (note, hz) in sound.chunks(NOTE_SAMPLES).zip(NOTES) {
            assert!((tone_hz(note).unwrap() - f64::from(hz)).abs() < 3.0);
            assert!((level_dbfs(note) - -15.5).abs() < 1.0, "{}", level_dbfs(note));
        }
        let step = sound.windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
        assert!(step < 0.03, "{step}");
        assert!(sound[0].abs() < 1e-3 && sound[sound.len() - 1].abs() < 1e-3);
    }

    #[test]
    fn a_sound_that_is_shorter_than_its_fades_is_faded_too() {
        let mut short = [1.0; 10];
        fade_ends(&mut short, 100);
        assert!(short[9] < 1.0);
        fade_ends(&mut [], 100);
    }
}
