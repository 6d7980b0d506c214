//! Encoders whose output is shared by all subscribers: H.264 for video, Opus for audio.

mod audio;
mod audio_layers;
mod block_numbering;
mod frame_thinner;
mod h264;
mod half_scaler;
mod keyframe_pacer;
mod opus;
mod video;

pub use audio::AudioEncoder;
pub use frame_thinner::FrameThinner;
pub use h264::{EncodeError, EncodedFrame, H264Encoder, TemporalLayers};
pub use keyframe_pacer::{KEYFRAME_SPACING, KeyframePacer};
pub use opus::OpusEncoder;
pub use video::{EncoderProgress, VideoEncoder, VideoSettings};
