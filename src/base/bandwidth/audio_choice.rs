//! Which layer of audio a path carries.

use std::time::Duration;

use super::Estimate;
use crate::model::{AudioContent, AudioLayer, Bitrate, MediaTime};

/// Chooses the layer of audio for one peer, from what is estimated of its path. It goes down soon, and
/// up after a while.
#[derive(Debug)]
pub struct AudioChoice {
    layer: AudioLayer,
    /// The other layer that the path asks for, and since when.
    other: Option<(AudioLayer, MediaTime)>,
    lossy_until: Option<MediaTime>,
}

/// What a path carries audio for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioUse {
    /// What the audio is. Music has no in-band FEC in any case, so losses do not change its layer:
    /// copies repair them.
    pub content: AudioContent,
    /// Whether it has two channels, and the other end takes both.
    pub is_stereo: bool,
    /// Whether video is sent beside it.
    pub has_video: bool,
}

/// Below this rate each kbit/s of audio is missed in the picture.
const NARROW: Bitrate = Bitrate::from_kbps(250);

/// From this rate on, a narrow path is not narrow any more.
const NOT_NARROW: Bitrate = Bitrate::from_kbps(300);

/// From this rate on, full band costs nothing that is seen, and below the second one it does.
const AMPLE: (Bitrate, Bitrate) = (Bitrate::from_kbps(800), Bitrate::from_kbps(600));

/// The same where no video is sent.
const AMPLE_FOR_AUDIO: (Bitrate, Bitrate) = (Bitrate::from_kbps(350), Bitrate::from_kbps(250));

/// From this loss on a voice needs in-band FEC, which full band has not.
const LOSSY: f64 = 0.03;

/// For how long after such losses it is expected to need it.
const LOSSY_LASTS: Duration = Duration::from_secs(30);

/// How long a rate must last: a probe may fail, a queue may be full for a moment.
const DOWN_AFTER: Duration = Duration::from_millis(500);
const UP_AFTER: Duration = Duration::from_secs(4);

impl AudioChoice {
    /// Of a path of which that is estimated before anything is sent.
    pub fn new(estimate: &Estimate) -> Self {
        let is_narrow = estimate.target < NARROW && !estimate.is_testing;
        let layer = if is_narrow { AudioLayer::Low } else { AudioLayer::Standard };
        Self { layer, other: None, lossy_until: None }
    }

    /// The layer that was chosen last.
    pub const fn layer(&self) -> AudioLayer {
        self.layer
    }

    /// The layer at that time. `estimate` is of the path.
    pub fn update(&mut self, estimate: &Estimate, used: AudioUse, now: MediaTime) -> AudioLayer {
        if estimate.is_testing {
            // The rate is low for a moment only.
            return self.layer;
        }
        if estimate.loss >= LOSSY {
            self.lossy_until = Some(now + LOSSY_LASTS);
        }
        let suited = self.suited(estimate.target, used, now);
        let since = match self.other {
            Some((layer, since)) if layer == suited => since,
            Some(_) | None => now,
        };
        self.other = (suited != self.layer).then_some((suited, since));
        let after = if suited < self.layer { DOWN_AFTER } else { UP_AFTER };
        if self.other.is_some() && now.since(since) >= after {
            (self.layer, self.other) = (suited, None);
        }
        self.layer
    }

    fn suited(&self, target: Bitrate, used: AudioUse, now: MediaTime) -> AudioLayer {
        let narrow = if self.layer == AudioLayer::Low { NOT_NARROW } else { NARROW };
        let (from, below) = if used.has_video { AMPLE } else { AMPLE_FOR_AUDIO };
        let is_full = self.layer >= AudioLayer::FullBand;
        let ample = if is_full { below } else { from };
        let is_lossy = used.content == AudioContent::Speech
            && self.lossy_until.is_some_and(|until| now < until);
        if target < narrow {
            AudioLayer::Low
        } else if target < ample || is_lossy {
            AudioLayer::Standard
        } else {
            match used.content {
                AudioContent::Speech => AudioLayer::FullBand,
                AudioContent::Music if used.is_stereo => AudioLayer::StereoMusic,
                AudioContent::Music => AudioLayer::Music,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandwidth::BandwidthEstimator;

    /// A path whose estimate lasts, and the layers that are chosen for it.
    struct Path {
        choice: AudioChoice,
        estimate: Estimate,
        used: AudioUse,
        ms: u64,
    }

    impl Path {
        fn new(has_video: bool) -> Self {
            let used = AudioUse { content: AudioContent::Speech, is_stereo: false, has_video };
            let rate = Bitrate::from_kbps;
            let estimate = BandwidthEstimator::new(rate(500), rate(50)..=rate(30_000)).estimate();
            Self { choice: AudioChoice::new(&estimate), estimate, used, ms: 0 }
        }

        fn at(&mut self, kbps: u64, seconds: f64) -> AudioLayer {
            self.estimate.target = Bitrate::from_kbps(kbps);
            let end = self.ms + (seconds * 1000.0) as u64;
            while self.ms < end {
                self.ms += 100;
                let now = MediaTime::from_micros(self.ms * 1000);
                self.choice.update(&self.estimate, self.used, now);
            }
            self.choice.layer
        }
    }

    use AudioLayer::{FullBand, Low, Standard};

    #[test]
    fn a_narrow_path_soon_gets_the_low_layer_and_a_wide_one_the_full_band_later() {
        let mut path = Path::new(true);
        assert_eq!(path.at(500, 20.0), Standard);
        assert_eq!([path.at(240, 0.4), path.at(240, 0.4)], [Standard, Low]);
        assert_eq!(path.at(290, 20.0), Low, "near the threshold it stays");
        assert_eq!([path.at(310, 3.9), path.at(310, 0.4)], [Low, Standard]);
        assert_eq!([path.at(900, 3.9), path.at(900, 0.4)], [Standard, FullBand]);
        assert_eq!(path.at(650, 20.0), FullBand);
        assert_eq!([path.at(590, 0.4), path.at(590, 0.4)], [FullBand, Standard]);
        assert_eq!(path.at(900, 3.0), Standard);
        assert_eq!(path.at(700, 0.2), Standard);
        assert_eq!(path.at(900, 3.9), Standard, "the time begins anew");
    }

    #[test]
    fn without_video_less_suffices_for_the_full_band() {
        let mut path = Path::new(false);
        assert_eq!(path.at(500, 5.0), FullBand);
        assert_eq!(path.at(260, 5.0), FullBand);
        assert_eq!(path.at(240, 5.0), Low);
        assert_eq!(AudioChoice::new(&path.estimate).layer(), Low, "from the first packet on");
    }

    #[test]
    fn losses_need_the_layer_with_in_band_fec_and_tests_of_the_rate_change_nothing() {
        let mut path = Path::new(true);
        path.at(2000, 5.0);
        path.estimate.loss = 0.02;
        assert_eq!(path.at(2000, 5.0), FullBand, "copies repair few");
        path.estimate.loss = 0.05;
        assert_eq!(path.at(2000, 1.0), Standard);
        path.estimate.loss = 0.0;
        assert_eq!([path.at(2000, 29.0), path.at(2000, 6.0)], [Standard, FullBand]);
        path.estimate.is_testing = true;
        assert_eq!(path.at(200, 2.0), FullBand);
    }
    #[test]
    fn music_has_a_layer_of_its_own_which_losses_do_not_change() {
        let mut path = Path::new(true);
        path.used.content = AudioContent::Music;
        assert_eq!([path.at(2000, 3.9), path.at(2000, 0.4)], [Standard, AudioLayer::Music]);
        path.used.is_stereo = true;
        assert_eq!(path.at(2000, 4.1), AudioLayer::StereoMusic);
        path.used.is_stereo = false;
        path.estimate.loss = 0.1;
        assert_eq!(path.at(2000, 5.0), AudioLayer::Music);
        assert_eq!(path.at(500, 1.0), Standard);
        path.estimate.loss = 0.0;
        path.at(2000, 40.0);
        path.used.content = AudioContent::Speech;
        assert_eq!(path.at(2000, 1.0), FullBand);
    }
}
