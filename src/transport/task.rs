//! The main task of a connection: commands in, events out, in order.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use webrtc::peer_connection::PeerConnection;

use super::{
    ConnectionConfig, Impairment, Outlets,
    addresses::HostAddresses,
    admission::AdmissionWiring,
    chat::{self, Unwritten},
    checks::Checks,
    negotiation::{Line, Negotiation},
    observer::{Happening, Observer},
    receiver,
    sdp::SectionKind,
    sender::{Feed, Sender},
    setup::{self, Built, Section, Wiring},
    ssrcs::Ssrcs,
    tap::TrafficCounters,
    unread::Unread,
};
use crate::{
    media::{EncodedAudio, EncodedVideo, KeyframeRequest, SenderReports},
    model::{PeerCommand, PeerEvent, PeerId, PeerState, Step},
};

/// The task's ends of the channels and shared objects of a [`Connection`](super::Connection).
pub(super) struct Wires {
    pub(super) commands: mpsc::Receiver<PeerCommand>,
    /// Resolves when the owner has dropped the connection.
    pub(super) dropped: oneshot::Receiver<()>,
    /// Notified when a queue was full and an event was lost that is not repeated.
    pub(super) overflow: Arc<Notify>,
    pub(super) video: Arc<Feed<EncodedVideo>>,
    pub(super) audio: Arc<Feed<EncodedAudio>>,
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    pub(super) traffic: Arc<TrafficCounters>,
    pub(super) checks: Checks,
}

/// Builds the connection, serves it until its owner drops it, and closes it. Whatever happens in
/// between, the peer connection of webrtc-rs is closed, because nothing else frees its sockets and
/// memory.
pub(super) async fn run(config: ConnectionConfig, sinks: Outlets, io: Wires) {
    let (forwarder, library_events) = Observer::new(Arc::clone(&io.overflow));
    let [driver_ended, consent_lost] = std::array::from_fn(|_| Arc::new(Notify::new()));
    let inbound_data = Arc::<Unread>::default();
    let context = Wiring {
        up: forwarder.up(),
        observer: forwarder,
        driver_ended: Arc::clone(&driver_ended),
        impairment: io.impairment.clone(),
        traffic: Arc::clone(&io.traffic),
        admission: AdmissionWiring {
            unread: Arc::clone(&inbound_data),
            checks: io.checks.clone(),
            ssrcs: Arc::new(Ssrcs::new()),
            consent_lost: Arc::clone(&consent_lost),
        },
        addresses: HostAddresses::new(config.paths.clone()),
    };
    let peer = config.peer;
    // Not cancelled when the owner drops the connection: the driver of webrtc-rs would run for
    // ever.
    let built = AssertUnwindSafe(setup::build(&config, context)).catch_unwind().await;
    let Wires { commands, mut dropped, overflow, video, audio, .. } = io;
    let mut owner = Front { peer, outlets: sinks, commands };
    let built = match built {
        Ok(Ok(built)) => built,
        failure => {
            match failure {
                Ok(Err(error)) => tracing::warn!(%peer, %error, "connection cannot be built"),
                _ => tracing::error!(%peer, "webrtc-rs panicked while building a connection"),
            }
            tokio::select! { _ = &mut dropped => (), () = owner.fail() => () }
            return;
        }
    };
    let connection = Arc::clone(&built.peer);
    let sources = Feeds { video, audio, unread: Arc::clone(&inbound_data) };
    let task = Task::start(&owner, built, library_events, sources);
    let signals = Ends { overflow, driver_ended, consent_lost, unread: inbound_data };
    tokio::select! {
        _ = &mut dropped => (),
        () = serve(&mut owner, task, signals, &connection) => (),
    }
    close(peer, &*connection).await;
}

/// Serves the connection until it fails. Then reports the failure, and refuses further commands
/// until the owner drops it.
async fn serve(owner: &mut Front, task: Task, signals: Ends, connection: &Arc<dyn PeerConnection>) {
    let peer = owner.peer;
    let reason = tokio::select! {
        () = task.serve(owner) => "its state is not usable any more",
        () = signals.overflow.notified() => "a queue is full",
        () = signals.driver_ended.notified() => "the driver of webrtc-rs stopped",
        () = signals.consent_lost.notified() => "the remote peer no longer answers checks",
        () = signals.unread.too_much() => "too much data on its data channels is no message",
    };
    // A warning only, because remote input often causes it; the core replaces the connection.
    tracing::warn!(%peer, reason, "connection ended");
    close(peer, &**connection).await;
    owner.fail().await;
}

async fn close(peer: PeerId, connection: &dyn PeerConnection) {
    if let Err(error) = connection.close().await {
        tracing::warn!(%peer, %error, "connection did not close cleanly");
    }
}

/// Signals that end a connection from outside its task.
struct Ends {
    overflow: Arc<Notify>,
    driver_ended: Arc<Notify>,
    consent_lost: Arc<Notify>,
    unread: Arc<Unread>,
}

/// The sources of the sent media, and the counter for data that are read from the data channel.
struct Feeds {
    video: Arc<Feed<EncodedVideo>>,
    audio: Arc<Feed<EncodedAudio>>,
    unread: Arc<Unread>,
}

/// The channels between the task and the connection's owner.
struct Front {
    peer: PeerId,
    outlets: Outlets,
    commands: mpsc::Receiver<PeerCommand>,
}

impl Front {
    /// Sends an event to the owner, and waits while its queue is full. If the queue is closed, the
    /// event is dropped.
    async fn tell(&self, event: PeerEvent) {
        let _ = self.outlets.events.send((self.peer, event)).await;
    }

    /// Reports that the connection has failed, and refuses all further commands.
    async fn fail(&mut self) {
        self.tell(PeerEvent::State(PeerState::Failed)).await;
        while let Some(command) = self.commands.recv().await {
            if let Some(step) = step_of(&command) {
                let reason = "the connection has failed".to_owned();
                self.tell(PeerEvent::Refused { step, reason }).await;
            }
        }
    }
}

/// The state of a running connection. Its media tasks end with it.
struct Task {
    negotiation: Negotiation,
    /// The index of the section for which local candidates were sent, and these candidates.
    candidates: (Option<u16>, Vec<String>),
    happenings: mpsc::Receiver<Happening>,
    state: Option<PeerState>,
    reports: SenderReports,
    media: JoinSet<()>,
    chat: Unwritten,
}

impl Task {
    fn start(
        owner: &Front,
        built: Built,
        library_events: mpsc::Receiver<Happening>,
        sources: Feeds,
    ) -> Self {
        let mut media = JoinSet::new();
        let mut transceivers = vec![];
        if let Some(local) = built.audio {
            let (transceiver, sender) = line(SectionKind::Audio, local, KeyframeRequest::default());
            transceivers.push(transceiver);
            sender.map(|sender| media.spawn(sender.run(sources.audio)));
        }
        if let Some(local) = built.video {
            let (transceiver, sender) = line(SectionKind::Video, local, built.keyframes);
            transceivers.push(transceiver);
            sender.map(|sender| media.spawn(sender.run(sources.video)));
        }
        let (messages, queue) = chat::unwritten();
        let has_data = built.data.is_some();
        if let Some(channel) = built.data {
            let (peer, events) = (owner.peer, owner.outlets.events.clone());
            media.spawn(chat::write(peer, Arc::clone(&channel), queue));
            media.spawn(chat::read(peer, (channel, sources.unread), events));
        }
        Self {
            negotiation: Negotiation::new(built.peer, transceivers, has_data, built.remote),
            candidates: (None, vec![]),
            happenings: library_events,
            state: None,
            reports: built.reports,
            media,
            chat: messages,
        }
    }

    /// Serves until the connection is not usable any more.
    async fn serve(mut self, owner: &mut Front) {
        loop {
            tokio::select! {
                command = owner.commands.recv() => {
                    // The owner has dropped the connection: the caller cancels this future.
                    let Some(command) = command else { return std::future::pending().await };
                    if !self.carry_out(command, owner).await {
                        return;
                    }
                }
                Some(event) = self.happenings.recv() => self.report(event, owner).await,
                Some(_) = self.media.join_next() => {}
            }
        }
    }

    /// Executes a command and reports its outcome. Returns whether the connection is still usable.
    async fn carry_out(&mut self, command: PeerCommand, owner: &Front) -> bool {
        if let PeerCommand::Write(message) = command {
            if self.chat.try_send(message).is_err() {
                tracing::debug!(peer = %owner.peer, "message dropped: data channel queue full");
            }
            return true;
        }
        let step = step_of(&command);
        let outcome = AssertUnwindSafe(self.negotiation.carry_out(command)).catch_unwind().await;
        let (event, is_usable) = outcome.unwrap_or_else(|_panic| {
            let reason = "webrtc-rs panicked".to_owned();
            (step.map(|step| PeerEvent::Refused { step, reason }), false)
        });
        if let Some(event) = event {
            owner.tell(event).await;
        }
        if let Some(agreement) = self.negotiation.take_news() {
            owner.tell(PeerEvent::Agreed(agreement)).await;
            self.move_candidates(owner).await;
        }
        is_usable
    }

    /// Sends a local candidate to the owner; an empty line is the end of candidates.
    async fn tell_candidate(&mut self, line: String, owner: &Front) {
        let candidate = self.negotiation.candidate(line);
        if self.candidates.0 != candidate.index {
            self.candidates = (candidate.index, vec![]);
        }
        // A candidate behind the end of candidates is for new sockets.
        if self.candidates.1.last().is_some_and(String::is_empty) {
            self.candidates.1.clear();
        }
        self.candidates.1.push(candidate.line.clone());
        owner.tell(PeerEvent::Candidate(candidate)).await;
    }

    /// Sends the local candidates again for another section, if the section that they were for was
    /// rejected.
    async fn move_candidates(&mut self, owner: &Front) {
        let (section, lines) = std::mem::take(&mut self.candidates);
        let first = self.negotiation.candidate(String::new()).index;
        if section.is_none() || section == first {
            self.candidates = (section, lines);
            return;
        }
        for line in lines {
            self.tell_candidate(line, owner).await;
        }
    }

    async fn report(&mut self, event: Happening, owner: &Front) {
        match event {
            Happening::Candidate(line) => self.tell_candidate(line, owner).await,
            Happening::Gathered => self.tell_candidate(String::new(), owner).await,
            Happening::State(state) if self.state == Some(state) => {}
            Happening::State(state) => {
                self.state = Some(state);
                self.negotiation.set_connected(state == PeerState::Connected);
                owner.tell(PeerEvent::State(state)).await;
            }
            Happening::Track(track) => {
                let (peer, tracks) = (owner.peer, owner.outlets.tracks.clone());
                self.media.spawn(receiver::run(peer, track, self.reports.clone(), tracks));
            }
        }
    }
}

/// The state of a transceiver before the first negotiation, and its sender if it has a track to
/// send.
fn line(kind: SectionKind, local: Section, keyframes: KeyframeRequest) -> (Line, Option<Sender>) {
    let active_payload_type = watch::Sender::new(None);
    let sender = local.track.as_ref().map(|track| Sender {
        track: Arc::clone(&track.track),
        ssrc: track.ssrc,
        sequence: track.sequence,
        clock: Arc::clone(&track.clock),
        open: active_payload_type.subscribe(),
        keyframes,
    });
    (Line { kind, section: local, payload_type: None, open: active_payload_type }, sender)
}

const fn step_of(command: &PeerCommand) -> Option<Step> {
    match command {
        PeerCommand::MakeOffer { step, .. }
        | PeerCommand::Rollback { step }
        | PeerCommand::AcceptOffer { step, .. }
        | PeerCommand::AcceptAnswer { step, .. } => Some(*step),
        PeerCommand::AddCandidate(_) | PeerCommand::Write(_) => None,
    }
}
