//! The modal dialogs: opening a session, a QR code, settings, keyboard shortcuts, and
//! confirmations.

use eframe::egui::{
    self, Color32, Context, Frame, Grid, Id, Key, Label, Modal, Rect, RichText, ScrollArea, Sense,
    TextEdit, TextStyle, Ui, Vec2,
};
use qrcode::{Color, EcLevel, QrCode};

use super::{
    bidi,
    bindings::{Bindable, BindingError, Bindings, MODIFIERS},
    focus, keys,
    sessions::{primary_button, red_button, two_ended},
    settings::{Settings, ThemeChoice},
    theme::{GRID, Palette, SMALL, TITLE},
    want::{Opening, Want},
    words,
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
    Code {
        /// The link.
        link: SessionLink,
        /// The session's name in a sentence.
        place: String,
    },
    /// Asks whether to join a session from a chat message at a hub that is not in use.
    JoinLinked(JoinTarget),
    /// A form for the settings.
    Settings(SettingsForm),
    /// The keyboard shortcuts.
    Help(Bindings),
    /// Asks whether to end a session for everyone.
    Close {
        /// The session.
        session: SessionId,
        /// The session's name in a sentence.
        place: String,
    },
    /// Asks whether to eject a participant from a session.
    Eject {
        /// The session.
        session: SessionId,
        /// The session's name in a sentence.
        place: String,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
        /// Whether other participants at the same network address are blocked too.
        address: bool,
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
const WIDTH: f32 = 400.0;

/// Distance from a dialog's edge to its content and to the window's edge, in points.
const MARGIN: f32 = 16.0;

/// Height reserved for an error of two small lines and the gap below, in points.
const RESERVED: f32 = 40.0;

/// The result of drawing a dialog.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The dialog stays open.
    Open,
    /// The dialog closes.
    Closed,
    /// The dialog closes with an action.
    Want(Want),
    /// The dialog closes, and these settings apply.
    Keep(Settings),
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
    at_once: bool,
    /// The action whose new key is awaited.
    awaiting: Option<Bindable>,
    /// Why the last pressed key cannot be bound.
    refused: Option<BindingError>,
}

impl SettingsForm {
    /// A form that starts with the current settings.
    pub(crate) const fn new(settings: Settings, applies_now: bool) -> Self {
        Self { settings, at_once: applies_now, awaiting: None, refused: None }
    }
}

impl Dialog {
    /// Whether the dialog takes the next key press, even if it is a shortcut.
    pub(crate) const fn awaits_key(&self) -> bool {
        matches!(self, Self::Settings(form) if form.awaiting.is_some())
    }

    /// Whether the dialog waits for an answer or input.
    pub(crate) const fn asks(&self) -> bool {
        !matches!(self, Self::Code { .. } | Self::Help(_))
    }

    /// Draws the dialog. Escape and a click outside close it.
    pub(crate) fn ui(&mut self, ctx: &Context) -> Outcome {
        let room = ctx.content_rect().size() - Vec2::splat(4.0 * MARGIN);
        let frame = Frame::popup(&ctx.global_style()).inner_margin(MARGIN);
        let modal = Modal::new(Id::unique("dialog")).frame(frame).show(ctx, |ui| {
            ui.set_width(WIDTH.min(room.x));
            let scroll = ScrollArea::vertical().max_height(room.y).min_scrolled_height(room.y);
            let scrolled = scroll.show(ui, |ui| {
                let outcome = self.content(ui);
                focus::follow(ui);
                outcome
            });
            scrolled.inner
        });
        if modal.inner == Outcome::Open && modal.should_close() {
            return Outcome::Closed;
        }
        modal.inner
    }

    fn content(&mut self, ui: &mut Ui) -> Outcome {
        match self {
            Self::Open(form) => form.ui(ui),
            Self::Code { link, place: session_name } => code(ui, link, session_name),
            Self::JoinLinked(target) => join_linked(ui, target),
            Self::Settings(form) => form.ui(ui),
            Self::Help(bindings) => help(ui, bindings),
            Self::Close { session, place: session_name } => close(ui, session, session_name),
            Self::Eject { session, place: session_name, participant, name, address } => {
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
                ui.radio_value(&mut self.topology, topology, words::topology(topology));
                ui.label(RichText::new(words::topology_meaning(topology)).small().weak());
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
        let problem = self.problem();
        let words = problem.as_ref().err().map_or("", String::as_str);
        reserved(ui, RichText::new(words).color(Palette::of(ui).warn));
        let Ok(opening) = problem else { return buttons(ui, "Open session", false, Outcome::Open) };
        buttons(ui, "Open session", true, Outcome::Want(Want::Open(opening)))
    }

    fn media(&self) -> Option<MediaSet> {
        let list =
            [(self.audio, Media::Audio), (self.video, Media::Video), (self.data, Media::Data)];
        let chosen: Vec<_> = list.into_iter().filter(|(on, _)| *on).map(|(_, one)| one).collect();
        MediaSet::try_from(chosen).ok()
    }

    /// The session to open, or what the user must correct first.
    fn problem(&self) -> Result<Opening, String> {
        let media = self.media().ok_or("Choose audio, video or chat.")?;
        let session = match self.id.trim() {
            "" => None,
            id => Some(parse_own_id(id).map_err(|error| words::sentence(&error.to_string()))?),
        };
        let limit = self.limited.then_some(self.limit);
        Ok(Opening { session, media, topology: self.topology, limit })
    }
}

impl SettingsForm {
    fn ui(&mut self, ui: &mut Ui) -> Outcome {
        ui.label(RichText::new("Settings").heading());
        let label = ui.label("Your name, as others see it");
        let name = bidi::line_box(&mut self.settings.name, |edit| {
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
        self.keys(ui);
        let problem = self.settings.hub().err();
        let warn = |text: String| RichText::new(text).color(Palette::of(ui).warn);
        let note = "Another hub is used from the next start.";
        reserved(
            ui,
            match (&self.refused, &problem) {
                (Some(refused), _) => warn(words::sentence(&refused.to_string())),
                (None, Some(problem)) => warn(words::sentence(&problem.to_string())),
                (None, None) => RichText::new(if self.at_once { "" } else { note }).weak(),
            },
        );
        buttons(ui, "Save", problem.is_none(), Outcome::Keep(self.settings.clone()))
    }
}

impl SettingsForm {
    /// Draws a button per action, which shows its key and rebinds it.
    fn keys(&mut self, ui: &mut Ui) {
        self.take_key(ui);
        ui.separator();
        two_ended(
            ui,
            |ui| ui.label("Keyboard shortcuts: click one, then press a key"),
            |ui| {
                let defaults = Bindings::default();
                let button = egui::Button::new("Reset");
                if ui.add_enabled(self.settings.keys != defaults, button).clicked() {
                    self.settings.keys = defaults;
                    (self.awaiting, self.refused) = (None, None);
                }
            },
        );
        Grid::new("bindings").num_columns(2).spacing([2.0 * GRID, GRID / 2.0]).show(ui, |ui| {
            for action in Bindable::ALL {
                let key = self.settings.keys.shown(action);
                let awaited = self.awaiting == Some(action);
                let text = if awaited { "Press a key…" } else { key };
                let button = ui.add(egui::Button::new(text).min_size(Vec2::new(96.0, 24.0)));
                let label = format!("{key}: {}", action.meaning());
                button.widget_info(|| {
                    egui::WidgetInfo::selected(egui::Role::Button, true, awaited, &label)
                });
                if button.clicked() {
                    self.awaiting = (!awaited).then_some(action);
                    self.refused = None;
                }
                ui.add(Label::new(RichText::new(action.meaning()).font(SMALL)).wrap());
                ui.end_row();
            }
        });
    }

    /// Binds the next pressed key to the awaiting action. Escape cancels.
    fn take_key(&mut self, ui: &Ui) {
        let Some(action) = self.awaiting else { return };
        let mut pressed = None;
        ui.input_mut(|input| {
            for event in &input.events {
                if let egui::Event::Key { key, pressed: true, repeat: false, modifiers, .. } = event
                    && !(modifiers.ctrl || modifiers.alt || modifiers.command)
                    && !MODIFIERS.contains(key)
                {
                    pressed = pressed.or(Some(keys::written(*key, modifiers.shift)));
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
            Some(Key::Escape) => (self.awaiting, self.refused) = (None, None),
            Some(key) => match self.settings.keys.bind(action, key) {
                Ok(()) => (self.awaiting, self.refused) = (None, None),
                Err(refused) => self.refused = Some(refused),
            },
        }
    }
}

/// A text that appears while the user types, in reserved space so that nothing else moves.
fn reserved(ui: &mut Ui, text: RichText) {
    let top = ui.cursor().top();
    if !text.is_empty() {
        ui.add(Label::new(text.font(SMALL)).wrap());
    }
    let drawn = ui.cursor().top() - top;
    ui.add_space((RESERVED - drawn).max(0.0));
}

/// Draws a session link as a QR code, dark on light in both themes as scanners expect.
fn code(ui: &mut Ui, link: &SessionLink, session_name: &str) -> Outcome {
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
    let copy = Outcome::Want(Want::Copy(text, format!("Link to {session_name}")));
    choice(ui, ("Copy link", "Close"), true, copy)
}

/// Draws the question before a session from a chat message is joined. The author of the message
/// chose the session, so "Join muted" comes first and is the default of Enter.
fn join_linked(ui: &mut Ui, target: &JoinTarget) -> Outcome {
    let hub_name = target.hub.as_ref().map_or_else(String::new, words::host);
    ui.add(Label::new(RichText::new(format!("Join at {hub_name}?")).heading()).wrap());
    let text =
        "Your camera and microphone will be sent. Whoever wrote the link chose who is there.";
    ui.add(Label::new(text).wrap());
    let join = |muted| Outcome::Want(Want::JoinLinked { target: target.clone(), muted });
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
            (false, false, false) => Outcome::Open,
        }
    })
    .inner
}

fn help(ui: &mut Ui, bindings: &Bindings) -> Outcome {
    ui.label(RichText::new("Keyboard shortcuts").heading());
    ui.label(RichText::new("They work everywhere, except while you type.").small().weak());
    Grid::new("keys").num_columns(2).spacing([2.0 * GRID, GRID / 2.0]).show(ui, |ui| {
        for (key, action) in keys::help(bindings) {
            ui.label(RichText::new(key).monospace().strong());
            ui.add(Label::new(RichText::new(action).font(SMALL)).wrap());
            ui.end_row();
        }
    });
    if ui.button("Close").clicked() { Outcome::Closed } else { Outcome::Open }
}

fn close(ui: &mut Ui, session: &SessionId, session_name: &str) -> Outcome {
    let title = format!("End {session_name} for everyone?");
    ui.add(Label::new(RichText::new(title).heading()).wrap());
    ui.label(
        "Everyone in it is disconnected, and its link stops working. You can undo it for 8 seconds.",
    );
    let command = Command::Depart(Departure::Close(session.clone()));
    destroy(ui, "End for everyone", Outcome::Want(command.into()))
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
    destroy(ui, "Remove", Outcome::Want(command.into()))
}

fn leave_all(ui: &mut Ui, present: usize) -> Outcome {
    ui.label(RichText::new("Leave all sessions?").heading());
    ui.label(consequence(present));
    destroy(ui, "Leave all", Outcome::Want(Command::Depart(Departure::LeaveAll).into()))
}

fn quit(ui: &mut Ui, present: usize, guests: usize) -> Outcome {
    ui.label(RichText::new("Quit Quintet?").heading());
    if present > 0 {
        ui.label(consequence(present));
    }
    if guests > 0 {
        let people = if guests == 1 { "1 person uses" } else { &format!("{guests} people use") };
        ui.label(format!(
            "{people} this window as their hub. They stay connected, but nobody new can join."
        ));
    }
    destroy(ui, "Quit", Outcome::Quit)
}

/// What leaving means while that many participants are present.
fn consequence(present: usize) -> String {
    let people =
        if present == 1 { "1 person is".to_owned() } else { format!("{present} people are") };
    format!(
        "{people} in your sessions and will see that you left. Conferences go on without you. Your \
         other sessions end, and their links stop working."
    )
}

/// Draws a destructive button and Cancel. Cancel has the focus, so that Enter does no harm.
fn destroy(ui: &mut Ui, action: &str, outcome: Outcome) -> Outcome {
    ui.add_space(GRID);
    ui.horizontal(|ui| {
        let done = red_button(ui, action).clicked();
        let cancel = ui.button("Cancel");
        if ui.memory(|memory| memory.focused().is_none()) {
            cancel.request_focus();
        }
        match (done, cancel.clicked()) {
            (true, _) => outcome,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::Open,
        }
    })
    .inner
}

/// Draws the confirming button and Cancel. Enter in a text box confirms.
fn buttons(ui: &mut Ui, action: &str, possible: bool, outcome: Outcome) -> Outcome {
    choice(ui, (action, "Cancel"), possible, outcome)
}

/// The same, with another label for the cancelling button.
fn choice(ui: &mut Ui, (action, back): (&str, &str), possible: bool, outcome: Outcome) -> Outcome {
    ui.add_space(GRID);
    let entered = ui.input(|input| input.key_pressed(Key::Enter))
        && ui.memory(|memory| memory.focused().is_none());
    ui.horizontal(|ui| {
        let done = ui.add_enabled_ui(possible, |ui| primary_button(ui, action).clicked()).inner;
        let back = ui.button(back).clicked();
        match (possible && (done || entered), back) {
            (true, _) => outcome,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::Open,
        }
    })
    .inner
}
