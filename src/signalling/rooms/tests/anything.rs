//! Whatever links say, in whatever order, some things always hold.

use proptest::prelude::*;

use super::*;
use crate::model::Payload;
use crate::signalling::rooms::session::Bond;

/// What happens next: links 0 to 7, of people 0 to 4, and sessions 0 to 2 of different kinds.
#[derive(Clone, Debug)]
enum Step {
    Hello { link: u64, who: u8, run: u64 },
    Open { link: u64, session: usize, key: Option<u8> },
    Join { link: u64, session: usize, wait: bool },
    Leave { link: u64, session: usize },
    Close { link: u64, session: usize },
    Eject { link: u64, session: usize, who: u8 },
    Allow { link: u64, session: usize, who: u8 },
    Lock { link: u64, session: usize, is_locked: bool },
    Rename { link: u64, name: u8 },
    Signal { link: u64, session: usize, who: u8 },
    Drop { link: u64 },
    Pass { ms: u64 },
}

const IDS: [&str; 3] = ["a", "b", "c"];

const KINDS: [SessionKind; 3] = [MESH, BROADCAST, SessionKind::FIVE[2]];

fn step() -> impl Strategy<Value = Step> {
    let (link, session, who) = (|| 0_u64..8, || 0_usize..3, || 0_u8..5);
    prop_oneof![
        4 => (link(), who(), 0_u64..3).prop_map(|(link, who, run)| Step::Hello { link, who, run }),
        4 => (link(), session(), prop::option::of(1_u8..6))
            .prop_map(|(link, session, key)| Step::Open { link, session, key }),
        8 => (link(), session(), any::<bool>())
            .prop_map(|(link, session, wait)| Step::Join { link, session, wait }),
        2 => (link(), session()).prop_map(|(link, session)| Step::Leave { link, session }),
        1 => (link(), session()).prop_map(|(link, session)| Step::Close { link, session }),
        1 => (link(), session(), who())
            .prop_map(|(link, session, who)| Step::Eject { link, session, who }),
        1 => (link(), session(), who())
            .prop_map(|(link, session, who)| Step::Allow { link, session, who }),
        1 => (link(), session(), any::<bool>())
            .prop_map(|(link, session, is_locked)| Step::Lock { link, session, is_locked }),
        4 => (link(), session(), who())
            .prop_map(|(link, session, who)| Step::Signal { link, session, who }),
        2 => (link(), 0_u8..3).prop_map(|(link, name)| Step::Rename { link, name }),
        2 => link().prop_map(|link| Step::Drop { link }),
        3 => (0_u64..70_000).prop_map(|ms| Step::Pass { ms }),
    ]
}

fn input(step: &Step) -> Option<RoomsInput> {
    let say = |link: u64, message| Some(RoomsInput::Message { link: LinkId(link), message });
    let session = |index: usize| session(IDS[index]);
    match *step {
        Step::Hello { link, who, run } => Some(RoomsInput::Hello {
            link: LinkId(link),
            participant: person(who),
            token: Secret::from_random([who; 16]),
            name: String::new(),
            instance: Instance::from_random(run),
            link_base: String::new(),
            source: None,
            is_own: false,
        }),
        Step::Open { link, session, key } => {
            say(link, open(IDS[session], KINDS[session], Some(3), key))
        }
        Step::Join { link, session: index, wait } => {
            say(link, ClientMessage::Join { session: session(index), wait })
        }
        Step::Leave { link, session: index } => {
            say(link, ClientMessage::Leave { session: session(index) })
        }
        Step::Close { link, session: index } => {
            say(link, ClientMessage::Close { session: session(index) })
        }
        Step::Eject { link, session: index, who } => {
            let (session, participant) = (session(index), person(who));
            say(link, ClientMessage::Eject { session, participant, address: false })
        }
        Step::Allow { link, session: index, who } => {
            say(link, ClientMessage::Allow { session: session(index), participant: person(who) })
        }
        Step::Lock { link, session: index, is_locked } => {
            say(link, ClientMessage::Lock { session: session(index), locked: is_locked })
        }
        Step::Rename { link, name } => {
            // The last is none, so that the hub gives one.
            let name = ["Ann", "Ben", ""][usize::from(name)].to_owned();
            say(link, ClientMessage::Rename { name })
        }
        Step::Signal { link, session: index, who } => {
            let payload = Payload::Offer { generation: 1, sdp: "m=audio".into() }.into();
            say(link, ClientMessage::Signal { session: session(index), to: person(who), payload })
        }
        Step::Drop { link } => Some(RoomsInput::Closed { link: LinkId(link) }),
        Step::Pass { .. } => None,
    }
}

/// What a client believes from what it was told: the sessions it is in, and whom it knows there.
#[derive(Default)]
struct Belief {
    rosters: BTreeMap<SessionId, BTreeMap<ParticipantId, Member>>,
}

impl Belief {
    fn hear(&mut self, message: HubMessage) {
        match message {
            HubMessage::Opened { session, participants, .. }
            | HubMessage::Joined { session, participants, .. } => {
                let members = participants.into_iter();
                let roster = members.map(|member| (member.participant.clone(), member)).collect();
                self.rosters.insert(session, roster);
            }
            HubMessage::ParticipantJoined { session, participant } => {
                let roster = self.rosters.get_mut(&session).expect("news of an own session");
                roster.insert(participant.participant.clone(), participant);
            }
            HubMessage::ParticipantLeft { session, participant, .. } => {
                let roster = self.rosters.get_mut(&session).expect("news of an own session");
                assert!(roster.remove(&participant).is_some(), "who left was known");
            }
            HubMessage::ParticipantPresence { session, participant, presence } => {
                let roster = self.rosters.get_mut(&session).expect("news of an own session");
                roster.get_mut(&participant).expect("who is away was known").presence = presence;
            }
            HubMessage::ParticipantRenamed { session, participant, name } => {
                let roster = self.rosters.get_mut(&session).expect("news of an own session");
                roster.get_mut(&participant).expect("who is renamed was known").name = name;
            }
            HubMessage::Owner { session, participant, .. } => {
                let roster = self.rosters.get_mut(&session).expect("news of an own session");
                for member in roster.values_mut() {
                    let is_owner = member.participant == participant;
                    member.role = if is_owner { Role::Opener } else { Role::Guest };
                }
            }
            HubMessage::Closed { session, .. } => {
                assert!(self.rosters.remove(&session).is_some(), "what is over was an own session");
            }
            HubMessage::Access { session, .. } => {
                assert!(self.rosters.contains_key(&session), "news of an own session");
            }
            HubMessage::Signal { session, from, .. } => {
                assert!(self.rosters[&session].contains_key(&from), "who signals is known");
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
    fn the_books_agree_and_every_client_knows_exactly_whom_it_is_linked_to(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut hub = Lines::new();
        let mut beliefs: BTreeMap<LinkId, Belief> = BTreeMap::new();
        for step in &steps {
            match (input(step), step) {
                (Some(input), _) => hub.rooms.handle(input, hub.now),
                (None, Step::Pass { ms }) => {
                    hub.now = hub.now + Duration::from_millis(*ms);
                    hub.rooms.handle_timeout(hub.now);
                }
                (None, other) => panic!("{other:?}"),
            }
            // A client drops what it leaves without being told.
            if let Step::Leave { link, session: index } = step
                && let Some(belief) = beliefs.get_mut(&LinkId(*link))
            {
                belief.rosters.remove(&session(IDS[*index]));
            }
            while let Some(output) = hub.rooms.poll_output() {
                match output {
                    RoomsOutput::Send { link, message } => {
                        beliefs.entry(link).or_default().hear(message);
                    }
                    RoomsOutput::Disconnect { link, .. } => drop(beliefs.remove(&link)),
                }
            }
            if let Step::Drop { link } = step {
                beliefs.remove(&LinkId(*link));
            }
            check_books(&hub.rooms);
            check_beliefs(&hub.rooms, &beliefs);
        }
    }
}

/// All maps of the rooms say the same.
fn check_books(rooms: &Rooms) {
    for (id, room) in &rooms.sessions {
        let openers = room.seats.iter().filter(|seat| seat.role == Role::Opener).count();
        assert_eq!(openers, 1, "one opener");
        assert!(room.seats.len() <= usize::from(room.limit), "not more than fit");
        assert!(!rooms.waits.contains_key(id), "nobody waits for an open session");
        for seat in &room.seats {
            let person = &rooms.people[&seat.participant];
            assert!(person.seats.contains(id));
            let alarm = |at| (at, Alarm::Seat(id.clone(), seat.participant.clone()));
            match seat.bond {
                Bond::Held => assert!(person.link.is_some(), "a link holds it"),
                Bond::Loose { since } => {
                    assert!(rooms.alarms.contains(&alarm(since + Duration::from_secs(60))));
                }
            }
        }
    }
    for (who, person) in &rooms.people {
        assert!(person.link.is_some() || !person.seats.is_empty(), "else it is forgotten");
        assert!(person.link.is_none_or(|link| rooms.links.contains_key(&link)));
        assert!(person.seats.iter().all(|id| rooms.sessions[id].seat(who).is_some()));
        assert!(person.waits.iter().all(|id| rooms.waits[id].contains(who)));
    }
    let waits: usize = rooms.waits.values().map(Vec::len).sum();
    assert_eq!(waits, rooms.people.values().map(|person| person.waits.len()).sum::<usize>());
    let all_seats = rooms.sessions.values().flat_map(|room| &room.seats);
    let loose = all_seats.filter(|seat| !seat.is_held()).count();
    assert_eq!(rooms.alarms.len(), rooms.links.len() + loose, "an alarm each, and no other");
}

/// Whoever sits somewhere has been told exactly who is linked to it there, and how they are.
fn check_beliefs(rooms: &Rooms, beliefs: &BTreeMap<LinkId, Belief>) {
    for (id, room) in &rooms.sessions {
        for seat in room.seats.iter().filter(|seat| seat.is_held()) {
            let link = rooms.people[&seat.participant].link.expect("a link holds it");
            let known = &beliefs[&link].rosters[id];
            let linked: Vec<_> = room.linked(seat).map(|other| &other.participant).collect();
            assert_eq!(known.len(), linked.len(), "{known:?} {linked:?}");
            for other in room.linked(seat) {
                let member = &known[&other.participant];
                let is_here = rooms.presence(other) == Presence::Here;
                assert_eq!(member.presence == Presence::Here, is_here);
                assert_eq!(member.role, other.role);
                assert_eq!((&member.instance, &member.name), (&other.instance, &other.name));
            }
        }
    }
    for (link, belief) in beliefs {
        for id in belief.rosters.keys() {
            let is_member = rooms.sessions.get(id).is_some_and(|room| {
                let mut held = room.seats.iter().filter(|seat| seat.is_held());
                held.any(|seat| rooms.people[&seat.participant].link == Some(*link))
            });
            assert!(is_member, "nobody believes to be where it is not");
        }
    }
}
