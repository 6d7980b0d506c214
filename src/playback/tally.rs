//! Counts what became of a received picture stream.

use std::time::Duration;

use crate::{
    media::Strip,
    model::{Latency, MediaTime, Size, VideoStats},
};

/// The figures of one received picture stream.
#[derive(Debug, Default)]
pub(super) struct VideoTally {
    /// Whole frames that arrived.
    pub(super) received: u64,
    /// Frames that were decoded.
    pub(super) decoded: u64,
    size: Option<Size>,
    frozen: Duration,
    wait: Option<Wait>,
    /// The sender says that it sends no pictures.
    dark: bool,
    latency: Histogram,
    strip: Option<Strip>,
}

/// The next picture is waited for.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: MediaTime,
    /// How long it may take: longer is a freeze.
    patience: Duration,
}

impl Wait {
    /// How much too long it lasts.
    fn too_long(self, now: MediaTime) -> Duration {
        now.since(self.since).saturating_sub(self.patience)
    }
}

impl VideoTally {
    /// A longer gap between two frames is seen as a freeze.
    const FREEZE: Duration = Duration::from_millis(200);

    /// The first frame may take this long after its first packet: it waits for a keyframe, which
    /// may be half a second away.
    const START: Duration = Duration::from_secs(1);

    /// Counts a frame that is shown `now`, which is `unix_ms` on the wall clock.
    pub(super) fn show(&mut self, size: Size, strip: Option<Strip>, now: MediaTime, unix_ms: u64) {
        self.pause(now);
        if !self.dark {
            self.wait = Some(Wait { since: now, patience: Self::FREEZE });
        }
        self.size = Some(size);
        if let Some(strip) = strip {
            self.latency.add(unix_ms.saturating_sub(strip.unix_ms));
            self.strip = Some(strip);
        }
    }

    /// Notes that packets come in: a picture is to be shown soon.
    pub(super) fn came(&mut self, now: MediaTime) {
        if self.wait.is_none() && !self.dark {
            self.wait = Some(Wait { since: now, patience: Self::START });
        }
    }

    /// Says that no frame is to be shown for a while: the gap until the next packet is no freeze.
    pub(super) fn pause(&mut self, now: MediaTime) {
        self.frozen += self.frozen_since(now);
        self.wait = None;
    }

    /// Says whether the sender sends pictures; while it does not, nothing is waited for.
    pub(super) fn expect(&mut self, pictures: bool, now: MediaTime) {
        self.dark = !pictures;
        if self.dark {
            self.pause(now);
        }
    }

    fn frozen_since(&self, now: MediaTime) -> Duration {
        self.wait.map_or(Duration::ZERO, |wait| wait.too_long(now))
    }

    /// The figures until `now`.
    pub(super) fn stats(&self, now: MediaTime) -> VideoStats {
        let frozen = self.frozen + self.frozen_since(now);
        VideoStats {
            received: self.received,
            decoded: self.decoded,
            width: self.size.map_or(0, |size| size.width),
            height: self.size.map_or(0, |size| size.height),
            frozen_ms: frozen.as_millis() as u64,
            latency_ms: self.latency.percentiles(),
            strip: self.strip.map(|strip| strip.who()),
        }
    }
}

/// How many values fell into each millisecond; those beyond the last bin count as it.
#[derive(Debug, Default)]
struct Histogram {
    bins: Vec<u32>,
    count: u64,
}

impl Histogram {
    /// Bins: ten seconds. A picture later than that is lost on anybody.
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
    fn a_gap_beyond_200_ms_counts_as_frozen_unless_it_was_a_pause() {
        let mut tally = VideoTally::default();
        show(&mut tally, 1000);
        show(&mut tally, 1200);
        show(&mut tally, 1750);
        assert_eq!(frozen(&tally, 1750), 350);
        tally.pause(at(1950));
        show(&mut tally, 9000);
        assert_eq!(frozen(&tally, 9000), 350);
        assert_eq!(tally.stats(at(9000)).latency_ms, None);
    }

    #[test]
    fn a_picture_that_stands_is_counted_while_it_stands() {
        let mut tally = VideoTally::default();
        show(&mut tally, 1000);
        assert_eq!([1200, 1700, 41_200].map(|ms| frozen(&tally, ms)), [0, 500, 40_000]);
        show(&mut tally, 41_200);
        assert_eq!([41_200, 41_400, 41_401].map(|ms| frozen(&tally, ms)), [40_000, 40_000, 40_001]);
    }

    #[test]
    fn a_first_picture_that_never_comes_is_counted_after_a_second() {
        let mut tally = VideoTally::default();
        assert_eq!(frozen(&tally, 9000), 0, "nothing came");
        tally.came(at(9000));
        tally.came(at(9900));
        assert_eq!([9000, 10_000, 49_000].map(|ms| frozen(&tally, ms)), [0, 0, 39_000]);
    }

    #[test]
    fn a_camera_that_is_off_is_no_freeze_and_one_that_comes_back_is_waited_for() {
        let mut tally = VideoTally::default();
        show(&mut tally, 1000);
        tally.expect(false, at(1100));
        show(&mut tally, 1133);
        tally.came(at(1200));
        assert_eq!(frozen(&tally, 60_000), 0);
        tally.expect(true, at(60_000));
        assert_eq!(frozen(&tally, 70_000), 0, "no packet came yet");
        tally.came(at(70_000));
        show(&mut tally, 70_100);
        assert_eq!(frozen(&tally, 70_300), 0);
        tally.expect(false, at(75_300));
        assert_eq!(frozen(&tally, 99_000), 5000, "it stood before it was off");
    }

    fn show(tally: &mut VideoTally, ms: u64) {
        tally.show(Size::new(320, 180), None, at(ms), 0);
    }

    fn frozen(tally: &VideoTally, ms: u64) -> u64 {
        tally.stats(at(ms)).frozen_ms
    }

    #[test]
    fn latency_percentiles_come_from_the_strip() {
        let mut tally = VideoTally::default();
        for late in 1..=100 {
            let strip = Some(Strip::new("Ada", 0, 5000));
            tally.show(Size::new(320, 180), strip, MediaTime::default(), 5000 + late);
        }
        let stats = tally.stats(MediaTime::default());
        assert_eq!(stats.latency_ms, Some(Latency { p50: 50.0, p95: 95.0 }));
        assert_eq!((stats.strip.as_deref(), stats.width, stats.height), (Some("Ada"), 320, 180));
        tally.show(Size::new(2, 2), Some(Strip::new("Ada", 0, 0)), MediaTime::default(), u64::MAX);
        let stats = tally.stats(MediaTime::default());
        assert_eq!(stats.latency_ms.map(|latency| latency.p50), Some(51.0));
    }
}
