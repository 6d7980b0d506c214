//! A model of a peer connection. It carries out commands one after another, asserts that each is
//! legal when its turn comes, and is connected when both ends have negotiated and packets get
//! through.

use std::collections::VecDeque;

use quintet::conference::Playback;
use quintet::model::{
    Candidate, ChatMessage, DescriptionKind, NegotiatedMedia, OperationId, PeerCommand, PeerEvent,
    PeerId, PeerMedia, PeerState, PerSource, SessionId, TrackId, TrackList,
};

use super::{rng::SeededRng, world::Verdict};

/// One end of a peer connection.
pub(crate) struct Connection {
    pub(crate) uid: u64,
    pub(crate) program: usize,
    pub(crate) peer: PeerId,
    pub(crate) session: SessionId,
    pub(crate) media: PeerMedia,
    /// The sources that it sends.
    pub(crate) sending: PerSource<bool>,
    /// How its audio is played.
    pub(crate) playback: Playback,
    /// The tracks that it signalled last.
    pub(crate) signalled_tracks: Option<TrackList>,
    /// The tracks that its core says that the other end signals.
    pub(crate) remote_tracks: TrackList,
    /// The program that it leads to.
    pub(crate) remote_program: Option<usize>,
    pub(crate) opened_at: u64,
    pub(crate) is_open: bool,
    pub(crate) state: PeerState,
    /// Since when packets have come, or have not.
    pub(crate) flows: bool,
    /// Since when packets have arrived, or have not.
    pub(crate) flow_changed_at: u64,
    pub(crate) queue: VecDeque<PeerCommand>,
    pub(crate) signaling_state: SignalingState,
    /// The other end, once its description was set.
    pub(crate) remote: Option<u64>,
    pub(crate) candidates: usize,
    /// The exchanges that are complete, with the network of this end that each is about.
    exchanges: Vec<(Exchange, u32)>,
    offer_number: u32,
    ice_generation: u32,
    remote_ice_generation: Option<u32>,
    /// The network in which candidates were gathered.
    network: u32,
    gathered: bool,
    before_offer: (u32, u32),
    /// The local description, while it is set.
    pub(crate) local_description: Option<String>,
    pub(crate) has_sent_description: bool,
    /// Whether the core was notified that the data channel is open.
    pub(crate) is_writable: bool,
    /// The messages that this end sent and the other end has not received.
    pub(crate) unread: VecDeque<ChatMessage>,
}

/// The signalling state of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SignalingState {
    Stable,
    HaveLocalOffer,
}

/// An offer: the connection that made it, and its number there.
type Exchange = (u64, u32);

/// The outcome of a command.
pub(crate) struct Outcome {
    pub(crate) event: Option<PeerEvent>,
    pub(crate) gathers: bool,
}

impl Connection {
    pub(crate) fn new(
        (uid, program): (u64, usize),
        peer: PeerId,
        session: SessionId,
        (media, network, now): (PeerMedia, u32, u64),
    ) -> Self {
        Self {
            uid,
            program,
            peer,
            session,
            media,
            sending: PerSource::NONE,
            playback: Playback { is_audible: true, is_expected: true },
            signalled_tracks: None,
            remote_tracks: TrackList::default(),
            remote_program: None,
            opened_at: now,
            is_open: true,
            state: PeerState::Connecting,
            flows: false,
            flow_changed_at: now,
            queue: VecDeque::new(),
            signaling_state: SignalingState::Stable,
            remote: None,
            candidates: 0,
            exchanges: vec![],
            offer_number: 0,
            ice_generation: 1,
            remote_ice_generation: None,
            network,
            gathered: false,
            before_offer: (1, network),
            local_description: None,
            has_sent_description: false,
            is_writable: false,
            unread: VecDeque::new(),
        }
    }

    /// Carries out the oldest command, in the present network of the computer.
    pub(crate) fn run_next_command(
        &mut self,
        network: u32,
        mishap: bool,
    ) -> Result<Outcome, String> {
        let Some(command) = self.queue.pop_front() else {
            return Ok(Outcome { event: None, gathers: false });
        };
        self.check_legal(&command)?;
        if let (true, Some(operation)) = (mishap, operation_of(&command)) {
            let event = Some(PeerEvent::Failed { operation, reason: "chance".into() });
            return Ok(Outcome { event, gathers: false });
        }
        Ok(match command {
            PeerCommand::MakeOffer { operation, restart_ice } => {
                self.create_offer(operation, restart_ice, network)
            }
            PeerCommand::Rollback { operation } => self.roll_back(operation),
            PeerCommand::AcceptOffer { operation, sdp } => {
                self.accept_offer(operation, &sdp, network)
            }
            PeerCommand::AcceptAnswer { operation, sdp } => self.accept_answer(operation, &sdp),
            PeerCommand::AddCandidate(candidate) => self.add_candidate(&candidate),
            PeerCommand::SendChannelMessage(message) => {
                self.unread.push_back(message);
                Outcome { event: None, gathers: false }
            }
        })
    }

    /// Whether both ends have completed an exchange that holds in both their networks.
    pub(crate) fn is_negotiated_with(&self, other: &Self, networks: (u32, u32)) -> bool {
        let bound = self.remote == Some(other.uid) && other.remote == Some(self.uid);
        let open = self.is_open && other.is_open;
        let placed = self.candidates > 0 && other.candidates > 0;
        let mine = |exchange: &Exchange| self.exchanges.contains(&(*exchange, networks.0));
        let theirs = other.exchanges.iter().filter(|(_, network)| *network == networks.1);
        bound && open && placed && theirs.into_iter().any(|(exchange, _)| mine(exchange))
    }

    /// Checks that a description may be sent: it is set, and no queued command replaces it.
    pub(crate) fn check_description(&self, kind: DescriptionKind, sdp: &str) -> Verdict {
        let in_force = self.local_description.as_deref() == Some(sdp);
        let moot = self.queue.iter().any(|command| match command {
            PeerCommand::Rollback { .. } | PeerCommand::AcceptOffer { .. } => true,
            PeerCommand::MakeOffer { .. } => kind == DescriptionKind::Offer,
            PeerCommand::AcceptAnswer { .. }
            | PeerCommand::AddCandidate(_)
            | PeerCommand::SendChannelMessage(_) => false,
        });
        if in_force && !moot {
            return Ok(());
        }
        Err(format!("{} sends a stale description: {sdp}", self.peer))
    }

    fn check_legal(&self, command: &PeerCommand) -> Verdict {
        let legal = match command {
            PeerCommand::MakeOffer { .. } | PeerCommand::AcceptOffer { .. } => {
                self.signaling_state == SignalingState::Stable
            }
            PeerCommand::Rollback { .. } | PeerCommand::AcceptAnswer { .. } => {
                self.signaling_state == SignalingState::HaveLocalOffer
            }
            PeerCommand::AddCandidate(_) => self.remote.is_some(),
            PeerCommand::SendChannelMessage(_) => self.is_writable,
        };
        if legal {
            return Ok(());
        }
        let (peer, state) = (self.peer, self.signaling_state);
        Err(format!("illegal operation of {peer} in {state:?}: {command:?}"))
    }

    fn create_offer(&mut self, operation: OperationId, restart: bool, network: u32) -> Outcome {
        self.before_offer = (self.ice_generation, self.network);
        self.offer_number += 1;
        self.signaling_state = SignalingState::HaveLocalOffer;
        let gathers = restart || !self.gathered;
        self.gather(gathers, network);
        let sdp = format!("offer {} {} {}\nm=x", self.uid, self.offer_number, self.ice_generation);
        self.local_description = Some(sdp.clone());
        let kind = DescriptionKind::Offer;
        Outcome { event: Some(PeerEvent::LocalDescription { operation, kind, sdp }), gathers }
    }

    fn roll_back(&mut self, operation: OperationId) -> Outcome {
        self.signaling_state = SignalingState::Stable;
        (self.ice_generation, self.network) = self.before_offer;
        self.local_description = None;
        Outcome { event: Some(PeerEvent::Applied { operation }), gathers: false }
    }

    fn accept_offer(&mut self, operation: OperationId, sdp: &str, network: u32) -> Outcome {
        let Some([from, serial, ice]) = parse_numbers(sdp, "offer") else {
            return refused(operation, "no offer");
        };
        if self.remote.is_some_and(|known| known != from) {
            return refused(operation, "an offer of another connection");
        }
        let restarts = self.remote_ice_generation != Some(ice as u32);
        let gathers = restarts || !self.gathered;
        self.gather(gathers, network);
        (self.remote, self.remote_ice_generation) = (Some(from), Some(ice as u32));
        self.exchanges.push(((from, serial as u32), self.network));
        let sdp = format!("answer {} {} {} {from}\nm=x", self.uid, serial, self.ice_generation);
        self.local_description = Some(sdp.clone());
        let kind = DescriptionKind::Answer;
        Outcome { event: Some(PeerEvent::LocalDescription { operation, kind, sdp }), gathers }
    }

    fn accept_answer(&mut self, operation: OperationId, sdp: &str) -> Outcome {
        let Some([from, serial, ice, to]) = parse_numbers(sdp, "answer") else {
            return refused(operation, "no answer");
        };
        let bound = self.remote.is_none_or(|known| known == from);
        if !bound || to != self.uid || serial as u32 != self.offer_number {
            return refused(operation, "an answer to another offer");
        }
        self.signaling_state = SignalingState::Stable;
        (self.remote, self.remote_ice_generation) = (Some(from), Some(ice as u32));
        self.exchanges.push(((self.uid, self.offer_number), self.network));
        Outcome { event: Some(PeerEvent::Applied { operation }), gathers: false }
    }

    /// The agreement of the exchange that is complete, if one is. The tracks of both ends have the
    /// same ids, and those of another connection have others.
    pub(crate) fn agreement(&self) -> Option<PeerEvent> {
        let pair = self.uid.min(self.remote?);
        let tracks = PerSource::from_fn(|source| TrackId::new(&format!("{pair}.{}", source as u8)));
        Some(PeerEvent::Negotiated(NegotiatedMedia { tracks, ..NegotiatedMedia::default() }))
    }

    fn add_candidate(&mut self, candidate: &Candidate) -> Outcome {
        let owner = candidate.line.strip_prefix("candidate:").and_then(|rest| rest.parse().ok());
        if owner.is_some() && owner == self.remote {
            self.candidates += 1;
        }
        Outcome { event: None, gathers: false }
    }

    fn gather(&mut self, anew: bool, network: u32) {
        if anew {
            self.ice_generation += 1;
            self.network = network;
            self.gathered = true;
        }
    }
}

/// The candidates that gathering finds, including the end of candidates.
pub(crate) fn gathered(uid: u64, rng: &mut SeededRng) -> Vec<(u64, PeerEvent)> {
    let line = |line: String| {
        PeerEvent::Candidate(Candidate { line, mid: Some("0".into()), index: Some(0) })
    };
    let found = 1 + rng.below(3);
    let mut all = vec![];
    for _ in 0..found {
        all.push((rng.ms(0, 150), line(format!("candidate:{uid}"))));
    }
    all.push((151_000, line(String::new())));
    all
}

fn operation_of(command: &PeerCommand) -> Option<OperationId> {
    match command {
        PeerCommand::MakeOffer { operation, .. }
        | PeerCommand::Rollback { operation }
        | PeerCommand::AcceptOffer { operation, .. }
        | PeerCommand::AcceptAnswer { operation, .. } => Some(*operation),
        PeerCommand::AddCandidate(_) | PeerCommand::SendChannelMessage(_) => None,
    }
}

fn refused(operation: OperationId, reason: &str) -> Outcome {
    let event = Some(PeerEvent::Failed { operation, reason: reason.to_owned() });
    Outcome { event, gathers: false }
}

fn parse_numbers<const N: usize>(sdp: &str, kind: &str) -> Option<[u64; N]> {
    let rest = sdp.strip_prefix(kind)?;
    let found: Vec<u64> = rest.split_whitespace().filter_map(|one| one.parse().ok()).collect();
    found.try_into().ok()
}
