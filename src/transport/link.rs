//! A UDP socket behind a bad network.

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

/// Datagrams on their way at most. 2 Mbit/s for the longest delay and queue are about 4000; what
/// comes on top is dropped as by any full buffer.
const IN_FLIGHT: usize = 4096;

/// Bytes of UDP and IPv4 headers, which a link's rate pays for too.
const HEADERS: usize = 28;

/// A socket that loses, spoils, delays and reorders what is sent through it.
#[derive(Debug)]
pub(super) struct ImpairedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    terms: watch::Receiver<Impairment>,
    departures: mpsc::Sender<Departure>,
    // The trait sends through `&self`; only the connection's one driver ever does.
    fate: Mutex<Fate>,
}

/// A datagram that is on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Departure {
    arrives: Instant,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl ImpairedSocket {
    /// The socket, impaired by what `terms` says at each moment. Needs a tokio runtime.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, terms: watch::Receiver<Impairment>) -> Self {
        let (departures, queue) = mpsc::channel(IN_FLIGHT);
        tokio::spawn(carry(Arc::clone(&inner), queue));
        let fate = Mutex::new(Fate::new(terms.borrow().seed));
        Self { inner, terms, departures, fate }
    }
}

/// Sends each datagram when its time has come; ends with the socket, not waiting for the rest.
async fn carry(socket: Arc<dyn AsyncUdpSocket>, mut queue: mpsc::Receiver<Departure>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse(Departure { arrives, .. })| *arrives);
        tokio::select! {
            departure = queue.recv(), if waiting.len() < IN_FLIGHT => match departure {
                Some(departure) => waiting.push(Reverse(departure)),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some(Reverse(departure)) = waiting.pop()
                    && let Err(error) = socket.send_to(&departure.bytes, departure.to).await
                {
                    tracing::trace!(%error, "an impaired datagram could not be sent");
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
        let terms = *self.terms.borrow();
        if terms == (Impairment { seed: terms.seed, queue: terms.queue, ..Impairment::default() }) {
            return self.inner.poll_send(cx, transmit);
        }
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = transmit.contents.len().max(1);
        let length = transmit.segment_size.unwrap_or(whole).max(1);
        for bytes in transmit.contents.chunks(length) {
            if let Some(arrives) = fate.decide(&terms, bytes.len(), Instant::now()) {
                let mut bytes = bytes.to_vec();
                fate.spoil(&terms, &mut bytes);
                let departure = Departure { arrives, to: transmit.destination, bytes };
                // A full buffer drops, as networks do.
                let _ = self.departures.try_send(departure);
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
            if !self.terms.borrow().down {
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

/// Decides what becomes of each datagram: a function of the seed, the terms and the times.
#[derive(Debug)]
struct Fate {
    random: u64,
    free_at: Option<Instant>,
}

impl Fate {
    fn new(seed: u64) -> Self {
        Self { random: seed, free_at: None }
    }

    /// When a datagram of that many bytes arrives; `None` if it never does.
    fn decide(&mut self, terms: &Impairment, bytes: usize, now: Instant) -> Option<Instant> {
        let (lost, late) = (self.share() < terms.loss, self.share());
        if terms.down || lost {
            return None;
        }
        let mut departs = now;
        if let Some(rate) = terms.rate {
            let begins = self.free_at.map_or(now, |free| free.max(now));
            if begins - now > terms.queue {
                return None;
            }
            let bits = ((bytes + HEADERS) * 8) as f64;
            departs = begins + Duration::from_secs_f64(bits / rate.as_bps().max(1) as f64);
            self.free_at = Some(departs);
        }
        Some(departs + terms.delay + terms.jitter.mul_f64(late))
    }

    /// Flips one bit of a datagram, if it is one of those.
    fn spoil(&mut self, terms: &Impairment, datagram: &mut [u8]) {
        // Drawn only if it matters: the same seed goes on meaning the same losses and delays.
        if terms.flip == 0.0 || self.share() >= terms.flip {
            return;
        }
        let bit = (self.share() * (datagram.len() * 8) as f64) as usize;
        if let Some(byte) = datagram.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// A number between 0 and 1 (SplitMix64: Steele, Lea and Flood, 2014).
    fn share(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Bitrate;

    #[test]
    fn the_same_seed_loses_the_same_datagrams_and_about_the_share_it_should() {
        let terms = Impairment { loss: 0.1, ..Impairment::default() };
        let fates = |seed| {
            let (mut fate, now) = (Fate::new(seed), Instant::now());
            (0..10_000).map(|_| fate.decide(&terms, 1, now).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        let lost = fates(7).iter().filter(|arrives| !**arrives).count();
        assert!((900..1100).contains(&lost), "{lost} of 10000");
    }

    #[test]
    fn one_bit_is_flipped_of_about_the_share_of_datagrams_it_should_be() {
        let terms = Impairment { flip: 0.1, ..Impairment::default() };
        let mut fate = Fate::new(7);
        let flipped: Vec<_> = (0..10_000)
            .map(|_| {
                let mut datagram = [0_u8; 20];
                fate.spoil(&terms, &mut datagram);
                datagram.map(u8::count_ones).iter().sum::<u32>()
            })
            .collect();
        assert!(flipped.iter().all(|bits| *bits <= 1));
        let spoilt = flipped.iter().filter(|bits| **bits == 1).count();
        assert!((900..1100).contains(&spoilt), "{spoilt} of 10000");
        fate.spoil(&Impairment { flip: 1.0, ..terms }, &mut []);
    }

    #[test]
    fn a_datagram_is_late_by_the_delay_and_at_most_the_jitter() {
        let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(20));
        let terms = Impairment { delay, jitter, ..Impairment::default() };
        let (mut fate, now) = (Fate::new(1), Instant::now());
        let late: Vec<_> = (0..1000).map(|_| fate.decide(&terms, 1, now).unwrap() - now).collect();
        assert!(late.iter().all(|late| (delay..=delay + jitter).contains(late)));
        assert!(late.iter().any(|late| *late > delay + jitter / 2));
    }

    #[test]
    fn a_slow_link_queues_and_then_drops_the_tail() {
        // 1000 datagrams a second of 972 + 28 bytes.
        let rate = Some(Bitrate::from_kbps(8000));
        let terms = Impairment { rate, queue: Duration::from_millis(10), ..Impairment::default() };
        let (mut fate, now) = (Fate::new(1), Instant::now());
        let arrivals: Vec<_> =
            (0..20).filter_map(|_| fate.decide(&terms, 972, now)).map(|at| at - now).collect();
        assert_eq!(arrivals.len(), 11);
        assert_eq!(arrivals[10], Duration::from_millis(11));
        let later = now + Duration::from_millis(11);
        assert_eq!(fate.decide(&terms, 972, later), Some(later + Duration::from_millis(1)));
    }

    #[test]
    fn nothing_passes_a_link_that_is_down() {
        let terms = Impairment { down: true, ..Impairment::default() };
        assert_eq!(Fate::new(1).decide(&terms, 1, Instant::now()), None);
    }
}
