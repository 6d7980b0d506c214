//! What each step of a picture's way costs, and of sound's, at the sizes that people use:
//! `cargo bench`, or `cargo bench -- encode` for some of them.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use quintet::{
    audio::Mixer,
    capture::{Busy, PixelFormat, Pixels},
    encode::H264Encoder,
    media::{BLOCK_SAMPLES, EncodedVideo, Fanout, MAX_LAG, VideoFrame},
    model::{Bitrate, Layer, MediaTime, Size},
    playback::{AccessUnit, Holds, VideoDecoder},
    transport::payloads,
};

const SIZE: Size = Size::new(1280, 720);

/// The usual rate of [`SIZE`] at 30 pictures a second.
const RATE: Bitrate = Bitrate::from_kbps(1500);

/// Pictures that are encoded and decoded by turns: two seconds, so that the keyframe at the head
/// has no more weight than a forced one has in a session.
const PICTURES: u32 = 60;

/// People who talk at once in the largest mesh.
const VOICES: usize = 12;

/// Viewers of a broadcast.
const VIEWERS: usize = 100;

criterion_group! {
    name = media;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = convert, encode, packetise, fan_out, decode, mix
}
criterion_main!(media);

/// A camera's picture becomes a frame.
fn convert(criterion: &mut Criterion) {
    let (width, height) = (SIZE.width, SIZE.height);
    let frame = film(1).remove(0);
    let (yuyv, nv12) = (packed(&frame), half_planar(&frame));
    let jpeg = jpeg(&frame);
    let formats = [
        ("yuyv", PixelFormat::Yuyv, yuyv),
        ("nv12", PixelFormat::Nv12, nv12),
        ("mjpeg", PixelFormat::Mjpeg, jpeg),
    ];
    for (name, format, bytes) in formats {
        let mut pixels = Pixels::default();
        criterion.bench_function(&format!("convert 720p {name}"), |bencher| {
            bencher.iter(|| {
                let time = MediaTime::default();
                pixels.convert(format, (width, height), black_box(&bytes), time).expect("converts")
            });
        });
    }
}

/// One picture of a film, at the usual rate.
fn encode(criterion: &mut Criterion) {
    let film = film(PICTURES);
    let mut encoder = H264Encoder::new(SIZE, 30, RATE).expect("an encoder");
    let mut number = 0;
    criterion.bench_function("encode 720p", |bencher| {
        bencher.iter(|| {
            let frame = &film[number as usize % film.len()];
            let mut frame = frame.clone();
            frame.time = at(number);
            number += 1;
            encoder.encode(&frame, false).expect("it encodes")
        });
    });
}

/// One picture's payloads, cut once for all peers.
fn packetise(criterion: &mut Criterion) {
    let picture = encoded(8).pop().expect("a picture");
    criterion.bench_function("packetise 720p", |bencher| {
        bencher.iter(|| payloads(black_box(&picture)));
    });
}

/// A picture published to many, each of whom takes it.
fn fan_out(criterion: &mut Criterion) {
    let picture = encoded(1).pop().expect("a picture");
    let fanout = Fanout::default();
    let mut viewers: Vec<_> = (0..VIEWERS).map(|_| fanout.subscribe(MAX_LAG)).collect();
    criterion.bench_function(&format!("fan out to {VIEWERS}"), |bencher| {
        bencher.iter(|| {
            let time = MediaTime::default();
            fanout.publish(EncodedVideo::new(Layer::Full, time, SIZE, true, picture.clone()));
            for viewer in &mut viewers {
                let frame = viewer.try_recv().expect("it was published");
                black_box(frame.payloads(payloads));
            }
        });
    });
}

/// A film from its keyframe on; the figure is for all of its pictures.
fn decode(criterion: &mut Criterion) {
    let film: Vec<_> = encoded(PICTURES).iter().map(unit).collect();
    criterion.bench_function(&format!("decode 720p, {} pictures", film.len()), |bencher| {
        let fresh = VideoDecoder::default;
        bencher.iter_batched_ref(
            fresh,
            |decoder| {
                for unit in &film {
                    assert!(matches!(decoder.decode(unit).frame, Ok(Some(_))));
                }
            },
            BatchSize::PerIteration,
        );
    });
}

/// Ten milliseconds of everybody's sound.
fn mix(criterion: &mut Criterion) {
    let voice: [f32; BLOCK_SAMPLES] = std::array::from_fn(|n| (n as f32 / 17.0).sin() / 4.0);
    let mut mixer = Mixer::new();
    criterion.bench_function(&format!("mix {VOICES} voices"), |bencher| {
        bencher.iter(|| {
            (0..VOICES).for_each(|_| mixer.add(black_box(&voice)));
            mixer.take()
        });
    });
}

fn at(number: u32) -> MediaTime {
    MediaTime::from_micros(u64::from(number) * 1_000_000 / 30)
}

/// The first pictures of a film as hard to encode as a camera's.
fn film(pictures: u32) -> Vec<VideoFrame> {
    let mut source = Busy::new(SIZE, 30, "bench");
    (0..pictures).map(|number| source.paint(at(number))).collect()
}

/// The same, encoded; pictures that the rate has no room for are left out.
fn encoded(pictures: u32) -> Vec<Bytes> {
    let mut encoder = H264Encoder::new(SIZE, 30, RATE).expect("an encoder");
    let encode = |frame| encoder.encode(&frame, false).expect("it encodes");
    film(pictures).into_iter().filter_map(encode).map(|picture| picture.data).collect()
}

fn unit(picture: &Bytes) -> AccessUnit {
    let data = picture.to_vec();
    AccessUnit { timestamp: 0, arrival: MediaTime::default(), data, holds: Holds::default() }
}

/// Y, Cb, Y, Cr of each two pixels.
fn packed(frame: &VideoFrame) -> Vec<u8> {
    let (width, mut bytes) = (SIZE.width as usize, vec![]);
    for (y, row) in frame.y().chunks_exact(width).enumerate() {
        for (x, luma) in row.chunks_exact(2).enumerate() {
            let chroma = y / 2 * (width / 2) + x;
            bytes.extend([luma[0], frame.u()[chroma], luma[1], frame.v()[chroma]]);
        }
    }
    bytes
}

/// Luma, then Cb and Cr by turns.
fn half_planar(frame: &VideoFrame) -> Vec<u8> {
    let chroma = frame.u().iter().zip(frame.v()).flat_map(|(blue, red)| [*blue, *red]);
    frame.y().iter().copied().chain(chroma).collect()
}

/// A JPEG picture of a camera's usual quality, in colour.
fn jpeg(frame: &VideoFrame) -> Vec<u8> {
    let width = SIZE.width as usize;
    let pixel = |at: usize| {
        let chroma = at / width / 2 * (width / 2) + at % width / 2;
        [frame.y()[at], frame.u()[chroma], frame.v()[chroma]]
    };
    let pixels: Vec<u8> = (0..frame.y().len()).flat_map(pixel).collect();
    let mut bytes = vec![];
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 85);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_2);
    let (width, height) = (SIZE.width as u16, SIZE.height as u16);
    encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Ycbcr).expect("a JPEG picture");
    bytes
}
