//! When a keyframe that was asked for is made.

use std::time::Duration;

use crate::model::MediaTime;

/// The least time between two keyframes that were asked for.
///
/// A keyframe costs as much as some ten other frames: at two a second a layer stays within its
/// rate however many viewers ask, and nobody waits longer than a blink.
pub const KEYFRAME_SPACING: Duration = Duration::from_millis(500);

/// How much sooner a picture may come: at 30 a second the fifteenth comes as often just before the
/// half second as just after it, and everybody would wait for the sixteenth.
const EARLY: Duration = Duration::from_millis(10);

/// Makes one keyframe of many requests: the first one at once, later ones together.
///
/// A request stays open until a keyframe was really made, so one that the encoder skipped is
/// made of the next frame.
#[derive(Clone, Debug, Default)]
pub struct KeyframePacer {
    is_wanted: bool,
    last: Option<MediaTime>,
}

impl KeyframePacer {
    /// Notes that somebody asked.
    pub fn request(&mut self) {
        self.is_wanted = true;
    }

    /// Whether a frame that is encoded now has to be a keyframe.
    pub fn is_due(&self, now: MediaTime) -> bool {
        self.is_wanted && self.last.is_none_or(|last| now.since(last) >= KEYFRAME_SPACING - EARLY)
    }

    /// Notes that a keyframe was made, asked for or not: it answers every request before it.
    pub fn made(&mut self, now: MediaTime) {
        self.is_wanted = false;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    #[test]
    fn the_first_request_is_due_at_once_and_nothing_is_due_unasked() {
        let mut pacer = KeyframePacer::default();
        assert!(!pacer.is_due(at(0)));
        pacer.request();
        assert!(pacer.is_due(at(0)));
        pacer.made(at(0));
        assert!(!pacer.is_due(at(10_000)));
    }

    #[test]
    fn of_30_pictures_a_second_the_fifteenth_is_due_though_none_comes_to_the_microsecond() {
        let mut pacer = KeyframePacer::default();
        let mut made = vec![];
        for index in 0..60u64 {
            let jitter = [0, 3_000, 1_000, 4_000][index as usize % 4];
            pacer.request();
            let now = MediaTime::from_micros(index * 100_000 / 3 + jitter);
            if pacer.is_due(now) {
                pacer.made(now);
                made.push(index);
            }
        }
        assert_eq!(made, [0, 15, 30, 45]);
    }

    #[test]
    fn requests_within_half_a_second_are_answered_together_at_its_end() {
        let mut pacer = KeyframePacer::default();
        let mut made = vec![];
        for ms in (0..2000).step_by(20) {
            pacer.request();
            if pacer.is_due(at(ms)) {
                pacer.made(at(ms));
                made.push(ms);
            }
        }
        assert_eq!(made, [0, 500, 1000, 1500]);
    }

    #[test]
    fn a_request_stays_open_until_a_keyframe_was_made() {
        let mut pacer = KeyframePacer::default();
        pacer.request();
        assert!(pacer.is_due(at(0)) && pacer.is_due(at(33)), "the encoder may skip a frame");
        pacer.made(at(33));
        pacer.request();
        assert!(!pacer.is_due(at(522)));
        assert!(pacer.is_due(at(523)));
    }
}
