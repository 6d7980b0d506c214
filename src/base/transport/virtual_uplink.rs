//! A way out of a machine in a network in memory, which its sockets share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::model::Bitrate;

/// Datagrams that may be on their way: half a second of 10 Mbit/s are 500.
const CAPACITY: usize = 8192;

/// How long a datagram takes behind the queue.
const DELAY: Duration = Duration::from_millis(20);

/// Bytes of UDP and IPv4 headers, which count towards the rate.
const HEADER_BYTES: usize = 28;

/// A bottleneck with a queue that the sockets of one machine share (see
/// [`VirtualNetwork::behind`](super::VirtualNetwork::behind)). Clones are the same bottleneck. Its
/// datagrams keep their order.
#[derive(Clone, Debug)]
pub struct VirtualUplink {
    rate: Bitrate,
    /// A datagram that would wait longer is dropped.
    queue: Duration,
    state: Arc<Mutex<State>>,
    departures: mpsc::Sender<(Instant, Delivery)>,
}

/// Delivers a datagram.
type Delivery = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct State {
    free_at: Instant,
    waits: Vec<(Instant, Duration)>,
}

impl VirtualUplink {
    /// A bottleneck with that rate and queue.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(rate: Bitrate, queue: Duration) -> Self {
        let (departures, waiting) = mpsc::channel(CAPACITY);
        tokio::spawn(deliver(waiting));
        let state = State { free_at: Instant::now(), waits: vec![] };
        Self { rate, queue, state: Arc::new(Mutex::new(state)), departures }
    }

    /// When datagrams came to the queue, and how long each had to wait.
    pub fn waits(&self) -> Vec<(Instant, Duration)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).waits.clone()
    }

    /// Takes a datagram of so many bytes, and delivers it later, unless the queue is full.
    pub(super) fn send(&self, bytes: usize, delivery: impl FnOnce() + Send + 'static) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = state.free_at.saturating_duration_since(now);
        state.waits.push((now, wait));
        if wait > self.queue {
            return;
        }
        let bits = (bytes + HEADER_BYTES) as f64 * 8.0;
        let sent = now + wait + Duration::from_secs_f64(bits / self.rate.as_bps() as f64);
        state.free_at = sent;
        // What does not fit is dropped, as by any full buffer.
        let _ = self.departures.try_send((sent + DELAY, Box::new(delivery)));
    }
}

/// Delivers each datagram at its time. Ends with the bottleneck.
async fn deliver(mut waiting: mpsc::Receiver<(Instant, Delivery)>) {
    while let Some((at, delivery)) = waiting.recv().await {
        sleep_until(at).await;
        delivery();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn datagrams_wait_for_each_other_and_a_full_queue_drops_them() {
        let begun = Instant::now();
        let uplink = VirtualUplink::new(Bitrate::from_kbps(80), Duration::from_millis(150));
        let (arrived, mut arrivals) = mpsc::channel(16);
        for number in 0..4 {
            let arrived = arrived.clone();
            uplink.send(972, move || arrived.try_send(number).expect("there is room"));
        }
        drop(arrived);
        // 1000 bytes take 100 ms. The fourth would wait 300 ms, the third 200.
        assert_eq!(arrivals.recv().await, Some(0));
        assert_eq!(begun.elapsed(), Duration::from_millis(120));
        assert_eq!(arrivals.recv().await, Some(1));
        assert_eq!(begun.elapsed(), Duration::from_millis(220));
        assert_eq!(arrivals.recv().await, None);
        let waits: Vec<_> = uplink.waits().iter().map(|(_, wait)| wait.as_millis()).collect();
        assert_eq!(waits, [0, 100, 200, 200]);
    }
}
