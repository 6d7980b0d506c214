//! Which layer of audio each peer gets.
//!
//! A task of its own looks at the estimates of the connections ten times a second. The encoder
//! (`encode/audio_layers.rs`) encodes what is wanted, and lets each peer change at a good moment.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use super::ticks::{OwnedTask, tick_unless_idle};
use crate::{
    bandwidth::{AudioChoice, AudioUse, Estimate},
    media::{AudioBlock, EncodedAudio, Fanout, LayerSwitch, Subscription, now},
    model::{AudioContent, AudioLayer, Bitrate, MediaTime, PeerId},
};

/// Opus packets by which a peer connection may lag: half a second, which a jitter buffer no longer
/// hides.
const MAX_AUDIO_LAG: usize = 25;

/// Chooses the layers of audio. Dropping it ends its task.
#[derive(Default)]
pub(super) struct AudioListeners {
    shared: Arc<Shared>,
    task: OwnedTask,
}

/// A peer connection that gets audio.
pub(super) struct AudioListener {
    /// What its path carries.
    pub(super) estimates: watch::Receiver<Estimate>,
    /// Takes the least rate on the wire that its audio needs.
    pub(super) set_least_rate: Box<dyn Fn(Bitrate) + Send>,
    /// Whether video is sent beside it.
    pub(super) has_video: bool,
    /// Tells whether the other end wants no packets while nothing is said.
    pub(super) accepts_dtx: Box<dyn Fn() -> bool + Send>,
    /// Tells whether the other end makes two channels of what has two.
    pub(super) takes_stereo: Box<dyn Fn() -> bool + Send>,
}

#[derive(Default)]
struct Shared {
    listeners: Mutex<BTreeMap<PeerId, Listener>>,
    /// Whether the sound is music.
    is_music: AtomicBool,
    /// Whether it has two channels.
    is_stereo: Arc<AtomicBool>,
    /// Notified when there is a first peer.
    has_listeners: Notify,
}

/// A peer connection, what was chosen for it, and what changes its layer.
struct Listener {
    connection: AudioListener,
    choice: AudioChoice,
    switch: LayerSwitch,
}

impl AudioListeners {
    /// Adds a peer connection, or changes it, and returns its subscription to `audio`. The first call
    /// starts the task.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn subscribe(
        &mut self,
        audio: &Fanout<EncodedAudio>,
        (peer, connection): (PeerId, AudioListener),
    ) -> Subscription<EncodedAudio> {
        self.task.start_once(|| run(Arc::clone(&self.shared)));
        let choice = AudioChoice::new(&connection.estimates.borrow());
        let subscription = audio.subscribe_layer(MAX_AUDIO_LAG, choice.layer());
        let switch = subscription.layer_switch();
        (connection.set_least_rate)(choice.layer().wire_rate());
        self.shared.lock().insert(peer, Listener { connection, choice, switch });
        self.shared.has_listeners.notify_one();
        subscription
    }

    /// A peer connection gets no audio any more.
    pub(super) fn remove(&self, peer: PeerId) {
        self.shared.lock().remove(&peer);
    }

    /// Sets whether a peer connection gets video beside its audio.
    pub(super) fn set_has_video(&self, peer: PeerId, has_video: bool) {
        if let Some(listener) = self.shared.lock().get_mut(&peer) {
            listener.connection.has_video = has_video;
        }
    }

    /// Sets what the sound is, from now on.
    pub(super) fn set_content(&self, content: AudioContent) {
        self.shared.is_music.store(content == AudioContent::Music, Ordering::Relaxed);
    }

    /// Returns what must see each block of the sound.
    pub(super) fn channel_watch(&self) -> ChannelWatch {
        ChannelWatch { is_stereo: Arc::clone(&self.shared.is_stereo), mono_blocks: 0 }
    }

    /// The layer that a peer gets; `None` if it gets no audio.
    pub(super) fn layer(&self, peer: PeerId) -> Option<AudioLayer> {
        Some(self.shared.lock().get(&peer)?.switch.taken())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the layer of each peer at that time.
    fn tick(&self, now: MediaTime) {
        let is_music = self.is_music.load(Ordering::Relaxed);
        let content = if is_music { AudioContent::Music } else { AudioContent::Speech };
        for (peer, Listener { connection, choice, switch }) in self.lock().iter_mut() {
            let is_stereo = self.is_stereo.load(Ordering::Relaxed) && (connection.takes_stereo)();
            let used = AudioUse { content, is_stereo, has_video: connection.has_video };
            let layer = choice.update(&connection.estimates.borrow(), used, now);
            // What is quiet in music is no silence.
            switch.set_accepts_dtx(!is_music && (connection.accepts_dtx)());
            if layer != switch.wanted() {
                tracing::debug!(%peer, ?layer, "another layer of audio is wanted");
                switch.want(layer);
                (connection.set_least_rate)(layer.wire_rate());
            }
        }
    }
}

/// Finds out whether the sound has two channels. On the thread of its source.
pub(super) struct ChannelWatch {
    is_stereo: Arc<AtomicBool>,
    mono_blocks: u32,
}

impl ChannelWatch {
    /// So many blocks in which both channels are alike are no stereo: 10 s. A rest is shorter.
    const MONO_BLOCKS: u32 = 1000;

    /// Takes the next block of 10 ms.
    pub(super) fn push(&mut self, block: &AudioBlock) {
        self.mono_blocks =
            if block.side.is_some() { 0 } else { self.mono_blocks.saturating_add(1) };
        if self.mono_blocks == 0 || self.mono_blocks == Self::MONO_BLOCKS {
            self.is_stereo.store(self.mono_blocks == 0, Ordering::Relaxed);
        }
    }
}

/// Chooses the layers again and again, while there are peers.
async fn run(shared: Arc<Shared>) {
    let is_idle = || shared.lock().is_empty();
    tick_unless_idle(&shared.has_listeners, is_idle, || shared.tick(now())).await;
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::{bandwidth::BandwidthEstimator, media::BLOCK_SAMPLES};

    #[tokio::test(start_paused = true)]
    async fn each_peer_gets_the_layer_that_its_own_path_carries_and_the_least_rate_follows() {
        let (fanout, mut listeners) =
            (Fanout::<EncodedAudio>::default(), AudioListeners::default());
        let rate = Bitrate::from_kbps;
        let mut peers = vec![];
        for (number, kbps) in [(1, 100), (2, 500), (3, 2000)] {
            let estimator = BandwidthEstimator::new(rate(kbps), rate(50)..=rate(30_000));
            let (sender, estimates) = watch::channel(estimator.estimate());
            let least = Arc::new(AtomicU64::new(0));
            let set = Arc::clone(&least);
            let listener = AudioListener {
                estimates,
                set_least_rate: Box::new(move |rate| set.store(rate.as_bps(), Ordering::Relaxed)),
                has_video: true,
                accepts_dtx: Box::new(move || number == 2),
                takes_stereo: Box::new(move || number == 3),
            };
            let subscription = listeners.subscribe(&fanout, (PeerId(number), listener));
            peers.push((subscription, least, sender));
        }
        let taken: Vec<_> = peers.iter().map(|peer| peer.0.layer_switch().taken()).collect();
        assert_eq!(taken, [AudioLayer::Low, AudioLayer::Standard, AudioLayer::Standard]);
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let wanted: Vec<_> = peers.iter().map(|peer| peer.0.layer_switch().wanted()).collect();
        assert_eq!(wanted, [AudioLayer::Low, AudioLayer::Standard, AudioLayer::FullBand]);
        let dtx: Vec<_> = peers.iter().map(|peer| peer.0.layer_switch().accepts_dtx()).collect();
        assert_eq!(dtx, [false, true, false]);
        let least: Vec<_> = peers.iter().map(|peer| peer.1.load(Ordering::Relaxed)).collect();
        assert_eq!(least, [36_800, 65_600, 89_600]);
        listeners.set_has_video(PeerId(2), false);
        listeners.remove(PeerId(1));
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        assert_eq!(peers[1].0.layer_switch().wanted(), AudioLayer::FullBand);
        assert_eq!(listeners.layer(PeerId(1)), None);
        assert_eq!(listeners.layer(PeerId(2)), Some(AudioLayer::Standard), "nothing is encoded");
        listeners.set_content(AudioContent::Music);
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let switches = [1, 2].map(|peer: usize| peers[peer].0.layer_switch());
        assert_eq!(switches.each_ref().map(LayerSwitch::wanted), [AudioLayer::Music; 2]);
        assert_eq!(switches.each_ref().map(|switch| switch.accepts_dtx()), [false; 2]);
        let mut watch = listeners.channel_watch();
        let mono = AudioBlock::mono(MediaTime::default(), [0.1; BLOCK_SAMPLES]);
        watch.push(&AudioBlock { side: Some([0.1; BLOCK_SAMPLES]), ..mono });
        (1..ChannelWatch::MONO_BLOCKS).for_each(|_| watch.push(&mono));
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        let wanted = switches.each_ref().map(LayerSwitch::wanted);
        assert_eq!(wanted, [AudioLayer::Music, AudioLayer::StereoMusic], "only who takes it");
        watch.push(&mono);
        tokio::time::sleep(std::time::Duration::from_secs(6)).await;
        assert_eq!(switches.map(|switch| switch.wanted()), [AudioLayer::Music; 2]);
    }
}
