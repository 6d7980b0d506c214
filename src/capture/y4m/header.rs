//! What a film's first line says.

use super::colours::Colours;
use crate::{
    capture::{MAX_FPS, MAX_PATTERN, MIN_PATTERN},
    model::Size,
};

/// What a film's first line says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Pixels across in the file.
    pub(super) width: usize,
    /// Pixels down in the file.
    pub(super) height: usize,
    /// How fast it is; `None` if the line does not say.
    pub(super) rate: Option<Rate>,
    /// A pixel's width and height, in any unit.
    pub(super) pixel: (u32, u32),
    /// How its pixels are kept.
    pub(super) colours: Colours,
    /// Whether 0 is black and 255 white, instead of 16 and 235.
    pub(super) is_full_range: bool,
}

/// Pictures a second, as a fraction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rate {
    /// Pictures in `seconds` seconds.
    pub(super) frames: u64,
    /// Not 0.
    pub(super) seconds: u64,
}

/// Rates beyond are no speed but the unit of a clock.
const FASTEST: u64 = 1000;

/// Slower films are shown so often a second all the same: whoever comes waits for a picture.
const SLOWEST_SHOWN: u64 = 5;

/// A pixel so much wider or higher is none: the line is wrong.
const LONGEST_PIXEL: u32 = 16;

impl Header {
    /// Reads the line. Only what a picture cannot be read without has to be there and right.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("YUV4MPEG2") {
            return Err("it does not begin with YUV4MPEG2".to_owned());
        }
        let (mut width, mut height) = (None, None);
        let (mut rate, mut pixel, mut is_full_range) = (None, (1, 1), false);
        let (mut colours, mut older_colours) = (None, None);
        for word in words {
            let mut letters = word.chars();
            let (tag, value) = (letters.next(), letters.as_str());
            match tag {
                Some('W') => width = Some(side(value)?),
                Some('H') => height = Some(side(value)?),
                Some('F') => rate = Rate::parse(value),
                Some('A') => pixel = aspect(value).unwrap_or((1, 1)),
                Some('C') => colours = Some(value),
                Some('X') => {
                    let (key, value) = value.split_once('=').unwrap_or((value, ""));
                    is_full_range |= (key, value) == ("COLORRANGE", "FULL");
                    older_colours = older_colours.or((key == "YSCSS").then_some(value));
                }
                // Interlacing, and what later versions may add.
                Some(_) | None => {}
            }
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err("its header gives no width and height".to_owned());
        };
        check_size(width, height)?;
        let colours = Colours::named(colours.or(older_colours).unwrap_or("420"))?;
        Ok(Self { width, height, rate, pixel, colours, is_full_range })
    }

    /// The size that is cut out of the file's pictures: an odd last row or column is left out.
    pub(super) fn even(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }

    /// The size that is shown: pixels are square, and no more than are encoded.
    pub(super) fn shown(&self) -> Size {
        let Size { width, height } = self.even();
        let (across, down) = self.pixel;
        if across == down {
            return Size { width, height };
        }
        let (width, height) =
            (f64::from(width) * f64::from(across) / f64::from(down), f64::from(height));
        let most = f64::from(MAX_PATTERN.width);
        let pixels = f64::from(MAX_PATTERN.width * MAX_PATTERN.height);
        let fits = (most / width).min(most / height).min((pixels / width / height).sqrt()).min(1.0);
        // To the nearest even number.
        let side = |side: f64| ((side * fits / 2.0).round() * 2.0) as u32;
        let least = |side: u32, least: u32| side.max(least);
        Size::new(least(side(width), MIN_PATTERN.width), least(side(height), MIN_PATTERN.height))
    }
}

impl Rate {
    /// `30:1`, `30000:1001`, and `30` or `29.97` as some write it. `None` for `0:0`, which means
    /// that nobody knows, and for what cannot be.
    fn parse(text: &str) -> Option<Self> {
        let (frames, seconds) = match text.split_once([':', '/']) {
            Some((frames, seconds)) => (frames.parse::<u32>().ok()?, seconds.parse::<u32>().ok()?),
            None => ((text.parse::<f64>().ok()? * 1000.0).round() as u32, 1000),
        };
        let rate = Self { frames: frames.into(), seconds: seconds.into() };
        let is_speed = frames > 0 && seconds > 0 && rate.frames <= FASTEST * rate.seconds;
        is_speed.then_some(rate)
    }

    /// How fast a film of this rate is shown: pictures are left out or repeated where it is too
    /// fast or too slow.
    pub(super) fn shown(self) -> Self {
        let whole = |frames: u64| Self { frames, seconds: 1 };
        if self.frames > u64::from(MAX_FPS) * self.seconds {
            whole(MAX_FPS.into())
        } else if self.frames < SLOWEST_SHOWN * self.seconds {
            whole(SLOWEST_SHOWN)
        } else {
            self
        }
    }

    /// Which picture of a film of this rate is to be seen when so many were shown at the other.
    pub(super) fn position(self, shown: u64, at: Self) -> u64 {
        let wide = |factors: [u64; 3]| factors.into_iter().map(u128::from).product::<u128>();
        let position = wide([shown, self.frames, at.seconds]) / wide([self.seconds, at.frames, 1]);
        u64::try_from(position).unwrap_or(u64::MAX)
    }
}

fn side(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no width or height"))
}

/// `None` for `0:0`, which means that nobody knows, and for what cannot be.
fn aspect(text: &str) -> Option<(u32, u32)> {
    let (across, down) = text.split_once([':', '/'])?;
    let (across, down) = (across.parse::<u32>().ok()?, down.parse::<u32>().ok()?);
    let most = |side: u32| side.saturating_mul(LONGEST_PIXEL);
    (across > 0 && down > 0 && across <= most(down) && down <= most(across))
        .then_some((across, down))
}

/// Refused before a buffer is made of it.
fn check_size(width: usize, height: usize) -> Result<(), String> {
    let (min, max) = (MIN_PATTERN.width as usize, MAX_PATTERN.width as usize);
    let pixels = (MAX_PATTERN.width * MAX_PATTERN.height) as usize;
    let fits = |side: usize| (min..=max).contains(&side);
    if fits(width) && fits(height) && width * height <= pixels {
        Ok(())
    } else {
        Err(format!("{width}x{height} is out of range, {MIN_PATTERN} to {MAX_PATTERN}"))
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
    fn fast_films_lose_pictures_and_slow_ones_repeat_them_and_the_speed_stays() {
        let rate = |frames, seconds| Rate { frames, seconds };
        for (film, shown) in [
            (rate(30_000, 1001), rate(30_000, 1001)),
            (rate(60, 1), rate(60, 1)),
            (rate(120, 1), rate(60, 1)),
            (rate(1, 1), rate(5, 1)),
        ] {
            assert_eq!(film.shown(), shown);
        }
        let seen = |film: Rate| (0..6).map(|n| film.position(n, film.shown())).collect::<Vec<_>>();
        assert_eq!(seen(rate(120, 1)), [0, 2, 4, 6, 8, 10]);
        assert_eq!(seen(rate(90, 1)), [0, 1, 3, 4, 6, 7]);
        assert_eq!(seen(rate(2, 1)), [0, 0, 0, 1, 1, 2]);
        assert_eq!(seen(rate(25, 1)), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn pixels_that_are_not_square_make_the_picture_wider_or_narrower() {
        let shown = |rest: &str| header(rest).shown().to_string();
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
    fn a_line_is_read_whatever_else_is_in_it() {
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
