//! Receives one remote audio track: from RTP packets to blocks of samples, with concealment.

use std::collections::VecDeque;

use super::{
    audio_receive_stats::AudioReceiveStats,
    jitter::{AudioJitterBuffer, Pull},
    receive_stats::JitterBufferDelay,
};
use crate::{
    audio::{Fade, STRETCH_WINDOW, lengthen, shorten},
    media::{AUDIO_RATE, BLOCK_SAMPLES, RtpPacket},
    model::MediaTime,
};

/// Reorders and decodes the packets of one audio stream to blocks of 10 ms, and conceals losses.
///
/// The mixer has one for each stream that is played. A consumer of an
/// [`AudioTrack`](super::AudioTrack) that needs samples has its own.
pub struct AudioReceiver {
    decoder: opus::Decoder,
    jitter: AudioJitterBuffer,
    /// Decoded samples that are not yet pulled.
    pending: VecDeque<f32>,
    /// The output buffer of the decoder.
    scratch: Box<[f32; MAX_PACKET_SAMPLES]>,
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
const MAX_PACKET_SAMPLES: usize = 5760;

/// Samples of the usual packet: 20 ms.
const TYPICAL_PACKET_SAMPLES: usize = 960;

/// Samples that are concealed at full gain. Longer extrapolation no longer resembles the signal.
const CONCEAL_FULL_GAIN_SAMPLES: usize = AUDIO_RATE as usize * 80 / 1000;

/// Samples over which concealment then fades out.
const CONCEAL_FADE_OUT_SAMPLES: usize = AUDIO_RATE as usize * 40 / 1000;

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
            decoder: opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono)?,
            jitter: AudioJitterBuffer::new(),
            pending: VecDeque::with_capacity(2 * MAX_PACKET_SAMPLES),
            scratch: Box::new([0.0; MAX_PACKET_SAMPLES]),
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
    pub fn pull(&mut self, now: MediaTime) -> Option<[f32; BLOCK_SAMPLES]> {
        self.jitter.decay_late_peak();
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
        let mut block = [0.0; BLOCK_SAMPLES];
        block.iter_mut().zip(self.pending.drain(..BLOCK_SAMPLES)).for_each(|(to, from)| *to = from);
        if self.is_pausing {
            self.fade.apply(&mut block, 0.0, PAUSE_FADE_OUT_SAMPLES);
        } else if self.concealed_run > CONCEAL_FULL_GAIN_SAMPLES {
            self.fade.apply(&mut block, 0.0, CONCEAL_FADE_OUT_SAMPLES);
        } else {
            self.fade.apply(&mut block, 1.0, FADE_IN_SAMPLES);
        }
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

    /// The statistics so far, with the level of the last second.
    pub(super) const fn stats(&self, level_dbfs: f64) -> AudioReceiveStats {
        AudioReceiveStats {
            packets: self.jitter.received(),
            lost: self.jitter.lost(),
            concealed_samples: self.concealment.samples,
            total_samples: self.total_samples,
            jitter_delay: self.jitter_delay,
            level_dbfs,
        }
    }

    /// Packets received and lost, and samples of 48 kHz concealed and played.
    pub const fn counts(&self) -> (u64, u64, u64, u64) {
        (self.jitter.received(), self.jitter.lost(), self.concealment.samples, self.total_samples)
    }

    /// Whether audio is being played.
    pub(super) fn is_playing(&self) -> bool {
        self.state == State::Playing
    }

    fn stop(&mut self) {
        self.state = State::Idle;
        self.pending.clear();
        self.concealed_run = 0;
        (self.is_pausing, self.is_last_silent) = (false, false);
        self.drift = DriftDetector::default();
        self.concealment.on_stop(self.jitter.lost());
    }

    /// Decodes the next packet at `now`, or conceals it.
    fn decode_next(&mut self, now: MediaTime) {
        match self.jitter.pull() {
            Pull::Packet(payload) => {
                let samples = self.decode(&payload, false, MAX_PACKET_SAMPLES);
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
                        let end = &self.scratch[samples / 2..samples];
                        self.is_last_silent = end.iter().all(|x| x.abs() < SILENT_PEAK);
                        self.pending.extend(&self.scratch[..samples]);
                    }
                    None => self.conceal(self.packet_samples),
                }
            }
            Pull::Fec { next, samples } => {
                let span = samples
                    .next_multiple_of(MIN_FRAME_SAMPLES)
                    .max(self.packet_samples)
                    .min(MAX_PACKET_SAMPLES);
                let recovered = has_fec(&next).then(|| self.decode(&next, true, span));
                match recovered.flatten() {
                    // The part of the lost packet that is already concealed is left out.
                    Some(decoded) => {
                        let from = decoded.saturating_sub(samples);
                        self.pending.extend(&self.scratch[from..decoded]);
                    }
                    None => self.conceal(samples),
                }
            }
            Pull::Conceal(samples) => self.conceal(samples),
            Pull::Empty => {
                let concealed = self.concealment.samples;
                self.conceal(BLOCK_SAMPLES);
                if self.is_muted || self.is_last_silent {
                    // The sender pauses: nothing is missing.
                    self.is_pausing = true;
                    self.concealment.samples = concealed;
                }
                self.jitter.on_underrun(BLOCK_SAMPLES);
            }
        }
    }

    /// Decodes the packet, or with `fec` its FEC data for the `span` samples before it. Returns the
    /// number of samples in the output buffer.
    fn decode(&mut self, payload: &[u8], fec: bool, span: usize) -> Option<usize> {
        match self.decoder.decode_float(payload, &mut self.scratch[..span], fec) {
            Ok(samples) if samples > 0 => Some(samples),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "audio packet not decoded");
                None
            }
        }
    }

    /// Conceals this many samples with Opus's packet loss concealment.
    fn conceal(&mut self, samples: usize) {
        // Opus conceals only multiples of its shortest frame.
        let span = samples.next_multiple_of(MIN_FRAME_SAMPLES).min(MAX_PACKET_SAMPLES);
        self.scratch[..span].fill(0.0);
        if self.concealed_run < CONCEAL_FULL_GAIN_SAMPLES + CONCEAL_FADE_OUT_SAMPLES
            && let Err(error) = self.decoder.decode_float(&[], &mut self.scratch[..span], false)
        {
            tracing::debug!(%error, "audio gap not concealed");
        }
        let samples = samples.min(span);
        self.pending.extend(&self.scratch[..samples]);
        self.concealed_run += samples;
        self.concealment.samples += samples as u64;
    }

    /// Shortens or lengthens the audio if the delay stays above or below its target.
    fn correct_drift(&mut self, now: MediaTime) {
        let Some(excess) = self.jitter.excess_delay(now, self.pending.len()) else { return };
        let Some(correction) = self.drift.record(excess) else { return };
        while self.pending.len() < STRETCH_WINDOW
            && !self.jitter.is_empty()
            && self.concealed_run == 0
        {
            self.decode_next(now);
        }
        let shift = match correction {
            Correction::Shorten => shorten(&mut self.pending),
            Correction::Lengthen => lengthen(&mut self.pending),
        };
        if shift == 0 {
            // Too few samples are decoded. The next block retries.
            return;
        }
        self.drift = DriftDetector::default();
        tracing::trace!(?correction, shift, "clock drift corrected");
    }
}

/// Samples of the shortest Opus frame: 2.5 ms.
const MIN_FRAME_SAMPLES: usize = 120;

/// Whether the packet contains FEC data of the previous packet (RFC 6716, section 4.2.4: the LBRR
/// flag of the first frame, after the voice activity flag of each 20 ms).
fn has_fec(packet: &[u8]) -> bool {
    const CELT_ONLY: u8 = 16;
    if packet.first().is_none_or(|toc| toc >> 3 >= CELT_ONLY) {
        return false;
    }
    let (Ok(parsed), Ok(span)) =
        (opus::packet::parse(packet), opus::packet::get_samples_per_frame(packet, AUDIO_RATE))
    else {
        return false;
    };
    let frames = (span / TYPICAL_PACKET_SAMPLES).clamp(1, 3);
    let first = parsed.frames.first().and_then(|frame| frame.first());
    first.is_some_and(|flags| flags >> (7 - frames) & 1 == 1)
}

/// Counts concealed samples. A pause of the sender is not counted. The sequence numbers distinguish
/// it from a loss, but only when the stream continues.
#[derive(Debug, Default)]
struct Concealment {
    samples: u64,
    lost_at_stop: u64,
}

impl Concealment {
    fn on_stop(&mut self, lost: u64) {
        self.lost_at_stop = lost;
    }

    fn on_resume(&mut self, lost: u64) {
        // The first of the lost packets were concealed, and counted, before the stop.
        let concealed =
            (CONCEAL_FULL_GAIN_SAMPLES + CONCEAL_FADE_OUT_SAMPLES) / TYPICAL_PACKET_SAMPLES;
        let silent = lost.saturating_sub(self.lost_at_stop).saturating_sub(concealed as u64);
        if self.samples > 0 {
            self.samples += silent * TYPICAL_PACKET_SAMPLES as u64;
        }
    }
}

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
    const FAR: i64 = 60_000;

    /// Records the excess delay of a block, µs. Returns the correction to make. Returns it again
    /// for each block until the detector is reset.
    fn record(&mut self, excess: i64) -> Option<Correction> {
        let (min, max) = self.range.unwrap_or((excess, excess));
        let (min, max) = (min.min(excess), max.max(excess));
        self.range = Some((min, max));
        self.blocks += 1;
        let is_far = min > Self::FAR || max < -Self::FAR;
        let min_blocks = if is_far { Self::MIN_BLOCKS_FAR } else { Self::MIN_BLOCKS };
        if self.blocks < min_blocks {
            return None;
        }
        if min > Self::MAX_EXCESS {
            Some(Correction::Shorten)
        } else if max < -Self::MAX_DEFICIT {
            Some(Correction::Lengthen)
        } else {
            *self = Self::default();
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        audio::{History, level_dbfs, tone_hz},
        media::EncodedAudio,
        model::AudioStats,
        playback::testing::{ToneEncoder, at, packet},
    };

    /// A receiver, and the audio that it has played.
    struct TestPlayout {
        decoder: AudioReceiver,
        played: Vec<f32>,
        blocks: u64,
    }

    impl TestPlayout {
        fn new() -> Self {
            Self { decoder: AudioReceiver::new().unwrap(), played: vec![], blocks: 0 }
        }

        /// Plays this many blocks. `arrivals` are the packets in order of arrival.
        fn play(&mut self, blocks: u64, arrivals: &mut Arrivals) {
            for _ in 0..blocks {
                let now = at(1000 + self.blocks * 10);
                self.blocks += 1;
                while let Some(packet) = arrivals.next_if(|packet| packet.arrival <= now) {
                    self.decoder.push(&packet);
                }
                let block = self.decoder.pull(now);
                self.played.extend(block.unwrap_or([0.0; BLOCK_SAMPLES]));
            }
        }

        /// The statistics, with the level and the tone of the last second.
        fn stats(&self) -> AudioStats {
            let mut history = History::new();
            for block in self.played.as_chunks::<BLOCK_SAMPLES>().0 {
                history.push(block);
            }
            let samples = history.samples();
            let (level_dbfs, tone_hz) = (level_dbfs(&samples), tone_hz(&samples));
            AudioStats { level_dbfs, tone_hz, ..self.decoder.stats(level_dbfs).stats() }
        }
    }

    type Arrivals = std::iter::Peekable<std::vec::IntoIter<RtpPacket>>;

    /// The packets of a tone. Each arrives `late` milliseconds after it was sent; `None` if it is
    /// lost.
    fn tone_packets(
        mut encoder: ToneEncoder,
        count: u64,
        late: impl Fn(u64) -> Option<u64>,
    ) -> Arrivals {
        let mut packets: Vec<_> = (0..count)
            .filter_map(|n| {
                let payload = encoder.next_packet();
                let arrival = at(1000 + n * 20 + late(n)?);
                Some(packet(n as u16, (n * 960) as u32, false, payload, arrival))
            })
            .collect();
        packets.sort_by_key(|packet| packet.arrival);
        packets.into_iter().peekable()
    }

    /// The level of the quietest 5 ms relative to the level of the whole, in dB.
    fn deepest_gap(samples: &[f32]) -> f64 {
        let quietest = samples.chunks_exact(240).map(level_dbfs).fold(f64::MAX, f64::min);
        quietest - level_dbfs(samples)
    }

    /// The largest step from one sample to the next.
    fn max_step(samples: &[f32]) -> f32 {
        samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn only_packets_with_fec_data_are_used_for_fec() {
        let count =
            |mut encoder: ToneEncoder| (0..50).filter(|_| has_fec(&encoder.next_packet())).count();
        assert!(count(ToneEncoder::with_fec(440.0, 0.5)) > 40);
        assert_eq!(count(ToneEncoder::speech(440.0, 0.5)), 0, "a mode that supports FEC");
        assert_eq!(count(ToneEncoder::without_fec(440.0, 0.5)), 0, "a mode without FEC");
        assert!(!has_fec(&[]) && !has_fec(&[0x48]));
    }

    #[test]
    fn a_tone_without_losses_is_played_unchanged() {
        let mut playout = TestPlayout::new();
        playout
            .play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, |_| Some(0)));
        let stats = playout.stats();
        assert_eq!((stats.packets, stats.lost, stats.concealed_ms), (150, 0, 0));
        assert!((stats.level_dbfs - -9.03).abs() < 0.5, "{stats:?}");
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 1.0, "{stats:?}");
        let start = playout.played.iter().position(|sample| *sample != 0.0).unwrap();
        assert!(start <= 960 + 480, "audible after {start} samples");
        assert!(deepest_gap(&playout.played[4800..]) > -3.0);
    }

    #[test]
    fn fec_recovers_a_single_loss_from_the_next_packet() {
        let lost = |n| (n % 10 != 7).then_some(0);
        let mut playout = TestPlayout::new();
        playout.play(300, &mut tone_packets(ToneEncoder::with_fec(440.0, 0.5), 200, lost));
        let stats = playout.stats();
        assert_eq!((stats.lost, stats.concealed_ms), (15, 0), "nothing was concealed");
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        let gap = deepest_gap(&playout.played[9600..]);
        assert!(gap > -6.0, "a gap of {gap} dB");
    }

    #[test]
    fn a_loss_without_fec_is_concealed_and_counted() {
        let lost = |n| (n % 20 != 7).then_some(0);
        let mut playout = TestPlayout::new();
        playout.play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, lost));
        let stats = playout.stats();
        assert_eq!((stats.lost, stats.concealed_ms), (8, 160));
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        let gap = deepest_gap(&playout.played[9600..]);
        assert!(gap > -12.0, "a gap of {gap} dB");
    }

    #[test]
    fn a_stream_that_stops_fades_out_and_fades_in_when_it_continues() {
        let mut playout = TestPlayout::new();
        let lost = |n| (!(50..100).contains(&n)).then_some(0);
        playout.play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, lost));
        let level =
            |ms: std::ops::Range<usize>| level_dbfs(&playout.played[ms.start * 48..ms.end * 48]);
        assert!(level(900..1000) > -10.0);
        assert!(level(1160..2000) <= -119.0, "silent: {}", level(1160..2000));
        assert!(level(2050..3000) > -10.0, "back: {}", level(2050..3000));
        let step = max_step(&playout.played);
        assert!(step < 0.1, "a click of {step}");
        assert_eq!(playout.stats().lost, 50);
        let concealed = playout.stats().concealed_ms;
        assert!((980..=1020).contains(&concealed), "{concealed}");
    }

    #[test]
    fn a_pause_of_the_sender_does_not_count_as_concealment() {
        let mut playout = TestPlayout::new();
        let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
        let packets: Vec<_> = (0..100_u64)
            .map(|n| {
                // Sequence numbers continue after two seconds, as after a mute.
                let time = if n < 50 { n } else { n + 100 };
                let stamp = (time * 960) as u32;
                packet(n as u16, stamp, false, encoder.next_packet(), at(1000 + time * 20))
            })
            .collect();
        playout.play(390, &mut packets.into_iter().peekable());
        let stats = playout.stats();
        assert_eq!(stats.lost, 0);
        assert!(stats.concealed_ms <= 130, "{stats:?}");
        assert!(stats.level_dbfs > -14.0, "{stats:?}");
    }

    /// Plays a second of a tone that ends, and returns how long it is heard after its end, in ms, and
    /// the milliseconds that were concealed.
    fn heard_after_the_end(silent_packets: u64, is_muted: bool) -> (u64, u64) {
        let mut encoder = ToneEncoder::with_fec(440.0, 0.5);
        let mut packets: Vec<_> = (0..50_u64)
            .map(|n| {
                let (payload, arrival) = (encoder.next_packet(), at(1000 + n * 20));
                packet(n as u16, (n * 960) as u32, false, payload, arrival)
            })
            .collect();
        let audio = |sample| EncodedAudio { time: at(0), sample, data: Bytes::new() };
        let mut last = audio(49 * 960);
        for n in 50..50 + silent_packets {
            last = last.silence_after();
            let (stamp, payload) = (last.sample as u32, last.data.to_vec());
            packets.push(packet(n as u16, stamp, false, payload, at(1000 + n * 20)));
        }
        let mut playout = TestPlayout::new();
        let mut arrivals = packets.into_iter().peekable();
        playout.play(100, &mut arrivals);
        playout.decoder.set_muted(is_muted);
        playout.play(40, &mut arrivals);
        let last = playout.played.chunks(48).rposition(|ms| level_dbfs(ms) > -60.0);
        // The last packet with a tone covers the 20 ms before second 1.0, and arrives at 0.98.
        let end = 980 + 20;
        let steps = max_step(&playout.played[4800..]);
        assert!(steps < 0.1, "{silent_packets} {is_muted}: a click of {steps}");
        (last.unwrap() as u64 - end, playout.stats().concealed_ms)
    }

    #[test]
    fn a_mute_is_heard_at_once_and_is_no_loss() {
        for (silent_packets, is_muted) in [(3, false), (3, true), (1, false), (0, true)] {
            let (heard, concealed) = heard_after_the_end(silent_packets, is_muted);
            let what = format!("{silent_packets} packets, {is_muted}: {heard} ms");
            assert!(heard <= 45 && concealed == 0, "{what}, {concealed} ms concealed");
        }
        let (heard, concealed) = heard_after_the_end(0, false);
        assert!(heard > 60 && concealed >= 100, "a loss is concealed: {heard} {concealed}");
    }

    #[test]
    fn jitter_is_compensated_after_a_short_time() {
        let mut playout = TestPlayout::new();
        let late = |n: u64| Some(n * 7919 % 83);
        let mut arrivals = tone_packets(ToneEncoder::without_fec(440.0, 0.5), 1500, late);
        playout.play(1000, &mut arrivals);
        let before = playout.stats().concealed_ms;
        playout.play(2010, &mut arrivals);
        let stats = playout.stats();
        assert_eq!(stats.lost, 0);
        assert!(
            stats.concealed_ms - before <= 200,
            "1 % of 20 s: {} ms",
            stats.concealed_ms - before
        );
        assert!(playout.delay() <= 130, "{} ms", playout.delay());
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
    }

    #[test]
    fn the_drift_of_the_senders_clock_is_corrected_without_a_gap() {
        for ppm in [-300_i64, 300] {
            let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
            let packets: Vec<_> = (0..10_000_u64)
                .map(|n| {
                    let micros =
                        (1_000_000 + n * 20_000).saturating_add_signed(n as i64 * ppm / 50);
                    let arrival = MediaTime::from_micros(micros);
                    packet(n as u16, (n * 960) as u32, false, encoder.next_packet(), arrival)
                })
                .collect();
            let mut playout = TestPlayout::new();
            playout.play(19_900, &mut packets.into_iter().peekable());
            let stats = playout.stats();
            // 200 seconds at 300 ppm are 60 ms: three times the target delay.
            assert!(playout.delay() <= 50, "{ppm}: {} ms", playout.delay());
            assert!(stats.concealed_ms == 0, "{ppm}: {stats:?}");
            let gap = deepest_gap(&playout.played[48_000..]);
            assert!(gap > -3.0, "{ppm}: a gap of {gap} dB");
            let step = max_step(&playout.played[48_000..]);
            assert!(step < 0.04, "{ppm}: a click of {step}; the tone's own steps are 0.029");
        }
    }

    impl TestPlayout {
        /// The delay of the next sample in milliseconds, relative to the fastest packet.
        fn delay(&self) -> i64 {
            let now = at(1000 + self.blocks * 10);
            let excess = self.decoder.jitter.excess_delay(now, self.decoder.pending.len()).unwrap();
            excess / 1000 + self.decoder.jitter.target_delay().as_millis() as i64
        }
    }

    #[test]
    fn audio_after_malformed_packets_is_played() {
        let mut seed = 7_u32;
        let mut next = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        let mut playout = TestPlayout::new();
        let mut malformed: Vec<_> = (0..2000_u64)
            .map(|n| {
                let payload: Vec<_> = (0..next() % 300).map(|_| next() as u8).collect();
                packet(n as u16, next() % 100_000, next() % 2 == 0, payload, at(1000 + n * 3))
            })
            .collect();
        malformed.sort_by_key(|packet| packet.arrival);
        playout.play(700, &mut malformed.into_iter().peekable());
        assert!(playout.decoder.pending.len() < 4 * MAX_PACKET_SAMPLES);
        let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
        let packets: Vec<_> = (0..200_u64)
            .map(|n| {
                let stamp = 4_000_000_000_u64 + n * 960;
                packet(
                    2000 + n as u16,
                    stamp as u32,
                    false,
                    encoder.next_packet(),
                    at(8000 + n * 20),
                )
            })
            .collect();
        playout.play(400, &mut packets.into_iter().peekable());
        let stats = playout.stats();
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        assert!((stats.level_dbfs - -9.03).abs() < 1.0, "{stats:?}");
    }
}
