//! One encoder, many subscribers: a slow subscriber loses frames and never delays a fast one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// The most frames that a subscriber may lag. Beyond it, its queue is cleared up to the next
/// keyframe.
///
/// Eight frames are 267 ms at 30 fps: longer than a Wi-Fi hiccup, too short to annoy a viewer.
pub const MAX_LAG: usize = 8;

/// An encoded frame or packet that may be a keyframe.
pub trait Keyframe {
    /// Whether a decoder can start at this frame without any earlier one.
    fn is_keyframe(&self) -> bool;
}

/// Delivers each published frame to every subscriber. Clones publish to the same subscribers.
#[derive(Debug)]
pub struct Fanout<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    /// The newest subscriber first: it shows no video yet, so it is served before the others.
    queues: Mutex<VecDeque<Weak<Queue<T>>>>,
    keyframe_requested: AtomicBool,
}

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State<T> {
    frames: VecDeque<Arc<T>>,
    capacity: usize,
    /// Frames are dropped until the next keyframe.
    awaiting_keyframe: bool,
}

impl<T> Clone for Fanout<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        let keyframe_requested = AtomicBool::new(false);
        let queues = Mutex::default();
        Self { shared: Arc::new(Shared { queues, keyframe_requested }) }
    }
}

impl<T: Keyframe> Fanout<T> {
    /// Adds a subscriber whose queue holds `capacity` frames. It starts at the next keyframe, and
    /// requests one.
    pub fn subscribe(&self, capacity: usize) -> Subscription<T> {
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                frames: VecDeque::with_capacity(capacity),
                capacity,
                awaiting_keyframe: true,
            }),
            arrived: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        lock(&self.shared.queues).push_front(Arc::downgrade(&queue));
        self.request_keyframe();
        Subscription { queue, shared: Arc::clone(&self.shared) }
    }

    /// Queues the frame for every subscriber; never waits. A subscriber whose queue is full loses
    /// its queued frames, requests a keyframe and continues with it.
    pub fn publish(&self, frame: T) {
        let frame = Arc::new(frame);
        lock(&self.shared.queues).retain(|queue| {
            let Some(queue) = queue.upgrade() else { return false };
            if queue.push(Arc::clone(&frame)) {
                self.request_keyframe();
            }
            true
        });
    }

    /// Requests a keyframe from the encoder.
    pub fn request_keyframe(&self) {
        self.shared.keyframe_requested.store(true, Ordering::Release);
    }

    /// Whether a keyframe was requested since the last call. Clears the request.
    pub fn take_keyframe_request(&self) -> bool {
        self.shared.keyframe_requested.swap(false, Ordering::AcqRel)
    }

    /// The number of subscribers.
    pub fn subscribers(&self) -> usize {
        let mut queues = lock(&self.shared.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.len()
    }
}

impl<T: Keyframe> Queue<T> {
    /// Appends the frame. Returns true if the queue was cleared and needs a keyframe.
    fn push(&self, frame: Arc<T>) -> bool {
        let mut state = lock(&self.state);
        let is_full = state.frames.len() >= state.capacity;
        if is_full {
            self.dropped.fetch_add(state.frames.len() as u64, Ordering::Relaxed);
            state.frames.clear();
            state.awaiting_keyframe = true;
        }
        if state.awaiting_keyframe && !frame.is_keyframe() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return is_full;
        }
        state.awaiting_keyframe = false;
        state.frames.push_back(frame);
        drop(state);
        self.arrived.notify_one();
        false
    }
}

/// The receiving side of one subscriber. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription<T> {
    queue: Arc<Queue<T>>,
    shared: Arc<Shared<T>>,
}

impl<T: Keyframe> Subscription<T> {
    /// Waits for the next frame. Cancel safe: a frame is taken only when it is returned.
    pub async fn recv(&mut self) -> Arc<T> {
        loop {
            if let Some(frame) = self.try_recv() {
                return frame;
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next frame, if one is queued.
    pub fn try_recv(&mut self) -> Option<Arc<T>> {
        lock(&self.queue.state).frames.pop_front()
    }

    /// Requests a keyframe from the encoder.
    pub fn request_keyframe(&self) {
        self.shared.keyframe_requested.store(true, Ordering::Release);
    }

    /// Frames that this subscriber missed because it lagged or waited for a keyframe.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

/// Locks a mutex, poisoned or not: the queues behind it are valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    struct Frame(u32);

    impl Keyframe for Frame {
        fn is_keyframe(&self) -> bool {
            self.0.is_multiple_of(10)
        }
    }

    fn drain(subscription: &mut Subscription<Frame>) -> Vec<u32> {
        std::iter::from_fn(|| subscription.try_recv()).map(|frame| frame.0).collect()
    }

    #[test]
    fn a_subscriber_starts_at_a_keyframe_and_requests_one() {
        let fanout = Fanout::default();
        let mut subscription = fanout.subscribe(4);
        assert!(fanout.take_keyframe_request() && !fanout.take_keyframe_request());
        (8..12).for_each(|n| fanout.publish(Frame(n)));
        assert_eq!(drain(&mut subscription), [10, 11]);
        assert_eq!(subscription.dropped(), 2);
    }

    #[test]
    fn a_slow_subscriber_restarts_at_a_keyframe_and_never_slows_a_fast_one() {
        let fanout = Fanout::default();
        let (mut slow, mut fast) = (fanout.subscribe(4), fanout.subscribe(4));
        let mut seen = vec![];
        fanout.take_keyframe_request();
        for n in 10..17 {
            fanout.publish(Frame(n));
            seen.extend(drain(&mut fast));
        }
        assert_eq!(seen, (10..17).collect::<Vec<_>>());
        assert!(fanout.take_keyframe_request(), "the slow subscriber requests a keyframe");
        (17..22).for_each(|n| fanout.publish(Frame(n)));
        assert_eq!(drain(&mut slow), [20, 21]);
        assert_eq!(slow.dropped(), 10);
    }

    #[test]
    fn a_full_queue_that_a_keyframe_clears_keeps_that_keyframe() {
        let fanout = Fanout::default();
        let mut slow = fanout.subscribe(2);
        [10, 11, 20].into_iter().for_each(|n| fanout.publish(Frame(n)));
        assert_eq!(drain(&mut slow), [20]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_newest_subscriber_is_served_first() {
        let (fanout, (served, mut order)) = (Fanout::default(), mpsc::channel(3));
        for name in ["first", "second", "third"] {
            let (mut subscription, served) = (fanout.subscribe(1), served.clone());
            tokio::spawn(async move {
                subscription.recv().await;
                let _ = served.send(name).await;
            });
        }
        tokio::task::yield_now().await;
        fanout.publish(Frame(0));
        let mut names = vec![];
        order.recv_many(&mut names, 3).await;
        assert_eq!(names, ["third", "second", "first"]);
    }

    #[test]
    fn a_dropped_subscription_is_not_counted() {
        let fanout = Fanout::<Frame>::default();
        let subscription = fanout.subscribe(1);
        assert_eq!(fanout.subscribers(), 1);
        drop(subscription);
        assert_eq!(fanout.subscribers(), 0);
    }
}
