//! Forged packets from a source that knows only a connection's port.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use quintet::model::{Direction::SendRecv, PeerEvent, PeerState};
use tokio::{net::UdpSocket, sync::watch};

use super::pair::{Endpoint, Pair, audio_video, guarded};

/// Rounds of forged records that are sent to each port before the handshake begins.
const ROUNDS: usize = 20;

/// The number of rounds that were sent to each port.
type Sent = BTreeMap<SocketAddr, usize>;

/// Forged DTLS records (RFC 6347, sections 4.1 and 4.2): a fatal alert, and a ClientHello without
/// ciphers (CVE-2023-49786). Their sequence numbers are so high that a receiver that accepts one
/// takes all honest records for replays.
pub(super) fn forged() -> [Vec<u8>; 2] {
    let record = |kind: u8, body: &[u8]| {
        let header = [kind, 254, 253, 0, 0, 0, 0, 255, 255, 255, 255, 0, body.len() as u8];
        [&header, body].concat()
    };
    let hello = [&[254, 253][..], &[7; 32], &[0, 0], &[0, 2, 0, 0], &[1, 0], &[0, 0]].concat();
    let length = hello.len() as u8;
    let hello = [&[1, 0, 0, length, 0, 0, 0, 0, 0, 0, 0, length][..], &hello].concat();
    [record(21, &[2, 40]), record(22, &hello)]
}

#[tokio::test]
async fn forged_records_of_unauthenticated_sources_harm_no_handshake_and_no_call() {
    let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    let ports = [sockets(&mut pair.a).await, sockets(&mut pair.b).await];
    assert!(ports.iter().all(|ports| !ports.is_empty()), "an endpoint has no socket: {ports:?}");
    let ports = ports.concat();
    let sent = watch::Sender::default();
    let attack = tokio::spawn(forge(ports.clone(), sent.clone()));
    // Forged records arrive before the first honest record is sent.
    let is_attacked = |sent: &Sent| ports.iter().all(|port| sent.get(port) >= Some(&ROUNDS));
    guarded("forged records", sent.subscribe().wait_for(is_attacked)).await.expect("it is kept");
    let before = sent.borrow().clone();

    pair.a.accept_answer(&answer);
    pair.until_connected().await;
    let counts = [pair.a.events.len(), pair.b.events.len()];
    let failure = tokio::time::timeout(Duration::from_millis(500), async {
        tokio::select! {
            () = pair.a.until_state(PeerState::Failed) => "the offerer failed",
            () = pair.b.until_state(PeerState::Failed) => "the answerer failed",
        }
    });
    assert!(failure.await.is_err());
    assert!(!attack.is_finished(), "a forged record was not sent");
    attack.abort();
    let sent = sent.borrow().clone();
    assert!(ports.iter().all(|port| sent[port] > before[port]), "{before:?}, and then {sent:?}");
    for (end, count) in [&pair.a, &pair.b].into_iter().zip(counts) {
        assert_eq!(end.state, Some(PeerState::Connected), "{:?}", &end.events[count..]);
    }
}

/// The addresses of an endpoint's sockets, from its candidates.
async fn sockets(end: &mut Endpoint) -> Vec<SocketAddr> {
    let mut sockets = vec![];
    loop {
        let PeerEvent::Candidate(candidate) = end.next().await else { continue };
        // RFC 8839, section 5.1: foundation, component, transport, priority, address, port.
        let fields: Vec<&str> = candidate.line.split(' ').collect();
        let [_, _, _, _, address, port, ..] = fields[..] else { return sockets };
        sockets.push(SocketAddr::new(
            address.parse().expect("an address"),
            port.parse().expect("a port"),
        ));
    }
}

/// Sends all forged records to all addresses, again and again.
async fn forge(to: Vec<SocketAddr>, sent: watch::Sender<Sent>) {
    let socket = async |ip| UdpSocket::bind(SocketAddr::new(ip, 0)).await;
    let (v4, v6) =
        (socket(Ipv4Addr::UNSPECIFIED.into()).await, socket(Ipv6Addr::UNSPECIFIED.into()).await);
    loop {
        for to in &to {
            let socket = if to.is_ipv4() { &v4 } else { &v6 };
            for forged in forged() {
                let length = socket.as_ref().expect("a free port").send_to(&forged, to).await;
                assert_eq!(length.ok(), Some(forged.len()), "to {to}");
            }
            sent.send_modify(|sent| *sent.entry(*to).or_default() += 1);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
