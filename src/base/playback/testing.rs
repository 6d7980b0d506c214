//! Test senders: encoded video frames and tones in RTP packets.

#![allow(clippy::unwrap_used, reason = "only tests and fuzz targets use this")]

use bytes::Bytes;
use openh264::{
    encoder::{Encoder, EncoderConfig, SpsPpsStrategy},
    formats::YUVSlices,
};
use tokio::sync::mpsc;

use crate::{
    media::{
        BurntInTimecode, Codec, IncomingTrack, KeyframeRequest, RoundTripTime, RtpPacket,
        SenderReports, TrackFailure,
    },
    model::{MediaTime, PeerId, Size, Source},
};

/// Encodes frames of moving stripes with a timecode.
pub(super) struct TestVideoEncoder {
    size: Size,
    encoder: Encoder,
    frame: u32,
}

impl TestVideoEncoder {
    pub(super) fn new(size: Size) -> Self {
        let config = EncoderConfig::new().sps_pps_strategy(SpsPpsStrategy::ConstantId);
        let api = openh264::OpenH264API::from_source();
        let encoder = Encoder::with_api_config(api, config.skip_frames(false)).unwrap();
        Self { size, encoder, frame: 0 }
    }

    /// Encodes the next frame with this capture time. Returns its NAL units.
    pub(super) fn next_frame(&mut self, key: bool, unix_ms: u64) -> Vec<Vec<u8>> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let offset = self.frame as usize * 4;
        let mut luma: Vec<_> = (0..width * height)
            .map(|n| ((n % width + offset) * 5 + n / width * 3 + n * 7919 % 13) as u8)
            .collect();
        BurntInTimecode::new("Ada", self.frame, unix_ms).paint(&mut luma, self.size.width);
        let chroma = vec![128; width * height / 4];
        if key {
            self.encoder.force_intra_frame();
        }
        self.frame += 1;
        let strides = (width, width / 2, width / 2);
        let frame = YUVSlices::new((&luma, &chroma, &chroma), (width, height), strides);
        let coded = self.encoder.encode(&frame).unwrap().to_vec();
        nal_units(&coded)
    }
}

/// The NAL units of a byte stream, without start codes.
pub(super) fn nal_units(stream: &[u8]) -> Vec<Vec<u8>> {
    openh264::nal_units(stream)
        .map(|nal| {
            let start = nal.iter().position(|byte| *byte == 1).unwrap() + 1;
            // A zero at the end belongs to the next start code.
            let end = nal.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            nal[start..end].to_vec()
        })
        .collect()
}

/// The byte stream of NAL units, as `H264Depacketizer` returns it.
pub(super) fn annex_b(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1], &nal[..]].concat()).collect()
}

/// Packetizes access units to packets with payloads of about [`TestPacketizer::MTU`] bytes.
pub(super) struct TestPacketizer {
    pub(super) sequence: u16,
}

impl TestPacketizer {
    pub(super) const MTU: usize = 400;

    /// Packetizes parameter sets to one STAP-A, and slices to single NAL unit packets or FU-As.
    pub(super) fn packetize(
        &mut self,
        nals: &[Vec<u8>],
        stamp: u32,
        at: MediaTime,
    ) -> Vec<RtpPacket> {
        let (sets, slices): (Vec<_>, Vec<_>) =
            nals.iter().partition(|nal| matches!(nal[0] & 0x1f, 7 | 8));
        let mut payloads = vec![];
        if !sets.is_empty() {
            payloads.push(sets.iter().fold(vec![0x78], |mut payload, nal| {
                payload.extend((nal.len() as u16).to_be_bytes());
                payload.extend(nal.iter());
                payload
            }));
        }
        for nal in slices {
            if nal.len() <= Self::MTU {
                payloads.push(nal.clone());
                continue;
            }
            let count = (nal.len() - 1).div_ceil(Self::MTU);
            for (n, part) in nal[1..].chunks(Self::MTU).enumerate() {
                let (first, last) = (u8::from(n == 0) << 7, u8::from(n + 1 == count) << 6);
                let head = [nal[0] & 0xe0 | 28, first | last | nal[0] & 0x1f];
                payloads.push([&head, part].concat());
            }
        }
        let last = payloads.len() - 1;
        payloads
            .into_iter()
            .enumerate()
            .map(|(n, payload)| {
                let sequence = self.sequence;
                self.sequence = sequence.wrapping_add(1);
                packet(sequence, stamp, n == last, payload, at)
            })
            .collect()
    }
}

pub(super) fn packet(
    sequence: u16,
    timestamp: u32,
    marker: bool,
    payload: impl Into<Bytes>,
    arrival: MediaTime,
) -> RtpPacket {
    RtpPacket {
        sequence,
        timestamp,
        marker,
        payload: payload.into(),
        copies: vec![],
        level: None,
        arrival,
    }
}

/// The time this many milliseconds after the epoch.
pub(super) fn at(ms: u64) -> MediaTime {
    MediaTime::from_micros(ms * 1000)
}

/// An incoming track, the sender of its packets and its keyframe requests.
pub(super) fn incoming_track(
    codec: Codec,
) -> (IncomingTrack, mpsc::Sender<RtpPacket>, KeyframeRequest) {
    let (send, packets) = mpsc::channel(512);
    let keyframes = KeyframeRequest::default();
    let track = IncomingTrack {
        peer: PeerId(1),
        codec,
        id: None,
        source: if codec == Codec::Opus { Source::Microphone } else { Source::Camera },
        stream_id: "stream".to_owned(),
        source_id: "mix".to_owned(),
        ssrc: 1,
        packets,
        keyframe_request: keyframes.clone(),
        sender_reports: SenderReports::default(),
        round_trip: RoundTripTime::default(),
        failure: TrackFailure::default(),
    };
    (track, send, keyframes)
}

/// Encodes a tone to Opus packets of 20 ms.
pub(super) struct ToneEncoder {
    encoder: opus::Encoder,
    hz: f64,
    level: f64,
    sample: u64,
    /// The length of the packets in samples.
    pub(super) length: u64,
    /// The samples that are a faint noise instead of the tone.
    noise: std::ops::Range<u64>,
}

impl ToneEncoder {
    /// Speech mode with in-band FEC, as for a lossy path.
    pub(super) fn with_fec(hz: f64, level: f64) -> Self {
        let mut encoder = Self::speech(hz, level);
        encoder.encoder.set_inband_fec(true).unwrap();
        encoder.encoder.set_packet_loss_perc(20).unwrap();
        encoder
    }

    /// Speech mode without FEC, as for a path without loss.
    pub(super) fn speech(hz: f64, level: f64) -> Self {
        let mut encoder = Self::new(hz, level, opus::Application::Voip);
        encoder.encoder.set_bitrate(opus::Bitrate::Bits(32_000)).unwrap();
        encoder.encoder.set_signal(opus::Signal::Voice).unwrap();
        encoder
    }

    /// These packets of 20 ms are a faint noise.
    pub(super) const fn make_noise(&mut self, packets: std::ops::Range<u64>) {
        self.noise = packets.start * 960..packets.end * 960;
    }

    /// Low-delay mode, which has no FEC.
    pub(super) fn without_fec(hz: f64, level: f64) -> Self {
        Self::new(hz, level, opus::Application::LowDelay)
    }

    fn new(hz: f64, level: f64, application: opus::Application) -> Self {
        let encoder = opus::Encoder::new(48_000, opus::Channels::Mono, application).unwrap();
        Self { encoder, hz, level, sample: 0, length: 960, noise: 0..0 }
    }

    /// The next packet.
    pub(super) fn next_packet(&mut self) -> Vec<u8> {
        let samples: Vec<_> = (self.sample..self.sample + self.length)
            .map(|n| {
                if self.noise.contains(&n) {
                    return (n.wrapping_mul(2_654_435_761) >> 7 & 0xfff) as f32 / 1e6 - 0.002;
                }
                let phase = n as f64 / 48_000.0 * self.hz * std::f64::consts::TAU;
                (self.level * phase.sin()) as f32
            })
            .collect();
        self.sample += self.length;
        self.encoder.encode_vec_float(&samples, 1275).unwrap()
    }
}
