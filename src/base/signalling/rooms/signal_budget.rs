//! Limits the signals of one sender to one receiver: their number and their bytes.

use std::collections::BTreeMap;

use crate::model::{MediaTime, ParticipantId, Payload, SignalPayload, TokenBucket, TokenRate};

use super::SourceAddress;

/// Signals from one participant to another, in all their sessions. A new peer connection takes
/// about 12: a description, its candidates, and the `media` message.
const MESSAGE_RATE: TokenRate = TokenRate::per_second(20, 128);

/// The bytes of these signals. A description has about 4 KiB; eight of the longest ones fit at
/// once.
const BYTE_RATE: TokenRate = TokenRate::per_second(32 * 1024, 256 * 1024);

/// The `media` messages among them: one for each session that both are in at once, at most 64, and
/// then no more than people switch by hand.
const MEDIA_RATE: TokenRate = TokenRate::per_second(4, 64);

/// The bytes from all participants at one address to one participant, so that a client that comes
/// back with new tokens gets no more. In an office of 64, each has 2 KiB a second.
const SOURCE_BYTE_RATE: TokenRate = TokenRate::per_second(128 * 1024, 1024 * 1024);

/// The bytes that a signal counts besides its payload: the other fields of the message.
const ENVELOPE_BYTES: usize = 128;

/// The number of budgets below which refilled ones are not looked for.
const MIN_CLEANUP_SIZE: usize = 64;

/// What each sender may still send to each receiver. Budgets that are full again are removed, so
/// there are about as many as pairs that signalled within the last seconds.
#[derive(Debug)]
pub(super) struct SignalBudgets {
    pairs: BTreeMap<(ParticipantId, ParticipantId), PairBudget>,
    sources: BTreeMap<(SourceAddress, ParticipantId), TokenBucket>,
    /// The number of budgets at which full ones are removed next.
    cleanup_at: usize,
}

/// The sender and the receiver of a signal.
pub(super) struct SignalRoute<'a> {
    /// The sender.
    pub(super) from: &'a ParticipantId,
    /// The address of the sender, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// The receiver.
    pub(super) to: &'a ParticipantId,
}

#[derive(Debug)]
struct PairBudget {
    messages: TokenBucket,
    bytes: TokenBucket,
    media: TokenBucket,
}

impl Default for SignalBudgets {
    fn default() -> Self {
        Self { pairs: BTreeMap::new(), sources: BTreeMap::new(), cleanup_at: MIN_CLEANUP_SIZE }
    }
}

impl SignalBudgets {
    /// Spends what a signal costs; `false` if its sender has not enough left.
    pub(super) fn try_spend(
        &mut self,
        route: &SignalRoute<'_>,
        payload: &SignalPayload,
        now: MediaTime,
    ) -> bool {
        self.remove_refilled(now);
        let bytes = payload.bytes() + ENVELOPE_BYTES;
        let is_media = matches!(payload.known(), Payload::Media { .. });
        let pair = self.pairs.entry((route.from.clone(), route.to.clone()));
        let pair = pair.or_insert_with(|| PairBudget::new(now));
        let mut source = route.source.map(|source| {
            let budget = self.sources.entry((source, route.to.clone()));
            budget.or_insert_with(|| TokenBucket::new(SOURCE_BYTE_RATE, now))
        });
        let is_within = pair.has(is_media, bytes, now)
            && source.as_mut().is_none_or(|source| source.has_tokens(bytes, now));
        if is_within {
            pair.spend(is_media, bytes);
            source.into_iter().for_each(|source| source.spend_tokens(bytes));
        }
        is_within
    }

    fn remove_refilled(&mut self, now: MediaTime) {
        if self.pairs.len() + self.sources.len() < self.cleanup_at {
            return;
        }
        self.pairs.retain(|_, pair| !pair.is_full(now));
        self.sources.retain(|_, source| !source.is_full(now));
        self.cleanup_at = 2 * (self.pairs.len() + self.sources.len()).max(MIN_CLEANUP_SIZE);
    }
}

impl PairBudget {
    fn new(now: MediaTime) -> Self {
        let bucket = |pace| TokenBucket::new(pace, now);
        Self { messages: bucket(MESSAGE_RATE), bytes: bucket(BYTE_RATE), media: bucket(MEDIA_RATE) }
    }

    fn has(&mut self, is_media: bool, bytes: usize, now: MediaTime) -> bool {
        self.messages.has_tokens(1, now)
            && self.bytes.has_tokens(bytes, now)
            && (!is_media || self.media.has_tokens(1, now))
    }

    fn spend(&mut self, is_media: bool, bytes: usize) {
        self.messages.spend_tokens(1);
        self.bytes.spend_tokens(bytes);
        self.media.spend_tokens(usize::from(is_media));
    }

    fn is_full(&mut self, now: MediaTime) -> bool {
        self.messages.is_full(now) && self.bytes.is_full(now) && self.media.is_full(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn full_budgets_are_removed_and_others_are_kept() {
        let participant = |number: u8| ParticipantId::from_digest([number; 10]);
        let (mut budgets, mut now) = (SignalBudgets::default(), MediaTime::default());
        let payload =
            Payload::Media { microphone: true, camera: true, tracks: None, wants: None }.into();
        let (to, source) = (participant(255), Some(SourceAddress(7)));
        let mut max = 0;
        for round in 0..100 {
            for number in 0..200 {
                let from = participant(number);
                assert!(
                    budgets.try_spend(&SignalRoute { from: &from, source, to: &to }, &payload, now),
                    "{round}"
                );
                max = max.max(budgets.pairs.len());
            }
            now = now + Duration::from_secs(1);
        }
        assert!((200..=402).contains(&max), "{max}");
        // A sender that has spent everything is remembered, however many senders come after it.
        let spender = participant(254);
        let route = SignalRoute { from: &spender, source: None, to: &to };
        while budgets.try_spend(&route, &payload, now) {}
        for number in 0..200 {
            let from = participant(number);
            budgets.try_spend(
                &SignalRoute { from: &from, source: None, to: &spender },
                &payload,
                now,
            );
            assert!(!budgets.try_spend(&route, &payload, now));
        }
    }
}
