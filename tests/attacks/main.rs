//! Attacks by hostile participants and clients: a call goes on, and its participants keep their
//! media.
//!
//! These tests measure programs, so no other binary of tests runs beside them, and only those of a
//! hub run beside each other: most of their attackers wait.
#![cfg(target_os = "linux")]

mod attack;
mod broadcast;
mod crafted_video;
mod hostile_guest;
mod hostile_runtime;
mod hostile_viewer;
mod on_broadcasts;
mod on_calls;
mod on_hubs;
#[path = "../rig/mod.rs"]
mod rig;
mod sctp_forgery;
