//! The RTP payload format of H.264 (RFC 6184). An access unit is packetized once: every peer sends
//! the same payloads behind its own headers.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

/// The longest payload, in bytes.
/// With RTP header, extensions, the SRTP tag, UDP and IPv6 headers a packet stays below 1300 bytes.
/// That passes every path that carries IPv6 (RFC 8200 requires 1280), except for a few tunnels.
const MAX_PAYLOAD: usize = 1200;

/// The NAL unit type of a payload that holds several NAL units of one time (RFC 6184, section
/// 5.7.1).
const STAP_A: u8 = 24;

/// The NAL unit type of a payload that holds a fragment of a NAL unit (RFC 6184, section 5.8).
const FU_A: u8 = 28;

/// Bytes before a fragment: the FU indicator and the FU header.
const FU_HEADER: usize = 2;

/// The payloads of an Annex B access unit, in the order in which they are sent.
/// Small neighbours (SPS and PPS, small slices) share a payload; large NAL units are cut into equal
/// fragments. Access unit delimiters and filler data carry nothing and are left out (ITU-T H.264,
/// section 7.4.1). Bytes before the first start code are not a NAL unit and are left out too.
pub fn packetize_h264(access_unit: &Bytes) -> Vec<Bytes> {
    let mut payloads = vec![];
    let mut small: Vec<Range<usize>> = vec![];
    let mut size = 1;
    for unit in nal_units(access_unit) {
        let fits = size + 2 + unit.len() <= MAX_PAYLOAD;
        if !fits {
            flush(access_unit, &mut small, &mut payloads);
            size = 1;
        }
        if unit.len() > MAX_PAYLOAD {
            fragment(&access_unit[unit], &mut payloads);
        } else {
            size += 2 + unit.len();
            small.push(unit);
        }
    }
    flush(access_unit, &mut small, &mut payloads);
    payloads
}

/// Puts the collected small NAL units into one payload: a single one unchanged, several as an
/// aggregate.
fn flush(access_unit: &Bytes, small: &mut Vec<Range<usize>>, payloads: &mut Vec<Bytes>) {
    match small.as_slice() {
        [] => {}
        [only] => payloads.push(access_unit.slice(only.clone())),
        several => {
            let length: usize = 1 + several.iter().map(|unit| 2 + unit.len()).sum::<usize>();
            let mut aggregate = BytesMut::with_capacity(length);
            let reference_idc = several.iter().map(|unit| access_unit[unit.start] & 0x60).max();
            aggregate.put_u8(reference_idc.unwrap_or(0) | STAP_A);
            for unit in several {
                aggregate.put_u16(unit.len() as u16);
                aggregate.put_slice(&access_unit[unit.clone()]);
            }
            payloads.push(aggregate.freeze());
        }
    }
    small.clear();
}

/// Cuts one NAL unit into fragments of equal length, so that none is very small.
fn fragment(unit: &[u8], payloads: &mut Vec<Bytes>) {
    let (header, body) = (unit[0], &unit[1..]);
    let count = body.len().div_ceil(MAX_PAYLOAD - FU_HEADER);
    let length = body.len().div_ceil(count);
    let mut buffer = BytesMut::with_capacity(body.len() + count * FU_HEADER);
    for (index, chunk) in body.chunks(length).enumerate() {
        let start = if index == 0 { 0x80 } else { 0 };
        let end = if index + 1 == count { 0x40 } else { 0 };
        buffer.put_u8(header & 0xe0 | FU_A);
        buffer.put_u8(start | end | header & 0x1f);
        buffer.put_slice(chunk);
        payloads.push(buffer.split().freeze());
    }
}

/// The byte ranges of the NAL units, without start codes and trailing zeros (ITU-T H.264, B.1).
fn nal_units(stream: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = start_code(stream, 0);
    std::iter::from_fn(move || {
        let begin = next?;
        next = start_code(stream, begin);
        let mut end = next.map_or(stream.len(), |after| after - 3);
        while end > begin && stream[end - 1] == 0 {
            end -= 1;
        }
        Some(begin..end)
    })
    .filter(|unit| !unit.is_empty() && !matches!(stream[unit.start] & 0x1f, 9 | 12))
}

/// The position behind the next start code (00 00 01), searched from `from` on.
fn start_code(stream: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at + 3 <= stream.len() {
        match stream[at + 2] {
            0 => at += 1,
            1 if stream[at] == 0 && stream[at + 1] == 0 => return Some(at + 3),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtp::{codec::h264::H264Packet, packetizer::Depacketizer};

    use super::*;

    fn annex_b(units: &[Vec<u8>]) -> Bytes {
        let mut stream = vec![];
        for (index, unit) in units.iter().enumerate() {
            stream.extend_from_slice(if index % 2 == 0 { &[0, 0, 0, 1] } else { &[0, 0, 1] });
            stream.extend_from_slice(unit);
        }
        stream.into()
    }

    /// The access unit as the depacketizer of `rtc` reads it, which writes four-byte start codes.
    fn depacketize(payloads: &[Bytes]) -> Vec<u8> {
        let mut depacketizer = H264Packet::default();
        let parts = payloads.iter().map(|payload| depacketizer.depacketize(payload).unwrap());
        parts.flat_map(|part| part.to_vec()).collect()
    }

    fn joined(units: &[Vec<u8>]) -> Vec<u8> {
        units.iter().flat_map(|unit| [&[0, 0, 0, 1], unit.as_slice()].concat()).collect()
    }

    /// A NAL unit without a start code inside or a zero at the end.
    fn unit(kind: u8, length: usize) -> Vec<u8> {
        let mut unit = vec![0x60 | kind];
        unit.extend((1..length).map(|at| (at % 251) as u8 + 1));
        unit
    }

    #[test]
    fn sps_and_pps_share_a_payload_and_a_large_slice_is_cut_into_equal_parts() {
        let units = [unit(7, 20), unit(8, 6), unit(5, 3000)];
        let cut = packetize_h264(&annex_b(&units));
        assert_eq!(cut[0][0] & 0x1f, STAP_A);
        let lengths: Vec<_> = cut.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [1 + 2 + 20 + 2 + 6, 1002, 1002, 1001]);
        assert_eq!(depacketize(&cut), joined(&units));
    }

    #[test]
    fn a_lone_small_slice_is_sent_as_it_is_without_copying() {
        let units = [unit(1, 900)];
        let stream = annex_b(&units);
        let cut = packetize_h264(&stream);
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].as_ptr(), stream[4..].as_ptr());
        assert_eq!(cut[0], units[0]);
    }

    #[test]
    fn delimiters_filler_and_bytes_outside_of_units_are_left_out() {
        let stream =
            [annex_b(&[vec![9, 0xf0], unit(1, 10), vec![12, 0xff, 0x80]]).to_vec(), vec![0, 0, 0]]
                .concat();
        assert_eq!(packetize_h264(&stream.into()), [unit(1, 10)]);
        assert!(packetize_h264(&Bytes::from_static(&[1, 2, 3])).is_empty());
        assert!(packetize_h264(&Bytes::from_static(&[0, 0, 1])).is_empty());
        assert!(packetize_h264(&Bytes::new()).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        // The depacketizer rejects payloads of one or two bytes, although they are legal.
        #[test]
        fn every_nal_unit_arrives_complete_in_payloads_that_fit(
            shapes in proptest::collection::vec((1_u8..9, 3_usize..5000), 1..12),
        ) {
            let units: Vec<_> = shapes.iter().map(|(kind, length)| unit(*kind, *length)).collect();
            let cut = packetize_h264(&annex_b(&units));
            prop_assert!(cut.iter().all(|payload| (1..=MAX_PAYLOAD).contains(&payload.len())));
            prop_assert_eq!(depacketize(&cut), joined(&units));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(0_u8..4, 0..5000)) {
            packetize_h264(&bytes.into());
        }
    }
}
