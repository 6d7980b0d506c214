//! Sound to a file, written on a thread of its own: a drive may be gone, and nobody waits for it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    time::Duration,
};

use super::{
    output::RETRY,
    wav::{WavError, WavFile},
};
use crate::{
    files::FileError,
    media::{BLOCK_SAMPLES, Worker, now},
    model::{MediaTime, SourceState},
};

/// A block that waits to be written.
type Block = Box<[f32; BLOCK_SAMPLES]>;

/// Blocks that wait to be written at most: 30 s, longer than a drive takes to wake up.
const WAITING: usize = 3000;

/// How long a file may not go on before a person is told.
const HUNG: Duration = Duration::from_secs(3);

/// How long closing may not go on before the thread is left alone.
const CLOSING: Duration = Duration::from_secs(2);

/// How often closing looks whether it goes on.
const LOOK: Duration = Duration::from_millis(20);

/// News that wait at most: that it is open, and why it ended.
const NEWS: usize = 2;

/// The files that this process has begun to write. Sound is added to them when they are opened
/// again: after an error, for people who come later, after sound went elsewhere.
static BEGUN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file that sound is written to, again after an error.
pub(super) struct FileOutput {
    path: PathBuf,
    state: State,
}

enum State {
    /// Being opened or written.
    Open { writer: Writer, is_running: bool, message: Option<String> },
    /// Not in use until then; `message` is why, `None` at first.
    Closed { retry_at: MediaTime, message: Option<String> },
    /// No more sound fits.
    Full(String),
}

/// The thread that writes a file, from outside. Dropping it waits until all is written, as long
/// as that goes on.
struct Writer {
    worker: Option<Worker>,
    blocks: Option<SyncSender<Block>>,
    news: Receiver<News>,
    /// Blocks that were written.
    written: Arc<AtomicU64>,
    given: u64,
    /// The blocks written when that last changed, and since when.
    seen: u64,
    since: MediaTime,
}

enum News {
    Opened,
    Failed { message: String, is_full: bool },
}

impl FileOutput {
    pub(super) fn new(path: PathBuf) -> Self {
        let state = State::Closed { retry_at: MediaTime::default(), message: None };
        Self { path, state }
    }

    /// Begins to open the file when it is time to, and hears how it is.
    pub(super) fn tend(&mut self, now: MediaTime) -> SourceState {
        let closed = State::Closed { retry_at: now + RETRY, message: None };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Closed { retry_at, message } if now >= retry_at => self.open(message, now),
            State::Open { writer, is_running, message } => match writer.heard() {
                None => State::Open { writer, is_running, message },
                Some(News::Opened) => State::Open { writer, is_running: true, message: None },
                Some(News::Failed { message, is_full: true }) => State::Full(message),
                Some(News::Failed { message, is_full: false }) => {
                    State::Closed { retry_at: now + RETRY, message: Some(message) }
                }
            },
            same @ (State::Closed { .. } | State::Full(_)) => same,
        };
        self.source_state(now)
    }

    fn source_state(&mut self, now: MediaTime) -> SourceState {
        let message = match &mut self.state {
            State::Open { writer, is_running, message } => {
                if writer.is_hung(*is_running, now) {
                    Some(FileError::Hung { path: self.path.clone() }.to_string())
                } else if *is_running {
                    return SourceState::Running;
                } else {
                    message.clone()
                }
            }
            State::Closed { message, .. } => message.clone(),
            State::Full(message) => Some(message.clone()),
        };
        message.map_or(SourceState::Opening, |message| SourceState::Failed { message })
    }

    fn open(&self, message: Option<String>, now: MediaTime) -> State {
        match Writer::start(&self.path, now) {
            Ok(writer) => State::Open { writer, is_running: false, message },
            Err(error) => {
                let message = Some(format!("no thread is left to write sound: {error}"));
                State::Closed { retry_at: now + RETRY, message }
            }
        }
    }

    /// Has the block written after those before it; never waits. Blocks are kept while the file
    /// is opened, and lost when too many wait for a drive that hangs.
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        if let State::Open { writer, .. } = &mut self.state {
            writer.give(block);
        }
    }
}

impl Writer {
    fn start(path: &Path, now: MediaTime) -> std::io::Result<Self> {
        let (give, blocks) = sync_channel(WAITING);
        let (say, news) = sync_channel(NEWS);
        let written = Arc::new(AtomicU64::new(0));
        let (path, count) = (path.to_owned(), Arc::clone(&written));
        let worker = Worker::spawn("recording", move |_| {
            if let Err(error) = write(&path, &blocks, &say, &count) {
                let is_full = matches!(error, WavError::Full { .. });
                say.try_send(News::Failed { message: error.to_string(), is_full }).ok();
            }
        })?;
        let (worker, blocks) = (Some(worker), Some(give));
        Ok(Self { worker, blocks, news, written, given: 0, seen: 0, since: now })
    }

    fn give(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let Some(blocks) = &self.blocks else { return };
        match blocks.try_send(Box::new(*block)) {
            Ok(()) => self.given += 1,
            Err(_) => tracing::trace!("a block is not recorded: too many wait"),
        }
    }

    fn heard(&self) -> Option<News> {
        match self.news.try_recv() {
            Ok(news) => Some(news),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let message = "the recording's thread ended; it is tried again".to_owned();
                Some(News::Failed { message, is_full: false })
            }
        }
    }

    /// Whether there is something to be done, and nothing was for long.
    fn is_hung(&mut self, is_running: bool, now: MediaTime) -> bool {
        let written = self.written.load(Ordering::Acquire);
        if written != self.seen || (is_running && written == self.given) {
            (self.seen, self.since) = (written, now);
        }
        now.since(self.since) > HUNG
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the thread writes what waits, and ends.
        drop(self.blocks.take());
        // Not joined: any call to a drive that is gone may take for ever.
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
        loop {
            match self.news.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let written = self.written.load(Ordering::Acquire);
                    if written != self.seen {
                        (self.seen, self.since) = (written, now());
                    } else if now().since(self.since) > CLOSING {
                        return tracing::warn!(
                            "a recording does not end; its thread is left alone"
                        );
                    }
                }
            }
        }
    }
}

/// Opens the file and writes what comes, until nothing will come any more. Runs on the writer's
/// thread.
fn write(
    path: &Path,
    blocks: &Receiver<Block>,
    say: &SyncSender<News>,
    written: &AtomicU64,
) -> Result<(), WavError> {
    let goes_on = begun().contains(path);
    let mut file = WavFile::open(path, goes_on)?;
    begun().insert(path.to_owned());
    say.try_send(News::Opened).ok();
    for block in blocks {
        file.write(&block)?;
        written.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

fn begun() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    /// Tends the output at that time until its state is another one than `Opening`.
    fn settled(output: &mut FileOutput, now: MediaTime) -> SourceState {
        let begun = crate::media::now();
        loop {
            let state = output.tend(now);
            if state != SourceState::Opening {
                return state;
            }
            assert!(crate::media::now().since(begun) < Duration::from_secs(60), "it still opens");
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_cannot_be_created_is_tried_again_and_what_was_written_to_it_stays() {
        let folder = std::env::temp_dir().join(format!("quintet-output-{}", std::process::id()));
        let path = folder.join("a.wav");
        let mut output = FileOutput::new(path.clone());
        let SourceState::Failed { message } = settled(&mut output, at(1)) else {
            panic!("no folder")
        };
        assert!(message.contains("a.wav") && message.contains("another file"), "{message}");
        output.play(&[0.5; BLOCK_SAMPLES]);
        fs::create_dir_all(&folder).unwrap();
        assert!(matches!(output.tend(at(2000)), SourceState::Failed { .. }), "not yet");
        while output.tend(at(2001)) != SourceState::Running {
            thread::yield_now();
        }
        output.play(&[0.5; BLOCK_SAMPLES]);
        drop(output);
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 480);

        // Everybody leaves, and somebody comes again. Sound is kept while the file is opened.
        let mut output = FileOutput::new(path.clone());
        output.tend(at(3000));
        output.play(&[0.5; BLOCK_SAMPLES]);
        assert_eq!(settled(&mut output, at(3000)), SourceState::Running);
        output.play(&[0.5; BLOCK_SAMPLES]);
        drop(output);
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 1440);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// A writer whose thread hangs in its first call, and what it hangs in.
    fn hanging(now: MediaTime) -> (Writer, std::sync::mpsc::Sender<()>) {
        let (give, blocks) = sync_channel(WAITING);
        let (say, news) = sync_channel(NEWS);
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let worker = Worker::spawn("test", move |_| {
            hang.recv().ok();
            drop((blocks, say));
        });
        let written = Arc::default();
        let (worker, blocks) = (worker.ok(), Some(give));
        (Writer { worker, blocks, news, written, given: 0, seen: 0, since: now }, release)
    }

    #[test]
    fn a_drive_that_hangs_is_told_keeps_nobody_waiting_and_is_left_alone() {
        let (writer, release) = hanging(at(0));
        let mut output = FileOutput::new("/dead/a.wav".into());
        output.state = State::Open { writer, is_running: false, message: None };
        assert_eq!(output.tend(at(2999)), SourceState::Opening);
        for _ in 0..WAITING + 10 {
            output.play(&[0.5; BLOCK_SAMPLES]);
        }
        let SourceState::Failed { message } = output.tend(at(3001)) else { panic!("it hangs") };
        assert!(message.starts_with("\"/dead/a.wav\" does not answer"), "{message}");
        // Dropping it returns though its thread is still there.
        drop(output);
        assert!(release.send(()).is_ok());
    }

    #[test]
    fn a_quiet_recording_is_no_hung_one() {
        let (mut writer, _release) = hanging(at(0));
        assert!(!writer.is_hung(true, at(10_000)), "nothing was given, nothing is to be written");
        writer.give(&[0.5; BLOCK_SAMPLES]);
        assert!(!writer.is_hung(true, at(12_000)));
        assert!(writer.is_hung(true, at(14_000)));
        writer.written.store(1, Ordering::Release);
        assert!(!writer.is_hung(true, at(15_000)), "it went on");
    }
}
