//! Decides everything and does nothing: which participants are connected, who makes an offer, when
//! to retry.
//!
//! [`Conference`] is a state machine: inputs and the time go in, effects and the next deadline come
//! out. It names no clock, thread, socket or file. So a test can run several of them and the hub
//! between them, and simulate hours in a second.

mod access;
mod ask;
mod chat;
mod context;
mod core;
mod demand;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hubs;
mod membership;
mod negotiation;
mod outbox;
mod participant;
mod peer;
mod reach;
mod refusal;
mod roster;
mod session;
#[cfg(test)]
mod tests;
mod words;

pub use self::core::Conference;
pub use outbox::Effect;
pub use words::{HubEvent, HubRef, Input};
