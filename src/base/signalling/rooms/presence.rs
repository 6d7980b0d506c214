//! Seats of participants that come, are silent, and go; and what the others hear of it.

use std::{sync::Arc, time::Duration};

use crate::model::{HubMessage, MediaTime, ParticipantId, Presence, Role, SessionId};

use super::{
    home::{Home, HomeOutput, Sender},
    session::{Seat, SeatState},
};

/// A seat is reserved for this long after the last activity of its participant: a crashed program
/// is started again within a minute, or not at all.
const SEAT_RESERVED_FOR: Duration = Duration::from_secs(60);

impl Home {
    /// Whether a participant has a seat in any session, connected or not.
    pub(super) fn has_any_seat(&self, participant: &ParticipantId) -> bool {
        self.members.get(participant).is_some_and(|member| !member.seats.is_empty())
    }

    /// Whether a participant has a seat in a session, connected or not.
    pub(super) fn has_seat(&self, participant: &ParticipantId, session: &SessionId) -> bool {
        self.members.get(participant).is_some_and(|member| member.seats.contains(session))
    }

    /// Notes whether the connection of a participant is silent, and notifies the others.
    pub(super) fn set_silent_since(
        &mut self,
        participant: &ParticipantId,
        since: Option<MediaTime>,
    ) {
        // Without a seat or a wait nobody asks for it: a request is a sign of life.
        let Some(member) = self.members.get_mut(participant) else { return };
        member.silent_since = since;
        for session in self.connected_seats(participant) {
            self.notify_presence(&session, participant);
        }
    }

    /// Changes the name of a participant in the seats that its connection holds. A reserved seat
    /// keeps the old name until the participant reclaims it.
    pub(super) fn on_renamed(&mut self, sender: &Arc<Sender>) {
        let participant = &sender.participant;
        for session in self.connected_seats(participant) {
            let Some(seat) = self.seat_mut(&session, participant) else { continue };
            seat.name.clone_from(&sender.name);
            let renamed = HubMessage::ParticipantRenamed {
                session: session.clone(),
                participant: participant.clone(),
                name: sender.name.clone(),
            };
            self.notify_paired(&session, participant, renamed);
        }
        let waits = self.members.get(participant).map(|member| member.waiting_for.clone());
        for session in waits.unwrap_or_default() {
            let waiting = self.waiting.get_mut(&session).into_iter().flatten();
            for other in waiting.filter(|other| other.participant == *participant) {
                *other = sender.clone();
            }
        }
    }

    /// Ends the waits of a participant whose connection is gone, and reserves its seats.
    pub(super) fn on_gone(&mut self, participant: &ParticipantId, since: MediaTime) {
        let Some(member) = self.members.get_mut(participant) else { return };
        let was_silent = member.silent_since.take().is_some();
        for session in std::mem::take(&mut member.waiting_for) {
            self.remove_waiting(&session, participant);
        }
        let sessions = self.connected_seats(participant);
        self.have_seats_changed |= !sessions.is_empty();
        for session in sessions {
            let Some(seat) = self.seat_mut(&session, participant) else { continue };
            seat.state = SeatState::Reserved { since };
            self.timers.insert((since + SEAT_RESERVED_FOR, session.clone(), participant.clone()));
            if !was_silent {
                self.notify_presence(&session, participant);
            }
        }
        self.forget_if_idle(participant);
    }

    /// Connects a seat to the participant's connection, and notifies the others of a change.
    pub(super) fn reclaim_seat(&mut self, session: &SessionId, sender: &Sender) {
        let participant = &sender.participant;
        self.have_seats_changed = true;
        let Some(seat) = self.seat_mut(session, participant) else { return };
        let is_changed = seat.instance != sender.instance || seat.name != sender.name;
        seat.name.clone_from(&sender.name);
        seat.instance.clone_from(&sender.instance);
        seat.source = sender.source;
        let before = std::mem::replace(&mut seat.state, SeatState::Connected);
        self.cancel_expiry(session, participant, before);
        if is_changed {
            self.notify_joined(session, participant);
        } else if before != SeatState::Connected {
            self.notify_presence(session, participant);
        }
    }

    /// A new seat; the caller puts it into the session.
    pub(super) fn create_seat(&mut self, sender: &Sender, session: &SessionId, role: Role) -> Seat {
        self.have_seats_changed = true;
        let participant = sender.participant.clone();
        let member = self.members.entry(participant.clone()).or_default();
        let is_first = member.seats.is_empty();
        member.seats.insert(session.clone());
        if is_first {
            let participant = participant.clone();
            self.push(HomeOutput::SeatsChanged { participant, has_any: true });
        }
        Seat {
            participant,
            name: sender.name.clone(),
            instance: sender.instance.clone(),
            source: sender.source,
            role,
            state: SeatState::Connected,
        }
    }

    /// Removes a seat from a session. The session may have no opener afterwards; the caller handles
    /// that.
    pub(super) fn remove_seat(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
    ) -> Option<Seat> {
        let room = self.sessions.get_mut(session)?;
        let index = room.seats.iter().position(|seat| seat.participant == *participant)?;
        let seat = room.seats.remove(index);
        self.have_seats_changed = true;
        self.cancel_expiry(session, participant, seat.state);
        if let Some(member) = self.members.get_mut(participant) {
            member.seats.remove(session);
            if member.seats.is_empty() {
                let participant = participant.clone();
                self.push(HomeOutput::SeatsChanged { participant, has_any: false });
            }
        }
        self.forget_if_idle(participant);
        Some(seat)
    }

    /// The presence of the participant of a seat.
    pub(super) fn presence(&self, seat: &Seat) -> Presence {
        let away = |since| Presence::Away { silent_ms: self.now.since(since).as_millis() as u64 };
        let silent = || self.members.get(&seat.participant).and_then(|member| member.silent_since);
        match seat.state {
            SeatState::Reserved { since } => away(since),
            SeatState::Connected => silent().map_or(Presence::Here, away),
        }
    }

    /// Notifies the paired participants that a participant joined, or came back with another name
    /// or instance.
    pub(super) fn notify_joined(&mut self, session: &SessionId, participant: &ParticipantId) {
        let Some(seat) = self.sessions.get(session).and_then(|room| room.seat(participant)) else {
            return;
        };
        let (session_id, member) = (session.clone(), seat.member(self.presence(seat)));
        let joined = HubMessage::ParticipantJoined { session: session_id, participant: member };
        self.notify_paired(session, participant, joined);
    }

    /// Forgets a participant without seats and waits.
    pub(super) fn forget_if_idle(&mut self, participant: &ParticipantId) {
        let member = self.members.get(participant);
        if member.is_some_and(|member| member.seats.is_empty() && member.waiting_for.is_empty()) {
            self.members.remove(participant);
        }
    }

    fn notify_presence(&mut self, session: &SessionId, participant: &ParticipantId) {
        let Some(seat) = self.sessions.get(session).and_then(|room| room.seat(participant)) else {
            return;
        };
        let presence = HubMessage::ParticipantPresence {
            session: session.clone(),
            participant: participant.clone(),
            presence: self.presence(seat),
        };
        self.notify_paired(session, participant, presence);
    }

    fn seat_mut(&mut self, session: &SessionId, participant: &ParticipantId) -> Option<&mut Seat> {
        self.sessions.get_mut(session).and_then(|room| room.seat_mut(participant))
    }

    fn cancel_expiry(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        state: SeatState,
    ) {
        if let SeatState::Reserved { since } = state {
            let timer = (since + SEAT_RESERVED_FOR, session.clone(), participant.clone());
            self.timers.remove(&timer);
        }
    }

    fn connected_seats(&self, participant: &ParticipantId) -> Vec<SessionId> {
        let Some(member) = self.members.get(participant) else { return vec![] };
        let is_held = |session: &&SessionId| {
            let seat = self.sessions.get(*session).and_then(|room| room.seat(participant));
            seat.is_some_and(Seat::is_connected)
        };
        member.seats.iter().filter(is_held).cloned().collect()
    }
}
