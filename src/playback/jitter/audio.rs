//! Decides, sample by sample, which packet of a sound comes next and how long to hold it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Unwrapper,
    sequence::{Arrived, Ledger},
};
use crate::{media::RtpPacket, model::MediaTime, playback::clock::Arrivals};

/// The packets of one sound, in order, held as long as their arrival is uneven.
///
/// Holds at most [`AudioJitter::MAX_PACKETS`] packets, none larger than
/// [`AudioJitter::MAX_PACKET_BYTES`]. All positions are samples at 48 kHz.
#[derive(Debug)]
pub(crate) struct AudioJitter {
    ledger: Ledger,
    stamps: Unwrapper,
    arrivals: Arrivals,
    held: BTreeMap<i64, Held>,
    /// The numbers of packets without a payload, which are padding: none of them is a loss.
    padding: BTreeSet<i64>,
    /// The sample that is to be played next; `None` before the first.
    next: Option<Position>,
    /// Samples filled in while nothing was there, since `next` last moved.
    stalled: i64,
    /// What a packet that came too late asked for; falls slowly.
    peak: Duration,
}

#[derive(Debug)]
struct Held {
    stamp: i64,
    payload: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    number: i64,
    stamp: i64,
}

/// What to play next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Pull {
    /// Decode this packet.
    Packet(Bytes),
    /// The packet before this one is lost, and so many samples of it are still to be played: what
    /// this one repeats of it (RFC 6716, section 2.1.7) ends where this one begins.
    Repair {
        /// The packet after the lost one.
        next: Bytes,
        /// Samples of the lost one.
        samples: usize,
    },
    /// A packet is lost, with later ones there: fill in at most so many samples.
    Lost(usize),
    /// Nothing is there: fill in, and say so with [`AudioJitter::stall`].
    Empty,
}

impl AudioJitter {
    /// Packets held at most: more than two seconds in the usual 20 ms.
    pub(crate) const MAX_PACKETS: usize = 128;

    /// The longest packet that Opus makes: 120 ms in 20 ms frames of 1275 bytes, with headers.
    pub(crate) const MAX_PACKET_BYTES: usize = 8 << 10;

    /// The least delay: one packet, so that two that change places do no harm.
    pub(crate) const MIN_TARGET: Duration = Duration::from_millis(20);

    /// The greatest delay: beyond it a conversation suffers more than from losses.
    pub(crate) const MAX_TARGET: Duration = Duration::from_millis(200);

    /// Sound is fetched in blocks of this length, so a packet is wanted up to as much earlier.
    const BLOCK: Duration = Duration::from_millis(10);

    /// How fast the memory of a packet that came too late fades, per second: slowly, because the
    /// next such packet is likelier than before.
    const FADE_PER_SECOND: Duration = Duration::from_millis(10);

    /// A longer jump in the timestamps is not filled in but followed.
    const MAX_GAP: i64 = 48_000;

    pub(crate) fn new() -> Self {
        Self {
            ledger: Ledger::new(),
            stamps: Unwrapper::of_32_bits(),
            arrivals: Arrivals::new(48_000),
            held: BTreeMap::new(),
            padding: BTreeSet::new(),
            next: None,
            stalled: 0,
            peak: Duration::ZERO,
        }
    }

    /// Takes a packet in; duplicates, late and oversize ones are dropped. When full, the oldest
    /// gives way. Packets without a payload are padding (RFC 3550, section 5.1): they count as
    /// received, and say nothing of the sound and its delay.
    pub(crate) fn push(&mut self, packet: &RtpPacket) {
        let (number, arrived) = self.ledger.note(packet.sequence);
        match arrived {
            Arrived::Known => return,
            Arrived::Fresh => {}
            Arrived::Restarted => {
                self.held.clear();
                self.padding.clear();
                self.stamps = Unwrapper::of_32_bits();
                self.arrivals = Arrivals::new(48_000);
                self.next = None;
            }
        }
        if packet.payload.is_empty() {
            return self.note_padding(number);
        }
        let stamp = self.stamps.unwrap(packet.timestamp);
        let lateness = self.arrivals.note(stamp, packet.arrival);
        if self.next.is_some_and(|next| number < next.number) {
            self.peak = self.peak.max(lateness.min(Self::MAX_TARGET));
            return;
        }
        if packet.payload.len() > Self::MAX_PACKET_BYTES {
            return;
        }
        if self.stalled > 0 {
            self.peak = self.peak.max((lateness + Self::BLOCK).min(Self::MAX_TARGET));
        }
        self.held.insert(number, Held { stamp, payload: packet.payload.clone() });
        if self.held.len() > Self::MAX_PACKETS {
            self.held.pop_first();
        }
    }

    /// Whether sound that rests may start: the first packet was held as long as it is to be.
    pub(crate) fn is_ready(&self, now: MediaTime) -> bool {
        let first = self.held.first_key_value().map(|(_, held)| held.stamp);
        let earliest = first.and_then(|stamp| self.arrivals.earliest(stamp));
        earliest.is_some_and(|earliest| now >= earliest + self.target())
    }

    /// Begins with the first packet that is there, wherever it was stopped before.
    pub(crate) fn start(&mut self) {
        if let Some((&number, held)) = self.held.first_key_value() {
            self.move_to(number, held.stamp);
        }
    }

    /// What to play next, given that what was handed out so far is used up.
    pub(crate) fn pull(&mut self) -> Pull {
        let Some((&number, held)) = self.held.first_key_value() else { return Pull::Empty };
        let (stamp, next) =
            (held.stamp, self.next.unwrap_or(Position { number, stamp: held.stamp }));
        // What was filled in while the gap was not yet known to be one counts towards it.
        let gap = stamp - next.stamp - self.stalled;
        if self.is_loss(next.number..number) && (1..=Self::MAX_GAP).contains(&gap) {
            if gap > Self::LONGEST_REPAIR {
                let lost = (gap - Self::LONGEST_REPAIR).min(Self::LONGEST_REPAIR);
                self.move_to(next.number, next.stamp + self.stalled + lost);
                return Pull::Lost(lost as usize);
            }
            let next = held.payload.clone();
            self.move_to(number, stamp);
            return Pull::Repair { next, samples: gap as usize };
        }
        let Some((number, held)) = self.held.pop_first() else { return Pull::Empty };
        self.move_to(number + 1, held.stamp);
        Pull::Packet(held.payload)
    }

    /// Samples of a lost packet that the one after it can repeat: 20 ms, the usual packet.
    const LONGEST_REPAIR: i64 = 960;

    /// Says how long the packet was that [`Self::pull`] handed out, in samples.
    pub(crate) fn played(&mut self, samples: usize) {
        if let Some(next) = &mut self.next {
            next.stamp += samples as i64;
        }
    }

    /// Says that so many samples were filled in because nothing was there.
    pub(crate) fn stall(&mut self, samples: usize) {
        if self.next.is_some() {
            self.stalled += samples as i64;
        }
    }

    /// Drops what is held beyond the target, if that is so much that nobody would wait for it to
    /// be caught up with: after the network or this machine stood still.
    pub(crate) fn catch_up(&mut self, now: MediaTime) {
        let limit = self.target() + Self::FAR_BEHIND;
        while self.held.len() > 1 {
            let Some((&number, held)) = self.held.first_key_value() else { return };
            let Some(earliest) = self.arrivals.earliest(held.stamp) else { return };
            if now.since(earliest) <= limit {
                return;
            }
            self.held.pop_first();
            let next = self.held.first_key_value().map(|(number, held)| (*number, held.stamp));
            let (number, stamp) = next.unwrap_or((number + 1, 0));
            self.move_to(number, stamp);
        }
    }

    /// Sound this far beyond its target is skipped rather than played faster.
    const FAR_BEHIND: Duration = Duration::from_millis(400);

    /// How much longer than the target the next sample waited, in microseconds; negative if less.
    /// `ahead` are the samples handed out and not yet played.
    pub(crate) fn excess(&self, now: MediaTime, ahead: usize) -> Option<i64> {
        let stamp = self.next?.stamp - ahead as i64;
        let earliest = self.arrivals.earliest(stamp)?;
        let waited = now.as_micros() as i64 - earliest.as_micros() as i64;
        Some(waited - self.target().as_micros() as i64)
    }

    /// How long each packet is held, against the fastest.
    pub(crate) fn target(&self) -> Duration {
        let even = self.arrivals.lateness(0.97) + Self::BLOCK;
        even.max(self.peak).clamp(Self::MIN_TARGET, Self::MAX_TARGET)
    }

    /// Lets the memory of late packets fade by the time of one block.
    pub(crate) fn fade(&mut self) {
        self.peak = self.peak.saturating_sub(Self::FADE_PER_SECOND / 100);
    }

    /// Whether a packet waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Packets that arrived, duplicates not counted.
    pub(crate) const fn received(&self) -> u64 {
        self.ledger.received()
    }

    /// Packets that never did.
    pub(crate) const fn lost(&self) -> u64 {
        self.ledger.lost()
    }

    fn move_to(&mut self, number: i64, stamp: i64) {
        self.next = Some(Position { number, stamp });
        self.stalled = 0;
        self.padding = self.padding.split_off(&number);
    }

    fn note_padding(&mut self, number: i64) {
        self.padding.insert(number);
        if self.padding.len() > Self::MAX_PACKETS {
            self.padding.pop_first();
        }
    }

    /// Whether any of these packets, none of which is held, is missing.
    fn is_loss(&self, numbers: Range<i64>) -> bool {
        if numbers.is_empty() {
            return false;
        }
        let padding = self.padding.range(numbers.clone()).count() as i64;
        numbers.end - numbers.start > padding
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::playback::testing::{at, packet};

    /// A packet of 20 ms, the `n`th after one before both counters wrap.
    fn nth(n: u16, arrival: u64) -> RtpPacket {
        let stamp = (u32::MAX - 1500).wrapping_add(u32::from(n) * 960);
        packet(65_534_u16.wrapping_add(n), stamp, false, vec![n as u8; 3], at(arrival))
    }

    fn is(n: u8) -> Pull {
        Pull::Packet(vec![n; 3].into())
    }

    /// Pulls as a voice does.
    fn pull(jitter: &mut AudioJitter) -> Pull {
        let pulled = jitter.pull();
        match &pulled {
            Pull::Packet(_) => jitter.played(960),
            Pull::Empty => jitter.stall(480),
            Pull::Repair { .. } | Pull::Lost(_) => {}
        }
        pulled
    }

    fn with(arrived: &[u16]) -> AudioJitter {
        let mut jitter = AudioJitter::new();
        arrived.iter().for_each(|n| jitter.push(&nth(*n, 1000 + u64::from(*n) * 20)));
        jitter
    }

    #[test]
    fn reordered_and_doubled_packets_are_played_once_and_in_order_across_both_wraps() {
        let mut jitter = with(&[0, 2, 1, 1, 3, 0, 4]);
        let played: Vec<_> = (0..6).map(|_| pull(&mut jitter)).collect();
        assert_eq!(played, [is(0), is(1), is(2), is(3), is(4), Pull::Empty]);
        assert_eq!((jitter.received(), jitter.lost()), (5, 0));
    }

    #[test]
    fn a_lost_packet_is_repaired_by_the_next_and_of_several_the_last() {
        let mut jitter = with(&[0, 2, 5]);
        let repair = |n: u8| Pull::Repair { next: vec![n; 3].into(), samples: 960 };
        let played: Vec<_> = (0..6).map(|_| pull(&mut jitter)).collect();
        assert_eq!(played, [is(0), repair(2), is(2), Pull::Lost(960), repair(5), is(5)]);
        assert_eq!((jitter.received(), jitter.lost()), (3, 3));
    }

    #[test]
    fn what_was_filled_in_before_a_loss_was_known_counts_towards_it() {
        let mut jitter = with(&[0]);
        assert_eq!(pull(&mut jitter), is(0));
        assert_eq!(pull(&mut jitter), Pull::Empty);
        jitter.push(&nth(2, 1045));
        let next = vec![2; 3].into();
        assert_eq!(pull(&mut jitter), Pull::Repair { next, samples: 480 });
        assert_eq!(pull(&mut jitter), is(2));
        assert_eq!((pull(&mut jitter), pull(&mut jitter)), (Pull::Empty, Pull::Empty));
        jitter.push(&nth(4, 1085));
        assert_eq!(pull(&mut jitter), is(4), "all of the loss was filled in already");
    }

    #[test]
    fn a_late_packet_is_played_late_and_raises_the_delay_at_once_and_for_a_while() {
        let mut jitter = AudioJitter::new();
        for n in 0..200 {
            jitter.push(&nth(n, 1000 + u64::from(n) * 20));
            assert_eq!(pull(&mut jitter), is(n as u8));
        }
        assert_eq!(jitter.target(), AudioJitter::MIN_TARGET);
        assert_eq!(pull(&mut jitter), Pull::Empty);
        jitter.push(&nth(200, 1000 + 200 * 20 + 80));
        assert_eq!(jitter.target(), Duration::from_millis(90), "80 ms and a block");
        assert_eq!(pull(&mut jitter), is(200));
        (0..200).for_each(|_| jitter.fade());
        assert_eq!(jitter.target(), Duration::from_millis(70), "two seconds later");
        (0..2000).for_each(|_| jitter.fade());
        assert!(jitter.peak.is_zero());
    }

    #[test]
    fn unevenness_raises_the_delay_within_its_bounds() {
        for (jitter_ms, bounds) in [(0, 20..=20), (60, 60..=75), (1000, 200..=200)] {
            let mut jitter = AudioJitter::new();
            for n in 0..500_u16 {
                let late = u64::from(n) * 7919 % (jitter_ms + 1);
                jitter.push(&nth(n, 1000 + u64::from(n) * 20 + late));
                jitter.pull();
            }
            let target = jitter.target().as_millis();
            assert!(bounds.contains(&target), "{jitter_ms}: {target}");
        }
    }

    #[test]
    fn it_starts_when_the_first_packet_was_held_as_long_as_it_is_to_be() {
        let jitter = with(&[0]);
        assert!(!jitter.is_ready(at(1019)));
        assert!(jitter.is_ready(at(1020)));
        assert!(!AudioJitter::new().is_ready(at(9999)));
    }

    #[test]
    fn after_a_standstill_the_past_is_skipped() {
        let mut jitter = AudioJitter::new();
        jitter.push(&nth(0, 1000));
        assert_eq!(pull(&mut jitter), is(0));
        // The network stood still for a second and then gave all at once.
        (1..=50).for_each(|n| jitter.push(&nth(n, 2000)));
        jitter.catch_up(at(2000));
        let Pull::Packet(next) = pull(&mut jitter) else { panic!("nothing there") };
        assert!((15..=35).contains(&next[0]), "{}", next[0]);
        assert_eq!(jitter.lost(), 0);
    }

    #[test]
    fn what_nobody_plays_gives_way_from_the_oldest() {
        let mut jitter = AudioJitter::new();
        (0..300).for_each(|n| jitter.push(&nth(n, 1000 + u64::from(n) * 20)));
        assert_eq!(jitter.held.len(), AudioJitter::MAX_PACKETS);
        assert_eq!(pull(&mut jitter), is((300 - AudioJitter::MAX_PACKETS) as u8));
    }

    #[test]
    fn a_jump_of_the_timestamps_is_followed() {
        let mut jitter = with(&[0]);
        assert_eq!(pull(&mut jitter), is(0));
        jitter.push(&packet(0, 5_000_000, false, vec![9], at(1020)));
        jitter.push(&packet(2, 6_000_000, false, vec![8], at(1060)));
        assert_eq!(pull(&mut jitter), Pull::Packet(vec![9].into()));
        assert_eq!(pull(&mut jitter), Pull::Packet(vec![8].into()));
    }

    /// A packet without a payload, with the timestamp of the `n`th, between the `n`th and the next.
    fn padding_after(n: u16, sequence: u16, arrival: u64) -> RtpPacket {
        RtpPacket { sequence, payload: Bytes::new(), ..nth(n, arrival) }
    }

    #[test]
    fn padding_counts_as_received_and_is_neither_a_sound_nor_a_loss() {
        let sent = |n: u16, stamp: u32, arrival| {
            packet(n, stamp * 960, false, vec![n as u8; 3], at(arrival))
        };
        let padding = |n: u16, arrival| packet(n, 960, false, vec![], at(arrival));
        let mut jitter = AudioJitter::new();
        jitter.push(&padding(0, 1000));
        jitter.push(&sent(1, 1, 1000));
        // Then silence on purpose, with probes: numbers go on, time passes.
        [4, 2, 3].into_iter().for_each(|n| jitter.push(&padding(n, 1500)));
        jitter.push(&sent(5, 30, 1580));
        assert_eq!(pull(&mut jitter), is(1));
        assert_eq!(pull(&mut jitter), is(5), "nothing is filled in");
        assert_eq!(jitter.target(), AudioJitter::MIN_TARGET, "padding tells of no delay");
        assert_eq!((jitter.received(), jitter.lost()), (6, 0));
        assert!(jitter.padding.is_empty());
        // One of these is a loss.
        jitter.push(&padding(6, 1600));
        jitter.push(&sent(8, 32, 1620));
        let next = vec![8; 3].into();
        assert_eq!(pull(&mut jitter), Pull::Repair { next, samples: 960 });
        assert_eq!((jitter.received(), jitter.lost()), (8, 1));
    }

    #[test]
    fn padding_alone_starts_no_sound_and_is_not_kept_for_ever() {
        let mut jitter = AudioJitter::new();
        (0..1000).for_each(|n| jitter.push(&padding_after(0, n, 1000)));
        assert!(jitter.is_empty() && !jitter.is_ready(at(9000)));
        assert_eq!((pull(&mut jitter), jitter.received()), (Pull::Empty, 1000));
        assert!(jitter.padding.len() <= AudioJitter::MAX_PACKETS);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn nothing_that_is_sent_makes_it_hold_more_than_its_bounds_or_fill_in_for_ever(
            packets in prop::collection::vec(
                (any::<u16>(), any::<u32>(), 0..20_000_usize, 0..40_u64), 1..600),
            near in any::<bool>(),
        ) {
            let mut jitter = AudioJitter::new();
            let mut now = 1000;
            for (n, (sequence, stamp, bytes, pause)) in packets.into_iter().enumerate() {
                now += pause;
                let (sequence, stamp) = match near {
                    true => (sequence % 40 + n as u16, (n as u32 * 960).wrapping_add(stamp % 2000)),
                    false => (sequence, stamp),
                };
                jitter.push(&packet(sequence, stamp, false, vec![0; bytes], at(now)));
                prop_assert!(jitter.held.len() <= AudioJitter::MAX_PACKETS);
                prop_assert!(jitter.held.values().all(
                    |held| held.payload.len() <= AudioJitter::MAX_PACKET_BYTES));
                prop_assert!((AudioJitter::MIN_TARGET..=AudioJitter::MAX_TARGET)
                    .contains(&jitter.target()));
                jitter.is_ready(at(now));
                jitter.catch_up(at(now));
                jitter.excess(at(now), 480);
                if n % 3 == 0 {
                    let pulled = pull(&mut jitter);
                    let fits = match pulled {
                        Pull::Repair { samples, .. } | Pull::Lost(samples) => {
                            (1..=960).contains(&samples)
                        }
                        Pull::Packet(_) | Pull::Empty => true,
                    };
                    prop_assert!(fits);
                }
            }
            let most = 2 + AudioJitter::MAX_PACKETS * (1 + AudioJitter::MAX_GAP as usize / 960 + 1);
            let mut pulls = 0;
            while pull(&mut jitter) != Pull::Empty {
                pulls += 1;
                prop_assert!(pulls <= most);
            }
        }
    }
}
