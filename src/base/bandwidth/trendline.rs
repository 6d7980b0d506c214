//! Whether a queue on the path grows: the trend of the delay.

use std::collections::VecDeque;

use super::packet_groups::GroupDelta;

/// The slope of the one-way delay over the last packet groups, and its comparison with a threshold
/// that adapts itself. (libwebrtc's `TrendlineEstimator`; the gains of the threshold are those of
/// its source, not of draft-ietf-rmcat-gcc-02, whose filter is another one.)
#[derive(Debug)]
pub(super) struct Trendline {
    groups: u32,
    /// The sum of all differences, and its smoothed value: the delay from the first group on.
    delay_ms: f64,
    smoothed_ms: f64,
    /// Arrival times and smoothed delays of the last groups.
    points: VecDeque<(f64, f64)>,
    first_arrival_ms: Option<f64>,
    slope: f64,
    threshold: f64,
    adapted_at_ms: Option<f64>,
    /// For how long the slope has been above the threshold.
    over: Option<Over>,
    usage: Usage,
}

#[derive(Clone, Copy, Debug)]
struct Over {
    send_ms: f64,
    groups: u32,
}

/// How the path is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Usage {
    /// The queue becomes shorter.
    Under,
    /// The queue stays as it is.
    Normal,
    /// The queue grows.
    Over,
}

/// The groups that the slope is taken over.
const WINDOW: usize = 20;

/// The share of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;

/// What the slope is multiplied with before it is compared: a gain, and the number of groups up to
/// this many.
const GAIN: f64 = 4.0;
const MAX_GROUPS: u32 = 60;

/// The threshold in milliseconds: at first, and its bounds.
const FIRST_THRESHOLD: f64 = 12.5;
const THRESHOLDS: (f64, f64) = (6.0, 600.0);

/// How fast the threshold follows a larger and a smaller slope, per millisecond.
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;

/// A slope so far above the threshold does not move it.
const MAX_EXCESS: f64 = 15.0;

/// How long the slope must be above the threshold.
const OVERUSE_MS: f64 = 10.0;

impl Default for Trendline {
    fn default() -> Self {
        Self {
            groups: 0,
            delay_ms: 0.0,
            smoothed_ms: 0.0,
            points: VecDeque::with_capacity(WINDOW + 1),
            first_arrival_ms: None,
            slope: 0.0,
            threshold: FIRST_THRESHOLD,
            adapted_at_ms: None,
            over: None,
            usage: Usage::Normal,
        }
    }
}

impl Trendline {
    /// How the path was used when the last group arrived.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Adds a group of packets.
    pub(super) fn add(&mut self, delta: GroupDelta) {
        self.groups = (self.groups + 1).min(MAX_GROUPS);
        self.delay_ms += delta.arrival_ms - delta.send_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.delay_ms;
        let first = *self.first_arrival_ms.get_or_insert(delta.arrived_at_ms);
        self.points.push_back((delta.arrived_at_ms - first, self.smoothed_ms));
        if self.points.len() > WINDOW {
            self.points.pop_front();
        }
        let is_full = self.points.len() == WINDOW;
        let slope = if is_full { self.fitted_slope().unwrap_or(self.slope) } else { self.slope };
        if self.groups >= 2 {
            self.detect(slope, delta.send_ms);
            self.adapt_threshold(delta.arrived_at_ms);
        }
    }

    /// The slope, scaled so that it can be compared with the threshold.
    fn scaled_slope(&self) -> f64 {
        f64::from(self.groups) * self.slope * GAIN
    }

    fn detect(&mut self, slope: f64, send_ms: f64) {
        let previous = std::mem::replace(&mut self.slope, slope);
        let scaled = self.scaled_slope();
        if scaled <= self.threshold {
            self.over = None;
            self.usage = if scaled < -self.threshold { Usage::Under } else { Usage::Normal };
            return;
        }
        let over = match self.over {
            // It became so some time during the first group.
            None => Over { send_ms: send_ms / 2.0, groups: 1 },
            Some(Over { send_ms: before, groups }) => {
                Over { send_ms: before + send_ms, groups: groups + 1 }
            }
        };
        self.over = Some(over);
        if over.send_ms > OVERUSE_MS && over.groups > 1 && slope >= previous {
            self.over = Some(Over { send_ms: 0.0, groups: 0 });
            self.usage = Usage::Over;
        }
    }

    fn adapt_threshold(&mut self, arrived_at_ms: f64) {
        let since = self.adapted_at_ms.map_or(0.0, |at| arrived_at_ms - at);
        self.adapted_at_ms = Some(arrived_at_ms);
        let scaled = self.scaled_slope().abs();
        if scaled <= self.threshold + MAX_EXCESS {
            let gain = if scaled < self.threshold { FALL } else { RISE };
            let (least, most) = THRESHOLDS;
            self.threshold += gain * (scaled - self.threshold) * since.clamp(0.0, 100.0);
            self.threshold = self.threshold.clamp(least, most);
        }
    }

    /// The slope of the line through the points (least squares); `None` if all arrived at once.
    fn fitted_slope(&self) -> Option<f64> {
        let count = self.points.len() as f64;
        let (sum_x, sum_y) =
            self.points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (mut products, mut squares) = (0.0, 0.0);
        for (x, y) in &self.points {
            products += (x - mean_x) * (y - mean_y);
            squares += (x - mean_x) * (x - mean_x);
        }
        (squares > 0.0).then(|| products / squares)
    }
}
