//! Perfect negotiation (W3C WebRTC, section 10.7) of one connection, with an explicit rollback.
//!
//! The connection carries commands out one after another and tells each outcome, so at most one
//! command with an outcome is under way here, and what arrives meanwhile is kept: a remote offer
//! until the step is over, a wish to negotiate until the state is stable. The polite end gives its
//! own offer up for the other's; that takes a rollback of its own, because a connection refuses a
//! remote offer while a local one stands.

use std::{collections::VecDeque, mem};

use crate::model::{
    Candidate, DescriptionKind, MAX_CANDIDATE_BYTES, MAX_SDP_BYTES, MediaTime, Payload,
    PeerCommand, PeerEvent, Step,
};

/// The state machine of one connection's descriptions and candidates.
#[derive(Debug)]
pub(super) struct Negotiation {
    polite: bool,
    generation: u32,
    state: State,
    /// Asked for and not begun.
    wanted: Option<Want>,
    /// A remote offer that waits for the step under way. The newest wins: the one before it was
    /// taken back by the other end.
    offered: Option<String>,
    steps: u32,
    /// Whether a remote description is in force, so that candidates are legal.
    has_remote: bool,
    /// Whether a description of ours was sent, so that the other end can place candidates.
    has_sent: bool,
    remote: Candidates,
    local: Candidates,
    moves: VecDeque<Move>,
}

/// Why a negotiation is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Want {
    /// To agree for the first time; any exchange does, the other end's too.
    Agree,
    /// To find new paths (ICE restart, RFC 8445, section 9).
    Restart,
}

/// What a negotiation wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// Tell the connection.
    Do(PeerCommand),
    /// Tell the other end.
    Say(Payload),
    /// A step was refused: this connection cannot be negotiated any further.
    GiveUp(String),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Stable,
    /// A local offer is being made.
    Offering {
        step: Step,
        want: Want,
    },
    /// A local offer stands and was sent.
    Offered {
        want: Want,
        since: MediaTime,
    },
    /// The local offer is being taken back.
    RollingBack {
        step: Step,
        want: Want,
    },
    /// A remote offer is being taken and answered.
    Answering {
        step: Step,
    },
    /// The answer to the local offer is being taken.
    Concluding {
        step: Step,
    },
    /// A step was refused.
    Broken,
}

/// Candidates of one end that wait for a description, and how many there were at all.
#[derive(Debug, Default)]
struct Candidates {
    waiting: Vec<Candidate>,
    seen: usize,
}

/// Candidates that one end of a connection may name; more are dropped.
///
/// A machine with six addresses names about 20; a hundred leave room for restarts and bound what a
/// stranger can make us hold.
const MAX_CANDIDATES: usize = 100;

impl Negotiation {
    /// A negotiation that has not begun; the polite end gives way.
    pub(super) fn new(polite: bool, generation: u32) -> Self {
        Self {
            polite,
            generation,
            state: State::Stable,
            wanted: None,
            offered: None,
            steps: 0,
            has_remote: false,
            has_sent: false,
            remote: Candidates::default(),
            local: Candidates::default(),
            moves: VecDeque::new(),
        }
    }

    /// The next thing to be done.
    pub(super) fn poll(&mut self) -> Option<Move> {
        self.moves.pop_front()
    }

    /// Whether both descriptions were there once.
    pub(super) const fn has_agreed(&self) -> bool {
        self.has_remote
    }

    /// Since when a local offer stands that was not answered.
    pub(super) const fn unanswered_since(&self) -> Option<MediaTime> {
        match self.state {
            State::Offered { since, .. } => Some(since),
            State::Stable
            | State::Offering { .. }
            | State::RollingBack { .. }
            | State::Answering { .. }
            | State::Concluding { .. }
            | State::Broken => None,
        }
    }

    /// Asks for an offer, now or as soon as one is legal.
    pub(super) fn want(&mut self, want: Want) {
        self.wanted = self.wanted.max(Some(want));
        self.go_on();
    }

    /// Takes back an offer that the other end never answered, and makes a new one.
    pub(super) fn repeat_offer(&mut self) {
        if let State::Offered { want, .. } = self.state {
            self.roll_back(want);
        }
    }

    /// Takes a word of the other end, about this generation.
    pub(super) fn hear(&mut self, payload: Payload) {
        match payload {
            Payload::Offer { sdp, .. } if sdp.len() <= MAX_SDP_BYTES => self.hear_offer(sdp),
            Payload::Answer { sdp, .. } if sdp.len() <= MAX_SDP_BYTES => self.hear_answer(sdp),
            Payload::Candidate { candidate, mid, line, .. } => {
                self.remote.hold(Candidate { line: candidate, mid, index: line });
                self.release_remote();
            }
            Payload::Offer { .. }
            | Payload::Answer { .. }
            | Payload::Media { .. }
            | Payload::Unknown => {}
        }
    }

    /// Takes what the connection tells; an outcome of any step but the one under way is stale.
    pub(super) fn outcome(&mut self, event: PeerEvent, now: MediaTime) {
        match event {
            PeerEvent::Description { step, kind, sdp } => self.described(step, (kind, sdp), now),
            PeerEvent::Done { step } => self.done(step),
            PeerEvent::Refused { step, reason } if self.under_way() == Some(step) => {
                self.state = State::Broken;
                self.moves.push_back(Move::GiveUp(reason));
            }
            PeerEvent::Candidate(candidate) => {
                self.local.hold(candidate);
                self.release_local();
            }
            PeerEvent::Refused { .. }
            | PeerEvent::Agreed(_)
            | PeerEvent::State(_)
            | PeerEvent::Writable
            | PeerEvent::Read(_) => {}
        }
    }

    fn hear_offer(&mut self, sdp: String) {
        match self.state {
            State::Offering { .. } | State::Offered { .. } if !self.polite => {}
            State::Offered { want, .. } => {
                self.offered = Some(sdp);
                self.roll_back(want);
            }
            State::Stable
            | State::Offering { .. }
            | State::RollingBack { .. }
            | State::Answering { .. }
            | State::Concluding { .. } => {
                self.offered = Some(sdp);
                self.go_on();
            }
            State::Broken => {}
        }
    }

    fn hear_answer(&mut self, sdp: String) {
        if let State::Offered { .. } = self.state {
            let step = self.step();
            self.state = State::Concluding { step };
            self.moves.push_back(Move::Do(PeerCommand::AcceptAnswer { step, sdp }));
        }
    }

    fn described(&mut self, of: Step, (kind, sdp): (DescriptionKind, String), now: MediaTime) {
        let generation = self.generation;
        match (self.state, kind) {
            (State::Offering { step, want }, DescriptionKind::Offer) if step == of => {
                self.state = State::Offered { want, since: now };
                // A remote offer that came meanwhile makes this one moot before it was sent.
                if self.offered.is_some() {
                    self.roll_back(want);
                } else {
                    self.say(Payload::Offer { generation, sdp });
                }
            }
            (State::Answering { step }, DescriptionKind::Answer) if step == of => {
                self.agreed();
                // The offer that this answers was taken back: its successor is here.
                if self.offered.is_none() {
                    self.say(Payload::Answer { generation, sdp });
                }
                self.go_on();
            }
            (
                State::Stable
                | State::Offering { .. }
                | State::Offered { .. }
                | State::RollingBack { .. }
                | State::Answering { .. }
                | State::Concluding { .. }
                | State::Broken,
                DescriptionKind::Offer | DescriptionKind::Answer,
            ) => {}
        }
    }

    fn done(&mut self, of: Step) {
        match self.state {
            State::RollingBack { step, want } if step == of => {
                self.state = State::Stable;
                self.wanted = self.wanted.max(Some(want));
                self.go_on();
            }
            State::Concluding { step } if step == of => {
                self.agreed();
                self.go_on();
            }
            State::Stable
            | State::Offering { .. }
            | State::Offered { .. }
            | State::RollingBack { .. }
            | State::Answering { .. }
            | State::Concluding { .. }
            | State::Broken => {}
        }
    }

    /// An exchange was concluded, whoever began it.
    fn agreed(&mut self) {
        self.state = State::Stable;
        self.has_remote = true;
        if self.wanted == Some(Want::Agree) {
            self.wanted = None;
        }
    }

    /// Begins what has waited for the stable state, the other end's offer first.
    fn go_on(&mut self) {
        if self.state != State::Stable {
            return;
        }
        if let Some(sdp) = self.offered.take() {
            let step = self.step();
            self.state = State::Answering { step };
            self.moves.push_back(Move::Do(PeerCommand::AcceptOffer { step, sdp }));
        } else if let Some(want) = self.wanted.take() {
            self.release_remote();
            let (step, restart_ice) = (self.step(), want == Want::Restart);
            self.state = State::Offering { step, want };
            self.moves.push_back(Move::Do(PeerCommand::MakeOffer { step, restart_ice }));
        } else {
            self.release_remote();
            self.release_local();
        }
    }

    fn roll_back(&mut self, want: Want) {
        let step = self.step();
        self.state = State::RollingBack { step, want };
        self.moves.push_back(Move::Do(PeerCommand::Rollback { step }));
    }

    fn say(&mut self, description: Payload) {
        self.moves.push_back(Move::Say(description));
        self.has_sent = true;
        self.release_local();
    }

    /// Hands remote candidates on, unless a description that they may belong to is still to be
    /// taken.
    fn release_remote(&mut self) {
        let placed = match self.state {
            State::Stable | State::Offering { .. } | State::Offered { .. } => self.has_remote,
            State::RollingBack { .. }
            | State::Answering { .. }
            | State::Concluding { .. }
            | State::Broken => false,
        };
        if placed && self.offered.is_none() {
            let candidates = self.remote.release();
            self.moves.extend(candidates.map(|one| Move::Do(PeerCommand::AddCandidate(one))));
        }
    }

    /// Sends local candidates, unless the description that they may belong to is still to be sent.
    fn release_local(&mut self) {
        let placed = match self.state {
            State::Stable | State::Offered { .. } | State::Concluding { .. } => self.has_sent,
            State::Offering { .. }
            | State::RollingBack { .. }
            | State::Answering { .. }
            | State::Broken => false,
        };
        if placed {
            let generation = self.generation;
            self.moves.extend(self.local.release().map(|Candidate { line, mid, index }| {
                Move::Say(Payload::Candidate { generation, candidate: line, mid, line: index })
            }));
        }
    }

    fn step(&mut self) -> Step {
        self.steps += 1;
        Step(self.steps)
    }

    const fn under_way(&self) -> Option<Step> {
        match self.state {
            State::Offering { step, .. }
            | State::RollingBack { step, .. }
            | State::Answering { step }
            | State::Concluding { step } => Some(step),
            State::Stable | State::Offered { .. } | State::Broken => None,
        }
    }
}

impl Candidates {
    fn hold(&mut self, candidate: Candidate) {
        if self.seen < MAX_CANDIDATES && candidate.line.len() <= MAX_CANDIDATE_BYTES {
            self.seen += 1;
            self.waiting.push(candidate);
        }
    }

    fn release(&mut self) -> impl Iterator<Item = Candidate> + use<> {
        mem::take(&mut self.waiting).into_iter()
    }
}

#[cfg(test)]
mod tests;
