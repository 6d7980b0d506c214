//! The playout time of received frames: pure arithmetic on timestamps and arrival times.

use std::time::Duration;

use super::jitter::Unwrapper;
use crate::model::MediaTime;

/// Maps the RTP timestamps of one video stream to the playout times of its frames.
///
/// The playout delay is at least the 90th percentile of the arrival delay, relative to the fastest
/// frame, so that most frames arrive in time to be shown at even intervals. It rises at once to the
/// delay of later frames if they come again and again, such as those that waited for a packet to be
/// sent again: otherwise the frames behind each would be shown in a burst. Two seconds later it
/// begins to fall. One late frame, such as a keyframe, changes nothing, nor does the start of a
/// stream, when the sender does not know the path yet. Below
/// [`PlayoutClock::IMPERCEPTIBLE_JITTER`] each frame is shown on arrival.
#[derive(Debug)]
pub(crate) struct PlayoutClock {
    delay: ArrivalDelay,
    /// The delay of the latest frames that were late, and when the last of them arrived.
    late: Duration,
    late_at: MediaTime,
    /// The last two times at which frames were late: when each began, and by how much they were.
    delays: [(MediaTime, Duration); 2],
    begun: Option<MediaTime>,
    timestamps: Unwrapper,
    /// When the last frame arrived and when it is shown.
    last_arrival: MediaTime,
    last: MediaTime,
}

impl PlayoutClock {
    /// How long the playout delay stays after a late frame.
    const HOLD: Duration = Duration::from_secs(2);

    /// A frame counts as late if that much less would have been too little.
    const LATE_MARGIN: Duration = Duration::from_millis(10);

    /// The part of the passing time by which the playout delay then falls: 200 ms a second.
    const FALL: u32 = 5;

    /// Late frames within that time are late for one reason.
    const ONE_CAUSE: Duration = Duration::from_millis(200);

    /// Late frames within that time come again and again.
    const AGAIN: Duration = Duration::from_secs(3);

    /// How long a stream starts.
    const START: Duration = Duration::from_secs(2);

    /// Jitter up to this is not visible: a screen shows a frame up to one refresh (17 ms at 60 Hz)
    /// late anyway.
    pub(crate) const IMPERCEPTIBLE_JITTER: Duration = Duration::from_millis(17);

    /// The maximum playout delay: a lost packet is sent again over a path of 150 ms within it. Beyond
    /// it, uneven playout is better than more latency.
    pub(crate) const MAX_DELAY: Duration = Duration::from_millis(400);

    pub(crate) fn new() -> Self {
        Self {
            delay: ArrivalDelay::new(90_000),
            late: Duration::ZERO,
            late_at: MediaTime::default(),
            delays: [(MediaTime::default(), Duration::ZERO); 2],
            begun: None,
            timestamps: Unwrapper::of_32_bits(),
            last_arrival: MediaTime::default(),
            last: MediaTime::default(),
        }
    }

    /// The playout time of the frame with this timestamp, which was complete at `arrival`: not
    /// before `arrival`, at most [`Self::MAX_DELAY`] after it, and not before the previous frame.
    pub(crate) fn due(&mut self, timestamp: u32, arrival: MediaTime) -> MediaTime {
        let stamp = self.timestamps.unwrap(timestamp);
        let late = self.delay.record(stamp, arrival).min(Self::MAX_DELAY);
        self.follow(late, arrival);
        let delay = self.delay.quantile(0.9).min(Self::MAX_DELAY).max(self.late);
        let even = match self.delay.earliest_arrival(stamp) {
            Some(earliest) if delay > Self::IMPERCEPTIBLE_JITTER => earliest + delay,
            _ => arrival,
        };
        let latest = arrival + Self::MAX_DELAY;
        self.last = even.clamp(arrival, latest).max(self.last).min(latest);
        self.last
    }

    /// Follows the delay of late frames up at once, and down slowly.
    fn follow(&mut self, late: Duration, arrival: MediaTime) {
        let falls_from = (self.late_at + Self::HOLD).max(self.last_arrival);
        self.late = self.late.saturating_sub(arrival.since(falls_from) / Self::FALL);
        self.last_arrival = self.last_arrival.max(arrival);
        let starts = arrival.since(*self.begun.get_or_insert(arrival)) < Self::START;
        if starts || late <= Self::IMPERCEPTIBLE_JITTER || late + Self::LATE_MARGIN < self.late {
            return;
        }
        self.late_at = arrival;
        let [_, latest] = &mut self.delays;
        if arrival.since(latest.0) < Self::ONE_CAUSE {
            latest.1 = latest.1.max(late);
        } else {
            self.delays = [*latest, (arrival, late)];
        }
        let [earlier, latest] = self.delays;
        if latest.0.since(earlier.0) <= Self::AGAIN {
            self.late = self.late.max(earlier.1.min(latest.1));
        }
    }
}

/// The arrival delay of the packets of one stream, relative to the fastest of the last ten seconds.
///
/// A relative delay needs no common clock, and follows the drift between the two clocks.
#[derive(Debug)]
pub(crate) struct ArrivalDelay {
    clock_rate: i64,
    /// The minimum offset (arrival minus timestamp, µs) of the previous half window and of the
    /// current one.
    min_offsets: [Option<i64>; 2],
    half_window_start: MediaTime,
    /// A histogram of the delay in milliseconds. Older packets weigh less.
    weights: Vec<f32>,
    /// The factor for a packet's weight with each later packet.
    forget_factor: f32,
    total: f32,
}

impl ArrivalDelay {
    /// Half of the window for the minimum offset. A drift of 100 ppm moves the offset by one
    /// millisecond in the whole window of ten seconds.
    const HALF_WINDOW: Duration = Duration::from_secs(5);

    /// Bins of the histogram, one per millisecond. The last bin includes all longer delays.
    const BINS: usize = 256;

    /// Those of audio, which may be held for longer.
    const AUDIO_BINS: usize = 512;

    /// The usual factor for a frame's weight with each later one. About 200 frames count.
    const FORGET_FACTOR: f32 = 0.995;

    /// That of audio. About 50 packets count, which are a second: what happened earlier is
    /// remembered elsewhere (`jitter/target.rs`).
    const AUDIO_FORGET_FACTOR: f32 = 0.98;

    /// A larger jump of the offset (µs) means that the sender has restarted its timestamps.
    const MAX_JUMP_MICROS: i64 = 5_000_000;

    /// For timestamps with a clock rate of `rate` hertz.
    pub(crate) fn new(rate: u32) -> Self {
        Self::with_memory(rate, Self::FORGET_FACTOR, Self::BINS)
    }

    /// For audio with timestamps at 48 kHz.
    pub(crate) fn of_audio() -> Self {
        Self::with_memory(48_000, Self::AUDIO_FORGET_FACTOR, Self::AUDIO_BINS)
    }

    fn with_memory(rate: u32, forget_factor: f32, bins: usize) -> Self {
        Self {
            clock_rate: i64::from(rate),
            min_offsets: [None; 2],
            half_window_start: MediaTime::default(),
            weights: vec![0.0; bins],
            forget_factor,
            total: 0.0,
        }
    }

    /// Records a packet and returns its delay.
    pub(crate) fn record(&mut self, stamp: i64, arrival: MediaTime) -> Duration {
        let offset = arrival.as_micros() as i64 - self.micros(stamp);
        if self.min_offset().is_some_and(|base| (offset - base).abs() > Self::MAX_JUMP_MICROS) {
            let bins = self.weights.len();
            *self = Self::with_memory(self.clock_rate as u32, self.forget_factor, bins);
        }
        if self.min_offset().is_none() {
            self.half_window_start = arrival;
        }
        if arrival.since(self.half_window_start) >= Self::HALF_WINDOW {
            self.min_offsets = [self.min_offsets[1], None];
            self.half_window_start = arrival;
        }
        self.min_offsets[1] =
            Some(self.min_offsets[1].map_or(offset, |fastest| fastest.min(offset)));
        let delay = offset - self.min_offset().unwrap_or(offset);
        self.add_to_histogram((delay / 1000) as usize);
        Duration::from_micros(delay as u64)
    }

    /// The delay that this share of the packets (0 to 1) does not exceed, rounded up to
    /// milliseconds.
    pub(crate) fn quantile(&self, share: f32) -> Duration {
        let mut sum = 0.0;
        let bin = self.weights.iter().position(|weight| {
            sum += weight;
            sum >= self.total * share && *weight > 0.0
        });
        Duration::from_millis(bin.map_or(0, |bin| bin as u64 + 1))
    }

    /// The arrival time that a packet with this timestamp has if it is as fast as the fastest.
    pub(crate) fn earliest_arrival(&self, stamp: i64) -> Option<MediaTime> {
        let micros = self.micros(stamp) + self.min_offset()?;
        Some(MediaTime::from_micros(micros.max(0) as u64))
    }

    fn min_offset(&self) -> Option<i64> {
        self.min_offsets.into_iter().flatten().min()
    }

    fn micros(&self, stamp: i64) -> i64 {
        // Whole seconds are converted separately, so that no timestamp overflows.
        stamp / self.clock_rate * 1_000_000 + stamp % self.clock_rate * 1_000_000 / self.clock_rate
    }

    fn add_to_histogram(&mut self, delay_ms: usize) {
        let (factor, last) = (self.forget_factor, self.weights.len() - 1);
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
        self.weights[delay_ms.min(last)] += 1.0;
        self.total = self.total * factor + 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    #[test]
    fn frames_that_arrive_evenly_are_shown_on_arrival() {
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

    /// When the frames are shown that are captured each 40 ms, of which those arrive 110 ms late.
    fn shown_with_late(late: &[u64]) -> Vec<MediaTime> {
        let mut clock = PlayoutClock::new();
        let arrival = |n: u64| at(1000 + n * 40 + if late.contains(&n) { 110 } else { 0 });
        (0..400).map(|n| clock.due((n * 3600) as u32, arrival(n))).collect()
    }

    #[test]
    fn after_frames_that_are_late_again_and_again_all_keep_their_distance() {
        let shown = shown_with_late(&[100, 110, 120]);
        let gap = |n: usize| shown[n].since(shown[n - 1]).as_millis();
        assert_eq!((gap(100), gap(101), gap(110), gap(111), gap(120)), (150, 0, 150, 40, 40));
        let held = |n: usize| shown[n].since(at(1000 + n as u64 * 40)).as_millis();
        assert_eq!((held(111), held(165), held(260)), (110, 110, 0));
        assert!((30..=34).contains(&gap(178)), "{}", gap(178));
    }

    #[test]
    fn a_frame_that_is_late_once_delays_no_later_frame() {
        for late in [&[5, 15][..], &[100], &[100, 200]] {
            let shown = shown_with_late(late);
            assert_eq!(shown[99], at(1000 + 99 * 40), "{late:?}");
            assert_eq!(shown[110], at(1000 + 110 * 40), "{late:?}");
            assert_eq!(shown[210], at(1000 + 210 * 40), "{late:?}");
        }
    }

    #[test]
    fn no_timestamp_or_delay_exceeds_the_maximum_delay_or_reorders_frames() {
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
    fn a_timestamp_wrap_does_not_change_the_playout_time() {
        let mut clock = PlayoutClock::new();
        for n in 0..300_u32 {
            let arrival = at(1000 + u64::from(n) * 40);
            assert_eq!(clock.due((u32::MAX - 360_000).wrapping_add(n * 3600), arrival), arrival);
        }
    }

    #[test]
    fn clock_drift_does_not_accumulate() {
        let mut arrivals = ArrivalDelay::new(48_000);
        for n in 0..60_000_i64 {
            // Twenty minutes at 200 ppm: the clocks differ by 240 ms in the end.
            let arrival = MediaTime::from_micros((n * 20_004) as u64);
            arrivals.record(n * 960, arrival);
        }
        assert!(arrivals.quantile(0.97) <= Duration::from_millis(3));
    }
}
