//! One encoder for all who want its output: H.264 for pictures, Opus for sound.

mod h264;
mod opus;
mod pacer;
mod video;

pub use h264::{EncodeError, EncodedPicture, H264Encoder};
pub use opus::OpusEncoder;
pub use pacer::{KEYFRAME_SPACING, KeyframePacer};
pub use video::{VideoEncoder, VideoSettings, default_target};
