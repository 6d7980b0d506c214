//! The one task of a connection: commands in, events out, in order.

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

/// The ends of a connection's wires that are not its owner's.
pub(super) struct Wires {
    pub(super) commands: mpsc::Receiver<PeerCommand>,
    /// Resolves when the owner is gone.
    pub(super) dropped: oneshot::Receiver<()>,
    /// Notified when a queue was full and something is lost that cannot be told again.
    pub(super) overflow: Arc<Notify>,
    pub(super) video: Arc<Feed<EncodedVideo>>,
    pub(super) audio: Arc<Feed<EncodedAudio>>,
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    pub(super) traffic: Arc<TrafficCounters>,
    pub(super) checks: Checks,
}

/// Builds the connection, serves it until its owner is gone, and closes it: whatever happens
/// between, the library's connection is closed, which alone frees its sockets and memory.
pub(super) async fn run(config: ConnectionConfig, outlets: Outlets, wires: Wires) {
    let (observer, happenings) = Observer::new(Arc::clone(&wires.overflow));
    let [driver_ended, consent_lost] = std::array::from_fn(|_| Arc::new(Notify::new()));
    let unread = Arc::<Unread>::default();
    let wiring = Wiring {
        up: observer.up(),
        observer,
        driver_ended: Arc::clone(&driver_ended),
        impairment: wires.impairment.clone(),
        traffic: Arc::clone(&wires.traffic),
        admission: AdmissionWiring {
            unread: Arc::clone(&unread),
            checks: wires.checks.clone(),
            ssrcs: Arc::new(Ssrcs::new()),
            consent_lost: Arc::clone(&consent_lost),
        },
        addresses: HostAddresses::new(config.paths.clone()),
    };
    let peer = config.peer;
    // Not given up halfway when the owner goes: the library's driver would run on for ever.
    let built = AssertUnwindSafe(setup::build(&config, wiring)).catch_unwind().await;
    let Wires { commands, mut dropped, overflow, video, audio, .. } = wires;
    let mut front = Front { peer, outlets, commands };
    let built = match built {
        Ok(Ok(built)) => built,
        failure => {
            match failure {
                Ok(Err(error)) => tracing::warn!(%peer, %error, "connection cannot be built"),
                _ => tracing::error!(%peer, "the library panicked building a connection"),
            }
            tokio::select! { _ = &mut dropped => (), () = front.fail() => () }
            return;
        }
    };
    let library = Arc::clone(&built.peer);
    let feeds = Feeds { video, audio, unread: Arc::clone(&unread) };
    let task = Task::start(&front, built, happenings, feeds);
    let ends = Ends { overflow, driver_ended, consent_lost, unread };
    tokio::select! { _ = &mut dropped => (), () = serve(&mut front, task, ends, &library) => () }
    close(peer, &*library).await;
}

/// Serves until the connection is over, and then says so until its owner is gone.
async fn serve(front: &mut Front, task: Task, ends: Ends, library: &Arc<dyn PeerConnection>) {
    let peer = front.peer;
    let ended = tokio::select! {
        () = task.serve(front) => "its state cannot be repaired",
        () = ends.overflow.notified() => "a queue is full",
        () = ends.driver_ended.notified() => "the library's driver stopped",
        () = ends.consent_lost.notified() => "the other end answers no check any more",
        () = ends.unread.too_much() => "what came on its data channels is no message",
    };
    // Often what a stranger said; the core replaces the connection.
    tracing::warn!(%peer, reason = ended, "connection ended");
    close(peer, &**library).await;
    front.fail().await;
}

async fn close(peer: PeerId, library: &dyn PeerConnection) {
    if let Err(error) = library.close().await {
        tracing::warn!(%peer, %error, "connection did not close cleanly");
    }
}

/// What ends a connection from outside its task.
struct Ends {
    overflow: Arc<Notify>,
    driver_ended: Arc<Notify>,
    consent_lost: Arc<Notify>,
    unread: Arc<Unread>,
}

/// What a connection's media are fed with, and where it is counted what its chat reads.
struct Feeds {
    video: Arc<Feed<EncodedVideo>>,
    audio: Arc<Feed<EncodedAudio>>,
    unread: Arc<Unread>,
}

/// The side that the owner sees.
struct Front {
    peer: PeerId,
    outlets: Outlets,
    commands: mpsc::Receiver<PeerCommand>,
}

impl Front {
    /// Tells the owner; waits while its queue is full. Nobody listens any more when it is closed.
    async fn tell(&self, event: PeerEvent) {
        let _ = self.outlets.events.send((self.peer, event)).await;
    }

    /// Says that the connection is over, and refuses whatever is still asked of it.
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

/// A connection that is being served. Its media tasks end with it.
struct Task {
    negotiation: Negotiation,
    /// The local candidates that were told for the section that carries all, and its index.
    candidates: (Option<u16>, Vec<String>),
    happenings: mpsc::Receiver<Happening>,
    state: Option<PeerState>,
    reports: SenderReports,
    media: JoinSet<()>,
    chat: Unwritten,
}

impl Task {
    fn start(
        front: &Front,
        built: Built,
        happenings: mpsc::Receiver<Happening>,
        feeds: Feeds,
    ) -> Self {
        let mut media = JoinSet::new();
        let mut lines = vec![];
        if let Some(section) = built.audio {
            let (line, sender) = line(SectionKind::Audio, section, KeyframeRequest::default());
            lines.push(line);
            sender.map(|sender| media.spawn(sender.run(feeds.audio)));
        }
        if let Some(section) = built.video {
            let (line, sender) = line(SectionKind::Video, section, built.keyframes);
            lines.push(line);
            sender.map(|sender| media.spawn(sender.run(feeds.video)));
        }
        let (chat, unwritten) = chat::unwritten();
        let has_data = built.data.is_some();
        if let Some(channel) = built.data {
            let (peer, events) = (front.peer, front.outlets.events.clone());
            media.spawn(chat::write(peer, Arc::clone(&channel), unwritten));
            media.spawn(chat::read(peer, (channel, feeds.unread), events));
        }
        let negotiation = Negotiation::new(built.peer, lines, has_data, built.remote);
        let reports = built.reports;
        let candidates = (None, vec![]);
        Self { negotiation, candidates, happenings, state: None, reports, media, chat }
    }

    /// Serves until the connection is beyond repair.
    async fn serve(mut self, front: &mut Front) {
        loop {
            tokio::select! {
                command = front.commands.recv() => {
                    // The owner is gone: whoever runs this stops it.
                    let Some(command) = command else { return std::future::pending().await };
                    if !self.carry_out(command, front).await {
                        return;
                    }
                }
                Some(happening) = self.happenings.recv() => self.report(happening, front).await,
                Some(_) = self.media.join_next() => {}
            }
        }
    }

    /// Carries a command out and tells its outcome; false if the connection is beyond repair.
    async fn carry_out(&mut self, command: PeerCommand, front: &Front) -> bool {
        if let PeerCommand::Write(message) = command {
            if self.chat.try_send(message).is_err() {
                tracing::debug!(peer = %front.peer, "the data channel takes nothing more");
            }
            return true;
        }
        let step = step_of(&command);
        let outcome = AssertUnwindSafe(self.negotiation.carry_out(command)).catch_unwind().await;
        let (event, alive) = outcome.unwrap_or_else(|_panic| {
            let reason = "the library panicked".to_owned();
            (step.map(|step| PeerEvent::Refused { step, reason }), false)
        });
        if let Some(event) = event {
            front.tell(event).await;
        }
        if let Some(agreement) = self.negotiation.take_news() {
            front.tell(PeerEvent::Agreed(agreement)).await;
            self.move_candidates(front).await;
        }
        alive
    }

    /// Tells a local candidate; an empty line is the end of them.
    async fn tell_candidate(&mut self, line: String, front: &Front) {
        let candidate = self.negotiation.candidate(line);
        if self.candidates.0 != candidate.index {
            self.candidates = (candidate.index, vec![]);
        }
        // After the end of candidates, others come for new sockets.
        if self.candidates.1.last().is_some_and(String::is_empty) {
            self.candidates.1.clear();
        }
        self.candidates.1.push(candidate.line.clone());
        front.tell(PeerEvent::Candidate(candidate)).await;
    }

    /// Tells the local candidates again if the section that they were for was rejected.
    async fn move_candidates(&mut self, front: &Front) {
        let (told_for, lines) = std::mem::take(&mut self.candidates);
        let first = self.negotiation.candidate(String::new()).index;
        if told_for.is_none() || told_for == first {
            self.candidates = (told_for, lines);
            return;
        }
        for line in lines {
            self.tell_candidate(line, front).await;
        }
    }

    async fn report(&mut self, happening: Happening, front: &Front) {
        match happening {
            Happening::Candidate(line) => self.tell_candidate(line, front).await,
            Happening::Gathered => self.tell_candidate(String::new(), front).await,
            Happening::State(state) if self.state == Some(state) => {}
            Happening::State(state) => {
                self.state = Some(state);
                self.negotiation.set_connected(state == PeerState::Connected);
                front.tell(PeerEvent::State(state)).await;
            }
            Happening::Track(track) => {
                let (peer, tracks) = (front.peer, front.outlets.tracks.clone());
                self.media.spawn(receiver::run(peer, track, self.reports.clone(), tracks));
            }
        }
    }
}

/// The section's line, and its sender if it has a track to send.
fn line(kind: SectionKind, section: Section, keyframes: KeyframeRequest) -> (Line, Option<Sender>) {
    let open = watch::Sender::new(None);
    let sender = section.track.as_ref().map(|own| Sender {
        track: Arc::clone(&own.track),
        ssrc: own.ssrc,
        sequence: own.sequence,
        clock: Arc::clone(&own.clock),
        open: open.subscribe(),
        keyframes,
    });
    (Line { kind, section, payload_type: None, open }, sender)
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
