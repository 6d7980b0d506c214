//! A sound of this program itself, which is played beside what others send.

use std::fmt;

use crate::media::BLOCK_SAMPLES;

/// A sound that is played once.
pub(super) struct Clip {
    /// At 48 kHz.
    samples: Vec<f32>,
    /// How much of it was played.
    played: usize,
    _on_end: OnEnd,
}

/// Called once, when a clip was played or can be played no more.
struct OnEnd(Option<Box<dyn FnOnce() + Send>>);

impl Clip {
    /// A clip with samples at 48 kHz. `on_end` is called on the thread that plays it, at its end or
    /// when it is replaced, and must not block.
    pub(super) fn new(samples: Vec<f32>, on_end: Box<dyn FnOnce() + Send>) -> Self {
        Self { samples, played: 0, _on_end: OnEnd(Some(on_end)) }
    }

    /// The next 10 ms; `None` after the end.
    pub(super) fn next_block(&mut self) -> Option<[f32; BLOCK_SAMPLES]> {
        let rest = &self.samples[self.played.min(self.samples.len())..];
        if rest.is_empty() {
            return None;
        }
        let mut block = [0.0; BLOCK_SAMPLES];
        block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.played += BLOCK_SAMPLES;
        Some(block)
    }
}

impl fmt::Debug for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clip({} of {})", self.played, self.samples.len())
    }
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(on_end) = self.0.take() {
            on_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_clip_is_played_once_and_its_end_is_told_once() {
        let (end, ended) = channel();
        let mut clip = Clip::new(vec![0.5; 700], Box::new(move || end.send(()).unwrap()));
        assert_eq!(clip.next_block(), Some([0.5; BLOCK_SAMPLES]));
        let last = clip.next_block().unwrap();
        assert_eq!((last[219], last[220]), (0.5, 0.0));
        assert_eq!(clip.next_block(), None);
        assert!(ended.try_recv().is_err());
        drop(clip);
        assert_eq!(ended.iter().count(), 1);
    }
}
