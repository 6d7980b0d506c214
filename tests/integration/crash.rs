//! Kills programs at random moments, also the hub, alone or with the opener that embeds it. The
//! other participants continue, no program hangs, and no killed participant stays visible for long.
//! Seeded; `QUINTET_RUNS=200` makes it long, `QUINTET_SEED=7` runs one seed.

use std::{collections::BTreeMap, env, ops::Range, thread, time::Duration};

use crate::rig::{
    TempFolder,
    process::{Hub, Program, list, participant_args, share_turn},
};
use serde_json::Value;

/// The number of seeds of an ordinary run.
const SEEDS: u64 = 5;

/// How many seeds run at the same time: they wait most of the time.
const RUNS_AT_ONCE: usize = 5;

/// The delay of the kill after the last start, in milliseconds: a join takes a fifth of a second,
/// so many kills happen during a join.
const KILL_DELAY_MS: Range<u64> = 0..2500;

/// How long a killed hub stays away, in milliseconds.
const OUTAGE_MS: Range<u64> = 0..4000;

/// The seeds (modulo five) whose opener embeds the hub.
const SEEDS_WITH_OWN_HUB: [u64; 2] = [2, 4];

/// The seeds (modulo ten) in which the victim was connected to all others and is not restarted,
/// until its seat is released: once with a separate hub that stays alive, once with an embedded
/// hub. These take a minute longer, so both run at the same time.
const SEEDS_WITHOUT_RESTART: [u64; 2] = [0, 2];

const NAMES: [&str; 4] = ["Olga", "Ann", "Ben", "Cleo"];

/// The random numbers of one seed (SplitMix64).
struct SeededRandom(u64);

impl SeededRandom {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }

    fn within(&mut self, range: &Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

/// The program that is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    /// The separate hub.
    Hub,
    /// The opener Olga with the hub that she embeds.
    Host,
    /// The participant of that name, without a hub. Olga is the opener.
    Guest(&'static str),
}

/// A session with its hub and its participants.
struct Scenario {
    seed: u64,
    kind: &'static str,
    /// The URL of the hub, also while it does not run.
    url: String,
    /// The hub, if it is a separate program and runs.
    hub: Option<Hub>,
    /// Whether Olga embeds the hub.
    opener_runs_hub: bool,
    /// Whether the hub was killed with Olga and neither was restarted.
    is_over: bool,
    /// The programs of the participants, by name.
    programs: BTreeMap<&'static str, Program>,
}

/// The pairs of participants that are live to each other, with the number of states so far.
type Pairs = BTreeMap<(&'static str, &'static str), usize>;

#[test]
fn the_other_participants_continue_when_any_program_is_killed_at_any_moment() {
    let _turn = share_turn();
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<_> = match number("QUINTET_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("QUINTET_RUNS").unwrap_or(SEEDS)).collect(),
    };
    let mut failed = vec![];
    for chunk in seeds.chunks(RUNS_AT_ONCE) {
        thread::scope(|scope| {
            let runs: Vec<_> =
                chunk.iter().map(|seed| (*seed, scope.spawn(|| run_seed(*seed)))).collect();
            failed
                .extend(runs.into_iter().filter_map(|(seed, run)| run.join().err().map(|_| seed)));
        });
    }
    assert!(failed.is_empty(), "QUINTET_SEED={failed:?} of {} seeds", seeds.len());
}

fn run_seed(seed: u64) {
    let mut random = SeededRandom(seed);
    let mut scenario = Scenario::start(seed, &mut random);
    if scenario.stays_dead() {
        scenario.wait_settled("before the kill");
    }
    thread::sleep(random.within(&KILL_DELAY_MS));
    let victim = scenario.choose_victim(&mut random);
    let mut connected = scenario.connected();
    connected.retain(|(one, other), _| ![*one, *other].map(Some).contains(&victim.participant()));
    let (count, pairs) = (scenario.programs.len(), connected.len() / 2);
    println!("seed {seed}: {victim:?} of {count} in {}, {pairs} connected pairs", scenario.kind);
    match victim.participant() {
        None => scenario.kill_hub(&mut random),
        Some(name) => scenario.kill_participant(name, &mut random),
    }
    if !scenario.is_over {
        let newcomer = scenario.start_program(TempFolder::new(), "Nora");
        scenario.programs.insert("Nora", newcomer);
        scenario.wait_settled("with a new guest");
    }
    scenario.wait_media_flows();
    if let (true, Some(name)) = (scenario.stays_dead(), victim.participant()) {
        scenario.wait_seat_released(name);
        scenario.wait_media_flows();
    }
    scenario.assert_undisturbed(&connected);
    scenario.interrupt_all();
}

impl Victim {
    /// Returns the name of the participant that is killed; `None` for the separate hub.
    const fn participant(self) -> Option<&'static str> {
        match self {
            Self::Hub => None,
            Self::Host => Some(NAMES[0]),
            Self::Guest(name) => Some(name),
        }
    }
}

impl Scenario {
    fn start(seed: u64, random: &mut SeededRandom) -> Self {
        let kind = ["av-conference", "av-conference", "av-broadcast"][random.below(3) as usize];
        let count = 3 + random.below(2) as usize;
        let opener_runs_hub = SEEDS_WITH_OWN_HUB.contains(&(seed % 5));
        let hub = (!opener_runs_hub).then(Hub::start);
        let url = hub.as_ref().map_or("http://127.0.0.1:0".to_owned(), |hub| hub.url.clone());
        let programs = BTreeMap::new();
        let mut scenario = Self { seed, kind, url, hub, opener_runs_hub, is_over: false, programs };
        if scenario.stays_dead() {
            // A broadcast would end with its opener.
            scenario.kind = "av-conference";
        }
        for name in &NAMES[..count] {
            let mut program = scenario.start_program(TempFolder::new(), name);
            if opener_runs_hub && *name == "Olga" {
                let listening = program.event("listening");
                scenario.url = listening["hub"].as_str().expect("an address").to_owned();
            }
            scenario.programs.insert(name, program);
            thread::sleep(random.within(&(0..400)));
        }
        scenario
    }

    /// Chooses the victim; the host is chosen more often than the others, as it also runs the hub.
    fn choose_victim(&self, random: &mut SeededRandom) -> Victim {
        let guests = self.programs.len() as u64 - 1;
        if self.opener_runs_hub && (random.below(2) == 0 || self.stays_dead()) {
            return Victim::Host;
        }
        if self.opener_runs_hub {
            return Victim::Guest(NAMES[1 + random.below(guests) as usize]);
        }
        match random.below(guests + 2) as usize {
            0 if !self.stays_dead() => Victim::Hub,
            one => Victim::Guest(NAMES[one.max(1) - 1]),
        }
    }

    /// Starts the program of a participant.
    fn start_program(&self, home: TempFolder, name: &str) -> Program {
        let task = match name {
            "Olga" => vec!["open", "--kind", self.kind, "--id", "room"],
            _ => vec!["join", "room"],
        };
        let hub = if self.opener_runs_hub && name == "Olga" {
            ["--listen", self.address()]
        } else {
            ["--hub", &self.url]
        };
        let task = [&task[..], &hub, &["--camera", "pattern:160x90@10"]].concat();
        Program::start_in(home, &participant_args(&self.url, name, &task), &[])
    }

    /// Kills the hub, and starts another one at the same address later.
    fn kill_hub(&mut self, random: &mut SeededRandom) {
        self.hub.take().expect("it runs").program.kill();
        // `open` does not wait for a hub: it fails, or had opened before the hub was killed.
        let olga = self.programs.get_mut("Olga").expect("she runs");
        olga.wait_until("an answer", |seen| {
            ["opened", "ended"].iter().any(|end| has_event(seen, end))
        });
        let failed = !has_event(olga.seen(), "opened");
        if failed {
            let end = self.programs.remove("Olga").expect("she ran").wait_for_exit();
            assert_eq!(end.code, Some(3), "seed {}: {:#?}", self.seed, end.events);
        }
        let disconnected = self.wait_hub_lost();
        thread::sleep(random.within(&OUTAGE_MS));
        self.hub = Some(Hub::start_on(self.address()));
        self.wait_hub_back(disconnected);
        if failed {
            let olga = self.start_program(TempFolder::new(), "Olga");
            self.programs.insert("Olga", olga);
        }
    }

    /// Kills a participant, with the hub that it embeds, and restarts it or not.
    fn kill_participant(&mut self, name: &'static str, random: &mut SeededRandom) {
        let mut dead = self.programs.remove(name).expect("it runs");
        dead.wait_until("its events so far", |_| true);
        let has_opened = has_event(dead.seen(), "opened");
        let home = dead.kill();
        let takes_hub = self.opener_runs_hub && name == "Olga";
        let disconnected = if takes_hub { self.wait_hub_lost() } else { vec![] };
        // Without an open session, the others cannot continue: Olga is restarted.
        let comes_back = random.below(2) == 0 || (name == "Olga" && !has_opened);
        if comes_back && !self.stays_dead() {
            thread::sleep(random.within(&OUTAGE_MS));
            let back = self.start_program(home, name);
            self.programs.insert(name, back);
            self.wait_hub_back(disconnected);
        } else if takes_hub {
            self.is_over = true;
            return self.wait_only_missing(name);
        }
        self.wait_settled(&format!("after {name} was killed"));
    }

    /// Waits until all participants in the session have lost the hub, and returns their names.
    fn wait_hub_lost(&mut self) -> Vec<&'static str> {
        let mut disconnected = vec![];
        for (name, program) in &mut self.programs {
            if has_entered(program.seen()) {
                program.event("hub-lost");
                disconnected.push(*name);
            }
        }
        disconnected
    }

    /// Waits until these participants are connected to the hub again.
    fn wait_hub_back(&mut self, disconnected: Vec<&'static str>) {
        for name in disconnected {
            self.program(name).event("hub-back");
        }
    }

    /// Waits until the killed participant is absent for all others, and each other participant is
    /// live or absent: a peer connection that was not established yet needs the hub that is gone.
    fn wait_only_missing(&mut self, dead: &str) {
        let seed = self.seed;
        for (name, program, _) in self.each_program() {
            program.wait_until(
                &format!("{dead} absent for {name}, without hub, seed {seed}"),
                |seen| {
                    present_participants(seen)
                        .iter()
                        .all(|(other, state)| *other != dead && *state == "live")
                },
            );
        }
    }

    /// Waits until each participant sees all those that it is paired with, live, and no others: a
    /// killed participant is not visible, and a restarted one is visible once.
    fn wait_settled(&mut self, when: &str) {
        let seed = self.seed;
        for (name, program, others) in self.each_program() {
            let what = format!("only {others:?} live for {name} {when}, seed {seed}");
            let expected: Vec<_> = others.iter().map(|other| (*other, "live")).collect();
            program.wait_until(&what, |seen| {
                has_entered(seen) && present_participants(seen) == expected
            });
        }
    }

    /// Waits until each participant receives more media from all those that send to it.
    fn wait_media_flows(&mut self) {
        let (seed, one_way, is_over) = (self.seed, self.is_one_way(), self.is_over);
        for (name, program, mut others) in self.each_program() {
            others.retain(|other| !one_way || *other == "Olga");
            // Without a hub, only participants that are live already send.
            others.retain(|other| {
                !is_over || present_participants(program.seen()).contains(&(*other, "live"))
            });
            let first = program.wait_next("statistics", |event| event["event"] == "stats");
            program.wait_until(&format!("media from {others:?} at {name}, seed {seed}"), |seen| {
                let last = seen.iter().rfind(|event| event["event"] == "stats");
                others.iter().all(|other| {
                    let (before, now) = (
                        received_counts(&first, other),
                        received_counts(last.expect("there is one"), other),
                    );
                    now.0 > before.0 + 40 && now.1 > before.1 + 5
                })
            });
        }
    }

    /// Asserts that participants whose programs ran all the time stayed live to each other.
    fn assert_undisturbed(&self, before: &Pairs) {
        for ((name, other), count) in before {
            let (Some(program), true) =
                (self.programs.get(name), self.programs.contains_key(other))
            else {
                continue;
            };
            let since = &states_of(program.seen(), other)[*count..];
            assert!(
                since.iter().all(|state| *state == "live"),
                "seed {}: {other} became {since:?} for {name}:\n{}",
                self.seed,
                program.transcript()
            );
        }
    }

    /// Waits until the seat of the killed participant is released: by the hub, or by each other
    /// participant if the hub was killed too.
    fn wait_seat_released(&mut self, dead: &str) {
        // A seat is kept for 60 s, longer than `Program::until` waits.
        thread::sleep(Duration::from_secs(40));
        let seed = self.seed;
        for (name, program, _) in self.each_program() {
            program.wait_until(
                &format!("seat of {dead} released at {name}, seed {seed}"),
                |seen| {
                    states_of(seen, dead).ends_with(&["gone", "left"])
                        && participants(seen).values().all(|(_, state)| *state != "gone")
                },
            );
        }
    }

    /// Interrupts all programs and checks their exit codes: 0, except for a program that was not in
    /// the session when the hub was killed for good, or that was never connected to a participant.
    fn interrupt_all(self) {
        for (name, program) in self.programs {
            let end = program.terminate();
            let was_connected =
                end.events_named("participant").iter().any(|one| one["state"] == "live");
            let allowed = match has_entered(&end.events) {
                true if was_connected => &[0][..],
                true => &[0, 8],
                false => &[3, 6],
            };
            let is_allowed = end.code.is_some_and(|code| allowed.contains(&code));
            assert!(is_allowed, "seed {}, {name}: {:?}, {:#?}", self.seed, end.code, end.events);
        }
    }

    /// Returns the pairs that are live to each other now, in both directions.
    fn connected(&mut self) -> Pairs {
        let mut pairs = Pairs::new();
        for (name, program, others) in self.each_program() {
            program.wait_until("its events so far", |_| true);
            for other in others {
                let states = states_of(program.seen(), other);
                if states.last() == Some(&"live") {
                    pairs.insert((name, other), states.len());
                }
            }
        }
        let one_way = pairs.clone();
        pairs.retain(|(name, other), _| one_way.contains_key(&(*other, *name)));
        pairs
    }

    /// Returns the name and program of each participant, and the names that it is paired with.
    fn each_program(
        &mut self,
    ) -> impl Iterator<Item = (&'static str, &mut Program, Vec<&'static str>)> {
        let names: Vec<_> = self.programs.keys().copied().collect();
        let one_way = self.is_one_way();
        self.programs.iter_mut().map(move |(name, program)| {
            let others = names.iter().copied().filter(|other| other != name);
            let is_paired = |other: &&str| !one_way || [name, *other].contains(&"Olga");
            (*name, program, others.filter(is_paired).collect())
        })
    }

    fn program(&mut self, name: &str) -> &mut Program {
        self.programs.get_mut(name).expect("it runs")
    }

    /// Returns the address on which the hub listens.
    fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Returns whether the victim is not restarted until its seat is released.
    fn stays_dead(&self) -> bool {
        SEEDS_WITHOUT_RESTART.contains(&(self.seed % 10))
    }

    fn is_one_way(&self) -> bool {
        self.kind == "av-broadcast"
    }
}

/// Returns whether a program printed that event.
fn has_event(seen: &[Value], name: &str) -> bool {
    seen.iter().any(|event| event["event"] == name)
}

/// Returns whether a program has opened or joined its session.
fn has_entered(seen: &[Value]) -> bool {
    has_event(seen, "opened") || has_event(seen, "joined")
}

/// Returns all participants in the events of a program, by id: the name and the newest state.
fn participants(seen: &[Value]) -> BTreeMap<&str, (&str, &str)> {
    let events = seen.iter().filter(|event| event["event"] == "participant");
    events
        .filter_map(|event| {
            let of = |key: &str| event[key].as_str();
            Some((of("participant")?, (of("name")?, of("state")?)))
        })
        .collect()
}

/// Returns the participants in the session that are neither left nor gone: name and state, sorted
/// by name.
fn present_participants(seen: &[Value]) -> Vec<(&str, &str)> {
    let mut present: Vec<_> = participants(seen).into_values().collect();
    present.retain(|(_, state)| !["left", "gone"].contains(state));
    present.sort_unstable();
    present
}

/// Returns the reported states of a participant, in order.
fn states_of<'a>(seen: &'a [Value], name: &str) -> Vec<&'a str> {
    let of = seen.iter().filter(|event| event["event"] == "participant" && event["name"] == name);
    of.filter_map(|event| event["state"].as_str()).collect()
}

/// Returns the audio packets and the decoded frames received from a participant.
fn received_counts(stats: &Value, name: &str) -> (u64, u64) {
    let participants = list(stats, "sessions/0/participants").iter();
    let of = |path| {
        let mine = participants.clone().filter(|one| one["name"] == name);
        mine.filter_map(|one| one.pointer(path)?.as_u64()).max().unwrap_or_default()
    };
    (of("/audio/packets"), of("/video/decoded"))
}
