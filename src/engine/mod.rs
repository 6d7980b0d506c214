//! The event loop that owns the core: it passes inputs to the core and carries out its effects.

mod active_peer;
mod audio_layers;
mod core_trace;
mod device_slot;
mod devices;
mod event_loop;
mod handle;
mod hub_task;
mod instances;
mod late_encoders;
mod local_media;
mod options;
mod peer_stats;
mod remote_media;
mod secret_store;
mod session_ids;
mod session_stats;
mod sound_check;
mod speakers;
mod ticks;
mod tone_measurement;
mod uplink;
mod video_layers;
mod wanted_sizes;

pub use core_trace::{CoreTrace, TraceEnd, TraceError, TraceOptions};
pub use devices::{cameras, microphones, speakers};
pub use event_loop::Engine;
pub use handle::{Closer, Handle};
pub use options::{Decode, EngineOptions, HubChoice, OwnHubOptions};
pub use session_ids::fresh_session_id;
pub use uplink::{Uplink, UplinkMember, UplinkNeeds, class_and_precedence};

pub use crate::{
    capture::{SourceSpec, SpecError},
    conference::{ReplayError, Replayed, replay},
    media::{FrameTap, LevelTap, TrackRef, Wake},
    playback::{SpeakerSpec, SpeakerSpecError},
    signalling::{ListenAt, is_hub},
    transport::{Impairment, NOISY_LOGS, RtpDump},
};
