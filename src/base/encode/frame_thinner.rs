//! Leaves out frames of the source, evenly.

use std::time::Duration;

use crate::model::{Bitrate, Layer, MediaTime, Size};

/// Chooses the frames of a source that a layer has: fewer than the source for the smallest layer,
/// and fewer still at low rates ([`Layer::fps_at`]).
///
/// It is pure: it sees only the capture times of the frames.
#[derive(Clone, Debug)]
pub struct FrameThinner {
    layer: Layer,
    source_fps: u32,
    fps: u32,
    last: Option<MediaTime>,
}

/// By how much a rate must exceed the one at which frames were left out before they come back.
const BACK_MARGIN: f64 = 1.15;

impl FrameThinner {
    /// A thinner for a source of about that frame rate.
    pub const fn new(layer: Layer, source_fps: u32) -> Self {
        Self { layer, source_fps, fps: layer.fps(source_fps), last: None }
    }

    /// Chooses the frame rate for a target rate of the layer, with hysteresis. Returns whether it is
    /// another one.
    pub fn follow(&mut self, source: Size, target: Bitrate) -> bool {
        let at = |rate| self.layer.fps_at(source, self.source_fps, rate);
        let cautious = Bitrate::from_bps((target.as_bps() as f64 / BACK_MARGIN) as u64);
        let fps = self.fps.clamp(at(cautious), at(target));
        std::mem::replace(&mut self.fps, fps) != fps
    }

    /// The frames per second that are left, about.
    pub const fn fps(&self) -> u32 {
        self.fps
    }

    /// Whether the source has more frames.
    pub const fn leaves_out(&self) -> bool {
        self.fps < self.source_fps
    }

    /// Whether the layer has the frame that was captured at that time.
    pub fn takes(&mut self, time: MediaTime) -> bool {
        let takes = self.last.is_none_or(|last| time < last || time.since(last) >= self.spacing());
        if takes {
            self.last = Some(time);
        }
        takes
    }

    /// The least time between two frames.
    const fn spacing(&self) -> Duration {
        // Three quarters: the frames of a camera come earlier and later than they should.
        if self.leaves_out() {
            Duration::from_millis(750 / self.fps as u64)
        } else {
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: Size = Size::new(1280, 720);

    /// The numbers of the frames of a source of 30 fps that are taken, of half a second.
    fn taken(thinner: &mut FrameThinner) -> Vec<u64> {
        let time = |n: u64| MediaTime::from_micros(n * 1_000_000 / 30 + 3000 * (n % 2));
        (0..16).filter(|n| thinner.takes(time(*n))).collect()
    }

    #[test]
    fn frames_are_left_out_evenly_as_the_rate_falls() {
        let mut at = [150, 45, 33].map(|kbps| {
            let mut thinner = FrameThinner::new(Layer::Quarter, 30);
            thinner.follow(CAMERA, Bitrate::from_kbps(kbps));
            taken(&mut thinner)
        });
        at[0].truncate(4);
        assert_eq!(at[0], [0, 2, 4, 6]);
        assert_eq!(at[1], [0, 3, 6, 9, 12, 15]);
        assert_eq!(at[2], [0, 4, 8, 12]);
        assert_eq!(taken(&mut FrameThinner::new(Layer::Half, 30)).len(), 16);
    }

    #[test]
    fn a_rate_near_the_threshold_does_not_change_the_frame_rate_again_and_again() {
        let mut thinner = FrameThinner::new(Layer::Quarter, 30);
        let mut follow = |kbps| (thinner.follow(CAMERA, Bitrate::from_kbps(kbps)), thinner.fps());
        assert_eq!(follow(53), (false, 15));
        assert_eq!(follow(52), (true, 10));
        assert_eq!(follow(59), (false, 10));
        assert_eq!(follow(62), (true, 15));
        assert_eq!(follow(20), (true, 7));
        assert_eq!(follow(38), (false, 7));
        assert_eq!(follow(150), (true, 15));
    }
}
