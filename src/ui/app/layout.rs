//! Where the panels stand, in which order they are drawn, and the sizes that are kept of them.

use std::sync::Arc;

use eframe::egui::{
    Align2, CentralPanel, Context, Frame, Margin, Panel, Rect, Ui, UiBuilder, vec2,
};

use super::App;
use crate::ui::{
    call_bar,
    devices::DeviceKind,
    edges::{self, Side},
    resume::LeftBehind,
    scene::Scene,
    settings::Panels,
    theme::{GRID, NARROW, Palette},
    want::Want,
};

/// How high a panel's title is with the distance to what follows, in points.
const TITLE_HEIGHT: f32 = 36.0;

impl App {
    /// Draws all panels; what they want.
    pub(super) fn panels(&mut self, ui: &mut Ui) -> Vec<Option<Want>> {
        let palette = Palette::of(ui);
        let snapshot = Arc::clone(&self.snapshot);
        let settings = self.settings.clone();
        let busy = !self.unsent.is_empty();
        let mut colours = std::mem::take(&mut self.colours);
        colours.follow(&snapshot);
        let left_behind = self.left_behind.as_ref().map(LeftBehind::words);
        let missing = DeviceKind::ALL.map(|kind| self.devices.is_missing(kind, ui.ctx()));
        let scene = Scene {
            snapshot: &snapshot,
            colours: &colours,
            settings: &settings,
            now: self.now,
            missing,
            left_behind: left_behind.as_deref(),
            busy,
        };
        let mut wants = vec![];
        let bare = Frame::new().fill(palette.base).inner_margin(Margin::same(12));
        if self.streams.full_screen {
            CentralPanel::default().frame(bare).show(ui, |ui| {
                wants.push(self.streams.remote(ui, scene, &self.pictures));
            });
            let whole = ui.ctx().content_rect().shrink(GRID);
            wants.push(self.notices.toasts(ui.ctx(), scene, (whole, Align2::CENTER_TOP)));
        } else {
            self.all_panels(ui, scene, &mut wants);
            self.keep_panels(ui, settings.panels);
        }
        self.colours = colours;
        wants
    }

    /// Draws the panels in the order of reading, which is that of the keyboard: sessions, streams,
    /// chat, call bar. Those at the edges take their room before.
    fn all_panels(&mut self, ui: &mut Ui, scene: Scene<'_>, wants: &mut Vec<Option<Want>>) {
        let palette = Palette::of(ui);
        let narrow = ui.available_width() < NARROW;
        let frame = Frame::new().fill(palette.panel).inner_margin(Margin::symmetric(12, 0));
        let bar = Panel::bottom("call").exact_size(call_bar::HEIGHT).frame(frame);
        let bar = bar.show(ui, |ui| ui.allocate_space(ui.available_size()).1).inner;
        let frame = Frame::new().fill(palette.panel).inner_margin(Margin::same(12));
        self.chats.follow(scene.snapshot);
        // Where there is no room for a chat of its own it stands in front of the sessions: people
        // are what one looks at while one writes.
        let covered = narrow && self.chats.any_open();
        let (name, side) = if narrow {
            ("sessions-narrow", &mut self.settings.panels.sessions_narrow)
        } else {
            ("sessions", &mut self.settings.panels.sessions)
        };
        let left = Panel::left(name).default_size(f32::from(*side)).size_range(240.0..=420.0);
        let left = (left.frame(frame), Side::Left);
        let called = if covered { "chat" } else { "sessions" };
        let (drawn, moved) = edges::show(left, ui, (name, called), |ui| {
            wants.push(if covered {
                self.chats.ui(ui, scene)
            } else {
                self.sessions.ui(ui, scene, &self.chats)
            });
        });
        note_size(side, drawn.response.rect.width());
        self.moved |= moved;
        let left = drawn.response.rect.shrink2(vec2(12.0, GRID));
        let bare = Frame::new().fill(palette.base).inner_margin(Margin::same(12));
        CentralPanel::default().frame(bare).show(ui, |ui| {
            wants.push(self.notices.errors(ui));
            let chat = if narrow { None } else { self.chat_room(ui) };
            let local = self.both_streams(ui, scene, wants);
            // Where least is: below the own picture, where the list of lanes ends, or in front of
            // the oldest lines of a chat.
            let lines = left.with_min_y(left.top() + TITLE_HEIGHT);
            let place = match (narrow, covered) {
                (false, _) => (local, Align2::LEFT_BOTTOM),
                (true, false) => (left, Align2::LEFT_BOTTOM),
                (true, true) => (lines, Align2::LEFT_TOP),
            };
            wants.push(self.notices.toasts(ui.ctx(), scene, place));
            if let Some(room) = chat {
                let ui = &mut within(ui, room, "chat");
                wants.push(self.chats.ui(ui, scene));
            }
        });
        let ui = &mut within(ui, bar, "call bar");
        wants.push(call_bar::ui(ui, scene, &self.pictures, &mut self.devices));
    }

    /// Keeps room for the open chat beside the streams: it is drawn once they are, as they come
    /// before it. Nothing if none is open.
    fn chat_room(&mut self, ui: &mut Ui) -> Option<Rect> {
        if !self.chats.any_open() {
            return None;
        }
        let size = &mut self.settings.panels.chat_beside;
        let margin = Margin { left: GRID as i8, ..Margin::ZERO };
        let panel = Panel::right("chat-beside").default_size(f32::from(*size));
        let panel = panel.size_range(240.0..=480.0).resizable(true);
        let panel = (panel.frame(Frame::new().inner_margin(margin)), Side::Right);
        let fill = |ui: &mut Ui| ui.allocate_space(ui.available_size()).1;
        let (drawn, moved) = edges::show(panel, ui, ("chat-beside", "chat"), fill);
        note_size(size, drawn.response.rect.width());
        self.moved |= moved;
        Some(drawn.inner)
    }

    /// Closes the chat that stands in front of the sessions, if one does.
    pub(super) fn uncover_sessions(&mut self, ctx: &Context) {
        if ctx.content_rect().width() < NARROW {
            self.chats.close();
        }
    }

    /// Draws our streams and everybody else's; where ours are.
    fn both_streams(
        &mut self,
        ui: &mut Ui,
        scene: Scene<'_>,
        wants: &mut Vec<Option<Want>>,
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
        let (drawn, moved) = edges::show(panel, ui, (name, "your picture"), |ui| {
            wants.push(self.streams.local(ui, scene, &self.pictures));
        });
        let local = drawn.response.rect;
        note_size(size, if narrow { local.height() } else { local.width() });
        self.moved |= moved;
        let gap = Margin {
            left: if narrow { 0 } else { GRID as i8 },
            top: if narrow { GRID as i8 } else { 0 },
            right: if self.chats.any_open() && !narrow { GRID as i8 } else { 0 },
            bottom: 0,
        };
        CentralPanel::default().frame(Frame::new().inner_margin(gap)).show(ui, |ui| {
            wants.push(self.streams.remote(ui, scene, &self.pictures));
        });
        local.with_max_x(local.right() - GRID)
    }

    /// Keeps the panels' sizes for the next run, once a person let go of an edge or moved it by
    /// keys. What a small window does to them is not kept.
    fn keep_panels(&mut self, ui: &Ui, kept: Panels) {
        let (down, released) =
            ui.input(|input| (input.pointer.any_down(), input.pointer.any_released()));
        if down || released {
            self.moved = down || self.moved;
            if released {
                ui.ctx().request_repaint();
            }
            self.settings.panels = kept;
        } else if std::mem::take(&mut self.moved) && self.settings.panels != kept {
            self.save();
        } else {
            self.settings.panels = kept;
        }
    }
}

/// A part of the window that was kept free, to be drawn into.
fn within(ui: &mut Ui, room: Rect, name: &str) -> Ui {
    let mut part = ui.new_child(UiBuilder::new().max_rect(room).id_salt(name));
    part.set_clip_rect(room.intersect(ui.clip_rect()));
    part
}

/// Takes a panel's size over, in whole points.
fn note_size(place: &mut u16, size: f32) {
    *place = size.round().clamp(0.0, 10_000.0) as u16;
}
