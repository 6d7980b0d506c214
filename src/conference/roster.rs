//! The participants of one session whom we are linked to.

use std::{collections::BTreeSet, time::Duration};

use super::{
    outbox::Outbox,
    participant::{Arrival, Participant},
    words::HubRef,
};
use crate::model::{
    ChatText, ClientMessage, Direction, Gates, HubMessage, LeaveReason, Media, MediaTime, Member,
    ParticipantId, ParticipantStatus, Payload, PeerEvent, PeerId, PeerMedia, Role, SessionId,
    SessionKind, clean_name, guest_name, guest_number,
};

/// The participants that we are linked to, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Vec<Participant>,
}

/// What the participants of one session have in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) session: SessionId,
    pub(super) kind: SessionKind,
    pub(super) limit: u16,
    /// Our part.
    pub(super) role: Role,
    /// Who we are at the session's hub.
    pub(super) me: ParticipantId,
    pub(super) hub: HubRef,
}

/// What a participant's decisions depend on, and where they go.
pub(super) struct Scope<'a> {
    pub(super) now: MediaTime,
    pub(super) terms: &'a Terms,
    /// Since when the session cannot be reached at its hub.
    pub(super) down_since: Option<MediaTime>,
    pub(super) out: &'a mut Outbox,
}

/// Participants of one session that are kept, whatever its hub says: above every kind's limit.
const MAX_PARTICIPANTS: usize = 300;

/// The longest participant id that is taken from a hub, in bytes; our hubs' have 16.
const MAX_ID_BYTES: usize = 64;

impl Roster {
    /// Brings the roster in line with the hub's, after we came (back) to the session.
    pub(super) fn reconcile(&mut self, hubs: Vec<Member>, scope: &mut Scope<'_>) {
        let there: BTreeSet<_> = hubs.iter().map(|member| member.participant.clone()).collect();
        self.members.retain_mut(|one| {
            let stays = there.contains(&one.id) || one.miss(scope);
            if !stays {
                one.leave(None, scope);
            }
            stays
        });
        for member in hubs {
            self.meet(member, Arrival::Ours, scope);
        }
    }

    /// Takes what the hub says of one member. A stranger's word is void.
    pub(super) fn news(&mut self, message: HubMessage, scope: &mut Scope<'_>) {
        match message {
            HubMessage::ParticipantJoined { participant: member, .. } => {
                self.meet(member, Arrival::Theirs, scope);
            }
            HubMessage::ParticipantLeft { participant, reason, .. } => {
                self.depart(&participant, reason, scope);
            }
            HubMessage::ParticipantPresence { participant, presence, .. } => {
                if let Some(one) = self.find(&participant) {
                    one.be(presence, scope);
                }
            }
            HubMessage::ParticipantRenamed { participant, name, .. } => {
                let name = self.visible_name(&participant, &name);
                if let Some(one) = self.find(&participant) {
                    one.rename(name, scope);
                }
            }
            HubMessage::Signal { from, payload, .. } => {
                if let Some(one) = self.find(&from) {
                    one.hear(payload.into_known(), scope);
                }
            }
            HubMessage::Welcome { .. }
            | HubMessage::Opened { .. }
            | HubMessage::Joined { .. }
            | HubMessage::Waiting { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::Owner { .. }
            | HubMessage::Access { .. }
            | HubMessage::Closed { .. }
            | HubMessage::Error { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong => {}
        }
    }

    /// Somebody is out. Whom the hub only lost stays while the media runs.
    fn depart(&mut self, who: &ParticipantId, reason: LeaveReason, scope: &mut Scope<'_>) {
        self.members.retain_mut(|one| {
            let stays = one.id != *who
                || match reason {
                    LeaveReason::Lost => one.miss(scope),
                    LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => false,
                };
            if !stays {
                one.leave(Some(reason), scope);
            }
            stays
        });
    }

    /// The session is not at its hub any more: who has no media with us is out.
    pub(super) fn lose_everybody(&mut self, scope: &mut Scope<'_>) {
        self.members.retain_mut(|one| {
            let stays = one.miss(scope);
            if !stays {
                one.leave(Some(LeaveReason::Lost), scope);
            }
            stays
        });
    }

    /// Somebody owns the session now, and nobody else.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        for one in &mut self.members {
            one.role = if one.id == *owner { Role::Opener } else { Role::Guest };
        }
    }

    /// Takes what a connection of the roster tells.
    pub(super) fn tell(&mut self, peer: PeerId, event: PeerEvent, scope: &mut Scope<'_>) {
        if let Some(one) = self.members.iter_mut().find(|one| one.has(peer)) {
            one.tell(event, scope);
        }
    }

    /// We are somebody else now: nobody knows our connections.
    pub(super) fn forget(&mut self, scope: &mut Scope<'_>) {
        for one in &mut self.members {
            one.forget(scope);
        }
    }

    /// Does what is due.
    pub(super) fn advance(&mut self, scope: &mut Scope<'_>) {
        self.members.retain_mut(|one| {
            let stays = one.advance(scope);
            if !stays {
                one.leave(None, scope);
            }
            stays
        });
    }

    /// Lets pass what the gates do, to and from everybody.
    pub(super) fn pass(&mut self, gates: Gates, working: Gates, scope: &mut Scope<'_>) {
        for one in &mut self.members {
            one.pass(gates, working, scope);
        }
    }

    /// Tells everybody again what we send: words may have been lost.
    pub(super) fn retell(&mut self) {
        for one in &mut self.members {
            one.retell();
        }
    }

    /// Says something to everybody.
    pub(super) fn say(&mut self, number: u64, text: &ChatText, scope: &mut Scope<'_>) {
        for one in &mut self.members {
            one.say(number, text.clone(), scope);
        }
    }

    /// When something is due.
    pub(super) fn due(&self, down_since: Option<MediaTime>) -> Option<MediaTime> {
        self.members.iter().filter_map(|one| one.due(down_since)).min()
    }

    /// How many whose media runs come before somebody in the order of ids.
    pub(super) fn live_before(&self, who: &ParticipantId) -> u32 {
        let live = |one: &&Participant| {
            one.id < *who && one.peer().is_some_and(|peer| !peer.is_starting())
        };
        self.members.iter().filter(live).count() as u32
    }

    /// Whether media of somebody runs, or fell silent only now.
    pub(super) fn has_media(&self) -> bool {
        self.members.iter().filter_map(Participant::peer).any(|peer| !peer.is_starting())
    }

    /// Closes every connection: the session is over for us.
    pub(super) fn close(&mut self, scope: &mut Scope<'_>) {
        for mut one in self.members.drain(..) {
            one.close(scope);
        }
    }

    pub(super) fn members(&self) -> &[Participant] {
        &self.members
    }

    pub(super) fn statuses(&self) -> Vec<ParticipantStatus> {
        self.members.iter().map(Participant::status).collect()
    }

    fn meet(&mut self, mut member: Member, arrival: Arrival, scope: &mut Scope<'_>) {
        member.name = self.visible_name(&member.participant, &member.name);
        if let Some(one) = self.find(&member.participant) {
            one.meet(member, arrival, scope);
        } else if self.has_room(scope) && scope.terms.admits(&member) {
            self.members.push(Participant::new(member, arrival, scope));
        }
    }

    /// The name to show for a member. A hub may be a stranger's program: a name that nobody sees is
    /// "Guest" and the first number that nobody else has.
    fn visible_name(&self, who: &ParticipantId, name: &str) -> String {
        let name = clean_name(name);
        if !name.is_empty() {
            return name;
        }
        let known = self.members.iter().find(|one| one.id == *who);
        if let Some(known) = known.filter(|known| guest_number(known.name()).is_some()) {
            return known.name().to_owned();
        }
        let taken: BTreeSet<_> =
            self.members.iter().filter_map(|one| guest_number(one.name())).collect();
        let free = (1..).find(|number| !taken.contains(number));
        guest_name(free.expect("fewer members than numbers"))
    }

    fn has_room(&self, scope: &Scope<'_>) -> bool {
        self.members.len() < MAX_PARTICIPANTS.min(usize::from(scope.terms.limit))
    }

    fn find(&mut self, who: &ParticipantId) -> Option<&mut Participant> {
        self.members.iter_mut().find(|one| one.id == *who)
    }
}

impl Terms {
    /// The media of a connection in this session, seen from here.
    pub(super) fn media(&self) -> PeerMedia {
        let direction = |media: Media| -> Option<Direction> {
            self.kind.media.has(media).then(|| self.kind.direction(self.role))
        };
        PeerMedia {
            audio: direction(Media::Audio),
            video: direction(Media::Video),
            data: self.kind.media.has(Media::Data),
        }
    }

    /// Whether we are linked to such a member.
    fn admits(&self, member: &Member) -> bool {
        member.participant != self.me
            && member.participant.as_str().len() <= MAX_ID_BYTES
            && self.kind.links(self.role, member.role)
    }
}

impl Scope<'_> {
    /// The time that long ago.
    pub(super) fn ago(&self, span: Duration) -> MediaTime {
        let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        MediaTime::from_micros(self.now.as_micros().saturating_sub(span))
    }

    /// Says a word to a participant, if the hub can carry it.
    pub(super) fn signal(&mut self, to: &ParticipantId, payload: Payload) {
        if self.down_since.is_none() {
            let (session, to) = (self.terms.session.clone(), to.clone());
            let payload = payload.into();
            self.out.send(&self.terms.hub, ClientMessage::Signal { session, to, payload });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, HubRef, stage::*};
    use super::*;
    use crate::model::{ParticipantState, PeerState};

    #[test]
    fn after_a_hubs_outage_the_roster_is_reconciled_and_running_media_untouched() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).hear(came(member("b"))).hear(came(member("c")));
        stage.state(1, PeerState::Connected).state(2, PeerState::Connected);
        stage.down(&HubRef::Default).pass_ms(5000).up(&HubRef::Default);
        let mut reborn = member("b");
        reborn.instance = crate::model::Instance::from_random(9);
        stage.hear(opened(MESH, vec![reborn, member("d")]));
        assert_eq!(stage.closed_peers(), [3, 2], "c is out, b's program is another one");
        let shown: Vec<_> = ["a", "b", "c", "d"].iter().map(|who| stage.shown(who)).collect();
        let (live, connecting) = (ParticipantState::Live, ParticipantState::Connecting);
        assert_eq!(shown, [Some(live), Some(connecting), None, Some(connecting)]);
        stage.pass_ms(3000);
        assert_eq!(stage.opened_peers(), [4, 5]);
    }

    #[test]
    fn a_name_that_nobody_sees_is_a_guests_whatever_the_hub_says() {
        let mut stage = Stage::opened(MESH);
        let named = |who: &str, name: &str| Member { name: name.to_owned(), ..member(who) };
        stage.hear(came(named("a", "Guest 1"))).hear(came(named("b", "\u{200b}\u{3164}")));
        stage.hear(came(named("c", "\u{2800}"))).hear(came(named("d", "Zo\u{202e}e\u{200d}")));
        stage.hear(came(named("e", "👩\u{200d}💻")));
        let shown = |stage: &Stage| -> Vec<_> {
            stage.status().participants.into_iter().map(|one| one.name).collect()
        };
        assert_eq!(shown(&stage), ["Guest 1", "Guest 2", "Guest 3", "Zoe", "👩\u{200d}💻"]);
        stage.hear(came(named("b", " "))).hear(came(named("d", "\u{ad}")));
        assert_eq!(shown(&stage), ["Guest 1", "Guest 2", "Guest 3", "Guest 4", "👩\u{200d}💻"]);
    }

    #[test]
    fn words_of_and_about_strangers_are_void() {
        let mut stage = Stage::opened(MESH);
        stage.hear(word("x", offer(1))).hear(presence("x", away(1)));
        stage.hear(left("x", LeaveReason::Left)).state(7, PeerState::Failed);
        assert_eq!(stage.done, []);
    }

    #[test]
    fn a_hub_cannot_make_the_roster_grow_without_bound() {
        let mut stage = Stage::opened(BROADCAST);
        for index in 0..1000 {
            stage.hear(came(member(&format!("a{index}"))));
        }
        assert_eq!(stage.status().participants.len(), 256);
        let mut stage = Stage::opened(MESH);
        let own = member("m");
        stage.hear(came(member(&"x".repeat(65)))).hear(came(own));
        assert_eq!(stage.status().participants, []);
    }

    #[test]
    fn media_are_what_the_kind_says_seen_from_here() {
        use crate::model::{Direction::RecvOnly, MediaSet, SessionKind, Topology};
        let media = MediaSet::VIDEO.with(Media::Data);
        let kind = SessionKind { media, topology: Topology::OneWay };
        let mut opener = member("o");
        opener.role = Role::Opener;
        let mut stage = Stage::joined(kind, vec![opener]);
        stage.hear(word("o", offer(1)));
        let wanted = PeerMedia { audio: None, video: Some(RecvOnly), data: true };
        let opened = stage.done.iter().find_map(|effect| {
            if let Effect::OpenPeer { media, .. } = effect { Some(*media) } else { None }
        });
        assert_eq!(opened, Some(wanted));
    }

    #[test]
    fn the_connections_of_a_roster_are_told_apart() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).hear(came(member("b")));
        assert_eq!(stage.core.peer(PeerId(2)), Some((session(), id("b"))));
        stage.state(2, PeerState::Connected);
        assert_eq!(stage.shown("b"), Some(ParticipantState::Live));
        assert_eq!(stage.shown("a"), Some(ParticipantState::Connecting));
        stage.leave();
        assert_eq!((stage.closed_peers(), stage.core.peer(PeerId(2))), (vec![1, 2], None));
    }
}
