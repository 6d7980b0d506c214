//! Encoders whose output is shared by all subscribers: H.264 for video, Opus for audio.

mod h264;
mod opus;
mod pacer;
mod video;

pub use h264::{EncodeError, EncodedPicture, H264Encoder};
pub use opus::OpusEncoder;
pub use pacer::{KEYFRAME_SPACING, KeyframePacer};
pub use video::{VideoEncoder, VideoSettings, default_target};
