//! The thread that encodes one layer for all its subscribers.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    EncodeError, FrameThinner, H264Encoder, KeyframePacer, TemporalLayers,
    half_scaler::{HalfScaler, scaled},
};
use crate::{
    media::{self, EncodedVideo, Fanout, Slot, Stop, TeeGuard, VideoFrame, Worker, now},
    model::{Bitrate, Layer, Media, MediaSourceStats, MediaTime, Size, usual_bitrate},
    supervision::Panicked,
};

/// The longest wait for a frame before the thread checks whether it must stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The encoding parameters of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoSettings {
    /// The layer.
    pub layer: Layer,
    /// The expected frames per second of the source.
    pub fps: u32,
    /// The target bitrate; `None` for the [`usual_bitrate`] of the actual size and frame rate.
    pub target: Option<Bitrate>,
}

/// Encodes one layer on its own thread, until dropped.
///
/// Frames come from a slot, so a slow encoder skips to the newest. Without subscribers nothing is
/// encoded and no encoder is kept; the first frame after that is an IDR.
/// [`KeyframePacer`] limits the requested keyframes. Size and frame rate are those of the layer:
/// frames are scaled by the first encoder that needs them, once for all.
#[derive(Debug)]
pub struct VideoEncoder {
    /// Bits per second; 0 for [`usual_bitrate`].
    target: Arc<AtomicU64>,
    has_second_layer: Arc<AtomicBool>,
    counters: Arc<EncoderCounters>,
    /// Counts the frames that the encoder was too slow for.
    frames: Arc<Slot<VideoFrame>>,
    _worker: Worker,
}

impl VideoEncoder {
    /// Starts to encode `frames` for the subscribers of `out`.
    ///
    /// `notify` is called on the encoder's thread with the error when a frame cannot be encoded, and
    /// with `Ok` when frames are encoded again. Of consecutive failures only the first is reported.
    /// The next frame is encoded with a new encoder; after a panic, that of two seconds later.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start(
        settings: VideoSettings,
        frames: TeeGuard<VideoFrame>,
        out: Fanout<EncodedVideo>,
        notify: impl Fn(Result<(), &EncodeError>) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let target = Arc::new(AtomicU64::new(settings.target.map_or(0, Bitrate::as_bps)));
        let counters = Arc::<EncoderCounters>::default();
        let slot = Arc::clone(&frames.slot);
        let has_second_layer = Arc::<AtomicBool>::default();
        let (wanted, shared) = (Arc::clone(&target), Arc::clone(&counters));
        let second = Arc::clone(&has_second_layer);
        let health = Arc::new(HealthReporter { has_failed: AtomicBool::new(false), notify });
        let after_panic = Arc::clone(&health);
        let work = move |stop: &Stop| {
            let mut layer = LayerEncoder::new(settings, out.clone(), Arc::clone(&shared));
            while let Some(frame) = next_frame(&frames, stop) {
                let bps = wanted.load(Ordering::Relaxed);
                layer.target = (bps > 0).then(|| Bitrate::from_bps(bps));
                layer.has_second_layer = second.load(Ordering::Relaxed);
                let encoded = layer.encode(&frame, now());
                health.report(encoded.as_ref().map(drop));
                if encoded.is_err() {
                    layer.encoder = None;
                }
            }
        };
        let on_panic = move |panicked: &Panicked| {
            after_panic.report(Err(&EncodeError::Panicked(panicked.clone())));
        };
        let worker = Worker::spawn_supervised("video encoder", work, on_panic)?;
        Ok(Self { target, has_second_layer, counters, frames: slot, _worker: worker })
    }

    /// Sets the target bitrate from the next frame on.
    pub fn set_target(&self, target: Bitrate) {
        self.target.store(target.as_bps(), Ordering::Relaxed);
    }

    /// Sets whether the layer has a second temporal layer from the next frame on.
    pub fn set_second_layer(&self, is_wanted: bool) {
        self.has_second_layer.store(is_wanted, Ordering::Relaxed);
    }

    /// The size of the newest frame of the source, before it was scaled, and its frames per second;
    /// `None` before the first frame.
    pub fn source(&self) -> Option<(Size, u32)> {
        let [size, fps] = [&self.counters.source_size, &self.counters.source_fps]
            .map(|value| value.load(Ordering::Relaxed));
        (size > 0).then(|| (Size::new((size >> 32) as u32, size as u32), fps as u32))
    }

    /// What it has done since the start.
    pub fn progress(&self) -> EncoderProgress {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EncoderProgress {
            encoded: read(&self.counters.frames),
            missed: self.frames.overwritten(),
            busy: Duration::from_micros(read(&self.counters.encode_time_us)),
        }
    }

    /// The statistics since the start. The caller sets the id of the source.
    pub fn stats(&self) -> MediaSourceStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let EncoderCounters { frames, keyframes, encode_time_us, width, height, target, .. } =
            &*self.counters;
        let known = |value: u64| Some(value).filter(|value| *value > 0);
        MediaSourceStats {
            width: known(read(width)).map(|width| width as u32),
            height: known(read(height)).map(|height| height as u32),
            frames_encoded: Some(read(frames)),
            key_frames_encoded: Some(read(keyframes)),
            frames_skipped: Some(self.frames.overwritten()),
            total_encode_time: Some(read(encode_time_us) as f64 / 1e6),
            target_bitrate: known(read(target)),
            encoder_implementation: Some(H264Encoder::NAME),
            ..MediaSourceStats::new("", Media::Video)
        }
    }
}

/// What an encoder has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EncoderProgress {
    /// Frames that were encoded.
    pub encoded: u64,
    /// Frames that a newer one replaced before the encoder took them: it was too slow for them.
    pub missed: u64,
    /// The time that encoding took.
    pub busy: Duration,
}

/// What the encoder's thread counts.
#[derive(Debug, Default)]
struct EncoderCounters {
    /// Frames that were encoded and published.
    frames: AtomicU64,
    /// Keyframes among them.
    keyframes: AtomicU64,
    encode_time_us: AtomicU64,
    /// Of the newest frame, in pixels; 0 before the first.
    width: AtomicU64,
    height: AtomicU64,
    /// Bits per second; 0 before the first frame.
    target: AtomicU64,
    /// The width of the source's frames in the upper 32 bits, the height in the lower; 0 before the
    /// first frame.
    source_size: AtomicU64,
    /// Its frames per second.
    source_fps: AtomicU64,
}

impl EncoderCounters {
    /// Notes what the source gives.
    fn note_source(&self, size: Size, fps: u32) {
        self.source_fps.store(fps.into(), Ordering::Relaxed);
        let both = u64::from(size.width) << 32 | u64::from(size.height);
        self.source_size.store(both, Ordering::Relaxed);
    }

    /// Counts a frame of this size that was encoded for this target.
    fn record(&self, is_key: bool, size: Size, target: Bitrate) {
        self.keyframes.fetch_add(u64::from(is_key), Ordering::Relaxed);
        self.width.store(size.width.into(), Ordering::Relaxed);
        self.height.store(size.height.into(), Ordering::Relaxed);
        self.target.store(target.as_bps(), Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reports changes between failing and working.
struct HealthReporter<F> {
    has_failed: AtomicBool,
    notify: F,
}

impl<F: Fn(Result<(), &EncodeError>)> HealthReporter<F> {
    fn report(&self, result: Result<(), &EncodeError>) {
        if self.has_failed.swap(result.is_err(), Ordering::Relaxed) != result.is_err() {
            (self.notify)(result);
        }
    }
}

/// Waits for the newest frame; `None` if the thread must stop.
fn next_frame(frames: &TeeGuard<VideoFrame>, stop: &Stop) -> Option<VideoFrame> {
    while !stop.is_set() {
        if let Some(frame) = frames.slot.wait(POLL_INTERVAL) {
            return Some(frame);
        }
    }
    None
}

/// The encoder of one layer and its state. Has no thread of its own.
struct LayerEncoder {
    settings: VideoSettings,
    target: Option<Bitrate>,
    has_second_layer: bool,
    out: Fanout<EncodedVideo>,
    encoder: Option<H264Encoder>,
    pacer: KeyframePacer,
    thinner: FrameThinner,
    scalers: [HalfScaler; 2],
    frame_rate: FrameRateMeter,
    counters: Arc<EncoderCounters>,
}

impl LayerEncoder {
    fn new(
        settings: VideoSettings,
        out: Fanout<EncodedVideo>,
        counters: Arc<EncoderCounters>,
    ) -> Self {
        Self {
            settings,
            target: settings.target,
            has_second_layer: false,
            out,
            encoder: None,
            pacer: KeyframePacer::default(),
            thinner: FrameThinner::new(settings.layer, settings.fps),
            scalers: Default::default(),
            frame_rate: FrameRateMeter::new(settings.layer.fps(settings.fps)),
            counters,
        }
    }

    /// Scales, encodes and publishes the frame if there is a subscriber, unless the layer has fewer
    /// frames than the source. Returns whether it was published.
    fn encode(&mut self, frame: &VideoFrame, now: MediaTime) -> Result<bool, EncodeError> {
        if self.out.subscribers() == 0 {
            self.encoder = None;
            return Ok(false);
        }
        if let Some(target) = self.target
            && self.thinner.follow(frame.size, target)
        {
            self.frame_rate = FrameRateMeter::new(self.thinner.fps());
            if let Some(encoder) = &mut self.encoder {
                encoder.set_fps(self.thinner.fps() as f32)?;
            }
        }
        if !self.thinner.takes(frame.time) {
            return Ok(false);
        }
        // A thinned layer does not see all frames of its source.
        let fps = if self.thinner.leaves_out() {
            self.settings.fps
        } else {
            self.frame_rate.rounded_fps()
        };
        self.counters.note_source(frame.size, fps);
        let frame = scaled(frame, self.settings.layer.size(frame.size), &mut self.scalers);
        self.encode_scaled(&frame, now)
    }

    fn encode_scaled(&mut self, frame: &VideoFrame, now: MediaTime) -> Result<bool, EncodeError> {
        if self.out.take_keyframe_request() {
            self.pacer.request();
        }
        let measured = self.frame_rate.record(frame.time);
        let default = usual_bitrate(frame.size, self.frame_rate.rounded_fps());
        let target = self.target.unwrap_or(default);
        let (encoder, is_new) = match self.encoder.take().filter(|old| old.size() == frame.size) {
            Some(encoder) => (self.encoder.insert(encoder), false),
            None => {
                let fps = self.frame_rate.rounded_fps();
                (self.encoder.insert(H264Encoder::new(frame.size, fps, target)?), true)
            }
        };
        if !is_new {
            if encoder.target() != target {
                encoder.set_target(target)?;
            }
            if let Some(fps) = measured {
                encoder.set_fps(fps)?;
            }
            let has_second = self.has_second_layer;
            encoder.set_temporal_layers(if has_second {
                TemporalLayers::Two
            } else {
                TemporalLayers::One
            })?;
        }
        let begin = media::now();
        let encoded = encoder.encode(frame, self.pacer.is_due(now))?;
        let elapsed = media::now().since(begin).as_micros() as u64;
        self.counters.encode_time_us.fetch_add(elapsed, Ordering::Relaxed);
        let Some(encoded) = encoded else { return Ok(false) };
        if encoded.is_key {
            self.pacer.on_keyframe(now);
        }
        let layer = self.settings.layer;
        let (size, time) = (frame.size, frame.time);
        let video = EncodedVideo::new(layer, time, size, encoded.is_key, encoded.data);
        self.out.publish(video.discardable(encoded.is_discardable));
        self.counters.record(encoded.is_key, size, target);
        Ok(true)
    }
}

/// Measures the real frame rate. A camera in the dark delivers half of its nominal rate, and rate
/// control would then use only half of the bitrate.
struct FrameRateMeter {
    fps: f32,
    since: Option<MediaTime>,
    frames: u32,
}

impl FrameRateMeter {
    /// The measuring interval: long enough to ignore a short interruption.
    const SPAN: Duration = Duration::from_secs(2);

    fn new(fps: u32) -> Self {
        Self { fps: fps as f32, since: None, frames: 0 }
    }

    /// The frame rate, rounded, at least 1.
    fn rounded_fps(&self) -> u32 {
        self.fps.round().max(1.0) as u32
    }

    /// Records a frame. Returns the new rate if it differs from the current one by more than a
    /// fifth.
    fn record(&mut self, time: MediaTime) -> Option<f32> {
        let since = *self.since.get_or_insert(time);
        let span = time.since(since);
        self.frames += 1;
        if span < Self::SPAN {
            return None;
        }
        let fps = (self.frames - 1) as f32 / span.as_secs_f32();
        (self.since, self.frames) = (Some(time), 1);
        // A longer span is a pause, not a slow camera.
        let has_changed = span < 2 * Self::SPAN && (fps / self.fps - 1.0).abs() > 0.2;
        if has_changed {
            self.fps = fps.max(1.0);
        }
        has_changed.then_some(self.fps)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::{
        encode::h264::tests::{SMALL, nal_types, test_frame},
        media::{Subscription, Tee},
    };

    const SETTINGS: VideoSettings =
        VideoSettings { layer: Layer::Full, fps: 30, target: Some(Bitrate::from_kbps(600)) };

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    fn keys(subscription: &mut Subscription<EncodedVideo>) -> Vec<bool> {
        std::iter::from_fn(|| subscription.try_recv()).map(|frame| frame.is_key).collect()
    }

    #[test]
    fn nothing_is_encoded_without_subscribers_and_the_first_frame_of_one_is_an_idr() {
        let out = Fanout::default();
        let mut layer = LayerEncoder::new(SETTINGS, out.clone(), Arc::default());
        for n in 0..5 {
            assert!(!layer.encode(&test_frame(n, SMALL, 30), at(n.into())).unwrap());
        }
        assert!(layer.encoder.is_none());
        for round in 0..2 {
            let mut subscription = out.subscribe(8);
            for n in 0..6 {
                let n = 10 * (round + 1) + n;
                layer.encode(&test_frame(n, SMALL, 30), at(u64::from(n) * 33)).unwrap();
            }
            let keys = keys(&mut subscription);
            assert!(keys.len() > 3 && keys[0], "{keys:?}");
            assert!(keys[1..].iter().all(|is_key| !is_key), "{keys:?}");
            drop(subscription);
            layer.encode(&test_frame(30, SMALL, 30), at(990)).unwrap();
            assert!(layer.encoder.is_none(), "no encoder is kept");
        }
    }

    #[test]
    fn requested_keyframes_are_encoded_at_most_twice_a_second() {
        let out = Fanout::default();
        let mut subscription = out.subscribe(200);
        let mut layer = LayerEncoder::new(SETTINGS, out.clone(), Arc::default());
        for n in 0..90_u32 {
            if n >= 30 {
                subscription.request_keyframe();
            }
            layer.encode(&test_frame(n, SMALL, 30), at(u64::from(n) * 1000 / 30)).unwrap();
        }
        let frames: Vec<_> = std::iter::from_fn(|| subscription.try_recv()).collect();
        let times: Vec<_> = frames
            .iter()
            .filter(|frame| frame.is_key)
            .map(|frame| frame.time.as_micros() / 1000)
            .collect();
        assert_eq!(times, [0, 1000, 1500, 2000, 2500]);
        let mut keys = frames.iter().filter(|frame| frame.is_key);
        assert!(keys.all(|frame| nal_types(&frame.data) == [7, 8, 5]));
    }

    #[test]
    fn a_new_size_begins_with_an_idr_of_that_size() {
        let out = Fanout::default();
        let mut subscription = out.subscribe(8);
        let mut layer = LayerEncoder::new(SETTINGS, out, Arc::default());
        let sizes = [SMALL, SMALL, Size::new(160, 90), Size::new(160, 90)];
        for (n, size) in (0..).zip(sizes) {
            layer.encode(&test_frame(n, size, 30), at(u64::from(n) * 33)).unwrap();
        }
        let made = std::iter::from_fn(|| subscription.try_recv());
        let made: Vec<_> = made.map(|frame| (frame.size, frame.is_key)).collect();
        let small = Size::new(160, 90);
        assert_eq!(made, [(SMALL, true), (SMALL, false), (small, true), (small, false)]);
    }

    #[test]
    fn each_layer_has_its_size_and_its_frame_rate() {
        let (source, mut frames) = (Size::new(640, 360), vec![]);
        for layer in Layer::ALL {
            let out = Fanout::default();
            let mut subscription = out.subscribe(40);
            let target = Some(Bitrate::from_kbps(4000));
            let settings = VideoSettings { layer, target, ..SETTINGS };
            let mut encoder = LayerEncoder::new(settings, out, Arc::default());
            for n in 0..30 {
                let mut frame = test_frame(n, source, 30);
                // A camera is up to 6 ms early or late.
                let jitter = Duration::from_millis([0, 6, 2][n as usize % 3]);
                frame.time = frame.time + jitter;
                encoder.encode(&frame, frame.time).unwrap();
            }
            let made: Vec<_> = std::iter::from_fn(|| subscription.try_recv()).collect();
            assert!(made.iter().all(|one| (one.layer, one.size) == (layer, layer.size(source))));
            frames.push((made[0].size.width, made.len()));
        }
        assert_eq!(frames, [(160, 15), (320, 30), (640, 30)]);
    }

    #[test]
    fn a_failure_is_reported_once_and_the_next_frame_is_encoded() {
        let (tee, out) = (Tee::default(), Fanout::default());
        let mut subscription = out.subscribe(8);
        let (report, reports) = mpsc::channel();
        let encoder = VideoEncoder::start(SETTINGS, tee.attach(), out, move |health| {
            report.send(health.map_err(ToString::to_string)).unwrap();
        })
        .unwrap();
        tee.put(&test_frame(0, Size::new(4096, 2304), 30));
        let error = reports.recv().unwrap().unwrap_err();
        assert!(error.contains("the video encoder failed"), "{error}");
        tee.put(&test_frame(1, SMALL, 30));
        assert_eq!(reports.recv(), Ok(Ok(())), "frames are encoded again");
        while encoder.stats().frames_encoded == Some(0) {
            thread::yield_now();
        }
        assert_eq!(keys(&mut subscription), [true]);
        let stats = encoder.stats();
        assert_eq!((stats.frames_encoded, stats.key_frames_encoded), (Some(1), Some(1)));
        assert_eq!((stats.width, stats.height), (Some(SMALL.width), Some(SMALL.height)));
        assert_eq!(stats.target_bitrate, Some(600_000));
        assert!(stats.total_encode_time > Some(0.0), "{stats:?}");
        drop(encoder);
        tee.put(&test_frame(2, SMALL, 30));
        assert!(reports.try_recv().is_err() && subscription.try_recv().is_none());
    }

    #[test]
    fn after_a_panic_the_encoder_is_reported_and_starts_again() {
        let (tee, out) = (Tee::default(), Fanout::default());
        let mut subscription = out.subscribe(8);
        let (report, reports) = mpsc::channel();
        let notify = move |health: Result<(), &EncodeError>| {
            report.send(health.map_err(ToString::to_string)).unwrap();
        };
        let _encoder = VideoEncoder::start(SETTINGS, tee.attach(), out, notify).unwrap();
        // The buffer of a frame of another size: its planes are too short.
        let mut short = test_frame(0, SMALL, 30);
        short.size = Size::new(640, 360);
        tee.put(&short);
        let error = reports.recv().unwrap().unwrap_err();
        assert_eq!(error, "the video encoder stopped unexpectedly; it is started again");
        assert_eq!(keys(&mut subscription), [false; 0]);
        while reports.try_recv().is_err() {
            tee.put(&test_frame(1, SMALL, 30));
            thread::yield_now();
        }
        assert_eq!(keys(&mut subscription)[..1], [true]);
    }

    #[test]
    fn a_slow_camera_is_detected_and_a_pause_is_not_taken_for_one() {
        let mut meter = FrameRateMeter::new(30);
        let rates = |meter: &mut FrameRateMeter, times: &mut dyn Iterator<Item = u64>| {
            times.filter_map(|ms| meter.record(at(ms))).collect::<Vec<_>>()
        };
        assert_eq!(rates(&mut meter, &mut (0..150).map(|n| n * 33)), [0.0; 0]);
        let slow = rates(&mut meter, &mut (0..100).map(|n| 5000 + n * 100));
        assert!(slow.iter().all(|fps| (9.0..25.0).contains(fps)), "{slow:?}");
        assert!((slow.last().unwrap() - 10.0).abs() < 0.6, "{slow:?}");
        assert_eq!(rates(&mut meter, &mut [60_000].into_iter()), [0.0; 0]);
    }
}
