//! The command line: options, and the tasks that run the engine without a window.
//!
//! Without the feature `media` there is only the command `serve`.

#[cfg(feature = "media")]
mod args;
mod certificate;
#[cfg(feature = "media")]
mod commands;
#[cfg(feature = "media")]
mod data_use;
#[cfg_attr(not(feature = "media"), expect(dead_code, reason = "a hub alone prints few events"))]
mod event_printer;
mod exit_reason;
#[cfg(all(any(fuzzing, test), feature = "media"))]
pub mod fuzz;
#[cfg(feature = "media")]
mod headless;
#[cfg(feature = "media")]
mod link_source;
mod logs;
#[cfg(feature = "media")]
mod preflight;
#[cfg(feature = "media")]
mod priority;
#[cfg(feature = "media")]
mod rtp_dump;
mod serve;
#[cfg(not(feature = "media"))]
mod serve_only;
#[cfg(feature = "media")]
mod stdin_lines;
mod summary;
#[cfg(feature = "media")]
mod trace;
mod values;
#[cfg(feature = "media")]
mod voice;

#[cfg(feature = "media")]
pub use args::{Args, Task};
pub use exit_reason::ExitReason;
#[cfg(feature = "media")]
pub use headless::run;
pub use logs::Logs;
#[cfg(not(feature = "media"))]
pub use serve_only::{Args, Task, run};
#[cfg(feature = "media")]
pub use trace::{TraceArgs, TraceTask};
#[cfg(feature = "media")]
pub use voice::VoiceArgs;
