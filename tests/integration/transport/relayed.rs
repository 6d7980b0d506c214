//! Two endpoints with a relay between them, which inspects and drops packets. Tests consent to
//! media (RFC 7675), and the offered ciphers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quintet::{
    media::{EncodedAudio, Fanout},
    model::PeerState,
};
use tokio::time::{Instant, interval, sleep, timeout};

use super::{
    frames::audio_packet,
    pair::Endpoint,
    relay::{AUDIO, RelaySockets, is_media},
};

/// The time within which both endpoints notice that a path is dead in one direction.
const NOTICED: Duration = Duration::from_secs(30);

/// Two endpoints that are connected through a relay. The first one sends audio.
struct Call {
    a: Endpoint,
    b: Endpoint,
    relay: Relay,
}

/// The relay's settings and what it observed.
#[derive(Clone, Default)]
struct Relay {
    /// Whether STUN responses of the second endpoint are dropped; its requests are not.
    drops_responses: Arc<AtomicBool>,
    /// Whether all datagrams of the first endpoint are dropped.
    is_one_way: Arc<AtomicBool>,
    /// Media packets that arrived from the first endpoint.
    media: Arc<AtomicUsize>,
    /// The latest DTLS ClientHello (RFC 6347, section 4.2.2).
    hello: Arc<Mutex<Bytes>>,
}

impl Call {
    async fn new() -> Self {
        let (sockets, mut a, mut b) = RelaySockets::between_two_endpoints(AUDIO).await;
        let relay = Relay::default();
        tokio::spawn(relay.clone().run(sockets));
        a.until_state(PeerState::Connected).await;
        b.until_state(PeerState::Connected).await;
        let fanout = Fanout::<EncodedAudio>::default();
        a.connection.send_audio(Some(fanout.subscribe(25)));
        tokio::spawn(async move {
            let mut clock = interval(Duration::from_millis(20));
            for number in 0.. {
                clock.tick().await;
                fanout.publish(audio_packet(number));
            }
        });
        Self { a, b, relay }
    }
}

impl Relay {
    async fn run(self, mut sockets: RelaySockets) {
        loop {
            let (from, datagram) = sockets.recv().await;
            if let [22, _, _, _, _, _, _, _, _, _, _, _, _, 1, ..] = datagram[..] {
                *self.hello.lock().expect("no task panicked") = datagram.clone();
            }
            let is_lost = if from == 0 {
                self.media.fetch_add(is_media(&datagram).into(), Ordering::Relaxed);
                self.is_one_way.load(Ordering::Relaxed)
            } else {
                // A success response to a binding request (RFC 8489, section 5).
                self.drops_responses.load(Ordering::Relaxed) && datagram.starts_with(&[1, 1])
            };
            if !is_lost {
                sockets.forward(from, &datagram);
            }
        }
    }

    fn media(&self) -> usize {
        self.media.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_requests_but_no_responses_soon_gets_no_media() {
    let Call { mut a, b: _b, relay } = Call::new().await;
    let media_flow = async {
        while relay.media() < 50 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(NOTICED, media_flow).await.expect("media flow");
    relay.drops_responses.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    timeout(NOTICED, a.until_state(PeerState::Failed)).await.expect("the failure is reported");
    let sent = relay.media();
    println!("failed after {:.1} s", begun.elapsed().as_secs_f64());
    sleep(Duration::from_secs(2)).await;
    assert!(relay.media() <= sent + 5, "{} packets after {sent}", relay.media());
}

#[tokio::test(start_paused = true)]
async fn a_path_that_is_dead_in_one_direction_is_noticed_by_both_ends() {
    let Call { mut a, mut b, relay } = Call::new().await;
    relay.is_one_way.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let both = async {
        tokio::join!(a.until_state(PeerState::Failed), b.until_state(PeerState::Failed));
    };
    timeout(NOTICED, both).await.expect("both report the failure");
    println!("noticed after {:.1} s", begun.elapsed().as_secs_f64());
}

/// Only authenticated ciphers are offered: GCM and ChaCha20-Poly1305 for DTLS (RFC 5289, RFC 7905),
/// and GCM or a tag of 80 bits for SRTP (RFC 7714, RFC 5764).
#[tokio::test(start_paused = true)]
async fn no_weak_cipher_is_offered() {
    let Call { relay, .. } = Call::new().await;
    let hello = relay.hello.lock().expect("no task panicked").clone();
    // Session id and cookie come behind the record header, handshake header, version and random.
    let mut remaining = &hello[13 + 12 + 2 + 32..];
    for _ in 0..2 {
        remaining = &remaining[1 + usize::from(remaining[0])..];
    }
    let (suites, remaining) = split_list(remaining);
    let suites = suites.chunks(2).map(|id| u16::from_be_bytes([id[0], id[1]]));
    // The last one signals secure renegotiation (RFC 5746, section 3.3).
    let known = [0xc02b, 0xc02f, 0xcca8, 0xcca9, 0x00ff];
    let suites: Vec<u16> = suites.collect();
    assert!(suites.contains(&0xc02b) && suites.iter().all(|id| known.contains(id)), "{suites:x?}");
    let (mut extensions, _) = split_list(&remaining[1 + usize::from(remaining[0])..]);
    let mut profiles = None;
    while !extensions.is_empty() {
        let (body, next) = split_list(&extensions[2..]);
        if extensions[..2] == [0, 14] {
            profiles = Some(split_list(body).0);
        }
        extensions = next;
    }
    assert_eq!(profiles, Some(&[0, 7, 0, 8, 0, 1][..]));
}

/// Splits off a list with a length prefix of two bytes. Returns the list and the bytes behind it.
fn split_list(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[2..].split_at(u16::from_be_bytes([bytes[0], bytes[1]]).into())
}
