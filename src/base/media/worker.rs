//! Named threads with an owner that stops them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::supervision::{Panicked, RESTART_DELAY, catch};

/// The stop signal of a worker.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether the worker must return as soon as it can.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Waits for that time or until it is set.
    fn wait(&self, time: Duration) {
        let mut left = time;
        while !self.is_set() && !left.is_zero() {
            let step = left.min(POLL_INTERVAL);
            thread::sleep(step);
            left -= step;
        }
    }
}

/// How often a thread that waits after a panic checks whether it must stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A named thread. Dropping it signals the thread to stop and joins it.
///
/// The work must check its [`Stop`] at least every 100 ms, and must not block for longer than
/// that. [`Worker::abandon`] is for work that may hang in a driver.
#[derive(Debug)]
pub struct Worker {
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Runs `work` on a new thread with this name. A panic in it is logged and ends the thread.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn spawn(name: &str, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Self> {
        let stop = Stop::default();
        let signal = stop.clone();
        let thread_name = name.to_owned();
        let run = move || drop(catch(&thread_name, || work(&signal)));
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Runs `work` on a new thread with this name. After a panic, `on_panic` is called on that
    /// thread, and `work` runs again [`RESTART_DELAY`] later.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn spawn_supervised(
        name: &'static str,
        mut work: impl FnMut(&Stop) + Send + 'static,
        mut on_panic: impl FnMut(&Panicked) + Send + 'static,
    ) -> io::Result<Self> {
        Self::spawn(name, move |stop| {
            while !stop.is_set()
                && let Err(panicked) = catch(name, || work(stop))
            {
                on_panic(&panicked);
                stop.wait(RESTART_DELAY);
            }
        })
    }

    /// Signals the thread to stop without joining it.
    pub fn abandon(mut self) {
        self.stop.set();
        drop(self.thread.take());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic was logged on the thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn dropping_a_worker_waits_for_its_end() {
        let (ended, end) = mpsc::channel();
        let worker = Worker::spawn("test", move |stop| {
            while !stop.is_set() {
                thread::yield_now();
            }
            ended.send(thread::current().name().map(str::to_owned)).unwrap();
        })
        .unwrap();
        assert_eq!(end.try_recv(), Err(mpsc::TryRecvError::Empty));
        drop(worker);
        assert_eq!(end.try_recv(), Ok(Some("test".to_owned())));
    }

    #[test]
    fn supervised_work_is_reported_and_runs_again_after_a_panic_until_it_returns() {
        let (report, reports) = mpsc::channel();
        let (ran, runs) = mpsc::channel();
        let mut number = 0;
        let work = move |_: &Stop| {
            number += 1;
            ran.send(number).unwrap();
            assert!(number > 1, "the first run panics");
        };
        let on_panic = move |panicked: &Panicked| report.send(panicked.to_string()).unwrap();
        let worker = Worker::spawn_supervised("audio mixer", work, on_panic).unwrap();
        assert_eq!(runs.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(reports.recv().unwrap(), "the audio mixer stopped unexpectedly");
        assert!(reports.recv().is_err(), "it has returned");
        drop(worker);
    }

    #[test]
    fn a_worker_that_waits_after_a_panic_stops_at_once() {
        let (report, reports) = mpsc::channel();
        let work = |_: &Stop| panic!("again and again");
        let on_panic = move |_: &Panicked| report.send(()).unwrap();
        let worker = Worker::spawn_supervised("test", work, on_panic).unwrap();
        reports.recv().unwrap();
        drop(worker);
        assert!(reports.recv().is_err(), "it panicked once");
    }
}
