//! Session ids that are bound to the key of their first owner.

use super::*;

/// Successor keys that every run of the hub recognises: the first byte holds the number.
struct TestKeys;

impl OwnerKeys for TestKeys {
    fn generate(&mut self) -> Secret {
        Secret::from_random([0xff; 16])
    }

    fn for_successor(&mut self, _: &SessionId, succession: u16) -> Secret {
        Secret::from_random([0xa0 + succession as u8; 16])
    }

    fn successor_number(&self, _: &SessionId, key: &Secret) -> Option<u16> {
        let number = u8::from_str_radix(&key.expose()[..2], 16).ok()?;
        (0xa1..0xb0).contains(&number).then(|| u16::from(number - 0xa0))
    }
}

/// A hub that was just started, with connections of participants 1 to 5.
fn started_hub() -> Fixture {
    let (rooms, now) = (Rooms::new(TestKeys), MediaTime::from_micros(1_000_000));
    let mut hub = Fixture { rooms, now };
    for number in 1..=5 {
        hub.hello(u64::from(number), number);
    }
    hub
}

fn first_key() -> Secret {
    Secret::from_random([7; 16])
}

fn id() -> String {
    SessionId::of_key(&first_key()).to_string()
}

fn open_with(hub: &mut Fixture, connection: u64, key: Option<Secret>) -> Vec<String> {
    let (session, kind, limit) = (session(&id()), MESH, None);
    hub.send(connection, ClientMessage::Open { session, kind, limit, owner_key: key })
}

fn successor_key(number: u8) -> Option<Secret> {
    Some(Secret::from_random([0xa0 + number; 16]))
}

#[test]
fn an_id_that_is_bound_to_a_key_is_opened_only_with_that_key() {
    let mut hub = started_hub();
    let taken = format!("2: id-taken {}", id());
    assert_eq!(open_with(&mut hub, 2, None), [taken.as_str()]);
    assert_eq!(open_with(&mut hub, 2, Some(Secret::from_random([8; 16]))), [taken.as_str()]);
    let opened = format!("1: opened {} limit 12 key 7 []", id());
    assert_eq!(open_with(&mut hub, 1, Some(first_key())), [opened.as_str()], "the key stays");
    hub.leave(1, &id());
    assert_eq!(
        open_with(&mut hub, 2, None),
        [taken.as_str()],
        "a bound id that is not open needs its key"
    );
    assert_eq!(open_with(&mut hub, 1, Some(first_key())), [opened.as_str()]);
}

#[test]
fn other_ids_are_opened_without_a_key() {
    let mut hub = started_hub();
    for id in ["town-hall", "7h3k-q2m9-x4tz-p8wd"] {
        assert_eq!(hub.open(1, id, MESH), [format!("1: opened {id} limit 12 key 255 []")]);
    }
}

#[test]
fn a_crashed_owner_takes_its_session_over_with_the_key_and_the_key_stays() {
    let mut hub = started_hub();
    open_with(&mut hub, 1, Some(first_key()));
    let lines = open_with(&mut hub, 2, Some(first_key()));
    assert_eq!(lines[0], format!("1: closed {} Replaced", id()));
    assert_eq!(lines[1], format!("2: opened {} limit 12 key 7 []", id()));
}

#[test]
fn a_successor_reopens_a_session_at_a_restarted_hub_and_the_last_successor_wins() {
    let mut hub = started_hub();
    open_with(&mut hub, 1, Some(first_key()));
    for connection in 2..=4 {
        hub.join(connection, &id());
    }
    let lines = hub.leave(1, &id());
    assert!(lines.contains(&format!("2: owner {} 2 key 161", id())), "{lines:?}");
    let lines = hub.leave(2, &id());
    assert!(lines.contains(&format!("3: owner {} 3 key 162", id())), "{lines:?}");
    assert_eq!(open_with(&mut hub, 1, Some(first_key())), [format!("1: id-taken {}", id())]);
    assert_eq!(open_with(&mut hub, 2, successor_key(1)), [format!("2: id-taken {}", id())]);

    // All return to a hub that was restarted, the last successor last.
    let mut hub = started_hub();
    assert_eq!(open_with(&mut hub, 4, None), [format!("4: id-taken {}", id())]);
    assert!(open_with(&mut hub, 1, Some(first_key()))[0].starts_with("1: opened"));
    assert!(open_with(&mut hub, 2, successor_key(1))[1].starts_with("2: opened"));
    assert!(open_with(&mut hub, 3, successor_key(2))[1].starts_with("3: opened"));
    assert_eq!(open_with(&mut hub, 2, successor_key(1)), [format!("2: id-taken {}", id())]);
    assert_eq!(open_with(&mut hub, 1, Some(first_key())), [format!("1: id-taken {}", id())]);
}

#[test]
fn a_successor_of_an_earlier_meeting_does_not_take_over_a_later_one() {
    let mut hub = started_hub();
    hub.advance(120_000, &[1, 2, 3, 4, 5]);
    open_with(&mut hub, 1, Some(first_key()));
    assert_eq!(open_with(&mut hub, 2, successor_key(1)), [format!("2: id-taken {}", id())]);
}

#[test]
fn at_a_hub_for_its_own_user_other_users_join_and_do_not_open() {
    let mut hub = started_hub();
    hub.rooms.restrict_opening_to_own_user();
    let mut own = hello(9, 9, ("P9", 9), None);
    if let RoomsInput::Hello { is_own, .. } = &mut own {
        *is_own = true;
    }
    hub.handle(own);
    assert_eq!(hub.open(1, "theirs", MESH), ["1: not-allowed theirs"]);
    let returned = open("inherited", MESH, None, Some(5));
    assert_eq!(
        hub.send(1, returned),
        ["1: id-taken inherited"],
        "`id-taken` makes the client wait as a guest"
    );
    assert_eq!(open_with(&mut hub, 1, Some(first_key())), [format!("1: not-allowed {}", id())]);
    assert!(hub.open(9, "own", MESH)[0].starts_with("9: opened own"));
    assert!(hub.join(1, "own").last().unwrap().starts_with("9: in own 1"));
    assert!(
        hub.leave(9, "own").contains(&"1: owner own 1 key 255".to_owned()),
        "the guest takes it over"
    );
    assert!(
        open_with(&mut hub, 2, successor_key(1))[0].starts_with("2: opened"),
        "a successor comes back"
    );
}
