//! Which speaker is meant, as a person writes it.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{files, media::DeviceRef};

/// Where the sound goes: `default`, `none`, `file:PATH.wav` or a device's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SpeakerSpec {
    /// The speaker that the system uses.
    #[default]
    Default,
    /// Nowhere. Sound is received, decoded and measured all the same.
    None,
    /// A WAV file: 48 kHz, mono, 16 bits.
    File(PathBuf),
    /// A speaker.
    Device(DeviceRef),
}

/// Why a text names no speaker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpeakerSpecError {
    /// Nothing was given.
    #[error("no speaker is named; use default, none, file:PATH.wav or a speaker's name")]
    Empty,
    /// `file:` alone.
    #[error("\"file:\" names no file; write file:PATH.wav")]
    NoPath,
    /// A file of another format.
    #[error("speaker file {0:?} is not a .wav file; sound is written as WAV only: file:PATH.wav")]
    NotWav(PathBuf),
    /// Not valid Unicode, which only a file's name may be.
    #[error("{0:?} is not valid text; use default, none, file:PATH.wav or a speaker's name")]
    NotText(String),
    /// One of the words, misspelt.
    #[error("there is no speaker {given:?}; did you mean {meant:?}?")]
    Misspelt {
        /// What was given.
        given: String,
        /// The nearest right spelling.
        meant: String,
    },
}

impl SpeakerSpec {
    /// Parses what a person writes. The name of a file need not be valid Unicode.
    ///
    /// # Errors
    /// [`SpeakerSpecError`] names what is wrong and what is right.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, SpeakerSpecError> {
        let text = text.as_ref();
        match text.to_str() {
            Some(text) => text.parse(),
            None => match files::path_in(text) {
                Some(path) => Self::file(path),
                None => Err(SpeakerSpecError::NotText(text.to_string_lossy().into_owned())),
            },
        }
    }

    fn file(path: PathBuf) -> Result<Self, SpeakerSpecError> {
        let is_wav = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("wav"));
        match path.as_os_str().is_empty() {
            true => Err(SpeakerSpecError::NoPath),
            false if is_wav => Ok(Self::File(path)),
            false => Err(SpeakerSpecError::NotWav(path)),
        }
    }
}

impl FromStr for SpeakerSpec {
    type Err = SpeakerSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        match text {
            "" => return Err(SpeakerSpecError::Empty),
            "default" => return Ok(Self::Default),
            "none" => return Ok(Self::None),
            _ => {}
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Self::file(files::expand_home(Path::new(path)));
        }
        match meant(text) {
            Some(meant) => Err(SpeakerSpecError::Misspelt { given: text.to_owned(), meant }),
            None => Ok(Self::Device(DeviceRef::typed(text))),
        }
    }
}

impl fmt::Display for SpeakerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::None => f.write_str("none"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Device(device) => f.write_str(&device.name),
        }
    }
}

/// The right spelling, if the text is one of the words but for a slip.
fn meant(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    if let Some((scheme, path)) = lower.split_once(':')
        && slips(scheme, "file") <= 2
    {
        return Some(format!("file:{}", &text[text.len() - path.len()..]));
    }
    if text.to_lowercase().ends_with(".wav") && !text.contains(' ') {
        return Some(format!("file:{text}"));
    }
    let near = [("default", 2), ("none", 1)];
    near.iter().find(|(word, most)| slips(&lower, word) <= *most).map(|(word, _)| word.to_string())
}

/// How many letters were left out, added, changed or swapped with the next one.
fn slips(text: &str, word: &str) -> usize {
    let (text, word): (Vec<_>, Vec<_>) = (text.chars().collect(), word.chars().collect());
    let mut rows = vec![vec![0; word.len() + 1]; text.len() + 1];
    for i in 0..=text.len() {
        for j in 0..=word.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(text[i - 1] != word[j - 1]);
                let swap =
                    i > 1 && j > 1 && text[i - 1] == word[j - 2] && text[i - 2] == word[j - 1];
                let swap = if swap { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swap)
            };
        }
    }
    rows[text.len()][word.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_back() {
        let read = |text: &str| text.parse::<SpeakerSpec>().unwrap();
        assert_eq!(read("default"), SpeakerSpec::Default);
        assert_eq!(read("none"), SpeakerSpec::None);
        assert_eq!(read("file:/tmp/a b.WAV"), SpeakerSpec::File("/tmp/a b.WAV".into()));
        assert_eq!(read("Built-in Audio"), SpeakerSpec::Device(DeviceRef::typed("Built-in Audio")));
        assert_eq!(
            read("hw:CARD=0,DEV=0"),
            SpeakerSpec::Device(DeviceRef::typed("hw:CARD=0,DEV=0"))
        );
        for text in ["default", "none", "file:/tmp/a b.wav", "Built-in Audio"] {
            assert_eq!(read(text).to_string(), text);
        }
    }

    #[test]
    fn a_tilde_behind_file_is_the_home_folder() {
        let home = std::env::home_dir().expect("whoever runs the tests has a home folder");
        let spec = "file:~/heard.wav".parse();
        assert_eq!(spec, Ok(SpeakerSpec::File(home.join("heard.wav"))));
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_unicode_is_a_file_and_nothing_else() {
        use std::os::unix::ffi::OsStrExt as _;
        let parse = |text| SpeakerSpec::parse(OsStr::from_bytes(text));
        let Ok(SpeakerSpec::File(path)) = parse(b"file:caf\xe9.wav") else { panic!("a file") };
        assert_eq!(path.as_os_str().as_bytes(), b"caf\xe9.wav");
        assert!(matches!(parse(b"file:caf\xe9"), Err(SpeakerSpecError::NotWav(_))));
        assert!(matches!(parse(b"caf\xe9.wav"), Err(SpeakerSpecError::NotText(_))));
    }

    #[test]
    fn what_is_wrong_is_answered_with_the_nearest_right_spelling() {
        let answer = |text: &str| text.parse::<SpeakerSpec>().unwrap_err().to_string();
        assert!(answer(" ").contains("default, none, file:PATH.wav"));
        assert!(answer("file:").contains("write file:PATH.wav"));
        assert!(answer("file:/tmp/x.mp3").contains("\"/tmp/x.mp3\" is not a .wav file"));
        for (given, meant) in [
            ("defualt", "default"),
            ("Default", "default"),
            ("nnoe", "none"),
            ("flie:/tmp/Ä.wav", "file:/tmp/Ä.wav"),
            ("FILE:x.wav", "file:x.wav"),
            ("out.wav", "file:out.wav"),
        ] {
            assert!(answer(given).contains(&format!("did you mean {meant:?}?")), "{given}");
        }
    }
}
