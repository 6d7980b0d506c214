//! Checks `PROTOCOL.md` against the types in `model/signal.rs`, so that neither changes alone.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::hub::AboutReply;
use crate::model::{
    ChatMessage, ClientMessage, ErrorCode, HubMessage, MAX_CANDIDATE_BYTES, MAX_CHAT_BYTES,
    MAX_HUB_MESSAGE_BYTES, MAX_MESSAGE_BYTES, MAX_NAME_CHARS, MAX_SDP_BYTES, MAX_TEXT_BYTES,
    Payload, Topology,
};

const DOCUMENT: &str = include_str!("PROTOCOL.md");

/// The JSON texts of the document, each with its sender: `client`, `hub`, `payload` or `chat`.
fn examples() -> Vec<(&'static str, &'static str)> {
    let (mut found, mut block) = (vec![], None);
    for line in DOCUMENT.lines() {
        match (block, line.strip_prefix("```")) {
            (None, Some(label)) => block = Some(label),
            (None, None) => {}
            (Some(_), Some(_)) => block = None,
            (Some("flow"), None) => {
                let (direction, text) = line.split_at(line.find('{').expect("a message"));
                found.push((if direction.ends_with("> ") { "client" } else { "hub" }, text));
            }
            (Some(label), None) => {
                found.push((label.strip_prefix("json ").expect("a labelled block"), line));
            }
        }
    }
    assert_eq!(block, None, "every block ends");
    found
}

/// Parses an example and serializes it again: no field may be missing or unknown.
fn assert_round_trip<T: DeserializeOwned + Serialize>(text: &str) {
    let message: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut reserialized = serde_json::to_value(&message).unwrap();
    let example: Value = serde_json::from_str(text).unwrap();
    // An absent `name` or `wait` has a default, which the document states.
    for (field, default) in [("name", Value::from("")), ("wait", Value::from(false))] {
        if example.get(field).is_none() && reserialized.get(field) == Some(&default) {
            reserialized.as_object_mut().unwrap().remove(field);
        }
    }
    assert_eq!(reserialized, example);
}

#[test]
fn every_example_is_a_message_of_the_real_types() {
    let examples = examples();
    assert!(examples.len() > 50, "{}", examples.len());
    for (sender, text) in examples {
        match sender {
            "client" => assert_round_trip::<ClientMessage>(text),
            "hub" => assert_round_trip::<HubMessage>(text),
            "payload" => {
                assert_round_trip::<Payload>(text);
                assert_ne!(serde_json::from_str::<Payload>(text).unwrap(), Payload::Unknown);
            }
            "chat" => assert_round_trip::<ChatMessage>(text),
            "about" => assert_round_trip::<AboutReply>(text),
            other => panic!("{other:?} is not a sender"),
        }
    }
}

#[test]
fn every_type_of_message_has_an_example() {
    let types = |sender: &str| -> BTreeSet<String> {
        let texts = examples().into_iter().filter(|(from, _)| *from == sender);
        let values = texts.map(|(_, text)| serde_json::from_str::<Value>(text).unwrap());
        values.map(|value| value["type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(types("client"), message_types::<ClientMessage>());
    assert_eq!(types("hub"), message_types::<HubMessage>());
    assert_eq!(types("payload").len(), 4);
    assert_eq!(types("chat"), ["received", "text"].map(str::to_owned).into());
}

#[test]
fn every_name_and_limit_of_the_types_is_in_the_document() {
    let codes = names_in_error(serde_json::from_str::<ErrorCode>("\"?\"").unwrap_err());
    let directions = Topology::ALL.map(|topology| topology.name().to_owned());
    for value in codes.iter().chain(&directions) {
        assert!(DOCUMENT.contains(&format!("| `{value}` |")), "{value}");
    }
    for topology in Topology::ALL {
        let kind = format!("audio/{topology}").parse::<crate::model::SessionKind>().unwrap();
        let limit = kind.default_limit();
        let row = DOCUMENT.lines().find(|line| line.starts_with(&format!("| `{topology}` |")));
        assert!(row.unwrap().contains(&format!("| {limit} |")), "{topology} {limit}");
    }
    for (limit, unit) in [
        (MAX_MESSAGE_BYTES, "bytes"),
        (MAX_HUB_MESSAGE_BYTES, "bytes"),
        (MAX_SDP_BYTES, "bytes"),
        (MAX_CANDIDATE_BYTES, "bytes"),
        (MAX_NAME_CHARS, "characters"),
    ] {
        assert!(DOCUMENT.contains(&format!("| {limit} {unit}")), "{limit}");
    }
    assert!(DOCUMENT.contains(&format!("| {MAX_CHAT_BYTES} bytes; {MAX_TEXT_BYTES} bytes |")));
}

/// The message types, as serde lists them in the error for an unknown one.
fn message_types<T: DeserializeOwned>() -> BTreeSet<String> {
    let Err(error) = serde_json::from_str::<T>(r#"{"type":"?"}"#) else { panic!("no such type") };
    names_in_error(error)
}

fn names_in_error(error: serde_json::Error) -> BTreeSet<String> {
    let text = error.to_string();
    let listed: BTreeSet<_> = text.split('`').skip(3).step_by(2).map(str::to_owned).collect();
    assert!(listed.len() > 3, "{text}");
    listed
}
