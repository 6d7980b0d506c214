//! The estimator of one peer connection.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use super::{FeedbackReport, Pacing, PacingRate, PacketResult, ProbeCluster, SentPacket};
use crate::model::{Bitrate, MediaTime};

/// Estimates what one path carries, from the feedback of the other end.
///
/// It counts bytes on the wire. It has no clock: each function gets the time, which must not go
/// back.
#[derive(Debug)]
pub struct BandwidthEstimator {
    bounds: RangeInclusive<Bitrate>,
    target: Bitrate,
    desired: Bitrate,
    ceiling: Option<Bitrate>,
    /// The bytes of packets of which nothing was reported yet.
    in_flight: BTreeMap<u64, u32>,
    loss: f64,
    round_trip: Option<Duration>,
    grew_at: Option<MediaTime>,
}

/// What the estimator says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    /// The rate at which this peer may send.
    pub target: Bitrate,
    /// What keeps the target from being higher.
    pub limited_by: LimitedBy,
    /// The part of the packets that were lost in the last second: 0 to 1.
    pub loss: f64,
    /// How long the newest packets waited in queues of the path.
    pub queue: Duration,
    /// The smoothed round trip time, once it is known.
    pub round_trip: Option<Duration>,
    /// The rate at which packets arrive, once it is known.
    pub acknowledged: Option<Bitrate>,
    /// Whether the program sends clearly less than it may, so that the path is not tested.
    pub is_application_limited: bool,
    /// How far above the target packets may leave.
    pub pacing: Pacing,
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

/// The most packets that wait for a report.
const MAX_IN_FLIGHT: usize = 4096;

impl BandwidthEstimator {
    /// An estimator that begins with the target `start` and keeps it within `bounds`.
    pub fn new(start: Bitrate, bounds: RangeInclusive<Bitrate>) -> Self {
        Self {
            target: start.clamp(*bounds.start(), *bounds.end()),
            desired: *bounds.end(),
            bounds,
            ceiling: None,
            in_flight: BTreeMap::new(),
            loss: 0.0,
            round_trip: None,
            grew_at: None,
        }
    }

    /// Sets the rate that this peer could use at most; zero if there is nothing to send.
    pub fn set_desired(&mut self, rate: Bitrate) {
        self.desired = rate;
    }

    /// Sets the share that the governor gives this peer, or that there is no governor.
    pub fn set_ceiling(&mut self, rate: Option<Bitrate>) {
        self.ceiling = rate;
    }

    /// Notes a packet that was handed to the socket.
    pub fn on_sent(&mut self, packet: SentPacket) {
        self.in_flight.insert(packet.number, packet.bytes);
        if self.in_flight.len() > MAX_IN_FLIGHT {
            self.in_flight.pop_first();
        }
    }

    /// Notes what the other end reports. Numbers that were never sent, and those that were
    /// reported before, count for nothing.
    pub fn on_feedback(&mut self, report: &FeedbackReport) {
        let (mut known, mut lost) = (0_u32, 0_u32);
        for result in &report.packets {
            let (number, is_lost) = match *result {
                PacketResult::Received { number, .. } => (number, false),
                PacketResult::Lost { number } => (number, true),
            };
            if self.in_flight.remove(&number).is_some() {
                known += 1;
                lost += u32::from(is_lost);
            }
        }
        if known > 0 {
            self.on_receiver_report(f64::from(lost) / f64::from(known), report.at);
        }
    }

    /// Notes a measured round trip time.
    pub fn on_round_trip(&mut self, round_trip: Duration) {
        self.round_trip = Some(round_trip);
    }

    /// Notes a rate that the other end asks for (goog-remb), where it gives no other feedback.
    pub fn on_remb(&mut self, rate: Bitrate, _now: MediaTime) {
        self.set_target(self.target.min(rate).as_bps() as f64);
    }

    /// Notes the part of the packets that the other end lost (RTCP receiver report), where it gives
    /// no other feedback.
    pub fn on_receiver_report(&mut self, fraction_lost: f64, now: MediaTime) {
        self.loss += 0.2 * (fraction_lost.clamp(0.0, 1.0) - self.loss);
        let elapsed = self.grew_at.map_or(Duration::ZERO, |at| now.since(at));
        if elapsed < Duration::from_millis(200) && self.grew_at.is_some() {
            return;
        }
        let factor = match self.loss {
            loss if loss < 0.02 => 1.08_f64.powf(elapsed.as_secs_f64().min(1.0)),
            loss if loss > 0.1 => 1.0 - loss / 2.0,
            _ => 1.0,
        };
        self.grew_at = Some(now);
        self.set_target(self.target.as_bps() as f64 * factor);
    }

    /// Returns a probe that is to be sent now.
    pub fn poll(&mut self, _now: MediaTime) -> Option<ProbeCluster> {
        None
    }

    /// When [`Self::poll`] has something to do; `None` while there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        None
    }

    /// What the estimator says now.
    pub fn estimate(&self) -> Estimate {
        let target = self.ceiling.map_or(self.target, |ceiling| self.target.min(ceiling));
        Estimate {
            target,
            limited_by: if target < self.target {
                LimitedBy::Ceiling
            } else if target >= self.desired {
                LimitedBy::Demand
            } else if self.loss > 0.02 {
                LimitedBy::Loss
            } else {
                LimitedBy::Delay
            },
            loss: self.loss,
            queue: Duration::ZERO,
            round_trip: self.round_trip,
            acknowledged: None,
            is_application_limited: false,
            pacing: if self.grew_at.is_none() { Pacing::Ample } else { Pacing::Limited },
        }
    }

    /// Notes that packets take another way now: only the target is kept.
    pub fn on_route_change(&mut self, _now: MediaTime) {
        self.in_flight.clear();
        (self.loss, self.round_trip, self.grew_at) = (0.0, None, None);
    }

    fn set_target(&mut self, bps: f64) {
        let (lowest, highest) = (*self.bounds.start(), *self.bounds.end());
        let most = highest.min(Bitrate::from_bps(self.desired.as_bps().saturating_mul(2)));
        self.target = Bitrate::from_bps(bps as u64).min(most).max(lowest);
    }
}
