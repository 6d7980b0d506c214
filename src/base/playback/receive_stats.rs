//! The receive statistics of a video stream.

use std::{collections::VecDeque, time::Duration};

use crate::{
    media::BurntInTimecode,
    model::{JitterBufferStats, Latency, MediaTime, Size, VideoPlayoutStats, VideoStats},
};

/// The receive statistics of one video stream.
#[derive(Debug, Default)]
pub(super) struct VideoReceiveStats {
    /// Complete frames that were received.
    pub(super) frames_received: u64,
    /// Frames that were decoded.
    pub(super) frames_decoded: u64,
    /// Frames that were decoded too late to be shown.
    pub(super) frames_dropped: u64,
    /// How much earlier sound is heard than its picture is shown, in microseconds, smoothed.
    sound_lead: Option<f64>,
    size: Option<Size>,
    total_freezes_duration: Duration,
    /// Freezes that have ended.
    freezes: u64,
    /// The longest of them.
    longest_freeze: Duration,
    jitter_buffer: JitterBufferDelay,
    awaited_frame: Option<FrameWait>,
    durations: FrameDurations,
    /// Whether the sender has signalled that it sends no video.
    is_video_off: bool,
    /// Whether nothing is decoded and shown here.
    is_paused: bool,
    latency: Histogram,
    timecode: Option<BurntInTimecode>,
}

/// The wait for the next frame.
#[derive(Clone, Copy, Debug)]
struct FrameWait {
    since: MediaTime,
    /// A longer wait counts as a freeze.
    timeout: Duration,
    /// The first part of the wait, which does not count.
    grace: Duration,
}

impl FrameWait {
    /// How much of the wait at `now` counts as a freeze.
    fn freeze(self, now: MediaTime) -> Duration {
        let wait = now.since(self.since);
        if wait > self.timeout { wait.saturating_sub(self.grace) } else { Duration::ZERO }
    }
}

/// How long the last frames were shown.
#[derive(Debug, Default)]
struct FrameDurations(VecDeque<Duration>);

impl FrameDurations {
    /// The frames that count.
    const COUNT: usize = 30;

    /// The time between two frames before it is known.
    const UNKNOWN: Duration = Duration::from_millis(50);

    fn add(&mut self, duration: Duration) {
        if self.0.len() == Self::COUNT {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    /// The time after which a frame that is still shown is a freeze, by the definition of
    /// `freezeCount` in W3C webrtc-stats.
    fn freeze_threshold(&self) -> Duration {
        let sum: Duration = self.0.iter().sum();
        let mean = sum.checked_div(self.0.len() as u32).unwrap_or(Self::UNKNOWN);
        (mean * 3).max(mean + Duration::from_millis(150))
    }
}

impl VideoReceiveStats {
    /// How long the first frame may take after the first packet. It needs a keyframe, which may
    /// take half a second.
    const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(1);

    /// Records a frame that is shown `now`, which is `unix_ms` on the wall clock.
    pub(super) fn on_frame_shown(
        &mut self,
        size: Size,
        timecode: Option<BurntInTimecode>,
        now: MediaTime,
        unix_ms: u64,
    ) {
        if let Some(wait) = self.awaited_frame.filter(|wait| wait.grace.is_zero()) {
            self.durations.add(now.since(wait.since));
        }
        self.stop_waiting(now);
        if self.is_frame_expected() {
            let timeout = self.durations.freeze_threshold();
            self.awaited_frame = Some(FrameWait { since: now, timeout, grace: Duration::ZERO });
        }
        self.size = Some(size);
        if let Some(timecode) = timecode {
            self.latency.add(unix_ms.saturating_sub(timecode.unix_ms));
            self.timecode = Some(timecode);
        }
    }

    /// Records how long a frame waited that is shown `now`: it arrived at `arrival`, and was due at
    /// `due`.
    pub(super) fn on_frame_emitted(&mut self, arrival: MediaTime, due: MediaTime, now: MediaTime) {
        self.jitter_buffer.add(1, now.since(arrival), due.since(arrival));
    }

    /// Records that a frame is shown `now` whose sound is heard at that time, if there is any.
    pub(super) fn on_sound(&mut self, heard: Option<MediaTime>, now: MediaTime) {
        self.sound_lead = heard.map(|heard| {
            let lead = now.as_micros() as f64 - heard.as_micros() as f64;
            self.sound_lead.map_or(lead, |before| before + (lead - before) / 16.0)
        });
    }

    /// Records that packets arrive, so that a frame is expected.
    pub(super) fn on_packet(&mut self, now: MediaTime) {
        if self.awaited_frame.is_none() && self.is_frame_expected() {
            let timeout = Self::FIRST_FRAME_TIMEOUT;
            self.awaited_frame = Some(FrameWait { since: now, timeout, grace: timeout });
        }
    }

    /// Sets whether frames are decoded and shown. While they are not, none is expected, and after
    /// it the time until the next packet is not a freeze.
    pub(super) fn set_paused(&mut self, is_paused: bool, now: MediaTime) {
        self.is_paused = is_paused;
        if is_paused {
            self.stop_waiting(now);
        }
    }

    /// Sets whether the sender sends video. While it does not, no frame is expected.
    pub(super) fn set_video_expected(&mut self, is_expected: bool, now: MediaTime) {
        self.is_video_off = !is_expected;
        if self.is_video_off {
            self.stop_waiting(now);
        }
    }

    const fn is_frame_expected(&self) -> bool {
        !self.is_video_off && !self.is_paused
    }

    fn stop_waiting(&mut self, now: MediaTime) {
        let freeze = self.current_freeze(now);
        self.freezes += u64::from(!freeze.is_zero());
        self.total_freezes_duration += freeze;
        self.longest_freeze = self.longest_freeze_until(now);
        self.awaited_frame = None;
    }

    fn current_freeze(&self, now: MediaTime) -> Duration {
        self.awaited_frame.map_or(Duration::ZERO, |wait| wait.freeze(now))
    }

    /// The longest freeze, without the wait for the first frame.
    fn longest_freeze_until(&self, now: MediaTime) -> Duration {
        let shown = self.awaited_frame.filter(|wait| wait.grace.is_zero());
        shown.map_or(Duration::ZERO, |wait| wait.freeze(now)).max(self.longest_freeze)
    }

    /// The statistics until `now`.
    pub(super) fn stats(&self, now: MediaTime) -> VideoStats {
        let freeze = self.current_freeze(now);
        let frozen = self.total_freezes_duration + freeze;
        VideoStats {
            received: self.frames_received,
            decoded: self.frames_decoded,
            width: self.size.map_or(0, |size| size.width),
            height: self.size.map_or(0, |size| size.height),
            frozen_ms: frozen.as_millis() as u64,
            freezes: self.freezes + u64::from(!freeze.is_zero()),
            longest_freeze_ms: self.longest_freeze_until(now).as_millis() as u64,
            latency_ms: self.latency.percentiles(),
            strip: self.timecode.map(|timecode| timecode.name()),
        }
    }

    /// The statistics until `now` in the terms of W3C webrtc-stats.
    pub(super) fn playout_stats(&self, now: MediaTime) -> VideoPlayoutStats {
        let freeze = self.current_freeze(now);
        VideoPlayoutStats {
            frames_received: self.frames_received,
            frames_decoded: self.frames_decoded,
            frames_dropped: self.frames_dropped,
            audio_video_offset: self.sound_lead.map(|micros| micros / 1e6),
            frame_width: self.size.map(|size| size.width),
            frame_height: self.size.map(|size| size.height),
            freeze_count: self.freezes + u64::from(!freeze.is_zero()),
            total_freezes_duration: (self.total_freezes_duration + freeze).as_secs_f64(),
            jitter_buffer: self.jitter_buffer.stats(),
        }
    }
}

/// The delay of a jitter buffer, summed over frames or samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct JitterBufferDelay {
    /// Microseconds times frames or samples.
    delay: u64,
    target: u64,
    count: u64,
}

impl JitterBufferDelay {
    /// Adds this many frames or samples that waited for `delay`, and should have for `target`.
    pub(super) const fn add(&mut self, count: u64, delay: Duration, target: Duration) {
        self.delay += delay.as_micros() as u64 * count;
        self.target += target.as_micros() as u64 * count;
        self.count += count;
    }

    /// The sums in seconds.
    pub(super) fn stats(self) -> JitterBufferStats {
        JitterBufferStats {
            jitter_buffer_delay: self.delay as f64 / 1e6,
            jitter_buffer_target_delay: self.target as f64 / 1e6,
            jitter_buffer_emitted_count: self.count,
        }
    }
}

/// Counts values per millisecond. The last bin includes all larger values.
#[derive(Debug, Default)]
struct Histogram {
    bins: Vec<u32>,
    count: u64,
}

impl Histogram {
    /// The number of bins: ten seconds, more than any usable latency.
    const BINS: usize = 10_000;

    fn add(&mut self, ms: u64) {
        if self.bins.is_empty() {
            self.bins = vec![0; Self::BINS];
        }
        let bin = (ms as usize).min(Self::BINS - 1);
        self.bins[bin] = self.bins[bin].saturating_add(1);
        self.count += 1;
    }

    fn percentiles(&self) -> Option<Latency> {
        let at = |share: f64| {
            let (wanted, mut sum) = ((self.count as f64 * share).ceil() as u64, 0);
            let bin = self.bins.iter().position(|count| {
                sum += u64::from(*count);
                sum >= wanted
            });
            bin.map_or(0.0, |bin| bin as f64)
        };
        (self.count > 0).then(|| Latency { p50: at(0.5), p95: at(0.95) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::testing::at;

    #[test]
    fn a_frame_that_is_shown_far_longer_than_others_counts_as_a_freeze_unless_it_is_a_pause() {
        let mut stats = VideoReceiveStats::default();
        // The mean of 30 frames is 40 ms, so a freeze is longer than 190 ms.
        (0..=40).for_each(|n| show(&mut stats, 1000 + n * 40));
        show(&mut stats, 2790);
        assert_eq!(frozen_ms(&stats, 2790), 0);
        // Now it is 45 ms.
        show(&mut stats, 2986);
        assert_eq!(frozen_ms(&stats, 2986), 196);
        stats.set_paused(true, at(3000));
        stats.on_packet(at(3100));
        stats.set_paused(false, at(8900));
        show(&mut stats, 9000);
        assert_eq!(frozen_ms(&stats, 9000), 196);
        assert_eq!(stats.stats(at(9000)).latency_ms, None);
    }

    #[test]
    fn slow_video_is_no_freeze() {
        let mut stats = VideoReceiveStats::default();
        (0..=40).for_each(|n| show(&mut stats, 1000 + n * 200));
        let before = frozen_ms(&stats, 9000);
        assert_eq!([9600, 9601].map(|ms| frozen_ms(&stats, ms) - before), [0, 601]);
    }

    #[test]
    fn a_freeze_is_counted_while_it_lasts() {
        let mut stats = VideoReceiveStats::default();
        show(&mut stats, 1000);
        assert_eq!([1200, 1201, 41_200].map(|ms| frozen_ms(&stats, ms)), [0, 201, 40_200]);
        show(&mut stats, 41_200);
        assert_eq!([41_200, 41_400].map(|ms| frozen_ms(&stats, ms)), [40_200; 2]);
    }

    #[test]
    fn a_missing_first_frame_counts_as_a_freeze_after_a_second() {
        let mut stats = VideoReceiveStats::default();
        assert_eq!(frozen_ms(&stats, 9000), 0, "no packet arrived");
        stats.on_packet(at(9000));
        stats.on_packet(at(9900));
        assert_eq!([9000, 10_000, 49_000].map(|ms| frozen_ms(&stats, ms)), [0, 0, 39_000]);
    }

    #[test]
    fn the_longest_freeze_is_one_of_a_frame_that_was_shown() {
        let mut stats = VideoReceiveStats::default();
        stats.on_packet(at(1000));
        let longest = |stats: &VideoReceiveStats, ms| stats.stats(at(ms)).longest_freeze_ms;
        assert_eq!(longest(&stats, 9000), 0, "the wait for the first is none");
        [9000, 9800, 9840, 10_240].into_iter().for_each(|ms| show(&mut stats, ms));
        assert_eq!(longest(&stats, 10_240), 800, "another one took 400 ms");
        assert_eq!(longest(&stats, 11_500), 1260, "it lasts");
    }

    #[test]
    fn a_camera_that_is_off_is_not_a_freeze_and_one_that_is_on_again_is_expected() {
        let mut stats = VideoReceiveStats::default();
        show(&mut stats, 1000);
        stats.set_video_expected(false, at(1100));
        show(&mut stats, 1133);
        stats.on_packet(at(1200));
        assert_eq!(frozen_ms(&stats, 60_000), 0);
        stats.set_video_expected(true, at(60_000));
        assert_eq!(frozen_ms(&stats, 70_000), 0, "no packet has arrived yet");
        stats.on_packet(at(70_000));
        show(&mut stats, 70_100);
        assert_eq!(frozen_ms(&stats, 70_300), 0);
        stats.set_video_expected(false, at(75_300));
        assert_eq!(frozen_ms(&stats, 99_000), 5200, "the freeze before it was switched off");
    }

    fn show(stats: &mut VideoReceiveStats, ms: u64) {
        stats.on_frame_shown(Size::new(320, 180), None, at(ms), 0);
    }

    fn frozen_ms(stats: &VideoReceiveStats, ms: u64) -> u64 {
        let both = stats.stats(at(ms));
        assert_eq!(both.freezes, stats.playout_stats(at(ms)).freeze_count);
        both.frozen_ms
    }

    #[test]
    fn freezes_are_counted_once_each_and_waiting_times_are_summed() {
        let mut stats = VideoReceiveStats::default();
        (0..10).chain([15, 16]).for_each(|n| show(&mut stats, n * 100));
        stats.on_frame_emitted(at(1000), at(1050), at(1070));
        stats.on_frame_emitted(at(1040), at(1080), at(1080));
        assert_eq!(stats.playout_stats(at(1900)).freeze_count, 1);
        let playout = stats.playout_stats(at(2100));
        assert_eq!((playout.freeze_count, playout.total_freezes_duration), (2, 1.1));
        let JitterBufferStats {
            jitter_buffer_delay,
            jitter_buffer_target_delay,
            jitter_buffer_emitted_count,
        } = playout.jitter_buffer;
        assert_eq!((jitter_buffer_delay, jitter_buffer_target_delay), (0.11, 0.09));
        assert_eq!(jitter_buffer_emitted_count, 2);
        show(&mut stats, 2100);
        assert_eq!(stats.playout_stats(at(2100)).freeze_count, 2, "it has ended");
    }

    #[test]
    fn latency_percentiles_come_from_the_timecode() {
        let mut stats = VideoReceiveStats::default();
        for latency in 1..=100 {
            let timecode = Some(BurntInTimecode::new("Ada", 0, 5000));
            stats.on_frame_shown(
                Size::new(320, 180),
                timecode,
                MediaTime::default(),
                5000 + latency,
            );
        }
        let totals = stats.stats(MediaTime::default());
        assert_eq!(totals.latency_ms, Some(Latency { p50: 50.0, p95: 95.0 }));
        assert_eq!((totals.strip.as_deref(), totals.width, totals.height), (Some("Ada"), 320, 180));
        stats.on_frame_shown(
            Size::new(2, 2),
            Some(BurntInTimecode::new("Ada", 0, 0)),
            MediaTime::default(),
            u64::MAX,
        );
        let totals = stats.stats(MediaTime::default());
        assert_eq!(totals.latency_ms.map(|latency| latency.p50), Some(51.0));
    }
}
