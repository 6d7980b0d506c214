//! Limits the SSRCs for which webrtc-rs keeps state (RFC 3711, section 3.2.3).
//!
//! webrtc-rs creates state for each SSRC in a packet before it authenticates the packet, and never
//! removes it. So an attacker that can send from the address of a connected peer could fill the
//! memory. The SSRC is not encrypted, so packets with ever new SSRCs are dropped here.
//!
//! SSRCs that a description announces always pass, and so do those of which an authenticated packet
//! arrived. The number of all others is limited. An attacker that uses up the limit with forged
//! packets keeps out an unannounced SSRC only while the attack lasts: every few seconds another
//! SSRC is admitted.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::pace::Pace;

/// Unannounced SSRCs of RTP, and as many of RTCP, that are admitted at once. A browser uses two for
/// each media section, and some for its reports.
const STREAMS: usize = 32;

/// The average time until a further SSRC is admitted.
const ANOTHER: Duration = Duration::from_secs(10);

/// SSRCs in the descriptions of one connection that are remembered.
const NAMED: usize = 64;

/// The SSRCs of one connection.
#[derive(Debug)]
pub(super) struct Ssrcs(Mutex<Streams>);

#[derive(Debug)]
struct Streams {
    named: Vec<u32>,
    rtp: Places,
    rtcp: Places,
}

/// The admitted unannounced SSRCs, oldest first.
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
    /// A limiter without any SSRC. Needs a tokio runtime.
    pub(super) fn new() -> Self {
        let table = || {
            let bucket = Pace::new(ANOTHER, STREAMS as u32, Instant::now());
            Places { taken: vec![], pace: bucket }
        };
        Self(Mutex::new(Streams { named: vec![], rtp: table(), rtcp: table() }))
    }

    /// Adds the SSRCs that a description announces to those of earlier descriptions.
    pub(super) fn name(&self, ssrcs: impl Iterator<Item = u32>) {
        let mut state = self.streams();
        for ssrc in ssrcs {
            if state.named.len() < NAMED && !state.named.contains(&ssrc) {
                state.named.push(ssrc);
            }
        }
    }

    /// Records that a packet of that SSRC was authenticated.
    pub(super) fn is_genuine(&self, ssrc: u32, is_rtcp: bool) {
        let mut state = self.streams();
        let table = if is_rtcp { &mut state.rtcp } else { &mut state.rtp };
        table.taken.iter_mut().filter(|entry| entry.ssrc == ssrc).for_each(|entry| {
            entry.is_genuine = true;
        });
    }

    /// Whether a datagram may be passed on to webrtc-rs. Datagrams that are not RTP or RTCP always
    /// may.
    pub(super) fn lets_in(&self, datagram: &[u8], now: Instant) -> bool {
        let Some((ssrc, is_rtcp)) = sender(datagram) else { return true };
        let mut state = self.streams();
        if state.named.contains(&ssrc) {
            return true;
        }
        if is_rtcp { state.rtcp.lets_in(ssrc, now) } else { state.rtp.lets_in(ssrc, now) }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn lets_in(&mut self, ssrc: u32, now: Instant) -> bool {
        if self.taken.iter().any(|entry| entry.ssrc == ssrc) {
            return true;
        }
        if !self.pace.has_room(1, now) {
            return false;
        }
        if self.taken.len() == STREAMS {
            let oldest = self.taken.iter().position(|entry| !entry.is_genuine);
            let Some(oldest) = oldest else { return false };
            self.taken.remove(oldest);
        }
        self.pace.take(1, now);
        self.taken.push(Place { ssrc, is_genuine: false });
        true
    }
}

/// The SSRC of a datagram's sender, and whether the datagram is RTCP. `None` if it is neither RTP
/// nor RTCP, or too short (RFC 3550, sections 5.1 and 6.4; RFC 5761, section 4).
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

    fn admitted(limiter: &Ssrcs, packets: impl Iterator<Item = Vec<u8>>, now: Instant) -> usize {
        packets.filter(|packet| limiter.lets_in(packet, now)).count()
    }

    #[tokio::test]
    async fn of_an_endless_number_of_ssrcs_few_are_admitted() {
        let (limiter, now) = (Ssrcs::new(), Instant::now());
        assert_eq!(admitted(&limiter, (0..10_000).map(rtp), now), STREAMS);
        assert_eq!(admitted(&limiter, (0..10_000).map(rtcp), now), STREAMS);
        let later = now + ANOTHER * 6;
        assert_eq!(admitted(&limiter, (20_000..30_000).map(rtp), later), 6);
        assert_eq!(limiter.streams().rtp.taken.len(), STREAMS);
    }

    #[tokio::test]
    async fn announced_and_authenticated_ssrcs_are_always_admitted() {
        let (limiter, now) = (Ssrcs::new(), Instant::now());
        limiter.name([7, 8, 7].into_iter());
        assert!(limiter.lets_in(&rtp(1), now) && limiter.lets_in(&rtcp(1), now));
        limiter.is_genuine(1, false);
        limiter.is_genuine(1, true);
        for minute in 0..10 {
            let now = now + ANOTHER * 6 * minute;
            admitted(&limiter, (100..400).map(|ssrc| rtp(ssrc + minute * 300)), now);
            admitted(&limiter, (100..400).map(|ssrc| rtcp(ssrc + minute * 300)), now);
            for ssrc in [1, 7, 8] {
                assert!(limiter.lets_in(&rtp(ssrc), now) && limiter.lets_in(&rtcp(ssrc), now));
            }
        }
    }

    #[tokio::test]
    async fn announced_ssrcs_are_bounded_too() {
        let limiter = Ssrcs::new();
        for description in 0..100 {
            limiter.name(description * 100..(description + 1) * 100);
        }
        assert_eq!(limiter.streams().named.len(), NAMED);
    }

    #[tokio::test]
    async fn datagrams_that_are_not_rtp_always_pass() {
        let (limiter, now) = (Ssrcs::new(), Instant::now());
        admitted(&limiter, (0..100).map(rtp), now);
        for other in [&[0; 40][..], &[22; 40], &[], &[0x80], &[0x80, 96, 0, 0]] {
            assert!(limiter.lets_in(other, now));
        }
    }
}
