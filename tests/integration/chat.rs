//! Several processes of the built program over loopback: which participants receive which chat
//! messages.

use crate::rig::process::{Exit, Hub, Program, share_turn};
use serde_json::Value;

/// Opens a session of that kind with the id `room`, as Olga.
fn open(hub: &Hub, kind: &str) -> Program {
    let args =
        ["open", "--kind", kind, "--id", "room", "--hub", &hub.url, "--name", "Olga", "--say"];
    let mut olga = Program::start(&args);
    olga.event("opened");
    olga
}

/// Joins it under that name; an empty name lets the hub give one.
fn join(hub: &Hub, name: &str) -> Program {
    Program::start(&["join", "room", "--hub", &hub.url, "--name", name, "--say"])
}

fn wait_for_message(reader: &mut Program, name: &str, text: &str) -> Value {
    reader.wait(&format!("{text:?} from {name}"), |event| {
        event["event"] == "message" && event["name"] == name && event["text"] == text
    })
}

/// Returns all messages that a program received: name and text.
fn messages(end: &Exit) -> Vec<(&str, &str)> {
    let text = |value: &'_ Value| value.as_str().map(str::to_owned);
    let messages = end.events_named("message").into_iter();
    messages
        .map(|one| {
            assert_eq!(text(&one["session"]).as_deref(), Some("room"), "{one}");
            (one["name"].as_str().expect("a name"), one["text"].as_str().expect("a text"))
        })
        .collect()
}

fn interrupt_all(programs: impl IntoIterator<Item = Program>) -> Vec<Exit> {
    let ends: Vec<_> = programs.into_iter().map(Program::terminate).collect();
    assert!(ends.iter().all(|end| end.code == Some(0)));
    ends
}

#[test]
fn in_a_conference_all_read_all_messages_in_order_but_none_from_before_they_joined() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = open(&hub, "data/many-to-many");
    let mut ada = join(&hub, "Ada");
    olga.participant("Ada", "live");
    ada.participant("Olga", "live");
    olga.write("early\n");
    wait_for_message(&mut ada, "Olga", "early");
    let mut nameless = join(&hub, "");
    for (one, other) in [(&mut olga, "Guest 1"), (&mut ada, "Guest 1")] {
        one.participant(other, "live");
    }
    for other in ["Olga", "Ada"] {
        nameless.participant(other, "live");
    }
    ada.write("one\n  \ntwo\nthree https://example.org/x?y=1\n");
    nameless.write(&format!("{}\nwho am I?\n", "x".repeat(5000)));
    for reader in [&mut olga, &mut nameless] {
        wait_for_message(reader, "Ada", "three https://example.org/x?y=1");
    }
    for reader in [&mut olga, &mut ada] {
        wait_for_message(reader, "Guest 1", "who am I?");
    }
    let error = nameless.event("error");
    assert_eq!((&error["code"], error["message"].as_str().is_some()), (&"chat".into(), true));
    assert_eq!(nameless.event("said")["text"], "who am I?");
    let ends = interrupt_all([olga, ada, nameless]);
    let three = [("Ada", "one"), ("Ada", "two"), ("Ada", "three https://example.org/x?y=1")];
    let of = |end: usize, name: &str| -> Vec<_> {
        messages(&ends[end]).into_iter().filter(|(of, _)| *of == name).collect()
    };
    assert_eq!((of(0, "Ada"), of(2, "Ada")), (three.to_vec(), three.to_vec()));
    assert_eq!(messages(&ends[0]).len(), 4);
    assert_eq!(messages(&ends[1]), [("Olga", "early"), ("Guest 1", "who am I?")]);
    assert_eq!(messages(&ends[2]).len(), 3, "a late guest gets no earlier messages");
}

#[test]
fn in_a_star_guests_read_the_opener_and_not_each_other() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = open(&hub, "data/one-to-many");
    let mut ada = join(&hub, "Ada");
    let mut ben = join(&hub, "Ben");
    for name in ["Ada", "Ben"] {
        olga.participant(name, "live");
    }
    for guest in [&mut ada, &mut ben] {
        guest.participant("Olga", "live");
    }
    ada.write("for Olga alone\n");
    wait_for_message(&mut olga, "Ada", "for Olga alone");
    ben.write("me too\n");
    wait_for_message(&mut olga, "Ben", "me too");
    olga.write("to both\n");
    for guest in [&mut ada, &mut ben] {
        wait_for_message(guest, "Olga", "to both");
    }
    let ends = interrupt_all([olga, ada, ben]);
    assert_eq!(messages(&ends[0]), [("Ada", "for Olga alone"), ("Ben", "me too")]);
    for guest in &ends[1..] {
        assert_eq!(messages(guest), [("Olga", "to both")]);
    }
}

#[test]
fn in_a_broadcast_viewers_read_and_cannot_write() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = open(&hub, "data/one-way");
    let mut vera = join(&hub, "Vera");
    olga.participant("Vera", "live");
    vera.participant("Olga", "live");
    vera.write("hello?\n");
    olga.write("one\ntwo\n");
    wait_for_message(&mut vera, "Olga", "two");
    let assert_error = |program: &mut Program, text: &str| {
        let error = program.event("error")["message"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(text), "{error}");
    };
    assert_error(&mut vera, "only reads its chat");
    let silent = ["open", "--kind", "audio/many-to-many", "--say"];
    let mut silent = hub.start_participant("Silent", &silent);
    assert_error(&mut silent, "has no chat, so --say has no effect there");
    assert_eq!(silent.terminate().code, Some(0));
    let ends = interrupt_all([olga, vera]);
    assert_eq!(messages(&ends[0]), []);
    assert_eq!(ends[1].events_named("said"), Vec::<&Value>::new());
    assert_eq!(messages(&ends[1]), [("Olga", "one"), ("Olga", "two")]);
}

#[test]
fn messages_to_a_guest_without_network_arrive_when_it_is_back() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = open(&hub, "data/one-to-one");
    let mut ada = join(&hub, "Ada");
    olga.participant("Ada", "live");
    ada.participant("Olga", "live");
    olga.write("before\n");
    wait_for_message(&mut ada, "Olga", "before");
    for (state, text) in [("reconnecting", "for a moment"), ("gone", "for long")] {
        ada.signal("STOP");
        olga.write(&format!("while you were away {text}\n"));
        olga.participant("Ada", state);
        ada.signal("CONT");
        wait_for_message(&mut ada, "Olga", &format!("while you were away {text}"));
    }
    let ends = interrupt_all([olga, ada]);
    let texts = ["before", "while you were away for a moment", "while you were away for long"];
    assert_eq!(messages(&ends[1]), texts.map(|text| ("Olga", text)));
}
