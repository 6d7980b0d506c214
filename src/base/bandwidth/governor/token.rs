//! One probe at a time.

use std::time::Duration;

use super::shares::PROBED_SHARE;
use crate::model::{Bitrate, MediaTime};

/// Lets one peer of this machine probe at a time: probes of several peers at once fill the queue of
/// a shared uplink, and measure each other. Where far more arrives than a probe adds, the turns are
/// shorter: a hundred viewers who come together have the whole picture after seconds, not after half
/// a minute.
#[derive(Clone, Copy, Debug)]
pub struct ProbeToken<K> {
    holder: Option<(K, MediaTime)>,
    /// How long each may keep it.
    turn: Duration,
}

/// How long a probe takes: its packets, and what their queue needs to drain.
const HELD: Duration = Duration::from_millis(100);

/// The rate of a large probe: twice what a picture of 720p needs.
const PROBED_BPS: f64 = 4e6;

/// The shortest turn, as a part of the usual one.
const SHORTEST: f64 = 0.1;

impl<K> Default for ProbeToken<K> {
    fn default() -> Self {
        Self { holder: None, turn: HELD }
    }
}

impl<K: Copy + PartialEq> ProbeToken<K> {
    /// Asks for the token. Who gets it may probe now; the probe after that may be another peer's.
    pub fn acquire(&mut self, key: K, now: MediaTime) -> bool {
        let is_free = self.holder.is_none_or(|(holder, until)| holder == key || now >= until);
        if is_free {
            self.holder = Some((key, now + self.turn));
        }
        is_free
    }

    /// Notes the rate at which the packets of all peers together arrive at the other ends. Probes may
    /// add a quarter of it at a time.
    pub fn set_arriving(&mut self, rate: Bitrate) {
        let added = PROBED_SHARE * rate.as_bps() as f64;
        self.turn = HELD.mul_f64((PROBED_BPS / added.max(1.0)).clamp(SHORTEST, 1.0));
    }

    /// When another peer gets it; `None` if it is free.
    pub fn free_at(&self, now: MediaTime) -> Option<MediaTime> {
        self.holder.map(|(_, until)| until).filter(|until| *until > now)
    }
}
