//! Guests that join and leave leave no resources behind in the opener's program or in the hub.
//! `QUINTET_CYCLES=2900` and `QUINTET_SECONDS=1800` make the tests longer.
#![allow(clippy::unwrap_used, reason = "a missing value fails the test")]

use std::{
    env, thread,
    time::{Duration, Instant},
};

use crate::rig::engine_client::{Client, id, options, sleep_ms, wait_until};
use crate::rig::{
    process::{Hub, Program, participant_args, share_turn},
    resource_usage::ResourceUsage,
};
use quintet::{
    engine::{Decode, EngineOptions, HubChoice, SourceSpec},
    model::{Command, Size},
};
use serde_json::Value;

/// How many guests join at the same time.
const GUESTS_AT_ONCE: usize = 4;

/// How many guests join and leave before the first measurement.
const WARM_UP_GUESTS: usize = 60;

/// How many guests join and leave between the two measurements.
const MEASURED_GUESTS: usize = 140;

/// Threads of the runtime's pool for blocking work, in which encoders end. Each ends after ten idle
/// seconds, but they take turns, so a little work keeps all of them alive.
const POOLED_THREADS: usize = 3;

/// Returns how many more threads a program may have than before: those of the pool, and as many
/// decoder threads as cores, of which each is started only when the others are busy.
fn spare_threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from) - 1 + POOLED_THREADS
}

/// How much the memory may grow, whatever the number of guests: allocators keep about 12 MiB of
/// freed memory, after 140 guests as after 700. A peer connection takes 450 KiB.
const MAX_GROWTH_KIB: usize = 16 * 1024;

/// What the encoders of the two smaller layers of video may take beside that. They run while a guest
/// needs them, which depends on how busy the machine is.
const SMALL_LAYERS_KIB: usize = 16 * 1024;

/// How long guests join and leave the five sessions, in seconds; the first quarter of it (a minute
/// at most) is before the first measurement.
const SOAK_SECONDS: u64 = 32;

/// The simulated network: packets are delayed, reordered and lost.
const NETWORK: &str = "loss=0.02,delay=30ms,jitter=15ms,seed=5";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_guests_that_join_and_leave_leave_no_resources_behind() {
    let _turn = share_turn();
    let hub = Hub::start();
    // Every guest has one connection, to the opener, both ways. In a conference the guests would
    // also connect with each other, which takes longer and is not measured.
    let open = ["open", "--kind", "audio+video/one-to-many", "--id", "room"];
    let args = participant_args(&hub.url, "Olga", &open);
    let mut olga = Program::start(&args);
    olga.event("opened");
    // One guest stays, so that camera, encoder and speaker stay open.
    let mut stays = hub.start_participant("Stays", &["join", "room"]);
    stays.event("first-frame");
    join_and_leave(&hub.url, WARM_UP_GUESTS).await;
    let (opener_before, hub_before) = (wait_settled(&olga).await, wait_settled(&hub.program).await);
    let after = env::var("QUINTET_CYCLES").map_or(MEASURED_GUESTS, |text| text.parse().unwrap());
    join_and_leave(&hub.url, after).await;
    for (name, program, before) in
        [("opener", &olga, opener_before), ("hub", &hub.program, hub_before)]
    {
        assert_no_growth(name, program, before, MAX_GROWTH_KIB).await;
    }
    let left = |event: &&Value| event["event"] == "participant" && event["state"] == "left";
    olga.wait_until("all guests left", |seen| {
        seen.iter().filter(left).count() == WARM_UP_GUESTS + after
    });
    assert_eq!(stays.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_sessions_do_not_grow_while_guests_join_and_leave_over_a_bad_network() {
    let _turn = share_turn();
    let seconds = env::var("QUINTET_SECONDS").map_or(SOAK_SECONDS, |text| text.parse().unwrap());
    let first = (seconds / 4).min(60);
    let hub = Hub::start();
    let args = participant_args(&hub.url, "Olga", &["open", "--five", "--impair", NETWORK]);
    let mut olga = Program::start(&args);
    let opened = olga.events("opened", 5);
    let ids: Vec<_> = opened.iter().map(|one| one["session"].as_str().unwrap()).collect();
    let join: Vec<_> = ["join"].into_iter().chain(ids.iter().copied()).collect();
    let mut stays = hub.start_participant("Stays", &join);
    let live = |event: &&Value| event["event"] == "participant" && event["state"] == "live";
    stays.wait_until("live in all five sessions", |seen| seen.iter().filter(live).count() == 5);
    join_each_second(&hub.url, &ids, 0..first).await;
    let (opener_before, hub_before) = (wait_settled(&olga).await, wait_settled(&hub.program).await);
    join_each_second(&hub.url, &ids, first..seconds).await;
    for (name, program, before) in
        [("opener", &olga, opener_before), ("hub", &hub.program, hub_before)]
    {
        assert_no_growth(name, program, before, MAX_GROWTH_KIB + SMALL_LAYERS_KIB).await;
    }
    let ghost = |event: &&Value| event["event"] == "participant" && event["state"] == "gone";
    assert_eq!(olga.seen().iter().find(ghost), None);
    assert_eq!(stays.terminate().code, Some(0));
    assert_eq!(olga.terminate().code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_hub_stays_while_others_use_it_after_its_owner_has_left() {
    let _turn = share_turn();
    let host = Client::start(options("Host"));
    let link = host.open(&["audio-conference"]).await.remove(0);
    let stays = Client::start(options("Stays"));
    stays.join(&link, "Host").await;
    host.send(Command::Leave { session: id("audio-conference") });
    // A hub that is not needed is disconnected five seconds later.
    sleep_ms(7000).await;
    let newcomer = Client::start(options("Newcomer"));
    newcomer.join(&link, "Stays").await;
    newcomer.handle.close().await;
    stays.handle.close().await;
    wait_until("the unused hub is disconnected", || host.handle.snapshot().hubs.is_empty()).await;
}

/// Lets a guest join each second and leave up to seven seconds later; waits for the last one.
async fn join_each_second(hub: &str, ids: &[&str], seconds: std::ops::Range<u64>) {
    let mut visits = tokio::task::JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for number in seconds {
        ticks.tick().await;
        let id = ids[number as usize % ids.len()].to_owned();
        visits.spawn(join_over_bad_network(hub.to_owned(), id, number));
    }
    while let Some(visit) = visits.join_next().await {
        visit.unwrap();
    }
}

/// Joins a session over the bad network, stays for some seconds and leaves.
async fn join_over_bad_network(hub: String, id: String, number: u64) {
    let camera = SourceSpec::Pattern { size: Size::new(160, 90), fps: 10 };
    let guest = Client::start(EngineOptions {
        hub: HubChoice::At(hub.parse().unwrap()),
        camera,
        microphone: SourceSpec::Tone { hz: 730.0 },
        decode: Decode::WhenTapped,
        impairment: Some(NETWORK.parse().unwrap()),
        ..options(&format!("Guest{number}"))
    });
    guest.join(&id, "Olga").await;
    sleep_ms(1000 * (number % 7)).await;
    guest.handle.close().await;
}

/// Waits until a program has no more descriptors and threads than before, then checks its memory.
async fn assert_no_growth(name: &str, program: &Program, before: ResourceUsage, max_kib: usize) {
    let now = wait_settled_to(program, before).await;
    println!("{name}: {before:?}, then {now:?}");
    // Resident memory varies, so it is compared with the earlier peak.
    let grown = now.resident_kib.saturating_sub(before.peak_kib);
    assert!(grown < max_kib, "{name} grew by {grown} KiB");
}

async fn join_and_leave(hub: &str, count: usize) {
    for first in (0..count).step_by(GUESTS_AT_ONCE) {
        let guests =
            (first..first + GUESTS_AT_ONCE).map(|n| tokio::spawn(join_once(hub.into(), n)));
        for guest in guests.collect::<Vec<_>>() {
            guest.await.unwrap();
        }
    }
}

/// Joins, receives audio from Olga, sends audio and video, and leaves.
async fn join_once(hub: String, number: usize) {
    let hub = HubChoice::At(hub.parse().unwrap());
    let camera = SourceSpec::Pattern { size: Size::new(160, 90), fps: 10 };
    let microphone = SourceSpec::Tone { hz: 730.0 };
    // Only Olga's program is measured, so the guest decodes nothing.
    let decode = Decode::WhenTapped;
    let options = options(&format!("Guest{number}"));
    let guest = Client::start(EngineOptions { hub, camera, microphone, decode, ..options });
    guest.join("room", "Olga").await;
    guest.wait_for_more("room", "Olga", |received| received.audio_packets).await;
    guest.handle.close().await;
}

/// Returns the resources of a program once descriptors and threads have not changed for two
/// seconds, so that idle threads have ended.
async fn wait_settled(program: &Program) -> ResourceUsage {
    let (mut held, mut since) = (ResourceUsage::of_process(program.process_id()), Instant::now());
    while since.elapsed() < Duration::from_secs(2) {
        sleep_ms(50).await;
        let now = ResourceUsage::of_process(program.process_id());
        if (now.descriptors, now.threads) != (held.descriptors, held.threads) {
            (held, since) = (now, Instant::now());
        }
    }
    ResourceUsage::of_process(program.process_id())
}

/// Waits until a program has no more descriptors and threads than `before`, and returns its
/// resources.
async fn wait_settled_to(program: &Program, before: ResourceUsage) -> ResourceUsage {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let now = ResourceUsage::of_process(program.process_id());
        if now.descriptors <= before.descriptors && now.threads <= before.threads + spare_threads()
        {
            return now;
        }
        let threads = || ResourceUsage::thread_names(program.process_id());
        assert!(
            Instant::now() < end,
            "{now:?} is still more than {before:?}; its threads are {:?}",
            threads()
        );
        sleep_ms(50).await;
    }
}
