//! Opening files that are sent.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::{
    FileError,
    access::{holder_of, special_kind, special_kind_at},
    claims::is_recorded,
};

/// Opens a file to send. While it is open, a shared advisory lock keeps this and other programs
/// from recording to it, if the file system has locks. May block for ever.
///
/// # Errors
/// Fails if the file cannot be read, is not a regular file, or is being recorded.
pub fn open_source(path: &Path) -> Result<File, FileError> {
    let fails = |source| FileError::Read { path: path.to_owned(), source };
    let refuse = |kind| FileError::NotAFile { path: path.to_owned(), kind };
    if let Some(kind) = special_kind_at(path).map_err(fails)? {
        return Err(refuse(kind));
    }
    let file = File::open(path).map_err(fails)?;
    // The file may have been replaced since the first check.
    if let Some(kind) = special_kind(file.metadata().map_err(fails)?.file_type()) {
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
            tracing::debug!(%error, "file system without locks");
            Ok(file)
        }
    }
}
