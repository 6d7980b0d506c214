//! The one loop that owns the core: inputs, core, effects.

mod handle;
mod hub_link;
mod keys;
mod ledger;
mod options;
mod reception;
mod run;
mod studio;

pub use handle::Handle;
pub use options::{EngineOptions, HubChoice};
pub use run::{Engine, fresh_session_id};

pub use crate::{
    conference::SourceKind,
    transport::{Impairment, NOISY_LOGS},
};
