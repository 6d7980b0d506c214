//! What the user chooses for one session: whether it comes first when the own upload is full.

use super::Conference;
use crate::{
    conference::{Effect, session::Session},
    model::{SessionFailure, SessionId, SessionKind},
};

impl Conference {
    /// The kind of a session that was joined, and whether the user has raised its priority.
    pub fn priority_of_session(&self, session: &SessionId) -> Option<(SessionKind, bool)> {
        let session = self.sessions.iter().find(|one| one.id == *session)?;
        Some((session.kind()?, session.is_raised))
    }

    pub(super) fn set_priority(&mut self, session: SessionId, raised: bool) {
        self.change_session(&session, |one| one.is_raised = raised);
        self.effects.push(Effect::SetPriority { session });
    }

    /// Changes a session, or reports that there is none.
    pub(super) fn change_session(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        match self.session_and_context(id).0 {
            Some(session) => change(session),
            None => self.effects.announce_failure(SessionFailure::NotInSession.of(id)),
        }
    }
}
