//! What the library keeps to itself, read and set right on its way through the interceptors.
//!
//! By default no RTCP reaches the application; and where it does, the library routes it by track
//! id, which the other end chooses. The tap goes by SSRC and delivers nothing twice.

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

use super::ssrcs::Ssrcs;
use crate::{
    media::{self, KeyframeRequest, SenderReports},
    model::MediaTime,
};

/// Where the tap sits: between the wire and the answers to NACKs, so that it sees NACKs before
/// they are answered and each packet that leaves, repeated ones too.
pub(super) const TAP_SLOT: Slot = Slot::Custom(3_500);

/// Repeated packets that may be sent beyond one for each new packet: two pictures' worth.
const REPEAT_BURST: u32 = 128;

/// How long the packets of a picture are kept for its last one. All of them are written at once,
/// so this only passes when the last one was lost on its way here.
const GATHERING: Duration = Duration::from_millis(5);

/// The tap of one connection.
pub(super) struct Tap {
    own: OwnStreams,
    reports: SenderReports,
    traffic: Arc<TrafficCounters>,
    genuine: Genuine,
    /// How many packets may be repeated now: a viewer that asks for more than is sent costs
    /// nobody more than that.
    repeats: u32,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
    /// The packets of a picture whose last one has not come yet: the library's driver takes one
    /// at a time, and sends those together that it finds together.
    gathered: VecDeque<TaggedPacket>,
    /// When they leave all the same.
    leave: Option<Instant>,
}

/// What is known of the streams that this end sends.
#[derive(Clone)]
pub(super) struct OwnStreams {
    /// The SSRC of the pictures.
    pub(super) video: u32,
    /// Wakes whoever feeds them when the other end wants a keyframe.
    pub(super) keyframes: KeyframeRequest,
    /// Each SSRC with its clock.
    pub(super) clocks: [(u32, Arc<SendClock>); 2],
}

impl Tap {
    pub(super) fn new(
        own: OwnStreams,
        reports: SenderReports,
        traffic: Arc<TrafficCounters>,
        ssrcs: Arc<Ssrcs>,
    ) -> Self {
        let (reads, writes, gathered) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (repeats, leave) = (REPEAT_BURST, None);
        let genuine = Genuine { ssrcs, known: vec![] };
        Self { own, reports, traffic, genuine, repeats, reads, writes, gathered, leave }
    }

    /// Reads one RTCP packet; `None` takes it out of the stream.
    fn read(&mut self, packet: Box<dyn rtcp::Packet>) -> Option<Box<dyn rtcp::Packet>> {
        let any = packet.as_any();
        if let Some(report) = any.downcast_ref::<SenderReport>() {
            let newest = media::SenderReport { ntp: report.ntp_time, rtp: report.rtp_time };
            self.reports.note(report.ssrc, newest);
        } else if let Some(loss) = any.downcast_ref::<PictureLossIndication>() {
            if loss.media_ssrc == self.own.video {
                self.own.keyframes.request();
            }
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            if request.fir.iter().any(|entry| entry.ssrc == self.own.video) {
                self.own.keyframes.request();
            }
        } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
            return self.within_budget(nack);
        }
        Some(packet)
    }

    /// The part of a NACK that is answered.
    fn within_budget(&mut self, nack: &TransportLayerNack) -> Option<Box<dyn rtcp::Packet>> {
        let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list());
        let wanted: Vec<u16> = lost.take(self.repeats as usize).collect();
        self.repeats -= wanted.len() as u32;
        if wanted.is_empty() {
            return None;
        }
        let nacks = nack_pairs_from_sequence_numbers(&wanted);
        Some(Box::new(TransportLayerNack { nacks, ..nack.clone() }))
    }

    /// Sets a sender report's RTP timestamp to what is captured at its NTP time. The library
    /// takes what is *sent* then, which is off by the capture's and the encoder's time: another
    /// for pictures than for sound, and so lips would be off by the difference.
    fn write(&self, packet: Box<dyn rtcp::Packet>) -> Box<dyn rtcp::Packet> {
        let Some(report) = packet.as_any().downcast_ref::<SenderReport>() else { return packet };
        let clock = self.own.clocks.iter().find(|(ssrc, _)| *ssrc == report.ssrc);
        match clock {
            Some((_, clock)) => {
                Box::new(SenderReport { rtp_time: clock.at(media::now()), ..report.clone() })
            }
            None => packet,
        }
    }

    /// Keeps a packet of a picture until the last one, which bears the marker (RFC 6184, section
    /// 5.1).
    fn gather(&mut self, packet: TaggedPacket, is_last: bool) {
        let leave = self.leave.unwrap_or(packet.now + GATHERING);
        self.gathered.push_back(packet);
        self.leave = Some(leave);
        if is_last {
            self.release();
        }
    }

    fn release(&mut self) {
        self.writes.append(&mut self.gathered);
        self.leave = None;
    }

    fn count(&mut self, repeated: bool) {
        if repeated {
            self.traffic.repeated.fetch_add(1, Ordering::Relaxed);
        } else {
            self.traffic.sent.fetch_add(1, Ordering::Relaxed);
            self.repeats = (self.repeats + 1).min(REPEAT_BURST);
        }
    }
}

/// Tells of whose streams something genuine came.
struct Genuine {
    ssrcs: Arc<Ssrcs>,
    /// Those that were told: RTP, and RTCP.
    known: Vec<(u32, bool)>,
}

impl Genuine {
    /// Notes whose packet came; of RTCP, reports are enough, which every end sends.
    fn note(&mut self, packet: &Packet) {
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
        if let Some((ssrc, is_rtcp)) = stream.filter(|stream| !self.known.contains(stream)) {
            self.ssrcs.is_genuine(ssrc, is_rtcp);
            // Of more streams than that, none is kept anyhow.
            if self.known.len() < 64 {
                self.known.push((ssrc, is_rtcp));
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
        self.genuine.note(&message.message.packet);
        if let Packet::Rtcp(packets) = &mut message.message.packet {
            let read = std::mem::take(packets);
            *packets = read.into_iter().filter_map(|packet| self.read(packet)).collect();
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
        let repeated = message.message.has(&Attribute::Retransmission);
        match &mut message.message.packet {
            Packet::Rtcp(packets) => {
                let written = std::mem::take(packets);
                *packets = written.into_iter().map(|packet| self.write(packet)).collect();
            }
            Packet::Rtp(packet) => {
                let (ssrc, is_last) = (packet.header.ssrc, packet.header.marker);
                self.count(repeated);
                if ssrc == self.own.video && !repeated {
                    self.gather(message, is_last);
                    return Ok(());
                }
            }
            other => tracing::debug!(?other, "a packet of a kind that is not counted"),
        }
        self.writes.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.leave.is_some_and(|leave| leave <= now) {
            self.release();
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.leave
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

/// The RTP clock of a stream that is sent, against the process's clock.
#[derive(Debug)]
pub(super) struct SendClock {
    /// Ticks a second.
    rate: u32,
    /// Ticks that the stream is ahead of the process's clock.
    ahead: AtomicI64,
}

impl SendClock {
    pub(super) fn new(rate: u32) -> Arc<Self> {
        Arc::new(Self { rate, ahead: AtomicI64::new(0) })
    }

    /// Notes that `ticks` was captured at `time`; returns the RTP timestamp.
    pub(super) fn note(&self, time: MediaTime, ticks: u64) -> u32 {
        let ahead = ticks.wrapping_sub(self.ticks(time)) as i64;
        self.ahead.store(ahead, Ordering::Relaxed);
        ticks as u32
    }

    /// The RTP timestamp of what is captured at `time`, modulo 2³².
    pub(super) fn at(&self, time: MediaTime) -> u32 {
        self.ticks(time).wrapping_add(self.ahead.load(Ordering::Relaxed) as u64) as u32
    }

    /// `time` in ticks of this clock's rate.
    pub(super) fn ticks(&self, time: MediaTime) -> u64 {
        (u128::from(time.as_micros()) * u128::from(self.rate) / 1_000_000) as u64
    }
}

/// RTP packets that left, counted by the driver and read by anybody.
#[derive(Debug, Default)]
pub(super) struct TrafficCounters {
    pub(super) sent: AtomicU64,
    pub(super) repeated: AtomicU64,
}

#[cfg(test)]
mod tests {
    use rtc::{interceptor::AttributedPacket, rtp, shared::TransportContext};

    use super::*;

    const VIDEO: u32 = 7;

    fn tap() -> Tap {
        let clocks = [(3, SendClock::new(48_000)), (VIDEO, SendClock::new(90_000))];
        let own = OwnStreams { video: VIDEO, keyframes: KeyframeRequest::default(), clocks };
        Tap::new(own, SenderReports::default(), Arc::default(), Arc::new(Ssrcs::new()))
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
        let Packet::Rtcp(packets) = message.message.packet else { panic!("RTCP went in") };
        let nack = packets[0].as_any().downcast_ref::<TransportLayerNack>().unwrap();
        nack.nacks.iter().flat_map(|pair| pair.packet_list()).count()
    }

    #[test]
    fn more_packets_than_are_sent_are_never_repeated_for_long() {
        let mut tap = tap();
        tap.handle_read(nack(0..300)).unwrap();
        assert_eq!(answered(&mut tap), REPEAT_BURST as usize);
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
    fn the_packets_of_a_picture_leave_together_and_nothing_else_waits_for_them() {
        let mut tap = tap();
        let mut leaving = |packet: TaggedPacket| {
            tap.handle_write(packet).unwrap();
            std::iter::from_fn(|| tap.poll_write()).count()
        };
        assert_eq!((leaving(rtp(VIDEO, false)), leaving(rtp(VIDEO, false))), (0, 0));
        assert_eq!(leaving(rtp(3, false)), 1, "sound");
        let mut repeated = rtp(VIDEO, false);
        repeated.message.add(Attribute::Retransmission);
        assert_eq!(leaving(repeated), 1);
        assert_eq!((leaving(rtp(VIDEO, true)), leaving(rtp(VIDEO, true))), (3, 1));
        assert_eq!(tap.poll_timeout(), None);
    }

    #[test]
    fn a_picture_whose_last_packet_never_comes_leaves_a_little_later() {
        let mut tap = tap();
        let first = rtp(VIDEO, false);
        let leave = first.now + GATHERING;
        tap.handle_write(first).unwrap();
        tap.handle_write(rtp(VIDEO, false)).unwrap();
        assert_eq!(tap.poll_timeout(), Some(leave));
        tap.handle_timeout(leave - Duration::from_millis(1)).unwrap();
        assert!(tap.poll_write().is_none());
        tap.handle_timeout(leave).unwrap();
        assert_eq!(std::iter::from_fn(|| tap.poll_write()).count(), 2);
        assert_eq!(tap.poll_timeout(), None);
    }

    #[tokio::test]
    async fn only_feedback_about_the_own_pictures_asks_for_a_keyframe() {
        let mut tap = tap();
        let mut wanted = |packet: Box<dyn rtcp::Packet>| {
            tap.handle_read(tagged(Packet::Rtcp(vec![packet]))).unwrap();
            let request = tap.own.keyframes.clone();
            let mut asked = Box::pin(async move { request.requested().await });
            futures_util::FutureExt::now_or_never(asked.as_mut()).is_some()
        };
        let loss = |media_ssrc| Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc });
        assert!(wanted(loss(VIDEO)));
        assert!(!wanted(loss(VIDEO + 1)));
        let entry = rtcp::payload_feedbacks::full_intra_request::FirEntry {
            ssrc: VIDEO,
            sequence_number: 1,
        };
        assert!(wanted(Box::new(FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![entry]
        })));
    }

    #[test]
    fn a_clock_tells_what_is_captured_at_a_time_not_what_is_sent_then() {
        let (clock, second) = (SendClock::new(48_000), MediaTime::from_micros(1_000_000));
        assert_eq!(clock.note(second, 96_000), 96_000);
        assert_eq!(clock.at(second + std::time::Duration::from_millis(80)), 96_000 + 80 * 48);
        assert_eq!(clock.note(second, 5), 5, "a source that starts anew counts anew");
        assert_eq!(clock.at(MediaTime::default()), 5_u32.wrapping_sub(48_000));
    }

    #[test]
    fn a_sender_report_goes_by_the_clock_of_its_stream() {
        let mut tap = tap();
        let clock = Arc::clone(&tap.own.clocks[0].1);
        clock.note(MediaTime::default(), 96_000);
        let before = clock.at(media::now());
        let report = SenderReport { ssrc: 3, ntp_time: 5, rtp_time: 6, ..Default::default() };
        tap.handle_write(tagged(Packet::Rtcp(vec![Box::new(report)]))).unwrap();
        let Packet::Rtcp(packets) = tap.poll_write().unwrap().message.packet else {
            panic!("RTCP went in")
        };
        let report = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
        assert!((before..=clock.at(media::now())).contains(&report.rtp_time));
        assert_eq!(report.ntp_time, 5);
    }

    #[test]
    fn the_other_ends_sender_reports_are_noted() {
        let mut tap = tap();
        let report = SenderReport { ssrc: 9, ntp_time: 5, rtp_time: 6, ..Default::default() };
        tap.handle_read(tagged(Packet::Rtcp(vec![Box::new(report)]))).unwrap();
        assert_eq!(tap.reports.of(9), Some(media::SenderReport { ntp: 5, rtp: 6 }));
    }
}
