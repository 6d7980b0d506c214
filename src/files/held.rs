//! Which files are sent and which are recorded, so that none is both.
//!
//! Files are compared by what they are, not by their names: a link is the file that it leads to.
//! Other programs are kept away by advisory locks: shared ones on what is sent, an exclusive one on
//! what is recorded.

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
    open::{holder_of, kind_of, special, within},
    open_source,
};
use crate::media::Worker;

/// Files that this process records to.
static RECORDED: Mutex<Vec<Arc<Handle>>> = Mutex::new(vec![]);

/// Files that this process is to send, open or not.
static CLAIMED: Mutex<Vec<Claimed>> = Mutex::new(vec![]);

static CLAIMS: AtomicU64 = AtomicU64::new(0);

/// How long a claimed file is waited for when a recording is compared with it. One that does not
/// answer is not the one that was just opened.
const ANSWER: Duration = Duration::from_secs(1);

/// Reading and writing for the owner of a file, nothing for others.
#[cfg(unix)]
const OWNER_ONLY: u32 = 0o600;

struct Claimed {
    number: u64,
    path: PathBuf,
    role: &'static str,
    /// Open, it keeps other programs from recording to the file.
    lock: Option<File>,
}

/// As long as this lives, nothing is recorded to a file: it is a camera or a microphone, in use or
/// not. By other programs neither, once it was opened on a thread of its own.
#[derive(Debug)]
pub struct SourceClaim(u64);

impl SourceClaim {
    /// Claims the file, which need not be there; never waits. `role` is what it is used as:
    /// `camera` or `microphone`.
    pub fn new(path: &Path, role: &'static str) -> Self {
        let number = CLAIMS.fetch_add(1, Ordering::Relaxed);
        let path = path.to_owned();
        lock(&CLAIMED).push(Claimed { number, path: path.clone(), role, lock: None });
        let worker = Worker::spawn("file", move |_| {
            if let Ok(file) = open_source(&path)
                && let Some(claimed) = lock(&CLAIMED).iter_mut().find(|it| it.number == number)
            {
                claimed.lock = Some(file);
            }
        });
        // Not joined: opening a file may take for ever.
        worker.map(Worker::abandon).unwrap_or_else(|error| tracing::error!(%error, "no thread"));
        Self(number)
    }
}

impl Drop for SourceClaim {
    fn drop(&mut self) {
        // Closing a file may take for ever, too.
        let mut claimed = lock(&CLAIMED);
        let at = claimed.iter().position(|it| it.number == self.0);
        let gone = at.map(|at| claimed.swap_remove(at));
        drop(claimed);
        if let Some(Claimed { lock: Some(file), .. }) = gone {
            let worker = Worker::spawn("file", move |_| drop(file));
            worker
                .map(Worker::abandon)
                .unwrap_or_else(|error| tracing::error!(%error, "no thread"));
        }
    }
}

/// A file that is open for recording, and for nothing else in any program that asks.
#[derive(Debug)]
pub struct Recording {
    file: File,
    id: Arc<Handle>,
}

impl Recording {
    /// Opens a file for recording and leaves it as it is; creates it if it is not there. May block
    /// for ever.
    ///
    /// # Errors
    /// If it cannot be written, is no plain file, or is sent or recorded by this program or
    /// another one.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let refuse = |kind| FileError::NoFile { path: path.to_owned(), kind };
        let fails = |source| FileError::Write { path: path.to_owned(), source };
        match kind_of(path) {
            Ok(Some(kind)) => return Err(refuse(kind)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fails(error)),
            Ok(None) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, OWNER_ONLY);
        let file = options.open(path).map_err(fails)?;
        // It may have been replaced between the two.
        if let Some(kind) = special(file.metadata().map_err(fails)?.file_type()) {
            return Err(refuse(kind));
        }
        let id = file.try_clone().and_then(Handle::from_file).map_err(fails)?;
        let recording = Self { file, id: Arc::new(id) };
        recording.check_claims(path)?;
        // And again once it is entered: of a source that is claimed meanwhile, one of the two sees
        // the other.
        lock(&RECORDED).push(Arc::clone(&recording.id));
        recording.check_claims(path)?;
        recording.lock(path)?;
        Ok(recording)
    }

    /// Looks whether a recording could be opened, and creates nothing. May block for ever.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look_for(path: &Path) -> Result<(), FileError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        match kind_of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(folder)
                .map(drop)
                .map_err(|source| FileError::Write { path: path.to_owned(), source }),
            Ok(_) | Err(_) => Self::open(path).map(drop),
        }
    }

    /// Lets nobody but the owner read the file, as it is of one that is new: what is said is to be
    /// recorded to it now. That it cannot be done, as on a file that somebody else shares with us, is
    /// told in the log.
    pub fn close_to_others(&self) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let permissions = fs::Permissions::from_mode(OWNER_ONLY);
            if let Err(error) = self.file.set_permissions(permissions) {
                tracing::warn!(%error, "others may be able to read what is recorded");
            }
        }
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check_claims(&self, path: &Path) -> Result<(), FileError> {
        let claimed: Vec<_> =
            lock(&CLAIMED).iter().map(|claim| (claim.path.clone(), claim.role)).collect();
        for (source, role) in claimed {
            let id = Arc::clone(&self.id);
            if within(ANSWER, move || is_same(&id, &source)) == Some(true) {
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
                tracing::debug!(%error, "a file system without locks");
                Ok(())
            }
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        lock(&RECORDED).retain(|id| !Arc::ptr_eq(id, &self.id));
    }
}

/// Whether this process records to the file.
pub(super) fn is_recorded(file: &File) -> bool {
    let id = file.try_clone().and_then(Handle::from_file);
    id.is_ok_and(|id| lock(&RECORDED).iter().any(|recorded| **recorded == id))
}

fn is_same(id: &Handle, path: &Path) -> bool {
    let is_file = kind_of(path).is_ok_and(|special| special.is_none());
    is_file && Handle::from_path(path).is_ok_and(|other| other == *id)
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
