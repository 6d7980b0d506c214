//! Tests of the tap: which packet goes to which part.

use rtc::{
    interceptor::RTCPFeedback,
    rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication,
    rtcp::transport_feedbacks::transport_layer_nack::nack_pairs_from_sequence_numbers, rtp,
};

use super::*;
use crate::{
    media,
    model::{MediaTime, RtcStats},
};
use std::time::Duration;

const AUDIO: u32 = 3;
const VIDEO: u32 = 7;

fn local_streams() -> [LocalStream; 2] {
    [LocalStream::new(AUDIO, Media::Audio), LocalStream::new(VIDEO, Media::Video)]
}

fn tap(local: &[LocalStream]) -> Tap {
    let shared = TapShared {
        stats: Arc::default(),
        limiter: Arc::new(SsrcLimiter::new()),
        bandwidth: BandwidthControl::new(crate::model::PeerId(1)),
        batch: Arc::default(),
    };
    let mut tap = Tap::new(local, SenderReports::default(), shared);
    let mime_type = "audio/opus".to_owned();
    tap.bind_local_stream(&StreamInfo { ssrc: AUDIO, mime_type, ..StreamInfo::default() });
    let nack = RTCPFeedback { typ: "nack".to_owned(), parameter: String::new() };
    tap.bind_local_stream(&StreamInfo {
        ssrc: VIDEO,
        mime_type: "video/H264".to_owned(),
        rtcp_feedback: vec![nack],
        ..StreamInfo::default()
    });
    tap
}

fn outbound_packets(object: &RtcStats) -> Option<(u64, u64)> {
    let RtcStats::OutboundRtp(stream) = object else { return None };
    Some((stream.packets_sent, stream.retransmitted_packets_sent))
}

fn tagged(packet: Packet) -> TaggedPacket {
    let message = AttributedPacket::new(packet);
    TaggedPacket { now: Instant::now(), transport: TransportContext::default(), message }
}

fn rtcp(packet: impl rtcp::Packet + 'static) -> TaggedPacket {
    tagged(Packet::Rtcp(vec![Box::new(packet)]))
}

fn rtp(ssrc: u32, marker: bool) -> TaggedPacket {
    let header = rtp::Header { ssrc, marker, ..rtp::Header::default() };
    tagged(Packet::Rtp(rtp::Packet { header, ..rtp::Packet::default() }))
}

/// How many packets leave when this one is written.
fn leaving(tap: &mut Tap, packet: TaggedPacket) -> usize {
    tap.handle_write(packet).unwrap();
    std::iter::from_fn(|| tap.poll_write()).count()
}

/// The packets that leave in answer to a NACK for packet 0 of the video.
fn retransmissions(tap: &mut Tap) -> Vec<rtp::Packet> {
    let nacks = nack_pairs_from_sequence_numbers(&[0]);
    tap.handle_read(rtcp(TransportLayerNack { sender_ssrc: 1, media_ssrc: VIDEO, nacks })).unwrap();
    let packets = std::iter::from_fn(|| tap.poll_write()).map(|packet| {
        assert!(packet.message.has(&Attribute::Retransmission));
        let Packet::Rtp(packet) = packet.message.packet else { panic!("it is RTCP") };
        packet
    });
    packets.collect()
}

#[test]
fn a_nack_for_a_packet_of_the_video_is_answered_and_counted() {
    let local = local_streams();
    let mut tap = tap(&local);
    leaving(&mut tap, rtp(AUDIO, false));
    assert_eq!(retransmissions(&mut tap), []);
    assert_eq!(leaving(&mut tap, rtp(VIDEO, true)), 1);
    let repeats = retransmissions(&mut tap);
    assert_eq!(repeats.iter().map(|packet| packet.header.ssrc).collect::<Vec<_>>(), [VIDEO]);
    let report = tap.stats.report();
    let sent: Vec<_> = report.iter().filter_map(outbound_packets).collect();
    assert_eq!(sent, [(1, 0), (2, 1)], "packets, and retransmissions among them");
}

#[test]
fn packets_of_the_video_wait_for_the_last_one_of_their_frame() {
    let mut tap = tap(&local_streams());
    assert_eq!(leaving(&mut tap, rtp(VIDEO, false)), 0);
    assert!(tap.poll_timeout().is_some());
    assert_eq!(leaving(&mut tap, rtp(AUDIO, false)), 1);
    assert_eq!(leaving(&mut tap, rtcp(SenderReport::default())), 1);
    assert_eq!(leaving(&mut tap, rtp(VIDEO, true)), 2);
    assert_eq!(tap.poll_timeout(), None);
    assert_eq!(leaving(&mut tap, rtp(VIDEO, false)), 0);
    let deadline = tap.poll_timeout().unwrap();
    tap.handle_timeout(deadline).unwrap();
    assert!(tap.poll_write().is_some());
}

#[test]
fn a_frame_leaves_whole_when_its_last_packet_is_written_and_is_counted_in_reports() {
    let local = local_streams();
    let mut tap = tap(&local);
    let packet = |number: u16, timestamp, marker| {
        let header = rtp::Header {
            ssrc: VIDEO,
            sequence_number: number,
            timestamp,
            marker,
            ..rtp::Header::default()
        };
        rtp::Packet { header, payload: vec![0x41; 100].into() }
    };
    for (number, timestamp) in [(1, 10), (2, 10), (5, 20)] {
        local[1].parts.push(packet(number, timestamp, false)).unwrap();
    }
    tap.handle_write(tagged(Packet::Rtp(packet(3, 10, true)))).unwrap();
    let sent: Vec<_> = std::iter::from_fn(|| tap.poll_write())
        .map(|packet| {
            let Packet::Rtp(packet) = packet.message.packet else { panic!("it is RTCP") };
            (packet.header.sequence_number, packet.header.marker)
        })
        .collect();
    assert_eq!(sent, [(1, false), (2, false), (3, true)]);
    let report = SenderReport { ssrc: VIDEO, packet_count: 1, ..Default::default() };
    tap.handle_write(rtcp(report)).unwrap();
    let Packet::Rtcp(packets) = tap.poll_write().unwrap().message.packet else {
        panic!("the packet is not RTCP")
    };
    let report = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
    assert_eq!((report.packet_count, report.octet_count), (3, 300));
}

/// Video that is ten times as fast as the target at the start.
#[test]
fn frames_that_are_dropped_leave_no_gap_and_a_keyframe_is_requested() {
    let local = local_streams();
    let mut tap = tap(&local);
    let (start, mut sent) = (Instant::now(), vec![]);
    for frame in 0..200_u32 {
        let now = start + Duration::from_millis(u64::from(frame) * 33);
        for part in 0..20_u32 {
            let header = rtp::Header {
                ssrc: VIDEO,
                timestamp: frame,
                marker: part == 19,
                sequence_number: 65_000_u32.wrapping_add(frame * 20 + part) as u16,
                ..rtp::Header::default()
            };
            let kind = if frame % 50 == 0 { 0x65 } else { 0x41 };
            let packet = rtp::Packet { header, payload: vec![kind; 1000].into() };
            tap.handle_write(TaggedPacket { now, ..tagged(Packet::Rtp(packet)) }).unwrap();
        }
        tap.handle_timeout(now).unwrap();
        let packets = std::iter::from_fn(|| tap.poll_write());
        sent.extend(packets.filter_map(|packet| {
            let Packet::Rtp(packet) = packet.message.packet else { return None };
            Some((packet.header.sequence_number, packet.header.timestamp))
        }));
    }
    let numbers: Vec<_> = sent.iter().map(|(number, _)| *number).collect();
    let consecutive: Vec<_> = (0..sent.len()).map(|n| 65_000_u16.wrapping_add(n as u16)).collect();
    assert_eq!(numbers, consecutive);
    let frames: std::collections::BTreeSet<_> = sent.iter().map(|(_, frame)| *frame).collect();
    assert!(frames.len() < 60 && frames.contains(&150), "{frames:?}");
    assert!(futures_util::FutureExt::now_or_never(local[1].keyframes.requested()).is_some());
}

#[test]
fn feedback_is_handled_and_passed_on() {
    let local = local_streams();
    let mut tap = tap(&local);
    tap.handle_read(rtcp(PictureLossIndication { sender_ssrc: 1, media_ssrc: VIDEO })).unwrap();
    assert!(futures_util::FutureExt::now_or_never(local[1].keyframes.requested()).is_some());
    assert!(tap.poll_read().is_some());
}

#[test]
fn reports_that_are_sent_are_corrected_and_received_ones_recorded() {
    let local = local_streams();
    let mut tap = tap(&local);
    let report = |ssrc| SenderReport { ssrc, ntp_time: 5, rtp_time: 6, ..Default::default() };
    local[0].clock.record(MediaTime::default(), 96_000);
    tap.handle_write(rtcp(report(AUDIO))).unwrap();
    let Packet::Rtcp(packets) = tap.poll_write().unwrap().message.packet else {
        panic!("the packet is not RTCP")
    };
    let corrected = packets[0].as_any().downcast_ref::<SenderReport>().unwrap();
    assert!(corrected.rtp_time >= 96_000);
    tap.handle_read(rtcp(report(9))).unwrap();
    let latest = tap.received_reports.latest(9);
    assert_eq!(latest, Some(media::SenderReport { ntp: 5, rtp: 6 }));
}
