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

use super::attack::SharedTraffic;

/// RTP packets that are received before the sockets begin to misbehave.
const PACKETS_BEFORE_ATTACK: u64 = 100;

/// The packets in a burst of the stream flood, and the interval between bursts: about as many as
/// the receiver can read.
const STREAM_BURST: (u32, Duration) = (40, Duration::from_millis(10));

/// The boxed future of webrtc-rs's `Runtime` trait.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A webrtc-rs runtime that wraps all UDP sockets in hostile ones.
#[derive(Debug)]
pub(crate) struct HostileRuntime {
    pub(crate) traffic: SharedTraffic,
    pub(crate) behaviour: SocketBehaviour,
}

/// What the sockets do once [`PACKETS_BEFORE_ATTACK`] packets were received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketBehaviour {
    /// Send and receive normally.
    Normal,
    /// Stop reading.
    StopReading,
    /// Answer no connectivity checks, but send own checks.
    NoStunResponses,
    /// Send unencrypted packets, each of a new stream.
    FloodStreams,
}

/// A UDP socket of a hostile connection.
#[derive(Debug)]
struct HostileSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    traffic: SharedTraffic,
    behaviour: SocketBehaviour,
    /// The task that floods streams; aborted when the socket is dropped.
    streams: Mutex<JoinSet<()>>,
}

impl HostileSocket {
    fn is_attacking(&self) -> bool {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).new_packets
            >= PACKETS_BEFORE_ATTACK
    }

    /// Starts to flood the sender of the media with streams, unless it is flooded already.
    fn start_stream_flood(&self, to: SocketAddr) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.is_empty() {
            let (inner, traffic) = (Arc::clone(&self.inner), Arc::clone(&self.traffic));
            streams.spawn(async move {
                let mut clock = tokio::time::interval(STREAM_BURST.1);
                for burst in 0.. {
                    clock.tick().await;
                    for number in 0..STREAM_BURST.0 {
                        // An RTP packet of 36 bytes in which only the version is valid.
                        let ssrc = (burst * STREAM_BURST.0 + number).wrapping_mul(0x9e37_79b9);
                        let mut packet = vec![0x80, 111, 0, 1, 0, 0, 0, 0];
                        packet.extend(ssrc.to_be_bytes());
                        packet.resize(36, 7);
                        let _ = inner.send_to(&packet, to).await;
                    }
                    let mut traffic = traffic.lock().unwrap_or_else(PoisonError::into_inner);
                    traffic.attack_packets += u64::from(STREAM_BURST.0);
                }
            });
        }
    }
}

impl AsyncUdpSocket for HostileSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        // A STUN binding success response (RFC 8489, section 5).
        let is_response = transmit.contents.starts_with(&[1, 1]);
        if self.behaviour == SocketBehaviour::NoStunResponses && is_response && self.is_attacking()
        {
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
        let is_attacking = self.is_attacking();
        if self.behaviour == SocketBehaviour::StopReading && is_attacking {
            return Poll::Pending;
        }
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
        if self.behaviour == SocketBehaviour::FloodStreams && is_attacking && received.is_ok() {
            self.start_stream_flood(meta[0].addr);
        }
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        for (buffer, meta) in bufs.iter().zip(meta.iter()).take(*received.as_ref().unwrap_or(&0)) {
            for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                traffic.on_datagram(datagram);
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

impl Runtime for HostileRuntime {
    fn spawn(&self, driver: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(driver)
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let (traffic, behaviour) = (Arc::clone(&self.traffic), self.behaviour);
        let streams = Mutex::default();
        Ok(Arc::new(HostileSocket { inner, traffic, behaviour, streams }))
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "hostile"
    }
}
