//! Leaving, closing, ejecting, and successors.

use super::*;

/// Participants 1, 2 and 3 in a session `a`, opened by 1.
fn three_members(kind: SessionKind) -> Fixture {
    let mut hub = Fixture::with(3);
    hub.open(1, "a", kind);
    hub.join(2, "a");
    hub.join(3, "a");
    hub
}

#[test]
fn a_member_that_leaves_is_removed_at_once() {
    let mut hub = three_members(MESH);
    assert_eq!(hub.leave(2, "a"), ["1: out a 2 Left", "3: out a 2 Left"]);
    assert_eq!(hub.leave(2, "a"), Vec::<String>::new(), "leaving twice is no error");
    assert_eq!(hub.leave(2, "never-open"), Vec::<String>::new());
    assert_eq!(hub.join(2, "a")[0], "2: joined a guest [1#1 opener here, 3#3 guest here]");
}

#[test]
fn the_first_member_takes_over_a_mesh_and_alone_gets_the_new_key() {
    let mut hub = three_members(MESH);
    assert_eq!(
        hub.leave(1, "a"),
        ["2: out a 1 Left", "3: out a 1 Left", "2: owner a 2 key 2", "3: owner a 2 no key",]
    );
    hub.hello(4, 4);
    assert_eq!(hub.join(4, "a")[0], "4: joined a guest [2#2 opener here, 3#3 guest here]");
    assert_eq!(hub.send(1, open("a", MESH, None, Some(1))), ["1: id-taken a"], "the key is void");
}

#[test]
fn a_member_that_is_here_takes_over_before_an_earlier_one_that_is_away() {
    let mut hub = three_members(MESH);
    hub.close_connection(2);
    let lines = hub.leave(1, "a");
    assert_eq!(lines, ["3: out a 1 Left", "3: owner a 3 key 2"]);
}

#[test]
fn an_absent_successor_gets_the_key_when_it_returns() {
    let mut hub = three_members(MESH);
    hub.close_connection(2);
    hub.close_connection(3);
    hub.leave(1, "a");
    hub.hello(12, 2);
    assert_eq!(
        hub.join(12, "a"),
        ["12: joined a opener [3#3 guest away 0]", "12: owner a 2 key 2"]
    );
}

#[test]
fn a_mesh_without_members_ends() {
    let mut hub = Fixture::with(2);
    hub.open(1, "a", MESH);
    hub.leave(1, "a");
    assert_eq!(hub.join(2, "a"), ["2: no-such-session a"]);
    assert!(hub.rooms.home.sessions.is_empty());
}

#[test]
fn other_topologies_close_with_their_opener() {
    for topology in [Topology::OneWay, Topology::OneToMany] {
        let mut hub = three_members(kind_of(topology));
        assert_eq!(hub.leave(1, "a"), ["2: closed a OpenerLeft", "3: closed a OpenerLeft"]);
        assert!(hub.rooms.home.sessions.is_empty());
        assert!(hub.rooms.edge.participants.values().all(|record| !record.has_seats));
    }
    let mut hub = Fixture::with(2);
    hub.open(1, "a", kind_of(Topology::OneToOne));
    hub.join(2, "a");
    assert_eq!(hub.leave(1, "a"), ["2: closed a OpenerLeft"]);
}

#[test]
fn only_the_owner_closes_a_session_for_everybody() {
    let mut hub = three_members(MESH);
    let close = || ClientMessage::Close { session: session("a") };
    hub.hello(4, 4);
    assert_eq!(hub.send(2, close()), ["2: not-allowed a"]);
    assert_eq!(hub.send(4, close()), ["4: not-allowed a"]);
    assert_eq!(
        hub.send(1, close()),
        ["1: closed a Closed", "2: closed a Closed", "3: closed a Closed"]
    );
    assert_eq!(hub.send(1, close()), ["1: no-such-session a"]);
}

#[test]
fn only_the_owner_ejects_a_member() {
    let mut hub = three_members(MESH);
    let eject = |participant| {
        let (session, participant) = (session("a"), participant_id(participant));
        ClientMessage::Eject { session, participant, address: false }
    };
    assert_eq!(hub.send(2, eject(3)), ["2: not-allowed a"]);
    assert_eq!(hub.send(1, eject(1)), ["1: not-allowed a"]);
    assert_eq!(
        hub.send(1, eject(3)),
        [
            "3: closed a Ejected",
            "1: out a 3 Ejected",
            "2: out a 3 Ejected",
            "1: access a open [3 600000]",
        ]
    );
    assert_eq!(
        hub.send(1, eject(3)),
        Vec::<String>::new(),
        "an ejected participant has no seat to lose"
    );
}

#[test]
fn a_successor_has_the_rights_of_an_owner_and_the_former_owner_has_none() {
    let mut hub = three_members(MESH);
    hub.leave(1, "a");
    hub.join(1, "a");
    let close = || ClientMessage::Close { session: session("a") };
    assert_eq!(hub.send(1, close()), ["1: not-allowed a"]);
    assert_eq!(hub.send(2, close()).len(), 3);
}

#[test]
fn a_lost_opener_is_succeeded_or_its_session_ends() {
    let mut mesh = three_members(MESH);
    mesh.close_connection(1);
    assert_eq!(
        mesh.advance(61_000, &[2, 3]),
        ["2: out a 1 Lost", "3: out a 1 Lost", "2: owner a 2 key 2", "3: owner a 2 no key",]
    );
    let mut broadcast = three_members(BROADCAST);
    broadcast.close_connection(1);
    assert_eq!(
        broadcast.advance(61_000, &[2, 3]),
        ["2: closed a OpenerLost", "3: closed a OpenerLost"]
    );
}

#[test]
fn when_all_members_are_lost_the_rooms_are_empty() {
    for kind in [MESH, BROADCAST] {
        let mut hub = three_members(kind);
        hub.advance(75_000, &[]);
        assert!(hub.rooms.home.sessions.is_empty() && hub.rooms.edge.participants.is_empty());
        assert!(hub.rooms.edge.connections.is_empty() && hub.rooms.poll_timeout().is_none());
        assert_eq!(hub.rooms.poll_timeout(), None);
    }
}
