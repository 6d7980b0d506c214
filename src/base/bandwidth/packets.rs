//! What the estimator is told of packets: what was sent, and what the other end says of it.

use crate::model::{Bitrate, MediaTime};

/// A packet that was handed to the socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SentPacket {
    /// The transport-wide sequence number, unwrapped to 64 bits. Each packet has the next number.
    pub number: u64,
    /// When it left, on this program's clock.
    pub at: MediaTime,
    /// Its bytes on the wire, with RTP, SRTP, UDP and IP.
    pub bytes: u32,
    /// What it carries.
    pub kind: PacketKind,
    /// The probe that it belongs to.
    pub cluster: Option<ClusterId>,
}

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacketKind {
    /// Sound, repeats of it and RTCP.
    Audio,
    /// A part of a video frame, for the first time.
    Video,
    /// A part of a video frame, again.
    Retransmission,
    /// Nothing: it only fills a probe.
    Padding,
}

/// What one feedback message tells, and no more.
#[derive(Clone, PartialEq, Debug)]
pub struct FeedbackReport {
    /// When the message arrived, on this program's clock.
    pub at: MediaTime,
    /// The packets that it names, in the order in which they were sent. A packet that no message
    /// names is unknown, not lost: the message may be what was lost.
    pub packets: Vec<PacketResult>,
}

/// What a feedback message tells of one packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketResult {
    /// It arrived.
    Received {
        /// Its transport-wide sequence number, unwrapped.
        number: u64,
        /// When it arrived, in microseconds of the other end's clock, whose zero is anywhere.
        arrival_us: i64,
    },
    /// It had not arrived when the message was sent.
    Lost {
        /// Its transport-wide sequence number, unwrapped.
        number: u64,
    },
}

impl PacketResult {
    /// The transport-wide sequence number, unwrapped.
    pub const fn number(&self) -> u64 {
        let (Self::Received { number, .. } | Self::Lost { number }) = *self;
        number
    }
}

/// The number of a probe cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClusterId(pub u32);

/// A probe: some packets that are to be sent faster than the target, in order to measure whether
/// the path carries that rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeCluster {
    /// Its number, for [`SentPacket::cluster`].
    pub id: ClusterId,
    /// The rate at which its packets leave.
    pub rate: Bitrate,
    /// At least so many bytes on the wire belong to it.
    pub bytes: u32,
    /// At least so many packets belong to it.
    pub packets: u32,
}
