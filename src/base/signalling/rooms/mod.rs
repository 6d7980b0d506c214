//! The hub's rooms: which participant is in which session, and which messages the others get. Pure:
//! time is passed in as a value.

mod about;
mod access;
mod edge;
mod home;
mod leave_close;
mod open_join;
mod owner_keys;
mod presence;
mod relay;
mod session;
mod signal_budget;
#[cfg(test)]
mod tests;

use crate::model::{
    ClientMessage, HubMessage, Instance, MediaTime, ParticipantId, Secret, SessionId,
};

pub use about::SessionAbout;
use edge::Edge;
use home::Home;
pub use owner_keys::OwnerKeys;

/// All sessions of one hub, and their participants.
///
/// Give it inputs with the time, and drain [`Self::poll_output`] after each; call
/// [`Self::handle_timeout`] at the time of [`Self::poll_timeout`]. Its memory stays within its
/// limits, whatever the clients send (`PROTOCOL.md`, "Limits").
///
/// The edge has the connections, the home has the sessions. Between them go requests of
/// participants, news of their connections, and messages addressed to participants.
pub struct Rooms {
    edge: Edge,
    home: Home,
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

/// A timer of the rooms, with what it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RoomsTimer<'a> {
    /// A connection is checked: a silent participant is reported, a dead connection closed.
    Silence {
        /// The connection.
        connection: ConnectionId,
    },
    /// The reserved seat of a participant that is not connected is given up.
    SeatExpiry {
        /// The session.
        session: &'a SessionId,
        /// The participant.
        participant: &'a ParticipantId,
    },
}

impl Rooms {
    /// Rooms without sessions and participants.
    pub fn new(keys: impl OwnerKeys + Send + 'static) -> Self {
        Self { edge: Edge::default(), home: Home::new(keys) }
    }

    /// From now on only programs of the hub's own user open sessions, and successors that come back
    /// to theirs. Everybody may join.
    pub fn restrict_opening_to_own_user(&mut self) {
        self.home.only_own_user_opens = true;
    }

    /// Handles one input. Inputs of unknown connections are ignored.
    pub fn handle(&mut self, input: RoomsInput, now: MediaTime) {
        self.edge.handle(input, &mut self.home, now);
    }

    /// Handles the timers that are due: reports silent participants, closes dead connections, gives
    /// up reserved seats.
    pub fn handle_timeout(&mut self, now: MediaTime) {
        let due = |next: Option<(MediaTime, RoomsTimer<'_>)>| {
            next.map(|(at, _)| at).filter(|at| *at <= now)
        };
        loop {
            let edge = due(self.edge.poll_timeout());
            match (edge, due(self.home.poll_timeout())) {
                (Some(edge), home) if home.is_none_or(|home| edge <= home) => {
                    self.edge.handle_timeout(&mut self.home, now);
                }
                (_, Some(_)) => {
                    self.home.handle_timeout(now);
                    self.edge.deliver_outputs(&mut self.home, now);
                }
                (_, None) => return,
            }
        }
    }

    /// The time at which [`Self::handle_timeout`] is to be called next, and the timer that runs out
    /// then. The time may be earlier than necessary.
    pub fn poll_timeout(&self) -> Option<(MediaTime, RoomsTimer<'_>)> {
        self.edge.poll_timeout().into_iter().chain(self.home.poll_timeout()).min()
    }

    /// The number of connected participants with a seat in a session that the hub's own user has
    /// opened, without the participants of `host`, a run of the program. Participants of other
    /// sessions do not count: they must not keep the user from quitting.
    pub fn guests(&self, host: &Instance) -> usize {
        self.home.guests(host)
    }

    /// Whether a seat was taken or lost since the last call. Only then can [`Self::guests`] have
    /// changed.
    pub fn have_seats_changed(&mut self) -> bool {
        std::mem::take(&mut self.home.have_seats_changed)
    }

    /// Whether the participant of a connection has a seat in a session.
    pub fn has_seat(&self, connection: ConnectionId, session: &SessionId) -> bool {
        let participant = self.edge.participant(connection);
        participant.is_some_and(|participant| self.home.has_seat(participant, session))
    }

    /// Whether a participant has a seat in any session, connected or not.
    pub fn has_any_seat(&self, participant: &ParticipantId) -> bool {
        self.home.has_any_seat(participant)
    }

    /// What anybody may learn of a session without joining it.
    pub fn about(&self, session: &SessionId) -> SessionAbout {
        self.home.about(session)
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<RoomsOutput> {
        self.edge.poll_output()
    }
}
