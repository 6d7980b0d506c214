//! The participants of one session that we are paired with.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    context::ParticipantContext,
    deadline::Deadline,
    hub_news::MemberNews,
    media_use::{MediaUse, MediaUseCounts},
    participant::{Offerer, Participant},
};
use crate::model::{
    ChatText, Enabled, LeaveReason, MediaTime, Member, ParticipantId, ParticipantList, PeerEvent,
    PerSource, Role, ShownSize, clean_name, guest_name, guest_number,
};

/// The participants that we are paired with.
///
/// Only those that an input or a deadline touched are settled. For the others, the results of the
/// last time are kept.
#[derive(Debug, Default)]
pub(super) struct Roster {
    /// In the order in which they joined, by number.
    entries: BTreeMap<u64, Entry>,
    numbers: BTreeMap<ParticipantId, u64>,
    next_number: u64,
    /// Those whose state may have changed since they were settled.
    touched: BTreeSet<u64>,
    /// What the participants were last settled for. If it changes, all are settled.
    settled_for: Option<SettleContext>,
    /// The next deadline of each that has one.
    deadlines: BTreeSet<(MediaTime, u64)>,
    statuses: ParticipantList,
    media_use: MediaUseCounts,
}

/// A participant, and what was derived from its state when it was last settled.
#[derive(Debug)]
struct Entry {
    participant: Participant,
    deadline: Option<MediaTime>,
    media_use: MediaUse,
}

/// What the settled state of all participants depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SettleContext {
    enabled: Enabled,
    working: PerSource<bool>,
    hub_down_since: Option<MediaTime>,
}

/// The most participants that are kept for one session, whatever its hub reports. Above every
/// kind's limit.
const MAX_PARTICIPANTS: usize = 300;

impl Roster {
    /// Updates the roster from the hub's list, after we joined or rejoined the session.
    pub(super) fn reconcile(&mut self, hubs: Vec<Member>, cx: &mut ParticipantContext<'_>) {
        let listed: BTreeSet<_> = hubs.iter().map(|member| member.participant.clone()).collect();
        for number in self.touch_all() {
            self.retain(number, None, cx, |one, cx| listed.contains(&one.id) || one.on_missing(cx));
        }
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
        let Some(number) = self.numbers.get(id).copied() else { return };
        self.touched.insert(number);
        self.retain(number, Some(reason), cx, |one, cx| match reason {
            LeaveReason::Lost => one.on_missing(cx),
            LeaveReason::Left | LeaveReason::Ejected | LeaveReason::Replaced => false,
        });
    }

    /// The hub lost the session: members without a running peer connection are removed.
    pub(super) fn on_session_lost(&mut self, cx: &mut ParticipantContext<'_>) {
        for number in self.touch_all() {
            self.retain(number, Some(LeaveReason::Lost), cx, |one, cx| one.on_missing(cx));
        }
    }

    /// Sets the owner of the session; all other members are guests.
    pub(super) fn set_owner(&mut self, owner: &ParticipantId) {
        for one in self.all_mut() {
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

    /// Sets at which size we show the videos of a participant.
    pub(super) fn set_shown(&mut self, of: &ParticipantId, sizes: PerSource<Option<ShownSize>>) {
        if let Some(one) = self.find(of) {
            one.set_shown(sizes);
        }
    }

    /// Our participant id changed: the remote peers do not know our connections any more.
    pub(super) fn reset_all(&mut self, cx: &mut ParticipantContext<'_>) {
        for one in self.all_mut() {
            one.reset(cx);
        }
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, cx: &mut ParticipantContext<'_>) {
        if self.settled_for.is_none_or(|context| context.hub_down_since != cx.hub_down_since) {
            self.touch_all();
        }
        let due = self.deadlines.range(..=(cx.now, u64::MAX)).map(|(_, number)| *number);
        self.touched.extend(due);
        for number in self.touched.clone() {
            self.retain(number, None, cx, |one, cx| one.handle_timeout(cx));
        }
    }

    /// Applies the mute switches to the peer connections, and keeps what follows from the state of
    /// the participants that were touched.
    pub(super) fn apply_enabled(
        &mut self,
        enabled: Enabled,
        working: PerSource<bool>,
        cx: &mut ParticipantContext<'_>,
    ) {
        let context = SettleContext { enabled, working, hub_down_since: cx.hub_down_since };
        if self.settled_for.replace(context) != Some(context) {
            self.touch_all();
        }
        for number in std::mem::take(&mut self.touched) {
            if let Some(entry) = self.entries.get_mut(&number) {
                entry.participant.apply_enabled(enabled, working, cx);
                self.keep_derived(number, cx.hub_down_since);
            }
        }
    }

    /// Signals again to all participants what we send, because earlier signals may be lost.
    pub(super) fn resend_media_state(&mut self) {
        for one in self.all_mut() {
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
        for one in self.all_mut() {
            one.send_message(number, text.clone(), cx);
        }
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self, down_since: Option<MediaTime>) -> Option<Deadline<'_>> {
        let (_, number) = self.deadlines.first()?;
        self.entries.get(number)?.participant.next_deadline(down_since)
    }

    /// How many participants with running media come before `who` in the order of ids.
    pub(super) fn count_live_before(&self, id: &ParticipantId) -> u32 {
        let live =
            |one: &&Participant| one.id < *id && one.peer().is_some_and(|peer| !peer.is_new());
        self.members().filter(live).count() as u32
    }

    /// Whether media of at least one participant flows, or has just stopped.
    pub(super) fn has_media(&self) -> bool {
        self.members().filter_map(Participant::peer).any(|peer| !peer.is_new())
    }

    /// Closes all peer connections: the session has ended for us.
    pub(super) fn close(&mut self, cx: &mut ParticipantContext<'_>) {
        for mut entry in std::mem::take(self).entries.into_values() {
            entry.participant.close_peer(cx);
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Participant> {
        self.entries.values().map(|entry| &entry.participant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn contains(&self, id: &ParticipantId) -> bool {
        self.numbers.contains_key(id)
    }

    /// The participants as they are shown, as of the last time that they were settled.
    pub(super) const fn statuses(&self) -> &ParticipantList {
        &self.statuses
    }

    /// What the peer connections to the participants use, as of the last time that they were
    /// settled.
    pub(super) fn media_use(&self) -> MediaUse {
        self.media_use.any()
    }

    /// Settles all participants the next time, and returns their numbers.
    pub(super) fn touch_all(&mut self) -> BTreeSet<u64> {
        self.touched = self.entries.keys().copied().collect();
        self.touched.clone()
    }

    fn on_member(&mut self, mut member: Member, offerer: Offerer, cx: &mut ParticipantContext<'_>) {
        member.name = self.visible_name(&member.participant, &member.name);
        if let Some(one) = self.find(&member.participant) {
            one.on_joined(member, offerer, cx);
        } else if self.has_room(cx) && cx.info.pairs_with(&member) {
            let participant = Participant::new(member, offerer, cx);
            let number = self.next_number;
            self.next_number += 1;
            self.touched.insert(number);
            self.numbers.insert(participant.id.clone(), number);
            let entry = Entry { participant, deadline: None, media_use: MediaUse::default() };
            self.entries.insert(number, entry);
        }
    }

    /// Removes a participant that does not stay; `reason` is the hub's, if it gave one.
    fn retain(
        &mut self,
        number: u64,
        reason: Option<LeaveReason>,
        cx: &mut ParticipantContext<'_>,
        stays: impl FnOnce(&mut Participant, &mut ParticipantContext<'_>) -> bool,
    ) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        if stays(&mut entry.participant, cx) {
            return;
        }
        entry.participant.on_left(reason, cx);
        if let Some(entry) = self.entries.remove(&number) {
            self.numbers.remove(&entry.participant.id);
            self.statuses.remove(number);
            self.media_use.replace(entry.media_use, MediaUse::default());
            entry.deadline.map(|at| self.deadlines.remove(&(at, number)));
        }
    }

    /// Keeps what follows from the state of a participant.
    fn keep_derived(&mut self, number: u64, down_since: Option<MediaTime>) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let deadline = entry.participant.next_deadline(down_since).map(|next| next.at);
        if deadline != entry.deadline {
            entry.deadline.map(|at| self.deadlines.remove(&(at, number)));
            self.deadlines.extend(deadline.map(|at| (at, number)));
            entry.deadline = deadline;
        }
        let media_use = entry.participant.media_use();
        self.media_use.replace(entry.media_use, media_use);
        entry.media_use = media_use;
        let status = entry.participant.status();
        if self.statuses.of_number(number) != Some(&status) {
            self.statuses.set(number, status);
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
        let known = self.numbers.get(id).and_then(|number| self.entries.get(number));
        let known = known.map(|entry| entry.participant.name());
        if let Some(known) = known.filter(|known| guest_number(known).is_some()) {
            return known.to_owned();
        }
        let taken: BTreeSet<_> =
            self.members().filter_map(|one| guest_number(one.name())).collect();
        let free = (1..).find(|number| !taken.contains(number));
        guest_name(free.expect("fewer members than numbers"))
    }

    fn has_room(&self, cx: &ParticipantContext<'_>) -> bool {
        self.entries.len() < MAX_PARTICIPANTS.min(usize::from(cx.info.limit))
    }

    /// The participant with that id, to be changed.
    fn find(&mut self, id: &ParticipantId) -> Option<&mut Participant> {
        let number = *self.numbers.get(id)?;
        self.touched.insert(number);
        self.entries.get_mut(&number).map(|entry| &mut entry.participant)
    }

    /// All participants, to be changed.
    fn all_mut(&mut self) -> impl Iterator<Item = &mut Participant> {
        self.touch_all();
        self.entries.values_mut().map(|entry| &mut entry.participant)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, HubRef, tests::fixture::*};
    use super::*;
    use crate::model::{Media, ParticipantState, PeerId, PeerMedia, PeerState, PerChannel};

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
        assert!(fixture.status().participants.is_empty());
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
            channels: PerChannel::ALL,
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
