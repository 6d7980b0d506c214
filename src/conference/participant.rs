//! One other participant of one session: its presence at the hub, and the peer connection to it.

mod hub_presence;
mod replacement_limiter;
mod retry_delay;
mod shown;

use std::time::Duration;

use hub_presence::HubPresence;
use replacement_limiter::ReplacementLimiter;
use retry_delay::retry_delay;

use super::{
    chat::Chat,
    context::ParticipantContext,
    deadline::{Deadline, TimerName},
    media_use::MediaUse,
    peer::{MediaState, Peer, SILENCE_TIMEOUT},
    signalled_media::SignalledMedia,
};
use crate::model::{
    ChatMessage, ChatText, ConnectionFailure, DataChannelKind, Enabled, Event, Failure,
    FailureCause, Instance, LeaveReason, Media, MediaSet, MediaTime, Member, NegotiatedMedia,
    ParticipantId, ParticipantState, ParticipantStatus, Payload, PeerEvent, PerSource, Presence,
    Role,
};

/// A participant that we are paired with.
#[derive(Debug)]
pub(super) struct Participant {
    pub(super) id: ParticipantId,
    pub(super) role: Role,
    name: String,
    instance: Instance,
    presence: HubPresence,
    connection: ConnectionPhase,
    /// The generation of the newest peer connection; signals about older ones are ignored.
    generation: u32,
    /// When the media of the last connection that had any stopped.
    media_lost_at: Option<MediaTime>,
    /// Consecutive failures to connect.
    failures: u32,
    /// Since when both descriptions of a connection have been set without media arriving. Kept if
    /// the connection is replaced meanwhile.
    negotiated_since: Option<MediaTime>,
    /// Why the last connection failed; `None` again after a success.
    last_failure: Option<ConnectionFailure>,
    /// Whether the user was told that there is no connection; reset by a success.
    failure_announced: bool,
    state: ParticipantState,
    /// When the participant entered that state.
    since: MediaTime,
    replacements: ReplacementLimiter,
    /// What the participant signals that it sends.
    theirs: SignalledMedia,
    /// What we last signalled that we send; `None` if that signal may be lost.
    last_signal: Option<Payload>,
    /// The media that the participant's program and ours cannot exchange.
    left_out: Option<MediaSet>,
    /// The media of these that the user was told of.
    announced_left_out: Option<MediaSet>,
    chat: Chat,
}

/// The phase of the peer connection to the participant.
#[derive(Debug)]
enum ConnectionPhase {
    /// A connection is offered at that time; `None` while the participant cannot be reached.
    Scheduled {
        at: Option<MediaTime>,
    },
    Open(Box<Peer>),
}

/// Which end makes the first offer: the participant that was in the session first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Offerer {
    /// The participant came to us: we make the offer.
    Us,
    /// We came to the participant: it makes the offer, or we do if none arrives for a while.
    Them,
}

/// How long a new participant waits for the offers of those that were there before.
pub(super) const OFFER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long no media may arrive before the participant is shown as reconnecting.
const RECONNECTING_AFTER: Duration = Duration::from_secs(5);

/// How long a participant must be silent, at the hub and in media, before it is not counted as
/// live.
const GONE_AFTER: Duration = SILENCE_TIMEOUT;

/// How long a participant that is gone is kept while the hub is down: as long as a hub keeps a
/// seat. A hub that is up again reports its members.
const SEAT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long after both descriptions are set the user is told that no packets arrive. A path that
/// works takes a second or two.
const REPORT_AFTER: Duration = Duration::from_secs(10);

/// After how many consecutive failures the user is told, however short they were.
const REPORT_AFTER_FAILURES: u32 = 3;

impl Participant {
    /// A participant without a peer connection to us.
    pub(super) fn new(member: Member, offerer: Offerer, cx: &mut ParticipantContext<'_>) -> Self {
        let mut new = Self {
            presence: HubPresence::of(member.presence, cx),
            id: member.participant,
            role: member.role,
            name: member.name,
            instance: member.instance,
            connection: ConnectionPhase::Scheduled { at: None },
            generation: 0,
            media_lost_at: None,
            failures: 0,
            negotiated_since: None,
            last_failure: None,
            failure_announced: false,
            state: ParticipantState::Connecting,
            since: cx.now,
            replacements: ReplacementLimiter::default(),
            theirs: SignalledMedia::default(),
            last_signal: None,
            left_out: None,
            announced_left_out: None,
            chat: Chat::default(),
        };
        new.schedule_connect(offerer, cx);
        new.state = new.current_state(cx);
        new.announce_state(None, cx);
        new
    }

    /// Handles the hub's report of the participant after it or we joined or rejoined.
    pub(super) fn on_joined(
        &mut self,
        member: Member,
        offerer: Offerer,
        cx: &mut ParticipantContext<'_>,
    ) {
        self.role = member.role;
        self.rename(member.name, cx);
        self.presence = HubPresence::of(member.presence, cx);
        self.last_signal = None;
        if self.instance != member.instance {
            self.instance = member.instance;
            self.reset(cx);
        }
        self.schedule_connect(offerer, cx);
    }

    /// The participant's name changed; nothing else does.
    pub(super) fn rename(&mut self, name: String, cx: &mut ParticipantContext<'_>) {
        if name == self.name {
            return;
        }
        let before = std::mem::replace(&mut self.name, name.clone());
        let (session, participant) = (cx.info.session.clone(), self.id.clone());
        cx.effects.announce(Event::Renamed { session, participant, before, name });
    }

    /// Handles the participant's presence at the hub.
    pub(super) fn on_presence(&mut self, presence: Presence, cx: &mut ParticipantContext<'_>) {
        let before = self.presence;
        self.presence = HubPresence::of(presence, cx);
        if self.presence == HubPresence::Here && before != HubPresence::Here {
            self.last_signal = None;
            self.schedule_connect(Offerer::Us, cx);
        }
    }

    /// The hub no longer lists the participant. Returns whether its media flows, so that it is
    /// kept.
    pub(super) fn on_missing(&mut self, cx: &ParticipantContext<'_>) -> bool {
        if !matches!(self.presence, HubPresence::Missing { .. }) {
            self.presence = HubPresence::Missing { since: cx.now };
        }
        self.peer().is_some_and(|peer| !peer.is_new())
    }

    /// Handles a signal of the participant.
    pub(super) fn handle_signal(&mut self, payload: Payload, cx: &mut ParticipantContext<'_>) {
        let (generation, is_offer) = match &payload {
            Payload::Offer { generation, .. } => (*generation, true),
            Payload::Answer { generation, .. } | Payload::Candidate { generation, .. } => {
                (*generation, false)
            }
            Payload::Media { microphone, camera, tracks, wants } => {
                let (on, tracks) = ((*microphone, *camera), tracks.clone());
                self.theirs = SignalledMedia::new(on, tracks, wants.clone());
                return;
            }
            Payload::Unknown => return,
        };
        if is_offer && generation > self.generation {
            // An offer that is not admitted counts too: our next connection must be newer for both
            // ends.
            self.generation = generation;
            if self.replacements.admits(cx.now) {
                self.close_peer(cx);
                self.connection =
                    ConnectionPhase::Open(Peer::open(generation, &self.id, cx).into());
            }
        }
        if let ConnectionPhase::Open(peer) = &mut self.connection
            && peer.generation() == generation
        {
            let outcome = peer.handle_signal(payload, &self.id, cx);
            self.handle_outcome(outcome, cx);
        }
    }

    /// Handles an event of the participant's peer connection.
    pub(super) fn handle_peer_event(&mut self, event: PeerEvent, cx: &mut ParticipantContext<'_>) {
        let ConnectionPhase::Open(peer) = &mut self.connection else { return };
        match event {
            PeerEvent::ChannelOpen(DataChannelKind::Chat) => {
                return self.chat.on_channel_open(peer.id(), cx.effects);
            }
            PeerEvent::ChannelMessage(message) => return self.handle_chat_message(message, cx),
            PeerEvent::Negotiated(negotiated) => return self.on_negotiated(negotiated, cx),
            PeerEvent::LocalDescription { .. }
            | PeerEvent::Applied { .. }
            | PeerEvent::Failed { .. }
            | PeerEvent::Candidate(_)
            | PeerEvent::AddressLost
            | PeerEvent::State(_) => {}
        }
        let outcome = peer.handle_event(event, &self.id, cx);
        match peer.media_state() {
            MediaState::Connected { .. } => {
                self.reset_failures();
                self.media_lost_at = None;
            }
            MediaState::Disconnected { since } => self.media_lost_at = Some(since),
            MediaState::New { .. } if peer.has_negotiated() => {
                self.negotiated_since = self.negotiated_since.or(Some(cx.now));
            }
            MediaState::New { .. } => {}
        }
        self.handle_outcome(outcome, cx);
    }

    /// Sends a chat message to the participant, as soon as a connection can carry it.
    pub(super) fn send_message(
        &mut self,
        number: u64,
        text: ChatText,
        cx: &mut ParticipantContext<'_>,
    ) {
        if self.left_out.is_some_and(|media| media.has(Media::Data)) {
            return self.announce_undelivered(1, cx);
        }
        if !self.chat.send(number, text, cx.effects) {
            self.announce_undelivered(1, cx);
        }
    }

    /// Handles the deadlines that have passed. Returns `false` if the participant is to be removed.
    pub(super) fn handle_timeout(&mut self, cx: &mut ParticipantContext<'_>) -> bool {
        let reachable = self.is_reachable(cx.hub_down_since);
        match &mut self.connection {
            ConnectionPhase::Scheduled { at: Some(at) } if reachable && *at <= cx.now => {
                self.connect(cx)
            }
            ConnectionPhase::Scheduled { .. } => {}
            ConnectionPhase::Open(peer) if reachable => {
                let outcome = peer.handle_timeout(&self.id, cx);
                self.handle_outcome(outcome, cx);
            }
            ConnectionPhase::Open(_) => {}
        }
        if self.failure_report_at(cx.hub_down_since).is_some_and(|at| at <= cx.now) {
            self.report_no_connection(cx);
        }
        self.update_state(cx);
        if self.state == ParticipantState::Gone {
            self.close_peer(cx);
            self.media_lost_at = None;
        }
        let is_unconnected = matches!(self.connection, ConnectionPhase::Scheduled { .. });
        let is_out = is_unconnected && matches!(self.presence, HubPresence::Missing { .. });
        !is_out && self.seat_expires_at(cx.hub_down_since).is_none_or(|at| cx.now < at)
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self, down_since: Option<MediaTime>) -> Option<Deadline<'_>> {
        let connection = match &self.connection {
            ConnectionPhase::Scheduled { at } => at.map(|at| TimerName::Connect.at(at)),
            ConnectionPhase::Open(peer) => peer.next_deadline(),
        };
        let connection = connection.filter(|_| self.is_reachable(down_since));
        let own = [
            connection,
            self.failure_report_at(down_since).map(|at| TimerName::FailureReport.at(at)),
            self.next_state_change(down_since).map(|at| TimerName::ParticipantState.at(at)),
            self.seat_expires_at(down_since).map(|at| TimerName::SeatExpiry.at(at)),
        ];
        own.into_iter().flatten().min().map(|next| next.of_participant(&self.id))
    }

    /// When the user is told that no packets arrive, unless they do before.
    fn failure_report_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let since = self
            .negotiated_since
            .filter(|_| !self.failure_announced && self.is_reachable(down_since))?;
        Some(since + REPORT_AFTER)
    }

    /// Tells the user that there is no connection, and why.
    fn report_no_connection(&mut self, cx: &mut ParticipantContext<'_>) {
        self.failure_announced = true;
        let negotiated = self.peer().filter(|peer| peer.has_negotiated());
        let known = negotiated.map(Peer::connect_failure).or_else(|| self.last_failure.clone());
        let Some(failure) = known.or_else(|| self.peer().map(Peer::connect_failure)) else {
            return;
        };
        let cause = FailureCause::NoConnection { name: self.name.clone(), failure };
        let session = Some(cx.info.session.clone());
        cx.effects.announce_failure(Failure { cause, session });
    }

    /// Resets the record of failures.
    fn reset_failures(&mut self) {
        self.failures = 0;
        self.negotiated_since = None;
        self.last_failure = None;
        self.failure_announced = false;
    }

    /// When a participant that is gone is removed, if the hub is down and cannot give up its seat.
    fn seat_expires_at(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let is_due = self.state == ParticipantState::Gone && down_since.is_some();
        is_due.then(|| self.since + SEAT_TIMEOUT)
    }

    /// Removes the participant; `reason` is the hub's, if it gave one.
    pub(super) fn on_left(&mut self, reason: Option<LeaveReason>, cx: &mut ParticipantContext<'_>) {
        self.close_peer(cx);
        let undelivered = self.chat.drop_unacknowledged();
        if undelivered > 0 {
            self.announce_undelivered(undelivered, cx);
        }
        self.state = ParticipantState::Left;
        self.announce_state(reason, cx);
    }

    /// Closes the peer connection, without an announcement.
    pub(super) fn close_peer(&mut self, cx: &mut ParticipantContext<'_>) {
        if let ConnectionPhase::Open(peer) =
            std::mem::replace(&mut self.connection, ConnectionPhase::Scheduled { at: None })
        {
            peer.close(cx);
            self.last_signal = None;
            self.theirs.forget_tracks();
            self.chat.on_closed();
        }
    }

    /// Resets all connection state: the participant's program, or ours, is another one now.
    pub(super) fn reset(&mut self, cx: &mut ParticipantContext<'_>) {
        self.close_peer(cx);
        self.generation = 0;
        self.reset_failures();
        self.media_lost_at = None;
        self.theirs = SignalledMedia::default();
        (self.left_out, self.announced_left_out) = (None, None);
        self.chat.reset_received();
    }

    /// Applies the mute switches, and signals to the participant what we send now.
    pub(super) fn apply_enabled(
        &mut self,
        enabled: Enabled,
        working: PerSource<bool>,
        cx: &mut ParticipantContext<'_>,
    ) {
        let reachable = self.is_reachable(cx.hub_down_since);
        let ConnectionPhase::Open(peer) = &mut self.connection else { return };
        peer.apply_enabled(enabled, &self.theirs, cx);
        // A failed device is still needed, because it may recover, but it is signalled as off.
        let ours = peer.enabled_sources(enabled.sources.and(working));
        let signal = peer.media_signal(ours, cx.info);
        if reachable && !peer.is_new() && self.last_signal.as_ref() != Some(&signal) {
            self.last_signal = Some(signal.clone());
            cx.send_signal(&self.id, signal);
        }
    }

    /// Makes us signal again to the participant what we send.
    pub(super) fn resend_media_state(&mut self) {
        self.last_signal = None;
    }

    /// What the peer connection to the participant uses.
    pub(super) fn media_use(&self) -> MediaUse {
        let is_live = self.state == ParticipantState::Live;
        self.peer().map_or_else(MediaUse::default, |peer| MediaUse::of(peer, is_live))
    }

    /// The open peer connection.
    pub(super) fn peer(&self) -> Option<&Peer> {
        match &self.connection {
            ConnectionPhase::Scheduled { .. } => None,
            ConnectionPhase::Open(peer) => Some(&**peer),
        }
    }

    /// The participant's name as it is shown.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn status(&self) -> ParticipantStatus {
        ParticipantStatus {
            participant: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            state: self.state,
            since: self.since,
            sends: self.theirs.sources,
            left_out: self.left_out,
            peer: self.peer().map(Peer::id),
        }
    }

    /// Handles the negotiated media. The user is told once which media are left out. If all are,
    /// the connection is closed until the remote peer offers something else.
    fn on_negotiated(&mut self, negotiated: NegotiatedMedia, cx: &mut ParticipantContext<'_>) {
        let ConnectionPhase::Open(peer) = &mut self.connection else { return };
        self.left_out = negotiated.left_out;
        let has_rest = peer.set_negotiated(negotiated);
        let announced = self.announced_left_out;
        let is_news = |media: &Media| announced.is_none_or(|set| !set.has(*media));
        if let Some(media) = self.left_out
            && Vec::from(media).iter().any(is_news)
        {
            let all = Vec::from(media).into_iter().fold(announced.unwrap_or(media), MediaSet::with);
            self.announced_left_out = Some(all);
            let (session, participant) = (cx.info.session.clone(), self.id.clone());
            let name = self.name.clone();
            cx.effects.announce(Event::LeftOut { session, participant, name, media, has_rest });
        }
        if !has_rest {
            self.close_peer(cx);
            self.negotiated_since = None;
        }
    }

    /// Handles a chat message of the participant. It is ignored if the participant's role may not
    /// write in this session, whatever its program sends.
    fn handle_chat_message(&mut self, message: ChatMessage, cx: &mut ParticipantContext<'_>) {
        let info = cx.info;
        if let Some(text) = self.chat.handle_message(message, cx.effects)
            && info.kind.may_chat(self.role)
        {
            let (session, participant) = (info.session.clone(), self.id.clone());
            let name = self.name.clone();
            cx.effects.announce(Event::MessageReceived { session, participant, name, text });
        }
    }

    /// Schedules a peer connection after one end joined. A connection with media is kept. One that
    /// is being established is started again, because its signals may be lost.
    fn schedule_connect(&mut self, offerer: Offerer, cx: &mut ParticipantContext<'_>) {
        let has_media = self.peer().is_some_and(|peer| !peer.is_new());
        if self.presence != HubPresence::Here || has_media {
            return;
        }
        self.close_peer(cx);
        self.negotiated_since = None;
        let at = match offerer {
            Offerer::Us => cx.now,
            Offerer::Them => cx.now + OFFER_TIMEOUT,
        };
        self.connection = ConnectionPhase::Scheduled { at: Some(at) };
    }

    fn connect(&mut self, cx: &mut ParticipantContext<'_>) {
        self.generation = self.generation.saturating_add(1);
        let mut peer = Peer::open(self.generation, &self.id, cx);
        let outcome = peer.offer(&self.id, cx);
        self.connection = ConnectionPhase::Open(peer.into());
        self.handle_outcome(outcome, cx);
    }

    /// Closes a lost connection and schedules the next.
    fn handle_outcome(
        &mut self,
        outcome: Result<(), ConnectionFailure>,
        cx: &mut ParticipantContext<'_>,
    ) {
        let Err(lost) = outcome else { return };
        if self.peer().is_some_and(|peer| !peer.is_new()) {
            self.media_lost_at = self.media_lost_at.or(Some(cx.now));
        }
        self.close_peer(cx);
        if !self.is_reachable(cx.hub_down_since) {
            return;
        }
        self.last_failure = Some(lost);
        self.failures = self.failures.saturating_add(1);
        let at = Some(cx.now + retry_delay(self.failures));
        self.connection = ConnectionPhase::Scheduled { at };
        if self.failures >= REPORT_AFTER_FAILURES && !self.failure_announced {
            self.report_no_connection(cx);
        }
    }

    fn is_reachable(&self, down_since: Option<MediaTime>) -> bool {
        down_since.is_none() && self.presence == HubPresence::Here
    }

    /// Since when the hub has reported nothing of the participant; `None` while it is present.
    fn hub_silent_since(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        match self.presence {
            HubPresence::Here => down_since,
            HubPresence::Away { since } | HubPresence::Missing { since } => Some(since),
        }
    }

    /// Since when no media arrives; `None` while it does.
    fn media_silent_since(&self) -> Option<MediaTime> {
        let is_connected = self
            .peer()
            .is_some_and(|peer| matches!(peer.media_state(), MediaState::Connected { .. }));
        (!is_connected).then(|| self.media_lost_at.unwrap_or_default())
    }

    fn update_state(&mut self, cx: &mut ParticipantContext<'_>) {
        let state = self.current_state(cx);
        if state != self.state {
            (self.state, self.since) = (state, cx.now);
            self.announce_state(None, cx);
        }
    }

    fn current_state(&self, cx: &ParticipantContext<'_>) -> ParticipantState {
        let Some(media) = self.media_silent_since() else { return ParticipantState::Live };
        if let Some(hub) = self.hub_silent_since(cx.hub_down_since) {
            let gone = cx.now >= hub.max(media) + GONE_AFTER;
            return if gone { ParticipantState::Gone } else { ParticipantState::Reconnecting };
        }
        match self.state {
            _ if self.media_lost_at.is_none() && self.failure_announced => {
                ParticipantState::Unreachable
            }
            _ if self.media_lost_at.is_none() => ParticipantState::Connecting,
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
    fn next_state_change(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        let media = self.media_silent_since()?;
        match (self.hub_silent_since(down_since), self.state) {
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

    fn announce_state(&self, reason: Option<LeaveReason>, cx: &mut ParticipantContext<'_>) {
        cx.effects.announce(Event::Participant {
            session: cx.info.session.clone(),
            participant: self.id.clone(),
            name: self.name.clone(),
            state: self.state,
            reason,
        });
    }

    fn announce_undelivered(&self, count: usize, cx: &mut ParticipantContext<'_>) {
        let (session, participant) = (cx.info.session.clone(), self.id.clone());
        let name = self.name.clone();
        cx.effects.announce(Event::Undelivered { session, participant, name, count });
    }
}

#[cfg(test)]
mod tests;
