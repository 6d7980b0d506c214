//! One WebRTC connection per peer. This is the only module that names the `webrtc` crates.
//!
//! A [`Connection`] is a task that owns the peer connection of webrtc-rs, with small tasks beside
//! it: one for each medium that is sent (it pulls a `Subscription` and writes RTP headers), one for
//! each remote track (it drains webrtc-rs into a bounded queue at once), and two for the data
//! channel. Commands come in as `PeerCommand`, events go out as `PeerEvent`, both in order.
//!
//! webrtc-rs logs each dropped packet with its bytes, and it logs addresses: [`NOISY_LOGS`] names
//! the log targets that a program switches off.

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

/// Directives for a program's log filter that silence webrtc-rs (`target=level`, as `tracing`'s
/// `EnvFilter` reads them; a target also stands for all targets that begin with it). webrtc-rs logs
/// errors per packet, warnings per connectivity check, and addresses. Everything that matters
/// arrives as an event.
pub const NOISY_LOGS: [&str; 2] = ["webrtc=off", "rtc=off"];
