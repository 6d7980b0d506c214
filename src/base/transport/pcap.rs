//! The pcap format, as far as a dump of UDP datagrams needs it.
//!
//! Source: draft-ietf-opsawg-pcap; IPv4 is RFC 791, UDP RFC 768. The network is made up, so no
//! checksum but that of the IPv4 header is filled in (0 is "none" in UDP).

use std::time::Duration;

/// The header of a file whose packets start with an IP header (`LINKTYPE_RAW`), with timestamps in
/// microseconds.
pub(super) const FILE_HEADER: [u8; 24] = [
    0xd4, 0xc3, 0xb2, 0xa1, // Magic number, little endian.
    2, 0, 4, 0, // Version 2.4.
    0, 0, 0, 0, 0, 0, 0, 0, // Reserved.
    0xff, 0xff, 0, 0, // The longest packet.
    101, 0, 0, 0, // LINKTYPE_RAW.
];

const IP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;

/// The longest payload of a UDP datagram over IPv4.
const MAX_PAYLOAD: usize = 65_535 - IP_HEADER_BYTES - UDP_HEADER_BYTES;

/// An IPv4 address and a UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Endpoint {
    pub(super) address: [u8; 4],
    pub(super) port: u16,
}

/// Returns the record of a UDP datagram. `time` is the time since the UNIX epoch. A payload that no
/// datagram can carry is cut.
pub(super) fn record(time: Duration, from: Endpoint, to: Endpoint, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_PAYLOAD)];
    let udp_bytes = UDP_HEADER_BYTES + payload.len();
    let ip_bytes = IP_HEADER_BYTES + udp_bytes;
    let mut record = Vec::with_capacity(16 + ip_bytes);
    for field in [time.as_secs() as u32, time.subsec_micros(), ip_bytes as u32, ip_bytes as u32] {
        record.extend(field.to_le_bytes());
    }
    record.extend(ip_header(ip_bytes as u16, from, to));
    for field in [from.port, to.port, udp_bytes as u16, 0] {
        record.extend(field.to_be_bytes());
    }
    record.extend(payload);
    record
}

/// An IPv4 header for UDP.
fn ip_header(total_bytes: u16, from: Endpoint, to: Endpoint) -> [u8; IP_HEADER_BYTES] {
    let [high, low] = total_bytes.to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from.address);
    header[16..].copy_from_slice(&to.address);
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(sum as u16).wrapping_add((sum >> 16) as u16);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Endpoint = Endpoint { address: [10, 0, 0, 1], port: 20_001 };
    const TO: Endpoint = Endpoint { address: [10, 1, 255, 254], port: 40_001 };

    /// The words of a header, summed as its receiver does (RFC 1071).
    fn internet_sum(header: &[u8]) -> u32 {
        let words = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
        let sum: u32 = words.sum();
        (sum & 0xffff) + (sum >> 16)
    }

    #[test]
    fn a_record_is_a_datagram_with_its_time_its_lengths_and_a_valid_checksum() {
        let record = record(Duration::from_micros(3_000_007), FROM, TO, b"payload");
        assert_eq!(record[..16], [3, 0, 0, 0, 7, 0, 0, 0, 35, 0, 0, 0, 35, 0, 0, 0]);
        let (ip, udp) = record[16..].split_at(20);
        assert_eq!((ip[0], ip[9], &ip[2..4]), (0x45, 17, &[0, 35][..]));
        assert_eq!((&ip[12..16], &ip[16..]), (&FROM.address[..], &TO.address[..]));
        assert_eq!(internet_sum(ip), 0xffff);
        assert_eq!(udp[..8], [0x4e, 0x21, 0x9c, 0x41, 0, 15, 0, 0]);
        assert_eq!(udp[8..], *b"payload");
    }

    #[test]
    fn a_payload_that_is_too_long_is_cut() {
        let record = record(Duration::ZERO, FROM, TO, &vec![1; 70_000]);
        assert_eq!(record.len(), 16 + 65_535);
    }
}
