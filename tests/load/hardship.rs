//! The built program under faults, over loopback: refusals, untrusted input, killed processes, and
//! audio that must not leak.

use std::{
    env,
    ops::Range,
    time::{Duration, Instant},
};

use crate::rig::{
    Folder,
    process::{Hub, Program, alone, alone_with_sockets, at, give_identity},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

/// When a silent participant must be reconnecting: 5 s are specified and checked in virtual time by
/// the tests of the core; a busy machine may take longer.
const RECONNECTING_BY: Duration = Duration::from_secs(9);

/// When a silent participant must be gone: at 10 s, or a second earlier if the hub received nothing
/// in the last second. A busy machine may take longer, but less than the minute for which the hub
/// keeps the seat.
const GONE_WITHIN: Range<Duration> = Duration::from_secs(9)..Duration::from_secs(25);

/// Joins under that name and sends 730 Hz, which is no harmonic of the opener's tone.
fn join(hub: &Hub, id: &str, name: &str, extra: &[&str]) -> Program {
    hub.person(name, &[&["join", id, "--microphone", "tone:730"], extra].concat())
}

#[test]
fn the_guest_of_a_private_session_is_not_in_the_audio_of_the_conference_beside_it() {
    let _turn = alone();
    let hub = Hub::start();
    let home = Folder::new();
    let path = |name: &str| home.file(name).display().to_string();
    let speaker = format!("file:{}", path("olga.wav"));
    let room = ["open", "--kind", "audio-conference", "--id", "room"];
    let private = ["--kind", "audio/one-to-one", "--id", "private", "--speaker", &speaker];
    let mut olga = hub.person("Olga", &[&room[..], &private].concat());
    olga.events("opened", 2);
    let speaker = format!("file:{}", path("member.wav"));
    let listens = ["join", "room", "--speaker", &speaker, "--microphone", "none"];
    let mut member = hub.person("Member", &listens);
    let mut guest = join(&hub, "private", "Guest", &[]);
    guest.event("first-frame");
    member.event("first-frame");
    for _ in 0..4 {
        member.wait_next("statistics", |event| event["event"] == "stats");
    }
    assert_eq!(member.interrupt().code, Some(0));
    assert_eq!(guest.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
    let (at_olga, rate) = crate::rig::sound::read_wav(&home.file("olga.wav"));
    let (in_room, _) = crate::rig::sound::read_wav(&home.file("member.wav"));
    let level = |samples: &[f32], hz| {
        crate::rig::sound::level_of(crate::rig::sound::steady(samples, rate), rate, hz)
    };
    assert!(level(&at_olga, 730.0) > -30.0, "the opener receives the private guest");
    assert!(level(&in_room, 440.0) > -30.0, "the room receives the opener");
    let leaked = level(&in_room, 730.0) - level(&in_room, 440.0);
    assert!(leaked < -60.0, "the private guest is only {leaked} dB from the opener in the room");
}

#[test]
fn refusals_have_codes_and_exit_codes() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = hub.open("audio/one-to-one", "desk");
    let twice =
        Program::start(&["open", "--kind", "av-conference", "--id", "desk", "--hub", &hub.url]);
    let twice = twice.end();
    assert_eq!((twice.code, &twice.all("error")[0]["code"]), (Some(4), &"id-taken".into()));
    let mut first = join(&hub, "desk", "First", &[]);
    first.participant("Olga", "live");
    let second = join(&hub, "desk", "Second", &[]).end();
    assert_eq!((second.code, &second.all("error")[0]["code"]), (Some(4), &"session-full".into()));
    assert_eq!(second.all("ended").len(), 1);
    olga.participant("First", "live");
    let nowhere = Program::start(&["join", "x", "--no-wait", "--hub", "127.0.0.1:9"]).end();
    assert_eq!(nowhere.code, Some(3), "{:#?}", nowhere.events);
    assert_eq!(nowhere.all("error")[0]["code"], "hub-unreachable");
}

#[test]
fn a_guest_that_leaves_is_gone_at_once_and_a_killed_one_after_ten_seconds() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = hub.open("audio-conference", "room");
    let mut leaver = join(&hub, "room", "Leaver", &[]);
    let mut killed = join(&hub, "room", "Killed", &[]);
    for name in ["Leaver", "Killed"] {
        olga.participant(name, "live");
    }
    leaver.participant("Killed", "live");
    killed.participant("Leaver", "live");
    leaver.signal("TERM");
    let start = Instant::now();
    olga.participant("Leaver", "left");
    killed.participant("Leaver", "left");
    assert!(start.elapsed() < GONE_WITHIN.start, "{:?}", start.elapsed());
    assert_eq!(leaver.end().code, Some(0));
    let start = Instant::now();
    let home = killed.kill();
    olga.participant("Killed", "reconnecting");
    let reconnecting = start.elapsed();
    assert!(reconnecting < RECONNECTING_BY, "{reconnecting:?}");
    olga.participant("Killed", "gone");
    let gone = start.elapsed();
    println!("reconnecting after {reconnecting:?}, gone after {gone:?}");
    assert!(GONE_WITHIN.contains(&gone), "{gone:?}");
    // Its resume token is still on disk: it gets its own seat back.
    let mut back = hub.person_in(home, "Killed", &["join", "room"]);
    back.participant("Olga", "live");
    olga.wait_next("live again", |event| event["name"] == "Killed" && event["state"] == "live");
    assert_eq!(back.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn a_stopped_program_is_reconnecting_then_gone_and_live_again_when_it_continues() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = hub.open("audio-conference", "room");
    let mut ben = join(&hub, "room", "Ben", &[]);
    olga.participant("Ben", "live");
    ben.participant("Olga", "live");
    ben.signal("STOP");
    let start = Instant::now();
    olga.participant("Ben", "reconnecting");
    let reconnecting = start.elapsed();
    assert!(reconnecting < RECONNECTING_BY, "{reconnecting:?}");
    olga.participant("Ben", "gone");
    let gone = start.elapsed();
    println!("reconnecting after {reconnecting:?}, gone after {gone:?}");
    assert!(GONE_WITHIN.contains(&gone), "{gone:?}");
    ben.signal("CONT");
    let is_live = |event: &serde_json::Value| event["name"] == "Ben" && event["state"] == "live";
    olga.wait_next("Ben live again", is_live);
    assert_eq!(ben.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn a_conference_continues_without_its_opener_and_admits_new_guests() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = hub.open("audio-conference", "room");
    let mut ben = join(&hub, "room", "Ben", &[]);
    let mut cleo = join(&hub, "room", "Cleo", &[]);
    olga.participant("Cleo", "live");
    cleo.participant("Ben", "live");
    assert_eq!(olga.interrupt().code, Some(0));
    ben.participant("Olga", "left");
    let mut dora = join(&hub, "room", "Dora", &["--no-wait"]);
    for name in ["Ben", "Cleo"] {
        dora.participant(name, "live");
    }
    cleo.participant("Dora", "live");
    // The first guest takes over as owner; when all have left, the session ends.
    for member in [ben, cleo, dora] {
        let end = member.interrupt();
        assert_eq!(end.code, Some(0));
        assert_eq!(end.all("ended")[0]["reason"], "left");
    }
    let late = join(&hub, "room", "Late", &["--no-wait"]).end();
    assert_eq!(late.all("error")[0]["code"], "no-such-session");
}

#[test]
fn an_opener_that_crashed_gets_its_session_back_and_no_other_client_can() {
    let _turn = alone();
    let hub = Hub::start();
    let olga = hub.open("av-broadcast", "show");
    let mut viewer = join(&hub, "show", "Vera", &[]);
    viewer.event("first-frame");
    let home = olga.kill();
    let thief =
        Program::start(&["open", "--kind", "av-broadcast", "--id", "show", "--hub", &hub.url]);
    assert_eq!(thief.end().all("error")[0]["code"], "id-taken");
    let olga = hub.person_in(home, "Olga", &["open", "--kind", "av-broadcast", "--id", "show"]);
    viewer.wait_next("the opener again", |event| {
        event["event"] == "participant" && event["name"] == "Olga" && event["state"] == "live"
    });
    let before = viewer.wait_next("statistics", |event| event["event"] == "stats");
    let decoded = |stats: &serde_json::Value| {
        at(stats, "sessions/0/participants/0/video/decoded").as_u64().unwrap()
    };
    viewer.wait_next("video again", |event| {
        event["event"] == "stats" && decoded(event) > decoded(&before) + 10
    });
    assert_eq!(olga.interrupt().code, Some(0));
    assert_eq!(viewer.event("ended")["reason"], "opener-left");
}

#[test]
fn programs_of_one_user_do_not_take_each_others_sessions() {
    let _turn = alone();
    let hub = Hub::start();
    let home = Folder::new();
    give_identity(&home);
    let state = home.file("state").display().to_string();
    let start = |args: &[&str]| {
        let args =
            [args, &["--hub", &hub.url, "--speaker", "none", "--microphone", "none"]].concat();
        Program::start_in(Folder::new(), &args, &[("XDG_STATE_HOME", state.as_str())])
    };
    let open = ["open", "--kind", "audio-conference", "--id", "room"];
    let mut olga = start(&open);
    olga.event("opened");
    let again = start(&open).end();
    assert_eq!((again.code, &again.all("error")[0]["code"]), (Some(4), &"id-taken".into()));
    let mut guest = start(&["join", "room", "--name", "Guest"]);
    olga.participant("Guest", "live");
    guest.event("joined");
    assert_eq!(guest.interrupt().code, Some(0));
    olga.participant("Guest", "left");
    olga.kill();
    let mut olga = start(&open);
    olga.event("opened");
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn media_continue_when_the_hub_is_killed_and_a_new_hub_admits_new_guests() {
    let _turn = alone();
    let hub = Hub::start();
    let address = hub.url.trim_start_matches("http://").to_owned();
    let mut olga = hub.open("av-conference", "room");
    let mut ben = join(&hub, "room", "Ben", &[]);
    ben.event("first-frame");
    olga.event("first-frame");
    let Hub { program, url: _ } = hub;
    program.kill();
    let stats = |program: &mut Program| {
        let stats = program.wait_next("statistics", |event| event["event"] == "stats");
        at(&stats, "sessions/0/participants/0/video/decoded").as_u64().unwrap()
    };
    let before = stats(&mut ben);
    for _ in 0..3 {
        stats(&mut ben);
    }
    assert!(stats(&mut ben) > before + 30, "video continues without a hub");
    let hub = Hub::start_on(&address);
    let mut cleo = join(&hub, "room", "Cleo", &[]);
    for name in ["Olga", "Ben"] {
        cleo.participant(name, "live");
    }
    let before = stats(&mut ben);
    assert!(stats(&mut ben) >= before + 5, "and continues with the new hub");
    let end = ben.interrupt();
    assert_eq!((end.code, end.all("hub-lost").len(), end.all("hub-back").len()), (Some(0), 1, 1));
    let interrupted = end.all("participant").into_iter().filter(|event| {
        event["name"] == "Olga" && event["state"] != "connecting" && event["state"] != "live"
    });
    assert_eq!(interrupted.count(), 0, "Olga stayed live: {:#?}", end.all("participant"));
    assert_eq!(olga.interrupt().code, Some(0));
}

/// Takes ten seconds; `QUINTET_SECONDS=60` makes it longer. `transport/impaired_socket.rs` flips
/// the bits; `tests/transport/links.rs` checks that no flipped packet is accepted.
#[test]
fn a_call_survives_flipped_bits() {
    let _turn = alone();
    let seconds = env::var("QUINTET_SECONDS").map_or(10, |text| text.parse().expect("a number"));
    let hub = Hub::start();
    let talks = ["--camera", "pattern:640x360@30", "--impair"];
    let open = ["open", "--kind", "av-conference", "--id", "room"];
    let mut olga = hub.person("Olga", &[&open[..], &talks, &["flip=0.01,seed=1"]].concat());
    olga.event("opened");
    let mut ben = join(&hub, "room", "Ben", &[&talks[..], &["flip=0.01,seed=2"]].concat());
    for program in [&mut olga, &mut ben] {
        program.event("first-frame");
    }
    let mut lost = 0;
    for (program, hz) in [(&mut olga, 730.0), (&mut ben, 440.0)] {
        let stats = received(program, seconds);
        let windows: Vec<_> =
            (0..seconds).step_by(5).map(|from| window(&stats[from..], hz)).collect();
        lost += stats[seconds]["audio"]["lost"].as_u64().expect("a count");
        println!("(frames, seconds with {hz} Hz) in 5 s each: {windows:?}; lost so far: {lost}");
        assert!(windows.iter().all(|(frames, _)| *frames > 20), "{windows:?}");
        assert!(windows.iter().any(|(frames, _)| *frames >= 75), "{windows:?}");
        assert!(windows.iter().any(|(_, seconds)| *seconds >= 3), "{windows:?}");
    }
    // Over loopback no other packets are lost, and audio is not retransmitted.
    assert!(lost > 0, "no bit was flipped");
    for (program, other) in [(olga, "Ben"), (ben, "Olga")] {
        let end = program.interrupt();
        assert_eq!(end.code, Some(0));
        let states: Vec<_> =
            end.all("participant").iter().map(|one| one["state"].clone()).collect();
        assert!(!states.contains(&"reconnecting".into()), "{other} was {states:?}");
        assert_eq!(end.all("error").len(), 0, "{:#?}", end.all("error"));
    }
}

/// Returns the statistics of the other participant in a program, at the start and after each
/// second.
fn received(program: &mut Program, seconds: usize) -> Vec<serde_json::Value> {
    let next = |_| {
        let stats = program.wait_next("statistics", |event| event["event"] == "stats");
        at(&stats, "sessions/0/participants/0").clone()
    };
    (0..=seconds).map(next).collect()
}

/// Returns the decoded frames of the first five seconds, and the number of seconds with that tone.
fn window(stats: &[serde_json::Value], hz: f64) -> (u64, usize) {
    let decoded = |at: usize| stats[at]["video"]["decoded"].as_u64().expect("a count");
    let has_tone = |stats: &&serde_json::Value| {
        let audio = &stats["audio"];
        let is_tone = audio["tone_hz"].as_f64().is_some_and(|tone| (tone - hz).abs() < 5.0);
        is_tone && audio["level_dbfs"].as_f64() > Some(-40.0)
    };
    (decoded(5) - decoded(0), stats[1..=5].iter().filter(has_tone).count())
}

#[test]
fn invalid_and_oversized_messages_affect_only_their_sender() {
    alone_with_sockets(async {
        let hub = Hub::start();
        let mut olga = hub.open("audio-conference", "room");
        let socket_url = format!("{}/signal", hub.url.replace("http", "ws"));
        for junk in [
            Message::text("{\"type\":"),
            Message::text(format!(
                "{{\"type\":\"ping\",\"x\":{}1{}}}",
                "[".repeat(5000),
                "]".repeat(5000)
            )),
            Message::binary(vec![0_u8; 1000]),
            Message::text("x".repeat(1024 * 1024)),
        ] {
            let (mut socket, _) = tokio_tungstenite::connect_async(&socket_url).await.unwrap();
            let what = junk.len();
            let _ = socket.send(junk).await;
            let answer = async {
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message {
                        return text.to_string();
                    }
                }
                "closed".to_owned()
            };
            let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer to {what} bytes of junk"));
            assert!(answer == "closed" || answer.contains("bad-message"), "{answer}");
        }
        let mut ben = join(&hub, "room", "Ben", &[]);
        ben.participant("Olga", "live");
        olga.participant("Ben", "live");
    });
}

#[test]
fn a_tone_has_its_level_at_its_own_frequency_only() {
    let tone: Vec<f32> = (0..48_000)
        .map(|n| 0.1 * (n as f32 * 2.0 * std::f32::consts::PI * 440.0 / 48_000.0).sin())
        .collect();
    assert!((crate::rig::sound::level_of(&tone, 48_000.0, 440.0) + 20.0).abs() < 0.5);
    assert!(crate::rig::sound::level_of(&tone, 48_000.0, 880.0) < -80.0);
}
