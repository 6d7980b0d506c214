//! Turns a device, a file or a pattern into frames.

mod audio;
mod camera;
mod camera_format;
mod camera_list;
mod colour_conversion;
mod detached;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod microphone;
mod microphone_watch;
mod noise_pattern;
mod pattern;
mod pixels;
mod sample_clock;
mod source;
mod spec;
mod tone;
mod video;
mod voice_stage;
mod wav;
mod y4m;

pub use audio::{AudioCapture, check_microphone, microphones};
pub use microphone_watch::MicrophoneWatch;
pub use noise_pattern::NoisePattern;
pub use pixels::{PixelConverter, PixelError, PixelFormat};
pub use source::Notify;
pub use spec::{
    MAX_FPS, MAX_FRAME_SIZE, MAX_TONE_HZ, MIN_FRAME_SIZE, MIN_TONE_HZ, SourceSpec, SpecError,
};
pub use video::{VideoCapture, cameras, check_camera};
pub use voice_stage::VoiceStage;
