//! Whether the other end still reports what arrives.

use std::time::Duration;

use crate::model::MediaTime;

/// Notices that reports are missing: the path may have become so bad that nothing passes. The rate
/// then falls slowly, since it may only be the reports that are lost.
#[derive(Debug, Default)]
pub(super) struct FeedbackWatch {
    reported_at: Option<MediaTime>,
    /// When the first packet after the last report left.
    waits_since: Option<MediaTime>,
    /// Up to when the rate has been reduced.
    reduced_at: Option<MediaTime>,
}

/// How long the rate is kept: the larger one of this and three round trips.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is left of the rate after each second.
const DECAY: f64 = 0.8;

/// How often the rate falls.
const STEP: Duration = Duration::from_millis(200);

/// After such a silence, what was known of the delay is void.
const LONG_SILENCE: Duration = Duration::from_secs(2);

/// What a report ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    /// Reports came as they should.
    None,
    /// What was known of the delay is void.
    Long,
    /// The rate has been reduced meanwhile.
    Reduced,
}

impl FeedbackWatch {
    /// Whether there has been any report.
    pub(super) const fn has_reports(&self) -> bool {
        self.reported_at.is_some()
    }

    /// Whether reports are missing, so that the rate falls.
    pub(super) const fn is_missing(&self) -> bool {
        self.reduced_at.is_some()
    }

    pub(super) fn on_sent(&mut self, at: MediaTime) {
        self.waits_since.get_or_insert(at);
    }

    pub(super) fn on_report(&mut self, now: MediaTime) -> Silence {
        let before = self.reported_at.replace(now);
        self.waits_since = None;
        let is_long = before.is_some_and(|before| now.since(before) >= LONG_SILENCE);
        match self.reduced_at.take() {
            Some(_) => Silence::Reduced,
            None if is_long => Silence::Long,
            None => Silence::None,
        }
    }

    /// By which factor the rate falls now, if it does.
    pub(super) fn decay(&mut self, round_trip: Duration, now: MediaTime) -> Option<f64> {
        let due = self.due(round_trip).filter(|due| now >= *due)?;
        let from = self.reduced_at.unwrap_or(due);
        self.reduced_at = Some(now);
        Some(DECAY.powf(now.since(from).as_secs_f64()))
    }

    /// When the rate falls next, if no report comes.
    pub(super) fn due(&self, round_trip: Duration) -> Option<MediaTime> {
        let waits_since = self.waits_since?;
        let next = |at: MediaTime| at + STEP;
        Some(self.reduced_at.map_or(waits_since + PATIENCE.max(3 * round_trip), next))
    }
}
