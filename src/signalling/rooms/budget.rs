//! Limits the signals of one sender to one receiver: their number and their bytes.

use std::collections::BTreeMap;

use crate::{
    model::{MediaTime, ParticipantId, Payload, SignalPayload},
    signalling::bucket::{Bucket, Pace},
};

use super::SourceAddress;

/// Signals from one participant to another, in all their sessions. A new peer connection takes
/// about 12: a description, its candidates, and the `media` message.
const WORDS: Pace = Pace { per_second: 20, burst: 128 };

/// The bytes of these signals. A description has about 4 KiB; eight of the longest ones fit at
/// once.
const BYTES: Pace = Pace { per_second: 32 * 1024, burst: 256 * 1024 };

/// The `media` messages among them: one for each session that both are in at once, at most 64, and
/// then no more than people switch by hand.
const MEDIA: Pace = Pace { per_second: 4, burst: 64 };

/// The bytes from all participants at one address to one participant, so that a client that comes
/// back with new tokens gets no more. In an office of 64, each has 2 KiB a second.
const SOURCE_BYTES: Pace = Pace { per_second: 128 * 1024, burst: 1024 * 1024 };

/// The bytes that a signal counts besides its payload: the other fields of the message.
const ENVELOPE: usize = 128;

/// The number of budgets below which refilled ones are not looked for.
const FEW: usize = 64;

/// What each sender may still send to each receiver. Budgets that are full again are removed, so
/// there are about as many as pairs that signalled within the last seconds.
#[derive(Debug)]
pub(super) struct Budgets {
    pairs: BTreeMap<(ParticipantId, ParticipantId), Pair>,
    sources: BTreeMap<(SourceAddress, ParticipantId), Bucket>,
    /// The number of budgets at which full ones are removed next.
    tidied_at: usize,
}

/// The sender and the receiver of a signal.
pub(super) struct Way<'a> {
    /// The sender.
    pub(super) from: &'a ParticipantId,
    /// The address of the sender, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// The receiver.
    pub(super) to: &'a ParticipantId,
}

#[derive(Debug)]
struct Pair {
    words: Bucket,
    bytes: Bucket,
    media: Bucket,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { pairs: BTreeMap::new(), sources: BTreeMap::new(), tidied_at: FEW }
    }
}

impl Budgets {
    /// Spends what a signal costs; `false` if its sender has not enough left.
    pub(super) fn pay(&mut self, route: &Way<'_>, payload: &SignalPayload, now: MediaTime) -> bool {
        self.tidy(now);
        let bytes = payload.bytes() + ENVELOPE;
        let is_media = matches!(payload.known(), Payload::Media { .. });
        let pair = self.pairs.entry((route.from.clone(), route.to.clone()));
        let pair = pair.or_insert_with(|| Pair::new(now));
        let mut source = route.source.map(|source| {
            let budget = self.sources.entry((source, route.to.clone()));
            budget.or_insert_with(|| Bucket::new(SOURCE_BYTES, now))
        });
        let is_within = pair.has(is_media, bytes, now)
            && source.as_mut().is_none_or(|source| source.has(bytes, now));
        if is_within {
            pair.spend(is_media, bytes);
            source.into_iter().for_each(|source| source.spend(bytes));
        }
        is_within
    }

    fn tidy(&mut self, now: MediaTime) {
        if self.pairs.len() + self.sources.len() < self.tidied_at {
            return;
        }
        self.pairs.retain(|_, pair| !pair.is_full(now));
        self.sources.retain(|_, source| !source.is_full(now));
        self.tidied_at = 2 * (self.pairs.len() + self.sources.len()).max(FEW);
    }
}

impl Pair {
    fn new(now: MediaTime) -> Self {
        let bucket = |pace| Bucket::new(pace, now);
        Self { words: bucket(WORDS), bytes: bucket(BYTES), media: bucket(MEDIA) }
    }

    fn has(&mut self, is_media: bool, bytes: usize, now: MediaTime) -> bool {
        self.words.has(1, now)
            && self.bytes.has(bytes, now)
            && (!is_media || self.media.has(1, now))
    }

    fn spend(&mut self, is_media: bool, bytes: usize) {
        self.words.spend(1);
        self.bytes.spend(bytes);
        self.media.spend(usize::from(is_media));
    }

    fn is_full(&mut self, now: MediaTime) -> bool {
        self.words.is_full(now) && self.bytes.is_full(now) && self.media.is_full(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn full_budgets_are_removed_and_others_are_kept() {
        let participant = |number: u8| ParticipantId::from_digest([number; 10]);
        let (mut budgets, mut now) = (Budgets::default(), MediaTime::default());
        let payload = Payload::Media { microphone: true, camera: true }.into();
        let (to, source) = (participant(255), Some(SourceAddress(7)));
        let mut max = 0;
        for round in 0..100 {
            for number in 0..200 {
                let from = participant(number);
                assert!(
                    budgets.pay(&Way { from: &from, source, to: &to }, &payload, now),
                    "{round}"
                );
                max = max.max(budgets.pairs.len());
            }
            now = now + Duration::from_secs(1);
        }
        assert!((200..=402).contains(&max), "{max}");
        // A sender that has spent everything is remembered, however many senders come after it.
        let spender = participant(254);
        let route = Way { from: &spender, source: None, to: &to };
        while budgets.pay(&route, &payload, now) {}
        for number in 0..200 {
            let from = participant(number);
            budgets.pay(&Way { from: &from, source: None, to: &spender }, &payload, now);
            assert!(!budgets.pay(&route, &payload, now));
        }
    }
}
