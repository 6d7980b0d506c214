//! The program under load: attacked, killed, left to run, on a bad network.
//!
//! These tests measure programs that run beside them, so they are a binary of their own: nothing
//! else runs at the same time.

#[cfg(target_os = "linux")]
mod churn;
mod hardship;
mod hostile;
mod kill;
#[path = "../rig/mod.rs"]
mod rig;
