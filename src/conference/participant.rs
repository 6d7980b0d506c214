//! One other participant of one session: its place at the hub, and the connection to it.

mod churn;

use std::time::Duration;

use churn::Churn;

use super::{
    chat::Chat,
    peer::{Dead, Flow, Peer, SILENCE_PATIENCE},
    refusal,
    roster::Scope,
};
use crate::model::{
    Agreement, ChatMessage, ChatText, Event, Gates, Instance, LeaveReason, Media, MediaSet,
    MediaTime, Member, ParticipantId, ParticipantState, ParticipantStatus, Payload, PeerEvent,
    PeerId, Presence, Role,
};

/// A participant that we are linked to.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) id: ParticipantId,
    pub(super) role: Role,
    name: String,
    instance: Instance,
    place: Place,
    link: Link,
    /// The newest connection's number in the words about it; nothing older is listened to.
    generation: u32,
    /// When the media of the last connection that had any fell silent.
    media_lost: Option<MediaTime>,
    /// Connections that failed in a row.
    failures: u32,
    /// Since when both descriptions of a connection have been there and no media has come; the
    /// connection may have been replaced meanwhile.
    agreed_since: Option<MediaTime>,
    /// Why the last connection failed, since there was one that did not.
    fault: Option<Dead>,
    /// Whether the person was told that there is no connection, since there was one.
    is_told: bool,
    state: ParticipantState,
    /// When it came to be so.
    since: MediaTime,
    churn: Churn,
    /// What the person sends: sound, picture.
    theirs: (bool, bool),
    /// What the person was told that we send, unless those words may be lost.
    told: Option<(bool, bool)>,
    /// The media that the person's program and ours cannot exchange.
    left_out: Option<MediaSet>,
    /// Those of which our person was told.
    told_left_out: Option<MediaSet>,
    chat: Chat,
}

/// How the participant's link to the hub is, as far as we know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Here,
    Away {
        since: MediaTime,
    },
    /// The hub no longer knows it; it is kept for its running media.
    Missing {
        since: MediaTime,
    },
}

#[derive(Debug)]
enum Link {
    /// A connection is offered at that time; at none while the participant cannot be reached.
    Waiting {
        at: Option<MediaTime>,
    },
    Open(Peer),
}

/// What a person sends, as long as nothing was said about it.
const UNTOLD: (bool, bool) = (true, true);

/// How we came to know that a participant is here, which decides who offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// It came to us: we offer.
    Theirs,
    /// We came to it: it offers, unless nothing comes for a while.
    Ours,
}

/// How long a newcomer waits for the offer of somebody who was there before.
pub(super) const OFFER_PATIENCE: Duration = Duration::from_secs(3);

/// How long media may be silent before its participant counts as reconnecting.
const RECONNECTING_AFTER: Duration = Duration::from_secs(5);

/// How long somebody is silent, at the hub and in media, before it is out of the live count.
const GONE_AFTER: Duration = SILENCE_PATIENCE;

/// How long somebody who is gone is kept while there is no hub to say so: as long as a hub keeps a
/// seat. A hub that comes back tells who is there.
const SEAT_KEPT: Duration = Duration::from_secs(60);

/// The pause before the first new attempt to connect; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Doublings of the pause: up to 8 s.
const MAX_DOUBLINGS: u32 = 4;

/// How long packets may take to come through, once both ends have agreed on a connection, until a
/// person is told that none do. A path that works takes a second or two.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// Failures in a row after which a person is told, however short they were.
const TELL_AFTER_FAILURES: u32 = 3;

impl Participant {
    /// A participant whom nothing connects to us yet.
    pub(super) fn new(member: Member, arrival: Arrival, scope: &mut Scope<'_>) -> Self {
        let mut new = Self {
            place: Place::of(member.presence, scope),
            id: member.participant,
            role: member.role,
            name: member.name,
            instance: member.instance,
            link: Link::Waiting { at: None },
            generation: 0,
            media_lost: None,
            failures: 0,
            agreed_since: None,
            fault: None,
            is_told: false,
            state: ParticipantState::Connecting,
            since: scope.now,
            churn: Churn::default(),
            theirs: UNTOLD,
            told: None,
            left_out: None,
            told_left_out: None,
            chat: Chat::default(),
        };
        new.expect(arrival, scope);
        new.state = new.state_now(scope);
        new.announce(None, scope);
        new
    }

    /// Takes what the hub says of the participant when it or we came (back).
    pub(super) fn meet(&mut self, member: Member, arrival: Arrival, scope: &mut Scope<'_>) {
        self.role = member.role;
        self.rename(member.name, scope);
        self.place = Place::of(member.presence, scope);
        self.told = None;
        if self.instance != member.instance {
            self.instance = member.instance;
            self.forget(scope);
        }
        self.expect(arrival, scope);
    }

    /// The participant is called otherwise; nothing else changes.
    pub(super) fn rename(&mut self, name: String, scope: &mut Scope<'_>) {
        if name == self.name {
            return;
        }
        let before = std::mem::replace(&mut self.name, name.clone());
        let (session, participant) = (scope.terms.session.clone(), self.id.clone());
        scope.out.announce(Event::Renamed { session, participant, before, name });
    }

    /// Takes the participant's presence at the hub.
    pub(super) fn be(&mut self, presence: Presence, scope: &mut Scope<'_>) {
        let before = self.place;
        self.place = Place::of(presence, scope);
        if self.place == Place::Here && before != Place::Here {
            self.told = None;
            self.expect(Arrival::Theirs, scope);
        }
    }

    /// The hub does not have the participant any more; whether its media runs, so that it stays.
    pub(super) fn miss(&mut self, scope: &Scope<'_>) -> bool {
        if !matches!(self.place, Place::Missing { .. }) {
            self.place = Place::Missing { since: scope.now };
        }
        self.peer().is_some_and(|peer| !peer.is_starting())
    }

    /// Takes a word of the participant.
    pub(super) fn hear(&mut self, payload: Payload, scope: &mut Scope<'_>) {
        let (generation, is_offer) = match &payload {
            Payload::Offer { generation, .. } => (*generation, true),
            Payload::Answer { generation, .. } | Payload::Candidate { generation, .. } => {
                (*generation, false)
            }
            Payload::Media { microphone, camera } => {
                self.theirs = (*microphone, *camera);
                return;
            }
            Payload::Unknown => return,
        };
        if is_offer && generation > self.generation {
            // One that is not admitted counts too: a connection of ours must be newer for both.
            self.generation = generation;
            if self.churn.admits(scope.now) {
                self.close(scope);
                self.link = Link::Open(Peer::open(generation, &self.id, scope));
            }
        }
        if let Link::Open(peer) = &mut self.link
            && peer.generation() == generation
        {
            let outcome = peer.hear(payload, &self.id, scope);
            self.mourn(outcome, scope);
        }
    }

    /// Takes what the participant's connection tells.
    pub(super) fn tell(&mut self, event: PeerEvent, scope: &mut Scope<'_>) {
        let Link::Open(peer) = &mut self.link else { return };
        match event {
            PeerEvent::Writable => return self.chat.open(peer.id(), scope.out),
            PeerEvent::Read(message) => return self.read(message, scope),
            PeerEvent::Agreed(agreed) => return self.agree(agreed, scope),
            PeerEvent::Description { .. }
            | PeerEvent::Done { .. }
            | PeerEvent::Refused { .. }
            | PeerEvent::Candidate(_)
            | PeerEvent::State(_) => {}
        }
        let outcome = peer.tell(event, &self.id, scope);
        match peer.flow() {
            Flow::Flowing { .. } => {
                self.begin_anew();
                self.media_lost = None;
            }
            Flow::Silent { since } => self.media_lost = Some(since),
            Flow::Starting { .. } if peer.has_agreed() => {
                self.agreed_since = self.agreed_since.or(Some(scope.now));
            }
            Flow::Starting { .. } => {}
        }
        self.mourn(outcome, scope);
    }

    /// Says something to the participant, as soon as a connection carries it.
    pub(super) fn say(&mut self, number: u64, text: ChatText, scope: &mut Scope<'_>) {
        if self.left_out.is_some_and(|media| media.has(Media::Data)) {
            return self.announce_undelivered(1, scope);
        }
        if !self.chat.say(number, text, scope.out) {
            self.announce_undelivered(1, scope);
        }
    }

    /// Does what is due; false if the participant is out.
    pub(super) fn advance(&mut self, scope: &mut Scope<'_>) -> bool {
        let reachable = self.is_reachable(scope.down_since);
        match &mut self.link {
            Link::Waiting { at: Some(at) } if reachable && *at <= scope.now => self.connect(scope),
            Link::Waiting { .. } => {}
            Link::Open(peer) if reachable => {
                let outcome = peer.advance(&self.id, scope);
                self.mourn(outcome, scope);
            }
            Link::Open(_) => {}
        }
        if self.told_at(scope.down_since).is_some_and(|at| at <= scope.now) {
            self.tell_unconnected(scope);
        }
        self.tell_state(scope);
        if self.state == ParticipantState::Gone {
            self.close(scope);
            self.media_lost = None;
        }
        let dead = matches!(self.link, Link::Waiting { .. });
        let is_out = dead && matches!(self.place, Place::Missing { .. });
        !is_out && self.given_up_at(scope.down_since).is_none_or(|at| scope.now < at)
    }

    /// When something is due.
    pub(super) fn due(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let link = match &self.link {
            Link::Waiting { at } => *at,
            Link::Open(peer) => peer.due(),
        };
        let link = link.filter(|_| self.is_reachable(down_since));
        let told = self.told_at(down_since);
        let own = [link, told, self.state_due(down_since), self.given_up_at(down_since)];
        own.into_iter().flatten().min()
    }

    /// When the person is told that no packet comes through, if none does until then.
    fn told_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let since = self.agreed_since.filter(|_| !self.is_told && self.is_reachable(down_since))?;
        Some(since + TELL_AFTER)
    }

    /// Tells the person that there is no connection, and why.
    fn tell_unconnected(&mut self, scope: &mut Scope<'_>) {
        self.is_told = true;
        let agreed = self.peer().filter(|peer| peer.has_agreed());
        let known = agreed.map(Peer::unconnected).or_else(|| self.fault.clone());
        let Some(Dead { fault, reason }) = known.or_else(|| self.peer().map(Peer::unconnected))
        else {
            return;
        };
        let failure = refusal::no_connection(&self.name, &scope.terms.session, (fault, &reason));
        scope.out.fail(failure);
    }

    /// What went wrong until now counts no more.
    fn begin_anew(&mut self) {
        self.failures = 0;
        self.agreed_since = None;
        self.fault = None;
        self.is_told = false;
    }

    /// When somebody who is gone is out, as there is no hub to give the seat up.
    fn given_up_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let is_ours_to_say = self.state == ParticipantState::Gone && down_since.is_some();
        is_ours_to_say.then(|| self.since + SEAT_KEPT)
    }

    /// Takes the participant out; the reason is the hub's, if it said so.
    pub(super) fn leave(&mut self, reason: Option<LeaveReason>, scope: &mut Scope<'_>) {
        self.close(scope);
        let undelivered = self.chat.give_up();
        if undelivered > 0 {
            self.announce_undelivered(undelivered, scope);
        }
        self.state = ParticipantState::Left;
        self.announce(reason, scope);
    }

    /// Closes the connection, saying nothing.
    pub(super) fn close(&mut self, scope: &mut Scope<'_>) {
        if let Link::Open(peer) = std::mem::replace(&mut self.link, Link::Waiting { at: None }) {
            peer.close(scope);
            self.told = None;
            self.chat.close();
        }
    }

    /// Forgets every connection: the participant's program, or ours, is another one now.
    pub(super) fn forget(&mut self, scope: &mut Scope<'_>) {
        self.close(scope);
        self.generation = 0;
        self.begin_anew();
        self.media_lost = None;
        self.theirs = UNTOLD;
        (self.left_out, self.told_left_out) = (None, None);
        self.chat.forget();
    }

    /// Lets pass what the gates do, and tells the person what we send now.
    pub(super) fn pass(&mut self, gates: Gates, working: Gates, scope: &mut Scope<'_>) {
        let reachable = self.is_reachable(scope.down_since);
        let Link::Open(peer) = &mut self.link else { return };
        peer.pass(gates, self.theirs, scope.out);
        // A device that failed goes on being wanted, since it may come back.
        let ours = peer.sends(gates.and(working));
        if reachable && !peer.is_starting() && self.told != Some(ours) {
            self.told = Some(ours);
            let (microphone, camera) = ours;
            scope.signal(&self.id, Payload::Media { microphone, camera });
        }
    }

    /// Forgets that the person was told what we send.
    pub(super) fn retell(&mut self) {
        self.told = None;
    }

    /// What of us reaches the person now: sound, picture.
    pub(super) fn gets(&self) -> (bool, bool) {
        match self.peer() {
            Some(peer) if self.state == ParticipantState::Live => peer.fed(),
            Some(_) | None => (false, false),
        }
    }

    /// The connection that is open.
    pub(super) const fn peer(&self) -> Option<&Peer> {
        match &self.link {
            Link::Waiting { .. } => None,
            Link::Open(peer) => Some(peer),
        }
    }

    /// What the participant is called, as people see it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn has(&self, id: PeerId) -> bool {
        self.peer().is_some_and(|peer| peer.id() == id)
    }

    pub(super) fn status(&self) -> ParticipantStatus {
        ParticipantStatus {
            participant: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            state: self.state,
            since: self.since,
            microphone: self.theirs.0,
            camera: self.theirs.1,
            left_out: self.left_out,
            peer: self.peer().map(Peer::id),
        }
    }

    /// Takes what the connection agreed on. The person is told once what is left out. Without
    /// anything left there is nothing to connect for, until the other end offers something else.
    fn agree(&mut self, agreed: Agreement, scope: &mut Scope<'_>) {
        let Link::Open(peer) = &mut self.link else { return };
        let has_rest = peer.agree(agreed);
        self.left_out = agreed.left_out;
        let told = self.told_left_out;
        let is_news = |media: &Media| told.is_none_or(|told| !told.has(*media));
        if let Some(media) = agreed.left_out
            && Vec::from(media).iter().any(is_news)
        {
            let all = Vec::from(media).into_iter().fold(told.unwrap_or(media), MediaSet::with);
            self.told_left_out = Some(all);
            let (session, participant) = (scope.terms.session.clone(), self.id.clone());
            let message = refusal::left_out(&self.name, &session, media, has_rest);
            scope.out.announce(Event::LeftOut { session, participant, media, message });
        }
        if !has_rest {
            self.close(scope);
            self.agreed_since = None;
        }
    }

    /// Takes what the participant wrote. Who does not send in this session is not heard either,
    /// whatever its program is.
    fn read(&mut self, message: ChatMessage, scope: &mut Scope<'_>) {
        let terms = scope.terms;
        if let Some(text) = self.chat.read(message, scope.out)
            && terms.kind.may_write(self.role)
        {
            let (session, participant) = (terms.session.clone(), self.id.clone());
            let name = self.name.clone();
            scope.out.announce(Event::Message { session, participant, name, text });
        }
    }

    /// Expects a connection after an arrival. One that runs is left alone; one that is being made
    /// is begun anew, because its words may be lost.
    fn expect(&mut self, arrival: Arrival, scope: &mut Scope<'_>) {
        let runs = self.peer().is_some_and(|peer| !peer.is_starting());
        if self.place != Place::Here || runs {
            return;
        }
        self.close(scope);
        self.agreed_since = None;
        let at = match arrival {
            Arrival::Theirs => scope.now,
            Arrival::Ours => scope.now + OFFER_PATIENCE,
        };
        self.link = Link::Waiting { at: Some(at) };
    }

    fn connect(&mut self, scope: &mut Scope<'_>) {
        self.generation = self.generation.saturating_add(1);
        let mut peer = Peer::open(self.generation, &self.id, scope);
        let outcome = peer.offer(&self.id, scope);
        self.link = Link::Open(peer);
        self.mourn(outcome, scope);
    }

    /// Closes a dead connection and plans the next.
    fn mourn(&mut self, outcome: Result<(), Dead>, scope: &mut Scope<'_>) {
        let Err(dead) = outcome else { return };
        if self.peer().is_some_and(|peer| !peer.is_starting()) {
            self.media_lost = self.media_lost.or(Some(scope.now));
        }
        self.close(scope);
        if !self.is_reachable(scope.down_since) {
            return;
        }
        self.fault = Some(dead);
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(MAX_DOUBLINGS);
        self.link = Link::Waiting { at: Some(scope.now + FIRST_PAUSE * (1 << doublings)) };
        if self.failures >= TELL_AFTER_FAILURES && !self.is_told {
            self.tell_unconnected(scope);
        }
    }

    fn is_reachable(&self, down_since: Option<MediaTime>) -> bool {
        down_since.is_none() && self.place == Place::Here
    }

    /// Since when nothing was heard of the participant through the hub.
    fn hub_silence(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        match self.place {
            Place::Here => down_since,
            Place::Away { since } | Place::Missing { since } => Some(since),
        }
    }

    /// Since when no media came; none while it comes.
    fn media_silence(&self) -> Option<MediaTime> {
        let flows = self.peer().is_some_and(|peer| matches!(peer.flow(), Flow::Flowing { .. }));
        (!flows).then(|| self.media_lost.unwrap_or_default())
    }

    fn tell_state(&mut self, scope: &mut Scope<'_>) {
        let state = self.state_now(scope);
        if state != self.state {
            (self.state, self.since) = (state, scope.now);
            self.announce(None, scope);
        }
    }

    fn state_now(&self, scope: &Scope<'_>) -> ParticipantState {
        let Some(media) = self.media_silence() else { return ParticipantState::Live };
        if let Some(hub) = self.hub_silence(scope.down_since) {
            let gone = scope.now >= hub.max(media) + GONE_AFTER;
            return if gone { ParticipantState::Gone } else { ParticipantState::Reconnecting };
        }
        match self.state {
            _ if self.media_lost.is_none() && self.is_told => ParticipantState::Unreachable,
            _ if self.media_lost.is_none() => ParticipantState::Connecting,
            ParticipantState::Live if scope.now < media + RECONNECTING_AFTER => {
                ParticipantState::Live
            }
            ParticipantState::Live | ParticipantState::Reconnecting => {
                ParticipantState::Reconnecting
            }
            ParticipantState::Connecting
            | ParticipantState::Unreachable
            | ParticipantState::Gone
            | ParticipantState::Left => ParticipantState::Connecting,
        }
    }

    /// When the state changes if nothing comes.
    fn state_due(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let media = self.media_silence()?;
        match (self.hub_silence(down_since), self.state) {
            (_, ParticipantState::Gone | ParticipantState::Left) => None,
            (Some(hub), _) => Some(hub.max(media) + GONE_AFTER),
            (None, ParticipantState::Live) => Some(media + RECONNECTING_AFTER),
            (
                None,
                ParticipantState::Connecting
                | ParticipantState::Unreachable
                | ParticipantState::Reconnecting,
            ) => None,
        }
    }

    fn announce(&self, reason: Option<LeaveReason>, scope: &mut Scope<'_>) {
        scope.out.announce(Event::Participant {
            session: scope.terms.session.clone(),
            participant: self.id.clone(),
            name: self.name.clone(),
            state: self.state,
            reason,
        });
    }

    fn announce_undelivered(&self, count: usize, scope: &mut Scope<'_>) {
        let (session, participant) = (scope.terms.session.clone(), self.id.clone());
        let name = self.name.clone();
        scope.out.announce(Event::Undelivered { session, participant, name, count });
    }
}

impl Place {
    fn of(presence: Presence, scope: &Scope<'_>) -> Self {
        match presence {
            Presence::Here => Self::Here,
            Presence::Away { silent_ms } => {
                Self::Away { since: scope.ago(Duration::from_millis(silent_ms)) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
