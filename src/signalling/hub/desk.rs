//! The task that owns the rooms: it passes events of connections to the rooms, and messages of the
//! rooms to connections.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    task::yield_now,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    entries::Entries,
    outbox::{ALL_BYTES, FIRST_BYTES, Farewell, OUTGOING_BYTES, Outbox},
};
use crate::{
    model::{
        ClientMessage, HubMessage, HubUrl, Instance, MediaTime, ParticipantId, Secret, SessionId,
    },
    signalling::rooms::{LinkId, Rooms, RoomsInput, RoomsOutput},
};

/// The most events of all connections that wait for the rooms; further connections wait to send
/// theirs.
const INPUTS: usize = 1024;

/// A client is known to read when it has taken all messages this long after `hello`.
const PROVEN_AFTER: Duration = Duration::from_secs(5);

/// An event of a connection, for the rooms.
#[derive(Debug)]
pub(super) enum Word {
    /// The client sent `hello`.
    Arrived {
        /// The address that its joins and opens count for.
        source: IpAddr,
        /// Takes the messages for the client.
        outbox: Outbox,
        /// The input for the rooms.
        hello: RoomsInput,
    },
    /// Before `hello`, a returning client asks whether its participant has a seat.
    Returning(ParticipantId, oneshot::Sender<bool>),
    /// The client asks to join or open a session. The answer may come later: whether it may.
    Entering(SessionId, oneshot::Sender<bool>),
    /// The client sent another message.
    Said(ClientMessage),
    /// The client sent something that is no message; it proves that the client is alive.
    Mumbled,
    /// The connection is closed.
    Gone,
}

/// The hub's clock: microseconds since its start.
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

/// The rooms, and the handles of all connections.
pub(super) struct Desk {
    rooms: Rooms,
    clock: Clock,
    inputs: mpsc::Receiver<(LinkId, Word)>,
    links: BTreeMap<LinkId, Line>,
    /// Bytes that wait in all outboxes together.
    held: Arc<AtomicUsize>,
    /// Whether many bytes wait for a connection, perhaps only because its task had no turn.
    is_pressed: bool,
    entries: Entries,
    /// The run of the program that runs the hub, and where to report the number of guests.
    host: Option<(Instance, watch::Sender<usize>)>,
    /// The base URL of session links.
    link_base: watch::Receiver<HubUrl>,
}

/// The rooms' side of one connection.
struct Line {
    source: IpAddr,
    outbox: Outbox,
    since: MediaTime,
    /// Whether its client was seen to read.
    is_proven: bool,
    /// Takes the answer to a pending request to join or open a session.
    entering: Option<oneshot::Sender<bool>>,
}

impl Line {
    /// The most bytes that may wait for it.
    fn most(&mut self, now: MediaTime) -> usize {
        self.is_proven |= now >= self.since + PROVEN_AFTER && self.outbox.bytes() == 0;
        if self.is_proven { OUTGOING_BYTES } else { FIRST_BYTES }
    }
}

impl Desk {
    /// The actor, and the sender for its events.
    pub(super) fn new(
        rooms: Rooms,
        host: Option<(Instance, watch::Sender<usize>)>,
        link_base: watch::Receiver<HubUrl>,
    ) -> (Self, mpsc::Sender<(LinkId, Word)>) {
        let (sender, events) = mpsc::channel(INPUTS);
        let clock = Clock { start: Instant::now() };
        let actor = Self {
            rooms,
            clock,
            inputs: events,
            links: BTreeMap::new(),
            held: Arc::default(),
            is_pressed: false,
            entries: Entries::default(),
            host,
            link_base,
        };
        (actor, sender)
    }

    /// Bytes that wait in all outboxes together.
    pub(super) fn held(&self) -> Arc<AtomicUsize> {
        self.held.clone()
    }

    /// The clock of the rooms.
    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Runs until all senders of events are dropped. When `closing` is notified, closes every
    /// connection after its queued messages are sent.
    pub(super) async fn run(mut self, closing: Arc<Notify>) {
        loop {
            let now = self.clock.now();
            let due = self.rooms.poll_timeout().into_iter().chain(self.entries.due(now)).min();
            let timer = due.map(|at| self.clock.at(at));
            tokio::select! {
                input = self.inputs.recv() => match input {
                    Some((connection, event)) => self.hear(connection, event),
                    None => return,
                },
                () = closing.notified() => self.let_go(),
                Ok(()) = self.link_base.changed() => self.tell_link_base(),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.rooms.handle_timeout(self.clock.now());
                    self.let_in();
                }
            }
            self.route();
            self.count();
            if std::mem::take(&mut self.is_pressed) {
                yield_now().await;
            }
        }
    }

    /// Reports the number of guests to the host, when it changes.
    fn count(&mut self) {
        let Some((host, guests)) = self.host.as_ref().filter(|_| self.rooms.have_seats_changed())
        else {
            return;
        };
        let now = self.rooms.guests(host);
        guests.send_if_modified(|count| std::mem::replace(count, now) != now);
    }

    /// Handles the events until now, since a leave may be among them, and closes all connections.
    fn let_go(&mut self) {
        while let Ok((connection, event)) = self.inputs.try_recv() {
            self.hear(connection, event);
        }
        self.route();
        for handle in self.links.values() {
            handle.outbox.part(Farewell::HubEnds);
        }
        self.links.clear();
    }

    /// Sends the new base URL of session links to all clients: the old links lead nowhere.
    fn tell_link_base(&mut self) {
        let link_base = self.link_base.borrow_and_update().to_string();
        let message = HubMessage::LinkBase { link_base };
        for connection in self.links.keys().copied().collect::<Vec<_>>() {
            self.say(connection, &message);
        }
    }

    fn hear(&mut self, connection: LinkId, event: Word) {
        // An `open` has refreshed the base URL before: it is sent before the answer.
        if self.link_base.has_changed().unwrap_or(false) {
            self.tell_link_base();
        }
        let now = self.clock.now();
        match event {
            Word::Arrived { source, outbox, mut hello } => {
                if let RoomsInput::Hello { link_base, .. } = &mut hello {
                    *link_base = self.link_base.borrow().to_string();
                }
                self.entries.arrived(source, connection, now);
                let handle = Line { source, outbox, since: now, is_proven: false, entering: None };
                self.links.insert(connection, handle);
                debug!(connection = connection.0, connections = self.links.len(), "connection up");
                self.rooms.handle(hello, now);
            }
            Word::Returning(participant, answer) => {
                // The connection may have ended meanwhile.
                let _ = answer.send(self.rooms.sits_somewhere(&participant));
            }
            Word::Entering(session, answer) => {
                // Without a connection, dropping the answer refuses the request.
                if let Some(handle) = self.links.get_mut(&connection) {
                    let has_seat = self.rooms.has_seat(connection, &session);
                    handle.entering = Some(answer);
                    self.entries.ask(handle.source, connection, has_seat, now);
                    self.let_in();
                }
                self.rooms.handle(RoomsInput::Alive { link: connection }, now);
            }
            Word::Said(message) => {
                self.rooms.handle(RoomsInput::Message { link: connection, message }, now)
            }
            Word::Mumbled => self.rooms.handle(RoomsInput::Alive { link: connection }, now),
            Word::Gone => {
                self.forget(connection, Farewell::Done);
                self.rooms.handle(RoomsInput::Closed { link: connection }, now);
            }
        }
    }

    /// Answers the requests to join or open a session: those that are granted now, and those that
    /// have waited for too long.
    fn let_in(&mut self) {
        for decision in self.entries.poll(self.clock.now()) {
            let handle = self.links.get_mut(&decision.link);
            if let Some(answer) = handle.and_then(|handle| handle.entering.take()) {
                // The connection may have ended meanwhile.
                let _ = answer.send(decision.may_enter);
            }
        }
    }

    /// Sends the rooms' outputs to their connections. A connection that turns out to be dead
    /// becomes one more input, whose outputs follow.
    fn route(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                RoomsOutput::Send { link: connection, message } => self.say(connection, &message),
                RoomsOutput::Disconnect { link: connection, why: reason } => {
                    self.forget(connection, reason.into())
                }
            }
        }
    }

    fn say(&mut self, connection: LinkId, message: &HubMessage) {
        let now = self.clock.now();
        let Some(handle) = self.links.get_mut(&connection) else { return };
        let max = handle.most(now);
        if let HubMessage::Signal { session, from, .. } = message {
            if !handle.outbox.put_signal(message, from, max) {
                let (from, session) = (from.clone(), session.clone());
                self.rooms.handle(RoomsInput::Overfull { from, session }, now);
                return;
            }
        } else if !handle.outbox.put(message, max) {
            warn!(connection = connection.0, "client too slow, connection closed");
            return self.drop_slow(connection);
        }
        self.is_pressed |= handle.outbox.bytes() > FIRST_BYTES / 4;
        self.keep_to_budget();
    }

    /// Closes the connections with the most bytes until all outboxes are within their common limit.
    fn keep_to_budget(&mut self) {
        if self.held.load(Ordering::Relaxed) <= ALL_BYTES {
            return;
        }
        // Closed connections still count until their tasks have ended.
        let bytes = |handle: &Line| handle.outbox.bytes();
        while self.links.values().map(bytes).sum::<usize>() > ALL_BYTES {
            let largest = self.links.iter().max_by_key(|(_, handle)| bytes(handle));
            let Some((connection, _)) = largest else { return };
            let connection = *connection;
            warn!(
                connection = connection.0,
                "outboxes over their common limit, slowest connection closed"
            );
            if let Some(handle) = self.links.get(&connection) {
                handle.outbox.stop();
            }
            self.drop_slow(connection);
        }
    }

    /// Closes a connection whose client reads too slowly.
    fn drop_slow(&mut self, connection: LinkId) {
        self.forget(connection, Farewell::Done);
        self.rooms.handle(RoomsInput::Closed { link: connection }, self.clock.now());
    }

    /// Removes a connection: its task sends the queued messages and closes.
    fn forget(&mut self, connection: LinkId, cause: Farewell) {
        if let Some(handle) = self.links.remove(&connection) {
            handle.outbox.part(cause);
            self.entries.gone(handle.source, connection);
            debug!(connection = connection.0, connections = self.links.len(), "connection down");
        }
    }
}

/// 128 random bits.
pub(super) fn fresh_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    Secret::from_random(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::outbox::{Inbox, outbox};
    use super::*;
    use crate::{
        model::{Payload, SessionKind},
        signalling::rooms::Dismissal,
    };

    fn desk() -> (Desk, mpsc::Sender<(LinkId, Word)>, watch::Sender<HubUrl>) {
        let base = watch::Sender::new("http://192.168.5.7:7340".parse().unwrap());
        let (actor, inputs) = Desk::new(Rooms::new(fresh_secret), None, base.subscribe());
        (actor, inputs, base)
    }

    #[tokio::test]
    async fn a_new_address_is_sent_before_the_answer_to_open() {
        let (mut actor, _inputs, base) = desk();
        let mut inbox = arrive(&mut actor, 1);
        assert!(inbox.take_now().unwrap().contains(r#""link_base":"http://192.168.5.7:7340""#));
        base.send_replace("http://192.168.9.33:7340".parse().unwrap());
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        actor.hear(LinkId(1), Word::Said(ClientMessage::Open { session, kind, limit, owner_key }));
        actor.route();
        let update = inbox.take_now().unwrap();
        assert_eq!(
            update.as_str(),
            r#"{"type":"link-base","link_base":"http://192.168.9.33:7340"}"#
        );
        assert!(inbox.take_now().unwrap().contains("opened"));
        let mut later = arrive(&mut actor, 2);
        assert!(later.take_now().unwrap().contains("http://192.168.9.33:7340"));
        assert_eq!((later.take_now(), inbox.take_now()), (None, None), "sent once");
    }

    /// A participant sends `hello` on the connection of that number.
    fn arrive(actor: &mut Desk, number: u8) -> Inbox {
        let (outbox, inbox) = outbox(&actor.held);
        let connection = LinkId(u64::from(number));
        let hello = RoomsInput::Hello {
            link: connection,
            participant: ParticipantId::from_digest([number; 10]),
            token: fresh_secret(),
            name: String::new(),
            instance: Instance::from_random(1),
            link_base: String::new(),
            source: None,
            is_own: false,
        };
        let source = "192.168.1.5".parse().unwrap();
        actor.hear(connection, Word::Arrived { source, outbox, hello });
        actor.route();
        inbox
    }

    #[tokio::test]
    async fn a_leave_is_handled_although_its_connection_has_ended() {
        let (mut actor, _inputs, _base) = desk();
        let (mut stays, leaves) = (arrive(&mut actor, 1), arrive(&mut actor, 2));
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let open = ClientMessage::Open { session: session.clone(), kind, limit, owner_key };
        let join = ClientMessage::Join { session: session.clone(), wait: false };
        let mut send_and_dispatch = |connection, message| {
            actor.hear(LinkId(connection), Word::Said(message));
            actor.route();
        };
        send_and_dispatch(1, open);
        send_and_dispatch(2, join);
        drop(leaves);
        send_and_dispatch(2, ClientMessage::Ping);
        send_and_dispatch(2, ClientMessage::Leave { session });
        let mut received = vec![];
        while let Some(text) = stays.take_now() {
            received.push(text);
        }
        assert!(received.iter().any(|text| text.contains("participant-left")), "{received:?}");
    }

    #[tokio::test]
    async fn a_connection_gets_the_reason_why_it_is_closed() {
        let (mut actor, _inputs, _base) = desk();
        let [mut ended, mut silent, mut replaced] = [1, 2, 3].map(|one| arrive(&mut actor, one));
        actor.forget(LinkId(2), Dismissal::Silent.into());
        actor.forget(LinkId(3), Dismissal::Told.into());
        actor.let_go();
        for inbox in [&mut ended, &mut silent, &mut replaced] {
            while inbox.take().await.is_some() {}
        }
        let causes = [ended, silent, replaced].map(|inbox| inbox.farewell());
        assert_eq!(causes, [Farewell::HubEnds, Farewell::Silent, Farewell::Done]);
    }

    #[tokio::test]
    async fn joins_of_an_address_are_delayed_and_granted_one_at_a_time() {
        let (mut actor, _inputs, _base) = desk();
        let mut inbox = arrive(&mut actor, 1);
        assert!(inbox.take().await.unwrap().contains("welcome"));
        let session = SessionId::parse("a").unwrap();
        let mut permits = vec![];
        for _ in 0..20 {
            let (answer, permit) = oneshot::channel();
            actor.hear(LinkId(1), Word::Entering(session.clone(), answer));
            permits.push(permit);
        }
        for permit in &mut permits[..16] {
            assert_eq!(permit.try_recv(), Ok(true));
        }
        let now = actor.clock.now();
        assert!(actor.entries.due(now).unwrap() > now, "the next one is delayed");
        let (answer, permit) = oneshot::channel();
        actor.hear(LinkId(2), Word::Entering(session, answer));
        assert!(permit.await.is_err(), "the connection is not known");
    }

    fn error(bytes: usize) -> HubMessage {
        let (code, message) = (crate::model::ErrorCode::BadMessage, "x".repeat(bytes));
        HubMessage::Error { code, message, session: None }
    }

    #[tokio::test]
    async fn a_connection_that_was_not_seen_to_read_holds_256_kib() {
        let (mut actor, _inputs, _base) = desk();
        let [_not_reading, mut reading] = [1, 2].map(|number| arrive(&mut actor, number));
        while reading.take_now().is_some() {}
        actor.clock.start -= PROVEN_AFTER;
        for _ in 0..20 {
            actor.say(LinkId(1), &error(60_000));
            actor.say(LinkId(2), &error(60_000));
        }
        assert!(!actor.links.contains_key(&LinkId(1)), "it has read nothing");
        assert!(actor.links.contains_key(&LinkId(2)));
    }

    #[tokio::test]
    async fn all_connections_together_hold_64_mib_and_the_largest_is_closed_first() {
        let (mut actor, _inputs, _base) = desk();
        let mut inboxes: Vec<_> = (1..=70).map(|number| arrive(&mut actor, number)).collect();
        for inbox in &mut inboxes {
            while inbox.take_now().is_some() {}
        }
        actor.clock.start -= PROVEN_AFTER;
        (0..10).for_each(|_| actor.say(LinkId(1), &error(60_000)));
        for connection in (1..=70).map(LinkId) {
            (0..20).for_each(|_| actor.say(connection, &error(60_000)));
        }
        let left = actor.links.len();
        assert!((50..70).contains(&left), "{left}");
        assert!(!actor.links.contains_key(&LinkId(1)), "it held most");
        assert!(actor.links.contains_key(&LinkId(2)), "it did not");
        inboxes.retain_mut(|inbox| inbox.take_now().is_some());
        assert_eq!(inboxes.len(), left, "a closed connection discards its queue");
        let queued_bytes = actor.held.load(Ordering::Relaxed);
        assert!((ALL_BYTES / 2..=ALL_BYTES).contains(&queued_bytes), "{queued_bytes}");
    }

    #[tokio::test]
    async fn a_signal_that_does_not_fit_costs_its_sender_and_not_its_receiver() {
        let (mut actor, _inputs, _base) = desk();
        let [_opener, mut guest] = [1, 2].map(|number| arrive(&mut actor, number));
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let mut send_and_dispatch = |connection, message| {
            actor.hear(LinkId(connection), Word::Said(message));
            actor.route();
        };
        send_and_dispatch(
            1,
            ClientMessage::Open { session: session.clone(), kind, limit, owner_key },
        );
        send_and_dispatch(2, ClientMessage::Join { session: session.clone(), wait: false });
        let (to, sdp) = (ParticipantId::from_digest([1; 10]), format!("m={}", "x".repeat(30_000)));
        for _ in 0..13 {
            let payload = Payload::Offer { generation: 1, sdp: sdp.clone() }.into();
            let (session, to) = (session.clone(), to.clone());
            send_and_dispatch(2, ClientMessage::Signal { session, to, payload });
        }
        assert!(
            actor.links.contains_key(&LinkId(1)),
            "the receiver that does not read stays connected"
        );
        assert!(!actor.links.contains_key(&LinkId(2)));
        let received: Vec<_> = std::iter::from_fn(|| guest.take_now()).collect();
        let refused = received.iter().filter(|text| text.contains("too-many")).count();
        assert_eq!((refused, guest.farewell()), (10, Farewell::Misbehaving), "{received:?}");
    }
}
