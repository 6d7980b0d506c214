//! Opening a session, reclaiming a seat, joining, and waiting.

use super::*;

#[test]
fn a_free_id_opens_with_a_fresh_key_and_the_kinds_own_limit() {
    let mut hub = Fixture::with(1);
    assert_eq!(hub.open(1, "a", MESH), ["1: opened a limit 12 key 1 []"]);
    assert_eq!(hub.open(1, "b", BROADCAST), ["1: opened b limit 256 key 2 []"]);
}

#[test]
fn a_key_of_an_earlier_hub_opens_a_free_id_with_a_fresh_key() {
    let mut hub = Fixture::with(1);
    assert_eq!(hub.send(1, open("a", MESH, None, Some(77))), ["1: opened a limit 12 key 1 []"]);
}

#[test]
fn a_taken_id_is_refused_without_its_key() {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", MESH);
    assert_eq!(hub.open(2, "a", MESH), ["2: id-taken a"]);
    assert_eq!(hub.send(2, open("a", MESH, None, Some(9))), ["2: id-taken a"]);
}

#[test]
fn a_limit_outside_the_range_of_the_kind_is_refused() {
    let mut hub = Fixture::with(1);
    for (limit, kind) in [(1, MESH), (0, MESH), (13, MESH), (3, kind_of(Topology::OneToOne))] {
        assert_eq!(
            hub.send(1, open("a", kind, Some(limit), None)),
            ["1: bad-message a"],
            "{limit}"
        );
    }
    for limit in [2, 12] {
        let opened = hub.send(1, open(&format!("a{limit}"), MESH, Some(limit), None));
        assert!(opened[0].starts_with(&format!("1: opened a{limit} limit {limit} ")), "{opened:?}");
    }
}

#[test]
fn an_owner_that_opens_again_gets_the_same_key_and_nobody_is_notified() {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", MESH);
    hub.join(2, "a");
    let again = ["1: opened a limit 12 key 1 [2#2 guest here]"];
    assert_eq!(hub.open(1, "a", MESH), again);
    assert_eq!(hub.send(1, open("a", MESH, None, Some(1))), again);
}

#[test]
fn an_owner_that_joins_is_still_the_opener_and_gets_the_key() {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", BROADCAST);
    hub.join(2, "a");
    hub.close_connection(1);
    hub.hello(11, 1);
    assert_eq!(
        hub.join(11, "a"),
        ["2: a 1 here", "11: joined a opener [2#2 guest here]", "11: owner a 1 key 1"]
    );
}

#[test]
fn a_session_is_not_reclaimed_as_another_kind() {
    let mut hub = Fixture::with(1);
    hub.open(1, "a", MESH);
    assert_eq!(hub.send(1, open("a", BROADCAST, None, Some(1))), ["1: id-taken a"]);
}

#[test]
fn the_owner_key_makes_another_participant_the_owner_and_changes() {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", BROADCAST);
    hub.join(2, "a");
    assert_eq!(
        hub.send(3, open("a", BROADCAST, None, Some(1))),
        [
            "1: closed a Replaced",
            "2: out a 1 Replaced",
            "3: opened a limit 256 key 2 [2#2 guest here]",
            "2: in a 3#3 opener here",
        ]
    );
    assert_eq!(hub.send(1, open("a", BROADCAST, None, Some(1))), ["1: id-taken a"]);
}

#[test]
fn a_guest_with_the_owner_key_becomes_the_opener() {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", MESH);
    hub.join(2, "a");
    hub.join(3, "a");
    assert_eq!(
        hub.send(3, open("a", MESH, None, Some(1))),
        [
            "1: closed a Replaced",
            "2: out a 1 Replaced",
            "3: opened a limit 12 key 2 [2#2 guest here]",
            "2: in a 3#3 opener here",
        ]
    );
    assert_eq!(
        hub.join(1, "a"),
        [
            "1: joined a guest [3#3 opener here, 2#2 guest here]",
            "3: in a 1#1 guest here",
            "2: in a 1#1 guest here",
        ]
    );
}

#[test]
fn a_mesh_member_and_a_newcomer_learn_of_each_other() {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", MESH);
    assert_eq!(hub.join(2, "a"), ["2: joined a guest [1#1 opener here]", "1: in a 2#2 guest here"]);
    assert_eq!(
        hub.join(3, "a"),
        [
            "3: joined a guest [1#1 opener here, 2#2 guest here]",
            "1: in a 3#3 guest here",
            "2: in a 3#3 guest here",
        ]
    );
}

#[test]
fn a_viewer_never_learns_of_another_viewer() {
    for topology in [Topology::OneWay, Topology::OneToMany] {
        let mut hub = Fixture::with(3);
        hub.open(1, "a", kind_of(topology));
        hub.join(2, "a");
        assert_eq!(
            hub.join(3, "a"),
            ["3: joined a guest [1#1 opener here]", "1: in a 3#3 guest here"]
        );
        assert_eq!(hub.close_connection(3), ["1: a 3 away 0"]);
        hub.hello_as(13, 3, ("P3", 99));
        assert_eq!(
            hub.join(13, "a"),
            ["1: in a 3#63 guest here", "13: joined a guest [1#1 opener here]"]
        );
        assert_eq!(hub.leave(13, "a"), ["1: out a 3 Left"]);
    }
}

#[test]
fn joining_twice_is_answered_twice_and_others_are_notified_once() {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", MESH);
    hub.join(2, "a");
    assert_eq!(hub.join(2, "a"), ["2: joined a guest [1#1 opener here]"]);
}

#[test]
fn a_full_session_refuses_even_while_a_seat_is_only_reserved() {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", kind_of(Topology::OneToOne));
    hub.join(2, "a");
    assert_eq!(hub.join(3, "a"), ["3: session-full a"]);
    hub.close_connection(2);
    assert_eq!(hub.join(3, "a"), ["3: session-full a"]);
    hub.advance(61_000, &[1, 3]);
    assert_eq!(hub.join(3, "a")[0], "3: joined a guest [1#1 opener here]");
}

#[test]
fn a_session_that_is_not_open_fails_at_once_or_is_waited_for() {
    let mut hub = Fixture::with(2);
    assert_eq!(hub.join(2, "a"), ["2: no-such-session a"]);
    assert_eq!(hub.wait(2, "a"), ["2: waiting a"]);
    assert_eq!(hub.wait(2, "a"), ["2: waiting a"]);
    assert_eq!(
        hub.open(1, "a", MESH),
        [
            "1: opened a limit 12 key 1 []",
            "2: joined a guest [1#1 opener here]",
            "1: in a 2#2 guest here",
        ]
    );
    assert!(hub.rooms.home.waiting.is_empty());
}

#[test]
fn waiting_participants_join_in_order_until_the_session_is_full() {
    let mut hub = Fixture::with(3);
    hub.wait(3, "a");
    hub.wait(2, "a");
    assert_eq!(
        hub.open(1, "a", kind_of(Topology::OneToOne)),
        [
            "1: opened a limit 2 key 1 []",
            "3: joined a guest [1#1 opener here]",
            "1: in a 3#3 guest here",
            "2: session-full a",
        ]
    );
}

#[test]
fn a_wait_ends_with_leave_with_join_without_wait_with_open_and_with_the_connection() {
    let mut hub = Fixture::with(2);
    hub.wait(2, "a");
    assert_eq!(hub.leave(2, "a"), Vec::<String>::new());
    hub.wait(2, "a");
    assert_eq!(hub.join(2, "a"), ["2: no-such-session a"]);
    hub.wait(2, "a");
    hub.close_connection(2);
    hub.wait(1, "a");
    assert_eq!(hub.open(1, "a", MESH), ["1: opened a limit 12 key 1 []"]);
    assert!(
        hub.rooms.home.waiting.is_empty()
            && !hub.rooms.edge.participants.contains_key(&participant_id(2))
    );
    assert!(hub.rooms.home.members[&participant_id(1)].waiting_for.is_empty());
}
