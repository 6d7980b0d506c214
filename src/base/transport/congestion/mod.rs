//! Congestion control of one connection: numbers what leaves, tells the bandwidth estimator what
//! the other end reports of it, and publishes the estimate.

mod audio_losses;
mod audio_rate;
mod control;
mod extensions;
mod feedback;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rtc::{
    interceptor::StreamInfo,
    rtcp::{
        self,
        payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
        receiver_report::ReceiverReport, reception_report::ReceptionReport,
        sender_report::SenderReport, transport_feedbacks::transport_layer_cc::TransportLayerCc,
    },
    rtp,
    shared::marshal::MarshalSize,
};

use self::{
    audio_losses::AudioLossWindow,
    audio_rate::AudioRate,
    extensions::{ExtensionValues, StreamExtensions},
    feedback::FeedbackReader,
};
pub(super) use self::{audio_losses::AudioLosses, control::BandwidthControl};
use crate::{
    bandwidth::{
        BandwidthEstimator, ClusterId, Estimate, PacingRate, PacketKind, PacketResult,
        ProbeCluster, SentPacket,
    },
    media,
    model::{Bitrate, MediaTime},
};

/// The URI of the extension with the transport-wide sequence number
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 2).
pub(super) const TRANSPORT_NUMBER_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// The URI of the extension with the time of sending, from which receivers without transport-wide
/// feedback estimate the bandwidth (draft-alvestrand-rmcat-remb-03).
pub(super) const SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";

/// The bytes of a packet on the wire beside RTP: IPv4, UDP, and the authentication tag of
/// AES-GCM. IPv6 has 20 more.
const TRANSPORT_OVERHEAD: usize = 20 + 8 + 16;

/// The numbers, the estimator and the feedback of one connection. The driver of webrtc-rs calls it.
pub(super) struct CongestionController {
    streams: Vec<StreamExtensions>,
    /// The next transport-wide sequence number. Each packet has the next one.
    next_number: u64,
    values: ExtensionValues,
    estimator: BandwidthEstimator,
    feedback: FeedbackReader,
    audio: AudioLossWindow,
    audio_rate: AudioRate,
    control: Arc<BandwidthControl>,
    /// The local and the remote address of what is sent.
    route: Option<(SocketAddr, SocketAddr)>,
    /// A moment on both clocks.
    epoch: (Instant, MediaTime),
}

/// A packet that leaves, beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Departure {
    /// When it leaves.
    pub(super) at: MediaTime,
    /// What it carries.
    pub(super) kind: PacketKind,
    /// The probe that it belongs to.
    pub(super) cluster: Option<ClusterId>,
}

/// What one message of transport-wide feedback tells.
#[derive(Debug)]
pub(super) struct TransportFeedback {
    /// What became of packets, in the order in which they left.
    pub(super) packets: Vec<PacketResult>,
    /// The losses of audio, if it tells of audio.
    pub(super) audio: Option<AudioLosses>,
}

impl CongestionController {
    /// Publishes its estimate there.
    pub(super) fn new(control: Arc<BandwidthControl>) -> Self {
        Self {
            streams: vec![],
            next_number: 0,
            values: ExtensionValues::default(),
            estimator: control.new_estimator(),
            feedback: FeedbackReader::default(),
            audio: AudioLossWindow::default(),
            audio_rate: AudioRate::new(),
            control,
            route: None,
            epoch: (tokio::time::Instant::now().into_std(), media::now()),
        }
    }

    /// That moment on the clock of the media.
    pub(super) fn media_time(&self, now: Instant) -> MediaTime {
        self.epoch.1 + now.saturating_duration_since(self.epoch.0)
    }

    /// That moment on the clock of webrtc-rs.
    pub(super) fn instant(&self, time: MediaTime) -> Instant {
        self.epoch.0 + time.since(self.epoch.1)
    }

    /// Adds a stream that this end sends, or updates what was negotiated about it.
    pub(super) fn bind(&mut self, info: &StreamInfo) {
        let stream = StreamExtensions::new(info);
        self.streams.retain(|known| known.ssrc != info.ssrc);
        self.streams.push(stream);
    }

    /// Writes the header extensions of a packet that leaves, and notes it. A copy of a packet that
    /// has left keeps its extensions: it has the same SRTP nonce. Returns its transport-wide number, if
    /// it has one.
    pub(super) fn on_departure(
        &mut self,
        packet: &mut rtp::Packet,
        departure: Departure,
    ) -> Option<u64> {
        let ssrc = packet.header.ssrc;
        let is_copy = departure.kind == PacketKind::Retransmission
            && self.streams.iter().any(|stream| stream.ssrc == ssrc);
        if departure.kind == PacketKind::Audio
            && let Some(rate) = self.audio_rate.on_sent(
                wire_bytes(packet),
                departure.at,
                self.control.least_audio_rate(),
            )
        {
            self.control.set_audio_rate(rate);
        }
        let stream = self.streams.iter().find(|stream| stream.has(ssrc));
        let number = self.next_number;
        let is_numbered = stream.filter(|_| !is_copy).is_some_and(|stream| {
            stream.write(&mut packet.header, number, &mut self.values, departure.at)
        });
        if !is_numbered {
            // It uses the rate, too.
            let Departure { at, kind, .. } = departure;
            self.estimator.on_sent_without_number(kind, wire_bytes(packet), at);
            return None;
        }
        self.next_number += 1;
        if departure.kind == PacketKind::Audio {
            self.audio.on_sent(number);
        }
        self.estimator.on_sent(SentPacket {
            number,
            at: departure.at,
            bytes: wire_bytes(packet),
            kind: departure.kind,
            cluster: departure.cluster,
        });
        Some(number)
    }

    /// Handles one received RTCP packet. Returns what it tells if it is transport-wide feedback.
    pub(super) fn on_rtcp(
        &mut self,
        packet: &dyn rtcp::Packet,
        now: Instant,
    ) -> Option<TransportFeedback> {
        let (any, now) = (packet.as_any(), self.media_time(now));
        if let Some(feedback) = any.downcast_ref::<TransportLayerCc>() {
            let report = self.feedback.read(feedback, self.next_number, now);
            if !report.packets.is_empty() {
                self.estimator.on_feedback(&report);
                self.publish();
            }
            let audio = self.audio.on_feedback(&report.packets);
            return Some(TransportFeedback { packets: report.packets, audio });
        } else if let Some(limit) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
            self.estimator.on_remb(Bitrate::from_bps(limit.bitrate as u64), now);
            self.publish();
        } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
            self.on_reception_reports(&report.reports, now);
        } else if let Some(report) = any.downcast_ref::<SenderReport>() {
            self.on_reception_reports(&report.reports, now);
        }
        None
    }

    fn on_reception_reports(&mut self, reports: &[ReceptionReport], now: MediaTime) {
        let is_ours = |report: &&ReceptionReport| {
            self.streams.iter().any(|stream| stream.ssrc == report.ssrc)
        };
        let lost = reports.iter().filter(is_ours).map(|report| report.fraction_lost).max();
        if let Some(lost) = lost {
            self.estimator.on_receiver_report(f64::from(lost) / 256.0, now);
            self.publish();
        }
    }

    /// Notes a measured round trip time.
    pub(super) fn on_round_trip(&mut self, round_trip: Duration) {
        self.estimator.on_round_trip(round_trip);
    }

    /// Follows the time, and what the program wants to send.
    /// Returns a probe that is to be sent now.
    pub(super) fn poll(&mut self, now: MediaTime) -> Option<ProbeCluster> {
        self.control.apply(&mut self.estimator, now);
        let probe = self.estimator.poll(now);
        self.publish();
        probe
    }

    /// How fast packets may leave.
    pub(super) fn pacing_rate(&self) -> PacingRate {
        let estimate = self.estimator.estimate();
        PacingRate { target: estimate.target, pacing: estimate.pacing }
    }

    /// The estimate.
    pub(super) fn estimate(&self) -> Estimate {
        self.estimator.estimate()
    }

    /// When [`Self::poll`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let turn = self.control.next_turn(&self.estimator);
        let next = self.estimator.poll_timeout().into_iter().chain(turn).min();
        next.map(|at| self.instant(at))
    }

    /// Notes over which local and remote address packets are sent. If they are others than before,
    /// little is known of the path.
    pub(super) fn on_route(&mut self, route: (SocketAddr, SocketAddr), now: Instant) {
        let before = self.route.replace(route);
        if before.is_some_and(|before| before != route) {
            tracing::debug!(?before, ?route, "packets take another way");
            self.estimator.on_route_change(self.media_time(now));
            self.publish();
        }
    }

    fn publish(&self) {
        self.control.publish(self.estimator.estimate());
    }
}

/// The bytes of a packet on the wire.
pub(super) fn wire_bytes(packet: &rtp::Packet) -> u32 {
    (packet.header.marshal_size() + packet.payload.len() + TRANSPORT_OVERHEAD) as u32
}

#[cfg(test)]
mod tests {
    use rtc::{
        interceptor::{RTCPFeedback, RTPHeaderExtension},
        rtcp::transport_feedbacks::transport_layer_cc::{
            PacketStatusChunk, RecvDelta, RunLengthChunk, SymbolTypeTcc,
        },
    };

    use super::*;
    use crate::model::PeerId;

    /// What a receiver reports of two packets, of which the first arrived then.
    fn feedback(base: u16, arrived: Duration) -> TransportLayerCc {
        let us = arrived.as_micros() as i64;
        let delta = |delta| RecvDelta { delta, ..RecvDelta::default() };
        TransportLayerCc {
            base_sequence_number: base,
            packet_status_count: 2,
            reference_time: (us / 64_000) as u32,
            packet_chunks: vec![PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                packet_status_symbol: SymbolTypeTcc::PacketReceivedSmallDelta,
                run_length: 2,
                ..RunLengthChunk::default()
            })],
            recv_deltas: vec![delta(us % 64_000), delta(50_000)],
            ..TransportLayerCc::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_route_keeps_of_the_rate_what_was_used() {
        let control = BandwidthControl::new(PeerId(1));
        control.set_may_probe(false);
        let mut controller = CongestionController::new(Arc::clone(&control));
        let extension = RTPHeaderExtension { uri: TRANSPORT_NUMBER_URI.to_owned(), id: 3 };
        let transport_cc =
            RTCPFeedback { typ: "transport-cc".to_owned(), parameter: String::new() };
        controller.bind(&StreamInfo {
            ssrc: 7,
            rtp_header_extensions: vec![extension],
            rtcp_feedback: vec![transport_cc],
            ..StreamInfo::default()
        });
        let header = rtp::Header { ssrc: 7, ..rtp::Header::default() };
        let packet = rtp::Packet { header, payload: vec![0; 1000].into() };
        let (start, begun) = (media::now(), tokio::time::Instant::now().into_std());
        for step in 0..60 {
            let sent = Duration::from_millis(50) * step;
            let departure = Departure { at: start + sent, kind: PacketKind::Video, cluster: None };
            controller.on_departure(&mut packet.clone(), departure);
            if step % 2 == 1 {
                let report = feedback(step as u16 - 1, sent);
                controller.on_rtcp(&report, begun + sent + Duration::from_millis(60));
            }
        }
        let route = |port| {
            let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
            (address(1), address(port))
        };
        let now = begun + Duration::from_secs(3);
        controller.on_route(route(2), now);
        controller.on_route(route(2), now);
        let before = control.latest();
        assert!(before.target >= Bitrate::from_kbps(300), "{before:?}");
        assert!(before.acknowledged.is_some(), "{before:?}");
        controller.on_route(route(3), now);
        let target = control.latest().target.as_bps();
        // Twenty packets of 1064 bytes in a second.
        assert!((150_000..200_000).contains(&target), "{target}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_grows_by_receiver_reports_where_no_packet_has_a_number() {
        let control = BandwidthControl::new(PeerId(1));
        let mut controller = CongestionController::new(Arc::clone(&control));
        controller.bind(&StreamInfo { ssrc: 7, ..StreamInfo::default() });
        let header = rtp::Header { ssrc: 7, ..rtp::Header::default() };
        let mut packet = rtp::Packet { header, payload: vec![0; 1000].into() };
        let start = media::now();
        for step in 0..300 {
            let at = start + Duration::from_millis(10) * step;
            let departure = Departure { at, kind: PacketKind::Video, cluster: None };
            controller.on_departure(&mut packet, departure);
            if step % 100 == 99 {
                let report = ReceptionReport { ssrc: 7, ..ReceptionReport::default() };
                controller.on_reception_reports(&[report], at);
            }
        }
        // 512 kbit/s at first, and three times 5 % more.
        assert!(control.latest().target >= Bitrate::from_kbps(580), "{:?}", control.latest());
    }
}
