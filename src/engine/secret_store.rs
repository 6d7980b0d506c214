//! Secrets on disk: owner keys and resume tokens, readable by this user only.
//!
//! Each secret is stored for the hub (URL and owner) that gave it. Secrets of a hub at a loopback
//! address that is not proven to be this user's are not stored on disk: another program may answer
//! there the next time.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use crate::{
    model::{HubEndpoint, HubOwner, Secret, SessionId},
    process::{create_private, create_private_folder, state_folder},
    signalling::{HubIdentity, TokenStore},
};

/// How long an owner key stays on disk after its session was last opened. Keys stay if the session
/// was not left properly, or if its id is bound to the key.
const OWNER_KEY_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long the resume token of a crashed process can be used. The hub keeps the seat for a minute;
/// a machine may be suspended in between.
const TOKEN_MAX_AGE: Duration = Duration::from_secs(3600);

/// The folder of secrets. Several processes of the user share it.
#[derive(Clone, Debug)]
pub(super) struct SecretStore {
    folder: Option<PathBuf>,
    /// The secret by which this user's hubs prove that they are this user's.
    identity: HubIdentity,
}

impl SecretStore {
    /// Returns the store in the platform's state folder; without such a folder, secrets stay in
    /// memory.
    pub(super) fn of_this_user() -> Self {
        Self { folder: state_folder(), identity: HubIdentity::of_this_user() }
    }

    /// Returns a store without files: its secrets end with the process.
    pub(super) fn in_memory() -> Self {
        Self { folder: None, identity: HubIdentity::fresh() }
    }

    /// Returns the secret by which this user's hubs prove that they are this user's.
    pub(super) const fn identity(&self) -> &HubIdentity {
        &self.identity
    }

    /// Returns the stored owner key of a session that was not left properly, or of a bound id;
    /// `None` while another process of this user has the session.
    pub(super) fn owner_key(&self, endpoint: &HubEndpoint, session: &SessionId) -> Option<Secret> {
        let mut file = File::open(self.owner_file(endpoint, session)?).ok()?;
        file.try_lock().ok()?;
        read_secret(&mut file)
    }

    /// Stores the owner key of a session. No other process can read it until the returned value is
    /// dropped.
    pub(super) fn store_owner_key(
        &self,
        endpoint: &HubEndpoint,
        session: &SessionId,
        key: &Secret,
    ) -> StoredOwnerKey {
        let Some(path) = self.owner_file(endpoint, session) else {
            return StoredOwnerKey { file: None };
        };
        if let Some(folder) = path.parent() {
            remove_older_than(folder, OWNER_KEY_MAX_AGE);
        }
        // Written to another file and renamed: a crash leaves the old key or the new one, never a
        // part.
        let new_path = path.with_extension(std::process::id().to_string());
        let write = || {
            let mut file = create_private(&new_path)?;
            file.try_lock().map_err(io::Error::from)?;
            file.write_all(key.expose().as_bytes())?;
            fs::rename(&new_path, &path)?;
            Ok::<_, io::Error>(file)
        };
        match write() {
            Ok(file) => StoredOwnerKey { file: Some((file, path)) },
            Err(error) => {
                tracing::warn!(%error, "owner key not stored; after a crash its session is lost");
                StoredOwnerKey { file: None }
            }
        }
    }

    /// Returns a resume token for that hub: one of a crashed process if there is one, else `fresh`.
    /// No other process uses it until the lease is dropped.
    fn lease_token(&self, endpoint: &HubEndpoint, fresh: Secret) -> TokenLease {
        let leased = self.folder_for("resume", endpoint).and_then(|folder| {
            remove_older_than(&folder, TOKEN_MAX_AGE);
            find_orphaned_token(&folder).or_else(|| create_lease(&folder, &fresh))
        });
        leased.unwrap_or(TokenLease { token: fresh, file: None })
    }

    fn owner_file(&self, endpoint: &HubEndpoint, session: &SessionId) -> Option<PathBuf> {
        Some(self.folder_for("owner", endpoint)?.join(hashed_name(session.as_str())))
    }

    /// Returns the folder of one kind of secret for one hub, and creates it if it is missing.
    /// `None` if secrets of this hub are not stored.
    fn folder_for(&self, kind: &str, endpoint: &HubEndpoint) -> Option<PathBuf> {
        let name = match endpoint.owner {
            HubOwner::Elsewhere => hashed_name(endpoint.url.as_str()),
            HubOwner::ThisUser => hashed_name(&format!("{} of this user", endpoint.url)),
            HubOwner::Unproven => return None,
        };
        let folder = self.folder.as_ref()?.join(kind).join(name);
        match create_private_folder(&folder) {
            Ok(()) => Some(folder),
            Err(error) => {
                tracing::warn!(%error, "secrets not stored; after a crash the seats are lost");
                None
            }
        }
    }
}

/// An owner key on disk, locked against other processes; a crash unlocks it.
#[derive(Debug)]
pub(super) struct StoredOwnerKey {
    file: Option<(File, PathBuf)>,
}

impl StoredOwnerKey {
    /// Deletes the key: its session was left properly, or has another owner now.
    pub(super) fn forget(self) {
        remove_with_empty_folder(self.file);
    }
}

/// The resume tokens of one connection to a hub: one for each URL and owner that it led to.
#[derive(Debug)]
pub(super) struct TokenLeases {
    store: SecretStore,
    leases: BTreeMap<HubEndpoint, TokenLease>,
}

impl TokenLeases {
    /// Returns an empty set of leases from that store.
    pub(super) const fn new(store: SecretStore) -> Self {
        Self { store, leases: BTreeMap::new() }
    }

    fn lease_for(&mut self, endpoint: &HubEndpoint) -> &mut TokenLease {
        let lease = || self.store.lease_token(endpoint, fresh_secret());
        self.leases.entry(endpoint.clone()).or_insert_with(lease)
    }
}

impl TokenStore for TokenLeases {
    fn token(&mut self, endpoint: &HubEndpoint) -> Option<Secret> {
        Some(self.lease_for(endpoint).token.clone())
    }

    fn keep(&mut self, endpoint: &HubEndpoint, token: &Secret) {
        self.lease_for(endpoint).replace(token.clone());
    }

    fn forget(&mut self) {
        std::mem::take(&mut self.leases).into_values().for_each(TokenLease::forget);
    }
}

/// A resume token, locked against other processes.
#[derive(Debug)]
struct TokenLease {
    token: Secret,
    file: Option<(File, PathBuf)>,
}

impl TokenLease {
    /// Replaces the token by a new one that the hub gave.
    fn replace(&mut self, token: Secret) {
        if token == self.token {
            return;
        }
        if let Some((file, _)) = &mut self.file
            && let Err(error) = rewrite(file, &token)
        {
            tracing::warn!(%error, "new resume token not stored");
        }
        self.token = token;
    }

    /// Deletes the token: its seats were left properly.
    fn forget(self) {
        remove_with_empty_folder(self.file);
    }
}

/// Removes a file, and its folder if that is empty then.
fn remove_with_empty_folder(file: Option<(File, PathBuf)>) {
    if let Some((_, path)) = file {
        let _ = fs::remove_file(&path);
        if let Some(folder) = path.parent() {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Returns a token whose process has ended: the system then drops the lock on its file.
fn find_orphaned_token(folder: &Path) -> Option<TokenLease> {
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        if file.try_lock().is_err() {
            continue;
        }
        if let Some(token) = read_secret(&mut file) {
            // The age of a token counts from its newest lease.
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
    let path = folder.join(hashed_name(token.expose()));
    let create = || {
        let mut file = create_private(&path)?;
        file.try_lock().map_err(io::Error::from)?;
        rewrite(&mut file, token)?;
        Ok::<_, io::Error>(file)
    };
    match create() {
        Ok(file) => Some(TokenLease { token: token.clone(), file: Some((file, path)) }),
        Err(error) => {
            tracing::warn!(%error, "resume token not stored; after a crash the seats are lost");
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

/// Removes the files of a folder that are older than `life` and that no process has locked.
fn remove_older_than(folder: &Path, life: Duration) {
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

/// Returns a secret of 128 random bits of the system.
pub(super) fn fresh_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    Secret::from_random(bytes)
}

/// Returns a file name that reveals nothing about `text` and has hexadecimal digits only.
fn hashed_name(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder for one test, removed on drop.
    struct TempFolder(PathBuf);

    impl TempFolder {
        fn new(name: &str) -> Self {
            let name = format!("quintet-keys-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn store(&self) -> SecretStore {
            SecretStore { folder: Some(self.0.clone()), identity: HubIdentity::fresh() }
        }
    }

    impl Drop for TempFolder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn endpoint(url: &str, owner: HubOwner) -> HubEndpoint {
        HubEndpoint { url: url.parse().unwrap(), owner }
    }

    fn hub() -> HubEndpoint {
        endpoint("http://127.0.0.1:7340", HubOwner::ThisUser)
    }

    #[test]
    fn secrets_of_a_hub_are_used_at_no_other_url_or_owner() {
        let scratch = TempFolder::new("endpoints");
        let (keys, session) = (scratch.store(), SessionId::parse("town-hall").unwrap());
        let key = Secret::from_random([7; 16]);
        drop(keys.store_owner_key(&hub(), &session, &key));
        let mut leases = TokenLeases::new(keys.clone());
        let token = leases.token(&hub()).unwrap();
        assert_eq!(
            leases.token(&hub()),
            Some(token.clone()),
            "the token stays while the lease is held"
        );
        drop(leases);
        for other in [
            endpoint("http://127.0.0.1:7340", HubOwner::Unproven),
            endpoint("http://127.0.0.1:7340", HubOwner::Elsewhere),
            endpoint("http://127.0.0.1:7341", HubOwner::ThisUser),
            endpoint("http://192.0.2.1:7340", HubOwner::Elsewhere),
        ] {
            assert_eq!(keys.owner_key(&other, &session), None, "{other:?}");
            assert_ne!(
                TokenLeases::new(keys.clone()).token(&other),
                Some(token.clone()),
                "{other:?}"
            );
        }
        assert_eq!(keys.owner_key(&hub(), &session), Some(key));
        assert_eq!(TokenLeases::new(keys).token(&hub()), Some(token), "after a crash");
    }

    #[test]
    fn secrets_of_an_unproven_hub_are_not_stored_and_stay_the_same_in_one_run() {
        let scratch = TempFolder::new("unproven");
        let (keys, session) = (scratch.store(), SessionId::parse("town-hall").unwrap());
        let unproven = endpoint("http://127.0.0.1:7340", HubOwner::Unproven);
        let mut leases = TokenLeases::new(keys.clone());
        let token = Secret::from_random([8; 16]);
        leases.keep(&unproven, &token);
        drop(keys.store_owner_key(&unproven, &session, &token));
        assert!(!scratch.0.exists(), "nothing is written");
        assert_eq!(leases.token(&unproven), Some(token.clone()));
        assert_ne!(TokenLeases::new(keys).token(&unproven), Some(token), "a later run");
    }

    #[test]
    fn an_owner_key_is_stored_until_it_is_deleted_and_locked_meanwhile() {
        let scratch = TempFolder::new("owner");
        let (keys, session) = (scratch.store(), SessionId::parse("town-hall").unwrap());
        let key = Secret::from_random([7; 16]);
        assert_eq!(keys.owner_key(&hub(), &session), None);
        let kept = keys.store_owner_key(&hub(), &session, &key);
        assert_eq!(keys.owner_key(&hub(), &session), None, "the session is still open");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let file = keys.owner_file(&hub(), &session).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        }
        drop(kept);
        assert_eq!(keys.owner_key(&hub(), &session), Some(key.clone()), "after a crash");
        keys.store_owner_key(&hub(), &session, &key).forget();
        assert_eq!(keys.owner_key(&hub(), &session), None);
    }

    #[test]
    fn an_old_token_is_removed_only_if_no_process_holds_it() {
        let scratch = TempFolder::new("old");
        let keys = scratch.store();
        let lease = keys.lease_token(&hub(), Secret::from_random([1; 16]));
        let (file, path) = lease.file.as_ref().unwrap();
        file.set_modified(SystemTime::now() - 2 * TOKEN_MAX_AGE).unwrap();
        let second = keys.lease_token(&hub(), Secret::from_random([2; 16]));
        assert!(path.exists(), "a program may run for longer than the maximum age of a token");
        let path = path.clone();
        drop(lease);
        drop(keys.lease_token(&hub(), Secret::from_random([3; 16])));
        assert!(!path.exists());
        drop(second);
    }

    #[test]
    fn a_token_is_leased_again_only_after_its_process_has_ended() {
        let scratch = TempFolder::new("token");
        let keys = scratch.store();
        let first = keys.lease_token(&hub(), Secret::from_random([1; 16]));
        let second = keys.lease_token(&hub(), Secret::from_random([2; 16]));
        assert_ne!(first.token, second.token, "a token in use is not leased again");
        let token = first.token.clone();
        drop(first);
        let third = keys.lease_token(&hub(), Secret::from_random([3; 16]));
        assert_eq!(third.token, token, "an orphaned token is leased again");
        third.forget();
        let fourth = keys.lease_token(&hub(), Secret::from_random([4; 16]));
        assert_eq!(
            fourth.token,
            Secret::from_random([4; 16]),
            "a deleted token is not leased again"
        );
    }
}
