//! One window a person and a display: a second start hands its links to the window that is open.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread,
    time::{Duration, Instant},
};

use interprocess::local_socket::{
    Listener, ListenerOptions, Name, Stream,
    traits::{ListenerExt as _, Stream as _},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How long a second start waits for the window: one that is just being opened answers when it is
/// there.
const PATIENCE: Duration = Duration::from_secs(30);

/// After this the person is told what is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// How long a caller may take to say what it wants.
const SPEECH: Duration = Duration::from_secs(2);

/// Between two looks at whether the window has ended or answers.
const BREATH: Duration = Duration::from_millis(50);

/// The most that one start hands over, in bytes: hundreds of links.
const MOST: u64 = 64 << 10;

/// Callers that wait for the window to look.
const CALLERS: usize = 8;

/// What the window answers when it has taken everything.
const TAKEN: &str = "taken\n";

/// What a start finds.
#[derive(Debug)]
pub enum Start {
    /// No window is open on this display: this one is the first.
    First(Door),
    /// The window that is open has taken the links.
    HandedOver,
}

/// Why a start cannot tell whether a window is open.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A window is open, and hangs.
    #[error(
        "a window of Quintet is open{}, but it does not answer; end it, or open another person's \
         with `quintet --new-window`",
        .process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    Silent {
        /// Whose it is, if that is known.
        process: Option<u32>,
    },
    /// There is no folder that is ours alone, or no socket in it.
    #[error("no window that is open already can be asked: {0}")]
    System(#[from] io::Error),
}

/// What a second start says.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    /// What is to be joined; nothing if the window only is to be seen.
    links: Vec<String>,
}

/// The place where later starts knock; held as long as the program lives.
#[derive(Debug)]
pub struct Door {
    listener: Listener,
    /// Locked until the process ends, however it ends.
    lock: File,
    /// The socket's file, where the system has one.
    socket: Option<PathBuf>,
}

/// A door with somebody behind it. Dropping it shuts it: a later start then waits until this
/// program has ended, and opens a window of its own.
#[derive(Debug)]
pub struct OpenDoor {
    socket: Option<PathBuf>,
    callers: Receiver<Caller>,
}

/// A second start that waits for an answer.
#[derive(Debug)]
pub struct Caller {
    /// The links that it was given; none if the window only is to be seen.
    pub links: Vec<String>,
    answer: Sender<()>,
}

impl Caller {
    /// Tells it that everything was taken; without this it is as if nobody were here.
    pub fn taken(self) -> Vec<String> {
        // It may have given up.
        let _ = self.answer.send(());
        self.links
    }
}

/// Looks whether a window is open on the display of that name, and hands it these links. Blocks,
/// at most 30 s.
///
/// # Errors
/// [`InstanceError`]; only [`InstanceError::Silent`] means that there is such a window.
pub fn start(display: &str, links: Vec<String>) -> Result<Start, InstanceError> {
    start_in(&private_folder()?, display, &Call { links }, PATIENCE)
}

fn start_in(
    folder: &Path,
    display: &str,
    call: &Call,
    patience: Duration,
) -> Result<Start, InstanceError> {
    let place = folder.join(format!("window-{}", digest(display)));
    let socket = place.with_extension("sock");
    let lock_file = place.with_extension("lock");
    let mut options = OpenOptions::new();
    let mut lock = options.read(true).write(true).create(true).truncate(false).open(&lock_file)?;
    let start = Instant::now();
    let mut turn = SILENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Start::First(Door::new(lock, socket)?)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let left = patience.saturating_sub(start.elapsed());
        // One that is being opened or is ending does not answer yet, or any more.
        if call_at(&socket, call, left.min(turn)).unwrap_or(false) {
            return Ok(Start::HandedOver);
        }
        if left.is_zero() {
            let mut process = String::new();
            // Where a locked file cannot be read, the number is missing.
            let _ = (&mut lock).take(16).read_to_string(&mut process);
            return Err(InstanceError::Silent { process: process.trim().parse().ok() });
        }
        if turn == SILENCE && start.elapsed() >= SILENCE {
            turn = PATIENCE;
            super::Output::stderr().line("quintet: waiting for the window that is open");
        }
        thread::sleep(BREATH);
    }
}

/// Says what is wanted to whoever listens there; whether it was taken.
fn call_at(socket: &Path, call: &Call, patience: Duration) -> io::Result<bool> {
    let mut stream = Stream::connect(name(socket)?)?;
    // Where the system has no such limit, the window's end ends the wait.
    let _ = stream.set_recv_timeout(Some(patience.max(BREATH)));
    let mut said = serde_json::to_vec(call)?;
    said.push(b'\n');
    stream.write_all(&said)?;
    let mut answer = String::new();
    BufReader::new(&stream).take(TAKEN.len() as u64).read_line(&mut answer)?;
    Ok(answer == TAKEN)
}

impl Door {
    /// A door at which a socket of that name is; the lock is ours.
    fn new(mut lock: File, socket: PathBuf) -> io::Result<Self> {
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        // Whoever had the lock before is gone, and perhaps had no time to clear up.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        let options = ListenerOptions::new().name(name(&socket)?).reclaim_name(false);
        let listener = options.create_sync()?;
        Ok(Self { listener, lock, socket: Some(socket) })
    }

    /// Begins to listen, on a thread of its own; `wake` is called there when somebody has come.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn open(self, wake: impl Fn() + Send + 'static) -> io::Result<OpenDoor> {
        let (sender, callers) = mpsc::sync_channel(CALLERS);
        let Self { listener, lock, socket } = self;
        let listen = move || {
            let _lock = lock;
            for stream in listener.incoming() {
                match stream.map(|stream| serve(&stream, &sender, &wake)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "a second start was not understood"),
                    Err(error) => {
                        tracing::warn!(%error, "no second start can be heard for a moment");
                        thread::sleep(SPEECH);
                    }
                }
            }
        };
        thread::Builder::new().name("second starts".into()).spawn(listen)?;
        Ok(OpenDoor { socket, callers })
    }
}

/// Hears what one caller wants, and answers when the window has taken it.
fn serve(stream: &Stream, callers: &SyncSender<Caller>, wake: &impl Fn()) -> io::Result<()> {
    // Where the system has no such limit, the caller is one of ours.
    let _ = stream.set_recv_timeout(Some(SPEECH));
    let mut said = String::new();
    BufReader::new(stream).take(MOST).read_line(&mut said)?;
    let call: Call = serde_json::from_str(&said)?;
    let (answer, taken) = mpsc::channel();
    let caller = Caller { links: call.links, answer };
    // A queue that is full, and a window that is closing: the caller comes again.
    callers.try_send(caller).map_err(|_| io::ErrorKind::WouldBlock)?;
    wake();
    if taken.recv_timeout(PATIENCE).is_ok() {
        let mut stream = stream;
        stream.write_all(TAKEN.as_bytes())?;
    }
    Ok(())
}

impl OpenDoor {
    /// Whoever has come, if somebody has.
    pub fn caller(&self) -> Option<Caller> {
        self.callers.try_recv().ok()
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // The next one that gets the lock clears up what is left.
            let _ = fs::remove_file(socket);
        }
    }
}

/// What the system calls the socket.
fn name(socket: &Path) -> io::Result<Name<'static>> {
    #[cfg(unix)]
    {
        use interprocess::local_socket::{GenericFilePath, ToFsName as _};
        socket.to_path_buf().to_fs_name::<GenericFilePath>()
    }
    // Named pipes are in one folder for all; the path has the person's name in it.
    #[cfg(not(unix))]
    {
        use interprocess::local_socket::{GenericNamespaced, ToNsName as _};
        format!("quintet-{}", digest(&socket.to_string_lossy())).to_ns_name::<GenericNamespaced>()
    }
}

/// A name without anything that a file's name cannot have.
fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A folder that nobody else can look into.
#[cfg(unix)]
fn private_folder() -> io::Result<PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|folder| folder.is_absolute()).map(|one| one.join("quintet"));
    let shared = std::env::temp_dir().join(format!("quintet-{}", user()));
    session.map_or_else(
        || make_private(&shared),
        |one| make_private(&one).or_else(|_| make_private(&shared)),
    )
}

/// Makes a folder that nobody else can look into, or takes one that is there.
#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) | Ok(()) => {}
    }
    // Somebody else may have been here first, in a folder for all.
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == user() && found.mode() & 0o077 == 0 {
        return Ok(folder.to_path_buf());
    }
    Err(io::Error::other(format!("{} is not ours alone", folder.display())))
}

/// Who we are.
#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library tells who we are")]
fn user() -> u32 {
    // SAFETY: it takes nothing, changes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(not(unix))]
fn private_folder() -> io::Result<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "quintet");
    let folder = folders.ok_or_else(|| io::Error::other("there is no home"))?;
    let folder = folder.data_local_dir().to_path_buf();
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn folder(name: &str) -> PathBuf {
        // Short: a socket's path has at most 107 bytes.
        let folder = std::env::temp_dir().join(format!("q-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        make_private(&folder).unwrap()
    }

    fn call(link: &str) -> Call {
        Call { links: vec![link.to_owned()] }
    }

    fn first(folder: &Path, display: &str) -> Door {
        match start_in(folder, display, &call("own"), LONG).unwrap() {
            Start::First(door) => door,
            Start::HandedOver => panic!("nobody was here"),
        }
    }

    #[test]
    fn a_second_start_hands_its_links_over_and_a_third_one_too() {
        let folder = folder("second");
        let (woken, wake) = mpsc::channel();
        let door = first(&folder, ":0").open(move || woken.send(()).unwrap()).unwrap();
        for link in ["http://a/s/b", "http://c/s/d"] {
            thread::scope(|scope| {
                let second = scope.spawn(|| start_in(&folder, ":0", &call(link), LONG).unwrap());
                wake.recv_timeout(LONG).unwrap();
                assert_eq!(door.caller().unwrap().taken(), [link]);
                assert!(matches!(second.join().unwrap(), Start::HandedOver));
            });
        }
        // Another display has a window of its own.
        first(&folder, ":1");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_many_that_start_at_once_one_is_the_first_and_nothing_is_lost() {
        let folder = folder("race");
        let (woken, wake) = mpsc::channel();
        let (found, doors) = mpsc::channel();
        let mut links = vec![];
        thread::scope(|scope| {
            for n in 0..8 {
                let (folder, found) = (&folder, found.clone());
                scope.spawn(move || {
                    match start_in(folder, ":0", &call(&format!("{n}")), LONG).unwrap() {
                        Start::First(door) => found.send((n, door)).unwrap(),
                        Start::HandedOver => {}
                    }
                });
            }
            let (own, door) = doors.recv_timeout(LONG).unwrap();
            links.push(own.to_string());
            let door = door.open(move || woken.send(()).unwrap()).unwrap();
            while links.len() < 8 {
                wake.recv_timeout(LONG).unwrap();
                links.extend(door.caller().into_iter().flat_map(Caller::taken));
            }
        });
        links.sort_unstable();
        assert_eq!(links, ["0", "1", "2", "3", "4", "5", "6", "7"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_a_crash_left_behind_is_cleared_up() {
        let folder = folder("stale");
        let socket = folder.join(format!("window-{}.sock", digest(":0")));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists(), "a socket whose owner is gone");
        drop(first(&folder, ":0"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_window_that_hangs_is_named_and_one_that_ends_is_followed() {
        let folder = folder("hang");
        let door = first(&folder, ":0");
        let hung = start_in(&folder, ":0", &call("x"), Duration::from_millis(300)).unwrap_err();
        let own = std::process::id().to_string();
        assert!(hung.to_string().contains(&own), "{hung}");
        thread::scope(|scope| {
            let second = scope.spawn(|| start_in(&folder, ":0", &call("x"), LONG).unwrap());
            drop(door);
            assert!(matches!(second.join().unwrap(), Start::First(_)));
        });
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_caller_who_says_nonsense_or_nothing_keeps_nobody_out() {
        let folder = folder("nonsense");
        let (woken, wake) = mpsc::channel();
        let door = first(&folder, ":0").open(move || woken.send(()).unwrap()).unwrap();
        let socket = folder.join(format!("window-{}.sock", digest(":0")));
        let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let silent = connect();
        connect().write_all(&vec![b'x'; 100_000]).ok();
        thread::scope(|scope| {
            let second = scope.spawn(|| start_in(&folder, ":0", &call("x"), LONG).unwrap());
            wake.recv_timeout(LONG).unwrap();
            assert_eq!(door.caller().unwrap().taken(), ["x"]);
            assert!(matches!(second.join().unwrap(), Start::HandedOver));
        });
        drop(silent);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_others_can_look_into_is_not_used() {
        let folder = folder("open");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
