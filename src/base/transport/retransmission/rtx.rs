//! The payload format of retransmissions (RFC 4588): a stream of its own, whose packets contain the
//! sequence number of the lost packet and its payload.
//!
//! A retransmission with the SSRC and the sequence number of the lost packet has the same SRTP
//! nonce. It must then be the same to the last bit: two different messages with one nonce of
//! AES-GCM reveal the authentication key (NIST SP 800-38D, appendix A). On a stream of its own each
//! retransmission has a nonce of its own.

use bytes::{BufMut, BytesMut};
use rtc::rtp;

/// The MIME type of retransmitted video (RFC 4588, section 8.1).
pub(in crate::transport) const RTX_MIME_TYPE: &str = "video/rtx";

/// The length of the sequence number before the payload (RFC 4588, section 4).
const SEQUENCE_LENGTH: usize = 2;

/// The packets of an RTX stream that this end sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct RtxStream {
    pub(super) ssrc: u32,
    payload_type: u8,
    /// The next packet's sequence number.
    sequence: u16,
}

impl RtxStream {
    /// A stream that begins with a sequence number in the lower half of the range, so that it does
    /// not wrap around before a receiver has learned it (RFC 3711, appendix A).
    pub(super) const fn new(ssrc: u32, payload_type: u8) -> Self {
        Self { ssrc, payload_type, sequence: (ssrc >> 8) as u16 & 0x7fff }
    }

    /// The same stream with another payload type.
    pub(super) const fn with_payload_type(self, payload_type: u8) -> Self {
        Self { payload_type, ..self }
    }

    /// The next packet of the stream, which contains `lost`. Header extensions belong to a
    /// transmission, so those of `lost` are left out.
    pub(super) fn encapsulate(&mut self, lost: &rtp::Packet) -> rtp::Packet {
        let header = rtp::Header {
            version: 2,
            marker: lost.header.marker,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: lost.header.timestamp,
            ssrc: self.ssrc,
            ..rtp::Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut payload = BytesMut::with_capacity(SEQUENCE_LENGTH + lost.payload.len());
        payload.put_u16(lost.header.sequence_number);
        payload.put_slice(&lost.payload);
        rtp::Packet { header, payload: payload.freeze() }
    }
}

/// The sequence number of the packet that a packet of an RTX stream repeats; `None` for padding without
/// any payload.
pub(super) fn repeated_number(packet: &rtp::Packet) -> Option<u16> {
    packet.payload.first_chunk::<SEQUENCE_LENGTH>().copied().map(u16::from_be_bytes)
}

/// Makes the lost packet of a received packet of an RTX stream. Returns `false`, and changes
/// nothing, if the packet contains none: senders probe the bandwidth with padding on this stream.
pub(super) fn restore(packet: &mut rtp::Packet, ssrc: u32, payload_type: u8) -> bool {
    let Some((sequence, _)) = packet.payload.split_first_chunk::<SEQUENCE_LENGTH>() else {
        return false;
    };
    packet.header.sequence_number = u16::from_be_bytes(*sequence);
    packet.header.ssrc = ssrc;
    packet.header.payload_type = payload_type;
    packet.header.padding = false;
    packet.payload = packet.payload.slice(SEQUENCE_LENGTH..);
    true
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_restored_packet_equals_the_lost_one_and_each_retransmission_has_its_own_number() {
        let header = rtp::Header {
            version: 2,
            marker: true,
            payload_type: 102,
            sequence_number: 65_535,
            timestamp: 9000,
            ssrc: 7,
            ..rtp::Header::default()
        };
        let lost = rtp::Packet { header, payload: Bytes::from_static(b"frame") };
        let mut stream = RtxStream::new(u32::MAX, 105);
        for number in [0x7fff, 0x8000] {
            let mut packet = stream.encapsulate(&lost);
            let rtp::Header { ssrc, payload_type, sequence_number, .. } = packet.header;
            assert_eq!((ssrc, payload_type, sequence_number), (u32::MAX, 105, number));
            assert_eq!(&packet.payload[..], b"\xff\xffframe");
            assert_eq!(repeated_number(&packet), Some(65_535));
            assert!(restore(&mut packet, 7, 102));
            assert_eq!(packet, lost);
        }
    }

    #[test]
    fn padding_restores_nothing() {
        for payload in [&b""[..], b"\0"] {
            let mut packet = rtp::Packet { payload: payload.into(), ..rtp::Packet::default() };
            assert!(!restore(&mut packet, 7, 102));
            assert_eq!(&packet.payload[..], payload);
        }
    }
}
