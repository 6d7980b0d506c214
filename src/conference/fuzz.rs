//! A fuzz target for the core: inputs from malicious hubs in any order (`tests/fuzz`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Conference, Effect, HubEvent, HubNews, HubRef, Input};
use crate::model::{
    Command, DescriptionKind, HubEndpoint, HubMessage, HubOwner, HubUrl, Instance, JoinTarget,
    MediaSet, MediaTime, OpenRequest, ParticipantId, PeerCommand, PeerEvent, PeerId, PeerState,
    SessionId, SessionKind, Topology,
};

/// The most lines of an input that are used, and the most deadlines between two of them.
const MAX_LINES: usize = 256;

/// Runs two hubs and three sessions: one that we own at the first hub, and one that we joined at
/// each. Each line of the input is one event: its first character selects the hub, the seconds that
/// pass before, and the kind of event; the remainder is what the hub sends.
///
/// It asserts that nothing panics, that deadlines pass once they are handled, that each connection
/// is opened once and closed once, and that after all sessions were left no connection is open and
/// no device is needed.
pub fn hub_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut harness = Harness::new();
    for line in text.lines().take(MAX_LINES) {
        let Some(first) = line.chars().next() else { continue };
        let (code, text) = (u32::from(first), &line[first.len_utf8()..]);
        harness.advance(Duration::from_secs(u64::from(code / 2 % 8)));
        harness.run_line(code, text);
    }
    harness.end();
}

/// A core, and what its effects have done so far.
struct Harness {
    core: Conference,
    now: MediaTime,
    /// The peer connections that are open.
    open: BTreeSet<PeerId>,
    /// All peer connections that were ever opened.
    opened: BTreeSet<PeerId>,
    /// The events that peer connections send next.
    peer_events: Vec<(PeerId, PeerEvent)>,
    /// The number of messages to each hub.
    sent: BTreeMap<HubRef, usize>,
    /// Whether any device is needed.
    demands: bool,
}

impl Harness {
    fn new() -> Self {
        let mut harness = Self {
            core: Conference::new(),
            now: MediaTime::from_micros(1_000_000),
            open: BTreeSet::new(),
            opened: BTreeSet::new(),
            peer_events: vec![],
            sent: BTreeMap::new(),
            demands: false,
        };
        let media = MediaSet::AUDIO_VIDEO.with(crate::model::Media::Data);
        let kind = SessionKind { media, topology: Topology::ManyToMany };
        harness.open_own(kind);
        harness.join("b", None);
        harness.join("c", Some(url()));
        for hub in [HubRef::Default, HubRef::At(url())] {
            harness.up(hub);
        }
        harness
    }

    fn open_own(&mut self, kind: SessionKind) {
        let request = OpenRequest { session: id("a"), kind, limit: None };
        self.handle(Input::Command(Command::Open(request)));
    }

    fn join(&mut self, session: &str, hub: Option<HubUrl>) {
        let target = JoinTarget { session: id(session), hub };
        self.handle(Input::Command(Command::Join { target, wait: true }));
    }

    fn up(&mut self, hub: HubRef) {
        let (url, owner) = match &hub {
            HubRef::Default => (own_url(), HubOwner::ThisUser),
            HubRef::At(url) => (url.clone(), HubOwner::Elsewhere),
        };
        let endpoint = HubEndpoint { url: url.clone(), owner };
        let (participant, name) = (ParticipantId::from_digest([7; 10]), "Me".to_owned());
        let instance = Instance::from_random(7);
        self.handle(Input::Hub(hub, HubEvent::Up { url, endpoint, participant, instance, name }));
    }

    /// Lets time pass, and handles each deadline.
    fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..MAX_LINES {
            let Some(due) =
                self.core.poll_timeout().map(|next| next.at).filter(|due| *due <= until)
            else {
                break;
            };
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            self.settle();
            let next = self.core.poll_timeout();
            assert!(
                next.is_none_or(|next| next.at > self.now),
                "a handled deadline is still due: {next:?}"
            );
        }
        self.now = self.now.max(until);
    }

    fn run_line(&mut self, code: u32, text: &str) {
        let hub = if code.is_multiple_of(2) { HubRef::Default } else { HubRef::At(url()) };
        let newest = self.open.last().copied();
        match (code / 16 % 8, newest) {
            (0, _) => self.handle(Input::Hub(hub, HubEvent::Down { reason: text.to_owned() })),
            (1, _) => self.up(hub),
            (2, Some(peer)) => {
                let states = [
                    PeerState::Connecting,
                    PeerState::Connected,
                    PeerState::Disconnected,
                    PeerState::Failed,
                ];
                let state = states[text.len() % states.len()];
                self.handle(Input::Peer(peer, PeerEvent::State(state)));
            }
            (3, _) => {
                for session in ["b", "c"] {
                    self.join(session, Some(url()));
                }
            }
            (2 | 4.., _) => {
                let message = serde_json::from_str::<HubMessage>(text).ok();
                if let Some(news) = message.and_then(HubNews::of) {
                    self.handle(Input::Hub(hub, HubEvent::News(news)));
                }
            }
        }
    }

    fn handle(&mut self, input: Input) {
        self.core.handle(input, self.now);
        self.settle();
    }

    /// Performs the effects; peer connections carry out commands at once.
    fn settle(&mut self) {
        for _ in 0..MAX_LINES {
            while let Some(effect) = self.core.poll_effect() {
                self.perform(effect);
            }
            if self.peer_events.is_empty() {
                break;
            }
            for (peer, event) in std::mem::take(&mut self.peer_events) {
                self.core.handle(Input::Peer(peer, event), self.now);
            }
        }
        let snapshot = self.core.snapshot();
        for participant in snapshot.sessions.iter().flat_map(|session| session.participants.iter())
        {
            assert!(participant.peer.is_none_or(|peer| self.open.contains(&peer)));
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::OpenPeer { peer, .. } => {
                assert!(self.opened.insert(peer), "{peer} is opened once");
                self.open.insert(peer);
            }
            Effect::ClosePeer(peer) => assert!(self.open.remove(&peer), "{peer} is closed once"),
            Effect::Peer { peer, command } => {
                assert!(self.open.contains(&peer), "{peer} is open: {command:?}");
                self.peer_events.extend(outcome(command).map(|event| (peer, event)));
            }
            Effect::Send { hub, message } => {
                serde_json::to_string(&message).expect("a message is valid JSON");
                *self.sent.entry(hub).or_default() += 1;
            }
            Effect::Demand(needed) => {
                self.demands = needed.sources.any() || needed.speaker;
            }
            Effect::SetSending { peer, .. }
            | Effect::SetPlayback { peer, .. }
            | Effect::SetRemoteTracks { peer, .. }
            | Effect::ExpectVideo { peer, .. }
            | Effect::LimitVideo { peer, .. } => {
                assert!(self.open.contains(&peer), "{peer} is open");
            }
            Effect::ConnectHub(_)
            | Effect::DisconnectHub(_)
            | Effect::SetName(_)
            | Effect::SetVoiceProcessing(_)
            | Effect::StartSoundCheck(_)
            | Effect::SetPriority { .. }
            | Effect::Announce(_) => {}
        }
    }

    fn end(mut self) {
        self.handle(Input::Command(Command::LeaveAll));
        self.advance(Duration::from_secs(3600));
        assert!(self.open.is_empty(), "open after all sessions were left: {:?}", self.open);
        assert!(!self.demands, "devices are needed without a session");
        assert_eq!(self.core.poll_timeout(), None, "no deadline remains");
    }
}

/// The event with which a well-behaved connection answers a command.
fn outcome(command: PeerCommand) -> Option<PeerEvent> {
    let sdp = || "v=0\r\n".to_owned();
    match command {
        PeerCommand::MakeOffer { operation, .. } => Some(PeerEvent::LocalDescription {
            operation,
            kind: DescriptionKind::Offer,
            sdp: sdp(),
        }),
        PeerCommand::AcceptOffer { operation, sdp: offer } if offer.is_empty() => {
            Some(PeerEvent::Failed { operation, reason: offer })
        }
        PeerCommand::AcceptOffer { operation, .. } => Some(PeerEvent::LocalDescription {
            operation,
            kind: DescriptionKind::Answer,
            sdp: sdp(),
        }),
        PeerCommand::AcceptAnswer { operation, .. } | PeerCommand::Rollback { operation } => {
            Some(PeerEvent::Applied { operation })
        }
        PeerCommand::AddCandidate(_) | PeerCommand::SendChannelMessage(_) => None,
    }
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("a valid id")
}

fn url() -> HubUrl {
    "http://192.0.2.1:7340".parse().expect("an address")
}

fn own_url() -> HubUrl {
    "http://127.0.0.1:7340".parse().expect("an address")
}
