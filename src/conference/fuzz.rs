//! What hubs that mean harm may say to the core, in whatever order, made up by a fuzzer
//! (`tests/fuzz`).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Conference, Effect, HubEvent, HubRef, Input};
use crate::model::{
    Command, DescriptionKind, HubMessage, HubOwner, HubPlace, HubUrl, JoinTarget, MediaSet,
    MediaTime, OpenRequest, ParticipantId, PeerCommand, PeerEvent, PeerId, PeerState, SessionId,
    SessionKind, Topology,
};

/// The lines of a text that are looked at, and the deadlines that may come between two of them.
const MOST: usize = 256;

/// Two hubs and three sessions: one of our own at the first hub, one that we joined at each. Each line
/// is something that happens: its first character tells at which hub, how many seconds later and what,
/// the rest is what the hub says.
///
/// Whatever comes, nothing panics, deadlines are met by what is due, a connection is opened once and
/// closed once, and when everything was left none is open and nothing is wanted of the devices.
pub fn hub_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut stage = Stage::begin();
    for line in text.lines().take(MOST) {
        let Some(first) = line.chars().next() else { continue };
        let (code, said) = (u32::from(first), &line[first.len_utf8()..]);
        stage.pass(Duration::from_secs(u64::from(code / 2 % 8)));
        stage.happen(code, said);
    }
    stage.end();
}

/// A core, and what it wants of others.
struct Stage {
    core: Conference,
    now: MediaTime,
    /// The connections that are open.
    open: BTreeSet<PeerId>,
    /// All that ever were.
    opened: BTreeSet<PeerId>,
    /// What connections tell next.
    told: Vec<(PeerId, PeerEvent)>,
    /// Messages to each hub.
    sent: BTreeMap<HubRef, usize>,
    /// Whether anything is wanted of the devices.
    demands: bool,
}

impl Stage {
    fn begin() -> Self {
        let mut stage = Self {
            core: Conference::new(),
            now: MediaTime::from_micros(1_000_000),
            open: BTreeSet::new(),
            opened: BTreeSet::new(),
            told: vec![],
            sent: BTreeMap::new(),
            demands: false,
        };
        let media = MediaSet::AUDIO_VIDEO.with(crate::model::Media::Data);
        let kind = SessionKind { media, topology: Topology::ManyToMany };
        stage.open_own(kind);
        stage.join("b", None);
        stage.join("c", Some(url()));
        for hub in [HubRef::Default, HubRef::At(url())] {
            stage.up(hub);
        }
        stage
    }

    fn open_own(&mut self, kind: SessionKind) {
        let request = OpenRequest { session: id("a"), kind, limit: None };
        self.give(Input::Command(Command::Open(request)));
    }

    fn join(&mut self, session: &str, hub: Option<HubUrl>) {
        let target = JoinTarget { session: id(session), hub };
        self.give(Input::Command(Command::Join { target, wait: true }));
    }

    fn up(&mut self, hub: HubRef) {
        let (url, owner) = match &hub {
            HubRef::Default => (own_url(), HubOwner::ThisUser),
            HubRef::At(url) => (url.clone(), HubOwner::Elsewhere),
        };
        let place = HubPlace { url: url.clone(), owner };
        let (participant, name) = (ParticipantId::from_digest([7; 10]), "Me".to_owned());
        self.give(Input::Hub(hub, HubEvent::Up { url, place, participant, name }));
    }

    /// Lets time pass, with all that falls due meanwhile.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..MOST {
            let Some(due) = self.core.poll_timeout().filter(|due| *due <= until) else { break };
            self.now = self.now.max(due);
            self.core.handle_timeout(self.now);
            self.settle();
            let next = self.core.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "what was due is due still: {next:?}");
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, code: u32, said: &str) {
        let hub = if code.is_multiple_of(2) { HubRef::Default } else { HubRef::At(url()) };
        let newest = self.open.last().copied();
        match (code / 16 % 8, newest) {
            (0, _) => self.give(Input::Hub(hub, HubEvent::Down { reason: said.to_owned() })),
            (1, _) => self.up(hub),
            (2, Some(peer)) => {
                let states = [
                    PeerState::Connecting,
                    PeerState::Connected,
                    PeerState::Disconnected,
                    PeerState::Failed,
                ];
                let state = states[said.len() % states.len()];
                self.give(Input::Peer(peer, PeerEvent::State(state)));
            }
            (3, _) => {
                for session in ["b", "c"] {
                    self.join(session, Some(url()));
                }
            }
            (2 | 4.., _) => {
                if let Ok(message) = serde_json::from_str::<HubMessage>(said) {
                    self.give(Input::Hub(hub, HubEvent::Message(message)));
                }
            }
        }
    }

    fn give(&mut self, input: Input) {
        self.core.handle(input, self.now);
        self.settle();
    }

    /// Does what the core wants; connections do what they are told at once.
    fn settle(&mut self) {
        for _ in 0..MOST {
            while let Some(effect) = self.core.poll_effect() {
                self.perform(effect);
            }
            if self.told.is_empty() {
                break;
            }
            for (peer, event) in std::mem::take(&mut self.told) {
                self.core.handle(Input::Peer(peer, event), self.now);
            }
        }
        let snapshot = self.core.snapshot();
        for participant in snapshot.sessions.iter().flat_map(|session| &session.participants) {
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
                self.told.extend(outcome(command).map(|event| (peer, event)));
            }
            Effect::Send { hub, message } => {
                serde_json::to_string(&message).expect("what is said is JSON");
                *self.sent.entry(hub).or_default() += 1;
            }
            Effect::Demand { camera, microphone, speaker } => {
                self.demands = camera || microphone || speaker;
            }
            Effect::SetSending { peer, .. }
            | Effect::SetHeard { peer, .. }
            | Effect::ExpectPictures { peer, .. } => {
                assert!(self.open.contains(&peer), "{peer} is open");
            }
            Effect::ConnectHub(_)
            | Effect::DisconnectHub(_)
            | Effect::SetName(_)
            | Effect::Announce(_) => {}
        }
    }

    fn end(mut self) {
        self.give(Input::Command(Command::LeaveAll));
        self.pass(Duration::from_secs(3600));
        assert!(self.open.is_empty(), "open after all was left: {:?}", self.open);
        assert!(!self.demands, "devices are wanted for nobody");
        assert_eq!(self.core.poll_timeout(), None, "nothing is due for ever");
    }
}

/// What a connection tells that does as it is told.
fn outcome(command: PeerCommand) -> Option<PeerEvent> {
    let sdp = || "v=0\r\n".to_owned();
    match command {
        PeerCommand::MakeOffer { step, .. } => {
            Some(PeerEvent::Description { step, kind: DescriptionKind::Offer, sdp: sdp() })
        }
        PeerCommand::AcceptOffer { step, sdp: offer } if offer.is_empty() => {
            Some(PeerEvent::Refused { step, reason: offer })
        }
        PeerCommand::AcceptOffer { step, .. } => {
            Some(PeerEvent::Description { step, kind: DescriptionKind::Answer, sdp: sdp() })
        }
        PeerCommand::AcceptAnswer { step, .. } | PeerCommand::Rollback { step } => {
            Some(PeerEvent::Done { step })
        }
        PeerCommand::AddCandidate(_) | PeerCommand::Write(_) => None,
    }
}

fn id(text: &str) -> SessionId {
    SessionId::parse(text).expect("an id")
}

fn url() -> HubUrl {
    "http://192.0.2.1:7340".parse().expect("an address")
}

fn own_url() -> HubUrl {
    "http://127.0.0.1:7340".parse().expect("an address")
}
