//! Plays audio on a speaker device, which is opened, used and closed on its own thread.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, Thread},
    time::Duration,
};

use cpal::{
    BufferSize, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    traits::{DeviceTrait, StreamTrait},
};

use super::{
    cushion::Cushion,
    device_error::DeviceError,
    output::{BlockDemand, RETRY_INTERVAL},
    speaker_ring::{RingReader, RingWriter, speaker_ring},
};
#[cfg(target_os = "linux")]
use crate::devices::{PulseDevice, PulseStream};
use crate::{
    devices::{AudioDirection, AudioStream, DeviceRef, audio_host, find_audio_device},
    media::{AUDIO_RATE, BLOCK_SAMPLES, StereoBlock, Stop, Worker, now},
    model::{DeviceState, MediaTime},
};

/// A speaker device that is reopened after failures.
///
/// The device is owned by a thread of its own, because opening and closing it may hang. This type
/// holds the writing side of the ring buffer between the mixer thread and the audio callback.
pub(super) struct DeviceOutput {
    wanted: Option<DeviceRef>,
    state: State,
    /// The target fill of the ring beyond what one callback takes.
    cushion: Cushion,
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

enum DeviceEvent {
    Opened(RingWriter),
    Failed(String),
}

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
    pub(super) fn new(wanted: Option<DeviceRef>) -> Self {
        Self {
            wanted,
            state: State::Closed { retry_at: MediaTime::default(), message: None },
            cushion: Cushion::new(),
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
                    self.cushion.on_opened(now);
                    State::Running { thread, writer }
                }
                Some(DeviceEvent::Failed(message)) => {
                    State::Closed { retry_at: now + RETRY_INTERVAL, message: Some(message) }
                }
            },
            State::Running { thread, writer } => match thread.try_event() {
                None | Some(DeviceEvent::Opened(_)) => {
                    let underruns = writer.stats().underruns.load(Ordering::Relaxed);
                    self.cushion.adapt(underruns, now);
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
        if writer.needs_block(self.cushion.quarters()) {
            return BlockDemand::Now;
        }
        let callback = Duration::from_millis(10 * writer.callback_blocks() as u64);
        BlockDemand::Wait(STALL_TIMEOUT + 2 * callback)
    }

    /// Writes the block to the ring, unless the ring has what is wanted. Returns how much audio is
    /// before it in the ring, if it is written.
    pub(super) fn play(&mut self, block: &StereoBlock) -> Option<Duration> {
        let State::Running { writer, .. } = &mut self.state else { return None };
        writer.play(block, self.cushion.quarters())
    }

    fn open(&self, message: Option<String>, now: MediaTime) -> State {
        let (sender, events) = sync_channel(MAX_EVENTS);
        let wanted = self.wanted.clone();
        // The thread that polls this output is the one that plays on it.
        let mixer = thread::current();
        let worker = Worker::spawn("speaker-device", move |stop| {
            run_device((wanted, mixer), &sender, stop);
        });
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
fn run_device(
    (wanted, mixer): (Option<DeviceRef>, Thread),
    events: &SyncSender<DeviceEvent>,
    stop: &Stop,
) {
    let (report_error, errors) = sync_channel(MAX_EVENTS);
    let (stream, writer) = match open(wanted.as_ref(), &report_error, &mixer) {
        Ok(opened) => opened,
        Err(error) => return send_event(events, DeviceEvent::Failed(error.to_string())),
    };
    let counts = Arc::clone(writer.stats());
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
    mixer: &Thread,
) -> Result<(AudioStream, RingWriter), DeviceError> {
    let host = audio_host();
    let device = find_audio_device(&host, AudioDirection::Output, wanted)?;
    let (name, is_default) = (device.to_string(), wanted.is_none());
    let to_error = |source| DeviceError::from_open_error(name.clone(), is_default, source);
    #[cfg(target_os = "linux")]
    if let Some(device) = PulseDevice::of(&host, &device, PULSE_CHANNELS, CALLBACK_SAMPLES) {
        let started = start_pulse_stream(&device, report_error.clone(), mixer.clone());
        tracing::info!(name, is_open = started.is_ok(), "speaker of a sound server");
        return started.map_err(to_error);
    }
    let mut first_error = None;
    for config in open_configs(&device).map_err(to_error)? {
        match start_stream(&device, config, report_error.clone(), mixer.clone()) {
            Ok((stream, writer)) => {
                tracing::info!(name, ?config, "speaker opened");
                return Ok((AudioStream::System(stream), writer));
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

/// The channels that are played on a sound server, which places them as the speakers are.
#[cfg(target_os = "linux")]
const PULSE_CHANNELS: u8 = 2;

#[cfg(target_os = "linux")]
fn start_pulse_stream(
    device: &PulseDevice,
    report_error: SyncSender<cpal::Error>,
    mixer: Thread,
) -> Result<(AudioStream, RingWriter), cpal::Error> {
    let (writer, reader) = speaker_ring(device.rate, device.channels.into());
    let mut reader = reader.waking(mixer);
    let on_end = Box::new(move |error| {
        report_error.try_send(error).ok();
    });
    let stream = PulseStream::play(device, move |out| reader.fill(out), on_end)?;
    Ok((AudioStream::Pulse(stream), writer))
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
    RingReader,
    &cpal::Device,
    OpenConfig,
    SyncSender<cpal::Error>,
) -> Result<Stream, cpal::Error>;

/// The supported sample formats, best first.
const FORMATS: [Format; 6] = [
    Format { sample_format: SampleFormat::F32, build_stream: build_stream::<f32> },
    Format { sample_format: SampleFormat::I16, build_stream: build_stream::<i16> },
    Format { sample_format: SampleFormat::I32, build_stream: build_stream::<i32> },
    Format { sample_format: SampleFormat::U8, build_stream: build_stream::<u8> },
    Format { sample_format: SampleFormat::U16, build_stream: build_stream::<u16> },
    Format { sample_format: SampleFormat::F64, build_stream: build_stream::<f64> },
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
    mixer: Thread,
) -> Result<(Stream, RingWriter), cpal::Error> {
    let (writer, reader) = speaker_ring(config.rate, config.channels.into());
    let stream = (config.format.build_stream)(reader.waking(mixer), device, config, report_error)?;
    stream.play()?;
    Ok((stream, writer))
}

fn build_stream<T: SizedSample + FromSample<f32>>(
    mut reader: RingReader,
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
        move |out: &mut [T], _| reader.fill(out),
        move |error| {
            if is_fatal(error.kind()) {
                report_error.try_send(error).ok();
            }
        },
        Some(OPEN_TIMEOUT),
    )
}

/// How long the audio system may take to open a device.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether an error ends the stream. Other errors are only notifications.
fn is_fatal(kind: cpal::ErrorKind) -> bool {
    use cpal::ErrorKind::{DeviceChanged, RealtimeDenied, Xrun};
    !matches!(kind, DeviceChanged | RealtimeDenied | Xrun)
}

#[cfg(test)]
impl DeviceOutput {
    /// A device of 48 kHz with one channel that is running, and its callback.
    pub(super) fn running() -> (Self, RingReader) {
        let (writer, reader) = speaker_ring(AUDIO_RATE, 1);
        // Nobody sends events any more, which only `poll` would notice.
        let (_, events) = sync_channel(1);
        let mut output = Self::new(None);
        output.state = State::Running { thread: DeviceThread { worker: None, events }, writer };
        (output, reader)
    }

    /// Samples in the ring.
    pub(super) fn fill(&self) -> usize {
        match &self.state {
            State::Running { writer, .. } => writer.fill(),
            State::Closed { .. } | State::Opening { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_full_ring_demands_no_block() {
        let (mut output, _reader) = DeviceOutput::running();
        let mut demanded = 0;
        while output.demand() == BlockDemand::Now {
            output.play(&StereoBlock::mono([0.5; BLOCK_SAMPLES]));
            demanded += 1;
        }
        assert_eq!(demanded, 2, "one callback and the margin");
        assert!((0..200).all(|_| output.play(&StereoBlock::mono([0.5; BLOCK_SAMPLES])).is_none()));
        assert!(matches!(output.demand(), BlockDemand::Wait(_)));
        output.state = State::Closed { retry_at: now(), message: None };
        assert_eq!(output.demand(), BlockDemand::ByClock);
    }
}
