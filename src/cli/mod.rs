//! The command line: options, and the tasks that run the engine without a window.

mod args;
mod commands;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod invitation;
mod lines;
mod preflight;
mod run;
mod speech;

pub use args::{Args, Task};
pub use run::{ExitReason, run};
