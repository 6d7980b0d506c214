//! The hub's rooms: who is in which session, and who hears of it. Pure: time comes in as a value.

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

/// All sessions of one hub, and everybody in them.
///
/// Give it inputs and the time, and drain [`Self::poll_output`] after each; call
/// [`Self::handle_timeout`] when [`Self::poll_timeout`] has come. It keeps no more than its
/// limits allow, whatever the clients say (`PROTOCOL.md`, "Limits").
pub struct Rooms {
    keys: Box<dyn OwnerKeys + Send>,
    links: BTreeMap<LinkId, Link>,
    people: BTreeMap<ParticipantId, Person>,
    sessions: BTreeMap<SessionId, Session>,
    /// Who waits for a session that is not open, in the order of asking.
    waits: BTreeMap<SessionId, Vec<ParticipantId>>,
    alarms: BTreeSet<(MediaTime, Alarm)>,
    outputs: VecDeque<RoomsOutput>,
    /// What signals may still cost whom.
    budgets: Budgets,
    /// The greatest number that a nameless person was given.
    greatest_number: u64,
    /// The numbers of all nameless people.
    numbers: BTreeSet<u64>,
    /// The sessions that the hub's own user has opened.
    own_sessions: BTreeSet<SessionId>,
    have_seats_changed: bool,
    /// Whether nobody but the hub's own user opens sessions.
    is_for_own_user: bool,
    /// The time of the input that is being handled.
    now: MediaTime,
}

/// One socket of the hub, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// The address of another machine, as the hub counts addresses; the rooms only compare it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SourceAddress(pub u128);

/// What happened on a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomsInput {
    /// A client said who it is, in the version that this hub speaks.
    Hello {
        /// On which socket.
        link: LinkId,
        /// Who it is; derived from the token.
        participant: ParticipantId,
        /// The token, to be told in the welcome.
        token: Secret,
        /// How it wants to be called.
        name: String,
        /// Which run of its program.
        instance: Instance,
        /// What links of this hub start with, to be told in the welcome.
        link_base: String,
        /// The address that it came from; `None` for programs of the hub's own machine, of which
        /// there may be many behind one address.
        source: Option<SourceAddress>,
        /// Whether it is a program of the user whose hub this is.
        is_own: bool,
    },
    /// A client said something; a sign of life, whatever it is.
    Message {
        /// On which socket.
        link: LinkId,
        /// What.
        message: ClientMessage,
    },
    /// A client said something that is not for the rooms: a sign of life all the same.
    Alive {
        /// On which socket.
        link: LinkId,
    },
    /// A signal of somebody did not fit into what the receiver's socket may hold of it.
    Overfull {
        /// The sender.
        from: ParticipantId,
        /// In which session.
        session: SessionId,
    },
    /// A socket was closed, by whichever end.
    Closed {
        /// Which.
        link: LinkId,
    },
}

/// What is to be done with a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomsOutput {
    /// Say something to a client.
    Send {
        /// On which socket.
        link: LinkId,
        /// What.
        message: HubMessage,
    },
    /// Close a socket, once what was said before is sent. The rooms have forgotten it already.
    Disconnect {
        /// Which.
        link: LinkId,
        /// Why.
        why: Dismissal,
    },
}

/// Why the rooms let go of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dismissal {
    /// It was told the reason in an error.
    Told,
    /// Nothing was heard from it for too long.
    Silent,
    /// It signalled what it may not, again and again, and was told so each time.
    Misbehaving,
}

impl Rooms {
    /// Rooms without anybody.
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

    /// From now on only programs of the hub's own user open sessions, and heirs who come back to
    /// theirs; everybody may join.
    pub fn open_for_own_user_only(&mut self) {
        self.is_for_own_user = true;
    }

    /// Takes one input. Inputs of sockets that are not known (any more) are ignored.
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

    /// Does what silence demands: tells of it, closes dead sockets, gives up seats.
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

    /// When [`Self::handle_timeout`] is to be called next; at times earlier than needed.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// How many people are connected and sit in sessions that the hub's own user has opened, those
    /// of one run of the program not counted. What strangers do at the hub among themselves keeps
    /// nobody from quitting.
    pub fn guests(&self, host: &Instance) -> usize {
        let rooms = self.own_sessions.iter().filter_map(|session| self.sessions.get(session));
        let connected = rooms.flat_map(|room| &room.seats).filter(|seat| seat.is_held());
        let others = connected.filter(|seat| seat.instance != *host);
        others.map(|seat| &seat.participant).collect::<BTreeSet<_>>().len()
    }

    /// Whether anybody took or lost a seat since this was asked last: only then does
    /// [`Self::guests`] tell something else.
    pub fn have_seats_changed(&mut self) -> bool {
        std::mem::take(&mut self.have_seats_changed)
    }

    /// Whether whoever is on that socket has a seat in that session.
    pub fn has_seat(&self, connection: LinkId, session: &SessionId) -> bool {
        let connection = self.links.get(&connection);
        let record = connection.and_then(|connection| self.people.get(connection.participant()));
        record.is_some_and(|record| record.seats.contains(session))
    }

    /// Whether somebody has a seat in any session, whether connected or not.
    pub fn sits_somewhere(&self, participant: &ParticipantId) -> bool {
        self.people.get(participant).is_some_and(|record| !record.seats.is_empty())
    }

    /// What is to be done next, in order.
    pub fn poll_output(&mut self) -> Option<RoomsOutput> {
        self.outputs.pop_front()
    }

    fn listen(&mut self, participant: &ParticipantId, message: ClientMessage) {
        match message {
            ClientMessage::Hello { .. } => {
                let text = "hello is said once, as the first message of a connection";
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

/// What is to be looked at when its time has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Alarm {
    /// Whether the link was heard of; each link has one alarm.
    Link(LinkId),
    /// Whether the seat was taken back; each loose seat has one alarm.
    Seat(SessionId, ParticipantId),
}

/// What the rules say with.
impl Rooms {
    fn send(&mut self, connection: LinkId, message: HubMessage) {
        self.outputs.push_back(RoomsOutput::Send { link: connection, message });
    }

    /// Says something to a person, if connected.
    fn tell(&mut self, participant: &ParticipantId, message: HubMessage) {
        if let Some(connection) = self.people.get(participant).and_then(|record| record.link) {
            self.send(connection, message);
        }
    }

    /// Says something to all that are linked to `about` in a session and sit there now.
    ///
    /// A person who is back at the hub but has not asked for the seat yet is not told: the
    /// roster it then gets says it all.
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

    /// The person that an input came from: inputs of strangers are not handled.
    fn person(&self, participant: &ParticipantId) -> &Person {
        self.people.get(participant).expect("who is heard is known")
    }

    fn person_mut(&mut self, participant: &ParticipantId) -> &mut Person {
        self.people.get_mut(participant).expect("who is heard or sits somewhere is known")
    }

    /// The seat of a person, for whom a rule has found it already.
    fn seat_mut(&mut self, session: &SessionId, participant: &ParticipantId) -> &mut Seat {
        let room = self.sessions.get_mut(session).expect("the rule has found the session");
        room.seat_mut(participant).expect("the rule has found the seat")
    }
}
