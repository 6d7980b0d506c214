//! Bounds what the library keeps of data that never become a message.
//!
//! It takes fragments of a message that never ends however many they are, and keeps what comes on
//! channels that nobody asked for: one viewer could fill the memory. What it keeps is sealed below
//! it and invisible above it, but not its amount: what came in, less what was read.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Bytes that may have come in and be no message yet. Sixteen texts are under way at a time, a
/// quarter of a mebibyte; what remains is for acknowledgements of those who say nothing for days.
const MOST: u64 = 4 << 20;

/// What a message may cost on the wire besides its own bytes and a quarter of them: its headers,
/// what repeats it, and the acknowledgements of what was said meanwhile.
const BESIDES: u64 = 256;

/// What came in on one connection's data channels and was not read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: AtomicU64,
    too_much: Notify,
}

impl Unread {
    /// Counts a datagram, if it is DTLS (RFC 7983).
    pub(super) fn came(&self, datagram: &[u8]) {
        if !matches!(datagram.first(), Some(20..=63)) {
            return;
        }
        let bytes = datagram.len() as u64;
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MOST {
            self.too_much.notify_one();
        }
    }

    /// Counts a message of so many bytes that was read.
    pub(super) fn read(&self, bytes: usize) {
        let cost = bytes as u64 + bytes as u64 / 4 + BESIDES;
        let less = |unread: u64| Some(unread.saturating_sub(cost));
        // Never refused: the closure always has a value.
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Returns once more came in than any honest end sends.
    pub(super) async fn too_much(&self) {
        self.too_much.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const RECORD: [u8; 1200] = [23; 1200];

    fn is_too_much(unread: &Unread) -> bool {
        unread.too_much().now_or_never().is_some()
    }

    #[test]
    fn messages_that_are_read_are_never_too_much_and_what_is_none_is() {
        let unread = Unread::default();
        for _ in 0..20_000 {
            unread.came(&RECORD);
            unread.read(1100);
        }
        assert!(!is_too_much(&unread));
        for _ in 0..MOST / 1200 {
            unread.came(&RECORD);
        }
        assert!(!is_too_much(&unread));
        unread.came(&RECORD);
        assert!(is_too_much(&unread));
    }

    #[test]
    fn small_messages_buy_no_room_for_later() {
        let unread = Unread::default();
        (0..1000).for_each(|_| unread.read(1));
        (0..=MOST / 1200).for_each(|_| unread.came(&RECORD));
        assert!(is_too_much(&unread));
    }

    #[test]
    fn pictures_and_checks_are_not_counted() {
        let unread = Unread::default();
        for kind in [0, 1, 128, 144] {
            (0..=MOST / 1200).for_each(|_| unread.came(&[kind; 1200]));
        }
        assert!(!is_too_much(&unread));
    }
}
