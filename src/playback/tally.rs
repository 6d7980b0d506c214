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
    shown: Option<MediaTime>,
    latency: Histogram,
    strip: Option<Strip>,
}

impl VideoTally {
    /// A longer gap between two frames is seen as a freeze.
    const FREEZE: Duration = Duration::from_millis(200);

    /// Counts a frame that is shown `now`, which is `unix_ms` on the wall clock.
    pub(super) fn show(&mut self, size: Size, strip: Option<Strip>, now: MediaTime, unix_ms: u64) {
        let gap = self.shown.replace(now).map_or(Duration::ZERO, |before| now.since(before));
        self.frozen += gap.saturating_sub(Self::FREEZE);
        self.size = Some(size);
        if let Some(strip) = strip {
            self.latency.add(unix_ms.saturating_sub(strip.unix_ms));
            self.strip = Some(strip);
        }
    }

    /// Says that no frame is to be shown for a while: the gap until the next is no freeze.
    pub(super) const fn pause(&mut self) {
        self.shown = None;
    }

    /// The figures so far.
    pub(super) fn stats(&self) -> VideoStats {
        VideoStats {
            received: self.received,
            decoded: self.decoded,
            width: self.size.map_or(0, |size| size.width),
            height: self.size.map_or(0, |size| size.height),
            frozen_ms: self.frozen.as_millis() as u64,
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

    #[test]
    fn a_gap_beyond_200_ms_counts_as_frozen_unless_it_was_a_pause() {
        let mut tally = VideoTally::default();
        let show = |tally: &mut VideoTally, ms: u64| {
            tally.show(Size::new(320, 180), None, MediaTime::from_micros(ms * 1000), 0);
        };
        show(&mut tally, 1000);
        show(&mut tally, 1200);
        show(&mut tally, 1750);
        assert_eq!(tally.stats().frozen_ms, 350);
        tally.pause();
        show(&mut tally, 9000);
        assert_eq!(tally.stats().frozen_ms, 350);
        assert_eq!(tally.stats().latency_ms, None);
    }

    #[test]
    fn latency_percentiles_come_from_the_strip() {
        let mut tally = VideoTally::default();
        for late in 1..=100 {
            let strip = Some(Strip::new("Ada", 0, 5000));
            tally.show(Size::new(320, 180), strip, MediaTime::default(), 5000 + late);
        }
        let stats = tally.stats();
        assert_eq!(stats.latency_ms, Some(Latency { p50: 50.0, p95: 95.0 }));
        assert_eq!((stats.strip.as_deref(), stats.width, stats.height), (Some("Ada"), 320, 180));
        tally.show(Size::new(2, 2), Some(Strip::new("Ada", 0, 0)), MediaTime::default(), u64::MAX);
        assert_eq!(tally.stats().latency_ms.map(|latency| latency.p50), Some(51.0));
    }
}
