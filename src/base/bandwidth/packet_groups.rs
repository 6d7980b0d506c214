//! Groups of packets, and by how much the path stretches the time between them.

use std::time::Duration;

use super::history::ReceivedPacket;
use crate::model::MediaTime;

/// Puts packets that left together into groups, and compares each group with the one before it.
///
/// A frame leaves as bursts, and the times between packets of one burst say nothing of a queue.
/// Networks that collect packets, as Wi-Fi does, make bursts of their own. (Carlucci and others,
/// "Analysis and design of the Google congestion control", 2016; libwebrtc's
/// `InterArrivalDelta`.)
#[derive(Debug, Default)]
pub(super) struct PacketGroups {
    current: Option<Group>,
    previous: Option<Group>,
    /// How often in a row a group arrived before the one before it.
    backwards: u32,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: MediaTime,
    last_sent: MediaTime,
    first_arrival: i64,
    last_arrival: i64,
}

/// What adding a packet showed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum GroupChange {
    /// Nothing yet.
    None,
    /// A group is complete.
    Complete(GroupDelta),
    /// The other end's clock was changed: what was known of its times is void.
    ClockChanged,
}

/// The times between two groups: from last packet to last packet.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct GroupDelta {
    pub(super) send_ms: f64,
    pub(super) arrival_ms: f64,
    /// When the later group had arrived, on the other end's clock.
    pub(super) arrived_at_ms: f64,
}

/// Packets that left within this time are one group.
const GROUP_SPAN: Duration = Duration::from_millis(5);

/// Packets belong to a burst while they arrive this close to each other …
const BURST_GAP_US: i64 = 5_000;

/// … and the burst is no longer than this.
const BURST_SPAN_US: i64 = 100_000;

/// A step of the other end's clock, not a queue.
const CLOCK_STEP_US: i64 = 3_000_000;

/// So many groups in a row that arrived before their predecessors: begin anew.
const MAX_BACKWARDS: u32 = 3;

impl PacketGroups {
    /// Adds a packet; packets come in the order of arrival.
    pub(super) fn add(&mut self, packet: &ReceivedPacket) -> GroupChange {
        let (sent, arrival) = (packet.sent.at, packet.arrival_us);
        let Some(group) = &mut self.current else {
            self.current = Some(Group::new(sent, arrival));
            return GroupChange::None;
        };
        if sent < group.first_sent {
            return GroupChange::None;
        }
        if group.has_clock_step(sent, arrival) {
            *self = Self { current: Some(Group::new(sent, arrival)), ..Self::default() };
            return GroupChange::ClockChanged;
        }
        if sent.since(group.first_sent) <= GROUP_SPAN || group.is_burst(sent, arrival) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival);
            return GroupChange::None;
        }
        let complete = std::mem::replace(group, Group::new(sent, arrival));
        let previous = self.previous.replace(complete);
        let delta = previous.and_then(|previous| self.delta(previous, complete));
        delta.map_or(GroupChange::None, GroupChange::Complete)
    }

    fn delta(&mut self, previous: Group, complete: Group) -> Option<GroupDelta> {
        let arrival_us = complete.last_arrival.saturating_sub(previous.last_arrival);
        if arrival_us < 0 {
            self.backwards += 1;
            if self.backwards >= MAX_BACKWARDS {
                *self = Self::default();
            }
            return None;
        }
        self.backwards = 0;
        Some(GroupDelta {
            send_ms: signed_us(previous.last_sent, complete.last_sent) as f64 / 1e3,
            arrival_ms: arrival_us as f64 / 1e3,
            arrived_at_ms: complete.last_arrival as f64 / 1e3,
        })
    }
}

impl Group {
    const fn new(sent: MediaTime, arrival: i64) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrival: arrival, last_arrival: arrival }
    }

    fn has_clock_step(&self, sent: MediaTime, arrival: i64) -> bool {
        let arrival_gap = arrival.saturating_sub(self.last_arrival);
        let step = arrival_gap.saturating_sub(signed_us(self.last_sent, sent));
        step.saturating_abs() >= CLOCK_STEP_US
    }

    fn is_burst(&self, sent: MediaTime, arrival: i64) -> bool {
        let send_gap = signed_us(self.last_sent, sent);
        let arrival_gap = arrival.saturating_sub(self.last_arrival);
        let has_caught_up = arrival_gap < send_gap
            && arrival_gap <= BURST_GAP_US
            && arrival.saturating_sub(self.first_arrival) < BURST_SPAN_US;
        send_gap == 0 || has_caught_up
    }
}

/// The microseconds from one time to another, negative if the second is earlier.
pub(super) const fn signed_us(from: MediaTime, to: MediaTime) -> i64 {
    to.as_micros() as i64 - from.as_micros() as i64
}
