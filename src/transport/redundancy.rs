//! How much redundancy the audio for one peer has: chosen by the losses on the way to it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use crate::media::Redundancy;

/// The redundancy of the audio for one peer. Shared by the negotiation, the tap, which sees the
/// peer's reports, and the sender.
#[derive(Debug, Default)]
pub(super) struct PeerRedundancy {
    /// The payload type of RED; 0 if it is not negotiated.
    payload_type: AtomicU8,
    level: AtomicU8,
    /// The losses in percent.
    loss: AtomicU8,
    policy: Mutex<Policy>,
}

impl PeerRedundancy {
    /// Sets the negotiated payload type of RED.
    pub(super) fn set_payload_type(&self, payload_type: Option<u8>) {
        self.payload_type.store(payload_type.unwrap_or(0), Ordering::Relaxed);
    }

    /// The peer reports at `now` that this share (0 to 1) of the audio packets did not arrive since
    /// its last report.
    pub(super) fn on_report(&self, loss: f32, now: Instant) {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let level = policy.on_report(loss, now);
        self.level.store(level as u8, Ordering::Relaxed);
        self.loss.store((policy.loss() * 100.0) as u8, Ordering::Relaxed);
    }

    /// The redundancy to send with and the payload type of RED; `None` to send bare packets.
    pub(super) fn current(&self) -> Option<(Redundancy, u8)> {
        let level = Redundancy::ALL[usize::from(self.level.load(Ordering::Relaxed)) % 3];
        let payload_type = self.payload_type.load(Ordering::Relaxed);
        (payload_type != 0 && level != Redundancy::None).then_some((level, payload_type))
    }

    /// The losses in percent.
    pub(super) fn loss_percent(&self) -> u8 {
        self.loss.load(Ordering::Relaxed)
    }
}

/// Chooses the redundancy. It rises at once, and falls after a while: losses come in groups.
#[derive(Debug, Default)]
struct Policy {
    /// The losses of the last two reports, which are about two seconds.
    losses: [f32; 2],
    level: Redundancy,
    /// Since when less would suffice.
    calm_since: Option<Instant>,
}

/// From this loss on, packets have a copy.
const ONE_COPY: f32 = 0.03;

/// From this loss on, packets have two copies.
const TWO_COPIES: f32 = 0.15;

/// Below this loss, packets need no copy.
const NO_COPY: f32 = 0.01;

/// Below this loss, one copy suffices.
const NOT_TWO_COPIES: f32 = 0.08;

/// How long the losses must be small.
const CALM: Duration = Duration::from_secs(30);

impl Policy {
    fn loss(&self) -> f32 {
        self.losses.iter().sum::<f32>() / 2.0
    }

    fn on_report(&mut self, loss: f32, now: Instant) -> Redundancy {
        self.losses = [self.losses[1], loss.clamp(0.0, 1.0)];
        let loss = self.loss();
        let needed = match self.level {
            _ if loss >= TWO_COPIES => Redundancy::Two,
            Redundancy::Two if loss >= NOT_TWO_COPIES => Redundancy::Two,
            Redundancy::None if loss < ONE_COPY => Redundancy::None,
            Redundancy::One | Redundancy::Two if loss < NO_COPY => Redundancy::None,
            Redundancy::None | Redundancy::One | Redundancy::Two => Redundancy::One,
        };
        let is_lasting = |since: Instant| now.saturating_duration_since(since) >= CALM;
        if needed >= self.level || is_lasting(*self.calm_since.get_or_insert(now)) {
            (self.level, self.calm_since) = (needed, None);
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_rises_at_once_and_falls_after_half_a_minute() {
        let (mut policy, begun) = (Policy::default(), Instant::now());
        let mut second = 0;
        let mut run = |loss: f32, seconds: u64| {
            second += seconds;
            let times = second - seconds..second;
            times.map(|at| policy.on_report(loss, begun + Duration::from_secs(at))).last().unwrap()
        };
        assert_eq!(run(0.005, 10), Redundancy::None);
        assert_eq!(run(0.05, 2), Redundancy::One);
        assert_eq!(run(0.2, 2), Redundancy::Two);
        assert_eq!(run(0.1, 60), Redundancy::Two, "near the threshold it stays");
        assert_eq!(run(0.05, 25), Redundancy::Two);
        assert_eq!(run(0.05, 10), Redundancy::One);
        assert_eq!(run(0.015, 60), Redundancy::One);
        assert_eq!(run(0.0, 28), Redundancy::One);
        assert_eq!(run(0.0, 10), Redundancy::None);
    }

    #[test]
    fn nothing_is_packed_before_red_is_negotiated() {
        let redundancy = PeerRedundancy::default();
        let now = Instant::now();
        (0..2).for_each(|_| redundancy.on_report(0.2, now));
        assert_eq!((redundancy.current(), redundancy.loss_percent()), (None, 20));
        redundancy.set_payload_type(Some(63));
        assert_eq!(redundancy.current(), Some((Redundancy::Two, 63)));
        redundancy.set_payload_type(None);
        assert_eq!(redundancy.current(), None);
    }
}
