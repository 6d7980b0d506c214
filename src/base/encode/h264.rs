//! The H.264 encoder, a wrapper of OpenH264. The only file of this module with `unsafe` code.
#![expect(
    unsafe_code,
    reason = "the openh264 crate fixes bitrate and frame rate; only its raw API changes them"
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
    ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, SBitrateInfo, SEncParamExt, SPATIAL_LAYER_0,
    SPATIAL_LAYER_ALL,
};

use crate::{
    media::VideoFrame,
    model::{Bitrate, Size},
    supervision::Panicked,
};

/// Encodes frames of one size to H.264: constrained baseline, no B frames, SPS and PPS before every
/// IDR. The first frame is an IDR, later ones only on request.
pub struct H264Encoder {
    encoder: Encoder,
    size: Size,
    target: Bitrate,
    /// Whether the maximum rate set by the openh264 crate still applies. It cannot be changed
    /// before the first frame.
    is_capped: bool,
    temporal_layers: TemporalLayers,
}

/// How many temporal layers a stream has (ITU-T H.264, `nal_ref_idc`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TemporalLayers {
    /// Each frame refers to the one before it.
    #[default]
    One,
    /// No frame refers to a frame of the second layer, about every second one. It costs 5 to 16 % of
    /// the rate at the same quality where things move.
    Two,
}

/// The highest rate that OpenH264 accepts. As a maximum rate it means "what the level allows".
const MAX_RATE: Bitrate = Bitrate::from_bps(2_000_000_000);

/// The encoder's output for one frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedFrame {
    /// Whether it is an IDR.
    pub is_key: bool,
    /// Whether no other frame refers to it.
    pub is_discardable: bool,
    /// The NAL units, each with a start code before it (ITU-T H.264, annex B).
    pub data: Bytes,
}

/// Why encoding failed.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The encoder could not be created.
    #[error("the video encoder cannot start at {size}: {source}")]
    Start {
        /// The frame size.
        size: Size,
        /// OpenH264's error.
        source: openh264::Error,
    },
    /// A frame could not be encoded.
    #[error("the video encoder failed: {0}")]
    Frame(openh264::Error),
    /// The bitrate or the frame rate could not be changed.
    #[error("the video encoder does not take the option {option}: error {code}")]
    Option {
        /// OpenH264's number of the option.
        option: i64,
        /// OpenH264's error number.
        code: i64,
    },
    /// The audio encoder failed.
    #[error("the sound encoder failed: {0}")]
    Audio(#[from] opus::Error),
    /// The encoder panicked, and is replaced.
    #[error("{0}; it is started again")]
    Panicked(#[from] Panicked),
}

impl H264Encoder {
    /// The name of the implementation.
    pub const NAME: &'static str = "OpenH264";

    /// Creates an encoder for frames of one size at about `fps` frames per second.
    ///
    /// # Errors
    /// If the size exceeds 3840x2160 or there is no memory.
    pub fn new(size: Size, fps: u32, target: Bitrate) -> Result<Self, EncodeError> {
        let config = EncoderConfig::new()
            .usage_type(UsageType::CameraVideoRealTime)
            .profile(Profile::Baseline)
            .complexity(Complexity::Low)
            .num_threads(1)
            .rate_control_mode(RateControlMode::Bitrate)
            .bitrate(BitRate::from_bps(clamped_bps(target)))
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            // Without frame skipping, OpenH264 warns on the terminal that it may exceed the rate.
            .skip_frames(true)
            // A scene change does not need a keyframe: only receivers do.
            .scene_change_detect(false)
            .intra_frame_period(IntraFramePeriod::auto())
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .vui(VuiConfig::bt709());
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config)
            .map_err(|source| EncodeError::Start { size, source })?;
        let temporal_layers = TemporalLayers::One;
        Ok(Self { encoder, size, target, is_capped: true, temporal_layers })
    }

    /// The size of the frames that it accepts.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Encodes one frame, as an IDR if `as_key`. `None` if rate control skips the frame.
    ///
    /// # Panics
    /// If the frame has another size than the encoder, which is a bug of the caller.
    ///
    /// # Errors
    /// If OpenH264 fails. A new encoder may succeed.
    pub fn encode(
        &mut self,
        frame: &VideoFrame,
        as_key: bool,
    ) -> Result<Option<EncodedFrame>, EncodeError> {
        assert_eq!(frame.size, self.size, "all frames of an encoder have one size");
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
        let is_discardable = !is_key && is_unreferenced(&data);
        Ok((!data.is_empty()).then(|| EncodedFrame { is_key, is_discardable, data: data.into() }))
    }

    /// The target bitrate.
    pub fn target(&self) -> Bitrate {
        self.target
    }

    /// Sets the target bitrate from the next frame on. Call it after the first frame.
    ///
    /// # Errors
    /// If OpenH264 rejects the value.
    pub fn set_target(&mut self, target: Bitrate) -> Result<(), EncodeError> {
        if target > self.target {
            // Raises the H.264 level if necessary: OpenH264 rejects a rate above that of the level.
            self.set_rate(ENCODER_OPTION_MAX_BITRATE, target)?;
        }
        self.set_rate(ENCODER_OPTION_BITRATE, target)?;
        // The openh264 crate sets the maximum rate to the target. Frames are then skipped at the
        // end of every five seconds that slightly exceed it. Without that maximum, a frame is
        // skipped only when half a second of the rate is overdrawn.
        self.set_rate(ENCODER_OPTION_MAX_BITRATE, MAX_RATE)?;
        self.is_capped = false;
        self.target = target;
        Ok(())
    }

    /// Sets the real frame rate for rate control. Call it after the first frame.
    ///
    /// # Errors
    /// If OpenH264 rejects the value.
    pub fn set_fps(&mut self, fps: f32) -> Result<(), EncodeError> {
        let mut fps = fps;
        // SAFETY: as in `set_rate`; this option reads one `float` from the pointer.
        let code = unsafe {
            self.encoder.raw_api().set_option(ENCODER_OPTION_FRAME_RATE, (&raw mut fps).cast())
        };
        check_option(ENCODER_OPTION_FRAME_RATE, code)
    }

    /// Sets the number of temporal layers from the next frame on. Call it after the first frame.
    ///
    /// The first change to two layers causes an IDR, all later changes none: the encoder then has
    /// memory for two layers and two reference frames. Two reference frames are never set with one
    /// layer: OpenH264 2.6 would read beyond the memory of its rate control once there are two.
    ///
    /// # Errors
    /// If OpenH264 rejects the change.
    pub fn set_temporal_layers(&mut self, layers: TemporalLayers) -> Result<(), EncodeError> {
        if layers == self.temporal_layers {
            return Ok(());
        }
        let mut params = SEncParamExt::default();
        let pointer = (&raw mut params).cast();
        // SAFETY: the encoder is alive and exclusively borrowed; this option is written to, and read
        // from, one `SEncParamExt`, which outlives both calls.
        let code = unsafe {
            self.encoder.raw_api().get_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, pointer)
        };
        check_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, code)?;
        match layers {
            TemporalLayers::One => params.iTemporalLayerNum = 1,
            TemporalLayers::Two => (params.iTemporalLayerNum, params.iNumRefFrame) = (2, 2),
        }
        let pointer = (&raw mut params).cast();
        // SAFETY: as above.
        let code = unsafe {
            self.encoder.raw_api().set_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, pointer)
        };
        check_option(ENCODER_OPTION_SVC_ENCODE_PARAM_EXT, code)?;
        self.temporal_layers = layers;
        // The maximum rate is that of the level again.
        self.set_target(self.target)
    }

    fn set_rate(&mut self, option: ENCODER_OPTION, rate: Bitrate) -> Result<(), EncodeError> {
        for layer in [SPATIAL_LAYER_ALL, SPATIAL_LAYER_0] {
            let mut info = SBitrateInfo { iLayer: layer, iBitrate: clamped_bps(rate) as c_int };
            // SAFETY: the encoder is alive and exclusively borrowed, this option reads one
            // `SBitrateInfo` from the pointer, and the value outlives the call.
            let code = unsafe { self.encoder.raw_api().set_option(option, (&raw mut info).cast()) };
            check_option(option, code)?;
        }
        Ok(())
    }
}

fn check_option(option: ENCODER_OPTION, code: c_int) -> Result<(), EncodeError> {
    match code {
        0 => Ok(()),
        code => Err(EncodeError::Option { option: i64::from(option), code: i64::from(code) }),
    }
}

/// Whether the first NAL unit has `nal_ref_idc` 0 (ITU-T H.264, section 7.4.1). A frame of OpenH264
/// that is not an IDR is one slice.
fn is_unreferenced(data: &[u8]) -> bool {
    let start = data.windows(3).position(|bytes| bytes == [0, 0, 1]);
    start.and_then(|at| data.get(at + 3)).is_some_and(|header| header & 0x60 == 0)
}

/// Clamps a rate to what OpenH264 accepts: 1 kbit/s to 2 Gbit/s.
fn clamped_bps(rate: Bitrate) -> u32 {
    rate.as_bps().clamp(1000, MAX_RATE.as_bps()) as u32
}

/// A frame's planes in the form that OpenH264 reads.
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
        media::{BurntInTimecode, FramePool},
        model::MediaTime,
    };

    pub(crate) const SMALL: Size = Size::new(320, 180);

    /// A moving textured frame with unpredictable noise and a timecode.
    pub(crate) fn test_frame(number: u32, size: Size, fps: u32) -> VideoFrame {
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
            BurntInTimecode::new("test", number, 1000).paint(&mut data[..luma], size.width);
        })
    }

    fn bytes_of(
        encoder: &mut H264Encoder,
        numbers: std::ops::Range<u32>,
    ) -> Result<usize, EncodeError> {
        numbers
            .map(|n| encoder.encode(&test_frame(n, SMALL, 30), false))
            .try_fold(0, |sum, made| Ok(sum + made?.map_or(0, |frame| frame.data.len())))
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

    /// The types of the NAL units, in order.
    pub(crate) fn nal_types(data: &[u8]) -> Vec<u8> {
        (3..data.len())
            .filter(|at| data[at - 3..*at] == [0, 0, 1])
            .map(|at| data[at] & 31)
            .collect()
    }

    #[test]
    fn the_first_frame_is_an_idr_and_others_are_only_on_request() {
        let mut encoder = H264Encoder::new(SMALL, 30, Bitrate::from_kbps(600)).unwrap();
        let mut keys = vec![];
        for n in 0..400 {
            // From frame 200 on, the content is another one, which does not cause a keyframe.
            let frame = test_frame(n, SMALL, 30);
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
        let made = encoder.encode(&test_frame(0, SMALL, 30), false).unwrap().unwrap();
        // Start code, SPS, profile 66 with constraint_set0 and 1 (ITU-T H.264, A.2.1.1).
        assert_eq!(made.data[..6], [0, 0, 0, 1, 0x67, 66]);
        assert_eq!(made.data[6] & 0b1100_0000, 0b1100_0000);
        assert!(made.data[7] <= 31, "receivers support level 3.1: {}", made.data[7]);
        // video_format 5, limited range, then three times the code 1 for BT.709 (annex E.1.1).
        let bits: String = made.data[..40].iter().map(|byte| format!("{byte:08b}")).collect();
        let colours = ["1", "101", "0", "1", "00000001", "00000001", "00000001"].concat();
        assert!(bits.contains(&colours), "{bits}");
    }

    #[test]
    fn the_level_of_720p_at_30_is_3_1() {
        let size = Size::new(1280, 720);
        let mut encoder = H264Encoder::new(size, 30, Bitrate::from_kbps(1500)).unwrap();
        for n in 0..2 {
            let made = encoder.encode(&test_frame(n, size, 30), true).unwrap().unwrap();
            assert_eq!(made.data[7], 31, "frame {n}");
        }
    }

    #[test]
    fn no_frame_is_skipped_after_the_first_second_and_the_rate_is_met() {
        let target = Bitrate::from_kbps(150);
        let mut encoder = H264Encoder::new(SMALL, 30, target).unwrap();
        let (mut skipped, mut bytes) = (vec![], 0);
        for n in 0..900 {
            // A keyframe is requested now and then, as by a new viewer.
            match encoder.encode(&test_frame(n, SMALL, 30), n % 250 == 0).unwrap() {
                Some(made) => bytes += made.data.len(),
                None => skipped.push(n),
            }
        }
        assert!(skipped.iter().all(|n| *n < 30), "{skipped:?}");
        let share = bytes as f64 * 8.0 / 30.0 / target.as_bps() as f64;
        assert!((0.9..1.1).contains(&share), "{share}");
    }

    #[test]
    fn the_rate_follows_the_target_while_encoding() {
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

    /// Encodes frames, with two layers from frame 30 to 89 and from 120 on.
    fn layered() -> Vec<Option<EncodedFrame>> {
        let mut encoder = H264Encoder::new(SMALL, 30, Bitrate::from_kbps(400)).unwrap();
        let frames = (0..180).map(|n| {
            match n {
                30 | 120 => encoder.set_temporal_layers(TemporalLayers::Two).unwrap(),
                90 => encoder.set_temporal_layers(TemporalLayers::One).unwrap(),
                60 => encoder.set_target(Bitrate::from_kbps(250)).unwrap(),
                _ => {}
            }
            encoder.encode(&test_frame(n, SMALL, 30), n == 150).unwrap()
        });
        frames.collect()
    }

    #[test]
    fn two_temporal_layers_come_and_go_with_one_idr() {
        let frames = layered();
        let is_key = |n: &usize| frames[*n].as_ref().is_some_and(|frame| frame.is_key);
        assert_eq!((0..180).filter(is_key).collect::<Vec<_>>(), [0, 30, 150]);
        let discardable = |range: std::ops::Range<usize>| {
            frames[range].iter().flatten().filter(|frame| frame.is_discardable).count()
        };
        assert_eq!([discardable(0..30), discardable(91..120)], [0, 0]);
        assert!((25..=30).contains(&discardable(30..90)), "{}", discardable(30..90));
        assert!((25..=30).contains(&discardable(121..180)), "{}", discardable(121..180));
    }

    #[test]
    fn the_base_layer_alone_decodes_to_the_same_pictures() {
        let frames = layered();
        let pictures = |keeps: fn(&EncodedFrame) -> bool| {
            let mut decoder = Decoder::new().unwrap();
            let kept = frames.iter().flatten().map(|frame| {
                keeps(frame).then(|| {
                    let decoded = decoder.decode(&frame.data).expect("no error");
                    decoded.expect("each gives a picture").y().to_vec()
                })
            });
            kept.collect::<Vec<_>>()
        };
        let (all, base) = (pictures(|_| true), pictures(|frame| !frame.is_discardable));
        assert!(all.iter().zip(&base).all(|(one, other)| other.is_none() || one == other));
        assert!((110..125).contains(&base.iter().flatten().count()), "{}", base.len());
    }

    #[test]
    fn a_timecode_survives_encoding_at_every_default_rate() {
        for (size, fps, kbps) in
            [(SMALL, 15, 150), (Size::new(640, 360), 30, 600), (Size::new(1280, 720), 30, 1500)]
        {
            let mut encoder = H264Encoder::new(size, fps, Bitrate::from_kbps(kbps)).unwrap();
            let mut decoder = Decoder::new().unwrap();
            let mut read = 0;
            for number in 0..30 {
                let made = encoder.encode(&test_frame(number, size, fps), false).unwrap();
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
                assert_eq!(
                    BurntInTimecode::read(&frame),
                    Some(BurntInTimecode::new("test", number, 1000)),
                    "{size}"
                );
                read += 1;
            }
            assert!(read >= 15, "{size}: {read}");
        }
    }

    #[test]
    fn a_size_that_openh264_does_not_support_is_an_error() {
        let size = Size::new(4096, 2304);
        let mut encoder = H264Encoder::new(size, 30, Bitrate::from_kbps(1000)).unwrap();
        assert!(encoder.encode(&test_frame(0, size, 30), false).is_err());
    }
}
