//! Relaying signals: who may signal to whom, and how long a signal may be.

use super::*;
use crate::model::{MAX_CANDIDATE_BYTES, MAX_SDP_BYTES, Payload};

/// The shortest description that is relayed.
const SHORT: &str = "v=0\r\nm=audio";

fn offer(sdp: String) -> Payload {
    Payload::Offer { generation: 1, sdp }
}

fn candidate(bytes: usize, mid: usize) -> Payload {
    let (candidate, mid) = ("c".repeat(bytes), Some("m".repeat(mid)));
    Payload::Candidate { generation: 1, candidate, mid, line: Some(0) }
}

fn signal(to: u8, payload: Payload) -> ClientMessage {
    ClientMessage::Signal { session: session("a"), to: participant_id(to), payload: payload.into() }
}

fn hub(kind: SessionKind) -> Fixture {
    let mut hub = Fixture::with(4);
    hub.open(1, "a", kind);
    hub.join(2, "a");
    hub.join(3, "a");
    hub
}

#[test]
fn a_signal_goes_to_one_paired_member_and_names_its_sender() {
    let mut mesh = hub(MESH);
    assert_eq!(mesh.send(2, signal(3, offer(SHORT.into()))), ["3: signal a 2"]);
    assert_eq!(mesh.send(3, signal(1, offer(SHORT.into()))), ["1: signal a 3"]);
}

#[test]
fn a_payload_is_relayed_unchanged() {
    let mut mesh = hub(MESH);
    let payload = candidate(20, 1);
    let input =
        RoomsInput::Message { connection: ConnectionId(2), message: signal(3, payload.clone()) };
    mesh.rooms.handle(input, mesh.now);
    let payload = payload.into();
    let message = HubMessage::Signal { session: session("a"), from: participant_id(2), payload };
    assert_eq!(
        mesh.rooms.poll_output(),
        Some(RoomsOutput::Send { connections: vec![ConnectionId(3)], message })
    );
}

#[test]
fn a_media_message_is_relayed_like_any_signal() {
    let mut broadcast = hub(BROADCAST);
    let media = Payload::Media { microphone: false, camera: true, tracks: None, wants: None };
    assert_eq!(broadcast.send(1, signal(2, media.clone())), ["2: signal a 1"]);
    assert_eq!(broadcast.send(2, signal(3, media)), ["2: not-allowed a"]);
}

#[test]
fn nobody_signals_to_a_member_that_the_topology_does_not_pair() {
    let mut broadcast = hub(BROADCAST);
    assert_eq!(broadcast.send(2, signal(3, offer(SHORT.into()))), ["2: not-allowed a"]);
    assert_eq!(broadcast.send(2, signal(1, offer(SHORT.into()))), ["1: signal a 2"]);
    assert_eq!(broadcast.send(1, signal(2, offer(SHORT.into()))), ["2: signal a 1"]);
}

#[test]
fn signals_from_and_to_non_members_and_to_oneself_are_refused() {
    let mut mesh = hub(MESH);
    assert_eq!(mesh.send(4, signal(1, offer(SHORT.into()))), ["4: not-allowed a"]);
    assert_eq!(mesh.send(1, signal(4, offer(SHORT.into()))), ["1: not-allowed a"]);
    assert_eq!(mesh.send(1, signal(1, offer(SHORT.into()))), ["1: not-allowed a"]);
    mesh.leave(1, "a");
    assert_eq!(mesh.send(1, signal(2, offer(SHORT.into()))), ["1: not-allowed a"]);
}

#[test]
fn whether_a_session_is_open_does_not_show_in_a_refused_signal() {
    let mut mesh = Fixture::with(4);
    assert_eq!(mesh.send(4, signal(1, offer(SHORT.into()))), ["4: not-allowed a"]);
}

#[test]
fn a_signal_to_a_member_without_a_connection_is_dropped_silently() {
    let mut mesh = hub(MESH);
    mesh.close_connection(3);
    assert_eq!(mesh.send(2, signal(3, offer(SHORT.into()))), Vec::<String>::new());
    mesh.hello(13, 3);
    assert_eq!(mesh.send(2, signal(3, offer(SHORT.into()))), Vec::<String>::new());
    assert_eq!(mesh.send(13, signal(2, offer(SHORT.into()))), ["13: not-allowed a"], "not seated");
    mesh.join(13, "a");
    assert_eq!(mesh.send(2, signal(3, offer(SHORT.into()))), ["13: signal a 2"]);
}

#[test]
fn a_description_over_the_limit_is_refused_and_one_at_it_is_not() {
    let mut mesh = hub(MESH);
    let at = format!("{SHORT}{}", "v".repeat(MAX_SDP_BYTES - SHORT.len()));
    assert_eq!(mesh.send(2, signal(3, offer(at.clone()))), ["3: signal a 2"]);
    assert_eq!(mesh.send(2, signal(3, offer(at + "v"))), ["2: bad-message a"]);
    let answer = Payload::Answer { generation: 1, sdp: "v".repeat(MAX_SDP_BYTES + 1) };
    assert_eq!(mesh.send(2, signal(3, answer)), ["2: bad-message a"]);
}

#[test]
fn a_description_of_more_than_64_media_sections_is_refused() {
    let mut mesh = hub(MESH);
    for end in ["\r\n", "\n", "\r"] {
        let sections = |count: usize| format!("v=0{end}{}", format!("m=x{end}").repeat(count));
        assert_eq!(mesh.send(2, signal(3, offer(sections(64)))), ["3: signal a 2"]);
        assert_eq!(mesh.send(2, signal(3, offer(sections(65)))), ["2: bad-message a"]);
    }
}

#[test]
fn a_candidate_over_the_limit_is_refused_and_one_at_it_is_not() {
    let mut mesh = hub(MESH);
    assert_eq!(mesh.send(2, signal(3, candidate(MAX_CANDIDATE_BYTES, 64))), ["3: signal a 2"]);
    assert_eq!(
        mesh.send(2, signal(3, candidate(MAX_CANDIDATE_BYTES + 1, 1))),
        ["2: bad-message a"]
    );
    assert_eq!(mesh.send(2, signal(3, candidate(1, 65))), ["2: bad-message a"]);
}

#[test]
fn a_refused_length_names_the_limit() {
    let mut mesh = hub(MESH);
    let input =
        RoomsInput::Message { connection: ConnectionId(2), message: signal(3, candidate(513, 1)) };
    mesh.rooms.handle(input, mesh.now);
    let Some(RoomsOutput::Send { message: HubMessage::Error { message, .. }, .. }) =
        mesh.rooms.poll_output()
    else {
        panic!("an error");
    };
    assert_eq!(message, "a candidate has at most 512 bytes, not 513");
}

#[test]
fn a_payload_of_a_later_version_is_relayed_to_paired_members_only() {
    let mut broadcast = hub(BROADCAST);
    assert_eq!(broadcast.send(2, signal(1, Payload::Unknown)), ["1: signal a 2"]);
    assert_eq!(broadcast.send(2, signal(3, Payload::Unknown)), ["2: not-allowed a"]);
}

#[test]
fn generations_begin_with_one() {
    let mut mesh = hub(MESH);
    let (sdp, mid, line) = (SHORT.to_owned(), None, None);
    for (generation, answer) in [(0, "2: bad-message a"), (1, "3: signal a 2")] {
        for payload in [
            Payload::Offer { generation, sdp: sdp.clone() },
            Payload::Answer { generation, sdp: sdp.clone() },
            Payload::Candidate { generation, candidate: sdp.clone(), mid: mid.clone(), line },
        ] {
            assert_eq!(mesh.send(2, signal(3, payload)), [answer]);
        }
    }
}
