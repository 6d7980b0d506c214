//! A file that a thread of its own writes, for which nobody waits.

use std::{
    io::{self, BufWriter, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// A handle that queues records for a file. The file is complete up to a moment ago.
///
/// A thread writes them in order. If the disk is too slow, records are left out, which the thread
/// logs. The thread ends with the last clone of the handle.
#[derive(Clone, Debug)]
pub struct BackgroundFile {
    records: SyncSender<Record>,
    counts: Arc<Counts>,
}

/// A record, and how many were left out between the one before and this one.
#[derive(Debug)]
struct Record {
    lost_before: u64,
    bytes: Vec<u8>,
}

/// How many records there were so far.
#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    written: AtomicU64,
    /// Left out since the last one that was queued.
    lost: AtomicU64,
}

/// What a [`BackgroundFile`] is.
#[derive(Clone, Copy, Debug)]
pub struct FileFormat {
    /// What it is called in the log, and the name of its thread.
    pub name: &'static str,
    /// How many records may wait for the disk.
    pub queue: usize,
    /// What is written in the place of that many records that were left out; may be empty.
    pub gap: fn(u64) -> Vec<u8>,
}

/// A file that is being opened, and the news of its thread.
#[derive(Debug)]
pub struct StartedFile<E> {
    /// The handle.
    pub file: BackgroundFile,
    /// Whether the file could be opened.
    pub opened: oneshot::Receiver<Result<(), E>>,
    /// Closed when the thread has ended and everything is written.
    pub ended: oneshot::Receiver<()>,
}

impl BackgroundFile {
    /// Starts a file that begins with `header`. `open` runs on the thread that writes, and may
    /// block. Records meanwhile are kept, as many as the queue has room for.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start<W: Write, E: Send + 'static>(
        format: FileFormat,
        header: Vec<u8>,
        open: impl FnOnce() -> Result<W, E> + Send + 'static,
    ) -> io::Result<StartedFile<E>> {
        let (records, queue) = mpsc::sync_channel(format.queue);
        let (outcome, opened) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let counts = Arc::<Counts>::default();
        let writer = Writer { format, queue, counts: Arc::clone(&counts) };
        thread::Builder::new().name(format.name.to_owned()).spawn(move || {
            let _end: oneshot::Sender<()> = end;
            let file = match open() {
                Ok(file) => file,
                Err(error) => return drop(outcome.send(Err(error))),
            };
            // Nobody may be interested any more.
            let _ = outcome.send(Ok(()));
            if let Err(error) = writer.run(file, &header) {
                tracing::warn!(%error, "the {} ends, because it cannot be written", format.name);
            }
        })?;
        Ok(StartedFile { file: Self { records, counts }, opened, ended })
    }

    /// Queues a record; never waits.
    pub fn write(&self, bytes: Vec<u8>) {
        let lost_before = self.counts.lost.swap(0, Ordering::Relaxed);
        match self.records.try_send(Record { lost_before, bytes }) {
            Ok(()) => self.counts.queued.fetch_add(1, Ordering::Relaxed),
            Err(_) => self.counts.lost.fetch_add(lost_before + 1, Ordering::Relaxed),
        };
    }

    /// Waits until the records so far are written, at most until the deadline: for a process that
    /// is about to end.
    pub fn wait_until_written(&self, deadline: Instant) {
        let queued = self.counts.queued.load(Ordering::Relaxed);
        while self.counts.written.load(Ordering::Acquire) < queued && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The thread's end of the queue.
struct Writer {
    format: FileFormat,
    queue: Receiver<Record>,
    counts: Arc<Counts>,
}

impl Writer {
    /// Writes records until there is no handle left. The file is flushed whenever the queue is
    /// empty.
    fn run(&self, file: impl Write, header: &[u8]) -> io::Result<()> {
        let mut file = BufWriter::new(file);
        file.write_all(header)?;
        let mut written = 0;
        loop {
            let record = match self.queue.try_recv() {
                Err(TryRecvError::Empty) => {
                    file.flush()?;
                    self.counts.written.store(written, Ordering::Release);
                    self.queue.recv().ok()
                }
                record => record.ok(),
            };
            let lost_at_the_end = || self.counts.lost.swap(0, Ordering::Relaxed);
            let missing = record.as_ref().map_or_else(lost_at_the_end, |record| record.lost_before);
            if missing > 0 {
                file.write_all(&(self.format.gap)(missing))?;
                let name = self.format.name;
                tracing::warn!(missing, "the {name} lacks records, because the disk is too slow");
            }
            let Some(record) = record else { return file.flush() };
            file.write_all(&record.bytes)?;
            written += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is full.
    struct FullDisk;

    impl Write for FullDisk {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FORMAT: FileFormat =
        FileFormat { name: "test", queue: 100, gap: |lost| format!("<{lost} lost>").into_bytes() };

    #[test]
    fn a_file_that_cannot_be_opened_is_reported() {
        let open = || Err::<FullDisk, _>("no such folder");
        let started = BackgroundFile::start(FORMAT, vec![], open).unwrap();
        assert_eq!(started.opened.blocking_recv().unwrap(), Err("no such folder"));
    }

    #[test]
    fn neither_a_disk_that_hangs_nor_one_that_is_full_holds_up_a_record() {
        let (release, hung) = mpsc::channel::<()>();
        let open = move || {
            // The drive answers when the test says so.
            let _ = hung.recv();
            Ok::<_, ()>(FullDisk)
        };
        let started = BackgroundFile::start(FORMAT, vec![], open).unwrap();
        for _ in 0..FORMAT.queue + 10 {
            started.file.write(b"record".to_vec());
        }
        assert_eq!(started.file.counts.lost.load(Ordering::Relaxed), 10);
        drop(release);
        assert_eq!(started.opened.blocking_recv().unwrap(), Ok(()));
        // The thread ends at the first error.
        assert!(started.ended.blocking_recv().is_err());
        started.file.write(b"record".to_vec());
    }

    #[test]
    fn a_file_is_complete_when_its_last_handle_is_dropped_and_says_what_it_lacks() {
        let (release, hung) = mpsc::channel::<()>();
        let (bytes, written) = mpsc::channel::<Vec<u8>>();
        struct Sent(mpsc::Sender<Vec<u8>>);
        impl Write for Sent {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let open = move || {
            let _ = hung.recv();
            Ok::<_, ()>(Sent(bytes))
        };
        let started = BackgroundFile::start(FORMAT, b"header ".to_vec(), open).unwrap();
        for _ in 0..FORMAT.queue + 2 {
            started.file.write(b".".to_vec());
        }
        drop((release, started.file));
        assert!(started.ended.blocking_recv().is_err());
        let all: Vec<u8> = written.iter().flatten().collect();
        let text = String::from_utf8(all).unwrap();
        assert_eq!(text, format!("header {}<2 lost>", ".".repeat(FORMAT.queue)));
    }
}
