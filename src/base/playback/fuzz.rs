//! Fuzz targets (`tests/fuzz`) for received video and audio, which are untrusted input.
//!
//! The fuzzer mutates a valid stream, so that it reaches the decoders within seconds.

use std::sync::LazyLock;

use bytes::Bytes;

use super::{
    audio_receiver::AudioReceiver,
    testing::{TestPacketizer, TestVideoEncoder, ToneEncoder, at},
    video_decoder::VideoDecoder,
    video_receive_buffer::VideoReceiveBuffer,
};
use crate::{
    media::{RedundantPayload, RtpPacket},
    model::Size,
};

/// Ten frames of 64x64 at 25 fps. The first and the sixth are keyframes.
static VIDEO_PACKETS: LazyLock<Vec<RtpPacket>> = LazyLock::new(|| {
    let (mut encoder, mut packetizer) =
        (TestVideoEncoder::new(Size::new(64, 64)), TestPacketizer { sequence: 65_530 });
    let frames = (0..10_u32).map(|n| (n, encoder.next_frame(n % 5 == 0, u64::from(n))));
    frames
        .flat_map(|(n, nals)| packetizer.packetize(&nals, n * 3600, at(u64::from(n) * 40)))
        .collect()
});

/// A tone in packets of 20 ms, each with a copy of the one two before it.
static AUDIO_PACKETS: LazyLock<Vec<RtpPacket>> = LazyLock::new(|| {
    let mut encoder = ToneEncoder::with_fec(440.0, 0.5);
    let payloads: Vec<Bytes> = (0..20).map(|_| encoder.next_packet().into()).collect();
    let copies = |n: u32| {
        let earlier = n.checked_sub(2).map(|earlier| payloads[earlier as usize].clone());
        earlier.map(|payload| RedundantPayload { offset: 1920, payload }).into_iter().collect()
    };
    let packets = (0..20_u32).map(|n| RtpPacket {
        sequence: 65_530_u16.wrapping_add(n as u16),
        timestamp: n * 960,
        marker: false,
        payload: payloads[n as usize].clone(),
        copies: copies(n),
        level: None,
        arrival: at(u64::from(n) * 20),
    });
    packets.collect()
});

/// Reorders and decodes a video stream that `data` mutates.
pub fn video(data: &[u8]) {
    let (mut buffer, mut decoder) = (VideoReceiveBuffer::new(), VideoDecoder::default());
    let mut awaits_keyframe = false;
    buffer.set_subscribed(true);
    for packet in mutated(&VIDEO_PACKETS, data) {
        let now = packet.arrival;
        buffer.push(packet);
        buffer.advance(now);
        buffer.take_keyframe_request(now);
        while let Some(unit) = buffer.next_unit() {
            awaits_keyframe = awaits_keyframe && !unit.is_keyframe;
            if !awaits_keyframe && decoder.decode(&unit).frame.is_err() {
                awaits_keyframe = true;
                buffer.require_keyframe();
            }
        }
    }
}

/// Reorders, decodes and conceals an audio stream that `data` mutates.
pub fn audio(data: &[u8]) {
    let Ok(mut receiver) = AudioReceiver::new() else { return };
    for packet in mutated(&AUDIO_PACKETS, data) {
        let now = packet.arrival;
        receiver.push(&packet);
        for block in [receiver.pull(now), receiver.pull(now)].into_iter().flatten() {
            assert!(block.mid.iter().all(|sample| sample.is_finite()));
        }
    }
}

/// Applies mutations to the stream. Each one takes six bytes of `data`, and the bytes that it
/// inserts. All other packets pass unchanged.
fn mutated(stream: &[RtpPacket], mut data: &[u8]) -> Vec<RtpPacket> {
    let (mut out, mut index, mut late) = (vec![], 0, 0);
    while let Some(([skip, what, a, b, c, d], rest)) = data.split_first_chunk() {
        data = rest;
        let end = (index + usize::from(skip % 8)).min(stream.len());
        out.extend(stream[index..end].iter().map(|packet| delayed(packet, late)));
        index = end;
        let Some(packet) = stream.get(index) else { break };
        let mut packet = delayed(packet, late);
        let number = u16::from_le_bytes([*a, *b]);
        match what % 8 {
            0 => index += 1,
            1 => out.push(packet),
            2 => {
                packet.sequence = packet.sequence.wrapping_add(number);
                out.push(packet);
            }
            3 => {
                packet.timestamp = u32::from_le_bytes([*a, *b, *c, *d]);
                out.push(packet);
            }
            4 => {
                let mut payload = packet.payload.to_vec();
                let at = usize::from(number) % payload.len().max(1);
                payload.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= c | 1);
                payload.truncate(if *d == 0 { at } else { payload.len() });
                packet.payload = payload.into();
                out.push(packet);
                index += 1;
            }
            5 => {
                let (inserted, rest) = data.split_at(usize::from(*c).min(data.len()));
                data = rest;
                let mut payload = packet.payload.to_vec();
                let at = usize::from(number) % (payload.len() + 1);
                payload.splice(at.., inserted.iter().copied());
                packet.payload = payload.into();
                packet.marker ^= d % 2 == 1;
                out.push(packet);
                index += 1;
            }
            6 => late += u64::from(number),
            _ => index = usize::from(number) % stream.len(),
        }
    }
    out.extend(stream[index.min(stream.len())..].iter().map(|packet| delayed(packet, late)));
    out
}

fn delayed(packet: &RtpPacket, ms: u64) -> RtpPacket {
    let arrival = packet.arrival + std::time::Duration::from_millis(ms);
    RtpPacket { arrival, ..packet.clone() }
}
