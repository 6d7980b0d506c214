//! What an Opus packet tells of itself without being decoded.

use super::AUDIO_RATE;

/// The first configuration that has no SILK layer, and so no FEC data (RFC 6716, section 3.1).
const CELT_ONLY: u8 = 16;

/// Samples of 20 ms, the longest frame that has voice activity and FEC flags of its own.
const FLAGGED_SAMPLES: usize = AUDIO_RATE as usize / 50;

/// Whether the packet has no SILK layer: then the decoder keeps other state than with one.
pub fn is_celt_only(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc >> 3 >= CELT_ONLY)
}

/// Whether the packet has two channels (RFC 6716, section 3.1: the bit `s`).
pub fn is_stereo(packet: &[u8]) -> bool {
    packet.first().is_some_and(|toc| toc & 4 != 0)
}

/// Whether the packet contains FEC data of the previous packet (RFC 6716, section 4.2.4: the LBRR
/// flag of the first frame, after the voice activity flag of each 20 ms).
pub fn has_fec(packet: &[u8]) -> bool {
    fec_samples(packet).is_some()
}

/// The length in samples of what the FEC data of a packet is of, which ends where the packet begins: one
/// frame. `None` without such data, see [`has_fec`].
pub fn fec_samples(packet: &[u8]) -> Option<usize> {
    if packet.first().is_none_or(|toc| toc >> 3 >= CELT_ONLY) {
        return None;
    }
    let parsed = opus::packet::parse(packet).ok()?;
    let span = opus::packet::get_samples_per_frame(packet, AUDIO_RATE).ok()?;
    let frames = (span / FLAGGED_SAMPLES).clamp(1, 3);
    let first = parsed.frames.first().and_then(|frame| frame.first());
    first.is_some_and(|flags| flags >> (7 - frames) & 1 == 1).then_some(span)
}
