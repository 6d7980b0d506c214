//! The speaker setting as the user writes it.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{devices::DeviceRef, files};

/// The output of audio: `default`, `none`, `file:PATH.wav` or a device's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SpeakerSpec {
    /// The system's default speaker.
    #[default]
    Default,
    /// No output. Audio is still received, decoded and measured.
    None,
    /// A WAV file: 48 kHz, mono, 16 bits.
    File(PathBuf),
    /// A speaker chosen by the user.
    Device(DeviceRef),
}

/// Why a text is not a valid speaker setting.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpeakerSpecError {
    /// The text is empty.
    #[error("no speaker is named; use default, none, file:PATH.wav or a speaker's name")]
    Empty,
    /// `file:` without a path.
    #[error("\"file:\" names no file; write file:PATH.wav")]
    NoPath,
    /// A file of another format.
    #[error("speaker file {0:?} is not a .wav file; sound is written as WAV only: file:PATH.wav")]
    NotWav(PathBuf),
    /// The text is not valid Unicode. Only the name of a file may be invalid Unicode.
    #[error("{0:?} is not valid text; use default, none, file:PATH.wav or a speaker's name")]
    NotText(String),
    /// The text is nearly one of the keywords.
    #[error("there is no speaker {given:?}; did you mean {meant:?}?")]
    Misspelt {
        /// The given text.
        given: String,
        /// The nearest valid text.
        meant: String,
    },
}

impl SpeakerSpec {
    /// Parses the user's text. The name of a file need not be valid Unicode.
    ///
    /// # Errors
    /// [`SpeakerSpecError`] says what is wrong and what is valid.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self, SpeakerSpecError> {
        let text = text.as_ref();
        match text.to_str() {
            Some(text) => text.parse(),
            None => match files::parse_file_spec(text) {
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
        match suggestion(text) {
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

/// The nearest valid text, if the given one looks like a misspelling.
fn suggestion(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    if let Some((scheme, path)) = lower.split_once(':')
        && edit_distance(scheme, "file") <= 2
    {
        return Some(format!("file:{}", &text[text.len() - path.len()..]));
    }
    if text.to_lowercase().ends_with(".wav") && !text.contains(' ') {
        return Some(format!("file:{text}"));
    }
    let near = [("default", 2), ("none", 1)];
    near.iter()
        .find(|(word, most)| edit_distance(&lower, word) <= *most)
        .map(|(word, _)| word.to_string())
}

/// The edit distance: letters left out, added, changed or swapped with the next one.
fn edit_distance(text: &str, word: &str) -> usize {
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
    fn every_form_is_parsed_and_displayed_the_same() {
        let parse = |text: &str| text.parse::<SpeakerSpec>().unwrap();
        assert_eq!(parse("default"), SpeakerSpec::Default);
        assert_eq!(parse("none"), SpeakerSpec::None);
        assert_eq!(parse("file:/tmp/a b.WAV"), SpeakerSpec::File("/tmp/a b.WAV".into()));
        assert_eq!(
            parse("Built-in Audio"),
            SpeakerSpec::Device(DeviceRef::typed("Built-in Audio"))
        );
        assert_eq!(
            parse("hw:CARD=0,DEV=0"),
            SpeakerSpec::Device(DeviceRef::typed("hw:CARD=0,DEV=0"))
        );
        for text in ["default", "none", "file:/tmp/a b.wav", "Built-in Audio"] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn a_tilde_after_file_is_the_home_folder() {
        let home = std::env::home_dir().expect("the user who runs the tests has a home folder");
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
    fn an_invalid_text_is_answered_with_the_nearest_valid_one() {
        let error = |text: &str| text.parse::<SpeakerSpec>().unwrap_err().to_string();
        assert!(error(" ").contains("default, none, file:PATH.wav"));
        assert!(error("file:").contains("write file:PATH.wav"));
        assert!(error("file:/tmp/x.mp3").contains("\"/tmp/x.mp3\" is not a .wav file"));
        for (given, meant) in [
            ("defualt", "default"),
            ("Default", "default"),
            ("nnoe", "none"),
            ("flie:/tmp/Ä.wav", "file:/tmp/Ä.wav"),
            ("FILE:x.wav", "file:x.wav"),
            ("out.wav", "file:out.wav"),
        ] {
            assert!(error(given).contains(&format!("did you mean {meant:?}?")), "{given}");
        }
    }
}
