//! The library's runtime for one connection: tokio's, with a watch over the driver, sockets that
//! help the handshake, keep early media and keep strangers out and, if wanted, a bad network.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime,
};

use super::{
    Impairment,
    admission::{AdmissionSocket, AdmissionWiring},
    early::EarlySocket,
    handshake::HandshakeSocket,
    link::ImpairedSocket,
};

/// A future as the library's trait wants it.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the library runs one connection on.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    pub(super) tokio: TokioRuntime,
    /// What the sockets are impaired by, if they are.
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    /// Notified when the connection's driver has returned, panicked or been aborted: the library
    /// tells nobody, and a connection without its driver would look alive for ever.
    pub(super) driver_ended: Arc<Notify>,
    /// Whether the connection is up.
    pub(super) up: watch::Receiver<bool>,
    /// What its sockets share that let nobody in.
    pub(super) admission: AdmissionWiring,
}

/// Tells that the task that held it is gone.
struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Runtime for PeerRuntime {
    /// The driver is the only task that the library spawns here: its others are for ICE over TCP,
    /// which is not offered.
    fn spawn(&self, driver: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        let ended = Ended(Arc::clone(&self.driver_ended));
        self.tokio.spawn(Box::pin(async move {
            let _ended = ended;
            driver.await;
        }))
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut socket = self.tokio.wrap_udp_socket(socket)?;
        if let Some(terms) = &self.impairment {
            socket = Arc::new(ImpairedSocket::new(socket, terms.clone()));
        }
        let socket = Arc::new(AdmissionSocket::new(socket, self.admission.clone()));
        let socket = Arc::new(HandshakeSocket::new(socket));
        Ok(Arc::new(EarlySocket::new(socket, self.up.clone())))
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.tokio.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        self.tokio.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        self.tokio.resolve_host(host)
    }

    fn now(&self) -> Instant {
        self.tokio.now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        self.tokio.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.tokio.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.tokio.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        self.tokio.yield_now()
    }

    fn name(&self) -> &'static str {
        "quintet"
    }
}
