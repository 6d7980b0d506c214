//! Recognises SCTP packets that make webrtc-rs panic or loop for long (RFC 9260).
//!
//! * An error cause of an ABORT or ERROR chunk states its own length. `rtc-sctp` 0.21.1
//!   (`chunk/mod.rs`, `ErrorCause::unmarshal`) slices the chunk by that length without a check, and
//!   panics if a cause claims to be longer than its chunk. It lacks `if usize::from(len) >
//!   buf.len() { return Err(Error::ErrErrorCauseTooSmall) }`.
//! * A FORWARD TSN chunk (RFC 3758) advances the last received TSN. `rtc-sctp`
//!   (`association/mod.rs`, `handle_forward_tsn`) counts up to the new TSN one by one: two thousand
//!   million steps and many seconds for a chunk of eight bytes. It should remove the chunks up to
//!   the new TSN from its queue, and set the TSN. Only messages with partial reliability need this
//!   chunk, and this program has none.
//! * The gap blocks of a SACK name the TSNs that arrived behind a gap. `rtc-sctp`
//!   (`process_selective_ack`) looks up each TSN of each block, whatever was sent: millions for a
//!   packet whose blocks are all identical and as long as possible. It should stop at the last TSN
//!   that was sent.
//!
//! No issue is known for any of them. Canary: for the first two.
//!
//! The packets are checked where they come out of DTLS (`crypto.rs`). A harmful one is dropped as
//! if its authentication had failed.

/// The length of the common header (RFC 9260, section 3.1).
const HEADER: usize = 12;

/// The length of the header of a chunk, and of an error cause (sections 3.2 and 3.3.10).
const CHUNK_HEADER: usize = 4;

const DATA: u8 = 0;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const FORWARD_TSN: u8 = 192;

/// The length of a FORWARD TSN chunk without streams (RFC 3758, section 3.2).
const FORWARD_TSN_MIN: usize = 8;

/// How far behind the cumulative TSN a gap block of a SACK may reach. The number of chunks in
/// flight is bounded by the send buffer of the data channel, and is smaller.
const MAX_GAP: u16 = 4096;

/// Whether webrtc-rs can process or reject the packet without a panic or a long loop.
///
/// `rtc-sctp` finds a chunk by the parsed lengths of the chunks before it. In a malformed chunk the
/// parsed length may differ from the length field. Behind a chunk where that is possible, no
/// position may hold bytes that look like a harmful chunk.
pub(super) fn is_harmless(packet: &[u8]) -> bool {
    let mut remaining = packet.get(HEADER..).unwrap_or_default();
    while let Some(chunk) = chunk(remaining) {
        if !is_harmless_chunk(chunk) {
            return false;
        }
        let next = remaining.get(chunk.len().next_multiple_of(4)..).unwrap_or_default();
        if !has_consistent_length(chunk) {
            let mut positions = (0..remaining.len()).step_by(4);
            return positions.all(|at| chunk_at(remaining, at).is_none_or(is_harmless_chunk));
        }
        remaining = next;
    }
    true
}

fn chunk_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    chunk(bytes.get(at..)?)
}

/// The chunk at the beginning, without padding; `None` if it is incomplete, which webrtc-rs detects
/// itself.
fn chunk(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    bytes.get(..length).filter(|chunk| chunk.len() >= CHUNK_HEADER)
}

fn is_harmless_chunk(chunk: &[u8]) -> bool {
    match chunk[0] {
        ABORT | ERROR => has_whole_causes(chunk),
        SACK => has_bounded_gap_blocks(chunk),
        // `rtc-sctp` rejects a shorter one. The parameter by which browsers say in INIT that they
        // support the chunk (RFC 3758, section 3.1) has the same number, and looks like one of four
        // bytes.
        FORWARD_TSN => chunk.len() < FORWARD_TSN_MIN,
        _ => true,
    }
}

/// Whether the gap blocks of a SACK are in order, and within [`MAX_GAP`] (section 3.3.4).
fn has_bounded_gap_blocks(chunk: &[u8]) -> bool {
    let &[_, _, _, _, _, _, _, _, _, _, _, _, high, low, _, _, ref blocks @ ..] = chunk else {
        return true;
    };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let mut last = 0;
    blocks.chunks_exact(4).take(count).all(|block| {
        let start = u16::from_be_bytes([block[0], block[1]]);
        let end = u16::from_be_bytes([block[2], block[3]]);
        let is_next = start > last && end >= start && end <= MAX_GAP;
        last = end;
        is_next
    })
}

/// Whether no error cause of the chunk claims to be longer than the chunk. `rtc-sctp` reads the
/// causes one after another without their padding.
fn has_whole_causes(chunk: &[u8]) -> bool {
    let mut causes = &chunk[CHUNK_HEADER..];
    while let &[_, _, high, low, ..] = causes {
        let length = usize::from(u16::from_be_bytes([high, low]));
        // `rtc-sctp` rejects a shorter cause, and stops there.
        if length < CHUNK_HEADER {
            return true;
        }
        let Some(remaining) = causes.get(length..) else { return false };
        causes = remaining;
    }
    true
}

/// Whether the part of the chunk that `rtc-sctp` parses is as long as its length field says.
fn has_consistent_length(chunk: &[u8]) -> bool {
    match (chunk[0], chunk) {
        (DATA | COOKIE_ECHO, _) => true,
        (COOKIE_ACK, _) => chunk.len() == CHUNK_HEADER,
        (SACK, &[_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d, ..]) => {
            let blocks = u16::from_be_bytes([a, b]) as usize + u16::from_be_bytes([c, d]) as usize;
            chunk.len() == 16 + 4 * blocks
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk_of(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = (CHUNK_HEADER + value.len()) as u16;
        let mut chunk = [&[kind, 0][..], &length.to_be_bytes(), value].concat();
        chunk.resize(chunk.len().next_multiple_of(4), 0);
        chunk
    }

    fn cause(length: u16) -> Vec<u8> {
        [&[0, 12][..], &length.to_be_bytes(), &[7; 4]].concat()
    }

    fn packet(chunks: &[Vec<u8>]) -> Vec<u8> {
        [vec![0; HEADER], chunks.concat()].concat()
    }

    fn sack(blocks: &[(u16, u16)]) -> Vec<u8> {
        let mut value = vec![0; 8];
        value.extend((blocks.len() as u32 * 0x1_0000).to_be_bytes());
        value.extend(
            blocks.iter().flat_map(|(start, end)| [*start, *end]).flat_map(u16::to_be_bytes),
        );
        chunk_of(SACK, &value)
    }

    #[test]
    fn a_cause_that_claims_to_be_longer_than_its_chunk_is_found_at_any_position() {
        for kind in [ABORT, ERROR] {
            let bad = chunk_of(kind, &cause(9));
            let second = chunk_of(kind, &[cause(8), cause(400)].concat());
            let data = chunk_of(DATA, &[6; 40]);
            for chunks in [
                vec![bad.clone()],
                vec![second],
                vec![data.clone(), bad.clone()],
                vec![sack(&[(2, 3)]), data, bad.clone()],
                vec![chunk_of(COOKIE_ACK, &[]), bad.clone()],
                // Chunks of which `rtc-sctp` parses less than they hold.
                vec![chunk_of(COOKIE_ACK, &bad)],
                vec![chunk_of(SACK, &[[0; 12].to_vec(), bad.clone()].concat())],
                vec![chunk_of(130, &[[0; 8].to_vec(), bad].concat())],
            ] {
                assert!(!is_harmless(&packet(&chunks)), "{chunks:?}");
            }
        }
    }

    #[test]
    fn packets_that_make_webrtc_rs_loop_are_found() {
        let forward = chunk_of(FORWARD_TSN, &[0x7f, 255, 255, 255]);
        let data = chunk_of(DATA, &[6; 40]);
        for chunks in [
            vec![forward.clone()],
            vec![data.clone(), forward.clone()],
            vec![chunk_of(130, &[0; 8]), forward],
            vec![sack(&[(1, u16::MAX)])],
            vec![sack(&[(1, 2000), (1, 2000)])],
            vec![sack(&[(5, 4), (1, 9)])],
            vec![data, sack(&[(2, 3), (3, 4)])],
        ] {
            assert!(!is_harmless(&packet(&chunks)), "{chunks:?}");
        }
    }

    #[test]
    fn a_browser_may_say_that_it_supports_what_is_not_used() {
        // As Chromium 156 sends it: zero checksum (RFC 9653), the supported extensions, and FORWARD
        // TSN.
        let parameters = [
            &[0x80, 0x01, 0, 8, 0, 0, 0, 1][..],
            &[0xc0, 0, 0, 4],
            &[0x80, 0x08, 0, 6, 0x82, 0xc0, 0, 0],
        ];
        let fixed = [[0x5e; 4], [0, 0x50, 0, 0], [0xff; 4], [0x3a; 4]].concat();
        for kind in [1, 2] {
            let init = chunk_of(kind, &[fixed.clone(), parameters.concat()].concat());
            assert!(is_harmless(&packet(&[init])), "{kind}");
        }
        assert!(!is_harmless(&packet(&[chunk_of(FORWARD_TSN, &[0; 4])])));
    }

    #[test]
    fn packets_of_honest_endpoints_pass() {
        // Application data that look like a harmful chunk.
        let data = chunk_of(DATA, &[[0; 12].to_vec(), chunk_of(ABORT, &cause(99))].concat());
        for chunks in [
            vec![],
            vec![data.clone(), data.clone()],
            vec![sack(&[]), data.clone()],
            vec![sack(&[(2, 2), (4, 9)]), data.clone()],
            vec![chunk_of(COOKIE_ECHO, &[9; 33]), data],
            vec![chunk_of(ABORT, &cause(8))],
            vec![chunk_of(ABORT, &[])],
            vec![chunk_of(ERROR, &[cause(8), cause(8)].concat())],
            vec![chunk_of(1, &[0; 30]), vec![0; 3]],
            vec![chunk_of(130, &[0; 20]), chunk_of(DATA, &[b'x'; 33])],
        ] {
            assert!(is_harmless(&packet(&chunks)), "{chunks:?}");
        }
        assert!(is_harmless(&[]) && is_harmless(&[0; 5]) && is_harmless(&packet(&[vec![6, 0, 0]])));
    }
}
