//! Limits the memory that webrtc-rs uses for data that never become a message.
//!
//! webrtc-rs keeps any number of fragments of a message that never ends, and data on channels that
//! this program did not open: one viewer could fill the memory. The data are encrypted below
//! webrtc-rs and invisible above it, but their amount is known: the bytes that were received, less
//! those that were read.
//!
//! The fault: `rtc-sctp` 0.21.1 (`association/mod.rs`, `handle_data`) takes the next chunk in
//! sequence whenever nothing is readable, although the receive buffer is full. A peer that never
//! ends a message therefore fills the memory. The branch mends a deadlock (webrtc-rs/webrtc#822); it
//! needs a limit of one message of the greatest size. Data on a channel that nobody reads are kept
//! as well. No issue is known for either. Canary: for the first.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Bytes that may be received without being read as a message. At most sixteen texts are
/// unacknowledged at once, a quarter of a mebibyte. The rest is for the acknowledgements of a peer
/// that sends no message for days.
const MAX_PENDING_BYTES: u64 = 4 << 20;

/// Bytes that a message may cost on the wire beyond its length and a quarter: its headers, its
/// retransmissions, and acknowledgements of messages that were sent meanwhile.
const MESSAGE_OVERHEAD: u64 = 256;

/// Counts the bytes that one connection received for data channels and that were not read as
/// messages.
#[derive(Debug, Default)]
pub(super) struct InboundDataLimit {
    pending_bytes: AtomicU64,
    exceeded: Notify,
}

impl InboundDataLimit {
    /// Counts a datagram, if it is DTLS (RFC 7983).
    pub(super) fn on_datagram(&self, datagram: &[u8]) {
        if !matches!(datagram.first(), Some(20..=63)) {
            return;
        }
        let bytes = datagram.len() as u64;
        if self.pending_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_PENDING_BYTES {
            self.exceeded.notify_one();
        }
    }

    /// Counts a message of that many bytes as read.
    pub(super) fn on_message_read(&self, bytes: usize) {
        let cost = bytes as u64 + bytes as u64 / 4 + MESSAGE_OVERHEAD;
        let subtract = |pending: u64| Some(pending.saturating_sub(cost));
        // This cannot fail, because the closure always returns a value.
        let _ = self.pending_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
    }

    /// Returns once more data is pending than an honest peer sends.
    pub(super) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const RECORD: [u8; 1200] = [23; 1200];

    fn is_exceeded(limit: &InboundDataLimit) -> bool {
        limit.exceeded().now_or_never().is_some()
    }

    #[test]
    fn messages_that_are_read_never_exceed_the_limit_and_other_data_does() {
        let limit = InboundDataLimit::default();
        for _ in 0..20_000 {
            limit.on_datagram(&RECORD);
            limit.on_message_read(1100);
        }
        assert!(!is_exceeded(&limit));
        for _ in 0..MAX_PENDING_BYTES / 1200 {
            limit.on_datagram(&RECORD);
        }
        assert!(!is_exceeded(&limit));
        limit.on_datagram(&RECORD);
        assert!(is_exceeded(&limit));
    }

    #[test]
    fn small_messages_do_not_raise_the_limit() {
        let limit = InboundDataLimit::default();
        (0..1000).for_each(|_| limit.on_message_read(1));
        (0..=MAX_PENDING_BYTES / 1200).for_each(|_| limit.on_datagram(&RECORD));
        assert!(is_exceeded(&limit));
    }

    #[test]
    fn media_and_checks_are_not_counted() {
        let limit = InboundDataLimit::default();
        for kind in [0, 1, 128, 144] {
            (0..=MAX_PENDING_BYTES / 1200).for_each(|_| limit.on_datagram(&[kind; 1200]));
        }
        assert!(!is_exceeded(&limit));
    }
}
