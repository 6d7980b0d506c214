//! The runtime of a hostile webrtc-rs connection. Its sockets count the received packets and can
//! misbehave in ways that webrtc-rs itself cannot.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use super::assault::Ledger;

/// RTP packets that are received before the sockets begin to misbehave.
const HEARD: u64 = 100;

/// The packets in a burst of the stream flood, and the interval between bursts: about as many as
/// the receiver can read.
const STREAMS: (u32, Duration) = (40, Duration::from_millis(10));

/// The boxed future of webrtc-rs's `Runtime` trait.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A webrtc-rs runtime that wraps all UDP sockets in hostile ones.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ledger: Ledger,
    pub(crate) manners: Manners,
}

/// What the sockets do once [`PACKETS_BEFORE_ATTACK`] packets were received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manners {
    /// Send and receive normally.
    Good,
    /// Stop reading.
    Deaf,
    /// Answer no connectivity checks, but send own checks.
    Mute,
    /// Send unencrypted packets, each of a new stream.
    Streams,
}

/// A UDP socket of a hostile connection.
#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    ledger: Ledger,
    manners: Manners,
    /// The task that floods streams; aborted when the socket is dropped.
    streams: Mutex<JoinSet<()>>,
}

impl Socket {
    fn has_heard(&self) -> bool {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).new >= HEARD
    }

    /// Starts to flood the sender of the media with streams, unless it is flooded already.
    fn begin_streams(&self, to: SocketAddr) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.is_empty() {
            let (inner, traffic) = (Arc::clone(&self.inner), Arc::clone(&self.ledger));
            streams.spawn(async move {
                let mut clock = tokio::time::interval(STREAMS.1);
                for burst in 0.. {
                    clock.tick().await;
                    for number in 0..STREAMS.0 {
                        // An RTP packet of 36 bytes in which only the version is valid.
                        let ssrc = (burst * STREAMS.0 + number).wrapping_mul(0x9e37_79b9);
                        let mut packet = vec![0x80, 111, 0, 1, 0, 0, 0, 0];
                        packet.extend(ssrc.to_be_bytes());
                        packet.resize(36, 7);
                        let _ = inner.send_to(&packet, to).await;
                    }
                    let mut traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
                    traffic.fired += u64::from(STREAMS.0);
                }
            });
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        // A STUN binding success response (RFC 8489, section 5).
        let is_response = transmit.contents.starts_with(&[1, 1]);
        if self.manners == Manners::Mute && is_response && self.has_heard() {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let is_attacking = self.has_heard();
        if self.manners == Manners::Deaf && is_attacking {
            return Poll::Pending;
        }
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
        if self.manners == Manners::Streams && is_attacking && received.is_ok() {
            self.begin_streams(meta[0].addr);
        }
        let mut traffic = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (buffer, meta) in bufs.iter().zip(meta.iter()).take(*received.as_ref().unwrap_or(&0)) {
            for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                traffic.came(datagram);
            }
        }
        Poll::Ready(received)
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

impl Runtime for Wire {
    fn spawn(&self, driver: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(driver)
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let (traffic, behaviour) = (Arc::clone(&self.ledger), self.manners);
        let streams = Mutex::default();
        Ok(Arc::new(Socket { inner, ledger: traffic, manners: behaviour, streams }))
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "hostile"
    }
}
