//! Unwraps sequence numbers and timestamps, and counts received and lost packets.

/// Converts a counter modulo 2ⁿ to one that does not wrap.
///
/// Each value is interpreted as the number nearest to the newest so far, so that up to half the
/// counter's range may be lost or reordered at once (RFC 3550, appendix A.1; RFC 1982).
#[derive(Debug)]
pub(crate) struct Unwrapper {
    span: i64,
    newest: Option<i64>,
}

impl Unwrapper {
    /// For sequence numbers, modulo 2¹⁶.
    pub(crate) const fn of_16_bits() -> Self {
        Self { span: 1 << 16, newest: None }
    }

    /// For timestamps, modulo 2³².
    pub(crate) const fn of_32_bits() -> Self {
        Self { span: 1 << 32, newest: None }
    }

    /// Returns the unwrapped number. The first value is returned unchanged.
    pub(crate) fn unwrap(&mut self, value: u32) -> i64 {
        let value = i64::from(value);
        let Some(newest) = self.newest else {
            self.newest = Some(value);
            return value;
        };
        let ahead = (value - newest).rem_euclid(self.span);
        let step = if ahead >= self.span / 2 { ahead - self.span } else { ahead };
        self.newest = Some(newest.max(newest + step));
        newest + step
    }

    /// Continues from `number`, even if it is older: the sender has restarted.
    pub(crate) const fn restart(&mut self, number: i64) {
        self.newest = Some(number);
    }
}

/// How the sequence number of a packet relates to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SequenceStatus {
    /// The packet is new.
    New,
    /// The packet arrived before, or is too old to tell.
    Duplicate,
    /// The sender has restarted: packets that are still held belong to the old sequence.
    Restarted,
}

/// Tracks which of the newest packets arrived and how many are lost.
#[derive(Debug)]
pub(super) struct SequenceTracker {
    numbers: Unwrapper,
    highest: Option<i64>,
    /// Bit `n` is set if the packet `highest - n` arrived.
    seen: u128,
    expected: u64,
    received: u64,
    /// Consecutive packets that were older than all tracked ones.
    stale: u32,
}

impl SequenceTracker {
    /// A jump by more than this means that the sender has restarted (RFC 3550, appendix A.1).
    const MAX_DROPOUT: i64 = 3000;

    /// This many consecutive stale packets mean that the sender has restarted, in contrast to a
    /// burst of duplicates.
    const MAX_STALE: u32 = 64;

    pub(super) const fn new() -> Self {
        let numbers = Unwrapper::of_16_bits();
        Self { numbers, highest: None, seen: 0, expected: 0, received: 0, stale: 0 }
    }

    /// Records a packet. Returns its unwrapped number and its status.
    pub(super) fn record(&mut self, sequence: u16) -> (i64, SequenceStatus) {
        let number = self.numbers.unwrap(u32::from(sequence));
        let Some(highest) = self.highest else {
            return (number, self.start(number, SequenceStatus::New));
        };
        let ahead = number - highest;
        if ahead > Self::MAX_DROPOUT {
            return (number, self.start(number, SequenceStatus::Restarted));
        }
        if ahead > 0 {
            self.highest = Some(number);
            self.seen = if ahead < 128 { self.seen << ahead | 1 } else { 1 };
            self.expected += ahead as u64;
            return (number, self.count_new());
        }
        if -ahead >= 128 {
            self.stale += 1;
            if self.stale < Self::MAX_STALE {
                return (number, SequenceStatus::Duplicate);
            }
            return (number, self.start(number, SequenceStatus::Restarted));
        }
        let bit = 1 << -ahead;
        if self.seen & bit != 0 {
            return (number, SequenceStatus::Duplicate);
        }
        self.seen |= bit;
        (number, self.count_new())
    }

    /// Whether the packet with this number arrived. Those that are too old to tell count as arrived.
    pub(super) fn has(&self, number: i64) -> bool {
        let behind = self.highest.map_or(i64::MAX, |highest| highest - number);
        behind >= 128 || (behind >= 0 && self.seen >> behind & 1 == 1)
    }

    /// Packets that arrived, without duplicates.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Packets that did not arrive, by their sequence numbers.
    pub(super) const fn lost(&self) -> u64 {
        self.expected.saturating_sub(self.received)
    }

    fn start(&mut self, number: i64, status: SequenceStatus) -> SequenceStatus {
        self.numbers.restart(number);
        self.highest = Some(number);
        self.seen = 1;
        self.expected += 1;
        self.count_new();
        status
    }

    fn count_new(&mut self) -> SequenceStatus {
        self.received += 1;
        self.stale = 0;
        SequenceStatus::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_and_timestamps_unwrap_across_their_wrap_both_ways() {
        let mut numbers = Unwrapper::of_16_bits();
        let seen: Vec<_> =
            [65_534, 65_535, 1, 0, 65_535].map(|n| numbers.unwrap(n)).into_iter().collect();
        assert_eq!(seen, [65_534, 65_535, 65_537, 65_536, 65_535]);
        let mut stamps = Unwrapper::of_32_bits();
        assert_eq!(stamps.unwrap(u32::MAX - 2999), i64::from(u32::MAX) - 2999);
        assert_eq!(stamps.unwrap(0), 1 << 32);
        assert_eq!(stamps.unwrap(u32::MAX), (1 << 32) - 1);
    }

    #[test]
    fn losses_are_counted_across_the_wrap_and_late_packets_are_no_losses() {
        let mut tracker = SequenceTracker::new();
        let statuses: Vec<_> = [65_533, 65_535, 65_535, 2, 0, 65_534]
            .map(|n| tracker.record(n).1)
            .into_iter()
            .collect();
        use SequenceStatus::{Duplicate, New};
        assert_eq!(statuses, [New, New, Duplicate, New, New, New]);
        // 65533 to 2 are six packets. Number 1 did not arrive.
        assert_eq!((tracker.received(), tracker.lost()), (5, 1));
    }

    #[test]
    fn a_sender_restart_is_followed_and_causes_no_losses() {
        let mut tracker = SequenceTracker::new();
        tracker.record(100);
        assert_eq!(tracker.record(20_000), (20_000, SequenceStatus::Restarted), "far ahead");
        assert_eq!(tracker.lost(), 0);
        let behind: Vec<_> = (0..64).map(|n| tracker.record(500 + n).1).collect();
        assert_eq!(
            behind.iter().filter(|status| **status == SequenceStatus::Duplicate).count(),
            63
        );
        assert_eq!(behind[63], SequenceStatus::Restarted, "far behind, and consistently so");
        assert_eq!(tracker.record(564).1, SequenceStatus::New);
        assert_eq!(tracker.lost(), 0);
    }
}
