//! Files that people name: what their names mean, how they are opened, and that none is read and
//! written at once.
//!
//! A call about a file may block for ever: a named pipe that nobody writes to, a network drive
//! that is gone. Everything here that opens a file belongs on a thread that nobody waits for.

mod held;
mod name;
mod open;
mod source;

pub use held::{Recording, SourceClaim};
pub use name::{expand_home, path_in};
pub use open::{FileError, within};
pub use source::open_source;
