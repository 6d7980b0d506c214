//! Decodes pictures.

use std::io;

use openh264::{decoder::Decoder, formats::YUVSource};

use super::h264::AccessUnit;
use crate::{
    media::{FramePool, Strip, VideoFrame},
    model::{MediaTime, Size},
};

/// What came of a picture that was decoded.
#[derive(Debug)]
pub struct Decoded {
    /// The picture; its time is when its last packet arrived. `None` if there is none in what was
    /// decoded. An error leaves the decoder in need of a keyframe.
    pub frame: Result<Option<VideoFrame>, DecodeError>,
    /// Its RTP timestamp.
    pub timestamp: u32,
    /// When its last packet arrived.
    pub arrival: MediaTime,
    /// The machine-readable strip in the picture.
    pub strip: Option<Strip>,
}

/// Why a picture could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The decoder refuses it.
    #[error("the decoder refuses the picture: {0}")]
    Refused(#[from] openh264::Error),
    /// The decoder is broken and was replaced.
    #[error("the decoder panicked")]
    Panicked,
    /// The system gives no thread to decode on.
    #[error("no thread is left to decode on: {0}")]
    NoThread(io::Error),
    /// A size that no sequence parameter set passed here has.
    #[error("the decoder returned a picture of {width}x{height}")]
    Size {
        /// Pixels across.
        width: usize,
        /// Pixels down.
        height: usize,
    },
}

/// One stream's decoder.
#[derive(Default)]
pub struct VideoDecoder {
    /// `None` before the first picture and after an error: it starts anew at a keyframe.
    decoder: Option<Decoder>,
    frames: FramePool,
}

impl VideoDecoder {
    /// Decodes the picture; takes 1 to 10 ms.
    pub fn decode(&mut self, unit: &AccessUnit) -> Decoded {
        let frame = self.picture(unit);
        if frame.is_err() {
            self.decoder = None;
        }
        let strip = frame.as_ref().ok().and_then(Option::as_ref).and_then(Strip::read);
        Decoded { frame, timestamp: unit.timestamp, arrival: unit.arrival, strip }
    }

    fn picture(&mut self, unit: &AccessUnit) -> Result<Option<VideoFrame>, DecodeError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new()?),
        };
        let Some(picture) = decoder.decode(&unit.data)? else { return Ok(None) };
        let (width, height) = picture.dimensions();
        let size = Size::new(width as u32, height as u32);
        if width < 2 || height < 2 || width * height > super::sps::MAX_MACROBLOCKS as usize * 256 {
            return Err(DecodeError::Size { width, height });
        }
        let frame = self.frames.frame(size, unit.arrival, |bytes| {
            let (luma, chroma) = bytes.split_at_mut(size.width as usize * size.height as usize);
            let (blue, red) = chroma.split_at_mut(chroma.len() / 2);
            let strides = picture.strides();
            copy_rows(luma, size.width, picture.y(), strides.0);
            copy_rows(blue, size.width / 2, picture.u(), strides.1);
            copy_rows(red, size.width / 2, picture.v(), strides.2);
        });
        Ok(Some(frame))
    }
}

/// Copies rows of `width` bytes out of rows of `stride`.
fn copy_rows(to: &mut [u8], width: u32, from: &[u8], stride: usize) {
    let width = width as usize;
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks(stride)) {
        to.copy_from_slice(&from[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::{
        h264::{Assembled, Assembler},
        testing::{Cutter, Painter, at, stream},
    };

    fn unit(nals: &[Vec<u8>]) -> AccessUnit {
        let mut whole = None;
        let mut assembler = Assembler::default();
        for packet in (Cutter { sequence: 0 }).cut(nals, 7, at(3)) {
            assembler.push(&packet, |assembled| match assembled {
                Assembled::Whole(unit) => whole = Some(unit),
                Assembled::Broken(flaw) => panic!("{flaw}"),
            });
        }
        whole.unwrap()
    }

    #[test]
    fn a_picture_is_decoded_at_its_size_with_its_strip() {
        for size in [Size::new(320, 180), Size::new(642, 362), Size::new(160, 90)] {
            let nals = Painter::new(size).paint(true, 1_790_000_000_123);
            let decoded = VideoDecoder::default().decode(&unit(&nals));
            let frame = decoded.frame.unwrap().unwrap();
            assert_eq!((frame.size, frame.time, decoded.timestamp), (size, at(3), 7));
            let strip = decoded.strip.unwrap();
            assert_eq!((strip.who().as_str(), strip.unix_ms), ("Ada", 1_790_000_000_123));
            assert_eq!((frame.u()[5], frame.v()[7]), (128, 128), "grey stays grey");
        }
    }

    #[test]
    fn a_damaged_picture_is_survived_and_the_next_keyframe_decoded() {
        let mut painter = Painter::new(Size::new(160, 90));
        let (first, second) = (painter.paint(true, 0), painter.paint(true, 1));
        let (whole, next) = (unit(&first), unit(&second));
        let mut decoder = VideoDecoder::default();
        let mut refused = 0;
        for bit in (0..whole.data.len() * 8).step_by(61) {
            let mut damaged = whole.clone();
            damaged.data[bit / 8] ^= 1 << (bit % 8);
            refused += u32::from(decoder.decode(&damaged).frame.is_err());
        }
        assert!(refused > 10, "{refused}");
        let decoded = decoder.decode(&next);
        assert_eq!(decoded.strip.unwrap().frame, 1);
        assert_eq!(whole.data, stream(&first));
    }
}
