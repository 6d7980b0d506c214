//! A guest that names other people's addresses as its own.

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

use crate::pair::{End, Pair, audio_video};

/// How long the victims count.
const COUNTED: Duration = Duration::from_secs(10);

/// Packets that a victim gets from one guest at most in that time.
const FROM_ONE: usize = 1000;

/// And from the 24 guests that a session may have.
const FROM_ALL: usize = 4000;

/// Ports of a victim's address.
const PORTS: usize = 8;

/// Somebody who has nothing to do with it: what comes to some ports of this machine's own address.
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

    /// That many lines, no two of which the library takes for the same.
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

/// An end that offers, and has the answer of a guest with these candidates.
async fn answered(budget: CheckBudget, lines: &[String]) -> End {
    let media = audio_video(SendOnly);
    let mut end = End::within(budget, "opener", media, None);
    let mut guest = End::open("guest", media, None);
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

fn trickle(end: &End, lines: &[String]) {
    for line in lines {
        let (line, mid) = (line.clone(), Some("0".to_owned()));
        end.connection.command(PeerCommand::AddCandidate(Candidate { line, mid, index: Some(0) }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_nobody_flooded_by_its_candidates() {
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
        let guest = answered(budgets.of(name), &rejoined.lines(4)).await;
        sleep(Duration::from_millis(60)).await;
        name += 1;
        drop(guest);
    }
    let packets = victims.each_ref().map(Victim::packets);
    println!("described, trickled, rejoined {name} times: {packets:?} packets");
    assert!(packets.iter().all(|packets| (20..=FROM_ONE).contains(packets)), "{packets:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_guests_together_have_nobody_flooded() {
    let victim = Victim::new().await;
    let end = Instant::now() + COUNTED;
    let mut budgets = CheckBudgets::new();
    let mut guests = JoinSet::new();
    for guest in 0..24 {
        let budget = budgets.of(guest);
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
async fn candidates_of_a_description_that_are_none_cost_no_more_than_themselves() {
    let mut pair = Pair::open(audio_video(SendOnly), audio_video(SendOnly));
    let offer = pair.a.make_offer(false);
    let offer = pair.a.description(offer).await;
    let odd = "a=candidate:x y z\r\na=candidate:1 1 udp 1 224.0.0.251 5353 typ host\r\n\
        a= candidate:1 1 udp 1 no-address 9 typ host\r\n\ra=candidate:\r\n";
    let odd_offer = offer.replacen("m=video", &format!("{odd}m=video"), 1);
    assert_ne!(odd_offer, offer);
    let answer = pair.b.accept_offer(&odd_offer);
    let answer = pair.b.description(answer).await;
    pair.a.accept_answer(&answer.replacen("m=video", &format!("{odd}m=video"), 1));
    pair.until_connected().await;
}

/// White space and carriage returns hide a line from who looks for it by its beginning, and not
/// from the library.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_that_hides_in_a_description_passes_the_same_rule() {
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
    timeout(COUNTED, is_reached).await.expect("some of the candidates are taken");
    sleep(Duration::from_secs(2)).await;
    let packets = victim.packets();
    println!("{packets} packets");
    assert!(packets <= 400, "{packets}");
}

/// What is sent to nobody costs no way to who is there.
#[tokio::test]
async fn a_guest_with_many_useless_candidates_is_reached_by_its_good_one() {
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
    let failed = |end: &End| end.told.contains(&PeerEvent::State(PeerState::Failed));
    assert!(!failed(&pair.a) && !failed(&pair.b));
}
