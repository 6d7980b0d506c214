//! Counters of the RTP packets that a connection has sent.

use std::sync::atomic::{AtomicU64, Ordering};

/// The RTP packets that were sent. The driver counts them; any thread may read.
#[derive(Debug, Default)]
pub(in crate::transport) struct TrafficCounters {
    /// First transmissions.
    pub(in crate::transport) sent: AtomicU64,
    /// Retransmissions that the remote peer requested.
    pub(in crate::transport) retransmitted: AtomicU64,
}

impl TrafficCounters {
    /// Counts a packet that is sent.
    pub(super) fn count(&self, is_retransmission: bool) {
        let counter = if is_retransmission { &self.retransmitted } else { &self.sent };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
