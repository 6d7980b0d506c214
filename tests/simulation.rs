//! Several cores and the hub's rooms in virtual time: seeded delays, losses, crashes, successions.
//!
//! Every effect is checked for legality when it is carried out, every time limit when it is due,
//! and in the end everybody who should be linked is live at both ends and nobody else is. A failure
//! prints its seed; `QUINTET_SEED=N` plays that one again, `QUINTET_SEEDS=N` plays so many of each
//! script.

#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/chat.rs"]
mod chat;
#[path = "simulation/connection.rs"]
mod connection;
#[path = "simulation/fate.rs"]
mod fate;
#[path = "simulation/gates.rs"]
mod gates;
#[path = "simulation/judge.rs"]
mod judge;
#[path = "simulation/mutant.rs"]
mod mutant;
#[path = "simulation/program.rs"]
mod program;
#[path = "simulation/script.rs"]
mod script;
#[path = "simulation/wire.rs"]
mod wire;
#[path = "simulation/world.rs"]
mod world;

use std::{env, ops::Range};

use mutant::Mutant;
use script::Script;
use world::{Report, World};

/// Runs of each script, unless asked for more.
const SEEDS: u64 = 1000;

/// Runs in which a planted fault must be caught.
const MUTANT_SEEDS: u64 = 150;

#[test]
fn people_who_come_and_go_are_linked_as_their_sessions_say() {
    let report = play_all(Script::Calm);
    assert!(report.pairs > 0 && report.checks > 0 && report.heard > 0, "{report:?}");
    assert!(report.renames > 0 && report.undone > 0, "{report:?}");
}

#[test]
fn lost_packets_and_changed_networks_are_got_over() {
    let report = play_all(Script::Media);
    assert!(report.rollbacks > 0 && report.restarts > 0, "{report:?}");
}

#[test]
fn trouble_with_the_hub_touches_no_running_media() {
    let report = play_all(Script::Hub);
    assert!(report.resumed > 0 && report.pairs > 0, "{report:?}");
}

#[test]
fn leavers_the_silent_and_the_crashed_are_noticed_in_time_and_inherited_from() {
    let report = play_all(Script::People);
    assert!(report.successions > 0 && report.ended_by_opener > 0, "{report:?}");
    assert!(report.awaited > 0, "{report:?}");
}

#[test]
fn everything_at_once_becomes_right_again() {
    let report = play_all(Script::Everything);
    assert!(report.closed > 0 && report.checks > 0 && report.turns > 0, "{report:?}");
}

#[test]
fn every_planted_fault_is_caught() {
    for mutant in Mutant::ALL {
        let scripts = [Script::Calm, Script::Media, Script::Hub, Script::People];
        let caught = (0..MUTANT_SEEDS).find_map(|seed| {
            let play = |script| World::play(seed, script, Some(mutant)).err();
            scripts.into_iter().find_map(play).map(|what| (seed, what))
        });
        let (seed, what) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught"));
        println!("{mutant:?} is caught by seed {seed}: {what}");
    }
}

/// Plays all seeds of a script, and sums up what came to pass.
fn play_all(script: Script) -> Report {
    let mut sum = Report::default();
    for seed in seeds() {
        match World::play(seed, script, None) {
            Ok(report) => sum.add(&report),
            Err(what) => panic!("{script:?}, QUINTET_SEED={seed}: {what}"),
        }
    }
    println!("{script:?}: {sum:?}");
    sum
}

fn seeds() -> Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("QUINTET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUINTET_SEEDS").unwrap_or(SEEDS),
    }
}
