//! The threads that decode video.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::oneshot;

use super::video_decoder::{DecodeError, DecodeOutcome, VideoDecoder};
use crate::{media::AccessUnit, supervision::catch};

/// Decodes video on at most as many threads as there are cores, regardless of the number of
/// receivers. First in, first out.
///
/// Threads are started when there is work, and sleep when there is none. Dropping the pool ends the
/// threads and rejects further work.
#[derive(Debug)]
pub struct DecodePool {
    queue: Arc<DecodeQueue>,
}

impl DecodePool {
    /// Creates a pool with one thread per core at most.
    pub fn new() -> Self {
        Self::with_threads(thread::available_parallelism().map_or(1, usize::from))
    }

    /// Creates a pool without threads: each player decodes on its own task. In virtual time a task
    /// must not wait for a thread, because the clock does not.
    pub fn without_threads() -> Self {
        Self::with_threads(0)
    }

    /// Creates a pool with this many threads at most.
    pub(super) fn with_threads(max_threads: usize) -> Self {
        let (state, job_added) = (Mutex::default(), Condvar::new());
        let queue = DecodeQueue { state, job_added, max_threads };
        Self { queue: Arc::new(queue) }
    }

    /// The number of threads that were started.
    #[cfg(test)]
    pub(super) fn thread_count(&self) -> usize {
        self.queue.lock_state().threads
    }

    /// The queue of the pool. It may outlive the pool, and is then closed.
    pub(super) fn queue(&self) -> Arc<DecodeQueue> {
        Arc::clone(&self.queue)
    }
}

impl Default for DecodePool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DecodePool {
    fn drop(&mut self) {
        let mut state = self.queue.lock_state();
        state.is_closed = true;
        state.waiting.clear();
        self.queue.job_added.notify_all();
    }
}

/// The queue of access units that wait for a decoder thread.
#[derive(Debug)]
pub(super) struct DecodeQueue {
    state: Mutex<QueueState>,
    job_added: Condvar,
    max_threads: usize,
}

#[derive(Default, Debug)]
struct QueueState {
    waiting: VecDeque<DecodeJob>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    is_closed: bool,
}

/// The decoder and the result.
pub(super) type DecodeReply = (Box<VideoDecoder>, DecodeOutcome);

struct DecodeJob {
    decoder: Box<VideoDecoder>,
    unit: Arc<AccessUnit>,
    reply: oneshot::Sender<DecodeReply>,
}

impl DecodeQueue {
    /// Queues one access unit for decoding. Returns the decoder and the result; `None` if the pool
    /// is dropped.
    pub(super) async fn decode(
        self: Arc<Self>,
        decoder: Box<VideoDecoder>,
        unit: Arc<AccessUnit>,
    ) -> Option<DecodeReply> {
        let (reply, result) = oneshot::channel();
        self.enqueue(DecodeJob { decoder, unit, reply });
        result.await.ok()
    }

    fn enqueue(self: Arc<Self>, job: DecodeJob) {
        let mut state = self.lock_state();
        if state.is_closed {
            return;
        }
        if self.max_threads == 0 {
            drop(state);
            return job.run();
        }
        state.waiting.push_back(job);
        if state.waiting.len() > state.idle && state.threads < self.max_threads {
            let queue = Arc::clone(&self);
            match thread::Builder::new().name("decode".to_owned()).spawn(move || queue.run_thread())
            {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    if let Some(job) = state.waiting.pop_back() {
                        job.fail(error);
                    }
                }
                // The other threads take the job.
                Err(_) => {}
            }
        }
        self.job_added.notify_one();
    }

    /// Runs jobs until the queue is closed.
    fn run_thread(&self) {
        let mut state = self.lock_state();
        while !state.is_closed {
            match state.waiting.pop_front() {
                Some(job) => {
                    drop(state);
                    job.run();
                    state = self.lock_state();
                }
                None => {
                    state.idle += 1;
                    state = self.job_added.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DecodeJob {
    fn run(self) {
        let Self { mut decoder, unit, reply } = self;
        // The receiver may be dropped already.
        if reply.is_closed() {
            return;
        }
        let decoded = catch("video decoder", || decoder.decode(&unit));
        let outcome = match decoded {
            Ok(decoded) => (decoder, decoded),
            Err(_) => (Box::default(), failed_outcome(&unit, DecodeError::Panicked)),
        };
        reply.send(outcome).ok();
    }

    fn fail(self, error: io::Error) {
        let decoded = failed_outcome(&self.unit, DecodeError::NoThread(error));
        self.reply.send((self.decoder, decoded)).ok();
    }
}

impl std::fmt::Debug for DecodeJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecodeJob")
    }
}

fn failed_outcome(unit: &AccessUnit, error: DecodeError) -> DecodeOutcome {
    let AccessUnit { timestamp, arrival, is_keyframe, .. } = *unit;
    DecodeOutcome { frame: Err(error), timestamp, arrival, is_keyframe, timecode: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::media::now;

    fn unit() -> Arc<AccessUnit> {
        Arc::new(AccessUnit {
            timestamp: 0,
            arrival: now(),
            is_keyframe: false,
            has_picture: false,
            follows_loss: false,
            data: vec![0, 0, 1].into(),
        })
    }

    #[tokio::test]
    async fn a_pool_without_threads_has_decoded_before_anything_is_awaited() {
        let pool = DecodePool::without_threads();
        let reply = pool.queue().decode(Box::default(), unit()).now_or_never();
        assert!(reply.is_some_and(|reply| reply.is_some()));
        assert_eq!(pool.thread_count(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_jobs_are_all_answered_by_the_maximum_number_of_threads() {
        let pool = DecodePool::with_threads(2);
        for _ in 0..20 {
            let all: Vec<_> = (0..50)
                .map(|_| tokio::spawn(pool.queue().decode(Box::default(), unit())))
                .collect();
            for job in all {
                assert!(job.await.unwrap().is_some());
            }
        }
        let state = pool.queue.lock_state();
        assert!((1..=2).contains(&state.threads) && state.waiting.is_empty(), "{state:?}");
    }

    #[tokio::test]
    async fn a_dropped_pool_ends_its_threads_and_rejects_further_work() {
        let pool = DecodePool::with_threads(2);
        let queue = pool.queue();
        assert!(Arc::clone(&queue).decode(Box::default(), unit()).await.is_some());
        drop(pool);
        assert!(Arc::clone(&queue).decode(Box::default(), unit()).await.is_none());
        let deadline = now() + Duration::from_secs(20);
        while Arc::strong_count(&queue) > 1 {
            assert!(now() < deadline, "a thread still holds the queue");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
