//! The open sessions of a window, saved on disk. After the window has ended, by a crash or in
//! order, the next window offers to resume them.
//!
//! Each window has its own file, which it locks while it runs. The system releases the locks of a
//! program that ends, however it ends. So an unlocked file is from a window that has ended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};

use super::labels;
use crate::{
    model::{
        Command, Enabled, HubUrl, JoinTarget, MuteSwitch, OpenRequest, Role, SessionId,
        SessionKind, SessionStatus, Snapshot, Source,
    },
    process::{create_private, create_private_folder, state_folder},
};

/// How long the sessions of an ended window are offered. Later their links are of no use.
const OFFERED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest file that is read, in bytes. 64 sessions need about 20 000.
const MAX_BYTES: u64 = 256 * 1024;

/// What is needed to open or join a session again. Contains no secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SavedSession {
    session: SessionId,
    /// The kind of the session. `None` until a guest has learned it.
    kind: Option<SessionKind>,
    role: Role,
    /// The address of its hub, if known.
    hub: Option<String>,
    limit: Option<u16>,
    /// Whether the session's own switches were off. A muted user stays muted after a crash.
    #[serde(default)]
    is_muted: bool,
    #[serde(default)]
    is_unseen: bool,
}

/// The content of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct SavedSessions {
    sessions: Vec<SavedSession>,
}

/// The sessions of a window that has ended, to be resumed.
#[derive(Debug)]
pub(crate) struct ResumableSessions {
    sessions: Vec<SavedSession>,
    /// When they were saved.
    saved_at: SystemTime,
    /// The locked file. No other window offers it while it is locked.
    locked_file: File,
    path: PathBuf,
}

/// Saves a window's sessions whenever they change, on threads that may block.
#[derive(Debug)]
pub(crate) struct SessionSaver {
    latest: Arc<watch::Sender<SaveRequest>>,
}

/// Ends the saving when the window closes in order.
#[derive(Debug)]
pub(crate) struct SaverShutdown {
    latest: Arc<watch::Sender<SaveRequest>>,
    task: JoinHandle<()>,
}

/// The sessions to save.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct SaveRequest {
    sessions: Vec<SavedSession>,
    /// Whether this is the last request.
    is_last: bool,
}

/// The file of a window.
#[derive(Debug)]
struct SessionsFile {
    folder: PathBuf,
    path: PathBuf,
    /// `None` while there is no session to save.
    locked_file: Option<File>,
}

impl SavedSession {
    /// The sessions of a snapshot that are not over, including those whose leaving can be undone.
    pub(crate) fn all(snapshot: &Snapshot) -> Vec<Self> {
        let departing = snapshot.departure.iter().flat_map(|departure| &departure.sessions);
        let all = snapshot.sessions.iter().chain(departing);
        let lasting = all.filter(|one| !labels::is_over(&one.state));
        lasting.map(|one| Self::from_status(one)).collect()
    }

    fn from_status(status: &SessionStatus) -> Self {
        Self {
            session: status.session.clone(),
            kind: status.kind,
            role: status.role,
            hub: status.hub_address().map(HubUrl::to_string),
            limit: status.limit,
            is_muted: !status.enabled.sources.microphone,
            is_unseen: !status.enabled.sources.camera,
        }
    }

    /// The commands that open or join it again and restore its switches.
    fn commands(self) -> impl Iterator<Item = Command> {
        let session = Some(self.session.clone());
        let is_off = |source: &Source| match source {
            Source::Microphone => self.is_muted,
            Source::Camera => self.is_unseen,
        };
        let off: Vec<_> = Source::SECTIONS.into_iter().filter(is_off).collect();
        let close = move |source| Command::SetEnabled {
            session: session.clone(),
            switch: MuteSwitch::Source(source),
            enabled: false,
        };
        [self.command()].into_iter().chain(off.into_iter().map(close))
    }

    fn command(self) -> Command {
        let session = self.session;
        match (self.role, self.kind) {
            (Role::Opener, Some(kind)) => {
                Command::Reopen(OpenRequest { session, kind, limit: self.limit })
            }
            (Role::Opener, None) | (Role::Guest, _) => {
                let hub = self.hub.and_then(|hub| hub.parse().ok());
                Command::Join { target: JoinTarget { session, hub }, wait: true }
            }
        }
    }
}

/// The commands that bring a new engine into the state of a snapshot: the mute switches first, then
/// the sessions, without those that are being left.
pub(crate) fn restore_commands(snapshot: &Snapshot) -> Vec<Command> {
    let muted = |enabled: Enabled, session: Option<SessionId>| {
        let off = MuteSwitch::all().filter(move |switch| !enabled.has(*switch));
        off.map(move |switch| {
            let session = session.clone();
            Command::SetEnabled { session, switch, enabled: false }
        })
    };
    let sessions = snapshot.sessions.iter().filter(|one| !labels::is_over(&one.state));
    let sessions = sessions.flat_map(|one| {
        let request = SavedSession::from_status(one).command();
        [request].into_iter().chain(muted(one.enabled, Some(one.session.clone())))
    });
    muted(snapshot.enabled, None).chain(sessions).collect()
}

impl ResumableSessions {
    /// The sessions of the window that ended last, from the files in that folder. Blocks.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        let files = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
        files.filter_map(Self::open).max_by_key(|resumable| resumable.saved_at)
    }

    fn open(path: PathBuf) -> Option<Self> {
        let locked_file = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        locked_file.try_lock().ok()?;
        let saved_at = locked_file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let mut text = String::new();
        let is_read = (&locked_file).take(MAX_BYTES).read_to_string(&mut text).is_ok();
        let record = serde_json::from_str::<SavedSessions>(&text).ok().filter(|_| is_read);
        let is_old = SystemTime::now().duration_since(saved_at).is_ok_and(|age| age > OFFERED_FOR);
        match record.filter(|record| !record.sessions.is_empty() && !is_old) {
            Some(SavedSessions { sessions }) => {
                Some(Self { sessions, saved_at, locked_file, path })
            }
            None => {
                // A truncated or outdated file is of no use.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// The label of the offer: "Resume 5 sessions of 05:30".
    pub(crate) fn label(&self) -> String {
        let at = chrono::DateTime::<chrono::Local>::from(self.saved_at);
        let is_today = at.date_naive() == chrono::Local::now().date_naive();
        let at = at.format(if is_today { "%H:%M" } else { "%-d %B, %H:%M" });
        match self.sessions.len() {
            1 => format!("Resume the session of {at}"),
            count => format!("Resume {count} sessions of {at}"),
        }
    }

    /// Returns the commands that open or join the sessions again, and deletes the file.
    pub(crate) fn resume(self) -> Vec<Command> {
        let sessions = self.sessions.clone();
        self.discard();
        sessions.into_iter().flat_map(SavedSession::commands).collect()
    }

    /// Deletes the file, so that the sessions are not offered again.
    pub(crate) fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "sessions of an earlier window are offered again");
        }
        drop(self.locked_file);
    }
}

/// The folder of the files, if the system has one for program state.
pub(crate) fn folder() -> Option<PathBuf> {
    Some(state_folder()?.join("windows"))
}

impl SessionSaver {
    /// Starts to save into that folder.
    pub(crate) fn start(
        runtime: &tokio::runtime::Handle,
        folder: PathBuf,
    ) -> (Self, SaverShutdown) {
        let (latest, changes) = watch::channel(SaveRequest::default());
        let (latest, task) =
            (Arc::new(latest), runtime.spawn(SessionsFile::new(folder).run(changes)));
        (Self { latest: Arc::clone(&latest) }, SaverShutdown { latest, task })
    }

    /// Saves the sessions of a snapshot if they have changed. Never blocks.
    pub(crate) fn update(&self, snapshot: &Snapshot) {
        let sessions = SavedSession::all(snapshot);
        self.latest.send_if_modified(|latest| {
            let is_changed = !latest.is_last && latest.sessions != sessions;
            if is_changed {
                latest.sessions = sessions;
            }
            is_changed
        });
    }
}

impl SaverShutdown {
    /// Saves for the last time, because the window closes in order. Sessions of other openers are
    /// over for this user. Sessions that this user opened stay on offer, because reopening them
    /// makes the links that were sent out valid again.
    pub(crate) async fn finish(self) {
        self.latest.send_modify(|latest| {
            latest.sessions.retain(|one| one.role == Role::Opener);
            latest.is_last = true;
        });
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the sessions were not saved");
        }
    }
}

impl SessionsFile {
    fn new(folder: PathBuf) -> Self {
        let number = getrandom::u64().unwrap_or(u64::from(std::process::id()));
        let path = folder.join(format!("{number:016x}.json"));
        Self { folder, path, locked_file: None }
    }

    async fn run(mut self, mut changes: watch::Receiver<SaveRequest>) {
        let mut has_warned = false;
        while changes.changed().await.is_ok() {
            let SaveRequest { sessions, is_last } = changes.borrow_and_update().clone();
            let written = tokio::task::spawn_blocking(move || {
                let result = self.write(sessions);
                (self, result)
            });
            let Ok((file, result)) = written.await else { return };
            self = file;
            if let (Err(error), false) = (result, has_warned) {
                has_warned = true;
                tracing::warn!(%error, "sessions cannot be saved; a crash would lose them");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes the sessions into a new file and renames it, so that a crash leaves either the old or
    /// the new content.
    fn write(&mut self, sessions: Vec<SavedSession>) -> io::Result<()> {
        if sessions.is_empty() {
            let known = self.locked_file.take();
            return known.map_or(Ok(()), |_| fs::remove_file(&self.path));
        }
        create_private_folder(&self.folder)?;
        let new_path = self.path.with_extension("new");
        let mut file = create_private(&new_path)?;
        file.try_lock().map_err(io::Error::from)?;
        file.write_all(serde_json::to_string(&SavedSessions { sessions })?.as_bytes())?;
        fs::rename(&new_path, &self.path)?;
        self.locked_file = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::fixtures::{session_id, session_status, snapshot_of},
        model::{DepartureStatus, HubEndpoint, HubOwner, MediaTime, PerSource, SessionState},
    };

    /// A temporary folder, removed on drop.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("quintet-resume-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A broadcast of this user, a conference that it joined, and a session that is over.
    fn sessions() -> Vec<SavedSession> {
        let over = SessionStatus {
            state: SessionState::Ended { reason: crate::model::EndReason::Closed },
            ..session_status("over", SessionKind::FIVE[0], Role::Guest, 0)
        };
        SavedSession::all(&snapshot_of(vec![
            session_status("mine", SessionKind::FIVE[1], Role::Opener, 0),
            session_status("theirs", SessionKind::FIVE[0], Role::Guest, 1),
            over,
        ]))
    }

    fn commands() -> [Command; 2] {
        let hub = Some("http://127.0.0.1:7340".parse().unwrap());
        let target = JoinTarget { session: session_id("theirs"), hub };
        let kind = SessionKind::FIVE[1];
        let request = OpenRequest { session: session_id("mine"), kind, limit: Some(12) };
        [Command::Reopen(request), Command::Join { target, wait: true }]
    }

    #[test]
    fn the_sessions_of_a_crashed_window_are_offered_once_and_not_while_it_runs() {
        let scratch = Scratch::new("crash");
        let mut journal = SessionsFile::new(scratch.0.clone());
        journal.write(sessions()).unwrap();
        assert!(ResumableSessions::find(&scratch.0).is_none(), "the window still runs");
        let mut other = SessionsFile::new(scratch.0.clone());
        other.write(sessions()[..1].to_vec()).unwrap();
        drop(journal);
        let resumable = ResumableSessions::find(&scratch.0).expect("the window has crashed");
        assert!(resumable.label().starts_with("Resume 2 sessions of "), "{}", resumable.label());
        assert!(
            ResumableSessions::find(&scratch.0).is_none(),
            "another window does not offer them too"
        );
        drop(resumable);
        let resumable = ResumableSessions::find(&scratch.0).expect("they were not resumed");
        assert_eq!(resumable.resume(), commands());
        assert!(ResumableSessions::find(&scratch.0).is_none());
    }

    #[test]
    fn a_resumed_session_stays_muted_and_uses_the_same_hub_address() {
        let url: HubUrl = "http://192.0.2.1:7340".parse().unwrap();
        // The session's link has another address, which the hub announced.
        let hub = Some(HubEndpoint { url: url.clone(), owner: HubOwner::Elsewhere });
        let enabled = Enabled { sources: PerSource::NONE, listening: true };
        let status = session_status("theirs", SessionKind::FIVE[0], Role::Guest, 1);
        let kept = SavedSession::all(&snapshot_of(vec![SessionStatus { hub, enabled, ..status }]));
        let text = serde_json::to_string(&SavedSessions { sessions: kept }).unwrap();
        let SavedSessions { sessions } = serde_json::from_str(&text).unwrap();
        let commands: Vec<_> = sessions.into_iter().flat_map(SavedSession::commands).collect();
        let target = JoinTarget { session: session_id("theirs"), hub: Some(url) };
        let off = |gate| Command::SetEnabled {
            session: Some(session_id("theirs")),
            switch: gate,
            enabled: false,
        };
        let join = Command::Join { target, wait: true };
        assert_eq!(commands, [join, off(MuteSwitch::MICROPHONE), off(MuteSwitch::CAMERA)]);
        let earlier = r#"{"session":"a","kind":null,"role":"guest","hub":null,"limit":null}"#;
        let earlier: SavedSession = serde_json::from_str(earlier).unwrap();
        assert_eq!(earlier.commands().count(), 1, "a file of an earlier version");
    }

    #[test]
    fn a_new_engine_is_muted_as_before_and_opens_and_joins_what_is_not_over_or_being_left() {
        let one = |name: &str, role| session_status(name, SessionKind::FIVE[1], role, 1);
        let mine = SessionStatus {
            enabled: Enabled { listening: false, ..Enabled::default() },
            ..one("mine", Role::Opener)
        };
        let ended = SessionState::Ended { reason: crate::model::EndReason::Closed };
        let over = SessionStatus { state: ended, ..one("over", Role::Guest) };
        let left = vec![Arc::new(one("left", Role::Guest))];
        let departure =
            DepartureStatus { sessions: left, closes: false, until: MediaTime::default() };
        let mut enabled = Enabled::default();
        enabled.set(MuteSwitch::MICROPHONE, false);
        let snapshot = Snapshot {
            enabled,
            departure: Some(departure),
            ..snapshot_of(vec![mine, over, one("theirs", Role::Guest)])
        };
        let off = |session: Option<&str>, switch| {
            let session = session.map(session_id);
            Command::SetEnabled { session, switch, enabled: false }
        };
        let [open, join] = commands();
        assert_eq!(
            restore_commands(&snapshot),
            [
                off(None, MuteSwitch::MICROPHONE),
                open,
                off(Some("mine"), MuteSwitch::Listening),
                join
            ]
        );
    }

    #[test]
    fn a_truncated_or_outdated_file_is_deleted_and_not_offered() {
        let scratch = Scratch::new("half");
        create_private_folder(&scratch.0).unwrap();
        let truncated = scratch.0.join("1.json");
        fs::write(&truncated, "{\"sessions\":[{\"session\":\"mi").unwrap();
        let mut journal = SessionsFile::new(scratch.0.clone());
        journal.write(sessions()).unwrap();
        let old = SystemTime::now() - 2 * OFFERED_FOR;
        journal.locked_file.as_ref().unwrap().set_modified(old).unwrap();
        drop(journal);
        assert!(ResumableSessions::find(&scratch.0).is_none());
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0, "removed");
        assert!(ResumableSessions::find(&scratch.0.join("none")).is_none());
    }

    #[test]
    fn after_an_orderly_end_only_sessions_of_this_user_are_offered() {
        let scratch = Scratch::new("end");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = |snapshot: &Snapshot| {
            let (saver, shutdown) = SessionSaver::start(runtime.handle(), scratch.0.clone());
            saver.update(snapshot);
            runtime.block_on(shutdown.finish());
            ResumableSessions::find(&scratch.0).map(ResumableSessions::resume)
        };
        let mine = session_status("mine", SessionKind::FIVE[1], Role::Opener, 0);
        let theirs = session_status("theirs", SessionKind::FIVE[0], Role::Guest, 1);
        assert_eq!(ended(&snapshot_of(vec![mine, theirs.clone()])), Some(commands()[..1].to_vec()));
        assert_eq!(ended(&snapshot_of(vec![theirs])), None);
        assert_eq!(ended(&Snapshot::default()), None);
    }
}
