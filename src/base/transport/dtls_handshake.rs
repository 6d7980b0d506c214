//! A UDP socket that retransmits DTLS handshake flights (RFC 6347, section 4.2.4).
//!
//! webrtc-rs retransmits a flight after one second, but never again once it has received a
//! retransmission of the remote peer's previous flight. Then both ends wait until the handshake
//! fails. With a tenth of all datagrams lost this affects one connection in sixty. This socket
//! retransmits a flight unchanged: the remote peer drops the datagrams that it has already received
//! as replays.
//!
//! The fault: `rtc-dtls` 0.21.1 (`handshaker.rs`, `DTLSConn::wait`) clears its retransmission timer
//! when any handshake message arrives, and sets it again only if the message completes the remote
//! peer's next flight. It should keep the timer until then. No issue is known; webrtc-rs/rtc#243,
//! which 0.21.1 contains, mended the last flight only. Canary: yes.

use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::batch_size::BatchSize;

/// Datagrams of one flight: certificates of ordinary size fill five.
const MAX_FLIGHT_DATAGRAMS: usize = 16;

/// Observed handshake datagrams that may wait for the task. A datagram beyond that is not
/// retransmitted by this socket, only by webrtc-rs.
const DATAGRAM_QUEUE: usize = 64;

/// How long a flight may remain unanswered before its first retransmission. The timeout doubles
/// each time.
const RETRANSMIT_TIMEOUT: Duration = Duration::from_millis(200);

/// How soon webrtc-rs answers a flight. If it does not answer, it has received that flight before.
const RESPONSE_TIME: Duration = Duration::from_millis(30);

/// Retransmissions of one flight: for 3 s.
const MAX_RETRANSMISSIONS: u32 = 4;

/// A socket with a task that retransmits the latest handshake flight.
#[derive(Debug)]
pub(super) struct DtlsHandshakeSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    datagrams: mpsc::Sender<HandshakeDatagram>,
    batch: Arc<BatchSize>,
}

/// A handshake datagram that was sent or received through the socket.
#[derive(Debug)]
enum HandshakeDatagram {
    Sent(SocketAddr, Vec<u8>),
    Received,
}

impl DtlsHandshakeSocket {
    /// Wraps `inner`, and spawns a task that ends with the socket. Needs a tokio runtime.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, batch: Arc<BatchSize>) -> Self {
        let (datagrams, queue) = mpsc::channel(DATAGRAM_QUEUE);
        tokio::spawn(retransmit(Arc::clone(&inner), queue));
        Self { inner, datagrams, batch }
    }
}

async fn retransmit(socket: Arc<dyn AsyncUdpSocket>, mut queue: mpsc::Receiver<HandshakeDatagram>) {
    let mut flight = Flight::default();
    loop {
        let deadline = flight.retransmit_at;
        tokio::select! {
            datagram = queue.recv() => match datagram {
                Some(HandshakeDatagram::Sent(to, bytes)) => flight.on_sent(to, bytes, Instant::now()),
                Some(HandshakeDatagram::Received) => flight.on_received(Instant::now()),
                None => return,
            },
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                for (to, bytes) in flight.take_due(Instant::now()) {
                    if let Err(error) = socket.send_to(&bytes, to).await {
                        tracing::debug!(%error, "handshake flight not retransmitted");
                    }
                }
            }
        }
    }
}

impl AsyncUdpSocket for DtlsHandshakeSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send(cx, transmit));
        let length = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(length).filter(|bytes| is_handshake(bytes)) {
            let datagram = HandshakeDatagram::Sent(transmit.destination, bytes.to_vec());
            let _ = self.datagrams.try_send(datagram);
        }
        Poll::Ready(sent)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
        let messages = *received.as_ref().unwrap_or(&0);
        for (buffer, meta) in bufs.iter().zip(meta.iter()).take(messages) {
            let bytes = &buffer[..meta.len.min(buffer.len())];
            if bytes.chunks(meta.stride.max(1)).any(is_handshake) {
                let _ = self.datagrams.try_send(HandshakeDatagram::Received);
            }
        }
        Poll::Ready(received)
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments().min(self.batch.get())
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// Whether the datagram begins with a DTLS record of type change_cipher_spec or handshake. STUN,
/// RTP and DTLS application data have other first bytes (RFC 7983).
fn is_handshake(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20 | 22))
}

/// The newest flight of this end, and when it is to be retransmitted.
#[derive(Debug, Default)]
struct Flight {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    last_sent: Option<Instant>,
    /// Whether a datagram was received since then: the next one that is sent begins a new flight.
    is_answered: bool,
    retransmissions: u32,
    retransmit_at: Option<Instant>,
}

impl Flight {
    fn on_sent(&mut self, to: SocketAddr, bytes: Vec<u8>, now: Instant) {
        let paused = self.last_sent.is_some_and(|last| now - last >= RETRANSMIT_TIMEOUT / 2);
        if self.is_answered || paused {
            *self = Self::default();
        }
        if self.datagrams.len() < MAX_FLIGHT_DATAGRAMS {
            self.datagrams.push((to, bytes));
        }
        self.last_sent = Some(now);
        self.retransmit_at = Some(now + RETRANSMIT_TIMEOUT);
    }

    fn on_received(&mut self, now: Instant) {
        self.is_answered = true;
        self.retransmit_at = self.retransmit_at.map(|due| due.min(now + RESPONSE_TIME));
    }

    /// The datagrams that are to be retransmitted now.
    fn take_due(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        self.retransmissions += 1;
        if self.retransmissions >= MAX_RETRANSMISSIONS {
            self.retransmit_at = None;
            return std::mem::take(&mut self.datagrams);
        }
        self.retransmit_at = Some(now + RETRANSMIT_TIMEOUT * 2_u32.pow(self.retransmissions));
        self.datagrams.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    fn bytes(datagrams: &[(SocketAddr, Vec<u8>)]) -> Vec<u8> {
        datagrams.iter().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    #[test]
    fn a_flight_is_retransmitted_with_growing_timeouts_and_then_dropped() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.on_sent(TO, vec![1], start);
        flight.on_sent(TO, vec![2], start);
        let mut waits = vec![];
        let mut now = start;
        while let Some(due) = flight.retransmit_at {
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(bytes(&flight.take_due(now)), [1, 2]);
        }
        assert_eq!(waits, [200, 400, 800, 1600]);
        assert!(flight.datagrams.is_empty(), "the flight is dropped");
    }

    #[test]
    fn an_answer_begins_a_new_flight() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.on_sent(TO, vec![1], start);
        flight.on_received(start + RESPONSE_TIME);
        flight.on_sent(TO, vec![2], start + RESPONSE_TIME);
        assert_eq!(flight.retransmit_at, Some(start + RESPONSE_TIME + RETRANSMIT_TIMEOUT));
        assert_eq!(bytes(&flight.take_due(start + RESPONSE_TIME + RETRANSMIT_TIMEOUT)), [2]);
    }

    #[test]
    fn a_received_flight_that_webrtc_rs_does_not_answer_causes_a_retransmission() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.on_sent(TO, vec![1], start);
        let now = start + RETRANSMIT_TIMEOUT / 2;
        flight.on_received(now);
        assert_eq!(flight.retransmit_at, Some(now + RESPONSE_TIME));
        assert_eq!(bytes(&flight.take_due(now + RESPONSE_TIME)), [1]);
    }

    #[test]
    fn only_handshake_records_are_observed() {
        assert!(is_handshake(&[22, 254, 253]) && is_handshake(&[20, 254, 253]));
        for other in [&[23][..], &[21], &[0, 1], &[0x80], &[]] {
            assert!(!is_handshake(other));
        }
    }
}
