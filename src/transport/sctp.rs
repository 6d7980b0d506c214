//! Keeps from the library the SCTP packets that end it (RFC 9260).
//!
//! An error cause of an ABORT or ERROR chunk says how long it is, and the library
//! (`rtc-sctp` 0.21.1, `chunk/mod.rs`, `ErrorCause::unmarshal`) slices the chunk by that without a
//! look at how much there is: `buf.slice(4..4 + value_length)` panics where the cause says that it
//! goes on beyond its chunk. One packet then ends the driver of the connection. What it lacks is
//! `if (len as usize) > buf.len() { return Err(ErrErrorCauseTooSmall) }` before that line.
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

/// Whether the library can read the packet, if only to refuse it.
///
/// It finds a chunk by the lengths of what it understood of those before, which a malformed one
/// may have differ from what the chunk says. Behind chunks for which that is not clear, nothing
/// may look like a chunk that does harm, wherever it is.
pub(super) fn is_harmless(packet: &[u8]) -> bool {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    while let Some(chunk) = chunk(rest) {
        if !has_whole_causes(chunk) {
            return false;
        }
        let next = rest.get(chunk.len().next_multiple_of(4)..).unwrap_or_default();
        if !is_as_long_as_it_says(chunk) {
            let mut places = (0..rest.len()).step_by(4);
            return places.all(|at| chunk_at(rest, at).is_none_or(has_whole_causes));
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

/// Whether no error cause of the chunk claims to be longer than the chunk. The library reads them
/// one after another without their padding.
fn has_whole_causes(chunk: &[u8]) -> bool {
    if !matches!(chunk[0], ABORT | ERROR) {
        return true;
    }
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

    fn sack(blocks: u16, bytes: usize) -> Vec<u8> {
        let mut value = vec![0; 8];
        value.extend(blocks.to_be_bytes());
        value.resize(12 + bytes, 0);
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
                vec![sack(1, 4), data, bad.clone()],
                vec![chunk_of(COOKIE_ACK, &[]), bad.clone()],
                // Chunks of which the library understands less than they hold.
                vec![chunk_of(COOKIE_ACK, &bad)],
                vec![sack(0, 16), bad.clone()],
                vec![chunk_of(SACK, &[[0; 12].to_vec(), bad.clone()].concat())],
                vec![chunk_of(130, &[[0; 8].to_vec(), bad].concat())],
            ] {
                assert!(!is_harmless(&packet(&chunks)), "{chunks:?}");
            }
        }
    }

    #[test]
    fn what_honest_ends_send_passes() {
        // Words that hold what a harmful chunk looks like.
        let data = chunk_of(DATA, &[[0; 12].to_vec(), chunk_of(ABORT, &cause(99))].concat());
        for chunks in [
            vec![],
            vec![data.clone(), data.clone()],
            vec![sack(0, 0), data.clone()],
            vec![sack(2, 8), data.clone()],
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
