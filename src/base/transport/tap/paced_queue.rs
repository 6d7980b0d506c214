//! What waits to be sent: reports and audio leave at once, video at the pace of the path.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rtc::{
    interceptor::{Packet, TaggedPacket},
    rtp,
};

use crate::{
    bandwidth::{FramePart, Pacer, PacingRate, PacketClass, ProbeCluster, Pushed, Release},
    model::MediaTime,
    transport::congestion::wire_bytes,
};

/// How long the packets of a video frame are held for its last one. All of them are written at
/// once, so this time only passes if the last one was lost before it got here.
const BATCH_TIMEOUT: Duration = Duration::from_millis(5);

/// The bytes of the header extension that a packet gets when it leaves.
const EXTENSION_BYTES: u32 = 8;

/// The queue of packets to send. It holds the packets of a video frame until the last one is
/// written: those that do not wait beside the queue of webrtc-rs are written one by one, and it sends those
/// together that it polls together. Then the pacer decides.
pub(super) struct PacedQueue {
    /// Reports and other RTCP.
    reports: VecDeque<TaggedPacket>,
    /// The packets of a video frame whose last one is not written yet.
    frame: Vec<TaggedPacket>,
    /// When the frame is passed on even if it is incomplete.
    deadline: Option<Instant>,
    pacer: Pacer<TaggedPacket>,
    /// The timestamp of the video frame that was passed on last.
    timestamp: Option<u32>,
}

/// What leaves.
pub(super) enum Departing {
    /// RTCP.
    Report(TaggedPacket),
    /// RTP, or a request for padding.
    Media(Release<TaggedPacket>),
}

impl PacedQueue {
    pub(super) fn new(rate: PacingRate) -> Self {
        Self {
            reports: VecDeque::new(),
            frame: vec![],
            deadline: None,
            pacer: Pacer::new(rate),
            timestamp: None,
        }
    }

    /// Adds RTCP, which leaves at once.
    pub(super) fn push_report(&mut self, packet: TaggedPacket) {
        self.reports.push_back(packet);
    }

    /// Adds audio, which leaves at once.
    pub(super) fn push_audio(&mut self, packet: TaggedPacket) {
        let _ = self.push(PacketClass::Audio, packet);
    }

    /// Adds a video packet that is sent again. If too many wait, it is dropped.
    pub(super) fn push_retransmission(&mut self, packet: TaggedPacket) {
        let _ = self.push(PacketClass::VideoRetransmission, packet);
    }

    /// Adds a video packet. The last one of a frame has the marker bit (RFC 6184, section 5.1).
    /// Returns whether a keyframe is needed, because frames had to be dropped.
    pub(super) fn push_video(&mut self, packet: TaggedPacket, is_last: bool) -> bool {
        let deadline = self.deadline.unwrap_or(packet.now + BATCH_TIMEOUT);
        self.frame.push(packet);
        self.deadline = Some(deadline);
        is_last && self.flush()
    }

    /// Sets how fast packets leave.
    pub(super) const fn set_rate(&mut self, rate: PacingRate) {
        self.pacer.set_rate(rate);
    }

    /// Adds a probe of the bandwidth.
    pub(super) fn push_probe(&mut self, probe: ProbeCluster) {
        self.pacer.push_probe(probe);
    }

    /// Tells how large the padding was that was asked for last.
    pub(super) fn on_padding_sent(&mut self, bytes: u32) {
        self.pacer.on_padding_sent(bytes);
    }

    /// What leaves now.
    pub(super) fn pop(&mut self, now: MediaTime) -> Option<Departing> {
        if let Some(report) = self.reports.pop_front() {
            return Some(Departing::Report(report));
        }
        self.pacer.poll(now).map(Departing::Media)
    }

    /// When [`Self::handle_timeout`] must be called.
    pub(super) const fn frame_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// When [`Self::pop`] returns something.
    pub(super) fn pace_timeout(&self) -> Option<MediaTime> {
        self.pacer.poll_timeout()
    }

    /// Passes on an incomplete frame whose time is over. Returns whether a keyframe is needed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now) && self.flush()
    }

    fn flush(&mut self) -> bool {
        self.deadline = None;
        let mut needs_keyframe = false;
        let mut frame = std::mem::take(&mut self.frame);
        for packet in frame.drain(..) {
            let part = self.part(&packet);
            let pushed = self.push(PacketClass::Video(part), packet);
            needs_keyframe |= pushed == Pushed::NeedsKeyframe;
        }
        self.frame = frame;
        needs_keyframe
    }

    /// Which part of its frame a packet is.
    fn part(&mut self, packet: &TaggedPacket) -> FramePart {
        let Packet::Rtp(rtp) = &packet.message.packet else { return FramePart::Continuation };
        let is_first = self.timestamp.replace(rtp.header.timestamp) != Some(rtp.header.timestamp);
        match (is_first, starts_keyframe(&rtp.payload)) {
            (true, true) => FramePart::KeyframeStart,
            (true, false) => FramePart::FrameStart,
            (false, _) => FramePart::Continuation,
        }
    }

    fn push(&mut self, class: PacketClass, packet: TaggedPacket) -> Pushed {
        let bytes = rtp(&packet).map_or(0, wire_bytes) + EXTENSION_BYTES;
        self.pacer.push(class, bytes, packet)
    }
}

fn rtp(packet: &TaggedPacket) -> Option<&rtp::Packet> {
    let Packet::Rtp(packet) = &packet.message.packet else { return None };
    Some(packet)
}

/// Whether an H.264 payload begins with a parameter set or a slice of a keyframe (RFC 6184, section
/// 5.2; ITU-T H.264, table 7-1).
fn starts_keyframe(payload: &[u8]) -> bool {
    const fn is_of_keyframe(header: u8) -> bool {
        matches!(header & 0x1f, 5 | 7)
    }
    match payload {
        // An aggregation packet.
        [first, _, _, inner, ..] if first & 0x1f == 24 => is_of_keyframe(*inner),
        // The first fragment of a unit.
        [first, fragment, ..] if first & 0x1f == 28 => {
            fragment & 0x80 != 0 && is_of_keyframe(*fragment)
        }
        [first, ..] => is_of_keyframe(*first),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use rtc::{interceptor::AttributedPacket, shared::TransportContext};

    use super::*;
    use crate::{
        bandwidth::{Content, Pacing},
        model::Bitrate,
    };

    fn queue(kbps: u64) -> PacedQueue {
        let target = Bitrate::from_kbps(kbps);
        PacedQueue::new(PacingRate { target, pacing: Pacing::Limited })
    }

    fn packet(timestamp: u32, payload: Vec<u8>) -> TaggedPacket {
        let header = rtp::Header { timestamp, ..rtp::Header::default() };
        let packet = rtp::Packet { header, payload: payload.into() };
        let message = AttributedPacket::new(Packet::Rtp(packet));
        TaggedPacket { now: Instant::now(), transport: TransportContext::default(), message }
    }

    /// Adds a frame of so many packets of 1000 bytes.
    fn push_frame(queue: &mut PacedQueue, timestamp: u32, kind: u8, packets: usize) -> bool {
        (1..=packets).fold(false, |needs_keyframe, n| {
            let packet = packet(timestamp, vec![kind; 1000]);
            needs_keyframe | queue.push_video(packet, n == packets)
        })
    }

    fn leaving(queue: &mut PacedQueue, ms: u64) -> usize {
        std::iter::from_fn(|| queue.pop(MediaTime::from_micros(ms * 1000))).count()
    }

    #[test]
    fn a_frame_leaves_in_quanta_once_it_is_complete_and_delays_no_others() {
        let mut queue = queue(1000);
        for n in 1..=6 {
            assert!(!queue.push_video(packet(1, vec![1; 1000]), n == 6));
            assert_eq!(leaving(&mut queue, 100), if n == 6 { 3 } else { 0 }, "{n}");
        }
        queue.push_audio(packet(9, vec![1; 100]));
        queue.push_report(packet(9, vec![]));
        assert_eq!(leaving(&mut queue, 101), 2);
        // Three packets of 1064 bytes at 1.5 Mbit/s.
        assert_eq!(queue.pace_timeout().map(MediaTime::as_micros).map(|us| us / 1000), Some(117));
        assert_eq!((leaving(&mut queue, 116), leaving(&mut queue, 118)), (0, 3));
    }

    #[test]
    fn a_frame_whose_last_packet_never_comes_is_sent_after_a_timeout() {
        let mut queue = queue(1000);
        let first = packet(1, vec![1; 100]);
        let deadline = first.now + BATCH_TIMEOUT;
        queue.push_video(first, false);
        queue.push_video(packet(1, vec![1; 100]), false);
        assert_eq!(queue.frame_timeout(), Some(deadline));
        queue.handle_timeout(deadline - Duration::from_millis(1));
        assert_eq!(leaving(&mut queue, 0), 0);
        queue.handle_timeout(deadline);
        assert_eq!((leaving(&mut queue, 1000), queue.frame_timeout()), (2, None));
    }

    #[test]
    fn too_much_video_is_dropped_to_the_next_keyframe_which_is_asked_for() {
        let mut queue = queue(100);
        let needed: Vec<_> = (1..=8).map(|n| push_frame(&mut queue, n, 1, 2)).collect();
        assert_eq!(needed.iter().filter(|needed| **needed).count(), 1, "{needed:?}");
        assert!(!push_frame(&mut queue, 9, 5, 2));
        let sent: Vec<_> = (0..5000)
            .filter_map(|ms| queue.pop(MediaTime::from_micros(ms * 1000)))
            .filter_map(|departing| match departing {
                Departing::Media(Release { content: Content::Packet(packet), .. }) => {
                    rtp(&packet).map(|packet| packet.header.timestamp)
                }
                Departing::Media(_) | Departing::Report(_) => None,
            })
            .collect();
        assert_eq!(sent.last(), Some(&9));
        assert!(sent.len() < 10, "{sent:?}");
    }

    #[test]
    fn keyframes_are_recognised_in_each_packetization() {
        for payload in [&[0x65_u8][..], &[0x67], &[0x78, 0, 9, 0x67], &[0x7c, 0x85]] {
            assert!(starts_keyframe(payload), "{payload:?}");
        }
        for payload in
            [&[][..], &[0x41], &[0x78, 0, 9, 0x41], &[0x7c, 0x05], &[0x7c, 0x81], &[0x78]]
        {
            assert!(!starts_keyframe(payload), "{payload:?}");
        }
    }
}
