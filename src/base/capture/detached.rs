//! Runs a source whose calls may never return, such as a file on a disconnected drive.

use std::{
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use super::source::{Next, POLL_INTERVAL, Source, SourceError};
use crate::{
    files::FileError,
    media::{Worker, now},
    model::MediaTime,
};

/// Capacity of the channel between the two threads, in items.
const QUEUE_CAPACITY: usize = 2;

/// How long a file may give nothing before it is reported as stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// A file source that is opened, read and closed on its own thread, which is never joined.
///
/// When a call hangs, the source reports [`Next::Stalled`] and goes on when the call returns. A
/// dropped source does not wait for its thread: the thread ends when the call returns.
pub(super) struct DetachedSource<T> {
    path: PathBuf,
    items: Receiver<Result<Next<T>, SourceError>>,
    worker: Option<Worker>,
    last_item_at: MediaTime,
}

impl<T: Send + 'static> DetachedSource<T> {
    /// Starts to open the source. Does not block.
    pub(super) fn open<S: Source<T>>(
        path: &Path,
        open: impl FnOnce(&Path) -> Result<S, SourceError> + Send + 'static,
    ) -> Result<Self, SourceError> {
        let (sender, news) = mpsc::sync_channel(QUEUE_CAPACITY);
        let file = path.to_owned();
        let worker = Worker::spawn("file", move |stop| {
            let mut source = match open(&file) {
                Ok(source) => source,
                Err(error) => return drop(sender.send(Err(error))),
            };
            while !stop.is_set() {
                let next = source.next();
                let is_end = next.is_err();
                // Sending fails once the source is dropped.
                if sender.send(next).is_err() || is_end {
                    return;
                }
            }
        });
        let worker = worker.map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), items: news, worker: Some(worker), last_item_at: now() })
    }
}

impl<T> Source<T> for DetachedSource<T> {
    fn next(&mut self) -> Result<Next<T>, SourceError> {
        match self.items.recv_timeout(POLL_INTERVAL) {
            Ok(next) => {
                self.last_item_at = now();
                next
            }
            Err(RecvTimeoutError::Timeout) if now().since(self.last_item_at) < STALL_TIMEOUT => {
                Ok(Next::NotYet)
            }
            // A hung thread is not replaced by a second one that would hang too.
            Err(RecvTimeoutError::Timeout) => {
                Ok(Next::Stalled(FileError::NotResponding { path: self.path.clone() }.into()))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let source = std::io::Error::other("its thread ended");
                Err(FileError::Read { path: self.path.clone(), source }.into())
            }
        }
    }
}

impl<T> Drop for DetachedSource<T> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, mpsc::channel},
        time::Duration,
    };

    use super::*;
    use crate::{capture::source, model::DeviceState};

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    /// A source that returns the numbers sent to its channel, and hangs until the next one comes.
    struct ChannelSource(Receiver<u32>);

    impl Source<u32> for ChannelSource {
        fn next(&mut self) -> Result<Next<u32>, SourceError> {
            Ok(self.0.recv().map_or(Next::NotYet, Next::Ready))
        }
    }

    #[test]
    fn a_hung_file_is_reported_by_name_recovers_when_it_answers_and_is_not_joined_on_drop() {
        let (driver_sender, driver) = channel();
        let (state_sender, states) = channel();
        let (number_sender, numbers) = channel();
        let mut driver = Some(driver);
        let capture = Worker::spawn("test", move |stop| {
            let notify: source::Notify = Arc::new(move |state| state_sender.send(state).unwrap());
            let open = || {
                let driver = driver.take().expect("a hung file is not opened twice");
                DetachedSource::open(Path::new("/dead/a.wav"), |_| Ok(ChannelSource(driver)))
            };
            source::run(stop, &notify, open, |number| number_sender.send(number).unwrap());
        })
        .unwrap();
        let state = || states.recv_timeout(TEST_TIMEOUT).unwrap();
        assert_eq!(state(), DeviceState::Opening);
        driver_sender.send(1).unwrap();
        assert_eq!((state(), numbers.recv_timeout(TEST_TIMEOUT)), (DeviceState::Running, Ok(1)));
        let DeviceState::Failed { message } = state() else { panic!("it hangs") };
        assert!(
            message.starts_with("\"/dead/a.wav\" does not answer; check the drive"),
            "{message}"
        );
        driver_sender.send(2).unwrap();
        assert_eq!((state(), numbers.recv_timeout(TEST_TIMEOUT)), (DeviceState::Running, Ok(2)));
        // The source hangs again; dropping the capture returns nevertheless.
        drop(capture);
        assert!(driver_sender.send(3).is_ok(), "the thread still waits for the driver");
    }
}
