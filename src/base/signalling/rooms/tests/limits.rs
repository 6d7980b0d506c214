//! The limits of one client, and of all together.

use super::*;

#[test]
fn a_participant_is_in_64_sessions_or_waits_for_them() {
    let mut hub = Fixture::with(2);
    for index in 0..32 {
        hub.open(1, &format!("s{index}"), MESH);
        hub.wait(1, &format!("w{index}"));
    }
    hub.open(2, "other", MESH);
    assert_eq!(hub.open(1, "more", MESH), ["1: too-many more"]);
    assert_eq!(hub.wait(1, "more"), ["1: too-many more"]);
    assert_eq!(hub.join(1, "other"), ["1: too-many other"]);
    assert_eq!(hub.send(1, open("other", MESH, None, Some(33))), ["1: too-many other"]);
    assert!(hub.open(1, "s3", MESH)[0].starts_with("1: opened s3"), "existing seats are kept");
    assert_eq!(hub.wait(1, "w3"), ["1: waiting w3"]);
    hub.leave(1, "w3");
    assert!(hub.join(1, "other")[0].starts_with("1: joined other"));
}

#[test]
fn a_session_that_is_waited_for_and_opens_is_counted_once() {
    let mut hub = Fixture::with(2);
    for index in 0..64 {
        hub.wait(1, &format!("w{index}"));
    }
    assert!(hub.open(2, "w0", MESH)[1].starts_with("1: joined w0"));
    assert_eq!(hub.open(1, "w1", MESH), ["1: opened w1 limit 12 key 2 []"]);
}

#[test]
fn no_more_than_256_participants_wait_for_one_session() {
    let mut hub = Fixture::new();
    for number in 0..256 {
        join_numbered(&mut hub, number);
    }
    assert_eq!(join_numbered(&mut hub, 256), ["256: too-many a"]);
    hub.close_connection(7);
    assert_eq!(join_numbered(&mut hub, 257), ["257: waiting a"]);
}

#[test]
fn a_hub_keeps_10000_sessions() {
    let mut hub = Fixture::new();
    for opener in 0..157_u64 {
        hello_numbered(&mut hub, opener);
        for index in 0..64 {
            hub.open(opener, &format!("s{opener}-{index}"), MESH);
        }
    }
    hello_numbered(&mut hub, 200);
    assert_eq!(hub.rooms.home.sessions.len(), 10_000);
    assert_eq!(hub.open(200, "more", MESH), ["200: too-many more"]);
    hub.leave(0, "s0-0");
    assert!(hub.open(200, "more", MESH)[0].starts_with("200: opened more"));
}

#[test]
fn a_hub_knows_16384_participants() {
    let mut hub = Fixture::new();
    for number in 0..16_384 {
        hello_numbered(&mut hub, number);
    }
    assert_eq!(hello_numbered(&mut hub, 20_000), ["20000: too-many", "20000: disconnect"]);
    let again = hub.hello_numbered_again(30_000, 5);
    assert!(
        again.iter().any(|line| line.starts_with("30000: welcome")),
        "known participants may return"
    );
}

#[test]
fn a_malformed_instance_is_refused() {
    let mut hub = Fixture::new();
    for instance in ["", "0123", "012345678901234g", &"0".repeat(5_000)] {
        let text = format!("{instance:?}");
        let refused = hub.handle(RoomsInput::Hello {
            connection: ConnectionId(1),
            participant: participant_id(1),
            token: Secret::from_random([1; 16]),
            name: String::new(),
            instance: serde_json::from_str(&text).unwrap(),
            link_base: String::new(),
            source: None,
            is_own: false,
        });
        assert_eq!(refused, ["1: bad-message", "1: disconnect"]);
    }
    assert!(hub.rooms.edge.participants.is_empty() && hub.rooms.edge.connections.is_empty());
}

#[test]
fn a_second_hello_is_a_bad_message_and_changes_nothing() {
    let mut hub = Fixture::with(1);
    let hello = ClientMessage::Hello {
        protocol: 1,
        name: "X".into(),
        instance: Instance::from_random(3),
        token: None,
        proof: None,
    };
    assert_eq!(hub.send(1, hello), ["1: bad-message"]);
}

fn join_numbered(hub: &mut Fixture, number: u64) -> Vec<String> {
    hello_numbered(hub, number);
    hub.wait(number, "a")
}

fn hello_numbered(hub: &mut Fixture, number: u64) -> Vec<String> {
    hub.hello_numbered_again(number, number)
}

impl Fixture {
    /// `hello` of more participants than [`participant_id`] has numbers for.
    fn hello_numbered_again(&mut self, connection: u64, number: u64) -> Vec<String> {
        let mut digest = [0xff; 10];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let participant = ParticipantId::from_digest(digest);
        self.rooms.handle(
            RoomsInput::Hello {
                connection: ConnectionId(connection),
                participant,
                token: Secret::from_random([0; 16]),
                name: "X".into(),
                instance: Instance::from_random(number),
                link_base: String::new(),
                source: None,
                is_own: false,
            },
            self.now,
        );
        let outputs: Vec<_> = std::iter::from_fn(|| self.rooms.poll_output()).collect();
        let short = |output: &RoomsOutput| match output {
            RoomsOutput::Send { connections, message: HubMessage::Welcome { .. } } => {
                vec![format!("{}: welcome", connections[0].0)]
            }
            RoomsOutput::Send { .. } | RoomsOutput::Disconnect { .. } => output_lines(output),
        };
        outputs.iter().flat_map(short).collect()
    }
}
