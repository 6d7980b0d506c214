//! The speaker as a device: opened, used and closed on a thread of its own.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::Duration,
};

use cpal::{
    BufferSize, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, StreamTrait},
};

use super::output::{Pace, RETRY};
use crate::{
    audio::Resampler,
    media::{
        AUDIO_RATE, BLOCK_SAMPLES, DeviceRef, SoundEnd, SoundError, Stop, Worker,
        find_sound_device, now, sound_host,
    },
    model::{MediaTime, SourceState},
};

/// A speaker, opened again whenever it failed.
///
/// The device belongs to a thread of its own, because opening and closing one may hang; here is
/// only the near end of the ring between that thread's callback and the mixing thread.
pub(super) struct DeviceOutput {
    wanted: Option<DeviceRef>,
    state: State,
    /// Quarter blocks kept in the ring beyond what one callback takes.
    cushion: usize,
    /// Underruns seen, and when the cushion last changed.
    starved: u64,
    steady_since: MediaTime,
}

enum State {
    /// Not in use until then; `message` is why, `None` at first.
    Closed { retry_at: MediaTime, message: Option<String> },
    /// Being opened.
    Opening { thread: DeviceThread, message: Option<String> },
    /// Playing.
    Running { thread: DeviceThread, line: Line },
}

/// The thread that owns the device, and what it says.
struct DeviceThread {
    worker: Option<Worker>,
    news: Receiver<News>,
}

/// The near end of a playing device.
struct Line {
    ring: rtrb::Producer<f32>,
    counts: Arc<Counts>,
    /// Samples of 10 ms at the device's rate.
    block: usize,
    /// For a device that does not play 48 kHz, and where it puts a block.
    resampler: Option<(Resampler, Vec<f32>)>,
}

/// What the callback counts.
#[derive(Debug, Default)]
struct Counts {
    /// Callbacks so far.
    callbacks: AtomicU64,
    /// The most samples that one callback took.
    largest: AtomicUsize,
    /// Callbacks that found too little.
    starved: AtomicU64,
}

enum News {
    Opened(Line),
    Failed(String),
}

/// Blocks between the mixing thread and the callback at most: half a second, more than any
/// callback takes.
const RING_BLOCKS: usize = 50;

/// What a callback is asked to take, in samples: 10 ms.
const CALLBACK: u32 = BLOCK_SAMPLES as u32;

/// A device that asks for nothing this long is dead; sound servers that die may say nothing.
const DEAD: Duration = Duration::from_secs(1);

/// A device that asks for nothing this long, beyond what its callbacks take, has stalled: voices
/// then go on by the clock.
const STALLED: Duration = Duration::from_millis(100);

/// A device may take longer to begin: a sound server asks once when the stream is opened, and then
/// not before what the last program left in its buffer is played, up to two seconds.
const SLOW_START: Duration = Duration::from_secs(4);

/// So many callbacks and it has begun.
const BEGUN: u64 = 10;

/// How often the device's thread looks whether it is still wanted and alive.
const LOOK: Duration = Duration::from_millis(50);

/// How long closing may take before the thread is left alone: drivers can hang.
const CLOSING: Duration = Duration::from_millis(500);

/// News that wait at most: one opening, one end, and errors in between are one end.
const NEWS: usize = 4;

impl DeviceOutput {
    /// 10 ms: how long the mixing thread may be late at first.
    const LEAST_CUSHION: usize = 4;

    /// 100 ms: a machine that stutters more cannot hold a conversation.
    const GREATEST_CUSHION: usize = 40;

    /// After so long without an underrun the cushion shrinks by a quarter block.
    const STEADY: Duration = Duration::from_secs(10);

    pub(super) fn new(wanted: Option<DeviceRef>) -> Self {
        Self {
            wanted,
            state: State::Closed { retry_at: MediaTime::default(), message: None },
            cushion: Self::LEAST_CUSHION,
            starved: 0,
            steady_since: MediaTime::default(),
        }
    }

    /// Opens the device when it is time to, and hears what its thread says.
    pub(super) fn tend(&mut self, now: MediaTime) -> SourceState {
        let closed = State::Closed { retry_at: now + RETRY, message: None };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Closed { retry_at, message } if now < retry_at => {
                State::Closed { retry_at, message }
            }
            State::Closed { message, .. } => self.open(message, now),
            State::Opening { thread, message } => match thread.heard() {
                None => State::Opening { thread, message },
                Some(News::Opened(line)) => {
                    (self.starved, self.steady_since) = (0, now);
                    State::Running { thread, line }
                }
                Some(News::Failed(message)) => {
                    State::Closed { retry_at: now + RETRY, message: Some(message) }
                }
            },
            State::Running { thread, line } => match thread.heard() {
                None | Some(News::Opened(_)) => {
                    self.settle(&line, now);
                    State::Running { thread, line }
                }
                Some(News::Failed(message)) => {
                    State::Closed { retry_at: now + RETRY, message: Some(message) }
                }
            },
        };
        self.source_state()
    }

    fn source_state(&self) -> SourceState {
        match &self.state {
            State::Running { .. } => SourceState::Running,
            State::Closed { message: None, .. } | State::Opening { message: None, .. } => {
                SourceState::Opening
            }
            State::Closed { message: Some(message), .. }
            | State::Opening { message: Some(message), .. } => {
                SourceState::Failed { message: message.clone() }
            }
        }
    }

    /// Whether the device wants a block.
    pub(super) fn pace(&mut self) -> Pace {
        let State::Running { line, .. } = &self.state else { return Pace::Clock };
        let largest = line.counts.largest.load(Ordering::Relaxed).max(line.block);
        let ring = RING_BLOCKS * line.block;
        let wanted = largest + self.cushion * line.block / 4;
        if ring - line.ring.slots() < wanted.min(ring - 2 * line.block) {
            return Pace::Now;
        }
        Pace::Wait(STALLED + 2 * Duration::from_millis(10 * (largest / line.block) as u64))
    }

    /// Hands the block to the callback; a full ring drops it.
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        if let State::Running { line, .. } = &mut self.state {
            line.play(block);
        }
    }

    fn open(&self, message: Option<String>, now: MediaTime) -> State {
        let (say, news) = sync_channel(NEWS);
        let wanted = self.wanted.clone();
        let worker = Worker::spawn("speaker-device", move |stop| play_device(wanted, &say, stop));
        match worker {
            Ok(worker) => {
                State::Opening { thread: DeviceThread { worker: Some(worker), news }, message }
            }
            Err(error) => {
                let message = Some(format!("no thread for the speaker: {error}"));
                State::Closed { retry_at: now + RETRY, message }
            }
        }
    }

    /// Keeps more in the ring after an underrun, less after a long time without.
    fn settle(&mut self, line: &Line, now: MediaTime) {
        let starved = line.counts.starved.load(Ordering::Relaxed);
        if starved > self.starved {
            // What the device takes before the first block is no underrun.
            if self.starved > 0 {
                self.cushion = (self.cushion + 1).min(Self::GREATEST_CUSHION);
            }
            (self.starved, self.steady_since) = (starved, now);
        } else if now.since(self.steady_since) > Self::STEADY {
            self.cushion = (self.cushion - 1).max(Self::LEAST_CUSHION);
            self.steady_since = now;
        }
    }
}

impl Line {
    fn new(rate: u32) -> (Self, rtrb::Consumer<f32>) {
        let block = (rate / 100).max(1) as usize;
        let (ring, far) = rtrb::RingBuffer::new(RING_BLOCKS * block);
        // A resampler from another rate to ours is one from ours to another with the same ratio:
        // ours² / rate. Rounding it is off by some millionths, which the pace makes good.
        let mirrored = (u64::from(AUDIO_RATE).pow(2) + u64::from(rate) / 2) / u64::from(rate);
        let resampler = (rate != AUDIO_RATE)
            .then(|| (Resampler::new(mirrored as u32), Vec::with_capacity(2 * block)));
        (Self { ring, counts: Arc::default(), block, resampler }, far)
    }

    fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let pushed = match &mut self.resampler {
            None => self.ring.push_entire_slice(block),
            Some((resampler, at_rate)) => {
                at_rate.clear();
                resampler.push(block, at_rate);
                self.ring.push_entire_slice(at_rate)
            }
        };
        if pushed.is_err() {
            tracing::trace!("the speaker's ring is full, a block is dropped");
        }
    }
}

impl DeviceThread {
    fn heard(&self) -> Option<News> {
        match self.news.try_recv() {
            Ok(news) => Some(news),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(News::Failed("the speaker's thread ended; it is tried again".to_owned()))
            }
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        // Not joined: closing a device whose sound server is gone can hang.
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
        let asked = now();
        while now().since(asked) < CLOSING {
            match self.news.recv_timeout(CLOSING) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        tracing::warn!("the speaker does not close; its thread is left alone");
    }
}

/// Opens the device, and keeps it until it is no longer wanted or fails.
fn play_device(wanted: Option<DeviceRef>, say: &SyncSender<News>, stop: &Stop) {
    let (complain, complaints) = sync_channel(NEWS);
    let (stream, line) = match open(wanted.as_ref(), &complain) {
        Ok(opened) => opened,
        Err(error) => return tell(say, News::Failed(error.to_string())),
    };
    let counts = Arc::clone(&line.counts);
    tell(say, News::Opened(line));
    let (mut seen, mut since) = (0, now());
    while !stop.is_set() {
        if let Ok(error) = complaints.try_recv() {
            return tell(say, News::Failed(DeviceError::Lost(error).to_string()));
        }
        let callbacks = counts.callbacks.load(Ordering::Relaxed);
        if callbacks != seen {
            (seen, since) = (callbacks, now());
        } else if now().since(since) > if seen < BEGUN { SLOW_START } else { DEAD } {
            return tell(say, News::Failed(DeviceError::Dead.to_string()));
        }
        thread::sleep(LOOK);
    }
    drop(stream);
}

fn tell(say: &SyncSender<News>, news: News) {
    // The other end is gone only when nobody wants to know.
    say.try_send(news).ok();
}

/// Why a speaker does not play.
#[derive(Debug, thiserror::Error)]
enum DeviceError {
    #[error(transparent)]
    Find(#[from] SoundError),
    #[error("the speaker {name:?} is not there; connect it, or pick another")]
    Absent { name: String },
    #[error("there is no speaker; connect one")]
    None,
    #[error("the speaker {name:?} cannot be opened: {}; it is tried again; or pick another", plain(.source))]
    Open { name: String, source: cpal::Error },
    #[error("the speaker {name:?} plays no format that is known here; pick another")]
    Format { name: String },
    #[error("the speaker stopped: {}; it is tried again; or pick another", plain(.0))]
    Lost(cpal::Error),
    #[error("the speaker stopped asking for sound; it is tried again; or pick another")]
    Dead,
}

impl DeviceError {
    /// Why a device does not open. What systems list without having it is told shortly.
    fn opening(name: String, is_default: bool, source: cpal::Error) -> Self {
        match (source.kind() == cpal::ErrorKind::DeviceNotAvailable, is_default) {
            (true, true) => Self::None,
            (true, false) => Self::Absent { name },
            (false, _) => Self::Open { name, source },
        }
    }
}

/// What the sound system said, without a full stop: it goes into a sentence.
fn plain(error: &cpal::Error) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

/// Opens the device in the best format that it takes.
fn open(
    wanted: Option<&DeviceRef>,
    complain: &SyncSender<cpal::Error>,
) -> Result<(Stream, Line), DeviceError> {
    let host = sound_host();
    let device = find_sound_device(&host, SoundEnd::Output, wanted)?;
    let (name, is_default) = (device.to_string(), wanted.is_none());
    let mut refused = None;
    let fails = |source| DeviceError::opening(name.clone(), is_default, source);
    for choice in choices(&device).map_err(fails)? {
        match start(&device, choice, complain.clone()) {
            Ok(started) => {
                tracing::info!(name, ?choice, "speaker opened");
                return Ok(started);
            }
            Err(error) => {
                tracing::debug!(name, ?choice, %error, "a format is refused");
                refused.get_or_insert(error);
            }
        }
    }
    Err(match refused {
        Some(source) => DeviceError::opening(name, is_default, source),
        None => DeviceError::Format { name },
    })
}

/// A way to open a device.
#[derive(Clone, Copy, Debug)]
struct Choice {
    format: Format,
    channels: u16,
    rate: u32,
    /// Samples a callback; `None` is what the device likes, which may be a whole second.
    callback: Option<u32>,
}

/// The ways to open the device that are worth trying, best first.
fn choices(device: &cpal::Device) -> Result<Vec<Choice>, cpal::Error> {
    let mut offers: Vec<_> = device
        .supported_output_configs()?
        .filter(|range| (range.min_sample_rate()..=range.max_sample_rate()).contains(&AUDIO_RATE))
        .map(|range| (range.sample_format(), range.channels(), AUDIO_RATE))
        .collect();
    if offers.is_empty()
        && let Ok(usual) = device.default_output_config()
    {
        offers.push((usual.sample_format(), usual.channels(), usual.sample_rate()));
    }
    let place = |kind| FORMATS.iter().position(|format| format.kind == kind);
    let mut choices: Vec<_> = offers
        .into_iter()
        .filter_map(|(kind, channels, rate)| Some((place(kind)?, channels, rate)))
        .collect();
    choices.sort_by_key(|(place, channels, _)| (*place, *channels != 2, *channels));
    // Sound systems list hundreds of combinations that are all refused for one reason.
    choices.truncate(MAX_CHOICES);
    let sized = |callback| {
        choices.iter().map(move |&(place, channels, rate)| Choice {
            format: FORMATS[place],
            channels,
            rate,
            callback,
        })
    };
    Ok(sized(Some(CALLBACK)).chain(sized(None)).collect())
}

/// A sample format, and how a stream of it is made.
#[derive(Clone, Copy)]
struct Format {
    kind: SampleFormat,
    stream: MakeStream,
}

type MakeStream =
    fn(FarEnd, &cpal::Device, Choice, SyncSender<cpal::Error>) -> Result<Stream, cpal::Error>;

/// The sample formats that are written here, best first.
const FORMATS: [Format; 6] = [
    Format { kind: SampleFormat::F32, stream: FarEnd::stream::<f32> },
    Format { kind: SampleFormat::I16, stream: FarEnd::stream::<i16> },
    Format { kind: SampleFormat::I32, stream: FarEnd::stream::<i32> },
    Format { kind: SampleFormat::U8, stream: FarEnd::stream::<u8> },
    Format { kind: SampleFormat::U16, stream: FarEnd::stream::<u16> },
    Format { kind: SampleFormat::F64, stream: FarEnd::stream::<f64> },
];

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// Formats that are tried at most.
const MAX_CHOICES: usize = 6;

fn start(
    device: &cpal::Device,
    choice: Choice,
    complain: SyncSender<cpal::Error>,
) -> Result<(Stream, Line), cpal::Error> {
    let (line, ring) = Line::new(choice.rate);
    let (counts, channels) = (Arc::clone(&line.counts), usize::from(choice.channels).max(1));
    let far = FarEnd { ring, counts, channels };
    let stream = (choice.format.stream)(far, device, choice, complain)?;
    stream.play()?;
    Ok((stream, line))
}

/// What the device's callback holds.
struct FarEnd {
    ring: rtrb::Consumer<f32>,
    counts: Arc<Counts>,
    channels: usize,
}

impl FarEnd {
    fn stream<T: SizedSample + FromSample<f32>>(
        mut self,
        device: &cpal::Device,
        choice: Choice,
        complain: SyncSender<cpal::Error>,
    ) -> Result<Stream, cpal::Error> {
        let config = StreamConfig {
            channels: choice.channels,
            sample_rate: choice.rate,
            buffer_size: choice.callback.map_or(BufferSize::Default, BufferSize::Fixed),
        };
        device.build_output_stream(
            config,
            move |out: &mut [T], _| self.fill(out),
            move |error| {
                if is_fatal(error.kind()) {
                    complain.try_send(error).ok();
                }
            },
            Some(OPENING),
        )
    }

    /// The real-time callback: copies, counts, returns.
    fn fill<T: SizedSample + FromSample<f32>>(&mut self, out: &mut [T]) {
        let mut starved = false;
        for frame in out.chunks_mut(self.channels) {
            let sample = self.ring.pop().unwrap_or_else(|_| {
                starved = true;
                0.0
            });
            // Left and right; the other loudspeakers of a larger set stay silent.
            for (n, channel) in frame.iter_mut().enumerate() {
                *channel = T::from_sample(if n < 2 { sample } else { 0.0 });
            }
        }
        let counts = &self.counts;
        counts.largest.fetch_max(out.len() / self.channels, Ordering::Relaxed);
        counts.starved.fetch_add(u64::from(starved), Ordering::Relaxed);
        counts.callbacks.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long a sound system may take to open a device.
const OPENING: Duration = Duration::from_secs(3);

/// Whether the stream plays no more; what is not is only told.
fn is_fatal(kind: cpal::ErrorKind) -> bool {
    use cpal::ErrorKind::{DeviceChanged, RealtimeDenied, Xrun};
    !matches!(kind, DeviceChanged | RealtimeDenied | Xrun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speaker_that_is_not_there_is_told_in_a_line_with_a_way_out() {
        let error = |kind: cpal::ErrorKind, is_default| {
            DeviceError::opening("Headset".to_owned(), is_default, kind.into()).to_string()
        };
        let (absent, busy) = (cpal::ErrorKind::DeviceNotAvailable, cpal::ErrorKind::DeviceBusy);
        let short = "the speaker \"Headset\" is not there; connect it, or pick another";
        assert_eq!(error(absent, false), short);
        assert_eq!(error(absent, true), "there is no speaker; connect one");
        assert!(error(busy, true).contains("cannot be opened"));
    }
    use crate::audio::tone_hz;

    #[test]
    fn a_device_of_another_rate_hears_the_same_tone() {
        for rate in [16_000, 44_100, 96_000] {
            let (mut line, mut far) = Line::new(rate);
            let mut heard = vec![];
            for n in 0..100_u32 {
                let mut block = [0.0; BLOCK_SAMPLES];
                for (m, sample) in (n * 480..).zip(&mut block) {
                    *sample = (m as f32 * 440.0 / 48_000.0 * std::f32::consts::TAU).sin() / 2.0;
                }
                line.play(&block);
                heard.extend(std::iter::from_fn(|| far.pop().ok()));
            }
            // The filter holds back the half of its length.
            assert!(heard.len().abs_diff(rate as usize) <= 50, "{rate}: {}", heard.len());
            // The estimate takes the samples for 48 kHz.
            let found = tone_hz(&heard).unwrap() * f64::from(rate) / 48_000.0;
            assert!((found - 440.0).abs() < 2.0, "{rate}: {found}");
        }
    }

    #[test]
    fn the_callback_copies_to_two_channels_and_counts() {
        let (mut line, ring) = Line::new(AUDIO_RATE);
        let counts = Arc::clone(&line.counts);
        let mut far = FarEnd { ring, counts: Arc::clone(&counts), channels: 4 };
        line.play(&[0.5; BLOCK_SAMPLES]);
        let mut out = [9_i16; 4 * 470];
        far.fill(&mut out);
        assert!(out.chunks(4).all(|frame| frame == [16_384, 16_384, 0, 0]));
        far.fill(&mut out);
        assert_eq!((out[4 * 9], out[4 * 10]), (16_384, 0), "then silence");
        let seen = [&counts.callbacks, &counts.starved].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((seen, counts.largest.load(Ordering::Relaxed)), ([2, 1], 470));
    }

    #[test]
    fn a_full_ring_drops_blocks_and_wants_none() {
        let (line, _far) = Line::new(AUDIO_RATE);
        let (_say, news) = sync_channel(1);
        let thread = DeviceThread { worker: None, news };
        let mut output = DeviceOutput::new(None);
        output.state = State::Running { thread, line };
        let mut wanted = 0;
        while output.pace() == Pace::Now {
            output.play(&[0.5; BLOCK_SAMPLES]);
            wanted += 1;
        }
        assert_eq!(wanted, 2, "a callback's worth and the cushion");
        (0..200).for_each(|_| output.play(&[0.5; BLOCK_SAMPLES]));
        assert!(matches!(output.pace(), Pace::Wait(_)));
        output.state = State::Closed { retry_at: now(), message: None };
        assert_eq!(output.pace(), Pace::Clock);
    }
}
