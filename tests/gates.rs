//! Switches, taps and devices of real engines: what is closed does not pass, and others see it.
#![allow(clippy::unwrap_used, reason = "what is missing fails the test")]

#[path = "gates/people.rs"]
mod people;
mod rig;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use people::{Person, heard, id, options, pass, until};
use quintet::{
    engine::{Decode, EngineOptions, Picture, SourceSpec, SpeakerSpec},
    model::{Command, Gate, Size, SourceState},
};
use rig::{
    Folder,
    process::{Program, at},
};

const CONFERENCE: &str = "av-conference";

/// Below this nobody hears anything (a quiet room is at -60 dB of a calm voice).
const SILENT: f32 = -60.0;

fn pattern(width: u32, height: u32) -> SourceSpec {
    SourceSpec::Pattern { size: Size::new(width, height), fps: 15 }
}

/// Olga, who sends 440 Hz and a pattern.
fn olga() -> Person {
    let (camera, microphone) = (pattern(320, 180), SourceSpec::Tone { hz: 440.0 });
    Person::start(EngineOptions { camera, microphone, ..options("Olga") })
}

fn sound((packets, _, _): (u64, u64, u64)) -> u64 {
    packets
}

fn pictures((_, received, _): (u64, u64, u64)) -> u64 {
    received
}

fn decoded((_, _, decoded): (u64, u64, u64)) -> u64 {
    decoded
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_stops_every_packet_and_others_see_it() {
    let olga = olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Person::start(options("Ben"));
    ben.join(&link, "Olga").await;
    olga.live(CONFERENCE, "Ben").await;
    for (gate, medium) in [(Gate::Microphone, sound as fn(_) -> u64), (Gate::Camera, pictures)] {
        for session in [None, Some(CONFERENCE)] {
            ben.grows(CONFERENCE, "Olga", medium).await;
            until("on air", || olga.status(CONFERENCE).heard && olga.status(CONFERENCE).seen).await;
            olga.turn(session, gate, false);
            pass(200).await;
            let before = medium(ben.got(CONFERENCE, "Olga").await);
            pass(1000).await;
            let after = medium(ben.got(CONFERENCE, "Olga").await);
            assert_eq!(after, before, "{gate:?} of {session:?} is closed");
            let seen = ben.sees(CONFERENCE, "Olga").unwrap();
            let open = (gate != Gate::Microphone, gate != Gate::Camera);
            assert_eq!((seen.microphone, seen.camera), open);
            let status = olga.status(CONFERENCE);
            assert_eq!((status.heard, status.seen), open);
            let other = if gate == Gate::Microphone { pictures } else { sound };
            ben.grows(CONFERENCE, "Olga", other).await;
            olga.turn(session, gate, true);
        }
    }
    ben.grows(CONFERENCE, "Olga", sound).await;
    let own = olga.sees(CONFERENCE, "Ben").unwrap();
    assert_eq!((own.microphone, own.camera), (false, false), "Ben has no devices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_microphone_is_closed_and_reopens_on_the_same_connection() {
    let olga = olga();
    let link = olga.open(&["audio-conference"]).await.remove(0);
    let ben = Person::start(options("Ben"));
    ben.join(&link, "Olga").await;
    ben.grows("audio-conference", "Olga", sound).await;
    let peer = ben.sees("audio-conference", "Olga").unwrap().peer.unwrap();
    olga.turn(None, Gate::Microphone, false);
    until("a closed microphone", || olga.handle.snapshot().microphone == SourceState::Idle).await;
    assert_eq!(olga.handle.level(Picture::Local), -120.0);
    olga.turn(None, Gate::Microphone, true);
    ben.grows("audio-conference", "Olga", sound).await;
    let level = || ben.handle.level(Picture::Peer(peer));
    until("Olga's voice again", || (level() - -20.0).abs() < 1.0).await;
    assert_eq!(ben.sees("audio-conference", "Olga").unwrap().peer, Some(peer));
    let stats = olga.handle.stats().await.unwrap();
    assert_eq!((stats.captures.audio, stats.encoders.audio), (2, 1));
}

/// What joiners of three sessions of Olga's hear of her 440 Hz, when those of `closed` are closed
/// for her voice before anybody comes.
async fn levels_of(closed: &[&str]) -> Vec<f32> {
    const KINDS: [&str; 3] = ["audio/one-to-one", "audio-conference", "audio-broadcast"];
    let names = ["private", "room", "hall"];
    let (olga, folder) = (olga(), Folder::new());
    let mut joiners = vec![];
    for (name, kind) in names.into_iter().zip(KINDS) {
        let (session, kind) = (id(name), kind.parse().unwrap());
        let request = quintet::model::OpenRequest { session, kind, limit: None };
        olga.give(Command::Open(request));
        if closed.contains(&name) {
            olga.turn(Some(name), Gate::Microphone, false);
        }
    }
    for name in names {
        until("a session", || olga.status(name).link.is_some()).await;
        let link = olga.status(name).link.unwrap().to_string();
        let speaker = format!("file:{}", folder.file(&format!("{name}.wav")).display());
        let mut args = vec!["join", &link, "--name", name, "--camera", "none"];
        args.extend(["--microphone", "none", "--speaker", &speaker]);
        joiners.push(Program::start(&args));
    }
    for name in names {
        olga.live(name, name).await;
    }
    pass(4000).await;
    for joiner in joiners {
        let end = tokio::task::spawn_blocking(|| joiner.interrupt()).await.unwrap();
        assert_eq!(end.code, Some(0));
        let packets = at(end.summary(), "sessions/0/participants").to_string();
        assert!(packets.contains("Olga"), "{packets}");
    }
    names.iter().map(|name| heard(&folder.file(&format!("{name}.wav")), 440.0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_word_is_in_no_other_session() {
    let levels = levels_of(&["room", "hall"]).await;
    assert!((levels[0] - -17.0).abs() < 1.0, "a sine of -20 dB RMS: {levels:?}");
    assert!(levels[1] < SILENT && levels[2] < SILENT, "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_left_open_is_heard_by_the_measurement() {
    let levels = levels_of(&["hall"]).await;
    assert!(levels[1] > SILENT + 30.0, "the planted fault is not measured: {levels:?}");
    assert!(levels[2] < SILENT, "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_that_arrives_twice_is_played_once_by_whichever_copy_is_audible() {
    const BOTH: [&str; 2] = ["audio-conference", "audio-broadcast"];
    let (olga, folder) = (olga(), Folder::new());
    let links = olga.open(&BOTH).await;
    let ben = Person::start(options("Ben"));
    for link in &links {
        ben.join(link, "Olga").await;
    }
    for session in BOTH {
        ben.grows(session, "Olga", sound).await;
    }
    let listen = |session, open| ben.turn(Some(session), Gate::Listening, open);
    let speak = |session, open| olga.turn(Some(session), Gate::Microphone, open);
    let steps: [(&str, &dyn Fn(), f32); 5] = [
        ("both", &|| (), -17.0),
        ("broadcast alone", &|| listen(BOTH[0], false), -17.0),
        ("nothing", &|| listen(BOTH[1], false), -120.0),
        ("conference alone", &|| listen(BOTH[0], true), -17.0),
        (
            "broadcast, since she is muted in the conference",
            &|| {
                listen(BOTH[1], true);
                speak(BOTH[0], false);
            },
            -17.0,
        ),
    ];
    for (n, (what, turn, expected)) in steps.into_iter().enumerate() {
        turn();
        pass(500).await;
        let file = folder.file(&format!("{n}.wav"));
        ben.handle.set_speaker(SpeakerSpec::File(file.clone())).unwrap();
        pass(2500).await;
        ben.handle.set_speaker(SpeakerSpec::None).unwrap();
        pass(200).await;
        let level = heard(&file, 440.0);
        // Two copies in step would be 6 dB louder.
        assert!((level - expected).abs() < 1.5, "{what}: {level} dB instead of {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_opener_sends_somebody_out() {
    let olga = olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let mut args = vec!["join", &link, "--name", "Ben", "--camera", "none"];
    args.extend(["--microphone", "none", "--speaker", "none"]);
    let ben = Program::start(&args);
    olga.live(CONFERENCE, "Ben").await;
    let participant = olga.sees(CONFERENCE, "Ben").unwrap().participant;
    olga.give(Command::Eject { session: id(CONFERENCE), participant, address: false });
    let end = tokio::task::spawn_blocking(|| ben.end()).await.unwrap();
    assert_eq!(end.all("ended")[0]["reason"], "ejected");
    until("nobody is left", || olga.sees(CONFERENCE, "Ben").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_swapped_in_the_middle_of_a_call() {
    let olga = olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Person::start(options("Ben"));
    ben.join(&link, "Olga").await;
    ben.grows(CONFERENCE, "Olga", decoded).await;
    ben.grows(CONFERENCE, "Olga", sound).await;
    let peer = ben.sees(CONFERENCE, "Olga").unwrap().peer;
    olga.handle.set_camera(pattern(640, 360)).unwrap();
    olga.handle.set_microphone(SourceSpec::Tone { hz: 600.0 }).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    loop {
        let stats = ben.handle.stats().await.unwrap();
        let olga = &stats.sessions[0].participants[0];
        let width = olga.video.as_ref().map_or(0, |video| video.width);
        let tone = olga.audio.as_ref().and_then(|audio| audio.tone_hz).unwrap_or(0.0);
        if width == 640 && (tone - 600.0).abs() < 5.0 {
            break;
        }
        assert!(std::time::Instant::now() < end, "{width} pixels and {tone} Hz");
        pass(50).await;
    }
    assert_eq!(ben.sees(CONFERENCE, "Olga").unwrap().peer, peer, "the same connection");
    let stats = olga.handle.stats().await.unwrap();
    assert_eq!((stats.captures.video, stats.captures.audio), (2, 2));
    assert_eq!((stats.encoders.video, stats.encoders.audio), (1, 1));
    olga.handle.set_camera(SourceSpec::None).unwrap();
    until("no picture", || !ben.sees(CONFERENCE, "Olga").unwrap().camera).await;
    assert!(!olga.status(CONFERENCE).seen);
    olga.handle.set_camera(pattern(320, 180)).unwrap();
    ben.grows(CONFERENCE, "Olga", decoded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_somebody_looks_at_is_decoded() {
    let olga = olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Person::start(EngineOptions { decode: Decode::WhenSeen, ..options("Ben") });
    ben.join(&link, "Olga").await;
    ben.grows(CONFERENCE, "Olga", pictures).await;
    assert_eq!(decoded(ben.got(CONFERENCE, "Olga").await), 0);
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let wake = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let peer = ben.sees(CONFERENCE, "Olga").unwrap().peer.unwrap();
    let tap = ben.handle.picture(Picture::Peer(peer), Arc::new(wake)).unwrap();
    ben.grows(CONFERENCE, "Olga", decoded).await;
    assert!(woken.load(Ordering::Relaxed) >= 5);
    until("a picture", || tap.take().is_some_and(|frame| frame.size == Size::new(320, 180))).await;
    drop(tap);
    pass(300).await;
    let before = ben.got(CONFERENCE, "Olga").await;
    ben.grows(CONFERENCE, "Olga", pictures).await;
    assert_eq!(decoded(ben.got(CONFERENCE, "Olga").await), decoded(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sees_and_measures_oneself_before_anybody_comes() {
    let olga = olga();
    let (news, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let told = Arc::clone(&news);
    olga.handle.subscribe(Arc::new(move || {
        told.fetch_add(1, Ordering::Relaxed);
    }));
    let frames = Arc::clone(&count);
    let wake = move || {
        frames.fetch_add(1, Ordering::Relaxed);
    };
    let tap = olga.handle.picture(Picture::Local, Arc::new(wake)).unwrap();
    until("ten pictures", || count.load(Ordering::Relaxed) > 10).await;
    assert_eq!(tap.take().unwrap().size, Size::new(320, 180));
    assert_eq!(olga.handle.snapshot().microphone, SourceState::Idle);
    let level = olga.handle.microphone_level();
    until("the own voice", || (level.dbfs() - -20.0).abs() < 0.5).await;
    assert!(news.load(Ordering::Relaxed) >= 3, "opening and running were told");
    drop((tap, level));
    let idle = || {
        let snapshot = olga.handle.snapshot();
        (&snapshot.camera, &snapshot.microphone) == (&SourceState::Idle, &SourceState::Idle)
    };
    until("closed devices", idle).await;
    let stopped = count.load(Ordering::Relaxed);
    pass(300).await;
    assert_eq!(count.load(Ordering::Relaxed), stopped);
    assert_eq!(olga.handle.level(Picture::Local), -120.0);
}
