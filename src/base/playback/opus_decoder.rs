//! Decodes the Opus packets of one stream to one channel or two.

use bytes::Bytes;

use super::audio_receiver::MAX_PACKET_SAMPLES;
use crate::media::{AUDIO_RATE, is_stereo};

/// Decodes Opus packets (RFC 6716). It has one channel until the first packet with two, as two cost half
/// as much again for a voice, and two from then on: the state of the decoder is that of what it decodes.
pub(super) struct OpusDecoder {
    decoder: opus::Decoder,
    is_stereo: bool,
    /// The newest packet, from which a decoder of two channels learns what came before.
    newest: Bytes,
    mid: Box<[f32; MAX_PACKET_SAMPLES]>,
    /// What was decoded last, of two channels: interleaved, and then the side alone.
    interleaved: Vec<f32>,
    side: Vec<f32>,
}

impl OpusDecoder {
    /// A decoder of one channel.
    pub(super) fn new() -> Result<Self, opus::Error> {
        Ok(Self {
            decoder: opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono)?,
            is_stereo: false,
            newest: Bytes::new(),
            mid: Box::new([0.0; MAX_PACKET_SAMPLES]),
            interleaved: vec![],
            side: vec![],
        })
    }

    /// Decodes the packet, or with `fec` its FEC data for the `span` samples before it. Returns the
    /// number of samples of each channel in the output.
    pub(super) fn decode(&mut self, payload: &Bytes, fec: bool, span: usize) -> Option<usize> {
        if is_stereo(payload) && !self.is_stereo {
            self.add_channel();
        }
        if !fec {
            self.newest = payload.clone();
        }
        match self.decode_to_output(payload, fec, span) {
            Ok(samples) if samples > 0 => Some(samples),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "audio packet not decoded");
                None
            }
        }
    }

    /// Makes up so many samples with Opus's packet loss concealment.
    pub(super) fn conceal(&mut self, samples: usize) {
        self.silence(samples);
        if let Err(error) = self.decode_to_output(&[], false, samples) {
            tracing::debug!(%error, "audio gap not concealed");
        }
    }

    /// Fills so many samples of the output with silence.
    pub(super) fn silence(&mut self, samples: usize) {
        self.mid[..samples].fill(0.0);
        self.side.clear();
        self.side.resize(if self.is_stereo { samples } else { 0 }, 0.0);
    }

    /// A part of the output: the mean of both channels, and of two channels half of what the left one
    /// has more than the right one.
    pub(super) fn output(&self, part: std::ops::Range<usize>) -> (&[f32], Option<&[f32]>) {
        let side = self.is_stereo.then(|| &self.side[part.clone()]);
        (&self.mid[part], side)
    }

    fn decode_to_output(
        &mut self,
        payload: &[u8],
        fec: bool,
        span: usize,
    ) -> Result<usize, opus::Error> {
        if !self.is_stereo {
            return self.decoder.decode_float(payload, &mut self.mid[..span], fec);
        }
        self.interleaved.resize(2 * span, 0.0);
        let samples = self.decoder.decode_float(payload, &mut self.interleaved, fec)?;
        self.side.clear();
        let frames = self.interleaved.as_chunks::<2>().0.iter().take(samples);
        for (mid, [left, right]) in self.mid.iter_mut().zip(frames) {
            *mid = f32::midpoint(*left, *right);
            self.side.push((left - right) / 2.0);
        }
        Ok(samples)
    }

    /// Replaces the decoder by one with two channels, which goes on behind the newest packet.
    fn add_channel(&mut self) {
        match opus::Decoder::new(AUDIO_RATE, opus::Channels::Stereo) {
            Ok(decoder) => (self.decoder, self.is_stereo) = (decoder, true),
            Err(error) => return tracing::warn!(%error, "two channels of audio are played as one"),
        }
        let newest = std::mem::take(&mut self.newest);
        if !newest.is_empty() {
            self.decode_to_output(&newest, false, MAX_PACKET_SAMPLES).ok();
        }
    }
}
