//! Chooses which of a camera's formats to use.

use nokhwa::utils::{CameraFormat, FrameFormat};

use super::pixels::PixelFormat;

/// The wanted number of pixels in a frame: 1280x720.
const WANTED_PIXELS: f64 = 1280.0 * 720.0;
/// The wanted frame rate, in frames per second.
const WANTED_FPS: f64 = 30.0;

/// All formats that can be converted.
pub(super) const CONVERTIBLE: &[FrameFormat] = &[
    FrameFormat::YUYV,
    FrameFormat::NV12,
    FrameFormat::MJPEG,
    FrameFormat::RAWRGB,
    FrameFormat::RAWBGR,
    FrameFormat::GRAY,
];

/// The camera's format nearest to 1280x720 at 30 fps; `None` if no format is usable.
///
/// A low frame rate weighs more than a low resolution, because viewers notice it more. Too many
/// pixels weigh more than too few, because they cost encoding time for all receivers. Among equal
/// formats the one that is cheapest to convert wins, and colour before grey.
pub(super) fn best_format(formats: &[CameraFormat]) -> Option<CameraFormat> {
    formats
        .iter()
        .filter(|format| format.width() >= 16 && format.height() >= 16 && format.frame_rate() > 0)
        .copied()
        .min_by(|one, other| cost(one).total_cmp(&cost(other)))
}

fn cost(format: &CameraFormat) -> f64 {
    let (width, height) = (f64::from(format.width()), f64::from(format.height()));
    let fps = f64::from(format.frame_rate());
    let size = (width * height / WANTED_PIXELS).ln();
    let size = if size > 0.0 { 2.0 * size } else { -size };
    let speed = if fps < WANTED_FPS {
        3.0 * (1.0 - fps / WANTED_FPS)
    } else {
        0.2 * (fps / WANTED_FPS - 1.0)
    };
    let shape = if (width / height - 16.0 / 9.0).abs() < 0.02 { 0.0 } else { 0.1 };
    let kind = match format.format() {
        FrameFormat::YUYV => 0.0,
        FrameFormat::NV12 => 0.01,
        FrameFormat::MJPEG => 0.02,
        FrameFormat::RAWRGB | FrameFormat::RAWBGR => 0.03,
        FrameFormat::GRAY => 3.0,
    };
    size + speed + shape + kind
}

impl From<FrameFormat> for PixelFormat {
    fn from(format: FrameFormat) -> Self {
        match format {
            FrameFormat::MJPEG => Self::Mjpeg,
            FrameFormat::YUYV => Self::Yuyv,
            FrameFormat::NV12 => Self::Nv12,
            FrameFormat::GRAY => Self::Grey,
            FrameFormat::RAWRGB => Self::Rgb,
            FrameFormat::RAWBGR => Self::Bgr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(formats: &[(u32, u32, FrameFormat, u32)]) -> Option<(u32, u32, FrameFormat, u32)> {
        let formats: Vec<_> = formats
            .iter()
            .map(|(width, height, kind, fps)| CameraFormat::new_from(*width, *height, *kind, *fps))
            .collect();
        best_format(&formats)
            .map(|best| (best.width(), best.height(), best.format(), best.frame_rate()))
    }

    #[test]
    fn a_typical_webcam_runs_at_720p_in_jpeg_because_raw_is_too_slow_over_usb() {
        use FrameFormat::{MJPEG, YUYV};
        let formats = [
            (640, 480, YUYV, 30),
            (1280, 720, YUYV, 10),
            (1920, 1080, YUYV, 5),
            (640, 480, MJPEG, 30),
            (1280, 720, MJPEG, 30),
            (1920, 1080, MJPEG, 30),
        ];
        assert_eq!(best(&formats), Some((1280, 720, MJPEG, 30)));
        assert_eq!(best(&formats[..3]), Some((640, 480, YUYV, 30)), "frame rate before size");
    }

    #[test]
    fn among_equal_formats_raw_and_colour_win() {
        use FrameFormat::{GRAY, MJPEG, YUYV};
        let both = [(1280, 720, MJPEG, 30), (1280, 720, GRAY, 30), (1280, 720, YUYV, 30)];
        assert_eq!(best(&both), Some((1280, 720, YUYV, 30)));
        assert_eq!(best(&[(340, 340, GRAY, 15)]), Some((340, 340, GRAY, 15)), "better than none");
        assert_eq!(best(&[(0, 0, YUYV, 30), (640, 480, YUYV, 0)]), None);
    }
}
