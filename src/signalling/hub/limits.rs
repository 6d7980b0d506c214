//! How many connections there may be, and how fast each may talk.

use crate::signalling::bucket::Pace;

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// From everywhere.
    pub(super) all: usize,
    /// From one other machine. This machine's own programs may use all: a proxy is one.
    pub(super) per_source: usize,
    /// From one other machine beyond that, by people who have seats and come back.
    pub(super) reserve: usize,
}

impl Default for Links {
    /// 4096 and 64: a large broadcast several times over, and an office behind one address, where
    /// 16 may be on their way back at a time.
    fn default() -> Self {
        Self { all: 4096, per_source: 64, reserve: 16 }
    }
}

/// Words that one link may say: a second's worth, and at once.
///
/// An opener of 256 seats trickles some 2800 words when all come back; they take 12 s. Faster
/// ones are read later, none is lost.
pub(super) const WORDS: Pace = Pace { per_second: 200, burst: 400 };
