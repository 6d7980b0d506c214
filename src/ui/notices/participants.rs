//! Toasts about participants: joined, left, frozen, disconnected or reconnected. Participants with
//! the same change share a toast.

use super::{Notices, TOAST_SECONDS, Toast, ToastKind};
use crate::{
    model::{LeaveReason, ParticipantId, ParticipantState, SessionId, Snapshot},
    ui::{bidi, labels},
};

/// A change of a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Was in the session when this user joined.
    AlreadyPresent,
    /// Joined.
    Joined,
    /// Left.
    Left,
    /// Was ejected by the host.
    Removed,
    /// Sends no more video, although the camera is on.
    VideoFrozen,
    /// Lost its connection.
    ConnectionLost,
    /// Is connected again.
    Reconnected,
}

impl Change {
    /// Whether the change is about the participant's connection, which is the same in all sessions.
    const fn is_about_connection(self) -> bool {
        matches!(self, Self::VideoFrozen | Self::ConnectionLost | Self::Reconnected)
    }
}

/// The content of a toast about participants.
#[derive(Debug)]
pub(super) struct ParticipantsToast {
    change: Change,
    participants: Vec<(ParticipantId, String)>,
    /// The session's name in a sentence.
    session_name: String,
}

impl ParticipantsToast {
    fn text(&self) -> String {
        let (session_name, names) = (&self.session_name, self.names());
        let many = self.participants.len() > 1;
        match self.change {
            Change::AlreadyPresent if self.participants.is_empty() => {
                format!("You joined {session_name}")
            }
            Change::AlreadyPresent => format!("You joined {session_name} with {names}"),
            Change::Joined => format!("{names} joined {session_name}"),
            Change::Left => format!("{names} left {session_name}"),
            Change::Removed if many => format!("{names} were removed from {session_name}"),
            Change::Removed => format!("{names} was removed from {session_name}"),
            Change::VideoFrozen if many => format!("The video of {names} stopped"),
            Change::VideoFrozen => format!("{names}'s video stopped"),
            Change::ConnectionLost => format!("{names} lost connection"),
            Change::Reconnected if many => format!("{names} are back"),
            Change::Reconnected => format!("{names} is back"),
        }
    }

    /// "Ada", "Ada and Ben", "7 people".
    fn names(&self) -> String {
        match &self.participants[..] {
            [] => String::new(),
            [(_, one)] => bidi::isolated(one).into_owned(),
            [(_, one), (_, other)] => {
                format!("{} and {}", bidi::isolated(one), bidi::isolated(other))
            }
            many => format!("{} people", many.len()),
        }
    }
}

impl Notices {
    /// The change that a participant's new state means, if it is worth a toast.
    pub(super) fn change_for(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        (state, reason): (ParticipantState, Option<LeaveReason>),
    ) -> Option<Change> {
        let participant = (session.clone(), participant.clone());
        match state {
            // An error banner shows why the participant is unreachable.
            ParticipantState::Connecting | ParticipantState::Unreachable => None,
            ParticipantState::Live if self.disconnected.remove(&participant) => {
                Some(Change::Reconnected)
            }
            ParticipantState::Live if self.present_at_join.remove(&participant) => {
                Some(Change::AlreadyPresent)
            }
            ParticipantState::Live => Some(Change::Joined),
            ParticipantState::Reconnecting | ParticipantState::Gone => {
                self.disconnected.insert(participant).then_some(Change::ConnectionLost)
            }
            ParticipantState::Left => {
                let was_lost = self.disconnected.remove(&participant);
                self.present_at_join.remove(&participant);
                match reason {
                    Some(LeaveReason::Ejected) => Some(Change::Removed),
                    Some(LeaveReason::Lost) => (!was_lost).then_some(Change::ConnectionLost),
                    Some(LeaveReason::Left | LeaveReason::Replaced) | None => Some(Change::Left),
                }
            }
        }
    }

    /// Shows that this user has joined a session. Participants that are there already are added
    /// once they are connected.
    pub(super) fn on_joined(&mut self, snapshot: &Snapshot, session: &SessionId, now: f64) {
        let found = snapshot.sessions.iter().find(|one| one.session == *session);
        let participants = found.into_iter().flat_map(|one| one.participants.iter());
        self.present_at_join
            .extend(participants.map(|one| (session.clone(), one.participant.clone())));
        let session_name = labels::session_name_in_sentence(snapshot, session);
        self.push_participants(
            ParticipantsToast {
                change: Change::AlreadyPresent,
                participants: vec![],
                session_name,
            },
            Some(session),
            now,
        );
    }

    /// Shows a change of a participant, merged with participants that had the same change just
    /// before.
    pub(crate) fn participant_toast(
        &mut self,
        change: Change,
        participant: (ParticipantId, String),
        (snapshot, session): (&Snapshot, &SessionId),
        now: f64,
    ) {
        if change.is_about_connection() || matches!(change, Change::Left | Change::Removed) {
            self.retract_participant(&participant.0, now);
        }
        let is_same = |toast: &Toast| match &toast.kind {
            ToastKind::Participants(content) => {
                content.change == change
                    && (change.is_about_connection() || toast.session.as_ref() == Some(session))
            }
            ToastKind::Single | ToastKind::Chat => false,
        };
        let known = self.toasts.iter().position(is_same).and_then(|at| self.toasts.remove(at));
        let session_name = labels::session_name_in_sentence(snapshot, session);
        let Some(Toast {
            kind: ToastKind::Participants(mut content), session: known_session, ..
        }) = known
        else {
            return self.push_participants(
                ParticipantsToast { change, participants: vec![participant], session_name },
                Some(session),
                now,
            );
        };
        content.participants.retain(|(id, _)| *id != participant.0);
        content.participants.push(participant);
        let common_session = known_session.filter(|known| known == session);
        self.push_participants(content, common_session.as_ref(), now);
    }

    /// Removes a participant from the toasts about connections, because they are outdated.
    fn retract_participant(&mut self, participant: &ParticipantId, now: f64) {
        for toast in &mut self.toasts {
            let ToastKind::Participants(content) = &mut toast.kind else { continue };
            if !content.change.is_about_connection() {
                continue;
            }
            content.participants.retain(|(id, _)| id != participant);
            if content.participants.is_empty() {
                toast.until = now;
            } else {
                toast.text = content.text();
            }
        }
        self.toasts.retain(|toast| toast.until > now);
    }

    fn push_participants(
        &mut self,
        content: ParticipantsToast,
        session: Option<&SessionId>,
        now: f64,
    ) {
        let (text, session) = (content.text(), session.cloned());
        self.push(Toast {
            text,
            session,
            kind: ToastKind::Participants(content),
            until: now + TOAST_SECONDS,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::fixtures::{session_id, session_status, snapshot_of},
        model::{Event, Role, SessionKind},
    };

    fn participant_id(index: u8) -> ParticipantId {
        ParticipantId::from_digest([index; 10])
    }

    fn event(session: &str, index: u8, state: ParticipantState) -> Event {
        let (session, participant) = (session_id(session), participant_id(index));
        let name = ["Ada", "Ben", "Cleo", "Dan"][usize::from(index)].to_owned();
        Event::Participant { session, participant, name, state, reason: None }
    }

    fn texts(notices: &Notices) -> Vec<&str> {
        notices.toasts.iter().map(|toast| toast.text.as_str()).collect()
    }

    #[test]
    fn participants_that_join_together_share_a_toast() {
        let snapshot =
            snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 0)]);
        let mut notices = Notices::default();
        let mut shown = vec![];
        for index in 0..4 {
            notices.on_event(&event("a", index, ParticipantState::Live), &snapshot, 0.0);
            shown.push(texts(&notices).join(", "));
        }
        assert_eq!(
            shown,
            [
                "Ada joined the conference",
                "Ada and Ben joined the conference",
                "3 people joined the conference",
                "4 people joined the conference"
            ]
        );
    }

    #[test]
    fn a_lost_connection_is_shown_once_for_all_sessions_and_so_is_its_return() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        for session in ["a", "b"] {
            for state in [ParticipantState::Reconnecting, ParticipantState::Gone] {
                notices.on_event(&event(session, 0, state), &snapshot, 0.0);
            }
        }
        assert_eq!(texts(&notices), ["Ada lost connection"]);
        notices.on_event(&event("a", 1, ParticipantState::Reconnecting), &snapshot, 0.0);
        assert_eq!(texts(&notices), ["Ada and Ben lost connection"]);
        notices.on_event(&event("a", 0, ParticipantState::Connecting), &snapshot, 1.0);
        notices.on_event(&event("a", 0, ParticipantState::Live), &snapshot, 1.0);
        assert_eq!(texts(&notices), ["Ben lost connection", "Ada is back"]);
    }

    #[test]
    fn a_frozen_video_is_shown_until_its_participant_disconnects() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let participant = (participant_id(0), "Ada".to_owned());
        notices.participant_toast(
            Change::VideoFrozen,
            participant,
            (&snapshot, &session_id("a")),
            0.0,
        );
        assert_eq!(texts(&notices), ["Ada's video stopped"]);
        notices.on_event(&event("a", 0, ParticipantState::Reconnecting), &snapshot, 3.0);
        assert_eq!(texts(&notices), ["Ada lost connection"]);
    }

    #[test]
    fn joining_shows_the_participants_present_and_later_ones_as_joined() {
        let snapshot = snapshot_of(vec![session_status("a", SessionKind::FIVE[1], Role::Guest, 1)]);
        let mut notices = Notices::default();
        let joined = Event::Joined { session: session_id("a"), kind: SessionKind::FIVE[1] };
        notices.on_event(&joined, &snapshot, 0.0);
        assert_eq!(texts(&notices), ["You joined the broadcast"]);
        notices.on_event(&event("a", 0, ParticipantState::Live), &snapshot, 0.1);
        assert_eq!(texts(&notices), ["You joined the broadcast with Ada"]);
        notices.on_event(&event("a", 1, ParticipantState::Live), &snapshot, 1.0);
        assert_eq!(texts(&notices)[1..], ["Ben joined the broadcast"]);
    }

    #[test]
    fn an_ejected_participant_is_shown_as_removed_and_not_as_left() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        for (index, reason) in [(0, LeaveReason::Ejected), (1, LeaveReason::Left)] {
            let mut left = event("a", index, ParticipantState::Left);
            if let Event::Participant { reason: given, .. } = &mut left {
                *given = Some(reason);
            }
            notices.on_event(&left, &snapshot, 0.0);
        }
        assert_eq!(texts(&notices), ["Ada was removed from session a", "Ben left session a"]);
    }
}
