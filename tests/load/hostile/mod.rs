//! Attacks by hostile participants and clients: a call goes on, and its participants keep their
//! media.

#[cfg(target_os = "linux")]
mod attack;
#[cfg(target_os = "linux")]
mod broadcast;
#[cfg(target_os = "linux")]
mod crafted_video;
#[cfg(target_os = "linux")]
mod guest_attacks;
#[cfg(target_os = "linux")]
mod hostile_guest;
#[cfg(target_os = "linux")]
mod hostile_runtime;
#[cfg(target_os = "linux")]
mod hostile_viewer;
#[cfg(target_os = "linux")]
mod hub_attacks;
mod logs;
#[cfg(target_os = "linux")]
mod sctp_forgery;
#[cfg(target_os = "linux")]
mod viewer_attacks;
