//! Two endpoints that know only the sockets of a relay between them.

use std::net::{IpAddr, SocketAddr};

use quintet::model::{
    Candidate, Direction::SendRecv, PeerCommand, PeerEvent, PeerMedia, PerSource,
};
use tokio::net::UdpSocket;

use super::pair::Endpoint;

/// Audio in both directions and nothing else.
pub(crate) const AUDIO: PeerMedia =
    PeerMedia { sections: PerSource { camera: None, microphone: Some(SendRecv) }, data: false };

/// The sockets of a relay, one for each endpoint to send to.
pub(crate) struct RelaySockets {
    sockets: [UdpSocket; 2],
    /// The address from which each endpoint sends, known from its first datagram.
    sources: [Option<SocketAddr>; 2],
    buffers: [[u8; 2048]; 2],
}

impl RelaySockets {
    /// Two endpoints that have exchanged descriptions and know only these sockets as each other's
    /// candidates. The first one has offered.
    pub(crate) async fn between_two_endpoints(media: PeerMedia) -> (Self, Endpoint, Endpoint) {
        let (mut a, mut b) = (Endpoint::open("a", media, None), Endpoint::open("b", media, None));
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let from_a = candidate(&mut a, |_| true).await;
        let (ip, _) = address(&from_a);
        let sockets = [listen(ip).await, listen(ip).await];
        let ports = sockets.each_ref().map(|one| one.local_addr().expect("it is bound").port());
        let answer = b.accept_offer(&offer);
        let answer = b.description(answer).await;
        let from_b = candidate(&mut b, |other| other == ip).await;
        a.accept_answer(&answer);
        a.connection.command(PeerCommand::AddCandidate(at_port(&from_b, ports[0])));
        b.connection.command(PeerCommand::AddCandidate(at_port(&from_a, ports[1])));
        (Self { sockets, sources: [None, None], buffers: [[0; 2048]; 2] }, a, b)
    }

    /// Waits for the next datagram. Returns the number of its endpoint as well.
    pub(crate) async fn recv(&mut self) -> (usize, Vec<u8>) {
        let ip = self.sockets[0].local_addr().expect("it is bound").ip();
        loop {
            let [first, second] = &mut self.buffers;
            let (from, (length, address)) = tokio::select! {
                read = self.sockets[0].recv_from(first) => (0, read.expect("it is bound")),
                read = self.sockets[1].recv_from(second) => (1, read.expect("it is bound")),
            };
            // An endpoint with several addresses may send from any of them.
            if address.ip() == ip && *self.sources[from].get_or_insert(address) == address {
                return (from, self.buffers[from][..length].to_vec());
            }
        }
    }

    /// Sends a datagram of one endpoint to the other, if that one's address is known.
    pub(crate) async fn forward(&self, from: usize, datagram: &[u8]) {
        if let Some(to) = self.sources[1 - from] {
            // An error only means that the endpoint has closed its socket.
            let _ = self.sockets[1 - from].send_to(datagram, to).await;
        }
    }
}

/// Whether the datagram is RTP or RTCP (RFC 7983).
pub(crate) fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

async fn listen(ip: IpAddr) -> UdpSocket {
    UdpSocket::bind((ip, 0)).await.expect("a free port")
}

/// The first candidate with a suitable address; both endpoints have the same addresses.
async fn candidate(end: &mut Endpoint, is_suitable: impl Fn(IpAddr) -> bool) -> Candidate {
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
fn address(candidate: &Candidate) -> (IpAddr, &str) {
    let fields: Vec<&str> = candidate.line.split(' ').collect();
    let [_, _, _, _, address, port, ..] = fields[..] else { panic!("{}", candidate.line) };
    (address.parse().expect("an address"), port)
}

/// The candidate with another port.
fn at_port(candidate: &Candidate, port: u16) -> Candidate {
    let (ip, old) = address(candidate);
    let line = candidate.line.replacen(&format!(" {ip} {old} "), &format!(" {ip} {port} "), 1);
    assert!(line.contains(&format!(" {port} ")), "{line}");
    Candidate { line, ..candidate.clone() }
}
