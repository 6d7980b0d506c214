//! Secrets on disk: owner keys and resume tokens, readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use crate::model::{HubUrl, Secret, SessionId};

/// How long an owner key that was not given back is kept: a session that outlives a crash by
/// more was reopened under another id long ago.
const OWNER_KEY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a token that a crashed process left is worth leasing. The hub keeps the seat for a
/// minute; a machine may be suspended in between.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The folder of secrets. Several processes share it.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    folder: Option<PathBuf>,
}

impl Keys {
    /// The keys in the platform's state folder; kept in no file if there is none.
    pub(super) fn of_this_user() -> Self {
        let folder = directories::ProjectDirs::from("", "", "quintet")
            .map(|dirs| dirs.state_dir().unwrap_or_else(|| dirs.data_local_dir()).to_path_buf());
        Self { folder }
    }

    /// Keys that are kept in no file: they end with the process.
    pub(super) fn none() -> Self {
        Self { folder: None }
    }

    /// The key to an own session that was not left properly; none while another process of this
    /// user has the session.
    pub(super) fn owner_key(&self, hub: &HubUrl, session: &SessionId) -> Option<Secret> {
        let mut file = File::open(self.owner_file(hub, session)?).ok()?;
        file.try_lock().ok()?;
        read_secret(&mut file)
    }

    /// Keeps the key to an own session, ours alone until what is returned is dropped.
    pub(super) fn keep_owner_key(
        &self,
        hub: &HubUrl,
        session: &SessionId,
        key: &Secret,
    ) -> KeptKey {
        let Some(path) = self.owner_file(hub, session) else { return KeptKey { file: None } };
        if let Some(folder) = path.parent() {
            remove_older(folder, OWNER_KEY_LIFE);
        }
        // Written beside and renamed: a crash leaves the old key or the new one, never half.
        let beside = path.with_extension(std::process::id().to_string());
        let write = || {
            let mut file = create_private(&beside)?;
            file.try_lock().map_err(io::Error::from)?;
            file.write_all(key.expose().as_bytes())?;
            fs::rename(&beside, &path)?;
            Ok::<_, io::Error>(file)
        };
        match write() {
            Ok(file) => KeptKey { file: Some((file, path)) },
            Err(error) => {
                tracing::warn!(%error, "an owner key cannot be kept; a crash would cost its session");
                KeptKey { file: None }
            }
        }
    }

    /// A resume token for that hub, ours alone until the lease is dropped: one that a crashed
    /// process left, if there is one, else `fresh`.
    pub(super) fn lease_token(&self, hub: &HubUrl, fresh: Secret) -> TokenLease {
        let leased = self.folder("resume", hub).and_then(|folder| {
            remove_older(&folder, TOKEN_LIFE);
            left_behind(&folder).or_else(|| create_lease(&folder, &fresh))
        });
        leased.unwrap_or(TokenLease { token: fresh, file: None })
    }

    fn owner_file(&self, hub: &HubUrl, session: &SessionId) -> Option<PathBuf> {
        Some(self.folder("owner", hub)?.join(digest(session.as_str())))
    }

    /// The folder of one kind of secret for one hub, made if it is missing.
    fn folder(&self, kind: &str, hub: &HubUrl) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.join(kind).join(digest(hub.as_str()));
        match create_private_folder(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                tracing::warn!(%error, "secrets cannot be kept; a crash would cost its seats");
                None
            }
        }
    }
}

/// An owner key on disk, locked against other processes; a crash unlocks it.
#[derive(Debug)]
pub(super) struct KeptKey {
    file: Option<(File, PathBuf)>,
}

impl KeptKey {
    /// Forgets the key: its session was left properly, or is somebody else's now.
    pub(super) fn forget(self) {
        remove(self.file);
    }
}

/// A resume token, locked against other processes.
#[derive(Debug)]
pub(super) struct TokenLease {
    /// The token.
    pub(super) token: Secret,
    file: Option<(File, PathBuf)>,
}

impl TokenLease {
    /// Keeps another token in its place: the hub gave a new one.
    pub(super) fn replace(&mut self, token: Secret) {
        if token == self.token {
            return;
        }
        if let Some((file, _)) = &mut self.file
            && let Err(error) = rewrite(file, &token)
        {
            tracing::warn!(%error, "a resume token cannot be kept");
        }
        self.token = token;
    }

    /// Forgets the token: its seats were left properly.
    pub(super) fn forget(self) {
        remove(self.file);
    }
}

/// Removes a file, and its folder if nothing else is in it.
fn remove(file: Option<(File, PathBuf)>) {
    if let Some((_, path)) = file {
        let _ = fs::remove_file(&path);
        if let Some(folder) = path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// A token whose process is gone: the system drops a process's locks when it ends.
fn left_behind(folder: &Path) -> Option<TokenLease> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        if let Some(token) = read_secret(&mut file) {
            // Its age counts from its newest lease.
            let _ = file.set_modified(SystemTime::now());
            return Some(TokenLease { token, file: Some((file, path)) });
        }
    }
    None
}

fn read_secret(file: &mut File) -> Option<Secret> {
    let mut text = String::new();
    Read::by_ref(file).take(64).read_to_string(&mut text).ok()?;
    Secret::try_from(text).ok()
}

fn create_lease(folder: &Path, token: &Secret) -> Option<TokenLease> {
    let path = folder.join(digest(token.expose()));
    let create = || {
        let mut file = create_private(&path)?;
        file.try_lock().map_err(io::Error::from)?;
        rewrite(&mut file, token)?;
        Ok::<_, io::Error>(file)
    };
    match create() {
        Ok(file) => Some(TokenLease { token: token.clone(), file: Some((file, path)) }),
        Err(error) => {
            tracing::warn!(%error, "a resume token cannot be kept; a crash would cost its seats");
            None
        }
    }
}

fn rewrite(file: &mut File, token: &Secret) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(token.expose().as_bytes())?;
    file.flush()
}

/// Removes the files of a folder that were not written for that long and that no process holds.
fn remove_older(folder: &Path, life: Duration) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let age = written.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        let is_held = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_err());
        if age.is_some_and(|age| age > life) && !is_held() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file name that tells nothing and has no odd characters.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// Makes an empty file that only the user can read, in place of one that is there.
#[cfg(unix)]
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Makes an empty file in place of one that is there.
#[cfg(not(unix))]
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    // The user's own state folder is closed to other users by its access list.
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

/// Makes a folder, and those above it, that only the user can read.
#[cfg(unix)]
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a folder and those above it.
#[cfg(not(unix))]
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed at the end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("quintet-keys-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn keys(&self) -> Keys {
            Keys { folder: Some(self.0.clone()) }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn hub() -> HubUrl {
        "http://127.0.0.1:7340".parse().unwrap()
    }

    #[test]
    fn an_owner_key_is_kept_until_it_is_forgotten_and_nobody_else_has_it_meanwhile() {
        let scratch = Scratch::new("owner");
        let (keys, session) = (scratch.keys(), SessionId::parse("town-hall").unwrap());
        let key = Secret::from_random([7; 16]);
        assert_eq!(keys.owner_key(&hub(), &session), None);
        let kept = keys.keep_owner_key(&hub(), &session, &key);
        assert_eq!(keys.owner_key(&hub(), &session), None, "its session lives");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let file = keys.owner_file(&hub(), &session).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        }
        drop(kept);
        assert_eq!(keys.owner_key(&hub(), &session), Some(key.clone()), "after a crash");
        keys.keep_owner_key(&hub(), &session, &key).forget();
        assert_eq!(keys.owner_key(&hub(), &session), None);
    }

    #[test]
    fn an_old_token_is_removed_only_if_no_process_holds_it() {
        let scratch = Scratch::new("old");
        let keys = scratch.keys();
        let lease = keys.lease_token(&hub(), Secret::from_random([1; 16]));
        let (file, path) = lease.file.as_ref().unwrap();
        file.set_modified(SystemTime::now() - 2 * TOKEN_LIFE).unwrap();
        let second = keys.lease_token(&hub(), Secret::from_random([2; 16]));
        assert!(path.exists(), "a program may run for longer than a token is worth");
        let path = path.clone();
        drop(lease);
        drop(keys.lease_token(&hub(), Secret::from_random([3; 16])));
        assert!(!path.exists());
        drop(second);
    }

    #[test]
    fn a_token_is_leased_once_and_again_only_after_its_process_is_gone() {
        let scratch = Scratch::new("token");
        let keys = scratch.keys();
        let first = keys.lease_token(&hub(), Secret::from_random([1; 16]));
        let second = keys.lease_token(&hub(), Secret::from_random([2; 16]));
        assert_ne!(first.token, second.token, "a token that is in use is nobody else's");
        let token = first.token.clone();
        drop(first);
        let third = keys.lease_token(&hub(), Secret::from_random([3; 16]));
        assert_eq!(third.token, token, "a token left behind is taken up");
        third.forget();
        let fourth = keys.lease_token(&hub(), Secret::from_random([4; 16]));
        assert_eq!(fourth.token, Secret::from_random([4; 16]), "a forgotten one is not");
    }
}
