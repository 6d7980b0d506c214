//! A camera's picture as I420 of BT.709, limited range.

use yuv::{
    BufferStoreMut, YuvBiPlanarImage, YuvConversionMode, YuvPackedImage, YuvPlanarImageMut,
    YuvRange, YuvStandardMatrix,
};
use zune_jpeg::{
    JpegDecoder,
    zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions},
};

use super::MAX_PATTERN;
use crate::{
    media::{FramePool, VideoFrame},
    model::{MediaTime, Size},
};

/// How a camera's bytes are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PixelFormat {
    /// A JPEG picture each.
    Mjpeg,
    /// Packed 4:2:2: Y, Cb, Y, Cr.
    Yuyv,
    /// A luma plane, then one of Cb and Cr by turns.
    Nv12,
    /// Luma alone.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

impl PixelFormat {
    /// Bytes of a picture without padding; any number for JPEG.
    fn bytes(self, width: u32, height: u32) -> usize {
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

/// Why a camera's picture was thrown away.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// Too few bytes.
    #[error("{got} bytes are no {format:?} picture of {width}x{height}")]
    Short {
        /// How they should be laid out.
        format: PixelFormat,
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Bytes that there are.
        got: usize,
    },
    /// No JPEG picture, or half of one.
    #[error("a damaged JPEG picture: {0}")]
    Jpeg(String),
    /// What the converter refuses.
    #[error("a picture that cannot be converted: {0}")]
    Convert(#[from] yuv::YuvError),
}

/// Converts pictures, with buffers that are used again.
#[derive(Debug, Default)]
pub struct Pixels {
    rgb: Vec<u8>,
    pool: FramePool,
}

impl Pixels {
    /// Converts a picture of `width` × `height`; a JPEG brings its own size. An odd last row or
    /// column is cut off.
    ///
    /// Cameras send BT.601 (the USB video class's default), frames are BT.709: by way of RGB both
    /// steps run at full SIMD speed, some 1 ms for 1280x720.
    ///
    /// # Errors
    /// [`PixelError`] if the bytes are too few or damaged: the next picture may be good.
    pub fn convert(
        &mut self,
        format: PixelFormat,
        (width, height): (u32, u32),
        bytes: &[u8],
        time: MediaTime,
    ) -> Result<VideoFrame, PixelError> {
        if format == PixelFormat::Mjpeg {
            let size = self.decode_jpeg(bytes)?;
            return self.frame_of_rgb(size, time);
        }
        let needed = format.bytes(width, height);
        if bytes.len() < needed || width < 2 || height < 2 {
            let got = bytes.len();
            return Err(PixelError::Short { format, width, height, got });
        }
        self.unpack(format, (width, height), &bytes[..needed])?;
        self.frame_of_rgb((width, height), time)
    }

    /// Converts into `rgb` what is not JPEG; `bytes` has the right length.
    fn unpack(
        &mut self,
        format: PixelFormat,
        (width, height): (u32, u32),
        bytes: &[u8],
    ) -> Result<(), PixelError> {
        let pixels = width as usize * height as usize;
        let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt601);
        self.rgb.resize(3 * pixels, 0);
        match format {
            PixelFormat::Mjpeg => {}
            PixelFormat::Yuyv => {
                let yuy_stride = width.div_ceil(2) * 4;
                let image = YuvPackedImage { yuy: bytes, yuy_stride, width, height };
                yuv::yuyv422_to_rgb(&image, &mut self.rgb, 3 * width, range, matrix)?;
            }
            PixelFormat::Nv12 => {
                let (y_plane, uv_plane) = bytes.split_at(pixels);
                let (y_stride, uv_stride) = (width, width.div_ceil(2) * 2);
                let image =
                    YuvBiPlanarImage { y_plane, y_stride, uv_plane, uv_stride, width, height };
                let mode = YuvConversionMode::Balanced;
                yuv::yuv_nv12_to_rgb(&image, &mut self.rgb, 3 * width, range, matrix, mode)?;
            }
            PixelFormat::Grey => {
                for (rgb, grey) in self.rgb.chunks_exact_mut(3).zip(bytes) {
                    rgb.fill(*grey);
                }
            }
            PixelFormat::Rgb => self.rgb.copy_from_slice(bytes),
            PixelFormat::Bgr => {
                self.rgb.copy_from_slice(bytes);
                self.rgb.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
            }
        }
        Ok(())
    }

    /// The frame of what is in `rgb`.
    fn frame_of_rgb(
        &self,
        (width, height): (u32, u32),
        time: MediaTime,
    ) -> Result<VideoFrame, PixelError> {
        let size = Size::new(width, height);
        let mut converted = Ok(());
        let frame = self.pool.frame(size, time, |data| {
            let (luma, chroma) = data.split_at_mut((size.width * size.height) as usize);
            let (blue, red) = chroma.split_at_mut(chroma.len() / 2);
            let mut image = YuvPlanarImageMut {
                y_plane: BufferStoreMut::Borrowed(luma),
                y_stride: size.width,
                u_plane: BufferStoreMut::Borrowed(blue),
                u_stride: size.width / 2,
                v_plane: BufferStoreMut::Borrowed(red),
                v_stride: size.width / 2,
                width: size.width,
                height: size.height,
            };
            let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt709);
            let (rgb, mode) = (&self.rgb, YuvConversionMode::Balanced);
            converted = yuv::rgb_to_yuv420(&mut image, rgb, 3 * width, range, matrix, mode);
        });
        converted?;
        Ok(frame)
    }

    /// Decodes into `rgb`; the picture's width and height.
    fn decode_jpeg(&mut self, bytes: &[u8]) -> Result<(u32, u32), PixelError> {
        let jpeg = |error: zune_jpeg::errors::DecodeErrors| PixelError::Jpeg(error.to_string());
        // The bound is checked before a buffer is made: a damaged header is no bomb.
        let options = DecoderOptions::default()
            .set_max_width(MAX_PATTERN.width as usize)
            .set_max_height(MAX_PATTERN.width as usize)
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
        Pixels::default().convert(format, size, bytes, MediaTime::default()).unwrap()
    }

    fn assert_colour(frame: &VideoFrame, wanted: [u8; 3]) {
        for (plane, wanted) in [frame.y(), frame.u(), frame.v()].into_iter().zip(wanted) {
            let far = plane.iter().find(|pixel| pixel.abs_diff(wanted) > 2);
            assert_eq!(far, None, "{wanted} in {frame:?}");
        }
    }

    #[test]
    fn every_format_gives_the_same_red() {
        let [y, u, v] = RED_601;
        let yuyv = [y, u, y, v].repeat(32 * 18 / 2);
        let nv12 = [vec![y; 32 * 18], [u, v].repeat(32 * 18 / 4)].concat();
        // Drivers round buffers up to whole pages: what is behind the picture is ignored.
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
    fn an_odd_picture_loses_its_last_row_and_column() {
        let frame = convert(PixelFormat::Rgb, (33, 19), &[0, 0, 0].repeat(33 * 19));
        assert_eq!(frame.size, Size::new(32, 18));
        assert_colour(&frame, [16, 128, 128]);
    }

    #[test]
    fn a_short_or_damaged_picture_is_an_error_and_no_panic() {
        let mut pixels = Pixels::default();
        for (format, size, bytes) in [
            (PixelFormat::Yuyv, (32, 18), vec![0; 32 * 18 * 2 - 1]),
            (PixelFormat::Nv12, (32, 18), vec![0; 32 * 18]),
            (PixelFormat::Rgb, (0, 0), vec![]),
            (PixelFormat::Mjpeg, (32, 18), vec![]),
            (PixelFormat::Mjpeg, (32, 18), vec![0xff, 0xd8, 0xff, 0xe0]),
            (PixelFormat::Mjpeg, (32, 18), vec![0; 5000]),
        ] {
            let made = pixels.convert(format, size, &bytes, MediaTime::default());
            assert!(made.is_err(), "{format:?}");
        }
    }
}
