//! Keeps from the library the SCTP packets that end it, or keep it busy (RFC 9260).
//!
//! * An error cause of an ABORT or ERROR chunk says how long it is, and the library (`rtc-sctp`
//!   0.21.1, `chunk/mod.rs`, `ErrorCause::unmarshal`) slices the chunk by that without a look at how
//!   much there is: it panics where a cause says that it goes on behind its chunk. It lacks
//!   `if usize::from(len) > buf.len() { return Err(Error::ErrErrorCauseTooSmall) }`.
//! * A FORWARD TSN chunk (RFC 3758) moves the last number that was received, and the library
//!   (`association/mod.rs`, `handle_forward_tsn`) counts up to it one by one: two thousand million
//!   steps and many seconds for a chunk of eight bytes. It should take the chunks out of its queue
//!   that are not beyond the new number, and set the number. Only messages that may be given up
//!   need it, and there are none here.
//! * The blocks of a SACK name what arrived behind a gap, and the library (`process_selective_ack`)
//!   looks up each number of each block, whatever was sent: millions for a packet whose blocks are
//!   all as long as can be and the same. It should stop at the last number that was sent.
//!
//! The packets are seen where they come out of DTLS (`crypto.rs`); one that would do harm is
//! dropped as if its seal were broken.

/// The common header's length (RFC 9260, section 3.1).
const HEADER: usize = 12;

/// A chunk's, and a cause's, header's length (sections 3.2 and 3.3.10).
const CHUNK_HEADER: usize = 4;

const DATA: u8 = 0;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const FORWARD_TSN: u8 = 192;

/// Numbers behind the first gap that a SACK may name: what is under way is bounded by what a chat
/// may leave unsent, and that is less.
const FARTHEST: u16 = 4096;

/// Whether the library can read the packet in no time, if only to refuse it.
///
/// It finds a chunk by the lengths of what it understood of those before, which a malformed one
/// may have differ from what the chunk says. Behind chunks for which that is not clear, nothing
/// may look like a chunk that does harm, wherever it is.
pub(super) fn is_harmless(packet: &[u8]) -> bool {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    while let Some(chunk) = chunk(rest) {
        if !is_harmless_chunk(chunk) {
            return false;
        }
        let next = rest.get(chunk.len().next_multiple_of(4)..).unwrap_or_default();
        if !is_as_long_as_it_says(chunk) {
            let mut places = (0..rest.len()).step_by(4);
            return places.all(|at| chunk_at(rest, at).is_none_or(is_harmless_chunk));
        }
        rest = next;
    }
    true
}

fn chunk_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    chunk(bytes.get(at..)?)
}

/// The chunk at the beginning, without padding; `None` if it is not whole, which the library sees.
fn chunk(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    bytes.get(..length).filter(|chunk| chunk.len() >= CHUNK_HEADER)
}

fn is_harmless_chunk(chunk: &[u8]) -> bool {
    match chunk[0] {
        ABORT | ERROR => has_whole_causes(chunk),
        SACK => has_small_blocks(chunk),
        FORWARD_TSN => false,
        _ => true,
    }
}

/// Whether the blocks of a SACK come in order, and not far behind the gap (section 3.3.4).
fn has_small_blocks(chunk: &[u8]) -> bool {
    let &[_, _, _, _, _, _, _, _, _, _, _, _, high, low, _, _, ref blocks @ ..] = chunk else {
        return true;
    };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let mut last = 0;
    blocks.chunks_exact(4).take(count).all(|block| {
        let start = u16::from_be_bytes([block[0], block[1]]);
        let end = u16::from_be_bytes([block[2], block[3]]);
        let is_next = start > last && end >= start && end <= FARTHEST;
        last = end;
        is_next
    })
}

/// Whether no error cause of the chunk claims to be longer than the chunk. The library reads them
/// one after another without their padding.
fn has_whole_causes(chunk: &[u8]) -> bool {
    let mut causes = &chunk[CHUNK_HEADER..];
    while let &[_, _, high, low, ..] = causes {
        let length = usize::from(u16::from_be_bytes([high, low]));
        // A shorter one is refused, and so is the rest.
        if length < CHUNK_HEADER {
            return true;
        }
        let Some(rest) = causes.get(length..) else { return false };
        causes = rest;
    }
    true
}

/// Whether what the library understands of the chunk is as long as the chunk.
fn is_as_long_as_it_says(chunk: &[u8]) -> bool {
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
    fn a_cause_that_is_longer_than_its_chunk_is_found_wherever_it_is() {
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
                // Chunks of which the library understands less than they hold.
                vec![chunk_of(COOKIE_ACK, &bad)],
                vec![chunk_of(SACK, &[[0; 12].to_vec(), bad.clone()].concat())],
                vec![chunk_of(130, &[[0; 8].to_vec(), bad].concat())],
            ] {
                assert!(!is_harmless(&packet(&chunks)), "{chunks:?}");
            }
        }
    }

    #[test]
    fn what_keeps_the_library_busy_is_found() {
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
    fn what_honest_ends_send_passes() {
        // Words that hold what a harmful chunk looks like.
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
