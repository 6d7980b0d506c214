//! A UDP socket that buffers media that arrive before the DTLS handshake is complete.
//!
//! The remote peer may send media as soon as it has sent its last handshake flight. webrtc-rs drops
//! media that arrive right behind that flight, or overtake it, because it does not have the keys
//! yet. These are the first packets of the first keyframe, without which the keyframe cannot be
//! decoded. This socket holds them back until the connection is connected.
//!
//! The fault: `rtc` 0.21.1 (`peer_connection/handler/srtp.rs`) returns an error for a packet that
//! arrives before it has the keys, instead of keeping it for a moment. No issue is known. Canary:
//! `media_that_overtake_the_last_flight_of_the_handshake_are_dropped`.
//!
//! Only packets from sources that have passed an ICE check get this far (`ice_gate.rs`), and the
//! buffer is bounded.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, pending},
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::sync::watch;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

/// Datagrams that the buffer holds: a keyframe of 1080p and the audio beside it.
const MAX_DATAGRAMS: usize = 512;

/// Bytes that the buffer holds: [`MAX_DATAGRAMS`] of the usual length, and some more.
const MAX_BYTES: usize = 1 << 20;

/// Buffered datagrams that are delivered before the driver has to yield to other tasks: webrtc-rs'
/// queue for a track holds 256 packets and drops further ones.
const MAX_DELIVERED_IN_ROW: usize = 32;

/// A socket that delivers early media once the connection is connected.
#[derive(Debug)]
pub(super) struct EarlyMediaSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    // The trait receives through `&self`; only the connection's one driver ever does.
    early: Mutex<EarlyMediaBuffer>,
}

/// The media datagrams that arrived early.
struct EarlyMediaBuffer {
    /// Completes when the connection is connected; `None` after that.
    connected: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    datagrams: VecDeque<(RecvMeta, Vec<u8>)>,
    bytes: usize,
    /// Datagrams that were delivered since the driver last yielded.
    delivered_in_row: usize,
    /// How many more reads return `Pending`, so that the driver yields.
    refusals_left: u8,
}

impl EarlyMediaSocket {
    /// Wraps `inner`; `connected` turns true when the connection is connected.
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        mut connected: watch::Receiver<bool>,
    ) -> Self {
        let connected = async move {
            if connected.wait_for(|connected| *connected).await.is_err() {
                pending::<()>().await;
            }
        };
        Self { inner, early: Mutex::new(EarlyMediaBuffer::new(Box::pin(connected))) }
    }

    /// Reads from the network, and moves media into the buffer.
    fn poll_early(
        &self,
        cx: &mut Context<'_>,
        (buffer, meta): (&mut IoSliceMut<'_>, &mut RecvMeta),
        early: &mut EarlyMediaBuffer,
    ) -> Poll<io::Result<usize>> {
        loop {
            let (buffers, metas) = (std::slice::from_mut(buffer), std::slice::from_mut(meta));
            let received = ready!(self.inner.poll_recv(cx, buffers, metas));
            if !matches!(received, Ok(1..)) || early.extract_media(buffer, meta) {
                return Poll::Ready(received);
            }
        }
    }
}

impl AsyncUdpSocket for EarlyMediaSocket {
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
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([buffer, ..], [meta, ..]) = (&mut *bufs, &mut *meta) {
            if !early.is_connected(cx) {
                return self.poll_early(cx, (buffer, meta), &mut early);
            }
            if !early.datagrams.is_empty() {
                ready!(early.poll_yield(cx));
                early.deliver(buffer, meta);
                return Poll::Ready(Ok(1));
            }
        }
        drop(early);
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

impl EarlyMediaBuffer {
    fn new(connected: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        Self {
            connected: Some(connected),
            datagrams: VecDeque::new(),
            bytes: 0,
            delivered_in_row: 0,
            refusals_left: 0,
        }
    }

    /// Whether the connection is connected; if not, the task is woken once it is.
    fn is_connected(&mut self, cx: &mut Context<'_>) -> bool {
        let connected = self.connected.as_mut();
        let is_connected = connected.is_none_or(|connected| connected.as_mut().poll(cx).is_ready());
        if is_connected {
            self.connected = None;
        }
        is_connected
    }

    /// Moves the media out of a batch of received datagrams into the buffer. Returns whether other
    /// datagrams are left.
    fn extract_media(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) -> bool {
        let stride = meta.stride.max(1);
        let (mut at, mut kept) = (0, 0);
        while at < meta.len.min(buffer.len()) {
            let end = (at + stride).min(meta.len).min(buffer.len());
            if is_media(&buffer[at..end]) {
                self.store(&buffer[at..end], meta);
            } else {
                // All datagrams have the same length except the last: this still holds when some
                // are removed.
                buffer.copy_within(at..end, kept);
                kept += end - at;
            }
            at = end;
        }
        let received = meta.len;
        meta.len = kept;
        kept > 0 || received == 0
    }

    /// Appends a datagram to the buffer, or drops it if it does not fit.
    fn store(&mut self, datagram: &[u8], meta: &RecvMeta) {
        if self.datagrams.len() == MAX_DATAGRAMS || self.bytes + datagram.len() > MAX_BYTES {
            return;
        }
        let mut meta = *meta;
        (meta.len, meta.stride) = (datagram.len(), datagram.len());
        self.bytes += datagram.len();
        self.datagrams.push_back((meta, datagram.to_vec()));
    }

    /// Ready unless the driver has to yield before the next datagram.
    ///
    /// The driver of webrtc-rs polls once without a waker for more datagrams, and then polls again
    /// and waits. So only the second `Pending` makes it yield.
    fn poll_yield(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.delivered_in_row == MAX_DELIVERED_IN_ROW {
            (self.delivered_in_row, self.refusals_left) = (0, 2);
        }
        if self.refusals_left == 0 {
            return Poll::Ready(());
        }
        self.refusals_left -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn deliver(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let Some((stored_meta, datagram)) = self.datagrams.pop_front() else { return };
        self.bytes -= datagram.len();
        self.delivered_in_row += 1;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        *meta = stored_meta;
        (meta.len, meta.stride) = (length, length);
    }
}

impl fmt::Debug for EarlyMediaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyMediaBuffer")
            .field("datagrams", &self.datagrams.len())
            .finish_non_exhaustive()
    }
}

/// Whether the datagram is RTP or RTCP, encrypted or not (RFC 7983).
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, task::Waker};

    use super::*;

    const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

    /// A socket that returns the queued batches of datagrams.
    #[derive(Debug, Default)]
    struct FakeSocket(Mutex<VecDeque<Vec<Vec<u8>>>>);

    impl AsyncUdpSocket for FakeSocket {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(FROM)
        }

        fn poll_send(&self, _: &mut Context<'_>, _: &Transmit<'_>) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let Some(datagrams) = self.0.lock().unwrap().pop_front() else { return Poll::Pending };
            let bytes = datagrams.concat();
            bufs[0][..bytes.len()].copy_from_slice(&bytes);
            meta[0] = RecvMeta::default();
            (meta[0].addr, meta[0].len) = (FROM, bytes.len());
            meta[0].stride = datagrams.first().map_or(0, Vec::len);
            Poll::Ready(Ok(1))
        }

        fn max_gro_segments(&self) -> usize {
            64
        }
    }

    struct Fixture {
        inner: Arc<FakeSocket>,
        socket: EarlyMediaSocket,
        connected: watch::Sender<bool>,
    }

    impl Fixture {
        fn new() -> Self {
            let (inner, connected) = (Arc::<FakeSocket>::default(), watch::Sender::new(false));
            let socket = EarlyMediaSocket::new(Arc::clone(&inner) as _, connected.subscribe());
            Self { inner, socket, connected }
        }

        /// Queues batches of datagrams to be received.
        fn queue(&self, batches: &[&[&[u8]]]) {
            let batches = batches.iter().map(|batch| batch.iter().map(|d| d.to_vec()).collect());
            self.inner.0.lock().unwrap().extend(batches);
        }

        /// Reads until three polls in a row are pending. Returns the datagrams one by one.
        fn read(&self) -> Vec<Vec<u8>> {
            let (mut read, mut pending) = (vec![], 0);
            while pending < 3 {
                let (mut bytes, mut meta) = ([0; 4096], [RecvMeta::default()]);
                let mut bufs = [IoSliceMut::new(&mut bytes)];
                let mut cx = Context::from_waker(Waker::noop());
                match self.socket.poll_recv(&mut cx, &mut bufs, &mut meta) {
                    Poll::Ready(received) => {
                        assert_eq!((received.unwrap(), meta[0].addr), (1, FROM));
                        let datagrams = bytes[..meta[0].len].chunks(meta[0].stride.max(1));
                        read.extend(datagrams.map(<[u8]>::to_vec));
                        pending = 0;
                    }
                    Poll::Pending => pending += 1,
                }
            }
            read
        }
    }

    /// An RTP packet of the same length as [`RECORD`].
    const fn rtp(n: u8) -> [u8; 3] {
        [0x80, 96, n]
    }

    /// A DTLS handshake record.
    const RECORD: [u8; 3] = [22, 254, 253];

    #[tokio::test]
    async fn media_that_arrive_before_the_connection_is_connected_are_read_after_that_in_order() {
        let fixture = Fixture::new();
        fixture.queue(&[&[&rtp(1)], &[&RECORD], &[&rtp(2), &RECORD, &rtp(3), &[20, 1]], &[&[1]]]);
        assert_eq!(fixture.read(), [&RECORD[..], &RECORD, &[20, 1], &[1]]);
        fixture.connected.send_replace(true);
        fixture.queue(&[&[&rtp(4)]]);
        assert_eq!(fixture.read(), [1, 2, 3, 4].map(|n| rtp(n).to_vec()));
        fixture.queue(&[&[&rtp(5), &rtp(6)]]);
        assert_eq!(fixture.read(), [5, 6].map(|n| rtp(n).to_vec()));
    }

    #[tokio::test]
    async fn a_reader_is_woken_when_the_connection_is_connected() {
        let fixture = Fixture::new();
        fixture.queue(&[&[&rtp(1)]]);
        let (mut bytes, mut meta) = ([0; 64], [RecvMeta::default()]);
        let mut read = receive(&fixture.socket, &mut bytes, &mut meta);
        assert!(futures_util::poll!(&mut read).is_pending());
        fixture.connected.send_replace(true);
        assert_eq!(read.await.unwrap(), 1);
        assert_eq!(bytes[..3], rtp(1));
    }

    fn receive<'a>(
        socket: &'a EarlyMediaSocket,
        bytes: &'a mut [u8],
        meta: &'a mut [RecvMeta],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(std::future::poll_fn(move |cx| {
            socket.poll_recv(cx, &mut [IoSliceMut::new(bytes)], meta)
        }))
    }

    #[tokio::test]
    async fn the_buffer_is_bounded_and_keeps_the_oldest_datagrams() {
        let fixture = Fixture::new();
        for n in 0..2 * MAX_DATAGRAMS {
            fixture.queue(&[&[&rtp(n as u8)]]);
        }
        assert!(fixture.read().is_empty());
        fixture.connected.send_replace(true);
        let read = fixture.read();
        assert_eq!(
            (read.len(), &read[0][..], &read[255][..]),
            (MAX_DATAGRAMS, &rtp(0)[..], &rtp(255)[..])
        );
        let fixture = Fixture::new();
        let large = [0x80; 4000];
        (0..MAX_DATAGRAMS).for_each(|_| fixture.queue(&[&[&large]]));
        assert!(fixture.read().is_empty());
        fixture.connected.send_replace(true);
        assert_eq!(fixture.read().len(), MAX_BYTES / 4000);
    }

    #[tokio::test]
    async fn the_driver_yields_while_buffered_datagrams_are_delivered() {
        let fixture = Fixture::new();
        (0..3 * MAX_DELIVERED_IN_ROW).for_each(|n| fixture.queue(&[&[&rtp(n as u8)]]));
        assert!(fixture.read().is_empty());
        fixture.connected.send_replace(true);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut bytes, mut meta) = ([0; 64], [RecvMeta::default()]);
        let mut poll = || {
            fixture
                .socket
                .poll_recv(&mut cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
                .is_ready()
        };
        let polls: Vec<bool> = (0..MAX_DELIVERED_IN_ROW + 3).map(|_| poll()).collect();
        let ready = |range: std::ops::Range<usize>| polls[range].iter().filter(|one| **one).count();
        assert_eq!(
            (
                ready(0..MAX_DELIVERED_IN_ROW),
                ready(MAX_DELIVERED_IN_ROW..MAX_DELIVERED_IN_ROW + 2),
                ready(MAX_DELIVERED_IN_ROW + 2..MAX_DELIVERED_IN_ROW + 3)
            ),
            (MAX_DELIVERED_IN_ROW, 0, 1)
        );
    }
}
