//! Limits how often a remote peer may have its peer connection replaced.

use std::time::Duration;

use crate::model::MediaTime;

/// The most connections that a remote peer may have us replace within [`REPLACEMENT_WINDOW`].
///
/// A well-behaved peer pauses half a second and longer after each failure.
pub(super) const MAX_REPLACEMENTS: u32 = 10;

/// The time window of [`MAX_REPLACEMENTS`].
pub(super) const REPLACEMENT_WINDOW: Duration = Duration::from_secs(10);

/// Counts the connections that the remote peer has had replaced in the current window.
#[derive(Debug, Default)]
pub(super) struct ReplacementLimiter {
    since: MediaTime,
    count: u32,
}

impl ReplacementLimiter {
    /// Whether one more replacement is within the limit; counts it.
    pub(super) fn admits(&mut self, now: MediaTime) -> bool {
        if now >= self.since + REPLACEMENT_WINDOW {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_REPLACEMENTS
    }
}
