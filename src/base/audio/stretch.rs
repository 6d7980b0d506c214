//! Time stretching: shortens or lengthens audio without a click and without changing its pitch.

use std::collections::VecDeque;

/// The samples that `shorten` and `lengthen` need: 20 ms at 48 kHz.
pub const STRETCH_WINDOW: usize = SHIFTS.end + OVERLAP;

/// The length of the cross-fade in samples: 5 ms.
const OVERLAP: usize = 240;

/// The possible changes of length in samples: 5 to 15 ms, which includes a whole pitch period of
/// any voice.
const SHIFTS: std::ops::Range<usize> = 240..720;

/// Shortens the audio by 5 to 15 ms within its first [`STRETCH_WINDOW`] samples, at the shift with
/// the highest self-similarity (WSOLA: Verhelst and Roelands, 1993). Returns the number of samples
/// removed; zero if there are too few samples, or if the similarity there, from -1 to 1, is less than
/// `least` in what is not quiet: such a cut would be heard.
pub(super) fn shorten(audio: &mut VecDeque<f32>, least: f32) -> usize {
    let shift = similar_shift(audio, least);
    if shift > 0 {
        shorten_by(audio, shift);
    }
    shift
}

/// Removes so many samples, as [`shorten`] did from the other channel.
pub(super) fn shorten_by(audio: &mut VecDeque<f32>, shift: usize) {
    let head = head(audio);
    audio.drain(..shift);
    for (n, sample) in audio.iter_mut().take(OVERLAP).enumerate() {
        *sample = blend(head[n], head[n + shift], n);
    }
}

/// Lengthens the audio in the same way: one segment is played twice. Returns the number of samples
/// added; zero if there are too few samples, or if they are less similar than `least`.
pub(super) fn lengthen(audio: &mut VecDeque<f32>, least: f32) -> usize {
    let shift = similar_shift(audio, least);
    if shift > 0 {
        lengthen_by(audio, shift);
    }
    shift
}

/// Adds so many samples, as [`lengthen`] did to the other channel.
pub(super) fn lengthen_by(audio: &mut VecDeque<f32>, shift: usize) {
    let head = head(audio);
    for (n, sample) in audio.iter_mut().take(OVERLAP).enumerate() {
        *sample = blend(head[n + shift], head[n], n);
    }
    for sample in head[..shift].iter().rev() {
        audio.push_front(*sample);
    }
}

/// Whether the first [`STRETCH_WINDOW`] samples are a pause: below -45 dBFS. Nobody hears a cut
/// there.
pub fn is_quiet(audio: &VecDeque<f32>) -> bool {
    let window = audio.iter().take(STRETCH_WINDOW);
    audio.len() >= STRETCH_WINDOW
        && window.map(|sample| sample * sample).sum::<f32>() < QUIET_POWER * STRETCH_WINDOW as f32
}

/// -45 dBFS.
const QUIET_POWER: f32 = 3.2e-5;

/// The first samples.
fn head(audio: &VecDeque<f32>) -> [f32; STRETCH_WINDOW] {
    let mut head = [0.0; STRETCH_WINDOW];
    head.iter_mut().zip(audio).for_each(|(to, from)| *to = *from);
    head
}

/// Returns the shift at which the first samples are most similar to themselves; zero without one.
fn similar_shift(audio: &VecDeque<f32>, least: f32) -> usize {
    if audio.len() < STRETCH_WINDOW {
        return 0;
    }
    let head = head(audio);
    let energy = |part: &[f32]| part.iter().map(|sample| sample * sample).sum::<f32>();
    let similarity = |shift: usize| {
        let shifted = &head[shift..shift + OVERLAP];
        let product: f32 =
            head[..OVERLAP].iter().zip(shifted).map(|(one, other)| one * other).sum();
        product / (energy(&head[..OVERLAP]) * energy(shifted)).sqrt().max(1e-9)
    };
    let shifts = SHIFTS.map(|shift| (shift, similarity(shift)));
    match shifts.max_by(|a, b| a.1.total_cmp(&b.1)) {
        Some((best, similarity)) if similarity >= least || is_quiet(audio) => best,
        Some(_) | None => 0,
    }
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
    fn a_stretched_tone_keeps_its_pitch_and_has_no_click() {
        for hz in [150.0, 440.0, 1234.0] {
            // The largest step of a sine from one sample to the next, plus a tolerance.
            let max_step = hz / 48_000.0 * std::f32::consts::TAU * 1.3;
            for stretch in [shorten, lengthen] {
                let mut audio = tone(hz, 4800);
                let shift = stretch(&mut audio, 0.8);
                assert!(SHIFTS.contains(&shift), "{shift}");
                assert_eq!(audio.len().abs_diff(4800), shift);
                let audio: Vec<_> = audio.into();
                let step =
                    audio.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
                assert!(step <= max_step, "{hz} Hz: a step of {step}, a sine has {max_step}");
                let is_loud =
                    audio.chunks_exact(480).all(|part| part.iter().any(|sample| *sample > 0.8));
                assert!(is_loud, "{hz} Hz: a gap");
            }
        }
    }

    #[test]
    fn loud_audio_without_similarity_is_left_as_it_is() {
        let mut seed = 1_u32;
        let noise = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut audio: VecDeque<f32> = (0..2000).map(noise).collect();
        let before = audio.clone();
        assert_eq!((shorten(&mut audio, 0.8), lengthen(&mut audio, 0.8)), (0, 0));
        assert_eq!(audio, before);
        assert!(!is_quiet(&audio) && shorten(&mut audio, -1.0) > 0);
        audio.iter_mut().for_each(|sample| *sample *= 0.005);
        assert!(is_quiet(&audio) && shorten(&mut audio, 0.8) > 0, "nobody hears it");
    }

    #[test]
    fn too_few_samples_are_left_unchanged() {
        let mut audio = tone(440.0, STRETCH_WINDOW - 1);
        let before = audio.clone();
        assert_eq!((shorten(&mut audio, -1.0), lengthen(&mut audio, -1.0)), (0, 0));
        assert_eq!(audio, before);
    }

    #[test]
    fn silence_is_stretched_to_silence() {
        let mut audio = VecDeque::from(vec![0.0; 2000]);
        assert!(is_quiet(&audio) && shorten(&mut audio, 0.8) > 0 && lengthen(&mut audio, 0.8) > 0);
        assert!(audio.iter().all(|sample| *sample == 0.0));
    }
}
