//! Clients in the process of the test: each has an engine, and methods to use and query it.
#![allow(clippy::unwrap_used, reason = "a client that fails fails the test")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use quintet::{
    engine::{Decode, Engine, EngineOptions, Handle, HubChoice, SourceSpec, SpeakerSpec},
    model::{
        Command, Event, JoinTarget, MuteSwitch, OpenRequest, ParticipantState, ParticipantStatus,
        SessionId, SessionStatus, Stats, VoiceProcessing,
    },
};
use tokio::{sync::mpsc::Receiver, time::sleep};

use super::wav_analysis::{read_wav, tone_level_db};

/// How long any step may take: many times as long as on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(40);

/// An engine with its handle and events.
pub(crate) struct Client {
    pub(crate) handle: Handle,
    /// Kept open, so that the engine can send its events.
    _events: Receiver<Event>,
}

/// What a client has received from a participant so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Received {
    pub(crate) audio_packets: u64,
    /// Complete video frames.
    pub(crate) frames: u64,
    pub(crate) decoded_frames: u64,
}

/// Returns the default options of a client: without devices, with an embedded hub.
pub(crate) fn options(name: &str) -> EngineOptions {
    EngineOptions {
        hub: HubChoice::Embed(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()),
        own_hub: Default::default(),
        name: name.to_owned(),
        camera: SourceSpec::None,
        video_bitrate: None,
        microphone: SourceSpec::None,
        voice_processing: VoiceProcessing::OFF,
        speaker: SpeakerSpec::None,
        decode: Decode::Always,
        measures_tones: true,
        keeps_secrets: false,
        impairment: None,
        rtp_dump: None,
        trace: None,
    }
}

impl Client {
    pub(crate) fn start(options: EngineOptions) -> Self {
        let (handle, events) = Engine::start(options).unwrap();
        Self { handle, _events: events }
    }

    /// Opens sessions of those kinds, each with its kind as its id, and returns their links.
    pub(crate) async fn open(&self, kinds: &[&str]) -> Vec<String> {
        let mut links = vec![];
        for kind in kinds {
            let (session, kind) = (id(kind), kind.parse().unwrap());
            self.send(Command::Open(OpenRequest { session, kind, limit: None }));
        }
        for kind in kinds {
            wait_until("an open session", || self.status(kind).link.is_some()).await;
            links.push(self.status(kind).link.unwrap().to_string());
        }
        links
    }

    /// Joins a session and waits until the participant `other` is live.
    pub(crate) async fn join(&self, link: &str, other: &str) {
        let (hub, session) = quintet::model::parse_target(link).unwrap();
        let name = session.as_str().to_owned();
        self.send(Command::Join { target: JoinTarget { session, hub }, wait: true });
        self.wait_live(&name, other).await;
    }

    pub(crate) fn send(&self, command: Command) {
        self.handle.try_send(command).unwrap();
    }

    /// Enables or mutes one medium in a session, or in all.
    pub(crate) fn set_enabled(&self, session: Option<&str>, switch: MuteSwitch, enabled: bool) {
        let session = session.map(id);
        self.send(Command::SetEnabled { session, switch, enabled });
    }

    pub(crate) fn find(&self, session: &str) -> Option<SessionStatus> {
        let snapshot = self.handle.snapshot();
        let found = snapshot.sessions.iter().find(|one| one.session == id(session));
        found.map(|one| SessionStatus::clone(one))
    }

    pub(crate) fn status(&self, session: &str) -> SessionStatus {
        self.find(session).unwrap_or_else(|| {
            // The command for this session is not carried out yet.
            SessionStatus {
                session: id(session),
                kind: None,
                role: quintet::model::Role::Guest,
                link: None,
                hub: None,
                limit: None,
                state: quintet::model::SessionState::Connecting,
                enabled: quintet::model::Enabled::default(),
                data_use: quintet::model::DataUse::Full,
                is_raised: false,
                sending: quintet::model::PerSource::NONE,
                participants: quintet::model::ParticipantList::default(),
                active_speaker: None,
                locked: false,
                removed: vec![],
            }
        })
    }

    /// Returns a participant of a session as this client sees it.
    pub(crate) fn participant(&self, session: &str, name: &str) -> Option<ParticipantStatus> {
        self.status(session).participants.into_iter().find(|one| one.name == name)
    }

    pub(crate) async fn wait_live(&self, session: &str, name: &str) {
        let is_live = |one: ParticipantStatus| one.state == ParticipantState::Live;
        let end = Instant::now() + TIMEOUT;
        while !self.participant(session, name).is_some_and(is_live) {
            assert!(Instant::now() < end, "{name} is not live in {:#?}", self.status(session));
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns what was received from a participant so far.
    pub(crate) async fn received(&self, session: &str, name: &str) -> Received {
        let stats: Stats = self.handle.stats().await.unwrap();
        let session = stats.sessions.into_iter().find(|one| one.session == id(session));
        let found = session.and_then(|one| one.participants.into_iter().find(|p| p.name == name));
        let Some(found) = found else { return Received::default() };
        let audio_packets = found.audio.map_or(0, |audio| audio.packets);
        let (frames, decoded_frames) =
            found.video.map_or((0, 0), |video| (video.received, video.decoded));
        Received { audio_packets, frames, decoded_frames }
    }

    /// Waits until the count that `count` picks has grown by ten.
    pub(crate) async fn wait_for_more(
        &self,
        session: &str,
        name: &str,
        count: fn(Received) -> u64,
    ) {
        let (before, end) = (count(self.received(session, name).await), Instant::now() + TIMEOUT);
        while count(self.received(session, name).await) < before + 10 {
            assert!(Instant::now() < end, "too little received from {name} in {session}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < end, "timeout: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Sleeps for that many milliseconds.
pub(crate) async fn sleep_ms(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

/// Waits until more than two seconds are recorded: enough for [`recorded_level`].
pub(crate) async fn wait_recorded(file: &Path) {
    let bytes = || std::fs::metadata(file).map_or(0, |found| found.len());
    wait_until("a recording of two seconds", || bytes() > 2 * 110_000).await;
}

/// Returns the level of a frequency in a recording, without its first and last half second: an
/// abrupt start or end contains all frequencies.
pub(crate) fn recorded_level(file: &Path, hz: f32) -> f32 {
    let (samples, rate) = read_wav(file);
    let edge = rate as usize / 2;
    assert!(samples.len() > 4 * edge, "{} samples in {}", samples.len(), file.display());
    tone_level_db(&samples[edge..samples.len() - edge], rate, hz)
}
