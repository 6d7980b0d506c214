//! Decides everything; does nothing: who speaks to whom, who offers, when to retry.
//!
//! [`Conference`] is a state machine that is stepped: inputs and the time go in, effects and the
//! next deadline come out. It names no clock, thread, socket or file, so a test can hold several of
//! them and the hub between in its hands and let hours pass in a second.

mod access;
mod ask;
mod chat;
mod core;
mod demand;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
#[cfg(test)]
mod gates;
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
mod stage;
mod words;

pub use self::core::Conference;
pub use outbox::Effect;
pub use words::{HubEvent, HubRef, Input};
