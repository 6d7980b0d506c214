use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use tokio::time::{advance, sleep};

use super::*;
use crate::{
    bandwidth::BandwidthEstimator,
    media::{FramePool, Subscription, Tee, VideoFrame},
};

const SIZE: Size = Size::new(320, 180);

/// The layers of a source whose frames the test puts, and its peers.
struct Rig {
    layers: VideoLayers,
    frames: Tee<VideoFrame>,
    started: Arc<AtomicU32>,
    /// At which size the peers show it.
    shown: Option<ShownSize>,
    peers: BTreeMap<u64, (Arc<SubscriptionSlot<EncodedVideo>>, watch::Sender<Estimate>)>,
}

impl Rig {
    /// The source runs.
    fn new() -> Self {
        let (frames, started) = (Tee::<VideoFrame>::default(), Arc::<AtomicU32>::default());
        let (source, count) = (frames.clone(), Arc::clone(&started));
        let start = move |settings, out| {
            count.fetch_add(1, Ordering::Relaxed);
            VideoEncoder::start(settings, source.attach(), out, |_| ()).ok()
        };
        let mut layers = VideoLayers::new((None, 30), None, Box::new(start));
        layers.set_needed(true);
        Self { layers, frames, started, shown: None, peers: BTreeMap::new() }
    }

    /// Adds a peer whose path carries so much.
    fn add(&mut self, peer: u64, kbps: u64) {
        let (estimates, receiver) = watch::channel(estimate(kbps));
        let slot = Arc::<SubscriptionSlot<EncodedVideo>>::default();
        self.peers.insert(peer, (Arc::clone(&slot), estimates));
        self.set(peer, Layer::Full, Some(receiver));
    }

    fn set(&mut self, peer: u64, limit: Layer, estimates: Option<watch::Receiver<Estimate>>) {
        let slot = Arc::clone(&self.peers[&peer].0);
        let viewer = VideoViewer {
            slot,
            limit,
            shown: self.shown,
            estimates,
            set_desired: None,
            audio_rate: None,
            tell_uplink: None,
        };
        self.layers.set_viewer(PeerId(peer), Some(viewer));
    }

    fn estimate(&self, peer: u64, kbps: u64) {
        self.peers[&peer].1.send_replace(estimate(kbps));
    }

    /// What a peer was handed since the last call, if anything.
    fn handed(&self, peer: u64) -> Option<Option<Subscription<EncodedVideo>>> {
        let mut next = std::pin::pin!(self.peers[&peer].0.next());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match next.as_mut().poll(&mut context) {
            std::task::Poll::Ready(subscription) => Some(subscription),
            std::task::Poll::Pending => None,
        }
    }

    /// Puts frames until the subscription has one.
    fn next_frame(&self, subscription: &mut Subscription<EncodedVideo>) -> Arc<EncodedVideo> {
        for _ in 0..5000 {
            let frame = FramePool::default().frame(SIZE, now(), |bytes| bytes.fill(90));
            self.frames.put(&frame);
            thread::sleep(Duration::from_millis(2));
            if let Some(frame) = subscription.try_recv() {
                return frame;
            }
        }
        panic!("no frame of the layer comes");
    }
}

fn estimate(kbps: u64) -> Estimate {
    let rate = Bitrate::from_kbps(kbps);
    Estimate { target: rate, ..BandwidthEstimator::new(rate, rate..=rate).estimate() }
}

#[tokio::test(start_paused = true)]
async fn each_layer_that_is_sent_has_one_encoder_that_lingers_for_two_seconds() {
    let mut rig = Rig::new();
    assert_eq!(rig.layers.encoded(), [], "a preview needs no encoder");
    rig.add(1, 20_000);
    rig.add(2, 200);
    rig.add(3, 200);
    assert_eq!(rig.layers.encoded(), [Layer::Quarter, Layer::Full]);
    let subscriptions = [1, 2, 3].map(|peer| rig.handed(peer));
    assert_eq!(rig.started.load(Ordering::Relaxed), 2, "two peers share an encoder");
    rig.layers.set_viewer(PeerId(2), None);
    rig.layers.set_viewer(PeerId(3), None);
    assert!(matches!(rig.handed(3), Some(None)), "its video is stopped");
    drop(subscriptions);
    rig.layers.tick(now());
    advance(Duration::from_millis(1900)).await;
    rig.layers.tick(now());
    assert_eq!(rig.layers.encoded(), [Layer::Quarter, Layer::Full]);
    advance(Duration::from_millis(101)).await;
    rig.layers.tick(now());
    assert_eq!(rig.layers.encoded(), [Layer::Full]);
    rig.layers.set_viewer(PeerId(1), None);
    advance(Duration::from_secs(60)).await;
    rig.layers.tick(now());
    assert_eq!(rig.layers.encoded(), [Layer::Full], "the last is kept as long as the source");
    rig.layers.set_needed(false);
    assert_eq!(rig.layers.encoded(), []);
    assert!(!rig.layers.lacks_encoder());
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_path_gets_slow_is_handed_a_smaller_layer_and_the_others_nothing() {
    let mut rig = Rig::new();
    (1..=10).for_each(|peer| rig.add(peer, 20_000));
    let mut held: Vec<_> = (1..=10).map(|peer| rig.handed(peer).flatten().unwrap()).collect();
    assert!(held.iter().all(|one| !one.is_successor()));
    assert_eq!(rig.next_frame(&mut held[9]).size, SIZE);
    rig.estimate(10, 120);
    sleep(Duration::from_millis(250)).await;
    let mut slow = rig.handed(10).flatten().expect("within a tenth of a second");
    assert!(slow.is_successor(), "the old layer goes on until the first keyframe of this one");
    let first = rig.next_frame(&mut slow);
    assert_eq!((first.layer, first.size, first.is_key), (Layer::Half, Size::new(160, 90), true));
    for second in 0..20 {
        sleep(Duration::from_secs(1)).await;
        assert!((1..10).all(|peer| rig.handed(peer).is_none()), "second {second}");
    }
    assert_eq!(rig.layers.changes(), 1);
    assert_eq!(
        rig.layers.layer(PeerId(10)),
        Some((Some(Layer::Half), QualityLimitation::Bandwidth))
    );
    assert_eq!(rig.layers.layer(PeerId(1)), Some((Some(Layer::Full), QualityLimitation::None)));
}

#[tokio::test(start_paused = true)]
async fn the_old_layer_is_encoded_until_the_peer_has_left_it() {
    let mut rig = Rig::new();
    rig.add(1, 20_000);
    let before = rig.handed(1);
    rig.estimate(1, 200);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.layers.encoded(), [Layer::Quarter, Layer::Full], "no keyframe has come yet");
    drop(before);
    sleep(Duration::from_millis(2300)).await;
    assert_eq!(rig.layers.encoded(), [Layer::Quarter]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_at_once_and_the_target_follows_the_path() {
    let mut rig = Rig::new();
    rig.add(1, 20_000);
    let mut frames = rig.handed(1).flatten().unwrap();
    rig.next_frame(&mut frames);
    let target = |rig: &Rig| rig.layers.stats().and_then(|stats| stats.target_bitrate);
    let usual = crate::model::usual_bitrate(SIZE, 30).as_bps();
    assert_eq!(target(&rig), Some(usual), "until the size of the source is known");
    sleep(Duration::from_millis(250)).await;
    rig.estimate(1, 220);
    sleep(Duration::from_millis(250)).await;
    // The frame that is being encoded still has the target before.
    let mut targets = (0..10).map(|_| {
        rig.next_frame(&mut frames);
        target(&rig).unwrap()
    });
    let slow = targets.find(|target| (150_000..205_000).contains(target));
    assert!(slow.is_some(), "{:?}", target(&rig));
    rig.set(1, Layer::Half, None);
    let mut half = rig.handed(1).flatten().unwrap();
    assert_eq!(rig.next_frame(&mut half).layer, Layer::Half);
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_small_or_not_at_all_is_sent_so() {
    let mut rig = Rig::new();
    rig.shown = Some(ShownSize { width: 320, height: 180 });
    rig.add(1, 20_000);
    rig.handed(1).flatten().expect("a layer");
    assert_eq!(rig.layers.encoded(), [Layer::Quarter]);
    rig.shown = Some(ShownSize::HIDDEN);
    rig.set(1, Layer::Full, None);
    assert!(matches!(rig.handed(1), Some(None)), "nothing is sent");
    assert_eq!(rig.layers.layer(PeerId(1)), Some((None, QualityLimitation::None)));
    rig.shown = None;
    rig.set(1, Layer::Full, None);
    assert!(!rig.handed(1).flatten().expect("at once").is_successor());
    assert_eq!(rig.layers.layer(PeerId(1)), Some((Some(Layer::Full), QualityLimitation::None)));
}
