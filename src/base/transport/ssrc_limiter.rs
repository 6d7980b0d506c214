//! Limits the SSRCs for which webrtc-rs keeps state (RFC 3711, section 3.2.3).
//!
//! webrtc-rs creates state for each SSRC in a packet before it authenticates the packet, and never
//! removes it. So an attacker that can send from the address of a connected peer could fill the
//! memory. The SSRC is not encrypted, so packets with ever new SSRCs are dropped here.
//!
//! The fault: `rtc-srtp` 0.21.1 (`context/srtp.rs`, `decrypt_rtp_with_header`, and the same for
//! RTCP) adds the SSRC to its table before it checks the authentication tag, and keeps it if the
//! check fails. It should add it after the check, as pion/srtp#372 does. No issue is known. Canary:
//! yes.
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

use crate::model::{TokenBucket, TokenRate};

/// Unannounced SSRCs of RTP, and as many of RTCP, that are admitted at once. A browser uses two for
/// each media section, and some for its reports.
const MAX_UNANNOUNCED: usize = 32;

/// The average time until a further SSRC is admitted.
const NEW_SSRC_INTERVAL: Duration = Duration::from_secs(10);

/// SSRCs in the descriptions of one connection that are remembered.
const MAX_ANNOUNCED: usize = 64;

/// The SSRCs of one connection.
#[derive(Debug)]
pub(super) struct SsrcLimiter(Mutex<SsrcState>);

#[derive(Debug)]
struct SsrcState {
    announced: Vec<u32>,
    rtp: SsrcTable,
    rtcp: SsrcTable,
}

/// The admitted unannounced SSRCs, oldest first.
#[derive(Debug)]
struct SsrcTable {
    entries: Vec<SsrcEntry>,
    bucket: TokenBucket<Instant>,
}

#[derive(Debug)]
struct SsrcEntry {
    ssrc: u32,
    is_authenticated: bool,
}

impl SsrcLimiter {
    /// A limiter without any SSRC. Needs a tokio runtime.
    pub(super) fn new() -> Self {
        let table = || {
            let bucket = TokenBucket::new(
                TokenRate::every(NEW_SSRC_INTERVAL, MAX_UNANNOUNCED as u32),
                Instant::now(),
            );
            SsrcTable { entries: vec![], bucket }
        };
        Self(Mutex::new(SsrcState { announced: vec![], rtp: table(), rtcp: table() }))
    }

    /// Adds the SSRCs that a description announces to those of earlier descriptions.
    pub(super) fn announce(&self, ssrcs: impl Iterator<Item = u32>) {
        let mut state = self.lock();
        for ssrc in ssrcs {
            if state.announced.len() < MAX_ANNOUNCED && !state.announced.contains(&ssrc) {
                state.announced.push(ssrc);
            }
        }
    }

    /// Records that a packet of that SSRC was authenticated.
    pub(super) fn mark_authenticated(&self, ssrc: u32, is_rtcp: bool) {
        let mut state = self.lock();
        let table = if is_rtcp { &mut state.rtcp } else { &mut state.rtp };
        table.entries.iter_mut().filter(|entry| entry.ssrc == ssrc).for_each(|entry| {
            entry.is_authenticated = true;
        });
    }

    /// Whether a datagram may be passed on to webrtc-rs. Datagrams that are not RTP or RTCP always
    /// may.
    pub(super) fn admits(&self, datagram: &[u8], now: Instant) -> bool {
        let Some((ssrc, is_rtcp)) = sender_ssrc(datagram) else { return true };
        let mut state = self.lock();
        if state.announced.contains(&ssrc) {
            return true;
        }
        if is_rtcp { state.rtcp.admit(ssrc, now) } else { state.rtp.admit(ssrc, now) }
    }

    fn lock(&self) -> MutexGuard<'_, SsrcState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SsrcTable {
    fn admit(&mut self, ssrc: u32, now: Instant) -> bool {
        if self.entries.iter().any(|entry| entry.ssrc == ssrc) {
            return true;
        }
        if !self.bucket.has_tokens(1, now) {
            return false;
        }
        if self.entries.len() == MAX_UNANNOUNCED {
            let oldest = self.entries.iter().position(|entry| !entry.is_authenticated);
            let Some(oldest) = oldest else { return false };
            self.entries.remove(oldest);
        }
        self.bucket.take(1, now);
        self.entries.push(SsrcEntry { ssrc, is_authenticated: false });
        true
    }
}

/// The SSRC of a datagram's sender, and whether the datagram is RTCP. `None` if it is neither RTP
/// nor RTCP, or too short (RFC 3550, sections 5.1 and 6.4; RFC 5761, section 4).
fn sender_ssrc(datagram: &[u8]) -> Option<(u32, bool)> {
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

    fn admitted(
        limiter: &SsrcLimiter,
        packets: impl Iterator<Item = Vec<u8>>,
        now: Instant,
    ) -> usize {
        packets.filter(|packet| limiter.admits(packet, now)).count()
    }

    #[tokio::test]
    async fn of_an_endless_number_of_ssrcs_few_are_admitted() {
        let (limiter, now) = (SsrcLimiter::new(), Instant::now());
        assert_eq!(admitted(&limiter, (0..10_000).map(rtp), now), MAX_UNANNOUNCED);
        assert_eq!(admitted(&limiter, (0..10_000).map(rtcp), now), MAX_UNANNOUNCED);
        let later = now + NEW_SSRC_INTERVAL * 6;
        assert_eq!(admitted(&limiter, (20_000..30_000).map(rtp), later), 6);
        assert_eq!(limiter.lock().rtp.entries.len(), MAX_UNANNOUNCED);
    }

    #[tokio::test]
    async fn announced_and_authenticated_ssrcs_are_always_admitted() {
        let (limiter, now) = (SsrcLimiter::new(), Instant::now());
        limiter.announce([7, 8, 7].into_iter());
        assert!(limiter.admits(&rtp(1), now) && limiter.admits(&rtcp(1), now));
        limiter.mark_authenticated(1, false);
        limiter.mark_authenticated(1, true);
        for minute in 0..10 {
            let now = now + NEW_SSRC_INTERVAL * 6 * minute;
            admitted(&limiter, (100..400).map(|ssrc| rtp(ssrc + minute * 300)), now);
            admitted(&limiter, (100..400).map(|ssrc| rtcp(ssrc + minute * 300)), now);
            for ssrc in [1, 7, 8] {
                assert!(limiter.admits(&rtp(ssrc), now) && limiter.admits(&rtcp(ssrc), now));
            }
        }
    }

    #[tokio::test]
    async fn announced_ssrcs_are_bounded_too() {
        let limiter = SsrcLimiter::new();
        for description in 0..100 {
            limiter.announce(description * 100..(description + 1) * 100);
        }
        assert_eq!(limiter.lock().announced.len(), MAX_ANNOUNCED);
    }

    #[tokio::test]
    async fn datagrams_that_are_not_rtp_always_pass() {
        let (limiter, now) = (SsrcLimiter::new(), Instant::now());
        admitted(&limiter, (0..100).map(rtp), now);
        for other in [&[0; 40][..], &[22; 40], &[], &[0x80], &[0x80, 96, 0, 0]] {
            assert!(limiter.admits(other, now));
        }
    }
}
