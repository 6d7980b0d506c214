//! A limit on the retransmissions that the remote peer can request.

use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};

/// Retransmissions that may be sent beyond one for each new packet: as many packets as two video
/// frames have.
const RETRANSMIT_BURST: u32 = 128;

/// Limits the packets that NACKs (RFC 4585, section 6.2.1) may request: one for each new packet,
/// and a burst. So a viewer that requests more retransmissions than packets are sent costs at most
/// twice as much as others.
///
/// The fault: the NACK responder of `rtc-interceptor` 0.21.1 answers every NACK at once, however
/// often it asks for the same packet. It should limit the rate, and wait for about a round trip
/// before it retransmits a packet again. No issue is known. Canary: yes.
pub(super) struct NackLimiter {
    /// How many packets may be retransmitted now.
    budget: u32,
}

impl Default for NackLimiter {
    fn default() -> Self {
        Self { budget: RETRANSMIT_BURST }
    }
}

impl NackLimiter {
    /// Returns the part of a NACK that fits into the budget, and spends it. `None` if nothing fits.
    pub(super) fn limit(&mut self, nack: &TransportLayerNack) -> Option<TransportLayerNack> {
        let lost = nack.nacks.iter().flat_map(|pair| pair.packet_list());
        let answered: Vec<u16> = lost.take(self.budget as usize).collect();
        self.budget -= answered.len() as u32;
        if answered.is_empty() {
            return None;
        }
        Some(TransportLayerNack { nacks: nack_pairs_from_sequence_numbers(&answered), ..*nack })
    }

    /// Adds one retransmission to the budget, for a new packet that is sent.
    pub(super) fn on_packet_sent(&mut self) {
        self.budget = (self.budget + 1).min(RETRANSMIT_BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(limiter: &mut NackLimiter) -> Vec<u16> {
        let nacks = nack_pairs_from_sequence_numbers(&(0..300).collect::<Vec<_>>());
        let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: 7, nacks };
        let Some(nack) = limiter.limit(&nack) else { return vec![] };
        assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 7));
        nack.nacks.iter().flat_map(|pair| pair.packet_list()).collect()
    }

    #[test]
    fn retransmissions_are_limited_to_a_burst_and_one_per_sent_packet() {
        let mut limiter = NackLimiter::default();
        let burst: Vec<_> = (0..RETRANSMIT_BURST as u16).collect();
        assert_eq!(answered(&mut limiter), burst);
        assert_eq!(answered(&mut limiter), [0; 0]);
        for _ in 0..10 {
            limiter.on_packet_sent();
        }
        assert_eq!(answered(&mut limiter).len(), 10);
        for _ in 0..1000 {
            limiter.on_packet_sent();
        }
        assert_eq!(answered(&mut limiter), burst, "the budget does not grow beyond the burst");
    }
}
