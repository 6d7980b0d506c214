//! The program under load: attacked, killed, left to run, on a bad network.
//!
//! Some of these tests measure programs that run beside them, so they are a binary of their own.
//! `take_turn` keeps all others away from those; the longest of the others come first by their names.

#[cfg(target_os = "linux")]
mod churn;
mod crash;
mod hardship;
mod hostile;
#[path = "../rig/mod.rs"]
mod rig;
