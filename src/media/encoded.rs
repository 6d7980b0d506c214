//! Encoded media, made once and shared by all who send it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::RestartPoint;
use crate::model::{Layer, MediaTime, Size};

/// One encoded picture: an H.264 access unit in Annex B form (ITU-T H.264, annex B).
#[derive(Debug)]
pub struct EncodedVideo {
    /// Which rung it belongs to.
    pub layer: Layer,
    /// When its picture was captured.
    pub time: MediaTime,
    /// Pixels.
    pub size: Size,
    /// Whether decoding can start here: an IDR with its SPS and PPS before it.
    pub is_key: bool,
    /// The NAL units, each behind a start code.
    pub data: Bytes,
    payloads: OnceLock<Arc<[Bytes]>>,
}

impl EncodedVideo {
    /// The frame of these parts.
    pub fn new(layer: Layer, time: MediaTime, size: Size, is_key: bool, data: Bytes) -> Self {
        Self { layer, time, size, is_key, data, payloads: OnceLock::new() }
    }

    /// The frame's RTP payloads: cut by the first sender that asks, shared by all others.
    pub fn payloads(&self, cut: impl FnOnce(&Bytes) -> Vec<Bytes>) -> &Arc<[Bytes]> {
        self.payloads.get_or_init(|| cut(&self.data).into())
    }
}

impl RestartPoint for EncodedVideo {
    fn is_restart_point(&self) -> bool {
        self.is_key
    }
}

/// One Opus packet (RFC 6716), 20 ms long.
#[derive(Debug)]
pub struct EncodedAudio {
    /// When its first sample was captured.
    pub time: MediaTime,
    /// Its first sample's number since the source started, at 48 kHz: the RTP clock of sound.
    pub sample: u64,
    /// The packet.
    pub data: Bytes,
}

impl RestartPoint for EncodedAudio {
    /// Every Opus packet can be played on its own.
    fn is_restart_point(&self) -> bool {
        true
    }
}
