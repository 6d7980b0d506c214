//! The sockets of somebody hostile: they see what is really sent to it, and do what no library does.

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

/// Packets that are read before the sockets change their manners.
const HEARD: u64 = 100;

/// Packets of streams without end that are sent at once, and how often: as many as are read.
const STREAMS: (u32, Duration) = (40, Duration::from_millis(10));

/// A future as the library's trait wants it.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the library runs a hostile viewer on.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ledger: Ledger,
    pub(crate) manners: Manners,
}

/// What the sockets do once something was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manners {
    /// What they are told.
    Good,
    /// They read nothing more.
    Deaf,
    /// They answer no connectivity check, but send those of their own.
    Mute,
    /// They send, with no key, packets of ever new streams.
    Streams,
}

#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    ledger: Ledger,
    manners: Manners,
    /// Ends with the socket.
    streams: Mutex<JoinSet<()>>,
}

impl Socket {
    fn has_heard(&self) -> bool {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).new >= HEARD
    }

    /// Begins to send streams to whoever sends media.
    fn begin_streams(&self, to: SocketAddr) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.is_empty() {
            let (inner, ledger) = (Arc::clone(&self.inner), Arc::clone(&self.ledger));
            streams.spawn(async move {
                let mut clock = tokio::time::interval(STREAMS.1);
                for volley in 0.. {
                    clock.tick().await;
                    for shot in 0..STREAMS.0 {
                        // RTP of 36 bytes: nothing in it is right but the version.
                        let ssrc = (volley * STREAMS.0 + shot).wrapping_mul(0x9e37_79b9);
                        let mut packet = vec![0x80, 111, 0, 1, 0, 0, 0, 0];
                        packet.extend(ssrc.to_be_bytes());
                        packet.resize(36, 7);
                        let _ = inner.send_to(&packet, to).await;
                    }
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    ledger.fired += u64::from(STREAMS.0);
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
        // A success of a binding request (RFC 8489, section 5).
        let is_answer = transmit.contents.starts_with(&[1, 1]);
        if self.manners == Manners::Mute && is_answer && self.has_heard() {
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
        let has_heard = self.has_heard();
        if self.manners == Manners::Deaf && has_heard {
            return Poll::Pending;
        }
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
        if self.manners == Manners::Streams && has_heard && received.is_ok() {
            self.begin_streams(meta[0].addr);
        }
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for (buffer, meta) in bufs.iter().zip(meta.iter()).take(*received.as_ref().unwrap_or(&0)) {
            for datagram in buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1)) {
                ledger.came(datagram);
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
        let (ledger, manners) = (Arc::clone(&self.ledger), self.manners);
        Ok(Arc::new(Socket { inner, ledger, manners, streams: Mutex::default() }))
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
