//! Frames and packets to send, and the reassembly of received frames.

use std::time::Duration;

use bytes::Bytes;
use quintet::{
    media::{self, EncodedAudio, EncodedVideo, Fanout, RtpPacket},
    model::{Layer, MediaTime, Size},
};
use tokio::sync::mpsc;

use super::pair::guarded;

/// A frame of synthetic NAL units that is identified by `number` in its slice.
pub(crate) fn frame(number: u32, is_key: bool, slice_bytes: usize) -> EncodedVideo {
    let data = access_unit(number, is_key, slice_bytes);
    EncodedVideo::new(Layer::Full, media::now(), Size::new(320, 180), is_key, data.into())
}

/// A short frame of another layer, captured at that time.
pub(crate) fn frame_at(time: MediaTime, number: u32, is_key: bool) -> EncodedVideo {
    let data = access_unit(number, is_key, 100);
    EncodedVideo::new(Layer::Half, time, Size::new(160, 90), is_key, data.into())
}

fn access_unit(number: u32, is_key: bool, slice_bytes: usize) -> Vec<u8> {
    let mut data = vec![];
    if is_key {
        data.extend_from_slice(&[0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 1]);
    }
    data.extend_from_slice(&[0, 0, 0, 1, if is_key { 0x65 } else { 0x41 }]);
    data.extend(number.to_be_bytes().map(|byte| byte | 0x80));
    data.resize(data.len() + slice_bytes, 0xab);
    data
}

/// An audio packet that is identified by `number` in its payload.
pub(crate) fn audio_packet(number: u64) -> EncodedAudio {
    let data = Bytes::from(format!("audio {number}"));
    EncodedAudio::new(media::now(), number * 960, data)
}

/// The NAL units of an Annex B stream whose units hold no zeros at their ends.
pub(crate) fn nal_units(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = vec![];
    let mut at = 0;
    while at < stream.len() {
        let remaining = &stream[at..];
        if remaining.starts_with(&[0, 0, 1]) {
            units.push(vec![]);
            at += 3;
        } else {
            if let Some(unit) = units.last_mut() {
                unit.push(remaining[0]);
            }
            at += 1;
        }
    }
    for unit in &mut units {
        while unit.last() == Some(&0) {
            unit.pop();
        }
    }
    units
}

/// The NAL units of one frame's packets (RFC 6184: single, STAP-A, FU-A).
pub(crate) fn reassemble(packets: &[RtpPacket]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = vec![];
    for RtpPacket { payload, .. } in packets {
        match payload[0] & 0x1f {
            24 => {
                let mut remaining = &payload[1..];
                while remaining.len() > 2 {
                    let length = usize::from(u16::from_be_bytes([remaining[0], remaining[1]]));
                    units.push(remaining[2..2 + length].to_vec());
                    remaining = &remaining[2 + length..];
                }
            }
            28 if payload[1] & 0x80 != 0 => {
                units.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                extend_last(&mut units, &payload[2..]);
            }
            28 => extend_last(&mut units, &payload[2..]),
            _ => units.push(payload.to_vec()),
        }
    }
    units
}

fn extend_last(units: &mut [Vec<u8>], bytes: &[u8]) {
    units.last_mut().expect("a fragment follows the first").extend_from_slice(bytes);
}

/// The next frame's packets, which must arrive in order and without a gap.
pub(crate) async fn next_frame(packets: &mut mpsc::Receiver<RtpPacket>) -> Vec<RtpPacket> {
    let mut frame: Vec<RtpPacket> = vec![];
    loop {
        let packet = guarded("a packet", packets.recv()).await.expect("the track is alive");
        if let Some(before) = frame.last() {
            assert_eq!(packet.sequence, before.sequence.wrapping_add(1));
            assert_eq!(packet.timestamp, before.timestamp);
        }
        let last = packet.marker;
        frame.push(packet);
        if last {
            return frame;
        }
    }
}

/// Waits until a keyframe is requested.
pub(crate) async fn keyframe_request(fanout: &Fanout<EncodedVideo>) {
    let mut clock = tokio::time::interval(Duration::from_millis(2));
    guarded("a keyframe request", async {
        while !fanout.take_keyframe_request() {
            clock.tick().await;
        }
    })
    .await;
}
