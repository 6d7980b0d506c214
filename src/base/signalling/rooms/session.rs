//! One open session: its seats, and which of them are paired.

use crate::model::{
    Instance, MediaTime, Member, ParticipantId, Presence, Role, Secret, SessionKind,
};

use super::{SourceAddress, access::Access};

/// An open session. Exactly one seat is the opener's.
pub(super) struct Session {
    /// The media and the topology.
    pub(super) kind: SessionKind,
    /// The number of seats, the opener's included.
    pub(super) limit: u16,
    /// The key that proves ownership.
    pub(super) owner_key: Secret,
    /// How many successors have taken the session over.
    pub(super) successor_count: u16,
    /// Whether the session is locked, and which participants were ejected.
    pub(super) access: Access,
    /// The taken seats, in the order in which they were first taken.
    pub(super) seats: Vec<Seat>,
}

/// A taken seat.
pub(super) struct Seat {
    /// The participant that has the seat.
    pub(super) participant: ParticipantId,
    /// The name that the others see.
    pub(super) name: String,
    /// The run of the program that the others know.
    pub(super) instance: Instance,
    /// The address from which the seat was taken last, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// Opener or guest.
    pub(super) role: Role,
    /// Whether the participant's connection holds the seat.
    pub(super) state: SeatState,
}

/// Whether a seat is held by a connection or only reserved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SeatState {
    /// The participant's current connection has taken the seat.
    Connected,
    /// The connection is gone; the seat is kept until a timeout.
    Reserved {
        /// The time since which the participant is silent.
        since: MediaTime,
    },
}

impl Session {
    /// The seat of a participant.
    pub(super) fn seat(&self, participant: &ParticipantId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.participant == *participant)
    }

    /// The seat of a participant, mutable.
    pub(super) fn seat_mut(&mut self, participant: &ParticipantId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.participant == *participant)
    }

    /// Whether a participant owns the session.
    pub(super) fn is_owner(&self, participant: &ParticipantId) -> bool {
        self.seat(participant).is_some_and(|seat| seat.role == Role::Opener)
    }

    /// Whether no seat is free. A reserved seat is not free.
    pub(super) fn is_full(&self) -> bool {
        self.seats.len() >= usize::from(self.limit)
    }

    /// The seats that the session's topology pairs with `seat`, in the order in which they were
    /// taken. Only paired participants see each other and signal to each other.
    pub(super) fn paired_with<'a>(&'a self, seat: &'a Seat) -> impl Iterator<Item = &'a Seat> {
        self.seats.iter().filter(|other| {
            other.participant != seat.participant && self.kind.pairs(seat.role, other.role)
        })
    }
}

impl Seat {
    /// Whether the participant's connection holds the seat.
    pub(super) fn is_connected(&self) -> bool {
        self.state == SeatState::Connected
    }

    /// The seat as other members see it.
    pub(super) fn member(&self, presence: Presence) -> Member {
        Member {
            participant: self.participant.clone(),
            name: self.name.clone(),
            role: self.role,
            instance: self.instance.clone(),
            presence,
        }
    }
}
