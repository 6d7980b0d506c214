//! Statistics of peer connections, named as in W3C webrtc-stats (<https://www.w3.org/TR/webrtc-stats/>).
//!
//! Only what is measured is there: an unknown member is absent, never zero. Times are in seconds
//! and levels between 0 and 1, as there. The objects carry no `timestamp`: all of one report are
//! read together.
//!
//! Addresses are only in [`CandidateStats`], and no id contains one, so that a report that leaves
//! the machine can omit them.

use core::net::IpAddr;

use serde::Serialize;

use super::{Layer, Media};

/// One object of a statistics report (W3C `RTCStats`).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RtcStats {
    /// A captured source, and its encoder.
    MediaSource(MediaSourceStats),
    /// The transport that carries everything of a peer connection.
    Transport(TransportStats),
    /// The selected candidate pair.
    CandidatePair(CandidatePairStats),
    /// The local candidate of the selected pair.
    LocalCandidate(CandidateStats),
    /// The remote candidate of the selected pair.
    RemoteCandidate(CandidateStats),
    /// The codec of a stream.
    Codec(CodecStats),
    /// A stream that this end sends.
    OutboundRtp(OutboundRtpStats),
    /// What the remote peer reports about a stream that this end sends.
    RemoteInboundRtp(RemoteInboundRtpStats),
    /// A stream that this end receives.
    InboundRtp(Box<InboundRtpStats>),
    /// What the remote peer reports about a stream that it sends.
    RemoteOutboundRtp(RemoteOutboundRtpStats),
}

impl RtcStats {
    /// The id, which is unique within one report, and refers to the same object in all reports of
    /// a peer connection.
    pub fn id(&self) -> &str {
        match self {
            Self::MediaSource(stats) => &stats.id,
            Self::Transport(stats) => &stats.id,
            Self::CandidatePair(stats) => &stats.id,
            Self::LocalCandidate(stats) | Self::RemoteCandidate(stats) => &stats.id,
            Self::Codec(stats) => &stats.id,
            Self::OutboundRtp(stats) => &stats.id,
            Self::RemoteInboundRtp(stats) => &stats.id,
            Self::InboundRtp(stats) => &stats.id,
            Self::RemoteOutboundRtp(stats) => &stats.id,
        }
    }
}

/// A captured source (W3C `RTCVideoSourceStats`, `RTCAudioSourceStats`).
///
/// It also has the members of `RTCOutboundRtpStreamStats` that are about the encoder: one encoder
/// serves all peer connections.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaSourceStats {
    /// The id.
    pub id: String,
    /// Audio or video.
    pub kind: Media,
    /// The width of the newest encoded frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// The height of the newest encoded frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Frames that were encoded; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_encoded: Option<u64>,
    /// Keyframes among them; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_frames_encoded: Option<u64>,
    /// Captured frames that were never encoded, because the encoder was still busy and a newer one
    /// replaced them; video only. Not a member of webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_skipped: Option<u64>,
    /// How long the encoder worked, in seconds; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_encode_time: Option<f64>,
    /// The rate that the encoder aims at, in bits per second; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bitrate: Option<u64>,
    /// The name of the encoder; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder_implementation: Option<&'static str>,
    /// The level of the last tenth of a second, linear (RMS): 1 is full scale; audio only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_level: Option<f64>,
    /// Encoded frames per second since the previous report of this reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<f64>,
}

impl MediaSourceStats {
    /// A source of which nothing is known yet.
    pub fn new(id: &str, kind: Media) -> Self {
        Self {
            id: id.to_owned(),
            kind,
            width: None,
            height: None,
            frames_encoded: None,
            key_frames_encoded: None,
            frames_skipped: None,
            total_encode_time: None,
            target_bitrate: None,
            encoder_implementation: None,
            audio_level: None,
            frames_per_second: None,
        }
    }
}

/// The transport of a peer connection (W3C `RTCTransportStats`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// The id.
    pub id: String,
    /// The state of ICE; absent before it has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ice_state: Option<IceTransportState>,
    /// The state of DTLS.
    pub dtls_state: DtlsTransportState,
    /// The id of the candidate pair over which this end sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_candidate_pair_id: Option<String>,
}

/// The state of ICE (W3C `RTCIceTransportState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IceTransportState {
    /// Waiting for candidates.
    New,
    /// Candidate pairs are checked.
    Checking,
    /// A pair works.
    Connected,
    /// A pair works, and all others were checked.
    Completed,
    /// No packet has arrived for some seconds.
    Disconnected,
    /// No pair works.
    Failed,
    /// It is closed.
    Closed,
}

/// The state of DTLS (W3C `RTCDtlsTransportState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DtlsTransportState {
    /// The handshake has not begun.
    New,
    /// The handshake is in progress.
    Connecting,
    /// The handshake is complete.
    Connected,
}

/// A candidate pair (W3C `RTCIceCandidatePairStats`). Packets and bytes are UDP payloads without
/// ICE checks.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidatePairStats {
    /// The id.
    pub id: String,
    /// The id of the transport.
    pub transport_id: String,
    /// The id of the local candidate.
    pub local_candidate_id: String,
    /// The id of the remote candidate.
    pub remote_candidate_id: String,
    /// Always true: only the pair that is in use is reported.
    pub nominated: bool,
    /// Packets that were sent.
    pub packets_sent: u64,
    /// Packets that were received.
    pub packets_received: u64,
    /// Bytes that were sent.
    pub bytes_sent: u64,
    /// Bytes that were received.
    pub bytes_received: u64,
    /// Connectivity and consent checks that were sent.
    pub requests_sent: u64,
    /// Responses to them.
    pub responses_received: u64,
    /// The newest round trip time of a check, in seconds. A new one is measured every half second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_round_trip_time: Option<f64>,
    /// The sum of all round trip times, in seconds: one for each response.
    pub total_round_trip_time: f64,
    /// What the bandwidth estimator takes the path to carry, in bits per second on the wire.
    pub available_outgoing_bitrate: u64,
    /// Bits that were sent per second since the previous report of this reader. Not a member of
    /// webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_sent: Option<u64>,
    /// The same of received bits. Not a member of webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_received: Option<u64>,
}

/// A candidate of the selected pair (W3C `RTCIceCandidateStats`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateStats {
    /// The id.
    pub id: String,
    /// The id of the transport.
    pub transport_id: String,
    /// The IP address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: &'static str,
    /// How the candidate was found.
    pub candidate_type: CandidateType,
}

/// How a candidate was found (RFC 8445, section 5.1.1; W3C `RTCIceCandidateType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CandidateType {
    /// An address of the machine itself.
    Host,
    /// The address that a STUN server saw.
    Srflx,
    /// The source address of a connectivity check.
    Prflx,
    /// An address of a TURN server.
    Relay,
}

/// A codec in use (W3C `RTCCodecStats`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecStats {
    /// The id.
    pub id: String,
    /// The id of the transport.
    pub transport_id: String,
    /// The RTP payload type.
    pub payload_type: u8,
    /// Media type and name, as `video/H264`.
    pub mime_type: String,
    /// RTP timestamps per second.
    pub clock_rate: u32,
    /// Audio channels that the codec may have; audio only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u16>,
    /// The format parameters of the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_fmtp_line: Option<String>,
}

/// A stream that this end sends (W3C `RTCOutboundRtpStreamStats`).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboundRtpStats {
    /// The id.
    pub id: String,
    /// The SSRC of its packets.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: Media,
    /// The id of the transport.
    pub transport_id: String,
    /// The id of the codec.
    pub codec_id: String,
    /// The id of what the remote peer reports; absent before its first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// Packets that were sent, retransmissions included.
    pub packets_sent: u64,
    /// Payload bytes that were sent, retransmissions included.
    pub bytes_sent: u64,
    /// Bytes of RTP headers that were sent, retransmissions included.
    pub header_bytes_sent: u64,
    /// Packets that were sent again because the remote peer requested them.
    pub retransmitted_packets_sent: u64,
    /// Their payload bytes.
    pub retransmitted_bytes_sent: u64,
    /// Frames that were sent; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_sent: Option<u64>,
    /// NACK packets that were received (RFC 4585, section 6.2.1).
    pub nack_count: u64,
    /// PLI packets that were received (RFC 4585, section 6.3.1); video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pli_count: Option<u64>,
    /// FIR packets that were received (RFC 5104, section 4.3.1); video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fir_count: Option<u64>,
    /// The layer that is sent: `f`, `h` or `q`; video only, absent while none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rid: Option<Layer>,
    /// The rate of the payloads that the encoder is set to, in bit/s; audio only, absent while none is
    /// sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_bitrate: Option<u64>,
    /// Why it is no higher layer; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_limitation_reason: Option<QualityLimitation>,
    /// Frames that were sent per second since the previous report of this reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<f64>,
    /// Payload bits per second since the previous report of this reader. Not a member of
    /// webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u64>,
}

/// Why a video is not sent in a better quality (W3C `RTCQualityLimitationReason`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualityLimitation {
    /// It is as good as it is wanted.
    None,
    /// The encoder was late.
    Cpu,
    /// The path carries no more.
    Bandwidth,
}

/// The remote peer's newest report about a stream that this end sends (W3C
/// `RTCRemoteInboundRtpStreamStats`; RFC 3550, section 6.4.1).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteInboundRtpStats {
    /// The id.
    pub id: String,
    /// The SSRC of the stream.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: Media,
    /// The id of the stream that is sent.
    pub local_id: String,
    /// Packets that had not arrived when they were due.
    pub packets_lost: i64,
    /// The same as a share of the packets since the report before, 0 to 1.
    pub fraction_lost: f64,
    /// The variation of the transit time, in seconds.
    pub jitter: f64,
    /// The round trip time of the newest pair of reports, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_time: Option<f64>,
    /// The sum of all round trip times, in seconds.
    pub total_round_trip_time: f64,
    /// How often the round trip time was measured.
    pub round_trip_time_measurements: u64,
}

/// A stream that this end receives (W3C `RTCInboundRtpStreamStats`).
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InboundRtpStats {
    /// The id.
    pub id: String,
    /// The SSRC of its packets.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: Media,
    /// The id of the transport.
    pub transport_id: String,
    /// The id of the codec.
    pub codec_id: String,
    /// The id of what the remote peer reports; absent before its first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_id: Option<String>,
    /// The sender's track id (`a=msid`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track_identifier: Option<String>,
    /// Packets that arrived, retransmissions and duplicates included.
    pub packets_received: u64,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Their header bytes.
    pub header_bytes_received: u64,
    /// Those of them that arrived on the stream of retransmissions, if there is one (RFC 4588).
    pub retransmitted_packets_received: u64,
    /// Their payload bytes.
    pub retransmitted_bytes_received: u64,
    /// Packets that are missing: those that the sequence numbers announce, without those that
    /// arrived (RFC 3550, section 6.4.1). Negative if packets arrived twice.
    pub packets_lost: i64,
    /// The variation of the transit time of packets in order, in seconds (RFC 3550, section 6.4.1).
    /// Retransmissions do not count.
    pub jitter: f64,
    /// NACK packets that were sent.
    pub nack_count: u64,
    /// PLI packets that were sent; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pli_count: Option<u64>,
    /// FIR packets that were sent; video only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fir_count: Option<u64>,
    /// What became of the packets; absent if nothing receives the track.
    #[serde(flatten)]
    pub playout: Option<PlayoutStats>,
    /// The mean time that frames or samples waited since the previous report of this reader, in
    /// seconds: see [`JitterBufferStats`]. Not a member of webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_jitter_buffer_delay: Option<f64>,
    /// Decoded frames per second since the previous report of this reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames_per_second: Option<f64>,
    /// Payload bits per second since the previous report of this reader. Not a member of
    /// webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate: Option<u64>,
}

/// The members of W3C `RTCInboundRtpStreamStats` that are about frames or samples.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum PlayoutStats {
    /// Of video.
    Video(VideoPlayoutStats),
    /// Of audio.
    Audio(AudioPlayoutStats),
}

impl PlayoutStats {
    /// The figures of the jitter buffer.
    pub const fn jitter_buffer(&self) -> &JitterBufferStats {
        match self {
            Self::Video(stats) => &stats.jitter_buffer,
            Self::Audio(stats) => &stats.jitter_buffer,
        }
    }
}

/// The delay of a jitter buffer. The mean delay is the delay divided by the emitted count.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JitterBufferStats {
    /// The sum of the times that frames or samples waited, in seconds: from the arrival of a
    /// frame's last packet until it is shown, or of an audio packet until it is decoded.
    pub jitter_buffer_delay: f64,
    /// The sum of the times that they should have waited, in seconds.
    pub jitter_buffer_target_delay: f64,
    /// The number of frames or samples in these sums.
    pub jitter_buffer_emitted_count: u64,
}

/// Received video.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoPlayoutStats {
    /// Complete frames that arrived.
    pub frames_received: u64,
    /// Frames that were decoded. Video that nobody sees is not decoded.
    pub frames_decoded: u64,
    /// Frames that were decoded and not shown: they were late, and a newer one was there.
    pub frames_dropped: u64,
    /// How much earlier sound is heard than its picture is shown, in seconds; negative if it is late.
    /// Absent while no sound of the same participant is heard. Not a member of webrtc-stats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_video_offset: Option<f64>,
    /// The width of the newest frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_width: Option<u32>,
    /// The height of the newest frame in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_height: Option<u32>,
    /// How often the video stood still: for more than 200 ms, or for a second before the first
    /// frame.
    pub freeze_count: u64,
    /// How long it stood still beyond that, in seconds. Counted while it lasts.
    pub total_freezes_duration: f64,
    /// The delay between arrival and display.
    #[serde(flatten)]
    pub jitter_buffer: JitterBufferStats,
}

/// Received audio.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AudioPlayoutStats {
    /// Samples that were played, at 48 kHz.
    pub total_samples_received: u64,
    /// Samples among them that were made up for missing packets.
    pub concealed_samples: u64,
    /// The level of the last second, linear (RMS): 1 is full scale.
    pub audio_level: f64,
    /// The delay between arrival and decoding.
    #[serde(flatten)]
    pub jitter_buffer: JitterBufferStats,
}

/// The remote peer's newest report about a stream that it sends (W3C
/// `RTCRemoteOutboundRtpStreamStats`; RFC 3550, section 6.4.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteOutboundRtpStats {
    /// The id.
    pub id: String,
    /// The SSRC of the stream.
    pub ssrc: u32,
    /// Audio or video.
    pub kind: Media,
    /// The id of the stream that is received.
    pub local_id: String,
    /// Packets that the remote peer has sent, modulo 2³².
    pub packets_sent: u32,
    /// Their payload bytes, modulo 2³².
    pub bytes_sent: u32,
    /// Reports that arrived.
    pub reports_sent: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_absent_and_members_have_the_names_of_webrtc_stats() {
        let playout = PlayoutStats::Audio(AudioPlayoutStats::default());
        let inbound = RtcStats::InboundRtp(Box::new(InboundRtpStats {
            id: "I7".to_owned(),
            ssrc: 7,
            kind: Media::Audio,
            transport_id: "T".to_owned(),
            codec_id: "CI111".to_owned(),
            remote_id: None,
            track_identifier: None,
            packets_received: 5,
            bytes_received: 400,
            header_bytes_received: 60,
            retransmitted_packets_received: 0,
            retransmitted_bytes_received: 0,
            packets_lost: -1,
            jitter: 0.5,
            nack_count: 0,
            pli_count: None,
            fir_count: None,
            playout: Some(playout),
            mean_jitter_buffer_delay: None,
            frames_per_second: None,
            bitrate: None,
        }));
        let expected = serde_json::json!({
            "type": "inbound-rtp", "id": "I7", "ssrc": 7, "kind": "audio", "transportId": "T",
            "codecId": "CI111", "packetsReceived": 5, "bytesReceived": 400,
            "headerBytesReceived": 60, "retransmittedPacketsReceived": 0,
            "retransmittedBytesReceived": 0, "packetsLost": -1, "jitter": 0.5, "nackCount": 0,
            "totalSamplesReceived": 0, "concealedSamples": 0, "audioLevel": 0.0,
            "jitterBufferDelay": 0.0, "jitterBufferTargetDelay": 0.0, "jitterBufferEmittedCount": 0,
        });
        assert_eq!(serde_json::to_value(inbound).unwrap(), expected);
    }
}
