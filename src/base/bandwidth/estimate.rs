//! What the estimator says.

use std::time::Duration;

use super::{Pacing, PacingRate};
use crate::model::Bitrate;

/// What the estimator says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The rate at which this peer may send.
    pub target: Bitrate,
    /// The part of the target that is proved: a probe has shown that the path carries it, it arrives, or
    /// the governor gave it. The rest has grown without being used.
    pub proved: Bitrate,
    /// What keeps the target from being higher.
    pub limited_by: LimitedBy,
    /// The part of the packets of the last second that were lost: 0 to 1.
    pub loss: f64,
    /// How long the newest packets waited in queues of the path.
    pub queue: Duration,
    /// The smoothed round trip time, once it is known.
    pub round_trip: Option<Duration>,
    /// The rate at which packets arrive, once it is known. Where the other end does not report it,
    /// the rate at which they leave.
    pub acknowledged: Option<Bitrate>,
    /// Whether the other end reports when packets arrive. If not, the queue is not known.
    pub reports_arrivals: bool,
    /// Whether the program sends clearly less than it may, so that the path is not tested.
    pub is_application_limited: bool,
    /// Whether the target is lower for a moment, to find out whether the rate loses packets.
    pub is_testing: bool,
    /// How far above the target packets may leave.
    pub pacing: Pacing,
    /// Whether the last report showed that a queue grows or is full, or that a rate loses packets.
    pub is_overused: bool,
    /// The governor's word that the target started from.
    pub ceiling: Option<Bitrate>,
}

impl Estimate {
    /// What a [`super::Pacer`] takes.
    pub const fn pacing_rate(&self) -> PacingRate {
        PacingRate { target: self.target, pacing: self.pacing }
    }
}

/// What keeps a target from being higher.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LimitedBy {
    /// Nothing: it is all that this peer could use.
    Demand,
    /// The queue of the path, or the lack of a proof that it carries more.
    Delay,
    /// Packets that are lost.
    Loss,
    /// The governor: other peers share the way out of this machine.
    Ceiling,
    /// The other end reports nothing.
    MissingFeedback,
}
