//! The library and the program from outside, with real sockets, devices and windows. Bad networks are
//! simulated in virtual time.
//!
//! One binary, so that everything is linked once. Attacks are in `tests/attacks`, the
//! core in virtual time in `tests/simulation`.

mod architecture;
mod bench;
#[cfg(target_os = "linux")]
mod camera;
mod chat;
#[cfg(target_os = "linux")]
mod churn;
#[cfg(unix)]
mod control;
mod crash;
#[cfg(target_os = "linux")]
mod devices;
mod engine;
mod faults;
mod headless;
mod hub;
mod log_secrets;
mod media_scripts;
mod media_sections;
#[cfg(target_os = "linux")]
mod microphone;
#[cfg(target_os = "linux")]
mod network;
#[path = "../rig/mod.rs"]
mod rig;
mod sources;
mod speaker;
mod trace;
mod transport;
mod uplink;
mod window;
