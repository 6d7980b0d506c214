//! Turns packets in any order into decodable access units, and decides when to request a keyframe.

use std::{collections::VecDeque, time::Duration};

use super::{
    h264_depacketizer::{AccessUnit, Depacketized, H264Depacketizer, starts_keyframe},
    jitter::{JitterOutput, VideoJitterBuffer},
};
use crate::{media::RtpPacket, model::MediaTime};

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

    /// The most access units that wait for the decoder. A decoder that lags more continues at a
    /// keyframe. Eight are 267 ms at 30 fps.
    pub(crate) const MAX_READY: usize = 8;

    pub(crate) fn new() -> Self {
        Self {
            jitter: VideoJitterBuffer::new(),
            depacketizer: H264Depacketizer::default(),
            keyframe_gate: KeyframeGate::default(),
            ready: VecDeque::new(),
            frames_received: 0,
        }
    }

    /// Adds a packet.
    pub(crate) fn push(&mut self, packet: RtpPacket) {
        let starts_key = starts_keyframe(&packet.payload);
        self.jitter.push(packet, starts_key);
    }

    /// Advances to `now`: completes access units and gives up overdue gaps.
    pub(crate) fn advance(&mut self, now: MediaTime) {
        while let Some(step) = self.jitter.poll(now) {
            match step {
                JitterOutput::Packet(packet) => {
                    let Self {
                        depacketizer: assembler,
                        keyframe_gate: gate,
                        ready,
                        frames_received: whole,
                        ..
                    } = self;
                    assembler.push(&packet, |assembled| match assembled {
                        Depacketized::Complete(unit) => {
                            *whole += u64::from(unit.nal_types.slice);
                            if gate.admits(&unit) {
                                ready.push_back(unit);
                            }
                        }
                        Depacketized::Damaged(error) => {
                            tracing::debug!(%error, "received frame dropped");
                            gate.close();
                        }
                    });
                }
                JitterOutput::Gap { to_keyframe: to_key } => {
                    tracing::debug!(to_key, "received packets missing");
                    self.depacketizer.on_gap();
                    self.keyframe_gate.close();
                    if to_key {
                        self.keyframe_gate.requested_at = Some(now);
                    }
                }
            }
        }
        self.limit_ready();
    }

    /// The next access unit to decode, in order.
    pub(crate) fn next_unit(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// Discards all access units until the next keyframe and requests one, for example after a
    /// decoding error.
    pub(crate) fn require_keyframe(&mut self) {
        self.ready.clear();
        self.keyframe_gate.close();
    }

    /// Discards what is ready while decoding is switched off. Requests no keyframe.
    pub(crate) fn pause(&mut self) {
        self.ready.clear();
        self.keyframe_gate = KeyframeGate::default();
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

    /// If the decoder does not keep up, drops what is ready before the newest keyframe.
    fn limit_ready(&mut self) {
        if self.ready.len() <= Self::MAX_READY {
            return;
        }
        match self.ready.iter().rposition(|unit| unit.nal_types.is_key()) {
            Some(key) if key > 0 => drop(self.ready.drain(..key)),
            Some(_) | None => self.require_keyframe(),
        }
    }
}

/// Passes only access units that can be decoded.
#[derive(Debug, Default)]
struct KeyframeGate {
    /// Whether all frames since the last keyframe are complete.
    is_open: bool,
    /// Whether a keyframe is needed: something was missing, or a frame arrived before any keyframe.
    is_keyframe_needed: bool,
    requested_at: Option<MediaTime>,
}

impl KeyframeGate {
    fn admits(&mut self, unit: &AccessUnit) -> bool {
        if unit.nal_types.is_key() {
            *self = Self { is_open: true, is_keyframe_needed: false, requested_at: None };
        } else if !self.is_open && unit.nal_types.slice {
            self.is_keyframe_needed = true;
        }
        self.is_open
    }

    fn close(&mut self) {
        if self.is_open {
            self.requested_at = None;
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
        (self.is_keyframe_needed && !self.is_open).then_some(next)
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

    fn take_ready(buffer: &mut VideoReceiveBuffer) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| buffer.next_unit()).map(|unit| unit.data).collect()
    }

    fn push(buffer: &mut VideoReceiveBuffer, packets: &[RtpPacket]) {
        packets.iter().for_each(|packet| buffer.push(packet.clone()));
    }

    #[test]
    fn packets_in_any_order_within_the_gap_timeout_make_every_frame() {
        let (packets, streams) = test_stream(8, &[0]);
        let mut buffer = VideoReceiveBuffer::new();
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
        let (mut buffer, mut streams, mut shown) = (VideoReceiveBuffer::new(), vec![], vec![]);
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
        let mut buffer = VideoReceiveBuffer::new();
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
        let first = 33 + VideoJitterBuffer::GAP_TIMEOUT.as_millis() as u64;
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
        let mut buffer = VideoReceiveBuffer::new();
        buffer.advance(at(5000));
        assert!(!buffer.take_keyframe_request(at(5000)), "without packets, no request");
        push(&mut buffer, &packets[1]);
        buffer.advance(at(5001));
        assert!(buffer.take_keyframe_request(at(5001)));
        assert!(!buffer.take_keyframe_request(at(5002)));
        let (packets, streams) = test_stream(1, &[0]);
        let mut buffer = VideoReceiveBuffer::new();
        push(&mut buffer, &packets[0]);
        buffer.advance(at(1));
        assert!(!buffer.take_keyframe_request(at(1)));
        assert_eq!(take_ready(&mut buffer), streams);
    }

    #[test]
    fn a_decoder_that_lags_continues_at_the_newest_keyframe_or_waits_for_one() {
        let (packets, streams) = test_stream(20, &[0, 15]);
        let mut buffer = VideoReceiveBuffer::new();
        for (n, packets) in packets.iter().enumerate() {
            push(&mut buffer, packets);
            buffer.advance(at(n as u64));
            assert!(buffer.ready.len() <= VideoReceiveBuffer::MAX_READY);
        }
        assert_eq!(take_ready(&mut buffer), streams[15..]);
        let (packets, _) = test_stream(20, &[0]);
        let mut buffer = VideoReceiveBuffer::new();
        packets.iter().for_each(|packets| push(&mut buffer, packets));
        buffer.advance(at(20));
        assert!(buffer.take_keyframe_request(at(20)));
        assert!(take_ready(&mut buffer).is_empty());
    }

    #[test]
    fn a_decoding_error_needs_a_keyframe_and_a_pause_requests_none() {
        let (packets, streams) = test_stream(4, &[0, 3]);
        let mut buffer = VideoReceiveBuffer::new();
        push(&mut buffer, &packets[0]);
        buffer.advance(at(0));
        buffer.require_keyframe();
        assert!(take_ready(&mut buffer).is_empty() && buffer.take_keyframe_request(at(0)));
        buffer.pause();
        push(&mut buffer, &packets[1]);
        buffer.advance(at(1));
        buffer.pause();
        assert!(!buffer.take_keyframe_request(at(1000)) && buffer.deadline().is_none());
        push(&mut buffer, &[&packets[2][..], &packets[3][..]].concat());
        buffer.advance(at(1));
        assert_eq!(take_ready(&mut buffer), streams[3..]);
        assert_eq!(buffer.frames_received(), 4);
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
            let mut buffer = VideoReceiveBuffer::new();
            for (n, (sequence, stamp, marker, mut payload)) in packets.into_iter().enumerate() {
                if let Some(first) = payload.first_mut() {
                    *first = nal_headers[n];
                }
                let now = at(n as u64 * 10);
                let sequence = sequence.wrapping_add(n as u16);
                buffer.push(packet(sequence, stamp, marker, payload, now));
                buffer.advance(now);
                buffer.take_keyframe_request(now);
                prop_assert!(buffer.ready.len() <= VideoReceiveBuffer::MAX_READY);
            }
        }
    }
}
