//! How long packets of audio are held: what jitter, rare spikes, reordering and losses need.

use std::time::Duration;

use crate::model::MediaTime;

/// The parts of the target delay that remember more than the usual delay of the last second.
///
/// libwebrtc's NetEQ keeps the maxima of half seconds in a histogram for half a minute. Then one
/// outage is remembered as long as spikes that come again and again. Here a spike counts for half a
/// minute only if there was another one at another time; one alone fades within seconds.
#[derive(Debug)]
pub(super) struct DelayMemory {
    /// What the latest late packet would have needed. Fades.
    late_peak: Duration,
    /// The largest delay of each of the last half seconds, in milliseconds, oldest first.
    maxima: [u16; WINDOWS],
    /// The largest delay of the current half second, in milliseconds, and its begin.
    current: (u16, Option<MediaTime>),
    /// The delay that was needed at two times at least.
    recurrent: Duration,
    reordering: Reordering,
}

/// The half seconds that are remembered: 30 s.
const WINDOWS: usize = 60;

/// The length of one.
const WINDOW: Duration = Duration::from_millis(500);

/// Large delays less than this many half seconds apart belong to one event.
const SAME_EVENT: usize = 8;

/// The share of the late peak that is left after each block of 10 ms: 55 % after a second.
const FADE_PER_BLOCK: f64 = 0.994;

/// Below this the late peak has faded.
const FADED: Duration = Duration::from_millis(1);

impl DelayMemory {
    pub(super) const fn new() -> Self {
        Self {
            late_peak: Duration::ZERO,
            maxima: [0; WINDOWS],
            current: (0, None),
            recurrent: Duration::ZERO,
            reordering: Reordering { weights: [0.0; REORDER_BINS], total: 0.0 },
        }
    }

    /// Records the delay of a packet that arrived at `arrival`, behind a later one or not.
    pub(super) fn record(&mut self, delay: Duration, arrival: MediaTime, is_reordered: bool) {
        self.reordering.record(is_reordered.then_some(delay));
        self.need(delay, arrival);
    }

    /// A packet was too late, and would have needed this delay.
    pub(super) fn on_late(&mut self, delay: Duration, arrival: MediaTime) {
        self.late_peak = self.late_peak.max(delay);
        self.need(delay, arrival);
    }

    /// The delay that these memories ask for.
    pub(super) fn delay(&self) -> Duration {
        self.late_peak.max(self.recurrent).max(self.reordering.best_delay())
    }

    /// Fades the late peak by the time of one block.
    pub(super) fn fade(&mut self) {
        self.late_peak = self.late_peak.mul_f64(FADE_PER_BLOCK);
        if self.late_peak < FADED {
            self.late_peak = Duration::ZERO;
        }
    }

    fn need(&mut self, delay: Duration, arrival: MediaTime) {
        let begin = *self.current.1.get_or_insert(arrival);
        if arrival.since(begin) >= WINDOW {
            self.maxima.rotate_left(1);
            self.maxima[WINDOWS - 1] = self.current.0;
            self.current = (0, Some(arrival));
            self.recurrent = Duration::from_millis(recurrent(&self.maxima).into());
        }
        self.current.0 = self.current.0.max(delay.as_millis().min(1000) as u16);
    }
}

/// The largest value that was reached in two events at least.
fn recurrent(maxima: &[u16; WINDOWS]) -> u16 {
    let is_reached_twice = |value: u16| {
        let mut reached = (0..WINDOWS).filter(|at| maxima[*at] >= value);
        let first = reached.next();
        first.zip(reached.next_back()).is_some_and(|(first, last)| last - first >= SAME_EVENT)
    };
    maxima.iter().copied().filter(|value| is_reached_twice(*value)).max().unwrap_or(0)
}

/// The delays of packets that were overtaken, in bins of 20 ms, the first for all others.
#[derive(Debug)]
struct Reordering {
    weights: [f32; REORDER_BINS],
    total: f32,
}

/// The bins: up to 200 ms.
const REORDER_BINS: usize = 11;

/// The width of a bin in milliseconds.
const REORDER_BIN_MS: usize = 20;

/// The factor for a packet's weight with each later packet: 1400 packets count.
const REORDER_FORGET: f32 = 0.9993;

/// The delay that one percent of late packets is worth, in milliseconds (NetEQ's cost).
const MS_PER_LOST_PERCENT: f32 = 20.0;

impl Reordering {
    fn record(&mut self, overtaken: Option<Duration>) {
        self.weights.iter_mut().for_each(|weight| *weight *= REORDER_FORGET);
        self.total = self.total * REORDER_FORGET + 1.0;
        let bin = overtaken.map_or(0, |delay| delay.as_millis() as usize / REORDER_BIN_MS + 1);
        self.weights[bin.min(REORDER_BINS - 1)] += 1.0;
    }

    /// The delay at which delay and losses together cost least.
    fn best_delay(&self) -> Duration {
        let (mut best, mut late) = ((f32::MAX, 0), self.total - self.weights[0]);
        for bin in 0..REORDER_BINS {
            let delay = bin * REORDER_BIN_MS;
            let cost =
                delay as f32 + MS_PER_LOST_PERCENT * 100.0 * late.max(0.0) / self.total.max(1.0);
            if cost < best.0 {
                best = (cost, delay);
            }
            late -= self.weights.get(bin + 1).copied().unwrap_or(0.0);
        }
        Duration::from_millis(best.1 as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Records a packet each 20 ms for this time, with the delay in ms that `delay` gives.
    fn run(memory: &mut DelayMemory, from_ms: u64, to_ms: u64, delay: impl Fn(u64) -> u64) {
        for at in (from_ms..to_ms).step_by(20) {
            memory.record(ms(delay(at)), MediaTime::from_micros(at * 1000), false);
        }
    }

    #[test]
    fn a_spike_that_comes_again_is_remembered_for_half_a_minute_and_one_alone_is_not() {
        let mut memory = DelayMemory::new();
        let spike = |at: u64| if (5000..7000).contains(&at) { 300 } else { 3 };
        run(&mut memory, 0, 20_000, spike);
        assert_eq!(memory.delay(), ms(3), "two seconds in which packets were late are one event");
        run(&mut memory, 20_000, 40_000, |at| if at % 10_000 == 0 { 120 } else { 3 });
        assert_eq!(memory.delay(), ms(120));
        run(&mut memory, 40_000, 48_000, |_| 3);
        assert_eq!(memory.delay(), ms(120));
        run(&mut memory, 48_000, 75_000, |_| 3);
        assert_eq!(memory.delay(), ms(3));
    }

    #[test]
    fn what_a_late_packet_needed_fades_within_seconds() {
        let mut memory = DelayMemory::new();
        memory.on_late(ms(200), MediaTime::from_micros(0));
        assert_eq!(memory.delay(), ms(200));
        (0..200).for_each(|_| memory.fade());
        assert!((55..=75).contains(&memory.delay().as_millis()), "{:?}", memory.delay());
        (0..300).for_each(|_| memory.fade());
        assert!(memory.delay() <= ms(20), "{:?}", memory.delay());
    }

    #[test]
    fn reordering_is_waited_for_if_it_costs_less_than_the_losses() {
        let delay_for = |every: u64, late: u64| {
            let mut reordering = Reordering { weights: [0.0; REORDER_BINS], total: 0.0 };
            for n in 0..3000 {
                reordering.record((n % every == 0).then_some(ms(late)));
            }
            reordering.best_delay()
        };
        assert_eq!(delay_for(20, 50), ms(60), "5 % of the packets");
        assert_eq!(delay_for(200, 50), Duration::ZERO, "0.5 %");
        assert_eq!(delay_for(200, 5), Duration::ZERO);
        assert_eq!(delay_for(50, 15), ms(20), "2 %");
    }
}
