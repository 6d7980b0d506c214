//! The sockets of a hostile viewer: they see what is really sent to it, and may go deaf.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::{SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use super::assault::Ledger;

/// Packets that are read before a deaf one reads nothing more.
const HEARD: u64 = 100;

/// A future as the library's trait wants it.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the library runs a hostile viewer on.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) ledger: Ledger,
    pub(crate) deaf: bool,
}

#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    ledger: Ledger,
    deaf: bool,
}

impl AsyncUdpSocket for Socket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let heard = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).new;
        if self.deaf && heard >= HEARD {
            return Poll::Pending;
        }
        let received = ready!(self.inner.poll_recv(cx, bufs, meta));
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
        Ok(Arc::new(Socket { inner, ledger: Arc::clone(&self.ledger), deaf: self.deaf }))
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
