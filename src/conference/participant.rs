//! One other participant of one session: its presence at the hub, and the peer connection to it.

mod churn;
mod place;

use std::time::Duration;

use churn::Churn;
use place::Place;

use super::{
    chat::Chat,
    context::Scope,
    peer::{Dead, Flow, Peer, SILENCE_PATIENCE},
    refusal,
};
use crate::model::{
    Agreement, ChatMessage, ChatText, Event, Gates, Instance, LeaveReason, Media, MediaSet,
    MediaTime, Member, ParticipantId, ParticipantState, ParticipantStatus, Payload, PeerEvent,
    PeerId, Presence, Role,
};

/// A participant that we are paired with.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) id: ParticipantId,
    pub(super) role: Role,
    name: String,
    instance: Instance,
    place: Place,
    link: Link,
    /// The generation of the newest peer connection; signals about older ones are ignored.
    generation: u32,
    /// When the media of the last connection that had any stopped.
    media_lost: Option<MediaTime>,
    /// Consecutive failures to connect.
    failures: u32,
    /// Since when both descriptions of a connection have been set without media arriving. Kept if
    /// the connection is replaced meanwhile.
    agreed_since: Option<MediaTime>,
    /// Why the last connection failed; `None` again after a success.
    fault: Option<Dead>,
    /// Whether the user was told that there is no connection; reset by a success.
    is_told: bool,
    state: ParticipantState,
    /// When the participant entered that state.
    since: MediaTime,
    churn: Churn,
    /// The media that the participant signals that it sends: audio, video.
    theirs: (bool, bool),
    /// The media that we last signalled that we send; `None` if that signal may be lost.
    told: Option<(bool, bool)>,
    /// The media that the participant's program and ours cannot exchange.
    left_out: Option<MediaSet>,
    /// The media of these that the user was told of.
    told_left_out: Option<MediaSet>,
    chat: Chat,
}

/// The phase of the peer connection to the participant.
#[derive(Debug)]
enum Link {
    /// A connection is offered at that time; `None` while the participant cannot be reached.
    Waiting {
        at: Option<MediaTime>,
    },
    Open(Peer),
}

/// The media that a participant is assumed to send until it signals them.
const UNTOLD: (bool, bool) = (true, true);

/// Which end makes the first offer: the participant that was in the session first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The participant came to us: we make the offer.
    Theirs,
    /// We came to the participant: it makes the offer, or we do if none arrives for a while.
    Ours,
}

/// How long a new participant waits for the offers of those that were there before.
pub(super) const OFFER_PATIENCE: Duration = Duration::from_secs(3);

/// How long no media may arrive before the participant is shown as reconnecting.
const RECONNECTING_AFTER: Duration = Duration::from_secs(5);

/// How long a participant must be silent, at the hub and in media, before it is not counted as
/// live.
const GONE_AFTER: Duration = SILENCE_PATIENCE;

/// How long a participant that is gone is kept while the hub is down: as long as a hub keeps a
/// seat. A hub that is up again reports its members.
const SEAT_KEPT: Duration = Duration::from_secs(60);

/// The delay before the first retry of a connection; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The most doublings of the delay: up to 8 s.
const MAX_DOUBLINGS: u32 = 4;

/// How long after both descriptions are set the user is told that no packets arrive. A path that
/// works takes a second or two.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// After how many consecutive failures the user is told, however short they were.
const TELL_AFTER_FAILURES: u32 = 3;

impl Participant {
    /// A participant without a peer connection to us.
    pub(super) fn new(member: Member, offerer: Arrival, cx: &mut Scope<'_>) -> Self {
        let mut new = Self {
            place: Place::of(member.presence, cx),
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
            since: cx.now,
            churn: Churn::default(),
            theirs: UNTOLD,
            told: None,
            left_out: None,
            told_left_out: None,
            chat: Chat::default(),
        };
        new.expect(offerer, cx);
        new.state = new.state_now(cx);
        new.announce(None, cx);
        new
    }

    /// Handles the hub's report of the participant after it or we joined or rejoined.
    pub(super) fn meet(&mut self, member: Member, offerer: Arrival, cx: &mut Scope<'_>) {
        self.role = member.role;
        self.rename(member.name, cx);
        self.place = Place::of(member.presence, cx);
        self.told = None;
        if self.instance != member.instance {
            self.instance = member.instance;
            self.forget(cx);
        }
        self.expect(offerer, cx);
    }

    /// The participant's name changed; nothing else does.
    pub(super) fn rename(&mut self, name: String, cx: &mut Scope<'_>) {
        if name == self.name {
            return;
        }
        let before = std::mem::replace(&mut self.name, name.clone());
        let (session, participant) = (cx.terms.session.clone(), self.id.clone());
        cx.out.announce(Event::Renamed { session, participant, before, name });
    }

    /// Handles the participant's presence at the hub.
    pub(super) fn be(&mut self, presence: Presence, cx: &mut Scope<'_>) {
        let before = self.place;
        self.place = Place::of(presence, cx);
        if self.place == Place::Here && before != Place::Here {
            self.told = None;
            self.expect(Arrival::Theirs, cx);
        }
    }

    /// The hub no longer lists the participant. Returns whether its media flows, so that it is
    /// kept.
    pub(super) fn miss(&mut self, cx: &Scope<'_>) -> bool {
        if !matches!(self.place, Place::Missing { .. }) {
            self.place = Place::Missing { since: cx.now };
        }
        self.peer().is_some_and(|peer| !peer.is_starting())
    }

    /// Handles a signal of the participant.
    pub(super) fn hear(&mut self, payload: Payload, cx: &mut Scope<'_>) {
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
            // An offer that is not admitted counts too: our next connection must be newer for both
            // ends.
            self.generation = generation;
            if self.churn.admits(cx.now) {
                self.close(cx);
                self.link = Link::Open(Peer::open(generation, &self.id, cx));
            }
        }
        if let Link::Open(peer) = &mut self.link
            && peer.generation() == generation
        {
            let outcome = peer.hear(payload, &self.id, cx);
            self.mourn(outcome, cx);
        }
    }

    /// Handles an event of the participant's peer connection.
    pub(super) fn tell(&mut self, event: PeerEvent, cx: &mut Scope<'_>) {
        let Link::Open(peer) = &mut self.link else { return };
        match event {
            PeerEvent::Writable => return self.chat.open(peer.id(), cx.out),
            PeerEvent::Read(message) => return self.read(message, cx),
            PeerEvent::Agreed(negotiated) => return self.agree(negotiated, cx),
            PeerEvent::Description { .. }
            | PeerEvent::Done { .. }
            | PeerEvent::Refused { .. }
            | PeerEvent::Candidate(_)
            | PeerEvent::State(_) => {}
        }
        let outcome = peer.tell(event, &self.id, cx);
        match peer.flow() {
            Flow::Flowing { .. } => {
                self.begin_anew();
                self.media_lost = None;
            }
            Flow::Silent { since } => self.media_lost = Some(since),
            Flow::Starting { .. } if peer.has_agreed() => {
                self.agreed_since = self.agreed_since.or(Some(cx.now));
            }
            Flow::Starting { .. } => {}
        }
        self.mourn(outcome, cx);
    }

    /// Sends a chat message to the participant, as soon as a connection can carry it.
    pub(super) fn say(&mut self, number: u64, text: ChatText, cx: &mut Scope<'_>) {
        if self.left_out.is_some_and(|media| media.has(Media::Data)) {
            return self.announce_undelivered(1, cx);
        }
        if !self.chat.say(number, text, cx.out) {
            self.announce_undelivered(1, cx);
        }
    }

    /// Handles the deadlines that have passed. Returns `false` if the participant is to be removed.
    pub(super) fn advance(&mut self, cx: &mut Scope<'_>) -> bool {
        let reachable = self.is_reachable(cx.down_since);
        match &mut self.link {
            Link::Waiting { at: Some(at) } if reachable && *at <= cx.now => self.connect(cx),
            Link::Waiting { .. } => {}
            Link::Open(peer) if reachable => {
                let outcome = peer.advance(&self.id, cx);
                self.mourn(outcome, cx);
            }
            Link::Open(_) => {}
        }
        if self.told_at(cx.down_since).is_some_and(|at| at <= cx.now) {
            self.tell_unconnected(cx);
        }
        self.tell_state(cx);
        if self.state == ParticipantState::Gone {
            self.close(cx);
            self.media_lost = None;
        }
        let is_unconnected = matches!(self.link, Link::Waiting { .. });
        let is_out = is_unconnected && matches!(self.place, Place::Missing { .. });
        !is_out && self.given_up_at(cx.down_since).is_none_or(|at| cx.now < at)
    }

    /// The next deadline.
    pub(super) fn due(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let connection = match &self.link {
            Link::Waiting { at } => *at,
            Link::Open(peer) => peer.due(),
        };
        let connection = connection.filter(|_| self.is_reachable(down_since));
        let report = self.told_at(down_since);
        let own = [connection, report, self.state_due(down_since), self.given_up_at(down_since)];
        own.into_iter().flatten().min()
    }

    /// When the user is told that no packets arrive, unless they do before.
    fn told_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let since = self.agreed_since.filter(|_| !self.is_told && self.is_reachable(down_since))?;
        Some(since + TELL_AFTER)
    }

    /// Tells the user that there is no connection, and why.
    fn tell_unconnected(&mut self, cx: &mut Scope<'_>) {
        self.is_told = true;
        let negotiated = self.peer().filter(|peer| peer.has_agreed());
        let known = negotiated.map(Peer::unconnected).or_else(|| self.fault.clone());
        let Some(Dead { fault, reason }) = known.or_else(|| self.peer().map(Peer::unconnected))
        else {
            return;
        };
        let failure = refusal::no_connection(&self.name, &cx.terms.session, (fault, &reason));
        cx.out.fail(failure);
    }

    /// Resets the record of failures.
    fn begin_anew(&mut self) {
        self.failures = 0;
        self.agreed_since = None;
        self.fault = None;
        self.is_told = false;
    }

    /// When a participant that is gone is removed, if the hub is down and cannot give up its seat.
    fn given_up_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let is_due = self.state == ParticipantState::Gone && down_since.is_some();
        is_due.then(|| self.since + SEAT_KEPT)
    }

    /// Removes the participant; `reason` is the hub's, if it gave one.
    pub(super) fn leave(&mut self, reason: Option<LeaveReason>, cx: &mut Scope<'_>) {
        self.close(cx);
        let undelivered = self.chat.give_up();
        if undelivered > 0 {
            self.announce_undelivered(undelivered, cx);
        }
        self.state = ParticipantState::Left;
        self.announce(reason, cx);
    }

    /// Closes the peer connection, without an announcement.
    pub(super) fn close(&mut self, cx: &mut Scope<'_>) {
        if let Link::Open(peer) = std::mem::replace(&mut self.link, Link::Waiting { at: None }) {
            peer.close(cx);
            self.told = None;
            self.chat.close();
        }
    }

    /// Resets all connection state: the participant's program, or ours, is another one now.
    pub(super) fn forget(&mut self, cx: &mut Scope<'_>) {
        self.close(cx);
        self.generation = 0;
        self.begin_anew();
        self.media_lost = None;
        self.theirs = UNTOLD;
        (self.left_out, self.told_left_out) = (None, None);
        self.chat.forget();
    }

    /// Applies the mute switches, and signals to the participant what we send now.
    pub(super) fn pass(&mut self, enabled: Gates, working: Gates, cx: &mut Scope<'_>) {
        let reachable = self.is_reachable(cx.down_since);
        let Link::Open(peer) = &mut self.link else { return };
        peer.pass(enabled, self.theirs, cx.out);
        // A failed device is still needed, because it may recover, but it is signalled as off.
        let ours = peer.sends(enabled.and(working));
        if reachable && !peer.is_starting() && self.told != Some(ours) {
            self.told = Some(ours);
            let (microphone, camera) = ours;
            cx.signal(&self.id, Payload::Media { microphone, camera });
        }
    }

    /// Makes us signal again to the participant what we send.
    pub(super) fn retell(&mut self) {
        self.told = None;
    }

    /// The media of ours that the participant receives now: audio, video.
    pub(super) fn gets(&self) -> (bool, bool) {
        match self.peer() {
            Some(peer) if self.state == ParticipantState::Live => peer.fed(),
            Some(_) | None => (false, false),
        }
    }

    /// The open peer connection.
    pub(super) const fn peer(&self) -> Option<&Peer> {
        match &self.link {
            Link::Waiting { .. } => None,
            Link::Open(peer) => Some(peer),
        }
    }

    /// The participant's name as it is shown.
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

    /// Handles the negotiated media. The user is told once which media are left out. If all are,
    /// the connection is closed until the remote peer offers something else.
    fn agree(&mut self, negotiated: Agreement, cx: &mut Scope<'_>) {
        let Link::Open(peer) = &mut self.link else { return };
        let has_rest = peer.agree(negotiated);
        self.left_out = negotiated.left_out;
        let announced = self.told_left_out;
        let is_news = |media: &Media| announced.is_none_or(|set| !set.has(*media));
        if let Some(media) = negotiated.left_out
            && Vec::from(media).iter().any(is_news)
        {
            let all = Vec::from(media).into_iter().fold(announced.unwrap_or(media), MediaSet::with);
            self.told_left_out = Some(all);
            let (session, participant) = (cx.terms.session.clone(), self.id.clone());
            let message = refusal::left_out(&self.name, &session, media, has_rest);
            cx.out.announce(Event::LeftOut { session, participant, media, message });
        }
        if !has_rest {
            self.close(cx);
            self.agreed_since = None;
        }
    }

    /// Handles a chat message of the participant. It is ignored if the participant's role may not
    /// write in this session, whatever its program sends.
    fn read(&mut self, message: ChatMessage, cx: &mut Scope<'_>) {
        let info = cx.terms;
        if let Some(text) = self.chat.read(message, cx.out)
            && info.kind.may_write(self.role)
        {
            let (session, participant) = (info.session.clone(), self.id.clone());
            let name = self.name.clone();
            cx.out.announce(Event::Message { session, participant, name, text });
        }
    }

    /// Schedules a peer connection after one end joined. A connection with media is kept. One that
    /// is being established is started again, because its signals may be lost.
    fn expect(&mut self, offerer: Arrival, cx: &mut Scope<'_>) {
        let has_media = self.peer().is_some_and(|peer| !peer.is_starting());
        if self.place != Place::Here || has_media {
            return;
        }
        self.close(cx);
        self.agreed_since = None;
        let at = match offerer {
            Arrival::Theirs => cx.now,
            Arrival::Ours => cx.now + OFFER_PATIENCE,
        };
        self.link = Link::Waiting { at: Some(at) };
    }

    fn connect(&mut self, cx: &mut Scope<'_>) {
        self.generation = self.generation.saturating_add(1);
        let mut peer = Peer::open(self.generation, &self.id, cx);
        let outcome = peer.offer(&self.id, cx);
        self.link = Link::Open(peer);
        self.mourn(outcome, cx);
    }

    /// Closes a lost connection and schedules the next.
    fn mourn(&mut self, outcome: Result<(), Dead>, cx: &mut Scope<'_>) {
        let Err(lost) = outcome else { return };
        if self.peer().is_some_and(|peer| !peer.is_starting()) {
            self.media_lost = self.media_lost.or(Some(cx.now));
        }
        self.close(cx);
        if !self.is_reachable(cx.down_since) {
            return;
        }
        self.fault = Some(lost);
        self.failures = self.failures.saturating_add(1);
        let doublings = (self.failures - 1).min(MAX_DOUBLINGS);
        self.link = Link::Waiting { at: Some(cx.now + FIRST_PAUSE * (1 << doublings)) };
        if self.failures >= TELL_AFTER_FAILURES && !self.is_told {
            self.tell_unconnected(cx);
        }
    }

    fn is_reachable(&self, down_since: Option<MediaTime>) -> bool {
        down_since.is_none() && self.place == Place::Here
    }

    /// Since when the hub has reported nothing of the participant; `None` while it is present.
    fn hub_silence(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        match self.place {
            Place::Here => down_since,
            Place::Away { since } | Place::Missing { since } => Some(since),
        }
    }

    /// Since when no media arrives; `None` while it does.
    fn media_silence(&self) -> Option<MediaTime> {
        let is_connected =
            self.peer().is_some_and(|peer| matches!(peer.flow(), Flow::Flowing { .. }));
        (!is_connected).then(|| self.media_lost.unwrap_or_default())
    }

    fn tell_state(&mut self, cx: &mut Scope<'_>) {
        let state = self.state_now(cx);
        if state != self.state {
            (self.state, self.since) = (state, cx.now);
            self.announce(None, cx);
        }
    }

    fn state_now(&self, cx: &Scope<'_>) -> ParticipantState {
        let Some(media) = self.media_silence() else { return ParticipantState::Live };
        if let Some(hub) = self.hub_silence(cx.down_since) {
            let gone = cx.now >= hub.max(media) + GONE_AFTER;
            return if gone { ParticipantState::Gone } else { ParticipantState::Reconnecting };
        }
        match self.state {
            _ if self.media_lost.is_none() && self.is_told => ParticipantState::Unreachable,
            _ if self.media_lost.is_none() => ParticipantState::Connecting,
            ParticipantState::Live if cx.now < media + RECONNECTING_AFTER => ParticipantState::Live,
            ParticipantState::Live | ParticipantState::Reconnecting => {
                ParticipantState::Reconnecting
            }
            ParticipantState::Connecting
            | ParticipantState::Unreachable
            | ParticipantState::Gone
            | ParticipantState::Left => ParticipantState::Connecting,
        }
    }

    /// When the state changes if nothing arrives.
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

    fn announce(&self, reason: Option<LeaveReason>, cx: &mut Scope<'_>) {
        cx.out.announce(Event::Participant {
            session: cx.terms.session.clone(),
            participant: self.id.clone(),
            name: self.name.clone(),
            state: self.state,
            reason,
        });
    }

    fn announce_undelivered(&self, count: usize, cx: &mut Scope<'_>) {
        let (session, participant) = (cx.terms.session.clone(), self.id.clone());
        let name = self.name.clone();
        cx.out.announce(Event::Undelivered { session, participant, name, count });
    }
}

#[cfg(test)]
mod tests;
