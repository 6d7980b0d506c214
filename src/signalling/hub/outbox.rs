//! What waits to be sent to one link: bounded for each link, for each sender, and for all links
//! of a hub together.

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

/// Messages that wait for one link to be sent.
///
/// Five broadcasts whose 255 viewers are lost at one moment make 1275 for their opener, at once.
pub(super) const OUTGOING: usize = 2048;

/// Bytes that wait for one link to be sent: some 30 of the largest messages.
pub(super) const OUTGOING_BYTES: usize = 2 * 1024 * 1024;

/// The same for a link that has not shown yet that it reads: more than the rosters of five full
/// sessions.
pub(super) const FIRST_BYTES: usize = 256 * 1024;

/// Bytes that wait for all links of a hub together: beyond it, the one that holds most is closed.
pub(super) const ALL_BYTES: usize = 64 * 1024 * 1024;

/// With which words the hub closes a link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Farewell {
    /// Everything was said, or there is nobody to say it to.
    #[default]
    Done,
    /// Nothing was heard from the client for too long.
    Silent,
    /// The client signalled what it may not, and was told so.
    Misbehaving,
    /// The hub itself ends.
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

/// Bytes that are counted while somebody holds them.
type Tally = Arc<AtomicUsize>;

/// Where messages for a link are put; bounded in number and bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Parcel>,
    load: Arc<Load>,
    all: Tally,
    /// What each member's signals hold of it.
    senders: BTreeMap<ParticipantId, Tally>,
}

/// The way to an outbox for as long as somebody else keeps it.
#[derive(Debug)]
pub(super) struct Echo {
    queue: mpsc::WeakSender<Parcel>,
    load: Arc<Load>,
    all: Tally,
}

/// Where a link takes its messages from.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Parcel>,
    load: Arc<Load>,
}

/// A message on its way to a link.
#[derive(Debug)]
struct Parcel {
    text: Utf8Bytes,
    charge: Charge,
}

/// What a message counts for as long as it waits.
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
    /// Tells a link that it is over while it waits for its client to read.
    over: Notify,
    farewell: OnceLock<Farewell>,
}

/// A queue of messages for one link of a hub whose links hold `all` together.
pub(super) fn outbox(total: &Tally) -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(OUTGOING);
    let (state, total) = (Arc::new(Load::default()), total.clone());
    let outbox =
        Outbox { queue: sender, load: state.clone(), all: total, senders: BTreeMap::new() };
    (outbox, Inbox { queue: receiver, load: state })
}

impl Outbox {
    /// Puts a message in, without waiting; `false` if it does not fit into so many bytes. The link
    /// then throws away what it has not sent yet, and closes.
    ///
    /// What is told a link that has ended is lost, and no failure: its end is on the way to the
    /// rooms, behind the last things that it said, its leave among them.
    pub(super) fn put(&self, message: &HubMessage, max_bytes: usize) -> bool {
        let Some(text) = text_of(message) else { return true };
        let fits = self.bytes() + text.len() <= max_bytes && self.push(text, None);
        if !fits {
            self.stop();
        }
        fits
    }

    /// Puts a signal in; `false` if it does not fit, and nothing else happens: a sender may hold a
    /// quarter of so many bytes and of the messages, all senders together three, so that what they
    /// do never closes the receiver.
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

    /// Bytes that wait in it.
    pub(super) fn bytes(&self) -> usize {
        self.load.bytes.load(Ordering::Relaxed)
    }

    /// Makes the link throw away what waits, and close, even while its client does not read.
    pub(super) fn stop(&self) {
        self.load.is_over.store(true, Ordering::Relaxed);
        self.load.over.notify_one();
    }

    /// Says how the link is to be closed, before the outbox is let go.
    pub(super) fn part(&self, cause: Farewell) {
        // The first reason is the true one.
        let _ = self.load.farewell.set(cause);
    }

    /// A way to it that does not keep it.
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
    /// The outbox, if it is still kept.
    pub(super) fn outbox(&self) -> Option<Outbox> {
        let (queue, state) = (self.queue.upgrade()?, self.load.clone());
        Some(Outbox { queue, load: state, all: self.all.clone(), senders: BTreeMap::new() })
    }
}

impl Inbox {
    /// The next message; `None` when there will be none, or too many were put in.
    pub(super) async fn take(&mut self) -> Option<Utf8Bytes> {
        let queued = self.queue.recv().await?;
        self.took(queued)
    }

    /// The next message, if one is there now.
    pub(super) fn take_now(&mut self) -> Option<Utf8Bytes> {
        let queued = self.queue.try_recv().ok()?;
        self.took(queued)
    }

    /// Ends when what waits is to be thrown away.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = self.load.clone();
        async move { state.over.notified().await }
    }

    /// With which words to close, once there are no more messages.
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
    text.inspect_err(|error| warn!(%error, "a message could not be written as JSON"))
        .ok()
        .map(Into::into)
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
    async fn an_outbox_takes_so_many_messages_and_a_link_that_lags_gets_none_of_them() {
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
    async fn an_outbox_takes_so_many_bytes_and_counts_what_is_taken_out() {
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
        assert_eq!(total.load(Ordering::Relaxed), 0, "what an ended link held is free again");
    }

    #[tokio::test]
    async fn a_sender_holds_a_quarter_all_senders_three_and_the_receiver_stays() {
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
        assert_eq!(fill(1), 1, "what was taken out is free again");
        assert!(outbox.put(&HubMessage::Pong, FIRST_BYTES), "the hub's own words have a quarter");
        // Words without bytes are bounded as well.
        let (mut outbox, _inbox) = super::outbox(&Tally::default());
        let from = ParticipantId::from_digest([1; 10]);
        let empty = signal(&from, 0);
        let many = (0..).take_while(|_| outbox.put_signal(&empty, &from, usize::MAX)).count();
        assert_eq!(many, OUTGOING / 4 * 3);
    }
}
