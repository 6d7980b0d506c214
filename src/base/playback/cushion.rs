//! How much the ring of a speaker holds beyond what one callback takes.

use std::time::Duration;

use crate::model::MediaTime;

/// How much the ring holds beyond what one callback takes: more after underruns, less when there
/// are none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cushion {
    /// In quarter blocks of 10 ms.
    quarters: usize,
    /// The underruns so far.
    underruns: u64,
    /// When the last underrun occurred or the cushion last changed.
    since: MediaTime,
    /// How long no underrun may occur before the cushion shrinks.
    patience: Duration,
    /// Whether the last change made it smaller.
    has_shrunk: bool,
}

impl Cushion {
    /// 10 ms: how late the mixer thread may be initially.
    pub(super) const MIN: usize = 4;

    /// 100 ms: more latency is not acceptable in a conversation.
    const MAX: usize = 40;

    /// The shortest patience.
    const MIN_PATIENCE: Duration = Duration::from_secs(2);

    /// The longest patience, on a machine that is late again and again.
    const MAX_PATIENCE: Duration = Duration::from_secs(16);

    /// The least cushion.
    pub(super) const fn new() -> Self {
        Self {
            quarters: Self::MIN,
            underruns: 0,
            since: MediaTime::from_micros(0),
            patience: Self::MIN_PATIENCE,
            has_shrunk: false,
        }
    }

    /// The cushion in quarter blocks of 10 ms.
    pub(super) const fn quarters(self) -> usize {
        self.quarters
    }

    /// Continues with a device that has just been opened.
    pub(super) fn on_opened(&mut self, now: MediaTime) {
        (self.underruns, self.since) = (0, now);
    }

    /// Adapts the cushion to the number of underruns since the device was opened: 2.5 ms more after
    /// each, and a quarter of the excess less after some time without any. That time doubles when
    /// an underrun shows that the cushion has shrunk too much.
    pub(super) fn adapt(&mut self, underruns: u64, now: MediaTime) {
        if underruns > self.underruns {
            // The first underrun is ignored: the device starts before the first block.
            if self.underruns > 0 {
                self.quarters = (self.quarters + 1).min(Self::MAX);
                if self.has_shrunk {
                    self.patience = (2 * self.patience).min(Self::MAX_PATIENCE);
                }
                self.has_shrunk = false;
            }
            (self.underruns, self.since) = (underruns, now);
        } else if now.since(self.since) > self.patience {
            let excess = self.quarters.saturating_sub(Self::MIN);
            if excess == 0 {
                self.patience = Self::MIN_PATIENCE;
            }
            self.quarters -= excess.div_ceil(4);
            self.has_shrunk = excess > 0;
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::testing::at;

    #[test]
    fn the_cushion_grows_with_underruns_and_comes_down_within_half_a_minute() {
        let mut cushion = Cushion::new();
        cushion.on_opened(at(0));
        (1..=37).for_each(|underruns| cushion.adapt(underruns, at(1000)));
        assert_eq!(cushion.quarters(), Cushion::MAX);
        let mut quarters = vec![];
        for tenth in 1..=300 {
            cushion.adapt(37, at(1000 + tenth * 100));
            quarters.push(cushion.quarters());
        }
        assert!(quarters[100] <= 16, "30 ms of excess after ten seconds: {quarters:?}");
        assert_eq!(*quarters.last().unwrap(), Cushion::MIN, "{quarters:?}");
    }

    #[test]
    fn a_cushion_that_was_needed_is_given_up_more_slowly_each_time() {
        let mut cushion = Cushion::new();
        cushion.on_opened(at(0));
        (1..=12).for_each(|underruns| cushion.adapt(underruns, at(0)));
        let (needed, mut underruns) = (cushion.quarters(), 12);
        for tenth in 0..1200 {
            // The machine is late each time that the cushion is too small.
            if cushion.quarters() < needed {
                underruns += 1;
            }
            cushion.adapt(underruns, at(tenth * 100));
        }
        assert!((20..40).contains(&underruns), "{underruns} underruns in two minutes");
    }
}
