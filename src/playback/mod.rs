//! Receives RTP packets, decodes them and plays video and audio at the right time.

mod clock;
mod decode;
mod device;
mod file;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod h264;
mod intake;
mod jitter;
mod mixing;
mod output;
mod pool;
mod speaker;
mod speaker_spec;
mod sps;
mod tally;
#[cfg(any(fuzzing, test))]
mod testing;
mod video;
mod voice;
mod wav;

pub use decode::{DecodeError, Decoded, VideoDecoder};
pub use h264::{AccessUnit, Holds};
pub use output::look_for_speaker;
pub use pool::DecodePool;
pub use speaker::{ClosingSpeaker, Speaker, Voice, speakers};
pub use speaker_spec::{SpeakerSpec, SpeakerSpecError};
pub use video::VideoReceiver;
