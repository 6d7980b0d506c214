//! The edge: connections of participants, from `hello` over silence to their end, and the names of
//! participants. It knows no session. Requests go to the home of the sessions, whose messages come
//! back addressed to participants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::model::{
    ClientMessage, ErrorCode, HubMessage, Instance, MediaTime, PROTOCOL, ParticipantId, Secret,
    clean_name, guest_name, guest_number,
};

use super::{
    ConnectionId, DisconnectReason, RoomsInput, RoomsOutput, RoomsTimer,
    home::{Home, HomeInput, HomeOutput, Request, Sender},
    open_join::OpenRequest,
};

/// The interval at which a client sends at least one message.
///
/// Two in a row may be late before others are notified: busy Wi-Fi stalls for that long.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(1500);

/// A participant that was silent for this long is away. Others are to see it within 5 s.
const AWAY_AFTER: Duration = Duration::from_millis(3500);

/// A connection that was silent for this long is closed. Its client has given up on it long before.
const CLOSE_AFTER: Duration = Duration::from_secs(10);

/// The most participants a hub knows: four times the connections it accepts, since absent
/// participants with reserved seats count too.
const MAX_PARTICIPANTS: usize = 16_384;

/// How often a participant may change its name within [`RENAME_SPAN`]: more than anybody does by
/// hand.
const MAX_RENAMES: u32 = 10;

/// The interval in which changes of a name are counted.
const RENAME_SPAN: Duration = Duration::from_secs(10);

/// The refused signals after which a connection is closed. A correct client sends none of them.
const MAX_REFUSED_SIGNALS: u32 = 10;

/// After this long without a refused signal the count starts again: a program that runs for weeks
/// is not closed for one a week.
const REFUSED_SIGNALS_RESET: Duration = Duration::from_secs(60);

/// The highest guest number that is taken from a name; the hub itself may give higher ones.
const MAX_REQUESTED_GUEST_NUMBER: u64 = 999_999;

/// All connections, and their participants.
#[derive(Default)]
pub(super) struct Edge {
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) participants: BTreeMap<ParticipantId, EdgeParticipant>,
    /// When to check whether a connection was silent for too long. Each connection has one.
    pub(super) timers: BTreeSet<(MediaTime, ConnectionId)>,
    outputs: VecDeque<RoomsOutput>,
    /// The highest number that a guest without a name was given.
    highest_guest_number: u64,
    /// The numbers of all guests without a name.
    guest_numbers: BTreeSet<u64>,
    /// The time of the input that is being handled.
    now: MediaTime,
}

/// One connection of a participant. A participant has at most one.
pub(super) struct Connection {
    /// The participant of the connection.
    participant: ParticipantId,
    /// When the client last sent something.
    last_activity: MediaTime,
    /// Whether the client was silent for so long that the home was told.
    is_silent: bool,
    /// When its timer is due.
    timer: MediaTime,
    refused_signals: RefusedSignals,
}

/// Counts the signals of a connection that were refused.
#[derive(Default)]
struct RefusedSignals {
    count: u32,
    /// When the last one was refused.
    last: MediaTime,
}

/// A participant with a connection or a seat. Others are forgotten.
pub(super) struct EdgeParticipant {
    /// Who it is, as the home is told with each request.
    sender: Arc<Sender>,
    /// The connection of the last `hello`, while it is open.
    pub(super) connection: Option<ConnectionId>,
    /// Whether it has a seat in any session.
    pub(super) has_seats: bool,
    /// The number of a guest without a name, once given.
    guest_number: Option<u64>,
    /// Limits changes of the name.
    rename_limiter: RenameLimiter,
}

/// Limits changes of a name in each [`RENAME_SPAN`]: each change is sent to all paired
/// participants.
#[derive(Default)]
struct RenameLimiter {
    since: MediaTime,
    count: u32,
}

impl Edge {
    /// Handles one input, and what the home answers.
    pub(super) fn handle(&mut self, input: RoomsInput, home: &mut Home, now: MediaTime) {
        self.now = now;
        match input {
            RoomsInput::Hello {
                connection,
                participant,
                token,
                name,
                instance,
                link_base,
                source,
                is_own,
            } => {
                let sender =
                    Sender { participant, name: clean_name(&name), instance, source, is_own };
                if let Some(sender) = self.handle_hello(connection, sender, home) {
                    self.send(connection, welcome_message(&sender, token, link_base));
                }
            }
            RoomsInput::Message { connection, message } => {
                if let Some(participant) = self.on_activity(connection, home) {
                    self.handle_message(&participant, message, home);
                }
            }
            RoomsInput::KeepAlive { connection } => {
                self.on_activity(connection, home);
            }
            RoomsInput::OutboxFull { from, session } => {
                self.tell(home, HomeInput::SignalLost { from, session });
            }
            RoomsInput::Closed { connection } => self.on_closed(connection, home),
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Option<(MediaTime, RoomsTimer<'_>)> {
        let (at, connection) = self.timers.first()?;
        Some((*at, RoomsTimer::Silence { connection: *connection }))
    }

    /// Handles the first timer.
    pub(super) fn handle_timeout(&mut self, home: &mut Home, now: MediaTime) {
        self.now = now;
        if let Some((_, connection)) = self.timers.pop_first() {
            self.check_silence(connection, home);
        }
    }

    /// The next output, in order.
    pub(super) fn poll_output(&mut self) -> Option<RoomsOutput> {
        self.outputs.pop_front()
    }

    /// The participant of a connection.
    pub(super) fn participant(&self, connection: ConnectionId) -> Option<&ParticipantId> {
        self.connections.get(&connection).map(|connection| &connection.participant)
    }

    /// Tells the home something, and carries out what it says. A bus may lie between the two one
    /// day.
    fn tell(&mut self, home: &mut Home, input: HomeInput) {
        home.handle(input, self.now);
        self.deliver_outputs(home, self.now);
    }

    /// Carries out what the home says.
    pub(super) fn deliver_outputs(&mut self, home: &mut Home, now: MediaTime) {
        self.now = now;
        while let Some(output) = home.poll_output() {
            match output {
                HomeOutput::Send { to, message } => self.send_to(&to, message),
                HomeOutput::SignalRefused { from } => self.count_refused_signal(&from, home),
                HomeOutput::SeatsChanged { participant, has_any } => {
                    if let Some(record) = self.participants.get_mut(&participant) {
                        record.has_seats = has_any;
                    }
                    self.remove_if_gone(&participant);
                }
            }
        }
    }

    fn send(&mut self, connection: ConnectionId, message: HubMessage) {
        let connections = vec![connection];
        self.outputs.push_back(RoomsOutput::Send { connections, message });
    }

    /// Sends a message to participants, as far as they are connected.
    fn send_to(&mut self, participants: &[ParticipantId], message: HubMessage) {
        let records = participants.iter().filter_map(|one| self.participants.get(one));
        let connections: Vec<_> = records.filter_map(|record| record.connection).collect();
        if !connections.is_empty() {
            self.outputs.push_back(RoomsOutput::Send { connections, message });
        }
    }

    fn send_error(&mut self, participant: &ParticipantId, code: ErrorCode, text: &str) {
        let error = HubMessage::Error { code, message: text.to_owned(), session: None };
        self.send_to(std::slice::from_ref(participant), error);
    }

    fn handle_message(
        &mut self,
        participant: &ParticipantId,
        message: ClientMessage,
        home: &mut Home,
    ) {
        let request = match message {
            ClientMessage::Hello { .. } => {
                let text = "hello is sent once, as the first message of a connection";
                return self.send_error(participant, ErrorCode::BadMessage, text);
            }
            ClientMessage::Rename { name } => return self.handle_rename(participant, &name, home),
            ClientMessage::Ping => {
                return self.send_to(std::slice::from_ref(participant), HubMessage::Pong);
            }
            ClientMessage::Open { session, kind, limit, owner_key } => {
                Request::Open { session, request: OpenRequest { kind, limit, owner_key } }
            }
            ClientMessage::Join { session, wait } => Request::Join { session, wait },
            ClientMessage::Leave { session } => Request::Leave { session },
            ClientMessage::Close { session } => Request::Close { session },
            ClientMessage::Eject { session, participant, address } => {
                Request::Eject { session, participant, by_address: address }
            }
            ClientMessage::Allow { session, participant } => {
                Request::Allow { session, participant }
            }
            ClientMessage::Lock { session, locked } => Request::Lock { session, is_locked: locked },
            ClientMessage::Signal { session, to, payload } => {
                Request::Signal { session, to, payload }
            }
        };
        let Some(record) = self.participants.get(participant) else { return };
        let sender = record.sender.clone();
        self.tell(home, HomeInput::Request { sender, request });
    }

    /// Adds a connection; returns its participant, or `None` if it was refused.
    fn handle_hello(
        &mut self,
        connection: ConnectionId,
        mut sender: Sender,
        home: &mut Home,
    ) -> Option<Arc<Sender>> {
        if self.connections.contains_key(&connection) {
            return None;
        }
        let participant = sender.participant.clone();
        if let Err((code, text)) = self.check_hello(&participant, &sender.instance) {
            let message = text.to_owned();
            self.send(connection, HubMessage::Error { code, message, session: None });
            self.disconnect(connection, DisconnectReason::ErrorSent);
            return None;
        }
        let mut guest_number = None;
        if let Some(known) = self.participants.get(&participant) {
            guest_number = known.guest_number;
            if let Some(older) = known.connection {
                self.replace_connection(older, home);
            }
        }
        self.fill_guest_name(&mut sender.name, &mut guest_number);
        let known = self.participants.remove(&participant);
        let sender = Arc::new(sender);
        let record = EdgeParticipant {
            sender: sender.clone(),
            connection: Some(connection),
            has_seats: known.is_some_and(|known| known.has_seats),
            guest_number,
            rename_limiter: RenameLimiter::default(),
        };
        self.participants.insert(participant.clone(), record);
        self.add_connection(connection, participant);
        Some(sender)
    }

    fn add_connection(&mut self, id: ConnectionId, participant: ParticipantId) {
        let timer = self.now + AWAY_AFTER;
        self.timers.insert((timer, id));
        let connection = Connection {
            participant,
            last_activity: self.now,
            is_silent: false,
            timer,
            refused_signals: RefusedSignals::default(),
        };
        self.connections.insert(id, connection);
    }

    /// Changes the name of a participant. The home notifies the paired participants.
    fn handle_rename(&mut self, participant: &ParticipantId, requested: &str, home: &mut Home) {
        let Some(record) = self.participants.get_mut(participant) else { return };
        if !record.rename_limiter.allow(self.now) {
            let text = "your name is changed too often; wait some seconds";
            return self.send_error(participant, ErrorCode::TooMany, text);
        }
        let (mut name, mut guest) = (clean_name(requested), record.guest_number);
        self.fill_guest_name(&mut name, &mut guest);
        let Some(record) = self.participants.get_mut(participant) else { return };
        record.guest_number = guest;
        let is_other = record.sender.name != name;
        let sender = Arc::new(Sender { name: name.clone(), ..(*record.sender).clone() });
        record.sender = sender.clone();
        self.send_to(std::slice::from_ref(participant), HubMessage::Renamed { name });
        if is_other {
            self.tell(home, HomeInput::Renamed { sender });
        }
    }

    /// Sets "Guest N" as the name of a participant that has no name, or whose name has that form.
    fn fill_guest_name(&mut self, name: &mut String, guest: &mut Option<u64>) {
        let requested =
            guest_number(name).filter(|number| (1..=MAX_REQUESTED_GUEST_NUMBER).contains(number));
        if name.is_empty() || requested.is_some() {
            let number = guest.unwrap_or_else(|| self.assign_guest_number(requested));
            *guest = Some(number);
            *name = guest_name(number);
        }
    }

    /// Notes activity on a connection, and returns its participant; `None` for an unknown
    /// connection.
    fn on_activity(&mut self, id: ConnectionId, home: &mut Home) -> Option<ParticipantId> {
        let connection = self.connections.get_mut(&id)?;
        connection.last_activity = self.now;
        let participant = connection.participant.clone();
        if connection.is_silent {
            connection.is_silent = false;
            // The timer is set for the closing of the connection, which is later than the next
            // silence.
            self.timers.remove(&(connection.timer, id));
            connection.timer = self.now + AWAY_AFTER;
            self.timers.insert((connection.timer, id));
            self.tell(home, HomeInput::Active { participant: participant.clone() });
        }
        Some(participant)
    }

    /// Handles the closing of a connection.
    fn on_closed(&mut self, id: ConnectionId, home: &mut Home) {
        let Some(connection) = self.connections.get(&id) else { return };
        // The close counts as activity, unless the others were notified of the silence before.
        let since = if connection.is_silent { connection.last_activity } else { self.now };
        self.detach_connection(id, since, home);
    }

    /// Counts a refused signal, and closes the connection at the tenth.
    fn count_refused_signal(&mut self, participant: &ParticipantId, home: &mut Home) {
        let now = self.now;
        let Some(id) = self.participants.get(participant).and_then(|record| record.connection)
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.refused_signals.record(now) < MAX_REFUSED_SIGNALS {
            return;
        }
        self.disconnect(id, DisconnectReason::Misbehaving);
        self.detach_connection(id, now, home);
    }

    /// Handles the timer of a connection: reports a silent participant, closes a dead connection.
    fn check_silence(&mut self, id: ConnectionId, home: &mut Home) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let since = connection.last_activity;
        let silence = self.now.since(since);
        if silence >= CLOSE_AFTER {
            self.disconnect(id, DisconnectReason::Silent);
            return self.detach_connection(id, since, home);
        }
        let becomes_silent = silence >= AWAY_AFTER && !connection.is_silent;
        connection.is_silent |= becomes_silent;
        connection.timer = since + if connection.is_silent { CLOSE_AFTER } else { AWAY_AFTER };
        self.timers.insert((connection.timer, id));
        let participant = connection.participant.clone();
        if becomes_silent {
            self.tell(home, HomeInput::Silent { participant, since });
        }
    }

    /// Closes the older connection of a participant that has opened a new one.
    fn replace_connection(&mut self, older: ConnectionId, home: &mut Home) {
        let Some(connection) = self.connections.get(&older) else { return };
        let last_activity = connection.last_activity;
        let message = "another connection with the same token replaced this one".to_owned();
        let code = ErrorCode::NotAllowed;
        self.send(older, HubMessage::Error { code, message, session: None });
        self.disconnect(older, DisconnectReason::ErrorSent);
        self.detach(older, last_activity, home);
    }

    fn disconnect(&mut self, connection: ConnectionId, reason: DisconnectReason) {
        self.outputs.push_back(RoomsOutput::Disconnect { connection, reason });
    }

    /// Removes a connection whose last activity was at `since`, and its participant if it has no
    /// seat.
    fn detach_connection(&mut self, id: ConnectionId, since: MediaTime, home: &mut Home) {
        if let Some(participant) = self.detach(id, since, home) {
            self.remove_if_gone(&participant);
        }
    }

    /// Removes a connection whose last activity was at `since`: the waits of its participant end,
    /// its seats become reserved.
    fn detach(
        &mut self,
        id: ConnectionId,
        since: MediaTime,
        home: &mut Home,
    ) -> Option<ParticipantId> {
        let connection = self.connections.remove(&id)?;
        self.timers.remove(&(connection.timer, id));
        let participant = connection.participant;
        if let Some(record) = self.participants.get_mut(&participant) {
            record.connection = None;
        }
        self.tell(home, HomeInput::Gone { participant: participant.clone(), since });
        Some(participant)
    }

    fn remove_if_gone(&mut self, participant: &ParticipantId) {
        let is_gone = |record: &EdgeParticipant| record.connection.is_none() && !record.has_seats;
        if self.participants.get(participant).is_some_and(is_gone)
            && let Some(gone) = self.participants.remove(participant)
            && let Some(number) = gone.guest_number
        {
            self.guest_numbers.remove(&number);
        }
    }

    /// A number for a guest without a name: the requested one, which an earlier run of this hub may
    /// have given, if it is free; else one that was never used.
    fn assign_guest_number(&mut self, requested: Option<u64>) -> u64 {
        let is_free = |number: &u64| !self.guest_numbers.contains(number);
        let number = requested.filter(is_free).unwrap_or(self.highest_guest_number + 1);
        self.highest_guest_number = self.highest_guest_number.max(number);
        self.guest_numbers.insert(number);
        number
    }

    fn check_hello(
        &self,
        participant: &ParticipantId,
        instance: &Instance,
    ) -> Result<(), (ErrorCode, &'static str)> {
        // Others get it from the hub, so the hub checks it.
        let instance = instance.as_str();
        if instance.len() != 16 || !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err((ErrorCode::BadMessage, "an instance is 16 hexadecimal digits"));
        }
        if self.participants.len() >= MAX_PARTICIPANTS
            && !self.participants.contains_key(participant)
        {
            return Err((ErrorCode::TooMany, "this hub has too many participants; try later"));
        }
        Ok(())
    }
}

/// The answer to `hello`.
fn welcome_message(sender: &Sender, token: Secret, link_base: String) -> HubMessage {
    let (participant, name) = (sender.participant.clone(), sender.name.clone());
    let heartbeat_ms = HEARTBEAT.as_millis() as u64;
    HubMessage::Welcome { protocol: PROTOCOL, participant, name, token, heartbeat_ms, link_base }
}

impl RefusedSignals {
    /// Counts one more, and returns the number.
    fn record(&mut self, now: MediaTime) -> u32 {
        if now.since(self.last) >= REFUSED_SIGNALS_RESET {
            self.count = 0;
        }
        (self.count, self.last) = (self.count + 1, now);
        self.count
    }
}

impl RenameLimiter {
    /// Counts one change; `false` if there were too many.
    fn allow(&mut self, now: MediaTime) -> bool {
        if now >= self.since + RENAME_SPAN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_RENAMES
    }
}
