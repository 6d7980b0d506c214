//! A session that we have joined: its state at the hub, and its roster.

use std::time::Duration;

use super::{
    access::Access,
    ask::{ASKED_AGAIN, OpenTerms, Wish},
    context::{Desk, Scope, Terms},
    roster::Roster,
    words::HubRef,
};
use crate::model::{
    ChatText, ClientMessage, ErrorCode, Event, HubUrl, MediaTime, Member, ParticipantId, PeerEvent,
    PeerId, Role, SessionKind,
};

/// A session that we have joined.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) terms: Terms,
    pub(super) roster: Roster,
    /// The hub's address, as it last reported.
    pub(super) url: HubUrl,
    tie: Tie,
    /// When a busy hub is asked for our seat again.
    again_at: Option<MediaTime>,
    /// When we signal again what we send, because the hub may have dropped earlier signals.
    retell_at: Option<MediaTime>,
    /// The lock and the ejected participants, if we own the session.
    pub(super) access: Access,
    /// The number of our last chat message.
    said: u64,
    /// The user was told that the opener is awaited, and is told when the session is back.
    is_awaited: bool,
}

/// The state of our seat in the session at its hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tie {
    /// The hub has us in the session.
    Firm,
    /// The hub is down; media goes on.
    Down { since: MediaTime },
    /// The hub is back, and we asked it for our seat.
    Asked { since: MediaTime },
    /// The hub is back without the session: it was restarted, and the opener has not returned yet.
    Waiting { since: MediaTime, heard: MediaTime },
}

/// What a hub reports about a session when we join it.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) kind: SessionKind,
    pub(super) limit: u16,
    pub(super) role: Role,
    pub(super) members: Vec<Member>,
}

/// How long the opener of a session has to open it again at a restarted hub. After that, each
/// remaining participant in turn has as long, before the next one opens it. A client reconnects
/// within some seconds.
const REOPEN_AFTER: Duration = Duration::from_secs(10);

impl Membership {
    /// A session that we have just joined.
    pub(super) fn new(info: Terms, url: HubUrl) -> Self {
        Self {
            terms: info,
            roster: Roster::default(),
            url,
            tie: Tie::Firm,
            again_at: None,
            retell_at: None,
            access: Access::default(),
            said: 0,
            is_awaited: false,
        }
    }

    /// Whether the hub has us in the session.
    pub(super) const fn is_firm(&self) -> bool {
        matches!(self.tie, Tie::Firm)
    }

    /// Since when the hub does not have us in the session; `None` while it has.
    pub(super) const fn lost_since(&self) -> Option<MediaTime> {
        self.tie.down_since()
    }

    /// Whether we can only wait for the opener: the hub does not have the session, and no media
    /// flows.
    pub(super) fn awaits_opener(&self) -> bool {
        matches!(self.tie, Tie::Waiting { .. }) && !self.roster.has_media()
    }

    /// The hub gave up the opener's seat, and the session with it. An opener whose computer slept
    /// or lost its network soon comes back and opens the session again. Until then we wait, and
    /// media that flows between us goes on.
    pub(super) fn opener_lost(&mut self, cx: &mut Desk<'_>) {
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(cx.now) };
        let (roster, mut roster_cx) = self.parts(cx);
        roster.lose_everybody(&mut roster_cx);
        self.ask(cx);
    }

    /// Whether a refusal of the hub may answer our request for our seat.
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.tie, Tie::Asked { .. } | Tie::Waiting { .. })
    }

    /// The hub is up again: asks for our seat.
    pub(super) fn up(&mut self, url: HubUrl, me: ParticipantId, cx: &mut Desk<'_>) {
        self.moved(url, cx);
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(cx.now) };
        if self.terms.me != me {
            self.terms.me = me;
            let (roster, mut roster_cx) = self.parts(cx);
            roster.forget(&mut roster_cx);
        }
        self.ask(cx);
    }

    /// The hub reports its address: announces the session's new link if the address changed.
    pub(super) fn moved(&mut self, url: HubUrl, cx: &mut Desk<'_>) {
        if self.url == url {
            return;
        }
        self.url = url;
        let (session, link) = (self.terms.session.clone(), self.url.link(&self.terms.session));
        cx.out.announce(Event::LinkChanged { session, link });
    }

    /// The hub is down.
    pub(super) fn down(&mut self, now: MediaTime) {
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(now) };
    }

    /// The hub does not have the session, and will notify us when it opens.
    pub(super) fn waiting(&mut self, now: MediaTime) {
        if let Tie::Asked { since } = self.tie {
            self.tie = Tie::Waiting { since, heard: now };
        }
    }

    /// The hub has us in the session, for the first time or again.
    pub(super) fn admitted(&mut self, joined_info: Admission, cx: &mut Desk<'_>) {
        self.tie = Tie::Firm;
        if std::mem::take(&mut self.is_awaited) {
            let (session, kind) = (self.terms.session.clone(), self.terms.kind);
            cx.out.announce(Event::Joined { session, kind });
        }
        self.terms.limit = joined_info.limit;
        self.terms.role = joined_info.role;
        self.lock_again(cx);
        let (roster, mut roster_cx) = self.parts(cx);
        roster.reconcile(joined_info.members, &mut roster_cx);
    }

    /// Handles the hub's refusal to give us our seat back. Returns `false` if the refusal is final.
    ///
    /// An opener whose session was taken over by a successor comes back as a guest. A hub that is
    /// busy, because all clients return at once, is asked again; media goes on meanwhile.
    pub(super) fn refused(&mut self, code: ErrorCode, cx: &mut Desk<'_>) -> bool {
        if code == ErrorCode::TooMany {
            self.again_at = Some(cx.now + ASKED_AGAIN);
            return true;
        }
        let is_taken_over = code == ErrorCode::IdTaken
            && self.terms.role == Role::Opener
            && self.terms.kind.outlives_opener();
        if is_taken_over {
            self.terms.role = Role::Guest;
            self.ask(cx);
        }
        is_taken_over
    }

    /// The hub does not relay more of our signals for now. It is unknown which were lost, so what
    /// we send is signalled again later. Connections whose descriptions were lost time out and are
    /// replaced.
    pub(super) fn signalled_too_much(&mut self, now: MediaTime) {
        self.retell_at = self.retell_at.or(Some(now + ASKED_AGAIN));
    }

    /// The session has a new owner.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        self.terms.role = if *owner == self.terms.me { Role::Opener } else { Role::Guest };
        if self.terms.role == Role::Guest {
            self.access = Access::default();
        }
        self.roster.set_owner(owner);
    }

    /// Handles an event of a peer connection.
    pub(super) fn tell(&mut self, peer: PeerId, event: PeerEvent, cx: &mut Desk<'_>) {
        let (roster, mut roster_cx) = self.parts(cx);
        roster.tell(peer, event, &mut roster_cx);
    }

    /// Sends a chat message to all participants.
    ///
    /// Its number is the time. So numbers grow even for participants that knew us in this session
    /// before we left and came back, and do not reveal how much we write in other sessions.
    pub(super) fn say(&mut self, text: &ChatText, cx: &mut Desk<'_>) {
        self.said = cx.now.as_micros().max(self.said + 1);
        let number = self.said;
        let (roster, mut roster_cx) = self.parts(cx);
        roster.say(number, text, &mut roster_cx);
    }

    /// Handles the deadlines that have passed.
    pub(super) fn advance(&mut self, cx: &mut Desk<'_>) {
        let (roster, mut roster_cx) = self.parts(cx);
        roster.advance(&mut roster_cx);
        if self.reopens_at().is_some_and(|at| at <= cx.now) {
            self.terms.role = Role::Opener;
            self.ask(cx);
        }
        if self.again_at.is_some_and(|at| at <= cx.now) {
            self.ask(cx);
        }
        if self.retell_at.is_some_and(|at| at <= cx.now) {
            self.retell_at = None;
            self.roster.retell();
        }
        self.settle_access(cx);
        if self.awaits_opener() && !std::mem::replace(&mut self.is_awaited, true) {
            let (session, hubs) = (self.terms.session.clone(), vec![self.url.clone()]);
            cx.out.announce(Event::Waiting { session, hubs });
        }
    }

    /// The next deadline.
    pub(super) fn due(&self) -> Option<MediaTime> {
        let roster = self.roster.due(self.tie.down_since());
        let own_deadlines = [self.reopens_at(), self.again_at, self.retell_at, self.access.due()];
        own_deadlines.into_iter().flatten().chain(roster).min()
    }

    /// Closes all peer connections.
    pub(super) fn close(&mut self, cx: &mut Desk<'_>) {
        let (roster, mut roster_cx) = self.parts(cx);
        roster.close(&mut roster_cx);
    }

    /// Sends a message that leaves or closes the session.
    pub(super) fn part(&self, message: ClientMessage, cx: &mut Desk<'_>) {
        cx.hubs.part(&self.terms.hub, (&self.terms.session, message), cx.out);
    }

    /// The roster, and the context that its decisions depend on.
    pub(super) fn parts<'a>(&'a mut self, cx: &'a mut Desk<'_>) -> (&'a mut Roster, Scope<'a>) {
        let roster_cx = Scope {
            now: cx.now,
            terms: &self.terms,
            down_since: self.tie.down_since(),
            out: cx.out,
        };
        (&mut self.roster, roster_cx)
    }

    pub(super) fn is_at(&self, hub: &HubRef) -> bool {
        self.terms.hub == *hub
    }

    /// When we open a session again that nobody else opens: it has participants, and neither its
    /// opener nor a participant before us in the order of ids has opened it for long.
    fn reopens_at(&self) -> Option<MediaTime> {
        let Tie::Waiting { heard: waiting_since, .. } = self.tie else { return None };
        let waits = self.terms.role == Role::Guest
            && self.terms.kind.outlives_opener()
            && self.roster.has_media();
        let before_us = self.roster.live_before(&self.terms.me);
        waits.then(|| waiting_since + REOPEN_AFTER * (before_us + 1))
    }

    /// Asks for our seat.
    fn ask(&mut self, cx: &mut Desk<'_>) {
        self.again_at = None;
        if !cx.hubs.is_up(&self.terms.hub) {
            return;
        }
        self.tie = Tie::Asked { since: self.tie.down_since().unwrap_or(cx.now) };
        let message = self.wish().message(self.terms.session.clone());
        cx.out.send(&self.terms.hub, message);
    }

    /// The request that brings us back: an opener opens the session again, every other participant
    /// waits for that.
    fn wish(&self) -> Wish {
        match self.terms.role {
            Role::Opener => {
                let (kind, limit) = (self.terms.kind, Some(self.terms.limit));
                Wish::Open(OpenTerms { kind, limit, or_joins: false })
            }
            Role::Guest => Wish::Join { wait: true },
        }
    }
}

impl Tie {
    const fn down_since(self) -> Option<MediaTime> {
        match self {
            Self::Firm => None,
            Self::Down { since } | Self::Asked { since } | Self::Waiting { since, .. } => {
                Some(since)
            }
        }
    }
}

#[cfg(test)]
mod tests;
