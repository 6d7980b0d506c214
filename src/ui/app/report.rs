//! Saving a report, off the window's thread.

use std::sync::Arc;

use eframe::egui::Context;

use super::App;
use crate::ui::{dialogs::Dialog, report::Report};

impl App {
    /// Saves a report. [`Self::show_saved_report`] says where.
    pub(super) fn save_report(&self, ctx: &Context) {
        let Some(services) = &self.services else { return };
        let stats = self.engine.as_ref().map(|engine| engine.handle.stats());
        let (snapshot, settings) = ((*self.snapshot).clone(), self.settings.clone());
        let (saved, ctx) = (Arc::clone(&services.saved_report), ctx.clone());
        services.runtime.spawn(async move {
            let stats = match stats {
                Some(stats) => stats.await,
                None => None,
            };
            let report = Report { snapshot, stats, settings };
            let path = tokio::task::spawn_blocking(move || report.save()).await;
            saved.put(match path {
                Ok(path) => path.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            });
            ctx.request_repaint();
        });
    }

    /// Shows where the report is, once it is saved.
    pub(super) fn show_saved_report(&mut self, ctx: &Context) {
        match self.services.as_ref().and_then(|services| services.saved_report.take()) {
            None => {}
            Some(Ok(path)) => self.show_dialog(ctx, Dialog::ReportSaved(path)),
            Some(Err(error)) => {
                self.notices.show_error(format!("The report was not saved: {error}."));
            }
        }
    }
}
