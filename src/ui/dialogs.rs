//! What is asked or shown in front of everything: opening, a link's code, settings, keys, quitting.

use eframe::egui::{
    self, Color32, Context, Grid, Id, Key, Label, Modal, Rect, RichText, Sense, TextEdit, Ui, Vec2,
};
use qrcode::{Color, EcLevel, QrCode};

use super::{
    keys,
    sessions::primary_button,
    settings::{Settings, ThemeChoice},
    theme::{GRID, Palette, SMALL},
    want::{Opening, Want},
    words,
};
use crate::model::{
    Command, MAX_NAME_CHARS, Media, MediaSet, SessionId, SessionKind, SessionLink, Topology,
};

/// What is in front of everything.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// A session is being put together.
    Open(OpenForm),
    /// A link, as a square code.
    Code(SessionLink),
    /// The settings are being changed.
    Settings(SettingsForm),
    /// The keys.
    Help,
    /// Whether to close a session for everybody.
    Close(SessionId),
    /// Whether to quit, with so many people present.
    Quit(usize),
}

/// What came of drawing a dialog.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Open,
    /// It is to go away.
    Closed,
    /// It is to go away, and something is wanted.
    Want(Want),
    /// These settings are to hold.
    Keep(Settings),
    /// The program is to end.
    Quit,
}

/// A session that is being put together.
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

/// Settings that are being changed.
#[derive(Debug)]
pub(crate) struct SettingsForm {
    settings: Settings,
    /// Whether name and hub hold at once: no session has them yet.
    at_once: bool,
}

impl SettingsForm {
    /// A form that begins with what holds now.
    pub(crate) const fn new(settings: Settings, at_once: bool) -> Self {
        Self { settings, at_once }
    }
}

impl Dialog {
    /// Draws the dialog; Escape and a click beside it close it.
    pub(crate) fn ui(&mut self, ctx: &Context) -> Outcome {
        let modal = Modal::new(Id::unique("dialog")).show(ctx, |ui| {
            ui.set_width(380.0_f32.min(ctx.content_rect().width() - 64.0));
            match self {
                Self::Open(form) => form.ui(ui),
                Self::Code(link) => code(ui, link),
                Self::Settings(form) => form.ui(ui),
                Self::Help => help(ui),
                Self::Close(session) => close(ui, session),
                Self::Quit(present) => quit(ui, *present),
            }
        });
        if modal.inner == Outcome::Open && modal.should_close() {
            return Outcome::Closed;
        }
        modal.inner
    }
}

impl OpenForm {
    fn ui(&mut self, ui: &mut Ui) -> Outcome {
        ui.label(RichText::new("Open a session").heading());
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.audio, "Audio");
            ui.checkbox(&mut self.video, "Video");
            ui.checkbox(&mut self.data, "Data").on_hover_text("A text chat");
        });
        for topology in Topology::ALL {
            ui.radio_value(&mut self.topology, topology, topology.name())
                .on_hover_text(words::topology_meaning(topology));
        }
        ui.label(RichText::new(words::topology_meaning(self.topology)).small().weak());
        let label = ui.label("Own id, empty for a random one");
        let id = TextEdit::singleline(&mut self.id).desired_width(f32::INFINITY);
        ui.add(id.hint_text("town-hall")).labelled_by(label.id);
        let media = self.media();
        let kind = media.map(|media| SessionKind { media, topology: self.topology });
        let most = kind.map_or(2, SessionKind::default_limit);
        ui.horizontal(|ui| {
            ui.checkbox(&mut self.limited, "Limit of participants");
            self.limit = self.limit.clamp(2, most);
            let value = egui::DragValue::new(&mut self.limit).range(2..=most);
            let value = ui.add_enabled(self.limited, value);
            value.accessible_name("How many participants");
            ui.label(RichText::new(format!("at most {most}")).small().weak());
        });
        let problem = self.problem();
        if let Err(problem) = &problem {
            ui.label(RichText::new(problem).color(Palette::of(ui).warn));
        }
        let Ok(opening) = problem else { return buttons(ui, "Open session", false, Outcome::Open) };
        buttons(ui, "Open session", true, Outcome::Want(Want::Open(opening)))
    }

    fn media(&self) -> Option<MediaSet> {
        let list =
            [(self.audio, Media::Audio), (self.video, Media::Video), (self.data, Media::Data)];
        let chosen: Vec<_> = list.into_iter().filter(|(on, _)| *on).map(|(_, one)| one).collect();
        MediaSet::try_from(chosen).ok()
    }

    /// The session, or what must be mended first.
    fn problem(&self) -> Result<Opening, String> {
        let media = self.media().ok_or("Choose audio, video or data.")?;
        let session = match self.id.trim() {
            "" => None,
            id => Some(SessionId::parse(id).map_err(|error| format!("{error}."))?),
        };
        let limit = self.limited.then_some(self.limit);
        Ok(Opening { session, media, topology: self.topology, limit })
    }
}

impl SettingsForm {
    fn ui(&mut self, ui: &mut Ui) -> Outcome {
        ui.label(RichText::new("Settings").heading());
        let label = ui.label("Your name, as the others see it");
        let name = TextEdit::singleline(&mut self.settings.name)
            .hint_text("empty: \"Guest 1\"")
            .char_limit(MAX_NAME_CHARS)
            .desired_width(f32::INFINITY);
        ui.add(name).labelled_by(label.id);
        let label = ui.label("Hub");
        let hub = TextEdit::singleline(&mut self.settings.hub)
            .hint_text("empty: the one on this machine, or one of our own")
            .desired_width(f32::INFINITY);
        ui.add(hub).labelled_by(label.id);
        if !self.at_once {
            let text = "A new name or hub holds from the next start: sessions are open.";
            ui.label(RichText::new(text).small().weak());
        }
        ui.horizontal(|ui| {
            ui.label("Theme");
            let theme = &mut self.settings.theme;
            ui.radio_value(theme, ThemeChoice::Dark, "Dark");
            ui.radio_value(theme, ThemeChoice::Light, "Light");
        });
        let problem = self.settings.hub().err();
        if let Some(problem) = &problem {
            ui.label(RichText::new(problem.to_string()).color(Palette::of(ui).warn));
        }
        buttons(ui, "Save", problem.is_none(), Outcome::Keep(self.settings.clone()))
    }
}

/// A link as a square code, dark on light in both themes, as scanners want it.
fn code(ui: &mut Ui, link: &SessionLink) -> Outcome {
    let text = link.to_string();
    ui.label(RichText::new("Join by link").heading());
    match QrCode::with_error_correction_level(&text, EcLevel::M) {
        Ok(code) => {
            let modules = code.width();
            let quiet = 4;
            let scale = (280.0 / (modules + 2 * quiet) as f32).floor().max(2.0);
            let side = scale * (modules + 2 * quiet) as f32;
            let (line, _) =
                ui.allocate_exact_size(Vec2::new(ui.available_width(), side), Sense::hover());
            let square = Rect::from_center_size(line.center(), Vec2::splat(side));
            ui.painter().rect_filled(square, 4.0, Color32::WHITE);
            for (index, colour) in code.to_colors().into_iter().enumerate() {
                if colour == Color::Dark {
                    let (x, y) = (index % modules + quiet, index / modules + quiet);
                    let at = square.min + Vec2::new(x as f32, y as f32) * scale;
                    let module = Rect::from_min_size(at, Vec2::splat(scale));
                    ui.painter().rect_filled(module, 0.0, Color32::BLACK);
                }
            }
        }
        Err(error) => {
            ui.label(format!("This link is too long for a code ({error}); copy it instead."));
        }
    }
    ui.add(Label::new(RichText::new(&text).monospace()).wrap());
    buttons(ui, "Copy link", true, Outcome::Want(Want::Copy(text, "Link")))
}

fn help(ui: &mut Ui) -> Outcome {
    ui.label(RichText::new("Keys").heading());
    ui.label(RichText::new("They work everywhere, except while you type.").small().weak());
    Grid::new("keys").num_columns(2).spacing([2.0 * GRID, GRID / 2.0]).show(ui, |ui| {
        for (key, deed) in keys::HELP {
            ui.label(RichText::new(key).monospace().strong());
            ui.add(Label::new(RichText::new(deed).font(SMALL)).wrap());
            ui.end_row();
        }
    });
    if ui.button("Close").clicked() { Outcome::Closed } else { Outcome::Open }
}

fn close(ui: &mut Ui, session: &SessionId) -> Outcome {
    ui.label(RichText::new("Close for everybody?").heading());
    let id = words::elide_middle(session.as_str(), 24);
    ui.label(format!("{id} ends for all who are in it, and its link is void."));
    let command = Command::Close { session: session.clone() };
    buttons(ui, "Close for everybody", true, Outcome::Want(command.into()))
}

fn quit(ui: &mut Ui, present: usize) -> Outcome {
    ui.label(RichText::new("Quit?").heading());
    let who =
        if present == 1 { "One person is".to_owned() } else { format!("{present} people are") };
    ui.label(format!("{who} in your sessions. They will see that you left."));
    buttons(ui, "Quit", true, Outcome::Quit)
}

/// The deed and the way back. Enter in a text field does the deed.
fn buttons(ui: &mut Ui, deed: &str, possible: bool, outcome: Outcome) -> Outcome {
    ui.add_space(GRID);
    let entered = ui.input(|input| input.key_pressed(Key::Enter))
        && ui.memory(|memory| memory.focused().is_none());
    ui.horizontal(|ui| {
        let done = ui.add_enabled_ui(possible, |ui| primary_button(ui, deed).clicked()).inner;
        let back = ui.button("Cancel").clicked();
        match (possible && (done || entered), back) {
            (true, _) => outcome,
            (false, true) => Outcome::Closed,
            (false, false) => Outcome::Open,
        }
    })
    .inner
}
