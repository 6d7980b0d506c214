//! How much a path carries, and when packets leave: the sender's bandwidth estimator and pacer.
//!
//! All of it is pure: times are parameters, and no function waits. `transport` tells the estimator
//! what was sent and what the other end reports of it, and asks for its estimate.
//!
//! Rates are rates on the wire: with the headers of RTP, SRTP, UDP and IP.

mod allocation;
mod estimator;
mod pacer;
mod packets;
mod video_queue;

pub use allocation::{
    AUDIO_WIRE_RATE, Allocation, LayerAllocator, ViewerState, video_share, wire_rate,
};
pub use estimator::{BandwidthEstimator, Estimate, LimitedBy};
pub use pacer::{Content, FramePart, Pacer, Pacing, PacingRate, PacketClass, Pushed, Release};
pub use packets::{ClusterId, FeedbackReport, PacketKind, PacketResult, ProbeCluster, SentPacket};
