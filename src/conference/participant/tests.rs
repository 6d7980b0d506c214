use super::super::{Effect, HubRef, Input, stage::*};
use super::churn::{CHURN_SPAN, MAX_CHURN};
use super::*;
use crate::model::{
    ConnectionFault, ErrorCode, FailureCode, HubMessage, LeaveReason, MAX_NAME_CHARS, PeerState,
    Role, SourceKind, SourceState, Step, Topology,
};
use ParticipantState::{Connecting, Gone, Left, Live, Reconnecting, Unreachable};

/// A guest whose connection to `a` runs.
fn live() -> Stage {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a"))).state(1, PeerState::Connected);
    stage
}

#[test]
fn who_was_there_offers_to_the_newcomer_at_once() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    assert_eq!(stage.states(), [Connecting]);
    assert_eq!(stage.opened_peers(), [1]);
    assert!(matches!(stage.commands()[0], crate::model::PeerCommand::MakeOffer { .. }));
}

#[test]
fn a_newcomer_waits_for_an_offer_and_makes_one_after_three_seconds() {
    let mut absent = member("b");
    absent.presence = away(1000);
    let mut stage = Stage::joined(MESH, vec![member("a"), absent]);
    assert_eq!(stage.opened_peers(), Vec::<u64>::new());
    stage.pass_ms(2999);
    assert_eq!(stage.opened_peers(), Vec::<u64>::new());
    stage.pass_ms(1);
    assert_eq!(stage.opened_peers(), [1], "to who is here only");
}

#[test]
fn an_offer_in_time_is_answered_and_nothing_is_offered() {
    let mut stage = Stage::joined(MESH, vec![member("a")]);
    stage.hear(word("a", offer(1)));
    assert_eq!(stage.opened_peers(), [1]);
    assert!(matches!(stage.commands()[0], crate::model::PeerCommand::AcceptOffer { .. }));
    stage.pass_ms(4000);
    assert_eq!(stage.done, []);
}

#[test]
fn who_is_silent_is_reconnecting_within_five_seconds_and_gone_at_ten() {
    // Silent at the time 0: the connection tells after 3 s, the hub after 3.5 s.
    let mut stage = live();
    stage.pass_ms(10_000);
    stage.pass_ms(3000).state(1, PeerState::Disconnected);
    assert_eq!(stage.shown("a"), Some(Live));
    stage.pass_ms(500).hear(presence("a", away(3500)));
    assert_eq!(stage.states(), [Reconnecting]);
    let since = stage.now;
    stage.pass_ms(6499);
    assert_eq!(stage.shown("a"), Some(Reconnecting));
    assert_eq!(stage.status().participants[0].since, since);
    stage.pass_ms(1);
    assert_eq!((stage.states(), stage.closed_peers()), (vec![Gone], vec![1]));
    assert_eq!(stage.status().participants[0].since, stage.now);
    stage.pass_ms(50_000);
    assert_eq!(stage.shown("a"), Some(Gone), "the seat is the hub's to give up");
    stage.hear(left("a", LeaveReason::Lost));
    assert_eq!((stage.states(), stage.shown("a")), (vec![Left], None));
}

#[test]
fn who_took_the_hub_along_is_no_ghost_after_a_minute() {
    let mut stage = live();
    stage.pass_ms(10_000).down(&HubRef::Default).pass_ms(3000).state(1, PeerState::Disconnected);
    stage.pass_ms(10_000);
    assert_eq!(stage.shown("a"), Some(Gone));
    stage.pass_ms(50_000);
    assert_eq!(stage.shown("a"), Some(Gone), "a hub would keep the seat");
    stage.pass_ms(15_000);
    assert_eq!((stage.states(), stage.shown("a")), (vec![Left], None));
    stage.up(&HubRef::Default).hear(opened(MESH, vec![member("a")]));
    assert_eq!(stage.shown("a"), Some(Connecting), "the hub that is back knows better");
}

#[test]
fn who_is_gone_and_comes_back_is_connected_anew() {
    let mut stage = live();
    stage.hear(presence("a", away(0))).pass_ms(3000).state(1, PeerState::Disconnected);
    stage.pass_ms(20_000).hear(presence("a", Presence::Here));
    assert_eq!((stage.states(), stage.opened_peers()), (vec![Connecting], vec![2]));
    stage.state(2, PeerState::Connected);
    assert_eq!(stage.states(), [Live]);
}

#[test]
fn running_media_makes_somebody_live_whatever_the_hub_says() {
    let mut stage = live();
    stage.hear(presence("a", away(3500))).pass_ms(59_000);
    assert_eq!((stage.states(), stage.shown("a")), (vec![], Some(Live)));
    stage.hear(left("a", LeaveReason::Lost));
    assert_eq!((stage.done.len(), stage.shown("a")), (0, Some(Live)));
    stage.state(1, PeerState::Disconnected);
    assert_eq!(stage.states(), [Reconnecting]);
    stage.pass_ms(10_000);
    assert_eq!(stage.shown("a"), None);
}

#[test]
fn silent_media_of_somebody_here_is_restarted_and_then_replaced() {
    let mut stage = live();
    stage.pass_ms(60_000).state(1, PeerState::Disconnected);
    stage.tell(1, described(1)).hear(word("a", answer(1))).tell(1, done(2));
    stage.pass_ms(2000);
    assert_eq!(stage.states(), [Reconnecting], "five seconds after the last packet");
    // We are polite (`m` is after `a`): the other end restarts first.
    stage.pass_ms(2499);
    assert_eq!(stage.commands().len(), 0);
    stage.pass_ms(1);
    let restart = crate::model::PeerCommand::MakeOffer { step: Step(3), restart_ice: true };
    assert_eq!(stage.commands(), [&restart]);
    stage.pass_ms(2500);
    assert_eq!(stage.closed_peers(), [1]);
    stage.pass_ms(500);
    assert_eq!(stage.opened_peers(), [2]);
    assert_eq!(stage.shown("a"), Some(Reconnecting));
}

#[test]
fn a_short_silence_is_no_news() {
    let mut stage = live();
    stage.state(1, PeerState::Disconnected).pass_ms(1000).state(1, PeerState::Connected);
    assert_eq!(stage.states(), []);
    let sent = stage.done.iter().any(|one| matches!(one, Effect::SetSending { .. }));
    assert!(!sent, "it was fed all the time");
}

#[test]
fn failures_are_followed_by_longer_and_longer_pauses_and_told_once() {
    let mut stage = live();
    let mut told = 0;
    for (peer, pause) in (1..).zip([500, 1000, 2000, 4000, 8000, 8000]) {
        stage.state(peer, PeerState::Failed);
        told += stage.failures().len();
        stage.pass_ms(pause - 1);
        assert_eq!(stage.opened_peers(), Vec::<u64>::new(), "before {pause} ms");
        stage.pass_ms(1);
        assert_eq!(stage.opened_peers(), [peer + 1], "after {pause} ms");
        assert_eq!(told, usize::from(peer >= 3));
    }
    stage.state(7, PeerState::Connected).state(7, PeerState::Failed).pass_ms(500);
    assert_eq!(stage.opened_peers(), [8], "a success begins the count anew");
}

#[test]
fn a_failure_names_the_person_and_the_way_out() {
    let mut stage = live();
    for peer in 1..4 {
        stage.state(peer, PeerState::Failed);
        if peer < 3 {
            stage.pass_ms(1000);
        }
    }
    let failure = stage.failures()[0];
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NotAgreed));
    assert!(failure.message.contains("to A in session \"s\""), "{}", failure.message);
}

/// Has a connection of ours offer, and the other end answer; both name an address.
fn agree(stage: &mut Stage, peer: u64) {
    let named = |ip: &str| format!("v=0\r\na=candidate:1 1 udp 1 {ip} 9 typ host\r\n");
    let (kind, sdp) = (crate::model::DescriptionKind::Offer, named("192.168.5.7"));
    stage.tell(peer, PeerEvent::Description { step: Step(1), kind, sdp });
    let Payload::Offer { generation, .. } = stage.said()[0].clone() else { panic!("no offer") };
    stage.hear(word("a", Payload::Answer { generation, sdp: named("192.168.5.8") }));
    stage.tell(peer, PeerEvent::Done { step: Step(2) });
}

#[test]
fn who_has_agreed_and_is_not_connected_is_unreachable_after_ten_seconds() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    stage.pass_ms(2000);
    agree(&mut stage, 1);
    stage.pass_ms(9999);
    assert_eq!((stage.failures().len(), stage.shown("a")), (0, Some(Connecting)));
    stage.pass_ms(1);
    let failure = stage.failures()[0].clone();
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NoPairAnswered));
    assert!(failure.message.contains("to A in session \"s\""), "{}", failure.message);
    assert!(failure.message.contains("firewall"), "{}", failure.message);
    assert_eq!(stage.states(), [Unreachable]);
    stage.pass_ms(3500);
    assert_eq!(stage.opened_peers(), [2], "it is tried again");
    agree(&mut stage, 2);
    stage.pass_ms(14_000);
    assert_eq!((stage.failures().len(), stage.shown("a")), (0, Some(Unreachable)), "told once");
    let mut peer = 2;
    while stage.opened_peers().is_empty() {
        stage.pass_ms(1000);
    }
    peer += 1;
    agree(&mut stage, peer);
    stage.state(peer, PeerState::Connected);
    assert_eq!(stage.states(), [Live], "a later success is told as well");
    stage.state(peer, PeerState::Failed).pass_ms(500);
    agree(&mut stage, peer + 1);
    stage.pass_ms(10_000);
    assert_eq!(stage.failures().len(), 1, "the next outage is told");
    assert_eq!(stage.shown("a"), Some(Reconnecting), "who was connected is not unreachable");
}

#[test]
fn an_attempt_that_fails_early_does_not_put_off_the_telling() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    agree(&mut stage, 1);
    stage.pass_ms(8000).state(1, PeerState::Failed).pass_ms(1999);
    assert_eq!(stage.failures(), Vec::<&crate::model::Failure>::new());
    stage.pass_ms(1);
    let fault = ConnectionFault::NoPairAnswered;
    assert_eq!(stage.failures()[0].code, FailureCode::Connection(fault), "of the last attempt");
}

#[test]
fn who_is_away_or_behind_a_hub_that_is_down_is_not_told_to_be_unreachable() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    agree(&mut stage, 1);
    stage.hear(presence("a", away(3500))).pass_ms(20_000);
    assert_eq!((stage.failures().len(), stage.shown("a")), (0, Some(Gone)));
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    agree(&mut stage, 1);
    stage.down(&HubRef::Default).pass_ms(9000);
    assert_eq!(stage.failures().len(), 0);
}

#[test]
fn ends_without_a_pair_of_addresses_are_told_from_those_that_do_not_answer() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a")));
    let sdp = "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n".to_owned();
    let kind = crate::model::DescriptionKind::Offer;
    stage.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
    stage.hear(word("a", answer(1))).tell(1, PeerEvent::Done { step: Step(2) });
    let line = "candidate:1 1 udp 1 192.168.5.8 9 typ host".to_owned();
    let candidate = Payload::Candidate { generation: 1, candidate: line, mid: None, line: None };
    stage.hear(word("a", candidate)).pass_ms(10_000);
    let failure = stage.failures()[0];
    assert_eq!(failure.code, FailureCode::Connection(ConnectionFault::NoUsableAddress));
    assert!(failure.message.contains("in no network"), "{}", failure.message);
}

#[test]
fn a_connection_that_takes_too_long_or_refuses_a_step_is_replaced() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a"))).pass_ms(15_000);
    assert_eq!(stage.closed_peers(), [1]);
    stage.pass_ms(500);
    assert_eq!(stage.opened_peers(), [2]);
    stage.tell(2, PeerEvent::Refused { step: Step(1), reason: "no".into() });
    assert_eq!(stage.closed_peers(), [2]);
}

#[test]
fn nobody_who_cannot_hear_is_offered_anything() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a"))).hear(presence("a", away(3500)));
    stage.state(1, PeerState::Failed).pass_ms(120_000);
    assert_eq!(stage.opened_peers(), Vec::<u64>::new());
    stage.hear(presence("a", Presence::Here));
    assert_eq!(stage.opened_peers(), [2], "at once, and no failure of ours");
    stage.hear(presence("a", Presence::Here));
    assert_eq!(stage.done, [], "nothing has changed");
}

#[test]
fn a_later_generation_replaces_ours_and_an_earlier_one_is_void() {
    let mut stage = live();
    stage.hear(word("a", offer(1)));
    assert_eq!(stage.opened_peers(), Vec::<u64>::new());
    stage.hear(word("a", offer(5)));
    assert_eq!((stage.closed_peers(), stage.opened_peers()), (vec![1], vec![2]));
    stage.hear(word("a", offer(4))).hear(word("a", answer(6)));
    assert_eq!(stage.done, []);
    stage.state(2, PeerState::Failed).hear(word("a", offer(5)));
    assert_eq!(stage.done, [], "that connection is over");
    stage.hear(word("a", offer(u32::MAX))).state(3, PeerState::Failed).pass_ms(9000);
    assert_eq!(stage.opened_peers(), [4], "no overflow");
}

#[test]
fn a_stranger_cannot_have_connections_replaced_without_end() {
    let mut stage = live();
    let opened: usize = (2..1000)
        .map(|generation| stage.hear(word("a", offer(generation))).opened_peers().len())
        .sum();
    assert_eq!(opened, MAX_CHURN as usize);
    stage.pass(CHURN_SPAN).hear(word("a", offer(2000)));
    assert_eq!(stage.opened_peers().len(), 1);
}

#[test]
fn another_instance_has_crashed_and_the_same_one_is_left_alone() {
    let mut stage = live();
    stage.hear(came(member("a")));
    assert_eq!((stage.done.len(), stage.said()), (1, vec![media(true, true)]));
    let mut reborn = member("a");
    reborn.instance = Instance::from_random(2);
    stage.hear(came(reborn));
    assert_eq!((stage.closed_peers(), stage.opened_peers()), (vec![1], vec![2]));
    assert_eq!(stage.states(), [Connecting]);
}

#[test]
fn who_leaves_is_out_at_once() {
    for reason in [LeaveReason::Left, LeaveReason::Ejected, LeaveReason::Replaced] {
        let mut stage = live();
        stage.hear(left("a", reason));
        assert_eq!((stage.closed_peers(), stage.states()), (vec![1], vec![Left]));
        let told = |event: &&Event| matches!(event, Event::Participant { reason: Some(told), .. } if *told == reason);
        assert!(stage.events().iter().any(told), "and why");
    }
}

#[test]
fn a_refusal_in_the_middle_of_a_session_ends_nothing() {
    let mut stage = live();
    stage.hear(refusal(ErrorCode::NotAllowed));
    assert_eq!(stage.done, []);
}

#[test]
fn what_a_hub_says_is_shown_in_one_line_and_turns_nothing() {
    let mut stage = live();
    let message = format!("\u{202e}no\n\u{1b}[2J{}", "x".repeat(9000));
    stage.hear(HubMessage::Error { code: ErrorCode::TooMany, message, session: None });
    let told = &stage.failures()[0].message;
    assert!(told.contains("says: no [2Jxxx") && told.chars().count() < 400, "{told}");
    assert!(!told.contains(['\u{202e}', '\n', '\u{1b}']), "{told}");
}

#[test]
fn a_viewer_sees_the_opener_only_and_a_long_name_is_cut() {
    assert_eq!(BROADCAST.topology, Topology::OneWay);
    let mut opener = member("o");
    (opener.role, opener.name) = (Role::Opener, "ö".repeat(100));
    let mut stage = Stage::joined(BROADCAST, vec![member("a"), opener]);
    let seen = stage.status().participants;
    assert_eq!((seen.len(), &seen[0].participant), (1, &id("o")));
    assert_eq!(seen[0].name.chars().count(), MAX_NAME_CHARS);
    stage.down(&HubRef::Default);
    assert_eq!(stage.states(), [Reconnecting], "never heard, and the hub is silent");
}

fn described(step: u32) -> PeerEvent {
    let kind = crate::model::DescriptionKind::Offer;
    PeerEvent::Description { step: Step(step), kind, sdp: "mine".into() }
}

fn done(step: u32) -> PeerEvent {
    PeerEvent::Done { step: Step(step) }
}

fn answer(generation: u32) -> Payload {
    Payload::Answer { generation, sdp: "theirs".into() }
}

#[test]
fn a_connection_of_ours_is_newer_than_offers_that_were_not_admitted() {
    let mut stage = live();
    for generation in 2..100 {
        stage.hear(word("a", offer(generation)));
    }
    stage.state(1 + u64::from(MAX_CHURN), PeerState::Failed).pass_ms(600);
    let peer = stage.opened_peers()[0];
    stage.tell(peer, described(1));
    let sent = format!("{:?}", stage.sent());
    assert!(sent.contains("Offer { generation: 100,"), "{sent}");
}

#[test]
fn an_offer_that_nobody_answers_on_a_running_connection_is_repeated() {
    let mut stage = live();
    stage.tell(1, described(1));
    assert_eq!(stage.sent().len(), 1);
    stage.pass_ms(10_000);
    let rollback = crate::model::PeerCommand::Rollback { step: Step(2) };
    assert_eq!(stage.commands(), [&rollback]);
    assert!(!stage.done.contains(&Effect::ClosePeer(crate::model::PeerId(1))));
    stage.hear(HubMessage::Pong);
    assert_eq!(stage.done, []);
}

/// What was agreed on without those media.
fn without(media: &[Media]) -> PeerEvent {
    let mut agreed = Agreement::default();
    media.iter().for_each(|media| agreed.leave_out(*media));
    PeerEvent::Agreed(agreed)
}

/// What people were told to be left out.
fn left_out(stage: &Stage) -> Vec<Vec<Media>> {
    let told = stage.events().into_iter().filter_map(|event| {
        if let Event::LeftOut { media, .. } = event { Some(Vec::from(*media)) } else { None }
    });
    told.collect()
}

#[test]
fn a_picture_that_the_other_program_cannot_show_is_told_once_and_not_claimed_to_be_sent() {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a"))).tell(1, without(&[Media::Video]));
    assert_eq!(left_out(&stage), [[Media::Video]]);
    assert_eq!(stage.failures(), Vec::<&crate::model::Failure>::new());
    stage.state(1, PeerState::Connected);
    let peer = crate::model::PeerId(1);
    assert!(stage.done.contains(&Effect::SetSending { peer, audio: true, video: None }));
    let demand = Effect::Demand { camera: false, microphone: true, speaker: true };
    assert!(stage.done.contains(&demand), "{:?}", stage.done);
    assert_eq!(stage.said(), [media(true, false)]);
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        stage.give(Input::Source(kind, SourceState::Running));
    }
    let status = stage.status();
    assert_eq!((status.heard, status.seen), (true, false));
    assert_eq!(status.participants[0].left_out, Some(Media::Video.into()));
    assert_eq!(stage.shown("a"), Some(Live));
    // An agreement that changes nothing is no news, nor is the next connection's, nor is one that
    // changes back.
    for again in [&[Media::Video][..], &[], &[Media::Video]] {
        stage.tell(1, without(again));
        assert_eq!(stage.events(), Vec::<&Event>::new());
    }
    stage.state(1, PeerState::Failed).pass_ms(600).tell(2, without(&[Media::Video]));
    assert_eq!(left_out(&stage), Vec::<Vec<Media>>::new());
    // Another program is.
    let mut reborn = member("a");
    reborn.instance = Instance::from_random(9);
    stage.hear(came(reborn));
    assert_eq!(stage.status().participants[0].left_out, None);
    stage.tell(3, without(&[Media::Video]));
    assert_eq!(left_out(&stage), [[Media::Video]]);
}

#[test]
fn what_the_other_end_does_not_take_is_not_claimed_to_be_sent_either() {
    let mut stage = live();
    let mut agreed = Agreement::default();
    agreed.send_no(Media::Video);
    agreed.receive_no(Media::Video);
    stage.tell(1, PeerEvent::Agreed(agreed));
    assert_eq!(left_out(&stage), Vec::<Vec<Media>>::new(), "it may change its mind");
    assert_eq!(stage.said(), [media(true, false)]);
    let peer = crate::model::PeerId(1);
    assert!(stage.done.contains(&Effect::ExpectPictures { peer, expected: false }));
    stage.tell(1, PeerEvent::Agreed(Agreement::default()));
    assert_eq!(stage.said(), [media(true, true)]);
}

#[test]
fn where_nothing_is_left_the_connection_is_closed_and_the_network_is_not_blamed() {
    let kind = crate::model::SessionKind {
        media: crate::model::MediaSet::VIDEO,
        topology: Topology::ManyToMany,
    };
    let mut stage = Stage::opened(kind);
    stage.hear(came(member("a"))).tell(1, without(&[Media::Video]));
    assert_eq!(left_out(&stage), [[Media::Video]]);
    assert_eq!(stage.closed_peers(), [1]);
    stage.pass_ms(120_000);
    assert_eq!((stage.opened_peers(), stage.failures().len()), (vec![], 0));
    let shown = &stage.status().participants[0];
    assert_eq!((shown.state, shown.peer), (Connecting, None));
    assert_eq!(shown.left_out, Some(Media::Video.into()));
    stage.hear(word("a", offer(2)));
    assert_eq!(stage.opened_peers(), [2], "it may offer something else");
}

#[test]
fn what_is_said_to_somebody_whose_program_has_no_chat_is_told_to_be_lost() {
    let media = crate::model::MediaSet::AUDIO.with(Media::Data);
    let kind = crate::model::SessionKind { media, topology: Topology::ManyToMany };
    let mut stage = Stage::opened(kind);
    stage.hear(came(member("a"))).tell(1, without(&[Media::Data]));
    stage.state(1, PeerState::Connected);
    let text = ChatText::new("hello").unwrap();
    stage.give(Input::Command(crate::model::Command::Say { session: session(), text }));
    let lost = |event: &&&Event| matches!(event, Event::Undelivered { count: 1, .. });
    assert_eq!(stage.events().iter().filter(lost).count(), 1, "{:?}", stage.events());
}

fn renamed(who: &str, name: &str) -> HubMessage {
    let (session, participant, name) = (session(), id(who), name.to_owned());
    HubMessage::ParticipantRenamed { session, participant, name }
}

#[test]
fn a_new_name_is_told_and_touches_neither_media_nor_what_is_said_of_it() {
    let mut stage = live();
    let told = |before: &str, name: &str| Event::Renamed {
        session: session(),
        participant: id("a"),
        before: before.to_owned(),
        name: name.to_owned(),
    };
    stage.hear(renamed("a", "Grace"));
    assert_eq!(stage.done, [Effect::Announce(told("A", "Grace"))]);
    assert_eq!(stage.status().participants[0].name, "Grace");
    stage.hear(renamed("a", "Grace")).hear(renamed("stranger", "Grace"));
    assert_eq!(stage.done, []);
    // An older hub tells it this way, after a return.
    stage.hear(came(member("a")));
    assert_eq!(stage.events(), [&told("Grace", "A")], "not as somebody who came");
    assert_eq!((stage.closed_peers(), stage.shown("a")), (vec![], Some(Live)));
}
