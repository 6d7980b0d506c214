//! Plays audio on a speaker device, which is opened, used and closed on its own thread.

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

use super::{
    device_error::DeviceError,
    output::{BlockDemand, RETRY_INTERVAL},
};
use crate::{
    audio::Resampler,
    devices::{AudioDirection, DeviceRef, audio_host, find_audio_device},
    media::{AUDIO_RATE, BLOCK_SAMPLES, Stop, Worker, now},
    model::{DeviceState, MediaTime},
};

/// A speaker device that is reopened after failures.
///
/// The device is owned by a thread of its own, because opening and closing it may hang. This type
/// holds the writing side of the ring buffer between the mixer thread and the audio callback.
pub(super) struct DeviceOutput {
    wanted: Option<DeviceRef>,
    state: State,
    /// The target fill of the ring beyond what one callback takes, in quarter blocks.
    margin: usize,
    /// The underruns so far.
    underruns: u64,
    /// When the last underrun occurred or the margin last changed.
    stable_since: MediaTime,
}

enum State {
    /// Closed until `retry_at`. `message` is the last error, `None` at first.
    Closed { retry_at: MediaTime, message: Option<String> },
    /// The thread is opening the device.
    Opening { thread: DeviceThread, message: Option<String> },
    /// The device is playing.
    Running { thread: DeviceThread, writer: RingWriter },
}

/// The thread that owns the device, and the events from it.
struct DeviceThread {
    worker: Option<Worker>,
    events: Receiver<DeviceEvent>,
}

/// The writing side of the ring buffer to a playing device.
struct RingWriter {
    ring: rtrb::Producer<f32>,
    stats: Arc<CallbackStats>,
    /// The samples of a 10 ms block at the device's rate.
    block_samples: usize,
    /// The resampler and its output buffer, if the device does not play 48 kHz.
    resampler: Option<(Resampler, Vec<f32>)>,
}

/// Counters that the audio callback updates.
#[derive(Debug, Default)]
struct CallbackStats {
    /// The number of callbacks.
    callbacks: AtomicU64,
    /// The most samples per channel that one callback took.
    max_samples: AtomicUsize,
    /// Callbacks that found too few samples in the ring.
    underruns: AtomicU64,
}

enum DeviceEvent {
    Opened(RingWriter),
    Failed(String),
}

/// The capacity of the ring in blocks: half a second, more than any callback takes.
const RING_BLOCKS: usize = 50;

/// The requested size of a callback in samples: 10 ms.
const CALLBACK_SAMPLES: u32 = BLOCK_SAMPLES as u32;

/// A device without callbacks for this long has failed. An audio server that dies may report no
/// error.
const DEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// A device without callbacks for this long, beyond the length of its callbacks, has stalled. Audio
/// is then mixed by the clock.
const STALL_TIMEOUT: Duration = Duration::from_millis(100);

/// The timeout instead of [`DEAD_TIMEOUT`] until the device has started. An audio server calls back
/// once when the stream is opened, and again only after it has played what an earlier program left
/// in its buffer, up to two seconds.
const START_TIMEOUT: Duration = Duration::from_secs(4);

/// After this many callbacks the device has started.
const STARTED_CALLBACKS: u64 = 10;

/// How often the device's thread checks for the stop signal and for errors.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long closing may take before the thread is abandoned: drivers can hang.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// The capacity of the event channels. Only the first error of a device matters.
const MAX_EVENTS: usize = 4;

impl DeviceOutput {
    /// 10 ms: how late the mixer thread may be initially.
    const MIN_MARGIN: usize = 4;

    /// 100 ms: more latency is not acceptable in a conversation.
    const MAX_MARGIN: usize = 40;

    /// After this long without an underrun the margin shrinks by a quarter block.
    const STABLE_PERIOD: Duration = Duration::from_secs(10);

    pub(super) fn new(wanted: Option<DeviceRef>) -> Self {
        Self {
            wanted,
            state: State::Closed { retry_at: MediaTime::default(), message: None },
            margin: Self::MIN_MARGIN,
            underruns: 0,
            stable_since: MediaTime::default(),
        }
    }

    /// Opens the device when it is due and handles the events of its thread. Returns the state.
    pub(super) fn poll(&mut self, now: MediaTime) -> DeviceState {
        let closed = State::Closed { retry_at: now + RETRY_INTERVAL, message: None };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Closed { retry_at, message } if now < retry_at => {
                State::Closed { retry_at, message }
            }
            State::Closed { message, .. } => self.open(message, now),
            State::Opening { thread, message } => match thread.try_event() {
                None => State::Opening { thread, message },
                Some(DeviceEvent::Opened(writer)) => {
                    (self.underruns, self.stable_since) = (0, now);
                    State::Running { thread, writer }
                }
                Some(DeviceEvent::Failed(message)) => {
                    State::Closed { retry_at: now + RETRY_INTERVAL, message: Some(message) }
                }
            },
            State::Running { thread, writer } => match thread.try_event() {
                None | Some(DeviceEvent::Opened(_)) => {
                    self.adapt_margin(&writer, now);
                    State::Running { thread, writer }
                }
                Some(DeviceEvent::Failed(message)) => {
                    State::Closed { retry_at: now + RETRY_INTERVAL, message: Some(message) }
                }
            },
        };
        self.source_state()
    }

    fn source_state(&self) -> DeviceState {
        match &self.state {
            State::Running { .. } => DeviceState::Running,
            State::Closed { message: None, .. } | State::Opening { message: None, .. } => {
                DeviceState::Opening
            }
            State::Closed { message: Some(message), .. }
            | State::Opening { message: Some(message), .. } => {
                DeviceState::Failed { message: message.clone() }
            }
        }
    }

    /// Whether the device needs a block now.
    pub(super) fn demand(&mut self) -> BlockDemand {
        let State::Running { writer, .. } = &self.state else { return BlockDemand::ByClock };
        let callback = writer.stats.max_samples.load(Ordering::Relaxed).max(writer.block_samples);
        let capacity = RING_BLOCKS * writer.block_samples;
        let target = callback + self.margin * writer.block_samples / 4;
        if capacity - writer.ring.slots() < target.min(capacity - 2 * writer.block_samples) {
            return BlockDemand::Now;
        }
        BlockDemand::Wait(
            STALL_TIMEOUT
                + 2 * Duration::from_millis(10 * (callback / writer.block_samples) as u64),
        )
    }

    /// Writes the block to the ring; drops it if the ring is full.
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        if let State::Running { writer, .. } = &mut self.state {
            writer.play(block);
        }
    }

    fn open(&self, message: Option<String>, now: MediaTime) -> State {
        let (sender, events) = sync_channel(MAX_EVENTS);
        let wanted = self.wanted.clone();
        let worker = Worker::spawn("speaker-device", move |stop| run_device(wanted, &sender, stop));
        match worker {
            Ok(worker) => {
                State::Opening { thread: DeviceThread { worker: Some(worker), events }, message }
            }
            Err(error) => {
                let message = Some(format!("no thread for the speaker: {error}"));
                State::Closed { retry_at: now + RETRY_INTERVAL, message }
            }
        }
    }

    /// Raises the margin after an underrun, lowers it after a long time without one.
    fn adapt_margin(&mut self, writer: &RingWriter, now: MediaTime) {
        let underruns = writer.stats.underruns.load(Ordering::Relaxed);
        if underruns > self.underruns {
            // The first underrun is ignored: the device starts before the first block.
            if self.underruns > 0 {
                self.margin = (self.margin + 1).min(Self::MAX_MARGIN);
            }
            (self.underruns, self.stable_since) = (underruns, now);
        } else if now.since(self.stable_since) > Self::STABLE_PERIOD {
            self.margin = (self.margin - 1).max(Self::MIN_MARGIN);
            self.stable_since = now;
        }
    }
}

impl RingWriter {
    fn new(rate: u32) -> (Self, rtrb::Consumer<f32>) {
        let block = (rate / 100).max(1) as usize;
        let (ring, consumer) = rtrb::RingBuffer::new(RING_BLOCKS * block);
        // `Resampler` converts to `AUDIO_RATE` only. The ratio from `AUDIO_RATE`² / `rate` to
        // `AUDIO_RATE` is that from `AUDIO_RATE` to `rate`. The rounding error of some millionths
        // has no effect, because the device's demand controls the number of blocks.
        let input_rate = (u64::from(AUDIO_RATE).pow(2) + u64::from(rate) / 2) / u64::from(rate);
        let resampler = (rate != AUDIO_RATE)
            .then(|| (Resampler::new(input_rate as u32), Vec::with_capacity(2 * block)));
        (Self { ring, stats: Arc::default(), block_samples: block, resampler }, consumer)
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
            tracing::trace!("speaker ring full, block dropped");
        }
    }
}

impl DeviceThread {
    fn try_event(&self) -> Option<DeviceEvent> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(DeviceEvent::Failed(
                "the speaker's thread ended; it is tried again".to_owned(),
            )),
        }
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        // Not joined: closing a device whose audio server is gone can hang.
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
        let started = now();
        while now().since(started) < CLOSE_TIMEOUT {
            match self.events.recv_timeout(CLOSE_TIMEOUT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        tracing::warn!("speaker does not close; thread abandoned");
    }
}

/// Opens the device and plays until the stop signal or a failure. Runs on the device's thread.
fn run_device(wanted: Option<DeviceRef>, events: &SyncSender<DeviceEvent>, stop: &Stop) {
    let (report_error, errors) = sync_channel(MAX_EVENTS);
    let (stream, writer) = match open(wanted.as_ref(), &report_error) {
        Ok(opened) => opened,
        Err(error) => return send_event(events, DeviceEvent::Failed(error.to_string())),
    };
    let counts = Arc::clone(&writer.stats);
    send_event(events, DeviceEvent::Opened(writer));
    let (mut last_count, mut since) = (0, now());
    while !stop.is_set() {
        if let Ok(error) = errors.try_recv() {
            return send_event(events, DeviceEvent::Failed(DeviceError::Lost(error).to_string()));
        }
        let callbacks = counts.callbacks.load(Ordering::Relaxed);
        if callbacks != last_count {
            (last_count, since) = (callbacks, now());
        } else if now().since(since)
            > if last_count < STARTED_CALLBACKS { START_TIMEOUT } else { DEAD_TIMEOUT }
        {
            return send_event(events, DeviceEvent::Failed(DeviceError::Dead.to_string()));
        }
        thread::sleep(POLL_INTERVAL);
    }
    drop(stream);
}

fn send_event(events: &SyncSender<DeviceEvent>, event: DeviceEvent) {
    // An error means that the output was dropped and needs no event.
    events.try_send(event).ok();
}

/// Opens the device in the best configuration that it accepts.
fn open(
    wanted: Option<&DeviceRef>,
    report_error: &SyncSender<cpal::Error>,
) -> Result<(Stream, RingWriter), DeviceError> {
    let host = audio_host();
    let device = find_audio_device(&host, AudioDirection::Output, wanted)?;
    let (name, is_default) = (device.to_string(), wanted.is_none());
    let mut first_error = None;
    let to_error = |source| DeviceError::from_open_error(name.clone(), is_default, source);
    for config in open_configs(&device).map_err(to_error)? {
        match start_stream(&device, config, report_error.clone()) {
            Ok(started) => {
                tracing::info!(name, ?config, "speaker opened");
                return Ok(started);
            }
            Err(error) => {
                tracing::debug!(name, ?config, %error, "speaker configuration rejected");
                first_error.get_or_insert(error);
            }
        }
    }
    Err(match first_error {
        Some(source) => DeviceError::from_open_error(name, is_default, source),
        None => DeviceError::Format { name },
    })
}

/// A configuration to open a device with.
#[derive(Clone, Copy, Debug)]
struct OpenConfig {
    format: Format,
    channels: u16,
    rate: u32,
    /// The requested samples per callback; `None` for the device's default, which may be a whole
    /// second.
    callback_samples: Option<u32>,
}

/// The configurations to try, best first.
fn open_configs(device: &cpal::Device) -> Result<Vec<OpenConfig>, cpal::Error> {
    let mut offers: Vec<_> = device
        .supported_output_configs()?
        .filter(|range| (range.min_sample_rate()..=range.max_sample_rate()).contains(&AUDIO_RATE))
        .map(|range| (range.sample_format(), range.channels(), AUDIO_RATE))
        .collect();
    if offers.is_empty()
        && let Ok(default) = device.default_output_config()
    {
        offers.push((default.sample_format(), default.channels(), default.sample_rate()));
    }
    let rank = |kind| FORMATS.iter().position(|format| format.sample_format == kind);
    let mut configs: Vec<_> = offers
        .into_iter()
        .filter_map(|(kind, channels, rate)| Some((rank(kind)?, channels, rate)))
        .collect();
    configs.sort_by_key(|(rank, channels, _)| (*rank, *channels != 2, *channels));
    // Audio systems list hundreds of combinations, which may all fail for the same reason.
    configs.truncate(MAX_CONFIGS);
    let with_callback = |callback| {
        configs.iter().map(move |&(rank, channels, rate)| OpenConfig {
            format: FORMATS[rank],
            channels,
            rate,
            callback_samples: callback,
        })
    };
    Ok(with_callback(Some(CALLBACK_SAMPLES)).chain(with_callback(None)).collect())
}

/// A sample format, and the function that builds a stream of it.
#[derive(Clone, Copy)]
struct Format {
    sample_format: SampleFormat,
    build_stream: BuildStream,
}

type BuildStream = fn(
    CallbackSide,
    &cpal::Device,
    OpenConfig,
    SyncSender<cpal::Error>,
) -> Result<Stream, cpal::Error>;

/// The supported sample formats, best first.
const FORMATS: [Format; 6] = [
    Format { sample_format: SampleFormat::F32, build_stream: CallbackSide::build_stream::<f32> },
    Format { sample_format: SampleFormat::I16, build_stream: CallbackSide::build_stream::<i16> },
    Format { sample_format: SampleFormat::I32, build_stream: CallbackSide::build_stream::<i32> },
    Format { sample_format: SampleFormat::U8, build_stream: CallbackSide::build_stream::<u8> },
    Format { sample_format: SampleFormat::U16, build_stream: CallbackSide::build_stream::<u16> },
    Format { sample_format: SampleFormat::F64, build_stream: CallbackSide::build_stream::<f64> },
];

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sample_format.fmt(f)
    }
}

/// The most formats that are tried.
const MAX_CONFIGS: usize = 6;

fn start_stream(
    device: &cpal::Device,
    config: OpenConfig,
    report_error: SyncSender<cpal::Error>,
) -> Result<(Stream, RingWriter), cpal::Error> {
    let (writer, ring) = RingWriter::new(config.rate);
    let (counts, channels) = (Arc::clone(&writer.stats), usize::from(config.channels).max(1));
    let callback_side = CallbackSide { ring, stats: counts, channels };
    let stream = (config.format.build_stream)(callback_side, device, config, report_error)?;
    stream.play()?;
    Ok((stream, writer))
}

/// The state of the audio callback, with the reading side of the ring buffer.
struct CallbackSide {
    ring: rtrb::Consumer<f32>,
    stats: Arc<CallbackStats>,
    channels: usize,
}

impl CallbackSide {
    fn build_stream<T: SizedSample + FromSample<f32>>(
        mut self,
        device: &cpal::Device,
        config: OpenConfig,
        report_error: SyncSender<cpal::Error>,
    ) -> Result<Stream, cpal::Error> {
        let config = StreamConfig {
            channels: config.channels,
            sample_rate: config.rate,
            buffer_size: config.callback_samples.map_or(BufferSize::Default, BufferSize::Fixed),
        };
        device.build_output_stream(
            config,
            move |out: &mut [T], _| self.fill(out),
            move |error| {
                if is_fatal(error.kind()) {
                    report_error.try_send(error).ok();
                }
            },
            Some(OPEN_TIMEOUT),
        )
    }

    /// The real-time callback: copies samples and counts.
    fn fill<T: SizedSample + FromSample<f32>>(&mut self, out: &mut [T]) {
        let mut is_underrun = false;
        for frame in out.chunks_mut(self.channels) {
            let sample = self.ring.pop().unwrap_or_else(|_| {
                is_underrun = true;
                0.0
            });
            // The front left and right channels. Further channels stay silent.
            for (n, channel) in frame.iter_mut().enumerate() {
                *channel = T::from_sample(if n < 2 { sample } else { 0.0 });
            }
        }
        let counts = &self.stats;
        counts.max_samples.fetch_max(out.len() / self.channels, Ordering::Relaxed);
        counts.underruns.fetch_add(u64::from(is_underrun), Ordering::Relaxed);
        counts.callbacks.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long the audio system may take to open a device.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether an error ends the stream. Other errors are only notifications.
fn is_fatal(kind: cpal::ErrorKind) -> bool {
    use cpal::ErrorKind::{DeviceChanged, RealtimeDenied, Xrun};
    !matches!(kind, DeviceChanged | RealtimeDenied | Xrun)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::tone_hz;

    #[test]
    fn the_message_for_an_absent_speaker_is_short_and_names_a_way_out() {
        let error = |kind: cpal::ErrorKind, is_default| {
            DeviceError::from_open_error("Headset".to_owned(), is_default, kind.into()).to_string()
        };
        let (absent, busy) = (cpal::ErrorKind::DeviceNotAvailable, cpal::ErrorKind::DeviceBusy);
        let message = "the speaker \"Headset\" is not there; connect it, or pick another";
        assert_eq!(error(absent, false), message);
        assert_eq!(error(absent, true), "there is no speaker; connect one");
        assert!(error(busy, true).contains("cannot be opened"));
    }

    #[test]
    fn a_device_of_another_rate_plays_the_same_tone() {
        for rate in [16_000, 44_100, 96_000] {
            let (mut writer, mut consumer) = RingWriter::new(rate);
            let mut played = vec![];
            for n in 0..100_u32 {
                let mut block = [0.0; BLOCK_SAMPLES];
                for (m, sample) in (n * 480..).zip(&mut block) {
                    *sample = (m as f32 * 440.0 / 48_000.0 * std::f32::consts::TAU).sin() / 2.0;
                }
                writer.play(&block);
                played.extend(std::iter::from_fn(|| consumer.pop().ok()));
            }
            // The filter delays the output by half of its length.
            assert!(played.len().abs_diff(rate as usize) <= 50, "{rate}: {}", played.len());
            // `tone_hz` assumes 48 kHz.
            let found = tone_hz(&played).unwrap() * f64::from(rate) / 48_000.0;
            assert!((found - 440.0).abs() < 2.0, "{rate}: {found}");
        }
    }

    #[test]
    fn the_callback_copies_to_two_channels_and_counts() {
        let (mut writer, ring) = RingWriter::new(AUDIO_RATE);
        let counts = Arc::clone(&writer.stats);
        let mut callback = CallbackSide { ring, stats: Arc::clone(&counts), channels: 4 };
        writer.play(&[0.5; BLOCK_SAMPLES]);
        let mut out = [9_i16; 4 * 470];
        callback.fill(&mut out);
        assert!(out.chunks(4).all(|frame| frame == [16_384, 16_384, 0, 0]));
        callback.fill(&mut out);
        assert_eq!((out[4 * 9], out[4 * 10]), (16_384, 0), "silence after the last sample");
        let counted =
            [&counts.callbacks, &counts.underruns].map(|count| count.load(Ordering::Relaxed));
        assert_eq!((counted, counts.max_samples.load(Ordering::Relaxed)), ([2, 1], 470));
    }

    #[test]
    fn a_full_ring_drops_blocks_and_demands_none() {
        let (writer, _consumer) = RingWriter::new(AUDIO_RATE);
        let (_sender, events) = sync_channel(1);
        let thread = DeviceThread { worker: None, events };
        let mut output = DeviceOutput::new(None);
        output.state = State::Running { thread, writer };
        let mut demanded = 0;
        while output.demand() == BlockDemand::Now {
            output.play(&[0.5; BLOCK_SAMPLES]);
            demanded += 1;
        }
        assert_eq!(demanded, 2, "one callback and the margin");
        (0..200).for_each(|_| output.play(&[0.5; BLOCK_SAMPLES]));
        assert!(matches!(output.demand(), BlockDemand::Wait(_)));
        output.state = State::Closed { retry_at: now(), message: None };
        assert_eq!(output.demand(), BlockDemand::ByClock);
    }
}
