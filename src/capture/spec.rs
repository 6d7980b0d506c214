//! What a person names as a source, parsed at the border.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{files, media::DeviceRef, model::Size};

/// The smallest picture that is painted.
pub const MIN_PATTERN: Size = Size::new(16, 16);
/// The largest picture that is painted, and the largest that H.264 takes here.
pub const MAX_PATTERN: Size = Size::new(3840, 2160);
/// The most pictures a second.
pub const MAX_FPS: u32 = 60;
/// The lowest tone, in hertz: the ear's limit.
pub const MIN_TONE_HZ: f32 = 20.0;
/// The highest tone, in hertz: Opus keeps nothing above.
pub const MAX_TONE_HZ: f32 = 20_000.0;

/// What a picture or a sound is captured from:
/// `default`, `none`, `pattern[:1280x720@30]`, `busy[:1280x720@30]`, `tone[:440]`, `file:PATH` or
/// a device's name.
///
/// The words are taken in any case. Parse with [`SourceSpec::for_camera`] or
/// [`SourceSpec::for_microphone`], which also refuse what is no source of that kind.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceSpec {
    /// The device that the system prefers.
    Default,
    /// Nothing: the rest goes on without.
    None,
    /// A painted, moving picture with a machine-readable strip.
    Pattern {
        /// Pixels.
        size: Size,
        /// Pictures a second.
        fps: u32,
    },
    /// A painted picture that needs the encoder's whole rate, with the same strip.
    Busy {
        /// Pixels.
        size: Size,
        /// Pictures a second.
        fps: u32,
    },
    /// A steady sine.
    Tone {
        /// Its frequency in hertz.
        hz: f32,
    },
    /// A Y4M file for pictures, a WAV file for sound; looped.
    File(PathBuf),
    /// A device.
    Device(DeviceRef),
}

/// Why a text names no source. Says what does.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum SpecError {
    /// Nothing was given.
    #[error("a source cannot be empty; use {CHOICES}")]
    Empty,
    /// Nearly one of the words.
    #[error("{text:?} is no source; did you mean {nearest:?}? Use {CHOICES}")]
    Unknown {
        /// What was given.
        text: String,
        /// What was probably meant.
        nearest: String,
    },
    /// A painted picture's size or rate cannot be read.
    #[error(
        "{text:?} is no {word}; write {word}, {word}:1280x720, {word}:@15 or {word}:1280x720@30"
    )]
    Painted {
        /// What was given.
        text: String,
        /// The word it began with: `pattern` or `busy`.
        word: &'static str,
    },
    /// A side is odd.
    #[error(
        "a picture of {width}x{height} has an odd side, which H.264 cannot carry; use {nearest}"
    )]
    OddSize {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// The even size next to it.
        nearest: Size,
    },
    /// Too small or too large.
    #[error("a picture of {width}x{height} is out of range; use {MIN_PATTERN} to {MAX_PATTERN}")]
    SizeRange {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// Too slow or too fast.
    #[error("{fps} pictures a second are out of range; use 1 to {MAX_FPS}")]
    Fps {
        /// What was given.
        fps: u32,
    },
    /// A tone's frequency cannot be read.
    #[error("{text:?} is no tone; write tone or tone:440, in hertz")]
    Tone {
        /// What was given.
        text: String,
    },
    /// Too low or too high.
    #[error("a tone of {hz} Hz is out of range; use {MIN_TONE_HZ} to {MAX_TONE_HZ} Hz")]
    ToneRange {
        /// What was given.
        hz: f32,
    },
    /// No path after `file:`.
    #[error("file: needs a path behind it, as in {example}")]
    NoPath {
        /// A complete one.
        example: &'static str,
    },
    /// A sound as a camera.
    #[error(
        "{text:?} is a sound, not a picture; for a camera use default, none, \
         pattern[:1280x720@30], file:PATH.y4m or a camera's name (nearest: pattern)"
    )]
    NoCamera {
        /// What was given.
        text: String,
    },
    /// Not valid Unicode, which only a file's name may be.
    #[error("{text:?} is not valid text; use {CHOICES}")]
    NotText {
        /// What was given, as far as it can be read.
        text: String,
    },
    /// A picture as a microphone.
    #[error(
        "{text:?} is a picture, not a sound; for a microphone use default, none, tone[:440], \
         file:PATH.wav or a microphone's name (nearest: tone)"
    )]
    NoMicrophone {
        /// What was given.
        text: String,
    },
}

const CHOICES: &str =
    "default, none, pattern[:1280x720@30], busy, tone[:440], file:PATH or a device's name";

const DEFAULT_SIZE: Size = Size::new(1280, 720);
const DEFAULT_FPS: u32 = 30;
const DEFAULT_HZ: f32 = 440.0;

impl SourceSpec {
    /// The file that is sent, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Default
            | Self::None
            | Self::Pattern { .. }
            | Self::Busy { .. }
            | Self::Tone { .. }
            | Self::Device(_) => None,
        }
    }

    /// Parses what is to be used as a camera. The name of a file need not be valid Unicode.
    ///
    /// # Errors
    /// [`SpecError`] names what is wrong and what is right.
    pub fn for_camera(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self, SpecError> {
        match Self::parse(text.as_ref())? {
            Self::Tone { .. } => Err(SpecError::NoCamera { text: lossy(text) }),
            spec @ (Self::Default
            | Self::None
            | Self::Pattern { .. }
            | Self::Busy { .. }
            | Self::File(_)
            | Self::Device(_)) => Ok(spec),
        }
    }

    /// Parses what is to be used as a microphone. The name of a file need not be valid Unicode.
    ///
    /// # Errors
    /// [`SpecError`] names what is wrong and what is right.
    pub fn for_microphone(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self, SpecError> {
        match Self::parse(text.as_ref())? {
            Self::Pattern { .. } | Self::Busy { .. } => {
                Err(SpecError::NoMicrophone { text: lossy(text) })
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
            None => match files::path_in(text) {
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
        let (word, rest) = match text.split_once(':') {
            Some((word, rest)) => (word.to_lowercase(), Some(rest)),
            None => (text.to_lowercase(), None),
        };
        match (word.as_str(), rest) {
            ("default", None) => Ok(Self::Default),
            ("none", None) => Ok(Self::None),
            ("pattern", rest) => {
                painted(rest, text, "pattern").map(|(size, fps)| Self::Pattern { size, fps })
            }
            ("busy", rest) => {
                painted(rest, text, "busy").map(|(size, fps)| Self::Busy { size, fps })
            }
            ("tone", rest) => tone(rest, text),
            ("file", rest) => match rest.map(str::trim).filter(|path| !path.is_empty()) {
                Some(path) => Ok(Self::File(files::expand_home(Path::new(path)))),
                None => Err(SpecError::NoPath { example: "file:clip.y4m or file:voice.wav" }),
            },
            _ => device(text, &word, rest),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::None => f.write_str("none"),
            Self::Pattern { size, fps } => write!(f, "pattern:{size}@{fps}"),
            Self::Busy { size, fps } => write!(f, "busy:{size}@{fps}"),
            Self::Tone { hz } => write!(f, "tone:{hz}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Device(device) => f.write_str(&device.name),
        }
    }
}

/// `[WIDTHxHEIGHT][@FPS]`.
fn painted(rest: Option<&str>, text: &str, word: &'static str) -> Result<(Size, u32), SpecError> {
    let wrong = || SpecError::Painted { text: text.to_owned(), word };
    let number = |part: &str| part.trim().parse::<u32>().map_err(|_| wrong());
    let (size, fps) = match rest {
        None => ("", None),
        Some("") => return Err(wrong()),
        Some(rest) => match rest.split_once('@') {
            Some((size, fps)) => (size, Some(number(fps)?)),
            None => (rest, None),
        },
    };
    let size = if size.is_empty() {
        DEFAULT_SIZE
    } else {
        let (width, height) = size.split_once(['x', 'X', '×']).ok_or_else(wrong)?;
        checked_size(number(width)?, number(height)?)?
    };
    let fps = fps.unwrap_or(DEFAULT_FPS);
    if !(1..=MAX_FPS).contains(&fps) {
        return Err(SpecError::Fps { fps });
    }
    Ok((size, fps))
}

fn checked_size(width: u32, height: u32) -> Result<Size, SpecError> {
    let fits = |side: u32, min: u32, max: u32| (min..=max).contains(&side);
    if !fits(width, MIN_PATTERN.width, MAX_PATTERN.width)
        || !fits(height, MIN_PATTERN.height, MAX_PATTERN.height)
    {
        return Err(SpecError::SizeRange { width, height });
    }
    let nearest = Size::new(width, height);
    if (nearest.width, nearest.height) == (width, height) {
        Ok(nearest)
    } else {
        Err(SpecError::OddSize { width, height, nearest })
    }
}

fn tone(rest: Option<&str>, text: &str) -> Result<SourceSpec, SpecError> {
    let Some(rest) = rest else { return Ok(SourceSpec::Tone { hz: DEFAULT_HZ }) };
    let number = rest.trim().trim_end_matches("Hz").trim_end_matches("hz").trim_end();
    let hz: f32 = number.parse().map_err(|_| SpecError::Tone { text: text.to_owned() })?;
    if !(MIN_TONE_HZ..=MAX_TONE_HZ).contains(&hz) {
        return Err(SpecError::ToneRange { hz });
    }
    Ok(SourceSpec::Tone { hz })
}

/// A device's name, unless it is nearly a word or a bare path.
fn device(text: &str, word: &str, rest: Option<&str>) -> Result<SourceSpec, SpecError> {
    const WORDS: &[&str] = &["default", "none", "pattern", "busy", "tone", "file"];
    let unknown = |nearest: String| SpecError::Unknown { text: text.to_owned(), nearest };
    let with_rest = |word: &str| match rest {
        Some(rest) => format!("{word}:{rest}"),
        None => word.to_owned(),
    };
    // One slip of the finger in a short word, two in a long one.
    let near = |known: &&&str| distance(word, known) <= if known.len() > 5 { 2 } else { 1 };
    if let Some(known) = WORDS.iter().find(near) {
        return Err(unknown(with_rest(known)));
    }
    let lower = text.to_lowercase();
    if lower.ends_with(".y4m") || lower.ends_with(".wav") {
        return Err(unknown(format!("file:{text}")));
    }
    Ok(SourceSpec::Device(DeviceRef::typed(text)))
}

/// How many letters must be added, removed, replaced or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(one[i - 1] != other[j - 1]);
                let mut least = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                least = least.min(rows[i - 1][j - 1] + same);
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
    fn every_form_is_read_and_printed_again() {
        for (text, spec) in [
            ("default", SourceSpec::Default),
            ("None", SourceSpec::None),
            ("pattern", pattern(1280, 720, 30)),
            ("pattern:320x180@15", pattern(320, 180, 15)),
            ("pattern:640x360", pattern(640, 360, 30)),
            ("pattern:@1", pattern(1280, 720, 1)),
            ("busy:640x360@15", SourceSpec::Busy { size: Size::new(640, 360), fps: 15 }),
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
    fn a_wrong_spec_names_itself_and_the_right_one() {
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
    fn a_tone_is_no_camera_and_a_pattern_no_microphone() {
        let camera = SourceSpec::for_camera("tone:440").unwrap_err().to_string();
        assert!(camera.starts_with("\"tone:440\" is a sound, not a picture; for a camera use"));
        let microphone = SourceSpec::for_microphone("pattern").unwrap_err().to_string();
        assert!(microphone.contains("is a picture, not a sound"), "{microphone}");
        assert_eq!(SourceSpec::for_camera("pattern"), Ok(pattern(1280, 720, 30)));
        assert_eq!(SourceSpec::for_microphone("tone"), Ok(SourceSpec::Tone { hz: 440.0 }));
    }

    #[test]
    fn a_tilde_behind_file_is_the_home_folder() {
        let home = std::env::home_dir().expect("whoever runs the tests has a home folder");
        let spec = SourceSpec::for_camera("file:~/clip.y4m");
        assert_eq!(spec, Ok(SourceSpec::File(home.join("clip.y4m"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_unicode_is_a_file_and_nothing_else() {
        use std::os::unix::ffi::OsStrExt as _;
        let spec = SourceSpec::for_microphone(OsStr::from_bytes(b"file:caf\xe9.wav"));
        let Ok(SourceSpec::File(path)) = spec else { panic!("{spec:?}") };
        assert_eq!(path.as_os_str().as_bytes(), b"caf\xe9.wav");
        let error = SourceSpec::for_camera(OsStr::from_bytes(b"Cam\xe9ra")).unwrap_err();
        assert!(error.to_string().contains("is not valid text; use default"), "{error}");
    }
}
