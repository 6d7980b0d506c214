//! Redundant audio (RFC 2198) between two connections that lose packets, in virtual time.

use std::time::Duration;

use quintet::{
    media::{self, EncodedAudio, Fanout, IncomingTrack, RecentAudio, RtpPacket},
    model::Direction::{RecvOnly, SendOnly},
    transport::Impairment,
};
use tokio::time::{Interval, interval};

use super::pair::{Pair, audio_video};

const LOSSY: Impairment = Impairment { seed: 3, loss: 0.2, ..Impairment::NONE };

/// A pair whose first end sends audio.
struct Call {
    pair: Pair,
    audio: Fanout<EncodedAudio>,
    recent: RecentAudio,
    clock: Interval,
    number: u64,
    track: Option<IncomingTrack>,
    received: Vec<RtpPacket>,
}

impl Call {
    /// Connects a call. `change` changes the offer.
    async fn connected(change: impl Fn(&str) -> String) -> Self {
        let mut pair = Pair::impaired([SendOnly, RecvOnly].map(audio_video), LOSSY);
        let offer = pair.a.make_offer(false);
        let offer = pair.a.description(offer).await;
        let answer = pair.b.accept_offer(&change(&offer));
        let answer = pair.b.description(answer).await;
        pair.a.accept_answer(&answer);
        pair.until_connected().await;
        let audio = Fanout::default();
        pair.a.connection.send_audio(Some(audio.subscribe(25)));
        let (recent, clock) = (RecentAudio::default(), interval(Duration::from_millis(20)));
        Self { pair, audio, recent, clock, number: 0, track: None, received: vec![] }
    }

    /// Captures packets of 20 ms, whose content is `what` and their number.
    async fn capture(&mut self, packets: u64, what: &str) {
        for _ in 0..packets {
            self.clock.tick().await;
            let data = format!("{what} {}", self.number).into();
            let packet = self.recent.next_packet(media::now(), self.number * 960, data);
            self.audio.publish(packet);
            self.number += 1;
            if self.track.is_none() {
                self.track = self.pair.b.tracks.try_recv().ok();
            }
            let packets = self
                .track
                .iter_mut()
                .flat_map(|track| std::iter::from_fn(|| track.packets.try_recv().ok()));
            self.received.extend(packets);
        }
    }

    fn mute(&self, is_muted: bool) {
        self.pair.a.connection.send_audio((!is_muted).then(|| self.audio.subscribe(25)));
    }
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// The payload of a packet with that timestamp.
fn spoken(timestamp: u32) -> String {
    format!("voice {}", timestamp / 960)
}

#[tokio::test(start_paused = true)]
async fn where_packets_are_lost_they_have_copies_of_earlier_ones() {
    let mut call = Call::connected(str::to_owned).await;
    call.capture(400, "voice").await;
    let offsets = |packet: &RtpPacket| packet.copies.iter().map(|copy| copy.offset).collect();
    let offsets: Vec<Vec<u32>> = call.received.iter().map(offsets).collect();
    assert!(offsets[..5].iter().all(Vec::is_empty), "before a loss is reported");
    assert!(
        offsets[250..].iter().all(|copies| *copies == [3840, 1920, 960]),
        "{:?}",
        &offsets[250..]
    );
    for packet in &call.received {
        assert_eq!(text(&packet.payload), spoken(packet.timestamp));
        for copy in &packet.copies {
            assert_eq!(text(&copy.payload), spoken(packet.timestamp - copy.offset));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_without_redundant_audio_is_sent_none() {
    let without = |offer: &str| -> String {
        assert!(offer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 63 111"), "{offer}");
        let lines = offer.lines().filter(|line| !line.contains(":63 "));
        let fields = |line: &str| -> Vec<_> {
            line.split(' ').filter(|field| *field != "63").map(str::to_owned).collect()
        };
        lines
            .map(|line| match line.starts_with("m=audio") {
                true => fields(line).join(" ") + "\r\n",
                false => line.to_owned() + "\r\n",
            })
            .collect()
    };
    let mut call = Call::connected(without).await;
    call.capture(400, "voice").await;
    assert!(call.received.len() > 250, "{}", call.received.len());
    for packet in &call.received {
        assert_eq!((text(&packet.payload), packet.copies.len()), (spoken(packet.timestamp), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn no_copy_of_what_was_captured_while_muted_is_sent() {
    let mut call = Call::connected(str::to_owned).await;
    call.capture(200, "voice").await;
    for _ in 0..5 {
        call.mute(true);
        call.capture(20, "secret").await;
        call.mute(false);
        call.capture(20, "voice").await;
    }
    let copies = call.received.iter().flat_map(|packet| &packet.copies);
    let sent: Vec<_> = call.received.iter().map(|packet| text(&packet.payload)).collect();
    assert!(copies.clone().count() > 100, "there are copies");
    assert!(!copies.clone().any(|copy| text(&copy.payload).starts_with("secret")), "{sent:?}");
    assert!(!sent.iter().any(|sent| sent.starts_with("secret")), "{sent:?}");
}
