//! Received media, as the subscribers of a remote track share them.

use bytes::Bytes;

use super::{Keyframe, RtpPacket};
use crate::model::MediaTime;

/// One received video frame: complete, in decoding order, and decodable together with the frames
/// since the last keyframe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessUnit {
    /// The RTP timestamp, modulo 2³², at 90 kHz.
    pub timestamp: u32,
    /// The arrival time of the last packet.
    pub arrival: MediaTime,
    /// Whether a decoder can start here. For H.264: an IDR picture with its SPS and PPS.
    pub is_keyframe: bool,
    /// Whether it contains a picture. If not, it contains only parameter sets, or nothing.
    pub has_picture: bool,
    /// Whether frames before it were lost or damaged. Only keyframes follow a loss, because nothing
    /// else can be decoded after one.
    pub follows_loss: bool,
    /// The frame in the codec's byte stream format. For H.264: the NAL units that a decoder needs,
    /// each with a start code before it (ITU-T H.264, annex B).
    pub data: Bytes,
}

impl Keyframe for AccessUnit {
    fn is_keyframe(&self) -> bool {
        self.is_keyframe
    }
}

/// One received audio packet. Subscribers receive them in order of arrival: packets may be missing,
/// late or there twice, and those without a payload are padding.
#[derive(Clone, Debug)]
pub struct AudioPacket(pub RtpPacket);

impl Keyframe for AudioPacket {
    /// Every Opus packet can be decoded on its own.
    fn is_keyframe(&self) -> bool {
        true
    }
}
