//! The codecs of tracks.

use crate::model::Media;

/// The codec of a track. A track keeps its codec for life.
///
/// A further codec needs its SDP parameters (`transport/setup.rs`), its RTP payload format and its
/// decoder (`playback`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// H.264 in the constrained baseline profile (ITU-T H.264; RTP payload format: RFC 6184).
    H264,
    /// Opus (RFC 6716; RTP payload format: RFC 7587).
    Opus,
}

impl Codec {
    /// [`Media::Audio`] or [`Media::Video`].
    pub const fn media(self) -> Media {
        match self {
            Self::H264 => Media::Video,
            Self::Opus => Media::Audio,
        }
    }
}
