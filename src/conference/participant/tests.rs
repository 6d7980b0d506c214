use super::super::{Effect, HubRef, Input, tests::fixture::*};
use super::replacement_limiter::{MAX_REPLACEMENTS, REPLACEMENT_WINDOW};
use super::*;
use crate::model::{
    ConnectionFailure, ConnectionFault, DeviceKind, DeviceState, ErrorCode, Failure, FailureCause,
    FailureCode, HubFailure, HubMessage, LeaveReason, MAX_NAME_CHARS, OperationId, PeerCommand,
    PeerState, PerDevice, PerSource, Role, Source, Topology,
};
use ParticipantState::{Connecting, Gone, Left, Live, Reconnecting, Unreachable};

/// A guest that is connected to `a`.
fn live() -> Fixture {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
    fixture
}

#[test]
fn the_participant_that_was_there_first_offers_at_once() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    assert_eq!(fixture.states(), [Connecting]);
    assert_eq!(fixture.opened_peers(), [1]);
    assert!(matches!(fixture.commands()[0], crate::model::PeerCommand::MakeOffer { .. }));
}

#[test]
fn a_new_participant_waits_for_an_offer_and_makes_one_after_three_seconds() {
    let mut absent = member("b");
    absent.presence = away(1000);
    let mut fixture = Fixture::joined(MESH, vec![member("a"), absent]);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.advance_ms(2999);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.advance_ms(1);
    assert_eq!(fixture.opened_peers(), [1], "only to the participant that is present");
}

#[test]
fn an_offer_in_time_is_answered_and_none_is_made() {
    let mut fixture = Fixture::joined(MESH, vec![member("a")]);
    fixture.receive(signal("a", offer(1)));
    assert_eq!(fixture.opened_peers(), [1]);
    assert!(matches!(fixture.commands()[0], crate::model::PeerCommand::AcceptOffer { .. }));
    fixture.advance_ms(4000);
    assert_eq!(fixture.effects, []);
}

#[test]
fn a_silent_participant_is_reconnecting_within_five_seconds_and_gone_after_ten() {
    // Silent from time 0: the connection reports it after 3 s, the hub after 3.5 s.
    let mut fixture = live();
    fixture.advance_ms(10_000);
    fixture.advance_ms(3000).peer_state(1, PeerState::Disconnected);
    assert_eq!(fixture.state_of("a"), Some(Live));
    fixture.advance_ms(500).receive(presence("a", away(3500)));
    assert_eq!(fixture.states(), [Reconnecting]);
    let since = fixture.now;
    fixture.advance_ms(6499);
    assert_eq!(fixture.state_of("a"), Some(Reconnecting));
    assert_eq!(fixture.status().participants[0].since, since);
    fixture.advance_ms(1);
    assert_eq!((fixture.states(), fixture.closed_peers()), (vec![Gone], vec![1]));
    assert_eq!(fixture.status().participants[0].since, fixture.now);
    fixture.advance_ms(50_000);
    assert_eq!(fixture.state_of("a"), Some(Gone), "only the hub gives up the seat");
    fixture.receive(participant_left("a", LeaveReason::Lost));
    assert_eq!((fixture.states(), fixture.state_of("a")), (vec![Left], None));
}

#[test]
fn a_participant_that_embedded_the_hub_is_removed_after_a_minute() {
    let mut fixture = live();
    fixture
        .advance_ms(10_000)
        .hub_down(&HubRef::Default)
        .advance_ms(3000)
        .peer_state(1, PeerState::Disconnected);
    fixture.advance_ms(10_000);
    assert_eq!(fixture.state_of("a"), Some(Gone));
    fixture.advance_ms(50_000);
    assert_eq!(fixture.state_of("a"), Some(Gone), "a hub would still keep the seat");
    fixture.advance_ms(15_000);
    assert_eq!((fixture.states(), fixture.state_of("a")), (vec![Left], None));
    fixture.hub_up(&HubRef::Default).receive(opened(MESH, vec![member("a")]));
    assert_eq!(fixture.state_of("a"), Some(Connecting), "the hub that is back reports it");
}

#[test]
fn a_participant_that_was_gone_is_connected_again() {
    let mut fixture = live();
    fixture.receive(presence("a", away(0))).advance_ms(3000).peer_state(1, PeerState::Disconnected);
    fixture.advance_ms(20_000).receive(presence("a", Presence::Here));
    assert_eq!((fixture.states(), fixture.opened_peers()), (vec![Connecting], vec![2]));
    fixture.peer_state(2, PeerState::Connected);
    assert_eq!(fixture.states(), [Live]);
}

#[test]
fn a_participant_with_running_media_is_live_whatever_the_hub_reports() {
    let mut fixture = live();
    fixture.receive(presence("a", away(3500))).advance_ms(59_000);
    assert_eq!((fixture.states(), fixture.state_of("a")), (vec![], Some(Live)));
    fixture.receive(participant_left("a", LeaveReason::Lost));
    assert_eq!((fixture.effects.len(), fixture.state_of("a")), (0, Some(Live)));
    fixture.peer_state(1, PeerState::Disconnected);
    assert_eq!(fixture.states(), [Reconnecting]);
    fixture.advance_ms(10_000);
    assert_eq!(fixture.state_of("a"), None);
}

#[test]
fn silent_media_of_a_present_participant_causes_an_ice_restart_and_then_a_replacement() {
    let mut fixture = negotiated();
    fixture.advance_ms(60_000).peer_state(1, PeerState::Disconnected);
    fixture.advance_ms(2000);
    assert_eq!(fixture.states(), [Reconnecting], "five seconds after the last packet");
    // We are polite (`m` is after `a`): the remote peer restarts first.
    fixture.advance_ms(2499);
    assert_eq!(fixture.commands().len(), 0);
    fixture.advance_ms(1);
    let restart =
        crate::model::PeerCommand::MakeOffer { operation: OperationId(3), restart_ice: true };
    assert_eq!(fixture.commands(), [&restart]);
    fixture.advance_ms(2500);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.advance_ms(500);
    assert_eq!(fixture.opened_peers(), [2]);
    assert_eq!(fixture.state_of("a"), Some(Reconnecting));
}

/// Like [`live`], after the first offer was answered.
fn negotiated() -> Fixture {
    let mut fixture = live();
    fixture.peer_event(1, described(1)).receive(signal("a", answer(1))).peer_event(1, done(2));
    fixture
}

/// The restarts of ICE among the commands.
fn restarts(fixture: &Fixture) -> usize {
    let is_restart =
        |one: &&PeerCommand| matches!(one, PeerCommand::MakeOffer { restart_ice: true, .. });
    fixture.commands().into_iter().filter(is_restart).count()
}

#[test]
fn a_lost_local_address_restarts_ice_at_once_and_only_once() {
    let mut fixture = negotiated();
    fixture.peer_event(1, PeerEvent::AddressLost);
    assert_eq!(restarts(&fixture), 1, "while media are still expected");
    fixture.peer_event(1, described(3)).receive(signal("a", answer(1))).peer_event(1, done(4));
    fixture.advance_ms(1000);
    assert_eq!(restarts(&fixture), 0);
}

#[test]
fn a_lost_local_address_restarts_ice_when_the_hub_has_us_again() {
    let mut fixture = negotiated();
    fixture.hub_down(&HubRef::Default).peer_event(1, PeerEvent::AddressLost).advance_ms(1000);
    assert_eq!(restarts(&fixture), 0, "the offer would be lost");
    fixture.hub_up(&HubRef::Default);
    assert_eq!(restarts(&fixture), 0, "nobody passes it on yet");
    fixture.receive(opened(MESH, vec![member("a")]));
    assert_eq!(restarts(&fixture), 1);
}

#[test]
fn an_address_that_came_back_in_time_restarts_nothing() {
    let mut fixture = negotiated();
    fixture.hub_down(&HubRef::Default).peer_event(1, PeerEvent::AddressLost);
    fixture.peer_state(1, PeerState::Disconnected).peer_state(1, PeerState::Connected);
    fixture.hub_up(&HubRef::Default).receive(opened(MESH, vec![member("a")])).advance_ms(1000);
    assert_eq!(restarts(&fixture), 0);
}

#[test]
fn a_short_silence_is_not_announced() {
    let mut fixture = live();
    fixture
        .peer_state(1, PeerState::Disconnected)
        .advance_ms(1000)
        .peer_state(1, PeerState::Connected);
    assert_eq!(fixture.states(), []);
    let sent = fixture.effects.iter().any(|one| matches!(one, Effect::SetSending { .. }));
    assert!(!sent, "it was sending all the time");
}

#[test]
fn retries_back_off_and_the_failure_is_reported_once() {
    let mut fixture = live();
    let mut reports = 0;
    for (peer, pause) in (1..).zip([500, 1000, 2000, 4000, 8000, 8000]) {
        fixture.peer_state(peer, PeerState::Failed);
        reports += fixture.failures().len();
        fixture.advance_ms(pause - 1);
        assert_eq!(fixture.opened_peers(), Vec::<u64>::new(), "before {pause} ms");
        fixture.advance_ms(1);
        assert_eq!(fixture.opened_peers(), [peer + 1], "after {pause} ms");
        assert_eq!(reports, usize::from(peer >= 3));
    }
    fixture.peer_state(7, PeerState::Connected).peer_state(7, PeerState::Failed).advance_ms(500);
    assert_eq!(fixture.opened_peers(), [8], "a success resets the count");
}

#[test]
fn a_failure_names_the_participant_and_the_way_out() {
    let mut fixture = live();
    for peer in 1..4 {
        fixture.peer_state(peer, PeerState::Failed);
        if peer < 3 {
            fixture.advance_ms(1000);
        }
    }
    let failure = fixture.failures()[0];
    let cause =
        FailureCause::NoConnection { name: "A".into(), failure: ConnectionFailure::NoAnswer };
    assert_eq!(failure, &Failure { cause, session: Some(session()) });
}

/// Makes a connection of ours offer and the remote peer answer; both send a candidate.
fn negotiate(fixture: &mut Fixture, peer: u64) {
    let named = |ip: &str| format!("v=0\r\na=candidate:1 1 udp 1 {ip} 9 typ host\r\n");
    let (kind, sdp) = (crate::model::DescriptionKind::Offer, named("192.168.5.7"));
    fixture.peer_event(peer, PeerEvent::LocalDescription { operation: OperationId(1), kind, sdp });
    let Payload::Offer { generation, .. } = fixture.signals()[0].clone() else {
        panic!("no offer")
    };
    fixture.receive(signal("a", Payload::Answer { generation, sdp: named("192.168.5.8") }));
    fixture.peer_event(peer, PeerEvent::Applied { operation: OperationId(2) });
}

#[test]
fn a_participant_is_unreachable_ten_seconds_after_the_negotiation() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    fixture.advance_ms(2000);
    negotiate(&mut fixture, 1);
    fixture.advance_ms(9999);
    assert_eq!((fixture.failures().len(), fixture.state_of("a")), (0, Some(Connecting)));
    fixture.advance_ms(1);
    let failure = fixture.failures()[0].clone();
    let cause =
        FailureCause::NoConnection { name: "A".into(), failure: ConnectionFailure::NoPairAnswered };
    assert_eq!(failure, Failure { cause, session: Some(session()) });
    assert_eq!(fixture.states(), [Unreachable]);
    fixture.advance_ms(3500);
    assert_eq!(fixture.opened_peers(), [2], "it is retried");
    negotiate(&mut fixture, 2);
    fixture.advance_ms(14_000);
    assert_eq!(
        (fixture.failures().len(), fixture.state_of("a")),
        (0, Some(Unreachable)),
        "reported once"
    );
    let mut peer = 2;
    while fixture.opened_peers().is_empty() {
        fixture.advance_ms(1000);
    }
    peer += 1;
    negotiate(&mut fixture, peer);
    fixture.peer_state(peer, PeerState::Connected);
    assert_eq!(fixture.states(), [Live], "a later success is announced");
    fixture.peer_state(peer, PeerState::Failed).advance_ms(500);
    negotiate(&mut fixture, peer + 1);
    fixture.advance_ms(10_000);
    assert_eq!(fixture.failures().len(), 1, "the next outage is reported");
    assert_eq!(
        fixture.state_of("a"),
        Some(Reconnecting),
        "a participant that was connected is not unreachable"
    );
}

#[test]
fn an_attempt_that_fails_early_does_not_delay_the_report() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    negotiate(&mut fixture, 1);
    fixture.advance_ms(8000).peer_state(1, PeerState::Failed).advance_ms(1999);
    assert_eq!(fixture.failures(), Vec::<&crate::model::Failure>::new());
    fixture.advance_ms(1);
    let fault = ConnectionFault::NoPairAnswered;
    assert_eq!(fixture.failures()[0].code(), FailureCode::Connection(fault), "of the last attempt");
}

#[test]
fn a_participant_that_is_away_or_whose_hub_is_down_is_not_reported_as_unreachable() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    negotiate(&mut fixture, 1);
    fixture.receive(presence("a", away(3500))).advance_ms(20_000);
    assert_eq!((fixture.failures().len(), fixture.state_of("a")), (0, Some(Gone)));
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    negotiate(&mut fixture, 1);
    fixture.hub_down(&HubRef::Default).advance_ms(9000);
    assert_eq!(fixture.failures().len(), 0);
}

#[test]
fn ends_without_a_usable_pair_are_distinguished_from_pairs_that_do_not_answer() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a")));
    let sdp = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n".to_owned();
    let kind = crate::model::DescriptionKind::Offer;
    fixture.peer_event(1, PeerEvent::LocalDescription { operation: OperationId(1), kind, sdp });
    fixture
        .receive(signal("a", answer(1)))
        .peer_event(1, PeerEvent::Applied { operation: OperationId(2) });
    let line = "candidate:1 1 udp 1 192.168.5.8 9 typ host".to_owned();
    let candidate = Payload::Candidate { generation: 1, candidate: line, mid: None, line: None };
    fixture.receive(signal("a", candidate)).advance_ms(10_000);
    let failure = fixture.failures()[0];
    let cause =
        FailureCause::NoConnection { name: "A".into(), failure: ConnectionFailure::NoLocalAddress };
    assert_eq!(failure.cause, cause);
    assert_eq!(failure.code(), FailureCode::Connection(ConnectionFault::NoUsableAddress));
}

#[test]
fn a_connection_that_takes_too_long_or_fails_an_operation_is_replaced() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a"))).advance_ms(15_000);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.advance_ms(500);
    assert_eq!(fixture.opened_peers(), [2]);
    fixture.peer_event(2, PeerEvent::Failed { operation: OperationId(1), reason: "no".into() });
    assert_eq!(fixture.closed_peers(), [2]);
}

#[test]
fn no_offer_is_made_to_a_participant_that_is_away() {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a"))).receive(presence("a", away(3500)));
    fixture.peer_state(1, PeerState::Failed).advance_ms(120_000);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.receive(presence("a", Presence::Here));
    assert_eq!(fixture.opened_peers(), [2], "at once, without counting a failure");
    fixture.receive(presence("a", Presence::Here));
    assert_eq!(fixture.effects, [], "nothing has changed");
}

#[test]
fn a_later_generation_replaces_ours_and_an_earlier_one_is_ignored() {
    let mut fixture = live();
    fixture.receive(signal("a", offer(1)));
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.receive(signal("a", offer(5)));
    assert_eq!((fixture.closed_peers(), fixture.opened_peers()), (vec![1], vec![2]));
    fixture.receive(signal("a", offer(4))).receive(signal("a", answer(6)));
    assert_eq!(fixture.effects, []);
    fixture.peer_state(2, PeerState::Failed).receive(signal("a", offer(5)));
    assert_eq!(fixture.effects, [], "that connection is closed");
    fixture.receive(signal("a", offer(u32::MAX))).peer_state(3, PeerState::Failed).advance_ms(9000);
    assert_eq!(fixture.opened_peers(), [4], "no overflow");
}

#[test]
fn a_remote_peer_cannot_have_connections_replaced_without_limit() {
    let mut fixture = live();
    let opened: usize = (2..1000)
        .map(|generation| fixture.receive(signal("a", offer(generation))).opened_peers().len())
        .sum();
    assert_eq!(opened, MAX_REPLACEMENTS as usize);
    fixture.advance(REPLACEMENT_WINDOW).receive(signal("a", offer(2000)));
    assert_eq!(fixture.opened_peers().len(), 1);
}

#[test]
fn a_new_instance_is_reconnected_and_the_same_instance_is_kept() {
    let mut fixture = live();
    fixture.receive(participant_joined(member("a")));
    assert_eq!((fixture.effects.len(), fixture.signals()), (1, vec![media(BOTH)]));
    let mut restarted = member("a");
    restarted.instance = Instance::from_random(2);
    fixture.receive(participant_joined(restarted));
    assert_eq!((fixture.closed_peers(), fixture.opened_peers()), (vec![1], vec![2]));
    assert_eq!(fixture.states(), [Connecting]);
}

#[test]
fn a_participant_that_leaves_is_removed_at_once() {
    for reason in [LeaveReason::Left, LeaveReason::Ejected, LeaveReason::Replaced] {
        let mut fixture = live();
        fixture.receive(participant_left("a", reason));
        assert_eq!((fixture.closed_peers(), fixture.states()), (vec![1], vec![Left]));
        let is_announced = |event: &&Event| matches!(event, Event::Participant { reason: Some(why), .. } if *why == reason);
        assert!(fixture.events().iter().any(is_announced), "with the reason");
    }
}

#[test]
fn a_refused_signal_does_not_end_the_session() {
    let mut fixture = live();
    fixture.receive(hub_error(ErrorCode::NotAllowed));
    assert_eq!(fixture.effects, []);
}

#[test]
fn a_hubs_message_is_shown_as_one_line_without_direction_characters() {
    let mut fixture = live();
    let message = format!("\u{202e}no\n\u{1b}[2J{}", "x".repeat(9000));
    fixture.receive(HubMessage::Error { code: ErrorCode::TooMany, message, session: None });
    let FailureCause::Hub { failure: HubFailure::Reported { reason: shown, .. }, .. } =
        &fixture.failures()[0].cause
    else {
        panic!("{:?}", fixture.failures());
    };
    assert!(shown.starts_with("no [2Jxxx") && shown.chars().count() < 400, "{shown}");
    assert!(!shown.contains(['\u{202e}', '\n', '\u{1b}']), "{shown}");
}

#[test]
fn a_viewer_sees_the_opener_only_and_a_long_name_is_cut() {
    assert_eq!(BROADCAST.topology, Topology::OneWay);
    let mut opener = member("o");
    (opener.role, opener.name) = (Role::Opener, "ö".repeat(100));
    let mut fixture = Fixture::joined(BROADCAST, vec![member("a"), opener]);
    let seen = fixture.status().participants;
    assert_eq!((seen.len(), &seen[0].participant), (1, &id("o")));
    assert_eq!(seen[0].name.chars().count(), MAX_NAME_CHARS);
    fixture.hub_down(&HubRef::Default);
    assert_eq!(fixture.states(), [Reconnecting], "no media yet, and the hub is down");
}

fn described(operation: u32) -> PeerEvent {
    let kind = crate::model::DescriptionKind::Offer;
    PeerEvent::LocalDescription { operation: OperationId(operation), kind, sdp: "mine".into() }
}

fn done(operation: u32) -> PeerEvent {
    PeerEvent::Applied { operation: OperationId(operation) }
}

fn answer(generation: u32) -> Payload {
    Payload::Answer { generation, sdp: "theirs".into() }
}

#[test]
fn a_connection_of_ours_is_newer_than_offers_that_were_not_admitted() {
    let mut fixture = live();
    for generation in 2..100 {
        fixture.receive(signal("a", offer(generation)));
    }
    fixture.peer_state(1 + u64::from(MAX_REPLACEMENTS), PeerState::Failed).advance_ms(600);
    let peer = fixture.opened_peers()[0];
    fixture.peer_event(peer, described(1));
    let sent = format!("{:?}", fixture.sent());
    assert!(sent.contains("Offer { generation: 100,"), "{sent}");
}

#[test]
fn an_unanswered_offer_on_a_running_connection_is_made_again() {
    let mut fixture = live();
    fixture.peer_event(1, described(1));
    assert_eq!(fixture.sent().len(), 1);
    fixture.advance_ms(10_000);
    let rollback = crate::model::PeerCommand::Rollback { operation: OperationId(2) };
    assert_eq!(fixture.commands(), [&rollback]);
    assert!(!fixture.effects.contains(&Effect::ClosePeer(crate::model::PeerId(1))));
    fixture.receive(HubMessage::Renamed { name: "Me".into() });
    assert_eq!(fixture.effects, []);
}

/// Negotiated media without these.
fn negotiated_without(media: &[Media]) -> PeerEvent {
    let mut agreed = NegotiatedMedia::default();
    media.iter().for_each(|media| agreed.leave_out(*media));
    PeerEvent::Negotiated(agreed)
}

/// The media that the user was told are left out.
fn left_out(fixture: &Fixture) -> Vec<Vec<Media>> {
    let announced = fixture.events().into_iter().filter_map(|event| {
        if let Event::LeftOut { media, .. } = event { Some(Vec::from(*media)) } else { None }
    });
    announced.collect()
}

#[test]
fn video_that_the_other_program_cannot_show_is_reported_once_and_not_signalled_as_sent() {
    let mut fixture = Fixture::opened(MESH);
    fixture
        .receive(participant_joined(member("a")))
        .peer_event(1, negotiated_without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
    assert_eq!(fixture.failures(), Vec::<&crate::model::Failure>::new());
    fixture.peer_state(1, PeerState::Connected);
    let peer = crate::model::PeerId(1);
    let layers = PerSource { camera: None, microphone: Some(crate::model::Layer::Full) };
    assert!(fixture.effects.contains(&Effect::SetSending { peer, layers }));
    let demand = Effect::Demand(PerDevice { sources: MICROPHONE, speaker: true });
    assert!(fixture.effects.contains(&demand), "{:?}", fixture.effects);
    assert_eq!(fixture.signals(), [media(MICROPHONE)]);
    for kind in [DeviceKind::CAMERA, DeviceKind::MICROPHONE] {
        fixture.handle(Input::Device(kind, DeviceState::Running));
    }
    let status = fixture.status();
    assert_eq!(status.sending, MICROPHONE);
    assert_eq!(status.participants[0].left_out, Some(Media::Video.into()));
    assert_eq!(fixture.state_of("a"), Some(Live));
    // The same result is not announced again: not on this connection, not on the next one, and not
    // after it changed back.
    for again in [&[Media::Video][..], &[], &[Media::Video]] {
        fixture.peer_event(1, negotiated_without(again));
        assert_eq!(fixture.events(), Vec::<&Event>::new());
    }
    fixture
        .peer_state(1, PeerState::Failed)
        .advance_ms(600)
        .peer_event(2, negotiated_without(&[Media::Video]));
    assert_eq!(left_out(&fixture), Vec::<Vec<Media>>::new());
    // The result of another program is announced.
    let mut restarted = member("a");
    restarted.instance = Instance::from_random(9);
    fixture.receive(participant_joined(restarted));
    assert_eq!(fixture.status().participants[0].left_out, None);
    fixture.peer_event(3, negotiated_without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
}

#[test]
fn media_that_the_remote_peer_does_not_accept_is_not_signalled_as_sent() {
    let mut fixture = live();
    let mut agreed = NegotiatedMedia::default();
    agreed.disable_sending(Media::Video);
    agreed.disable_receiving(Media::Video);
    fixture.peer_event(1, PeerEvent::Negotiated(agreed));
    assert_eq!(left_out(&fixture), Vec::<Vec<Media>>::new(), "it may change its mind");
    assert_eq!(fixture.signals(), [media(MICROPHONE)]);
    let peer = crate::model::PeerId(1);
    assert!(fixture.effects.contains(&Effect::ExpectVideo {
        peer,
        source: Source::Camera,
        expected: false
    }));
    fixture.peer_event(1, PeerEvent::Negotiated(NegotiatedMedia::default()));
    assert_eq!(fixture.signals(), [media(BOTH)]);
}

#[test]
fn without_common_media_the_connection_is_closed_and_the_network_is_not_blamed() {
    let kind = crate::model::SessionKind {
        media: crate::model::MediaSet::VIDEO,
        topology: Topology::ManyToMany,
    };
    let mut fixture = Fixture::opened(kind);
    fixture
        .receive(participant_joined(member("a")))
        .peer_event(1, negotiated_without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.advance_ms(120_000);
    assert_eq!((fixture.opened_peers(), fixture.failures().len()), (vec![], 0));
    let shown = &fixture.status().participants[0];
    assert_eq!((shown.state, shown.peer), (Connecting, None));
    assert_eq!(shown.left_out, Some(Media::Video.into()));
    fixture.receive(signal("a", offer(2)));
    assert_eq!(fixture.opened_peers(), [2], "it may offer something else");
}

#[test]
fn a_text_to_a_program_without_chat_is_reported_as_undelivered() {
    let media = crate::model::MediaSet::AUDIO.with(Media::Data);
    let kind = crate::model::SessionKind { media, topology: Topology::ManyToMany };
    let mut fixture = Fixture::opened(kind);
    fixture
        .receive(participant_joined(member("a")))
        .peer_event(1, negotiated_without(&[Media::Data]));
    fixture.peer_state(1, PeerState::Connected);
    let text = ChatText::new("hello").unwrap();
    fixture.handle(Input::Command(crate::model::Command::SendMessage { session: session(), text }));
    let lost = |event: &&&Event| matches!(event, Event::Undelivered { count: 1, .. });
    assert_eq!(fixture.events().iter().filter(lost).count(), 1, "{:?}", fixture.events());
}

fn renamed(letter: &str, name: &str) -> HubMessage {
    let (session, participant, name) = (session(), id(letter), name.to_owned());
    HubMessage::ParticipantRenamed { session, participant, name }
}

#[test]
fn a_new_name_is_announced_and_does_not_touch_media() {
    let mut fixture = live();
    let renamed_event = |before: &str, name: &str| Event::Renamed {
        session: session(),
        participant: id("a"),
        before: before.to_owned(),
        name: name.to_owned(),
    };
    fixture.receive(renamed("a", "Grace"));
    assert_eq!(fixture.effects, [Effect::Announce(renamed_event("A", "Grace"))]);
    assert_eq!(fixture.status().participants[0].name, "Grace");
    fixture.receive(renamed("a", "Grace")).receive(renamed("stranger", "Grace"));
    assert_eq!(fixture.effects, []);
    // An older hub reports a new name this way, after the participant comes back.
    fixture.receive(participant_joined(member("a")));
    assert_eq!(fixture.events(), [&renamed_event("Grace", "A")], "not as a new participant");
    assert_eq!((fixture.closed_peers(), fixture.state_of("a")), (vec![], Some(Live)));
}
