use super::super::{Effect, HubRef, Input, tests::fixture::*};
use super::churn::{CHURN_SPAN, MAX_CHURN};
use super::*;
use crate::model::{
    ConnectionFault, ErrorCode, FailureCode, HubMessage, LeaveReason, MAX_NAME_CHARS, PeerState,
    Role, SourceKind, SourceState, Step, Topology,
};
use ParticipantState::{Connecting, Gone, Left, Live, Reconnecting, Unreachable};

/// A guest that is connected to `a`.
fn live() -> Stage {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a"))).state(1, PeerState::Connected);
    fixture
}

#[test]
fn the_participant_that_was_there_first_offers_at_once() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    assert_eq!(fixture.states(), [Connecting]);
    assert_eq!(fixture.opened_peers(), [1]);
    assert!(matches!(fixture.commands()[0], crate::model::PeerCommand::MakeOffer { .. }));
}

#[test]
fn a_new_participant_waits_for_an_offer_and_makes_one_after_three_seconds() {
    let mut absent = member("b");
    absent.presence = away(1000);
    let mut fixture = Stage::joined(MESH, vec![member("a"), absent]);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.pass_ms(2999);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.pass_ms(1);
    assert_eq!(fixture.opened_peers(), [1], "only to the participant that is present");
}

#[test]
fn an_offer_in_time_is_answered_and_none_is_made() {
    let mut fixture = Stage::joined(MESH, vec![member("a")]);
    fixture.hear(word("a", offer(1)));
    assert_eq!(fixture.opened_peers(), [1]);
    assert!(matches!(fixture.commands()[0], crate::model::PeerCommand::AcceptOffer { .. }));
    fixture.pass_ms(4000);
    assert_eq!(fixture.done, []);
}

#[test]
fn a_silent_participant_is_reconnecting_within_five_seconds_and_gone_after_ten() {
    // Silent from time 0: the connection reports it after 3 s, the hub after 3.5 s.
    let mut fixture = live();
    fixture.pass_ms(10_000);
    fixture.pass_ms(3000).state(1, PeerState::Disconnected);
    assert_eq!(fixture.shown("a"), Some(Live));
    fixture.pass_ms(500).hear(presence("a", away(3500)));
    assert_eq!(fixture.states(), [Reconnecting]);
    let since = fixture.now;
    fixture.pass_ms(6499);
    assert_eq!(fixture.shown("a"), Some(Reconnecting));
    assert_eq!(fixture.status().participants[0].since, since);
    fixture.pass_ms(1);
    assert_eq!((fixture.states(), fixture.closed_peers()), (vec![Gone], vec![1]));
    assert_eq!(fixture.status().participants[0].since, fixture.now);
    fixture.pass_ms(50_000);
    assert_eq!(fixture.shown("a"), Some(Gone), "only the hub gives up the seat");
    fixture.hear(left("a", LeaveReason::Lost));
    assert_eq!((fixture.states(), fixture.shown("a")), (vec![Left], None));
}

#[test]
fn a_participant_that_embedded_the_hub_is_removed_after_a_minute() {
    let mut fixture = live();
    fixture.pass_ms(10_000).down(&HubRef::Default).pass_ms(3000).state(1, PeerState::Disconnected);
    fixture.pass_ms(10_000);
    assert_eq!(fixture.shown("a"), Some(Gone));
    fixture.pass_ms(50_000);
    assert_eq!(fixture.shown("a"), Some(Gone), "a hub would still keep the seat");
    fixture.pass_ms(15_000);
    assert_eq!((fixture.states(), fixture.shown("a")), (vec![Left], None));
    fixture.up(&HubRef::Default).hear(opened(MESH, vec![member("a")]));
    assert_eq!(fixture.shown("a"), Some(Connecting), "the hub that is back reports it");
}

#[test]
fn a_participant_that_was_gone_is_connected_again() {
    let mut fixture = live();
    fixture.hear(presence("a", away(0))).pass_ms(3000).state(1, PeerState::Disconnected);
    fixture.pass_ms(20_000).hear(presence("a", Presence::Here));
    assert_eq!((fixture.states(), fixture.opened_peers()), (vec![Connecting], vec![2]));
    fixture.state(2, PeerState::Connected);
    assert_eq!(fixture.states(), [Live]);
}

#[test]
fn a_participant_with_running_media_is_live_whatever_the_hub_reports() {
    let mut fixture = live();
    fixture.hear(presence("a", away(3500))).pass_ms(59_000);
    assert_eq!((fixture.states(), fixture.shown("a")), (vec![], Some(Live)));
    fixture.hear(left("a", LeaveReason::Lost));
    assert_eq!((fixture.done.len(), fixture.shown("a")), (0, Some(Live)));
    fixture.state(1, PeerState::Disconnected);
    assert_eq!(fixture.states(), [Reconnecting]);
    fixture.pass_ms(10_000);
    assert_eq!(fixture.shown("a"), None);
}

#[test]
fn silent_media_of_a_present_participant_causes_an_ice_restart_and_then_a_replacement() {
    let mut fixture = live();
    fixture.pass_ms(60_000).state(1, PeerState::Disconnected);
    fixture.tell(1, described(1)).hear(word("a", answer(1))).tell(1, done(2));
    fixture.pass_ms(2000);
    assert_eq!(fixture.states(), [Reconnecting], "five seconds after the last packet");
    // We are polite (`m` is after `a`): the remote peer restarts first.
    fixture.pass_ms(2499);
    assert_eq!(fixture.commands().len(), 0);
    fixture.pass_ms(1);
    let restart = crate::model::PeerCommand::MakeOffer { step: Step(3), restart_ice: true };
    assert_eq!(fixture.commands(), [&restart]);
    fixture.pass_ms(2500);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.pass_ms(500);
    assert_eq!(fixture.opened_peers(), [2]);
    assert_eq!(fixture.shown("a"), Some(Reconnecting));
}

#[test]
fn a_short_silence_is_not_announced() {
    let mut fixture = live();
    fixture.state(1, PeerState::Disconnected).pass_ms(1000).state(1, PeerState::Connected);
    assert_eq!(fixture.states(), []);
    let sent = fixture.done.iter().any(|one| matches!(one, Effect::SetSending { .. }));
    assert!(!sent, "it was sending all the time");
}

#[test]
fn retries_back_off_and_the_failure_is_reported_once() {
    let mut fixture = live();
    let mut reports = 0;
    for (peer, pause) in (1..).zip([500, 1000, 2000, 4000, 8000, 8000]) {
        fixture.state(peer, PeerState::Failed);
        reports += fixture.failures().len();
        fixture.pass_ms(pause - 1);
        assert_eq!(fixture.opened_peers(), Vec::<u64>::new(), "before {pause} ms");
        fixture.pass_ms(1);
        assert_eq!(fixture.opened_peers(), [peer + 1], "after {pause} ms");
        assert_eq!(reports, usize::from(peer >= 3));
    }
    fixture.state(7, PeerState::Connected).state(7, PeerState::Failed).pass_ms(500);
    assert_eq!(fixture.opened_peers(), [8], "a success resets the count");
}

#[test]
fn a_failure_names_the_participant_and_the_way_out() {
    let mut fixture = live();
    for peer in 1..4 {
        fixture.state(peer, PeerState::Failed);
        if peer < 3 {
            fixture.pass_ms(1000);
        }
    }
    let failure = fixture.failures()[0];
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NotAgreed));
    assert!(failure.message.contains("to A in session \"s\""), "{}", failure.message);
}

/// Makes a connection of ours offer and the remote peer answer; both send a candidate.
fn agree(fixture: &mut Stage, peer: u64) {
    let named = |ip: &str| format!("v=0\r\na=candidate:1 1 udp 1 {ip} 9 typ host\r\n");
    let (kind, sdp) = (crate::model::DescriptionKind::Offer, named("192.168.5.7"));
    fixture.tell(peer, PeerEvent::Description { step: Step(1), kind, sdp });
    let Payload::Offer { generation, .. } = fixture.said()[0].clone() else { panic!("no offer") };
    fixture.hear(word("a", Payload::Answer { generation, sdp: named("192.168.5.8") }));
    fixture.tell(peer, PeerEvent::Done { step: Step(2) });
}

#[test]
fn a_participant_is_unreachable_ten_seconds_after_the_negotiation() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    fixture.pass_ms(2000);
    agree(&mut fixture, 1);
    fixture.pass_ms(9999);
    assert_eq!((fixture.failures().len(), fixture.shown("a")), (0, Some(Connecting)));
    fixture.pass_ms(1);
    let failure = fixture.failures()[0].clone();
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NoPairAnswered));
    assert!(failure.message.contains("to A in session \"s\""), "{}", failure.message);
    assert!(failure.message.contains("firewall"), "{}", failure.message);
    assert_eq!(fixture.states(), [Unreachable]);
    fixture.pass_ms(3500);
    assert_eq!(fixture.opened_peers(), [2], "it is retried");
    agree(&mut fixture, 2);
    fixture.pass_ms(14_000);
    assert_eq!(
        (fixture.failures().len(), fixture.shown("a")),
        (0, Some(Unreachable)),
        "reported once"
    );
    let mut peer = 2;
    while fixture.opened_peers().is_empty() {
        fixture.pass_ms(1000);
    }
    peer += 1;
    agree(&mut fixture, peer);
    fixture.state(peer, PeerState::Connected);
    assert_eq!(fixture.states(), [Live], "a later success is announced");
    fixture.state(peer, PeerState::Failed).pass_ms(500);
    agree(&mut fixture, peer + 1);
    fixture.pass_ms(10_000);
    assert_eq!(fixture.failures().len(), 1, "the next outage is reported");
    assert_eq!(
        fixture.shown("a"),
        Some(Reconnecting),
        "a participant that was connected is not unreachable"
    );
}

#[test]
fn an_attempt_that_fails_early_does_not_delay_the_report() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    agree(&mut fixture, 1);
    fixture.pass_ms(8000).state(1, PeerState::Failed).pass_ms(1999);
    assert_eq!(fixture.failures(), Vec::<&crate::model::Failure>::new());
    fixture.pass_ms(1);
    let fault = ConnectionFault::NoPairAnswered;
    assert_eq!(fixture.failures()[0].code, FailureCode::Connection(fault), "of the last attempt");
}

#[test]
fn a_participant_that_is_away_or_whose_hub_is_down_is_not_reported_as_unreachable() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    agree(&mut fixture, 1);
    fixture.hear(presence("a", away(3500))).pass_ms(20_000);
    assert_eq!((fixture.failures().len(), fixture.shown("a")), (0, Some(Gone)));
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    agree(&mut fixture, 1);
    fixture.down(&HubRef::Default).pass_ms(9000);
    assert_eq!(fixture.failures().len(), 0);
}

#[test]
fn ends_without_a_usable_pair_are_distinguished_from_pairs_that_do_not_answer() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a")));
    let sdp = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n".to_owned();
    let kind = crate::model::DescriptionKind::Offer;
    fixture.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
    fixture.hear(word("a", answer(1))).tell(1, PeerEvent::Done { step: Step(2) });
    let line = "candidate:1 1 udp 1 192.168.5.8 9 typ host".to_owned();
    let candidate = Payload::Candidate { generation: 1, candidate: line, mid: None, line: None };
    fixture.hear(word("a", candidate)).pass_ms(10_000);
    let failure = fixture.failures()[0];
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NoUsableAddress));
    assert!(failure.message.contains("in no network"), "{}", failure.message);
}

#[test]
fn a_connection_that_takes_too_long_or_fails_an_operation_is_replaced() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a"))).pass_ms(15_000);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.pass_ms(500);
    assert_eq!(fixture.opened_peers(), [2]);
    fixture.tell(2, PeerEvent::Refused { step: Step(1), reason: "no".into() });
    assert_eq!(fixture.closed_peers(), [2]);
}

#[test]
fn no_offer_is_made_to_a_participant_that_is_away() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a"))).hear(presence("a", away(3500)));
    fixture.state(1, PeerState::Failed).pass_ms(120_000);
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.hear(presence("a", Presence::Here));
    assert_eq!(fixture.opened_peers(), [2], "at once, without counting a failure");
    fixture.hear(presence("a", Presence::Here));
    assert_eq!(fixture.done, [], "nothing has changed");
}

#[test]
fn a_later_generation_replaces_ours_and_an_earlier_one_is_ignored() {
    let mut fixture = live();
    fixture.hear(word("a", offer(1)));
    assert_eq!(fixture.opened_peers(), Vec::<u64>::new());
    fixture.hear(word("a", offer(5)));
    assert_eq!((fixture.closed_peers(), fixture.opened_peers()), (vec![1], vec![2]));
    fixture.hear(word("a", offer(4))).hear(word("a", answer(6)));
    assert_eq!(fixture.done, []);
    fixture.state(2, PeerState::Failed).hear(word("a", offer(5)));
    assert_eq!(fixture.done, [], "that connection is closed");
    fixture.hear(word("a", offer(u32::MAX))).state(3, PeerState::Failed).pass_ms(9000);
    assert_eq!(fixture.opened_peers(), [4], "no overflow");
}

#[test]
fn a_remote_peer_cannot_have_connections_replaced_without_limit() {
    let mut fixture = live();
    let opened: usize = (2..1000)
        .map(|generation| fixture.hear(word("a", offer(generation))).opened_peers().len())
        .sum();
    assert_eq!(opened, MAX_CHURN as usize);
    fixture.pass(CHURN_SPAN).hear(word("a", offer(2000)));
    assert_eq!(fixture.opened_peers().len(), 1);
}

#[test]
fn a_new_instance_is_reconnected_and_the_same_instance_is_kept() {
    let mut fixture = live();
    fixture.hear(came(member("a")));
    assert_eq!((fixture.done.len(), fixture.said()), (1, vec![media(true, true)]));
    let mut restarted = member("a");
    restarted.instance = Instance::from_random(2);
    fixture.hear(came(restarted));
    assert_eq!((fixture.closed_peers(), fixture.opened_peers()), (vec![1], vec![2]));
    assert_eq!(fixture.states(), [Connecting]);
}

#[test]
fn a_participant_that_leaves_is_removed_at_once() {
    for reason in [LeaveReason::Left, LeaveReason::Ejected, LeaveReason::Replaced] {
        let mut fixture = live();
        fixture.hear(left("a", reason));
        assert_eq!((fixture.closed_peers(), fixture.states()), (vec![1], vec![Left]));
        let is_announced = |event: &&Event| matches!(event, Event::Participant { reason: Some(why), .. } if *why == reason);
        assert!(fixture.events().iter().any(is_announced), "with the reason");
    }
}

#[test]
fn a_refused_signal_does_not_end_the_session() {
    let mut fixture = live();
    fixture.hear(refusal(ErrorCode::NotAllowed));
    assert_eq!(fixture.done, []);
}

#[test]
fn a_hubs_message_is_shown_as_one_line_without_direction_characters() {
    let mut fixture = live();
    let message = format!("\u{202e}no\n\u{1b}[2J{}", "x".repeat(9000));
    fixture.hear(HubMessage::Error { code: ErrorCode::TooMany, message, session: None });
    let shown = &fixture.failures()[0].message;
    assert!(shown.contains("says: no [2Jxxx") && shown.chars().count() < 400, "{shown}");
    assert!(!shown.contains(['\u{202e}', '\n', '\u{1b}']), "{shown}");
}

#[test]
fn a_viewer_sees_the_opener_only_and_a_long_name_is_cut() {
    assert_eq!(BROADCAST.topology, Topology::OneWay);
    let mut opener = member("o");
    (opener.role, opener.name) = (Role::Opener, "ö".repeat(100));
    let mut fixture = Stage::joined(BROADCAST, vec![member("a"), opener]);
    let seen = fixture.status().participants;
    assert_eq!((seen.len(), &seen[0].participant), (1, &id("o")));
    assert_eq!(seen[0].name.chars().count(), MAX_NAME_CHARS);
    fixture.down(&HubRef::Default);
    assert_eq!(fixture.states(), [Reconnecting], "no media yet, and the hub is down");
}

fn described(operation: u32) -> PeerEvent {
    let kind = crate::model::DescriptionKind::Offer;
    PeerEvent::Description { step: Step(operation), kind, sdp: "mine".into() }
}

fn done(operation: u32) -> PeerEvent {
    PeerEvent::Done { step: Step(operation) }
}

fn answer(generation: u32) -> Payload {
    Payload::Answer { generation, sdp: "theirs".into() }
}

#[test]
fn a_connection_of_ours_is_newer_than_offers_that_were_not_admitted() {
    let mut fixture = live();
    for generation in 2..100 {
        fixture.hear(word("a", offer(generation)));
    }
    fixture.state(1 + u64::from(MAX_CHURN), PeerState::Failed).pass_ms(600);
    let peer = fixture.opened_peers()[0];
    fixture.tell(peer, described(1));
    let sent = format!("{:?}", fixture.sent());
    assert!(sent.contains("Offer { generation: 100,"), "{sent}");
}

#[test]
fn an_unanswered_offer_on_a_running_connection_is_made_again() {
    let mut fixture = live();
    fixture.tell(1, described(1));
    assert_eq!(fixture.sent().len(), 1);
    fixture.pass_ms(10_000);
    let rollback = crate::model::PeerCommand::Rollback { step: Step(2) };
    assert_eq!(fixture.commands(), [&rollback]);
    assert!(!fixture.done.contains(&Effect::ClosePeer(crate::model::PeerId(1))));
    fixture.hear(HubMessage::Pong);
    assert_eq!(fixture.done, []);
}

/// Negotiated media without these.
fn without(media: &[Media]) -> PeerEvent {
    let mut agreed = Agreement::default();
    media.iter().for_each(|media| agreed.leave_out(*media));
    PeerEvent::Agreed(agreed)
}

/// The media that the user was told are left out.
fn left_out(fixture: &Stage) -> Vec<Vec<Media>> {
    let announced = fixture.events().into_iter().filter_map(|event| {
        if let Event::LeftOut { media, .. } = event { Some(Vec::from(*media)) } else { None }
    });
    announced.collect()
}

#[test]
fn video_that_the_other_program_cannot_show_is_reported_once_and_not_signalled_as_sent() {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a"))).tell(1, without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
    assert_eq!(fixture.failures(), Vec::<&crate::model::Failure>::new());
    fixture.state(1, PeerState::Connected);
    let peer = crate::model::PeerId(1);
    assert!(fixture.done.contains(&Effect::SetSending { peer, audio: true, video: None }));
    let demand = Effect::Demand { camera: false, microphone: true, speaker: true };
    assert!(fixture.done.contains(&demand), "{:?}", fixture.done);
    assert_eq!(fixture.said(), [media(true, false)]);
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        fixture.give(Input::Source(kind, SourceState::Running));
    }
    let status = fixture.status();
    assert_eq!((status.heard, status.seen), (true, false));
    assert_eq!(status.participants[0].left_out, Some(Media::Video.into()));
    assert_eq!(fixture.shown("a"), Some(Live));
    // The same result is not announced again: not on this connection, not on the next one, and not
    // after it changed back.
    for again in [&[Media::Video][..], &[], &[Media::Video]] {
        fixture.tell(1, without(again));
        assert_eq!(fixture.events(), Vec::<&Event>::new());
    }
    fixture.state(1, PeerState::Failed).pass_ms(600).tell(2, without(&[Media::Video]));
    assert_eq!(left_out(&fixture), Vec::<Vec<Media>>::new());
    // The result of another program is announced.
    let mut restarted = member("a");
    restarted.instance = Instance::from_random(9);
    fixture.hear(came(restarted));
    assert_eq!(fixture.status().participants[0].left_out, None);
    fixture.tell(3, without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
}

#[test]
fn media_that_the_remote_peer_does_not_accept_is_not_signalled_as_sent() {
    let mut fixture = live();
    let mut agreed = Agreement::default();
    agreed.send_no(Media::Video);
    agreed.receive_no(Media::Video);
    fixture.tell(1, PeerEvent::Agreed(agreed));
    assert_eq!(left_out(&fixture), Vec::<Vec<Media>>::new(), "it may change its mind");
    assert_eq!(fixture.said(), [media(true, false)]);
    let peer = crate::model::PeerId(1);
    assert!(fixture.done.contains(&Effect::ExpectPictures { peer, expected: false }));
    fixture.tell(1, PeerEvent::Agreed(Agreement::default()));
    assert_eq!(fixture.said(), [media(true, true)]);
}

#[test]
fn without_common_media_the_connection_is_closed_and_the_network_is_not_blamed() {
    let kind = crate::model::SessionKind {
        media: crate::model::MediaSet::VIDEO,
        topology: Topology::ManyToMany,
    };
    let mut fixture = Stage::opened(kind);
    fixture.hear(came(member("a"))).tell(1, without(&[Media::Video]));
    assert_eq!(left_out(&fixture), [[Media::Video]]);
    assert_eq!(fixture.closed_peers(), [1]);
    fixture.pass_ms(120_000);
    assert_eq!((fixture.opened_peers(), fixture.failures().len()), (vec![], 0));
    let shown = &fixture.status().participants[0];
    assert_eq!((shown.state, shown.peer), (Connecting, None));
    assert_eq!(shown.left_out, Some(Media::Video.into()));
    fixture.hear(word("a", offer(2)));
    assert_eq!(fixture.opened_peers(), [2], "it may offer something else");
}

#[test]
fn a_text_to_a_program_without_chat_is_reported_as_undelivered() {
    let media = crate::model::MediaSet::AUDIO.with(Media::Data);
    let kind = crate::model::SessionKind { media, topology: Topology::ManyToMany };
    let mut fixture = Stage::opened(kind);
    fixture.hear(came(member("a"))).tell(1, without(&[Media::Data]));
    fixture.state(1, PeerState::Connected);
    let text = ChatText::new("hello").unwrap();
    fixture.give(Input::Command(crate::model::Command::Say { session: session(), text }));
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
    fixture.hear(renamed("a", "Grace"));
    assert_eq!(fixture.done, [Effect::Announce(renamed_event("A", "Grace"))]);
    assert_eq!(fixture.status().participants[0].name, "Grace");
    fixture.hear(renamed("a", "Grace")).hear(renamed("stranger", "Grace"));
    assert_eq!(fixture.done, []);
    // An older hub reports a new name this way, after the participant comes back.
    fixture.hear(came(member("a")));
    assert_eq!(fixture.events(), [&renamed_event("Grace", "A")], "not as a new participant");
    assert_eq!((fixture.closed_peers(), fixture.shown("a")), (vec![], Some(Live)));
}
