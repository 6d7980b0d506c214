//! Files that the user names: parsing their names, opening them, and keeping each from being sent
//! and recorded at once.
//!
//! A system call on a file may block for ever: on a named pipe without a writer, or on a network
//! drive that is gone. So call everything here that opens a file on a thread that is never joined.

mod held;
mod name;
mod open;
mod source;

pub use held::{Recording, SourceClaim};
pub use name::{expand_home, path_in};
pub use open::{FileError, within};
pub use source::open_source;
