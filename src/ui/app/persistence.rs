//! State that outlives the window: the user's name, and the sessions to resume in the next window.

use super::App;
use crate::{
    model::Command,
    ui::saved_sessions::{ResumableSessions, SessionSaver},
};

impl App {
    /// Saves the open sessions from now on, and offers to resume those of an earlier window.
    pub(crate) fn set_session_saver(
        &mut self,
        keeper: SessionSaver,
        resumable: Option<ResumableSessions>,
    ) {
        (self.session_saver, self.resumable) = (Some(keeper), resumable);
    }

    /// Resumes the sessions of an earlier window if the user accepts. Otherwise it discards the
    /// offer.
    pub(super) fn resume_sessions(&mut self, accepted: bool) {
        match self.resumable.take() {
            Some(sessions) if accepted => self.unsent.extend(sessions.resume()),
            Some(sessions) => sessions.discard(),
            None => {}
        }
    }

    /// Changes the user's name in every session.
    pub(super) fn set_name(&mut self, name: String) {
        if self.settings.name.trim() != name.trim() {
            let name = name.trim().to_owned();
            self.unsent.push_back(Command::Rename { name });
        }
        self.settings.name = name;
    }
}
