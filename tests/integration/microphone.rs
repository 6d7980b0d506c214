//! Tests the microphone through cpal and a real sound server without hardware.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use std::{
    env,
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::rig::{Process, SoundServer, TempFolder};
use quintet::{
    capture::{AudioCapture, Notify, SourceSpec, microphones},
    media::{AudioBlock, now},
    model::{AudioContent, DeviceState, MediaTime},
};

/// How long a test waits for an event that an idle machine reaches at once.
const TIMEOUT: Duration = Duration::from_secs(40);

/// The child process of [`start_child`]: captures and prints a report.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn child() {
    // Ends the line that the test runner has begun.
    println!();
    let spec = SourceSpec::for_microphone(&env::var("SPEC").unwrap()).unwrap();
    let length = Duration::from_secs_f64(env::var("SECONDS").unwrap().parse().unwrap());
    for device in microphones() {
        println!("microphone {} {} default={}", device.id, device.name, device.is_default);
    }
    let states = Arc::new(Mutex::new(vec![]));
    let reported = Arc::clone(&states);
    let notify: Notify = Arc::new(move |state| reported.lock().unwrap().push(state));
    let blocks = Arc::new(Mutex::new(vec![]));
    let captured = Arc::clone(&blocks);
    let sink = move |block: &AudioBlock| captured.lock().unwrap().push((*block, now()));
    let capture = AudioCapture::start(&spec, AudioContent::Speech, Box::new(sink), notify);
    let begun = Instant::now();
    while states.lock().unwrap().len() < 2 && begun.elapsed() < TIMEOUT {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(length);
    let stopping = Instant::now();
    drop(capture);
    println!("stop_ms {}", stopping.elapsed().as_millis());
    for state in states.lock().unwrap().iter() {
        match state {
            DeviceState::Idle => println!("state idle"),
            DeviceState::Opening => println!("state opening"),
            DeviceState::Running => println!("state running"),
            DeviceState::Failed { message } => println!("state failed: {message}"),
        }
    }
    report(&blocks.lock().unwrap());
}

/// Prints the report about the captured blocks, each with the time at which it was delivered.
fn report(blocks: &[(AudioBlock, MediaTime)]) {
    println!("blocks {}", blocks.len());
    let Some(((first, _), (last, _))) = blocks.first().zip(blocks.last()) else { return };
    println!("span {}", last.time.since(first.time).as_secs_f64());
    let is_rising = blocks.windows(2).all(|pair| pair[0].0.time < pair[1].0.time);
    let oldest = blocks.iter().map(|(block, delivered)| delivered.since(block.time).as_millis());
    println!("rising {is_rising} {}", oldest.max().unwrap_or_default());
    let end = &blocks[blocks.len().saturating_sub(100)..];
    for hz in [440.0, 480.0, 880.0] {
        println!("tone {hz} {}", median_amplitude(end, hz));
    }
}

/// The median amplitude of a tone over pieces of a tenth of a second. The median is used because
/// the sound server may lose audio on a busy machine.
fn median_amplitude(blocks: &[(AudioBlock, MediaTime)], hz: f64) -> f64 {
    let amplitudes = blocks.chunks_exact(10).map(|tenth| {
        let samples: Vec<f32> = tenth.iter().flat_map(|(block, _)| block.samples).collect();
        crate::rig::tone_amplitude(&samples, hz)
    });
    let mut amplitudes: Vec<_> = amplitudes.collect();
    amplitudes.sort_by(f64::total_cmp);
    amplitudes.get(amplitudes.len() / 2).copied().unwrap_or_default()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Opens and closes the microphone 12 times, and prints the numbers of threads and descriptors
/// after the second and the last time.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn reopening_child() {
    println!();
    let spec = SourceSpec::for_microphone("default").unwrap();
    let mut resources = vec![];
    for round in 0..12 {
        let (sender, receiver) = mpsc::sync_channel(1);
        let sink = move |_: &AudioBlock| {
            sender.try_send(()).ok();
        };
        let capture =
            AudioCapture::start(&spec, AudioContent::Speech, Box::new(sink), Arc::new(|_| {}));
        receiver.recv_timeout(TIMEOUT).unwrap();
        drop(capture);
        microphones();
        if round == 1 || round == 11 {
            // The device's own thread closes the device a moment later.
            thread::sleep(Duration::from_millis(500));
            resources.push((threads(), std::fs::read_dir("/proc/self/fd").unwrap().count()));
        }
    }
    println!("resources {resources:?}");
}

/// Starts a child process that captures for this many seconds after the microphone runs or has
/// failed.
fn start_child(server: &SoundServer, spec: &str, seconds: f64) -> Process {
    let mut command = crate::rig::ignored_test_command(module_path!(), "child");
    command.env("SPEC", spec).env("SECONDS", seconds.to_string());
    Process::start(server.configure(&mut command))
}

/// The values of all lines `KEY VALUE` with this key in a child's output.
fn values_of<'a>(output: &'a str, key: &str) -> Vec<&'a str> {
    let prefix = format!("{key} ");
    output.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

/// The last number in the first line with this key in a child's output.
fn last_number(output: &str, key: &str) -> f64 {
    let line = *values_of(output, key).first().unwrap_or_else(|| panic!("no {key}:\n{output}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A sound server with a tone of 440 Hz at -6 dBFS in its microphone. The tone ends when the
/// process is dropped.
fn server_with_tone() -> (SoundServer, Process, TempFolder) {
    let (server, folder) = (SoundServer::start(), TempFolder::new());
    let file = folder.file("tone.wav");
    crate::rig::write_tone_wav(&file, 440.0, 30, 0.5);
    let tone = server.play(&file);
    (server, tone, folder)
}

fn assert_tone_recorded(output: &str) {
    let amplitude = |hz| last_number(output, &format!("tone {hz}"));
    assert!((0.4..0.6).contains(&amplitude(440)), "{output}");
    assert!(amplitude(480) < 0.05 && amplitude(880) < 0.05, "{output}");
}

#[test]
fn the_default_microphone_is_captured_without_gaps_and_with_right_times() {
    let (server, _tone, _folder) = server_with_tone();
    let output = start_child(&server, "default", 4.0).finish();
    assert_tone_recorded(&output);
    assert_eq!(values_of(&output, "state"), ["opening", "running"], "{output}");
    let listed = values_of(&output, "microphone");
    assert_eq!(listed, ["vmic Fake_Microphone default=true"], "monitors are not listed");
    let (blocks, span) = (last_number(&output, "blocks"), last_number(&output, "span"));
    assert!(blocks > 100.0, "the tone is measured in the last hundred blocks: {output}");
    assert!((span - (blocks - 1.0) / 100.0).abs() < 0.1, "times and samples agree: {output}");
    assert!(values_of(&output, "rising")[0].starts_with("true"), "{output}");
    assert!(last_number(&output, "rising") < 3000.0, "a block is delivered soon: {output}");
    assert!(last_number(&output, "stop_ms") < 3000.0, "{output}");
}

#[test]
fn a_microphone_is_found_by_a_part_of_its_name_and_an_unknown_one_is_reported() {
    let (server, _tone, _folder) = server_with_tone();
    assert_tone_recorded(&start_child(&server, "fake_mic", 3.0).finish());
    let output = start_child(&server, "Headset", 0.8).finish();
    let sentence = "failed: there is no microphone \"Headset\"; there are \"Fake_Microphone\"; \
                    connect it, or pick one of them";
    assert_eq!(values_of(&output, "state"), ["opening", sentence], "{output}");
}

#[test]
fn a_microphone_is_used_again_when_its_sound_server_is_back() {
    let (mut server, tone, folder) = server_with_tone();
    let child = start_child(&server, "default", 12.0);
    thread::sleep(Duration::from_secs(3));
    server.kill();
    drop(tone);
    thread::sleep(Duration::from_secs(1));
    server.restart();
    let _tone = server.play(&folder.file("tone.wav"));
    let output = child.finish();
    let states = values_of(&output, "state");
    assert_eq!(states[..2], ["opening", "running"], "{output}");
    assert!(states[2].starts_with("failed: microphone \"Fake_Microphone\" is gone; "), "{output}");
    assert_eq!(states.last(), Some(&"running"), "{output}");
    assert_tone_recorded(&output);
    assert!(values_of(&output, "rising")[0].starts_with("true"), "{output}");
}

#[test]
fn a_removed_microphone_is_reported() {
    let (server, _tone, _folder) = server_with_tone();
    if server.moves_recordings() {
        println!("skipped: this sound server moves the recording to its next source");
        return;
    }
    let child = start_child(&server, "default", 6.0);
    thread::sleep(Duration::from_millis(2500));
    // The next default source is the speaker's monitor. It would cause an echo, so it is not used.
    assert!(server.pactl(&["unload-module", "module-remap-source"]));
    assert!(server.pactl(&["set-default-source", "spk.monitor"]));
    let output = child.finish();
    let states = values_of(&output, "state");
    assert_eq!(states[..2], ["opening", "running"], "{output}");
    let failures = states[2..].join("\n");
    assert!(failures.contains("sends no sound") || failures.contains("is gone"), "{output}");
    assert!(failures.contains("only \"Monitor of Fake_Speaker\", which hears"), "{output}");
}

#[test]
fn a_monitor_is_never_the_default_microphone() {
    let (server, _tone, _folder) = server_with_tone();
    // The default source is the monitor of a sink that is not the default and plays nothing.
    assert!(server.pactl(&["set-default-sink", "mic"]));
    assert!(server.pactl(&["set-default-source", "spk.monitor"]));
    let output = start_child(&server, "default", 3.0).finish();
    assert_eq!(values_of(&output, "microphone"), ["vmic Fake_Microphone default=true"], "{output}");
    assert_tone_recorded(&output);
    let output = start_child(&server, "mic.monitor", 3.0).finish();
    assert_tone_recorded(&output);
}

#[test]
fn two_microphones_of_one_name_are_distinguished_by_their_ids() {
    let (server, _tone, _folder) = server_with_tone();
    let second = ["source_name=vmic2", "master=spk.monitor"];
    let name = "source_properties=device.description=Fake_Microphone";
    assert!(server.pactl(&["load-module", "module-remap-source", second[0], second[1], name]));
    let output = start_child(&server, "Fake_Microphone", 0.8).finish();
    let mut listed = values_of(&output, "microphone");
    listed.sort_unstable();
    let expected = ["vmic Fake_Microphone default=true", "vmic2 Fake_Microphone default=false"];
    assert_eq!(listed, expected, "{output}");
    let refused = values_of(&output, "state")[1];
    assert!(
        refused.contains("2 microphones are called \"Fake_Microphone\"; give the id"),
        "{output}"
    );
    assert!(refused.contains("\"vmic\"") && refused.contains("\"vmic2\""), "{output}");
    assert_tone_recorded(&start_child(&server, "vmic", 3.0).finish());
    let silent = start_child(&server, "vmic2", 3.0).finish();
    assert_eq!(values_of(&silent, "state"), ["opening", "running"], "{silent}");
    assert!(last_number(&silent, "tone 440") < 0.05, "{silent}");
}

#[test]
fn a_machine_without_an_audio_system_reports_that_without_alsa_messages() {
    let folder = TempFolder::new();
    let mut command = crate::rig::ignored_test_command(module_path!(), "child");
    command.env("SPEC", "default").env("SECONDS", "1").env("HOME", folder.path());
    command.env("XDG_RUNTIME_DIR", folder.path()).env_remove("PULSE_SERVER");
    // An empty configuration: ALSA has no device.
    std::fs::write(folder.file("asound.conf"), "").unwrap();
    let output =
        run_without_alsa_messages(command.env("ALSA_CONFIG_PATH", folder.file("asound.conf")));
    let sentence = "failed: there is no microphone; connect one";
    assert_eq!(values_of(&output, "state"), ["opening", sentence], "{output}");
}

/// Runs a command and returns its output. Asserts that ALSA printed no message.
fn run_without_alsa_messages(command: &mut Command) -> String {
    let output = Process::start(command).finish();
    assert!(!output.contains("ALSA lib"), "{output}");
    output
}

#[test]
fn opening_a_microphone_again_and_again_leaks_no_thread_and_no_descriptor() {
    let (server, _tone, _folder) = server_with_tone();
    let output = Process::start(
        server.configure(&mut crate::rig::ignored_test_command(module_path!(), "reopening_child")),
    )
    .finish();
    let resources = values_of(&output, "resources");
    let [early, late] = resources
        .first()
        .unwrap_or_else(|| panic!("{output}"))
        .split("), (")
        .collect::<Vec<_>>()[..]
    else {
        panic!("{output}")
    };
    assert_eq!(early.trim_start_matches("[("), late.trim_end_matches(")]"), "{output}");
}
