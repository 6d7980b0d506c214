//! Tests the camera through nokhwa and real V4L2 calls, with a fake device below them.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use std::{
    env, fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::rig::{Process, TempFolder};
use quintet::{
    capture::{Notify, SourceSpec, VideoCapture, cameras},
    media::{Tee, VideoFrame, now},
    model::{DeviceState, MediaTime},
};

/// The report of the child process, parsed from its output.
#[derive(Debug, Default)]
struct ChildReport {
    cameras: Vec<String>,
    states: Vec<String>,
    frames: u32,
    seconds: f64,
    size: String,
    colour: Vec<u8>,
    bars: Vec<usize>,
    oldest_ms: u64,
    stop_ms: u64,
    /// Frames that the fake camera delivered.
    delivered: u32,
    /// The whole output, for assertion messages.
    output: String,
}

/// How long the child waits until the camera runs or has failed: far more than it takes on a
/// machine that runs ten other programs.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A lower bound of the time for which the fake camera hangs with `FAKE_STALL`.
const STALL: Duration = Duration::from_secs(3);

/// Captures from the fake camera in a child process, for this many seconds after the camera runs
/// or has failed.
fn run_child(spec: &str, seconds: f64, settings: &[(&str, &str)]) -> ChildReport {
    let mut command = crate::rig::ignored_test_command(module_path!(), "child");
    command.env("LD_PRELOAD", crate::rig::camera_shim()).env("SPEC", spec);
    command.env("SECONDS", seconds.to_string()).envs(settings.iter().copied());
    let output = Process::start(&mut command).finish();
    let mut report = ChildReport { output: output.clone(), ..ChildReport::default() };
    for line in output.lines() {
        let Some((key, value)) = line.split_once(' ') else { continue };
        let numbers = || value.split(' ').filter_map(|number| number.parse::<usize>().ok());
        match key {
            "camera" => report.cameras.push(value.to_owned()),
            "state" => report.states.push(value.to_owned()),
            "size" => report.size = value.to_owned(),
            "frames" => report.frames = value.parse().unwrap(),
            "seconds" => report.seconds = value.parse().unwrap(),
            "colour" => report.colour = numbers().map(|number| number as u8).collect(),
            "bars" => report.bars = numbers().collect(),
            "oldest_ms" => report.oldest_ms = value.parse().unwrap(),
            "stop_ms" => report.stop_ms = value.parse().unwrap(),
            "delivered" => report.delivered = value.parse().unwrap(),
            _ => {}
        }
    }
    report
}

/// The child process of [`run_child`]: captures and prints a report.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn child() {
    let spec = SourceSpec::for_camera(&env::var("SPEC").unwrap()).unwrap();
    let length = Duration::from_secs_f64(env::var("SECONDS").unwrap().parse().unwrap());
    // Ends the line that the test runner has begun.
    println!();
    for device in cameras() {
        println!("camera {} default={}", device.name, device.is_default);
    }
    let states = Arc::new(Mutex::new(vec![]));
    let reported = Arc::clone(&states);
    let notify: Notify = Arc::new(move |state| reported.lock().unwrap().push(state));
    let tee = Tee::default();
    let frames = tee.attach();
    let capture = VideoCapture::start(&spec, "test", tee, notify);
    let (begun, mut start, mut captured, mut oldest) = (Instant::now(), None, vec![], 0);
    while start.map_or(begun.elapsed() < TIMEOUT, |start: Instant| start.elapsed() < length) {
        if start.is_none() && states.lock().unwrap().len() > 1 {
            start = Some(Instant::now());
        }
        if let Some(frame) = frames.slot.wait(Duration::from_millis(20)) {
            oldest = oldest.max(now().since(frame.time).as_millis());
            captured.push((frame.time, frame));
        }
    }
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
    println!("oldest_ms {oldest}");
    report(&captured);
}

/// Prints the report about the captured frames, each with its capture time.
fn report(captured: &[(MediaTime, VideoFrame)]) {
    println!("frames {}", captured.len());
    let Some(((first, _), (last, frame))) = captured.first().zip(captured.last()) else { return };
    assert!(captured.windows(2).all(|pair| pair[0].0 < pair[1].0), "capture times rise");
    println!("seconds {}", last.since(*first).as_secs_f64());
    println!("size {}", frame.size);
    let width = frame.size.width as usize;
    let middle = frame.size.height as usize / 2;
    let bars = captured.iter().map(|(_, frame)| {
        let row = &frame.y()[middle * width..(middle + 1) * width];
        row.iter().position(|pixel| *pixel > 180).map_or("none".to_owned(), |x| x.to_string())
    });
    println!("bars {}", bars.collect::<Vec<_>>().join(" "));
    // The colour is measured outside the bar, near the right edge if the bar is at the left one.
    let bar = &frame.y()[middle * width..(middle + 1) * width];
    let beside = if bar[8] > 150 { width - 8 } else { 8 };
    let chroma = middle / 2 * (width / 2) + beside / 2;
    let luma = frame.y()[middle * width + beside];
    println!("colour {luma} {} {}", frame.u()[chroma], frame.v()[chroma]);
}

/// Asserts that the frames are recent, of the best size, in the right colours, and not stuck.
fn assert_good_video(report: &ChildReport) {
    assert_eq!(report.states, ["opening", "running"], "{}", report.output);
    assert_eq!(report.size, "1280x720", "the best size is chosen");
    // A slow reader gets only the newest of the frames that the camera delivered.
    let (frames, delivered) = (report.frames, report.delivered);
    assert!(frames > 1 && frames <= delivered, "{}", report.output);
    assert!(frames * 3 > delivered, "{frames} of {delivered}\n{}", report.output);
    // Pure red of BT.601 is pure red of BT.709.
    let wrong = report.colour.iter().zip([63, 102, 240]).find(|(is, want)| is.abs_diff(*want) > 4);
    assert!(wrong.is_none() && report.colour.len() == 3, "{:?}", report.colour);
    let steps: Vec<_> = report.bars.windows(2).filter(|pair| pair[1] > pair[0]).collect();
    assert!(steps.len() * 2 > report.bars.len(), "the bar moves: {:?}", report.bars);
    let limit = STALL.as_millis() as u64;
    assert!(report.oldest_ms < limit && report.stop_ms < limit, "{}", report.output);
}

#[test]
fn a_raw_camera_is_captured_in_its_best_size_and_in_true_colours() {
    let report = run_child("default", 2.5, &[("FAKE_FORMAT", "YUYV")]);
    assert_good_video(&report);
    assert_eq!(report.cameras, ["Fake Camera default=true"]);
}

#[test]
fn a_jpeg_camera_chosen_by_name_gives_the_same_frames() {
    let folder = TempFolder::new();
    let file = folder.file("frames");
    let frames = (0..40).map(|number| jpeg(1280, 720, number * 16));
    let with_lengths = frames.flat_map(|frame| {
        let length = (frame.len() as u32).to_ne_bytes();
        length.into_iter().chain(frame).collect::<Vec<_>>()
    });
    fs::write(&file, with_lengths.collect::<Vec<_>>()).unwrap();
    let path = file.to_str().unwrap();
    let report = run_child("fake cam", 2.5, &[("FAKE_FORMAT", "MJPG"), ("FAKE_JPEG", path)]);
    assert_good_video(&report);
}

#[test]
fn an_unplugged_camera_is_reported_and_used_again_when_it_is_back() {
    let report = run_child("default", 6.0, &[("FAKE_UNPLUG", "20")]);
    let gone = "failed: camera \"Fake Camera\" is gone; it is used again when it is plugged in";
    assert_eq!(report.states, ["opening", "running", gone, "running"], "{}", report.output);
    assert!(report.frames > 20, "frames before and after the unplugging\n{}", report.output);
}

#[test]
fn a_stalled_camera_is_reported_and_recovers_by_itself() {
    let report = run_child("default", 7.0, &[("FAKE_STALL", "20")]);
    let stalled = "failed: camera \"Fake Camera\" sends no pictures; plug it in again, or \
                   pick another";
    assert_eq!(report.states, ["opening", "running", stalled, "running"], "{}", report.output);
}

#[test]
fn a_hung_camera_does_not_block_the_end_of_the_capture() {
    let report = run_child("default", 2.0, &[("FAKE_STALL", "10")]);
    assert!(report.stop_ms < STALL.as_millis() as u64, "{}", report.output);
}

#[test]
fn a_busy_camera_is_retried_for_a_second_and_then_reported() {
    let short = run_child("default", 2.5, &[("FAKE_BUSY_MS", "600")]);
    assert_eq!(short.states, ["opening", "running"], "{}", short.output);
    let long = run_child("default", 5.0, &[("FAKE_BUSY_MS", "2000")]);
    let busy = "failed: camera \"Fake Camera\" is in use by another program; close it there, or \
                pick another";
    assert_eq!(long.states, ["opening", busy, "running"], "{}", long.output);
}

#[test]
fn the_errors_for_a_refused_a_missing_and_an_unusable_camera_name_the_way_out() {
    for (spec, settings, sentence) in [
        ("default", ("FAKE_OPEN", "EACCES"), "camera \"Fake Camera\" may not be used: permission"),
        (
            "Nikon",
            ("FAKE_FORMAT", "YUYV"),
            "there is no camera \"Nikon\"; there are \"Fake Camera\"",
        ),
        ("default", ("FAKE_FORMAT", "H264"), "camera \"Fake Camera\" offers no picture format"),
    ] {
        let report = run_child(spec, 1.0, &[settings]);
        assert_eq!(report.states.len(), 2, "{}", report.output);
        assert_eq!(report.states[0], "opening");
        let failed = report.states[1].strip_prefix("failed: ").unwrap_or_default();
        assert!(failed.starts_with(sentence), "{}", report.output);
        assert!(failed.contains("; pick") || failed.contains("or pick"), "{failed}");
        assert_eq!(report.frames, 0);
    }
}

#[test]
fn a_machine_without_a_camera_reports_that() {
    let report = run_child("default", 0.5, &[("FAKE_OPEN", "ENOENT")]);
    let none = "failed: there is no camera; connect one";
    assert_eq!(report.states, ["opening", none], "{}", report.output);
    assert!(report.cameras.is_empty());
}

/// Encodes a JPEG, dark red with a white bar from the column `left` on. Each block of 8x8 pixels
/// has one colour, so its only coefficient is the mean (ITU-T T.81, annexes B and F).
fn jpeg(width: u16, height: u16, left: u16) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    // The DC coefficient is eight times the mean. A quantisation step of 8 makes it the mean.
    out.extend([8; 64]);
    out.extend([0xff, 0xc0, 0, 17, 8]);
    out.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    out.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    // Huffman tables: differences of means have 0 to 9 bits, with a code of four bits for each
    // length; the end of a block, as no other coefficient follows, has a code of one bit.
    out.extend([0xff, 0xc4, 0, 19 + 10, 0, 0, 0, 0, 10]);
    out.extend([0; 12]);
    out.extend(0..10);
    out.extend([0xff, 0xc4, 0, 19 + 1, 0x10, 1]);
    out.extend([0; 15]);
    out.extend([0, 0xff, 0xda, 0, 12, 3, 1, 0, 2, 0, 3, 0, 0, 63, 0]);
    let (mut bits, mut filled, mut last) = (0_u64, 0, [0_i32; 3]);
    for square in 0..u32::from(width / 8) * u32::from(height / 8) {
        let x = (square % u32::from(width / 8) * 8) as u16;
        let is_bar = x >= left % width && x < left % width + 64;
        // White or red in full-range BT.601, shifted to be centred on zero.
        let colour = if is_bar { [127, 0, 0] } else { [-52, -43, 127] };
        for (level, last) in colour.into_iter().zip(&mut last) {
            let step = level - std::mem::replace(last, level);
            let size = 32 - step.unsigned_abs().leading_zeros();
            let value = if step < 0 { step - 1 } else { step } as u64 & ((1 << size) - 1);
            // The code of the length, the value, and the end of the block.
            bits = (bits << (4 + size + 1)) | (u64::from(size) << (size + 1)) | (value << 1);
            filled += 4 + size + 1;
            while filled >= 8 {
                filled -= 8;
                let byte = (bits >> filled) as u8;
                out.push(byte);
                if byte == 0xff {
                    out.push(0);
                }
            }
        }
    }
    out.extend([(bits << (8 - filled)) as u8 | (0xff >> filled) as u8, 0xff, 0xd9]);
    out
}
