//! The fixture of the unit tests: one core, with short functions for its inputs and effects.

use std::{sync::Arc, time::Duration};

use super::super::{Conference, Effect, HubEvent, HubNews, HubRef, Input};
use crate::model::{
    Command, ErrorCode, Event, Failure, HubEndpoint, HubMessage, HubOwner, HubUrl, Instance,
    JoinTarget, LeaveReason, MediaSet, MediaTime, Member, MuteSwitch, OpenRequest, ParticipantId,
    ParticipantState, Payload, PeerCommand, PeerEvent, PeerId, PeerState, PerSource, Presence,
    Role, Secret, SessionId, SessionKind, SessionStatus, Topology,
};

pub(crate) const MESH: SessionKind =
    SessionKind { media: MediaSet::AUDIO_VIDEO, topology: Topology::ManyToMany };

pub(crate) const BOTH: PerSource<bool> = PerSource::ALL;
pub(crate) const NEITHER: PerSource<bool> = PerSource::NONE;
pub(crate) const CAMERA: PerSource<bool> = PerSource { camera: true, microphone: false };
pub(crate) const MICROPHONE: PerSource<bool> = PerSource { camera: false, microphone: true };

pub(crate) const BROADCAST: SessionKind =
    SessionKind { media: MediaSet::AUDIO_VIDEO, topology: Topology::OneWay };

/// One core, its time, and its last effects.
pub(crate) struct Fixture {
    pub(crate) core: Conference,
    pub(crate) now: MediaTime,
    pub(crate) effects: Vec<Effect>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let now = MediaTime::from_micros(100_000_000);
        Self { core: Conference::new(), now, effects: vec![] }
    }

    /// A guest of session "s", with these other members.
    pub(crate) fn joined(kind: SessionKind, members: Vec<Member>) -> Self {
        let mut fixture = Self::new();
        fixture.join(None, true);
        fixture.hub_up(&HubRef::Default);
        fixture.receive(joined(kind, Role::Guest, members));
        fixture
    }

    /// The opener of session "s", alone in it.
    pub(crate) fn opened(kind: SessionKind) -> Self {
        let mut fixture = Self::new();
        fixture.open(kind);
        fixture.hub_up(&HubRef::Default);
        fixture.receive(opened(kind, vec![]));
        fixture
    }

    pub(crate) fn handle(&mut self, input: Input) -> &mut Self {
        self.core.handle(input, self.now);
        self.fetch()
    }

    pub(crate) fn open(&mut self, kind: SessionKind) -> &mut Self {
        self.handle(Self::open_input(kind))
    }

    pub(crate) fn open_input(kind: SessionKind) -> Input {
        let request = OpenRequest { session: session(), kind, limit: None };
        Input::Command(Command::Open(request))
    }

    /// The default hub is up.
    pub(crate) fn up_input(url: HubUrl) -> Input {
        let endpoint = HubEndpoint { url: url.clone(), owner: HubOwner::ThisUser };
        Input::Hub(HubRef::Default, hub_up_event(url, endpoint, id("m")))
    }

    pub(crate) fn join(&mut self, hub: Option<&str>, wait: bool) -> &mut Self {
        let hub = hub.map(url);
        let target = JoinTarget { session: session(), hub };
        self.handle(Input::Command(Command::Join { target, wait }))
    }

    pub(crate) fn leave(&mut self) -> &mut Self {
        self.handle(Input::Command(Command::Leave { session: session() }))
    }

    pub(crate) fn hub_up(&mut self, hub: &HubRef) -> &mut Self {
        let (url, endpoint) = match hub {
            HubRef::Default => {
                let endpoint =
                    HubEndpoint { url: url("127.0.0.1:7340"), owner: HubOwner::ThisUser };
                (url("10.0.0.1:7340"), endpoint)
            }
            HubRef::At(url) => (url.clone(), endpoint(url)),
        };
        self.handle(Input::Hub(hub.clone(), hub_up_event(url, endpoint, id("m"))))
    }

    pub(crate) fn hub_down(&mut self, hub: &HubRef) -> &mut Self {
        let event = HubEvent::Down { reason: "nobody answers".into() };
        self.handle(Input::Hub(hub.clone(), event))
    }

    pub(crate) fn receive(&mut self, message: HubMessage) -> &mut Self {
        self.receive_from(&HubRef::Default, message)
    }

    pub(crate) fn receive_from(&mut self, hub: &HubRef, message: HubMessage) -> &mut Self {
        self.handle(Input::Hub(hub.clone(), hub_event(message)))
    }

    pub(crate) fn peer_event(&mut self, peer: u64, event: PeerEvent) -> &mut Self {
        self.handle(Input::Peer(PeerId(peer), event))
    }

    pub(crate) fn peer_state(&mut self, peer: u64, state: PeerState) -> &mut Self {
        self.peer_event(peer, PeerEvent::State(state))
    }

    /// Lets time pass, deadline by deadline, and collects the effects of all of them.
    pub(crate) fn advance(&mut self, span: Duration) -> &mut Self {
        let end = self.now + span;
        let mut all = vec![];
        while let Some(due) = self.core.poll_timeout().map(|next| next.at).filter(|due| *due <= end)
        {
            assert!(due >= self.now, "a deadline is in the past");
            self.now = due;
            self.core.handle_timeout(due);
            assert!(
                self.core.poll_timeout().is_none_or(|next| next.at > due),
                "a handled deadline remains"
            );
            all.append(&mut self.fetch().effects);
        }
        self.now = end;
        self.effects = all;
        self
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) -> &mut Self {
        self.advance(Duration::from_millis(ms))
    }

    fn fetch(&mut self) -> &mut Self {
        self.effects = std::iter::from_fn(|| self.core.poll_effect()).collect();
        self.assert_all_is_settled();
        self
    }

    /// What was not touched is as if it had been settled, too.
    fn assert_all_is_settled(&mut self) {
        let (snapshot, deadline) = (self.core.snapshot(), self.core.deadline());
        assert_eq!(*snapshot, self.core.rebuild_snapshot(), "kept and true");
        self.core.settle_everything();
        assert_eq!(self.core.poll_effect(), None, "something was not settled");
        assert_eq!(self.core.deadline(), deadline, "a deadline was not kept");
        assert!(Arc::ptr_eq(&snapshot, &self.core.snapshot()), "a snapshot without a change");
    }

    pub(crate) fn opened_peers(&self) -> Vec<u64> {
        let opened = self.effects.iter().filter_map(|effect| {
            if let Effect::OpenPeer { peer, .. } = effect { Some(peer.0) } else { None }
        });
        opened.collect()
    }

    pub(crate) fn closed_peers(&self) -> Vec<u64> {
        let closed = self.effects.iter().filter_map(|effect| {
            if let Effect::ClosePeer(peer) = effect { Some(peer.0) } else { None }
        });
        closed.collect()
    }

    pub(crate) fn commands(&self) -> Vec<&PeerCommand> {
        let commands = self.effects.iter().filter_map(|effect| {
            if let Effect::Peer { command, .. } = effect { Some(command) } else { None }
        });
        commands.collect()
    }

    pub(crate) fn sent(&self) -> Vec<(&HubRef, &crate::model::ClientMessage)> {
        let sent = self.effects.iter().filter_map(|effect| {
            if let Effect::Send { hub, message } = effect { Some((hub, message)) } else { None }
        });
        sent.collect()
    }

    /// The payloads that were signalled to other participants.
    pub(crate) fn signals(&self) -> Vec<Payload> {
        let payloads = self.sent().into_iter().filter_map(|(_, message)| {
            let crate::model::ClientMessage::Signal { payload, .. } = message else { return None };
            Some(payload.known().clone())
        });
        payloads.collect()
    }

    /// Sets a mute switch of the session, or the global one.
    pub(crate) fn set_switch(
        &mut self,
        session: Option<SessionId>,
        switch: MuteSwitch,
        enabled: bool,
    ) -> &mut Self {
        self.handle(Input::Command(Command::SetEnabled { session, switch, enabled }))
    }

    pub(crate) fn events(&self) -> Vec<&Event> {
        let events = self.effects.iter().filter_map(|effect| {
            if let Effect::Announce(event) = effect { Some(event) } else { None }
        });
        events.collect()
    }

    pub(crate) fn failures(&self) -> Vec<&Failure> {
        let failures = self.events().into_iter().filter_map(|event| {
            if let Event::Failed(failure) = event { Some(failure) } else { None }
        });
        failures.collect()
    }

    /// The states in which participants were announced.
    pub(crate) fn states(&self) -> Vec<ParticipantState> {
        let states = self.events().into_iter().filter_map(|event| {
            if let Event::Participant { state, .. } = event { Some(*state) } else { None }
        });
        states.collect()
    }

    pub(crate) fn status(&self) -> SessionStatus {
        let snapshot = self.core.snapshot();
        let shown = snapshot.sessions.iter().find(|one| one.session == session());
        SessionStatus::clone(shown.expect("the session is shown"))
    }

    pub(crate) fn state_of(&self, letter: &str) -> Option<ParticipantState> {
        let found =
            self.status().participants.into_iter().find(|one| one.participant == id(letter));
        found.map(|one| one.state)
    }
}

/// A hub is up and knows us by this id.
pub(crate) fn hub_up_event(
    url: HubUrl,
    endpoint: HubEndpoint,
    participant: ParticipantId,
) -> HubEvent {
    let instance = Instance::from_random(2);
    HubEvent::Up { url, endpoint, participant, instance, name: "Me".into() }
}

/// A message of the default hub.
pub(crate) fn hub_input(message: HubMessage) -> Input {
    Input::Hub(HubRef::Default, hub_event(message))
}

/// A message of a hub, as the core reads it.
pub(crate) fn hub_event(message: HubMessage) -> HubEvent {
    HubEvent::News(HubNews::of(message).expect("the message is one for the core"))
}

pub(crate) fn session() -> SessionId {
    SessionId::parse("s").expect("a valid id")
}

pub(crate) fn url(text: &str) -> HubUrl {
    text.parse().expect("a valid address")
}

/// The endpoint of a hub on the network, reached at its own address.
pub(crate) fn endpoint(url: &HubUrl) -> HubEndpoint {
    HubEndpoint { url: url.clone(), owner: HubOwner::Elsewhere }
}

/// A participant id; ours is `m`.
pub(crate) fn id(letter: &str) -> ParticipantId {
    serde_json::from_value(letter.into()).expect("any text is an id")
}

pub(crate) fn member(letter: &str) -> Member {
    Member {
        participant: id(letter),
        name: letter.to_uppercase(),
        role: Role::Guest,
        instance: Instance::from_random(1),
        presence: Presence::Here,
    }
}

pub(crate) fn joined(kind: SessionKind, role: Role, participants: Vec<Member>) -> HubMessage {
    let limit = kind.default_limit();
    HubMessage::Joined { session: session(), kind, limit, role, participants }
}

pub(crate) fn opened(kind: SessionKind, participants: Vec<Member>) -> HubMessage {
    let (limit, owner_key) = (kind.default_limit(), Secret::from_random([1; 16]));
    HubMessage::Opened { session: session(), kind, limit, owner_key, participants }
}

pub(crate) fn participant_joined(member: Member) -> HubMessage {
    HubMessage::ParticipantJoined { session: session(), participant: member }
}

pub(crate) fn participant_left(letter: &str, reason: LeaveReason) -> HubMessage {
    HubMessage::ParticipantLeft { session: session(), participant: id(letter), reason }
}

pub(crate) fn presence(letter: &str, presence: Presence) -> HubMessage {
    HubMessage::ParticipantPresence { session: session(), participant: id(letter), presence }
}

pub(crate) fn away(silent_ms: u64) -> Presence {
    Presence::Away { silent_ms }
}

pub(crate) fn signal(from: &str, payload: Payload) -> HubMessage {
    HubMessage::Signal { session: session(), from: id(from), payload: payload.into() }
}

pub(crate) fn offer(generation: u32) -> Payload {
    Payload::Offer { generation, sdp: "an offer".into() }
}

/// The signal that a participant sends these sources.
pub(crate) const fn media(sources: PerSource<bool>) -> Payload {
    let PerSource { camera, microphone } = sources;
    Payload::Media { microphone, camera, tracks: None, wants: None }
}

pub(crate) fn hub_error(code: ErrorCode) -> HubMessage {
    HubMessage::Error { code, message: "no".into(), session: Some(session()) }
}
