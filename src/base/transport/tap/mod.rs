//! An interceptor with our own part of RTP and RTCP. Each job is a module; [`Tap`] says which packet
//! goes to which.
//!
//! By default no RTCP reaches the application. Where it does, webrtc-rs routes it by track id,
//! which the remote peer chooses. The tap goes by SSRC instead, and delivers nothing twice.

mod authenticated_ssrcs;
mod keyframe_feedback;
mod paced_queue;
mod send_clock;
mod sender_reports;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use rtc::{
    interceptor::{
        Attribute, AttributedPacket, Interceptor, Packet, Slot, StreamInfo, TaggedPacket,
    },
    rtcp::{
        self, receiver_report::ReceiverReport, reception_report::ReceptionReport,
        sender_report::SenderReport, transport_feedbacks::transport_layer_nack::TransportLayerNack,
    },
    rtp,
    sansio::Protocol,
    shared::{TransportContext, error::Error},
};

pub(super) use self::send_clock::{SendClock, VIDEO_CLOCK_RATE};
use self::{
    authenticated_ssrcs::AuthenticatedSsrcs,
    keyframe_feedback::KeyframeFeedback,
    paced_queue::{Departing, PacedQueue},
    sender_reports::SenderReportRewriter,
};
use super::{
    audio_level::LevelExtension,
    batch_size::{BatchCounter, BatchSize},
    congestion::{BandwidthControl, CongestionController, Departure, wire_bytes},
    frame_parts::FrameParts,
    redundancy::PeerRedundancy,
    retransmission::Retransmitter,
    ssrc_limiter::SsrcLimiter,
    stats::ConnectionStats,
};
use crate::{
    bandwidth::{Content, Estimate, PacketKind},
    media::{AUDIO_RATE, KeyframeRequest, SenderReports},
    model::{Media, MediaTime},
};

/// The position of the tap: between the network and everything that makes packets, so that it sees
/// each packet that is sent.
pub(super) const TAP_SLOT: Slot = Slot::Custom(3_500);

/// The tap of one connection. The driver of webrtc-rs calls it.
pub(super) struct Tap {
    /// The videos that this end sends: SSRC, and the packets that wait for the last one of their
    /// frame.
    videos: Vec<(u32, Arc<FrameParts>)>,
    /// The audio that this end sends: SSRC and redundancy.
    audio: Vec<(u32, Arc<PeerRedundancy>)>,
    keyframe_feedback: KeyframeFeedback,
    retransmitter: Retransmitter,
    congestion: CongestionController,
    report_rewriter: SenderReportRewriter,
    received_reports: SenderReports,
    stats: Arc<ConnectionStats>,
    authenticated: AuthenticatedSsrcs,
    reads: VecDeque<TaggedPacket>,
    writes: PacedQueue,
    batch: BatchCounter,
    /// The next sequence number of each video. Frames that the queue drops leave no gap.
    sequences: Vec<(u32, u16)>,
    /// The newest time that webrtc-rs has told.
    now: MediaTime,
}

/// What the tap shares with the rest of its connection.
pub(super) struct TapShared {
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) limiter: Arc<SsrcLimiter>,
    pub(super) bandwidth: Arc<BandwidthControl>,
    pub(super) batch: Arc<BatchSize>,
}

/// Which packet of which stream it is.
#[derive(Clone, Copy)]
struct PlaceInStream {
    ssrc: u32,
    sequence_number: u16,
    timestamp: u32,
    /// Whether it is the last packet of a frame.
    is_last: bool,
}

impl PlaceInStream {
    const fn of(header: &rtp::Header) -> Self {
        let rtp::Header { ssrc, sequence_number, timestamp, marker: is_last, .. } = *header;
        Self { ssrc, sequence_number, timestamp, is_last }
    }
}

/// A stream that this end sends.
#[derive(Clone)]
pub(super) struct LocalStream {
    /// The SSRC, which is constant for the life of the connection.
    pub(super) ssrc: u32,
    /// Whether it is video.
    pub(super) is_video: bool,
    /// The clock of its RTP timestamps.
    pub(super) clock: Arc<SendClock>,
    /// Signalled when the remote peer requests a keyframe; never for audio.
    pub(super) keyframes: KeyframeRequest,
    /// How much redundancy its packets have; video has none.
    pub(super) redundancy: Arc<PeerRedundancy>,
    /// Which header extension has the level of its packets; none for video.
    pub(super) level: Arc<LevelExtension>,
    /// The packets that wait for the last one of their frame; none for audio.
    pub(super) parts: Arc<FrameParts>,
}

impl LocalStream {
    /// The SSRC on which its packets are sent again, where RTX is negotiated (RFC 4588); `None` for
    /// audio, which is not sent again.
    pub(super) fn rtx_ssrc(&self) -> Option<u32> {
        self.is_video.then_some(!self.ssrc)
    }

    /// A stream of that medium, with the clock that its packets need.
    pub(super) fn new(ssrc: u32, media: Media) -> Self {
        let is_video = media == Media::Video;
        let clock = SendClock::new(if is_video { VIDEO_CLOCK_RATE } else { AUDIO_RATE });
        let (redundancy, level, parts) = (Arc::default(), Arc::default(), Arc::default());
        let keyframes = KeyframeRequest::default();
        Self { ssrc, is_video, clock, keyframes, redundancy, level, parts }
    }
}

impl Tap {
    pub(super) fn new(local: &[LocalStream], reports: SenderReports, shared: TapShared) -> Self {
        let TapShared { stats, limiter, bandwidth, batch } = shared;
        let congestion = CongestionController::new(bandwidth);
        Self {
            writes: PacedQueue::new(congestion.pacing_rate()),
            batch: BatchCounter::new(batch),
            sequences: vec![],
            now: MediaTime::default(),
            videos: local
                .iter()
                .filter(|one| one.is_video)
                .map(|one| (one.ssrc, Arc::clone(&one.parts)))
                .collect(),
            audio: local
                .iter()
                .filter(|one| !one.is_video)
                .map(|one| (one.ssrc, Arc::clone(&one.redundancy)))
                .collect(),
            keyframe_feedback: KeyframeFeedback::new(local),
            retransmitter: Retransmitter::default(),
            congestion,
            report_rewriter: SenderReportRewriter::new(local),
            received_reports: reports,
            stats,
            authenticated: AuthenticatedSsrcs::new(limiter),
            reads: VecDeque::new(),
        }
    }

    /// Handles one received RTCP packet.
    fn handle_rtcp(&mut self, packet: &dyn rtcp::Packet, now: Instant) {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            sender_reports::record(report, &self.received_reports);
            self.adapt_redundancy(&report.reports, now);
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            self.adapt_redundancy(&report.reports, now);
        } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
            self.retransmit(nack, now);
        } else {
            self.keyframe_feedback.handle(packet);
        }
        let Some(feedback) = self.congestion.on_rtcp(packet, now) else { return };
        if let Some(losses) = feedback.audio {
            self.audio.iter().for_each(|(_, redundancy)| redundancy.on_losses(losses, now));
        }
        let lost = self.retransmitter.on_feedback(&feedback.packets, now);
        self.push_retransmissions(lost, now);
    }

    /// Adapts the redundancy of our audio to the losses in receiver reports, where there is no
    /// transport-wide feedback.
    fn adapt_redundancy(&self, reports: &[ReceptionReport], now: Instant) {
        for (ssrc, redundancy) in &self.audio {
            for report in reports.iter().filter(|report| report.ssrc == *ssrc) {
                redundancy.on_report(f32::from(report.fraction_lost) / 256.0, now);
            }
        }
    }

    /// Sends packets again that the remote peer asks for.
    fn retransmit(&mut self, nack: &TransportLayerNack, now: Instant) {
        let round_trip = self.stats.round_trip().latest();
        let requested = self.retransmitter.on_nack(nack, round_trip, now);
        self.push_retransmissions(requested, now);
    }

    fn push_retransmissions(&mut self, packets: Vec<rtp::Packet>, now: Instant) {
        for packet in packets {
            let message = AttributedPacket::new(Packet::Rtp(packet));
            let message = message.with(Attribute::Retransmission);
            let packet = TaggedPacket { now, transport: TransportContext::default(), message };
            self.writes.push_retransmission(packet);
        }
    }

    /// Counts a received packet in the statistics.
    fn count_received(&self, message: &TaggedPacket) {
        let mut streams = self.stats.streams();
        match &message.message.packet {
            Packet::Rtp(packet) => streams.on_rtp_received(packet, message.now),
            Packet::Rtcp(packets) => {
                packets.iter().for_each(|packet| streams.on_rtcp_received(&**packet, message.now));
            }
            other => tracing::debug!(?other, "packet of an unknown kind not counted"),
        }
    }

    /// Numbers, keeps and counts an RTP packet that leaves.
    fn on_departure(&mut self, packet: &mut rtp::Packet, departure: Departure) {
        let now = self.congestion.instant(self.now);
        let is_new_video = departure.kind == PacketKind::Video;
        if is_new_video {
            self.renumber(&mut packet.header);
        }
        // What is sent again on an RTX stream has extensions of its own.
        let keeps_extensions = !self.retransmitter.has_rtx(packet.header.ssrc);
        if is_new_video && !keeps_extensions {
            self.retransmitter.on_sent(packet, now);
        }
        let number = self.congestion.on_departure(packet, departure);
        if is_new_video && keeps_extensions {
            self.retransmitter.on_sent(packet, now);
        }
        if matches!(departure.kind, PacketKind::Audio | PacketKind::Video) {
            self.report_rewriter.on_sent(packet);
        }
        if let Some(number) = number.filter(|_| departure.kind != PacketKind::Padding) {
            self.retransmitter.on_numbered(packet, number);
        }
        if departure.kind != PacketKind::Padding {
            let is_again = departure.kind == PacketKind::Retransmission;
            self.stats.streams().on_rtp_sent(packet, is_again);
        }
    }

    fn renumber(&mut self, header: &mut rtp::Header) {
        let known = self.sequences.iter_mut().find(|(ssrc, _)| *ssrc == header.ssrc);
        if let Some((_, next)) = known {
            header.sequence_number = *next;
            *next = next.wrapping_add(1);
        } else {
            self.sequences.push((header.ssrc, header.sequence_number.wrapping_add(1)));
        }
    }

    /// What a packet that was written carries.
    fn kind(&self, message: &TaggedPacket) -> PacketKind {
        let Packet::Rtp(packet) = &message.message.packet else { return PacketKind::Audio };
        if message.message.has(&Attribute::Retransmission) {
            PacketKind::Retransmission
        } else if self.videos.iter().any(|(ssrc, _)| *ssrc == packet.header.ssrc) {
            PacketKind::Video
        } else {
            PacketKind::Audio
        }
    }

    /// A packet of padding of about so many bytes on the wire: a packet that was sent before.
    fn padding(&mut self, bytes: u32) -> Option<TaggedPacket> {
        let packet = self.retransmitter.padding(bytes)?;
        self.writes.on_padding_sent(wire_bytes(&packet));
        Some(TaggedPacket {
            now: self.congestion.instant(self.now),
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtp(packet)),
        })
    }

    /// Follows the time and the estimate.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(self.congestion.media_time(now));
    }

    fn follow_estimate(&mut self) {
        while let Some(probe) = self.congestion.poll(self.now) {
            if self.retransmitter.has_padding() {
                self.writes.push_probe(probe);
            }
        }
        let rate = self.congestion.pacing_rate();
        self.writes.set_rate(rate);
        let Estimate { queue, loss, .. } = self.congestion.estimate();
        self.audio.iter().for_each(|(_, redundancy)| redundancy.set_path(rate.target, queue));
        self.retransmitter.set_loss(loss);
    }

    /// Handles one RTP packet that is sent, and those of its frame that wait for it.
    fn handle_rtp(&mut self, packet: TaggedPacket, place: PlaceInStream) {
        let PlaceInStream { ssrc, sequence_number, timestamp, is_last } = place;
        let Some((_, parts)) = self.videos.iter().find(|(video, _)| *video == ssrc) else {
            self.writes.push_audio(packet);
            return;
        };
        let TaggedPacket { now, transport, .. } = packet;
        parts.take_before((sequence_number, timestamp), |part| {
            let message = AttributedPacket::new(Packet::Rtp(part));
            self.writes.push_video(TaggedPacket { now, transport, message }, false);
        });
        if self.writes.push_video(packet, is_last) {
            self.keyframe_feedback.request(ssrc);
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.advance(message.now);
        self.authenticated.record(&message.message.packet);
        self.count_received(&message);
        if let Packet::Rtcp(packets) = &message.message.packet {
            if let Some(round_trip) = self.stats.round_trip().latest() {
                self.congestion.on_round_trip(round_trip);
            }
            if let Some(route) = self.stats.route() {
                self.congestion.on_route(route, message.now);
            }
            packets.iter().for_each(|packet| self.handle_rtcp(&**packet, message.now));
            self.follow_estimate();
        }
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        self.advance(message.now);
        match &mut message.message.packet {
            Packet::Rtcp(packets) => {
                let written = std::mem::take(packets);
                let rewritten =
                    written.into_iter().map(|packet| self.report_rewriter.rewrite(packet));
                *packets = rewritten.collect();
                let mut streams = self.stats.streams();
                packets.iter().for_each(|packet| streams.on_rtcp_sent(&**packet, message.now));
            }
            Packet::Rtp(packet) => {
                let place = PlaceInStream::of(&packet.header);
                self.handle_rtp(message, place);
                return Ok(());
            }
            other => tracing::debug!(?other, "packet of an unknown kind not counted"),
        }
        self.writes.push_report(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        loop {
            let release = match self.writes.pop(self.now) {
                Some(Departing::Report(report)) => return Some(report),
                Some(Departing::Media(release)) => release,
                None => {
                    self.batch.on_end();
                    return None;
                }
            };
            let written = match release.content {
                Content::Packet(message) => Some((self.kind(&message), message)),
                Content::Padding(bytes) => {
                    self.padding(bytes).map(|message| (PacketKind::Padding, message))
                }
            };
            let Some((kind, mut message)) = written else { continue };
            if let Packet::Rtp(packet) = &mut message.message.packet {
                let departure = Departure { at: release.at, kind, cluster: release.cluster };
                self.on_departure(packet, departure);
                self.batch.on_packet(wire_bytes(packet));
            }
            return Some(message);
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.advance(now);
        if self.writes.handle_timeout(now) {
            self.videos.iter().for_each(|(ssrc, _)| self.keyframe_feedback.request(*ssrc));
        }
        self.follow_estimate();
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        let paced = self.writes.pace_timeout().map(|at| self.congestion.instant(at));
        let timeouts = [self.writes.frame_timeout(), paced, self.congestion.next_timeout()];
        timeouts.into_iter().flatten().min()
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        self.stats.streams().bind_local(info);
        self.retransmitter.bind(info);
        self.congestion.bind(info);
    }

    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        self.stats.streams().bind_remote(info);
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.stats.streams().unbind_remote(info);
    }
}

#[cfg(test)]
mod tests;
