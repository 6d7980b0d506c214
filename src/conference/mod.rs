//! Decides everything and does nothing: which participants are connected, who makes an offer, when
//! to retry.
//!
//! [`Conference`] is a state machine: inputs and the time go in, effects and the next deadline come
//! out. It names no clock, thread, socket or file. So a test can run several of them and the hub
//! between them, and simulate hours in a second.

mod access;
mod chat;
mod context;
mod core;
mod deadline;
mod demand;
mod effects;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hub_news;
mod hubs;
mod input;
mod lookup;
mod media_use;
mod membership;
mod microphone;
mod negotiation;
mod participant;
mod peer;
mod reachability;
mod roster;
mod session;
mod signalled_media;
mod sound_check;
#[cfg(test)]
mod tests;
mod trace;

pub use self::core::{Conference, SessionPriority};
pub use deadline::{Deadline, Timer, TimerName};
pub use effects::{Effect, Playback};
pub use hub_news::{HubNews, MemberNews, SessionNews};
pub use input::{HubEvent, HubRef, Input};
pub use trace::{ReplayError, Replayed, TraceFormat, TraceHeader, replay};
