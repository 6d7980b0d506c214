//! What may go wrong with a file, and how to ask about one without waiting for ever.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

use crate::media::Worker;

/// Why a file cannot be used, for a person: which one, what is wrong with it, the way out.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("the file {path:?} cannot be read: {source}; check its name and your right to read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be opened for writing.
    #[error("cannot write sound to {path:?}: {source}; choose another file")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a pipe, a socket or a device. Opening some of these waits for ever.
    #[error("{path:?} is {kind}, not a file; choose a file")]
    NoFile {
        /// Which path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// No call about it returns.
    #[error(
        "{path:?} does not answer; check the drive or the network that it is on, or choose \
         another file"
    )]
    Hung {
        /// Which file.
        path: PathBuf,
    },
    /// A recording would destroy what is sent.
    #[error(
        "{path:?} is also the {role}'s file, which a recording would destroy; choose another file"
    )]
    IsSource {
        /// The path of the recording.
        path: PathBuf,
        /// Of what it is the file: `camera` or `microphone`.
        role: &'static str,
    },
    /// What is to be sent is just being recorded.
    #[error("sound is being recorded to {path:?}, so it cannot be sent; choose another file")]
    IsRecording {
        /// Which file.
        path: PathBuf,
    },
    /// Somebody else reads what is to be written, or writes what is to be read.
    #[error("the file {path:?} is in use by {holder}; choose another file, or end that program")]
    InUse {
        /// Which file.
        path: PathBuf,
        /// By which program.
        holder: String,
    },
}

/// Runs what may block for ever on a thread of its own and waits at most `limit` for the result.
/// After that the thread is left alone; it ends when the call returns.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (say, result) = mpsc::sync_channel(1);
    let worker = Worker::spawn("file", move |_| {
        say.try_send(work()).ok();
    });
    let worker = worker.inspect_err(|error| tracing::error!(%error, "no thread for a file"));
    worker.ok()?.abandon();
    result.recv_timeout(limit).ok()
}

/// Looks what is at the path before it is opened: opening a pipe waits for its other end.
///
/// # Errors
/// What the system says, such as that nothing is there.
pub(super) fn kind_of(path: &Path) -> io::Result<Option<&'static str>> {
    fs::metadata(path).map(|found| special(found.file_type()))
}

/// What is no plain file, by name.
pub(super) fn special(kind: fs::FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a folder"),
        kind => Some(unusual(kind)),
    }
}

#[cfg(unix)]
fn unusual(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn unusual(_: fs::FileType) -> &'static str {
    "a device"
}

/// The program that holds a lock on the file, as far as the system tells.
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

/// The process that locks a file, in the table of proc_locks(5): number, kind of lock, `ADVISORY`,
/// `READ` or `WRITE`, process, `MAJOR:MINOR:INODE`, range.
#[cfg(target_os = "linux")]
fn process_with_lock(table: &str, inode: u64) -> Option<u32> {
    let inode = format!(":{inode}");
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, file, ..] = words[..] else { return None };
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
    fn a_call_that_never_returns_is_not_waited_for() {
        let (_hold, never) = mpsc::channel::<()>();
        assert_eq!(within(Duration::from_millis(1), move || never.recv().ok()), None);
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
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
