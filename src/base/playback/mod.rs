//! Receives RTP packets, decodes them and plays video and audio at the right time.

mod audio_receive_stats;
mod audio_receiver;
mod audio_track;
mod clip;
mod concealment;
mod cushion;
mod decode_pool;
mod device_error;
mod device_output;
mod file_output;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod h264_depacketizer;
mod jitter;
mod lip_sync;
mod mixer;
mod opus_decoder;
mod output;
mod playout_clock;
mod receive_stats;
mod remote_clock;
mod speaker;
mod speaker_ring;
mod speaker_spec;
mod sps;
#[cfg(any(fuzzing, test))]
mod testing;
mod tone_tap;
mod video_decoder;
mod video_player;
mod video_receive_buffer;
mod video_track;
mod wav;

pub use audio_receiver::AudioReceiver;
pub use audio_track::{AudioTrack, ToldLevel};
pub use concealment::ConcealmentCauses;
pub use decode_pool::DecodePool;
pub use lip_sync::{HeardSound, SoundClock};
pub use output::preflight_speaker;
pub use speaker::{ClosingSpeaker, Speaker, Voice, speakers};
pub use speaker_spec::{SpeakerSpec, SpeakerSpecError};
pub use tone_tap::ToneTap;
pub use video_decoder::{DecodeError, DecodeOutcome, VideoDecoder};
pub use video_player::VideoPlayer;
pub use video_track::VideoTrack;
