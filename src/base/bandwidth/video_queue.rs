//! The video that waits in a pacer: whole frames.

use std::collections::VecDeque;

use super::{FramePart, Pushed, pacer::Queued};

/// The queue of video packets. It drops whole frames, up to a keyframe.
#[derive(Debug)]
pub(super) struct VideoQueue<T> {
    frames: VecDeque<Frame<T>>,
    /// The bytes of the frames that are not keyframes.
    delta_bytes: u64,
    awaits_keyframe: bool,
    /// Whether a keyframe has left since the queue was empty.
    follows_keyframe: bool,
}

#[derive(Debug)]
struct Frame<T> {
    is_keyframe: bool,
    /// Whether a packet of it has left.
    has_begun: bool,
    packets: VecDeque<Queued<T>>,
}

impl<T> Default for VideoQueue<T> {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            delta_bytes: 0,
            awaits_keyframe: false,
            follows_keyframe: false,
        }
    }
}

impl<T> VideoQueue<T> {
    /// Adds a packet. A frame that starts while more than `most` bytes wait empties the queue to
    /// the next keyframe.
    pub(super) fn push(&mut self, part: FramePart, queued: Queued<T>, most: u64) -> Pushed {
        if self.is_empty() && part != FramePart::Continuation {
            self.follows_keyframe = false;
        }
        match part {
            FramePart::KeyframeStart => self.awaits_keyframe = false,
            FramePart::FrameStart | FramePart::Continuation if self.awaits_keyframe => {
                return Pushed::Dropped;
            }
            FramePart::FrameStart => {
                if self.delta_bytes > most && !self.drop_to_keyframe(most) {
                    self.awaits_keyframe = true;
                    return Pushed::NeedsKeyframe;
                }
            }
            FramePart::Continuation => {}
        }
        let is_keyframe = part == FramePart::KeyframeStart;
        if part != FramePart::Continuation || self.frames.is_empty() {
            let packets = VecDeque::with_capacity(8);
            self.frames.push_back(Frame { is_keyframe, has_begun: false, packets });
        }
        if let Some(frame) = self.frames.back_mut() {
            if !frame.is_keyframe {
                self.delta_bytes += u64::from(queued.bytes);
            }
            frame.packets.push_back(queued);
        }
        Pushed::Queued
    }

    /// Takes the next packet.
    pub(super) fn pop(&mut self) -> Option<Queued<T>> {
        // The last frame stays when it is empty: a further packet of it may come.
        while self.frames.len() > 1 && self.frames[0].packets.is_empty() {
            self.frames.pop_front();
        }
        let frame = self.frames.front_mut()?;
        let queued = frame.packets.pop_front()?;
        frame.has_begun = true;
        self.follows_keyframe |= frame.is_keyframe;
        if !frame.is_keyframe {
            self.delta_bytes -= u64::from(queued.bytes);
        }
        Some(queued)
    }

    /// Whether the next packet belongs to a keyframe.
    pub(super) fn is_keyframe_next(&self) -> bool {
        let next = self.frames.iter().find(|frame| !frame.packets.is_empty());
        next.is_some_and(|frame| frame.is_keyframe)
    }

    /// Whether the next packet belongs to a keyframe that leaves, or has waited behind one.
    pub(super) const fn follows_keyframe(&self) -> bool {
        self.follows_keyframe
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.iter().all(|frame| frame.packets.is_empty())
    }

    /// The bytes that wait, without keyframes. A keyframe may be large: it is what all else follows.
    pub(super) const fn delta_bytes(&self) -> u64 {
        self.delta_bytes
    }

    /// Drops the frames before the last keyframe that waits, but not the rest of a frame that has
    /// begun to leave. If that is not enough or there is no keyframe, drops what follows it, too,
    /// and returns false: the next frame cannot be decoded then.
    fn drop_to_keyframe(&mut self, most: u64) -> bool {
        let begun = usize::from(self.frames.front().is_some_and(|frame| frame.has_begun));
        let keyframe = self.frames.iter().rposition(|frame| frame.is_keyframe);
        if let Some(at) = keyframe.filter(|at| *at > begun) {
            self.frames.drain(begun..at);
        }
        let is_enough = keyframe.is_some() && self.count() <= most;
        if !is_enough {
            let keyframe = self.frames.iter().rposition(|frame| frame.is_keyframe);
            self.frames.truncate(keyframe.map_or(begun, |at| at + 1));
            self.count();
        }
        is_enough
    }

    /// Counts the bytes anew.
    fn count(&mut self) -> u64 {
        let deltas = self.frames.iter().filter(|frame| !frame.is_keyframe);
        let bytes = deltas.flat_map(|frame| &frame.packets).map(|packet| u64::from(packet.bytes));
        self.delta_bytes = bytes.sum();
        self.delta_bytes
    }
}
