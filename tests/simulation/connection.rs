//! A model of a WebRTC connection: carries commands out one after another, asserts that each is
//! legal when its turn comes, and is connected when both ends have agreed and packets get through.

use std::collections::VecDeque;

use quintet::model::{
    Candidate, ChatMessage, DescriptionKind, PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState,
    SessionId, Step,
};

use super::{chance::Chance, world::Verdict};

/// One end of a connection.
pub(crate) struct Connection {
    pub(crate) uid: u64,
    pub(crate) node: usize,
    pub(crate) peer: PeerId,
    pub(crate) session: SessionId,
    pub(crate) media: PeerMedia,
    /// What it is fed with: sound, picture.
    pub(crate) fed: (bool, bool),
    /// Whether its sound may be heard, and whether any is expected.
    pub(crate) sound: (bool, bool),
    /// Which program it leads to.
    pub(crate) towards: Option<usize>,
    pub(crate) opened: u64,
    pub(crate) is_open: bool,
    pub(crate) state: PeerState,
    /// Since when packets have come, or have not.
    pub(crate) flows: bool,
    pub(crate) flow_changed: u64,
    pub(crate) queue: VecDeque<PeerCommand>,
    pub(crate) standing: Standing,
    /// The other end, once a description of it was taken.
    pub(crate) remote: Option<u64>,
    pub(crate) candidates: usize,
    /// The exchanges that were concluded, with the network of this end that each is about.
    agreed: Vec<(Exchange, u32)>,
    serial: u32,
    ice: u32,
    remote_ice: Option<u32>,
    /// The network that the paths were gathered in.
    network: u32,
    gathered: bool,
    before_offer: (u32, u32),
    /// The description that was last made, as long as it is in force.
    pub(crate) in_force: Option<String>,
    pub(crate) has_said: bool,
    /// Whether the data channel was told to be open.
    pub(crate) is_writable: bool,
    /// What this end wrote and the other has not read.
    pub(crate) unread: VecDeque<ChatMessage>,
}

/// The connection's signalling state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    Stable,
    LocalOffer,
}

/// An offer, by who made it and its number there.
type Exchange = (u64, u32);

/// What came of a command.
pub(crate) struct Outcome {
    pub(crate) event: Option<PeerEvent>,
    pub(crate) gathers: bool,
}

impl Connection {
    pub(crate) fn new(
        (uid, node): (u64, usize),
        peer: PeerId,
        session: SessionId,
        (media, network, now): (PeerMedia, u32, u64),
    ) -> Self {
        Self {
            uid,
            node,
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

    /// Carries the oldest command out, in the network that the computer is in now.
    pub(crate) fn carry_out(&mut self, network: u32, mishap: bool) -> Result<Outcome, String> {
        let Some(command) = self.queue.pop_front() else {
            return Ok(Outcome { event: None, gathers: false });
        };
        self.check(&command)?;
        if let (true, Some(step)) = (mishap, step(&command)) {
            let event = Some(PeerEvent::Refused { step, reason: "chance".into() });
            return Ok(Outcome { event, gathers: false });
        }
        Ok(match command {
            PeerCommand::MakeOffer { step, restart_ice } => self.offer(step, restart_ice, network),
            PeerCommand::Rollback { step } => self.roll_back(step),
            PeerCommand::AcceptOffer { step, sdp } => self.answer(step, &sdp, network),
            PeerCommand::AcceptAnswer { step, sdp } => self.conclude(step, &sdp),
            PeerCommand::AddCandidate(candidate) => self.add(&candidate),
            PeerCommand::Write(message) => {
                self.unread.push_back(message);
                Outcome { event: None, gathers: false }
            }
        })
    }

    /// Whether both ends agree on something that holds in both their networks.
    pub(crate) fn agrees_with(&self, other: &Self, networks: (u32, u32)) -> bool {
        let bound = self.remote == Some(other.uid) && other.remote == Some(self.uid);
        let open = self.is_open && other.is_open;
        let placed = self.candidates > 0 && other.candidates > 0;
        let mine = |exchange: &Exchange| self.agreed.contains(&(*exchange, networks.0));
        let theirs = other.agreed.iter().filter(|(_, network)| *network == networks.1);
        bound && open && placed && theirs.into_iter().any(|(exchange, _)| mine(exchange))
    }

    /// Whether a description may be said: it is in force, and nothing is under way against it.
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
        Err(format!("{} says a stale description: {sdp}", self.peer))
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
        let (peer, standing) = (self.peer, self.standing);
        Err(format!("illegal step of {peer} in {standing:?}: {command:?}"))
    }

    fn offer(&mut self, step: Step, restart: bool, network: u32) -> Outcome {
        self.before_offer = (self.ice, self.network);
        self.serial += 1;
        self.standing = Standing::LocalOffer;
        let gathers = restart || !self.gathered;
        self.gather(gathers, network);
        let sdp = format!("offer {} {} {}\nm=x", self.uid, self.serial, self.ice);
        self.in_force = Some(sdp.clone());
        let kind = DescriptionKind::Offer;
        Outcome { event: Some(PeerEvent::Description { step, kind, sdp }), gathers }
    }

    fn roll_back(&mut self, step: Step) -> Outcome {
        self.standing = Standing::Stable;
        (self.ice, self.network) = self.before_offer;
        self.in_force = None;
        Outcome { event: Some(PeerEvent::Done { step }), gathers: false }
    }

    fn answer(&mut self, step: Step, sdp: &str, network: u32) -> Outcome {
        let Some([from, serial, ice]) = numbers(sdp, "offer") else {
            return refused(step, "no offer");
        };
        if self.remote.is_some_and(|known| known != from) {
            return refused(step, "another connection's offer");
        }
        let restarts = self.remote_ice != Some(ice as u32);
        let gathers = restarts || !self.gathered;
        self.gather(gathers, network);
        (self.remote, self.remote_ice) = (Some(from), Some(ice as u32));
        self.agreed.push(((from, serial as u32), self.network));
        let sdp = format!("answer {} {} {} {from}\nm=x", self.uid, serial, self.ice);
        self.in_force = Some(sdp.clone());
        let kind = DescriptionKind::Answer;
        Outcome { event: Some(PeerEvent::Description { step, kind, sdp }), gathers }
    }

    fn conclude(&mut self, step: Step, sdp: &str) -> Outcome {
        let Some([from, serial, ice, to]) = numbers(sdp, "answer") else {
            return refused(step, "no answer");
        };
        let bound = self.remote.is_none_or(|known| known == from);
        if !bound || to != self.uid || serial as u32 != self.serial {
            return refused(step, "an answer to another offer");
        }
        self.standing = Standing::Stable;
        (self.remote, self.remote_ice) = (Some(from), Some(ice as u32));
        self.agreed.push(((self.uid, self.serial), self.network));
        Outcome { event: Some(PeerEvent::Done { step }), gathers: false }
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

/// The candidates that gathering finds, one of them the mark of the end.
pub(crate) fn gathered(uid: u64, chance: &mut Chance) -> Vec<(u64, PeerEvent)> {
    let line = |line: String| {
        PeerEvent::Candidate(Candidate { line, mid: Some("0".into()), index: Some(0) })
    };
    let found = 1 + chance.below(3);
    let mut all = vec![];
    for _ in 0..found {
        all.push((chance.ms(0, 150), line(format!("candidate:{uid}"))));
    }
    all.push((151_000, line(String::new())));
    all
}

fn step(command: &PeerCommand) -> Option<Step> {
    match command {
        PeerCommand::MakeOffer { step, .. }
        | PeerCommand::Rollback { step }
        | PeerCommand::AcceptOffer { step, .. }
        | PeerCommand::AcceptAnswer { step, .. } => Some(*step),
        PeerCommand::AddCandidate(_) | PeerCommand::Write(_) => None,
    }
}

fn refused(step: Step, reason: &str) -> Outcome {
    let event = Some(PeerEvent::Refused { step, reason: reason.to_owned() });
    Outcome { event, gathers: false }
}

fn numbers<const N: usize>(sdp: &str, kind: &str) -> Option<[u64; N]> {
    let rest = sdp.strip_prefix(kind)?;
    let found: Vec<u64> = rest.split_whitespace().filter_map(|one| one.parse().ok()).collect();
    found.try_into().ok()
}
