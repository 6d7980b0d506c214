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

fn described(step: u32, kind: DescriptionKind, sdp: &str) -> PeerEvent {
    PeerEvent::Description { step: Step(step), kind, sdp: sdp.into() }
}

fn make_offer(step: u32, restart_ice: bool) -> Move {
    Move::Do(PeerCommand::MakeOffer { step: Step(step), restart_ice })
}

fn accept_offer(step: u32, sdp: &str) -> Move {
    Move::Do(PeerCommand::AcceptOffer { step: Step(step), sdp: sdp.into() })
}

fn roll_back(step: u32) -> Move {
    Move::Do(PeerCommand::Rollback { step: Step(step) })
}

fn done(step: u32) -> PeerEvent {
    PeerEvent::Done { step: Step(step) }
}

impl Negotiation {
    fn moves(&mut self) -> Vec<Move> {
        std::iter::from_fn(|| self.poll()).collect()
    }

    /// An end whose own offer stands and was said.
    fn offered(polite: bool, want: Want) -> Self {
        let mut end = Self::new(polite, 1);
        end.want(want);
        end.outcome(described(1, DescriptionKind::Offer, "mine"), NOW);
        end.moves();
        end
    }
}

#[test]
fn an_offer_is_said_when_it_is_in_force_and_answered_once() {
    let mut end = Negotiation::new(false, 1);
    end.want(Want::Agree);
    assert_eq!(end.moves(), [make_offer(1, false)]);
    end.outcome(described(1, DescriptionKind::Offer, "mine"), NOW);
    assert_eq!(end.moves(), [Move::Say(offer("mine"))]);
    end.hear(answer("theirs"));
    let (step, sdp) = (Step(2), "theirs".to_owned());
    assert_eq!(end.moves(), [Move::Do(PeerCommand::AcceptAnswer { step, sdp })]);
    end.hear(answer("again"));
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), []);
}

#[test]
fn the_polite_end_takes_its_offer_back_before_it_takes_the_other() {
    let mut end = Negotiation::offered(true, Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), [roll_back(2)]);
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), [accept_offer(3, "theirs")]);
    end.outcome(described(3, DescriptionKind::Answer, "mine"), NOW);
    assert_eq!(end.moves(), [Move::Say(answer("mine"))], "any exchange agrees");
}

#[test]
fn the_other_end_stands_by_its_offer() {
    let mut end = Negotiation::offered(false, Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), []);
    end.hear(answer("theirs"));
    assert_eq!(end.moves().len(), 1);
}

#[test]
fn an_offer_that_is_moot_when_it_is_made_is_never_said() {
    let mut end = Negotiation::new(true, 1);
    end.want(Want::Agree);
    end.hear(offer("theirs"));
    assert_eq!(end.moves(), [make_offer(1, false)]);
    end.outcome(described(1, DescriptionKind::Offer, "stale"), NOW);
    assert_eq!(end.moves(), [roll_back(2)]);
}

#[test]
fn an_answer_to_an_offer_that_was_taken_back_is_never_said() {
    let mut end = Negotiation::new(false, 1);
    end.hear(offer("first"));
    end.hear(offer("second"));
    assert_eq!(end.moves(), [accept_offer(1, "first")]);
    end.outcome(described(1, DescriptionKind::Answer, "stale"), NOW);
    assert_eq!(end.moves(), [accept_offer(2, "second")]);
}

#[test]
fn a_restart_that_was_wanted_meanwhile_or_rolled_back_is_not_lost() {
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
fn the_outcome_of_a_step_that_is_over_changes_nothing() {
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
fn an_unanswered_offer_is_taken_back_and_made_again() {
    let mut end = Negotiation::offered(false, Want::Restart);
    assert_eq!(end.unanswered_since(), Some(NOW));
    end.repeat_offer();
    assert_eq!(end.moves(), [roll_back(2)]);
    end.outcome(done(2), NOW);
    assert_eq!(end.moves(), [make_offer(3, true)]);
}

#[test]
fn a_refused_step_gives_the_connection_up() {
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
fn candidates_wait_for_the_descriptions_that_they_belong_to() {
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
fn candidates_and_descriptions_of_a_stranger_are_bounded() {
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

/// What may happen next.
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

/// A connection that asserts what `model/peer.rs` says of each command.
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
            PeerCommand::MakeOffer { step, .. } => {
                assert!(!std::mem::replace(&mut self.has_offer, true), "an offer over one");
                Some(PeerEvent::Description { step, kind, sdp })
            }
            PeerCommand::Rollback { step } => {
                assert!(std::mem::take(&mut self.has_offer), "nothing to take back");
                Some(PeerEvent::Done { step })
            }
            PeerCommand::AcceptOffer { step, .. } => {
                assert!(!self.has_offer, "an offer taken over one");
                self.has_remote = true;
                Some(PeerEvent::Description { step, kind: DescriptionKind::Answer, sdp })
            }
            PeerCommand::AcceptAnswer { step, .. } => {
                assert!(std::mem::take(&mut self.has_offer), "nothing to be answered");
                self.has_remote = true;
                Some(PeerEvent::Done { step })
            }
            PeerCommand::AddCandidate(_) => {
                assert!(self.has_remote, "a candidate without a description");
                None
            }
            PeerCommand::Write(_) => unreachable!("nobody negotiates by writing"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_happens_each_command_is_legal_and_what_is_wanted_is_offered(
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
                Happening::Stale(step) => {
                    // Steps that are over, or not begun; the one under way is not stale.
                    if end.under_way() != Some(Step(step)) {
                        end.outcome(done(step), NOW);
                        end.outcome(described(step, DescriptionKind::Offer, "stale"), NOW);
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
                        prop_assert!(!stale, "a stale outcome was said");
                    }
                    Move::GiveUp(reason) => panic!("{reason}"),
                }
            }
        }
        // At rest: either stable with nothing owed, or an offer stands that carries it.
        let stands = matches!(end.state, State::Offered { .. });
        prop_assert!(end.wanted.is_none() || stands);
        let waits = stands && end.wanted == Some(Want::Restart);
        prop_assert!(!owed || offers > 0 || waits);
    }
}
