//! One session, from the request to its end.

mod host;
mod speaker;
mod status;

use std::sync::Arc;

use super::{
    context::{CoreContext, SessionInfo},
    deadline::Deadline,
    hub_news::SessionNews,
    hubs::{HubConnectionState, HubIdentity, Hubs},
    input::HubRef,
    lookup::{SessionLookup, SessionRequest},
    membership::{JoinedInfo, Membership},
};
use crate::model::{
    ActiveSpeaker, ChatFailure, ChatText, ClientMessage, CloseReason, DataUse, Enabled, EndReason,
    ErrorCode, Event, Failure, HubEndpoint, HubFailure, HubUrl, Media, MediaTime, ParticipantId,
    PeerEvent, PerSource, Role, SessionId, SessionKind, SessionLink, SessionStatus, ShownSize,
};

/// A session that was requested and not dismissed.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The session's own mute switches. They live from the request until the session is dismissed.
    pub(super) enabled: Enabled,
    /// How much data it may use. As the switches, it lives until the session is dismissed.
    data_use: DataUse,
    /// Whether the user has raised its priority by a class. Kept as long as the switches.
    pub(super) is_raised: bool,
    /// Whether it is being left, which can be undone. Everything is muted meanwhile.
    pub(super) is_departing: bool,
    /// Whether anything of it may have changed since it was last settled and shown.
    pub(super) is_touched: bool,
    /// Who speaks.
    active_speaker: Option<ActiveSpeaker>,
    /// Its state in snapshots.
    shown: Option<Arc<SessionStatus>>,
    phase: SessionPhase,
}

/// The phase of a session.
#[derive(Debug)]
enum SessionPhase {
    /// It was requested.
    Joining(SessionLookup),
    /// We have joined it.
    Joined(Box<Membership>),
    /// It has ended.
    Ended(EndedSession, EndReason),
    /// It could not be opened or joined, or could not be kept.
    Failed(EndedSession, Failure),
}

/// What is still shown of a session that has ended.
#[derive(Clone, Debug)]
struct EndedSession {
    kind: Option<SessionKind>,
    role: Role,
    limit: Option<u16>,
    link: Option<SessionLink>,
    hub: Option<HubEndpoint>,
}

impl Session {
    /// Requests a session at the hubs that may have it.
    pub(super) fn request(
        id: SessionId,
        request: SessionRequest,
        hubs: Vec<HubRef>,
        cx: &mut CoreContext<'_>,
    ) -> Self {
        let lookup = SessionLookup::begin(id.clone(), request, hubs, cx);
        let (enabled, phase) = (Enabled::default(), SessionPhase::Joining(lookup));
        let mut session = Self {
            id,
            enabled,
            data_use: DataUse::Full,
            is_raised: false,
            is_departing: false,
            is_touched: true,
            active_speaker: None,
            shown: None,
            phase,
        };
        session.fail_lookup_if_over(cx);
        session
    }

    /// Its kind, while it is joined.
    pub(super) fn kind(&self) -> Option<SessionKind> {
        match &self.phase {
            SessionPhase::Joined(membership) => Some(membership.info.kind),
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => None,
        }
    }

    /// Takes over what the user has chosen for it before it ended: it is requested again.
    pub(super) fn keep_choices(&mut self, ended: &Self) {
        (self.enabled, self.is_raised) = (ended.enabled, ended.is_raised);
        self.set_data_use(ended.data_use);
    }

    /// Sets how much data it may use.
    pub(super) fn set_data_use(&mut self, data_use: DataUse) {
        self.data_use = data_use;
        if let SessionPhase::Joined(membership) = &mut self.phase {
            membership.info.data_use = data_use;
            membership.roster.touch_all();
        }
    }

    /// Whether it has ended, for whatever reason.
    pub(super) const fn is_ended(&self) -> bool {
        matches!(self.phase, SessionPhase::Ended(..) | SessionPhase::Failed(..))
    }

    /// Whether we have a seat in it.
    pub(super) const fn is_joined(&self) -> bool {
        matches!(self.phase, SessionPhase::Joined(_))
    }

    /// Whether we opened it or took it over.
    pub(super) fn is_own(&self) -> bool {
        self.role() == Role::Opener
    }

    /// The hubs that it needs.
    pub(super) fn hubs(&self) -> Vec<HubRef> {
        match &self.phase {
            SessionPhase::Joining(lookup) => lookup.hubs().cloned().collect(),
            SessionPhase::Joined(membership) => vec![membership.info.hub.clone()],
            SessionPhase::Ended(..) | SessionPhase::Failed(..) => vec![],
        }
    }

    /// A hub is up, for the first time or again.
    pub(super) fn on_hub_up(
        &mut self,
        hub: &HubRef,
        (url, me): (&HubUrl, &ParticipantId),
        cx: &mut CoreContext<'_>,
    ) {
        match &mut self.phase {
            SessionPhase::Joining(lookup) => {
                lookup.on_hub_up(hub, cx);
                self.fail_lookup_if_over(cx);
            }
            SessionPhase::Joined(membership) if membership.is_at(hub) => {
                membership.on_hub_up(url.clone(), me.clone(), cx);
            }
            SessionPhase::Joined(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {}
        }
    }

    /// A hub's address changed.
    pub(super) fn on_hub_address_changed(
        &mut self,
        hub: &HubRef,
        url: &HubUrl,
        cx: &mut CoreContext<'_>,
    ) {
        if let SessionPhase::Joined(membership) = &mut self.phase
            && membership.is_at(hub)
        {
            membership.on_hub_address_changed(url.clone(), cx);
        }
    }

    /// A hub is down.
    pub(super) fn on_hub_down(&mut self, hub: &HubRef, reason: &str, cx: &mut CoreContext<'_>) {
        match &mut self.phase {
            SessionPhase::Joining(lookup) => {
                lookup.on_hub_down(hub, reason, cx);
                self.fail_lookup_if_over(cx);
            }
            SessionPhase::Joined(membership) if membership.is_at(hub) => {
                membership.on_hub_down(cx.now)
            }
            SessionPhase::Joined(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {}
        }
    }

    /// Handles what a hub reports about this session.
    pub(super) fn handle_news(
        &mut self,
        hub: &HubRef,
        news: SessionNews,
        cx: &mut CoreContext<'_>,
    ) {
        match &mut self.phase {
            SessionPhase::Joining(lookup) if lookup.includes(hub) => {
                self.handle_lookup_news(hub, news, cx)
            }
            SessionPhase::Joined(membership) if membership.is_at(hub) => {
                self.handle_session_news(news, cx)
            }
            SessionPhase::Joining(_)
            | SessionPhase::Joined(_)
            | SessionPhase::Ended(..)
            | SessionPhase::Failed(..) => {}
        }
    }

    /// Handles an event of the peer connection to a participant.
    pub(super) fn handle_peer_event(
        &mut self,
        of: &ParticipantId,
        event: PeerEvent,
        cx: &mut CoreContext<'_>,
    ) {
        if let SessionPhase::Joined(membership) = &mut self.phase {
            membership.handle_peer_event(of, event, cx);
        }
    }

    /// Sets at which size we show the videos of a participant.
    pub(super) fn set_shown(&mut self, of: &ParticipantId, sizes: PerSource<Option<ShownSize>>) {
        if let SessionPhase::Joined(membership) = &mut self.phase {
            membership.roster.set_shown(of, sizes);
        }
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, cx: &mut CoreContext<'_>) {
        match &mut self.phase {
            SessionPhase::Joining(lookup) => lookup.handle_timeout(cx),
            SessionPhase::Joined(membership) => membership.handle_timeout(cx),
            SessionPhase::Ended(..) | SessionPhase::Failed(..) => {}
        }
    }

    /// Whether it was touched or a deadline of it has passed.
    pub(super) fn is_due(&self, now: MediaTime) -> bool {
        self.is_touched || self.next_deadline().is_some_and(|next| next.at <= now)
    }

    /// Applies the mute switches: the session's own and those of the whole program (`outside`).
    /// `working` tells which sources have not failed.
    pub(super) fn apply_enabled(
        &mut self,
        outside: Enabled,
        working: PerSource<bool>,
        cx: &mut CoreContext<'_>,
    ) {
        let enabled = if self.is_departing { Enabled::NONE } else { outside.and(self.enabled) };
        let enabled = self.data_use.apply(enabled);
        if let SessionPhase::Joined(membership) = &mut self.phase {
            let (roster, mut cx) = membership.roster_and_context(cx);
            roster.apply_enabled(enabled, working, &mut cx);
        }
    }

    /// Sends a chat message to all participants, if the session has a chat, our role may write, and
    /// there is at least one participant.
    pub(super) fn send_message(&mut self, text: ChatText, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joined(membership) = &mut self.phase else {
            return cx.effects.announce_failure(ChatFailure::NotOpen.of(&self.id));
        };
        let SessionInfo { kind, role, .. } = &membership.info;
        if !kind.media.has(Media::Data) {
            return cx.effects.announce_failure(ChatFailure::NoChat(*kind).of(&self.id));
        }
        if !kind.may_chat(*role) {
            return cx.effects.announce_failure(ChatFailure::GuestsCannotWrite.of(&self.id));
        }
        if membership.roster.is_empty() {
            return cx.effects.announce_failure(ChatFailure::NobodyToRead.of(&self.id));
        }
        membership.send_message(&text, cx);
        cx.effects.announce(Event::MessageSent { session: self.id.clone(), text });
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let next = match &self.phase {
            SessionPhase::Joining(lookup) => lookup.next_deadline(),
            SessionPhase::Joined(membership) => membership.next_deadline(),
            SessionPhase::Ended(..) | SessionPhase::Failed(..) => None,
        };
        next.map(|next| next.of_session(&self.id))
    }

    /// Leaves the session; notifies the hub unless the session has ended.
    pub(super) fn leave(&mut self, cx: &mut CoreContext<'_>) {
        if !self.is_ended() {
            self.send_leave(cx);
            self.end(EndReason::Left, cx);
        }
    }

    /// Closes the session for all participants.
    pub(super) fn close(&mut self, cx: &mut CoreContext<'_>) {
        match &self.phase {
            SessionPhase::Joined(membership) => {
                membership.send_leave(ClientMessage::Close { session: self.id.clone() }, cx);
            }
            SessionPhase::Joining(lookup) => lookup.cancel(None, cx),
            SessionPhase::Ended(..) | SessionPhase::Failed(..) => return,
        }
        self.end(EndReason::Closed, cx);
    }

    /// Handles what a hub that was asked for the session reports.
    fn handle_lookup_news(&mut self, hub: &HubRef, news: SessionNews, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joining(lookup) = &mut self.phase else { return };
        match news {
            SessionNews::Entered { kind, limit, role, members } => {
                self.on_joined(hub, JoinedInfo { kind, limit, role, members }, cx);
            }
            SessionNews::Waiting => lookup.on_waiting(hub, cx),
            SessionNews::Refused { code, message } => {
                lookup.on_refused(hub, (code, message), cx);
                self.fail_lookup_if_over(cx);
            }
            SessionNews::Member(_)
            | SessionNews::Owner { .. }
            | SessionNews::Access { .. }
            | SessionNews::Closed { .. } => {}
        }
    }

    /// Handles what the hub of a session that we have joined reports.
    fn handle_session_news(&mut self, news: SessionNews, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joined(membership) = &mut self.phase else { return };
        match news {
            SessionNews::Entered { kind, limit, role, members } => {
                self.on_rejoined(JoinedInfo { kind, limit, role, members }, cx);
            }
            SessionNews::Waiting => membership.on_waiting(cx.now),
            SessionNews::Closed { reason } => match reason {
                CloseReason::OpenerLost => membership.on_opener_lost(cx),
                CloseReason::OpenerLeft => self.end(EndReason::OpenerLeft, cx),
                CloseReason::Closed => self.end(EndReason::Closed, cx),
                CloseReason::Ejected => self.end(EndReason::Ejected, cx),
                CloseReason::Replaced => self.end(EndReason::Replaced, cx),
            },
            SessionNews::Refused { code, message } => self.on_refused(code, &message, cx),
            SessionNews::Owner { participant } if membership.is_attached() => {
                membership.set_owner(&participant);
            }
            SessionNews::Access { locked, removed } if membership.is_attached() => {
                membership.set_access((locked, removed), cx);
            }
            SessionNews::Member(news) if membership.is_attached() => {
                let (roster, mut cx) = membership.roster_and_context(cx);
                roster.handle_news(news, &mut cx);
            }
            SessionNews::Owner { .. } | SessionNews::Access { .. } | SessionNews::Member(_) => {}
        }
    }

    /// Handles that the hub refused a request about a session that we have joined.
    fn on_refused(&mut self, code: ErrorCode, message: &str, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joined(membership) = &mut self.phase else { return };
        // It answers a signal that was sent during an outage, never an open or join.
        if code == ErrorCode::NotAllowed {
            return;
        }
        if membership.is_attached() && code == ErrorCode::TooMany {
            membership.on_signals_limited(cx.now);
        } else if membership.is_attached() && code == ErrorCode::Unsupported {
            let hub = membership.shown_url();
            cx.effects.announce_failure(HubFailure::LockUnsupported.of(&self.id, hub));
        } else if membership.is_rejoining() && !membership.on_refused(code, cx) {
            let failure = self.rejoin_failure(code, message);
            self.fail(failure, cx);
        }
    }

    /// The first hub that has the session for us wins; the lookup at the others ends.
    fn on_joined(&mut self, hub: &HubRef, joined_info: JoinedInfo, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joining(lookup) = &self.phase else { return };
        let (Some(HubConnectionState::Up { us }), Some(url)) =
            (cx.hubs.connection_state(hub), cx.hubs.url(hub))
        else {
            return;
        };
        let HubIdentity { me, instance, .. } = us.clone();
        lookup.cancel(Some(hub), cx);
        let (session, kind) = (self.id.clone(), joined_info.kind);
        match lookup.request() {
            SessionRequest::Open(_) => {
                let link = url.link(&session);
                cx.effects.announce(Event::Opened { session: session.clone(), kind, link });
            }
            SessionRequest::Join { .. } => {
                cx.effects.announce(Event::Joined { session: session.clone(), kind });
            }
        }
        let (limit, role, hub) = (joined_info.limit, joined_info.role, hub.clone());
        let data_use = self.data_use;
        let info = SessionInfo { session, kind, limit, role, me, instance, hub, data_use };
        let mut membership = Membership::new(info, url);
        membership.on_joined(joined_info, cx);
        self.phase = SessionPhase::Joined(Box::new(membership));
    }

    /// The hub has us in the session again, unless another session has the id by now.
    fn on_rejoined(&mut self, joined_info: JoinedInfo, cx: &mut CoreContext<'_>) {
        let SessionPhase::Joined(membership) = &mut self.phase else { return };
        if membership.info.kind == joined_info.kind {
            membership.on_joined(joined_info, cx);
            return;
        }
        let hub = membership.shown_url();
        let failure = HubFailure::IdTakenMeanwhile.of(&self.id, hub);
        self.send_leave(cx);
        self.fail(failure, cx);
    }

    fn fail_lookup_if_over(&mut self, cx: &mut CoreContext<'_>) {
        if let SessionPhase::Joining(lookup) = &self.phase
            && let Some(failure) = lookup.failure(cx.hubs)
        {
            lookup.cancel(None, cx);
            self.fail(failure, cx);
        }
    }

    fn rejoin_failure(&self, code: ErrorCode, message: &str) -> Failure {
        let hub = match &self.phase {
            SessionPhase::Joined(membership) => membership.shown_url(),
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => None,
        };
        let failure = match code {
            ErrorCode::IdTaken => HubFailure::IdTakenMeanwhile,
            ErrorCode::NoSuchSession
            | ErrorCode::SessionFull
            | ErrorCode::NotAllowed
            | ErrorCode::BadMessage
            | ErrorCode::TooMany
            | ErrorCode::Unsupported => HubFailure::Refused { code, reason: message.to_owned() },
        };
        failure.of(&self.id, hub)
    }

    fn send_leave(&self, cx: &mut CoreContext<'_>) {
        match &self.phase {
            SessionPhase::Joining(lookup) => lookup.cancel(None, cx),
            SessionPhase::Joined(membership) => {
                membership.send_leave(ClientMessage::Leave { session: self.id.clone() }, cx);
            }
            SessionPhase::Ended(..) | SessionPhase::Failed(..) => {}
        }
    }

    fn end(&mut self, reason: EndReason, cx: &mut CoreContext<'_>) {
        let last = self.last_known(cx.hubs);
        if let SessionPhase::Joined(membership) = &mut self.phase {
            membership.close(cx);
        }
        self.phase = SessionPhase::Ended(last, reason);
        cx.effects.announce(Event::Ended { session: self.id.clone(), reason });
    }

    fn fail(&mut self, failure: Failure, cx: &mut CoreContext<'_>) {
        cx.effects.announce_failure(failure.clone());
        self.end(EndReason::Failed, cx);
        self.phase = SessionPhase::Failed(self.last_known(cx.hubs), failure);
    }

    fn role(&self) -> Role {
        match &self.phase {
            SessionPhase::Joining(lookup) => match lookup.request() {
                SessionRequest::Open(_) => Role::Opener,
                SessionRequest::Join { .. } => Role::Guest,
            },
            SessionPhase::Joined(membership) => membership.info.role,
            SessionPhase::Ended(last, _) | SessionPhase::Failed(last, _) => last.role,
        }
    }

    fn last_known(&self, hubs: &Hubs) -> EndedSession {
        let role = self.role();
        match &self.phase {
            SessionPhase::Joining(lookup) => {
                let (kind, limit) = match lookup.request() {
                    SessionRequest::Open(open) => (Some(open.kind), open.limit),
                    SessionRequest::Join { .. } => (None, None),
                };
                let (link, hub) = (lookup.link(hubs), lookup.only_hub(hubs).cloned());
                EndedSession { kind, role, limit, link, hub }
            }
            SessionPhase::Joined(membership) => EndedSession {
                kind: Some(membership.info.kind),
                role,
                limit: Some(membership.info.limit),
                link: Some(membership.url.link(&self.id)),
                hub: hubs.endpoint(&membership.info.hub).cloned(),
            },
            SessionPhase::Ended(last, _) | SessionPhase::Failed(last, _) => last.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
