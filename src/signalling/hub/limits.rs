//! How many connections there may be, and how fast each may talk.

use crate::signalling::bucket::Pace;

/// How many connections there may be at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    /// From everywhere.
    pub(super) all: usize,
    /// From one other machine. This machine's own programs may use all: a proxy is one.
    pub(super) per_source: usize,
}

impl Default for Links {
    /// 4096 and 64: a large broadcast several times over, and an office behind one address.
    fn default() -> Self {
        Self { all: 4096, per_source: 64 }
    }
}

/// Words that one link may say: a second's worth, and at once.
///
/// An opener of 256 seats trickles some 2800 words when all come back; they take 12 s. Faster
/// ones are read later, none is lost.
pub(super) const WORDS: Pace = Pace { per_second: 200, burst: 400 };
