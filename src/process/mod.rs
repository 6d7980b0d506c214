//! The program as a process of its system: signals, standard output and error, and the window that
//! is open already.

pub mod instance;
mod output;
mod signals;

pub use output::Output;
pub use signals::{Signals, exit_now};
