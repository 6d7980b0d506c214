//! Entry points for fuzzing (`tests/fuzz`): untrusted input to a hub, and from a hub to a client.

use super::{
    hub,
    rooms::{ConnectionId, Rooms, RoomsInput, RoomsOutput},
};
use crate::model::{HubMessage, Instance, MAX_MESSAGE_BYTES, MediaTime, ParticipantId, Secret};

/// Feeds messages of three participants to the rooms. Each line of the text is one message; its
/// first character selects the sender, the delay in seconds, and whether the connection is closed
/// instead.
pub fn rooms(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut now = MediaTime::default();
    let mut secrets = 0_u8;
    let mut rooms = Rooms::new(move || {
        secrets = secrets.wrapping_add(1);
        secret(secrets)
    });
    for participant in 0..3 {
        rooms.handle(hello_input(participant), now);
    }
    for line in text.lines().take(64) {
        let Some(first) = line.chars().next() else { continue };
        let (code, json) = (u32::from(first), &line[first.len_utf8()..]);
        let participant = (code % 3) as u8;
        now = now + std::time::Duration::from_secs(u64::from(code / 3 % 8));
        let connection = ConnectionId(u64::from(participant));
        if rooms.poll_timeout().is_some_and(|(due, _)| due <= now) {
            rooms.handle_timeout(now);
        }
        if code % 31 == 0 {
            rooms.handle(RoomsInput::Closed { connection }, now);
            rooms.handle(hello_input(participant), now);
        } else if let Some(message) =
            hub::parse_message(json).filter(|_| json.len() <= MAX_MESSAGE_BYTES)
        {
            rooms.handle(RoomsInput::Message { connection, message }, now);
        }
        while let Some(output) = rooms.poll_output() {
            if let RoomsOutput::Send { message, .. } = output {
                let json = serde_json::to_string(&message).expect("a hub message is serializable");
                let _: HubMessage = serde_json::from_str(&json).expect("a client can parse it");
            }
        }
    }
}

/// Feeds bytes to the HTTP server of a hub, and checks its responses.
pub fn request(data: &[u8]) {
    let answers = String::from_utf8(hub::http_response(data)).expect("a hub answers in UTF-8");
    let (mut requests, mut answers) = (data, answers.as_str());
    while !answers.is_empty() {
        // A request of HTTP/1.0 gets a response of HTTP/1.0.
        let answer =
            ["HTTP/1.1 ", "HTTP/1.0 "].iter().find_map(|start| answers.strip_prefix(start));
        let answer = answer.expect("a response has a status line");
        let (fields, body) = answer.split_once("\r\n\r\n").expect("and a complete head");
        if fields.starts_with("100 ") {
            answers = body;
            continue;
        }
        let is_accepted = fields.starts_with("200 ") || fields.starts_with("101 ");
        if !is_accepted {
            return assert_eq!(&body[body_length(fields, body)..], "", "a refusal is the last one");
        }
        let head;
        (head, requests) = split_accepted(requests);
        let has_body = check_accepted(head);
        let length = if head.starts_with(b"HEAD ") { 0 } else { body_length(fields, body) };
        answers = &body[length..];
        let is_upgrade = fields.starts_with("101 ");
        assert!(!(is_upgrade && has_body), "no body");
        if is_upgrade || has_body {
            return assert_eq!(answers, "", "the next head cannot be inspected");
        }
    }
}

/// The length of a response's body; of one without the field, all that there is.
fn body_length(fields: &str, body: &str) -> usize {
    let length = fields.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.map_or(0, |length| length.parse().expect("a number")).min(body.len())
}

/// Cuts the head of the first request off. All programs on the path must find the same end of it.
fn split_accepted(mut requests: &[u8]) -> (&[u8], &[u8]) {
    // Empty lines before a request are skipped.
    while let Some(remainder) = requests.strip_prefix(b"\r\n") {
        requests = remainder;
    }
    let end = requests.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, remainder) =
        requests.split_at(end.expect("an accepted request has a complete head"));
    (head, &remainder[4..])
}

/// Checks that all programs on the path interpret the head of an accepted request in the same way.
/// Returns whether a body may follow.
fn check_accepted(head: &[u8]) -> bool {
    let lines: Vec<_> = head.split(|byte| *byte == b'\n').collect();
    let (last, others) = lines.split_last().expect("a head has at least one line");
    assert!(others.iter().all(|line| line.ends_with(b"\r")), "no bare line feed");
    let fields: Vec<_> = others[1.min(others.len())..].iter().chain([last]).collect();
    let count = |name: &[u8]| {
        let begins = |line: &&&&[u8]| {
            line.len() > name.len()
                && line[..name.len()].eq_ignore_ascii_case(name)
                && line[name.len()] == b':'
        };
        fields.iter().filter(begins).count()
    };
    assert_eq!(count(b"host"), 1, "one host");
    count(b"content-length") + count(b"transfer-encoding") > 0
}

/// Feeds a message of a malicious hub to the client's parser.
pub fn client(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(message) = serde_json::from_str::<HubMessage>(&text) {
        let reparsed = serde_json::to_string(&message).expect("a hub message is serializable");
        let reparsed: HubMessage = serde_json::from_str(&reparsed).expect("and can be parsed");
        assert_eq!(reparsed, message);
    }
}

fn hello_input(participant: u8) -> RoomsInput {
    RoomsInput::Hello {
        connection: ConnectionId(u64::from(participant)),
        participant: ParticipantId::from_digest([participant; 10]),
        token: secret(100 + participant),
        name: String::new(),
        instance: Instance::from_random(1),
        link_base: "http://192.0.2.1:7340".to_owned(),
        source: None,
        is_own: false,
    }
}

fn secret(number: u8) -> Secret {
    Secret::from_random([number; 16])
}
