//! How long packets wait in queues of the path.

use std::{collections::VecDeque, time::Duration};

use super::{history::ReceivedPacket, packet_groups::signed_us};
use crate::model::MediaTime;

/// Measures the queue: by how much the fastest packet of a report was slower than the fastest of
/// the last minute. The clocks of both ends need not agree; a skew of 100 ppm moves it by 6 ms.
///
/// A queue that is full and stays full has no slope, so the trend does not see it: without a look
/// at the queue itself, a sender that comes to a full queue stays behind it for good.
#[derive(Debug, Default)]
pub(super) struct PathQueue {
    /// The least delays, by the time of their report; each is larger than the one before it.
    least: VecDeque<(MediaTime, i64)>,
    delay: Duration,
    /// Since when the queue has been long without an interruption, or the last alarm was given.
    long_since: Option<MediaTime>,
}

/// How long a least delay counts. A shorter memory would take a standing queue for the path.
const MEMORY: Duration = Duration::from_secs(60);

/// Least delays of one tenth of a second are one: this bounds the memory.
const STEP: Duration = Duration::from_millis(100);

/// A queue that is longer than this …
const LONG: Duration = Duration::from_millis(120);

/// … for so long is an overuse, …
const PATIENCE: Duration = Duration::from_millis(1500);

/// … and again after each such time.
const REPEAT: Duration = Duration::from_secs(1);

impl PathQueue {
    /// How long the newest packets waited.
    pub(super) const fn delay(&self) -> Duration {
        self.delay
    }

    /// Adds what a report says.
    pub(super) fn add(&mut self, received: &[ReceivedPacket], now: MediaTime) {
        let delays = received.iter().map(|packet| {
            packet.arrival_us.saturating_sub(signed_us(MediaTime::default(), packet.sent.at))
        });
        let Some(delay) = delays.min() else { return };
        while self.least.back().is_some_and(|(_, least)| *least >= delay) {
            self.least.pop_back();
        }
        if self.least.back().is_none_or(|(at, _)| now.since(*at) >= STEP) {
            self.least.push_back((now, delay));
        }
        while self.least.len() > 1 && now.since(self.least[0].0) > MEMORY {
            self.least.pop_front();
        }
        let queue_us = delay.saturating_sub(self.least[0].1);
        self.delay = Duration::from_micros(queue_us.max(0) as u64);
    }

    /// Whether the queue has been long for too long. `is_overused` is what the trend says: then the
    /// rate is being reduced already.
    pub(super) fn is_standing(&mut self, is_overused: bool, now: MediaTime) -> bool {
        if self.delay <= LONG {
            self.long_since = None;
            return false;
        }
        let since = *self.long_since.get_or_insert(now);
        if now.since(since) <= PATIENCE || is_overused {
            return false;
        }
        self.long_since = Some(since + (now.since(since) - (PATIENCE - REPEAT)));
        true
    }
}
