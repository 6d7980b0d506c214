//! The camera through nokhwa's real V4L2 path, with a fake device below it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

mod rig;

use std::{
    env, fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use quintet::{
    capture::{Notify, SourceSpec, VideoCapture, cameras},
    media::{Tee, VideoFrame, now},
    model::{MediaTime, SourceState},
};
use rig::{Folder, Process};

/// What the child saw, read from its lines.
#[derive(Debug, Default)]
struct Seen {
    cameras: Vec<String>,
    states: Vec<String>,
    frames: u32,
    seconds: f64,
    size: String,
    colour: Vec<u8>,
    bars: Vec<usize>,
    oldest_ms: u64,
    stop_ms: u64,
    /// Pictures that the fake camera gave.
    given: u32,
    said: String,
}

/// How long a child waits until the camera runs or has failed, and how old a picture may get: far
/// more than a machine needs that runs ten other programs.
const PATIENCE: Duration = Duration::from_secs(40);

/// The fake camera of `FAKE_STALL` hangs for longer than this.
const HANG: Duration = Duration::from_secs(3);

/// Captures in a process of its own with the fake camera, for so many seconds from when it runs or
/// has failed.
fn capture(spec: &str, seconds: f64, settings: &[(&str, &str)]) -> Seen {
    let mut command = rig::again("child");
    command.env("LD_PRELOAD", rig::camera_shim()).env("SPEC", spec);
    command.env("SECONDS", seconds.to_string()).envs(settings.iter().copied());
    let said = Process::start(&mut command).finish();
    let mut seen = Seen { said: said.clone(), ..Seen::default() };
    for line in said.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let numbers = || rest.split(' ').filter_map(|word| word.parse::<usize>().ok());
        match word {
            "camera" => seen.cameras.push(rest.to_owned()),
            "state" => seen.states.push(rest.to_owned()),
            "size" => seen.size = rest.to_owned(),
            "frames" => seen.frames = rest.parse().unwrap(),
            "seconds" => seen.seconds = rest.parse().unwrap(),
            "colour" => seen.colour = numbers().map(|number| number as u8).collect(),
            "bars" => seen.bars = numbers().collect(),
            "oldest_ms" => seen.oldest_ms = rest.parse().unwrap(),
            "stop_ms" => seen.stop_ms = rest.parse().unwrap(),
            "given" => seen.given = rest.parse().unwrap(),
            _ => {}
        }
    }
    seen
}

/// What [`capture`] runs: prints what it sees.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn child() {
    let spec = SourceSpec::for_camera(&env::var("SPEC").unwrap()).unwrap();
    let length = Duration::from_secs_f64(env::var("SECONDS").unwrap().parse().unwrap());
    // The test runner's own line ends here.
    println!();
    for device in cameras() {
        println!("camera {} default={}", device.name, device.is_default);
    }
    let states = Arc::new(Mutex::new(vec![]));
    let told = Arc::clone(&states);
    let notify: Notify = Arc::new(move |state| told.lock().unwrap().push(state));
    let tee = Tee::default();
    let frames = tee.attach();
    let capture = VideoCapture::start(&spec, "test", tee, notify);
    let (begun, mut start, mut seen, mut oldest) = (Instant::now(), None, vec![], 0);
    while start.map_or(begun.elapsed() < PATIENCE, |start: Instant| start.elapsed() < length) {
        if start.is_none() && states.lock().unwrap().len() > 1 {
            start = Some(Instant::now());
        }
        if let Some(frame) = frames.slot.wait(Duration::from_millis(20)) {
            oldest = oldest.max(now().since(frame.time).as_millis());
            seen.push((frame.time, frame));
        }
    }
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
    println!("oldest_ms {oldest}");
    report(&seen);
}

fn report(seen: &[(MediaTime, VideoFrame)]) {
    println!("frames {}", seen.len());
    let Some(((first, _), (last, frame))) = seen.first().zip(seen.last()) else { return };
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "capture times rise");
    println!("seconds {}", last.since(*first).as_secs_f64());
    println!("size {}", frame.size);
    // The last column but few is left of the bar's turning point and right of its start.
    let width = frame.size.width as usize;
    let middle = frame.size.height as usize / 2;
    let bars = seen.iter().map(|(_, frame)| {
        let row = &frame.y()[middle * width..(middle + 1) * width];
        row.iter().position(|pixel| *pixel > 180).map_or("none".to_owned(), |x| x.to_string())
    });
    println!("bars {}", bars.collect::<Vec<_>>().join(" "));
    let bar = &frame.y()[middle * width..(middle + 1) * width];
    let beside = if bar[8] > 150 { width - 8 } else { 8 };
    let chroma = middle / 2 * (width / 2) + beside / 2;
    let luma = frame.y()[middle * width + beside];
    println!("colour {luma} {} {}", frame.u()[chroma], frame.v()[chroma]);
}

fn assert_pictures(seen: &Seen) {
    assert_eq!(seen.states, ["opening", "running"], "{}", seen.said);
    assert_eq!(seen.size, "1280x720", "the best of its sizes is taken");
    // Of what the camera gave, a reader who is slow gets the newest.
    assert!(seen.frames > 1 && seen.frames <= seen.given, "{}", seen.said);
    assert!(seen.frames * 3 > seen.given, "{} of {}\n{}", seen.frames, seen.given, seen.said);
    // Pure red of BT.601 is pure red of BT.709.
    let far = seen.colour.iter().zip([63, 102, 240]).find(|(is, want)| is.abs_diff(*want) > 4);
    assert!(far.is_none() && seen.colour.len() == 3, "{:?}", seen.colour);
    let steps: Vec<_> = seen.bars.windows(2).filter(|pair| pair[1] > pair[0]).collect();
    assert!(steps.len() * 2 > seen.bars.len(), "the bar moves: {:?}", seen.bars);
    let most = HANG.as_millis() as u64;
    assert!(seen.oldest_ms < most && seen.stop_ms < most, "{}", seen.said);
}

#[test]
fn a_raw_camera_gives_its_best_pictures_in_true_colours() {
    let seen = capture("default", 2.5, &[("FAKE_FORMAT", "YUYV")]);
    assert_pictures(&seen);
    assert_eq!(seen.cameras, ["Fake Camera default=true"]);
}

#[test]
fn a_jpeg_camera_gives_the_same_pictures_by_its_name() {
    let folder = Folder::new();
    let file = folder.file("pictures");
    let pictures = (0..40).map(|number| jpeg(1280, 720, number * 16));
    let framed = pictures.flat_map(|picture| {
        let length = (picture.len() as u32).to_ne_bytes();
        length.into_iter().chain(picture).collect::<Vec<_>>()
    });
    fs::write(&file, framed.collect::<Vec<_>>()).unwrap();
    let path = file.to_str().unwrap();
    let seen = capture("fake cam", 2.5, &[("FAKE_FORMAT", "MJPG"), ("FAKE_JPEG", path)]);
    assert_pictures(&seen);
}

#[test]
fn an_unplugged_camera_is_told_and_used_again_when_it_is_back() {
    let seen = capture("default", 6.0, &[("FAKE_UNPLUG", "20")]);
    let gone = "failed: camera \"Fake Camera\" is gone; it is used again when it is plugged in";
    assert_eq!(seen.states, ["opening", "running", gone, "running"], "{}", seen.said);
    assert!(seen.frames > 20, "pictures before and after it was gone\n{}", seen.said);
}

#[test]
fn a_camera_that_stands_still_is_told_and_goes_on_by_itself() {
    let seen = capture("default", 7.0, &[("FAKE_STALL", "20")]);
    let silent = "failed: camera \"Fake Camera\" sends no pictures; plug it in again, or \
                  pick another";
    assert_eq!(seen.states, ["opening", "running", silent, "running"], "{}", seen.said);
}

#[test]
fn a_camera_that_hangs_does_not_hold_up_who_stops_it() {
    let seen = capture("default", 2.0, &[("FAKE_STALL", "10")]);
    assert!(seen.stop_ms < HANG.as_millis() as u64, "{}", seen.said);
}

#[test]
fn a_busy_camera_is_waited_for_a_second_and_then_told() {
    let short = capture("default", 2.5, &[("FAKE_BUSY_MS", "600")]);
    assert_eq!(short.states, ["opening", "running"], "{}", short.said);
    let long = capture("default", 5.0, &[("FAKE_BUSY_MS", "2000")]);
    let busy = "failed: camera \"Fake Camera\" is in use by another program; close it there, or \
                pick another";
    assert_eq!(long.states, ["opening", busy, "running"], "{}", long.said);
}

#[test]
fn a_refused_missing_or_useless_camera_is_a_sentence_with_the_way_out() {
    for (spec, settings, sentence) in [
        ("default", ("FAKE_OPEN", "EACCES"), "camera \"Fake Camera\" may not be used: permission"),
        (
            "Nikon",
            ("FAKE_FORMAT", "YUYV"),
            "there is no camera \"Nikon\"; there are \"Fake Camera\"",
        ),
        ("default", ("FAKE_FORMAT", "H264"), "camera \"Fake Camera\" offers no picture format"),
    ] {
        let seen = capture(spec, 1.0, &[settings]);
        assert_eq!(seen.states.len(), 2, "{}", seen.said);
        assert_eq!(seen.states[0], "opening");
        let failed = seen.states[1].strip_prefix("failed: ").unwrap_or_default();
        assert!(failed.starts_with(sentence), "{}", seen.said);
        assert!(failed.contains("; pick") || failed.contains("or pick"), "{failed}");
        assert_eq!(seen.frames, 0);
    }
}

#[test]
fn without_any_camera_that_is_said() {
    let seen = capture("default", 0.5, &[("FAKE_OPEN", "ENOENT")]);
    let none = "failed: there is no camera; connect one";
    assert_eq!(seen.states, ["opening", none], "{}", seen.said);
    assert!(seen.cameras.is_empty());
}

/// A JPEG of squares of 8 pixels, dark red with a white bar from `left` on: each square has one
/// colour, so its only coefficient is the mean (ITU-T T.81, annexes B and F).
fn jpeg(width: u16, height: u16, left: u16) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    // A mean is stored as eight times itself: divided by eight, it is a level again.
    out.extend([8; 64]);
    out.extend([0xff, 0xc0, 0, 17, 8]);
    out.extend([height.to_be_bytes(), width.to_be_bytes()].concat());
    out.extend([3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0]);
    // Means differ by 0 to 9 bits, each with a code of four bits; no other coefficient: one bit.
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
        // White, and red, full range BT.601, around zero.
        let colour = if is_bar { [127, 0, 0] } else { [-52, -43, 127] };
        for (level, last) in colour.into_iter().zip(&mut last) {
            let step = level - std::mem::replace(last, level);
            let size = 32 - step.unsigned_abs().leading_zeros();
            let value = if step < 0 { step - 1 } else { step } as u64 & ((1 << size) - 1);
            // The code of the size, the value, and "no more".
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
