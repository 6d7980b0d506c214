//! Toasts about people: who came, left, froze, was lost and is back. Several people to whom the same
//! happens share one.

use super::{About, Notices, TOAST, Toast};
use crate::{
    model::{LeaveReason, ParticipantId, ParticipantState, SessionId, Snapshot},
    ui::{bidi, words},
};

/// What happened to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// Was there when we came.
    Met,
    /// Came.
    Joined,
    /// Went.
    Left,
    /// Was removed by the host.
    Removed,
    /// Sends no picture any more, though the camera is on.
    Stopped,
    /// Does not answer any more.
    Lost,
    /// Was lost, and answers again.
    Back,
}

impl Change {
    /// Whether it is about the person's connection, whatever the session.
    const fn is_of_the_line(self) -> bool {
        matches!(self, Self::Stopped | Self::Lost | Self::Back)
    }
}

/// What a toast tells about people.
#[derive(Debug)]
pub(super) struct Changed {
    change: Change,
    who: Vec<(ParticipantId, String)>,
    /// The session in a sentence.
    place: String,
}

impl Changed {
    fn text(&self) -> String {
        let (place, who) = (&self.place, self.names());
        let many = self.who.len() > 1;
        match self.change {
            Change::Met if self.who.is_empty() => format!("You joined {place}"),
            Change::Met => format!("You joined {place} with {who}"),
            Change::Joined => format!("{who} joined {place}"),
            Change::Left => format!("{who} left {place}"),
            Change::Removed if many => format!("{who} were removed from {place}"),
            Change::Removed => format!("{who} was removed from {place}"),
            Change::Stopped if many => format!("The video of {who} stopped"),
            Change::Stopped => format!("{who}'s video stopped"),
            Change::Lost => format!("{who} lost connection"),
            Change::Back if many => format!("{who} are back"),
            Change::Back => format!("{who} is back"),
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
    /// What a person's new state means, if it is worth a toast.
    pub(super) fn change(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        (state, reason): (ParticipantState, Option<LeaveReason>),
    ) -> Option<Change> {
        let whom = (session.clone(), participant.clone());
        match state {
            // An error says why somebody is unreachable.
            ParticipantState::Connecting | ParticipantState::Unreachable => None,
            ParticipantState::Live if self.lost.remove(&whom) => Some(Change::Back),
            ParticipantState::Live if self.met.remove(&whom) => Some(Change::Met),
            ParticipantState::Live => Some(Change::Joined),
            ParticipantState::Reconnecting | ParticipantState::Gone => {
                self.lost.insert(whom).then_some(Change::Lost)
            }
            ParticipantState::Left => {
                let was_lost = self.lost.remove(&whom);
                self.met.remove(&whom);
                match reason {
                    Some(LeaveReason::Ejected) => Some(Change::Removed),
                    Some(LeaveReason::Lost) => (!was_lost).then_some(Change::Lost),
                    Some(LeaveReason::Left | LeaveReason::Replaced) | None => Some(Change::Left),
                }
            }
        }
    }

    /// Tells that we are in a session now; whoever is there already is added as soon as connected.
    pub(super) fn arrived(&mut self, snapshot: &Snapshot, session: &SessionId, now: f64) {
        let found = snapshot.sessions.iter().find(|one| one.session == *session);
        let people = found.into_iter().flat_map(|one| &one.participants);
        self.met.extend(people.map(|one| (session.clone(), one.participant.clone())));
        let place = words::the_place(snapshot, session);
        self.tell(Changed { change: Change::Met, who: vec![], place }, Some(session), now);
    }

    /// Tells what happened to somebody, together with others to whom it happened just now.
    pub(crate) fn people(
        &mut self,
        change: Change,
        who: (ParticipantId, String),
        (snapshot, session): (&Snapshot, &SessionId),
        now: f64,
    ) {
        if change.is_of_the_line() || matches!(change, Change::Left | Change::Removed) {
            self.forget(&who.0, now);
        }
        let is_same = |toast: &Toast| match &toast.about {
            About::People(told) => {
                told.change == change
                    && (change.is_of_the_line() || toast.session.as_ref() == Some(session))
            }
            About::Itself | About::Chat => false,
        };
        let known = self.toasts.iter().position(is_same).and_then(|at| self.toasts.remove(at));
        let place = words::the_place(snapshot, session);
        let Some(Toast { about: About::People(mut told), session: where_to, .. }) = known else {
            return self.tell(Changed { change, who: vec![who], place }, Some(session), now);
        };
        told.who.retain(|(id, _)| *id != who.0);
        told.who.push(who);
        let of_one = where_to.filter(|of| of == session);
        self.tell(told, of_one.as_ref(), now);
    }

    /// Takes a person out of what is told about connections: it is past.
    fn forget(&mut self, whom: &ParticipantId, now: f64) {
        for toast in &mut self.toasts {
            let About::People(told) = &mut toast.about else { continue };
            if !told.change.is_of_the_line() {
                continue;
            }
            told.who.retain(|(id, _)| id != whom);
            if told.who.is_empty() {
                toast.until = now;
            } else {
                toast.text = told.text();
            }
        }
        self.toasts.retain(|toast| toast.until > now);
    }

    fn tell(&mut self, told: Changed, session: Option<&SessionId>, now: f64) {
        let (text, session) = (told.text(), session.cloned());
        self.push(Toast { text, session, about: About::People(told), until: now + TOAST });
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
    fn people_who_come_together_share_a_toast() {
        let snapshot = with(vec![session("a", SessionKind::FIVE[0], Role::Opener, 0)]);
        let mut notices = Notices::default();
        let mut told = vec![];
        for index in 0..4 {
            notices.note(&event("a", index, ParticipantState::Live), &snapshot, 0.0);
            told.push(texts(&notices).join(", "));
        }
        assert_eq!(
            told,
            [
                "Ada joined the conference",
                "Ada and Ben joined the conference",
                "3 people joined the conference",
                "4 people joined the conference"
            ]
        );
    }

    #[test]
    fn who_is_lost_is_told_once_in_whatever_sessions_and_then_that_they_are_back() {
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
    fn a_picture_that_stopped_is_told_until_its_person_is_lost() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        let whom = (person(0), "Ada".to_owned());
        notices.people(Change::Stopped, whom, (&snapshot, &id("a")), 0.0);
        assert_eq!(texts(&notices), ["Ada's video stopped"]);
        notices.note(&event("a", 0, ParticipantState::Reconnecting), &snapshot, 3.0);
        assert_eq!(texts(&notices), ["Ada lost connection"]);
    }

    #[test]
    fn who_joins_is_told_whom_they_met_and_nobody_else_joined() {
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
    fn who_was_removed_did_not_leave() {
        let (mut notices, snapshot) = (Notices::default(), Snapshot::default());
        for (index, reason) in [(0, LeaveReason::Ejected), (1, LeaveReason::Left)] {
            let mut left = event("a", index, ParticipantState::Left);
            if let Event::Participant { reason: told, .. } = &mut left {
                *told = Some(reason);
            }
            notices.note(&left, &snapshot, 0.0);
        }
        assert_eq!(texts(&notices), ["Ada was removed from session a", "Ben left session a"]);
    }
}
