//! One producer, many subscribers: a slow subscriber loses frames and never delays a fast one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use super::LayerSwitch;
use crate::model::AudioLayer;

/// The most frames that a subscriber may lag. Beyond it, its queue is cleared up to a keyframe.
///
/// Eight frames are 267 ms at 30 fps: longer than a Wi-Fi hiccup, too short to annoy a viewer.
pub const MAX_LAG: usize = 8;

/// An encoded frame or packet that may be a keyframe.
pub trait Keyframe {
    /// Whether a decoder can start at this frame without any earlier one.
    fn is_keyframe(&self) -> bool;

    /// Whether no other frame needs this one: a frame of a higher temporal layer.
    fn is_discardable(&self) -> bool {
        false
    }

    /// The layer of audio that it belongs to. Subscribers get one layer, see [`LayerSwitch`].
    fn audio_layer(&self) -> AudioLayer {
        AudioLayer::default()
    }
}

/// Delivers each published frame to every subscriber. Clones publish to the same subscribers.
///
/// The producer is an encoder, or the receiver of a remote track. In both cases it is the producer
/// that obtains the keyframes that subscribers request.
#[derive(Debug)]
pub struct Fanout<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    /// The newest subscriber first: it shows no video yet, so it is served before the others.
    queues: Mutex<VecDeque<Weak<Queue<T>>>>,
    keyframe_requested: AtomicBool,
    request_added: Notify,
    is_closed: AtomicBool,
}

#[derive(Debug)]
struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
    dropped: AtomicU64,
    /// The losses on the way from the subscriber to its peer, in percent.
    loss: AtomicU8,
    filter: TemporalFilter,
    layer: LayerSwitch,
}

/// Chooses whether a subscriber gets frames that no other frame needs.
#[derive(Clone, Debug, Default)]
pub struct TemporalFilter {
    is_base_only: Arc<AtomicBool>,
}

impl TemporalFilter {
    /// Whether only the base layer is handed over from the next frame on. What is left out leaves no
    /// gap: the rest decodes without it.
    pub fn set_base_only(&self, is_base_only: bool) {
        self.is_base_only.store(is_base_only, Ordering::Relaxed);
    }

    fn drops(&self, frame: &impl Keyframe) -> bool {
        frame.is_discardable() && self.is_base_only.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct State<T> {
    frames: VecDeque<Arc<T>>,
    capacity: usize,
    /// Frames are dropped until the next keyframe.
    awaiting_keyframe: bool,
    /// No further frame comes.
    is_closed: bool,
}

impl<T> Clone for Fanout<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Default for Fanout<T> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                queues: Mutex::default(),
                keyframe_requested: AtomicBool::new(false),
                request_added: Notify::new(),
                is_closed: AtomicBool::new(false),
            }),
        }
    }
}

impl<T: Keyframe> Fanout<T> {
    /// Adds a subscriber whose queue holds `capacity` frames. It starts at the next keyframe, and
    /// requests one.
    pub fn subscribe(&self, capacity: usize) -> Subscription<T> {
        self.subscribe_layer(capacity, AudioLayer::default())
    }

    /// Adds a subscriber as [`Self::subscribe`] does, which begins with this layer of audio.
    pub fn subscribe_layer(&self, capacity: usize, layer: AudioLayer) -> Subscription<T> {
        let mut queues = lock(&self.shared.queues);
        let queue = Arc::new(Queue {
            state: Mutex::new(State {
                frames: VecDeque::with_capacity(capacity),
                capacity,
                awaiting_keyframe: true,
                is_closed: self.shared.is_closed.load(Ordering::Acquire),
            }),
            arrived: Notify::new(),
            dropped: AtomicU64::new(0),
            loss: AtomicU8::new(0),
            filter: TemporalFilter::default(),
            layer: LayerSwitch::new(layer),
        });
        queues.push_front(Arc::downgrade(&queue));
        drop(queues);
        self.request_keyframe();
        Subscription { queue, shared: Arc::clone(&self.shared), is_successor: false }
    }

    /// Queues the frame for every subscriber; never waits. A subscriber whose queue is full loses
    /// its queued frames before the newest keyframe. If it has none, it loses them all, requests a
    /// keyframe and continues with it.
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

    /// Ends every subscription after its queued frames, also those that begin later.
    pub fn close(&self) {
        let queues = lock(&self.shared.queues);
        self.shared.is_closed.store(true, Ordering::Release);
        for queue in queues.iter().filter_map(Weak::upgrade) {
            lock(&queue.state).is_closed = true;
            queue.arrived.notify_one();
        }
    }

    /// Requests a keyframe from the producer.
    pub fn request_keyframe(&self) {
        self.shared.request_keyframe();
    }

    /// Whether a keyframe was requested since the last call. Clears the request.
    pub fn take_keyframe_request(&self) -> bool {
        self.shared.keyframe_requested.swap(false, Ordering::AcqRel)
    }

    /// Waits until a keyframe is requested, and clears the request. Cancel safe. For one waiter.
    pub async fn keyframe_requested(&self) {
        while !self.take_keyframe_request() {
            self.shared.request_added.notified().await;
        }
    }

    /// Whether any subscriber drops frames until the next keyframe.
    pub fn is_keyframe_awaited(&self) -> bool {
        let queues = lock(&self.shared.queues);
        queues.iter().filter_map(Weak::upgrade).any(|queue| lock(&queue.state).awaiting_keyframe)
    }

    /// The losses that the subscribers of a layer report, in percent; see
    /// [`Subscription::report_loss`].
    pub fn losses(&self, layer: AudioLayer) -> Vec<u8> {
        let queues = lock(&self.shared.queues);
        queues
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|one| one.layer.taken() == layer)
            .map(|one| one.loss.load(Ordering::Relaxed))
            .collect()
    }

    /// What chooses the layer of each subscriber.
    pub fn layer_switches(&self) -> Vec<LayerSwitch> {
        let queues = lock(&self.shared.queues);
        queues.iter().filter_map(Weak::upgrade).map(|one| one.layer.clone()).collect()
    }

    /// The number of subscribers.
    pub fn subscribers(&self) -> usize {
        let mut queues = lock(&self.shared.queues);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.len()
    }
}

impl<T> Shared<T> {
    fn request_keyframe(&self) {
        self.keyframe_requested.store(true, Ordering::Release);
        self.request_added.notify_one();
    }
}

impl<T: Keyframe> Queue<T> {
    /// Appends the frame. Returns true if the queue was cleared and needs a keyframe.
    fn push(&self, frame: Arc<T>) -> bool {
        if self.filter.drops(&*frame) || frame.audio_layer() != self.layer.taken() {
            return false;
        }
        let mut state = lock(&self.state);
        let was_awaiting = state.awaiting_keyframe;
        if state.frames.len() >= state.capacity {
            let dropped = state.drop_to_keyframe(&frame);
            self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        }
        if state.awaiting_keyframe && !frame.is_keyframe() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return !was_awaiting;
        }
        state.awaiting_keyframe = false;
        state.frames.push_back(frame);
        drop(state);
        self.arrived.notify_one();
        false
    }
}

impl<T: Keyframe> State<T> {
    /// Drops the queued frames before the newest keyframe; all of them if there is none behind the
    /// first frame, or if `next` is one. Returns how many were dropped.
    fn drop_to_keyframe(&mut self, next: &T) -> usize {
        let newest = self.frames.iter().rposition(|frame| frame.is_keyframe());
        let kept = newest.filter(|index| *index > 0 && !next.is_keyframe());
        self.awaiting_keyframe = kept.is_none();
        self.frames.drain(..kept.unwrap_or(self.frames.len())).count()
    }
}

/// The receiving side of one subscriber. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription<T> {
    queue: Arc<Queue<T>>,
    shared: Arc<Shared<T>>,
    is_successor: bool,
}

impl<T: Keyframe> Subscription<T> {
    /// Waits for the next frame; `None` after the last one of a closed fan-out. Cancel safe: a
    /// frame is taken only when it is returned.
    pub async fn recv(&mut self) -> Option<Arc<T>> {
        loop {
            let (frame, is_closed) = {
                let mut state = lock(&self.queue.state);
                (state.frames.pop_front(), state.is_closed)
            };
            if frame.is_some() || is_closed {
                return frame;
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next frame, if one is queued.
    pub fn try_recv(&mut self) -> Option<Arc<T>> {
        lock(&self.queue.state).frames.pop_front()
    }

    /// Whether no frame is queued.
    pub fn is_empty(&self) -> bool {
        lock(&self.queue.state).frames.is_empty()
    }

    /// Requests a keyframe from the producer.
    pub fn request_keyframe(&self) {
        self.shared.request_keyframe();
    }

    /// Tells the producer how many of the frames are lost on the way to where this subscriber sends
    /// them, in percent.
    pub fn report_loss(&self, percent: u8) {
        self.queue.loss.store(percent, Ordering::Relaxed);
    }

    /// What chooses whether it gets the frames of a higher temporal layer; at first it does.
    pub fn temporal_filter(&self) -> TemporalFilter {
        self.queue.filter.clone()
    }

    /// What chooses which layer of audio it gets; at first [`AudioLayer::Standard`].
    pub fn layer_switch(&self) -> LayerSwitch {
        self.queue.layer.clone()
    }

    /// Continues at the newest keyframe in the queue. If there is none, requests a keyframe and
    /// continues with it. For a subscriber that cannot use what it received.
    pub fn restart(&mut self) {
        let mut state = lock(&self.queue.state);
        let newest = state.frames.iter().rposition(|frame| frame.is_keyframe());
        let count = newest.unwrap_or(state.frames.len());
        state.frames.drain(..count);
        state.awaiting_keyframe = newest.is_none();
        drop(state);
        self.queue.dropped.fetch_add(count as u64, Ordering::Relaxed);
        if newest.is_none() {
            self.request_keyframe();
        }
    }

    /// Marks it as the successor of the subscription that its consumer has: that one goes on until
    /// the first frame of this one, a keyframe, so that nothing is missing between them.
    #[must_use]
    pub fn as_successor(self) -> Self {
        Self { is_successor: true, ..self }
    }

    /// Whether it is to continue an earlier subscription, see [`Self::as_successor`].
    pub fn is_successor(&self) -> bool {
        self.is_successor
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
    use std::time::Duration;

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

    #[test]
    fn a_full_queue_with_a_keyframe_in_it_continues_there_and_requests_none() {
        let fanout = Fanout::default();
        let mut slow = fanout.subscribe(4);
        fanout.publish(Frame(10));
        assert_eq!(drain(&mut slow), [10]);
        fanout.take_keyframe_request();
        (18..23).for_each(|n| fanout.publish(Frame(n)));
        assert!(!fanout.take_keyframe_request() && !fanout.is_keyframe_awaited());
        assert_eq!(drain(&mut slow), [20, 21, 22]);
        assert_eq!(slow.dropped(), 2);
    }

    #[test]
    fn a_subscriber_that_restarts_requests_a_keyframe_and_others_go_on() {
        let fanout = Fanout::default();
        let (mut restarted, mut other) = (fanout.subscribe(9), fanout.subscribe(9));
        fanout.publish(Frame(10));
        assert_eq!(drain(&mut restarted), [10]);
        fanout.publish(Frame(11));
        fanout.take_keyframe_request();
        assert!(!fanout.is_keyframe_awaited());
        restarted.restart();
        assert!(fanout.take_keyframe_request() && fanout.is_keyframe_awaited());
        (18..22).for_each(|n| fanout.publish(Frame(n)));
        restarted.restart();
        assert!(!fanout.take_keyframe_request(), "a keyframe is queued");
        assert_eq!(drain(&mut restarted), [20, 21]);
        assert_eq!(drain(&mut other), [10, 11, 18, 19, 20, 21]);
    }

    async fn within_limit<T>(future: impl Future<Output = T>) -> T {
        let limited = tokio::time::timeout(Duration::from_secs(20), future).await;
        limited.expect("it ends")
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_producer_is_woken_by_a_request() {
        let fanout = Fanout::<Frame>::default();
        let producer = fanout.clone();
        let woken = tokio::spawn(async move { producer.keyframe_requested().await });
        tokio::task::yield_now().await;
        assert!(!woken.is_finished());
        fanout.request_keyframe();
        within_limit(woken).await.unwrap();
        assert!(!fanout.take_keyframe_request());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_closed_fanout_ends_its_subscriptions_after_the_queued_frames() {
        let fanout = Fanout::default();
        let (mut waiting, mut queued) = (fanout.subscribe(2), fanout.subscribe(2));
        fanout.publish(Frame(0));
        assert!(waiting.recv().await.is_some());
        let ended = tokio::spawn(async move { waiting.recv().await.is_none() });
        tokio::task::yield_now().await;
        fanout.close();
        assert!(within_limit(ended).await.unwrap());
        assert!(within_limit(queued.recv()).await.is_some());
        assert!(within_limit(queued.recv()).await.is_none());
        assert!(within_limit(fanout.subscribe(2).recv()).await.is_none());
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

    struct Picture(u32);

    impl Keyframe for Picture {
        fn is_keyframe(&self) -> bool {
            self.0 == 0
        }

        fn is_discardable(&self) -> bool {
            !self.0.is_multiple_of(2)
        }
    }

    #[test]
    fn a_subscriber_of_the_base_layer_gets_no_frame_that_others_do_not_need() {
        let fanout = Fanout::default();
        let (mut slow, mut fast) = (fanout.subscribe(20), fanout.subscribe(20));
        let filter = slow.temporal_filter();
        for n in 0..12 {
            filter.set_base_only((4..8).contains(&n));
            fanout.publish(Picture(n));
        }
        let numbers = |one: &mut Subscription<Picture>| {
            std::iter::from_fn(|| one.try_recv()).map(|frame| frame.0).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&mut slow), [0, 1, 2, 3, 4, 6, 8, 9, 10, 11]);
        assert_eq!(numbers(&mut fast), (0..12).collect::<Vec<_>>());
        assert_eq!(slow.dropped(), 0, "it is no lag");
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
