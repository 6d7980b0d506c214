//! The rate at which packets arrive.

use std::collections::VecDeque;

use super::history::Outcome;

/// Measures the rate at which packets arrive over the last half second, at least 20 packets.
///
/// It is the smaller one of the rates at which these packets left and arrived, both measured on
/// the packets' own times and not on when they were reported. The longest pause between arrivals
/// does not count: it may be the radio's. (libwebrtc's `RobustThroughputEstimator`, with half of
/// its window: a fall of the capacity is answered in 0.6 s instead of 1.1 s.)
#[derive(Debug, Default)]
pub(super) struct AcknowledgedRate {
    /// In the order of arrival.
    packets: VecDeque<Arrival>,
    bps: Option<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    arrival_us: i64,
    sent_us: u64,
    bytes: u32,
}

/// The window: at least so long, with at least and at most so many packets.
const WINDOW_US: i64 = 500_000;
const PACKETS: (usize, usize) = (20, 500);

/// Fewer packets give no rate.
const LEAST_PACKETS: usize = 10;

/// A span is at least a millisecond: what arrives at once was collected somewhere.
const LEAST_SPAN_S: f64 = 1e-3;

impl AcknowledgedRate {
    /// The rate in bits per second, once there were enough packets.
    pub(super) const fn bps(&self) -> Option<f64> {
        self.bps
    }

    /// Adds the packets of a report. Packets whose report was lost count as if they had arrived.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        let mut unknown = u32::try_from(outcome.unknown_bytes).unwrap_or(u32::MAX);
        for packet in &outcome.received {
            let arrival = Arrival {
                arrival_us: packet.arrival_us,
                sent_us: packet.sent.at.as_micros(),
                bytes: packet.sent.bytes.saturating_add(std::mem::take(&mut unknown)),
            };
            let later = |one: &&Arrival| one.arrival_us > arrival.arrival_us;
            let index = self.packets.len() - self.packets.iter().rev().take_while(later).count();
            self.packets.insert(index, arrival);
            self.trim();
        }
        self.bps = self.measured_bps().or(self.bps);
    }

    fn trim(&mut self) {
        let (least, most) = PACKETS;
        while self.packets.len() > most || self.packets.len() > least && self.span_us() > WINDOW_US
        {
            self.packets.pop_front();
        }
    }

    fn span_us(&self) -> i64 {
        let (first, last) = (self.packets.front(), self.packets.back());
        last.zip(first).map_or(0, |(last, first)| last.arrival_us.saturating_sub(first.arrival_us))
    }

    fn measured_bps(&self) -> Option<f64> {
        if self.packets.len() < LEAST_PACKETS {
            return None;
        }
        let (mut longest, mut second) = (0, 0);
        for (one, next) in self.packets.iter().zip(self.packets.iter().skip(1)) {
            let gap = next.arrival_us.saturating_sub(one.arrival_us);
            (longest, second) =
                if gap > longest { (gap, longest) } else { (longest, second.max(gap)) };
        }
        let bytes: u64 = self.packets.iter().map(|packet| u64::from(packet.bytes)).sum();
        let first_received = self.packets.front()?;
        let last_sent = self.packets.iter().max_by_key(|packet| packet.sent_us)?;
        let first_sent_us = self.packets.iter().map(|packet| packet.sent_us).min()?;
        let receive_us = self.span_us().saturating_sub(longest).saturating_add(second);
        let send_us = last_sent.sent_us - first_sent_us;
        let received = bps(bytes - u64::from(first_received.bytes), receive_us as f64);
        let sent = bps(bytes - u64::from(last_sent.bytes), send_us as f64);
        Some(received.min(sent))
    }
}

fn bps(bytes: u64, span_us: f64) -> f64 {
    bytes as f64 * 8.0 / (span_us / 1e6).max(LEAST_SPAN_S)
}
