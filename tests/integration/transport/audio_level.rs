//! The level of the audio in packets (RFC 6464) between two connections, in virtual time.

use std::time::Duration;

use quintet::{
    media::{AudioLevel, EncodedAudio, Fanout, RtpPacket},
    model::Direction::{RecvOnly, SendOnly},
    transport::Impairment,
};
use tokio::time::sleep;

use super::{
    frames::audio_packet,
    pair::{Endpoint, Pair, audio_video, guarded},
};

const URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// Sends four packets with levels, and one whose level was not measured, and mutes then. Returns what
/// arrives. `change` changes the offer.
async fn received(change: impl Fn(&str) -> String) -> Vec<RtpPacket> {
    let mut pair = Pair::impaired([SendOnly, RecvOnly].map(audio_video), Impairment::NONE);
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&change(&offer));
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&answer);
    pair.until_connected().await;
    let audio = Fanout::<EncodedAudio>::default();
    pair.a.connection.send_audio(Some(audio.subscribe(25)));
    for number in 0..5 {
        let mut packet = audio_packet(number);
        packet.level =
            (number < 4).then(|| AudioLevel::new(-10.0 * number as f64, number % 2 == 1));
        audio.publish(packet);
        sleep(Duration::from_millis(20)).await;
    }
    pair.a.connection.send_audio(None);
    let mut track = guarded("a track", pair.b.tracks.recv()).await.expect("it is alive");
    sleep(Duration::from_millis(200)).await;
    std::iter::from_fn(|| track.packets.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn packets_tell_their_level_and_the_end_of_a_mute_is_silence() {
    let packets = received(str::to_owned).await;
    let levels: Vec<_> = packets.iter().map(|packet| packet.level).collect();
    let measured = (0..4).map(|n| Some(AudioLevel::new(-10.0 * f64::from(n), n % 2 == 1)));
    let expected: Vec<_> = measured.chain([None]).chain([Some(AudioLevel::SILENCE); 3]).collect();
    assert_eq!(levels, expected);
    assert_eq!(packets[0].payload, "audio 0");
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_know_levels_is_sent_none() {
    let without = |offer: &str| {
        let lines = offer.lines().filter(|line| !line.contains(URI));
        lines.map(|line| format!("{line}\r\n")).collect()
    };
    let packets = received(without).await;
    assert_eq!(packets.len(), 8);
    assert!(packets.iter().all(|packet| packet.level.is_none()));
}

#[tokio::test]
async fn a_browser_that_offers_levels_gets_and_sends_them() {
    let mut end = Endpoint::open("b", audio_video(RecvOnly), None);
    let answer = end.accept_offer(include_str!("chromium-offer.sdp"));
    let answer = end.description(answer).await;
    let audio = answer.split("m=video").next().expect("a section of audio");
    assert!(audio.contains(&format!("a=extmap:1 {URI}\r\n")), "{answer}");
    assert_eq!(answer.matches(URI).count(), 1, "video has no level");
}
