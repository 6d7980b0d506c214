//! Files and cameras' bytes, made up by a fuzzer (`tests/fuzz`).

use std::{fs, path::PathBuf};

use super::{
    pixels::{PixelFormat, Pixels},
    wav::WavFile,
    y4m::Y4mFile,
};
use crate::model::MediaTime;

/// Reads a film and its first pictures.
pub fn y4m(data: &[u8]) {
    let file = Scrap::of(data, "y4m");
    if let Ok(mut film) = Y4mFile::open(&file.0) {
        for _ in 0..4 {
            let _ = film.read(MediaTime::default());
        }
    }
}

/// Reads a sound and its first blocks.
pub fn wav(data: &[u8]) {
    let file = Scrap::of(data, "wav");
    if let Ok(mut sound) = WavFile::open(&file.0) {
        for _ in 0..20 {
            let Ok(samples) = sound.samples() else { return };
            assert!(samples.iter().all(|sample| sample.is_finite()));
        }
    }
}

/// Converts what a camera gives: a format, a width and a height in a byte each, then the bytes.
pub fn pixels(data: &[u8]) {
    let [format, width, height, bytes @ ..] = data else { return };
    let format = match format % 6 {
        0 => PixelFormat::Yuyv,
        1 => PixelFormat::Nv12,
        2 => PixelFormat::Grey,
        3 => PixelFormat::Rgb,
        4 => PixelFormat::Bgr,
        _ => PixelFormat::Mjpeg,
    };
    let size = (u32::from(*width), u32::from(*height));
    let _ = Pixels::default().convert(format, size, bytes, MediaTime::default());
}

/// A file that goes when it is dropped.
struct Scrap(PathBuf);

impl Scrap {
    fn of(data: &[u8], ending: &str) -> Self {
        let name = format!("quintet-fuzz-{}.{ending}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, data).expect("the folder for scraps can be written to");
        Self(path)
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
