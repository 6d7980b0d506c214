//! The core's face: what it is told, what it wants done, how everything is.

mod departure;

use std::collections::BTreeSet;

use super::{
    ask::{Desk, OpenTerms, Wish},
    demand::Demand,
    hubs::Hubs,
    outbox::{Effect, Outbox},
    participant::Participant,
    refusal,
    session::Session,
    words::{HubEvent, HubRef, Input},
};
use crate::model::{
    ChatText, Command, ErrorCode, Gate, Gates, HubMessage, HubUrl, JoinTarget, MediaTime,
    OpenRequest, ParticipantId, PeerEvent, PeerId, SessionId, Snapshot, SourceKind, SourceState,
    clean_sentence,
};

use departure::Departing;

/// Everything that is decided in one process: its sessions, its hubs, its connections.
///
/// After each input or timeout fetch the effects until there is none, then wait for the next input
/// or until [`Self::poll_timeout`], whichever comes first.
#[derive(Debug, Default)]
pub struct Conference {
    hubs: Hubs,
    /// In the order in which they were asked for.
    sessions: Vec<Session>,
    demand: Demand,
    gates: Gates,
    equipped: Gates,
    /// Whose device did not fail.
    working: Gates,
    camera: SourceState,
    microphone: SourceState,
    speaker: SourceState,
    departure: Option<Departing>,
    out: Outbox,
    /// The time that was last told.
    now: MediaTime,
}

impl Conference {
    /// A core without sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one input. What is not expected (any more) is ignored, whoever said it.
    pub fn handle(&mut self, input: Input, now: MediaTime) {
        self.now = now;
        match input {
            Input::Command(command) => self.command(command),
            Input::Hub(hub, event) => self.hub(&hub, event),
            Input::Peer(peer, event) => self.tell(peer, event),
            Input::Source(kind, state) => self.source(kind, state),
            Input::Equipped { camera, microphone } => {
                self.equipped = Gates { camera, microphone, listening: true };
            }
            Input::Preview { camera, microphone } => self.demand.preview((camera, microphone)),
        }
        self.settle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        self.settle();
    }

    /// The oldest effect that was not fetched yet.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.out.pop()
    }

    /// When [`Self::handle_timeout`] is to be called, unless an input comes before.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        let sessions = self.sessions.iter().filter_map(Session::due);
        let departure = self.departure.as_ref().map(Departing::until);
        sessions.chain(self.demand.due()).chain(self.hubs.due()).chain(departure).min()
    }

    /// How everything is.
    pub fn snapshot(&self) -> Snapshot {
        let runs = |source: &SourceState| *source == SourceState::Running;
        let runs = (runs(&self.microphone), runs(&self.camera));
        let staying = self.sessions.iter().filter(|one| !one.is_departing);
        Snapshot {
            hubs: self.hubs.statuses(),
            sessions: staying.map(|one| one.status(&self.hubs, runs)).collect(),
            departure: self.departure_status(runs),
            gates: self.gates,
            camera: self.camera.clone(),
            microphone: self.microphone.clone(),
            speaker: self.speaker.clone(),
        }
    }

    /// The session and participant of an open connection.
    pub fn peer(&self, peer: PeerId) -> Option<(SessionId, ParticipantId)> {
        self.sessions.iter().find_map(|session| {
            let owner = session.participants().iter().find(|one| one.has(peer))?;
            Some((session.id.clone(), owner.id.clone()))
        })
    }

    /// Whom an open connection leads to: the hub, and the participant's id there.
    pub fn participant(&self, peer: PeerId) -> Option<(HubRef, ParticipantId)> {
        self.sessions.iter().find_map(|session| {
            let owner = session.participants().iter().find(|one| one.has(peer))?;
            Some((session.hubs().into_iter().next()?, owner.id.clone()))
        })
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Open(OpenRequest { session, kind, limit }) => {
                let wish = Wish::Open(OpenTerms { kind, limit, or_joins: false });
                self.ask(session, wish, vec![HubRef::Default]);
            }
            Command::Reopen(OpenRequest { session, kind, limit }) => {
                let or_joins = kind.outlives_opener();
                let wish = Wish::Open(OpenTerms { kind, limit, or_joins });
                self.ask(session, wish, vec![HubRef::Default]);
            }
            Command::Join { target: JoinTarget { session, hub }, wait } => {
                let hubs = self.places(hub);
                self.ask(session, Wish::Join { wait }, hubs);
            }
            Command::Leave { session } => self.leave(&session),
            Command::Close { session } => self.close(&session),
            Command::Eject { session, participant, address } => {
                self.as_host(&session, |one, desk| one.eject(&participant, address, desk));
            }
            Command::Allow { session, participant } => {
                self.as_host(&session, |one, desk| one.allow(&participant, desk));
            }
            Command::Lock { session, locked } => {
                self.as_host(&session, |one, desk| one.lock(locked, desk));
            }
            Command::Say { session, text } => self.say(&session, text),
            Command::Rename { name } => self.hubs.rename(name, &mut self.out),
            Command::SetGate { session: Some(session), gate, open } => {
                match self.sessions.iter_mut().find(|one| one.id == session) {
                    Some(one) => one.gates.set(gate, open),
                    None => self.out.fail(refusal::not_here(&session)),
                }
            }
            Command::SetGate { session: None, gate, open } => self.gates.set(gate, open),
            Command::Depart(departure) => self.depart(departure),
            Command::Undo => self.undo(),
            Command::Confirm => self.finish_departure(),
            Command::LeaveAll => {
                self.finish_departure();
                let (sessions, mut desk) = self.desk();
                for mut session in sessions.drain(..) {
                    session.leave(&mut desk);
                }
            }
        }
    }

    fn ask(&mut self, id: SessionId, wish: Wish, hubs: Vec<HubRef>) {
        if self.sessions.iter().any(|one| one.id == id && one.is_departing) {
            self.finish_departure();
        }
        if self.sessions.iter().any(|one| one.id == id && !one.is_over()) {
            self.out.fail(refusal::already_here(&id));
            return;
        }
        let (sessions, mut desk) = self.desk();
        // Who asks again from the lane of one that is over is not heard by it if it was muted.
        let before = sessions.iter().find(|one| one.id == id).map(|one| one.gates);
        sessions.retain(|one| one.id != id);
        let mut session = Session::ask(id, wish, hubs, &mut desk);
        session.gates = before.unwrap_or_default();
        sessions.push(session);
    }

    fn leave(&mut self, id: &SessionId) {
        let Some(index) = self.sessions.iter().position(|one| one.id == *id) else {
            self.out.fail(refusal::not_here(id));
            return;
        };
        let mut session = self.sessions.remove(index);
        session.leave(&mut self.desk().1);
    }

    fn close(&mut self, id: &SessionId) {
        let Some(index) = self.sessions.iter().position(|one| one.id == *id) else {
            self.out.fail(refusal::not_here(id));
            return;
        };
        if !self.sessions[index].is_own() && !self.sessions[index].is_over() {
            self.out.fail(refusal::not_owner(id));
            return;
        }
        let mut session = self.sessions.remove(index);
        session.close(&mut self.desk().1);
    }

    fn as_host(&mut self, id: &SessionId, act: impl FnOnce(&Session, &mut Desk<'_>)) {
        let (sessions, mut desk) = self.desk();
        match sessions.iter().find(|one| one.id == *id) {
            Some(session) => act(session, &mut desk),
            None => self.out.fail(refusal::not_here(id)),
        }
    }

    fn say(&mut self, id: &SessionId, text: ChatText) {
        let (sessions, mut desk) = self.desk();
        match sessions.iter_mut().find(|one| one.id == *id) {
            Some(session) => session.say(text, &mut desk),
            None => self.out.fail(refusal::not_here(id)),
        }
    }

    /// Where a session is sought: a bare id at every hub in use, whether it is up yet or not.
    fn places(&self, hub: Option<HubUrl>) -> Vec<HubRef> {
        match hub {
            Some(url) => vec![self.hubs.at(url)],
            None => {
                let everywhere: BTreeSet<_> =
                    self.hubs.in_use().cloned().chain([HubRef::Default]).collect();
                everywhere.into_iter().collect()
            }
        }
    }

    fn hub(&mut self, hub: &HubRef, event: HubEvent) {
        match event {
            HubEvent::Up { url, place, participant, name } => {
                let (at, who) = ((url.clone(), place), (participant.clone(), name.as_str()));
                if self.hubs.up(hub, at, who, &mut self.out) {
                    let (sessions, mut desk) = self.desk();
                    for session in sessions {
                        session.hub_up(hub, (&url, &participant), &mut desk);
                    }
                }
            }
            HubEvent::Down { reason } => {
                if self.hubs.down(hub, &reason, &mut self.out) {
                    let (sessions, mut desk) = self.desk();
                    for session in sessions {
                        session.hub_down(hub, &reason, &mut desk);
                    }
                }
            }
            HubEvent::Moved { url } => {
                if self.hubs.moved(hub, &url, &mut self.out) {
                    let (sessions, mut desk) = self.desk();
                    for session in sessions {
                        session.hub_moved(hub, &url, &mut desk);
                    }
                }
            }
            HubEvent::Guests { count } => self.hubs.set_guests(hub, count),
            HubEvent::Message(HubMessage::Error { code, message, session }) => {
                let message = clean_sentence(&message);
                self.hear(hub, HubMessage::Error { code, message, session });
            }
            HubEvent::Message(message) => self.hear(hub, message),
        }
    }

    fn hear(&mut self, hub: &HubRef, message: HubMessage) {
        if !self.hubs.is_up(hub) {
            return;
        }
        if let Some(id) = subject(&message) {
            let (sessions, mut desk) = self.desk();
            if let Some(session) = sessions.iter_mut().find(|one| one.id == *id) {
                session.hear(hub, message, &mut desk);
            }
        } else if let HubMessage::Renamed { .. } = message {
            self.hubs.renamed(hub);
        } else if let HubMessage::Error { code: ErrorCode::Unsupported, .. } = message
            && self.hubs.refuses_rename(hub)
        {
            let name = refusal::hub_name(hub, self.hubs.url(hub).as_ref());
            self.out.fail(refusal::renames_later(&name));
        } else if let HubMessage::Error { code, message, .. } = message {
            let name = refusal::hub_name(hub, self.hubs.url(hub).as_ref());
            self.out.fail(refusal::complaint(code, &name, &message));
        }
    }

    fn tell(&mut self, peer: PeerId, event: PeerEvent) {
        let (sessions, mut desk) = self.desk();
        let is_owner = |session: &&mut Session| {
            session.participants().iter().any(|participant| participant.has(peer))
        };
        if let Some(session) = sessions.iter_mut().find(is_owner) {
            session.tell(peer, event, &mut desk);
        }
    }

    fn source(&mut self, kind: SourceKind, state: SourceState) {
        let (source, gate) = match kind {
            SourceKind::Camera => (&mut self.camera, Gate::Camera),
            SourceKind::Microphone => (&mut self.microphone, Gate::Microphone),
            SourceKind::Speaker => (&mut self.speaker, Gate::Listening),
        };
        if let SourceState::Failed { message } = &state
            && *source != state
        {
            self.out.fail(refusal::device(kind, message));
        }
        // One that is opened again may fail again.
        if state != SourceState::Opening {
            self.working.set(gate, !matches!(state, SourceState::Failed { .. }));
        }
        *source = state;
    }

    /// Does what is due, and what follows from what was done.
    fn settle(&mut self) {
        self.settle_departure();
        let (outside, working) = (self.gates.and(self.equipped), self.working);
        let (sessions, mut desk) = self.desk();
        for session in sessions {
            session.advance(&mut desk);
            session.pass(outside, working, &mut desk);
        }
        let used: BTreeSet<_> = self.sessions.iter().flat_map(Session::hubs).collect();
        self.hubs.settle(&used, self.now, &mut self.out);
        let participants = self.sessions.iter().flat_map(Session::participants);
        self.demand.settle(participants.filter_map(Participant::peer), self.now, &mut self.out);
    }

    fn desk(&mut self) -> (&mut Vec<Session>, Desk<'_>) {
        let desk = Desk { now: self.now, hubs: &mut self.hubs, out: &mut self.out };
        (&mut self.sessions, desk)
    }
}

/// The session that a message is about.
const fn subject(message: &HubMessage) -> Option<&SessionId> {
    match message {
        HubMessage::Opened { session, .. }
        | HubMessage::Joined { session, .. }
        | HubMessage::Waiting { session }
        | HubMessage::ParticipantJoined { session, .. }
        | HubMessage::ParticipantLeft { session, .. }
        | HubMessage::ParticipantPresence { session, .. }
        | HubMessage::ParticipantRenamed { session, .. }
        | HubMessage::Owner { session, .. }
        | HubMessage::Access { session, .. }
        | HubMessage::Closed { session, .. }
        | HubMessage::Signal { session, .. } => Some(session),
        HubMessage::Error { session, .. } => session.as_ref(),
        HubMessage::Welcome { .. }
        | HubMessage::LinkBase { .. }
        | HubMessage::Renamed { .. }
        | HubMessage::Pong => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::stage::*;
    use super::*;
    use crate::model::{
        ClientMessage, ErrorCode, Event, FailureCode, LeaveReason, ParticipantState, Payload,
        PeerState, Role,
    };

    #[test]
    fn all_sessions_are_left_at_once() {
        let mut stage = Stage::opened(MESH);
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other.clone(), kind: BROADCAST, limit: Some(3) };
        stage.give(Input::Command(Command::Open(request)));
        stage.give(Input::Command(Command::LeaveAll));
        let said: Vec<_> = stage.sent().into_iter().map(|(_, message)| message.clone()).collect();
        let leave = |session| ClientMessage::Leave { session };
        assert_eq!(said, [leave(session()), leave(other)]);
        assert!(stage.core.snapshot().sessions.is_empty());
    }

    #[test]
    fn a_session_that_is_not_here_cannot_be_left() {
        let mut stage = Stage::new();
        stage.leave();
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
    }

    #[test]
    fn a_source_that_fails_is_told_once_and_shown() {
        let failed = SourceState::Failed { message: "camera \"HD\" was unplugged".into() };
        let mut stage = Stage::new();
        stage.give(Input::Source(SourceKind::Camera, failed.clone()));
        assert_eq!(stage.failures()[0].code, FailureCode::Device(SourceKind::Camera));
        stage.give(Input::Source(SourceKind::Camera, failed.clone()));
        assert_eq!((stage.done.len(), stage.core.snapshot().camera), (0, failed));
        stage.give(Input::Source(SourceKind::Camera, SourceState::Running));
        assert_eq!((stage.done.len(), stage.core.snapshot().camera), (0, SourceState::Running));
    }

    #[test]
    fn a_hubs_complaint_about_nothing_in_particular_is_told() {
        let mut stage = Stage::opened(MESH);
        let (code, message) = (ErrorCode::TooMany, "slow down".to_owned());
        stage.hear(HubMessage::Error { code, message, session: None });
        assert!(stage.failures()[0].message.ends_with("slow down"));
        assert_eq!(stage.status().participants, []);
    }

    fn rename(name: &str) -> Input {
        Input::Command(Command::Rename { name: name.to_owned() })
    }

    #[test]
    fn a_new_name_is_told_to_the_hubs_that_are_up_and_to_others_in_their_hello() {
        let mut stage = Stage::opened(MESH);
        stage.give(rename("Grace"));
        let told = ClientMessage::Rename { name: "Grace".into() };
        let send = Effect::Send { hub: HubRef::Default, message: told.clone() };
        assert_eq!(stage.done, [Effect::SetName("Grace".into()), send]);
        stage.hear(HubMessage::Renamed { name: "Grace".into() });
        assert_eq!(stage.done, []);
        stage.down(&HubRef::Default).give(rename("Ada"));
        assert_eq!(stage.done, [Effect::SetName("Ada".into())]);
        // The hello was under way with the name of before.
        stage.up(&HubRef::Default);
        let told = ClientMessage::Rename { name: "Ada".into() };
        assert!(stage.sent().contains(&(&HubRef::Default, &told)), "{:?}", stage.sent());
    }

    #[test]
    fn at_a_hub_of_an_earlier_version_it_is_said_when_the_name_will_hold() {
        let mut stage = Stage::opened(MESH);
        let unsupported = || {
            let (code, message) = (ErrorCode::Unsupported, "what is a rename?".to_owned());
            HubMessage::Error { code, message, session: None }
        };
        stage.give(rename("Grace")).hear(unsupported());
        assert_eq!(stage.failures()[0].code, FailureCode::Rename);
        assert!(stage.failures()[0].message.contains("your new name from your next connection"));
        stage.hear(unsupported());
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::Unsupported));
    }

    /// Anything that a hub, or somebody through it, may say or a connection tell.
    fn input() -> impl Strategy<Value = Input> {
        let who = prop_oneof![Just("a"), Just("z"), Just("m"), Just("stranger")];
        let payload = prop_oneof![
            any::<u32>().prop_map(offer),
            (0_u32..4).prop_map(offer),
            (0_u32..4).prop_map(|generation| Payload::Answer { generation, sdp: "x".into() }),
            (0_u32..4).prop_map(|generation| Payload::Candidate {
                generation,
                candidate: "candidate:1".into(),
                mid: None,
                line: None,
            }),
            Just(Payload::Unknown),
        ];
        let state = prop_oneof![
            Just(PeerState::Connected),
            Just(PeerState::Disconnected),
            Just(PeerState::Failed),
        ];
        let said = prop_oneof![
            who.clone().prop_map(|who| came(member(who))),
            who.clone().prop_map(|who| left(who, LeaveReason::Lost)),
            (who.clone(), any::<u64>()).prop_map(|(who, ms)| presence(who, away(ms))),
            (who.clone(), payload).prop_map(|(who, payload)| word(who, payload)),
            who.clone().prop_map(|who| joined(MESH, Role::Guest, vec![member(who)])),
            who.prop_map(|who| HubMessage::Owner {
                session: session(),
                participant: id(who),
                owner_key: None,
            }),
            Just(HubMessage::Waiting { session: session() }),
            Just(refusal(ErrorCode::IdTaken)),
        ];
        prop_oneof![
            4 => said.prop_map(|said| Input::Hub(HubRef::Default, HubEvent::Message(said))),
            2 => (0_u64..9, state)
                .prop_map(|(peer, state)| Input::Peer(PeerId(peer), PeerEvent::State(state))),
            1 => Just(Input::Hub(HubRef::Default, HubEvent::Down { reason: "x".into() })),
            1 => Just(Input::Hub(HubRef::Default, HubEvent::Up {
                url: url("h:1"),
                place: place(&url("h:1")),
                participant: id("m"),
                name: "Me".into(),
            })),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn whatever_is_said_nothing_panics_and_news_and_snapshot_agree(
            story in proptest::collection::vec((input(), 0_u64..20_000), 1..80),
        ) {
            let mut stage = Stage::joined(MESH, vec![member("a")]);
            let mut told = std::collections::BTreeMap::from([(id("a"), stage.shown("a").unwrap())]);
            for (input, pause) in story {
                stage.give(input);
                let mut news: Vec<_> = stage.events().into_iter().cloned().collect();
                stage.pass_ms(pause);
                news.extend(stage.events().into_iter().cloned());
                for one in news {
                    if let Event::Participant { participant, state, .. } = one {
                        let before = told.insert(participant.clone(), state);
                        prop_assert_ne!(before, Some(state), "told again");
                        if state == ParticipantState::Left {
                            told.remove(&participant);
                        }
                    } else if let Event::Ended { .. } = one {
                        told.clear();
                    }
                }
                let status = stage.status();
                let shown = status.participants.into_iter().map(|one| (one.participant, one.state));
                prop_assert_eq!(shown.collect::<std::collections::BTreeMap<_, _>>(), told.clone());
            }
        }
    }
}
