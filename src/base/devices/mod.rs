//! The devices of this machine: how the user names one, and the audio devices of the system.
//!
//! Looking for audio devices may write a cookie for PulseAudio into the user's folder; nothing else
//! here changes anything.

mod audio;
mod device;
#[cfg(target_os = "linux")]
mod pulse_cookie;
#[cfg(target_os = "linux")]
mod pulse_stream;
#[cfg(target_os = "linux")]
mod server_queue;

pub use audio::{
    AudioDeviceError, AudioDirection, AudioStream, audio_host, find_audio_device,
    list_audio_devices,
};
pub use device::{ChoiceError, DEFAULT_SUFFIX, Device, DeviceRef, choose};
#[cfg(target_os = "linux")]
pub use pulse_stream::{OnEnd, PulseDevice, PulseStream};
