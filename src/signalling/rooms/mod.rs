//! The hub's rooms: which participant is in which session, and which messages the others get. Pure:
//! time is passed in as a value.

mod access;
mod leave_close;
mod open_join;
mod owner_keys;
mod presence;
mod relay;
mod session;
mod signal_budget;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{
    ClientMessage, ErrorCode, HubMessage, Instance, MediaTime, ParticipantId, Secret, SessionId,
};

use open_join::OpenRequest;
pub use owner_keys::OwnerKeys;
use presence::{Connection, ParticipantRecord};
use session::{Seat, Session};
use signal_budget::SignalBudgets;

/// All sessions of one hub, and their participants.
///
/// Give it inputs with the time, and drain [`Self::poll_output`] after each; call
/// [`Self::handle_timeout`] at the time of [`Self::poll_timeout`]. Its memory stays within its
/// limits, whatever the clients send (`PROTOCOL.md`, "Limits").
pub struct Rooms {
    keys: Box<dyn OwnerKeys + Send>,
    connections: BTreeMap<ConnectionId, Connection>,
    participants: BTreeMap<ParticipantId, ParticipantRecord>,
    sessions: BTreeMap<SessionId, Session>,
    /// The participants that wait for a session that is not open, in the order of their requests.
    waiting: BTreeMap<SessionId, Vec<ParticipantId>>,
    timers: BTreeSet<(MediaTime, Timer)>,
    outputs: VecDeque<RoomsOutput>,
    /// What each sender may still signal to each receiver.
    budgets: SignalBudgets,
    /// The highest number that a guest without a name was given.
    highest_guest_number: u64,
    /// The numbers of all guests without a name.
    guest_numbers: BTreeSet<u64>,
    /// The sessions that the hub's own user has opened.
    own_sessions: BTreeSet<SessionId>,
    have_seats_changed: bool,
    /// Whether only the hub's own user may open sessions.
    only_own_user_opens: bool,
    /// The time of the input that is being handled.
    now: MediaTime,
}

/// One WebSocket connection of the hub. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// The source address of a connection from another machine, as the hub counts addresses. The rooms
/// only compare it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SourceAddress(pub u128);

/// Something that happened on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomsInput {
    /// A client sent `hello`, in the protocol version of this hub.
    Hello {
        /// The connection of the client.
        connection: ConnectionId,
        /// The participant, derived from the token.
        participant: ParticipantId,
        /// The token, which `welcome` carries back.
        token: Secret,
        /// The requested name; empty if the hub is to choose one.
        name: String,
        /// The run of the client's program.
        instance: Instance,
        /// The base URL of session links at this hub, for `welcome`.
        link_base: String,
        /// The address of the client; `None` for programs on the hub's own machine, of which many
        /// may share one address.
        source: Option<SourceAddress>,
        /// Whether it is a program of the hub's own user.
        is_own: bool,
    },
    /// A client sent a message. Every message proves that the client is alive.
    Message {
        /// The connection of the client.
        connection: ConnectionId,
        /// The message.
        message: ClientMessage,
    },
    /// A client sent something that is not for the rooms; it proves that the client is alive.
    KeepAlive {
        /// The connection of the client.
        connection: ConnectionId,
    },
    /// A signal did not fit into the outbox of its receiver.
    OutboxFull {
        /// The sender of the signal.
        from: ParticipantId,
        /// The session of the signal.
        session: SessionId,
    },
    /// A connection was closed, by either end.
    Closed {
        /// The closed connection.
        connection: ConnectionId,
    },
}

/// What the hub does with a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomsOutput {
    /// Send a message to one or more clients.
    Send {
        /// The connections of the clients, in order.
        connections: Vec<ConnectionId>,
        /// The message.
        message: HubMessage,
    },
    /// Close a connection after the messages before it are sent. The rooms have forgotten it
    /// already.
    Disconnect {
        /// The connection to close.
        connection: ConnectionId,
        /// The reason, for the close frame.
        reason: DisconnectReason,
    },
}

/// Why the rooms close a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DisconnectReason {
    /// An error message before it gave the reason.
    ErrorSent,
    /// The client was silent for too long.
    Silent,
    /// Too many of its signals were refused, each with an error.
    Misbehaving,
}

impl Rooms {
    /// Rooms without sessions and participants.
    pub fn new(keys: impl OwnerKeys + Send + 'static) -> Self {
        Self {
            keys: Box::new(keys),
            connections: BTreeMap::new(),
            participants: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            budgets: SignalBudgets::default(),
            highest_guest_number: 0,
            guest_numbers: BTreeSet::new(),
            own_sessions: BTreeSet::new(),
            have_seats_changed: false,
            only_own_user_opens: false,
            now: MediaTime::default(),
        }
    }

    /// From now on only programs of the hub's own user open sessions, and successors that come back
    /// to theirs. Everybody may join.
    pub fn restrict_opening_to_own_user(&mut self) {
        self.only_own_user_opens = true;
    }

    /// Handles one input. Inputs of unknown connections are ignored.
    pub fn handle(&mut self, input: RoomsInput, now: MediaTime) {
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
                let mut record = ParticipantRecord::new(name, instance);
                (record.source, record.is_own) = (source, is_own);
                if let Some(name) = self.handle_hello(connection, participant.clone(), record) {
                    let welcome = presence::welcome_message(participant, name, token, link_base);
                    self.send(connection, welcome);
                }
            }
            RoomsInput::Message { connection, message } => {
                if let Some(participant) = self.on_activity(connection) {
                    self.handle_message(&participant, message);
                }
            }
            RoomsInput::KeepAlive { connection } => {
                self.on_activity(connection);
            }
            RoomsInput::OutboxFull { from, session } => self.refuse_excess_signal(&from, &session),
            RoomsInput::Closed { connection } => self.on_closed(connection),
        }
    }

    /// Handles the timers that are due: reports silent participants, closes dead connections, gives
    /// up reserved seats.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, timer)) = self.timers.pop_first() else { break };
            match timer {
                Timer::Silence(connection) => self.check_silence(connection),
                Timer::SeatExpiry(session, participant) => self.expire_seat(&session, &participant),
            }
        }
    }

    /// The time at which [`Self::handle_timeout`] is to be called next; it may be earlier than
    /// necessary.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The number of connected participants with a seat in a session that the hub's own user has
    /// opened, without the participants of `host`, a run of the program. Participants of other
    /// sessions do not count: they must not keep the user from quitting.
    pub fn guests(&self, host: &Instance) -> usize {
        let rooms = self.own_sessions.iter().filter_map(|session| self.sessions.get(session));
        let connected = rooms.flat_map(|room| &room.seats).filter(|seat| seat.is_connected());
        let others = connected.filter(|seat| seat.instance != *host);
        others.map(|seat| &seat.participant).collect::<BTreeSet<_>>().len()
    }

    /// Whether a seat was taken or lost since the last call. Only then can [`Self::guests`] have
    /// changed.
    pub fn have_seats_changed(&mut self) -> bool {
        std::mem::take(&mut self.have_seats_changed)
    }

    /// Whether the participant of a connection has a seat in a session.
    pub fn has_seat(&self, connection: ConnectionId, session: &SessionId) -> bool {
        let connection = self.connections.get(&connection);
        let record =
            connection.and_then(|connection| self.participants.get(connection.participant()));
        record.is_some_and(|record| record.seats.contains(session))
    }

    /// Whether a participant has a seat in any session, connected or not.
    pub fn has_any_seat(&self, participant: &ParticipantId) -> bool {
        self.participants.get(participant).is_some_and(|record| !record.seats.is_empty())
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<RoomsOutput> {
        self.outputs.pop_front()
    }

    fn handle_message(&mut self, participant: &ParticipantId, message: ClientMessage) {
        match message {
            ClientMessage::Hello { .. } => {
                let text = "hello is sent once, as the first message of a connection";
                self.send_error(participant, ErrorCode::BadMessage, None, text);
            }
            ClientMessage::Open { session, kind, limit, owner_key } => {
                self.handle_open(participant, session, OpenRequest { kind, limit, owner_key });
            }
            ClientMessage::Join { session, wait } => self.handle_join(participant, session, wait),
            ClientMessage::Leave { session } => self.handle_leave(participant, &session),
            ClientMessage::Close { session } => self.handle_close(participant, &session),
            ClientMessage::Eject { session, participant: ejected, address } => {
                self.handle_eject(participant, &session, (&ejected, address));
            }
            ClientMessage::Allow { session, participant: ejected } => {
                self.handle_allow(participant, &session, &ejected);
            }
            ClientMessage::Lock { session, locked } => {
                self.handle_lock(participant, &session, locked)
            }
            ClientMessage::Rename { name } => self.handle_rename(participant, &name),
            ClientMessage::Signal { session, to, payload } => {
                self.relay_signal(participant, session, &to, payload);
            }
            ClientMessage::Ping => self.notify(participant, HubMessage::Pong),
        }
    }
}

/// A timer of the rooms.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// Checks whether a connection was silent for too long. Each connection has one.
    Silence(ConnectionId),
    /// Gives up a seat that was not reclaimed. Each reserved seat has one.
    SeatExpiry(SessionId, ParticipantId),
}

/// Sending, and looking up what the rules need.
impl Rooms {
    fn send(&mut self, connection: ConnectionId, message: HubMessage) {
        let connections = vec![connection];
        self.outputs.push_back(RoomsOutput::Send { connections, message });
    }

    /// Sends a message to a participant, if connected.
    fn notify(&mut self, participant: &ParticipantId, message: HubMessage) {
        self.notify_all(std::slice::from_ref(participant), message);
    }

    /// Sends the same message to several participants, as far as they are connected.
    fn notify_all(&mut self, participants: &[ParticipantId], message: HubMessage) {
        let records = participants.iter().filter_map(|one| self.participants.get(one));
        let connections: Vec<_> = records.filter_map(|record| record.connection).collect();
        if !connections.is_empty() {
            self.outputs.push_back(RoomsOutput::Send { connections, message });
        }
    }

    /// Sends a message to all participants that are paired with `about` in a session and hold their
    /// seats.
    ///
    /// A participant that is connected again but has not asked for its seat yet gets nothing: the
    /// roster that it receives with the seat has the current state.
    fn notify_paired(&mut self, session: &SessionId, about: &ParticipantId, message: HubMessage) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(about) else { return };
        let connected = room.paired_with(seat).filter(|other| other.is_connected());
        let receivers: Vec<_> = connected.map(|other| other.participant.clone()).collect();
        self.notify_all(&receivers, message);
    }

    fn send_error(
        &mut self,
        participant: &ParticipantId,
        code: ErrorCode,
        session: Option<&SessionId>,
        text: &str,
    ) {
        let (message, session) = (text.to_owned(), session.cloned());
        self.notify(participant, HubMessage::Error { code, message, session });
    }

    /// The record of the participant that an input came from. Inputs of unknown connections never
    /// get here.
    fn record(&self, participant: &ParticipantId) -> &ParticipantRecord {
        self.participants.get(participant).expect("the sender of an input is known")
    }

    fn record_mut(&mut self, participant: &ParticipantId) -> &mut ParticipantRecord {
        self.participants
            .get_mut(participant)
            .expect("the sender of an input and the owner of a seat are known")
    }

    /// The seat of a participant; the caller has found it already.
    fn seat_mut(&mut self, session: &SessionId, participant: &ParticipantId) -> &mut Seat {
        let room = self.sessions.get_mut(session).expect("the caller has found the session");
        room.seat_mut(participant).expect("the caller has found the seat")
    }
}
