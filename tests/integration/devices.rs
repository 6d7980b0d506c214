//! The built program with real devices: a microphone and a speaker of a real sound server, and a
//! camera through the real V4L2 code path. All are the default devices, as on a first start.

use crate::rig::{
    SoundServer, TempFolder, camera_shim,
    process::{Hub, Program, at, share_turn, take_turn},
    tone_amplitude, write_tone_wav,
};
use serde_json::{Value, json};

/// A simulated machine with a camera, a microphone that receives a tone of 440 Hz, and a speaker.
struct Machine {
    sound: SoundServer,
    folder: TempFolder,
    _tone: crate::rig::Process,
}

impl Machine {
    fn new() -> Self {
        let (sound, folder) = (SoundServer::start(), TempFolder::new());
        let tone = folder.file("tone.wav");
        write_tone_wav(&tone, 440.0, 60, 0.3);
        let playing = sound.play(&tone);
        Self { sound, folder, _tone: playing }
    }

    /// Starts the program on this machine.
    fn start(&self, args: &[&str], more: &[(&str, &str)]) -> Program {
        let (server, runtime) = (self.sound.address(), self.sound.runtime_folder());
        let shim = camera_shim().display().to_string();
        let mut environment = vec![
            ("PULSE_SERVER", server.as_str()),
            ("XDG_RUNTIME_DIR", runtime.as_str()),
            ("LD_PRELOAD", shim.as_str()),
        ];
        environment.extend(more);
        Program::start_in(TempFolder::new(), args, &environment)
    }
}

fn first_participant(end: &crate::rig::process::Exit) -> &Value {
    at(end.summary(), "sessions/0/participants/0")
}

#[test]
fn five_sessions_run_on_a_real_camera_microphone_and_speaker() {
    let _turn = take_turn();
    let machine = Machine::new();
    let mut olga =
        machine.start(&["open", "--five", "--listen", "127.0.0.1:0", "--name", "Olga"], &[]);
    let opened = olga.events("opened", 5);
    let mut joiners: Vec<_> = opened
        .iter()
        .map(|one| {
            let link = one["link"].as_str().unwrap();
            let args = [
                "join",
                link,
                "--name",
                "Ben",
                "--camera",
                "none",
                "--microphone",
                "tone:1000",
                "--speaker",
                "none",
            ];
            machine.start(&args, &[])
        })
        .collect();
    for joiner in &mut joiners {
        joiner.event("first-frame");
    }
    let file = machine.folder.file("speaker.wav");
    let recording = machine.sound.record(&file);
    for _ in 0..5 {
        olga.wait_next("statistics", |event| event["event"] == "stats");
    }
    drop(recording);
    for (mut joiner, one) in joiners.into_iter().zip(&opened) {
        let kind = one["kind"].as_str().unwrap();
        let (sends_audio, sends_video) = (!kind.starts_with("video"), !kind.starts_with("audio"));
        joiner.wait("a second of video and a clean tone", |event| {
            let value = |name: &str| {
                let stats = event.pointer("/sessions/0/participants/0");
                stats.and_then(|stats| stats.pointer(name)).and_then(Value::as_f64)
            };
            // A connection begins at the middle layer, until a probe has shown what its path carries.
            let is_full = value("/video/width") == Some(1280.0);
            let has_video = is_full && value("/video/decoded") > Some(30.0);
            let has_tone = value("/audio/tone_hz").is_some_and(|hz| (hz - 440.0).abs() < 3.0);
            event["event"] == "stats" && (has_video || !sends_video) && (has_tone || !sends_audio)
        });
        let end = joiner.terminate();
        assert_eq!(end.code, Some(0), "{:#?}", end.events);
        let olga = first_participant(&end);
        if sends_video {
            assert_eq!(at(olga, "video/width"), 1280, "{kind}: {olga:#}");
        }
    }
    let end = olga.terminate();
    assert_eq!(end.code, Some(0), "{:#?}", end.events_named("error"));
    assert_eq!(end.summary()["captures"], json!({"video": 1, "audio": 1}));
    let encoders = &end.summary()["encoders"];
    assert_eq!(encoders["audio"], 1);
    // At most one for each layer, whatever the number of sessions and viewers.
    let video = encoders["video"].as_u64();
    assert!(video.is_some_and(|count| (1..=3).contains(&count)), "{encoders}");
    // The audio of the joiners of the two conferences was played by the speaker.
    let samples = samples_of(&file);
    let last = &samples[samples.len().saturating_sub(96_000)..];
    assert!(tone_amplitude(last, 1000.0) > 0.01, "{}", tone_amplitude(last, 1000.0));
}

/// Returns the samples of a recording that was interrupted, so that its header has no length.
fn samples_of(path: &std::path::Path) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("a recording");
    let samples = bytes[44.min(bytes.len())..].chunks_exact(4);
    samples.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}

#[test]
fn a_machine_without_devices_reports_them_and_continues() {
    let _turn = share_turn();
    let nothing = [("PULSE_SERVER", "unix:/nonexistent"), ("XDG_RUNTIME_DIR", "/nonexistent")];
    let args = ["open", "--kind", "av-conference", "--listen", "127.0.0.1:0"];
    let mut olga = Program::start_in(TempFolder::new(), &args, &nothing);
    let link = olga.event("opened")["link"].as_str().unwrap().to_owned();
    let args = [
        "join",
        &link,
        "--name",
        "Ben",
        "--camera",
        "pattern:320x180@15",
        "--microphone",
        "tone",
        "--speaker",
        "none",
    ];
    let mut ben = Program::start(&args);
    for what in ["camera", "microphone", "speaker"] {
        let failure = olga.wait(&format!("an error about the {what}"), |event| {
            event["event"] == "error" && event["message"].as_str().unwrap().contains(what)
        });
        assert_eq!(failure["code"], "device");
        let names_option = failure["message"].as_str().unwrap().contains(&format!("--{what}"));
        assert!(names_option, "{failure}");
    }
    olga.event("first-frame");
    ben.participant("Guest 1", "live");
    assert_eq!(ben.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(7), "the devices could not be used");
}

#[test]
fn a_misspelt_file_is_reported_before_guests_join() {
    let _turn = share_turn();
    let args = [
        "open",
        "--kind",
        "av-broadcast",
        "--listen",
        "127.0.0.1:0",
        "--for",
        "300ms",
        "--camera",
        "file:nope.y4m",
        "--microphone",
        "tone",
        "--speaker",
        "none",
    ];
    let end = Program::start(&args).wait_for_exit();
    assert_eq!(end.code, Some(7), "{:#?}", end.events);
    assert!(
        end.events_named("error")[0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("nope.y4m"))
    );
    assert_eq!(end.events_named("opened").len(), 1, "the session is opened all the same");
}

#[test]
fn named_pipes_are_refused_without_waiting_for_them() {
    let _turn = share_turn();
    let folder = TempFolder::new();
    let pipe = |name: &str| {
        let path = folder.file(name);
        let status = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(status.expect("`mkfifo` is there").success());
        format!("file:{}", path.display())
    };
    let (camera, microphone, speaker) = (pipe("c.y4m"), pipe("m.wav"), pipe("s.wav"));
    let mut args = vec!["open", "--kind", "av-conference", "--listen", "127.0.0.1:0"];
    args.extend(["--camera", &camera, "--microphone", &microphone, "--speaker", &speaker]);
    let mut olga = Program::start(&args);
    olga.event("opened");
    let named = |events: &[Value], name: &str| {
        let message = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
        events.iter().any(|event| message(event).contains(&format!("{name}\" is a named pipe")))
    };
    olga.wait_until("errors about the three pipes", |events| {
        ["c.y4m", "m.wav", "s.wav"].into_iter().all(|name| named(events, name))
    });
    let end = olga.terminate();
    assert_eq!(end.code, Some(7), "{:#?}", end.events);
}

#[test]
fn a_file_that_is_sent_is_recorded_to_by_no_program_under_any_name() {
    let _turn = share_turn();
    let (hub, folder) = (Hub::start(), TempFolder::new());
    let voice = folder.file("voice.wav");
    write_tone_wav(&voice, 440.0, 5, 0.3);
    let kept = std::fs::read(&voice).unwrap();
    let (hard, soft) = (folder.file("hard.wav"), folder.file("soft.wav"));
    std::fs::hard_link(&voice, &hard).unwrap();
    std::os::unix::fs::symlink("voice.wav", &soft).unwrap();
    let spec = |path: &std::path::Path| format!("file:{}", path.display());

    let mut olga = hub.open_session("audio-conference", "talk");
    let (microphone, speaker) = (spec(&voice), spec(&hard));
    let args = ["join", "talk", "--microphone", &microphone, "--speaker", &speaker];
    let mut ben = hub.start_participant("Ben", &args);
    let failure = ben.event("error");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("hard.wav\" is also the microphone's file"), "{message}");
    ben.event("first-frame");
    olga.event("first-frame");

    // Another program is refused, too, while the first one sends the file.
    let mut carl = hub.start_participant("Carl", &["join", "talk", "--speaker", &spec(&soft)]);
    let failure = carl.event("error");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("soft.wav\" is in use by"), "{message}");
    carl.event("first-frame");
    for _ in 0..2 {
        carl.wait_next("statistics", |event| event["event"] == "stats");
    }
    assert_eq!(carl.terminate().code, Some(7));
    let end = ben.terminate();
    assert_eq!(end.code, Some(7), "{:#?}", end.events_named("error"));
    drop(olga);
    assert!(std::fs::read(&voice).unwrap() == kept, "the file is unchanged");
}

#[test]
fn devices_are_listed_by_name() {
    let _turn = share_turn();
    let machine = Machine::new();
    let list = machine.start(&["devices"], &[]).wait_for_exit();
    assert_eq!(list.code, Some(0));
    let text = list.events[0].to_string();
    for name in ["Fake_Microphone", "Fake_Speaker"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(list.events[0]["cameras"].as_array().is_some_and(|all| !all.is_empty()), "{text}");
    let devices = list.events[0]["devices"].as_array().expect("a list of all");
    let microphone = json!(
        {"kind": "microphone", "id": "vmic", "name": "Fake_Microphone", "default": true}
    );
    assert!(devices.contains(&microphone), "{text}");
}
