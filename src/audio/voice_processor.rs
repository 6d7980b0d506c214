//! Echo cancellation, noise suppression and automatic gain control, by `sonora`: a port of
//! libwebrtc's audio processing module (AEC3, NS, AGC2).

use std::time::Duration;

use sonora::{
    AudioProcessing, Config, StreamConfig,
    config::{
        AdaptiveDigital, EchoCanceller, GainController2, HighPassFilter, NoiseSuppression,
        NoiseSuppressionLevel, TransparentModeType,
    },
};

use crate::media::{AUDIO_RATE, BLOCK_SAMPLES};

/// Which of its stages a [`VoiceProcessor`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stages {
    /// Echo cancellation.
    pub echo: bool,
    /// Noise suppression.
    pub noise: bool,
    /// Automatic gain control.
    pub gain: bool,
}

impl Stages {
    /// Whether no stage runs.
    pub const fn is_empty(self) -> bool {
        !(self.echo || self.noise || self.gain)
    }

    /// How late the processed sound is. The filters that split the band, echo cancellation and noise
    /// suppression each have a constant delay.
    pub const fn delay(self) -> Duration {
        let bands = if self.echo || self.noise { 916 } else { 0 };
        let echo = if self.echo { 8000 } else { 0 };
        let noise = if self.noise { 6000 } else { 0 };
        Duration::from_micros(bands + echo + noise)
    }
}

/// Processes the sound of a microphone in blocks of 10 ms, mono, 48 kHz.
///
/// Each block of the far end, which is what the speaker plays, has to be passed to
/// [`Self::play`] once and in order, before the microphone hears it. Only the number of
/// samples counts, not the time of the call: blocks may be passed in bursts. The delay between
/// both is found, and may be up to half a second. The clocks of speaker and microphone may differ.
///
/// Both calls take a fraction of a millisecond. They allocate, so neither belongs on a real-time
/// thread.
pub struct VoiceProcessor {
    processing: AudioProcessing,
    stages: Stages,
}

/// How strongly noise is suppressed. libwebrtc's users (Chromium) have this level as default.
const NOISE_LEVEL: NoiseSuppressionLevel = NoiseSuppressionLevel::High;

impl VoiceProcessor {
    /// A processor with these stages, which knows nothing of the room.
    pub fn new(stages: Stages) -> Self {
        let stream = StreamConfig::new(AUDIO_RATE, 1);
        let processing = AudioProcessing::builder()
            .config(config(stages))
            .capture_config(stream)
            .render_config(stream)
            .build();
        Self { processing, stages }
    }

    /// Turns stages on and off. Those that stay on keep what they have learnt.
    pub fn set_stages(&mut self, stages: Stages) {
        if stages != self.stages {
            self.processing.apply_config(config(stages));
            self.stages = stages;
        }
    }

    /// Takes a block that the speaker will play.
    pub fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let mut unused = [0.0; BLOCK_SAMPLES];
        // Only an unsupported format is an error, and ours is constant.
        let _ = self.processing.process_render_f32(&[block], &mut [&mut unused]);
    }

    /// Processes a block of the microphone. `delay_ms` is the expected time from
    /// [`Self::play`] until the microphone hears the sound; it helps until the delay is found.
    pub fn process(&mut self, block: &mut [f32; BLOCK_SAMPLES], delay_ms: u32) {
        let input = *block;
        // A delay that is out of range is clamped.
        let _ = self.processing.set_stream_delay_ms(delay_ms.min(MAX_DELAY_MS) as i32);
        let _ = self.processing.process_capture_f32(&[&input], &mut [block]);
    }
}

/// The longest delay that can be given.
const MAX_DELAY_MS: u32 = 500;

impl std::fmt::Debug for VoiceProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VoiceProcessor").field("stages", &self.stages).finish_non_exhaustive()
    }
}

fn config(stages: Stages) -> Config {
    Config {
        high_pass_filter: (stages.echo || stages.noise).then(HighPassFilter::default),
        echo_canceller: stages.echo.then(|| EchoCanceller {
            transparent_mode: TransparentModeType::Hmm,
            ..EchoCanceller::default()
        }),
        noise_suppression: stages
            .noise
            .then(|| NoiseSuppression { level: NOISE_LEVEL, ..NoiseSuppression::default() }),
        gain_controller2: stages.gain.then(|| GainController2 {
            adaptive_digital: Some(AdaptiveDigital::default()),
            ..GainController2::default()
        }),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests;
