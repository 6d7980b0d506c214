//! A session card: a session with its colour, its participants and its switches.

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

/// The result of drawing a session card.
#[derive(Debug, Default)]
pub(crate) struct Drawn {
    /// The action of the user.
    pub(crate) want: Option<Want>,
    /// Whether the participant list is to be expanded or collapsed.
    pub(crate) fold: bool,
}

/// What a session card shows besides its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct More<'a> {
    /// The session's name in a sentence.
    pub(crate) place: &'a str,
    /// Whether the participant list is expanded.
    pub(crate) unfolded: bool,
    /// The chats, for the number of unread messages.
    pub(crate) chats: &'a Chats,
    /// The state of the window.
    pub(crate) scene: Scene<'a>,
}

/// Draws a session's card.
pub(crate) fn ui(ui: &mut Ui, session: &SessionStatus, card: More<'_>) -> Drawn {
    let now = card.scene.now;
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
        drawn.fold = title(ui, session, card);
        drawn.want = address(ui, session, card.place);
        let switches = deeds(ui, session, card);
        drawn.want = drawn.want.take().or(switches);
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
        let retry = way_on(ui, session);
        drawn.want = drawn.want.take().or(retry);
        if card.unfolded && !words::is_over(&session.state) {
            let participants = people::ui(ui, session, (card.place, now));
            drawn.want = drawn.want.take().or(participants);
        }
    });
    let rect = response.response.rect;
    let bar =
        Rect::from_min_size(rect.min + egui::vec2(4.0, 8.0), Vec2::new(4.0, rect.height() - 16.0));
    let colour = card.scene.colours.of(&session.session).unwrap_or(palette.line);
    ui.painter().rect_filled(bar, 2.0, colour);
    drawn
}

/// The icon of a kind of session.
pub(crate) const fn kind_icon(kind: SessionKind) -> Icon {
    let topology = kind.topology;
    match (kind.media.has(Media::Video), kind.media.has(Media::Audio)) {
        _ if matches!(topology, Topology::OneWay) => Icon::Broadcast,
        (true, _) => Icon::Camera,
        (false, true) => Icon::Microphone,
        (false, false) => Icon::Data,
    }
}

/// Draws the kind, the on-air badge and the number of participants. Returns whether the number was
/// clicked.
fn title(ui: &mut Ui, session: &SessionStatus, card: More<'_>) -> bool {
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
            !is_over && head_count(ui, present, card)
        },
    );
    fold
}

fn head_count(ui: &mut Ui, present: usize, card: More<'_>) -> bool {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(44.0, 24.0), Sense::click());
    let verb = if card.unfolded { "Hide" } else { "Show" };
    let label = format!("{verb} people in {} ({present})", card.place);
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

/// Draws the session id, and buttons for the link and its QR code.
fn address(ui: &mut Ui, session: &SessionStatus, session_name: &str) -> Option<Want> {
    let id = session.session.as_str();
    let ((), action) = two_ended(
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
            let mut action = None;
            let label = format!("Copy link to {session_name}");
            if icon_button(ui, Icon::Link, &label, Mark::Deed).clicked() {
                action = Some(Want::Copy(link.to_string(), format!("Link to {session_name}")));
            }
            let label = format!("Show QR code of {session_name}");
            if icon_button(ui, Icon::Code, &label, Mark::Deed).clicked() {
                action = Some(Want::ShowCode(link.clone()));
            }
            action
        },
    );
    action
}

/// Width of a character of a session id, in points. It depends on the scale of the screen.
fn id_character(ui: &Ui) -> f32 {
    const SAMPLE: &str = "0000000000";
    let font = egui::TextStyle::Monospace.resolve(ui.style());
    let sample = ui.painter().layout_no_wrap(SAMPLE.to_owned(), font, egui::Color32::WHITE);
    sample.size().x / SAMPLE.len() as f32
}

/// Draws the session's switches, its state, and the buttons to end and leave it.
fn deeds(ui: &mut Ui, session: &SessionStatus, card: More<'_>) -> Option<Want> {
    let More { scene: view, .. } = card;
    let palette = Palette::of(ui);
    let is_over = words::is_over(&session.state);
    let (left, right) = two_ended(
        ui,
        |ui| {
            let action = if is_over { None } else { switches(ui, session, card) };
            let action = action.or(chat(ui, session, card));
            let has_problem_row = matches!(
                session.state,
                SessionState::Reconnecting { .. }
                    | SessionState::HostLost { .. }
                    | SessionState::Unreachable { .. }
            );
            if !has_problem_row {
                let is_bad = matches!(session.state, SessionState::Failed(_));
                let colour = if is_bad { palette.warn } else { palette.muted };
                ui.add_space(GRID / 2.0);
                let text = RichText::new(words::state(session, view.now)).font(SMALL).color(colour);
                ui.add(Label::new(text).truncate());
            }
            action
        },
        |ui| ways_out(ui, session, card.place),
    );
    left.or(right)
}

/// Draws the buttons to end the session for everyone and to leave it.
fn ways_out(ui: &mut Ui, session: &SessionStatus, session_name: &str) -> Option<Want> {
    let id = &session.session;
    let is_over = words::is_over(&session.state);
    let mut action = None;
    let label = format!("End {session_name} for everyone");
    if !is_over
        && session.role == Role::Opener
        && icon_button(ui, Icon::End, &label, Mark::Deed).clicked()
    {
        action = Some(Want::AskClose(id.clone()));
    }
    let (icon, label) = if is_over {
        (Icon::Close, format!("Remove {session_name} from the list"))
    } else if session.state == SessionState::Waiting {
        (Icon::Close, format!("Stop waiting for {session_name}"))
    } else {
        (Icon::Leave, format!("Leave {session_name}"))
    };
    if icon_button(ui, icon, &label, Mark::Deed).clicked() {
        action = Some(leaving(session).into());
    }
    action
}

/// The command that leaves a session. Leaving a joined session can be undone. A session that is
/// over or not joined yet is removed at once.
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

/// Draws the mute switches of the session. A switch that is on while the global switch is off shows
/// that, so that the user does not believe to be heard or seen.
fn switches(ui: &mut Ui, session: &SessionStatus, card: More<'_>) -> Option<Want> {
    let kind = session.kind?;
    let (id, for_all) = (&session.session, card.scene.snapshot.gates);
    let direction = kind.direction(session.role);
    let sends = matches!(direction, Direction::SendRecv | Direction::SendOnly);
    let receives = matches!(direction, Direction::SendRecv | Direction::RecvOnly);
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let all = [
        (Gate::Microphone, sends && audio, Icon::Microphone, "Microphone"),
        (Gate::Camera, sends && video, Icon::Camera, "Camera"),
        (Gate::Listening, receives && audio, Icon::Speaker, "Sound"),
    ];
    let mut action = None;
    for (gate, _, icon, name) in all.into_iter().filter(|(_, shown, ..)| *shown) {
        let open = session.gates.is_open(gate);
        let label = format!("{name} in {}", card.place);
        let tip = format!("{} in {}", words::switch(gate, open), card.place);
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
            action = Some(Command::SetGate { session, gate, open: !open }.into());
        }
    }
    action
}

/// Draws the chat button with the number of unread messages.
fn chat(ui: &mut Ui, session: &SessionStatus, card: More<'_>) -> Option<Want> {
    let More { chats, place: session_name, .. } = card;
    let id = &session.session;
    if !session.kind?.media.has(Media::Data) {
        return None;
    }
    let unread = chats.unread(id);
    let verb = if chats.is_open(id) { "Close chat in" } else { "Chat in" };
    let label = match unread {
        0 => format!("{verb} {session_name}"),
        _ => format!("{verb} {session_name}: {unread} unread"),
    };
    let clicked = icon_button(ui, Icon::Data, &label, Mark::Deed).clicked();
    if unread > 0 {
        let palette = Palette::of(ui);
        let count = if unread > 99 { "99+".to_owned() } else { unread.to_string() };
        pill(ui, &count, palette.accent, palette.on_accent);
    }
    clicked.then(|| Want::ShowChat(id.clone()))
}

/// The session's problem, if it has one. It is shown in a row of its own.
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

/// Draws the button of a session that is over or unreachable: retry, or an alternative.
fn way_on(ui: &mut Ui, session: &SessionStatus) -> Option<Want> {
    let (label, tip, action) = correction(session).or_else(|| onward(session))?;
    ui.add_space(GRID / 2.0);
    ui.button(label).on_hover_text(tip).clicked().then_some(action)
}

/// The button that edits a guest's link while its hub is unreachable.
fn correction(session: &SessionStatus) -> Option<(&'static str, &'static str, Want)> {
    let is_unreachable = matches!(session.state, SessionState::Unreachable { .. });
    if !is_unreachable || session.role == Role::Opener {
        return None;
    }
    let link =
        session.link.as_ref().map_or_else(|| session.session.to_string(), |link| link.to_string());
    let action = Want::EditLink { session: session.session.clone(), link };
    Some(("Edit link", "Puts the link into the box above, to be mended and joined again", action))
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

/// The button that joins or opens the session again, on the same card. A guest waits until the
/// session opens.
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
