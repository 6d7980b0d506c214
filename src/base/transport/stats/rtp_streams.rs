//! Counters of the RTP streams of one connection, from its packets and reports.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rtc::{
    interceptor::StreamInfo,
    rtcp::{
        self,
        payload_feedbacks::{
            full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication,
        },
        receiver_report::ReceiverReport,
        reception_report::ReceptionReport,
        sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::TransportLayerNack,
    },
    rtp,
    shared::marshal::MarshalSize,
};

use super::{TRANSPORT_ID, round_trip::RoundTrip};
use crate::model::{
    CodecStats, InboundRtpStats, Media, OutboundRtpStats, RemoteInboundRtpStats,
    RemoteOutboundRtpStats, RtcStats,
};

/// Remote streams that are counted. Two are negotiated; a hostile peer may send on more.
const MAX_REMOTE_STREAMS: usize = 16;

/// Sent reports that are remembered until the remote peer refers to them: eight seconds.
const MAX_SENT_REPORTS: usize = 8;

/// The streams of one connection.
#[derive(Debug, Default)]
pub(in crate::transport) struct RtpStreams {
    outbound: Vec<OutboundStream>,
    inbound: Vec<InboundStream>,
}

/// What is negotiated about a stream.
#[derive(Clone, Debug)]
struct StreamCodec {
    ssrc: u32,
    kind: Media,
    payload_type: u8,
    mime_type: String,
    clock_rate: u32,
    channels: u16,
    sdp_fmtp_line: String,
}

/// Packets of a stream.
#[derive(Clone, Copy, Debug, Default)]
struct PacketCounters {
    packets: u64,
    payload_bytes: u64,
    header_bytes: u64,
}

/// Feedback packets about a stream.
#[derive(Clone, Copy, Debug, Default)]
struct FeedbackCounters {
    nacks: u64,
    plis: u64,
    firs: u64,
}

/// A stream that this end sends.
#[derive(Debug)]
struct OutboundStream {
    codec: StreamCodec,
    /// The SSRC of its RTX stream.
    rtx_ssrc: Option<u32>,
    sent: PacketCounters,
    retransmitted: PacketCounters,
    frames: u64,
    feedback: FeedbackCounters,
    /// The middle of the NTP time of our newest reports, as the remote peer refers to them, and
    /// when they were sent.
    sent_reports: VecDeque<(u32, Instant)>,
    /// The newest report of the remote peer.
    remote: Option<ReceptionReport>,
    round_trip: RoundTrip,
}

/// A stream that this end receives.
#[derive(Debug)]
struct InboundStream {
    codec: StreamCodec,
    /// The SSRC of its RTX stream.
    rtx_ssrc: Option<u32>,
    received: PacketCounters,
    /// Those of them that arrived on the RTX stream.
    retransmitted: PacketCounters,
    feedback: FeedbackCounters,
    sequence: Option<SequenceRange>,
    /// The newest packet in order: when it arrived, and its RTP timestamp.
    newest: Option<(Instant, u32)>,
    /// In RTP timestamps.
    jitter: f64,
    /// The newest report of the remote peer: packets and bytes.
    remote: Option<(u32, u32)>,
    reports: u64,
}

/// The first and the highest sequence number, unwrapped.
#[derive(Clone, Copy, Debug)]
struct SequenceRange {
    first: u64,
    highest: u64,
}

impl RtpStreams {
    /// Adds a stream that this end sends, or updates its codec after a negotiation.
    pub(in crate::transport) fn bind_local(&mut self, info: &StreamInfo) {
        let Some(codec) = StreamCodec::new(info) else { return };
        if self.outbound(info.ssrc).is_none() {
            self.outbound.push(OutboundStream::new(codec.clone()));
        }
        if let Some(stream) = self.outbound(info.ssrc) {
            stream.codec = codec;
            stream.rtx_ssrc = info.payload_type_rtx.and(info.ssrc_rtx);
        }
    }

    /// Adds a stream that this end receives, or updates its codec.
    pub(in crate::transport) fn bind_remote(&mut self, info: &StreamInfo) {
        let Some(codec) = StreamCodec::new(info) else { return };
        // webrtc-rs binds an RTX stream as well, under the codec of its video.
        if self.inbound.iter().any(|stream| stream.rtx_ssrc == Some(info.ssrc)) {
            return;
        }
        if self.inbound(info.ssrc).is_none() && self.inbound.len() < MAX_REMOTE_STREAMS {
            self.inbound.push(InboundStream::new(codec.clone()));
        }
        if let Some(stream) = self.inbound(info.ssrc) {
            stream.codec = codec;
            stream.rtx_ssrc = info.payload_type_rtx.and(info.ssrc_rtx);
        }
    }

    /// Removes a stream that this end no longer receives.
    pub(in crate::transport) fn unbind_remote(&mut self, info: &StreamInfo) {
        self.inbound.retain(|stream| stream.codec.ssrc != info.ssrc);
    }

    /// Counts a packet that is sent. `is_again` is whether it is a retransmission, on the SSRC of
    /// the stream or of its RTX stream.
    pub(in crate::transport) fn on_rtp_sent(&mut self, packet: &rtp::Packet, is_again: bool) {
        let ssrc = packet.header.ssrc;
        let is_of = |stream: &&mut OutboundStream| {
            stream.codec.ssrc == ssrc || stream.rtx_ssrc == Some(ssrc)
        };
        let Some(stream) = self.outbound.iter_mut().find(is_of) else { return };
        stream.sent.add(packet);
        if is_again {
            stream.retransmitted.add(packet);
        } else if packet.header.marker {
            stream.frames += 1;
        }
    }

    /// Counts a packet that was received.
    pub(in crate::transport) fn on_rtp_received(&mut self, packet: &rtp::Packet, now: Instant) {
        let ssrc = packet.header.ssrc;
        if let Some(stream) = self.inbound(ssrc) {
            stream.received.add(packet);
            stream.on_sequence(&packet.header, now);
        } else if let Some(stream) =
            self.inbound.iter_mut().find(|stream| stream.rtx_ssrc == Some(ssrc))
            && !packet.payload.is_empty()
        {
            stream.received.add(packet);
            stream.retransmitted.add(packet);
        }
    }

    /// Evaluates a report or feedback that is sent.
    pub(in crate::transport) fn on_rtcp_sent(&mut self, packet: &dyn rtcp::Packet, now: Instant) {
        if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
            if let Some(stream) = self.outbound(report.ssrc) {
                stream.on_report_sent(report, now);
            }
        } else {
            for_each_feedback(packet, |ssrc, feedback| {
                if let Some(stream) = self.inbound(ssrc) {
                    stream.feedback.add(feedback);
                }
            });
        }
    }

    /// Evaluates a report or feedback of the remote peer.
    pub(in crate::transport) fn on_rtcp_received(
        &mut self,
        packet: &dyn rtcp::Packet,
        now: Instant,
    ) {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            if let Some(stream) = self.inbound(report.ssrc) {
                stream.remote = Some((report.packet_count, report.octet_count));
                stream.reports += 1;
            }
            report.reports.iter().for_each(|block| self.on_reception_report(block, now));
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            report.reports.iter().for_each(|block| self.on_reception_report(block, now));
        } else {
            for_each_feedback(packet, |ssrc, feedback| {
                if let Some(stream) = self.outbound(ssrc) {
                    stream.feedback.add(feedback);
                }
            });
        }
    }

    fn on_reception_report(&mut self, report: &ReceptionReport, now: Instant) {
        if let Some(stream) = self.outbound(report.ssrc) {
            stream.on_reception_report(report, now);
        }
    }

    fn outbound(&mut self, ssrc: u32) -> Option<&mut OutboundStream> {
        self.outbound.iter_mut().find(|stream| stream.codec.ssrc == ssrc)
    }

    fn inbound(&mut self, ssrc: u32) -> Option<&mut InboundStream> {
        self.inbound.iter_mut().find(|stream| stream.codec.ssrc == ssrc)
    }

    /// Adds the streams to a report. A stream on which nothing was sent yet is left out.
    pub(super) fn report(&self, report: &mut Vec<RtcStats>) {
        for stream in self.outbound.iter().filter(|stream| stream.sent.packets > 0) {
            push_codec(report, stream.codec.report('O'));
            report.push(RtcStats::OutboundRtp(stream.report()));
            report.extend(stream.remote_report().map(RtcStats::RemoteInboundRtp));
        }
        for stream in self.inbound.iter().filter(|stream| stream.received.packets > 0) {
            push_codec(report, stream.codec.report('I'));
            report.push(RtcStats::InboundRtp(Box::new(stream.report())));
            report.extend(stream.remote_report().map(RtcStats::RemoteOutboundRtp));
        }
    }
}

/// Adds a codec unless it is there: streams share it.
fn push_codec(report: &mut Vec<RtcStats>, codec: CodecStats) {
    if !report.iter().any(|object| object.id() == codec.id) {
        report.push(RtcStats::Codec(codec));
    }
}

/// A kind of feedback.
#[derive(Clone, Copy, Debug)]
enum Feedback {
    Nack,
    Pli,
    Fir,
}

/// Calls `count` with the SSRC of each stream that a feedback packet is about.
fn for_each_feedback(packet: &dyn rtcp::Packet, mut count: impl FnMut(u32, Feedback)) {
    let any = packet.as_any();
    if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
        count(nack.media_ssrc, Feedback::Nack);
    } else if let Some(loss) = any.downcast_ref::<PictureLossIndication>() {
        count(loss.media_ssrc, Feedback::Pli);
    } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
        request.fir.iter().for_each(|entry| count(entry.ssrc, Feedback::Fir));
    }
}

impl FeedbackCounters {
    const fn add(&mut self, feedback: Feedback) {
        match feedback {
            Feedback::Nack => self.nacks += 1,
            Feedback::Pli => self.plis += 1,
            Feedback::Fir => self.firs += 1,
        }
    }
}

impl StreamCodec {
    /// `None` for a stream that is neither audio nor video.
    fn new(info: &StreamInfo) -> Option<Self> {
        let kind = match info.mime_type.split_once('/')?.0 {
            "audio" => Media::Audio,
            "video" => Media::Video,
            _ => return None,
        };
        Some(Self {
            ssrc: info.ssrc,
            kind,
            payload_type: info.payload_type,
            mime_type: info.mime_type.clone(),
            clock_rate: info.clock_rate.max(1),
            channels: info.channels,
            sdp_fmtp_line: info.sdp_fmtp_line.clone(),
        })
    }

    /// The id for a stream in this direction: `O` or `I`.
    fn id(&self, direction: char) -> String {
        format!("C{direction}{}", self.payload_type)
    }

    fn report(&self, direction: char) -> CodecStats {
        CodecStats {
            id: self.id(direction),
            transport_id: TRANSPORT_ID.to_owned(),
            payload_type: self.payload_type,
            mime_type: self.mime_type.clone(),
            clock_rate: self.clock_rate,
            channels: (self.kind == Media::Audio).then_some(self.channels),
            sdp_fmtp_line: Some(self.sdp_fmtp_line.clone()).filter(|line| !line.is_empty()),
        }
    }

    /// A count that only video has.
    fn of_video(&self, count: u64) -> Option<u64> {
        (self.kind == Media::Video).then_some(count)
    }
}

impl PacketCounters {
    fn add(&mut self, packet: &rtp::Packet) {
        self.packets += 1;
        self.payload_bytes += packet.payload.len() as u64;
        self.header_bytes += packet.header.marshal_size() as u64;
    }
}

impl OutboundStream {
    fn new(codec: StreamCodec) -> Self {
        Self {
            codec,
            rtx_ssrc: None,
            sent: PacketCounters::default(),
            retransmitted: PacketCounters::default(),
            frames: 0,
            feedback: FeedbackCounters::default(),
            sent_reports: VecDeque::with_capacity(MAX_SENT_REPORTS),
            remote: None,
            round_trip: RoundTrip::default(),
        }
    }

    fn on_report_sent(&mut self, report: &SenderReport, now: Instant) {
        if self.sent_reports.len() == MAX_SENT_REPORTS {
            self.sent_reports.pop_front();
        }
        self.sent_reports.push_back(((report.ntp_time >> 16) as u32, now));
    }

    /// Stores the report, and measures the round trip time: from our report to this one, without
    /// the time that the remote peer waited (RFC 3550, section 6.4.1). Our own clock measures it,
    /// so that it does not depend on the wall clock.
    fn on_reception_report(&mut self, report: &ReceptionReport, now: Instant) {
        self.remote = Some(report.clone());
        let mut sent = self.sent_reports.iter();
        if let Some((_, sent_at)) = sent.find(|(ntp, _)| *ntp == report.last_sender_report) {
            let waited = Duration::from_secs_f64(f64::from(report.delay) / 65_536.0);
            self.round_trip.record(now.saturating_duration_since(*sent_at).saturating_sub(waited));
        }
    }

    fn report(&self) -> OutboundRtpStats {
        let codec = &self.codec;
        OutboundRtpStats {
            id: format!("O{}", codec.ssrc),
            ssrc: codec.ssrc,
            kind: codec.kind,
            transport_id: TRANSPORT_ID.to_owned(),
            codec_id: codec.id('O'),
            remote_id: self.remote.as_ref().map(|_| format!("RI{}", codec.ssrc)),
            packets_sent: self.sent.packets,
            bytes_sent: self.sent.payload_bytes,
            header_bytes_sent: self.sent.header_bytes,
            retransmitted_packets_sent: self.retransmitted.packets,
            retransmitted_bytes_sent: self.retransmitted.payload_bytes,
            frames_sent: codec.of_video(self.frames),
            nack_count: self.feedback.nacks,
            pli_count: codec.of_video(self.feedback.plis),
            fir_count: codec.of_video(self.feedback.firs),
            rid: None,
            target_bitrate: None,
            quality_limitation_reason: None,
            frames_per_second: None,
            bitrate: None,
        }
    }

    fn remote_report(&self) -> Option<RemoteInboundRtpStats> {
        let (report, codec) = (self.remote.as_ref()?, &self.codec);
        Some(RemoteInboundRtpStats {
            id: format!("RI{}", codec.ssrc),
            ssrc: codec.ssrc,
            kind: codec.kind,
            local_id: format!("O{}", codec.ssrc),
            packets_lost: i64::from(report.total_lost),
            fraction_lost: f64::from(report.fraction_lost) / 256.0,
            jitter: f64::from(report.jitter) / f64::from(codec.clock_rate),
            round_trip_time: self.round_trip.latest().map(|time| time.as_secs_f64()),
            total_round_trip_time: self.round_trip.total().as_secs_f64(),
            round_trip_time_measurements: self.round_trip.count(),
        })
    }
}

impl InboundStream {
    fn new(codec: StreamCodec) -> Self {
        Self {
            codec,
            rtx_ssrc: None,
            received: PacketCounters::default(),
            retransmitted: PacketCounters::default(),
            feedback: FeedbackCounters::default(),
            sequence: None,
            newest: None,
            jitter: 0.0,
            remote: None,
            reports: 0,
        }
    }

    fn on_sequence(&mut self, header: &rtp::Header, now: Instant) {
        let Some(range) = &mut self.sequence else {
            let first = u64::from(header.sequence_number);
            self.sequence = Some(SequenceRange { first, highest: first });
            self.newest = Some((now, header.timestamp));
            return;
        };
        let ahead = header.sequence_number.wrapping_sub(range.highest as u16);
        // A packet that was late or sent again says nothing about the transit time.
        if ahead == 0 || ahead > u16::MAX / 2 {
            return;
        }
        range.highest += u64::from(ahead);
        let newest = (now, header.timestamp);
        let (arrival, timestamp) = self.newest.replace(newest).unwrap_or(newest);
        let elapsed = now.saturating_duration_since(arrival).as_secs_f64();
        let media = f64::from(header.timestamp.wrapping_sub(timestamp) as i32);
        let deviation = (elapsed * f64::from(self.codec.clock_rate) - media).abs();
        self.jitter += (deviation - self.jitter) / 16.0;
    }

    fn report(&self) -> InboundRtpStats {
        let codec = &self.codec;
        let expected = self.sequence.map_or(0, |range| range.highest - range.first + 1);
        // What is repaired on the RTX stream was lost (as in RFC 3550, section 6.4.1, and in what
        // the other end reports), and padding there repairs nothing.
        let in_order = self.received.packets - self.retransmitted.packets;
        InboundRtpStats {
            id: format!("I{}", codec.ssrc),
            ssrc: codec.ssrc,
            kind: codec.kind,
            transport_id: TRANSPORT_ID.to_owned(),
            codec_id: codec.id('I'),
            remote_id: self.remote.map(|_| format!("RO{}", codec.ssrc)),
            track_identifier: None,
            packets_received: self.received.packets,
            bytes_received: self.received.payload_bytes,
            header_bytes_received: self.received.header_bytes,
            retransmitted_packets_received: self.retransmitted.packets,
            retransmitted_bytes_received: self.retransmitted.payload_bytes,
            packets_lost: expected as i64 - in_order as i64,
            jitter: self.jitter / f64::from(codec.clock_rate),
            nack_count: self.feedback.nacks,
            pli_count: codec.of_video(self.feedback.plis),
            fir_count: codec.of_video(self.feedback.firs),
            playout: None,
            mean_jitter_buffer_delay: None,
            frames_per_second: None,
            bitrate: None,
        }
    }

    fn remote_report(&self) -> Option<RemoteOutboundRtpStats> {
        let ((packets_sent, bytes_sent), codec) = (self.remote?, &self.codec);
        Some(RemoteOutboundRtpStats {
            id: format!("RO{}", codec.ssrc),
            ssrc: codec.ssrc,
            kind: codec.kind,
            local_id: format!("I{}", codec.ssrc),
            packets_sent,
            bytes_sent,
            reports_sent: self.reports,
        })
    }
}

#[cfg(test)]
mod tests;
