//! Where mixed sound goes: a device, a file, nowhere.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    SpeakerSpec,
    device::DeviceOutput,
    wav::{WavError, WavFile},
};
use crate::{
    media::BLOCK_SAMPLES,
    model::{MediaTime, SourceState},
};

/// How often what failed is tried again: soon enough for who plugs a headset in again, and rare
/// enough to cost nothing.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// Where mixed sound goes.
pub(super) enum Output {
    /// Nowhere.
    Silent,
    /// To a file.
    File(FileOutput),
    /// To a device.
    Device(DeviceOutput),
}

/// Looks whether sound can go there, and opens nothing. A file is looked for only; devices come
/// and go.
///
/// # Errors
/// Why the file cannot be written, with the way out.
pub fn look_for_speaker(spec: &SpeakerSpec) -> Result<(), String> {
    match spec {
        SpeakerSpec::File(path) => WavFile::look_for(path).map_err(|error| error.to_string()),
        SpeakerSpec::None | SpeakerSpec::Default | SpeakerSpec::Device(_) => Ok(()),
    }
}

/// What the mixing thread is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// A block each 10 ms by the clock.
    Clock,
    /// A block now.
    Now,
    /// No block yet; a device that asks for none this long has stopped.
    Wait(Duration),
}

impl Output {
    /// The output that is meant; opens nothing yet.
    pub(super) fn new(spec: &SpeakerSpec) -> Self {
        match spec {
            SpeakerSpec::None => Self::Silent,
            SpeakerSpec::File(path) => Self::File(FileOutput::new(path.clone())),
            SpeakerSpec::Default => Self::Device(DeviceOutput::new(None)),
            SpeakerSpec::Device(wanted) => Self::Device(DeviceOutput::new(Some(wanted.clone()))),
        }
    }

    /// Opens what is to be opened at `now`; returns how the output is.
    pub(super) fn tend(&mut self, now: MediaTime) -> SourceState {
        match self {
            Self::Silent => SourceState::Running,
            Self::File(file) => file.tend(now),
            Self::Device(device) => device.tend(now),
        }
    }

    /// When the next block is wanted.
    pub(super) fn pace(&mut self) -> Pace {
        match self {
            Self::Silent | Self::File(_) => Pace::Clock,
            Self::Device(device) => device.pace(),
        }
    }

    /// Plays the block; without effect while the output is not running.
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES], now: MediaTime) {
        match self {
            Self::Silent => {}
            Self::File(file) => file.play(block, now),
            Self::Device(device) => device.play(block),
        }
    }
}

/// The files that this process has begun to write. Sound is added to them when they are opened
/// again: after an error, for people who come later, after sound went elsewhere.
static BEGUN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that sound is written to, again after an error.
pub(super) struct FileOutput {
    path: PathBuf,
    state: FileState,
}

enum FileState {
    Writing(WavFile),
    Closed {
        retry_at: MediaTime,
        message: Option<String>,
    },
    /// No more sound fits.
    Full(String),
}

impl FileOutput {
    fn new(path: PathBuf) -> Self {
        let state = FileState::Closed { retry_at: MediaTime::default(), message: None };
        Self { path, state }
    }

    fn tend(&mut self, now: MediaTime) -> SourceState {
        if let FileState::Closed { retry_at, .. } = &self.state
            && now >= *retry_at
        {
            match self.open() {
                Ok(file) => self.state = FileState::Writing(file),
                Err(error) => self.fail(&error, now),
            }
        }
        match &self.state {
            FileState::Writing(_) => SourceState::Running,
            FileState::Closed { message: None, .. } => SourceState::Opening,
            FileState::Closed { message: Some(message), .. } | FileState::Full(message) => {
                SourceState::Failed { message: message.clone() }
            }
        }
    }

    fn open(&self) -> Result<WavFile, WavError> {
        let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.contains(&self.path) && self.path.exists() {
            return WavFile::append(&self.path);
        }
        let file = WavFile::create(&self.path)?;
        begun.insert(self.path.clone());
        Ok(file)
    }

    fn play(&mut self, block: &[f32; BLOCK_SAMPLES], now: MediaTime) {
        if let FileState::Writing(file) = &mut self.state
            && let Err(error) = file.write(block)
        {
            self.fail(&error, now);
        }
    }

    fn fail(&mut self, error: &WavError, now: MediaTime) {
        let message = error.to_string();
        self.state = match error {
            WavError::Full { .. } => FileState::Full(message),
            WavError::Create { .. } | WavError::Write { .. } => {
                FileState::Closed { retry_at: now + RETRY, message: Some(message) }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_cannot_be_created_is_tried_again_and_what_was_written_to_it_stays() {
        let folder = std::env::temp_dir().join(format!("quintet-output-{}", std::process::id()));
        let spec = SpeakerSpec::File(folder.join("a.wav"));
        let mut output = Output::new(&spec);
        let at = |ms: u64| MediaTime::from_micros(ms * 1000);
        let SourceState::Failed { message } = output.tend(at(0)) else { panic!("no folder") };
        assert!(message.contains("a.wav") && message.contains("another file"), "{message}");
        output.play(&[0.5; BLOCK_SAMPLES], at(10));
        fs::create_dir_all(&folder).unwrap();
        assert!(matches!(output.tend(at(1999)), SourceState::Failed { .. }), "not yet");
        assert_eq!(output.tend(at(2000)), SourceState::Running);
        output.play(&[0.5; BLOCK_SAMPLES], at(2000));
        drop(output);
        assert_eq!(hound::WavReader::open(folder.join("a.wav")).unwrap().len(), 480);

        // Everybody leaves, and somebody comes again.
        let mut output = Output::new(&spec);
        assert_eq!(output.tend(at(3000)), SourceState::Running);
        output.play(&[0.5; BLOCK_SAMPLES], at(3000));
        drop(output);
        assert_eq!(hound::WavReader::open(folder.join("a.wav")).unwrap().len(), 960);
        fs::remove_dir_all(&folder).unwrap();
    }
}
