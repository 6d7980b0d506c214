//! The Opus encoder of one layer of audio.

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};

use super::{EncodeError, block_numbering::BlockNumbering};
use crate::{
    media::{AUDIO_RATE, AudioBlock, BLOCK_SAMPLES, EncodedAudio, RecentAudio, SILENT_BYTES},
    model::{AudioLayer, MediaTime},
};

/// The packet loss that in-band FEC prepares for at first, in percent. Above 5 Opus has the SILK mode for
/// it, also for what is not a voice.
const EXPECTED_LOSS: i32 = 10;

/// The largest packet in bytes: Opus's recommendation for the size of the output buffer.
const MAX_PACKET: usize = 4000;

/// Encodes blocks to Opus packets (RFC 6716) of one layer. With DTX there are no packets while nothing
/// is said, but one or two each 400 ms.
///
/// Packets are numbered in samples.
pub struct OpusEncoder {
    layer: AudioLayer,
    encoder: Encoder,
    numbering: BlockNumbering,
    /// The samples of the next packet so far, of two channels interleaved, and the number that the next
    /// block must have.
    pending: Vec<f32>,
    next_sample: u64,
    packet_time: MediaTime,
    packet: Vec<u8>,
    recent: RecentAudio,
    has_dtx: bool,
    /// Whether nothing is sent at present, and receivers know it.
    is_silent: bool,
}

impl OpusEncoder {
    /// Creates an encoder of the standard layer. Its first sample has number 0.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub fn new() -> Result<Self, EncodeError> {
        Self::of_layer(AudioLayer::Standard)
    }

    /// Creates an encoder of this layer. Its first sample has number 0.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub fn of_layer(layer: AudioLayer) -> Result<Self, EncodeError> {
        Ok(Self {
            layer,
            encoder: configured_encoder(layer)?,
            numbering: BlockNumbering::default(),
            pending: Vec::with_capacity(layer.packet_samples() as usize * channels(layer)),
            next_sample: 0,
            packet_time: MediaTime::default(),
            packet: vec![0; MAX_PACKET],
            recent: RecentAudio::default(),
            has_dtx: false,
            is_silent: false,
        })
    }

    /// Prepares in-band FEC for this packet loss in percent. Layers without FEC ignore it.
    pub fn set_expected_loss(&mut self, percent: u8) {
        if self.layer.has_fec()
            && let Err(error) = self.encoder.set_packet_loss_perc(percent.into())
        {
            tracing::warn!(%error, "expected packet loss not set");
        }
    }

    /// Sets whether silence is left out; at first it is not. Layers that have no DTX ignore it.
    pub fn set_dtx(&mut self, has_dtx: bool) {
        if has_dtx != self.has_dtx && self.layer.has_dtx() {
            self.has_dtx = has_dtx;
            if let Err(error) = self.encoder.set_dtx(has_dtx) {
                tracing::warn!(%error, "discontinuous transmission not set");
            }
        }
    }

    /// Tells again that nothing is sent, if so: to a receiver that comes now.
    pub(super) const fn repeat_silence(&mut self) {
        self.is_silent = false;
    }

    /// Takes a block, and returns a packet if it is complete. After lost blocks, which show as a gap in
    /// the capture times, numbers are skipped.
    pub fn encode(&mut self, block: &AudioBlock) -> Option<EncodedAudio> {
        let sample = self.numbering.number(block.time);
        self.encode_at(block, sample)
    }

    /// Takes the block whose first sample has that number, and returns a packet if it is complete.
    /// Packets begin at multiples of their length, so that those of all layers begin together. What is
    /// incomplete before a gap of the numbers is dropped.
    pub(super) fn encode_at(&mut self, block: &AudioBlock, sample: u64) -> Option<EncodedAudio> {
        if sample != self.next_sample {
            self.pending.clear();
        }
        self.next_sample = sample + BLOCK_SAMPLES as u64;
        let length = self.layer.packet_samples();
        if self.pending.is_empty() {
            if !sample.is_multiple_of(length) {
                return None;
            }
            self.packet_time = block.time;
        }
        self.append(block);
        if self.pending.len() < length as usize * channels(self.layer) {
            return None;
        }
        let encoded = self.encoder.encode_float(&self.pending, &mut self.packet);
        self.pending.clear();
        match encoded {
            // Nothing is said. The first such packet tells it to the receivers, as in libwebrtc.
            Ok(bytes) if bytes <= SILENT_BYTES && self.is_silent => {
                self.recent.forget();
                None
            }
            Ok(bytes) => {
                self.is_silent = bytes <= SILENT_BYTES;
                let data = Bytes::copy_from_slice(&self.packet[..bytes]);
                let first = self.next_sample - length;
                let packet = self.recent.next_packet(self.packet_time, first, data);
                Some(packet.of_layer(self.layer))
            }
            Err(error) => {
                tracing::warn!(%error, "audio packet not encoded");
                None
            }
        }
    }

    fn append(&mut self, block: &AudioBlock) {
        match (self.layer.is_stereo(), &block.side) {
            (false, _) => self.pending.extend_from_slice(&block.samples),
            (true, None) => self.pending.extend(block.samples.iter().flat_map(|mid| [*mid; 2])),
            (true, Some(side)) => {
                let frames = block.samples.iter().zip(side);
                self.pending.extend(frames.flat_map(|(mid, side)| [mid + side, mid - side]));
            }
        }
    }
}

const fn channels(layer: AudioLayer) -> usize {
    if layer.is_stereo() { 2 } else { 1 }
}

fn configured_encoder(layer: AudioLayer) -> Result<Encoder, opus::Error> {
    let channels = if layer.is_stereo() { Channels::Stereo } else { Channels::Mono };
    // Voip and Audio both use hybrid mode for a voice at the standard rate, which supports in-band FEC
    // at full band. Voip also emphasises speech, which colours music.
    let mut encoder = Encoder::new(AUDIO_RATE, channels, Application::Audio)?;
    encoder.set_bitrate(Bitrate::Bits(layer.bitrate().as_bps() as i32))?;
    encoder.set_inband_fec(layer.has_fec())?;
    encoder.set_packet_loss_perc(if layer.has_fec() { EXPECTED_LOSS } else { 0 })?;
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
        AudioBlock::mono(MediaTime::from_micros(number * 10_000), samples)
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
            let mut part = [0.0; 960];
            let samples = decoder.decode_float(&packet.data, &mut part, false).unwrap();
            assert_eq!(samples, 960);
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
        let mut part = [0.0; 960];
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
