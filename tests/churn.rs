//! People who come and go leave nothing behind in the program that they come to, nor in its hub.
//! `QUINTET_CYCLES=900` makes it longer.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "what is missing fails the test")]

#[path = "gates/people.rs"]
#[allow(dead_code, reason = "shared with the tests of the gates, which use all of it")]
mod people;
mod rig;

use std::{
    env,
    time::{Duration, Instant},
};

use people::{Person, options, pass};
use quintet::{
    engine::{Decode, EngineOptions, HubChoice, SourceSpec},
    model::Size,
};
use rig::{
    Folder,
    held::Held,
    process::{Hub, Program, person},
};
use serde_json::Value;

/// Who joins at the same time.
const TOGETHER: usize = 4;

/// How many come and go before it is measured, and after.
const BEFORE: usize = 60;
const AFTER: usize = 140;

/// Threads that a program may have more than before: of those that pictures are decoded on there
/// are some more after a busy moment, which go on being used in turn.
const SPARE: usize = 8;

/// What one who came and went may leave in memory: a tenth of what a connection takes. It is what
/// allocators keep; what is kept of everybody would be more.
const KEPT_KIB: usize = 45;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_who_come_and_go_leave_nothing_behind() {
    let hub = Hub::start();
    let open = ["open", "--kind", "av-conference", "--id", "room"];
    // With an arena for each thread the C library keeps up to 50 MB more, of what was given back.
    let one_arena = [("MALLOC_ARENA_MAX", "1")];
    let mut olga = Program::start_in(Folder::new(), &person(&hub.url, "Olga", &open), &one_arena);
    olga.event("opened");
    // Somebody stays, so that camera, encoder and speaker do.
    let mut stays = hub.person("Stays", &["join", "room"]);
    stays.event("first-frame");
    cycles(&hub.url, BEFORE).await;
    let (olgas, hubs) = (settled(&olga).await, settled(&hub.program).await);
    let after = env::var("QUINTET_CYCLES").map_or(AFTER, |text| text.parse().unwrap());
    cycles(&hub.url, after).await;
    for (who, program, before) in [("opener", &olga, olgas), ("hub", &hub.program, hubs)] {
        let now = settled_to(program, before).await;
        println!("{who}: {before:?}, after {after} more {now:?}");
        let grown = now.resident_kib.saturating_sub(before.resident_kib);
        assert!(grown < after * KEPT_KIB, "{who} grew by {grown} KiB");
    }
    let left = |event: &&Value| event["event"] == "participant" && event["state"] == "left";
    olga.until("everybody having left", |seen| seen.iter().filter(left).count() == BEFORE + after);
    assert_eq!(stays.interrupt().code, Some(0));
    assert_eq!(olga.interrupt().code, Some(0));
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
        if now.descriptors <= before.descriptors && now.threads <= before.threads + SPARE {
            return now;
        }
        assert!(Instant::now() < end, "{now:?} does not come down to {before:?}");
        pass(50).await;
    }
}
