//! The hubs in use: connected on demand, and left some time after the last session there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    outbox::{Effect, Outbox},
    words::HubRef,
};
use crate::model::{
    ClientMessage, Event, HubOwner, HubPlace, HubState, HubStatus, HubUrl, MediaTime,
    ParticipantId, SessionId,
};

/// The hubs in use.
#[derive(Debug, Default)]
pub(super) struct Hubs {
    known: BTreeMap<HubRef, Hub>,
    /// The address of the default hub that was last announced.
    listening: Option<HubUrl>,
    /// The user's name, if it was changed in this run.
    name: Option<String>,
}

/// One hub.
#[derive(Debug)]
pub(super) struct Hub {
    line: Line,
    /// The address at which others reach the hub, as it last reported. Links start with it. Nothing
    /// else may depend on it, unless the hub is this user's.
    url: Option<HubUrl>,
    /// The endpoint at which it was last reached.
    place: Option<HubPlace>,
    unused_since: Option<MediaTime>,
    /// How many other participants use the hub, if this program embeds it: they need it even when
    /// we do not.
    guests: usize,
    /// Leave messages that could not be sent yet.
    farewells: BTreeMap<SessionId, ClientMessage>,
    /// Renames that the hub has not answered.
    renames: u32,
}

/// The state of the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// Being established.
    Connecting,
    /// Up, with our participant id at this hub.
    Up { me: ParticipantId },
    /// Down, and retried; with the reason.
    Down { reason: String },
}

/// How long the connection to a hub outlives the last session there. A user who leaves one session
/// often joins the next, and leave messages take a moment to be sent.
const LINGER: Duration = Duration::from_secs(5);

impl Hubs {
    /// Connects to a hub, unless it is in use already.
    pub(super) fn need(&mut self, hub: &HubRef, effects: &mut Outbox) {
        if !self.known.contains_key(hub) {
            effects.push(Effect::ConnectHub(hub.clone()));
            self.known.insert(hub.clone(), Hub::new());
        }
    }

    /// A hub sent `welcome`. Returns `false` if the hub is not in use.
    pub(super) fn up(
        &mut self,
        hub: &HubRef,
        (url, endpoint): (HubUrl, HubPlace),
        (me, called): (ParticipantId, &str),
        effects: &mut Outbox,
    ) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        state.renames = 0;
        // The name was changed after the hello was sent.
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty() && *name != called) {
            state.rename(hub, name, effects);
        }
        self.listening = announced(hub, &url, self.listening.take(), effects);
        if matches!(state.line, Line::Down { .. }) && state.url.is_some() {
            effects.announce(Event::HubBack { hub: url.clone() });
        }
        state.line = Line::Up { me };
        state.url = Some(url);
        state.place = Some(endpoint);
        for message in std::mem::take(&mut state.farewells).into_values() {
            effects.send(hub, message);
        }
        true
    }

    /// A hub's address changed. Returns `false` if the hub is not in use or not connected.
    pub(super) fn moved(&mut self, hub: &HubRef, url: &HubUrl, effects: &mut Outbox) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        if !matches!(state.line, Line::Up { .. }) {
            return false;
        }
        state.url = Some(url.clone());
        self.listening = announced(hub, url, self.listening.take(), effects);
        true
    }

    /// A hub was lost or could not be reached. Returns `false` if the hub is not in use.
    pub(super) fn down(&mut self, hub: &HubRef, reason: &str, effects: &mut Outbox) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        if let (Line::Up { .. }, Some(url)) = (&state.line, &state.url) {
            effects.announce(Event::HubLost { hub: url.clone(), reason: reason.to_owned() });
        }
        state.line = Line::Down { reason: reason.to_owned() };
        true
    }

    /// The user changed the name: notifies every hub that is up. The others get it with the next
    /// `hello`.
    pub(super) fn rename(&mut self, name: String, effects: &mut Outbox) {
        effects.push(Effect::SetName(name.clone()));
        for (hub, state) in &mut self.known {
            if matches!(state.line, Line::Up { .. }) {
                state.rename(hub, &name, effects);
            }
        }
        self.name = Some(name);
    }

    /// A hub has taken our new name.
    pub(super) fn renamed(&mut self, hub: &HubRef) {
        if let Some(state) = self.known.get_mut(hub) {
            state.renames = state.renames.saturating_sub(1);
        }
    }

    /// Whether a hub's refusal of an unknown message answers one of our renames; if so, the rename
    /// is no longer pending.
    pub(super) fn refuses_rename(&mut self, hub: &HubRef) -> bool {
        let Some(state) = self.known.get_mut(hub) else { return false };
        let is_asked = state.renames > 0;
        state.renames = state.renames.saturating_sub(1);
        is_asked
    }

    /// Sets how many other participants use a hub that this program embeds.
    pub(super) fn set_guests(&mut self, hub: &HubRef, count: usize) {
        if let Some(state) = self.known.get_mut(hub) {
            state.guests = count;
        }
    }

    /// Sends the message that leaves a session, now or when the hub is up again.
    pub(super) fn part(
        &mut self,
        hub: &HubRef,
        (session, message): (&SessionId, ClientMessage),
        effects: &mut Outbox,
    ) {
        let Some(state) = self.known.get_mut(hub) else { return };
        match state.line {
            Line::Up { .. } => effects.send(hub, message),
            Line::Connecting | Line::Down { .. } => {
                state.farewells.insert(session.clone(), message);
            }
        }
    }

    /// Disconnects from hubs that have been unused for a while, by us and, if we embed them, by
    /// others.
    pub(super) fn settle(&mut self, used: &BTreeSet<HubRef>, now: MediaTime, effects: &mut Outbox) {
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
    pub(super) fn due(&self) -> Option<MediaTime> {
        self.known.values().filter_map(|hub| hub.unused_since).min().map(|since| since + LINGER)
    }

    pub(super) fn is_up(&self, hub: &HubRef) -> bool {
        matches!(self.line(hub), Some(Line::Up { .. }))
    }

    /// The state of the connection to a hub, if it is in use.
    pub(super) fn line(&self, hub: &HubRef) -> Option<&Line> {
        self.known.get(hub).map(|state| &state.line)
    }

    /// The address at which others reach a hub, once known; the address of a link is known at once.
    pub(super) fn url(&self, hub: &HubRef) -> Option<HubUrl> {
        let reported = self.known.get(hub).and_then(|state| state.url.clone());
        reported.or_else(|| match hub {
            HubRef::Default => None,
            HubRef::At(url) => Some(url.clone()),
        })
    }

    /// The endpoint at which a hub was last reached.
    pub(super) fn place(&self, hub: &HubRef) -> Option<&HubPlace> {
        self.known.get(hub)?.place.as_ref()
    }

    /// The hub at an address: a hub in use that certainly has this address, or a new one.
    pub(super) fn at(&self, url: HubUrl) -> HubRef {
        let known = self.known.iter().find(|(_, hub)| hub.is_at(&url));
        known.map_or(HubRef::At(url), |(name, _)| name.clone())
    }

    /// Whether two hubs in use are certainly the same.
    pub(super) fn are_one(&self, one: &HubRef, other: &HubRef) -> bool {
        let hub = |name: &HubRef| self.known.get(name);
        let (Some(one), Some(other)) = (hub(one), hub(other)) else { return false };
        let is_one = |one: &Hub, other: &Hub| one.addresses().any(|url| other.is_at(url));
        is_one(one, other) || is_one(other, one)
    }

    /// The hubs in use, whether up or not.
    pub(super) fn in_use(&self) -> impl Iterator<Item = &HubRef> {
        self.known.keys()
    }

    /// The states of the hubs, the default hub first.
    pub(super) fn statuses(&self) -> Vec<HubStatus> {
        let status = |(name, hub): (&HubRef, &Hub)| {
            let state = match &hub.line {
                Line::Connecting => HubState::Connecting,
                Line::Up { .. } => HubState::Connected,
                Line::Down { reason } => HubState::Unreachable { reason: reason.clone() },
            };
            HubStatus { url: self.url(name), state, guests: hub.guests, place: hub.place.clone() }
        };
        self.known.iter().map(status).collect()
    }
}

/// Announces the address of the default hub if it changed. Returns the address that was last
/// announced.
fn announced(
    hub: &HubRef,
    url: &HubUrl,
    before: Option<HubUrl>,
    effects: &mut Outbox,
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
            line: Line::Connecting,
            url: None,
            place: None,
            unused_since: None,
            guests: 0,
            farewells: BTreeMap::new(),
            renames: 0,
        }
    }

    /// The addresses that certainly belong to the hub: the address that it was reached at, and the
    /// address that it reports if it is this user's. Any other hub may report the address of a
    /// third.
    fn addresses(&self) -> impl Iterator<Item = &HubUrl> {
        let is_ours = |endpoint: &&HubPlace| endpoint.owner == HubOwner::ThisUser;
        let reported = self.place.as_ref().filter(is_ours).and(self.url.as_ref());
        self.place.as_ref().map(|endpoint| &endpoint.url).into_iter().chain(reported)
    }

    fn is_at(&self, url: &HubUrl) -> bool {
        self.addresses().any(|own| own == url)
    }

    fn rename(&mut self, hub: &HubRef, name: &str, effects: &mut Outbox) {
        self.renames += 1;
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
        let mut fixture = Stage::new();
        fixture.open(MESH);
        assert_eq!(fixture.done, [Effect::ConnectHub(HubRef::Default)]);
        fixture.up(&HubRef::Default).hear(opened(MESH, vec![])).leave();
        assert!(!fixture.done.contains(&Effect::DisconnectHub(HubRef::Default)));
        fixture.pass_ms(4999);
        assert_eq!(fixture.done, []);
        fixture.pass_ms(1);
        assert_eq!(fixture.done, [Effect::DisconnectHub(HubRef::Default)]);
        assert_eq!(fixture.core.poll_timeout(), None);
    }

    #[test]
    fn a_session_that_is_requested_in_time_keeps_the_hub() {
        let mut fixture = Stage::opened(MESH);
        fixture.leave().pass_ms(4000).open(MESH);
        assert_eq!(fixture.sent().len(), 1, "asked at once: {:?}", fixture.done);
        fixture.pass_ms(60_000);
        assert_eq!(fixture.done, []);
    }

    #[test]
    fn an_embedded_hub_stays_as_long_as_others_use_it() {
        let mut fixture = Stage::opened(MESH);
        let guests = |count| Input::Hub(HubRef::Default, HubEvent::Guests { count });
        fixture.give(guests(2)).leave().pass_ms(60_000);
        assert!(!fixture.done.contains(&Effect::DisconnectHub(HubRef::Default)));
        assert_eq!(fixture.core.snapshot().hubs[0].guests, 2);
        fixture.give(guests(0)).pass_ms(4999);
        assert_eq!(fixture.done, []);
        fixture.pass_ms(1);
        assert_eq!(fixture.done, [Effect::DisconnectHub(HubRef::Default)]);
    }

    #[test]
    fn a_leave_message_waits_for_a_hub_that_is_down() {
        let mut fixture = Stage::opened(MESH);
        fixture.down(&HubRef::Default).leave();
        assert_eq!(fixture.sent(), []);
        fixture.pass_ms(2000).up(&HubRef::Default);
        let leave = ClientMessage::Leave { session: session() };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &leave)]);
    }

    #[test]
    fn the_default_hub_is_announced_once_for_each_address() {
        let mut fixture = Stage::new();
        fixture.open(MESH).up(&HubRef::Default);
        let hub = url("10.0.0.1:7340");
        assert!(fixture.events().contains(&&Event::Listening { hub }));
        fixture.down(&HubRef::Default).up(&HubRef::Default);
        let is_announced = |event: &&&Event| matches!(event, Event::Listening { .. });
        assert_eq!(fixture.events().iter().filter(is_announced).count(), 0);
    }

    #[test]
    fn a_lost_hub_and_its_return_are_announced_once() {
        let mut fixture = Stage::opened(MESH);
        fixture.down(&HubRef::Default);
        assert!(matches!(fixture.events()[..], [Event::HubLost { .. }]));
        fixture.down(&HubRef::Default);
        assert_eq!(fixture.events(), Vec::<&Event>::new());
        fixture.up(&HubRef::Default);
        assert!(matches!(fixture.events()[..], [Event::HubBack { .. }]));
    }

    #[test]
    fn events_of_a_hub_that_is_not_in_use_are_ignored() {
        let mut fixture = Stage::new();
        fixture.up(&HubRef::Default).hear(left("a", LeaveReason::Left)).down(&HubRef::Default);
        assert_eq!(fixture.done, []);
        assert!(fixture.core.snapshot().hubs.is_empty());
    }

    #[test]
    fn hubs_are_listed_default_first_and_with_the_reason_of_an_outage() {
        let mut fixture = Stage::new();
        fixture.join(Some("hub.example:80"), true).down(&HubRef::At(url("hub.example:80")));
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        fixture.give(Input::Command(Command::Open(request)));
        let hubs = fixture.core.snapshot().hubs;
        assert_eq!((hubs[0].url.as_ref(), &hubs[0].state), (None, &HubState::Connecting));
        assert_eq!(hubs[1].state, HubState::Unreachable { reason: "nobody answers".into() });
    }

    /// The default hub is up and reports the address `there`.
    fn claims(owner: HubOwner, there: &str) -> Stage {
        let mut fixture = Stage::new();
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        fixture.give(Input::Command(Command::Open(request)));
        let endpoint = HubPlace { url: url("127.0.0.1:7340"), owner };
        let (url, participant) = (url(there), id("m"));
        let up = HubEvent::Up { url, place: endpoint, participant, name: "Me".into() };
        fixture.give(Input::Hub(HubRef::Default, up));
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
            assert_eq!(fixture.done.contains(&connect), connects, "{owner:?}");
            assert_eq!(fixture.sent().is_empty(), connects, "{owner:?} is asked");
        }
    }

    #[test]
    fn a_hub_that_claims_another_address_does_not_stop_us_from_asking_there() {
        let there = HubRef::At(url("there.example:80"));
        let ask = ClientMessage::Join { session: session(), wait: true };
        for (owner, is_asked) in [(HubOwner::ThisUser, false), (HubOwner::Unproven, true)] {
            let mut fixture = Stage::new();
            let beside = SessionId::parse("other").unwrap();
            let target = JoinTarget { session: beside, hub: Some(url("there.example:80")) };
            fixture.give(Input::Command(Command::Join { target, wait: true })).join(None, true);
            let endpoint = HubPlace { url: url("127.0.0.1:7340"), owner };
            let (claimed, participant) = (url("there.example:80"), id("m"));
            let up = HubEvent::Up { url: claimed, place: endpoint, participant, name: "Me".into() };
            fixture.give(Input::Hub(HubRef::Default, up)).up(&there);
            assert_eq!(fixture.sent().contains(&(&there, &ask)), is_asked, "{owner:?}");
        }
    }
}
