//! Bounds the streams that the library keeps a state for (RFC 3711, section 3.2.3).
//!
//! It makes one for each SSRC that a packet names, before it checks whether the packet is genuine,
//! and never forgets one: whoever can send from the address of one who is connected could fill the
//! memory. The header is in the clear, so packets of ever new streams are dropped here.
//!
//! Streams that a description names always pass, and so do those of which something genuine came.
//! For all others there are few places; who takes them all with forged packets keeps out a stream
//! that nobody announced, and only as long as it goes on: every few seconds there is another place.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::pace::Pace;

/// Streams of RTP, and as many of RTCP, that pass at once though nobody announced them. A browser
/// has two for each section, and some for its reports.
const STREAMS: usize = 32;

/// The time between two more, on average.
const ANOTHER: Duration = Duration::from_secs(10);

/// Streams of one connection's descriptions that are noted.
const NAMED: usize = 64;

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Ssrcs(Mutex<Streams>);

#[derive(Debug)]
struct Streams {
    named: Vec<u32>,
    rtp: Places,
    rtcp: Places,
}

/// The streams that pass, oldest first.
#[derive(Debug)]
struct Places {
    taken: Vec<Place>,
    pace: Pace,
}

#[derive(Debug)]
struct Place {
    ssrc: u32,
    is_genuine: bool,
}

impl Ssrcs {
    /// None is known yet. Needs a tokio runtime.
    pub(super) fn new() -> Self {
        let places = || {
            let pace = Pace::new(ANOTHER, STREAMS as u32, Instant::now());
            Places { taken: vec![], pace }
        };
        Self(Mutex::new(Streams { named: vec![], rtp: places(), rtcp: places() }))
    }

    /// Notes the streams that a description names, beyond those of earlier ones.
    pub(super) fn name(&self, ssrcs: impl Iterator<Item = u32>) {
        let mut streams = self.streams();
        for ssrc in ssrcs {
            if streams.named.len() < NAMED && !streams.named.contains(&ssrc) {
                streams.named.push(ssrc);
            }
        }
    }

    /// Notes that a packet of that stream was genuine.
    pub(super) fn is_genuine(&self, ssrc: u32, is_rtcp: bool) {
        let mut streams = self.streams();
        let places = if is_rtcp { &mut streams.rtcp } else { &mut streams.rtp };
        places.taken.iter_mut().filter(|place| place.ssrc == ssrc).for_each(|place| {
            place.is_genuine = true;
        });
    }

    /// Whether a datagram may go on to the library.
    pub(super) fn lets_in(&self, datagram: &[u8], now: Instant) -> bool {
        let Some((ssrc, is_rtcp)) = sender(datagram) else { return true };
        let mut streams = self.streams();
        if streams.named.contains(&ssrc) {
            return true;
        }
        if is_rtcp { streams.rtcp.lets_in(ssrc, now) } else { streams.rtp.lets_in(ssrc, now) }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn lets_in(&mut self, ssrc: u32, now: Instant) -> bool {
        if self.taken.iter().any(|place| place.ssrc == ssrc) {
            return true;
        }
        if !self.pace.has_room(1, now) {
            return false;
        }
        if self.taken.len() == STREAMS {
            let oldest = self.taken.iter().position(|place| !place.is_genuine);
            let Some(oldest) = oldest else { return false };
            self.taken.remove(oldest);
        }
        self.pace.take(1, now);
        self.taken.push(Place { ssrc, is_genuine: false });
        true
    }
}

/// The stream that sends a datagram, and whether it is RTCP; `None` if it is neither or too short
/// (RFC 3550, sections 5.1 and 6.4; RFC 5761, section 4).
fn sender(datagram: &[u8]) -> Option<(u32, bool)> {
    let &[128..=191, kind, ..] = datagram else { return None };
    let is_rtcp = matches!(kind, 192..=223);
    let at = if is_rtcp { 4 } else { 8 };
    let ssrc = datagram.get(at..at + 4)?.try_into().ok()?;
    Some((u32::from_be_bytes(ssrc), is_rtcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(ssrc: u32) -> Vec<u8> {
        [&[0x80, 96, 0, 1, 0, 0, 0, 0][..], &ssrc.to_be_bytes(), &[7; 24]].concat()
    }

    fn rtcp(ssrc: u32) -> Vec<u8> {
        [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes(), &[7; 14]].concat()
    }

    fn passing(ssrcs: &Ssrcs, packets: impl Iterator<Item = Vec<u8>>, now: Instant) -> usize {
        packets.filter(|packet| ssrcs.lets_in(packet, now)).count()
    }

    #[tokio::test]
    async fn streams_without_end_are_few_to_the_library() {
        let (ssrcs, now) = (Ssrcs::new(), Instant::now());
        assert_eq!(passing(&ssrcs, (0..10_000).map(rtp), now), STREAMS);
        assert_eq!(passing(&ssrcs, (0..10_000).map(rtcp), now), STREAMS);
        let later = now + ANOTHER * 6;
        assert_eq!(passing(&ssrcs, (20_000..30_000).map(rtp), later), 6);
        assert_eq!(ssrcs.streams().rtp.taken.len(), STREAMS);
    }

    #[tokio::test]
    async fn streams_that_are_named_or_genuine_are_never_kept_out() {
        let (ssrcs, now) = (Ssrcs::new(), Instant::now());
        ssrcs.name([7, 8, 7].into_iter());
        assert!(ssrcs.lets_in(&rtp(1), now) && ssrcs.lets_in(&rtcp(1), now));
        ssrcs.is_genuine(1, false);
        ssrcs.is_genuine(1, true);
        for minute in 0..10 {
            let now = now + ANOTHER * 6 * minute;
            passing(&ssrcs, (100..400).map(|ssrc| rtp(ssrc + minute * 300)), now);
            passing(&ssrcs, (100..400).map(|ssrc| rtcp(ssrc + minute * 300)), now);
            for ssrc in [1, 7, 8] {
                assert!(ssrcs.lets_in(&rtp(ssrc), now) && ssrcs.lets_in(&rtcp(ssrc), now));
            }
        }
    }

    #[tokio::test]
    async fn what_descriptions_name_is_bounded_too() {
        let ssrcs = Ssrcs::new();
        for description in 0..100 {
            ssrcs.name(description * 100..(description + 1) * 100);
        }
        assert_eq!(ssrcs.streams().named.len(), NAMED);
    }

    #[tokio::test]
    async fn what_is_no_rtp_passes_whatever_it_holds() {
        let (ssrcs, now) = (Ssrcs::new(), Instant::now());
        passing(&ssrcs, (0..100).map(rtp), now);
        for other in [&[0; 40][..], &[22; 40], &[], &[0x80], &[0x80, 96, 0, 0]] {
            assert!(ssrcs.lets_in(other, now));
        }
    }
}
