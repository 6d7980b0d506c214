//! Claims on the files that are sent and on those that are recorded, so that no file is both.
//!
//! Files are compared by identity, not by name: a link is the file that it leads to. Advisory locks
//! keep other programs away: a shared lock on a file that is sent, an exclusive lock on a file that
//! is recorded.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use same_file::Handle;

use super::{
    FileError,
    access::{holder_of, special_kind, special_kind_at, with_timeout},
    open_source,
};
use crate::media::Worker;

/// The files that this process records to.
static RECORDINGS: Mutex<Vec<Arc<Handle>>> = Mutex::new(vec![]);

/// The files that this process sends or will send, open or not.
static CLAIMED_FILES: Mutex<Vec<ClaimedFile>> = Mutex::new(vec![]);

/// The number of the next claim.
static NEXT_CLAIM: AtomicU64 = AtomicU64::new(0);

/// How long the comparison of a recording with a claimed file may take. A file that does not answer
/// is not the file that was just opened.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(1);

/// The mode of a file that only its owner can read and write.
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;

/// A file that is sent, and the lock on it.
struct ClaimedFile {
    number: u64,
    path: PathBuf,
    role: &'static str,
    /// The open file with a shared lock, which keeps other programs from recording to it.
    lock: Option<File>,
}

/// A claim on a file that is a camera or a microphone, in use or not. While it exists, this process
/// does not record to the file. Other programs are kept away once a background thread has opened
/// and locked the file.
#[derive(Debug)]
pub struct SourceClaim(u64);

impl SourceClaim {
    /// Claims a file, which need not exist; never waits. `role` is what the file is used as:
    /// `camera` or `microphone`.
    pub fn new(path: &Path, role: &'static str) -> Self {
        let number = NEXT_CLAIM.fetch_add(1, Ordering::Relaxed);
        let path = path.to_owned();
        lock(&CLAIMED_FILES).push(ClaimedFile { number, path: path.clone(), role, lock: None });
        let worker = Worker::spawn("file", move |_| {
            if let Ok(file) = open_source(&path)
                && let Some(claimed) =
                    lock(&CLAIMED_FILES).iter_mut().find(|it| it.number == number)
            {
                claimed.lock = Some(file);
            }
        });
        // Not joined: opening a file may block for ever.
        worker.map(Worker::abandon).unwrap_or_else(|error| tracing::error!(%error, "no thread"));
        Self(number)
    }
}

impl Drop for SourceClaim {
    fn drop(&mut self) {
        // Closing a file may block for ever, too.
        let mut claimed = lock(&CLAIMED_FILES);
        let at = claimed.iter().position(|it| it.number == self.0);
        let removed = at.map(|at| claimed.swap_remove(at));
        drop(claimed);
        if let Some(ClaimedFile { lock: Some(file), .. }) = removed {
            let worker = Worker::spawn("file", move |_| drop(file));
            worker
                .map(Worker::abandon)
                .unwrap_or_else(|error| tracing::error!(%error, "no thread"));
        }
    }
}

/// A file that is open for recording. No program that respects the locks uses it for anything else.
#[derive(Debug)]
pub struct Recording {
    file: File,
    id: Arc<Handle>,
}

impl Recording {
    /// Opens a file for recording without changing it; creates it if it is missing. May block for
    /// ever.
    ///
    /// # Errors
    /// Fails if the file cannot be written, is not a regular file, or is sent or recorded by this
    /// program or another one.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let refuse = |kind| FileError::NotAFile { path: path.to_owned(), kind };
        let fails = |source| FileError::Write { path: path.to_owned(), source };
        match special_kind_at(path) {
            Ok(Some(kind)) => return Err(refuse(kind)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fails(error)),
            Ok(None) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, OWNER_ONLY);
        let file = options.open(path).map_err(fails)?;
        // The file may have been replaced since the first check.
        if let Some(kind) = special_kind(file.metadata().map_err(fails)?.file_type()) {
            return Err(refuse(kind));
        }
        let id = file.try_clone().and_then(Handle::from_file).map_err(fails)?;
        let recording = Self { file, id: Arc::new(id) };
        recording.check_claims(path)?;
        // Checked again after the entry in the table: if a source is claimed meanwhile, one of the
        // two finds the other.
        lock(&RECORDINGS).push(Arc::clone(&recording.id));
        recording.check_claims(path)?;
        recording.lock(path)?;
        Ok(recording)
    }

    /// Checks whether a recording could be opened; creates nothing. May block for ever.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn check(path: &Path) -> Result<(), FileError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        match special_kind_at(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(folder)
                .map(drop)
                .map_err(|source| FileError::Write { path: path.to_owned(), source }),
            Ok(_) | Err(_) => Self::open(path).map(drop),
        }
    }

    /// Restricts the file to its owner, like a new file, before audio is recorded to it. A failure
    /// is logged; it happens with a file of another user, for example.
    pub fn restrict_to_owner(&self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = fs::Permissions::from_mode(OWNER_ONLY);
            if let Err(error) = self.file.set_permissions(permissions) {
                tracing::warn!(%error, "other users may be able to read the recording");
            }
        }
    }

    /// Returns the open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Fails if the file is the source of a claim.
    fn check_claims(&self, path: &Path) -> Result<(), FileError> {
        let claimed: Vec<_> =
            lock(&CLAIMED_FILES).iter().map(|claim| (claim.path.clone(), claim.role)).collect();
        for (source, role) in claimed {
            let id = Arc::clone(&self.id);
            if with_timeout(COMPARE_TIMEOUT, move || is_same_file(&id, &source)) == Some(true) {
                return Err(FileError::IsSource { path: path.to_owned(), role });
            }
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<(), FileError> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => {
                let holder = holder_of(&self.file);
                Err(FileError::InUse { path: path.to_owned(), holder })
            }
            Err(TryLockError::Error(error)) => {
                tracing::debug!(%error, "file system without locks");
                Ok(())
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        lock(&RECORDINGS).retain(|id| !Arc::ptr_eq(id, &self.id));
    }
}

/// Returns whether this process records to the file.
pub(super) fn is_recorded(file: &File) -> bool {
    let id = file.try_clone().and_then(Handle::from_file);
    id.is_ok_and(|id| lock(&RECORDINGS).iter().any(|recorded| **recorded == id))
}

fn is_same_file(id: &Handle, path: &Path) -> bool {
    let is_file = special_kind_at(path).is_ok_and(|special| special.is_none());
    is_file && Handle::from_path(path).is_ok_and(|other| other == *id)
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
