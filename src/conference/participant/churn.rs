//! Bounds how often the other end may have a connection replaced.

use std::time::Duration;

use crate::model::MediaTime;

/// Connections that the other end may have us replace within [`CHURN_SPAN`].
///
/// An honest one pauses half a second and longer after each failure.
pub(super) const MAX_CHURN: u32 = 10;

/// The span that [`MAX_CHURN`] counts in.
pub(super) const CHURN_SPAN: Duration = Duration::from_secs(10);

/// Connections that the other end has had replaced lately.
#[derive(Debug, Default)]
pub(super) struct Churn {
    since: MediaTime,
    count: u32,
}

impl Churn {
    /// Whether one more replacement is within measure; counts it.
    pub(super) fn admits(&mut self, now: MediaTime) -> bool {
        if now >= self.since + CHURN_SPAN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_CHURN
    }
}
