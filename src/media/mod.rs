//! Raw and encoded media, and the channels between threads.
//!
//! Raw frames travel in slots that keep the newest one. Encoded frames travel in queues that only
//! drop up to a keyframe.

mod bell;
mod clock;
mod device;
mod encoded;
mod fanout;
mod frame;
mod gallery;
mod meter;
#[cfg(target_os = "linux")]
mod pulse_cookie;
mod rtp;
mod slot;
mod sound;
mod strip;
mod worker;

pub use bell::Bell;
pub use clock::{now, unix_ms};
pub use device::{ChoiceError, DEFAULT_MARK, Device, DeviceRef, choose};
pub use encoded::{EncodedAudio, EncodedVideo};
pub use fanout::{Fanout, MAX_LAG, RestartPoint, Subscription};
pub use frame::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, FramePool, VideoFrame};
pub use gallery::{Gallery, LevelTap, Picture, PictureTap};
pub use meter::{Meter, SILENCE_DBFS};
pub use rtp::{IncomingTrack, KeyframeRequest, RtpPacket, SenderReport, SenderReports};
pub use slot::{Slot, Tee, TeeGuard, Wake};
pub use sound::{SoundEnd, SoundError, find_sound_device, sound_devices, sound_host};
pub use strip::Strip;
pub use worker::{Stop, Worker};
