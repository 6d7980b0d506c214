//! Which sessions a window has, on disk: after a crash the next window offers them again.
//!
//! Each window has a file of its own, locked while it runs. The system drops the locks of a program
//! that ends, however it ends: a file that nobody holds was left behind.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};

use super::words;
use crate::{
    model::{
        Command, Gate, HubUrl, JoinTarget, OpenRequest, Role, SessionId, SessionKind,
        SessionStatus, Snapshot,
    },
    process::{create_private, create_private_folder, state_folder},
};

/// How long sessions are offered after a crash: their links are of no use to anybody later.
const OFFERED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest file that is read, in bytes: 64 sessions have some 20 000.
const MAX_BYTES: u64 = 256 * 1024;

/// A session, as far as it takes to have it again. No secret is among it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeptSession {
    session: SessionId,
    /// What it is; none before a guest has learned it.
    kind: Option<SessionKind>,
    role: Role,
    /// Its hub's address, if known.
    hub: Option<String>,
    limit: Option<u16>,
    /// Whether the session's own switches were off: who was muted is not heard after a crash.
    #[serde(default)]
    is_muted: bool,
    #[serde(default)]
    is_unseen: bool,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct Record {
    sessions: Vec<KeptSession>,
}

/// The sessions of a window that ended without leaving them.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    sessions: Vec<KeptSession>,
    /// When they were written down.
    at: SystemTime,
    /// The file, which no other window offers as long as it is held.
    held: File,
    path: PathBuf,
}

/// Has a window's sessions written down whenever they change, on threads that may wait for the disk.
#[derive(Debug)]
pub(crate) struct Keeper {
    latest: Arc<watch::Sender<Latest>>,
}

/// What is told when the window ends in order.
#[derive(Debug)]
pub(crate) struct Ending {
    latest: Arc<watch::Sender<Latest>>,
    task: JoinHandle<()>,
}

/// What is to be written down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Latest {
    sessions: Vec<KeptSession>,
    /// Nothing comes after it.
    is_last: bool,
}

/// A window's file.
#[derive(Debug)]
struct Journal {
    folder: PathBuf,
    path: PathBuf,
    /// None while there is no session to be written down.
    held: Option<File>,
}

impl KeptSession {
    /// What of a snapshot is worth having again: what is not over, also while leaving it can be
    /// undone.
    pub(crate) fn all(snapshot: &Snapshot) -> Vec<Self> {
        let departing = snapshot.departure.iter().flat_map(|departure| &departure.sessions);
        let lasting = |one: &&SessionStatus| !words::is_over(&one.state);
        snapshot.sessions.iter().chain(departing).filter(lasting).map(Self::of).collect()
    }

    fn of(status: &SessionStatus) -> Self {
        Self {
            session: status.session.clone(),
            kind: status.kind,
            role: status.role,
            hub: status.hub_address().map(HubUrl::to_string),
            limit: status.limit,
            is_muted: !status.gates.microphone,
            is_unseen: !status.gates.camera,
        }
    }

    /// What brings it back, with its switches as they were.
    fn commands(self) -> impl Iterator<Item = Command> {
        let session = Some(self.session.clone());
        let off = [(Gate::Microphone, self.is_muted), (Gate::Camera, self.is_unseen)];
        let off = off.into_iter().filter(|(_, is_off)| *is_off);
        let close =
            move |(gate, _)| Command::SetGate { session: session.clone(), gate, open: false };
        [self.command()].into_iter().chain(off.map(close))
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

impl LeftBehind {
    /// The newest sessions that some window left behind in that folder. Blocks.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        let files = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
        files.filter_map(Self::open).max_by_key(|found| found.at)
    }

    fn open(path: PathBuf) -> Option<Self> {
        let held = OpenOptions::new().read(true).write(true).open(&path).ok()?;
        held.try_lock().ok()?;
        let at = held.metadata().and_then(|metadata| metadata.modified()).ok()?;
        let mut text = String::new();
        let is_read = (&held).take(MAX_BYTES).read_to_string(&mut text).is_ok();
        let record = serde_json::from_str::<Record>(&text).ok().filter(|_| is_read);
        let is_old = SystemTime::now().duration_since(at).is_ok_and(|age| age > OFFERED_FOR);
        match record.filter(|record| !record.sessions.is_empty() && !is_old) {
            Some(Record { sessions }) => Some(Self { sessions, at, held, path }),
            None => {
                // Half a file, or an old one, is of no use to anybody.
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// What is offered: "Resume 5 sessions of 05:30".
    pub(crate) fn words(&self) -> String {
        let at = chrono::DateTime::<chrono::Local>::from(self.at);
        let is_today = at.date_naive() == chrono::Local::now().date_naive();
        let at = at.format(if is_today { "%H:%M" } else { "%-d %B, %H:%M" });
        match self.sessions.len() {
            1 => format!("Resume the session of {at}"),
            count => format!("Resume {count} sessions of {at}"),
        }
    }

    /// What brings the sessions back; they are not offered again.
    pub(crate) fn resume(self) -> Vec<Command> {
        let sessions = self.sessions.clone();
        self.forget();
        sessions.into_iter().flat_map(KeptSession::commands).collect()
    }

    /// They are not offered again.
    pub(crate) fn forget(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "sessions of an earlier window are offered again");
        }
        drop(self.held);
    }
}

/// Where windows write their sessions down, if the system has a place for it.
pub(crate) fn folder() -> Option<PathBuf> {
    Some(state_folder()?.join("windows"))
}

impl Keeper {
    /// Begins to write into that folder.
    pub(crate) fn start(runtime: &tokio::runtime::Handle, folder: PathBuf) -> (Self, Ending) {
        let (latest, changes) = watch::channel(Latest::default());
        let (latest, task) =
            (Arc::new(latest), runtime.spawn(Journal::new(folder).follow(changes)));
        (Self { latest: Arc::clone(&latest) }, Ending { latest, task })
    }

    /// Has this written down, if it is news. Never waits.
    pub(crate) fn keep(&self, snapshot: &Snapshot) {
        let sessions = KeptSession::all(snapshot);
        self.latest.send_if_modified(|latest| {
            let is_news = !latest.is_last && latest.sessions != sessions;
            if is_news {
                latest.sessions = sessions;
            }
            is_news
        });
    }
}

impl Ending {
    /// The window ends in order. What others opened is over for us; what the person opened stays
    /// offered, since the links that were sent out are good again then.
    pub(crate) async fn finish(self) {
        self.latest.send_modify(|latest| {
            latest.sessions.retain(|one| one.role == Role::Opener);
            latest.is_last = true;
        });
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the sessions were not written down");
        }
    }
}

impl Journal {
    fn new(folder: PathBuf) -> Self {
        let number = getrandom::u64().unwrap_or(u64::from(std::process::id()));
        let path = folder.join(format!("{number:016x}.json"));
        Self { folder, path, held: None }
    }

    async fn follow(mut self, mut changes: watch::Receiver<Latest>) {
        let mut is_told = false;
        while changes.changed().await.is_ok() {
            let Latest { sessions, is_last } = changes.borrow_and_update().clone();
            let written = tokio::task::spawn_blocking(move || {
                let result = self.write(sessions);
                (self, result)
            });
            let Ok((journal, result)) = written.await else { return };
            self = journal;
            if let (Err(error), false) = (result, is_told) {
                is_told = true;
                tracing::warn!(%error, "sessions cannot be written down; a crash would lose them");
            }
            if is_last {
                return;
            }
        }
    }

    /// Writes the sessions beside and renames, so that a crash leaves the old file or the new one.
    fn write(&mut self, sessions: Vec<KeptSession>) -> io::Result<()> {
        if sessions.is_empty() {
            let known = self.held.take();
            return known.map_or(Ok(()), |_| fs::remove_file(&self.path));
        }
        create_private_folder(&self.folder)?;
        let beside = self.path.with_extension("new");
        let mut file = create_private(&beside)?;
        file.try_lock().map_err(io::Error::from)?;
        file.write_all(serde_json::to_string(&Record { sessions })?.as_bytes())?;
        fs::rename(&beside, &self.path)?;
        self.held = Some(file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::staged::{id, session, with},
        model::{Gates, HubOwner, HubPlace, SessionState},
    };

    /// A folder of its own, removed at the end.
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

    /// An own broadcast, a conference that we joined, and one that is over.
    fn sessions() -> Vec<KeptSession> {
        let over = SessionStatus {
            state: SessionState::Ended { reason: crate::model::EndReason::Closed },
            ..session("over", SessionKind::FIVE[0], Role::Guest, 0)
        };
        KeptSession::all(&with(vec![
            session("mine", SessionKind::FIVE[1], Role::Opener, 0),
            session("theirs", SessionKind::FIVE[0], Role::Guest, 1),
            over,
        ]))
    }

    fn commands() -> [Command; 2] {
        let hub = Some("http://127.0.0.1:7340".parse().unwrap());
        let target = JoinTarget { session: id("theirs"), hub };
        let kind = SessionKind::FIVE[1];
        let request = OpenRequest { session: id("mine"), kind, limit: Some(12) };
        [Command::Reopen(request), Command::Join { target, wait: true }]
    }

    #[test]
    fn what_a_crash_left_behind_is_offered_once_and_not_while_its_window_lives() {
        let scratch = Scratch::new("crash");
        let mut journal = Journal::new(scratch.0.clone());
        journal.write(sessions()).unwrap();
        assert!(LeftBehind::find(&scratch.0).is_none(), "its window lives");
        let mut other = Journal::new(scratch.0.clone());
        other.write(sessions()[..1].to_vec()).unwrap();
        drop(journal);
        let found = LeftBehind::find(&scratch.0).expect("what the crash left");
        assert!(found.words().starts_with("Resume 2 sessions of "), "{}", found.words());
        assert!(LeftBehind::find(&scratch.0).is_none(), "another window does not offer it too");
        drop(found);
        let found = LeftBehind::find(&scratch.0).expect("it was not resumed");
        assert_eq!(found.resume(), commands());
        assert!(LeftBehind::find(&scratch.0).is_none());
    }

    #[test]
    fn who_was_muted_is_muted_again_and_asks_where_the_hub_was_reached() {
        let url: HubUrl = "http://192.0.2.1:7340".parse().unwrap();
        // Its link names another address, as the hub says.
        let hub = Some(HubPlace { url: url.clone(), owner: HubOwner::Elsewhere });
        let gates = Gates { microphone: false, camera: false, listening: true };
        let status = session("theirs", SessionKind::FIVE[0], Role::Guest, 1);
        let kept = KeptSession::all(&with(vec![SessionStatus { hub, gates, ..status }]));
        let text = serde_json::to_string(&Record { sessions: kept }).unwrap();
        let Record { sessions } = serde_json::from_str(&text).unwrap();
        let commands: Vec<_> = sessions.into_iter().flat_map(KeptSession::commands).collect();
        let target = JoinTarget { session: id("theirs"), hub: Some(url) };
        let off = |gate| Command::SetGate { session: Some(id("theirs")), gate, open: false };
        let join = Command::Join { target, wait: true };
        assert_eq!(commands, [join, off(Gate::Microphone), off(Gate::Camera)]);
        let earlier = r#"{"session":"a","kind":null,"role":"guest","hub":null,"limit":null}"#;
        let earlier: KeptSession = serde_json::from_str(earlier).unwrap();
        assert_eq!(earlier.commands().count(), 1, "written by an earlier version");
    }

    #[test]
    fn half_a_file_and_an_old_one_are_offered_to_nobody() {
        let scratch = Scratch::new("half");
        create_private_folder(&scratch.0).unwrap();
        let half = scratch.0.join("1.json");
        fs::write(&half, "{\"sessions\":[{\"session\":\"mi").unwrap();
        let mut journal = Journal::new(scratch.0.clone());
        journal.write(sessions()).unwrap();
        let old = SystemTime::now() - 2 * OFFERED_FOR;
        journal.held.as_ref().unwrap().set_modified(old).unwrap();
        drop(journal);
        assert!(LeftBehind::find(&scratch.0).is_none());
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0, "removed");
        assert!(LeftBehind::find(&scratch.0.join("none")).is_none());
    }

    #[test]
    fn after_an_orderly_end_own_sessions_alone_are_offered() {
        let scratch = Scratch::new("end");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let ended = |snapshot: &Snapshot| {
            let (keeper, ending) = Keeper::start(runtime.handle(), scratch.0.clone());
            keeper.keep(snapshot);
            runtime.block_on(ending.finish());
            LeftBehind::find(&scratch.0).map(LeftBehind::resume)
        };
        let mine = session("mine", SessionKind::FIVE[1], Role::Opener, 0);
        let theirs = session("theirs", SessionKind::FIVE[0], Role::Guest, 1);
        assert_eq!(ended(&with(vec![mine, theirs.clone()])), Some(commands()[..1].to_vec()));
        assert_eq!(ended(&with(vec![theirs])), None);
        assert_eq!(ended(&Snapshot::default()), None);
    }
}
