//! One session, from asking for it to its end.

mod host;

use super::{
    ask::{Desk, Search, Wish},
    hubs::{Hubs, Line},
    membership::{Admission, Membership},
    participant::Participant,
    refusal,
    roster::Terms,
    words::HubRef,
};
use crate::model::{
    ChatText, ClientMessage, CloseReason, EndReason, ErrorCode, Event, Failure, Gates, HubMessage,
    HubPlace, HubUrl, Media, MediaTime, ParticipantId, PeerEvent, PeerId, Role, SessionId,
    SessionKind, SessionLink, SessionState, SessionStatus,
};

/// A session that was asked for and not dismissed.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// The session's own switches, from when it was asked for until it is dismissed.
    pub(super) gates: Gates,
    /// It is being left, which can be undone: nothing passes.
    pub(super) is_departing: bool,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// It was asked for.
    Asking(Search),
    /// We are in it.
    In(Box<Membership>),
    /// It is over.
    Over(Last, EndReason),
    /// It never came about, or could not be kept.
    Failed(Last, Failure),
}

/// What is still shown of a session that is over.
#[derive(Clone, Debug)]
struct Last {
    kind: Option<SessionKind>,
    role: Role,
    limit: Option<u16>,
    link: Option<SessionLink>,
    hub: Option<HubPlace>,
}

impl Session {
    /// Asks for a session at the hubs where it may be.
    pub(super) fn ask(id: SessionId, wish: Wish, hubs: Vec<HubRef>, desk: &mut Desk<'_>) -> Self {
        let search = Search::begin(id.clone(), wish, hubs, desk);
        let (gates, standing) = (Gates::default(), Standing::Asking(search));
        let mut session = Self { id, gates, is_departing: false, standing };
        session.judge(desk);
        session
    }

    /// Whether it is over, whatever the reason.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.standing, Standing::Over(..) | Standing::Failed(..))
    }

    /// Whether we have a seat in it.
    pub(super) const fn is_in(&self) -> bool {
        matches!(self.standing, Standing::In(_))
    }

    /// Whether we opened or inherited it.
    pub(super) fn is_own(&self) -> bool {
        self.role() == Role::Opener
    }

    /// The hubs that it needs.
    pub(super) fn hubs(&self) -> Vec<HubRef> {
        match &self.standing {
            Standing::Asking(search) => search.hubs().cloned().collect(),
            Standing::In(membership) => vec![membership.terms.hub.clone()],
            Standing::Over(..) | Standing::Failed(..) => vec![],
        }
    }

    /// The participants that we are linked to.
    pub(super) fn participants(&self) -> &[Participant] {
        match &self.standing {
            Standing::In(membership) => membership.roster.members(),
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => &[],
        }
    }

    /// A hub is up (again).
    pub(super) fn hub_up(
        &mut self,
        hub: &HubRef,
        (url, me): (&HubUrl, &ParticipantId),
        desk: &mut Desk<'_>,
    ) {
        match &mut self.standing {
            Standing::Asking(search) => {
                search.up(hub, desk);
                self.judge(desk);
            }
            Standing::In(membership) if membership.is_at(hub) => {
                membership.up(url.clone(), me.clone(), desk);
            }
            Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// A hub has another address.
    pub(super) fn hub_moved(&mut self, hub: &HubRef, url: &HubUrl, desk: &mut Desk<'_>) {
        if let Standing::In(membership) = &mut self.standing
            && membership.is_at(hub)
        {
            membership.moved(url.clone(), desk);
        }
    }

    /// A hub is down.
    pub(super) fn hub_down(&mut self, hub: &HubRef, reason: &str, desk: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(search) => {
                search.down(hub, reason, desk);
                self.judge(desk);
            }
            Standing::In(membership) if membership.is_at(hub) => membership.down(desk.now),
            Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// A hub says something about this session.
    pub(super) fn hear(&mut self, hub: &HubRef, message: HubMessage, desk: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(search) if search.is_at(hub) => self.hear_answer(hub, message, desk),
            Standing::In(membership) if membership.is_at(hub) => self.hear_news(message, desk),
            Standing::Asking(_) | Standing::In(_) | Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// A connection of this session tells something.
    pub(super) fn tell(&mut self, peer: PeerId, event: PeerEvent, desk: &mut Desk<'_>) {
        if let Standing::In(membership) = &mut self.standing {
            membership.tell(peer, event, desk);
        }
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, desk: &mut Desk<'_>) {
        match &mut self.standing {
            Standing::Asking(search) => search.advance(desk),
            Standing::In(membership) => membership.advance(desk),
            Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    /// Lets pass what this session's gates and those outside of it do; `working` are those
    /// whose devices give anything.
    pub(super) fn pass(&mut self, outside: Gates, working: Gates, desk: &mut Desk<'_>) {
        let gates = if self.is_departing { Gates::CLOSED } else { outside.and(self.gates) };
        if let Standing::In(membership) = &mut self.standing {
            let (roster, mut scope) = membership.parts(desk);
            roster.pass(gates, working, &mut scope);
        }
    }

    /// Says something to everybody, if there is a chat, it is ours to write in, and somebody reads.
    pub(super) fn say(&mut self, text: ChatText, desk: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else {
            return desk.out.fail(refusal::not_open(&self.id));
        };
        let Terms { kind, role, .. } = &membership.terms;
        if !kind.media.has(Media::Data) {
            return desk.out.fail(refusal::no_chat(&self.id, *kind));
        }
        if !kind.may_write(*role) {
            return desk.out.fail(refusal::writes_nothing(&self.id));
        }
        if membership.roster.members().is_empty() {
            return desk.out.fail(refusal::nobody_reads(&self.id));
        }
        membership.say(&text, desk);
        desk.out.announce(Event::Said { session: self.id.clone(), text });
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<MediaTime> {
        match &self.standing {
            Standing::Asking(search) => search.due(),
            Standing::In(membership) => membership.due(),
            Standing::Over(..) | Standing::Failed(..) => None,
        }
    }

    /// We leave; nothing to be said if it is over.
    pub(super) fn leave(&mut self, desk: &mut Desk<'_>) {
        if !self.is_over() {
            self.leave_quietly(desk);
            self.end(EndReason::Left, desk);
        }
    }

    /// We close it for everybody.
    pub(super) fn close(&mut self, desk: &mut Desk<'_>) {
        match &self.standing {
            Standing::In(membership) => {
                membership.part(ClientMessage::Close { session: self.id.clone() }, desk);
            }
            Standing::Asking(search) => search.end(None, desk),
            Standing::Over(..) | Standing::Failed(..) => return,
        }
        self.end(EndReason::Closed, desk);
    }

    /// How the session is; `runs` are the sources that give something: sound, picture.
    pub(super) fn status(&self, hubs: &Hubs, runs: (bool, bool)) -> SessionStatus {
        let Last { kind, role, limit, link, hub } = self.last(hubs);
        let (state, participants) = match &self.standing {
            Standing::Asking(search) if search.waits() => (SessionState::Waiting, vec![]),
            Standing::Asking(search) => match search.unreachable_because() {
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
        let reaches = |of: fn((bool, bool)) -> bool| {
            of(runs) && self.participants().iter().any(|one| of(one.gets()))
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
            heard: reaches(|(sound, _)| sound),
            seen: reaches(|(_, picture)| picture),
            participants,
            locked,
            removed,
        }
    }

    /// Hears a hub that was asked for the session.
    fn hear_answer(&mut self, hub: &HubRef, message: HubMessage, desk: &mut Desk<'_>) {
        let Standing::Asking(search) = &mut self.standing else { return };
        match message {
            HubMessage::Opened { kind, limit, participants: members, .. } => {
                let role = Role::Opener;
                self.enter(hub, Admission { kind, limit, role, members }, desk);
            }
            HubMessage::Joined { kind, limit, role, participants: members, .. } => {
                self.enter(hub, Admission { kind, limit, role, members }, desk);
            }
            HubMessage::Waiting { .. } => search.waiting(hub, desk),
            HubMessage::Error { code, message, .. } => {
                search.refused(hub, (code, message), desk);
                self.judge(desk);
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

    /// Hears the hub of a session that we are in.
    fn hear_news(&mut self, message: HubMessage, desk: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else { return };
        match message {
            HubMessage::Opened { kind, limit, participants: members, .. } => {
                let role = Role::Opener;
                self.come_back(Admission { kind, limit, role, members }, desk);
            }
            HubMessage::Joined { kind, limit, role, participants: members, .. } => {
                self.come_back(Admission { kind, limit, role, members }, desk);
            }
            HubMessage::Waiting { .. } => membership.waiting(desk.now),
            HubMessage::Closed { reason, .. } => match reason {
                CloseReason::OpenerLost => membership.opener_lost(desk),
                CloseReason::OpenerLeft => self.end(EndReason::OpenerLeft, desk),
                CloseReason::Closed => self.end(EndReason::Closed, desk),
                CloseReason::Ejected => self.end(EndReason::Ejected, desk),
                CloseReason::Replaced => self.end(EndReason::Replaced, desk),
            },
            // It answers a word said into an outage, never an opening or joining.
            HubMessage::Error { code: ErrorCode::NotAllowed, .. } => {}
            HubMessage::Error { code, message, .. } => {
                if membership.is_firm() && code == ErrorCode::TooMany {
                    membership.signalled_too_much(desk.now);
                } else if membership.is_firm() && code == ErrorCode::Unsupported {
                    let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
                    desk.out.fail(refusal::locks_nothing(&self.id, &hub));
                } else if membership.is_asking() && !membership.refused(code, desk) {
                    let failure = self.refusal(code, &message);
                    self.fail(failure, desk);
                }
            }
            HubMessage::Owner { participant, .. } if membership.is_firm() => {
                membership.set_owner(&participant);
            }
            HubMessage::Access { locked, removed, .. } if membership.is_firm() => {
                membership.set_access((locked, removed), desk);
            }
            HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Signal { .. }
                if membership.is_firm() =>
            {
                let (roster, mut scope) = membership.parts(desk);
                roster.news(message, &mut scope);
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

    /// The first hub that has the session for us wins.
    fn enter(&mut self, hub: &HubRef, admission: Admission, desk: &mut Desk<'_>) {
        let Standing::Asking(search) = &self.standing else { return };
        let (Some(Line::Up { me }), Some(url)) = (desk.hubs.line(hub), desk.hubs.url(hub)) else {
            return;
        };
        let me = me.clone();
        search.end(Some(hub), desk);
        let (session, kind) = (self.id.clone(), admission.kind);
        match search.wish() {
            Wish::Open(_) => {
                let link = url.link(&session);
                desk.out.announce(Event::Opened { session: session.clone(), kind, link });
            }
            Wish::Join { .. } => {
                desk.out.announce(Event::Joined { session: session.clone(), kind });
            }
        }
        let (limit, role, hub) = (admission.limit, admission.role, hub.clone());
        let terms = Terms { session, kind, limit, role, me, hub };
        let mut membership = Membership::new(terms, url);
        membership.admitted(admission, desk);
        self.standing = Standing::In(Box::new(membership));
    }

    /// The hub has us in the session again, unless it is another session by now.
    fn come_back(&mut self, admission: Admission, desk: &mut Desk<'_>) {
        let Standing::In(membership) = &mut self.standing else { return };
        if membership.terms.kind == admission.kind {
            membership.admitted(admission, desk);
            return;
        }
        let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
        let failure = refusal::usurped(&self.id, &hub);
        self.leave_quietly(desk);
        self.fail(failure, desk);
    }

    fn judge(&mut self, desk: &mut Desk<'_>) {
        if let Standing::Asking(search) = &self.standing
            && let Some(failure) = search.verdict(desk.hubs)
        {
            search.end(None, desk);
            self.fail(failure, desk);
        }
    }

    fn refusal(&self, code: ErrorCode, said: &str) -> Failure {
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
            | ErrorCode::Unsupported => refusal::refused(code, &self.id, &hub, said),
        }
    }

    fn leave_quietly(&self, desk: &mut Desk<'_>) {
        match &self.standing {
            Standing::Asking(search) => search.end(None, desk),
            Standing::In(membership) => {
                membership.part(ClientMessage::Leave { session: self.id.clone() }, desk);
            }
            Standing::Over(..) | Standing::Failed(..) => {}
        }
    }

    fn end(&mut self, reason: EndReason, desk: &mut Desk<'_>) {
        let last = self.last(desk.hubs);
        if let Standing::In(membership) = &mut self.standing {
            membership.close(desk);
        }
        self.standing = Standing::Over(last, reason);
        desk.out.announce(Event::Ended { session: self.id.clone(), reason });
    }

    fn fail(&mut self, failure: Failure, desk: &mut Desk<'_>) {
        desk.out.fail(failure.clone());
        self.end(EndReason::Failed, desk);
        self.standing = Standing::Failed(self.last(desk.hubs), failure);
    }

    fn role(&self) -> Role {
        match &self.standing {
            Standing::Asking(search) => match search.wish() {
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
            Standing::Asking(search) => {
                let (kind, limit) = match search.wish() {
                    Wish::Open(open) => (Some(open.kind), open.limit),
                    Wish::Join { .. } => (None, None),
                };
                let (link, hub) = (search.link(hubs), search.hub(hubs).cloned());
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
mod tests {
    use super::super::{Effect, Input, stage::*};
    use super::*;
    use crate::model::{Command, MediaSet, PeerState, Topology};

    #[test]
    fn an_opened_session_has_a_link_and_a_joined_one_learns_its_kind() {
        let stage = Stage::opened(BROADCAST);
        let link = url("10.0.0.1:7340").link(&session());
        let kind = BROADCAST;
        let event = Event::Opened { session: session(), kind, link: link.clone() };
        assert_eq!(stage.events(), [&event]);
        assert_eq!(stage.status().link, Some(link));

        let stage = Stage::joined(BROADCAST, vec![]);
        assert_eq!(stage.events(), [&Event::Joined { session: session(), kind }]);
        assert_eq!((stage.status().kind, stage.status().role), (Some(kind), Role::Guest));
    }

    #[test]
    fn the_hub_ends_a_session_and_its_connections() {
        let reasons = [
            (CloseReason::OpenerLeft, EndReason::OpenerLeft),
            (CloseReason::Ejected, EndReason::Ejected),
            (CloseReason::Replaced, EndReason::Replaced),
        ];
        for (reason, end) in reasons {
            let mut stage = Stage::opened(MESH);
            stage.hear(came(member("a"))).state(1, PeerState::Connected);
            stage.hear(HubMessage::Closed { session: session(), reason });
            assert_eq!(stage.closed_peers(), [1]);
            assert_eq!(stage.events(), [&Event::Ended { session: session(), reason: end }]);
            assert_eq!(stage.status().state, SessionState::Ended { reason: end });
            assert_eq!(stage.status().kind, Some(MESH), "still shown");
            stage.hear(came(member("b")));
            assert_eq!(stage.done, []);
        }
    }

    #[test]
    fn only_its_opener_closes_a_session() {
        let close = || Input::Command(Command::Close { session: session() });
        let mut stage = Stage::joined(MESH, vec![]);
        stage.give(close());
        assert!(stage.failures()[0].message.contains("leave it instead"));
        let mut stage = Stage::opened(MESH);
        stage.give(close());
        assert_eq!(stage.sent()[0].1, &ClientMessage::Close { session: session() });
        let reason = EndReason::Closed;
        assert_eq!(stage.events(), [&Event::Ended { session: session(), reason }]);
        assert!(stage.core.snapshot().sessions.is_empty());
    }

    #[test]
    fn leaving_before_the_answer_stops_the_asking() {
        let mut stage = Stage::new();
        stage.join(None, true).up(&HubRef::Default).leave();
        assert_eq!(stage.sent()[0].1, &ClientMessage::Leave { session: session() });
        stage.hear(joined(MESH, Role::Guest, vec![member("a")]));
        assert_eq!(stage.done, []);
    }

    #[test]
    fn another_session_of_the_same_id_is_not_ours() {
        let kind = SessionKind { media: MediaSet::AUDIO, topology: Topology::ManyToMany };
        let mut stage = Stage::joined(MESH, vec![]);
        stage.down(&HubRef::Default).up(&HubRef::Default);
        stage.hear(joined(kind, Role::Guest, vec![]));
        assert_eq!(stage.sent()[0].1, &ClientMessage::Leave { session: session() });
        assert!(matches!(stage.status().state, SessionState::Failed(_)));
    }

    #[test]
    fn news_before_our_seat_is_ours_again_are_not_heard() {
        let mut stage = Stage::joined(MESH, vec![]);
        stage.down(&HubRef::Default).up(&HubRef::Default).hear(came(member("a")));
        assert_eq!(stage.done, Vec::<Effect>::new());
    }
}
