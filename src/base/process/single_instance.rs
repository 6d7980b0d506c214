//! One window per user and display: a second start hands its links over to the open window.

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

/// How long a second start waits for the window: a window that is just being opened answers once it
/// is shown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// When a waiting start tells the user what it waits for.
const NOTICE_AFTER: Duration = Duration::from_secs(3);

/// How long a second start may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a second start tries the lock and the window again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The longest request, in bytes: hundreds of links.
const MAX_REQUEST_BYTES: u64 = 64 << 10;

/// The most requests that wait for the window.
const REQUEST_QUEUE: usize = 8;

/// The answer of the window when it has taken the links.
const ACCEPTED: &str = "taken\n";

/// The result of a start.
#[derive(Debug)]
pub enum Start {
    /// No window is open on this display: this program opens the first one.
    First(InstanceListener),
    /// The open window has taken the links.
    HandedOver,
}

/// Why a start could not hand its links over or become the first.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// A window is open and does not answer.
    #[error(
        "a window of Quintet is open{}, but it does not answer; end it, or open a separate one \
         with `quintet --new-window`",
        .process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    NotResponding {
        /// The id of its process, if it is known.
        process: Option<u32>,
    },
    /// The private folder or the socket in it cannot be used.
    #[error("cannot check whether a window is open already: {0}")]
    System(#[from] io::Error),
}

/// The request that a second start sends, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
struct HandoverRequest {
    /// The links to join; empty if the window only comes to the front.
    links: Vec<String>,
}

/// The lock of the first start, and the socket to which later starts connect; held until the
/// program ends.
#[derive(Debug)]
pub struct InstanceListener {
    listener: Listener,
    /// Locked until the process ends, also by a crash.
    lock: File,
    /// The socket's file, where the system has one.
    socket: Option<PathBuf>,
}

/// Receives the requests of later starts. Dropping it removes the socket: a later start then waits
/// until this program has ended, and opens its own window.
#[derive(Debug)]
pub struct HandoverReceiver {
    socket: Option<PathBuf>,
    handovers: Receiver<Handover>,
}

/// The request of a second start that waits for an answer.
#[derive(Debug)]
pub struct Handover {
    /// The links to join; empty if the window only comes to the front.
    pub links: Vec<String>,
    reply: Sender<()>,
}

impl Handover {
    /// Answers that the links were taken, and returns them. Without an answer, the second start
    /// tries again.
    pub fn accept(self) -> Vec<String> {
        // The second start may have given up.
        let _ = self.reply.send(());
        self.links
    }
}

/// Hands the links over to the window that is open on the display, or becomes the first start on
/// it. Blocks for at most 30 s.
///
/// # Errors
/// Only [`InstanceError::NotResponding`] means that a window is open.
pub fn start(display: &str, links: Vec<String>) -> Result<Start, InstanceError> {
    start_in(&private_folder()?, display, &HandoverRequest { links }, ANSWER_TIMEOUT)
}

fn start_in(
    folder: &Path,
    display: &str,
    request: &HandoverRequest,
    timeout: Duration,
) -> Result<Start, InstanceError> {
    let path = folder.join(format!("window-{}", digest(display)));
    let socket = path.with_extension("sock");
    let lock_file = path.with_extension("lock");
    let mut options = OpenOptions::new();
    let mut lock = options.read(true).write(true).create(true).truncate(false).open(&lock_file)?;
    let start = Instant::now();
    let mut attempt_timeout = NOTICE_AFTER;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Start::First(InstanceListener::new(lock, socket)?)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let left = timeout.saturating_sub(start.elapsed());
        // A window that is opening or closing does not answer.
        if send_request(&socket, request, left.min(attempt_timeout)).unwrap_or(false) {
            return Ok(Start::HandedOver);
        }
        if left.is_zero() {
            let mut process = String::new();
            // On systems where a locked file cannot be read, the process id is unknown.
            let _ = (&mut lock).take(16).read_to_string(&mut process);
            return Err(InstanceError::NotResponding { process: process.trim().parse().ok() });
        }
        if attempt_timeout == NOTICE_AFTER && start.elapsed() >= NOTICE_AFTER {
            attempt_timeout = ANSWER_TIMEOUT;
            super::Output::stderr().write_line("quintet: waiting for the open window");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Sends a request to the socket; returns whether it was accepted.
fn send_request(socket: &Path, request: &HandoverRequest, timeout: Duration) -> io::Result<bool> {
    let mut stream = Stream::connect(socket_name(socket)?)?;
    // On systems without this timeout, the wait ends when the window's process ends.
    let _ = stream.set_recv_timeout(Some(timeout.max(POLL_INTERVAL)));
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(&stream).take(ACCEPTED.len() as u64).read_line(&mut answer)?;
    Ok(answer == ACCEPTED)
}

impl InstanceListener {
    /// Creates the socket. The lock must be held already.
    fn new(mut lock: File, socket: PathBuf) -> io::Result<Self> {
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        // The process that held the lock before has ended, perhaps without removing its socket.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) | Ok(()) => {}
        }
        let options = ListenerOptions::new().name(socket_name(&socket)?).reclaim_name(false);
        let listener = options.create_sync()?;
        Ok(Self { listener, lock, socket: Some(socket) })
    }

    /// Starts to listen, on its own thread; `wake` is called there at each request.
    ///
    /// # Errors
    /// Fails if the system gives no thread.
    pub fn listen(self, wake: impl Fn() + Send + 'static) -> io::Result<HandoverReceiver> {
        let (sender, callers) = mpsc::sync_channel(REQUEST_QUEUE);
        let Self { listener, lock, socket } = self;
        let listen = move || {
            let _lock = lock;
            for stream in listener.incoming() {
                match stream.map(|stream| handle_connection(&stream, &sender, &wake)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "request of a second start failed"),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept second starts for a moment");
                        thread::sleep(REQUEST_TIMEOUT);
                    }
                }
            }
        };
        thread::Builder::new().name("second starts".into()).spawn(listen)?;
        Ok(HandoverReceiver { socket, handovers: callers })
    }
}

/// Reads the request of one connection, and answers when the window has taken it.
fn handle_connection(
    stream: &Stream,
    handovers: &SyncSender<Handover>,
    wake: &impl Fn(),
) -> io::Result<()> {
    // On systems without this timeout, only programs of this user can connect.
    let _ = stream.set_recv_timeout(Some(REQUEST_TIMEOUT));
    let mut line = String::new();
    BufReader::new(stream).take(MAX_REQUEST_BYTES).read_line(&mut line)?;
    let request: HandoverRequest = serde_json::from_str(&line)?;
    let (reply, accepted) = mpsc::channel();
    let handover = Handover { links: request.links, reply };
    // If the queue is full or the window is closing, the second start tries again.
    handovers.try_send(handover).map_err(|_| io::ErrorKind::WouldBlock)?;
    wake();
    if accepted.recv_timeout(ANSWER_TIMEOUT).is_ok() {
        let mut stream = stream;
        stream.write_all(ACCEPTED.as_bytes())?;
    }
    Ok(())
}

impl HandoverReceiver {
    /// Returns the next request, if there is one.
    pub fn try_recv(&self) -> Option<Handover> {
        self.handovers.try_recv().ok()
    }
}

impl Drop for HandoverReceiver {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            // If this fails, the next program that gets the lock removes the socket.
            let _ = fs::remove_file(socket);
        }
    }
}

/// Returns the name of the socket as the system needs it.
fn socket_name(socket: &Path) -> io::Result<Name<'static>> {
    #[cfg(unix)]
    {
        use interprocess::local_socket::{GenericFilePath, ToFsName as _};
        socket.to_path_buf().to_fs_name::<GenericFilePath>()
    }
    // Named pipes of all users are in one folder; the digest of the path makes the name unique.
    #[cfg(not(unix))]
    {
        use interprocess::local_socket::{GenericNamespaced, ToNsName as _};
        format!("quintet-{}", digest(&socket.to_string_lossy())).to_ns_name::<GenericNamespaced>()
    }
}

/// Returns hexadecimal digits, which are valid in any file name.
fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a folder that only this user can access.
#[cfg(unix)]
fn private_folder() -> io::Result<PathBuf> {
    let session = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let session = session.filter(|folder| folder.is_absolute()).map(|one| one.join("quintet"));
    let shared = std::env::temp_dir().join(format!("quintet-{}", effective_user_id()));
    session.map_or_else(
        || ensure_private_folder(&shared),
        |one| ensure_private_folder(&one).or_else(|_| ensure_private_folder(&shared)),
    )
}

/// Creates a folder that only this user can access, or checks one that exists.
#[cfg(unix)]
fn ensure_private_folder(folder: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) | Ok(()) => {}
    }
    // In a shared folder, another user may have created it first.
    let found = fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == effective_user_id() && found.mode() & 0o077 == 0 {
        return Ok(folder.to_path_buf());
    }
    Err(io::Error::other(format!("{} is not private to this user", folder.display())))
}

/// Returns the effective user id.
#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library gives the user id")]
fn effective_user_id() -> u32 {
    // SAFETY: it has no arguments and no side effects, and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(not(unix))]
fn private_folder() -> io::Result<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "quintet");
    let folder = folders.ok_or_else(|| io::Error::other("the user has no home folder"))?;
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
        // The name is short: the path of a socket has at most 107 bytes.
        let folder = std::env::temp_dir().join(format!("q-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        ensure_private_folder(&folder).unwrap()
    }

    fn request(link: &str) -> HandoverRequest {
        HandoverRequest { links: vec![link.to_owned()] }
    }

    fn start_first(folder: &Path, display: &str) -> InstanceListener {
        match start_in(folder, display, &request("own"), LONG).unwrap() {
            Start::First(listener) => listener,
            Start::HandedOver => panic!("no window was open"),
        }
    }

    #[test]
    fn a_second_start_hands_its_links_over_and_a_third_one_too() {
        let folder = folder("second");
        let (woken, wake) = mpsc::channel();
        let receiver = start_first(&folder, ":0").listen(move || woken.send(()).unwrap()).unwrap();
        for link in ["http://a/s/b", "http://c/s/d"] {
            thread::scope(|scope| {
                let second = scope.spawn(|| start_in(&folder, ":0", &request(link), LONG).unwrap());
                wake.recv_timeout(LONG).unwrap();
                assert_eq!(receiver.try_recv().unwrap().accept(), [link]);
                assert!(matches!(second.join().unwrap(), Start::HandedOver));
            });
        }
        // Another display has its own window.
        start_first(&folder, ":1");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_many_simultaneous_starts_one_is_the_first_and_no_link_is_lost() {
        let folder = folder("race");
        let (woken, wake) = mpsc::channel();
        let (found, listeners) = mpsc::channel();
        let mut links = vec![];
        thread::scope(|scope| {
            for n in 0..8 {
                let (folder, found) = (&folder, found.clone());
                scope.spawn(move || {
                    match start_in(folder, ":0", &request(&format!("{n}")), LONG).unwrap() {
                        Start::First(listener) => found.send((n, listener)).unwrap(),
                        Start::HandedOver => {}
                    }
                });
            }
            let (own, listener) = listeners.recv_timeout(LONG).unwrap();
            links.push(own.to_string());
            let receiver = listener.listen(move || woken.send(()).unwrap()).unwrap();
            while links.len() < 8 {
                wake.recv_timeout(LONG).unwrap();
                links.extend(receiver.try_recv().into_iter().flat_map(Handover::accept));
            }
        });
        links.sort_unstable();
        assert_eq!(links, ["0", "1", "2", "3", "4", "5", "6", "7"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_socket_of_a_crashed_program_is_removed() {
        let folder = folder("stale");
        let socket = folder.join(format!("window-{}.sock", digest(":0")));
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(socket.exists(), "the socket of a process that has ended");
        drop(start_first(&folder, ":0"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_hung_window_is_reported_and_a_start_succeeds_once_it_has_ended() {
        let folder = folder("hang");
        let listener = start_first(&folder, ":0");
        let hung = start_in(&folder, ":0", &request("x"), Duration::from_millis(300)).unwrap_err();
        let own = std::process::id().to_string();
        assert!(hung.to_string().contains(&own), "{hung}");
        thread::scope(|scope| {
            let second = scope.spawn(|| start_in(&folder, ":0", &request("x"), LONG).unwrap());
            drop(listener);
            assert!(matches!(second.join().unwrap(), Start::First(_)));
        });
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn an_invalid_or_missing_request_does_not_block_other_starts() {
        let folder = folder("nonsense");
        let (woken, wake) = mpsc::channel();
        let receiver = start_first(&folder, ":0").listen(move || woken.send(()).unwrap()).unwrap();
        let socket = folder.join(format!("window-{}.sock", digest(":0")));
        let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let silent = connect();
        connect().write_all(&vec![b'x'; 100_000]).ok();
        thread::scope(|scope| {
            let second = scope.spawn(|| start_in(&folder, ":0", &request("x"), LONG).unwrap());
            wake.recv_timeout(LONG).unwrap();
            assert_eq!(receiver.try_recv().unwrap().accept(), ["x"]);
            assert!(matches!(second.join().unwrap(), Start::HandedOver));
        });
        drop(silent);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_other_users_can_access_is_not_used() {
        let folder = folder("open");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(ensure_private_folder(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
