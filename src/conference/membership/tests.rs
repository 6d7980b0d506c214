use super::super::tests::fixture::*;
use super::*;
use crate::model::{
    CloseReason, EndReason, FailureCause, HubFailure, HubMessage, LeaveReason, ParticipantState,
    PeerState, SessionState,
};

const DEFAULT: HubRef = HubRef::Default;

fn waiting() -> HubMessage {
    HubMessage::Waiting { session: session() }
}

/// A guest of a mesh that is connected to `other`, at a hub that was restarted and has no
/// opener.
fn without_opener(other: &str) -> Fixture {
    let mut fixture = Fixture::joined(MESH, vec![member(other)]);
    fixture.receive(signal(other, offer(1))).peer_state(1, PeerState::Connected);
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT).receive(waiting());
    fixture
}

#[test]
fn a_busy_hub_is_asked_again_and_media_goes_on() {
    let mut fixture = Fixture::opened(MESH);
    fixture
        .receive(participant_joined(member("a")))
        .peer_state(1, PeerState::Connected)
        .hub_down(&DEFAULT)
        .hub_up(&DEFAULT);
    assert_eq!(fixture.sent().len(), 1, "asked for the seat");
    fixture.receive(hub_error(ErrorCode::TooMany));
    assert_eq!(fixture.effects, []);
    assert!(matches!(fixture.status().state, SessionState::Reconnecting { .. }));
    fixture.advance_ms(4999);
    assert_eq!(fixture.sent().len(), 0);
    fixture.advance_ms(1);
    assert_eq!(fixture.sent().len(), 1, "asked again");
    assert_eq!(fixture.state_of("a"), Some(ParticipantState::Live));
}

#[test]
fn what_we_send_is_signalled_again_after_a_hub_dropped_signals() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
    fixture.receive(hub_error(ErrorCode::TooMany)).receive(hub_error(ErrorCode::TooMany));
    assert_eq!((fixture.effects.len(), fixture.status().state), (0, SessionState::Live));
    fixture.advance_ms(4999);
    assert_eq!(fixture.sent(), []);
    fixture.advance_ms(1);
    let payload = media(BOTH).into();
    let media_signal = ClientMessage::Signal { session: session(), to: id("a"), payload };
    assert_eq!(fixture.sent(), [(&DEFAULT, &media_signal)]);
    fixture.advance_ms(60_000);
    assert_eq!(fixture.sent(), [], "once");
}

#[test]
fn an_outage_turns_a_session_reconnecting_and_media_goes_on() {
    let mut fixture = Fixture::opened(MESH);
    fixture
        .receive(participant_joined(member("a")))
        .peer_state(1, PeerState::Connected)
        .hub_down(&DEFAULT);
    assert!(matches!(
        fixture.effects[..],
        [crate::conference::Effect::Announce(Event::HubLost { .. })]
    ));
    let lost = SessionState::Reconnecting { since: fixture.now };
    assert_eq!(fixture.status().state, lost);
    fixture.advance_ms(300_000);
    assert_eq!(fixture.status().state, lost, "since the hub was lost, not since the last attempt");
    assert_eq!(fixture.effects, []);
    assert_eq!(fixture.state_of("a"), Some(ParticipantState::Live));
    fixture.hub_up(&DEFAULT);
    assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { limit: Some(12), .. }));
    fixture.receive(opened(MESH, vec![member("a")]));
    let payload = media(BOTH).into();
    let media_signal = ClientMessage::Signal { session: session(), to: id("a"), payload };
    assert_eq!(fixture.sent(), [(&DEFAULT, &media_signal)], "signals may have been lost");
    assert_eq!((fixture.effects.len(), fixture.status().state), (1, SessionState::Live));
}

#[test]
fn a_hub_with_a_new_address_gives_its_sessions_new_links() {
    let old = url("10.0.0.1:7340");
    let new = url("192.168.9.33:7340");
    let mut fixture = Fixture::opened(MESH);
    let moved = |url: &HubUrl| {
        let event = super::super::HubEvent::AddressChanged { url: url.clone() };
        super::super::Input::Hub(DEFAULT, event)
    };
    fixture.handle(moved(&old));
    assert_eq!(fixture.effects, [], "no news");
    fixture.handle(moved(&new));
    let link = new.link(&session());
    let changed = Event::LinkChanged { session: session(), link: link.clone() };
    assert_eq!(fixture.events(), [&Event::Listening { hub: new.clone() }, &changed]);
    assert_eq!(fixture.status().link, Some(link));
    // A hub that is restarted with another address reports it in its welcome.
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT);
    let link = old.link(&session());
    assert!(fixture.events().contains(&&Event::LinkChanged { session: session(), link }));
    fixture.hub_down(&DEFAULT).handle(moved(&new));
    assert_eq!(fixture.effects, [], "a hub that is down reports it in its next welcome");
}

#[test]
fn an_opener_whose_session_has_a_successor_comes_back_as_a_guest() {
    let mut fixture = Fixture::opened(MESH);
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT).receive(hub_error(ErrorCode::IdTaken));
    let join = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&DEFAULT, &join)]);
    let mut successor = member("a");
    successor.role = Role::Opener;
    fixture.receive(joined(MESH, Role::Guest, vec![successor]));
    assert_eq!((fixture.status().state, fixture.status().role), (SessionState::Live, Role::Guest));
}

#[test]
fn an_opener_whose_broadcast_id_was_taken_gets_a_failure() {
    let mut fixture = Fixture::opened(BROADCAST);
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT).receive(hub_error(ErrorCode::IdTaken));
    let cause = &fixture.failures()[0].cause;
    assert!(
        matches!(cause, FailureCause::Hub { failure: HubFailure::IdTakenMeanwhile, .. }),
        "{cause:?}"
    );
    let reason = EndReason::Failed;
    assert_eq!(fixture.events()[1], &Event::Ended { session: session(), reason });
}

#[test]
fn roles_follow_the_owner_and_a_successor_opens_the_session_again() {
    let mut opener = member("a");
    opener.role = Role::Opener;
    let mut fixture = Fixture::joined(MESH, vec![opener, member("b")]);
    let owner = |letter: &str| HubMessage::Owner {
        session: session(),
        participant: id(letter),
        owner_key: None,
    };
    fixture.receive(owner("b"));
    let roles: Vec<_> = fixture.status().participants.iter().map(|one| one.role).collect();
    assert_eq!(roles, [Role::Guest, Role::Opener]);
    fixture.receive(participant_left("b", LeaveReason::Left)).receive(owner("m"));
    assert_eq!(fixture.status().role, Role::Opener);
    fixture.hub_down(&DEFAULT).hub_up(&DEFAULT);
    assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { owner_key: None, .. }));
}

#[test]
fn a_session_without_opener_at_a_new_hub_is_opened_by_the_first_participant() {
    let mut fixture = without_opener("z");
    assert!(matches!(fixture.status().state, SessionState::Reconnecting { .. }));
    fixture.advance_ms(9999);
    assert_eq!(fixture.sent(), []);
    fixture.advance_ms(1);
    assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { .. }));
    fixture.receive(hub_error(ErrorCode::IdTaken));
    assert!(
        matches!(fixture.sent()[0].1, ClientMessage::Join { .. }),
        "another participant was faster"
    );
}

#[test]
fn the_second_participant_waits_for_the_first() {
    let mut fixture = without_opener("a");
    fixture.advance_ms(19_999);
    assert_eq!(fixture.sent(), []);
    fixture.advance_ms(1);
    assert_eq!(fixture.sent().len(), 1);
}

#[test]
fn a_session_that_its_hub_lost_is_awaited_until_it_is_back_or_left() {
    let mut fixture = Fixture::joined(BROADCAST, vec![]);
    fixture.hub_down(&DEFAULT).advance_ms(70_000);
    let since = MediaTime::from_micros(100_000_000);
    assert_eq!(fixture.status().state, SessionState::Reconnecting { since });
    fixture.hub_up(&DEFAULT).receive(waiting());
    assert_eq!(fixture.events(), [&waiting_event()]);
    assert_eq!(fixture.status().state, SessionState::HostLost { since });
    fixture.advance_ms(10 * 3_600_000);
    assert_eq!((fixture.effects.len(), fixture.core.poll_timeout()), (0, None), "however long");
    fixture.leave();
    assert_eq!(fixture.sent()[0].1, &ClientMessage::Leave { session: session() });
}

fn waiting_event() -> Event {
    Event::Waiting { session: session(), hubs: vec![url("10.0.0.1:7340")] }
}

fn opener_lost() -> HubMessage {
    HubMessage::Closed { session: session(), reason: CloseReason::OpenerLost }
}

fn opener() -> Member {
    Member { role: Role::Opener, ..member("o") }
}

#[test]
fn a_viewer_waits_for_an_opener_that_slept_and_rejoins_automatically() {
    let mut fixture = Fixture::joined(BROADCAST, vec![opener()]);
    fixture.receive(signal("o", offer(1))).peer_state(1, PeerState::Connected);
    // The opener's computer sleeps: no packets arrive, and the hub gives up the seat.
    fixture.advance_ms(3000).peer_state(1, PeerState::Disconnected);
    fixture.advance_ms(500).receive(presence("o", away(3500)));
    fixture.advance_ms(56_500);
    assert_eq!(fixture.state_of("o"), Some(ParticipantState::Gone));
    fixture.receive(opener_lost());
    let join = ClientMessage::Join { session: session(), wait: true };
    assert_eq!(fixture.sent(), [(&DEFAULT, &join)]);
    assert_eq!(fixture.states(), [ParticipantState::Left]);
    fixture.receive(waiting());
    assert_eq!(fixture.events(), [&waiting_event()]);
    assert!(matches!(fixture.status().state, SessionState::HostLost { .. }));
    // It wakes and opens the session again, and its hub lets all waiting clients in.
    fixture.advance_ms(12_000).receive(joined(BROADCAST, Role::Guest, vec![opener()]));
    let back = Event::Joined { session: session(), kind: BROADCAST };
    assert_eq!(fixture.events()[0], &back);
    assert_eq!(fixture.status().state, SessionState::Live);
    fixture.receive(signal("o", offer(1)));
    assert_eq!(fixture.opened_peers(), [2], "media returns on a new connection");
}

#[test]
fn running_media_outlives_an_opener_that_lost_only_the_hub() {
    let mut fixture = Fixture::joined(BROADCAST, vec![opener()]);
    fixture.receive(signal("o", offer(1))).peer_state(1, PeerState::Connected);
    fixture.receive(opener_lost()).receive(waiting());
    assert_eq!(
        (fixture.closed_peers(), fixture.state_of("o")),
        (vec![], Some(ParticipantState::Live))
    );
    assert_eq!(fixture.events(), Vec::<&Event>::new(), "media still flows");
    fixture.receive(joined(BROADCAST, Role::Guest, vec![opener()]));
    assert_eq!(fixture.events(), Vec::<&Event>::new());
    assert_eq!((fixture.closed_peers(), fixture.status().state), (vec![], SessionState::Live));
}

#[test]
fn waiting_for_a_lost_opener_ends_when_the_session_ends() {
    for (reason, end) in
        [(CloseReason::OpenerLeft, EndReason::OpenerLeft), (CloseReason::Closed, EndReason::Closed)]
    {
        let mut fixture = Fixture::joined(BROADCAST, vec![opener()]);
        fixture.receive(opener_lost()).receive(waiting());
        fixture.receive(joined(BROADCAST, Role::Guest, vec![opener()]));
        fixture.receive(HubMessage::Closed { session: session(), reason });
        assert_eq!(fixture.status().state, SessionState::Ended { reason: end });
    }
}

#[test]
fn an_opener_that_the_hub_lost_opens_the_session_again() {
    let mut fixture = Fixture::opened(BROADCAST);
    fixture.receive(opener_lost());
    assert!(matches!(fixture.sent()[0].1, ClientMessage::Open { .. }), "{:?}", fixture.sent());
}

#[test]
fn connections_are_closed_when_our_participant_id_changes() {
    let mut fixture = Fixture::opened(MESH);
    fixture
        .receive(participant_joined(member("a")))
        .peer_state(1, PeerState::Connected)
        .hub_down(&DEFAULT);
    let url = url("10.0.0.1:7340");
    let up = hub_up_event(url.clone(), endpoint(&url), id("other"));
    fixture.handle(super::super::Input::Hub(DEFAULT, up));
    assert_eq!(fixture.closed_peers(), [1]);
}
