//! The target of one layer over time.

use crate::model::{Bitrate, MediaTime};

/// By how much a target may rise in a second, above what is proved. An estimate that is not used grows
/// so slowly by itself, but one that depends on others' reports may leap.
const RISE: f64 = 1.08;

/// Falls that are smaller are left to the reserve of the peers' shares.
const SMALLEST_FALL: f64 = 0.95;

/// The target of a layer: falls at once, rises at once to what is proved, and slowly above it.
#[derive(Debug, Default)]
pub(super) struct LayerTarget {
    current: Option<(Bitrate, MediaTime)>,
}

impl LayerTarget {
    /// Follows what is wanted, and what is proved of it; `None` while nobody takes the layer. Returns the
    /// target if it changes.
    pub(super) fn follow(
        &mut self,
        (wanted, proved): (Option<Bitrate>, Option<Bitrate>),
        now: MediaTime,
    ) -> Option<Bitrate> {
        let before = self.current.map(|(rate, _)| rate);
        let proved = proved.unwrap_or_default();
        self.current = wanted.map(|wanted| (self.next((wanted, proved), now), now));
        let after = self.current.map(|(rate, _)| rate);
        after.filter(|_| after != before)
    }

    fn next(&self, (wanted, proved): (Bitrate, Bitrate), now: MediaTime) -> Bitrate {
        let Some((rate, at)) = self.current else { return wanted };
        let (current, wanted) = (rate.as_bps() as f64, wanted.as_bps() as f64);
        let next = if wanted < current * SMALLEST_FALL {
            wanted
        } else {
            let seconds = now.since(at).as_secs_f64().min(1.0);
            wanted.clamp(current, (current * RISE.powf(seconds)).max(proved.as_bps() as f64))
        };
        Bitrate::from_bps(next as u64)
    }
}
