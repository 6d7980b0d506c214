//! The trend of the delay, from packets.

use super::{
    history::ReceivedPacket,
    packet_groups::{GroupChange, PacketGroups},
    trendline::{Trendline, Usage},
};

/// Puts packets into groups, and follows the trend of their delay.
#[derive(Debug, Default)]
pub(super) struct PathTrend {
    groups: PacketGroups,
    trendline: Trendline,
    has_recovered: bool,
}

impl PathTrend {
    /// How the path is used.
    pub(super) const fn usage(&self) -> Usage {
        self.trendline.usage()
    }

    /// Whether the packets that were added last ended a time in which the queue became shorter.
    pub(super) const fn has_recovered(&self) -> bool {
        self.has_recovered
    }

    /// Adds packets in the order of arrival. Returns whether the other end's clock was changed.
    pub(super) fn add(&mut self, packets: &[ReceivedPacket]) -> bool {
        let mut has_clock_changed = false;
        self.has_recovered = false;
        for packet in packets {
            let before = self.usage();
            match self.groups.add(packet) {
                GroupChange::None => {}
                GroupChange::Complete(delta) => self.trendline.add(delta),
                GroupChange::ClockChanged => {
                    self.trendline = Trendline::default();
                    has_clock_changed = true;
                }
            }
            self.has_recovered |= before == Usage::Under && self.usage() == Usage::Normal;
        }
        has_clock_changed
    }
}
