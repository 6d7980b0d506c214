//! What is captured and encoded here: each source once, each encoder once, by demand.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::mpsc;

use super::run::Deed;
use crate::{
    capture::{AudioCapture, SourceSpec, VideoCapture},
    conference::{Input, SourceKind},
    encode::{OpusEncoder, VideoEncoder, VideoSettings},
    media::{
        AudioBlock, EncodedAudio, EncodedVideo, Fanout, MAX_LAG, Subscription, Tee, VideoFrame,
    },
    model::{Counts, Layer, SourceState},
};

/// Opus packets that a connection may lag: half a second, which a jitter buffer no longer hides.
const MAX_AUDIO_LAG: usize = 25;

/// What is captured and encoded here.
pub(super) struct Studio {
    camera_spec: SourceSpec,
    microphone_spec: SourceSpec,
    who: String,
    deeds: mpsc::Sender<Deed>,
    camera: Option<(VideoCapture, VideoEncoder)>,
    microphone: Option<AudioCapture>,
    video: Fanout<EncodedVideo>,
    audio: Fanout<EncodedAudio>,
    tally: Arc<Tally>,
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
    /// A studio in which nothing runs yet.
    pub(super) fn new(
        camera: SourceSpec,
        microphone: SourceSpec,
        who: String,
        deeds: mpsc::Sender<Deed>,
    ) -> Self {
        Self {
            camera_spec: camera,
            microphone_spec: microphone,
            who,
            deeds,
            camera: None,
            microphone: None,
            video: Fanout::default(),
            audio: Fanout::default(),
            tally: Arc::default(),
        }
    }

    /// Runs what is wanted and nothing else.
    pub(super) fn demand(&mut self, camera: bool, microphone: bool) {
        if camera != self.camera.is_some() {
            self.camera = if camera { self.start_camera() } else { None };
            self.tell_idle(SourceKind::Camera, camera);
        }
        if microphone != self.microphone.is_some() {
            self.microphone = if microphone { self.start_microphone() } else { None };
            self.tell_idle(SourceKind::Microphone, microphone);
        }
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

    fn start_camera(&self) -> Option<(VideoCapture, VideoEncoder)> {
        if self.camera_spec == SourceSpec::None {
            return None;
        }
        let frames = Tee::<VideoFrame>::default();
        let deeds = self.deeds.clone();
        let fail = move |why: &dyn std::fmt::Display| {
            let message = format!("the picture cannot be encoded: {why}");
            report(&deeds, SourceKind::Camera, SourceState::Failed { message });
        };
        let (failed, out) = (fail.clone(), self.video.clone());
        let settings = settings_for(&self.camera_spec);
        let started =
            VideoEncoder::start(settings, frames.attach(), out, move |error| failed(error));
        let encoder = started.map_err(|error| fail(&error)).ok()?;
        self.tally.video_encoders.fetch_add(1, Ordering::Relaxed);
        let notify = self.notify(SourceKind::Camera, |tally| &tally.cameras);
        Some((VideoCapture::start(&self.camera_spec, &self.who, frames, notify), encoder))
    }

    fn start_microphone(&self) -> Option<AudioCapture> {
        if self.microphone_spec == SourceSpec::None {
            return None;
        }
        let mut encoder = match OpusEncoder::new() {
            Ok(encoder) => encoder,
            Err(error) => {
                let message = format!("sound cannot be encoded: {error}");
                self.tell(SourceKind::Microphone, SourceState::Failed { message });
                return None;
            }
        };
        self.tally.audio_encoders.fetch_add(1, Ordering::Relaxed);
        let audio = self.audio.clone();
        let sink = move |block: &AudioBlock| {
            if let Some(packet) = encoder.encode(block) {
                audio.publish(packet);
            }
        };
        let notify = self.notify(SourceKind::Microphone, |tally| &tally.microphones);
        Some(AudioCapture::start(&self.microphone_spec, Box::new(sink), notify))
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

    fn tell_idle(&self, kind: SourceKind, wanted: bool) {
        if !wanted {
            self.tell(kind, SourceState::Idle);
        }
    }

    fn tell(&self, kind: SourceKind, state: SourceState) {
        report(&self.deeds, kind, state);
    }
}

/// What a source is encoded to: the usual rate of whatever comes. Thirty pictures a second are
/// expected of one that does not say, and the encoder follows those that come.
fn settings_for(camera: &SourceSpec) -> VideoSettings {
    let fps = match camera {
        SourceSpec::Pattern { fps, .. } => *fps,
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Tone { .. }
        | SourceSpec::File(_)
        | SourceSpec::Device(_) => 30,
    };
    VideoSettings { layer: Layer::Full, fps, target: None }
}

/// Passes a state on to the core; states are rare, so a full queue is a bug.
pub(super) fn report(deeds: &mpsc::Sender<Deed>, kind: SourceKind, state: SourceState) {
    if deeds.try_send(Deed::Core(Input::Source(kind, state))).is_err() {
        tracing::error!(?kind, "the engine's queue is full or closed, a device's state is lost");
    }
}
