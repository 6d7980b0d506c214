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
    PeerEvent::Description { step: Step(operation), kind, sdp: sdp.into() }
}

fn make_offer(operation: u32, restart_ice: bool) -> Move {
    Move::Do(PeerCommand::MakeOffer { step: Step(operation), restart_ice })
}

fn accept_offer(operation: u32, sdp: &str) -> Move {
    Move::Do(PeerCommand::AcceptOffer { step: Step(operation), sdp: sdp.into() })
}

fn roll_back(operation: u32) -> Move {
    Move::Do(PeerCommand::Rollback { step: Step(operation) })
}

fn done(operation: u32) -> PeerEvent {
    PeerEvent::Done { step: Step(operation) }
}

impl Negotiation {
    fn moves(&mut self) -> Vec<Move> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    /// An end whose own offer is set and was sent.
    fn offered(polite: bool, want: Want) -> Self {
        let mut end = Self::new(polite, 1);
        end.want(want);
        end.outcome(described(1, DescriptionKind::Offer, "mine"), NOW);
        end.moves();
        end
    }
}

#[test]
fn an_offer_is_sent_when_it_is_set_and_answered_once() {
    let mut end = Negotiation::new(false, 1);
    end.want(Want::Agree);
    assert_eq!(end.moves(), [make_offer(1, false)]);
    end.outcome(described(1, DescriptionKind::Offer, "mine"), NOW);
    assert_eq!(end.moves(), [Move::Say(offer("mine"))]);
    end.hear(answer("theirs"));
    let (operation, sdp) = (Step(2), "theirs".to_owned());
    assert_eq!(end.moves(), [Move::Do(PeerCommand::AcceptAnswer { step: operation, sdp })]);
    end.hear(answer("again"));
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), []);
}

#[test]
fn the_polite_end_rolls_its_offer_back_before_it_accepts_the_other() {
    let mut end = Negotiation::offered(true, Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), [roll_back(2)]);
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), [accept_offer(3, "theirs")]);
    end.outcome(described(3, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.moves(), [Move::Say(answer("mine"))], "any exchange satisfies the initial need");
}

#[test]
fn the_impolite_end_ignores_a_colliding_offer() {
    let mut end = Negotiation::offered(false, Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), []);
    end.hear(answer("theirs"));
    assert_eq!(end.moves().len(), 1);
}

#[test]
fn an_offer_that_collides_before_it_is_created_is_never_sent() {
    let mut end = Negotiation::new(true, 1);
    end.want(Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), [make_offer(1, false)]);
    end.outcome(described(1, DescriptionKind::Offer, "stale"), NOW);
    assert_eq!(end.moves(), [roll_back(2)]);
}

#[test]
fn an_answer_to_a_replaced_offer_is_never_sent() {
    let mut end = Negotiation::new(false, 1);
    end.hear(offer("first"));
    end.hear(offer("second"));
    assert_eq!(end.moves(), [accept_offer(1, "first")]);
    end.outcome(described(1, DescriptionKind::Answer, "stale"), NOW);
    assert_eq!(end.moves(), [accept_offer(2, "second")]);
}

#[test]
fn an_ice_restart_that_was_queued_or_rolled_back_is_not_lost() {
    let mut end = Negotiation::offered(true, Want::Restart);
    end.hear(offer("theirs"));
    end.outcome(done(2), NOW);
    end.outcome(described(3, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.moves().last(), Some(&make_offer(4, true)));

    let mut end = Negotiation::new(true, 1);
    end.hear(offer("theirs"));
    end.want(Want::Restart);
    end.outcome(described(1, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.moves().last(), Some(&make_offer(2, true)));
}

#[test]
fn a_stale_outcome_changes_nothing() {
    let mut end = Negotiation::offered(true, Want::Agree);
    end.hear(offer("theirs"));
    end.moves();
    end.outcome(described(1, DescriptionKind::Offer, "stale"), NOW);
    end.outcome(done(1), NOW);
    end.outcome(PeerEvent::Refused { step: Step(1), reason: "stale".into() }, NOW);
    assert_eq!(end.moves(), []);
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), [accept_offer(3, "theirs")]);
}

#[test]
fn an_unanswered_offer_is_rolled_back_and_made_again() {
    let mut end = Negotiation::offered(false, Want::Restart);
    assert_eq!(end.unanswered_since(), Some(NOW));
    end.repeat_offer();
    assert_eq!(end.moves(), [roll_back(2)]);
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), [make_offer(3, true)]);
}

#[test]
fn a_failed_operation_fails_the_negotiation() {
    let mut end = Negotiation::new(false, 1);
    end.hear(offer("bad"));
    end.moves();
    end.outcome(PeerEvent::Refused { step: Step(1), reason: "no media".into() }, NOW);
    assert_eq!(end.moves(), [Move::GiveUp("no media".into())]);
    end.hear(offer("more"));
    end.want(Want::Restart);
    assert_eq!(end.moves(), []);
}

#[test]
fn candidates_wait_for_their_descriptions() {
    let mut end = Negotiation::new(false, 1);
    end.hear(remote_candidate("early"));
    end.hear(offer("theirs"));
    end.outcome(PeerEvent::Candidate(candidate("local")), NOW);
    assert_eq!(end.moves(), [accept_offer(1, "theirs")]);
    end.outcome(described(1, DescriptionKind::Answer, "mine"), NOW);
    let add = Move::Do(PeerCommand::AddCandidate(candidate("early")));
    let said = [Move::Say(answer("mine")), Move::Say(remote_candidate("local")), add];
    assert_eq!(end.moves(), said);
    end.hear(remote_candidate("late"));
    assert_eq!(end.moves(), [Move::Do(PeerCommand::AddCandidate(candidate("late")))]);
}

#[test]
fn remote_candidates_and_descriptions_are_bounded() {
    let mut end = Negotiation::new(false, 1);
    end.hear(offer(&"x".repeat(MAX_SDP_BYTES + 1)));
    assert_eq!(end.moves(), []);
    for _ in 0..3 * MAX_CANDIDATES {
        end.hear(remote_candidate("one"));
    }
    end.hear(offer("theirs"));
    end.outcome(described(1, DescriptionKind::Answer, "mine"), NOW);
    end.hear(remote_candidate("one more"));
    let added = end.moves().into_iter();
    let added = added.filter(|one| matches!(one, Move::Do(PeerCommand::AddCandidate(_))));
    assert_eq!(added.count(), MAX_CANDIDATES);

    let mut end = Negotiation::offered(false, Want::Agree);
    end.hear(remote_candidate(&"x".repeat(MAX_CANDIDATE_BYTES + 1)));
    end.hear(answer("theirs"));
    end.outcome(done(2), NOW);
    let is_add = |one: &Move| matches!(one, Move::Do(PeerCommand::AddCandidate(_)));
    assert!(!end.moves().iter().any(is_add));
}

/// An input of the negotiation.
#[derive(Clone, Debug)]
enum Happening {
    Want(bool),
    Hear(u8),
    CarryOut,
    Stale(u32),
    Gather,
    Repeat,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<bool>().prop_map(Happening::Want),
        (0_u8..3).prop_map(Happening::Hear),
        Just(Happening::CarryOut),
        Just(Happening::CarryOut),
        (0_u32..9).prop_map(Happening::Stale),
        Just(Happening::Gather),
        Just(Happening::Repeat),
    ]
}

/// A connection that asserts the preconditions that `model/peer.rs` states for each command.
#[derive(Default)]
struct Strict {
    queue: VecDeque<PeerCommand>,
    has_offer: bool,
    has_remote: bool,
}

impl Strict {
    fn carry_out(&mut self) -> Option<PeerEvent> {
        let (kind, sdp) = (DescriptionKind::Offer, "made".to_owned());
        match self.queue.pop_front()? {
            PeerCommand::MakeOffer { step: operation, .. } => {
                assert!(!std::mem::replace(&mut self.has_offer, true), "an offer is set already");
                Some(PeerEvent::Description { step: operation, kind, sdp })
            }
            PeerCommand::Rollback { step: operation } => {
                assert!(std::mem::take(&mut self.has_offer), "no offer to roll back");
                Some(PeerEvent::Done { step: operation })
            }
            PeerCommand::AcceptOffer { step: operation, .. } => {
                assert!(!self.has_offer, "a remote offer during a local offer");
                self.has_remote = true;
                Some(PeerEvent::Description { step: operation, kind: DescriptionKind::Answer, sdp })
            }
            PeerCommand::AcceptAnswer { step: operation, .. } => {
                assert!(std::mem::take(&mut self.has_offer), "no local offer to be answered");
                self.has_remote = true;
                Some(PeerEvent::Done { step: operation })
            }
            PeerCommand::AddCandidate(_) => {
                assert!(self.has_remote, "a candidate without a remote description");
                None
            }
            PeerCommand::Write(_) => unreachable!("the negotiation sends no chat message"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_command_is_legal_and_every_needed_offer_is_made(
        polite: bool,
        story in proptest::collection::vec(happening(), 1..60),
    ) {
        let (mut end, mut strict) = (Negotiation::new(polite, 1), Strict::default());
        let (mut owed, mut offers) = (false, 0);
        let rest = std::iter::repeat_n(Happening::CarryOut, 200);
        for one in story.into_iter().chain(rest) {
            match one {
                Happening::Want(restart) => {
                    end.want(if restart { Want::Restart } else { Want::Agree });
                    owed |= restart;
                }
                Happening::Hear(0) => end.hear(offer("theirs")),
                Happening::Hear(1) => end.hear(answer("theirs")),
                Happening::Hear(_) => end.hear(remote_candidate("theirs")),
                Happening::Stale(operation) => {
                    // Operations that are complete or not begun; the pending one is not stale.
                    if end.under_way() != Some(Step(operation)) {
                        end.outcome(done(operation), NOW);
                        end.outcome(described(operation, DescriptionKind::Offer, "stale"), NOW);
                    }
                }
                Happening::Gather => end.outcome(PeerEvent::Candidate(candidate("l")), NOW),
                Happening::Repeat => end.repeat_offer(),
                Happening::CarryOut => {
                    if let Some(event) = strict.carry_out() {
                        end.outcome(event, NOW);
                    }
                }
            }
            for next in end.moves() {
                match next {
                    Move::Do(command) => {
                        let is_restart =
                            matches!(command, PeerCommand::MakeOffer { restart_ice: true, .. });
                        offers += u32::from(is_restart);
                        strict.queue.push_back(command);
                    }
                    Move::Say(payload) => {
                        let stale = matches!(&payload, Payload::Offer { sdp, .. } if sdp == "stale");
                        prop_assert!(!stale, "a stale outcome was sent");
                    }
                    Move::GiveUp(reason) => panic!("{reason}"),
                }
            }
        }
        // In the end the state is stable and nothing is needed, or a local offer is set for it.
        let stands = matches!(end.state, State::Offered { .. });
        prop_assert!(end.wanted.is_none() || stands);
        let waits = stands && end.wanted == Some(Want::Restart);
        prop_assert!(!owed || offers > 0 || waits);
    }
}
