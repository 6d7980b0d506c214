//! What happened: errors that stay until they are read, and toasts that pass.

pub(crate) mod people;

use std::collections::{BTreeSet, VecDeque};

use eframe::egui::{
    self, Align2, Area, Context, Frame, Id, Label, Margin, Rect, RichText, ScrollArea, Sense, Ui,
    Vec2,
};

use super::{
    bidi,
    colours::Colours,
    focus,
    icons::{Icon, Mark, icon_button},
    scene::Scene,
    sessions::two_ended,
    theme::{CORNER, GRID, Palette, SMALL},
    want::Want,
    words,
};
use people::Changed;

use crate::model::{
    Command, DepartureStatus, EndReason, Event, Failure, FailureCode, MediaTime, ParticipantId,
    ParticipantState, Role, SessionId, SessionState, Snapshot,
};

/// How long a toast stays, in seconds: two lines are read in three.
const TOAST: f64 = 5.0;

/// Toasts at once; older ones give way, as everything they tell can be seen elsewhere too.
const TOASTS: usize = 4;

/// Errors at once; the oldest give way, for nobody reads fifty.
const ERRORS: usize = 50;

/// How high the errors are together at most, in points; more are scrolled to.
const ERRORS_HEIGHT: f32 = 144.0;

/// How wide toasts are at most, in points.
const WIDTH: f32 = 400.0;

/// How much of what somebody writes a toast shows, in characters: a line or two.
const GLIMPSE: usize = 60;

/// What happened and is to be told.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    errors: Vec<String>,
    toasts: VecDeque<Toast>,
    /// Errors about people who are not connected yet, with their session.
    unconnected: Vec<(SessionId, String)>,
    /// Who was told to have lost connection, and where.
    lost: BTreeSet<(SessionId, ParticipantId)>,
    /// Who was in a session when we came.
    met: BTreeSet<(SessionId, ParticipantId)>,
}

#[derive(Debug)]
struct Toast {
    text: String,
    session: Option<SessionId>,
    about: About,
    /// In seconds of the window's clock.
    until: f64,
}

/// What a toast tells: later ones of its kind take its place or are added to it.
#[derive(Debug)]
enum About {
    /// Something of its own.
    Itself,
    /// What was written in a session.
    Chat,
    /// What happened to people.
    People(Changed),
}

impl Notices {
    /// Takes an event in.
    pub(crate) fn note(&mut self, event: &Event, snapshot: &Snapshot, now: f64) {
        if let Event::Ended { session, .. } = event {
            self.lost.retain(|(of, _)| of != session);
            self.met.retain(|(of, _)| of != session);
            self.unconnected.retain(|(of, _)| of != session);
        }
        if is_of_departing(event, snapshot) {
            return;
        }
        match event {
            // The local panel says what is wrong with a device as long as it is.
            Event::Failed(failure) if matches!(failure.code, FailureCode::Device(_)) => {}
            // A lane says what is wrong with its session as long as it is so.
            Event::Failed(failure) if is_in_lane(failure, snapshot) => {}
            Event::Failed(failure) if matches!(failure.code, FailureCode::Connection(_)) => {
                let about = failure.session.clone();
                self.unconnected.extend(about.map(|session| (session, failure.message.clone())));
                self.error(failure.message.clone());
            }
            Event::Failed(failure) => self.error(failure.message.clone()),
            Event::Participant { session, participant, name, state, reason } => {
                if *state == ParticipantState::Live {
                    self.forget_unconnected(session, name);
                }
                let who = (participant.clone(), name.clone());
                if let Some(change) = self.change(session, participant, (*state, *reason)) {
                    self.people(change, who, (snapshot, session), now);
                }
            }
            Event::Joined { session, .. } => self.arrived(snapshot, session, now),
            Event::Ended { session, reason } => match reason {
                EndReason::Left | EndReason::Failed => {}
                // We closed it: nobody else could, and it has no lane any more.
                EndReason::Closed if !is_others(snapshot, session) => {}
                EndReason::OpenerLeft
                | EndReason::Closed
                | EndReason::Ejected
                | EndReason::Replaced => {
                    let place = words::place(snapshot, session);
                    let text = format!("{place}: {}", words::end(*reason));
                    self.toast(text, Some(session), now);
                }
            },
            Event::Message { session, name, text, .. } => {
                let text = words::first_words(text.as_str(), GLIMPSE);
                let (name, text) = (bidi::isolated(name), bidi::isolated(&text));
                let text = format!("{name} in {}: {text}", words::place(snapshot, session));
                self.said(text, session, now);
            }
            Event::LeftOut { session, message, .. } => {
                self.toast(words::sentence(message), Some(session), now);
            }
            Event::LinkChanged { session, .. } => {
                let place = words::the_place(snapshot, session);
                let text = format!(
                    "This computer's address changed: {place} has a new link. Copy it again for \
                     people who have not joined yet."
                );
                self.toast(text, Some(session), now);
            }
            // The lanes say how their hub is; when it is back is news.
            Event::HubBack { .. } => self.toast("The hub is back".to_owned(), None, now),
            Event::HubLost { .. }
            | Event::Listening { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            // Tiles and lists show it.
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            // The chat shows it.
            | Event::Said { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Takes back what was told of somebody who had no connection and has one now.
    fn forget_unconnected(&mut self, session: &SessionId, name: &str) {
        let is_past = |(of, text): &(SessionId, String)| of == session && text.contains(name);
        let errors = &mut self.errors;
        self.unconnected.retain(|one| {
            if is_past(one) {
                errors.retain(|error| *error != one.1);
            }
            !is_past(one)
        });
    }

    /// Tells an error until it is read.
    ///
    /// One that is told already is not told twice.
    pub(crate) fn error(&mut self, message: String) {
        if !self.errors.contains(&message) {
            self.errors.push(message);
        }
        if self.errors.len() > ERRORS {
            self.errors.remove(0);
        }
    }

    /// Tells something in passing.
    pub(crate) fn toast(&mut self, text: String, session: Option<&SessionId>, now: f64) {
        self.push(Toast {
            text,
            session: session.cloned(),
            about: About::Itself,
            until: now + TOAST,
        });
    }

    /// Tells what was written in a session, in place of what was written there before.
    fn said(&mut self, text: String, session: &SessionId, now: f64) {
        let is_chat = |toast: &Toast| {
            matches!(toast.about, About::Chat) && toast.session.as_ref() == Some(session)
        };
        self.toasts.retain(|toast| !is_chat(toast));
        let session = Some(session.clone());
        self.push(Toast { text, session, about: About::Chat, until: now + TOAST });
    }

    fn push(&mut self, toast: Toast) {
        // What is told once more is told anew, not twice.
        self.toasts.retain(|old| (&old.text, &old.session) != (&toast.text, &toast.session));
        if self.toasts.len() == TOASTS {
            self.toasts.pop_front();
        }
        self.toasts.push_back(toast);
    }

    /// Forgets the error at that place: it was read.
    pub(crate) fn dismiss(&mut self, index: usize) {
        if index < self.errors.len() {
            self.errors.remove(index);
        }
    }

    /// Draws the errors, newest first, in front of the upper end of what is there: nothing moves
    /// when they come and go.
    pub(crate) fn errors(&self, ui: &mut Ui) -> Option<Want> {
        if self.errors.is_empty() {
            return None;
        }
        let room = ui.available_rect_before_wrap();
        let area = Area::new(Id::unique("errors")).fixed_pos(room.left_top());
        let drawn = area.show(ui.ctx(), |ui| {
            ui.set_width(room.width());
            let scroll = ScrollArea::vertical().max_height(ERRORS_HEIGHT);
            let scrolled = scroll.auto_shrink([false, true]).show(ui, |ui| {
                let mut want = None;
                for (index, text) in self.errors.iter().enumerate().rev() {
                    if error(ui, text) {
                        want = Some(Want::Dismiss(index));
                    }
                }
                focus::follow(ui);
                want
            });
            scrolled.inner
        });
        drawn.inner
    }

    /// Draws the toasts in front of that side of what is there, which keeps its place when they come
    /// and go. A click takes one away. What is being left comes last, with the way back.
    pub(crate) fn toasts(
        &mut self,
        ctx: &Context,
        scene: Scene<'_>,
        (room, side): (Rect, Align2),
    ) -> Option<Want> {
        let departure = scene.snapshot.departure.as_ref();
        if !self.has_toasts(ctx) && departure.is_none() {
            return None;
        }
        let area = Area::new(Id::unique("toasts")).pivot(side);
        let drawn = area.fixed_pos(side.pos_in_rect(&room)).show(ctx, |ui| {
            ui.set_max_width(room.width().min(WIDTH));
            ui.spacing_mut().item_spacing.y = GRID / 2.0;
            self.toasts.retain(|toast| {
                let rect = toast.draw(ui, scene.colours);
                // Not for the keyboard: it goes by itself.
                !ui.interact(rect, ui.next_auto_id(), Sense::CLICK).clicked()
            });
            departure.and_then(|departure| undo(ui, departure, scene.now))
        });
        drawn.inner
    }

    /// Whether there is a toast still to be seen; the window wakes when that changes.
    fn has_toasts(&mut self, ctx: &Context) -> bool {
        let now = ctx.input(|input| input.time);
        self.toasts.retain(|toast| toast.until > now);
        let Some(first) = self.toasts.front() else { return false };
        let wait = std::time::Duration::from_secs_f64((first.until - now).max(0.0) + 0.01);
        ctx.request_repaint_after(wait);
        true
    }
}

/// Draws what is being left, and for how long that can be undone.
fn undo(ui: &mut Ui, departure: &DepartureStatus, now: MediaTime) -> Option<Want> {
    let palette = Palette::of(ui);
    let frame = Frame::popup(ui.style()).inner_margin(Margin::symmetric(8, 4));
    let drawn = frame.fill(palette.control).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let seconds = departure.until.since(now).as_secs_f32().ceil();
        let (_, want) = two_ended(
            ui,
            |ui| ui.add(Label::new(RichText::new(words::departed(departure)).small()).wrap()),
            |ui| {
                let undo = ui.button(format!("Undo ({seconds} s)")).clicked();
                let confirm = icon_button(ui, Icon::Close, "Do not undo", Mark::Deed).clicked();
                match (undo, confirm) {
                    (true, _) => Some(Want::Command(Command::Undo)),
                    (false, true) => Some(Want::Command(Command::Confirm)),
                    (false, false) => None,
                }
            },
        );
        want
    });
    drawn.inner
}

/// Draws an error; whether it was dismissed.
fn error(ui: &mut Ui, text: &str) -> bool {
    let palette = Palette::of(ui);
    let frame = Frame::popup(ui.style())
        .fill(palette.panel)
        .stroke(egui::Stroke::new(1.0, palette.on_air))
        .corner_radius(CORNER)
        .inner_margin(Margin::symmetric(12, 4));
    let drawn = frame.show(ui, |ui| {
        let (_, dismissed) = two_ended(
            ui,
            |ui| ui.add(Label::new(words::sentence(text)).wrap()),
            |ui| icon_button(ui, Icon::Close, "Dismiss message", Mark::Deed).clicked(),
        );
        dismissed
    });
    drawn.inner
}

impl Toast {
    fn draw(&self, ui: &mut Ui, colours: &Colours) -> Rect {
        let palette = Palette::of(ui);
        let frame = Frame::popup(ui.style()).inner_margin(Margin::symmetric(8, 4));
        let drawn = frame.fill(palette.control).show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.horizontal(|ui| {
                let colour = self.session.as_ref().and_then(|session| colours.of(session));
                if let Some(colour) = colour {
                    let (rect, _) = ui.allocate_exact_size(Vec2::splat(10.0), Sense::hover());
                    ui.painter().circle_filled(rect.center(), 4.0, colour);
                }
                ui.add(bidi::wrapped(ui, &self.text, (SMALL, palette.text)));
            });
        });
        drawn.response.rect
    }
}

fn lane(snapshot: &Snapshot, session: &SessionId) -> Option<usize> {
    snapshot.sessions.iter().position(|one| one.session == *session)
}

/// Whether somebody else opened it, who could close it.
fn is_others(snapshot: &Snapshot, session: &SessionId) -> bool {
    lane(snapshot, session).is_some_and(|lane| snapshot.sessions[lane].role == Role::Guest)
}

/// Whether an event tells of a session that is being left: it is nobody's business here until that
/// is undone.
fn is_of_departing(event: &Event, snapshot: &Snapshot) -> bool {
    match event {
        Event::Participant { session, .. }
        | Event::Message { session, .. }
        | Event::Ended { session, .. } => snapshot.is_departing(session),
        Event::Failed(failure) => {
            failure.session.as_ref().is_some_and(|session| snapshot.is_departing(session))
        }
        Event::Listening { .. }
        | Event::HubLost { .. }
        | Event::HubBack { .. }
        | Event::LinkChanged { .. }
        | Event::Opened { .. }
        | Event::Waiting { .. }
        | Event::Joined { .. }
        | Event::Renamed { .. }
        | Event::Access { .. }
        | Event::FirstFrame { .. }
        | Event::Said { .. }
        | Event::LeftOut { .. }
        | Event::Undelivered { .. } => false,
    }
}

/// Whether the lane of a failure's session says it.
fn is_in_lane(failure: &Failure, snapshot: &Snapshot) -> bool {
    let Some(session) = &failure.session else { return false };
    let state = lane(snapshot, session).map(|lane| &snapshot.sessions[lane].state);
    match state {
        Some(SessionState::Failed(_)) => true,
        Some(
            SessionState::Connecting | SessionState::Unreachable { .. } | SessionState::Waiting,
        )
        // A session that was asked for just now: the next snapshot has its lane.
        | None => failure.code == FailureCode::HubUnreachable,
        // It was about something else that was asked for there.
        Some(
            SessionState::Live
            | SessionState::Reconnecting { .. }
            | SessionState::HostLost { .. }
            | SessionState::Ended { .. },
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::staged::{id, session, with},
        model::{SessionKind, SessionStatus},
    };

    #[test]
    fn what_is_written_in_a_session_gives_way_to_what_is_written_next_there() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let message = |session: &str, text: &str| Event::Message {
            session: SessionId::parse(session).unwrap(),
            participant: crate::model::ParticipantId::from_digest([0; 10]),
            name: "Ada".to_owned(),
            text: crate::model::ChatText::new(text).unwrap(),
        };
        for (session, text) in [("a", "one"), ("b", "two"), ("a", "three\nfour")] {
            notices.note(&message(session, text), &snapshot, 0.0);
        }
        let told: Vec<_> = notices.toasts.iter().map(|toast| toast.text.as_str()).collect();
        assert_eq!(told, ["Ada in Session b: two", "Ada in Session a: three four"]);
    }

    #[test]
    fn what_a_lane_says_of_its_hub_is_no_banner_and_what_else_failed_is_one() {
        let failed = |code| {
            let session = Some(id("town-hall"));
            Event::Failed(Failure { code, message: "it is not so".into(), session })
        };
        let asked = |state| {
            let one = session("town-hall", SessionKind::FIVE[0], Role::Guest, 0);
            with(vec![SessionStatus { state, ..one }])
        };
        let unreachable = SessionState::Unreachable { reason: "nobody answers".into() };
        let count = |code, snapshot: &Snapshot| {
            let mut notices = Notices::default();
            notices.note(&failed(code), snapshot, 0.0);
            notices.errors.len()
        };
        for snapshot in [
            Snapshot::default(),
            asked(SessionState::Connecting),
            asked(SessionState::Waiting),
            asked(unreachable.clone()),
        ] {
            assert_eq!(count(FailureCode::HubUnreachable, &snapshot), 0, "{snapshot:?}");
        }
        assert_eq!(count(FailureCode::HubUnreachable, &asked(SessionState::Live)), 1, "a deed");
        assert_eq!(
            count(
                FailureCode::Connection(crate::model::ConnectionFault::NoPairAnswered),
                &asked(SessionState::Live)
            ),
            1
        );
        assert_eq!(count(FailureCode::AlreadyHere, &asked(unreachable)), 1);
    }

    #[test]
    fn an_error_about_a_person_goes_when_that_person_is_connected() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let session = SessionId::parse("town-hall").unwrap();
        for name in ["Ada", "Bob"] {
            let code = FailureCode::Connection(crate::model::ConnectionFault::NoPairAnswered);
            let message = format!("no connection to {name}: no candidate pair answered");
            let session = Some(session.clone());
            notices.note(&Event::Failed(Failure { code, message, session }), &snapshot, 0.0);
        }
        let live = Event::Participant {
            session: session.clone(),
            participant: crate::model::ParticipantId::from_digest([0; 10]),
            name: "Ada".to_owned(),
            state: ParticipantState::Live,
            reason: None,
        };
        notices.note(&live, &snapshot, 1.0);
        assert_eq!(notices.errors, ["no connection to Bob: no candidate pair answered"]);
    }

    #[test]
    fn a_session_with_another_link_is_told() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let session = SessionId::parse("town-hall").unwrap();
        let hub: crate::model::HubUrl = "http://192.168.9.33:7340".parse().unwrap();
        let link = hub.link(&session);
        notices.note(&Event::LinkChanged { session, link }, &snapshot, 0.0);
        assert!(notices.toasts[0].text.contains("session town-hall has a new link"));
    }
}
