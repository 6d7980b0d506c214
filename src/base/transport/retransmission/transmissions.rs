//! Which transmissions of video packets are lost, by transport-wide feedback.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::bandwidth::PacketResult;

/// The transmissions of one connection's packets of video that have a transport-wide number, also
/// of those that are sent again. Each packet that is sent again is another transmission.
#[derive(Debug, Default)]
pub(super) struct Transmissions {
    /// Oldest first. The newest [`MAX_TRANSMISSIONS`].
    known: VecDeque<Transmission>,
    /// When a packet arrived last that had been reported lost.
    overtaken_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Transmission {
    number: u64,
    packet: PacketId,
    is_lost: bool,
}

/// The packet that was sent: its SSRC and sequence number, also where it was sent on an RTX stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PacketId {
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
}

/// What became of a transmission.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketStatus {
    /// It was received.
    Received,
    /// It did not, although later ones have.
    Lost,
}

/// The transmissions that are remembered: three seconds of video at 5 Mbit/s.
const MAX_TRANSMISSIONS: usize = 2048;

/// For so long after a packet was overtaken by others, a report of a loss proves nothing: the packet
/// may only be late. The other end asks for it then, once it is later than others were.
const OVERTAKING: Duration = Duration::from_secs(30);

impl Transmissions {
    /// Notes that a packet has left under that number. Each number is higher than those before.
    pub(super) fn on_sent(&mut self, number: u64, packet: PacketId) {
        if self.known.len() == MAX_TRANSMISSIONS {
            self.known.pop_front();
        }
        self.known.push_back(Transmission { number, packet, is_lost: false });
    }

    /// The newest number.
    pub(super) fn newest(&self) -> Option<u64> {
        self.known.back().map(|newest| newest.number)
    }

    /// Follows what one feedback message tells. Returns what is new of each transmission, with its
    /// number, oldest first; no losses where packets overtake each other.
    pub(super) fn on_feedback(
        &mut self,
        results: &[PacketResult],
        now: Instant,
    ) -> Vec<(u64, PacketId, PacketStatus)> {
        let mut news = vec![];
        for result in results {
            let number = result.number();
            let found = self.known.binary_search_by_key(&number, |sent| sent.number);
            let Some(sent) = found.ok().and_then(|at| self.known.get_mut(at)) else { continue };
            let status = match result {
                PacketResult::Received { .. } => PacketStatus::Received,
                PacketResult::Lost { .. } => PacketStatus::Lost,
            };
            let was_lost = std::mem::replace(&mut sent.is_lost, status == PacketStatus::Lost);
            if status == PacketStatus::Received || !was_lost {
                news.push((number, sent.packet, status));
            }
            if status == PacketStatus::Received && was_lost {
                self.overtaken_at = Some(now);
            }
        }
        let is_overtaking = |at: Instant| now.saturating_duration_since(at) < OVERTAKING;
        if self.overtaken_at.is_some_and(is_overtaking) {
            news.retain(|(_, _, status)| *status == PacketStatus::Received);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16) -> PacketId {
        PacketId { ssrc: 7, sequence }
    }

    fn lost(number: u64) -> PacketResult {
        PacketResult::Lost { number }
    }

    fn received(number: u64) -> PacketResult {
        PacketResult::Received { number, arrival_us: 0 }
    }

    fn sent(numbers: &[u64]) -> Transmissions {
        let mut transmissions = Transmissions::default();
        numbers.iter().for_each(|number| transmissions.on_sent(*number, packet(*number as u16)));
        transmissions
    }

    #[test]
    fn a_loss_is_told_once_and_of_video_only() {
        let (mut video, now) = (sent(&[1, 3, 4]), Instant::now());
        let news = video.on_feedback(&[lost(1), lost(2), received(3)], now);
        assert_eq!(
            news,
            [(1, packet(1), PacketStatus::Lost), (3, packet(3), PacketStatus::Received)]
        );
        assert_eq!(
            video.on_feedback(&[lost(1), lost(4)], now),
            [(4, packet(4), PacketStatus::Lost)]
        );
        assert_eq!(video.newest(), Some(4));
    }

    #[test]
    fn where_packets_overtake_each_other_a_report_proves_no_loss() {
        let (mut video, now) = (sent(&[1, 2, 3]), Instant::now());
        assert_eq!(video.on_feedback(&[lost(1)], now).len(), 1);
        assert_eq!(
            video.on_feedback(&[received(1)], now),
            [(1, packet(1), PacketStatus::Received)]
        );
        assert_eq!(video.on_feedback(&[lost(2)], now + OVERTAKING / 2), []);
        assert_eq!(video.on_feedback(&[lost(3)], now + OVERTAKING).len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut video = sent(&(0..3000).collect::<Vec<_>>());
        assert_eq!(video.known.len(), MAX_TRANSMISSIONS);
        assert_eq!(video.on_feedback(&[lost(0)], Instant::now()), []);
    }
}
