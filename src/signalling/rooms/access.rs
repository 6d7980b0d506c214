//! Who may take a new seat in a session: it may be locked, and its owner may have ejected the
//! participant.

use std::time::Duration;

use crate::model::{
    ErrorCode, HubMessage, Instance, MediaTime, ParticipantId, RemovedMember, SessionId,
};

use super::{
    Rooms, SourceAddress,
    links::Person,
    session::{Seat, Session},
};

/// How long an ejected participant stays excluded.
const REMOVED_FOR: Duration = Duration::from_secs(600);

/// The most participants that are excluded from one session; beyond it, the one ejected first may
/// come again.
const MAX_REMOVED: usize = 64;

/// Restricts new seats in a session. A participant with a seat keeps it, and may come back to it.
#[derive(Default)]
pub(super) struct Access {
    is_locked: bool,
    /// In the order of ejection.
    removed: Vec<Removed>,
}

/// An ejected participant.
struct Removed {
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
    fn refusal(
        &self,
        participant: &ParticipantId,
        record: &Person,
        now: MediaTime,
    ) -> Option<(ErrorCode, &'static str)> {
        let matches = |member: &Removed| {
            now < member.until
                && (member.participant == *participant
                    || member.instance == record.instance
                    || (member.source.is_some() && member.source == record.source))
        };
        if self.removed.iter().any(matches) {
            return Some((ErrorCode::NotAllowed, "has removed you; try again later"));
        }
        let text = "lets nobody new in for now; try again later";
        self.is_locked.then_some((ErrorCode::SessionFull, text))
    }

    fn remove(&mut self, seat: &Seat, source: Option<SourceAddress>, now: MediaTime) {
        self.removed.retain(|member| member.participant != seat.participant && now < member.until);
        if self.removed.len() >= MAX_REMOVED {
            self.removed.remove(0);
        }
        self.removed.push(Removed {
            participant: seat.participant.clone(),
            instance: seat.instance.clone(),
            source,
            name: seat.name.clone(),
            until: now + REMOVED_FOR,
        });
    }

    fn is_open(&self, now: MediaTime) -> bool {
        !self.is_locked && self.removed.iter().all(|member| member.until <= now)
    }

    fn message(&self, session: SessionId, now: MediaTime) -> HubMessage {
        let ejected = self.removed.iter().filter(|member| now < member.until);
        let removed = ejected.map(|member| RemovedMember {
            participant: member.participant.clone(),
            name: member.name.clone(),
            rest_ms: member.until.since(now).as_millis() as u64,
        });
        HubMessage::Access { session, locked: self.is_locked, removed: removed.collect() }
    }
}

impl Rooms {
    /// Whether a participant may take a new seat in an open session. If not, it is sent an error.
    pub(super) fn may_take_seat(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
    ) -> bool {
        let Some(room) = self.sessions.get(session) else { return false };
        let Some((code, why)) =
            room.access.refusal(participant, self.person(participant), self.now)
        else {
            return true;
        };
        let text = format!("the host of session {session} {why}");
        self.refuse(participant, code, Some(session), &text);
        false
    }

    /// Excludes a member for [`EJECTED_FOR`], and with `by_address` everybody at its address, if
    /// that is another machine's. Returns `false` if the participant is not a member. The caller
    /// ejects the member afterwards.
    pub(super) fn keep_out(
        &mut self,
        session: &SessionId,
        participant: &ParticipantId,
        by_address: bool,
    ) -> bool {
        let record = self.people.get(participant).filter(|_| by_address);
        let source = record.and_then(|record| record.source);
        let Some(room) = self.sessions.get_mut(session) else { return false };
        let seat = room.seats.iter().find(|seat| seat.participant == *participant);
        if let Some(seat) = seat {
            room.access.remove(seat, source, self.now);
        }
        seat.is_some()
    }

    /// Lets an ejected participant take a seat again.
    pub(super) fn allow(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        ejected: &ParticipantId,
    ) {
        if self.is_owners_right(participant, session) {
            if let Some(room) = self.sessions.get_mut(session) {
                room.access.removed.retain(|member| member.participant != *ejected);
            }
            self.tell_access(session, participant);
        }
    }

    /// Locks a session, so that nobody takes a new seat, or unlocks it.
    pub(super) fn lock(
        &mut self,
        participant: &ParticipantId,
        session: &SessionId,
        is_locked: bool,
    ) {
        if self.is_owners_right(participant, session) {
            if let Some(room) = self.sessions.get_mut(session) {
                room.access.is_locked = is_locked;
            }
            self.tell_access(session, participant);
        }
    }

    /// Sends the owner the access rules of its session, if it holds its seat.
    pub(super) fn tell_access(&mut self, session: &SessionId, owner: &ParticipantId) {
        let room = self.sessions.get(session);
        let is_connected = |room: &&Session| room.seat(owner).is_some_and(Seat::is_held);
        if let Some(room) = room.filter(is_connected) {
            let message = room.access.message(session.clone(), self.now);
            self.tell(owner, message);
        }
    }

    /// The same, but only if the session is locked or somebody is excluded.
    pub(super) fn tell_access_if_any(&mut self, session: &SessionId, owner: &ParticipantId) {
        let room = self.sessions.get(session);
        if room.is_some_and(|room| !room.access.is_open(self.now)) {
            self.tell_access(session, owner);
        }
    }
}
