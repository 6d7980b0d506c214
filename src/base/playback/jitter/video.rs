//! The jitter buffer of video: puts packets in order and gives up gaps that stay open too long.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::Unwrapper;
use crate::{media::RtpPacket, model::MediaTime};

/// The packets of one video stream in order. Holds at most [`VideoJitterBuffer::MAX_PACKETS`]
/// packets and [`VideoJitterBuffer::MAX_BYTES`] bytes.
///
/// Packets without a payload are padding, which senders use to probe for bandwidth (RFC 3550,
/// section 5.1). Their sequence numbers count as received, and they are not returned.
#[derive(Debug)]
pub(crate) struct VideoJitterBuffer {
    numbers: Unwrapper,
    held: BTreeMap<i64, Held>,
    bytes: usize,
    /// The next sequence number to return; `None` before the first packet.
    next: Option<i64>,
    /// Whether packets were given up and [`JitterOutput::Gap`] was not returned yet.
    is_gap_pending: bool,
    /// Consecutive packets that were older than `next`.
    late_packets: u32,
    /// The timestamp of the last returned packet if that packet ended its access unit.
    ended_timestamp: Option<u32>,
    /// How long to wait for missing packets.
    timeout: Duration,
    /// When the last returned packet arrived.
    last_arrival: Option<MediaTime>,
    loss: LossShare,
    /// The highest number that arrived.
    highest: Option<i64>,
}

/// How much later than after a round trip a requested packet may arrive.
const MARGIN: Duration = Duration::from_millis(40);

/// The share of packets that did not arrive in order, of about 250, or of those since the begin.
#[derive(Debug, Default)]
struct LossShare {
    missing: f32,
    all: f32,
}

impl LossShare {
    /// The weight of a new packet.
    const WEIGHT: f32 = 1.0 / 256.0;

    /// The weight of the fewest packets of which there is a share: 30.
    const LEAST: f32 = 30.0 * Self::WEIGHT;

    /// Notes that so many packets are missing before one that arrived.
    fn record(&mut self, missing: u16) {
        let kept = (1.0 - Self::WEIGHT).powi(i32::from(missing) + 1);
        self.missing = self.missing * kept + f32::from(missing) * Self::WEIGHT;
        self.all = self.all * kept + (f32::from(missing) + 1.0) * Self::WEIGHT;
    }

    /// How many requests there should be time for.
    fn requests(&self) -> u32 {
        let share = self.missing / self.all.max(Self::LEAST);
        if share < 0.02 {
            2
        } else if share < 0.1 {
            3
        } else if share < 0.22 {
            4
        } else {
            5
        }
    }
}

#[derive(Debug)]
struct Held {
    packet: RtpPacket,
    /// Whether a keyframe starts with this packet.
    starts_keyframe: bool,
}

impl Held {
    fn is_padding(&self) -> bool {
        self.packet.payload.is_empty()
    }
}

/// The next output of the buffer.
#[derive(Debug)]
pub(crate) enum JitterOutput {
    /// The packet that follows the previous one without a gap.
    Packet(RtpPacket),
    /// Packets are missing between the previous packet and the next one.
    Gap {
        /// Whether the next packet starts a keyframe.
        to_keyframe: bool,
    },
}

impl VideoJitterBuffer {
    /// The most packets held: a second of 8 Mbit/s in packets of 1000 bytes.
    pub(crate) const MAX_PACKETS: usize = 1024;

    /// The most payload bytes held.
    pub(crate) const MAX_BYTES: usize = 4 << 20;

    /// The shortest and the longest wait for missing packets before they are given up. A longer one
    /// would be a freeze that a keyframe ends sooner.
    pub(crate) const GAP_TIMEOUT: RangeInclusive<Duration> =
        Duration::from_millis(120)..=Duration::from_millis(750);

    /// After a longer pause of the stream, what is missing is too old to be sent again.
    const MAX_PAUSE: Duration = Duration::from_millis(800);

    /// The packets that may have come before the first one that arrived.
    const UNKNOWN_BEGIN: i64 = 3;

    /// This many consecutive late packets mean that the sender has restarted.
    const MAX_LATE_PACKETS: u32 = 64;

    pub(crate) const fn new() -> Self {
        Self {
            numbers: Unwrapper::of_16_bits(),
            held: BTreeMap::new(),
            bytes: 0,
            next: None,
            is_gap_pending: false,
            late_packets: 0,
            ended_timestamp: None,
            timeout: *Self::GAP_TIMEOUT.start(),
            last_arrival: None,
            loss: LossShare { missing: 0.0, all: 0.0 },
            highest: None,
        }
    }

    /// Sets how long to wait for missing packets, from the round trip time of the connection.
    ///
    /// A lost packet is requested at once and arrives one round trip later. If that is lost too, the
    /// next request follows 1.25 round trips after the first. There is time for two requests, and
    /// with more losses for three to five, as far as that takes no longer than
    /// [`Self::GAP_TIMEOUT`], and for one in any case.
    pub(crate) fn set_round_trip(&mut self, round_trip: Option<Duration>) {
        let round_trip = round_trip.unwrap_or_default();
        let wait = |requests: u32| round_trip + (requests - 1) * round_trip * 5 / 4 + MARGIN;
        let longest = *Self::GAP_TIMEOUT.end();
        let requests = (2..=self.loss.requests()).rev().find(|count| wait(*count) <= longest);
        self.timeout = wait(requests.unwrap_or(1)).max(*Self::GAP_TIMEOUT.start());
    }

    /// Notes that the stream began before the packet with that number, if it is the first that arrives:
    /// what came before it may be sent again.
    pub(crate) fn on_late_start(&mut self, sequence: u16) {
        if self.next.is_none() {
            self.next = Some(self.numbers.unwrap(u32::from(sequence)) - Self::UNKNOWN_BEGIN);
        }
    }

    /// Adds a packet. Duplicates and packets that were given up are dropped. When the buffer is
    /// full, the oldest packets are given up.
    pub(crate) fn push(&mut self, packet: RtpPacket, starts_key: bool) {
        let number = self.numbers.unwrap(u32::from(packet.sequence));
        let next = *self.next.get_or_insert(number);
        let newest = self.held.last_key_value().map_or(next, |(newest, _)| *newest);
        if number < next {
            self.late_packets += 1;
            if self.late_packets < Self::MAX_LATE_PACKETS {
                return;
            }
            self.restart(number);
        } else if number - newest > Self::MAX_PACKETS as i64 {
            self.restart(number);
        }
        self.late_packets = 0;
        let highest = *self.highest.get_or_insert(number);
        if let Ok(missing @ 0..1000) = u16::try_from(number - highest - 1) {
            self.loss.record(missing);
        }
        self.highest = Some(highest.max(number));
        let bytes = packet.payload.len();
        if let std::collections::btree_map::Entry::Vacant(entry) = self.held.entry(number) {
            entry.insert(Held { packet, starts_keyframe: starts_key });
            self.bytes += bytes;
        }
        while self.held.len() > Self::MAX_PACKETS || self.bytes > Self::MAX_BYTES {
            let Some((oldest, held)) = self.held.pop_first() else { break };
            self.bytes -= held.packet.payload.len();
            self.next = Some(oldest + 1);
            self.is_gap_pending = true;
            self.ended_timestamp = None;
        }
    }

    /// The next output, if it is available at `now`.
    pub(crate) fn poll(&mut self, now: MediaTime) -> Option<JitterOutput> {
        self.skip_padding();
        let (&first, held) = self.held.first_key_value()?;
        let has_gap = self.next != Some(first);
        if has_gap {
            let is_waiting = now < self.gap_deadline(held.packet.arrival);
            let key =
                self.held.iter().find(|(_, held)| held.starts_keyframe).map(|(number, _)| *number);
            match key {
                // With a keyframe in the buffer, packets before it are not needed.
                Some(key) => self.skip_to(key),
                None if is_waiting && !self.is_gap_pending => return None,
                None => self.skip_to(first),
            }
            self.skip_padding();
        }
        if std::mem::take(&mut self.is_gap_pending) {
            let to_key = self.held.first_key_value().is_some_and(|(_, held)| held.starts_keyframe);
            return Some(JitterOutput::Gap { to_keyframe: to_key });
        }
        let (number, held) = self.held.pop_first()?;
        self.bytes -= held.packet.payload.len();
        self.next = Some(number + 1);
        self.last_arrival = Some(held.packet.arrival);
        self.ended_timestamp = held.packet.marker.then_some(held.packet.timestamp);
        Some(JitterOutput::Packet(held.packet))
    }

    /// When [`Self::poll`] gives up the current gap.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        let (first, held) = self.held.first_key_value()?;
        (self.next != Some(*first)).then(|| self.gap_deadline(held.packet.arrival))
    }

    /// When the gap before a packet is given up that arrived at `arrival`.
    fn gap_deadline(&self, arrival: MediaTime) -> MediaTime {
        let paused = self.last_arrival.is_some_and(|last| arrival.since(last) > Self::MAX_PAUSE);
        if paused { arrival } else { arrival + self.timeout }
    }

    /// Removes padding at the head of the buffer.
    ///
    /// A gap before padding does not matter if the padding has the timestamp of an access unit that
    /// has ended: the missing packets have the same timestamp, so they were padding, too.
    fn skip_padding(&mut self) {
        while let Some(first) = self.held.first_entry() {
            let (number, held) = (*first.key(), first.get());
            let follows = self.is_gap_pending
                || self.next == Some(number)
                || self.ended_timestamp == Some(held.packet.timestamp);
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
        self.is_gap_pending = true;
        self.ended_timestamp = None;
    }

    fn restart(&mut self, number: i64) {
        self.held.clear();
        self.bytes = 0;
        self.numbers.restart(number);
        self.highest = None;
        self.next = Some(number);
        self.is_gap_pending = true;
        self.ended_timestamp = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::playback::testing::{at, packet};

    fn poll_all(buffer: &mut VideoJitterBuffer, now: MediaTime) -> Vec<Option<u16>> {
        std::iter::from_fn(|| buffer.poll(now))
            .map(|step| match step {
                JitterOutput::Packet(packet) => Some(packet.sequence),
                JitterOutput::Gap { .. } => None,
            })
            .collect()
    }

    fn push(buffer: &mut VideoJitterBuffer, sequences: &[u16], now: MediaTime) {
        for sequence in sequences {
            buffer.push(packet(*sequence, 0, false, vec![1; 100], now), false);
        }
    }

    #[test]
    fn reordered_and_duplicate_packets_are_returned_once_and_in_order_across_the_wrap() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[65_534, 0, 0, 65_535, 65_534, 2, 1], at(0));
        assert_eq!(poll_all(&mut buffer, at(0)), [65_534, 65_535, 0, 1, 2].map(Some));
        push(&mut buffer, &[1, 65_535], at(1));
        assert_eq!(poll_all(&mut buffer, at(1)), []);
        assert_eq!((buffer.held.len(), buffer.bytes), (0, 0));
    }

    #[test]
    fn a_gap_is_given_up_and_reported_after_the_timeout() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[7], at(0));
        assert_eq!(poll_all(&mut buffer, at(0)), [Some(7)]);
        push(&mut buffer, &[9, 10], at(20));
        assert_eq!(poll_all(&mut buffer, at(139)), []);
        assert_eq!(buffer.deadline(), Some(at(140)));
        assert_eq!(poll_all(&mut buffer, at(140)), [None, Some(9), Some(10)]);
        push(&mut buffer, &[8], at(141));
        assert_eq!(poll_all(&mut buffer, at(141)), [], "too late");
        assert_eq!(buffer.deadline(), None);
    }

    #[test]
    fn the_timeout_leaves_time_for_as_many_requests_as_losses_make_likely() {
        let timeout = |lost_of_100: u16, round_trip_ms: u64| {
            let mut buffer = VideoJitterBuffer::new();
            for number in (0..1000_u16).filter(|number| number % 100 >= lost_of_100) {
                push(&mut buffer, &[number], at(0));
            }
            buffer.set_round_trip(Some(Duration::from_millis(round_trip_ms)));
            buffer.timeout.as_millis()
        };
        assert_eq!([timeout(0, 10), timeout(0, 40), timeout(0, 100)], [120, 130, 265]);
        assert_eq!([timeout(5, 100), timeout(20, 80), timeout(20, 100)], [390, 420, 515]);
        assert_eq!([timeout(5, 300), timeout(0, 1000)], [715, 1040]);
        let mut buffer = VideoJitterBuffer::new();
        buffer.set_round_trip(None);
        assert_eq!(buffer.timeout.as_millis(), 120);
    }

    #[test]
    fn many_losses_are_known_after_a_keyframe() {
        let mut buffer = VideoJitterBuffer::new();
        (0..40_u16).filter(|number| number % 10 >= 3).for_each(|n| push(&mut buffer, &[n], at(0)));
        buffer.set_round_trip(Some(Duration::from_millis(100)));
        assert_eq!(buffer.timeout.as_millis(), 640, "five requests");
    }

    #[test]
    fn after_a_pause_of_the_stream_missing_packets_are_given_up_at_once() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[7], at(0));
        assert_eq!(poll_all(&mut buffer, at(0)), [Some(7)]);
        push(&mut buffer, &[90], at(801));
        assert_eq!(poll_all(&mut buffer, at(801)), [None, Some(90)]);
    }

    #[test]
    fn a_gap_that_is_filled_before_the_timeout_is_not_reported() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[7, 9], at(0));
        assert_eq!(poll_all(&mut buffer, at(0)), [Some(7)]);
        push(&mut buffer, &[8], at(119));
        assert_eq!(poll_all(&mut buffer, at(200)), [Some(8), Some(9)]);
    }

    #[test]
    fn a_keyframe_after_a_gap_is_returned_at_once() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[1, 3, 4], at(0));
        buffer.push(packet(6, 0, false, vec![1], at(0)), true);
        let steps: Vec<_> = std::iter::from_fn(|| buffer.poll(at(0))).collect();
        assert!(matches!(
            &steps[..],
            [
                JitterOutput::Packet(RtpPacket { sequence: 1, .. }),
                JitterOutput::Gap { to_keyframe: true },
                JitterOutput::Packet(RtpPacket { sequence: 6, .. }),
            ]
        ));
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn a_sender_restart_is_followed_forwards_and_backwards() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[100], at(0));
        assert_eq!(poll_all(&mut buffer, at(0)), [Some(100)]);
        push(&mut buffer, &[20_000], at(1));
        assert_eq!(poll_all(&mut buffer, at(1)), [None, Some(20_000)]);
        let behind: Vec<_> = (500..570).collect();
        push(&mut buffer, &behind, at(2));
        let seen = poll_all(&mut buffer, at(2));
        assert_eq!((seen[0], seen[1], seen.last()), (None, Some(563), Some(&Some(569))));
    }

    #[test]
    fn a_full_buffer_drops_the_oldest_packets_after_a_gap() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[0], at(0));
        let behind: Vec<_> = (2..1100).collect();
        push(&mut buffer, &behind, at(0));
        assert_eq!(buffer.held.len(), VideoJitterBuffer::MAX_PACKETS);
        let seen = poll_all(&mut buffer, at(0));
        assert_eq!((seen.len(), seen[0], seen[1]), (1025, None, Some(76)));
    }

    /// The packets of two access units with padding between them: sequence number, timestamp, and
    /// `f` for the first packet, `l` for the last, `p` for padding, which is sent after the last.
    const PROBED_STREAM: [(u16, u32, char); 7] = [
        (1, 90, 'f'),
        (2, 90, 'l'),
        (3, 90, 'p'),
        (4, 90, 'p'),
        (5, 90, 'p'),
        (6, 180, 'f'),
        (7, 180, 'l'),
    ];

    fn probe_packet((sequence, stamp, which): (u16, u32, char), now: MediaTime) -> RtpPacket {
        let payload = if which == 'p' { vec![] } else { vec![1; 100] };
        packet(sequence, stamp, which == 'l', payload, now)
    }

    #[test]
    fn padding_leaves_no_gap_and_is_not_returned() {
        let media = [1, 2, 6, 7].map(Some);
        for order in [[0, 1, 2, 3, 4, 5, 6], [0, 1, 5, 6, 4, 3, 2], [0, 1, 4, 2, 6, 5, 3]] {
            let mut buffer = VideoJitterBuffer::new();
            for n in order {
                buffer.push(probe_packet(PROBED_STREAM[n], at(0)), false);
            }
            assert_eq!(poll_all(&mut buffer, at(0)), media, "{order:?}");
            assert_eq!((buffer.held.len(), buffer.deadline()), (0, None));
        }
    }

    #[test]
    fn padding_at_the_start_within_and_at_the_end_of_a_stream_is_not_a_gap() {
        let mut buffer = VideoJitterBuffer::new();
        let packets = [(0, 45, 'p'), (1, 90, 'f'), (2, 90, 'p'), (3, 90, 'l'), (4, 90, 'p')];
        for (n, sent) in packets.into_iter().enumerate() {
            buffer.push(probe_packet(sent, at(n as u64)), false);
        }
        assert_eq!(poll_all(&mut buffer, at(5)), [1, 3].map(Some));
        push(&mut buffer, &[5], at(6));
        assert_eq!(poll_all(&mut buffer, at(6)), [Some(5)]);
    }

    #[test]
    fn only_a_gap_that_may_contain_media_is_waited_for() {
        let mut buffer = VideoJitterBuffer::new();
        for n in [0, 1, 4, 5, 6] {
            buffer.push(probe_packet(PROBED_STREAM[n], at(0)), false);
        }
        assert_eq!(poll_all(&mut buffer, at(0)), [1, 2, 6, 7].map(Some), "3 and 4 were padding");
        // The missing packets may be media or padding.
        let mut buffer = VideoJitterBuffer::new();
        for n in [0, 1, 2, 5, 6] {
            buffer.push(probe_packet(PROBED_STREAM[n], at(0)), false);
        }
        assert_eq!(poll_all(&mut buffer, at(119)), [1, 2].map(Some));
        assert_eq!(poll_all(&mut buffer, at(120)), [None, Some(6), Some(7)]);
        // A packet that is missing within an access unit belongs to it.
        let mut buffer = VideoJitterBuffer::new();
        for sent in [(1, 90, 'f'), (3, 90, 'p'), (4, 90, 'l')] {
            buffer.push(probe_packet(sent, at(0)), false);
        }
        assert_eq!(poll_all(&mut buffer, at(119)), [Some(1)]);
        assert_eq!(poll_all(&mut buffer, at(120)), [None, Some(4)]);
    }

    #[test]
    fn a_gap_before_padding_is_given_up_at_the_next_keyframe() {
        let mut buffer = VideoJitterBuffer::new();
        push(&mut buffer, &[1], at(0));
        buffer.push(packet(3, 0, false, vec![], at(0)), false);
        buffer.push(packet(4, 0, false, vec![], at(0)), false);
        assert_eq!(poll_all(&mut buffer, at(119)), [Some(1)]);
        buffer.push(packet(5, 90, false, vec![1], at(119)), true);
        let steps: Vec<_> = std::iter::from_fn(|| buffer.poll(at(119))).collect();
        assert!(matches!(
            &steps[..],
            [
                JitterOutput::Gap { to_keyframe: true },
                JitterOutput::Packet(RtpPacket { sequence: 5, .. })
            ]
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_packets_exceed_the_bounds(
            packets in prop::collection::vec((any::<u16>(), 0..70_000_usize, any::<bool>()), 1..400),
            near in any::<bool>(),
        ) {
            let mut buffer = VideoJitterBuffer::new();
            let zeros = vec![0; 70_000];
            let (mut last, mut padding) = (None, std::collections::BTreeSet::new());
            for (n, (sequence, bytes, key)) in packets.into_iter().enumerate() {
                let sequence = if near { sequence / 64 * 2 } else { sequence };
                // A tenth of the packets is padding.
                let bytes = if bytes < 7000 { 0 } else { bytes };
                if bytes == 0 {
                    padding.insert(sequence);
                }
                let payload = bytes::Bytes::copy_from_slice(&zeros[..bytes]);
                buffer.push(packet(sequence, 0, false, payload, at(n as u64)), key && n % 50 == 0);
                prop_assert!(buffer.held.len() <= VideoJitterBuffer::MAX_PACKETS);
                prop_assert!(buffer.bytes <= VideoJitterBuffer::MAX_BYTES);
                let held: usize = buffer.held.values().map(|held| held.packet.payload.len()).sum();
                prop_assert_eq!(held, buffer.bytes);
                if n % 3 == 0 {
                    while let Some(step) = buffer.poll(at(n as u64)) {
                        match step {
                            JitterOutput::Gap { .. } => last = None,
                            JitterOutput::Packet(packet) => {
                                prop_assert!(!packet.payload.is_empty());
                                let mut after = last.map(|last: u16| last.wrapping_add(1));
                                // Padding is skipped.
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
