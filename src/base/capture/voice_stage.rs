//! The stage between a source of audio and the encoder: echo cancellation, noise suppression and
//! automatic gain control.

use tokio::sync::watch;

use crate::{
    audio::{Stages, VoiceProcessor},
    media::{AudioBlock, FarEnd, FarEndReader, now},
    model::{MediaTime, VoiceProcessing},
    supervision::{RESTART_DELAY, catch},
};

use super::SourceSpec;

/// Processes the blocks of one source of audio as the user chooses, which may change at any time.
///
/// It has no thread of its own: [`Self::process`] runs on the thread of the source, which is not
/// the real-time thread of a microphone.
#[derive(Debug)]
pub struct VoiceStage {
    chosen: watch::Receiver<VoiceProcessing>,
    is_microphone: bool,
    far_end: FarEnd,
    /// Present while echo is cancelled.
    reader: Option<FarEndReader>,
    /// Present while there is something to do.
    processor: Option<VoiceProcessor>,
    /// When the processor starts again after a panic.
    restart_at: Option<MediaTime>,
}

impl VoiceStage {
    /// A stage for a source of this kind. `far_end` carries what the speaker plays.
    pub fn new(
        source: &SourceSpec,
        chosen: watch::Receiver<VoiceProcessing>,
        far_end: FarEnd,
    ) -> Self {
        let is_microphone = source.is_microphone();
        Self { chosen, is_microphone, far_end, reader: None, processor: None, restart_at: None }
    }

    /// Returns the processed block: the same block while there is nothing to do, and else of one channel.
    /// Takes less than a
    /// millisecond on an idle core. The processed sound is some milliseconds late, and its capture
    /// time says so.
    ///
    /// After a panic the sound is not processed for two seconds.
    pub fn process(&mut self, block: &AudioBlock) -> AudioBlock {
        let stages = self.stages();
        if stages.is_empty() {
            (self.reader, self.processor) = (None, None);
            return *block;
        }
        if self.restart_at.is_some_and(|at| now() < at) {
            return *block;
        }
        self.restart_at = None;
        if stages.echo != self.reader.is_some() {
            self.reader = stages.echo.then(|| self.far_end.subscribe());
        }
        catch("voice processing", || self.process_with(stages, block)).unwrap_or_else(|_| {
            (self.reader, self.processor) = (None, None);
            self.restart_at = Some(now() + RESTART_DELAY);
            *block
        })
    }

    fn process_with(&mut self, stages: Stages, block: &AudioBlock) -> AudioBlock {
        let processor = self.processor.get_or_insert_with(|| VoiceProcessor::new(stages));
        processor.set_stages(stages);
        let playout_delay =
            self.reader.as_ref().map(|reader| reader.drain(|far| processor.play(far)));
        let capture_delay = now().since(block.time);
        let delay = playout_delay.unwrap_or_default() + capture_delay;
        let mut samples = block.samples;
        processor.process(&mut samples, u32::try_from(delay.as_millis()).unwrap_or(u32::MAX));
        let late = stages.delay().as_micros() as u64;
        let time = MediaTime::from_micros(block.time.as_micros().saturating_sub(late));
        AudioBlock::mono(time, samples)
    }

    fn stages(&self) -> Stages {
        let chosen = *self.chosen.borrow();
        Stages {
            echo: chosen.applies(chosen.echo_cancellation, self.is_microphone),
            noise: chosen.applies(chosen.noise_suppression, self.is_microphone),
            gain: chosen.applies(chosen.auto_gain_control, self.is_microphone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        media::BLOCK_SAMPLES,
        model::{AudioContent, Processing},
    };

    fn stage(
        source: &str,
        chosen: VoiceProcessing,
    ) -> (VoiceStage, watch::Sender<VoiceProcessing>) {
        let (switch, chosen) = watch::channel(chosen);
        let source = SourceSpec::for_microphone(source).unwrap();
        (VoiceStage::new(&source, chosen, FarEnd::default()), switch)
    }

    /// A block of noise that is the same in each run.
    fn block() -> AudioBlock {
        let mut state = 1_u32;
        let samples = std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_777_216.0 - 0.5
        });
        AudioBlock::mono(now(), samples)
    }

    #[test]
    fn tones_and_files_pass_bit_by_bit_unless_asked_and_microphones_only_if_all_is_off() {
        let always =
            VoiceProcessing { noise_suppression: Processing::Always, ..VoiceProcessing::default() };
        let music =
            |chosen: VoiceProcessing| VoiceProcessing { content: AudioContent::Music, ..chosen };
        for (source, chosen, passes) in [
            ("tone", VoiceProcessing::default(), true),
            ("file:a.wav", VoiceProcessing::default(), true),
            ("default", VoiceProcessing::default(), false),
            ("Headset", VoiceProcessing::default(), false),
            ("default", VoiceProcessing::OFF, true),
            ("default", music(VoiceProcessing::default()), true),
            ("default", music(always), false),
            ("tone", always, false),
        ] {
            let (mut stage, _switch) = stage(source, chosen);
            let block = block();
            let processed: Vec<_> = (0..5).map(|_| stage.process(&block)).collect();
            assert_eq!(processed.iter().all(|one| *one == block), passes, "{source} {chosen:?}");
        }
    }

    #[test]
    fn the_far_end_is_read_only_while_echo_is_cancelled() {
        let (mut stage, switch) = stage("default", VoiceProcessing::OFF);
        let is_read = |stage: &VoiceStage| {
            stage.far_end.push(&[0.5; BLOCK_SAMPLES], Duration::ZERO);
            let mut blocks = 0;
            if let Some(reader) = &stage.reader {
                reader.drain(|_| blocks += 1);
            }
            blocks == 1
        };
        stage.process(&block());
        assert!(!is_read(&stage));
        for (echo, is_on) in [(Processing::Microphones, true), (Processing::Off, false)] {
            switch.send_replace(VoiceProcessing { echo_cancellation: echo, ..Default::default() });
            stage.process(&block());
            assert_eq!(is_read(&stage), is_on);
        }
        switch.send_replace(VoiceProcessing::OFF);
        let block = block();
        assert_eq!(stage.process(&block), block);
    }

    #[test]
    fn the_capture_time_is_that_of_the_processed_sound() {
        let (mut stage, _switch) = stage("default", VoiceProcessing::default());
        let block = AudioBlock { time: MediaTime::from_micros(1_000_000), ..block() };
        let late = block.time.since(stage.process(&block).time);
        assert_eq!(late, Duration::from_micros(14_916));
    }
}
