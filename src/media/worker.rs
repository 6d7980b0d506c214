//! Named threads with an owner that stops them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

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
}

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
    /// Runs `work` on a new thread with this name.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn spawn(name: &str, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Self> {
        let stop = Stop::default();
        let signal = stop.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&signal))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Signals the thread to stop without joining it.
    pub fn abandon(mut self) {
        self.stop.set();
        drop(self.thread.take());
    }

    /// Whether the work has returned.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(thread::JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
            && let Err(panic) = thread.join()
        {
            tracing::error!(?panic, "worker panicked");
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
        assert!(!worker.is_finished());
        drop(worker);
        assert_eq!(end.try_recv(), Ok(Some("test".to_owned())));
    }
}
