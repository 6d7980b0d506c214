//! Parses the header line of a Y4M file.

use super::colour_format::ColourFormat;
use crate::{
    capture::{MAX_FPS, MAX_FRAME_SIZE, MIN_FRAME_SIZE},
    model::Size,
};

/// The parsed header line of a Y4M file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Pixels across in the file.
    pub(super) width: usize,
    /// Pixels down in the file.
    pub(super) height: usize,
    /// The frame rate; `None` if the header gives none.
    pub(super) rate: Option<FrameRate>,
    /// The pixel aspect ratio: a pixel's width and height, in any unit.
    pub(super) pixel_aspect: (u32, u32),
    /// How the samples are stored.
    pub(super) colour_format: ColourFormat,
    /// Whether 0 is black and 255 white, instead of 16 and 235.
    pub(super) is_full_range: bool,
}

/// A frame rate, as a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FrameRate {
    /// The number of frames in `seconds` seconds.
    pub(super) frames: u64,
    /// Never 0.
    pub(super) seconds: u64,
}

/// The highest plausible rate in frames per second. A higher value is the unit of a clock.
const MAX_RATE: u64 = 1000;

/// Slower videos are repeated at this rate, in frames per second, so that a new viewer does not
/// wait long for the first frame.
const MIN_OUTPUT_RATE: u64 = 5;

/// The largest plausible ratio between a pixel's sides. Beyond it the header is wrong.
const MAX_PIXEL_ASPECT: u32 = 16;

impl Header {
    /// Parses the header line. Only the fields that are needed to read a frame must be present and
    /// valid.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace();
        if fields.next() != Some("YUV4MPEG2") {
            return Err("it does not begin with YUV4MPEG2".to_owned());
        }
        let (mut width, mut height) = (None, None);
        let (mut rate, mut pixel, mut is_full_range) = (None, (1, 1), false);
        let (mut colours, mut older_colours) = (None, None);
        for field in fields {
            let mut letters = field.chars();
            let (tag, value) = (letters.next(), letters.as_str());
            match tag {
                Some('W') => width = Some(parse_side(value)?),
                Some('H') => height = Some(parse_side(value)?),
                Some('F') => rate = FrameRate::parse(value),
                Some('A') => pixel = parse_aspect(value).unwrap_or((1, 1)),
                Some('C') => colours = Some(value),
                Some('X') => {
                    let (key, value) = value.split_once('=').unwrap_or((value, ""));
                    is_full_range |= (key, value) == ("COLORRANGE", "FULL");
                    older_colours = older_colours.or((key == "YSCSS").then_some(value));
                }
                // Interlacing, and tags of later versions.
                Some(_) | None => {}
            }
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err("its header gives no width and height".to_owned());
        };
        check_size(width, height)?;
        let colours = ColourFormat::parse(colours.or(older_colours).unwrap_or("420"))?;
        Ok(Self { width, height, rate, pixel_aspect: pixel, colour_format: colours, is_full_range })
    }

    /// The size of a frame without an odd last row or column.
    pub(super) fn even_size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }

    /// The size of an output frame: scaled to square pixels, and limited to [`MAX_FRAME_SIZE`].
    pub(super) fn output_size(&self) -> Size {
        let Size { width, height } = self.even_size();
        let (across, down) = self.pixel_aspect;
        if across == down {
            return Size { width, height };
        }
        let (width, height) =
            (f64::from(width) * f64::from(across) / f64::from(down), f64::from(height));
        let max = f64::from(MAX_FRAME_SIZE.width);
        let pixels = f64::from(MAX_FRAME_SIZE.width * MAX_FRAME_SIZE.height);
        let scale = (max / width).min(max / height).min((pixels / width / height).sqrt()).min(1.0);
        // To the nearest even number.
        let even = |side: f64| ((side * scale / 2.0).round() * 2.0) as u32;
        Size::new(even(width).max(MIN_FRAME_SIZE.width), even(height).max(MIN_FRAME_SIZE.height))
    }
}

impl FrameRate {
    /// Parses `30:1` or `30000:1001`, and `30` or `29.97` as some programs write it. `None` for
    /// `0:0`, which means unknown, and for an implausible rate.
    fn parse(text: &str) -> Option<Self> {
        let (frames, seconds) = match text.split_once([':', '/']) {
            Some((frames, seconds)) => (frames.parse::<u32>().ok()?, seconds.parse::<u32>().ok()?),
            None => ((text.parse::<f64>().ok()? * 1000.0).round() as u32, 1000),
        };
        let rate = Self { frames: frames.into(), seconds: seconds.into() };
        let is_plausible = frames > 0 && seconds > 0 && rate.frames <= MAX_RATE * rate.seconds;
        is_plausible.then_some(rate)
    }

    /// The rate at which a video of this rate is sent. Frames are skipped if the video is faster
    /// than [`MAX_FPS`] and repeated if it is slower than [`MIN_OUTPUT_RATE`].
    pub(super) fn output_rate(self) -> Self {
        let per_second = |frames: u64| Self { frames, seconds: 1 };
        if self.frames > u64::from(MAX_FPS) * self.seconds {
            per_second(MAX_FPS.into())
        } else if self.frames < MIN_OUTPUT_RATE * self.seconds {
            per_second(MIN_OUTPUT_RATE)
        } else {
            self
        }
    }

    /// The index of the frame of a video of this rate that is due as output frame number
    /// `output_index` at the rate `output`.
    pub(super) fn source_index(self, output_index: u64, output: Self) -> u64 {
        let product = |factors: [u64; 3]| factors.into_iter().map(u128::from).product::<u128>();
        let index = product([output_index, self.frames, output.seconds])
            / product([self.seconds, output.frames, 1]);
        u64::try_from(index).unwrap_or(u64::MAX)
    }
}

fn parse_side(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no width or height"))
}

/// Parses a pixel aspect ratio. `None` for `0:0`, which means unknown, and for an implausible
/// ratio.
fn parse_aspect(text: &str) -> Option<(u32, u32)> {
    let (across, down) = text.split_once([':', '/'])?;
    let (across, down) = (across.parse::<u32>().ok()?, down.parse::<u32>().ok()?);
    let max = |side: u32| side.saturating_mul(MAX_PIXEL_ASPECT);
    (across > 0 && down > 0 && across <= max(down) && down <= max(across)).then_some((across, down))
}

/// Refuses a size that is out of range, before a buffer is allocated for it.
fn check_size(width: usize, height: usize) -> Result<(), String> {
    let (min, max) = (MIN_FRAME_SIZE.width as usize, MAX_FRAME_SIZE.width as usize);
    let pixels = (MAX_FRAME_SIZE.width * MAX_FRAME_SIZE.height) as usize;
    let fits = |side: usize| (min..=max).contains(&side);
    if fits(width) && fits(height) && width * height <= pixels {
        Ok(())
    } else {
        Err(format!("{width}x{height} is out of range, {MIN_FRAME_SIZE} to {MAX_FRAME_SIZE}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(rest: &str) -> Header {
        Header::parse(format!("YUV4MPEG2 {rest}").as_bytes()).unwrap()
    }

    fn rate(text: &str) -> Option<(u64, u64)> {
        header(&format!("W16 H16 F{text}")).rate.map(|rate| (rate.frames, rate.seconds))
    }

    #[test]
    fn a_rate_is_a_fraction_a_number_or_unknown() {
        assert_eq!(rate("25:1"), Some((25, 1)));
        assert_eq!(rate("30000:1001"), Some((30_000, 1001)));
        assert_eq!(rate("120:1"), Some((120, 1)));
        assert_eq!(rate("1:10"), Some((1, 10)));
        assert_eq!(rate("30"), Some((30_000, 1000)));
        assert_eq!(rate("29.97"), Some((29_970, 1000)));
        for unknown in ["0:0", "0:1", "30:0", "90000:1", "-5:1", "x", "", "NaN", "inf", "1e99"] {
            assert_eq!(rate(unknown), None, "{unknown}");
        }
        assert_eq!(header("W16 H16").rate, None);
    }

    #[test]
    fn fast_videos_skip_frames_slow_ones_repeat_them_and_the_speed_stays() {
        let rate = |frames, seconds| FrameRate { frames, seconds };
        for (file, output) in [
            (rate(30_000, 1001), rate(30_000, 1001)),
            (rate(60, 1), rate(60, 1)),
            (rate(120, 1), rate(60, 1)),
            (rate(1, 1), rate(5, 1)),
        ] {
            assert_eq!(file.output_rate(), output);
        }
        let sent = |file: FrameRate| {
            (0..6).map(|n| file.source_index(n, file.output_rate())).collect::<Vec<_>>()
        };
        assert_eq!(sent(rate(120, 1)), [0, 2, 4, 6, 8, 10]);
        assert_eq!(sent(rate(90, 1)), [0, 1, 3, 4, 6, 7]);
        assert_eq!(sent(rate(2, 1)), [0, 0, 0, 1, 1, 2]);
        assert_eq!(sent(rate(25, 1)), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn pixels_that_are_not_square_make_the_frame_wider_or_narrower() {
        let shown = |rest: &str| header(rest).output_size().to_string();
        assert_eq!(shown("W32 H16 A16:11"), "46x16");
        assert_eq!(shown("W720 H480 A8:9"), "640x480");
        assert_eq!(shown("W1440 H1080 A4:3"), "1920x1080");
        assert_eq!(shown("W3840 H2160 A4:3"), "3840x1620");
        assert_eq!(shown("W16 H1080 A1:16"), "16x1080");
        for square in ["A1:1", "A0:0", "A7:7", "A99:1", "A1:99", "A", "Ax:y", "A-1:1", ""] {
            assert_eq!(shown(&format!("W33 H17 {square}")), "32x16", "{square}");
        }
    }

    #[test]
    fn unknown_fields_and_odd_spacing_in_the_header_are_ignored() {
        let plain = header("W16 H18 F25:1");
        for odd in [
            "W16 H18 F25:1 Ip A1:1 C420jpeg\r",
            "  H18   W16 It F25:1 XYSCSS=420JPEG XFOO Q",
            "W16 H18 F25:1 C420 Im",
            "W16\tH18 F25:1 C420PALDV Ib XCOLORRANGE=LIMITED",
        ] {
            assert_eq!(header(odd), plain, "{odd}");
        }
        assert!(header("W16 H16 XCOLORRANGE=FULL").is_full_range);
    }
}
