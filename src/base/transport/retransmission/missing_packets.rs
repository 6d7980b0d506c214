//! The packets of one stream that are missing, and when they are requested.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Requests per missing packet. With three of ten packets lost in each direction, one packet in two
/// hundred is then still missing.
const MAX_REQUESTS: u8 = 5;

/// A packet that is older is not requested: a keyframe takes no longer.
const MAX_AGE: Duration = Duration::from_millis(800);

/// Missing packets that are requested. With more, a keyframe costs less.
const MAX_MISSING: usize = 500;

/// The shortest time between two requests for a packet.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// The round trip time before one is measured.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(100);

/// With a larger share of lost packets each request is sent twice, because it may be lost as well. A
/// request is small: at 5 % this costs less than one packet of video a second, and halves the
/// requests that fail.
const HEAVY_LOSS: f32 = 0.02;

/// The packets that are requested before the first one that arrived, if the stream began with others.
const UNKNOWN_BEGIN: u64 = 3;

/// The time between the two.
const COPY_DELAY: Duration = Duration::from_millis(10);

/// The weight of a new packet in the share of lost packets: about 250 packets count.
const LOSS_WEIGHT: f32 = 1.0 / 256.0;

/// The number of a stream's first packet, so that no earlier packet has a negative number.
const FIRST_LAP: u64 = 1 << 32;

/// The packets of one stream that have not arrived. Holds at most [`MAX_MISSING`].
///
/// A packet is requested as soon as a later one has arrived; where packets overtake each other,
/// once it is later than others were. It is requested again when an answer should have arrived.
#[derive(Debug, Default)]
pub(super) struct MissingPackets {
    /// The highest number, unwrapped, and when it arrived.
    newest: Option<(u64, Instant)>,
    missing: BTreeMap<u64, Missing>,
    reordering: Reordering,
    /// The share of packets that did not arrive in order.
    loss: f32,
    /// The round trip time when packets were last requested.
    round_trip: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Instant,
    /// When it is requested next.
    due: Instant,
    requests: u8,
    /// Whether the last request is to be sent a second time.
    needs_copy: bool,
}

impl MissingPackets {
    /// Notes that the stream began before the packet with that number, which is the first that arrives.
    /// How many packets are missing is unknown, so some are requested; the sender ignores numbers
    /// that it has not used.
    pub(super) fn on_late_start(&mut self, sequence: u16, now: Instant) {
        if self.newest.is_none() {
            let number = FIRST_LAP + u64::from(sequence);
            let missing = Missing { since: now, due: now, requests: 0, needs_copy: false };
            self.missing.extend((number - UNKNOWN_BEGIN..number).map(|number| (number, missing)));
        }
    }

    /// Notes a packet. `is_retransmission` is whether it arrived on an RTX stream. Returns whether it
    /// was missing, or is new: senders also fill probes with packets that have arrived before.
    pub(super) fn on_packet(
        &mut self,
        sequence: u16,
        is_retransmission: bool,
        now: Instant,
    ) -> bool {
        let Some((newest, arrived_at)) = self.newest else {
            self.newest = Some((FIRST_LAP + u64::from(sequence), now));
            return true;
        };
        let ahead = sequence.wrapping_sub(newest as u16).cast_signed();
        let number = newest.wrapping_add_signed(i64::from(ahead));
        if ahead <= 0 {
            return self.on_late_packet(number, is_retransmission, now);
        }
        self.newest = Some((number, now));
        let gap = ahead as usize - 1;
        // After a pause of the network all of them are too late.
        if self.missing.len() + gap > MAX_MISSING || now.duration_since(arrived_at) > MAX_AGE {
            self.missing.clear();
            return true;
        }
        let due = now + self.reordering.delay(now);
        let missing =
            |number| (number, Missing { since: now, due, requests: 0, needs_copy: false });
        self.missing.extend((newest + 1..number).map(missing));
        self.loss *= (1.0 - LOSS_WEIGHT).powi(ahead.into());
        self.loss += gap as f32 * LOSS_WEIGHT;
        true
    }

    fn on_late_packet(&mut self, number: u64, is_retransmission: bool, now: Instant) -> bool {
        let Some(missing) = self.missing.remove(&number) else { return false };
        let age = now.duration_since(missing.since);
        // Without RTX, an answer cannot be told from the lost packet, but it takes a round trip.
        let is_answer =
            is_retransmission || (missing.requests > 0 && age >= self.round_trip * 3 / 4);
        if !is_answer {
            self.reordering.record(age, now);
            self.loss = (self.loss - LOSS_WEIGHT).max(0.0);
        }
        true
    }

    /// The packets to request now, oldest first.
    pub(super) fn take_due(&mut self, round_trip: Option<Duration>, now: Instant) -> Vec<u16> {
        if self.next_timeout().is_none_or(|due| due > now) {
            return vec![];
        }
        self.round_trip = round_trip.unwrap_or(UNKNOWN_ROUND_TRIP);
        let interval = (self.round_trip * 5 / 4).max(MIN_INTERVAL);
        let sends_copies = self.loss > HEAVY_LOSS;
        let mut due = vec![];
        self.missing.retain(|number, missing| {
            if missing.due > now {
                return true;
            }
            if missing.needs_copy {
                missing.needs_copy = false;
                missing.due += interval.saturating_sub(COPY_DELAY);
            } else if missing.requests == MAX_REQUESTS || now - missing.since > MAX_AGE {
                return false;
            } else {
                missing.requests += 1;
                missing.needs_copy = sends_copies;
                missing.due = now + if sends_copies { COPY_DELAY } else { interval };
            }
            due.push(*number as u16);
            true
        });
        due
    }

    /// When [`Self::take_due`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.due).min()
    }
}

/// How late packets are that others have overtaken.
#[derive(Debug, Default)]
struct Reordering {
    /// The longest delay of the current window and of the one before.
    longest: [Duration; 2],
    window_start: Option<Instant>,
}

impl Reordering {
    const WINDOW: Duration = Duration::from_secs(10);

    /// The shortest wait for a packet that may have been overtaken.
    const MIN_DELAY: Duration = Duration::from_millis(10);

    /// The longest: beyond it, asking for some packets too early costs less than asking for all
    /// others late.
    const MAX_DELAY: Duration = Duration::from_millis(50);

    fn record(&mut self, delay: Duration, now: Instant) {
        self.advance(now);
        self.longest[1] = self.longest[1].max(delay);
    }

    /// How long to wait for a packet; zero if none was overtaken lately.
    fn delay(&mut self, now: Instant) -> Duration {
        self.advance(now);
        let longest = self.longest[0].max(self.longest[1]);
        if longest.is_zero() { longest } else { longest.clamp(Self::MIN_DELAY, Self::MAX_DELAY) }
    }

    fn advance(&mut self, now: Instant) {
        let age = now.duration_since(*self.window_start.get_or_insert(now));
        if age >= Self::WINDOW {
            let is_adjacent = age < Self::WINDOW * 2;
            self.longest =
                [if is_adjacent { self.longest[1] } else { Duration::ZERO }, Duration::ZERO];
            self.window_start = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    struct Fixture {
        packets: MissingPackets,
        start: Instant,
    }

    impl Fixture {
        /// A stream whose first packet has the number 65,530.
        fn new() -> Self {
            let (mut packets, start) = (MissingPackets::default(), Instant::now());
            packets.on_packet(65_530, false, start);
            Self { packets, start }
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn arrive(&mut self, sequence: u16, ms: u64) {
            self.packets.on_packet(sequence, false, self.at(ms));
        }

        fn due(&mut self, ms: u64) -> Vec<u16> {
            self.packets.take_due(Some(ROUND_TRIP), self.at(ms))
        }

        /// When packets are requested until then, and how many.
        fn requests(&mut self, until_ms: u64) -> Vec<(u64, usize)> {
            let due = (0..until_ms).map(|ms| (ms, self.due(ms).len()));
            due.filter(|(_, count)| *count > 0).collect()
        }
    }

    #[test]
    fn a_gap_is_requested_at_once_and_again_after_each_round_trip_but_not_for_ever() {
        let mut stream = Fixture::new();
        stream.arrive(65_531, 5);
        assert_eq!(stream.packets.next_timeout(), None);
        stream.arrive(1, 10);
        assert_eq!(stream.due(10), [65_532, 65_533, 65_534, 65_535, 0]);
        stream.arrive(65_533, 20);
        assert_eq!(stream.packets.next_timeout(), Some(stream.at(135)));
        let requests = stream.requests(2000);
        assert_eq!(requests, [(135, 4), (260, 4), (385, 4), (510, 4)]);
        assert_eq!(stream.packets.next_timeout(), None);
    }

    #[test]
    fn packets_before_the_first_one_are_requested_where_the_stream_began_with_others() {
        let (mut packets, now) = (MissingPackets::default(), Instant::now());
        packets.on_late_start(1, now);
        packets.on_packet(1, false, now);
        assert_eq!(packets.take_due(Some(ROUND_TRIP), now), [65_534, 65_535, 0]);
        assert!(packets.on_packet(0, true, now), "the begin");
        packets.on_late_start(2, now);
        packets.on_packet(2, false, now);
        let later = now + ROUND_TRIP * 2;
        assert_eq!(packets.take_due(Some(ROUND_TRIP), later), [65_534, 65_535]);
    }

    #[test]
    fn a_retransmission_ends_the_requests_for_its_packet() {
        let mut stream = Fixture::new();
        stream.arrive(65_533, 0);
        assert_eq!(stream.due(0), [65_531, 65_532]);
        let now = stream.at(100);
        assert!(stream.packets.on_packet(65_531, true, now));
        assert!(!stream.packets.on_packet(65_531, true, now), "it is padding of a probe");
        assert!(!stream.packets.on_packet(65_530, true, now));
        assert_eq!(stream.due(125), [65_532]);
        // It was not overtaken, so the next gap is requested at once.
        stream.arrive(65_535, 130);
        assert_eq!(stream.due(130), [65_534]);
    }

    #[test]
    fn where_packets_overtake_each_other_the_request_waits_as_long_as_they_were_late() {
        let mut stream = Fixture::new();
        stream.arrive(65_532, 0);
        assert_eq!(stream.due(0), [65_531]);
        stream.arrive(65_531, 30);
        stream.arrive(65_534, 40);
        assert_eq!((stream.due(69), stream.due(70)), (vec![], vec![65_533]));
        // Twenty seconds later it is forgotten.
        (65_535..=65_535)
            .chain(0..200)
            .zip(1..)
            .for_each(|(sequence, n)| stream.arrive(sequence, n * 100));
        stream.arrive(202, 20_150);
        stream.arrive(204, 20_300);
        assert_eq!(stream.due(20_300), [200, 201, 203]);
    }

    #[test]
    fn with_heavy_loss_each_request_is_sent_twice() {
        let mut stream = Fixture::new();
        // Each second packet is lost.
        for n in 1..100 {
            stream.arrive(65_530_u16.wrapping_add(n * 2), 0);
        }
        let requests = stream.requests(200);
        let times: Vec<_> = requests.iter().map(|(ms, _)| *ms).collect();
        assert_eq!(times, [0, 10, 125, 135], "{requests:?}");
    }

    #[test]
    fn what_is_too_old_or_too_much_is_not_requested() {
        let mut stream = Fixture::new();
        stream.arrive(65_535, 801);
        assert_eq!(stream.due(5000), [0; 0], "the network was down");
        stream.arrive(400, 810);
        assert_eq!(stream.due(810).len(), 400);
        stream.arrive(502, 820);
        assert_eq!((stream.due(820).len(), stream.packets.missing.len()), (0, 0));
    }

    #[test]
    fn a_short_round_trip_does_not_make_requests_frequent() {
        let mut stream = Fixture::new();
        stream.arrive(65_532, 0);
        let requests = (0..1000).filter(|ms| {
            let now = stream.at(*ms);
            !stream.packets.take_due(Some(Duration::from_millis(1)), now).is_empty()
        });
        assert_eq!(requests.collect::<Vec<_>>(), [0, 20, 40, 60, 80]);
    }
}
