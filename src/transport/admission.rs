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
//!
//! Whom this end checks, the other end decides: checks to addresses that have not answered are
//! bounded ([`Unanswered`]). Candidates are not the only way to name an address. For whoever knows
//! the password the library makes a peer-reflexive candidate of the source of its request (RFC
//! 8445, section 7.3.1.3), however many there are, and a source can be forged: so such addresses
//! are few, and checks to them are bounded like all others.
//!
//! Nothing but checks is sent to who has not answered one lately (RFC 7675): the library asks every
//! half second, and takes whatever comes from there for an answer, a request as well.

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

use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::{
    checks::{Checks, Unanswered},
    pace::Pace,
    ssrcs::Ssrcs,
    unread::Unread,
};

/// Sources that are let in, those checked last: a person has one, or a few while the network
/// changes, and each is checked again every few seconds (RFC 7675).
const SOURCES: usize = 16;

/// Own requests whose answers are waited for: what a participant may be sent in 1.5 s, and some
/// that were triggered.
const REQUESTS: usize = 256;

/// Sources that are let in though nothing was sent there before: behind a symmetric NAT, each
/// address of the other end comes from another port.
const REFLEXIVE: usize = 16;

/// How long an answer is a consent to be sent to: half of what RFC 7675 allows (section 5.1).
const CONSENT: Duration = Duration::from_secs(15);

/// Requests that must have found no answer before consent is said to be lost: half of what is sent
/// in that time. A program that was stopped for long has sent none.
const UNANSWERED: u32 = 15;

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
    wiring: AdmissionWiring,
}

/// What all sockets of a connection share.
#[derive(Clone, Debug)]
pub(super) struct AdmissionWiring {
    /// Counts what is let in.
    pub(super) unread: Arc<Unread>,
    /// Bounds the checks that leave.
    pub(super) checks: Checks,
    /// The streams that are let in.
    pub(super) ssrcs: Arc<Ssrcs>,
    /// Notified when the other end does not answer checks any more.
    pub(super) consent_lost: Arc<Notify>,
}

impl AdmissionSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, wiring: AdmissionWiring) -> Self {
        let intake = Mutex::new(Intake::new(Instant::now()));
        let admission = Mutex::new(Admission::new(wiring.checks.clone()));
        Self { inner, admission, intake, wiring }
    }
}

impl AsyncUdpSocket for AdmissionSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (to, whole) = (transmit.destination, transmit.contents.len());
        let length = transmit.segment_size.unwrap_or(whole).max(1);
        let datagrams = transmit.contents.chunks(length);
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if !admission.lets_out(to, datagrams.clone(), Instant::now()) {
            return Poll::Ready(Ok(whole));
        }
        let sent = ready!(self.inner.poll_send(cx, transmit));
        for check in datagrams.filter_map(Check::read) {
            admission.sent(to, check, Instant::now());
        }
        if admission.has_lost_consent(to, Instant::now()) {
            self.wiring.consent_lost.notify_one();
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
            let now = Instant::now();
            let datagrams = buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1));
            let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
            if !admission.lets_in(meta.addr, datagrams.clone(), now) {
                tracing::trace!("a datagram of a source that passed no check is dropped");
                continue;
            }
            if admission.is_admitted(meta.addr) {
                intake.took(datagrams.len() as u32, now);
                let is_taken = |datagram: &[u8]| self.wiring.ssrcs.lets_in(datagram, now);
                meta.len = retain(&mut buffer[..meta.len], meta.stride, is_taken);
                let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
                datagrams.for_each(|datagram| self.wiring.unread.came(datagram));
            }
            if meta.len > 0 {
                return Poll::Ready(received);
            }
        }
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// Keeps some of the datagrams that came together, each as long as `stride` but for the last;
/// returns how long they are together.
fn retain(buffer: &mut [u8], stride: usize, is_kept: impl Fn(&[u8]) -> bool) -> usize {
    let (stride, end) = (stride.max(1), buffer.len());
    let mut kept = 0;
    for start in (0..end).step_by(stride) {
        let datagram = start..end.min(start + stride);
        if is_kept(&buffer[datagram.clone()]) {
            let length = datagram.len();
            if kept != start {
                buffer.copy_within(datagram, kept);
            }
            kept += length;
        }
    }
    kept
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
#[derive(Debug)]
struct Admission {
    admitted: VecDeque<SocketAddr>,
    asked: VecDeque<(SocketAddr, [u8; 12])>,
    /// Who has answered a check, those last that did so last.
    answered: VecDeque<Answered>,
    /// Where what is no check was to be sent last.
    media_to: Option<SocketAddr>,
    unanswered: Unanswered,
    /// Who was answered before anything was sent there.
    reflexive: Vec<SocketAddr>,
}

/// Who has answered a check.
#[derive(Debug)]
struct Answered {
    address: SocketAddr,
    /// When it did so last.
    last: Instant,
    /// The first request since then, and how many there were.
    waiting: Option<(Instant, u32)>,
}

impl Admission {
    const fn new(checks: Checks) -> Self {
        Self {
            admitted: VecDeque::new(),
            asked: VecDeque::new(),
            answered: VecDeque::new(),
            media_to: None,
            unanswered: Unanswered::new(checks),
            reflexive: vec![],
        }
    }

    /// Whether what is to leave at once may be sent to that address, all of it or nothing.
    fn lets_out<'a>(
        &mut self,
        to: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [u8]> + Clone,
        now: Instant,
    ) -> bool {
        let answered = self.answered.iter().find(|answered| answered.address == to);
        if !datagrams.clone().all(is_stun) {
            self.media_to = Some(to);
            return answered.is_some_and(|answered| now < answered.last + CONSENT);
        }
        let is_request = |datagram| matches!(Check::read(datagram), Some(Check::Request(_)));
        answered.is_some() || !datagrams.any(is_request) || self.unanswered.may_send(to, now)
    }

    fn sent(&mut self, to: SocketAddr, check: Check, now: Instant) {
        let known = self.answered.iter_mut().find(|answered| answered.address == to);
        match (check, known) {
            (Check::Request(id), known) => {
                push(&mut self.asked, (to, id), REQUESTS);
                match known {
                    Some(known) => known.waiting.get_or_insert((now, 0)).1 += 1,
                    None => self.unanswered.sent(to, now),
                }
            }
            (Check::Success(_), Some(_)) => self.admit(to),
            (Check::Success(_), None) => {
                if !self.is_known(to) {
                    self.reflexive.push(to);
                }
                self.unanswered.triggered(to, now);
                self.admit(to);
            }
        }
    }

    /// Whether who is sent media has not answered for so long, though it was asked again and
    /// again.
    fn has_lost_consent(&self, to: SocketAddr, now: Instant) -> bool {
        let is_lost = |answered: &Answered| {
            answered.address == to
                && answered
                    .waiting
                    .is_some_and(|(since, count)| count >= UNANSWERED && now >= since + CONSENT)
        };
        self.media_to == Some(to) && self.answered.iter().any(is_lost)
    }

    /// Whether something was sent there before.
    fn is_known(&self, address: SocketAddr) -> bool {
        self.reflexive.contains(&address)
            || self.answered.iter().any(|answered| answered.address == address)
            || self.unanswered.contains(address)
    }

    /// Whether what came in at once from that source passes, all of it or nothing.
    fn lets_in<'a>(
        &mut self,
        source: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [u8]> + Clone,
        now: Instant,
    ) -> bool {
        for datagram in datagrams.clone() {
            if let Some(Check::Success(id)) = Check::read(datagram)
                && let Some(asked) = self.asked.iter().position(|asked| *asked == (source, id))
            {
                // An answer counts once.
                self.asked.remove(asked);
                self.answered(source, now);
            }
        }
        self.is_admitted(source)
            || (datagrams.all(is_stun)
                && (self.reflexive.len() < REFLEXIVE || self.is_known(source)))
    }

    fn answered(&mut self, by: SocketAddr, now: Instant) {
        self.answered.retain(|answered| answered.address != by);
        let answered = Answered { address: by, last: now, waiting: None };
        push(&mut self.answered, answered, SOURCES);
        self.unanswered.answered(by);
        self.admit(by);
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
    use crate::transport::CheckBudget;

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
        admission.lets_in(address(port), std::iter::once(datagram), Instant::now())
    }

    fn admission() -> Admission {
        Admission::new(CheckBudget::default().checks())
    }

    fn sent(admission: &mut Admission, port: u16, message: &[u8]) {
        admission.sent(address(port), Check::read(message).unwrap(), Instant::now());
    }

    fn lets_out(admission: &mut Admission, port: u16, datagram: &[u8]) -> bool {
        admission.lets_out(address(port), std::iter::once(datagram), Instant::now())
    }

    #[tokio::test]
    async fn who_passed_no_check_may_only_ask_for_one() {
        let mut admission = admission();
        assert!(!lets_in(&mut admission, 1, ALERT));
        assert!(!lets_in(&mut admission, 1, &[0x80, 96, 0, 1]), "RTP");
        assert!(lets_in(&mut admission, 1, &stun(0, 7)));
        assert!(!lets_in(&mut admission, 1, ALERT), "to ask is not to pass");
        let both = [stun(0, 7), ALERT.to_vec()];
        let both = both.iter().map(Vec::as_slice);
        assert!(!admission.lets_in(address(1), both, Instant::now()));
    }

    #[tokio::test]
    async fn whose_request_was_answered_is_let_in_and_nobody_else() {
        let mut admission = admission();
        sent(&mut admission, 1, &stun(1, 7));
        assert!(lets_in(&mut admission, 1, ALERT));
        assert!(!lets_in(&mut admission, 2, ALERT));
    }

    #[tokio::test]
    async fn who_answered_a_request_is_let_in_if_it_was_asked_just_that() {
        let mut admission = admission();
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

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let mut admission = admission();
        for port in 1..=200 {
            sent(&mut admission, port, &stun(0, 1));
            sent(&mut admission, port, &stun(1, 1));
        }
        (0..=255).for_each(|id| sent(&mut admission, 1, &stun(0, id)));
        assert_eq!((admission.asked.len(), admission.admitted.len()), (REQUESTS, SOURCES));
        assert!(lets_in(&mut admission, 200, ALERT), "the newest is the one in use");
    }

    #[tokio::test]
    async fn who_answers_is_checked_freely_and_who_does_not_is_not() {
        let mut admission = admission();
        let request = stun(0, 7);
        for port in 1..=100 {
            if lets_out(&mut admission, port, &request) {
                sent(&mut admission, port, &request);
            }
        }
        assert!(!lets_out(&mut admission, 1, &request) && !lets_out(&mut admission, 200, &request));
        assert!(lets_in(&mut admission, 1, &stun(1, 7)));
        for _ in 0..1000 {
            assert!(lets_out(&mut admission, 1, &request));
            sent(&mut admission, 1, &request);
        }
        assert!(!lets_out(&mut admission, 2, &request));
        assert!(lets_out(&mut admission, 2, &stun(1, 9)), "what it asks is answered");
    }

    #[tokio::test]
    async fn an_answer_counts_once() {
        let mut admission = admission();
        sent(&mut admission, 1, &stun(0, 7));
        lets_in(&mut admission, 1, &stun(1, 7));
        assert_eq!(admission.asked.len(), 0);
    }

    #[tokio::test]
    async fn sources_that_nobody_named_are_few() {
        let mut admission = admission();
        let asks = |admission: &mut Admission, port| {
            let passes = lets_in(admission, port, &stun(0, 7));
            if passes {
                sent(admission, port, &stun(1, 7));
            }
            passes
        };
        let passed = (1..=100).filter(|port| asks(&mut admission, *port)).count();
        assert_eq!(passed, REFLEXIVE);
        assert!(asks(&mut admission, 1), "who was let in once stays so");
        sent(&mut admission, 200, &stun(0, 8));
        assert!(asks(&mut admission, 200), "who was named is no stranger");
    }

    /// Asks every half second for so long; whether consent is lost then.
    fn ask(admission: &mut Admission, from: Instant, seconds: u32) -> bool {
        let mut is_lost = false;
        for tick in 0..seconds * 2 {
            let now = from + Duration::from_millis(500) * tick;
            admission.sent(address(1), Check::Request([9; 12]), now);
            is_lost = admission.has_lost_consent(address(1), now);
        }
        is_lost
    }

    fn media_at(admission: &mut Admission, now: Instant) -> bool {
        admission.lets_out(address(1), std::iter::once(&[0x80, 96, 0, 1][..]), now)
    }

    #[tokio::test]
    async fn who_answers_no_more_is_sent_nothing_more_whatever_it_asks() {
        let (mut admission, start) = (admission(), Instant::now());
        assert!(!media_at(&mut admission, start), "it has not answered yet");
        admission.sent(address(1), Check::Request([1; 12]), start);
        admission.lets_in(address(1), std::iter::once(&stun(1, 1)[..]), start);
        assert!(media_at(&mut admission, start));
        assert!(!ask(&mut admission, start, 14));
        // It asks itself, and repeats an old answer.
        let late = start + CONSENT;
        admission.lets_in(address(1), std::iter::once(&stun(0, 5)[..]), late);
        admission.sent(address(1), Check::Success([5; 12]), late);
        admission.lets_in(address(1), std::iter::once(&stun(1, 1)[..]), late);
        assert!(media_at(&mut admission, late - Duration::from_millis(1)));
        assert!(!media_at(&mut admission, late));
        assert!(ask(&mut admission, late, 1));
        admission.lets_in(address(1), std::iter::once(&stun(1, 9)[..]), late);
        assert!(media_at(&mut admission, late), "it has answered");
        assert!(!ask(&mut admission, late, 1));
    }

    #[tokio::test]
    async fn a_program_that_was_stopped_asks_before_it_gives_up() {
        let (mut admission, start) = (admission(), Instant::now());
        admission.sent(address(1), Check::Request([1; 12]), start);
        admission.lets_in(address(1), std::iter::once(&stun(1, 1)[..]), start);
        assert!(media_at(&mut admission, start));
        admission.sent(address(1), Check::Request([2; 12]), start);
        let awake = start + CONSENT * 20;
        assert!(!media_at(&mut admission, awake));
        assert!(!ask(&mut admission, awake, 6));
        admission.lets_in(address(1), std::iter::once(&stun(1, 9)[..]), awake);
        assert!(media_at(&mut admission, awake));
    }

    #[tokio::test]
    async fn an_address_that_is_not_used_any_more_may_be_silent() {
        let (mut admission, start) = (admission(), Instant::now());
        for port in [1, 2] {
            admission.sent(address(port), Check::Request([1; 12]), start);
            admission.lets_in(address(port), std::iter::once(&stun(1, 1)[..]), start);
        }
        admission.lets_out(address(2), std::iter::once(ALERT), start);
        assert!(!ask(&mut admission, start, 30));
    }

    #[test]
    fn of_datagrams_that_came_together_some_are_kept() {
        let came = *b"aa1bb2cc3d";
        let kept = |keeps: fn(&[u8]) -> bool| {
            let mut buffer = came;
            let length = retain(&mut buffer, 3, keeps);
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        assert_eq!(kept(|_| true), "aa1bb2cc3d");
        assert_eq!(kept(|datagram| datagram[0] != b'b'), "aa1cc3d");
        assert_eq!(kept(|datagram| datagram[0] != b'd'), "aa1bb2cc3");
        assert_eq!(kept(|_| false), "");
    }
}
