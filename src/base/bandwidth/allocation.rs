//! Which peer gets which layer of a video, and how many bits each layer gets.
//!
//! Each layer is encoded once for all peers. So a peer on a slow path takes a smaller layer, and a
//! layer's rate follows those of its peers that can carry it. None of the others is moved by a slow
//! one.

mod layer_target;
mod viewer;

use std::collections::BTreeMap;

use self::{
    layer_target::LayerTarget,
    viewer::{BASE_SHARE, LayerPoint, Viewer},
};
use super::{Estimate, LayerCost};
use crate::model::{AudioLayer, Bitrate, Layer, LayerRates, MediaTime, Size};

/// The rate of audio on the wire that is assumed until one is told or measured.
pub const AUDIO_WIRE_RATE: Bitrate = AudioLayer::Standard.wire_rate();

/// The bytes of a packet's headers on the wire: UDP and IPv4, RTP with an extension, and the tag of
/// SRTP.
const HEADER_BYTES: u64 = 64;

/// The bytes of a frame that one packet carries.
const PAYLOAD_BYTES: u64 = 1150;

/// The part of an estimate that is used. The rest is for what an encoder overshoots.
const USED_SHARE: f64 = 0.95;

/// The most of a peer's rate that is kept free for repeats. A path that loses the part `p` of all
/// packets needs `p / (1 - p)` of the video once more, which is `p` of both.
const MAX_REPEATS: f64 = 0.35;

/// Chooses the layer of each peer and the target of each layer. `K` names a peer.
///
/// It is pure: the owner calls [`Self::update`] a few times a second, and performs the changes.
/// Times must not go back.
#[derive(Debug)]
pub struct LayerAllocator<K> {
    source: Size,
    fps: u32,
    /// The most that the user allows for a layer.
    cap: Option<Bitrate>,
    /// The highest layer that this computer can encode.
    ceiling: Layer,
    viewers: BTreeMap<K, Viewer>,
    targets: [LayerTarget; 3],
}

/// What a peer may get and can carry.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ViewerState {
    /// The highest layer that is wanted; `None` while no video is.
    pub limit: Option<Layer>,
    /// The rate on the wire that its path has for the video, see [`video_share`]; `None` while that
    /// is not measured, which counts as enough.
    pub share: Option<Bitrate>,
    /// The part of the share that is proved ([`Estimate::proved`]).
    pub proved: Option<Bitrate>,
    /// Whether that is less than usual for a moment only ([`Estimate::is_testing`]).
    pub is_testing: bool,
}

impl ViewerState {
    /// The state of a peer with a measured path, on which that much audio is sent.
    pub fn measured(limit: Option<Layer>, estimate: &Estimate, audio: Bitrate) -> Self {
        let proved = Estimate { target: estimate.proved, ..*estimate };
        Self {
            limit,
            share: Some(video_share(estimate, audio)),
            proved: Some(video_share(&proved, audio)),
            is_testing: estimate.is_testing,
        }
    }
}

/// What has changed. Everything else stays as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allocation<K> {
    /// The peers that get another layer from now on; `None` for no video.
    pub layers: Vec<(K, Option<Layer>)>,
    /// The layers with another target, without the headers of packets.
    pub targets: Vec<(Layer, Bitrate)>,
}

/// The rate on the wire that a path has for video: its estimate without a reserve, the audio that
/// is sent beside it, and what is sent again. A share of an uplink was given for certain layers, so
/// the reserve has to do for what is sent again.
pub fn video_share(estimate: &Estimate, audio: Bitrate) -> Bitrate {
    let usable = estimate.target.as_bps() as f64 * USED_SHARE - audio.as_bps() as f64;
    let most = if estimate.ceiling.is_some() { 0.0 } else { MAX_REPEATS };
    let repeats = estimate.loss.clamp(0.0, most);
    Bitrate::from_bps((usable.max(0.0) * (1.0 - repeats)) as u64)
}

/// The rate on the wire of a video with that rate and frame rate.
pub fn wire_rate(payload: Bitrate, fps: u32) -> Bitrate {
    let fps = u64::from(fps.max(1));
    let frame = (payload.as_bps() / 8 / fps).max(1);
    let packets = frame.div_ceil(PAYLOAD_BYTES) * fps;
    Bitrate::from_bps(payload.as_bps() + packets * HEADER_BYTES * 8)
}

/// The rate of a video without headers that needs at most `wire` on the wire.
fn payload_rate(wire: Bitrate, fps: u32) -> Bitrate {
    let headers = wire_rate(wire, fps).as_bps() - wire.as_bps();
    Bitrate::from_bps(wire.as_bps().saturating_sub(headers))
}

/// The share of a peer that is reckoned with: all of it, or what is proved.
type ShareOf = fn(&Viewer) -> Option<Bitrate>;

impl<K: Ord + Copy> LayerAllocator<K> {
    /// An allocator without peers, for a source of that size and frame rate. `cap` is the most that
    /// the user allows for a layer.
    pub fn new(source: Size, fps: u32, cap: Option<Bitrate>) -> Self {
        Self {
            source,
            fps,
            cap,
            ceiling: Layer::Full,
            viewers: BTreeMap::new(),
            targets: Default::default(),
        }
    }

    /// Sets the size and frame rate that the source really has. With another size each peer's layer
    /// is chosen as at first.
    pub fn set_source(&mut self, size: Size, fps: u32) {
        if size != self.source {
            self.viewers.values_mut().for_each(Viewer::choose_afresh);
        }
        (self.source, self.fps) = (size, fps);
    }

    /// The size of the source.
    pub fn source(&self) -> Size {
        self.source
    }

    /// The frame rate of the source.
    pub fn fps(&self) -> u32 {
        self.fps
    }

    /// Sets the highest layer that this computer can encode in time.
    pub fn set_ceiling(&mut self, ceiling: Layer) {
        self.ceiling = ceiling;
    }

    /// Adds a peer, or changes what it may get. [`Self::update`] tells its layer.
    pub fn set_viewer(&mut self, key: K, state: ViewerState, now: MediaTime) {
        self.viewers.entry(key).or_insert_with(|| Viewer::new(now)).set(state, now);
    }

    /// Removes a peer.
    pub fn remove(&mut self, key: K) {
        self.viewers.remove(&key);
    }

    /// The layer of a peer.
    pub fn layer(&self, key: K) -> Option<Layer> {
        self.viewers.get(&key)?.layer()
    }

    /// Whether a peer gets only every second frame of its layer, which other peers get whole.
    pub fn is_base_only(&self, key: K) -> bool {
        self.viewers.get(&key).is_some_and(Viewer::is_base_only)
    }

    /// Whether a peer gets less than it wants because of its path.
    pub fn is_limited_by_path(&self, key: K) -> bool {
        self.viewers.get(&key).is_some_and(|one| {
            one.is_base_only() || one.layer() < one.limit().min(Some(self.ceiling))
        })
    }

    /// Whether a peer gets less than it wants because this computer encodes no higher layer in time.
    pub fn is_limited_by_encoder(&self, key: K) -> bool {
        let ceiling = Some(self.ceiling);
        self.viewers.get(&key).is_some_and(|one| one.limit() > ceiling && one.layer() == ceiling)
    }

    /// The rate on the wire that a peer could use at most.
    pub fn desired(&self, key: K) -> Bitrate {
        let limit = self.viewers.get(&key).and_then(Viewer::limit);
        limit.map_or(Bitrate::default(), |limit| {
            let layer = limit.min(self.ceiling);
            wire_rate(self.rates(layer).max, layer.fps(self.fps))
        })
    }

    /// Sets whether a peer's rate is a share of an uplink (see [`super::Governor`]): it was given for
    /// a certain layer, which then needs no room to spare.
    pub fn set_governed(&mut self, key: K, is_governed: bool) {
        if let Some(viewer) = self.viewers.get_mut(&key) {
            viewer.is_governed = is_governed;
        }
    }

    /// What the layers cost on the wire, up to the highest one that a peer may get: at least, and
    /// with their usual rates.
    pub fn costs(&self, key: K) -> [Option<LayerCost>; 3] {
        let limit = self.viewers.get(&key).and_then(Viewer::limit).map(|one| one.min(self.ceiling));
        Layer::ALL.map(|layer| {
            let (rates, fps) = (self.rates(layer), layer.fps(self.fps));
            let wire = |rate| wire_rate(rate, fps);
            // One encoder makes a layer for all. That of the smallest runs at its usual rate as soon
            // as most can carry that, and then leaves out whoever has less.
            let least = if layer == Layer::Quarter { rates.usual } else { floor(layer, rates) };
            let cost = LayerCost { least: wire(least), usual: wire(rates.usual) };
            (Some(layer) <= limit).then_some(cost)
        })
    }

    /// Chooses again. The rates of layers rise with the time since the last call, and at once to what is
    /// proved.
    pub fn update(&mut self, now: MediaTime) -> Allocation<K> {
        let points = Layer::ALL.map(|layer| self.point(layer));
        let mut allocation = Allocation { layers: vec![], targets: vec![] };
        let ceiling = self.ceiling;
        for (key, viewer) in &mut self.viewers {
            if viewer.choose(&points, ceiling, now) {
                allocation.layers.push((*key, viewer.layer()));
            }
        }
        for layer in Layer::ALL {
            let (wanted, proved) =
                (self.wanted(layer, Viewer::share), self.wanted(layer, Viewer::proved));
            let target = &mut self.targets[layer as usize];
            if let Some(rate) = target.follow((wanted, proved), now) {
                allocation.targets.push((layer, rate));
            }
        }
        allocation
    }

    /// What a layer needs on the wire now.
    fn point(&self, layer: Layer) -> LayerPoint {
        let rates = self.rates(layer);
        let wire = |rate| wire_rate(rate, layer.fps_at(self.source, self.fps, rate));
        let floor = floor(layer, rates);
        let shared = match self.shared_rate(layer, Viewer::share) {
            Some(rate) => rate.clamp(floor, rates.usual),
            None => floor,
        };
        let takers = self.takers(layer).count();
        LayerPoint {
            layer,
            takers,
            alone: wire(rates.min),
            floor: wire(floor),
            shared: wire(shared),
        }
    }

    /// The target that a layer should have if the peers had these shares; `None` if nobody takes it.
    fn wanted(&self, layer: Layer, share: ShareOf) -> Option<Bitrate> {
        let rates = self.rates(layer);
        let rate = |viewer: &Viewer| self.carried(layer, viewer, share).unwrap_or(rates.usual);
        let lowest = self.takers(layer).map(rate).min()?;
        if self.takers(layer).count() == 1 {
            return Some(lowest.clamp(rates.min, rates.max));
        }
        // More than usual only if it suits all: nobody loses the layer for it.
        let shared =
            if lowest >= rates.usual { Some(lowest) } else { self.shared_rate(layer, share) };
        let floor = floor(layer, rates);
        Some(shared.unwrap_or(floor).clamp(floor, rates.max))
    }

    /// The rate that suits three quarters of the peers that could take a layer, at most the usual
    /// one. `None` without such peers.
    fn shared_rate(&self, layer: Layer, share: ShareOf) -> Option<Bitrate> {
        let rates = self.rates(layer);
        let floor = floor(layer, rates);
        let wants = |viewer: &&Viewer| viewer.limit() >= Some(layer);
        let rate = |viewer: &Viewer| self.carried(layer, viewer, share).unwrap_or(rates.usual);
        let able = self.viewers.values().filter(wants).map(rate).filter(|rate| *rate >= floor);
        let mut able: Vec<_> = able.collect();
        able.sort_unstable();
        able.get(able.len().saturating_sub(1) / 4).map(|rate| rate.min(&rates.usual)).copied()
    }

    /// The rate of a layer, without headers, of which a peer can carry what it takes; `None` if its
    /// path is not measured.
    fn carried(&self, layer: Layer, viewer: &Viewer, share: ShareOf) -> Option<Bitrate> {
        let share = share(viewer)?;
        let is_base_only = viewer.is_base_only() && viewer.layer() == Some(layer);
        let whole =
            if is_base_only { share.as_bps() as f64 / BASE_SHARE } else { share.as_bps() as f64 };
        Some(self.payload(layer, Bitrate::from_bps(whole as u64)))
    }

    /// The rate without headers of a layer that needs at most `wire` on the wire. Fewer frames have
    /// fewer headers.
    fn payload(&self, layer: Layer, wire: Bitrate) -> Bitrate {
        payload_rate(wire, layer.fps_at(self.source, self.fps, wire))
    }

    fn takers(&self, layer: Layer) -> impl Iterator<Item = &Viewer> {
        self.viewers.values().filter(move |viewer| viewer.layer() == Some(layer))
    }

    fn rates(&self, layer: Layer) -> LayerRates {
        let rates = layer.rates(self.source, self.fps);
        let Some(cap) = self.cap else { return rates };
        let [min, usual, max] = [rates.min, rates.usual, rates.max].map(|rate| rate.min(cap));
        match layer {
            // The user says what is usual for the whole picture.
            Layer::Full => LayerRates { min, usual: cap, max: cap },
            Layer::Half | Layer::Quarter => LayerRates { min, usual, max },
        }
    }
}

/// The least rate of a layer that several peers share. Who cannot carry it gets the next smaller
/// layer; below the smallest there is none.
fn floor(layer: Layer, rates: LayerRates) -> Bitrate {
    let share = match layer {
        // A peer that is alone takes less of it, with fewer frames.
        Layer::Quarter => 0.4,
        Layer::Half | Layer::Full => 0.8,
    };
    rates.min.max(Bitrate::from_bps((rates.usual.as_bps() as f64 * share) as u64))
}

#[cfg(test)]
mod tests;
