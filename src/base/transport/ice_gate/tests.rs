//! Tests of the gate: what passes, and what is counted.

use super::*;
use crate::transport::CheckBudget;

/// A fatal DTLS alert in the clear.
const ALERT: &[u8] = &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40];

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn stun(kind: u8, id: u8) -> Vec<u8> {
    let mut message = vec![kind, 0x01, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    message.extend([id; 12]);
    message
}

fn may_receive(gate: &mut IceGate, port: u16, datagram: &[u8]) -> bool {
    gate.may_receive(address(port), std::iter::once(datagram), Instant::now())
}

fn new_gate() -> IceGate {
    IceGate::new(CheckBudget::default().limiter())
}

fn on_sent(gate: &mut IceGate, port: u16, message: &[u8]) {
    gate.on_sent(address(port), StunBinding::parse(message).unwrap(), Instant::now());
}

fn may_send(gate: &mut IceGate, port: u16, datagram: &[u8]) -> bool {
    gate.may_send(address(port), std::iter::once(datagram), Instant::now())
}

#[tokio::test]
async fn a_source_without_a_successful_check_may_only_send_requests() {
    let mut gate = new_gate();
    assert!(!may_receive(&mut gate, 1, ALERT));
    assert!(!may_receive(&mut gate, 1, &[0x80, 96, 0, 1]), "RTP");
    assert!(may_receive(&mut gate, 1, &stun(0, 7)));
    assert!(!may_receive(&mut gate, 1, ALERT), "a request alone does not admit its source");
    let both = [stun(0, 7), ALERT.to_vec()];
    let both = both.iter().map(Vec::as_slice);
    assert!(!gate.may_receive(address(1), both, Instant::now()));
}

#[tokio::test]
async fn a_source_whose_request_was_answered_is_admitted_and_no_other() {
    let mut gate = new_gate();
    on_sent(&mut gate, 1, &stun(1, 7));
    assert!(may_receive(&mut gate, 1, ALERT));
    assert!(!may_receive(&mut gate, 2, ALERT));
}

#[tokio::test]
async fn a_source_is_admitted_by_a_response_to_a_request_that_was_sent_to_it() {
    let mut gate = new_gate();
    on_sent(&mut gate, 1, &stun(0, 7));
    may_receive(&mut gate, 1, &stun(1, 8));
    assert!(!may_receive(&mut gate, 1, ALERT), "a guessed transaction id");
    may_receive(&mut gate, 2, &stun(1, 7));
    assert!(!may_receive(&mut gate, 2, ALERT), "a response from another source");
    may_receive(&mut gate, 1, &stun(1, 7));
    assert!(may_receive(&mut gate, 1, ALERT));
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let mut gate = new_gate();
    for port in 1..=200 {
        on_sent(&mut gate, port, &stun(0, 1));
        on_sent(&mut gate, port, &stun(1, 1));
    }
    (0..=255).for_each(|id| on_sent(&mut gate, 1, &stun(0, id)));
    assert_eq!(
        (gate.pending_requests.len(), gate.admitted.len()),
        (MAX_PENDING_REQUESTS, MAX_ADMITTED)
    );
    assert!(may_receive(&mut gate, 200, ALERT), "the newest source is kept");
}

#[tokio::test]
async fn checks_to_an_address_are_unlimited_only_once_it_has_answered() {
    let mut gate = new_gate();
    let request = stun(0, 7);
    for port in 1..=100 {
        if may_send(&mut gate, port, &request) {
            on_sent(&mut gate, port, &request);
        }
    }
    assert!(!may_send(&mut gate, 1, &request) && !may_send(&mut gate, 200, &request));
    assert!(may_receive(&mut gate, 1, &stun(1, 7)));
    for _ in 0..1000 {
        assert!(may_send(&mut gate, 1, &request));
        on_sent(&mut gate, 1, &request);
    }
    assert!(!may_send(&mut gate, 2, &request));
    assert!(may_send(&mut gate, 2, &stun(1, 9)), "its requests are answered");
}

#[tokio::test]
async fn a_response_counts_once() {
    let mut gate = new_gate();
    on_sent(&mut gate, 1, &stun(0, 7));
    may_receive(&mut gate, 1, &stun(1, 7));
    assert_eq!(gate.pending_requests.len(), 0);
}

#[tokio::test]
async fn peer_reflexive_sources_are_limited() {
    let mut gate = new_gate();
    let is_answered = |gate: &mut IceGate, port| {
        let passes = may_receive(gate, port, &stun(0, 7));
        if passes {
            on_sent(gate, port, &stun(1, 7));
        }
        passes
    };
    let passed = (1..=100).filter(|port| is_answered(&mut gate, *port)).count();
    assert_eq!(passed, MAX_PEER_REFLEXIVE);
    assert!(is_answered(&mut gate, 1), "an admitted source stays admitted");
    on_sent(&mut gate, 200, &stun(0, 8));
    assert!(is_answered(&mut gate, 200), "an address that was checked is known");
}

/// Sends a request every half second for that long. Returns whether consent is lost then.
fn send_requests(gate: &mut IceGate, from: Instant, seconds: u32) -> bool {
    let mut is_lost = false;
    for tick in 0..seconds * 2 {
        let now = from + Duration::from_millis(500) * tick;
        gate.on_sent(address(1), StunBinding::Request([9; 12]), now);
        is_lost = gate.has_lost_consent(address(1), now);
    }
    is_lost
}

fn may_send_media(gate: &mut IceGate, now: Instant) -> bool {
    gate.may_send(address(1), std::iter::once(&[0x80, 96, 0, 1][..]), now)
}

#[tokio::test]
async fn an_address_that_stops_answering_gets_no_media_whatever_it_requests() {
    let (mut gate, start) = (new_gate(), Instant::now());
    assert!(!may_send_media(&mut gate, start), "it has not answered yet");
    gate.on_sent(address(1), StunBinding::Request([1; 12]), start);
    gate.may_receive(address(1), std::iter::once(&stun(1, 1)[..]), start);
    assert!(may_send_media(&mut gate, start));
    assert!(!send_requests(&mut gate, start, 14));
    // It sends a request of its own, and an old response again.
    let late = start + CONSENT_TIMEOUT;
    gate.may_receive(address(1), std::iter::once(&stun(0, 5)[..]), late);
    gate.on_sent(address(1), StunBinding::Success([5; 12]), late);
    gate.may_receive(address(1), std::iter::once(&stun(1, 1)[..]), late);
    assert!(may_send_media(&mut gate, late - Duration::from_millis(1)));
    assert!(!may_send_media(&mut gate, late));
    assert!(send_requests(&mut gate, late, 1));
    gate.may_receive(address(1), std::iter::once(&stun(1, 9)[..]), late);
    assert!(may_send_media(&mut gate, late), "it has answered");
    assert!(!send_requests(&mut gate, late, 1));
}

#[tokio::test]
async fn a_program_that_was_suspended_sends_requests_before_it_gives_up() {
    let (mut gate, start) = (new_gate(), Instant::now());
    gate.on_sent(address(1), StunBinding::Request([1; 12]), start);
    gate.may_receive(address(1), std::iter::once(&stun(1, 1)[..]), start);
    assert!(may_send_media(&mut gate, start));
    gate.on_sent(address(1), StunBinding::Request([2; 12]), start);
    let awake = start + CONSENT_TIMEOUT * 20;
    assert!(!may_send_media(&mut gate, awake));
    assert!(!send_requests(&mut gate, awake, 6));
    gate.may_receive(address(1), std::iter::once(&stun(1, 9)[..]), awake);
    assert!(may_send_media(&mut gate, awake));
}

#[tokio::test]
async fn an_address_that_is_no_longer_used_may_be_silent() {
    let (mut gate, start) = (new_gate(), Instant::now());
    for port in [1, 2] {
        gate.on_sent(address(port), StunBinding::Request([1; 12]), start);
        gate.may_receive(address(port), std::iter::once(&stun(1, 1)[..]), start);
    }
    gate.may_send(address(2), std::iter::once(ALERT), start);
    assert!(!send_requests(&mut gate, start, 30));
}

#[test]
fn some_datagrams_of_a_batch_are_removed() {
    let received = *b"aa1bb2cc3d";
    let kept = |keeps: fn(&[u8]) -> bool| {
        let mut buffer = received;
        let length = retain(&mut buffer, 3, keeps);
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    assert_eq!(kept(|_| true), "aa1bb2cc3d");
    assert_eq!(kept(|datagram| datagram[0] != b'b'), "aa1cc3d");
    assert_eq!(kept(|datagram| datagram[0] != b'd'), "aa1bb2cc3");
    assert_eq!(kept(|_| false), "");
}

#[tokio::test]
async fn a_path_counts_what_passes_and_measures_the_time_to_a_response() {
    let (mut gate, start) = (new_gate(), Instant::now());
    let at = |ms| start + Duration::from_millis(ms);
    let request = |gate: &mut IceGate, id, ms| {
        gate.on_sent(address(1), StunBinding::parse(&stun(0, id)).unwrap(), at(ms));
    };
    let response = |gate: &mut IceGate, id, ms| {
        gate.may_receive(address(1), std::iter::once(&stun(1, id)[..]), at(ms));
    };
    request(&mut gate, 1, 0);
    response(&mut gate, 1, 30);
    assert!(gate.selected_path().is_none(), "nothing was sent but checks");
    request(&mut gate, 2, 500);
    let rtp = [&[0x80, 96, 0, 1][..], &[0x80, 96]];
    assert!(gate.may_send(address(1), rtp.into_iter(), at(510)));
    gate.count_sent(address(1), rtp.into_iter().chain([&stun(0, 3)[..]]));
    gate.count_received(address(1), rtp.into_iter().take(1));
    gate.count_received(address(2), rtp.into_iter());
    response(&mut gate, 2, 540);
    response(&mut gate, 2, 900);
    let path = gate.selected_path().unwrap();
    assert_eq!((path.remote, path.used_at), (address(1), at(510)));
    let counters = path.counters;
    assert_eq!((counters.packets_sent, counters.bytes_sent), (2, 6));
    assert_eq!((counters.packets_received, counters.bytes_received), (1, 4));
    assert_eq!((counters.requests_sent, counters.responses_received), (2, 2));
    let [latest, total] = [40, 70].map(Duration::from_millis);
    assert_eq!((counters.round_trip.latest(), counters.round_trip.total()), (Some(latest), total));
}
