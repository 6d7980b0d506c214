//! The event loop that owns the core: it passes inputs to the core and carries out its effects.

mod devices;
mod handle;
mod hub_link;
mod instances;
mod keys;
mod ledger;
mod options;
mod reception;
mod run;
mod session_ids;
mod studio;

pub use devices::{cameras, microphones, speakers};
pub use handle::{Closer, Handle};
pub use options::{Decode, EngineOptions, HubChoice, OwnHubOptions};
pub use run::Engine;
pub use session_ids::fresh_session_id;

pub use crate::{
    capture::{SourceSpec, SpecError},
    media::{LevelTap, Picture, PictureTap, Wake},
    playback::{SpeakerSpec, SpeakerSpecError},
    signalling::{ListenAt, is_hub},
    transport::{Impairment, NOISY_LOGS},
};
