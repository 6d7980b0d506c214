//! The hubs in use: connected to by demand, left a while after the last session there.

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
    /// The default hub's address, as it was announced.
    listening: Option<HubUrl>,
    /// How the person wants to be called, once changed in this run.
    name: Option<String>,
}

/// One hub.
#[derive(Debug)]
pub(super) struct Hub {
    line: Line,
    /// The address that others reach it by, as it was last heard. It is what links start with, and
    /// nothing else may depend on it unless the hub is this user's.
    url: Option<HubUrl>,
    /// Where it was reached last.
    place: Option<HubPlace>,
    unused_since: Option<MediaTime>,
    /// How many others meet there, if it is our own: they need it when we do not.
    guests: usize,
    /// Goodbyes that could not be said yet.
    farewells: BTreeMap<SessionId, ClientMessage>,
    /// Changes of our name that the hub has not answered.
    renames: u32,
}

/// How the connection to a hub is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Line {
    /// Being made.
    Connecting,
    /// Up; who we are there.
    Up { me: ParticipantId },
    /// Down, and tried again; why.
    Down { reason: String },
}

/// How long the connection to a hub outlives the last session there: a person who leaves one
/// session often enters the next, and goodbyes need a moment to be said.
const LINGER: Duration = Duration::from_secs(5);

impl Hubs {
    /// Connects to a hub unless that was done.
    pub(super) fn need(&mut self, hub: &HubRef, out: &mut Outbox) {
        if !self.known.contains_key(hub) {
            out.push(Effect::ConnectHub(hub.clone()));
            self.known.insert(hub.clone(), Hub::new());
        }
    }

    /// A hub welcomed us; false if it is none of ours.
    pub(super) fn up(
        &mut self,
        hub: &HubRef,
        (url, place): (HubUrl, HubPlace),
        (me, called): (ParticipantId, &str),
        out: &mut Outbox,
    ) -> bool {
        let Some(record) = self.known.get_mut(hub) else { return false };
        record.renames = 0;
        // It was changed while the hello was under way.
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty() && *name != called) {
            record.rename(hub, name, out);
        }
        self.listening = announced(hub, &url, self.listening.take(), out);
        if matches!(record.line, Line::Down { .. }) && record.url.is_some() {
            out.announce(Event::HubBack { hub: url.clone() });
        }
        record.line = Line::Up { me };
        record.url = Some(url);
        record.place = Some(place);
        for farewell in std::mem::take(&mut record.farewells).into_values() {
            out.send(hub, farewell);
        }
        true
    }

    /// A hub has another address; false if it is none of ours, or not connected.
    pub(super) fn moved(&mut self, hub: &HubRef, url: &HubUrl, out: &mut Outbox) -> bool {
        let Some(record) = self.known.get_mut(hub) else { return false };
        if !matches!(record.line, Line::Up { .. }) {
            return false;
        }
        record.url = Some(url.clone());
        self.listening = announced(hub, url, self.listening.take(), out);
        true
    }

    /// A hub was lost or could not be reached; false if it is none of ours.
    pub(super) fn down(&mut self, hub: &HubRef, reason: &str, out: &mut Outbox) -> bool {
        let Some(record) = self.known.get_mut(hub) else { return false };
        if let (Line::Up { .. }, Some(url)) = (&record.line, &record.url) {
            out.announce(Event::HubLost { hub: url.clone(), reason: reason.to_owned() });
        }
        record.line = Line::Down { reason: reason.to_owned() };
        true
    }

    /// The person wants to be called otherwise: tells every hub that is up; the others hear it in
    /// the next hello.
    pub(super) fn rename(&mut self, name: String, out: &mut Outbox) {
        out.push(Effect::SetName(name.clone()));
        for (hub, record) in &mut self.known {
            if matches!(record.line, Line::Up { .. }) {
                record.rename(hub, &name, out);
            }
        }
        self.name = Some(name);
    }

    /// A hub has taken our new name.
    pub(super) fn renamed(&mut self, hub: &HubRef) {
        if let Some(record) = self.known.get_mut(hub) {
            record.renames = record.renames.saturating_sub(1);
        }
    }

    /// Whether a hub's refusal of an unknown message answers a change of our name; takes it so.
    pub(super) fn refuses_rename(&mut self, hub: &HubRef) -> bool {
        let Some(record) = self.known.get_mut(hub) else { return false };
        let is_asked = record.renames > 0;
        record.renames = record.renames.saturating_sub(1);
        is_asked
    }

    /// So many others meet at a hub of our own now.
    pub(super) fn set_guests(&mut self, hub: &HubRef, count: usize) {
        if let Some(record) = self.known.get_mut(hub) {
            record.guests = count;
        }
    }

    /// Says goodbye to a session, now or when the hub is back.
    pub(super) fn part(
        &mut self,
        hub: &HubRef,
        (session, goodbye): (&SessionId, ClientMessage),
        out: &mut Outbox,
    ) {
        let Some(record) = self.known.get_mut(hub) else { return };
        match record.line {
            Line::Up { .. } => out.send(hub, goodbye),
            Line::Connecting | Line::Down { .. } => {
                record.farewells.insert(session.clone(), goodbye);
            }
        }
    }

    /// Leaves hubs that nobody used for a while, neither we nor others whom they are ours for.
    pub(super) fn settle(&mut self, used: &BTreeSet<HubRef>, now: MediaTime, out: &mut Outbox) {
        self.known.retain(|name, hub| {
            if used.contains(name) || hub.guests > 0 {
                hub.unused_since = None;
                return true;
            }
            let stays = now < *hub.unused_since.get_or_insert(now) + LINGER;
            if !stays {
                out.push(Effect::DisconnectHub(name.clone()));
            }
            stays
        });
    }

    /// When a hub is to be left.
    pub(super) fn due(&self) -> Option<MediaTime> {
        self.known.values().filter_map(|hub| hub.unused_since).min().map(|since| since + LINGER)
    }

    pub(super) fn is_up(&self, hub: &HubRef) -> bool {
        matches!(self.line(hub), Some(Line::Up { .. }))
    }

    /// How the connection to a hub is, if it is in use.
    pub(super) fn line(&self, hub: &HubRef) -> Option<&Line> {
        self.known.get(hub).map(|record| &record.line)
    }

    /// The address that others reach a hub by, once known; from a link it is known at once.
    pub(super) fn url(&self, hub: &HubRef) -> Option<HubUrl> {
        let heard = self.known.get(hub).and_then(|record| record.url.clone());
        heard.or_else(|| match hub {
            HubRef::Default => None,
            HubRef::At(url) => Some(url.clone()),
        })
    }

    /// Where a hub was reached last, and whose it is there.
    pub(super) fn place(&self, hub: &HubRef) -> Option<&HubPlace> {
        self.known.get(hub)?.place.as_ref()
    }

    /// The hub of an address: one that is in use and surely has it, or a new one.
    pub(super) fn at(&self, url: HubUrl) -> HubRef {
        let known = self.known.iter().find(|(_, hub)| hub.is_at(&url));
        known.map_or(HubRef::At(url), |(name, _)| name.clone())
    }

    /// Whether two of the hubs in use are surely one.
    pub(super) fn are_one(&self, one: &HubRef, other: &HubRef) -> bool {
        let hub = |name: &HubRef| self.known.get(name);
        let (Some(one), Some(other)) = (hub(one), hub(other)) else { return false };
        let is_one = |one: &Hub, other: &Hub| one.addresses().any(|url| other.is_at(url));
        is_one(one, other) || is_one(other, one)
    }

    /// The hubs in use, up or not.
    pub(super) fn in_use(&self) -> impl Iterator<Item = &HubRef> {
        self.known.keys()
    }

    /// How the hubs are, the default one first.
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

/// The default hub's address as it was announced last; announces it if it is another one.
fn announced(
    hub: &HubRef,
    url: &HubUrl,
    before: Option<HubUrl>,
    out: &mut Outbox,
) -> Option<HubUrl> {
    if *hub != HubRef::Default || before.as_ref() == Some(url) {
        return before;
    }
    out.announce(Event::Listening { hub: url.clone() });
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

    /// The addresses that are surely its own: the one that we reached it at, and the one that it
    /// says itself if it is this user's. Any other hub may call itself by the address of a third.
    fn addresses(&self) -> impl Iterator<Item = &HubUrl> {
        let said = |place: &&HubPlace| place.owner == HubOwner::ThisUser;
        let said = self.place.as_ref().filter(said).and(self.url.as_ref());
        self.place.as_ref().map(|place| &place.url).into_iter().chain(said)
    }

    fn is_at(&self, url: &HubUrl) -> bool {
        self.addresses().any(|own| own == url)
    }

    fn rename(&mut self, hub: &HubRef, name: &str, out: &mut Outbox) {
        self.renames += 1;
        out.send(hub, ClientMessage::Rename { name: name.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HubEvent, Input, stage::*};
    use super::*;
    use crate::model::{Command, JoinTarget, LeaveReason, OpenRequest};

    #[test]
    fn a_hub_is_connected_to_by_the_first_session_and_left_a_while_after_the_last() {
        let mut stage = Stage::new();
        stage.open(MESH);
        assert_eq!(stage.done, [Effect::ConnectHub(HubRef::Default)]);
        stage.up(&HubRef::Default).hear(opened(MESH, vec![])).leave();
        assert!(!stage.done.contains(&Effect::DisconnectHub(HubRef::Default)));
        stage.pass_ms(4999);
        assert_eq!(stage.done, []);
        stage.pass_ms(1);
        assert_eq!(stage.done, [Effect::DisconnectHub(HubRef::Default)]);
        assert_eq!(stage.core.poll_timeout(), None);
    }

    #[test]
    fn a_session_that_comes_in_time_keeps_the_hub() {
        let mut stage = Stage::opened(MESH);
        stage.leave().pass_ms(4000).open(MESH);
        assert_eq!(stage.sent().len(), 1, "asked at once: {:?}", stage.done);
        stage.pass_ms(60_000);
        assert_eq!(stage.done, []);
    }

    #[test]
    fn a_hub_of_our_own_stays_as_long_as_others_meet_there() {
        let mut stage = Stage::opened(MESH);
        let guests = |count| Input::Hub(HubRef::Default, HubEvent::Guests { count });
        stage.give(guests(2)).leave().pass_ms(60_000);
        assert!(!stage.done.contains(&Effect::DisconnectHub(HubRef::Default)));
        assert_eq!(stage.core.snapshot().hubs[0].guests, 2);
        stage.give(guests(0)).pass_ms(4999);
        assert_eq!(stage.done, []);
        stage.pass_ms(1);
        assert_eq!(stage.done, [Effect::DisconnectHub(HubRef::Default)]);
    }

    #[test]
    fn a_goodbye_waits_for_a_hub_that_is_down() {
        let mut stage = Stage::opened(MESH);
        stage.down(&HubRef::Default).leave();
        assert_eq!(stage.sent(), []);
        stage.pass_ms(2000).up(&HubRef::Default);
        let goodbye = ClientMessage::Leave { session: session() };
        assert_eq!(stage.sent(), [(&HubRef::Default, &goodbye)]);
    }

    #[test]
    fn the_default_hub_is_announced_once_for_each_address() {
        let mut stage = Stage::new();
        stage.open(MESH).up(&HubRef::Default);
        let hub = url("10.0.0.1:7340");
        assert!(stage.events().contains(&&Event::Listening { hub }));
        stage.down(&HubRef::Default).up(&HubRef::Default);
        let is_announced = |event: &&&Event| matches!(event, Event::Listening { .. });
        assert_eq!(stage.events().iter().filter(is_announced).count(), 0);
    }

    #[test]
    fn a_hub_that_is_lost_and_one_that_is_back_are_told_once() {
        let mut stage = Stage::opened(MESH);
        stage.down(&HubRef::Default);
        assert!(matches!(stage.events()[..], [Event::HubLost { .. }]));
        stage.down(&HubRef::Default);
        assert_eq!(stage.events(), Vec::<&Event>::new());
        stage.up(&HubRef::Default);
        assert!(matches!(stage.events()[..], [Event::HubBack { .. }]));
    }

    #[test]
    fn a_hub_that_is_not_in_use_is_not_listened_to() {
        let mut stage = Stage::new();
        stage.up(&HubRef::Default).hear(left("a", LeaveReason::Left)).down(&HubRef::Default);
        assert_eq!(stage.done, []);
        assert!(stage.core.snapshot().hubs.is_empty());
    }

    #[test]
    fn hubs_are_shown_with_the_default_one_first_and_why_they_are_away() {
        let mut stage = Stage::new();
        stage.join(Some("hub.example:80"), true).down(&HubRef::At(url("hub.example:80")));
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        stage.give(Input::Command(Command::Open(request)));
        let hubs = stage.core.snapshot().hubs;
        assert_eq!((hubs[0].url.as_ref(), &hubs[0].state), (None, &HubState::Connecting));
        assert_eq!(hubs[1].state, HubState::Unreachable { reason: "nobody answers".into() });
    }

    /// The default hub is up, and says that it is the one of `there`.
    fn claims(owner: HubOwner, there: &str) -> Stage {
        let mut stage = Stage::new();
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other, kind: MESH, limit: None };
        stage.give(Input::Command(Command::Open(request)));
        let place = HubPlace { url: url("127.0.0.1:7340"), owner };
        let (url, participant) = (url(there), id("m"));
        let up = HubEvent::Up { url, place, participant, name: "Me".into() };
        stage.give(Input::Hub(HubRef::Default, up));
        stage
    }

    #[test]
    fn a_link_leads_to_its_own_hub_though_another_says_that_it_is_that_one() {
        let there = HubRef::At(url("there.example:80"));
        for (owner, connects) in
            [(HubOwner::ThisUser, false), (HubOwner::Unproven, true), (HubOwner::Elsewhere, true)]
        {
            let mut stage = claims(owner, "there.example:80");
            stage.join(Some("there.example:80"), true);
            let connect = Effect::ConnectHub(there.clone());
            assert_eq!(stage.done.contains(&connect), connects, "{owner:?}");
            assert_eq!(stage.sent().is_empty(), connects, "{owner:?} is asked");
        }
    }

    #[test]
    fn a_hub_that_says_that_it_is_another_keeps_nobody_from_asking_that_one() {
        let there = HubRef::At(url("there.example:80"));
        let ask = ClientMessage::Join { session: session(), wait: true };
        for (owner, is_asked) in [(HubOwner::ThisUser, false), (HubOwner::Unproven, true)] {
            let mut stage = Stage::new();
            let beside = SessionId::parse("other").unwrap();
            let target = JoinTarget { session: beside, hub: Some(url("there.example:80")) };
            stage.give(Input::Command(Command::Join { target, wait: true })).join(None, true);
            let place = HubPlace { url: url("127.0.0.1:7340"), owner };
            let (claimed, participant) = (url("there.example:80"), id("m"));
            let up = HubEvent::Up { url: claimed, place, participant, name: "Me".into() };
            stage.give(Input::Hub(HubRef::Default, up)).up(&there);
            assert_eq!(stage.sent().contains(&(&there, &ask)), is_asked, "{owner:?}");
        }
    }
}
