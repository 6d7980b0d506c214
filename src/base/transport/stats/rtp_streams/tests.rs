//! Tests of the counters of streams.

use super::*;

const SENT: u32 = 7;
const RECEIVED: u32 = 9;

fn info(ssrc: u32) -> StreamInfo {
    StreamInfo {
        ssrc,
        payload_type: 102,
        mime_type: "video/H264".to_owned(),
        clock_rate: 90_000,
        ..StreamInfo::default()
    }
}

fn streams() -> RtpStreams {
    let mut streams = RtpStreams::default();
    streams.bind_local(&info(SENT));
    streams.bind_remote(&info(RECEIVED));
    streams
}

fn packet(ssrc: u32, sequence_number: u16, timestamp: u32) -> rtp::Packet {
    let header = rtp::Header { ssrc, sequence_number, timestamp, ..rtp::Header::default() };
    rtp::Packet { header, payload: vec![0; 100].into() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Packets of that many milliseconds of media each, which arrive at these times.
fn received(packets: &[(u16, u64)]) -> InboundRtpStats {
    let (mut streams, start) = (streams(), Instant::now());
    for &(sequence, at) in packets {
        let timestamp = u32::from(sequence.wrapping_sub(65_530)) * 900;
        streams.on_rtp_received(&packet(RECEIVED, sequence, timestamp), start + ms(at));
    }
    streams.inbound(RECEIVED).unwrap().report()
}

#[test]
fn lost_packets_are_those_announced_by_sequence_numbers_that_did_not_arrive() {
    let stats = received(&[(65_534, 0), (65_535, 10), (2, 40), (3, 50)]);
    assert_eq!((stats.packets_received, stats.packets_lost), (4, 2));
    assert_eq!((stats.bytes_received, stats.header_bytes_received), (400, 48));
    let stats = received(&[(65_534, 0), (65_535, 10), (2, 40), (3, 50), (1, 55), (0, 60)]);
    assert_eq!((stats.packets_received, stats.packets_lost), (6, 0), "sent again");
    let stats = received(&[(5, 0), (5, 1), (6, 10)]);
    assert_eq!((stats.packets_received, stats.packets_lost), (3, -1), "arrived twice");
}

#[test]
fn what_is_sent_again_on_another_stream_was_lost_and_padding_there_is_no_gain() {
    let mut streams = RtpStreams::default();
    let rtx = StreamInfo { ssrc_rtx: Some(10), payload_type_rtx: Some(105), ..info(RECEIVED) };
    streams.bind_remote(&rtx);
    let now = Instant::now();
    for sequence in [1, 2, 4] {
        streams.on_rtp_received(&packet(RECEIVED, sequence, 0), now);
    }
    // One repairs the loss, the others are padding of a probe.
    (0..5).for_each(|sequence| streams.on_rtp_received(&packet(10, sequence, 0), now));
    let stats = streams.inbound(RECEIVED).unwrap().report();
    assert_eq!((stats.packets_received, stats.retransmitted_packets_received), (8, 5));
    assert_eq!(stats.packets_lost, 1);
}

#[test]
fn jitter_is_the_deviation_of_transit_times_without_retransmissions() {
    let even: Vec<_> = (0..200).map(|n| (n, u64::from(n) * 10)).collect();
    assert!(received(&even).jitter < 1e-9, "{:?}", received(&even));
    // Every other packet is 8 ms late, so that each transit time differs from the one before by
    // 8 ms.
    let odd: Vec<_> = (0..200).map(|n| (n, u64::from(n) * 10 + u64::from(n % 2) * 8)).collect();
    let jitter = received(&odd).jitter;
    assert!((jitter - 0.008).abs() < 1e-4, "{jitter}");
    let mut again = even;
    again.push((50, 5000));
    assert!(received(&again).jitter < 1e-9);
}

fn reception_report(last_sender_report: u32, delay_ms: u32) -> ReceiverReport {
    let report = ReceptionReport {
        ssrc: SENT,
        last_sender_report,
        delay: delay_ms * 65_536 / 1000,
        fraction_lost: 64,
        total_lost: 12,
        jitter: 900,
        ..ReceptionReport::default()
    };
    ReceiverReport { reports: vec![report], ..ReceiverReport::default() }
}

#[test]
fn the_round_trip_time_is_measured_from_a_report_to_the_one_that_refers_to_it() {
    let (mut streams, start) = (streams(), Instant::now());
    for n in 1..=3_u64 {
        let sent = SenderReport { ssrc: SENT, ntp_time: n << 16, ..SenderReport::default() };
        streams.on_rtcp_sent(&sent, start + ms(n * 1000));
    }
    streams.on_rtcp_received(&reception_report(0, 0), start + ms(3000));
    let remote = streams.outbound(SENT).unwrap().remote_report().unwrap();
    assert_eq!(remote.round_trip_time, None, "it refers to no report");
    assert_eq!((remote.packets_lost, remote.fraction_lost, remote.jitter), (12, 0.25, 0.01));
    streams.on_rtcp_received(&reception_report(2, 400), start + ms(2480));
    streams.on_rtcp_received(&reception_report(3, 500), start + ms(3620));
    let remote = streams.outbound(SENT).unwrap().remote_report().unwrap();
    let time = remote.round_trip_time.unwrap();
    assert!((time - 0.12).abs() < 1e-3, "{time}");
    assert!((remote.total_round_trip_time - 0.2).abs() < 2e-3, "{remote:?}");
    assert_eq!(remote.round_trip_time_measurements, 2);
}

#[test]
fn feedback_counts_for_the_direction_in_which_it_travels() {
    let mut streams = streams();
    let loss = |media_ssrc| PictureLossIndication { sender_ssrc: 1, media_ssrc };
    let nack = |media_ssrc| TransportLayerNack { sender_ssrc: 1, media_ssrc, nacks: vec![] };
    let now = Instant::now();
    // The remote peer asks for our stream.
    streams.on_rtcp_received(&loss(SENT), now);
    streams.on_rtcp_received(&nack(SENT), now);
    streams.on_rtcp_received(&nack(SENT), now);
    // This end asks for the remote peer's.
    streams.on_rtcp_sent(&loss(RECEIVED), now);
    streams.on_rtcp_sent(&loss(RECEIVED), now);
    streams.on_rtcp_sent(&nack(RECEIVED), now);
    // Neither concerns a stream of that direction.
    streams.on_rtcp_received(&loss(RECEIVED), now);
    streams.on_rtcp_sent(&nack(SENT), now);
    let outbound = streams.outbound(SENT).unwrap().report();
    assert_eq!((outbound.nack_count, outbound.pli_count), (2, Some(1)));
    let inbound = streams.inbound(RECEIVED).unwrap().report();
    assert_eq!((inbound.nack_count, inbound.pli_count), (1, Some(2)));
}

#[test]
fn retransmissions_are_part_of_what_was_sent_and_end_no_frame() {
    let mut streams = streams();
    let mut last = packet(SENT, 2, 0);
    last.header.marker = true;
    streams.on_rtp_sent(&packet(SENT, 1, 0), false);
    streams.on_rtp_sent(&last, false);
    streams.on_rtp_sent(&last, true);
    streams.on_rtp_sent(&packet(RECEIVED, 1, 0), false);
    let sent = streams.outbound(SENT).unwrap().report();
    assert_eq!((sent.packets_sent, sent.bytes_sent, sent.frames_sent), (3, 300, Some(1)));
    assert_eq!((sent.retransmitted_packets_sent, sent.retransmitted_bytes_sent), (1, 100));
}

#[test]
fn the_remote_streams_that_are_counted_are_bounded() {
    let mut streams = RtpStreams::default();
    (0..100).for_each(|ssrc| streams.bind_remote(&info(ssrc)));
    assert_eq!(streams.inbound.len(), MAX_REMOTE_STREAMS);
    streams.unbind_remote(&info(3));
    streams.bind_remote(&info(200));
    assert!(streams.inbound(200).is_some());
}
