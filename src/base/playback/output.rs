//! The outputs of mixed audio: a device, a file or none.

use std::time::Duration;

use super::{SpeakerSpec, device_output::DeviceOutput, file_output::FileOutput};
use crate::{
    files::Recording,
    media::StereoBlock,
    model::{DeviceState, MediaTime},
};

/// The interval between attempts after a failure: short enough for a headset that is plugged in
/// again, and long enough to cost nothing.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// An output of mixed audio.
pub(super) enum Output {
    /// Plays nothing.
    Silent,
    /// Records to a file.
    File(FileOutput),
    /// Plays on a device.
    Device(DeviceOutput),
}

/// Checks whether audio can be played to this output, without changing anything. Only files are
/// checked, because devices may come and go. May block forever: call it on a thread that nothing
/// waits for.
///
/// # Errors
/// Why the file cannot be written, and what the user can do.
pub fn preflight_speaker(spec: &SpeakerSpec) -> Result<(), String> {
    match spec {
        SpeakerSpec::File(path) => Recording::check(path).map_err(|error| error.to_string()),
        SpeakerSpec::None | SpeakerSpec::Default | SpeakerSpec::Device(_) => Ok(()),
    }
}

/// When an output needs the next block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BlockDemand {
    /// One block every 10 ms by the clock.
    ByClock,
    /// Now.
    Now,
    /// Not yet. A device that demands no block for this long has stalled.
    Wait(Duration),
}

impl Output {
    /// Creates the output without opening it.
    pub(super) fn new(spec: &SpeakerSpec) -> Self {
        match spec {
            SpeakerSpec::None => Self::Silent,
            SpeakerSpec::File(path) => Self::File(FileOutput::new(path.clone())),
            SpeakerSpec::Default => Self::Device(DeviceOutput::new(None)),
            SpeakerSpec::Device(wanted) => Self::Device(DeviceOutput::new(Some(wanted.clone()))),
        }
    }

    /// Opens the output if that is due at `now`. Returns the state.
    pub(super) fn poll(&mut self, now: MediaTime) -> DeviceState {
        match self {
            Self::Silent => DeviceState::Running,
            Self::File(file) => file.poll(now),
            Self::Device(device) => device.poll(now),
        }
    }

    /// When the output needs the next block.
    pub(super) fn demand(&mut self) -> BlockDemand {
        match self {
            Self::Silent | Self::File(_) => BlockDemand::ByClock,
            Self::Device(device) => device.demand(),
        }
    }

    /// Plays the block; a recording has one channel. Has no effect while the output is not running.
    /// Returns after what time it can be heard in the room, if it can be.
    pub(super) fn play(&mut self, block: &StereoBlock) -> Option<Duration> {
        match self {
            Self::Silent => None,
            Self::File(file) => {
                file.play(&block.mid);
                None
            }
            Self::Device(device) => device.play(block),
        }
    }
}
