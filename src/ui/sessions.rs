//! The sessions: a box to join, buttons to open, a lane for each.

use std::collections::BTreeSet;

use eframe::egui::{
    self, Button, Color32, Key, Layout, Rect, RichText, ScrollArea, TextEdit, Ui, UiBuilder,
};

use super::{
    bidi,
    chat::Chats,
    focus,
    icons::{Icon, Mark, icon_button},
    lane,
    scene::Scene,
    theme::{GRID, Palette},
    want::Want,
    words,
};
use crate::model::{Command, JoinTarget, MAX_NAME_CHARS, SessionId, Snapshot, parse_target};

/// What the box is for.
const PASTE: &str = "Paste a link to join";

/// The left panel.
#[derive(Debug, Default)]
pub(crate) struct SessionsPanel {
    /// What is typed into the box.
    typed: String,
    /// The name that is being typed, while it is.
    name: Option<String>,
    /// Why what was typed cannot be joined; until it is edited.
    refused: Option<String>,
    /// The box is to get the keyboard's focus.
    wants_focus: bool,
    /// The sessions whose participants are listed.
    unfolded: BTreeSet<SessionId>,
    /// The sessions that had lanes already.
    shown: BTreeSet<SessionId>,
    /// The lane that was asked for, or that is new; scrolled to once.
    sought: Option<SessionId>,
}

impl SessionsPanel {
    /// Draws the panel.
    pub(crate) fn ui(&mut self, ui: &mut Ui, scene: Scene<'_>, chats: &Chats) -> Option<Want> {
        let mut want = None;
        ui.add_enabled_ui(!scene.busy, |ui| {
            // As high as the titles of the streams beside it.
            two_ended(ui, |ui| ui.label(RichText::new("Sessions").heading()), |_| {});
            want = self.join_box(ui);
            let known = &scene.settings.name;
            let is_typed = scene.snapshot.sessions.is_empty() && self.name_box(ui, known);
            let five = primary_button(ui, "Open all five");
            let five = five.on_hover_text("Open five unique sessions, one of each kind");
            // The second half of a double click is not meant to open five more.
            if five.clicked() && !five.double_clicked() && !five.triple_clicked() {
                want = Some(Want::OpenFive);
            }
            let wide = Button::new("New session…").min_size(egui::vec2(0.0, 28.0));
            let wide = |ui: &mut Ui| ui.vertical_centered_justified(|ui| ui.add(wide)).inner;
            if wide(ui).on_hover_text("Open one session of the kind you choose").clicked() {
                want = Some(Want::ShowOpen);
            }
            ui.add_space(GRID);
            ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
                want = want.take().or(self.lanes(ui, scene, chats));
                focus::follow(ui);
            });
            // What else is wanted goes first: the name is kept for the next drawing.
            if want.is_none() && !is_typed {
                want = self.typed_name(known);
            }
        });
        want
    }

    /// Scrolls to the lane at that place and lists its participants.
    pub(crate) fn show_lane(&mut self, index: usize, snapshot: &Snapshot) {
        if let Some(session) = snapshot.sessions.get(index) {
            self.show(&session.session);
        }
    }

    /// Scrolls to that session's lane and lists its participants.
    pub(crate) fn show(&mut self, session: &SessionId) {
        self.unfolded.insert(session.clone());
        self.sought = Some(session.clone());
    }

    /// Joins what a person pasted outside the box, or shows in the box why not.
    pub(crate) fn paste(&mut self, text: &str) -> Option<Want> {
        text.trim().clone_into(&mut self.typed);
        self.join()
    }

    /// Puts a link into the box, to be mended there.
    pub(crate) fn edit(&mut self, link: String) {
        (self.typed, self.refused, self.wants_focus) = (link, None, true);
    }

    fn join_box(&mut self, ui: &mut Ui) -> Option<Want> {
        let mut asked = false;
        let edit = ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = GRID / 2.0;
            let button_width = 60.0;
            let width = ui.available_width() - button_width - GRID / 2.0;
            let edit = TextEdit::singleline(&mut self.typed)
                .hint_text(PASTE)
                .margin(egui::Margin::symmetric(8, 6))
                .desired_width(width);
            let edit = ui.add(edit);
            edit.widget_info(|| {
                let mut info = egui::WidgetInfo::text_edit(true, "", &self.typed, "");
                info.label = Some(PASTE.to_owned());
                info
            });
            if edit.changed() {
                self.refused = None;
            }
            asked = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            let join = Button::new("Join").min_size(egui::vec2(button_width, 28.0));
            asked |= ui.add_enabled(!self.typed.trim().is_empty(), join).clicked();
            edit.id
        });
        let edit = edit.inner;
        // While the engine's queue is full nothing can be typed.
        if ui.is_enabled() && std::mem::take(&mut self.wants_focus) {
            ui.memory_mut(|memory| memory.request_focus(edit));
        }
        let want = if asked { self.join() } else { None };
        if asked && self.refused.is_some() {
            // What is typed next mends it, and is no key for muting.
            ui.memory_mut(|memory| memory.request_focus(edit));
        }
        if let Some(reason) = &self.refused {
            ui.colored_label(Palette::of(ui).warn, reason);
        }
        want
    }

    /// Who one is, before anybody sees it; later the settings have it. Whether it is being typed: it
    /// holds once the person goes on to something else.
    fn name_box(&mut self, ui: &mut Ui, known: &str) -> bool {
        let label = ui.label("Your name");
        let mut typed = self.name.clone().unwrap_or_else(|| known.to_owned());
        let edit = bidi::line_box(&mut typed, |edit| {
            let edit = edit.hint_text("as the others see it").char_limit(MAX_NAME_CHARS);
            let margin = egui::Margin::symmetric(8, 6);
            ui.add(edit.margin(margin).desired_width(f32::INFINITY))
        });
        let edit = edit.labelled_by(label.id);
        ui.add_space(GRID);
        if edit.has_focus() || edit.changed() {
            self.name = Some(typed);
        }
        edit.has_focus()
    }

    /// The name that was typed, once that is over.
    fn typed_name(&mut self, known: &str) -> Option<Want> {
        let name = self.name.take()?;
        (name.trim() != known.trim()).then_some(Want::Rename(name))
    }

    fn join(&mut self) -> Option<Want> {
        if self.typed.trim().is_empty() {
            return None;
        }
        match parse_target(&self.typed) {
            Ok((hub, session)) => {
                self.typed.clear();
                self.refused = None;
                let target = JoinTarget { session, hub };
                Some(Command::Join { target, wait: true }.into())
            }
            Err(error) => {
                self.refused = Some(words::not_a_link(&error));
                None
            }
        }
    }

    fn lanes(&mut self, ui: &mut Ui, scene: Scene<'_>, chats: &Chats) -> Option<Want> {
        let snapshot = scene.snapshot;
        let mut want = None;
        if snapshot.sessions.is_empty() {
            let text = "No sessions yet. Paste a link someone sent you, or open one.";
            ui.label(RichText::new(text).weak());
            want = want.or(scene.left_behind.and_then(|offer| resume(ui, offer)));
        }
        // Five lanes are whole in a window that leaves its bars room on a screen 800 points high.
        ui.spacing_mut().item_spacing.y = GRID / 2.0;
        let mut sessions = snapshot.sessions.iter();
        let new = sessions.find(|one| !self.shown.contains(&one.session));
        self.sought = self.sought.take().or(new.map(|one| one.session.clone()));
        for session in &snapshot.sessions {
            let unfolded = self.unfolded.contains(&session.session);
            let place = words::place(snapshot, &session.session);
            let more = lane::More { place: &place, unfolded, chats, scene };
            let response = ui.push_id(&session.session, |ui| lane::ui(ui, session, more));
            let lane::Drawn { want: wanted, fold } = response.inner;
            if fold && !self.unfolded.remove(&session.session) {
                self.unfolded.insert(session.session.clone());
            }
            want = want.or(wanted);
            if self.sought.as_ref() == Some(&session.session) {
                response.response.scroll_to_me(None);
                self.sought = None;
            }
        }
        let has_lane = |id: &SessionId| snapshot.sessions.iter().any(|one| one.session == *id);
        self.unfolded.retain(has_lane);
        self.shown = snapshot.sessions.iter().map(|one| one.session.clone()).collect();
        want
    }
}

/// Offers the sessions of a window that crashed.
fn resume(ui: &mut Ui, offer: &str) -> Option<Want> {
    ui.add_space(GRID);
    let (resume, forget) = two_ended(
        ui,
        |ui| ui.button(offer).on_hover_text("Opens and joins them again, under the same links"),
        |ui| icon_button(ui, Icon::Close, "Do not offer them again", Mark::Deed),
    );
    match (resume.clicked(), forget.clicked()) {
        (true, _) => Some(Want::Resume(true)),
        (false, true) => Some(Want::Resume(false)),
        (false, false) => None,
    }
}

/// The one button of a panel that invites, over its whole width.
pub(crate) fn primary_button(ui: &mut Ui, text: &str) -> egui::Response {
    let palette = Palette::of(ui);
    filled_button(ui, text, (palette.accent, palette.on_accent))
}

/// A button whose deed takes something from others or cannot be undone.
pub(crate) fn red_button(ui: &mut Ui, text: &str) -> egui::Response {
    let palette = Palette::of(ui);
    filled_button(ui, text, (palette.on_air, palette.on_on_air))
}

fn filled_button(ui: &mut Ui, text: &str, (fill, ink): (Color32, Color32)) -> egui::Response {
    let palette = Palette::of(ui);
    let label = RichText::new(text).color(ink);
    let button = Button::new(label).fill(fill).min_size(egui::vec2(0.0, 32.0));
    let response = if ui.layout().is_horizontal() {
        ui.add(button)
    } else {
        ui.vertical_centered_justified(|ui| ui.add(button)).inner
    };
    if response.has_focus() {
        let ring = egui::Stroke::new(2.0, palette.text);
        let kind = egui::StrokeKind::Outside;
        ui.painter().rect_stroke(response.rect, super::theme::SMALL_CORNER, ring, kind);
    }
    response
}

/// A line whose right end bears `right`, while `left` gets the rest of the width.
///
/// Both are drawn in the order of reading, which is that of the keyboard and of screen readers
/// too. So how wide the right end is, is known from the drawing before; when it was wrong, this
/// drawing is not shown but made again.
pub(crate) fn two_ended<L, R>(
    ui: &mut Ui,
    left: impl FnOnce(&mut Ui) -> L,
    right: impl FnOnce(&mut Ui) -> R,
) -> (L, R) {
    let id = ui.next_auto_id().with("right end");
    let known: f32 = ui.data(|data| data.get_temp(id)).unwrap_or_default();
    let size = egui::vec2(ui.available_width(), ui.spacing().interact_size.y);
    let line = Rect::from_min_size(ui.cursor().min, size);
    let gap = if known > 0.0 { ui.spacing().item_spacing.x } else { 0.0 };
    let (rest, end) = line.split_left_right_at_x((line.right() - known).max(line.left()));
    let layout = Layout::left_to_right(egui::Align::Center);
    let place = rest.with_max_x((rest.right() - gap).max(rest.left()));
    let mut first = ui.new_child(UiBuilder::new().max_rect(place).layout(layout));
    let left = left(&mut first);
    let mut last = ui.new_child(UiBuilder::new().max_rect(end).layout(layout));
    let right = right(&mut last);
    let width = last.min_rect().width();
    if (width - known).abs() > 0.5 {
        ui.data_mut(|data| data.insert_temp(id, width));
        ui.ctx().request_discard("the right end of a line has another width");
    }
    let bottom = first.min_rect().bottom().max(last.min_rect().bottom()).max(line.bottom());
    ui.advance_cursor_after_rect(line.with_max_y(bottom));
    (left, right)
}

/// A small filled mark with a word in it.
pub(crate) fn pill(ui: &mut Ui, text: &str, fill: Color32, colour: Color32) -> egui::Response {
    let font = super::theme::SMALL;
    let galley = ui.painter().layout_no_wrap(text.to_owned(), font, colour);
    let padding = egui::vec2(6.0, 2.0);
    let size = galley.size() + 2.0 * padding;
    let (rect, response) = ui.allocate_exact_size(size, egui::Sense::hover());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, text));
    ui.painter().rect_filled(rect, 4.0, fill);
    ui.painter().galley(rect.min + padding, galley, colour);
    response
}
