//! Silence, closed connections, returns, names.

use super::*;

fn pair() -> Fixture {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", MESH);
    hub.join(2, "a");
    hub
}

#[test]
fn a_silent_participant_is_away_within_four_seconds_and_here_again_at_its_next_message() {
    let mut hub = pair();
    assert_eq!(hub.advance(3_499, &[1]), Vec::<String>::new());
    assert_eq!(hub.advance(1, &[1]), ["1: a 2 away 3500"]);
    assert_eq!(hub.advance(5_000, &[1]), Vec::<String>::new(), "others are notified once");
    assert_eq!(hub.send(2, ClientMessage::Ping), ["1: a 2 here", "2: pong"]);
    assert_eq!(hub.advance(3_499, &[1]), Vec::<String>::new());
    assert_eq!(hub.advance(1, &[1]), ["1: a 2 away 3500"], "the silence is measured anew");
}

#[test]
fn a_message_that_is_not_for_the_rooms_shows_that_the_client_is_alive() {
    let mut hub = pair();
    hub.advance(4_000, &[1]);
    assert_eq!(hub.handle(RoomsInput::KeepAlive { connection: ConnectionId(2) }), ["1: a 2 here"]);
    assert_eq!(
        hub.handle(RoomsInput::KeepAlive { connection: ConnectionId(9) }),
        Vec::<String>::new()
    );
}

#[test]
fn a_participant_that_pings_at_every_heartbeat_is_never_away() {
    let mut hub = pair();
    for _ in 0..100 {
        hub.send(2, ClientMessage::Ping);
        let heartbeat = crate::signalling::rooms::edge::HEARTBEAT.as_millis() as u64;
        assert_eq!(hub.advance(heartbeat, &[1]), Vec::<String>::new());
    }
}

#[test]
fn a_connection_that_is_silent_for_ten_seconds_is_closed() {
    let mut hub = pair();
    assert_eq!(hub.advance(9_999, &[1]), ["1: a 2 away 3500"]);
    assert_eq!(hub.advance(1, &[1]), ["2: disconnect as silent"]);
    assert_eq!(
        hub.send(2, ClientMessage::Ping),
        Vec::<String>::new(),
        "the connection is not known any more"
    );
    assert_eq!(hub.close_connection(2), Vec::<String>::new());
}

#[test]
fn the_next_deadline_names_its_timer() {
    let mut hub = pair();
    let (at, connection) = (hub.now + Duration::from_millis(3_500), ConnectionId(1));
    assert_eq!(hub.rooms.poll_timeout(), Some((at, RoomsTimer::Silence { connection })));
    hub.close_connection(1);
    hub.close_connection(2);
    let at = hub.now + Duration::from_secs(60);
    let (session, participant) = (&session("a"), &participant_id(1));
    let timer = RoomsTimer::SeatExpiry { session, participant };
    assert_eq!(hub.rooms.poll_timeout(), Some((at, timer)));
}

#[test]
fn a_seat_is_given_up_sixty_seconds_after_the_silence_began() {
    let mut hub = pair();
    hub.advance(59_999, &[1]);
    assert_eq!(hub.advance(1, &[1]), ["1: out a 2 Lost"]);
    assert!(!hub.rooms.edge.participants.contains_key(&participant_id(2)));
}

#[test]
fn a_closed_connection_is_away_at_once_and_its_seat_is_reserved_for_sixty_seconds() {
    let mut hub = pair();
    assert_eq!(hub.close_connection(2), ["1: a 2 away 0"]);
    assert_eq!(hub.advance(59_999, &[1]), Vec::<String>::new());
    assert_eq!(hub.advance(1, &[1]), ["1: out a 2 Lost"]);
}

#[test]
fn a_silence_that_ends_with_a_close_counts_from_its_beginning() {
    let mut hub = pair();
    hub.advance(5_000, &[1]);
    assert_eq!(hub.close_connection(2), Vec::<String>::new(), "the others were notified before");
    assert_eq!(hub.advance(54_999, &[1]), Vec::<String>::new());
    assert_eq!(hub.advance(1, &[1]), ["1: out a 2 Lost"]);
}

#[test]
fn the_same_program_reclaims_its_seat_and_is_here() {
    let mut hub = pair();
    hub.close_connection(2);
    hub.advance(30_000, &[1]);
    assert_eq!(hub.hello(12, 2), ["12: welcome 2 P2"]);
    assert_eq!(hub.join(12, "a"), ["1: a 2 here", "12: joined a guest [1#1 opener here]"]);
    assert_eq!(hub.advance(120_000, &[1, 12]), Vec::<String>::new(), "the seat is not given up");
}

#[test]
fn a_restarted_program_reclaims_its_seat_as_a_new_instance() {
    let mut hub = pair();
    hub.close_connection(1);
    hub.hello_as(11, 1, ("P1", 7));
    assert_eq!(
        hub.send(11, open("a", MESH, None, Some(1))),
        ["2: in a 1#7 opener here", "11: opened a limit 12 key 1 [2#2 guest here]"]
    );
}

#[test]
fn a_seat_that_a_returned_participant_does_not_reclaim_is_given_up() {
    let mut hub = pair();
    hub.close_connection(2);
    hub.hello(12, 2);
    assert_eq!(hub.advance(60_000, &[1, 12]), ["1: out a 2 Lost"]);
    assert_eq!(hub.join(12, "a")[0], "12: joined a guest [1#1 opener here]");
}

#[test]
fn a_returned_participant_gets_no_message_about_a_seat_it_has_not_reclaimed() {
    let mut hub = pair();
    hub.close_connection(2);
    hub.hello(12, 2);
    hub.hello(3, 3);
    assert_eq!(
        hub.join(3, "a"),
        ["3: joined a guest [1#1 opener here, 2#2 guest away 0]", "1: in a 3#3 guest here"]
    );
    assert_eq!(hub.leave(12, "a"), ["1: out a 2 Left", "3: out a 2 Left"], "it can still leave");
}

#[test]
fn a_new_connection_replaces_a_half_open_one() {
    let mut hub = pair();
    hub.advance(2_000, &[1]);
    assert_eq!(
        hub.hello(12, 2),
        ["2: not-allowed", "2: disconnect", "1: a 2 away 2000", "12: welcome 2 P2"]
    );
    assert_eq!(hub.send(2, ClientMessage::Leave { session: session("a") }), Vec::<String>::new());
    assert_eq!(
        hub.close_connection(2),
        Vec::<String>::new(),
        "the old connection is not known any more"
    );
    assert_eq!(hub.join(12, "a")[0], "1: a 2 here");
}

#[test]
fn a_roster_shows_which_members_are_away_and_for_how_long() {
    let mut hub = pair();
    hub.hello(3, 3);
    hub.advance(4_000, &[1, 3]);
    assert_eq!(hub.join(3, "a")[0], "3: joined a guest [1#1 opener here, 2#2 guest away 4000]");
}

#[test]
fn presence_is_sent_in_every_shared_session_and_to_nobody_else() {
    let mut hub = Fixture::with(4);
    hub.open(1, "a", MESH);
    hub.open(1, "b", BROADCAST);
    hub.join(2, "a");
    hub.join(3, "b");
    assert_eq!(hub.close_connection(1), ["2: a 1 away 0", "3: b 1 away 0"]);
}

#[test]
fn a_name_is_cleaned_trimmed_and_cut() {
    let mut hub = Fixture::new();
    assert_eq!(hub.hello_as(1, 1, (" A\u{7}n\nn \u{202e}", 1)), ["1: welcome 1 Ann"]);
    let long = "ä".repeat(80);
    assert_eq!(hub.hello_as(2, 2, (&long, 1)), [format!("2: welcome 2 {}", "ä".repeat(64))]);
    let coder = "👩\u{200d}💻";
    assert_eq!(hub.hello_as(3, 3, (coder, 1)), [format!("3: welcome 3 {coder}")], "one emoji");
}

#[test]
fn a_guest_without_a_name_keeps_one_number_while_the_hub_knows_it() {
    let mut hub = Fixture::new();
    assert_eq!(hub.hello_as(1, 1, (" ", 1)), ["1: welcome 1 Guest 1"]);
    assert_eq!(hub.hello_as(2, 2, ("\u{0}\u{200b}\u{3164}\u{2800}", 1)), ["2: welcome 2 Guest 2"]);
    hub.open(1, "a", MESH);
    hub.close_connection(1);
    assert_eq!(hub.hello_as(11, 1, ("", 2)), ["11: welcome 1 Guest 1"]);
    assert_eq!(hub.hello_as(12, 2, ("", 2)).last().unwrap(), "12: welcome 2 Guest 2");
    hub.close_connection(12);
    assert_eq!(hub.hello_as(22, 2, ("", 2)), ["22: welcome 2 Guest 3"], "the guest was forgotten");
}

#[test]
fn a_guest_number_survives_a_restart_of_the_hub_and_is_unique() {
    let mut hub = Fixture::new();
    assert_eq!(
        hub.hello_as(1, 1, ("Guest 2", 1)),
        ["1: welcome 1 Guest 2"],
        "the number of an earlier run"
    );
    assert_eq!(hub.hello_as(2, 2, ("Guest 2", 1)), ["2: welcome 2 Guest 3"], "the number is taken");
    assert_eq!(hub.hello_as(3, 3, ("Guest 1", 1)), ["3: welcome 3 Guest 1"]);
    assert_eq!(
        hub.hello_as(4, 4, ("", 1)),
        ["4: welcome 4 Guest 4"],
        "a number that was never used"
    );
    hub.open(4, "a", MESH);
    assert_eq!(hub.hello_as(14, 4, ("Guest 1", 1)).last().unwrap(), "14: welcome 4 Guest 4");
    let vast = "Guest 18446744073709551615";
    assert_eq!(hub.hello_as(5, 5, (vast, 1)), [format!("5: welcome 5 {vast}")], "a name");
    assert_eq!(hub.hello_as(6, 6, ("", 1)), ["6: welcome 6 Guest 5"]);
}

#[test]
fn a_new_name_is_sent_when_the_seat_is_reclaimed() {
    let mut hub = pair();
    hub.close_connection(2);
    hub.hello_as(12, 2, ("Zoe", 2));
    hub.rooms.handle(
        RoomsInput::Message {
            connection: ConnectionId(12),
            message: ClientMessage::Join { session: session("a"), wait: false },
        },
        hub.now,
    );
    let Some(RoomsOutput::Send { connections, message }) = hub.rooms.poll_output() else {
        panic!("the other member is notified first");
    };
    assert_eq!(connections, [ConnectionId(1)]);
    let HubMessage::ParticipantJoined { participant, .. } = message else {
        panic!("{message:?}");
    };
    assert_eq!(participant.name, "Zoe");
}

#[test]
fn the_welcome_carries_what_a_client_needs() {
    let mut hub = Fixture::new();
    let token = Secret::from_random([5; 16]);
    let hello = RoomsInput::Hello {
        connection: ConnectionId(1),
        participant: participant_id(5),
        token: token.clone(),
        name: "Eve".into(),
        instance: Instance::from_random(1),
        link_base: "http://192.168.1.5:7340".into(),
        source: None,
        is_own: false,
    };
    hub.rooms.handle(hello, hub.now);
    let message = HubMessage::Welcome {
        protocol: 1,
        participant: participant_id(5),
        name: "Eve".into(),
        token,
        heartbeat_ms: 1500,
        link_base: "http://192.168.1.5:7340".into(),
    };
    assert_eq!(
        hub.rooms.poll_output(),
        Some(RoomsOutput::Send { connections: vec![ConnectionId(1)], message })
    );
}

fn rename(name: &str) -> ClientMessage {
    ClientMessage::Rename { name: name.to_owned() }
}

#[test]
fn a_new_name_is_sent_to_paired_members_and_changes_nothing_else() {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", MESH);
    hub.join(2, "a");
    hub.open(1, "b", BROADCAST);
    hub.join(2, "b");
    hub.join(3, "b");
    assert_eq!(
        hub.send(2, rename(" Grace\n ")),
        ["2: renamed Grace", "1: a 2 is Grace", "1: b 2 is Grace"]
    );
    assert_eq!(
        hub.send(2, rename("Grace")),
        ["2: renamed Grace"],
        "the same name is not sent again"
    );
    assert_eq!(
        hub.send(1, rename("")),
        ["1: renamed Guest 1", "2: a 1 is Guest 1", "2: b 1 is Guest 1", "3: b 1 is Guest 1"]
    );
    assert_eq!(hub.send(1, rename("Guest 7")), ["1: renamed Guest 1"], "a number is given once");
}

#[test]
fn a_new_name_is_used_when_a_seat_is_reclaimed_later() {
    let mut hub = pair();
    hub.close_connection(2);
    hub.hello(12, 2);
    assert_eq!(
        hub.send(12, rename("Grace")),
        ["12: renamed Grace"],
        "the seat is not reclaimed yet"
    );
    let lines = hub.join(12, "a");
    assert_eq!(lines, ["1: in a 2#2 guest here", "12: joined a guest [1#1 opener here]"]);
}

#[test]
fn a_name_is_not_changed_more_often_than_people_do() {
    let mut hub = pair();
    for index in 0..10 {
        assert_eq!(hub.send(2, rename(&format!("N{index}"))).len(), 2);
    }
    assert_eq!(hub.send(2, rename("N11")), ["2: too-many"]);
    hub.advance(10_000, &[1, 2]);
    assert_eq!(hub.send(2, rename("N12")).len(), 2);
}

#[test]
fn guests_are_those_in_sessions_that_the_hubs_own_user_has_opened() {
    let mut hub = Fixture::new();
    let host = Instance::from_random(1);
    let count = |hub: &mut Fixture| hub.rooms.have_seats_changed().then(|| hub.rooms.guests(&host));
    let mut own = hello(1, 1, ("P1", 1), None);
    if let RoomsInput::Hello { is_own, .. } = &mut own {
        *is_own = true;
    }
    hub.handle(own);
    for number in 2..=5 {
        hub.hello(number, number as u8);
    }
    hub.open(1, "own", MESH);
    assert_eq!(count(&mut hub), Some(0), "the host is not a guest");
    hub.open(2, "theirs", MESH);
    hub.join(3, "theirs");
    hub.wait(4, "nowhere");
    assert_eq!(count(&mut hub), Some(0), "participants of other sessions do not count");
    hub.join(2, "own");
    hub.join(3, "own");
    assert_eq!(count(&mut hub), Some(2));
    hub.send(2, ClientMessage::Ping);
    hub.send(4, ClientMessage::Ping);
    assert_eq!(count(&mut hub), None, "messages that change no seat are not counted");
    hub.leave(1, "own");
    assert_eq!(count(&mut hub), Some(2), "the guests stay in the session");
    hub.close_connection(2);
    assert_eq!(count(&mut hub), Some(1));
    hub.leave(3, "own");
    hub.advance(61_000, &[3, 4, 5]);
    assert_eq!(count(&mut hub), Some(0));
    assert!(hub.rooms.home.own_sessions.is_empty());
}
