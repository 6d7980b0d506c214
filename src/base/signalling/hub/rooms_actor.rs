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
    about_limiter::AboutLimiter,
    join_queue::JoinQueue,
    outbox::{CloseCause, MAX_BYTES, MAX_BYTES_UNPROVEN, MAX_TOTAL_BYTES, Outbox},
    shared_message::SharedMessage,
};
use crate::{
    model::{
        ClientMessage, HubMessage, HubUrl, Instance, MediaTime, ParticipantId, Secret, SessionId,
    },
    signalling::rooms::{ConnectionId, Rooms, RoomsInput, RoomsOutput, SessionAbout},
};

/// The most events of all connections that wait for the rooms; further connections wait to send
/// theirs.
const EVENT_QUEUE: usize = 1024;

/// A client is known to read when it has taken all messages this long after `hello`.
const READING_AFTER: Duration = Duration::from_secs(5);

/// An event of a connection, for the rooms.
#[derive(Debug)]
pub(super) enum ConnectionEvent {
    /// The client sent `hello`.
    Hello {
        /// The address that its joins and opens count for.
        source: IpAddr,
        /// Takes the messages for the client.
        outbox: Outbox,
        /// The input for the rooms.
        hello: RoomsInput,
    },
    /// Before `hello`, a returning client asks whether its participant has a seat.
    SeatQuery(ParticipantId, oneshot::Sender<bool>),
    /// The client asks to join or open a session. The answer may come later: whether it may.
    JoinPermit(SessionId, oneshot::Sender<bool>),
    /// Somebody who is no participant asks about a session. The answer is the time to wait if that
    /// address asks too often.
    About(IpAddr, SessionId, oneshot::Sender<Result<SessionAbout, Duration>>),
    /// The client sent another message.
    Message(ClientMessage),
    /// The client is alive, although it has sent no message for the rooms.
    KeepAlive,
    /// The connection is closed.
    Closed,
}

/// The hub's clock: microseconds since its start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn started_now() -> Self {
        Self { start: Instant::now() }
    }

    /// The time now.
    pub(super) fn now(self) -> MediaTime {
        MediaTime::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn at(self, time: MediaTime) -> Instant {
        self.start + Duration::from_micros(time.as_micros())
    }
}

/// The rooms, and the handles of all connections.
pub(super) struct RoomsActor {
    rooms: Rooms,
    clock: Clock,
    events: mpsc::Receiver<(ConnectionId, ConnectionEvent)>,
    connections: BTreeMap<ConnectionId, ConnectionHandle>,
    /// Bytes that wait in all outboxes together.
    queued_bytes: Arc<AtomicUsize>,
    /// Whether many bytes wait for a connection, perhaps only because its task had no turn.
    should_yield: bool,
    join_queue: JoinQueue,
    about_limiter: AboutLimiter,
    /// The run of the program that runs the hub, and where to report the number of guests.
    host: Option<(Instance, watch::Sender<usize>)>,
    /// The base URL of session links.
    link_base: watch::Receiver<HubUrl>,
}

/// The rooms' side of one connection.
struct ConnectionHandle {
    source: IpAddr,
    outbox: Outbox,
    connected_at: MediaTime,
    /// Whether its client was seen to read.
    is_reading: bool,
    /// Takes the answer to a pending request to join or open a session.
    join_permit: Option<oneshot::Sender<bool>>,
}

impl ConnectionHandle {
    /// The most bytes that may wait for it.
    fn max_queued_bytes(&mut self, now: MediaTime) -> usize {
        self.is_reading |=
            now >= self.connected_at + READING_AFTER && self.outbox.queued_bytes() == 0;
        if self.is_reading { MAX_BYTES } else { MAX_BYTES_UNPROVEN }
    }
}

impl RoomsActor {
    /// The actor, and the sender for its events.
    pub(super) fn new(
        rooms: Rooms,
        host: Option<(Instance, watch::Sender<usize>)>,
        link_base: watch::Receiver<HubUrl>,
    ) -> (Self, mpsc::Sender<(ConnectionId, ConnectionEvent)>) {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        let clock = Clock::started_now();
        let actor = Self {
            rooms,
            clock,
            events,
            connections: BTreeMap::new(),
            queued_bytes: Arc::default(),
            should_yield: false,
            join_queue: JoinQueue::default(),
            about_limiter: AboutLimiter::default(),
            host,
            link_base,
        };
        (actor, sender)
    }

    /// Bytes that wait in all outboxes together.
    pub(super) fn queued_bytes(&self) -> Arc<AtomicUsize> {
        self.queued_bytes.clone()
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
            let rooms = self.rooms.poll_timeout().map(|(at, _)| at);
            let due = rooms.into_iter().chain(self.join_queue.next_due(now)).min();
            let timer = due.map(|at| self.clock.at(at));
            tokio::select! {
                input = self.events.recv() => match input {
                    Some((connection, event)) => self.handle_event(connection, event),
                    None => return,
                },
                () = closing.notified() => self.close_all(),
                Ok(()) = self.link_base.changed() => self.broadcast_link_base(),
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.rooms.handle_timeout(self.clock.now());
                    self.grant_join_permits();
                }
            }
            self.dispatch_outputs();
            self.report_guests();
            if std::mem::take(&mut self.should_yield) {
                yield_now().await;
            }
        }
    }

    /// Reports the number of guests to the host, when it changes.
    fn report_guests(&mut self) {
        let Some((host, guests)) = self.host.as_ref().filter(|_| self.rooms.have_seats_changed())
        else {
            return;
        };
        let now = self.rooms.guests(host);
        guests.send_if_modified(|count| std::mem::replace(count, now) != now);
    }

    /// Handles the events until now, since a leave may be among them, and closes all connections.
    fn close_all(&mut self) {
        while let Ok((connection, event)) = self.events.try_recv() {
            self.handle_event(connection, event);
        }
        self.dispatch_outputs();
        for handle in self.connections.values() {
            handle.outbox.set_close_cause(CloseCause::HubClosing);
        }
        self.connections.clear();
    }

    /// Sends the new base URL of session links to all clients: the old links lead nowhere.
    fn broadcast_link_base(&mut self) {
        let link_base = self.link_base.borrow_and_update().to_string();
        let connections = self.connections.keys().copied().collect();
        self.send_to_all(connections, HubMessage::LinkBase { link_base }.into());
    }

    fn handle_event(&mut self, connection: ConnectionId, event: ConnectionEvent) {
        // An `open` has refreshed the base URL before: it is sent before the answer.
        if self.link_base.has_changed().unwrap_or(false) {
            self.broadcast_link_base();
        }
        let now = self.clock.now();
        match event {
            ConnectionEvent::Hello { source, outbox, hello } => {
                self.on_hello(connection, (source, outbox), hello);
            }
            ConnectionEvent::SeatQuery(participant, answer) => {
                // The connection may have ended meanwhile.
                let _ = answer.send(self.rooms.has_any_seat(&participant));
            }
            ConnectionEvent::JoinPermit(session, answer) => {
                // Without a connection, dropping the answer refuses the request.
                if let Some(handle) = self.connections.get_mut(&connection) {
                    let has_seat = self.rooms.has_seat(connection, &session);
                    handle.join_permit = Some(answer);
                    self.join_queue.request(handle.source, connection, has_seat, now);
                    self.grant_join_permits();
                }
                self.rooms.handle(RoomsInput::KeepAlive { connection }, now);
            }
            ConnectionEvent::About(source, session, answer) => {
                let allowed = self.about_limiter.take(source, now);
                // The connection may have ended meanwhile.
                let _ = answer.send(allowed.map(|()| self.rooms.about(&session)));
            }
            ConnectionEvent::Message(message) => {
                self.rooms.handle(RoomsInput::Message { connection, message }, now)
            }
            ConnectionEvent::KeepAlive => {
                self.rooms.handle(RoomsInput::KeepAlive { connection }, now)
            }
            ConnectionEvent::Closed => {
                self.close_connection(connection, CloseCause::Normal);
                self.rooms.handle(RoomsInput::Closed { connection }, now);
            }
        }
    }

    fn on_hello(
        &mut self,
        connection: ConnectionId,
        (source, outbox): (IpAddr, Outbox),
        mut hello: RoomsInput,
    ) {
        let now = self.clock.now();
        if let RoomsInput::Hello { link_base, .. } = &mut hello {
            *link_base = self.link_base.borrow().to_string();
        }
        self.join_queue.add_connection(source, connection, now);
        let handle = ConnectionHandle {
            source,
            outbox,
            connected_at: now,
            is_reading: false,
            join_permit: None,
        };
        self.connections.insert(connection, handle);
        debug!(connection = connection.0, connections = self.connections.len(), "connection up");
        self.rooms.handle(hello, now);
    }

    /// Answers the requests to join or open a session: those that are granted now, and those that
    /// have waited for too long.
    fn grant_join_permits(&mut self) {
        for decision in self.join_queue.poll(self.clock.now()) {
            let handle = self.connections.get_mut(&decision.connection);
            if let Some(answer) = handle.and_then(|handle| handle.join_permit.take()) {
                // The connection may have ended meanwhile.
                let _ = answer.send(decision.is_granted);
            }
        }
    }

    /// Sends the rooms' outputs to their connections. A connection that turns out to be dead
    /// becomes one more input, whose outputs follow.
    fn dispatch_outputs(&mut self) {
        while let Some(output) = self.rooms.poll_output() {
            match output {
                RoomsOutput::Send { connections, message } => {
                    self.send_to_all(connections, message.into())
                }
                RoomsOutput::Disconnect { connection, reason } => {
                    self.close_connection(connection, reason.into())
                }
            }
        }
    }

    fn send_to_all(&mut self, connections: Vec<ConnectionId>, message: SharedMessage) {
        for connection in connections {
            self.send(connection, message.clone());
        }
    }

    fn send(&mut self, connection: ConnectionId, message: SharedMessage) {
        let now = self.clock.now();
        let Some(handle) = self.connections.get_mut(&connection) else { return };
        let max = handle.max_queued_bytes(now);
        if let HubMessage::Signal { session, from, .. } = message.message() {
            if !handle.outbox.try_send_signal(message.clone(), from, max) {
                let (from, session) = (from.clone(), session.clone());
                self.rooms.handle(RoomsInput::OutboxFull { from, session }, now);
                return;
            }
        } else if !handle.outbox.try_send(message, max) {
            warn!(connection = connection.0, "client too slow, connection closed");
            return self.close_slow(connection);
        }
        self.should_yield |= handle.outbox.queued_bytes() > MAX_BYTES_UNPROVEN / 4;
        self.enforce_total_bytes();
    }

    /// Closes the connections with the most bytes until all outboxes are within their common limit.
    fn enforce_total_bytes(&mut self) {
        if self.queued_bytes.load(Ordering::Relaxed) <= MAX_TOTAL_BYTES {
            return;
        }
        // Closed connections still count until their tasks have ended.
        let bytes = |handle: &ConnectionHandle| handle.outbox.queued_bytes();
        while self.connections.values().map(bytes).sum::<usize>() > MAX_TOTAL_BYTES {
            let largest = self.connections.iter().max_by_key(|(_, handle)| bytes(handle));
            let Some((connection, _)) = largest else { return };
            let connection = *connection;
            warn!(
                connection = connection.0,
                "outboxes over their common limit, slowest connection closed"
            );
            if let Some(handle) = self.connections.get(&connection) {
                handle.outbox.stop();
            }
            self.close_slow(connection);
        }
    }

    /// Closes a connection whose client reads too slowly.
    fn close_slow(&mut self, connection: ConnectionId) {
        self.close_connection(connection, CloseCause::Normal);
        self.rooms.handle(RoomsInput::Closed { connection }, self.clock.now());
    }

    /// Removes a connection: its task sends the queued messages and closes.
    fn close_connection(&mut self, connection: ConnectionId, cause: CloseCause) {
        if let Some(handle) = self.connections.remove(&connection) {
            handle.outbox.set_close_cause(cause);
            self.join_queue.remove_connection(handle.source, connection);
            debug!(
                connection = connection.0,
                connections = self.connections.len(),
                "connection down"
            );
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
    use super::super::outbox::{OutboxReceiver, outbox};
    use super::*;
    use crate::{
        model::{Payload, SessionKind},
        signalling::rooms::DisconnectReason,
    };

    fn actor() -> (RoomsActor, mpsc::Sender<(ConnectionId, ConnectionEvent)>, watch::Sender<HubUrl>)
    {
        let base = watch::Sender::new("http://192.168.5.7:7340".parse().unwrap());
        let (actor, inputs) = RoomsActor::new(Rooms::new(fresh_secret), None, base.subscribe());
        (actor, inputs, base)
    }

    #[tokio::test]
    async fn a_new_address_is_sent_before_the_answer_to_open() {
        let (mut actor, _inputs, base) = actor();
        let mut inbox = connect(&mut actor, 1);
        assert!(text(&mut inbox).contains(r#""link_base":"http://192.168.5.7:7340""#));
        base.send_replace("http://192.168.9.33:7340".parse().unwrap());
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        actor.handle_event(
            ConnectionId(1),
            ConnectionEvent::Message(ClientMessage::Open { session, kind, limit, owner_key }),
        );
        actor.dispatch_outputs();
        let update = text(&mut inbox);
        assert_eq!(update, r#"{"type":"link-base","link_base":"http://192.168.9.33:7340"}"#);
        assert!(text(&mut inbox).contains("opened"));
        let mut later = connect(&mut actor, 2);
        assert!(text(&mut later).contains("http://192.168.9.33:7340"));
        assert!(later.try_recv().is_none() && inbox.try_recv().is_none(), "sent once");
    }

    /// The text of the next message.
    fn text(inbox: &mut OutboxReceiver) -> String {
        inbox.try_recv().unwrap().text().to_string()
    }

    /// A participant sends `hello` on the connection of that number.
    fn connect(actor: &mut RoomsActor, number: u8) -> OutboxReceiver {
        let (outbox, inbox) = outbox(&actor.queued_bytes);
        let connection = ConnectionId(u64::from(number));
        let hello = RoomsInput::Hello {
            connection,
            participant: ParticipantId::from_digest([number; 10]),
            token: fresh_secret(),
            name: String::new(),
            instance: Instance::from_random(1),
            link_base: String::new(),
            source: None,
            is_own: false,
        };
        let source = "192.168.1.5".parse().unwrap();
        actor.handle_event(connection, ConnectionEvent::Hello { source, outbox, hello });
        actor.dispatch_outputs();
        inbox
    }

    #[tokio::test]
    async fn a_leave_is_handled_although_its_connection_has_ended() {
        let (mut actor, _inputs, _base) = actor();
        let (mut stays, leaves) = (connect(&mut actor, 1), connect(&mut actor, 2));
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let open = ClientMessage::Open { session: session.clone(), kind, limit, owner_key };
        let join = ClientMessage::Join { session: session.clone(), wait: false };
        let mut send_and_dispatch = |connection, message| {
            actor.handle_event(ConnectionId(connection), ConnectionEvent::Message(message));
            actor.dispatch_outputs();
        };
        send_and_dispatch(1, open);
        send_and_dispatch(2, join);
        drop(leaves);
        send_and_dispatch(2, ClientMessage::Ping);
        send_and_dispatch(2, ClientMessage::Leave { session });
        let mut received = vec![];
        while let Some(message) = stays.try_recv() {
            received.push(message.text());
        }
        assert!(received.iter().any(|text| text.contains("participant-left")), "{received:?}");
    }

    #[tokio::test]
    async fn a_connection_gets_the_reason_why_it_is_closed() {
        let (mut actor, _inputs, _base) = actor();
        let [mut ended, mut silent, mut replaced] = [1, 2, 3].map(|one| connect(&mut actor, one));
        actor.close_connection(ConnectionId(2), DisconnectReason::Silent.into());
        actor.close_connection(ConnectionId(3), DisconnectReason::ErrorSent.into());
        actor.close_all();
        for inbox in [&mut ended, &mut silent, &mut replaced] {
            while inbox.recv().await.is_some() {}
        }
        let causes = [ended, silent, replaced].map(|inbox| inbox.close_cause());
        assert_eq!(causes, [CloseCause::HubClosing, CloseCause::Silent, CloseCause::Normal]);
    }

    #[tokio::test]
    async fn joins_of_an_address_are_delayed_and_granted_one_at_a_time() {
        let (mut actor, _inputs, _base) = actor();
        let mut inbox = connect(&mut actor, 1);
        assert!(text(&mut inbox).contains("welcome"));
        let session = SessionId::parse("a").unwrap();
        let mut permits = vec![];
        for _ in 0..20 {
            let (answer, permit) = oneshot::channel();
            actor.handle_event(
                ConnectionId(1),
                ConnectionEvent::JoinPermit(session.clone(), answer),
            );
            permits.push(permit);
        }
        for permit in &mut permits[..16] {
            assert_eq!(permit.try_recv(), Ok(true));
        }
        let now = actor.clock.now();
        assert!(actor.join_queue.next_due(now).unwrap() > now, "the next one is delayed");
        let (answer, permit) = oneshot::channel();
        actor.handle_event(ConnectionId(2), ConnectionEvent::JoinPermit(session, answer));
        assert!(permit.await.is_err(), "the connection is not known");
    }

    fn error(bytes: usize) -> SharedMessage {
        let (code, message) = (crate::model::ErrorCode::BadMessage, "x".repeat(bytes));
        HubMessage::Error { code, message, session: None }.into()
    }

    #[tokio::test]
    async fn a_connection_that_was_not_seen_to_read_holds_256_kib() {
        let (mut actor, _inputs, _base) = actor();
        let [_not_reading, mut reading] = [1, 2].map(|number| connect(&mut actor, number));
        while reading.try_recv().is_some() {}
        actor.clock.start -= READING_AFTER;
        for _ in 0..20 {
            actor.send(ConnectionId(1), error(60_000));
            actor.send(ConnectionId(2), error(60_000));
        }
        assert!(!actor.connections.contains_key(&ConnectionId(1)), "it has read nothing");
        assert!(actor.connections.contains_key(&ConnectionId(2)));
    }

    #[tokio::test]
    async fn all_connections_together_hold_64_mib_and_the_largest_is_closed_first() {
        let (mut actor, _inputs, _base) = actor();
        let mut inboxes: Vec<_> = (1..=70).map(|number| connect(&mut actor, number)).collect();
        for inbox in &mut inboxes {
            while inbox.try_recv().is_some() {}
        }
        actor.clock.start -= READING_AFTER;
        (0..10).for_each(|_| actor.send(ConnectionId(1), error(60_000)));
        for connection in (1..=70).map(ConnectionId) {
            (0..20).for_each(|_| actor.send(connection, error(60_000)));
        }
        let left = actor.connections.len();
        assert!((50..70).contains(&left), "{left}");
        assert!(!actor.connections.contains_key(&ConnectionId(1)), "it held most");
        assert!(actor.connections.contains_key(&ConnectionId(2)), "it did not");
        inboxes.retain_mut(|inbox| inbox.try_recv().is_some());
        assert_eq!(inboxes.len(), left, "a closed connection discards its queue");
        let queued_bytes = actor.queued_bytes.load(Ordering::Relaxed);
        assert!((MAX_TOTAL_BYTES / 2..=MAX_TOTAL_BYTES).contains(&queued_bytes), "{queued_bytes}");
    }

    #[tokio::test]
    async fn a_signal_that_does_not_fit_costs_its_sender_and_not_its_receiver() {
        let (mut actor, _inputs, _base) = actor();
        let [_opener, mut guest] = [1, 2].map(|number| connect(&mut actor, number));
        let session = SessionId::parse("a").unwrap();
        let (kind, limit, owner_key) = (SessionKind::FIVE[0], None, None);
        let mut send_and_dispatch = |connection, message| {
            actor.handle_event(ConnectionId(connection), ConnectionEvent::Message(message));
            actor.dispatch_outputs();
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
            actor.connections.contains_key(&ConnectionId(1)),
            "the receiver that does not read stays connected"
        );
        assert!(!actor.connections.contains_key(&ConnectionId(2)));
        let received: Vec<_> =
            std::iter::from_fn(|| guest.try_recv()).map(|message| message.text()).collect();
        let refused = received.iter().filter(|text| text.contains("too-many")).count();
        assert_eq!((refused, guest.close_cause()), (10, CloseCause::Misbehaving), "{received:?}");
    }
}
