//! The microphone source, on top of cpal.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, Thread},
    time::Duration,
};

use cpal::{
    BufferSize, ErrorKind, FromSample, SampleFormat, SizedSample, Stream, StreamConfig,
    SupportedStreamConfigRange,
    traits::{DeviceTrait, StreamTrait},
};
use rtrb::{Consumer, Producer, RingBuffer};

use super::{
    sample_clock::SampleClock,
    source::{Next, POLL_INTERVAL, Source, SourceError},
};
#[cfg(target_os = "linux")]
use crate::devices::{PulseDevice, PulseStream};
use crate::{
    audio::{SampleQueue, StereoResampler},
    devices::{
        AudioDeviceError, AudioDirection, AudioStream, DeviceRef, audio_host, find_audio_device,
    },
    media::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, Stop, Worker, now},
    model::MediaTime,
};

/// Capacity of the ring between the callback and the capture thread, in milliseconds of audio. A
/// longer ring would only add delay.
const RING_CAPACITY_MS: usize = 200;

/// The requested number of callbacks per second of a stream of cpal: 20 ms each.
///
/// cpal makes the queue of a sound server as long as the requested period. At 10 ms PulseAudio lost
/// audio whenever two cores were busy, at 20 ms it hardly did.
const CALLBACKS_PER_SECOND: u32 = 50;

/// The samples of a callback of our own stream, whose queue is longer: 10 ms. A packet of 20 ms is
/// then complete with its last block. With callbacks of 20 ms, its first block waited for 10 ms if
/// the packet began in the middle of a callback.
#[cfg(target_os = "linux")]
const PULSE_CALLBACK: u32 = BLOCK_SAMPLES as u32;

/// How long the callback of a running microphone may stay away before the microphone is opened
/// again. Some audio systems report a lost device in no other way.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long opening may take: a sound server needs seconds to start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long the capture thread waits for the callback, which wakes it, when the ring is empty: longer
/// than the time between two callbacks, and short enough to notice a stop.
const CALLBACK_WAIT: Duration = Duration::from_millis(25);

/// Why a microphone cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum MicrophoneError {
    #[error(transparent)]
    Choice(#[from] AudioDeviceError),
    #[error("microphone {name:?} is in use by another program; close it there, or pick another")]
    Busy { name: String },
    #[error(
        "microphone {name:?} may not be used: permission denied; allow it in the system's \
         settings (on Linux: add yourself to the group \"audio\"), or pick another"
    )]
    PermissionDenied { name: String },
    #[error("microphone {name:?} is gone; it is used again when it is back")]
    Disconnected { name: String },
    #[error("microphone {name:?} sends no sound; plug it in again, or pick another")]
    Stalled { name: String },
    #[error("the sound system does not answer; restart it, or the machine")]
    NotResponding,
    #[error("microphone {name:?} failed: {reason}; pick another")]
    Failed { name: String, reason: String },
    #[error("no thread is left for the microphone: {reason}")]
    NoThread { reason: String },
}

/// A microphone that is opened and closed on its own thread.
///
/// With some audio systems either call may block forever, so the thread is never joined.
pub(super) struct Microphone {
    opened_stream: mpsc::Receiver<OpenedStream>,
    failure: mpsc::Receiver<MicrophoneError>,
    worker: Option<Worker>,
    reader: Option<BlockReader>,
    name: String,
    opening_since: MediaTime,
}

/// What the device's thread sends to the capture thread once the stream runs.
struct OpenedStream {
    name: String,
    rate: u32,
    /// Mid and side; without a second channel that is wanted, the side is 0.
    ring: Consumer<[f32; 2]>,
    counters: Arc<CallbackCounters>,
}

/// Counters of the real-time callback.
#[derive(Debug, Default)]
struct CallbackCounters {
    calls: AtomicU64,
    dropped_samples: AtomicU64,
}

impl Microphone {
    /// Starts to open the wanted microphone, or the default one, with one channel or with two. Of a
    /// device with fewer channels there is one. Does not block.
    pub(super) fn open(wanted: Option<&DeviceRef>, channels: u16) -> Result<Self, MicrophoneError> {
        // The thread sends at most one stream and one error.
        let (opened_sender, opened) = mpsc::sync_channel(1);
        let (failure_sender, end) = mpsc::sync_channel(1);
        let name = wanted.map_or("default", |wanted| wanted.name.as_str()).to_owned();
        let wanted = wanted.cloned();
        // A source is opened and read on the same thread.
        let reader = thread::current();
        let worker = Worker::spawn("microphone", move |stop| {
            let wanted = (wanted.as_ref(), channels);
            if let Err(error) = run_stream(wanted, &reader, &opened_sender, stop) {
                failure_sender.try_send(error).ok();
            }
        })
        .map_err(|error| MicrophoneError::NoThread { reason: error.to_string() })?;
        Ok(Self {
            opened_stream: opened,
            failure: end,
            worker: Some(worker),
            reader: None,
            name,
            opening_since: now(),
        })
    }
}

impl Source<AudioBlock> for Microphone {
    fn next(&mut self) -> Result<Next<AudioBlock>, SourceError> {
        let name = self.name.clone();
        match self.failure.try_recv() {
            Ok(error) => return Err(error.into()),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => {
                let reason = "its driver stopped".to_owned();
                return Err(MicrophoneError::Failed { name, reason }.into());
            }
        }
        let Some(reader) = &mut self.reader else {
            match self.opened_stream.recv_timeout(POLL_INTERVAL) {
                Ok(opened) => {
                    self.name.clone_from(&opened.name);
                    self.reader = Some(BlockReader::new(opened));
                }
                // A hung thread is not replaced by a second one that would hang too.
                Err(_) if now().since(self.opening_since) > OPEN_TIMEOUT => {
                    return Ok(Next::Stalled(MicrophoneError::NotResponding.into()));
                }
                Err(_) => {}
            }
            return Ok(Next::NotYet);
        };
        match reader.next_block() {
            Some(block) => Ok(Next::Ready(block)),
            None if reader.is_stalled() => Err(MicrophoneError::Stalled { name }.into()),
            None => {
                // The callback unparks this thread.
                thread::park_timeout(CALLBACK_WAIT);
                Ok(Next::NotYet)
            }
        }
    }
}

impl Drop for Microphone {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
    }
}

/// The reading end of the ring, on the capture thread. Turns samples of any rate into blocks with
/// a capture time.
struct BlockReader {
    ring: Consumer<[f32; 2]>,
    rate: u32,
    resampler: StereoResampler,
    input: Vec<f32>,
    side: Vec<f32>,
    ready: SampleQueue,
    clock: SampleClock,
    counters: Arc<CallbackCounters>,
    last_calls: u64,
    last_callback_at: MediaTime,
    last_dropped: u64,
}

impl BlockReader {
    fn new(opened: OpenedStream) -> Self {
        let OpenedStream { rate, ring, counters, .. } = opened;
        Self {
            ring,
            rate,
            resampler: StereoResampler::new(rate),
            input: vec![],
            side: vec![],
            ready: SampleQueue::default(),
            clock: SampleClock::default(),
            counters,
            last_calls: 0,
            last_callback_at: now(),
            last_dropped: 0,
        }
    }

    /// The next block, if all its samples have arrived.
    fn next_block(&mut self) -> Option<AudioBlock> {
        while self.ready.len() < BLOCK_SAMPLES {
            if !self.read_ring() {
                return None;
            }
        }
        let block = self.ready.take_block();
        let waiting = self.ready.len() as f64 / f64::from(AUDIO_RATE)
            + self.ring.slots() as f64 / f64::from(self.rate);
        let time = self.clock.block_time(now(), Duration::from_secs_f64(waiting));
        Some(AudioBlock::new(time, block))
    }

    /// Moves samples from the ring to `ready`, 10 ms at most. Returns whether there were any.
    fn read_ring(&mut self) -> bool {
        let count = self.ring.slots().min(self.rate as usize / 100);
        let Ok(chunk) = self.ring.read_chunk(count) else { return false };
        self.input.clear();
        self.side.clear();
        for [mid, side] in chunk {
            self.input.push(mid);
            self.side.push(side);
        }
        let has_side = self.side.iter().any(|sample| *sample != 0.0);
        let (mid, side) =
            self.resampler.push(&self.input, has_side.then_some(self.side.as_slice()));
        self.ready.extend(mid, side);
        count > 0
    }

    /// Whether the device has made no callback for [`CALLBACK_TIMEOUT`].
    fn is_stalled(&mut self) -> bool {
        let calls = self.counters.calls.load(Ordering::Relaxed);
        if calls != self.last_calls {
            (self.last_calls, self.last_callback_at) = (calls, now());
        }
        let lost = self.counters.dropped_samples.load(Ordering::Relaxed);
        if lost != self.last_dropped {
            tracing::debug!(
                samples = lost - self.last_dropped,
                "microphone samples dropped: ring full"
            );
            self.last_dropped = lost;
        }
        now().since(self.last_callback_at) > CALLBACK_TIMEOUT
    }
}

/// Opens the device, sends its stream to `opened`, and keeps it running until `stop` is set or it
/// fails.
fn run_stream(
    (wanted, channels): (Option<&DeviceRef>, u16),
    reader: &Thread,
    opened: &mpsc::SyncSender<OpenedStream>,
    stop: &Stop,
) -> Result<(), MicrophoneError> {
    let host = audio_host();
    let device = find_audio_device(&host, AudioDirection::Input, wanted)?;
    let name = device.description().map_or_else(|_| "default".into(), |it| it.name().to_owned());
    // Errors come from the device's own threads; the first one ends the stream.
    let (error_sender, errors) = mpsc::sync_channel(1);
    let needs = Needs { channels, errors: &error_sender, reader };
    let opened_stream = open_stream((&host, &device), &name, needs);
    let (stream, mut reader_side) = opened_stream.map_err(|error| {
        // ALSA lists a default device even on a machine without one.
        let is_absent = wanted.is_none() && matches!(error, MicrophoneError::Disconnected { .. });
        let none = || MicrophoneError::Choice(AudioDeviceError::None { noun: "microphone" });
        if is_absent { none() } else { error }
    })?;
    reader_side.name.clone_from(&name);
    tracing::info!(rate = reader_side.rate, "microphone opened");
    opened.try_send(reader_side).ok();
    while !stop.is_set() {
        if let Ok(error) = errors.recv_timeout(POLL_INTERVAL) {
            return Err(device_error(&name, &error));
        }
    }
    drop(stream);
    Ok(())
}

/// What a stream needs beside its device.
#[derive(Clone, Copy)]
struct Needs<'a> {
    /// The wanted channels: one or two.
    channels: u16,
    /// Where its errors go.
    errors: &'a mpsc::SyncSender<cpal::Error>,
    /// The thread that each of its callbacks wakes.
    reader: &'a Thread,
}

/// Starts a stream of the sound server or of cpal.
fn open_stream(
    (host, device): (&cpal::Host, &cpal::Device),
    name: &str,
    needs: Needs<'_>,
) -> Result<(AudioStream, OpenedStream), MicrophoneError> {
    #[cfg(target_os = "linux")]
    if let Some(device) = PulseDevice::of(host, device, needs.channels as u8, PULSE_CALLBACK) {
        return start_pulse_stream(&device, needs).map_err(|error| device_error(name, &error));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = host;
    let (stream, opened) = build_stream(device, name, needs)?;
    stream.play().map_err(|error| device_error(name, &error))?;
    Ok((AudioStream::System(stream), opened))
}

#[cfg(target_os = "linux")]
fn start_pulse_stream(
    device: &PulseDevice,
    needs: Needs<'_>,
) -> Result<(AudioStream, OpenedStream), cpal::Error> {
    let (mut take, opened) = ring(device.rate, device.channels.into(), needs);
    let errors = needs.errors.clone();
    let on_end = Box::new(move |error| {
        errors.try_send(error).ok();
    });
    let stream = PulseStream::record(device, move |samples| take(samples), on_end)?;
    Ok((AudioStream::Pulse(stream), opened))
}

/// Builds the stream with callbacks of 20 ms, or of the device's own size if it refuses that.
fn build_stream(
    device: &cpal::Device,
    name: &str,
    needs: Needs<'_>,
) -> Result<(Stream, OpenedStream), MicrophoneError> {
    let failed = |error: cpal::Error| device_error(name, &error);
    let ranges: Vec<_> = device.supported_input_configs().map_err(failed)?.collect();
    let (format, mut config) = match best_config(&ranges, needs.channels) {
        Some(best) => best,
        None => {
            let default = device.default_input_config().map_err(failed)?;
            (default.sample_format(), default.config())
        }
    };
    config.buffer_size = BufferSize::Fixed(config.sample_rate / CALLBACKS_PER_SECOND);
    match build_with_format(device, config, format, needs) {
        Ok(built) => Ok(built),
        Err(error) if matches!(error.kind(), ErrorKind::UnsupportedConfig) => {
            config.buffer_size = BufferSize::Default;
            build_with_format(device, config, format, needs).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The best configuration of a device.
///
/// The rate counts first: 48 kHz, else the nearest one. Then the format that keeps most bits of a
/// sample, then the number of channels that is nearest to the wanted one, so that the system mixes them
/// down.
fn best_config(
    ranges: &[SupportedStreamConfigRange],
    wanted: u16,
) -> Option<(SampleFormat, StreamConfig)> {
    let candidates = ranges.iter().filter(|range| range.channels() > 0).filter_map(|range| {
        let bits = kept_precision_bits(range.sample_format())?;
        let rate = AUDIO_RATE.clamp(range.min_sample_rate(), range.max_sample_rate());
        let distance = rate.abs_diff(AUDIO_RATE);
        let others = range.channels().abs_diff(wanted);
        Some(((distance, std::cmp::Reverse(bits), others), range, rate))
    });
    let (_, range, rate) = candidates.min_by_key(|(cost, ..)| *cost)?;
    let config = StreamConfig {
        channels: range.channels(),
        sample_rate: rate,
        buffer_size: BufferSize::Default,
    };
    Some((range.sample_format(), config))
}

/// The supported formats, and how many bits of a sample each keeps. 33 means no conversion at all.
const SUPPORTED_FORMATS: &[(SampleFormat, u8)] = &[
    (SampleFormat::F32, 33),
    (SampleFormat::I32, 32),
    (SampleFormat::F64, 31),
    (SampleFormat::I16, 16),
    (SampleFormat::U16, 15),
    (SampleFormat::U8, 8),
];

fn kept_precision_bits(format: SampleFormat) -> Option<u8> {
    SUPPORTED_FORMATS.iter().find(|(known, _)| *known == format).map(|(_, bits)| *bits)
}

fn build_with_format(
    device: &cpal::Device,
    config: StreamConfig,
    format: SampleFormat,
    needs: Needs<'_>,
) -> Result<(Stream, OpenedStream), cpal::Error> {
    let as_format = match format {
        SampleFormat::F64 => build_typed::<f64>,
        SampleFormat::I32 => build_typed::<i32>,
        SampleFormat::I16 => build_typed::<i16>,
        SampleFormat::U16 => build_typed::<u16>,
        SampleFormat::U8 => build_typed::<u8>,
        // The device refuses any other format.
        SampleFormat::F32 | _ => build_typed::<f32>,
    };
    as_format(device, config, needs)
}

fn build_typed<T>(
    device: &cpal::Device,
    config: StreamConfig,
    needs: Needs<'_>,
) -> Result<(Stream, OpenedStream), cpal::Error>
where
    T: SizedSample + 'static,
    f32: FromSample<T>,
{
    let (mut take, opened) = ring::<T>(config.sample_rate, config.channels.into(), needs);
    let errors = needs.errors.clone();
    let stream = device.build_input_stream(
        config,
        move |data: &[T], _: &cpal::InputCallbackInfo| take(data),
        move |error| {
            if !NON_FATAL_ERRORS.contains(&error.kind()) {
                errors.try_send(error).ok();
            }
        },
        Some(OPEN_TIMEOUT),
    )?;
    Ok((stream, opened))
}

/// A ring, and the callback that writes to it and wakes `reader`.
fn ring<T: Copy + 'static>(
    rate: u32,
    channels: usize,
    needs: Needs<'_>,
) -> (impl FnMut(&[T]) + Send + use<T>, OpenedStream)
where
    f32: FromSample<T>,
{
    let (mut writer, ring) = RingBuffer::new(rate as usize * RING_CAPACITY_MS / 1000);
    let has_side = channels == 2 && needs.channels == 2;
    let counters = Arc::new(CallbackCounters::default());
    let (counts, reader) = (Arc::clone(&counters), needs.reader.clone());
    let take = move |data: &[T]| {
        counts.calls.fetch_add(1, Ordering::Relaxed);
        let dropped = downmix_into_ring(data, (channels, has_side), &mut writer);
        counts.dropped_samples.fetch_add(dropped, Ordering::Relaxed);
        // One atomic operation, and a system call that never waits if the thread is parked.
        reader.unpark();
    };
    (take, OpenedStream { name: String::new(), rate, ring, counters })
}

/// Stream errors after which the stream goes on.
const NON_FATAL_ERRORS: &[ErrorKind] =
    &[ErrorKind::Xrun, ErrorKind::DeviceChanged, ErrorKind::RealtimeDenied];

/// Errors that mean that the device or the sound server is not there.
const DISCONNECT_ERRORS: &[ErrorKind] =
    &[ErrorKind::DeviceNotAvailable, ErrorKind::HostUnavailable, ErrorKind::StreamInvalidated];

/// Mixes frames down to mono into the ring, with the side of two channels beside it if `has_side`.
/// Returns how many samples were dropped because the ring is full. Runs in the device's real-time callback.
fn downmix_into_ring<T: Copy>(
    data: &[T],
    (channels, has_side): (usize, bool),
    ring: &mut Producer<[f32; 2]>,
) -> u64
where
    f32: FromSample<T>,
{
    let mut dropped = 0;
    for frame in data.chunks_exact(channels) {
        let sum: f32 = frame.iter().map(|sample| f32::from_sample_(*sample)).sum();
        let mean = sum / channels as f32;
        let left = frame.first().filter(|_| has_side).map(|left| f32::from_sample_(*left));
        if ring.push([mean, left.map_or(0.0, |left| left - mean)]).is_err() {
            dropped += 1;
        }
    }
    dropped
}

fn device_error(name: &str, error: &cpal::Error) -> MicrophoneError {
    let (name, kind) = (name.to_owned(), error.kind());
    if kind == ErrorKind::DeviceBusy {
        MicrophoneError::Busy { name }
    } else if kind == ErrorKind::PermissionDenied {
        MicrophoneError::PermissionDenied { name }
    } else if DISCONNECT_ERRORS.contains(&kind) {
        MicrophoneError::Disconnected { name }
    } else {
        MicrophoneError::Failed { name, reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use cpal::SupportedBufferSize;

    use super::*;

    fn range(
        channels: u16,
        low: u32,
        high: u32,
        format: SampleFormat,
    ) -> SupportedStreamConfigRange {
        SupportedStreamConfigRange::new(channels, low, high, SupportedBufferSize::Unknown, format)
    }

    #[test]
    fn rate_counts_before_format_and_format_before_channels() {
        let best = |ranges: &[SupportedStreamConfigRange]| {
            best_config(ranges, 1)
                .map(|(format, config)| (config.sample_rate, format, config.channels))
        };
        let (f32, i16) = (SampleFormat::F32, SampleFormat::I16);
        let ranges = [
            range(1, 44_100, 44_100, f32),
            range(2, 8000, 192_000, i16),
            range(4, 48_000, 48_000, f32),
            range(2, 48_000, 96_000, f32),
        ];
        assert_eq!(best(&ranges), Some((48_000, f32, 2)));
        assert_eq!(best(&ranges[..2]), Some((48_000, i16, 2)));
        assert_eq!(best(&ranges[..1]), Some((44_100, f32, 1)));
        assert_eq!(best_config(&ranges[1..2], 2).map(|best| best.1.channels), Some(2));
        assert_eq!(best(&[range(1, 8000, 16_000, i16)]), Some((16_000, i16, 1)));
        assert_eq!(best(&[range(1, 48_000, 48_000, SampleFormat::DsdU8)]), None);
    }

    #[test]
    fn the_callback_mixes_down_and_counts_samples_that_a_full_ring_drops() {
        let (mut writer, mut ring) = RingBuffer::new(4);
        let two = (2, false);
        assert_eq!(downmix_into_ring(&[0.2_f32, 0.4, -1.0, 1.0], two, &mut writer), 0);
        assert_eq!(downmix_into_ring(&[i16::MIN, i16::MIN, 0, 0, 0, 0, 0], two, &mut writer), 1);
        let mixed: Vec<_> = std::iter::from_fn(|| ring.pop().ok()).map(|[mid, _]| mid).collect();
        assert!(mixed.iter().zip([0.3, 0.0, -1.0, 0.0]).all(|(is, want)| (is - want).abs() < 1e-4));
        assert_eq!(mixed.len(), 4, "the newest sample is dropped, the oldest stays");
    }

    #[test]
    fn both_channels_are_kept_if_they_are_wanted_and_the_device_has_two() {
        let (mut writer, ring) = RingBuffer::new(960);
        let frames = [0.5_f32, 0.25].repeat(480);
        for has_side in [true, false] {
            downmix_into_ring(&frames, (2, has_side), &mut writer);
        }
        let (rate, counters) = (AUDIO_RATE, Arc::default());
        let mut reader =
            BlockReader::new(OpenedStream { name: String::new(), rate, ring, counters });
        let blocks = [(); 2].map(|()| reader.next_block().unwrap());
        assert!(blocks.iter().all(|block| block.samples == [0.375; BLOCK_SAMPLES]));
        assert_eq!(blocks.map(|block| block.side), [Some([0.125; BLOCK_SAMPLES]), None]);
    }

    #[test]
    fn a_device_with_another_rate_gives_one_block_per_10_ms_of_its_samples() {
        let (mut writer, ring) = RingBuffer::new(44_100);
        let (rate, counts) = (44_100, Arc::default());
        let mut reader =
            BlockReader::new(OpenedStream { name: String::new(), rate, ring, counters: counts });
        assert!(reader.next_block().is_none());
        let tone = |n: u32| (f64::from(n) * 440.0 / 44_100.0 * std::f64::consts::TAU).sin() as f32;
        (0..44_100).for_each(|n| writer.push([tone(n), 0.0]).unwrap());
        let blocks: Vec<_> = std::iter::from_fn(|| reader.next_block()).collect();
        assert_eq!(blocks.len(), 99, "the resampler's filter still holds the last samples");
        let samples: Vec<_> = blocks.iter().flat_map(|block| block.samples).collect();
        let rises = samples.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
        assert!((434..=436).contains(&rises), "{rises}");
    }
}
