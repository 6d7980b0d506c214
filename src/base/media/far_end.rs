//! The far end of echo cancellation: what the speaker plays, on its way to the microphone's thread.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::BLOCK_SAMPLES;

/// Carries every block that the speaker plays to one reader. Clones share the channel.
///
/// Without a reader, writing costs one atomic load.
#[derive(Clone, Debug, Default)]
pub struct FarEnd(Arc<Shared>);

/// The reading end of a [`FarEnd`], see [`FarEnd::subscribe`].
#[derive(Debug)]
pub struct FarEndReader(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    readers: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    blocks: VecDeque<[f32; BLOCK_SAMPLES]>,
    /// From the mixer to the speaker, of the newest block.
    playout_delay: Duration,
}

/// Blocks that may wait: one second. A microphone that stands still for longer than that begins
/// again to learn how late the echo is; then the oldest blocks are of no use.
const MAX_BLOCKS: usize = 100;

impl FarEnd {
    /// Takes a block that is played `playout_delay` from now, if there is a reader.
    pub fn push(&self, block: &[f32; BLOCK_SAMPLES], playout_delay: Duration) {
        if self.0.readers.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut queue = lock(&self.0.queue);
        if queue.blocks.len() == MAX_BLOCKS {
            queue.blocks.pop_front();
        }
        queue.blocks.push_back(*block);
        queue.playout_delay = playout_delay;
    }

    /// Returns a reader, which gets all blocks from now on until it is dropped. Two readers would
    /// share the blocks.
    pub fn subscribe(&self) -> FarEndReader {
        *lock(&self.0.queue) = Queue::default();
        self.0.readers.fetch_add(1, Ordering::Relaxed);
        FarEndReader(Arc::clone(&self.0))
    }
}

impl FarEndReader {
    /// Passes the blocks since the last call to `each`, oldest first. Returns how long after
    /// [`FarEnd::push`] the newest one is played.
    pub fn drain(&self, mut each: impl FnMut(&[f32; BLOCK_SAMPLES])) -> Duration {
        // The lock is not held while the blocks are used.
        let (blocks, delay) = {
            let mut queue = lock(&self.0.queue);
            (std::mem::take(&mut queue.blocks), queue.playout_delay)
        };
        blocks.iter().for_each(&mut each);
        delay
    }
}

impl Drop for FarEndReader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(reader: &FarEndReader) -> (Vec<f32>, Duration) {
        let mut firsts = vec![];
        let delay = reader.drain(|block| firsts.push(block[0]));
        (firsts, delay)
    }

    #[test]
    fn a_reader_gets_every_block_since_it_subscribed_in_order_and_nothing_is_kept_without_one() {
        let far_end = FarEnd::default();
        let push = |value: u16| {
            let delay = Duration::from_millis(u64::from(value));
            far_end.push(&[f32::from(value); BLOCK_SAMPLES], delay);
        };
        push(1);
        let reader = far_end.subscribe();
        (2..5).for_each(push);
        assert_eq!(read(&reader), (vec![2.0, 3.0, 4.0], Duration::from_millis(4)));
        assert!(read(&reader).0.is_empty());
        (0..150).for_each(push);
        let (blocks, _) = read(&reader);
        assert_eq!((blocks.len(), blocks[0], blocks[99]), (100, 50.0, 149.0));
        drop(reader);
        push(7);
        assert!(lock(&far_end.0.queue).blocks.is_empty());
    }
}
