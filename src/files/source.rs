//! Files that are sent.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::{
    FileError,
    held::is_recorded,
    open::{holder_of, kind_of, special},
};

/// Opens a file to be sent. As long as it is open it is locked against recordings, of this
/// program and of others (an advisory lock, where the file system has them). May block for ever.
///
/// # Errors
/// If it cannot be read, is no plain file, or is being recorded.
pub fn open_source(path: &Path) -> Result<File, FileError> {
    let fails = |source| FileError::Read { path: path.to_owned(), source };
    let refuse = |kind| FileError::NoFile { path: path.to_owned(), kind };
    if let Some(kind) = kind_of(path).map_err(fails)? {
        return Err(refuse(kind));
    }
    let file = File::open(path).map_err(fails)?;
    // It may have been replaced between the two.
    if let Some(kind) = special(file.metadata().map_err(fails)?.file_type()) {
        return Err(refuse(kind));
    }
    if is_recorded(&file) {
        return Err(FileError::IsRecording { path: path.to_owned() });
    }
    match file.try_lock_shared() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(FileError::InUse { path: path.to_owned(), holder: holder_of(&file) })
        }
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "a file system without locks");
            Ok(file)
        }
    }
}
