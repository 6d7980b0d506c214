//! Puts the packets of one picture stream in order, and gives up on what does not come.

use std::{collections::BTreeMap, time::Duration};

use super::Unwrapper;
use crate::{media::RtpPacket, model::MediaTime};

/// The packets of one picture stream, in order. Holds at most [`VideoJitter::MAX_PACKETS`]
/// packets and [`VideoJitter::MAX_BYTES`] bytes.
///
/// Packets without a payload are padding, with which a sender probes for bandwidth (RFC 3550,
/// section 5.1). Their sequence numbers count as received, and they never come out.
#[derive(Debug)]
pub(crate) struct VideoJitter {
    numbers: Unwrapper,
    held: BTreeMap<i64, Held>,
    bytes: usize,
    /// The number that is to come out next; `None` before the first packet.
    next: Option<i64>,
    /// Packets were given up and [`Step::Skipped`] was not yet said.
    skipped: bool,
    /// Packets in a row that lay behind `next`.
    late: u32,
    /// The timestamp of the packet that came out last, if it was the last of its picture.
    ended: Option<u32>,
}

#[derive(Debug)]
struct Held {
    packet: RtpPacket,
    /// Whether a keyframe starts with it.
    starts_key: bool,
}

impl Held {
    fn is_padding(&self) -> bool {
        self.packet.payload.is_empty()
    }
}

/// What comes out next.
#[derive(Debug)]
pub(crate) enum Step {
    /// The packet right after the one before.
    Packet(RtpPacket),
    /// Packets were given up: what comes next does not continue what came before.
    Skipped {
        /// The next packet starts a keyframe.
        to_key: bool,
    },
}

impl VideoJitter {
    /// Packets held at most: a second of 8 Mbit/s in packets of 1000 bytes.
    pub(crate) const MAX_PACKETS: usize = 1024;

    /// Payload bytes held at most.
    pub(crate) const MAX_BYTES: usize = 4 << 20;

    /// How long a gap may stay open before it is given up.
    ///
    /// A lost packet is asked for again within some 20 ms and comes one round trip later, twice
    /// if that was lost too; 120 ms allow two tries on a path of 50 ms. A longer wait would be
    /// seen as a freeze, and a keyframe takes no longer than a third try.
    pub(crate) const PATIENCE: Duration = Duration::from_millis(120);

    /// So many late packets in a row are a sender that started anew, not stragglers.
    const MAX_LATE: u32 = 64;

    pub(crate) const fn new() -> Self {
        Self {
            numbers: Unwrapper::of_16_bits(),
            held: BTreeMap::new(),
            bytes: 0,
            next: None,
            skipped: false,
            late: 0,
            ended: None,
        }
    }

    /// Takes a packet in. Duplicates and packets given up before are dropped; when full, the
    /// oldest are given up.
    pub(crate) fn push(&mut self, packet: RtpPacket, starts_key: bool) {
        let number = self.numbers.unwrap(u32::from(packet.sequence));
        let next = *self.next.get_or_insert(number);
        let newest = self.held.last_key_value().map_or(next, |(newest, _)| *newest);
        if number < next {
            self.late += 1;
            if self.late < Self::MAX_LATE {
                return;
            }
            self.restart(number);
        } else if number - newest > Self::MAX_PACKETS as i64 {
            self.restart(number);
        }
        self.late = 0;
        let bytes = packet.payload.len();
        if let std::collections::btree_map::Entry::Vacant(place) = self.held.entry(number) {
            place.insert(Held { packet, starts_key });
            self.bytes += bytes;
        }
        while self.held.len() > Self::MAX_PACKETS || self.bytes > Self::MAX_BYTES {
            let Some((oldest, held)) = self.held.pop_first() else { break };
            self.bytes -= held.packet.payload.len();
            self.next = Some(oldest + 1);
            self.skipped = true;
            self.ended = None;
        }
    }

    /// What comes out next, if anything may yet.
    pub(crate) fn poll(&mut self, now: MediaTime) -> Option<Step> {
        self.pass_padding();
        let (&first, held) = self.held.first_key_value()?;
        let open = self.next != Some(first);
        if open {
            let patient = now < held.packet.arrival + Self::PATIENCE;
            let key = self.held.iter().find(|(_, held)| held.starts_key).map(|(number, _)| *number);
            match key {
                // Nothing before a keyframe is worth waiting for.
                Some(key) => self.skip_to(key),
                None if patient && !self.skipped => return None,
                None => self.skip_to(first),
            }
            self.pass_padding();
        }
        if std::mem::take(&mut self.skipped) {
            let to_key = self.held.first_key_value().is_some_and(|(_, held)| held.starts_key);
            return Some(Step::Skipped { to_key });
        }
        let (number, held) = self.held.pop_first()?;
        self.bytes -= held.packet.payload.len();
        self.next = Some(number + 1);
        self.ended = held.packet.marker.then_some(held.packet.timestamp);
        Some(Step::Packet(held.packet))
    }

    /// When [`Self::poll`] gives up on the gap that is open now.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        let (first, held) = self.held.first_key_value()?;
        (self.next != Some(*first)).then(|| held.packet.arrival + Self::PATIENCE)
    }

    /// Takes out the padding that comes next.
    ///
    /// A gap before it is no reason to wait if the packet has the timestamp of a picture that has
    /// ended: whatever is missing has that timestamp too, so it was padding as well.
    fn pass_padding(&mut self) {
        while let Some(first) = self.held.first_entry() {
            let (number, held) = (*first.key(), first.get());
            let follows = self.skipped
                || self.next == Some(number)
                || self.ended == Some(held.packet.timestamp);
            if !held.is_padding() || !follows {
                return;
            }
            first.remove();
            self.next = Some(number + 1);
        }
    }

    fn skip_to(&mut self, number: i64) {
        let kept = self.held.split_off(&number);
        self.bytes -= self.held.values().map(|held| held.packet.payload.len()).sum::<usize>();
        self.held = kept;
        self.next = Some(number);
        self.skipped = true;
        self.ended = None;
    }

    fn restart(&mut self, number: i64) {
        self.held.clear();
        self.bytes = 0;
        self.numbers.restart(number);
        self.next = Some(number);
        self.skipped = true;
        self.ended = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::playback::testing::{at, packet};

    fn out(jitter: &mut VideoJitter, now: MediaTime) -> Vec<Option<u16>> {
        std::iter::from_fn(|| jitter.poll(now))
            .map(|step| match step {
                Step::Packet(packet) => Some(packet.sequence),
                Step::Skipped { .. } => None,
            })
            .collect()
    }

    fn push(jitter: &mut VideoJitter, sequences: &[u16], now: MediaTime) {
        for sequence in sequences {
            jitter.push(packet(*sequence, 0, false, vec![1; 100], now), false);
        }
    }

    #[test]
    fn reordered_and_doubled_packets_come_out_once_and_in_order_across_the_wrap() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[65_534, 0, 0, 65_535, 65_534, 2, 1], at(0));
        assert_eq!(out(&mut jitter, at(0)), [65_534, 65_535, 0, 1, 2].map(Some));
        push(&mut jitter, &[1, 65_535], at(1));
        assert_eq!(out(&mut jitter, at(1)), []);
        assert_eq!((jitter.held.len(), jitter.bytes), (0, 0));
    }

    #[test]
    fn a_gap_is_waited_for_and_then_given_up_and_said() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[7], at(0));
        assert_eq!(out(&mut jitter, at(0)), [Some(7)]);
        push(&mut jitter, &[9, 10], at(20));
        assert_eq!(out(&mut jitter, at(139)), []);
        assert_eq!(jitter.deadline(), Some(at(140)));
        assert_eq!(out(&mut jitter, at(140)), [None, Some(9), Some(10)]);
        push(&mut jitter, &[8], at(141));
        assert_eq!(out(&mut jitter, at(141)), [], "too late");
        assert_eq!(jitter.deadline(), None);
    }

    #[test]
    fn a_gap_that_is_filled_in_time_is_none() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[7, 9], at(0));
        assert_eq!(out(&mut jitter, at(0)), [Some(7)]);
        push(&mut jitter, &[8], at(119));
        assert_eq!(out(&mut jitter, at(200)), [Some(8), Some(9)]);
    }

    #[test]
    fn a_keyframe_behind_a_gap_is_not_waited_for() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[1, 3, 4], at(0));
        jitter.push(packet(6, 0, false, vec![1], at(0)), true);
        let steps: Vec<_> = std::iter::from_fn(|| jitter.poll(at(0))).collect();
        assert!(matches!(
            &steps[..],
            [
                Step::Packet(RtpPacket { sequence: 1, .. }),
                Step::Skipped { to_key: true },
                Step::Packet(RtpPacket { sequence: 6, .. }),
            ]
        ));
        assert_eq!(jitter.bytes, 0);
    }

    #[test]
    fn a_sender_that_starts_anew_is_followed_forwards_and_backwards() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[100], at(0));
        assert_eq!(out(&mut jitter, at(0)), [Some(100)]);
        push(&mut jitter, &[20_000], at(1));
        assert_eq!(out(&mut jitter, at(1)), [None, Some(20_000)]);
        let behind: Vec<_> = (500..570).collect();
        push(&mut jitter, &behind, at(2));
        let seen = out(&mut jitter, at(2));
        assert_eq!((seen[0], seen[1], seen.last()), (None, Some(563), Some(&Some(569))));
    }

    #[test]
    fn what_is_held_behind_a_gap_gives_way_from_the_oldest() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[0], at(0));
        let behind: Vec<_> = (2..1100).collect();
        push(&mut jitter, &behind, at(0));
        assert_eq!(jitter.held.len(), VideoJitter::MAX_PACKETS);
        let seen = out(&mut jitter, at(0));
        assert_eq!((seen.len(), seen[0], seen[1]), (1025, None, Some(76)));
    }

    /// The packets of two pictures with padding between them: a number, a picture, and which
    /// packet of it: the first, the last, or padding, sent after the last.
    const PROBED: [(u16, u32, char); 7] = [
        (1, 90, 'f'),
        (2, 90, 'l'),
        (3, 90, 'p'),
        (4, 90, 'p'),
        (5, 90, 'p'),
        (6, 180, 'f'),
        (7, 180, 'l'),
    ];

    fn probed((sequence, stamp, which): (u16, u32, char), now: MediaTime) -> RtpPacket {
        let payload = if which == 'p' { vec![] } else { vec![1; 100] };
        packet(sequence, stamp, which == 'l', payload, now)
    }

    #[test]
    fn padding_closes_the_gap_that_it_would_leave_and_never_comes_out() {
        let pictures = [1, 2, 6, 7].map(Some);
        for order in [[0, 1, 2, 3, 4, 5, 6], [0, 1, 5, 6, 4, 3, 2], [0, 1, 4, 2, 6, 5, 3]] {
            let mut jitter = VideoJitter::new();
            for n in order {
                jitter.push(probed(PROBED[n], at(0)), false);
            }
            assert_eq!(out(&mut jitter, at(0)), pictures, "{order:?}");
            assert_eq!((jitter.held.len(), jitter.deadline()), (0, None));
        }
    }

    #[test]
    fn padding_before_within_and_at_the_end_of_a_stream_is_no_gap() {
        let mut jitter = VideoJitter::new();
        let packets = [(0, 45, 'p'), (1, 90, 'f'), (2, 90, 'p'), (3, 90, 'l'), (4, 90, 'p')];
        for (n, sent) in packets.into_iter().enumerate() {
            jitter.push(probed(sent, at(n as u64)), false);
        }
        assert_eq!(out(&mut jitter, at(5)), [1, 3].map(Some));
        push(&mut jitter, &[5], at(6));
        assert_eq!(out(&mut jitter, at(6)), [Some(5)]);
    }

    #[test]
    fn lost_padding_within_a_probe_is_not_waited_for_and_a_lost_picture_is() {
        let mut jitter = VideoJitter::new();
        for n in [0, 1, 4, 5, 6] {
            jitter.push(probed(PROBED[n], at(0)), false);
        }
        assert_eq!(out(&mut jitter, at(0)), [1, 2, 6, 7].map(Some), "3 and 4 were padding");
        // What is missing may be a picture as well as padding.
        let mut jitter = VideoJitter::new();
        for n in [0, 1, 2, 5, 6] {
            jitter.push(probed(PROBED[n], at(0)), false);
        }
        assert_eq!(out(&mut jitter, at(119)), [1, 2].map(Some));
        assert_eq!(out(&mut jitter, at(120)), [None, Some(6), Some(7)]);
        // Within a picture, it is part of the picture.
        let mut jitter = VideoJitter::new();
        for sent in [(1, 90, 'f'), (3, 90, 'p'), (4, 90, 'l')] {
            jitter.push(probed(sent, at(0)), false);
        }
        assert_eq!(out(&mut jitter, at(119)), [Some(1)]);
        assert_eq!(out(&mut jitter, at(120)), [None, Some(4)]);
    }

    #[test]
    fn a_gap_that_is_given_up_before_padding_leads_to_the_keyframe_behind_it() {
        let mut jitter = VideoJitter::new();
        push(&mut jitter, &[1], at(0));
        jitter.push(packet(3, 0, false, vec![], at(0)), false);
        jitter.push(packet(4, 0, false, vec![], at(0)), false);
        assert_eq!(out(&mut jitter, at(119)), [Some(1)]);
        jitter.push(packet(5, 90, false, vec![1], at(119)), true);
        let steps: Vec<_> = std::iter::from_fn(|| jitter.poll(at(119))).collect();
        assert!(matches!(
            &steps[..],
            [Step::Skipped { to_key: true }, Step::Packet(RtpPacket { sequence: 5, .. })]
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn nothing_that_is_sent_makes_it_hold_more_than_its_bounds(
            packets in prop::collection::vec((any::<u16>(), 0..70_000_usize, any::<bool>()), 1..400),
            near in any::<bool>(),
        ) {
            let mut jitter = VideoJitter::new();
            let zeros = vec![0; 70_000];
            let (mut last, mut padding) = (None, std::collections::BTreeSet::new());
            for (n, (sequence, bytes, key)) in packets.into_iter().enumerate() {
                let sequence = if near { sequence / 64 * 2 } else { sequence };
                // A tenth of all is padding.
                let bytes = if bytes < 7000 { 0 } else { bytes };
                if bytes == 0 {
                    padding.insert(sequence);
                }
                let payload = bytes::Bytes::copy_from_slice(&zeros[..bytes]);
                jitter.push(packet(sequence, 0, false, payload, at(n as u64)), key && n % 50 == 0);
                prop_assert!(jitter.held.len() <= VideoJitter::MAX_PACKETS);
                prop_assert!(jitter.bytes <= VideoJitter::MAX_BYTES);
                let held: usize = jitter.held.values().map(|held| held.packet.payload.len()).sum();
                prop_assert_eq!(held, jitter.bytes);
                if n % 3 == 0 {
                    while let Some(step) = jitter.poll(at(n as u64)) {
                        match step {
                            Step::Skipped { .. } => last = None,
                            Step::Packet(packet) => {
                                prop_assert!(!packet.payload.is_empty());
                                let mut after = last.map(|last: u16| last.wrapping_add(1));
                                // Padding is passed over.
                                while after.is_some_and(|after| {
                                    after != packet.sequence && padding.contains(&after)
                                }) {
                                    after = after.map(|after| after.wrapping_add(1));
                                }
                                prop_assert!(after.is_none_or(|after| after == packet.sequence));
                                last = Some(packet.sequence);
                            }
                        }
                    }
                }
            }
        }
    }
}
