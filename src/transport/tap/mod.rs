//! An interceptor with our own part of RTP and RTCP. Each job is a module; [`Tap`] says which packet
//! goes to which.
//!
//! By default no RTCP reaches the application. Where it does, webrtc-rs routes it by track id,
//! which the remote peer chooses. The tap goes by SSRC instead, and delivers nothing twice.

mod authenticated_ssrcs;
mod frame_batcher;
mod keyframe_feedback;
mod send_clock;
mod sender_reports;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use rtc::{
    interceptor::{
        Attribute, AttributedPacket, Interceptor, Packet, Slot, StreamInfo, TaggedPacket,
    },
    rtcp::{
        self, sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::TransportLayerNack,
    },
    rtp,
    sansio::Protocol,
    shared::{TransportContext, error::Error},
};

pub(super) use self::send_clock::{SendClock, VIDEO_CLOCK_RATE};
use self::{
    authenticated_ssrcs::AuthenticatedSsrcs, frame_batcher::FrameBatcher,
    keyframe_feedback::KeyframeFeedback, sender_reports::SenderReportRewriter,
};
use super::{
    congestion::{BandwidthControl, CongestionController, Departure},
    retransmission::Retransmitter,
    ssrc_limiter::SsrcLimiter,
    stats::ConnectionStats,
};
use crate::{
    bandwidth::PacketKind,
    media::{AUDIO_RATE, KeyframeRequest, SenderReports},
    model::Media,
};

/// The position of the tap: between the network and everything that makes packets, so that it sees
/// each packet that is sent.
pub(super) const TAP_SLOT: Slot = Slot::Custom(3_500);

/// The tap of one connection. The driver of webrtc-rs calls it.
pub(super) struct Tap {
    /// The SSRCs of the videos that this end sends.
    videos: Vec<u32>,
    keyframe_feedback: KeyframeFeedback,
    retransmitter: Retransmitter,
    congestion: CongestionController,
    report_rewriter: SenderReportRewriter,
    received_reports: SenderReports,
    stats: Arc<ConnectionStats>,
    authenticated: AuthenticatedSsrcs,
    reads: VecDeque<TaggedPacket>,
    writes: FrameBatcher,
}

/// What the tap shares with the rest of its connection.
pub(super) struct TapShared {
    pub(super) stats: Arc<ConnectionStats>,
    pub(super) limiter: Arc<SsrcLimiter>,
    pub(super) bandwidth: Arc<BandwidthControl>,
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
        Self { ssrc, is_video, clock, keyframes: KeyframeRequest::default() }
    }
}

impl Tap {
    pub(super) fn new(local: &[LocalStream], reports: SenderReports, shared: TapShared) -> Self {
        let TapShared { stats, limiter, bandwidth } = shared;
        Self {
            videos: local.iter().filter(|one| one.is_video).map(|one| one.ssrc).collect(),
            keyframe_feedback: KeyframeFeedback::new(local),
            retransmitter: Retransmitter::default(),
            congestion: CongestionController::new(bandwidth),
            report_rewriter: SenderReportRewriter::new(local),
            received_reports: reports,
            stats,
            authenticated: AuthenticatedSsrcs::new(limiter),
            reads: VecDeque::new(),
            writes: FrameBatcher::default(),
        }
    }

    /// Handles one received RTCP packet.
    fn handle_rtcp(&mut self, packet: &dyn rtcp::Packet, now: Instant) {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            sender_reports::record(report, &self.received_reports);
        } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
            self.retransmit(nack, now);
        } else {
            self.keyframe_feedback.handle(packet);
        }
        self.congestion.on_rtcp(packet, now);
    }

    /// Sends packets again that the remote peer asks for.
    fn retransmit(&mut self, nack: &TransportLayerNack, now: Instant) {
        let round_trip = self.stats.round_trip().latest();
        for packet in self.retransmitter.on_nack(nack, round_trip, now) {
            let message = AttributedPacket::new(Packet::Rtp(packet));
            let message = message.with(Attribute::Retransmission);
            self.writes.push(TaggedPacket { now, transport: TransportContext::default(), message });
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
    fn on_departure(&mut self, packet: &mut rtp::Packet, is_again: bool, now: Instant) {
        let is_video = self.videos.contains(&packet.header.ssrc);
        let kind = match (is_again, is_video) {
            (true, _) => PacketKind::Retransmission,
            (false, true) => PacketKind::Video,
            (false, false) => PacketKind::Audio,
        };
        // What is sent again on an RTX stream has extensions of its own.
        let keeps_extensions = !self.retransmitter.has_rtx(packet.header.ssrc);
        if !is_again && !keeps_extensions {
            self.retransmitter.on_sent(packet, now);
        }
        let at = self.congestion.media_time(now);
        self.congestion.on_departure(packet, Departure { at, kind, cluster: None });
        if !is_again && keeps_extensions {
            self.retransmitter.on_sent(packet, now);
        }
        self.stats.streams().on_rtp_sent(packet, is_again);
    }

    /// Handles one RTP packet that is sent.
    fn handle_rtp(&mut self, packet: TaggedPacket, (ssrc, is_last): (u32, bool)) {
        if self.videos.contains(&ssrc) {
            self.writes.push_of_frame(packet, is_last);
        } else {
            self.writes.push(packet);
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
        self.authenticated.record(&message.message.packet);
        self.count_received(&message);
        if let Packet::Rtcp(packets) = &message.message.packet {
            if let Some(round_trip) = self.stats.round_trip().latest() {
                self.congestion.on_round_trip(round_trip);
            }
            packets.iter().for_each(|packet| self.handle_rtcp(&**packet, message.now));
        }
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
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
                let (ssrc, is_last) = (packet.header.ssrc, packet.header.marker);
                self.handle_rtp(message, (ssrc, is_last));
                return Ok(());
            }
            other => tracing::debug!(?other, "packet of an unknown kind not counted"),
        }
        self.writes.push(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        let mut message = self.writes.pop()?;
        let is_again = message.message.has(&Attribute::Retransmission);
        if let Packet::Rtp(packet) = &mut message.message.packet {
            self.on_departure(packet, is_again, message.now);
        }
        Some(message)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.writes.handle_timeout(now);
        self.congestion.poll(self.congestion.media_time(now));
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        [self.writes.next_timeout(), self.congestion.next_timeout()].into_iter().flatten().min()
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
