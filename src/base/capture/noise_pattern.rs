//! A synthetic test pattern (`busy`) that needs the encoder's full bitrate: texture everywhere, a
//! swaying view, a silhouette that moves in front of it, and sensor noise.

use std::f64::consts::TAU;

use super::{
    pattern::{MAX_LATENESS, burn_in_strip},
    source::{FrameClock, Next, Source, SourceError},
};
use crate::{
    media::{BurntInTimecode, FramePool, VideoFrame, now, unix_ms},
    model::{MediaTime, Size},
};

/// How far the view sways to each side, as a share of the frame's width and height.
const MAX_SWAY: f64 = 0.03;

/// Number of noise values before they repeat. It is prime, so that rows do not line up.
const NOISE_VALUES: usize = 65_521;

/// The mean of the luma texture and its largest deviation. With noise added, luma stays within the
/// limited range.
const LUMA_RANGE: (f32, f32) = (120.0, 84.0);

/// The noise pattern as a video source. Each start gives the same frames.
pub struct NoisePattern {
    clock: FrameClock,
    fps: u32,
    name: String,
    frame_number: u32,
    scene: Scene,
    pool: FramePool,
}

impl NoisePattern {
    /// A pattern of this size and frame rate, with `name` in its burnt-in strip.
    pub fn new(size: Size, fps: u32, name: &str) -> Self {
        let clock = FrameClock::new(now(), u64::from(fps), 1, MAX_LATENESS);
        let (scene, pool) = (Scene::new(size), FramePool::default());
        Self { clock, fps, name: name.to_owned(), frame_number: 0, scene, pool }
    }

    /// Paints the next frame at once, with `time` as its capture time.
    pub fn paint(&mut self, time: MediaTime) -> VideoFrame {
        let strip = BurntInTimecode::new(&self.name, self.frame_number, unix_ms(time));
        let seconds = f64::from(self.frame_number) / f64::from(self.fps);
        let (scene, number, size) = (&self.scene, self.frame_number, self.scene.size);
        self.frame_number = self.frame_number.wrapping_add(1);
        self.pool.frame(size, time, |data| {
            scene.paint(data, seconds, number);
            burn_in_strip(data, size, strip);
        })
    }
}

impl Source<VideoFrame> for NoisePattern {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        let Some(time) = self.clock.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(self.paint(time)))
    }
}

/// Everything that does not change from frame to frame.
///
/// A frame is a view of two textures plus noise. Painting one costs about as much as converting a
/// camera frame.
struct Scene {
    size: Size,
    background: Texture,
    foreground: Texture,
    noise: Vec<u8>,
}

impl Scene {
    fn new(size: Size) -> Self {
        let mut random = Random(0x5eed);
        let noise = (0..NOISE_VALUES).map(|_| random.sensor_noise() as u8).collect();
        let background = Texture::new(size, &mut random);
        let foreground = Texture::new(size, &mut random);
        Self { size, background, foreground, noise }
    }

    fn paint(&self, data: &mut [u8], seconds: f64, number: u32) {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let (luma, chroma) = data.split_at_mut(width * height);
        let (blue, red) = chroma.split_at_mut(width * height / 4);
        let sway = self.background.view_offset((seconds / 5.3, seconds / 3.7));
        let nod = self.foreground.view_offset((seconds / 2.9, seconds / 2.3));
        let mut random = Random(u64::from(number));
        for (index, plane) in [luma, blue, red].into_iter().enumerate() {
            let shift = usize::from(index > 0);
            let (width, height) = (width >> shift, height >> shift);
            for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                row.copy_from_slice(self.background.row_view(index, sway, y, 0..width));
                let inside = silhouette(y as f64 / height as f64, seconds);
                let (start, end) = (inside.0 * width as f64, inside.1 * width as f64);
                let (start, end) = (start as usize, end as usize);
                row[start..end].copy_from_slice(self.foreground.row_view(
                    index,
                    nod,
                    y,
                    start..end,
                ));
                // Only luma gets noise: it has the finest detail.
                if index == 0 {
                    let from = random.below(NOISE_VALUES - width.min(NOISE_VALUES / 2));
                    for (pixel, noise) in row.iter_mut().zip(&self.noise[from..]) {
                        *pixel = pixel.wrapping_add(*noise);
                    }
                }
            }
        }
    }
}

/// The left and right edge of the moving silhouette in a row, as shares of the frame's width.
/// `down` is the row's position as a share of the height.
fn silhouette(down: f64, seconds: f64) -> (f64, f64) {
    let middle = 0.5 + 0.08 * (TAU * seconds / 4.1).sin();
    let (head, body) = ((down - 0.42) / 0.22, (down - 1.1) / 0.5);
    let half = |height: f64, width: f64| width * (1.0 - height * height).max(0.0).sqrt();
    let half = half(head, 0.1).max(half(body, 0.26));
    (middle - half, middle + half)
}

/// A texture with detail of every size, wider and higher than the visible part.
struct Texture {
    /// Pixels beyond each side that can come into view; even.
    margin: (usize, usize),
    /// Bytes in a luma row.
    width: usize,
    planes: [Vec<u8>; 3],
}

impl Texture {
    fn new(size: Size, random: &mut Random) -> Self {
        let margin = |side: u32| (f64::from(side) * MAX_SWAY) as usize / 2 * 2;
        let margin = (margin(size.width), margin(size.height));
        let (width, height) =
            (size.width as usize + 2 * margin.0, size.height as usize + 2 * margin.1);
        let luma = value_noise((width, height), LUMA_RANGE, random);
        let mut chroma = || value_noise((width / 2, height / 2), (128.0, 40.0), random);
        Self { margin, width, planes: [luma, chroma(), chroma()] }
    }

    /// The top left corner of the view, in even pixels, after this many oscillations across and
    /// down.
    fn view_offset(&self, turns: (f64, f64)) -> (usize, usize) {
        let offset = |turns: f64, margin: usize| {
            ((1.0 + (TAU * turns).sin()) * margin as f64) as usize / 2 * 2
        };
        (offset(turns.0, self.margin.0), offset(turns.1, self.margin.1))
    }

    /// A part of row `y` of a plane, in the view with this top left corner.
    fn row_view(
        &self,
        plane: usize,
        (left, top): (usize, usize),
        y: usize,
        part: std::ops::Range<usize>,
    ) -> &[u8] {
        let shift = usize::from(plane > 0);
        let start = (y + (top >> shift)) * (self.width >> shift) + (left >> shift);
        &self.planes[plane][start + part.start..start + part.end]
    }
}

/// Value noise with octaves from a quarter of the height down to three pixels.
///
/// Each octave is weaker than the one before, as in natural images. Steps where the sum changes
/// its sign imitate the edges of objects.
fn value_noise(
    (width, height): (usize, usize),
    (mean, deviation): (f32, f32),
    random: &mut Random,
) -> Vec<u8> {
    let mut sum = vec![0.0_f32; width * height];
    let (mut cell, mut weight) = (height / 4 + 3, 0.55);
    while cell >= 3 {
        let (columns, rows) = (width / cell + 2, height / cell + 2);
        let lattice: Vec<f32> = (0..columns * rows).map(|_| random.uniform()).collect();
        for (y, row) in sum.chunks_exact_mut(width).enumerate() {
            let (first, down) = (y / cell * columns, (y % cell) as f32 / cell as f32);
            for (x, pixel) in row.iter_mut().enumerate() {
                let (at, across) = (first + x / cell, (x % cell) as f32 / cell as f32);
                let mix = |at: usize| lattice[at] + (lattice[at + 1] - lattice[at]) * across;
                let (upper, lower) = (mix(at), mix(at + columns));
                *pixel += weight * (upper + (lower - upper) * down);
            }
        }
        (cell, weight) = (cell / 2, weight * 0.6);
    }
    // The `signum` term makes a step where the sum changes its sign: an outline.
    let byte = |sum: f32| mean + deviation * (0.7 * sum + 0.25 * sum.signum()).clamp(-1.0, 1.0);
    sum.into_iter().map(|sum| byte(sum) as u8).collect()
}

/// A deterministic random number generator (SplitMix64: Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number from 0 up to, but without, `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A uniformly distributed number between -1 and 1.
    fn uniform(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// The noise of a camera sensor indoors: bell-shaped, with a standard deviation of about 2,
    /// within ±7.
    fn sensor_noise(&mut self) -> i8 {
        let sum: f32 = (0..4).map(|_| self.uniform()).sum();
        (sum * 1.75) as i8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encode::H264Encoder, model::Bitrate};

    fn at(number: u32) -> MediaTime {
        MediaTime::from_micros(u64::from(number) * 1_000_000 / 30)
    }

    #[test]
    fn every_size_is_painted_within_range_and_with_a_readable_strip() {
        for (width, height) in [(16, 16), (16, 1080), (3840, 16), (642, 358), (1280, 720)] {
            let mut pattern = NoisePattern::new(Size::new(width, height), 30, "Ada");
            for number in 0..4 {
                let frame = pattern.paint(at(number * 7));
                assert!(frame.y().iter().all(|pixel| (16..=235).contains(pixel)));
                if width >= 80 && height >= 90 {
                    let strip = BurntInTimecode::new("Ada", number, unix_ms(at(number * 7)));
                    assert_eq!(BurntInTimecode::read(&frame), Some(strip));
                }
            }
        }
    }

    #[test]
    fn the_encoder_uses_its_full_bitrate_and_skips_hardly_any_frame() {
        let (size, rate) = (Size::new(640, 360), Bitrate::from_kbps(600));
        let mut pattern = NoisePattern::new(size, 30, "Ada");
        let mut encoder = H264Encoder::new(size, 30, rate).unwrap();
        let mut lengths = vec![];
        for number in 0..150 {
            if let Some(encoded) = encoder.encode(&pattern.paint(at(number)), false).unwrap() {
                lengths.push(encoded.data.len());
            }
        }
        // Rate control makes up for the large first keyframe within two seconds.
        let bits = 8 * lengths[lengths.len() - 90..].iter().sum::<usize>() as u64 / 3;
        assert!((450_000..700_000).contains(&bits), "{bits} bit/s of 600 000");
        assert!(lengths.len() >= 147, "{} of 150 frames", lengths.len());
    }
}
