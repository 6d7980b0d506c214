//! The participants of one session that we are paired with.

use std::collections::BTreeSet;

use super::{
    context::ParticipantContext,
    deadline::Deadline,
    hub_news::MemberNews,
    participant::{Offerer, Participant},
};
use crate::model::{
    ChatText, Enabled, LeaveReason, MediaTime, Member, ParticipantId, ParticipantStatus, PeerEvent,
    PerSource, Role, clean_name, guest_name, guest_number,
};

/// The participants that we are paired with, in the order in which they joined.
#[derive(Debug, Default)]
pub(super) struct Roster {
    members: Vec<Participant>,
}

/// The most participants that are kept for one session, whatever its hub reports. Above every
/// kind's limit.
const MAX_PARTICIPANTS: usize = 300;

impl Roster {
    /// Updates the roster from the hub's list, after we joined or rejoined the session.
    pub(super) fn reconcile(&mut self, hubs: Vec<Member>, cx: &mut ParticipantContext<'_>) {
        let listed: BTreeSet<_> = hubs.iter().map(|member| member.participant.clone()).collect();
        self.members.retain_mut(|one| {
            let stays = listed.contains(&one.id) || one.on_missing(cx);
            if !stays {
                one.on_left(None, cx);
            }
            stays
        });
        for member in hubs {
            self.on_member(member, Offerer::Them, cx);
        }
    }

    /// Handles what the hub reports about one member; ignored if the member is unknown.
    pub(super) fn handle_news(&mut self, news: MemberNews, cx: &mut ParticipantContext<'_>) {
        match news {
            MemberNews::Joined(member) => self.on_member(member, Offerer::Us, cx),
            MemberNews::Left { participant, reason } => self.on_left(&participant, reason, cx),
            MemberNews::Presence { participant, presence } => {
                if let Some(one) = self.find(&participant) {
                    one.on_presence(presence, cx);
                }
            }
            MemberNews::Renamed { participant, name } => {
                let name = self.visible_name(&participant, &name);
                if let Some(one) = self.find(&participant) {
                    one.rename(name, cx);
                }
            }
            MemberNews::Signal { from, payload } => {
                if let Some(one) = self.find(&from) {
                    one.handle_signal(payload, cx);
                }
            }
        }
    }

    /// A member left. A member that only the hub lost stays while its media flows.
    fn on_left(
        &mut self,
        id: &ParticipantId,
        reason: LeaveReason,
        cx: &mut ParticipantContext<'_>,
    ) {
        self.members.retain_mut(|one| {
            let stays = one.id != *id
                || match reason {
                    LeaveReason::Lost => one.on_missing(cx),
                    LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => false,
                };
            if !stays {
                one.on_left(Some(reason), cx);
            }
            stays
        });
    }

    /// The hub lost the session: members without a running peer connection are removed.
    pub(super) fn on_session_lost(&mut self, cx: &mut ParticipantContext<'_>) {
        self.members.retain_mut(|one| {
            let stays = one.on_missing(cx);
            if !stays {
                one.on_left(Some(LeaveReason::Lost), cx);
            }
            stays
        });
    }

    /// Sets the owner of the session; all other members are guests.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        for one in &mut self.members {
            one.role = if one.id == *owner { Role::Opener } else { Role::Guest };
        }
    }

    /// Handles an event of the peer connection to a participant.
    pub(super) fn handle_peer_event(
        &mut self,
        of: &ParticipantId,
        event: PeerEvent,
        cx: &mut ParticipantContext<'_>,
    ) {
        if let Some(one) = self.find(of) {
            one.handle_peer_event(event, cx);
        }
    }

    /// Our participant id changed: the remote peers do not know our connections any more.
    pub(super) fn reset_all(&mut self, cx: &mut ParticipantContext<'_>) {
        for one in &mut self.members {
            one.reset(cx);
        }
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, cx: &mut ParticipantContext<'_>) {
        self.members.retain_mut(|one| {
            let stays = one.handle_timeout(cx);
            if !stays {
                one.on_left(None, cx);
            }
            stays
        });
    }

    /// Applies the mute switches to all peer connections.
    pub(super) fn apply_enabled(
        &mut self,
        enabled: Enabled,
        working: PerSource<bool>,
        cx: &mut ParticipantContext<'_>,
    ) {
        for one in &mut self.members {
            one.apply_enabled(enabled, working, cx);
        }
    }

    /// Signals again to all participants what we send, because earlier signals may be lost.
    pub(super) fn resend_media_state(&mut self) {
        for one in &mut self.members {
            one.resend_media_state();
        }
    }

    /// Sends a chat message to all participants.
    pub(super) fn send_message(
        &mut self,
        number: u64,
        text: &ChatText,
        cx: &mut ParticipantContext<'_>,
    ) {
        for one in &mut self.members {
            one.send_message(number, text.clone(), cx);
        }
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self, down_since: Option<MediaTime>) -> Option<Deadline<'_>> {
        self.members.iter().filter_map(|one| one.next_deadline(down_since)).min()
    }

    /// How many participants with running media come before `who` in the order of ids.
    pub(super) fn count_live_before(&self, id: &ParticipantId) -> u32 {
        let live =
            |one: &&Participant| one.id < *id && one.peer().is_some_and(|peer| !peer.is_new());
        self.members.iter().filter(live).count() as u32
    }

    /// Whether media of at least one participant flows, or has just stopped.
    pub(super) fn has_media(&self) -> bool {
        self.members.iter().filter_map(Participant::peer).any(|peer| !peer.is_new())
    }

    /// Closes all peer connections: the session has ended for us.
    pub(super) fn close(&mut self, cx: &mut ParticipantContext<'_>) {
        for mut one in self.members.drain(..) {
            one.close_peer(cx);
        }
    }

    pub(super) fn members(&self) -> &[Participant] {
        &self.members
    }

    pub(super) fn statuses(&self) -> Vec<ParticipantStatus> {
        self.members.iter().map(Participant::status).collect()
    }

    fn on_member(&mut self, mut member: Member, offerer: Offerer, cx: &mut ParticipantContext<'_>) {
        member.name = self.visible_name(&member.participant, &member.name);
        if let Some(one) = self.find(&member.participant) {
            one.on_joined(member, offerer, cx);
        } else if self.has_room(cx) && cx.info.pairs_with(&member) {
            self.members.push(Participant::new(member, offerer, cx));
        }
    }

    /// The name to show for a member. The hub may be any program, so its names are cleaned again: a
    /// name without visible characters becomes "Guest" and the first number that no other member
    /// has.
    fn visible_name(&self, id: &ParticipantId, name: &str) -> String {
        let name = clean_name(name);
        if !name.is_empty() {
            return name;
        }
        let known = self.members.iter().find(|one| one.id == *id);
        if let Some(known) = known.filter(|known| guest_number(known.name()).is_some()) {
            return known.name().to_owned();
        }
        let taken: BTreeSet<_> =
            self.members.iter().filter_map(|one| guest_number(one.name())).collect();
        let free = (1..).find(|number| !taken.contains(number));
        guest_name(free.expect("fewer members than numbers"))
    }

    fn has_room(&self, cx: &ParticipantContext<'_>) -> bool {
        self.members.len() < MAX_PARTICIPANTS.min(usize::from(cx.info.limit))
    }

    fn find(&mut self, id: &ParticipantId) -> Option<&mut Participant> {
        self.members.iter_mut().find(|one| one.id == *id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, HubRef, tests::fixture::*};
    use super::*;
    use crate::model::{Media, ParticipantState, PeerId, PeerMedia, PeerState};

    #[test]
    fn after_an_outage_of_the_hub_the_roster_is_reconciled_and_running_media_is_kept() {
        let mut fixture = Fixture::opened(MESH);
        fixture
            .receive(participant_joined(member("a")))
            .receive(participant_joined(member("b")))
            .receive(participant_joined(member("c")));
        fixture.peer_state(1, PeerState::Connected).peer_state(2, PeerState::Connected);
        fixture.hub_down(&HubRef::Default).advance_ms(5000).hub_up(&HubRef::Default);
        let mut restarted = member("b");
        restarted.instance = crate::model::Instance::from_random(9);
        fixture.receive(opened(MESH, vec![restarted, member("d")]));
        assert_eq!(fixture.closed_peers(), [3, 2], "c left, b's program was restarted");
        let shown: Vec<_> =
            ["a", "b", "c", "d"].iter().map(|letter| fixture.state_of(letter)).collect();
        let (live, connecting) = (ParticipantState::Live, ParticipantState::Connecting);
        assert_eq!(shown, [Some(live), Some(connecting), None, Some(connecting)]);
        fixture.advance_ms(3000);
        assert_eq!(fixture.opened_peers(), [4, 5]);
    }

    #[test]
    fn a_name_without_visible_characters_is_replaced_by_a_guest_name() {
        let mut fixture = Fixture::opened(MESH);
        let named = |letter: &str, name: &str| Member { name: name.to_owned(), ..member(letter) };
        fixture
            .receive(participant_joined(named("a", "Guest 1")))
            .receive(participant_joined(named("b", "\u{200b}\u{3164}")));
        fixture
            .receive(participant_joined(named("c", "\u{2800}")))
            .receive(participant_joined(named("d", "Zo\u{202e}e\u{200d}")));
        fixture.receive(participant_joined(named("e", "👩\u{200d}💻")));
        let shown = |fixture: &Fixture| -> Vec<_> {
            fixture.status().participants.into_iter().map(|one| one.name).collect()
        };
        assert_eq!(shown(&fixture), ["Guest 1", "Guest 2", "Guest 3", "Zoe", "👩\u{200d}💻"]);
        fixture
            .receive(participant_joined(named("b", " ")))
            .receive(participant_joined(named("d", "\u{ad}")));
        assert_eq!(shown(&fixture), ["Guest 1", "Guest 2", "Guest 3", "Guest 4", "👩\u{200d}💻"]);
    }

    #[test]
    fn messages_about_unknown_members_are_ignored() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(signal("x", offer(1))).receive(presence("x", away(1)));
        fixture.receive(participant_left("x", LeaveReason::Left)).peer_state(7, PeerState::Failed);
        assert_eq!(fixture.effects, []);
    }

    #[test]
    fn a_hub_cannot_make_the_roster_grow_without_bound() {
        let mut fixture = Fixture::opened(BROADCAST);
        for index in 0..1000 {
            fixture.receive(participant_joined(member(&format!("a{index}"))));
        }
        assert_eq!(fixture.status().participants.len(), 256);
        let mut fixture = Fixture::opened(MESH);
        let own = member("m");
        fixture
            .receive(participant_joined(member(&"x".repeat(65))))
            .receive(participant_joined(own));
        assert_eq!(fixture.status().participants, []);
    }

    #[test]
    fn the_media_of_a_connection_follow_from_the_kind_and_our_role() {
        use crate::model::{Direction::RecvOnly, MediaSet, SessionKind, Topology};
        let media = MediaSet::VIDEO.with(Media::Data);
        let kind = SessionKind { media, topology: Topology::OneWay };
        let mut opener = member("o");
        opener.role = Role::Opener;
        let mut fixture = Fixture::joined(kind, vec![opener]);
        fixture.receive(signal("o", offer(1)));
        let wanted = PeerMedia {
            sections: PerSource { camera: Some(RecvOnly), microphone: None },
            data: true,
        };
        let opened = fixture.effects.iter().find_map(|effect| {
            if let Effect::OpenPeer { media, .. } = effect { Some(*media) } else { None }
        });
        assert_eq!(opened, Some(wanted));
    }

    #[test]
    fn each_connection_of_a_roster_belongs_to_one_participant() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).receive(participant_joined(member("b")));
        assert_eq!(fixture.core.session_of_peer(PeerId(2)), Some((session(), id("b"))));
        fixture.peer_state(2, PeerState::Connected);
        assert_eq!(fixture.state_of("b"), Some(ParticipantState::Live));
        assert_eq!(fixture.state_of("a"), Some(ParticipantState::Connecting));
        fixture.leave();
        assert_eq!(
            (fixture.closed_peers(), fixture.core.session_of_peer(PeerId(2))),
            (vec![1, 2], None)
        );
    }
}
