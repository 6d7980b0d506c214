//! What signals may cost the member that they are for: so many words and bytes of one sender.

use std::collections::BTreeMap;

use crate::{
    model::{MediaTime, ParticipantId, Payload, SignalPayload},
    signalling::bucket::{Bucket, Pace},
};

use super::SourceAddress;

/// Signals of one participant to another, in all their sessions. A new connection takes some 12:
/// a description, its candidates, what is sent.
const WORDS: Pace = Pace { per_second: 20, burst: 128 };

/// Their bytes. A description has some 4 KiB; eight of the longest ones fit at once.
const BYTES: Pace = Pace { per_second: 32 * 1024, burst: 256 * 1024 };

/// Those among them that tell what is sent: one for each session that both are in at once, which
/// are 64 at most, and no more than people switch by hand afterwards.
const MEDIA: Pace = Pace { per_second: 4, burst: 64 };

/// The bytes of all participants of one address to another participant: whoever comes again and
/// again as somebody new has no more. An office of 64 has 2 KiB a second each.
const SOURCE_BYTES: Pace = Pace { per_second: 128 * 1024, burst: 1024 * 1024 };

/// What a signal counts besides its payload: the rest of the message, in bytes.
const ENVELOPE: usize = 128;

/// How many budgets are kept before those that have recovered are looked for.
const FEW: usize = 64;

/// What each sender may still send to each receiver. Budgets that have recovered are forgotten,
/// so there are as many as pairs that signalled within the last seconds.
#[derive(Debug)]
pub(super) struct Budgets {
    pairs: BTreeMap<(ParticipantId, ParticipantId), Pair>,
    sources: BTreeMap<(SourceAddress, ParticipantId), Bucket>,
    /// With so many, those that have recovered are forgotten.
    tidied_at: usize,
}

/// Who sends to whom.
pub(super) struct Way<'a> {
    /// The sender.
    pub(super) from: &'a ParticipantId,
    /// The address that the sender came from, if it is another machine's.
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
    /// Whether a signal is within what its sender may send; pays for it if so.
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
    fn budgets_that_have_recovered_are_forgotten_and_others_are_not() {
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
        // Who has spent all is remembered, however many come after.
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
