//! The estimator of one peer connection.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    Estimate, FeedbackReport, LimitedBy, Pacing, PacketKind, ProbeCluster, SentPacket,
    fallback::Fallback,
    feedback_watch::{FeedbackWatch, Silence},
    path::Path,
    path_trend::PathTrend,
    probing::{ProbeConditions, Probing},
};
use crate::model::{Bitrate, MediaTime};

/// Estimates what one path carries, from the feedback of the other end.
///
/// It counts bytes on the wire. It has no clock: each function gets the time, which must not go
/// back. Its work for a report is bounded by the packets that were sent in the last four seconds,
/// whatever the report contains, and so is its memory.
///
/// Three rates are found: one at which the queue of the path stays short (`RateControl`), one that
/// loses no packets that a lower one would not lose (`LossTest`), and rates that short probes have
/// proved (`Probing`).
#[derive(Debug)]
pub struct BandwidthEstimator {
    bounds: (f64, f64),
    start: f64,
    target: f64,
    desired: f64,
    /// The governor's last word.
    ceiling: Option<Bitrate>,
    may_probe: bool,
    last_sent_at: Option<MediaTime>,
    path: Path,
    probing: Probing,
    watch: FeedbackWatch,
    fallback: Fallback,
}

/// The target falls to audio and the smallest video while no feedback comes, not further.
const BLIND_BPS: f64 = 231e3;

/// With a queue shorter than this, and this much more than is wanted or far less sent than the
/// target, packets may leave faster.
const NO_QUEUE: Duration = Duration::from_millis(5);
pub(super) const AMPLE: f64 = 1.2;

/// With so much more, keyframes may, too. The target rises to twice of what is wanted.
const FREE: f64 = 1.8;

/// Below this target a run of packets is a queue by itself, however little is sent.
const ROOMY: f64 = 1e6;

/// A peer that sends nothing for so long loses half of its estimate, and so on down to the start.
const IDLE: Duration = Duration::from_secs(10);

impl BandwidthEstimator {
    /// An estimator that begins with the target `start` and keeps it within `bounds`.
    pub fn new(start: Bitrate, bounds: RangeInclusive<Bitrate>) -> Self {
        let bps = |rate: &Bitrate| rate.as_bps() as f64;
        let (least, most) = (bps(bounds.start()), bps(bounds.end()).max(bps(bounds.start())));
        let start = bps(&start).clamp(least, most);
        Self {
            bounds: (least, most),
            start,
            target: start,
            desired: most,
            ceiling: None,
            may_probe: true,
            last_sent_at: None,
            path: Path::new(start),
            probing: Probing::default(),
            watch: FeedbackWatch::default(),
            fallback: Fallback::default(),
        }
    }

    /// Sets the rate that this peer could use at most; zero if there is nothing to send.
    pub fn set_desired(&mut self, rate: Bitrate) {
        let before = std::mem::replace(&mut self.desired, rate.as_bps() as f64);
        if self.desired > before && self.desired > self.target {
            self.probing.on_demand();
        }
    }

    /// Sets the target to the share that the governor gives this peer. The estimator goes on from
    /// there: the governor learns of more or less capacity by what its members find (RFC 8699).
    /// The same share again changes nothing. `None` if there is no governor.
    pub fn set_ceiling(&mut self, rate: Option<Bitrate>) {
        let before = std::mem::replace(&mut self.ceiling, rate);
        if let Some(rate) = rate.filter(|_| before != rate) {
            let bps = (rate.as_bps() as f64).clamp(self.bounds.0, self.bounds.1);
            self.path.rate.set_proved(bps);
            self.settle_target();
        }
    }

    /// Sets the rate above which no probe looks for more; `None` if there is no governor.
    pub fn set_probe_limit(&mut self, rate: Option<Bitrate>) {
        self.probing.set_most(rate.map(|rate| rate.as_bps() as f64));
    }

    /// Sets whether [`Self::poll`] may return probes: only one peer of a machine probes at a time.
    pub const fn set_may_probe(&mut self, may_probe: bool) {
        self.may_probe = may_probe;
    }

    /// Whether a probe waits until this peer may probe.
    pub fn wants_probe(&self) -> bool {
        self.desired > 0.0 && self.probing.is_planned()
    }

    /// Notes a packet that was handed to the socket.
    pub fn on_sent(&mut self, packet: SentPacket) {
        self.wake_up(packet.at);
        self.path.history.insert(packet);
        self.watch.on_sent(packet.at);
        self.count_sent(packet.kind, packet.bytes, packet.at);
    }

    /// Notes a packet that has no transport-wide number, because the other end did not accept the
    /// header extension for its stream. Nothing will be reported of it.
    pub fn on_sent_without_number(&mut self, kind: PacketKind, bytes: u32, at: MediaTime) {
        self.count_sent(kind, bytes, at);
    }

    /// Notes what the other end reports. Numbers that were never sent, and those that were
    /// reported before, count for nothing.
    pub fn on_feedback(&mut self, report: &FeedbackReport) {
        let now = report.at;
        let outcome = self.path.history.resolve(report);
        if outcome.received.is_empty() && outcome.lost.is_empty() {
            return;
        }
        match self.watch.on_report(now) {
            Silence::None => {}
            Silence::Long => self.path.trend = PathTrend::default(),
            Silence::Reduced => {
                self.path.trend = PathTrend::default();
                self.probing.restart();
            }
        }
        let before = self.target;
        let result = self.path.follow(&outcome, &(self.bounds.0..=self.most()), now);
        let bps = self.path.rate.bps();
        self.path.rate.set(bps.clamp(self.bounds.0, self.bounds.1));
        self.settle_target();
        self.probing.on_target(before, self.target, now);
        self.probing.update(&ProbeConditions {
            target: self.target,
            desired: self.desired,
            result,
            ..self.path.probe_conditions(now)
        });
    }

    /// Notes a measured round trip time.
    pub fn on_round_trip(&mut self, round_trip: Duration) {
        self.path.round_trip.on_measured(round_trip);
        self.fallback.on_round_trip(round_trip);
    }

    /// Notes a rate that the other end asks for (`goog-remb`). It counts only where no transport-wide
    /// feedback comes.
    pub fn on_remb(&mut self, rate: Bitrate, now: MediaTime) {
        self.fallback.on_remb(rate, now);
        self.follow_fallback(now);
    }

    /// Notes the part of the packets that the other end lost (RTCP receiver report). It counts only
    /// where no transport-wide feedback comes.
    pub fn on_receiver_report(&mut self, fraction_lost: f64, now: MediaTime) {
        self.fallback.on_receiver_report(fraction_lost, now);
        self.follow_fallback(now);
    }

    /// Follows the time: the target falls while feedback is missing. Returns a probe that is to be
    /// sent now.
    pub fn poll(&mut self, now: MediaTime) -> Option<ProbeCluster> {
        if let Some(factor) = self.blind_decay(now) {
            let least = BLIND_BPS.min(self.path.rate.bps());
            self.path.rate.set((self.path.rate.bps() * factor).max(least));
            self.settle_target();
        }
        if !self.may_probe || self.desired <= 0.0 {
            return None;
        }
        let cluster = self.probing.next(now)?;
        self.path.probes.expect(cluster);
        Some(cluster)
    }

    /// When [`Self::poll`] has something to do, which may be in the past; `None` while there is
    /// nothing to wait for.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        if self.may_probe && self.desired > 0.0 && self.probing.is_planned() {
            return Some(MediaTime::default());
        }
        let can_fall = !self.uses_fallback() && self.path.rate.bps() > BLIND_BPS;
        self.watch.due(self.path.round_trip.smoothed()).filter(|_| can_fall)
    }

    /// What the estimator says now.
    pub fn estimate(&self) -> Estimate {
        let is_fallback = self.uses_fallback();
        let loss = if is_fallback { self.fallback.loss() } else { self.path.loss.loss() };
        Estimate {
            target: Bitrate::from_bps(self.target as u64),
            proved: Bitrate::from_bps(self.path.rate.proved().min(self.target) as u64),
            limited_by: self.limited_by(loss),
            loss,
            queue: self.path.queue.delay(),
            round_trip: self.path.round_trip.known(),
            acknowledged: self.acknowledged().map(|bps| Bitrate::from_bps(bps as u64)),
            reports_arrivals: !is_fallback,
            is_application_limited: self.path.application.since().is_some(),
            is_testing: self.path.loss.is_testing(),
            pacing: self.pacing(),
            is_overused: self.path.is_overused || self.path.loss.is_confirmed(),
            ceiling: self.ceiling,
        }
    }

    /// Notes that packets take another way now. Of what was known of the old one only the rate is
    /// kept, as far as it was used.
    pub fn on_route_change(&mut self, _now: MediaTime) {
        let used = self.path.acknowledged.bps().map_or(self.target, |bps| bps.min(self.target));
        self.path = Path::new(used.clamp(self.bounds.0, self.bounds.1));
        self.probing.restart();
        self.watch = FeedbackWatch::default();
        self.settle_target();
    }
}

/// The steps.
impl BandwidthEstimator {
    fn count_sent(&mut self, kind: PacketKind, bytes: u32, at: MediaTime) {
        self.last_sent_at = Some(at);
        self.fallback.on_sent(kind, bytes, at);
        if kind != PacketKind::Padding {
            self.path.application.on_sent(bytes, at, self.target);
        }
    }

    /// After a long time without packets, little is known.
    fn wake_up(&mut self, now: MediaTime) {
        let idle = self.last_sent_at.map_or(Duration::ZERO, |at| now.since(at));
        if idle < IDLE {
            return;
        }
        let halvings = (idle.as_secs() / IDLE.as_secs()).min(30);
        let least = self.start.min(self.path.rate.bps());
        let bps = self.path.rate.bps() * 0.5_f64.powi(halvings as i32);
        self.path = Path::new(bps.max(least));
        self.probing.restart();
        self.settle_target();
    }

    fn follow_fallback(&mut self, now: MediaTime) {
        if self.uses_fallback() {
            let ceiling = self.ceiling.map_or(f64::INFINITY, |rate| rate.as_bps() as f64);
            let most = self.most().min(ceiling).max(self.bounds.0);
            let bps = self.fallback.target((self.bounds.0, most), now);
            self.path.rate.set(bps);
            self.settle_target();
        }
    }

    fn acknowledged(&self) -> Option<f64> {
        if self.uses_fallback() { self.fallback.sent() } else { self.path.acknowledged.bps() }
    }

    /// Whether the other end reports only what older programs report.
    const fn uses_fallback(&self) -> bool {
        !self.watch.has_reports() && self.fallback.has_reports()
    }

    fn blind_decay(&mut self, now: MediaTime) -> Option<f64> {
        let is_fallback = self.uses_fallback();
        self.watch.decay(self.path.round_trip.smoothed(), now).filter(|_| !is_fallback)
    }

    /// The rate above which nothing is gained: growth ends there.
    fn most(&self) -> f64 {
        (2.0 * self.desired).clamp(self.bounds.0, self.bounds.1)
    }

    fn settle_target(&mut self) {
        let delay = self.path.rate.bps();
        let bps = self.path.loss.bps().map_or(delay, |loss| loss.min(delay));
        self.target = bps.clamp(self.bounds.0, self.bounds.1);
    }

    fn limited_by(&self, loss: f64) -> LimitedBy {
        if self.watch.is_missing() && !self.uses_fallback() {
            LimitedBy::MissingFeedback
        } else if self.target >= self.desired {
            LimitedBy::Demand
        } else if self.path.loss.bps().is_some() || self.uses_fallback() && loss > 0.02 {
            LimitedBy::Loss
        } else if self.ceiling.is_some() {
            LimitedBy::Ceiling
        } else {
            LimitedBy::Delay
        }
    }

    fn pacing(&self) -> Pacing {
        let is_unused = self.path.application.since().is_some() && self.target >= ROOMY;
        // What has only grown to so much may be a queue.
        let proved = self.path.rate.proved().min(self.target);
        let has_room = proved >= AMPLE * self.desired || is_unused;
        if self.path.loss.is_confirmed() {
            Pacing::Shallow
        } else if !self.watch.has_reports() {
            Pacing::Starting
        } else if has_room && self.path.queue.delay() < NO_QUEUE {
            if proved >= FREE * self.desired { Pacing::Free } else { Pacing::Ample }
        } else {
            Pacing::Limited
        }
    }
}
