//! Converts a camera frame to I420 of BT.709, limited range.

use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::{
    MAX_FRAME_SIZE,
    colour_conversion::{CameraPixels, I420Planes},
};
use crate::{
    media::{FramePool, VideoFrame},
    model::{MediaTime, Size},
};

/// How the bytes of a camera frame are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PixelFormat {
    /// One JPEG image per frame.
    Mjpeg,
    /// Packed 4:2:2: Y, Cb, Y, Cr.
    Yuyv,
    /// 4:2:0: a luma plane, then a plane of interleaved Cb and Cr.
    Nv12,
    /// Luma only.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl PixelFormat {
    /// Bytes in a frame without padding; 0 for JPEG, whose length varies.
    fn frame_bytes(self, width: u32, height: u32) -> usize {
        let (width, height) = (width as usize, height as usize);
        let chroma_row = 2 * width.div_ceil(2);
        match self {
            Self::Mjpeg => 0,
            Self::Yuyv => 2 * chroma_row * height,
            Self::Nv12 => width * height + chroma_row * height.div_ceil(2),
            Self::Grey => width * height,
            Self::Rgb | Self::Bgr => 3 * width * height,
        }
    }
}

/// Why a camera frame was dropped.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// The frame has too few bytes.
    #[error("{got} bytes are too few for a {format:?} frame of {width}x{height}")]
    TooShort {
        /// The layout that the camera announced.
        format: PixelFormat,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// The number of bytes received.
        got: usize,
    },
    /// Not a JPEG image, or a truncated one.
    #[error("damaged JPEG frame: {0}")]
    Jpeg(String),
}

/// Converts camera frames, with buffers that are reused.
#[derive(Debug, Default)]
pub struct PixelConverter {
    /// The pixels of a JPEG image.
    rgb: Vec<u8>,
    pool: FramePool,
}

impl PixelConverter {
    /// Converts a frame of `width` × `height`; a JPEG carries its own size. An odd last row or
    /// column is cut off.
    ///
    /// Cameras send BT.601 (the default of the USB video class), our frames are BT.709. The
    /// conversion takes a quarter of a millisecond for 1280x720, the decoding of a JPEG takes four.
    ///
    /// # Errors
    /// [`PixelError`] if the bytes are too few or damaged: the next frame may be good.
    pub fn convert(
        &mut self,
        format: PixelFormat,
        (width, height): (u32, u32),
        bytes: &[u8],
        time: MediaTime,
    ) -> Result<VideoFrame, PixelError> {
        if format == PixelFormat::Mjpeg {
            let size = self.decode_jpeg(bytes)?;
            return Ok(self.to_frame((PixelFormat::Rgb, size), &self.rgb, time));
        }
        let needed = format.frame_bytes(width, height);
        if bytes.len() < needed || width < 2 || height < 2 {
            let got = bytes.len();
            return Err(PixelError::TooShort { format, width, height, got });
        }
        Ok(self.to_frame((format, (width, height)), &bytes[..needed], time))
    }

    /// Converts pixels of any format but JPEG; `bytes` has the right length.
    fn to_frame(
        &self,
        (format, (width, height)): (PixelFormat, (u32, u32)),
        bytes: &[u8],
        time: MediaTime,
    ) -> VideoFrame {
        let size = Size::new(width, height);
        let (width, height) = (width as usize, height as usize);
        let pixels = CameraPixels { format, width, height, bytes };
        self.pool.frame(size, time, |data| {
            let (luma, chroma) = data.split_at_mut((size.width * size.height) as usize);
            let (cb, cr) = chroma.split_at_mut(chroma.len() / 2);
            pixels.convert(&mut I420Planes { width: size.width as usize, luma, cb, cr });
        })
    }

    /// Decodes a JPEG into `rgb`; returns the image's width and height.
    fn decode_jpeg(&mut self, bytes: &[u8]) -> Result<(u32, u32), PixelError> {
        let jpeg = |error: zune_jpeg::errors::DecodeErrors| PixelError::Jpeg(error.to_string());
        // The size is limited before a buffer is allocated, so a false header costs no memory.
        let options = DecoderOptions::default()
            .set_max_width(MAX_FRAME_SIZE.width as usize)
            .set_max_height(MAX_FRAME_SIZE.width as usize)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(jpeg)?;
        let (width, height) =
            decoder.dimensions().ok_or_else(|| PixelError::Jpeg("no size".to_owned()))?;
        self.rgb.resize(3 * width * height, 0);
        decoder.decode_into(&mut self.rgb).map_err(jpeg)?;
        Ok((width as u32, height as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red, BT.601 limited (as cameras send it) and BT.709 limited (as frames are).
    const RED_601: [u8; 3] = [81, 90, 240];
    const RED_709: [u8; 3] = [63, 102, 240];

    fn convert(format: PixelFormat, size: (u32, u32), bytes: &[u8]) -> VideoFrame {
        PixelConverter::default().convert(format, size, bytes, MediaTime::default()).unwrap()
    }

    fn assert_colour(frame: &VideoFrame, wanted: [u8; 3]) {
        for (plane, wanted) in [frame.y(), frame.u(), frame.v()].into_iter().zip(wanted) {
            let far = plane.iter().find(|pixel| pixel.abs_diff(wanted) > 2);
            assert_eq!(far, None, "{wanted} in {frame:?}");
        }
    }

    #[test]
    fn every_format_converts_to_the_same_red() {
        let [y, u, v] = RED_601;
        let yuyv = [y, u, y, v].repeat(32 * 18 / 2);
        let nv12 = [vec![y; 32 * 18], [u, v].repeat(32 * 18 / 4)].concat();
        // Drivers round buffers up to whole pages: bytes after the frame are ignored.
        let padded = [yuyv.clone(), vec![7; 4096]].concat();
        for (format, bytes) in [
            (PixelFormat::Yuyv, yuyv),
            (PixelFormat::Yuyv, padded),
            (PixelFormat::Nv12, nv12),
            (PixelFormat::Rgb, [255, 0, 0].repeat(32 * 18)),
            (PixelFormat::Bgr, [0, 0, 255].repeat(32 * 18)),
        ] {
            let frame = convert(format, (32, 18), &bytes);
            assert_eq!(frame.size, Size::new(32, 18));
            assert_colour(&frame, RED_709);
        }
        let grey = convert(PixelFormat::Grey, (32, 18), &[255; 32 * 18]);
        assert_colour(&grey, [235, 128, 128]);
    }

    #[test]
    fn a_frame_of_odd_size_loses_its_last_row_and_column() {
        let frame = convert(PixelFormat::Rgb, (33, 19), &[0, 0, 0].repeat(33 * 19));
        assert_eq!(frame.size, Size::new(32, 18));
        assert_colour(&frame, [16, 128, 128]);
    }

    #[test]
    fn a_short_or_damaged_frame_is_an_error_and_not_a_panic() {
        let mut pixels = PixelConverter::default();
        for (format, size, bytes) in [
            (PixelFormat::Yuyv, (32, 18), vec![0; 32 * 18 * 2 - 1]),
            (PixelFormat::Nv12, (32, 18), vec![0; 32 * 18]),
            (PixelFormat::Rgb, (0, 0), vec![]),
            (PixelFormat::Mjpeg, (32, 18), vec![]),
            (PixelFormat::Mjpeg, (32, 18), vec![0xff, 0xd8, 0xff, 0xe0]),
            (PixelFormat::Mjpeg, (32, 18), vec![0; 5000]),
        ] {
            let converted = pixels.convert(format, size, &bytes, MediaTime::default());
            assert!(converted.is_err(), "{format:?}");
        }
    }
}
