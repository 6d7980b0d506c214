//! Depacketizes RTP payloads to H.264 access units (RFC 6184). Pure, and safe for hostile input.

use bytes::Bytes;

use super::sps;
use crate::{
    media::{AccessUnit, RtpPacket},
    model::MediaTime,
};

/// The result for one access unit.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Depacketized {
    /// All packets arrived and are valid.
    Complete(AccessUnit),
    /// The access unit is malformed or incomplete, and dropped.
    Damaged(DepacketizeError),
}

/// Why an access unit was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum DepacketizeError {
    /// Packets before it are missing, which may be its own first ones.
    #[error("the frame's first packets are missing")]
    MissingStart,
    /// An inconsistent aggregation packet or fragmentation unit (RFC 6184, sections 5.7 and 5.8).
    #[error("a packet is malformed")]
    Malformed,
    /// A start code within a NAL unit (ITU-T H.264, 7.4.1).
    #[error("a NAL unit contains a start code")]
    StartCode,
    /// More than [`H264Depacketizer::MAX_BYTES`] or [`H264Depacketizer::MAX_NALS`].
    #[error("the frame is too large")]
    TooLarge,
    /// A sequence parameter set of an unsupported format.
    #[error("the frame's format is not supported: {0}")]
    Format(#[from] sps::SpsError),
}

/// Depacketizes the packets of one stream, which must be in order. Holds at most one access unit.
#[derive(Debug, Default)]
pub(crate) struct H264Depacketizer {
    partial: Option<PartialUnit>,
    /// Whether the previous packet ended its access unit.
    at_unit_start: bool,
}

#[derive(Debug)]
struct PartialUnit {
    timestamp: u32,
    /// The arrival time of the last packet.
    arrival: MediaTime,
    data: Vec<u8>,
    nal_types: NalTypes,
    nals: usize,
    /// The start in `data` of the NAL unit that arrives in fragments.
    fragment: Option<usize>,
    error: Option<DepacketizeError>,
}

/// The types of NAL units that an access unit contains.
#[derive(Clone, Copy, Debug, Default)]
struct NalTypes {
    sps: bool,
    pps: bool,
    /// A slice of an IDR picture.
    idr: bool,
    /// A slice of any coded picture.
    slice: bool,
}

/// The NAL unit types of a constrained baseline stream, and the packet types of RFC 6184.
mod nal {
    pub(super) const SLICE: u8 = 1;
    pub(super) const IDR: u8 = 5;
    pub(super) const SPS: u8 = 7;
    pub(super) const PPS: u8 = 8;
    pub(super) const STAP_A: u8 = 24;
    pub(super) const FU_A: u8 = 28;
}

impl H264Depacketizer {
    /// The most bytes of an access unit: an intra picture of 1080p at the finest quantiser.
    pub(crate) const MAX_BYTES: usize = 2 << 20;

    /// The most NAL units of an access unit: one for each packet that the jitter buffer holds.
    pub(crate) const MAX_NALS: usize = 1024;

    /// Takes the next packet. Calls `done` for each access unit that it ends.
    pub(crate) fn push(&mut self, packet: &RtpPacket, mut done: impl FnMut(Depacketized)) {
        if self.partial.as_ref().is_some_and(|partial| partial.timestamp != packet.timestamp) {
            self.finish(&mut done);
        }
        let is_start_missing = !self.at_unit_start && !starts_keyframe(&packet.payload);
        let partial = self
            .partial
            .get_or_insert_with(|| PartialUnit::new(packet.timestamp, is_start_missing));
        self.at_unit_start = packet.marker;
        partial.arrival = partial.arrival.max(packet.arrival);
        if partial.error.is_none()
            && let Err(error) = partial.add_payload(&packet.payload)
        {
            partial.error = Some(error);
            partial.data = vec![];
        }
        if packet.marker {
            self.finish(&mut done);
        }
    }

    /// Handles missing packets: drops the current access unit.
    pub(crate) fn on_gap(&mut self) {
        self.partial = None;
        self.at_unit_start = false;
    }

    fn finish(&mut self, done: &mut impl FnMut(Depacketized)) {
        self.at_unit_start = true;
        let Some(partial) = self.partial.take() else { return };
        let unfinished = partial.fragment.map(|_| DepacketizeError::Malformed);
        done(match partial.error.or(unfinished) {
            Some(error) => Depacketized::Damaged(error),
            None => Depacketized::Complete(partial.complete()),
        });
    }
}

impl PartialUnit {
    fn new(timestamp: u32, is_start_missing: bool) -> Self {
        Self {
            timestamp,
            arrival: MediaTime::default(),
            data: vec![],
            nal_types: NalTypes::default(),
            nals: 0,
            fragment: None,
            error: is_start_missing.then_some(DepacketizeError::MissingStart),
        }
    }

    /// The access unit, without a copy of its bytes.
    fn complete(self) -> AccessUnit {
        let NalTypes { sps, pps, idr, slice } = self.nal_types;
        AccessUnit {
            timestamp: self.timestamp,
            arrival: self.arrival,
            is_keyframe: sps && pps && idr,
            has_picture: slice,
            follows_loss: false,
            data: self.data.into(),
        }
    }

    fn add_payload(&mut self, payload: &Bytes) -> Result<(), DepacketizeError> {
        let Some(&header) = payload.first() else { return Ok(()) };
        let kind = header & 0x1f;
        if self.fragment.is_some() && kind != nal::FU_A {
            return Err(DepacketizeError::Malformed);
        }
        match kind {
            1..=23 => self.add_nal(payload),
            nal::STAP_A => self.add_aggregate(&payload[1..]),
            nal::FU_A => self.add_fragment(payload),
            // Reserved types, and packet types of packetization modes that were not negotiated.
            _ => Ok(()),
        }
    }

    /// Adds an aggregation packet STAP-A (section 5.7.1).
    fn add_aggregate(&mut self, mut rest: &[u8]) -> Result<(), DepacketizeError> {
        while let Some((length, tail)) = rest.split_at_checked(2) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let (nal, tail) = tail.split_at_checked(length).ok_or(DepacketizeError::Malformed)?;
            if !matches!(nal.first().map(|header| header & 0x1f), Some(1..=23)) {
                return Err(DepacketizeError::Malformed);
            }
            self.add_nal(nal)?;
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(DepacketizeError::Malformed) }
    }

    /// Adds a fragmentation unit FU-A (section 5.8).
    fn add_fragment(&mut self, payload: &[u8]) -> Result<(), DepacketizeError> {
        let [indicator, header, body @ ..] = payload else {
            return Err(DepacketizeError::Malformed);
        };
        let (first, last) = (header & 0x80 != 0, header & 0x40 != 0);
        if first == self.fragment.is_some() || (first && last) || body.is_empty() {
            return Err(DepacketizeError::Malformed);
        }
        if first {
            self.fragment = Some(self.data.len());
            self.data.extend([0, 0, 0, 1, indicator & 0xe0 | header & 0x1f]);
        }
        self.data.extend_from_slice(body);
        if self.data.len() > H264Depacketizer::MAX_BYTES {
            return Err(DepacketizeError::TooLarge);
        }
        if last && let Some(start) = self.fragment.take() {
            let nal = self.data.split_off(start);
            self.add_nal(&nal[4..])?;
        }
        Ok(())
    }

    /// Appends a complete NAL unit if the decoder needs its type.
    fn add_nal(&mut self, nal: &[u8]) -> Result<(), DepacketizeError> {
        let end = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let nal = &nal[..end];
        let Some(header) = nal.first() else { return Err(DepacketizeError::Malformed) };
        let kind = header & 0x1f;
        if !matches!(kind, nal::SLICE | nal::IDR | nal::SPS | nal::PPS) {
            return Ok(());
        }
        if has_start_code(nal) {
            return Err(DepacketizeError::StartCode);
        }
        if kind == nal::SPS {
            sps::check(nal)?;
        }
        self.nals += 1;
        self.data.extend([0, 0, 0, 1]);
        self.data.extend_from_slice(nal);
        if self.nals > H264Depacketizer::MAX_NALS || self.data.len() > H264Depacketizer::MAX_BYTES {
            return Err(DepacketizeError::TooLarge);
        }
        let types = &mut self.nal_types;
        types.sps |= kind == nal::SPS;
        types.pps |= kind == nal::PPS;
        types.idr |= kind == nal::IDR;
        types.slice |= kind == nal::IDR || kind == nal::SLICE;
        Ok(())
    }
}

/// Whether a keyframe starts with this payload: senders put a sequence parameter set first, or
/// second after an access unit delimiter.
pub(crate) fn starts_keyframe(payload: &[u8]) -> bool {
    const DELIMITER: u8 = 9;
    let kind = |byte: u8| byte & 0x1f;
    match payload {
        [header, ..] if kind(*header) == nal::SPS => true,
        [header, high, low, first, rest @ ..] if kind(*header) == nal::STAP_A => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            kind(*first) == nal::SPS
                || kind(*first) == DELIMITER
                    && rest.get(length + 1).is_some_and(|byte| kind(*byte) == nal::SPS)
        }
        _ => false,
    }
}

/// Whether the payload shows that a stream did not begin with it: it is of a keyframe and not its begin,
/// or it continues a fragment.
pub(crate) fn lacks_begin(payload: &[u8]) -> bool {
    let is_of = |byte: u8| [nal::IDR, nal::PPS].contains(&(byte & 0x1f));
    match payload {
        [header, _, _, first, ..] if header & 0x1f == nal::STAP_A => is_of(*first),
        [header, fragment, ..] if header & 0x1f == nal::FU_A => {
            fragment & 0x80 == 0 || fragment & 0x1f == nal::IDR
        }
        [header, ..] => is_of(*header),
        [] => false,
    }
}

/// Whether the bytes contain a sequence that a NAL unit must not contain: 00 00 followed by 00, 01
/// or 02.
fn has_start_code(nal: &[u8]) -> bool {
    let mut at = 2;
    // A byte above 2 is in no such sequence, so the search continues three bytes after it.
    while let Some(&byte) = nal.get(at) {
        if byte > 2 {
            at += 3;
        } else if nal[at - 1] == 0 && nal[at - 2] == 0 {
            return true;
        } else {
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Size,
        playback::testing::{TestPacketizer, TestVideoEncoder, annex_b, at, packet},
    };

    fn push(depacketizer: &mut H264Depacketizer, packets: &[RtpPacket]) -> Vec<Depacketized> {
        let mut done = vec![];
        packets.iter().for_each(|packet| depacketizer.push(packet, |unit| done.push(unit)));
        done
    }

    fn depacketize(packets: &[RtpPacket]) -> Vec<Depacketized> {
        push(&mut H264Depacketizer::default(), packets)
    }

    fn depacketize_one(payload: &[u8]) -> Vec<Depacketized> {
        let mut depacketizer =
            H264Depacketizer { at_unit_start: true, ..H264Depacketizer::default() };
        push(&mut depacketizer, &[packet(0, 0, true, payload.to_vec(), at(0))])
    }

    #[test]
    fn real_frames_are_depacketized_as_they_were_packetized() {
        let mut encoder = TestVideoEncoder::new(Size::new(320, 180));
        let mut packetizer = TestPacketizer { sequence: 65_530 };
        let mut kinds = [0; 3];
        let mut depacketizer = H264Depacketizer::default();
        for n in 0..10_u32 {
            let nals = encoder.next_frame(n == 5, 0);
            let packets = packetizer.packetize(&nals, n * 3000, at(u64::from(n)));
            packets.iter().for_each(|packet| match packet.payload[0] & 0x1f {
                24 => kinds[0] += 1,
                28 => kinds[1] += 1,
                _ => kinds[2] += 1,
            });
            let [Depacketized::Complete(unit)] = &push(&mut depacketizer, &packets)[..] else {
                panic!("frame {n} is not complete")
            };
            assert_eq!(unit.data, annex_b(&nals), "frame {n}");
            assert_eq!((unit.timestamp, unit.arrival), (n * 3000, at(u64::from(n))));
            assert_eq!(unit.is_keyframe, n == 0 || n == 5);
            assert!(unit.has_picture && !unit.follows_loss);
        }
        assert!(
            kinds[0] >= 2 && kinds[1] > 10,
            "the stream has aggregates and fragments: {kinds:?}"
        );
    }

    #[test]
    fn an_access_unit_without_a_marker_ends_at_the_next_timestamp() {
        let nal = vec![0x41, 0x9a, 0x11];
        let packets = [0, 1, 2].map(|n| packet(n, u32::from(n), false, nal.clone(), at(0)));
        let mut depacketizer =
            H264Depacketizer { at_unit_start: true, ..H264Depacketizer::default() };
        let done = push(&mut depacketizer, &packets);
        assert_eq!(done.len(), 2);
        assert!(done.iter().all(|unit| matches!(unit, Depacketized::Complete(_))));
    }

    #[test]
    fn an_access_unit_whose_start_is_unknown_is_dropped_and_the_next_is_not() {
        let nal = vec![0x41, 0x9a, 0x11];
        let packets = [0, 1].map(|n| packet(n, u32::from(n), true, nal.clone(), at(0)));
        let done = depacketize(&packets);
        assert_eq!(done[0], Depacketized::Damaged(DepacketizeError::MissingStart));
        assert!(matches!(done[1], Depacketized::Complete(_)));
    }

    #[test]
    fn a_malformed_packet_damages_its_access_unit() {
        for (error, payload) in [
            (DepacketizeError::Malformed, &[0x78, 0, 9, 0x67, 1][..]),
            (DepacketizeError::Malformed, &[0x78, 0, 0]),
            (DepacketizeError::Malformed, &[0x78, 0]),
            (DepacketizeError::Malformed, &[0x78, 0, 2, 0x78, 1]),
            (DepacketizeError::Malformed, &[0x7c]),
            (DepacketizeError::Malformed, &[0x7c, 0x85]),
            (DepacketizeError::Malformed, &[0x7c, 0x05, 1]),
            (DepacketizeError::Malformed, &[0x7c, 0xc5, 1]),
            (DepacketizeError::Malformed, &[0x7c, 0x85, 1]),
            (DepacketizeError::StartCode, &[0x41, 1, 0, 0, 1, 0x67]),
            (DepacketizeError::StartCode, &[0x41, 0, 0, 0, 7]),
            (DepacketizeError::Format(sps::SpsError::Damaged), &[0x67, 66]),
        ] {
            assert_eq!(depacketize_one(payload), [Depacketized::Damaged(error)], "{payload:x?}");
        }
    }

    #[test]
    fn nal_units_that_the_decoder_does_not_need_are_left_out() {
        // SEI, an access unit delimiter, a prefix NAL unit, MTAP16 and type 0.
        for payload in [&[0x06, 5, 1][..], &[0x09, 0x10], &[0x6e, 1, 2], &[0x7a, 1, 2], &[0, 1]] {
            let done = depacketize_one(payload);
            let [Depacketized::Complete(unit)] = &done[..] else {
                panic!("{payload:x?}: {done:?}")
            };
            assert!(unit.data.is_empty() && !unit.has_picture && !unit.is_keyframe, "{payload:x?}");
        }
    }

    #[test]
    fn an_access_unit_does_not_exceed_its_limits() {
        let mut depacketizer =
            H264Depacketizer { at_unit_start: true, ..H264Depacketizer::default() };
        let mut max = 0;
        for n in 0..4000_u16 {
            let start = if n == 0 { 0x85 } else { 0x05 };
            let payload = [&[0x7c, start][..], &[0xaa; 1200]].concat();
            depacketizer.push(&packet(n, 0, false, payload, at(0)), |_| ());
            max = max.max(depacketizer.partial.as_ref().map_or(0, |open| open.data.len()));
        }
        assert!((1 << 20..H264Depacketizer::MAX_BYTES + 1300).contains(&max), "{max}");
        let nals = (0..3000_u16).map(|n| packet(n, 9, n == 2999, vec![0x41, 0x9a], at(0)));
        let done = push(&mut depacketizer, &nals.collect::<Vec<_>>());
        assert_eq!(done.last(), Some(&Depacketized::Damaged(DepacketizeError::TooLarge)));
    }

    #[test]
    fn no_prefix_and_no_flipped_bit_of_a_packet_causes_a_panic() {
        let nals = TestVideoEncoder::new(Size::new(160, 90)).next_frame(true, 0);
        let packets = TestPacketizer { sequence: 0 }.packetize(&nals, 0, at(0));
        for index in 0..packets.len() {
            let payload = &packets[index].payload;
            let prefixes = (0..payload.len()).map(|end| payload[..end].to_vec());
            let flips = (0..payload.len() * 8).map(|bit| {
                let mut flipped = payload.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            });
            for damaged in prefixes.chain(flips) {
                let mut sent = packets.clone();
                sent[index].payload = damaged.into();
                // None if the last packet is no longer recognised as the end.
                assert!(depacketize(&sent).len() <= 1);
                starts_keyframe(&sent[index].payload);
            }
        }
    }

    #[test]
    fn a_keyframe_is_recognised_by_its_first_packet() {
        let nals = TestVideoEncoder::new(Size::new(160, 90)).next_frame(true, 0);
        let packets = TestPacketizer { sequence: 0 }.packetize(&nals, 0, at(0));
        let starts: Vec<_> =
            packets.iter().map(|packet| starts_keyframe(&packet.payload)).collect();
        assert!(starts[0] && !starts[1..].contains(&true), "{starts:?}");
        assert!(starts_keyframe(&[0x78, 0, 2, 9, 0x10, 0, 1, 0x67]), "after a delimiter");
        assert!(starts_keyframe(&[0x67, 66]) && !starts_keyframe(&[]));
    }

    #[test]
    fn a_start_code_is_found_at_every_position_and_an_escaped_one_is_not() {
        for place in 0..9 {
            for third in 0..=2 {
                let mut nal = vec![0xff; 12];
                nal[place..place + 3].copy_from_slice(&[0, 0, third]);
                assert!(has_start_code(&nal), "{nal:x?}");
                nal[place + 2] = 3;
                assert!(!has_start_code(&nal), "{nal:x?}");
            }
        }
        assert!(!has_start_code(&[0, 0]) && !has_start_code(&[]));
    }
}
