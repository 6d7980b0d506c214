//! The engine without a window: options in, lines out.

mod args;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod lines;
mod run;

pub use args::{Args, Task};
pub use run::{ExitReason, run};
