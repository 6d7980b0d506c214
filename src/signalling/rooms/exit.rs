//! The ways out of a session: leaving, closing, sending out, being lost; and who inherits.

use crate::model::{
    CloseReason, ErrorCode, HubMessage, LeaveReason, ParticipantId, Presence, Role, SessionId,
};

use super::{Rooms, session::Session};

impl Rooms {
    /// Takes somebody out who said so, or ends a wait; nothing if there is neither.
    pub(super) fn leave(&mut self, who: &ParticipantId, session: &SessionId) {
        self.stop_waiting(session, who);
        self.take_out(session, who, LeaveReason::Left);
    }

    /// Closes a session for everybody, the owner included.
    pub(super) fn close(&mut self, who: &ParticipantId, session: &SessionId) {
        if self.is_owners_right(who, session) {
            self.end(session, CloseReason::Closed);
        }
    }

    /// Sends somebody out; nothing if that person is out already.
    ///
    /// Who was sent out cannot come again for a while, nor anybody at the same address if
    /// `by_address`.
    pub(super) fn eject(
        &mut self,
        who: &ParticipantId,
        session: &SessionId,
        (whom, by_address): (&ParticipantId, bool),
    ) {
        if !self.is_owners_right(who, session) {
            return;
        }
        if who == whom {
            let text = "nobody sends oneself out; leave or close the session instead";
            return self.refuse(who, ErrorCode::NotAllowed, Some(session), text);
        }
        if !self.keep_out(session, whom, by_address) {
            return;
        }
        self.tell_over(session, whom, CloseReason::Ejected);
        self.take_out(session, whom, LeaveReason::Ejected);
        self.tell_access(session, who);
    }

    /// Gives up a seat that was not taken back in time.
    pub(super) fn give_up_seat(&mut self, session: &SessionId, who: &ParticipantId) {
        self.take_out(session, who, LeaveReason::Lost);
    }

    /// Tells a former owner that somebody else took the session over.
    pub(super) fn tell_replaced(&mut self, session: &SessionId, former: &ParticipantId) {
        self.tell_over(session, former, CloseReason::Replaced);
    }

    /// Takes a member out, tells those who were linked to it, and settles what becomes of a
    /// session without its opener.
    fn take_out(&mut self, session: &SessionId, who: &ParticipantId, reason: LeaveReason) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(who) else { return };
        let (is_owner, lives_on) = (seat.role == Role::Opener, room.kind.outlives_opener());
        if is_owner && !lives_on {
            self.remove_seat(session, who);
            return self.end(session, over(reason));
        }
        let (id, participant) = (session.clone(), who.clone());
        let news = HubMessage::ParticipantLeft { session: id, participant, reason };
        self.tell_linked(session, who, &news);
        self.remove_seat(session, who);
        if is_owner {
            self.succeed(session);
        }
    }

    /// Makes the member that came first and is here the owner; if nobody is here, the one that
    /// came first; if nobody is left, the session is over.
    fn succeed(&mut self, session: &SessionId) {
        let Some(room) = self.sessions.get(session) else { return };
        let is_here = |index: &usize| self.presence(&room.seats[*index]) == Presence::Here;
        let heir = (0..room.seats.len()).find(is_here).unwrap_or(0);
        let succession = room.succession.saturating_add(1);
        let owner_key = match session.is_bound() {
            true => self.keys.for_heir(session, succession),
            false => self.keys.fresh(),
        };
        let Some(room) = self.sessions.get_mut(session) else { return };
        let Some(seat) = room.seats.get_mut(heir) else {
            return self.end(session, CloseReason::OpenerLeft);
        };
        room.succession = succession;
        seat.role = Role::Opener;
        let heir = seat.participant.clone();
        room.owner_key = owner_key.clone();
        let hearers = held(room);
        for hearer in hearers {
            let owner_key = (hearer == heir).then(|| owner_key.clone());
            let (session, participant) = (session.clone(), heir.clone());
            self.tell(&hearer, HubMessage::Owner { session, participant, owner_key });
        }
        self.tell_access_if_any(session, &heir);
    }

    /// Ends a session for all that still sit in it.
    fn end(&mut self, session: &SessionId, reason: CloseReason) {
        let Some(room) = self.sessions.get(session) else { return };
        let everybody: Vec<_> = room.seats.iter().map(|seat| seat.participant.clone()).collect();
        for who in everybody {
            self.tell_over(session, &who, reason);
            self.remove_seat(session, &who);
        }
        self.sessions.remove(session);
        self.own_sessions.remove(session);
    }

    /// Tells a member that the session is over for it, if it sits there now.
    fn tell_over(&mut self, session: &SessionId, who: &ParticipantId, reason: CloseReason) {
        let seat = self.sessions.get(session).and_then(|room| room.seat(who));
        if seat.is_some_and(|seat| seat.is_held()) {
            self.tell(who, HubMessage::Closed { session: session.clone(), reason });
        }
    }

    pub(super) fn is_owners_right(&mut self, who: &ParticipantId, session: &SessionId) -> bool {
        let Some(room) = self.sessions.get(session) else {
            let text = format!("no session {session} is open at this hub");
            self.refuse(who, ErrorCode::NoSuchSession, Some(session), &text);
            return false;
        };
        let is_owner = room.is_owner(who);
        if !is_owner {
            let text = format!("only the owner of session {session} may do that");
            self.refuse(who, ErrorCode::NotAllowed, Some(session), &text);
        }
        is_owner
    }
}

/// Those who sit in a session now.
fn held(room: &Session) -> Vec<ParticipantId> {
    let seats = room.seats.iter().filter(|seat| seat.is_held());
    seats.map(|seat| seat.participant.clone()).collect()
}

/// Why the session of an opener that is out for that reason is over.
fn over(reason: LeaveReason) -> CloseReason {
    match reason {
        LeaveReason::Lost => CloseReason::OpenerLost,
        LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => CloseReason::OpenerLeft,
    }
}
