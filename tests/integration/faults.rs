//! The built program under faults, over loopback: refusals, untrusted input, killed processes, and
//! audio that must not leak.

use std::{
    env,
    ops::Range,
    time::{Duration, Instant},
};

use crate::rig::{
    TempFolder,
    process::{Hub, Program, at, run_async, share_turn, write_hub_identity},
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
    hub.start_participant(name, &[&["join", id, "--microphone", "tone:730"], extra].concat())
}

#[test]
fn the_guest_of_a_private_session_is_not_in_the_audio_of_the_conference_beside_it() {
    let _turn = share_turn();
    let hub = Hub::start();
    let home = TempFolder::new();
    let path = |name: &str| home.file(name).display().to_string();
    let speaker = format!("file:{}", path("olga.wav"));
    let room = ["open", "--kind", "audio-conference", "--id", "room"];
    let private = ["--kind", "audio/one-to-one", "--id", "private", "--speaker", &speaker];
    let mut olga = hub.start_participant("Olga", &[&room[..], &private].concat());
    olga.events("opened", 2);
    let speaker = format!("file:{}", path("member.wav"));
    let listens = ["join", "room", "--speaker", &speaker, "--microphone", "none"];
    let mut member = hub.start_participant("Member", &listens);
    let mut guest = join(&hub, "private", "Guest", &[]);
    guest.event("first-frame");
    member.event("first-frame");
    for _ in 0..4 {
        member.wait_next("statistics", |event| event["event"] == "stats");
    }
    assert_eq!(member.terminate().code, Some(0));
    assert_eq!(guest.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(0));
    let (at_olga, rate) = crate::rig::wav_analysis::read_wav(&home.file("olga.wav"));
    let (in_room, _) = crate::rig::wav_analysis::read_wav(&home.file("member.wav"));
    let level = |samples: &[f32], hz| {
        crate::rig::wav_analysis::tone_level_db(
            crate::rig::wav_analysis::steady_part(samples, rate),
            rate,
            hz,
        )
    };
    assert!(level(&at_olga, 730.0) > -30.0, "the opener receives the private guest");
    assert!(level(&in_room, 440.0) > -30.0, "the room receives the opener");
    let leaked = level(&in_room, 730.0) - level(&in_room, 440.0);
    assert!(leaked < -60.0, "the private guest is only {leaked} dB from the opener in the room");
}

#[test]
fn refusals_have_codes_and_exit_codes() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = hub.open_session("audio/one-to-one", "desk");
    let twice =
        Program::start(&["open", "--kind", "av-conference", "--id", "desk", "--hub", &hub.url]);
    let twice = twice.wait_for_exit();
    assert_eq!(
        (twice.code, &twice.events_named("error")[0]["code"]),
        (Some(4), &"id-taken".into())
    );
    let mut first = join(&hub, "desk", "First", &[]);
    first.participant("Olga", "live");
    let second = join(&hub, "desk", "Second", &[]).wait_for_exit();
    assert_eq!(
        (second.code, &second.events_named("error")[0]["code"]),
        (Some(4), &"session-full".into())
    );
    assert_eq!(second.events_named("ended").len(), 1);
    olga.participant("First", "live");
    let nowhere =
        Program::start(&["join", "x", "--no-wait", "--hub", "127.0.0.1:9"]).wait_for_exit();
    assert_eq!(nowhere.code, Some(3), "{:#?}", nowhere.events);
    assert_eq!(nowhere.events_named("error")[0]["code"], "hub-unreachable");
}

#[test]
fn a_guest_that_leaves_is_gone_at_once_and_a_killed_one_after_ten_seconds() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = hub.open_session("audio-conference", "room");
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
    assert_eq!(leaver.wait_for_exit().code, Some(0));
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
    let mut back = hub.start_participant_in(home, "Killed", &["join", "room"]);
    back.participant("Olga", "live");
    olga.wait_next("live again", |event| event["name"] == "Killed" && event["state"] == "live");
    assert_eq!(back.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(0));
}

#[test]
fn a_stopped_program_is_reconnecting_then_gone_and_live_again_when_it_continues() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = hub.open_session("audio-conference", "room");
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
    assert_eq!(ben.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(0));
}

#[test]
fn a_conference_continues_without_its_opener_and_admits_new_guests() {
    let _turn = share_turn();
    let hub = Hub::start();
    let mut olga = hub.open_session("audio-conference", "room");
    let mut ben = join(&hub, "room", "Ben", &[]);
    let mut cleo = join(&hub, "room", "Cleo", &[]);
    olga.participant("Cleo", "live");
    cleo.participant("Ben", "live");
    assert_eq!(olga.terminate().code, Some(0));
    ben.participant("Olga", "left");
    let mut dora = join(&hub, "room", "Dora", &["--no-wait"]);
    for name in ["Ben", "Cleo"] {
        dora.participant(name, "live");
    }
    cleo.participant("Dora", "live");
    // The first guest takes over as owner; when all have left, the session ends.
    for member in [ben, cleo, dora] {
        let end = member.terminate();
        assert_eq!(end.code, Some(0));
        assert_eq!(end.events_named("ended")[0]["reason"], "left");
    }
    let late = join(&hub, "room", "Late", &["--no-wait"]).wait_for_exit();
    assert_eq!(late.events_named("error")[0]["code"], "no-such-session");
}

#[test]
fn an_opener_that_crashed_gets_its_session_back_and_no_other_client_can() {
    let _turn = share_turn();
    let hub = Hub::start();
    let olga = hub.open_session("av-broadcast", "show");
    let mut viewer = join(&hub, "show", "Vera", &[]);
    viewer.event("first-frame");
    let home = olga.kill();
    let thief =
        Program::start(&["open", "--kind", "av-broadcast", "--id", "show", "--hub", &hub.url]);
    assert_eq!(thief.wait_for_exit().events_named("error")[0]["code"], "id-taken");
    let olga =
        hub.start_participant_in(home, "Olga", &["open", "--kind", "av-broadcast", "--id", "show"]);
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
    assert_eq!(olga.terminate().code, Some(0));
    assert_eq!(viewer.event("ended")["reason"], "opener-left");
}

#[test]
fn programs_of_one_user_do_not_take_each_others_sessions() {
    let _turn = share_turn();
    let hub = Hub::start();
    let home = TempFolder::new();
    write_hub_identity(&home);
    let state = home.file("state").display().to_string();
    let start = |args: &[&str]| {
        let args =
            [args, &["--hub", &hub.url, "--speaker", "none", "--microphone", "none"]].concat();
        Program::start_in(TempFolder::new(), &args, &[("XDG_STATE_HOME", state.as_str())])
    };
    let open = ["open", "--kind", "audio-conference", "--id", "room"];
    let mut olga = start(&open);
    olga.event("opened");
    let again = start(&open).wait_for_exit();
    assert_eq!(
        (again.code, &again.events_named("error")[0]["code"]),
        (Some(4), &"id-taken".into())
    );
    let mut guest = start(&["join", "room", "--name", "Guest"]);
    olga.participant("Guest", "live");
    guest.event("joined");
    assert_eq!(guest.terminate().code, Some(0));
    olga.participant("Guest", "left");
    olga.kill();
    let mut olga = start(&open);
    olga.event("opened");
    assert_eq!(olga.terminate().code, Some(0));
}

#[test]
fn media_continue_when_the_hub_is_killed_and_a_new_hub_admits_new_guests() {
    let _turn = share_turn();
    let hub = Hub::start();
    let address = hub.url.trim_start_matches("http://").to_owned();
    let mut olga = hub.open_session("av-conference", "room");
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
    let end = ben.terminate();
    assert_eq!(
        (end.code, end.events_named("hub-lost").len(), end.events_named("hub-back").len()),
        (Some(0), 1, 1)
    );
    let interrupted = end.events_named("participant").into_iter().filter(|event| {
        event["name"] == "Olga" && event["state"] != "connecting" && event["state"] != "live"
    });
    assert_eq!(interrupted.count(), 0, "Olga stayed live: {:#?}", end.events_named("participant"));
    assert_eq!(olga.terminate().code, Some(0));
}

/// Takes ten seconds; `QUINTET_SECONDS=60` makes it longer. `transport/impaired_socket.rs` flips
/// the bits; `tests/transport/links.rs` checks that no flipped packet is accepted.
#[test]
fn a_call_survives_flipped_bits() {
    let _turn = share_turn();
    let seconds = env::var("QUINTET_SECONDS").map_or(10, |text| text.parse().expect("a number"));
    let hub = Hub::start();
    let talks = ["--camera", "pattern:640x360@30", "--impair"];
    let open = ["open", "--kind", "av-conference", "--id", "room"];
    let mut olga =
        hub.start_participant("Olga", &[&open[..], &talks, &["flip=0.01,seed=1"]].concat());
    olga.event("opened");
    let mut ben = join(&hub, "room", "Ben", &[&talks[..], &["flip=0.01,seed=2"]].concat());
    for program in [&mut olga, &mut ben] {
        program.event("first-frame");
    }
    let mut lost = 0;
    for (program, hz) in [(&mut olga, 730.0), (&mut ben, 440.0)] {
        let stats = received(program, seconds);
        let windows: Vec<_> =
            (0..seconds).step_by(5).map(|from| five_second_window(&stats[from..], hz)).collect();
        lost += stats[seconds]["audio"]["lost"].as_u64().expect("a count");
        println!("(frames, seconds with {hz} Hz) in 5 s each: {windows:?}; lost so far: {lost}");
        assert!(windows.iter().all(|(frames, _)| *frames > 20), "{windows:?}");
        assert!(windows.iter().any(|(frames, _)| *frames >= 75), "{windows:?}");
        assert!(windows.iter().any(|(_, seconds)| *seconds >= 3), "{windows:?}");
    }
    // Over loopback no other packets are lost, and audio is not retransmitted.
    assert!(lost > 0, "no bit was flipped");
    for (program, other) in [(olga, "Ben"), (ben, "Olga")] {
        let end = program.terminate();
        assert_eq!(end.code, Some(0));
        let states: Vec<_> =
            end.events_named("participant").iter().map(|one| one["state"].clone()).collect();
        assert!(!states.contains(&"reconnecting".into()), "{other} was {states:?}");
        assert_eq!(end.events_named("error").len(), 0, "{:#?}", end.events_named("error"));
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
fn five_second_window(stats: &[serde_json::Value], hz: f64) -> (u64, usize) {
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
    run_async(async {
        let hub = Hub::start();
        let mut olga = hub.open_session("audio-conference", "room");
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
    assert!((crate::rig::wav_analysis::tone_level_db(&tone, 48_000.0, 440.0) + 20.0).abs() < 0.5);
    assert!(crate::rig::wav_analysis::tone_level_db(&tone, 48_000.0, 880.0) < -80.0);
}
