//! A UDP socket that simulates a bad network.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io::{self, IoSliceMut},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::Impairment;

/// Datagrams that may be in flight. 2 Mbit/s with the longest delay and queue are about 4000;
/// further ones are dropped, as by any full buffer.
const MAX_IN_FLIGHT: usize = 4096;

/// Bytes of UDP and IPv4 headers, which count towards the bottleneck's rate too.
const HEADER_BYTES: usize = 28;

/// A socket that drops, corrupts, delays and reorders the datagrams that are sent through it.
#[derive(Debug)]
pub(super) struct ImpairedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    impairment: watch::Receiver<Impairment>,
    in_flight: mpsc::Sender<InFlight>,
    // The trait sends through `&self`; only the connection's one driver ever does.
    network: Mutex<NetworkModel>,
}

/// A datagram that has not arrived yet.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    arrives: Instant,
    /// Datagrams with the same arrival time arrive in the order in which they were sent.
    number: u64,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl ImpairedSocket {
    /// Wraps `inner` with an impairment that may change at any time. Needs a tokio runtime.
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        impairment: watch::Receiver<Impairment>,
    ) -> Self {
        let (in_flight, queue) = mpsc::channel(MAX_IN_FLIGHT);
        tokio::spawn(deliver(Arc::clone(&inner), queue));
        let network = Mutex::new(NetworkModel::new(impairment.borrow().seed));
        Self { inner, impairment, in_flight, network }
    }
}

/// Sends each datagram at its arrival time. Ends with the socket, without sending the remaining
/// ones.
async fn deliver(socket: Arc<dyn AsyncUdpSocket>, mut queue: mpsc::Receiver<InFlight>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse(InFlight { arrives, .. })| *arrives);
        tokio::select! {
            datagram = queue.recv(), if waiting.len() < MAX_IN_FLIGHT => match datagram {
                Some(datagram) => waiting.push(Reverse(datagram)),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some(Reverse(datagram)) = waiting.pop()
                    && let Err(error) = socket.send_to(&datagram.bytes, datagram.to).await
                {
                    tracing::trace!(%error, "delayed datagram not sent");
                }
            }
        }
    }
}

impl AsyncUdpSocket for ImpairedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let impairment = *self.impairment.borrow();
        let Impairment { seed, queue, .. } = impairment;
        if impairment == (Impairment { seed, queue, ..Impairment::default() }) {
            return self.inner.poll_send(cx, transmit);
        }
        let mut network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.reseed(seed);
        let total_length = transmit.contents.len().max(1);
        let length = transmit.segment_size.unwrap_or(total_length).max(1);
        for bytes in transmit.contents.chunks(length) {
            if let Some(arrives) = network.arrival(&impairment, bytes, Instant::now()) {
                let mut bytes = bytes.to_vec();
                network.corrupt(&impairment, &mut bytes);
                network.delivered += 1;
                let (number, to) = (network.delivered, transmit.destination);
                let datagram = InFlight { arrives, number, to, bytes };
                // A full buffer drops the datagram, as in a real network.
                let _ = self.in_flight.try_send(datagram);
            }
        }
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let received = ready!(self.inner.poll_recv(cx, bufs, meta));
            if !self.impairment.borrow().down {
                return Poll::Ready(received);
            }
            if received.is_err() {
                return Poll::Ready(received);
            }
        }
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

/// Decides what happens to each datagram, as a function of the seed, the impairment and the times.
#[derive(Debug)]
struct NetworkModel {
    seed: u64,
    /// The random numbers for RTP, and those for everything else. Times of checks and reports vary
    /// from run to run, and must not change which media are lost.
    rngs: [Rng; 2],
    /// Whether the last datagram of each kind was lost in a burst.
    is_bursting: [bool; 2],
    /// Datagrams that were not lost so far.
    delivered: u64,
    free_at: Option<Instant>,
}

impl NetworkModel {
    fn new(seed: u64) -> Self {
        Self { seed, rngs: Rng::pair(seed), is_bursting: [false; 2], delivered: 0, free_at: None }
    }

    /// Begins again with another seed, unless it is the same.
    fn reseed(&mut self, seed: u64) {
        if self.seed != seed {
            (self.seed, self.rngs, self.is_bursting) = (seed, Rng::pair(seed), [false; 2]);
        }
    }

    /// When a datagram arrives; `None` if it is lost.
    fn arrival(
        &mut self,
        impairment: &Impairment,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Instant> {
        let rng = self.rng(datagram);
        let (loss_fraction, jitter_fraction) = (rng.fraction(), rng.fraction());
        let is_lost = self.is_lost(impairment, datagram, loss_fraction);
        if impairment.down || is_lost {
            return None;
        }
        let mut departs = now;
        if let Some(rate) = impairment.rate {
            let begins = self.free_at.map_or(now, |free| free.max(now));
            if begins - now > impairment.queue {
                return None;
            }
            let bits = ((datagram.len() + HEADER_BYTES) * 8) as f64;
            departs = begins + Duration::from_secs_f64(bits / rate.as_bps().max(1) as f64);
            self.free_at = Some(departs);
        }
        Some(departs + impairment.delay + impairment.jitter.mul_f64(jitter_fraction))
    }

    /// Whether the network loses a datagram for which this number between 0 and 1 was drawn.
    ///
    /// Gilbert's model: a burst ends after each datagram with a probability of 1 / `burst`, and one
    /// begins so often that `loss` is the share of datagrams that are in one.
    fn is_lost(&mut self, impairment: &Impairment, datagram: &[u8], drawn: f64) -> bool {
        let Impairment { loss, burst, .. } = *impairment;
        if burst <= 1.0 || loss >= 1.0 {
            return drawn < loss;
        }
        // At least one datagram arrives between two bursts, so a high loss needs long ones.
        let burst = burst.max(loss / (1.0 - loss));
        let is_bursting = &mut self.is_bursting[usize::from(!is_rtp(datagram))];
        let lost = if *is_bursting { 1.0 - 1.0 / burst } else { loss / (burst * (1.0 - loss)) };
        *is_bursting = drawn < lost;
        *is_bursting
    }

    /// Flips one bit of a datagram with the impairment's probability.
    fn corrupt(&mut self, impairment: &Impairment, datagram: &mut [u8]) {
        // A number is drawn only if bits are flipped at all, so that a seed keeps its losses and
        // delays.
        let rng = self.rng(datagram);
        if impairment.flip == 0.0 || rng.fraction() >= impairment.flip {
            return;
        }
        let bit = (rng.fraction() * (datagram.len() * 8) as f64) as usize;
        if let Some(byte) = datagram.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// The random numbers for a datagram.
    fn rng(&mut self, datagram: &[u8]) -> &mut Rng {
        &mut self.rngs[usize::from(!is_rtp(datagram))]
    }
}

/// Whether a datagram is RTP. It is told from RTCP by its second byte (RFC 5761, section 4) and
/// from everything else by its first (RFC 7983).
const fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !matches!(*second, 192..=223))
}

/// A source of random numbers (SplitMix64: Steele, Lea and Flood, 2014).
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    /// Two sources with different numbers.
    const fn pair(seed: u64) -> [Self; 2] {
        [Self(seed), Self(!seed)]
    }

    /// A number between 0 and 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{model::Bitrate, transport::VirtualNetwork};

    #[tokio::test(start_paused = true)]
    async fn datagrams_of_one_moment_keep_their_order() {
        let network = VirtualNetwork::default();
        let [from, to] = [(); 2].map(|()| network.bind(Ipv4Addr::LOCALHOST.into()).unwrap());
        let delay = Duration::from_millis(50);
        let (_impairment, far) = watch::channel(Impairment { delay, ..Impairment::default() });
        let socket = ImpairedSocket::new(Arc::new(from), far);
        let begun = Instant::now();
        for number in (0..100_u8).rev() {
            socket.send_to(&[number], to.address()).await.unwrap();
        }
        for number in (0..100_u8).rev() {
            assert_eq!(to.recv().await.0, [number][..]);
        }
        assert_eq!(begun.elapsed(), delay);
    }

    #[test]
    fn the_same_seed_loses_the_same_datagrams_and_about_the_configured_share() {
        let impairment = Impairment { loss: 0.1, ..Impairment::default() };
        let arrivals = |seed| {
            let (mut network, now) = (NetworkModel::new(seed), Instant::now());
            (0..10_000)
                .map(|_| network.arrival(&impairment, &[128], now).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(arrivals(7), arrivals(7));
        assert_ne!(arrivals(7), arrivals(8));
        let lost = arrivals(7).iter().filter(|arrives| !**arrives).count();
        assert!((900..1100).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn bursts_have_the_configured_mean_length_and_lose_the_configured_share() {
        let impairment = Impairment { loss: 0.2, burst: 3.0, ..Impairment::default() };
        let (mut network, now) = (NetworkModel::new(7), Instant::now());
        let lost: Vec<_> =
            (0..100_000).map(|_| network.arrival(&impairment, &[128, 96], now).is_none()).collect();
        let count = lost.iter().filter(|lost| **lost).count();
        let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        assert!((19_000..21_000).contains(&count), "{count} of 100000");
        let mean = count as f64 / bursts as f64;
        assert!((2.8..3.2).contains(&mean), "{mean}");
        let lost = |loss| {
            let impairment = Impairment { loss, ..impairment };
            let mut network = NetworkModel::new(7);
            (0..10_000).filter(|_| network.arrival(&impairment, &[128, 96], now).is_none()).count()
        };
        assert_eq!((lost(0.0), lost(1.0)), (0, 10_000));
        assert!((8_800..9_200).contains(&lost(0.9)), "{}", lost(0.9));
    }

    #[test]
    fn what_is_lost_of_rtp_does_not_depend_on_other_packets() {
        let impairment = Impairment { loss: 0.5, ..Impairment::default() };
        let (rtp, rtcp, stun) = ([0x80, 111], [0x80, 200], [0, 1]);
        let fates = |others: &[[u8; 2]]| {
            let (mut network, now) = (NetworkModel::new(7), Instant::now());
            let mut arrives = |datagram: &[u8]| network.arrival(&impairment, datagram, now);
            (0..64)
                .map(|_| {
                    for other in others {
                        arrives(other);
                    }
                    arrives(&rtp).is_some()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(fates(&[]), fates(&[rtcp, stun]));
        assert_ne!(fates(&[]), fates(&[rtp]));
    }

    #[test]
    fn another_seed_begins_again_and_the_same_seed_continues() {
        let impairment = Impairment { loss: 0.5, ..Impairment::default() };
        let fates = |network: &mut NetworkModel| {
            let now = Instant::now();
            (0..64).map(|_| network.arrival(&impairment, &[128], now).is_some()).collect::<Vec<_>>()
        };
        let mut network = NetworkModel::new(7);
        let first = fates(&mut network);
        network.reseed(7);
        assert_ne!(fates(&mut network), first);
        network.reseed(8);
        network.reseed(7);
        assert_eq!(fates(&mut network), first);
    }

    #[test]
    fn one_bit_is_flipped_in_about_the_configured_share_of_datagrams() {
        let impairment = Impairment { flip: 0.1, ..Impairment::default() };
        let mut network = NetworkModel::new(7);
        let flipped: Vec<_> = (0..10_000)
            .map(|_| {
                let mut datagram = [0_u8; 20];
                network.corrupt(&impairment, &mut datagram);
                datagram.map(u8::count_ones).iter().sum::<u32>()
            })
            .collect();
        assert!(flipped.iter().all(|bits| *bits <= 1));
        let corrupted = flipped.iter().filter(|bits| **bits == 1).count();
        assert!((900..1100).contains(&corrupted), "{corrupted} of 10000");
        network.corrupt(&Impairment { flip: 1.0, ..impairment }, &mut []);
    }

    #[test]
    fn a_datagram_is_delayed_by_the_delay_and_at_most_the_jitter() {
        let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(20));
        let impairment = Impairment { delay, jitter, ..Impairment::default() };
        let (mut network, now) = (NetworkModel::new(1), Instant::now());
        let delays: Vec<_> =
            (0..1000).map(|_| network.arrival(&impairment, &[128], now).unwrap() - now).collect();
        assert!(delays.iter().all(|one| (delay..=delay + jitter).contains(one)));
        assert!(delays.iter().any(|one| *one > delay + jitter / 2));
    }

    #[test]
    fn a_bottleneck_queues_and_then_drops_the_tail() {
        // 1000 datagrams a second of 972 + 28 bytes.
        let rate = Some(Bitrate::from_kbps(8000));
        let impairment =
            Impairment { rate, queue: Duration::from_millis(10), ..Impairment::default() };
        let (mut network, now) = (NetworkModel::new(1), Instant::now());
        let arrivals: Vec<_> = (0..20)
            .filter_map(|_| network.arrival(&impairment, &[0; 972], now))
            .map(|at| at - now)
            .collect();
        assert_eq!(arrivals.len(), 11);
        assert_eq!(arrivals[10], Duration::from_millis(11));
        let later = now + Duration::from_millis(11);
        assert_eq!(
            network.arrival(&impairment, &[0; 972], later),
            Some(later + Duration::from_millis(1))
        );
    }

    #[test]
    fn all_datagrams_are_lost_while_the_network_is_down() {
        let impairment = Impairment { down: true, ..Impairment::default() };
        assert_eq!(NetworkModel::new(1).arrival(&impairment, &[0], Instant::now()), None);
    }
}
