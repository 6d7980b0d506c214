//! Which layer of audio a subscriber gets.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use crate::model::AudioLayer;

/// Chooses which layer of audio a subscriber of a fan-out gets. All layers are published to the same
/// fan-out, and the producer, on its thread, lets a subscriber change between two packets: so nothing
/// is missing, and nothing comes twice.
#[derive(Clone, Debug)]
pub struct LayerSwitch {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    wanted: AtomicU8,
    taken: AtomicU8,
    /// How often the producer has let the change wait.
    waits: AtomicU8,
    accepts_dtx: AtomicBool,
}

fn read(layer: &AtomicU8) -> AudioLayer {
    AudioLayer::ALL[usize::from(layer.load(Ordering::Relaxed)) % AudioLayer::ALL.len()]
}

impl LayerSwitch {
    /// Of a subscriber that begins with this layer.
    pub fn new(layer: AudioLayer) -> Self {
        let layer = || AtomicU8::new(layer as u8);
        Self {
            state: Arc::new(State {
                wanted: layer(),
                taken: layer(),
                waits: 0.into(),
                accepts_dtx: false.into(),
            }),
        }
    }

    /// Asks for another layer. The producer hands it over once its encoder has settled.
    pub fn want(&self, layer: AudioLayer) {
        self.state.wanted.store(layer as u8, Ordering::Relaxed);
    }

    /// The layer that is wanted.
    pub fn wanted(&self) -> AudioLayer {
        read(&self.state.wanted)
    }

    /// The layer that the subscriber gets.
    pub fn taken(&self) -> AudioLayer {
        read(&self.state.taken)
    }

    /// From the next packet on the subscriber gets that layer. For the producer.
    pub fn take(&self, layer: AudioLayer) {
        self.state.taken.store(layer as u8, Ordering::Relaxed);
        self.state.waits.store(0, Ordering::Relaxed);
    }

    /// Sets whether the subscriber wants no packets while nothing is said. At first it wants them.
    pub fn set_accepts_dtx(&self, accepts: bool) {
        self.state.accepts_dtx.store(accepts, Ordering::Relaxed);
    }

    /// Whether the subscriber wants no packets while nothing is said.
    pub fn accepts_dtx(&self) -> bool {
        self.state.accepts_dtx.load(Ordering::Relaxed)
    }

    /// The change has to wait. Returns how often it had to before. For the producer.
    pub fn wait(&self) -> u8 {
        let waits = self.state.waits.load(Ordering::Relaxed);
        self.state.waits.store(waits.saturating_add(1), Ordering::Relaxed);
        waits
    }
}
