//! The layers of one source of video: their encoders, and which peer gets which.
//!
//! A task of its own looks at the estimates of the connections ten times a second. The engine's
//! task only says who may get video. Both lock the same state, for microseconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{
    late_encoders::LateEncoders,
    ticks::{OwnedTask, tick_unless_idle},
    uplink::UplinkNeeds,
};
use crate::{
    bandwidth::{Allocation, Estimate, LayerAllocator, LayerCost, ViewerState},
    encode::{VideoEncoder, VideoSettings},
    media::{EncodedVideo, Fanout, MAX_LAG, SubscriptionSlot, TemporalFilter, now},
    model::{
        Bitrate, Layer, MediaSourceStats, MediaTime, PeerId, QualityLimitation, ShownSize, Size,
    },
};

/// How long the encoder of a layer is kept without peers, if there is another one.
const LINGER: Duration = Duration::from_secs(2);

/// The size of a source of which it is not known, until its first frame tells it.
const USUAL_SIZE: Size = Size::new(1280, 720);

/// Starts the encoder of a layer; `None` if it cannot, which is reported.
pub(super) type StartEncoder =
    Box<dyn Fn(VideoSettings, Fanout<EncodedVideo>) -> Option<VideoEncoder> + Send>;

/// Told when encoders become late, and when they are not any more. It must not block.
pub(super) type LateReport = Box<dyn Fn(bool) + Send>;

/// The layers of one source of video. Dropping it ends its task and its encoders.
pub(super) struct VideoLayers {
    shared: Arc<Shared>,
    task: OwnedTask,
}

/// A peer connection that may get video.
pub(super) struct VideoViewer {
    /// Where its video is handed over.
    pub(super) slot: Arc<SubscriptionSlot<EncodedVideo>>,
    /// The highest layer that it may get.
    pub(super) limit: Layer,
    /// At which size it is shown; `None` for full size.
    pub(super) shown: Option<ShownSize>,
    /// What its path carries; `None` if that is not measured.
    pub(super) estimates: Option<watch::Receiver<Estimate>>,
    /// Takes the rate on the wire that the connection could use at most.
    pub(super) set_desired: Option<Box<dyn Fn(Bitrate) + Send>>,
    /// Tells the rate on the wire of the audio that is sent beside it; `None` while none is.
    pub(super) audio_rate: Option<Box<dyn Fn() -> Bitrate + Send>>,
    /// Takes what it would send, for those who share the uplink.
    pub(super) tell_uplink: Option<Box<dyn Fn(UplinkNeeds) + Send>>,
}

impl VideoViewer {
    /// The rate on the wire of the audio beside it, with its copies.
    fn audio(&self) -> Bitrate {
        self.audio_rate.as_ref().map_or_else(Bitrate::default, |rate| rate())
    }

    /// What a source of that size may send to it.
    fn state(&self, source: Size) -> ViewerState {
        let enough = match self.shown {
            Some(size) => size.layer(source),
            None => Some(Layer::Full),
        };
        let limit = enough.min(Some(self.limit));
        match &self.estimates {
            Some(estimates) => ViewerState::measured(limit, &estimates.borrow(), self.audio()),
            None => ViewerState { limit, share: None, proved: None, is_testing: false },
        }
    }

    /// Whether its rate is a share of an uplink.
    fn is_governed(&self) -> bool {
        self.estimates.as_ref().is_some_and(|estimates| estimates.borrow().ceiling.is_some())
    }

    /// Tells its connection, and those who share the uplink, how much the video could use, and what
    /// its layers cost.
    fn tell_needs(&self, video: Bitrate, layers: [Option<LayerCost>; 3]) {
        let audio = self.audio();
        let desired = Bitrate::from_bps(video.as_bps() + audio.as_bps());
        if let Some(set_desired) = &self.set_desired {
            set_desired(desired);
        }
        if let Some(tell_uplink) = &self.tell_uplink {
            tell_uplink(UplinkNeeds { audio, layers, desired });
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// Notified when there is a first peer.
    has_viewers: Notify,
}

struct State {
    allocator: LayerAllocator<PeerId>,
    viewers: BTreeMap<PeerId, VideoViewer>,
    /// Of the layers that peers were handed last.
    filters: BTreeMap<PeerId, TemporalFilter>,
    outputs: [LayerOutput; 3],
    start_encoder: StartEncoder,
    late: LateEncoders,
    report_late: LateReport,
    /// The expected frame rate, and the most that the user allows.
    fps: u32,
    cap: Option<Bitrate>,
    /// Whether the source runs or is to run.
    is_needed: bool,
    /// Whether the size of the source is known.
    has_source: bool,
    /// How often a peer got another layer than it had.
    changes: u64,
}

/// One layer.
#[derive(Default)]
struct LayerOutput {
    frames: Fanout<EncodedVideo>,
    encoder: Option<VideoEncoder>,
    /// The target that was chosen last.
    target: Option<Bitrate>,
    /// Since when no peer has taken it.
    unused_since: Option<MediaTime>,
}

impl VideoLayers {
    /// Layers without peers. `size` is that of the source, if it is known, and `cap` the most that
    /// the user allows.
    pub(super) fn new(
        (size, fps): (Option<Size>, u32),
        cap: Option<Bitrate>,
        start_encoder: StartEncoder,
    ) -> Self {
        let state = State {
            allocator: LayerAllocator::new(size.unwrap_or(USUAL_SIZE), fps, cap),
            viewers: BTreeMap::new(),
            filters: BTreeMap::new(),
            outputs: Default::default(),
            start_encoder,
            late: LateEncoders::default(),
            report_late: Box::new(|_| ()),
            fps,
            cap,
            is_needed: false,
            has_source: false,
            changes: 0,
        };
        let shared = Shared { state: Mutex::new(state), has_viewers: Notify::new() };
        Self { shared: Arc::new(shared), task: OwnedTask::default() }
    }

    /// Sets what is told when encoders are late, and when they are not any more.
    pub(super) fn set_late_report(&mut self, report: LateReport) {
        self.shared.lock().report_late = report;
    }

    /// Adds a peer connection, or changes what it may get; `None` stops its video.
    ///
    /// The first call starts the task.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn set_viewer(&mut self, peer: PeerId, viewer: Option<VideoViewer>) {
        self.task.start_once(|| run(Arc::clone(&self.shared)));
        self.shared.lock().set_viewer(peer, viewer, now());
        self.shared.has_viewers.notify_one();
    }

    /// Sets whether the source runs, or is to run. If not, all encoders end.
    pub(super) fn set_needed(&mut self, is_needed: bool) {
        let mut state = self.shared.lock();
        state.is_needed = is_needed;
        if !is_needed {
            state.forget_lateness();
        }
        state.update_encoders(now());
    }

    /// Another source is captured from now on, with that size, if it is known, and about that frame
    /// rate. The peers stay.
    pub(super) fn set_source(&mut self, (size, fps): (Option<Size>, u32)) {
        let mut state = self.shared.lock();
        (state.fps, state.has_source) = (fps, false);
        if let Some(size) = size {
            state.allocator.set_source(size, fps);
        }
    }

    /// Whether a layer that is sent has no encoder, because it could not be started.
    pub(super) fn lacks_encoder(&self) -> bool {
        let state = self.shared.lock();
        Layer::ALL
            .into_iter()
            .any(|layer| state.is_taken(layer) && state.outputs[layer as usize].encoder.is_none())
    }

    /// How often a peer got another layer than it had.
    pub(super) fn changes(&self) -> u64 {
        self.shared.lock().changes
    }

    /// The layer that a peer gets, and why no higher one; `None` if no video is meant for it.
    pub(super) fn layer(&self, peer: PeerId) -> Option<(Option<Layer>, QualityLimitation)> {
        let state = self.shared.lock();
        state.viewers.contains_key(&peer).then(|| {
            let is_limited = state.allocator.is_limited_by_path(peer);
            let reason = if is_limited {
                QualityLimitation::Bandwidth
            } else if state.allocator.is_limited_by_encoder(peer) {
                QualityLimitation::Cpu
            } else {
                QualityLimitation::None
            };
            (state.allocator.layer(peer), reason)
        })
    }

    /// The statistics of the highest layer that is encoded: it tells the most of the source.
    pub(super) fn stats(&self) -> Option<MediaSourceStats> {
        let state = self.shared.lock();
        state.outputs.iter().rev().find_map(|one| Some(one.encoder.as_ref()?.stats()))
    }

    /// The layers that are being encoded.
    #[cfg(test)]
    pub(super) fn encoded(&self) -> Vec<Layer> {
        let state = self.shared.lock();
        let runs = |layer: &Layer| state.outputs[*layer as usize].encoder.is_some();
        Layer::ALL.into_iter().filter(runs).collect()
    }

    /// Does what the task does, at that time.
    #[cfg(test)]
    pub(super) fn tick(&self, now: MediaTime) {
        drop(self.shared.lock().tick(now));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Chooses the layers again and again, while there are peers.
async fn run(shared: Arc<Shared>) {
    let is_idle = || shared.lock().is_idle();
    let tick = || {
        let ended = shared.lock().tick(now());
        if !ended.is_empty() {
            // Their threads are joined, which takes up to 50 ms.
            drop(tokio::task::spawn_blocking(move || drop(ended)));
        }
    };
    tick_unless_idle(&shared.has_viewers, is_idle, tick).await;
}

impl State {
    fn set_viewer(&mut self, peer: PeerId, viewer: Option<VideoViewer>, now: MediaTime) {
        match viewer {
            Some(viewer) => {
                self.viewers.insert(peer, viewer);
            }
            None => {
                self.allocator.remove(peer);
                self.filters.remove(&peer);
                if let Some(viewer) = self.viewers.remove(&peer) {
                    viewer.slot.set(None);
                    viewer.tell_needs(Bitrate::default(), [None; 3]);
                }
            }
        }
        self.choose(now);
        self.update_encoders(now);
    }

    /// Whether there is nothing to choose, and no encoder to end.
    fn is_idle(&self) -> bool {
        self.viewers.is_empty() && self.outputs.iter().all(|one| one.unused_since.is_none())
    }

    /// Returns the encoders that are not needed any more.
    fn tick(&mut self, now: MediaTime) -> Vec<VideoEncoder> {
        self.learn_source();
        self.follow_lateness(now);
        self.choose(now);
        self.update_encoders(now);
        self.end_unused(now)
    }

    /// Takes the size of the source from a frame that an encoder got.
    fn learn_source(&mut self) {
        let encoders = self.outputs.iter().rev().filter_map(|one| one.encoder.as_ref());
        if let Some((size, fps)) = encoders.filter_map(VideoEncoder::source).next() {
            self.allocator.set_source(size, fps);
            self.has_source = true;
        }
    }

    /// Gives up the highest layer while its encoder is late.
    fn follow_lateness(&mut self, now: MediaTime) {
        let was_late = self.late.is_late();
        let progress =
            self.outputs.each_ref().map(|one| one.encoder.as_ref().map(VideoEncoder::progress));
        self.late.update(progress, self.allocator.fps(), now);
        self.allocator.set_ceiling(self.late.ceiling());
        if self.late.is_late() != was_late {
            tracing::info!(ceiling = self.late.ceiling().name(), "the encoders' highest layer");
            (self.report_late)(!was_late);
        }
    }

    /// Begins as if no encoder had been late.
    fn forget_lateness(&mut self) {
        if std::mem::take(&mut self.late).is_late() {
            (self.report_late)(false);
        }
        self.allocator.set_ceiling(self.late.ceiling());
    }

    fn choose(&mut self, now: MediaTime) {
        let before: Vec<_> =
            self.viewers.keys().map(|peer| (*peer, self.allocator.layer(*peer))).collect();
        for (peer, viewer) in &self.viewers {
            let state = viewer.state(self.allocator.source());
            self.allocator.set_viewer(*peer, state, now);
            self.allocator.set_governed(*peer, viewer.is_governed());
            viewer.tell_needs(self.allocator.desired(*peer), self.allocator.costs(*peer));
        }
        let Allocation { layers, targets } = self.allocator.update(now);
        for (peer, layer) in layers {
            let had = before.iter().find(|(one, _)| *one == peer).and_then(|(_, layer)| *layer);
            self.hand_over(peer, (had, layer));
        }
        for (layer, target) in targets {
            self.outputs[layer as usize].target = Some(target);
        }
        for (peer, filter) in &self.filters {
            filter.set_base_only(self.allocator.is_base_only(*peer));
        }
    }

    /// Gives a peer another layer. If it had one, that one goes on until the first keyframe of the
    /// new one.
    fn hand_over(&mut self, peer: PeerId, (had, layer): (Option<Layer>, Option<Layer>)) {
        let Some(viewer) = self.viewers.get(&peer) else { return };
        let frames = layer.map(|layer| self.outputs[layer as usize].frames.subscribe(MAX_LAG));
        match &frames {
            Some(frames) => drop(self.filters.insert(peer, frames.temporal_filter())),
            None => drop(self.filters.remove(&peer)),
        }
        if had.is_some() && layer.is_some() {
            self.changes += 1;
            tracing::debug!(%peer, ?had, ?layer, "another layer");
            viewer.slot.set(frames.map(|frames| frames.as_successor()));
        } else {
            viewer.slot.set(frames);
        }
    }

    /// Whether a peer takes only the base layer of a layer.
    fn needs_base(&self, layer: Layer) -> bool {
        let takes = |peer: &PeerId| {
            self.allocator.layer(*peer) == Some(layer) && self.allocator.is_base_only(*peer)
        };
        self.viewers.keys().any(takes)
    }

    fn is_taken(&self, layer: Layer) -> bool {
        self.viewers.keys().any(|peer| self.allocator.layer(*peer) == Some(layer))
    }

    /// Starts the encoders of the layers that are sent, and sets their targets. If the source is
    /// not needed, ends all.
    fn update_encoders(&mut self, now: MediaTime) {
        for layer in Layer::ALL {
            let (is_needed, is_taken) = (self.is_needed, self.is_taken(layer));
            let (settings, needs_base) = (self.settings(layer), self.needs_base(layer));
            let output = &mut self.outputs[layer as usize];
            // A peer that changes to another layer still takes this one until its first keyframe.
            let is_used = is_taken || output.frames.subscribers() > 0;
            if !is_needed {
                (output.encoder, output.unused_since) = (None, None);
            } else if is_taken && output.encoder.is_none() {
                output.encoder = (self.start_encoder)(settings, output.frames.clone());
            }
            output.unused_since = match output.unused_since {
                _ if is_used || output.encoder.is_none() => None,
                since => since.or(Some(now)),
            };
            if let Some(encoder) = &output.encoder {
                encoder.set_second_layer(needs_base);
            }
            if let (Some(encoder), Some(target), true) =
                (&output.encoder, output.target, self.has_source)
            {
                encoder.set_target(target);
            }
        }
    }

    /// Ends the encoders that lingered. If no layer is sent, they are kept as long as the source,
    /// which may soon be sent again.
    fn end_unused(&mut self, now: MediaTime) -> Vec<VideoEncoder> {
        if !Layer::ALL.into_iter().any(|layer| self.is_taken(layer)) {
            return vec![];
        }
        let lingered = |one: &&mut LayerOutput| {
            one.unused_since.is_some_and(|since| now.since(since) >= LINGER)
        };
        let ended = self.outputs.iter_mut().filter(lingered).filter_map(|output| {
            // The next encoder gets a fan-out of its own: this one may still publish a frame.
            std::mem::take(output).encoder
        });
        ended.collect()
    }

    fn settings(&self, layer: Layer) -> VideoSettings {
        let chosen = self.outputs[layer as usize].target.filter(|_| self.has_source);
        let cap = self.cap.filter(|_| layer == Layer::Full);
        VideoSettings { layer, fps: self.fps, target: chosen.or(cap) }
    }
}

#[cfg(test)]
mod tests;
