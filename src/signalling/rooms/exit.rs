//! Leaving, closing, ejecting and losing members; and the successor of an owner.

use crate::model::{
    CloseReason, ErrorCode, HubMessage, LeaveReason, ParticipantId, Presence, Role, SessionId,
};

use super::{Rooms, session::Session};

impl Rooms {
    /// Removes a participant from a session or from its waiting list; does nothing if it is in
    /// neither.
    pub(super) fn leave(&mut self, participant: &ParticipantId, session: &SessionId) {
        self.stop_waiting(session, participant);
        self.take_out(session, participant, LeaveReason::Left);
    }

    /// Closes a session for everybody, the owner included.
    pub(super) fn close(&mut self, participant: &ParticipantId, session: &SessionId) {
        if self.is_owners_right(participant, session) {
            self.end(session, CloseReason::Closed);
        }
    }

    /// Ejects a participant; does nothing if it has no seat.
    ///
    /// An ejected participant is excluded for a while, with `by_address` everybody at the same
    /// address.
    pub(super) fn eject(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        (ejected, by_address): (&ParticipantId, bool),
    ) {
        if !self.is_owners_right(participant, session) {
            return;
        }
        if participant == ejected {
            let text = "you cannot eject yourself; leave or close the session instead";
            return self.refuse(participant, ErrorCode::NotAllowed, Some(session), text);
        }
        if !self.keep_out(session, ejected, by_address) {
            return;
        }
        self.tell_over(session, ejected, CloseReason::Ejected);
        self.take_out(session, ejected, LeaveReason::Ejected);
        self.tell_access(session, participant);
    }

    /// Gives up a seat that was not reclaimed in time.
    pub(super) fn give_up_seat(&mut self, session: &SessionId, participant: &ParticipantId) {
        self.take_out(session, participant, LeaveReason::Lost);
    }

    /// Tells a former owner that another participant took the session over.
    pub(super) fn tell_replaced(&mut self, session: &SessionId, former: &ParticipantId) {
        self.tell_over(session, former, CloseReason::Replaced);
    }

    /// Removes a member, notifies the paired members, and appoints a successor or ends the session
    /// if the member was the opener.
    fn take_out(&mut self, session: &SessionId, participant: &ParticipantId, reason: LeaveReason) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(participant) else { return };
        let (is_owner, outlives_owner) = (seat.role == Role::Opener, room.kind.outlives_opener());
        if is_owner && !outlives_owner {
            self.remove_seat(session, participant);
            return self.end(session, over(reason));
        }
        let (id, leaver) = (session.clone(), participant.clone());
        let left = HubMessage::ParticipantLeft { session: id, participant: leaver, reason };
        self.tell_linked(session, participant, &left);
        self.remove_seat(session, participant);
        if is_owner {
            self.succeed(session);
        }
    }

    /// Makes a member the owner: the one that came first among those that are here, or else the one
    /// that came first. A session without members ends.
    fn succeed(&mut self, session: &SessionId) {
        let Some(room) = self.sessions.get(session) else { return };
        let is_here = |index: &usize| self.presence(&room.seats[*index]) == Presence::Here;
        let successor = (0..room.seats.len()).find(is_here).unwrap_or(0);
        let successor_count = room.succession.saturating_add(1);
        let owner_key = match session.is_bound() {
            true => self.keys.for_heir(session, successor_count),
            false => self.keys.fresh(),
        };
        let Some(room) = self.sessions.get_mut(session) else { return };
        let Some(seat) = room.seats.get_mut(successor) else {
            return self.end(session, CloseReason::OpenerLeft);
        };
        room.succession = successor_count;
        seat.role = Role::Opener;
        let successor = seat.participant.clone();
        room.owner_key = owner_key.clone();
        let receivers = held(room);
        for receiver in receivers {
            let owner_key = (receiver == successor).then(|| owner_key.clone());
            let (session, participant) = (session.clone(), successor.clone());
            self.tell(&receiver, HubMessage::Owner { session, participant, owner_key });
        }
        self.tell_access_if_any(session, &successor);
    }

    /// Ends a session for all its members.
    fn end(&mut self, session: &SessionId, reason: CloseReason) {
        let Some(room) = self.sessions.get(session) else { return };
        let participants: Vec<_> = room.seats.iter().map(|seat| seat.participant.clone()).collect();
        for participant in participants {
            self.tell_over(session, &participant, reason);
            self.remove_seat(session, &participant);
        }
        self.sessions.remove(session);
        self.own_sessions.remove(session);
    }

    /// Sends `closed` to a member, if its connection holds its seat.
    fn tell_over(&mut self, session: &SessionId, participant: &ParticipantId, reason: CloseReason) {
        let seat = self.sessions.get(session).and_then(|room| room.seat(participant));
        if seat.is_some_and(|seat| seat.is_held()) {
            self.tell(participant, HubMessage::Closed { session: session.clone(), reason });
        }
    }

    pub(super) fn is_owners_right(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
    ) -> bool {
        let Some(room) = self.sessions.get(session) else {
            let text = format!("no session {session} is open at this hub");
            self.refuse(participant, ErrorCode::NoSuchSession, Some(session), &text);
            return false;
        };
        let is_owner = room.is_owner(participant);
        if !is_owner {
            let text = format!("only the owner of session {session} may do that");
            self.refuse(participant, ErrorCode::NotAllowed, Some(session), &text);
        }
        is_owner
    }
}

/// The participants whose connections hold their seats.
fn held(room: &Session) -> Vec<ParticipantId> {
    let seats = room.seats.iter().filter(|seat| seat.is_held());
    seats.map(|seat| seat.participant.clone()).collect()
}

/// The reason that the members of a session get when the opener left for `reason`.
fn over(reason: LeaveReason) -> CloseReason {
    match reason {
        LeaveReason::Lost => CloseReason::OpenerLost,
        LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => CloseReason::OpenerLeft,
    }
}
