//! Who knows no more of a connection than its port.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use quintet::model::{Direction::SendRecv, PeerEvent, PeerState};
use tokio::{net::UdpSocket, sync::watch};

use crate::pair::{End, Pair, audio_video, guarded};

/// Volleys that have come to each port before the handshake begins.
const VOLLEYS: usize = 20;

/// How often everything was sent, to each port.
type Sent = BTreeMap<SocketAddr, usize>;

/// Forged DTLS (RFC 6347, sections 4.1 and 4.2): a fatal alert, and a hello that offers no cipher
/// (CVE-2023-49786), numbered so high that whoever takes one takes all honest records for replays.
fn forged() -> [Vec<u8>; 2] {
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
async fn forged_records_of_strangers_harm_no_handshake_and_no_call() {
    let mut pair = Pair::open(audio_video(SendRecv), audio_video(SendRecv));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    let ports = [sockets(&mut pair.a).await, sockets(&mut pair.b).await];
    assert!(ports.iter().all(|ports| !ports.is_empty()), "an end listens nowhere: {ports:?}");
    let ports = ports.concat();
    let sent = watch::Sender::default();
    let attack = tokio::spawn(forge(ports.clone(), sent.clone()));
    // Several of each are there before an honest word is.
    let is_besieged = |sent: &Sent| ports.iter().all(|port| sent.get(port) >= Some(&VOLLEYS));
    guarded("forged records", sent.subscribe().wait_for(is_besieged)).await.expect("it is kept");
    let before = sent.borrow().clone();

    pair.a.accept_answer(&answer);
    pair.until_connected().await;
    let told = [pair.a.told.len(), pair.b.told.len()];
    let calm = tokio::time::timeout(Duration::from_millis(500), async {
        tokio::select! {
            () = pair.a.until_state(PeerState::Failed) => "the offerer failed",
            () = pair.b.until_state(PeerState::Failed) => "the answerer failed",
        }
    });
    assert!(calm.await.is_err());
    assert!(!attack.is_finished(), "a record could not be sent");
    attack.abort();
    let sent = sent.borrow().clone();
    assert!(ports.iter().all(|port| sent[port] > before[port]), "{before:?}, and then {sent:?}");
    for (end, told) in [&pair.a, &pair.b].into_iter().zip(told) {
        assert_eq!(end.state, Some(PeerState::Connected), "{:?}", &end.told[told..]);
    }
}

/// Where an end listens, as soon as it has told so.
async fn sockets(end: &mut End) -> Vec<SocketAddr> {
    let mut sockets = vec![];
    loop {
        let PeerEvent::Candidate(candidate) = end.next().await else { continue };
        // RFC 8839, section 5.1: foundation, component, transport, priority, address, port.
        let words: Vec<&str> = candidate.line.split(' ').collect();
        let [_, _, _, _, address, port, ..] = words[..] else { return sockets };
        sockets.push(SocketAddr::new(
            address.parse().expect("an address"),
            port.parse().expect("a port"),
        ));
    }
}

/// Sends everything forged to everywhere, all the time.
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
