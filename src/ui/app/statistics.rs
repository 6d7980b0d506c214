//! The statistics of the window: their panel, and the marks of poor quality on the tiles.

use std::sync::Arc;

use eframe::egui::Context;

use super::App;
#[cfg(test)]
use crate::model::MediaTime;
use crate::{
    model::Stats,
    ui::{remote_tiles, statistics::StatisticsReader},
};

impl App {
    /// Reads statistics while their panel is shown, or somebody is seen or heard.
    pub(super) fn refresh_statistics(&mut self, ctx: &Context) {
        let Some(engine) = &self.engine else { return };
        let now = self.now;
        let is_shown = self.statistics.is_open() || self.tile_figures.is_on();
        if !is_shown && remote_tiles::all(&self.snapshot, now).is_empty() {
            self.statistics_reader = StatisticsReader::default();
            return;
        }
        if let Some(stats) = self.statistics_reader.poll(ctx, &engine.handle, now) {
            self.on_stats(stats);
        }
    }

    fn on_stats(&mut self, stats: Stats) {
        self.call_quality.update(&stats);
        self.tile_figures.on_stats(&stats);
        if self.statistics.is_open() {
            self.statistics.on_stats(stats);
        }
    }

    /// Shows statistics as if the engine had replied with them at that time.
    #[cfg(test)]
    pub(super) fn show_stats(&mut self, stats: Stats, at: MediaTime) {
        let stats = self.statistics_reader.with_rates(stats, at);
        self.on_stats(stats);
    }

    /// Draws the statistics panel over the others, if it is shown.
    pub(super) fn draw_statistics(&mut self, ctx: &Context) {
        let snapshot = Arc::clone(&self.snapshot);
        if let Some(action) = self.statistics.draw(ctx, &snapshot, self.tile_figures.is_on()) {
            self.handle_action(ctx, action);
        }
    }
}
