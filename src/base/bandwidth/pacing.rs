//! What a pacer takes and gives.

use super::ClusterId;
use crate::model::{Bitrate, MediaTime};

/// The order in which packets leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketClass {
    /// Audio and RTCP. They leave at once.
    Audio,
    /// Audio that is sent again.
    AudioRetransmission,
    /// Video that is sent again.
    VideoRetransmission,
    /// Video.
    Video(FramePart),
}

/// Where in a frame a video packet is. The pacer drops whole frames only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FramePart {
    /// The first packet of a keyframe.
    KeyframeStart,
    /// The first packet of another frame.
    FrameStart,
    /// A further packet of the same frame.
    Continuation,
}

/// What became of a packet that was pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a keyframe may have to be asked for"]
pub enum Pushed {
    /// It waits for its turn.
    Queued,
    /// It was dropped: its queue is full, or its frame cannot be decoded without frames that were
    /// dropped.
    Dropped,
    /// Too much video was queued, so it was dropped with all frames up to the next keyframe. The
    /// encoder must make one.
    NeedsKeyframe,
}

/// How fast packets leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacingRate {
    /// The target of the estimator.
    pub target: Bitrate,
    /// How far above it packets leave.
    pub pacing: Pacing,
}

/// How far above its target a peer sends while it sends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pacing {
    /// 2.5 times the target, and the first ten packets at once: nothing is known of the path yet.
    Starting,
    /// Five times the target, six packets at a time: the path carries about twice what could be sent.
    Free,
    /// The same, but keyframes leave as at the start: the path carries more than is sent.
    Ample,
    /// 1.5 times the target: a faster burst would fill the queue at the bottleneck.
    Limited,
    /// As `Limited`, one packet at a time: that queue overflows.
    Shallow,
}

/// What leaves.
#[derive(Debug)]
pub struct Release<T> {
    /// The packet, or a request for padding.
    pub content: Content<T>,
    /// The departure time for [`super::SentPacket::at`]. Packets that leave within a millisecond
    /// have the same, so that the estimator sees a quantum as one group of packets.
    pub at: MediaTime,
    /// The probe that it belongs to.
    pub cluster: Option<ClusterId>,
}

/// A packet, or a request for padding.
#[derive(Debug)]
pub enum Content<T> {
    /// A packet that was pushed.
    Packet(T),
    /// A packet of padding is to be sent, of so many bytes on the wire. If it has another size,
    /// tell it by [`super::Pacer::on_padding_sent`].
    Padding(u32),
}

/// The packets that leave together, in one system call.
const QUANTUM_PACKETS: u32 = 3;

/// Those of a path that carries more than is sent. Most frames then wait at most once: at three
/// packets at a time and 2.5 times the target, a frame of ten packets takes 8 to 10 ms, as the timers of
/// the connection have steps of a millisecond.
const AMPLE_QUANTUM_PACKETS: u32 = 6;

impl PacingRate {
    /// The bits per second at which packets leave.
    pub(super) fn bps(self) -> f64 {
        let factor = match self.pacing {
            Pacing::Free | Pacing::Ample => 5.0,
            Pacing::Starting => 2.5,
            Pacing::Limited | Pacing::Shallow => 1.5,
        };
        self.target.as_bps() as f64 * factor
    }
}

impl Pacing {
    /// The packets that leave together.
    pub(super) const fn quantum_packets(self) -> u32 {
        match self {
            Self::Free | Self::Ample => AMPLE_QUANTUM_PACKETS,
            Self::Starting | Self::Limited => QUANTUM_PACKETS,
            Self::Shallow => 1,
        }
    }
}
