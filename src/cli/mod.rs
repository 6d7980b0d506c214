//! The command line: options, and the tasks that run the engine without a window.

mod args;
mod commands;
mod event_printer;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod headless;
mod link_source;
mod preflight;
mod rtp_dump;
mod stdin_lines;
mod trace;

pub use args::{Args, Task};
pub use headless::{ExitReason, run};
pub use trace::{TraceArgs, TraceTask};
