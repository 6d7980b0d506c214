//! From RTP payloads to whole H.264 pictures (RFC 6184): pure, and made for hostile input.

use bytes::Bytes;

use super::sps;
use crate::{media::RtpPacket, model::MediaTime};

/// One coded picture, whole: what a decoder takes at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessUnit {
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// When its last packet arrived.
    pub arrival: MediaTime,
    /// The NAL units, each behind a start code (ITU-T H.264, annex B).
    pub data: Vec<u8>,
    /// Which NAL units there are.
    pub holds: Holds,
}

/// Which NAL units an access unit holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Holds {
    /// A sequence parameter set.
    pub sps: bool,
    /// A picture parameter set.
    pub pps: bool,
    /// A slice of a picture that needs none before it.
    pub idr: bool,
    /// A slice of any picture.
    pub slice: bool,
}

impl Holds {
    /// Whether a decoder that knows nothing can start here.
    pub const fn is_key(self) -> bool {
        self.idr && self.sps && self.pps
    }
}

/// What came of a picture.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Assembled {
    /// It is whole.
    Whole(AccessUnit),
    /// It is damaged, by nature or on the way, and dropped.
    Broken(Flaw),
}

/// Why a picture was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Flaw {
    /// Packets before it are missing, perhaps its own first.
    #[error("the picture's first packets are missing")]
    Headless,
    /// An aggregate or fragment whose parts do not fit (RFC 6184, sections 5.7 and 5.8).
    #[error("a packet is malformed")]
    Malformed,
    /// A start code inside of a NAL unit (ITU-T H.264, 7.4.1).
    #[error("a NAL unit holds a start code")]
    StartCode,
    /// More than [`Assembler::MAX_BYTES`] or [`Assembler::MAX_NALS`].
    #[error("the picture is too large")]
    TooLarge,
    /// A parameter set of a picture that is not decoded here.
    #[error("the picture's format is not supported: {0}")]
    Format(#[from] sps::Unfit),
}

/// Puts the packets of one stream, in order, together to pictures. Holds one picture at most.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    unit: Option<Building>,
    /// The packet before was the last of its picture.
    at_border: bool,
}

#[derive(Debug)]
struct Building {
    unit: AccessUnit,
    nals: usize,
    /// Where the NAL unit that arrives in fragments starts in `unit.data`.
    fragment: Option<usize>,
    flaw: Option<Flaw>,
}

/// The kinds of NAL units that a constrained baseline picture is made of.
mod nal {
    pub(super) const SLICE: u8 = 1;
    pub(super) const IDR: u8 = 5;
    pub(super) const SPS: u8 = 7;
    pub(super) const PPS: u8 = 8;
    pub(super) const STAP_A: u8 = 24;
    pub(super) const FU_A: u8 = 28;
}

impl Assembler {
    /// Bytes of one picture at most: an intra picture of 1080p at the finest quantiser.
    pub(crate) const MAX_BYTES: usize = 2 << 20;

    /// NAL units of one picture at most: slices of one packet each, as the jitter buffer holds.
    pub(crate) const MAX_NALS: usize = 1024;

    /// Takes the next packet; hands each picture that it completes to `done`.
    pub(crate) fn push(&mut self, packet: &RtpPacket, mut done: impl FnMut(Assembled)) {
        if self.unit.as_ref().is_some_and(|open| open.unit.timestamp != packet.timestamp) {
            self.finish(&mut done);
        }
        let headless = !self.at_border && !starts_keyframe(&packet.payload);
        let open = self.unit.get_or_insert_with(|| Building::new(packet.timestamp, headless));
        self.at_border = packet.marker;
        open.unit.arrival = open.unit.arrival.max(packet.arrival);
        if open.flaw.is_none()
            && let Err(flaw) = open.add_payload(&packet.payload)
        {
            open.flaw = Some(flaw);
            open.unit.data = vec![];
        }
        if packet.marker {
            self.finish(&mut done);
        }
    }

    /// Says that packets are missing: the picture they belonged to is given up.
    pub(crate) fn gap(&mut self) {
        self.unit = None;
        self.at_border = false;
    }

    fn finish(&mut self, done: &mut impl FnMut(Assembled)) {
        self.at_border = true;
        let Some(open) = self.unit.take() else { return };
        let unfinished = open.fragment.map(|_| Flaw::Malformed);
        done(match open.flaw.or(unfinished) {
            Some(flaw) => Assembled::Broken(flaw),
            None => Assembled::Whole(open.unit),
        });
    }
}

impl Building {
    fn new(timestamp: u32, headless: bool) -> Self {
        let (arrival, data, holds) = (MediaTime::default(), vec![], Holds::default());
        let unit = AccessUnit { timestamp, arrival, data, holds };
        Self { unit, nals: 0, fragment: None, flaw: headless.then_some(Flaw::Headless) }
    }

    fn add_payload(&mut self, payload: &Bytes) -> Result<(), Flaw> {
        let Some(&header) = payload.first() else { return Ok(()) };
        let kind = header & 0x1f;
        if self.fragment.is_some() && kind != nal::FU_A {
            return Err(Flaw::Malformed);
        }
        match kind {
            1..=23 => self.add_nal(payload),
            nal::STAP_A => self.add_aggregate(&payload[1..]),
            nal::FU_A => self.add_fragment(payload),
            // Packet types of the other packetization modes, and reserved ones, hold nothing that
            // was negotiated.
            _ => Ok(()),
        }
    }

    /// Section 5.7.1.
    fn add_aggregate(&mut self, mut rest: &[u8]) -> Result<(), Flaw> {
        while let Some((length, tail)) = rest.split_at_checked(2) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let (nal, tail) = tail.split_at_checked(length).ok_or(Flaw::Malformed)?;
            if !matches!(nal.first().map(|header| header & 0x1f), Some(1..=23)) {
                return Err(Flaw::Malformed);
            }
            self.add_nal(nal)?;
            rest = tail;
        }
        if rest.is_empty() { Ok(()) } else { Err(Flaw::Malformed) }
    }

    /// Section 5.8.
    fn add_fragment(&mut self, payload: &[u8]) -> Result<(), Flaw> {
        let [indicator, header, body @ ..] = payload else { return Err(Flaw::Malformed) };
        let (first, last) = (header & 0x80 != 0, header & 0x40 != 0);
        if first == self.fragment.is_some() || (first && last) || body.is_empty() {
            return Err(Flaw::Malformed);
        }
        if first {
            self.fragment = Some(self.unit.data.len());
            self.unit.data.extend([0, 0, 0, 1, indicator & 0xe0 | header & 0x1f]);
        }
        self.unit.data.extend_from_slice(body);
        if self.unit.data.len() > Assembler::MAX_BYTES {
            return Err(Flaw::TooLarge);
        }
        if last && let Some(start) = self.fragment.take() {
            let nal = self.unit.data.split_off(start);
            self.add_nal(&nal[4..])?;
        }
        Ok(())
    }

    /// Appends a whole NAL unit, if it is one that a decoder here needs.
    fn add_nal(&mut self, nal: &[u8]) -> Result<(), Flaw> {
        let end = nal.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let nal = &nal[..end];
        let Some(header) = nal.first() else { return Err(Flaw::Malformed) };
        let kind = header & 0x1f;
        if !matches!(kind, nal::SLICE | nal::IDR | nal::SPS | nal::PPS) {
            return Ok(());
        }
        if has_start_code(nal) {
            return Err(Flaw::StartCode);
        }
        if kind == nal::SPS {
            sps::check(nal)?;
        }
        self.nals += 1;
        self.unit.data.extend([0, 0, 0, 1]);
        self.unit.data.extend_from_slice(nal);
        if self.nals > Assembler::MAX_NALS || self.unit.data.len() > Assembler::MAX_BYTES {
            return Err(Flaw::TooLarge);
        }
        let holds = &mut self.unit.holds;
        holds.sps |= kind == nal::SPS;
        holds.pps |= kind == nal::PPS;
        holds.idr |= kind == nal::IDR;
        holds.slice |= kind == nal::IDR || kind == nal::SLICE;
        Ok(())
    }
}

/// Whether a keyframe starts with this payload: senders put a sequence parameter set first,
/// perhaps behind an access unit delimiter.
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

/// Whether the bytes hold three that a NAL unit does not: 00 00, then 00, 01 or 02.
fn has_start_code(nal: &[u8]) -> bool {
    let mut at = 2;
    // Looks at every third byte as long as it is none that such three could hold.
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
        playback::testing::{Cutter, Painter, at, packet, stream},
    };

    fn push(assembler: &mut Assembler, packets: &[RtpPacket]) -> Vec<Assembled> {
        let mut done = vec![];
        packets.iter().for_each(|packet| assembler.push(packet, |unit| done.push(unit)));
        done
    }

    fn assembled(packets: &[RtpPacket]) -> Vec<Assembled> {
        push(&mut Assembler::default(), packets)
    }

    fn one(payload: &[u8]) -> Vec<Assembled> {
        let mut assembler = Assembler { at_border: true, ..Assembler::default() };
        push(&mut assembler, &[packet(0, 0, true, payload.to_vec(), at(0))])
    }

    #[test]
    fn real_pictures_come_out_as_they_were_cut() {
        let mut painter = Painter::new(Size::new(320, 180));
        let mut cutter = Cutter { sequence: 65_530 };
        let mut kinds = [0; 3];
        let mut assembler = Assembler::default();
        for n in 0..10_u32 {
            let nals = painter.paint(n == 5, 0);
            let packets = cutter.cut(&nals, n * 3000, at(u64::from(n)));
            packets.iter().for_each(|packet| match packet.payload[0] & 0x1f {
                24 => kinds[0] += 1,
                28 => kinds[1] += 1,
                _ => kinds[2] += 1,
            });
            let [Assembled::Whole(unit)] = &push(&mut assembler, &packets)[..] else {
                panic!("picture {n} is not whole")
            };
            assert_eq!(unit.data, stream(&nals), "picture {n}");
            assert_eq!((unit.timestamp, unit.arrival), (n * 3000, at(u64::from(n))));
            assert_eq!(unit.holds.is_key(), n == 0 || n == 5);
            assert!(unit.holds.slice);
        }
        assert!(kinds[0] >= 2 && kinds[1] > 10, "aggregates and fragments were there: {kinds:?}");
    }

    #[test]
    fn a_picture_without_a_marker_ends_with_the_next_timestamp() {
        let nal = vec![0x41, 0x9a, 0x11];
        let packets = [0, 1, 2].map(|n| packet(n, u32::from(n), false, nal.clone(), at(0)));
        let mut assembler = Assembler { at_border: true, ..Assembler::default() };
        let done = push(&mut assembler, &packets);
        assert_eq!(done.len(), 2);
        assert!(done.iter().all(|unit| matches!(unit, Assembled::Whole(_))));
    }

    #[test]
    fn a_picture_whose_start_is_unknown_is_dropped_and_the_next_is_not() {
        let nal = vec![0x41, 0x9a, 0x11];
        let packets = [0, 1].map(|n| packet(n, u32::from(n), true, nal.clone(), at(0)));
        let done = assembled(&packets);
        assert_eq!(done[0], Assembled::Broken(Flaw::Headless));
        assert!(matches!(done[1], Assembled::Whole(_)));
    }

    #[test]
    fn what_is_malformed_breaks_its_picture() {
        for (flaw, payload) in [
            (Flaw::Malformed, &[0x78, 0, 9, 0x67, 1][..]),
            (Flaw::Malformed, &[0x78, 0, 0]),
            (Flaw::Malformed, &[0x78, 0]),
            (Flaw::Malformed, &[0x78, 0, 2, 0x78, 1]),
            (Flaw::Malformed, &[0x7c]),
            (Flaw::Malformed, &[0x7c, 0x85]),
            (Flaw::Malformed, &[0x7c, 0x05, 1]),
            (Flaw::Malformed, &[0x7c, 0xc5, 1]),
            (Flaw::Malformed, &[0x7c, 0x85, 1]),
            (Flaw::StartCode, &[0x41, 1, 0, 0, 1, 0x67]),
            (Flaw::StartCode, &[0x41, 0, 0, 0, 7]),
            (Flaw::Format(sps::Unfit::Damaged), &[0x67, 66]),
        ] {
            assert_eq!(one(payload), [Assembled::Broken(flaw)], "{payload:x?}");
        }
    }

    #[test]
    fn what_no_decoder_here_needs_is_left_out() {
        // Supplemental information, a delimiter, a prefix NAL unit, MTAP16, and type 0.
        for payload in [&[0x06, 5, 1][..], &[0x09, 0x10], &[0x6e, 1, 2], &[0x7a, 1, 2], &[0, 1]] {
            let done = one(payload);
            let [Assembled::Whole(unit)] = &done[..] else { panic!("{payload:x?}: {done:?}") };
            assert_eq!((unit.data.len(), unit.holds), (0, Holds::default()), "{payload:x?}");
        }
    }

    #[test]
    fn a_picture_does_not_grow_without_bound() {
        let mut assembler = Assembler { at_border: true, ..Assembler::default() };
        let mut most = 0;
        for n in 0..4000_u16 {
            let start = if n == 0 { 0x85 } else { 0x05 };
            let payload = [&[0x7c, start][..], &[0xaa; 1200]].concat();
            assembler.push(&packet(n, 0, false, payload, at(0)), |_| ());
            most = most.max(assembler.unit.as_ref().map_or(0, |open| open.unit.data.len()));
        }
        assert!((1 << 20..Assembler::MAX_BYTES + 1300).contains(&most), "{most}");
        let nals = (0..3000_u16).map(|n| packet(n, 9, n == 2999, vec![0x41, 0x9a], at(0)));
        let done = push(&mut assembler, &nals.collect::<Vec<_>>());
        assert_eq!(done.last(), Some(&Assembled::Broken(Flaw::TooLarge)));
    }

    #[test]
    fn every_prefix_and_every_flipped_bit_of_a_packet_is_survived() {
        let nals = Painter::new(Size::new(160, 90)).paint(true, 0);
        let packets = Cutter { sequence: 0 }.cut(&nals, 0, at(0));
        for place in 0..packets.len() {
            let payload = &packets[place].payload;
            let prefixes = (0..payload.len()).map(|end| payload[..end].to_vec());
            let flips = (0..payload.len() * 8).map(|bit| {
                let mut flipped = payload.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                flipped
            });
            for damaged in prefixes.chain(flips) {
                let mut sent = packets.clone();
                sent[place].payload = damaged.into();
                // One picture or, if the end is not known as one, none; and never a panic.
                assert!(assembled(&sent).len() <= 1);
                starts_keyframe(&sent[place].payload);
            }
        }
    }

    #[test]
    fn a_keyframe_is_known_by_its_first_packet() {
        let nals = Painter::new(Size::new(160, 90)).paint(true, 0);
        let packets = Cutter { sequence: 0 }.cut(&nals, 0, at(0));
        let starts: Vec<_> =
            packets.iter().map(|packet| starts_keyframe(&packet.payload)).collect();
        assert!(starts[0] && !starts[1..].contains(&true), "{starts:?}");
        assert!(starts_keyframe(&[0x78, 0, 2, 9, 0x10, 0, 1, 0x67]), "behind a delimiter");
        assert!(starts_keyframe(&[0x67, 66]) && !starts_keyframe(&[]));
    }

    #[test]
    fn a_start_code_is_found_wherever_it_is_and_an_escaped_one_is_none() {
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
