//! Entry points for the fuzz targets of media files and camera frames (`tests/fuzz`).

use std::{fs, path::PathBuf};

use super::{
    pixels::{PixelConverter, PixelFormat},
    wav::WavFile,
    y4m::Y4mFile,
};
use crate::model::MediaTime;

/// Opens the data as a Y4M file and reads its first frames.
pub fn y4m(data: &[u8]) {
    let file = TempFile::create(data, "y4m");
    if let Ok(mut video) = Y4mFile::open(&file.0) {
        for _ in 0..4 {
            let _ = video.read_frame(MediaTime::default());
        }
    }
}

/// Opens the data as a WAV file and reads its first blocks.
pub fn wav(data: &[u8]) {
    let file = TempFile::create(data, "wav");
    if let Ok(mut audio) = WavFile::open(&file.0) {
        for _ in 0..20 {
            let Ok(block) = audio.next_block() else { return };
            assert!(block.mid.iter().all(|sample| sample.is_finite()));
        }
    }
}

/// Converts a camera frame. The first three bytes are its format, width and height; the others are
/// the frame.
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
    let _ = PixelConverter::default().convert(format, size, bytes, MediaTime::default());
}

/// A temporary file, removed when dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn create(data: &[u8], extension: &str) -> Self {
        let name = format!("quintet-fuzz-{}.{extension}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, data).expect("the temporary folder is writable");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
