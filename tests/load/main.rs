//! The program under load: attacked, killed, left to run, on a bad network.
//!
//! Some of these tests measure programs, so no other binary of tests runs beside them, and
//! `take_turn` lets no other test run beside them. The rest share turns. Tests start in the order of
//! their names, so the modules with the longest ones have names that come first.

#[cfg(target_os = "linux")]
mod churn;
mod crash;
mod hardship;
mod hostile;
#[path = "../rig/mod.rs"]
mod rig;
