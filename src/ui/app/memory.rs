//! What outlives the window: who one is, and which sessions one was in.

use super::App;
use crate::{
    model::Command,
    ui::resume::{Keeper, LeftBehind},
};

impl App {
    /// Writes the sessions down from now on, and offers those that were left behind.
    pub(crate) fn remember(&mut self, keeper: Keeper, left_behind: Option<LeftBehind>) {
        (self.keeper, self.left_behind) = (Some(keeper), left_behind);
    }

    /// Takes the sessions up that were left behind, or does not offer them any more.
    pub(super) fn resume(&mut self, wanted: bool) {
        match self.left_behind.take() {
            Some(found) if wanted => self.unsent.extend(found.resume()),
            Some(found) => found.forget(),
            None => {}
        }
    }

    /// Takes another name at once, in every session.
    pub(super) fn rename(&mut self, name: String) {
        if self.settings.name.trim() != name.trim() {
            let name = name.trim().to_owned();
            self.unsent.push_back(Command::Rename { name });
        }
        self.settings.name = name;
    }
}
