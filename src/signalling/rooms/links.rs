//! Links come, fall silent and go: who is known, how they are called, whether they are here.

use std::{collections::BTreeSet, time::Duration};

use crate::model::{
    ErrorCode, HubMessage, Instance, MediaTime, PROTOCOL, ParticipantId, Presence, Secret,
    SessionId, clean_name, guest_name, guest_number,
};

use super::{
    Alarm, Dismissal, LinkId, Rooms, RoomsOutput, SourceAddress,
    session::{Bond, Seat},
};

/// A client says something at least this often.
///
/// Two in a row may be late before anybody is told: a stall of a busy Wi-Fi is not news.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(1500);

/// A link that was not heard of for this long is away. People are to see it within 5 s.
const AWAY_AFTER: Duration = Duration::from_millis(3500);

/// A link that was not heard of for this long is closed: its client has long given up on it too.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// A seat is kept this long after its link was last heard of: a crashed program is started
/// again within a minute, or not at all.
const SEAT_KEPT: Duration = Duration::from_secs(60);

/// The most people a hub knows: four times the links it takes, since those who are away and
/// whose seats are kept count as well.
const MAX_PEOPLE: usize = 16_384;

/// How often a person may change the name within [`RENAME_SPAN`]: more than anybody does by hand.
const MAX_RENAMES: u32 = 10;

/// The span in which changes of a name are counted.
const RENAME_SPAN: Duration = Duration::from_secs(10);

/// Signals of one connection that no well-made client sends: with so many it is closed.
const MAX_STRIKES: u32 = 10;

/// After this long without another, they are forgiven: a program that runs for weeks is not closed
/// for one in each of them.
const STRIKES_FORGIVEN: Duration = Duration::from_secs(60);

/// One connection of a person; a person has at most one.
pub(super) struct Link {
    /// Whose.
    participant: ParticipantId,
    /// When something was last heard on it.
    heard: MediaTime,
    /// Whether it was silent for so long that the others were told.
    is_silent: bool,
    /// When its alarm rings.
    alarm: MediaTime,
    strikes: Strikes,
}

impl Link {
    /// Whose it is.
    pub(super) const fn participant(&self) -> &ParticipantId {
        &self.participant
    }
}

/// Signals that no well-made client sends.
#[derive(Default)]
struct Strikes {
    count: u32,
    /// When the last one came.
    last: MediaTime,
}

/// Somebody who has a link or a seat; otherwise forgotten.
pub(super) struct Person {
    /// How the person wants to be called, cleaned; empty until the hub chose a name.
    pub(super) name: String,
    /// The run of the program that said hello last.
    pub(super) instance: Instance,
    /// The link that said hello last, while it lasts.
    pub(super) link: Option<LinkId>,
    /// The address of the link that said hello last, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// Whether it is a program of the user whose hub this is.
    pub(super) is_own: bool,
    /// Where the person has a seat.
    pub(super) seats: BTreeSet<SessionId>,
    /// What the person waits for.
    pub(super) waits: BTreeSet<SessionId>,
    /// The number of a nameless guest, once given.
    guest: Option<u64>,
    /// Changes of the name lately.
    renames: Renames,
}

/// Changes of a name, counted in spans of [`RENAME_SPAN`]: each is told to everybody around.
#[derive(Default)]
struct Renames {
    since: MediaTime,
    count: u32,
}

impl Person {
    /// Somebody who said hello.
    pub(super) fn new(name: String, instance: Instance) -> Self {
        Self {
            name: clean_name(&name),
            instance,
            link: None,
            source: None,
            is_own: false,
            seats: BTreeSet::new(),
            waits: BTreeSet::new(),
            guest: None,
            renames: Renames::default(),
        }
    }
}

/// The answer to hello.
pub(super) fn welcome(
    participant: ParticipantId,
    name: String,
    token: Secret,
    link_base: String,
) -> HubMessage {
    let heartbeat_ms = HEARTBEAT.as_millis() as u64;
    HubMessage::Welcome { protocol: PROTOCOL, participant, name, token, heartbeat_ms, link_base }
}

impl Rooms {
    /// Takes a link in; returns the name that its person has now, or `None` if it was refused.
    pub(super) fn hello(
        &mut self,
        link: LinkId,
        who: ParticipantId,
        mut person: Person,
    ) -> Option<String> {
        if self.links.contains_key(&link) {
            return None;
        }
        if let Err((code, text)) = self.may_enter(&who, &person.instance) {
            let message = text.to_owned();
            self.send(link, HubMessage::Error { code, message, session: None });
            let why = Dismissal::Told;
            self.outputs.push_back(RoomsOutput::Disconnect { link, why });
            return None;
        }
        if let Some(known) = self.people.get(&who) {
            person.guest = known.guest;
            if let Some(older) = known.link {
                self.take_over(older);
            }
        }
        self.complete_name(&mut person.name, &mut person.guest);
        if let Some(known) = self.people.remove(&who) {
            person.seats = known.seats;
        }
        person.link = Some(link);
        let name = person.name.clone();
        self.people.insert(who.clone(), person);
        let alarm = self.now + AWAY_AFTER;
        self.alarms.insert((alarm, Alarm::Link(link)));
        let (heard, is_silent, strikes) = (self.now, false, Strikes::default());
        self.links.insert(link, Link { participant: who, heard, is_silent, alarm, strikes });
        Some(name)
    }

    /// Gives a person another name, and tells those who sit in a session with that person.
    ///
    /// A seat that the person's link does not hold keeps its name until it is taken back.
    pub(super) fn rename(&mut self, who: &ParticipantId, wish: &str) {
        let (now, person) = (self.now, self.person_mut(who));
        if !person.renames.admits(now) {
            let text = "your name is changed too often; wait some seconds";
            return self.refuse(who, ErrorCode::TooMany, None, text);
        }
        let (mut name, mut guest) = (clean_name(wish), person.guest);
        self.complete_name(&mut name, &mut guest);
        let person = self.person_mut(who);
        person.guest = guest;
        let is_other = person.name != name;
        person.name.clone_from(&name);
        self.tell(who, HubMessage::Renamed { name: name.clone() });
        for session in self.held_seats(who).into_iter().filter(|_| is_other) {
            self.seat_mut(&session, who).name.clone_from(&name);
            let (participant, name) = (who.clone(), name.clone());
            let id = session.clone();
            let news = HubMessage::ParticipantRenamed { session: id, participant, name };
            self.tell_linked(&session, who, &news);
        }
    }

    /// Gives a number to somebody who has no name, or whose name is such a number.
    fn complete_name(&mut self, name: &mut String, guest: &mut Option<u64>) {
        let wished = guest_number(name).filter(|number| (1..=MAX_WISH).contains(number));
        if name.is_empty() || wished.is_some() {
            let number = guest.unwrap_or_else(|| self.guest_number(wished));
            *guest = Some(number);
            *name = guest_name(number);
        }
    }

    /// Notes that a link was heard, and returns whose it is; `None` if it is not known.
    pub(super) fn heard(&mut self, id: LinkId) -> Option<ParticipantId> {
        let link = self.links.get_mut(&id)?;
        link.heard = self.now;
        let who = link.participant.clone();
        if link.is_silent {
            link.is_silent = false;
            // The alarm was set for the end of the link, which lies beyond its next silence.
            self.alarms.remove(&(link.alarm, Alarm::Link(id)));
            link.alarm = self.now + AWAY_AFTER;
            self.alarms.insert((link.alarm, Alarm::Link(id)));
            for session in self.held_seats(&who) {
                self.tell_presence(&session, &who);
            }
        }
        Some(who)
    }

    /// Notes that a link was closed.
    pub(super) fn closed(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        // The closing is a last sign of life, unless the others were told of silence before.
        let since = if link.is_silent { link.heard } else { self.now };
        if let Some(who) = self.cut(id, since) {
            self.forget_if_gone(&who);
        }
    }

    /// Counts a signal that no well-made client sends, and lets go of the link at the tenth.
    pub(super) fn count_strike(&mut self, who: &ParticipantId) {
        let (now, link) = (self.now, self.people.get(who).and_then(|person| person.link));
        let Some(id) = link else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.strikes.add(now) < MAX_STRIKES {
            return;
        }
        let why = Dismissal::Misbehaving;
        self.outputs.push_back(RoomsOutput::Disconnect { link: id, why });
        if let Some(who) = self.cut(id, now) {
            self.forget_if_gone(&who);
        }
    }

    /// Looks whether a link was heard of lately.
    pub(super) fn check_link(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let silence = self.now.since(link.heard);
        if silence >= DEAD_AFTER {
            let heard = link.heard;
            let why = Dismissal::Silent;
            self.outputs.push_back(RoomsOutput::Disconnect { link: id, why });
            if let Some(who) = self.cut(id, heard) {
                self.forget_if_gone(&who);
            }
            return;
        }
        let turns_silent = silence >= AWAY_AFTER && !link.is_silent;
        link.is_silent |= turns_silent;
        link.alarm = link.heard + if link.is_silent { DEAD_AFTER } else { AWAY_AFTER };
        self.alarms.insert((link.alarm, Alarm::Link(id)));
        let who = link.participant.clone();
        if turns_silent {
            for session in self.held_seats(&who) {
                self.tell_presence(&session, &who);
            }
        }
    }

    /// Makes the person's link hold a seat that it has, and tells the others if that is news.
    pub(super) fn take_back(&mut self, session: &SessionId, who: &ParticipantId) {
        let (name, instance) = {
            let person = self.person(who);
            (person.name.clone(), person.instance.clone())
        };
        self.have_seats_changed = true;
        let seat = self.seat_mut(session, who);
        let is_changed = seat.instance != instance || seat.name != name;
        (seat.name, seat.instance) = (name, instance);
        let bond = std::mem::replace(&mut seat.bond, Bond::Held);
        if let Bond::Loose { since } = bond {
            self.alarms.remove(&(since + SEAT_KEPT, Alarm::Seat(session.clone(), who.clone())));
        }
        if is_changed {
            self.tell_joined(session, who);
        } else if bond != Bond::Held {
            self.tell_presence(session, who);
        }
    }

    /// Takes a seat out of a session. The session may be left without an opener: see to it.
    pub(super) fn remove_seat(&mut self, session: &SessionId, who: &ParticipantId) -> Option<Seat> {
        let room = self.sessions.get_mut(session)?;
        let index = room.seats.iter().position(|seat| seat.participant == *who)?;
        let seat = room.seats.remove(index);
        self.have_seats_changed = true;
        if let Bond::Loose { since } = seat.bond {
            self.alarms.remove(&(since + SEAT_KEPT, Alarm::Seat(session.clone(), who.clone())));
        }
        self.person_mut(who).seats.remove(session);
        self.forget_if_gone(who);
        Some(seat)
    }

    /// How a seat's connection is now.
    pub(super) fn presence(&self, seat: &Seat) -> Presence {
        let away = |since| Presence::Away { silent_ms: self.now.since(since).as_millis() as u64 };
        let link = self.people.get(&seat.participant).and_then(|person| person.link);
        match (seat.bond, link.and_then(|link| self.links.get(&link))) {
            (Bond::Loose { since }, _) => away(since),
            (Bond::Held, Some(link)) if link.is_silent => away(link.heard),
            (Bond::Held, Some(_) | None) => Presence::Here,
        }
    }

    /// Tells those linked to somebody that this person came in, or came back changed.
    pub(super) fn tell_joined(&mut self, session: &SessionId, who: &ParticipantId) {
        let Some(seat) = self.sessions.get(session).and_then(|room| room.seat(who)) else { return };
        let participant = seat.member(self.presence(seat));
        let news = HubMessage::ParticipantJoined { session: session.clone(), participant };
        self.tell_linked(session, who, &news);
    }

    fn tell_presence(&mut self, session: &SessionId, who: &ParticipantId) {
        let Some(seat) = self.sessions.get(session).and_then(|room| room.seat(who)) else { return };
        let (presence, participant) = (self.presence(seat), who.clone());
        let session_id = session.clone();
        let news = HubMessage::ParticipantPresence { session: session_id, participant, presence };
        self.tell_linked(session, who, &news);
    }

    /// Ends an older link of a person who has come on a new one.
    fn take_over(&mut self, older: LinkId) {
        let Some(heard) = self.links.get(&older).map(|link| link.heard) else { return };
        let message = "another connection with the same token took the place of this one";
        let code = ErrorCode::NotAllowed;
        self.send(older, HubMessage::Error { code, message: message.to_owned(), session: None });
        let why = Dismissal::Told;
        self.outputs.push_back(RoomsOutput::Disconnect { link: older, why });
        self.cut(older, heard);
    }

    /// Forgets a link that was last heard of at `since`: its waits end, its seats are loose.
    fn cut(&mut self, id: LinkId, since: MediaTime) -> Option<ParticipantId> {
        let link = self.links.remove(&id)?;
        self.alarms.remove(&(link.alarm, Alarm::Link(id)));
        let who = link.participant;
        for session in std::mem::take(&mut self.person_mut(&who).waits) {
            self.stop_waiting(&session, &who);
        }
        let held = self.held_seats(&who);
        self.have_seats_changed |= !held.is_empty();
        self.person_mut(&who).link = None;
        for session in held {
            self.seat_mut(&session, &who).bond = Bond::Loose { since };
            self.alarms.insert((since + SEAT_KEPT, Alarm::Seat(session.clone(), who.clone())));
            if !link.is_silent {
                self.tell_presence(&session, &who);
            }
        }
        Some(who)
    }

    fn held_seats(&self, who: &ParticipantId) -> Vec<SessionId> {
        let Some(person) = self.people.get(who) else { return vec![] };
        let is_held = |session: &&SessionId| {
            let seat = self.sessions.get(*session).and_then(|room| room.seat(who));
            seat.is_some_and(Seat::is_held)
        };
        person.seats.iter().filter(is_held).cloned().collect()
    }

    fn forget_if_gone(&mut self, who: &ParticipantId) {
        let is_gone = |person: &Person| person.link.is_none() && person.seats.is_empty();
        if self.people.get(who).is_some_and(is_gone)
            && let Some(gone) = self.people.remove(who)
            && let Some(number) = gone.guest
        {
            self.numbers.remove(&number);
        }
    }

    /// The number of somebody who has no name: the one that an earlier life of this hub gave, if
    /// nobody has it, else one that nobody had.
    fn guest_number(&mut self, wished: Option<u64>) -> u64 {
        let is_free = |number: &u64| !self.numbers.contains(number);
        let number = wished.filter(is_free).unwrap_or(self.greatest_number + 1);
        self.greatest_number = self.greatest_number.max(number);
        self.numbers.insert(number);
        number
    }

    fn may_enter(
        &self,
        who: &ParticipantId,
        instance: &Instance,
    ) -> Result<(), (ErrorCode, &'static str)> {
        // It is passed on to others, so it is not taken on trust.
        let instance = instance.as_str();
        if instance.len() != 16 || !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err((ErrorCode::BadMessage, "an instance is 16 hexadecimal digits"));
        }
        if self.people.len() >= MAX_PEOPLE && !self.people.contains_key(who) {
            return Err((ErrorCode::TooMany, "this hub has no room for anybody more; try later"));
        }
        Ok(())
    }
}

impl Strikes {
    /// Counts one more; tells how many there are.
    fn add(&mut self, now: MediaTime) -> u32 {
        if now.since(self.last) >= STRIKES_FORGIVEN {
            self.count = 0;
        }
        (self.count, self.last) = (self.count + 1, now);
        self.count
    }
}

impl Renames {
    /// Whether one more is within measure; counts it.
    fn admits(&mut self, now: MediaTime) -> bool {
        if now >= self.since + RENAME_SPAN {
            *self = Self { since: now, count: 0 };
        }
        self.count += 1;
        self.count <= MAX_RENAMES
    }
}

/// The greatest number that is taken from a guest; those that a hub gives can go on beyond it.
const MAX_WISH: u64 = 999_999;
