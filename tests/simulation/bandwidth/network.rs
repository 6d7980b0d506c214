//! A network path: one bottleneck with a queue, and what lies before and after it.

use std::{f64::consts::TAU, time::Duration};

use quintet::model::MediaTime;

use crate::rng::SeededRng;

/// What a path is like.
#[derive(Clone)]
pub(crate) struct LinkSetup {
    /// From which second on it carries how many bits per second.
    pub(crate) schedule: Vec<(u64, f64)>,
    /// A packet that would wait longer is dropped.
    pub(crate) queue: Duration,
    /// The delay after the queue.
    pub(crate) delay: Duration,
    /// The standard deviation of a further delay, which is never negative nor longer than three
    /// times this. It changes no order.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    /// Until which second packets are lost.
    pub(crate) lossy_until: f64,
    /// How many packets are lost in a row, on average (Gilbert's model); 1 if losses are independent.
    pub(crate) burst: f64,
    /// The part of the packets that arrive after the packet behind them.
    pub(crate) swapped: f64,
}

impl LinkSetup {
    /// A clean path with the given capacity: 50 ms, jitter of 5 ms, a queue of 300 ms (RFC 8867,
    /// section 4).
    pub(crate) fn new(bps: f64) -> Self {
        Self {
            schedule: vec![(0, bps)],
            queue: Duration::from_millis(300),
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(5),
            loss: 0.0,
            lossy_until: f64::INFINITY,
            burst: 1.0,
            swapped: 0.0,
        }
    }

    pub(crate) fn scheduled(mut self, schedule: &[(u64, f64)]) -> Self {
        self.schedule = schedule.to_vec();
        self
    }
}

pub(crate) struct Link {
    setup: LinkSetup,
    rng: SeededRng,
    free_at: f64,
    last_arrival: f64,
    is_losing: bool,
    /// What happened to each packet that came to the queue.
    pub(crate) log: Vec<Passage>,
}

/// A packet at the queue.
#[derive(Clone, Copy)]
pub(crate) struct Passage {
    pub(crate) at: f64,
    pub(crate) wait: f64,
    pub(crate) is_dropped: bool,
}

impl Link {
    pub(crate) fn new(setup: LinkSetup, seed: u64) -> Self {
        let rng = SeededRng::new(seed);
        Self { setup, rng, free_at: 0.0, last_arrival: 0.0, is_losing: false, log: vec![] }
    }

    /// The bits per second that it carries then.
    pub(crate) fn capacity(&self, at: f64) -> f64 {
        let begun = self.setup.schedule.iter().rev().find(|(second, _)| *second as f64 <= at);
        begun.unwrap_or(&self.setup.schedule[0]).1
    }

    /// Returns when a packet arrives, unless it is lost.
    pub(crate) fn send(&mut self, now: MediaTime, bytes: u32) -> Option<MediaTime> {
        let at = seconds(now);
        if at < self.setup.lossy_until && self.is_lost() {
            return None;
        }
        let wait = (self.free_at - at).max(0.0);
        let is_dropped = wait > self.setup.queue.as_secs_f64();
        self.log.push(Passage { at, wait, is_dropped });
        if is_dropped {
            return None;
        }
        let start = at + wait;
        self.free_at = start + f64::from(bytes) * 8.0 / self.capacity(start);
        let jitter = self.setup.jitter.as_secs_f64();
        let jitter = (self.rng.normal().abs() * jitter).min(3.0 * jitter);
        let mut arrival = self.free_at + self.setup.delay.as_secs_f64() + jitter;
        if self.rng.unit() < self.setup.swapped {
            // Behind the next packet, and without holding that one up.
            return Some(time(arrival + 0.004));
        }
        arrival = arrival.max(self.last_arrival + 1e-6);
        self.last_arrival = arrival;
        Some(time(arrival))
    }

    fn is_lost(&mut self) -> bool {
        let LinkSetup { loss, burst, .. } = self.setup;
        if loss == 0.0 {
            return false;
        }
        if burst <= 1.0 {
            return self.rng.unit() < loss;
        }
        let changes = if self.is_losing { 1.0 / burst } else { loss / (burst * (1.0 - loss)) };
        self.is_losing ^= self.rng.unit() < changes;
        self.is_losing
    }

    /// The waits of the packets in a span, sorted.
    pub(crate) fn waits(&self, from: f64, to: f64) -> Vec<f64> {
        let inside = self.log.iter().filter(|passage| (from..to).contains(&passage.at));
        let mut waits: Vec<_> = inside.map(|passage| passage.wait).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }
}

/// The value below which that part of the sorted values lies.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

pub(crate) fn seconds(at: MediaTime) -> f64 {
    at.as_micros() as f64 / 1e6
}

pub(crate) fn time(seconds: f64) -> MediaTime {
    MediaTime::from_micros((seconds * 1e6) as u64)
}

/// Random numbers of the path and of the encoder.
impl SeededRng {
    /// A number from 0 to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number with mean 0 and deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }
}
