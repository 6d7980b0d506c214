//! The devices of this machine: how the user names one, and the audio devices of the system.
//!
//! Looking for audio devices may write a cookie for PulseAudio into the user's folder; nothing else
//! here changes anything.

mod audio;
mod device;
#[cfg(target_os = "linux")]
mod pulse_cookie;

pub use audio::{
    AudioDeviceError, AudioDirection, audio_host, find_audio_device, list_audio_devices,
};
pub use device::{ChoiceError, DEFAULT_SUFFIX, Device, DeviceRef, choose};
