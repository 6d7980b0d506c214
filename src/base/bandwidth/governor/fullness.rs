//! Whether the uplink is full for so long that the user should know.

use std::time::Duration;

use crate::model::MediaTime;

/// Whether the uplink keeps peers from the video that they want, once that has lasted: neither a start,
/// when nothing is known, nor a probe that proves more for a moment, is told.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fullness {
    is_full: bool,
    /// Since when it has been otherwise.
    differs_since: Option<MediaTime>,
}

/// It is full after this time, and has room again after that one: sentences that come and go
/// disturb more than a full uplink.
const FULL_AFTER: Duration = Duration::from_secs(5);
const ROOM_AFTER: Duration = Duration::from_secs(10);

impl Fullness {
    pub(super) const fn is_full(self) -> bool {
        self.is_full
    }

    /// Follows whether a peer lacks something now.
    pub(super) fn update(&mut self, is_lacking: bool, now: MediaTime) {
        if is_lacking == self.is_full {
            self.differs_since = None;
            return;
        }
        let patience = if is_lacking { FULL_AFTER } else { ROOM_AFTER };
        if now.since(*self.differs_since.get_or_insert(now)) >= patience {
            *self = Self { is_full: is_lacking, differs_since: None };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_tells_nothing() {
        let mut fullness = Fullness::default();
        let mut pass = |seconds: std::ops::Range<u64>, is_lacking| {
            for second in seconds {
                fullness.update(is_lacking, MediaTime::from_micros(second * 1_000_000));
            }
            fullness.is_full()
        };
        assert!(!pass(0..5, true) && !pass(5..6, false) && !pass(6..11, true));
        assert!(pass(11..12, true), "five seconds in a row");
        assert!(pass(12..22, false) && pass(22..23, true), "a probe, and it is full again");
        assert!(pass(23..33, false) && !pass(33..34, false), "ten seconds in a row");
    }
}
