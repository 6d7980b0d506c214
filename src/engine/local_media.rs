//! Local media: each source is captured once, and each of its layers encoded once, on demand.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio::sync::mpsc;

use super::{EngineOptions, device_slot::DeviceSlot, event_loop::EngineEvent};
use crate::{
    audio::linear_level,
    capture::{AudioCapture, SourceSpec, VideoCapture},
    conference::Input,
    encode::{AudioEncoder, EncodeError, VideoEncoder, VideoSettings},
    files::SourceClaim,
    media::{
        AudioBlock, EncodedAudio, EncodedVideo, Fanout, MAX_LAG, Meter, Slot, Tee, TrackRef,
        TrackSinks, VideoFrame,
    },
    model::{
        Bitrate, Counts, DeviceKind, DeviceState, Layer, Media, MediaSourceStats, PerSource,
        RtcStats, Source,
    },
    transport::SourceMedia,
};

/// Opus packets by which a peer connection may lag: half a second, which a jitter buffer no longer
/// hides.
const MAX_AUDIO_LAG: usize = 25;

/// The sources, their captures and their encoders.
pub(super) struct LocalMedia {
    camera_spec: SourceSpec,
    video_bitrate: Option<Bitrate>,
    microphone_spec: SourceSpec,
    /// Claims on the files that are sent, open or not: no recording may overwrite them.
    camera_claim: Option<SourceClaim>,
    microphone_claim: Option<SourceClaim>,
    display_name: String,
    events: mpsc::Sender<EngineEvent>,
    /// The sources that the core needs now.
    demand: PerSource<bool>,
    camera: DeviceSlot<VideoCapture>,
    microphone: DeviceSlot<AudioCapture>,
    /// The audio encoder, while no microphone uses it.
    idle_audio_encoder: Arc<Slot<AudioEncoder>>,
    frames: Tee<VideoFrame>,
    meter: Meter,
    /// The encoded video, by source and layer.
    video: BTreeMap<(Source, Layer), VideoOutput>,
    audio: Fanout<EncodedAudio>,
    counters: Arc<StartCounters>,
}

/// One layer of a source of video.
#[derive(Default)]
struct VideoOutput {
    frames: Fanout<EncodedVideo>,
    /// The peer connections that send it.
    users: usize,
    encoder: Option<VideoEncoder>,
}

/// Counts how often sources were opened and encoders started.
#[derive(Debug, Default)]
struct StartCounters {
    cameras: AtomicU32,
    microphones: AtomicU32,
    video_encoders: AtomicU32,
    audio_encoders: AtomicU32,
}

impl LocalMedia {
    /// Returns a state in which no source is open. Our own video and level are registered in
    /// `track_sinks`.
    pub(super) fn new(
        options: &EngineOptions,
        track_sinks: &TrackSinks,
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        let (frames, _) = track_sinks.register(TrackRef::CAMERA);
        let (_, meter) = track_sinks.register(TrackRef::MICROPHONE);
        Self {
            camera_spec: options.camera.clone(),
            video_bitrate: options.video_bitrate,
            microphone_spec: options.microphone.clone(),
            camera_claim: claim_file(&options.camera, "camera"),
            microphone_claim: claim_file(&options.microphone, "microphone"),
            display_name: options.name.clone(),
            events,
            demand: PerSource::NONE,
            camera: DeviceSlot::new("camera slot"),
            microphone: DeviceSlot::new("microphone slot"),
            idle_audio_encoder: Arc::default(),
            frames,
            meter,
            video: BTreeMap::new(),
            audio: Fanout::default(),
            counters: Arc::default(),
        }
    }

    /// Opens the sources that are needed and closes the others.
    pub(super) fn set_demand(&mut self, needed: PerSource<bool>) {
        self.demand = needed;
        self.update_camera();
        self.update_microphone();
    }

    /// Captures video from another source from now on.
    pub(super) fn set_camera(&mut self, camera: SourceSpec) {
        if camera != self.camera_spec {
            self.camera_claim = claim_file(&camera, "camera");
            self.camera_spec = camera;
            self.camera.close(|| ());
            self.update_camera();
        }
    }

    /// Captures audio from another source from now on.
    pub(super) fn set_microphone(&mut self, microphone: SourceSpec) {
        if microphone != self.microphone_spec {
            self.microphone_claim = claim_file(&microphone, "microphone");
            self.microphone_spec = microphone;
            self.microphone.close(|| ());
            self.update_microphone();
        }
    }

    /// Returns which sources exist.
    pub(super) fn available_sources(&self) -> PerSource<bool> {
        PerSource { camera: &self.camera_spec, microphone: &self.microphone_spec }
            .map(|spec| *spec != SourceSpec::None)
    }

    /// Returns a subscription to a layer of a source, which is encoded from now on, until as many
    /// calls of [`Self::unsubscribe`]. Audio has one layer.
    pub(super) fn subscribe(&mut self, source: Source, layer: Layer) -> SourceMedia {
        match source {
            Source::Camera => {
                let output = self.video.entry((source, layer)).or_default();
                output.users += 1;
                let frames = output.frames.subscribe(MAX_LAG);
                self.update_encoders();
                SourceMedia::Video(frames)
            }
            Source::Microphone => SourceMedia::Audio(self.audio.subscribe(MAX_AUDIO_LAG)),
        }
    }

    /// A subscription to a layer has ended, or will at once.
    pub(super) fn unsubscribe(&mut self, source: Source, layer: Layer) {
        if let Some(output) = self.video.get_mut(&(source, layer)) {
            output.users = output.users.saturating_sub(1);
            self.update_encoders();
        }
    }

    /// Returns how often sources were opened, and how often encoders were started.
    pub(super) fn counts(&self) -> (Counts, Counts) {
        let read = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let StartCounters { cameras, microphones, video_encoders, audio_encoders } =
            &*self.counters;
        let captures = Counts { video: read(cameras), audio: read(microphones) };
        (captures, Counts { video: read(video_encoders), audio: read(audio_encoders) })
    }

    /// Returns the statistics of the camera, if it is being encoded, and of the microphone, if it is
    /// open.
    pub(super) fn rtc_stats(&self) -> Vec<RtcStats> {
        // The highest layer tells the most of the source.
        let encoder = self.video.values().rev().find_map(|output| output.encoder.as_ref());
        let camera = encoder.map(|encoder| MediaSourceStats {
            id: Source::Camera.name().to_owned(),
            ..encoder.stats()
        });
        let microphone = self.microphone.is_open().then(|| MediaSourceStats {
            audio_level: Some(linear_level(f64::from(self.meter.dbfs()))),
            ..MediaSourceStats::new(Source::Microphone.name(), Media::Audio)
        });
        camera.into_iter().chain(microphone).map(RtcStats::MediaSource).collect()
    }

    fn update_camera(&mut self) {
        self.update_encoders();
        if !self.needs_camera() {
            return self.camera.close(self.idle_report(DeviceKind::CAMERA));
        }
        let lacks_encoder =
            self.video.values().any(|output| output.users > 0 && output.encoder.is_none());
        if !self.camera.is_open() && !lacks_encoder {
            let notify = self.state_callback(DeviceKind::CAMERA, |counters| &counters.cameras);
            let (spec, frames) = (self.camera_spec.clone(), self.frames.clone());
            let name = self.display_name.clone();
            let open = move || Some(VideoCapture::start(&spec, &name, frames, notify));
            let opened = self.camera.open(open);
            self.report_unopened(DeviceKind::CAMERA, opened);
        }
    }

    fn needs_camera(&self) -> bool {
        self.demand.camera && self.camera_spec != SourceSpec::None
    }

    /// Starts the encoders of the layers that are sent, and ends the others. If none is sent any
    /// more, the last one is kept as long as the source, which may soon be sent again.
    fn update_encoders(&mut self) {
        let is_source_needed = self.needs_camera();
        let is_any_sent = self.video.values().any(|output| output.users > 0);
        let mut video = std::mem::take(&mut self.video);
        for ((_, layer), output) in &mut video {
            if !is_source_needed || (output.users == 0 && is_any_sent) {
                output.encoder = None;
            } else if output.users > 0 && output.encoder.is_none() {
                output.encoder = self.start_video_encoder(*layer, output.frames.clone());
            }
        }
        self.video = video;
    }

    fn start_video_encoder(&self, layer: Layer, out: Fanout<EncodedVideo>) -> Option<VideoEncoder> {
        let report = self.encoder_callback(DeviceKind::CAMERA);
        let settings = encoder_settings(&self.camera_spec, layer, self.video_bitrate);
        let started = VideoEncoder::start(settings, self.frames.attach(), out, report);
        let encoder = started
            .map_err(|error| {
                let message = format!("the video cannot be encoded: {error}");
                let state = DeviceState::Failed { message };
                report_device_state(&self.events, DeviceKind::CAMERA, state);
            })
            .ok()?;
        self.counters.video_encoders.fetch_add(1, Ordering::Relaxed);
        Some(encoder)
    }

    fn update_microphone(&mut self) {
        if !self.demand.microphone || self.microphone_spec == SourceSpec::None {
            return self.microphone.close(self.idle_report(DeviceKind::MICROPHONE));
        }
        if !self.microphone.is_open() {
            let take_encoder = self.audio_encoder_source();
            let notify =
                self.state_callback(DeviceKind::MICROPHONE, |counters| &counters.microphones);
            let spec = self.microphone_spec.clone();
            let opened = self.microphone.open(move || {
                let mut encoder = take_encoder()?;
                let sink = move |block: &AudioBlock| encoder.encode(block);
                Some(AudioCapture::start(&spec, Box::new(sink), notify))
            });
            self.report_unopened(DeviceKind::MICROPHONE, opened);
        }
    }

    /// Reports a device as failed if the thread that opens it could not be started.
    fn report_unopened(&self, kind: DeviceKind, opened: std::io::Result<()>) {
        if let Err(error) = opened {
            let message = format!("the {} has no thread: {error}; try again", kind.name());
            report_device_state(&self.events, kind, DeviceState::Failed { message });
        }
    }

    /// Returns a function that returns the encoder that the last microphone used, or creates the
    /// first one. To be called after the last microphone is closed.
    fn audio_encoder_source(&self) -> impl FnOnce() -> Option<BorrowedEncoder> + Send + use<> {
        let (meter, out) = (self.meter.clone(), self.audio.clone());
        let (events, counters) = (self.events.clone(), Arc::clone(&self.counters));
        let report = self.encoder_callback(DeviceKind::MICROPHONE);
        let return_to = Arc::clone(&self.idle_audio_encoder);
        move || {
            if let Some(encoder) = return_to.take() {
                return Some(BorrowedEncoder { encoder: Some(encoder), return_to });
            }
            match AudioEncoder::new(meter, out, Box::new(report)) {
                Ok(encoder) => {
                    counters.audio_encoders.fetch_add(1, Ordering::Relaxed);
                    Some(BorrowedEncoder { encoder: Some(encoder), return_to })
                }
                Err(error) => {
                    let message = format!("the audio cannot be encoded: {error}");
                    let state = DeviceState::Failed { message };
                    report_device_state(&events, DeviceKind::MICROPHONE, state);
                    None
                }
            }
        }
    }

    /// Returns a function that reports a device as closed.
    fn idle_report(&self, kind: DeviceKind) -> impl FnOnce() + Send + use<> {
        let events = self.events.clone();
        move || report_device_state(&events, kind, DeviceState::Idle)
    }

    /// Returns a callback that counts the openings of a source and passes its states on to the
    /// core.
    fn state_callback(
        &self,
        kind: DeviceKind,
        counter: fn(&StartCounters) -> &AtomicU32,
    ) -> Arc<dyn Fn(DeviceState) + Send + Sync> {
        let (events, counters) = (self.events.clone(), Arc::clone(&self.counters));
        Arc::new(move |state| {
            if state == DeviceState::Running {
                counter(&counters).fetch_add(1, Ordering::Relaxed);
            }
            report_device_state(&events, kind, state);
        })
    }

    /// Returns a callback that passes the health of an encoder on to the core, as the state of its
    /// source.
    fn encoder_callback(
        &self,
        kind: DeviceKind,
    ) -> impl Fn(Result<(), &EncodeError>) + Send + Sync + use<> {
        let events = self.events.clone();
        move |health| {
            let state = match health {
                Ok(()) => DeviceState::Running,
                Err(error) => DeviceState::Failed { message: error.to_string() },
            };
            report_device_state(&events, kind, state);
        }
    }
}

/// An encoder that is put back when its microphone is closed, so that the next microphone uses it.
struct BorrowedEncoder {
    encoder: Option<AudioEncoder>,
    return_to: Arc<Slot<AudioEncoder>>,
}

impl BorrowedEncoder {
    fn encode(&mut self, block: &AudioBlock) {
        if let Some(encoder) = &mut self.encoder {
            encoder.encode(block);
        }
    }
}

impl Drop for BorrowedEncoder {
    fn drop(&mut self) {
        if let Some(mut encoder) = self.encoder.take() {
            encoder.stop();
            self.return_to.put(encoder);
        }
    }
}

/// Claims the file of a source, so that it is not recorded to.
fn claim_file(source: &SourceSpec, role: &'static str) -> Option<SourceClaim> {
    Some(SourceClaim::new(source.file()?, role))
}

/// Returns the encoder settings for a source: the target bitrate, or the usual one of the frame
/// size. Sources without a stated frame rate are expected to give 30 frames per second; the encoder
/// adapts to the actual rate.
fn encoder_settings(camera: &SourceSpec, layer: Layer, target: Option<Bitrate>) -> VideoSettings {
    let fps = match camera {
        SourceSpec::Pattern { fps, .. } | SourceSpec::NoisePattern { fps, .. } => *fps,
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Tone { .. }
        | SourceSpec::File(_)
        | SourceSpec::Device(_) => 30,
    };
    VideoSettings { layer, fps, target }
}

/// Passes the state of a source on to the core. States are rare, so a full queue is a bug.
pub(super) fn report_device_state(
    events: &mpsc::Sender<EngineEvent>,
    kind: DeviceKind,
    state: DeviceState,
) {
    if events.try_send(EngineEvent::Core(Input::Device(kind, state))).is_err() {
        tracing::error!(?kind, "the engine's queue is full or closed, a device's state is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: PerSource<bool> = PerSource { camera: true, microphone: false };

    fn local_media() -> LocalMedia {
        let camera = "pattern:64x36@5".parse().unwrap();
        let options = EngineOptions { camera, ..EngineOptions::without_devices() };
        LocalMedia::new(&options, &TrackSinks::default(), mpsc::channel(64).0)
    }

    /// The layers of the camera that are being encoded.
    fn encoded(media: &LocalMedia) -> Vec<Layer> {
        let running = media.video.iter().filter(|(_, output)| output.encoder.is_some());
        running.map(|((_, layer), _)| *layer).collect()
    }

    #[test]
    fn each_layer_that_is_sent_has_an_encoder_until_its_last_subscription_ends() {
        let mut media = local_media();
        media.set_demand(CAMERA);
        assert_eq!(encoded(&media), [], "a preview needs no encoder");
        let subscriptions = [Layer::Full, Layer::Half, Layer::Half]
            .map(|layer| media.subscribe(Source::Camera, layer));
        assert_eq!(encoded(&media), [Layer::Half, Layer::Full]);
        assert_eq!(media.counts().1.video, 2, "two connections share the encoder of a layer");
        media.unsubscribe(Source::Camera, Layer::Half);
        assert_eq!(encoded(&media), [Layer::Half, Layer::Full]);
        media.unsubscribe(Source::Camera, Layer::Half);
        assert_eq!(encoded(&media), [Layer::Full]);
        drop(subscriptions);
    }

    #[test]
    fn the_last_encoder_is_kept_as_long_as_the_source() {
        let mut media = local_media();
        let _full = media.subscribe(Source::Camera, Layer::Full);
        assert_eq!(encoded(&media), [], "the source is not open yet");
        media.set_demand(CAMERA);
        media.unsubscribe(Source::Camera, Layer::Full);
        assert_eq!(encoded(&media), [Layer::Full], "a viewer may come back");
        let _half = media.subscribe(Source::Camera, Layer::Half);
        assert_eq!(encoded(&media), [Layer::Half]);
        media.set_demand(PerSource::NONE);
        assert_eq!(encoded(&media), []);
        assert_eq!(media.counts().1.video, 2);
    }
}
