//! Which packets leave together: all of a video frame.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rtc::interceptor::TaggedPacket;

/// How long the packets of a video frame are held for its last one. All of them are written at
/// once, so this time only passes if the last one was lost before it got here.
const BATCH_TIMEOUT: Duration = Duration::from_millis(5);

/// The queue of packets to send. It holds the packets of a video frame until the last one is
/// written: the driver of webrtc-rs writes packets one by one, but sends those together that it
/// polls together.
///
/// This is a matter of cost, not a fault: one system call per packet instead of one per three.
#[derive(Default)]
pub(super) struct FrameBatcher {
    /// The packets that may leave, in order.
    ready: VecDeque<TaggedPacket>,
    /// The packets of a video frame whose last one is not written yet.
    batch: VecDeque<TaggedPacket>,
    /// When the batch is sent even if it is incomplete.
    deadline: Option<Instant>,
}

impl FrameBatcher {
    /// Adds a packet that waits for no other.
    pub(super) fn push(&mut self, packet: TaggedPacket) {
        self.ready.push_back(packet);
    }

    /// Adds a packet of a video frame. The last one has the marker bit (RFC 6184, section 5.1).
    pub(super) fn push_of_frame(&mut self, packet: TaggedPacket, is_last: bool) {
        let deadline = self.deadline.unwrap_or(packet.now + BATCH_TIMEOUT);
        self.batch.push_back(packet);
        self.deadline = Some(deadline);
        if is_last {
            self.flush();
        }
    }

    /// Removes the next packet that may leave.
    pub(super) fn pop(&mut self) -> Option<TaggedPacket> {
        self.ready.pop_front()
    }

    /// When [`Self::handle_timeout`] must be called.
    pub(super) const fn next_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Lets an incomplete frame leave whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.ready.append(&mut self.batch);
        self.deadline = None;
    }
}

#[cfg(test)]
mod tests {
    use rtc::{
        interceptor::{AttributedPacket, Packet},
        rtp,
        shared::TransportContext,
    };

    use super::*;

    fn packet() -> TaggedPacket {
        let message = AttributedPacket::new(Packet::Rtp(rtp::Packet::default()));
        TaggedPacket { now: Instant::now(), transport: TransportContext::default(), message }
    }

    fn leaving(batcher: &mut FrameBatcher) -> usize {
        std::iter::from_fn(|| batcher.pop()).count()
    }

    #[test]
    fn the_packets_of_a_video_frame_are_sent_together_and_delay_no_others() {
        let mut batcher = FrameBatcher::default();
        batcher.push_of_frame(packet(), false);
        batcher.push_of_frame(packet(), false);
        assert_eq!(leaving(&mut batcher), 0);
        batcher.push(packet());
        assert_eq!(leaving(&mut batcher), 1);
        batcher.push_of_frame(packet(), true);
        assert_eq!((leaving(&mut batcher), batcher.next_timeout()), (3, None));
        batcher.push_of_frame(packet(), true);
        assert_eq!((leaving(&mut batcher), batcher.next_timeout()), (1, None));
    }

    #[test]
    fn a_frame_whose_last_packet_never_comes_is_sent_after_a_timeout() {
        let mut batcher = FrameBatcher::default();
        let first = packet();
        let deadline = first.now + BATCH_TIMEOUT;
        batcher.push_of_frame(first, false);
        batcher.push_of_frame(packet(), false);
        assert_eq!(batcher.next_timeout(), Some(deadline));
        batcher.handle_timeout(deadline - Duration::from_millis(1));
        assert_eq!(leaving(&mut batcher), 0);
        batcher.handle_timeout(deadline);
        assert_eq!((leaving(&mut batcher), batcher.next_timeout()), (2, None));
    }
}
