//! The interface of the core: inputs, effects, deadlines and snapshots.

mod departure;
mod limits;
mod priority;
mod settle;

use std::{collections::BTreeSet, sync::Arc};

use super::{
    context::CoreContext,
    deadline::{Deadline, TimerName},
    demand::Demand,
    effects::{Effect, EffectQueue},
    hub_news::HubNews,
    hubs::{HubIdentity, Hubs},
    input::{HubEvent, HubRef, Input},
    lookup::{OpenOptions, SessionRequest},
    microphone::Microphone,
    session::Session,
    sound_check::SoundChecks,
};
use crate::model::{
    ChatText, Command, DeviceKind, DeviceState, Enabled, ErrorCode, Failure, FailureCause,
    HubFailure, HubUrl, JoinTarget, MediaTime, MicrophoneActivity, OpenRequest, ParticipantId,
    PeerEvent, PeerId, PerDevice, PerSource, SessionFailure, SessionId, ShownSize, Snapshot,
};

use departure::PendingDeparture;
use limits::SendingLimits;
pub use priority::SessionPriority;
use priority::SpokenSessions;
use settle::SettleContext;

/// All decisions of one process: its sessions, hubs and peer connections.
///
/// After each input or timeout, fetch effects until there is none. Then wait for the next input or
/// for the deadline of [`Self::poll_timeout`], whichever comes first.
#[derive(Debug)]
pub struct Conference {
    hubs: Hubs,
    /// In the order in which they were requested.
    sessions: Vec<Session>,
    demand: Demand,
    enabled: Enabled,
    /// The sources that exist.
    available: PerSource<bool>,
    /// The sources that have not failed.
    working: PerSource<bool>,
    devices: PerDevice<DeviceState>,
    microphone: Microphone,
    limits: SendingLimits,
    spoken: SpokenSessions,
    sound_checks: SoundChecks,
    departure: Option<PendingDeparture>,
    /// The switches and sources for which the sessions were last settled. If they change, all are
    /// settled.
    settled_for: Option<SettleContext>,
    snapshot: Arc<Snapshot>,
    effects: EffectQueue,
    /// The time of the last call.
    now: MediaTime,
}

impl Default for Conference {
    fn default() -> Self {
        Self {
            hubs: Hubs::default(),
            sessions: vec![],
            demand: Demand::default(),
            enabled: Enabled::default(),
            available: PerSource::ALL,
            working: PerSource::ALL,
            devices: PerDevice::default(),
            microphone: Microphone::default(),
            limits: SendingLimits::default(),
            spoken: SpokenSessions::default(),
            sound_checks: SoundChecks::default(),
            departure: None,
            settled_for: None,
            snapshot: Arc::default(),
            effects: EffectQueue::default(),
            now: MediaTime::default(),
        }
    }
}

impl Conference {
    /// A core without sessions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Handles one input. An input that is not expected, or not any more, is ignored.
    pub fn handle(&mut self, input: Input, now: MediaTime) {
        self.now = now;
        match input {
            Input::Command(command) => self.handle_command(command),
            Input::Hub(hub, event) => self.handle_hub_event(&hub, event),
            Input::Peer(peer, event) => self.handle_peer_event(peer, event),
            Input::Device(kind, state) => self.handle_device_state(kind, state),
            Input::MicrophoneActivity(activity) => {
                self.microphone.set_activity(activity, &mut self.effects);
            }
            Input::EncoderLate(is_late) => {
                self.limits.set_encoder_late(is_late, &mut self.effects);
            }
            Input::UploadFull(is_full) => {
                self.limits.set_upload_full(is_full, &mut self.effects);
            }
            Input::SoundCheck(stage) => self.sound_checks.set_stage(stage),
            Input::SourcesAvailable(available) => self.available = available,
            Input::Preview(sources) => self.demand.set_preview(sources),
            Input::ActiveSpeaker(session, speaker) => self.set_active_speaker(&session, speaker),
            Input::Shown(peer, sizes) => self.set_shown(peer, sizes),
        }
        self.settle();
    }

    /// Handles all deadlines up to `now`.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        self.settle();
    }

    /// The oldest effect that was not fetched yet.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop()
    }

    /// The time at which to call [`Self::handle_timeout`], unless an input comes first, and the
    /// timer that runs out then. Other timers may run out at the same time.
    pub fn poll_timeout(&self) -> Option<Deadline<'_>> {
        let sessions = self.sessions.iter().filter_map(Session::next_deadline);
        let departure =
            self.departure.as_ref().map(|departing| TimerName::Departure.at(departing.until()));
        sessions
            .chain(self.demand.next_deadline())
            .chain(self.hubs.next_deadline())
            .chain(departure)
            .min()
    }

    /// The current state. While nothing changes, this returns the same [`Arc`]; a new one shares the
    /// sessions and participants that did not change.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// The session and the participant of an open peer connection.
    pub fn session_of_peer(&self, peer: PeerId) -> Option<(SessionId, ParticipantId)> {
        let owner = self.effects.owner_of(peer)?;
        Some((owner.session.clone(), owner.participant.clone()))
    }

    /// The hub of an open peer connection, and the id of its participant at that hub.
    pub fn hub_of_peer(&self, peer: PeerId) -> Option<(HubRef, ParticipantId)> {
        let owner = self.effects.owner_of(peer)?;
        Some((owner.hub.clone(), owner.participant.clone()))
    }

    /// The generation of an open peer connection.
    pub fn generation_of_peer(&self, peer: PeerId) -> Option<u32> {
        Some(self.effects.owner_of(peer)?.generation)
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Open(OpenRequest { session, kind, limit }) => {
                let request =
                    SessionRequest::Open(OpenOptions { kind, limit, join_if_taken: false });
                self.request_session(session, request, vec![HubRef::Default]);
            }
            Command::Reopen(OpenRequest { session, kind, limit }) => {
                let join_if_taken = kind.outlives_opener();
                let request = SessionRequest::Open(OpenOptions { kind, limit, join_if_taken });
                self.request_session(session, request, vec![HubRef::Default]);
            }
            Command::Join { target: JoinTarget { session, hub }, wait } => {
                let hubs = self.hubs_to_search(hub);
                self.request_session(session, SessionRequest::Join { wait }, hubs);
            }
            Command::Leave { session } => self.leave(&session),
            Command::Close { session } => self.close(&session),
            Command::Eject { session, participant, address } => {
                self.as_host(&session, |one, cx| one.eject(&participant, address, cx));
            }
            Command::Allow { session, participant } => {
                self.as_host(&session, |one, cx| one.allow(&participant, cx));
            }
            Command::Lock { session, locked } => {
                self.as_host(&session, |one, cx| one.lock(locked, cx));
            }
            Command::SendMessage { session, text } => self.send_message(&session, text),
            Command::Rename { name } => self.hubs.rename(name, &mut self.effects),
            Command::SetVoiceProcessing(chosen) => {
                self.microphone.processing = chosen;
                self.effects.push(Effect::SetVoiceProcessing(chosen));
            }
            Command::StartSoundCheck(check) => self.sound_checks.start(check, &mut self.effects),
            Command::SetPriority { session, raised } => self.set_priority(session, raised),
            Command::SetEnabled { session: Some(session), switch, enabled } => {
                self.change_session(&session, |one| one.enabled.set(switch, enabled));
            }
            Command::SetDataUse { session, data_use } => {
                self.change_session(&session, |one| one.set_data_use(data_use));
            }
            Command::SetEnabled { session: None, switch, enabled } => {
                self.enabled.set(switch, enabled);
            }
            Command::Depart(departure) => self.depart(departure),
            Command::Undo => self.undo(),
            Command::Confirm => self.finish_departure(),
            Command::LeaveAll => {
                self.finish_departure();
                let (sessions, mut cx) = self.sessions_and_context();
                for mut session in sessions.drain(..) {
                    session.leave(&mut cx);
                }
            }
        }
    }

    fn request_session(&mut self, id: SessionId, request: SessionRequest, hubs: Vec<HubRef>) {
        if self.sessions.iter().any(|one| one.id == id && one.is_departing) {
            self.finish_departure();
        }
        if self.sessions.iter().any(|one| one.id == id && !one.is_ended()) {
            self.effects.announce_failure(SessionFailure::AlreadyHere.of(&id));
            return;
        }
        let (sessions, mut cx) = self.sessions_and_context();
        let index = sessions.iter().position(|one| one.id == id);
        let ended = index.map(|index| sessions.remove(index));
        let mut session = Session::request(id, request, hubs, &mut cx);
        if let Some(ended) = ended {
            session.keep_choices(&ended);
        }
        sessions.push(session);
    }

    fn leave(&mut self, id: &SessionId) {
        let Some(index) = self.sessions.iter().position(|one| one.id == *id) else {
            self.effects.announce_failure(SessionFailure::NotInSession.of(id));
            return;
        };
        let mut session = self.sessions.remove(index);
        session.leave(&mut self.context());
    }

    fn close(&mut self, id: &SessionId) {
        let Some(index) = self.sessions.iter().position(|one| one.id == *id) else {
            self.effects.announce_failure(SessionFailure::NotInSession.of(id));
            return;
        };
        if !self.sessions[index].is_own() && !self.sessions[index].is_ended() {
            self.effects.announce_failure(SessionFailure::NotOwner.of(id));
            return;
        }
        let mut session = self.sessions.remove(index);
        session.close(&mut self.context());
    }

    fn as_host(&mut self, id: &SessionId, action: impl FnOnce(&Session, &mut CoreContext<'_>)) {
        let (session, mut cx) = self.session_and_context(id);
        match session {
            Some(session) => action(session, &mut cx),
            None => self.effects.announce_failure(SessionFailure::NotInSession.of(id)),
        }
    }

    fn send_message(&mut self, id: &SessionId, text: ChatText) {
        let (session, mut cx) = self.session_and_context(id);
        match session {
            Some(session) => session.send_message(text, &mut cx),
            None => self.effects.announce_failure(SessionFailure::NotInSession.of(id)),
        }
    }

    /// The hubs at which a session is looked up: for a bare id every hub in use, whether it is up
    /// or not.
    fn hubs_to_search(&self, hub: Option<HubUrl>) -> Vec<HubRef> {
        match hub {
            Some(url) => vec![self.hubs.hub_at(url)],
            None => {
                let all: BTreeSet<_> =
                    self.hubs.in_use().cloned().chain([HubRef::Default]).collect();
                all.into_iter().collect()
            }
        }
    }

    fn handle_hub_event(&mut self, hub: &HubRef, event: HubEvent) {
        match event {
            HubEvent::Up { url, endpoint, participant, instance, name } => {
                let address = (url.clone(), endpoint);
                let us = HubIdentity { me: participant.clone(), instance, name };
                if self.hubs.on_up(hub, address, us, &mut self.effects) {
                    let (sessions, mut cx) = self.sessions_and_context();
                    for session in sessions {
                        session.on_hub_up(hub, (&url, &participant), &mut cx);
                    }
                }
            }
            HubEvent::Down { reason } => {
                if self.hubs.on_down(hub, &reason, &mut self.effects) {
                    let (sessions, mut cx) = self.sessions_and_context();
                    for session in sessions {
                        session.on_hub_down(hub, &reason, &mut cx);
                    }
                }
            }
            HubEvent::AddressChanged { url } => {
                if self.hubs.on_address_changed(hub, &url, &mut self.effects) {
                    let (sessions, mut cx) = self.sessions_and_context();
                    for session in sessions {
                        session.on_hub_address_changed(hub, &url, &mut cx);
                    }
                }
            }
            HubEvent::Guests { count } => self.hubs.set_guests(hub, count),
            HubEvent::News(news) => self.handle_hub_news(hub, news),
        }
    }

    fn handle_hub_news(&mut self, hub: &HubRef, news: HubNews) {
        if !self.hubs.is_up(hub) {
            return;
        }
        match news {
            HubNews::Session(id, news) => {
                let (session, mut cx) = self.session_and_context(&id);
                if let Some(session) = session {
                    session.handle_news(hub, news, &mut cx);
                }
            }
            HubNews::Renamed => self.hubs.on_renamed(hub),
            HubNews::Refused { code, message } => {
                let is_rename =
                    code == ErrorCode::Unsupported && self.hubs.take_rename_refusal(hub);
                let failure = if is_rename {
                    HubFailure::RenameUnsupported
                } else {
                    HubFailure::Reported { code, reason: message }
                };
                let cause = FailureCause::Hub { hub: self.hubs.shown_url(hub), failure };
                self.effects.announce_failure(Failure { cause, session: None });
            }
        }
    }

    fn handle_peer_event(&mut self, peer: PeerId, event: PeerEvent) {
        let Some(owner) = self.effects.owner_of(peer).cloned() else { return };
        let (session, mut cx) = self.session_and_context(&owner.session);
        if let Some(session) = session {
            session.handle_peer_event(&owner.participant, event, &mut cx);
        }
    }

    fn set_shown(&mut self, peer: PeerId, sizes: PerSource<Option<ShownSize>>) {
        let Some(owner) = self.effects.owner_of(peer).cloned() else { return };
        if let (Some(session), _) = self.session_and_context(&owner.session) {
            session.set_shown(&owner.participant, sizes);
        }
    }

    fn handle_device_state(&mut self, kind: DeviceKind, state: DeviceState) {
        let device = &mut self.devices[kind];
        if let DeviceState::Failed { message } = &state
            && *device != state
        {
            let cause = FailureCause::Device { device: kind, reason: message.clone() };
            self.effects.announce_failure(Failure { cause, session: None });
        }
        // A device that is opened again may fail again.
        if let DeviceKind::Source(source) = kind
            && state != DeviceState::Opening
        {
            self.working[source] = !matches!(state, DeviceState::Failed { .. });
        }
        if kind == DeviceKind::MICROPHONE && *device != state {
            self.microphone.set_activity(MicrophoneActivity::default(), &mut self.effects);
        }
        *device = state;
    }

    /// The session with that id, which the caller may change, and the context for it.
    fn session_and_context(&mut self, id: &SessionId) -> (Option<&mut Session>, CoreContext<'_>) {
        let mut session = self.sessions.iter_mut().find(|one| one.id == *id);
        if let Some(session) = &mut session {
            session.is_touched = true;
        }
        let cx = CoreContext { now: self.now, hubs: &mut self.hubs, effects: &mut self.effects };
        (session, cx)
    }

    /// All sessions, which the caller may change, and the context for them.
    fn sessions_and_context(&mut self) -> (&mut Vec<Session>, CoreContext<'_>) {
        for session in &mut self.sessions {
            session.is_touched = true;
        }
        let cx = CoreContext { now: self.now, hubs: &mut self.hubs, effects: &mut self.effects };
        (&mut self.sessions, cx)
    }

    /// The context for a session that is not in the list.
    fn context(&mut self) -> CoreContext<'_> {
        CoreContext { now: self.now, hubs: &mut self.hubs, effects: &mut self.effects }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::tests::fixture::*;
    use super::*;
    use crate::model::{
        ClientMessage, ErrorCode, Event, FailureCode, HubMessage, Instance, LeaveReason,
        ParticipantState, Payload, PeerState, Role,
    };

    #[test]
    fn all_sessions_are_left_at_once() {
        let mut fixture = Fixture::opened(MESH);
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other.clone(), kind: BROADCAST, limit: Some(3) };
        fixture.handle(Input::Command(Command::Open(request)));
        fixture.handle(Input::Command(Command::LeaveAll));
        let sent: Vec<_> = fixture.sent().into_iter().map(|(_, message)| message.clone()).collect();
        let leave = |session| ClientMessage::Leave { session };
        assert_eq!(sent, [leave(session()), leave(other)]);
        assert!(fixture.core.snapshot().sessions.is_empty());
    }

    #[test]
    fn leaving_an_unknown_session_fails() {
        let mut fixture = Fixture::new();
        fixture.leave();
        assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NoSuchSession));
    }

    #[test]
    fn a_failed_source_is_reported_once_and_shown() {
        let failed = DeviceState::Failed { message: "camera \"HD\" was unplugged".into() };
        let mut fixture = Fixture::new();
        fixture.handle(Input::Device(DeviceKind::CAMERA, failed.clone()));
        assert_eq!(fixture.failures()[0].code(), FailureCode::Device(DeviceKind::CAMERA));
        fixture.handle(Input::Device(DeviceKind::CAMERA, failed.clone()));
        assert_eq!(
            (fixture.effects.len(), fixture.core.snapshot().devices.sources.camera.clone()),
            (0, failed)
        );
        fixture.handle(Input::Device(DeviceKind::CAMERA, DeviceState::Running));
        assert_eq!(
            (fixture.effects.len(), fixture.core.snapshot().devices.sources.camera.clone()),
            (0, DeviceState::Running)
        );
    }

    #[test]
    fn an_error_of_a_hub_about_no_session_is_reported() {
        let mut fixture = Fixture::opened(MESH);
        let (code, message) = (ErrorCode::TooMany, "slow down".to_owned());
        fixture.receive(HubMessage::Error { code, message, session: None });
        let failure = HubFailure::Reported { code: ErrorCode::TooMany, reason: "slow down".into() };
        let cause = FailureCause::Hub { hub: Some(url("10.0.0.1:7340")), failure };
        assert_eq!(fixture.failures(), [&Failure { cause, session: None }]);
        assert!(fixture.status().participants.is_empty());
    }

    fn rename(name: &str) -> Input {
        Input::Command(Command::Rename { name: name.to_owned() })
    }

    #[test]
    fn a_new_name_is_sent_to_the_hubs_that_are_up_and_to_others_in_their_hello() {
        let mut fixture = Fixture::opened(MESH);
        fixture.handle(rename("Grace"));
        let rename_message = ClientMessage::Rename { name: "Grace".into() };
        let send = Effect::Send { hub: HubRef::Default, message: rename_message.clone() };
        assert_eq!(fixture.effects, [Effect::SetName("Grace".into()), send]);
        fixture.receive(HubMessage::Renamed { name: "Grace".into() });
        assert_eq!(fixture.effects, []);
        fixture.hub_down(&HubRef::Default).handle(rename("Ada"));
        assert_eq!(fixture.effects, [Effect::SetName("Ada".into())]);
        // The hello was sent with the old name.
        fixture.hub_up(&HubRef::Default);
        let rename_message = ClientMessage::Rename { name: "Ada".into() };
        assert!(
            fixture.sent().contains(&(&HubRef::Default, &rename_message)),
            "{:?}",
            fixture.sent()
        );
    }

    #[test]
    fn a_rename_at_an_older_hub_fails_and_says_when_the_name_takes_effect() {
        let mut fixture = Fixture::opened(MESH);
        let unsupported = || {
            let (code, message) = (ErrorCode::Unsupported, "what is a rename?".to_owned());
            HubMessage::Error { code, message, session: None }
        };
        fixture.handle(rename("Grace")).receive(unsupported());
        assert_eq!(fixture.failures()[0].code(), FailureCode::Rename);
        fixture.receive(unsupported());
        assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::Unsupported));
    }

    /// Any input that a hub, or a remote peer through it, or a peer connection may produce.
    fn input() -> impl Strategy<Value = Input> {
        let letter = prop_oneof![Just("a"), Just("z"), Just("m"), Just("stranger")];
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
        let message = prop_oneof![
            letter.clone().prop_map(|letter| participant_joined(member(letter))),
            letter.clone().prop_map(|letter| participant_left(letter, LeaveReason::Lost)),
            (letter.clone(), any::<u64>()).prop_map(|(letter, ms)| presence(letter, away(ms))),
            (letter.clone(), payload).prop_map(|(letter, payload)| signal(letter, payload)),
            letter.clone().prop_map(|letter| joined(MESH, Role::Guest, vec![member(letter)])),
            letter.prop_map(|letter| HubMessage::Owner {
                session: session(),
                participant: id(letter),
                owner_key: None,
            }),
            Just(HubMessage::Waiting { session: session() }),
            Just(hub_error(ErrorCode::IdTaken)),
        ];
        prop_oneof![
            4 => message
                .prop_map(|message| Input::Hub(HubRef::Default, hub_event(message))),
            2 => (0_u64..9, state)
                .prop_map(|(peer, state)| Input::Peer(PeerId(peer), PeerEvent::State(state))),
            1 => Just(Input::Hub(HubRef::Default, HubEvent::Down { reason: "x".into() })),
            1 => Just(Input::Hub(HubRef::Default, HubEvent::Up {
                url: url("h:1"),
                endpoint: endpoint(&url("h:1")),
                participant: id("m"),
                instance: Instance::from_random(2),
                name: "Me".into(),
            })),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_input_panics_and_events_and_snapshots_agree(
            inputs in proptest::collection::vec((input(), 0_u64..20_000), 1..80),
        ) {
            let mut fixture = Fixture::joined(MESH, vec![member("a")]);
            let mut announced = BTreeMap::from([(id("a"), fixture.state_of("a").unwrap())]);
            for (input, pause) in inputs {
                fixture.handle(input);
                let mut events: Vec<_> = fixture.events().into_iter().cloned().collect();
                fixture.advance_ms(pause);
                events.extend(fixture.events().into_iter().cloned());
                for one in events {
                    if let Event::Participant { participant, state, .. } = one {
                        let before = announced.insert(participant.clone(), state);
                        prop_assert_ne!(before, Some(state), "announced again");
                        if state == ParticipantState::Left {
                            announced.remove(&participant);
                        }
                    } else if let Event::Ended { .. } = one {
                        announced.clear();
                    }
                }
                let status = fixture.status();
                let shown = status.participants.into_iter().map(|one| (one.participant, one.state));
                prop_assert_eq!(shown.collect::<BTreeMap<_, _>>(), announced.clone());
            }
        }
    }
}
