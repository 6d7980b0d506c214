//! A network in memory, over which connections run in virtual time.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::VirtualUplink;

/// Datagrams that a socket keeps until they are read: as many as the buffer of a real one. More are
/// dropped.
const RECEIVE_QUEUE: usize = 2048;

/// The first port that [`VirtualNetwork::bind`] tries: below the range from which systems choose
/// ports for the sockets of connections.
const FIRST_PORT: u16 = 2000;

/// A network in memory: its sockets reach each other, at once and without a loss, and nothing else.
/// Clones are the same network. [`ConnectionConfig::impairment`](super::ConnectionConfig) makes it
/// a bad one.
///
/// Connections over it wait for nothing but tokio's clock. If a test pauses the clock
/// (`start_paused`), they run in virtual time: an hour takes as long as the work in it.
#[derive(Clone, Debug, Default)]
pub struct VirtualNetwork {
    /// What all datagrams from here pass, if anything.
    uplink: Option<VirtualUplink>,
    queues: Arc<Mutex<BTreeMap<SocketAddr, mpsc::Sender<Datagram>>>>,
}

/// A socket of a [`VirtualNetwork`]. Its address is free again once it is dropped.
#[derive(Debug)]
pub struct VirtualSocket {
    network: VirtualNetwork,
    address: SocketAddr,
    // The trait receives through `&self`; only one task ever does.
    received: Mutex<mpsc::Receiver<Datagram>>,
    /// The system's socket with that address, so that no other gets it. Nothing uses it.
    _reservation: Option<UdpSocket>,
}

/// A datagram that is not read yet.
#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    bytes: Bytes,
}

impl VirtualNetwork {
    /// The same network, for sockets that share a way out.
    pub fn behind(&self, uplink: &VirtualUplink) -> Self {
        Self { uplink: Some(uplink.clone()), queues: Arc::clone(&self.queues) }
    }

    /// A socket with that address and a free port.
    ///
    /// # Errors
    /// If no port is free.
    pub fn bind(&self, ip: IpAddr) -> io::Result<VirtualSocket> {
        let mut addresses = (FIRST_PORT..=u16::MAX).map(|port| SocketAddr::new(ip, port));
        addresses
            .find_map(|address| self.attach(address, None))
            .ok_or(io::ErrorKind::AddrInUse.into())
    }

    /// A socket with the address of a system's socket.
    ///
    /// # Errors
    /// If the address is in use.
    pub(super) fn wrap(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let attached = self.attach(socket.local_addr()?, Some(socket));
        Ok(Arc::new(attached.ok_or(io::ErrorKind::AddrInUse)?))
    }

    /// A socket with that address, unless it is in use.
    fn attach(&self, address: SocketAddr, reservation: Option<UdpSocket>) -> Option<VirtualSocket> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if queues.contains_key(&address) {
            return None;
        }
        let (queue, received) = mpsc::channel(RECEIVE_QUEUE);
        queues.insert(address, queue);
        Some(VirtualSocket {
            network: self.clone(),
            address,
            received: Mutex::new(received),
            _reservation: reservation,
        })
    }

    /// Puts a datagram into the queue of its receiver, if there is one with room.
    fn deliver(&self, to: SocketAddr, datagram: Datagram) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(&to) {
            let _ = queue.try_send(datagram);
        }
    }
}

impl VirtualSocket {
    /// Its address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a datagram; it is dropped if nobody has that address.
    pub fn send(&self, bytes: &[u8], to: SocketAddr) {
        let datagram = Datagram { from: self.address, bytes: Bytes::copy_from_slice(bytes) };
        match &self.network.uplink {
            Some(uplink) => {
                let network = Self::without_uplink(&self.network);
                uplink.send(bytes.len(), move || network.deliver(to, datagram));
            }
            None => self.network.deliver(to, datagram),
        }
    }

    /// Waits for the next datagram. Returns the address of its sender as well.
    pub async fn recv(&self) -> (Bytes, SocketAddr) {
        let Datagram { from, bytes } = std::future::poll_fn(|cx| self.poll_datagram(cx)).await;
        (bytes, from)
    }

    /// The network behind the way out.
    fn without_uplink(network: &VirtualNetwork) -> VirtualNetwork {
        VirtualNetwork { uplink: None, queues: Arc::clone(&network.queues) }
    }

    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<Datagram> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        // The network holds the other end of the queue for as long as there is the socket.
        received.poll_recv(cx).map(|datagram| datagram.expect("the socket is attached"))
    }
}

impl Drop for VirtualSocket {
    fn drop(&mut self) {
        let mut queues = self.network.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.remove(&self.address);
    }
}

impl AsyncUdpSocket for VirtualSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let length = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for bytes in transmit.contents.chunks(length) {
            self.send(bytes, transmit.destination);
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    /// Reads one datagram per call. As with a real socket, what does not fit is cut off.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let ([buffer, ..], [meta, ..]) = (bufs, meta) else { return Poll::Ready(Ok(0)) };
        let Datagram { from, bytes } = ready!(self.poll_datagram(cx));
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (from, length, length.max(1));
        Poll::Ready(Ok(1))
    }

    /// As many as of a real socket on Linux, so that packets take the same way through the sockets
    /// above this one.
    fn max_gso_segments(&self) -> usize {
        64
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn sockets_of_a_network_reach_each_other_and_no_socket_of_another_network() {
        let (network, other) = (VirtualNetwork::default(), VirtualNetwork::default());
        let [a, b] = [network.bind(HERE).unwrap(), network.bind(HERE).unwrap()];
        let foreign = other.bind(HERE).unwrap();
        assert_ne!(a.address(), b.address());
        foreign.send(b"from another network", b.address());
        a.send(b"hello", b.address());
        assert_eq!(b.recv().await, (Bytes::from_static(b"hello"), a.address()));
    }

    #[tokio::test]
    async fn a_batch_arrives_as_datagrams_of_its_segment_size() {
        let network = VirtualNetwork::default();
        let [a, b] = [network.bind(HERE).unwrap(), network.bind(HERE).unwrap()];
        let batch = Transmit {
            destination: b.address(),
            ecn: None,
            contents: b"abcde",
            segment_size: Some(2),
            src_ip: None,
        };
        assert!(
            std::future::poll_fn(|cx| a.poll_send(cx, &batch)).await.is_ok_and(|sent| sent == 5)
        );
        for datagram in [&b"ab"[..], b"cd", b"e"] {
            assert_eq!(b.recv().await.0, datagram);
        }
    }

    #[tokio::test]
    async fn an_address_is_used_once_and_is_free_again_after_that() {
        let network = VirtualNetwork::default();
        let system = || UdpSocket::bind((HERE, 0)).unwrap();
        let first = system();
        let address = first.local_addr().unwrap();
        let socket = network.wrap(first).unwrap();
        assert!(network.attach(address, None).is_none());
        drop(socket);
        assert!(network.attach(address, None).is_some());
    }
}
