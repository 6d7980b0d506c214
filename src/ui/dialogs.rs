//! The modal dialogs: opening a session, a QR code, settings, keyboard shortcuts, and
//! confirmations.

use std::path::{Path, PathBuf};

use eframe::egui::{
    self, Color32, Context, Frame, Grid, Id, Key, Label, Modal, Rect, RichText, ScrollArea, Sense,
    TextEdit, TextStyle, Ui, Vec2,
};
use qrcode::{Color, EcLevel, QrCode};

use super::{
    action::{Action, NewSession},
    bidi,
    bindings::{Bindable, BindingError, Bindings, MODIFIERS},
    focus, labels,
    sessions::{danger_button, primary_button, split_row},
    settings::{Settings, ThemeChoice},
    shortcuts,
    theme::{GRID, Palette, SMALL, TITLE},
};
use crate::model::{
    Command, Departure, JoinTarget, MAX_NAME_CHARS, Media, MediaSet, ParticipantId, SessionId,
    SessionKind, SessionLink, Topology, parse_own_id,
};

/// A modal dialog.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// A form that opens a session.
    Open(OpenForm),
    /// The QR code of a session link.
    QrCode {
        /// The link.
        link: SessionLink,
        /// The session's name in a sentence.
        session_name: String,
    },
    /// Asks whether to join a session from a chat message at a hub that is not in use.
    JoinFromChat(JoinTarget),
    /// A form for the settings.
    Settings(SettingsForm),
    /// The keyboard shortcuts.
    Help(Bindings),
    /// Where a report was saved.
    ReportSaved(PathBuf),
    /// Asks whether to end a session for everyone.
    Close {
        /// The session.
        session: SessionId,
        /// The session's name in a sentence.
        session_name: String,
    },
    /// Asks whether to eject a participant from a session.
    Eject {
        /// The session.
        session: SessionId,
        /// The session's name in a sentence.
        session_name: String,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
        /// Whether other participants at the same network address are blocked too.
        block_address: bool,
    },
    /// Asks whether to leave all sessions. The number is that of the participants in them.
    LeaveAll(usize),
    /// Asks whether to quit.
    Quit {
        /// The number of participants in our sessions.
        present: usize,
        /// The number of guests at the hub in this program.
        guests: usize,
    },
}

/// Maximum width of a dialog, in points.
const MAX_WIDTH: f32 = 400.0;

/// Distance from a dialog's edge to its content and to the window's edge, in points.
const MARGIN: f32 = 16.0;

/// Height reserved for an error of two small lines and the gap below, in points.
const RESERVED_HEIGHT: f32 = 40.0;

/// The result of drawing a dialog.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The dialog stays open.
    StillOpen,
    /// The dialog closes.
    Closed,
    /// The dialog closes with an action.
    Action(Action),
    /// The dialog closes, and these settings apply.
    SaveSettings(Settings),
    /// The dialog closes, and the program quits.
    Quit,
}

/// The input of the form that opens a session.
#[derive(Debug)]
pub(crate) struct OpenForm {
    audio: bool,
    video: bool,
    data: bool,
    topology: Topology,
    id: String,
    limited: bool,
    limit: u16,
}

impl Default for OpenForm {
    fn default() -> Self {
        Self {
            audio: true,
            video: true,
            data: false,
            topology: Topology::ManyToMany,
            id: String::new(),
            limited: false,
            limit: 2,
        }
    }
}

/// The input of the settings form.
#[derive(Debug)]
pub(crate) struct SettingsForm {
    settings: Settings,
    /// Whether another hub is used at once, because no session is active.
    hub_applies_now: bool,
    /// The action whose new key is awaited.
    awaits_key_for: Option<Bindable>,
    /// Why the last pressed key cannot be bound.
    key_error: Option<BindingError>,
}

impl SettingsForm {
    /// A form that starts with the current settings.
    pub(crate) const fn new(settings: Settings, applies_now: bool) -> Self {
        Self { settings, hub_applies_now: applies_now, awaits_key_for: None, key_error: None }
    }
}

impl Dialog {
    /// Whether the dialog takes the next key press, even if it is a shortcut.
    pub(crate) const fn awaits_key(&self) -> bool {
        matches!(self, Self::Settings(form) if form.awaits_key_for.is_some())
    }

    /// Whether the dialog waits for an answer or input.
    pub(crate) const fn needs_answer(&self) -> bool {
        !matches!(self, Self::QrCode { .. } | Self::Help(_) | Self::ReportSaved(_))
    }

    /// Draws the dialog. Escape and a click outside close it.
    pub(crate) fn ui(&mut self, ctx: &Context) -> Outcome {
        let room = ctx.content_rect().size() - Vec2::splat(4.0 * MARGIN);
        let frame = Frame::popup(&ctx.global_style()).inner_margin(MARGIN);
        let modal = Modal::new(Id::unique("dialog")).frame(frame).show(ctx, |ui| {
            ui.set_width(MAX_WIDTH.min(room.x));
            let scroll = ScrollArea::vertical().max_height(room.y).min_scrolled_height(room.y);
            let scrolled = scroll.show(ui, |ui| {
                let outcome = self.draw_content(ui);
                focus::scroll_to_focused(ui);
                outcome
            });
            scrolled.inner
        });
        if modal.inner == Outcome::StillOpen && modal.should_close() {
            return Outcome::Closed;
        }
        modal.inner
    }

    fn draw_content(&mut self, ui: &mut Ui) -> Outcome {
        match self {
            Self::Open(form) => form.ui(ui),
            Self::QrCode { link, session_name } => qr_code(ui, link, session_name),
            Self::JoinFromChat(target) => join_linked(ui, target),
            Self::Settings(form) => form.ui(ui),
            Self::Help(bindings) => help(ui, bindings),
            Self::ReportSaved(path) => report_saved(ui, path),
            Self::Close { session, session_name } => close(ui, session, session_name),
            Self::Eject { session, session_name, participant, name, block_address: address } => {
                eject(ui, (session, session_name), (participant, name), address)
            }
            Self::LeaveAll(present) => leave_all(ui, *present),
            Self::Quit { present, guests } => quit(ui, *present, *guests),
        }
    }
}

impl OpenForm {
    fn ui(&mut self, ui: &mut Ui) -> Outcome {
        ui.label(RichText::new("New session").heading());
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.audio, "Audio");
            ui.checkbox(&mut self.video, "Video");
            ui.checkbox(&mut self.data, "Chat");
        });
        for topology in Topology::ALL {
            ui.horizontal(|ui| {
                ui.radio_value(&mut self.topology, topology, labels::topology(topology));
                ui.label(RichText::new(labels::topology_hint(topology)).small().weak());
            });
        }
        let label = ui.label("Id in the link (optional)");
        let id = TextEdit::singleline(&mut self.id).desired_width(f32::INFINITY);
        ui.add(id.hint_text("town-hall")).labelled_by(label.id);
        let media = self.media();
        let kind = media.map(|media| SessionKind { media, topology: self.topology });
        let max_limit = kind.map_or(2, SessionKind::default_limit);
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.limited, "Limit people to");
            self.limit = self.limit.clamp(2, max_limit);
            let value = egui::DragValue::new(&mut self.limit).range(2..=max_limit);
            let value = ui.add_enabled(self.limited, value);
            value.accessible_name("How many people");
            ui.label(RichText::new(format!("{max_limit} at most, with you")).small().weak());
        });
        let problem = self.validate();
        let words = problem.as_ref().err().map_or("", String::as_str);
        reserved_label(ui, RichText::new(words).color(Palette::of(ui).warn));
        let Ok(opening) = problem else {
            return confirm_buttons(ui, "Open session", false, Outcome::StillOpen);
        };
        confirm_buttons(ui, "Open session", true, Outcome::Action(Action::Open(opening)))
    }

    fn media(&self) -> Option<MediaSet> {
        let list =
            [(self.audio, Media::Audio), (self.video, Media::Video), (self.data, Media::Data)];
        let chosen: Vec<_> = list.into_iter().filter(|(on, _)| *on).map(|(_, one)| one).collect();
        MediaSet::try_from(chosen).ok()
    }

    /// The session to open, or what the user must correct first.
    fn validate(&self) -> Result<NewSession, String> {
        let media = self.media().ok_or("Choose audio, video or chat.")?;
        let session = match self.id.trim() {
            "" => None,
            id => Some(parse_own_id(id).map_err(|error| labels::sentence(&error.to_string()))?),
        };
        let limit = self.limited.then_some(self.limit);
        Ok(NewSession { session, media, topology: self.topology, limit })
    }
}

impl SettingsForm {
    fn ui(&mut self, ui: &mut Ui) -> Outcome {
        ui.label(RichText::new("Settings").heading());
        let label = ui.label("Your name, as others see it");
        let name = bidi::single_line_edit(&mut self.settings.name, |edit| {
            let edit = edit.hint_text("Guest").char_limit(MAX_NAME_CHARS);
            ui.add(edit.desired_width(f32::INFINITY))
        });
        name.labelled_by(label.id);
        let label = ui.label("Hub");
        let hub = TextEdit::singleline(&mut self.settings.hub)
            .hint_text("Empty: the hub on this computer")
            .desired_width(f32::INFINITY);
        ui.add(hub).labelled_by(label.id);
        ui.horizontal(|ui| {
            ui.label("Theme");
            let theme = &mut self.settings.theme;
            ui.radio_value(theme, ThemeChoice::Dark, "Dark");
            ui.radio_value(theme, ThemeChoice::Light, "Light");
        });
        self.shortcut_grid(ui);
        let problem = self.settings.hub_choice().err();
        let warn = |text: String| RichText::new(text).color(Palette::of(ui).warn);
        let note = "Another hub is used from the next start.";
        reserved_label(
            ui,
            match (&self.key_error, &problem) {
                (Some(refused), _) => warn(labels::sentence(&refused.to_string())),
                (None, Some(problem)) => warn(labels::sentence(&problem.to_string())),
                (None, None) => RichText::new(if self.hub_applies_now { "" } else { note }).weak(),
            },
        );
        confirm_buttons(ui, "Save", problem.is_none(), Outcome::SaveSettings(self.settings.clone()))
    }
}

impl SettingsForm {
    /// Draws a button per action, which shows its key and rebinds it.
    fn shortcut_grid(&mut self, ui: &mut Ui) {
        self.capture_key(ui);
        ui.separator();
        split_row(
            ui,
            |ui| ui.label("Keyboard shortcuts: click one, then press a key"),
            |ui| {
                let defaults = Bindings::default();
                let button = egui::Button::new("Reset");
                if ui.add_enabled(self.settings.keys != defaults, button).clicked() {
                    self.settings.keys = defaults;
                    (self.awaits_key_for, self.key_error) = (None, None);
                }
            },
        );
        Grid::new("bindings").num_columns(2).spacing([2.0 * GRID, GRID / 2.0]).show(ui, |ui| {
            for action in Bindable::ALL {
                let key = self.settings.keys.key_name(action);
                let awaited = self.awaits_key_for == Some(action);
                let text = if awaited { "Press a key…" } else { key };
                let button = ui.add(egui::Button::new(text).min_size(Vec2::new(96.0, 24.0)));
                let label = format!("{key}: {}", action.meaning());
                button.widget_info(|| {
                    egui::WidgetInfo::selected(egui::Role::Button, true, awaited, &label)
                });
                if button.clicked() {
                    self.awaits_key_for = (!awaited).then_some(action);
                    self.key_error = None;
                }
                ui.add(Label::new(RichText::new(action.meaning()).font(SMALL)).wrap());
                ui.end_row();
            }
        });
    }

    /// Binds the next pressed key to the awaiting action. Escape cancels.
    fn capture_key(&mut self, ui: &Ui) {
        let Some(action) = self.awaits_key_for else { return };
        let mut pressed = None;
        ui.input_mut(|input| {
            for event in &input.events {
                if let egui::Event::Key { key, pressed: true, repeat: false, modifiers, .. } = event
                    && !(modifiers.ctrl || modifiers.alt || modifiers.command)
                    && !MODIFIERS.contains(key)
                {
                    pressed = pressed.or(Some(shortcuts::typed_key(*key, modifiers.shift)));
                }
            }
            // The keys are consumed: Escape would close the dialog, and a letter would be typed
            // into a text box.
            let is_key = |event: &egui::Event| {
                matches!(event, egui::Event::Key { .. } | egui::Event::Text(_))
            };
            input.events.retain(|event| !is_key(event));
        });
        match pressed {
            None => {}
            Some(Key::Escape) => (self.awaits_key_for, self.key_error) = (None, None),
            Some(key) => match self.settings.keys.bind(action, key) {
                Ok(()) => (self.awaits_key_for, self.key_error) = (None, None),
                Err(refused) => self.key_error = Some(refused),
            },
        }
    }
}

/// A text that appears while the user types, in reserved space so that nothing else moves.
fn reserved_label(ui: &mut Ui, text: RichText) {
    let top = ui.cursor().top();
    if !text.is_empty() {
        ui.add(Label::new(text.font(SMALL)).wrap());
    }
    let drawn = ui.cursor().top() - top;
    ui.add_space((RESERVED_HEIGHT - drawn).max(0.0));
}

/// Draws a session link as a QR code, dark on light in both themes as scanners expect.
fn qr_code(ui: &mut Ui, link: &SessionLink, session_name: &str) -> Outcome {
    let text = link.to_string();
    let title = format!("Scan to join {session_name}");
    ui.add(Label::new(RichText::new(title).heading()).wrap());
    match QrCode::with_error_correction_level(&text, EcLevel::M) {
        Ok(code) => {
            let modules = code.width();
            let quiet_zone = 4;
            let scale = (280.0 / (modules + 2 * quiet_zone) as f32).floor().max(2.0);
            let side = scale * (modules + 2 * quiet_zone) as f32;
            let (area, _) =
                ui.allocate_exact_size(Vec2::new(ui.available_width(), side), Sense::hover());
            let square = Rect::from_center_size(area.center(), Vec2::splat(side));
            ui.painter().rect_filled(square, 4.0, Color32::WHITE);
            for (index, colour) in code.to_colors().into_iter().enumerate() {
                if colour == Color::Dark {
                    let (x, y) = (index % modules + quiet_zone, index / modules + quiet_zone);
                    let at = square.min + Vec2::new(x as f32, y as f32) * scale;
                    let module = Rect::from_min_size(at, Vec2::splat(scale));
                    ui.painter().rect_filled(module, 0.0, Color32::BLACK);
                }
            }
        }
        Err(error) => {
            ui.label(format!("This link is too long for a QR code ({error}). Copy it instead."));
        }
    }
    ui.add(Label::new(RichText::new(&text).monospace()).wrap());
    let copy = Outcome::Action(Action::Copy(text, format!("Link to {session_name}")));
    choice_buttons(ui, ("Copy link", "Close"), true, copy)
}

/// Draws the question before a session from a chat message is joined. The author of the message
/// chose the session, so "Join muted" comes first and is the default of Enter.
fn join_linked(ui: &mut Ui, target: &JoinTarget) -> Outcome {
    let hub_name = target.hub.as_ref().map_or_else(String::new, labels::hub_host);
    ui.add(Label::new(RichText::new(format!("Join at {hub_name}?")).heading()).wrap());
    let text = "Your camera and microphone will be sent. The sender of the link chose the session.";
    ui.add(Label::new(text).wrap());
    let join = |muted| Outcome::Action(Action::JoinFromChat { target: target.clone(), muted });
    ui.add_space(GRID);
    ui.horizontal_wrapped(|ui| {
        let muted = primary_button(ui, "Join muted");
        if ui.memory(|memory| memory.focused().is_none()) {
            muted.request_focus();
        }
        let open = ui.button("Join with camera and mic").clicked();
        let cancel = ui.button("Cancel").clicked();
        match (muted.clicked(), open, cancel) {
            (true, ..) => join(true),
            (false, true, _) => join(false),
            (false, false, true) => Outcome::Closed,
            (false, false, false) => Outcome::StillOpen,
        }
    })
    .inner
}

fn help(ui: &mut Ui, bindings: &Bindings) -> Outcome {
    ui.label(RichText::new("Keyboard shortcuts").heading());
    ui.label(RichText::new("They work everywhere, except while you type.").small().weak());
    Grid::new("keys").num_columns(2).spacing([2.0 * GRID, GRID / 2.0]).show(ui, |ui| {
        for (key, action) in shortcuts::help(bindings) {
            ui.label(RichText::new(key).monospace().strong());
            ui.add(Label::new(RichText::new(action).font(SMALL)).wrap());
            ui.end_row();
        }
    });
    ui.separator();
    split_row(
        ui,
        |ui| ui.label("Something went wrong?"),
        |ui| ui.button("Save a report").clicked().then_some(Outcome::Action(Action::SaveReport)),
    )
    .1
    .unwrap_or_else(|| close_button(ui))
}

fn close_button(ui: &mut Ui) -> Outcome {
    if ui.button("Close").clicked() { Outcome::Closed } else { Outcome::StillOpen }
}

fn report_saved(ui: &mut Ui, path: &Path) -> Outcome {
    ui.label(RichText::new("The report is saved").heading());
    let path = path.display().to_string();
    ui.add(Label::new(RichText::new(&path).monospace()).wrap());
    ui.label(
        "It has no passwords, keys or chat messages. It has names and addresses: read it before \
         you send it.",
    );
    if ui.button("Copy its path").clicked() {
        return Outcome::Action(Action::Copy(path, "The path of the report".to_owned()));
    }
    close_button(ui)
}

fn close(ui: &mut Ui, session: &SessionId, session_name: &str) -> Outcome {
    let title = format!("End {session_name} for everyone?");
    ui.add(Label::new(RichText::new(title).heading()).wrap());
    ui.label(
        "Everyone in it is disconnected, and its link stops working. You can undo it for 8 seconds.",
    );
    let command = Command::Depart(Departure::Close(session.clone()));
    destructive_buttons(ui, "End for everyone", Outcome::Action(command.into()))
}

fn eject(
    ui: &mut Ui,
    (session, session_name): (&SessionId, &str),
    (participant, name): (&ParticipantId, &str),
    address: &mut bool,
) -> Outcome {
    let (name, colour) = (bidi::isolated(name), ui.visuals().text_color());
    ui.add(bidi::wrapped(ui, &format!("Remove {name}?"), (TITLE, Palette::of(ui).text)));
    let text = format!(
        "{name} leaves {session_name} at once and cannot come back for 10 minutes, unless you \
         allow it."
    );
    ui.add(bidi::wrapped(ui, &text, (TextStyle::Body.resolve(ui.style()), colour)));
    ui.checkbox(address, "Keep out everybody else at the same network address");
    let (session, participant) = (session.clone(), participant.clone());
    let command = Command::Eject { session, participant, address: *address };
    destructive_buttons(ui, "Remove", Outcome::Action(command.into()))
}

fn leave_all(ui: &mut Ui, present: usize) -> Outcome {
    ui.label(RichText::new("Leave all sessions?").heading());
    ui.label(leave_consequence(present));
    destructive_buttons(
        ui,
        "Leave all",
        Outcome::Action(Command::Depart(Departure::LeaveAll).into()),
    )
}

fn quit(ui: &mut Ui, present: usize, guests: usize) -> Outcome {
    ui.label(RichText::new("Quit Quintet?").heading());
    if present > 0 {
        ui.label(leave_consequence(present));
    }
    if guests > 0 {
        let people = if guests == 1 { "1 person uses" } else { &format!("{guests} people use") };
        ui.label(format!(
            "{people} this window as their hub. They stay connected, but nobody new can join."
        ));
    }
    destructive_buttons(ui, "Quit", Outcome::Quit)
}

/// What leaving means while that many participants are present.
fn leave_consequence(present: usize) -> String {
    let people =
        if present == 1 { "1 person is".to_owned() } else { format!("{present} people are") };
    format!(
        "{people} in your sessions and will see that you left. Conferences go on without you. Your \
         other sessions end, and their links stop working."
    )
}

/// Draws a destructive button and Cancel. Cancel has the focus, so that Enter does no harm.
fn destructive_buttons(ui: &mut Ui, action: &str, outcome: Outcome) -> Outcome {
    ui.add_space(GRID);
    ui.horizontal(|ui| {
        let done = danger_button(ui, action).clicked();
        let cancel = ui.button("Cancel");
        if ui.memory(|memory| memory.focused().is_none()) {
            cancel.request_focus();
        }
        match (done, cancel.clicked()) {
            (true, _) => outcome,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::StillOpen,
        }
    })
    .inner
}

/// Draws the confirming button and Cancel. Enter in a text box confirms.
fn confirm_buttons(ui: &mut Ui, action: &str, possible: bool, outcome: Outcome) -> Outcome {
    choice_buttons(ui, (action, "Cancel"), possible, outcome)
}

/// The same, with another label for the cancelling button.
fn choice_buttons(
    ui: &mut Ui,
    (action, back): (&str, &str),
    possible: bool,
    outcome: Outcome,
) -> Outcome {
    ui.add_space(GRID);
    let entered = ui.input(|input| input.key_pressed(Key::Enter))
        && ui.memory(|memory| memory.focused().is_none());
    ui.horizontal(|ui| {
        let done = ui.add_enabled_ui(possible, |ui| primary_button(ui, action).clicked()).inner;
        let back = ui.button(back).clicked();
        match (possible && (done || entered), back) {
            (true, _) => outcome,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::StillOpen,
        }
    })
    .inner
}
