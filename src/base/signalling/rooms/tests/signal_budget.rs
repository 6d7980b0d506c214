//! The limits of signals, and what exceeding them costs the sender.

use super::*;
use crate::model::{MAX_SDP_BYTES, Payload};

const SECTION: &str = "m=audio";

fn offer(bytes: usize) -> Payload {
    let sdp = format!("{SECTION}{}", "v".repeat(bytes - SECTION.len()));
    Payload::Offer { generation: 1, sdp }
}

fn candidate() -> Payload {
    let candidate = "candidate:1 1 udp 2130706431 192.168.1.5 50000 typ host".to_owned();
    Payload::Candidate { generation: 1, candidate, mid: Some("0".into()), line: Some(0) }
}

fn media() -> Payload {
    Payload::Media { microphone: true, camera: true, tracks: None, wants: None }
}

fn signal(id: &str, to: u8, payload: Payload) -> ClientMessage {
    ClientMessage::Signal { session: session(id), to: participant_id(to), payload: payload.into() }
}

/// How many of these signals in a row are relayed to participant 1 before one is refused.
fn count_relayed(hub: &mut Fixture, connection: u64, payload: &Payload) -> usize {
    let mut send_one = || hub.send(connection, signal("a", 1, payload.clone()));
    (0..10_000).take_while(|_| send_one()[0].starts_with("1: signal a")).count()
}

/// Participants 1, 2 and 3 in a session `a`, opened by 1.
fn three_members(kind: SessionKind) -> Fixture {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", kind);
    hub.join(2, "a");
    hub.join(3, "a");
    hub
}

#[test]
fn a_sender_has_128_signals_at_once_and_20_a_second_for_each_receiver() {
    let mut hub = three_members(MESH);
    assert_eq!(count_relayed(&mut hub, 2, &candidate()), 128);
    assert_eq!(hub.send(2, signal("a", 3, candidate())), ["3: signal a 2"], "another receiver");
    assert_eq!(count_relayed(&mut hub, 3, &candidate()), 128, "another sender");
    hub.advance(1000, &[1, 2, 3]);
    assert_eq!(count_relayed(&mut hub, 2, &candidate()), 20);
}

#[test]
fn a_sender_has_256_kib_at_once_and_32_kib_a_second_for_each_receiver() {
    let mut hub = three_members(BROADCAST);
    assert_eq!(
        count_relayed(&mut hub, 2, &offer(MAX_SDP_BYTES)),
        7,
        "eight with their other fields do not fit"
    );
    assert_eq!(hub.send(2, signal("a", 1, candidate())), ["1: signal a 2"], "a short one fits");
    assert_eq!(count_relayed(&mut hub, 3, &offer(MAX_SDP_BYTES)), 7);
    hub.advance(3000, &[1, 2, 3]);
    assert_eq!(count_relayed(&mut hub, 2, &offer(MAX_SDP_BYTES)), 3);
}

#[test]
fn the_budget_counts_all_sessions_of_a_pair_and_outlives_a_connection_and_a_seat() {
    let mut hub = three_members(MESH);
    hub.open(1, "b", MESH);
    hub.join(2, "b");
    assert_eq!(count_relayed(&mut hub, 2, &candidate()), 128);
    assert_eq!(hub.send(2, signal("b", 1, candidate())), ["2: too-many b"]);
    for id in ["a", "b"] {
        hub.leave(2, id);
    }
    hub.close_connection(2);
    hub.hello(12, 2);
    hub.join(12, "a");
    assert_eq!(hub.send(12, signal("a", 1, candidate())), ["12: too-many a"]);
}

#[test]
fn media_messages_are_relayed_64_times_at_once_and_four_times_a_second() {
    let mut hub = three_members(MESH);
    assert_eq!(count_relayed(&mut hub, 2, &media()), 64);
    assert_eq!(
        hub.send(2, signal("a", 1, candidate())),
        ["1: signal a 2"],
        "another kind of signal has its own budget"
    );
    hub.advance(2000, &[1, 2, 3]);
    assert_eq!(count_relayed(&mut hub, 2, &media()), 8);
}

#[test]
fn the_sender_gets_an_error_and_is_closed_at_the_tenth_and_the_receiver_stays_connected() {
    let mut hub = three_members(MESH);
    count_relayed(&mut hub, 2, &candidate());
    for _ in 2..10 {
        assert_eq!(hub.send(2, signal("a", 1, candidate())), ["2: too-many a"]);
    }
    assert_eq!(
        hub.send(2, signal("a", 1, candidate())),
        ["2: too-many a", "2: disconnect as misbehaving", "1: a 2 away 0", "3: a 2 away 0",]
    );
    assert_eq!(
        hub.send(2, ClientMessage::Ping),
        Vec::<String>::new(),
        "the connection is not known any more"
    );
    assert_eq!(hub.send(1, ClientMessage::Ping), ["1: pong"]);
    hub.hello(12, 2);
    let returned = hub.join(12, "a").pop().unwrap();
    assert!(returned.starts_with("12: joined a guest"), "its seat was reserved: {returned}");
}

#[test]
fn nine_refusals_are_forgotten_after_a_minute_without_one() {
    let mut hub = three_members(MESH);
    for _ in 0..5 {
        count_relayed(&mut hub, 2, &candidate());
        for _ in 2..10 {
            assert_eq!(hub.send(2, signal("a", 1, candidate())), ["2: too-many a"]);
        }
        hub.advance(60_000, &[1, 2, 3]);
    }
}

#[test]
fn malformed_signals_are_not_relayed_and_their_sender_is_closed_at_the_tenth() {
    let mut hub = three_members(MESH);
    let payloads = [
        Payload::Offer { generation: 0, sdp: SECTION.into() },
        Payload::Offer { generation: 1, sdp: "v=0\r\ns=-\r\n".into() },
        Payload::Answer { generation: 1, sdp: "x".repeat(MAX_SDP_BYTES) },
    ];
    for payload in payloads.iter().cycle().take(9) {
        assert_eq!(hub.send(2, signal("a", 1, payload.clone())), ["2: bad-message a"]);
    }
    assert_eq!(count_relayed(&mut hub, 2, &candidate()), 128, "refused signals cost no budget");
    assert_eq!(hub.rooms.edge.connections.len(), 2, "the refusal was the tenth");
}

#[test]
fn a_signal_that_does_not_fit_into_the_receivers_outbox_is_refused_to_its_sender() {
    let mut hub = three_members(MESH);
    let overfull = || RoomsInput::OutboxFull { from: participant_id(2), session: session("a") };
    for _ in 1..10 {
        assert_eq!(hub.handle(overfull()), ["2: too-many a"]);
    }
    assert_eq!(hub.handle(overfull())[1], "2: disconnect as misbehaving");
    assert_eq!(
        hub.handle(overfull()),
        Vec::<String>::new(),
        "a closed connection gets no more errors"
    );
}

#[test]
fn new_tokens_give_an_address_no_larger_budget() {
    let mut hub = three_members(BROADCAST);
    let mut bytes = 0;
    for participant in 10..60 {
        let connection = u64::from(participant);
        hub.hello_from(connection, participant, Some(SourceAddress(7)));
        hub.join(connection, "a");
        bytes += count_relayed(&mut hub, connection, &offer(MAX_SDP_BYTES)) * MAX_SDP_BYTES;
        hub.leave(connection, "a");
    }
    assert!((900 * 1024..1024 * 1024).contains(&bytes), "{bytes}");
    hub.hello_from(99, 99, Some(SourceAddress(8)));
    hub.join(99, "a");
    assert_eq!(count_relayed(&mut hub, 99, &offer(MAX_SDP_BYTES)), 7, "another address");
    hub.hello(98, 98);
    hub.join(98, "a");
    assert_eq!(count_relayed(&mut hub, 98, &offer(MAX_SDP_BYTES)), 7, "the hub's own machine");
}

#[test]
fn usual_bursts_are_far_below_the_limits() {
    // Twelve participants join five meshes at once, and each pair makes a connection in each of
    // them: a description of 6 KiB, the `media` message, 16 candidates and their end.
    let ids = ["a", "b", "c", "d", "e"];
    let mut hub = Fixture::with(12);
    for id in ids {
        hub.open(1, id, MESH);
        for connection in 2..=12 {
            hub.join(connection, id);
        }
    }
    let mut relayed = 0;
    for (from, to) in (1..=12).flat_map(|from| (1..=12).map(move |to| (from, to))) {
        for id in ids.iter().filter(|_| from != to) {
            let payloads = [offer(6 * 1024), media()].into_iter();
            for payload in payloads.chain(std::iter::repeat_n(candidate(), 17)) {
                let lines = hub.send(from, signal(id, to as u8, payload));
                assert_eq!(lines, [format!("{to}: signal {id} {from}")]);
                relayed += 1;
            }
        }
    }
    assert_eq!(relayed, 12 * 11 * 5 * 19);
    // A hundred viewers of a broadcast at once.
    let mut hub = Fixture::with(101);
    hub.open(1, "a", BROADCAST);
    for viewer in 2..=101 {
        hub.join(viewer, "a");
        for payload in [offer(6 * 1024), media(), candidate()] {
            assert_eq!(hub.send(1, signal("a", viewer as u8, payload.clone())).len(), 1);
            assert_eq!(
                hub.send(viewer, signal("a", 1, payload))[0],
                format!("1: signal a {viewer}")
            );
        }
    }
}
