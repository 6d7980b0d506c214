//! Sender reports (RFC 3550, section 6.4.1): corrects ours and keeps those of the remote peer.

use std::sync::Arc;

use rtc::{
    rtcp::{self, sender_report::SenderReport},
    rtp,
};

use super::{LocalStream, SendClock};
use crate::media::{self, SenderReports};

/// Records a sender report of the remote peer for the receivers of its tracks.
pub(super) fn record(report: &SenderReport, reports: &SenderReports) {
    let latest = media::SenderReport { ntp: report.ntp_time, rtp: report.rtp_time };
    reports.record(report.ssrc, latest);
}

/// Sets the RTP timestamp of our sender reports to that of the media *captured* at their NTP time,
/// and that to the time of sending by the clock of the media, which no change of the wall clock moves.
/// Sets the counts to what has left, too: webrtc-rs sees only the last packet of a frame
/// ([`FrameParts`](crate::transport::frame_parts::FrameParts)).
///
/// webrtc-rs uses the media *sent* at that time, which is off by the delay of capture and encoder.
/// That delay differs between video and audio, so they would be out of sync by the difference.
///
/// The fault: `rtc-interceptor` 0.21.1 (`report/sender_stream.rs`) takes the time at which a packet
/// is written for that of its RTP timestamp, and a sender cannot tell it the capture time. See
/// webrtc-rs/webrtc#765. Canary: yes.
pub(super) struct SenderReportRewriter {
    streams: Vec<ReportedStream>,
}

/// What the reports of a stream tell.
struct ReportedStream {
    ssrc: u32,
    clock: Arc<SendClock>,
    /// The packets that were sent for the first time, modulo 2³².
    packets: u32,
    /// The bytes of their payloads, modulo 2³².
    octets: u32,
}

impl SenderReportRewriter {
    pub(super) fn new(local: &[LocalStream]) -> Self {
        let reported = |stream: &LocalStream| {
            let (ssrc, clock) = (stream.ssrc, Arc::clone(&stream.clock));
            ReportedStream { ssrc, clock, packets: 0, octets: 0 }
        };
        Self { streams: local.iter().map(reported).collect() }
    }

    /// Counts a packet that is sent for the first time.
    pub(super) fn on_sent(&mut self, packet: &rtp::Packet) {
        let stream = self.streams.iter_mut().find(|stream| stream.ssrc == packet.header.ssrc);
        if let Some(stream) = stream {
            stream.packets = stream.packets.wrapping_add(1);
            stream.octets = stream.octets.wrapping_add(packet.payload.len() as u32);
        }
    }

    /// Returns the packet with the right times and counts if it is a sender report of one of our streams,
    /// and unchanged otherwise.
    pub(super) fn rewrite(&self, packet: Box<dyn rtcp::Packet>) -> Box<dyn rtcp::Packet> {
        let Some(report) = packet.as_any().downcast_ref::<SenderReport>() else { return packet };
        let Some(stream) = self.streams.iter().find(|stream| stream.ssrc == report.ssrc) else {
            return packet;
        };
        let now = media::now();
        Box::new(SenderReport {
            ntp_time: media::ntp_time(now),
            rtp_time: stream.clock.timestamp_at(now),
            packet_count: stream.packets,
            octet_count: stream.octets,
            ..report.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Media, MediaTime};

    fn report(ssrc: u32) -> SenderReport {
        SenderReport { ssrc, ntp_time: 5, rtp_time: 6, ..Default::default() }
    }

    #[test]
    fn a_sender_report_uses_the_clock_of_its_stream() {
        let local = [(3, Media::Audio), (7, Media::Video)];
        let local = local.map(|(ssrc, media)| LocalStream::new(ssrc, media));
        let clock = Arc::clone(&local[0].clock);
        clock.record(MediaTime::default(), 96_000);
        let mut rewriter = SenderReportRewriter::new(&local);
        for ssrc in [3, 7, 3, 9] {
            let header = rtp::Header { ssrc, ..rtp::Header::default() };
            rewriter.on_sent(&rtp::Packet { header, payload: vec![1; 50].into() });
        }
        let rewritten = |ssrc| {
            let packet = rewriter.rewrite(Box::new(report(ssrc)));
            packet.as_any().downcast_ref::<SenderReport>().unwrap().clone()
        };
        let before = clock.timestamp_at(media::now());
        let ours = rewritten(3);
        assert!((before..=clock.timestamp_at(media::now())).contains(&ours.rtp_time));
        // Both are of the same moment: within the time that this test has taken.
        let late = media::ntp_time(media::now()) - ours.ntp_time;
        assert!(late < 20 << 32, "{late}");
        assert_eq!((ours.packet_count, ours.octet_count), (2, 100));
        assert_eq!(rewritten(4), report(4), "a stream that is not ours");
    }

    #[test]
    fn sender_reports_of_the_remote_peer_are_recorded() {
        let reports = SenderReports::default();
        record(&report(9), &reports);
        assert_eq!(reports.latest(9), Some(media::SenderReport { ntp: 5, rtp: 6 }));
    }
}
