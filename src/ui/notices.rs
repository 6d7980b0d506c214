//! What happened: errors that stay until they are read, and toasts that pass.

use std::collections::VecDeque;

use eframe::egui::{
    self, Align2, Area, Context, Frame, Id, Label, Margin, RichText, ScrollArea, Ui,
};

use super::{
    focus,
    icons::{Icon, Mark, icon_button},
    sessions::two_ended,
    theme::{CORNER, GRID, Palette, lane_colour},
    want::Want,
    words,
};
use crate::model::{
    EndReason, Event, FailureCode, LeaveReason, ParticipantState, Role, SessionId, Snapshot,
};

/// How long a toast stays, in seconds: two lines are read in three.
const TOAST: f64 = 5.0;

/// Toasts at once; older ones give way, as everything they tell can be seen elsewhere too.
const TOASTS: usize = 4;

/// Errors at once; the oldest give way, for nobody reads fifty.
const ERRORS: usize = 50;

/// What happened and is to be told.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    errors: Vec<Trouble>,
    toasts: VecDeque<Toast>,
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
    lane: Option<usize>,
    /// In seconds of the window's clock.
    until: f64,
}

impl Notices {
    /// Takes an event in.
    pub(crate) fn note(&mut self, event: &Event, snapshot: &Snapshot, now: f64) {
        self.settle(event);
        match event {
            // The local panel says what is wrong with a device as long as it is.
            Event::Failed(failure) if matches!(failure.code, FailureCode::Device(_)) => {}
            // A refused session's lane says so, as long as it is not dismissed.
            Event::Failed(failure) if has_lane(snapshot, failure.session.as_ref()) => {}
            Event::Failed(failure) if failure.code == FailureCode::HubUnreachable => {
                self.trouble(failure.message.clone(), failure.session.clone());
            }
            Event::Failed(failure) => self.error(failure.message.clone()),
            Event::Participant { session, name, state, reason, .. } => {
                let what = match state {
                    ParticipantState::Live => "is in",
                    ParticipantState::Left if *reason == Some(LeaveReason::Ejected) => {
                        "was sent out of"
                    }
                    ParticipantState::Left => "left",
                    ParticipantState::Reconnecting => "is reconnecting in",
                    ParticipantState::Connecting | ParticipantState::Gone => return,
                };
                let place = place(snapshot, session);
                self.toast(format!("{name} {what} {place}"), lane(snapshot, session), now);
            }
            Event::Ended { session, reason } => match reason {
                EndReason::Left | EndReason::Failed => {}
                EndReason::Closed if is_ours(snapshot, session) => {}
                EndReason::OpenerLeft
                | EndReason::OpenerLost
                | EndReason::Closed
                | EndReason::Ejected
                | EndReason::Replaced => {
                    let text = format!("{}: {}", place(snapshot, session), words::end(*reason));
                    self.toast(text, lane(snapshot, session), now);
                }
            },
            // The lanes say how their hub is; when it is back is news.
            Event::HubBack { hub } => self.toast(format!("the hub is back: {hub}"), None, now),
            Event::HubLost { .. }
            | Event::Listening { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            | Event::Joined { .. }
            | Event::FirstFrame { .. }
            // The chat shows what is said.
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Takes the errors back whose cause an event ends.
    fn settle(&mut self, event: &Event) {
        let settled = match event {
            Event::Opened { session, .. } | Event::Joined { session, .. } => session,
            Event::Ended { session, reason } if *reason != EndReason::Failed => session,
            Event::Ended { .. }
            | Event::Listening { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Waiting { .. }
            | Event::Participant { .. }
            | Event::FirstFrame { .. }
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. }
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
    pub(crate) fn toast(&mut self, text: String, lane: Option<usize>, now: f64) {
        if self.toasts.len() == TOASTS {
            self.toasts.pop_front();
        }
        self.toasts.push_back(Toast { text, lane, until: now + TOAST });
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
                            |ui| ui.add(Label::new(RichText::new(&trouble.text)).wrap()),
                            |ui| {
                                icon_button(ui, Icon::Close, "Dismiss error", Mark::Deed).clicked()
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

    /// Draws the toasts above the call bar, at the right.
    pub(crate) fn toasts(&mut self, ctx: &Context, above: f32) {
        let now = ctx.input(|input| input.time);
        self.toasts.retain(|toast| toast.until > now);
        let Some(first) = self.toasts.front() else { return };
        let wait = std::time::Duration::from_secs_f64((first.until - now).max(0.0) + 0.01);
        ctx.request_repaint_after(wait);
        let area = Area::new(Id::unique("toasts"))
            .anchor(Align2::RIGHT_BOTTOM, egui::vec2(-16.0, -above - 8.0))
            .interactable(false);
        area.show(ctx, |ui| {
            let palette = Palette::of(ui);
            for toast in &self.toasts {
                Frame::popup(ui.style()).show(ui, |ui| {
                    ui.horizontal(|ui| {
                        if let Some(lane) = toast.lane {
                            let size = egui::vec2(10.0, 10.0);
                            let (rect, _) = ui.allocate_exact_size(size, egui::Sense::hover());
                            ui.painter().circle_filled(rect.center(), 4.0, lane_colour(lane));
                        }
                        ui.label(RichText::new(&toast.text).color(palette.text));
                    });
                });
            }
        });
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

/// What a session is called in a sentence.
fn place(snapshot: &Snapshot, session: &SessionId) -> String {
    let kind = lane(snapshot, session).and_then(|lane| snapshot.sessions[lane].kind);
    kind.map_or_else(|| words::elide_middle(session.as_str(), 19), words::kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Failure;

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
        notices.note(&failed(FailureCode::Connection, "no path"), &snapshot, 0.0);
        assert_eq!(told(&notices), 2);
        let left = Event::Ended { session: session.clone(), reason: EndReason::Left };
        notices.note(&left, &snapshot, 1.0);
        assert_eq!(told(&notices), 1);
        assert_eq!(notices.errors[0].text, "no path");
    }
}
