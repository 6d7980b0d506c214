//! Which sessions come first when the own upload is full.

use std::collections::BTreeSet;

use super::Conference;
use crate::{
    conference::{Effect, session::Session},
    model::{ActiveSpeaker, SessionFailure, SessionId, SessionKind},
};

/// What decides whose turn a session is when the own upload is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionPriority {
    /// The kind of the session.
    pub kind: SessionKind,
    /// Whether the user has raised it.
    pub is_raised: bool,
    /// Whether the user speaks in it, or was the last to do so in any.
    pub is_spoken_in: bool,
}

/// The sessions in which the user speaks. In a pause it is those in which the user spoke last:
/// otherwise each pause would cost all of them a keyframe.
#[derive(Debug, Default)]
pub(super) struct SpokenSessions(BTreeSet<SessionId>);

impl SpokenSessions {
    /// Follows that the user speaks in these sessions now. Returns those of which that is news.
    fn update(&mut self, now: BTreeSet<SessionId>) -> Vec<SessionId> {
        let changed = self.0.symmetric_difference(&now).cloned().collect();
        self.0 = now;
        changed
    }
}

impl Conference {
    /// What decides whose turn a session is; `None` unless it was joined.
    pub fn priority_of_session(&self, session: &SessionId) -> Option<SessionPriority> {
        let is_spoken_in = self.spoken.0.contains(session);
        let session = self.sessions.iter().find(|one| one.id == *session)?;
        Some(SessionPriority { kind: session.kind()?, is_raised: session.is_raised, is_spoken_in })
    }

    pub(super) fn set_priority(&mut self, session: SessionId, raised: bool) {
        self.change_session(&session, |one| one.is_raised = raised);
        self.effects.push(Effect::SetPriority { session });
    }

    pub(super) fn set_active_speaker(&mut self, id: &SessionId, speaker: Option<ActiveSpeaker>) {
        let is_own = speaker == Some(ActiveSpeaker::Own);
        if let (Some(session), cx) = self.session_and_context(id) {
            session.set_active_speaker(speaker, cx.effects);
        }
        if is_own {
            let spoken = self.sessions.iter().filter(|one| one.is_spoken_in());
            let spoken = spoken.map(|one| one.id.clone()).collect();
            for session in self.spoken.update(spoken) {
                self.effects.push(Effect::SetPriority { session });
            }
        }
    }

    /// Changes a session, or reports that there is none.
    pub(super) fn change_session(&mut self, id: &SessionId, change: impl FnOnce(&mut Session)) {
        match self.session_and_context(id).0 {
            Some(session) => change(session),
            None => self.effects.announce_failure(SessionFailure::NotInSession.of(id)),
        }
    }
}
