//! Opening a session, reclaiming a seat, joining, and waiting.

use std::{sync::Arc, time::Duration};

use crate::model::{
    ErrorCode, HubMessage, LeaveReason, MediaTime, Member, ParticipantId, Role, Secret, SessionId,
    SessionKind,
};

use super::{
    access::Access,
    home::{Home, HomeOutput, Membership, Sender},
    session::Session,
};

/// The most sessions a hub keeps open: some megabytes, and more than one machine's traffic.
const MAX_SESSIONS: usize = 10_000;

/// The most sessions that one participant is in and waits for, together; five are usual.
const MAX_SESSIONS_PER_PARTICIPANT: usize = 64;

/// The most participants that wait for one session: as many as the largest session has seats.
const MAX_WAITING: usize = 256;

/// How long after its start a hub expects successors of an earlier run: all clients reconnect
/// within seconds. Later the hub knows the current owner, and a key of a successor of days ago no
/// longer counts.
const SUCCESSOR_RETURN: Duration = Duration::from_secs(120);

/// A request to open a session.
#[derive(Debug)]
pub(super) struct OpenRequest {
    /// The media and the topology.
    pub(super) kind: SessionKind,
    /// The number of seats, if fewer than the kind's own limit.
    pub(super) limit: Option<u16>,
    /// The key that proves ownership.
    pub(super) owner_key: Option<Secret>,
}

impl Home {
    /// Opens a session, or gives it back to its owner.
    pub(super) fn handle_open(
        &mut self,
        sender: &Sender,
        session: SessionId,
        request: OpenRequest,
    ) {
        let participant = &sender.participant;
        let limit = match check_limit(request.kind, request.limit) {
            Ok(limit) => limit,
            Err(text) => {
                return self.send_error(participant, ErrorCode::BadMessage, Some(&session), &text);
            }
        };
        let Some(room) = self.sessions.get(&session) else {
            let request = OpenRequest { limit: Some(limit), ..request };
            return self.open_new(sender, session, request);
        };
        let is_owner = room.is_owner(participant);
        let has_key = request.owner_key.as_ref().is_some_and(|key| {
            key.constant_time_eq(&room.owner_key)
                || self.is_later_successor(&session, key, room.successor_count)
        });
        if !is_owner && !has_key {
            let text = format!("session {session} is open already; choose another id or join it");
            return self.send_error(participant, ErrorCode::IdTaken, Some(&session), &text);
        }
        if room.kind != request.kind {
            let text = format!(
                "session {session} is open as {}; close it to open it as {}",
                room.kind, request.kind
            );
            return self.send_error(participant, ErrorCode::IdTaken, Some(&session), &text);
        }
        if is_owner {
            self.reclaim_seat(&session, sender);
            self.send_opened(&session, participant);
        } else {
            self.replace_owner(sender, &session, request.owner_key);
        }
    }

    /// Whether the key is that of a successor later than the current owner: a former owner may have
    /// opened the session first at a restarted hub, which does not know of the successor.
    fn is_later_successor(&self, session: &SessionId, key: &Secret, current: u16) -> bool {
        let is_early = self.now < MediaTime::default() + SUCCESSOR_RETURN;
        let number =
            (is_early && session.is_bound()).then(|| self.keys.successor_number(session, key));
        number.flatten().is_some_and(|number| number > current)
    }

    /// The successor number and the owner key of a participant that opens a session which is not
    /// open; `None` if the id belongs to another owner.
    fn ownership_claim(
        &mut self,
        session: &SessionId,
        key: Option<&Secret>,
    ) -> Option<(u16, Secret)> {
        if !session.is_bound() {
            return Some((0, self.keys.generate()));
        }
        let key = key?;
        let is_first = SessionId::of_key(key) == *session;
        let number = if is_first { Some(0) } else { self.keys.successor_number(session, key) };
        number.map(|number| (number, key.clone()))
    }

    /// Joins a session, reclaims a seat in it, or waits for it.
    pub(super) fn handle_join(&mut self, sender: &Arc<Sender>, session: SessionId, wait: bool) {
        let participant = &sender.participant;
        let Some(room) = self.sessions.get(&session) else {
            return if wait {
                self.add_waiting(sender, session)
            } else {
                self.refuse_no_session(participant, &session)
            };
        };
        if room.seat(participant).is_some() {
            self.reclaim_seat(&session, sender);
            self.send_joined(&session, participant);
        } else if room.is_full() {
            self.refuse_full(participant, &session);
        } else if self.check_access(sender, &session)
            && self.check_session_count(participant, &session)
        {
            self.add_guest(sender, &session);
        }
    }

    /// Removes a participant from the waiting list of a session.
    pub(super) fn remove_waiting(&mut self, session: &SessionId, participant: &ParticipantId) {
        if let Some(member) = self.members.get_mut(participant) {
            member.waiting_for.remove(session);
        }
        if let Some(waiting) = self.waiting.get_mut(session) {
            waiting.retain(|other| other.participant != *participant);
            if waiting.is_empty() {
                self.waiting.remove(session);
            }
        }
        self.forget_if_idle(participant);
    }

    fn open_new(&mut self, sender: &Sender, session: SessionId, request: OpenRequest) {
        let participant = &sender.participant;
        self.remove_waiting(&session, participant);
        if self.sessions.len() >= MAX_SESSIONS {
            let text = format!("this hub keeps {MAX_SESSIONS} sessions at most; try later");
            return self.send_error(participant, ErrorCode::TooMany, Some(&session), &text);
        }
        if !self.check_session_count(participant, &session) {
            return;
        }
        let claim = self.ownership_claim(&session, request.owner_key.as_ref());
        let is_successor = claim.as_ref().is_some_and(|(number, _)| *number > 0);
        if self.only_own_user_opens && !sender.is_own && !is_successor {
            let text = "at this hub only its own user opens sessions; open yours at another one, \
                        or have it started with --hub-for everyone";
            // A successor of a session with a chosen id, which this hub no longer knows, comes back
            // as a guest and waits for the hub's own user.
            let is_back = request.owner_key.is_some() && !session.is_bound();
            let code = if is_back { ErrorCode::IdTaken } else { ErrorCode::NotAllowed };
            return self.send_error(participant, code, Some(&session), text);
        }
        let Some((successor_count, owner_key)) = claim else {
            let text = format!("only the first owner of session {session} can open it again");
            return self.send_error(participant, ErrorCode::IdTaken, Some(&session), &text);
        };
        let seats = vec![self.create_seat(sender, &session, Role::Opener)];
        let (kind, access) = (request.kind, Access::default());
        let limit = request.limit.unwrap_or_else(|| kind.default_limit());
        let opened = Session { kind, limit, owner_key, successor_count, access, seats };
        self.sessions.insert(session.clone(), opened);
        if sender.is_own {
            self.own_sessions.insert(session.clone());
        }
        self.send_opened(&session, participant);
        for waiting in self.waiting.remove(&session).unwrap_or_default() {
            if let Some(member) = self.members.get_mut(&waiting.participant) {
                member.waiting_for.remove(&session);
            }
            if self.sessions.get(&session).is_some_and(Session::is_full) {
                self.refuse_full(&waiting.participant, &session);
                self.forget_if_idle(&waiting.participant);
            } else {
                self.add_guest(&waiting, &session);
            }
        }
    }

    /// Gives a new guest a seat.
    fn add_guest(&mut self, sender: &Sender, session: &SessionId) {
        let participant = &sender.participant;
        let seat = self.create_seat(sender, session, Role::Guest);
        if let Some(room) = self.sessions.get_mut(session) {
            room.seats.push(seat);
        }
        self.send_joined(session, participant);
        self.notify_joined(session, participant);
    }

    fn add_waiting(&mut self, sender: &Arc<Sender>, session: SessionId) {
        let participant = &sender.participant;
        let member = self.members.get(participant);
        if !member.is_some_and(|member| member.waiting_for.contains(&session)) {
            if !self.check_session_count(participant, &session) {
                return;
            }
            let waiting = self.waiting.entry(session.clone()).or_default();
            if waiting.len() >= MAX_WAITING {
                let text = format!(
                    "{MAX_WAITING} participants wait for session {session} already; try later"
                );
                return self.send_error(participant, ErrorCode::TooMany, Some(&session), &text);
            }
            waiting.push(sender.clone());
            let member = self.members.entry(participant.clone()).or_default();
            member.waiting_for.insert(session.clone());
        }
        self.notify(participant, HubMessage::Waiting { session });
    }

    /// Makes a participant with the owner key the owner, in place of the former one.
    fn replace_owner(&mut self, sender: &Sender, session: &SessionId, key: Option<Secret>) {
        let participant = &sender.participant;
        let Some(room) = self.sessions.get(session) else { return };
        let is_member = room.seat(participant).is_some();
        let owner = room.seats.iter().position(|seat| seat.role == Role::Opener);
        let Some(index) = owner else { return };
        let former = room.seats[index].participant.clone();
        if !is_member && !self.check_session_count(participant, session) {
            return;
        }
        self.remove_former_owner(session, &former, participant);
        if is_member {
            self.remove_seat(session, participant);
        }
        let seat = self.create_seat(sender, session, Role::Opener);
        // The key of a bound id stays: it opens the session again at a restarted hub.
        let kept = key.filter(|_| session.is_bound());
        let number = kept.as_ref().and_then(|key| self.keys.successor_number(session, key));
        let owner_key = kept.unwrap_or_else(|| self.keys.generate());
        if let Some(room) = self.sessions.get_mut(session) {
            room.seats.insert(index.min(room.seats.len()), seat);
            room.owner_key = owner_key;
            room.successor_count = number.unwrap_or(room.successor_count);
        }
        self.send_opened(session, participant);
        self.notify_joined(session, participant);
    }

    /// Removes the former owner's seat, and notifies all paired participants but the successor,
    /// which gets a roster.
    fn remove_former_owner(
        &mut self,
        session: &SessionId,
        former: &ParticipantId,
        successor: &ParticipantId,
    ) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(former) else { return };
        let is_held = seat.is_connected();
        let receivers: Vec<_> = room
            .paired_with(seat)
            .filter(|other| other.is_connected() && other.participant != *successor)
            .map(|other| other.participant.clone())
            .collect();
        if is_held {
            self.notify_replaced(session, former);
        }
        self.remove_seat(session, former);
        let (session, participant) = (session.clone(), former.clone());
        let reason = LeaveReason::Replaced;
        let message = HubMessage::ParticipantLeft { session, participant, reason };
        self.push(HomeOutput::Send { to: receivers, message });
    }

    fn check_session_count(&mut self, participant: &ParticipantId, session: &SessionId) -> bool {
        let count = |member: &Membership| member.seats.len() + member.waiting_for.len();
        let is_below_limit =
            self.members.get(participant).map_or(0, count) < MAX_SESSIONS_PER_PARTICIPANT;
        if !is_below_limit {
            let text = format!(
                "you are in {MAX_SESSIONS_PER_PARTICIPANT} sessions or wait for them, the most there may be; \
                 leave one first"
            );
            self.send_error(participant, ErrorCode::TooMany, Some(session), &text);
        }
        is_below_limit
    }

    fn refuse_no_session(&mut self, participant: &ParticipantId, session: &SessionId) {
        // The newest request counts: a join without `wait` ends an earlier wait.
        self.remove_waiting(session, participant);
        let text =
            format!("no session {session} is open at this hub; check the id, or wait for it");
        self.send_error(participant, ErrorCode::NoSuchSession, Some(session), &text);
    }

    fn refuse_full(&mut self, participant: &ParticipantId, session: &SessionId) {
        let limit = self.sessions.get(session).map_or(0, |room| room.limit);
        let text = format!("session {session} is full: it takes {limit}; try again later");
        self.send_error(participant, ErrorCode::SessionFull, Some(session), &text);
    }

    fn send_opened(&mut self, session: &SessionId, participant: &ParticipantId) {
        let participants = self.roster(session, participant);
        let Some(room) = self.sessions.get(session) else { return };
        let (kind, limit, owner_key) = (room.kind, room.limit, room.owner_key.clone());
        let id = session.clone();
        self.notify(
            participant,
            HubMessage::Opened { session: id, kind, limit, owner_key, participants },
        );
        self.notify_access_if_restricted(session, participant);
    }

    /// Sends `joined`. A returning owner also gets the key: it may have become the owner while it
    /// was away.
    fn send_joined(&mut self, session: &SessionId, participant: &ParticipantId) {
        let participants = self.roster(session, participant);
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(participant) else { return };
        let (kind, limit, role) = (room.kind, room.limit, seat.role);
        let owner_key = (role == Role::Opener).then(|| room.owner_key.clone());
        let id = session.clone();
        self.notify(
            participant,
            HubMessage::Joined { session: id, kind, limit, role, participants },
        );
        if owner_key.is_some() {
            let (id, owner) = (session.clone(), participant.clone());
            self.notify(
                participant,
                HubMessage::Owner { session: id, participant: owner, owner_key },
            );
            self.notify_access_if_restricted(session, participant);
        }
    }

    /// The members that a participant is paired with, in the order in which they came.
    fn roster(&self, session: &SessionId, participant: &ParticipantId) -> Vec<Member> {
        let Some(room) = self.sessions.get(session) else { return vec![] };
        let Some(seat) = room.seat(participant) else { return vec![] };
        room.paired_with(seat).map(|other| other.member(self.presence(other))).collect()
    }
}

/// The number of seats of a session, or the sentence for a limit that the kind does not allow.
fn check_limit(kind: SessionKind, requested: Option<u16>) -> Result<u16, String> {
    let max = kind.default_limit();
    match requested {
        None => Ok(max),
        Some(limit) if (2..=max).contains(&limit) => Ok(limit),
        Some(limit) => {
            let range = if max == 2 { "2".to_owned() } else { format!("2 to {max}") };
            Err(format!("a session of the kind {kind} takes {range} participants, not {limit}"))
        }
    }
}
