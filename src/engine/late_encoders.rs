//! Notices encoders that are too slow for their frames, and lowers the highest layer.

use std::time::Duration;

use crate::{
    encode::EncoderProgress,
    model::{Layer, MediaTime},
};

/// Watches the encoders of one source. It is pure.
#[derive(Debug)]
pub(super) struct LateEncoders {
    /// The highest layer that may be encoded.
    ceiling: Layer,
    /// What the encoders had done at the begin of the current window.
    before: [Option<EncoderProgress>; 3],
    window_since: Option<MediaTime>,
    late_windows: u32,
    /// When the ceiling was changed last.
    changed_at: Option<MediaTime>,
    /// How long after that a higher layer is tried again.
    patience: Duration,
}

/// Encoders are judged once a second.
const WINDOW: Duration = Duration::from_secs(1);

/// After so many late windows in a row, a layer is given up: two seconds.
const LATE_WINDOWS: u32 = 2;

/// The part of its frames that a late encoder misses.
const MISSED: f64 = 0.2;

/// Fewer frames in a window say nothing.
const LEAST_FRAMES: u64 = 5;

/// How long a new ceiling takes effect: encoders start and end.
const SETTLING: Duration = Duration::from_secs(2);

/// How long a layer is given up, at first and at most. What else the computer does may be over then.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_PATIENCE: Duration = Duration::from_secs(600);

/// A layer that is given up again this soon is tried later the next time.
const RELAPSE: Duration = Duration::from_secs(60);

impl Default for LateEncoders {
    fn default() -> Self {
        Self {
            ceiling: Layer::Full,
            before: [None; 3],
            window_since: None,
            late_windows: 0,
            changed_at: None,
            patience: PATIENCE,
        }
    }
}

impl LateEncoders {
    /// The highest layer that may be encoded.
    pub(super) const fn ceiling(&self) -> Layer {
        self.ceiling
    }

    /// Whether a layer is given up because of late encoders.
    pub(super) fn is_late(&self) -> bool {
        self.ceiling < Layer::Full
    }

    /// Takes what the encoders have done so far; `None` for a layer that is not encoded. The fps are
    /// those of the source.
    pub(super) fn update(
        &mut self,
        progress: [Option<EncoderProgress>; 3],
        fps: u32,
        now: MediaTime,
    ) {
        let since = *self.window_since.get_or_insert(now);
        if now.since(since) < WINDOW {
            return;
        }
        let before = std::mem::replace(&mut self.before, progress);
        self.window_since = Some(now);
        let late = Layer::ALL.into_iter().rev().find(|layer| {
            let (before, after) = (before[*layer as usize], progress[*layer as usize]);
            before.zip(after).is_some_and(|(before, after)| is_late(before, after, layer.fps(fps)))
        });
        let is_settling = self.changed_at.is_some_and(|at| now.since(at) < SETTLING);
        self.late_windows = if late.is_some() && !is_settling { self.late_windows + 1 } else { 0 };
        let highest = Layer::ALL.into_iter().rev().find(|one| progress[*one as usize].is_some());
        if self.late_windows >= LATE_WINDOWS {
            self.give_up(highest, now);
        } else {
            self.try_again(now);
        }
    }

    /// Gives up the highest layer that is encoded: it costs most, whichever encoder is late.
    fn give_up(&mut self, highest: Option<Layer>, now: MediaTime) {
        let lower = match highest {
            Some(Layer::Full) => Layer::Half,
            Some(Layer::Half) => Layer::Quarter,
            Some(Layer::Quarter) | None => return,
        };
        let relapses = self.changed_at.is_some_and(|at| now.since(at) < RELAPSE);
        if relapses && lower >= self.ceiling.min(Layer::Half) {
            self.patience = (2 * self.patience).min(MAX_PATIENCE);
        } else if !relapses {
            self.patience = PATIENCE;
        }
        (self.ceiling, self.changed_at, self.late_windows) = (lower, Some(now), 0);
    }

    fn try_again(&mut self, now: MediaTime) {
        if self.is_late() && self.changed_at.is_some_and(|at| now.since(at) >= self.patience) {
            self.ceiling = match self.ceiling {
                Layer::Quarter => Layer::Half,
                Layer::Half | Layer::Full => Layer::Full,
            };
            (self.changed_at, self.late_windows) = (Some(now), 0);
        }
    }
}

/// Whether an encoder missed frames, or needed more time for one than there is between two.
fn is_late(before: EncoderProgress, after: EncoderProgress, fps: u32) -> bool {
    let encoded = after.encoded.saturating_sub(before.encoded);
    let missed = after.missed.saturating_sub(before.missed);
    if encoded + missed < LEAST_FRAMES {
        return false;
    }
    let busy = after.busy.saturating_sub(before.busy);
    let is_slow = encoded > 0 && busy.as_secs_f64() / encoded as f64 > 1.0 / f64::from(fps.max(1));
    is_slow || missed as f64 > MISSED * (encoded + missed) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encoders that are called ten times a second, and what they have done.
    struct Run {
        late: LateEncoders,
        now: MediaTime,
        done: EncoderProgress,
    }

    impl Run {
        fn new() -> Self {
            Self {
                late: LateEncoders::default(),
                now: MediaTime::from_micros(1_000_000),
                done: EncoderProgress::default(),
            }
        }

        /// Lets seconds pass in which so many of 30 frames are missed, and each of the others takes
        /// so many milliseconds. Returns the ceiling.
        fn pass(&mut self, seconds: u32, missed: u64, ms: u64) -> Layer {
            for _ in 0..seconds * 10 {
                self.now = self.now + Duration::from_millis(100);
                let frames = if missed > 0 { (30 - missed) / 10 } else { 3 };
                self.done.encoded += frames;
                self.done.missed += missed / 10;
                self.done.busy += Duration::from_millis(ms) * frames as u32;
                let mut progress = [None; 3];
                progress[self.late.ceiling() as usize] = Some(self.done);
                self.late.update(progress, 30, self.now);
            }
            self.late.ceiling()
        }
    }

    #[test]
    fn a_layer_is_given_up_after_two_seconds_of_missed_frames_and_tried_again_later() {
        let mut run = Run::new();
        assert_eq!(run.pass(5, 0, 3), Layer::Full);
        assert_eq!(run.pass(1, 10, 30), Layer::Full, "one bad second is none");
        assert_eq!(run.pass(2, 0, 3), Layer::Full);
        assert_eq!(run.pass(3, 10, 30), Layer::Half);
        assert!(run.late.is_late());
        assert_eq!(run.pass(26, 0, 3), Layer::Half);
        assert_eq!(run.pass(5, 0, 3), Layer::Full);
        assert!(!run.late.is_late());
    }

    #[test]
    fn an_encoder_that_needs_longer_than_a_frame_lasts_is_late() {
        let mut run = Run::new();
        assert_eq!(run.pass(4, 0, 40), Layer::Half);
        assert_eq!(run.pass(6, 0, 40), Layer::Quarter);
        assert_eq!(run.pass(20, 0, 40), Layer::Quarter, "the smallest layer stays");
    }

    #[test]
    fn a_layer_that_is_late_again_and_again_is_tried_less_and_less() {
        let mut run = Run::new();
        let mut tries = 0;
        for _ in 0..1800 {
            let before = run.late.ceiling();
            let (missed, ms) = if before == Layer::Full { (10, 30) } else { (0, 3) };
            tries += u32::from(run.pass(1, missed, ms) > before);
        }
        assert!((3..=8).contains(&tries), "in half an hour: {tries}");
    }
}
