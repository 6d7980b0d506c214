//! Measures each step of the video and audio paths at usual frame sizes: `cargo bench`, or
//! `cargo bench -- encode` for some of them.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use quintet::{
    audio::Mixer,
    capture::{NoisePattern, PixelConverter, PixelFormat},
    encode::H264Encoder,
    media::{AccessUnit, EncodedVideo, Fanout, MAX_LAG, StereoBlock, VideoFrame},
    model::{Bitrate, Layer, MediaTime, Size},
    playback::VideoDecoder,
    transport::packetize_h264,
};

const SIZE: Size = Size::new(1280, 720);

/// The usual bitrate of [`SIZE`] at 30 frames per second.
const RATE: Bitrate = Bitrate::from_kbps(1500);

/// The frames that are encoded and decoded in turn: two seconds, so that the first keyframe has no
/// more weight than a forced one has in a session.
const FRAMES: u32 = 60;

/// The audio streams in the largest mesh, if all participants speak at once.
const MAX_STREAMS: usize = 12;

fn main() {
    divan::main();
}

/// Converts the bytes of a camera into a video frame.
#[divan::bench(args = [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::Mjpeg], max_time = 2)]
fn convert_720p(bencher: Bencher<'_, '_>, format: PixelFormat) {
    let frame = test_frames(1).remove(0);
    let bytes = match format {
        PixelFormat::Yuyv => to_yuyv(&frame),
        PixelFormat::Nv12 => to_nv12(&frame),
        PixelFormat::Mjpeg => to_jpeg(&frame),
        PixelFormat::Grey | PixelFormat::Rgb | PixelFormat::Bgr => unreachable!("not an argument"),
    };
    let (mut pixels, time) = (PixelConverter::default(), MediaTime::default());
    let size = (SIZE.width, SIZE.height);
    bencher.bench_local(|| pixels.convert(format, size, black_box(&bytes), time));
}

/// Encodes one frame at the usual bitrate.
#[divan::bench(sample_count = 300, sample_size = 1)]
fn encode_720p(bencher: Bencher<'_, '_>) {
    let frames = test_frames(FRAMES);
    let mut encoder = H264Encoder::new(SIZE, 30, RATE).expect("an encoder");
    let mut number = 0;
    bencher.bench_local(|| {
        let mut frame = frames[number as usize % frames.len()].clone();
        frame.time = frame_time(number);
        number += 1;
        encoder.encode(&frame, false)
    });
}

/// Packetizes one encoded frame, once for all peers.
#[divan::bench(max_time = 2)]
fn packetise_720p(bencher: Bencher<'_, '_>) {
    let frame = encoded_frames(8).pop().expect("a frame");
    bencher.bench_local(|| packetize_h264(black_box(&frame)));
}

/// Publishes a frame to many subscribers, which each receive it.
#[divan::bench(args = [1, 10, 100], max_time = 2)]
fn fan_out(bencher: Bencher<'_, '_>, viewers: usize) {
    let data = encoded_frames(1).pop().expect("a frame");
    let fanout = Fanout::default();
    let mut viewers: Vec<_> = (0..viewers).map(|_| fanout.subscribe(MAX_LAG)).collect();
    bencher.counter(ItemsCount::new(viewers.len())).bench_local(|| {
        let time = MediaTime::default();
        fanout.publish(EncodedVideo::new(Layer::Full, time, SIZE, true, data.clone()));
        for viewer in &mut viewers {
            let frame = viewer.try_recv().expect("it was published");
            black_box(frame.payloads(packetize_h264));
        }
    });
}

/// Decodes frames, the first of which is a keyframe; the result is for all of them.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn decode_720p_film(bencher: Bencher<'_, '_>) {
    let units: Vec<_> = encoded_frames(FRAMES).iter().map(access_unit).collect();
    let bencher = bencher.counter(ItemsCount::new(units.len()));
    bencher.with_inputs(VideoDecoder::default).bench_local_refs(|decoder| {
        for unit in &units {
            assert!(matches!(decoder.decode(unit).frame, Ok(Some(_))));
        }
    });
}

/// Mixes ten milliseconds of audio streams.
#[divan::bench(args = [2, MAX_STREAMS], max_time = 2)]
fn mix(bencher: Bencher<'_, '_>, streams: usize) {
    let block = StereoBlock::mono(std::array::from_fn(|n| (n as f32 / 17.0).sin() / 4.0));
    let mut mixer = Mixer::new();
    bencher.bench_local(|| {
        (0..streams).for_each(|_| mixer.add(black_box(&block)));
        mixer.take()
    });
}

fn frame_time(number: u32) -> MediaTime {
    MediaTime::from_micros(u64::from(number) * 1_000_000 / 30)
}

/// Returns the first frames of a test source that uses the encoder's whole bitrate.
fn test_frames(count: u32) -> Vec<VideoFrame> {
    let mut source = NoisePattern::new(SIZE, 30, "bench");
    (0..count).map(|number| source.paint(frame_time(number))).collect()
}

/// Returns these frames encoded, without those that the rate control drops.
fn encoded_frames(count: u32) -> Vec<Bytes> {
    let mut encoder = H264Encoder::new(SIZE, 30, RATE).expect("an encoder");
    let encode = |frame| encoder.encode(&frame, false).expect("it encodes");
    test_frames(count).into_iter().filter_map(encode).map(|frame| frame.data).collect()
}

fn access_unit(frame: &Bytes) -> AccessUnit {
    AccessUnit {
        timestamp: 0,
        arrival: MediaTime::default(),
        is_keyframe: false,
        has_picture: true,
        follows_loss: false,
        data: frame.clone(),
    }
}

/// Returns the frame as YUYV: Y, Cb, Y, Cr of each two pixels.
fn to_yuyv(frame: &VideoFrame) -> Vec<u8> {
    let (width, mut bytes) = (SIZE.width as usize, vec![]);
    for (y, row) in frame.y().chunks_exact(width).enumerate() {
        for (x, luma) in row.chunks_exact(2).enumerate() {
            let chroma = y / 2 * (width / 2) + x;
            bytes.extend([luma[0], frame.u()[chroma], luma[1], frame.v()[chroma]]);
        }
    }
    bytes
}

/// Returns the frame as NV12: luma, then Cb and Cr interleaved.
fn to_nv12(frame: &VideoFrame) -> Vec<u8> {
    let chroma = frame.u().iter().zip(frame.v()).flat_map(|(blue, red)| [*blue, *red]);
    frame.y().iter().copied().chain(chroma).collect()
}

/// Returns the frame as a colour JPEG image of a camera's usual quality.
fn to_jpeg(frame: &VideoFrame) -> Vec<u8> {
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
    encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Ycbcr).expect("a JPEG image");
    bytes
}
