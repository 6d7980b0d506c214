//! The log file of the window: what happened, for a user who saw something go wrong.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use super::{
    BackgroundFile, FileFormat,
    private::{create_private_folder, open_private},
};

/// The log file of this process, once it is open.
static LOG: OnceLock<OpenLog> = OnceLock::new();

/// The queue has room for minutes: a busy window logs a few lines a second.
const FORMAT: FileFormat = FileFormat {
    name: "log file",
    queue: 4096,
    gap: |lost| format!("({lost} lines are missing)\n").into_bytes(),
};

/// The size at which the file becomes the older one of the two: some hours of a bad network.
const MAX_BYTES: u64 = 1 << 20;

/// How many programs of one user have a log at the same time.
const MAX_LOGS: usize = 8;

/// How long a panic waits for the disk.
const PANIC_TIMEOUT: Duration = Duration::from_millis(500);

struct OpenLog {
    file: BackgroundFile,
    path: PathBuf,
}

/// A writer of log lines to the file. Lines are dropped until [`LogFile::open`] was called.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFile;

impl LogFile {
    /// Opens the log of this process, `window.log` in the folder or, if another program has that,
    /// `window-2.log` and so on. Only the user can read it. A thread writes it, for which nobody
    /// waits. From now on each panic is also written there, in whatever thread.
    ///
    /// # Errors
    /// If no file can be opened, or the system cannot create a thread.
    pub fn open(folder: &Path) -> io::Result<()> {
        create_private_folder(folder)?;
        let file = RotatingFile::open(folder)?;
        let path = file.path.clone();
        let started = BackgroundFile::start(FORMAT, vec![], || Ok::<_, io::Error>(file))?;
        if LOG.set(OpenLog { file: started.file, path }).is_ok() {
            log_panics();
        }
        Ok(())
    }

    /// The text of the log, the older file first, as far as it is written; empty without a log.
    /// Blocks.
    pub fn read() -> String {
        let Some(log) = LOG.get() else { return String::new() };
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        text(older(&log.path)) + &text(log.path.clone())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(log) = LOG.get() {
            log.file.write(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each panic to the log, and waits until it is there.
fn log_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(log) = LOG.get() {
            let thread = thread::current();
            let name = thread.name().unwrap_or("without a name");
            let trace = std::backtrace::Backtrace::force_capture();
            log.file.write(format!("PANIC in thread {name}: {panic}\n{trace}\n").into_bytes());
            log.file.wait_until_written(Instant::now() + PANIC_TIMEOUT);
        }
        print(panic);
    }));
}

/// A file that starts anew when it is full, and keeps what it had in an older one.
struct RotatingFile {
    path: PathBuf,
    file: File,
    /// Keeps other programs from using the file. A file of its own, because some systems do not let
    /// a locked file be read.
    _lock: File,
    bytes: u64,
    max_bytes: u64,
}

impl RotatingFile {
    /// Opens the first file that no other program has. It goes on where it ended.
    fn open(folder: &Path) -> io::Result<Self> {
        for number in 1..=MAX_LOGS {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let path = folder.join(format!("window{suffix}.log"));
            let lock = open_private(&path.with_extension("lock"))?;
            if lock.try_lock().is_ok() {
                let mut file = open_private(&path)?;
                let bytes = file.seek(SeekFrom::End(0))?;
                return Ok(Self { path, file, _lock: lock, bytes, max_bytes: MAX_BYTES });
            }
        }
        Err(io::Error::other("other programs have all log files"))
    }

    /// Makes the file the older one, and begins a new one.
    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, older(&self.path))?;
        self.file = open_private(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for RotatingFile {
    /// Writes whole lines: [`BackgroundFile`] never splits a record.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("old.log")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("quintet-{name}-{}", std::process::id()));
            create_private_folder(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_full_log_keeps_one_older_file_and_only_the_user_can_read_both() {
        let folder = Folder::new("rotation");
        let mut log = RotatingFile::open(&folder.0).unwrap();
        log.max_bytes = 100;
        for number in 0..30 {
            writeln!(log, "line {number:04}").unwrap();
        }
        let (newer, older) = (log.path.clone(), older(&log.path));
        for path in [&newer, &older] {
            assert!(fs::metadata(path).unwrap().len() <= 100);
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let all = fs::read_to_string(&older).unwrap() + &fs::read_to_string(&newer).unwrap();
        assert!(all.ends_with("line 0028\nline 0029\n"), "{all}");
        assert!(all.contains("line 0019\n"), "the older file keeps its lines: {all}");
        assert!(all.lines().all(|line| line.len() == 9), "no line is split: {all}");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 3, "with the lock file");
    }

    #[test]
    fn a_panic_is_in_the_log_before_its_thread_ends() {
        let folder = Folder::new("panics");
        LogFile::open(&folder.0).unwrap();
        let work = || panic!("no screen");
        let thread = thread::Builder::new().name("planted".into()).spawn(work);
        assert!(thread.unwrap().join().is_err());
        let log = LogFile::read();
        let (_, line) = log.split_once("PANIC in thread planted: ").expect("the panic is there");
        assert!(line.lines().nth(1) == Some("no screen"), "{line}");
        assert!(line.contains("log_file"), "with a backtrace: {line}");
    }

    #[test]
    fn a_second_program_gets_a_log_of_its_own_and_a_later_one_continues_the_first() {
        let folder = Folder::new("logs");
        let mut first = RotatingFile::open(&folder.0).unwrap();
        first.write_all(b"one\n").unwrap();
        let second = RotatingFile::open(&folder.0).unwrap();
        assert_eq!(second.path, folder.0.join("window-2.log"));
        drop(first);
        let mut later = RotatingFile::open(&folder.0).unwrap();
        later.write_all(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(folder.0.join("window.log")).unwrap(), "one\ntwo\n");
    }
}
