//! The messages that wait to be sent on one connection: limited for each connection, for each
//! sender of signals, and for all connections of a hub together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::{
    Notify,
    mpsc::{self, error::TrySendError},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::warn;

use crate::{
    model::{HubMessage, ParticipantId},
    signalling::rooms::Dismissal,
};

/// The most messages that wait for one connection.
///
/// Five broadcasts whose 255 viewers are lost at one moment make 1275 messages for their opener.
pub(super) const OUTGOING: usize = 2048;

/// The most bytes that wait for one connection: some 30 of the largest messages.
pub(super) const OUTGOING_BYTES: usize = 2 * 1024 * 1024;

/// The same for a connection whose client was not seen to read yet: more than the rosters of five
/// full sessions.
pub(super) const FIRST_BYTES: usize = 256 * 1024;

/// The most bytes that wait for all connections together; beyond it, the one with the most is
/// closed.
pub(super) const ALL_BYTES: usize = 64 * 1024 * 1024;

/// Why the hub closes a connection, for the close frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Farewell {
    /// The client closed it, or an error message gave the reason.
    #[default]
    Done,
    /// The client was silent for too long.
    Silent,
    /// Too many signals of the client were refused, each with an error.
    Misbehaving,
    /// The hub closes.
    HubEnds,
}

impl From<Dismissal> for Farewell {
    fn from(why: Dismissal) -> Self {
        match why {
            Dismissal::Told => Self::Done,
            Dismissal::Silent => Self::Silent,
            Dismissal::Misbehaving => Self::Misbehaving,
        }
    }
}

/// A number of bytes, shared by all that count.
type Tally = Arc<AtomicUsize>;

/// The sending half: takes messages for a connection; limited in number and bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Parcel>,
    load: Arc<Load>,
    all: Tally,
    /// The bytes of signals that wait, by sender.
    senders: BTreeMap<ParticipantId, Tally>,
}

/// A reference to an [`Outbox`] that does not keep it open.
#[derive(Debug)]
pub(super) struct Echo {
    queue: mpsc::WeakSender<Parcel>,
    load: Arc<Load>,
    all: Tally,
}

/// The receiving half: the connection takes its messages from it.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Parcel>,
    load: Arc<Load>,
}

/// A message in the queue.
#[derive(Debug)]
struct Parcel {
    text: Utf8Bytes,
    charge: Charge,
}

/// Counts the bytes of a message for as long as it waits.
#[derive(Debug)]
struct Charge {
    bytes: usize,
    load: Arc<Load>,
    all: Tally,
    sender: Option<Tally>,
}

#[derive(Debug, Default)]
struct Load {
    bytes: AtomicUsize,
    is_over: AtomicBool,
    /// Wakes a connection that waits for its client to read, when it is to stop.
    over: Notify,
    farewell: OnceLock<Farewell>,
}

/// A queue of messages for one connection; `total` counts the bytes of all connections of the hub.
pub(super) fn outbox(total: &Tally) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(OUTGOING);
    let (state, total) = (Arc::new(Load::default()), total.clone());
    let outbox =
        Outbox { queue: sender, load: state.clone(), all: total, senders: BTreeMap::new() };
    (outbox, Inbox { queue: receiver, load: state })
}

impl Outbox {
    /// Queues a message without waiting; `false` if more than `max_bytes` would wait. The
    /// connection then discards its queue and closes.
    ///
    /// A message for a connection that has ended is lost without an error: its end is on the way to
    /// the rooms, behind the last messages of the client, such as a leave.
    pub(super) fn put(&self, message: &HubMessage, max_bytes: usize) -> bool {
        let Some(text) = text_of(message) else { return true };
        let fits = self.bytes() + text.len() <= max_bytes && self.push(text, None);
        if !fits {
            self.stop();
        }
        fits
    }

    /// Queues a signal; `false` if it does not fit, without further effect. One sender may fill a
    /// quarter of `max_bytes` and of the queue, all senders three quarters, so that signals never
    /// close the connection of the receiver.
    pub(super) fn put_signal(
        &mut self,
        signal: &HubMessage,
        from: &ParticipantId,
        max_bytes: usize,
    ) -> bool {
        let Some(text) = text_of(signal) else { return true };
        let (quarter, waiting) = (max_bytes / 4, OUTGOING - self.queue.capacity());
        self.senders.retain(|_, bytes| bytes.load(Ordering::Relaxed) > 0);
        let by_sender = self.senders.entry(from.clone()).or_default();
        let fits = by_sender.load(Ordering::Relaxed) + text.len() <= quarter
            && self.load.bytes.load(Ordering::Relaxed) + text.len() <= 3 * quarter
            && waiting < OUTGOING / 4 * 3;
        let by_sender = by_sender.clone();
        fits && self.push(text, Some(by_sender))
    }

    /// The bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// Makes the connection discard its queue and close, even while its client does not read.
    pub(super) fn stop(&self) {
        self.load.is_over.store(true, Ordering::Relaxed);
        self.load.over.notify_one();
    }

    /// Sets the reason of the close frame, before the outbox is dropped.
    pub(super) fn part(&self, cause: Farewell) {
        // The first reason counts.
        let _ = self.load.farewell.set(cause);
    }

    /// A reference that does not keep the outbox open.
    pub(super) fn echo(&self) -> Echo {
        let (queue, state) = (self.queue.downgrade(), self.load.clone());
        Echo { queue, load: state, all: self.all.clone() }
    }

    fn push(&self, text: Utf8Bytes, sender: Option<Tally>) -> bool {
        let reservation = Charge::new(text.len(), self, sender);
        !matches!(
            self.queue.try_send(Parcel { text, charge: reservation }),
            Err(TrySendError::Full(_))
        )
    }
}

impl Echo {
    /// The outbox, if it is still open.
    pub(super) fn outbox(&self) -> Option<Outbox> {
        let (queue, state) = (self.queue.upgrade()?, self.load.clone());
        Some(Outbox { queue, load: state, all: self.all.clone(), senders: BTreeMap::new() })
    }
}

impl Inbox {
    /// The next message; `None` when the outbox is closed or stopped.
    pub(super) async fn take(&mut self) -> Option<Utf8Bytes> {
        let queued = self.queue.recv().await?;
        self.took(queued)
    }

    /// The next message, if one waits.
    pub(super) fn take_now(&mut self) -> Option<Utf8Bytes> {
        let queued = self.queue.try_recv().ok()?;
        self.took(queued)
    }

    /// Completes when the outbox is stopped.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = self.load.clone();
        async move { state.over.notified().await }
    }

    /// The reason of the close frame, once there are no more messages.
    pub(super) fn farewell(&self) -> Farewell {
        self.load.farewell.get().copied().unwrap_or_default()
    }

    fn took(&self, Parcel { text, charge: reservation }: Parcel) -> Option<Utf8Bytes> {
        drop(reservation);
        (!self.load.is_over.load(Ordering::Relaxed)).then_some(text)
    }
}

impl Charge {
    fn new(bytes: usize, outbox: &Outbox, sender: Option<Tally>) -> Self {
        let reservation =
            Self { bytes, load: outbox.load.clone(), all: outbox.all.clone(), sender };
        for counter in reservation.tallies() {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
        reservation
    }

    fn tallies(&self) -> impl Iterator<Item = &AtomicUsize> {
        [&self.load.bytes, &*self.all].into_iter().chain(self.sender.as_deref())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for counter in self.tallies() {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

fn text_of(message: &HubMessage) -> Option<Utf8Bytes> {
    let text = serde_json::to_string(message);
    text.inspect_err(|error| warn!(%error, "message not serializable")).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ErrorCode, Payload, SessionId};

    fn error(bytes: usize) -> HubMessage {
        let (code, message) = (ErrorCode::BadMessage, "x".repeat(bytes));
        HubMessage::Error { code, message, session: None }
    }

    fn signal(from: &ParticipantId, bytes: usize) -> HubMessage {
        let payload = Payload::Offer { generation: 1, sdp: "x".repeat(bytes) }.into();
        HubMessage::Signal { session: SessionId::parse("a").unwrap(), from: from.clone(), payload }
    }

    #[tokio::test]
    async fn an_outbox_is_stopped_when_too_many_messages_wait() {
        let (outbox, mut receiver) = outbox(&Tally::default());
        for _ in 0..OUTGOING {
            assert!(outbox.put(&HubMessage::Pong, OUTGOING_BYTES));
        }
        assert!(receiver.take().await.is_some());
        assert!(outbox.put(&HubMessage::Pong, OUTGOING_BYTES));
        assert!(!outbox.put(&HubMessage::Pong, OUTGOING_BYTES));
        receiver.over().await;
        assert_eq!(receiver.take().await, None);
    }

    #[tokio::test]
    async fn an_outbox_limits_bytes_and_frees_them_when_messages_are_taken_out() {
        let total = Tally::default();
        let (outbox, receiver) = outbox(&total);
        let fits = (0..OUTGOING).take_while(|_| outbox.put(&error(60_000), OUTGOING_BYTES)).count();
        assert!((30..=35).contains(&fits), "{fits}");
        assert!(total.load(Ordering::Relaxed) > OUTGOING_BYTES / 10 * 9);
        let (outbox, mut other) = super::outbox(&total);
        for _ in 0..OUTGOING * 2 {
            assert!(outbox.put(&error(60_000), OUTGOING_BYTES));
            assert!(other.take_now().is_some());
        }
        drop(receiver);
        assert_eq!(total.load(Ordering::Relaxed), 0, "dropping the receiver frees its bytes");
    }

    #[tokio::test]
    async fn a_sender_fills_a_quarter_and_all_senders_three_quarters_of_an_outbox() {
        let (mut outbox, mut receiver) = outbox(&Tally::default());
        let mut fill = |number: u8| {
            let from = ParticipantId::from_digest([number; 10]);
            let signal = signal(&from, 1000);
            (0..OUTGOING).take_while(|_| outbox.put_signal(&signal, &from, FIRST_BYTES)).count()
        };
        let accepted: Vec<_> = (1..=5).map(&mut fill).collect();
        assert!((55..=64).contains(&accepted[0]), "a quarter of 256 KiB: {accepted:?}");
        assert_eq!(accepted[..3], [accepted[0]; 3]);
        assert!(accepted[3] <= 1 && accepted[4] <= 1, "{accepted:?}");
        assert!(receiver.take_now().is_some());
        assert_eq!(fill(1), 1, "a message that was taken out frees its bytes");
        assert!(
            outbox.put(&HubMessage::Pong, FIRST_BYTES),
            "the hub's own messages have a quarter"
        );
        // Signals without bytes are limited by their number.
        let (mut outbox, _inbox) = super::outbox(&Tally::default());
        let from = ParticipantId::from_digest([1; 10]);
        let empty = signal(&from, 0);
        let many = (0..).take_while(|_| outbox.put_signal(&empty, &from, usize::MAX)).count();
        assert_eq!(many, OUTGOING / 4 * 3);
    }
}
