//! Services of the operating system for the process: signals, standard output and error, the log
//! filter, the single window per display, and private files.

mod background_file;
mod log_file;
mod logs;
mod output;
mod private;
mod signals;
#[cfg(feature = "window")]
pub mod single_instance;

pub use background_file::{BackgroundFile, FileFormat, StartedFile};
pub use log_file::LogFile;
pub use logs::may_be_logged;
pub use output::Output;
pub use private::{
    create_new_private, create_private, create_private_folder, is_open_to_others, state_folder,
};
pub use signals::{Signals, exit_now};
