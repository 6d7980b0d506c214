//! From packets in any order to pictures that can be decoded, and when to ask for a keyframe.

use std::{collections::VecDeque, time::Duration};

use super::{
    h264::{AccessUnit, Assembled, Assembler, starts_keyframe},
    jitter::{Step, VideoJitter},
};
use crate::{media::RtpPacket, model::MediaTime};

/// Turns the packets of one picture stream into whole pictures, each of which the ones before it
/// make decodable. Pure: time comes in as a value.
#[derive(Debug)]
pub(crate) struct Intake {
    jitter: VideoJitter,
    assembler: Assembler,
    gate: Gate,
    ready: VecDeque<AccessUnit>,
    whole: u64,
}

impl Intake {
    /// How often a keyframe that does not come is asked for again.
    pub(crate) const ASK_AGAIN: Duration = Duration::from_millis(500);

    /// Pictures ready and not yet fetched at most. A slow decoder that falls farther behind is
    /// better served with a keyframe: eight are 267 ms at 30 fps.
    pub(crate) const MAX_READY: usize = 8;

    pub(crate) fn new() -> Self {
        Self {
            jitter: VideoJitter::new(),
            assembler: Assembler::default(),
            gate: Gate::default(),
            ready: VecDeque::new(),
            whole: 0,
        }
    }

    /// Takes a packet in.
    pub(crate) fn push(&mut self, packet: RtpPacket) {
        let starts_key = starts_keyframe(&packet.payload);
        self.jitter.push(packet, starts_key);
    }

    /// Lets time pass: completes pictures, gives up gaps.
    pub(crate) fn advance(&mut self, now: MediaTime) {
        while let Some(step) = self.jitter.poll(now) {
            match step {
                Step::Packet(packet) => {
                    let Self { assembler, gate, ready, whole, .. } = self;
                    assembler.push(&packet, |assembled| match assembled {
                        Assembled::Whole(unit) => {
                            *whole += u64::from(unit.holds.slice);
                            if gate.admits(&unit) {
                                ready.push_back(unit);
                            }
                        }
                        Assembled::Broken(flaw) => {
                            tracing::debug!(%flaw, "a received picture is dropped");
                            gate.close();
                        }
                    });
                }
                Step::Skipped { to_key } => {
                    tracing::debug!(to_key, "received packets are missing");
                    self.assembler.gap();
                    self.gate.close();
                    if to_key {
                        self.gate.asked = Some(now);
                    }
                }
            }
        }
        self.bound();
    }

    /// The next picture to decode, in order.
    pub(crate) fn next(&mut self) -> Option<AccessUnit> {
        self.ready.pop_front()
    }

    /// Says that a picture could not be decoded: only a keyframe helps.
    pub(crate) fn restart(&mut self) {
        self.ready.clear();
        self.gate.close();
    }

    /// Drops what is ready because nothing is to be decoded now; asks for nothing.
    pub(crate) fn rest(&mut self) {
        self.ready.clear();
        self.gate = Gate::default();
    }

    /// Whether to ask for a keyframe now.
    pub(crate) fn takes_request(&mut self, now: MediaTime) -> bool {
        self.gate.takes_request(now)
    }

    /// When [`Self::advance`] or [`Self::takes_request`] has something to do without a packet.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        [self.jitter.deadline(), self.gate.deadline()].into_iter().flatten().min()
    }

    /// Whole pictures that arrived.
    pub(crate) const fn whole(&self) -> u64 {
        self.whole
    }

    /// Cuts what is ready back to the newest keyframe when the decoder does not keep up.
    fn bound(&mut self) {
        if self.ready.len() <= Self::MAX_READY {
            return;
        }
        match self.ready.iter().rposition(|unit| unit.holds.is_key()) {
            Some(key) if key > 0 => drop(self.ready.drain(..key)),
            Some(_) | None => self.restart(),
        }
    }
}

/// Lets pictures through that can be decoded.
#[derive(Debug, Default)]
struct Gate {
    /// Nothing is missing since the last keyframe.
    open: bool,
    /// A picture was turned away since the gate closed, so a keyframe is not under way.
    wanted: bool,
    asked: Option<MediaTime>,
}

impl Gate {
    fn admits(&mut self, unit: &AccessUnit) -> bool {
        if unit.holds.is_key() {
            *self = Self { open: true, wanted: false, asked: None };
        } else if !self.open && unit.holds.slice {
            self.wanted = true;
        }
        self.open
    }

    fn close(&mut self) {
        if self.open {
            self.asked = None;
        }
        self.open = false;
        self.wanted = true;
    }

    fn takes_request(&mut self, now: MediaTime) -> bool {
        let asks = self.deadline().is_some_and(|deadline| now >= deadline);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    fn deadline(&self) -> Option<MediaTime> {
        let again = self.asked.map_or(MediaTime::default(), |asked| asked + Intake::ASK_AGAIN);
        (self.wanted && !self.open).then_some(again)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::Size,
        playback::{
            jitter::VideoJitter,
            testing::{Cutter, Painter, at, packet, stream},
        },
    };

    /// Pictures of 33 ms, with keyframes where said, as packets; and as streams.
    fn pictures(count: u64, keys: &[u64]) -> (Vec<Vec<RtpPacket>>, Vec<Vec<u8>>) {
        let mut painter = Painter::new(Size::new(160, 90));
        let mut cutter = Cutter { sequence: 65_500 };
        (0..count)
            .map(|n| {
                let nals = painter.paint(keys.contains(&n), 0);
                let packets = cutter.cut(&nals, (n * 2970) as u32, at(n * 33));
                (packets, stream(&nals))
            })
            .unzip()
    }

    fn take(intake: &mut Intake) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| intake.next()).map(|unit| unit.data).collect()
    }

    fn push(intake: &mut Intake, packets: &[RtpPacket]) {
        packets.iter().for_each(|packet| intake.push(packet.clone()));
    }

    #[test]
    fn packets_in_any_order_within_the_patience_make_every_picture() {
        let (packets, streams) = pictures(8, &[0]);
        let mut intake = Intake::new();
        push(&mut intake, &packets[0][..1]);
        let mut mixed: Vec<_> = packets.concat().split_off(1);
        mixed.reverse();
        mixed.extend_from_within(5..20);
        push(&mut intake, &mixed);
        intake.advance(at(100));
        assert_eq!(take(&mut intake), streams);
        assert_eq!(intake.whole(), 8);
        assert!(!intake.takes_request(at(100)));
        assert_eq!(intake.deadline(), None);
    }

    /// What a browser sends to probe for bandwidth: packets without a payload on the pictures' own
    /// stream, numbered like all others, with the timestamp of the picture before.
    fn probe(cutter: &mut Cutter, count: u16, stamp: u32, now: MediaTime) -> Vec<RtpPacket> {
        let sent =
            (0..count).map(|n| packet(cutter.sequence.wrapping_add(n), stamp, false, vec![], now));
        let sent = sent.collect();
        cutter.sequence = cutter.sequence.wrapping_add(count);
        sent
    }

    #[test]
    fn a_probe_between_pictures_costs_no_picture_and_no_keyframe() {
        let mut painter = Painter::new(Size::new(160, 90));
        let mut cutter = Cutter { sequence: 65_530 };
        let (mut intake, mut streams, mut shown) = (Intake::new(), vec![], vec![]);
        push(&mut intake, &probe(&mut cutter, 3, 0, at(0)));
        for n in 0..20_u64 {
            let (nals, stamp, now) = (painter.paint(n == 0, 0), (n * 2970) as u32, at(n * 33));
            push(&mut intake, &cutter.cut(&nals, stamp, now));
            // One packet of a probe is lost on the way.
            let mut probe = probe(&mut cutter, 10, stamp, now);
            probe.remove(4);
            push(&mut intake, &probe);
            intake.advance(now);
            assert!(!intake.takes_request(now), "picture {n}");
            streams.push(stream(&nals));
            shown.append(&mut take(&mut intake));
        }
        assert_eq!(shown, streams);
        assert_eq!((intake.whole(), intake.deadline()), (20, None));
    }

    #[test]
    fn after_a_loss_a_keyframe_is_asked_for_in_time_and_again_until_it_comes() {
        let (packets, streams) = pictures(30, &[0, 29]);
        let mut intake = Intake::new();
        push(&mut intake, &packets[0]);
        intake.advance(at(0));
        assert_eq!(take(&mut intake), streams[..1]);
        push(&mut intake, &packets[1][1..]);
        push(&mut intake, &packets[2]);
        let mut asked = vec![];
        for ms in 33..1200 {
            intake.advance(at(ms));
            if intake.takes_request(at(ms)) {
                asked.push(ms);
            }
            assert_eq!(take(&mut intake), Vec::<Vec<u8>>::new(), "{ms}: nothing to be seen");
        }
        let first = 33 + VideoJitter::PATIENCE.as_millis() as u64;
        // Picture 1 is all of its packets after the first; if it had one only, picture 2 waits.
        assert!((first..=first + 33).contains(&asked[0]), "{asked:?}");
        assert_eq!((asked.len(), asked[1] - asked[0], asked[2] - asked[1]), (3, 500, 500));
        push(&mut intake, &packets[29]);
        intake.advance(at(1200));
        assert_eq!(take(&mut intake), streams[29..], "the keyframe, without waiting for the rest");
        assert!(!intake.takes_request(at(9999)));
    }

    #[test]
    fn a_stream_that_does_not_begin_with_a_keyframe_asks_at_its_first_picture() {
        let (packets, _) = pictures(3, &[0]);
        let mut intake = Intake::new();
        intake.advance(at(5000));
        assert!(!intake.takes_request(at(5000)), "nothing is sent, nobody is asked");
        push(&mut intake, &packets[1]);
        intake.advance(at(5001));
        assert!(intake.takes_request(at(5001)));
        assert!(!intake.takes_request(at(5002)));
        let (packets, streams) = pictures(1, &[0]);
        let mut intake = Intake::new();
        push(&mut intake, &packets[0]);
        intake.advance(at(1));
        assert!(!intake.takes_request(at(1)));
        assert_eq!(take(&mut intake), streams);
    }

    #[test]
    fn a_decoder_that_lags_is_cut_back_to_the_newest_keyframe_or_waits_for_one() {
        let (packets, streams) = pictures(20, &[0, 15]);
        let mut intake = Intake::new();
        for (n, packets) in packets.iter().enumerate() {
            push(&mut intake, packets);
            intake.advance(at(n as u64));
            assert!(intake.ready.len() <= Intake::MAX_READY);
        }
        assert_eq!(take(&mut intake), streams[15..]);
        let (packets, _) = pictures(20, &[0]);
        let mut intake = Intake::new();
        packets.iter().for_each(|packets| push(&mut intake, packets));
        intake.advance(at(20));
        assert!(intake.takes_request(at(20)));
        assert!(take(&mut intake).is_empty());
    }

    #[test]
    fn a_picture_that_could_not_be_decoded_needs_a_keyframe_and_rest_asks_for_none() {
        let (packets, streams) = pictures(4, &[0, 3]);
        let mut intake = Intake::new();
        push(&mut intake, &packets[0]);
        intake.advance(at(0));
        intake.restart();
        assert!(take(&mut intake).is_empty() && intake.takes_request(at(0)));
        intake.rest();
        push(&mut intake, &packets[1]);
        intake.advance(at(1));
        intake.rest();
        assert!(!intake.takes_request(at(1000)) && intake.deadline().is_none());
        push(&mut intake, &[&packets[2][..], &packets[3][..]].concat());
        intake.advance(at(1));
        assert_eq!(take(&mut intake), streams[3..]);
        assert_eq!(intake.whole(), 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_packets_make_it_panic_or_hold_more_than_its_bounds(
            packets in prop::collection::vec(
                (0..60_u16, 0..6_u32, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)),
                1..300),
            kinds in prop::collection::vec(prop::sample::select(vec![
                0x41_u8, 0x65, 0x67, 0x68, 0x78, 0x7c, 0x19, 0]), 300),
        ) {
            let mut intake = Intake::new();
            for (n, (sequence, stamp, marker, mut payload)) in packets.into_iter().enumerate() {
                if let Some(first) = payload.first_mut() {
                    *first = kinds[n];
                }
                let now = at(n as u64 * 10);
                let sequence = sequence.wrapping_add(n as u16);
                intake.push(packet(sequence, stamp, marker, payload, now));
                intake.advance(now);
                intake.takes_request(now);
                prop_assert!(intake.ready.len() <= Intake::MAX_READY);
            }
        }
    }
}
