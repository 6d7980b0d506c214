//! The messages that wait for one participant: limited for each connection, for each sender of
//! signals, and for all connections of a hub together. The messages are values: what takes them out
//! sends them in its own form, a WebSocket as text.

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

use super::shared_message::SharedMessage;
use crate::{model::ParticipantId, signalling::rooms::DisconnectReason};

/// The most messages that wait for one connection.
///
/// Five broadcasts whose 255 viewers are lost at one moment make 1275 messages for their opener.
pub(super) const MAX_MESSAGES: usize = 2048;

/// The most bytes that wait for one connection: some 30 of the largest messages.
pub(super) const MAX_BYTES: usize = 2 * 1024 * 1024;

/// The same for a connection whose client was not seen to read yet: more than the rosters of five
/// full sessions.
pub(super) const MAX_BYTES_UNPROVEN: usize = 256 * 1024;

/// The most bytes that wait for all connections together; beyond it, the one with the most is
/// closed.
pub(super) const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;

/// Why the hub closes a connection, for the close frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum CloseCause {
    /// The client closed it, or an error message gave the reason.
    #[default]
    Normal,
    /// The client was silent for too long.
    Silent,
    /// Too many signals of the client were refused, each with an error.
    Misbehaving,
    /// The hub closes.
    HubClosing,
}

impl From<DisconnectReason> for CloseCause {
    fn from(why: DisconnectReason) -> Self {
        match why {
            DisconnectReason::ErrorSent => Self::Normal,
            DisconnectReason::Silent => Self::Silent,
            DisconnectReason::Misbehaving => Self::Misbehaving,
        }
    }
}

/// A number of bytes, shared by all that count.
type ByteCounter = Arc<AtomicUsize>;

/// The sending half: takes messages for a connection; limited in number and bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<QueuedMessage>,
    state: Arc<OutboxState>,
    total: ByteCounter,
    /// The bytes of signals that wait, by sender.
    by_sender: BTreeMap<ParticipantId, ByteCounter>,
}

/// A reference to an [`Outbox`] that does not keep it open.
#[derive(Debug)]
pub(super) struct WeakOutbox {
    queue: mpsc::WeakSender<QueuedMessage>,
    state: Arc<OutboxState>,
    total: ByteCounter,
}

/// The receiving half: the connection of a participant takes its messages from it. A participant
/// without a WebSocket is another consumer.
#[derive(Debug)]
pub(super) struct OutboxReceiver {
    queue: mpsc::Receiver<QueuedMessage>,
    state: Arc<OutboxState>,
}

/// A message in the queue.
#[derive(Debug)]
struct QueuedMessage {
    message: SharedMessage,
    reservation: ByteReservation,
}

/// Counts the bytes of a message for as long as it waits.
#[derive(Debug)]
struct ByteReservation {
    bytes: usize,
    state: Arc<OutboxState>,
    total: ByteCounter,
    sender: Option<ByteCounter>,
}

#[derive(Debug, Default)]
struct OutboxState {
    queued_bytes: AtomicUsize,
    is_stopped: AtomicBool,
    /// Wakes a connection that waits for its client to read, when it is to stop.
    stopped: Notify,
    close_cause: OnceLock<CloseCause>,
}

/// A queue of messages for one connection; `total` counts the bytes of all connections of the hub.
pub(super) fn outbox(total: &ByteCounter) -> (Outbox, OutboxReceiver) {
    let (sender, receiver) = mpsc::channel(MAX_MESSAGES);
    let (state, total) = (Arc::new(OutboxState::default()), total.clone());
    let outbox = Outbox { queue: sender, state: state.clone(), total, by_sender: BTreeMap::new() };
    (outbox, OutboxReceiver { queue: receiver, state })
}

impl Outbox {
    /// Queues a message without waiting; `false` if more than `max_bytes` would wait. The
    /// connection then discards its queue and closes.
    ///
    /// A message for a connection that has ended is lost without an error: its end is on the way to
    /// the rooms, behind the last messages of the client, such as a leave.
    pub(super) fn try_send(&self, message: SharedMessage, max_bytes: usize) -> bool {
        let fits =
            self.queued_bytes() + message.bytes() <= max_bytes && self.enqueue(message, None);
        if !fits {
            self.stop();
        }
        fits
    }

    /// Queues a signal; `false` if it does not fit, without further effect. One sender may fill a
    /// quarter of `max_bytes` and of the queue, all senders three quarters, so that signals never
    /// close the connection of the receiver.
    pub(super) fn try_send_signal(
        &mut self,
        signal: SharedMessage,
        from: &ParticipantId,
        max_bytes: usize,
    ) -> bool {
        let (quarter, waiting) = (max_bytes / 4, MAX_MESSAGES - self.queue.capacity());
        self.by_sender.retain(|_, bytes| bytes.load(Ordering::Relaxed) > 0);
        let by_sender = self.by_sender.entry(from.clone()).or_default();
        let fits = by_sender.load(Ordering::Relaxed) + signal.bytes() <= quarter
            && self.state.queued_bytes.load(Ordering::Relaxed) + signal.bytes() <= 3 * quarter
            && waiting < MAX_MESSAGES / 4 * 3;
        let by_sender = by_sender.clone();
        fits && self.enqueue(signal, Some(by_sender))
    }

    /// The bytes that wait.
    pub(super) fn queued_bytes(&self) -> usize {
        self.state.queued_bytes.load(Ordering::Relaxed)
    }

    /// Makes the connection discard its queue and close, even while its client does not read.
    pub(super) fn stop(&self) {
        self.state.is_stopped.store(true, Ordering::Relaxed);
        self.state.stopped.notify_one();
    }

    /// Sets the reason of the close frame, before the outbox is dropped.
    pub(super) fn set_close_cause(&self, cause: CloseCause) {
        // The first reason counts.
        let _ = self.state.close_cause.set(cause);
    }

    /// A reference that does not keep the outbox open.
    pub(super) fn downgrade(&self) -> WeakOutbox {
        let (queue, state) = (self.queue.downgrade(), self.state.clone());
        WeakOutbox { queue, state, total: self.total.clone() }
    }

    fn enqueue(&self, message: SharedMessage, sender: Option<ByteCounter>) -> bool {
        let reservation = ByteReservation::new(message.bytes(), self, sender);
        !matches!(
            self.queue.try_send(QueuedMessage { message, reservation }),
            Err(TrySendError::Full(_))
        )
    }
}

impl WeakOutbox {
    /// The outbox, if it is still open.
    pub(super) fn upgrade(&self) -> Option<Outbox> {
        let (queue, state) = (self.queue.upgrade()?, self.state.clone());
        Some(Outbox { queue, state, total: self.total.clone(), by_sender: BTreeMap::new() })
    }
}

impl OutboxReceiver {
    /// The next message; `None` when the outbox is closed or stopped.
    pub(super) async fn recv(&mut self) -> Option<SharedMessage> {
        let queued = self.queue.recv().await?;
        self.unpack(queued)
    }

    /// The next message, if one waits.
    pub(super) fn try_recv(&mut self) -> Option<SharedMessage> {
        let queued = self.queue.try_recv().ok()?;
        self.unpack(queued)
    }

    /// Completes when the outbox is stopped.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = self.state.clone();
        async move { state.stopped.notified().await }
    }

    /// The reason of the close frame, once there are no more messages.
    pub(super) fn close_cause(&self) -> CloseCause {
        self.state.close_cause.get().copied().unwrap_or_default()
    }

    fn unpack(
        &self,
        QueuedMessage { message, reservation }: QueuedMessage,
    ) -> Option<SharedMessage> {
        drop(reservation);
        (!self.state.is_stopped.load(Ordering::Relaxed)).then_some(message)
    }
}

impl ByteReservation {
    fn new(bytes: usize, outbox: &Outbox, sender: Option<ByteCounter>) -> Self {
        let reservation =
            Self { bytes, state: outbox.state.clone(), total: outbox.total.clone(), sender };
        for counter in reservation.counters() {
            counter.fetch_add(bytes, Ordering::Relaxed);
        }
        reservation
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicUsize> {
        [&self.state.queued_bytes, &*self.total].into_iter().chain(self.sender.as_deref())
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        for counter in self.counters() {
            counter.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ErrorCode, HubMessage, Payload, SessionId};

    fn error(bytes: usize) -> SharedMessage {
        let (code, message) = (ErrorCode::BadMessage, "x".repeat(bytes));
        HubMessage::Error { code, message, session: None }.into()
    }

    fn signal(from: &ParticipantId, bytes: usize) -> SharedMessage {
        let payload = Payload::Offer { generation: 1, sdp: "x".repeat(bytes) }.into();
        let session = SessionId::parse("a").unwrap();
        HubMessage::Signal { session, from: from.clone(), payload }.into()
    }

    #[tokio::test]
    async fn an_outbox_is_stopped_when_too_many_messages_wait() {
        let (outbox, mut receiver) = outbox(&ByteCounter::default());
        for _ in 0..MAX_MESSAGES {
            assert!(outbox.try_send(HubMessage::Pong.into(), MAX_BYTES));
        }
        assert!(receiver.recv().await.is_some());
        assert!(outbox.try_send(HubMessage::Pong.into(), MAX_BYTES));
        assert!(!outbox.try_send(HubMessage::Pong.into(), MAX_BYTES));
        receiver.stopped().await;
        assert!(receiver.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_outbox_limits_bytes_and_frees_them_when_messages_are_taken_out() {
        let total = ByteCounter::default();
        let (outbox, receiver) = outbox(&total);
        let fits =
            (0..MAX_MESSAGES).take_while(|_| outbox.try_send(error(60_000), MAX_BYTES)).count();
        assert!((30..=35).contains(&fits), "{fits}");
        assert!(total.load(Ordering::Relaxed) > MAX_BYTES / 10 * 9);
        let (outbox, mut other) = super::outbox(&total);
        for _ in 0..MAX_MESSAGES * 2 {
            assert!(outbox.try_send(error(60_000), MAX_BYTES));
            assert!(other.try_recv().is_some());
        }
        drop(receiver);
        assert_eq!(total.load(Ordering::Relaxed), 0, "dropping the receiver frees its bytes");
    }

    #[tokio::test]
    async fn a_sender_fills_a_quarter_and_all_senders_three_quarters_of_an_outbox() {
        let (mut outbox, mut receiver) = outbox(&ByteCounter::default());
        let mut fill = |number: u8| {
            let from = ParticipantId::from_digest([number; 10]);
            let signal = signal(&from, 1000);
            (0..MAX_MESSAGES)
                .take_while(|_| outbox.try_send_signal(signal.clone(), &from, MAX_BYTES_UNPROVEN))
                .count()
        };
        let accepted: Vec<_> = (1..=5).map(&mut fill).collect();
        assert!((55..=64).contains(&accepted[0]), "a quarter of 256 KiB: {accepted:?}");
        assert_eq!(accepted[..3], [accepted[0]; 3]);
        assert!(accepted[3] <= 1 && accepted[4] <= 1, "{accepted:?}");
        assert!(receiver.try_recv().is_some());
        assert_eq!(fill(1), 1, "a message that was taken out frees its bytes");
        assert!(
            outbox.try_send(HubMessage::Pong.into(), MAX_BYTES_UNPROVEN),
            "the hub's own messages have a quarter"
        );
        // Signals without bytes are limited by their number.
        let (mut outbox, _inbox) = super::outbox(&ByteCounter::default());
        let from = ParticipantId::from_digest([1; 10]);
        let empty = signal(&from, 0);
        let many =
            (0..).take_while(|_| outbox.try_send_signal(empty.clone(), &from, usize::MAX)).count();
        assert_eq!(many, MAX_MESSAGES / 4 * 3);
    }
}
