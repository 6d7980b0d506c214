//! What was sent in the last seconds.

use std::collections::VecDeque;

use super::PacketKind;
use crate::model::MediaTime;

/// Counts what leaves, by tenths of a second.
#[derive(Debug, Default)]
pub(super) struct SentRate {
    bins: VecDeque<Bin>,
}

#[derive(Clone, Copy, Debug)]
struct Bin {
    number: u64,
    sent: Sent,
}

/// Bytes, or bits per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// On the wire.
    pub(super) total: f64,
    /// Of it, what belongs to video: new packets, repeats and padding.
    pub(super) video: f64,
    /// The video without headers.
    pub(super) video_payload: f64,
}

/// What a packet of video has beside its payload.
const HEADER_BYTES: f64 = 64.0;

const BIN_US: u64 = 100_000;

/// The bins of a second, and those that are kept.
const SECOND: u64 = 10;
const KEPT: u64 = 16;

impl SentRate {
    /// Counts a packet of so many bytes on the wire.
    pub(super) fn add(&mut self, kind: PacketKind, bytes: u32, at: MediaTime) {
        let number = at.as_micros() / BIN_US;
        let newest = self.bins.back().map(|bin| bin.number);
        if newest.is_none_or(|newest| newest < number) {
            self.bins.push_back(Bin { number, sent: Sent::default() });
        }
        while self.bins.front().is_some_and(|bin| bin.number + KEPT < number) {
            self.bins.pop_front();
        }
        let Some(Bin { sent, .. }) = self.bins.back_mut() else { return };
        sent.total += f64::from(bytes);
        if kind != PacketKind::Audio {
            sent.video += f64::from(bytes);
            sent.video_payload += (f64::from(bytes) - HEADER_BYTES).max(0.0);
        }
    }

    /// The bits per second of the last second, up to the last tenth that is over.
    pub(super) fn last_second(&self, now: MediaTime) -> Sent {
        self.second(now.as_micros() / BIN_US)
    }

    /// The least payload of video per second, of seconds that ended up to half a second ago: reports
    /// are of what was sent before.
    pub(super) fn least_video_payload(&self, now: MediaTime) -> f64 {
        let end = now.as_micros() / BIN_US;
        let ends = end.saturating_sub(KEPT - SECOND - 1)..=end;
        ends.map(|end| self.second(end).video_payload).fold(f64::INFINITY, f64::min)
    }

    /// The bits of the second before a bin.
    fn second(&self, end: u64) -> Sent {
        let inside = self.bins.iter().filter(|bin| bin.number < end && bin.number + SECOND >= end);
        inside.fold(Sent::default(), |sum, Bin { sent, .. }| Sent {
            total: sum.total + 8.0 * sent.total,
            video: sum.video + 8.0 * sent.video,
            video_payload: sum.video_payload + 8.0 * sent.video_payload,
        })
    }
}
