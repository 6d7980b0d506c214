//! The built program handles signals, and is not blocked by readers that do not read its output.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::rig::{
    TempFolder,
    process::{Hub, Program, participant_args, share_turn},
};

/// How long any step may take before the test fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a command that runs the program with its own home folder and with `env` options for
/// signals: signals that the test process ignores can be reset to their default. Needs GNU `env`.
fn program_command(home: &TempFolder, signals: &str, args: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args([signals, env!("CARGO_BIN_EXE_quintet")]).args(args);
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.file("state"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(home.file("stderr.txt")).expect("the home folder is writable"));
    command
}

/// The signal options of a program that is started at a terminal.
const DEFAULT_SIGNALS: &str = "--default-signal=HUP,INT,TERM";

/// Returns a command that opens a session with that id at the hub, without camera and microphone.
fn open_command(hub: &Hub, home: &TempFolder, id: &str) -> Command {
    let task = ["open", "--kind", "data/many-to-many", "--id", id, "--json"];
    let no_devices = ["--camera", "none", "--microphone", "none"];
    program_command(
        home,
        DEFAULT_SIGNALS,
        &participant_args(&hub.url, "Olga", &[&task[..], &no_devices].concat()),
    )
}

fn signal(program: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &program.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// Waits until the program has ended and returns its exit code.
fn wait_exit(mut program: Child) -> Option<i32> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = program.try_wait().expect("the program's status can be read") {
            return status.code();
        }
        if Instant::now() > deadline {
            program.kill().expect("it can be killed");
            panic!("the program does not end");
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Returns a socket pair whose buffer is full: a write to the second socket blocks.
fn full_socket() -> (UnixStream, OwnedFd) {
    let (reader, mut writer) = UnixStream::pair().expect("a pair of sockets");
    writer.set_nonblocking(true).expect("the socket can be non-blocking");
    for size in [4096, 1] {
        while writer.write(&vec![b'.'; size]).is_ok() {}
    }
    writer.set_nonblocking(false).expect("the socket can be blocking");
    (reader, writer.into())
}

/// Joins that session as a guest and waits until the opener is live.
fn join_as_guest(hub: &Hub, id: &str) -> Program {
    let no_devices = ["--camera", "none", "--microphone", "none"];
    let mut guest = hub.start_participant("Gus", &[&["join", id], &no_devices[..]].concat());
    guest.participant("Olga", "live");
    guest
}

#[test]
fn after_each_ending_signal_the_program_leaves_its_session() {
    let _turn = share_turn();
    let hub = Hub::start();
    for name in ["INT", "TERM", "HUP"] {
        let home = TempFolder::new();
        let opener = open_command(&hub, &home, name).spawn().expect("the program starts");
        let mut guest = join_as_guest(&hub, name);
        signal(&opener, name);
        assert_eq!(wait_exit(opener), Some(0), "{name}");
        guest.participant("Olga", "left");
    }
}

#[test]
fn a_signal_that_was_ignored_when_the_program_started_stays_ignored() {
    let _turn = share_turn();
    let hub = Hub::start();
    let home = TempFolder::new();
    let mut command = open_command(&hub, &home, "nohup");
    // `nohup` ignores SIGHUP, and a shell ignores SIGINT for programs in the background.
    let mut ignoring = Command::new("env");
    ignoring.arg("--ignore-signal=HUP,INT").args(command.get_args().skip(1));
    ignoring.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = ignoring;
    let opener = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut opener = opener.expect("the program starts");
    let first = join_as_guest(&hub, "nohup");
    signal(&opener, "HUP");
    signal(&opener, "INT");
    // A second guest still finds it, after the time in which it would have left.
    assert_eq!(first.terminate().code, Some(0));
    drop(join_as_guest(&hub, "nohup"));
    assert!(opener.try_wait().expect("the program's status can be read").is_none());
    signal(&opener, "TERM");
    assert_eq!(wait_exit(opener), Some(0));
}

#[test]
fn a_stalled_reader_of_the_output_delays_neither_signals_nor_guests() {
    let _turn = share_turn();
    let hub = Hub::start();
    for id in ["stdout", "stderr"] {
        let home = TempFolder::new();
        let (mut reader, writer) = full_socket();
        let mut command = open_command(&hub, &home, id);
        match id {
            "stdout" => command.stdout(writer),
            _ => command.stderr(writer).env("RUST_LOG", "trace"),
        };
        let opener = command.spawn().expect("the program starts");
        drop(command);
        let mut guest = join_as_guest(&hub, id);
        signal(&opener, "TERM");
        assert_eq!(wait_exit(opener), Some(0), "{id}");
        guest.participant("Olga", "left");
        // Only the bytes that filled the buffer were written.
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("what was written is text");
        assert!(text.bytes().all(|byte| byte == b'.'), "{text}");
    }
}

#[test]
fn a_closed_standard_error_causes_no_panic() {
    let _turn = share_turn();
    let home = TempFolder::new();
    let (reader, writer) = UnixStream::pair().expect("a pair of sockets");
    drop(reader);
    let mut command = program_command(&home, DEFAULT_SIGNALS, &["open"]);
    let wrong = command.stderr(OwnedFd::from(writer)).spawn().expect("the program starts");
    assert_eq!(wait_exit(wrong), Some(2), "the command line names no session");
}

#[test]
fn a_short_run_prints_all_its_lines() {
    let _turn = share_turn();
    let home = TempFolder::new();
    let args = ["open", "--five", "--for", "100ms", "--json", "--listen", "127.0.0.1:0"];
    let no_devices = ["--camera", "none", "--microphone", "none", "--speaker", "none"];
    let mut command = program_command(&home, DEFAULT_SIGNALS, &[&args[..], &no_devices].concat());
    let output = command.stdout(Stdio::piped()).output().expect("the program starts");
    let text = String::from_utf8(output.stdout).expect("lines are text");
    let last = text.lines().last().expect("a line");
    assert!(last.contains(r#""event":"summary""#), "{text}");
}
