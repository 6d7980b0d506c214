//! Perfect negotiation (W3C WebRTC, section 10.7) of one peer connection, with an explicit
//! rollback.
//!
//! The connection carries out commands one after another and reports the outcome of each, so at
//! most one command with an outcome is pending here. What arrives meanwhile is queued: a remote
//! offer until the pending operation completes, a need to negotiate until the state is stable. On
//! glare the polite end gives up its own offer. That takes a rollback command of its own, because a
//! connection refuses a remote offer while a local one is set.

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
    /// A needed negotiation that has not begun.
    wanted: Option<Want>,
    /// A remote offer that waits for the pending operation. A newer one replaces it, because the
    /// remote peer has then taken the older one back.
    offered: Option<String>,
    steps: u32,
    /// Whether a remote description is set, so that candidates are legal.
    has_remote: bool,
    /// Whether a local description was sent, so that the remote peer can assign candidates to it.
    has_sent: bool,
    remote: Candidates,
    local: Candidates,
    moves: VecDeque<Move>,
}

/// Why a negotiation is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Want {
    /// For the first exchange. Any exchange satisfies it, also one that the remote peer starts.
    Agree,
    /// To find new network paths (ICE restart, RFC 8445, section 9).
    Restart,
}

/// An action of the negotiation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Move {
    /// Send a command to the connection.
    Do(PeerCommand),
    /// Send a signal to the remote peer.
    Say(Payload),
    /// An operation failed: this connection cannot be negotiated any further.
    GiveUp(String),
}

/// The signalling state (W3C `RTCSignalingState`), with the pending operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Stable,
    /// A local offer is being created.
    Offering {
        step: Step,
        want: Want,
    },
    /// A local offer is set and was sent.
    Offered {
        want: Want,
        since: MediaTime,
    },
    /// The local offer is being rolled back.
    RollingBack {
        step: Step,
        want: Want,
    },
    /// A remote offer is being set and answered.
    Answering {
        step: Step,
    },
    /// The answer to the local offer is being set.
    Concluding {
        step: Step,
    },
    /// An operation failed.
    Broken,
}

/// Candidates of one end that wait for a description, and the total number seen.
#[derive(Debug, Default)]
struct Candidates {
    waiting: Vec<Candidate>,
    seen: usize,
}

/// The most candidates that one end of a connection may send; more are dropped.
///
/// A computer with six addresses has about 20. A hundred leave room for ICE restarts and bound the
/// memory that a remote peer can make us use.
const MAX_CANDIDATES: usize = 100;

impl Negotiation {
    /// A negotiation that has not begun. The polite end gives way on glare.
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

    /// The next action.
    pub(super) fn poll(&mut self) -> Option<Move> {
        self.moves.pop_front()
    }

    /// Whether both descriptions were set at least once.
    pub(super) const fn has_agreed(&self) -> bool {
        self.has_remote
    }

    /// Since when a local offer has been set and not answered.
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

    /// Requests an offer, now or as soon as one is legal.
    pub(super) fn want(&mut self, needed: Want) {
        self.wanted = self.wanted.max(Some(needed));
        self.go_on();
    }

    /// Rolls back an offer that was never answered, and makes a new one.
    pub(super) fn repeat_offer(&mut self) {
        if let State::Offered { want: needed, .. } = self.state {
            self.roll_back(needed);
        }
    }

    /// Handles a signal of the remote peer about this generation.
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

    /// Handles an event of the connection. The outcome of any operation other than the pending one
    /// is stale.
    pub(super) fn outcome(&mut self, event: PeerEvent, now: MediaTime) {
        match event {
            PeerEvent::Description { step: operation, kind, sdp } => {
                self.described(operation, (kind, sdp), now)
            }
            PeerEvent::Done { step: operation } => self.done(operation),
            PeerEvent::Refused { step: operation, reason }
                if self.under_way() == Some(operation) =>
            {
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
            State::Offered { want: needed, .. } => {
                self.offered = Some(sdp);
                self.roll_back(needed);
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
            let operation = self.step();
            self.state = State::Concluding { step: operation };
            self.moves.push_back(Move::Do(PeerCommand::AcceptAnswer { step: operation, sdp }));
        }
    }

    fn described(&mut self, of: Step, (kind, sdp): (DescriptionKind, String), now: MediaTime) {
        let generation = self.generation;
        match (self.state, kind) {
            (State::Offering { step: operation, want: needed }, DescriptionKind::Offer)
                if operation == of =>
            {
                self.state = State::Offered { want: needed, since: now };
                // A remote offer that arrived meanwhile wins: this one is rolled back, not sent.
                if self.offered.is_some() {
                    self.roll_back(needed);
                } else {
                    self.say(Payload::Offer { generation, sdp });
                }
            }
            (State::Answering { step: operation }, DescriptionKind::Answer) if operation == of => {
                self.agreed();
                // The remote peer replaced the offer that this answers: a newer one is queued.
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
            State::RollingBack { step: operation, want: needed } if operation == of => {
                self.state = State::Stable;
                self.wanted = self.wanted.max(Some(needed));
                self.go_on();
            }
            State::Concluding { step: operation } if operation == of => {
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

    /// An exchange is complete, whichever end began it.
    fn agreed(&mut self) {
        self.state = State::Stable;
        self.has_remote = true;
        if self.wanted == Some(Want::Agree) {
            self.wanted = None;
        }
    }

    /// In the stable state, starts what is queued; a remote offer goes first.
    fn go_on(&mut self) {
        if self.state != State::Stable {
            return;
        }
        if let Some(sdp) = self.offered.take() {
            let operation = self.step();
            self.state = State::Answering { step: operation };
            self.moves.push_back(Move::Do(PeerCommand::AcceptOffer { step: operation, sdp }));
        } else if let Some(needed) = self.wanted.take() {
            self.release_remote();
            let (operation, restart_ice) = (self.step(), needed == Want::Restart);
            self.state = State::Offering { step: operation, want: needed };
            self.moves.push_back(Move::Do(PeerCommand::MakeOffer { step: operation, restart_ice }));
        } else {
            self.release_remote();
            self.release_local();
        }
    }

    fn roll_back(&mut self, needed: Want) {
        let operation = self.step();
        self.state = State::RollingBack { step: operation, want: needed };
        self.moves.push_back(Move::Do(PeerCommand::Rollback { step: operation }));
    }

    fn say(&mut self, description: Payload) {
        self.moves.push_back(Move::Say(description));
        self.has_sent = true;
        self.release_local();
    }

    /// Adds queued remote candidates, unless a description that they may belong to is still to be
    /// set.
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

    /// Sends queued local candidates, unless the description that they may belong to is still to be
    /// sent.
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
            State::Offering { step: operation, .. }
            | State::RollingBack { step: operation, .. }
            | State::Answering { step: operation }
            | State::Concluding { step: operation } => Some(operation),
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
