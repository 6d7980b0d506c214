//! Which packets of audio are lost, by transport-wide feedback.

use std::collections::VecDeque;

use crate::bandwidth::PacketResult;

/// The losses among the packets of audio that were sent last.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(in crate::transport) struct AudioLosses {
    /// The packets of the last two seconds that are lost.
    pub(in crate::transport) lost: u32,
    /// The share of those packets that is lost, 0 to 1.
    pub(in crate::transport) share: f32,
    /// How many packets are lost in a row, in the mean of the last four seconds; 1 without losses.
    pub(in crate::transport) mean_burst: f32,
}

/// The packets of audio of one connection, and what is known of each.
#[derive(Debug, Default)]
pub(super) struct AudioLossWindow {
    /// The transport-wide number of each packet, and whether it arrived, oldest first.
    packets: VecDeque<(u64, Option<bool>)>,
}

/// The packets of which the share is: two seconds in packets of 20 ms.
const WINDOW: usize = 100;

/// The packets of which the bursts are: four seconds, since they are few.
const BURST_WINDOW: usize = 200;

/// The least packets of which a share is: one of two that is lost is no half.
const MIN_COUNT: usize = 50;

/// Packets that are remembered: those of the window, and one second on their way.
const MAX_PACKETS: usize = BURST_WINDOW + 50;

impl AudioLossWindow {
    /// A packet of audio has left with this number.
    pub(super) fn on_sent(&mut self, number: u64) {
        self.packets.push_back((number, None));
        if self.packets.len() > MAX_PACKETS {
            self.packets.pop_front();
        }
    }

    /// Takes what a feedback message tells. Returns the losses if it tells of audio.
    pub(super) fn on_feedback(&mut self, results: &[PacketResult]) -> Option<AudioLosses> {
        let mut is_of_audio = false;
        for result in results {
            let place = self.packets.binary_search_by_key(&result.number(), |packet| packet.0);
            let Some((_, arrived)) = place.ok().and_then(|at| self.packets.get_mut(at)) else {
                continue;
            };
            is_of_audio = true;
            // A packet may arrive after it was reported lost.
            *arrived =
                Some(*arrived == Some(true) || matches!(result, PacketResult::Received { .. }));
        }
        is_of_audio.then(|| self.losses())
    }

    /// The losses among the newest packets of which something is known.
    fn losses(&self) -> AudioLosses {
        let known = self.packets.iter().rev().filter_map(|(_, arrived)| *arrived);
        let window: Vec<_> = known.take(BURST_WINDOW).collect();
        let recent = &window[..window.len().min(WINDOW)];
        let lost = |packets: &[bool]| packets.iter().filter(|arrived| !**arrived).count();
        let bursts = window.chunk_by(|a, b| a == b).filter(|run| !run[0]).count();
        AudioLosses {
            lost: lost(recent) as u32,
            share: lost(recent) as f32 / recent.len().max(MIN_COUNT) as f32,
            mean_burst: lost(&window).max(1) as f32 / bursts.max(1) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` packets of audio, each second number, and reports all at once. Returns the losses.
    fn losses(window: &mut AudioLossWindow, count: u64, lost: impl Fn(u64) -> bool) -> AudioLosses {
        let first = window.packets.back().map_or(0, |(number, _)| number / 2 + 1);
        let numbers = first..first + count;
        numbers.clone().for_each(|number| window.on_sent(number * 2));
        let of_video = numbers.clone().map(|number| PacketResult::Lost { number: number * 2 + 1 });
        let results = numbers.clone().map(|number| match lost(number - first) {
            true => PacketResult::Lost { number: number * 2 },
            false => PacketResult::Received { number: number * 2, arrival_us: 0 },
        });
        window.on_feedback(&of_video.chain(results).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_losses_are_of_audio_alone_and_of_the_last_two_seconds() {
        let mut window = AudioLossWindow::default();
        let none = losses(&mut window, 100, |_| false);
        assert_eq!(none, AudioLosses { lost: 0, share: 0.0, mean_burst: 1.0 });
        let of_video = [PacketResult::Lost { number: 1 }];
        assert_eq!(window.on_feedback(&of_video), None);
        let all = losses(&mut window, 50, |_| true);
        assert_eq!((all.lost, all.share), (50, 0.5));
        let single = losses(&mut window, 200, |n| n % 20 == 0);
        assert_eq!(single, AudioLosses { lost: 5, share: 0.05, mean_burst: 1.0 });
        let bursts = losses(&mut window, 200, |n| n % 50 < 3);
        assert_eq!(bursts, AudioLosses { lost: 6, share: 0.06, mean_burst: 3.0 });
        assert_eq!(window.packets.len(), MAX_PACKETS);
    }

    #[test]
    fn few_packets_are_no_large_share_and_a_late_packet_is_not_lost() {
        let mut window = AudioLossWindow::default();
        let first = losses(&mut window, 2, |n| n == 0);
        assert_eq!((first.lost, first.share), (1, 0.02));
        let late = [PacketResult::Received { number: 0, arrival_us: 0 }];
        assert_eq!(window.on_feedback(&late).unwrap().lost, 0);
    }
}
