//! A UDP socket that keeps media that come before the handshake is over.
//!
//! The other end may send as soon as it has said its last word of the DTLS handshake. What comes
//! right behind that word, or overtakes it, is read by the library before it has the keys, and is
//! dropped: the first packets of the first keyframe, without which none of it can be shown. Here
//! it waits until the connection is up.
//!
//! Only who passed an ICE check gets this far (`admission.rs`), and no more is kept than fits.

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

/// Datagrams that are kept at most: a keyframe of 1080p and the sound beside it.
const DATAGRAMS: usize = 512;

/// Bytes that are kept at most: as many datagrams of the usual length, and some more.
const BYTES: usize = 1 << 20;

/// Datagrams that are handed on before the driver is made to let others run: the library's queue
/// for a track takes 256 packets and drops more.
const TURN: usize = 32;

/// The socket.
#[derive(Debug)]
pub(super) struct EarlySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    // The trait receives through `&self`; only the connection's one driver ever does.
    kept: Mutex<Kept>,
}

/// What came early.
struct Kept {
    /// Completes when the connection is up; `None` after that.
    up: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    datagrams: VecDeque<(RecvMeta, Vec<u8>)>,
    bytes: usize,
    /// Datagrams that were handed on since others could run.
    handed: usize,
    /// How often reading is still to be put off.
    put_off: u8,
}

impl EarlySocket {
    /// The socket; `up` tells when the connection is up.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, mut up: watch::Receiver<bool>) -> Self {
        let up = async move {
            if up.wait_for(|up| *up).await.is_err() {
                pending::<()>().await;
            }
        };
        Self { inner, kept: Mutex::new(Kept::new(Box::pin(up))) }
    }

    /// Reads from the network, and keeps the media that it finds.
    fn poll_early(
        &self,
        cx: &mut Context<'_>,
        (buffer, meta): (&mut IoSliceMut<'_>, &mut RecvMeta),
        kept: &mut Kept,
    ) -> Poll<io::Result<usize>> {
        loop {
            let (buffers, metas) = (std::slice::from_mut(buffer), std::slice::from_mut(meta));
            let received = ready!(self.inner.poll_recv(cx, buffers, metas));
            if !matches!(received, Ok(1..)) || kept.keep_media(buffer, meta) {
                return Poll::Ready(received);
            }
        }
    }
}

impl AsyncUdpSocket for EarlySocket {
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
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let ([buffer, ..], [meta, ..]) = (&mut *bufs, &mut *meta) {
            if !kept.is_up(cx) {
                return self.poll_early(cx, (buffer, meta), &mut kept);
            }
            if !kept.datagrams.is_empty() {
                ready!(kept.poll_turn(cx));
                kept.hand_on(buffer, meta);
                return Poll::Ready(Ok(1));
            }
        }
        drop(kept);
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

impl Kept {
    fn new(up: Pin<Box<dyn Future<Output = ()> + Send>>) -> Self {
        Self { up: Some(up), datagrams: VecDeque::new(), bytes: 0, handed: 0, put_off: 0 }
    }

    /// Whether the connection is up; if not, the task is woken when it is.
    fn is_up(&mut self, cx: &mut Context<'_>) -> bool {
        let is_up = self.up.as_mut().is_none_or(|up| up.as_mut().poll(cx).is_ready());
        if is_up {
            self.up = None;
        }
        is_up
    }

    /// Takes the media out of what came in at once; whether anything else is left.
    fn keep_media(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) -> bool {
        let stride = meta.stride.max(1);
        let (mut at, mut left) = (0, 0);
        while at < meta.len.min(buffer.len()) {
            let end = (at + stride).min(meta.len).min(buffer.len());
            if is_media(&buffer[at..end]) {
                self.keep(&buffer[at..end], meta);
            } else {
                // All are of one length but the last: they stay so without some of them.
                buffer.copy_within(at..end, left);
                left += end - at;
            }
            at = end;
        }
        let came = meta.len;
        meta.len = left;
        left > 0 || came == 0
    }

    /// Keeps a datagram; the newest is dropped if it does not fit.
    fn keep(&mut self, datagram: &[u8], meta: &RecvMeta) {
        if self.datagrams.len() == DATAGRAMS || self.bytes + datagram.len() > BYTES {
            return;
        }
        let mut meta = *meta;
        (meta.len, meta.stride) = (datagram.len(), datagram.len());
        self.bytes += datagram.len();
        self.datagrams.push_back((meta, datagram.to_vec()));
    }

    /// Ready unless others are to run before the next datagram.
    ///
    /// The driver probes for more than one datagram, without a waker, and then really waits: only
    /// the second refusal makes it let others run.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.handed == TURN {
            (self.handed, self.put_off) = (0, 2);
        }
        if self.put_off == 0 {
            return Poll::Ready(());
        }
        self.put_off -= 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn hand_on(&mut self, buffer: &mut [u8], meta: &mut RecvMeta) {
        let Some((of, datagram)) = self.datagrams.pop_front() else { return };
        self.bytes -= datagram.len();
        self.handed += 1;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        *meta = of;
        (meta.len, meta.stride) = (length, length);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("datagrams", &self.datagrams.len()).finish_non_exhaustive()
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

    /// A network that brings what it was given, at once.
    #[derive(Debug, Default)]
    struct Network(Mutex<VecDeque<Vec<Vec<u8>>>>);

    impl AsyncUdpSocket for Network {
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

    struct Stage {
        network: Arc<Network>,
        socket: EarlySocket,
        up: watch::Sender<bool>,
    }

    impl Stage {
        fn new() -> Self {
            let (network, up) = (Arc::<Network>::default(), watch::Sender::new(false));
            let inner: Arc<dyn AsyncUdpSocket> = Arc::clone(&network) as _;
            Self { network, socket: EarlySocket::new(inner, up.subscribe()), up }
        }

        /// Has datagrams come in, those of one list at once.
        fn bring(&self, datagrams: &[&[&[u8]]]) {
            let datagrams = datagrams.iter().map(|once| once.iter().map(|d| d.to_vec()).collect());
            self.network.0.lock().unwrap().extend(datagrams);
        }

        /// What is read until nothing more is there: datagrams, one after the other.
        fn read(&self) -> Vec<Vec<u8>> {
            let (mut read, mut refused) = (vec![], 0);
            while refused < 3 {
                let (mut bytes, mut meta) = ([0; 4096], [RecvMeta::default()]);
                let mut bufs = [IoSliceMut::new(&mut bytes)];
                let mut cx = Context::from_waker(Waker::noop());
                match self.socket.poll_recv(&mut cx, &mut bufs, &mut meta) {
                    Poll::Ready(received) => {
                        assert_eq!((received.unwrap(), meta[0].addr), (1, FROM));
                        let datagrams = bytes[..meta[0].len].chunks(meta[0].stride.max(1));
                        read.extend(datagrams.map(<[u8]>::to_vec));
                        refused = 0;
                    }
                    Poll::Pending => refused += 1,
                }
            }
            read
        }
    }

    /// A media packet, and a record of the handshake, of one length.
    const fn rtp(n: u8) -> [u8; 3] {
        [0x80, 96, n]
    }

    const RECORD: [u8; 3] = [22, 254, 253];

    #[tokio::test]
    async fn media_that_come_before_the_connection_is_up_are_read_then_and_in_order() {
        let stage = Stage::new();
        stage.bring(&[&[&rtp(1)], &[&RECORD], &[&rtp(2), &RECORD, &rtp(3), &[20, 1]], &[&[1]]]);
        assert_eq!(stage.read(), [&RECORD[..], &RECORD, &[20, 1], &[1]]);
        stage.up.send_replace(true);
        stage.bring(&[&[&rtp(4)]]);
        assert_eq!(stage.read(), [1, 2, 3, 4].map(|n| rtp(n).to_vec()));
        stage.bring(&[&[&rtp(5), &rtp(6)]]);
        assert_eq!(stage.read(), [5, 6].map(|n| rtp(n).to_vec()));
    }

    #[tokio::test]
    async fn who_waits_for_the_next_datagram_is_woken_by_the_connection() {
        let stage = Stage::new();
        stage.bring(&[&[&rtp(1)]]);
        let (mut bytes, mut meta) = ([0; 64], [RecvMeta::default()]);
        let mut read = receive(&stage.socket, &mut bytes, &mut meta);
        assert!(futures_util::poll!(&mut read).is_pending());
        stage.up.send_replace(true);
        assert_eq!(read.await.unwrap(), 1);
        assert_eq!(bytes[..3], rtp(1));
    }

    fn receive<'a>(
        socket: &'a EarlySocket,
        bytes: &'a mut [u8],
        meta: &'a mut [RecvMeta],
    ) -> Pin<Box<dyn Future<Output = io::Result<usize>> + 'a>> {
        Box::pin(std::future::poll_fn(move |cx| {
            socket.poll_recv(cx, &mut [IoSliceMut::new(bytes)], meta)
        }))
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_the_first_stays() {
        let stage = Stage::new();
        for n in 0..2 * DATAGRAMS {
            stage.bring(&[&[&rtp(n as u8)]]);
        }
        assert!(stage.read().is_empty());
        stage.up.send_replace(true);
        let read = stage.read();
        assert_eq!(
            (read.len(), &read[0][..], &read[255][..]),
            (DATAGRAMS, &rtp(0)[..], &rtp(255)[..])
        );
        let stage = Stage::new();
        let large = [0x80; 4000];
        (0..DATAGRAMS).for_each(|_| stage.bring(&[&[&large]]));
        assert!(stage.read().is_empty());
        stage.up.send_replace(true);
        assert_eq!(stage.read().len(), BYTES / 4000);
    }

    #[tokio::test]
    async fn others_run_while_what_was_kept_is_handed_on() {
        let stage = Stage::new();
        (0..3 * TURN).for_each(|n| stage.bring(&[&[&rtp(n as u8)]]));
        assert!(stage.read().is_empty());
        stage.up.send_replace(true);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut bytes, mut meta) = ([0; 64], [RecvMeta::default()]);
        let mut poll = || {
            stage
                .socket
                .poll_recv(&mut cx, &mut [IoSliceMut::new(&mut bytes)], &mut meta)
                .is_ready()
        };
        let polls: Vec<bool> = (0..TURN + 3).map(|_| poll()).collect();
        let ready = |range: std::ops::Range<usize>| polls[range].iter().filter(|one| **one).count();
        assert_eq!(
            (ready(0..TURN), ready(TURN..TURN + 2), ready(TURN + 2..TURN + 3)),
            (TURN, 0, 1)
        );
    }
}
