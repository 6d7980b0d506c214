//! Local media: each source is captured once, and each of its layers encoded once, on demand.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::{mpsc, watch};

use super::{
    EngineOptions,
    audio_layers::{AudioListener, AudioListeners},
    device_slot::DeviceSlot,
    event_loop::EngineEvent,
    sound_check::LoopRecorder,
    video_layers::{LateReport, StartEncoder, VideoLayers, VideoViewer},
};
use crate::{
    audio::linear_level,
    capture::{AudioCapture, MicrophoneWatch, SourceSpec, VideoCapture, VoiceStage},
    conference::Input,
    encode::{AudioEncoder, EncodeError, VideoEncoder},
    files::SourceClaim,
    media::{
        AudioBlock, EncodedAudio, Fanout, FarEnd, Meter, Slot, Subscription, Tee, TrackRef,
        TrackSinks, VideoFrame,
    },
    model::{
        Counts, DeviceKind, DeviceState, Media, MediaSourceStats, MicrophoneActivity, PeerId,
        PerSource, RtcStats, Size, Source, VoiceProcessing,
    },
};

/// The sources, their captures and their encoders.
pub(super) struct LocalMedia {
    camera_spec: SourceSpec,
    microphone_spec: SourceSpec,
    voice_processing: watch::Sender<VoiceProcessing>,
    /// What the speaker plays.
    far_end: FarEnd,
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
    /// Records the processed sound of the microphone for the user's own ears.
    recorder: LoopRecorder,
    /// The layers of the camera.
    video: VideoLayers,
    audio: Fanout<EncodedAudio>,
    /// Which peer gets which layer of it.
    listeners: AudioListeners,
    counters: Arc<StartCounters>,
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
    /// Returns a state in which no source is open. Our own video and level are registered in the
    /// sinks. `far_end` carries what the speaker plays.
    pub(super) fn new(
        options: &EngineOptions,
        (track_sinks, far_end): (&TrackSinks, FarEnd),
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        let (frames, _) = track_sinks.register(TrackRef::CAMERA);
        let (_, meter) = track_sinks.register(TrackRef::MICROPHONE);
        let counters = Arc::<StartCounters>::default();
        let start = video_encoder_start(frames.clone(), events.clone(), Arc::clone(&counters));
        let format = expected_format(&options.camera);
        let mut video = VideoLayers::new(format, options.video_bitrate, start);
        video.set_late_report(late_report(events.clone()));
        let listeners = AudioListeners::default();
        listeners.set_content(options.voice_processing.content);
        Self {
            camera_spec: options.camera.clone(),
            microphone_spec: options.microphone.clone(),
            voice_processing: watch::channel(options.voice_processing).0,
            far_end,
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
            recorder: LoopRecorder::default(),
            video,
            audio: Fanout::default(),
            listeners,
            counters,
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
            self.video.set_source(expected_format(&self.camera_spec));
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

    /// Processes the sound of the microphone like this from the next block on.
    pub(super) fn set_voice_processing(&mut self, chosen: VoiceProcessing) {
        self.listeners.set_content(chosen.content);
        let before = self.voice_processing.send_replace(chosen);
        if before.content != chosen.content && self.microphone_spec.is_microphone() {
            // Music has two channels, a voice has one.
            self.microphone.close(|| ());
            self.update_microphone();
        }
    }

    /// Returns the recorder of what the microphone gives.
    pub(super) const fn recorder(&self) -> &LoopRecorder {
        &self.recorder
    }

    /// Returns the level of the microphone, in dB relative to full scale.
    pub(super) fn level_dbfs(&self) -> f32 {
        self.meter.dbfs()
    }

    /// Returns which sources exist.
    pub(super) fn available_sources(&self) -> PerSource<bool> {
        PerSource { camera: &self.camera_spec, microphone: &self.microphone_spec }
            .map(|spec| *spec != SourceSpec::None)
    }

    /// Returns a subscription of a peer connection to the audio, in the layer that its path carries.
    pub(super) fn subscribe_audio(
        &mut self,
        peer: PeerId,
        listener: AudioListener,
    ) -> Subscription<EncodedAudio> {
        self.listeners.subscribe(&self.audio, (peer, listener))
    }

    /// A peer connection gets no audio any more.
    pub(super) fn end_audio(&self, peer: PeerId) {
        self.listeners.remove(peer);
    }

    /// Sets whether a peer connection gets video beside the audio.
    pub(super) fn set_has_video(&self, peer: PeerId, has_video: bool) {
        self.listeners.set_has_video(peer, has_video);
    }

    /// Sets whether a peer connection may get the video of a source, and what it may get of it.
    pub(super) fn set_video_viewer(
        &mut self,
        source: Source,
        peer: PeerId,
        viewer: Option<VideoViewer>,
    ) {
        match source {
            Source::Camera => self.video.set_viewer(peer, viewer),
            Source::Microphone => debug_assert!(viewer.is_none(), "a source of audio"),
        }
    }

    /// Returns how often a peer got another layer of a video than it had.
    pub(super) fn layer_changes(&self) -> u64 {
        self.video.changes()
    }

    /// Adds what a peer gets of the layers to the streams of its connection.
    pub(super) fn add_layer(&self, peer: PeerId, streams: &mut [RtcStats]) {
        let (video, audio) = (self.video.layer(peer), self.listeners.layer(peer));
        for object in streams {
            let RtcStats::OutboundRtp(stream) = object else { continue };
            match stream.kind {
                Media::Video => {
                    stream.rid = video.and_then(|(layer, _)| layer);
                    stream.quality_limitation_reason = video.map(|(_, reason)| reason);
                }
                Media::Audio => {
                    stream.target_bitrate = audio.map(|layer| layer.bitrate().as_bps());
                }
                Media::Data => {}
            }
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
        let camera = self
            .video
            .stats()
            .map(|stats| MediaSourceStats { id: Source::Camera.name().to_owned(), ..stats });
        let microphone = self.microphone.is_open().then(|| MediaSourceStats {
            audio_level: Some(linear_level(f64::from(self.meter.dbfs()))),
            ..MediaSourceStats::new(Source::Microphone.name(), Media::Audio)
        });
        camera.into_iter().chain(microphone).map(RtcStats::MediaSource).collect()
    }

    fn update_camera(&mut self) {
        self.video.set_needed(self.needs_camera());
        if !self.needs_camera() {
            return self.camera.close(self.idle_report(DeviceKind::CAMERA));
        }
        if !self.camera.is_open() && !self.video.lacks_encoder() {
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

    fn update_microphone(&mut self) {
        if !self.demand.microphone || self.microphone_spec == SourceSpec::None {
            return self.microphone.close(self.idle_report(DeviceKind::MICROPHONE));
        }
        if !self.microphone.is_open() {
            let take_encoder = self.audio_encoder_source();
            let notify =
                self.state_callback(DeviceKind::MICROPHONE, |counters| &counters.microphones);
            let spec = self.microphone_spec.clone();
            let chosen = self.voice_processing.subscribe();
            let mut stage = VoiceStage::new(&spec, chosen, self.far_end.clone());
            let mut watch = MicrophoneWatch::new(spec.is_microphone(), self.activity_callback());
            let mut channels = self.listeners.channel_watch();
            let content = self.voice_processing.borrow().content;
            let recorder = self.recorder.clone();
            let opened = self.microphone.open(move || {
                let mut encoder = take_encoder();
                let sink = move |block: &AudioBlock| {
                    let processed = stage.process(block);
                    watch.push(block, &processed);
                    recorder.push(&processed);
                    channels.push(&processed);
                    encoder.encode(&processed);
                };
                Some(AudioCapture::start(&spec, content, Box::new(sink), notify))
            });
            self.report_unopened(DeviceKind::MICROPHONE, opened);
        }
    }

    /// Returns a callback that tells the core what is heard at the microphone. A change that does
    /// not fit into the engine's queue is lost, as the next one corrects it.
    fn activity_callback(&self) -> Box<dyn Fn(MicrophoneActivity) + Send> {
        let events = self.events.clone();
        Box::new(move |activity| {
            let _ = events.try_send(EngineEvent::Core(Input::MicrophoneActivity(activity)));
        })
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
    fn audio_encoder_source(&self) -> impl FnOnce() -> BorrowedEncoder + Send + use<> {
        let (meter, out) = (self.meter.clone(), self.audio.clone());
        let counters = Arc::clone(&self.counters);
        let report = encoder_callback(self.events.clone(), DeviceKind::MICROPHONE);
        let return_to = Arc::clone(&self.idle_audio_encoder);
        move || {
            if let Some(encoder) = return_to.take() {
                return BorrowedEncoder { encoder: Some(encoder), return_to };
            }
            counters.audio_encoders.fetch_add(1, Ordering::Relaxed);
            let encoder = AudioEncoder::new(meter, out, Box::new(report));
            BorrowedEncoder { encoder: Some(encoder), return_to }
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

/// Returns the size of a source, if it states it, and the frames per second that it is expected to
/// give: 30 if it does not state them. The encoder adapts to the actual rate.
fn expected_format(camera: &SourceSpec) -> (Option<Size>, u32) {
    match camera {
        SourceSpec::Pattern { size, fps } | SourceSpec::NoisePattern { size, fps } => {
            (Some(*size), *fps)
        }
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Tone { .. }
        | SourceSpec::File(_)
        | SourceSpec::Device(_) => (None, 30),
    }
}

/// Returns a function that starts an encoder of the camera, and counts it.
fn video_encoder_start(
    frames: Tee<VideoFrame>,
    events: mpsc::Sender<EngineEvent>,
    counters: Arc<StartCounters>,
) -> StartEncoder {
    Box::new(move |settings, out| {
        let report = encoder_callback(events.clone(), DeviceKind::CAMERA);
        match VideoEncoder::start(settings, frames.attach(), out, report) {
            Ok(encoder) => {
                counters.video_encoders.fetch_add(1, Ordering::Relaxed);
                Some(encoder)
            }
            Err(error) => {
                let message = format!("the video cannot be encoded: {error}");
                report_device_state(&events, DeviceKind::CAMERA, DeviceState::Failed { message });
                None
            }
        }
    })
}

/// Returns a callback that tells the core whether encoders are late. A change that does not fit into
/// the engine's queue is lost, as the next one corrects it.
fn late_report(events: mpsc::Sender<EngineEvent>) -> LateReport {
    Box::new(move |is_late| {
        let _ = events.try_send(EngineEvent::Core(Input::EncoderLate(is_late)));
    })
}

/// Returns a callback that passes the health of an encoder on to the core, as the state of its
/// source.
fn encoder_callback(
    events: mpsc::Sender<EngineEvent>,
    kind: DeviceKind,
) -> impl Fn(Result<(), &EncodeError>) + Send + Sync + use<> {
    move |health| {
        let state = match health {
            Ok(()) => DeviceState::Running,
            Err(error) => DeviceState::Failed { message: error.to_string() },
        };
        report_device_state(&events, kind, state);
    }
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
