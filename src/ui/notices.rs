//! What happened: errors that stay until they are read, and toasts that pass.

pub(crate) mod people;

use std::collections::{BTreeSet, VecDeque};

use eframe::egui::{
    self, Align2, Area, Context, Frame, Id, Label, Margin, Rect, ScrollArea, Sense, Ui, Vec2,
};

use super::{
    bidi,
    colours::Colours,
    focus,
    icons::{Icon, Mark, icon_button},
    sessions::two_ended,
    theme::{CORNER, GRID, Palette, SMALL},
    want::Want,
    words,
};
use people::Changed;

use crate::model::{
    EndReason, Event, FailureCode, ParticipantId, ParticipantState, Role, SessionId, Snapshot,
};

/// How long a toast stays, in seconds: two lines are read in three.
const TOAST: f64 = 5.0;

/// Toasts at once; older ones give way, as everything they tell can be seen elsewhere too.
const TOASTS: usize = 4;

/// Errors at once; the oldest give way, for nobody reads fifty.
const ERRORS: usize = 50;

/// How wide toasts are at most, in points.
const WIDTH: f32 = 400.0;

/// How much of what somebody writes a toast shows, in characters: a line or two.
const GLIMPSE: usize = 60;

/// What happened and is to be told.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    errors: Vec<Trouble>,
    toasts: VecDeque<Toast>,
    /// Who was told to have lost connection, and where.
    lost: BTreeSet<(SessionId, ParticipantId)>,
    /// Who was in a session when we came.
    met: BTreeSet<(SessionId, ParticipantId)>,
}

#[derive(Debug)]
struct Trouble {
    text: String,
    /// The session that is tried again meanwhile: once it is in or left, this is past.
    tried: Option<SessionId>,
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
        self.settle(event);
        if let Event::Ended { session, .. } = event {
            self.lost.retain(|(of, _)| of != session);
            self.met.retain(|(of, _)| of != session);
        }
        match event {
            // The local panel says what is wrong with a device as long as it is.
            Event::Failed(failure) if matches!(failure.code, FailureCode::Device(_)) => {}
            // A refused session's lane says so, as long as it is not dismissed.
            Event::Failed(failure) if has_lane(snapshot, failure.session.as_ref()) => {}
            Event::Failed(failure)
                if matches!(failure.code, FailureCode::HubUnreachable | FailureCode::Connection(_)) =>
            {
                self.trouble(failure.message.clone(), failure.session.clone());
            }
            Event::Failed(failure) => self.error(failure.message.clone()),
            Event::Participant { session, participant, name, state, reason } => {
                let who = (participant.clone(), name.clone());
                if let Some(change) = self.change(session, participant, (*state, *reason)) {
                    self.people(change, who, (snapshot, session), now);
                }
            }
            Event::Joined { session, .. } => self.arrived(snapshot, session, now),
            Event::Ended { session, reason } => match reason {
                EndReason::Left | EndReason::Failed => {}
                EndReason::Closed if is_ours(snapshot, session) => {}
                EndReason::OpenerLeft
                | EndReason::OpenerLost
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
                let place = words::place(snapshot, session);
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
            | Event::FirstFrame { .. }
            // The chat shows it.
            | Event::Said { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Takes the errors back whose cause an event ends.
    fn settle(&mut self, event: &Event) {
        let settled = match event {
            Event::Participant { session, name, state: ParticipantState::Live, .. } => {
                let is_past = |trouble: &Trouble| {
                    trouble.tried.as_ref() == Some(session) && trouble.text.contains(name)
                };
                return self.errors.retain(|trouble| !is_past(trouble));
            }
            Event::Opened { session, .. } | Event::Joined { session, .. } => session,
            Event::Ended { session, reason } if *reason != EndReason::Failed => session,
            Event::Ended { .. }
            | Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Waiting { .. }
            | Event::Participant { .. }
            | Event::FirstFrame { .. }
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. }
            | Event::LeftOut { .. }
            | Event::Failed(_) => return,
        };
        self.errors.retain(|trouble| trouble.tried.as_ref() != Some(settled));
    }

    /// Tells an error until it is read.
    pub(crate) fn error(&mut self, message: String) {
        self.trouble(message, None);
    }

    /// One that is told already is not told twice.
    fn trouble(&mut self, text: String, tried: Option<SessionId>) {
        if !self.errors.iter().any(|trouble| trouble.text == text) {
            self.errors.push(Trouble { text, tried });
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

    /// Draws the errors, newest first, over the whole width.
    pub(crate) fn errors(&self, ui: &mut Ui) -> Option<Want> {
        let palette = Palette::of(ui);
        let mut want = None;
        if self.errors.is_empty() {
            return None;
        }
        ScrollArea::vertical().id_salt("errors").max_height(144.0).auto_shrink([false, true]).show(
            ui,
            |ui| {
                for (index, trouble) in self.errors.iter().enumerate().rev() {
                    let frame = Frame::new()
                        .fill(palette.panel)
                        .stroke(egui::Stroke::new(1.0, palette.on_air))
                        .corner_radius(CORNER)
                        .inner_margin(Margin::symmetric(12, 4));
                    frame.show(ui, |ui| {
                        let (_, dismiss) = two_ended(
                            ui,
                            |ui| ui.add(Label::new(words::sentence(&trouble.text)).wrap()),
                            |ui| {
                                icon_button(ui, Icon::Close, "Dismiss message", Mark::Deed)
                                    .clicked()
                            },
                        );
                        if dismiss {
                            want = Some(Want::Dismiss(index));
                        }
                    });
                }
                focus::follow(ui);
            },
        );
        ui.add_space(GRID);
        want
    }

    /// Draws the toasts in front of that side of what is there, which keeps its place when they come
    /// and go. A click takes one away.
    pub(crate) fn toasts(
        &mut self,
        ctx: &Context,
        colours: &Colours,
        (room, side): (Rect, Align2),
    ) {
        if !self.has_toasts(ctx) {
            return;
        }
        let area = Area::new(Id::unique("toasts")).pivot(side);
        area.fixed_pos(side.pos_in_rect(&room)).show(ctx, |ui| {
            ui.set_max_width(room.width().min(WIDTH));
            ui.spacing_mut().item_spacing.y = GRID / 2.0;
            self.toasts.retain(|toast| {
                let rect = toast.draw(ui, colours);
                // Not for the keyboard: it goes by itself.
                !ui.interact(rect, ui.next_auto_id(), Sense::CLICK).clicked()
            });
        });
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

/// Whether we opened it, so that only we could close it.
fn is_ours(snapshot: &Snapshot, session: &SessionId) -> bool {
    lane(snapshot, session).is_some_and(|lane| snapshot.sessions[lane].role == Role::Opener)
}

fn has_lane(snapshot: &Snapshot, session: Option<&SessionId>) -> bool {
    session.is_some_and(|session| {
        let lane = lane(snapshot, session).and_then(|lane| snapshot.sessions.get(lane));
        lane.is_some_and(|session| matches!(session.state, crate::model::SessionState::Failed(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Failure;

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
    fn an_error_about_a_hub_goes_when_its_session_is_in_or_left_and_others_stay() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let session = SessionId::parse("town-hall").unwrap();
        let failed = |code, message: &str| {
            let session = Some(session.clone());
            Event::Failed(Failure { code, message: message.into(), session })
        };
        let told = |notices: &Notices| notices.errors.len();
        notices.note(&failed(FailureCode::HubUnreachable, "nobody answers"), &snapshot, 0.0);
        notices.note(&failed(FailureCode::Chat, "no chat"), &snapshot, 0.0);
        assert_eq!(told(&notices), 2);
        let left = Event::Ended { session: session.clone(), reason: EndReason::Left };
        notices.note(&left, &snapshot, 1.0);
        assert_eq!(told(&notices), 1);
        assert_eq!(notices.errors[0].text, "no chat");
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
        let left: Vec<_> = notices.errors.iter().map(|trouble| trouble.text.as_str()).collect();
        assert_eq!(left, ["no connection to Bob: no candidate pair answered"]);
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
