//! Receives one remote audio track: from RTP packets to blocks of samples, with concealment.

use std::time::Duration;

use super::{
    audio_receive_stats::AudioReceiveStats,
    concealment::{Cause, Concealment, ConcealmentCauses},
    jitter::{AudioJitterBuffer, Pull},
    opus_decoder::OpusDecoder,
    receive_stats::JitterBufferDelay,
};
use crate::{
    audio::{Fade, STRETCH_WINDOW, SampleQueue, is_quiet},
    media::{AUDIO_RATE, BLOCK_SAMPLES, RtpPacket, StereoBlock, fec_samples},
    model::MediaTime,
};

/// Reorders and decodes the packets of one audio stream to blocks of 10 ms, and conceals losses.
///
/// The mixer has one for each stream that is played. A consumer of an
/// [`AudioTrack`](super::AudioTrack) that needs samples has its own.
pub struct AudioReceiver {
    decoder: OpusDecoder,
    jitter: AudioJitterBuffer,
    /// Decoded samples that are not yet pulled.
    pending: SampleQueue,
    /// The length of the previous packet in samples.
    packet_samples: usize,
    state: State,
    /// Consecutive samples that were concealed.
    concealed_run: usize,
    fade: Fade,
    /// Whether the sender signals that it sends nothing.
    is_muted: bool,
    /// Whether the packet that was decoded last is silent.
    is_last_silent: bool,
    /// Whether the stream fades because its sender pauses, and not because packets are late.
    is_pausing: bool,
    drift: DriftDetector,
    concealment: Concealment,
    /// Samples that were played.
    total_samples: u64,
    jitter_delay: JitterBufferDelay,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing is played: before the first packet, and after the stream has stopped.
    Idle,
    /// Blocks are played.
    Playing,
}

/// Samples of the longest Opus packet: 120 ms (RFC 6716, section 2.1.4).
pub(super) const MAX_PACKET_SAMPLES: usize = 5760;

/// Samples of the usual packet: 20 ms.
pub(super) const TYPICAL_PACKET_SAMPLES: usize = 960;

/// Samples that are concealed at full gain. Longer extrapolation no longer resembles the signal.
pub(super) const CONCEAL_FULL_GAIN_SAMPLES: usize = AUDIO_RATE as usize * 80 / 1000;

/// Samples over which concealment then fades out.
pub(super) const CONCEAL_FADE_OUT_SAMPLES: usize = AUDIO_RATE as usize * 40 / 1000;

/// Samples over which audio fades out when its sender pauses.
const PAUSE_FADE_OUT_SAMPLES: usize = AUDIO_RATE as usize * 10 / 1000;

/// The peak below which a packet is silent: -74 dBFS, which Opus makes of digital silence.
const SILENT_PEAK: f32 = 2e-4;

/// Samples over which audio fades in after silence.
const FADE_IN_SAMPLES: usize = AUDIO_RATE as usize * 5 / 1000;

impl AudioReceiver {
    /// Creates a receiver for one audio stream.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub fn new() -> Result<Self, opus::Error> {
        Ok(Self {
            decoder: OpusDecoder::new()?,
            jitter: AudioJitterBuffer::new(),
            pending: SampleQueue::with_capacity(2 * MAX_PACKET_SAMPLES),
            packet_samples: TYPICAL_PACKET_SAMPLES,
            state: State::Idle,
            concealed_run: 0,
            fade: Fade::SILENT,
            is_muted: false,
            is_last_silent: false,
            is_pausing: false,
            drift: DriftDetector::default(),
            concealment: Concealment::default(),
            total_samples: 0,
            jitter_delay: JitterBufferDelay::default(),
        })
    }

    /// Adds a packet.
    pub fn push(&mut self, packet: &RtpPacket) {
        self.jitter.push(packet);
    }

    /// Returns the next 10 ms, to be played at about `now`; `None` while nothing is played.
    pub fn pull(&mut self, now: MediaTime) -> Option<StereoBlock> {
        self.jitter.fade_memory();
        if self.state == State::Idle {
            if !self.jitter.is_ready(now) {
                return None;
            }
            self.state = State::Playing;
            self.jitter.start();
            self.concealment.on_resume(self.jitter.lost());
        }
        self.jitter.catch_up(now);
        self.correct_drift(now);
        while self.pending.len() < BLOCK_SAMPLES {
            self.decode_next(now);
        }
        self.total_samples += BLOCK_SAMPLES as u64;
        let mut block = self.pending.take_block();
        let (gain, span) = if self.is_pausing {
            (0.0, PAUSE_FADE_OUT_SAMPLES)
        } else if self.concealed_run > CONCEAL_FULL_GAIN_SAMPLES {
            (0.0, CONCEAL_FADE_OUT_SAMPLES)
        } else {
            (1.0, FADE_IN_SAMPLES)
        };
        self.fade.apply_to_block(&mut block, gain, span);
        if self.fade.is_silent() && self.jitter.is_empty() {
            self.stop();
        }
        Some(block)
    }

    /// Sets whether the sender signals that it sends nothing: packets that do not come are then
    /// neither awaited nor concealed. Those that come are played.
    pub const fn set_muted(&mut self, is_muted: bool) {
        self.is_muted = is_muted;
    }

    /// Sets the least time that packets are held, for lip sync: at most 120 ms.
    pub fn set_min_delay(&mut self, delay: Duration) {
        self.jitter.set_floor(delay);
    }

    /// The statistics so far, with the level of the last second.
    pub(super) const fn stats(&self, level_dbfs: f64) -> AudioReceiveStats {
        AudioReceiveStats {
            packets: self.jitter.received(),
            lost: self.jitter.lost(),
            concealed_samples: self.concealment.samples(),
            total_samples: self.total_samples,
            jitter_delay: self.jitter_delay,
            level_dbfs,
        }
    }

    /// Packets received and lost, and samples of 48 kHz concealed and played.
    pub const fn counts(&self) -> (u64, u64, u64, u64) {
        let concealed = self.concealment.samples();
        (self.jitter.received(), self.jitter.lost(), concealed, self.total_samples)
    }

    /// Samples of 48 kHz concealed so far, by their cause.
    pub const fn concealment_causes(&self) -> ConcealmentCauses {
        self.concealment.causes()
    }

    /// The RTP timestamp of the sample that [`Self::pull`] returns first when it is called next; `None`
    /// while nothing is played.
    pub fn position(&self) -> Option<u32> {
        self.jitter.position(self.pending.len()).filter(|_| self.state == State::Playing)
    }

    /// Whether audio is being played.
    pub(super) fn is_playing(&self) -> bool {
        self.state == State::Playing
    }

    fn stop(&mut self) {
        self.state = State::Idle;
        self.pending.clear();
        self.jitter.stop();
        self.concealed_run = 0;
        (self.is_pausing, self.is_last_silent) = (false, false);
        self.drift = DriftDetector::default();
        self.concealment.on_stop(self.jitter.lost());
    }

    /// Decodes the next packet at `now`, or conceals it.
    fn decode_next(&mut self, now: MediaTime) {
        match self.jitter.pull() {
            Pull::Packet(payload) => {
                let samples = self.decoder.decode(&payload, false, MAX_PACKET_SAMPLES);
                self.jitter.advance(samples.unwrap_or(self.packet_samples));
                match samples {
                    Some(samples) => {
                        let (delay, target) =
                            (self.jitter.held_for(now), self.jitter.target_delay());
                        self.jitter_delay.add(samples as u64, delay, target);
                        self.packet_samples = samples;
                        self.concealed_run = 0;
                        self.is_pausing = false;
                        // Opus fades to another mode in the first half.
                        let (end, _) = self.decoder.output(samples / 2..samples);
                        self.is_last_silent = end.iter().all(|x| x.abs() < SILENT_PEAK);
                        self.play_output(0..samples);
                    }
                    None => self.conceal(self.packet_samples, Cause::Undecodable),
                }
            }
            Pull::Fec { next, samples } => {
                // A packet of 40 ms may consist of two frames: FEC is of the last 20 ms before it.
                let span = fec_samples(&next).unwrap_or(0);
                let before = samples.saturating_sub(span);
                if span > 0 && before > 0 {
                    self.conceal(before, Cause::NoFec);
                }
                let samples = if span > 0 { samples - before } else { samples };
                let recovered = (span > 0).then(|| self.decoder.decode(&next, true, span));
                match recovered.flatten() {
                    // The part of the lost packet that is already concealed is left out.
                    Some(decoded) => {
                        let from = decoded.saturating_sub(samples);
                        self.play_output(from..decoded);
                    }
                    None => {
                        self.jitter.on_made_up();
                        self.conceal(samples, Cause::NoFec);
                    }
                }
            }
            Pull::Conceal(samples) => self.conceal(samples, Cause::LongGap),
            Pull::Silence(samples) if !self.is_muted => {
                // Opus's concealment is comfort noise then, which does not fade.
                self.conceal(samples, Cause::Pause);
                self.concealed_run = 0;
                self.jitter.on_underrun(samples);
            }
            Pull::Silence(_) | Pull::Empty => {
                // The sender may pause: then nothing is missing.
                let pauses = self.is_muted || self.is_last_silent;
                self.is_pausing |= pauses;
                let cause = if pauses { Cause::Pause } else { Cause::Empty };
                self.conceal(BLOCK_SAMPLES, cause);
                self.jitter.on_underrun(BLOCK_SAMPLES);
            }
        }
    }

    /// Plays a part of what was decoded last.
    fn play_output(&mut self, part: std::ops::Range<usize>) {
        let (mid, side) = self.decoder.output(part);
        self.pending.extend(mid, side);
    }

    /// Conceals this many samples with Opus's packet loss concealment.
    fn conceal(&mut self, samples: usize, cause: Cause) {
        // Opus conceals only multiples of its shortest frame.
        let span = samples.next_multiple_of(MIN_FRAME_SAMPLES).min(MAX_PACKET_SAMPLES);
        if self.concealed_run < CONCEAL_FULL_GAIN_SAMPLES + CONCEAL_FADE_OUT_SAMPLES {
            self.decoder.conceal(span);
        } else {
            self.decoder.silence(span);
        }
        let samples = samples.min(span);
        self.play_output(0..samples);
        self.concealed_run += samples;
        self.concealment.add(samples as u64, cause);
    }

    /// Shortens or lengthens the audio if the delay stays above or below its target; in a pause it
    /// is shortened at once.
    fn correct_drift(&mut self, now: MediaTime) {
        let Some(excess) = self.jitter.excess_delay(now, self.pending.len()) else { return };
        let due = self.drift.record(excess);
        if due.is_none() && excess <= DriftDetector::MAX_EXCESS {
            return;
        }
        while self.pending.len() < STRETCH_WINDOW
            && !self.jitter.is_empty()
            && self.concealed_run == 0
        {
            self.decode_next(now);
        }
        let (correction, least) = match due {
            Some(due) => due,
            None if is_quiet(self.pending.mid()) => (Correction::Shorten, DriftDetector::CLEAN),
            None => return,
        };
        let shift = match correction {
            Correction::Shorten => self.pending.shorten(least),
            Correction::Lengthen => self.pending.lengthen(least),
        };
        if shift == 0 {
            // Too few samples are decoded, or the cut would be heard. The next block retries.
            return;
        }
        self.drift = DriftDetector::default();
        tracing::trace!(?correction, shift, "clock drift corrected");
    }
}

/// Samples of the shortest Opus frame: 2.5 ms.
const MIN_FRAME_SAMPLES: usize = 120;

/// Detects a lasting deviation of the delay from its target and ignores short ones.
#[derive(Debug, Default)]
struct DriftDetector {
    /// The minimum and maximum excess delay in µs since the window began.
    range: Option<(i64, i64)>,
    blocks: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Correction {
    Shorten,
    Lengthen,
}

impl DriftDetector {
    /// The number of blocks that a deviation must last: half a second.
    const MIN_BLOCKS: u32 = 50;

    /// The number of blocks for a deviation of more than [`Self::FAR`].
    const MIN_BLOCKS_FAR: u32 = 10;

    /// A longer delay than the target is tolerated up to this excess, µs. A correction moves it by
    /// 5 to 15 ms.
    const MAX_EXCESS: i64 = 15_000;

    /// A shorter delay than the target is tolerated up to this deficit, µs. The target has no
    /// reserve: a packet is needed up to one block before its first sample is played.
    const MAX_DEFICIT: i64 = 2_000;

    /// Beyond this deviation, µs, the delay is more disturbing than frequent corrections.
    const FAR: i64 = 20_000;

    /// The similarity of a cut that is not heard.
    const CLEAN: f32 = 0.8;

    /// How many times as long as the deviation must last a cut that is not heard is waited for: 1 s, or
    /// 0.2 s if the deviation is far.
    const MAX_WAIT: u32 = 2;

    /// Records the excess delay of a block, µs. Returns the correction to make, and how similar the
    /// audio must be at its cut. Returns it again for each block until the detector is reset.
    fn record(&mut self, excess: i64) -> Option<(Correction, f32)> {
        let (min, max) = self.range.unwrap_or((excess, excess));
        let (min, max) = (min.min(excess), max.max(excess));
        self.range = Some((min, max));
        self.blocks += 1;
        let is_far = min > Self::FAR || max < -Self::FAR;
        let min_blocks = if is_far { Self::MIN_BLOCKS_FAR } else { Self::MIN_BLOCKS };
        if self.blocks < min_blocks {
            return None;
        }
        let may_wait = self.blocks < min_blocks * (1 + Self::MAX_WAIT);
        let least = if may_wait { Self::CLEAN } else { -1.0 };
        if min > Self::MAX_EXCESS {
            Some((Correction::Shorten, least))
        } else if max < -Self::MAX_DEFICIT {
            Some((Correction::Lengthen, least))
        } else {
            *self = Self::default();
            None
        }
    }
}

#[cfg(test)]
mod tests;
