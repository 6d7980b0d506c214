//! The jitter buffer of audio: which packet is decoded next, and how long packets are held.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Unwrapper,
    sequence::{SequenceStatus, SequenceTracker},
};
use crate::{media::RtpPacket, model::MediaTime, playback::playout_clock::ArrivalDelay};

/// The packets of one audio stream in order, with an adaptive delay that compensates jitter.
///
/// Holds at most [`AudioJitterBuffer::MAX_PACKETS`] packets, none larger than
/// [`AudioJitterBuffer::MAX_PACKET_BYTES`]. All positions are samples at 48 kHz.
#[derive(Debug)]
pub(crate) struct AudioJitterBuffer {
    sequence: SequenceTracker,
    timestamps: Unwrapper,
    arrival_delay: ArrivalDelay,
    held: BTreeMap<i64, Held>,
    /// The sequence numbers of padding packets, which have no payload. They do not count as lost.
    padding: BTreeSet<i64>,
    /// The position of the next packet and sample; `None` before the first packet.
    next: Option<Position>,
    /// Samples concealed while the buffer was empty, since `next` last changed.
    underrun_samples: i64,
    /// The delay that a late packet would have needed to be in time. Decays slowly.
    late_peak: Duration,
    /// When the packet arrived that was pulled last.
    pulled_arrival: Option<MediaTime>,
}

#[derive(Debug)]
struct Held {
    stamp: i64,
    arrival: MediaTime,
    payload: Bytes,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    number: i64,
    stamp: i64,
}

/// What the decoder must do next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Pull {
    /// Decode this packet.
    Packet(Bytes),
    /// The packet before `next` is lost: decode the FEC data that `next` contains (RFC 6716,
    /// section 2.1.7), which ends where `next` begins.
    Fec {
        /// The packet after the lost one, which stays in the buffer.
        next: Bytes,
        /// The samples of the lost packet that are still to be played.
        samples: usize,
    },
    /// A packet is lost and later ones have arrived: conceal this many samples.
    Conceal(usize),
    /// The buffer is empty: conceal, and report the samples with
    /// [`AudioJitterBuffer::on_underrun`].
    Empty,
}

impl AudioJitterBuffer {
    /// The most packets held: more than two seconds in packets of 20 ms.
    pub(crate) const MAX_PACKETS: usize = 128;

    /// The largest Opus packet: 120 ms in 20 ms frames of 1275 bytes, with headers.
    pub(crate) const MAX_PACKET_BYTES: usize = 8 << 10;

    /// The minimum target delay: one packet, so that two packets may arrive in reverse order.
    pub(crate) const MIN_TARGET_DELAY: Duration = Duration::from_millis(20);

    /// The maximum target delay. A longer delay harms a conversation more than losses.
    pub(crate) const MAX_TARGET_DELAY: Duration = Duration::from_millis(200);

    /// The length of a pulled block. A packet is needed up to one block before its playout time.
    const BLOCK: Duration = Duration::from_millis(10);

    /// How fast the delay added for a late packet decays, per second. Slowly, because after one
    /// late packet another one is likely.
    const LATE_PEAK_DECAY_PER_SECOND: Duration = Duration::from_millis(10);

    /// Samples. A longer jump of the timestamps is followed, not concealed.
    const MAX_GAP: i64 = 48_000;

    pub(crate) fn new() -> Self {
        Self {
            sequence: SequenceTracker::new(),
            timestamps: Unwrapper::of_32_bits(),
            arrival_delay: ArrivalDelay::new(48_000),
            held: BTreeMap::new(),
            padding: BTreeSet::new(),
            next: None,
            underrun_samples: 0,
            late_peak: Duration::ZERO,
            pulled_arrival: None,
        }
    }

    /// Adds a packet. Duplicate, late and oversize packets are dropped. When the buffer is full,
    /// the oldest packet is dropped. Packets without a payload are padding (RFC 3550, section 5.1):
    /// they count as received and have no effect on audio and delay.
    pub(crate) fn push(&mut self, packet: &RtpPacket) {
        let (number, status) = self.sequence.record(packet.sequence);
        match status {
            SequenceStatus::Duplicate => return,
            SequenceStatus::New => {}
            SequenceStatus::Restarted => {
                self.held.clear();
                self.padding.clear();
                self.timestamps = Unwrapper::of_32_bits();
                self.arrival_delay = ArrivalDelay::new(48_000);
                self.next = None;
            }
        }
        if packet.payload.is_empty() {
            return self.record_padding(number);
        }
        let stamp = self.timestamps.unwrap(packet.timestamp);
        let delay = self.arrival_delay.record(stamp, packet.arrival);
        if self.next.is_some_and(|next| number < next.number) {
            self.late_peak = self.late_peak.max(delay.min(Self::MAX_TARGET_DELAY));
            return;
        }
        if packet.payload.len() > Self::MAX_PACKET_BYTES {
            return;
        }
        if self.underrun_samples > 0 {
            self.late_peak = self.late_peak.max((delay + Self::BLOCK).min(Self::MAX_TARGET_DELAY));
        }
        let (arrival, payload) = (packet.arrival, packet.payload.clone());
        self.held.insert(number, Held { stamp, arrival, payload });
        if self.held.len() > Self::MAX_PACKETS {
            self.held.pop_first();
        }
    }

    /// Whether playout may start: the first packet has been held for the target delay.
    pub(crate) fn is_ready(&self, now: MediaTime) -> bool {
        let first = self.held.first_key_value().map(|(_, held)| held.stamp);
        let earliest = first.and_then(|stamp| self.arrival_delay.earliest_arrival(stamp));
        earliest.is_some_and(|earliest| now >= earliest + self.target_delay())
    }

    /// Starts playout at the first packet held, regardless of the previous position.
    pub(crate) fn start(&mut self) {
        if let Some((&number, held)) = self.held.first_key_value() {
            self.set_next(number, held.stamp);
        }
    }

    /// What to decode next, after everything returned before has been used.
    pub(crate) fn pull(&mut self) -> Pull {
        let Some((&number, held)) = self.held.first_key_value() else { return Pull::Empty };
        let (stamp, next) =
            (held.stamp, self.next.unwrap_or(Position { number, stamp: held.stamp }));
        // Samples that were concealed before the loss was known belong to the gap.
        let gap = stamp - next.stamp - self.underrun_samples;
        if self.is_loss(next.number..number) && (1..=Self::MAX_GAP).contains(&gap) {
            if gap > Self::MAX_FEC_SAMPLES {
                let lost = (gap - Self::MAX_FEC_SAMPLES).min(Self::MAX_FEC_SAMPLES);
                self.set_next(next.number, next.stamp + self.underrun_samples + lost);
                return Pull::Conceal(lost as usize);
            }
            let next = held.payload.clone();
            self.set_next(number, stamp);
            return Pull::Fec { next, samples: gap as usize };
        }
        let Some((number, held)) = self.held.pop_first() else { return Pull::Empty };
        self.set_next(number + 1, held.stamp);
        self.pulled_arrival = Some(held.arrival);
        Pull::Packet(held.payload)
    }

    /// How long the packet was held that [`Self::pull`] returned last.
    pub(crate) fn held_for(&self, now: MediaTime) -> Duration {
        self.pulled_arrival.map_or(Duration::ZERO, |arrival| now.since(arrival))
    }

    /// The most samples that FEC can recover: 20 ms, the usual packet.
    const MAX_FEC_SAMPLES: i64 = 960;

    /// Advances the position by the length in samples of the packet that [`Self::pull`] returned.
    pub(crate) fn advance(&mut self, samples: usize) {
        if let Some(next) = &mut self.next {
            next.stamp += samples as i64;
        }
    }

    /// Records that this many samples were concealed because the buffer was empty.
    pub(crate) fn on_underrun(&mut self, samples: usize) {
        if self.next.is_some() {
            self.underrun_samples += samples as i64;
        }
    }

    /// Drops packets down to the target delay if the excess is too large for faster playout, for
    /// example after the network or this machine was blocked.
    pub(crate) fn catch_up(&mut self, now: MediaTime) {
        let limit = self.target_delay() + Self::SKIP_THRESHOLD;
        while self.held.len() > 1 {
            let Some((&number, held)) = self.held.first_key_value() else { return };
            let Some(earliest) = self.arrival_delay.earliest_arrival(held.stamp) else { return };
            if now.since(earliest) <= limit {
                return;
            }
            self.held.pop_first();
            let next = self.held.first_key_value().map(|(number, held)| (*number, held.stamp));
            let (number, stamp) = next.unwrap_or((number + 1, 0));
            self.set_next(number, stamp);
        }
    }

    /// Audio that exceeds the target delay by more than this is skipped, not played faster.
    const SKIP_THRESHOLD: Duration = Duration::from_millis(400);

    /// The delay of the next sample minus the target delay, in microseconds. `ahead` is the number
    /// of decoded samples that are not yet played.
    pub(crate) fn excess_delay(&self, now: MediaTime, ahead: usize) -> Option<i64> {
        let stamp = self.next?.stamp - ahead as i64;
        let earliest = self.arrival_delay.earliest_arrival(stamp)?;
        let waited = now.as_micros() as i64 - earliest.as_micros() as i64;
        Some(waited - self.target_delay().as_micros() as i64)
    }

    /// The target delay relative to the fastest packet.
    pub(crate) fn target_delay(&self) -> Duration {
        let delay = self.arrival_delay.quantile(0.97) + Self::BLOCK;
        delay.max(self.late_peak).clamp(Self::MIN_TARGET_DELAY, Self::MAX_TARGET_DELAY)
    }

    /// Decays the delay added for late packets by the time of one block.
    pub(crate) fn decay_late_peak(&mut self) {
        self.late_peak = self.late_peak.saturating_sub(Self::LATE_PEAK_DECAY_PER_SECOND / 100);
    }

    /// Whether no packet is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Packets that arrived, without duplicates.
    pub(crate) const fn received(&self) -> u64 {
        self.sequence.received()
    }

    /// Packets that did not arrive.
    pub(crate) const fn lost(&self) -> u64 {
        self.sequence.lost()
    }

    fn set_next(&mut self, number: i64, stamp: i64) {
        self.next = Some(Position { number, stamp });
        self.underrun_samples = 0;
        self.padding = self.padding.split_off(&number);
    }

    fn record_padding(&mut self, number: i64) {
        self.padding.insert(number);
        if self.padding.len() > Self::MAX_PACKETS {
            self.padding.pop_first();
        }
    }

    /// Whether any of these sequence numbers is a lost packet, not padding. None of them is held.
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

    /// The `n`th packet of 20 ms of a stream that starts shortly before both counters wrap.
    fn nth_packet(n: u16, arrival: u64) -> RtpPacket {
        let stamp = (u32::MAX - 1500).wrapping_add(u32::from(n) * 960);
        packet(65_534_u16.wrapping_add(n), stamp, false, vec![n as u8; 3], at(arrival))
    }

    fn expected_packet(n: u8) -> Pull {
        Pull::Packet(vec![n; 3].into())
    }

    /// Pulls like `AudioReceiver`.
    fn pull(buffer: &mut AudioJitterBuffer) -> Pull {
        let pulled = buffer.pull();
        match &pulled {
            Pull::Packet(_) => buffer.advance(960),
            Pull::Empty => buffer.on_underrun(480),
            Pull::Fec { .. } | Pull::Conceal(_) => {}
        }
        pulled
    }

    fn buffer_with(arrived: &[u16]) -> AudioJitterBuffer {
        let mut buffer = AudioJitterBuffer::new();
        arrived.iter().for_each(|n| buffer.push(&nth_packet(*n, 1000 + u64::from(*n) * 20)));
        buffer
    }

    #[test]
    fn reordered_and_duplicate_packets_are_played_once_and_in_order_across_both_wraps() {
        let mut buffer = buffer_with(&[0, 2, 1, 1, 3, 0, 4]);
        let played: Vec<_> = (0..6).map(|_| pull(&mut buffer)).collect();
        assert_eq!(
            played,
            [
                expected_packet(0),
                expected_packet(1),
                expected_packet(2),
                expected_packet(3),
                expected_packet(4),
                Pull::Empty
            ]
        );
        assert_eq!((buffer.received(), buffer.lost()), (5, 0));
    }

    #[test]
    fn fec_recovers_a_lost_packet_and_of_several_only_the_last() {
        let mut buffer = buffer_with(&[0, 2, 5]);
        let fec = |n: u8| Pull::Fec { next: vec![n; 3].into(), samples: 960 };
        let played: Vec<_> = (0..6).map(|_| pull(&mut buffer)).collect();
        assert_eq!(
            played,
            [
                expected_packet(0),
                fec(2),
                expected_packet(2),
                Pull::Conceal(960),
                fec(5),
                expected_packet(5)
            ]
        );
        assert_eq!((buffer.received(), buffer.lost()), (3, 3));
    }

    #[test]
    fn samples_concealed_before_a_loss_is_known_count_towards_it() {
        let mut buffer = buffer_with(&[0]);
        assert_eq!(pull(&mut buffer), expected_packet(0));
        assert_eq!(pull(&mut buffer), Pull::Empty);
        buffer.push(&nth_packet(2, 1045));
        let next = vec![2; 3].into();
        assert_eq!(pull(&mut buffer), Pull::Fec { next, samples: 480 });
        assert_eq!(pull(&mut buffer), expected_packet(2));
        assert_eq!((pull(&mut buffer), pull(&mut buffer)), (Pull::Empty, Pull::Empty));
        buffer.push(&nth_packet(4, 1085));
        assert_eq!(pull(&mut buffer), expected_packet(4), "the whole loss is already concealed");
    }

    #[test]
    fn a_late_packet_is_played_and_raises_the_target_delay_for_some_time() {
        let mut buffer = AudioJitterBuffer::new();
        for n in 0..200 {
            buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20));
            assert_eq!(pull(&mut buffer), expected_packet(n as u8));
        }
        assert_eq!(buffer.target_delay(), AudioJitterBuffer::MIN_TARGET_DELAY);
        assert_eq!(pull(&mut buffer), Pull::Empty);
        buffer.push(&nth_packet(200, 1000 + 200 * 20 + 80));
        assert_eq!(buffer.target_delay(), Duration::from_millis(90), "80 ms and a block");
        assert_eq!(pull(&mut buffer), expected_packet(200));
        (0..200).for_each(|_| buffer.decay_late_peak());
        assert_eq!(buffer.target_delay(), Duration::from_millis(70), "two seconds later");
        (0..2000).for_each(|_| buffer.decay_late_peak());
        assert!(buffer.late_peak.is_zero());
    }

    #[test]
    fn jitter_raises_the_target_delay_within_its_bounds() {
        for (jitter_ms, bounds) in [(0, 20..=20), (60, 60..=75), (1000, 200..=200)] {
            let mut buffer = AudioJitterBuffer::new();
            for n in 0..500_u16 {
                let late = u64::from(n) * 7919 % (jitter_ms + 1);
                buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20 + late));
                buffer.pull();
            }
            let target = buffer.target_delay().as_millis();
            assert!(bounds.contains(&target), "{jitter_ms}: {target}");
        }
    }

    #[test]
    fn playout_starts_when_the_first_packet_was_held_for_the_target_delay() {
        let buffer = buffer_with(&[0]);
        assert!(!buffer.is_ready(at(1019)));
        assert!(buffer.is_ready(at(1020)));
        assert!(!AudioJitterBuffer::new().is_ready(at(9999)));
    }

    #[test]
    fn after_a_stalled_network_old_audio_is_skipped() {
        let mut buffer = AudioJitterBuffer::new();
        buffer.push(&nth_packet(0, 1000));
        assert_eq!(pull(&mut buffer), expected_packet(0));
        // The network delivers nothing for a second, then all packets at once.
        (1..=50).for_each(|n| buffer.push(&nth_packet(n, 2000)));
        buffer.catch_up(at(2000));
        let Pull::Packet(next) = pull(&mut buffer) else { panic!("no packet") };
        assert!((15..=35).contains(&next[0]), "{}", next[0]);
        assert_eq!(buffer.lost(), 0);
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_packets() {
        let mut buffer = AudioJitterBuffer::new();
        (0..300).for_each(|n| buffer.push(&nth_packet(n, 1000 + u64::from(n) * 20)));
        assert_eq!(buffer.held.len(), AudioJitterBuffer::MAX_PACKETS);
        assert_eq!(
            pull(&mut buffer),
            expected_packet((300 - AudioJitterBuffer::MAX_PACKETS) as u8)
        );
    }

    #[test]
    fn a_jump_of_the_timestamps_is_followed_without_concealment() {
        let mut buffer = buffer_with(&[0]);
        assert_eq!(pull(&mut buffer), expected_packet(0));
        buffer.push(&packet(0, 5_000_000, false, vec![9], at(1020)));
        buffer.push(&packet(2, 6_000_000, false, vec![8], at(1060)));
        assert_eq!(pull(&mut buffer), Pull::Packet(vec![9].into()));
        assert_eq!(pull(&mut buffer), Pull::Packet(vec![8].into()));
    }

    /// A padding packet between the `n`th packet and the next, with the timestamp of the `n`th.
    fn padding_after(n: u16, sequence: u16, arrival: u64) -> RtpPacket {
        RtpPacket { sequence, payload: Bytes::new(), ..nth_packet(n, arrival) }
    }

    #[test]
    fn padding_counts_as_received_and_is_neither_audio_nor_a_loss() {
        let sent = |n: u16, stamp: u32, arrival| {
            packet(n, stamp * 960, false, vec![n as u8; 3], at(arrival))
        };
        let padding = |n: u16, arrival| packet(n, 960, false, vec![], at(arrival));
        let mut buffer = AudioJitterBuffer::new();
        buffer.push(&padding(0, 1000));
        buffer.push(&sent(1, 1, 1000));
        // The sender pauses and only sends probes: sequence numbers and time go on.
        [4, 2, 3].into_iter().for_each(|n| buffer.push(&padding(n, 1500)));
        buffer.push(&sent(5, 30, 1580));
        assert_eq!(pull(&mut buffer), expected_packet(1));
        assert_eq!(pull(&mut buffer), expected_packet(5), "nothing is concealed");
        assert_eq!(
            buffer.target_delay(),
            AudioJitterBuffer::MIN_TARGET_DELAY,
            "padding does not affect the delay"
        );
        assert_eq!((buffer.received(), buffer.lost()), (6, 0));
        assert!(buffer.padding.is_empty());
        // Packet 7 is lost.
        buffer.push(&padding(6, 1600));
        buffer.push(&sent(8, 32, 1620));
        let next = vec![8; 3].into();
        assert_eq!(pull(&mut buffer), Pull::Fec { next, samples: 960 });
        assert_eq!((buffer.received(), buffer.lost()), (8, 1));
    }

    #[test]
    fn padding_alone_does_not_start_playout_and_is_kept_within_a_bound() {
        let mut buffer = AudioJitterBuffer::new();
        (0..1000).for_each(|n| buffer.push(&padding_after(0, n, 1000)));
        assert!(buffer.is_empty() && !buffer.is_ready(at(9000)));
        assert_eq!((pull(&mut buffer), buffer.received()), (Pull::Empty, 1000));
        assert!(buffer.padding.len() <= AudioJitterBuffer::MAX_PACKETS);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_packets_exceed_the_bounds_or_cause_endless_concealment(
            packets in prop::collection::vec(
                (any::<u16>(), any::<u32>(), 0..20_000_usize, 0..40_u64), 1..600),
            near in any::<bool>(),
        ) {
            let mut buffer = AudioJitterBuffer::new();
            let mut now = 1000;
            for (n, (sequence, stamp, bytes, pause)) in packets.into_iter().enumerate() {
                now += pause;
                let (sequence, stamp) = match near {
                    true => (sequence % 40 + n as u16, (n as u32 * 960).wrapping_add(stamp % 2000)),
                    false => (sequence, stamp),
                };
                buffer.push(&packet(sequence, stamp, false, vec![0; bytes], at(now)));
                prop_assert!(buffer.held.len() <= AudioJitterBuffer::MAX_PACKETS);
                prop_assert!(buffer.held.values().all(
                    |held| held.payload.len() <= AudioJitterBuffer::MAX_PACKET_BYTES));
                prop_assert!((AudioJitterBuffer::MIN_TARGET_DELAY..=AudioJitterBuffer::MAX_TARGET_DELAY)
                    .contains(&buffer.target_delay()));
                buffer.is_ready(at(now));
                buffer.catch_up(at(now));
                buffer.excess_delay(at(now), 480);
                if n % 3 == 0 {
                    let pulled = pull(&mut buffer);
                    let fits = match pulled {
                        Pull::Fec { samples, .. } | Pull::Conceal(samples) => {
                            (1..=960).contains(&samples)
                        }
                        Pull::Packet(_) | Pull::Empty => true,
                    };
                    prop_assert!(fits);
                }
            }
            let per_packet = 1 + AudioJitterBuffer::MAX_GAP as usize / 960 + 1;
            let max_pulls = 2 + AudioJitterBuffer::MAX_PACKETS * per_packet;
            let mut pulls = 0;
            while pull(&mut buffer) != Pull::Empty {
                pulls += 1;
                prop_assert!(pulls <= max_pulls);
            }
        }
    }
}
