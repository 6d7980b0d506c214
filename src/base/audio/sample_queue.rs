//! A queue of samples of one channel or two.

use std::collections::VecDeque;

use super::{lengthen_by, shorten_by};
use crate::media::{BLOCK_SAMPLES, StereoBlock};

/// Samples that wait to be played or encoded, as mid and side. While both channels are alike there is no
/// side, and it costs nothing.
#[derive(Clone, Debug, Default)]
pub struct SampleQueue {
    mid: VecDeque<f32>,
    /// As long as the mid, if there is a second channel.
    side: Option<VecDeque<f32>>,
    /// Samples until after the last one that differs between the channels.
    stereo_samples: usize,
}

impl SampleQueue {
    /// With room for so many samples of one channel.
    pub fn with_capacity(samples: usize) -> Self {
        Self { mid: VecDeque::with_capacity(samples), ..Self::default() }
    }

    /// The number of samples of each channel.
    pub fn len(&self) -> usize {
        self.mid.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.mid.is_empty()
    }

    /// The mean of both channels.
    pub const fn mid(&self) -> &VecDeque<f32> {
        &self.mid
    }

    /// Appends samples, of which there are as many of the side if there are any.
    pub fn extend(&mut self, mid: &[f32], side: Option<&[f32]>) {
        let before = self.mid.len();
        self.mid.extend(mid);
        match (side.filter(|side| side.iter().any(|sample| *sample != 0.0)), &mut self.side) {
            (Some(side), queue) => {
                let queue = queue.get_or_insert_with(|| vec![0.0; before].into());
                queue.extend(side);
                self.stereo_samples = self.mid.len();
            }
            (None, Some(queue)) => queue.resize(self.mid.len(), 0.0),
            (None, None) => {}
        }
    }

    /// Removes the first 10 ms, and silence if there are fewer.
    pub fn take_block(&mut self) -> StereoBlock {
        let count = BLOCK_SAMPLES.min(self.mid.len());
        let block = |samples: &mut VecDeque<f32>| {
            let mut block = [0.0; BLOCK_SAMPLES];
            block.iter_mut().zip(samples.drain(..count)).for_each(|(to, from)| *to = from);
            block
        };
        let (mid, side) = (block(&mut self.mid), self.side.as_mut().map(block));
        self.on_removed(count);
        StereoBlock { mid, side }
    }

    /// Removes all samples.
    pub fn clear(&mut self) {
        self.mid.clear();
        (self.side, self.stereo_samples) = (None, 0);
    }

    /// Shortens the audio within its first [`STRETCH_WINDOW`](super::STRETCH_WINDOW) samples, both
    /// channels at the same place; see `shorten`.
    pub fn shorten(&mut self, least: f32) -> usize {
        let shift = super::shorten(&mut self.mid, least);
        if let Some(side) = self.side.as_mut().filter(|_| shift > 0) {
            shorten_by(side, shift);
        }
        self.on_removed(shift);
        shift
    }

    /// Lengthens the audio in the same way; see `lengthen`.
    pub fn lengthen(&mut self, least: f32) -> usize {
        let shift = super::lengthen(&mut self.mid, least);
        if let Some(side) = self.side.as_mut().filter(|_| shift > 0) {
            lengthen_by(side, shift);
            self.stereo_samples += shift;
        }
        shift
    }

    fn on_removed(&mut self, samples: usize) {
        self.stereo_samples = self.stereo_samples.saturating_sub(samples);
        if self.stereo_samples == 0 {
            self.side = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_channel_is_there_as_long_as_it_differs() {
        let mut queue = SampleQueue::default();
        queue.extend(&[0.5; 700], None);
        queue.extend(&[0.5; 100], Some(&[0.25; 100]));
        queue.extend(&[0.5; 700], Some(&[0.0; 700]));
        assert_eq!(queue.len(), 1500);
        let blocks = [(); 4].map(|()| queue.take_block());
        let sides = blocks.map(|block| block.side.map(|side| side.iter().sum::<f32>()));
        assert_eq!(sides, [Some(0.0), Some(25.0), None, None]);
        assert_eq!(blocks[1].side.unwrap()[219..221], [0.0, 0.25]);
        assert_eq!((blocks[3].mid[59], blocks[3].mid[60]), (0.5, 0.0));
    }

    #[test]
    fn both_channels_are_stretched_at_the_same_place() {
        let tone: Vec<_> = (0..4800).map(|n| (n as f32 * 0.06).sin()).collect();
        let side: Vec<_> = tone.iter().map(|sample| sample / 2.0).collect();
        for stretch in [SampleQueue::shorten, SampleQueue::lengthen] {
            let mut queue = SampleQueue::default();
            queue.extend(&tone, Some(&side));
            assert!(stretch(&mut queue, 0.8) > 0);
            assert!(queue.len() != tone.len());
            let pairs = queue.mid.iter().zip(queue.side.as_ref().unwrap());
            assert_eq!(pairs.clone().count(), queue.len());
            assert!(pairs.into_iter().all(|(mid, side)| (mid / 2.0 - side).abs() < 1e-6));
        }
    }
}
