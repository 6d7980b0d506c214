//! The program as a process of its system: signals, standard output, error and logs, the window that is
//! open already, and files of its user alone.

pub mod instance;
mod logs;
mod output;
mod private;
mod signals;

pub use logs::may_be_logged;
pub use output::Output;
pub use private::{create_private, create_private_folder, is_open_to_others, state_folder};
pub use signals::{Signals, exit_now};
