//! Tests the path from source through encoder to decoder, connected as the engine connects it.
#![expect(clippy::unwrap_used, reason = "what fails here is the test")]

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use openh264::{decoder::Decoder, formats::YUVSource};
use quintet::{
    capture::{AudioCapture, Notify, SourceSpec, VideoCapture},
    encode::{OpusEncoder, VideoEncoder, VideoSettings},
    media::{AUDIO_RATE, BurntInTimecode, Fanout, Tee, VideoFrame, unix_ms},
    model::{AudioContent, DeviceState, Layer, MediaTime, Size},
};

/// Frames of each pattern that must arrive at the decoder.
const FRAMES: usize = 40;

/// How long a test waits for an event that an idle machine reaches at once.
const TIMEOUT: Duration = Duration::from_secs(60);

fn ignore_states() -> Notify {
    Arc::new(|_| {})
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Runs a pattern through the encoder and the decoder. Returns the strips of the decoded frames,
/// the pattern's size and the bitrate in kbit/s.
fn decoded_strips(spec: &str) -> (Vec<BurntInTimecode>, Size, f64) {
    let spec = SourceSpec::for_camera(spec).unwrap();
    let SourceSpec::Pattern { size, fps } = spec else { panic!("{spec} is a pattern") };
    let (tee, out) = (Tee::default(), Fanout::default());
    let settings = VideoSettings { layer: Layer::Full, fps, target: None };
    let fail = |health: Result<(), &quintet::encode::EncodeError>| health.unwrap();
    let _encoder = VideoEncoder::start(settings, tee.attach(), out.clone(), fail).unwrap();
    let mut frames = out.subscribe(30);
    let _capture = VideoCapture::start(&spec, "Ada", tee, ignore_states());
    let mut decoder = Decoder::new().unwrap();
    let (mut strips, mut bytes, mut times) = (vec![], 0, vec![]);
    runtime().block_on(async {
        while strips.len() < FRAMES {
            let wait = tokio::time::timeout(TIMEOUT, frames.recv());
            let frame = wait.await.expect("a frame in time").expect("the encoder runs");
            bytes += frame.data.len();
            times.push(frame.time);
            let decoded = decoder.decode(&frame.data).unwrap().unwrap();
            assert_eq!(decoded.dimensions(), (size.width as usize, size.height as usize));
            let mut luma = vec![0; size.i420_bytes()];
            let (width, stride) = (size.width as usize, decoded.strides().0);
            let rows = luma.chunks_mut(width).zip(decoded.y().chunks(stride));
            rows.for_each(|(row, decoded)| row.copy_from_slice(&decoded[..width]));
            let decoded = VideoFrame::new(size, frame.time, Arc::new(luma));
            let strip = BurntInTimecode::read(&decoded);
            strips.push(strip.unwrap_or_else(|| panic!("strip {} is damaged", strips.len())));
            assert_eq!(strips.last().map(|strip| strip.unix_ms), Some(unix_ms(frame.time)));
        }
    });
    let seconds = times[FRAMES - 1].since(times[0]).as_secs_f64();
    (strips, size, bytes as f64 * 8.0 / seconds / 1000.0)
}

fn assert_readable(spec: &str) {
    let (strips, _, kbps) = decoded_strips(spec);
    assert!(strips.iter().all(|strip| strip.name() == "Ada"));
    assert!(strips.windows(2).all(|pair| pair[0].frame < pair[1].frame), "frame numbers rise");
    // The bitrate includes the first keyframe, which rate control makes up for within seconds.
    println!("{spec}: {kbps:.0} kbit/s");
}

#[test]
fn the_strip_of_a_small_pattern_is_readable_after_decoding() {
    assert_readable("pattern:320x180@15");
}

#[test]
fn the_strip_of_a_large_pattern_is_readable_after_decoding() {
    assert_readable("pattern:1280x720@30");
}

#[test]
fn a_tone_survives_opus_and_its_packets_have_consecutive_times() {
    let (sender, packets) = mpsc::sync_channel(100);
    let mut encoder = OpusEncoder::new().unwrap();
    let sink = move |block: &_| {
        if let Some(packet) = encoder.encode(block) {
            sender.try_send(packet).ok();
        }
    };
    let spec = SourceSpec::for_microphone("tone:880").unwrap();
    let _capture =
        AudioCapture::start(&spec, AudioContent::Speech, Box::new(sink), ignore_states());
    let mut decoder = opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono).unwrap();
    let (mut decoded, mut first) = (vec![], None);
    for number in 0..50 {
        let packet = packets.recv_timeout(TIMEOUT).unwrap();
        let (start, sample): (MediaTime, u64) = *first.get_or_insert((packet.time, packet.sample));
        assert_eq!(packet.sample - sample, number * 960);
        assert_eq!(packet.time.since(start), Duration::from_millis(20 * number));
        let mut samples = [0.0; 960];
        decoder.decode_float(&packet.data, &mut samples, false).unwrap();
        decoded.extend(samples);
    }
    let steady = &decoded[24_000..];
    let rises = steady.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
    assert!((438..=442).contains(&rises), "half a second of 880 Hz: {rises}");
    let power = steady.iter().map(|sample| sample * sample).sum::<f32>() / steady.len() as f32;
    assert!((10.0 * power.log10() + 20.0).abs() < 1.0, "-20 dBFS: {power}");
}

#[test]
fn a_missing_file_is_reported_and_the_source_none_reports_nothing() {
    let (sender, states) = mpsc::sync_channel(10);
    let notify: Notify = Arc::new(move |state| sender.try_send(state).unwrap());
    let spec = SourceSpec::for_camera("file:/nowhere/clip.y4m").unwrap();
    let video = VideoCapture::start(&spec, "", Tee::default(), notify.clone());
    let state = || states.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(state(), DeviceState::Opening);
    let DeviceState::Failed { message } = state() else { panic!("it is missing") };
    assert!(message.starts_with("the file \"/nowhere/clip.y4m\" cannot be read"), "{message}");
    drop(video);
    drop(VideoCapture::start(&SourceSpec::None, "", Tee::default(), notify.clone()));
    drop(AudioCapture::start(&SourceSpec::None, AudioContent::Speech, Box::new(|_| {}), notify));
    assert!(states.try_recv().is_err());
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_refused_by_name_and_blocks_nothing() {
    let folder = std::env::temp_dir().join(format!("quintet-sources-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let spec = SourceSpec::File(pipe);
    let (sender, states) = mpsc::channel();
    let notify: Notify = Arc::new(move |state| sender.send(state).unwrap());
    let video = VideoCapture::start(&spec, "", Tee::default(), notify.clone());
    let audio = AudioCapture::start(&spec, AudioContent::Speech, Box::new(|_| {}), notify);
    let refused = || loop {
        match states.recv_timeout(Duration::from_secs(60)).expect("a pipe does not block") {
            DeviceState::Failed { message } => return message,
            DeviceState::Opening => {}
            other @ (DeviceState::Idle | DeviceState::Running) => panic!("{other:?}"),
        }
    };
    for _ in 0..2 {
        let message = refused();
        assert!(message.contains("pipe\" is a named pipe, not a file; choose"), "{message}");
    }
    drop((video, audio));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_dropped_capture_drops_its_sink() {
    let (sender, blocks) = mpsc::sync_channel(1);
    let sink = move |_: &_| {
        sender.try_send(()).ok();
    };
    let spec = SourceSpec::for_microphone("tone").unwrap();
    let capture = AudioCapture::start(&spec, AudioContent::Speech, Box::new(sink), ignore_states());
    blocks.recv_timeout(TIMEOUT).unwrap();
    drop(capture);
    // The channel holds at most one more block, and its only sender is dropped with the sink.
    assert!(blocks.iter().count() <= 1);
}
