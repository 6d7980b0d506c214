//! The packets of a video frame on their way to the connection's driver, all but the last one.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rtc::rtp;

/// Packets that may wait: two large keyframes. Beyond that they go through the queue of webrtc-rs, which
/// makes the sender wait once it is full.
const MAX_PARTS: usize = 128;

/// The packets of video frames that wait for the last packet of their frame, of one stream.
///
/// The driver of webrtc-rs takes one packet at a time out of its queue, and after each of them it
/// asks all parts of the connection for what they have to send, to tell and to wait for. That costs several
/// times as much as the packet itself. So only the last packet of a frame goes through that queue, and the
/// tap adds the others when it arrives. Nothing could leave earlier: the frame is paced as a whole.
#[derive(Debug, Default)]
pub(super) struct FrameParts(Mutex<VecDeque<rtp::Packet>>);

impl FrameParts {
    /// Adds a packet that is not the last one of its frame. Returns it if too many wait: it has to go
    /// the same way as the last one.
    pub(super) fn push(&self, packet: rtp::Packet) -> Result<(), rtp::Packet> {
        let mut parts = self.lock();
        if parts.len() == MAX_PARTS {
            return Err(packet);
        }
        parts.push_back(packet);
        Ok(())
    }

    /// Passes on the packets before that sequence number that belong to the frame with that
    /// timestamp. Those of earlier frames are dropped: webrtc-rs has refused the last packet of theirs.
    pub(super) fn take_before(
        &self,
        (sequence_number, timestamp): (u16, u32),
        mut pass: impl FnMut(rtp::Packet),
    ) {
        let mut parts = self.lock();
        let is_before = |packet: &rtp::Packet| {
            sequence_number.wrapping_sub(packet.header.sequence_number).wrapping_sub(1) < 1 << 15
        };
        while parts.front().is_some_and(is_before) {
            let part = parts.pop_front().filter(|packet| packet.header.timestamp == timestamp);
            part.into_iter().for_each(&mut pass);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<rtp::Packet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence_number: u16, timestamp: u32) -> rtp::Packet {
        let header = rtp::Header { sequence_number, timestamp, ..rtp::Header::default() };
        rtp::Packet { header, ..rtp::Packet::default() }
    }

    fn taken(parts: &FrameParts, sequence_number: u16, timestamp: u32) -> Vec<u16> {
        let mut numbers = vec![];
        parts.take_before((sequence_number, timestamp), |packet| {
            numbers.push(packet.header.sequence_number);
        });
        numbers
    }

    #[test]
    fn each_frame_gets_its_own_packets_and_refused_ones_none() {
        let parts = FrameParts::default();
        for (number, timestamp) in [(65_534, 1), (65_535, 1), (1, 2), (3, 3), (4, 3), (6, 4)] {
            parts.push(packet(number, timestamp)).unwrap();
        }
        assert_eq!(taken(&parts, 0, 1), [65_534, 65_535]);
        // The last packet of the second frame, number 2, was refused.
        assert_eq!(taken(&parts, 5, 3), [3, 4]);
        assert_eq!(taken(&parts, 5, 3), [0; 0]);
        assert_eq!(taken(&parts, 7, 4), [6]);
    }

    #[test]
    fn packets_that_went_another_way_take_no_later_ones_with_them() {
        let parts = FrameParts::default();
        (0..128).for_each(|number| parts.push(packet(number, 1)).unwrap());
        let refused = parts.push(packet(128, 1)).unwrap_err();
        assert_eq!(taken(&parts, refused.header.sequence_number, 1).len(), 128);
        parts.push(packet(131, 2)).unwrap();
        assert_eq!(taken(&parts, 129, 1), [0; 0]);
        assert_eq!(taken(&parts, 132, 2), [131]);
    }
}
