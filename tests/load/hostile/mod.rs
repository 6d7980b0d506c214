//! Attacks by hostile participants and clients: a call goes on, and its participants keep their
//! media.

#[cfg(target_os = "linux")]
mod assault;
#[cfg(target_os = "linux")]
mod circle;
#[cfg(target_os = "linux")]
mod forger;
#[cfg(target_os = "linux")]
mod guest;
#[cfg(target_os = "linux")]
mod hub;
mod logs;
#[cfg(target_os = "linux")]
mod media;
#[cfg(target_os = "linux")]
mod pictures;
#[cfg(target_os = "linux")]
mod stage;
#[cfg(target_os = "linux")]
mod viewer;
#[cfg(target_os = "linux")]
mod wire;
