//! Secrets on disk: owner keys and resume tokens, readable by their owner only.
//!
//! Each is kept for the place that gave it. Of a hub at a loopback address that is not proven to be
//! this user's nothing is kept on disk: another program may answer there the next time.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use crate::{
    model::{HubOwner, HubPlace, Secret, SessionId},
    process::{create_private, create_private_folder, state_folder},
    signalling::{HubIdentity, TokenStore},
};

/// How long an owner key is kept from the time that its session was opened last: that of a session
/// that was not left properly, and that of a bound id.
const OWNER_KEY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a token that a crashed process left is worth leasing. The hub keeps the seat for a
/// minute; a machine may be suspended in between.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The folder of secrets. Several processes share it.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    folder: Option<PathBuf>,
    /// What this user's hubs prove themselves with.
    identity: HubIdentity,
}

impl Keys {
    /// The keys in the platform's state folder; kept in no file if there is none.
    pub(super) fn of_this_user() -> Self {
        Self { folder: state_folder(), identity: HubIdentity::of_this_user() }
    }

    /// Keys that are kept in no file: they end with the process.
    pub(super) fn none() -> Self {
        Self { folder: None, identity: HubIdentity::fresh() }
    }

    /// What this user's hubs prove themselves with.
    pub(super) const fn identity(&self) -> &HubIdentity {
        &self.identity
    }

    /// The key to an own session that was not left properly, or to a bound id; none while another
    /// process of this user has the session.
    pub(super) fn owner_key(&self, place: &HubPlace, session: &SessionId) -> Option<Secret> {
        let mut file = File::open(self.owner_file(place, session)?).ok()?;
        file.try_lock().ok()?;
        read_secret(&mut file)
    }

    /// Keeps the key to an own session, ours alone until what is returned is dropped.
    pub(super) fn keep_owner_key(
        &self,
        place: &HubPlace,
        session: &SessionId,
        key: &Secret,
    ) -> KeptKey {
        let Some(path) = self.owner_file(place, session) else { return KeptKey { file: None } };
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

    /// A resume token for that place, ours alone until the lease is dropped: one that a crashed
    /// process left, if there is one, else `fresh`.
    fn lease_token(&self, place: &HubPlace, fresh: Secret) -> TokenLease {
        let leased = self.folder("resume", place).and_then(|folder| {
            remove_older(&folder, TOKEN_LIFE);
            left_behind(&folder).or_else(|| create_lease(&folder, &fresh))
        });
        leased.unwrap_or(TokenLease { token: fresh, file: None })
    }

    fn owner_file(&self, place: &HubPlace, session: &SessionId) -> Option<PathBuf> {
        Some(self.folder("owner", place)?.join(digest(session.as_str())))
    }

    /// The folder of one kind of secret for one place, made if it is missing; `None` if none are to
    /// be kept.
    fn folder(&self, kind: &str, place: &HubPlace) -> Option<PathBuf> {
        let name = match place.owner {
            HubOwner::Elsewhere => digest(place.url.as_str()),
            HubOwner::ThisUser => digest(&format!("{} of this user", place.url)),
            HubOwner::Unproven => return None,
        };
        let folder = self.folder.as_ref()?.join(kind).join(name);
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

/// The resume tokens of one connection to a hub: one for each place that it led to.
#[derive(Debug)]
pub(super) struct Leases {
    keys: Keys,
    held: BTreeMap<HubPlace, TokenLease>,
}

impl Leases {
    /// Tokens that are kept among those keys.
    pub(super) const fn of(keys: Keys) -> Self {
        Self { keys, held: BTreeMap::new() }
    }

    fn at(&mut self, place: &HubPlace) -> &mut TokenLease {
        let lease = || self.keys.lease_token(place, fresh_secret());
        self.held.entry(place.clone()).or_insert_with(lease)
    }
}

impl TokenStore for Leases {
    fn token(&mut self, place: &HubPlace) -> Option<Secret> {
        Some(self.at(place).token.clone())
    }

    fn keep(&mut self, place: &HubPlace, token: &Secret) {
        self.at(place).replace(token.clone());
    }

    fn forget(&mut self) {
        std::mem::take(&mut self.held).into_values().for_each(TokenLease::forget);
    }
}

/// A resume token, locked against other processes.
#[derive(Debug)]
struct TokenLease {
    token: Secret,
    file: Option<(File, PathBuf)>,
}

impl TokenLease {
    /// Keeps another token in its place: the hub gave a new one.
    fn replace(&mut self, token: Secret) {
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
    fn forget(self) {
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

/// 128 bits of the system's randomness.
pub(super) fn fresh_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    Secret::from_random(bytes)
}

/// A file name that tells nothing and has no odd characters.
fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
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
            Keys { folder: Some(self.0.clone()), identity: HubIdentity::fresh() }
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn place(url: &str, owner: HubOwner) -> HubPlace {
        HubPlace { url: url.parse().unwrap(), owner }
    }

    fn hub() -> HubPlace {
        place("http://127.0.0.1:7340", HubOwner::ThisUser)
    }

    #[test]
    fn what_a_hub_gave_is_given_to_no_other_place_and_not_to_one_that_is_unproven_since() {
        let scratch = Scratch::new("places");
        let (keys, session) = (scratch.keys(), SessionId::parse("town-hall").unwrap());
        let key = Secret::from_random([7; 16]);
        drop(keys.keep_owner_key(&hub(), &session, &key));
        let mut leases = Leases::of(keys.clone());
        let token = leases.token(&hub()).unwrap();
        assert_eq!(leases.token(&hub()), Some(token.clone()), "the same as long as it runs");
        drop(leases);
        for other in [
            place("http://127.0.0.1:7340", HubOwner::Unproven),
            place("http://127.0.0.1:7340", HubOwner::Elsewhere),
            place("http://127.0.0.1:7341", HubOwner::ThisUser),
            place("http://192.0.2.1:7340", HubOwner::Elsewhere),
        ] {
            assert_eq!(keys.owner_key(&other, &session), None, "{other:?}");
            assert_ne!(Leases::of(keys.clone()).token(&other), Some(token.clone()), "{other:?}");
        }
        assert_eq!(keys.owner_key(&hub(), &session), Some(key));
        assert_eq!(Leases::of(keys).token(&hub()), Some(token), "after a crash");
    }

    #[test]
    fn an_unproven_hub_leaves_nothing_on_disk_and_is_told_the_same_as_long_as_we_run() {
        let scratch = Scratch::new("unproven");
        let (keys, session) = (scratch.keys(), SessionId::parse("town-hall").unwrap());
        let unproven = place("http://127.0.0.1:7340", HubOwner::Unproven);
        let mut leases = Leases::of(keys.clone());
        let token = Secret::from_random([8; 16]);
        leases.keep(&unproven, &token);
        drop(keys.keep_owner_key(&unproven, &session, &token));
        assert!(!scratch.0.exists(), "nothing is written");
        assert_eq!(leases.token(&unproven), Some(token.clone()));
        assert_ne!(Leases::of(keys).token(&unproven), Some(token), "a later run");
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
