//! The Opus encoder: one packet for every two audio blocks.

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};

use super::EncodeError;
use crate::{
    media::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, EncodedAudio, RecentAudio},
    model::MediaTime,
};

/// Samples in a packet: 20 ms, which every receiver expects (RFC 7874, section 3).
const PACKET_SAMPLES: usize = 2 * BLOCK_SAMPLES;

/// Full-band speech is transparent at this rate, also with FEC for a packet loss of 10 % (RFC 7587,
/// section 3.1.1 recommends 28 to 40 kbit/s).
const RATE_BPS: i32 = 40_000;

/// The packet loss that in-band FEC prepares for, in percent. Opus spends bits on FEC above 5.
const EXPECTED_LOSS: i32 = 10;

/// The largest packet in bytes: Opus's recommendation for the size of the output buffer.
const MAX_PACKET: usize = 4000;

/// A block that starts this much later than the end of the previous one follows a gap.
///
/// Three blocks: more than the jitter of a capture thread, less than an audible gap.
const GAP_MICROS: u64 = 30_000;

/// Encodes blocks to Opus packets (RFC 6716): mono, 20 ms, with in-band FEC, without DTX.
///
/// Packets are numbered in samples. After lost blocks, which show as a gap in the capture times,
/// the number skips as many whole packets, so that RTP timestamps stay in step with time.
pub struct OpusEncoder {
    encoder: Encoder,
    /// The samples of the next packet so far.
    pending: [f32; PACKET_SAMPLES],
    pending_samples: usize,
    /// The capture time that the next block should have.
    expected_time: Option<MediaTime>,
    packet_time: MediaTime,
    sample: u64,
    /// Microseconds of earlier gaps that were not a multiple of a packet.
    gap_remainder_micros: i64,
    packet: Vec<u8>,
    recent: RecentAudio,
}

impl OpusEncoder {
    /// Creates an encoder. Its first sample has number 0.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub fn new() -> Result<Self, EncodeError> {
        Ok(Self {
            encoder: configured_encoder()?,
            pending: [0.0; PACKET_SAMPLES],
            pending_samples: 0,
            expected_time: None,
            packet_time: MediaTime::default(),
            sample: 0,
            gap_remainder_micros: 0,
            packet: vec![0; MAX_PACKET],
            recent: RecentAudio::default(),
        })
    }

    /// Replaces the encoder after a panic. The numbers of the packets continue.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub(super) fn restart(&mut self) -> Result<(), EncodeError> {
        self.encoder = configured_encoder()?;
        self.pending_samples = 0;
        Ok(())
    }

    /// Prepares in-band FEC for this packet loss in percent.
    pub fn set_expected_loss(&mut self, percent: u8) {
        if let Err(error) = self.encoder.set_packet_loss_perc(percent.into()) {
            tracing::warn!(%error, "expected packet loss not set");
        }
    }

    /// Takes a block. Returns a packet after every second block.
    pub fn encode(&mut self, block: &AudioBlock) -> Option<EncodedAudio> {
        self.skip_lost_packets(block.time);
        if self.pending_samples == 0 {
            self.packet_time = block.time;
        }
        self.pending[self.pending_samples..self.pending_samples + BLOCK_SAMPLES]
            .copy_from_slice(&block.samples);
        self.pending_samples += BLOCK_SAMPLES;
        if self.pending_samples < PACKET_SAMPLES {
            return None;
        }
        self.pending_samples = 0;
        let sample = self.sample;
        self.sample += PACKET_SAMPLES as u64;
        match self.encoder.encode_float(&self.pending, &mut self.packet) {
            Ok(bytes) => {
                let data = Bytes::copy_from_slice(&self.packet[..bytes]);
                Some(self.recent.next_packet(self.packet_time, sample, data))
            }
            Err(error) => {
                tracing::warn!(%error, "audio packet not encoded");
                None
            }
        }
    }

    /// Skips the numbers of the packets that are missing before a block with this capture time.
    fn skip_lost_packets(&mut self, time: MediaTime) {
        let block_micros = BLOCK_SAMPLES as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        let expected = self.expected_time.unwrap_or(time);
        self.expected_time = Some(MediaTime::from_micros(time.as_micros() + block_micros));
        let gap = time.as_micros().saturating_sub(expected.as_micros());
        if gap < GAP_MICROS {
            return;
        }
        // The half packet before the gap is dropped, too.
        let half = self.pending_samples as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        self.pending_samples = 0;
        let packet_micros = 2 * block_micros as i64;
        let lost = (gap + half) as i64 + self.gap_remainder_micros;
        let packets = (lost + packet_micros / 2) / packet_micros;
        self.gap_remainder_micros = lost - packets * packet_micros;
        self.sample += packets as u64 * PACKET_SAMPLES as u64;
    }
}

fn configured_encoder() -> Result<Encoder, opus::Error> {
    // Voip and Audio both use hybrid mode at this rate, which supports in-band FEC at full band.
    // Voip also emphasises speech, which colours music.
    let mut encoder = Encoder::new(AUDIO_RATE, Channels::Mono, Application::Audio)?;
    encoder.set_bitrate(Bitrate::Bits(RATE_BPS))?;
    encoder.set_inband_fec(true)?;
    encoder.set_packet_loss_perc(EXPECTED_LOSS)?;
    encoder.set_dtx(false)?;
    Ok(encoder)
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use opus::Decoder;

    use super::*;

    /// Block `number` of the signal that `signal` returns for each time in seconds.
    fn block(number: u64, signal: impl Fn(f32) -> f32) -> AudioBlock {
        let first = number as usize * BLOCK_SAMPLES;
        let samples = std::array::from_fn(|n| signal((first + n) as f32 / AUDIO_RATE as f32));
        AudioBlock { time: MediaTime::from_micros(number * 10_000), samples }
    }

    fn silence(number: u64) -> AudioBlock {
        block(number, |_| 0.0)
    }

    /// The peak amplitude of a tone in the samples.
    fn tone_amplitude(samples: &[f32], hz: f32) -> f32 {
        let parts = samples.iter().enumerate().map(|(n, sample)| {
            let angle = TAU * hz * n as f32 / AUDIO_RATE as f32;
            (sample * angle.cos(), sample * angle.sin())
        });
        let (real, imaginary) =
            parts.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        f32::hypot(real, imaginary) * 2.0 / samples.len() as f32
    }

    fn decoded(signal: impl Fn(f32) -> f32 + Copy) -> Vec<f32> {
        let mut encoder = OpusEncoder::new().unwrap();
        let mut decoder = Decoder::new(AUDIO_RATE, Channels::Mono).unwrap();
        let mut decoded = vec![];
        for packet in (0..200).filter_map(|n| encoder.encode(&block(n, signal))) {
            let mut part = [0.0; PACKET_SAMPLES];
            let samples = decoder.decode_float(&packet.data, &mut part, false).unwrap();
            assert_eq!(samples, PACKET_SAMPLES);
            decoded.extend(part);
        }
        // The first second is skipped, because the encoder needs time to settle.
        decoded.split_off(48_000)
    }

    #[test]
    fn a_tone_and_a_chord_keep_their_level() {
        for hz in [100.0, 440.0, 1000.0, 4000.0, 9000.0] {
            let output = decoded(|t| 0.1414 * (TAU * hz * t).sin());
            let level = 20.0 * (tone_amplitude(&output, hz) / 0.1414).log10();
            assert!(level.abs() < 1.5, "{hz} Hz: {level:.2} dB");
            let power = output.iter().map(|s| s * s).sum::<f32>() / output.len() as f32;
            let noise = (power - tone_amplitude(&output, hz).powi(2) / 2.0).max(1e-12) / power;
            assert!(10.0 * noise.log10() < -12.0, "{hz} Hz: {:.1} dB", 10.0 * noise.log10());
        }
        let notes = [261.6, 329.6, 392.0, 1046.5];
        let output = decoded(|t| notes.iter().map(|hz| 0.05 * (TAU * hz * t).sin()).sum());
        for hz in notes {
            let level = 20.0 * (tone_amplitude(&output, hz) / 0.05).log10();
            assert!(level.abs() < 2.0, "{hz} Hz: {level:.2} dB");
        }
    }

    #[test]
    fn a_lost_packet_is_recovered_by_fec_from_the_next() {
        let mut encoder = OpusEncoder::new().unwrap();
        // A voice that begins in packet 30, so that concealment has nothing to extrapolate from.
        let voice = |t: f32| {
            let hz = 140.0 + 40.0 * (TAU * 1.5 * t).sin();
            let gain = if t < 0.6 { 0.0 } else { 0.1 };
            (1..8).map(|k| (TAU * hz * k as f32 * t).sin() / k as f32).sum::<f32>() * gain
        };
        let packets: Vec<_> = (0..160).filter_map(|n| encoder.encode(&block(n, voice))).collect();
        let bytes: usize = packets[30..].iter().map(|packet| packet.data.len()).sum();
        assert!((4000..6500).contains(&bytes), "one second at 40 kbit/s: {bytes} bytes");
        let mut decoder = Decoder::new(AUDIO_RATE, Channels::Mono).unwrap();
        let mut part = [0.0; PACKET_SAMPLES];
        let power =
            |samples: &[f32]| samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32;
        for packet in &packets[..30] {
            decoder.decode_float(&packet.data, &mut part, false).unwrap();
        }
        // Packet 30 is lost.
        decoder.decode_float(&packets[31].data, &mut part, true).unwrap();
        assert!(power(&part) > 1e-4, "FEC contains the beginning of the voice: {}", power(&part));
    }

    #[test]
    fn every_second_block_gives_a_packet_with_the_time_and_number_of_its_first_sample() {
        let mut encoder = OpusEncoder::new().unwrap();
        let made: Vec<_> = (0..6).filter_map(|n| encoder.encode(&silence(n))).collect();
        let numbers: Vec<_> =
            made.iter().map(|packet| (packet.sample, packet.time.as_micros())).collect();
        assert_eq!(numbers, [(0, 0), (960, 20_000), (1920, 40_000)]);
        assert!(made.iter().all(|packet| packet.data.len() > 2), "silence is encoded, too");
    }

    #[test]
    fn lost_blocks_skip_whole_packets_and_the_numbers_do_not_drift_from_time() {
        let mut encoder = OpusEncoder::new().unwrap();
        let (mut n, mut last) = (0, (0, 0));
        for round in 0..200 {
            // Odd numbers of blocks before each gap, and gaps that are not whole packets.
            for _ in 0..5 + round % 3 {
                if let Some(packet) = encoder.encode(&silence(n)) {
                    assert_eq!(packet.sample % 960, 0);
                    assert!(packet.sample >= last.0 && packet.time.as_micros() >= last.1);
                    let true_sample = packet.time.as_micros() * 48 / 1000;
                    assert!(packet.sample.abs_diff(true_sample) <= 480, "block {n}");
                    last = (packet.sample, packet.time.as_micros());
                }
                n += 1;
            }
            n += 7;
        }
        assert!(last.0 > 0);
    }

    #[test]
    fn neither_a_late_thread_nor_time_that_goes_back_skips_a_packet() {
        let mut encoder = OpusEncoder::new().unwrap();
        let mut numbers = vec![];
        for n in 0..40_u64 {
            let mut block = silence(n);
            let micros = block.time.as_micros() + if n % 5 == 0 { 15_000 } else { 0 };
            block.time = MediaTime::from_micros(if n > 30 { micros - 200_000 } else { micros });
            numbers.extend(encoder.encode(&block).map(|packet| packet.sample));
        }
        assert_eq!(numbers, (0..20).map(|n| n * 960).collect::<Vec<_>>());
    }
}
