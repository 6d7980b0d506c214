//! A file that the user names for something private: a dump, a trace.

use std::{
    io::{self, Write},
    path::Path,
};

use super::{FileError, Recording};

/// An open file that only the user can read. Nothing else of this program, and no other Quintet,
/// writes to it.
#[derive(Debug)]
pub struct PrivateRecording(Recording);

impl PrivateRecording {
    /// Opens the file, and empties it. Only the user can read it from now on. May block for ever.
    ///
    /// # Errors
    /// Fails if the file cannot be written, is not a regular file, or is in use.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let recording = Recording::open(path)?;
        recording.restrict_to_owner();
        let fails = |source| FileError::Write { path: path.to_owned(), source };
        recording.file().set_len(0).map_err(fails)?;
        Ok(Self(recording))
    }
}

impl Write for PrivateRecording {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file().flush()
    }
}
