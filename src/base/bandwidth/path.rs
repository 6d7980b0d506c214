//! What is known of one path, and what each report changes.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    acknowledged_rate::AcknowledgedRate,
    application_limit::ApplicationLimit,
    history::{Outcome, SentHistory},
    loss_test::{LossConditions, LossTest},
    path_queue::PathQueue,
    path_trend::PathTrend,
    probe_results::ProbeResults,
    probing::{ProbeConditions, SUCCESS},
    rate_control::{Conditions, RateControl},
    round_trip::RoundTrip,
    trendline::Usage,
};
use crate::model::MediaTime;

/// What is known of one path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) history: SentHistory,
    pub(super) trend: PathTrend,
    pub(super) queue: PathQueue,
    pub(super) acknowledged: AcknowledgedRate,
    pub(super) rate: RateControl,
    pub(super) loss: LossTest,
    pub(super) application: ApplicationLimit,
    pub(super) probes: ProbeResults,
    pub(super) round_trip: RoundTrip,
    pub(super) is_overused: bool,
}

/// Probes need a queue that is not longer than this.
const SHORT_QUEUE: Duration = Duration::from_millis(20);

/// How long after the application was the limit a drop may be its fault.
const APPLICATION_MEMORY: Duration = Duration::from_secs(3);

impl Path {
    /// A path of which nothing is known but that it may carry this rate.
    pub(super) fn new(bps: f64) -> Self {
        Self {
            history: SentHistory::default(),
            trend: PathTrend::default(),
            queue: PathQueue::default(),
            acknowledged: AcknowledgedRate::default(),
            rate: RateControl::new(bps),
            loss: LossTest::default(),
            application: ApplicationLimit::default(),
            probes: ProbeResults::default(),
            round_trip: RoundTrip::default(),
            is_overused: false,
        }
    }

    /// Follows a report. The rate grows within the bounds, in bits per second. Returns what a probe
    /// has proved.
    pub(super) fn follow(
        &mut self,
        outcome: &Outcome,
        bounds: &RangeInclusive<f64>,
        now: MediaTime,
    ) -> Option<f64> {
        self.round_trip.on_report(outcome, now);
        let result = self.follow_delay(outcome, bounds, now);
        self.loss.update(
            outcome,
            &LossConditions {
                delay_bps: self.rate.bps(),
                acknowledged: self.acknowledged.bps(),
                round_trip: self.round_trip.smoothed(),
                is_application_limited: self.application.since().is_some(),
            },
        );
        result
    }

    /// What is to be known when probes are decided on after a report.
    pub(super) fn probe_conditions(&self, now: MediaTime) -> ProbeConditions {
        let is_normal = !self.is_overused && self.trend.usage() == Usage::Normal;
        ProbeConditions {
            now,
            target: self.rate.bps(),
            desired: 0.0,
            result: None,
            is_allowed: is_normal && !self.loss.is_testing(),
            is_calm: is_normal && self.queue.delay() <= SHORT_QUEUE,
            has_recovered: self.trend.has_recovered(),
            was_application_limited: self.application.was_active(APPLICATION_MEMORY, now),
        }
    }

    fn follow_delay(
        &mut self,
        outcome: &Outcome,
        bounds: &RangeInclusive<f64>,
        now: MediaTime,
    ) -> Option<f64> {
        self.acknowledged.add(outcome);
        if self.trend.add(&outcome.received) {
            self.queue = PathQueue::default();
        }
        self.queue.add(&outcome.received, now);
        let result = self.probes.add(&outcome.received);
        let is_standing = self.queue.is_standing(self.trend.usage() == Usage::Over, now);
        let usage = if is_standing { Usage::Over } else { self.trend.usage() };
        self.is_overused = usage == Usage::Over;
        // A probe that proves less was a bad moment, or the queue of another flow.
        let proved = result.filter(|bps| !self.is_overused && *bps > SUCCESS * self.rate.bps());
        if let Some(bps) = proved {
            self.rate.on_probe(bps.min(*bounds.end()), now);
        } else if !outcome.received.is_empty() {
            self.rate.update(&Conditions {
                now,
                usage,
                is_standing,
                acknowledged: self.acknowledged.bps(),
                round_trip: self.round_trip.smoothed(),
                most: *bounds.end(),
            });
        }
        result
    }
}
