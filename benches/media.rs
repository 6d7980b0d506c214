//! What each step of a picture's way costs, and of sound's, at the sizes that people use:
//! `cargo bench`, or `cargo bench -- encode` for some of them.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
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

fn main() {
    divan::main();
}

/// A camera's picture becomes a frame.
#[divan::bench(args = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Mjpeg], max_time = 2)]
fn convert_720p(bencher: Bencher<'_, '_>, format: PixelFormat) {
    let frame = film(1).remove(0);
    let bytes = match format {
        PixelFormat::Yuyv => packed(&frame),
        PixelFormat::Nv12 => half_planar(&frame),
        PixelFormat::Mjpeg => jpeg(&frame),
        PixelFormat::Grey | PixelFormat::Rgb | PixelFormat::Bgr => unreachable!("not asked for"),
    };
    let (mut pixels, time) = (Pixels::default(), MediaTime::default());
    let size = (SIZE.width, SIZE.height);
    bencher.bench_local(|| pixels.convert(format, size, black_box(&bytes), time));
}

/// One picture of a film, at the usual rate.
#[divan::bench(sample_count = 300, sample_size = 1)]
fn encode_720p(bencher: Bencher<'_, '_>) {
    let film = film(PICTURES);
    let mut encoder = H264Encoder::new(SIZE, 30, RATE).expect("an encoder");
    let mut number = 0;
    bencher.bench_local(|| {
        let mut frame = film[number as usize % film.len()].clone();
        frame.time = at(number);
        number += 1;
        encoder.encode(&frame, false)
    });
}

/// One picture's payloads, cut once for all peers.
#[divan::bench(max_time = 2)]
fn packetise_720p(bencher: Bencher<'_, '_>) {
    let picture = encoded(8).pop().expect("a picture");
    bencher.bench_local(|| payloads(black_box(&picture)));
}

/// A picture published to many, each of whom takes it.
#[divan::bench(args = [1, 10, 100], max_time = 2)]
fn fan_out(bencher: Bencher<'_, '_>, viewers: usize) {
    let picture = encoded(1).pop().expect("a picture");
    let fanout = Fanout::default();
    let mut viewers: Vec<_> = (0..viewers).map(|_| fanout.subscribe(MAX_LAG)).collect();
    bencher.counter(ItemsCount::new(viewers.len())).bench_local(|| {
        let time = MediaTime::default();
        fanout.publish(EncodedVideo::new(Layer::Full, time, SIZE, true, picture.clone()));
        for viewer in &mut viewers {
            let frame = viewer.try_recv().expect("it was published");
            black_box(frame.payloads(payloads));
        }
    });
}

/// A film from its keyframe on; the figure is for all of its pictures.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn decode_720p_film(bencher: Bencher<'_, '_>) {
    let film: Vec<_> = encoded(PICTURES).iter().map(unit).collect();
    let bencher = bencher.counter(ItemsCount::new(film.len()));
    bencher.with_inputs(VideoDecoder::default).bench_local_refs(|decoder| {
        for unit in &film {
            assert!(matches!(decoder.decode(unit).frame, Ok(Some(_))));
        }
    });
}

/// Ten milliseconds of everybody's sound.
#[divan::bench(args = [2, VOICES], max_time = 2)]
fn mix(bencher: Bencher<'_, '_>, voices: usize) {
    let voice: [f32; BLOCK_SAMPLES] = std::array::from_fn(|n| (n as f32 / 17.0).sin() / 4.0);
    let mut mixer = Mixer::new();
    bencher.bench_local(|| {
        (0..voices).for_each(|_| mixer.add(black_box(&voice)));
        mixer.take()
    });
}

fn at(number: u32) -> MediaTime {
    MediaTime::from_micros(u64::from(number) * 1_000_000 / 30)
}

/// The first pictures of a film that needs the encoder's whole rate.
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
