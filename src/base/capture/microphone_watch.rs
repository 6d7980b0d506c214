//! Watches what a microphone gives: digital silence, and speech.

use std::fmt;

use crate::{audio::SpeechDetector, media::AudioBlock, model::MicrophoneActivity};

/// Tells what is heard at a microphone, on the thread of the microphone. Nothing is told of other
/// sources.
pub struct MicrophoneWatch {
    is_microphone: bool,
    /// Blocks of digital silence so far.
    silent_blocks: u32,
    speech: SpeechDetector,
    told: MicrophoneActivity,
    notify: Notify,
}

/// Called with each change; it must not block.
type Notify = Box<dyn Fn(MicrophoneActivity) + Send>;

/// Blocks of digital silence after which a microphone counts as silent: 5 s. Every real room has
/// noise; zeros come from a switch on the device, or from a system that refuses the microphone.
const SILENT_BLOCKS: u32 = 500;

impl MicrophoneWatch {
    /// A watch that calls `notify` with each change. `is_microphone` is false for other sources.
    pub fn new(is_microphone: bool, notify: Notify) -> Self {
        let (speech, told) = (SpeechDetector::default(), MicrophoneActivity::default());
        Self { is_microphone, silent_blocks: 0, speech, told, notify }
    }

    /// Takes a block as it was captured, and the same block as it is sent. Speech is looked for in
    /// the second, so that the echo of the other participants counts as none.
    pub fn push(&mut self, captured: &AudioBlock, processed: &AudioBlock) {
        if !self.is_microphone {
            return;
        }
        let is_zero = captured.samples.iter().all(|sample| *sample == 0.0);
        self.silent_blocks = if is_zero { self.silent_blocks.saturating_add(1) } else { 0 };
        let activity = MicrophoneActivity {
            is_silent: self.silent_blocks >= SILENT_BLOCKS,
            is_speaking: self.speech.push(&processed.samples),
        };
        if activity != self.told {
            self.told = activity;
            (self.notify)(activity);
        }
    }
}

impl fmt::Debug for MicrophoneWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MicrophoneWatch").field("told", &self.told).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{media::BLOCK_SAMPLES, model::MediaTime};

    #[test]
    fn five_seconds_of_zeros_are_silence_until_the_first_other_sample() {
        let (sender, told) = channel();
        let notify = Box::new(move |activity| sender.send(activity).unwrap());
        let mut watch = MicrophoneWatch::new(true, notify);
        let mut push = |level: f32, blocks: u32| {
            let mut block = AudioBlock::mono(MediaTime::default(), [0.0; BLOCK_SAMPLES]);
            block.samples[7] = level;
            (0..blocks).for_each(|_| watch.push(&block, &block));
            told.try_iter().map(|activity| activity.is_silent).collect::<Vec<_>>()
        };
        assert!(push(0.0, 499).is_empty());
        assert!(push(1e-5, 1).is_empty() && push(0.0, 499).is_empty());
        assert_eq!(push(0.0, 200), [true]);
        assert_eq!(push(1e-5, 200), [false]);
    }

    #[test]
    fn nothing_is_told_of_a_file() {
        let notify = Box::new(|_| panic!("a file may be silent"));
        let mut watch = MicrophoneWatch::new(false, notify);
        let block = AudioBlock::mono(MediaTime::default(), [0.0; BLOCK_SAMPLES]);
        (0..1000).for_each(|_| watch.push(&block, &block));
    }
}
