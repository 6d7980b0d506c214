//! How long after a lost packet of audio what repairs it arrives.

use std::{collections::VecDeque, time::Duration};

use crate::media::AUDIO_RATE;

/// How much longer than usual packets must be held while some are lost: in-band FEC comes with the
/// next packet, a copy with a later one. It is nothing while none is lost.
///
/// A copy that comes more than two packets later is waited for only once it was needed, see
/// [`super::target::DelayMemory`]: it would delay all for what is rare.
#[derive(Debug, Default)]
pub(super) struct RepairSpan {
    /// In samples, while packets are lost.
    samples: i64,
    /// How much later the farthest copy of the newest packets is, in samples.
    copies: i64,
    /// Blocks of 10 ms for which losses are still expected.
    blocks_left: u32,
    /// Packets that are missing and may still come, and for how many blocks they have been missing,
    /// oldest first.
    missing: VecDeque<(i64, u32)>,
}

/// For how long after a loss others are expected, in blocks of 10 ms: 30 s.
const EXPECTED_BLOCKS: u32 = 3000;

/// A packet that is missing for longer is lost, not late: half a second.
const LOST_AFTER_BLOCKS: u32 = 50;

/// The most packets that are remembered as missing.
const MAX_MISSING: usize = 64;

/// The packets that are waited for at most.
const MAX_PACKETS: i64 = 2;

impl RepairSpan {
    /// A packet has a copy of what was sent this many samples before; packets are this long.
    pub(super) fn on_copies(&mut self, distance: i64, packet: i64) {
        self.copies = distance.min(MAX_PACKETS * packet);
        if self.blocks_left > 0 {
            self.samples = self.samples.max(self.copies);
        }
    }

    /// The packet with this number is missing when it is to be played.
    pub(super) fn on_missing(&mut self, number: i64) {
        self.missing.push_back((number, 0));
        if self.missing.len() > MAX_MISSING {
            self.missing.pop_front();
        }
    }

    /// The packet with this number has come: it may be late, and is not lost.
    pub(super) fn on_arrival(&mut self, number: i64) {
        self.missing.retain(|(missing, _)| *missing != number);
    }

    /// The time of a block passes; packets are this long.
    pub(super) fn on_block(&mut self, packet: i64) {
        self.blocks_left = self.blocks_left.saturating_sub(1);
        self.missing.iter_mut().for_each(|(_, blocks)| *blocks += 1);
        while self.missing.front().is_some_and(|(_, blocks)| *blocks >= LOST_AFTER_BLOCKS) {
            self.missing.pop_front();
            self.blocks_left = EXPECTED_BLOCKS;
            self.samples = self.samples.max(packet).max(self.copies);
        }
        if self.blocks_left == 0 {
            (self.samples, self.copies) = (0, 0);
        }
    }

    /// How much longer packets must be held.
    pub(super) fn span(&self) -> Duration {
        let micros = self.samples.clamp(0, 5760) as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        Duration::from_micros(micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(span: &RepairSpan) -> u128 {
        span.span().as_millis()
    }

    /// A packet is lost, which is known after half a second.
    fn lose(span: &mut RepairSpan, number: i64) {
        span.on_missing(number);
        (0..LOST_AFTER_BLOCKS).for_each(|_| span.on_block(960));
    }

    #[test]
    fn what_repairs_losses_is_waited_for_while_there_are_some() {
        let mut span = RepairSpan::default();
        assert_eq!(ms(&span), 0, "nothing is lost");
        lose(&mut span, 7);
        assert_eq!(ms(&span), 20, "FEC comes with the next packet");
        span.on_copies(1920, 960);
        assert_eq!(ms(&span), 40);
        span.on_copies(3840, 960);
        assert_eq!(ms(&span), 40, "farther copies are waited for when they are needed");
        (1..EXPECTED_BLOCKS).for_each(|_| span.on_block(960));
        assert_eq!(ms(&span), 40);
        span.on_block(960);
        assert_eq!(ms(&span), 0);
        span.on_copies(1920, 960);
        span.on_block(960);
        assert_eq!(ms(&span), 0, "copies without losses cost no delay");
        lose(&mut span, 9);
        span.on_copies(1920, 960);
        assert_eq!(ms(&span), 40);
    }

    #[test]
    fn a_packet_that_comes_late_is_no_loss() {
        let mut late = RepairSpan::default();
        late.on_missing(7);
        late.on_arrival(7);
        (0..LOST_AFTER_BLOCKS).for_each(|_| late.on_block(960));
        assert_eq!(ms(&late), 0);
    }
}
