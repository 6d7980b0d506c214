//! Toasts about participants: joined, left, frozen, disconnected or reconnected. Participants with
//! the same change share a toast.

use super::{About, Notices, TOAST, Toast};
use crate::{
    model::{LeaveReason, ParticipantId, ParticipantState, SessionId, Snapshot},
    ui::{bidi, words},
};

/// A change of a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Was in the session when this user joined.
    Met,
    /// Joined.
    Joined,
    /// Left.
    Left,
    /// Was ejected by the host.
    Removed,
    /// Sends no more video, although the camera is on.
    Stopped,
    /// Lost its connection.
    Lost,
    /// Is connected again.
    Back,
}

impl Change {
    /// Whether the change is about the participant's connection, which is the same in all sessions.
    const fn is_of_the_line(self) -> bool {
        matches!(self, Self::Stopped | Self::Lost | Self::Back)
    }
}

/// The content of a toast about participants.
#[derive(Debug)]
pub(super) struct Changed {
    change: Change,
    who: Vec<(ParticipantId, String)>,
    /// The session's name in a sentence.
    place: String,
}

impl Changed {
    fn text(&self) -> String {
        let (session_name, names) = (&self.place, self.names());
        let many = self.who.len() > 1;
        match self.change {
            Change::Met if self.who.is_empty() => format!("You joined {session_name}"),
            Change::Met => format!("You joined {session_name} with {names}"),
            Change::Joined => format!("{names} joined {session_name}"),
            Change::Left => format!("{names} left {session_name}"),
            Change::Removed if many => format!("{names} were removed from {session_name}"),
            Change::Removed => format!("{names} was removed from {session_name}"),
            Change::Stopped if many => format!("The video of {names} stopped"),
            Change::Stopped => format!("{names}'s video stopped"),
            Change::Lost => format!("{names} lost connection"),
            Change::Back if many => format!("{names} are back"),
            Change::Back => format!("{names} is back"),
        }
    }

    /// "Ada", "Ada and Ben", "7 people".
    fn names(&self) -> String {
        match &self.who[..] {
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
    pub(super) fn change(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        (state, reason): (ParticipantState, Option<LeaveReason>),
    ) -> Option<Change> {
        let participant = (session.clone(), participant.clone());
        match state {
            // An error banner shows why the participant is unreachable.
            ParticipantState::Connecting | ParticipantState::Unreachable => None,
            ParticipantState::Live if self.lost.remove(&participant) => Some(Change::Back),
            ParticipantState::Live if self.met.remove(&participant) => Some(Change::Met),
            ParticipantState::Live => Some(Change::Joined),
            ParticipantState::Reconnecting | ParticipantState::Gone => {
                self.lost.insert(participant).then_some(Change::Lost)
            }
            ParticipantState::Left => {
                let was_lost = self.lost.remove(&participant);
                self.met.remove(&participant);
                match reason {
                    Some(LeaveReason::Ejected) => Some(Change::Removed),
                    Some(LeaveReason::Lost) => (!was_lost).then_some(Change::Lost),
                    Some(LeaveReason::Left | LeaveReason::Replaced) | None => Some(Change::Left),
                }
            }
        }
    }

    /// Shows that this user has joined a session. Participants that are there already are added
    /// once they are connected.
    pub(super) fn arrived(&mut self, snapshot: &Snapshot, session: &SessionId, now: f64) {
        let found = snapshot.sessions.iter().find(|one| one.session == *session);
        let participants = found.into_iter().flat_map(|one| &one.participants);
        self.met.extend(participants.map(|one| (session.clone(), one.participant.clone())));
        let session_name = words::the_place(snapshot, session);
        self.tell(
            Changed { change: Change::Met, who: vec![], place: session_name },
            Some(session),
            now,
        );
    }

    /// Shows a change of a participant, merged with participants that had the same change just
    /// before.
    pub(crate) fn people(
        &mut self,
        change: Change,
        participant: (ParticipantId, String),
        (snapshot, session): (&Snapshot, &SessionId),
        now: f64,
    ) {
        if change.is_of_the_line() || matches!(change, Change::Left | Change::Removed) {
            self.forget(&participant.0, now);
        }
        let is_same = |toast: &Toast| match &toast.about {
            About::People(content) => {
                content.change == change
                    && (change.is_of_the_line() || toast.session.as_ref() == Some(session))
            }
            About::Itself | About::Chat => false,
        };
        let known = self.toasts.iter().position(is_same).and_then(|at| self.toasts.remove(at));
        let session_name = words::the_place(snapshot, session);
        let Some(Toast { about: About::People(mut content), session: known_session, .. }) = known
        else {
            return self.tell(
                Changed { change, who: vec![participant], place: session_name },
                Some(session),
                now,
            );
        };
        content.who.retain(|(id, _)| *id != participant.0);
        content.who.push(participant);
        let common_session = known_session.filter(|known| known == session);
        self.tell(content, common_session.as_ref(), now);
    }

    /// Removes a participant from the toasts about connections, because they are outdated.
    fn forget(&mut self, participant: &ParticipantId, now: f64) {
        for toast in &mut self.toasts {
            let About::People(content) = &mut toast.about else { continue };
            if !content.change.is_of_the_line() {
                continue;
            }
            content.who.retain(|(id, _)| id != participant);
            if content.who.is_empty() {
                toast.until = now;
            } else {
                toast.text = content.text();
            }
        }
        self.toasts.retain(|toast| toast.until > now);
    }

    fn tell(&mut self, content: Changed, session: Option<&SessionId>, now: f64) {
        let (text, session) = (content.text(), session.cloned());
        self.push(Toast { text, session, about: About::People(content), until: now + TOAST });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::staged::{id, session, with},
        model::{Event, Role, SessionKind},
    };

    fn person(index: u8) -> ParticipantId {
        ParticipantId::from_digest([index; 10])
    }

    fn event(session: &str, index: u8, state: ParticipantState) -> Event {
        let (session, participant) = (id(session), person(index));
        let name = ["Ada", "Ben", "Cleo", "Dan"][usize::from(index)].to_owned();
        Event::Participant { session, participant, name, state, reason: None }
    }

    fn texts(notices: &Notices) -> Vec<&str> {
        notices.toasts.iter().map(|toast| toast.text.as_str()).collect()
    }

    #[test]
    fn participants_that_join_together_share_a_toast() {
        let snapshot = with(vec![session("a", SessionKind::FIVE[0], Role::Opener, 0)]);
        let mut notices = Notices::default();
        let mut shown = vec![];
        for index in 0..4 {
            notices.note(&event("a", index, ParticipantState::Live), &snapshot, 0.0);
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
                notices.note(&event(session, 0, state), &snapshot, 0.0);
            }
        }
        assert_eq!(texts(&notices), ["Ada lost connection"]);
        notices.note(&event("a", 1, ParticipantState::Reconnecting), &snapshot, 0.0);
        assert_eq!(texts(&notices), ["Ada and Ben lost connection"]);
        notices.note(&event("a", 0, ParticipantState::Connecting), &snapshot, 1.0);
        notices.note(&event("a", 0, ParticipantState::Live), &snapshot, 1.0);
        assert_eq!(texts(&notices), ["Ben lost connection", "Ada is back"]);
    }

    #[test]
    fn a_frozen_video_is_shown_until_its_participant_disconnects() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let participant = (person(0), "Ada".to_owned());
        notices.people(Change::Stopped, participant, (&snapshot, &id("a")), 0.0);
        assert_eq!(texts(&notices), ["Ada's video stopped"]);
        notices.note(&event("a", 0, ParticipantState::Reconnecting), &snapshot, 3.0);
        assert_eq!(texts(&notices), ["Ada lost connection"]);
    }

    #[test]
    fn joining_shows_the_participants_present_and_later_ones_as_joined() {
        let snapshot = with(vec![session("a", SessionKind::FIVE[1], Role::Guest, 1)]);
        let mut notices = Notices::default();
        let joined = Event::Joined { session: id("a"), kind: SessionKind::FIVE[1] };
        notices.note(&joined, &snapshot, 0.0);
        assert_eq!(texts(&notices), ["You joined the broadcast"]);
        notices.note(&event("a", 0, ParticipantState::Live), &snapshot, 0.1);
        assert_eq!(texts(&notices), ["You joined the broadcast with Ada"]);
        notices.note(&event("a", 1, ParticipantState::Live), &snapshot, 1.0);
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
            notices.note(&left, &snapshot, 0.0);
        }
        assert_eq!(texts(&notices), ["Ada was removed from session a", "Ben left session a"]);
    }
}
