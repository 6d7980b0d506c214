//! Standard output and standard error that never block the caller: a queue, and a thread that
//! writes.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock},
    thread,
    time::{Duration, Instant},
};

/// The most bytes that wait for a slow reader: about 40 000 lines. Further lines are dropped, and a
/// line with their number is written instead.
const MAX_QUEUED_BYTES: usize = 4 << 20;

/// The most statistics lines that wait: those of a minute. The oldest are dropped first, as newer
/// ones replace them.
const MAX_QUEUED_STATS: usize = 60;

/// About how many bytes are written at once.
const BATCH_BYTES: usize = 64 << 10;

/// How long [`Output::finish`] waits for a reader that reads nothing.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long [`Output::finish`] waits in total.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause before a full non-blocking pipe is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the line that says how many lines were dropped.
type FormatLost = Box<dyn Fn(u64) -> String + Send>;

/// A queue of lines for an output stream. Clones write to the same queue.
///
/// Only [`Output::finish`] waits for the reader, and for a limited time. While the reader keeps up,
/// every line arrives, in order.
#[derive(Clone)]
pub struct Output(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The queued lines, and the state of the writer.
struct Queue {
    entries: VecDeque<Entry>,
    /// The size of all queued lines.
    bytes: usize,
    /// How many of the queued lines are statistics.
    stats_lines: usize,
    format_lost: FormatLost,
    /// The stream; the writer thread takes it when it starts.
    sink: Option<Box<dyn io::Write + Send>>,
    /// Whether a batch is being written.
    is_writing: bool,
    /// How many batches were written.
    batches_written: u64,
    /// The number of written batches when [`Output::finish`] gave up. If the reader has read since,
    /// the next call waits again.
    given_up: Option<u64>,
    /// Why nothing can be written any more.
    error: Option<Arc<io::Error>>,
}

/// An entry of the queue.
#[derive(PartialEq, Eq, Debug)]
enum Entry {
    /// A line, with its line end.
    Line { text: String, is_stats: bool },
    /// The number of lines that were dropped at this position.
    Lost(u64),
}

impl Output {
    /// Returns a queue that is written to `sink`, on a thread that starts with the first line.
    fn new(sink: Box<dyn io::Write + Send>) -> Self {
        let format_lost: FormatLost =
            Box::new(|lines| format!("quintet: {lines} lines are missing, as they were not read"));
        let queue = Queue {
            entries: VecDeque::new(),
            bytes: 0,
            stats_lines: 0,
            format_lost,
            sink: Some(sink),
            is_writing: false,
            batches_written: 0,
            given_up: None,
            error: None,
        };
        Self(Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() }))
    }

    /// Returns the queue of standard output.
    pub fn stdout() -> &'static Self {
        static STDOUT: OnceLock<Output> = OnceLock::new();
        #[cfg(unix)]
        return STDOUT.get_or_init(|| Self::new(unbuffered(io::stdout())));
        #[cfg(not(unix))]
        return STDOUT.get_or_init(|| Self::new(Box::new(io::stdout())));
    }

    /// Returns the queue of standard error; logs are written there, too.
    pub fn stderr() -> &'static Self {
        static STDERR: OnceLock<Output> = OnceLock::new();
        #[cfg(unix)]
        return STDERR.get_or_init(|| Self::new(unbuffered(io::stderr())));
        #[cfg(not(unix))]
        return STDERR.get_or_init(|| Self::new(Box::new(io::stderr())));
    }

    /// Sets the format of the line that says how many lines were dropped, such as a JSON object.
    pub fn format_lost_with(&self, format: impl Fn(u64) -> String + Send + 'static) {
        self.lock().format_lost = Box::new(format);
    }

    /// Queues a line, given without its line end. Never waits.
    pub fn write_line(&self, text: &str) {
        self.push(Entry::Line { text: format!("{text}\n"), is_stats: false });
    }

    /// Queues a line of statistics. Later ones replace it: while the reader does not read, the
    /// oldest are dropped first.
    pub fn write_stats(&self, text: &str) {
        self.push(Entry::Line { text: format!("{text}\n"), is_stats: true });
    }

    /// Returns why nothing can be written any more: the reader has closed the pipe, or the disk is
    /// full.
    pub fn error(&self) -> Option<Arc<io::Error>> {
        self.lock().error.clone()
    }

    /// Waits until everything is written, as long as the reader continues to read, and at most
    /// 10 s.
    pub fn finish(&self) {
        let start = Instant::now();
        let mut queue = self.lock();
        let (mut written, mut since) = (queue.batches_written, start);
        while queue.has_pending() && queue.given_up != Some(queue.batches_written) {
            let now = Instant::now();
            if queue.batches_written != written {
                (written, since) = (queue.batches_written, now);
            }
            let end = (since + STALL_TIMEOUT).min(start + FINISH_TIMEOUT);
            let Some(left) = end.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                queue.given_up = Some(queue.batches_written);
                return;
            };
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(|poison| poison.into_inner()).0;
        }
    }

    fn push(&self, entry: Entry) {
        let mut queue = self.lock();
        if queue.error.is_some() {
            return;
        }
        queue.push(entry);
        if let Some(sink) = queue.sink.take() {
            let output = self.clone();
            let write = move || output.run_writer(sink);
            if let Err(error) = thread::Builder::new().name("output".into()).spawn(write) {
                queue.error = Some(Arc::new(error));
            }
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Writes queued lines until writing fails.
    fn run_writer(&self, mut sink: Box<dyn io::Write + Send>) {
        loop {
            let mut queue = self.lock();
            while queue.entries.is_empty() {
                let woken = self.0.changed.wait(queue);
                queue = woken.unwrap_or_else(|poison| poison.into_inner());
            }
            let batch = queue.take_batch();
            queue.is_writing = true;
            drop(queue);
            let written = write_all(&mut *sink, batch.as_bytes());
            let mut queue = self.lock();
            queue.is_writing = false;
            queue.batches_written += 1;
            let is_over = written.is_err();
            if let Err(error) = written {
                queue.error = Some(Arc::new(error));
                queue.entries.clear();
            }
            drop(queue);
            self.0.changed.notify_all();
            if is_over {
                return;
            }
        }
    }

    /// Locks the queue. A poisoned lock is ignored: the queue is consistent between any two
    /// statements.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Queue {
    /// Adds a line. If there is no room, drops the oldest statistics first, else the new line.
    fn push(&mut self, entry: Entry) {
        let Entry::Line { text, is_stats } = &entry else { return };
        let is_stats = *is_stats;
        if is_stats && self.stats_lines >= MAX_QUEUED_STATS {
            self.drop_oldest_stats();
        }
        while self.bytes + text.len() > MAX_QUEUED_BYTES && self.drop_oldest_stats() {}
        // A single line that is longer than the limit is queued if the queue is empty.
        if self.bytes + text.len() > MAX_QUEUED_BYTES && self.bytes > 0 {
            match self.entries.back_mut() {
                Some(Entry::Lost(lines)) => *lines += 1,
                Some(Entry::Line { .. }) | None => self.entries.push_back(Entry::Lost(1)),
            }
            return;
        }
        self.bytes += text.len();
        self.stats_lines += usize::from(is_stats);
        self.entries.push_back(entry);
    }

    /// Drops the oldest line of statistics; returns whether there was one.
    fn drop_oldest_stats(&mut self) -> bool {
        let is_stats = |entry: &Entry| matches!(entry, Entry::Line { is_stats, .. } if *is_stats);
        let Some(at) = self.entries.iter().position(is_stats) else { return false };
        let mut lost = 1;
        if let Some(Entry::Line { text, .. }) = self.entries.remove(at) {
            self.bytes -= text.len();
            self.stats_lines -= 1;
        }
        // Adjacent dropped lines are counted in one entry.
        if let Some(Entry::Lost(more)) = self.entries.get(at) {
            lost += more;
            self.entries.remove(at);
        }
        match at.checked_sub(1).and_then(|before| self.entries.get_mut(before)) {
            Some(Entry::Lost(lines)) => *lines += lost,
            Some(Entry::Line { .. }) | None => self.entries.insert(at, Entry::Lost(lost)),
        }
        true
    }

    /// Takes the next lines to write at once.
    fn take_batch(&mut self) -> String {
        let mut batch = String::new();
        while batch.len() < BATCH_BYTES {
            match self.entries.pop_front() {
                Some(Entry::Line { text, is_stats }) => {
                    self.bytes -= text.len();
                    self.stats_lines -= usize::from(is_stats);
                    batch.push_str(&text);
                }
                Some(Entry::Lost(lines)) => {
                    batch.push_str(&(self.format_lost)(lines));
                    batch.push('\n');
                }
                None => break,
            }
        }
        batch
    }

    /// Returns whether something is still to be written and can be written.
    fn has_pending(&self) -> bool {
        self.error.is_none() && (self.is_writing || !self.entries.is_empty())
    }
}

/// For logs: each call of `write` queues its bytes as one entry, and never waits.
impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.push(Entry::Line { text, is_stats: false });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("broken", &self.error()).finish_non_exhaustive()
    }
}

/// Returns the stream without the buffer and the lock of the standard library. Other code that
/// writes to the stream, such as a panic, then does not wait for the reader.
#[cfg(unix)]
fn unbuffered(stream: impl std::os::fd::AsFd) -> Box<dyn io::Write + Send> {
    match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
        Err(error) => Box::new(ClosedStream(error.kind())),
    }
}

/// A stream that fails at each write.
#[cfg(unix)]
struct ClosedStream(io::ErrorKind);

#[cfg(unix)]
impl io::Write for ClosedStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

/// Writes all bytes, also to a pipe that another process made non-blocking.
fn write_all(sink: &mut dyn io::Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(RETRY_INTERVAL)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that blocks while the test holds the lock.
    struct Reader {
        unblocked: Arc<Mutex<()>>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl io::Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _unblocked = self.unblocked.lock().unwrap();
            self.taken.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Arc<Mutex<()>>, mpsc::Receiver<Vec<u8>>) {
        let (taken, lines) = mpsc::channel();
        let lock = Arc::new(Mutex::new(()));
        let reader = Reader { unblocked: Arc::clone(&lock), taken };
        (Output::new(Box::new(reader)), lock, lines)
    }

    fn text(lines: &mpsc::Receiver<Vec<u8>>) -> String {
        String::from_utf8(lines.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn a_burst_arrives_complete_and_in_order_if_it_is_read() {
        let (output, _lock, lines) = output();
        let expected: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        for n in 0..20_000 {
            output.write_line(&n.to_string());
        }
        output.finish();
        assert!(text(&lines) == expected, "20 000 lines in order");
    }

    #[test]
    fn a_stalled_reader_blocks_no_writer_and_gets_the_number_of_dropped_lines() {
        let (output, lock, lines) = output();
        let blocked = lock.lock().unwrap();
        let long = "x".repeat(MAX_QUEUED_BYTES / 4);
        for n in 0..6 {
            output.write_line(&format!("{n} {long}"));
        }
        drop(blocked);
        output.finish();
        output.write_line("later");
        output.finish();
        let text = text(&lines);
        let starts: Vec<_> =
            text.lines().map(|line| line.chars().take(60).collect::<String>()).collect();
        assert!(starts.first().unwrap().starts_with("0 x"), "{starts:?}");
        // A thread that starts late finds some lines dropped before its first one, too.
        let missing = text.lines().filter(|line| line.contains("missing"));
        let numbers =
            missing.map(|line| line.split(' ').find_map(|part| part.parse::<usize>().ok()));
        let lost: usize = numbers.map(|number| number.expect("a number")).sum();
        assert!(lost > 0, "{starts:?}");
        let here = text.lines().filter(|line| line.ends_with('x')).count();
        assert_eq!((here + lost, text.lines().last()), (6, Some("later")));
    }

    #[test]
    fn old_statistics_are_dropped_and_events_stay() {
        let (output, lock, lines) = output();
        let blocked = lock.lock().unwrap();
        output.write_line("first");
        while !output.lock().is_writing {
            thread::yield_now();
        }
        for n in 0..MAX_QUEUED_STATS + 10 {
            output.write_stats(&format!("stats {n}"));
            output.write_line(&format!("event {n}"));
        }
        output.write_line("summary");
        drop(blocked);
        output.finish();
        let text = text(&lines);
        let events = text.lines().filter(|line| line.starts_with("event")).count();
        let stats: Vec<_> = text.lines().filter(|line| line.starts_with("stats")).collect();
        let lost: usize = text
            .lines()
            .filter(|line| line.contains("missing"))
            .filter_map(|line| line.split(' ').find_map(|part| part.parse::<usize>().ok()))
            .sum();
        assert_eq!((events, stats.len() + lost), (MAX_QUEUED_STATS + 10, MAX_QUEUED_STATS + 10));
        assert_eq!(lost, 10);
        assert_eq!(stats.last(), Some(&format!("stats {}", MAX_QUEUED_STATS + 9).as_str()));
        assert_eq!(text.lines().last(), Some("summary"));
    }

    #[test]
    fn finishing_gives_up_on_a_stalled_reader_once() {
        let (output, lock, _lines) = output();
        let blocked = lock.lock().unwrap();
        output.write_line("not read");
        output.finish();
        assert!(output.error().is_none());
        // A second call does not wait again.
        assert_eq!(output.lock().given_up, Some(0));
        output.finish();
        drop(blocked);
    }

    #[test]
    fn a_closed_reader_is_reported_and_later_lines_are_dropped() {
        let (output, _lock, lines) = output();
        drop(lines);
        output.write_line("one");
        output.finish();
        assert_eq!(output.error().unwrap().kind(), io::ErrorKind::BrokenPipe);
        output.write_line("two");
        output.finish();
    }
}
