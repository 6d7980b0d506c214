//! The rules of the rooms, one test each, in virtual time.

mod about;
mod access;
mod leave_close;
mod limits;
mod open_join;
mod owner_keys;
mod presence;
mod properties;
mod relay;
mod signal_budget;

use std::time::Duration;

use super::*;
use crate::model::{Media, MediaSet, Member, Presence, RemovedMember, Role, SessionKind, Topology};

const MESH: SessionKind = SessionKind::FIVE[0];
const BROADCAST: SessionKind = SessionKind::FIVE[1];

/// A hub whose connections and participants are numbers, and whose outputs are text lines such as
/// `2: joined t guest [1#1 opener here]`.
struct Fixture {
    rooms: Rooms,
    now: MediaTime,
}

impl Fixture {
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
        self.handle(hello(connection, participant, name_and_run, None))
    }

    fn hello_from(
        &mut self,
        connection: u64,
        participant: u8,
        source: Option<SourceAddress>,
    ) -> Vec<String> {
        self.handle(hello(
            connection,
            participant,
            (&format!("P{participant}"), u64::from(participant)),
            source,
        ))
    }

    fn send(&mut self, connection: u64, message: ClientMessage) -> Vec<String> {
        self.handle(RoomsInput::Message { connection: ConnectionId(connection), message })
    }

    fn close_connection(&mut self, connection: u64) -> Vec<String> {
        self.handle(RoomsInput::Closed { connection: ConnectionId(connection) })
    }

    fn open(&mut self, connection: u64, id: &str, kind: SessionKind) -> Vec<String> {
        self.send(connection, open(id, kind, None, None))
    }

    fn join(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.send(connection, ClientMessage::Join { session: session(id), wait: false })
    }

    fn wait(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.send(connection, ClientMessage::Join { session: session(id), wait: true })
    }

    fn leave(&mut self, connection: u64, id: &str) -> Vec<String> {
        self.send(connection, ClientMessage::Leave { session: session(id) })
    }

    /// Advances the time; every connection in `alive` sends a message once a second.
    fn advance(&mut self, ms: u64, alive: &[u64]) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut lines = vec![];
        let mut next_ping = self.now;
        while self.now < end {
            let timer = self.rooms.poll_timeout().map_or(end, |(at, _)| at);
            self.now = self.now.max(timer.min(next_ping).min(end));
            self.rooms.handle_timeout(self.now);
            lines.extend(self.drain_outputs());
            let next = self.rooms.poll_timeout();
            assert!(next.is_none_or(|(at, _)| at > self.now), "still due: {next:?}");
            if self.now >= next_ping {
                for connection in alive {
                    let sent = self.send(*connection, ClientMessage::Ping);
                    lines.extend(sent.into_iter().filter(|line| !line.ends_with("pong")));
                }
                next_ping = self.now + Duration::from_secs(1);
            }
        }
        lines
    }

    fn handle(&mut self, input: RoomsInput) -> Vec<String> {
        self.rooms.handle(input, self.now);
        self.drain_outputs()
    }

    fn drain_outputs(&mut self) -> Vec<String> {
        let outputs = std::iter::from_fn(|| self.rooms.poll_output());
        outputs.flat_map(|output| output_lines(&output)).collect()
    }
}

fn hello(
    connection: u64,
    participant: u8,
    (name, run): (&str, u64),
    source: Option<SourceAddress>,
) -> RoomsInput {
    RoomsInput::Hello {
        connection: ConnectionId(connection),
        participant: participant_id(participant),
        token: Secret::from_random([participant; 16]),
        name: name.to_owned(),
        instance: Instance::from_random(run),
        link_base: "http://192.168.1.5:7340".to_owned(),
        source,
        is_own: false,
    }
}

fn participant_id(number: u8) -> ParticipantId {
    ParticipantId::from_digest([number; 10])
}

fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

fn open(id: &str, kind: SessionKind, limit: Option<u16>, key: Option<u8>) -> ClientMessage {
    let owner_key = key.map(|key| Secret::from_random([key; 16]));
    ClientMessage::Open { session: session(id), kind, limit, owner_key }
}

fn kind_of(topology: Topology) -> SessionKind {
    SessionKind { media: MediaSet::AUDIO.with(Media::Data), topology }
}

/// A line for each connection that an output is for.
fn output_lines(output: &RoomsOutput) -> Vec<String> {
    match output {
        RoomsOutput::Disconnect { connection, reason } => vec![match reason {
            DisconnectReason::ErrorSent => format!("{}: disconnect", connection.0),
            DisconnectReason::Silent => format!("{}: disconnect as silent", connection.0),
            DisconnectReason::Misbehaving => format!("{}: disconnect as misbehaving", connection.0),
        }],
        RoomsOutput::Send { connections, message } => {
            let text = message_text(message);
            connections.iter().map(|connection| format!("{}: {text}", connection.0)).collect()
        }
    }
}

fn message_text(message: &HubMessage) -> String {
    match message {
        HubMessage::Welcome { participant, name, .. } => {
            format!("welcome {} {name}", participant_number(participant))
        }
        HubMessage::Opened { session, limit, owner_key, participants, .. } => {
            format!(
                "opened {session} limit {limit} {} {}",
                key_text(owner_key),
                roster_text(participants)
            )
        }
        HubMessage::Joined { session, role, participants, .. } => {
            format!("joined {session} {} {}", role_text(*role), roster_text(participants))
        }
        HubMessage::Waiting { session } => format!("waiting {session}"),
        HubMessage::ParticipantJoined { session, participant } => {
            format!("in {session} {}", member_text(participant))
        }
        HubMessage::ParticipantLeft { session, participant, reason } => {
            format!("out {session} {} {reason:?}", participant_number(participant))
        }
        HubMessage::ParticipantPresence { session, participant, presence } => {
            format!("{session} {} {}", participant_number(participant), presence_text(*presence))
        }
        HubMessage::Renamed { name } => format!("renamed {name}"),
        HubMessage::ParticipantRenamed { session, participant, name } => {
            format!("{session} {} is {name}", participant_number(participant))
        }
        HubMessage::Owner { session, participant, owner_key } => {
            let key = owner_key.as_ref().map_or("no key".to_owned(), key_text);
            format!("owner {session} {} {key}", participant_number(participant))
        }
        HubMessage::Access { session, locked, removed } => {
            let state = if *locked { "locked" } else { "open" };
            let one = |one: &RemovedMember| {
                format!("{} {}", participant_number(&one.participant), one.rest_ms)
            };
            let removed: Vec<_> = removed.iter().map(one).collect();
            format!("access {session} {state} [{}]", removed.join(", "))
        }
        HubMessage::Closed { session, reason } => format!("closed {session} {reason:?}"),
        HubMessage::Signal { session, from, .. } => {
            format!("signal {session} {}", participant_number(from))
        }
        HubMessage::Error { code, session, .. } => match session {
            Some(session) => format!("{} {session}", code.name()),
            None => code.name().to_owned(),
        },
        HubMessage::LinkBase { link_base } => format!("link base {link_base}"),
        HubMessage::Pong => "pong".to_owned(),
    }
}

fn roster_text(members: &[Member]) -> String {
    format!("[{}]", members.iter().map(member_text).collect::<Vec<_>>().join(", "))
}

fn member_text(member: &Member) -> String {
    let run = member.instance.as_str().trim_start_matches('0');
    format!(
        "{}#{run} {} {}",
        participant_number(&member.participant),
        role_text(member.role),
        presence_text(member.presence)
    )
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Opener => "opener",
        Role::Guest => "guest",
    }
}

fn presence_text(presence: Presence) -> String {
    match presence {
        Presence::Here => "here".to_owned(),
        Presence::Away { silent_ms } => format!("away {silent_ms}"),
    }
}

fn participant_number(id: &ParticipantId) -> u8 {
    (0..=u8::MAX).find(|number| participant_id(*number) == *id).unwrap()
}

fn key_text(secret: &Secret) -> String {
    let number = u8::from_str_radix(&secret.expose()[..2], 16).unwrap();
    format!("key {number}")
}
