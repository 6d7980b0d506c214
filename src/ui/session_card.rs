//! A session card: a session with its colour, its participants and its switches.

use eframe::egui::{self, Frame, Label, Margin, Rect, RichText, Sense, Ui, Vec2};

use super::{
    action::{Action, NewSession},
    chat::Chats,
    icons::{Icon, IconState, icon_button, icon_switch},
    labels, participants, session_menu,
    sessions::{badge, split_row},
    switches::SwitchStyle,
    theme::{CORNER, GRID, Palette, SMALL},
    view_state::ViewState,
};
use crate::model::{
    Command, Departure, Direction, EndReason, ErrorCode, FailureCode, HubOwner, JoinTarget, Media,
    MediaTime, MuteSwitch, OpenRequest, Role, SessionKind, SessionState, SessionStatus, Source,
    Topology,
};
use crate::wording;

/// The result of drawing a session card.
#[derive(Debug, Default)]
pub(crate) struct CardOutput {
    /// The action of the user.
    pub(crate) action: Option<Action>,
    /// Whether the participant list is to be expanded or collapsed.
    pub(crate) toggles_people: bool,
}

/// What a session card shows besides its session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CardContext<'a> {
    /// The session's name in a sentence.
    pub(crate) session_name: &'a str,
    /// Whether the participant list is expanded.
    pub(crate) is_expanded: bool,
    /// The chats, for the number of unread messages.
    pub(crate) chats: &'a Chats,
    /// The state of the window.
    pub(crate) view: ViewState<'a>,
}

/// Draws a session's card.
pub(crate) fn ui(ui: &mut Ui, session: &SessionStatus, card: CardContext<'_>) -> CardOutput {
    let now = card.view.now;
    let palette = Palette::of(ui);
    let mut drawn = CardOutput::default();
    let frame = Frame::new().fill(palette.base).corner_radius(CORNER).inner_margin(Margin {
        left: 14,
        right: 6,
        top: 4,
        bottom: 4,
    });
    let response = frame.show(ui, |ui| {
        ui.spacing_mut().item_spacing = egui::vec2(GRID / 2.0, 0.0);
        ui.set_width(ui.available_width());
        drawn.toggles_people = title(ui, session, card);
        drawn.action = link_row(ui, session, card.session_name);
        let switches = switches_row(ui, session, card);
        drawn.action = drawn.action.take().or(switches);
        if let Some(message) = problem(session, now) {
            let text = RichText::new(message).small().color(palette.warn);
            ui.add(Label::new(text).wrap());
        }
        if let Some(hub) = session.hub.as_ref().filter(|hub| hub.owner == HubOwner::Unproven) {
            let text = RichText::new(labels::hub(hub)).small().color(palette.warn);
            ui.add(Label::new(text).wrap());
        }
        if session.state == SessionState::Waiting {
            let text = RichText::new(labels::waiting_hint(session)).small().weak();
            ui.add(Label::new(text).wrap());
        }
        let retry = retry_button(ui, session);
        drawn.action = drawn.action.take().or(retry);
        if card.is_expanded && !labels::is_over(&session.state) {
            let participants = participants::ui(ui, session, (card.session_name, now));
            drawn.action = drawn.action.take().or(participants);
        }
    });
    let rect = response.response.rect;
    let bar =
        Rect::from_min_size(rect.min + egui::vec2(4.0, 8.0), Vec2::new(4.0, rect.height() - 16.0));
    let colour = card.view.colours.get(&session.session).unwrap_or(palette.line);
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
fn title(ui: &mut Ui, session: &SessionStatus, card: CardContext<'_>) -> bool {
    let palette = Palette::of(ui);
    let present = labels::present_count(session);
    let name = session.kind.map_or_else(|| "Session".to_owned(), labels::kind);
    let ((), fold) = split_row(
        ui,
        |ui| {
            if let Some(kind) = session.kind {
                let (rect, _) = ui.allocate_exact_size(Vec2::splat(16.0), Sense::hover());
                kind_icon(kind).paint(ui.painter(), rect, palette.text);
            }
            ui.add(Label::new(&name).truncate());
        },
        |ui| {
            if session.sending.any() {
                let mark = badge(ui, "ON AIR", palette.on_air, palette.on_on_air);
                mark.on_hover_text(match (session.sending.microphone, session.sending.camera) {
                    (true, true) => "People here can hear and see you",
                    (true, false) => "People here can hear you",
                    (false, _) => "People here can see you",
                });
            }
            let is_over = labels::is_over(&session.state);
            !is_over && head_count(ui, present, card)
        },
    );
    fold
}

fn head_count(ui: &mut Ui, present: usize, card: CardContext<'_>) -> bool {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(44.0, 24.0), Sense::click());
    let verb = if card.is_expanded { "Hide" } else { "Show" };
    let label = format!("{verb} people in {} ({present})", card.session_name);
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
fn link_row(ui: &mut Ui, session: &SessionStatus, session_name: &str) -> Option<Action> {
    let id = session.session.as_str();
    let ((), action) = split_row(
        ui,
        |ui| {
            let room = ui.available_width();
            let short = labels::elide_middle(id, (room / id_character_width(ui)).max(5.0) as usize);
            let text = RichText::new(short).monospace().color(Palette::of(ui).muted);
            let shown = ui.add(Label::new(text).truncate().show_tooltip_when_elided(false));
            shown.on_hover_text(match &session.hub {
                Some(hub) => format!("{id}\n{}", labels::hub(hub)),
                None => id.to_owned(),
            });
        },
        |ui| {
            let mut action = session_menu::ui(ui, session, session_name);
            let Some(link) = session.link.as_ref() else { return action };
            let label = format!("Copy link to {session_name}");
            if icon_button(ui, Icon::Link, &label, IconState::Plain).clicked() {
                action = Some(Action::Copy(link.to_string(), format!("Link to {session_name}")));
            }
            let label = format!("Show QR code of {session_name}");
            if icon_button(ui, Icon::Code, &label, IconState::Plain).clicked() {
                action = Some(Action::ShowQrCode(link.clone()));
            }
            action
        },
    );
    action
}

/// Width of a character of a session id, in points. It depends on the scale of the screen.
fn id_character_width(ui: &Ui) -> f32 {
    const SAMPLE: &str = "0000000000";
    let font = egui::TextStyle::Monospace.resolve(ui.style());
    let sample = ui.painter().layout_no_wrap(SAMPLE.to_owned(), font, egui::Color32::WHITE);
    sample.size().x / SAMPLE.len() as f32
}

/// Draws the session's switches, its state, and the buttons to end and leave it.
fn switches_row(ui: &mut Ui, session: &SessionStatus, card: CardContext<'_>) -> Option<Action> {
    let CardContext { view, .. } = card;
    let palette = Palette::of(ui);
    let is_over = labels::is_over(&session.state);
    let (left, right) = split_row(
        ui,
        |ui| {
            let action = if is_over { None } else { mute_switches(ui, session, card) };
            let action = action.or(chat_button(ui, session, card));
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
                let text =
                    RichText::new(labels::state(session, view.now)).font(SMALL).color(colour);
                ui.add(Label::new(text).truncate());
            }
            action
        },
        |ui| exit_buttons(ui, session, card.session_name),
    );
    left.or(right)
}

/// Draws the buttons to end the session for everyone and to leave it.
fn exit_buttons(ui: &mut Ui, session: &SessionStatus, session_name: &str) -> Option<Action> {
    let id = &session.session;
    let is_over = labels::is_over(&session.state);
    let mut action = None;
    let label = format!("End {session_name} for everyone");
    if !is_over
        && session.role == Role::Opener
        && icon_button(ui, Icon::End, &label, IconState::Plain).clicked()
    {
        action = Some(Action::ConfirmClose(id.clone()));
    }
    let (icon, label) = if is_over {
        (Icon::Close, format!("Remove {session_name} from the list"))
    } else if session.state == SessionState::Waiting {
        (Icon::Close, format!("Stop waiting for {session_name}"))
    } else {
        (Icon::Leave, format!("Leave {session_name}"))
    };
    if icon_button(ui, icon, &label, IconState::Plain).clicked() {
        action = Some(leave_command(session).into());
    }
    action
}

/// The command that leaves a session. Leaving a joined session can be undone. A session that is
/// over or not joined yet is removed at once.
fn leave_command(session: &SessionStatus) -> Command {
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
fn mute_switches(ui: &mut Ui, session: &SessionStatus, card: CardContext<'_>) -> Option<Action> {
    let kind = session.kind?;
    let (id, for_all) = (&session.session, card.view.snapshot.enabled);
    let direction = kind.direction(session.role);
    let sends = matches!(direction, Direction::SendRecv | Direction::SendOnly);
    let receives = matches!(direction, Direction::SendRecv | Direction::RecvOnly);
    let sent = Source::SECTIONS.into_iter().filter(|one| sends && kind.media.has(one.media()));
    let heard = (receives && kind.media.has(Media::Audio)).then_some(MuteSwitch::Listening);
    let mut action = None;
    for switch in sent.map(MuteSwitch::Source).chain(heard) {
        let (open, style) = (session.enabled.has(switch), SwitchStyle::of(switch));
        let name = style.name;
        let label = format!("{name} in {}", card.session_name);
        let tip = format!("{} in {}", style.action(open), card.session_name);
        let (mark, label, tip) = match (open, for_all.has(switch)) {
            (true, true) => (IconState::On, label, tip),
            (true, false) => (
                IconState::Overruled,
                format!("{label}, off everywhere"),
                format!("{name} is off everywhere, see the bar below. {tip}, too"),
            ),
            (false, _) => (IconState::Off, label, tip),
        };
        if icon_switch(ui, style.icon, (&label, &tip), mark).clicked() {
            let session = Some(id.clone());
            action = Some(Command::SetEnabled { session, switch, enabled: !open }.into());
        }
    }
    action
}

/// Draws the chat button with the number of unread messages.
fn chat_button(ui: &mut Ui, session: &SessionStatus, card: CardContext<'_>) -> Option<Action> {
    let CardContext { chats, session_name, .. } = card;
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
    let clicked = icon_button(ui, Icon::Data, &label, IconState::Plain).clicked();
    if unread > 0 {
        let palette = Palette::of(ui);
        let count = if unread > 99 { "99+".to_owned() } else { unread.to_string() };
        badge(ui, &count, palette.accent, palette.on_accent);
    }
    clicked.then(|| Action::ToggleChat(id.clone()))
}

/// The session's problem, if it has one. It is shown in a row of its own.
fn problem(session: &SessionStatus, now: MediaTime) -> Option<String> {
    match &session.state {
        SessionState::Failed(failure) => Some(labels::sentence(&wording::failure(failure))),
        SessionState::Reconnecting { .. } | SessionState::HostLost { .. } => {
            Some(labels::state(session, now))
        }
        SessionState::Unreachable { reason } => Some(labels::unreachable(reason)),
        SessionState::Connecting
        | SessionState::Waiting
        | SessionState::Live
        | SessionState::Ended { .. } => None,
    }
}

/// Draws the button of a session that is over or unreachable: retry, or an alternative.
fn retry_button(ui: &mut Ui, session: &SessionStatus) -> Option<Action> {
    let (label, tip, action) = edit_link_offer(session).or_else(|| retry_offer(session))?;
    ui.add_space(GRID / 2.0);
    ui.button(label).on_hover_text(tip).clicked().then_some(action)
}

/// The button that edits a guest's link while its hub is unreachable.
fn edit_link_offer(session: &SessionStatus) -> Option<(&'static str, &'static str, Action)> {
    let is_unreachable = matches!(session.state, SessionState::Unreachable { .. });
    if !is_unreachable || session.role == Role::Opener {
        return None;
    }
    let link =
        session.link.as_ref().map_or_else(|| session.session.to_string(), |link| link.to_string());
    let action = Action::EditLink { session: session.session.clone(), link };
    Some(("Edit link", "Puts the link into the box above, to be mended and joined again", action))
}

fn retry_offer(session: &SessionStatus) -> Option<(&'static str, &'static str, Action)> {
    let failure = match &session.state {
        SessionState::Failed(failure) => Some(failure.code()),
        SessionState::Ended { reason } => match reason {
            EndReason::OpenerLeft | EndReason::Closed => None,
            EndReason::Ejected => return retry(session, "Join again"),
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
        (None, _) => retry(session, "Wait until it opens"),
        (Some(FailureCode::Hub(ErrorCode::IdTaken)), Some(kind)) => {
            let SessionKind { media, topology } = kind;
            let opening = NewSession { session: None, media, topology, limit: session.limit };
            let tip = "Opens the same kind of session with a new id";
            Some(("Open with a new id", tip, Action::Open(opening)))
        }
        (Some(FailureCode::Hub(ErrorCode::NoSuchSession)), _) => {
            retry(session, "Wait until it opens")
        }
        (Some(_), _) => retry(session, "Try again"),
    }
}

/// The button that joins or opens the session again, on the same card. A guest waits until the
/// session opens.
fn retry(
    session: &SessionStatus,
    label: &'static str,
) -> Option<(&'static str, &'static str, Action)> {
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
