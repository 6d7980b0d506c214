//! Records audio to a file on its own thread, because a drive may hang.

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
    output::RETRY_INTERVAL,
    wav::{WavError, WavFile},
};
use crate::{
    files::FileError,
    media::{BLOCK_SAMPLES, Worker, now},
    model::{DeviceState, MediaTime},
};

/// A block that is queued for writing.
type Block = Box<[f32; BLOCK_SAMPLES]>;

/// The most blocks that are queued: 30 s, longer than a drive takes to wake up.
const MAX_QUEUED_BLOCKS: usize = 3000;

/// How long a file may make no progress before the user is notified.
const HUNG_TIMEOUT: Duration = Duration::from_secs(3);

/// How long closing may make no progress before the thread is abandoned.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often closing checks the progress.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The capacity of the event channel: one event for the opening, one for the end.
const MAX_EVENTS: usize = 2;

/// The files that this process has started to write. It appends to them when it reopens them: after
/// an error, when participants join again, or after playing to another output.
static STARTED_FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A WAV file to which audio is written. It is reopened after an error.
pub(super) struct FileOutput {
    path: PathBuf,
    state: State,
}

enum State {
    /// The file is being opened or written.
    Open { writer: Writer, is_running: bool, message: Option<String> },
    /// Closed until `retry_at`. `message` is the last error, `None` at first.
    Closed { retry_at: MediaTime, message: Option<String> },
    /// The file has reached its maximum size.
    Full(String),
}

/// The handle of the thread that writes a file. Dropping it waits until all blocks are written, as
/// long as there is progress.
struct Writer {
    worker: Option<Worker>,
    blocks: Option<SyncSender<Block>>,
    events: Receiver<WriterEvent>,
    /// Blocks that the thread has written.
    written: Arc<AtomicU64>,
    /// Blocks that were queued.
    queued: u64,
    /// The value of `written` at the last progress.
    last_written: u64,
    /// The time of the last progress.
    last_progress: MediaTime,
}

enum WriterEvent {
    Opened,
    Failed { message: String, is_full: bool },
}

impl FileOutput {
    pub(super) fn new(path: PathBuf) -> Self {
        let state = State::Closed { retry_at: MediaTime::default(), message: None };
        Self { path, state }
    }

    /// Opens the file when it is due and handles the events of its thread. Returns the state.
    pub(super) fn poll(&mut self, now: MediaTime) -> DeviceState {
        let closed = State::Closed { retry_at: now + RETRY_INTERVAL, message: None };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Closed { retry_at, message } if now >= retry_at => self.open(message, now),
            State::Open { writer, is_running, message } => match writer.try_event() {
                None => State::Open { writer, is_running, message },
                Some(WriterEvent::Opened) => {
                    State::Open { writer, is_running: true, message: None }
                }
                Some(WriterEvent::Failed { message, is_full: true }) => State::Full(message),
                Some(WriterEvent::Failed { message, is_full: false }) => {
                    State::Closed { retry_at: now + RETRY_INTERVAL, message: Some(message) }
                }
            },
            unchanged @ (State::Closed { .. } | State::Full(_)) => unchanged,
        };
        self.source_state(now)
    }

    fn source_state(&mut self, now: MediaTime) -> DeviceState {
        let message = match &mut self.state {
            State::Open { writer, is_running, message } => {
                if writer.is_hung(*is_running, now) {
                    Some(FileError::NotResponding { path: self.path.clone() }.to_string())
                } else if *is_running {
                    return DeviceState::Running;
                } else {
                    message.clone()
                }
            }
            State::Closed { message, .. } => message.clone(),
            State::Full(message) => Some(message.clone()),
        };
        message.map_or(DeviceState::Opening, |message| DeviceState::Failed { message })
    }

    fn open(&self, message: Option<String>, now: MediaTime) -> State {
        match Writer::start(&self.path, now) {
            Ok(writer) => State::Open { writer, is_running: false, message },
            Err(error) => {
                let message = Some(format!("no thread is left to write sound: {error}"));
                State::Closed { retry_at: now + RETRY_INTERVAL, message }
            }
        }
    }

    /// Queues the block for writing; never waits. Blocks are also queued while the file is being
    /// opened, and dropped when the queue is full because the drive hangs.
    pub(super) fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        if let State::Open { writer, .. } = &mut self.state {
            writer.enqueue(block);
        }
    }
}

impl Writer {
    fn start(path: &Path, now: MediaTime) -> std::io::Result<Self> {
        let (queue, blocks) = sync_channel(MAX_QUEUED_BLOCKS);
        let (sender, events) = sync_channel(MAX_EVENTS);
        let written = Arc::new(AtomicU64::new(0));
        let (path, count) = (path.to_owned(), Arc::clone(&written));
        let worker = Worker::spawn("recording", move |_| {
            if let Err(error) = run_writer(&path, &blocks, &sender, &count) {
                let is_full = matches!(error, WavError::Full { .. });
                sender.try_send(WriterEvent::Failed { message: error.to_string(), is_full }).ok();
            }
        })?;
        let (worker, blocks) = (Some(worker), Some(queue));
        Ok(Self { worker, blocks, events, written, queued: 0, last_written: 0, last_progress: now })
    }

    fn enqueue(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let Some(blocks) = &self.blocks else { return };
        match blocks.try_send(Box::new(*block)) {
            Ok(()) => self.queued += 1,
            Err(_) => tracing::trace!("recording queue full, block dropped"),
        }
    }

    fn try_event(&self) -> Option<WriterEvent> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let message = "the recording's thread ended; it is tried again".to_owned();
                Some(WriterEvent::Failed { message, is_full: false })
            }
        }
    }

    /// Whether the thread has work and has made no progress for [`HUNG_TIMEOUT`].
    fn is_hung(&mut self, is_running: bool, now: MediaTime) -> bool {
        let written = self.written.load(Ordering::Acquire);
        if written != self.last_written || (is_running && written == self.queued) {
            (self.last_written, self.last_progress) = (written, now);
        }
        now.since(self.last_progress) > HUNG_TIMEOUT
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Without a sender the thread writes the queued blocks and ends.
        drop(self.blocks.take());
        // Not joined: any call to a drive that is gone may block forever.
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
        loop {
            match self.events.recv_timeout(POLL_INTERVAL) {
                Err(RecvTimeoutError::Disconnected) => return,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let written = self.written.load(Ordering::Acquire);
                    if written != self.last_written {
                        (self.last_written, self.last_progress) = (written, now());
                    } else if now().since(self.last_progress) > CLOSE_TIMEOUT {
                        return tracing::warn!("recording does not end; thread abandoned");
                    }
                }
            }
        }
    }
}

/// Opens the file and writes all blocks until the channel is closed. Runs on the writer's thread.
fn run_writer(
    path: &Path,
    blocks: &Receiver<Block>,
    events: &SyncSender<WriterEvent>,
    written: &AtomicU64,
) -> Result<(), WavError> {
    let append = started_files().contains(path);
    let mut file = WavFile::open(path, append)?;
    started_files().insert(path.to_owned());
    events.try_send(WriterEvent::Opened).ok();
    for block in blocks {
        file.write(&block)?;
        written.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

fn started_files() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    STARTED_FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{fs, thread};

    use super::*;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    /// Polls the output with this time until its state is not `Opening`.
    fn settled_state(output: &mut FileOutput, now: MediaTime) -> DeviceState {
        let started = crate::media::now();
        loop {
            let state = output.poll(now);
            if state != DeviceState::Opening {
                return state;
            }
            assert!(crate::media::now().since(started) < Duration::from_secs(60), "still opening");
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_that_cannot_be_created_is_retried_and_its_content_is_kept_when_it_is_reopened() {
        let folder = std::env::temp_dir().join(format!("quintet-output-{}", std::process::id()));
        let path = folder.join("a.wav");
        let mut output = FileOutput::new(path.clone());
        let DeviceState::Failed { message } = settled_state(&mut output, at(1)) else {
            panic!("the folder does not exist")
        };
        assert!(message.contains("a.wav") && message.contains("another file"), "{message}");
        output.play(&[0.5; BLOCK_SAMPLES]);
        fs::create_dir_all(&folder).unwrap();
        assert!(
            matches!(output.poll(at(2000)), DeviceState::Failed { .. }),
            "before the retry interval has passed"
        );
        while output.poll(at(2001)) != DeviceState::Running {
            thread::yield_now();
        }
        output.play(&[0.5; BLOCK_SAMPLES]);
        drop(output);
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 480);

        // The file is reopened, as after all participants have left and one joins again. Blocks
        // are queued while the file is being opened.
        let mut output = FileOutput::new(path.clone());
        output.poll(at(3000));
        output.play(&[0.5; BLOCK_SAMPLES]);
        assert_eq!(settled_state(&mut output, at(3000)), DeviceState::Running);
        output.play(&[0.5; BLOCK_SAMPLES]);
        drop(output);
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 1440);
        fs::remove_dir_all(&folder).unwrap();
    }

    /// A writer whose thread hangs until the returned sender sends or is dropped.
    fn hanging_writer(now: MediaTime) -> (Writer, std::sync::mpsc::Sender<()>) {
        let (queue, blocks) = sync_channel(MAX_QUEUED_BLOCKS);
        let (sender, events) = sync_channel(MAX_EVENTS);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let worker = Worker::spawn("test", move |_| {
            released.recv().ok();
            drop((blocks, sender));
        });
        let written = Arc::default();
        let (worker, blocks) = (worker.ok(), Some(queue));
        let writer = Writer {
            worker,
            blocks,
            events,
            written,
            queued: 0,
            last_written: 0,
            last_progress: now,
        };
        (writer, release)
    }

    #[test]
    fn a_drive_that_hangs_is_reported_never_blocks_and_its_thread_is_abandoned() {
        let (writer, release) = hanging_writer(at(0));
        let mut output = FileOutput::new("/dead/a.wav".into());
        output.state = State::Open { writer, is_running: false, message: None };
        assert_eq!(output.poll(at(2999)), DeviceState::Opening);
        for _ in 0..MAX_QUEUED_BLOCKS + 10 {
            output.play(&[0.5; BLOCK_SAMPLES]);
        }
        let DeviceState::Failed { message } = output.poll(at(3001)) else {
            panic!("the file hangs")
        };
        assert!(message.starts_with("\"/dead/a.wav\" does not answer"), "{message}");
        // The drop returns although the thread still runs.
        drop(output);
        assert!(release.send(()).is_ok());
    }

    #[test]
    fn a_recording_without_blocks_is_not_hung() {
        let (mut writer, _release) = hanging_writer(at(0));
        assert!(!writer.is_hung(true, at(10_000)), "no block is queued");
        writer.enqueue(&[0.5; BLOCK_SAMPLES]);
        assert!(!writer.is_hung(true, at(12_000)));
        assert!(writer.is_hung(true, at(14_000)));
        writer.written.store(1, Ordering::Release);
        assert!(!writer.is_hung(true, at(15_000)), "a block was written");
    }
}
