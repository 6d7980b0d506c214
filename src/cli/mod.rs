//! The engine without a window: options in, lines out.

mod args;
mod lines;
mod run;
mod speech;

pub use args::{Args, Task};
pub use run::{ExitReason, run};
