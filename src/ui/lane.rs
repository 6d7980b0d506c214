//! A lane: one session, with its colour, its people and its switches.

use eframe::egui::{self, Frame, Label, Margin, Rect, RichText, Sense, Ui, Vec2};

use super::{
    chat::Chats,
    icons::{Icon, Mark, icon_button},
    sessions::{pill, two_ended},
    theme::{CORNER, GRID, ICON_BUTTON, Palette, SMALL, lane_colour},
    want::Want,
    words,
};
use crate::model::{
    Command, Direction, Gate, Media, ParticipantStatus, Role, SessionKind, SessionState,
    SessionStatus, Topology,
};

/// What came of drawing a lane.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// What the person wants.
    pub(crate) want: Option<Want>,
    /// The list of participants is to be folded or unfolded.
    pub(crate) fold: bool,
}

/// What a lane shows besides its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct More<'a> {
    /// The participants are listed.
    pub(crate) unfolded: bool,
    /// What was said.
    pub(crate) chats: &'a Chats,
}

/// The width of a character of an id, in points.
const ID_CHARACTER: f32 = 7.4;

/// Draws the lane of the session at place `index`.
pub(crate) fn ui(ui: &mut Ui, index: usize, session: &SessionStatus, more: More<'_>) -> Drawn {
    let palette = Palette::of(ui);
    let mut drawn = Drawn::default();
    let frame = Frame::new().fill(palette.base).corner_radius(CORNER).inner_margin(Margin {
        left: 14,
        right: 6,
        top: 6,
        bottom: 6,
    });
    let response = frame.show(ui, |ui| {
        ui.spacing_mut().item_spacing = egui::vec2(GRID / 2.0, 0.0);
        ui.set_width(ui.available_width());
        drawn.fold = title(ui, session, more.unfolded);
        drawn.want = address(ui, session);
        let deeds = deeds(ui, session, more.chats);
        drawn.want = drawn.want.take().or(deeds);
        if let Some(message) = trouble(session) {
            ui.label(RichText::new(message).color(palette.warn));
        }
        if more.unfolded {
            drawn.want = drawn.want.take().or(people(ui, session));
        }
    });
    let rect = response.response.rect;
    let bar =
        Rect::from_min_size(rect.min + egui::vec2(4.0, 8.0), Vec2::new(4.0, rect.height() - 16.0));
    ui.painter().rect_filled(bar, 2.0, lane_colour(index));
    drawn
}

/// The icon of a kind.
pub(crate) const fn kind_icon(kind: SessionKind) -> Icon {
    let topology = kind.topology;
    match (kind.media.has(Media::Video), kind.media.has(Media::Audio)) {
        _ if matches!(topology, Topology::OneWay) => Icon::Broadcast,
        (true, _) => Icon::Camera,
        (false, true) => Icon::Microphone,
        (false, false) => Icon::Data,
    }
}

/// Kind, the on-air mark and the head count; whether the count was clicked.
fn title(ui: &mut Ui, session: &SessionStatus, unfolded: bool) -> bool {
    let palette = Palette::of(ui);
    let present = words::present(session);
    let name = session.kind.map_or_else(|| "Session".to_owned(), words::kind);
    let (fold, ()) = two_ended(
        ui,
        |ui| {
            let fold = head_count(ui, present, &name, unfolded);
            if session.heard || session.seen {
                let mark = pill(ui, "ON AIR", palette.on_air, palette.on_on_air);
                mark.on_hover_text(match (session.heard, session.seen) {
                    (true, true) => "Somebody here hears and sees you now",
                    (true, false) => "Somebody here hears you now",
                    (false, _) => "Somebody here sees you now",
                });
            }
            fold
        },
        |ui| {
            if let Some(kind) = session.kind {
                let (rect, _) = ui.allocate_exact_size(Vec2::splat(16.0), Sense::hover());
                kind_icon(kind).paint(ui.painter(), rect, palette.text);
            }
            ui.add(Label::new(&name).truncate());
        },
    );
    fold
}

fn head_count(ui: &mut Ui, present: usize, kind: &str, unfolded: bool) -> bool {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(44.0, 24.0), Sense::click());
    let deed = if unfolded { "Hide" } else { "Show" };
    let who =
        if present == 1 { "1 participant".to_owned() } else { format!("{present} participants") };
    let label = format!("{deed} people in {kind}: {who}");
    let enabled = ui.is_enabled();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, enabled, &label));
    if response.hovered() || response.has_focus() {
        ui.painter().rect_filled(rect, 6.0, palette.control_hover);
    }
    if response.has_focus() {
        let ring = egui::Stroke::new(2.0, palette.accent);
        ui.painter().rect_stroke(rect, 6.0, ring, egui::StrokeKind::Inside);
    }
    let colour = if present > 0 { palette.text } else { palette.muted };
    let icon =
        Rect::from_center_size(rect.left_center() + egui::vec2(12.0, 0.0), Vec2::splat(15.0));
    Icon::People.paint(ui.painter(), icon, colour);
    let at = rect.left_center() + egui::vec2(24.0, 0.0);
    ui.painter().text(at, egui::Align2::LEFT_CENTER, present.to_string(), SMALL, colour);
    response.on_hover_text(label).clicked()
}

/// The id, what can be done with it, and the state.
fn address(ui: &mut Ui, session: &SessionStatus) -> Option<Want> {
    let id = session.session.as_str();
    let (want, ()) = two_ended(
        ui,
        |ui| {
            let link = session.link.as_ref()?;
            let mut want = None;
            if icon_button(ui, Icon::Code, &format!("Code of {id}"), Mark::Deed).clicked() {
                want = Some(Want::ShowCode(link.clone()));
            }
            if icon_button(ui, Icon::Link, &format!("Copy link of {id}"), Mark::Deed).clicked() {
                want = Some(Want::Copy(link.to_string(), "Link"));
            }
            want
        },
        |ui| {
            let room = ui.available_width() - ICON_BUTTON - GRID;
            let short = words::elide_middle(id, (room / ID_CHARACTER).max(5.0) as usize);
            let text = RichText::new(short).monospace().color(Palette::of(ui).muted);
            let shown = ui.add(Label::new(text).truncate().show_tooltip_when_elided(false));
            shown.on_hover_text(id);
            icon_button(ui, Icon::Copy, &format!("Copy id {id}"), Mark::Deed)
                .clicked()
                .then(|| Want::Copy(id.to_owned(), "Id"))
        },
    )
    .flatten_wants();
    want
}

/// Lets both ends of a line want something.
trait FlattenWants {
    fn flatten_wants(self) -> (Option<Want>, ());
}

impl FlattenWants for (Option<Want>, Option<Want>) {
    fn flatten_wants(self) -> (Option<Want>, ()) {
        (self.0.or(self.1), ())
    }
}

/// The session's own switches, its state, and the ways out.
fn deeds(ui: &mut Ui, session: &SessionStatus, chats: &Chats) -> Option<Want> {
    let palette = Palette::of(ui);
    let id = &session.session;
    let over = words::is_over(&session.state);
    let (right, left) = two_ended(
        ui,
        |ui| {
            let mut want = None;
            let (icon, label) = if over {
                (Icon::Close, format!("Dismiss {id}"))
            } else if session.state == SessionState::Waiting {
                (Icon::Close, format!("Stop waiting for {id}"))
            } else {
                (Icon::Leave, format!("Leave {id}"))
            };
            if icon_button(ui, icon, &label, Mark::Deed).clicked() {
                want = Some(Command::Leave { session: id.clone() }.into());
            }
            let label = format!("Close {id} for everybody");
            if !over
                && session.role == Role::Opener
                && icon_button(ui, Icon::Close, &label, Mark::Deed).clicked()
            {
                want = Some(Want::AskClose(id.clone()));
            }
            want
        },
        |ui| {
            let want = if over { None } else { switches(ui, session) };
            let want = want.or(chat(ui, session, chats));
            let state = words::state(session);
            if !matches!(session.state, SessionState::Failed(_)) {
                ui.add_space(GRID / 2.0);
                let text = RichText::new(&state).font(SMALL).color(palette.muted);
                ui.add(Label::new(text).truncate());
            }
            want
        },
    );
    right.or(left)
}

fn switches(ui: &mut Ui, session: &SessionStatus) -> Option<Want> {
    let kind = session.kind?;
    let id = &session.session;
    let direction = kind.direction(session.role);
    let sends = matches!(direction, Direction::SendRecv | Direction::SendOnly);
    let receives = matches!(direction, Direction::SendRecv | Direction::RecvOnly);
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let gates = session.gates;
    let all = [
        (Gate::Microphone, sends && audio, gates.microphone, Icon::Microphone, "Microphone"),
        (Gate::Camera, sends && video, gates.camera, Icon::Camera, "Camera"),
        (Gate::Listening, receives && audio, gates.listening, Icon::Speaker, "Listen"),
    ];
    let mut want = None;
    for (gate, _, open, icon, name) in all.into_iter().filter(|(_, shown, ..)| *shown) {
        let mark = if open { Mark::On } else { Mark::Off };
        if icon_button(ui, icon, &format!("{name} in {id}"), mark).clicked() {
            let session = Some(id.clone());
            want = Some(Command::SetGate { session, gate, open: !open }.into());
        }
    }
    want
}

/// The way to the chat, with how much was not read there.
fn chat(ui: &mut Ui, session: &SessionStatus, chats: &Chats) -> Option<Want> {
    let id = &session.session;
    if !session.kind?.media.has(Media::Data) {
        return None;
    }
    let unread = chats.unread(id);
    let deed = if chats.is_open(id) { "Close chat of" } else { "Chat in" };
    let label = match unread {
        0 => format!("{deed} {id}"),
        _ => format!("{deed} {id}: {unread} unread"),
    };
    let clicked = icon_button(ui, Icon::Data, &label, Mark::Deed).clicked();
    if unread > 0 {
        let palette = Palette::of(ui);
        let count = if unread > 99 { "99+".to_owned() } else { unread.to_string() };
        pill(ui, &count, palette.accent, palette.on_accent);
    }
    clicked.then(|| Want::ShowChat(id.clone()))
}

/// What is wrong with the session, if something is.
fn trouble(session: &SessionStatus) -> Option<&str> {
    match &session.state {
        SessionState::Failed(failure) => Some(&failure.message),
        SessionState::Connecting
        | SessionState::Waiting
        | SessionState::Live
        | SessionState::Reconnecting
        | SessionState::Ended { .. } => None,
    }
}

fn people(ui: &mut Ui, session: &SessionStatus) -> Option<Want> {
    let mut want = None;
    if session.participants.is_empty() {
        ui.label(RichText::new("Nobody else is here.").small().weak());
    }
    for person in &session.participants {
        want = want.or(one_person(ui, session, person));
    }
    want
}

fn one_person(ui: &mut Ui, session: &SessionStatus, person: &ParticipantStatus) -> Option<Want> {
    let palette = Palette::of(ui);
    let (want, ()) = two_ended(
        ui,
        |ui| {
            if session.role != Role::Opener || words::is_over(&session.state) {
                return None;
            }
            let label = format!("Send {} out of {}", person.name, session.session);
            icon_button(ui, Icon::Close, &label, Mark::Deed).clicked().then(|| {
                let (session, participant) = (session.session.clone(), person.participant.clone());
                Command::Eject { session, participant }.into()
            })
        },
        |ui| {
            let sends = session.kind.is_some_and(|kind| kind.topology != Topology::OneWay)
                || person.role == Role::Opener;
            let media = session.kind.map(|kind| kind.media);
            let off = [
                (Media::Audio, person.microphone, Icon::Microphone),
                (Media::Video, person.camera, Icon::Camera),
            ];
            for (medium, _, icon) in off
                .into_iter()
                .filter(|(medium, on, _)| sends && !on && media.is_some_and(|set| set.has(*medium)))
            {
                let (rect, response) = ui.allocate_exact_size(Vec2::splat(14.0), Sense::hover());
                icon.paint(ui.painter(), rect, palette.warn);
                Icon::strike(ui.painter(), rect, palette.warn, palette.base);
                response.on_hover_text(format!("{} off", medium.name()));
            }
            ui.add(Label::new(RichText::new(&person.name).font(SMALL)).truncate());
            let state = words::participant(person.state);
            ui.label(RichText::new(state).font(SMALL).color(palette.muted));
        },
    );
    want
}
