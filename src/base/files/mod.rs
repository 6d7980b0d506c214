//! Files that the user names: parsing their names, opening them, and keeping each from being sent
//! and recorded at once.
//!
//! A system call on a file may block for ever: on a named pipe without a writer, or on a network
//! drive that is gone. So call everything here that opens a file on a thread that is never joined.

mod access;
mod claims;
mod name;
mod private_recording;
mod source;

pub use access::{FileError, with_timeout};
pub use claims::{Recording, SourceClaim};
pub use name::{expand_home, parse_file_spec};
pub use private_recording::PrivateRecording;
pub use source::open_source;
