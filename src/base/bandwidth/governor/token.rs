//! One probe at a time.

use std::time::Duration;

use crate::model::MediaTime;

/// Lets one peer of this machine probe at a time: probes of several peers at once fill the queue of
/// a shared uplink, and measure each other.
#[derive(Clone, Copy, Debug)]
pub struct ProbeToken<K> {
    holder: Option<(K, MediaTime)>,
}

/// How long a probe takes: its packets, and what their queue needs to drain.
const HELD: Duration = Duration::from_millis(100);

impl<K> Default for ProbeToken<K> {
    fn default() -> Self {
        Self { holder: None }
    }
}

impl<K: Copy + PartialEq> ProbeToken<K> {
    /// Asks for the token. Who gets it may probe now; the probe after that may be another peer's.
    pub fn acquire(&mut self, key: K, now: MediaTime) -> bool {
        let is_free = self.holder.is_none_or(|(holder, until)| holder == key || now >= until);
        if is_free {
            self.holder = Some((key, now + HELD));
        }
        is_free
    }

    /// When another peer gets it; `None` if it is free.
    pub fn free_at(&self, now: MediaTime) -> Option<MediaTime> {
        self.holder.map(|(_, until)| until).filter(|until| *until > now)
    }
}
