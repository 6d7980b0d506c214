//! Limits how often requested keyframes are encoded.

use std::time::Duration;

use crate::model::MediaTime;

/// The minimum time between two requested keyframes.
///
/// A keyframe is as large as about ten other frames. At two per second a layer stays within its
/// rate, however many viewers request one, and each viewer waits half a second at most.
pub const KEYFRAME_SPACING: Duration = Duration::from_millis(500);

/// How much less than [`KEYFRAME_SPACING`] is enough. At 30 fps, jitter moves every fifteenth frame
/// just before or just after the half second. Without the tolerance, half of the requests would
/// wait for the sixteenth.
const TOLERANCE: Duration = Duration::from_millis(10);

/// Merges keyframe requests: the first one is due at once, those that follow within
/// [`KEYFRAME_SPACING`] are answered by one keyframe.
///
/// A request stays open until a keyframe is encoded. If the encoder skips a frame, the next frame
/// becomes the keyframe.
#[derive(Clone, Debug, Default)]
pub struct KeyframePacer {
    is_requested: bool,
    last: Option<MediaTime>,
}

impl KeyframePacer {
    /// Records a request.
    pub fn request(&mut self) {
        self.is_requested = true;
    }

    /// Whether a frame that is encoded now must be a keyframe.
    pub fn is_due(&self, now: MediaTime) -> bool {
        self.is_requested
            && self.last.is_none_or(|last| now.since(last) >= KEYFRAME_SPACING - TOLERANCE)
    }

    /// Records that a keyframe was encoded, requested or not. It answers all earlier requests.
    pub fn on_keyframe(&mut self, now: MediaTime) {
        self.is_requested = false;
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
    fn the_first_request_is_due_at_once_and_nothing_is_due_without_one() {
        let mut pacer = KeyframePacer::default();
        assert!(!pacer.is_due(at(0)));
        pacer.request();
        assert!(pacer.is_due(at(0)));
        pacer.on_keyframe(at(0));
        assert!(!pacer.is_due(at(10_000)));
    }

    #[test]
    fn at_30_fps_every_fifteenth_frame_is_due_in_spite_of_jitter() {
        let mut pacer = KeyframePacer::default();
        let mut made = vec![];
        for index in 0..60u64 {
            let jitter = [0, 3_000, 1_000, 4_000][index as usize % 4];
            pacer.request();
            let now = MediaTime::from_micros(index * 100_000 / 3 + jitter);
            if pacer.is_due(now) {
                pacer.on_keyframe(now);
                made.push(index);
            }
        }
        assert_eq!(made, [0, 15, 30, 45]);
    }

    #[test]
    fn requests_within_half_a_second_are_answered_by_one_keyframe_at_its_end() {
        let mut pacer = KeyframePacer::default();
        let mut made = vec![];
        for ms in (0..2000).step_by(20) {
            pacer.request();
            if pacer.is_due(at(ms)) {
                pacer.on_keyframe(at(ms));
                made.push(ms);
            }
        }
        assert_eq!(made, [0, 500, 1000, 1500]);
    }

    #[test]
    fn a_request_stays_open_until_a_keyframe_is_encoded() {
        let mut pacer = KeyframePacer::default();
        pacer.request();
        assert!(pacer.is_due(at(0)) && pacer.is_due(at(33)), "the encoder may skip a frame");
        pacer.on_keyframe(at(33));
        pacer.request();
        assert!(!pacer.is_due(at(522)));
        assert!(pacer.is_due(at(523)));
    }
}
