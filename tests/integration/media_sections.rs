//! The SDP media sections of every session kind, as a test client sees them that speaks only JSON
//! over a WebSocket.

use std::collections::BTreeMap;

use crate::rig::{
    process::{Hub, Program, run_async},
    raw_client::RawClient,
};
use crate::transport::pair::{Endpoint, sections};
use quintet::model::{
    Direction::{self, SendOnly, SendRecv},
    PeerEvent, PeerMedia, PerChannel, PerSource,
};
use serde_json::json;

#[test]
fn the_media_sections_of_every_kind_match_the_kind() {
    run_async(async {
        let hub = Hub::start();
        let kinds = [
            ("av-conference", vec!["audio sendrecv", "video sendrecv"]),
            ("av-broadcast", vec!["audio sendonly", "video sendonly"]),
            ("audio-conference", vec!["audio sendrecv"]),
            ("audio-broadcast", vec!["audio sendonly"]),
            ("video-broadcast", vec!["video sendonly"]),
            ("audio/one-to-one", vec!["audio sendrecv"]),
            ("video/one-to-many", vec!["video sendrecv"]),
            ("data/many-to-many", vec!["application sendrecv"]),
            (
                "audio+video+data/one-to-many",
                vec!["audio sendrecv", "video sendrecv", "application sendrecv"],
            ),
            ("video+data/one-way", vec!["video sendonly", "application sendrecv"]),
        ];
        let mut args = vec!["open"];
        for (kind, _) in &kinds {
            args.extend(["--kind", kind]);
        }
        let mut opener = hub.start_participant("Olga", &args);
        let opened = opener.events("opened", kinds.len());
        let mut stranger = RawClient::connect(&hub).await;
        for (one, (kind, expected)) in opened.iter().zip(kinds) {
            assert_eq!(one["kind"], kind);
            let sdp = stranger.join_and_receive_offer(one["session"].as_str().unwrap()).await;
            assert_eq!(sections(&sdp), expected, "{kind}:\n{sdp}");
            if sdp.contains("m=video") {
                let baseline = sdp.contains("profile-level-id=42e01f") && sdp.contains("rtx/90000");
                assert!(baseline && sdp.contains("packetization-mode=1"), "{kind}:\n{sdp}");
            }
        }
        assert_eq!(opener.terminate().code, Some(0));
    });
}

#[test]
fn viewers_of_a_broadcast_see_only_the_opener() {
    run_async(async {
        let hub = Hub::start();
        let mut opener = hub.open_session("av-broadcast", "show");
        let mut viewer = hub.start_participant("Vera", &["join", "show"]);
        viewer.participant("Olga", "live");
        let mut stranger = RawClient::connect(&hub).await;
        stranger.send(json!({"type": "join", "session": "show", "wait": false})).await;
        let joined = stranger.receive("joined").await;
        let names: Vec<_> =
            joined["participants"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["Olga"]);
        opener.participant("Stranger", "connecting");
        let end = viewer.terminate();
        let others =
            end.events_named("participant").into_iter().filter(|event| event["name"] != "Olga");
        assert_eq!(others.count(), 0, "viewers are not paired with each other");
    });
}

/// The media of a kind, all in that direction.
fn peer_media(kind: &str, direction: Direction) -> PeerMedia {
    let has = |medium| kind.split('/').next().is_some_and(|media| media.contains(medium));
    let of = |medium| has(medium).then_some(direction);
    PeerMedia {
        sections: PerSource { camera: of("video"), microphone: of("audio") },
        channels: PerChannel { chat: has("data") },
    }
}

/// Checks what a joiner answers to the opener of each kind, when the offer has the kind's media in
/// that direction.
async fn assert_answers(direction: Direction, kinds: &[(&str, &[&str])]) {
    let hub = Hub::start();
    let mut stranger = RawClient::connect(&hub).await;
    let (mut ends, mut offers) = (BTreeMap::new(), BTreeMap::new());
    for (number, (kind, _)) in kinds.iter().enumerate() {
        let session = format!("s{number}");
        stranger.open(&session, kind).await;
        let mut end = Endpoint::open(&session, peer_media(kind, direction), None);
        let offer = end.make_offer(false);
        offers.insert(session.clone(), end.description(offer).await);
        ends.insert(session, end);
    }
    let args: Vec<_> = ["join"].into_iter().chain(offers.keys().map(String::as_str)).collect();
    let joiner = hub.start_participant("Joiner", &args);
    let answers = stranger.offer_to_newcomers(&offers).await;
    for ((session, sdp), (kind, expected)) in answers.iter().zip(kinds) {
        assert_eq!(sections(sdp), *expected, "{kind}, offered as {direction:?}:\n{sdp}");
        if sdp.contains("m=video") {
            let baseline = sdp.contains("profile-level-id=42e01f") && sdp.contains("rtx/90000");
            assert!(baseline && sdp.contains("packetization-mode=1"), "{kind}:\n{sdp}");
        }
        let end = ends.get_mut(session).expect("it offered");
        let operation = end.accept_answer(sdp);
        assert_eq!(
            end.outcome_of(operation).await,
            PeerEvent::Applied { operation },
            "{kind}:\n{sdp}"
        );
    }
    assert_ended_well(joiner);
}

/// Ends a program whose connections were answered, but perhaps not established before its end.
fn assert_ended_well(joiner: Program) {
    let end = joiner.terminate();
    assert!(matches!(end.code, Some(0 | 8)), "{:?}: {:#?}", end.code, end.events);
}

#[test]
fn the_answers_of_a_joiner_match_the_kind() {
    run_async(async {
        let both_ways: [(&str, &[&str]); 7] = [
            ("audio+video/many-to-many", &["audio sendrecv", "video sendrecv"]),
            ("audio/many-to-many", &["audio sendrecv"]),
            ("audio+video/one-to-one", &["audio sendrecv", "video sendrecv"]),
            ("audio/one-to-many", &["audio sendrecv"]),
            ("video/one-to-one", &["video sendrecv"]),
            ("data/many-to-many", &["application sendrecv"]),
            (
                "audio+video+data/one-to-many",
                &["audio sendrecv", "video sendrecv", "application sendrecv"],
            ),
        ];
        assert_answers(SendRecv, &both_ways).await;
        let one_way: [(&str, &[&str]); 4] = [
            ("audio+video/one-way", &["audio recvonly", "video recvonly"]),
            ("audio/one-way", &["audio recvonly"]),
            ("video/one-way", &["video recvonly"]),
            ("video+data/one-way", &["video recvonly", "application sendrecv"]),
        ];
        assert_answers(SendOnly, &one_way).await;
        // An opener that offers `sendrecv` to viewers gets `recvonly`.
        assert_answers(SendRecv, &one_way).await;
    });
}

#[test]
fn media_sections_that_the_session_does_not_have_are_answered_as_inactive() {
    run_async(async {
        let hub = Hub::start();
        let mut stranger = RawClient::connect(&hub).await;
        stranger.open("talk", "audio/many-to-many").await;
        stranger.open("show", "video/one-way").await;
        let mut offers = BTreeMap::new();
        for session in ["show", "talk"] {
            let mut end = Endpoint::open(session, peer_media("audio+video/any", SendRecv), None);
            let offer = end.make_offer(false);
            offers.insert(session.to_owned(), end.description(offer).await);
        }
        let joiner = hub.start_participant("Joiner", &["join", "talk", "show"]);
        let answers = stranger.offer_to_newcomers(&offers).await;
        assert_eq!(sections(&answers["talk"]), ["audio sendrecv", "video inactive"]);
        assert_eq!(sections(&answers["show"]), ["audio inactive", "video recvonly"]);
        assert_ended_well(joiner);
    });
}
