//! Where mixed sound goes: a device, a file, nowhere.

use std::time::Duration;

use super::{SpeakerSpec, device::DeviceOutput, file::FileOutput};
use crate::{
    files::Recording,
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

/// Looks whether sound can go there, and changes nothing. A file is looked for only; devices come
/// and go. May take for ever: ask on a thread that nobody waits for.
///
/// # Errors
/// Why the file cannot be written, with the way out.
pub fn look_for_speaker(spec: &SpeakerSpec) -> Result<(), String> {
    match spec {
        SpeakerSpec::File(path) => Recording::look_for(path).map_err(|error| error.to_string()),
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
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        match self {
            Self::Silent => {}
            Self::File(file) => file.play(block),
            Self::Device(device) => device.play(block),
        }
    }
}
