//! The main task of a connection: commands in, events out, in order.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::JoinSet,
};
use tracing::Instrument as _;
use webrtc::{peer_connection::PeerConnection, rtp_transceiver::RtpTransceiver};

use super::{
    ConnectionConfig, EventSinks, Impairment,
    addresses::HostAddresses,
    check_budget::CheckLimiter,
    congestion::BandwidthControl,
    connection::SourceSlot,
    data_channel::{self, OutboundMessages},
    ice_gate::IceGateShared,
    inbound_data_limit::InboundDataLimit,
    library_events::{EventForwarder, LibraryEvent},
    local_address::LocalAddressWatch,
    negotiation::{NegotiatedTransceiver, Negotiation},
    setup::{self, BuildContext, BuiltConnection, LocalTransceiver},
    ssrc_limiter::SsrcLimiter,
    stats::ConnectionStats,
    track_receiver::{self, ReceiverContext},
    track_sender::TrackSender,
};
use crate::{
    media::{RoundTripTime, SenderReports, TrackFailure},
    model::{OperationId, PeerCommand, PeerEvent, PeerId, PeerState, PerSource, Source},
    network,
    supervision::catch_async,
};

/// The task's ends of the channels and shared objects of a [`Connection`](super::Connection).
pub(super) struct TaskIo {
    pub(super) commands: mpsc::Receiver<PeerCommand>,
    /// Resolves when the owner has dropped the connection.
    pub(super) dropped: oneshot::Receiver<()>,
    /// Notified when a queue was full and an event was lost that is not repeated.
    pub(super) overflow: Arc<Notify>,
    pub(super) sources: PerSource<SourceSlot>,
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) bandwidth: Arc<BandwidthControl>,
    pub(super) check_limiter: CheckLimiter,
}

/// Builds the connection, serves it until its owner drops it, and closes it. Whatever happens in
/// between, the peer connection of webrtc-rs is closed, because nothing else frees its sockets and
/// memory.
pub(super) async fn run(config: ConnectionConfig, sinks: EventSinks, io: TaskIo) {
    let (forwarder, library_events) =
        EventForwarder::new(Arc::clone(&io.overflow), Arc::clone(&io.stats));
    let [driver_ended, consent_lost] = std::array::from_fn(|_| Arc::new(Notify::new()));
    let inbound_data = Arc::<InboundDataLimit>::default();
    let context = BuildContext {
        connected: forwarder.connected(),
        handler: forwarder,
        driver_ended: Arc::clone(&driver_ended),
        impairment: io.impairment.clone(),
        ice_gate: IceGateShared {
            inbound_data: Arc::clone(&inbound_data),
            checks: io.check_limiter.clone(),
            ssrc_limiter: Arc::new(SsrcLimiter::new()),
            consent_lost: Arc::clone(&consent_lost),
            stats: Arc::clone(&io.stats),
        },
        bandwidth: Arc::clone(&io.bandwidth),
        addresses: match config.network {
            Some(_) => HostAddresses::loopback(),
            None => HostAddresses::new(config.paths.clone()),
        },
    };
    let peer = config.peer;
    // Not cancelled when the owner drops the connection: the driver of webrtc-rs would run for
    // ever.
    let built = AssertUnwindSafe(setup::build(&config, context)).catch_unwind().await;
    let TaskIo { commands, mut dropped, overflow, sources, .. } = io;
    let mut owner = OwnerChannels { peer, sinks, commands };
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
    let connection = Arc::clone(&built.peer_connection);
    let sources = MediaSources { sources, inbound_data: Arc::clone(&inbound_data) };
    let task = ConnectionTask::start(&owner, built, library_events, sources);
    let signals = TerminationSignals { overflow, driver_ended, consent_lost, inbound_data };
    tokio::select! {
        _ = &mut dropped => (),
        () = serve(&mut owner, task, signals, &connection) => (),
    }
    close(peer, &*connection).await;
}

/// Serves the connection until it fails. Then reports the failure, and refuses further commands
/// until the owner drops it.
async fn serve(
    owner: &mut OwnerChannels,
    task: ConnectionTask,
    signals: TerminationSignals,
    connection: &Arc<dyn PeerConnection>,
) {
    let (peer, consumers) = (owner.peer, task.track_failure.clone());
    let reason = tokio::select! {
        served = catch_async("peer connection", task.serve(owner)) => {
            served.unwrap_or("its task panicked")
        }
        () = consumers.reported() => "a consumer of its media panicked",
        () = signals.overflow.notified() => "a queue is full",
        () = signals.driver_ended.notified() => "the driver of webrtc-rs stopped",
        () = signals.consent_lost.notified() => "the remote peer no longer answers checks",
        () = signals.inbound_data.exceeded() => "too much data on its data channels is no message",
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
struct TerminationSignals {
    overflow: Arc<Notify>,
    driver_ended: Arc<Notify>,
    consent_lost: Arc<Notify>,
    inbound_data: Arc<InboundDataLimit>,
}

/// The sources of the sent media, and the counter for data that are read from the data channel.
struct MediaSources {
    sources: PerSource<SourceSlot>,
    inbound_data: Arc<InboundDataLimit>,
}

/// The channels between the task and the connection's owner.
struct OwnerChannels {
    peer: PeerId,
    sinks: EventSinks,
    commands: mpsc::Receiver<PeerCommand>,
}

impl OwnerChannels {
    /// Sends an event to the owner, and waits while its queue is full. If the queue is closed, the
    /// event is dropped.
    async fn send_event(&self, event: PeerEvent) {
        let _ = self.sinks.events.send((self.peer, event)).await;
    }

    /// Reports that the connection has failed, and refuses all further commands.
    async fn fail(&mut self) {
        self.send_event(PeerEvent::State(PeerState::Failed)).await;
        while let Some(command) = self.commands.recv().await {
            if let Some(operation) = operation_of(&command) {
                let reason = "the connection has failed".to_owned();
                self.send_event(PeerEvent::Failed { operation, reason }).await;
            }
        }
    }
}

/// The state of a running connection. Its media tasks end with it.
struct ConnectionTask {
    negotiation: Negotiation,
    /// The index of the section for which local candidates were sent, and these candidates.
    local_candidates: (Option<u16>, Vec<String>),
    library_events: mpsc::Receiver<LibraryEvent>,
    state: Option<PeerState>,
    reports: SenderReports,
    round_trip: RoundTripTime,
    /// Reported if a consumer of a remote track panics.
    track_failure: TrackFailure,
    media: JoinSet<()>,
    messages: OutboundMessages,
    local_address: LocalAddressWatch,
    /// The transceivers of our media sections, by which received tracks are identified.
    transceivers: Arc<[(Source, Arc<dyn RtpTransceiver>)]>,
}

impl ConnectionTask {
    fn start(
        owner: &OwnerChannels,
        mut built: BuiltConnection,
        library_events: mpsc::Receiver<LibraryEvent>,
        sources: MediaSources,
    ) -> Self {
        let mut media = JoinSet::new();
        let mut transceivers = vec![];
        for source in Source::SECTIONS {
            let Some(local) = built.transceivers[source].take() else { continue };
            let (transceiver, sender) = negotiated_transceiver(source, local);
            transceivers.push(transceiver);
            let Some(sender) = sender else { continue };
            match sources.sources[source].clone() {
                SourceSlot::Video(frames) => media.spawn(sender.run(frames).in_current_span()),
                SourceSlot::Audio(packets) => media.spawn(sender.run(packets).in_current_span()),
            };
        }
        let (messages, queue) = data_channel::outbound_queue();
        let has_data = built.channels.iter().any(|(_, channel)| channel.is_some());
        if let Some(channel) = built.channels.chat {
            let (peer, events) = (owner.peer, owner.sinks.events.clone());
            let write = data_channel::write(peer, Arc::clone(&channel), queue);
            media.spawn(write.in_current_span());
            let read = data_channel::read(peer, (channel, sources.inbound_data), events);
            media.spawn(read.in_current_span());
        }
        let known = transceivers.iter();
        let known = known.map(|one| (one.source, Arc::clone(&one.local.transceiver))).collect();
        let round_trip = built.remote_limits.stats.round_trip().clone();
        let local_address = LocalAddressWatch::new(Arc::clone(&built.remote_limits.stats));
        Self {
            negotiation: Negotiation::new(
                built.peer_connection,
                transceivers,
                has_data,
                built.remote_limits,
            ),
            local_candidates: (None, vec![]),
            library_events,
            state: None,
            reports: built.reports,
            round_trip,
            track_failure: TrackFailure::default(),
            media,
            messages,
            local_address,
            transceivers: known,
        }
    }

    /// Serves until the connection is not usable any more. Returns why.
    async fn serve(mut self, owner: &mut OwnerChannels) -> &'static str {
        loop {
            tokio::select! {
                command = owner.commands.recv() => {
                    // The owner has dropped the connection: the caller cancels this future.
                    let Some(command) = command else { return std::future::pending().await };
                    if !self.execute(command, owner).await {
                        return "its state is not usable any more";
                    }
                }
                Some(event) = self.library_events.recv() => self.handle_library_event(event, owner).await,
                () = self.local_address.lost(network::is_gone) => {
                    owner.send_event(PeerEvent::AddressLost).await;
                }
                Some(ended) = self.media.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(peer = %owner.peer, %error, "a media task stopped unexpectedly");
                        return "a media task panicked";
                    }
                }
            }
        }
    }

    /// Executes a command and reports its outcome. Returns whether the connection is still usable.
    async fn execute(&mut self, command: PeerCommand, owner: &OwnerChannels) -> bool {
        #[cfg(test)]
        self.panic_if_planted(&command);
        if let PeerCommand::SendChannelMessage(message) = command {
            if self.messages.try_send(message).is_err() {
                tracing::debug!(peer = %owner.peer, "message dropped: data channel queue full");
            }
            return true;
        }
        let operation = operation_of(&command);
        let outcome = AssertUnwindSafe(self.negotiation.execute(command)).catch_unwind().await;
        let (event, is_usable) = outcome.unwrap_or_else(|_panic| {
            let reason = "webrtc-rs panicked".to_owned();
            (operation.map(|operation| PeerEvent::Failed { operation, reason }), false)
        });
        if let Some(event) = event {
            owner.send_event(event).await;
        }
        if let Some(agreement) = self.negotiation.take_agreement() {
            owner.send_event(PeerEvent::Negotiated(agreement)).await;
            self.resend_candidates(owner).await;
        }
        is_usable
    }

    /// Panics where a test asks for it with a candidate.
    #[cfg(test)]
    fn panic_if_planted(&mut self, command: &PeerCommand) {
        let PeerCommand::AddCandidate(candidate) = command else { return };
        assert_ne!(candidate.line, "panic", "planted");
        if candidate.line == "panic in a media task" {
            self.media.spawn(async { panic!("planted") });
        }
    }

    /// Sends a local candidate to the owner; an empty line is the end of candidates.
    async fn send_candidate(&mut self, line: String, owner: &OwnerChannels) {
        let candidate = self.negotiation.local_candidate(line);
        if self.local_candidates.0 != candidate.index {
            self.local_candidates = (candidate.index, vec![]);
        }
        // A candidate behind the end of candidates is for new sockets.
        if self.local_candidates.1.last().is_some_and(String::is_empty) {
            self.local_candidates.1.clear();
        }
        self.local_candidates.1.push(candidate.line.clone());
        owner.send_event(PeerEvent::Candidate(candidate)).await;
    }

    /// Sends the local candidates again for another section, if the section that they were for was
    /// rejected.
    async fn resend_candidates(&mut self, owner: &OwnerChannels) {
        let (section, lines) = std::mem::take(&mut self.local_candidates);
        let first = self.negotiation.local_candidate(String::new()).index;
        if section.is_none() || section == first {
            self.local_candidates = (section, lines);
            return;
        }
        for line in lines {
            self.send_candidate(line, owner).await;
        }
    }

    async fn handle_library_event(&mut self, event: LibraryEvent, owner: &OwnerChannels) {
        match event {
            LibraryEvent::Candidate(line) => self.send_candidate(line, owner).await,
            LibraryEvent::GatheringComplete => self.send_candidate(String::new(), owner).await,
            LibraryEvent::State(state) if self.state == Some(state) => {}
            LibraryEvent::State(state) => {
                self.state = Some(state);
                self.negotiation.set_connected(state == PeerState::Connected);
                owner.send_event(PeerEvent::State(state)).await;
            }
            LibraryEvent::Track(track) => {
                let context = ReceiverContext {
                    peer: owner.peer,
                    transceivers: Arc::clone(&self.transceivers),
                    reports: self.reports.clone(),
                    round_trip: self.round_trip.clone(),
                    failure: self.track_failure.clone(),
                };
                let receiver = track_receiver::run(track, context, owner.sinks.tracks.clone());
                self.media.spawn(receiver.instrument(tracing::warn_span!("track")));
            }
        }
    }
}

/// The state of a transceiver before the first negotiation, and its sender if it has a track to
/// send.
fn negotiated_transceiver(
    source: Source,
    local: LocalTransceiver,
) -> (NegotiatedTransceiver, Option<TrackSender>) {
    let active_payload_type = watch::Sender::new(None);
    let sender = local.track.as_ref().map(|track| TrackSender {
        track: Arc::clone(&track.track),
        ssrc: track.stream.ssrc,
        sequence: track.sequence,
        last_timestamp: None,
        clock: Arc::clone(&track.stream.clock),
        active_payload_type: active_payload_type.subscribe(),
        keyframes: track.stream.keyframes.clone(),
        redundancy: Arc::clone(&track.stream.redundancy),
        level: Arc::clone(&track.stream.level),
        parts: Arc::clone(&track.stream.parts),
    });
    let transceiver =
        NegotiatedTransceiver { source, local, payload_type: None, active_payload_type };
    (transceiver, sender)
}

const fn operation_of(command: &PeerCommand) -> Option<OperationId> {
    match command {
        PeerCommand::MakeOffer { operation, .. }
        | PeerCommand::Rollback { operation }
        | PeerCommand::AcceptOffer { operation, .. }
        | PeerCommand::AcceptAnswer { operation, .. } => Some(*operation),
        PeerCommand::AddCandidate(_) | PeerCommand::SendChannelMessage(_) => None,
    }
}
