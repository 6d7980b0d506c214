//! What a connection's bandwidth estimator shares with the rest of the program.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::{
    bandwidth::{AUDIO_WIRE_RATE, BandwidthEstimator, Estimate},
    model::{Bitrate, MediaTime, PeerId},
    transport::rate_control::ProbeTurns,
};

/// The target before anything is known of the path.
const START: Bitrate = Bitrate::from_kbps(500);

/// The lowest target: sound alone needs more.
const MIN_TARGET: Bitrate = Bitrate::from_kbps(50);

/// The highest target.
const MAX_TARGET: Bitrate = Bitrate::from_kbps(30_000);

/// The rate that a connection is assumed to use until the program tells: a camera and audio.
const DEFAULT_DESIRED: Bitrate = Bitrate::from_kbps(2500);

/// Stands for no limit.
const NO_LIMIT: u64 = u64::MAX;

/// The estimate of one connection, and what the program wants of it. Any thread may use it; the
/// connection's driver estimates.
#[derive(Debug)]
pub(in crate::transport) struct BandwidthControl {
    estimates: watch::Sender<Estimate>,
    /// Bits per second.
    desired: AtomicU64,
    /// Bits per second, or [`NO_LIMIT`].
    ceiling: AtomicU64,
    /// Bits per second, or [`NO_LIMIT`].
    probe_limit: AtomicU64,
    may_probe: AtomicBool,
    /// Bits per second.
    audio_rate: AtomicU64,
    /// Bits per second.
    least_audio_rate: AtomicU64,
    peer: PeerId,
    turns: OnceLock<ProbeTurns>,
}

impl BandwidthControl {
    /// The control of a new connection.
    pub(in crate::transport) fn new(peer: PeerId) -> Arc<Self> {
        Arc::new(Self {
            estimates: watch::Sender::new(estimator(DEFAULT_DESIRED).estimate()),
            desired: AtomicU64::new(DEFAULT_DESIRED.as_bps()),
            ceiling: AtomicU64::new(NO_LIMIT),
            probe_limit: AtomicU64::new(NO_LIMIT),
            may_probe: AtomicBool::new(true),
            audio_rate: AtomicU64::new(AUDIO_WIRE_RATE.as_bps()),
            least_audio_rate: AtomicU64::new(AUDIO_WIRE_RATE.as_bps()),
            peer,
            turns: OnceLock::new(),
        })
    }

    /// An estimator that knows nothing of the path.
    pub(super) fn new_estimator(&self) -> BandwidthEstimator {
        estimator(Bitrate::from_bps(self.desired.load(Ordering::Relaxed)))
    }

    /// The estimates from now on.
    pub(in crate::transport) fn estimates(&self) -> watch::Receiver<Estimate> {
        self.estimates.subscribe()
    }

    /// The newest estimate.
    pub(in crate::transport) fn latest(&self) -> Estimate {
        *self.estimates.borrow()
    }

    /// The rate on the wire that audio needs, with the copies in it, while it is sent.
    pub(in crate::transport) fn audio_rate(&self) -> Bitrate {
        Bitrate::from_bps(self.audio_rate.load(Ordering::Relaxed))
    }

    /// Sets the rate on the wire that audio needs.
    pub(super) fn set_audio_rate(&self, rate: Bitrate) {
        self.audio_rate.store(rate.as_bps(), Ordering::Relaxed);
    }

    /// The rate on the wire that audio needs at least.
    pub(super) fn least_audio_rate(&self) -> Bitrate {
        Bitrate::from_bps(self.least_audio_rate.load(Ordering::Relaxed))
    }

    /// Sets the rate on the wire that audio needs at least.
    pub(in crate::transport) fn set_least_audio_rate(&self, rate: Bitrate) {
        self.least_audio_rate.store(rate.as_bps(), Ordering::Relaxed);
    }

    /// Sets the rate that the connection could use at most, on the wire.
    pub(in crate::transport) fn set_desired(&self, rate: Bitrate) {
        self.desired.store(rate.as_bps(), Ordering::Relaxed);
    }

    /// Sets the rate that the connection may use at most, on the wire.
    pub(in crate::transport) fn set_ceiling(&self, rate: Option<Bitrate>) {
        self.ceiling.store(rate.map_or(NO_LIMIT, Bitrate::as_bps), Ordering::Relaxed);
    }

    /// Sets the rate above which no probe looks for more.
    pub(in crate::transport) fn set_probe_limit(&self, rate: Option<Bitrate>) {
        self.probe_limit.store(rate.map_or(NO_LIMIT, Bitrate::as_bps), Ordering::Relaxed);
    }

    /// Sets with whom the connection takes turns to probe. Only the first call counts.
    pub(in crate::transport) fn set_probe_turns(&self, turns: ProbeTurns) {
        let _ = self.turns.set(turns);
    }

    /// Sets whether the connection may probe.
    pub(in crate::transport) fn set_may_probe(&self, may_probe: bool) {
        self.may_probe.store(may_probe, Ordering::Relaxed);
    }

    /// Tells the estimator what was set, and whether it is its turn to probe.
    pub(super) fn apply(&self, estimator: &mut BandwidthEstimator, now: MediaTime) {
        estimator.set_desired(Bitrate::from_bps(self.desired.load(Ordering::Relaxed)));
        estimator.set_probe_limit(limit(&self.probe_limit));
        estimator.set_ceiling(limit(&self.ceiling));
        let takes_turn = || self.turns.get().is_none_or(|turns| turns.acquire(self.peer, now));
        let may_probe = self.may_probe.load(Ordering::Relaxed);
        estimator.set_may_probe(may_probe && (!estimator.wants_probe() || takes_turn()));
    }

    /// When a probe that waits for its turn may be sent, which may be in the past; `None` if none
    /// waits.
    pub(super) fn next_turn(&self, estimator: &BandwidthEstimator) -> Option<MediaTime> {
        let waits = estimator.wants_probe() && self.may_probe.load(Ordering::Relaxed);
        waits.then(|| self.turns.get().and_then(ProbeTurns::next).unwrap_or_default())
    }

    /// Publishes an estimate.
    pub(super) fn publish(&self, estimate: Estimate) {
        self.estimates.send_if_modified(|latest| {
            let is_new = *latest != estimate;
            *latest = estimate;
            is_new
        });
    }
}

/// What an atomic says.
fn limit(bps: &AtomicU64) -> Option<Bitrate> {
    let bps = bps.load(Ordering::Relaxed);
    (bps != NO_LIMIT).then(|| Bitrate::from_bps(bps))
}

fn estimator(desired: Bitrate) -> BandwidthEstimator {
    let mut estimator = BandwidthEstimator::new(START, MIN_TARGET..=MAX_TARGET);
    estimator.set_desired(desired);
    estimator
}
