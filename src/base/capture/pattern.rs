//! The default test pattern: moving hills, a bouncing ball and a machine-readable strip.

use std::{f32::consts::TAU, time::Duration};

use super::source::{FrameClock, Next, Source, SourceError};
use crate::{
    media::{BurntInTimecode, FramePool, VideoFrame, now, unix_ms},
    model::{MediaTime, Size},
};

/// How late a frame may be painted; later frames are skipped.
pub(super) const MAX_LATENESS: Duration = Duration::from_millis(100);

/// How long the panorama takes to pass by once, in seconds.
const PANORAMA_SECONDS: u64 = 12;

/// The test pattern as a video source.
pub(super) struct Pattern {
    clock: FrameClock,
    fps: u32,
    name: String,
    frame_number: u32,
    scene: Scene,
    pool: FramePool,
}

impl Pattern {
    /// A pattern of this size and frame rate, with `name` in its strip.
    pub(super) fn new(size: Size, fps: u32, name: &str) -> Self {
        let scene = Scene::new(size, hue(name));
        let clock = FrameClock::new(now(), u64::from(fps), 1, MAX_LATENESS);
        let (name, pool) = (name.to_owned(), FramePool::default());
        Self { clock, fps, name, frame_number: 0, scene, pool }
    }

    fn paint(&mut self, time: MediaTime) -> VideoFrame {
        let strip = BurntInTimecode::new(&self.name, self.frame_number, unix_ms(time));
        let seconds = f64::from(self.frame_number) / f64::from(self.fps);
        self.frame_number = self.frame_number.wrapping_add(1);
        let (scene, size) = (&self.scene, self.scene.size);
        self.pool.frame(size, time, |data| {
            scene.paint(data, seconds);
            burn_in_strip(data, size, strip);
        })
    }
}

/// Paints the strip over the top of a frame and makes the chroma under it grey.
pub(super) fn burn_in_strip(data: &mut [u8], size: Size, strip: BurntInTimecode) {
    let (luma, chroma) = data.split_at_mut((size.width * size.height) as usize);
    strip.paint(luma, size.width);
    let grey =
        (BurntInTimecode::height(size.width).min(size.height) / 2 * (size.width / 2)) as usize;
    let (blue, red) = chroma.split_at_mut(chroma.len() / 2);
    blue[..grey].fill(128);
    red[..grey].fill(128);
}

impl Source<VideoFrame> for Pattern {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        let Some(time) = self.clock.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(self.paint(time)))
    }
}

/// Everything that does not change from frame to frame.
///
/// A frame is rows copied from a panorama plus one small sprite. Painting one costs about as much
/// as copying a frame.
struct Scene {
    size: Size,
    /// I420 planes. Each row holds the panorama twice, so that every view is one slice.
    panorama: [Vec<u8>; 3],
    ball: Ball,
}

impl Scene {
    fn new(size: Size, hue: f32) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        let landscape = Landscape::new(size, hue);
        let mut panorama =
            [vec![0; 2 * width * height], vec![0; width * height / 2], vec![0; width * height / 2]];
        for y in 0..height {
            for x in 0..width {
                let colour = landscape.colour(x, y);
                let luma = y * 2 * width + x;
                panorama[0][luma] = colour[0];
                panorama[0][luma + width] = colour[0];
                if x % 2 == 0 && y % 2 == 0 {
                    let chroma = y / 2 * width + x / 2;
                    for (plane, value) in panorama[1..].iter_mut().zip(&colour[1..]) {
                        plane[chroma] = *value;
                        plane[chroma + width / 2] = *value;
                    }
                }
            }
        }
        Self { size, panorama, ball: Ball::new(size, hue) }
    }

    /// Paints the frame for this number of seconds after the start.
    fn paint(&self, data: &mut [u8], seconds: f64) {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let turn = seconds.rem_euclid(PANORAMA_SECONDS as f64) / PANORAMA_SECONDS as f64;
        // Even, so that luma and chroma move together.
        let shift = (turn * width as f64) as usize / 2 * 2;
        let (luma, chroma) = data.split_at_mut(width * height);
        let (blue, red) = chroma.split_at_mut(width * height / 4);
        for (plane, source, width, shift) in [
            (&mut *luma, &self.panorama[0], width, shift),
            (&mut *blue, &self.panorama[1], width / 2, shift / 2),
            (&mut *red, &self.panorama[2], width / 2, shift / 2),
        ] {
            for (row, wide) in plane.chunks_exact_mut(width).zip(source.chunks_exact(2 * width)) {
                row.copy_from_slice(&wide[shift..shift + width]);
            }
        }
        self.ball.paint([luma, blue, red], self.size, seconds);
    }
}

/// A sky, far hills and near hills, which repeat after the frame's width.
struct Landscape {
    size: Size,
    hue: f32,
    /// The upper edge of the far and near hills in each column, in rows.
    far: Vec<f32>,
    near: Vec<f32>,
    /// A wave in each direction that textures the hills.
    across: Vec<f32>,
    down: Vec<f32>,
}

impl Landscape {
    fn new(size: Size, hue: f32) -> Self {
        let (width, height) = (size.width as f32, size.height as f32);
        let wave =
            |x: u32, turns: f32, phase: f32| (TAU * (turns * x as f32 / width + phase)).sin();
        let columns = || 0..size.width;
        let far = |x| height * (0.50 + 0.05 * wave(x, 2.0, 0.1) + 0.03 * wave(x, 5.0, 0.4));
        let near = |x| height * (0.74 + 0.06 * wave(x, 1.0, 0.7) + 0.02 * wave(x, 7.0, 0.2));
        Self {
            size,
            hue,
            far: columns().map(far).collect(),
            near: columns().map(near).collect(),
            across: columns().map(|x| wave(x, 16.0, 0.0)).collect(),
            down: (0..size.height).map(|y| (TAU * 9.0 * y as f32 / height).sin()).collect(),
        }
    }

    fn colour(&self, x: usize, y: usize) -> [u8; 3] {
        let row = y as f32;
        let down = row / self.size.height as f32;
        let texture = 0.02 * self.across[x] * self.down[y];
        let sky = hsv(self.hue, 0.55 - 0.5 * down, 0.75 + 0.35 * down);
        let far = hsv(self.hue + 0.08, 0.35, 0.62 - 0.3 * (down - 0.5) + texture);
        let near = hsv(self.hue + 0.75, 0.45, 0.42 - 0.5 * (down - 0.75) + 2.0 * texture);
        // Edges are blended over two rows, as a lens blurs them.
        let behind = blend(sky, far, (row - self.far[x]) / 2.0);
        ycbcr(blend(behind, near, (row - self.near[x]) / 2.0))
    }
}

/// A shaded ball that bounces between the left and the right edge.
struct Ball {
    radius: usize,
    colour: [u8; 3],
    /// Luma of the square around the ball; 0 outside the ball.
    luma: Vec<u8>,
}

impl Ball {
    fn new(size: Size, hue: f32) -> Self {
        let radius = (size.height.min(size.width) as usize / 9).max(2) / 2 * 2;
        let side = 2 * radius;
        let colour = ycbcr(hsv(hue + 0.5, 0.7, 0.9));
        let shade = |index: usize| {
            let (x, y) = (index % side, index / side);
            let from_centre = |at: usize| (at as f32 + 0.5) / radius as f32 - 1.0;
            let (dx, dy) = (from_centre(x), from_centre(y));
            if dx * dx + dy * dy > 1.0 {
                return 0;
            }
            let light = 1.0 - 0.5 * ((dx + 0.35).powi(2) + (dy + 0.4).powi(2)).sqrt();
            (f32::from(colour[0]) * light.clamp(0.3, 1.0)).clamp(16.0, 235.0) as u8
        };
        Self { radius, colour, luma: (0..side * side).map(shade).collect() }
    }

    fn paint(&self, planes: [&mut [u8]; 3], size: Size, seconds: f64) {
        let (width, height) = (size.width as usize, size.height as usize);
        let side = 2 * self.radius;
        if side >= width || side >= height {
            return;
        }
        let swing = |period: f64| 1.0 - (2.0 * (seconds / period).fract() - 1.0).abs();
        let leap = 1.0 - (2.0 * (seconds / 1.6).fract() - 1.0).powi(2);
        let left = (swing(9.0) * (width - side) as f64) as usize / 2 * 2;
        let top = ((1.0 - 0.6 * leap) * (height - side) as f64) as usize / 2 * 2;
        let [luma, blue, red] = planes;
        for (y, sprite) in self.luma.chunks_exact(side).enumerate() {
            let Some(first) = sprite.iter().position(|pixel| *pixel > 0) else { continue };
            let inside = first..side - first;
            let row = (top + y) * width + left;
            luma[row + inside.start..row + inside.end].copy_from_slice(&sprite[inside.clone()]);
            if y % 2 == 0 {
                let row = (top + y) / 2 * (width / 2) + left / 2;
                let (start, end) = (row + inside.start / 2, row + inside.end / 2);
                blue[start..end].fill(self.colour[1]);
                red[start..end].fill(self.colour[2]);
            }
        }
    }
}

/// A hue between 0 and 1 derived from the name (FNV-1a hash), so that the patterns of different
/// participants look different.
fn hue(name: &str) -> f32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 8) as f32 / (1_u32 << 24) as f32
}

/// Converts a hue (in turns), a saturation and a brightness to red, green and blue from 0 to 1.
fn hsv(hue: f32, saturation: f32, value: f32) -> [f32; 3] {
    [0.0, 2.0 / 3.0, 1.0 / 3.0].map(|offset| {
        let ramp = ((hue + offset).rem_euclid(1.0) * 6.0 - 3.0).abs() - 1.0;
        let value = value.clamp(0.0, 1.0);
        value * (1.0 - saturation.clamp(0.0, 1.0) * (1.0 - ramp.clamp(0.0, 1.0)))
    })
}

fn blend(one: [f32; 3], other: [f32; 3], share: f32) -> [f32; 3] {
    let share = share.clamp(0.0, 1.0);
    std::array::from_fn(|index| one[index] + (other[index] - one[index]) * share)
}

/// Converts RGB to Y, Cb and Cr of BT.709, limited range (ITU-R BT.709-6, section 3).
fn ycbcr([red, green, blue]: [f32; 3]) -> [u8; 3] {
    let luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    let level = |value: f32| value.round().clamp(16.0, 240.0) as u8;
    [
        level(16.0 + 219.0 * luma),
        level(128.0 + 224.0 * (blue - luma) / 1.8556),
        level(128.0 + 224.0 * (red - luma) / 1.5748),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_differs_is_within_range_and_carries_its_strip() {
        for size in [Size::new(80, 16), Size::new(320, 180), Size::new(1280, 720)] {
            let mut pattern = Pattern::new(size, 30, "Ada");
            let mut last: Option<VideoFrame> = None;
            for number in 0..90 {
                let time = MediaTime::from_micros(u64::from(number) * 33_333);
                let frame = pattern.paint(time);
                assert_eq!(
                    BurntInTimecode::read(&frame),
                    Some(BurntInTimecode::new("Ada", number, unix_ms(time)))
                );
                assert!(frame.y().iter().all(|pixel| (16..=235).contains(pixel)), "{size}");
                let below = BurntInTimecode::height(size.width) * size.width;
                let is_moving = last
                    .is_none_or(|last| last.y()[below as usize..] != frame.y()[below as usize..]);
                // A very small frame moves by less than two pixels each time.
                assert!(is_moving || size.width < 320, "frame {number} at {size}");
                last = Some(frame);
            }
        }
    }

    #[test]
    fn every_size_that_can_be_requested_can_be_painted() {
        for (width, height) in [(16, 16), (16, 2160), (3840, 16), (18, 62), (642, 358)] {
            let mut pattern = Pattern::new(Size::new(width, height), 60, "");
            (0..200).for_each(|n| drop(pattern.paint(MediaTime::from_micros(n * 16_667))));
        }
    }

    #[test]
    fn colours_follow_bt_709() {
        assert_eq!(ycbcr([1.0, 1.0, 1.0]), [235, 128, 128]);
        assert_eq!(ycbcr([0.0, 0.0, 0.0]), [16, 128, 128]);
        assert_eq!(ycbcr([1.0, 0.0, 0.0]), [63, 102, 240]);
        assert_eq!(ycbcr([0.0, 0.0, 1.0]), [32, 240, 118]);
    }

    #[test]
    fn two_names_give_two_hues() {
        assert!((hue("Ada") - hue("Bob")).abs() > 0.05);
    }
}
