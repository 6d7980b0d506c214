//! A receiver that asks for a rate (`goog-remb`), as older versions of libwebrtc and aiortc do: a
//! Kalman filter on the growth of the delay (draft-ietf-rmcat-gcc-02, section 5), and a rate that
//! follows what arrives.
//!
//! Where the draft is open it does what aiortc 1.16 does: only the payload of video counts, the first rate is
//! what arrives after three seconds, and it asks each half second, or at each overuse.

use std::collections::VecDeque;

/// A receiver of video.
#[derive(Default)]
pub(crate) struct RembReceiver {
    /// When payload arrived, and its bytes, in the last second.
    window: VecDeque<(f64, f64)>,
    began: Option<f64>,
    groups: [Option<Group>; 2],
    filter: Filter,
    detector: Detector,
    rate: Rate,
    asked_at: Option<f64>,
}

/// Packets that left within 5 ms; times in milliseconds.
#[derive(Clone, Copy)]
struct Group {
    first_sent: f64,
    last_sent: f64,
    arrived: f64,
    bytes: f64,
}

#[derive(Clone, Copy, PartialEq, Default)]
enum Usage {
    #[default]
    Normal,
    Over,
    Under,
}

const GROUP_MS: f64 = 5.0;
const ASKS_EACH_MS: f64 = 500.0;

impl RembReceiver {
    /// Takes a packet of video; times in milliseconds. Returns the rate that it asks for, if it
    /// asks now, in bits per second.
    pub(crate) fn receive(&mut self, sent: f64, arrived: f64, payload: f64) -> Option<f64> {
        self.began.get_or_insert(arrived);
        self.window.push_back((arrived, payload));
        while self.window.front().is_some_and(|(at, _)| *at <= arrived - 1000.0) {
            self.window.pop_front();
        }
        if let Some((sent_delta, arrival_delta, size_delta)) = self.group(sent, arrived, payload) {
            let size = (arrival_delta - sent_delta, size_delta, sent_delta);
            self.filter.update(size, self.detector.usage);
            self.detector.update(&self.filter, sent_delta, arrived);
        }
        let is_due = self.asked_at.is_none_or(|at| arrived - at > ASKS_EACH_MS);
        if !is_due && self.detector.usage != Usage::Over {
            return None;
        }
        let asked = self.rate.update(self.detector.usage, self.throughput(arrived), arrived)?;
        self.asked_at = Some(arrived);
        Some(asked)
    }

    fn throughput(&self, now: f64) -> Option<f64> {
        let span = (now - self.began? + 1.0).min(1000.0);
        let bytes: f64 = self.window.iter().map(|(_, bytes)| bytes).sum();
        (span > 1.0).then(|| bytes * 8000.0 / span)
    }

    /// Adds a packet to its group. Returns by how much two groups differ once one is complete.
    fn group(&mut self, sent: f64, arrived: f64, bytes: f64) -> Option<(f64, f64, f64)> {
        let fresh = Group { first_sent: sent, last_sent: sent, arrived, bytes };
        let Some(current) = &mut self.groups[1] else {
            self.groups[1] = Some(fresh);
            return None;
        };
        let gap = (sent - current.last_sent).round();
        let arrival_gap = arrived - current.arrived;
        let is_burst = gap == 0.0 || (arrival_gap < gap && arrival_gap <= GROUP_MS);
        if is_burst || sent - current.first_sent <= GROUP_MS {
            current.last_sent = current.last_sent.max(sent);
            (current.arrived, current.bytes) = (arrived, current.bytes + bytes);
            return None;
        }
        let complete = *current;
        let before = self.groups[0].replace(complete);
        self.groups[1] = Some(fresh);
        before.map(|before| {
            (
                complete.last_sent - before.last_sent,
                complete.arrived - before.arrived,
                complete.bytes - before.bytes,
            )
        })
    }
}

/// Estimates the inverse of the capacity, and how much the queue grows from group to group.
struct Filter {
    covariance: [[f64; 2]; 2],
    slope: f64,
    offset: f64,
    offset_before: f64,
    noise: (f64, f64),
    count: u32,
    periods: VecDeque<f64>,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            covariance: [[100.0, 0.0], [0.0, 0.1]],
            slope: 1.0 / 64.0,
            offset: 0.0,
            offset_before: 0.0,
            noise: (0.0, 50.0),
            count: 0,
            periods: VecDeque::new(),
        }
    }
}

impl Filter {
    fn update(&mut self, (delay, size, sent_delta): (f64, f64, f64), usage: Usage) {
        let period = self.shortest_period(sent_delta);
        self.count += 1;
        let [[mut a, b], [c, mut d]] = self.covariance;
        a += 1e-13;
        d += 1e-3;
        let turns = match usage {
            Usage::Over => self.offset < self.offset_before,
            Usage::Under => self.offset > self.offset_before,
            Usage::Normal => false,
        };
        d += if turns { 1e-2 } else { 0.0 };
        let product = [a * size + b, c * size + d];
        let residual = delay - self.slope * size - self.offset;
        if usage == Usage::Normal {
            let most = 3.0 * self.noise.1.sqrt();
            self.note_noise(residual.clamp(-most, most), period);
        }
        let scale = self.noise.1 + size * product[0] + product[1];
        let gain = product.map(|product| product / scale);
        let (p, q) = (1.0 - gain[0] * size, 1.0 - gain[1]);
        self.covariance = [
            [a * p - c * gain[0], b * p - d * gain[0]],
            [c * q - a * gain[1] * size, d * q - b * gain[1] * size],
        ];
        self.offset_before = self.offset;
        self.slope += gain[0] * residual;
        self.offset += gain[1] * residual;
    }

    fn shortest_period(&mut self, period: f64) -> f64 {
        if self.periods.len() >= 60 {
            self.periods.pop_front();
        }
        let shortest = self.periods.iter().copied().fold(period, f64::min);
        self.periods.push_back(period);
        shortest
    }

    fn note_noise(&mut self, residual: f64, period: f64) {
        let alpha: f64 = if self.count > 300 { 0.002 } else { 0.01 };
        let kept = (1.0 - alpha).powf(period * 0.03);
        let (mean, variance) = &mut self.noise;
        *mean = kept * *mean + (1.0 - kept) * residual;
        *variance = (kept * *variance + (1.0 - kept) * (*mean - residual).powi(2)).max(1.0);
    }
}

struct Detector {
    usage: Usage,
    threshold: f64,
    over_for: Option<f64>,
    over_groups: u32,
    offset_before: f64,
    updated_at: Option<f64>,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            usage: Usage::Normal,
            threshold: 12.5,
            over_for: None,
            over_groups: 0,
            offset_before: 0.0,
            updated_at: None,
        }
    }
}

impl Detector {
    fn update(&mut self, filter: &Filter, sent_delta: f64, now: f64) {
        if filter.count < 2 {
            return;
        }
        let value = f64::from(filter.count.min(60)) * filter.offset;
        if value > self.threshold {
            let over_for = self.over_for.map_or(sent_delta / 2.0, |time| time + sent_delta);
            (self.over_for, self.over_groups) = (Some(over_for), self.over_groups + 1);
            if over_for > 10.0 && self.over_groups > 1 && filter.offset >= self.offset_before {
                (self.over_for, self.over_groups) = (Some(0.0), 0);
                self.usage = Usage::Over;
            }
        } else {
            (self.over_for, self.over_groups) = (None, 0);
            self.usage = if value < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.offset_before = filter.offset;
        let elapsed = (now - self.updated_at.replace(now).unwrap_or(now)).min(100.0);
        if value.abs() <= self.threshold + 15.0 {
            let gain = if value.abs() < self.threshold { 0.039 } else { 0.0087 };
            let moved = self.threshold + gain * (value.abs() - self.threshold) * elapsed;
            self.threshold = moved.clamp(6.0, 600.0);
        }
    }
}

/// The rate that it asks for.
struct Rate {
    bps: Option<f64>,
    throughput_since: Option<f64>,
    throughput: f64,
    is_held: bool,
    changed_at: f64,
    /// The mean and the variance of the throughput at an overuse, in kbit/s.
    capacity: (Option<f64>, f64),
    is_near_capacity: bool,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            bps: None,
            throughput_since: None,
            throughput: 30e6,
            is_held: true,
            changed_at: 0.0,
            capacity: (None, 0.4),
            is_near_capacity: false,
        }
    }
}

impl Rate {
    fn update(&mut self, usage: Usage, throughput: Option<f64>, now: f64) -> Option<f64> {
        if let (None, Some(bps)) = (self.bps, throughput) {
            let since = *self.throughput_since.get_or_insert(now);
            self.bps = (now - since > 3000.0).then_some(bps);
        }
        if self.bps.is_none() && usage != Usage::Over {
            return None;
        }
        self.throughput = throughput.unwrap_or(self.throughput);
        let bps = self.bps.unwrap_or(30e6);
        let deviation = |mean: f64, variance: f64| 3.0 * (variance * mean).sqrt();
        let kbps = self.throughput / 1e3;
        let changed = match usage {
            Usage::Over => {
                if self
                    .capacity
                    .0
                    .is_some_and(|mean| kbps < mean - deviation(mean, self.capacity.1))
                {
                    self.capacity.0 = None;
                }
                self.note_capacity(kbps);
                (self.is_near_capacity, self.is_held, self.changed_at) = (true, true, now);
                0.85 * self.throughput
            }
            Usage::Under => {
                self.is_held = true;
                bps
            }
            Usage::Normal => {
                if std::mem::take(&mut self.is_held) {
                    self.changed_at = now;
                }
                if self
                    .capacity
                    .0
                    .is_some_and(|mean| kbps >= mean + deviation(mean, self.capacity.1))
                {
                    (self.is_near_capacity, self.capacity.0) = (false, None);
                }
                let elapsed = now - std::mem::replace(&mut self.changed_at, now);
                bps + self.step(bps, elapsed)
            }
        };
        let most = (1.5 * self.throughput + 10e3).max(bps);
        self.bps = Some(changed.min(most));
        self.bps
    }

    fn step(&self, bps: f64, elapsed_ms: f64) -> f64 {
        if self.is_near_capacity {
            let frame_bits = bps / 30.0;
            let packet_bits = frame_bits / (frame_bits / 9600.0).ceil();
            return elapsed_ms / 1e3 * (packet_bits * 1000.0 / 300.0).max(4000.0);
        }
        ((1.08_f64.powf(elapsed_ms.min(1000.0) / 1e3) - 1.0) * bps).max(1000.0)
    }

    fn note_capacity(&mut self, kbps: f64) {
        let (mean, variance) = self.capacity;
        let mean = mean.map_or(kbps, |mean| 0.95 * mean + 0.05 * kbps);
        let variance = 0.95 * variance + 0.05 * (mean - kbps).powi(2) / mean.max(1.0);
        self.capacity = (Some(mean), variance.clamp(0.4, 2.5));
    }
}
