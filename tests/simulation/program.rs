//! One program: the core, and in place of the engine code that carries out its effects and asserts
//! that each is sensible.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use quintet::{
    conference::{Conference, Effect, HubRef, Input},
    model::{
        ClientMessage, EndReason, Event, HubMessage, Instance, MediaTime, ParticipantId,
        ParticipantState, Payload, PeerCommand, PeerEvent, PeerId, PerDevice, PerSource, Secret,
        SessionId, Snapshot,
    },
};

use super::{
    connection::Connection,
    mutant::Shim,
    mute_switches::is_of_version_1,
    rng::SeededRng,
    script::Wanted,
    sockets::{Client, SocketMessage},
    world::{ScheduledEvent, Verdict, World},
};

/// One program of one user.
pub(crate) struct Program {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) core: Option<Conference>,
    /// The number of times that the program was started.
    pub(crate) life: u32,
    pub(crate) token: Secret,
    digest: [u8; 10],
    pub(crate) instance: Instance,
    pub(crate) keys: BTreeMap<SessionId, Secret>,
    pub(crate) client: Client,
    /// The sessions that the user wants to be in.
    pub(crate) wants: BTreeMap<SessionId, Wanted>,
    /// What the user wanted of sessions that are being left.
    pub(crate) departing: BTreeMap<SessionId, Wanted>,
    /// The open peer connections.
    pub(crate) peers: BTreeMap<PeerId, usize>,
    /// The participants and their states, as they were announced.
    pub(crate) announced: BTreeMap<(SessionId, ParticipantId), ParticipantState>,
    /// The computer's network; it increases at each change.
    pub(crate) network: u32,
    /// Until when faults disturb the program, so that limits do not hold for it.
    pub(crate) disturbed_until: u64,
    pub(crate) demand: PerDevice<bool>,
    /// When the user last left a session.
    pub(crate) left_at: u64,
    /// Why and when sessions ended for it.
    pub(crate) ended: BTreeMap<SessionId, (EndReason, u64)>,
    /// The sessions that the user has been in.
    pub(crate) was_in: BTreeSet<SessionId>,
    pub(crate) shim: Shim,
    newest_peer: PeerId,
    /// The epoch of this process's clock.
    epoch: u64,
    deadline: Option<u64>,
    /// Whether the snapshot was compared with what is true since the last input.
    is_snapshot_checked: Cell<bool>,
}

impl Program {
    pub(crate) fn new(index: usize, rng: &mut SeededRng) -> Self {
        let mut new = Self {
            index,
            name: format!("P{index}"),
            core: None,
            life: 0,
            token: Secret::from_random([0; 16]),
            digest: [0; 10],
            instance: Instance::from_random(0),
            keys: BTreeMap::new(),
            client: Client::default(),
            wants: BTreeMap::new(),
            departing: BTreeMap::new(),
            peers: BTreeMap::new(),
            announced: BTreeMap::new(),
            network: 0,
            disturbed_until: 0,
            demand: PerDevice::default(),
            left_at: 0,
            ended: BTreeMap::new(),
            was_in: BTreeSet::new(),
            shim: Shim::default(),
            newest_peer: PeerId(0),
            epoch: 0,
            deadline: None,
            is_snapshot_checked: Cell::new(false),
        };
        new.start(true, rng);
        new
    }

    /// Starts the program, with its token or as a new participant.
    pub(crate) fn start(&mut self, fresh: bool, rng: &mut SeededRng) {
        if fresh {
            self.token = Secret::from_random(rng.bytes());
            self.digest = rng.bytes();
        }
        self.life += 1;
        self.instance = Instance::from_random(rng.bits());
        self.core = Some(Conference::new());
        self.is_snapshot_checked.set(false);
        self.epoch = rng.ms(0, 20_000);
        self.newest_peer = PeerId(0);
        self.deadline = None;
    }

    /// Ends the program without notice.
    pub(crate) fn kill(&mut self) {
        let stalled_until = self.client.stalled_until;
        self.core = None;
        self.client = Client { stalled_until, ..Client::default() };
        self.peers.clear();
        self.announced.clear();
        self.demand = PerDevice::default();
        self.shim = Shim::default();
        self.deadline = None;
    }

    pub(crate) fn participant(&self) -> ParticipantId {
        ParticipantId::from_digest(self.digest)
    }

    pub(crate) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// What the core shows. The first time after each input, it is compared with what is true.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        let Some(core) = &self.core else { return Arc::default() };
        let kept = core.snapshot();
        if !self.is_snapshot_checked.replace(true) {
            let rebuilt = core.rebuild_snapshot();
            assert_eq!(*kept, rebuilt, "P{} keeps what is not true any more", self.index);
        }
        kept
    }

    /// Stores an owner key, as the engine does.
    pub(crate) fn keep_key(&mut self, message: &HubMessage) {
        if let HubMessage::Opened { session, owner_key: key, .. }
        | HubMessage::Owner { session, owner_key: Some(key), .. } = message
        {
            self.keys.insert(session.clone(), key.clone());
        }
    }

    fn time(&self, now: u64) -> MediaTime {
        MediaTime::from_micros(now - self.epoch)
    }

    fn update_deadline(&mut self) {
        let due = self.core.as_ref().and_then(Conference::poll_timeout);
        self.deadline = due.map(|next| next.at.as_micros() + self.epoch);
    }
}

impl World {
    /// Passes an input to a core and carries out its effects.
    pub(crate) fn handle_input(&mut self, index: usize, input: Input) -> Verdict {
        let mutant = self.mutant;
        let program = &mut self.programs[index];
        let Some(input) = program.shim.filter_input(mutant, index, input) else { return Ok(()) };
        let cause = input.clone();
        self.trace(|| format!("P{index} <- {cause:?}"));
        let program = &mut self.programs[index];
        let time = program.time(self.now);
        let Some(core) = &mut program.core else { return Ok(()) };
        program.is_snapshot_checked.set(false);
        core.handle(input, time);
        self.perform(index, Some(&cause))
    }

    /// Handles a deadline of a core.
    pub(crate) fn core_timeout(&mut self, index: usize) -> Verdict {
        let program = &mut self.programs[index];
        let time = program.time(self.now);
        let Some(core) = &mut program.core else { return Ok(()) };
        program.is_snapshot_checked.set(false);
        core.handle_timeout(time);
        if let Some(next) = core.poll_timeout().filter(|next| next.at <= time) {
            return Err(format!("P{index} has the same deadline after it was met: {}", next.timer));
        }
        self.perform(index, None)
    }

    fn perform(&mut self, index: usize, cause: Option<&Input>) -> Verdict {
        let mutant = self.mutant;
        let mut effects = vec![];
        let program = &mut self.programs[index];
        while let Some(effect) = program.core.as_mut().and_then(Conference::poll_effect) {
            effects.push(effect);
        }
        let core = program.core.as_ref();
        let (effects, replies) = program.shim.filter_effects(mutant, (core, cause), effects);
        program.update_deadline();
        for effect in effects {
            self.trace(|| format!("P{index} -> {effect:?}"));
            self.perform_effect(index, effect, cause)?;
        }
        for (peer, event) in replies {
            if let Some(connection) = self.programs[index].peers.get(&peer) {
                let connection = *connection;
                self.schedule(self.now, ScheduledEvent::PeerEvent { connection, event });
            }
        }
        Ok(())
    }

    fn perform_effect(&mut self, index: usize, effect: Effect, cause: Option<&Input>) -> Verdict {
        let error = |what: &str| Err(format!("P{index}: {what}"));
        match effect {
            Effect::ConnectHub(HubRef::Default) => self.want_hub(index, true),
            Effect::DisconnectHub(HubRef::Default) => self.want_hub(index, false),
            Effect::ConnectHub(HubRef::At(_)) | Effect::DisconnectHub(HubRef::At(_)) => {
                error("connects to a hub that no link names")
            }
            Effect::Send { message, .. } => self.send_to_hub(index, message),
            Effect::OpenPeer { peer, session, hub: _, media, mixes: _ } => {
                self.open_peer(index, peer, (session, media))
            }
            Effect::ClosePeer(peer) => self.close_peer(index, peer, cause),
            Effect::Peer { peer, command } => self.queue_command(index, peer, command),
            Effect::SetSending { peer, layers } => {
                self.check_sending(index, peer, layers.map(|layer| layer.is_some()))
            }
            Effect::SetPlayback { peer, playback } => self.check_playback(index, peer, playback),
            Effect::SetRemoteTracks { peer, tracks } => self.set_remote_tracks(index, peer, tracks),
            // They affect only a figure of the statistics, how the microphone sounds, and which layer is
            // sent.
            Effect::ExpectVideo { .. }
            | Effect::SetVoiceProcessing(_)
            | Effect::StartSoundCheck(_)
            | Effect::SetPriority { .. }
            | Effect::LimitVideo { .. } => Ok(()),
            Effect::Demand(demand) => {
                if std::mem::replace(&mut self.programs[index].demand, demand) == demand {
                    return error("repeats a demand");
                }
                Ok(())
            }
            Effect::SetName(name) => {
                self.programs[index].name = name;
                Ok(())
            }
            Effect::Announce(event) => self.on_event(index, event),
        }
    }

    fn want_hub(&mut self, index: usize, wanted: bool) -> Verdict {
        let client = &mut self.programs[index].client;
        if std::mem::replace(&mut client.wanted, wanted) == wanted {
            return Err(format!("P{index} repeats that it wants the hub: {wanted}"));
        }
        if wanted {
            let life = self.programs[index].life;
            self.schedule(self.now, ScheduledEvent::Connect { program: index, life });
            return Ok(());
        }
        client.is_up = false;
        if let Some(socket) = client.socket.take() {
            self.close_socket(socket);
        }
        Ok(())
    }

    fn send_to_hub(&mut self, index: usize, mut message: ClientMessage) -> Verdict {
        let program = &self.programs[index];
        let Some(socket) = program.client.socket.filter(|_| program.client.is_up) else {
            return Err(format!("P{index} sends to a hub that is down: {message:?}"));
        };
        match &mut message {
            ClientMessage::Hello { .. } | ClientMessage::Ping => {
                return Err(format!("P{index} sends a message that its client sends: {message:?}"));
            }
            ClientMessage::Open { session, owner_key, .. } => {
                if owner_key.is_some() {
                    return Err(format!("P{index} knows a secret"));
                }
                *owner_key = program.keys.get(session).cloned();
            }
            ClientMessage::Signal { session, to, payload } => {
                let (session, to) = (session.clone(), to.clone());
                let known = payload.known().clone();
                self.check_signal(index, (&session, &to), &known)?;
                if let Payload::Media { microphone, camera, .. } = known
                    && is_of_version_1(index)
                {
                    *payload =
                        Payload::Media { microphone, camera, tracks: None, wants: None }.into();
                }
            }
            ClientMessage::Leave { session } => {
                let session = session.clone();
                self.expect_leave_noticed(index, &session);
            }
            ClientMessage::Join { .. }
            | ClientMessage::Close { .. }
            | ClientMessage::Eject { .. }
            | ClientMessage::Allow { .. }
            | ClientMessage::Lock { .. }
            | ClientMessage::Rename { .. } => {}
        }
        self.send_up(socket, SocketMessage::Client(message));
        Ok(())
    }

    /// Checks that a signal is about an open connection, and that a description is set there.
    fn check_signal(
        &mut self,
        index: usize,
        (session, to): (&SessionId, &ParticipantId),
        payload: &Payload,
    ) -> Verdict {
        use quintet::model::DescriptionKind::{Answer, Offer};
        let program = &self.programs[index];
        let is_to = |peer: &PeerId| {
            let owner = program.core.as_ref().and_then(|core| core.session_of_peer(*peer));
            owner.is_some_and(|owner| (&owner.0, &owner.1) == (session, to))
        };
        let Some(at) = program.peers.iter().find(|(peer, _)| is_to(peer)).map(|(_, at)| *at) else {
            return Err(format!("P{index} signals about no connection: {payload:?}"));
        };
        let connection = &mut self.connections[at];
        match payload {
            Payload::Offer { sdp, .. } => {
                connection.has_sent_description = true;
                connection.check_description(Offer, sdp)
            }
            Payload::Answer { sdp, .. } => {
                connection.has_sent_description = true;
                connection.check_description(Answer, sdp)
            }
            Payload::Candidate { .. } if !connection.has_sent_description => {
                Err(format!("P{index} signals a candidate before a description"))
            }
            Payload::Candidate { .. } => Ok(()),
            Payload::Media { microphone, camera, tracks, wants: _ } => {
                let signalled = PerSource { camera: *camera, microphone: *microphone };
                self.check_media_signal(index, at, (signalled, tracks.as_ref()))
            }
            Payload::Unknown => Err(format!("P{index} signals an unknown payload")),
        }
    }

    fn open_peer(
        &mut self,
        index: usize,
        peer: PeerId,
        (session, media): (SessionId, quintet::model::PeerMedia),
    ) -> Verdict {
        let uid = self.connections.len() as u64;
        let program = &mut self.programs[index];
        if peer <= program.newest_peer {
            return Err(format!("P{index} reuses {peer}"));
        }
        program.newest_peer = peer;
        program.peers.insert(peer, uid as usize);
        let expected = self.plan.media(&session, index, &self.programs[index]);
        if expected.is_some_and(|expected| expected != media) {
            return Err(format!("P{index} opens {peer} of {session} with {media:?}"));
        }
        let about = (media, self.programs[index].network, self.now);
        let mut connection = Connection::new((uid, index), peer, session, about);
        let core = self.programs[index].core.as_ref();
        let owner = core.and_then(|core| core.session_of_peer(peer));
        connection.remote_program =
            owner.and_then(|(_, participant)| self.program_of(&participant));
        self.connections.push(connection);
        Ok(())
    }

    fn close_peer(&mut self, index: usize, peer: PeerId, cause: Option<&Input>) -> Verdict {
        let Some(at) = self.programs[index].peers.remove(&peer) else {
            return Err(format!("P{index} closes {peer}, which is not open"));
        };
        self.report.peers_closed += 1;
        let flows = self.connections[at].state == quintet::model::PeerState::Connected
            && self.connections[at].flows
            && self.flows(at);
        self.connections[at].is_open = false;
        let calm = self.plan.script == super::script::Script::Calm;
        let session = &self.connections[at].session;
        let snapshot = self.programs[index].snapshot();
        // When a departure becomes final, the cause is the deadline.
        let is_left = !snapshot.sessions.iter().any(|one| one.session == *session);
        if (flows || calm) && !is_left && !super::checks::may_close(cause) {
            return Err(format!("P{index} closes {peer} whose media runs, because of {cause:?}"));
        }
        Ok(())
    }

    fn queue_command(&mut self, index: usize, peer: PeerId, command: PeerCommand) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} commands {peer}, which is not open: {command:?}"));
        };
        match &command {
            PeerCommand::Rollback { .. } => self.report.rollbacks += 1,
            PeerCommand::MakeOffer { restart_ice: true, .. } => self.report.restarts += 1,
            PeerCommand::MakeOffer { .. }
            | PeerCommand::AcceptOffer { .. }
            | PeerCommand::AcceptAnswer { .. }
            | PeerCommand::AddCandidate(_)
            | PeerCommand::SendChannelMessage(_) => {}
        }
        self.connections[at].queue.push_back(command);
        if self.connections[at].queue.len() == 1 {
            self.schedule_command(at);
        }
        Ok(())
    }

    /// Passes an event of a connection to its core.
    pub(crate) fn peer_event(&mut self, at: usize, event: PeerEvent) -> Verdict {
        let (node, peer) = (self.connections[at].program, self.connections[at].peer);
        // Events that a connection sent before it was closed may still be in transit.
        let is_life = self.programs[node].peers.get(&peer).is_none_or(|known| *known == at);
        if is_life { self.handle_input(node, Input::Peer(peer, event)) } else { Ok(()) }
    }

    fn on_event(&mut self, index: usize, event: Event) -> Verdict {
        self.on_chat_event(index, &event)?;
        let announced = &mut self.programs[index].announced;
        match event {
            Event::Participant { session, participant, state, .. } => {
                let key = (session, participant);
                let before = if state == ParticipantState::Left {
                    announced.remove(&key)
                } else {
                    announced.insert(key.clone(), state)
                };
                if before == Some(state) {
                    return Err(format!("P{index} announces {state:?} of {} again", key.1));
                }
            }
            Event::Ended { session, reason } => {
                announced.retain(|(of, _), _| *of != session);
                self.programs[index].ended.insert(session, (reason, self.now));
            }
            Event::Failed(failure) => return self.check_failure(index, &failure),
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubRestored { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            | Event::Joined { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::MicrophoneSilent
            | Event::ActiveSpeaker { .. }
            | Event::SpeakingWhileMuted
            | Event::EncoderLate
            | Event::UploadFull
            | Event::UploadOk
            | Event::MessageReceived { .. }
            | Event::MessageSent { .. }
            | Event::Undelivered { .. } => {}
        }
        Ok(())
    }
}
