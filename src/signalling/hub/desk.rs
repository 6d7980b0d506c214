//! The one task that owns the rooms: what links say goes in, what rooms say goes out.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{Instant, sleep_until},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tracing::{debug, warn};

use super::limits::Entries;
use crate::{
    model::{ClientMessage, HubMessage, HubUrl, Instance, MediaTime, Secret},
    signalling::rooms::{Dismissal, LinkId, Rooms, RoomsInput, RoomsOutput},
};

/// Words of all links that wait for the rooms; links that say more wait.
const INPUTS: usize = 1024;

/// Messages that wait for one link to be sent.
///
/// Five broadcasts whose 255 viewers are lost at one moment make 1275 for their opener, at once.
const OUTGOING: usize = 2048;

/// Bytes that wait for one link to be sent: some 30 of the largest messages.
const OUTGOING_BYTES: usize = 2 * 1024 * 1024;

/// What a link tells the rooms.
#[derive(Debug)]
pub(super) enum Word {
    /// Its client said hello.
    Arrived {
        /// Whose limits its joins and opens count against.
        source: IpAddr,
        /// Whether it has proven that it is a program of the user whose hub this is.
        is_own_user: bool,
        /// The way back.
        outbox: Outbox,
        /// The rooms' hello.
        hello: RoomsInput,
    },
    /// Its client wants to join or open a session; how long it is to wait, or not at all.
    Entering(oneshot::Sender<Option<Duration>>),
    /// Its client said something else.
    Said(ClientMessage),
    /// Its client said what is no message: a sign of life nevertheless.
    Mumbled,
    /// It is closed.
    Gone,
}

/// The hub's clock: microseconds since the hub began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// The time now.
    pub(super) fn now(self) -> MediaTime {
        MediaTime::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn at(self, time: MediaTime) -> Instant {
        self.start + Duration::from_micros(time.as_micros())
    }
}

/// The rooms, and the ways to all links.
pub(super) struct Desk {
    rooms: Rooms,
    clock: Clock,
    inputs: mpsc::Receiver<(LinkId, Word)>,
    links: BTreeMap<LinkId, (IpAddr, Outbox)>,
    entries: Entries,
    /// Who brought the hub and is no guest, and how many guests there are.
    host: Option<(Instance, watch::Sender<usize>)>,
    /// What links of the hub start with.
    link_base: watch::Receiver<HubUrl>,
}

impl Desk {
    /// Empty rooms, and where links speak to them.
    pub(super) fn new(
        host: Option<(Instance, watch::Sender<usize>)>,
        link_base: watch::Receiver<HubUrl>,
    ) -> (Self, mpsc::Sender<(LinkId, Word)>) {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let clock = Clock { start: Instant::now() };
        let (rooms, entries) = (Rooms::new(fresh_secret), Entries::default());
        let links = BTreeMap::new();
        (Self { rooms, clock, inputs, links, entries, host, link_base }, sender)
    }

    /// The clock that the rooms live by.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Serves until nobody can say anything any more; once told that the hub is closing, lets go
    /// of every link, which ends when it has sent what it was told.
    pub(super) async fn run(mut self, closing: Arc<Notify>) {
        loop {
            let alarm = self.rooms.poll_timeout().map(|at| self.clock.at(at));
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some((link, word)) => self.hear(link, word),
                    None => return,
                },
                () = closing.notified() => self.let_go(),
                Ok(()) = self.link_base.changed() => self.tell_link_base(),
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {
                    self.rooms.handle_timeout(self.clock.now());
                }
            }
            self.route();
            self.count();
        }
    }

    /// Tells the host how many guests there are, when that changes.
    fn count(&self) {
        let Some((host, told)) = &self.host else { return };
        let now = self.rooms.guests(host);
        told.send_if_modified(|count| std::mem::replace(count, now) != now);
    }

    /// Hears what was said until now, for a farewell may be among it, and lets go of all links.
    fn let_go(&mut self) {
        while let Ok((link, word)) = self.inputs.try_recv() {
            self.hear(link, word);
        }
        self.route();
        for (_, outbox) in self.links.values() {
            outbox.part(Farewell::HubEnds);
        }
        self.links.clear();
    }

    /// Tells everybody what links start with now: the old ones lead nowhere.
    fn tell_link_base(&mut self) {
        let link_base = self.link_base.borrow_and_update().to_string();
        let message = HubMessage::LinkBase { link_base };
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.say(link, &message);
        }
    }

    fn hear(&mut self, link: LinkId, word: Word) {
        // Who opens a session looked for the address before: it is told before the answer.
        if self.link_base.has_changed().unwrap_or(false) {
            self.tell_link_base();
        }
        let now = self.clock.now();
        match word {
            Word::Arrived { source, is_own_user, outbox, mut hello } => {
                if let RoomsInput::Hello { link_base, .. } = &mut hello {
                    *link_base = self.link_base.borrow().to_string();
                }
                self.entries.arrived(source, now);
                self.links.insert(link, (source, outbox));
                debug!(link = link.0, links = self.links.len(), is_own_user, "link up");
                self.rooms.handle(hello, now);
            }
            Word::Entering(answer) => {
                let source = self.links.get(&link).map(|(source, _)| *source);
                let wait = source.and_then(|source| self.entries.enter(source, now));
                // A link that is gone meanwhile does not want to know.
                let _ = answer.send(wait);
                self.rooms.handle(RoomsInput::Alive { link }, now);
            }
            Word::Said(message) => self.rooms.handle(RoomsInput::Message { link, message }, now),
            Word::Mumbled => self.rooms.handle(RoomsInput::Alive { link }, now),
            Word::Gone => {
                self.forget(link, Farewell::Done);
                self.rooms.handle(RoomsInput::Closed { link }, now);
            }
        }
    }

    /// Takes the rooms' outputs to their links. A link that is found dead on the way is one more
    /// input to the rooms, whose outputs follow.
    fn route(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                RoomsOutput::Send { link, message } => self.say(link, &message),
                RoomsOutput::Disconnect { link, why } => self.forget(link, why.into()),
            }
        }
    }

    fn say(&mut self, link: LinkId, message: &HubMessage) {
        let Some((_, outbox)) = self.links.get(&link) else { return };
        if !outbox.put(message) {
            warn!(link = link.0, "link too slow, closed");
            self.forget(link, Farewell::Done);
            self.rooms.handle(RoomsInput::Closed { link }, self.clock.now());
        }
    }

    /// Lets go of a link: it sends what it was told before, and closes.
    fn forget(&mut self, link: LinkId, farewell: Farewell) {
        if let Some((source, outbox)) = self.links.remove(&link) {
            outbox.part(farewell);
            self.entries.gone(source);
            debug!(link = link.0, links = self.links.len(), "link down");
        }
    }
}

/// 128 random bits.
pub(super) fn fresh_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    Secret::from_random(bytes)
}

/// With which words the hub closes a link.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Farewell {
    /// Everything was said, or there is nobody to say it to.
    #[default]
    Done,
    /// Nothing was heard from the client for too long.
    Silent,
    /// The hub itself ends.
    HubEnds,
}

impl From<Dismissal> for Farewell {
    fn from(why: Dismissal) -> Self {
        match why {
            Dismissal::Told => Self::Done,
            Dismissal::Silent => Self::Silent,
        }
    }
}

/// Where messages for a link are put; bounded in number and bytes.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: mpsc::Sender<Utf8Bytes>,
    load: Arc<Load>,
}

/// The way to an outbox for as long as somebody else keeps it.
#[derive(Debug)]
pub(super) struct Echo {
    queue: mpsc::WeakSender<Utf8Bytes>,
    load: Arc<Load>,
}

/// Where a link takes its messages from.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: mpsc::Receiver<Utf8Bytes>,
    load: Arc<Load>,
}

#[derive(Debug, Default)]
struct Load {
    bytes: AtomicUsize,
    is_over: AtomicBool,
    farewell: OnceLock<Farewell>,
}

/// A queue of messages for one link.
pub(super) fn outbox() -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(OUTGOING);
    let load = Arc::new(Load::default());
    (Outbox { queue: sender, load: load.clone() }, Inbox { queue: receiver, load })
}

impl Outbox {
    /// Puts a message in, without waiting; `false` if it does not fit. The link then throws away
    /// what it has not sent yet, and closes.
    ///
    /// What is told a link that has ended is lost, and no failure: its end is on the way to the
    /// rooms, behind the last things that it said, its leave among them.
    pub(super) fn put(&self, message: &HubMessage) -> bool {
        let Ok(text) = serde_json::to_string(message) else {
            warn!("a message could not be written as JSON");
            return true;
        };
        let waiting = self.load.bytes.fetch_add(text.len(), Ordering::Relaxed) + text.len();
        let fits = waiting <= OUTGOING_BYTES
            && !matches!(self.queue.try_send(text.into()), Err(TrySendError::Full(_)));
        if !fits {
            self.load.is_over.store(true, Ordering::Relaxed);
        }
        fits
    }
}

impl Outbox {
    /// Says how the link is to be closed, before the outbox is let go.
    fn part(&self, farewell: Farewell) {
        // The first reason is the true one.
        let _ = self.load.farewell.set(farewell);
    }

    /// A way to it that does not keep it.
    pub(super) fn echo(&self) -> Echo {
        Echo { queue: self.queue.downgrade(), load: self.load.clone() }
    }
}

impl Echo {
    /// The outbox, if it is still kept.
    pub(super) fn outbox(&self) -> Option<Outbox> {
        Some(Outbox { queue: self.queue.upgrade()?, load: self.load.clone() })
    }
}

impl Inbox {
    /// The next message; `None` when there will be none, or too many were put in.
    pub(super) async fn take(&mut self) -> Option<Utf8Bytes> {
        let text = self.queue.recv().await?;
        self.took(text)
    }

    /// With which words to close, once there are no more messages.
    pub(super) fn farewell(&self) -> Farewell {
        self.load.farewell.get().copied().unwrap_or_default()
    }

    /// The next message, if one is there now.
    pub(super) fn take_now(&mut self) -> Option<Utf8Bytes> {
        let text = self.queue.try_recv().ok()?;
        self.took(text)
    }

    fn took(&mut self, text: Utf8Bytes) -> Option<Utf8Bytes> {
        self.load.bytes.fetch_sub(text.len(), Ordering::Relaxed);
        (!self.load.is_over.load(Ordering::Relaxed)).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ErrorCode, Instance, ParticipantId, SessionId, SessionKind};

    fn error(bytes: usize) -> HubMessage {
        let (code, message) = (ErrorCode::BadMessage, "x".repeat(bytes));
        HubMessage::Error { code, message, session: None }
    }

    #[tokio::test]
    async fn an_outbox_takes_so_many_messages_and_a_link_that_lags_gets_none_of_them() {
        let (outbox, mut inbox) = outbox();
        for _ in 0..OUTGOING {
            assert!(outbox.put(&HubMessage::Pong));
        }
        assert!(inbox.take().await.is_some());
        assert!(outbox.put(&HubMessage::Pong));
        assert!(!outbox.put(&HubMessage::Pong));
        assert_eq!(inbox.take().await, None);
    }

    #[tokio::test]
    async fn an_outbox_takes_so_many_bytes_and_counts_what_is_taken_out() {
        let (outbox, mut inbox) = outbox();
        let fits = (0..OUTGOING).take_while(|_| outbox.put(&error(60_000))).count();
        assert!((30..=35).contains(&fits), "{fits}");
        let (outbox, mut other) = super::outbox();
        for _ in 0..OUTGOING * 2 {
            assert!(outbox.put(&error(60_000)));
            assert!(other.take_now().is_some());
        }
        assert_eq!(inbox.take_now(), None);
    }

    fn desk() -> (Desk, mpsc::Sender<(LinkId, Word)>, watch::Sender<HubUrl>) {
        let base = watch::Sender::new("http://192.168.5.7:7340".parse().unwrap());
        let (desk, inputs) = Desk::new(None, base.subscribe());
        (desk, inputs, base)
    }

    #[tokio::test]
    async fn who_opens_after_the_address_has_changed_hears_of_it_before_the_answer() {
        let (mut desk, _inputs, base) = desk();
        let mut inbox = arrive(&mut desk, 1);
        assert!(inbox.take_now().unwrap().contains(r#""link_base":"http://192.168.5.7:7340""#));
        base.send_replace("http://192.168.9.33:7340".parse().unwrap());
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        desk.hear(LinkId(1), Word::Said(ClientMessage::Open { session, kind, limit, owner_key }));
        desk.route();
        let told = inbox.take_now().unwrap();
        assert_eq!(told.as_str(), r#"{"type":"link-base","link_base":"http://192.168.9.33:7340"}"#);
        assert!(inbox.take_now().unwrap().contains("opened"));
        let mut later = arrive(&mut desk, 2);
        assert!(later.take_now().unwrap().contains("http://192.168.9.33:7340"));
        assert_eq!((later.take_now(), inbox.take_now()), (None, None), "told once");
    }

    /// A person says hello on the link of that number.
    fn arrive(desk: &mut Desk, number: u8) -> Inbox {
        let (outbox, inbox) = outbox();
        let link = LinkId(u64::from(number));
        let hello = RoomsInput::Hello {
            link,
            participant: ParticipantId::from_digest([number; 10]),
            token: fresh_secret(),
            name: String::new(),
            instance: Instance::from_random(1),
            link_base: String::new(),
        };
        let source = "192.168.1.5".parse().unwrap();
        desk.hear(link, Word::Arrived { source, is_own_user: false, outbox, hello });
        desk.route();
        inbox
    }

    #[tokio::test]
    async fn the_leave_of_a_link_that_has_ended_meanwhile_is_heard() {
        let (mut desk, _inputs, _base) = desk();
        let (mut stays, leaves) = (arrive(&mut desk, 1), arrive(&mut desk, 2));
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let open = ClientMessage::Open { session: session.clone(), kind, limit, owner_key };
        let join = ClientMessage::Join { session: session.clone(), wait: false };
        let mut say = |link, message| {
            desk.hear(LinkId(link), Word::Said(message));
            desk.route();
        };
        say(1, open);
        say(2, join);
        drop(leaves);
        say(2, ClientMessage::Ping);
        say(2, ClientMessage::Leave { session });
        let mut heard = vec![];
        while let Some(text) = stays.take_now() {
            heard.push(text);
        }
        assert!(heard.iter().any(|text| text.contains("participant-left")), "{heard:?}");
    }

    #[tokio::test]
    async fn a_link_learns_why_it_is_closed() {
        let (mut desk, _inputs, _base) = desk();
        let [mut ended, mut silent, mut replaced] = [1, 2, 3].map(|one| arrive(&mut desk, one));
        desk.forget(LinkId(2), Dismissal::Silent.into());
        desk.forget(LinkId(3), Dismissal::Told.into());
        desk.let_go();
        for inbox in [&mut ended, &mut silent, &mut replaced] {
            while inbox.take().await.is_some() {}
        }
        let farewells = [ended, silent, replaced].map(|inbox| inbox.farewell());
        assert_eq!(farewells, [Farewell::HubEnds, Farewell::Silent, Farewell::Done]);
    }

    #[tokio::test]
    async fn entries_of_an_address_are_put_off_and_then_refused() {
        let (mut desk, _inputs, _base) = desk();
        let mut inbox = arrive(&mut desk, 1);
        assert!(inbox.take().await.unwrap().contains("welcome"));
        let mut waits = vec![];
        for _ in 0..100 {
            let (answer, wait) = oneshot::channel();
            desk.hear(LinkId(1), Word::Entering(answer));
            waits.push(wait.await.unwrap());
        }
        assert_eq!(waits[0], Some(Duration::ZERO));
        assert!(waits[50] > Some(Duration::from_secs(1)));
        assert_eq!(waits[99], None);
        let (answer, wait) = oneshot::channel();
        desk.hear(LinkId(2), Word::Entering(answer));
        assert_eq!(wait.await, Ok(None), "a link that the desk let go of");
    }
}
