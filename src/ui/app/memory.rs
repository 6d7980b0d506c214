//! State that outlives the window: the user's name, and the sessions to resume in the next window.

use super::App;
use crate::{
    model::Command,
    ui::resume::{Keeper, LeftBehind},
};

impl App {
    /// Saves the open sessions from now on, and offers to resume those of an earlier window.
    pub(crate) fn remember(&mut self, keeper: Keeper, resumable: Option<LeftBehind>) {
        (self.keeper, self.left_behind) = (Some(keeper), resumable);
    }

    /// Resumes the sessions of an earlier window if the user accepts. Otherwise it discards the
    /// offer.
    pub(super) fn resume(&mut self, accepted: bool) {
        match self.left_behind.take() {
            Some(sessions) if accepted => self.unsent.extend(sessions.resume()),
            Some(sessions) => sessions.forget(),
            None => {}
        }
    }

    /// Changes the user's name in every session.
    pub(super) fn rename(&mut self, name: String) {
        if self.settings.name.trim() != name.trim() {
            let name = name.trim().to_owned();
            self.unsent.push_back(Command::Rename { name });
        }
        self.settings.name = name;
    }
}
