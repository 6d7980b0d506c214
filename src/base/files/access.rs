//! The errors of files, and checks of a file that do not wait for ever.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use crate::media::Worker;

/// Why a file cannot be used. The messages are for the user: they name the file, the problem and
/// what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("the file {path:?} cannot be read: {source}; check its name and permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It cannot be opened for writing.
    #[error("cannot write to {path:?}: {source}; choose another file")]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It is a folder, a pipe, a socket or a device. Opening some of these blocks for ever.
    #[error("{path:?} is {kind}, not a file; choose a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there, such as `a folder`.
        kind: &'static str,
    },
    /// A system call on it does not return.
    #[error(
        "{path:?} does not answer; check the drive or the network that it is on, or choose \
         another file"
    )]
    NotResponding {
        /// The file.
        path: PathBuf,
    },
    /// A recording would overwrite a file that is sent.
    #[error(
        "{path:?} is also the {role}'s file, which a recording would overwrite; choose another file"
    )]
    IsSource {
        /// The path of the recording.
        path: PathBuf,
        /// The source that uses the file: `camera` or `microphone`.
        role: &'static str,
    },
    /// A file to send is being recorded.
    #[error("sound is being recorded to {path:?}, so it cannot be sent; choose another file")]
    IsRecording {
        /// The file.
        path: PathBuf,
    },
    /// Another program reads a file to record to, or writes a file to send.
    #[error("the file {path:?} is in use by {holder}; choose another file, or end that program")]
    InUse {
        /// The file.
        path: PathBuf,
        /// The other program, for the message.
        holder: String,
    },
}

/// Runs a call that may block for ever on its own thread, and waits at most `limit` for the result.
/// After the limit, the thread is abandoned; it ends when the call returns.
pub fn with_timeout<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, result) = mpsc::sync_channel(1);
    let worker = Worker::spawn("file", move |_| {
        sender.try_send(work()).ok();
    });
    let worker = worker.inspect_err(|error| tracing::error!(%error, "no thread for a file"));
    worker.ok()?.abandon();
    result.recv_timeout(limit).ok()
}

/// Returns the name of the special file at a path, `None` for a regular file. Called before the
/// file is opened, as opening a pipe waits for its other end.
///
/// # Errors
/// Returns the error of the system, for example if nothing is at the path.
pub(super) fn special_kind_at(path: &Path) -> io::Result<Option<&'static str>> {
    fs::metadata(path).map(|found| special_kind(found.file_type()))
}

/// Returns the name of a file type, `None` for a regular file.
pub(super) fn special_kind(kind: fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind => Some(special_name(kind)),
    }
}

#[cfg(unix)]
fn special_name(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special_name(_: fs::FileType) -> &'static str {
    "a device"
}

/// Returns the program that holds a lock on the file, if the system reports it.
pub(super) fn holder_of(file: &fs::File) -> String {
    lock_holder(file).unwrap_or_else(|| "another program".to_owned())
}

#[cfg(target_os = "linux")]
fn lock_holder(file: &fs::File) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = file.metadata().ok()?.ino();
    let process = process_with_lock(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(format!("{} (process {process})", name.trim()))
}

/// Returns the process that locks a file, from the table of proc_locks(5): number, kind of lock,
/// `ADVISORY`, `READ` or `WRITE`, process, `MAJOR:MINOR:INODE`, range.
#[cfg(target_os = "linux")]
fn process_with_lock(table: &str, inode: u64) -> Option<u32> {
    let inode = format!(":{inode}");
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = fields[..] else { return None };
        file.ends_with(&inode).then(|| process.parse().ok())?
    })
}

#[cfg(not(target_os = "linux"))]
fn lock_holder(_: &fs::File) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_never_returns_is_abandoned() {
        let (_hold, never) = mpsc::channel::<()>();
        assert_eq!(with_timeout(Duration::from_millis(1), move || never.recv().ok()), None);
        assert_eq!(with_timeout(Duration::from_secs(60), || 7), Some(7));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_that_locks_a_file_is_found_in_the_systems_table() {
        let table = "1: POSIX  ADVISORY  WRITE 11 00:16:55 0 EOF\n\
            2: FLOCK  ADVISORY  READ 708 08:01:155 0 EOF\n\
            3: FLOCK  ADVISORY  WRITE 709 08:01:55 0 EOF\n";
        assert_eq!(process_with_lock(table, 55), Some(709));
        assert_eq!(process_with_lock(table, 5), None);
    }
}
