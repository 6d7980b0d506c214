//! One open session: its seats, and who of them is linked to whom.

use crate::model::{
    Instance, MediaTime, Member, ParticipantId, Presence, Role, Secret, SessionKind,
};

use super::access::Access;

/// An open session. Exactly one seat is the opener's.
pub(super) struct Session {
    /// What it is.
    pub(super) kind: SessionKind,
    /// How many seats it has, the opener's included.
    pub(super) limit: u16,
    /// What proves ownership.
    pub(super) owner_key: Secret,
    /// How many heirs there were.
    pub(super) succession: u16,
    /// Who may take a new seat.
    pub(super) access: Access,
    /// The taken seats, in the order in which they were first taken.
    pub(super) seats: Vec<Seat>,
}

/// A taken seat.
pub(super) struct Seat {
    /// Whose.
    pub(super) participant: ParticipantId,
    /// The name the others know.
    pub(super) name: String,
    /// The run of the program that the others know.
    pub(super) instance: Instance,
    /// The part played.
    pub(super) role: Role,
    /// Whether a link holds it.
    pub(super) bond: Bond,
}

/// What keeps a seat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bond {
    /// The participant's link, on which the seat was taken.
    Held,
    /// Patience alone: the link is gone.
    Loose {
        /// When the silence began.
        since: MediaTime,
    },
}

impl Session {
    /// The seat of a participant.
    pub(super) fn seat(&self, participant: &ParticipantId) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.participant == *participant)
    }

    /// The seat of a participant, to be changed.
    pub(super) fn seat_mut(&mut self, participant: &ParticipantId) -> Option<&mut Seat> {
        self.seats.iter_mut().find(|seat| seat.participant == *participant)
    }

    /// Whether that participant owns the session.
    pub(super) fn is_owner(&self, participant: &ParticipantId) -> bool {
        self.seat(participant).is_some_and(|seat| seat.role == Role::Opener)
    }

    /// Whether no seat is free; a seat that is only kept for its owner is not.
    pub(super) fn is_full(&self) -> bool {
        self.seats.len() >= usize::from(self.limit)
    }

    /// The other seats that the session's direction links to `seat`, in the order of coming.
    pub(super) fn linked<'a>(&'a self, seat: &'a Seat) -> impl Iterator<Item = &'a Seat> {
        self.seats.iter().filter(|other| {
            other.participant != seat.participant && self.kind.links(seat.role, other.role)
        })
    }
}

impl Seat {
    /// Whether a link holds it.
    pub(super) fn is_held(&self) -> bool {
        self.bond == Bond::Held
    }

    /// The seat as the others see it.
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
