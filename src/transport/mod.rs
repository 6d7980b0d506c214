//! One connection per peer; the only module that names the `webrtc` crates.
//!
//! A [`Connection`] is a task that owns the library's peer connection, and small tasks beside
//! it: one for each medium that is sent (it pulls a `Subscription` and writes headers), one
//! for each remote track (it drains the library at once into a bounded queue), and two for the
//! data channel. What the core
//! wants comes as a `PeerCommand`, what happens goes out as a `PeerEvent`, both in order.
//!
//! The library logs each dropped packet with its bytes, and addresses: [`NOISY_LOGS`] names what
//! a program switches off.

mod addresses;
mod admission;
mod candidates;
mod chat;
mod checks;
mod connection;
mod crypto;
mod early;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod handshake;
mod impairment;
mod layout;
mod link;
mod negotiation;
mod observer;
mod pace;
mod packets;
mod receiver;
mod runtime;
mod sctp;
mod sdp;
mod sender;
mod setup;
mod ssrcs;
mod tap;
mod task;
mod unread;

pub use checks::{CheckBudget, CheckBudgets};
pub use connection::{Connection, ConnectionConfig, Outlets, Traffic};
pub use impairment::{Impairment, ImpairmentError};
pub use packets::payloads;

/// What a program's log filter says about the library (`target=level`, as `tracing`'s `EnvFilter`
/// reads it; a target stands for all that begin with it). The library logs errors per packet,
/// warnings per connectivity check, and addresses; what matters of it arrives as an event.
pub const NOISY_LOGS: [&str; 2] = ["webrtc=off", "rtc=off"];
