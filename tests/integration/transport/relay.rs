//! Two endpoints in a network in memory that know only the sockets of a relay between them.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use quintet::{
    model::{
        Candidate, Direction::SendRecv, PeerCommand, PeerEvent, PeerMedia, PerChannel, PerSource,
    },
    transport::{VirtualNetwork, VirtualSocket},
};

use super::pair::Endpoint;

/// Audio in both directions and nothing else.
pub(crate) const AUDIO: PeerMedia = PeerMedia {
    sections: PerSource { camera: None, microphone: Some(SendRecv) },
    channels: PerChannel::NONE,
};

/// The sockets of a relay, one for each endpoint to send to.
pub(crate) struct RelaySockets {
    sockets: [VirtualSocket; 2],
    /// The address from which each endpoint sends, known from its first datagram.
    sources: [Option<SocketAddr>; 2],
}

impl RelaySockets {
    /// Two endpoints that have exchanged descriptions and know only these sockets as each other's
    /// candidates. The first one has offered.
    pub(crate) async fn between_two_endpoints(media: PeerMedia) -> (Self, Endpoint, Endpoint) {
        let network = VirtualNetwork::default();
        let open = |name| {
            Endpoint::configured(name, media, |config| config.network = Some(network.clone()))
        };
        let (mut a, mut b) = (open("a"), open("b"));
        let offer = a.make_offer(false);
        let offer = a.description(offer).await;
        let from_a = candidate(&mut a).await;
        let (ip, _) = address(&from_a);
        let sockets = [(); 2].map(|()| network.bind(ip).expect("a free port"));
        let ports = sockets.each_ref().map(|one| one.address().port());
        let answer = b.accept_offer(&offer);
        let answer = b.description(answer).await;
        let from_b = candidate(&mut b).await;
        a.accept_answer(&answer);
        a.connection.command(PeerCommand::AddCandidate(at_port(&from_b, ports[0])));
        b.connection.command(PeerCommand::AddCandidate(at_port(&from_a, ports[1])));
        (Self { sockets, sources: [None, None] }, a, b)
    }

    /// Waits for the next datagram. Returns the number of its endpoint as well.
    pub(crate) async fn recv(&mut self) -> (usize, Bytes) {
        let (from, (datagram, address)) = tokio::select! {
            received = self.sockets[0].recv() => (0, received),
            received = self.sockets[1].recv() => (1, received),
        };
        self.sources[from] = Some(address);
        (from, datagram)
    }

    /// Sends a datagram of one endpoint to the other, if that one's address is known.
    pub(crate) fn forward(&self, from: usize, datagram: &[u8]) {
        if let Some(to) = self.sources[1 - from] {
            self.sockets[1 - from].send(datagram, to);
        }
    }
}

/// Whether the datagram is RTP or RTCP (RFC 7983).
pub(crate) fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(128..=191))
}

/// The first candidate; an endpoint in a network in memory has no other.
async fn candidate(end: &mut Endpoint) -> Candidate {
    loop {
        if let PeerEvent::Candidate(candidate) = end.next().await {
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
