//! The rate where the other end gives no transport-wide feedback.

use std::time::Duration;

use super::{PacketKind, sent_rate::SentRate};
use crate::model::{Bitrate, MediaTime};

/// Follows what older programs report: the loss of receiver reports (RFC 3550, section 6.4.1), the
/// round trip time, and the rate of `goog-remb` (draft-alvestrand-rmcat-remb-03).
///
/// At the start the rate grows by half each second, until the path shows a limit: a loss, a longer
/// round trip, or a REMB that falls. Then it grows slowly, and a REMB limits it. Before, a REMB is
/// no limit: aiortc begins with the rate that arrives after three seconds, and libwebrtc stays at
/// 1.5 times that, so whoever obeys at once keeps the rate at which it happened to begin.
///
/// The rate grows only as far as it is used.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// The rate that loss and round trips allow, in bits per second.
    bps: Option<f64>,
    /// The rate before it grew last.
    before: f64,
    changed_at: Option<MediaTime>,
    /// When a queue reduced it last.
    reduced_at: Option<MediaTime>,
    /// Whether the path has shown a limit.
    has_met_limit: bool,
    remb: Option<(MediaTime, f64)>,
    remb_rose_at: Option<MediaTime>,
    sent: SentRate,
    /// What was sent in the second before the last report.
    sent_bps: Option<f64>,
    loss: f64,
    round_trips: RoundTrips,
}

/// The rate before the first report.
const START_BPS: f64 = 512e3;

/// Below this loss the rate grows; above that one it falls.
const LITTLE_LOSS: f64 = 0.02;
const MUCH_LOSS: f64 = 0.1;

/// A round trip that takes so much longer than the shortest shows a queue.
const LONG_QUEUE: Duration = Duration::from_millis(50);

/// What is left of the rate when a queue shows.
const DECREASE: f64 = 0.8;

/// The growth of a second: at the start, and once the path has shown a limit.
const START_GROWTH: f64 = 1.5;
const GROWTH: f64 = 1.05;

/// How far the rate grows beyond what is sent: at the start, and later.
const START_UNPROVED: f64 = 2.0;
const UNPROVED: f64 = 1.5;
const UNPROVED_BPS: f64 = 10e3;

/// The least time between two reductions because of a queue, beside the round trip.
const PATIENCE: Duration = Duration::from_secs(1);

/// An older REMB counts for nothing.
const MAX_AGE: Duration = Duration::from_secs(10);

/// A REMB below this part of the one before falls.
const FALLING: f64 = 0.98;

/// A REMB below this part of what is sent is a limit, unless it has risen lately: then it follows
/// what is sent.
const BELOW_SENT: f64 = 0.9;
const RISING: Duration = Duration::from_secs(2);

/// What video has on the wire for each byte of payload, if nothing is known.
const USUAL_OVERHEAD: f64 = 1.06;

impl Fallback {
    /// The part of the packets that were lost.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// The rate at which packets left before the last report.
    pub(super) const fn sent(&self) -> Option<f64> {
        self.sent_bps
    }

    /// Whether the other end has reported anything.
    pub(super) const fn has_reports(&self) -> bool {
        self.bps.is_some() || self.remb.is_some()
    }

    /// Counts a packet.
    pub(super) fn on_sent(&mut self, kind: PacketKind, bytes: u32, at: MediaTime) {
        self.sent.add(kind, bytes, at);
    }

    /// Notes a measured round trip time.
    pub(super) const fn on_round_trip(&mut self, round_trip: Duration) {
        self.round_trips.latest = Some(round_trip);
    }

    /// Follows a rate that the other end asks for. It counts the payload of video.
    pub(super) fn on_remb(&mut self, rate: Bitrate, now: MediaTime) {
        let asked = rate.as_bps() as f64;
        self.sent_bps = Some(self.sent.last_second(now).total);
        let before = self.remb.replace((now, asked)).map(|(_, before)| before);
        if before.is_some_and(|before| asked > before) {
            self.remb_rose_at = Some(now);
        }
        let has_risen = self.remb_rose_at.is_some_and(|at| now.since(at) < RISING);
        let is_falling = before.is_some_and(|before| asked < FALLING * before);
        let is_below = asked < BELOW_SENT * self.sent.least_video_payload(now);
        if is_falling || (is_below && !has_risen) {
            let bps = self.bps.unwrap_or(START_BPS).min(self.on_wire(asked, now));
            self.meet_limit(bps, now);
        }
    }

    /// Follows a report of loss.
    pub(super) fn on_receiver_report(&mut self, fraction_lost: f64, now: MediaTime) {
        let loss = if fraction_lost.is_finite() { fraction_lost.clamp(0.0, 1.0) } else { 0.0 };
        self.loss = loss;
        self.sent_bps = Some(self.sent.last_second(now).total);
        let bps = self.bps.unwrap_or(START_BPS);
        let proved = if self.has_met_limit { bps } else { bps.min(self.before.max(START_BPS)) };
        self.bps = Some(bps);
        if loss > MUCH_LOSS {
            self.meet_limit(proved * (1.0 - loss / 2.0), now);
        } else if self.round_trips.has_queue(now) {
            let patience = PATIENCE + self.round_trips.latest.unwrap_or_default();
            if self.reduced_at.is_none_or(|at| now.since(at) >= patience) {
                self.reduced_at = Some(now);
                self.meet_limit(DECREASE * proved, now);
            }
        } else if loss < LITTLE_LOSS {
            self.grow(bps, now);
        } else {
            self.meet_limit(bps, now);
        }
    }

    /// The target in bits per second, kept within bounds.
    pub(super) fn target(&mut self, (least, most): (f64, f64), now: MediaTime) -> f64 {
        let bps = self.bps.unwrap_or(START_BPS).clamp(least, most);
        self.bps = Some(bps);
        let is_limit = |at: &MediaTime| self.has_met_limit && now.since(*at) <= MAX_AGE;
        let remb = self.remb.filter(|(at, _)| is_limit(at));
        remb.map_or(bps, |(_, asked)| self.on_wire(asked, now).clamp(least, bps))
    }

    fn meet_limit(&mut self, bps: f64, now: MediaTime) {
        (self.bps, self.before) = (Some(bps), bps);
        (self.has_met_limit, self.changed_at) = (true, Some(now));
    }

    fn grow(&mut self, bps: f64, now: MediaTime) {
        let (growth, unproved) =
            if self.has_met_limit { (GROWTH, UNPROVED) } else { (START_GROWTH, START_UNPROVED) };
        let elapsed = self.changed_at.map_or(1.0, |at| now.since(at).as_secs_f64().min(1.0));
        let limit = unproved * self.sent.last_second(now).total + UNPROVED_BPS;
        self.before = bps;
        self.bps = Some((bps * growth.powf(elapsed)).min(limit).max(bps));
        self.changed_at = Some(now);
    }

    /// The rate of everything on the wire while video has that much payload.
    fn on_wire(&self, video_payload: f64, now: MediaTime) -> f64 {
        let sent = self.sent.last_second(now);
        let overhead =
            if sent.video_payload > 0.0 { sent.video / sent.video_payload } else { USUAL_OVERHEAD };
        // A few small packets say little of larger ones.
        video_payload * overhead.min(2.0) + sent.total - sent.video
    }
}

/// The newest round trip time, and the shortest of the last minute.
#[derive(Debug, Default)]
struct RoundTrips {
    latest: Option<Duration>,
    /// The shortest of this half minute, and of the one before.
    least: [Option<Duration>; 2],
    begun: Option<MediaTime>,
}

/// The shortest round trip time is remembered for once or twice as long.
const ROUND_TRIP_MEMORY: Duration = Duration::from_secs(30);

impl RoundTrips {
    /// Whether the newest one is much longer than the shortest one.
    fn has_queue(&mut self, now: MediaTime) -> bool {
        let Some(latest) = self.latest else { return false };
        if now.since(*self.begun.get_or_insert(now)) >= ROUND_TRIP_MEMORY {
            self.begun = Some(now);
            self.least = [None, self.least[0]];
        }
        self.least[0] = Some(self.least[0].map_or(latest, |least| least.min(latest)));
        let least = self.least.into_iter().flatten().min().unwrap_or(latest);
        latest.saturating_sub(least) > LONG_QUEUE
    }
}
