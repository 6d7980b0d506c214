//! Raw and encoded media, and the channels between threads.
//!
//! Raw frames travel in slots that keep the newest one. Encoded frames travel in queues that only
//! drop up to a keyframe.

mod audio_level;
mod burnt_in_timecode;
mod clock;
mod codec;
mod encoded;
mod encoded_audio;
mod fanout;
mod far_end;
mod frame;
mod layer_switch;
mod meter;
mod notifier;
mod opus_packet;
mod received;
mod rtp;
mod slot;
mod subscription_slot;
mod track_sinks;
mod worker;

pub use audio_level::AudioLevel;
pub use burnt_in_timecode::BurntInTimecode;
pub use clock::{now, ntp_time, unix_ms};
pub use codec::Codec;
pub use encoded::EncodedVideo;
pub use encoded_audio::{AudioCopy, EncodedAudio, RecentAudio, Redundancy, SILENT_BYTES};
pub use fanout::{Fanout, Keyframe, MAX_LAG, Subscription, TemporalFilter};
pub use far_end::{FarEnd, FarEndReader};
pub use frame::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, FramePool, StereoBlock, VideoFrame};
pub use layer_switch::LayerSwitch;
pub use meter::{Meter, SILENCE_DBFS};
pub use notifier::Notifier;
pub use opus_packet::{fec_samples, has_fec, is_celt_only, is_stereo};
pub use received::{AccessUnit, AudioPacket};
pub use rtp::{
    IncomingTrack, KeyframeRequest, RedundantPayload, RoundTripTime, RtpPacket, SenderReport,
    SenderReports, TrackFailure,
};
pub use slot::{Slot, Tee, TeeGuard, Wake};
pub use subscription_slot::SubscriptionSlot;
pub use track_sinks::{FrameTap, LevelTap, TrackRef, TrackSinks};
pub use worker::{Stop, Worker};
