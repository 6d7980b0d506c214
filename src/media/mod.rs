//! Raw and encoded media, and the channels between threads.
//!
//! Raw frames travel in slots that keep the newest one. Encoded frames travel in queues that only
//! drop up to a keyframe.

mod audio_devices;
mod burnt_in_timecode;
mod clock;
mod device;
mod encoded;
mod fanout;
mod frame;
mod meter;
mod notifier;
#[cfg(target_os = "linux")]
mod pulse_cookie;
mod rtp;
mod slot;
mod video_sinks;
mod worker;

pub use audio_devices::{
    AudioDeviceError, AudioDirection, audio_host, find_audio_device, list_audio_devices,
};
pub use burnt_in_timecode::BurntInTimecode;
pub use clock::{now, unix_ms};
pub use device::{ChoiceError, DEFAULT_SUFFIX, Device, DeviceRef, choose};
pub use encoded::{EncodedAudio, EncodedVideo};
pub use fanout::{Fanout, Keyframe, MAX_LAG, Subscription};
pub use frame::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, FramePool, VideoFrame};
pub use meter::{Meter, SILENCE_DBFS};
pub use notifier::Notifier;
pub use rtp::{IncomingTrack, KeyframeRequest, RtpPacket, SenderReport, SenderReports};
pub use slot::{Slot, Tee, TeeGuard, Wake};
pub use video_sinks::{FrameTap, LevelTap, VideoRef, VideoSinks};
pub use worker::{Stop, Worker};
