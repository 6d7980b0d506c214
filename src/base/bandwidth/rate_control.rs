//! The delay-based rate: additive increase, multiplicative decrease.

use std::time::Duration;

use super::trendline::Usage;
use crate::model::MediaTime;

/// Raises the rate while the queue is empty, and falls below the rate that arrives when it grows.
///
/// (Carlucci and others, 2016, section 4.4; libwebrtc's `AimdRateControl`.)
#[derive(Debug)]
pub(super) struct RateControl {
    bps: f64,
    /// The part of it that the path has been shown to carry.
    proved: f64,
    state: State,
    changed_at: Option<MediaTime>,
    capacity: CapacityBand,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Hold,
    Increase,
}

/// What the rate control has to know at a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) now: MediaTime,
    pub(super) usage: Usage,
    /// Whether the queue has been long for too long, which is an overuse without a trend.
    pub(super) is_standing: bool,
    /// The rate that arrives, in bits per second.
    pub(super) acknowledged: Option<f64>,
    pub(super) round_trip: Duration,
    /// Growth ends here.
    pub(super) most: f64,
}

/// The rate after a decrease, as a part of what arrived, and a constant that is taken off.
const DECREASE: f64 = 0.85;
const DECREASE_BPS: f64 = 5e3;

/// How much the rate grows each second while the capacity is unknown.
const GROWTH: f64 = 1.08;

/// The least growth.
const LEAST_STEP_BPS: f64 = 1e3;
const LEAST_SLOPE_BPS: f64 = 4e3;

/// The rate stays below what arrives times this, plus a constant: a rate that is not used is not
/// proved.
const MAX_UNPROVED: f64 = 1.5;
const MAX_UNPROVED_BPS: f64 = 10e3;

/// The time until the other end's report of a change, beside the round trip.
const RESPONSE: Duration = Duration::from_millis(100);

impl RateControl {
    pub(super) fn new(bps: f64) -> Self {
        let capacity = CapacityBand::default();
        Self { bps, proved: 0.0, state: State::Increase, changed_at: None, capacity }
    }

    pub(super) const fn bps(&self) -> f64 {
        self.bps
    }

    /// The part of the rate that the path has been shown to carry, in bits per second.
    pub(super) const fn proved(&self) -> f64 {
        self.proved.min(self.bps)
    }

    /// Sets the rate that somebody else has decided.
    pub(super) const fn set(&mut self, bps: f64) {
        self.bps = bps;
        self.proved = self.proved();
    }

    /// Sets a rate that others have proved.
    pub(super) const fn set_proved(&mut self, bps: f64) {
        (self.bps, self.proved) = (bps, bps);
    }

    /// Takes the rate that a probe has proved: the capacity is another one than was thought.
    pub(super) fn on_probe(&mut self, bps: f64, now: MediaTime) {
        (self.bps, self.proved) = (bps, bps);
        self.capacity = CapacityBand::default();
        self.changed_at = Some(now);
    }

    /// Follows a report.
    pub(super) fn update(&mut self, conditions: &Conditions) {
        match conditions.usage {
            Usage::Under => self.state = State::Hold,
            Usage::Normal => self.increase(conditions),
            Usage::Over => self.on_overuse(conditions),
        }
        // What a queue holds up arrives, and proves nothing.
        let arrives = conditions.acknowledged.filter(|_| conditions.usage == Usage::Normal);
        self.proved = self.proved.max(arrives.unwrap_or(0.0)).min(self.bps);
    }

    /// A change shows in the delay after a round trip: signs of overuse that come earlier are of what
    /// was before, or of a moment only. A queue that stands is neither.
    fn on_overuse(&mut self, conditions: &Conditions) {
        let acknowledged = conditions.acknowledged.unwrap_or(self.bps);
        let patience =
            conditions.round_trip.clamp(Duration::from_millis(10), Duration::from_millis(200));
        let is_due = self.changed_at.is_none_or(|at| conditions.now.since(at) >= patience);
        if is_due || conditions.is_standing || acknowledged < 0.5 * self.bps {
            self.decrease(acknowledged, conditions.now);
        }
    }

    fn decrease(&mut self, acknowledged: f64, now: MediaTime) {
        let reduced = DECREASE * acknowledged;
        let mut reduced = if reduced > DECREASE_BPS { reduced - DECREASE_BPS } else { reduced };
        if let Some(mean) = self.capacity.mean().filter(|_| reduced > self.bps) {
            reduced = DECREASE * mean;
        }
        if acknowledged < self.capacity.lower() {
            self.capacity = CapacityBand::default();
        }
        self.capacity.add(acknowledged);
        self.bps = self.bps.min(reduced);
        self.state = State::Hold;
        self.changed_at = Some(now);
    }

    fn increase(&mut self, conditions: &Conditions) {
        let Conditions { now, acknowledged, most, .. } = *conditions;
        if self.state == State::Hold {
            self.state = State::Increase;
            self.changed_at = Some(now);
        }
        let acknowledged = acknowledged.unwrap_or(self.bps);
        if acknowledged > self.capacity.upper() {
            self.capacity = CapacityBand::default();
        }
        let limit = (MAX_UNPROVED * acknowledged + MAX_UNPROVED_BPS).min(most);
        if self.bps < limit {
            let elapsed = self.changed_at.map_or(0.0, |at| now.since(at).as_secs_f64().min(1.0));
            self.bps = (self.bps + self.step(elapsed, conditions.round_trip)).min(limit);
        }
        self.changed_at = Some(now);
    }

    /// By how much the rate grows: near the capacity by about a packet each response time.
    fn step(&self, elapsed: f64, round_trip: Duration) -> f64 {
        if self.capacity.mean().is_none() {
            return (self.bps * (GROWTH.powf(elapsed) - 1.0)).max(LEAST_STEP_BPS);
        }
        let (frames, packet_bytes) = (30.0, 1200.0);
        let frame_bytes = self.bps / frames / 8.0;
        let packet_bits = 8.0 * frame_bytes / (frame_bytes / packet_bytes).ceil().max(1.0);
        let response = (round_trip + RESPONSE).as_secs_f64();
        (packet_bits / (2.0 * response)).max(LEAST_SLOPE_BPS) * elapsed
    }
}

/// The capacity, as the rates that arrived when it was used up show it: mean and deviation.
#[derive(Debug)]
struct CapacityBand {
    /// In kbit/s.
    mean: Option<f64>,
    /// The variance as a part of the mean.
    variance: f64,
}

/// The share of a new sample.
const SAMPLE_SHARE: f64 = 0.05;

/// The bounds of the variance, in kbit/s.
const VARIANCES: (f64, f64) = (0.4, 2.5);

impl Default for CapacityBand {
    fn default() -> Self {
        Self { mean: None, variance: VARIANCES.0 }
    }
}

impl CapacityBand {
    fn mean(&self) -> Option<f64> {
        self.mean.map(|mean| mean * 1e3)
    }

    fn upper(&self) -> f64 {
        self.mean.map_or(f64::INFINITY, |mean| (mean + self.deviations(mean)) * 1e3)
    }

    fn lower(&self) -> f64 {
        self.mean.map_or(0.0, |mean| (mean - self.deviations(mean)) * 1e3)
    }

    fn deviations(&self, mean: f64) -> f64 {
        3.0 * (self.variance * mean).sqrt()
    }

    fn add(&mut self, bps: f64) {
        let sample = bps / 1e3;
        let old = self.mean.unwrap_or(sample);
        let mean = old + SAMPLE_SHARE * (sample - old);
        let square = (mean - sample).powi(2) / mean.max(1.0);
        let variance = (1.0 - SAMPLE_SHARE) * self.variance + SAMPLE_SHARE * square;
        (self.mean, self.variance) = (Some(mean), variance.clamp(VARIANCES.0, VARIANCES.1));
    }
}
