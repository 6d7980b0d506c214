//! Limits for the number of connections, and for the rate of messages on each.

use crate::model::TokenRate;

/// The most connections at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// In total.
    pub(super) total: usize,
    /// From one other machine. This machine's own programs may use all of them: a proxy is one.
    pub(super) per_source: usize,
    /// From one other machine beyond that, for clients that have a seat and return.
    pub(super) returning_per_source: usize,
}

impl Default for ConnectionLimits {
    /// 4096 and 64: several large broadcasts, and an office behind one address, from which 16
    /// clients may return at a time.
    fn default() -> Self {
        Self { total: 4096, per_source: 64, returning_per_source: 16 }
    }
}

/// The rate of messages on one connection, and the burst.
///
/// An opener of 256 seats sends some 2800 messages when all guests return; that takes 12 s.
/// Messages beyond the rate are read later, none is lost.
pub(super) const MESSAGE_RATE: TokenRate = TokenRate::per_second(200, 400);
