//! Encoded media: each frame or packet is encoded once and shared by all its senders.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::Keyframe;
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
    /// Whether no other frame refers to it, so that it may be left out.
    pub is_discardable: bool,
    /// The NAL units, each with a start code before it.
    pub data: Bytes,
    payloads: OnceLock<Arc<[Bytes]>>,
}

impl EncodedVideo {
    /// Builds a frame whose RTP payloads are not cut yet.
    pub fn new(layer: Layer, time: MediaTime, size: Size, is_key: bool, data: Bytes) -> Self {
        let payloads = OnceLock::new();
        Self { layer, time, size, is_key, is_discardable: false, data, payloads }
    }

    /// Marks it as a frame that may be left out, or not.
    #[must_use]
    pub fn discardable(self, is_discardable: bool) -> Self {
        Self { is_discardable, ..self }
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

    fn is_discardable(&self) -> bool {
        self.is_discardable
    }
}
