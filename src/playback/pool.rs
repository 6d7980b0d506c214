//! The threads that pictures are decoded on.

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

/// Where pictures are decoded: on at most as many threads as there are cores, whatever the number
/// of receivers. Who waited longest is next.
///
/// Threads are started when there is work for them, and sleep when there is none. Dropping the pool
/// ends them, and lets no further picture in.
#[derive(Debug)]
pub struct DecodePool {
    turns: Arc<Turns>,
}

impl DecodePool {
    /// A pool for this machine.
    pub fn new() -> Self {
        Self::of(thread::available_parallelism().map_or(1, usize::from))
    }

    /// A pool of so many threads.
    pub(super) fn of(most: usize) -> Self {
        let (jobs, arrived) = (Mutex::default(), Condvar::new());
        Self { turns: Arc::new(Turns { jobs, arrived, most }) }
    }

    /// The pool's turns, which outlive it without letting anybody in.
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
        let mut jobs = self.turns.jobs();
        jobs.is_closed = true;
        jobs.waiting.clear();
        self.turns.arrived.notify_all();
    }
}

/// Who is decoded next, and by how many.
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
    /// Threads that sleep until something arrives.
    idle: usize,
    is_closed: bool,
}

/// The decoder, and what it made of the picture.
pub(super) type Outcome = (Box<VideoDecoder>, Decoded);

struct Job {
    decoder: Box<VideoDecoder>,
    unit: AccessUnit,
    answer: oneshot::Sender<Outcome>,
}

impl Turns {
    /// Decodes one picture when it is its turn; gives the decoder back with what came of it. `None`
    /// once the pool is dropped.
    pub(super) async fn decode(
        self: Arc<Self>,
        decoder: Box<VideoDecoder>,
        unit: AccessUnit,
    ) -> Option<Outcome> {
        let (answer, decoded) = oneshot::channel();
        self.enqueue(Job { decoder, unit, answer });
        decoded.await.ok()
    }

    fn enqueue(self: Arc<Self>, job: Job) {
        let mut jobs = self.jobs();
        if jobs.is_closed {
            return;
        }
        jobs.waiting.push_back(job);
        if jobs.waiting.len() > jobs.idle && jobs.threads < self.most {
            let turns = Arc::clone(&self);
            match thread::Builder::new().name("decode".to_owned()).spawn(move || turns.work()) {
                Ok(_) => jobs.threads += 1,
                Err(error) if jobs.threads == 0 => {
                    if let Some(job) = jobs.waiting.pop_back() {
                        job.refuse(error);
                    }
                }
                // The others take it.
                Err(_) => {}
            }
        }
        self.arrived.notify_one();
    }

    /// A thread's life.
    fn work(&self) {
        let mut jobs = self.jobs();
        while !jobs.is_closed {
            match jobs.waiting.pop_front() {
                Some(job) => {
                    drop(jobs);
                    job.run();
                    jobs = self.jobs();
                }
                None => {
                    jobs.idle += 1;
                    jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                    jobs.idle -= 1;
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
        let Self { mut decoder, unit, answer } = self;
        // Whoever asked may be gone.
        if answer.is_closed() {
            return;
        }
        let decoded = panic::catch_unwind(AssertUnwindSafe(|| decoder.decode(&unit)));
        let outcome = match decoded {
            Ok(decoded) => (decoder, decoded),
            Err(_) => {
                tracing::error!("a video decoder failed and is replaced");
                (Box::default(), without_picture(&unit, DecodeError::Panicked))
            }
        };
        answer.send(outcome).ok();
    }

    fn refuse(self, error: io::Error) {
        let decoded = without_picture(&self.unit, DecodeError::NoThread(error));
        self.answer.send((self.decoder, decoded)).ok();
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
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
        let holds = Holds::default();
        AccessUnit { timestamp: 0, arrival: now(), data: vec![0, 0, 1], holds }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn however_many_pictures_come_there_are_no_more_threads_and_no_fewer_answers() {
        let pool = DecodePool::of(2);
        for _ in 0..20 {
            let all: Vec<_> = (0..50)
                .map(|_| tokio::spawn(pool.turns().decode(Box::default(), unit())))
                .collect();
            for one in all {
                assert!(one.await.unwrap().is_some());
            }
        }
        let jobs = pool.turns.jobs();
        assert!((1..=2).contains(&jobs.threads) && jobs.waiting.is_empty(), "{jobs:?}");
    }

    #[tokio::test]
    async fn a_dropped_pool_ends_its_threads_and_lets_nobody_in() {
        let pool = DecodePool::of(2);
        let turns = pool.turns();
        assert!(Arc::clone(&turns).decode(Box::default(), unit()).await.is_some());
        drop(pool);
        assert!(Arc::clone(&turns).decode(Box::default(), unit()).await.is_none());
        let patience = now() + Duration::from_secs(20);
        while Arc::strong_count(&turns) > 1 {
            assert!(now() < patience, "a thread holds the turns still");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
