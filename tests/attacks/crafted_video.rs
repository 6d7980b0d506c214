//! Crafted H.264 video that makes a decoder keep far more frames than it needs.

use std::time::Duration;

use bytes::Bytes;
use openh264::{encoder::Encoder, formats::YUVBuffer};
use quintet::transport::packetize_h264;
use rtc::{
    media_stream::MediaStreamTrack,
    rtp,
    rtp_transceiver::rtp_sender::{
        RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
    },
};
use webrtc::media_stream::track_local::{TrackLocal as _, static_rtp::TrackLocalStaticRTP};

/// The payload type of H.264 constrained baseline in the offers of our programs.
const H264_PAYLOAD_TYPE: u8 = 102;

const SSRC: u32 = 0x5a5a;

/// Frames per second.
const FPS: u64 = 15;

/// A keyframe of 1920x1080 whose SPS declares sixteen reference frames.
pub(crate) fn keyframe_with_sixteen_references() -> Bytes {
    let (width, height) = (1920, 1080);
    let frame = YUVBuffer::from_vec(vec![128; width * height * 3 / 2], width, height);
    let mut encoder = Encoder::new().expect("an encoder");
    let stream = encoder.encode(&frame).expect("a keyframe").to_vec();
    split_nal_units(&stream)
        .into_iter()
        .flat_map(|unit| [vec![0, 0, 0, 1], with_sixteen_references(unit)].concat())
        .collect()
}

/// The NAL units of an Annex B stream.
fn split_nal_units(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = vec![];
    while let [first, tail @ ..] = stream {
        let payload =
            stream.strip_prefix(&[0, 0, 0, 1]).or_else(|| stream.strip_prefix(&[0, 0, 1]));
        if payload.is_some() {
            units.push(vec![]);
        } else if let Some(unit) = units.last_mut() {
            unit.push(*first);
        }
        stream = payload.unwrap_or(tail);
    }
    units
}

/// Changes the number of reference frames to sixteen if the unit is an SPS (ITU-T H.264,
/// 7.3.2.1.1); returns other units unchanged.
fn with_sixteen_references(unit: Vec<u8>) -> Vec<u8> {
    if unit[0] & 0x1f != 7 {
        return unit;
    }
    let mut bits = BitString::from_bytes(&unescaped(&unit[4..]));
    let (sps_id, frame_num_bits, poc_type) =
        (bits.read_exp_golomb(), bits.read_exp_golomb(), bits.read_exp_golomb());
    let poc_bits = (poc_type == 0).then(|| bits.read_exp_golomb());
    assert_ne!(poc_type, 1, "OpenH264 does not use this picture order count type");
    bits.read_exp_golomb();
    let mut written = BitString::default();
    [Some(sps_id), Some(frame_num_bits), Some(poc_type), poc_bits, Some(16)]
        .into_iter()
        .flatten()
        .for_each(|number| written.write_exp_golomb(number));
    written.0.extend(&bits.0[bits.1..]);
    // Level 4.2.
    [&unit[..3], &[42], &escaped(&written.to_bytes())].concat()
}

/// Bits, and the position of the next one to read.
#[derive(Default)]
struct BitString(Vec<bool>, usize);

impl BitString {
    fn from_bytes(bytes: &[u8]) -> Self {
        let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1 == 1));
        Self(bits.collect(), 0)
    }

    /// Reads an unsigned Exp-Golomb number (ITU-T H.264, 9.1).
    fn read_exp_golomb(&mut self) -> u64 {
        let zeros = self.0[self.1..].iter().take_while(|bit| !**bit).count();
        self.1 += zeros;
        let digits = &self.0[self.1..=self.1 + zeros];
        self.1 += zeros + 1;
        digits.iter().fold(0, |number, bit| number << 1 | u64::from(*bit)) - 1
    }

    fn write_exp_golomb(&mut self, number: u64) {
        let length = 64 - (number + 1).leading_zeros();
        self.0.extend((1..length).map(|_| false));
        self.0.extend((0..length).rev().map(|at| (number + 1) >> at & 1 == 1));
    }

    /// The bits as bytes, padded with zeros: zeros may follow the end of an SPS.
    fn to_bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << (7 - at))
        };
        self.0.chunks(8).map(byte).collect()
    }
}

fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let mut clean: Vec<u8> = vec![];
    for (at, byte) in bytes.iter().enumerate() {
        if !(*byte == 3 && at >= 2 && bytes[at - 2..at] == [0, 0]) {
            clean.push(*byte);
        }
    }
    clean
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut escaped: Vec<u8> = vec![];
    for byte in bytes {
        if *byte <= 3 && escaped.ends_with(&[0, 0]) {
            escaped.push(3);
        }
        escaped.push(*byte);
    }
    escaped
}

/// The local track for the crafted video.
pub(crate) fn local_track() -> TrackLocalStaticRTP {
    let codec = RTCRtpCodec {
        mime_type: "video/H264".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
            .to_owned(),
        rtcp_feedback: vec![],
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(SSRC),
            ..RTCRtpCodingParameters::default()
        },
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    let name = || "crafted-video".to_owned();
    let kind = RtpCodecKind::Video;
    TrackLocalStaticRTP::new(MediaStreamTrack::new(name(), name(), name(), kind, vec![encoding]))
}

/// Sends an access unit as each frame of a video stream, without end. Packets sent before the
/// connection is up are lost.
pub(crate) async fn send_repeatedly(
    track: std::sync::Arc<TrackLocalStaticRTP>,
    access_unit: Bytes,
) {
    let mut clock = tokio::time::interval(Duration::from_millis(1000 / FPS));
    let payloads = packetize_h264(&access_unit);
    let mut sequence_number = 0_u16;
    for number in 0_u32.. {
        clock.tick().await;
        for (at, payload) in (1..).zip(&payloads) {
            let header = rtp::Header {
                version: 2,
                marker: at == payloads.len(),
                payload_type: H264_PAYLOAD_TYPE,
                sequence_number,
                timestamp: number.wrapping_mul(90_000 / FPS as u32),
                ssrc: SSRC,
                ..rtp::Header::default()
            };
            sequence_number = sequence_number.wrapping_add(1);
            let _ = track.write_rtp(rtp::Packet { header, payload: payload.clone() }).await;
        }
    }
}
