//! How long to wait before a lost peer connection is tried again.

use std::time::Duration;

/// The delay after the first failure; it doubles with each.
const FIRST: Duration = Duration::from_millis(500);

/// The most doublings of the delay: up to 8 s.
const MAX_DOUBLINGS: u32 = 4;

/// The delay after that many consecutive failures, from 0.5 s to 8 s.
pub(super) fn retry_delay(failures: u32) -> Duration {
    FIRST * (1 << failures.saturating_sub(1).min(MAX_DOUBLINGS))
}
