//! The people of a lane: who is there, how each one is, and the way out for them.

use eframe::egui::{Button, RichText, Sense, Ui, Vec2};

use super::{
    bidi,
    icons::{Icon, Mark, icon_button},
    sessions::two_ended,
    theme::{GRID, Palette, SMALL},
    want::Want,
    words,
};
use crate::model::{
    Command, Media, MediaTime, ParticipantStatus, RemovedPerson, Role, SessionState, SessionStatus,
    Topology, confusable,
};

/// Draws everybody of a session.
///
/// `place` is what the session is called in a sentence.
pub(crate) fn ui(
    ui: &mut Ui,
    session: &SessionStatus,
    (place, now): (&str, MediaTime),
) -> Option<Want> {
    let mut want = None;
    ui.add_space(GRID / 2.0);
    if session.participants.is_empty() {
        ui.label(RichText::new("Nobody else is here.").small().weak());
    }
    let names: Vec<_> = session.participants.iter().map(|one| one.name.as_str()).collect();
    for (person, is_confusable) in session.participants.iter().zip(confusable(&names)) {
        let name = label(person, is_confusable);
        want = want.or(one_person(ui, (session, place), (person, &name, now)));
    }
    for person in &session.removed {
        want = want.or(kept_out(ui, session, person));
    }
    want.or(lock(ui, (session, place)))
}

/// How a person is called: with the beginning of the id, if somebody else's name looks the same.
fn label(person: &ParticipantStatus, is_confusable: bool) -> String {
    let mark: String = person.participant.as_str().chars().take(MARK).collect();
    if is_confusable { format!("{} ({mark})", person.name) } else { person.name.clone() }
}

/// So many characters of an id tell two people apart.
const MARK: usize = 4;

/// Somebody whom we removed, and the way back in.
fn kept_out(ui: &mut Ui, session: &SessionStatus, person: &RemovedPerson) -> Option<Want> {
    let palette = Palette::of(ui);
    let ((), want) = two_ended(
        ui,
        |ui| {
            ui.add(bidi::truncated(ui, &person.name, (SMALL, palette.muted)));
        },
        |ui| {
            let tip = format!("Let {} join again", bidi::isolated(&person.name));
            let allow = ui.add(button("Allow again")).on_hover_text(tip);
            ui.label(RichText::new("removed").font(SMALL).color(palette.muted));
            allow.clicked().then(|| {
                let (session, participant) = (session.session.clone(), person.participant.clone());
                Command::Allow { session, participant }.into()
            })
        },
    );
    want
}

/// The host's way to let nobody new in, or everybody again.
fn lock(ui: &mut Ui, (session, place): (&SessionStatus, &str)) -> Option<Want> {
    if session.role != Role::Opener || session.state != SessionState::Live {
        return None;
    }
    let (deed, tip) = match session.locked {
        true => (format!("Unlock {place}"), "Let people join again"),
        false => (format!("Lock {place}"), "Let nobody new join"),
    };
    let is_clicked = ui.add(button(&deed)).on_hover_text(tip).clicked();
    ui.add_space(GRID / 2.0);
    is_clicked
        .then(|| Command::Lock { session: session.session.clone(), locked: !session.locked }.into())
}

/// A button that is no higher than a line of the list.
fn button(text: &str) -> Button<'_> {
    Button::new(RichText::new(text).font(SMALL)).min_size(Vec2::new(0.0, 22.0))
}

fn one_person(
    ui: &mut Ui,
    (session, place): (&SessionStatus, &str),
    (person, name, now): (&ParticipantStatus, &str, MediaTime),
) -> Option<Want> {
    let palette = Palette::of(ui);
    let ((), want) = two_ended(
        ui,
        |ui| {
            switched_off(ui, session, person);
            let style = (SMALL, ui.visuals().text_color());
            ui.add(bidi::truncated(ui, name, style));
        },
        |ui| {
            let state = words::participant(person, now);
            if !state.is_empty() {
                ui.label(RichText::new(state).font(SMALL).color(palette.muted));
            }
            remove(ui, (session, place), (person, name))
        },
    );
    want
}

fn remove(
    ui: &mut Ui,
    (session, place): (&SessionStatus, &str),
    (person, name): (&ParticipantStatus, &str),
) -> Option<Want> {
    if session.role != Role::Opener || words::is_over(&session.state) {
        return None;
    }
    let label = format!("Remove {} from {place}", bidi::isolated(name));
    icon_button(ui, Icon::SendOut, &label, Mark::Deed).clicked().then(|| {
        let (session, participant) = (session.session.clone(), person.participant.clone());
        Want::AskEject { session, participant, name: name.to_owned() }
    })
}

/// Struck icons of what the person could send and does not.
fn switched_off(ui: &mut Ui, session: &SessionStatus, person: &ParticipantStatus) {
    let palette = Palette::of(ui);
    let sends = session.kind.is_some_and(|kind| kind.topology != Topology::OneWay)
        || person.role == Role::Opener;
    let media = session.kind.map(|kind| kind.media);
    let all = [
        (Media::Audio, person.microphone, Icon::Microphone),
        (Media::Video, person.camera, Icon::Camera),
    ];
    let is_off = |medium: Media, on: bool| sends && !on && media.is_some_and(|set| set.has(medium));
    for (medium, _, icon) in all.into_iter().filter(|(medium, on, _)| is_off(*medium, *on)) {
        let (rect, response) = ui.allocate_exact_size(Vec2::splat(14.0), Sense::hover());
        icon.paint(ui.painter(), rect, palette.warn);
        Icon::strike(ui.painter(), rect, palette.warn, palette.base);
        response.on_hover_text(match medium {
            Media::Audio => "Microphone off",
            Media::Video => "Camera off",
            Media::Data => "Chat off",
        });
    }
}
