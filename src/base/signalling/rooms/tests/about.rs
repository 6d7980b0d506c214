//! What a session tells those who have not joined it.

use super::*;

#[test]
fn an_open_session_tells_its_kind_and_those_whom_a_guest_would_meet() {
    let mut hub = Fixture::with(4);
    for (id, kind) in [("mesh", MESH), ("broadcast", BROADCAST)] {
        hub.open(1, id, kind);
        hub.join(2, id);
        hub.join(3, id);
    }
    let about = |kind: SessionKind, present| SessionAbout {
        open: true,
        kind: Some(kind),
        limit: kind.default_limit(),
        present,
        full: false,
    };
    assert_eq!(hub.rooms.about(&session("mesh")), about(MESH, 3));
    // A guest does not learn of other guests.
    assert_eq!(hub.rooms.about(&session("broadcast")), about(BROADCAST, 1));
}

#[test]
fn a_session_without_a_free_seat_is_full_and_so_is_a_locked_one() {
    let mut hub = Fixture::with(3);
    hub.send(1, open("a", MESH, Some(2), None));
    assert!(!hub.rooms.about(&session("a")).full);
    hub.join(2, "a");
    assert!(hub.rooms.about(&session("a")).full);
    hub.open(3, "b", MESH);
    hub.send(3, ClientMessage::Lock { session: session("b"), locked: true });
    assert!(hub.rooms.about(&session("b")).full);
}

#[test]
fn an_unknown_a_closed_and_an_awaited_session_tell_the_same() {
    let mut hub = Fixture::with(2);
    hub.open(1, "closed", MESH);
    hub.leave(1, "closed");
    hub.wait(2, "awaited");
    for id in ["unknown", "closed", "awaited"] {
        assert_eq!(hub.rooms.about(&session(id)), SessionAbout::default(), "{id}");
    }
    let text = serde_json::to_string(&SessionAbout::default()).unwrap();
    assert_eq!(text, r#"{"open":false,"kind":null,"limit":0,"present":0,"full":false}"#);
}
