//! `--trace` of two programs, and the replay of what it wrote.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use crate::rig::{
    TempFolder,
    process::{Hub, Program, share_turn},
};

/// Runs `quintet trace replay FILE`.
fn replay(trace: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.args(["trace", "replay"]).arg(trace).output().expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The values of an attribute of the descriptions in a trace.
fn attributes<'a>(trace: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    trace.split(name).skip(1).map(|rest| rest.split('\\').next().unwrap_or(rest))
}

#[test]
fn a_traced_run_is_replayed_without_a_difference_and_holds_no_secret() {
    let _turn = share_turn();
    let (hub, folder) = (Hub::start(), TempFolder::new());
    let file = |name: &str| folder.file(name).to_str().expect("a plain path").to_owned();
    let (openers, guests) = (file("opener.jsonl"), file("guest.jsonl"));
    let kind = ["open", "--kind", "data/many-to-many", "--id", "room", "--hub", &hub.url];
    let args = [&kind[..], &["--name", "Olga", "--trace", &openers]].concat();
    let mut olga = Program::start_in(TempFolder::new(), &args, &[("RUST_LOG", "quintet=debug")]);
    olga.event("opened");
    let join = ["join", "room", "--hub", &hub.url, "--name", "Ada", "--say"];
    let mut ada = Program::start(&[&join[..], &["--trace", &guests, "--trace-chat"]].concat());
    ada.participant("Olga", "live");
    ada.write("the word is hunter2\n");
    olga.event("message");
    let (ada, olga) = (ada.terminate(), olga.terminate());
    assert_eq!((ada.code, olga.code), (Some(0), Some(0)));
    let log = olga.stderr;
    let place = "session{id=room}:peer{id=1 participant=";
    for module in ["quintet::conference: ", "quintet_base::transport::data_channel: "] {
        let mut lines = log.lines().filter(|line| line.contains(module));
        assert!(lines.any(|line| line.contains(place)), "no {module} in {place}: {log}");
    }
    assert!(log.contains("generation=1}") && !log.contains("hunter2"), "{log}");

    let texts = [&openers, &guests].map(|path| fs::read_to_string(path).expect("a trace"));
    for (path, text) in [&openers, &guests].into_iter().zip(&texts) {
        let output = replay(Path::new(path));
        let said = stdout(&output);
        assert!(output.status.success() && said.starts_with("no difference in"), "{output:?}");
        assert!(!said.contains("incomplete") && text.contains("leave"), "it has its end: {said}");
        assert!(text.contains("\"effect\":"), "{text}");
        let passwords: Vec<_> = attributes(text, "ice-pwd:").collect();
        assert!(passwords.len() >= 4, "both descriptions, in and out");
        assert!(passwords.iter().all(|one| one.bytes().all(|byte| byte == b'x')), "{passwords:?}");
        assert!(!text.contains("owner_key"), "{text}");
    }
    let word = "hunter2";
    assert_eq!(texts.map(|text| text.contains(word)), [false, true], "only when asked for");

    let changed = fs::read_to_string(&openers).expect("a trace");
    let line = changed.lines().position(|line| line.contains("make-offer")).expect("an offer");
    let changed = changed.replacen("\"make-offer\"", "\"make-cake\"", 1);
    fs::write(&openers, changed).expect("the folder is writable");
    let output = replay(Path::new(&openers));
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reason}");
    assert!(reason.contains(&format!("in line {}", line + 1)) && reason.contains("make-cake"));
}
