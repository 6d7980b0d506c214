//! Several cores and the hub's rooms in virtual time, with seeded delays, losses, crashes and
//! changes of owner; and the bandwidth estimator over models of networks.
//!
//! Each effect is checked for legality when it is carried out, and each time limit when it is due.
//! In the end every pair that the topology pairs must be live at both ends, and no other pair. A
//! failure prints its seed; `QUINTET_SEED=N` runs that seed again, `QUINTET_SEEDS=N` runs N seeds
//! of each script.

#[cfg(feature = "media")]
mod bandwidth;
mod chat;
mod checks;
mod connection;
mod faults;
mod mutant;
mod mute_switches;
mod program;
mod rng;
mod script;
mod sockets;
mod world;

use std::{env, ops::Range};

use mutant::Mutant;
use script::Script;
use world::{Report, World};

/// The runs of each script, unless `QUINTET_SEEDS` says otherwise.
const SEEDS: u64 = 1000;

/// The runs within which a planted fault must be caught.
const MUTANT_SEEDS: u64 = 150;

#[test]
fn participants_that_come_and_go_are_connected_as_the_topology_says() {
    let report = run_all(Script::Calm);
    assert!(report.pairs > 0 && report.checks > 0 && report.texts_received > 0, "{report:?}");
    assert!(report.renames > 0 && report.undone > 0, "{report:?}");
}

#[test]
fn sessions_recover_from_lost_packets_and_changed_networks() {
    let report = run_all(Script::Media);
    assert!(report.rollbacks > 0 && report.restarts > 0, "{report:?}");
}

#[test]
fn trouble_with_the_hub_does_not_touch_running_media() {
    let report = run_all(Script::Hub);
    assert!(report.resumed > 0 && report.pairs > 0, "{report:?}");
}

#[test]
fn leaving_silence_and_crashes_are_noticed_in_time_and_successors_take_over() {
    let report = run_all(Script::People);
    assert!(report.successions > 0 && report.ended_by_opener > 0, "{report:?}");
    assert!(report.awaited > 0, "{report:?}");
}

#[test]
fn sessions_recover_from_all_faults_at_once() {
    let report = run_all(Script::Everything);
    assert!(report.peers_closed > 0 && report.checks > 0 && report.switches > 0, "{report:?}");
}

#[test]
fn every_planted_fault_is_caught() {
    for mutant in Mutant::ALL {
        let scripts = [Script::Calm, Script::Media, Script::Hub, Script::People];
        let caught = (0..MUTANT_SEEDS).find_map(|seed| {
            let play = |script| World::run(seed, script, Some(mutant)).err();
            scripts.into_iter().find_map(play).map(|what| (seed, what))
        });
        let (seed, what) = caught.unwrap_or_else(|| panic!("{mutant:?} was not caught"));
        println!("{mutant:?} is caught by seed {seed}: {what}");
    }
}

/// Runs all seeds of a script, and sums up their reports.
fn run_all(script: Script) -> Report {
    let mut sum = Report::default();
    for seed in seeds(SEEDS) {
        match World::run(seed, script, None) {
            Ok(report) => sum.add(&report),
            Err(what) => panic!("{script:?}, QUINTET_SEED={seed}: {what}"),
        }
    }
    println!("{script:?}: {sum:?}");
    sum
}

/// The seeds to run: so many, unless the environment says otherwise.
fn seeds(count: u64) -> Range<u64> {
    let number = |name| env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("QUINTET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("QUINTET_SEEDS").unwrap_or(count),
    }
}
