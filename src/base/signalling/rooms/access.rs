//! Who may take a new seat in a session: it may be locked, and its owner may have ejected the
//! participant.

use std::time::Duration;

use crate::model::{
    ErrorCode, HubMessage, Instance, MediaTime, ParticipantId, RemovedMember, SessionId,
};

use super::{
    SourceAddress,
    home::{Home, Sender},
    session::{Seat, Session},
};

/// How long an ejected participant stays excluded.
const EJECTED_FOR: Duration = Duration::from_secs(600);

/// The most participants that are excluded from one session; beyond it, the one ejected first may
/// come again.
const MAX_EJECTED: usize = 64;

/// Restricts new seats in a session. A participant with a seat keeps it, and may come back to it.
#[derive(Default)]
pub(super) struct Access {
    is_locked: bool,
    /// In the order of ejection.
    ejected: Vec<EjectedMember>,
}

/// An ejected participant.
struct EjectedMember {
    participant: ParticipantId,
    /// The run of the program: it stays the same when the program comes with another token.
    instance: Instance,
    /// The address, if the owner asked to exclude it.
    source: Option<SourceAddress>,
    name: String,
    until: MediaTime,
}

impl Access {
    /// Why a participant may not take a seat; `None` if it may.
    fn check(&self, sender: &Sender, now: MediaTime) -> Option<(ErrorCode, &'static str)> {
        let matches = |member: &EjectedMember| {
            now < member.until
                && (member.participant == sender.participant
                    || member.instance == sender.instance
                    || (member.source.is_some() && member.source == sender.source))
        };
        if self.ejected.iter().any(matches) {
            return Some((ErrorCode::NotAllowed, "has removed you; try again later"));
        }
        let text = "lets nobody new in for now; try again later";
        self.is_locked.then_some((ErrorCode::SessionFull, text))
    }

    /// Whether nobody new is let in.
    pub(super) fn is_locked(&self) -> bool {
        self.is_locked
    }

    fn add_ejected(&mut self, seat: &Seat, source: Option<SourceAddress>, now: MediaTime) {
        self.ejected.retain(|member| member.participant != seat.participant && now < member.until);
        if self.ejected.len() >= MAX_EJECTED {
            self.ejected.remove(0);
        }
        self.ejected.push(EjectedMember {
            participant: seat.participant.clone(),
            instance: seat.instance.clone(),
            source,
            name: seat.name.clone(),
            until: now + EJECTED_FOR,
        });
    }

    fn is_unrestricted(&self, now: MediaTime) -> bool {
        !self.is_locked && self.ejected.iter().all(|member| member.until <= now)
    }

    fn to_message(&self, session: SessionId, now: MediaTime) -> HubMessage {
        let ejected = self.ejected.iter().filter(|member| now < member.until);
        let removed = ejected.map(|member| RemovedMember {
            participant: member.participant.clone(),
            name: member.name.clone(),
            rest_ms: member.until.since(now).as_millis() as u64,
        });
        HubMessage::Access { session, locked: self.is_locked, removed: removed.collect() }
    }
}

impl Home {
    /// Whether a participant may take a new seat in an open session. If not, it is sent an error.
    pub(super) fn check_access(&mut self, sender: &Sender, session: &SessionId) -> bool {
        let Some(room) = self.sessions.get(session) else { return false };
        let Some((code, why)) = room.access.check(sender, self.now) else { return true };
        let text = format!("the host of session {session} {why}");
        self.send_error(&sender.participant, code, Some(session), &text);
        false
    }

    /// Excludes a member for [`EJECTED_FOR`], and with `by_address` everybody at its address, if
    /// that is another machine's. Returns `false` if the participant is not a member. The caller
    /// ejects the member afterwards.
    pub(super) fn exclude_member(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        by_address: bool,
    ) -> bool {
        let Some(room) = self.sessions.get_mut(session) else { return false };
        let seat = room.seats.iter().find(|seat| seat.participant == *participant);
        if let Some(seat) = seat {
            let source = seat.source.filter(|_| by_address);
            room.access.add_ejected(seat, source, self.now);
        }
        seat.is_some()
    }

    /// Lets an ejected participant take a seat again.
    pub(super) fn handle_allow(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        ejected: &ParticipantId,
    ) {
        if self.check_owner(participant, session) {
            if let Some(room) = self.sessions.get_mut(session) {
                room.access.ejected.retain(|member| member.participant != *ejected);
            }
            self.notify_access(session, participant);
        }
    }

    /// Locks a session, so that nobody takes a new seat, or unlocks it.
    pub(super) fn handle_lock(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        is_locked: bool,
    ) {
        if self.check_owner(participant, session) {
            if let Some(room) = self.sessions.get_mut(session) {
                room.access.is_locked = is_locked;
            }
            self.notify_access(session, participant);
        }
    }

    /// Sends the owner the access rules of its session, if it holds its seat.
    pub(super) fn notify_access(&mut self, session: &SessionId, owner: &ParticipantId) {
        let room = self.sessions.get(session);
        let is_connected = |room: &&Session| room.seat(owner).is_some_and(Seat::is_connected);
        if let Some(room) = room.filter(is_connected) {
            let message = room.access.to_message(session.clone(), self.now);
            self.notify(owner, message);
        }
    }

    /// The same, but only if the session is locked or somebody is excluded.
    pub(super) fn notify_access_if_restricted(
        &mut self,
        session: &SessionId,
        owner: &ParticipantId,
    ) {
        let room = self.sessions.get(session);
        if room.is_some_and(|room| !room.access.is_unrestricted(self.now)) {
            self.notify_access(session, owner);
        }
    }
}
