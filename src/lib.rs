//! Quintet: one camera and one microphone, captured once, encoded once, live in many sessions.
//!
//! `ARCHITECTURE.md` is the map. Imports point down: `cli` → `engine` → the adapters → `media`
//! → `model`; `tests/architecture.rs` holds them there.

pub mod audio;
pub mod bench;
pub mod capture;
pub mod cli;
pub mod conference;
pub mod encode;
pub mod engine;
pub mod media;
pub mod model;
pub mod playback;
pub mod signalling;
pub mod transport;
pub mod ui;
