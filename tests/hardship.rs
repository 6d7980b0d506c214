//! The built program when things go wrong, over loopback: refusals, strangers, kills, and what
//! must never be heard.

mod rig;

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rig::{
    Folder,
    process::{Hub, PATTERN, Program, alone, alone_with_sockets, at},
};
use tokio_tungstenite::tungstenite::Message;

/// Opens one session of that kind as "Olga", who sends 440 Hz.
fn open(hub: &Hub, kind: &str, id: &str) -> Program {
    open_in(Folder::new(), hub, kind, id)
}

fn open_in(home: Folder, hub: &Hub, kind: &str, id: &str) -> Program {
    let args = [
        "open",
        "--kind",
        kind,
        "--id",
        id,
        "--hub",
        &hub.url,
        "--name",
        "Olga",
        "--camera",
        PATTERN,
        "--microphone",
        "tone:440",
        "--speaker",
        "none",
    ];
    let mut program = Program::start_in(home, &args, &[]);
    program.event("opened");
    program
}

/// Joins as that person, who sends 730 Hz: no harmonic of the opener's tone.
fn join(hub: &Hub, id: &str, name: &str, extra: &[&str]) -> Program {
    let mut args = vec![
        "join",
        id,
        "--hub",
        &hub.url,
        "--name",
        name,
        "--camera",
        PATTERN,
        "--microphone",
        "tone:730",
    ];
    args.extend(extra);
    if !extra.contains(&"--speaker") {
        args.extend(["--speaker", "none"]);
    }
    Program::start(&args)
}

#[test]
fn the_guest_of_a_private_line_is_not_heard_in_the_conference_beside_it() {
    let _turn = alone();
    let hub = Hub::start();
    let home = Folder::new();
    let heard = |name: &str| home.file(name).display().to_string();
    let speaker = format!("file:{}", heard("olga.wav"));
    let mut olga = Program::start(&[
        "open",
        "--kind",
        "audio-conference",
        "--id",
        "room",
        "--kind",
        "audio/one-to-one",
        "--id",
        "private",
        "--hub",
        &hub.url,
        "--name",
        "Olga",
        "--microphone",
        "tone:440",
        "--speaker",
        &speaker,
    ]);
    olga.events("opened", 2);
    let speaker = format!("file:{}", heard("member.wav"));
    let member = ["--speaker", speaker.as_str(), "--microphone", "none"];
    let mut member = Program::start(
        &[&["join", "room", "--hub", &hub.url, "--name", "Member"][..], &member].concat(),
    );
    let mut guest = join(&hub, "private", "Guest", &[]);
    guest.event("first-frame");
    member.event("first-frame");
    for _ in 0..4 {
        member.wait_next("statistics", |event| event["event"] == "stats");
    }
    assert_eq!(member.interrupt().code, Some(0));
    assert_eq!(guest.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
    let (at_olga, rate) = rig::sound::read_wav(&home.file("olga.wav"));
    let (in_room, _) = rig::sound::read_wav(&home.file("member.wav"));
    let level =
        |samples: &[f32], hz| rig::sound::level_of(rig::sound::steady(samples, rate), rate, hz);
    assert!(level(&at_olga, 730.0) > -30.0, "the opener hears the private guest");
    assert!(level(&in_room, 440.0) > -30.0, "the room hears the opener");
    let leaked = level(&in_room, 730.0) - level(&in_room, 440.0);
    assert!(leaked < -60.0, "the private guest is {leaked} dB below the opener in the room");
}

#[test]
fn refusals_are_typed_and_the_exit_code_tells() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = open(&hub, "audio/one-to-one", "desk");
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
fn a_leaver_is_gone_within_a_second_and_a_killed_one_within_ten() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = open(&hub, "audio-conference", "room");
    let mut leaver = join(&hub, "room", "Leaver", &[]);
    let mut killed = join(&hub, "room", "Killed", &[]);
    for name in ["Leaver", "Killed"] {
        olga.participant(name, "live");
    }
    leaver.participant("Killed", "live");
    killed.participant("Leaver", "live");
    leaver.signal("INT");
    let start = Instant::now();
    olga.participant("Leaver", "left");
    killed.participant("Leaver", "left");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(leaver.end().code, Some(0));
    let start = Instant::now();
    let home = killed.kill();
    olga.participant("Killed", "reconnecting");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    olga.participant("Killed", "gone");
    let gone = start.elapsed();
    assert!(gone > Duration::from_secs(8) && gone < Duration::from_secs(11), "{gone:?}");
    // Its token was left behind: it comes back into its own seat.
    let args = [
        "join",
        "room",
        "--hub",
        &hub.url,
        "--name",
        "Killed",
        "--speaker",
        "none",
        "--microphone",
        "tone:730",
    ];
    let mut back = Program::start_in(home, &args, &[]);
    back.participant("Olga", "live");
    olga.wait_next("live again", |event| event["name"] == "Killed" && event["state"] == "live");
    assert_eq!(back.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn a_frozen_program_is_reconnecting_then_gone_and_live_again_when_it_thaws() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = open(&hub, "audio-conference", "room");
    let mut ben = join(&hub, "room", "Ben", &[]);
    olga.participant("Ben", "live");
    ben.participant("Olga", "live");
    ben.signal("STOP");
    let start = Instant::now();
    olga.participant("Ben", "reconnecting");
    assert!(start.elapsed() < Duration::from_millis(5500), "{:?}", start.elapsed());
    olga.participant("Ben", "gone");
    let gone = start.elapsed();
    assert!(gone > Duration::from_secs(8) && gone < Duration::from_secs(12), "{gone:?}");
    ben.signal("CONT");
    let is_live = |event: &serde_json::Value| event["name"] == "Ben" && event["state"] == "live";
    olga.wait_next("Ben live again", is_live);
    assert_eq!(ben.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn a_conference_outlives_its_opener_and_admits_newcomers() {
    let _turn = alone();
    let hub = Hub::start();
    let mut olga = open(&hub, "audio-conference", "room");
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
    // The heir is whoever came first; when all have left, the session is over.
    for member in [ben, cleo, dora] {
        let end = member.interrupt();
        assert_eq!(end.code, Some(0));
        assert_eq!(end.all("ended")[0]["reason"], "left");
    }
    let late = join(&hub, "room", "Late", &["--no-wait"]).end();
    assert_eq!(late.all("error")[0]["code"], "no-such-session");
}

#[test]
fn an_opener_who_crashed_takes_its_session_back_and_nobody_else_can() {
    let _turn = alone();
    let hub = Hub::start();
    let olga = open(&hub, "av-broadcast", "show");
    let mut viewer = join(&hub, "show", "Vera", &[]);
    viewer.event("first-frame");
    let home = olga.kill();
    let thief =
        Program::start(&["open", "--kind", "av-broadcast", "--id", "show", "--hub", &hub.url]);
    assert_eq!(thief.end().all("error")[0]["code"], "id-taken");
    let olga = open_in(home, &hub, "av-broadcast", "show");
    viewer.wait_next("the opener again", |event| {
        event["event"] == "participant" && event["name"] == "Olga" && event["state"] == "live"
    });
    let before = viewer.wait_next("statistics", |event| event["event"] == "stats");
    let decoded = |stats: &serde_json::Value| {
        at(stats, "sessions/0/participants/0/video/decoded").as_u64().unwrap()
    };
    viewer.wait_next("pictures again", |event| {
        event["event"] == "stats" && decoded(event) > decoded(&before) + 10
    });
    assert_eq!(olga.interrupt().code, Some(0));
    assert_eq!(viewer.event("ended")["reason"], "opener-left");
}

#[test]
fn programs_of_one_person_do_not_take_each_others_sessions() {
    let _turn = alone();
    let hub = Hub::start();
    let home = Folder::new();
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
fn a_killed_hub_harms_no_running_media_and_a_new_one_admits_newcomers() {
    let _turn = alone();
    let hub = Hub::start();
    let address = hub.url.trim_start_matches("http://").to_owned();
    let mut olga = open(&hub, "av-conference", "room");
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
    assert!(stats(&mut ben) > before + 30, "pictures go on without a hub");
    let hub = Hub::start_on(&address);
    let mut cleo = join(&hub, "room", "Cleo", &[]);
    for name in ["Olga", "Ben"] {
        cleo.participant(name, "live");
    }
    let before = stats(&mut ben);
    assert!(stats(&mut ben) >= before + 5, "and go on with the new one");
    let end = ben.interrupt();
    assert_eq!((end.code, end.all("hub-lost").len(), end.all("hub-back").len()), (Some(0), 1, 1));
    let disturbed = end.all("participant").into_iter().filter(|event| {
        event["name"] == "Olga" && event["state"] != "connecting" && event["state"] != "live"
    });
    assert_eq!(disturbed.count(), 0, "nobody was taken for lost: {:#?}", end.all("participant"));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[test]
fn garbage_and_oversize_hurt_nobody_but_who_sends_them() {
    alone_with_sockets(async {
        let hub = Hub::start();
        let mut olga = open(&hub, "audio-conference", "room");
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
    assert!((rig::sound::level_of(&tone, 48_000.0, 440.0) + 20.0).abs() < 0.5);
    assert!(rig::sound::level_of(&tone, 48_000.0, 880.0) < -80.0);
}
