//! The panel of the chat that is open: the lines, and a box to write in.

use eframe::egui::{
    self, Button, CentralPanel, Color32, Event, Frame, InputState, Key, KeyboardShortcut, Label,
    Link, Margin, Modifiers, Panel, Rect, RichText, ScrollArea, Sense, TextEdit, TextStyle, Ui,
    Vec2,
};

use super::{
    Chats, Line, Said, Talk,
    links::{Piece, pieces},
};
use crate::{
    model::{ChatText, Command, SessionId, SessionStatus, TextError, parse_target},
    ui::{
        bidi, focus,
        icons::{Icon, Mark, icon_button},
        scene::Scene,
        sessions::two_ended,
        theme::{GRID, Palette, SMALL},
        want::Want,
        words,
    },
};

/// How much of what is seen a key scrolls: the rest is where one goes on reading.
const PAGE: f32 = 0.9;

/// The lines of text that the box is high at first; it grows with what is written.
const ROWS: usize = 1;

impl Chats {
    /// Draws the open chat.
    pub(crate) fn ui(&mut self, ui: &mut Ui, scene: Scene<'_>) -> Option<Want> {
        let open = self.open.clone()?;
        let session = scene.snapshot.sessions.iter().find(|one| one.session == open)?;
        let colour = scene.colours.of(&open).unwrap_or(Palette::of(ui).line);
        let place = words::place(scene.snapshot, &open);
        self.talk(ui, colour, (session, &place))
    }

    fn talk(
        &mut self,
        ui: &mut Ui,
        colour: Color32,
        (session, place): (&SessionStatus, &str),
    ) -> Option<Want> {
        let id = &session.session;
        if title(ui, colour, (session, place)) {
            self.open = None;
            return None;
        }
        let talk = self.talks.entry(id.clone()).or_default();
        let takes_focus = std::mem::take(&mut self.wants_focus);
        let mut want = None;
        let mut followed = None;
        let foot = Panel::bottom("chat-foot").resizable(false).show_separator_line(false);
        let above = Margin { top: GRID as i8, ..Margin::ZERO };
        foot.frame(Frame::new().inner_margin(above)).show(ui, |ui| {
            want = talk.write(ui, (session, place), takes_focus);
        });
        CentralPanel::default().frame(Frame::new()).show(ui, |ui| followed = talk.read(ui, id));
        want.or(followed)
    }
}

impl Talk {
    /// Draws the lines, the newest at the bottom; what was followed. Those that cannot be seen
    /// cost nothing, but for the next ones with a link, above and below: Tab goes on to them, and
    /// what has the focus is scrolled to.
    fn read(&mut self, ui: &mut Ui, id: &SessionId) -> Option<Want> {
        let area = ScrollArea::vertical().id_salt(("chat", id)).auto_shrink([false, false]);
        let drawn = area.stick_to_bottom(true).show(ui, |ui| {
            if self.lines.is_empty() {
                let text = "No messages yet. People who join later do not see earlier messages.";
                ui.label(RichText::new(text).small().weak());
            }
            let want = self.lines(ui);
            scroll_by_keys(ui);
            focus::follow(ui);
            want
        });
        drawn.inner
    }

    fn lines(&mut self, ui: &mut Ui) -> Option<Want> {
        let mut want = None;
        let next = self.next_links();
        let mut seen = vec![];
        for (index, line) in self.lines.iter_mut().enumerate() {
            let width = ui.available_width();
            let size = line.size.filter(|size| size.x == width);
            let rect = size.map(|size| Rect::from_min_size(ui.cursor().min, size));
            let is_seen = rect.is_none_or(|rect| ui.is_rect_visible(rect));
            if is_seen {
                seen.push(index);
            }
            match rect {
                Some(rect) if !is_seen && !next.contains(&Some(index)) => {
                    ui.allocate_space(rect.size());
                }
                Some(_) | None => {
                    let drawn = ui.vertical(|ui| one_line(ui, line));
                    line.size = Some(Vec2::new(width, drawn.response.rect.height()));
                    want = want.or(drawn.inner);
                    if size.is_none() {
                        // The area learns of its height now, and sticks to its end next time.
                        ui.ctx().request_repaint();
                    }
                }
            }
        }
        self.seen = seen.first().map_or(0..0, |first| *first..seen.last().map_or(0, |at| at + 1));
        if self.next_links() != next {
            ui.ctx().request_repaint();
        }
        want
    }

    /// The lines with a link next to those that are seen.
    fn next_links(&self) -> [Option<usize>; 2] {
        let (first, end) = (self.seen.start, self.seen.end.min(self.lines.len()));
        let above = self.lines.range(..first.min(end)).rposition(|line| line.has_link);
        let below = self.lines.range(end..).position(|line| line.has_link);
        [above, below.map(|below| end + below)]
    }

    /// Draws the box, or why there is none.
    fn write(
        &mut self,
        ui: &mut Ui,
        (session, place): (&SessionStatus, &str),
        takes_focus: bool,
    ) -> Option<Want> {
        let note = |text: &str| Label::new(RichText::new(text).small().weak());
        let kind = session.kind?;
        if !kind.may_write(session.role) {
            ui.add(note("Only the host can write here.").wrap());
            return None;
        }
        if words::is_over(&session.state) {
            ui.add(note("This session has ended.").wrap());
            return None;
        }
        let response = self.draft_box(ui, session, place);
        if takes_focus {
            response.request_focus();
        }
        if let Some(refused) = &self.refused {
            ui.colored_label(Palette::of(ui).warn, refused);
        }
        let somebody = !session.participants.is_empty();
        let hint = if somebody {
            "Enter to send, Shift+Enter for a new line"
        } else {
            "Nobody is here to read it yet"
        };
        let ready = somebody && !self.draft.trim().is_empty();
        let (_, clicked) = two_ended(
            ui,
            |ui| ui.add(note(hint).truncate()),
            |ui| ui.add_enabled(ready, Button::new("Send")).clicked(),
        );
        let entered = response.has_focus() && ui.input(is_entered);
        if ready && (clicked || entered) { self.say(&session.session) } else { None }
    }

    fn draft_box(&mut self, ui: &mut Ui, session: &SessionStatus, place: &str) -> egui::Response {
        let new_line = KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter);
        let id = egui::Id::unique(("chat-draft", &session.session));
        let mut layouter = bidi::typed;
        let is_turned = bidi::is_needed(&self.draft);
        let mut edit = TextEdit::multiline(&mut self.draft).id(id).return_key(new_line);
        if is_turned {
            edit = edit.layouter(&mut layouter);
        }
        let edit =
            edit.desired_rows(ROWS).desired_width(f32::INFINITY).hint_text("Write a message");
        // On the base, where a box of the usual ground would not be seen.
        let edit = edit.background_color(Palette::of(ui).control);
        let response =
            ScrollArea::vertical().id_salt(id).max_height(96.0).show(ui, |ui| ui.add(edit)).inner;
        if response.changed() {
            self.refused = None;
        }
        response.accessible_name(format!("Message to {place}"))
    }

    fn say(&mut self, session: &SessionId) -> Option<Want> {
        match ChatText::new(&self.draft) {
            Ok(text) => {
                self.draft.clear();
                Some(Command::Say { session: session.clone(), text }.into())
            }
            Err(TextError::Empty) => None,
            Err(error @ TextError::TooLong(_)) => {
                self.refused = Some(words::sentence(&error.to_string()));
                None
            }
        }
    }
}

/// Whether Enter was pressed alone. The modifiers are those of the key's own time: by the end of
/// the frame Shift may be up again.
fn is_entered(input: &InputState) -> bool {
    let enter = |event: &Event| {
        matches!(event, Event::Key { key: Key::Enter, pressed: true, modifiers, .. }
            if modifiers.is_none())
    };
    input.events.iter().any(enter)
}

/// Which session it is; whether the chat is to be closed.
fn title(ui: &mut Ui, colour: Color32, (session, place): (&SessionStatus, &str)) -> bool {
    let ((), closed) = two_ended(
        ui,
        |ui| {
            let (rect, _) = ui.allocate_exact_size(Vec2::splat(10.0), Sense::hover());
            ui.painter().circle_filled(rect.center(), 4.0, colour);
            let title = RichText::new(format!("Chat · {place}")).heading();
            ui.add(Label::new(title).truncate()).on_hover_text(session.session.as_str());
        },
        |ui| icon_button(ui, Icon::Close, "Close chat", Mark::Deed).clicked(),
    );
    closed
}

/// Scrolls by Page Up and Page Down, wherever the focus is: the box below is where it mostly is.
fn scroll_by_keys(ui: &mut Ui) {
    if ui.memory(|memory| memory.top_modal_layer().is_some()) {
        return;
    }
    let (up, down) =
        ui.input(|input| (input.key_pressed(Key::PageUp), input.key_pressed(Key::PageDown)));
    let page = ui.clip_rect().height() * PAGE;
    let by = page * (f32::from(u8::from(up)) - f32::from(u8::from(down)));
    if by != 0.0 {
        ui.scroll_with_delta(Vec2::new(0.0, by));
    }
}

/// Draws a line; what was followed.
fn one_line(ui: &mut Ui, line: &Line) -> Option<Want> {
    let palette = Palette::of(ui);
    // Rows of text, not of controls.
    ui.spacing_mut().interact_size.y = 0.0;
    ui.spacing_mut().item_spacing.y = 2.0;
    let (name, colour, text) = match &line.said {
        Said::ByMe(text) => ("You", palette.accent, text.as_str()),
        Said::By(name, text) => (name.as_str(), palette.text, text.as_str()),
        Said::Lost(count, name) => {
            let what =
                if *count == 1 { "A message".to_owned() } else { format!("{count} messages") };
            let name = bidi::isolated(name);
            let text = format!("{}  {what} may not have reached {name}.", line.at);
            ui.add(bidi::wrapped(ui, &text, (SMALL, palette.warn)));
            return None;
        }
    };
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        ui.add(bidi::wrapped(ui, name, (TextStyle::Body.resolve(ui.style()), colour)));
        ui.label(RichText::new(&line.at).font(SMALL).color(palette.muted));
    });
    paragraphs(ui, text)
}

/// The text: rows without a link together, as one label, so that a text of many rows costs no more
/// than another; a row with links in pieces. What was followed.
fn paragraphs(ui: &mut Ui, text: &str) -> Option<Want> {
    let mut want = None;
    let mut plain = vec![];
    let flush = |ui: &mut Ui, plain: &mut Vec<&str>| {
        if !plain.is_empty() {
            ui.add(written(ui, &plain.join("\n")));
            plain.clear();
        }
    };
    for row in text.split('\n') {
        let pieces = pieces(row);
        if !pieces.iter().any(|piece| matches!(piece, Piece::Link(_))) {
            plain.push(row);
            continue;
        }
        flush(ui, &mut plain);
        if bidi::is_needed(row) {
            // A link within words from right to left would have to stand in their middle: it gets
            // a row of its own.
            for piece in pieces {
                match piece {
                    Piece::Words(text) => drop(ui.add(written(ui, text.trim()))),
                    Piece::Link(link) => want = want.take().or(one_link(ui, link)),
                }
            }
            continue;
        }
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = Vec2::ZERO;
            for piece in pieces {
                match piece {
                    Piece::Words(words) => drop(ui.label(words)),
                    Piece::Link(link) => want = want.take().or(one_link(ui, link)),
                }
            }
        });
    }
    flush(ui, &mut plain);
    want
}

/// What somebody wrote.
fn written(ui: &Ui, text: &str) -> Label {
    bidi::wrapped(ui, text, (TextStyle::Body.resolve(ui.style()), ui.visuals().text_color()))
}

fn one_link(ui: &mut Ui, link: &str) -> Option<Want> {
    let deed = match parse_target(link) {
        Ok((Some(hub), _)) => format!("Join a session at {}", words::host(&hub)),
        Ok((None, _)) | Err(_) => "Open in the browser".to_owned(),
    };
    let response = ui.add(Link::new(link)).on_hover_text(format!("{deed}: {link}"));
    response.clicked().then(|| Want::Follow(link.to_owned()))
}
