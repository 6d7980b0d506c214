//! The receive statistics of a video stream.

use std::time::Duration;

use crate::{
    media::Strip,
    model::{Latency, MediaTime, Size, VideoStats},
};

/// The receive statistics of one video stream.
#[derive(Debug, Default)]
pub(super) struct VideoTally {
    /// Complete frames that were received.
    pub(super) received: u64,
    /// Frames that were decoded.
    pub(super) decoded: u64,
    size: Option<Size>,
    frozen: Duration,
    wait: Option<Wait>,
    /// Whether the sender has signalled that it sends no video.
    dark: bool,
    latency: Histogram,
    strip: Option<Strip>,
}

/// The wait for the next frame.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: MediaTime,
    /// A longer wait counts as a freeze.
    patience: Duration,
}

impl Wait {
    /// How much of the wait at `now` counts as a freeze.
    fn too_long(self, now: MediaTime) -> Duration {
        now.since(self.since).saturating_sub(self.patience)
    }
}

impl VideoTally {
    /// A longer gap between two frames counts as a freeze.
    const FREEZE: Duration = Duration::from_millis(200);

    /// How long the first frame may take after the first packet. It needs a keyframe, which may
    /// take half a second.
    const START: Duration = Duration::from_secs(1);

    /// Records a frame that is shown `now`, which is `unix_ms` on the wall clock.
    pub(super) fn show(
        &mut self,
        size: Size,
        timecode: Option<Strip>,
        now: MediaTime,
        unix_ms: u64,
    ) {
        self.pause(now);
        if !self.dark {
            self.wait = Some(Wait { since: now, patience: Self::FREEZE });
        }
        self.size = Some(size);
        if let Some(timecode) = timecode {
            self.latency.add(unix_ms.saturating_sub(timecode.unix_ms));
            self.strip = Some(timecode);
        }
    }

    /// Records that packets arrive, so that a frame is expected.
    pub(super) fn came(&mut self, now: MediaTime) {
        if self.wait.is_none() && !self.dark {
            self.wait = Some(Wait { since: now, patience: Self::START });
        }
    }

    /// Stops waiting for a frame: the time until the next packet is not a freeze.
    pub(super) fn pause(&mut self, now: MediaTime) {
        self.frozen += self.frozen_since(now);
        self.wait = None;
    }

    /// Sets whether the sender sends video. While it does not, no frame is expected.
    pub(super) fn expect(&mut self, is_expected: bool, now: MediaTime) {
        self.dark = !is_expected;
        if self.dark {
            self.pause(now);
        }
    }

    fn frozen_since(&self, now: MediaTime) -> Duration {
        self.wait.map_or(Duration::ZERO, |wait| wait.too_long(now))
    }

    /// The statistics until `now`.
    pub(super) fn stats(&self, now: MediaTime) -> VideoStats {
        let frozen = self.frozen + self.frozen_since(now);
        VideoStats {
            received: self.received,
            decoded: self.decoded,
            width: self.size.map_or(0, |size| size.width),
            height: self.size.map_or(0, |size| size.height),
            frozen_ms: frozen.as_millis() as u64,
            latency_ms: self.latency.percentiles(),
            strip: self.strip.map(|timecode| timecode.who()),
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
    fn a_gap_beyond_200_ms_counts_as_a_freeze_unless_it_is_a_pause() {
        let mut stats = VideoTally::default();
        show(&mut stats, 1000);
        show(&mut stats, 1200);
        show(&mut stats, 1750);
        assert_eq!(frozen(&stats, 1750), 350);
        stats.pause(at(1950));
        show(&mut stats, 9000);
        assert_eq!(frozen(&stats, 9000), 350);
        assert_eq!(stats.stats(at(9000)).latency_ms, None);
    }

    #[test]
    fn a_freeze_is_counted_while_it_lasts() {
        let mut stats = VideoTally::default();
        show(&mut stats, 1000);
        assert_eq!([1200, 1700, 41_200].map(|ms| frozen(&stats, ms)), [0, 500, 40_000]);
        show(&mut stats, 41_200);
        assert_eq!([41_200, 41_400, 41_401].map(|ms| frozen(&stats, ms)), [40_000, 40_000, 40_001]);
    }

    #[test]
    fn a_missing_first_frame_counts_as_a_freeze_after_a_second() {
        let mut stats = VideoTally::default();
        assert_eq!(frozen(&stats, 9000), 0, "no packet arrived");
        stats.came(at(9000));
        stats.came(at(9900));
        assert_eq!([9000, 10_000, 49_000].map(|ms| frozen(&stats, ms)), [0, 0, 39_000]);
    }

    #[test]
    fn a_camera_that_is_off_is_not_a_freeze_and_one_that_is_on_again_is_expected() {
        let mut stats = VideoTally::default();
        show(&mut stats, 1000);
        stats.expect(false, at(1100));
        show(&mut stats, 1133);
        stats.came(at(1200));
        assert_eq!(frozen(&stats, 60_000), 0);
        stats.expect(true, at(60_000));
        assert_eq!(frozen(&stats, 70_000), 0, "no packet has arrived yet");
        stats.came(at(70_000));
        show(&mut stats, 70_100);
        assert_eq!(frozen(&stats, 70_300), 0);
        stats.expect(false, at(75_300));
        assert_eq!(frozen(&stats, 99_000), 5000, "the freeze before it was switched off");
    }

    fn show(stats: &mut VideoTally, ms: u64) {
        stats.show(Size::new(320, 180), None, at(ms), 0);
    }

    fn frozen(stats: &VideoTally, ms: u64) -> u64 {
        stats.stats(at(ms)).frozen_ms
    }

    #[test]
    fn latency_percentiles_come_from_the_timecode() {
        let mut stats = VideoTally::default();
        for latency in 1..=100 {
            let timecode = Some(Strip::new("Ada", 0, 5000));
            stats.show(Size::new(320, 180), timecode, MediaTime::default(), 5000 + latency);
        }
        let totals = stats.stats(MediaTime::default());
        assert_eq!(totals.latency_ms, Some(Latency { p50: 50.0, p95: 95.0 }));
        assert_eq!((totals.strip.as_deref(), totals.width, totals.height), (Some("Ada"), 320, 180));
        stats.show(Size::new(2, 2), Some(Strip::new("Ada", 0, 0)), MediaTime::default(), u64::MAX);
        let totals = stats.stats(MediaTime::default());
        assert_eq!(totals.latency_ms.map(|latency| latency.p50), Some(51.0));
    }
}
