//! Mute switches, taps and devices of real engines: a muted medium is not sent, and the other
//! participants see that it is muted.
#![allow(clippy::unwrap_used, reason = "a missing value fails the test")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::rig::engine_client::{
    Client, Received, id, options, recorded_level, sleep_ms, wait_recorded, wait_until,
};
use crate::rig::{
    TempFolder,
    process::{Program, at},
};
use quintet::{
    engine::{Decode, EngineOptions, SourceSpec, SpeakerSpec, TrackRef},
    model::{
        ActiveSpeaker, Command, DeviceState, MuteSwitch, PerSource, Size, SoundCheck,
        SoundCheckStage, Source,
    },
};

const CONFERENCE: &str = "av-conference";

/// The level below which a recording counts as silent (a quiet room is 60 dB below calm speech).
const SILENCE_DB: f32 = -60.0;

fn pattern(width: u32, height: u32) -> SourceSpec {
    SourceSpec::Pattern { size: Size::new(width, height), fps: 15 }
}

/// Starts the client Olga, which sends a tone of 440 Hz and a test pattern.
fn start_olga() -> Client {
    let (camera, microphone) = (pattern(320, 180), SourceSpec::Tone { hz: 440.0 });
    Client::start(EngineOptions { camera, microphone, ..options("Olga") })
}

fn audio_packets(received: Received) -> u64 {
    received.audio_packets
}

fn frames_received(received: Received) -> u64 {
    received.frames
}

fn frames_decoded(received: Received) -> u64 {
    received.decoded_frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_medium_stops_every_packet_and_others_see_it() {
    let olga = start_olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Client::start(options("Ben"));
    ben.join(&link, "Olga").await;
    olga.wait_live(CONFERENCE, "Ben").await;
    for (switch, medium) in [
        (MuteSwitch::MICROPHONE, audio_packets as fn(_) -> u64),
        (MuteSwitch::CAMERA, frames_received),
    ] {
        for session in [None, Some(CONFERENCE)] {
            ben.wait_for_more(CONFERENCE, "Olga", medium).await;
            wait_until("sending", || olga.status(CONFERENCE).sending == PerSource::ALL).await;
            olga.set_enabled(session, switch, false);
            sleep_ms(200).await;
            let before = medium(ben.received(CONFERENCE, "Olga").await);
            sleep_ms(1000).await;
            let after = medium(ben.received(CONFERENCE, "Olga").await);
            assert_eq!(after, before, "{switch:?} of {session:?} is muted");
            let seen = ben.participant(CONFERENCE, "Olga").unwrap();
            let enabled = PerSource::from_fn(|source| switch != MuteSwitch::Source(source));
            assert_eq!(seen.sends, enabled);
            let status = olga.status(CONFERENCE);
            assert_eq!(status.sending, enabled);
            let other =
                if switch == MuteSwitch::MICROPHONE { frames_received } else { audio_packets };
            ben.wait_for_more(CONFERENCE, "Olga", other).await;
            olga.set_enabled(session, switch, true);
        }
    }
    ben.wait_for_more(CONFERENCE, "Olga", audio_packets).await;
    let own = olga.participant(CONFERENCE, "Ben").unwrap();
    assert_eq!(own.sends, PerSource::NONE, "Ben has no devices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_muted_microphone_is_closed_and_reopens_on_the_same_connection() {
    let olga = start_olga();
    let link = olga.open(&["audio-conference"]).await.remove(0);
    let ben = Client::start(options("Ben"));
    ben.join(&link, "Olga").await;
    ben.wait_for_more("audio-conference", "Olga", audio_packets).await;
    let peer = ben.participant("audio-conference", "Olga").unwrap().peer.unwrap();
    olga.set_enabled(None, MuteSwitch::MICROPHONE, false);
    wait_until("a closed microphone", || {
        olga.handle.snapshot().devices.sources.microphone == DeviceState::Idle
    })
    .await;
    assert_eq!(olga.handle.level(TrackRef::MICROPHONE), -120.0);
    olga.set_enabled(None, MuteSwitch::MICROPHONE, true);
    ben.wait_for_more("audio-conference", "Olga", audio_packets).await;
    let level = || ben.handle.level(TrackRef::Peer(peer, Source::Microphone));
    wait_until("Olga's tone again", || (level() - -20.0).abs() < 1.0).await;
    assert_eq!(ben.participant("audio-conference", "Olga").unwrap().peer, Some(peer));
    let stats = olga.handle.stats().await.unwrap();
    assert_eq!((stats.captures.audio, stats.encoders.audio), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_is_shown_at_both_ends_until_it_is_muted() {
    let olga = start_olga();
    let link = olga.open(&["audio-conference"]).await.remove(0);
    let ben = Client::start(options("Ben"));
    ben.join(&link, "Olga").await;
    let who = ben.participant("audio-conference", "Olga").unwrap().participant;
    let speaker = |client: &Client| client.status("audio-conference").active_speaker;
    let is_olga = Some(ActiveSpeaker::Participant(who));
    wait_until("Ben sees Olga speak", || speaker(&ben) == is_olga).await;
    wait_until("Olga sees herself speak", || speaker(&olga) == Some(ActiveSpeaker::Own)).await;
    olga.set_enabled(None, MuteSwitch::MICROPHONE, false);
    for client in [&ben, &olga] {
        wait_until("nobody speaks", || speaker(client).is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_themselves_is_sent_to_nobody_until_it_was_played() {
    let folder = TempFolder::new();
    let file = folder.file("olga.wav");
    let speaker = format!("file:{}", file.display()).parse().unwrap();
    let microphone = SourceSpec::Tone { hz: 440.0 };
    let olga = Client::start(EngineOptions { microphone, speaker, ..options("Olga") });
    let link = olga.open(&["audio-conference"]).await.remove(0);
    let ben = Client::start(options("Ben"));
    ben.join(&link, "Olga").await;
    ben.wait_for_more("audio-conference", "Olga", audio_packets).await;
    let stage = || olga.handle.snapshot().sound_check;
    olga.send(Command::StartSoundCheck(SoundCheck::HearYourself));
    wait_until("it is recorded", || stage() == Some(SoundCheckStage::Recording)).await;
    sleep_ms(300).await;
    let before = ben.received("audio-conference", "Olga").await.audio_packets;
    wait_until("it is played", || stage() == Some(SoundCheckStage::PlayingBack)).await;
    let after = ben.received("audio-conference", "Olga").await.audio_packets;
    assert_eq!(after, before, "Ben hears none of it");
    wait_until("it has ended", || stage().is_none()).await;
    ben.wait_for_more("audio-conference", "Olga", audio_packets).await;
    olga.handle.close().await;
    let level = recorded_level(&file, 440.0);
    assert!(level > -40.0, "the tone is in what was played: {level}");
}

/// Returns the level of Olga's 440 Hz in the recordings of the guests of her three sessions. In the
/// sessions `muted`, her microphone is muted before the guests join.
async fn levels_of(muted: &[&str]) -> Vec<f32> {
    const KINDS: [&str; 3] = ["audio/one-to-one", "audio-conference", "audio-broadcast"];
    let names = ["private", "room", "hall"];
    let (olga, folder) = (start_olga(), TempFolder::new());
    let mut joiners = vec![];
    for (name, kind) in names.into_iter().zip(KINDS) {
        let (session, kind) = (id(name), kind.parse().unwrap());
        let request = quintet::model::OpenRequest { session, kind, limit: None };
        olga.send(Command::Open(request));
        if muted.contains(&name) {
            olga.set_enabled(Some(name), MuteSwitch::MICROPHONE, false);
        }
    }
    for name in names {
        wait_until("a session", || olga.status(name).link.is_some()).await;
        let link = olga.status(name).link.unwrap().to_string();
        let speaker = format!("file:{}", folder.file(&format!("{name}.wav")).display());
        let mut args = vec!["join", &link, "--name", name, "--camera", "none"];
        args.extend(["--microphone", "none", "--speaker", &speaker]);
        joiners.push(Program::start(&args));
    }
    for name in names {
        olga.wait_live(name, name).await;
    }
    sleep_ms(4000).await;
    for joiner in joiners {
        let end = tokio::task::spawn_blocking(|| joiner.terminate()).await.unwrap();
        assert_eq!(end.code, Some(0));
        let packets = at(end.summary(), "sessions/0/participants").to_string();
        assert!(packets.contains("Olga"), "{packets}");
    }
    names.iter().map(|name| recorded_level(&folder.file(&format!("{name}.wav")), 440.0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audio_reaches_only_the_sessions_where_it_is_not_muted() {
    let levels = levels_of(&["room", "hall"]).await;
    assert!((levels[0] - -17.0).abs() < 1.0, "a sine of -20 dB RMS: {levels:?}");
    assert!(levels[1] < SILENCE_DB && levels[2] < SILENCE_DB, "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_measurement_detects_a_session_that_was_not_muted() {
    let levels = levels_of(&["hall"]).await;
    assert!(levels[1] > SILENCE_DB + 30.0, "the planted fault is not measured: {levels:?}");
    assert!(levels[2] < SILENCE_DB, "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_arrives_twice_is_played_once_from_a_copy_that_is_not_muted() {
    const BOTH: [&str; 2] = ["audio-conference", "audio-broadcast"];
    let (olga, folder) = (start_olga(), TempFolder::new());
    let links = olga.open(&BOTH).await;
    let ben = Client::start(options("Ben"));
    for link in &links {
        ben.join(link, "Olga").await;
    }
    for session in BOTH {
        ben.wait_for_more(session, "Olga", audio_packets).await;
    }
    let listen = |session, enabled| ben.set_enabled(Some(session), MuteSwitch::Listening, enabled);
    let speak = |session, enabled| olga.set_enabled(Some(session), MuteSwitch::MICROPHONE, enabled);
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
    for (n, (what, change, expected)) in steps.into_iter().enumerate() {
        change();
        sleep_ms(500).await;
        let file = folder.file(&format!("{n}.wav"));
        ben.handle.set_speaker(SpeakerSpec::File(file.clone())).unwrap();
        wait_recorded(&file).await;
        ben.handle.set_speaker(SpeakerSpec::None).unwrap();
        sleep_ms(200).await;
        let level = recorded_level(&file, 440.0);
        // Two copies in phase would be 6 dB louder.
        assert!((level - expected).abs() < 1.5, "{what}: {level} dB instead of {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_opener_ejects_a_guest() {
    let olga = start_olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let mut args = vec!["join", &link, "--name", "Ben", "--camera", "none"];
    args.extend(["--microphone", "none", "--speaker", "none"]);
    let ben = Program::start(&args);
    olga.wait_live(CONFERENCE, "Ben").await;
    let participant = olga.participant(CONFERENCE, "Ben").unwrap().participant;
    olga.send(Command::Eject { session: id(CONFERENCE), participant, address: false });
    let end = tokio::task::spawn_blocking(|| ben.wait_for_exit()).await.unwrap();
    assert_eq!(end.events_named("ended")[0]["reason"], "ejected");
    wait_until("the guest has left", || olga.participant(CONFERENCE, "Ben").is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_replaced_during_a_call() {
    let olga = start_olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Client::start(options("Ben"));
    ben.join(&link, "Olga").await;
    ben.wait_for_more(CONFERENCE, "Olga", frames_decoded).await;
    ben.wait_for_more(CONFERENCE, "Olga", audio_packets).await;
    let peer = ben.participant(CONFERENCE, "Olga").unwrap().peer;
    olga.handle.set_camera(pattern(640, 360)).unwrap();
    olga.handle.set_microphone(SourceSpec::Tone { hz: 600.0 }).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(40);
    loop {
        let stats = ben.handle.stats().await.unwrap();
        let olga = &stats.sessions[0].participants[0];
        let width = olga.video.as_ref().map_or(0, |video| video.width);
        let tone = olga.audio.as_ref().and_then(|audio| audio.tone_hz).unwrap_or(0.0);
        if width == 640 && (tone - 600.0).abs() < 5.0 {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{width} pixels and {tone} Hz");
        sleep_ms(50).await;
    }
    assert_eq!(ben.participant(CONFERENCE, "Olga").unwrap().peer, peer, "the same connection");
    let stats = olga.handle.stats().await.unwrap();
    assert_eq!((stats.captures.video, stats.captures.audio), (2, 2));
    assert_eq!((stats.encoders.video, stats.encoders.audio), (1, 1));
    olga.handle.set_camera(SourceSpec::None).unwrap();
    wait_until("no camera", || !ben.participant(CONFERENCE, "Olga").unwrap().sends.camera).await;
    assert!(!olga.status(CONFERENCE).sending.camera);
    olga.handle.set_camera(pattern(320, 180)).unwrap();
    ben.wait_for_more(CONFERENCE, "Olga", frames_decoded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_video_with_a_tap_is_decoded() {
    let olga = start_olga();
    let link = olga.open(&[CONFERENCE]).await.remove(0);
    let ben = Client::start(EngineOptions { decode: Decode::WhenTapped, ..options("Ben") });
    ben.join(&link, "Olga").await;
    ben.wait_for_more(CONFERENCE, "Olga", frames_received).await;
    assert_eq!(frames_decoded(ben.received(CONFERENCE, "Olga").await), 0);
    let woken = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&woken);
    let wake = move || {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let peer = ben.participant(CONFERENCE, "Olga").unwrap().peer.unwrap();
    let tap = ben.handle.tap_frames(TrackRef::Peer(peer, Source::Camera), Arc::new(wake)).unwrap();
    ben.wait_for_more(CONFERENCE, "Olga", frames_decoded).await;
    assert!(woken.load(Ordering::Relaxed) >= 5);
    wait_until("a frame", || tap.take().is_some_and(|frame| frame.size == Size::new(320, 180)))
        .await;
    drop(tap);
    sleep_ms(300).await;
    let before = ben.received(CONFERENCE, "Olga").await;
    ben.wait_for_more(CONFERENCE, "Olga", frames_received).await;
    assert_eq!(frames_decoded(ben.received(CONFERENCE, "Olga").await), frames_decoded(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_video_and_level_are_available_before_guests_join() {
    let olga = start_olga();
    let (changes, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counted = Arc::clone(&changes);
    olga.handle.subscribe(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let frames = Arc::clone(&count);
    let wake = move || {
        frames.fetch_add(1, Ordering::Relaxed);
    };
    let tap = olga.handle.tap_frames(TrackRef::CAMERA, Arc::new(wake)).unwrap();
    wait_until("ten frames", || count.load(Ordering::Relaxed) > 10).await;
    assert_eq!(tap.take().unwrap().size, Size::new(320, 180));
    assert_eq!(olga.handle.snapshot().devices.sources.microphone, DeviceState::Idle);
    let level = olga.handle.microphone_level();
    wait_until("the own level", || (level.dbfs() - -20.0).abs() < 0.5).await;
    assert!(changes.load(Ordering::Relaxed) >= 3, "opening and running were reported");
    drop((tap, level));
    let idle = || {
        let snapshot = olga.handle.snapshot();
        (&snapshot.devices.sources.camera, &snapshot.devices.sources.microphone)
            == (&DeviceState::Idle, &DeviceState::Idle)
    };
    wait_until("closed devices", idle).await;
    let last = count.load(Ordering::Relaxed);
    sleep_ms(300).await;
    assert_eq!(count.load(Ordering::Relaxed), last);
    assert_eq!(olga.handle.level(TrackRef::MICROPHONE), -120.0);
}
