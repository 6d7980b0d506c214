//! How much redundancy the audio for one peer has: chosen by the losses on the way to it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use super::congestion::AudioLosses;
use crate::{media::Redundancy, model::Bitrate};

/// The redundancy of the audio for one peer. Shared by the negotiation, the tap, which sees the
/// peer's reports, and the sender.
#[derive(Debug, Default)]
pub(super) struct PeerRedundancy {
    /// The payload type of RED; 0 if it is not negotiated.
    payload_type: AtomicU8,
    level: AtomicU8,
    /// By how many levels the path is too narrow for the most redundancy.
    cut: AtomicU8,
    /// The losses in percent.
    loss: AtomicU8,
    policy: Mutex<Policy>,
}

impl PeerRedundancy {
    /// Sets the negotiated payload type of RED.
    pub(super) fn set_payload_type(&self, payload_type: Option<u8>) {
        self.payload_type.store(payload_type.unwrap_or(0), Ordering::Relaxed);
    }

    /// The peer's transport-wide feedback tells at `now` of these losses of audio.
    pub(super) fn on_losses(&self, losses: AudioLosses, now: Instant) {
        self.change(|policy| policy.on_losses(losses, now));
    }

    /// The peer reports at `now` that this share (0 to 1) of the audio packets did not arrive since
    /// its last report. This counts only without transport-wide feedback.
    pub(super) fn on_report(&self, loss: f32, now: Instant) {
        self.change(|policy| policy.on_report(loss, now));
    }

    fn change(&self, change: impl Fn(&mut Policy)) {
        let mut policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut policy);
        self.level.store(policy.level as u8, Ordering::Relaxed);
        self.loss.store((policy.loss * 100.0) as u8, Ordering::Relaxed);
    }

    /// Sets the target of the path, on the wire, and how long its queue is. Copies are left out where
    /// they would take a large part of the target, or the queue is full: they would cause the losses
    /// that they repair.
    pub(super) fn set_path(&self, target: Bitrate, queue: Duration) {
        let most = match target {
            _ if queue > FULL_QUEUE => Redundancy::None,
            target if target < FOR_ONE_COPY => Redundancy::Fill,
            target if target < FOR_TWO_COPIES => Redundancy::One,
            _ => Redundancy::Two,
        };
        self.cut.store(Redundancy::Two as u8 - most as u8, Ordering::Relaxed);
    }

    /// The redundancy to send with and the payload type of RED; `None` to send bare packets.
    pub(super) fn current(&self) -> Option<(Redundancy, u8)> {
        let most = Redundancy::Two as u8 - self.cut.load(Ordering::Relaxed);
        let level = self.level.load(Ordering::Relaxed).min(most);
        let level = Redundancy::ALL[usize::from(level) % 4];
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
    reports: [f32; 2],
    /// When there was transport-wide feedback last.
    feedback_at: Option<Instant>,
    /// The losses of the last two seconds.
    loss: f32,
    level: Redundancy,
    /// Since when less would suffice.
    calm_since: Option<Instant>,
}

/// Where packets wait for longer, others are lost because the queue is full.
const FULL_QUEUE: Duration = Duration::from_millis(150);

/// A path with a lower target has no room for a copy of each packet, which needs 40 kbit/s. What
/// stands for in-band FEC is sent.
const FOR_ONE_COPY: Bitrate = Bitrate::from_kbps(250);

/// A path with a lower target has no room for two copies.
const FOR_TWO_COPIES: Bitrate = Bitrate::from_kbps(350);

/// From this loss on, packets have a copy two packets later.
const ONE_COPY: f32 = 0.03;

/// The least packets that must be lost for that: at 1 % of losses four of a hundred are rare.
const MIN_LOST: u32 = 4;

/// From this loss on, packets have two copies.
const TWO_COPIES: f32 = 0.15;

/// From so many lost packets in a row in the mean on, they have two copies, too.
const BURSTS: f32 = 1.5;

/// The least losses of two seconds that make bursts.
const MIN_LOST_IN_BURSTS: u32 = 6;

/// Below this loss, packets need no copy beside in-band FEC, or what stands for it.
const NO_COPY: f32 = 0.01;

/// Below this loss, one copy suffices.
const NOT_TWO_COPIES: f32 = 0.08;

/// How long the losses must be small.
const CALM: Duration = Duration::from_secs(30);

/// For so long after transport-wide feedback, receiver reports do not count.
const FEEDBACK_LASTS: Duration = Duration::from_secs(5);

impl Policy {
    fn on_report(&mut self, loss: f32, now: Instant) {
        self.reports = [self.reports[1], loss.clamp(0.0, 1.0)];
        let share = self.reports.iter().sum::<f32>() / 2.0;
        // A report of one second has the losses of fifty packets.
        let losses = AudioLosses { lost: (share * 100.0).round() as u32, share, mean_burst: 1.0 };
        let has_feedback =
            self.feedback_at.is_some_and(|at| now.saturating_duration_since(at) < FEEDBACK_LASTS);
        if !has_feedback {
            self.follow(losses, now);
        }
    }

    fn on_losses(&mut self, losses: AudioLosses, now: Instant) {
        self.feedback_at = Some(now);
        self.follow(losses, now);
    }

    fn follow(&mut self, losses: AudioLosses, now: Instant) {
        self.loss = losses.share;
        let needed = self.needed(losses);
        let is_lasting = |since: Instant| now.saturating_duration_since(since) >= CALM;
        if needed >= self.level || is_lasting(*self.calm_since.get_or_insert(now)) {
            (self.level, self.calm_since) = (needed, None);
        }
    }

    /// The level that these losses need, at the present one.
    fn needed(&self, AudioLosses { lost, share, mean_burst }: AudioLosses) -> Redundancy {
        let has_bursts = lost >= MIN_LOST_IN_BURSTS && mean_burst >= BURSTS;
        let is_lossy = lost >= MIN_LOST && share >= ONE_COPY;
        let keeps_two = self.level == Redundancy::Two && share >= NOT_TWO_COPIES;
        let keeps_one = self.level >= Redundancy::One && share >= NO_COPY;
        if keeps_two || is_lossy && (share >= TWO_COPIES || has_bursts) {
            Redundancy::Two
        } else if keeps_one || is_lossy {
            Redundancy::One
        } else if lost > 0 {
            Redundancy::Fill
        } else {
            Redundancy::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(percent: u32, mean_burst: f32) -> AudioLosses {
        AudioLosses { lost: percent, share: percent as f32 / 100.0, mean_burst }
    }

    #[test]
    fn redundancy_rises_at_once_and_falls_after_half_a_minute() {
        let (mut policy, begun) = (Policy::default(), Instant::now());
        let mut second = 0;
        let mut run = |percent: u32, seconds: u64| {
            for at in second..second + seconds {
                policy.on_losses(losses(percent, 1.0), begun + Duration::from_secs(at));
            }
            second += seconds;
            policy.level
        };
        assert_eq!(run(0, 10), Redundancy::None);
        assert_eq!(run(1, 1), Redundancy::Fill);
        assert_eq!(run(3, 10), Redundancy::Fill, "three of a hundred come at 1 %, too");
        assert_eq!(run(5, 1), Redundancy::One);
        assert_eq!(run(20, 1), Redundancy::Two);
        assert_eq!(run(10, 60), Redundancy::Two, "near the threshold it stays");
        assert_eq!(run(5, 25), Redundancy::Two);
        assert_eq!(run(5, 10), Redundancy::One);
        assert_eq!(run(2, 60), Redundancy::One);
        assert_eq!(run(0, 28), Redundancy::One);
        assert_eq!(run(0, 10), Redundancy::None);
    }

    #[test]
    fn losses_in_bursts_need_a_copy_that_is_far_away() {
        for (burst, level) in [(1.2, Redundancy::One), (1.5, Redundancy::Two)] {
            let mut policy = Policy::default();
            policy.on_losses(losses(7, burst), Instant::now());
            assert_eq!(policy.level, level);
        }
        let mut policy = Policy::default();
        policy.on_losses(losses(2, 2.0), Instant::now());
        assert_eq!(policy.level, Redundancy::Fill, "one burst is none");
    }

    #[test]
    fn receiver_reports_count_only_without_transport_wide_feedback() {
        let (mut policy, begun) = (Policy::default(), Instant::now());
        (0..2).for_each(|_| policy.on_report(0.2, begun));
        assert_eq!(policy.level, Redundancy::Two);
        let mut policy = Policy::default();
        policy.on_losses(losses(0, 1.0), begun);
        (0..2).for_each(|_| policy.on_report(0.2, begun + FEEDBACK_LASTS / 2));
        assert_eq!(policy.level, Redundancy::None);
        policy.on_report(0.2, begun + FEEDBACK_LASTS);
        assert_eq!(policy.level, Redundancy::Two);
    }

    #[test]
    fn a_narrow_path_has_no_room_for_copies() {
        let redundancy = PeerRedundancy::default();
        redundancy.set_payload_type(Some(63));
        (0..2).for_each(|_| redundancy.on_report(0.2, Instant::now()));
        let at = |kbps, queue_ms| {
            redundancy.set_path(Bitrate::from_kbps(kbps), Duration::from_millis(queue_ms));
            redundancy.current().map(|(level, _)| level)
        };
        assert_eq!([at(200, 0), at(500, 200)], [Some(Redundancy::Fill), None]);
        assert_eq!(at(300, 0), Some(Redundancy::One));
        assert_eq!(at(400, 0), Some(Redundancy::Two));
    }

    #[test]
    fn nothing_is_packed_before_red_is_negotiated() {
        let redundancy = PeerRedundancy::default();
        redundancy.on_losses(losses(20, 1.0), Instant::now());
        assert_eq!((redundancy.current(), redundancy.loss_percent()), (None, 20));
        redundancy.set_payload_type(Some(63));
        assert_eq!(redundancy.current(), Some((Redundancy::Two, 63)));
        redundancy.set_payload_type(None);
        assert_eq!(redundancy.current(), None);
    }
}
