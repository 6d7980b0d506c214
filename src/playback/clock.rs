//! When a received frame is to be shown: pure arithmetic on timestamps and arrivals.

use std::time::Duration;

use super::jitter::Unwrapper;
use crate::model::MediaTime;

/// Maps the RTP timestamps of one picture stream to the times at which its frames are shown.
///
/// A frame is shown as late as nine of ten frames arrive, measured from the fastest: so most come
/// in time to be shown evenly. Where that is less than [`PlayoutClock::UNSEEN`], each frame is
/// shown as it arrives.
#[derive(Debug)]
pub(crate) struct PlayoutClock {
    arrivals: Arrivals,
    stamps: Unwrapper,
    last: MediaTime,
}

impl PlayoutClock {
    /// Unevenness that nobody sees: a screen shows a frame up to a refresh (17 ms at 60 Hz) late
    /// anyway.
    pub(crate) const UNSEEN: Duration = Duration::from_millis(17);

    /// A frame is held at most this long; beyond it, lateness is better seen than added.
    pub(crate) const MAX_DELAY: Duration = Duration::from_millis(200);

    pub(crate) fn new() -> Self {
        Self {
            arrivals: Arrivals::new(90_000),
            stamps: Unwrapper::of_32_bits(),
            last: MediaTime::default(),
        }
    }

    /// When the frame with that timestamp, complete at `arrival`, is to be shown: not before
    /// `arrival`, at most [`Self::MAX_DELAY`] after it, and not before the frame shown before it.
    pub(crate) fn due(&mut self, timestamp: u32, arrival: MediaTime) -> MediaTime {
        let stamp = self.stamps.unwrap(timestamp);
        self.arrivals.note(stamp, arrival);
        let target = self.arrivals.lateness(0.9).min(Self::MAX_DELAY);
        let even = match self.arrivals.earliest(stamp) {
            Some(earliest) if target > Self::UNSEEN => earliest + target,
            _ => arrival,
        };
        let latest = arrival + Self::MAX_DELAY;
        self.last = even.clamp(arrival, latest).max(self.last).min(latest);
        self.last
    }
}

/// How late the packets of one stream arrive, against the fastest of the last ten seconds.
///
/// Comparing with the fastest needs no common clock, and follows a drift between the two.
#[derive(Debug)]
pub(crate) struct Arrivals {
    rate: i64,
    /// The least offset (arrival minus timestamp, µs) of the half window before, and of this one.
    fastest: [Option<i64>; 2],
    turned: MediaTime,
    /// Weight of each millisecond of lateness; older packets weigh less.
    weights: Vec<f32>,
    total: f32,
}

impl Arrivals {
    /// Half of the window in which the fastest packet is sought. Ten seconds in all: a drift of
    /// 100 ppm moves the base by a millisecond in it.
    const HALF_WINDOW: Duration = Duration::from_secs(5);

    /// Lateness is told apart up to this, in milliseconds.
    const BINS: usize = 256;

    /// What a packet's weight becomes with each later one: some 200 packets are remembered, 4 s
    /// of sound.
    const MEMORY: f32 = 0.995;

    /// A jump of timestamps against arrivals beyond this is a sender that started anew.
    const MAX_JUMP: i64 = 5_000_000;

    /// For timestamps that count `rate` a second.
    pub(crate) fn new(rate: u32) -> Self {
        Self {
            rate: i64::from(rate),
            fastest: [None; 2],
            turned: MediaTime::default(),
            weights: vec![0.0; Self::BINS],
            total: 0.0,
        }
    }

    /// Notes a packet; returns how late it was.
    pub(crate) fn note(&mut self, stamp: i64, arrival: MediaTime) -> Duration {
        let offset = arrival.as_micros() as i64 - self.micros(stamp);
        if self.base().is_some_and(|base| (offset - base).abs() > Self::MAX_JUMP) {
            *self = Self::new(self.rate as u32);
        }
        if self.base().is_none() {
            self.turned = arrival;
        }
        if arrival.since(self.turned) >= Self::HALF_WINDOW {
            self.fastest = [self.fastest[1], None];
            self.turned = arrival;
        }
        self.fastest[1] = Some(self.fastest[1].map_or(offset, |fastest| fastest.min(offset)));
        let late = offset - self.base().unwrap_or(offset);
        self.weigh((late / 1000) as usize);
        Duration::from_micros(late as u64)
    }

    /// The lateness that this share of the packets (0 to 1) stays below.
    pub(crate) fn lateness(&self, share: f32) -> Duration {
        let mut sum = 0.0;
        let bin = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= self.total * share && *weight > 0.0
        });
        Duration::from_millis(bin.map_or(0, |bin| bin as u64 + 1))
    }

    /// When a packet with that timestamp would have arrived, had it been as fast as the fastest.
    pub(crate) fn earliest(&self, stamp: i64) -> Option<MediaTime> {
        let micros = self.micros(stamp) + self.base()?;
        Some(MediaTime::from_micros(micros.max(0) as u64))
    }

    fn base(&self) -> Option<i64> {
        self.fastest.into_iter().flatten().min()
    }

    fn micros(&self, stamp: i64) -> i64 {
        // Whole seconds apart, so that no timestamp overflows.
        stamp / self.rate * 1_000_000 + stamp % self.rate * 1_000_000 / self.rate
    }

    fn weigh(&mut self, late_ms: usize) {
        self.weights.iter_mut().for_each(|weight| *weight *= Self::MEMORY);
        self.weights[late_ms.min(Self::BINS - 1)] += 1.0;
        self.total = self.total * Self::MEMORY + 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    #[test]
    fn frames_that_arrive_evenly_are_shown_as_they_arrive() {
        let mut clock = PlayoutClock::new();
        for n in 0..500_u64 {
            let arrival = at(1000 + n * 33 + n % 7);
            assert_eq!(clock.due((n * 2970) as u32, arrival), arrival);
        }
    }

    #[test]
    fn frames_that_arrive_unevenly_are_shown_evenly() {
        let mut clock = PlayoutClock::new();
        let due: Vec<_> = (0..500_u64)
            .map(|n| clock.due((n * 3600) as u32, at(1000 + n * 40 + n * 37 % 60)))
            .collect();
        let gaps: Vec<_> =
            due[400..].windows(2).map(|pair| pair[1].since(pair[0]).as_millis()).collect();
        let even = gaps.iter().filter(|gap| (35..=45).contains(*gap)).count();
        assert!(even * 10 >= gaps.len() * 7, "{gaps:?}");
        let held = due[499].since(at(1000 + 499 * 40));
        assert!(held >= Duration::from_millis(40) && held <= Duration::from_millis(62), "{held:?}");
    }

    #[test]
    fn no_timestamp_and_no_delay_holds_a_frame_beyond_the_bound_or_turns_the_order() {
        let mut clock = PlayoutClock::new();
        let mut last = MediaTime::default();
        for n in 0..20_000_u64 {
            let stamp = (n * n * 2_654_435_761 % 4_294_967_291) as u32;
            let arrival = at(n * 5 + n * 7919 % 500 / (n % 3 + 1));
            let due = clock.due(stamp, arrival);
            assert!(due >= arrival && due.since(arrival) <= PlayoutClock::MAX_DELAY);
            if arrival >= last {
                last = due;
            }
        }
    }

    #[test]
    fn the_wrap_of_the_timestamp_is_not_seen() {
        let mut clock = PlayoutClock::new();
        for n in 0..300_u32 {
            let arrival = at(1000 + u64::from(n) * 40);
            assert_eq!(clock.due((u32::MAX - 360_000).wrapping_add(n * 3600), arrival), arrival);
        }
    }

    #[test]
    fn a_drift_between_the_clocks_does_not_add_up() {
        let mut arrivals = Arrivals::new(48_000);
        for n in 0..60_000_i64 {
            // Twenty minutes at 200 ppm: 240 ms apart in the end.
            let arrival = MediaTime::from_micros((n * 20_004) as u64);
            arrivals.note(n * 960, arrival);
        }
        assert!(arrivals.lateness(0.97) <= Duration::from_millis(3));
    }
}
