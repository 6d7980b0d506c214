//! What a probe has measured.

use std::collections::VecDeque;

use super::{ClusterId, ProbeCluster, history::ReceivedPacket, packet_groups::signed_us};
use crate::model::MediaTime;

/// Measures the rates at which the packets of a probe left and arrived. (libwebrtc's
/// `ProbeBitrateEstimator`.)
#[derive(Debug, Default)]
pub(super) struct ProbeResults {
    running: VecDeque<Measurement>,
}

#[derive(Clone, Debug)]
struct Measurement {
    cluster: ProbeCluster,
    packets: u32,
    bytes: u32,
    /// When its first and last packets left and arrived. The bytes of the last that left and of the
    /// first that arrived are not part of the spans.
    span: Option<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    first_sent: MediaTime,
    last_sent: MediaTime,
    last_sent_bytes: u32,
    first_arrival: i64,
    first_arrival_bytes: u32,
    last_arrival: i64,
}

/// The most probes that wait for reports.
const MAX_RUNNING: usize = 8;

/// So much of a probe must have arrived.
const LEAST_SHARE: f64 = 0.8;

/// A longer span was no probe.
const LONGEST_SPAN_US: i64 = 1_000_000;

/// Packets that arrive so much faster than they left say nothing.
const MAX_RATIO: f64 = 2.0;

/// A probe that arrives clearly slower than it left has found the capacity; less than that is used,
/// so that its queue drains.
const SATURATED: f64 = 0.9;
const DRAIN: f64 = 0.95;

impl ProbeResults {
    /// Expects the packets of a probe.
    pub(super) fn expect(&mut self, cluster: ProbeCluster) {
        if self.running.len() >= MAX_RUNNING {
            self.running.pop_front();
        }
        self.running.push_back(Measurement { cluster, packets: 0, bytes: 0, span: None });
    }

    /// Adds packets that arrived, in the order of arrival. Returns the rate that the last probe
    /// proved that they complete.
    pub(super) fn add(&mut self, packets: &[ReceivedPacket]) -> Option<f64> {
        for packet in packets {
            let Some(cluster) = packet.sent.cluster else { continue };
            if let Some(measurement) = self.measurement(cluster) {
                measurement.add(packet);
            }
        }
        let results = self.running.iter().map(Measurement::bps).collect::<Vec<_>>();
        let mut is_running = results.iter().map(Option::is_none);
        self.running.retain(|_| is_running.next().unwrap_or(true));
        results.into_iter().flatten().last()
    }

    fn measurement(&mut self, id: ClusterId) -> Option<&mut Measurement> {
        self.running.iter_mut().find(|one| one.cluster.id == id)
    }
}

impl Measurement {
    fn add(&mut self, packet: &ReceivedPacket) {
        let (sent, bytes) = (packet.sent.at, packet.sent.bytes);
        self.packets += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        let span = self.span.get_or_insert(Span {
            first_sent: sent,
            last_sent: sent,
            last_sent_bytes: bytes,
            first_arrival: packet.arrival_us,
            first_arrival_bytes: bytes,
            last_arrival: packet.arrival_us,
        });
        span.first_sent = span.first_sent.min(sent);
        if sent >= span.last_sent {
            (span.last_sent, span.last_sent_bytes) = (sent, bytes);
        }
        span.last_arrival = span.last_arrival.max(packet.arrival_us);
    }

    /// The rate that it proves, once enough has arrived.
    fn bps(&self) -> Option<f64> {
        let ProbeCluster { bytes, packets, .. } = self.cluster;
        let is_complete = f64::from(self.packets) >= LEAST_SHARE * f64::from(packets)
            && f64::from(self.bytes) >= LEAST_SHARE * f64::from(bytes);
        let span = self.span.filter(|_| is_complete)?;
        let sent_us = signed_us(span.first_sent, span.last_sent);
        let arrival_us = span.last_arrival.saturating_sub(span.first_arrival);
        let is_short = |span_us| (1..=LONGEST_SPAN_US).contains(&span_us);
        if !is_short(sent_us) || !is_short(arrival_us) {
            return None;
        }
        let bps = |bytes: u32, span_us: i64| f64::from(bytes) * 8.0 / (span_us as f64 / 1e6);
        let sent = bps(self.bytes - span.last_sent_bytes, sent_us);
        let received = bps(self.bytes - span.first_arrival_bytes, arrival_us);
        if received > MAX_RATIO * sent {
            return None;
        }
        let is_saturated = received < SATURATED * sent;
        Some(if is_saturated { DRAIN * received } else { sent.min(received) })
    }
}
