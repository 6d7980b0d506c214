//! Arithmetic on samples: mixing, levels, tones, resampling. Pure: no clock, thread or device.

mod active_speaker_detector;
mod echo_presence;
mod fade;
mod far_end_pace;
mod fft;
mod history;
mod level;
mod mixer;
mod packet_level;
mod resample;
mod sample_queue;
mod speech_detector;
mod stereo_resampler;
mod stretch;
mod test_sound;
mod tone;
mod voice_processor;

pub use active_speaker_detector::ActiveSpeakerDetector;
pub use echo_presence::{EchoPresence, Presence};
pub use fade::Fade;
pub use far_end_pace::FarEndPace;
pub use history::History;
pub use level::{LevelWindow, SILENCE_DBFS, level_dbfs, linear_level};
pub use mixer::Mixer;
pub use packet_level::PacketLevel;
pub use resample::Resampler;
pub use sample_queue::SampleQueue;
pub use speech_detector::SpeechDetector;
pub use stereo_resampler::StereoResampler;
pub use stretch::{STRETCH_WINDOW, is_quiet};
use stretch::{lengthen, lengthen_by, shorten, shorten_by};
pub use test_sound::{fade_ends, test_sound};
pub use tone::tone_hz;
pub use voice_processor::{Stages, VoiceProcessor};
