//! The layers of a video: its sizes, frame rates and bitrates.

use serde::Serialize;

use super::{Bitrate, Size};

/// A simulcast layer: the same video at one of three qualities (the usual names of RFC 8853). The
/// smallest is the least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub enum Layer {
    /// A quarter of the captured width, at most about 15 frames per second.
    #[serde(rename = "q")]
    Quarter,
    /// Half of the captured width.
    #[serde(rename = "h")]
    Half,
    /// The captured size.
    #[serde(rename = "f")]
    Full,
}

/// The bitrates of a layer, without the headers of packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerRates {
    /// Below it, the next smaller layer looks better.
    pub min: Bitrate,
    /// At which a moving face looks good, see [`usual_bitrate`].
    pub usual: Bitrate,
    /// Above it, more bits are hardly seen.
    pub max: Bitrate,
}

/// The smallest side of a layer, in pixels: what OpenH264 accepts.
const MIN_SIDE: u32 = 16;

/// The most frames per second of the smallest layer: more motion at this size is hardly seen, and
/// costs the sharpness that is.
const QUARTER_FPS: u32 = 15;

/// The part of its usual bitrate from which the smallest layer has all of its frames. Below it,
/// fewer frames are sharper, and OpenH264 leaves out some by itself, unevenly.
const QUARTER_FULL_RATE: f64 = 0.35;

impl Layer {
    /// All layers, the smallest first.
    pub const ALL: [Self; 3] = [Self::Quarter, Self::Half, Self::Full];

    /// The name on the wire and in `--json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quarter => "q",
            Self::Half => "h",
            Self::Full => "f",
        }
    }

    /// How often the captured width is halved.
    pub const fn halvings(self) -> u32 {
        match self {
            Self::Full => 0,
            Self::Half => 1,
            Self::Quarter => 2,
        }
    }

    /// The size of this layer of a source of that size. Video that is too small is not halved.
    pub fn size(self, source: Size) -> Size {
        (0..self.halvings()).fold(source, |size, _| halved(size).unwrap_or(size))
    }

    /// The frames per second of this layer of a source with `fps`.
    pub const fn fps(self, fps: u32) -> u32 {
        match self {
            Self::Quarter if fps > QUARTER_FPS => QUARTER_FPS,
            Self::Quarter | Self::Half | Self::Full => fps,
        }
    }

    /// The frames per second of this layer at that bitrate. Only the smallest layer has fewer of
    /// them at low rates, as there is no smaller one to change to: 15 from 53 kbit/s on, 10 from
    /// 35 kbit/s on, else 7, of 1280x720@30.
    pub fn fps_at(self, source: Size, fps: u32, rate: Bitrate) -> u32 {
        let all = self.fps(fps);
        match self {
            Self::Full | Self::Half => all,
            Self::Quarter => {
                let rate = rate.as_bps() as f64;
                let needed = QUARTER_FULL_RATE * self.rates(source, fps).usual.as_bps() as f64;
                let steps = [(1.0, all), (2.0 / 3.0, all * 2 / 3)];
                let fitting = steps.into_iter().find(|(part, _)| rate >= needed * part);
                fitting.map_or(all / 2, |(_, fps)| fps).max(1)
            }
        }
    }

    /// The bitrates of this layer of a source with that size and frame rate: 900 to 2500 kbit/s
    /// for the full layer of 1280x720@30, 250 to 800 for the half, 30 to 200 for the quarter.
    pub fn rates(self, source: Size, fps: u32) -> LayerRates {
        let usual = usual_bitrate(self.size(source), self.fps(fps));
        let (min, max) = match self {
            Self::Full => (0.6, 5.0 / 3.0),
            Self::Half => (0.416, 4.0 / 3.0),
            Self::Quarter => (0.2, 4.0 / 3.0),
        };
        LayerRates { min: scaled(usual, min), usual, max: scaled(usual, max) }
    }
}

/// The bitrate at which a moving face looks good: 1.5 Mbit/s for 1280x720@30, 600 kbit/s for
/// 640x360@30, 150 kbit/s for 320x180@15.
///
/// Bits per pixel fall with the number of pixels: rate = 1.5 Mbit/s × (pixels per second ÷ those
/// of 1280x720@30)^0.66, clamped to 50 kbit/s to 6 Mbit/s.
pub fn usual_bitrate(size: Size, fps: u32) -> Bitrate {
    let pixels = f64::from(size.width) * f64::from(size.height) * f64::from(fps.max(1));
    let share = pixels / (1280.0 * 720.0 * 30.0);
    let bps = (1_500_000.0 * share.powf(0.66)).clamp(50_000.0, 6_000_000.0);
    Bitrate::from_kbps((bps / 10_000.0).round() as u64 * 10)
}

/// Half of a size; `None` if that is too small to be encoded.
pub fn halved(size: Size) -> Option<Size> {
    let half = Size::new(size.width / 2, size.height / 2);
    (half.width >= MIN_SIDE && half.height >= MIN_SIDE).then_some(half)
}

fn scaled(rate: Bitrate, factor: f64) -> Bitrate {
    Bitrate::from_bps((rate.as_bps() as f64 * factor).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: Size = Size::new(1280, 720);

    #[test]
    fn the_rates_of_three_layers_are_those_documented() {
        let kbps = |layer: Layer| {
            let LayerRates { min, usual, max } = layer.rates(CAMERA, 30);
            [min, usual, max].map(|rate| rate.as_bps() / 1000)
        };
        assert_eq!(kbps(Layer::Full), [900, 1500, 2500]);
        assert_eq!(kbps(Layer::Half), [249, 600, 800]);
        assert_eq!(kbps(Layer::Quarter), [30, 150, 200]);
        let usual = |width, height, fps| usual_bitrate(Size::new(width, height), fps);
        assert_eq!(usual(16, 16, 1), Bitrate::from_kbps(50));
        assert_eq!(usual(3840, 2160, 60), Bitrate::from_kbps(6000));
    }

    #[test]
    fn the_smallest_layer_has_fewer_frames_at_rates_that_are_too_low_for_all() {
        let fps = |layer: Layer, kbps| layer.fps_at(CAMERA, 30, Bitrate::from_kbps(kbps));
        let quarter = [150, 53, 52, 35, 34, 1].map(|kbps| fps(Layer::Quarter, kbps));
        assert_eq!(quarter, [15, 15, 10, 10, 7, 7]);
        assert_eq!([fps(Layer::Half, 100), fps(Layer::Full, 100)], [30, 30]);
        assert_eq!(Layer::Quarter.fps_at(CAMERA, 1, Bitrate::from_kbps(1)), 1);
    }

    #[test]
    fn the_sizes_of_the_layers_are_halves_as_long_as_they_can_be_encoded() {
        let sizes = |source| Layer::ALL.map(|layer| layer.size(source));
        let expected = [Size::new(320, 180), Size::new(640, 360), CAMERA];
        assert_eq!(sizes(CAMERA), expected);
        assert_eq!(sizes(Size::new(320, 180))[0], Size::new(80, 44), "even sides");
        let tiny = Size::new(64, 36);
        assert_eq!(sizes(tiny), [Size::new(32, 18), Size::new(32, 18), tiny]);
    }
}
