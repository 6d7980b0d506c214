//! Ejecting with exclusion, and locking.

use super::*;

/// Participants 1, 2 and 3 in a session `a`, opened by 1; 2 has the address 7, 3 the address 8.
fn three_members(kind: SessionKind) -> Fixture {
    let mut hub = Fixture::with(1);
    hub.open(1, "a", kind);
    for (participant, source) in [(2, 7), (3, 8)] {
        hub.hello_from(u64::from(participant), participant, Some(SourceAddress(source)));
        hub.join(u64::from(participant), "a");
    }
    hub
}

fn eject(participant: u8, address: bool) -> ClientMessage {
    ClientMessage::Eject {
        session: session("a"),
        participant: participant_id(participant),
        address,
    }
}

fn allow(participant: u8) -> ClientMessage {
    ClientMessage::Allow { session: session("a"), participant: participant_id(participant) }
}

fn lock(locked: bool) -> ClientMessage {
    ClientMessage::Lock { session: session("a"), locked }
}

#[test]
fn an_ejected_participant_is_excluded_for_ten_minutes_and_the_owner_is_notified() {
    let mut hub = three_members(MESH);
    assert_eq!(
        hub.send(1, eject(2, false)),
        [
            "2: closed a Ejected",
            "1: out a 2 Ejected",
            "3: out a 2 Ejected",
            "1: access a open [2 600000]",
        ]
    );
    assert_eq!(hub.join(2, "a"), ["2: not-allowed a"]);
    assert_eq!(hub.wait(2, "a"), ["2: not-allowed a"]);
    hub.advance(599_999, &[1, 2, 3]);
    assert_eq!(hub.join(2, "a"), ["2: not-allowed a"]);
    hub.advance(1, &[1, 2, 3]);
    assert!(hub.join(2, "a")[0].starts_with("2: joined a guest"));
}

#[test]
fn a_new_token_of_the_same_program_is_excluded_and_another_program_is_not() {
    let mut hub = three_members(BROADCAST);
    hub.send(1, eject(2, false));
    hub.hello_as(12, 12, ("Somebody else", 2));
    assert_eq!(hub.join(12, "a"), ["12: not-allowed a"], "its instance is the same");
    hub.hello_from(13, 13, Some(SourceAddress(7)));
    assert!(hub.join(13, "a")[0].starts_with("13: joined a"), "its address alone is not");
}

#[test]
fn an_address_is_excluded_if_the_owner_asks_for_it_but_never_the_hubs_own_machine() {
    let mut hub = three_members(BROADCAST);
    hub.hello(4, 4);
    hub.join(4, "a");
    hub.send(1, eject(2, true));
    hub.send(1, eject(4, true));
    hub.hello_from(13, 13, Some(SourceAddress(7)));
    assert_eq!(hub.join(13, "a"), ["13: not-allowed a"]);
    hub.hello_from(14, 14, Some(SourceAddress(9)));
    assert!(hub.join(14, "a")[0].starts_with("14: joined a"), "another address");
    hub.hello(15, 15);
    assert!(hub.join(15, "a")[0].starts_with("15: joined a"), "the hub's own machine");
    assert!(hub.leave(3, "a")[0].starts_with("1: out a 3"), "members with a seat keep it");
}

#[test]
fn only_the_owner_allows_an_ejected_participant_again() {
    let mut hub = three_members(MESH);
    hub.send(1, eject(2, false));
    assert_eq!(hub.send(3, allow(2)), ["3: not-allowed a"]);
    assert_eq!(hub.send(2, allow(2)), ["2: not-allowed a"]);
    assert_eq!(hub.send(1, allow(2)), ["1: access a open []"]);
    assert!(hub.join(2, "a")[0].starts_with("2: joined a guest"));
}

#[test]
fn a_locked_session_takes_no_new_member_and_keeps_its_members() {
    let mut hub = three_members(MESH);
    hub.hello(4, 4);
    assert_eq!(hub.send(2, lock(true)), ["2: not-allowed a"]);
    assert_eq!(hub.send(1, lock(true)), ["1: access a locked []"]);
    assert_eq!(hub.join(4, "a"), ["4: session-full a"]);
    hub.close_connection(2);
    hub.hello(12, 2);
    let returned = hub.join(12, "a").pop().unwrap();
    assert!(returned.starts_with("12: joined a guest"), "its seat was reserved: {returned}");
    assert_eq!(hub.send(1, lock(false)), ["1: access a open []"]);
    assert!(hub.join(4, "a")[0].starts_with("4: joined a guest"));
}

#[test]
fn the_owner_of_a_session_is_told_which_participants_are_excluded() {
    let mut hub = three_members(MESH);
    hub.send(1, lock(true));
    hub.send(1, eject(3, false));
    hub.close_connection(1);
    hub.hello(11, 1);
    let lines = hub.send(11, open("a", MESH, None, None));
    assert_eq!(lines[2], "11: access a locked [3 600000]", "{lines:?}");
    let lines = hub.leave(11, "a");
    assert_eq!(
        lines[1..],
        ["2: owner a 2 key 2", "2: access a locked [3 600000]"],
        "the successor"
    );
}

#[test]
fn the_last_64_ejected_participants_are_excluded() {
    let mut hub = Fixture::with(1);
    hub.open(1, "a", BROADCAST);
    for participant in 2..=70 {
        hub.hello(u64::from(participant), participant);
        hub.join(u64::from(participant), "a");
        hub.send(1, eject(participant, false));
    }
    for participant in 2..=70_u8 {
        let lines = hub.join(u64::from(participant), "a");
        assert_eq!(lines[0].contains("joined"), participant <= 6, "{participant}: {lines:?}");
    }
}
