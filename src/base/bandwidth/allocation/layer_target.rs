//! The target of one layer over time.

use crate::model::{Bitrate, MediaTime};

/// By how much a target may rise in a second.
const RISE: f64 = 1.08;

/// Falls that are smaller are left to the reserve of the peers' shares.
const SMALLEST_FALL: f64 = 0.95;

/// The target of a layer: falls at once, rises slowly.
#[derive(Debug, Default)]
pub(super) struct LayerTarget {
    current: Option<(Bitrate, MediaTime)>,
}

impl LayerTarget {
    /// Follows what is wanted; `None` while nobody takes the layer. Returns the target if it changes.
    pub(super) fn follow(&mut self, wanted: Option<Bitrate>, now: MediaTime) -> Option<Bitrate> {
        let before = self.current.map(|(rate, _)| rate);
        self.current = wanted.map(|wanted| (self.next(wanted, now), now));
        let after = self.current.map(|(rate, _)| rate);
        after.filter(|_| after != before)
    }

    fn next(&self, wanted: Bitrate, now: MediaTime) -> Bitrate {
        let Some((rate, at)) = self.current else { return wanted };
        let (current, wanted) = (rate.as_bps() as f64, wanted.as_bps() as f64);
        let next = if wanted < current * SMALLEST_FALL {
            wanted
        } else {
            let seconds = now.since(at).as_secs_f64().min(1.0);
            wanted.clamp(current, current * RISE.powf(seconds))
        };
        Bitrate::from_bps(next as u64)
    }
}
