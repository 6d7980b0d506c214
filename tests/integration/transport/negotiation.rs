//! Offers and answers: their contents, and what happens to invalid ones.

use quintet::{
    model::{
        Candidate,
        Direction::{self, Inactive, RecvOnly, SendOnly, SendRecv},
        PeerCommand, PeerEvent, PeerMedia, PeerState, PerChannel, PerSource,
    },
    transport::Connection,
};

use super::pair::{Endpoint, Pair, audio_video, descriptions, sections};

fn media(audio: Option<Direction>, video: Option<Direction>, data: bool) -> PeerMedia {
    PeerMedia {
        sections: PerSource { camera: video, microphone: audio },
        channels: PerChannel { chat: data },
    }
}

/// The expected sections of a connection with those media.
fn expected(media: PeerMedia) -> Vec<String> {
    let section = |kind: &str, direction: Direction| {
        let direction = match direction {
            SendRecv => "sendrecv",
            SendOnly => "sendonly",
            RecvOnly => "recvonly",
            Inactive => "inactive",
        };
        format!("{kind} {direction}")
    };
    let audio = media.sections.microphone.map(|direction| section("audio", direction));
    let video = media.sections.camera.map(|direction| section("video", direction));
    let data = media.channels.any().then(|| "application sendrecv".to_owned());
    audio.into_iter().chain(video).chain(data).collect()
}

/// Connects two endpoints with those media, of which the first one offers, and checks their
/// descriptions.
async fn check_sections(offerer: PeerMedia, answerer: PeerMedia) {
    let pair = Pair::connected(offerer, answerer).await;
    for (end, media) in [(&pair.a, offerer), (&pair.b, answerer)] {
        let made = descriptions(end);
        assert_eq!(made.len(), 1);
        for (_, sdp) in made.values() {
            assert_eq!(sections(sdp), expected(media), "{sdp}");
            assert!(!sdp.contains(" VP8/"), "{sdp}");
            let has_video = media.sections.camera.is_some();
            let of_video = sdp.contains(" rtx/90000") && sdp.contains("a=fmtp:105 apt=102");
            assert_eq!(of_video, has_video, "{sdp}");
            let sends = media.sections.camera.is_some_and(Direction::sends);
            assert_eq!(sdp.contains("a=ssrc-group:FID "), sends, "{sdp}");
        }
    }
}

#[tokio::test]
async fn sections_match_the_configured_media_whichever_end_offers() {
    let kinds = [
        [audio_video(SendRecv); 2],
        [audio_video(SendOnly), audio_video(RecvOnly)],
        [media(Some(SendRecv), None, false); 2],
        [media(Some(SendOnly), None, false), media(Some(RecvOnly), None, false)],
        [media(None, Some(SendRecv), false); 2],
        [media(None, Some(SendOnly), false), media(None, Some(RecvOnly), false)],
        [media(None, None, true); 2],
        [media(Some(SendRecv), Some(SendRecv), true); 2],
        [media(Some(SendOnly), Some(SendOnly), true), media(Some(RecvOnly), Some(RecvOnly), true)],
    ];
    for [one, other] in kinds {
        check_sections(one, other).await;
        check_sections(other, one).await;
    }
}

/// The sections of each answer when the first endpoint makes two offers to the second.
async fn answered(offerer: PeerMedia, answerer: PeerMedia) -> Vec<Vec<String>> {
    let mut pair = Pair::connected(offerer, answerer).await;
    renegotiate(&mut pair).await;
    descriptions(&pair.b).values().map(|(_, sdp)| sections(sdp)).collect()
}

async fn renegotiate(pair: &mut Pair) {
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    let operation = pair.a.accept_answer(&answer);
    assert_eq!(pair.a.outcome_of(operation).await, PeerEvent::Applied { operation });
}

#[tokio::test]
async fn an_offer_with_other_directions_is_answered_with_what_both_ends_want() {
    let cases: [(PeerMedia, PeerMedia, &[&str]); 5] = [
        (audio_video(SendRecv), audio_video(SendOnly), &["audio sendonly", "video sendonly"]),
        (audio_video(SendRecv), audio_video(RecvOnly), &["audio recvonly", "video recvonly"]),
        (audio_video(SendOnly), audio_video(SendRecv), &["audio recvonly", "video recvonly"]),
        (audio_video(RecvOnly), audio_video(SendRecv), &["audio sendonly", "video sendonly"]),
        (
            audio_video(SendRecv),
            media(Some(SendRecv), None, false),
            &["audio sendrecv", "video inactive"],
        ),
    ];
    for (offerer, answerer, expected) in cases {
        for answer in answered(offerer, answerer).await {
            assert_eq!(answer, expected, "{offerer:?} to {answerer:?}");
        }
    }
}

#[tokio::test]
async fn candidates_are_sent_after_the_description_and_end_with_an_empty_line() {
    let mut end = Endpoint::open("a", audio_video(SendRecv), None);
    end.make_offer(false);
    let mut lines = vec![];
    while lines.last() != Some(&String::new()) {
        if let PeerEvent::Candidate(Candidate { line, index, .. }) = end.next().await {
            assert_eq!(index, Some(0));
            lines.push(line);
        }
    }
    assert!(matches!(end.events[0], PeerEvent::LocalDescription { .. }));
    lines.pop();
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line.starts_with("candidate:") && line.contains(" udp ")));
}

#[tokio::test]
async fn after_glare_the_polite_end_rolls_back_its_offer_and_accepts_the_other() {
    let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
    let (ours, theirs) = (pair.a.make_offer(false), pair.b.make_offer(false));
    let offer = pair.a.description(ours).await;
    pair.b.description(theirs).await;

    let early = pair.b.accept_offer(&offer);
    assert!(matches!(pair.b.outcome_of(early).await, PeerEvent::Failed { .. }));
    pair.b.events.clear();
    let rollback = pair.b.command(|operation| PeerCommand::Rollback { operation });
    assert_eq!(pair.b.outcome_of(rollback).await, PeerEvent::Applied { operation: rollback });
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    assert_eq!(sections(&answer), expected(audio_video(SendRecv)));
    pair.a.accept_answer(&answer);
    pair.until_connected().await;

    // The offer that was rolled back can be made again, now by the other end.
    std::mem::swap(&mut pair.a, &mut pair.b);
    renegotiate(&mut pair).await;
}

#[tokio::test]
async fn a_command_that_is_not_legal_now_is_refused() {
    let mut end = Endpoint::open("a", audio_video(SendRecv), None);
    let rollback = end.command(|operation| PeerCommand::Rollback { operation });
    assert!(matches!(end.outcome_of(rollback).await, PeerEvent::Failed { .. }));
    let answer = end.accept_answer("v=0");
    assert!(matches!(end.outcome_of(answer).await, PeerEvent::Failed { .. }));
    let offer = end.make_offer(false);
    let offer = end.description(offer).await;
    let again = end.make_offer(false);
    assert!(matches!(end.outcome_of(again).await, PeerEvent::Failed { .. }));
    let own_offer_as_answer = end.accept_answer(&offer.replace("m=video", "m=audio"));
    assert!(matches!(end.outcome_of(own_offer_as_answer).await, PeerEvent::Failed { .. }));
}

#[tokio::test]
async fn garbage_is_refused_and_the_connection_stays_usable() {
    let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let cut = &offer[..offer.len() / 2];
    let no_fingerprint = offer.replace("a=fingerprint", "a=fingertip");
    let long = "x".repeat(1 << 20);
    for garbage in ["", "hello", "v=0\r\nm=audio", cut, &no_fingerprint, &long, "v=0\r\n\0\u{fe0f}"]
    {
        let operation = pair.b.accept_offer(garbage);
        let outcome = pair.b.outcome_of(operation).await;
        assert!(matches!(outcome, PeerEvent::Failed { .. }), "{garbage:.40}: {outcome:?}");
    }
    for line in ["", "candidate:", "candidate:x y udp z 999.0.0.1 99999 typ host", "\0", &long] {
        let line = line.to_owned();
        pair.b.connection.command(PeerCommand::AddCandidate(Candidate {
            line,
            mid: Some("nowhere".to_owned()),
            index: Some(999),
        }));
    }
    pair.b.events.clear();
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;

    let other_sections = answer.replace("m=video", "m=audio");
    for garbage in ["", "v=0", &other_sections, &offer.replace("a=ice-pwd", "a=ice-pw")] {
        let operation = pair.a.accept_answer(garbage);
        let outcome = pair.a.outcome_of(operation).await;
        assert!(matches!(outcome, PeerEvent::Failed { .. }), "{garbage:.40}: {outcome:?}");
    }
    pair.a.events.retain(|event| !matches!(event, PeerEvent::Failed { .. }));
    pair.a.accept_answer(&answer);
    pair.until_connected().await;
}

#[tokio::test]
async fn an_offer_of_another_connection_is_refused_and_the_running_one_stays_usable() {
    let mut pair = Pair::connected(audio_video(SendRecv), audio_video(SendRecv)).await;
    let mut other = Endpoint::open("other", audio_video(SendRecv), None);
    let offer = other.make_offer(false);
    let offer = other.description(offer).await;
    for end in [&mut pair.a, &mut pair.b] {
        let operation = end.accept_offer(&offer);
        let outcome = end.outcome_of(operation).await;
        let PeerEvent::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("another certificate"), "{reason}");
    }
    renegotiate(&mut pair).await;
}

#[tokio::test]
async fn an_offer_that_cannot_be_answered_is_refused_and_ends_the_connection() {
    let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    // webrtc-rs notices only after it has answered that it cannot distinguish the tracks.
    let operation = pair.b.accept_offer(&offer.replace("a=ssrc:", "a=no-ssrc:"));
    assert!(matches!(pair.b.outcome_of(operation).await, PeerEvent::Failed { .. }));
    assert_eq!(pair.b.next().await, PeerEvent::State(PeerState::Failed));
}

#[tokio::test]
async fn every_mutilated_offer_has_an_outcome() {
    let mut source = Endpoint::open("a", audio_video(SendRecv), None);
    let offer = source.make_offer(false);
    let offer = source.description(offer).await;
    let lines: Vec<&str> = offer.split_inclusive("\r\n").collect();
    let mut end = Endpoint::open("b", audio_video(SendRecv), None);
    for skipped in 0..lines.len() {
        let (before, after) = (lines[..skipped].concat(), lines[skipped + 1..].concat());
        let doubled = lines[skipped].repeat(2);
        let (name, value) = lines[skipped].split_once(':').unwrap_or((lines[skipped], ""));
        let swapped = format!("{value}:{name}\r\n");
        let huge = format!("{name}:99999999999999999999 -1 {}\r\n", value.trim_end());
        for mutilated in ["", &doubled, &swapped, &huge] {
            if end.state == Some(PeerState::Failed) {
                end = Endpoint::open("b", audio_video(SendRecv), None);
            }
            let operation = end.accept_offer(&format!("{before}{mutilated}{after}"));
            end.outcome_of(operation).await;
        }
    }
}

#[tokio::test]
async fn a_full_command_queue_makes_the_connection_fail() {
    let mut end = Endpoint::open("a", audio_video(SendRecv), None);
    for _ in 0..400 {
        end.make_offer(false);
    }
    end.until_state(PeerState::Failed).await;
    let late = end.make_offer(false);
    assert!(matches!(end.outcome_of(late).await, PeerEvent::Failed { .. }));
}

#[tokio::test]
async fn a_connection_that_cannot_be_built_reports_that_it_failed() {
    let media = audio_video(SendRecv);
    let (events_in, mut events) = tokio::sync::mpsc::channel(8);
    let (tracks, _tracks) = tokio::sync::mpsc::channel(1);
    let config = quintet::transport::ConnectionConfig {
        peer: quintet::model::PeerId(3),
        media,
        stream: "two words\r\na=injected".to_owned(),
        mixes: PerSource { camera: "video".to_owned(), microphone: "audio".to_owned() },
        impairment: None,
        rtp_dump: None,
        network: None,
        paths: Default::default(),
        checks: Default::default(),
    };
    let sinks = quintet::transport::EventSinks { events: events_in, tracks };
    let _connection = Connection::open(config, sinks);
    let failed = PeerEvent::State(PeerState::Failed);
    assert_eq!(events.recv().await, Some((quintet::model::PeerId(3), failed)));
}
