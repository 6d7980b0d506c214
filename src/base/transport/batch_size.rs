//! How many datagrams one system call takes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The fewest datagrams that are worth a call for all of them.
const LEAST: usize = 3;

/// How many datagrams one system call takes (generic segmentation offload), where the kernel supports
/// that. The tap of a connection sets it, and its socket tells it to webrtc-rs.
///
/// webrtc-rs sends datagrams of one size in one call, of which the last may be shorter, once 16 of
/// them are ready, or as many as the socket accepts if that is fewer. A video frame has about six
/// packets. So the socket accepts as many as are ready.
#[derive(Debug)]
pub(super) struct BatchSize(AtomicUsize);

impl Default for BatchSize {
    fn default() -> Self {
        Self(AtomicUsize::new(LEAST))
    }
}

impl BatchSize {
    /// How many datagrams the next call takes at most.
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Follows the packets that leave together, and sets the [`BatchSize`].
#[derive(Debug, Default)]
pub(super) struct BatchCounter {
    size: Arc<BatchSize>,
    /// The bytes of the first packet of the current run; those of a further one of the run are as many.
    first_bytes: u32,
    /// The packets of the run.
    packets: usize,
    /// Whether no packet can follow in the run.
    is_complete: bool,
}

impl BatchCounter {
    pub(super) fn new(size: Arc<BatchSize>) -> Self {
        Self { size, ..Self::default() }
    }

    /// A packet of that size leaves.
    pub(super) fn on_packet(&mut self, bytes: u32) {
        if self.is_complete || bytes > self.first_bytes {
            (self.first_bytes, self.packets) = (bytes, 0);
        }
        self.packets += 1;
        self.is_complete = bytes < self.first_bytes;
        self.size.0.store(self.packets.max(LEAST), Ordering::Relaxed);
    }

    /// Nothing more leaves now.
    pub(super) const fn on_end(&mut self) {
        self.is_complete = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size after packets of these sizes.
    fn size(counter: &mut BatchCounter, packets: &[u32]) -> usize {
        packets.iter().for_each(|bytes| counter.on_packet(*bytes));
        counter.on_end();
        counter.on_end();
        counter.size.get()
    }

    #[test]
    fn a_frame_takes_one_call_whatever_left_before_it() {
        let mut counter = BatchCounter::default();
        assert_eq!(counter.size.get(), 3);
        assert_eq!(size(&mut counter, &[1200, 1200, 1200, 1200, 1190]), 5);
        assert_eq!(size(&mut counter, &[1200, 1200, 1200, 1200, 1200, 1200]), 6);
        assert_eq!(size(&mut counter, &[100, 900, 900, 900, 900]), 4);
        assert_eq!(
            size(&mut counter, &[1300, 900, 900, 900, 900, 900]),
            4,
            "the second ends a run"
        );
        assert_eq!(size(&mut counter, &[100]), 3);
    }
}
