//! Parses the text that names a camera or microphone source.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{devices::DeviceRef, files, model::Size};

/// The smallest frame of a test pattern or video file.
pub const MIN_FRAME_SIZE: Size = Size::new(16, 16);
/// The largest frame of any video source, and the largest that our H.264 encoder accepts.
pub const MAX_FRAME_SIZE: Size = Size::new(3840, 2160);
/// The highest frame rate, in frames per second.
pub const MAX_FPS: u32 = 60;
/// The lowest tone in hertz: the lower limit of human hearing.
pub const MIN_TONE_HZ: f32 = 20.0;
/// The highest tone in hertz: Opus drops higher frequencies.
pub const MAX_TONE_HZ: f32 = 20_000.0;

/// The source that video or audio is captured from:
/// `default`, `none`, `pattern[:1280x720@30]`, `busy[:1280x720@30]`, `tone[:440]`, `file:PATH` or
/// a device's name.
///
/// The keywords are case-insensitive. Parse with [`SourceSpec::for_camera`] or
/// [`SourceSpec::for_microphone`], which also refuse a source of the other medium.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceSpec {
    /// The device that the system prefers.
    Default,
    /// No source: nothing of this medium is captured.
    None,
    /// A moving test pattern with a machine-readable strip.
    Pattern {
        /// Size in pixels.
        size: Size,
        /// Frames per second.
        fps: u32,
    },
    /// A test pattern (`busy`) that needs the encoder's full bitrate, with the same strip.
    NoisePattern {
        /// Size in pixels.
        size: Size,
        /// Frames per second.
        fps: u32,
    },
    /// A steady sine.
    Tone {
        /// Frequency in hertz.
        hz: f32,
    },
    /// A Y4M file for a camera, a WAV file for a microphone; looped.
    File(PathBuf),
    /// A device.
    Device(DeviceRef),
}

/// Why a text names no source. The message lists the valid forms.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SpecError {
    /// The text is empty.
    #[error("a source cannot be empty; use {CHOICES}")]
    Empty,
    /// The text is similar to a keyword or is a bare file name.
    #[error("{text:?} is no source; did you mean {nearest:?}? Use {CHOICES}")]
    Unknown {
        /// The given text.
        text: String,
        /// The valid text that was probably meant.
        nearest: String,
    },
    /// The size or frame rate of a test pattern cannot be parsed.
    #[error(
        "{text:?} is no {keyword}; write {keyword}, {keyword}:1280x720, {keyword}:@15 or \
         {keyword}:1280x720@30"
    )]
    PatternFormat {
        /// The given text.
        text: String,
        /// The keyword that it begins with: `pattern` or `busy`.
        keyword: &'static str,
    },
    /// The width or height is odd.
    #[error(
        "a picture of {width}x{height} has an odd side, which H.264 cannot carry; use {nearest}"
    )]
    OddSide {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// The nearest even size.
        nearest: Size,
    },
    /// The size is too small or too large.
    #[error(
        "a picture of {width}x{height} is out of range; use {MIN_FRAME_SIZE} to {MAX_FRAME_SIZE}"
    )]
    SizeOutOfRange {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// The frame rate is too low or too high.
    #[error("{fps} pictures a second are out of range; use 1 to {MAX_FPS}")]
    FpsOutOfRange {
        /// The given frames per second.
        fps: u32,
    },
    /// The frequency of a tone cannot be parsed.
    #[error("{text:?} is no tone; write tone or tone:440, in hertz")]
    ToneFormat {
        /// The given text.
        text: String,
    },
    /// The frequency is too low or too high.
    #[error("a tone of {hz} Hz is out of range; use {MIN_TONE_HZ} to {MAX_TONE_HZ} Hz")]
    ToneOutOfRange {
        /// The given frequency in hertz.
        hz: f32,
    },
    /// No path follows `file:`.
    #[error("file: needs a path behind it, as in {example}")]
    NoPath {
        /// A complete example.
        example: &'static str,
    },
    /// An audio source was given for a camera.
    #[error(
        "{text:?} is a sound, not a picture; for a camera use default, none, \
         pattern[:1280x720@30], file:PATH.y4m or a camera's name (nearest: pattern)"
    )]
    NotACamera {
        /// The given text.
        text: String,
    },
    /// The text is not valid Unicode. Only a file's name may contain invalid Unicode.
    #[error("{text:?} is not valid text; use {CHOICES}")]
    NotText {
        /// The given text, with invalid parts replaced.
        text: String,
    },
    /// A video source was given for a microphone.
    #[error(
        "{text:?} is a picture, not a sound; for a microphone use default, none, tone[:440], \
         file:PATH.wav or a microphone's name (nearest: tone)"
    )]
    NotAMicrophone {
        /// The given text.
        text: String,
    },
}

const CHOICES: &str =
    "default, none, pattern[:1280x720@30], busy, tone[:440], file:PATH or a device's name";

const DEFAULT_SIZE: Size = Size::new(1280, 720);
const DEFAULT_FPS: u32 = 30;
const DEFAULT_HZ: f32 = 440.0;

impl SourceSpec {
    /// The path of the file, if the source is a file.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Default
            | Self::None
            | Self::Pattern { .. }
            | Self::NoisePattern { .. }
            | Self::Tone { .. }
            | Self::Device(_) => None,
        }
    }

    /// Whether the source of audio is a real microphone.
    #[must_use]
    pub const fn is_microphone(&self) -> bool {
        match self {
            Self::Default | Self::Device(_) => true,
            Self::None
            | Self::File(_)
            | Self::Pattern { .. }
            | Self::NoisePattern { .. }
            | Self::Tone { .. } => false,
        }
    }

    /// Parses the source for the camera. A file's name may contain invalid Unicode.
    ///
    /// # Errors
    /// [`SpecError`] names the fault and the valid forms.
    pub fn for_camera(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self, SpecError> {
        match Self::parse(text.as_ref())? {
            Self::Tone { .. } => Err(SpecError::NotACamera { text: lossy(text) }),
            spec @ (Self::Default
            | Self::None
            | Self::Pattern { .. }
            | Self::NoisePattern { .. }
            | Self::File(_)
            | Self::Device(_)) => Ok(spec),
        }
    }

    /// Parses the source for the microphone. A file's name may contain invalid Unicode.
    ///
    /// # Errors
    /// [`SpecError`] names the fault and the valid forms.
    pub fn for_microphone(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self, SpecError> {
        match Self::parse(text.as_ref())? {
            Self::Pattern { .. } | Self::NoisePattern { .. } => {
                Err(SpecError::NotAMicrophone { text: lossy(text) })
            }
            spec @ (Self::Default
            | Self::None
            | Self::Tone { .. }
            | Self::File(_)
            | Self::Device(_)) => Ok(spec),
        }
    }

    fn parse(text: &OsStr) -> Result<Self, SpecError> {
        match text.to_str() {
            Some(text) => text.parse(),
            None => match files::parse_file_spec(text) {
                Some(path) => Ok(Self::File(path)),
                None => Err(SpecError::NotText { text: lossy(text) }),
            },
        }
    }
}

fn lossy(text: impl AsRef<OsStr>) -> String {
    text.as_ref().to_string_lossy().into_owned()
}

impl FromStr for SourceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        let (keyword, value) = match text.split_once(':') {
            Some((keyword, value)) => (keyword.to_lowercase(), Some(value)),
            None => (text.to_lowercase(), None),
        };
        match (keyword.as_str(), value) {
            ("default", None) => Ok(Self::Default),
            ("none", None) => Ok(Self::None),
            ("pattern", value) => parse_size_and_fps(value, text, "pattern")
                .map(|(size, fps)| Self::Pattern { size, fps }),
            ("busy", value) => parse_size_and_fps(value, text, "busy")
                .map(|(size, fps)| Self::NoisePattern { size, fps }),
            ("tone", value) => parse_tone(value, text),
            ("file", value) => match value.map(str::trim).filter(|path| !path.is_empty()) {
                Some(path) => Ok(Self::File(files::expand_home(Path::new(path)))),
                None => Err(SpecError::NoPath { example: "file:clip.y4m or file:voice.wav" }),
            },
            _ => parse_device(text, &keyword, value),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::None => f.write_str("none"),
            Self::Pattern { size, fps } => write!(f, "pattern:{size}@{fps}"),
            Self::NoisePattern { size, fps } => write!(f, "busy:{size}@{fps}"),
            Self::Tone { hz } => write!(f, "tone:{hz}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Device(device) => f.write_str(&device.name),
        }
    }
}

/// Parses `[WIDTHxHEIGHT][@FPS]`. `text` is the whole source, for the error.
fn parse_size_and_fps(
    value: Option<&str>,
    text: &str,
    keyword: &'static str,
) -> Result<(Size, u32), SpecError> {
    let invalid = || SpecError::PatternFormat { text: text.to_owned(), keyword };
    let number = |part: &str| part.trim().parse::<u32>().map_err(|_| invalid());
    let (size, fps) = match value {
        None => ("", None),
        Some("") => return Err(invalid()),
        Some(value) => match value.split_once('@') {
            Some((size, fps)) => (size, Some(number(fps)?)),
            None => (value, None),
        },
    };
    let size = if size.is_empty() {
        DEFAULT_SIZE
    } else {
        let (width, height) = size.split_once(['x', 'X', '×']).ok_or_else(invalid)?;
        check_size(number(width)?, number(height)?)?
    };
    let fps = fps.unwrap_or(DEFAULT_FPS);
    if !(1..=MAX_FPS).contains(&fps) {
        return Err(SpecError::FpsOutOfRange { fps });
    }
    Ok((size, fps))
}

fn check_size(width: u32, height: u32) -> Result<Size, SpecError> {
    let fits = |side: u32, min: u32, max: u32| (min..=max).contains(&side);
    if !fits(width, MIN_FRAME_SIZE.width, MAX_FRAME_SIZE.width)
        || !fits(height, MIN_FRAME_SIZE.height, MAX_FRAME_SIZE.height)
    {
        return Err(SpecError::SizeOutOfRange { width, height });
    }
    let nearest = Size::new(width, height);
    if (nearest.width, nearest.height) == (width, height) {
        Ok(nearest)
    } else {
        Err(SpecError::OddSide { width, height, nearest })
    }
}

fn parse_tone(value: Option<&str>, text: &str) -> Result<SourceSpec, SpecError> {
    let Some(value) = value else { return Ok(SourceSpec::Tone { hz: DEFAULT_HZ }) };
    let number = value.trim().trim_end_matches("Hz").trim_end_matches("hz").trim_end();
    let hz: f32 = number.parse().map_err(|_| SpecError::ToneFormat { text: text.to_owned() })?;
    if !(MIN_TONE_HZ..=MAX_TONE_HZ).contains(&hz) {
        return Err(SpecError::ToneOutOfRange { hz });
    }
    Ok(SourceSpec::Tone { hz })
}

/// Takes the text as a device's name, unless it looks like a mistyped keyword or a bare file name.
fn parse_device(text: &str, keyword: &str, value: Option<&str>) -> Result<SourceSpec, SpecError> {
    const KEYWORDS: &[&str] = &["default", "none", "pattern", "busy", "tone", "file"];
    let unknown = |nearest: String| SpecError::Unknown { text: text.to_owned(), nearest };
    let with_value = |keyword: &str| match value {
        Some(value) => format!("{keyword}:{value}"),
        None => keyword.to_owned(),
    };
    // One typing error in a short keyword, two in a long one.
    let is_near =
        |known: &&&str| edit_distance(keyword, known) <= if known.len() > 5 { 2 } else { 1 };
    if let Some(known) = KEYWORDS.iter().find(is_near) {
        return Err(unknown(with_value(known)));
    }
    let lower = text.to_lowercase();
    if lower.ends_with(".y4m") || lower.ends_with(".wav") {
        return Err(unknown(format!("file:{text}")));
    }
    Ok(SourceSpec::Device(DeviceRef::typed(text)))
}

/// The edit distance of two texts: how many letters must be added, removed, replaced or swapped
/// with their neighbour (optimal string alignment).
fn edit_distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = usize::from(one[i - 1] != other[j - 1]);
                let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                least = least.min(rows[i - 1][j - 1] + replaced);
                if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(width: u32, height: u32, fps: u32) -> SourceSpec {
        SourceSpec::Pattern { size: Size::new(width, height), fps }
    }

    #[test]
    fn every_form_is_parsed_and_displayed_in_a_form_that_parses_again() {
        for (text, spec) in [
            ("default", SourceSpec::Default),
            ("None", SourceSpec::None),
            ("pattern", pattern(1280, 720, 30)),
            ("pattern:320x180@15", pattern(320, 180, 15)),
            ("pattern:640x360", pattern(640, 360, 30)),
            ("pattern:@1", pattern(1280, 720, 1)),
            ("busy:640x360@15", SourceSpec::NoisePattern { size: Size::new(640, 360), fps: 15 }),
            ("tone", SourceSpec::Tone { hz: 440.0 }),
            ("tone:997.5", SourceSpec::Tone { hz: 997.5 }),
            ("tone:1000Hz", SourceSpec::Tone { hz: 1000.0 }),
            ("file:/tmp/a:b.y4m", SourceSpec::File(PathBuf::from("/tmp/a:b.y4m"))),
            ("HD Webcam: HD Webcam", SourceSpec::Device(DeviceRef::typed("HD Webcam: HD Webcam"))),
            ("TONOR TC-777", SourceSpec::Device(DeviceRef::typed("TONOR TC-777"))),
        ] {
            assert_eq!(text.parse(), Ok(spec.clone()), "{text}");
            assert_eq!(spec.to_string().parse(), Ok(spec), "{text}");
        }
    }

    #[test]
    fn an_invalid_source_is_refused_with_the_valid_form() {
        for (text, error) in [
            ("", "a source cannot be empty"),
            ("patern:320x180", "did you mean \"pattern:320x180\"?"),
            ("defualt", "did you mean \"default\"?"),
            ("non", "did you mean \"none\"?"),
            ("clip.Y4M", "did you mean \"file:clip.Y4M\"?"),
            ("pattern:", "\"pattern:\" is no pattern; write pattern, pattern:1280x720"),
            ("pattern:axb", "\"pattern:axb\" is no pattern"),
            ("busy:axb", "\"busy:axb\" is no busy; write busy, busy:1280x720"),
            ("pattern:320x180@", "is no pattern"),
            ("pattern:-2x180", "is no pattern"),
            ("pattern:641x360", "641x360 has an odd side, which H.264 cannot carry; use 640x360"),
            ("pattern:14x16", "14x16 is out of range; use 16x16 to 3840x2160"),
            ("pattern:3842x2160", "out of range"),
            ("pattern:4294967295x16", "out of range"),
            ("pattern:@0", "0 pictures a second are out of range; use 1 to 60"),
            ("pattern:@61", "out of range"),
            ("tone:", "\"tone:\" is no tone"),
            ("tone:A", "\"tone:A\" is no tone"),
            ("tone:19", "19 Hz is out of range; use 20 to 20000 Hz"),
            ("tone:NaN", "out of range"),
            ("file:", "file: needs a path behind it"),
            ("file", "file: needs a path behind it"),
        ] {
            let found = text.parse::<SourceSpec>().unwrap_err().to_string();
            assert!(found.contains(error), "{text:?}: {found}");
        }
    }

    #[test]
    fn a_tone_is_refused_as_camera_and_a_pattern_as_microphone() {
        let camera = SourceSpec::for_camera("tone:440").unwrap_err().to_string();
        assert!(camera.starts_with("\"tone:440\" is a sound, not a picture; for a camera use"));
        let microphone = SourceSpec::for_microphone("pattern").unwrap_err().to_string();
        assert!(microphone.contains("is a picture, not a sound"), "{microphone}");
        assert_eq!(SourceSpec::for_camera("pattern"), Ok(pattern(1280, 720, 30)));
        assert_eq!(SourceSpec::for_microphone("tone"), Ok(SourceSpec::Tone { hz: 440.0 }));
    }

    #[test]
    fn a_tilde_after_file_is_the_home_folder() {
        let home = std::env::home_dir().expect("the tests run with a home folder");
        let spec = SourceSpec::for_camera("file:~/clip.y4m");
        assert_eq!(spec, Ok(SourceSpec::File(home.join("clip.y4m"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_name_with_invalid_unicode_is_accepted_only_for_a_file() {
        use std::os::unix::ffi::OsStrExt as _;
        let spec = SourceSpec::for_microphone(OsStr::from_bytes(b"file:caf\xe9.wav"));
        let Ok(SourceSpec::File(path)) = spec else { panic!("{spec:?}") };
        assert_eq!(path.as_os_str().as_bytes(), b"caf\xe9.wav");
        let error = SourceSpec::for_camera(OsStr::from_bytes(b"Cam\xe9ra")).unwrap_err();
        assert!(error.to_string().contains("is not valid text; use default"), "{error}");
    }
}
