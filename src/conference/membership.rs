//! A session that we have joined: its state at the hub, and its roster.

use std::time::Duration;

use super::{
    access::Access,
    context::{CoreContext, ParticipantContext, SessionInfo},
    deadline::{Deadline, TimerName},
    input::HubRef,
    lookup::{BUSY_RETRY_AFTER, OpenOptions, SessionRequest},
    roster::Roster,
};
use crate::model::{
    ChatText, ClientMessage, ErrorCode, Event, HubUrl, MediaTime, Member, ParticipantId, PeerEvent,
    Role, SessionKind,
};

/// A session that we have joined.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) info: SessionInfo,
    pub(super) roster: Roster,
    /// The hub's address, as it last reported.
    pub(super) url: HubUrl,
    attachment: HubAttachment,
    /// When a busy hub is asked for our seat again.
    retry_at: Option<MediaTime>,
    /// When we signal again what we send, because the hub may have dropped earlier signals.
    resend_media_at: Option<MediaTime>,
    /// The lock and the ejected participants, if we own the session.
    pub(super) access: Access,
    /// The number of our last chat message.
    last_message_number: u64,
    /// The user was told that the opener is awaited, and is told when the session is back.
    waiting_announced: bool,
}

/// The state of our seat in the session at its hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HubAttachment {
    /// The hub has us in the session.
    Attached,
    /// The hub is down; media goes on.
    HubDown { since: MediaTime },
    /// The hub is back, and we asked it for our seat.
    Rejoining { since: MediaTime },
    /// The hub is back without the session: it was restarted, and the opener has not returned yet.
    AwaitingOpener { since: MediaTime, waiting_since: MediaTime },
}

/// What a hub reports about a session when we join it.
#[derive(Debug)]
pub(super) struct JoinedInfo {
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
    pub(super) fn new(info: SessionInfo, url: HubUrl) -> Self {
        Self {
            info,
            roster: Roster::default(),
            url,
            attachment: HubAttachment::Attached,
            retry_at: None,
            resend_media_at: None,
            access: Access::default(),
            last_message_number: 0,
            waiting_announced: false,
        }
    }

    /// See [`HubRef::shown_url`].
    pub(super) fn shown_url(&self) -> Option<HubUrl> {
        self.info.hub.shown_url(Some(self.url.clone()))
    }

    /// Whether the hub has us in the session.
    pub(super) const fn is_attached(&self) -> bool {
        matches!(self.attachment, HubAttachment::Attached)
    }

    /// Since when the hub does not have us in the session; `None` while it has.
    pub(super) const fn lost_since(&self) -> Option<MediaTime> {
        self.attachment.lost_since()
    }

    /// Whether we can only wait for the opener: the hub does not have the session, and no media
    /// flows.
    pub(super) fn awaits_opener(&self) -> bool {
        matches!(self.attachment, HubAttachment::AwaitingOpener { .. }) && !self.roster.has_media()
    }

    /// The hub gave up the opener's seat, and the session with it. An opener whose computer slept
    /// or lost its network soon comes back and opens the session again. Until then we wait, and
    /// media that flows between us goes on.
    pub(super) fn on_opener_lost(&mut self, cx: &mut CoreContext<'_>) {
        self.attachment =
            HubAttachment::HubDown { since: self.attachment.lost_since().unwrap_or(cx.now) };
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.on_session_lost(&mut roster_cx);
        self.rejoin(cx);
    }

    /// Whether a refusal of the hub may answer our request for our seat.
    pub(super) const fn is_rejoining(&self) -> bool {
        matches!(
            self.attachment,
            HubAttachment::Rejoining { .. } | HubAttachment::AwaitingOpener { .. }
        )
    }

    /// The hub is up again: asks for our seat.
    pub(super) fn on_hub_up(&mut self, url: HubUrl, me: ParticipantId, cx: &mut CoreContext<'_>) {
        self.on_hub_address_changed(url, cx);
        self.attachment =
            HubAttachment::HubDown { since: self.attachment.lost_since().unwrap_or(cx.now) };
        if self.info.me != me {
            self.info.me = me;
            let (roster, mut roster_cx) = self.roster_and_context(cx);
            roster.reset_all(&mut roster_cx);
        }
        self.rejoin(cx);
    }

    /// The hub reports its address: announces the session's new link if the address changed.
    pub(super) fn on_hub_address_changed(&mut self, url: HubUrl, cx: &mut CoreContext<'_>) {
        if self.url == url {
            return;
        }
        self.url = url;
        let (session, link) = (self.info.session.clone(), self.url.link(&self.info.session));
        cx.effects.announce(Event::LinkChanged { session, link });
    }

    /// The hub is down.
    pub(super) fn on_hub_down(&mut self, now: MediaTime) {
        self.attachment =
            HubAttachment::HubDown { since: self.attachment.lost_since().unwrap_or(now) };
    }

    /// The hub does not have the session, and will notify us when it opens.
    pub(super) fn on_waiting(&mut self, now: MediaTime) {
        if let HubAttachment::Rejoining { since } = self.attachment {
            self.attachment = HubAttachment::AwaitingOpener { since, waiting_since: now };
        }
    }

    /// The hub has us in the session, for the first time or again.
    pub(super) fn on_joined(&mut self, joined_info: JoinedInfo, cx: &mut CoreContext<'_>) {
        self.attachment = HubAttachment::Attached;
        if std::mem::take(&mut self.waiting_announced) {
            let (session, kind) = (self.info.session.clone(), self.info.kind);
            cx.effects.announce(Event::Joined { session, kind });
        }
        self.info.limit = joined_info.limit;
        self.info.role = joined_info.role;
        self.restore_lock(cx);
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.reconcile(joined_info.members, &mut roster_cx);
    }

    /// Handles the hub's refusal to give us our seat back. Returns `false` if the refusal is final.
    ///
    /// An opener whose session was taken over by a successor comes back as a guest. A hub that is
    /// busy, because all clients return at once, is asked again; media goes on meanwhile.
    pub(super) fn on_refused(&mut self, code: ErrorCode, cx: &mut CoreContext<'_>) -> bool {
        if code == ErrorCode::TooMany {
            self.retry_at = Some(cx.now + BUSY_RETRY_AFTER);
            return true;
        }
        let is_taken_over = code == ErrorCode::IdTaken
            && self.info.role == Role::Opener
            && self.info.kind.outlives_opener();
        if is_taken_over {
            self.info.role = Role::Guest;
            self.rejoin(cx);
        }
        is_taken_over
    }

    /// The hub does not relay more of our signals for now. It is unknown which were lost, so what
    /// we send is signalled again later. Connections whose descriptions were lost time out and are
    /// replaced.
    pub(super) fn on_signals_limited(&mut self, now: MediaTime) {
        self.resend_media_at = self.resend_media_at.or(Some(now + BUSY_RETRY_AFTER));
    }

    /// The session has a new owner.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        self.info.role = if *owner == self.info.me { Role::Opener } else { Role::Guest };
        if self.info.role == Role::Guest {
            self.access = Access::default();
        }
        self.roster.set_owner(owner);
    }

    /// Handles an event of the peer connection to a participant.
    pub(super) fn handle_peer_event(
        &mut self,
        of: &ParticipantId,
        event: PeerEvent,
        cx: &mut CoreContext<'_>,
    ) {
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.handle_peer_event(of, event, &mut roster_cx);
    }

    /// Sends a chat message to all participants.
    ///
    /// Its number is the time. So numbers grow even for participants that knew us in this session
    /// before we left and came back, and do not reveal how much we write in other sessions.
    pub(super) fn send_message(&mut self, text: &ChatText, cx: &mut CoreContext<'_>) {
        self.last_message_number = cx.now.as_micros().max(self.last_message_number + 1);
        let number = self.last_message_number;
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.send_message(number, text, &mut roster_cx);
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, cx: &mut CoreContext<'_>) {
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.handle_timeout(&mut roster_cx);
        if self.reopens_at().is_some_and(|at| at <= cx.now) {
            self.info.role = Role::Opener;
            self.rejoin(cx);
        }
        if self.retry_at.is_some_and(|at| at <= cx.now) {
            self.rejoin(cx);
        }
        if self.resend_media_at.is_some_and(|at| at <= cx.now) {
            self.resend_media_at = None;
            self.roster.resend_media_state();
        }
        self.expire_removed(cx);
        if self.awaits_opener() && !std::mem::replace(&mut self.waiting_announced, true) {
            let (session, hubs) = (self.info.session.clone(), vec![self.url.clone()]);
            cx.effects.announce(Event::Waiting { session, hubs });
        }
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let roster = self.roster.next_deadline(self.attachment.lost_since());
        let own_deadlines = [
            self.reopens_at().map(|at| TimerName::Reopen.at(at)),
            self.retry_at.map(|at| TimerName::SeatRetry.at(at)),
            self.resend_media_at.map(|at| TimerName::MediaResend.at(at)),
            self.access.next_expiry().map(|at| TimerName::EjectionEnd.at(at)),
        ];
        own_deadlines.into_iter().flatten().chain(roster).min()
    }

    /// Closes all peer connections.
    pub(super) fn close(&mut self, cx: &mut CoreContext<'_>) {
        let (roster, mut roster_cx) = self.roster_and_context(cx);
        roster.close(&mut roster_cx);
    }

    /// Sends a message that leaves or closes the session.
    pub(super) fn send_leave(&self, message: ClientMessage, cx: &mut CoreContext<'_>) {
        cx.hubs.send_leave(&self.info.hub, (&self.info.session, message), cx.effects);
    }

    /// The roster, and the context that its decisions depend on.
    pub(super) fn roster_and_context<'a>(
        &'a mut self,
        cx: &'a mut CoreContext<'_>,
    ) -> (&'a mut Roster, ParticipantContext<'a>) {
        let roster_cx = ParticipantContext {
            now: cx.now,
            info: &self.info,
            hub_down_since: self.attachment.lost_since(),
            effects: cx.effects,
        };
        (&mut self.roster, roster_cx)
    }

    pub(super) fn is_at(&self, hub: &HubRef) -> bool {
        self.info.hub == *hub
    }

    /// When we open a session again that nobody else opens: it has participants, and neither its
    /// opener nor a participant before us in the order of ids has opened it for long.
    fn reopens_at(&self) -> Option<MediaTime> {
        let HubAttachment::AwaitingOpener { waiting_since, .. } = self.attachment else {
            return None;
        };
        let waits = self.info.role == Role::Guest
            && self.info.kind.outlives_opener()
            && self.roster.has_media();
        let before_us = self.roster.count_live_before(&self.info.me);
        waits.then(|| waiting_since + REOPEN_AFTER * (before_us + 1))
    }

    /// Asks for our seat.
    fn rejoin(&mut self, cx: &mut CoreContext<'_>) {
        self.retry_at = None;
        if !cx.hubs.is_up(&self.info.hub) {
            return;
        }
        self.attachment =
            HubAttachment::Rejoining { since: self.attachment.lost_since().unwrap_or(cx.now) };
        let message = self.rejoin_request().message(self.info.session.clone());
        cx.effects.send(&self.info.hub, message);
    }

    /// The request that brings us back: an opener opens the session again, every other participant
    /// waits for that.
    fn rejoin_request(&self) -> SessionRequest {
        match self.info.role {
            Role::Opener => {
                let (kind, limit) = (self.info.kind, Some(self.info.limit));
                SessionRequest::Open(OpenOptions { kind, limit, join_if_taken: false })
            }
            Role::Guest => SessionRequest::Join { wait: true },
        }
    }
}

impl HubAttachment {
    const fn lost_since(self) -> Option<MediaTime> {
        match self {
            Self::Attached => None,
            Self::HubDown { since }
            | Self::Rejoining { since }
            | Self::AwaitingOpener { since, .. } => Some(since),
        }
    }
}

#[cfg(test)]
mod tests;
