//! The playout time of received frames: pure arithmetic on timestamps and arrival times.

use std::time::Duration;

use super::jitter::Unwrapper;
use crate::model::MediaTime;

/// Maps the RTP timestamps of one video stream to the playout times of its frames.
///
/// The playout delay of video alone is the 90th percentile of the arrival delay, relative to the fastest
/// frame, so that most frames arrive in time to be shown at even intervals. It rises at once to the
/// delay of later frames if they come again and again, such as those that waited for a packet to be
/// sent again: otherwise the frames behind each would be shown in a burst. It falls by 50 ms a second,
/// two seconds after the last late frame. One late frame changes nothing, also at the start of
/// a stream, where it is one of few. Keyframes, which are long, count for nothing: those that other
/// viewers ask for come again and again.
///
/// Beside sound a frame waits until the sound that was captured with it is at most
/// [`PlayoutClock::SOUND_LAG`] late. Without sound a frame is shown on arrival, as long as that is even
/// enough.
#[derive(Debug)]
pub(crate) struct PlayoutClock {
    delay: ArrivalDelay,
    /// The delay of the latest frames that were late, and when the last of them arrived.
    late: Duration,
    late_at: MediaTime,
    /// The last three times at which frames were late: when each began, and by how much they were.
    delays: [(MediaTime, Duration); 3],
    begun: Option<MediaTime>,
    /// When the last keyframe arrived.
    keyframe_at: Option<MediaTime>,
    timestamps: Unwrapper,
    /// The playout delay of video alone, and of video beside sound.
    alone: Duration,
    beside_sound: Duration,
    /// When the last frame arrived and when it is shown.
    last_arrival: MediaTime,
    last: MediaTime,
}

/// A frame that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ArrivedFrame {
    /// Its RTP timestamp.
    pub(crate) timestamp: u32,
    /// When it was complete.
    pub(crate) arrival: MediaTime,
    /// Whether it is a keyframe. Those are paced, and say nothing about the others.
    pub(crate) is_keyframe: bool,
}

/// When a frame is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PlayoutTime {
    /// When it is shown.
    pub(crate) at: MediaTime,
    /// When it would be shown without sound, if frames kept their distance exactly: this may be
    /// before its arrival.
    pub(crate) alone: MediaTime,
    /// Whether it arrived after the time at which it would have been shown.
    pub(crate) is_late: bool,
}

impl PlayoutClock {
    /// How long the playout delay stays after a late frame.
    const HOLD: Duration = Duration::from_secs(2);

    /// A frame counts as late if that much less would have been too little.
    const LATE_MARGIN: Duration = Duration::from_millis(10);

    /// The part of the passing time by which the playout delay then falls: 50 ms a second.
    const FALL: u32 = 20;

    /// Late frames within that time are late for one reason.
    const ONE_CAUSE: Duration = Duration::from_millis(200);

    /// Late frames within that time come again and again.
    const AGAIN: Duration = Duration::from_secs(3);

    /// Frames that arrive so soon after a keyframe have waited for it.
    const KEYFRAME_WAKE: Duration = Duration::from_millis(40);

    /// How long a stream starts. Frames then are late again and again from the third time on.
    const START: Duration = Duration::from_secs(1);

    /// Jitter up to this is not visible beside sound: a screen shows a frame up to one refresh (17 ms
    /// at 60 Hz) late anyway.
    pub(crate) const IMPERCEPTIBLE_JITTER: Duration = Duration::from_millis(17);

    /// Jitter up to this is not worth a delay where no sound asks for one: a frame of 30 a second.
    const ALONE_JITTER: Duration = Duration::from_millis(33);

    /// How late sound may be: EBU R37 allows 60 ms, and people notice 125 (ITU-R BT.1359).
    pub(crate) const SOUND_LAG: Duration = Duration::from_millis(45);

    /// The maximum playout delay: a lost packet is sent again over a path of 150 ms within it, and
    /// no wrong clock of a sender holds frames for longer. Beyond it, uneven playout is better than
    /// more latency.
    pub(crate) const MAX_DELAY: Duration = Duration::from_millis(400);

    pub(crate) fn new() -> Self {
        Self {
            delay: ArrivalDelay::new(90_000),
            late: Duration::ZERO,
            late_at: MediaTime::default(),
            delays: [(MediaTime::default(), Duration::ZERO); 3],
            begun: None,
            keyframe_at: None,
            timestamps: Unwrapper::of_32_bits(),
            alone: Duration::ZERO,
            beside_sound: Duration::ZERO,
            last_arrival: MediaTime::default(),
            last: MediaTime::default(),
        }
    }

    /// The playout time of a frame: not before its arrival, at most [`Self::MAX_DELAY`] after it, and
    /// not before the previous frame. `heard` is when the sound is heard that was captured with it,
    /// if there is any.
    pub(crate) fn due(&mut self, frame: ArrivedFrame, heard: Option<MediaTime>) -> PlayoutTime {
        let ArrivedFrame { timestamp, arrival, is_keyframe } = frame;
        let stamp = self.timestamps.unwrap(timestamp);
        let late = self.delay.record(stamp, arrival).min(Self::MAX_DELAY);
        let starts = arrival.since(*self.begun.get_or_insert(arrival)) < Self::START;
        let passed = arrival.since(self.last_arrival);
        let falls_from = (self.late_at + Self::HOLD).max(self.last_arrival);
        let fall = arrival.since(falls_from) / Self::FALL;
        self.last_arrival = self.last_arrival.max(arrival);
        self.late = self.late.saturating_sub(fall);
        if is_keyframe {
            self.keyframe_at = Some(arrival);
        }
        if self.keyframe_at.is_none_or(|at| arrival.since(at) >= Self::KEYFRAME_WAKE) {
            self.follow(late, arrival, if starts { 3 } else { 2 });
        }
        // A few frames are no distribution.
        let usual = if starts { Duration::ZERO } else { self.delay.quantile(0.9) };
        let usual = usual.min(Self::MAX_DELAY).max(self.late);
        self.alone = self.alone.saturating_sub(fall).max(usual);
        let earliest = self.delay.earliest_arrival(stamp).unwrap_or(arrival);
        let lag = heard.map(|heard| heard.since(earliest).saturating_sub(Self::SOUND_LAG));
        let wanted = lag.unwrap_or_default().min(Self::MAX_DELAY);
        self.beside_sound = self.beside_sound.saturating_sub(passed / Self::FALL).max(wanted);
        self.settle((earliest, arrival), heard.is_some())
    }

    /// The playout time with the present delays.
    fn settle(
        &mut self,
        (earliest, arrival): (MediaTime, MediaTime),
        has_sound: bool,
    ) -> PlayoutTime {
        let visible = if has_sound { Self::IMPERCEPTIBLE_JITTER } else { Self::ALONE_JITTER };
        let alone = if self.alone > visible { self.alone } else { Duration::ZERO };
        let even = earliest + alone.max(self.beside_sound);
        let latest = arrival + Self::MAX_DELAY;
        self.last = even.clamp(arrival, latest).max(self.last).min(latest);
        let is_late = even + Self::IMPERCEPTIBLE_JITTER < arrival;
        PlayoutTime { at: self.last, alone: earliest + alone, is_late }
    }

    /// Follows the delay of late frames up at once, if there were so many times of them.
    fn follow(&mut self, late: Duration, arrival: MediaTime, times: usize) {
        if late <= Self::IMPERCEPTIBLE_JITTER || late + Self::LATE_MARGIN < self.late {
            return;
        }
        self.late_at = arrival;
        let [_, earlier, latest] = &mut self.delays;
        if arrival.since(latest.0) < Self::ONE_CAUSE {
            latest.1 = latest.1.max(late);
        } else {
            self.delays = [*earlier, *latest, (arrival, late)];
        }
        let counted = &self.delays[self.delays.len() - times..];
        if arrival.since(counted[0].0) <= Self::AGAIN {
            let least = counted.iter().map(|(_, late)| *late).min();
            self.late = self.late.max(least.unwrap_or_default());
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

    /// A frame that is no keyframe.
    fn frame(timestamp: u64, arrival: MediaTime) -> ArrivedFrame {
        ArrivedFrame { timestamp: timestamp as u32, arrival, is_keyframe: false }
    }

    #[test]
    fn frames_that_arrive_evenly_are_shown_on_arrival() {
        let mut clock = PlayoutClock::new();
        for n in 0..500_u64 {
            let arrival = at(1000 + n * 33 + n % 7);
            assert_eq!(clock.due(frame(n * 2970, arrival), None).at, arrival);
        }
    }

    #[test]
    fn frames_that_arrive_unevenly_are_shown_evenly() {
        let mut clock = PlayoutClock::new();
        let due: Vec<_> = (0..500_u64)
            .map(|n| clock.due(frame(n * 3600, at(1000 + n * 40 + n * 37 % 60)), None).at)
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
        (0..400).map(|n| clock.due(frame(n * 3600, arrival(n)), None).at).collect()
    }

    #[test]
    fn after_frames_that_are_late_again_and_again_all_keep_their_distance() {
        let shown = shown_with_late(&[100, 110, 120]);
        let gap = |n: usize| shown[n].since(shown[n - 1]).as_millis();
        assert_eq!((gap(100), gap(101), gap(110), gap(111), gap(120)), (150, 0, 150, 40, 40));
        let held = |n: usize| shown[n].since(at(1000 + n as u64 * 40)).as_millis();
        assert_eq!((held(111), held(165), held(260)), (110, 110, 0));
        assert!((37..=39).contains(&gap(178)), "{}", gap(178));
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
    fn keyframes_that_are_late_again_and_again_delay_no_other_frame() {
        let mut clock = PlayoutClock::new();
        for n in 0..400_u64 {
            // Every 21st frame is a keyframe of 60 ms, and the next one waits for it.
            let late = [60, 20].get(n as usize % 21).copied().unwrap_or(0);
            let arrival = at(1000 + n * 40 + late);
            let arrived = ArrivedFrame { is_keyframe: n % 21 == 0, ..frame(n * 3600, arrival) };
            assert_eq!(clock.due(arrived, None).at, arrival, "{n}");
        }
    }

    #[test]
    fn no_timestamp_or_delay_exceeds_the_maximum_delay_or_reorders_frames() {
        let mut clock = PlayoutClock::new();
        let mut last = MediaTime::default();
        for n in 0..20_000_u64 {
            let stamp = n * n * 2_654_435_761 % 4_294_967_291;
            let heard = (n % 4 > 0).then(|| at(n * 5 + n * 31 % 900));
            let arrival = at(n * 5 + n * 7919 % 500 / (n % 3 + 1));
            let due = clock.due(frame(stamp, arrival), heard).at;
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
            let stamp = (u32::MAX - 360_000).wrapping_add(n * 3600);
            assert_eq!(clock.due(frame(stamp.into(), arrival), None).at, arrival);
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
