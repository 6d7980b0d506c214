//! A UDP socket that drops packets from sources without a successful ICE check.
//!
//! Once webrtc-rs has a path to the remote peer, it accepts DTLS and RTP from any source. A forged
//! record from an attacker who knows only the port then ends the handshake (CVE-2023-49786). This
//! socket passes a datagram that is not STUN only if its source has passed a connectivity check
//! (RFC 8445, section 7): either webrtc-rs answered its request, which requires the ICE password,
//! or it answered one of our requests, whose transaction id cannot be guessed.
//! Admitted sources are rate-limited. Datagrams beyond the rate of any media wait in the kernel's
//! buffer, which drops what does not fit. So a flood costs other peers no processor time.
//!
//! The remote peer decides which addresses are checked, so checks to addresses that have not
//! answered are bounded ([`UnansweredChecks`]). Candidates are not the only way to name an address:
//! webrtc-rs makes a peer-reflexive candidate of the source of each request that carries the
//! password (RFC 8445, section 7.3.1.3), without a limit, and a source address can be forged. So
//! the number of such addresses is limited, and checks to them are bounded like all others.
//!
//! The faults, all in `rtc` and `rtc-ice` 0.21.1: `peer_connection/handler/ice.rs` passes on every
//! packet that is not STUN as soon as a candidate pair is selected, and does not compare its source
//! with the pairs that were checked. The agent makes any number of peer-reflexive candidates, and
//! takes every packet for a sign of consent. No issue is known. Canaries:
//! `a_forged_record_from_any_source_ends_the_handshake`,
//! `requests_of_the_other_end_count_as_its_consent`.
//!
//! Only checks are sent to an address that has not answered one lately (RFC 7675). webrtc-rs sends
//! a consent check every half second, but it accepts any packet from the address, even a request,
//! as an answer.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::{
    check_budget::{CheckLimiter, UnansweredChecks},
    inbound_data_limit::InboundDataLimit,
    rx_limiter::RxLimiter,
    ssrc_limiter::SsrcLimiter,
    stats::{ConnectionStats, PathCounters, SelectedPath},
};

/// Admitted sources that are remembered: the most recently checked ones. A peer has one, or a few
/// while its network changes, and each is checked again every few seconds (RFC 7675).
const MAX_ADMITTED: usize = 16;

/// Own requests that may await a response: what one participant may be sent in 1.5 s, and some
/// triggered checks.
const MAX_PENDING_REQUESTS: usize = 256;

/// Sources that are admitted although nothing was sent to them before. Behind a symmetric NAT, each
/// address of the remote peer arrives from a different port.
const MAX_PEER_REFLEXIVE: usize = 16;

/// How long a response counts as consent: half of what RFC 7675 allows (section 5.1).
const CONSENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Unanswered requests before consent counts as lost: half of what is sent within
/// [`CONSENT_TIMEOUT`]. A program that was suspended for long has sent none, so time alone does not
/// end consent.
const MIN_UNANSWERED_REQUESTS: u32 = 15;

/// A socket of one connection that passes only packets from admitted sources.
#[derive(Debug)]
pub(super) struct IceGateSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    // The trait sends and receives through `&self`; only the connection's one driver ever does.
    gate: Arc<Mutex<IceGate>>,
    rx_limiter: Mutex<RxLimiter>,
    shared: IceGateShared,
}

/// State that all sockets of a connection share.
#[derive(Clone, Debug)]
pub(super) struct IceGateShared {
    /// Counts the DTLS bytes that are let in.
    pub(super) inbound_data: Arc<InboundDataLimit>,
    /// Bounds outgoing connectivity checks.
    pub(super) checks: CheckLimiter,
    /// Limits the SSRCs that webrtc-rs sees.
    pub(super) ssrc_limiter: Arc<SsrcLimiter>,
    /// Notified when the remote peer no longer answers checks.
    pub(super) consent_lost: Arc<Notify>,
    /// Reads the counters of the sockets.
    pub(super) stats: Arc<ConnectionStats>,
}

impl IceGateSocket {
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, shared: IceGateShared) -> Self {
        let rx_limiter = Mutex::new(RxLimiter::new(Instant::now()));
        let gate = Arc::new(Mutex::new(IceGate::new(shared.checks.clone())));
        if let Ok(local) = inner.local_addr() {
            shared.stats.add_socket(local, Arc::downgrade(&gate));
        }
        Self { inner, gate, rx_limiter, shared }
    }
}

impl AsyncUdpSocket for IceGateSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (to, total_length) = (transmit.destination, transmit.contents.len());
        let length = transmit.segment_size.unwrap_or(total_length).max(1);
        let datagrams = transmit.contents.chunks(length);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if !gate.may_send(to, datagrams.clone(), Instant::now()) {
            return Poll::Ready(Ok(total_length));
        }
        let sent = ready!(self.inner.poll_send(cx, transmit));
        let now = Instant::now();
        for binding in datagrams.clone().filter_map(StunBinding::parse) {
            gate.on_sent(to, binding, now);
        }
        if sent.is_ok() {
            gate.count_sent(to, datagrams);
        }
        if gate.has_lost_consent(to, now) {
            self.shared.consent_lost.notify_one();
        }
        Poll::Ready(sent)
    }

    /// Reads one message per call: webrtc-rs asks for no more.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let ([buffer, ..], [meta, ..]) = (bufs, meta) else { return Poll::Ready(Ok(0)) };
        let mut rx_limiter = self.rx_limiter.lock().unwrap_or_else(PoisonError::into_inner);
        ready!(rx_limiter.poll_ready(cx));
        loop {
            let (buffers, metas) = (std::slice::from_mut(buffer), std::slice::from_mut(meta));
            let received = ready!(self.inner.poll_recv(cx, buffers, metas));
            if received.is_err() {
                return Poll::Ready(received);
            }
            let now = Instant::now();
            let datagrams = buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1));
            let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            let is_admitted = gate.may_receive(meta.addr, datagrams.clone(), now);
            if let Some(round_trip) = gate.new_round_trip.take() {
                self.shared.stats.round_trip().record(round_trip);
            }
            if !is_admitted {
                tracing::trace!("datagram from a source without a successful check dropped");
                continue;
            }
            if gate.is_admitted(meta.addr) {
                gate.count_received(meta.addr, datagrams.clone());
                rx_limiter.on_received(datagrams.len() as u32, now);
                let is_admitted = |datagram: &[u8]| self.shared.ssrc_limiter.admits(datagram, now);
                meta.len = retain(&mut buffer[..meta.len], meta.stride, is_admitted);
                let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
                datagrams.for_each(|datagram| self.shared.inbound_data.on_datagram(datagram));
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

/// Removes the datagrams for which `is_kept` is false from a buffer of several. All of them are
/// `stride` bytes long, except that the last may be shorter. Returns the remaining length in bytes.
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

/// A STUN binding request or success response with its transaction id (RFC 8489, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StunBinding {
    Request([u8; 12]),
    Success([u8; 12]),
}

impl StunBinding {
    fn parse(datagram: &[u8]) -> Option<Self> {
        let id = datagram.get(8..20)?.try_into().ok()?;
        match datagram[..8] {
            [0x00, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42] => Some(Self::Request(id)),
            [0x01, 0x01, _, _, 0x21, 0x12, 0xa4, 0x42] => Some(Self::Success(id)),
            _ => None,
        }
    }
}

/// Whether the datagram is STUN (RFC 7983), which webrtc-rs authenticates itself.
fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

/// Which sources may be received from, and which addresses may be sent to.
#[derive(Debug)]
pub(super) struct IceGate {
    admitted: VecDeque<SocketAddr>,
    pending_requests: VecDeque<PendingRequest>,
    /// Addresses that have answered a check, the latest last.
    consents: VecDeque<Consent>,
    /// The latest destination of a datagram that was not STUN, and when that was sent.
    media_destination: Option<(SocketAddr, Instant)>,
    unanswered: UnansweredChecks,
    /// Sources whose request was answered before anything was sent to them.
    peer_reflexive: Vec<SocketAddr>,
    /// The round trip time of the path of the media, if it was measured and not yet taken.
    new_round_trip: Option<Duration>,
}

/// The consent of an address that has answered a check (RFC 7675).
#[derive(Debug)]
struct Consent {
    address: SocketAddr,
    /// When it last answered.
    last_response: Instant,
    /// When the first request since then was sent, and how many were sent.
    unanswered: Option<(Instant, u32)>,
    counters: PathCounters,
}

/// A request that was sent and not answered yet.
#[derive(Debug)]
struct PendingRequest {
    to: SocketAddr,
    id: [u8; 12],
    sent_at: Instant,
}

impl IceGate {
    const fn new(checks: CheckLimiter) -> Self {
        Self {
            admitted: VecDeque::new(),
            pending_requests: VecDeque::new(),
            consents: VecDeque::new(),
            media_destination: None,
            unanswered: UnansweredChecks::new(checks),
            peer_reflexive: vec![],
            new_round_trip: None,
        }
    }

    /// Whether a batch of datagrams may be sent to that address: either all of them or none.
    fn may_send<'a>(
        &mut self,
        to: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [u8]> + Clone,
        now: Instant,
    ) -> bool {
        let consent = self.consents.iter().find(|consent| consent.address == to);
        if !datagrams.clone().all(is_stun) {
            self.media_destination = Some((to, now));
            return consent.is_some_and(|consent| now < consent.last_response + CONSENT_TIMEOUT);
        }
        let is_request =
            |datagram| matches!(StunBinding::parse(datagram), Some(StunBinding::Request(_)));
        consent.is_some() || !datagrams.any(is_request) || self.unanswered.may_send(to, now)
    }

    fn on_sent(&mut self, to: SocketAddr, binding: StunBinding, now: Instant) {
        let consent = self.consents.iter_mut().find(|consent| consent.address == to);
        match (binding, consent) {
            (StunBinding::Request(id), consent) => {
                let request = PendingRequest { to, id, sent_at: now };
                push(&mut self.pending_requests, request, MAX_PENDING_REQUESTS);
                match consent {
                    Some(consent) => {
                        consent.unanswered.get_or_insert((now, 0)).1 += 1;
                        consent.counters.requests_sent += 1;
                    }
                    None => self.unanswered.on_sent(to, now),
                }
            }
            (StunBinding::Success(_), Some(_)) => self.admit(to),
            (StunBinding::Success(_), None) => {
                if !self.is_known(to) {
                    self.peer_reflexive.push(to);
                }
                self.unanswered.on_authenticated_request(to, now);
                self.admit(to);
            }
        }
    }

    /// Whether media are sent to that address although it has not answered repeated requests for
    /// [`CONSENT_TIMEOUT`].
    fn has_lost_consent(&self, to: SocketAddr, now: Instant) -> bool {
        let is_lost = |consent: &Consent| {
            consent.address == to
                && consent.unanswered.is_some_and(|(since, count)| {
                    count >= MIN_UNANSWERED_REQUESTS && now >= since + CONSENT_TIMEOUT
                })
        };
        self.media_destination.is_some_and(|(latest, _)| latest == to)
            && self.consents.iter().any(is_lost)
    }

    /// Whether something was sent to that address before.
    fn is_known(&self, address: SocketAddr) -> bool {
        self.peer_reflexive.contains(&address)
            || self.consents.iter().any(|consent| consent.address == address)
            || self.unanswered.contains(address)
    }

    /// Whether a batch of datagrams from that source passes: either all of them or none.
    fn may_receive<'a>(
        &mut self,
        source: SocketAddr,
        mut datagrams: impl Iterator<Item = &'a [u8]> + Clone,
        now: Instant,
    ) -> bool {
        for datagram in datagrams.clone() {
            if let Some(StunBinding::Success(id)) = StunBinding::parse(datagram)
                && let Some(index) =
                    self.pending_requests.iter().position(|sent| sent.to == source && sent.id == id)
                // A replayed response does not count.
                && let Some(request) = self.pending_requests.remove(index)
            {
                self.on_success(&request, now);
            }
        }
        self.is_admitted(source)
            || (datagrams.all(is_stun)
                && (self.peer_reflexive.len() < MAX_PEER_REFLEXIVE || self.is_known(source)))
    }

    fn on_success(&mut self, request: &PendingRequest, now: Instant) {
        let source = request.to;
        let known = self.consents.iter().position(|consent| consent.address == source);
        let known = known.and_then(|index| self.consents.remove(index));
        let waiting = self.pending_requests.iter().filter(|sent| sent.to == source).count();
        let first = PathCounters { requests_sent: waiting as u64 + 1, ..PathCounters::default() };
        let mut counters = known.map_or(first, |consent| consent.counters);
        counters.responses_received += 1;
        let round_trip = now.saturating_duration_since(request.sent_at);
        counters.round_trip.record(round_trip);
        if self.media_destination.is_none_or(|(address, _)| address == source) {
            self.new_round_trip = Some(round_trip);
        }
        let consent = Consent { address: source, last_response: now, unanswered: None, counters };
        push(&mut self.consents, consent, MAX_ADMITTED);
        self.unanswered.on_answered(source);
        self.admit(source);
    }

    /// Counts datagrams that were sent, without STUN.
    fn count_sent<'a>(&mut self, to: SocketAddr, datagrams: impl Iterator<Item = &'a [u8]>) {
        let Some(counters) = self.counters(to) else { return };
        for datagram in datagrams.filter(|datagram| !is_stun(datagram)) {
            counters.packets_sent += 1;
            counters.bytes_sent += datagram.len() as u64;
        }
    }

    /// Counts datagrams that were received, without STUN.
    fn count_received<'a>(&mut self, from: SocketAddr, datagrams: impl Iterator<Item = &'a [u8]>) {
        let Some(counters) = self.counters(from) else { return };
        for datagram in datagrams.filter(|datagram| !is_stun(datagram)) {
            counters.packets_received += 1;
            counters.bytes_received += datagram.len() as u64;
        }
    }

    /// The counters of an address that has answered a check.
    fn counters(&mut self, address: SocketAddr) -> Option<&mut PathCounters> {
        let consent = self.consents.iter_mut().find(|consent| consent.address == address)?;
        Some(&mut consent.counters)
    }

    /// The path on which media are sent; `None` if nothing was sent, or its address never answered.
    pub(super) fn selected_path(&self) -> Option<SelectedPath> {
        let (remote, used_at) = self.media_destination?;
        let consent = self.consents.iter().find(|consent| consent.address == remote)?;
        Some(SelectedPath { remote, used_at, counters: consent.counters })
    }

    fn is_admitted(&self, source: SocketAddr) -> bool {
        self.admitted.contains(&source)
    }

    fn admit(&mut self, source: SocketAddr) {
        self.admitted.retain(|admitted| *admitted != source);
        push(&mut self.admitted, source, MAX_ADMITTED);
    }
}

/// Appends an item, and removes the oldest one if the queue is full.
fn push<T>(queue: &mut VecDeque<T>, item: T, capacity: usize) {
    if queue.len() == capacity {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests;
