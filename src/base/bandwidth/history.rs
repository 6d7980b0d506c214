//! The packets that were sent and of which nothing was reported yet.

use std::{collections::VecDeque, time::Duration};

use super::{FeedbackReport, PacketResult, SentPacket};

/// The packets of the last seconds, in a ring by number.
///
/// A packet that no report names leaves it in the end and counts for nothing: the report may be
/// what was lost (draft-holmer-rmcat-transport-wide-cc-extensions-01, section 3.1).
#[derive(Debug, Default)]
pub(super) struct SentHistory {
    /// The number of the first entry.
    first: u64,
    /// The number after the last one that a report named.
    named_to: u64,
    /// `None` for numbers that were reported, or never sent.
    entries: VecDeque<Option<Entry>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    packet: SentPacket,
    /// Whether a report said that it was lost. It may only be late.
    was_lost: bool,
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedPacket {
    pub(super) sent: SentPacket,
    /// In microseconds of the other end's clock.
    pub(super) arrival_us: i64,
    /// Whether an earlier report said that it was lost.
    pub(super) was_lost: bool,
}

/// What a report says of packets that were sent.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What arrived, in the order of arrival.
    pub(super) received: Vec<ReceivedPacket>,
    /// What was lost, and not reported so before.
    pub(super) lost: Vec<SentPacket>,
    /// The bytes that left between the packets of earlier reports and those of this one: what
    /// reports say that were lost.
    pub(super) unknown_bytes: u64,
}

/// The most packets that wait for a report: four seconds of 1000 packets.
const MAX_PACKETS: usize = 4096;

/// How long a packet waits for a report.
const MAX_AGE: Duration = Duration::from_secs(4);

impl SentHistory {
    /// Adds a packet. One that is older than all others is ignored.
    pub(super) fn insert(&mut self, packet: SentPacket) {
        let is_far = packet.number.saturating_sub(self.first) >= 2 * MAX_PACKETS as u64;
        if self.entries.is_empty() || is_far {
            self.entries.clear();
            self.first = packet.number;
        }
        let Some(index) = packet.number.checked_sub(self.first) else { return };
        while self.entries.len() <= index as usize {
            self.entries.push_back(None);
        }
        self.entries[index as usize] = Some(Entry { packet, was_lost: false });
        let is_done = |entry: &Option<Entry>| {
            entry.is_none_or(|entry| packet.at.since(entry.packet.at) > MAX_AGE)
        };
        while self.entries.len() > MAX_PACKETS || self.entries.front().is_some_and(is_done) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Looks up what a report names, once for each packet. Numbers that are not in the history
    /// are skipped.
    pub(super) fn resolve(&mut self, report: &FeedbackReport) -> Outcome {
        let mut outcome = Outcome { unknown_bytes: self.pass_over(report), ..Outcome::default() };
        for result in &report.packets {
            let index =
                result.number().checked_sub(self.first).and_then(|index| index.try_into().ok());
            let slot = index.and_then(|index: usize| self.entries.get_mut(index));
            let Some((slot, entry)) = slot.and_then(|slot| slot.map(|entry| (slot, entry))) else {
                continue;
            };
            let Entry { packet: sent, was_lost } = entry;
            if let PacketResult::Received { arrival_us, .. } = *result {
                *slot = None;
                outcome.received.push(ReceivedPacket { sent, arrival_us, was_lost });
            } else if !was_lost {
                *slot = Some(Entry { was_lost: true, ..entry });
                outcome.lost.push(sent);
            }
        }
        outcome.received.sort_by_key(|packet| packet.arrival_us);
        outcome
    }

    /// The bytes of the packets that no report has named and that left before those of this one.
    fn pass_over(&mut self, report: &FeedbackReport) -> u64 {
        let end = self.first + self.entries.len() as u64;
        let known = report.packets.iter().map(PacketResult::number);
        let (least, most) = known
            .filter(|number| (self.first..end).contains(number))
            .fold((u64::MAX, 0), |(least, most), number| (least.min(number), most.max(number)));
        if least > most {
            return 0;
        }
        let from = self.named_to.max(self.first);
        self.named_to = self.named_to.max(most + 1);
        let passed = least.saturating_sub(from) as usize;
        let entries = self.entries.iter().skip((from - self.first) as usize).take(passed).flatten();
        entries.map(|entry| u64::from(entry.packet.bytes)).sum()
    }
}
