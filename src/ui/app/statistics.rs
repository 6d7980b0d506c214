//! The statistics panel of the window.

use std::sync::Arc;

use eframe::egui::Context;

use super::App;

impl App {
    /// Reads statistics while their panel is shown.
    pub(super) fn refresh_statistics(&mut self, ctx: &Context) {
        if let Some(engine) = &self.engine {
            self.statistics.refresh(ctx, &engine.handle, self.now);
        }
    }

    /// Draws the statistics panel over the others, if it is shown.
    pub(super) fn draw_statistics(&mut self, ctx: &Context) {
        let snapshot = Arc::clone(&self.snapshot);
        if let Some(action) = self.statistics.draw(ctx, &snapshot) {
            self.handle_action(ctx, action);
        }
    }
}
