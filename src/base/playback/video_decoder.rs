//! The H.264 decoder of one video stream (OpenH264).

use std::io;

use openh264::{decoder::Decoder, formats::YUVSource};

use crate::{
    media::{AccessUnit, BurntInTimecode, FramePool, VideoFrame},
    model::{MediaTime, Size},
};

/// The result of decoding one access unit.
#[derive(Debug)]
pub struct DecodeOutcome {
    /// The frame; its time is the arrival time of its last packet. `None` if the access unit
    /// contains no picture. After an error the decoder needs a keyframe.
    pub frame: Result<Option<VideoFrame>, DecodeError>,
    /// The RTP timestamp of the access unit.
    pub timestamp: u32,
    /// The arrival time of the last packet.
    pub arrival: MediaTime,
    /// Whether it is a keyframe.
    pub is_keyframe: bool,
    /// The timecode in the frame.
    pub timecode: Option<BurntInTimecode>,
}

/// Why decoding failed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The decoder rejects the access unit.
    #[error("the decoder rejects the frame: {0}")]
    Rejected(#[from] openh264::Error),
    /// The decoder panicked and was replaced.
    #[error("the decoder panicked")]
    Panicked,
    /// The system cannot create a decoder thread.
    #[error("no thread is left to decode on: {0}")]
    NoThread(io::Error),
    /// A size that no accepted sequence parameter set has.
    #[error("the decoder returned a frame of {width}x{height}")]
    Size {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
}

/// The decoder of one video stream.
#[derive(Default)]
pub struct VideoDecoder {
    /// `None` before the first frame and after an error. A new decoder starts at a keyframe.
    decoder: Option<Decoder>,
    frames: FramePool,
}

impl VideoDecoder {
    /// Decodes an access unit. Takes 1 to 10 ms.
    pub fn decode(&mut self, unit: &AccessUnit) -> DecodeOutcome {
        let frame = self.decode_frame(unit);
        if frame.is_err() {
            self.decoder = None;
        }
        let timecode = frame.as_ref().ok().and_then(Option::as_ref).and_then(BurntInTimecode::read);
        let AccessUnit { timestamp, arrival, is_keyframe, .. } = *unit;
        DecodeOutcome { frame, timestamp, arrival, is_keyframe, timecode }
    }

    fn decode_frame(&mut self, unit: &AccessUnit) -> Result<Option<VideoFrame>, DecodeError> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            empty => empty.insert(Decoder::new()?),
        };
        let Some(decoded) = decoder.decode(&unit.data)? else { return Ok(None) };
        let (width, height) = decoded.dimensions();
        let size = Size::new(width as u32, height as u32);
        if width < 2 || height < 2 || width * height > super::sps::MAX_MACROBLOCKS as usize * 256 {
            return Err(DecodeError::Size { width, height });
        }
        let frame = self.frames.frame(size, unit.arrival, |bytes| {
            let (luma, chroma) = bytes.split_at_mut(size.width as usize * size.height as usize);
            let (blue, red) = chroma.split_at_mut(chroma.len() / 2);
            let strides = decoded.strides();
            copy_rows(luma, size.width, decoded.y(), strides.0);
            copy_rows(blue, size.width / 2, decoded.u(), strides.1);
            copy_rows(red, size.width / 2, decoded.v(), strides.2);
        });
        Ok(Some(frame))
    }
}

/// Copies `width` bytes of each row of `stride` bytes.
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
        h264_depacketizer::{Depacketized, H264Depacketizer},
        testing::{TestPacketizer, TestVideoEncoder, annex_b, at},
    };

    fn unit(nals: &[Vec<u8>]) -> AccessUnit {
        let mut complete = None;
        let mut assembler = H264Depacketizer::default();
        for packet in (TestPacketizer { sequence: 0 }).packetize(nals, 7, at(3)) {
            assembler.push(&packet, |assembled| match assembled {
                Depacketized::Complete(unit) => complete = Some(unit),
                Depacketized::Damaged(error) => panic!("{error}"),
            });
        }
        complete.unwrap()
    }

    #[test]
    fn a_frame_is_decoded_with_its_size_and_its_timecode() {
        for size in [Size::new(320, 180), Size::new(642, 362), Size::new(160, 90)] {
            let nals = TestVideoEncoder::new(size).next_frame(true, 1_790_000_000_123);
            let decoded = VideoDecoder::default().decode(&unit(&nals));
            let frame = decoded.frame.unwrap().unwrap();
            assert_eq!((frame.size, frame.time, decoded.timestamp), (size, at(3), 7));
            let timecode = decoded.timecode.unwrap();
            assert_eq!((timecode.name().as_str(), timecode.unix_ms), ("Ada", 1_790_000_000_123));
            assert_eq!((frame.u()[5], frame.v()[7]), (128, 128), "neutral chroma stays neutral");
        }
    }

    #[test]
    fn the_decoder_survives_damaged_frames_and_decodes_the_next_keyframe() {
        let mut painter = TestVideoEncoder::new(Size::new(160, 90));
        let (first, second) = (painter.next_frame(true, 0), painter.next_frame(true, 1));
        let (intact, next) = (unit(&first), unit(&second));
        let mut decoder = VideoDecoder::default();
        let mut rejected = 0;
        for bit in (0..intact.data.len() * 8).step_by(61) {
            let mut data = intact.data.to_vec();
            data[bit / 8] ^= 1 << (bit % 8);
            let damaged = AccessUnit { data: data.into(), ..intact.clone() };
            rejected += u32::from(decoder.decode(&damaged).frame.is_err());
        }
        assert!(rejected > 10, "{rejected}");
        let decoded = decoder.decode(&next);
        assert_eq!(decoded.timecode.unwrap().frame, 1);
        assert_eq!(intact.data, annex_b(&first));
    }
}
