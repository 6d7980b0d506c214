//! People in one process: an engine each, and what can be asked of it.
#![allow(clippy::unwrap_used, reason = "a person who fails is a test that fails")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use quintet::{
    engine::{Decode, Engine, EngineOptions, Handle, HubChoice, SourceSpec, SpeakerSpec},
    model::{
        Command, Event, Gate, JoinTarget, OpenRequest, ParticipantState, ParticipantStatus,
        SessionId, SessionStatus, Stats,
    },
};
use tokio::{sync::mpsc::Receiver, time::sleep};

use crate::rig::sound::{level_of, read_wav};

/// How long anything may take: many times what it takes when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(40);

/// An engine and what it tells.
pub(crate) struct Person {
    pub(crate) handle: Handle,
    /// Kept, so that none is lost for want of a reader.
    _events: Receiver<Event>,
}

/// What a person has, to be changed where a test wants something else.
pub(crate) fn options(name: &str) -> EngineOptions {
    EngineOptions {
        hub: HubChoice::Embed(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()),
        own_hub: Default::default(),
        name: name.to_owned(),
        camera: SourceSpec::None,
        rate: None,
        microphone: SourceSpec::None,
        speaker: SpeakerSpec::None,
        decode: Decode::Always,
        keeps_secrets: false,
        impairment: None,
    }
}

impl Person {
    pub(crate) fn start(options: EngineOptions) -> Self {
        let (handle, events) = Engine::start(options).unwrap();
        Self { handle, _events: events }
    }

    /// Opens sessions of those kinds, each called like its kind, and returns their links.
    pub(crate) async fn open(&self, kinds: &[&str]) -> Vec<String> {
        let mut links = vec![];
        for kind in kinds {
            let (session, kind) = (id(kind), kind.parse().unwrap());
            self.give(Command::Open(OpenRequest { session, kind, limit: None }));
        }
        for kind in kinds {
            until("an open session", || self.status(kind).link.is_some()).await;
            links.push(self.status(kind).link.unwrap().to_string());
        }
        links
    }

    pub(crate) async fn join(&self, link: &str, other: &str) {
        let (hub, session) = quintet::model::parse_target(link).unwrap();
        let name = session.as_str().to_owned();
        self.give(Command::Join { target: JoinTarget { session, hub }, wait: true });
        self.live(&name, other).await;
    }

    pub(crate) fn give(&self, command: Command) {
        self.handle.try_send(command).unwrap();
    }

    pub(crate) fn turn(&self, session: Option<&str>, gate: Gate, open: bool) {
        self.give(Command::SetGate { session: session.map(id), gate, open });
    }

    pub(crate) fn find(&self, session: &str) -> Option<SessionStatus> {
        let snapshot = self.handle.snapshot();
        snapshot.sessions.iter().find(|one| one.session == id(session)).cloned()
    }

    pub(crate) fn status(&self, session: &str) -> SessionStatus {
        self.find(session).unwrap_or_else(|| {
            // Commands are carried out in order; this one was not yet.
            SessionStatus {
                session: id(session),
                kind: None,
                role: quintet::model::Role::Guest,
                link: None,
                hub: None,
                limit: None,
                state: quintet::model::SessionState::Connecting,
                gates: quintet::model::Gates::default(),
                heard: false,
                seen: false,
                participants: vec![],
                locked: false,
                removed: vec![],
            }
        })
    }

    /// A participant as this person sees it.
    pub(crate) fn sees(&self, session: &str, name: &str) -> Option<ParticipantStatus> {
        self.status(session).participants.into_iter().find(|one| one.name == name)
    }

    pub(crate) async fn live(&self, session: &str, name: &str) {
        let is_live = |one: ParticipantStatus| one.state == ParticipantState::Live;
        let end = Instant::now() + PATIENCE;
        while !self.sees(session, name).is_some_and(is_live) {
            assert!(Instant::now() < end, "{name} is not live in {:#?}", self.status(session));
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What came of a participant so far: packets of sound, pictures, pictures decoded.
    pub(crate) async fn got(&self, session: &str, name: &str) -> (u64, u64, u64) {
        let stats: Stats = self.handle.stats().await.unwrap();
        let session = stats.sessions.into_iter().find(|one| one.session == id(session));
        let found = session.and_then(|one| one.participants.into_iter().find(|p| p.name == name));
        let Some(found) = found else { return (0, 0, 0) };
        let audio = found.audio.map_or(0, |audio| audio.packets);
        let (received, decoded) = found.video.map_or((0, 0), |one| (one.received, one.decoded));
        (audio, received, decoded)
    }

    /// Waits until more has come of what `which` picks, by at least that much.
    pub(crate) async fn grows(&self, session: &str, name: &str, which: fn((u64, u64, u64)) -> u64) {
        let (before, end) = (which(self.got(session, name).await), Instant::now() + PATIENCE);
        while which(self.got(session, name).await) < before + 10 {
            assert!(Instant::now() < end, "nothing comes of {name} in {session}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Lets things go on for a while.
pub(crate) async fn pass(ms: u64) {
    sleep(Duration::from_millis(ms)).await;
}

/// The level of a frequency in a file, between its start and its end: those sound at all
/// frequencies.
pub(crate) fn heard(file: &Path, hz: f32) -> f32 {
    let (samples, rate) = read_wav(file);
    let edge = rate as usize / 2;
    assert!(samples.len() > 4 * edge, "{} samples in {}", samples.len(), file.display());
    level_of(&samples[edge..samples.len() - edge], rate, hz)
}
