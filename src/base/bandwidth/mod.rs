//! How much a path carries, and when packets leave: the sender's bandwidth estimator and pacer.
//!
//! All of it is pure: times are parameters, and no function waits. `transport` tells the estimator
//! what was sent and what the other end reports of it, and asks for its estimate.
//!
//! Rates are rates on the wire: with the headers of RTP, SRTP, UDP and IP.

mod acknowledged_rate;
mod allocation;
mod application_limit;
mod audio_choice;
mod estimate;
mod estimator;
mod fallback;
mod feedback_watch;
mod governor;
mod history;
mod loss_test;
mod pacer;
mod pacing;
mod packet_groups;
mod packets;
mod path;
mod path_queue;
mod path_trend;
mod probe_results;
mod probing;
mod rate_control;
mod round_trip;
mod sent_rate;
mod trendline;
mod video_queue;

pub use allocation::{
    AUDIO_WIRE_RATE, Allocation, LayerAllocator, ViewerState, video_share, wire_rate,
};
pub use audio_choice::{AudioChoice, AudioUse};
pub use estimate::{Estimate, LimitedBy};
pub use estimator::BandwidthEstimator;
pub use governor::{
    GovernedPeer, Governor, LayerCost, Precedence, PriorityClass, ProbeToken, Share,
};
pub use pacer::Pacer;
pub use pacing::{Content, FramePart, Pacing, PacingRate, PacketClass, Pushed, Release};
pub use packets::{ClusterId, FeedbackReport, PacketKind, PacketResult, ProbeCluster, SentPacket};

#[cfg(test)]
mod tests;
