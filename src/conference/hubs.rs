//! The hubs in use: connected on demand, and left some time after the last session there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    deadline::{Deadline, TimerName},
    effects::{Effect, EffectQueue},
    input::HubRef,
};
use crate::model::{
    ClientMessage, Event, HubEndpoint, HubOwner, HubState, HubStatus, HubUrl, Instance, MediaTime,
    ParticipantId, SessionId,
};

/// The hubs in use.
#[derive(Debug, Default)]
pub(super) struct Hubs {
    known: BTreeMap<HubRef, Hub>,
    /// The address of the default hub that was last announced.
    announced_url: Option<HubUrl>,
    /// The user's name, if it was changed in this run.
    name: Option<String>,
}

/// One hub.
#[derive(Debug)]
pub(super) struct Hub {
    connection: HubConnectionState,
    /// The address at which others reach the hub, as it last reported. Links start with it. Nothing
    /// else may depend on it, unless the hub is this user's.
    url: Option<HubUrl>,
    /// The endpoint at which it was last reached.
    endpoint: Option<HubEndpoint>,
    unused_since: Option<MediaTime>,
    /// How many other participants use the hub, if this program embeds it: they need it even when
    /// we do not.
    guests: usize,
    /// Leave messages that could not be sent yet.
    pending_leaves: BTreeMap<SessionId, ClientMessage>,
    /// Renames that the hub has not answered.
    pending_renames: u32,
}

/// The state of the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HubConnectionState {
    /// Being established.
    Connecting,
    /// Up, with our identity at this hub.
    Up { us: HubIdentity },
    /// Down, and retried; with the reason.
    Down { reason: String },
}

/// Who we are at a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HubIdentity {
    /// Our participant id.
    pub(super) me: ParticipantId,
    /// This run of our program.
    pub(super) instance: Instance,
    /// The name that other participants see.
    pub(super) name: String,
}

/// How long the connection to a hub outlives the last session there. A user who leaves one session
/// often joins the next, and leave messages take a moment to be sent.
const LINGER: Duration = Duration::from_secs(5);

impl Hubs {
    /// Connects to a hub, unless it is in use already.
    pub(super) fn connect(&mut self, hub: &HubRef, effects: &mut EffectQueue) {
        if !self.known.contains_key(hub) {
            effects.push(Effect::ConnectHub(hub.clone()));
            self.known.insert(hub.clone(), Hub::new());
        }
    }

    /// A hub sent `welcome`. Returns `false` if the hub is not in use.
    pub(super) fn on_up(
        &mut self,
        hub: &HubRef,
        (url, endpoint): (HubUrl, HubEndpoint),
        us: HubIdentity,
        effects: &mut EffectQueue,
    ) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        state.pending_renames = 0;
        // The name was changed after the hello was sent.
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty() && **name != us.name)
        {
            state.rename(hub, name, effects);
        }
        self.announced_url = announce_default_hub(hub, &url, self.announced_url.take(), effects);
        if matches!(state.connection, HubConnectionState::Down { .. }) && state.url.is_some() {
            effects.announce(Event::HubRestored { hub: url.clone() });
        }
        state.connection = HubConnectionState::Up { us };
        state.url = Some(url);
        state.endpoint = Some(endpoint);
        for message in std::mem::take(&mut state.pending_leaves).into_values() {
            effects.send(hub, message);
        }
        true
    }

    /// A hub's address changed. Returns `false` if the hub is not in use or not connected.
    pub(super) fn on_address_changed(
        &mut self,
        hub: &HubRef,
        url: &HubUrl,
        effects: &mut EffectQueue,
    ) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        if !matches!(state.connection, HubConnectionState::Up { .. }) {
            return false;
        }
        state.url = Some(url.clone());
        self.announced_url = announce_default_hub(hub, url, self.announced_url.take(), effects);
        true
    }

    /// A hub was lost or could not be reached. Returns `false` if the hub is not in use.
    pub(super) fn on_down(
        &mut self,
        hub: &HubRef,
        reason: &str,
        effects: &mut EffectQueue,
    ) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        if let (HubConnectionState::Up { .. }, Some(url)) = (&state.connection, &state.url) {
            effects.announce(Event::HubLost { hub: url.clone(), reason: reason.to_owned() });
        }
        state.connection = HubConnectionState::Down { reason: reason.to_owned() };
        true
    }

    /// The user changed the name: notifies every hub that is up. The others get it with the next
    /// `hello`.
    pub(super) fn rename(&mut self, name: String, effects: &mut EffectQueue) {
        effects.push(Effect::SetName(name.clone()));
        for (hub, state) in &mut self.known {
            if matches!(state.connection, HubConnectionState::Up { .. }) {
                state.rename(hub, &name, effects);
            }
        }
        self.name = Some(name);
    }

    /// A hub has taken our new name.
    pub(super) fn on_renamed(&mut self, hub: &HubRef) {
        if let Some(state) = self.known.get_mut(hub) {
            state.pending_renames = state.pending_renames.saturating_sub(1);
        }
    }

    /// Whether a hub's refusal of an unknown message answers one of our renames; if so, the rename
    /// is no longer pending.
    pub(super) fn take_rename_refusal(&mut self, hub: &HubRef) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        let is_asked = state.pending_renames > 0;
        state.pending_renames = state.pending_renames.saturating_sub(1);
        is_asked
    }

    /// Sets how many other participants use a hub that this program embeds.
    pub(super) fn set_guests(&mut self, hub: &HubRef, count: usize) {
        if let Some(state) = self.known.get_mut(hub) {
            state.guests = count;
        }
    }

    /// Sends the message that leaves a session, now or when the hub is up again.
    pub(super) fn send_leave(
        &mut self,
        hub: &HubRef,
        (session, message): (&SessionId, ClientMessage),
        effects: &mut EffectQueue,
    ) {
        let Some(state) = self.known.get_mut(hub) else { return };
        match state.connection {
            HubConnectionState::Up { .. } => effects.send(hub, message),
            HubConnectionState::Connecting | HubConnectionState::Down { .. } => {
                state.pending_leaves.insert(session.clone(), message);
            }
        }
    }

    /// Disconnects from hubs that have been unused for a while, by us and, if we embed them, by
    /// others.
    pub(super) fn settle(
        &mut self,
        used: &BTreeSet<HubRef>,
        now: MediaTime,
        effects: &mut EffectQueue,
    ) {
        self.known.retain(|name, hub| {
            if used.contains(name) || hub.guests > 0 {
                hub.unused_since = None;
                return true;
            }
            let stays = now < *hub.unused_since.get_or_insert(now) + LINGER;
            if !stays {
                effects.push(Effect::DisconnectHub(name.clone()));
            }
            stays
        });
    }

    /// When the next hub is to be disconnected.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let since = self.known.values().filter_map(|hub| hub.unused_since).min()?;
        Some(TimerName::HubLinger.at(since + LINGER))
    }

    pub(super) fn is_up(&self, hub: &HubRef) -> bool {
        matches!(self.connection_state(hub), Some(HubConnectionState::Up { .. }))
    }

    /// The state of the connection to a hub, if it is in use.
    pub(super) fn connection_state(&self, hub: &HubRef) -> Option<&HubConnectionState> {
        self.known.get(hub).map(|state| &state.connection)
    }

    /// The address at which others reach a hub, once known; the address of a link is known at once.
    pub(super) fn url(&self, hub: &HubRef) -> Option<HubUrl> {
        let reported = self.known.get(hub).and_then(|state| state.url.clone());
        reported.or_else(|| match hub {
            HubRef::Default => None,
            HubRef::At(url) => Some(url.clone()),
        })
    }

    /// See [`HubRef::shown_url`].
    pub(super) fn shown_url(&self, hub: &HubRef) -> Option<HubUrl> {
        hub.shown_url(self.url(hub))
    }

    /// The endpoint at which a hub was last reached.
    pub(super) fn endpoint(&self, hub: &HubRef) -> Option<&HubEndpoint> {
        self.known.get(hub)?.endpoint.as_ref()
    }

    /// The hub at an address: a hub in use that certainly has this address, or a new one.
    pub(super) fn hub_at(&self, url: HubUrl) -> HubRef {
        let known = self.known.iter().find(|(_, hub)| hub.has_address(&url));
        known.map_or(HubRef::At(url), |(name, _)| name.clone())
    }

    /// Whether two hubs in use are certainly the same.
    pub(super) fn are_same(&self, one: &HubRef, other: &HubRef) -> bool {
        let hub = |name: &HubRef| self.known.get(name);
        let (Some(one), Some(other)) = (hub(one), hub(other)) else { return false };
        let is_one = |one: &Hub, other: &Hub| one.addresses().any(|url| other.has_address(url));
        is_one(one, other) || is_one(other, one)
    }

    /// The hubs in use, whether up or not.
    pub(super) fn in_use(&self) -> impl Iterator<Item = &HubRef> {
        self.known.keys()
    }

    /// The states of the hubs, the default hub first.
    pub(super) fn statuses(&self) -> Vec<HubStatus> {
        let status = |(name, hub): (&HubRef, &Hub)| {
            let state = match &hub.connection {
                HubConnectionState::Connecting => HubState::Connecting,
                HubConnectionState::Up { .. } => HubState::Connected,
                HubConnectionState::Down { reason } => {
                    HubState::Unreachable { reason: reason.clone() }
                }
            };
            HubStatus {
                url: self.url(name),
                state,
                guests: hub.guests,
                endpoint: hub.endpoint.clone(),
            }
        };
        self.known.iter().map(status).collect()
    }
}

/// Announces the address of the default hub if it changed. Returns the address that was last
/// announced.
fn announce_default_hub(
    hub: &HubRef,
    url: &HubUrl,
    before: Option<HubUrl>,
    effects: &mut EffectQueue,
) -> Option<HubUrl> {
    if *hub != HubRef::Default || before.as_ref() == Some(url) {
        return before;
    }
    effects.announce(Event::Listening { hub: url.clone() });
    Some(url.clone())
}

impl Hub {
    const fn new() -> Self {
        Self {
            connection: HubConnectionState::Connecting,
            url: None,
            endpoint: None,
            unused_since: None,
            guests: 0,
            pending_leaves: BTreeMap::new(),
            pending_renames: 0,
        }
    }

    /// The addresses that certainly belong to the hub: the address that it was reached at, and the
    /// address that it reports if it is this user's. Any other hub may report the address of a
    /// third.
    fn addresses(&self) -> impl Iterator<Item = &HubUrl> {
        let is_ours = |endpoint: &&HubEndpoint| endpoint.owner == HubOwner::ThisUser;
        let reported = self.endpoint.as_ref().filter(is_ours).and(self.url.as_ref());
        self.endpoint.as_ref().map(|endpoint| &endpoint.url).into_iter().chain(reported)
    }

    fn has_address(&self, url: &HubUrl) -> bool {
        self.addresses().any(|own| own == url)
    }

    fn rename(&mut self, hub: &HubRef, name: &str, effects: &mut EffectQueue) {
        self.pending_renames += 1;
        effects.send(hub, ClientMessage::Rename { name: name.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HubEvent, Input, tests::fixture::*};
    use super::*;
    use crate::model::{Command, JoinTarget, LeaveReason, OpenRequest};

    #[test]
    fn a_hub_is_connected_for_the_first_session_and_left_a_while_after_the_last() {
        let mut fixture = Fixture::new();
        fixture.open(MESH);
        assert_eq!(fixture.effects, [Effect::ConnectHub(HubRef::Default)]);
        fixture.hub_up(&HubRef::Default).receive(opened(MESH, vec![])).leave();
        assert!(!fixture.effects.contains(&Effect::DisconnectHub(HubRef::Default)));
        fixture.advance_ms(4999);
        assert_eq!(fixture.effects, []);
        fixture.advance_ms(1);
        assert_eq!(fixture.effects, [Effect::DisconnectHub(HubRef::Default)]);
        assert_eq!(fixture.core.poll_timeout(), None);
    }

    #[test]
    fn a_session_that_is_requested_in_time_keeps_the_hub() {
        let mut fixture = Fixture::opened(MESH);
        fixture.leave().advance_ms(4000).open(MESH);
        assert_eq!(fixture.sent().len(), 1, "asked at once: {:?}", fixture.effects);
        fixture.advance_ms(60_000);
        assert_eq!(fixture.effects, []);
    }

    #[test]
    fn an_embedded_hub_stays_as_long_as_others_use_it() {
        let mut fixture = Fixture::opened(MESH);
        let guests = |count| Input::Hub(HubRef::Default, HubEvent::Guests { count });
        fixture.handle(guests(2)).leave().advance_ms(60_000);
        assert!(!fixture.effects.contains(&Effect::DisconnectHub(HubRef::Default)));
        assert_eq!(fixture.core.snapshot().hubs[0].guests, 2);
        fixture.handle(guests(0)).advance_ms(4999);
        assert_eq!(fixture.effects, []);
        fixture.advance_ms(1);
        assert_eq!(fixture.effects, [Effect::DisconnectHub(HubRef::Default)]);
    }

    #[test]
    fn a_leave_message_waits_for_a_hub_that_is_down() {
        let mut fixture = Fixture::opened(MESH);
        fixture.hub_down(&HubRef::Default).leave();
        assert_eq!(fixture.sent(), []);
        fixture.advance_ms(2000).hub_up(&HubRef::Default);
        let leave = ClientMessage::Leave { session: session() };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &leave)]);
    }

    #[test]
    fn the_default_hub_is_announced_once_for_each_address() {
        let mut fixture = Fixture::new();
        fixture.open(MESH).hub_up(&HubRef::Default);
        let hub = url("10.0.0.1:7340");
        assert!(fixture.events().contains(&&Event::Listening { hub }));
        fixture.hub_down(&HubRef::Default).hub_up(&HubRef::Default);
        let is_announced = |event: &&&Event| matches!(event, Event::Listening { .. });
        assert_eq!(fixture.events().iter().filter(is_announced).count(), 0);
    }

    #[test]
    fn a_lost_hub_and_its_return_are_announced_once() {
        let mut fixture = Fixture::opened(MESH);
        fixture.hub_down(&HubRef::Default);
        assert!(matches!(fixture.events()[..], [Event::HubLost { .. }]));
        fixture.hub_down(&HubRef::Default);
        assert_eq!(fixture.events(), Vec::<&Event>::new());
        fixture.hub_up(&HubRef::Default);
        assert!(matches!(fixture.events()[..], [Event::HubRestored { .. }]));
    }

    #[test]
    fn events_of_a_hub_that_is_not_in_use_are_ignored() {
        let mut fixture = Fixture::new();
        fixture
            .hub_up(&HubRef::Default)
            .receive(participant_left("a", LeaveReason::Left))
            .hub_down(&HubRef::Default);
        assert_eq!(fixture.effects, []);
        assert!(fixture.core.snapshot().hubs.is_empty());
    }

    #[test]
    fn hubs_are_listed_default_first_and_with_the_reason_of_an_outage() {
        let mut fixture = Fixture::new();
        fixture.join(Some("hub.example:80"), true).hub_down(&HubRef::At(url("hub.example:80")));
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        fixture.handle(Input::Command(Command::Open(request)));
        let hubs = fixture.core.snapshot().hubs.clone();
        assert_eq!((hubs[0].url.as_ref(), &hubs[0].state), (None, &HubState::Connecting));
        assert_eq!(hubs[1].state, HubState::Unreachable { reason: "nobody answers".into() });
    }

    /// The default hub is up and reports the address `there`.
    fn claims(owner: HubOwner, there: &str) -> Fixture {
        let mut fixture = Fixture::new();
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        fixture.handle(Input::Command(Command::Open(request)));
        let endpoint = HubEndpoint { url: url("127.0.0.1:7340"), owner };
        let up = hub_up_event(url(there), endpoint, id("m"));
        fixture.handle(Input::Hub(HubRef::Default, up));
        fixture
    }

    #[test]
    fn a_link_leads_to_its_own_hub_though_another_hub_claims_its_address() {
        let there = HubRef::At(url("there.example:80"));
        for (owner, connects) in
            [(HubOwner::ThisUser, false), (HubOwner::Unproven, true), (HubOwner::Elsewhere, true)]
        {
            let mut fixture = claims(owner, "there.example:80");
            fixture.join(Some("there.example:80"), true);
            let connect = Effect::ConnectHub(there.clone());
            assert_eq!(fixture.effects.contains(&connect), connects, "{owner:?}");
            assert_eq!(fixture.sent().is_empty(), connects, "{owner:?} is asked");
        }
    }

    #[test]
    fn a_hub_that_claims_another_address_does_not_stop_us_from_asking_there() {
        let there = HubRef::At(url("there.example:80"));
        let ask = ClientMessage::Join { session: session(), wait: true };
        for (owner, is_asked) in [(HubOwner::ThisUser, false), (HubOwner::Unproven, true)] {
            let mut fixture = Fixture::new();
            let beside = SessionId::parse("other").unwrap();
            let target = JoinTarget { session: beside, hub: Some(url("there.example:80")) };
            fixture.handle(Input::Command(Command::Join { target, wait: true })).join(None, true);
            let endpoint = HubEndpoint { url: url("127.0.0.1:7340"), owner };
            let up = hub_up_event(url("there.example:80"), endpoint, id("m"));
            fixture.handle(Input::Hub(HubRef::Default, up)).hub_up(&there);
            assert_eq!(fixture.sent().contains(&(&there, &ask)), is_asked, "{owner:?}");
        }
    }
}
