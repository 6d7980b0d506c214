use super::super::{Effect, Input, tests::fixture::*};
use super::*;
use crate::model::{
    Command, HubMessage, MediaSet, PeerState, SessionFailure, SessionState, Topology,
};

#[test]
fn an_opened_session_has_a_link_and_a_joined_session_learns_its_kind() {
    let fixture = Fixture::opened(BROADCAST);
    let link = url("10.0.0.1:7340").link(&session());
    let kind = BROADCAST;
    let event = Event::Opened { session: session(), kind, link: link.clone() };
    assert_eq!(fixture.events(), [&event]);
    assert_eq!(fixture.status().link, Some(link));

    let fixture = Fixture::joined(BROADCAST, vec![]);
    assert_eq!(fixture.events(), [&Event::Joined { session: session(), kind }]);
    assert_eq!((fixture.status().kind, fixture.status().role), (Some(kind), Role::Guest));
}

#[test]
fn the_hub_ends_a_session_and_its_connections() {
    let reasons = [
        (CloseReason::OpenerLeft, EndReason::OpenerLeft),
        (CloseReason::Ejected, EndReason::Ejected),
        (CloseReason::Replaced, EndReason::Replaced),
    ];
    for (reason, end) in reasons {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        fixture.receive(HubMessage::Closed { session: session(), reason });
        assert_eq!(fixture.closed_peers(), [1]);
        assert_eq!(fixture.events(), [&Event::Ended { session: session(), reason: end }]);
        assert_eq!(fixture.status().state, SessionState::Ended { reason: end });
        assert_eq!(fixture.status().kind, Some(MESH), "still shown");
        fixture.receive(participant_joined(member("b")));
        assert_eq!(fixture.effects, []);
    }
}

#[test]
fn only_its_opener_closes_a_session() {
    let close = || Input::Command(Command::Close { session: session() });
    let mut fixture = Fixture::joined(MESH, vec![]);
    fixture.handle(close());
    assert_eq!(fixture.failures(), [&SessionFailure::NotOwner.of(&session())]);
    let mut fixture = Fixture::opened(MESH);
    fixture.handle(close());
    assert_eq!(fixture.sent()[0].1, &ClientMessage::Close { session: session() });
    let reason = EndReason::Closed;
    assert_eq!(fixture.events(), [&Event::Ended { session: session(), reason }]);
    assert!(fixture.core.snapshot().sessions.is_empty());
}

#[test]
fn leaving_before_the_answer_withdraws_the_request() {
    let mut fixture = Fixture::new();
    fixture.join(None, true).hub_up(&HubRef::Default).leave();
    assert_eq!(fixture.sent()[0].1, &ClientMessage::Leave { session: session() });
    fixture.receive(joined(MESH, Role::Guest, vec![member("a")]));
    assert_eq!(fixture.effects, []);
}

#[test]
fn another_session_of_the_same_id_is_not_ours() {
    let kind = SessionKind { media: MediaSet::AUDIO, topology: Topology::ManyToMany };
    let mut fixture = Fixture::joined(MESH, vec![]);
    fixture.hub_down(&HubRef::Default).hub_up(&HubRef::Default);
    fixture.receive(joined(kind, Role::Guest, vec![]));
    assert_eq!(fixture.sent()[0].1, &ClientMessage::Leave { session: session() });
    assert!(matches!(fixture.status().state, SessionState::Failed(_)));
}

#[test]
fn messages_before_our_seat_is_confirmed_are_ignored() {
    let mut fixture = Fixture::joined(MESH, vec![]);
    fixture
        .hub_down(&HubRef::Default)
        .hub_up(&HubRef::Default)
        .receive(participant_joined(member("a")));
    assert_eq!(fixture.effects, Vec::<Effect>::new());
}
