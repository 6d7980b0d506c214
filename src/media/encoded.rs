//! Encoded media: each frame or packet is encoded once and shared by all its senders.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;

use super::{BLOCK_SAMPLES, Keyframe};
use crate::model::{Layer, MediaTime, Size};

/// One encoded video frame: an H.264 access unit in the byte stream format (ITU-T H.264, annex B).
#[derive(Debug)]
pub struct EncodedVideo {
    /// The layer that was encoded.
    pub layer: Layer,
    /// The capture time of the frame.
    pub time: MediaTime,
    /// Width and height in pixels.
    pub size: Size,
    /// Whether this is a keyframe: an IDR with its SPS and PPS before it.
    pub is_key: bool,
    /// The NAL units, each with a start code before it.
    pub data: Bytes,
    payloads: OnceLock<Arc<[Bytes]>>,
}

impl EncodedVideo {
    /// Builds a frame whose RTP payloads are not cut yet.
    pub fn new(layer: Layer, time: MediaTime, size: Size, is_key: bool, data: Bytes) -> Self {
        Self { layer, time, size, is_key, data, payloads: OnceLock::new() }
    }

    /// The frame's RTP payloads: the first caller cuts them, all others share the result.
    pub fn payloads(&self, cut: impl FnOnce(&Bytes) -> Vec<Bytes>) -> &Arc<[Bytes]> {
        self.payloads.get_or_init(|| cut(&self.data).into())
    }
}

impl Keyframe for EncodedVideo {
    fn is_keyframe(&self) -> bool {
        self.is_key
    }
}

/// One Opus packet (RFC 6716), 20 ms long.
#[derive(Debug)]
pub struct EncodedAudio {
    /// The capture time of the first sample.
    pub time: MediaTime,
    /// The index of the first sample since the source started, at 48 kHz, the RTP clock rate of
    /// audio.
    pub sample: u64,
    /// The packet's bytes.
    pub data: Bytes,
}

/// The length of a packet of audio in samples: 20 ms.
pub const AUDIO_PACKET_SAMPLES: u64 = 2 * BLOCK_SAMPLES as u64;

/// An Opus packet of 20 ms of silence: the configuration (CELT, full band, mono, one frame; RFC
/// 6716, section 3.1), and a frame that begins with the silence flag (section 4.3).
const SILENT_PACKET: &[u8] = &[31 << 3, 0xff, 0xfe];

impl EncodedAudio {
    /// A packet of silence that follows this one.
    pub fn silence_after(&self) -> Self {
        Self {
            time: self.time + AUDIO_PACKET_TIME,
            sample: self.sample + AUDIO_PACKET_SAMPLES,
            data: Bytes::from_static(SILENT_PACKET),
        }
    }
}

/// The length of a packet of audio.
pub const AUDIO_PACKET_TIME: Duration = Duration::from_millis(20);

impl Keyframe for EncodedAudio {
    /// Every Opus packet can be decoded on its own.
    fn is_keyframe(&self) -> bool {
        true
    }
}
