//! Makes a sound a little shorter or longer without a click and without moving its pitch.

use std::collections::VecDeque;

/// Samples that [`shorten`] and [`lengthen`] look at: 20 ms at 48 kHz.
pub const STRETCH_WINDOW: usize = SHIFTS.end + OVERLAP;

/// Over so many samples one place of the sound turns into another: 5 ms.
const OVERLAP: usize = 240;

/// By how many samples a sound is made shorter or longer: 5 to 15 ms, which holds a whole period
/// of any voice.
const SHIFTS: std::ops::Range<usize> = 240..720;

/// Makes the sound shorter by 5 to 15 ms in its first [`STRETCH_WINDOW`] samples, where it is most
/// like itself (WSOLA: Verhelst and Roelands, 1993). Returns by how many samples; zero if there
/// are too few.
pub fn shorten(sound: &mut VecDeque<f32>) -> usize {
    let Some((head, shift)) = head_and_shift(sound) else { return 0 };
    sound.drain(..shift);
    for (n, sample) in sound.iter_mut().take(OVERLAP).enumerate() {
        *sample = blend(head[n], head[n + shift], n);
    }
    shift
}

/// Makes the sound longer, as [`shorten`] makes it shorter: a piece is heard twice.
pub fn lengthen(sound: &mut VecDeque<f32>) -> usize {
    let Some((head, shift)) = head_and_shift(sound) else { return 0 };
    for (n, sample) in sound.iter_mut().take(OVERLAP).enumerate() {
        *sample = blend(head[n + shift], head[n], n);
    }
    for sample in head[..shift].iter().rev() {
        sound.push_front(*sample);
    }
    shift
}

/// The window, and the shift at which it is most like itself.
fn head_and_shift(sound: &VecDeque<f32>) -> Option<([f32; STRETCH_WINDOW], usize)> {
    if sound.len() < STRETCH_WINDOW {
        return None;
    }
    let mut head = [0.0; STRETCH_WINDOW];
    head.iter_mut().zip(sound).for_each(|(to, from)| *to = *from);
    let likeness = |shift: usize| {
        let (product, energy) = head[..OVERLAP]
            .iter()
            .zip(&head[shift..])
            .fold((0.0, 1e-9), |(product, energy), (one, other)| {
                (product + one * other, energy + other * other)
            });
        product / f32::sqrt(energy)
    };
    let likest = SHIFTS.max_by(|one, other| likeness(*one).total_cmp(&likeness(*other)))?;
    Some((head, likest))
}

fn blend(from: f32, to: f32, n: usize) -> f32 {
    let share = (n as f32 + 0.5) / OVERLAP as f32;
    from * (1.0 - share) + to * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, samples: usize) -> VecDeque<f32> {
        (0..samples).map(|n| (n as f32 * hz / 48_000.0 * std::f32::consts::TAU).sin()).collect()
    }

    #[test]
    fn a_tone_made_shorter_or_longer_stays_the_same_tone_without_a_click() {
        for hz in [150.0, 440.0, 1234.0] {
            // The steepest step of a sine from one sample to the next, and a little.
            let steepest = hz / 48_000.0 * std::f32::consts::TAU * 1.3;
            for stretch in [shorten, lengthen] {
                let mut sound = tone(hz, 4800);
                let shift = stretch(&mut sound);
                assert!(SHIFTS.contains(&shift), "{shift}");
                assert_eq!(sound.len().abs_diff(4800), shift);
                let sound: Vec<_> = sound.into();
                let step =
                    sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
                assert!(step <= steepest, "{hz} Hz: a step of {step}, a sine has {steepest}");
                let loud =
                    sound.chunks_exact(480).all(|part| part.iter().any(|sample| *sample > 0.8));
                assert!(loud, "{hz} Hz: a hole");
            }
        }
    }

    #[test]
    fn too_little_sound_is_left_alone() {
        let mut sound = tone(440.0, STRETCH_WINDOW - 1);
        let before = sound.clone();
        assert_eq!((shorten(&mut sound), lengthen(&mut sound)), (0, 0));
        assert_eq!(sound, before);
    }

    #[test]
    fn silence_is_stretched_to_silence() {
        let mut sound = VecDeque::from(vec![0.0; 2000]);
        assert!(shorten(&mut sound) > 0 && lengthen(&mut sound) > 0);
        assert!(sound.iter().all(|sample| *sample == 0.0));
    }
}
