//! Several processes of the built program over loopback: what the command line promises.

use crate::rig::process::{Exit, Hub, PATTERN, Program, at, list, share_turn};
use serde_json::Value;

const FIVE: [&str; 5] =
    ["av-conference", "av-broadcast", "audio-conference", "audio-broadcast", "video-broadcast"];

/// Opens the five sessions at the hub as "Olga", with a tone of 440 Hz.
fn open_five(hub: &Hub) -> (Program, Vec<Value>) {
    let mut opener = hub.start_participant("Olga", &["open", "--five"]);
    let opened = opener.events("opened", 5);
    (opener, opened)
}

/// Joins a link under that name, with a tone of `hz`.
fn join(hub: &Hub, link: &str, name: &str, hz: u32) -> Program {
    hub.start_participant(name, &["join", link, "--microphone", &format!("tone:{hz}")])
}

fn link_of(opened: &Value) -> &str {
    opened["link"].as_str().expect("a link")
}

/// Returns the statistics of the participant of that name in the first session.
fn participant_stats<'a>(end: &'a Exit, name: &str) -> &'a Value {
    let participants = list(end.summary(), "sessions/0/participants");
    let found = participants.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {:#}", end.summary()))
}

/// Asserts that video with the timecode label `name` was received.
fn assert_video(stats: &Value, name: &str) {
    let video = &stats["video"];
    assert_eq!((&video["width"], &video["height"]), (&320.into(), &180.into()), "{stats:#}");
    // More than the first frame was decoded; how many more depends on the load of the machine.
    assert!(video["decoded"].as_u64() > Some(2), "{stats:#}");
    assert_eq!(video["strip"], name, "{stats:#}");
    assert!(at(video, "latency_ms/p50").as_f64() > Some(0.0), "{stats:#}");
}

/// Waits until the statistics of a participant in a session match the condition.
fn wait_for(
    program: &mut Program,
    (session, name): (&Value, &str),
    holds: impl Fn(&Value) -> bool,
) {
    program.wait_next(&format!("media from {name} in {session}"), |event| {
        let sessions = event["sessions"].as_array().into_iter().flatten();
        let here = sessions.filter(|one| one["session"] == *session);
        event["event"] == "stats"
            && here
                .flat_map(|one| list(one, "participants"))
                .any(|one| one["name"] == name && holds(one))
    });
}

/// Whether audio with that tone is received.
fn has_tone(stats: &Value, hz: f64) -> bool {
    let tone = stats["audio"]["tone_hz"].as_f64();
    tone.is_some_and(|tone| (tone - hz).abs() < 5.0)
        && stats["audio"]["level_dbfs"].as_f64() > Some(-40.0)
}

/// Whether more than the first frames were decoded.
fn has_video(stats: &Value) -> bool {
    stats["video"]["decoded"].as_u64() > Some(2)
}

/// Whether `rtc` describes the connection, with rates since the statistics before.
fn has_rtc(stats: &Value, kind: &str) -> bool {
    let rtc = stats["rtc"].as_array().map_or(&[][..], Vec::as_slice);
    let objects = |kind: &str| rtc.iter().filter(|one| one["type"] == kind).collect::<Vec<_>>();
    let received = objects("inbound-rtp");
    let is_received = |stream: &&Value| {
        let counter = if stream["kind"] == "video" { "framesDecoded" } else { "audioLevel" };
        stream["bitrate"].as_u64() > Some(1000)
            && stream["meanJitterBufferDelay"].as_f64() > Some(0.0)
            && stream[counter].as_f64() > Some(0.0)
    };
    let [pair] = &objects("candidate-pair")[..] else { return false };
    let [transport] = &objects("transport")[..] else { return false };
    received.len() == if kind.starts_with("av-") { 2 } else { 1 }
        && received.iter().all(is_received)
        && objects("outbound-rtp").is_empty() != kind.ends_with("conference")
        && pair["currentRoundTripTime"].as_f64() > Some(0.0)
        && pair["bitrateReceived"].as_u64() > Some(1000)
        && pair["id"] == transport["selectedCandidatePairId"]
}

#[test]
fn five_sessions_reach_five_joiners_from_one_capture_and_one_encoder() {
    let _turn = share_turn();
    let hub = Hub::start();
    let (mut opener, opened) = open_five(&hub);
    let kinds: Vec<_> = opened.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, FIVE);
    let mut joiners: Vec<_> = opened
        .iter()
        .enumerate()
        .map(|(n, one)| join(&hub, link_of(one), &format!("Joiner{n}"), 600 + 100 * n as u32))
        .collect();
    for joiner in &mut joiners {
        joiner.event("first-frame");
    }
    for ((joiner, one), kind) in joiners.iter_mut().zip(&opened).zip(FIVE) {
        wait_for(joiner, (&one["session"], "Olga"), |stats| {
            (kind.starts_with("audio") || has_video(stats))
                && (kind.starts_with("video") || has_tone(stats, 440.0))
                && has_rtc(stats, kind)
        });
    }
    wait_for(&mut opener, (&opened[0]["session"], "Joiner0"), |stats| {
        has_video(stats) && has_tone(stats, 600.0)
    });
    wait_for(&mut opener, (&opened[2]["session"], "Joiner2"), |stats| has_tone(stats, 800.0));
    let ends: Vec<_> = joiners.into_iter().map(Program::terminate).collect();
    for (n, (end, kind)) in ends.iter().zip(FIVE).enumerate() {
        assert_eq!(end.code, Some(0), "{kind}: {:#?}", end.events);
        assert_eq!(at(end.summary(), "sessions/0/kind"), kind);
        let olga = participant_stats(end, "Olga");
        match kind {
            "audio-conference" | "audio-broadcast" => assert!(olga["video"].is_null(), "{olga:#}"),
            _ => assert_video(olga, "Olga"),
        }
        assert_eq!(olga["audio"].is_null(), kind == "video-broadcast", "{kind}: {olga:#}");
        // A viewer captures nothing, whatever devices it was given.
        let (video, audio) = match n {
            0 => (1, 1),
            2 => (0, 1),
            _ => (0, 0),
        };
        assert_eq!(at(end.summary(), "captures/video"), video, "{kind}");
        assert_eq!(at(end.summary(), "captures/audio"), audio, "{kind}");
    }
    let end = opener.terminate();
    assert_eq!(end.code, Some(0));
    let summary = end.summary();
    for counts in ["captures", "encoders"] {
        assert_eq!(summary[counts], serde_json::json!({"video": 1, "audio": 1}), "{counts}");
    }
    let sessions = list(summary, "sessions");
    assert_eq!(sessions.len(), 5);
    for (n, session) in sessions.iter().enumerate() {
        assert_eq!(session["kind"], FIVE[n]);
        let guest = at(session, "participants/0");
        assert_eq!(guest["name"], format!("Joiner{n}"));
        let sent = guest["audio"]["packets"].as_u64().unwrap_or_default();
        match n {
            0 => assert_video(guest, "Joiner0"),
            2 => assert!(sent > 0, "{guest:#}"),
            _ => {
                let frames = guest["video"]["received"].as_u64().unwrap_or_default();
                assert_eq!((sent, frames), (0, 0), "a viewer sends no media: {guest:#}");
            }
        }
    }
    for joiner in 0..5 {
        let name = format!("Joiner{joiner}");
        let left = |event: &&Value| event["name"] == name.as_str() && event["state"] == "left";
        assert_eq!(end.events_named("participant").into_iter().filter(left).count(), 1, "{name}");
    }
}

#[test]
fn a_guest_waits_for_a_session_that_is_not_open_yet_unless_no_wait_is_given() {
    let _turn = share_turn();
    let hub = Hub::start();
    let early =
        |extra: &[&str]| hub.start_participant("Early", &[&["join", "town-hall"], extra].concat());
    let hasty = early(&["--no-wait"]).wait_for_exit();
    assert_eq!(hasty.code, Some(4));
    assert_eq!(hasty.events_named("error")[0]["code"], "no-such-session");
    let mut patient = early(&[]);
    patient.event("waiting");
    let mut opener = hub.open_session("av-broadcast", "town-hall");
    assert_eq!(opener.event("opened")["session"], "town-hall");
    assert_eq!(patient.event("joined")["kind"], "av-broadcast");
    patient.event("first-frame");
    let end = opener.terminate();
    assert_eq!(end.code, Some(0));
    let ended = patient.event("ended");
    assert_eq!((&ended["session"], &ended["reason"]), (&"town-hall".into(), &"opener-left".into()));
    assert_eq!(patient.wait_for_exit().code, Some(0));
    let late = early(&["--for", "300ms"]).wait_for_exit();
    assert_eq!(late.code, Some(6), "still waiting when the time is up");
}

#[test]
fn one_process_opens_five_and_joins_three_others() {
    let _turn = share_turn();
    let hub = Hub::start();
    let (olga, hers) = open_five(&hub);
    let mut args = vec!["join"];
    args.extend([link_of(&hers[0]), link_of(&hers[1]), link_of(&hers[3])]);
    for kind in FIVE {
        args.extend(["--open", kind]);
    }
    args.extend(["--microphone", "tone:880"]);
    let mut piet = hub.start_participant("Piet", &args);
    let his = piet.events("opened", 5);
    piet.events("joined", 3);
    piet.events("first-frame", 3);
    let mut viewer = join(&hub, link_of(&his[1]), "Vera", 700);
    viewer.event("first-frame");
    wait_for(&mut viewer, (&his[1]["session"], "Piet"), has_video);
    assert_video(participant_stats(&viewer.terminate(), "Piet"), "Piet");
    wait_for(&mut piet, (&hers[0]["session"], "Olga"), |stats| {
        has_video(stats) && has_tone(stats, 440.0)
    });
    let end = piet.terminate();
    assert_eq!(end.code, Some(0));
    assert_eq!(list(end.summary(), "sessions").len(), 8);
    assert_eq!(end.summary()["captures"], serde_json::json!({"video": 1, "audio": 1}));
    assert_eq!(end.summary()["encoders"], serde_json::json!({"video": 1, "audio": 1}));
    let conference = participant_stats_in(&end, hers[0]["session"].as_str().unwrap(), "Olga");
    assert_video(&conference, "Olga");
    assert_eq!(olga.terminate().code, Some(0));
}

fn participant_stats_in(end: &Exit, session: &str, name: &str) -> Value {
    let sessions = list(end.summary(), "sessions");
    let session = sessions.iter().find(|one| one["session"] == session).expect("the session");
    let participants = list(session, "participants");
    participants.iter().find(|one| one["name"] == name).expect("the participant").clone()
}

#[test]
fn a_mesh_of_four_with_a_member_without_devices_connects_all_pairs() {
    let _turn = share_turn();
    let hub = Hub::start();
    let start = |name: &str, camera: &str, microphone: &str, first: bool| {
        let mut args = match first {
            true => vec!["open", "--kind", "av-conference", "--id", "mesh"],
            false => vec!["join", "mesh"],
        };
        args.extend(["--camera", camera, "--microphone", microphone]);
        hub.start_participant(name, &args)
    };
    let names = ["Ann", "Ben", "Cleo", "Mute"];
    let mut members = vec![start("Ann", PATTERN, "tone:400", true)];
    members[0].event("opened");
    members.push(start("Ben", PATTERN, "tone:500", false));
    members.push(start("Cleo", PATTERN, "tone:600", false));
    members.push(start("Mute", "none", "none", false));
    for (member, own) in members.iter_mut().zip(names) {
        for other in names.into_iter().filter(|name| *name != own) {
            member.participant(other, "live");
        }
    }
    for (member, own) in members.iter_mut().zip(names) {
        for (other, hz) in [("Ann", 400.0), ("Ben", 500.0), ("Cleo", 600.0)] {
            if other != own {
                wait_for(member, (&"mesh".into(), other), |stats| {
                    has_video(stats) && has_tone(stats, hz)
                });
            }
        }
    }
    for (member, own) in members.into_iter().zip(names).rev() {
        let end = member.terminate();
        assert_eq!(end.code, Some(0));
        for other in names.into_iter().filter(|name| *name != own) {
            let stats = participant_stats(&end, other);
            if other == "Mute" {
                assert_eq!(at(stats, "video/received"), 0);
                assert_eq!(at(stats, "audio/packets"), 0);
            } else {
                assert_video(stats, other);
            }
        }
    }
}
