//! The payload format for redundant audio (RED, RFC 2198): earlier packets in front of the newest.
//!
//! ```text
//! |1| type 7 | offset 14 | length 10 |  per copy
//! |0| type 7 |                          the newest
//! copies, oldest first | newest
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use rtc::rtp_transceiver::rtp_sender::RTCRtpCodecParameters;

use crate::media::{AudioCopy, RedundantPayload};

/// The media type of the format.
pub(super) const RED_MIME_TYPE: &str = "audio/red";

/// Copies in one packet that are read. Programs send one or two.
const MAX_COPIES: usize = 8;

/// The first offset that its field has no room for, in samples: 341 ms.
const OFFSET_LIMIT: u64 = 1 << 14;

/// The first length that its field has no room for, in bytes.
const LENGTH_LIMIT: usize = 1 << 10;

/// The flag before each copy.
const HAS_NEXT: u8 = 0x80;

/// The payload type of the format among negotiated codecs.
pub(super) fn payload_type(codecs: &[RTCRtpCodecParameters]) -> Option<u8> {
    let is_red =
        |one: &&RTCRtpCodecParameters| one.rtp_codec.mime_type.eq_ignore_ascii_case(RED_MIME_TYPE);
    codecs.iter().find(is_red).map(|codec| codec.payload_type)
}

/// The local description with this format before Opus in each section that has it: libwebrtc sends
/// what stands first, so Chromium sends no redundant audio otherwise.
///
/// The fault: webrtc-rs 0.21.1 puts the codec of a transceiver's track first, whatever the order in
/// which codecs were registered.
pub(super) fn preferred(sdp: &str) -> String {
    let sections: Vec<_> = sdp.match_indices("\nm=").map(|(at, _)| at + 1).collect();
    let ends = sections.iter().copied().chain([sdp.len()]);
    let starts = [0].into_iter().chain(sections.iter().copied());
    starts.zip(ends).map(|(start, end)| preferred_in_section(&sdp[start..end])).collect()
}

fn preferred_in_section(section: &str) -> String {
    let red = section.lines().find_map(|line| {
        let (payload_type, codec) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
        codec.to_ascii_lowercase().starts_with("red/").then_some(payload_type)
    });
    let (Some(red), Some((media, rest))) = (red, section.split_once("\r\n")) else {
        return section.to_owned();
    };
    // `m=audio PORT PROTOCOL FORMAT...` (RFC 8866, section 5.14).
    let mut fields: Vec<_> = media.split(' ').collect();
    let is_red = |field: &&str| *field == red;
    if let Some(at) = fields.iter().skip(3).position(is_red) {
        fields[3..=3 + at].rotate_right(1);
    }
    format!("{}\r\n{rest}", fields.join(" "))
}

/// Packs the newest payload, which begins at `sample`, with copies of earlier ones, oldest first.
/// A copy that is too old or too long is left out. `payload_type` is that of all of them.
pub(super) fn pack(newest: &Bytes, sample: u64, copies: &[&AudioCopy], payload_type: u8) -> Bytes {
    let fits = |copy: &&&AudioCopy| {
        (1..OFFSET_LIMIT).contains(&sample.saturating_sub(copy.sample))
            && (1..LENGTH_LIMIT).contains(&copy.data.len())
    };
    let copies = || copies.iter().filter(fits);
    let length = copies().map(|copy| 4 + copy.data.len()).sum::<usize>() + 1 + newest.len();
    let mut packed = BytesMut::with_capacity(length);
    for copy in copies() {
        let offset = (sample - copy.sample) as u32;
        packed.put_u8(HAS_NEXT | payload_type);
        packed.put_uint(u64::from(offset << 10 | copy.data.len() as u32), 3);
    }
    packed.put_u8(payload_type & !HAS_NEXT);
    copies().for_each(|copy| packed.put_slice(&copy.data));
    packed.put_slice(newest);
    packed.freeze()
}

/// Splits a payload into the newest one and the copies of earlier ones, without copying bytes.
/// Returns `None` if it is malformed. Copies of another type are left out.
pub(super) fn split(payload: &Bytes) -> Option<(Bytes, Vec<RedundantPayload>)> {
    let (mut at, mut headers) = (0, vec![]);
    while payload.get(at)? & HAS_NEXT != 0 {
        let header = payload.get(at..at + 4)?;
        let rest = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        headers.push((header[0] & !HAS_NEXT, rest >> 10, (rest & 0x3ff) as usize));
        if headers.len() > MAX_COPIES {
            return None;
        }
        at += 4;
    }
    let payload_type = payload[at];
    at += 1;
    let mut copies = vec![];
    for (copy_type, offset, length) in headers {
        payload.get(at..at + length)?;
        if copy_type == payload_type && offset > 0 && length > 0 {
            copies.push(RedundantPayload { offset, payload: payload.slice(at..at + length) });
        }
        at += length;
    }
    Some((payload.slice(at..), copies))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy(sample: u64, data: &[u8]) -> AudioCopy {
        AudioCopy { sample, data: Bytes::copy_from_slice(data) }
    }

    #[test]
    fn a_packet_has_the_bytes_of_rfc_2198() {
        let (older, old) = (copy(1000, b"abc"), copy(2920, b"d"));
        let packed = pack(&Bytes::from_static(b"new"), 4840, &[&older, &old], 111);
        // Offsets 3840 and 1920, lengths 3 and 1.
        let expected =
            [&[0xef, 0x3c, 0x00, 0x03, 0xef, 0x1e, 0x00, 0x01, 0x6f][..], b"abc", b"d", b"new"];
        assert_eq!(packed, expected.concat());
        let (newest, copies) = split(&packed).unwrap();
        assert_eq!(newest, "new");
        let copies: Vec<_> =
            copies.iter().map(|copy| (copy.offset, copy.payload.as_ref())).collect();
        assert_eq!(copies, [(3840, b"abc".as_slice()), (1920, b"d".as_slice())]);
    }

    #[test]
    fn redundant_audio_stands_before_opus_in_a_description() {
        let sdp = "v=0\r\ns=-\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 63 0\r\na=rtpmap:111 opus/48000/2\r\n\
                   a=rtpmap:63 red/48000/2\r\nm=video 9 UDP/TLS/RTP/SAVPF 102 63\r\na=mid:1\r\n";
        let expected = sdp.replace("SAVPF 111 63 0", "SAVPF 63 111 0");
        assert_eq!(preferred(sdp), expected);
        assert_eq!(preferred(&expected), expected);
        let without = sdp.replace("a=rtpmap:63 red/48000/2\r\n", "");
        assert_eq!(preferred(&without), without);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let long = vec![0; LENGTH_LIMIT];
        let unfit = [copy(0, b"too old"), copy(20_000, b"now"), copy(19_000, &long), copy(1, b"")];
        let newest = Bytes::from_static(b"new");
        let packed = pack(&newest, 20_000, &unfit.iter().collect::<Vec<_>>(), 111);
        assert_eq!(split(&packed).unwrap(), (newest, vec![]));
    }

    #[test]
    fn malformed_packets_are_refused_and_foreign_copies_left_out() {
        let malformed: [&[u8]; 5] =
            [&[], &[0xef], &[0xef, 0x3c, 0, 3], &[0xef, 0x3c, 0, 3, 0x6f, 1, 2], &[0xef; 200]];
        for payload in malformed {
            assert!(split(&Bytes::from_static(payload)).is_none(), "{payload:?}");
        }
        let copies = |count: usize| -> Bytes {
            let headers = [0xef, 0x1e, 0, 1].repeat(count);
            headers.into_iter().chain([0x6f]).chain(vec![7; count]).chain([9]).collect()
        };
        assert_eq!(split(&copies(MAX_COPIES)).unwrap().1.len(), MAX_COPIES);
        assert!(split(&copies(MAX_COPIES + 1)).is_none(), "more than any program sends");
        let foreign = Bytes::from_static(&[0xe0, 0x3c, 0, 1, 0x6f, 9, 7]);
        assert_eq!(split(&foreign).unwrap(), (Bytes::from_static(&[7]), vec![]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_input_panics_or_gives_more_than_it_has(
            data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some((newest, copies)) = split(&Bytes::from(data.clone())) {
                let total: usize = copies.iter().map(|copy| copy.payload.len()).sum();
                prop_assert!(total + newest.len() < data.len());
                prop_assert!(copies.len() <= MAX_COPIES);
            }
        }
    }
}
