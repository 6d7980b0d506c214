use super::super::{Effect, Input, tests::fixture::*};
use super::*;
use crate::model::{
    CloseReason, Command, EndReason, FailureCause, FailureCode, HubFailure, HubMessage, JoinTarget,
    OpenRequest, Role, SessionState,
};

const DEFAULT: HubRef = HubRef::Default;

/// A fixture with two hubs up, the second because of another session there.
fn two_hubs() -> (Fixture, HubRef) {
    let mut fixture = Fixture::new();
    let there = HubRef::At(url("there.example:80"));
    let target = JoinTarget {
        session: SessionId::parse("other").unwrap(),
        hub: Some(url("there.example:80")),
    };
    fixture.handle(Input::Command(Command::Join { target, wait: true }));
    fixture.hub_up(&there);
    (fixture, there)
}

#[test]
fn a_bare_id_is_looked_up_at_every_hub_and_the_first_hub_that_has_it_wins() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true);
    assert!(fixture.effects.contains(&Effect::ConnectHub(DEFAULT)));
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&there, &ask)]);
    fixture.hub_up(&DEFAULT);
    assert_eq!(fixture.sent(), [(&DEFAULT, &ask)]);
    fixture.receive_from(&there, joined(MESH, Role::Guest, vec![]));
    let leave = ClientMessage::Leave { session: session() };
    assert_eq!(fixture.sent(), [(&DEFAULT, &leave)]);
    assert_eq!(fixture.status().link.unwrap().hub, url("there.example:80"));
    fixture.receive(joined(MESH, Role::Guest, vec![member("a")]));
    assert!(fixture.status().participants.is_empty(), "the answer of the other hub comes too late");
}

#[test]
fn a_bare_id_is_looked_up_at_a_hub_that_is_not_up_yet() {
    let mut fixture = Fixture::new();
    let there = HubRef::At(url("there.example:80"));
    let session_there = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_there, hub: Some(url("there.example:80")) };
    fixture.handle(Input::Command(Command::Join { target, wait: true })).join(None, true);
    fixture.hub_up(&there);
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert!(fixture.sent().contains(&(&there, &ask)), "{:?}", fixture.sent());
    fixture.hub_up(&DEFAULT);
    assert_eq!(fixture.sent(), [(&DEFAULT, &ask)]);
}

#[test]
fn a_hub_with_two_references_is_asked_once() {
    let mut fixture = Fixture::new();
    let here = HubRef::At(url("10.0.0.1:7340"));
    let session_here = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
    fixture.handle(Input::Command(Command::Join { target, wait: false })).join(None, false);
    fixture.hub_up(&here);
    let ask = ClientMessage::Join { session: session(), wait: false };
    assert!(fixture.sent().contains(&(&here, &ask)), "{:?}", fixture.sent());
    fixture.hub_up(&DEFAULT);
    assert_eq!(fixture.sent(), []);
    fixture.receive_from(&here, hub_error(ErrorCode::NoSuchSession));
    assert!(matches!(fixture.status().state, SessionState::Failed(_)), "no other hub is awaited");
}

#[test]
fn a_refusal_under_one_reference_of_a_hub_counts_for_the_other() {
    let (mut fixture, here) = (Fixture::new(), HubRef::At(url("10.0.0.1:7340")));
    let session_here = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
    fixture.handle(Input::Command(Command::Join { target, wait: false })).join(None, false);
    fixture.hub_up(&here).receive_from(&here, hub_error(ErrorCode::NoSuchSession));
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.hub_up(&DEFAULT);
    assert!(matches!(fixture.status().state, SessionState::Failed(_)));
}

#[test]
fn a_busy_hub_is_asked_again_by_a_request_that_waits() {
    let mut fixture = Fixture::new();
    fixture.join(None, true).hub_up(&DEFAULT).receive(hub_error(ErrorCode::TooMany));
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::TooMany));
    let cause = &fixture.failures()[0].cause;
    assert!(
        matches!(cause, FailureCause::Hub { failure: HubFailure::Busy { .. }, .. }),
        "{cause:?}"
    );
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.advance_ms(4999);
    assert_eq!(fixture.sent(), []);
    fixture.advance_ms(1);
    assert_eq!(fixture.sent().len(), 1);
    fixture.receive(hub_error(ErrorCode::TooMany));
    assert_eq!(fixture.failures(), Vec::<&Failure>::new(), "reported once");
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT);
    assert_eq!(fixture.sent().len(), 1);
    fixture.advance_ms(60_000);
    assert_eq!(fixture.sent(), [], "already asked when the hub came back");
    fixture.receive(joined(MESH, Role::Guest, vec![]));
    assert_eq!(fixture.status().state, SessionState::Live);
}

#[test]
fn a_busy_hub_fails_a_request_that_does_not_wait() {
    let mut fixture = Fixture::new();
    fixture.join(None, false).hub_up(&DEFAULT).receive(hub_error(ErrorCode::TooMany));
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::TooMany));
    assert!(matches!(fixture.status().state, SessionState::Failed(_)));
    assert_eq!(fixture.advance_ms(60_000).sent(), []);
}

#[test]
fn waiting_is_announced_once_when_all_hubs_have_answered() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true).hub_up(&DEFAULT);
    let waiting = HubMessage::Waiting { session: session() };
    fixture.receive_from(&there, waiting.clone());
    assert_eq!(fixture.events(), Vec::<&Event>::new());
    assert_eq!(fixture.status().state, SessionState::Waiting);
    fixture.receive(waiting.clone());
    let hubs = vec![url("10.0.0.1:7340"), url("there.example:80")];
    assert_eq!(fixture.events(), [&Event::Waiting { session: session(), hubs }]);
    fixture.receive(waiting);
    assert_eq!(fixture.events(), Vec::<&Event>::new());
}

#[test]
fn a_lookup_without_waiting_fails_when_the_last_hub_has_refused() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, false).hub_up(&DEFAULT);
    fixture.receive_from(&there, hub_error(ErrorCode::NoSuchSession));
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.receive(hub_error(ErrorCode::NoSuchSession));
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NoSuchSession));
    let reason = EndReason::Failed;
    assert_eq!(fixture.events()[1], &Event::Ended { session: session(), reason });
    assert!(matches!(fixture.status().state, SessionState::Failed(_)), "until it is dismissed");
    fixture.leave();
    assert_eq!((fixture.effects.len(), fixture.core.snapshot().sessions.len()), (0, 1));
}

#[test]
fn a_full_session_counts_as_found_and_is_not_awaited_elsewhere() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true).hub_up(&DEFAULT);
    fixture.receive_from(&there, hub_error(ErrorCode::SessionFull));
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::SessionFull));
    let leave = ClientMessage::Leave { session: session() };
    assert_eq!(fixture.sent(), [(&DEFAULT, &leave)]);
}

#[test]
fn an_unreachable_hub_fails_a_request_that_does_not_wait() {
    for opens in [true, false] {
        let mut fixture = Fixture::new();
        if opens {
            fixture.open(MESH)
        } else {
            fixture.join(None, false)
        };
        fixture.hub_down(&DEFAULT);
        let reason = "nobody answers".to_owned();
        let cause = FailureCause::HubUnreachable { reason, retries: false };
        assert_eq!(fixture.failures()[0].cause, cause);
        let again = if opens { fixture.open(MESH) } else { fixture.join(None, false) };
        assert_eq!(again.failures().len(), 1, "still down: fails at once");
    }
}

#[test]
fn a_request_that_waits_reports_each_outage_once_and_asks_again() {
    let mut fixture = Fixture::new();
    fixture.join(None, true).hub_down(&DEFAULT);
    assert_eq!(fixture.failures().len(), 1);
    let reason = "nobody answers".to_owned();
    let unreachable = SessionState::Unreachable { reason };
    assert_eq!(fixture.status().state, unreachable);
    fixture.hub_down(&DEFAULT);
    assert_eq!(fixture.effects, []);
    fixture.hub_up(&DEFAULT);
    assert_eq!(fixture.sent().len(), 1);
    assert_eq!(fixture.status().state, SessionState::Connecting, "it was asked");
    fixture.receive(HubMessage::Waiting { session: session() }).hub_down(&DEFAULT);
    assert_eq!(fixture.failures().len(), 1);
    assert_eq!(fixture.status().state, unreachable);
}

#[test]
fn a_request_to_a_lost_hub_is_withdrawn_when_it_is_back() {
    let mut fixture = Fixture::new();
    fixture.open(MESH).hub_up(&DEFAULT).hub_down(&DEFAULT);
    assert_eq!(fixture.failures()[0].code(), FailureCode::HubUnreachable);
    fixture.hub_up(&DEFAULT);
    assert_eq!(fixture.sent(), [(&DEFAULT, &ClientMessage::Leave { session: session() })]);
}

#[test]
fn an_id_is_requested_once_and_again_after_the_session_ended() {
    let mut fixture = Fixture::opened(MESH);
    fixture.join(None, true);
    assert_eq!(fixture.failures()[0].code(), FailureCode::AlreadyHere);
    assert_eq!(fixture.status().state, SessionState::Live);
    let reason = CloseReason::Closed;
    fixture.receive(HubMessage::Closed { session: session(), reason }).join(None, true);
    assert_eq!(fixture.failures(), Vec::<&Failure>::new());
    assert_eq!(fixture.core.snapshot().sessions.len(), 1);
}

#[test]
fn a_session_of_an_earlier_run_is_opened_again_or_joined_if_it_has_a_successor() {
    let reopened = |kind| {
        let mut fixture = Fixture::new();
        let request = OpenRequest { session: session(), kind, limit: Some(9) };
        fixture.handle(Input::Command(Command::Reopen(request))).hub_up(&DEFAULT);
        assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { limit: Some(9), .. }));
        fixture.receive(hub_error(ErrorCode::IdTaken));
        fixture
    };
    let mut fixture = reopened(MESH);
    let join = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&DEFAULT, &join)]);
    fixture.receive(joined(MESH, Role::Guest, vec![member("a")]));
    assert_eq!((fixture.status().state, fixture.status().role), (SessionState::Live, Role::Guest));
    let fixture = reopened(BROADCAST);
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::IdTaken));
}

#[test]
fn a_link_to_a_hub_that_is_in_use_needs_no_second_connection() {
    let mut fixture = Fixture::opened(MESH);
    fixture.leave().join(Some("10.0.0.1:7340"), true);
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.effects, [Effect::Send { hub: DEFAULT, message: ask }]);
}
