//! A lane: one session, with its colour, its people and its switches.

use eframe::egui::{self, Frame, Label, Margin, Rect, RichText, Sense, Ui, Vec2};

use super::{
    chat::Chats,
    icons::{Icon, Mark, icon_button, icon_switch},
    people,
    scene::Scene,
    sessions::{pill, two_ended},
    theme::{CORNER, GRID, Palette, SMALL},
    want::{Opening, Want},
    words,
};
use crate::model::{
    Command, Departure, Direction, EndReason, ErrorCode, FailureCode, Gate, HubOwner, JoinTarget,
    Media, MediaTime, OpenRequest, Role, SessionKind, SessionState, SessionStatus, Topology,
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
    /// What the session is called in a sentence.
    pub(crate) place: &'a str,
    /// The participants are listed.
    pub(crate) unfolded: bool,
    /// What was said.
    pub(crate) chats: &'a Chats,
    /// Everything else.
    pub(crate) scene: Scene<'a>,
}

/// Draws the session's lane.
pub(crate) fn ui(ui: &mut Ui, session: &SessionStatus, more: More<'_>) -> Drawn {
    let now = more.scene.now;
    let palette = Palette::of(ui);
    let mut drawn = Drawn::default();
    let frame = Frame::new().fill(palette.base).corner_radius(CORNER).inner_margin(Margin {
        left: 14,
        right: 6,
        top: 4,
        bottom: 4,
    });
    let response = frame.show(ui, |ui| {
        ui.spacing_mut().item_spacing = egui::vec2(GRID / 2.0, 0.0);
        ui.set_width(ui.available_width());
        drawn.fold = title(ui, session, more);
        drawn.want = address(ui, session, more.place);
        let deeds = deeds(ui, session, more);
        drawn.want = drawn.want.take().or(deeds);
        if let Some(message) = trouble(session, now) {
            let text = RichText::new(message).small().color(palette.warn);
            ui.add(Label::new(text).wrap());
        }
        if let Some(hub) = session.hub.as_ref().filter(|hub| hub.owner == HubOwner::Unproven) {
            let text = RichText::new(words::hub(hub)).small().color(palette.warn);
            ui.add(Label::new(text).wrap());
        }
        if session.state == SessionState::Waiting {
            let text = RichText::new(words::awaited(session)).small().weak();
            ui.add(Label::new(text).wrap());
        }
        let onward = way_on(ui, session);
        drawn.want = drawn.want.take().or(onward);
        if more.unfolded && !words::is_over(&session.state) {
            let deed = people::ui(ui, session, (more.place, now));
            drawn.want = drawn.want.take().or(deed);
        }
    });
    let rect = response.response.rect;
    let bar =
        Rect::from_min_size(rect.min + egui::vec2(4.0, 8.0), Vec2::new(4.0, rect.height() - 16.0));
    let colour = more.scene.colours.of(&session.session).unwrap_or(palette.line);
    ui.painter().rect_filled(bar, 2.0, colour);
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
fn title(ui: &mut Ui, session: &SessionStatus, more: More<'_>) -> bool {
    let palette = Palette::of(ui);
    let present = words::present(session);
    let name = session.kind.map_or_else(|| "Session".to_owned(), words::kind);
    let ((), fold) = two_ended(
        ui,
        |ui| {
            if let Some(kind) = session.kind {
                let (rect, _) = ui.allocate_exact_size(Vec2::splat(16.0), Sense::hover());
                kind_icon(kind).paint(ui.painter(), rect, palette.text);
            }
            ui.add(Label::new(&name).truncate());
        },
        |ui| {
            if session.heard || session.seen {
                let mark = pill(ui, "ON AIR", palette.on_air, palette.on_on_air);
                mark.on_hover_text(match (session.heard, session.seen) {
                    (true, true) => "People here can hear and see you",
                    (true, false) => "People here can hear you",
                    (false, _) => "People here can see you",
                });
            }
            let is_over = words::is_over(&session.state);
            !is_over && head_count(ui, present, more)
        },
    );
    fold
}

fn head_count(ui: &mut Ui, present: usize, more: More<'_>) -> bool {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(44.0, 24.0), Sense::click());
    let deed = if more.unfolded { "Hide" } else { "Show" };
    let label = format!("{deed} people in {} ({present})", more.place);
    let enabled = ui.is_enabled();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, enabled, &label));
    let is_lit = response.hovered() || response.has_focus();
    if is_lit {
        ui.painter().rect_filled(rect, 6.0, palette.control_hover);
    }
    if response.has_focus() {
        let ring = egui::Stroke::new(2.0, palette.accent);
        ui.painter().rect_stroke(rect, 6.0, ring, egui::StrokeKind::Inside);
    }
    let colour = if present > 0 || is_lit { palette.text } else { palette.muted };
    let icon =
        Rect::from_center_size(rect.left_center() + egui::vec2(12.0, 0.0), Vec2::splat(15.0));
    Icon::People.paint(ui.painter(), icon, colour);
    let at = rect.left_center() + egui::vec2(24.0, 0.0);
    ui.painter().text(at, egui::Align2::LEFT_CENTER, present.to_string(), SMALL, colour);
    response.on_hover_text(label).clicked()
}

/// The id, and the link as text and as a code.
fn address(ui: &mut Ui, session: &SessionStatus, place: &str) -> Option<Want> {
    let id = session.session.as_str();
    let ((), want) = two_ended(
        ui,
        |ui| {
            let room = ui.available_width();
            let short = words::elide_middle(id, (room / id_character(ui)).max(5.0) as usize);
            let text = RichText::new(short).monospace().color(Palette::of(ui).muted);
            let shown = ui.add(Label::new(text).truncate().show_tooltip_when_elided(false));
            shown.on_hover_text(match &session.hub {
                Some(hub) => format!("{id}\n{}", words::hub(hub)),
                None => id.to_owned(),
            });
        },
        |ui| {
            let link = session.link.as_ref()?;
            let mut want = None;
            let label = format!("Copy link to {place}");
            if icon_button(ui, Icon::Link, &label, Mark::Deed).clicked() {
                want = Some(Want::Copy(link.to_string(), format!("Link to {place}")));
            }
            let label = format!("Show QR code of {place}");
            if icon_button(ui, Icon::Code, &label, Mark::Deed).clicked() {
                want = Some(Want::ShowCode(link.clone()));
            }
            want
        },
    );
    want
}

/// The width of a character of an id, in points: another one at another scale of the screen.
fn id_character(ui: &Ui) -> f32 {
    const SAMPLE: &str = "0000000000";
    let font = egui::TextStyle::Monospace.resolve(ui.style());
    let sample = ui.painter().layout_no_wrap(SAMPLE.to_owned(), font, egui::Color32::WHITE);
    sample.size().x / SAMPLE.len() as f32
}

/// The session's own switches, its state, and the ways out.
fn deeds(ui: &mut Ui, session: &SessionStatus, more: More<'_>) -> Option<Want> {
    let More { scene, .. } = more;
    let palette = Palette::of(ui);
    let over = words::is_over(&session.state);
    let (left, right) = two_ended(
        ui,
        |ui| {
            let want = if over { None } else { switches(ui, session, more) };
            let want = want.or(chat(ui, session, more));
            let has_a_line = matches!(
                session.state,
                SessionState::Reconnecting { .. }
                    | SessionState::HostLost { .. }
                    | SessionState::Unreachable { .. }
            );
            if !has_a_line {
                let is_bad = matches!(session.state, SessionState::Failed(_));
                let colour = if is_bad { palette.warn } else { palette.muted };
                ui.add_space(GRID / 2.0);
                let text =
                    RichText::new(words::state(session, scene.now)).font(SMALL).color(colour);
                ui.add(Label::new(text).truncate());
            }
            want
        },
        |ui| ways_out(ui, session, more.place),
    );
    left.or(right)
}

/// End for everyone, and leave.
fn ways_out(ui: &mut Ui, session: &SessionStatus, place: &str) -> Option<Want> {
    let id = &session.session;
    let over = words::is_over(&session.state);
    let mut want = None;
    let label = format!("End {place} for everyone");
    if !over
        && session.role == Role::Opener
        && icon_button(ui, Icon::End, &label, Mark::Deed).clicked()
    {
        want = Some(Want::AskClose(id.clone()));
    }
    let (icon, label) = if over {
        (Icon::Close, format!("Remove {place} from the list"))
    } else if session.state == SessionState::Waiting {
        (Icon::Close, format!("Stop waiting for {place}"))
    } else {
        (Icon::Leave, format!("Leave {place}"))
    };
    if icon_button(ui, icon, &label, Mark::Deed).clicked() {
        want = Some(leaving(session).into());
    }
    want
}

/// What is over, or is awaited, is gone at once; what one sits in can be taken back.
fn leaving(session: &SessionStatus) -> Command {
    let id = session.session.clone();
    match &session.state {
        SessionState::Live | SessionState::Reconnecting { .. } | SessionState::HostLost { .. } => {
            Command::Depart(Departure::Leave(id))
        }
        SessionState::Connecting
        | SessionState::Unreachable { .. }
        | SessionState::Waiting
        | SessionState::Ended { .. }
        | SessionState::Failed(_) => Command::Leave { session: id },
    }
}

/// The switches of this session. One that is on but closed by that for all sessions says so:
/// nobody is to believe that he is heard.
fn switches(ui: &mut Ui, session: &SessionStatus, more: More<'_>) -> Option<Want> {
    let kind = session.kind?;
    let (id, for_all) = (&session.session, more.scene.snapshot.gates);
    let direction = kind.direction(session.role);
    let sends = matches!(direction, Direction::SendRecv | Direction::SendOnly);
    let receives = matches!(direction, Direction::SendRecv | Direction::RecvOnly);
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let all = [
        (Gate::Microphone, sends && audio, Icon::Microphone, "Microphone"),
        (Gate::Camera, sends && video, Icon::Camera, "Camera"),
        (Gate::Listening, receives && audio, Icon::Speaker, "Sound"),
    ];
    let mut want = None;
    for (gate, _, icon, name) in all.into_iter().filter(|(_, shown, ..)| *shown) {
        let open = session.gates.is_open(gate);
        let label = format!("{name} in {}", more.place);
        let tip = format!("{} in {}", words::switch(gate, open), more.place);
        let (mark, label, tip) = match (open, for_all.is_open(gate)) {
            (true, true) => (Mark::On, label, tip),
            (true, false) => (
                Mark::Overruled,
                format!("{label}, off everywhere"),
                format!("{name} is off everywhere, see the bar below. {tip}, too"),
            ),
            (false, _) => (Mark::Off, label, tip),
        };
        if icon_switch(ui, icon, (&label, &tip), mark).clicked() {
            let session = Some(id.clone());
            want = Some(Command::SetGate { session, gate, open: !open }.into());
        }
    }
    want
}

/// The way to the chat, with how much was not read there.
fn chat(ui: &mut Ui, session: &SessionStatus, more: More<'_>) -> Option<Want> {
    let More { chats, place, .. } = more;
    let id = &session.session;
    if !session.kind?.media.has(Media::Data) {
        return None;
    }
    let unread = chats.unread(id);
    let deed = if chats.is_open(id) { "Close chat in" } else { "Chat in" };
    let label = match unread {
        0 => format!("{deed} {place}"),
        _ => format!("{deed} {place}: {unread} unread"),
    };
    let clicked = icon_button(ui, Icon::Data, &label, Mark::Deed).clicked();
    if unread > 0 {
        let palette = Palette::of(ui);
        let count = if unread > 99 { "99+".to_owned() } else { unread.to_string() };
        pill(ui, &count, palette.accent, palette.on_accent);
    }
    clicked.then(|| Want::ShowChat(id.clone()))
}

/// What is wrong with the session, if something is; it has a line of its own.
fn trouble(session: &SessionStatus, now: MediaTime) -> Option<String> {
    match &session.state {
        SessionState::Failed(failure) => Some(words::sentence(&failure.message)),
        SessionState::Reconnecting { .. } | SessionState::HostLost { .. } => {
            Some(words::state(session, now))
        }
        SessionState::Unreachable { reason } => Some(words::unreachable(reason)),
        SessionState::Connecting
        | SessionState::Waiting
        | SessionState::Live
        | SessionState::Ended { .. } => None,
    }
}

/// The button that a session which is over offers: the same once more, or what works instead.
fn way_on(ui: &mut Ui, session: &SessionStatus) -> Option<Want> {
    let (label, tip, want) = correction(session).or_else(|| onward(session))?;
    ui.add_space(GRID / 2.0);
    ui.button(label).on_hover_text(tip).clicked().then_some(want)
}

/// The way to mend a link whose hub cannot be reached; only a guest has one.
fn correction(session: &SessionStatus) -> Option<(&'static str, &'static str, Want)> {
    let is_unreachable = matches!(session.state, SessionState::Unreachable { .. });
    if !is_unreachable || session.role == Role::Opener {
        return None;
    }
    let link =
        session.link.as_ref().map_or_else(|| session.session.to_string(), |link| link.to_string());
    let want = Want::EditLink { session: session.session.clone(), link };
    Some(("Edit link", "Puts the link into the box above, to be mended and joined again", want))
}

fn onward(session: &SessionStatus) -> Option<(&'static str, &'static str, Want)> {
    let failure = match &session.state {
        SessionState::Failed(failure) => Some(failure.code),
        SessionState::Ended { reason } => match reason {
            EndReason::OpenerLeft | EndReason::Closed => None,
            EndReason::Ejected => return asked_again(session, "Join again"),
            EndReason::Left | EndReason::Replaced | EndReason::Failed => return None,
        },
        SessionState::Connecting
        | SessionState::Unreachable { .. }
        | SessionState::Waiting
        | SessionState::Live
        | SessionState::HostLost { .. }
        | SessionState::Reconnecting { .. } => return None,
    };
    match (failure, session.kind) {
        (None, _) => asked_again(session, "Wait until it opens"),
        (Some(FailureCode::Hub(ErrorCode::IdTaken)), Some(kind)) => {
            let SessionKind { media, topology } = kind;
            let opening = Opening { session: None, media, topology, limit: session.limit };
            let tip = "Opens the same kind of session with a new id";
            Some(("Open with a new id", tip, Want::Open(opening)))
        }
        (Some(FailureCode::Hub(ErrorCode::NoSuchSession)), _) => {
            asked_again(session, "Wait until it opens")
        }
        (Some(_), _) => asked_again(session, "Try again"),
    }
}

/// The session once more, in this lane's place: a guest waits for it if it is not open.
fn asked_again(
    session: &SessionStatus,
    label: &'static str,
) -> Option<(&'static str, &'static str, Want)> {
    let id = session.session.clone();
    match (session.role, session.kind) {
        (Role::Guest, _) => {
            let hub = session.hub_address().cloned();
            let target = JoinTarget { session: id, hub };
            let tip = "Joins as soon as the session opens";
            Some((label, tip, Command::Join { target, wait: true }.into()))
        }
        (Role::Opener, Some(kind)) => {
            let request = OpenRequest { session: id, kind, limit: session.limit };
            Some((label, "Opens the session again", Command::Open(request).into()))
        }
        (Role::Opener, None) => None,
    }
}
