//! A UDP socket that repeats DTLS handshake flights (RFC 6347, section 4.2.4).
//!
//! The library repeats a flight after a second, and not at all once the other end's repetition
//! of the flight before has come in: then both wait until the handshake has failed. With a tenth
//! of all datagrams lost that is one connection in sixty. Here a flight is repeated as it was:
//! what had arrived is dropped by the other end as a replay, what had not is as good as new.

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

/// Datagrams of one flight at most: certificates of ordinary size fill five.
const FLIGHT: usize = 16;

/// Sightings that wait at most; one more is not repeated, which is what there was before.
const SIGHTINGS: usize = 64;

/// Datagrams that are handed to the kernel at once (generic segmentation offload), where it can.
///
/// The library does so from 16 on, or from as many as the socket takes if those are fewer. A
/// picture has some six, so a socket that took more would never be given any together.
const SEGMENTS: usize = 3;

/// How long a flight is waited on before it is repeated, and then twice that, and so on.
const PATIENCE: Duration = Duration::from_millis(200);

/// How soon the library answers a flight; if it does not, it has seen that flight before.
const ANSWER: Duration = Duration::from_millis(30);

/// How often one flight is repeated: for 3 s.
const REPEATS: u32 = 4;

/// The socket.
#[derive(Debug)]
pub(super) struct HandshakeSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    sightings: mpsc::Sender<Sighting>,
}

/// A handshake datagram that passed.
#[derive(Debug)]
enum Sighting {
    Sent(SocketAddr, Vec<u8>),
    Received,
}

impl HandshakeSocket {
    /// The socket, with a task beside it that ends with it. Needs a tokio runtime.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>) -> Self {
        let (sightings, queue) = mpsc::channel(SIGHTINGS);
        tokio::spawn(repeat(Arc::clone(&inner), queue));
        Self { inner, sightings }
    }
}

async fn repeat(socket: Arc<dyn AsyncUdpSocket>, mut queue: mpsc::Receiver<Sighting>) {
    let mut flight = Flight::default();
    loop {
        let due = flight.due;
        tokio::select! {
            sighting = queue.recv() => match sighting {
                Some(Sighting::Sent(to, bytes)) => flight.sent(to, bytes, Instant::now()),
                Some(Sighting::Received) => flight.received(Instant::now()),
                None => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                for (to, bytes) in flight.repeated(Instant::now()) {
                    if let Err(error) = socket.send_to(&bytes, to).await {
                        tracing::debug!(%error, "a handshake could not be repeated");
                    }
                }
            }
        }
    }
}

impl AsyncUdpSocket for HandshakeSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = ready!(self.inner.poll_send(cx, transmit));
        let length = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(length).filter(|bytes| is_handshake(bytes)) {
            let sighting = Sighting::Sent(transmit.destination, bytes.to_vec());
            let _ = self.sightings.try_send(sighting);
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
                let _ = self.sightings.try_send(Sighting::Received);
            }
        }
        Poll::Ready(received)
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments().min(SEGMENTS)
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// Whether the datagram begins with a DTLS record of type change-cipher-spec or handshake; STUN,
/// RTP and DTLS data have other first bytes (RFC 7983).
fn is_handshake(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(20 | 22))
}

/// The newest flight of this end, and when it is to be repeated.
#[derive(Debug, Default)]
struct Flight {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    last_sent: Option<Instant>,
    /// Whether something came in since: what is sent next begins another flight.
    answered: bool,
    repeats: u32,
    due: Option<Instant>,
}

impl Flight {
    fn sent(&mut self, to: SocketAddr, bytes: Vec<u8>, now: Instant) {
        let paused = self.last_sent.is_some_and(|last| now - last >= PATIENCE / 2);
        if self.answered || paused {
            *self = Self::default();
        }
        if self.datagrams.len() < FLIGHT {
            self.datagrams.push((to, bytes));
        }
        self.last_sent = Some(now);
        self.due = Some(now + PATIENCE);
    }

    fn received(&mut self, now: Instant) {
        self.answered = true;
        self.due = self.due.map(|due| due.min(now + ANSWER));
    }

    /// The datagrams to be sent now.
    fn repeated(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        self.repeats += 1;
        if self.repeats >= REPEATS {
            self.due = None;
            return std::mem::take(&mut self.datagrams);
        }
        self.due = Some(now + PATIENCE * 2_u32.pow(self.repeats));
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
    fn a_flight_is_repeated_ever_later_and_not_for_ever() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.sent(TO, vec![1], start);
        flight.sent(TO, vec![2], start);
        let mut waits = vec![];
        let mut now = start;
        while let Some(due) = flight.due {
            waits.push((due - now).as_millis());
            now = due;
            assert_eq!(bytes(&flight.repeated(now)), [1, 2]);
        }
        assert_eq!(waits, [200, 400, 800, 1600]);
        assert!(flight.datagrams.is_empty(), "nothing is kept");
    }

    #[test]
    fn an_answer_begins_another_flight() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.sent(TO, vec![1], start);
        flight.received(start + ANSWER);
        flight.sent(TO, vec![2], start + ANSWER);
        assert_eq!(flight.due, Some(start + ANSWER + PATIENCE));
        assert_eq!(bytes(&flight.repeated(start + ANSWER + PATIENCE)), [2]);
    }

    #[test]
    fn a_flight_that_comes_in_and_is_not_answered_is_a_repetition_and_is_answered_here() {
        let (mut flight, start) = (Flight::default(), Instant::now());
        flight.sent(TO, vec![1], start);
        let now = start + PATIENCE / 2;
        flight.received(now);
        assert_eq!(flight.due, Some(now + ANSWER));
        assert_eq!(bytes(&flight.repeated(now + ANSWER)), [1]);
    }

    #[test]
    fn only_handshake_records_are_sighted() {
        assert!(is_handshake(&[22, 254, 253]) && is_handshake(&[20, 254, 253]));
        for other in [&[23][..], &[21], &[0, 1], &[0x80], &[]] {
            assert!(!is_handshake(other));
        }
    }
}
