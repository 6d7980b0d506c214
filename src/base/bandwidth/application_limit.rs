//! Whether the program sends clearly less than it may.

use std::time::Duration;

use crate::model::MediaTime;

/// Counts what is sent against 65 % of the target over half a second. Packets that follow such a
/// pause say little about the path. (libwebrtc's `AlrDetector`.)
#[derive(Debug, Default)]
pub(super) struct ApplicationLimit {
    /// The bytes that were not used, negative if more were used.
    unused: f64,
    counted_at: Option<MediaTime>,
    since: Option<MediaTime>,
    ended_at: Option<MediaTime>,
}

const SHARE: f64 = 0.65;
const WINDOW_S: f64 = 0.5;

/// It begins when so much of the budget is unused, and ends when so much is.
const BEGIN: f64 = 0.8;
const END: f64 = 0.5;

impl ApplicationLimit {
    /// Since when the application has been the limit.
    pub(super) const fn since(&self) -> Option<MediaTime> {
        self.since
    }

    /// Whether it is the limit or was so until a moment ago.
    pub(super) fn was_active(&self, within: Duration, now: MediaTime) -> bool {
        self.since.is_some() || self.ended_at.is_some_and(|at| now.since(at) < within)
    }

    /// Counts a packet that is not padding.
    pub(super) fn on_sent(&mut self, bytes: u32, at: MediaTime, target_bps: f64) {
        let Some(counted_at) = self.counted_at.replace(at) else { return };
        let bytes_per_second = SHARE * target_bps / 8.0;
        let most = bytes_per_second * WINDOW_S;
        let elapsed = at.since(counted_at).as_secs_f64();
        self.unused = (self.unused - f64::from(bytes)).max(-most);
        self.unused = (self.unused + bytes_per_second * elapsed).min(most);
        let ratio = if most > 0.0 { self.unused / most } else { 0.0 };
        if self.since.is_none() && ratio > BEGIN {
            self.since = Some(at);
        } else if self.since.is_some() && ratio < END {
            (self.since, self.ended_at) = (None, Some(at));
        }
    }
}
