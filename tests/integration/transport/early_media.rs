//! Media that arrive before the DTLS handshake is complete.

use std::net::{IpAddr, SocketAddr};

use quintet::{
    media::{EncodedAudio, Fanout},
    model::{
        Candidate, Direction::SendRecv, PeerCommand, PeerEvent, PeerMedia, PeerState, PerSource,
    },
};
use tokio::net::UdpSocket;

use super::{
    frames::audio_packet,
    pair::{Endpoint, guarded},
};

const AUDIO: PeerMedia =
    PeerMedia { sections: PerSource { camera: None, microphone: Some(SendRecv) }, data: false };

/// Media packets that overtake the last flight of the handshake.
const EARLY: usize = 20;

#[tokio::test]
async fn media_that_overtake_the_end_of_the_handshake_are_not_lost() {
    let (mut a, mut b) = (Endpoint::open("a", AUDIO, None), Endpoint::open("b", AUDIO, None));
    let offer = a.make_offer(false);
    let offer = a.description(offer).await;
    let from_a = candidate(&mut a, |_| true).await;
    let (ip, _) = address(&from_a);
    // The sockets of the relay, one for each endpoint to send to.
    let sockets = [listen(ip).await, listen(ip).await];
    let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("it is bound").port());
    let relay = tokio::spawn(carry(sockets));

    let answer = b.accept_offer(&offer);
    let answer = b.description(answer).await;
    let from_b = candidate(&mut b, |other| other == ip).await;
    a.accept_answer(&answer);
    a.connection.command(PeerCommand::AddCandidate(at_port(&from_b, ports[0])));
    b.connection.command(PeerCommand::AddCandidate(at_port(&from_a, ports[1])));
    // The answerer began the handshake, so the offerer completes it, and is connected first.
    a.until_state(PeerState::Connected).await;
    assert_ne!(b.state, Some(PeerState::Connected));
    let fanout = Fanout::<EncodedAudio>::default();
    a.connection.send_audio(Some(fanout.subscribe(2 * EARLY)));
    (0..2 * EARLY as u64).for_each(|number| fanout.publish(audio_packet(number)));
    b.until_state(PeerState::Connected).await;
    let mut track = guarded("a track", b.tracks.recv()).await.expect("it is alive");
    for number in 0..2 * EARLY {
        let packet = guarded("audio", track.packets.recv()).await.expect("it is alive");
        assert_eq!(packet.payload, format!("audio {number}"));
    }
    assert!(!relay.is_finished());
    relay.abort();
}

/// Relays datagrams between two endpoints that know only the relay's sockets. The first endpoint's
/// last handshake flight is held back until [`EARLY`] of its media packets were relayed, as a
/// network may reorder them.
async fn carry(sockets: [UdpSocket; 2]) {
    let ip = sockets[0].local_addr().expect("it is bound").ip();
    // The address from which each endpoint sends, known from its first datagram.
    let mut ends: [Option<SocketAddr>; 2] = [None, None];
    let (mut waiting, mut media, mut is_over): (Vec<Vec<u8>>, usize, bool) = (vec![], 0, false);
    let mut buffers = [[0; 2048]; 2];
    loop {
        let [first, second] = &mut buffers;
        let (from, (length, address)) = tokio::select! {
            read = sockets[0].recv_from(first) => (0, read.expect("it is bound")),
            read = sockets[1].recv_from(second) => (1, read.expect("it is bound")),
        };
        // An endpoint with several addresses may send from any of them.
        if address.ip() != ip || *ends[from].get_or_insert(address) != address {
            continue;
        }
        let Some(to) = ends[1 - from] else { continue };
        let datagram = buffers[from][..length].to_vec();
        if from == 0 && !is_over && is_handshake_over(&datagram, &waiting) {
            waiting.push(datagram);
            continue;
        }
        let out = &sockets[1 - from];
        out.send_to(&datagram, to).await.expect("it is bound");
        media += usize::from(from == 0 && is_media(&datagram));
        if media == EARLY {
            is_over = true;
            for datagram in std::mem::take(&mut waiting) {
                out.send_to(&datagram, to).await.expect("it is bound");
            }
        }
    }
}

/// Whether the datagram belongs to the last DTLS flight, which begins with change_cipher_spec, or
/// comes behind it (RFC 7983; RFC 5246, section 7.3).
fn is_handshake_over(datagram: &[u8], waiting: &[Vec<u8>]) -> bool {
    match datagram.first() {
        Some(20) => true,
        Some(21..=63) => !waiting.is_empty(),
        _ => false,
    }
}

pub(crate) fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

pub(crate) async fn listen(ip: IpAddr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).await.expect("a free port")
}

/// The first candidate with a suitable address; both endpoints have the same addresses.
pub(crate) async fn candidate(
    end: &mut Endpoint,
    is_suitable: impl Fn(IpAddr) -> bool,
) -> Candidate {
    loop {
        if let PeerEvent::Candidate(candidate) = end.next().await
            && is_suitable(address(&candidate).0)
        {
            return candidate;
        }
    }
}

/// The address and port of a candidate line. Its fields are foundation, component, transport,
/// priority, address and port (RFC 8839, section 5.1).
pub(crate) fn address(candidate: &Candidate) -> (IpAddr, &str) {
    let fields: Vec<&str> = candidate.line.split(' ').collect();
    let [_, _, _, _, address, port, ..] = fields[..] else { panic!("{}", candidate.line) };
    (address.parse().expect("an address"), port)
}

/// The candidate with another port.
pub(crate) fn at_port(candidate: &Candidate, port: u16) -> Candidate {
    let (ip, old) = address(candidate);
    let line = candidate.line.replacen(&format!(" {ip} {old} "), &format!(" {ip} {port} "), 1);
    assert!(line.contains(&format!(" {port} ")), "{line}");
    Candidate { line, ..candidate.clone() }
}
