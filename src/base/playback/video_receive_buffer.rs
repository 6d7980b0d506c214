//! Turns packets in any order into decodable access units, and decides when to request a keyframe.

use std::{collections::VecDeque, time::Duration};

use super::{
    h264_depacketizer::{Depacketized, H264Depacketizer, lacks_begin, starts_keyframe},
    jitter::{JitterOutput, VideoJitterBuffer},
};
use crate::{
    media::{AccessUnit, RtpPacket},
    model::MediaTime,
};

/// Reorders and depacketizes one video stream, and returns access units whose references are
/// complete. Pure: time is a parameter.
#[derive(Debug)]
pub(crate) struct VideoReceiveBuffer {
    jitter: VideoJitterBuffer,
    depacketizer: H264Depacketizer,
    keyframe_gate: KeyframeGate,
    ready: VecDeque<AccessUnit>,
    frames_received: u64,
}

impl VideoReceiveBuffer {
    /// The interval between keyframe requests while no keyframe arrives.
    pub(crate) const KEYFRAME_RETRY_INTERVAL: Duration = Duration::from_millis(500);

    pub(crate) fn new() -> Self {
        Self {
            jitter: VideoJitterBuffer::new(),
            depacketizer: H264Depacketizer::default(),
            keyframe_gate: KeyframeGate::default(),
            ready: VecDeque::new(),
            frames_received: 0,
        }
    }

    /// Sets the round trip time to the sender, which says how long lost packets may take.
    pub(crate) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        self.jitter.set_round_trip(round_trip);
    }

    /// Adds a packet.
    pub(crate) fn push(&mut self, packet: RtpPacket) {
        let starts_key = starts_keyframe(&packet.payload);
        if lacks_begin(&packet.payload) {
            self.jitter.on_late_start(packet.sequence);
        }
        self.jitter.push(packet, starts_key);
    }

    /// Advances to `now`: completes access units and gives up overdue gaps. What is ready must be
    /// taken before the next call.
    pub(crate) fn advance(&mut self, now: MediaTime) {
        while let Some(step) = self.jitter.poll(now) {
            match step {
                JitterOutput::Packet(packet) => {
                    let Self { depacketizer, keyframe_gate, ready, frames_received, .. } = self;
                    depacketizer.push(&packet, |depacketized| match depacketized {
                        Depacketized::Complete(unit) => {
                            *frames_received += u64::from(unit.has_picture);
                            ready.extend(keyframe_gate.admit(unit));
                        }
                        Depacketized::Damaged(error) => {
                            tracing::debug!(%error, "received frame dropped");
                            keyframe_gate.close();
                        }
                    });
                }
                JitterOutput::Gap { to_keyframe } => {
                    tracing::debug!(to_keyframe, "received packets missing");
                    self.depacketizer.on_gap();
                    self.keyframe_gate.close();
                    if to_keyframe {
                        self.keyframe_gate.requested_at = Some(now);
                    }
                }
            }
        }
    }

    /// The next access unit, in order.
    pub(crate) fn next_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// Sets whether anybody receives the access units. Otherwise no keyframe is requested.
    pub(crate) const fn set_subscribed(&mut self, is_subscribed: bool) {
        self.keyframe_gate.is_subscribed = is_subscribed;
    }

    /// A subscriber waits for a keyframe although none of the frames is missing.
    pub(crate) const fn require_keyframe(&mut self) {
        self.keyframe_gate.is_keyframe_needed = true;
    }

    /// A keyframe was requested for another reason, so that none is requested for some time.
    pub(crate) const fn on_keyframe_requested(&mut self, now: MediaTime) {
        self.keyframe_gate.requested_at = Some(now);
    }

    /// Whether a keyframe must be requested now. Records the request.
    pub(crate) fn take_keyframe_request(&mut self, now: MediaTime) -> bool {
        self.keyframe_gate.take_request(now)
    }

    /// When [`Self::advance`] or [`Self::take_keyframe_request`] must be called next if no packet
    /// arrives.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        [self.jitter.deadline(), self.keyframe_gate.deadline()].into_iter().flatten().min()
    }

    /// Complete frames that were received.
    pub(crate) const fn frames_received(&self) -> u64 {
        self.frames_received
    }
}

/// Passes only access units that can be decoded.
#[derive(Debug, Default)]
struct KeyframeGate {
    /// Whether all frames since the last keyframe are complete.
    is_open: bool,
    /// Whether a keyframe is needed: something was missing, a frame arrived before any keyframe, or
    /// a subscriber waits for one.
    is_keyframe_needed: bool,
    requested_at: Option<MediaTime>,
    /// Whether frames were lost since the last access unit that passed.
    has_loss: bool,
    is_subscribed: bool,
}

impl KeyframeGate {
    fn admit(&mut self, mut unit: AccessUnit) -> Option<AccessUnit> {
        if unit.is_keyframe {
            unit.follows_loss = self.has_loss;
            let is_subscribed = self.is_subscribed;
            *self = Self { is_open: true, is_subscribed, ..Self::default() };
        } else if !self.is_open && unit.has_picture {
            self.is_keyframe_needed = true;
        }
        self.is_open.then_some(unit)
    }

    const fn close(&mut self) {
        if self.is_open {
            self.requested_at = None;
            self.has_loss = true;
        }
        self.is_open = false;
        self.is_keyframe_needed = true;
    }

    fn take_request(&mut self, now: MediaTime) -> bool {
        let is_due = self.deadline().is_some_and(|deadline| now >= deadline);
        if is_due {
            self.requested_at = Some(now);
        }
        is_due
    }

    fn deadline(&self) -> Option<MediaTime> {
        let next = self.requested_at.map_or(MediaTime::default(), |asked| {
            asked + VideoReceiveBuffer::KEYFRAME_RETRY_INTERVAL
        });
        (self.is_keyframe_needed && self.is_subscribed).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::Size,
        playback::{
            jitter::VideoJitterBuffer,
            testing::{TestPacketizer, TestVideoEncoder, annex_b, at, packet},
        },
    };

    /// Frames at intervals of 33 ms, with keyframes at `keys`: packets and access units.
    fn test_stream(count: u64, keys: &[u64]) -> (Vec<Vec<RtpPacket>>, Vec<Vec<u8>>) {
        let mut encoder = TestVideoEncoder::new(Size::new(160, 90));
        let mut packetizer = TestPacketizer { sequence: 65_500 };
        (0..count)
            .map(|n| {
                let nals = encoder.next_frame(keys.contains(&n), 0);
                let packets = packetizer.packetize(&nals, (n * 2970) as u32, at(n * 33));
                (packets, annex_b(&nals))
            })
            .unzip()
    }

    fn subscribed() -> VideoReceiveBuffer {
        let mut buffer = VideoReceiveBuffer::new();
        buffer.set_subscribed(true);
        buffer
    }

    fn take_ready(buffer: &mut VideoReceiveBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_unit()).map(|unit| unit.data.to_vec()).collect()
    }

    fn push(buffer: &mut VideoReceiveBuffer, packets: &[RtpPacket]) {
        packets.iter().for_each(|packet| buffer.push(packet.clone()));
    }

    #[test]
    fn packets_in_any_order_within_the_gap_timeout_make_every_frame() {
        let (packets, streams) = test_stream(8, &[0]);
        let mut buffer = subscribed();
        push(&mut buffer, &packets[0][..1]);
        let mut mixed: Vec<_> = packets.concat().split_off(1);
        mixed.reverse();
        mixed.extend_from_within(5..20);
        push(&mut buffer, &mixed);
        buffer.advance(at(100));
        assert_eq!(take_ready(&mut buffer), streams);
        assert_eq!(buffer.frames_received(), 8);
        assert!(!buffer.take_keyframe_request(at(100)));
        assert_eq!(buffer.deadline(), None);
    }

    /// A bandwidth probe as browsers send it: packets without a payload in the video stream itself,
    /// numbered like all others, with the timestamp of the frame before.
    fn probe(
        packetizer: &mut TestPacketizer,
        count: u16,
        stamp: u32,
        now: MediaTime,
    ) -> Vec<RtpPacket> {
        let sent = (0..count)
            .map(|n| packet(packetizer.sequence.wrapping_add(n), stamp, false, vec![], now));
        let sent = sent.collect();
        packetizer.sequence = packetizer.sequence.wrapping_add(count);
        sent
    }

    #[test]
    fn a_probe_between_frames_causes_neither_a_loss_nor_a_keyframe_request() {
        let mut encoder = TestVideoEncoder::new(Size::new(160, 90));
        let mut packetizer = TestPacketizer { sequence: 65_530 };
        let (mut buffer, mut streams, mut shown) = (subscribed(), vec![], vec![]);
        push(&mut buffer, &probe(&mut packetizer, 3, 0, at(0)));
        for n in 0..20_u64 {
            let (nals, stamp, now) = (encoder.next_frame(n == 0, 0), (n * 2970) as u32, at(n * 33));
            push(&mut buffer, &packetizer.packetize(&nals, stamp, now));
            // One packet of each probe is lost.
            let mut probe = probe(&mut packetizer, 10, stamp, now);
            probe.remove(4);
            push(&mut buffer, &probe);
            buffer.advance(now);
            assert!(!buffer.take_keyframe_request(now), "frame {n}");
            streams.push(annex_b(&nals));
            shown.append(&mut take_ready(&mut buffer));
        }
        assert_eq!(shown, streams);
        assert_eq!((buffer.frames_received(), buffer.deadline()), (20, None));
    }

    #[test]
    fn after_a_loss_a_keyframe_is_requested_and_again_until_it_arrives() {
        let (packets, streams) = test_stream(30, &[0, 29]);
        let mut buffer = subscribed();
        push(&mut buffer, &packets[0]);
        buffer.advance(at(0));
        assert_eq!(take_ready(&mut buffer), streams[..1]);
        push(&mut buffer, &packets[1][1..]);
        push(&mut buffer, &packets[2]);
        let mut requests = vec![];
        for ms in 33..1200 {
            buffer.advance(at(ms));
            if buffer.take_keyframe_request(at(ms)) {
                requests.push(ms);
            }
            assert_eq!(
                take_ready(&mut buffer),
                Vec::<Vec<u8>>::new(),
                "{ms}: nothing can be decoded"
            );
        }
        let first = 33 + VideoJitterBuffer::GAP_TIMEOUT.start().as_millis() as u64;
        // Frame 1 lacks its first packet. If that was its only one, the gap shows with frame 2.
        assert!((first..=first + 33).contains(&requests[0]), "{requests:?}");
        let intervals = (requests[1] - requests[0], requests[2] - requests[1]);
        assert_eq!((requests.len(), intervals), (3, (500, 500)));
        push(&mut buffer, &packets[29]);
        buffer.advance(at(1200));
        assert_eq!(
            take_ready(&mut buffer),
            streams[29..],
            "the keyframe, without waiting for the missing packets"
        );
        assert!(!buffer.take_keyframe_request(at(9999)));
    }

    #[test]
    fn a_stream_that_does_not_begin_with_a_keyframe_requests_one_at_its_first_frame() {
        let (packets, _) = test_stream(3, &[0]);
        let mut buffer = subscribed();
        buffer.advance(at(5000));
        assert!(!buffer.take_keyframe_request(at(5000)), "without packets, no request");
        push(&mut buffer, &packets[1]);
        buffer.advance(at(5001));
        assert!(buffer.take_keyframe_request(at(5001)));
        assert!(!buffer.take_keyframe_request(at(5002)));
        let (packets, streams) = test_stream(1, &[0]);
        let mut buffer = subscribed();
        push(&mut buffer, &packets[0]);
        buffer.advance(at(1));
        assert!(!buffer.take_keyframe_request(at(1)));
        assert_eq!(take_ready(&mut buffer), streams);
    }

    #[test]
    fn a_first_keyframe_whose_first_packets_are_lost_waits_for_them() {
        let (packets, streams) = test_stream(2, &[0]);
        let mut buffer = subscribed();
        assert!(packets[0].len() > 2, "{}", packets[0].len());
        push(&mut buffer, &packets[0][1..]);
        push(&mut buffer, &packets[1]);
        buffer.advance(at(100));
        assert!(!buffer.take_keyframe_request(at(100)));
        push(&mut buffer, &packets[0][..1]);
        buffer.advance(at(101));
        assert_eq!(take_ready(&mut buffer), streams);
        assert!(!buffer.take_keyframe_request(at(9999)));
        let mut buffer = subscribed();
        push(&mut buffer, &packets[0][1..]);
        buffer.advance(at(200));
        assert!(buffer.take_keyframe_request(at(200)), "not for ever");
    }

    #[test]
    fn a_keyframe_that_a_subscriber_needs_is_requested_until_it_arrives() {
        let (packets, streams) = test_stream(4, &[0, 3]);
        let mut buffer = subscribed();
        push(&mut buffer, &packets[0]);
        buffer.advance(at(0));
        buffer.on_keyframe_requested(at(0));
        buffer.require_keyframe();
        push(&mut buffer, &packets[1]);
        buffer.advance(at(1));
        assert_eq!(take_ready(&mut buffer), streams[..2], "other subscribers miss nothing");
        assert!(!buffer.take_keyframe_request(at(499)) && buffer.take_keyframe_request(at(500)));
        push(&mut buffer, &[&packets[2][..], &packets[3][..]].concat());
        buffer.advance(at(501));
        assert_eq!(take_ready(&mut buffer), streams[2..]);
        assert!(!buffer.take_keyframe_request(at(9999)) && buffer.deadline().is_none());
    }

    #[test]
    fn without_subscribers_no_keyframe_is_requested_and_frames_are_counted() {
        let (packets, streams) = test_stream(5, &[0, 4]);
        let mut buffer = VideoReceiveBuffer::new();
        push(&mut buffer, &packets[0]);
        push(&mut buffer, &packets[1][1..]);
        push(&mut buffer, &packets[2]);
        buffer.advance(at(500));
        assert!(!buffer.take_keyframe_request(at(1000)) && buffer.deadline().is_none());
        buffer.set_subscribed(true);
        assert!(buffer.take_keyframe_request(at(1000)));
        push(&mut buffer, &[&packets[3][..], &packets[4][..]].concat());
        buffer.advance(at(1001));
        assert_eq!(take_ready(&mut buffer), [&streams[0][..], &streams[4]]);
        assert!((4..=5).contains(&buffer.frames_received()), "{}", buffer.frames_received());
    }

    #[test]
    fn only_the_keyframe_after_a_loss_is_marked() {
        let (packets, _) = test_stream(8, &[2, 5]);
        let mut buffer = subscribed();
        // The stream begins in its second frame.
        for (n, packets) in packets.iter().enumerate().skip(1) {
            push(&mut buffer, if n == 3 { &packets[..packets.len() - 1] } else { packets });
        }
        buffer.advance(at(1000));
        let marks: Vec<_> = std::iter::from_fn(|| buffer.next_unit())
            .map(|unit| (unit.is_keyframe, unit.follows_loss))
            .collect();
        let (keyframe, other) = ((true, false), (false, false));
        assert_eq!(marks, [keyframe, (true, true), other, other]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_packets_cause_a_panic_or_exceed_the_bounds(
            packets in prop::collection::vec(
                (0..60_u16, 0..6_u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
                1..300),
            nal_headers in prop::collection::vec(prop::sample::select(vec![
                0x41_u8, 0x65, 0x67, 0x68, 0x78, 0x7c, 0x19, 0]), 300),
        ) {
            let mut buffer = subscribed();
            for (n, (sequence, stamp, marker, mut payload)) in packets.into_iter().enumerate() {
                if let Some(first) = payload.first_mut() {
                    *first = nal_headers[n];
                }
                let now = at(n as u64 * 10);
                let sequence = sequence.wrapping_add(n as u16);
                buffer.push(packet(sequence, stamp, marker, payload, now));
                buffer.advance(now);
                buffer.take_keyframe_request(now);
                prop_assert!(buffer.ready.len() <= 2 * VideoJitterBuffer::MAX_PACKETS);
                while let Some(unit) = buffer.next_unit() {
                    prop_assert!(unit.is_keyframe || !unit.follows_loss);
                }
            }
        }
    }
}
