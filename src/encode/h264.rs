//! OpenH264 behind a seam: the one file of this module that needs `unsafe`.
#![expect(
    unsafe_code,
    reason = "the wrapper fixes bitrate and frame rate at the start; only its raw API changes them"
)]

use std::ffi::c_int;

use bytes::Bytes;
use openh264::{
    OpenH264API, Timestamp,
    encoder::{
        BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod,
        Profile, RateControlMode, SpsPpsStrategy, UsageType, VuiConfig,
    },
    formats::YUVSource,
};
use openh264_sys2::{
    ENCODER_OPTION, ENCODER_OPTION_BITRATE, ENCODER_OPTION_FRAME_RATE, ENCODER_OPTION_MAX_BITRATE,
    SBitrateInfo, SPATIAL_LAYER_0, SPATIAL_LAYER_ALL,
};

use crate::{
    media::VideoFrame,
    model::{Bitrate, Size},
};

/// Makes H.264 of pictures of one size: constrained baseline, no B frames, SPS and PPS before
/// every IDR, which comes first and then only when asked for.
pub struct H264Encoder {
    encoder: Encoder,
    size: Size,
    target: Bitrate,
    /// Whether the wrapper's maximum still holds: it cannot be lifted before the first picture.
    is_capped: bool,
}

/// The highest rate that OpenH264 takes; as a maximum it stands for what the level allows.
const HIGHEST: Bitrate = Bitrate::from_bps(2_000_000_000);

/// What became of one picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedPicture {
    /// Whether it is an IDR.
    pub is_key: bool,
    /// The NAL units, each behind a start code (ITU-T H.264, annex B).
    pub data: Bytes,
}

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoder could not be made.
    #[error("the video encoder cannot start at {size}: {source}")]
    Start {
        /// The picture's size.
        size: Size,
        /// What OpenH264 says.
        source: openh264::Error,
    },
    /// A picture could not be encoded.
    #[error("the video encoder failed: {0}")]
    Frame(openh264::Error),
    /// The rate could not be changed.
    #[error("the video encoder does not take the option {option}: error {code}")]
    Option {
        /// OpenH264's number of the option.
        option: i64,
        /// OpenH264's error number.
        code: i64,
    },
    /// The sound encoder failed.
    #[error("the sound encoder failed: {0}")]
    Sound(#[from] opus::Error),
}

impl H264Encoder {
    /// An encoder for pictures of that size at about `fps` pictures a second.
    ///
    /// # Errors
    /// If the size is beyond 3840x2160 or there is no memory.
    pub fn new(size: Size, fps: u32, target: Bitrate) -> Result<Self, EncodeError> {
        let config = EncoderConfig::new()
            .usage_type(UsageType::CameraVideoRealTime)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .num_threads(1)
            .rate_control_mode(RateControlMode::Bitrate)
            .bitrate(BitRate::from_bps(bps(target)))
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            // Without skipping, OpenH264 warns on the terminal that the rate may be missed.
            .skip_frames(true)
            // A cut in the picture is no reason for a keyframe: only a receiver needs one.
            .scene_change_detect(false)
            .intra_frame_period(IntraFramePeriod::auto())
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .vui(VuiConfig::bt709());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|source| EncodeError::Start { size, source })?;
        Ok(Self { encoder, size, target, is_capped: true })
    }

    /// The size of the pictures it takes.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Encodes one picture, as an IDR if `as_key`; `None` if the rate has no room for it.
    ///
    /// # Panics
    /// If the picture has another size than the encoder; a bug of the caller.
    ///
    /// # Errors
    /// If OpenH264 fails; a new encoder may do better.
    pub fn encode(
        &mut self,
        frame: &VideoFrame,
        as_key: bool,
    ) -> Result<Option<EncodedPicture>, EncodeError> {
        assert_eq!(frame.size, self.size, "an encoder takes pictures of one size");
        if as_key {
            self.encoder.force_intra_frame();
        }
        let time = Timestamp::from_millis(frame.time.as_micros() / 1000);
        let stream = self.encoder.encode_at(&Planes(frame), time).map_err(EncodeError::Frame)?;
        let is_key = stream.frame_type() == FrameType::IDR;
        let data = stream.to_vec();
        if self.is_capped {
            self.set_target(self.target)?;
        }
        Ok((!data.is_empty()).then(|| EncodedPicture { is_key, data: data.into() }))
    }

    /// The rate it aims at.
    pub fn target(&self) -> Bitrate {
        self.target
    }

    /// Aims at another rate from the next picture on; to be called after the first picture.
    ///
    /// # Errors
    /// If OpenH264 refuses.
    pub fn set_target(&mut self, target: Bitrate) -> Result<(), EncodeError> {
        if target > self.target {
            // Raises the level if it must: a rate above the level's is refused.
            self.set_rate(ENCODER_OPTION_MAX_BITRATE, target)?;
        }
        self.set_rate(ENCODER_OPTION_BITRATE, target)?;
        // With the wrapper's maximum, the rate itself, pictures are left out at the end of every
        // five seconds that had a little more. Without, one is when half a second is overdrawn.
        self.set_rate(ENCODER_OPTION_MAX_BITRATE, HIGHEST)?;
        self.is_capped = false;
        self.target = target;
        Ok(())
    }

    /// Tells the rate control how many pictures a second really come; after the first picture.
    ///
    /// # Errors
    /// If OpenH264 refuses.
    pub fn set_fps(&mut self, fps: f32) -> Result<(), EncodeError> {
        let mut fps = fps;
        // SAFETY: as in `set_rate`; this option reads one `float` from the pointer.
        let code = unsafe {
            self.encoder.raw_api().set_option(ENCODER_OPTION_FRAME_RATE, (&raw mut fps).cast())
        };
        checked(ENCODER_OPTION_FRAME_RATE, code)
    }

    fn set_rate(&mut self, option: ENCODER_OPTION, rate: Bitrate) -> Result<(), EncodeError> {
        for layer in [SPATIAL_LAYER_ALL, SPATIAL_LAYER_0] {
            let mut info = SBitrateInfo { iLayer: layer, iBitrate: bps(rate) as c_int };
            // SAFETY: the encoder is alive and exclusively borrowed, this option reads one
            // `SBitrateInfo` from the pointer, and the value outlives the call.
            let code = unsafe { self.encoder.raw_api().set_option(option, (&raw mut info).cast()) };
            checked(option, code)?;
        }
        Ok(())
    }
}

fn checked(option: ENCODER_OPTION, code: c_int) -> Result<(), EncodeError> {
    match code {
        0 => Ok(()),
        code => Err(EncodeError::Option { option: i64::from(option), code: i64::from(code) }),
    }
}

/// The rate within what OpenH264 takes: 1 kbit/s to 2 Gbit/s.
fn bps(rate: Bitrate) -> u32 {
    rate.as_bps().clamp(1000, HIGHEST.as_bps()) as u32
}

/// A frame's planes as OpenH264 reads them.
struct Planes<'a>(&'a VideoFrame);

impl YUVSource for Planes<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.0.size.width as usize, self.0.size.height as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        let width = self.0.size.width as usize;
        (width, width / 2, width / 2)
    }

    fn y(&self) -> &[u8] {
        self.0.y()
    }

    fn u(&self) -> &[u8] {
        self.0.u()
    }

    fn v(&self) -> &[u8] {
        self.0.v()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use openh264::decoder::Decoder;

    use super::*;
    use crate::{
        media::{FramePool, Strip},
        model::MediaTime,
    };

    pub(crate) const SMALL: Size = Size::new(320, 180);

    /// A textured picture that moves, with noise that no encoder can predict, and a strip.
    pub(crate) fn picture(number: u32, size: Size, fps: u32) -> VideoFrame {
        let time = MediaTime::from_micros(u64::from(number) * 1_000_000 / u64::from(fps));
        let mut seed = number.wrapping_mul(2_654_435_761) | 1;
        FramePool::default().frame(size, time, |data| {
            let luma = (size.width * size.height) as usize;
            data[luma..].fill(120);
            for (index, pixel) in data[..luma].iter_mut().enumerate() {
                let (x, y) = (index as u32 % size.width + 2 * number, index as u32 / size.width);
                seed ^= seed << 13;
                seed ^= seed >> 17;
                seed ^= seed << 5;
                *pixel = (60 + (x / 3 * 7 + y / 5 * 11) % 90 + seed % 24) as u8;
            }
            Strip::new("test", number, 1000).paint(&mut data[..luma], size.width);
        })
    }

    fn bytes_of(
        encoder: &mut H264Encoder,
        numbers: std::ops::Range<u32>,
    ) -> Result<usize, EncodeError> {
        numbers
            .map(|n| encoder.encode(&picture(n, SMALL, 30), false))
            .try_fold(0, |sum, made| Ok(sum + made?.map_or(0, |picture| picture.data.len())))
    }

    fn negative(frame: &VideoFrame) -> VideoFrame {
        FramePool::default().frame(frame.size, frame.time, |data| {
            data.fill(90);
            let rows = frame.y().chunks(SMALL.width as usize).rev();
            for (to, from) in data.chunks_mut(SMALL.width as usize).zip(rows) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to = 251 - from);
            }
        })
    }

    /// The types of the NAL units, in their order.
    pub(crate) fn nal_types(data: &[u8]) -> Vec<u8> {
        (3..data.len())
            .filter(|at| data[at - 3..*at] == [0, 0, 1])
            .map(|at| data[at] & 31)
            .collect()
    }

    #[test]
    fn the_first_picture_is_the_only_idr_and_no_other_comes_unasked() {
        let mut encoder = H264Encoder::new(SMALL, 30, Bitrate::from_kbps(600)).unwrap();
        let mut keys = vec![];
        for n in 0..400 {
            // A cut to another picture is no reason for a keyframe either.
            let frame = picture(n, SMALL, 30);
            let frame = if n >= 200 { negative(&frame) } else { frame };
            let made = encoder.encode(&frame, n == 300).unwrap();
            let Some(made) = made else { continue };
            let types = nal_types(&made.data);
            if made.is_key {
                keys.push(n);
                assert_eq!(types, [7, 8, 5], "SPS, PPS and one slice");
            } else {
                assert_eq!(types, [1], "one slice");
            }
        }
        assert_eq!(keys, [0, 300]);
    }

    #[test]
    fn the_stream_is_constrained_baseline_with_bt_709_colours() {
        let mut encoder = H264Encoder::new(SMALL, 30, Bitrate::from_kbps(600)).unwrap();
        let made = encoder.encode(&picture(0, SMALL, 30), false).unwrap().unwrap();
        // Start code, SPS, profile 66 with constraint_set0 and 1 (ITU-T H.264, A.2.1.1).
        assert_eq!(made.data[..6], [0, 0, 0, 1, 0x67, 66]);
        assert_eq!(made.data[6] & 0b1100_0000, 0b1100_0000);
        assert!(made.data[7] <= 31, "level 3.1 is what receivers promise: {}", made.data[7]);
        // video_format 5, limited range, then three times 1: BT.709 (annex E.1.1).
        let bits: String = made.data[..40].iter().map(|byte| format!("{byte:08b}")).collect();
        let colours = ["1", "101", "0", "1", "00000001", "00000001", "00000001"].concat();
        assert!(bits.contains(&colours), "{bits}");
    }

    #[test]
    fn the_level_of_720p_at_30_is_3_1() {
        let size = Size::new(1280, 720);
        let mut encoder = H264Encoder::new(size, 30, Bitrate::from_kbps(1500)).unwrap();
        for n in 0..2 {
            let made = encoder.encode(&picture(n, size, 30), true).unwrap().unwrap();
            assert_eq!(made.data[7], 31, "of picture {n}");
        }
    }

    #[test]
    fn no_picture_is_left_out_once_the_rate_is_found_and_it_is_kept() {
        let target = Bitrate::from_kbps(150);
        let mut encoder = H264Encoder::new(SMALL, 30, target).unwrap();
        let (mut left_out, mut bytes) = (vec![], 0);
        for n in 0..900 {
            // Somebody comes every now and then.
            match encoder.encode(&picture(n, SMALL, 30), n % 250 == 0).unwrap() {
                Some(made) => bytes += made.data.len(),
                None => left_out.push(n),
            }
        }
        assert!(left_out.iter().all(|n| *n < 30), "{left_out:?}");
        let share = bytes as f64 * 8.0 / 30.0 / target.as_bps() as f64;
        assert!((0.9..1.1).contains(&share), "{share}");
    }

    #[test]
    fn the_rate_falls_and_rises_while_it_runs() {
        let mut encoder = H264Encoder::new(SMALL, 30, Bitrate::from_kbps(500)).unwrap();
        bytes_of(&mut encoder, 0..60).unwrap();
        let mut rates = vec![];
        let mut start = 60;
        for kbps in [500, 150, 1000, 300] {
            encoder.set_target(Bitrate::from_kbps(kbps)).unwrap();
            bytes_of(&mut encoder, start..start + 30).unwrap();
            let bytes = bytes_of(&mut encoder, start + 30..start + 120).unwrap();
            rates.push((kbps, bytes * 8 / 3 / 1000));
            start += 120;
        }
        for (target, real) in &rates {
            let share = *real as f64 / *target as f64;
            assert!((0.7..1.25).contains(&share), "{rates:?}");
        }
    }

    #[test]
    fn a_strip_survives_encoding_at_every_default_rate() {
        for (size, fps, kbps) in
            [(SMALL, 15, 150), (Size::new(640, 360), 30, 600), (Size::new(1280, 720), 30, 1500)]
        {
            let mut encoder = H264Encoder::new(size, fps, Bitrate::from_kbps(kbps)).unwrap();
            let mut decoder = Decoder::new().unwrap();
            let mut read = 0;
            for number in 0..30 {
                let made = encoder.encode(&picture(number, size, fps), false).unwrap();
                let Some(made) = made else { continue };
                let decoded = decoder.decode(&made.data).unwrap().unwrap();
                let (stride, ..) = decoded.strides();
                let frame = FramePool::default().frame(size, MediaTime::default(), |data| {
                    for (y, row) in data.chunks_mut(size.width as usize).enumerate() {
                        if y < size.height as usize {
                            let from = &decoded.y()[y * stride..];
                            row.copy_from_slice(&from[..size.width as usize]);
                        }
                    }
                });
                assert_eq!(Strip::read(&frame), Some(Strip::new("test", number, 1000)), "{size}");
                read += 1;
            }
            assert!(read >= 15, "{size}: {read}");
        }
    }

    #[test]
    fn a_size_that_h264_cannot_carry_is_an_error() {
        let size = Size::new(4096, 2304);
        let mut encoder = H264Encoder::new(size, 30, Bitrate::from_kbps(1000)).unwrap();
        assert!(encoder.encode(&picture(0, size, 30), false).is_err());
    }
}
