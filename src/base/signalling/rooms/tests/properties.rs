//! Invariants that hold for any sequence of inputs.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::Payload;
use crate::signalling::rooms::session::SeatState;

/// The next input: connections 0 to 7, participants 0 to 4, and sessions 0 to 2 of different kinds.
#[derive(Clone, Debug)]
enum Step {
    Hello { connection: u64, participant: u8, run: u64 },
    Open { connection: u64, session: usize, key: Option<u8> },
    Join { connection: u64, session: usize, wait: bool },
    Leave { connection: u64, session: usize },
    Close { connection: u64, session: usize },
    Eject { connection: u64, session: usize, participant: u8 },
    Allow { connection: u64, session: usize, participant: u8 },
    Lock { connection: u64, session: usize, is_locked: bool },
    Rename { connection: u64, name: u8 },
    Signal { connection: u64, session: usize, participant: u8 },
    Drop { connection: u64 },
    Pass { ms: u64 },
}

const IDS: [&str; 3] = ["a", "b", "c"];

const KINDS: [SessionKind; 3] = [MESH, BROADCAST, SessionKind::FIVE[2]];

fn step() -> impl Strategy<Value = Step> {
    let (connection, session, participant) = (|| 0_u64..8, || 0_usize..3, || 0_u8..5);
    prop_oneof![
        4 => (connection(), participant(), 0_u64..3).prop_map(
            |(connection, participant, run)| Step::Hello { connection, participant, run }
        ),
        4 => (connection(), session(), prop::option::of(1_u8..6))
            .prop_map(|(connection, session, key)| Step::Open { connection, session, key }),
        8 => (connection(), session(), any::<bool>())
            .prop_map(|(connection, session, wait)| Step::Join { connection, session, wait }),
        2 => (connection(), session())
            .prop_map(|(connection, session)| Step::Leave { connection, session }),
        1 => (connection(), session())
            .prop_map(|(connection, session)| Step::Close { connection, session }),
        1 => (connection(), session(), participant()).prop_map(
            |(connection, session, participant)| Step::Eject { connection, session, participant }
        ),
        1 => (connection(), session(), participant()).prop_map(
            |(connection, session, participant)| Step::Allow { connection, session, participant }
        ),
        1 => (connection(), session(), any::<bool>()).prop_map(
            |(connection, session, is_locked)| Step::Lock { connection, session, is_locked }
        ),
        4 => (connection(), session(), participant()).prop_map(
            |(connection, session, participant)| Step::Signal { connection, session, participant }
        ),
        2 => (connection(), 0_u8..3)
            .prop_map(|(connection, name)| Step::Rename { connection, name }),
        2 => connection().prop_map(|connection| Step::Drop { connection }),
        3 => (0_u64..70_000).prop_map(|ms| Step::Pass { ms }),
    ]
}

fn input(step: &Step) -> Option<RoomsInput> {
    let message_from = |connection: u64, message| {
        Some(RoomsInput::Message { connection: ConnectionId(connection), message })
    };
    let session = |index: usize| session(IDS[index]);
    match *step {
        Step::Hello { connection, participant, run } => Some(RoomsInput::Hello {
            connection: ConnectionId(connection),
            participant: participant_id(participant),
            token: Secret::from_random([participant; 16]),
            name: String::new(),
            instance: Instance::from_random(run),
            link_base: String::new(),
            source: None,
            is_own: false,
        }),
        Step::Open { connection, session, key } => {
            message_from(connection, open(IDS[session], KINDS[session], Some(3), key))
        }
        Step::Join { connection, session: index, wait } => {
            message_from(connection, ClientMessage::Join { session: session(index), wait })
        }
        Step::Leave { connection, session: index } => {
            message_from(connection, ClientMessage::Leave { session: session(index) })
        }
        Step::Close { connection, session: index } => {
            message_from(connection, ClientMessage::Close { session: session(index) })
        }
        Step::Eject { connection, session: index, participant } => {
            let (session, participant) = (session(index), participant_id(participant));
            message_from(connection, ClientMessage::Eject { session, participant, address: false })
        }
        Step::Allow { connection, session: index, participant } => message_from(
            connection,
            ClientMessage::Allow {
                session: session(index),
                participant: participant_id(participant),
            },
        ),
        Step::Lock { connection, session: index, is_locked } => message_from(
            connection,
            ClientMessage::Lock { session: session(index), locked: is_locked },
        ),
        Step::Rename { connection, name } => {
            // The last name is empty, so that the hub chooses one.
            let name = ["Ann", "Ben", ""][usize::from(name)].to_owned();
            message_from(connection, ClientMessage::Rename { name })
        }
        Step::Signal { connection, session: index, participant } => {
            let payload = Payload::Offer { generation: 1, sdp: "m=audio".into() }.into();
            message_from(
                connection,
                ClientMessage::Signal {
                    session: session(index),
                    to: participant_id(participant),
                    payload,
                },
            )
        }
        Step::Drop { connection } => {
            Some(RoomsInput::Closed { connection: ConnectionId(connection) })
        }
        Step::Pass { .. } => None,
    }
}

/// What a client knows from the messages that it received: its sessions, and their members.
#[derive(Default)]
struct ClientModel {
    rosters: BTreeMap<SessionId, BTreeMap<ParticipantId, Member>>,
}

impl ClientModel {
    fn apply(&mut self, message: HubMessage) {
        match message {
            HubMessage::Opened { session, participants, .. }
            | HubMessage::Joined { session, participants, .. } => {
                let members = participants.into_iter();
                let roster = members.map(|member| (member.participant.clone(), member)).collect();
                self.rosters.insert(session, roster);
            }
            HubMessage::ParticipantJoined { session, participant } => {
                let roster = self
                    .rosters
                    .get_mut(&session)
                    .expect("a message about a session of the client");
                roster.insert(participant.participant.clone(), participant);
            }
            HubMessage::ParticipantLeft { session, participant, .. } => {
                let roster = self
                    .rosters
                    .get_mut(&session)
                    .expect("a message about a session of the client");
                assert!(roster.remove(&participant).is_some(), "the leaver was known");
            }
            HubMessage::ParticipantPresence { session, participant, presence } => {
                let roster = self
                    .rosters
                    .get_mut(&session)
                    .expect("a message about a session of the client");
                roster.get_mut(&participant).expect("the absent participant was known").presence =
                    presence;
            }
            HubMessage::ParticipantRenamed { session, participant, name } => {
                let roster = self
                    .rosters
                    .get_mut(&session)
                    .expect("a message about a session of the client");
                roster.get_mut(&participant).expect("the renamed participant was known").name =
                    name;
            }
            HubMessage::Owner { session, participant, .. } => {
                let roster = self
                    .rosters
                    .get_mut(&session)
                    .expect("a message about a session of the client");
                for member in roster.values_mut() {
                    let is_owner = member.participant == participant;
                    member.role = if is_owner { Role::Opener } else { Role::Guest };
                }
            }
            HubMessage::Closed { session, .. } => {
                assert!(
                    self.rosters.remove(&session).is_some(),
                    "the client was in the closed session"
                );
            }
            HubMessage::Access { session, .. } => {
                assert!(
                    self.rosters.contains_key(&session),
                    "a message about a session of the client"
                );
            }
            HubMessage::Signal { session, from, .. } => {
                assert!(
                    self.rosters[&session].contains_key(&from),
                    "the sender of a signal is known"
                );
            }
            HubMessage::Welcome { .. }
            | HubMessage::Waiting { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::Error { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn the_indexes_agree_and_every_client_knows_exactly_its_paired_members(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut hub = Fixture::new();
        let mut models: BTreeMap<ConnectionId, ClientModel> = BTreeMap::new();
        for step in &steps {
            match (input(step), step) {
                (Some(input), _) => hub.rooms.handle(input, hub.now),
                (None, Step::Pass { ms }) => {
                    hub.now = hub.now + Duration::from_millis(*ms);
                    hub.rooms.handle_timeout(hub.now);
                }
                (None, other) => panic!("{other:?}"),
            }
            // A client drops a session that it leaves; the hub does not answer.
            if let Step::Leave { connection, session: index } = step
                && let Some(model) = models.get_mut(&ConnectionId(*connection))
            {
                model.rosters.remove(&session(IDS[*index]));
            }
            while let Some(output) = hub.rooms.poll_output() {
                match output {
                    RoomsOutput::Send { connections, message } => {
                        for connection in connections {
                            models.entry(connection).or_default().apply(message.clone());
                        }
                    }
                    RoomsOutput::Disconnect { connection, .. } => {
                        drop(models.remove(&connection));
                    }
                }
            }
            if let Step::Drop { connection } = step {
                models.remove(&ConnectionId(*connection));
            }
            check_indexes(&hub.rooms);
            check_client_models(&hub.rooms, &models);
        }
    }
}

/// All maps of the rooms agree with each other.
fn check_indexes(Rooms { edge, home }: &Rooms) {
    for (id, room) in &home.sessions {
        let openers = room.seats.iter().filter(|seat| seat.role == Role::Opener).count();
        assert_eq!(openers, 1, "one opener");
        assert!(room.seats.len() <= usize::from(room.limit), "no more seats than the limit");
        assert!(!home.waiting.contains_key(id), "nobody waits for an open session");
        for seat in &room.seats {
            assert!(home.members[&seat.participant].seats.contains(id));
            let timer = |at| (at, id.clone(), seat.participant.clone());
            match seat.state {
                SeatState::Connected => {
                    let record = &edge.participants[&seat.participant];
                    assert!(record.connection.is_some(), "a connected seat has a connection")
                }
                SeatState::Reserved { since } => {
                    assert!(home.timers.contains(&timer(since + Duration::from_secs(60))));
                }
            }
        }
    }
    for (participant, record) in &edge.participants {
        assert!(
            record.connection.is_some() || record.has_seats,
            "a participant has a connection or a seat"
        );
        assert!(
            record.connection.is_none_or(|connection| edge.connections.contains_key(&connection))
        );
        assert_eq!(record.has_seats, home.has_any_seat(participant), "edge and home agree");
    }
    for (participant, member) in &home.members {
        assert!(edge.participants.contains_key(participant), "the edge knows all members");
        assert!(!member.seats.is_empty() || !member.waiting_for.is_empty(), "others are forgotten");
        assert!(member.seats.iter().all(|id| home.sessions[id].seat(participant).is_some()));
        let waits = |id| home.waiting[id].iter().any(|other| other.participant == *participant);
        assert!(member.waiting_for.iter().all(waits));
    }
    let waits: usize = home.waiting.values().map(Vec::len).sum();
    assert_eq!(waits, home.members.values().map(|member| member.waiting_for.len()).sum::<usize>());
    assert_eq!(edge.timers.len(), edge.connections.len(), "one timer for each connection");
    let all_seats = home.sessions.values().flat_map(|room| &room.seats);
    let reserved = all_seats.filter(|seat| !seat.is_connected()).count();
    assert_eq!(home.timers.len(), reserved, "one timer for each reserved seat");
}

/// Every connected member knows exactly the members it is paired with, and their state.
fn check_client_models(Rooms { edge, home }: &Rooms, models: &BTreeMap<ConnectionId, ClientModel>) {
    for (id, room) in &home.sessions {
        for seat in room.seats.iter().filter(|seat| seat.is_connected()) {
            let connection = edge.participants[&seat.participant]
                .connection
                .expect("a connected seat has a connection");
            let known = &models[&connection].rosters[id];
            let paired: Vec<_> = room.paired_with(seat).map(|other| &other.participant).collect();
            assert_eq!(known.len(), paired.len(), "{known:?} {paired:?}");
            for other in room.paired_with(seat) {
                let member = &known[&other.participant];
                let is_here = home.presence(other) == Presence::Here;
                assert_eq!(member.presence == Presence::Here, is_here);
                assert_eq!(member.role, other.role);
                assert_eq!((&member.instance, &member.name), (&other.instance, &other.name));
            }
        }
    }
    for (connection, model) in models {
        for id in model.rosters.keys() {
            let is_member = home.sessions.get(id).is_some_and(|room| {
                let mut connected = room.seats.iter().filter(|seat| seat.is_connected());
                connected.any(|seat| {
                    edge.participants[&seat.participant].connection == Some(*connection)
                })
            });
            assert!(is_member, "a client is a member of every session that it knows");
        }
    }
}
