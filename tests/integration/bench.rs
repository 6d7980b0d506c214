//! `quintet bench` with small options: checks the kind of its results, not the speed of this
//! machine.

use std::process::{Command, Output};

use crate::rig::{TempFolder, process::at};
use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let home = TempFolder::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quintet"));
    command.arg("bench").args(args);
    command.env("HOME", home.path()).env("XDG_STATE_HOME", home.file("state"));
    command.output().expect("the program starts")
}

fn json_report(args: &[&str]) -> Value {
    let output = bench(args);
    let (out, errors) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

fn number(figures: &Value, path: &str) -> f64 {
    at(figures, path).as_f64().unwrap_or_else(|| panic!("no number at {path} in {figures:#}"))
}

#[test]
fn fanout_reports_complete_frames_of_each_viewer_and_both_kinds_of_first_frames() {
    let line = "fanout --peers 6 --seconds 3 --size 320x180@15 --bitrate 100kbit --json";
    let figures = json_report(&line.split(' ').collect::<Vec<_>>());
    assert_eq!((&figures["peers"], &figures["bitrate_bps"]), (&6.into(), &100_000.into()));
    assert_eq!(figures["frames_per_viewer"].as_array().map(Vec::len), Some(6));
    // More frames than were sent would be an error; a loaded machine may send fewer.
    let (least, most) =
        (number(&figures, "frames_per_second/min"), number(&figures, "frames_per_second/max"));
    assert!(least > 1.0 && most < 17.0, "{figures:#}");
    assert_eq!(number(&figures, "first_frame_ms/alone/count"), 5.0);
    assert_eq!(number(&figures, "first_frame_ms/crowded/count"), 1.0);
    let cores = number(&figures, "cpu_cores");
    assert!(cores > 0.0 && cores < 8.0, "{figures:#}");
    assert!(
        number(&figures, "cpu_cores_nobody") < cores,
        "sessions without viewers cost as much: {figures:#}"
    );
    if cfg!(target_os = "linux") {
        assert!(number(&figures, "pss_mib") > 1.0, "{figures:#}");
        assert!(number(&figures, "pss_mib_per_peer").is_finite());
    }
}

#[test]
fn latency_is_measured_on_frames_that_were_sent_and_decoded() {
    let figures = json_report(&["latency", "--seconds", "2", "--size", "320x180@15", "--json"]);
    let (p50, p95) = (number(&figures, "latency_ms/p50"), number(&figures, "latency_ms/p95"));
    assert!(0.0 < p50 && p50 <= p95, "{figures:#}");
    assert!(number(&figures, "pictures") > 2.0, "{figures:#}");
}

#[test]
fn a_network_is_measured_in_each_call_and_its_goal_is_that_of_the_case() {
    let line = "network --seconds 4 --runs 2 --size 320x180@15 --json";
    let networks = ["--network", "delay=20ms", "--network", "loss=1,burst=3"];
    let args: Vec<_> = line.split(' ').chain(networks).collect();
    let figures = json_report(&args);
    assert_eq!((&figures["bench"], &figures["seconds"]), (&"network".into(), &4.into()));
    let cases = figures["cases"].as_array().expect("a list");
    let [clean, broken] = &cases[..] else { panic!("{cases:#?}") };
    assert_eq!((&clean["network"], &clean["goal"]), (&"delay=20ms".into(), &Value::Null));
    assert_eq!(clean["runs"].as_array().map(Vec::len), Some(2));
    // A loaded machine may send fewer frames, and a frame over the limit would be an error.
    let fps = number(clean, "median/fps");
    assert!(fps > 1.0 && fps < 17.0, "{figures:#}");
    assert!(number(clean, "median/sent_kbps") > 20.0, "{figures:#}");
    assert_eq!(
        (&broken["median"]["first_frame_ms"], &broken["median"]["fps"]),
        (&Value::Null, &0.0.into())
    );
}

#[test]
fn the_default_output_is_text_and_a_wrong_option_gives_an_error_sentence() {
    let line = "fanout --peers 1 --seconds 1 --size 320x180@15";
    let output = bench(&line.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("1 viewers of 320x180@15 in 5 sessions"), "{text}");
    assert!(text.contains("first frame, alone"), "{text}");
    for (args, sentence) in [
        (["fanout", "--peers", "0"], "0 is not in 1..=250"),
        (["fanout", "--bitrate", "1.5"], "ends in bit, kbit or Mbit, such as 1.5Mbit"),
        (["fanout", "--size", "641x360"], "odd side"),
        (["latency", "--size", "big"], "is not a frame size; write 1280x720"),
        (["latency", "--seconds", "0"], "0 is not in 1..=3600"),
        (["network", "--network", "los=0.1"], "`los` cannot be impaired"),
    ] {
        let output = bench(&args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(sentence), "{args:?}: {text}");
    }
}

#[test]
fn a_frame_too_small_for_a_timecode_gives_an_error() {
    let output = bench(&["latency", "--seconds", "1", "--size", "64x64@15"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no frame had a readable timecode"), "{text}");
}
