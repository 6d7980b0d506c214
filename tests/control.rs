//! The built program stays in control: of its signals, and of readers that do not read.
#![cfg(unix)]

mod rig;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::{
    Folder,
    process::{Hub, Program, alone, person},
};

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with a home of its own, and as a person at a terminal would have it: signals that
/// the tests were started to ignore are not ignored. `env` is GNU's.
fn program(home: &Folder, signals: &str, args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args([signals, env!("CARGO_BIN_EXE_quintet")]).args(args);
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.file("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(home.file("stderr.txt")).expect("a home can be written to"));
    command
}

/// What every signal does for a program that was started at a terminal.
const DEFAULT: &str = "--default-signal=HUP,INT,TERM";

/// Says in a session at that hub what `args` add, and sends nothing.
fn open_at(hub: &Hub, home: &Folder, id: &str) -> Command {
    let task = ["open", "--kind", "data/many-to-many", "--id", id, "--json"];
    let silent = ["--camera", "none", "--microphone", "none"];
    program(home, DEFAULT, &person(&hub.url, "Olga", &[&task[..], &silent].concat()))
}

fn signal(program: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &program.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// Waits until the program has ended; its exit code.
fn end(mut program: Child) -> Option<i32> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(ended) = program.try_wait().expect("the program can be asked") {
            return ended.code();
        }
        if Instant::now() > end {
            program.kill().expect("it can be killed");
            panic!("the program does not end");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// One end of a connection that takes nothing more: whoever writes to the other end waits.
fn full() -> (UnixStream, OwnedFd) {
    let (reader, mut writer) = UnixStream::pair().expect("a pair of sockets");
    writer.set_nonblocking(true).expect("a socket can be told not to block");
    for size in [4096, 1] {
        while writer.write(&vec![b'.'; size]).is_ok() {}
    }
    writer.set_nonblocking(false).expect("a socket can be told to block");
    (reader, writer.into())
}

/// A guest who joins that session and has met its opener.
fn guest(hub: &Hub, id: &str) -> Program {
    let silent = ["--camera", "none", "--microphone", "none"];
    let mut guest = hub.person("Gus", &[&["join", id], &silent[..]].concat());
    guest.participant("Olga", "live");
    guest
}

#[test]
fn every_signal_that_ends_a_program_lets_it_say_goodbye() {
    let _turn = alone();
    let hub = Hub::start();
    for name in ["INT", "TERM", "HUP"] {
        let home = Folder::new();
        let opener = open_at(&hub, &home, name).spawn().expect("the program starts");
        let mut guest = guest(&hub, name);
        signal(&opener, name);
        assert_eq!(end(opener), Some(0), "{name}");
        guest.participant("Olga", "left");
    }
}

#[test]
fn a_signal_that_was_ignored_when_the_program_started_stays_ignored() {
    let _turn = alone();
    let hub = Hub::start();
    let home = Folder::new();
    let mut command = open_at(&hub, &home, "nohup");
    // As `nohup` does, and a shell for what it runs in the background.
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=HUP,INT").args(command.get_args().skip(1));
    ignoring.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = ignoring;
    let opener = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut opener = opener.expect("the program starts");
    let first = guest(&hub, "nohup");
    signal(&opener, "HUP");
    signal(&opener, "INT");
    // It is there for another one, after it would have left.
    assert_eq!(first.interrupt().code, Some(0));
    drop(guest(&hub, "nohup"));
    assert!(opener.try_wait().expect("the program can be asked").is_none());
    signal(&opener, "TERM");
    assert_eq!(end(opener), Some(0));
}

#[test]
fn a_reader_that_stopped_reading_keeps_no_signal_and_no_guest_waiting() {
    let _turn = alone();
    let hub = Hub::start();
    for id in ["stdout", "stderr"] {
        let home = Folder::new();
        let (mut reader, writer) = full();
        let mut command = open_at(&hub, &home, id);
        match id {
            "stdout" => command.stdout(writer),
            _ => command.stderr(writer).env("RUST_LOG", "trace"),
        };
        let opener = command.spawn().expect("the program starts");
        drop(command);
        let mut guest = guest(&hub, id);
        signal(&opener, "TERM");
        assert_eq!(end(opener), Some(0), "{id}");
        guest.participant("Olga", "left");
        // What was on its way is what there was room for.
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("what was written is text");
        assert!(text.bytes().all(|byte| byte == b'.'), "{text}");
    }
}

#[test]
fn standard_error_that_nobody_holds_open_is_no_panic() {
    let _turn = alone();
    let home = Folder::new();
    let (reader, writer) = UnixStream::pair().expect("a pair of sockets");
    drop(reader);
    let mut command = program(&home, DEFAULT, &["open"]);
    let wrong = command.stderr(OwnedFd::from(writer)).spawn().expect("the program starts");
    assert_eq!(end(wrong), Some(2), "nothing is asked for");
}

#[test]
fn all_lines_of_a_short_run_arrive() {
    let _turn = alone();
    let home = Folder::new();
    let args = ["open", "--five", "--for", "100ms", "--json", "--listen", "127.0.0.1:0"];
    let silent = ["--camera", "none", "--microphone", "none", "--speaker", "none"];
    let mut command = program(&home, DEFAULT, &[&args[..], &silent].concat());
    let said = command.stdout(Stdio::piped()).output().expect("the program starts");
    let text = String::from_utf8(said.stdout).expect("lines are text");
    let last = text.lines().last().expect("a line");
    assert!(last.contains(r#""event":"summary""#), "{text}");
}
