//! How much of what is to be played a sound server keeps (pure).

/// The length of the server's queue: more after it ran dry again and again, less when it does not.
///
/// The server asks for samples when its queue has room for a callback. If the answer takes longer
/// than the rest lasts, it plays nothing for a moment, which is heard, and all later sound is late by
/// that, which an echo canceller has to find out. One underflow alone changes nothing: after the
/// server itself stood still, more would only be delay.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerQueue {
    /// In halves of a callback.
    halves: u32,
    /// Requests since the last underflow.
    since_underflow: u32,
    /// Requests since the last underflow or change.
    calm: u32,
    /// How many calm requests it takes until the queue shrinks.
    patience: u32,
    /// Whether the last change made it smaller.
    has_shrunk: bool,
}

impl ServerQueue {
    /// Two callbacks: one that is played while the other is asked for.
    const MIN: u32 = 4;

    /// Six callbacks: more delay is not acceptable in a conversation.
    const MAX: u32 = 12;

    /// An underflow within this many requests after another one counts: 10 s.
    const AGAIN: u32 = 1000;

    /// The shortest and the longest patience: 10 and 80 s.
    const PATIENCE: (u32, u32) = (1000, 8000);

    /// The shortest queue.
    pub(super) const fn new() -> Self {
        Self {
            halves: Self::MIN,
            since_underflow: u32::MAX,
            calm: 0,
            patience: Self::PATIENCE.0,
            has_shrunk: false,
        }
    }

    /// The length for callbacks of this length, in the same unit.
    pub(super) const fn length(self, callback: u32) -> u32 {
        callback / 2 * self.halves
    }

    /// The server played nothing for a moment. Returns whether the length has changed.
    pub(super) fn on_underflow(&mut self) -> bool {
        let is_again = self.since_underflow < Self::AGAIN;
        (self.since_underflow, self.calm) = (0, 0);
        if !is_again || self.halves == Self::MAX {
            return false;
        }
        if self.has_shrunk {
            self.patience = (2 * self.patience).min(Self::PATIENCE.1);
        }
        self.has_shrunk = false;
        self.halves += 1;
        true
    }

    /// The server asked for samples. Returns whether the length has changed.
    pub(super) fn on_request(&mut self) -> bool {
        self.since_underflow = self.since_underflow.saturating_add(1);
        self.calm += 1;
        if self.calm < self.patience {
            return false;
        }
        self.calm = 0;
        if self.halves == Self::MIN {
            self.patience = Self::PATIENCE.0;
            return false;
        }
        self.has_shrunk = true;
        self.halves -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests until the length changes.
    fn calm_requests(queue: &mut ServerQueue) -> u32 {
        (1..).find(|_| queue.on_request()).unwrap()
    }

    #[test]
    fn a_server_that_runs_dry_again_keeps_more_until_it_is_calm() {
        let mut queue = ServerQueue::new();
        assert!(!queue.on_underflow(), "it may have stood still itself");
        assert!(queue.on_underflow());
        assert_eq!(queue.length(480), 1200);
        assert_eq!((calm_requests(&mut queue), queue.length(480)), (1000, 960));
        assert!((0..100_000).all(|_| !queue.on_request()), "never less than two callbacks");
        assert!(!queue.on_underflow(), "the last one is long ago");
        assert!((0..8).all(|_| queue.on_underflow()) && !queue.on_underflow());
        assert_eq!(queue.length(480), 6 * 480, "the longest");
    }

    #[test]
    fn a_queue_that_shrank_too_much_waits_longer_the_next_time() {
        let mut queue = ServerQueue::new();
        queue.on_underflow();
        let patience: Vec<_> = (0..5)
            .map(|_| {
                while !queue.on_underflow() {}
                calm_requests(&mut queue)
            })
            .collect();
        assert_eq!(patience, [1000, 2000, 4000, 8000, 8000]);
    }
}
