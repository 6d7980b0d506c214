//! The layout of the panels, the order in which they are drawn, and their saved sizes.

use std::sync::Arc;

use eframe::egui::{
    Align2, CentralPanel, Context, Frame, Margin, Panel, Rect, Ui, UiBuilder, vec2,
};

use super::App;
use crate::model::PerDevice;
use crate::ui::{
    action::Action,
    call_bar,
    saved_sessions::ResumableSessions,
    settings::Panels,
    splitter::{self, Side},
    theme::{GRID, NARROW, Palette},
    view_state::ViewState,
};

/// Height of a panel's title and the gap below it, in points.
const TITLE_HEIGHT: f32 = 36.0;

impl App {
    /// Draws all panels. Returns the actions of the user.
    pub(super) fn draw_panels(&mut self, ui: &mut Ui) -> Vec<Option<Action>> {
        let palette = Palette::of(ui);
        let snapshot = Arc::clone(&self.snapshot);
        let settings = self.settings.clone();
        let is_busy = !self.unsent.is_empty();
        let mut colours = std::mem::take(&mut self.colours);
        let call_quality = std::mem::take(&mut self.call_quality);
        let tile_figures = std::mem::take(&mut self.tile_figures);
        colours.update(&snapshot);
        let resume_offer = self.resumable.as_ref().map(ResumableSessions::label);
        let missing_devices = PerDevice::from_fn(|kind| self.devices.is_missing(kind, ui.ctx()));
        let view = ViewState {
            snapshot: &snapshot,
            colours: &colours,
            call_quality: &call_quality,
            tile_figures: &tile_figures,
            settings: &settings,
            now: self.now,
            missing_devices,
            resume_offer: resume_offer.as_deref(),
            is_busy,
        };
        let mut actions = vec![];
        let bare = Frame::new().fill(palette.base).inner_margin(Margin::same(12));
        if self.stream_panels.full_screen {
            CentralPanel::default().frame(bare).show(ui, |ui| {
                actions.push(self.stream_panels.draw_remote(ui, view, &self.feeds));
            });
            let whole = ui.ctx().content_rect().shrink(GRID);
            actions.push(self.notices.draw_toasts(ui.ctx(), view, (whole, Align2::CENTER_TOP)));
        } else {
            self.draw_all_panels(ui, view, &mut actions);
            self.save_panel_sizes(ui, settings.panels);
        }
        self.call_quality = call_quality;
        self.tile_figures = tile_figures;
        self.colours = colours;
        actions
    }

    /// Draws the panels in reading order, which is also the order of keyboard focus: sessions,
    /// streams, chat, call bar. Panels at the window's edges reserve their space first.
    fn draw_all_panels(
        &mut self,
        ui: &mut Ui,
        view: ViewState<'_>,
        actions: &mut Vec<Option<Action>>,
    ) {
        let palette = Palette::of(ui);
        let narrow = ui.available_width() < NARROW;
        let frame = Frame::new().fill(palette.panel).inner_margin(Margin::symmetric(12, 0));
        let bar = Panel::bottom("call").exact_size(call_bar::BAR_HEIGHT).frame(frame);
        let bar = bar.show(ui, |ui| ui.allocate_space(ui.available_size()).1).inner;
        let frame = Frame::new().fill(palette.panel).inner_margin(Margin::same(12));
        self.chats.update(view.snapshot);
        // In a narrow window the chat covers the sessions, not the streams: the user looks at the
        // participants while typing.
        let is_chat_over_sessions = narrow && self.chats.any_open();
        let (name, side) = if narrow {
            ("sessions-narrow", &mut self.settings.panels.sessions_narrow)
        } else {
            ("sessions", &mut self.settings.panels.sessions)
        };
        let left = Panel::left(name).default_size(f32::from(*side)).size_range(240.0..=420.0);
        let left = (left.frame(frame), Side::Left);
        let label = if is_chat_over_sessions { "chat" } else { "sessions" };
        let (drawn, moved) = splitter::show_resizable(left, ui, (name, label), |ui| {
            actions.push(if is_chat_over_sessions {
                self.chats.ui(ui, view)
            } else {
                self.sessions.ui(ui, view, &self.chats)
            });
        });
        update_size(side, drawn.response.rect.width());
        self.panels_resized |= moved;
        let left = drawn.response.rect.shrink2(vec2(12.0, GRID));
        let bare = Frame::new().fill(palette.base).inner_margin(Margin::same(12));
        CentralPanel::default().frame(bare).show(ui, |ui| {
            actions.push(self.notices.draw_errors(ui));
            let chat = if narrow { None } else { self.reserve_chat(ui) };
            let own_video = self.draw_streams(ui, view, actions);
            // Toasts go where they hide least: below the local video, at the end of the session
            // list, or over the oldest messages of the chat.
            let messages = left.with_min_y(left.top() + TITLE_HEIGHT);
            let position = match (narrow, is_chat_over_sessions) {
                (false, _) => (own_video, Align2::LEFT_BOTTOM),
                (true, false) => (left, Align2::LEFT_BOTTOM),
                (true, true) => (messages, Align2::LEFT_TOP),
            };
            actions.push(self.notices.draw_toasts(ui.ctx(), view, position));
            if let Some(room) = chat {
                let ui = &mut child_ui(ui, room, "chat");
                actions.push(self.chats.ui(ui, view));
            }
        });
        let ui = &mut child_ui(ui, bar, "call bar");
        actions.push(call_bar::ui(ui, view, &self.feeds, &mut self.devices));
    }

    /// Reserves space for the open chat beside the streams. The chat is drawn after the streams,
    /// because it follows them in reading order. Returns `None` if no chat is open.
    fn reserve_chat(&mut self, ui: &mut Ui) -> Option<Rect> {
        if !self.chats.any_open() {
            return None;
        }
        let size = &mut self.settings.panels.chat_beside;
        let margin = Margin { left: GRID as i8, ..Margin::ZERO };
        let panel = Panel::right("chat-beside").default_size(f32::from(*size));
        let panel = panel.size_range(240.0..=480.0).resizable(true);
        let panel = (panel.frame(Frame::new().inner_margin(margin)), Side::Right);
        let fill = |ui: &mut Ui| ui.allocate_space(ui.available_size()).1;
        let (drawn, moved) = splitter::show_resizable(panel, ui, ("chat-beside", "chat"), fill);
        update_size(size, drawn.response.rect.width());
        self.panels_resized |= moved;
        Some(drawn.inner)
    }

    /// In a narrow window, closes the chat that covers the sessions.
    pub(super) fn show_sessions_panel(&mut self, ctx: &Context) {
        if ctx.content_rect().width() < NARROW {
            self.chats.close();
        }
    }

    /// Draws the local and the remote streams. Returns the rectangle of the local ones.
    fn draw_streams(
        &mut self,
        ui: &mut Ui,
        view: ViewState<'_>,
        actions: &mut Vec<Option<Action>>,
    ) -> Rect {
        let narrow = ui.ctx().content_rect().width() < NARROW;
        let gap = Margin { bottom: GRID as i8, right: GRID as i8, ..Margin::ZERO };
        let panels = &mut self.settings.panels;
        let (name, panel, size) = if narrow {
            let panel = Panel::top("local-above").default_size(f32::from(panels.local_above));
            let panel = (panel.size_range(120.0..=400.0), Side::Top);
            ("local-above", panel, &mut panels.local_above)
        } else {
            let panel = Panel::left("local-beside").default_size(f32::from(panels.local_beside));
            let panel = (panel.size_range(180.0..=640.0), Side::Left);
            ("local-beside", panel, &mut panels.local_beside)
        };
        let panel = (panel.0.resizable(true).frame(Frame::new().inner_margin(gap)), panel.1);
        let (drawn, moved) = splitter::show_resizable(panel, ui, (name, "your picture"), |ui| {
            actions.push(self.stream_panels.draw_local(ui, view, &self.feeds));
        });
        let local = drawn.response.rect;
        update_size(size, if narrow { local.height() } else { local.width() });
        self.panels_resized |= moved;
        let gap = Margin {
            left: if narrow { 0 } else { GRID as i8 },
            top: if narrow { GRID as i8 } else { 0 },
            right: if self.chats.any_open() && !narrow { GRID as i8 } else { 0 },
            bottom: 0,
        };
        CentralPanel::default().frame(Frame::new().inner_margin(gap)).show(ui, |ui| {
            actions.push(self.stream_panels.draw_remote(ui, view, &self.feeds));
        });
        local.with_max_x(local.right() - GRID)
    }

    /// Saves the panel sizes for the next run after the user has resized a panel by pointer or
    /// keyboard. Sizes that a small window forces are not saved.
    fn save_panel_sizes(&mut self, ui: &Ui, kept: Panels) {
        let (down, released) =
            ui.input(|input| (input.pointer.any_down(), input.pointer.any_released()));
        if down || released {
            self.panels_resized = down || self.panels_resized;
            if released {
                ui.ctx().request_repaint();
            }
            self.settings.panels = kept;
        } else if std::mem::take(&mut self.panels_resized) && self.settings.panels != kept {
            self.save_settings();
        } else {
            self.settings.panels = kept;
        }
    }
}

/// A child [`Ui`] for a part of the window that was reserved before.
fn child_ui(ui: &mut Ui, rect: Rect, name: &str) -> Ui {
    let mut child = ui.new_child(UiBuilder::new().max_rect(rect).id_salt(name));
    child.set_clip_rect(rect.intersect(ui.clip_rect()));
    child
}

/// Stores a panel's size, in whole points.
fn update_size(stored: &mut u16, size: f32) {
    *stored = size.round().clamp(0.0, 10_000.0) as u16;
}
