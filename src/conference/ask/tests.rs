use super::super::{Effect, Input, tests::fixture::*};
use super::*;
use crate::model::{
    CloseReason, Command, EndReason, FailureCode, HubMessage, JoinTarget, OpenRequest, Role,
    SessionState,
};

const HERE: HubRef = HubRef::Default;

/// A fixture with two hubs up, the second because of another session there.
fn two_hubs() -> (Stage, HubRef) {
    let mut fixture = Stage::new();
    let there = HubRef::At(url("there.example:80"));
    let target = JoinTarget {
        session: SessionId::parse("other").unwrap(),
        hub: Some(url("there.example:80")),
    };
    fixture.give(Input::Command(Command::Join { target, wait: true }));
    fixture.up(&there);
    (fixture, there)
}

#[test]
fn a_bare_id_is_looked_up_at_every_hub_and_the_first_hub_that_has_it_wins() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true);
    assert!(fixture.done.contains(&Effect::ConnectHub(HERE)));
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&there, &ask)]);
    fixture.up(&HERE);
    assert_eq!(fixture.sent(), [(&HERE, &ask)]);
    fixture.hear_from(&there, joined(MESH, Role::Guest, vec![]));
    let leave = ClientMessage::Leave { session: session() };
    assert_eq!(fixture.sent(), [(&HERE, &leave)]);
    assert_eq!(fixture.status().link.unwrap().hub, url("there.example:80"));
    fixture.hear(joined(MESH, Role::Guest, vec![member("a")]));
    assert_eq!(fixture.status().participants, [], "the answer of the other hub comes too late");
}

#[test]
fn a_bare_id_is_looked_up_at_a_hub_that_is_not_up_yet() {
    let mut fixture = Stage::new();
    let there = HubRef::At(url("there.example:80"));
    let session_there = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_there, hub: Some(url("there.example:80")) };
    fixture.give(Input::Command(Command::Join { target, wait: true })).join(None, true);
    fixture.up(&there);
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert!(fixture.sent().contains(&(&there, &ask)), "{:?}", fixture.sent());
    fixture.up(&HERE);
    assert_eq!(fixture.sent(), [(&HERE, &ask)]);
}

#[test]
fn a_hub_with_two_references_is_asked_once() {
    let mut fixture = Stage::new();
    let here = HubRef::At(url("10.0.0.1:7340"));
    let session_here = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
    fixture.give(Input::Command(Command::Join { target, wait: false })).join(None, false);
    fixture.up(&here);
    let ask = ClientMessage::Join { session: session(), wait: false };
    assert!(fixture.sent().contains(&(&here, &ask)), "{:?}", fixture.sent());
    fixture.up(&HERE);
    assert_eq!(fixture.sent(), []);
    fixture.hear_from(&here, refusal(ErrorCode::NoSuchSession));
    assert!(matches!(fixture.status().state, SessionState::Failed(_)), "no other hub is awaited");
}

#[test]
fn a_refusal_under_one_reference_of_a_hub_counts_for_the_other() {
    let (mut fixture, here) = (Stage::new(), HubRef::At(url("10.0.0.1:7340")));
    let session_here = SessionId::parse("other").unwrap();
    let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
    fixture.give(Input::Command(Command::Join { target, wait: false })).join(None, false);
    fixture.up(&here).hear_from(&here, refusal(ErrorCode::NoSuchSession));
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.up(&HERE);
    assert!(matches!(fixture.status().state, SessionState::Failed(_)));
}

#[test]
fn a_busy_hub_is_asked_again_by_a_request_that_waits() {
    let mut fixture = Stage::new();
    fixture.join(None, true).up(&HERE).hear(refusal(ErrorCode::TooMany));
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::TooMany));
    assert!(fixture.failures()[0].message.ends_with("trying again"));
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.pass_ms(4999);
    assert_eq!(fixture.sent(), []);
    fixture.pass_ms(1);
    assert_eq!(fixture.sent().len(), 1);
    fixture.hear(refusal(ErrorCode::TooMany));
    assert_eq!(fixture.failures(), Vec::<&Failure>::new(), "reported once");
    fixture.down(&HERE).up(&HERE);
    assert_eq!(fixture.sent().len(), 1);
    fixture.pass_ms(60_000);
    assert_eq!(fixture.sent(), [], "already asked when the hub came back");
    fixture.hear(joined(MESH, Role::Guest, vec![]));
    assert_eq!(fixture.status().state, SessionState::Live);
}

#[test]
fn a_busy_hub_fails_a_request_that_does_not_wait() {
    let mut fixture = Stage::new();
    fixture.join(None, false).up(&HERE).hear(refusal(ErrorCode::TooMany));
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::TooMany));
    assert!(matches!(fixture.status().state, SessionState::Failed(_)));
    assert_eq!(fixture.pass_ms(60_000).sent(), []);
}

#[test]
fn waiting_is_announced_once_when_all_hubs_have_answered() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true).up(&HERE);
    let waiting = HubMessage::Waiting { session: session() };
    fixture.hear_from(&there, waiting.clone());
    assert_eq!(fixture.events(), Vec::<&Event>::new());
    assert_eq!(fixture.status().state, SessionState::Waiting);
    fixture.hear(waiting.clone());
    let hubs = vec![url("10.0.0.1:7340"), url("there.example:80")];
    assert_eq!(fixture.events(), [&Event::Waiting { session: session(), hubs }]);
    fixture.hear(waiting);
    assert_eq!(fixture.events(), Vec::<&Event>::new());
}

#[test]
fn a_lookup_without_waiting_fails_when_the_last_hub_has_refused() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, false).up(&HERE);
    fixture.hear_from(&there, refusal(ErrorCode::NoSuchSession));
    assert_eq!(fixture.status().state, SessionState::Connecting);
    fixture.hear(refusal(ErrorCode::NoSuchSession));
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
    let reason = EndReason::Failed;
    assert_eq!(fixture.events()[1], &Event::Ended { session: session(), reason });
    assert!(matches!(fixture.status().state, SessionState::Failed(_)), "until it is dismissed");
    fixture.leave();
    assert_eq!((fixture.done.len(), fixture.core.snapshot().sessions.len()), (0, 1));
}

#[test]
fn a_full_session_counts_as_found_and_is_not_awaited_elsewhere() {
    let (mut fixture, there) = two_hubs();
    fixture.join(None, true).up(&HERE);
    fixture.hear_from(&there, refusal(ErrorCode::SessionFull));
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::SessionFull));
    let leave = ClientMessage::Leave { session: session() };
    assert_eq!(fixture.sent(), [(&HERE, &leave)]);
}

#[test]
fn an_unreachable_hub_fails_a_request_that_does_not_wait() {
    for opens in [true, false] {
        let mut fixture = Stage::new();
        if opens {
            fixture.open(MESH)
        } else {
            fixture.join(None, false)
        };
        fixture.down(&HERE);
        assert_eq!(fixture.failures()[0].code, FailureCode::HubUnreachable);
        assert!(fixture.failures()[0].message.contains("nobody answers"));
        let again = if opens { fixture.open(MESH) } else { fixture.join(None, false) };
        assert_eq!(again.failures().len(), 1, "still down: fails at once");
    }
}

#[test]
fn a_request_that_waits_reports_each_outage_once_and_asks_again() {
    let mut fixture = Stage::new();
    fixture.join(None, true).down(&HERE);
    assert_eq!(fixture.failures().len(), 1);
    let reason = "nobody answers".to_owned();
    let unreachable = SessionState::Unreachable { reason };
    assert_eq!(fixture.status().state, unreachable);
    fixture.down(&HERE);
    assert_eq!(fixture.done, []);
    fixture.up(&HERE);
    assert_eq!(fixture.sent().len(), 1);
    assert_eq!(fixture.status().state, SessionState::Connecting, "it was asked");
    fixture.hear(HubMessage::Waiting { session: session() }).down(&HERE);
    assert_eq!(fixture.failures().len(), 1);
    assert_eq!(fixture.status().state, unreachable);
}

#[test]
fn a_request_to_a_lost_hub_is_withdrawn_when_it_is_back() {
    let mut fixture = Stage::new();
    fixture.open(MESH).up(&HERE).down(&HERE);
    assert_eq!(fixture.failures()[0].code, FailureCode::HubUnreachable);
    fixture.up(&HERE);
    assert_eq!(fixture.sent(), [(&HERE, &ClientMessage::Leave { session: session() })]);
}

#[test]
fn an_id_is_requested_once_and_again_after_the_session_ended() {
    let mut fixture = Stage::opened(MESH);
    fixture.join(None, true);
    assert_eq!(fixture.failures()[0].code, FailureCode::AlreadyHere);
    assert_eq!(fixture.status().state, SessionState::Live);
    let reason = CloseReason::Closed;
    fixture.hear(HubMessage::Closed { session: session(), reason }).join(None, true);
    assert_eq!(fixture.failures(), Vec::<&Failure>::new());
    assert_eq!(fixture.core.snapshot().sessions.len(), 1);
}

#[test]
fn a_session_of_an_earlier_run_is_opened_again_or_joined_if_it_has_a_successor() {
    let reopened = |kind| {
        let mut fixture = Stage::new();
        let request = OpenRequest { session: session(), kind, limit: Some(9) };
        fixture.give(Input::Command(Command::Reopen(request))).up(&HERE);
        assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { limit: Some(9), .. }));
        fixture.hear(refusal(ErrorCode::IdTaken));
        fixture
    };
    let mut fixture = reopened(MESH);
    let join = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&HERE, &join)]);
    fixture.hear(joined(MESH, Role::Guest, vec![member("a")]));
    assert_eq!((fixture.status().state, fixture.status().role), (SessionState::Live, Role::Guest));
    let fixture = reopened(BROADCAST);
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::IdTaken));
}

#[test]
fn a_link_to_a_hub_that_is_in_use_needs_no_second_connection() {
    let mut fixture = Stage::opened(MESH);
    fixture.leave().join(Some("10.0.0.1:7340"), true);
    let ask = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.done, [Effect::Send { hub: HERE, message: ask }]);
}
