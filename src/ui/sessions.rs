//! The sessions panel: a box to join, buttons to open, and a card per session.

use std::collections::BTreeSet;

use eframe::egui::{
    self, Button, Color32, Key, Layout, Rect, RichText, ScrollArea, TextEdit, Ui, UiBuilder,
};

use super::{
    action::Action,
    bidi,
    chat::Chats,
    focus,
    icons::{Icon, IconState, icon_button},
    labels, session_card,
    theme::{GRID, Palette},
    view_state::ViewState,
};
use crate::model::{Command, JoinTarget, MAX_NAME_CHARS, SessionId, Snapshot, parse_target};

/// The label of the join box.
const LINK_BOX_LABEL: &str = "Paste a link to join";

/// The left panel, with all sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionsPanel {
    /// The text in the join box.
    link_text: String,
    /// The user's name while it is being typed.
    name_draft: Option<String>,
    /// Why the text is not a link. Cleared when the text is edited.
    link_error: Option<String>,
    /// Whether the join box is to get the focus.
    wants_focus: bool,
    /// The sessions whose participants are listed.
    expanded: BTreeSet<SessionId>,
    /// The sessions that had a card in the last frame.
    known: BTreeSet<SessionId>,
    /// The session whose card is scrolled to next: a requested or a new one.
    scroll_target: Option<SessionId>,
}

impl SessionsPanel {
    /// Draws the panel. Returns the action of the user.
    pub(crate) fn ui(&mut self, ui: &mut Ui, view: ViewState<'_>, chats: &Chats) -> Option<Action> {
        let mut action = None;
        ui.add_enabled_ui(!view.is_busy, |ui| {
            // Same height as the titles of the stream panels.
            split_row(ui, |ui| ui.label(RichText::new("Sessions").heading()), |_| {});
            action = self.join_box(ui);
            let known = &view.settings.name;
            let is_typed = view.snapshot.sessions.is_empty() && self.name_box(ui, known);
            let five = primary_button(ui, "Open all five");
            let five = five.on_hover_text("Open five unique sessions, one of each kind");
            // A double click is not meant to open ten sessions.
            if five.clicked() && !five.double_clicked() && !five.triple_clicked() {
                action = Some(Action::OpenFive);
            }
            let wide = Button::new("New session…").min_size(egui::vec2(0.0, 28.0));
            let wide = |ui: &mut Ui| ui.vertical_centered_justified(|ui| ui.add(wide)).inner;
            if wide(ui).on_hover_text("Open one session of the kind you choose").clicked() {
                action = Some(Action::ShowNewSession);
            }
            ui.add_space(GRID);
            ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
                action = action.take().or(self.cards(ui, view, chats));
                focus::scroll_to_focused(ui);
            });
            // Another action goes first. The name is kept for the next frame.
            if action.is_none() && !is_typed {
                action = self.take_name(known);
            }
        });
        action
    }

    /// Scrolls to the session card with that index and lists its participants.
    pub(crate) fn show_nth(&mut self, index: usize, snapshot: &Snapshot) {
        if let Some(session) = snapshot.sessions.get(index) {
            self.show(&session.session);
        }
    }

    /// Scrolls to a session's card and lists its participants.
    pub(crate) fn show(&mut self, session: &SessionId) {
        self.expanded.insert(session.clone());
        self.scroll_target = Some(session.clone());
    }

    /// Joins a link that was pasted outside the box, or shows in the box why it is not one.
    pub(crate) fn paste(&mut self, text: &str) -> Option<Action> {
        text.trim().clone_into(&mut self.link_text);
        self.join()
    }

    /// Puts a link into the join box so that the user can correct it.
    pub(crate) fn edit_link(&mut self, link: String) {
        (self.link_text, self.link_error, self.wants_focus) = (link, None, true);
    }

    fn join_box(&mut self, ui: &mut Ui) -> Option<Action> {
        let mut submitted = false;
        let edit = ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = GRID / 2.0;
            let button_width = 60.0;
            let width = ui.available_width() - button_width - GRID / 2.0;
            let edit = TextEdit::singleline(&mut self.link_text)
                .hint_text(LINK_BOX_LABEL)
                .margin(egui::Margin::symmetric(8, 6))
                .desired_width(width);
            let edit = ui.add(edit);
            edit.widget_info(|| {
                let mut info = egui::WidgetInfo::text_edit(true, "", &self.link_text, "");
                info.label = Some(LINK_BOX_LABEL.to_owned());
                info
            });
            if edit.changed() {
                self.link_error = None;
            }
            submitted = edit.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            let join = Button::new("Join").min_size(egui::vec2(button_width, 28.0));
            submitted |= ui.add_enabled(!self.link_text.trim().is_empty(), join).clicked();
            edit.id
        });
        let edit = edit.inner;
        // While the engine's queue is full, the box is disabled.
        if ui.is_enabled() && std::mem::take(&mut self.wants_focus) {
            ui.memory_mut(|memory| memory.request_focus(edit));
        }
        let action = if submitted { self.join() } else { None };
        if submitted && self.link_error.is_some() {
            // The next keys correct the text. They are not shortcuts.
            ui.memory_mut(|memory| memory.request_focus(edit));
        }
        if let Some(reason) = &self.link_error {
            ui.colored_label(Palette::of(ui).warn, reason);
        }
        action
    }

    /// Draws the box for the user's name, while there are no sessions; later the name is in the
    /// settings. Returns whether the name is being typed: it applies once the focus leaves the box.
    fn name_box(&mut self, ui: &mut Ui, known: &str) -> bool {
        let label = ui.label("Your name");
        let mut typed = self.name_draft.clone().unwrap_or_else(|| known.to_owned());
        let edit = bidi::single_line_edit(&mut typed, |edit| {
            let edit = edit.hint_text("as the others see it").char_limit(MAX_NAME_CHARS);
            let margin = egui::Margin::symmetric(8, 6);
            ui.add(edit.margin(margin).desired_width(f32::INFINITY))
        });
        let edit = edit.labelled_by(label.id);
        ui.add_space(GRID);
        if edit.has_focus() || edit.changed() {
            self.name_draft = Some(typed);
        }
        edit.has_focus()
    }

    /// The action for a typed name, once typing has ended.
    fn take_name(&mut self, known: &str) -> Option<Action> {
        let name = self.name_draft.take()?;
        (name.trim() != known.trim()).then_some(Action::Rename(name))
    }

    fn join(&mut self) -> Option<Action> {
        if self.link_text.trim().is_empty() {
            return None;
        }
        match parse_target(&self.link_text) {
            Ok((hub, session)) => {
                self.link_text.clear();
                self.link_error = None;
                let target = JoinTarget { session, hub };
                Some(Command::Join { target, wait: true }.into())
            }
            Err(error) => {
                self.link_error = Some(labels::link_error(&error));
                None
            }
        }
    }

    fn cards(&mut self, ui: &mut Ui, view: ViewState<'_>, chats: &Chats) -> Option<Action> {
        let snapshot = view.snapshot;
        let mut action = None;
        if snapshot.sessions.is_empty() {
            let text = "No sessions yet. Paste a link someone sent you, or open one.";
            ui.label(RichText::new(text).weak());
            action = action.or(view.resume_offer.and_then(|offer| resume_offer(ui, offer)));
        }
        // With this spacing, five cards fit into a window on a screen 800 points high, without its
        // bars.
        ui.spacing_mut().item_spacing.y = GRID / 2.0;
        let mut sessions = snapshot.sessions.iter();
        let new = sessions.find(|one| !self.known.contains(&one.session));
        self.scroll_target = self.scroll_target.take().or(new.map(|one| one.session.clone()));
        for session in &snapshot.sessions {
            let is_expanded = self.expanded.contains(&session.session);
            let session_name = labels::session_name(snapshot, &session.session);
            let card =
                session_card::CardContext { session_name: &session_name, is_expanded, chats, view };
            let response = ui.push_id(&session.session, |ui| session_card::ui(ui, session, card));
            let session_card::CardOutput { action: card_action, toggles_people } = response.inner;
            if toggles_people && !self.expanded.remove(&session.session) {
                self.expanded.insert(session.session.clone());
            }
            action = action.or(card_action);
            if self.scroll_target.as_ref() == Some(&session.session) {
                response.response.scroll_to_me(None);
                self.scroll_target = None;
            }
        }
        let is_shown = |id: &SessionId| snapshot.sessions.iter().any(|one| one.session == *id);
        self.expanded.retain(is_shown);
        self.known = snapshot.sessions.iter().map(|one| one.session.clone()).collect();
        action
    }
}

/// Draws the offer to resume the sessions of an earlier window.
fn resume_offer(ui: &mut Ui, offer: &str) -> Option<Action> {
    ui.add_space(GRID);
    let (resume, forget) = split_row(
        ui,
        |ui| ui.button(offer).on_hover_text("Opens and joins them again, under the same links"),
        |ui| icon_button(ui, Icon::Close, "Do not offer them again", IconState::Plain),
    );
    match (resume.clicked(), forget.clicked()) {
        (true, _) => Some(Action::Resume(true)),
        (false, true) => Some(Action::Resume(false)),
        (false, false) => None,
    }
}

/// The primary button of a panel. It fills the width.
pub(crate) fn primary_button(ui: &mut Ui, text: &str) -> egui::Response {
    let palette = Palette::of(ui);
    filled_button(ui, text, (palette.accent, palette.on_accent))
}

/// A button for a destructive action.
pub(crate) fn danger_button(ui: &mut Ui, text: &str) -> egui::Response {
    let palette = Palette::of(ui);
    filled_button(ui, text, (palette.on_air, palette.on_on_air))
}

fn filled_button(
    ui: &mut Ui,
    text: &str,
    (fill, text_colour): (Color32, Color32),
) -> egui::Response {
    let palette = Palette::of(ui);
    let label = RichText::new(text).color(text_colour);
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

/// A row with `right` at its right end. `left` gets the remaining width.
///
/// Both are drawn in reading order, which is also the order of the keyboard and of screen readers.
/// So the width of the right end is known only from the previous frame. If it has changed, this
/// frame is discarded and drawn again.
pub(crate) fn split_row<L, R>(
    ui: &mut Ui,
    left: impl FnOnce(&mut Ui) -> L,
    right: impl FnOnce(&mut Ui) -> R,
) -> (L, R) {
    let id = ui.next_auto_id().with("right end");
    let last_width: f32 = ui.data(|data| data.get_temp(id)).unwrap_or_default();
    let size = egui::vec2(ui.available_width(), ui.spacing().interact_size.y);
    let row = Rect::from_min_size(ui.cursor().min, size);
    let gap = if last_width > 0.0 { ui.spacing().item_spacing.x } else { 0.0 };
    let (left_rect, right_rect) =
        row.split_left_right_at_x((row.right() - last_width).max(row.left()));
    let layout = Layout::left_to_right(egui::Align::Center);
    let max_rect = left_rect.with_max_x((left_rect.right() - gap).max(left_rect.left()));
    let mut left_ui = ui.new_child(UiBuilder::new().max_rect(max_rect).layout(layout));
    let left = left(&mut left_ui);
    let mut right_ui = ui.new_child(UiBuilder::new().max_rect(right_rect).layout(layout));
    let right = right(&mut right_ui);
    let width = right_ui.min_rect().width();
    if (width - last_width).abs() > 0.5 {
        ui.data_mut(|data| data.insert_temp(id, width));
        ui.ctx().request_discard("the right end of a row has changed its width");
    }
    let bottom = left_ui.min_rect().bottom().max(right_ui.min_rect().bottom()).max(row.bottom());
    ui.advance_cursor_after_rect(row.with_max_y(bottom));
    (left, right)
}

/// A small filled badge with a text.
pub(crate) fn badge(ui: &mut Ui, text: &str, fill: Color32, colour: Color32) -> egui::Response {
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
