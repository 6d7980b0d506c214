//! Connections of participants: `hello`, silence, closing; and the names and the presence of
//! participants.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{
    ErrorCode, HubMessage, Instance, MediaTime, PROTOCOL, ParticipantId, Presence, Secret,
    SessionId, clean_name, guest_name, guest_number,
};

use super::{
    ConnectionId, DisconnectReason, Rooms, RoomsOutput, SourceAddress, Timer,
    session::{Seat, SeatState},
};

/// The interval at which a client sends at least one message.
///
/// Two in a row may be late before others are notified: busy Wi-Fi stalls for that long.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(1500);

/// A participant that was silent for this long is away. Others are to see it within 5 s.
const AWAY_AFTER: Duration = Duration::from_millis(3500);

/// A connection that was silent for this long is closed. Its client has given up on it long before.
const CLOSE_AFTER: Duration = Duration::from_secs(10);

/// A seat is reserved for this long after the last activity of its participant: a crashed program
/// is started again within a minute, or not at all.
const SEAT_RESERVED_FOR: Duration = Duration::from_secs(60);

/// The most participants a hub knows: four times the connections it accepts, since absent
/// participants with reserved seats count too.
const MAX_PARTICIPANTS: usize = 16_384;

/// How often a participant may change its name within [`RENAME_SPAN`]: more than anybody does by
/// hand.
const MAX_RENAMES: u32 = 10;

/// The interval in which changes of a name are counted.
const RENAME_SPAN: Duration = Duration::from_secs(10);

/// The refused signals after which a connection is closed. A correct client sends none of them.
const MAX_REFUSED_SIGNALS: u32 = 10;

/// After this long without a refused signal the count starts again: a program that runs for weeks
/// is not closed for one a week.
const REFUSED_SIGNALS_RESET: Duration = Duration::from_secs(60);

/// One connection of a participant. A participant has at most one.
pub(super) struct Connection {
    /// The participant of the connection.
    participant: ParticipantId,
    /// When the client last sent something.
    last_activity: MediaTime,
    /// Whether the client was silent for so long that the others were notified.
    is_silent: bool,
    /// When its timer is due.
    timer: MediaTime,
    refused_signals: RefusedSignals,
}

impl Connection {
    /// The participant of the connection.
    pub(super) const fn participant(&self) -> &ParticipantId {
        &self.participant
    }
}

/// Counts the signals of a connection that were refused.
#[derive(Default)]
struct RefusedSignals {
    count: u32,
    /// When the last one was refused.
    last: MediaTime,
}

/// A participant with a connection or a seat. Others are forgotten.
pub(super) struct ParticipantRecord {
    /// The requested name, cleaned; empty until the hub has chosen one.
    pub(super) name: String,
    /// The run of the program that sent the last `hello`.
    pub(super) instance: Instance,
    /// The connection of the last `hello`, while it is open.
    pub(super) connection: Option<ConnectionId>,
    /// The address of the last `hello`, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// Whether it is a program of the hub's own user.
    pub(super) is_own: bool,
    /// The sessions in which the participant has a seat.
    pub(super) seats: BTreeSet<SessionId>,
    /// The sessions that the participant waits for.
    pub(super) waiting_for: BTreeSet<SessionId>,
    /// The number of a guest without a name, once given.
    guest_number: Option<u64>,
    /// Limits changes of the name.
    rename_limiter: RenameLimiter,
}

/// Limits changes of a name in each [`RENAME_SPAN`]: each change is sent to all paired
/// participants.
#[derive(Default)]
struct RenameLimiter {
    since: MediaTime,
    count: u32,
}

impl ParticipantRecord {
    /// A participant that has sent `hello`.
    pub(super) fn new(name: String, instance: Instance) -> Self {
        Self {
            name: clean_name(&name),
            instance,
            connection: None,
            source: None,
            is_own: false,
            seats: BTreeSet::new(),
            waiting_for: BTreeSet::new(),
            guest_number: None,
            rename_limiter: RenameLimiter::default(),
        }
    }
}

/// The answer to `hello`.
pub(super) fn welcome_message(
    participant: ParticipantId,
    name: String,
    token: Secret,
    link_base: String,
) -> HubMessage {
    let heartbeat_ms = HEARTBEAT.as_millis() as u64;
    HubMessage::Welcome { protocol: PROTOCOL, participant, name, token, heartbeat_ms, link_base }
}

impl Rooms {
    /// Adds a connection; returns the name of its participant, or `None` if it was refused.
    pub(super) fn handle_hello(
        &mut self,
        connection: ConnectionId,
        participant: ParticipantId,
        mut record: ParticipantRecord,
    ) -> Option<String> {
        if self.connections.contains_key(&connection) {
            return None;
        }
        if let Err((code, text)) = self.check_hello(&participant, &record.instance) {
            let message = text.to_owned();
            self.send(connection, HubMessage::Error { code, message, session: None });
            let reason = DisconnectReason::ErrorSent;
            self.outputs.push_back(RoomsOutput::Disconnect { connection, reason });
            return None;
        }
        if let Some(known) = self.participants.get(&participant) {
            record.guest_number = known.guest_number;
            if let Some(older) = known.connection {
                self.replace_connection(older);
            }
        }
        self.fill_guest_name(&mut record.name, &mut record.guest_number);
        if let Some(known) = self.participants.remove(&participant) {
            record.seats = known.seats;
        }
        record.connection = Some(connection);
        let name = record.name.clone();
        self.participants.insert(participant.clone(), record);
        let timer = self.now + AWAY_AFTER;
        self.timers.insert((timer, Timer::Silence(connection)));
        let record = Connection {
            participant,
            last_activity: self.now,
            is_silent: false,
            timer,
            refused_signals: RefusedSignals::default(),
        };
        self.connections.insert(connection, record);
        Some(name)
    }

    /// Changes the name of a participant, and notifies the paired participants.
    ///
    /// A reserved seat keeps the old name until the participant reclaims it.
    pub(super) fn handle_rename(&mut self, participant: &ParticipantId, requested: &str) {
        let (now, record) = (self.now, self.record_mut(participant));
        if !record.rename_limiter.allow(now) {
            let text = "your name is changed too often; wait some seconds";
            return self.send_error(participant, ErrorCode::TooMany, None, text);
        }
        let (mut name, mut guest) = (clean_name(requested), record.guest_number);
        self.fill_guest_name(&mut name, &mut guest);
        let record = self.record_mut(participant);
        record.guest_number = guest;
        let is_other = record.name != name;
        record.name.clone_from(&name);
        self.notify(participant, HubMessage::Renamed { name: name.clone() });
        for session in self.connected_seats(participant).into_iter().filter(|_| is_other) {
            self.seat_mut(&session, participant).name.clone_from(&name);
            let (renamed_id, name) = (participant.clone(), name.clone());
            let id = session.clone();
            let renamed =
                HubMessage::ParticipantRenamed { session: id, participant: renamed_id, name };
            self.notify_paired(&session, participant, renamed);
        }
    }

    /// Sets "Guest N" as the name of a participant that has no name, or whose name has that form.
    fn fill_guest_name(&mut self, name: &mut String, guest: &mut Option<u64>) {
        let requested =
            guest_number(name).filter(|number| (1..=MAX_REQUESTED_GUEST_NUMBER).contains(number));
        if name.is_empty() || requested.is_some() {
            let number = guest.unwrap_or_else(|| self.assign_guest_number(requested));
            *guest = Some(number);
            *name = guest_name(number);
        }
    }

    /// Notes activity on a connection, and returns its participant; `None` for an unknown
    /// connection.
    pub(super) fn on_activity(&mut self, id: ConnectionId) -> Option<ParticipantId> {
        let connection = self.connections.get_mut(&id)?;
        connection.last_activity = self.now;
        let participant = connection.participant.clone();
        if connection.is_silent {
            connection.is_silent = false;
            // The timer is set for the closing of the connection, which is later than the next
            // silence.
            self.timers.remove(&(connection.timer, Timer::Silence(id)));
            connection.timer = self.now + AWAY_AFTER;
            self.timers.insert((connection.timer, Timer::Silence(id)));
            for session in self.connected_seats(&participant) {
                self.notify_presence(&session, &participant);
            }
        }
        Some(participant)
    }

    /// Handles the closing of a connection.
    pub(super) fn on_closed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        // The close counts as activity, unless the others were notified of the silence before.
        let since = if connection.is_silent { connection.last_activity } else { self.now };
        if let Some(participant) = self.detach_connection(id, since) {
            self.remove_if_gone(&participant);
        }
    }

    /// Counts a refused signal, and closes the connection at the tenth.
    pub(super) fn count_refused_signal(&mut self, participant: &ParticipantId) {
        let now = self.now;
        let Some(id) = self.participants.get(participant).and_then(|record| record.connection)
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.refused_signals.record(now) < MAX_REFUSED_SIGNALS {
            return;
        }
        let reason = DisconnectReason::Misbehaving;
        self.outputs.push_back(RoomsOutput::Disconnect { connection: id, reason });
        if let Some(participant) = self.detach_connection(id, now) {
            self.remove_if_gone(&participant);
        }
    }

    /// Handles the timer of a connection: reports a silent participant, closes a dead connection.
    pub(super) fn check_silence(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let silence = self.now.since(connection.last_activity);
        if silence >= CLOSE_AFTER {
            let last_activity = connection.last_activity;
            let reason = DisconnectReason::Silent;
            self.outputs.push_back(RoomsOutput::Disconnect { connection: id, reason });
            if let Some(participant) = self.detach_connection(id, last_activity) {
                self.remove_if_gone(&participant);
            }
            return;
        }
        let becomes_silent = silence >= AWAY_AFTER && !connection.is_silent;
        connection.is_silent |= becomes_silent;
        connection.timer =
            connection.last_activity + if connection.is_silent { CLOSE_AFTER } else { AWAY_AFTER };
        self.timers.insert((connection.timer, Timer::Silence(id)));
        let participant = connection.participant.clone();
        if becomes_silent {
            for session in self.connected_seats(&participant) {
                self.notify_presence(&session, &participant);
            }
        }
    }

    /// Connects a seat to the participant's connection, and notifies the others of a change.
    pub(super) fn reclaim_seat(&mut self, session: &SessionId, participant: &ParticipantId) {
        let (name, instance) = {
            let record = self.record(participant);
            (record.name.clone(), record.instance.clone())
        };
        self.have_seats_changed = true;
        let seat = self.seat_mut(session, participant);
        let is_changed = seat.instance != instance || seat.name != name;
        (seat.name, seat.instance) = (name, instance);
        let bond = std::mem::replace(&mut seat.state, SeatState::Connected);
        if let SeatState::Reserved { since } = bond {
            self.timers.remove(&(
                since + SEAT_RESERVED_FOR,
                Timer::SeatExpiry(session.clone(), participant.clone()),
            ));
        }
        if is_changed {
            self.notify_joined(session, participant);
        } else if bond != SeatState::Connected {
            self.notify_presence(session, participant);
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
        if let SeatState::Reserved { since } = seat.state {
            self.timers.remove(&(
                since + SEAT_RESERVED_FOR,
                Timer::SeatExpiry(session.clone(), participant.clone()),
            ));
        }
        self.record_mut(participant).seats.remove(session);
        self.remove_if_gone(participant);
        Some(seat)
    }

    /// The presence of the participant of a seat.
    pub(super) fn presence(&self, seat: &Seat) -> Presence {
        let away = |since| Presence::Away { silent_ms: self.now.since(since).as_millis() as u64 };
        let id = self.participants.get(&seat.participant).and_then(|record| record.connection);
        match (seat.state, id.and_then(|id| self.connections.get(&id))) {
            (SeatState::Reserved { since }, _) => away(since),
            (SeatState::Connected, Some(connection)) if connection.is_silent => {
                away(connection.last_activity)
            }
            (SeatState::Connected, Some(_) | None) => Presence::Here,
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

    /// Closes the older connection of a participant that has opened a new one.
    fn replace_connection(&mut self, older: ConnectionId) {
        let Some(last_activity) =
            self.connections.get(&older).map(|connection| connection.last_activity)
        else {
            return;
        };
        let message = "another connection with the same token replaced this one";
        let code = ErrorCode::NotAllowed;
        self.send(older, HubMessage::Error { code, message: message.to_owned(), session: None });
        let reason = DisconnectReason::ErrorSent;
        self.outputs.push_back(RoomsOutput::Disconnect { connection: older, reason });
        self.detach_connection(older, last_activity);
    }

    /// Removes a connection whose last activity was at `since`: its waits end, its seats become
    /// reserved.
    fn detach_connection(&mut self, id: ConnectionId, since: MediaTime) -> Option<ParticipantId> {
        let connection = self.connections.remove(&id)?;
        self.timers.remove(&(connection.timer, Timer::Silence(id)));
        let participant = connection.participant;
        for session in std::mem::take(&mut self.record_mut(&participant).waiting_for) {
            self.remove_waiting(&session, &participant);
        }
        let sessions = self.connected_seats(&participant);
        self.have_seats_changed |= !sessions.is_empty();
        self.record_mut(&participant).connection = None;
        for session in sessions {
            self.seat_mut(&session, &participant).state = SeatState::Reserved { since };
            self.timers.insert((
                since + SEAT_RESERVED_FOR,
                Timer::SeatExpiry(session.clone(), participant.clone()),
            ));
            if !connection.is_silent {
                self.notify_presence(&session, &participant);
            }
        }
        Some(participant)
    }

    fn connected_seats(&self, participant: &ParticipantId) -> Vec<SessionId> {
        let Some(record) = self.participants.get(participant) else { return vec![] };
        let is_held = |session: &&SessionId| {
            let seat = self.sessions.get(*session).and_then(|room| room.seat(participant));
            seat.is_some_and(Seat::is_connected)
        };
        record.seats.iter().filter(is_held).cloned().collect()
    }

    fn remove_if_gone(&mut self, participant: &ParticipantId) {
        let is_gone =
            |record: &ParticipantRecord| record.connection.is_none() && record.seats.is_empty();
        if self.participants.get(participant).is_some_and(is_gone)
            && let Some(gone) = self.participants.remove(participant)
            && let Some(number) = gone.guest_number
        {
            self.guest_numbers.remove(&number);
        }
    }

    /// A number for a guest without a name: the requested one, which an earlier run of this hub may
    /// have given, if it is free; else one that was never used.
    fn assign_guest_number(&mut self, requested: Option<u64>) -> u64 {
        let is_free = |number: &u64| !self.guest_numbers.contains(number);
        let number = requested.filter(is_free).unwrap_or(self.highest_guest_number + 1);
        self.highest_guest_number = self.highest_guest_number.max(number);
        self.guest_numbers.insert(number);
        number
    }

    fn check_hello(
        &self,
        participant: &ParticipantId,
        instance: &Instance,
    ) -> Result<(), (ErrorCode, &'static str)> {
        // Others get it from the hub, so the hub checks it.
        let instance = instance.as_str();
        if instance.len() != 16 || !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err((ErrorCode::BadMessage, "an instance is 16 hexadecimal digits"));
        }
        if self.participants.len() >= MAX_PARTICIPANTS
            && !self.participants.contains_key(participant)
        {
            return Err((ErrorCode::TooMany, "this hub has too many participants; try later"));
        }
        Ok(())
    }
}

impl RefusedSignals {
    /// Counts one more, and returns the number.
    fn record(&mut self, now: MediaTime) -> u32 {
        if now.since(self.last) >= REFUSED_SIGNALS_RESET {
            self.count = 0;
        }
        (self.count, self.last) = (self.count + 1, now);
        self.count
    }
}

impl RenameLimiter {
    /// Counts one change; `false` if there were too many.
    fn allow(&mut self, now: MediaTime) -> bool {
        if now >= self.since + RENAME_SPAN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_RENAMES
    }
}

/// The highest guest number that is taken from a name; the hub itself may give higher ones.
const MAX_REQUESTED_GUEST_NUMBER: u64 = 999_999;
