//! People who see and hear each other, and a guest among them who means harm.

use std::time::Duration;

use serde_json::Value;
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    guest::{self, HostileGuest},
    pictures,
    rig::{
        held::Held,
        process::{End, Hub, Program, alone, at, list},
    },
    stage::elsewhere,
    wire::Manners,
};

/// What everybody sends.
const CAMERA: &str = "pattern:640x360@15";

/// Pictures a second of that.
const SENT: f64 = 15.0;

/// Both kinds in which a guest is linked to somebody who receives, and how many that are.
const KINDS: [(&str, usize); 2] = [("audio+video/many-to-many", 2), ("audio+video/one-to-many", 1)];

/// The share of pictures that two people keep beside somebody hostile, of what two others get.
const KEPT: f64 = 0.93;

/// How long pictures are counted, in seconds of the figures.
const COUNTED: usize = 5;

/// How often that is done before somebody is said to be hurt.
const WINDOWS: usize = 8;

/// Packets that a victim gets from one program in [`SCATTERING`] at most.
const SCATTERED: usize = 1000;

/// How long a victim counts.
const SCATTERING: Duration = Duration::from_secs(10);

/// By when a guest that answers no check is sent nothing more.
const CONSENT: Duration = Duration::from_secs(30);

/// Packets of streams that nobody announced, each of another one: with 254 bytes for each, they cost
/// a program 12 MiB if it remembers them.
const STREAMS: u64 = 50_000;

/// Memory that a picture of 1080p and what is kept of it may cost; sixteen would cost 75 MiB more.
const PICTURE_MIB: usize = 48;

/// Memory that they may cost, of which the allocator's habits are the most.
const MEMORY_MIB: usize = 6;

/// Two people at a hub of their own.
struct Circle {
    hub: Hub,
    people: [Program; 2],
}

impl Circle {
    fn begin(kind: &str) -> Self {
        let hub = Hub::start();
        let open = ["open", "--kind", kind, "--id", "circle", "--camera", CAMERA];
        let mut olga = hub.person("Olga", &open);
        olga.event("opened");
        let mut vera = hub.person("Vera", &["join", "circle", "--camera", CAMERA]);
        vera.participant("Olga", "live");
        olga.participant("Vera", "live");
        Self { hub, people: [olga, vera] }
    }

    fn mark(&mut self) -> [usize; 2] {
        self.people.each_mut().map(|person| {
            person.until("what was printed so far", |_| true);
            person.seen().len()
        })
    }

    /// Pictures that the two got of each other since that mark, and in how many seconds.
    fn pictures(&mut self, marks: [usize; 2]) -> (f64, f64) {
        let [olga, vera] = &mut self.people;
        let one = pictures(olga, marks[0], "Vera");
        let other = pictures(vera, marks[1], "Olga");
        (one.0 + other.0, one.1 + other.1)
    }

    fn resident_mib(&self) -> usize {
        let of = |person: &Program| Held::by(person.id()).resident_kib / 1024;
        self.people.iter().map(of).max().unwrap_or_default()
    }

    /// Ends it: all did well.
    fn end(self) {
        let Self { people: [olga, vera], .. } = self;
        for end in [vera.interrupt(), olga.interrupt()] {
            let End { code, events, .. } = &end;
            assert_eq!(*code, Some(0));
            assert!(end.all("error").is_empty(), "{events:#?}");
            let lost = |event: &&Value| event["name"] != "Stranger" && event["state"] == "gone";
            let honest = ["Olga", "Vera"];
            let gone = end.all("participant").into_iter().filter(lost);
            let gone: Vec<_> = gone.filter(|one| honest.contains(&name(one))).collect();
            // Vera leaves first.
            assert!(gone.len() <= 1, "{gone:#?}");
        }
    }
}

fn name(event: &Value) -> &str {
    event["name"].as_str().unwrap_or_default()
}

/// The pictures that a program got of somebody from that event on, and in how many seconds.
fn pictures(program: &mut Program, begun: usize, of: &str) -> (f64, f64) {
    let figures = |seen: &[Value]| -> Vec<(f64, f64)> {
        let stats = seen[begun..].iter().filter(|event| event["event"] == "stats");
        let known = stats.filter_map(|stats| {
            let participants = list(stats, "sessions/0/participants");
            let one = participants.iter().find(|one| one["name"] == of)?;
            let number = |value: &Value| value.as_f64().expect("a number");
            Some((number(at(one, "video/received")), number(&stats["t_ms"]) / 1000.0))
        });
        known.collect()
    };
    program.until("figures", |seen| figures(seen).len() > COUNTED);
    let figures = figures(program.seen());
    let (first, last) = (figures[0], figures[figures.len() - 1]);
    (last.0 - first.0, last.1 - first.1)
}

/// One of each, of which one has a hostile guest: whatever else this machine does, it does to both.
struct Circles {
    attacked: Circle,
    spared: Circle,
}

impl Circles {
    /// Watches both until those who are attacked kept what they are to keep, in some seconds or in all
    /// that were watched: where the machine is busy, either gets less now and then, and more when it
    /// makes up for that. Harm is there in all of them.
    fn watch(&mut self, what: &str) {
        let mut sums = [(0.0, 0.0); 2];
        for _ in 0..WINDOWS {
            let marks = [self.attacked.mark(), self.spared.mark()];
            let counted = [self.attacked.pictures(marks[0]), self.spared.pictures(marks[1])];
            for (sum, (pictures, seconds)) in sums.iter_mut().zip(counted) {
                *sum = (sum.0 + pictures, sum.1 + seconds);
            }
            let rates = |counted: [(f64, f64); 2]| counted.map(|(count, seconds)| count / seconds);
            let is_kept = |[attacked, spared]: [f64; 2]| attacked >= KEPT * spared.min(SENT);
            let (now, all) = (rates(counted), rates(sums));
            println!("{what}: {:.2} pictures a second (spared {:.2})", now[0], now[1]);
            if is_kept(now) || is_kept(all) {
                return;
            }
        }
        panic!("{what}: those who are attacked do not keep {KEPT} of what the spared get");
    }
}

#[test]
fn no_guest_hurts_those_it_sees_or_anybody_else() {
    let _turn = alone();
    for (kind, linked) in KINDS {
        println!("{kind}");
        let mut circles = Circles { attacked: Circle::begin(kind), spared: Circle::begin(kind) };
        let elsewhere = elsewhere();
        circles.watch("peace");
        scatter(&mut circles, &elsewhere, linked);
        refuse_to_answer(&mut circles, &elsewhere, linked);
        send_streams(&mut circles, &elsewhere, linked);
        want_references(&mut circles, &elsewhere, linked);
        flood_the_hub(&mut circles, &elsewhere);
        circles.attacked.end();
        circles.spared.end();
    }
}

/// A guest that comes in again and again and names somebody else's address.
fn scatter(circles: &mut Circles, elsewhere: &Runtime, linked: usize) {
    let victim = guest::victim();
    let named = victim.try_clone().expect("it is a socket");
    let counting = elsewhere.spawn(guest::suffered(victim, SCATTERING));
    let comings =
        elsewhere.block_on(guest::scatter(&circles.attacked.hub, "circle", &named, SCATTERING));
    let packets = elsewhere.block_on(counting).expect("it counts");
    println!("scattered in {comings} comings: the victim got {packets} packets");
    assert!(comings > 1 && packets > 0, "nothing was tried");
    assert!(packets <= SCATTERED * linked, "{packets} packets");
    circles.watch("scattered");
}

/// A guest that asks and does not answer.
fn refuse_to_answer(circles: &mut Circles, elsewhere: &Runtime, linked: usize) {
    let joining =
        HostileGuest::join((&circles.attacked.hub, "circle"), Manners::Mute, None, linked);
    let hostile = elsewhere.block_on(joining);
    let received = || {
        let ledger = hostile.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ledger.new + ledger.repeated
    };
    circles.watch("not answered");
    let begun = Instant::now();
    let mut before = received();
    assert!(before > 0, "nothing was sent to it");
    loop {
        std::thread::sleep(Duration::from_secs(3));
        let now = received();
        if now == before {
            break;
        }
        assert!(begun.elapsed() < CONSENT, "it is sent {} packets in 3 s", now - before);
        before = now;
    }
    println!("not answered: {before} packets in all");
    circles.watch("given up");
    elsewhere.block_on(hostile.leave());
}

/// A guest that sends packets of ever new streams, without a key.
fn send_streams(circles: &mut Circles, elsewhere: &Runtime, linked: usize) {
    let before = circles.attacked.resident_mib();
    let joining =
        HostileGuest::join((&circles.attacked.hub, "circle"), Manners::Streams, None, linked);
    let hostile = elsewhere.block_on(joining);
    circles.watch("streams");
    let fired = || hostile.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fired;
    let end = Instant::now() + Duration::from_secs(120);
    while fired() < STREAMS * linked as u64 {
        assert!(Instant::now() < end, "only {} packets were sent to it", fired());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (after, spared) = (circles.attacked.resident_mib(), circles.spared.resident_mib());
    println!("streams: {} packets, {before} MiB and then {after} (spared {spared})", fired());
    assert!(after <= before + MEMORY_MIB, "{after} MiB, it was {before}");
    elsewhere.block_on(hostile.leave());
}

/// A guest whose pictures want sixteen of them kept.
fn want_references(circles: &mut Circles, elsewhere: &Runtime, linked: usize) {
    let before = circles.attacked.resident_mib();
    let picture = Some(pictures::of_sixteen_references());
    let place = (&circles.attacked.hub, "circle");
    let joining = HostileGuest::join(place, Manners::Good, picture, linked);
    let hostile = elsewhere.block_on(joining);
    circles.watch("references");
    let after = circles.attacked.resident_mib();
    println!("references: {before} MiB and then {after}");
    assert!(after <= before + PICTURE_MIB, "{after} MiB, it was {before}");
    elsewhere.block_on(hostile.leave());
}

/// A guest that sends one of them words without end through the hub.
fn flood_the_hub(circles: &mut Circles, elsewhere: &Runtime) {
    let marks = circles.attacked.mark();
    let flooding = guest::flood(&circles.attacked.hub, "circle", SCATTERING);
    let refused = elsewhere.block_on(flooding);
    println!("flooded: it was told {refused} times that this is too much");
    assert!(refused > 0, "nobody minds");
    circles.watch("flooded");
    for (person, begun) in circles.attacked.people.iter().zip(marks) {
        let is_lost = |event: &Value| event["event"] == "hub-lost";
        assert!(!person.seen()[begun..].iter().any(is_lost), "{}", person.transcript());
    }
}
