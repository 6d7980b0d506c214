//! The hub's rooms: which participant is in which session, and which messages the others get. Pure:
//! time is passed in as a value.

mod access;
mod budget;
mod entry;
mod exit;
mod keys;
mod links;
mod session;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{
    ClientMessage, ErrorCode, HubMessage, Instance, MediaTime, ParticipantId, Secret, SessionId,
};

use budget::Budgets;
use entry::Wish;
pub use keys::OwnerKeys;
use links::{Link, Person};
use session::{Seat, Session};

/// All sessions of one hub, and their participants.
///
/// Give it inputs with the time, and drain [`Self::poll_output`] after each; call
/// [`Self::handle_timeout`] at the time of [`Self::poll_timeout`]. Its memory stays within its
/// limits, whatever the clients send (`PROTOCOL.md`, "Limits").
pub struct Rooms {
    keys: Box<dyn OwnerKeys + Send>,
    links: BTreeMap<LinkId, Link>,
    people: BTreeMap<ParticipantId, Person>,
    sessions: BTreeMap<SessionId, Session>,
    /// The participants that wait for a session that is not open, in the order of their requests.
    waits: BTreeMap<SessionId, Vec<ParticipantId>>,
    alarms: BTreeSet<(MediaTime, Alarm)>,
    outputs: VecDeque<RoomsOutput>,
    /// What each sender may still signal to each receiver.
    budgets: Budgets,
    /// The highest number that a guest without a name was given.
    greatest_number: u64,
    /// The numbers of all guests without a name.
    numbers: BTreeSet<u64>,
    /// The sessions that the hub's own user has opened.
    own_sessions: BTreeSet<SessionId>,
    have_seats_changed: bool,
    /// Whether only the hub's own user may open sessions.
    is_for_own_user: bool,
    /// The time of the input that is being handled.
    now: MediaTime,
}

/// One WebSocket connection of the hub. An id is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

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
        link: LinkId,
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
        link: LinkId,
        /// The message.
        message: ClientMessage,
    },
    /// A client sent something that is not for the rooms; it proves that the client is alive.
    Alive {
        /// The connection of the client.
        link: LinkId,
    },
    /// A signal did not fit into the outbox of its receiver.
    Overfull {
        /// The sender of the signal.
        from: ParticipantId,
        /// The session of the signal.
        session: SessionId,
    },
    /// A connection was closed, by either end.
    Closed {
        /// The closed connection.
        link: LinkId,
    },
}

/// What the hub does with a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomsOutput {
    /// Send a message to a client.
    Send {
        /// The connection of the client.
        link: LinkId,
        /// The message.
        message: HubMessage,
    },
    /// Close a connection after the messages before it are sent. The rooms have forgotten it
    /// already.
    Disconnect {
        /// The connection to close.
        link: LinkId,
        /// The reason, for the close frame.
        why: Dismissal,
    },
}

/// Why the rooms close a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dismissal {
    /// An error message before it gave the reason.
    Told,
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
            links: BTreeMap::new(),
            people: BTreeMap::new(),
            sessions: BTreeMap::new(),
            waits: BTreeMap::new(),
            alarms: BTreeSet::new(),
            outputs: VecDeque::new(),
            budgets: Budgets::default(),
            greatest_number: 0,
            numbers: BTreeSet::new(),
            own_sessions: BTreeSet::new(),
            have_seats_changed: false,
            is_for_own_user: false,
            now: MediaTime::default(),
        }
    }

    /// From now on only programs of the hub's own user open sessions, and successors that come back
    /// to theirs. Everybody may join.
    pub fn open_for_own_user_only(&mut self) {
        self.is_for_own_user = true;
    }

    /// Handles one input. Inputs of unknown connections are ignored.
    pub fn handle(&mut self, input: RoomsInput, now: MediaTime) {
        self.now = now;
        match input {
            RoomsInput::Hello {
                link: connection,
                participant,
                token,
                name,
                instance,
                link_base,
                source,
                is_own,
            } => {
                let mut record = Person::new(name, instance);
                (record.source, record.is_own) = (source, is_own);
                if let Some(name) = self.hello(connection, participant.clone(), record) {
                    let welcome = links::welcome(participant, name, token, link_base);
                    self.send(connection, welcome);
                }
            }
            RoomsInput::Message { link: connection, message } => {
                if let Some(participant) = self.heard(connection) {
                    self.listen(&participant, message);
                }
            }
            RoomsInput::Alive { link: connection } => {
                self.heard(connection);
            }
            RoomsInput::Overfull { from, session } => self.signals_too_much(&from, &session),
            RoomsInput::Closed { link: connection } => self.closed(connection),
        }
    }

    /// Handles the timers that are due: reports silent participants, closes dead connections, gives
    /// up reserved seats.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        while self.alarms.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, timer)) = self.alarms.pop_first() else { break };
            match timer {
                Alarm::Link(connection) => self.check_link(connection),
                Alarm::Seat(session, participant) => self.give_up_seat(&session, &participant),
            }
        }
    }

    /// The time at which [`Self::handle_timeout`] is to be called next; it may be earlier than
    /// necessary.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// The number of connected participants with a seat in a session that the hub's own user has
    /// opened, without the participants of `host`, a run of the program. Participants of other
    /// sessions do not count: they must not keep the user from quitting.
    pub fn guests(&self, host: &Instance) -> usize {
        let rooms = self.own_sessions.iter().filter_map(|session| self.sessions.get(session));
        let connected = rooms.flat_map(|room| &room.seats).filter(|seat| seat.is_held());
        let others = connected.filter(|seat| seat.instance != *host);
        others.map(|seat| &seat.participant).collect::<BTreeSet<_>>().len()
    }

    /// Whether a seat was taken or lost since the last call. Only then can [`Self::guests`] have
    /// changed.
    pub fn have_seats_changed(&mut self) -> bool {
        std::mem::take(&mut self.have_seats_changed)
    }

    /// Whether the participant of a connection has a seat in a session.
    pub fn has_seat(&self, connection: LinkId, session: &SessionId) -> bool {
        let connection = self.links.get(&connection);
        let record = connection.and_then(|connection| self.people.get(connection.participant()));
        record.is_some_and(|record| record.seats.contains(session))
    }

    /// Whether a participant has a seat in any session, connected or not.
    pub fn sits_somewhere(&self, participant: &ParticipantId) -> bool {
        self.people.get(participant).is_some_and(|record| !record.seats.is_empty())
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<RoomsOutput> {
        self.outputs.pop_front()
    }

    fn listen(&mut self, participant: &ParticipantId, message: ClientMessage) {
        match message {
            ClientMessage::Hello { .. } => {
                let text = "hello is sent once, as the first message of a connection";
                self.refuse(participant, ErrorCode::BadMessage, None, text);
            }
            ClientMessage::Open { session, kind, limit, owner_key } => {
                self.open(participant, session, Wish { kind, limit, owner_key });
            }
            ClientMessage::Join { session, wait } => self.join(participant, session, wait),
            ClientMessage::Leave { session } => self.leave(participant, &session),
            ClientMessage::Close { session } => self.close(participant, &session),
            ClientMessage::Eject { session, participant: ejected, address } => {
                self.eject(participant, &session, (&ejected, address));
            }
            ClientMessage::Allow { session, participant: ejected } => {
                self.allow(participant, &session, &ejected);
            }
            ClientMessage::Lock { session, locked } => self.lock(participant, &session, locked),
            ClientMessage::Rename { name } => self.rename(participant, &name),
            ClientMessage::Signal { session, to, payload } => {
                self.signal(participant, session, &to, payload);
            }
            ClientMessage::Ping => self.tell(participant, HubMessage::Pong),
        }
    }
}

/// A timer of the rooms.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Alarm {
    /// Checks whether a connection was silent for too long. Each connection has one.
    Link(LinkId),
    /// Gives up a seat that was not reclaimed. Each reserved seat has one.
    Seat(SessionId, ParticipantId),
}

/// Sending, and looking up what the rules need.
impl Rooms {
    fn send(&mut self, connection: LinkId, message: HubMessage) {
        self.outputs.push_back(RoomsOutput::Send { link: connection, message });
    }

    /// Sends a message to a participant, if connected.
    fn tell(&mut self, participant: &ParticipantId, message: HubMessage) {
        if let Some(connection) = self.people.get(participant).and_then(|record| record.link) {
            self.send(connection, message);
        }
    }

    /// Sends a message to all participants that are paired with `about` in a session and hold their
    /// seats.
    ///
    /// A participant that is connected again but has not asked for its seat yet gets nothing: the
    /// roster that it receives with the seat has the current state.
    fn tell_linked(&mut self, session: &SessionId, about: &ParticipantId, message: &HubMessage) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(about) else { return };
        let connected = room.linked(seat).filter(|other| other.is_held());
        let receivers: Vec<_> = connected.map(|other| other.participant.clone()).collect();
        for receiver in receivers {
            self.tell(&receiver, message.clone());
        }
    }

    fn refuse(
        &mut self,
        participant: &ParticipantId,
        code: ErrorCode,
        session: Option<&SessionId>,
        text: &str,
    ) {
        let (message, session) = (text.to_owned(), session.cloned());
        self.tell(participant, HubMessage::Error { code, message, session });
    }

    /// The record of the participant that an input came from. Inputs of unknown connections never
    /// get here.
    fn person(&self, participant: &ParticipantId) -> &Person {
        self.people.get(participant).expect("the sender of an input is known")
    }

    fn person_mut(&mut self, participant: &ParticipantId) -> &mut Person {
        self.people
            .get_mut(participant)
            .expect("the sender of an input and the owner of a seat are known")
    }

    /// The seat of a participant; the caller has found it already.
    fn seat_mut(&mut self, session: &SessionId, participant: &ParticipantId) -> &mut Seat {
        let room = self.sessions.get_mut(session).expect("the caller has found the session");
        room.seat_mut(participant).expect("the caller has found the seat")
    }
}
