//! The participants of a session card: their states, and the buttons to eject or re-admit them.

use eframe::egui::{Button, RichText, Sense, Ui, Vec2};

use super::{
    action::Action,
    bidi,
    icons::{Icon, IconState, icon_button},
    labels,
    sessions::split_row,
    switches::SwitchStyle,
    theme::{GRID, Palette, SMALL},
};
use crate::model::{
    Command, MediaTime, MuteSwitch, ParticipantStatus, RemovedParticipant, Role, SessionState,
    SessionStatus, Source, Topology, confusable,
};

/// Draws the participants of a session.
///
/// `session_name` is the session's name in a sentence.
pub(crate) fn ui(
    ui: &mut Ui,
    session: &SessionStatus,
    (session_name, now): (&str, MediaTime),
) -> Option<Action> {
    let mut action = None;
    ui.add_space(GRID / 2.0);
    if session.participants.is_empty() {
        ui.label(RichText::new("Nobody else is here.").small().weak());
    }
    let names: Vec<_> = session.participants.iter().map(|one| one.name.as_str()).collect();
    for (participant, is_confusable) in session.participants.iter().zip(confusable(&names)) {
        let name = distinct_name(participant, is_confusable);
        action = action.or(participant_row(ui, (session, session_name), (participant, &name, now)));
    }
    for participant in &session.removed {
        action = action.or(removed_row(ui, session, participant));
    }
    action.or(bottom_buttons(ui, (session, session_name)))
}

/// A participant's name, followed by the start of the id if another name looks the same.
fn distinct_name(participant: &ParticipantStatus, is_confusable: bool) -> String {
    let mark: String = participant.participant.as_str().chars().take(ID_PREFIX_CHARS).collect();
    if is_confusable { format!("{} ({mark})", participant.name) } else { participant.name.clone() }
}

/// Number of id characters that distinguish two participants.
const ID_PREFIX_CHARS: usize = 4;

/// Draws a participant that was ejected, with a button to allow it again.
fn removed_row(
    ui: &mut Ui,
    session: &SessionStatus,
    participant: &RemovedParticipant,
) -> Option<Action> {
    let palette = Palette::of(ui);
    let ((), action) = split_row(
        ui,
        |ui| {
            ui.add(bidi::truncated(ui, &participant.name, (SMALL, palette.muted)));
        },
        |ui| {
            let tip = format!("Let {} join again", bidi::isolated(&participant.name));
            let allow = ui.add(list_button("Allow again")).on_hover_text(tip);
            ui.label(RichText::new("removed").font(SMALL).color(palette.muted));
            allow.clicked().then(|| {
                let (session, participant) =
                    (session.session.clone(), participant.participant.clone());
                Command::Allow { session, participant }.into()
            })
        },
    );
    action
}

/// Draws the buttons below the participants.
fn bottom_buttons(ui: &mut Ui, (session, session_name): (&SessionStatus, &str)) -> Option<Action> {
    let action = ui.horizontal(|ui| {
        let lock = lock_button(ui, (session, session_name));
        let tip = "How well everybody is connected: rates, losses and delays";
        let is_clicked = ui.add(list_button("Statistics")).on_hover_text(tip).clicked();
        lock.or(is_clicked.then_some(Action::ToggleStatistics))
    });
    ui.add_space(GRID / 2.0);
    action.inner
}

/// Draws the host's button that locks or unlocks the session.
fn lock_button(ui: &mut Ui, (session, session_name): (&SessionStatus, &str)) -> Option<Action> {
    if session.role != Role::Opener || session.state != SessionState::Live {
        return None;
    }
    let (label, tip) = match session.locked {
        true => (format!("Unlock {session_name}"), "Let people join again"),
        false => (format!("Lock {session_name}"), "Let nobody new join"),
    };
    let is_clicked = ui.add(list_button(&label)).on_hover_text(tip).clicked();
    is_clicked
        .then(|| Command::Lock { session: session.session.clone(), locked: !session.locked }.into())
}

/// A button as high as a row of the list.
fn list_button(text: &str) -> Button<'_> {
    Button::new(RichText::new(text).font(SMALL)).min_size(Vec2::new(0.0, 22.0))
}

fn participant_row(
    ui: &mut Ui,
    (session, session_name): (&SessionStatus, &str),
    (participant, name, now): (&ParticipantStatus, &str, MediaTime),
) -> Option<Action> {
    let palette = Palette::of(ui);
    let ((), action) = split_row(
        ui,
        |ui| {
            muted_icons(ui, session, participant);
            let style = (SMALL, ui.visuals().text_color());
            ui.add(bidi::truncated(ui, name, style));
        },
        |ui| {
            let state = labels::participant_state(participant, now);
            if !state.is_empty() {
                ui.label(RichText::new(state).font(SMALL).color(palette.muted));
            }
            remove_button(ui, (session, session_name), (participant, name))
        },
    );
    action
}

fn remove_button(
    ui: &mut Ui,
    (session, session_name): (&SessionStatus, &str),
    (participant, name): (&ParticipantStatus, &str),
) -> Option<Action> {
    if session.role != Role::Opener || labels::is_over(&session.state) {
        return None;
    }
    let label = format!("Remove {} from {session_name}", bidi::isolated(name));
    icon_button(ui, Icon::Eject, &label, IconState::Plain).clicked().then(|| {
        let (session, participant) = (session.session.clone(), participant.participant.clone());
        Action::ConfirmEject { session, participant, name: name.to_owned() }
    })
}

/// Draws struck-through icons of the sources that the participant could send but does not.
fn muted_icons(ui: &mut Ui, session: &SessionStatus, participant: &ParticipantStatus) {
    let palette = Palette::of(ui);
    let sends = session.kind.is_some_and(|kind| kind.topology != Topology::OneWay)
        || participant.role == Role::Opener;
    let is_off = |source: &Source| {
        let has_medium = session.kind.is_some_and(|kind| kind.media.has(source.media()));
        sends && has_medium && !participant.sends[*source]
    };
    for source in Source::SECTIONS.into_iter().filter(is_off) {
        let style = SwitchStyle::of(MuteSwitch::Source(source));
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(14.0), Sense::hover());
        style.icon.paint(ui.painter(), rect, palette.warn);
        Icon::strike_through(ui.painter(), rect, palette.warn, palette.base);
        response.on_hover_text(format!("{} off", style.name));
    }
}
