//! Notices: errors that stay until they are dismissed, and toasts that disappear.

pub(crate) mod participants;

use std::collections::{BTreeSet, VecDeque};

use eframe::egui::{
    self, Align2, Area, Context, Frame, Id, Label, Margin, Rect, RichText, ScrollArea, Sense, Ui,
    Vec2,
};

use super::{
    action::Action,
    bidi,
    colours::SessionColours,
    focus,
    icons::{Icon, IconState, icon_button},
    labels,
    sessions::split_row,
    theme::{CORNER, GRID, Palette, SMALL},
    view_state::ViewState,
};
use participants::ParticipantsToast;

use crate::model::{
    Command, DepartureStatus, EndReason, Event, Failure, FailureCode, MediaTime, ParticipantId,
    ParticipantState, Role, SessionId, SessionState, Snapshot,
};
use crate::wording;

/// How long a toast stays, in seconds. Two lines are read in three.
const TOAST_SECONDS: f64 = 5.0;

/// Maximum number of toasts. The oldest are dropped: everything they say is also shown elsewhere.
const MAX_TOASTS: usize = 4;

/// Maximum number of errors. The oldest are dropped: no user reads fifty.
const MAX_ERRORS: usize = 50;

/// Maximum height of the error list, in points. More errors scroll.
const MAX_ERRORS_HEIGHT: f32 = 144.0;

/// Maximum width of a toast, in points.
const MAX_TOAST_WIDTH: f32 = 400.0;

/// Number of characters of a chat message that a toast shows: a line or two.
const CHAT_PREVIEW_CHARS: usize = 60;

/// The errors and toasts that are shown.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    errors: Vec<String>,
    toasts: VecDeque<Toast>,
    /// Errors about participants without a connection, with their session.
    connection_errors: Vec<(SessionId, String)>,
    /// Participants whose lost connection was reported, with their session.
    disconnected: BTreeSet<(SessionId, ParticipantId)>,
    /// Participants that were in a session when this user joined.
    present_at_join: BTreeSet<(SessionId, ParticipantId)>,
}

#[derive(Debug)]
struct Toast {
    text: String,
    session: Option<SessionId>,
    kind: ToastKind,
    /// When it disappears, in seconds of egui's clock.
    until: f64,
}

/// What a toast is about. A later toast of the same kind replaces it or is merged with it.
#[derive(Debug)]
enum ToastKind {
    /// A single fact.
    Single,
    /// The newest message of a chat.
    Chat,
    /// Changes of participants.
    Participants(ParticipantsToast),
}

impl Notices {
    /// Shows an event as an error or a toast, if it is worth one.
    pub(crate) fn on_event(&mut self, event: &Event, snapshot: &Snapshot, now: f64) {
        if let Event::Ended { session, .. } = event {
            self.disconnected.retain(|(of, _)| of != session);
            self.present_at_join.retain(|(of, _)| of != session);
            self.connection_errors.retain(|(of, _)| of != session);
        }
        if is_about_departing_session(event, snapshot) {
            return;
        }
        match event {
            // The local panel shows a device error for as long as it lasts.
            Event::Failed(failure) if matches!(failure.code(), FailureCode::Device(_)) => {}
            // The session card shows a session error for as long as it lasts.
            Event::Failed(failure) if is_shown_on_card(failure, snapshot) => {}
            Event::Failed(failure) if matches!(failure.code(), FailureCode::Connection(_)) => {
                let (session, message) = (failure.session.clone(), wording::failure(failure));
                self.connection_errors.extend(session.map(|session| (session, message.clone())));
                self.show_error(message);
            }
            Event::Failed(failure) => self.show_error(wording::failure(failure)),
            Event::Participant { session, participant: id, name, state, reason } => {
                if *state == ParticipantState::Live {
                    self.retract_connection_errors(session, name);
                }
                let participant = (id.clone(), name.clone());
                if let Some(change) = self.change_for(session, id, (*state, *reason)) {
                    self.participant_toast(change, participant, (snapshot, session), now);
                }
            }
            Event::Joined { session, .. } => self.on_joined(snapshot, session, now),
            Event::Ended { session, reason } => match reason {
                EndReason::Left | EndReason::Failed => {}
                // This user closed it: only the opener can, and the card is gone.
                EndReason::Closed if !is_opened_by_other(snapshot, session) => {}
                EndReason::OpenerLeft
                | EndReason::Closed
                | EndReason::Ejected
                | EndReason::Replaced => {
                    let session_name = labels::session_name(snapshot, session);
                    let text = format!("{session_name}: {}", labels::end_reason(*reason));
                    self.toast(text, Some(session), now);
                }
            },
            Event::MessageReceived { session, name, text, .. } => {
                let text = labels::first_words(text.as_str(), CHAT_PREVIEW_CHARS);
                let (name, text) = (bidi::isolated(name), bidi::isolated(&text));
                let text = format!("{name} in {}: {text}", labels::session_name(snapshot, session));
                self.chat_toast(text, session, now);
            }
            Event::LeftOut { session, name, media, has_rest, .. } => {
                let message = wording::left_out(name, session, *media, *has_rest);
                self.toast(labels::sentence(&message), Some(session), now);
            }
            Event::LinkChanged { session, .. } => {
                let session_name = labels::session_name_in_sentence(snapshot, session);
                let text = format!(
                    "This computer's address changed: {session_name} has a new link. Copy it \
                     again for people who have not joined yet."
                );
                self.toast(text, Some(session), now);
            }
            Event::MicrophoneSilent => {
                self.toast(labels::sentence(wording::MICROPHONE_SILENT), None, now);
            }
            Event::SpeakingWhileMuted => {
                self.toast(labels::sentence(wording::SPEAKING_WHILE_MUTED), None, now);
            }
            Event::EncoderLate => {
                self.toast(labels::sentence(wording::ENCODER_LATE), None, now);
            }
            Event::UploadFull => self.toast(labels::sentence(wording::UPLOAD_FULL), None, now),
            // The session cards show the state of their hub. Only its return is news.
            Event::HubRestored { .. } => self.toast("The hub is back".to_owned(), None, now),
            Event::HubLost { .. }
            | Event::Listening { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            // The menu of the camera no longer says that it is full.
            | Event::UploadOk
            // Tiles and lists show these.
            | Event::ActiveSpeaker { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            // The chat shows these.
            | Event::MessageSent { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Removes the errors about a participant that is connected now.
    fn retract_connection_errors(&mut self, session: &SessionId, name: &str) {
        let is_resolved = |(of, text): &(SessionId, String)| of == session && text.contains(name);
        let errors = &mut self.errors;
        self.connection_errors.retain(|one| {
            if is_resolved(one) {
                errors.retain(|error| *error != one.1);
            }
            !is_resolved(one)
        });
    }

    /// Shows an error until it is dismissed.
    ///
    /// An error that is already shown is not added again.
    pub(crate) fn show_error(&mut self, message: String) {
        if !self.errors.contains(&message) {
            self.errors.push(message);
        }
        if self.errors.len() > MAX_ERRORS {
            self.errors.remove(0);
        }
    }

    /// Shows a toast.
    pub(crate) fn toast(&mut self, text: String, session: Option<&SessionId>, now: f64) {
        self.push(Toast {
            text,
            session: session.cloned(),
            kind: ToastKind::Single,
            until: now + TOAST_SECONDS,
        });
    }

    /// Shows a toast for a chat message. It replaces the previous one of the same session.
    fn chat_toast(&mut self, text: String, session: &SessionId, now: f64) {
        let is_chat = |toast: &Toast| {
            matches!(toast.kind, ToastKind::Chat) && toast.session.as_ref() == Some(session)
        };
        self.toasts.retain(|toast| !is_chat(toast));
        let session = Some(session.clone());
        self.push(Toast { text, session, kind: ToastKind::Chat, until: now + TOAST_SECONDS });
    }

    fn push(&mut self, toast: Toast) {
        // A repeated toast replaces the old one.
        self.toasts.retain(|old| (&old.text, &old.session) != (&toast.text, &toast.session));
        if self.toasts.len() == MAX_TOASTS {
            self.toasts.pop_front();
        }
        self.toasts.push_back(toast);
    }

    /// Dismisses the error with that index.
    pub(crate) fn dismiss_error(&mut self, index: usize) {
        if index < self.errors.len() {
            self.errors.remove(index);
        }
    }

    /// Draws the errors, newest first, over the top of the panel, so that nothing moves when they
    /// appear or disappear.
    pub(crate) fn draw_errors(&self, ui: &mut Ui) -> Option<Action> {
        if self.errors.is_empty() {
            return None;
        }
        let rect = ui.available_rect_before_wrap();
        let area = Area::new(Id::unique("errors")).fixed_pos(rect.left_top());
        let drawn = area.show(ui.ctx(), |ui| {
            ui.set_width(rect.width());
            let scroll = ScrollArea::vertical().max_height(MAX_ERRORS_HEIGHT);
            let scrolled = scroll.auto_shrink([false, true]).show(ui, |ui| {
                let mut action = None;
                for (index, text) in self.errors.iter().enumerate().rev() {
                    if error_banner(ui, text) {
                        action = Some(Action::DismissError(index));
                    }
                }
                focus::scroll_to_focused(ui);
                action
            });
            scrolled.inner
        });
        drawn.inner
    }

    /// Draws the toasts over that side of a panel, so that nothing moves when they appear or
    /// disappear. A click removes one. A pending departure with its undo button comes last.
    pub(crate) fn draw_toasts(
        &mut self,
        ctx: &Context,
        view: ViewState<'_>,
        (rect, side): (Rect, Align2),
    ) -> Option<Action> {
        let departure = view.snapshot.departure.as_ref();
        if !self.has_toasts(ctx) && departure.is_none() {
            return None;
        }
        let area = Area::new(Id::unique("toasts")).pivot(side);
        let drawn = area.fixed_pos(side.pos_in_rect(&rect)).show(ctx, |ui| {
            ui.set_max_width(rect.width().min(MAX_TOAST_WIDTH));
            ui.spacing_mut().item_spacing.y = GRID / 2.0;
            self.toasts.retain(|toast| {
                let rect = toast.draw(ui, view.colours);
                // Not focusable by keyboard, because it disappears by itself.
                !ui.interact(rect, ui.next_auto_id(), Sense::CLICK).clicked()
            });
            departure.and_then(|departure| undo_toast(ui, departure, view.now))
        });
        drawn.inner
    }

    /// Whether a toast is visible. Schedules a repaint for when the first one expires.
    fn has_toasts(&mut self, ctx: &Context) -> bool {
        let now = ctx.input(|input| input.time);
        self.toasts.retain(|toast| toast.until > now);
        let Some(first) = self.toasts.front() else { return false };
        let wait = std::time::Duration::from_secs_f64((first.until - now).max(0.0) + 0.01);
        ctx.request_repaint_after(wait);
        true
    }
}

/// Draws the pending departure, and how long it can be undone.
fn undo_toast(ui: &mut Ui, departure: &DepartureStatus, now: MediaTime) -> Option<Action> {
    let palette = Palette::of(ui);
    let frame = Frame::popup(ui.style()).inner_margin(Margin::symmetric(8, 4));
    let drawn = frame.fill(palette.control).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let seconds = departure.until.since(now).as_secs_f32().ceil();
        let (_, action) = split_row(
            ui,
            |ui| {
                ui.add(Label::new(RichText::new(labels::departure_label(departure)).small()).wrap())
            },
            |ui| {
                let undo = ui.button(format!("Undo ({seconds} s)")).clicked();
                let confirm =
                    icon_button(ui, Icon::Close, "Do not undo", IconState::Plain).clicked();
                match (undo, confirm) {
                    (true, _) => Some(Action::Command(Command::Undo)),
                    (false, true) => Some(Action::Command(Command::Confirm)),
                    (false, false) => None,
                }
            },
        );
        action
    });
    drawn.inner
}

/// Draws an error. Returns whether it was dismissed.
fn error_banner(ui: &mut Ui, text: &str) -> bool {
    let palette = Palette::of(ui);
    let frame = Frame::popup(ui.style())
        .fill(palette.panel)
        .stroke(egui::Stroke::new(1.0, palette.on_air))
        .corner_radius(CORNER)
        .inner_margin(Margin::symmetric(12, 4));
    let drawn = frame.show(ui, |ui| {
        let (_, dismissed) = split_row(
            ui,
            |ui| ui.add(Label::new(labels::sentence(text)).wrap()),
            |ui| icon_button(ui, Icon::Close, "Dismiss message", IconState::Plain).clicked(),
        );
        dismissed
    });
    drawn.inner
}

impl Toast {
    fn draw(&self, ui: &mut Ui, colours: &SessionColours) -> Rect {
        let palette = Palette::of(ui);
        let frame = Frame::popup(ui.style()).inner_margin(Margin::symmetric(8, 4));
        let drawn = frame.fill(palette.control).show(ui, |ui| {
            ui.set_width(ui.available_width());
            ui.horizontal(|ui| {
                let colour = self.session.as_ref().and_then(|session| colours.get(session));
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

fn session_index(snapshot: &Snapshot, session: &SessionId) -> Option<usize> {
    snapshot.sessions.iter().position(|one| one.session == *session)
}

/// Whether another participant opened the session and could close it.
fn is_opened_by_other(snapshot: &Snapshot, session: &SessionId) -> bool {
    session_index(snapshot, session)
        .is_some_and(|index| snapshot.sessions[index].role == Role::Guest)
}

/// Whether an event is about a session that is being left. It is not shown unless that is undone.
fn is_about_departing_session(event: &Event, snapshot: &Snapshot) -> bool {
    match event {
        Event::Participant { session, .. }
        | Event::MessageReceived { session, .. }
        | Event::Ended { session, .. } => snapshot.is_departing(session),
        Event::Failed(failure) => {
            failure.session.as_ref().is_some_and(|session| snapshot.is_departing(session))
        }
        Event::Listening { .. }
        | Event::HubLost { .. }
        | Event::HubRestored { .. }
        | Event::LinkChanged { .. }
        | Event::Opened { .. }
        | Event::Waiting { .. }
        | Event::Joined { .. }
        | Event::Renamed { .. }
        | Event::Access { .. }
        | Event::FirstFrame { .. }
        | Event::MessageSent { .. }
        | Event::LeftOut { .. }
        | Event::MicrophoneSilent
        | Event::ActiveSpeaker { .. }
        | Event::SpeakingWhileMuted
        | Event::EncoderLate
        | Event::UploadFull
        | Event::UploadOk
        | Event::Undelivered { .. } => false,
    }
}

/// Whether the card of the failure's session shows the failure.
fn is_shown_on_card(failure: &Failure, snapshot: &Snapshot) -> bool {
    let Some(session) = &failure.session else { return false };
    let state = session_index(snapshot, session).map(|index| &snapshot.sessions[index].state);
    match state {
        Some(SessionState::Failed(_)) => true,
        Some(
            SessionState::Connecting | SessionState::Unreachable { .. } | SessionState::Waiting,
        )
        // A session that was just requested: the next snapshot has its card.
        | None => failure.code() == FailureCode::HubUnreachable,
        // The failure is about another command in that session.
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
        model::fixtures::{session_id, session_status, snapshot_of},
        model::{ConnectionFailure, ConnectionFault, FailureCause, SessionKind, SessionStatus},
    };

    #[test]
    fn a_chat_toast_is_replaced_by_the_next_message_of_its_session() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let message = |session: &str, text: &str| Event::MessageReceived {
            session: SessionId::parse(session).unwrap(),
            participant: crate::model::ParticipantId::from_digest([0; 10]),
            name: "Ada".to_owned(),
            text: crate::model::ChatText::new(text).unwrap(),
        };
        for (session, text) in [("a", "one"), ("b", "two"), ("a", "three\nfour")] {
            notices.on_event(&message(session, text), &snapshot, 0.0);
        }
        let shown: Vec<_> = notices.toasts.iter().map(|toast| toast.text.as_str()).collect();
        assert_eq!(shown, ["Ada in Session b: two", "Ada in Session a: three four"]);
    }

    #[test]
    fn a_failure_shown_on_a_card_is_no_error_banner_and_others_are() {
        let failed = |code| {
            let session = Some(session_id("town-hall"));
            let cause = FailureCause::Other { code, message: "it is not so".into() };
            Event::Failed(Failure { cause, session })
        };
        let requested = |state| {
            let one = session_status("town-hall", SessionKind::FIVE[0], Role::Guest, 0);
            snapshot_of(vec![SessionStatus { state, ..one }])
        };
        let unreachable = SessionState::Unreachable { reason: "nobody answers".into() };
        let count = |code, snapshot: &Snapshot| {
            let mut notices = Notices::default();
            notices.on_event(&failed(code), snapshot, 0.0);
            notices.errors.len()
        };
        for snapshot in [
            Snapshot::default(),
            requested(SessionState::Connecting),
            requested(SessionState::Waiting),
            requested(unreachable.clone()),
        ] {
            assert_eq!(count(FailureCode::HubUnreachable, &snapshot), 0, "{snapshot:?}");
        }
        assert_eq!(
            count(FailureCode::HubUnreachable, &requested(SessionState::Live)),
            1,
            "another command"
        );
        assert_eq!(
            count(
                FailureCode::Connection(ConnectionFault::NoPairAnswered),
                &requested(SessionState::Live)
            ),
            1
        );
        assert_eq!(count(FailureCode::AlreadyHere, &requested(unreachable)), 1);
    }

    #[test]
    fn an_error_about_a_participant_disappears_when_it_is_connected() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let session = SessionId::parse("town-hall").unwrap();
        for name in ["Ada", "Bob"] {
            let failure = ConnectionFailure::NoPairAnswered;
            let cause = FailureCause::NoConnection { name: name.to_owned(), failure };
            let session = Some(session.clone());
            notices.on_event(&Event::Failed(Failure { cause, session }), &snapshot, 0.0);
        }
        let live = Event::Participant {
            session: session.clone(),
            participant: crate::model::ParticipantId::from_digest([0; 10]),
            name: "Ada".to_owned(),
            state: ParticipantState::Live,
            reason: None,
        };
        notices.on_event(&live, &snapshot, 1.0);
        let [error] = &notices.errors[..] else { panic!("{:?}", notices.errors) };
        assert!(error.starts_with("no connection to Bob in session \"town-hall\": "), "{error}");
    }

    #[test]
    fn a_changed_session_link_shows_a_toast() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let session = SessionId::parse("town-hall").unwrap();
        let hub: crate::model::HubUrl = "http://192.168.9.33:7340".parse().unwrap();
        let link = hub.link(&session);
        notices.on_event(&Event::LinkChanged { session, link }, &snapshot, 0.0);
        assert!(notices.toasts[0].text.contains("session town-hall has a new link"));
    }
}
