use proptest::prelude::*;

use super::*;

const NOW: MediaTime = MediaTime::from_micros(1);

fn offer(sdp: &str) -> Payload {
    Payload::Offer { generation: 1, sdp: sdp.into() }
}

fn answer(sdp: &str) -> Payload {
    Payload::Answer { generation: 1, sdp: sdp.into() }
}

fn candidate(line: &str) -> Candidate {
    Candidate { line: line.into(), mid: None, index: Some(0) }
}

fn remote_candidate(line: &str) -> Payload {
    Payload::Candidate { generation: 1, candidate: line.into(), mid: None, line: Some(0) }
}

fn described(operation: u32, kind: DescriptionKind, sdp: &str) -> PeerEvent {
    PeerEvent::LocalDescription { operation: OperationId(operation), kind, sdp: sdp.into() }
}

fn make_offer(operation: u32, restart_ice: bool) -> Action {
    Action::Command(PeerCommand::MakeOffer { operation: OperationId(operation), restart_ice })
}

fn accept_offer(operation: u32, sdp: &str) -> Action {
    Action::Command(PeerCommand::AcceptOffer { operation: OperationId(operation), sdp: sdp.into() })
}

fn roll_back(operation: u32) -> Action {
    Action::Command(PeerCommand::Rollback { operation: OperationId(operation) })
}

fn done(operation: u32) -> PeerEvent {
    PeerEvent::Applied { operation: OperationId(operation) }
}

impl Negotiation {
    fn actions_done(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.poll_action()).collect()
    }

    /// An end whose own offer is set and was sent.
    fn with_local_offer(polite: bool, want: NegotiationNeeded) -> Self {
        let mut end = Self::new(polite, 1);
        end.request(want);
        end.handle_event(described(1, DescriptionKind::Offer, "mine"), NOW);
        end.actions_done();
        end
    }
}

#[test]
fn an_offer_is_sent_when_it_is_set_and_answered_once() {
    let mut end = Negotiation::new(false, 1);
    end.request(NegotiationNeeded::Initial);
    assert_eq!(end.actions_done(), [make_offer(1, false)]);
    end.handle_event(described(1, DescriptionKind::Offer, "mine"), NOW);
    assert_eq!(end.actions_done(), [Action::Signal(offer("mine"))]);
    end.handle_signal(answer("theirs"));
    let (operation, sdp) = (OperationId(2), "theirs".to_owned());
    assert_eq!(end.actions_done(), [Action::Command(PeerCommand::AcceptAnswer { operation, sdp })]);
    end.handle_signal(answer("again"));
    end.handle_event(done(2), NOW);
    assert_eq!(end.actions_done(), []);
}

#[test]
fn the_polite_end_rolls_its_offer_back_before_it_accepts_the_other() {
    let mut end = Negotiation::with_local_offer(true, NegotiationNeeded::Initial);
    end.handle_signal(offer("theirs"));
    assert_eq!(end.actions_done(), [roll_back(2)]);
    end.handle_event(done(2), NOW);
    assert_eq!(end.actions_done(), [accept_offer(3, "theirs")]);
    end.handle_event(described(3, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(
        end.actions_done(),
        [Action::Signal(answer("mine"))],
        "any exchange satisfies the initial need"
    );
}

#[test]
fn the_impolite_end_ignores_a_colliding_offer() {
    let mut end = Negotiation::with_local_offer(false, NegotiationNeeded::Initial);
    end.handle_signal(offer("theirs"));
    assert_eq!(end.actions_done(), []);
    end.handle_signal(answer("theirs"));
    assert_eq!(end.actions_done().len(), 1);
}

#[test]
fn an_offer_that_collides_before_it_is_created_is_never_sent() {
    let mut end = Negotiation::new(true, 1);
    end.request(NegotiationNeeded::Initial);
    end.handle_signal(offer("theirs"));
    assert_eq!(end.actions_done(), [make_offer(1, false)]);
    end.handle_event(described(1, DescriptionKind::Offer, "stale"), NOW);
    assert_eq!(end.actions_done(), [roll_back(2)]);
}

#[test]
fn an_answer_to_a_replaced_offer_is_never_sent() {
    let mut end = Negotiation::new(false, 1);
    end.handle_signal(offer("first"));
    end.handle_signal(offer("second"));
    assert_eq!(end.actions_done(), [accept_offer(1, "first")]);
    end.handle_event(described(1, DescriptionKind::Answer, "stale"), NOW);
    assert_eq!(end.actions_done(), [accept_offer(2, "second")]);
}

#[test]
fn an_ice_restart_that_was_queued_or_rolled_back_is_not_lost() {
    let mut end = Negotiation::with_local_offer(true, NegotiationNeeded::IceRestart);
    end.handle_signal(offer("theirs"));
    end.handle_event(done(2), NOW);
    end.handle_event(described(3, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.actions_done().last(), Some(&make_offer(4, true)));

    let mut end = Negotiation::new(true, 1);
    end.handle_signal(offer("theirs"));
    end.request(NegotiationNeeded::IceRestart);
    end.handle_event(described(1, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.actions_done().last(), Some(&make_offer(2, true)));
}

#[test]
fn a_stale_outcome_changes_nothing() {
    let mut end = Negotiation::with_local_offer(true, NegotiationNeeded::Initial);
    end.handle_signal(offer("theirs"));
    end.actions_done();
    end.handle_event(described(1, DescriptionKind::Offer, "stale"), NOW);
    end.handle_event(done(1), NOW);
    end.handle_event(PeerEvent::Failed { operation: OperationId(1), reason: "stale".into() }, NOW);
    assert_eq!(end.actions_done(), []);
    end.handle_event(done(2), NOW);
    assert_eq!(end.actions_done(), [accept_offer(3, "theirs")]);
}

#[test]
fn an_unanswered_offer_is_rolled_back_and_made_again() {
    let mut end = Negotiation::with_local_offer(false, NegotiationNeeded::IceRestart);
    assert_eq!(end.unanswered_since(), Some(NOW));
    end.retry_offer();
    assert_eq!(end.actions_done(), [roll_back(2)]);
    end.handle_event(done(2), NOW);
    assert_eq!(end.actions_done(), [make_offer(3, true)]);
}

#[test]
fn a_failed_operation_fails_the_negotiation() {
    let mut end = Negotiation::new(false, 1);
    end.handle_signal(offer("bad"));
    end.actions_done();
    end.handle_event(
        PeerEvent::Failed { operation: OperationId(1), reason: "no media".into() },
        NOW,
    );
    assert_eq!(end.actions_done(), [Action::Fail("no media".into())]);
    end.handle_signal(offer("more"));
    end.request(NegotiationNeeded::IceRestart);
    assert_eq!(end.actions_done(), []);
}

#[test]
fn candidates_wait_for_their_descriptions() {
    let mut end = Negotiation::new(false, 1);
    end.handle_signal(remote_candidate("early"));
    end.handle_signal(offer("theirs"));
    end.handle_event(PeerEvent::Candidate(candidate("local")), NOW);
    assert_eq!(end.actions_done(), [accept_offer(1, "theirs")]);
    end.handle_event(described(1, DescriptionKind::Answer, "mine"), NOW);
    let add = Action::Command(PeerCommand::AddCandidate(candidate("early")));
    let said = [Action::Signal(answer("mine")), Action::Signal(remote_candidate("local")), add];
    assert_eq!(end.actions_done(), said);
    end.handle_signal(remote_candidate("late"));
    assert_eq!(end.actions_done(), [Action::Command(PeerCommand::AddCandidate(candidate("late")))]);
}

#[test]
fn remote_candidates_and_descriptions_are_bounded() {
    let mut end = Negotiation::new(false, 1);
    end.handle_signal(offer(&"x".repeat(MAX_SDP_BYTES + 1)));
    assert_eq!(end.actions_done(), []);
    for _ in 0..3 * MAX_CANDIDATES {
        end.handle_signal(remote_candidate("one"));
    }
    end.handle_signal(offer("theirs"));
    end.handle_event(described(1, DescriptionKind::Answer, "mine"), NOW);
    end.handle_signal(remote_candidate("one more"));
    let added = end.actions_done().into_iter();
    let added = added.filter(|one| matches!(one, Action::Command(PeerCommand::AddCandidate(_))));
    assert_eq!(added.count(), MAX_CANDIDATES);

    let mut end = Negotiation::with_local_offer(false, NegotiationNeeded::Initial);
    end.handle_signal(remote_candidate(&"x".repeat(MAX_CANDIDATE_BYTES + 1)));
    end.handle_signal(answer("theirs"));
    end.handle_event(done(2), NOW);
    let is_add = |one: &Action| matches!(one, Action::Command(PeerCommand::AddCandidate(_)));
    assert!(!end.actions_done().iter().any(is_add));
}

/// An input of the negotiation.
#[derive(Clone, Debug)]
enum TestInput {
    Request(bool),
    Signal(u8),
    RunCommand,
    Stale(u32),
    Candidate,
    RetryOffer,
}

fn test_input() -> impl Strategy<Value = TestInput> {
    prop_oneof![
        any::<bool>().prop_map(TestInput::Request),
        (0_u8..3).prop_map(TestInput::Signal),
        Just(TestInput::RunCommand),
        Just(TestInput::RunCommand),
        (0_u32..9).prop_map(TestInput::Stale),
        Just(TestInput::Candidate),
        Just(TestInput::RetryOffer),
    ]
}

/// A connection that asserts the preconditions that `model/peer.rs` states for each command.
#[derive(Default)]
struct StrictPeer {
    queue: VecDeque<PeerCommand>,
    has_offer: bool,
    has_remote: bool,
}

impl StrictPeer {
    fn run_next(&mut self) -> Option<PeerEvent> {
        let (kind, sdp) = (DescriptionKind::Offer, "made".to_owned());
        match self.queue.pop_front()? {
            PeerCommand::MakeOffer { operation, .. } => {
                assert!(!std::mem::replace(&mut self.has_offer, true), "an offer is set already");
                Some(PeerEvent::LocalDescription { operation, kind, sdp })
            }
            PeerCommand::Rollback { operation } => {
                assert!(std::mem::take(&mut self.has_offer), "no offer to roll back");
                Some(PeerEvent::Applied { operation })
            }
            PeerCommand::AcceptOffer { operation, .. } => {
                assert!(!self.has_offer, "a remote offer during a local offer");
                self.has_remote = true;
                Some(PeerEvent::LocalDescription { operation, kind: DescriptionKind::Answer, sdp })
            }
            PeerCommand::AcceptAnswer { operation, .. } => {
                assert!(std::mem::take(&mut self.has_offer), "no local offer to be answered");
                self.has_remote = true;
                Some(PeerEvent::Applied { operation })
            }
            PeerCommand::AddCandidate(_) => {
                assert!(self.has_remote, "a candidate without a remote description");
                None
            }
            PeerCommand::SendChannelMessage(_) => {
                unreachable!("the negotiation sends no chat message")
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_command_is_legal_and_every_needed_offer_is_made(
        polite: bool,
        story in proptest::collection::vec(test_input(), 1..60),
    ) {
        let (mut end, mut strict) = (Negotiation::new(polite, 1), StrictPeer::default());
        let (mut owed, mut offers) = (false, 0);
        let rest = std::iter::repeat_n(TestInput::RunCommand, 200);
        for one in story.into_iter().chain(rest) {
            match one {
                TestInput::Request(restart) => {
                    end.request(if restart { NegotiationNeeded::IceRestart } else { NegotiationNeeded::Initial });
                    owed |= restart;
                }
                TestInput::Signal(0) => end.handle_signal(offer("theirs")),
                TestInput::Signal(1) => end.handle_signal(answer("theirs")),
                TestInput::Signal(_) => end.handle_signal(remote_candidate("theirs")),
                TestInput::Stale(operation) => {
                    // Operations that are complete or not begun; the pending one is not stale.
                    if end.pending_operation() != Some(OperationId(operation)) {
                        end.handle_event(done(operation), NOW);
                        end.handle_event(described(operation, DescriptionKind::Offer, "stale"), NOW);
                    }
                }
                TestInput::Candidate => end.handle_event(PeerEvent::Candidate(candidate("l")), NOW),
                TestInput::RetryOffer => end.retry_offer(),
                TestInput::RunCommand => {
                    if let Some(event) = strict.run_next() {
                        end.handle_event(event, NOW);
                    }
                }
            }
            for next in end.actions_done() {
                match next {
                    Action::Command(command) => {
                        let is_restart =
                            matches!(command, PeerCommand::MakeOffer { restart_ice: true, .. });
                        offers += u32::from(is_restart);
                        strict.queue.push_back(command);
                    }
                    Action::Signal(payload) => {
                        let stale = matches!(&payload, Payload::Offer { sdp, .. } if sdp == "stale");
                        prop_assert!(!stale, "a stale outcome was sent");
                    }
                    Action::Fail(reason) => panic!("{reason}"),
                }
            }
        }
        // In the end the state is stable and nothing is needed, or a local offer is set for it.
        let stands = matches!(end.state, SignalingState::HaveLocalOffer { .. });
        prop_assert!(end.needed.is_none() || stands);
        let waits = stands && end.needed == Some(NegotiationNeeded::IceRestart);
        prop_assert!(!owed || offers > 0 || waits);
    }
}
