//! A guest that names addresses of other machines as its candidates.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quintet::{
    model::{Candidate, Direction::SendOnly, PeerCommand, PeerEvent, PeerState},
    network,
    transport::{CheckBudget, CheckBudgets},
};
use tokio::{
    net::UdpSocket,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::pair::{Endpoint, Pair, audio_video};

/// How long the victims count packets.
const COUNTED: Duration = Duration::from_secs(10);

/// Packets that a victim may get because of one guest in that time.
const FROM_ONE: usize = 1000;

/// The same for the 24 guests that a session may have.
const FROM_ALL: usize = 4000;

/// Ports on which a victim listens.
const PORTS: usize = 8;

/// A host that takes no part in the session: it counts the packets to some ports of this machine's
/// own address.
struct Victim {
    address: IpAddr,
    ports: Vec<u16>,
    packets: Arc<AtomicUsize>,
    _counting: JoinSet<()>,
}

impl Victim {
    async fn new() -> Self {
        let address = *network::candidates(&Default::default()).first().expect("an address");
        let packets = Arc::<AtomicUsize>::default();
        let (mut ports, mut counting) = (vec![], JoinSet::new());
        for _ in 0..PORTS {
            let socket = UdpSocket::bind((address, 0)).await.expect("a free port");
            ports.push(socket.local_addr().expect("it is bound").port());
            let packets = Arc::clone(&packets);
            counting.spawn(async move {
                let mut buffer = [0; 2048];
                while socket.recv(&mut buffer).await.is_ok() {
                    packets.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { address, ports, packets, _counting: counting }
    }

    /// That many candidate lines, all of which are different for webrtc-rs.
    fn lines(&self, count: usize) -> Vec<String> {
        let line = |index: usize| {
            let (address, port) = (self.address, self.ports[index % PORTS]);
            format!(
                "candidate:{index} 1 udp {} {address} {port} typ srflx raddr 10.1.{}.{} rport 9",
                2_000_000_000 - index,
                index / 250,
                index % 250,
            )
        };
        (0..count).map(line).collect()
    }

    fn packets(&self) -> usize {
        self.packets.load(Ordering::Relaxed)
    }
}

/// An endpoint that has made an offer and accepted the answer of a guest with these candidates.
async fn answered(budget: CheckBudget, lines: &[String]) -> Endpoint {
    let media = audio_video(SendOnly);
    let mut end = Endpoint::with_budget(budget, "opener", media, None);
    let mut guest = Endpoint::open("guest", media, None);
    let offer = end.make_offer(false);
    let offer = end.description(offer).await;
    let offer = offer.lines().filter(|line| !line.starts_with("a=candidate"));
    let offer = offer.map(|line| format!("{line}\r\n")).collect::<String>();
    let answer = guest.accept_offer(&offer);
    let answer = guest.description(answer).await;
    let lines: String = lines.iter().map(|line| format!("a={line}\r\n")).collect();
    let answer = answer.replacen("m=video", &format!("{lines}m=video"), 1);
    end.accept_answer(&answer);
    end
}

fn trickle(end: &Endpoint, lines: &[String]) {
    for line in lines {
        let (line, mid) = (line.clone(), Some("0".to_owned()));
        end.connection.command(PeerCommand::AddCandidate(Candidate { line, mid, index: Some(0) }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_candidates_of_one_guest_cause_no_flood() {
    let victims = [Victim::new().await, Victim::new().await, Victim::new().await];
    let [described, trickled, rejoined] = &victims;
    let end = Instant::now() + COUNTED;

    let _first = answered(CheckBudget::default(), &described.lines(350)).await;
    let second = answered(CheckBudget::default(), &[]).await;
    for lines in trickled.lines(300).chunks(100) {
        trickle(&second, lines);
        sleep(Duration::from_millis(100)).await;
    }
    let mut budgets = CheckBudgets::new();
    let mut name = 0;
    while Instant::now() < end {
        let guest = answered(budgets.for_participant(name), &rejoined.lines(4)).await;
        sleep(Duration::from_millis(60)).await;
        name += 1;
        drop(guest);
    }
    let packets = victims.each_ref().map(Victim::packets);
    println!("described, trickled, rejoined {name} times: {packets:?} packets");
    assert!(packets.iter().all(|packets| (20..=FROM_ONE).contains(packets)), "{packets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_candidates_of_all_guests_together_cause_no_flood() {
    let victim = Victim::new().await;
    let end = Instant::now() + COUNTED;
    let mut budgets = CheckBudgets::new();
    let mut guests = JoinSet::new();
    for guest in 0..24 {
        let budget = budgets.for_participant(guest);
        let lines = victim.lines(PORTS);
        guests.spawn(async move {
            while Instant::now() < end {
                let _guest = answered(budget.clone(), &lines).await;
                sleep_until(end.min(Instant::now() + Duration::from_secs(1))).await;
            }
        });
    }
    while guests.join_next().await.is_some() {}
    let packets = victim.packets();
    println!("24 guests: {packets} packets");
    assert!((100..=FROM_ALL).contains(&packets), "{packets}");
}

#[tokio::test]
async fn invalid_candidates_of_a_description_do_not_affect_the_others() {
    let mut pair = Pair::open(audio_video(SendOnly), audio_video(SendOnly));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let invalid = "a=candidate:x y z\r\na=candidate:1 1 udp 1 224.0.0.251 5353 typ host\r\n\
        a= candidate:1 1 udp 1 no-address 9 typ host\r\n\ra=candidate:\r\n";
    let changed = offer.replacen("m=video", &format!("{invalid}m=video"), 1);
    assert_ne!(changed, offer);
    let answer = pair.b.accept_offer(&changed);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&answer.replacen("m=video", &format!("{invalid}m=video"), 1));
    pair.until_connected().await;
}

/// White space and carriage returns hide a line from a search for its beginning, but not from
/// webrtc-rs.
#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_candidate_of_a_description_is_checked_like_any_other() {
    let victim = Victim::new().await;
    let lines = victim.lines(350);
    let hidden: Vec<String> = lines.iter().map(|line| format!(" {line}")).collect();
    let returned: Vec<String> = lines.iter().map(|line| format!("{line}\r\n\r")).collect();
    let _ends = [
        answered(CheckBudget::default(), &hidden).await,
        answered(CheckBudget::default(), &returned).await,
    ];
    let is_reached = async {
        while victim.packets() < 4 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(COUNTED, is_reached).await.expect("some of the candidates are accepted");
    sleep(Duration::from_secs(2)).await;
    let packets = victim.packets();
    println!("{packets} packets");
    assert!(packets <= 400, "{packets}");
}

/// Checks to unreachable addresses do not use up the budget for the reachable one.
#[tokio::test]
async fn a_guest_with_many_unreachable_candidates_is_reached_on_its_reachable_one() {
    let mut pair = Pair::open(audio_video(SendOnly), audio_video(SendOnly));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let answer = pair.b.accept_offer(&offer);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&answer);
    for host in 1..=10 {
        let line = format!("candidate:1 1 udp 2130706431 198.51.100.{host} 9 typ host");
        let lines = [line];
        trickle(&pair.a, &lines);
        trickle(&pair.b, &lines);
    }
    pair.until_connected().await;
    let failed = |end: &Endpoint| end.events.contains(&PeerEvent::State(PeerState::Failed));
    assert!(!failed(&pair.a) && !failed(&pair.b));
}
