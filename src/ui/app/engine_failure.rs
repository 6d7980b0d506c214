//! What the window does when its engine has panicked: it says so, and restarts the engine when the
//! user wants it.

use eframe::egui::{Context, Frame, Id, Label, Modal, RichText, Vec2};

use super::App;
use crate::ui::{
    saved_sessions::restore_commands,
    sessions::primary_button,
    theme::{GRID, TITLE},
};

/// The width of the question, in points.
const WIDTH: f32 = 360.0;

impl App {
    /// Notices that the engine has panicked. The window keeps its last snapshot.
    pub(super) fn check_engine(&mut self) {
        if self.engine_failure.is_none()
            && let Some(failure) = self.engine.as_ref().and_then(|one| one.handle.failure())
        {
            self.dialog = None;
            self.engine_failure = Some(failure);
        }
    }

    /// Asks in front of everything whether the engine is restarted, if it has panicked.
    pub(super) fn draw_engine_failure(&mut self, ctx: &Context) {
        if self.engine_failure.is_none() {
            return;
        }
        let room = ctx.content_rect().width() - 8.0 * GRID;
        let frame = Frame::popup(&ctx.global_style()).inner_margin(2.0 * GRID);
        let restart = Modal::new(Id::unique("engine failure")).frame(frame).show(ctx, |ui| {
            ui.set_width(WIDTH.min(room));
            ui.spacing_mut().item_spacing = Vec2::splat(GRID);
            let title = RichText::new("Quintet's engine stopped unexpectedly").font(TITLE);
            ui.add(Label::new(title).wrap());
            let text = "Your sessions are interrupted. Restart it to open and join them again.";
            ui.add(Label::new(text).wrap());
            let restart = primary_button(ui, "Restart");
            if ui.memory(|memory| memory.focused().is_none()) {
                restart.request_focus();
            }
            restart.clicked()
        });
        if restart.inner {
            self.restart_engine(ctx);
        }
    }

    /// Starts a new engine, and requests again what the window shows. What is muted stays muted.
    fn restart_engine(&mut self, ctx: &Context) {
        let mut commands = restore_commands(&self.snapshot);
        self.engine_failure = None;
        self.start(ctx);
        // What the user did meanwhile comes last.
        commands.extend(self.unsent.drain(..));
        self.unsent.extend(commands);
        ctx.request_repaint();
    }
}
