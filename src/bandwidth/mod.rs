//! How much a path carries: the sender's bandwidth estimator.
//!
//! All of it is pure: times are parameters, and no function waits. `transport` tells the estimator
//! what was sent and what the other end reports of it, and asks for its estimate.
//!
//! Rates are rates on the wire: with the headers of RTP, SRTP, UDP and IP.

mod estimator;
mod packets;

pub use estimator::{BandwidthEstimator, Estimate, LimitedBy};
pub use packets::{ClusterId, FeedbackReport, PacketKind, PacketResult, ProbeCluster, SentPacket};
