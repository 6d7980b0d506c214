//! The dump of a connection's packets, read back.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use quintet::{
    media::{EncodedAudio, Fanout, IncomingTrack},
    model::{Direction::SendRecv, PeerMedia, PerChannel, PerSource},
    transport::RtpDump,
};

use super::{
    frames::audio_packet,
    pair::{Endpoint, Pair, guarded},
};

const AUDIO: PeerMedia = PeerMedia {
    sections: PerSource { camera: None, microphone: Some(SendRecv) },
    channels: PerChannel::NONE,
};

/// Audio packets that each end sends.
const PACKETS: u32 = 10;

/// A file in memory.
#[derive(Clone, Default)]
pub(super) struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl Write for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A datagram in a dump: source port, destination port, payload.
pub(super) type Datagram = (u16, u16, Vec<u8>);

impl MemoryFile {
    pub(super) fn datagrams(&self) -> Vec<Datagram> {
        let file = self.0.lock().expect("no test panicked");
        let mut rest = file.get(24..).unwrap_or_default();
        let mut datagrams = vec![];
        while let Some((header, packets)) = rest.split_at_checked(16) {
            let length =
                u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            // The last record may be incomplete.
            let Some((packet, next)) = packets.split_at_checked(length) else { break };
            let port = |at| u16::from_be_bytes([packet[at], packet[at + 1]]);
            datagrams.push((port(20), port(22), packet[28..].to_vec()));
            rest = next;
        }
        datagrams
    }

    /// The RTP packets between two ports: SSRC, sequence number, payload.
    fn rtp(&self, from: u16, to: u16) -> Vec<(u32, u16, Vec<u8>)> {
        let datagrams = self.datagrams().into_iter();
        let media = datagrams.filter(|one| (one.0, one.1) == (from, to) && !is_rtcp(&one.2));
        media
            .map(|(_, _, packet)| {
                let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                let extension = if packet[0] & 0x10 == 0 {
                    0
                } else {
                    4 + 4 * usize::from(u16::from_be_bytes([packet[14], packet[15]]))
                };
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                (ssrc, sequence, packet[12 + extension..].to_vec())
            })
            .collect()
    }

    fn has_rtcp(&self, from: u16, to: u16) -> bool {
        self.datagrams().iter().any(|one| (one.0, one.1) == (from, to) && is_rtcp(&one.2))
    }
}

/// RFC 5761, section 4.
pub(super) fn is_rtcp(packet: &[u8]) -> bool {
    (192..=223).contains(&packet[1])
}

/// The next packets of a track: SSRC, sequence number, payload.
async fn received(track: &mut IncomingTrack) -> Vec<(u32, u16, Vec<u8>)> {
    let mut packets = vec![];
    for _ in 0..PACKETS {
        let packet = guarded("audio", track.packets.recv()).await.expect("it is open");
        packets.push((track.ssrc, packet.sequence, packet.payload.to_vec()));
    }
    packets
}

#[tokio::test]
async fn a_dump_has_every_packet_of_both_directions() {
    let file = MemoryFile::default();
    let out = file.clone();
    let (dump, _opened) = RtpDump::start(move || Ok::<_, ()>(out)).unwrap();
    let a = Endpoint::configured("a", AUDIO, |config| config.rtp_dump = Some(dump));
    let mut pair = Pair { a, b: Endpoint::open("b", AUDIO, None) };
    pair.connect().await;
    let fanout = Fanout::<EncodedAudio>::default();
    pair.a.connection.send_audio(Some(fanout.subscribe(64)));
    pair.b.connection.send_audio(Some(fanout.subscribe(64)));
    (0..PACKETS).for_each(|number| fanout.publish(audio_packet(u64::from(number))));
    let mut at_a = guarded("a track", pair.a.tracks.recv()).await.unwrap();
    let mut at_b = guarded("a track", pair.b.tracks.recv()).await.unwrap();
    let (from_a, from_b) = (received(&mut at_b).await, received(&mut at_a).await);

    // The peer's number is 7.
    let (local, remote) = (20_007, 40_007);
    guarded("the dump", async {
        while !file.has_rtcp(local, remote) || !file.has_rtcp(remote, local) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(file.rtp(local, remote), from_a);
    assert_eq!(file.rtp(remote, local), from_b);
    let announced = file.datagrams().into_iter().filter(|one| one.1 == 9875);
    let text: Vec<_> = announced.map(|one| String::from_utf8_lossy(&one.2).into_owned()).collect();
    assert!(text[0].contains("m=audio 20007 ") && text[1].contains("m=audio 40007 "), "{text:?}");
}
