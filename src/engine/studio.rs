//! What is captured and encoded here: each source once, each encoder once, by demand.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::mpsc;

use super::{EngineOptions, run::Deed};
use crate::{
    audio::LevelWindow,
    capture::{AudioCapture, SourceSpec, VideoCapture},
    conference::Input,
    encode::{OpusEncoder, VideoEncoder, VideoSettings},
    files::SourceClaim,
    media::{
        AudioBlock, EncodedAudio, EncodedVideo, Fanout, Gallery, MAX_LAG, Meter, Picture,
        SILENCE_DBFS, Slot, Subscription, Tee, VideoFrame,
    },
    model::{Bitrate, Counts, Layer, SourceKind, SourceState},
};

/// Opus packets that a connection may lag: half a second, which a jitter buffer no longer hides.
const MAX_AUDIO_LAG: usize = 25;

/// What is captured and encoded here.
pub(super) struct Studio {
    camera_spec: SourceSpec,
    rate: Option<Bitrate>,
    microphone_spec: SourceSpec,
    /// Files that are sent, in use or not: no recording may destroy them.
    camera_claim: Option<SourceClaim>,
    microphone_claim: Option<SourceClaim>,
    who: String,
    deeds: mpsc::Sender<Deed>,
    wanted: Wanted,
    camera: Option<VideoCapture>,
    encoder: Option<VideoEncoder>,
    microphone: Option<AudioCapture>,
    /// The encoder of sound, while no microphone uses it.
    opus: Arc<Slot<OpusEncoder>>,
    frames: Tee<VideoFrame>,
    meter: Meter,
    video: Fanout<EncodedVideo>,
    audio: Fanout<EncodedAudio>,
    tally: Arc<Tally>,
}

/// What the core wants to run.
#[derive(Clone, Copy, Default)]
struct Wanted {
    camera: bool,
    microphone: bool,
}

/// How often sources were opened and encoders started.
#[derive(Debug, Default)]
struct Tally {
    cameras: AtomicU32,
    microphones: AtomicU32,
    video_encoders: AtomicU32,
    audio_encoders: AtomicU32,
}

impl Studio {
    /// A studio in which nothing runs yet. The own picture and level are shown in `gallery`.
    pub(super) fn new(
        options: &EngineOptions,
        gallery: &Gallery,
        deeds: mpsc::Sender<Deed>,
    ) -> Self {
        let (frames, meter) = gallery.exhibit(Picture::Local);
        Self {
            camera_spec: options.camera.clone(),
            rate: options.rate,
            microphone_spec: options.microphone.clone(),
            camera_claim: claim(&options.camera, "camera"),
            microphone_claim: claim(&options.microphone, "microphone"),
            who: options.name.clone(),
            deeds,
            wanted: Wanted::default(),
            camera: None,
            encoder: None,
            microphone: None,
            opus: Arc::default(),
            frames,
            meter,
            video: Fanout::default(),
            audio: Fanout::default(),
            tally: Arc::default(),
        }
    }

    /// Runs what is wanted and nothing else.
    pub(super) fn demand(&mut self, camera: bool, microphone: bool) {
        self.wanted = Wanted { camera, microphone };
        self.run_camera();
        self.run_microphone();
    }

    /// Captures another picture from now on.
    pub(super) fn set_camera(&mut self, camera: SourceSpec) {
        if camera != self.camera_spec {
            self.camera_claim = claim(&camera, "camera");
            self.camera_spec = camera;
            // The old device first: the new one may be the same under another name.
            self.camera = None;
            self.run_camera();
        }
    }

    /// Captures another sound from now on.
    pub(super) fn set_microphone(&mut self, microphone: SourceSpec) {
        if microphone != self.microphone_spec {
            self.microphone_claim = claim(&microphone, "microphone");
            self.microphone_spec = microphone;
            self.microphone = None;
            self.run_microphone();
        }
    }

    /// Whether there is a picture and a sound to be sent at all.
    pub(super) fn equipment(&self) -> (bool, bool) {
        (self.camera_spec != SourceSpec::None, self.microphone_spec != SourceSpec::None)
    }

    /// The encoded picture; `layer` chooses the rung once there is more than one.
    pub(super) fn video(&self, layer: Layer) -> Subscription<EncodedVideo> {
        match layer {
            Layer::Quarter | Layer::Half | Layer::Full => self.video.subscribe(MAX_LAG),
        }
    }

    /// The encoded sound.
    pub(super) fn audio(&self) -> Subscription<EncodedAudio> {
        self.audio.subscribe(MAX_AUDIO_LAG)
    }

    /// How often sources were opened, and encoders started.
    pub(super) fn counts(&self) -> (Counts, Counts) {
        let read = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
        let Tally { cameras, microphones, video_encoders, audio_encoders } = &*self.tally;
        let captures = Counts { video: read(cameras), audio: read(microphones) };
        (captures, Counts { video: read(video_encoders), audio: read(audio_encoders) })
    }

    fn run_camera(&mut self) {
        if !self.wanted.camera || self.camera_spec == SourceSpec::None {
            (self.camera, self.encoder) = (None, None);
            return self.tell(SourceKind::Camera, SourceState::Idle);
        }
        if self.encoder.is_none() {
            self.encoder = self.start_encoder();
        }
        if self.camera.is_none() && self.encoder.is_some() {
            let notify = self.notify(SourceKind::Camera, |tally| &tally.cameras);
            let (spec, frames) = (&self.camera_spec, self.frames.clone());
            self.camera = Some(VideoCapture::start(spec, &self.who, frames, notify));
        }
    }

    fn start_encoder(&self) -> Option<VideoEncoder> {
        let deeds = self.deeds.clone();
        let fail = move |why: &dyn std::fmt::Display| {
            let message = format!("the picture cannot be encoded: {why}");
            report(&deeds, SourceKind::Camera, SourceState::Failed { message });
        };
        let (failed, out) = (fail.clone(), self.video.clone());
        let settings = settings_for(&self.camera_spec, self.rate);
        let started =
            VideoEncoder::start(settings, self.frames.attach(), out, move |error| failed(error));
        let encoder = started.map_err(|error| fail(&error)).ok()?;
        self.tally.video_encoders.fetch_add(1, Ordering::Relaxed);
        Some(encoder)
    }

    fn run_microphone(&mut self) {
        if !self.wanted.microphone || self.microphone_spec == SourceSpec::None {
            self.microphone = None;
            self.meter.set(SILENCE_DBFS);
            return self.tell(SourceKind::Microphone, SourceState::Idle);
        }
        if self.microphone.is_none()
            && let Some(encoder) = self.sound_encoder()
        {
            let (meter, audio) = (self.meter.clone(), self.audio.clone());
            let mut level = LevelWindow::default();
            let mut desk = Borrowed { encoder: Some(encoder), home: Arc::clone(&self.opus) };
            let sink = move |block: &AudioBlock| {
                meter.set(level.push(&block.samples));
                if let Some(packet) = desk.encode(block) {
                    audio.publish(packet);
                }
            };
            let notify = self.notify(SourceKind::Microphone, |tally| &tally.microphones);
            let spec = &self.microphone_spec;
            self.microphone = Some(AudioCapture::start(spec, Box::new(sink), notify));
        }
    }

    /// The encoder that the last microphone used, or the first one.
    fn sound_encoder(&self) -> Option<OpusEncoder> {
        if let Some(encoder) = self.opus.take() {
            return Some(encoder);
        }
        match OpusEncoder::new() {
            Ok(encoder) => {
                self.tally.audio_encoders.fetch_add(1, Ordering::Relaxed);
                Some(encoder)
            }
            Err(error) => {
                let message = format!("sound cannot be encoded: {error}");
                self.tell(SourceKind::Microphone, SourceState::Failed { message });
                None
            }
        }
    }

    /// Counts the openings of a source and passes its states on to the core.
    fn notify(
        &self,
        kind: SourceKind,
        counter: fn(&Tally) -> &AtomicU32,
    ) -> Arc<dyn Fn(SourceState) + Send + Sync> {
        let (deeds, tally) = (self.deeds.clone(), Arc::clone(&self.tally));
        Arc::new(move |state| {
            if state == SourceState::Running {
                counter(&tally).fetch_add(1, Ordering::Relaxed);
            }
            report(&deeds, kind, state);
        })
    }

    fn tell(&self, kind: SourceKind, state: SourceState) {
        report(&self.deeds, kind, state);
    }
}

/// An encoder that goes home when its microphone is closed, so that the next one goes on with it.
struct Borrowed {
    encoder: Option<OpusEncoder>,
    home: Arc<Slot<OpusEncoder>>,
}

impl Borrowed {
    fn encode(&mut self, block: &AudioBlock) -> Option<EncodedAudio> {
        self.encoder.as_mut()?.encode(block)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.home.put(encoder);
        }
    }
}

/// Keeps recordings away from a file that is sent.
fn claim(source: &SourceSpec, role: &'static str) -> Option<SourceClaim> {
    Some(SourceClaim::new(source.file()?, role))
}

/// What a source is encoded to: that rate, or the usual one of whatever comes. Thirty pictures a
/// second are expected of one that does not say, and the encoder follows those that come.
fn settings_for(camera: &SourceSpec, target: Option<Bitrate>) -> VideoSettings {
    let fps = match camera {
        SourceSpec::Pattern { fps, .. } | SourceSpec::Busy { fps, .. } => *fps,
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Tone { .. }
        | SourceSpec::File(_)
        | SourceSpec::Device(_) => 30,
    };
    VideoSettings { layer: Layer::Full, fps, target }
}

/// Passes a state on to the core; states are rare, so a full queue is a bug.
pub(super) fn report(deeds: &mpsc::Sender<Deed>, kind: SourceKind, state: SourceState) {
    if deeds.try_send(Deed::Core(Input::Source(kind, state))).is_err() {
        tracing::error!(?kind, "the engine's queue is full or closed, a device's state is lost");
    }
}
