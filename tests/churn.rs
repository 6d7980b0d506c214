//! People who come and go leave nothing behind in the program that they come to, nor in its hub.
//! `QUINTET_CYCLES=2900` and `QUINTET_SECONDS=1800` make it longer.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "what is missing fails the test")]

#[path = "gates/people.rs"]
#[allow(dead_code, reason = "shared with the tests of the gates, which use all of it")]
mod people;
mod rig;

use std::{
    env, thread,
    time::{Duration, Instant},
};

use people::{Person, options, pass};
use quintet::{
    engine::{Decode, EngineOptions, HubChoice, SourceSpec},
    model::{Command, Size},
};
use rig::{
    held::Held,
    process::{Hub, Program, person},
};
use serde_json::Value;

/// Who joins at the same time.
const TOGETHER: usize = 4;

/// How many come and go before it is measured, and after.
const BEFORE: usize = 60;
const AFTER: usize = 140;

/// Threads that a program may have more than before: those that pictures are decoded on are as many
/// as there are cores, but each is started only when the others have work.
fn spare() -> usize {
    thread::available_parallelism().map_or(1, usize::from) - 1
}

/// What all who came and went may leave in memory, however many: allocators keep some 12 MiB of
/// what was given back, after 140 as after 700. A connection takes 450 KiB.
const KEPT_KIB: usize = 16 * 1024;

/// How long the five sessions are soaked, in seconds, a quarter of it (a minute at most) before it
/// is measured.
const SOAK: u64 = 32;

/// The network between all: packets late, in another order, and lost.
const NETWORK: &str = "loss=0.02,delay=30ms,jitter=15ms,seed=5";

/// One test at a time: both watch what a busy machine does to others.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_come_and_go_leave_nothing_behind() {
    let _turn = TURN.lock().await;
    let hub = Hub::start();
    let open = ["open", "--kind", "av-conference", "--id", "room"];
    let args = person(&hub.url, "Olga", &open);
    let mut olga = Program::start(&args);
    olga.event("opened");
    // Somebody stays, so that camera, encoder and speaker do.
    let mut stays = hub.person("Stays", &["join", "room"]);
    stays.event("first-frame");
    cycles(&hub.url, BEFORE).await;
    let (olgas, hubs) = (settled(&olga).await, settled(&hub.program).await);
    let after = env::var("QUINTET_CYCLES").map_or(AFTER, |text| text.parse().unwrap());
    cycles(&hub.url, after).await;
    for (who, program, before) in [("opener", &olga, olgas), ("hub", &hub.program, hubs)] {
        assert_holds_no_more(who, program, before).await;
    }
    let left = |event: &&Value| event["event"] == "participant" && event["state"] == "left";
    olga.until("everybody having left", |seen| seen.iter().filter(left).count() == BEFORE + after);
    assert_eq!(stays.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sessions_hold_no_more_however_long_people_come_and_go_over_a_bad_network() {
    let _turn = TURN.lock().await;
    let seconds = env::var("QUINTET_SECONDS").map_or(SOAK, |text| text.parse().unwrap());
    let first = (seconds / 4).min(60);
    let hub = Hub::start();
    let args = person(&hub.url, "Olga", &["open", "--five", "--impair", NETWORK]);
    let mut olga = Program::start(&args);
    let opened = olga.events("opened", 5);
    let ids: Vec<_> = opened.iter().map(|one| one["session"].as_str().unwrap()).collect();
    let join: Vec<_> = ["join"].into_iter().chain(ids.iter().copied()).collect();
    let mut stays = hub.person("Stays", &join);
    let live = |event: &&Value| event["event"] == "participant" && event["state"] == "live";
    stays.until("being in all five", |seen| seen.iter().filter(live).count() == 5);
    soak(&hub.url, &ids, 0..first).await;
    let (olgas, hubs) = (settled(&olga).await, settled(&hub.program).await);
    soak(&hub.url, &ids, first..seconds).await;
    for (who, program, before) in [("opener", &olga, olgas), ("hub", &hub.program, hubs)] {
        assert_holds_no_more(who, program, before).await;
    }
    let ghost = |event: &&Value| event["event"] == "participant" && event["state"] == "gone";
    assert_eq!(olga.seen().iter().find(ghost), None);
    assert_eq!(stays.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_brought_the_hub_and_leaves_takes_it_from_nobody() {
    let host = Person::start(options("Host"));
    let link = host.open(&["audio-conference"]).await.remove(0);
    let stays = Person::start(options("Stays"));
    stays.join(&link, "Host").await;
    host.give(Command::Leave { session: people::id("audio-conference") });
    // Hubs that nobody needs are left five seconds later.
    pass(7000).await;
    let newcomer = Person::start(options("Newcomer"));
    newcomer.join(&link, "Stays").await;
    newcomer.handle.close().await;
    stays.handle.close().await;
    people::until("no hub that nobody needs", || host.handle.snapshot().hubs.is_empty()).await;
}

/// Lets somebody join each second and leave up to seven seconds later; waits for the last.
async fn soak(hub: &str, ids: &[&str], seconds: std::ops::Range<u64>) {
    let mut visits = tokio::task::JoinSet::new();
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    for number in seconds {
        beat.tick().await;
        let id = ids[number as usize % ids.len()].to_owned();
        visits.spawn(visit(hub.to_owned(), id, number));
    }
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }
}

/// Comes into a session over the bad network, stays a while and leaves.
async fn visit(hub: String, id: String, number: u64) {
    let camera = SourceSpec::Pattern { size: Size::new(160, 90), fps: 10 };
    let guest = Person::start(EngineOptions {
        hub: HubChoice::At(hub.parse().unwrap()),
        camera,
        microphone: SourceSpec::Tone { hz: 730.0 },
        decode: Decode::WhenSeen,
        impairment: Some(NETWORK.parse().unwrap()),
        ..options(&format!("Guest{number}"))
    });
    guest.join(&id, "Olga").await;
    pass(1000 * (number % 7)).await;
    guest.handle.close().await;
}

/// Waits until a program holds what it held before, and little more memory.
async fn assert_holds_no_more(who: &str, program: &Program, before: Held) {
    let now = settled_to(program, before).await;
    println!("{who}: {before:?}, then {now:?}");
    // What is resident goes up and down; the most that it was is what must not grow.
    let grown = now.resident_kib.saturating_sub(before.peak_kib);
    assert!(grown < KEPT_KIB, "{who} grew by {grown} KiB");
}

async fn cycles(hub: &str, count: usize) {
    for first in (0..count).step_by(TOGETHER) {
        let together = (first..first + TOGETHER).map(|n| tokio::spawn(come_and_go(hub.into(), n)));
        for one in together.collect::<Vec<_>>() {
            one.await.unwrap();
        }
    }
}

/// Comes, hears and sees Olga, is heard and seen, and leaves.
async fn come_and_go(hub: String, number: usize) {
    let hub = HubChoice::At(hub.parse().unwrap());
    let camera = SourceSpec::Pattern { size: Size::new(160, 90), fps: 10 };
    let microphone = SourceSpec::Tone { hz: 730.0 };
    // Olga's decoding is what is watched here.
    let decode = Decode::WhenSeen;
    let options = options(&format!("Guest{number}"));
    let guest = Person::start(EngineOptions { hub, camera, microphone, decode, ..options });
    guest.join("room", "Olga").await;
    guest.grows("room", "Olga", |(sound, _, _)| sound).await;
    guest.handle.close().await;
}

/// What a program holds when that has not changed for two seconds: idle threads end in time.
async fn settled(program: &Program) -> Held {
    let (mut held, mut since) = (Held::by(program.id()), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        pass(50).await;
        let now = Held::by(program.id());
        if (now.descriptors, now.threads) != (held.descriptors, held.threads) {
            (held, since) = (now, Instant::now());
        }
    }
    Held::by(program.id())
}

/// What a program holds once it has come down to that.
async fn settled_to(program: &Program, before: Held) -> Held {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let now = Held::by(program.id());
        if now.descriptors <= before.descriptors && now.threads <= before.threads + spare() {
            return now;
        }
        assert!(Instant::now() < end, "{now:?} does not come down to {before:?}");
        pass(50).await;
    }
}
