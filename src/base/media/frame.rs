//! Raw media: one video frame, ten milliseconds of audio.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use crate::model::{MediaTime, Size};

/// The rate at which all audio is processed, in samples per second.
pub const AUDIO_RATE: u32 = 48_000;

/// Samples in an [`AudioBlock`]: ten milliseconds.
pub const BLOCK_SAMPLES: usize = 480;

/// One video frame in I420 (BT.709, limited range). Clones share the buffer.
#[derive(Clone)]
pub struct VideoFrame {
    /// Width and height in pixels.
    pub size: Size,
    /// The capture time of a local frame, the playout time of a received one.
    pub time: MediaTime,
    data: Arc<Vec<u8>>,
    half: Arc<OnceLock<Self>>,
}

impl VideoFrame {
    /// Wraps `data`: the Y plane, then U, then V, rows without padding.
    ///
    /// # Panics
    /// If `data` is not [`Size::i420_bytes`] long, which is a bug of the caller.
    pub fn new(size: Size, time: MediaTime, data: Arc<Vec<u8>>) -> Self {
        assert_eq!(data.len(), size.i420_bytes(), "an I420 frame of {size}");
        Self { size, time, data, half: Arc::default() }
    }

    /// The frame at about half of its width and height: the first caller scales it, all others wait
    /// for that and share the result.
    pub fn half(&self, scale: impl FnOnce(&Self) -> Self) -> &Self {
        self.half.get_or_init(|| scale(self))
    }

    /// The luma plane, `width × height` bytes.
    pub fn y(&self) -> &[u8] {
        &self.data[..self.luma_bytes()]
    }

    /// The blue-difference plane, a quarter of the luma plane's bytes.
    pub fn u(&self) -> &[u8] {
        &self.data[self.luma_bytes()..self.luma_bytes() * 5 / 4]
    }

    /// The red-difference plane, a quarter of the luma plane's bytes.
    pub fn v(&self) -> &[u8] {
        &self.data[self.luma_bytes() * 5 / 4..]
    }

    fn luma_bytes(&self) -> usize {
        self.size.width as usize * self.size.height as usize
    }
}

impl fmt::Debug for VideoFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VideoFrame({} at {} µs)", self.size, self.time.as_micros())
    }
}

/// Frame buffers, reused once the last frame that refers to them is dropped.
///
/// A fresh 720p buffer costs 340 page faults; one from the pool costs none.
#[derive(Debug, Default)]
pub struct FramePool {
    buffers: Mutex<Vec<Arc<Vec<u8>>>>,
}

impl FramePool {
    /// The most buffers to keep: as many as a slow consumer, an encoder, a tile and the source
    /// hold at once.
    const KEPT: usize = 8;

    /// Returns a frame of the given size and time. `paint` fills it: it gets the whole I420 buffer,
    /// whose content is arbitrary.
    pub fn frame(&self, size: Size, time: MediaTime, paint: impl FnOnce(&mut [u8])) -> VideoFrame {
        let mut buffer = self.take(size.i420_bytes());
        // A buffer from `take` has one owner, so this never copies.
        let bytes: &mut Vec<u8> = Arc::make_mut(&mut buffer);
        paint(bytes);
        self.keep(Arc::clone(&buffer));
        VideoFrame::new(size, time, buffer)
    }

    fn take(&self, bytes: usize) -> Arc<Vec<u8>> {
        let mut buffers = self.buffers.lock().unwrap_or_else(|poison| poison.into_inner());
        buffers.retain(|buffer| buffer.len() == bytes);
        match buffers.iter().position(|buffer| Arc::strong_count(buffer) == 1) {
            Some(free) => buffers.swap_remove(free),
            None => Arc::new(vec![0; bytes]),
        }
    }

    fn keep(&self, buffer: Arc<Vec<u8>>) {
        let mut buffers = self.buffers.lock().unwrap_or_else(|poison| poison.into_inner());
        if buffers.len() < Self::KEPT {
            buffers.push(buffer);
        }
    }
}

/// Ten milliseconds of captured audio at [`AUDIO_RATE`], full scale ±1. A [`StereoBlock`] with a time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AudioBlock {
    /// The capture time of the first sample.
    pub time: MediaTime,
    /// The samples; of stereo the mean of both channels.
    pub samples: [f32; BLOCK_SAMPLES],
    /// Of stereo, half of what the left channel has more than the right one.
    pub side: Option<[f32; BLOCK_SAMPLES]>,
}

impl AudioBlock {
    /// A block of one channel.
    pub const fn mono(time: MediaTime, samples: [f32; BLOCK_SAMPLES]) -> Self {
        Self { time, samples, side: None }
    }

    /// A block with that capture time.
    pub const fn new(time: MediaTime, StereoBlock { mid, side }: StereoBlock) -> Self {
        Self { time, samples: mid, side }
    }
}

/// Ten milliseconds of audio at [`AUDIO_RATE`], of one channel or two.
///
/// Two channels are kept as mid and side, so that whatever needs one channel takes the mid, and one
/// channel costs no more than if there were no stereo.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StereoBlock {
    /// The samples; of two channels their mean.
    pub mid: [f32; BLOCK_SAMPLES],
    /// Of two channels, half of what the left one has more than the right one.
    pub side: Option<[f32; BLOCK_SAMPLES]>,
}

impl StereoBlock {
    /// A block of one channel.
    pub const fn mono(mid: [f32; BLOCK_SAMPLES]) -> Self {
        Self { mid, side: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_of_a_dropped_frame_is_reused_and_that_of_a_held_one_is_not() {
        let pool = FramePool::default();
        let size = Size::new(4, 2);
        let first = pool.frame(size, MediaTime::default(), |bytes| bytes.fill(1));
        let second = pool.frame(size, MediaTime::default(), |bytes| bytes.fill(2));
        assert_eq!((first.y()[0], second.y()[0]), (1, 2), "a held frame is not painted over");
        let freed = second.y().as_ptr();
        drop(second);
        let third = pool.frame(size, MediaTime::default(), |bytes| bytes.fill(3));
        assert_eq!(third.y().as_ptr(), freed);
        assert_eq!((third.y().len(), third.u().len(), third.v().len()), (8, 2, 2));
    }
}
