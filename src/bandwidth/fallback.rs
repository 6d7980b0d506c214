//! The rate where the other end gives no transport-wide feedback.

use std::{collections::VecDeque, time::Duration};

use crate::model::{Bitrate, MediaTime};

/// Follows what older programs report: the loss of receiver reports (RFC 3550, section 6.4.1), and
/// the rate of `goog-remb` (draft-alvestrand-rmcat-remb-03).
///
/// The rate grows only while it is used.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    /// The rate that the loss allows, in bits per second.
    bps: Option<f64>,
    remb: Option<(MediaTime, f64)>,
    /// Bytes that were sent, by tenths of a second.
    sent: VecDeque<(u64, u64)>,
    loss: f64,
}

/// The rate before the first report.
const START_BPS: f64 = 512e3;

/// Below this loss the rate grows; above that one it falls.
const LITTLE_LOSS: f64 = 0.02;
const MUCH_LOSS: f64 = 0.1;

const GROWTH: f64 = 1.05;

/// The rate grows while at least this part of it is used.
const USED: f64 = 0.75;

/// An older report counts for nothing.
const MAX_AGE: Duration = Duration::from_secs(10);

/// What is sent is counted over ten of these.
const BIN_US: u64 = 100_000;
const BINS: u64 = 10;

impl Fallback {
    /// The part of the packets that were lost.
    pub(super) const fn loss(&self) -> f64 {
        self.loss
    }

    /// Whether the other end has reported anything.
    pub(super) const fn has_reports(&self) -> bool {
        self.bps.is_some() || self.remb.is_some()
    }

    /// Counts a packet.
    pub(super) fn on_sent(&mut self, bytes: u32, at: MediaTime) {
        let bin = at.as_micros() / BIN_US;
        match self.sent.back_mut() {
            Some((last, sum)) if *last >= bin => *sum += u64::from(bytes),
            Some(_) | None => self.sent.push_back((bin, bytes.into())),
        }
        while self.sent.front().is_some_and(|(first, _)| first + BINS < bin) {
            self.sent.pop_front();
        }
    }

    /// Follows a rate that the other end asks for.
    pub(super) fn on_remb(&mut self, rate: Bitrate, now: MediaTime) {
        self.remb = Some((now, rate.as_bps() as f64));
    }

    /// Follows a report of loss.
    pub(super) fn on_receiver_report(&mut self, fraction_lost: f64, now: MediaTime) {
        let loss = if fraction_lost.is_finite() { fraction_lost.clamp(0.0, 1.0) } else { 0.0 };
        let bps = self.bps.unwrap_or(START_BPS);
        self.loss = loss;
        self.bps = Some(if loss < LITTLE_LOSS && self.sent_bps(now) >= USED * bps {
            bps * GROWTH
        } else if loss > MUCH_LOSS {
            bps * (1.0 - loss / 2.0)
        } else {
            bps
        });
    }

    /// The target in bits per second, kept within bounds.
    pub(super) fn target(&mut self, (least, most): (f64, f64), now: MediaTime) -> f64 {
        let bps = self.bps.unwrap_or(START_BPS).clamp(least, most);
        self.bps = Some(bps);
        let remb = self.remb.filter(|(at, _)| now.since(*at) <= MAX_AGE);
        remb.map_or(bps, |(_, asked)| asked.clamp(least, bps))
    }

    /// The rate at which packets left in the last second.
    fn sent_bps(&self, now: MediaTime) -> f64 {
        let newest = now.as_micros() / BIN_US;
        let bins = self.sent.iter().filter(|(bin, _)| *bin < newest && bin + BINS >= newest);
        bins.map(|(_, bytes)| *bytes as f64 * 8.0).sum()
    }
}
