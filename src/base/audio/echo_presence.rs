//! Finds out whether the microphone hears the speaker.

use std::collections::VecDeque;

use super::{fft::transform, level_dbfs};
use crate::media::BLOCK_SAMPLES;

/// Tells whether what the speaker plays is heard at the microphone, from blocks of 10 ms of both.
///
/// It is the generalised cross-correlation with phase transform (Knapp and Carter, 1976) of half a
/// second at a time, at 8 kHz. An echo gives one sharp peak at its delay, however quiet it is
/// beside the voice of the user; headphones give none. The spectra of several pieces add up.
#[derive(Clone, Debug)]
pub struct EchoPresence {
    far: VecDeque<f32>,
    microphone: VecDeque<f32>,
    /// How many more samples of the far end came than of the microphone.
    ahead: i64,
    /// The sum of the whitened cross-spectra, of which older pieces weigh less.
    spectrum: Spectrum,
    /// Blocks until the next piece.
    wait_blocks: u32,
    /// Pieces without a peak since the last one with it.
    without_peak: u32,
    presence: Presence,
    /// Samples of the microphone so far.
    time: u64,
    /// The delay of the echo in the newest piece, and when that ended, both in seconds.
    delay: Option<(f64, f64)>,
}

/// Complex values: samples or frequencies.
type Spectrum = Vec<(f32, f32)>;

/// Whether the microphone hears the speaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Presence {
    /// The speaker has not played enough to tell.
    #[default]
    Unknown,
    /// It does.
    Present,
    /// It does not: the user has headphones, or is far away.
    Absent,
}

/// Samples of the microphone in a piece: half a second, which is also the longest delay.
const PIECE: usize = 4096;

/// Samples of 48 kHz to one of 8 kHz.
const DECIMATION: usize = 6;

/// The rate of the pieces in hertz.
const RATE: f64 = 8000.0;

/// Blocks between two pieces.
const BLOCKS_BETWEEN: u32 = 20;

/// A piece counts if the far end has this level, in dB relative to full scale, in as many of its
/// blocks. The beginning of a sound alone has a peak with everything.
const ACTIVE_DBFS: f64 = -50.0;
const ACTIVE_BLOCKS: usize = 20;

/// How many times the root mean square of the correlation the peak of an echo is. It is 40 to 56 of an
/// echo of -10 dB, 13 to 30 beside a voice, and 9 to 17 if the echo is at -25 dB. Without an echo it
/// is 3 to 7, and once it was 9.8, when both began in the same sample.
const PEAK: f32 = 11.0;

/// Pieces without a peak after which there is no echo, at first and after an echo.
const ABSENT_PIECES: (u32, u32) = (3, 20);

/// What is left of the older pieces with each new one.
const MEMORY: f32 = 0.85;

impl Default for EchoPresence {
    fn default() -> Self {
        Self {
            far: std::iter::repeat_n(0.0, 2 * PIECE).collect(),
            microphone: std::iter::repeat_n(0.0, 2 * PIECE).collect(),
            ahead: 0,
            spectrum: vec![(0.0, 0.0); 2 * PIECE],
            wait_blocks: BLOCKS_BETWEEN,
            without_peak: 0,
            presence: Presence::Unknown,
            time: 0,
            delay: None,
        }
    }
}

impl EchoPresence {
    /// Takes a block that the speaker will play.
    pub fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        append(&mut self.far, block, 3 * PIECE);
        self.ahead += (BLOCK_SAMPLES / DECIMATION) as i64;
        self.limit_distance();
    }

    /// Takes a block of the microphone. Returns what is known now.
    pub fn push(&mut self, block: &[f32; BLOCK_SAMPLES]) -> Presence {
        append(&mut self.microphone, block, 2 * PIECE);
        self.ahead -= (BLOCK_SAMPLES / DECIMATION) as i64;
        self.limit_distance();
        self.time += (BLOCK_SAMPLES / DECIMATION) as u64;
        self.wait_blocks = self.wait_blocks.saturating_sub(1);
        if self.wait_blocks == 0
            && let Some((far, microphone)) = self.piece()
        {
            self.wait_blocks = BLOCKS_BETWEEN;
            self.add(far, microphone);
            self.decide();
        }
        self.presence
    }

    /// Takes the delay of the echo in the newest piece, and the time at which that ended, both in
    /// seconds of the microphone's samples.
    pub const fn take_delay(&mut self) -> Option<(f64, f64)> {
        self.delay.take()
    }

    /// Counts from new on if one is far ahead of the other, because a device stood still or was
    /// opened later.
    fn limit_distance(&mut self) {
        if self.ahead.unsigned_abs() as usize > PIECE {
            self.ahead = 0;
        }
    }

    /// The next piece of both, if there is one in which the speaker played: twice as long as that of
    /// the microphone, which is its second half.
    fn piece(&self) -> Option<(Spectrum, Spectrum)> {
        // Both end with the newest sample that exists of both.
        let end = self.far.len() - usize::try_from(self.ahead).unwrap_or(0);
        let microphone_end = self.microphone.len() - usize::try_from(-self.ahead).unwrap_or(0);
        let (start, microphone_start) = (end.checked_sub(2 * PIECE)?, microphone_end - PIECE);
        let far: Vec<_> = self.far.range(start..end).copied().collect();
        let blocks = far[PIECE..].chunks(BLOCK_SAMPLES / DECIMATION);
        if blocks.filter(|block| level_dbfs(block) > ACTIVE_DBFS).count() < ACTIVE_BLOCKS {
            return None;
        }
        let silence = std::iter::repeat_n(0.0, PIECE);
        let microphone = self.microphone.range(microphone_start..microphone_end);
        let microphone = silence.chain(microphone.copied());
        Some((far.iter().map(|x| (*x, 0.0)).collect(), microphone.map(|x| (x, 0.0)).collect()))
    }

    /// Adds the cross-spectrum of a piece, with the same weight for each frequency.
    fn add(&mut self, mut far: Spectrum, mut microphone: Spectrum) {
        transform(&mut far);
        transform(&mut microphone);
        for ((sum, far), microphone) in self.spectrum.iter_mut().zip(far).zip(microphone) {
            let re = microphone.0 * far.0 + microphone.1 * far.1;
            let im = microphone.1 * far.0 - microphone.0 * far.1;
            let size = re.hypot(im).max(1e-12);
            *sum = (sum.0 * MEMORY + re / size, sum.1 * MEMORY + im / size);
        }
    }

    /// Looks for the peak among the delays, and decides.
    fn decide(&mut self) {
        // The inverse transform of a spectrum is, but for a factor, the conjugate of the transform
        // of its conjugate.
        let mut correlation: Vec<_> = self.spectrum.iter().map(|(re, im)| (*re, -im)).collect();
        transform(&mut correlation);
        let delays = &correlation[..PIECE];
        let power = delays.iter().map(|(re, _)| re * re).sum::<f32>() / PIECE as f32;
        let (at, highest) = delays.iter().map(|(re, _)| re.abs()).enumerate().fold(
            (0, 0.0),
            |highest, (at, value)| if value > highest.1 { (at, value) } else { highest },
        );
        let peak = highest / power.sqrt().max(1e-12);
        if peak >= PEAK && (1..PIECE - 1).contains(&at) {
            // The top of the parabola through the highest value and its neighbours.
            let [before, after] = [at - 1, at + 1].map(|at| f64::from(delays[at].0.abs()));
            let top = 0.5 * (before - after) / (before - 2.0 * f64::from(highest) + after);
            self.delay = Some(((at as f64 + top) / RATE, self.time as f64 / RATE));
        }
        self.without_peak = if peak >= PEAK { 0 } else { self.without_peak + 1 };
        self.presence = match self.presence {
            _ if peak >= PEAK => Presence::Present,
            Presence::Present if self.without_peak < ABSENT_PIECES.1 => Presence::Present,
            Presence::Unknown if self.without_peak < ABSENT_PIECES.0 => Presence::Unknown,
            Presence::Present | Presence::Absent | Presence::Unknown => Presence::Absent,
        };
    }
}

/// Appends a block at 8 kHz, and drops the oldest samples beyond `most`.
fn append(samples: &mut VecDeque<f32>, block: &[f32; BLOCK_SAMPLES], most: usize) {
    let mean = |part: &[f32; DECIMATION]| part.iter().sum::<f32>() / DECIMATION as f32;
    samples.extend(block.as_chunks::<DECIMATION>().0.iter().map(mean));
    samples.drain(..samples.len().saturating_sub(most));
}
