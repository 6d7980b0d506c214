//! Leaving, closing, ejecting and losing members; and the successor of an owner.

use crate::model::{
    CloseReason, ErrorCode, HubMessage, LeaveReason, ParticipantId, Presence, Role, SessionId,
};

use super::{home::Home, session::Session};

impl Home {
    /// Removes a participant from a session or from its waiting list; does nothing if it is in
    /// neither.
    pub(super) fn handle_leave(&mut self, participant: &ParticipantId, session: &SessionId) {
        self.remove_waiting(session, participant);
        self.remove_member(session, participant, LeaveReason::Left);
    }

    /// Closes a session for everybody, the owner included.
    pub(super) fn handle_close(&mut self, participant: &ParticipantId, session: &SessionId) {
        if self.check_owner(participant, session) {
            self.end_session(session, CloseReason::Closed);
        }
    }

    /// Ejects a participant; does nothing if it has no seat.
    ///
    /// An ejected participant is excluded for a while, with `by_address` everybody at the same
    /// address.
    pub(super) fn handle_eject(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        (ejected, by_address): (&ParticipantId, bool),
    ) {
        if !self.check_owner(participant, session) {
            return;
        }
        if participant == ejected {
            let text = "you cannot eject yourself; leave or close the session instead";
            return self.send_error(participant, ErrorCode::NotAllowed, Some(session), text);
        }
        if !self.exclude_member(session, ejected, by_address) {
            return;
        }
        self.notify_closed(session, ejected, CloseReason::Ejected);
        self.remove_member(session, ejected, LeaveReason::Ejected);
        self.notify_access(session, participant);
    }

    /// Gives up a seat that was not reclaimed in time.
    pub(super) fn expire_seat(&mut self, session: &SessionId, participant: &ParticipantId) {
        self.remove_member(session, participant, LeaveReason::Lost);
    }

    /// Tells a former owner that another participant took the session over.
    pub(super) fn notify_replaced(&mut self, session: &SessionId, former: &ParticipantId) {
        self.notify_closed(session, former, CloseReason::Replaced);
    }

    /// Removes a member, notifies the paired members, and appoints a successor or ends the session
    /// if the member was the opener.
    fn remove_member(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        reason: LeaveReason,
    ) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(participant) else { return };
        let (is_owner, outlives_owner) = (seat.role == Role::Opener, room.kind.outlives_opener());
        if is_owner && !outlives_owner {
            self.remove_seat(session, participant);
            return self.end_session(session, close_reason(reason));
        }
        let (id, leaver) = (session.clone(), participant.clone());
        let left = HubMessage::ParticipantLeft { session: id, participant: leaver, reason };
        self.notify_paired(session, participant, left);
        self.remove_seat(session, participant);
        if is_owner {
            self.appoint_successor(session);
        }
    }

    /// Makes a member the owner: the one that came first among those that are here, or else the one
    /// that came first. A session without members ends.
    fn appoint_successor(&mut self, session: &SessionId) {
        let Some(room) = self.sessions.get(session) else { return };
        let is_here = |index: &usize| self.presence(&room.seats[*index]) == Presence::Here;
        let successor = (0..room.seats.len()).find(is_here).unwrap_or(0);
        let successor_count = room.successor_count.saturating_add(1);
        let owner_key = match session.is_bound() {
            true => self.keys.for_successor(session, successor_count),
            false => self.keys.generate(),
        };
        let Some(room) = self.sessions.get_mut(session) else { return };
        let Some(seat) = room.seats.get_mut(successor) else {
            return self.end_session(session, CloseReason::OpenerLeft);
        };
        room.successor_count = successor_count;
        seat.role = Role::Opener;
        let successor = seat.participant.clone();
        room.owner_key = owner_key.clone();
        let receivers = connected_participants(room);
        for receiver in receivers {
            let owner_key = (receiver == successor).then(|| owner_key.clone());
            let (session, participant) = (session.clone(), successor.clone());
            self.notify(&receiver, HubMessage::Owner { session, participant, owner_key });
        }
        self.notify_access_if_restricted(session, &successor);
    }

    /// Ends a session for all its members.
    fn end_session(&mut self, session: &SessionId, reason: CloseReason) {
        let Some(room) = self.sessions.get(session) else { return };
        let participants: Vec<_> = room.seats.iter().map(|seat| seat.participant.clone()).collect();
        for participant in participants {
            self.notify_closed(session, &participant, reason);
            self.remove_seat(session, &participant);
        }
        self.sessions.remove(session);
        self.own_sessions.remove(session);
    }

    /// Sends `closed` to a member, if its connection holds its seat.
    fn notify_closed(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        reason: CloseReason,
    ) {
        let seat = self.sessions.get(session).and_then(|room| room.seat(participant));
        if seat.is_some_and(|seat| seat.is_connected()) {
            self.notify(participant, HubMessage::Closed { session: session.clone(), reason });
        }
    }

    pub(super) fn check_owner(&mut self, participant: &ParticipantId, session: &SessionId) -> bool {
        let Some(room) = self.sessions.get(session) else {
            let text = format!("no session {session} is open at this hub");
            self.send_error(participant, ErrorCode::NoSuchSession, Some(session), &text);
            return false;
        };
        let is_owner = room.is_owner(participant);
        if !is_owner {
            let text = format!("only the owner of session {session} may do that");
            self.send_error(participant, ErrorCode::NotAllowed, Some(session), &text);
        }
        is_owner
    }
}

/// The participants whose connections hold their seats.
fn connected_participants(room: &Session) -> Vec<ParticipantId> {
    let seats = room.seats.iter().filter(|seat| seat.is_connected());
    seats.map(|seat| seat.participant.clone()).collect()
}

/// The reason that the members of a session get when the opener left for `reason`.
fn close_reason(reason: LeaveReason) -> CloseReason {
    match reason {
        LeaveReason::Lost => CloseReason::OpenerLost,
        LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => CloseReason::OpenerLeft,
    }
}
