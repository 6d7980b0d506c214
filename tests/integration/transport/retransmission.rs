//! What retransmissions look like on the wire.

#![allow(clippy::unwrap_used, reason = "a value that is missing fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quintet::{
    bandwidth::Estimate,
    media::Fanout,
    model::{Direction, PeerMedia, PerChannel, PerSource},
    transport::{Impairment, RtpDump, VirtualNetwork},
};

use super::{
    frames::{frame, keyframe_request},
    pair::{Endpoint, Pair, guarded},
    rtp_dump::{Datagram, MemoryFile, is_rtcp},
    stats::{inbound, outbound},
};

const FRAMES: u32 = 100;

/// The payload types of retransmissions that this program offers.
const RTX_PAYLOAD_TYPES: [&str; 3] = ["105", "106", "107"];

const LOSSY: Impairment =
    Impairment { seed: 3, loss: 0.1, delay: Duration::from_millis(20), ..Impairment::NONE };

const fn video(direction: Direction) -> PeerMedia {
    PeerMedia {
        sections: PerSource { camera: Some(direction), microphone: None },
        channels: PerChannel::NONE,
    }
}

/// The SSRCs and sequence numbers of sent packets, each with the packets that had them.
type Sent = BTreeMap<(u32, u16), Vec<Vec<u8>>>;

/// A call in which video is sent over a network that loses a tenth.
struct LossyCall {
    /// The SSRC of the video.
    ssrc: u32,
    /// What was handed to SRTP.
    sent: Sent,
    /// The transport-wide sequence number of each packet, in the order in which they were sent.
    numbers: Vec<u16>,
    /// The sender's estimate in the end.
    estimate: Estimate,
    /// Packets that were sent again, and different packets that arrived.
    retransmitted: u64,
    arrived: usize,
    /// Packets that arrived on the stream of retransmissions.
    repaired: u64,
}

impl LossyCall {
    /// Runs a call whose offer is changed on its way.
    async fn run(change: impl FnOnce(&str) -> String) -> Self {
        let (file, network) = (MemoryFile::default(), VirtualNetwork::default());
        let out = file.clone();
        let (dump, _opened) = RtpDump::start(move || Ok::<_, ()>(out)).unwrap();
        let endpoint = |name, direction, dump, seed| {
            Endpoint::configured(name, video(direction), |config| {
                config.network = Some(network.clone());
                config.impairment = Some(Impairment { seed, ..LOSSY });
                config.rtp_dump = dump;
            })
        };
        let a = endpoint("a", Direction::SendOnly, Some(dump), 3);
        let mut pair = Pair { a, b: endpoint("b", Direction::RecvOnly, None, 4) };
        let offer = pair.a.make_offer(false);
        let offer = change(&pair.a.description(offer).await);
        let answer = pair.b.accept_offer(&offer);
        let answer = pair.b.description(answer).await;
        pair.a.accept_answer(&answer);
        pair.until_connected().await;
        let arrived = send_frames(&mut pair).await;
        let stream = outbound(&pair.a).remove(0);
        let (sent, numbers) = sent_packets(&file, stream.packets_sent as usize);
        let estimate = *pair.a.connection.estimates().borrow();
        let repaired = inbound(&pair.b)[0].retransmitted_packets_received;
        let retransmitted = stream.retransmitted_packets_sent;
        Self { ssrc: stream.ssrc, sent, numbers, estimate, retransmitted, arrived, repaired }
    }

    fn first_transmissions(&self) -> usize {
        self.sent.keys().filter(|(ssrc, _)| *ssrc == self.ssrc).count()
    }
}

/// Sends frames, and returns how many different packets arrive.
async fn send_frames(pair: &mut Pair) -> usize {
    let fanout = Fanout::default();
    pair.a.connection.send_video(Some(fanout.subscribe(8)));
    keyframe_request(&fanout).await;
    let publisher = tokio::spawn(async move {
        // 320 kbit/s: less than an estimator begins with.
        let mut clock = tokio::time::interval(Duration::from_millis(100));
        for number in 0..FRAMES {
            clock.tick().await;
            fanout.publish(frame(number, number == 0, 4000));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    let mut track = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let mut arrived = BTreeSet::new();
    let silence = Duration::from_millis(500);
    while let Ok(Some(packet)) = tokio::time::timeout(silence, track.packets.recv()).await {
        arrived.insert(packet.sequence);
    }
    publisher.await.unwrap();
    arrived.len()
}

/// The packets in a dump, once there are that many. The thread that writes it has no part in the
/// test's clock.
fn sent_packets(file: &MemoryFile, count: usize) -> (Sent, Vec<u16>) {
    let is_sent = |one: &Datagram| (one.0, one.1) == (20_007, 40_007) && !is_rtcp(&one.2);
    let mut latest = 0;
    for _ in 0..500 {
        let sent: Vec<_> = file.datagrams().into_iter().filter(is_sent).collect();
        // Probes are not counted.
        if sent.len() >= count && sent.len() == latest {
            let (mut packets, mut numbers) = (Sent::new(), vec![]);
            for (_, _, packet) in sent {
                let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                numbers.extend(transport_wide_number(&packet));
                packets.entry((ssrc, number)).or_default().push(packet);
            }
            return (packets, numbers);
        }
        latest = sent.len();
        std::thread::sleep(Duration::from_millis(30));
    }
    panic!("the dump does not have {count} packets");
}

/// The number in the only header extension of a packet (RFC 8285, section 4.2).
fn transport_wide_number(packet: &[u8]) -> Option<u16> {
    let [0xbe, 0xde, 0, 1, id, high, low, 0] = packet[12..20] else { return None };
    (packet[0] & 0x10 != 0 && id & 0x0f == 1).then(|| u16::from_be_bytes([high, low]))
}

/// The description without retransmissions on a stream of their own.
fn without_rtx(sdp: &str) -> String {
    let group = sdp.lines().find_map(|line| line.strip_prefix("a=ssrc-group:FID "));
    let rtx_ssrc = group.and_then(|group| group.split(' ').nth(1)).expect("an RTX stream");
    let is_rtx = |word: &str| RTX_PAYLOAD_TYPES.contains(&word) || word == rtx_ssrc;
    let lines = sdp.lines().filter_map(|line| {
        if line.starts_with("m=") {
            let words: Vec<_> = line.split(' ').filter(|word| !is_rtx(word)).collect();
            return Some(words.join(" "));
        }
        let is_of_rtx = line.split([':', ' ']).nth(1).is_some_and(is_rtx);
        (!is_of_rtx && !line.starts_with("a=ssrc-group:")).then(|| line.to_owned())
    });
    lines.map(|line| line + "\r\n").collect()
}

/// Two different packets with one SRTP nonce (SSRC, rollover counter and sequence number) would
/// reveal the key that authenticates packets.
fn assert_no_nonce_is_reused(sent: &Sent) {
    for (nonce, packets) in sent {
        assert!(packets.iter().all(|packet| *packet == packets[0]), "{nonce:?}: {packets:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retransmissions_have_a_stream_and_numbers_of_their_own() {
    let call = LossyCall::run(str::to_owned).await;
    assert_no_nonce_is_reused(&call.sent);
    assert!(call.sent.values().all(|packets| packets.len() == 1), "no number is used twice");
    let other = call.sent.len() - call.first_transmissions();
    assert!(other as u64 >= call.retransmitted, "the rest is padding");
    assert!(call.repaired * 10 > call.retransmitted * 7, "{} arrived", call.repaired);
    // No later packet announces the very last one.
    assert!(call.arrived + 1 >= call.first_transmissions(), "all losses are repaired");
    let consecutive: Vec<u16> = (0..call.sent.len() as u16).collect();
    assert_eq!(call.numbers, consecutive, "each transmission has the next number");
    let share = call.retransmitted as f64 / call.arrived as f64;
    assert!((0.05..0.15).contains(&share), "{share} of the packets were sent again");
    let estimate = call.estimate;
    assert!(
        (0.02..0.25).contains(&estimate.loss) && estimate.acknowledged.is_some(),
        "{estimate:?}"
    );
    assert!(estimate.round_trip >= Some(Duration::from_millis(40)), "{estimate:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_stream_for_them_retransmissions_are_bit_identical() {
    let call = LossyCall::run(without_rtx).await;
    assert_no_nonce_is_reused(&call.sent);
    assert_eq!(call.first_transmissions(), call.sent.len(), "there is one stream");
    let again: usize = call.sent.values().map(|packets| packets.len() - 1).sum();
    assert_eq!((again as u64, call.repaired), (call.retransmitted, 0));
    assert!(again > 20, "{again} packets were sent again");
    // No later packet announces the very last one.
    assert!(call.arrived + 1 >= call.first_transmissions(), "all losses are repaired");
}
