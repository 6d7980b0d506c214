//! Plays received audio through a real audio server, and records it from the monitor of the
//! speaker. The speaker fails while the server is stopped, and plays again after the server
//! restarts.
#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::rig::{SoundServer, ignored_test_command, tone_amplitude};
use quintet::{
    media::{
        Codec, FarEnd, IncomingTrack, KeyframeRequest, Meter, RoundTripTime, RtpPacket,
        SenderReports, TrackFailure, now,
    },
    model::{DeviceState, PeerId, Source},
    playback::{AudioTrack, Speaker, SpeakerSpec, speakers},
};
use tokio::sync::mpsc;

/// Longer than any step takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The environment of the child process: the speaker setting, and the file for its notes.
const SPEAKER: &str = "QUINTET_TEST_SPEAKER";
const NOTES: &str = "QUINTET_TEST_NOTES";

#[test]
fn a_received_tone_is_played_by_the_default_speaker_also_after_a_server_restart() {
    let mut server = SoundServer::start();
    let folder = crate::rig::TempFolder::new();
    let notes = folder.file("notes");
    let player = start_player(&server, "default", &notes);
    wait_for(&notes, "Running", 1);
    assert_tone_recorded(&server, &folder.file("first.raw"));

    let before = fs::read_to_string(&notes).unwrap();
    server.kill();
    assert!(!before.contains("Failed"), "no failure before the server stops: {before}");
    wait_for(&notes, "Failed", 1);
    server.restart();
    wait_for(&notes, "Running", 2);
    assert_tone_recorded(&server, &folder.file("second.raw"));
    drop(player);
    let noted = fs::read_to_string(&notes).unwrap();
    assert!(
        noted.contains("it is tried again") || noted.contains("there is no speaker"),
        "{noted}"
    );
}

#[test]
fn the_error_of_an_unknown_speaker_lists_the_existing_ones() {
    let server = SoundServer::start();
    let folder = crate::rig::TempFolder::new();
    let notes = folder.file("notes");
    let _player = start_player(&server, "Kitchen Radio", &notes);
    let noted = wait_for(&notes, "Failed", 1);
    assert!(noted.contains("there is no speaker \\\"Kitchen Radio\\\""), "{noted}");
    assert!(noted.contains("Fake_Speaker"), "{noted}");
    assert!(noted.contains("measured 440"), "audio is still received: {noted}");
}

#[test]
#[ignore = "run by the tests above, each with its own audio server"]
fn child_plays_a_tone_until_it_is_killed() {
    let notes = PathBuf::from(env::var_os(NOTES).expect("run by a test"));
    let spec: SpeakerSpec = env::var(SPEAKER).expect("run by a test").parse().unwrap();
    append_note(&notes, &format!("speakers {:?}", speakers()));
    let states = notes.clone();
    let notify = move |state: DeviceState| append_note(&states, &format!("{state:?}"));
    let speaker = Speaker::open(&spec, None, FarEnd::default(), Arc::new(notify));
    let (packets, track) = incoming_track();
    let mut track = AudioTrack::new(track);
    let voice = speaker.play(&track, Meter::default(), Box::new(|| ()));
    let tap = voice.tap_tone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    track.start();
    let mut encoder =
        opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
    let begun = Instant::now();
    for n in 0..u64::from(u16::MAX) {
        let tone: Vec<_> = (n * 960..(n + 1) * 960)
            .map(|n| (n as f64 / 48_000.0 * 440.0 * std::f64::consts::TAU).sin() as f32 / 4.0)
            .collect();
        let payload = encoder.encode_vec_float(&tone, 1275).unwrap().into();
        let (sequence, timestamp) = (n as u16, (n * 960) as u32);
        let (copies, arrival) = (vec![], now());
        let packet =
            RtpPacket { sequence, timestamp, marker: false, payload, copies, level: None, arrival };
        packets.try_send(packet).ok();
        if n % 50 == 49 {
            append_note(&notes, &format!("measured {:.0}", tap.tone_hz().unwrap_or(0.0)));
        }
        let next = begun + Duration::from_millis(20 * (n + 1));
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A child process that is killed when this value is dropped.
struct Player(Child);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start_player(server: &SoundServer, speaker: &str, notes: &Path) -> Player {
    File::create(notes).unwrap();
    let mut command = ignored_test_command(module_path!(), "child_plays_a_tone_until_it_is_killed");
    server.configure(&mut command).env(SPEAKER, speaker).env(NOTES, notes);
    Player(command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap())
}

/// Waits for the n-th note that begins with `prefix` and for a measured tone after it. Returns all
/// notes.
fn wait_for(notes: &Path, prefix: &str, times: usize) -> String {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let text = fs::read_to_string(notes).unwrap();
        let mut at = text.lines().enumerate().filter(|(_, line)| line.starts_with(prefix));
        if let Some((nth, _)) = at.nth(times - 1)
            && text.lines().skip(nth).any(|line| line.starts_with("measured 440"))
        {
            return text;
        }
        assert!(Instant::now() < deadline, "not {times} times {prefix:?} in:\n{text}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Records the monitor of the speaker until it contains a second of the tone.
fn assert_tone_recorded(server: &SoundServer, file: &Path) {
    let mut command = Command::new("parec");
    let format = ["--raw", "--format=float32le", "--rate=48000", "--channels=1"];
    server.configure(&mut command).args(["-d", "spk.monitor", "--latency-msec=10"]).args(format);
    let recorder = command.stdout(File::create(file).unwrap()).stdin(Stdio::null()).spawn();
    let _recorder = Player(recorder.expect("`parec` is missing: apt-get install pulseaudio-utils"));
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let recorded: Vec<_> = fs::read(file)
            .unwrap()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let last = recorded.len().saturating_sub(48_000);
        let (tone, other) =
            (tone_amplitude(&recorded[last..], 440.0), tone_amplitude(&recorded[last..], 523.0));
        // The tone has a quarter of full scale. A gap or a repeated block would raise the level at
        // the other frequency.
        if recorded.len() > 48_000 && tone > 0.22 && other < 0.01 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{} samples, 440 Hz at {tone}, 523 Hz at {other}",
            recorded.len()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

fn incoming_track() -> (mpsc::Sender<RtpPacket>, IncomingTrack) {
    let (send, packets) = mpsc::channel(256);
    let track = IncomingTrack {
        peer: PeerId(1),
        ssrc: 1,
        codec: Codec::Opus,
        id: None,
        source: Source::Microphone,
        stream_id: "stream".to_owned(),
        source_id: "mix".to_owned(),
        packets,
        keyframe_request: KeyframeRequest::default(),
        sender_reports: SenderReports::default(),
        round_trip: RoundTripTime::default(),
        failure: TrackFailure::default(),
    };
    (send, track)
}

fn append_note(notes: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(notes).unwrap();
    // A single write, so that the notes of two threads do not mix.
    file.write_all(format!("{text}\n").as_bytes()).unwrap();
}
