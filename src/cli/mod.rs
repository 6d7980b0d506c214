//! The engine without a window: options in, lines out.

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
