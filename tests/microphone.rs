//! The microphone through cpal and a real sound server without hardware.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

mod rig;

use std::{
    env,
    process::Command,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use quintet::{
    capture::{AudioCapture, Notify, SourceSpec, microphones},
    media::{AudioBlock, now},
    model::{MediaTime, SourceState},
};
use rig::{Folder, Process, SoundServer};

/// How long anything may take that takes a moment on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(40);

/// What [`SoundServer`]'s children run: prints what it hears.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn child() {
    // The test runner's own line ends here.
    println!();
    let spec = SourceSpec::for_microphone(&env::var("SPEC").unwrap()).unwrap();
    let length = Duration::from_secs_f64(env::var("SECONDS").unwrap().parse().unwrap());
    for device in microphones() {
        println!("microphone {} {} default={}", device.id, device.name, device.is_default);
    }
    let states = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&states);
    let notify: Notify = Arc::new(move |state| told.lock().unwrap().push(state));
    let blocks = Arc::new(Mutex::new(vec![]));
    let heard = Arc::clone(&blocks);
    let sink = move |block: &AudioBlock| heard.lock().unwrap().push((*block, now()));
    let capture = AudioCapture::start(&spec, Box::new(sink), notify);
    let begun = Instant::now();
    while states.lock().unwrap().len() < 2 && begun.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(length);
    let stopping = Instant::now();
    drop(capture);
    println!("stop_ms {}", stopping.elapsed().as_millis());
    for state in states.lock().unwrap().iter() {
        match state {
            SourceState::Idle => println!("state idle"),
            SourceState::Opening => println!("state opening"),
            SourceState::Running => println!("state running"),
            SourceState::Failed { message } => println!("state failed: {message}"),
        }
    }
    report(&blocks.lock().unwrap());
}

fn report(blocks: &[(AudioBlock, MediaTime)]) {
    println!("blocks {}", blocks.len());
    let Some(((first, _), (last, _))) = blocks.first().zip(blocks.last()) else { return };
    println!("span {}", last.time.since(first.time).as_secs_f64());
    let is_rising = blocks.windows(2).all(|pair| pair[0].0.time < pair[1].0.time);
    let oldest = blocks.iter().map(|(block, taken)| taken.since(block.time).as_millis());
    println!("rising {is_rising} {}", oldest.max().unwrap_or_default());
    let end = &blocks[blocks.len().saturating_sub(100)..];
    for hz in [440.0, 480.0, 880.0] {
        println!("tone {hz} {}", usual_strength(end, hz));
    }
}

/// How strong a tone is in the middle one of the last tenths of a second: on a busy machine the
/// sound server itself may lose a piece now and then.
fn usual_strength(blocks: &[(AudioBlock, MediaTime)], hz: f64) -> f64 {
    let tenths = blocks.chunks_exact(10).map(|tenth| {
        let sound: Vec<f32> = tenth.iter().flat_map(|(block, _)| block.samples).collect();
        rig::strength(&sound, hz)
    });
    let mut tenths: Vec<_> = tenths.collect();
    tenths.sort_by(f64::total_cmp);
    tenths.get(tenths.len() / 2).copied().unwrap_or_default()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Opens and closes the microphone again and again, and prints what is left open.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn reopening_child() {
    println!();
    let spec = SourceSpec::for_microphone("default").unwrap();
    let mut held = vec![];
    for round in 0..12 {
        let (tell, told) = mpsc::sync_channel(1);
        let sink = move |_: &AudioBlock| {
            tell.try_send(()).ok();
        };
        let capture = AudioCapture::start(&spec, Box::new(sink), Arc::new(|_| {}));
        told.recv_timeout(PATIENCE).unwrap();
        drop(capture);
        microphones();
        if round == 1 || round == 11 {
            // The device's own thread closes it a moment later.
            thread::sleep(Duration::from_millis(500));
            held.push((threads(), std::fs::read_dir("/proc/self/fd").unwrap().count()));
        }
    }
    println!("held {held:?}");
}

/// A child that listens for that long from when the microphone runs or has failed.
fn listen(sound: &SoundServer, spec: &str, seconds: f64) -> Process {
    let mut command = rig::again("child");
    command.env("SPEC", spec).env("SECONDS", seconds.to_string());
    Process::start(sound.enter(&mut command))
}

fn lines<'a>(said: &'a str, word: &str) -> Vec<&'a str> {
    let prefix = format!("{word} ");
    said.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

fn number(said: &str, word: &str) -> f64 {
    let line = *lines(said, word).first().unwrap_or_else(|| panic!("no {word}:\n{said}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The server, with a tone of 440 Hz at -6 dBFS in its microphone.
fn humming() -> (SoundServer, Process, Folder) {
    let (sound, folder) = (SoundServer::start(), Folder::new());
    let file = folder.file("tone.wav");
    rig::write_tone(&file, 440.0, 30, 0.5);
    let tone = sound.play(&file);
    (sound, tone, folder)
}

fn assert_hears_the_tone(said: &str) {
    let strength = |hz| number(said, &format!("tone {hz}"));
    assert!((0.4..0.6).contains(&strength(440)), "{said}");
    assert!(strength(480) < 0.05 && strength(880) < 0.05, "{said}");
}

#[test]
fn the_default_microphone_is_heard_without_gaps_and_in_time() {
    let (sound, _tone, _folder) = humming();
    let said = listen(&sound, "default", 4.0).finish();
    assert_hears_the_tone(&said);
    assert_eq!(lines(&said, "state"), ["opening", "running"], "{said}");
    assert_eq!(lines(&said, "microphone"), ["vmic Fake_Microphone default=true"], "no monitors");
    let (blocks, span) = (number(&said, "blocks"), number(&said, "span"));
    assert!(blocks > 100.0, "the tone is measured in the last hundred: {said}");
    assert!((span - (blocks - 1.0) / 100.0).abs() < 0.1, "times and samples agree: {said}");
    assert!(lines(&said, "rising")[0].starts_with("true"), "{said}");
    assert!(number(&said, "rising") < 3000.0, "a block is given soon: {said}");
    assert!(number(&said, "stop_ms") < 3000.0, "{said}");
}

#[test]
fn a_microphone_is_found_by_a_part_of_its_name_and_an_unknown_one_is_told() {
    let (sound, _tone, _folder) = humming();
    assert_hears_the_tone(&listen(&sound, "fake_mic", 3.0).finish());
    let said = listen(&sound, "Headset", 0.8).finish();
    let sentence = "failed: there is no microphone \"Headset\"; there are \"Fake_Microphone\"; \
                    connect it, or pick one of them";
    assert_eq!(lines(&said, "state"), ["opening", sentence], "{said}");
}

#[test]
fn a_microphone_whose_server_died_is_told_and_used_again_when_it_is_back() {
    let (mut sound, tone, folder) = humming();
    let child = listen(&sound, "default", 12.0);
    thread::sleep(Duration::from_secs(3));
    sound.kill();
    drop(tone);
    thread::sleep(Duration::from_secs(1));
    sound.restart();
    let _tone = sound.play(&folder.file("tone.wav"));
    let said = child.finish();
    let states = lines(&said, "state");
    assert_eq!(states[..2], ["opening", "running"], "{said}");
    assert!(states[2].starts_with("failed: microphone \"Fake_Microphone\" is gone; "), "{said}");
    assert_eq!(states.last(), Some(&"running"), "{said}");
    assert_hears_the_tone(&said);
    assert!(lines(&said, "rising")[0].starts_with("true"), "{said}");
}

#[test]
fn a_source_that_is_pulled_out_is_told() {
    let (sound, _tone, _folder) = humming();
    if sound.moves_recordings() {
        println!("not tested: this sound server moves the recording to its next source");
        return;
    }
    let child = listen(&sound, "default", 6.0);
    thread::sleep(Duration::from_millis(2500));
    // The next default source is the speaker's monitor: an echo, so it is not taken.
    assert!(sound.pactl(&["unload-module", "module-remap-source"]));
    assert!(sound.pactl(&["set-default-source", "spk.monitor"]));
    let said = child.finish();
    let states = lines(&said, "state");
    assert_eq!(states[..2], ["opening", "running"], "{said}");
    let told = states[2..].join("\n");
    assert!(told.contains("sends no sound") || told.contains("is gone"), "{said}");
    assert!(told.contains("only \"Monitor of Fake_Speaker\", which hears"), "{said}");
}

#[test]
fn a_monitor_is_never_the_default_microphone() {
    let (sound, _tone, _folder) = humming();
    // The monitor of a sink that is not the default one, which nothing is played to.
    assert!(sound.pactl(&["set-default-sink", "mic"]));
    assert!(sound.pactl(&["set-default-source", "spk.monitor"]));
    let said = listen(&sound, "default", 3.0).finish();
    assert_eq!(lines(&said, "microphone"), ["vmic Fake_Microphone default=true"], "{said}");
    assert_hears_the_tone(&said);
    let said = listen(&sound, "mic.monitor", 3.0).finish();
    assert_hears_the_tone(&said);
}

#[test]
fn two_microphones_of_one_name_are_told_apart_by_their_ids() {
    let (sound, _tone, _folder) = humming();
    let twin = ["source_name=vmic2", "master=spk.monitor"];
    let name = "source_properties=device.description=Fake_Microphone";
    assert!(sound.pactl(&["load-module", "module-remap-source", twin[0], twin[1], name]));
    let said = listen(&sound, "Fake_Microphone", 0.8).finish();
    let mut listed = lines(&said, "microphone");
    listed.sort_unstable();
    let twins = ["vmic Fake_Microphone default=true", "vmic2 Fake_Microphone default=false"];
    assert_eq!(listed, twins, "{said}");
    let refused = lines(&said, "state")[1];
    assert!(
        refused.contains("2 microphones are called \"Fake_Microphone\"; give the id"),
        "{said}"
    );
    assert!(refused.contains("\"vmic\"") && refused.contains("\"vmic2\""), "{said}");
    assert_hears_the_tone(&listen(&sound, "vmic", 3.0).finish());
    let silent = listen(&sound, "vmic2", 3.0).finish();
    assert_eq!(lines(&silent, "state"), ["opening", "running"], "{silent}");
    assert!(number(&silent, "tone 440") < 0.05, "{silent}");
}

#[test]
fn without_any_sound_system_that_is_one_quiet_sentence() {
    let folder = Folder::new();
    let mut command = rig::again("child");
    command.env("SPEC", "default").env("SECONDS", "1").env("HOME", folder.path());
    command.env("XDG_RUNTIME_DIR", folder.path()).env_remove("PULSE_SERVER");
    // ALSA without any device of its own.
    std::fs::write(folder.file("asound.conf"), "").unwrap();
    let said = finish_quietly(command.env("ALSA_CONFIG_PATH", folder.file("asound.conf")));
    let sentence = "failed: there is no microphone; connect one";
    assert_eq!(lines(&said, "state"), ["opening", sentence], "{said}");
}

/// What it printed, without a word of ALSA's.
fn finish_quietly(command: &mut Command) -> String {
    let said = Process::start(command).finish();
    assert!(!said.contains("ALSA lib"), "{said}");
    said
}

#[test]
fn a_microphone_that_is_opened_again_and_again_leaves_no_thread_and_no_descriptor() {
    let (sound, _tone, _folder) = humming();
    let said = Process::start(sound.enter(&mut rig::again("reopening_child"))).finish();
    let held = lines(&said, "held");
    let [early, late] =
        held.first().unwrap_or_else(|| panic!("{said}")).split("), (").collect::<Vec<_>>()[..]
    else {
        panic!("{said}")
    };
    assert_eq!(early.trim_start_matches("[("), late.trim_end_matches(")]"), "{said}");
}
