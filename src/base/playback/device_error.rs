//! Why a speaker cannot be opened or has stopped, in sentences for the user.

use crate::devices::AudioDeviceError;

/// Why a speaker cannot be opened or has stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeviceError {
    #[error(transparent)]
    Find(#[from] AudioDeviceError),
    #[error("the speaker {name:?} is not there; connect it, or pick another")]
    Absent { name: String },
    #[error("there is no speaker; connect one")]
    None,
    #[error("the speaker {name:?} cannot be opened: {}; it is tried again; or pick another", trimmed(.source))]
    Open { name: String, source: cpal::Error },
    #[error("the speaker {name:?} plays no format that is known here; pick another")]
    Format { name: String },
    #[error("the speaker stopped: {}; it is tried again; or pick another", trimmed(.0))]
    Lost(cpal::Error),
    #[error("the speaker stopped asking for sound; it is tried again; or pick another")]
    Dead,
}

impl DeviceError {
    /// The error for a device that does not open. A device that the system lists although it is
    /// absent gets a short message.
    pub(super) fn from_open_error(name: String, is_default: bool, source: cpal::Error) -> Self {
        match (source.kind() == cpal::ErrorKind::DeviceNotAvailable, is_default) {
            (true, true) => Self::None,
            (true, false) => Self::Absent { name },
            (false, _) => Self::Open { name, source },
        }
    }
}

/// The audio system's message without its full stop, because it becomes part of a sentence.
fn trimmed(error: &cpal::Error) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}
