//! When to probe, and how fast.

use std::{collections::VecDeque, time::Duration};

use super::{ClusterId, ProbeCluster, estimator::AMPLE};
use crate::model::{Bitrate, MediaTime};

/// Decides about probes. At the start, after a drop and when more is wanted it does what libwebrtc
/// does.
///
/// Beside that, and in place of libwebrtc's probes while the application limits the rate, a *headroom probe* asks every few seconds for up to twice the rate while the queue
/// is empty. Without it a path whose capacity has doubled is used again after 13 s or never, with
/// it after 4 s; it costs 15 ms of a fuller queue.
#[derive(Debug, Default)]
pub(super) struct Probing {
    last_id: u32,
    /// The probes that are to be sent when the machine's other peers send none.
    planned: VecDeque<Plan>,
    started_at: Option<MediaTime>,
    probed_at: Option<MediaTime>,
    /// A probe that proves more than this is followed by another one.
    follow_above: Option<f64>,
    /// Since when the queue has been short and the use normal.
    calm_since: Option<MediaTime>,
    /// When the rate fell by more than a third, and from where.
    drop: Option<(MediaTime, f64)>,
    has_demand_risen: bool,
    /// The governor's limit of a probe's rate.
    most: Option<f64>,
}

/// A probe that is to be sent.
#[derive(Clone, Copy, Debug)]
struct Plan {
    bps: f64,
    length_s: f64,
    is_followed: bool,
}

/// What the decision needs to know at a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeConditions {
    pub(super) now: MediaTime,
    /// The target in bits per second, and what the peer could use.
    pub(super) target: f64,
    pub(super) desired: f64,
    /// The rate that a probe has just proved.
    pub(super) result: Option<f64>,
    /// Whether the use is normal, the queue short, and no loss test runs.
    pub(super) is_allowed: bool,
    pub(super) is_calm: bool,
    /// Whether the queue has just been drained.
    pub(super) has_recovered: bool,
    pub(super) was_application_limited: bool,
}

/// The rates of the first probes, as multiples of the rate at the start.
const START: [f64; 2] = [3.0, 6.0];

/// A result above this part of a probe's rate is followed by a probe of twice the result.
const FOLLOWED: f64 = 0.7;

/// The length of a probe, and its fewest packets.
const LENGTH_S: f64 = 0.015;
const PACKETS: u32 = 5;

/// The length of a headroom probe. Most probes of 15 ms fail where arrivals jitter by 5 ms.
const HEADROOM_LENGTH_S: f64 = 0.025;

/// The least interval of probes that look whether there is more.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long it must be calm before a headroom probe.
const CALM: Duration = Duration::from_millis(1500);

/// A result this far above the target counts.
pub(super) const SUCCESS: f64 = 1.05;

/// Headroom is looked for until the target is so much more than is wanted that packets need no
/// pacing, and at most so far: as much as keyframes need that leave at once. A probe of less does not
/// tell a path that has it from one that has hardly more than is wanted.
const ENOUGH: f64 = 2.0;

/// A target below this part of what was had leaves something to look for.
const WORTHWHILE: f64 = 0.95;

/// A drop by more than a third is probed for when it is over, within this time.
const DROP: f64 = 0.66;
const DROP_MEMORY: Duration = Duration::from_secs(5);
const DROP_RATE: f64 = 0.85;

impl Plan {
    /// A probe that is not followed by another one.
    const fn new(bps: f64) -> Self {
        Self { bps, length_s: LENGTH_S, is_followed: false }
    }
}

impl Probing {
    /// Begins as at the start, with the next report.
    pub(super) fn restart(&mut self) {
        *self = Self { last_id: self.last_id, most: self.most, ..Self::default() };
    }

    /// Sets the most that a probe may look for.
    pub(super) const fn set_most(&mut self, bps: Option<f64>) {
        self.most = bps;
    }

    /// Notes that more is wanted than before, and than the target.
    pub(super) const fn on_demand(&mut self) {
        self.has_demand_risen = true;
    }

    /// Notes a changed target.
    pub(super) fn on_target(&mut self, before: f64, after: f64, now: MediaTime) {
        if after < DROP * before {
            self.drop = Some((now, before));
        }
    }

    /// Whether a probe waits to be sent.
    pub(super) fn is_planned(&self) -> bool {
        !self.planned.is_empty()
    }

    /// Takes the next probe.
    pub(super) fn next(&mut self, now: MediaTime) -> Option<ProbeCluster> {
        let Plan { bps, length_s, is_followed } = self.planned.pop_front()?;
        self.last_id = self.last_id.wrapping_add(1);
        self.probed_at = Some(now);
        self.follow_above = is_followed.then_some(FOLLOWED * bps);
        Some(ProbeCluster {
            id: ClusterId(self.last_id),
            rate: Bitrate::from_bps(bps as u64),
            bytes: (bps * length_s / 8.0) as u32,
            packets: PACKETS,
        })
    }

    /// Decides after a report.
    pub(super) fn update(&mut self, conditions: &ProbeConditions) {
        let now = conditions.now;
        if conditions.is_calm {
            self.calm_since.get_or_insert(now);
        } else {
            self.calm_since = None;
        }
        if self.started_at.is_none() {
            self.started_at = Some(now);
            self.planned.clear();
            let [first, last] = START.map(|factor| factor * conditions.target);
            self.plan(Plan::new(first), conditions);
            self.plan(Plan { is_followed: true, ..Plan::new(last) }, conditions);
        } else if !conditions.is_allowed {
            self.planned.clear();
        } else if std::mem::take(&mut self.has_demand_risen) {
            self.planned.clear();
            if conditions.target < conditions.desired {
                let first = (2.0 * conditions.target).min(conditions.desired);
                self.plan(Plan::new(first), conditions);
                self.plan(Plan::new(2.0 * conditions.desired), conditions);
            }
        } else if let Some(plan) = self.due(conditions) {
            // What was planned and not sent is decided again with what is known now.
            self.planned.clear();
            self.plan(plan, conditions);
        }
    }

    fn plan(&mut self, plan: Plan, conditions: &ProbeConditions) {
        let most = (2.0 * conditions.desired).min(self.most.unwrap_or(f64::INFINITY));
        let is_followed = plan.is_followed && plan.bps < most;
        self.planned.push_back(Plan { bps: plan.bps.min(most), is_followed, ..plan });
    }

    /// The probe that is due, if any.
    fn due(&self, conditions: &ProbeConditions) -> Option<Plan> {
        let ProbeConditions { target, desired, .. } = *conditions;
        let followed = |bps| Plan { is_followed: true, ..Plan::new(bps) };
        if let Some(bps) = self.following(conditions) {
            Some(followed(bps))
        } else if let Some(bps) = self.after_drop(conditions) {
            Some(Plan::new(bps))
        } else {
            let plan = followed((2.0 * target).min(ENOUGH * desired));
            let plan = Plan { length_s: HEADROOM_LENGTH_S, ..plan };
            self.is_headroom_due(conditions).then_some(plan)
        }
    }

    /// Twice what a probe has proved, if it proved much.
    fn following(&self, conditions: &ProbeConditions) -> Option<f64> {
        let threshold = self.follow_above?;
        conditions.result.filter(|result| *result > threshold).map(|result| 2.0 * result)
    }

    /// Most of the rate before a drop, once the queue is drained.
    fn after_drop(&self, conditions: &ProbeConditions) -> Option<f64> {
        let (at, before) = self.drop.filter(|_| conditions.has_recovered)?;
        let bps = DROP_RATE * before;
        let is_due = conditions.now.since(at) < DROP_MEMORY
            && self.is_past(DROP_MEMORY, conditions.now)
            && conditions.was_application_limited
            && WORTHWHILE * bps > conditions.target;
        is_due.then_some(bps)
    }

    fn is_headroom_due(&self, conditions: &ProbeConditions) -> bool {
        self.calm_since.is_some_and(|since| conditions.now.since(since) > CALM)
            && conditions.target < AMPLE * conditions.desired
            && self.is_past(INTERVAL, conditions.now)
    }

    /// Whether a time has passed since the last probe.
    fn is_past(&self, time: Duration, now: MediaTime) -> bool {
        self.probed_at.is_none_or(|at| now.since(at) > time)
    }
}
