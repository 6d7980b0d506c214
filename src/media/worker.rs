//! Threads that have a name and an owner.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// Tells a worker to come to an end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether the worker is to return as soon as it can.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A named thread. Dropping it tells the thread to stop and waits until it has.
///
/// The work must look at its [`Stop`] at least every 100 ms, and wait for nothing longer than
/// that; [`Worker::abandon`] is for drivers that cannot promise it.
#[derive(Debug)]
pub struct Worker {
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Runs `work` on a thread called `name`.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn spawn(name: &str, work: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Self> {
        let stop = Stop::default();
        let seen = stop.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&seen))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Tells the thread to stop, and does not wait for it.
    pub fn abandon(mut self) {
        self.stop.set();
        drop(self.thread.take());
    }

    /// Whether the work has returned by itself.
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
            tracing::error!(?panic, "a worker panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_dropped_worker_has_ended() {
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
