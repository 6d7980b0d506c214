//! Two ends with a relay between them, which sees what they say and loses a part of it: consent to
//! media (RFC 7675), and the ciphers that are offered.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use quintet::{
    media::{EncodedAudio, Fanout},
    model::{Direction::SendRecv, PeerCommand, PeerMedia, PeerState},
};
use tokio::{
    net::UdpSocket,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    early::{address, at_port, candidate, is_media, listen},
    frames::sound,
    pair::End,
};

const AUDIO: PeerMedia = PeerMedia { audio: Some(SendRecv), video: None, data: false };

/// By when both ends know of a path that carries nothing in one direction.
const NOTICED: Duration = Duration::from_secs(30);

/// Two ends that are connected through a relay, the first of which sends sound.
struct Call {
    a: End,
    b: End,
    path: Path,
}

/// What the relay does, and what it saw.
#[derive(Clone, Default)]
struct Path {
    /// Answers of the second end get lost, its requests do not.
    loses_answers: Arc<AtomicBool>,
    /// Everything of the first end gets lost.
    is_one_way: Arc<AtomicBool>,
    /// Media of the first end that came here.
    media: Arc<AtomicUsize>,
    /// The first words of the DTLS handshake (RFC 6347, section 4.2.2).
    hello: Arc<Mutex<Vec<u8>>>,
}

impl Call {
    async fn new() -> Self {
        let (mut a, mut b) = (End::open("a", AUDIO, None), End::open("b", AUDIO, None));
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let from_a = candidate(&mut a, |_| true).await;
        let (ip, _) = address(&from_a);
        let sockets = [listen(ip).await, listen(ip).await];
        let ports = sockets.each_ref().map(|one| one.local_addr().expect("it is bound").port());
        let path = Path::default();
        tokio::spawn(path.clone().carry(sockets));
        let answer = b.accept_offer(&offer);
        let answer = b.description(answer).await;
        let from_b = candidate(&mut b, |other| other == ip).await;
        a.accept_answer(&answer);
        a.connection.command(PeerCommand::AddCandidate(at_port(&from_b, ports[0])));
        b.connection.command(PeerCommand::AddCandidate(at_port(&from_a, ports[1])));
        a.until_state(PeerState::Connected).await;
        b.until_state(PeerState::Connected).await;
        let fanout = Fanout::<EncodedAudio>::default();
        a.connection.send_audio(Some(fanout.subscribe(25)));
        tokio::spawn(async move {
            let mut clock = interval(Duration::from_millis(20));
            for number in 0.. {
                clock.tick().await;
                fanout.publish(sound(number));
            }
        });
        Self { a, b, path }
    }
}

impl Path {
    async fn carry(self, sockets: [UdpSocket; 2]) {
        let ip = sockets[0].local_addr().expect("it is bound").ip();
        let mut ends: [Option<SocketAddr>; 2] = [None, None];
        let mut buffers = [[0; 2048]; 2];
        loop {
            let [first, second] = &mut buffers;
            let (from, (length, address)) = tokio::select! {
                read = sockets[0].recv_from(first) => (0, read.expect("it is bound")),
                read = sockets[1].recv_from(second) => (1, read.expect("it is bound")),
            };
            if address.ip() != ip || *ends[from].get_or_insert(address) != address {
                continue;
            }
            let datagram = &buffers[from][..length];
            if let [22, _, _, _, _, _, _, _, _, _, _, _, _, 1, ..] = datagram {
                *self.hello.lock().expect("nobody panics") = datagram.to_vec();
            }
            let is_lost = if from == 0 {
                self.media.fetch_add(is_media(datagram).into(), Ordering::Relaxed);
                self.is_one_way.load(Ordering::Relaxed)
            } else {
                // A success of a binding request (RFC 8489, section 5).
                self.loses_answers.load(Ordering::Relaxed) && datagram.starts_with(&[1, 1])
            };
            if let Some(to) = ends[1 - from].filter(|_| !is_lost) {
                // An end that has closed its socket is told to nobody.
                let _ = sockets[1 - from].send_to(datagram, to).await;
            }
        }
    }

    fn media(&self) -> usize {
        self.media.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn who_asks_but_does_not_answer_is_sent_nothing_for_long() {
    let Call { mut a, b: _b, path } = Call::new().await;
    let flows = async {
        while path.media() < 50 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(NOTICED, flows).await.expect("media flow");
    path.loses_answers.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    timeout(NOTICED, a.until_state(PeerState::Failed)).await.expect("it is told that it failed");
    let sent = path.media();
    println!("given up after {:.1} s", begun.elapsed().as_secs_f64());
    sleep(Duration::from_secs(2)).await;
    assert!(path.media() <= sent + 5, "{} packets after {sent}", path.media());
}

#[tokio::test]
async fn a_path_that_is_dead_in_one_direction_is_noticed_by_both_ends() {
    let Call { mut a, mut b, path } = Call::new().await;
    path.is_one_way.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let both = async {
        tokio::join!(a.until_state(PeerState::Failed), b.until_state(PeerState::Failed));
    };
    timeout(NOTICED, both).await.expect("both are told that it failed");
    println!("noticed after {:.1} s", begun.elapsed().as_secs_f64());
}

/// What is offered is authenticated: GCM and ChaCha20-Poly1305 for DTLS (RFC 5289, RFC 7905), GCM and
/// a tag of 80 bits for SRTP (RFC 7714, RFC 5764).
#[tokio::test]
async fn no_weak_cipher_is_offered() {
    let Call { path, .. } = Call::new().await;
    let hello = path.hello.lock().expect("nobody panics").clone();
    // Behind the headers of record and handshake, version and random: session, cookie.
    let mut rest = &hello[13 + 12 + 2 + 32..];
    for _ in 0..2 {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    let (suites, rest) = list(rest);
    let suites = suites.chunks(2).map(|id| u16::from_be_bytes([id[0], id[1]]));
    // The last says that renegotiation is secure (RFC 5746, section 3.3).
    let known = [0xc02b, 0xc02f, 0xcca8, 0xcca9, 0x00ff];
    let suites: Vec<u16> = suites.collect();
    assert!(suites.contains(&0xc02b) && suites.iter().all(|id| known.contains(id)), "{suites:x?}");
    let (mut extensions, _) = list(&rest[1 + usize::from(rest[0])..]);
    let mut profiles = None;
    while !extensions.is_empty() {
        let (body, rest) = list(&extensions[2..]);
        if extensions[..2] == [0, 14] {
            profiles = Some(list(body).0);
        }
        extensions = rest;
    }
    assert_eq!(profiles, Some(&[0, 7, 0, 8, 0, 1][..]));
}

/// What comes after its length of two bytes, and what is behind it.
fn list(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[2..].split_at(u16::from_be_bytes([bytes[0], bytes[1]]).into())
}
