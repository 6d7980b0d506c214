//! A UDP socket that lets nobody speak who has not passed an ICE check.
//!
//! The library takes DTLS and RTP from any source once it has a path to the other end. A forged
//! record from a stranger who knows no more than the port then ends the handshake
//! (CVE-2023-49786). Here a datagram that is not STUN passes only if its source has passed a
//! connectivity check (RFC 8445, section 7): the library answered its request, which it does only
//! for who knows the password, or it answered one of ours, whose transaction id nobody can guess.
//!
//! Who has passed is not listened to without end: what comes faster than anybody's media waits in
//! the kernel's buffer, which drops what does not fit, and costs the others no processor time.

use std::{
    collections::VecDeque,
    future::Future as _,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::{pace::Pace, unread::Unread};

/// Sources that are let in, those checked last: a person has one, or a few while the network
/// changes, and each is checked again every few seconds (RFC 7675).
const SOURCES: usize = 16;

/// Own requests whose answers are waited for: one for each pair of addresses that is checked.
const REQUESTS: usize = 64;

/// The time that one datagram takes of those that are read, on average: 4000 a second are three
/// times what pictures at 6 Mbit/s, all of them repeated, need with sound and checks.
const PACE: Duration = Duration::from_micros(250);

/// Datagrams that are read at once: more than wait in the kernel's buffer after a stall.
const BURST: u32 = 2000;

/// The socket.
#[derive(Debug)]
pub(super) struct AdmissionSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    // The trait sends and receives through `&self`; only the connection's one driver ever does.
    admission: Mutex<Admission>,
    intake: Mutex<Intake>,
    unread: Arc<Unread>,
}

impl AdmissionSocket {
    /// The socket; it counts in `unread` what it lets in.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, unread: Arc<Unread>) -> Self {
        let intake = Mutex::new(Intake::new(Instant::now()));
        Self { inner, admission: Mutex::default(), intake, unread }
    }
}

impl AsyncUdpSocket for AdmissionSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send(cx, transmit));
        if let Some(check) = Check::read(transmit.contents) {
            let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
            admission.sent(transmit.destination, check);
        }
        Poll::Ready(sent)
    }

    /// One message at a time: the library asks for no more.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let ([buffer, ..], [meta, ..]) = (bufs, meta) else { return Poll::Ready(Ok(0)) };
        let mut intake = self.intake.lock().unwrap_or_else(PoisonError::into_inner);
        ready!(intake.poll_turn(cx));
        loop {
            let (buffers, metas) = (std::slice::from_mut(buffer), std::slice::from_mut(meta));
            let received = ready!(self.inner.poll_recv(cx, buffers, metas));
            if received.is_err() {
                return Poll::Ready(received);
            }
            let datagrams = buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1));
            let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
            if admission.lets_in(meta.addr, datagrams.clone()) {
                if admission.is_admitted(meta.addr) {
                    intake.took(datagrams.len() as u32, Instant::now());
                    datagrams.for_each(|datagram| self.unread.came(datagram));
                }
                return Poll::Ready(received);
            }
            tracing::trace!("a datagram of a source that passed no check is dropped");
        }
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// A STUN binding request or its success (RFC 8489, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    Request([u8; 12]),
    Success([u8; 12]),
}

impl Check {
    fn read(datagram: &[u8]) -> Option<Self> {
        let id = datagram.get(8..20)?.try_into().ok()?;
        match datagram[..8] {
            [0x00, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42] => Some(Self::Request(id)),
            [0x01, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42] => Some(Self::Success(id)),
            _ => None,
        }
    }
}

/// Whether the datagram is STUN, which the library checks itself (RFC 7983).
fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// How fast is read what those send who have passed a check. What strangers send costs little and
/// is not counted: their flood would else keep out those who have.
#[derive(Debug)]
struct Intake {
    pace: Pace,
    /// Until when nothing is read, if too much came.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Intake {
    fn new(now: Instant) -> Self {
        Self { pace: Pace::new(PACE, BURST, now), pause: None }
    }

    /// Ready when the next datagram may be read.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn took(&mut self, datagrams: u32, now: Instant) {
        let turn = self.pace.take(datagrams, now);
        self.pause = (turn > now).then(|| Box::pin(sleep_until(turn)));
    }
}

/// Who has passed a check.
#[derive(Debug, Default)]
struct Admission {
    admitted: VecDeque<SocketAddr>,
    asked: VecDeque<(SocketAddr, [u8; 12])>,
}

impl Admission {
    fn sent(&mut self, to: SocketAddr, check: Check) {
        match check {
            Check::Request(id) => push(&mut self.asked, (to, id), REQUESTS),
            Check::Success(_) => self.admit(to),
        }
    }

    /// Whether what came in at once from that source passes, all of it or nothing.
    fn lets_in<'a>(
        &mut self,
        source: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> bool {
        for datagram in datagrams.clone() {
            if let Some(Check::Success(id)) = Check::read(datagram)
                && self.asked.contains(&(source, id))
            {
                self.admit(source);
            }
        }
        self.is_admitted(source) || datagrams.all(is_stun)
    }

    fn is_admitted(&self, source: SocketAddr) -> bool {
        self.admitted.contains(&source)
    }

    fn admit(&mut self, source: SocketAddr) {
        self.admitted.retain(|admitted| *admitted != source);
        push(&mut self.admitted, source, SOURCES);
    }
}

/// Appends, and forgets the oldest beyond that many.
fn push<T>(queue: &mut VecDeque<T>, item: T, capacity: usize) {
    if queue.len() == capacity {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DTLS: a fatal alert in the clear.
    const ALERT: &[u8] = &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn stun(kind: u8, id: u8) -> Vec<u8> {
        let mut message = vec![kind, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([id; 12]);
        message
    }

    fn lets_in(admission: &mut Admission, port: u16, datagram: &[u8]) -> bool {
        admission.lets_in(address(port), std::iter::once(datagram))
    }

    fn sent(admission: &mut Admission, port: u16, message: &[u8]) {
        admission.sent(address(port), Check::read(message).unwrap());
    }

    #[test]
    fn who_passed_no_check_may_only_ask_for_one() {
        let mut admission = Admission::default();
        assert!(!lets_in(&mut admission, 1, ALERT));
        assert!(!lets_in(&mut admission, 1, &[0x80, 96, 0, 1]), "RTP");
        assert!(lets_in(&mut admission, 1, &stun(0, 7)));
        assert!(!lets_in(&mut admission, 1, ALERT), "to ask is not to pass");
        let both = [stun(0, 7), ALERT.to_vec()];
        assert!(!admission.lets_in(address(1), both.iter().map(Vec::as_slice)));
    }

    #[test]
    fn whose_request_was_answered_is_let_in_and_nobody_else() {
        let mut admission = Admission::default();
        sent(&mut admission, 1, &stun(1, 7));
        assert!(lets_in(&mut admission, 1, ALERT));
        assert!(!lets_in(&mut admission, 2, ALERT));
    }

    #[test]
    fn who_answered_a_request_is_let_in_if_it_was_asked_just_that() {
        let mut admission = Admission::default();
        sent(&mut admission, 1, &stun(0, 7));
        lets_in(&mut admission, 1, &stun(1, 8));
        assert!(!lets_in(&mut admission, 1, ALERT), "a guessed transaction id");
        lets_in(&mut admission, 2, &stun(1, 7));
        assert!(!lets_in(&mut admission, 2, ALERT), "another source's answer");
        lets_in(&mut admission, 1, &stun(1, 7));
        assert!(lets_in(&mut admission, 1, ALERT));
    }

    #[tokio::test]
    async fn a_burst_is_read_at_once_and_a_flood_at_its_pace() {
        let start = Instant::now();
        let mut intake = Intake::new(start);
        intake.took(BURST, start);
        assert!(intake.pause.is_none());
        for _ in 0..10 {
            std::future::poll_fn(|cx| intake.poll_turn(cx)).await;
            intake.took(64, Instant::now());
        }
        assert!(start.elapsed() >= PACE * 64 * 9);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut admission = Admission::default();
        for port in 1..=200 {
            sent(&mut admission, port, &stun(0, 1));
            sent(&mut admission, port, &stun(1, 1));
        }
        assert_eq!((admission.asked.len(), admission.admitted.len()), (REQUESTS, SOURCES));
        assert!(lets_in(&mut admission, 200, ALERT), "the newest is the one in use");
    }
}
