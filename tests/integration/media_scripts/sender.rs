//! The sources of a scripted call: real H.264 and Opus, with the sizes of a camera's video.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use quintet::{
    bandwidth::{Estimate, video_share},
    encode::{H264Encoder, KeyframePacer, OpusEncoder},
    media::{
        self, AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, BurntInTimecode, EncodedAudio, EncodedVideo,
        Fanout, FramePool, RecentAudio,
    },
    model::{Bitrate, Layer, MediaTime, Size},
};
use tokio::{
    sync::watch,
    time::{Instant, interval, interval_at},
};

/// What is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Media {
    /// The rate of the video without RTP, in 30 frames a second; `None` for no video.
    pub(crate) video: Option<Bitrate>,
    /// Whether audio is sent: Opus with 40 kbit/s.
    pub(crate) audio: bool,
}

/// What the audio is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sound {
    /// A voice, whose packets have in-band FEC.
    Voice,
    /// A tone, as an example of all that is no voice: its packets have no in-band FEC.
    Tone,
}

/// The size of the pictures. They are small, so that they are encoded quickly; data that decoders
/// skip make the frames as long as those of a camera.
pub(crate) const SIZE: Size = Size::new(160, 90);

/// Frames a second.
const FPS: u32 = 30;

/// How many times as long as other frames keyframes are.
const KEYFRAME_FACTOR: usize = 6;

/// How long after the first frame the second one is captured, and the first audio packet. webrtc-rs
/// requests retransmissions every 100 ms from the first packet on, in which there are three frames
/// and five packets. If they arrived at the same moments, it would choose one of both at random.
const BESIDE_TIMERS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(8)];

/// When the first audio packet is captured, in milliseconds since the start.
pub(crate) const FIRST_AUDIO_MS: f64 = 8.0;

/// Sends video with the configured rate, or less if the estimate is less, with keyframes on request, for ever. The timecodes of its
/// frames count from now on.
pub(crate) async fn send_video(
    media: watch::Receiver<Media>,
    (estimates, audio_rate): (watch::Receiver<Estimate>, impl Fn() -> Bitrate),
    out: Fanout<EncodedVideo>,
) {
    let begun = Instant::now();
    let mut clock = interval(Duration::from_secs(1) / FPS);
    let mut encoder = H264Encoder::new(SIZE, FPS, Bitrate::from_kbps(200)).expect("an encoder");
    let (mut keyframes, pool) = (KeyframePacer::default(), FramePool::default());
    for number in 0.. {
        clock.tick().await;
        if number == 0 {
            clock.reset_after(BESIDE_TIMERS[0]);
        }
        let now = media::now();
        // Whoever sends video takes the requests.
        let Some(rate) = media.borrow().video else { continue };
        if out.take_keyframe_request() {
            keyframes.request();
        }
        let rate = rate.min(affordable(&estimates.borrow(), audio_rate()));
        let ms = begun.elapsed().as_millis() as u64;
        let frame = pool.frame(SIZE, now, |bytes| paint(bytes, number, ms));
        let encoded = encoder.encode(&frame, keyframes.is_due(now)).expect("it is encoded");
        let Some(encoded) = encoded else { continue };
        if encoded.is_key {
            keyframes.on_keyframe(now);
        }
        let factor = if encoded.is_key { KEYFRAME_FACTOR } else { 1 };
        let length = rate.as_bps() as usize / 8 / FPS as usize * factor;
        let data = padded(&encoded.data, length);
        out.publish(EncodedVideo::new(Layer::Full, now, SIZE, encoded.is_key, data.into()));
    }
}

/// The rate of video, without headers, for which there is room.
fn affordable(estimate: &Estimate, audio: Bitrate) -> Bitrate {
    let share = video_share(estimate, audio);
    // 64 of 1200 bytes are headers.
    Bitrate::from_bps(share.as_bps() * 1136 / 1200)
}

/// Paints moving stripes with a timecode, which counts the milliseconds of the call: with the same
/// script each frame has the same bytes.
pub(crate) fn paint(bytes: &mut [u8], number: u32, ms: u64) {
    let (width, height) = (SIZE.width as usize, SIZE.height as usize);
    let (luma, chroma) = bytes.split_at_mut(width * height);
    for (at, pixel) in luma.iter_mut().enumerate() {
        *pixel = ((at % width + number as usize * 4) * 5 + at / width * 3) as u8;
    }
    chroma.fill(128);
    BurntInTimecode::new("Ada", number, ms).paint(luma, SIZE.width);
}

/// The access unit, made about `length` bytes long by supplemental information (ITU-T H.264,
/// section 7.3.2.3), which decoders skip.
pub(crate) fn padded(unit: &[u8], length: usize) -> Vec<u8> {
    let mut data = unit.to_vec();
    if let Some(missing) = length.checked_sub(unit.len() + 7) {
        data.extend([0, 0, 0, 1, 6, 5]);
        data.resize(data.len() + missing, 0xab);
        data.push(0x80);
    }
    data
}

/// Sends Opus packets of 20 ms, for ever.
pub(crate) async fn send_audio(
    (media, sound): (watch::Receiver<Media>, watch::Receiver<Sound>),
    out: Fanout<EncodedAudio>,
) {
    let mut clock = interval_at(Instant::now() + BESIDE_TIMERS[1], Duration::from_millis(20));
    let mut recent = RecentAudio::default();
    for number in 0.. {
        clock.tick().await;
        let packets = packets(*sound.borrow());
        let data = &packets[number as usize % packets.len()];
        if media.borrow().audio {
            let sample = number * 2 * BLOCK_SAMPLES as u64;
            out.publish(recent.next_packet(media::now(), sample, data.clone()));
        }
    }
}

/// The packets of two seconds. They are encoded once, because that takes long.
fn packets(sound: Sound) -> &'static [Bytes] {
    static VOICE: OnceLock<Vec<Bytes>> = OnceLock::new();
    static TONE: OnceLock<Vec<Bytes>> = OnceLock::new();
    match sound {
        Sound::Voice => VOICE.get_or_init(|| encoded(spoken)),
        Sound::Tone => TONE.get_or_init(|| encoded(tone)),
    }
}

fn encoded(sample: fn(f64) -> f32) -> Vec<Bytes> {
    let mut encoder = OpusEncoder::new().expect("an encoder");
    // As the program does where few packets are lost.
    encoder.set_expected_loss(5);
    let blocks = (0..2 * AUDIO_RATE).step_by(BLOCK_SAMPLES).filter_map(|first| {
        let time = MediaTime::from_micros(u64::from(first) * 1_000_000 / u64::from(AUDIO_RATE));
        let samples = std::array::from_fn(|at| sample(f64::from(first + at as u32)));
        encoder.encode(&AudioBlock::mono(time, samples)).map(|packet| packet.data)
    });
    blocks.collect()
}

/// A sample of 440 Hz.
fn tone(sample: f64) -> f32 {
    let turns = 440.0 * sample / f64::from(AUDIO_RATE);
    (0.14 * (turns * std::f64::consts::TAU).sin()) as f32
}

/// A sample of a voice: a fundamental of 120 to 160 Hz that moves, and its harmonics.
fn spoken(sample: f64) -> f32 {
    let seconds = sample / f64::from(AUDIO_RATE);
    let turns = 140.0 * seconds + 20.0 / 3.0 * (1.0 - (seconds * 3.0 * std::f64::consts::PI).cos());
    let harmonics =
        (1..12).map(|k| (f64::from(k) * turns * std::f64::consts::TAU).sin() / f64::from(k));
    (0.1 * harmonics.sum::<f64>()) as f32
}
