//! Descriptions of a browser that lacks a codec, rejects sections or changes the `setup` attribute.
//!
//! The SDP files are from Chromium 156.

use quintet::{
    media::{Codec, EncodedAudio, Fanout},
    model::{
        Candidate, DataChannelKind,
        Direction::{RecvOnly, SendRecv},
        Media, MediaSet, NegotiatedMedia, PeerEvent, PeerMedia, PerChannel, PerSource, TrackId,
    },
};

use super::{
    frames::audio_packet,
    pair::{Endpoint, Pair, audio_video, guarded, sections},
};

const OFFER: &str = include_str!("chromium-offer.sdp");
const OFFER_VP8_ONLY: &str = include_str!("chromium-offer-vp8-only.sdp");
const OFFER_WITHOUT_OPUS: &str = include_str!("chromium-offer-without-opus.sdp");
const ANSWER_WITHOUT_VIDEO: &str = include_str!("chromium-answer-without-video.sdp");

const ALL: PeerMedia = PeerMedia {
    sections: PerSource { camera: Some(SendRecv), microphone: Some(SendRecv) },
    channels: PerChannel::ALL,
};

/// The lines of each media section.
fn split(sdp: &str) -> Vec<&str> {
    let starts: Vec<usize> = sdp.match_indices("\r\nm=").map(|(at, _)| at + 2).collect();
    let ends = starts.iter().skip(1).copied().chain([sdp.len()]);
    starts.iter().zip(ends).map(|(start, end)| &sdp[*start..end]).collect()
}

/// The answer with that section rejected as Chromium rejects one: with ICE credentials, a
/// fingerprint and a direction of its own.
fn rejecting(answer: &str, section: usize) -> String {
    let own = split(answer)[section];
    let kind = own.split(' ').next().expect("m=");
    let mid = own.lines().find(|line| line.starts_with("a=mid:")).expect("a mid");
    let rejected = split(ANSWER_WITHOUT_VIDEO)[1]
        .replace("m=video", kind)
        .replace("a=mid:1", mid)
        .replace("FC:84:5D", "00:11:22");
    assert_eq!(rejected.matches("a=ice-ufrag:muqT").count(), 1);
    let group = answer.lines().find(|line| line.starts_with("a=group:BUNDLE")).expect("a group");
    let mid = mid.replace("a=mid:", " ");
    answer.replace(own, &rejected).replace(group, &group.replace(&mid, ""))
}

fn setups(sdp: &str) -> Vec<&str> {
    sdp.lines().filter_map(|line| line.strip_prefix("a=setup:")).collect()
}

fn candidates(end: &Endpoint) -> Vec<&Candidate> {
    let candidates = end.events.iter().filter_map(|event| match event {
        PeerEvent::Candidate(candidate) => Some(candidate),
        PeerEvent::LocalDescription { .. }
        | PeerEvent::Applied { .. }
        | PeerEvent::Failed { .. }
        | PeerEvent::Negotiated(_)
        | PeerEvent::State(_)
        | PeerEvent::AddressLost
        | PeerEvent::ChannelOpen(_)
        | PeerEvent::ChannelMessage(_) => None,
    });
    candidates.collect()
}

/// Checks that audio from one endpoint arrives at the other.
async fn audio_arrives(from: &Endpoint, at: &mut Endpoint) {
    let fanout = Fanout::<EncodedAudio>::default();
    from.connection.send_audio(Some(fanout.subscribe(64)));
    fanout.publish(audio_packet(7));
    let mut track = guarded("a track", at.tracks.recv()).await.expect("it is alive");
    assert_eq!(track.codec, Codec::Opus);
    let packet = guarded("audio", track.packets.recv()).await.expect("it is alive");
    assert_eq!(packet.payload, "audio 7");
}

#[tokio::test]
async fn a_section_that_is_answered_with_port_0_is_left_out_and_the_others_connect() {
    for (section, media) in [Media::Audio, Media::Video, Media::Data].into_iter().enumerate() {
        let mut pair = Pair::open(ALL, ALL);
        let offer = pair.a.make_offer(false);
        let offer = pair.a.description(offer).await;
        let answer = pair.b.accept_offer(&offer);
        let answer = pair.b.description(answer).await;
        let answer = rejecting(&answer, section);
        pair.a.accept_answer(&answer);
        pair.until_connected().await;
        let agreed = pair.a.agreement().await;
        assert_eq!(agreed.left_out, Some(MediaSet::from(media)));
        assert_eq!(agreed.sends.microphone, media != Media::Audio);
        assert_eq!(agreed.sends.camera, media != Media::Video);
        if media == Media::Data {
            audio_arrives(&pair.a, &mut pair.b).await;
        } else {
            let is_writable = |end: &Endpoint| {
                end.events.contains(&PeerEvent::ChannelOpen(DataChannelKind::Chat))
            };
            pair.until("open data channels", |a, b| is_writable(a) && is_writable(b)).await;
        }
        // Candidates are for the first section that is not rejected.
        let first = u16::from(section == 0);
        let last = candidates(&pair.a).last().map(|candidate| candidate.index);
        assert_eq!(last, Some(Some(first)), "{media:?}");
    }
}

#[tokio::test]
async fn a_rejected_section_keeps_its_position_and_is_not_offered_again() {
    let mut pair = Pair::open(ALL, ALL);
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&rejecting(&answer, 0));
    pair.until_connected().await;
    for restart in [false, true] {
        let again = pair.a.make_offer(restart);
        let again = pair.a.description(again).await;
        let expected = ["audio rejected inactive", "video sendrecv", "application sendrecv"];
        assert_eq!(sections(&again), expected, "{again}");
        let answer = pair.b.accept_offer(&again);
        let answer = pair.b.description(answer).await;
        assert_eq!(sections(&answer), expected, "{answer}");
        let operation = pair.a.accept_answer(&answer);
        assert_eq!(pair.a.outcome_of(operation).await, PeerEvent::Applied { operation });
        assert_eq!(pair.b.agreement().await.left_out, Some(MediaSet::AUDIO));
    }
}

#[tokio::test]
async fn a_browsers_offer_is_answered_with_the_formats_that_both_ends_support() {
    let all = ["audio sendrecv", "video sendrecv", "application sendrecv"];
    let no_video = ["audio sendrecv", "video rejected inactive", "application sendrecv"];
    let no_audio = ["audio rejected inactive", "video sendrecv", "application sendrecv"];
    let without = |media: Option<Media>| {
        let mut agreement = NegotiatedMedia::default();
        media.into_iter().for_each(|media| agreement.leave_out(media));
        let id = |of, mid| TrackId::new(mid).filter(|_| media != Some(of));
        agreement.tracks =
            PerSource { camera: id(Media::Video, "1"), microphone: id(Media::Audio, "0") };
        agreement
    };
    for (offer, expected, agreed) in [
        (OFFER, all, without(None)),
        (OFFER_VP8_ONLY, no_video, without(Some(Media::Video))),
        (OFFER_WITHOUT_OPUS, no_audio, without(Some(Media::Audio))),
    ] {
        let mut end = Endpoint::open("b", ALL, None);
        let answer = end.accept_offer(offer);
        let answer = end.description(answer).await;
        assert_eq!(sections(&answer), expected, "{answer}");
        let sends_redundant_audio = answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 63 111");
        assert_eq!(sends_redundant_audio, agreed.tracks.microphone.is_some(), "{answer}");
        assert_eq!(end.agreement().await, agreed);
        let mids: Vec<&str> =
            answer.lines().filter_map(|line| line.strip_prefix("a=mid:")).collect();
        assert_eq!(mids, ["0", "1", "2"]);
        let group = answer.lines().find_map(|line| line.strip_prefix("a=group:BUNDLE "));
        let accepted = (0..3).filter(|at| !expected[*at].contains("rejected"));
        let accepted: Vec<String> = accepted.map(|at| at.to_string()).collect();
        assert_eq!(
            group,
            Some(&*accepted.join(" ")),
            "BUNDLE begins with the first accepted section"
        );
    }
}

#[tokio::test]
async fn a_viewer_rejects_video_that_it_cannot_decode() {
    let mut end = Endpoint::open("b", audio_video(RecvOnly), None);
    let answer = end.accept_offer(OFFER_VP8_ONLY);
    let answer = end.description(answer).await;
    let expected = ["audio recvonly", "video rejected inactive"];
    assert_eq!(sections(&answer)[..2], expected, "{answer}");
}

#[tokio::test]
async fn if_all_sections_are_rejected_either_end_reports_an_empty_agreement() {
    let video = PeerMedia {
        sections: PerSource { camera: Some(SendRecv), microphone: None },
        channels: PerChannel::NONE,
    };
    let mut nothing = NegotiatedMedia::default();
    nothing.leave_out(Media::Video);
    assert!(nothing.is_empty(video) && !nothing.is_empty(ALL));
    // The remote peer offers.
    let video_only = OFFER_VP8_ONLY.replace("m=audio 9", "m=audio 0").replace(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    );
    let mut end = Endpoint::open("b", video, None);
    let answer = end.accept_offer(&video_only);
    let answer = end.description(answer).await;
    assert!(sections(&answer).iter().all(|section| section.contains("rejected")), "{answer}");
    assert_eq!(end.agreement().await, nothing);
    // The remote peer answers.
    let mut end = Endpoint::open("a", video, None);
    let offer = end.make_offer(false);
    let offer = end.description(offer).await;
    let answer = rejecting(&offer.replace("actpass", "active"), 0);
    let operation = end.accept_answer(&answer);
    assert_eq!(end.outcome_of(operation).await, PeerEvent::Applied { operation });
    assert_eq!(end.agreement().await, nothing);
}

/// One endpoint offers and the other one answers. Returns the answer.
async fn exchange(from: &mut Endpoint, to: &mut Endpoint, restart: bool) -> String {
    let offer = from.make_offer(restart);
    let offer = from.description(offer).await;
    assert_eq!(setups(&offer), ["actpass"; 2], "{offer}");
    let answer = to.accept_offer(&offer);
    let answer = to.description(answer).await;
    let operation = from.accept_answer(&answer);
    assert_eq!(from.outcome_of(operation).await, PeerEvent::Applied { operation });
    answer
}

#[tokio::test]
async fn an_answer_keeps_the_dtls_roles_whichever_end_offers() {
    let mut pair = Pair::connected(audio_video(SendRecv), audio_video(SendRecv)).await;
    let Pair { a, b } = &mut pair;
    for restart in [false, true] {
        // The first answer was b's, so b began the handshake.
        assert_eq!(setups(&exchange(b, a, restart).await), ["passive"; 2]);
        assert_eq!(setups(&exchange(a, b, restart).await), ["active"; 2]);
    }
    pair.until_connected().await;
}

#[tokio::test]
async fn an_offer_with_a_fixed_dtls_role_is_followed() {
    for (offered, answered) in [("active", "passive"), ("passive", "active")] {
        let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
        let offer = pair.a.make_offer(false);
        let offer = pair.a.description(offer).await;
        let answer = pair.b.accept_offer(&offer.replace("actpass", offered));
        let answer = pair.b.description(answer).await;
        assert_eq!(setups(&answer), [answered; 2]);
        pair.a.accept_answer(&answer);
        pair.until_connected().await;
        let Pair { a, b } = &mut pair;
        let expected = if answered == "passive" { "active" } else { "passive" };
        assert_eq!(setups(&exchange(b, a, false).await), [expected; 2]);
        // Another role would need a new handshake, which a running connection does not begin.
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let other = if answered == "passive" { "passive" } else { "active" };
        let operation = b.accept_offer(&offer.replace("actpass", other));
        let outcome = b.outcome_of(operation).await;
        let PeerEvent::Failed { reason, .. } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("handshake"), "{reason}");
    }
}
