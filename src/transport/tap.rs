//! An interceptor that reads and corrects RTCP, counts RTP, and batches the packets of a video
//! frame.
//!
//! By default no RTCP reaches the application. Where it does, webrtc-rs routes it by track id,
//! which the remote peer chooses. The tap goes by SSRC instead, and delivers nothing twice.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rtc::{
    interceptor::{Attribute, Interceptor, Packet, Slot, StreamInfo, TaggedPacket},
    rtcp::{
        self,
        payload_feedbacks::{
            full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication,
        },
        receiver_report::ReceiverReport,
        sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::{
            TransportLayerNack, nack_pairs_from_sequence_numbers,
        },
    },
    sansio::Protocol,
    shared::error::Error,
};

use super::ssrc_limiter::SsrcLimiter;
use crate::{
    media::{self, KeyframeRequest, SenderReports},
    model::MediaTime,
};

/// The position of the tap: between the network and the NACK responder, so that it sees NACKs
/// before they are answered, and each packet that is sent, retransmissions included.
pub(super) const TAP_SLOT: Slot = Slot::Custom(3_500);

/// Retransmissions that may be sent beyond one for each new packet: as many packets as two video
/// frames have.
const RETRANSMIT_BURST: u32 = 128;

/// How long the packets of a video frame are held for its last one. All of them are written at
/// once, so this time only passes if the last one was lost before it got here.
const BATCH_TIMEOUT: Duration = Duration::from_millis(5);

/// The tap of one connection.
pub(super) struct Tap {
    local: LocalStreams,
    reports: SenderReports,
    traffic: Arc<TrafficCounters>,
    authenticated: AuthenticatedSsrcs,
    /// How many packets may be retransmitted now. This limits what a viewer costs that requests
    /// more retransmissions than packets are sent.
    retransmit_budget: u32,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
    /// The packets of a video frame whose last one is not written yet. The driver of webrtc-rs
    /// writes packets one by one, but sends those together that it polls together.
    batch: VecDeque<TaggedPacket>,
    /// When the batch is sent even if it is incomplete.
    batch_deadline: Option<Instant>,
}

/// The streams that this end sends.
#[derive(Clone)]
pub(super) struct LocalStreams {
    /// The SSRC of the video.
    pub(super) video: u32,
    /// Signalled when the remote peer requests a keyframe.
    pub(super) keyframes: KeyframeRequest,
    /// Each SSRC with its clock.
    pub(super) clocks: [(u32, Arc<SendClock>); 2],
}

impl Tap {
    pub(super) fn new(
        local: LocalStreams,
        reports: SenderReports,
        traffic: Arc<TrafficCounters>,
        limiter: Arc<SsrcLimiter>,
    ) -> Self {
        Self {
            local,
            reports,
            traffic,
            authenticated: AuthenticatedSsrcs { limiter, marked: vec![] },
            retransmit_budget: RETRANSMIT_BURST,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            batch: VecDeque::new(),
            batch_deadline: None,
        }
    }

    /// Handles one received RTCP packet. Returns what is passed on of it, if anything.
    fn handle_rtcp(&mut self, packet: Box<dyn rtcp::Packet>) -> Option<Box<dyn rtcp::Packet>> {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            let latest = media::SenderReport { ntp: report.ntp_time, rtp: report.rtp_time };
            self.reports.record(report.ssrc, latest);
        } else if let Some(loss) = any.downcast_ref::<PictureLossIndication>() {
            if loss.media_ssrc == self.local.video {
                self.local.keyframes.request();
            }
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            if request.fir.iter().any(|entry| entry.ssrc == self.local.video) {
                self.local.keyframes.request();
            }
        } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
            return self.limit_nack(nack);
        }
        Some(packet)
    }

    /// The part of a NACK that fits into the retransmission budget.
    fn limit_nack(&mut self, nack: &TransportLayerNack) -> Option<Box<dyn rtcp::Packet>> {
        let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list());
        let answered: Vec<u16> = lost.take(self.retransmit_budget as usize).collect();
        self.retransmit_budget -= answered.len() as u32;
        if answered.is_empty() {
            return None;
        }
        let nacks = nack_pairs_from_sequence_numbers(&answered);
        Some(Box::new(TransportLayerNack { nacks, ..nack.clone() }))
    }

    /// Sets a sender report's RTP timestamp to that of the media *captured* at its NTP time.
    /// webrtc-rs uses the media *sent* at that time, which is off by the delay of capture and
    /// encoder. That delay differs between video and audio, so they would be out of sync by the
    /// difference.
    fn rewrite_sender_report(&self, packet: Box<dyn rtcp::Packet>) -> Box<dyn rtcp::Packet> {
        let Some(report) = packet.as_any().downcast_ref::<SenderReport>() else { return packet };
        let clock = self.local.clocks.iter().find(|(ssrc, _)| *ssrc == report.ssrc);
        match clock {
            Some((_, clock)) => Box::new(SenderReport {
                rtp_time: clock.timestamp_at(media::now()),
                ..report.clone()
            }),
            None => packet,
        }
    }

    /// Holds a packet of a video frame until the last one, which has the marker bit (RFC 6184,
    /// section 5.1).
    fn batch_packet(&mut self, packet: TaggedPacket, is_last: bool) {
        let deadline = self.batch_deadline.unwrap_or(packet.now + BATCH_TIMEOUT);
        self.batch.push_back(packet);
        self.batch_deadline = Some(deadline);
        if is_last {
            self.flush_batch();
        }
    }

    fn flush_batch(&mut self) {
        self.writes.append(&mut self.batch);
        self.batch_deadline = None;
    }

    fn count(&mut self, is_retransmission: bool) {
        if is_retransmission {
            self.traffic.retransmitted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.traffic.sent.fetch_add(1, Ordering::Relaxed);
            self.retransmit_budget = (self.retransmit_budget + 1).min(RETRANSMIT_BURST);
        }
    }
}

/// Reports the SSRCs of which an authenticated packet arrived.
struct AuthenticatedSsrcs {
    limiter: Arc<SsrcLimiter>,
    /// The SSRCs that were reported, each with whether it is of RTCP.
    marked: Vec<(u32, bool)>,
}

impl AuthenticatedSsrcs {
    /// Records the SSRC of a packet. Of RTCP only reports are considered, which every peer sends.
    fn record(&mut self, packet: &Packet) {
        let stream = match packet {
            Packet::Rtp(packet) => Some((packet.header.ssrc, false)),
            Packet::Rtcp(packets) => packets.first().and_then(|packet| {
                let any = packet.as_any();
                let sender = any.downcast_ref::<SenderReport>().map(|report| report.ssrc);
                let receiver = || any.downcast_ref::<ReceiverReport>().map(|report| report.ssrc);
                Some((sender.or_else(receiver)?, true))
            }),
            _ => None,
        };
        if let Some((ssrc, is_rtcp)) = stream.filter(|stream| !self.marked.contains(stream)) {
            self.limiter.mark_authenticated(ssrc, is_rtcp);
            // The limiter does not keep more SSRCs than that anyway.
            if self.marked.len() < 64 {
                self.marked.push((ssrc, is_rtcp));
            }
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        self.authenticated.record(&message.message.packet);
        if let Packet::Rtcp(packets) = &mut message.message.packet {
            let received = std::mem::take(packets);
            *packets = received.into_iter().filter_map(|packet| self.handle_rtcp(packet)).collect();
            if packets.is_empty() {
                return Ok(());
            }
        }
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        let is_retransmission = message.message.has(&Attribute::Retransmission);
        match &mut message.message.packet {
            Packet::Rtcp(packets) => {
                let written = std::mem::take(packets);
                *packets =
                    written.into_iter().map(|packet| self.rewrite_sender_report(packet)).collect();
            }
            Packet::Rtp(packet) => {
                let (ssrc, is_last) = (packet.header.ssrc, packet.header.marker);
                self.count(is_retransmission);
                if ssrc == self.local.video && !is_retransmission {
                    self.batch_packet(message, is_last);
                    return Ok(());
                }
            }
            other => tracing::debug!(?other, "packet of an unknown kind not counted"),
        }
        self.writes.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.batch_deadline.is_some_and(|leave| leave <= now) {
            self.flush_batch();
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.batch_deadline
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}

/// The RTP clock of a sent stream, relative to the process's clock.
#[derive(Debug)]
pub(super) struct SendClock {
    /// Ticks per second.
    rate: u32,
    /// How many ticks the stream is ahead of the process's clock.
    offset: AtomicI64,
}

impl SendClock {
    pub(super) fn new(rate: u32) -> Arc<Self> {
        Arc::new(Self { rate, offset: AtomicI64::new(0) })
    }

    /// Records that the media at `ticks` were captured at `time`. Returns the RTP timestamp.
    pub(super) fn record(&self, time: MediaTime, ticks: u64) -> u32 {
        let offset = ticks.wrapping_sub(self.ticks(time)) as i64;
        self.offset.store(offset, Ordering::Relaxed);
        ticks as u32
    }

    /// The RTP timestamp of media captured at `time`, modulo 2³².
    pub(super) fn timestamp_at(&self, time: MediaTime) -> u32 {
        self.ticks(time).wrapping_add(self.offset.load(Ordering::Relaxed) as u64) as u32
    }

    /// `time` in ticks of this clock's rate.
    pub(super) fn ticks(&self, time: MediaTime) -> u64 {
        (u128::from(time.as_micros()) * u128::from(self.rate) / 1_000_000) as u64
    }
}

/// The RTP packets that were sent. The driver counts them; any thread may read.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    pub(super) sent: AtomicU64,
    pub(super) retransmitted: AtomicU64,
}

#[cfg(test)]
mod tests {
    use rtc::{interceptor::AttributedPacket, rtp, shared::TransportContext};

    use super::*;

    const VIDEO: u32 = 7;

    fn tap() -> Tap {
        let clocks = [(3, SendClock::new(48_000)), (VIDEO, SendClock::new(90_000))];
        let local = LocalStreams { video: VIDEO, keyframes: KeyframeRequest::default(), clocks };
        Tap::new(local, SenderReports::default(), Arc::default(), Arc::new(SsrcLimiter::new()))
    }

    fn tagged(packet: Packet) -> TaggedPacket {
        let message = AttributedPacket::new(packet);
        TaggedPacket { now: Instant::now(), transport: TransportContext::default(), message }
    }

    fn nack(lost: std::ops::Range<u16>) -> TaggedPacket {
        let nacks = nack_pairs_from_sequence_numbers(&lost.collect::<Vec<_>>());
        let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: VIDEO, nacks };
        tagged(Packet::Rtcp(vec![Box::new(nack)]))
    }

    fn answered(tap: &mut Tap) -> usize {
        let Some(message) = tap.poll_read() else { return 0 };
        let Packet::Rtcp(packets) = message.message.packet else {
            panic!("the packet is not RTCP")
        };
        let nack = packets[0].as_any().downcast_ref::<TransportLayerNack>().unwrap();
        nack.nacks.iter().flat_map(|pair| pair.packet_list()).count()
    }

    #[test]
    fn retransmissions_are_limited_to_a_burst_and_one_per_sent_packet() {
        let mut tap = tap();
        tap.handle_read(nack(0..300)).unwrap();
        assert_eq!(answered(&mut tap), RETRANSMIT_BURST as usize);
        tap.handle_read(nack(0..300)).unwrap();
        assert_eq!(answered(&mut tap), 0);
        for _ in 0..10 {
            tap.handle_write(tagged(Packet::Rtp(rtp::Packet::default()))).unwrap();
        }
        tap.handle_read(nack(0..300)).unwrap();
        assert_eq!(answered(&mut tap), 10);
        assert_eq!(tap.traffic.sent.load(Ordering::Relaxed), 10);
    }

    fn rtp(ssrc: u32, marker: bool) -> TaggedPacket {
        let header = rtp::Header { ssrc, marker, ..rtp::Header::default() };
        tagged(Packet::Rtp(rtp::Packet { header, ..rtp::Packet::default() }))
    }

    #[test]
    fn the_packets_of_a_video_frame_are_sent_together_and_delay_no_others() {
        let mut tap = tap();
        let mut sent = |packet: TaggedPacket| {
            tap.handle_write(packet).unwrap();
            std::iter::from_fn(|| tap.poll_write()).count()
        };
        assert_eq!((sent(rtp(VIDEO, false)), sent(rtp(VIDEO, false))), (0, 0));
        assert_eq!(sent(rtp(3, false)), 1, "audio");
        let mut retransmission = rtp(VIDEO, false);
        retransmission.message.add(Attribute::Retransmission);
        assert_eq!(sent(retransmission), 1);
        assert_eq!((sent(rtp(VIDEO, true)), sent(rtp(VIDEO, true))), (3, 1));
        assert_eq!(tap.poll_timeout(), None);
    }

    #[test]
    fn a_frame_whose_last_packet_never_comes_is_sent_after_a_timeout() {
        let mut tap = tap();
        let first = rtp(VIDEO, false);
        let deadline = first.now + BATCH_TIMEOUT;
        tap.handle_write(first).unwrap();
        tap.handle_write(rtp(VIDEO, false)).unwrap();
        assert_eq!(tap.poll_timeout(), Some(deadline));
        tap.handle_timeout(deadline - Duration::from_millis(1)).unwrap();
        assert!(tap.poll_write().is_none());
        tap.handle_timeout(deadline).unwrap();
        assert_eq!(std::iter::from_fn(|| tap.poll_write()).count(), 2);
        assert_eq!(tap.poll_timeout(), None);
    }

    #[tokio::test]
    async fn only_feedback_about_the_local_video_requests_a_keyframe() {
        let mut tap = tap();
        let mut is_requested = |packet: Box<dyn rtcp::Packet>| {
            tap.handle_read(tagged(Packet::Rtcp(vec![packet]))).unwrap();
            let request = tap.local.keyframes.clone();
            let mut requested = Box::pin(async move { request.requested().await });
            futures_util::FutureExt::now_or_never(requested.as_mut()).is_some()
        };
        let loss = |media_ssrc| Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc });
        assert!(is_requested(loss(VIDEO)));
        assert!(!is_requested(loss(VIDEO + 1)));
        let entry = rtcp::payload_feedbacks::full_intra_request::FirEntry {
            ssrc: VIDEO,
            sequence_number: 1,
        };
        assert!(is_requested(Box::new(FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![entry]
        })));
    }

    #[test]
    fn a_clock_gives_the_timestamp_of_media_captured_at_a_time_not_sent_at_it() {
        let (clock, second) = (SendClock::new(48_000), MediaTime::from_micros(1_000_000));
        assert_eq!(clock.record(second, 96_000), 96_000);
        assert_eq!(
            clock.timestamp_at(second + std::time::Duration::from_millis(80)),
            96_000 + 80 * 48
        );
        assert_eq!(clock.record(second, 5), 5, "a new source restarts the count");
        assert_eq!(clock.timestamp_at(MediaTime::default()), 5_u32.wrapping_sub(48_000));
    }

    #[test]
    fn a_sender_report_uses_the_clock_of_its_stream() {
        let mut tap = tap();
        let clock = Arc::clone(&tap.local.clocks[0].1);
        clock.record(MediaTime::default(), 96_000);
        let before = clock.timestamp_at(media::now());
        let report = SenderReport { ssrc: 3, ntp_time: 5, rtp_time: 6, ..Default::default() };
        tap.handle_write(tagged(Packet::Rtcp(vec![Box::new(report)]))).unwrap();
        let Packet::Rtcp(packets) = tap.poll_write().unwrap().message.packet else {
            panic!("the packet is not RTCP")
        };
        let report = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
        assert!((before..=clock.timestamp_at(media::now())).contains(&report.rtp_time));
        assert_eq!(report.ntp_time, 5);
    }

    #[test]
    fn sender_reports_of_the_remote_peer_are_recorded() {
        let mut tap = tap();
        let report = SenderReport { ssrc: 9, ntp_time: 5, rtp_time: 6, ..Default::default() };
        tap.handle_read(tagged(Packet::Rtcp(vec![Box::new(report)]))).unwrap();
        assert_eq!(tap.reports.latest(9), Some(media::SenderReport { ntp: 5, rtp: 6 }));
    }
}
