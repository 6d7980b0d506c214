//! The rules of the rooms, one test each, in virtual time.

mod access;
mod anything;
mod budget;
mod entry;
mod exit;
mod keys;
mod limits;
mod presence;
mod words;

use std::time::Duration;

use super::*;
use crate::model::{Media, MediaSet, Member, Presence, RemovedMember, Role, SessionKind, Topology};

const MESH: SessionKind = SessionKind::FIVE[0];
const BROADCAST: SessionKind = SessionKind::FIVE[1];

/// A hub whose connections and participants are numbers, and whose outputs are text lines such as
/// `2: joined t guest [1#1 opener here]`.
struct Lines {
    rooms: Rooms,
    now: MediaTime,
}

impl Lines {
    fn new() -> Self {
        let mut keys = 0_u8;
        let secrets = move || {
            keys = keys.wrapping_add(1);
            Secret::from_random([keys; 16])
        };
        Self { rooms: Rooms::new(secrets), now: MediaTime::from_micros(1_000_000) }
    }

    /// A hub with the participants 1 to `count` on the connections 1 to `count`.
    fn with(count: u64) -> Self {
        let mut hub = Self::new();
        for number in 1..=count {
            hub.hello(number, number as u8);
        }
        hub
    }

    /// `hello` of a participant whose name and instance are those of its number.
    fn hello(&mut self, connection: u64, participant: u8) -> Vec<String> {
        self.hello_as(connection, participant, (&format!("P{participant}"), u64::from(participant)))
    }

    fn hello_as(
        &mut self,
        connection: u64,
        participant: u8,
        name_and_run: (&str, u64),
    ) -> Vec<String> {
        self.give(hello(connection, participant, name_and_run, None))
    }

    fn hello_from(
        &mut self,
        connection: u64,
        participant: u8,
        source: Option<SourceAddress>,
    ) -> Vec<String> {
        self.give(hello(
            connection,
            participant,
            (&format!("P{participant}"), u64::from(participant)),
            source,
        ))
    }

    fn say(&mut self, connection: u64, message: ClientMessage) -> Vec<String> {
        self.give(RoomsInput::Message { link: LinkId(connection), message })
    }

    fn close_link(&mut self, connection: u64) -> Vec<String> {
        self.give(RoomsInput::Closed { link: LinkId(connection) })
    }

    fn open(&mut self, connection: u64, id: &str, kind: SessionKind) -> Vec<String> {
        self.say(connection, open(id, kind, None, None))
    }

    fn join(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.say(connection, ClientMessage::Join { session: session(id), wait: false })
    }

    fn wait(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.say(connection, ClientMessage::Join { session: session(id), wait: true })
    }

    fn leave(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.say(connection, ClientMessage::Leave { session: session(id) })
    }

    /// Advances the time; every connection in `alive` sends a message once a second.
    fn pass(&mut self, ms: u64, alive: &[u64]) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut lines = vec![];
        let mut next_ping = self.now;
        while self.now < end {
            let timer = self.rooms.poll_timeout().unwrap_or(end);
            self.now = self.now.max(timer.min(next_ping).min(end));
            self.rooms.handle_timeout(self.now);
            lines.extend(self.drain());
            assert!(self.rooms.poll_timeout() > Some(self.now) || self.rooms.alarms.is_empty());
            if self.now >= next_ping {
                for connection in alive {
                    let sent = self.say(*connection, ClientMessage::Ping);
                    lines.extend(sent.into_iter().filter(|line| !line.ends_with("pong")));
                }
                next_ping = self.now + Duration::from_secs(1);
            }
        }
        lines
    }

    fn give(&mut self, input: RoomsInput) -> Vec<String> {
        self.rooms.handle(input, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.rooms.poll_output()).map(|output| line(&output)).collect()
    }
}

fn hello(
    connection: u64,
    participant: u8,
    (name, run): (&str, u64),
    source: Option<SourceAddress>,
) -> RoomsInput {
    RoomsInput::Hello {
        link: LinkId(connection),
        participant: person(participant),
        token: Secret::from_random([participant; 16]),
        name: name.to_owned(),
        instance: Instance::from_random(run),
        link_base: "http://192.168.1.5:7340".to_owned(),
        source,
        is_own: false,
    }
}

fn person(number: u8) -> ParticipantId {
    ParticipantId::from_digest([number; 10])
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

fn open(id: &str, kind: SessionKind, limit: Option<u16>, key: Option<u8>) -> ClientMessage {
    let owner_key = key.map(|key| Secret::from_random([key; 16]));
    ClientMessage::Open { session: session(id), kind, limit, owner_key }
}

fn of(topology: Topology) -> SessionKind {
    SessionKind { media: MediaSet::AUDIO.with(Media::Data), topology }
}

fn line(output: &RoomsOutput) -> String {
    match output {
        RoomsOutput::Disconnect { link: connection, why: reason } => match reason {
            Dismissal::Told => format!("{}: disconnect", connection.0),
            Dismissal::Silent => format!("{}: disconnect as silent", connection.0),
            Dismissal::Misbehaving => format!("{}: disconnect as misbehaving", connection.0),
        },
        RoomsOutput::Send { link: connection, message } => {
            format!("{}: {}", connection.0, said(message))
        }
    }
}

fn said(message: &HubMessage) -> String {
    match message {
        HubMessage::Welcome { participant, name, .. } => {
            format!("welcome {} {name}", number(participant))
        }
        HubMessage::Opened { session, limit, owner_key, participants, .. } => {
            format!("opened {session} limit {limit} {} {}", key(owner_key), roster(participants))
        }
        HubMessage::Joined { session, role, participants, .. } => {
            format!("joined {session} {} {}", part(*role), roster(participants))
        }
        HubMessage::Waiting { session } => format!("waiting {session}"),
        HubMessage::ParticipantJoined { session, participant } => {
            format!("in {session} {}", member(participant))
        }
        HubMessage::ParticipantLeft { session, participant, reason } => {
            format!("out {session} {} {reason:?}", number(participant))
        }
        HubMessage::ParticipantPresence { session, participant, presence } => {
            format!("{session} {} {}", number(participant), how(*presence))
        }
        HubMessage::Renamed { name } => format!("renamed {name}"),
        HubMessage::ParticipantRenamed { session, participant, name } => {
            format!("{session} {} is {name}", number(participant))
        }
        HubMessage::Owner { session, participant, owner_key } => {
            let key = owner_key.as_ref().map_or("no key".to_owned(), key);
            format!("owner {session} {} {key}", number(participant))
        }
        HubMessage::Access { session, locked, removed } => {
            let state = if *locked { "locked" } else { "open" };
            let one = |one: &RemovedMember| format!("{} {}", number(&one.participant), one.rest_ms);
            let removed: Vec<_> = removed.iter().map(one).collect();
            format!("access {session} {state} [{}]", removed.join(", "))
        }
        HubMessage::Closed { session, reason } => format!("closed {session} {reason:?}"),
        HubMessage::Signal { session, from, .. } => format!("signal {session} {}", number(from)),
        HubMessage::Error { code, session, .. } => match session {
            Some(session) => format!("{} {session}", code.name()),
            None => code.name().to_owned(),
        },
        HubMessage::LinkBase { link_base } => format!("link base {link_base}"),
        HubMessage::Pong => "pong".to_owned(),
    }
}

fn roster(members: &[Member]) -> String {
    format!("[{}]", members.iter().map(member).collect::<Vec<_>>().join(", "))
}

fn member(member: &Member) -> String {
    let run = member.instance.as_str().trim_start_matches('0');
    format!("{}#{run} {} {}", number(&member.participant), part(member.role), how(member.presence))
}

fn part(role: Role) -> &'static str {
    match role {
        Role::Opener => "opener",
        Role::Guest => "guest",
    }
}

fn how(presence: Presence) -> String {
    match presence {
        Presence::Here => "here".to_owned(),
        Presence::Away { silent_ms } => format!("away {silent_ms}"),
    }
}

fn number(id: &ParticipantId) -> u8 {
    (0..=u8::MAX).find(|number| person(*number) == *id).unwrap()
}

fn key(secret: &Secret) -> String {
    let number = u8::from_str_radix(&secret.expose()[..2], 16).unwrap();
    format!("key {number}")
}
