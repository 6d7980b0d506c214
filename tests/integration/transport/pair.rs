//! Two connections in one process, with a signalling path without loss.

use std::{collections::BTreeMap, future::Future, time::Duration};

use quintet::{
    media::IncomingTrack,
    model::{
        Candidate, DescriptionKind, Direction, NegotiatedMedia, OperationId, PeerCommand,
        PeerEvent, PeerId, PeerMedia, PeerState, PerChannel, PerSource,
    },
    transport::{
        CheckBudget, Connection, ConnectionConfig, EventSinks, Impairment, VirtualNetwork,
    },
};
use tokio::sync::mpsc;

/// How long a test waits for an event. No event takes longer on a working machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for a future, and fails the test after [`TIMEOUT`].
pub(crate) async fn guarded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TIMEOUT, future).await {
        Ok(output) => output,
        Err(_) => panic!("timeout waiting for {what}"),
    }
}

/// Audio and video with that direction.
pub(crate) fn audio_video(direction: Direction) -> PeerMedia {
    PeerMedia {
        sections: PerSource { camera: Some(direction), microphone: Some(direction) },
        channels: PerChannel::NONE,
    }
}

/// One end of a pair: a connection and its events.
pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    pub(crate) tracks: mpsc::Receiver<IncomingTrack>,
    pub(crate) state: Option<PeerState>,
    /// All received events, in order.
    pub(crate) events: Vec<PeerEvent>,
    incoming: mpsc::Receiver<(PeerId, PeerEvent)>,
    last_operation: u32,
    /// Whether this end has a remote description, so that it can accept remote candidates.
    is_described: bool,
    /// Remote candidates that arrived before the remote description.
    early_candidates: Vec<Candidate>,
}

impl Endpoint {
    pub(crate) fn open(name: &str, media: PeerMedia, impairment: Option<Impairment>) -> Self {
        Self::configured(name, media, |config| config.impairment = impairment)
    }

    /// Opens an endpoint whose connectivity checks are limited by that budget.
    pub(crate) fn with_budget(
        checks: CheckBudget,
        name: &str,
        media: PeerMedia,
        impairment: Option<Impairment>,
    ) -> Self {
        Self::configured(name, media, |config| {
            (config.checks, config.impairment) = (checks, impairment);
        })
    }

    /// Opens an endpoint with a changed configuration.
    pub(crate) fn configured(
        name: &str,
        media: PeerMedia,
        change: impl FnOnce(&mut ConnectionConfig),
    ) -> Self {
        let (events_in, events) = mpsc::channel(256);
        let (tracks_in, tracks) = mpsc::channel(16);
        let mut config = ConnectionConfig {
            peer: PeerId(7),
            media,
            stream: format!("stream-{name}"),
            mixes: PerSource {
                camera: format!("video-{name}"),
                microphone: format!("audio-{name}"),
            },
            impairment: None,
            rtp_dump: None,
            network: None,
            paths: Default::default(),
            checks: CheckBudget::default(),
        };
        change(&mut config);
        let sinks = EventSinks { events: events_in, tracks: tracks_in };
        Self {
            connection: Connection::open(config, sinks),
            tracks,
            state: None,
            events: vec![],
            incoming: events,
            last_operation: 0,
            is_described: false,
            early_candidates: vec![],
        }
    }

    /// Sends a command with the next operation's number.
    pub(crate) fn command(
        &mut self,
        command: impl FnOnce(OperationId) -> PeerCommand,
    ) -> OperationId {
        self.last_operation += 1;
        let operation = OperationId(self.last_operation);
        self.connection.command(command(operation));
        operation
    }

    pub(crate) fn make_offer(&mut self, restart_ice: bool) -> OperationId {
        self.command(|operation| PeerCommand::MakeOffer { operation, restart_ice })
    }

    pub(crate) fn accept_offer(&mut self, sdp: &str) -> OperationId {
        let operation =
            self.command(|operation| PeerCommand::AcceptOffer { operation, sdp: sdp.to_owned() });
        self.add_early_candidates();
        operation
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str) -> OperationId {
        let operation =
            self.command(|operation| PeerCommand::AcceptAnswer { operation, sdp: sdp.to_owned() });
        self.add_early_candidates();
        operation
    }

    fn add_early_candidates(&mut self) {
        self.is_described = true;
        for candidate in std::mem::take(&mut self.early_candidates) {
            self.connection.command(PeerCommand::AddCandidate(candidate));
        }
    }

    fn add_candidate(&mut self, candidate: Candidate) {
        if self.is_described {
            self.connection.command(PeerCommand::AddCandidate(candidate));
        } else {
            self.early_candidates.push(candidate);
        }
    }

    /// Waits for the next event, and records it.
    pub(crate) async fn next(&mut self) -> PeerEvent {
        let (_, event) = guarded("an event", self.incoming.recv()).await.expect("it is alive");
        self.events.push(event.clone());
        if let PeerEvent::State(state) = &event {
            self.state = Some(*state);
        }
        event
    }

    /// The outcome of the operation, if it was received.
    pub(crate) fn outcome(&self, wanted: OperationId) -> Option<&PeerEvent> {
        self.events.iter().find(|event| match event {
            PeerEvent::LocalDescription { operation, .. }
            | PeerEvent::Applied { operation }
            | PeerEvent::Failed { operation, .. } => *operation == wanted,
            PeerEvent::Negotiated(_)
            | PeerEvent::Candidate(_)
            | PeerEvent::State(_)
            | PeerEvent::AddressLost
            | PeerEvent::ChannelOpen(_)
            | PeerEvent::ChannelMessage(_) => false,
        })
    }

    /// Waits for the outcome of a operation. The other end makes no progress meanwhile.
    pub(crate) async fn outcome_of(&mut self, operation: OperationId) -> PeerEvent {
        loop {
            if let Some(outcome) = self.outcome(operation) {
                return outcome.clone();
            }
            self.next().await;
        }
    }

    /// Waits for the agreement that follows the latest outcome. The other end makes no progress
    /// meanwhile.
    pub(crate) async fn agreement(&mut self) -> NegotiatedMedia {
        loop {
            let mut agreed = None;
            for event in &self.events {
                match event {
                    PeerEvent::Negotiated(agreement) => agreed = Some(agreement.clone()),
                    PeerEvent::LocalDescription { .. } | PeerEvent::Applied { .. } => agreed = None,
                    PeerEvent::Failed { .. }
                    | PeerEvent::Candidate(_)
                    | PeerEvent::State(_)
                    | PeerEvent::AddressLost
                    | PeerEvent::ChannelOpen(_)
                    | PeerEvent::ChannelMessage(_) => {}
                }
            }
            if let Some(agreement) = agreed {
                return agreement;
            }
            self.next().await;
        }
    }

    /// Waits for the description that a operation makes. The other end makes no progress meanwhile.
    pub(crate) async fn description(&mut self, operation: OperationId) -> String {
        let outcome = self.outcome_of(operation).await;
        let PeerEvent::LocalDescription { sdp, .. } = outcome else {
            panic!("refused: {outcome:?}")
        };
        sdp
    }

    pub(crate) async fn until_state(&mut self, wanted: PeerState) {
        while self.state != Some(wanted) {
            self.next().await;
        }
    }
}

/// Two endpoints that connect to each other.
pub(crate) struct Pair {
    pub(crate) a: Endpoint,
    pub(crate) b: Endpoint,
}

impl Pair {
    pub(crate) fn open(a: PeerMedia, b: PeerMedia) -> Self {
        Self { a: Endpoint::open("a", a, None), b: Endpoint::open("b", b, None) }
    }

    /// Opens two endpoints in a bad network in memory. If the test pauses the clock
    /// (`start_paused`), they run in virtual time.
    pub(crate) fn impaired(media: [PeerMedia; 2], impairment: Impairment) -> Self {
        let network = VirtualNetwork::default();
        let endpoint = |name, media, seed| {
            Endpoint::configured(name, media, |config| {
                config.network = Some(network.clone());
                config.impairment = Some(Impairment { seed, ..impairment });
            })
        };
        let [a, b] = media;
        Self { a: endpoint("a", a, impairment.seed), b: endpoint("b", b, impairment.seed + 1) }
    }

    /// Opens two endpoints, and connects them.
    pub(crate) async fn connected(a: PeerMedia, b: PeerMedia) -> Self {
        let mut pair = Self::open(a, b);
        pair.connect().await;
        pair
    }

    /// Connects both endpoints: `a` offers, and `b` answers.
    pub(crate) async fn connect(&mut self) {
        let (a, b) = (&mut self.a, &mut self.b);
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let answer = b.accept_offer(&offer);
        let answer = b.description(answer).await;
        a.accept_answer(&answer);
        self.until_connected().await;
    }

    /// Forwards candidates until both endpoints are connected.
    pub(crate) async fn until_connected(&mut self) {
        let connected = |end: &Endpoint| end.state == Some(PeerState::Connected);
        self.until("both to be connected", |a, b| connected(a) && connected(b)).await;
    }

    /// Forwards candidates until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Endpoint, &Endpoint) -> bool) {
        let Self { a, b } = self;
        for event in a.events.iter().chain(&b.events) {
            assert!(!matches!(event, PeerEvent::Failed { .. }), "{event:?}");
        }
        forward_recorded(a, b);
        forward_recorded(b, a);
        guarded(what, async {
            while !holds(a, b) {
                tokio::select! {
                    event = a.next() => forward(event, b),
                    event = b.next() => forward(event, a),
                }
            }
        })
        .await;
    }
}

fn forward(event: PeerEvent, to: &mut Endpoint) {
    if let PeerEvent::Candidate(candidate) = event {
        to.add_candidate(candidate);
    }
}

/// Forwards the candidates that were recorded while only one end was polled. Candidates may be
/// forwarded twice.
fn forward_recorded(from: &Endpoint, to: &mut Endpoint) {
    for event in from.events.clone() {
        forward(event, to);
    }
}

/// The sections of a description, each as kind, `rejected` if it is, and direction.
pub(crate) fn sections(sdp: &str) -> Vec<String> {
    let mut sections: Vec<String> = vec![];
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let mut fields = media.split(' ');
            let (kind, port) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            sections.push(format!("{kind}{}", if port == "0" { " rejected" } else { "" }));
        } else if let ("a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive", Some(section)) =
            (line, sections.last_mut())
        {
            section.push_str(&line.replace("a=", " "));
        }
    }
    sections
}

/// All descriptions that an endpoint has made, by operation.
pub(crate) fn descriptions(end: &Endpoint) -> BTreeMap<OperationId, (DescriptionKind, String)> {
    let described = end.events.iter().filter_map(|event| match event {
        PeerEvent::LocalDescription { operation, kind, sdp } => {
            Some((*operation, (*kind, sdp.clone())))
        }
        PeerEvent::Applied { .. }
        | PeerEvent::Failed { .. }
        | PeerEvent::Negotiated(_)
        | PeerEvent::Candidate(_)
        | PeerEvent::State(_)
        | PeerEvent::AddressLost
        | PeerEvent::ChannelOpen(_)
        | PeerEvent::ChannelMessage(_) => None,
    });
    described.collect()
}
