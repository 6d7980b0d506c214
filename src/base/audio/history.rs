//! The last second of an audio stream.

use crate::media::{AUDIO_RATE, BLOCK_SAMPLES};

/// The last second of an audio stream. Initially silent.
#[derive(Clone, Debug)]
pub struct History {
    samples: Box<[f32]>,
    at: usize,
}

impl History {
    /// Starts with a second of silence.
    pub fn new() -> Self {
        Self { samples: vec![0.0; AUDIO_RATE as usize].into(), at: 0 }
    }

    /// Adds a block in place of the oldest one.
    pub fn push(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        self.samples[self.at..self.at + BLOCK_SAMPLES].copy_from_slice(block);
        self.at = (self.at + BLOCK_SAMPLES) % self.samples.len();
    }

    /// The samples of the last second, oldest first.
    pub fn samples(&self) -> Vec<f32> {
        let (newest, oldest) = self.samples.split_at(self.at);
        [oldest, newest].concat()
    }
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_holds_the_newest_second_in_order() {
        let mut history = History::new();
        for n in 0..130_u8 {
            history.push(&[f32::from(n); BLOCK_SAMPLES]);
        }
        let samples = history.samples();
        assert_eq!(samples.len(), 48_000);
        assert_eq!((samples[0], samples[47_999]), (30.0, 129.0));
        assert!(samples.is_sorted());
    }
}
