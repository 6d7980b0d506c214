//! Two connections in one process, with a signalling path that loses nothing.

use std::{collections::BTreeMap, future::Future, time::Duration};

use quintet::{
    media::IncomingTrack,
    model::{
        Agreement, Candidate, DescriptionKind, Direction, PeerCommand, PeerEvent, PeerId,
        PeerMedia, PeerState, Step,
    },
    transport::{CheckBudget, Connection, ConnectionConfig, Impairment, Outlets},
};
use tokio::sync::mpsc;

/// No event of these tests takes longer on a machine that is not broken.
const GUARD: Duration = Duration::from_secs(30);

/// The outcome, or a failed test.
pub(crate) async fn guarded<T>(what: &str, outcome: impl Future<Output = T>) -> T {
    match tokio::time::timeout(GUARD, outcome).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Audio and video of that direction.
pub(crate) fn audio_video(direction: Direction) -> PeerMedia {
    PeerMedia { audio: Some(direction), video: Some(direction), data: false }
}

/// One end, and what it told.
pub(crate) struct End {
    pub(crate) connection: Connection,
    pub(crate) tracks: mpsc::Receiver<IncomingTrack>,
    pub(crate) state: Option<PeerState>,
    /// Everything it told, in order.
    pub(crate) told: Vec<PeerEvent>,
    events: mpsc::Receiver<(PeerId, PeerEvent)>,
    steps: u32,
    /// Whether candidates of the other end may be handed to this one.
    described: bool,
    /// The other end's candidates that came too early.
    early: Vec<Candidate>,
}

impl End {
    pub(crate) fn open(name: &str, media: PeerMedia, impairment: Option<Impairment>) -> Self {
        Self::within(CheckBudget::default(), name, media, impairment)
    }

    /// One whose checks are bounded by that.
    pub(crate) fn within(
        checks: CheckBudget,
        name: &str,
        media: PeerMedia,
        impairment: Option<Impairment>,
    ) -> Self {
        let (events_in, events) = mpsc::channel(256);
        let (tracks_in, tracks) = mpsc::channel(16);
        let config = ConnectionConfig {
            peer: PeerId(7),
            media,
            stream: format!("stream-{name}"),
            audio_mix: format!("sound-{name}"),
            video_mix: format!("picture-{name}"),
            impairment,
            paths: Default::default(),
            checks,
        };
        let outlets = Outlets { events: events_in, tracks: tracks_in };
        Self {
            connection: Connection::open(config, outlets),
            tracks,
            state: None,
            told: vec![],
            events,
            steps: 0,
            described: false,
            early: vec![],
        }
    }

    /// Gives a command made with the next step's number.
    pub(crate) fn command(&mut self, command: impl FnOnce(Step) -> PeerCommand) -> Step {
        self.steps += 1;
        let step = Step(self.steps);
        self.connection.command(command(step));
        step
    }

    pub(crate) fn make_offer(&mut self, restart_ice: bool) -> Step {
        self.command(|step| PeerCommand::MakeOffer { step, restart_ice })
    }

    pub(crate) fn accept_offer(&mut self, sdp: &str) -> Step {
        let step = self.command(|step| PeerCommand::AcceptOffer { step, sdp: sdp.to_owned() });
        self.take_early_candidates();
        step
    }

    pub(crate) fn accept_answer(&mut self, sdp: &str) -> Step {
        let step = self.command(|step| PeerCommand::AcceptAnswer { step, sdp: sdp.to_owned() });
        self.take_early_candidates();
        step
    }

    fn take_early_candidates(&mut self) {
        self.described = true;
        for candidate in std::mem::take(&mut self.early) {
            self.connection.command(PeerCommand::AddCandidate(candidate));
        }
    }

    fn take_candidate(&mut self, candidate: Candidate) {
        if self.described {
            self.connection.command(PeerCommand::AddCandidate(candidate));
        } else {
            self.early.push(candidate);
        }
    }

    /// The next event; its own records are kept up to date.
    pub(crate) async fn next(&mut self) -> PeerEvent {
        let (_, event) = guarded("an event", self.events.recv()).await.expect("it is alive");
        self.told.push(event.clone());
        if let PeerEvent::State(state) = &event {
            self.state = Some(*state);
        }
        event
    }

    /// What it told about that step, if it did.
    pub(crate) fn outcome(&self, wanted: Step) -> Option<&PeerEvent> {
        self.told.iter().find(|event| match event {
            PeerEvent::Description { step, .. }
            | PeerEvent::Done { step }
            | PeerEvent::Refused { step, .. } => *step == wanted,
            PeerEvent::Agreed(_)
            | PeerEvent::Candidate(_)
            | PeerEvent::State(_)
            | PeerEvent::Writable
            | PeerEvent::Read(_) => false,
        })
    }

    /// The outcome of a step, waited for without the other end.
    pub(crate) async fn outcome_of(&mut self, step: Step) -> PeerEvent {
        loop {
            if let Some(outcome) = self.outcome(step) {
                return outcome.clone();
            }
            self.next().await;
        }
    }

    /// What it agreed on with its last outcome, waited for without the other end.
    pub(crate) async fn agreement(&mut self) -> Agreement {
        loop {
            let mut agreed = None;
            for event in &self.told {
                match event {
                    PeerEvent::Agreed(agreement) => agreed = Some(*agreement),
                    PeerEvent::Description { .. } | PeerEvent::Done { .. } => agreed = None,
                    PeerEvent::Refused { .. }
                    | PeerEvent::Candidate(_)
                    | PeerEvent::State(_)
                    | PeerEvent::Writable
                    | PeerEvent::Read(_) => {}
                }
            }
            if let Some(agreement) = agreed {
                return agreement;
            }
            self.next().await;
        }
    }

    /// The description that a step made, waited for without the other end.
    pub(crate) async fn description(&mut self, step: Step) -> String {
        let outcome = self.outcome_of(step).await;
        let PeerEvent::Description { sdp, .. } = outcome else { panic!("refused: {outcome:?}") };
        sdp
    }

    pub(crate) async fn until_state(&mut self, wanted: PeerState) {
        while self.state != Some(wanted) {
            self.next().await;
        }
    }
}

/// Two ends.
pub(crate) struct Pair {
    pub(crate) a: End,
    pub(crate) b: End,
}

impl Pair {
    pub(crate) fn open(a: PeerMedia, b: PeerMedia) -> Self {
        Self { a: End::open("a", a, None), b: End::open("b", b, None) }
    }

    /// Two ends whose networks are bad.
    pub(crate) fn impaired(media: [PeerMedia; 2], impairment: Impairment) -> Self {
        let [a, b] = media;
        let other = Impairment { seed: impairment.seed + 1, ..impairment };
        Self { a: End::open("a", a, Some(impairment)), b: End::open("b", b, Some(other)) }
    }

    /// Two ends that are connected, sending and receiving everything.
    pub(crate) async fn connected(a: PeerMedia, b: PeerMedia) -> Self {
        let mut pair = Self::open(a, b);
        pair.connect().await;
        pair
    }

    /// One offers, the other answers, and both are connected.
    pub(crate) async fn connect(&mut self) {
        let (a, b) = (&mut self.a, &mut self.b);
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let answer = b.accept_offer(&offer);
        let answer = b.description(answer).await;
        a.accept_answer(&answer);
        self.until_connected().await;
    }

    /// Carries candidates until both are connected.
    pub(crate) async fn until_connected(&mut self) {
        let connected = |end: &End| end.state == Some(PeerState::Connected);
        self.until("both to be connected", |a, b| connected(a) && connected(b)).await;
    }

    /// Carries candidates until that holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&End, &End) -> bool) {
        let Self { a, b } = self;
        for told in a.told.iter().chain(&b.told) {
            assert!(!matches!(told, PeerEvent::Refused { .. }), "{told:?}");
        }
        forward_told(a, b);
        forward_told(b, a);
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

fn forward(event: PeerEvent, to: &mut End) {
    if let PeerEvent::Candidate(candidate) = event {
        to.take_candidate(candidate);
    }
}

/// Forwards what was told while only one end was listened to; twice does no harm.
fn forward_told(from: &End, to: &mut End) {
    for event in from.told.clone() {
        forward(event, to);
    }
}

/// The sections of a description: kind, direction, and whether it is alive.
pub(crate) fn sections(sdp: &str) -> Vec<String> {
    let mut sections: Vec<String> = vec![];
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            let (kind, port) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            sections.push(format!("{kind}{}", if port == "0" { " rejected" } else { "" }));
        } else if let ("a=sendrecv" | "a=sendonly" | "a=recvonly" | "a=inactive", Some(section)) =
            (line, sections.last_mut())
        {
            section.push_str(&line.replace("a=", " "));
        }
    }
    sections
}

/// All descriptions that an end made, by step.
pub(crate) fn descriptions(end: &End) -> BTreeMap<Step, (DescriptionKind, String)> {
    let described = end.told.iter().filter_map(|event| match event {
        PeerEvent::Description { step, kind, sdp } => Some((*step, (*kind, sdp.clone()))),
        PeerEvent::Done { .. }
        | PeerEvent::Refused { .. }
        | PeerEvent::Agreed(_)
        | PeerEvent::Candidate(_)
        | PeerEvent::State(_)
        | PeerEvent::Writable
        | PeerEvent::Read(_) => None,
    });
    described.collect()
}
