//! A model of a peer connection. It carries out commands one after another, asserts that each is
//! legal when its turn comes, and is connected when both ends have negotiated and packets get
//! through.

use std::collections::VecDeque;

use quintet::model::{
    Candidate, ChatMessage, DescriptionKind, PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState,
    SessionId, Step,
};

use super::{rng::Chance, world::Verdict};

/// One end of a peer connection.
pub(crate) struct Connection {
    pub(crate) uid: u64,
    pub(crate) node: usize,
    pub(crate) peer: PeerId,
    pub(crate) session: SessionId,
    pub(crate) media: PeerMedia,
    /// The media that it sends: audio, video.
    pub(crate) fed: (bool, bool),
    /// Whether its audio is audible, and whether any is expected.
    pub(crate) sound: (bool, bool),
    /// The program that it leads to.
    pub(crate) towards: Option<usize>,
    pub(crate) opened: u64,
    pub(crate) is_open: bool,
    pub(crate) state: PeerState,
    /// Since when packets have come, or have not.
    pub(crate) flows: bool,
    /// Since when packets have arrived, or have not.
    pub(crate) flow_changed: u64,
    pub(crate) queue: VecDeque<PeerCommand>,
    pub(crate) standing: Standing,
    /// The other end, once its description was set.
    pub(crate) remote: Option<u64>,
    pub(crate) candidates: usize,
    /// The exchanges that are complete, with the network of this end that each is about.
    agreed: Vec<(Exchange, u32)>,
    serial: u32,
    ice: u32,
    remote_ice: Option<u32>,
    /// The network in which candidates were gathered.
    network: u32,
    gathered: bool,
    before_offer: (u32, u32),
    /// The local description, while it is set.
    pub(crate) in_force: Option<String>,
    pub(crate) has_said: bool,
    /// Whether the core was notified that the data channel is open.
    pub(crate) is_writable: bool,
    /// The messages that this end sent and the other end has not received.
    pub(crate) unread: VecDeque<ChatMessage>,
}

/// The signalling state of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Stable,
    LocalOffer,
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
            node: program,
            peer,
            session,
            media,
            fed: (false, false),
            sound: (true, true),
            towards: None,
            opened: now,
            is_open: true,
            state: PeerState::Connecting,
            flows: false,
            flow_changed: now,
            queue: VecDeque::new(),
            standing: Standing::Stable,
            remote: None,
            candidates: 0,
            agreed: vec![],
            serial: 0,
            ice: 1,
            remote_ice: None,
            network,
            gathered: false,
            before_offer: (1, network),
            in_force: None,
            has_said: false,
            is_writable: false,
            unread: VecDeque::new(),
        }
    }

    /// Carries out the oldest command, in the present network of the computer.
    pub(crate) fn carry_out(&mut self, network: u32, mishap: bool) -> Result<Outcome, String> {
        let Some(command) = self.queue.pop_front() else {
            return Ok(Outcome { event: None, gathers: false });
        };
        self.check(&command)?;
        if let (true, Some(operation)) = (mishap, step(&command)) {
            let event = Some(PeerEvent::Refused { step: operation, reason: "chance".into() });
            return Ok(Outcome { event, gathers: false });
        }
        Ok(match command {
            PeerCommand::MakeOffer { step: operation, restart_ice } => {
                self.offer(operation, restart_ice, network)
            }
            PeerCommand::Rollback { step: operation } => self.roll_back(operation),
            PeerCommand::AcceptOffer { step: operation, sdp } => {
                self.answer(operation, &sdp, network)
            }
            PeerCommand::AcceptAnswer { step: operation, sdp } => self.conclude(operation, &sdp),
            PeerCommand::AddCandidate(candidate) => self.add(&candidate),
            PeerCommand::Write(message) => {
                self.unread.push_back(message);
                Outcome { event: None, gathers: false }
            }
        })
    }

    /// Whether both ends have completed an exchange that holds in both their networks.
    pub(crate) fn agrees_with(&self, other: &Self, networks: (u32, u32)) -> bool {
        let bound = self.remote == Some(other.uid) && other.remote == Some(self.uid);
        let open = self.is_open && other.is_open;
        let placed = self.candidates > 0 && other.candidates > 0;
        let mine = |exchange: &Exchange| self.agreed.contains(&(*exchange, networks.0));
        let theirs = other.agreed.iter().filter(|(_, network)| *network == networks.1);
        bound && open && placed && theirs.into_iter().any(|(exchange, _)| mine(exchange))
    }

    /// Checks that a description may be sent: it is set, and no queued command replaces it.
    pub(crate) fn check_said(&self, kind: DescriptionKind, sdp: &str) -> Verdict {
        let in_force = self.in_force.as_deref() == Some(sdp);
        let moot = self.queue.iter().any(|command| match command {
            PeerCommand::Rollback { .. } | PeerCommand::AcceptOffer { .. } => true,
            PeerCommand::MakeOffer { .. } => kind == DescriptionKind::Offer,
            PeerCommand::AcceptAnswer { .. }
            | PeerCommand::AddCandidate(_)
            | PeerCommand::Write(_) => false,
        });
        if in_force && !moot {
            return Ok(());
        }
        Err(format!("{} sends a stale description: {sdp}", self.peer))
    }

    fn check(&self, command: &PeerCommand) -> Verdict {
        let legal = match command {
            PeerCommand::MakeOffer { .. } | PeerCommand::AcceptOffer { .. } => {
                self.standing == Standing::Stable
            }
            PeerCommand::Rollback { .. } | PeerCommand::AcceptAnswer { .. } => {
                self.standing == Standing::LocalOffer
            }
            PeerCommand::AddCandidate(_) => self.remote.is_some(),
            PeerCommand::Write(_) => self.is_writable,
        };
        if legal {
            return Ok(());
        }
        let (peer, state) = (self.peer, self.standing);
        Err(format!("illegal operation of {peer} in {state:?}: {command:?}"))
    }

    fn offer(&mut self, operation: Step, restart: bool, network: u32) -> Outcome {
        self.before_offer = (self.ice, self.network);
        self.serial += 1;
        self.standing = Standing::LocalOffer;
        let gathers = restart || !self.gathered;
        self.gather(gathers, network);
        let sdp = format!("offer {} {} {}\nm=x", self.uid, self.serial, self.ice);
        self.in_force = Some(sdp.clone());
        let kind = DescriptionKind::Offer;
        Outcome { event: Some(PeerEvent::Description { step: operation, kind, sdp }), gathers }
    }

    fn roll_back(&mut self, operation: Step) -> Outcome {
        self.standing = Standing::Stable;
        (self.ice, self.network) = self.before_offer;
        self.in_force = None;
        Outcome { event: Some(PeerEvent::Done { step: operation }), gathers: false }
    }

    fn answer(&mut self, operation: Step, sdp: &str, network: u32) -> Outcome {
        let Some([from, serial, ice]) = numbers(sdp, "offer") else {
            return refused(operation, "no offer");
        };
        if self.remote.is_some_and(|known| known != from) {
            return refused(operation, "an offer of another connection");
        }
        let restarts = self.remote_ice != Some(ice as u32);
        let gathers = restarts || !self.gathered;
        self.gather(gathers, network);
        (self.remote, self.remote_ice) = (Some(from), Some(ice as u32));
        self.agreed.push(((from, serial as u32), self.network));
        let sdp = format!("answer {} {} {} {from}\nm=x", self.uid, serial, self.ice);
        self.in_force = Some(sdp.clone());
        let kind = DescriptionKind::Answer;
        Outcome { event: Some(PeerEvent::Description { step: operation, kind, sdp }), gathers }
    }

    fn conclude(&mut self, operation: Step, sdp: &str) -> Outcome {
        let Some([from, serial, ice, to]) = numbers(sdp, "answer") else {
            return refused(operation, "no answer");
        };
        let bound = self.remote.is_none_or(|known| known == from);
        if !bound || to != self.uid || serial as u32 != self.serial {
            return refused(operation, "an answer to another offer");
        }
        self.standing = Standing::Stable;
        (self.remote, self.remote_ice) = (Some(from), Some(ice as u32));
        self.agreed.push(((self.uid, self.serial), self.network));
        Outcome { event: Some(PeerEvent::Done { step: operation }), gathers: false }
    }

    fn add(&mut self, candidate: &Candidate) -> Outcome {
        let owner = candidate.line.strip_prefix("candidate:").and_then(|rest| rest.parse().ok());
        if owner.is_some() && owner == self.remote {
            self.candidates += 1;
        }
        Outcome { event: None, gathers: false }
    }

    fn gather(&mut self, anew: bool, network: u32) {
        if anew {
            self.ice += 1;
            self.network = network;
            self.gathered = true;
        }
    }
}

/// The candidates that gathering finds, including the end of candidates.
pub(crate) fn gathered(uid: u64, rng: &mut Chance) -> Vec<(u64, PeerEvent)> {
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

fn step(command: &PeerCommand) -> Option<Step> {
    match command {
        PeerCommand::MakeOffer { step: operation, .. }
        | PeerCommand::Rollback { step: operation }
        | PeerCommand::AcceptOffer { step: operation, .. }
        | PeerCommand::AcceptAnswer { step: operation, .. } => Some(*operation),
        PeerCommand::AddCandidate(_) | PeerCommand::Write(_) => None,
    }
}

fn refused(operation: Step, reason: &str) -> Outcome {
    let event = Some(PeerEvent::Refused { step: operation, reason: reason.to_owned() });
    Outcome { event, gathers: false }
}

fn numbers<const N: usize>(sdp: &str, kind: &str) -> Option<[u64; N]> {
    let rest = sdp.strip_prefix(kind)?;
    let found: Vec<u64> = rest.split_whitespace().filter_map(|one| one.parse().ok()).collect();
    found.try_into().ok()
}
