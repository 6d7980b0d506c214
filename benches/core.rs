//! Measures what one more participant costs the core, by how many are present: `cargo bench --bench
//! core`. A participant joins, a connection to it is opened, and it leaves; the snapshot is read
//! after each input, as the engine does.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use quintet::{
    conference::{Conference, HubEvent, HubNews, HubRef, Input},
    model::{
        Command, HubEndpoint, HubMessage, HubOwner, Instance, LeaveReason, MediaTime, Member,
        OpenRequest, ParticipantId, PeerEvent, PeerId, PeerState, Presence, Role, Secret,
        SessionId, SessionKind,
    },
};

/// How many participants a session of this kind has at most, with its opener.
const MAX_MEMBERS: usize = 256;

/// How many participants join and leave in one measurement.
const ROUNDS: u32 = 200;

/// The measurements, of which the median is printed.
const SAMPLES: usize = 9;

fn main() {
    println!("present  join, connect and leave");
    for present in [16, 64, 256, 1024] {
        let mut samples: Vec<_> = (0..SAMPLES).map(|_| Core::with(present).measure()).collect();
        samples.sort();
        println!("{present:>7}  {:.1?}", samples[SAMPLES / 2]);
    }
}

/// A core with broadcasts of our own.
struct Core {
    core: Conference,
    now: MediaTime,
    last_peer: u64,
    sessions: Vec<SessionId>,
}

impl Core {
    /// A core with that many connected viewers, in as many sessions as they need.
    fn with(present: usize) -> Self {
        let now = MediaTime::from_micros(1_000_000);
        let mut core = Self { core: Conference::new(), now, last_peer: 0, sessions: vec![] };
        // One seat of each session is ours, and one is for the viewer that is measured.
        for (number, first) in (0..present).step_by(MAX_MEMBERS - 2).enumerate() {
            core.open(number);
            for index in first..present.min(first + MAX_MEMBERS - 2) {
                core.join(number, &format!("viewer{index:08}"));
            }
        }
        core
    }

    /// The time for one participant that joins, is connected and leaves.
    fn measure(mut self) -> Duration {
        let start = Instant::now();
        for round in 0..ROUNDS {
            let name = format!("measured{round:08}");
            self.join(0, &name);
            let (session, participant) = (self.sessions[0].clone(), id(&name));
            let reason = LeaveReason::Left;
            self.receive(HubMessage::ParticipantLeft { session, participant, reason });
        }
        start.elapsed() / ROUNDS
    }

    fn open(&mut self, number: usize) {
        let session = SessionId::parse(&format!("session{number}")).expect("a valid id");
        let kind: SessionKind = "audio+video/one-way".parse().expect("a kind");
        let request = OpenRequest { session: session.clone(), kind, limit: None };
        self.handle(Input::Command(Command::Open(request)));
        if number == 0 {
            let url: quintet::model::HubUrl = "http://127.0.0.1:7340".parse().expect("an address");
            let endpoint = HubEndpoint { url: url.clone(), owner: HubOwner::ThisUser };
            let (participant, name) = (id("m"), "Me".to_owned());
            let instance = Instance::from_random(2);
            let up = HubEvent::Up { url, endpoint, participant, name, instance };
            self.handle(Input::Hub(HubRef::Default, up));
        }
        self.receive(HubMessage::Opened {
            session: session.clone(),
            kind,
            limit: MAX_MEMBERS as u16,
            owner_key: Secret::from_random([0; 16]),
            participants: vec![],
        });
        self.sessions.push(session);
    }

    fn join(&mut self, session: usize, name: &str) {
        let member = Member {
            participant: id(name),
            name: name.to_owned(),
            role: Role::Guest,
            instance: Instance::from_random(1),
            presence: Presence::Here,
        };
        let session = self.sessions[session].clone();
        self.receive(HubMessage::ParticipantJoined { session, participant: member });
        self.last_peer += 1;
        let connected = PeerEvent::State(PeerState::Connected);
        self.handle(Input::Peer(PeerId(self.last_peer), connected));
    }

    fn receive(&mut self, message: HubMessage) {
        let news = HubNews::of(message).expect("a message for the core");
        self.handle(Input::Hub(HubRef::Default, HubEvent::News(news)));
    }

    fn handle(&mut self, input: Input) {
        self.now = self.now + Duration::from_micros(100);
        self.core.handle(input, self.now);
        while let Some(effect) = self.core.poll_effect() {
            black_box(effect);
        }
        black_box(self.core.snapshot());
        black_box(self.core.poll_timeout().map(|next| next.at));
    }
}

fn id(text: &str) -> ParticipantId {
    serde_json::from_value(text.into()).expect("any text is an id")
}
