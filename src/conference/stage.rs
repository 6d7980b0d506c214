//! A stage for the unit tests: one core, and short words for what it hears and does.

use std::time::Duration;

use super::{Conference, Effect, HubEvent, HubRef, Input};
use crate::model::{
    Command, ErrorCode, Event, Failure, Gate, HubMessage, HubOwner, HubPlace, HubUrl, Instance,
    JoinTarget, LeaveReason, MediaSet, MediaTime, Member, OpenRequest, ParticipantId,
    ParticipantState, Payload, PeerCommand, PeerEvent, PeerId, PeerState, Presence, Role, Secret,
    SessionId, SessionKind, SessionStatus, Topology,
};

pub(super) const MESH: SessionKind =
    SessionKind { media: MediaSet::AUDIO_VIDEO, topology: Topology::ManyToMany };
pub(super) const BROADCAST: SessionKind =
    SessionKind { media: MediaSet::AUDIO_VIDEO, topology: Topology::OneWay };

/// One core, its time, and what it did last.
pub(super) struct Stage {
    pub(super) core: Conference,
    pub(super) now: MediaTime,
    pub(super) done: Vec<Effect>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let now = MediaTime::from_micros(100_000_000);
        Self { core: Conference::new(), now, done: vec![] }
    }

    /// A guest of session "s", with these other members.
    pub(super) fn joined(kind: SessionKind, members: Vec<Member>) -> Self {
        let mut stage = Self::new();
        stage.join(None, true);
        stage.up(&HubRef::Default);
        stage.hear(joined(kind, Role::Guest, members));
        stage
    }

    /// The opener of session "s", alone in it.
    pub(super) fn opened(kind: SessionKind) -> Self {
        let mut stage = Self::new();
        stage.open(kind);
        stage.up(&HubRef::Default);
        stage.hear(opened(kind, vec![]));
        stage
    }

    pub(super) fn give(&mut self, input: Input) -> &mut Self {
        self.core.handle(input, self.now);
        self.fetch()
    }

    pub(super) fn open(&mut self, kind: SessionKind) -> &mut Self {
        let request = OpenRequest { session: session(), kind, limit: None };
        self.give(Input::Command(Command::Open(request)))
    }

    pub(super) fn join(&mut self, hub: Option<&str>, wait: bool) -> &mut Self {
        let hub = hub.map(url);
        let target = JoinTarget { session: session(), hub };
        self.give(Input::Command(Command::Join { target, wait }))
    }

    pub(super) fn leave(&mut self) -> &mut Self {
        self.give(Input::Command(Command::Leave { session: session() }))
    }

    pub(super) fn up(&mut self, hub: &HubRef) -> &mut Self {
        let (url, place) = match hub {
            HubRef::Default => {
                let place = HubPlace { url: url("127.0.0.1:7340"), owner: HubOwner::ThisUser };
                (url("10.0.0.1:7340"), place)
            }
            HubRef::At(url) => (url.clone(), place(url)),
        };
        let event = HubEvent::Up { url, place, participant: id("m"), name: "Me".into() };
        self.give(Input::Hub(hub.clone(), event))
    }

    pub(super) fn down(&mut self, hub: &HubRef) -> &mut Self {
        let event = HubEvent::Down { reason: "nobody answers".into() };
        self.give(Input::Hub(hub.clone(), event))
    }

    pub(super) fn hear(&mut self, message: HubMessage) -> &mut Self {
        self.hear_from(&HubRef::Default, message)
    }

    pub(super) fn hear_from(&mut self, hub: &HubRef, message: HubMessage) -> &mut Self {
        self.give(Input::Hub(hub.clone(), HubEvent::Message(message)))
    }

    pub(super) fn tell(&mut self, peer: u64, event: PeerEvent) -> &mut Self {
        self.give(Input::Peer(PeerId(peer), event))
    }

    pub(super) fn state(&mut self, peer: u64, state: PeerState) -> &mut Self {
        self.tell(peer, PeerEvent::State(state))
    }

    /// Lets time pass, deadline by deadline; what was done in all of it is kept.
    pub(super) fn pass(&mut self, span: Duration) -> &mut Self {
        let end = self.now + span;
        let mut all = vec![];
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "a deadline lies in the past");
            self.now = due;
            self.core.handle_timeout(due);
            assert!(self.core.poll_timeout().is_none_or(|next| next > due), "a deadline stays");
            all.append(&mut self.fetch().done);
        }
        self.now = end;
        self.done = all;
        self
    }

    pub(super) fn pass_ms(&mut self, ms: u64) -> &mut Self {
        self.pass(Duration::from_millis(ms))
    }

    fn fetch(&mut self) -> &mut Self {
        self.done = std::iter::from_fn(|| self.core.poll_effect()).collect();
        self
    }

    pub(super) fn opened_peers(&self) -> Vec<u64> {
        let opened = self.done.iter().filter_map(|effect| {
            if let Effect::OpenPeer { peer, .. } = effect { Some(peer.0) } else { None }
        });
        opened.collect()
    }

    pub(super) fn closed_peers(&self) -> Vec<u64> {
        let closed = self.done.iter().filter_map(|effect| {
            if let Effect::ClosePeer(peer) = effect { Some(peer.0) } else { None }
        });
        closed.collect()
    }

    pub(super) fn commands(&self) -> Vec<&PeerCommand> {
        let commands = self.done.iter().filter_map(|effect| {
            if let Effect::Peer { command, .. } = effect { Some(command) } else { None }
        });
        commands.collect()
    }

    pub(super) fn sent(&self) -> Vec<(&HubRef, &crate::model::ClientMessage)> {
        let sent = self.done.iter().filter_map(|effect| {
            if let Effect::Send { hub, message } = effect { Some((hub, message)) } else { None }
        });
        sent.collect()
    }

    /// The payloads that were said to others.
    pub(super) fn said(&self) -> Vec<Payload> {
        let said = self.sent().into_iter().filter_map(|(_, message)| {
            let crate::model::ClientMessage::Signal { payload, .. } = message else { return None };
            Some(payload.known().clone())
        });
        said.collect()
    }

    /// Turns a switch of the session, or of all.
    pub(super) fn turn(&mut self, session: Option<SessionId>, gate: Gate, open: bool) -> &mut Self {
        self.give(Input::Command(Command::SetGate { session, gate, open }))
    }

    pub(super) fn events(&self) -> Vec<&Event> {
        let events = self.done.iter().filter_map(|effect| {
            if let Effect::Announce(event) = effect { Some(event) } else { None }
        });
        events.collect()
    }

    pub(super) fn failures(&self) -> Vec<&Failure> {
        let failures = self.events().into_iter().filter_map(|event| {
            if let Event::Failed(failure) = event { Some(failure) } else { None }
        });
        failures.collect()
    }

    /// The states that participants were announced in.
    pub(super) fn states(&self) -> Vec<ParticipantState> {
        let states = self.events().into_iter().filter_map(|event| {
            if let Event::Participant { state, .. } = event { Some(*state) } else { None }
        });
        states.collect()
    }

    pub(super) fn status(&self) -> SessionStatus {
        let all = self.core.snapshot().sessions;
        all.into_iter().find(|one| one.session == session()).expect("the session is shown")
    }

    pub(super) fn shown(&self, who: &str) -> Option<ParticipantState> {
        let found = self.status().participants.into_iter().find(|one| one.participant == id(who));
        found.map(|one| one.state)
    }
}

pub(super) fn session() -> SessionId {
    SessionId::parse("s").expect("a plain id")
}

pub(super) fn url(text: &str) -> HubUrl {
    text.parse().expect("a plain address")
}

/// A hub of a network, reached at its address.
pub(super) fn place(url: &HubUrl) -> HubPlace {
    HubPlace { url: url.clone(), owner: HubOwner::Elsewhere }
}

/// The id of a participant; we are `m`.
pub(super) fn id(letter: &str) -> ParticipantId {
    serde_json::from_value(letter.into()).expect("any text is an id")
}

pub(super) fn member(letter: &str) -> Member {
    Member {
        participant: id(letter),
        name: letter.to_uppercase(),
        role: Role::Guest,
        instance: Instance::from_random(1),
        presence: Presence::Here,
    }
}

pub(super) fn joined(kind: SessionKind, role: Role, participants: Vec<Member>) -> HubMessage {
    let limit = kind.default_limit();
    HubMessage::Joined { session: session(), kind, limit, role, participants }
}

pub(super) fn opened(kind: SessionKind, participants: Vec<Member>) -> HubMessage {
    let (limit, owner_key) = (kind.default_limit(), Secret::from_random([1; 16]));
    HubMessage::Opened { session: session(), kind, limit, owner_key, participants }
}

pub(super) fn came(member: Member) -> HubMessage {
    HubMessage::ParticipantJoined { session: session(), participant: member }
}

pub(super) fn left(who: &str, reason: LeaveReason) -> HubMessage {
    HubMessage::ParticipantLeft { session: session(), participant: id(who), reason }
}

pub(super) fn presence(who: &str, presence: Presence) -> HubMessage {
    HubMessage::ParticipantPresence { session: session(), participant: id(who), presence }
}

pub(super) fn away(silent_ms: u64) -> Presence {
    Presence::Away { silent_ms }
}

pub(super) fn word(from: &str, payload: Payload) -> HubMessage {
    HubMessage::Signal { session: session(), from: id(from), payload: payload.into() }
}

pub(super) fn offer(generation: u32) -> Payload {
    Payload::Offer { generation, sdp: "an offer".into() }
}

pub(super) const fn media(microphone: bool, camera: bool) -> Payload {
    Payload::Media { microphone, camera }
}

pub(super) fn refusal(code: ErrorCode) -> HubMessage {
    HubMessage::Error { code, message: "no".into(), session: Some(session()) }
}
