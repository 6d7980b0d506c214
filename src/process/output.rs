//! Standard output and standard error that never make anybody wait: a queue, and a thread that
//! writes.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock},
    thread,
    time::{Duration, Instant},
};

/// How many bytes wait for a reader that is slow: some 40 000 lines. What comes then is left out,
/// and the reader is told how much.
const ROOM: usize = 4 << 20;

/// How many figures wait: those of a minute. Older ones give way, as the newest say the same
/// better.
const FIGURES: usize = 60;

/// How much is written at a time.
const BATCH: usize = 64 << 10;

/// At the end, a reader that takes nothing for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest wait for a reader at the end, however it goes on.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long a pipe that its owner made non-blocking is left alone when it is full.
const BREATH: Duration = Duration::from_millis(20);

/// Makes the line that says how many lines were left out.
type SayLost = Box<dyn Fn(u64) -> String + Send>;

/// Lines on their way to a reader. Clones write into the same queue.
///
/// Nothing here waits for the reader but [`Output::finish`], and that is bounded. While the reader
/// keeps up, every line arrives, in order.
#[derive(Clone)]
pub struct Output(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What waits, and how writing goes.
struct Queue {
    entries: VecDeque<Entry>,
    /// The bytes of all lines in it.
    bytes: usize,
    /// How many of them are figures.
    figures: usize,
    say_lost: SayLost,
    /// Where to write; taken by the thread when it starts.
    sink: Option<Box<dyn io::Write + Send>>,
    /// A batch is being written.
    is_writing: bool,
    /// How many batches were written.
    written: u64,
    /// After how many batches a reader was given up at the end; who reads on is waited for again.
    given_up: Option<u64>,
    /// Why nothing can be written any more.
    broken: Option<Arc<io::Error>>,
}

#[derive(PartialEq, Eq, Debug)]
enum Entry {
    /// A line, with its end.
    Line { text: String, is_figures: bool },
    /// So many lines were left out here.
    Lost(u64),
}

impl Output {
    /// What is written to `sink`, on a thread that starts with the first line.
    fn new(sink: Box<dyn io::Write + Send>) -> Self {
        let say_lost: SayLost =
            Box::new(|lines| format!("quintet: nobody read here, so {lines} lines are missing"));
        let queue = Queue {
            entries: VecDeque::new(),
            bytes: 0,
            figures: 0,
            say_lost,
            sink: Some(sink),
            is_writing: false,
            written: 0,
            given_up: None,
            broken: None,
        };
        Self(Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() }))
    }

    /// Standard output.
    pub fn stdout() -> &'static Self {
        static STDOUT: OnceLock<Output> = OnceLock::new();
        #[cfg(unix)]
        return STDOUT.get_or_init(|| Self::new(unbuffered(io::stdout())));
        #[cfg(not(unix))]
        return STDOUT.get_or_init(|| Self::new(Box::new(io::stdout())));
    }

    /// Standard error; logs go there, too.
    pub fn stderr() -> &'static Self {
        static STDERR: OnceLock<Output> = OnceLock::new();
        #[cfg(unix)]
        return STDERR.get_or_init(|| Self::new(unbuffered(io::stderr())));
        #[cfg(not(unix))]
        return STDERR.get_or_init(|| Self::new(Box::new(io::stderr())));
    }

    /// Has lines that were left out told in these words, such as a JSON object.
    pub fn say_lost(&self, words: impl Fn(u64) -> String + Send + 'static) {
        self.lock().say_lost = Box::new(words);
    }

    /// Writes a line, without its end. Never waits.
    pub fn line(&self, text: &str) {
        self.push(Entry::Line { text: format!("{text}\n"), is_figures: false });
    }

    /// Writes a line of figures that later ones make needless: while nobody reads, the oldest of
    /// them are left out first.
    pub fn figures(&self, text: &str) {
        self.push(Entry::Line { text: format!("{text}\n"), is_figures: true });
    }

    /// Why nothing can be written any more: the reader went away, the disk is full.
    pub fn broken(&self) -> Option<Arc<io::Error>> {
        self.lock().broken.clone()
    }

    /// Waits until everything is written, as long as the reader goes on reading, and at most 10 s.
    pub fn finish(&self) {
        let start = Instant::now();
        let mut queue = self.lock();
        let (mut written, mut since) = (queue.written, start);
        while queue.is_waiting() && queue.given_up != Some(queue.written) {
            let now = Instant::now();
            if queue.written != written {
                (written, since) = (queue.written, now);
            }
            let end = (since + PATIENCE).min(start + LONGEST_WAIT);
            let Some(left) = end.checked_duration_since(now).filter(|left| !left.is_zero()) else {
                queue.given_up = Some(queue.written);
                return;
            };
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(|poison| poison.into_inner()).0;
        }
    }

    fn push(&self, entry: Entry) {
        let mut queue = self.lock();
        if queue.broken.is_some() {
            return;
        }
        queue.push(entry);
        if let Some(sink) = queue.sink.take() {
            let output = self.clone();
            let write = move || output.write_to(sink);
            if let Err(error) = thread::Builder::new().name("output".into()).spawn(write) {
                queue.broken = Some(Arc::new(error));
            }
        }
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Writes what comes, until nothing can be written any more.
    fn write_to(&self, mut sink: Box<dyn io::Write + Send>) {
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
            queue.written += 1;
            let is_over = written.is_err();
            if let Err(error) = written {
                queue.broken = Some(Arc::new(error));
                queue.entries.clear();
            }
            drop(queue);
            self.0.changed.notify_all();
            if is_over {
                return;
            }
        }
    }

    /// A poisoned lock guards a queue that is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl Queue {
    /// Takes an entry in, if there is room for it or room can be made.
    fn push(&mut self, entry: Entry) {
        let Entry::Line { text, is_figures } = &entry else { return };
        let is_figures = *is_figures;
        if is_figures && self.figures >= FIGURES {
            self.lose_oldest_figures();
        }
        while self.bytes + text.len() > ROOM && self.lose_oldest_figures() {}
        // A single line that is longer than all the room is still a line.
        if self.bytes + text.len() > ROOM && self.bytes > 0 {
            match self.entries.back_mut() {
                Some(Entry::Lost(lines)) => *lines += 1,
                Some(Entry::Line { .. }) | None => self.entries.push_back(Entry::Lost(1)),
            }
            return;
        }
        self.bytes += text.len();
        self.figures += usize::from(is_figures);
        self.entries.push_back(entry);
    }

    /// Leaves the oldest line of figures out; whether there was one.
    fn lose_oldest_figures(&mut self) -> bool {
        let is_figures =
            |entry: &Entry| matches!(entry, Entry::Line { is_figures, .. } if *is_figures);
        let Some(at) = self.entries.iter().position(is_figures) else { return false };
        let mut lost = 1;
        if let Some(Entry::Line { text, .. }) = self.entries.remove(at) {
            self.bytes -= text.len();
            self.figures -= 1;
        }
        // One line tells of all that are missing at one place.
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

    /// The next lines to be written at once.
    fn take_batch(&mut self) -> String {
        let mut batch = String::new();
        while batch.len() < BATCH {
            match self.entries.pop_front() {
                Some(Entry::Line { text, is_figures }) => {
                    self.bytes -= text.len();
                    self.figures -= usize::from(is_figures);
                    batch.push_str(&text);
                }
                Some(Entry::Lost(lines)) => {
                    batch.push_str(&(self.say_lost)(lines));
                    batch.push('\n');
                }
                None => break,
            }
        }
        batch
    }

    /// Whether something is still to be written, and can be.
    fn is_waiting(&self) -> bool {
        self.broken.is_none() && (self.is_writing || !self.entries.is_empty())
    }
}

/// For logs: what is written at once is written whole, and never waits.
impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.push(Entry::Line { text, is_figures: false });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("broken", &self.broken()).finish_non_exhaustive()
    }
}

/// A stream as it is, without the library's buffer and lock: nobody who writes to it elsewhere, as
/// a panic does, waits for a reader.
#[cfg(unix)]
fn unbuffered(stream: impl std::os::fd::AsFd) -> Box<dyn io::Write + Send> {
    match stream.as_fd().try_clone_to_owned() {
        Ok(descriptor) => Box::new(std::fs::File::from(descriptor)),
        Err(error) => Box::new(Broken(error.kind())),
    }
}

/// What cannot be written to.
#[cfg(unix)]
struct Broken(io::ErrorKind);

#[cfg(unix)]
impl io::Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

/// Writes all of it, also into a pipe that whoever made it wants never to block.
fn write_all(sink: &mut dyn io::Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BREATH),
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

    /// A reader that takes what is written only while the test holds the door open.
    struct Reader {
        door: Arc<Mutex<()>>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl io::Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.door.lock().unwrap();
            self.taken.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn output() -> (Output, Arc<Mutex<()>>, mpsc::Receiver<Vec<u8>>) {
        let (taken, lines) = mpsc::channel();
        let door = Arc::new(Mutex::new(()));
        let reader = Reader { door: Arc::clone(&door), taken };
        (Output::new(Box::new(reader)), door, lines)
    }

    fn text(lines: &mpsc::Receiver<Vec<u8>>) -> String {
        String::from_utf8(lines.try_iter().flatten().collect()).unwrap()
    }

    #[test]
    fn a_burst_that_is_read_arrives_whole_and_in_order() {
        let (output, _door, lines) = output();
        let wanted: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        for n in 0..20_000 {
            output.line(&n.to_string());
        }
        output.finish();
        assert!(text(&lines) == wanted, "20 000 lines in order");
    }

    #[test]
    fn a_reader_that_stopped_makes_nobody_wait_and_is_told_what_it_missed() {
        let (output, door, lines) = output();
        let shut = door.lock().unwrap();
        let long = "x".repeat(ROOM / 4);
        for n in 0..6 {
            output.line(&format!("{n} {long}"));
        }
        drop(shut);
        output.finish();
        output.line("later");
        output.finish();
        let text = text(&lines);
        let starts: Vec<_> =
            text.lines().map(|line| line.chars().take(60).collect::<String>()).collect();
        assert!(starts.first().unwrap().starts_with("0 x"), "{starts:?}");
        let missing = text.lines().find(|line| line.contains("missing")).expect("it is told");
        let lost: usize = missing.split(' ').find_map(|word| word.parse().ok()).expect("a number");
        let here = text.lines().filter(|line| line.ends_with('x')).count();
        assert_eq!((here + lost, text.lines().last()), (6, Some("later")));
    }

    #[test]
    fn old_figures_give_way_and_events_stay() {
        let (output, door, lines) = output();
        let shut = door.lock().unwrap();
        output.line("first");
        while !output.lock().is_writing {
            thread::yield_now();
        }
        for n in 0..FIGURES + 10 {
            output.figures(&format!("figures {n}"));
            output.line(&format!("event {n}"));
        }
        output.line("summary");
        drop(shut);
        output.finish();
        let text = text(&lines);
        let events = text.lines().filter(|line| line.starts_with("event")).count();
        let figures: Vec<_> = text.lines().filter(|line| line.starts_with("figures")).collect();
        let lost: usize = text
            .lines()
            .filter(|line| line.contains("missing"))
            .filter_map(|line| line.split(' ').find_map(|word| word.parse::<usize>().ok()))
            .sum();
        assert_eq!((events, figures.len() + lost), (FIGURES + 10, FIGURES + 10));
        assert_eq!(lost, 10);
        assert_eq!(figures.last(), Some(&format!("figures {}", FIGURES + 9).as_str()));
        assert_eq!(text.lines().last(), Some("summary"));
    }

    #[test]
    fn the_end_does_not_wait_for_a_reader_that_stopped() {
        let (output, door, _lines) = output();
        let shut = door.lock().unwrap();
        output.line("nobody reads this");
        output.finish();
        assert!(output.broken().is_none());
        // And it waits once, however often it is asked.
        assert_eq!(output.lock().given_up, Some(0));
        output.finish();
        drop(shut);
    }

    #[test]
    fn a_reader_that_went_away_is_noticed_and_later_lines_go_nowhere() {
        let (output, _door, lines) = output();
        drop(lines);
        output.line("one");
        output.finish();
        assert_eq!(output.broken().unwrap().kind(), io::ErrorKind::BrokenPipe);
        output.line("two");
        output.finish();
    }
}
