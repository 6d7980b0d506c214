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
    Candidate, DescriptionKind, MAX_CANDIDATE_BYTES, MAX_SDP_BYTES, MediaTime, OperationId,
    Payload, PeerCommand, PeerEvent,
};

/// The state machine of one connection's descriptions and candidates.
#[derive(Debug)]
pub(super) struct Negotiation {
    polite: bool,
    generation: u32,
    state: SignalingState,
    /// A needed negotiation that has not begun.
    needed: Option<NegotiationNeeded>,
    /// A remote offer that waits for the pending operation. A newer one replaces it, because the
    /// remote peer has then taken the older one back.
    pending_offer: Option<String>,
    operations: u32,
    /// Whether a remote description is set, so that candidates are legal.
    has_remote_description: bool,
    /// Whether a local description was sent, so that the remote peer can assign candidates to it.
    has_sent_description: bool,
    remote_candidates: CandidateQueue,
    local_candidates: CandidateQueue,
    actions: VecDeque<Action>,
}

/// Why a negotiation is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum NegotiationNeeded {
    /// For the first exchange. Any exchange satisfies it, also one that the remote peer starts.
    Initial,
    /// To find new network paths (ICE restart, RFC 8445, section 9).
    IceRestart,
}

/// An action of the negotiation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Send a command to the connection.
    Command(PeerCommand),
    /// Send a signal to the remote peer.
    Signal(Payload),
    /// An operation failed: this connection cannot be negotiated any further.
    Fail(String),
}

/// The signalling state (W3C `RTCSignalingState`), with the pending operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SignalingState {
    Stable,
    /// A local offer is being created.
    CreatingOffer {
        operation: OperationId,
        needed: NegotiationNeeded,
    },
    /// A local offer is set and was sent.
    HaveLocalOffer {
        needed: NegotiationNeeded,
        since: MediaTime,
    },
    /// The local offer is being rolled back.
    RollingBack {
        operation: OperationId,
        needed: NegotiationNeeded,
    },
    /// A remote offer is being set and answered.
    HaveRemoteOffer {
        operation: OperationId,
    },
    /// The answer to the local offer is being set.
    ApplyingAnswer {
        operation: OperationId,
    },
    /// An operation failed.
    Failed,
}

/// Candidates of one end that wait for a description, and the total number seen.
#[derive(Debug, Default)]
struct CandidateQueue {
    queued: Vec<Candidate>,
    total: usize,
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
            state: SignalingState::Stable,
            needed: None,
            pending_offer: None,
            operations: 0,
            has_remote_description: false,
            has_sent_description: false,
            remote_candidates: CandidateQueue::default(),
            local_candidates: CandidateQueue::default(),
            actions: VecDeque::new(),
        }
    }

    /// The next action.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Whether both descriptions were set at least once.
    pub(super) const fn has_negotiated(&self) -> bool {
        self.has_remote_description
    }

    /// Since when a local offer has been set and not answered.
    pub(super) const fn unanswered_since(&self) -> Option<MediaTime> {
        match self.state {
            SignalingState::HaveLocalOffer { since, .. } => Some(since),
            SignalingState::Stable
            | SignalingState::CreatingOffer { .. }
            | SignalingState::RollingBack { .. }
            | SignalingState::HaveRemoteOffer { .. }
            | SignalingState::ApplyingAnswer { .. }
            | SignalingState::Failed => None,
        }
    }

    /// Requests an offer, now or as soon as one is legal.
    pub(super) fn request(&mut self, needed: NegotiationNeeded) {
        self.needed = self.needed.max(Some(needed));
        self.start_pending();
    }

    /// Rolls back an offer that was never answered, and makes a new one.
    pub(super) fn retry_offer(&mut self) {
        if let SignalingState::HaveLocalOffer { needed, .. } = self.state {
            self.roll_back(needed);
        }
    }

    /// Handles a signal of the remote peer about this generation.
    pub(super) fn handle_signal(&mut self, payload: Payload) {
        match payload {
            Payload::Offer { sdp, .. } if sdp.len() <= MAX_SDP_BYTES => self.handle_offer(sdp),
            Payload::Answer { sdp, .. } if sdp.len() <= MAX_SDP_BYTES => self.handle_answer(sdp),
            Payload::Candidate { candidate, mid, line, .. } => {
                self.remote_candidates.push(Candidate { line: candidate, mid, index: line });
                self.flush_remote_candidates();
            }
            Payload::Offer { .. }
            | Payload::Answer { .. }
            | Payload::Media { .. }
            | Payload::Unknown => {}
        }
    }

    /// Handles an event of the connection. The outcome of any operation other than the pending one
    /// is stale.
    pub(super) fn handle_event(&mut self, event: PeerEvent, now: MediaTime) {
        match event {
            PeerEvent::LocalDescription { operation, kind, sdp } => {
                self.on_local_description(operation, (kind, sdp), now)
            }
            PeerEvent::Applied { operation } => self.on_applied(operation),
            PeerEvent::Failed { operation, reason }
                if self.pending_operation() == Some(operation) =>
            {
                self.state = SignalingState::Failed;
                self.actions.push_back(Action::Fail(reason));
            }
            PeerEvent::Candidate(candidate) => {
                self.local_candidates.push(candidate);
                self.flush_local_candidates();
            }
            PeerEvent::Failed { .. }
            | PeerEvent::Negotiated(_)
            | PeerEvent::State(_)
            | PeerEvent::AddressLost
            | PeerEvent::ChannelOpen(_)
            | PeerEvent::ChannelMessage(_) => {}
        }
    }

    fn handle_offer(&mut self, sdp: String) {
        match self.state {
            SignalingState::CreatingOffer { .. } | SignalingState::HaveLocalOffer { .. }
                if !self.polite => {}
            SignalingState::HaveLocalOffer { needed, .. } => {
                self.pending_offer = Some(sdp);
                self.roll_back(needed);
            }
            SignalingState::Stable
            | SignalingState::CreatingOffer { .. }
            | SignalingState::RollingBack { .. }
            | SignalingState::HaveRemoteOffer { .. }
            | SignalingState::ApplyingAnswer { .. } => {
                self.pending_offer = Some(sdp);
                self.start_pending();
            }
            SignalingState::Failed => {}
        }
    }

    fn handle_answer(&mut self, sdp: String) {
        if let SignalingState::HaveLocalOffer { .. } = self.state {
            let operation = self.next_operation();
            self.state = SignalingState::ApplyingAnswer { operation };
            self.actions.push_back(Action::Command(PeerCommand::AcceptAnswer { operation, sdp }));
        }
    }

    fn on_local_description(
        &mut self,
        of: OperationId,
        (kind, sdp): (DescriptionKind, String),
        now: MediaTime,
    ) {
        let generation = self.generation;
        match (self.state, kind) {
            (SignalingState::CreatingOffer { operation, needed }, DescriptionKind::Offer)
                if operation == of =>
            {
                self.state = SignalingState::HaveLocalOffer { needed, since: now };
                // A remote offer that arrived meanwhile wins: this one is rolled back, not sent.
                if self.pending_offer.is_some() {
                    self.roll_back(needed);
                } else {
                    self.send_description(Payload::Offer { generation, sdp });
                }
            }
            (SignalingState::HaveRemoteOffer { operation }, DescriptionKind::Answer)
                if operation == of =>
            {
                self.on_exchange_complete();
                // The remote peer replaced the offer that this answers: a newer one is queued.
                if self.pending_offer.is_none() {
                    self.send_description(Payload::Answer { generation, sdp });
                }
                self.start_pending();
            }
            (
                SignalingState::Stable
                | SignalingState::CreatingOffer { .. }
                | SignalingState::HaveLocalOffer { .. }
                | SignalingState::RollingBack { .. }
                | SignalingState::HaveRemoteOffer { .. }
                | SignalingState::ApplyingAnswer { .. }
                | SignalingState::Failed,
                DescriptionKind::Offer | DescriptionKind::Answer,
            ) => {}
        }
    }

    fn on_applied(&mut self, of: OperationId) {
        match self.state {
            SignalingState::RollingBack { operation, needed } if operation == of => {
                self.state = SignalingState::Stable;
                self.needed = self.needed.max(Some(needed));
                self.start_pending();
            }
            SignalingState::ApplyingAnswer { operation } if operation == of => {
                self.on_exchange_complete();
                self.start_pending();
            }
            SignalingState::Stable
            | SignalingState::CreatingOffer { .. }
            | SignalingState::HaveLocalOffer { .. }
            | SignalingState::RollingBack { .. }
            | SignalingState::HaveRemoteOffer { .. }
            | SignalingState::ApplyingAnswer { .. }
            | SignalingState::Failed => {}
        }
    }

    /// An exchange is complete, whichever end began it.
    fn on_exchange_complete(&mut self) {
        self.state = SignalingState::Stable;
        self.has_remote_description = true;
        if self.needed == Some(NegotiationNeeded::Initial) {
            self.needed = None;
        }
    }

    /// In the stable state, starts what is queued; a remote offer goes first.
    fn start_pending(&mut self) {
        if self.state != SignalingState::Stable {
            return;
        }
        if let Some(sdp) = self.pending_offer.take() {
            let operation = self.next_operation();
            self.state = SignalingState::HaveRemoteOffer { operation };
            self.actions.push_back(Action::Command(PeerCommand::AcceptOffer { operation, sdp }));
        } else if let Some(needed) = self.needed.take() {
            self.flush_remote_candidates();
            let (operation, restart_ice) =
                (self.next_operation(), needed == NegotiationNeeded::IceRestart);
            self.state = SignalingState::CreatingOffer { operation, needed };
            self.actions
                .push_back(Action::Command(PeerCommand::MakeOffer { operation, restart_ice }));
        } else {
            self.flush_remote_candidates();
            self.flush_local_candidates();
        }
    }

    fn roll_back(&mut self, needed: NegotiationNeeded) {
        let operation = self.next_operation();
        self.state = SignalingState::RollingBack { operation, needed };
        self.actions.push_back(Action::Command(PeerCommand::Rollback { operation }));
    }

    fn send_description(&mut self, description: Payload) {
        self.actions.push_back(Action::Signal(description));
        self.has_sent_description = true;
        self.flush_local_candidates();
    }

    /// Adds queued remote candidates, unless a description that they may belong to is still to be
    /// set.
    fn flush_remote_candidates(&mut self) {
        let placed = match self.state {
            SignalingState::Stable
            | SignalingState::CreatingOffer { .. }
            | SignalingState::HaveLocalOffer { .. } => self.has_remote_description,
            SignalingState::RollingBack { .. }
            | SignalingState::HaveRemoteOffer { .. }
            | SignalingState::ApplyingAnswer { .. }
            | SignalingState::Failed => false,
        };
        if placed && self.pending_offer.is_none() {
            let candidates = self.remote_candidates.drain();
            self.actions
                .extend(candidates.map(|one| Action::Command(PeerCommand::AddCandidate(one))));
        }
    }

    /// Sends queued local candidates, unless the description that they may belong to is still to be
    /// sent.
    fn flush_local_candidates(&mut self) {
        let placed = match self.state {
            SignalingState::Stable
            | SignalingState::HaveLocalOffer { .. }
            | SignalingState::ApplyingAnswer { .. } => self.has_sent_description,
            SignalingState::CreatingOffer { .. }
            | SignalingState::RollingBack { .. }
            | SignalingState::HaveRemoteOffer { .. }
            | SignalingState::Failed => false,
        };
        if placed {
            let generation = self.generation;
            self.actions.extend(self.local_candidates.drain().map(
                |Candidate { line, mid, index }| {
                    Action::Signal(Payload::Candidate {
                        generation,
                        candidate: line,
                        mid,
                        line: index,
                    })
                },
            ));
        }
    }

    fn next_operation(&mut self) -> OperationId {
        self.operations += 1;
        OperationId(self.operations)
    }

    const fn pending_operation(&self) -> Option<OperationId> {
        match self.state {
            SignalingState::CreatingOffer { operation, .. }
            | SignalingState::RollingBack { operation, .. }
            | SignalingState::HaveRemoteOffer { operation }
            | SignalingState::ApplyingAnswer { operation } => Some(operation),
            SignalingState::Stable
            | SignalingState::HaveLocalOffer { .. }
            | SignalingState::Failed => None,
        }
    }
}

impl CandidateQueue {
    fn push(&mut self, candidate: Candidate) {
        if self.total < MAX_CANDIDATES && candidate.line.len() <= MAX_CANDIDATE_BYTES {
            self.total += 1;
            self.queued.push(candidate);
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = Candidate> + use<> {
        mem::take(&mut self.queued).into_iter()
    }
}

#[cfg(test)]
mod tests;
