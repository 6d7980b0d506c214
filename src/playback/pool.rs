//! The threads that decode video.

use std::{
    collections::VecDeque,
    io, panic,
    panic::AssertUnwindSafe,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use tokio::sync::oneshot;

use super::{
    decode::{DecodeError, Decoded, VideoDecoder},
    h264::AccessUnit,
};

/// Decodes video on at most as many threads as there are cores, regardless of the number of
/// receivers. First in, first out.
///
/// Threads are started when there is work, and sleep when there is none. Dropping the pool ends the
/// threads and rejects further work.
#[derive(Debug)]
pub struct DecodePool {
    turns: Arc<Turns>,
}

impl DecodePool {
    /// Creates a pool with one thread per core at most.
    pub fn new() -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from))
    }

    /// Creates a pool with this many threads at most.
    pub(super) fn of(max_threads: usize) -> Self {
        let (state, job_added) = (Mutex::default(), Condvar::new());
        let queue = Turns { jobs: state, arrived: job_added, most: max_threads };
        Self { turns: Arc::new(queue) }
    }

    /// The queue of the pool. It may outlive the pool, and is then closed.
    pub(super) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }
}

impl Default for DecodePool {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for DecodePool {
    fn drop(&mut self) {
        let mut state = self.turns.jobs();
        state.is_closed = true;
        state.waiting.clear();
        self.turns.arrived.notify_all();
    }
}

/// The queue of access units that wait for a decoder thread.
#[derive(Debug)]
pub(super) struct Turns {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    most: usize,
}

#[derive(Default, Debug)]
struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    is_closed: bool,
}

/// The decoder and the result.
pub(super) type Outcome = (Box<VideoDecoder>, Decoded);

struct Job {
    decoder: Box<VideoDecoder>,
    unit: AccessUnit,
    answer: oneshot::Sender<Outcome>,
}

impl Turns {
    /// Queues one access unit for decoding. Returns the decoder and the result; `None` if the pool
    /// is dropped.
    pub(super) async fn decode(
        self: Arc<Self>,
        decoder: Box<VideoDecoder>,
        unit: AccessUnit,
    ) -> Option<Outcome> {
        let (reply, result) = oneshot::channel();
        self.enqueue(Job { decoder, unit, answer: reply });
        result.await.ok()
    }

    fn enqueue(self: Arc<Self>, job: Job) {
        let mut state = self.jobs();
        if state.is_closed {
            return;
        }
        state.waiting.push_back(job);
        if state.waiting.len() > state.idle && state.threads < self.most {
            let queue = Arc::clone(&self);
            match thread::Builder::new().name("decode".to_owned()).spawn(move || queue.work()) {
                Ok(_) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    if let Some(job) = state.waiting.pop_back() {
                        job.refuse(error);
                    }
                }
                // The other threads take the job.
                Err(_) => {}
            }
        }
        self.arrived.notify_one();
    }

    /// Runs jobs until the queue is closed.
    fn work(&self) {
        let mut state = self.jobs();
        while !state.is_closed {
            match state.waiting.pop_front() {
                Some(job) => {
                    drop(state);
                    job.run();
                    state = self.jobs();
                }
                None => {
                    state.idle += 1;
                    state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.idle -= 1;
                }
            }
        }
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn run(self) {
        let Self { mut decoder, unit, answer: reply } = self;
        // The receiver may be dropped already.
        if reply.is_closed() {
            return;
        }
        let decoded = panic::catch_unwind(AssertUnwindSafe(|| decoder.decode(&unit)));
        let outcome = match decoded {
            Ok(decoded) => (decoder, decoded),
            Err(_) => {
                tracing::error!("video decoder panicked and is replaced");
                (Box::default(), without_picture(&unit, DecodeError::Panicked))
            }
        };
        reply.send(outcome).ok();
    }

    fn refuse(self, error: io::Error) {
        let decoded = without_picture(&self.unit, DecodeError::NoThread(error));
        self.answer.send((self.decoder, decoded)).ok();
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DecodeJob")
    }
}

fn without_picture(unit: &AccessUnit, error: DecodeError) -> Decoded {
    let (timestamp, arrival) = (unit.timestamp, unit.arrival);
    Decoded { frame: Err(error), timestamp, arrival, strip: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{media::now, playback::h264::Holds};

    fn unit() -> AccessUnit {
        let nal_types = Holds::default();
        AccessUnit { timestamp: 0, arrival: now(), data: vec![0, 0, 1], holds: nal_types }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_jobs_are_all_answered_by_the_maximum_number_of_threads() {
        let pool = DecodePool::of(2);
        for _ in 0..20 {
            let all: Vec<_> = (0..50)
                .map(|_| tokio::spawn(pool.turns().decode(Box::default(), unit())))
                .collect();
            for job in all {
                assert!(job.await.unwrap().is_some());
            }
        }
        let state = pool.turns.jobs();
        assert!((1..=2).contains(&state.threads) && state.waiting.is_empty(), "{state:?}");
    }

    #[tokio::test]
    async fn a_dropped_pool_ends_its_threads_and_rejects_further_work() {
        let pool = DecodePool::of(2);
        let queue = pool.turns();
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
