//! The runtime that webrtc-rs uses for one connection. It is tokio's, but it reports the end of the
//! driver and wraps the sockets: they retransmit DTLS flights, buffer early media, drop packets of
//! unauthenticated sources and, if configured, simulate a bad network.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, watch},
    time,
};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

use super::{
    Impairment, VirtualNetwork,
    batch_size::BatchSize,
    dtls_handshake::DtlsHandshakeSocket,
    early_media::EarlyMediaSocket,
    ice_gate::{IceGateShared, IceGateSocket},
    impaired_socket::ImpairedSocket,
};

/// A boxed future, as the `Runtime` trait of webrtc-rs requires.
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The runtime of one connection.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    pub(super) tokio: TokioRuntime,
    /// The network in which the sockets are, if it is not the system's.
    pub(super) network: Option<VirtualNetwork>,
    /// The impairment of the sockets, if any.
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    /// Notified when the connection's driver has returned, panicked or been aborted. webrtc-rs does
    /// not report this, so a connection without its driver would look alive for ever.
    pub(super) driver_ended: Arc<Notify>,
    /// Whether the connection has been connected.
    pub(super) connected: watch::Receiver<bool>,
    /// The state that the [`IceGateSocket`]s share.
    pub(super) ice_gate: IceGateShared,
    /// How many datagrams a system call takes.
    pub(super) batch: Arc<BatchSize>,
}

/// Notifies when it is dropped, together with the task that holds it.
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Runtime for PeerRuntime {
    /// Spawns the driver, the only task that webrtc-rs spawns here: its other tasks are for ICE
    /// over TCP, which is not offered.
    fn spawn(&self, driver: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        let ended = NotifyOnDrop(Arc::clone(&self.driver_ended));
        self.tokio.spawn(Box::pin(async move {
            let _ended = ended;
            driver.await;
        }))
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut socket = match &self.network {
            Some(network) => network.wrap(socket)?,
            None => self.tokio.wrap_udp_socket(socket)?,
        };
        if let Some(impairment) = &self.impairment {
            socket = Arc::new(ImpairedSocket::new(socket, impairment.clone()));
        }
        let socket = Arc::new(IceGateSocket::new(socket, self.ice_gate.clone()));
        let socket = Arc::new(DtlsHandshakeSocket::new(socket, Arc::clone(&self.batch)));
        Ok(Arc::new(EarlyMediaSocket::new(socket, self.connected.clone())))
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.tokio.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        to: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.tokio.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.tokio.resolve_host(host)
    }

    /// Tokio's clock, on which the timers run too.
    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.tokio.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.tokio.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.tokio.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        self.tokio.yield_now()
    }

    fn name(&self) -> &'static str {
        "quintet"
    }
}
