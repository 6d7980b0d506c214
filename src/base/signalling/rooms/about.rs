//! What anybody may learn of a session without joining it.

use serde::{Deserialize, Serialize};

use super::{home::Home, session::Session};
use crate::model::{Role, SessionId, SessionKind};

/// What the page of a link shows before its reader decides to join (`PROTOCOL.md`, "Before joining").
///
/// It tells no more than joining would.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SessionAbout {
    /// Whether the session is open.
    pub open: bool,
    /// The kind of an open session.
    pub kind: Option<SessionKind>,
    /// The number of seats; 0 if the session is not open.
    pub limit: u16,
    /// How many members a new guest would be paired with.
    pub present: usize,
    /// Whether no new guest gets a seat: all are taken, or the session is locked.
    pub full: bool,
}

impl Home {
    /// What anybody may learn of a session.
    pub(super) fn about(&self, session: &SessionId) -> SessionAbout {
        self.sessions.get(session).map(Session::about).unwrap_or_default()
    }
}

impl Session {
    fn about(&self) -> SessionAbout {
        let paired = self.seats.iter().filter(|seat| self.kind.pairs(Role::Guest, seat.role));
        SessionAbout {
            open: true,
            kind: Some(self.kind),
            limit: self.limit,
            present: paired.count(),
            full: self.is_full() || self.access.is_locked(),
        }
    }
}
