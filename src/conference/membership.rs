//! A session that we are in: our tie to it at its hub, and its roster.

use std::time::Duration;

use super::{
    access::Access,
    ask::{ASKED_AGAIN, Desk, OpenTerms, Wish},
    roster::{Roster, Scope, Terms},
    words::HubRef,
};
use crate::model::{
    ChatText, ClientMessage, ErrorCode, Event, HubUrl, MediaTime, Member, ParticipantId, PeerEvent,
    PeerId, Role, SessionKind,
};

/// A session that we are in.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) terms: Terms,
    pub(super) roster: Roster,
    /// The hub's address, as it was last heard.
    pub(super) url: HubUrl,
    tie: Tie,
    /// When a hub that had too much to do is asked for our seat again.
    again_at: Option<MediaTime>,
    /// When others are told again what we send, since the hub may have refused to pass it on.
    retell_at: Option<MediaTime>,
    /// Who may take a new seat, if the session is ours.
    pub(super) access: Access,
    /// The number of what was said last.
    said: u64,
    /// People were told that the opener is awaited, and are told when the session is back.
    is_awaited: bool,
}

/// What holds us in the session at its hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tie {
    /// We are in it.
    Firm,
    /// The hub is down; media goes on.
    Down { since: MediaTime },
    /// The hub is back, and was asked for our seat.
    Asked { since: MediaTime },
    /// The hub is back without the session: it was restarted, and the opener is not back yet.
    Waiting { since: MediaTime, heard: MediaTime },
}

/// What a hub says about a session that we are in.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) kind: SessionKind,
    pub(super) limit: u16,
    pub(super) role: Role,
    pub(super) members: Vec<Member>,
}

/// How long the opener of a session has to open it at a restarted hub, and after it everybody who
/// is left in turn, before the next one does. A client comes back within some seconds.
const REOPEN_AFTER: Duration = Duration::from_secs(10);

impl Membership {
    /// A session that we have just come into.
    pub(super) fn new(terms: Terms, url: HubUrl) -> Self {
        let (roster, tie, said, is_awaited) = (Roster::default(), Tie::Firm, 0, false);
        let (again_at, retell_at) = (None, None);
        let access = Access::default();
        Self { terms, roster, url, tie, again_at, retell_at, access, said, is_awaited }
    }

    /// Whether the hub has us in the session.
    pub(super) const fn is_firm(&self) -> bool {
        matches!(self.tie, Tie::Firm)
    }

    /// Since when the hub does not have us in the session; none while it has.
    pub(super) const fn lost_since(&self) -> Option<MediaTime> {
        self.tie.down_since()
    }

    /// Whether all that is left is to wait for the opener: the hub does not have the session, and
    /// nobody's media runs.
    pub(super) fn awaits_opener(&self) -> bool {
        matches!(self.tie, Tie::Waiting { .. }) && !self.roster.has_media()
    }

    /// The hub has given the opener's seat up, and with it the session. An opener whose computer
    /// slept or lost its network is back soon and opens it again: until then we wait for that, and
    /// media that runs between us goes on.
    pub(super) fn opener_lost(&mut self, desk: &mut Desk<'_>) {
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(desk.now) };
        let (roster, mut scope) = self.parts(desk);
        roster.lose_everybody(&mut scope);
        self.ask(desk);
    }

    /// Whether a hub's refusal answers our asking for our seat.
    pub(super) const fn is_asking(&self) -> bool {
        matches!(self.tie, Tie::Asked { .. } | Tie::Waiting { .. })
    }

    /// The hub is back: asks for our seat.
    pub(super) fn up(&mut self, url: HubUrl, me: ParticipantId, desk: &mut Desk<'_>) {
        self.moved(url, desk);
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(desk.now) };
        if self.terms.me != me {
            self.terms.me = me;
            let (roster, mut scope) = self.parts(desk);
            roster.forget(&mut scope);
        }
        self.ask(desk);
    }

    /// The hub's address is that one: tells of the session's new link if it is another.
    pub(super) fn moved(&mut self, url: HubUrl, desk: &mut Desk<'_>) {
        if self.url == url {
            return;
        }
        self.url = url;
        let (session, link) = (self.terms.session.clone(), self.url.link(&self.terms.session));
        desk.out.announce(Event::LinkChanged { session, link });
    }

    /// The hub is down.
    pub(super) fn down(&mut self, now: MediaTime) {
        self.tie = Tie::Down { since: self.tie.down_since().unwrap_or(now) };
    }

    /// The hub does not have the session; it will tell when it does.
    pub(super) fn waiting(&mut self, now: MediaTime) {
        if let Tie::Asked { since } = self.tie {
            self.tie = Tie::Waiting { since, heard: now };
        }
    }

    /// The hub has us in the session (again).
    pub(super) fn admitted(&mut self, admission: Admission, desk: &mut Desk<'_>) {
        self.tie = Tie::Firm;
        if std::mem::take(&mut self.is_awaited) {
            let (session, kind) = (self.terms.session.clone(), self.terms.kind);
            desk.out.announce(Event::Joined { session, kind });
        }
        self.terms.limit = admission.limit;
        self.terms.role = admission.role;
        self.lock_again(desk);
        let (roster, mut scope) = self.parts(desk);
        roster.reconcile(admission.members, &mut scope);
    }

    /// Takes the hub's refusal to have us back; false if that is final.
    ///
    /// An opener whose session lives on under an heir comes back as a guest. A hub that has too
    /// much to do, when all come back at once, is asked again: media runs meanwhile.
    pub(super) fn refused(&mut self, code: ErrorCode, desk: &mut Desk<'_>) -> bool {
        if code == ErrorCode::TooMany {
            self.again_at = Some(desk.now + ASKED_AGAIN);
            return true;
        }
        let inherited = code == ErrorCode::IdTaken
            && self.terms.role == Role::Opener
            && self.terms.kind.outlives_opener();
        if inherited {
            self.terms.role = Role::Guest;
            self.ask(desk);
        }
        inherited
    }

    /// The hub passes no more of our signals on for now: which were lost is not known, so what we
    /// send is told again once it does. Connections whose descriptions were lost are replaced in
    /// their own time.
    pub(super) fn signalled_too_much(&mut self, now: MediaTime) {
        self.retell_at = self.retell_at.or(Some(now + ASKED_AGAIN));
    }

    /// Somebody owns the session now.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        self.terms.role = if *owner == self.terms.me { Role::Opener } else { Role::Guest };
        if self.terms.role == Role::Guest {
            self.access = Access::default();
        }
        self.roster.set_owner(owner);
    }

    /// Takes what a connection tells.
    pub(super) fn tell(&mut self, peer: PeerId, event: PeerEvent, desk: &mut Desk<'_>) {
        let (roster, mut scope) = self.parts(desk);
        roster.tell(peer, event, &mut scope);
    }

    /// Says something to everybody.
    ///
    /// Its number is the time, so that it grows even for those who knew us in this session before
    /// we left and came again, and tells nobody how much is said in other sessions.
    pub(super) fn say(&mut self, text: &ChatText, desk: &mut Desk<'_>) {
        self.said = desk.now.as_micros().max(self.said + 1);
        let number = self.said;
        let (roster, mut scope) = self.parts(desk);
        roster.say(number, text, &mut scope);
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, desk: &mut Desk<'_>) {
        let (roster, mut scope) = self.parts(desk);
        roster.advance(&mut scope);
        if self.reopens_at().is_some_and(|at| at <= desk.now) {
            self.terms.role = Role::Opener;
            self.ask(desk);
        }
        if self.again_at.is_some_and(|at| at <= desk.now) {
            self.ask(desk);
        }
        if self.retell_at.is_some_and(|at| at <= desk.now) {
            self.retell_at = None;
            self.roster.retell();
        }
        self.settle_access(desk);
        if self.awaits_opener() && !std::mem::replace(&mut self.is_awaited, true) {
            let (session, hubs) = (self.terms.session.clone(), vec![self.url.clone()]);
            desk.out.announce(Event::Waiting { session, hubs });
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<MediaTime> {
        let roster = self.roster.due(self.tie.down_since());
        let own = [self.reopens_at(), self.again_at, self.retell_at, self.access.due()];
        own.into_iter().flatten().chain(roster).min()
    }

    /// Closes every connection.
    pub(super) fn close(&mut self, desk: &mut Desk<'_>) {
        let (roster, mut scope) = self.parts(desk);
        roster.close(&mut scope);
    }

    /// Says goodbye to the hub.
    pub(super) fn part(&self, goodbye: ClientMessage, desk: &mut Desk<'_>) {
        desk.hubs.part(&self.terms.hub, (&self.terms.session, goodbye), desk.out);
    }

    /// The roster, and what its decisions depend on.
    pub(super) fn parts<'a>(&'a mut self, desk: &'a mut Desk<'_>) -> (&'a mut Roster, Scope<'a>) {
        let scope = Scope {
            now: desk.now,
            terms: &self.terms,
            down_since: self.tie.down_since(),
            out: desk.out,
        };
        (&mut self.roster, scope)
    }

    pub(super) fn is_at(&self, hub: &HubRef) -> bool {
        self.terms.hub == *hub
    }

    /// When we open a session again that nobody else does: people are in it, and its opener, or
    /// whoever else comes before us, has not done it for long.
    fn reopens_at(&self) -> Option<MediaTime> {
        let Tie::Waiting { heard, .. } = self.tie else { return None };
        let waits = self.terms.role == Role::Guest
            && self.terms.kind.outlives_opener()
            && self.roster.has_media();
        let before_us = self.roster.live_before(&self.terms.me);
        waits.then(|| heard + REOPEN_AFTER * (before_us + 1))
    }

    /// Asks for our seat.
    fn ask(&mut self, desk: &mut Desk<'_>) {
        self.again_at = None;
        if !desk.hubs.is_up(&self.terms.hub) {
            return;
        }
        self.tie = Tie::Asked { since: self.tie.down_since().unwrap_or(desk.now) };
        let message = self.wish().message(self.terms.session.clone());
        desk.out.send(&self.terms.hub, message);
    }

    /// What brings us back: an opener opens again, everybody else waits for that.
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
mod tests {
    use super::super::stage::*;
    use super::*;
    use crate::model::{
        CloseReason, EndReason, HubMessage, LeaveReason, ParticipantState, PeerState, SessionState,
    };

    const HUB: HubRef = HubRef::Default;

    fn waiting() -> HubMessage {
        HubMessage::Waiting { session: session() }
    }

    /// A guest of a mesh whose media with `a` runs, at a hub that was started again.
    fn orphaned(other: &str) -> Stage {
        let mut stage = Stage::joined(MESH, vec![member(other)]);
        stage.hear(word(other, offer(1))).state(1, PeerState::Connected);
        stage.down(&HUB).up(&HUB).hear(waiting());
        stage
    }

    #[test]
    fn a_hub_that_has_too_much_to_do_is_asked_again_and_media_goes_on() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected).down(&HUB).up(&HUB);
        assert_eq!(stage.sent().len(), 1, "asked for the seat");
        stage.hear(refusal(ErrorCode::TooMany));
        assert_eq!(stage.done, []);
        assert!(matches!(stage.status().state, SessionState::Reconnecting { .. }));
        stage.pass_ms(4999);
        assert_eq!(stage.sent().len(), 0);
        stage.pass_ms(1);
        assert_eq!(stage.sent().len(), 1, "asked again");
        assert_eq!(stage.shown("a"), Some(ParticipantState::Live));
    }

    #[test]
    fn what_we_send_is_told_again_after_a_hub_refused_signals_and_nothing_else_happens() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        stage.hear(refusal(ErrorCode::TooMany)).hear(refusal(ErrorCode::TooMany));
        assert_eq!((stage.done.len(), stage.status().state), (0, SessionState::Live));
        stage.pass_ms(4999);
        assert_eq!(stage.sent(), []);
        stage.pass_ms(1);
        let payload = media(true, true).into();
        let told = ClientMessage::Signal { session: session(), to: id("a"), payload };
        assert_eq!(stage.sent(), [(&HUB, &told)]);
        stage.pass_ms(60_000);
        assert_eq!(stage.sent(), [], "once");
    }

    #[test]
    fn an_outage_turns_a_session_reconnecting_and_media_goes_on() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected).down(&HUB);
        assert!(matches!(
            stage.done[..],
            [crate::conference::Effect::Announce(Event::HubLost { .. })]
        ));
        let lost = SessionState::Reconnecting { since: stage.now };
        assert_eq!(stage.status().state, lost);
        stage.pass_ms(300_000);
        assert_eq!(stage.status().state, lost, "since the hub was lost, not since the last try");
        assert_eq!(stage.done, []);
        assert_eq!(stage.shown("a"), Some(ParticipantState::Live));
        stage.up(&HUB);
        assert!(matches!(stage.sent()[0].1, ClientMessage::Open { limit: Some(12), .. }));
        stage.hear(opened(MESH, vec![member("a")]));
        let payload = media(true, true).into();
        let told = ClientMessage::Signal { session: session(), to: id("a"), payload };
        assert_eq!(stage.sent(), [(&HUB, &told)], "words may have been lost");
        assert_eq!((stage.done.len(), stage.status().state), (1, SessionState::Live));
    }

    #[test]
    fn a_hub_with_another_address_gives_its_sessions_another_link_that_is_told() {
        let old = url("10.0.0.1:7340");
        let new = url("192.168.9.33:7340");
        let mut stage = Stage::opened(MESH);
        let moved = |url: &HubUrl| {
            let event = super::super::HubEvent::Moved { url: url.clone() };
            super::super::Input::Hub(HUB, event)
        };
        stage.give(moved(&old));
        assert_eq!(stage.done, [], "no news");
        stage.give(moved(&new));
        let link = new.link(&session());
        let told = Event::LinkChanged { session: session(), link: link.clone() };
        assert_eq!(stage.events(), [&Event::Listening { hub: new.clone() }, &told]);
        assert_eq!(stage.status().link, Some(link));
        // One that is restarted meanwhile tells of it with its welcome.
        stage.down(&HUB).up(&HUB);
        let link = old.link(&session());
        assert!(stage.events().contains(&&Event::LinkChanged { session: session(), link }));
        stage.down(&HUB).give(moved(&new));
        assert_eq!(stage.done, [], "who is not connected is told with the next welcome");
    }

    #[test]
    fn an_opener_whose_session_has_an_heir_comes_back_as_a_guest() {
        let mut stage = Stage::opened(MESH);
        stage.down(&HUB).up(&HUB).hear(refusal(ErrorCode::IdTaken));
        let join = ClientMessage::Join { session: session(), wait: true };
        assert_eq!(stage.sent(), [(&HUB, &join)]);
        let mut heir = member("a");
        heir.role = Role::Opener;
        stage.hear(joined(MESH, Role::Guest, vec![heir]));
        assert_eq!((stage.status().state, stage.status().role), (SessionState::Live, Role::Guest));
    }

    #[test]
    fn an_opener_whose_broadcast_was_taken_is_told_so() {
        let mut stage = Stage::opened(BROADCAST);
        stage.down(&HUB).up(&HUB).hear(refusal(ErrorCode::IdTaken));
        assert!(stage.failures()[0].message.contains("another session took the id"));
        let reason = EndReason::Failed;
        assert_eq!(stage.events()[1], &Event::Ended { session: session(), reason });
    }

    #[test]
    fn roles_follow_the_owner_and_an_heir_opens_again() {
        let mut opener = member("a");
        opener.role = Role::Opener;
        let mut stage = Stage::joined(MESH, vec![opener, member("b")]);
        let owner = |who: &str| HubMessage::Owner {
            session: session(),
            participant: id(who),
            owner_key: None,
        };
        stage.hear(owner("b"));
        let roles: Vec<_> = stage.status().participants.iter().map(|one| one.role).collect();
        assert_eq!(roles, [Role::Guest, Role::Opener]);
        stage.hear(left("b", LeaveReason::Left)).hear(owner("m"));
        assert_eq!(stage.status().role, Role::Opener);
        stage.down(&HUB).up(&HUB);
        assert!(matches!(stage.sent()[0].1, ClientMessage::Open { owner_key: None, .. }));
    }

    #[test]
    fn a_session_without_opener_at_a_new_hub_is_opened_by_who_comes_first() {
        let mut stage = orphaned("z");
        assert!(matches!(stage.status().state, SessionState::Reconnecting { .. }));
        stage.pass_ms(9999);
        assert_eq!(stage.sent(), []);
        stage.pass_ms(1);
        assert!(matches!(stage.sent()[0].1, ClientMessage::Open { .. }));
        stage.hear(refusal(ErrorCode::IdTaken));
        assert!(matches!(stage.sent()[0].1, ClientMessage::Join { .. }), "somebody was faster");
    }

    #[test]
    fn who_comes_second_lets_the_first_go_first() {
        let mut stage = orphaned("a");
        stage.pass_ms(19_999);
        assert_eq!(stage.sent(), []);
        stage.pass_ms(1);
        assert_eq!(stage.sent().len(), 1);
    }

    #[test]
    fn a_session_that_its_hub_has_not_any_more_is_awaited_until_it_is_back_or_left() {
        let mut stage = Stage::joined(BROADCAST, vec![]);
        stage.down(&HUB).pass_ms(70_000);
        let since = MediaTime::from_micros(100_000_000);
        assert_eq!(stage.status().state, SessionState::Reconnecting { since });
        stage.up(&HUB).hear(waiting());
        assert_eq!(stage.events(), [&awaited()]);
        assert_eq!(stage.status().state, SessionState::HostLost { since });
        stage.pass_ms(10 * 3_600_000);
        assert_eq!((stage.done.len(), stage.core.poll_timeout()), (0, None), "however long");
        stage.leave();
        assert_eq!(stage.sent()[0].1, &ClientMessage::Leave { session: session() });
    }

    fn awaited() -> Event {
        Event::Waiting { session: session(), hubs: vec![url("10.0.0.1:7340")] }
    }

    fn opener_lost() -> HubMessage {
        HubMessage::Closed { session: session(), reason: CloseReason::OpenerLost }
    }

    fn opener() -> Member {
        Member { role: Role::Opener, ..member("o") }
    }

    #[test]
    fn a_viewer_whose_opener_slept_waits_and_is_back_by_itself() {
        let mut stage = Stage::joined(BROADCAST, vec![opener()]);
        stage.hear(word("o", offer(1))).state(1, PeerState::Connected);
        // The opener's computer sleeps: the connection falls silent, the hub gives the seat up.
        stage.pass_ms(3000).state(1, PeerState::Disconnected);
        stage.pass_ms(500).hear(presence("o", away(3500)));
        stage.pass_ms(56_500);
        assert_eq!(stage.shown("o"), Some(ParticipantState::Gone));
        stage.hear(opener_lost());
        let join = ClientMessage::Join { session: session(), wait: true };
        assert_eq!(stage.sent(), [(&HUB, &join)]);
        assert_eq!(stage.states(), [ParticipantState::Left]);
        stage.hear(waiting());
        assert_eq!(stage.events(), [&awaited()]);
        assert!(matches!(stage.status().state, SessionState::HostLost { .. }));
        // It wakes, opens again, and its hub lets everybody in who waits.
        stage.pass_ms(12_000).hear(joined(BROADCAST, Role::Guest, vec![opener()]));
        let back = Event::Joined { session: session(), kind: BROADCAST };
        assert_eq!(stage.events()[0], &back);
        assert_eq!(stage.status().state, SessionState::Live);
        stage.hear(word("o", offer(1)));
        assert_eq!(stage.opened_peers(), [2], "media returns on a new connection");
    }

    #[test]
    fn media_that_runs_outlives_an_opener_who_lost_the_hub_only() {
        let mut stage = Stage::joined(BROADCAST, vec![opener()]);
        stage.hear(word("o", offer(1))).state(1, PeerState::Connected);
        stage.hear(opener_lost()).hear(waiting());
        assert_eq!(
            (stage.closed_peers(), stage.shown("o")),
            (vec![], Some(ParticipantState::Live))
        );
        assert_eq!(stage.events(), Vec::<&Event>::new(), "nothing is missed yet");
        stage.hear(joined(BROADCAST, Role::Guest, vec![opener()]));
        assert_eq!(stage.events(), Vec::<&Event>::new());
        assert_eq!((stage.closed_peers(), stage.status().state), (vec![], SessionState::Live));
    }

    #[test]
    fn who_waits_for_a_lost_opener_is_told_when_the_session_is_over_after_all() {
        for (reason, end) in [
            (CloseReason::OpenerLeft, EndReason::OpenerLeft),
            (CloseReason::Closed, EndReason::Closed),
        ] {
            let mut stage = Stage::joined(BROADCAST, vec![opener()]);
            stage.hear(opener_lost()).hear(waiting());
            stage.hear(joined(BROADCAST, Role::Guest, vec![opener()]));
            stage.hear(HubMessage::Closed { session: session(), reason });
            assert_eq!(stage.status().state, SessionState::Ended { reason: end });
        }
    }

    #[test]
    fn an_opener_who_is_told_of_the_own_loss_opens_again() {
        let mut stage = Stage::opened(BROADCAST);
        stage.hear(opener_lost());
        assert!(matches!(stage.sent()[0].1, ClientMessage::Open { .. }), "{:?}", stage.sent());
    }

    #[test]
    fn under_another_name_nobody_knows_our_connections() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected).down(&HUB);
        let (participant, url) = (id("other"), url("10.0.0.1:7340"));
        let place = place(&url);
        let up = super::super::HubEvent::Up { url, place, participant, name: "Me".into() };
        stage.give(super::super::Input::Hub(HUB, up));
        assert_eq!(stage.closed_peers(), [1]);
    }
}
