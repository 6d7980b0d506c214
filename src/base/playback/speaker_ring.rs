//! The ring of samples between the mixer thread and the callback of a speaker device.
//!
//! It holds what the next callback takes and a cushion, and never more: what is in the ring is
//! delay. A speaker that stands still for a while therefore leaves no delay behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use cpal::{FromSample, SizedSample};

use crate::{
    audio::{Fade, StereoResampler},
    media::{AUDIO_RATE, BLOCK_SAMPLES, StereoBlock},
};

/// The writing side of the ring, on the mixer thread.
pub(super) struct RingWriter {
    ring: rtrb::Producer<Frame>,
    stats: Arc<CallbackStats>,
    /// The samples of a 10 ms block at the device's rate.
    block_samples: usize,
    /// The resampler, if the device does not play 48 kHz.
    resampler: Option<Box<StereoResampler>>,
    /// The frames of the block that is written.
    frames: Vec<Frame>,
    /// What would have followed the block pushed last, if later blocks were left out.
    continuation: Option<Box<[Frame; OVERLAP]>>,
}

/// The reading side of the ring, in the device's real-time callback. It never locks, allocates or
/// waits.
pub(super) struct RingReader {
    ring: rtrb::Consumer<Frame>,
    stats: Arc<CallbackStats>,
    channels: usize,
    block_samples: usize,
    /// The samples per channel of the latest callbacks.
    sizes: [usize; SIZES],
    next_size: usize,
    /// Fades out before a gap and in after it.
    fade: Fade,
    /// The cross-fade that hides removed samples, and how much of it was played.
    joint: [Frame; OVERLAP],
    joint_at: usize,
    /// The thread that writes, which waits for callbacks.
    writer: Option<Thread>,
}

/// A sample of both channels: mid and side. A device of one channel plays the mid.
type Frame = [f32; 2];

/// What both sides tell each other.
#[derive(Debug, Default)]
pub(super) struct CallbackStats {
    /// The number of callbacks.
    pub(super) callbacks: AtomicU64,
    /// The samples per channel that a callback usually takes.
    pub(super) usual_samples: AtomicUsize,
    /// Callbacks that found too few samples in the ring.
    pub(super) underruns: AtomicU64,
    /// The wanted fill in samples; 0 before the first block.
    wanted: AtomicUsize,
}

/// The capacity of the ring in blocks: half a second, more than any callback takes.
const RING_BLOCKS: usize = 50;

/// The length of cross-fades in samples: 5 ms at 48 kHz.
const OVERLAP: usize = BLOCK_SAMPLES / 2;

/// The length of the fades beside a gap in samples: 2.5 ms at 48 kHz.
const GAP_FADE: usize = BLOCK_SAMPLES / 4;

/// The number of callbacks whose sizes are remembered: 0.6 s with those of 10 ms.
const SIZES: usize = 64;

/// As many of them may be larger than usual. A sound server that stood still asks once or twice for
/// all that it has missed. Delay for the next time would be delay for ever.
const OUTLIERS: usize = 2;

/// Creates both sides of a ring for a device with this rate and number of channels.
pub(super) fn speaker_ring(rate: u32, channels: usize) -> (RingWriter, RingReader) {
    let block_samples = (rate / 100).max(1) as usize;
    let (producer, consumer) = rtrb::RingBuffer::new(RING_BLOCKS * block_samples);
    let stats = Arc::<CallbackStats>::default();
    // `Resampler` converts to `AUDIO_RATE` only. The ratio from `AUDIO_RATE`² / `rate` to
    // `AUDIO_RATE` is that from `AUDIO_RATE` to `rate`. The rounding error of some millionths
    // has no effect, because the device's demand controls the number of blocks.
    let input_rate = (u64::from(AUDIO_RATE).pow(2) + u64::from(rate) / 2) / u64::from(rate.max(1));
    let resampler = (rate != AUDIO_RATE).then(|| Box::new(StereoResampler::new(input_rate as u32)));
    let writer = RingWriter {
        ring: producer,
        stats: Arc::clone(&stats),
        block_samples,
        resampler,
        frames: Vec::with_capacity(2 * block_samples.max(BLOCK_SAMPLES)),
        continuation: None,
    };
    let reader = RingReader {
        ring: consumer,
        stats,
        channels: channels.max(1),
        block_samples,
        sizes: [0; SIZES],
        next_size: 0,
        fade: Fade::SILENT,
        joint: [[0.0; 2]; OVERLAP],
        joint_at: OVERLAP,
        writer: None,
    };
    (writer, reader)
}

impl RingWriter {
    /// What the callback counts.
    pub(super) const fn stats(&self) -> &Arc<CallbackStats> {
        &self.stats
    }

    /// The samples that a callback usually takes, at least a block.
    pub(super) fn callback_samples(&self) -> usize {
        self.stats.usual_samples.load(Ordering::Relaxed).max(self.block_samples)
    }

    /// The length of a callback in whole blocks.
    pub(super) fn callback_blocks(&self) -> usize {
        self.callback_samples() / self.block_samples
    }

    /// Samples in the ring.
    pub(super) fn fill(&self) -> usize {
        self.capacity() - self.ring.slots()
    }

    /// Whether the ring needs a block to have a callback and this cushion, in quarter blocks.
    pub(super) fn needs_block(&self, cushion: usize) -> bool {
        let wanted = self.wanted(cushion);
        self.stats.wanted.store(wanted, Ordering::Relaxed);
        self.fill() < wanted
    }

    /// Writes the block to the ring. Leaves it out if the ring already has what is wanted: blocks
    /// that are mixed by the clock while the device stands still would only be delay later. The
    /// next block that is written is joined to the earlier ones by a cross-fade. Returns how much
    /// audio is before it in the ring, if it is written.
    pub(super) fn play(&mut self, block: &StereoBlock, cushion: usize) -> Option<Duration> {
        if !self.needs_block(cushion) {
            self.continuation.get_or_insert_with(|| {
                let at = |n| [block.mid[n], block.side.map_or(0.0, |side| side[n])];
                Box::new(std::array::from_fn(at))
            });
            return None;
        }
        let before = Duration::from_millis((self.fill() * 10 / self.block_samples) as u64);
        let mut block = *block;
        if let Some(continuation) = self.continuation.take() {
            fade_in_block(&continuation, &mut block);
        }
        let (mid, side) = match &mut self.resampler {
            None => (&block.mid[..], block.side.as_ref().map(|side| &side[..])),
            Some(resampler) => {
                resampler.push(&block.mid, block.side.as_ref().map(|side| &side[..]))
            }
        };
        self.frames.clear();
        match side {
            None => self.frames.extend(mid.iter().map(|mid| [*mid, 0.0])),
            Some(side) => self.frames.extend(mid.iter().zip(side).map(|(mid, side)| [*mid, *side])),
        }
        let pushed = self.ring.push_entire_slice(&self.frames);
        if pushed.is_err() {
            tracing::trace!("speaker ring full, block dropped");
        }
        pushed.is_ok().then_some(before)
    }

    fn wanted(&self, cushion: usize) -> usize {
        let wanted = self.callback_samples() + cushion * self.block_samples / 4;
        wanted.min(self.capacity() - 2 * self.block_samples)
    }

    fn capacity(&self) -> usize {
        RING_BLOCKS * self.block_samples
    }
}

impl RingReader {
    /// Each callback wakes that thread, which parks while the ring has what is wanted.
    pub(super) fn waking(self, writer: Thread) -> Self {
        Self { writer: Some(writer), ..self }
    }

    /// The real-time callback: copies samples, counts and wakes the writer. To unpark a thread is one
    /// atomic operation, and a system call that never waits if the thread is parked.
    pub(super) fn fill<T: SizedSample + FromSample<f32>>(&mut self, out: &mut [T]) {
        let frames = out.len() / self.channels;
        self.record_size(frames);
        self.shorten();
        let available = self.ring.slots() + OVERLAP - self.joint_at;
        for (n, frame) in out.chunks_mut(self.channels).enumerate() {
            let [mid, side] = self.next_frame(available.saturating_sub(n), frames - n.min(frames));
            // The front left and right channels. Further channels stay silent.
            match frame {
                [only] => *only = T::from_sample(mid),
                [left, right, others @ ..] => {
                    *left = T::from_sample(mid + side);
                    *right = T::from_sample(mid - side);
                    others.fill(T::from_sample(0.0));
                }
                [] => {}
            }
        }
        let counts = &self.stats;
        counts.underruns.fetch_add(u64::from(available < frames), Ordering::Relaxed);
        counts.callbacks.fetch_add(1, Ordering::Relaxed);
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }

    /// The next frame, of which `left` are there and `needed` are asked for. It fades out before
    /// a gap and in after it.
    fn next_frame(&mut self, left: usize, needed: usize) -> Frame {
        let mut frame = [0.0; 2];
        if left == 0 {
            self.fade = Fade::SILENT;
        } else if self.joint_at < OVERLAP {
            frame = self.joint[self.joint_at];
            self.joint_at += 1;
        } else {
            frame = self.ring.pop().unwrap_or_default();
        }
        let ends = left < needed && left <= GAP_FADE;
        let mut gain = [1.0];
        self.fade.apply(&mut gain, if ends { 0.0 } else { 1.0 }, GAP_FADE);
        frame.map(|sample| sample * gain[0])
    }

    /// Records the size of this callback.
    fn record_size(&mut self, samples: usize) {
        self.sizes[self.next_size] = samples;
        self.next_size = (self.next_size + 1) % SIZES;
        let mut largest = [0; OUTLIERS + 1];
        for size in self.sizes {
            // `largest` is sorted, the smallest first.
            if size > largest[0] {
                largest[0] = size;
                largest.sort_unstable();
            }
        }
        self.stats.usual_samples.store(largest[0], Ordering::Relaxed);
    }

    /// Removes what the ring has beyond the wanted fill and a block, for example after callbacks
    /// have become smaller. A cross-fade hides it.
    fn shorten(&mut self) {
        let (held, wanted) = (self.ring.slots(), self.stats.wanted.load(Ordering::Relaxed));
        let excess = held.saturating_sub(wanted);
        if wanted == 0 || excess < 2 * self.block_samples || self.joint_at < OVERLAP {
            return;
        }
        if self.ring.pop_entire_slice(&mut self.joint).is_err() {
            return;
        }
        if let Ok(chunk) = self.ring.read_chunk(excess.saturating_sub(OVERLAP)) {
            chunk.commit_all();
        }
        let mut later = [[0.0; 2]; OVERLAP];
        if self.ring.pop_entire_slice(&mut later).is_ok() {
            cross_fade(&self.joint, &mut later);
            self.joint = later;
        }
        self.joint_at = 0;
    }
}

/// Fades from `from` to the beginning of `to`, and writes the result there.
fn cross_fade(from: &[Frame; OVERLAP], to: &mut [Frame; OVERLAP]) {
    for (n, (from, to)) in from.iter().zip(to).enumerate() {
        let share = (n as f32 + 0.5) / OVERLAP as f32;
        for (from, to) in from.iter().zip(to) {
            *to = from * (1.0 - share) + *to * share;
        }
    }
}

/// Fades from `from` to the beginning of a block.
fn fade_in_block(from: &[Frame; OVERLAP], block: &mut StereoBlock) {
    let at = |n| [block.mid[n], block.side.map_or(0.0, |side| side[n])];
    let mut joint = std::array::from_fn(at);
    cross_fade(from, &mut joint);
    let has_side = joint.iter().any(|frame| frame[1] != 0.0);
    let mut side = block.side.or_else(|| has_side.then_some([0.0; BLOCK_SAMPLES]));
    for (n, [mid, of_side]) in joint.into_iter().enumerate() {
        block.mid[n] = mid;
        if let Some(side) = &mut side {
            side[n] = of_side;
        }
    }
    block.side = side;
}

#[cfg(test)]
impl RingReader {
    /// Callbacks that found too few samples.
    pub(super) fn underruns(&self) -> u64 {
        self.stats.underruns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audio::tone_hz, media::Worker, playback::cushion::Cushion};

    const LEAST: usize = Cushion::MIN;

    /// Plays this many blocks of a tone from block `first` on.
    fn play_tone(writer: &mut RingWriter, first: u32, blocks: u32) {
        for n in first..first + blocks {
            let mut block = [0.0; BLOCK_SAMPLES];
            for (m, sample) in (n * 480..).zip(&mut block) {
                *sample = (m as f32 * 440.0 / 48_000.0 * std::f32::consts::TAU).sin() / 2.0;
            }
            writer.play(&StereoBlock::mono(block), LEAST);
        }
    }

    fn max_step(samples: &[f32]) -> f32 {
        samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_device_of_another_rate_plays_the_same_tone() {
        for rate in [16_000, 44_100, 96_000] {
            let (mut writer, mut reader) = speaker_ring(rate, 1);
            let mut played = vec![];
            for n in 0..100 {
                play_tone(&mut writer, n, 1);
                played.extend(std::iter::from_fn(|| reader.ring.pop().ok()).map(|frame| frame[0]));
            }
            // The filter delays the output by half of its length.
            assert!(played.len().abs_diff(rate as usize) <= 50, "{rate}: {}", played.len());
            // `tone_hz` assumes 48 kHz.
            let found = tone_hz(&played).unwrap() * f64::from(rate) / 48_000.0;
            assert!((found - 440.0).abs() < 2.0, "{rate}: {found}");
        }
    }

    /// A sweep from 100 Hz to 15 kHz in four seconds.
    fn sweep(block: usize) -> [f32; BLOCK_SAMPLES] {
        std::array::from_fn(|n| {
            let seconds = (block * BLOCK_SAMPLES + n) as f64 / f64::from(AUDIO_RATE);
            let turns = 100.0 * seconds + 14_900.0 / 8.0 * seconds * seconds;
            (turns * std::f64::consts::TAU).sin() as f32 / 2.0
        })
    }

    #[test]
    fn a_sweep_has_no_break_at_any_rate_and_with_callbacks_of_any_size() {
        for (rate, most) in [(44_100, 441), (44_100, 2205), (96_000, 1920), (48_000, 1024)] {
            let (mut writer, mut reader) = speaker_ring(rate, 1);
            let (mut played, mut written, mut next, mut seed) = (vec![], vec![], 0, 1_u32);
            let mut whole = writer.resampler.clone();
            while next < 400 {
                while writer.needs_block(LEAST) {
                    let block = sweep(next);
                    next += 1;
                    writer.play(&StereoBlock::mono(block), LEAST);
                    match &mut whole {
                        None => written.extend(block),
                        Some(resampler) => written.extend(resampler.push(&block, None).0),
                    }
                }
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let mut out = vec![0.0_f32; 1 + (seed >> 8) as usize % most];
                reader.fill(&mut out);
                played.extend(out);
            }
            let from = rate as usize;
            let is_same = |at: usize, shift: usize| (played[at] - written[at - shift]).abs() < 1e-6;
            let shift = (0..from).find(|shift| (from..from + 500).all(|at| is_same(at, *shift)));
            let shift = shift.expect("what is played is what was written, some samples later");
            let broken = (from..played.len()).find(|at| !is_same(*at, shift));
            assert_eq!(broken, None, "{rate} Hz, callbacks up to {most}: of {}", played.len());
        }
    }

    #[test]
    fn two_channels_are_played_on_two_speakers_and_their_mean_on_one() {
        for (rate, channels) in [(48_000, 2), (44_100, 2), (48_000, 1)] {
            let (mut writer, mut reader) = speaker_ring(rate, channels);
            let mut played = vec![];
            for _ in 0..100 {
                let block = StereoBlock { mid: [0.25; _], side: Some([0.125; _]) };
                writer.play(&block, LEAST);
                let mut out = vec![0.0_f32; channels * rate as usize / 100];
                reader.fill(&mut out);
                played.extend(out);
            }
            let expected: &[f32] = if channels == 2 { &[0.375, 0.125] } else { &[0.25] };
            let frames = played[played.len() / 2..].chunks(channels);
            let is_same = |frame: &[f32]| {
                frame.iter().zip(expected).all(|(is, wanted)| (is - wanted).abs() < 1e-4)
            };
            assert!(frames.into_iter().all(is_same), "{rate} Hz, {channels} channels");
        }
    }

    #[test]
    fn the_callback_copies_to_two_channels_and_counts() {
        let (mut writer, mut reader) = speaker_ring(AUDIO_RATE, 4);
        let counts = Arc::clone(writer.stats());
        writer.play(&StereoBlock::mono([0.5; BLOCK_SAMPLES]), LEAST);
        let mut out = [9_i16; 4 * 470];
        reader.fill(&mut out);
        assert!(out.chunks(4).all(|frame| frame[0] == frame[1] && frame[2..] == [0, 0]));
        assert!(out[4 * GAP_FADE..].chunks(4).all(|frame| frame[0] == 16_384), "after the fade in");
        reader.fill(&mut out);
        assert!(out[4 * 9] > 0 && out[4 * 10] == 0, "silence after the last sample");
        let counted =
            [&counts.callbacks, &counts.underruns].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counted, [2, 1]);
    }

    #[test]
    fn a_callback_wakes_the_thread_that_writes() {
        let (_writer, reader) = speaker_ring(AUDIO_RATE, 1);
        let mut reader = reader.waking(std::thread::current());
        let callback = Worker::spawn("callback", move |_| reader.fill(&mut [0.0_f32; 480]));
        // Without it, the test would take longer than any is allowed to.
        std::thread::park();
        drop(callback.unwrap());
    }

    #[test]
    fn before_and_after_a_gap_there_is_no_click() {
        let (mut writer, mut reader) = speaker_ring(AUDIO_RATE, 1);
        let mut played = vec![];
        for n in 0..6 {
            play_tone(&mut writer, 2 * n, 2);
            let mut out = [0.0_f32; 1300];
            reader.fill(&mut out);
            played.extend(out);
        }
        assert!(played.iter().filter(|sample| **sample == 0.0).count() > 1000, "gaps");
        let step = max_step(&played);
        assert!(step < 0.04, "a click of {step}; the tone's own steps are 0.029");
    }

    #[test]
    fn blocks_beyond_the_wanted_fill_are_left_out_and_the_next_one_is_joined_without_a_click() {
        let (mut writer, mut reader) = speaker_ring(AUDIO_RATE, 1);
        let mut played = vec![];
        let mut callback = |reader: &mut RingReader, samples: usize| {
            let mut out = vec![0.0_f32; samples];
            reader.fill(&mut out);
            played.extend(out);
        };
        for n in 0..4 {
            play_tone(&mut writer, n, 1);
            callback(&mut reader, 480);
        }
        play_tone(&mut writer, 4, 47);
        assert_eq!(writer.fill(), 2 * BLOCK_SAMPLES, "one callback and the least cushion");
        for n in 51..60 {
            callback(&mut reader, 480);
            play_tone(&mut writer, n, 1);
        }
        let step = max_step(&played);
        assert!(step < 0.06, "a click of {step}; the tone's own steps are 0.029");
        assert!(!played[480..].contains(&0.0) || played.iter().filter(|s| **s == 0.0).count() < 20);
    }

    #[test]
    fn a_callback_that_asks_for_all_it_has_missed_does_not_change_the_wanted_fill() {
        let (mut writer, mut reader) = speaker_ring(AUDIO_RATE, 1);
        let mut callback = |writer: &mut RingWriter, samples: usize| {
            while writer.needs_block(LEAST) {
                play_tone(writer, 0, 1);
            }
            reader.fill(&mut vec![0.0_f32; samples]);
        };
        (0..20).for_each(|_| callback(&mut writer, 480));
        (0..OUTLIERS).for_each(|_| callback(&mut writer, 24_000));
        callback(&mut writer, 480);
        assert_eq!(writer.callback_samples(), 480);
        (0..20).for_each(|_| callback(&mut writer, 2048));
        assert_eq!(writer.callback_samples(), 2048, "callbacks that stay large are provided for");
    }

    #[test]
    fn a_ring_that_is_too_full_is_shortened_without_a_click() {
        let (mut writer, mut reader) = speaker_ring(AUDIO_RATE, 1);
        let mut played = vec![];
        let mut callback = |samples: usize| {
            let mut out = vec![0.0_f32; samples];
            reader.fill(&mut out);
            played.extend(out);
        };
        (0..4).for_each(|_| callback(9600));
        play_tone(&mut writer, 0, 21);
        assert!(writer.fill() >= 9600, "200 ms: {}", writer.fill());
        // The device's callbacks become small. That shows once the large ones are forgotten.
        let mut n = 21;
        while writer.callback_samples() > BLOCK_SAMPLES {
            callback(480);
            play_tone(&mut writer, n, 1);
            n += 1;
        }
        assert!(writer.fill() > 9600 - BLOCK_SAMPLES, "{}", writer.fill());
        callback(480);
        assert!(writer.fill() <= 3 * BLOCK_SAMPLES, "{}", writer.fill());
        let step = max_step(&played);
        assert!(step < 0.06, "a click of {step}; the tone's own steps are 0.029");
    }
}
