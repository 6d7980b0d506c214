//! The panel of the open chat: its entries, and a box to write a message.

use eframe::egui::{
    self, Button, CentralPanel, Color32, Event, Frame, InputState, Key, KeyboardShortcut, Label,
    Link, Margin, Modifiers, Panel, Rect, RichText, ScrollArea, Sense, TextEdit, TextStyle, Ui,
    Vec2,
};

use super::{
    ChatEntry, Chats, EntryContent, SessionChat,
    urls::{Piece, pieces},
};
use crate::{
    model::{ChatText, Command, SessionId, SessionStatus, TextError, parse_target},
    ui::{
        action::Action,
        bidi, focus,
        icons::{Icon, IconState, icon_button},
        labels,
        sessions::split_row,
        theme::{GRID, Palette, SMALL},
        view_state::ViewState,
    },
};

/// The part of the visible height that a page key scrolls. The remainder stays visible for
/// orientation.
const PAGE_FRACTION: f32 = 0.9;

/// Initial height of the message box, in lines of text. It grows with the draft.
const INITIAL_ROWS: usize = 1;

impl Chats {
    /// Draws the open chat. Returns the action of the user.
    pub(crate) fn ui(&mut self, ui: &mut Ui, view: ViewState<'_>) -> Option<Action> {
        let open = self.open.clone()?;
        let session = view.snapshot.sessions.iter().find(|one| one.session == open)?;
        let colour = view.colours.get(&open).unwrap_or(Palette::of(ui).line);
        let session_name = labels::session_name(view.snapshot, &open);
        self.draw_chat(ui, colour, (session, &session_name))
    }

    fn draw_chat(
        &mut self,
        ui: &mut Ui,
        colour: Color32,
        (session, session_name): (&SessionStatus, &str),
    ) -> Option<Action> {
        let id = &session.session;
        if title(ui, colour, (session, session_name)) {
            self.open = None;
            return None;
        }
        let chat = self.by_session.entry(id.clone()).or_default();
        let takes_focus = std::mem::take(&mut self.wants_focus);
        let mut action = None;
        let mut url_action = None;
        let input_panel = Panel::bottom("chat-foot").resizable(false).show_separator_line(false);
        let above = Margin { top: GRID as i8, ..Margin::ZERO };
        input_panel.frame(Frame::new().inner_margin(above)).show(ui, |ui| {
            action = chat.draw_input(ui, (session, session_name), takes_focus);
        });
        CentralPanel::default()
            .frame(Frame::new())
            .show(ui, |ui| url_action = chat.draw_history(ui, id));
        action.or(url_action)
    }
}

impl SessionChat {
    /// Draws the entries, the newest at the bottom. Returns the action of a clicked URL. Entries
    /// outside the visible part are not drawn, except the nearest ones with a URL above and below:
    /// Tab must reach them, and the focused one is scrolled to.
    fn draw_history(&mut self, ui: &mut Ui, id: &SessionId) -> Option<Action> {
        let area = ScrollArea::vertical().id_salt(("chat", id)).auto_shrink([false, false]);
        let drawn = area.stick_to_bottom(true).show(ui, |ui| {
            if self.entries.is_empty() {
                let text = "No messages yet. People who join later do not see earlier messages.";
                ui.label(RichText::new(text).small().weak());
            }
            let action = self.draw_entries(ui);
            scroll_by_keys(ui);
            focus::scroll_to_focused(ui);
            action
        });
        drawn.inner
    }

    fn draw_entries(&mut self, ui: &mut Ui) -> Option<Action> {
        let mut action = None;
        let next_with_url = self.next_entries_with_url();
        let mut visible = vec![];
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let width = ui.available_width();
            let size = entry.size.filter(|size| size.x == width);
            let rect = size.map(|size| Rect::from_min_size(ui.cursor().min, size));
            let is_visible = rect.is_none_or(|rect| ui.is_rect_visible(rect));
            if is_visible {
                visible.push(index);
            }
            match rect {
                Some(rect) if !is_visible && !next_with_url.contains(&Some(index)) => {
                    ui.allocate_space(rect.size());
                }
                Some(_) | None => {
                    let drawn = ui.vertical(|ui| draw_entry(ui, entry));
                    entry.size = Some(Vec2::new(width, drawn.response.rect.height()));
                    action = action.or(drawn.inner);
                    if size.is_none() {
                        // The scroll area learns its new height now, and sticks to its end in the
                        // next frame.
                        ui.ctx().request_repaint();
                    }
                }
            }
        }
        self.visible =
            visible.first().map_or(0..0, |first| *first..visible.last().map_or(0, |at| at + 1));
        if self.next_entries_with_url() != next_with_url {
            ui.ctx().request_repaint();
        }
        action
    }

    /// The nearest entries with a URL above and below the visible ones.
    fn next_entries_with_url(&self) -> [Option<usize>; 2] {
        let (first, end) = (self.visible.start, self.visible.end.min(self.entries.len()));
        let above = self.entries.range(..first.min(end)).rposition(|entry| entry.has_url);
        let below = self.entries.range(end..).position(|entry| entry.has_url);
        [above, below.map(|below| end + below)]
    }

    /// Draws the message box, or why the user cannot write.
    fn draw_input(
        &mut self,
        ui: &mut Ui,
        (session, session_name): (&SessionStatus, &str),
        takes_focus: bool,
    ) -> Option<Action> {
        let note = |text: &str| Label::new(RichText::new(text).small().weak());
        let kind = session.kind?;
        if !kind.may_chat(session.role) {
            ui.add(note("Only the host can write here.").wrap());
            return None;
        }
        if labels::is_over(&session.state) {
            ui.add(note("This session has ended.").wrap());
            return None;
        }
        let response = self.draft_box(ui, session, session_name);
        if takes_focus {
            response.request_focus();
        }
        if let Some(refused) = &self.draft_error {
            ui.colored_label(Palette::of(ui).warn, refused);
        }
        let has_participants = !session.participants.is_empty();
        let hint = if has_participants {
            "Enter to send, Shift+Enter for a new line"
        } else {
            "Nobody is here to read it yet"
        };
        let ready = has_participants && !self.draft.trim().is_empty();
        let (_, clicked) = split_row(
            ui,
            |ui| ui.add(note(hint).truncate()),
            |ui| ui.add_enabled(ready, Button::new("Send")).clicked(),
        );
        let entered = response.has_focus() && ui.input(is_enter_pressed);
        if ready && (clicked || entered) { self.send(&session.session) } else { None }
    }

    fn draft_box(
        &mut self,
        ui: &mut Ui,
        session: &SessionStatus,
        session_name: &str,
    ) -> egui::Response {
        let new_line = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);
        let id = egui::Id::unique(("chat-draft", &session.session));
        let mut layouter = bidi::layout_edited;
        let is_turned = bidi::is_needed(&self.draft);
        let mut edit = TextEdit::multiline(&mut self.draft).id(id).return_key(new_line);
        if is_turned {
            edit = edit.layouter(&mut layouter);
        }
        let edit = edit
            .desired_rows(INITIAL_ROWS)
            .desired_width(f32::INFINITY)
            .hint_text("Write a message");
        // The usual box colour would not be visible on this background.
        let edit = edit.background_color(Palette::of(ui).control);
        let response =
            ScrollArea::vertical().id_salt(id).max_height(96.0).show(ui, |ui| ui.add(edit)).inner;
        if response.changed() {
            self.draft_error = None;
        }
        response.accessible_name(format!("Message to {session_name}"))
    }

    fn send(&mut self, session: &SessionId) -> Option<Action> {
        match ChatText::new(&self.draft) {
            Ok(text) => {
                self.draft.clear();
                Some(Command::SendMessage { session: session.clone(), text }.into())
            }
            Err(TextError::Empty) => None,
            Err(error @ TextError::TooLong(_)) => {
                self.draft_error = Some(labels::sentence(&error.to_string()));
                None
            }
        }
    }
}

/// Whether Enter was pressed without modifiers. The event's own modifiers count: Shift may be
/// released before the end of the frame.
fn is_enter_pressed(input: &InputState) -> bool {
    let enter = |event: &Event| {
        matches!(event, Event::Key { key: Key::Enter, pressed: true, modifiers, .. }
            if modifiers.is_none())
    };
    input.events.iter().any(enter)
}

/// Draws the title with the session's name. Returns whether the chat is to be closed.
fn title(ui: &mut Ui, colour: Color32, (session, session_name): (&SessionStatus, &str)) -> bool {
    let ((), closed) = split_row(
        ui,
        |ui| {
            let (rect, _) = ui.allocate_exact_size(Vec2::splat(10.0), Sense::hover());
            ui.painter().circle_filled(rect.center(), 4.0, colour);
            let title = RichText::new(format!("Chat · {session_name}")).heading();
            ui.add(Label::new(title).truncate()).on_hover_text(session.session.as_str());
        },
        |ui| icon_button(ui, Icon::Close, "Close chat", IconState::Plain).clicked(),
    );
    closed
}

/// Scrolls by Page Up and Page Down, wherever the focus is: it is usually in the message box.
fn scroll_by_keys(ui: &mut Ui) {
    if ui.memory(|memory| memory.top_modal_layer().is_some()) {
        return;
    }
    let (up, down) =
        ui.input(|input| (input.key_pressed(Key::PageUp), input.key_pressed(Key::PageDown)));
    let page = ui.clip_rect().height() * PAGE_FRACTION;
    let by = page * (f32::from(u8::from(up)) - f32::from(u8::from(down)));
    if by != 0.0 {
        ui.scroll_with_delta(Vec2::new(0.0, by));
    }
}

/// Draws an entry. Returns the action of a clicked URL.
fn draw_entry(ui: &mut Ui, entry: &ChatEntry) -> Option<Action> {
    let palette = Palette::of(ui);
    // Text rows do not need the height of controls.
    ui.spacing_mut().interact_size.y = 0.0;
    ui.spacing_mut().item_spacing.y = 2.0;
    let (sender, colour, text) = match &entry.content {
        EntryContent::Own(text) => ("You", palette.accent, text.as_str()),
        EntryContent::Remote(sender, text) => (sender.as_str(), palette.text, text.as_str()),
        EntryContent::Undelivered(count, sender) => {
            let subject =
                if *count == 1 { "A message".to_owned() } else { format!("{count} messages") };
            let sender = bidi::isolated(sender);
            let text = format!("{}  {subject} may not have reached {sender}.", entry.at);
            ui.add(bidi::wrapped(ui, &text, (SMALL, palette.warn)));
            return None;
        }
    };
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        ui.add(bidi::wrapped(ui, sender, (TextStyle::Body.resolve(ui.style()), colour)));
        ui.label(RichText::new(&entry.at).font(SMALL).color(palette.muted));
    });
    paragraphs(ui, text)
}

/// Draws a message. Consecutive rows without a URL are one label, so that a long message costs no
/// more than a short one. A row with URLs is drawn in pieces. Returns the action of a clicked URL.
fn paragraphs(ui: &mut Ui, text: &str) -> Option<Action> {
    let mut action = None;
    let mut plain = vec![];
    let flush = |ui: &mut Ui, plain: &mut Vec<&str>| {
        if !plain.is_empty() {
            ui.add(text_label(ui, &plain.join("\n")));
            plain.clear();
        }
    };
    for row in text.split('\n') {
        let pieces = pieces(row);
        if !pieces.iter().any(|piece| matches!(piece, Piece::Url(_))) {
            plain.push(row);
            continue;
        }
        flush(ui, &mut plain);
        if bidi::is_needed(row) {
            // A URL inside right-to-left text would have to be in its middle, so it gets a row of
            // its own.
            for piece in pieces {
                match piece {
                    Piece::Text(text) => drop(ui.add(text_label(ui, text.trim()))),
                    Piece::Url(url) => action = action.take().or(hyperlink(ui, url)),
                }
            }
            continue;
        }
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = Vec2::ZERO;
            for piece in pieces {
                match piece {
                    Piece::Text(words) => drop(ui.label(words)),
                    Piece::Url(url) => action = action.take().or(hyperlink(ui, url)),
                }
            }
        });
    }
    flush(ui, &mut plain);
    action
}

/// A label with text of a message.
fn text_label(ui: &Ui, text: &str) -> Label {
    bidi::wrapped(ui, text, (TextStyle::Body.resolve(ui.style()), ui.visuals().text_color()))
}

fn hyperlink(ui: &mut Ui, url: &str) -> Option<Action> {
    let verb = match parse_target(url) {
        Ok((Some(hub), _)) => format!("Join a session at {}", labels::hub_host(&hub)),
        Ok((None, _)) | Err(_) => "Open in the browser".to_owned(),
    };
    let response = ui.add(Link::new(url)).on_hover_text(format!("{verb}: {url}"));
    response.clicked().then(|| Action::OpenUrl(url.to_owned()))
}
