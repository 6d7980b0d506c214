//! Echo cancellation, noise suppression and automatic gain control, by `sonora`: a port of
//! libwebrtc's audio processing module (AEC3, NS, AGC2).

use std::{collections::VecDeque, fmt, time::Duration};

use sonora::{
    AudioProcessing, Config, StreamConfig,
    config::{
        AdaptiveDigital, EchoCanceller, GainController2, HighPassFilter, NoiseSuppression,
        NoiseSuppressionLevel, TransparentModeType,
    },
};

use super::{EchoPresence, FarEndPace, Presence, SpeechDetector, level_dbfs};
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
/// As long as it does not know the room, a canceller takes every sound for an echo, for seconds. So
/// while the microphone does not hear the speaker, its sound bypasses the canceller, which goes on
/// learning ([`EchoPresence`]).
///
/// The calls take less than a millisecond. They allocate, so they do not belong on a real-time
/// thread.
pub struct VoiceProcessor {
    stages: Stages,
    echo: Option<EchoStage>,
    /// Noise suppression without echo cancellation.
    noise: Option<Apm>,
    /// The gain has an instance of its own, behind the choice between the two paths.
    gain: Option<Apm>,
}

/// Echo cancellation, and the path beside it.
struct EchoStage {
    /// Echo cancellation and, if wanted, noise suppression.
    canceller: Apm,
    presence: EchoPresence,
    /// The clock of the speaker, seen from that of the microphone.
    pace: FarEndPace,
    /// What is known of the room.
    known: Presence,
    /// The path beside the canceller, which has less delay.
    bypass: DelayLine,
    /// Detects the voice of the user while the speaker plays nothing.
    speech: SpeechDetector,
    /// Blocks since the speaker last played something.
    quiet_blocks: u32,
    /// Whether the user was speaking when the speaker began to play.
    spoke_first: bool,
    /// Whether the last block bypassed the canceller.
    is_bypassed: bool,
}

/// How strongly noise is suppressed. libwebrtc's users (Chromium) have this level as default.
const NOISE_LEVEL: NoiseSuppressionLevel = NoiseSuppressionLevel::High;

/// From this level on the speaker plays something, in dB relative to full scale.
const PLAYING_DBFS: f64 = -60.0;

/// Blocks of silence after which the speaker plays nothing: longer than the delay of an echo.
const QUIET_BLOCKS: u32 = 50;

impl VoiceProcessor {
    /// A processor with these stages, which knows nothing of the room.
    pub fn new(stages: Stages) -> Self {
        Self {
            stages,
            echo: stages.echo.then(|| EchoStage::new(stages)),
            noise: stages.noise.then(|| Apm::new(Stages { noise: true, ..Stages::default() })),
            gain: stages.gain.then(|| Apm::new(Stages { gain: true, ..Stages::default() })),
        }
    }

    /// Turns stages on and off. A change of the gain alone keeps what is known of the room.
    pub fn set_stages(&mut self, stages: Stages) {
        if stages == self.stages {
            return;
        }
        let mut new = Self::new(stages);
        if (stages.echo, stages.noise) == (self.stages.echo, self.stages.noise) {
            (new.echo, new.noise) = (self.echo.take(), self.noise.take());
        }
        *self = new;
    }

    /// Takes a block that the speaker will play.
    pub fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        self.echo.iter_mut().for_each(|echo| echo.play(block));
    }

    /// Processes a block of the microphone. `delay_ms` is the expected time from
    /// [`Self::play`] until the microphone hears the sound; it helps until the delay is found.
    pub fn process(&mut self, block: &mut [f32; BLOCK_SAMPLES], delay_ms: u32) {
        match &mut self.echo {
            Some(echo) => echo.process(block, delay_ms, self.noise.as_mut()),
            None => self.noise.iter_mut().for_each(|noise| noise.process(block)),
        }
        self.gain.iter_mut().for_each(|gain| gain.process(block));
    }
}

impl EchoStage {
    fn new(stages: Stages) -> Self {
        let beside = Stages { echo: false, ..stages };
        let earlier = stages.delay() - beside.delay();
        Self {
            canceller: Apm::new(Stages { gain: false, ..stages }),
            presence: EchoPresence::default(),
            pace: FarEndPace::default(),
            known: Presence::Unknown,
            bypass: DelayLine::new((earlier.as_micros() as usize * 48).div_ceil(1000)),
            speech: SpeechDetector::default(),
            quiet_blocks: QUIET_BLOCKS,
            spoke_first: false,
            is_bypassed: true,
        }
    }

    fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let is_playing = level_dbfs(block) > PLAYING_DBFS;
        self.quiet_blocks = if is_playing { 0 } else { self.quiet_blocks.saturating_add(1) };
        let Self { pace, presence, canceller, .. } = self;
        pace.push(block, |block| {
            presence.play(block);
            canceller.play(block);
        });
    }

    fn process(
        &mut self,
        block: &mut [f32; BLOCK_SAMPLES],
        delay_ms: u32,
        noise: Option<&mut Apm>,
    ) {
        self.known = self.presence.push(block);
        if let Some((delay, at)) = self.presence.take_delay() {
            self.pace.on_delay(delay, at);
        }
        let is_quiet = self.quiet_blocks >= QUIET_BLOCKS;
        if is_quiet {
            self.spoke_first = self.speech.push(block);
        }
        let mut beside = *block;
        if self.known != Presence::Present {
            noise.into_iter().for_each(|noise| noise.process(&mut beside));
        }
        self.bypass.process(&mut beside);
        self.canceller.set_delay_ms(delay_ms);
        self.canceller.process(block);
        let is_bypassed = match self.known {
            Presence::Present => false,
            Presence::Absent => true,
            Presence::Unknown => is_quiet || self.spoke_first,
        };
        let (from, to) = (share(self.is_bypassed), share(is_bypassed));
        for (n, (cancelled, beside)) in block.iter_mut().zip(&beside).enumerate() {
            let share = from + (to - from) * n as f32 / BLOCK_SAMPLES as f32;
            *cancelled += (beside - *cancelled) * share;
        }
        self.is_bypassed = is_bypassed;
    }
}

/// The share of the path beside the canceller.
fn share(is_bypassed: bool) -> f32 {
    f32::from(u8::from(is_bypassed))
}

/// Delays samples.
struct DelayLine(VecDeque<f32>);

impl DelayLine {
    fn new(samples: usize) -> Self {
        Self(std::iter::repeat_n(0.0, samples).collect())
    }

    fn process(&mut self, block: &mut [f32; BLOCK_SAMPLES]) {
        self.0.extend(block.iter());
        block.iter_mut().zip(self.0.drain(..BLOCK_SAMPLES)).for_each(|(to, from)| *to = from);
    }
}

/// An instance of the library.
struct Apm(AudioProcessing);

impl Apm {
    fn new(stages: Stages) -> Self {
        let stream = StreamConfig::new(AUDIO_RATE, 1);
        let builder = AudioProcessing::builder().config(config(stages));
        Self(builder.capture_config(stream).render_config(stream).build())
    }

    fn play(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        let mut unused = [0.0; BLOCK_SAMPLES];
        // Only an unsupported format is an error, and ours is constant.
        let _ = self.0.process_render_f32(&[block], &mut [&mut unused]);
    }

    fn set_delay_ms(&mut self, delay_ms: u32) {
        // A delay that is out of range is clamped.
        let _ = self.0.set_stream_delay_ms(delay_ms.min(MAX_DELAY_MS) as i32);
    }

    fn process(&mut self, block: &mut [f32; BLOCK_SAMPLES]) {
        let input = *block;
        let _ = self.0.process_capture_f32(&[&input], &mut [block]);
    }
}

/// The longest delay that can be given.
const MAX_DELAY_MS: u32 = 500;

impl fmt::Debug for VoiceProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
