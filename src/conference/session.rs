//! One session, from the request to its end.

mod host;

use super::{
    ask::{Search, Wish},
    context::{Desk, Terms},
    hubs::{Hubs, Line},
    membership::{Admission, Membership},
    participant::Participant,
    refusal,
    words::HubRef,
};
use crate::model::{
    ChatText, ClientMessage, CloseReason, EndReason, ErrorCode, Event, Failure, Gates, HubMessage,
    HubPlace, HubUrl, Media, MediaTime, ParticipantId, PeerEvent, PeerId, Role, SessionId,
    SessionKind, SessionLink, SessionState, SessionStatus,
};

/// A session that was requested and not dismissed.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The session's own mute switches. They live from the request until the session is dismissed.
    pub(super) gates: Gates,
    /// Whether it is being left, which can be undone. Everything is muted meanwhile.
    pub(super) is_departing: bool,
    standing: Standing,
}

/// The phase of a session.
#[derive(Debug)]
enum Standing {
    /// It was requested.
    Asking(Search),
    /// We have joined it.
    In(Box<Membership>),
    /// It has ended.
    Over(Last, EndReason),
    /// It could not be opened or joined, or could not be kept.
    Failed(Last, Failure),
}

/// What is still shown of a session that has ended.
#[derive(Clone, Debug)]
struct Last {
    kind: Option<SessionKind>,
    role: Role,
    limit: Option<u16>,
    link: Option<SessionLink>,
    hub: Option<HubPlace>,
}

impl Session {
    /// Requests a session at the hubs that may have it.
    pub(super) fn ask(id: SessionId, request: Wish, hubs: Vec<HubRef>, cx: &mut Desk<'_>) -> Self {
        let lookup = Search::begin(id.clone(), request, hubs, cx);
        let (enabled, phase) = (Gates::default(), Standing::Asking(lookup));
        let mut session = Self { id, gates: enabled, is_departing: false, standing: phase };
        session.judge(cx);
        session
    }

    /// Whether it has ended, for whatever reason.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.standing, Standing::Over(..) | Standing::Failed(..))
    }

    /// Whether we have a seat in it.
    pub(super) const fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In(_))
    }

    /// Whether we opened it or took it over.
    pub(super) fn is_own(&self) -> bool {
        self.role() == Role::Opener
    }

    /// The hubs that it needs.
    pub(super) fn hubs(&self) -> Vec<HubRef> {
        match &self.standing {
            Standing::Asking(lookup) => lookup.hubs().cloned().collect(),
            Standing::In(membership) => vec![membership.terms.hub.clone()],
            Standing::Over(..) | Standing::Failed(..) => vec![],
        }
    }

    /// The participants that we are paired with.
    pub(super) fn participants(&self) -> &[Participant] {
        match &self.standing {
            Standing::In(membership) => membership.roster.members(),
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => &[],
        }
    }

    /// A hub is up, for the first time or again.
    pub(super) fn hub_up(
        &mut self,
        hub: &HubRef,
        (url, me): (&HubUrl, &ParticipantId),
        cx: &mut Desk<'_>,
    ) {
        match &mut self.standing {
            Standing::Asking(lookup) => {
                lookup.up(hub, cx);
                self.judge(cx);
            }
            Standing::In(membership) if membership.is_at(hub) => {
                membership.up(url.clone(), me.clone(), cx);
            }
            Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// A hub's address changed.
    pub(super) fn hub_moved(&mut self, hub: &HubRef, url: &HubUrl, cx: &mut Desk<'_>) {
        if let Standing::In(membership) = &mut self.standing
            && membership.is_at(hub)
        {
            membership.moved(url.clone(), cx);
        }
    }

    /// A hub is down.
    pub(super) fn hub_down(&mut self, hub: &HubRef, reason: &str, cx: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(lookup) => {
                lookup.down(hub, reason, cx);
                self.judge(cx);
            }
            Standing::In(membership) if membership.is_at(hub) => membership.down(cx.now),
            Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// Handles a message of a hub about this session.
    pub(super) fn hear(&mut self, hub: &HubRef, message: HubMessage, cx: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(lookup) if lookup.is_at(hub) => self.hear_answer(hub, message, cx),
            Standing::In(membership) if membership.is_at(hub) => self.hear_news(message, cx),
            Standing::Asking(_) | Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// Handles an event of a peer connection of this session.
    pub(super) fn tell(&mut self, peer: PeerId, event: PeerEvent, cx: &mut Desk<'_>) {
        if let Standing::In(membership) = &mut self.standing {
            membership.tell(peer, event, cx);
        }
    }

    /// Handles the deadlines that have passed.
    pub(super) fn advance(&mut self, cx: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(lookup) => lookup.advance(cx),
            Standing::In(membership) => membership.advance(cx),
            Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// Applies the mute switches: the session's own and those of the whole program (`outside`).
    /// `working` tells which devices have not failed.
    pub(super) fn pass(&mut self, outside: Gates, working: Gates, cx: &mut Desk<'_>) {
        let enabled = if self.is_departing { Gates::CLOSED } else { outside.and(self.gates) };
        if let Standing::In(membership) = &mut self.standing {
            let (roster, mut cx) = membership.parts(cx);
            roster.pass(enabled, working, &mut cx);
        }
    }

    /// Sends a chat message to all participants, if the session has a chat, our role may write, and
    /// there is at least one participant.
    pub(super) fn say(&mut self, text: ChatText, cx: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else {
            return cx.out.fail(refusal::not_open(&self.id));
        };
        let Terms { kind, role, .. } = &membership.terms;
        if !kind.media.has(Media::Data) {
            return cx.out.fail(refusal::no_chat(&self.id, *kind));
        }
        if !kind.may_write(*role) {
            return cx.out.fail(refusal::writes_nothing(&self.id));
        }
        if membership.roster.members().is_empty() {
            return cx.out.fail(refusal::nobody_reads(&self.id));
        }
        membership.say(&text, cx);
        cx.out.announce(Event::Said { session: self.id.clone(), text });
    }

    /// The next deadline.
    pub(super) fn due(&self) -> Option<MediaTime> {
        match &self.standing {
            Standing::Asking(lookup) => lookup.due(),
            Standing::In(membership) => membership.due(),
            Standing::Over(..) | Standing::Failed(..) => None,
        }
    }

    /// Leaves the session; notifies the hub unless the session has ended.
    pub(super) fn leave(&mut self, cx: &mut Desk<'_>) {
        if !self.is_over() {
            self.leave_quietly(cx);
            self.end(EndReason::Left, cx);
        }
    }

    /// Closes the session for all participants.
    pub(super) fn close(&mut self, cx: &mut Desk<'_>) {
        match &self.standing {
            Standing::In(membership) => {
                membership.part(ClientMessage::Close { session: self.id.clone() }, cx);
            }
            Standing::Asking(lookup) => lookup.end(None, cx),
            Standing::Over(..) | Standing::Failed(..) => return,
        }
        self.end(EndReason::Closed, cx);
    }

    /// The session's state. `runs` tells which sources run: audio, video.
    pub(super) fn status(&self, hubs: &Hubs, runs: (bool, bool)) -> SessionStatus {
        let Last { kind, role, limit, link, hub } = self.last(hubs);
        let (state, participants) = match &self.standing {
            Standing::Asking(lookup) if lookup.waits() => (SessionState::Waiting, vec![]),
            Standing::Asking(lookup) => match lookup.unreachable_because() {
                Some(reason) => (SessionState::Unreachable { reason: reason.to_owned() }, vec![]),
                None => (SessionState::Connecting, vec![]),
            },
            Standing::In(membership) => {
                let state = match membership.lost_since() {
                    None => SessionState::Live,
                    Some(since) if membership.awaits_opener() => SessionState::HostLost { since },
                    Some(since) => SessionState::Reconnecting { since },
                };
                (state, membership.roster.statuses())
            }
            Standing::Over(_, reason) => (SessionState::Ended { reason: *reason }, vec![]),
            Standing::Failed(_, failure) => (SessionState::Failed(failure.clone()), vec![]),
        };
        let (locked, removed) = match &self.standing {
            Standing::In(membership) => {
                (membership.access.is_locked(), membership.access.removed())
            }
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => (false, vec![]),
        };
        let reaches_participant = |select: fn((bool, bool)) -> bool| {
            select(runs) && self.participants().iter().any(|one| select(one.gets()))
        };
        SessionStatus {
            session: self.id.clone(),
            kind,
            role,
            link,
            hub,
            limit,
            state,
            gates: self.gates,
            heard: reaches_participant(|(audio, _)| audio),
            seen: reaches_participant(|(_, video)| video),
            participants,
            locked,
            removed,
        }
    }

    /// Handles a message of a hub that was asked for the session.
    fn hear_answer(&mut self, hub: &HubRef, message: HubMessage, cx: &mut Desk<'_>) {
        let Standing::Asking(lookup) = &mut self.standing else { return };
        match message {
            HubMessage::Opened { kind, limit, participants: members, .. } => {
                let role = Role::Opener;
                self.enter(hub, Admission { kind, limit, role, members }, cx);
            }
            HubMessage::Joined { kind, limit, role, participants: members, .. } => {
                self.enter(hub, Admission { kind, limit, role, members }, cx);
            }
            HubMessage::Waiting { .. } => lookup.waiting(hub, cx),
            HubMessage::Error { code, message, .. } => {
                lookup.refused(hub, (code, message), cx);
                self.judge(cx);
            }
            HubMessage::Welcome { .. }
            | HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::Owner { .. }
            | HubMessage::Access { .. }
            | HubMessage::Closed { .. }
            | HubMessage::Signal { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong => {}
        }
    }

    /// Handles a message of the hub of a session that we have joined.
    fn hear_news(&mut self, message: HubMessage, cx: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else { return };
        match message {
            HubMessage::Opened { kind, limit, participants: members, .. } => {
                let role = Role::Opener;
                self.come_back(Admission { kind, limit, role, members }, cx);
            }
            HubMessage::Joined { kind, limit, role, participants: members, .. } => {
                self.come_back(Admission { kind, limit, role, members }, cx);
            }
            HubMessage::Waiting { .. } => membership.waiting(cx.now),
            HubMessage::Closed { reason, .. } => match reason {
                CloseReason::OpenerLost => membership.opener_lost(cx),
                CloseReason::OpenerLeft => self.end(EndReason::OpenerLeft, cx),
                CloseReason::Closed => self.end(EndReason::Closed, cx),
                CloseReason::Ejected => self.end(EndReason::Ejected, cx),
                CloseReason::Replaced => self.end(EndReason::Replaced, cx),
            },
            // It answers a signal that was sent during an outage, never an open or join.
            HubMessage::Error { code: ErrorCode::NotAllowed, .. } => {}
            HubMessage::Error { code, message, .. } => {
                if membership.is_firm() && code == ErrorCode::TooMany {
                    membership.signalled_too_much(cx.now);
                } else if membership.is_firm() && code == ErrorCode::Unsupported {
                    let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
                    cx.out.fail(refusal::locks_nothing(&self.id, &hub));
                } else if membership.is_asking() && !membership.refused(code, cx) {
                    let failure = self.refusal(code, &message);
                    self.fail(failure, cx);
                }
            }
            HubMessage::Owner { participant, .. } if membership.is_firm() => {
                membership.set_owner(&participant);
            }
            HubMessage::Access { locked, removed, .. } if membership.is_firm() => {
                membership.set_access((locked, removed), cx);
            }
            HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Signal { .. }
                if membership.is_firm() =>
            {
                let (roster, mut cx) = membership.parts(cx);
                roster.news(message, &mut cx);
            }
            HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Signal { .. }
            | HubMessage::Owner { .. }
            | HubMessage::Access { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::Welcome { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong => {}
        }
    }

    /// The first hub that has the session for us wins; the lookup at the others ends.
    fn enter(&mut self, hub: &HubRef, joined_info: Admission, cx: &mut Desk<'_>) {
        let Standing::Asking(lookup) = &self.standing else { return };
        let (Some(Line::Up { me }), Some(url)) = (cx.hubs.line(hub), cx.hubs.url(hub)) else {
            return;
        };
        let me = me.clone();
        lookup.end(Some(hub), cx);
        let (session, kind) = (self.id.clone(), joined_info.kind);
        match lookup.wish() {
            Wish::Open(_) => {
                let link = url.link(&session);
                cx.out.announce(Event::Opened { session: session.clone(), kind, link });
            }
            Wish::Join { .. } => {
                cx.out.announce(Event::Joined { session: session.clone(), kind });
            }
        }
        let (limit, role, hub) = (joined_info.limit, joined_info.role, hub.clone());
        let info = Terms { session, kind, limit, role, me, hub };
        let mut membership = Membership::new(info, url);
        membership.admitted(joined_info, cx);
        self.standing = Standing::In(Box::new(membership));
    }

    /// The hub has us in the session again, unless another session has the id by now.
    fn come_back(&mut self, joined_info: Admission, cx: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else { return };
        if membership.terms.kind == joined_info.kind {
            membership.admitted(joined_info, cx);
            return;
        }
        let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
        let failure = refusal::usurped(&self.id, &hub);
        self.leave_quietly(cx);
        self.fail(failure, cx);
    }

    fn judge(&mut self, cx: &mut Desk<'_>) {
        if let Standing::Asking(lookup) = &self.standing
            && let Some(failure) = lookup.verdict(cx.hubs)
        {
            lookup.end(None, cx);
            self.fail(failure, cx);
        }
    }

    fn refusal(&self, code: ErrorCode, message: &str) -> Failure {
        let hub = match &self.standing {
            Standing::In(membership) => {
                refusal::hub_name(&membership.terms.hub, Some(&membership.url))
            }
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => "the hub".into(),
        };
        match code {
            ErrorCode::IdTaken => refusal::usurped(&self.id, &hub),
            ErrorCode::NoSuchSession
            | ErrorCode::SessionFull
            | ErrorCode::NotAllowed
            | ErrorCode::BadMessage
            | ErrorCode::TooMany
            | ErrorCode::Unsupported => refusal::refused(code, &self.id, &hub, message),
        }
    }

    fn leave_quietly(&self, cx: &mut Desk<'_>) {
        match &self.standing {
            Standing::Asking(lookup) => lookup.end(None, cx),
            Standing::In(membership) => {
                membership.part(ClientMessage::Leave { session: self.id.clone() }, cx);
            }
            Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    fn end(&mut self, reason: EndReason, cx: &mut Desk<'_>) {
        let last = self.last(cx.hubs);
        if let Standing::In(membership) = &mut self.standing {
            membership.close(cx);
        }
        self.standing = Standing::Over(last, reason);
        cx.out.announce(Event::Ended { session: self.id.clone(), reason });
    }

    fn fail(&mut self, failure: Failure, cx: &mut Desk<'_>) {
        cx.out.fail(failure.clone());
        self.end(EndReason::Failed, cx);
        self.standing = Standing::Failed(self.last(cx.hubs), failure);
    }

    fn role(&self) -> Role {
        match &self.standing {
            Standing::Asking(lookup) => match lookup.wish() {
                Wish::Open(_) => Role::Opener,
                Wish::Join { .. } => Role::Guest,
            },
            Standing::In(membership) => membership.terms.role,
            Standing::Over(last, _) | Standing::Failed(last, _) => last.role,
        }
    }

    fn last(&self, hubs: &Hubs) -> Last {
        let role = self.role();
        match &self.standing {
            Standing::Asking(lookup) => {
                let (kind, limit) = match lookup.wish() {
                    Wish::Open(open) => (Some(open.kind), open.limit),
                    Wish::Join { .. } => (None, None),
                };
                let (link, hub) = (lookup.link(hubs), lookup.hub(hubs).cloned());
                Last { kind, role, limit, link, hub }
            }
            Standing::In(membership) => Last {
                kind: Some(membership.terms.kind),
                role,
                limit: Some(membership.terms.limit),
                link: Some(membership.url.link(&self.id)),
                hub: hubs.place(&membership.terms.hub).cloned(),
            },
            Standing::Over(last, _) | Standing::Failed(last, _) => last.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
