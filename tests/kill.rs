//! Programs that are killed at any moment, the hub too, alone or with the opener who brought it:
//! the others go on, nothing hangs, and nobody who is gone is seen for long. Seeded;
//! `QUINTET_RUNS=200` makes it long, `QUINTET_SEED=7` runs one.

mod rig;

use std::{collections::BTreeMap, env, ops::Range, thread, time::Duration};

use rig::{
    Folder,
    process::{Hub, Program, alone, list, person},
};
use serde_json::Value;

/// Seeds of an ordinary run.
const SEEDS: u64 = 5;

/// How many run at a time: mostly they wait.
const TOGETHER: usize = 5;

/// When the kill comes, counted from the last start: a join takes a fifth of a second, so many
/// kills come in the middle of one.
const MOMENTS: Range<u64> = 0..2500;

/// How long a killed hub stays away, in milliseconds.
const OUTAGE: Range<u64> = 0..4000;

/// The seeds, of five, whose opener brings the hub.
const BROUGHT: [u64; 2] = [2, 4];

/// The seeds, of ten, in which whoever is killed was connected to all and stays dead until nobody
/// keeps a seat: beside a hub that lives on, and with the hub that was brought. It takes a minute
/// longer, so both are run together.
const FOR_GOOD: [u64; 2] = [0, 2];

const NAMES: [&str; 4] = ["Olga", "Ann", "Ben", "Cleo"];

/// One seed's numbers (SplitMix64).
struct Chance(u64);

impl Chance {
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

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Hub,
    /// Olga, the opener, and with her the hub that she brought.
    Host,
    /// That person, who brought no hub; Olga is the opener.
    Person(&'static str),
}

/// A session with its hub, and who is in it.
struct Scene {
    seed: u64,
    kind: &'static str,
    /// The hub's address, also while there is none.
    url: String,
    /// The hub, if it is a program of its own and runs.
    hub: Option<Hub>,
    /// Whether Olga brings the hub.
    is_brought: bool,
    /// Whether the hub died with Olga, and neither came back.
    is_over: bool,
    people: BTreeMap<&'static str, Program>,
}

/// Who is live to whom, and after how many states.
type Pairs = BTreeMap<(&'static str, &'static str), usize>;

#[test]
fn whoever_is_killed_at_whatever_moment_the_others_go_on() {
    let _turn = alone();
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<_> = match number("QUINTET_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("QUINTET_RUNS").unwrap_or(SEEDS)).collect(),
    };
    let mut failed = vec![];
    for together in seeds.chunks(TOGETHER) {
        thread::scope(|scope| {
            let runs: Vec<_> =
                together.iter().map(|seed| (*seed, scope.spawn(|| kill_one(*seed)))).collect();
            failed
                .extend(runs.into_iter().filter_map(|(seed, run)| run.join().err().map(|_| seed)));
        });
    }
    assert!(failed.is_empty(), "QUINTET_SEED={failed:?} of {} seeds", seeds.len());
}

fn kill_one(seed: u64) {
    let mut chance = Chance(seed);
    let mut scene = Scene::start(seed, &mut chance);
    if scene.is_for_good() {
        scene.settles("before the kill");
    }
    thread::sleep(chance.within(&MOMENTS));
    let victim = scene.victim(&mut chance);
    let mut connected = scene.connected();
    connected.retain(|(one, other), _| ![*one, *other].map(Some).contains(&victim.person()));
    let count = scene.people.len();
    println!("seed {seed}: {victim:?} of {count} in {}, {} links", scene.kind, connected.len() / 2);
    match victim.person() {
        None => scene.hub_dies(&mut chance),
        Some(name) => scene.person_dies(name, &mut chance),
    }
    if !scene.is_over {
        let newcomer = scene.begin(Folder::new(), "Nora");
        scene.people.insert("Nora", newcomer);
        scene.settles("with a newcomer");
    }
    scene.media_goes_on();
    if let (true, Some(name)) = (scene.is_for_good(), victim.person()) {
        scene.seat_is_given_up(name);
        scene.media_goes_on();
    }
    scene.nobody_was_disturbed(&connected);
    scene.ends();
}

impl Victim {
    /// Who it is, if it is a person.
    const fn person(self) -> Option<&'static str> {
        match self {
            Self::Hub => None,
            Self::Host => Some(NAMES[0]),
            Self::Person(name) => Some(name),
        }
    }
}

impl Scene {
    fn start(seed: u64, chance: &mut Chance) -> Self {
        let kind = ["av-conference", "av-conference", "av-broadcast"][chance.below(3) as usize];
        let count = 3 + chance.below(2) as usize;
        let is_brought = BROUGHT.contains(&(seed % 5));
        let hub = (!is_brought).then(Hub::start);
        let url = hub.as_ref().map_or("http://127.0.0.1:0".to_owned(), |hub| hub.url.clone());
        let people = BTreeMap::new();
        let mut scene = Self { seed, kind, url, hub, is_brought, is_over: false, people };
        if scene.is_for_good() {
            // A broadcast ends with its opener.
            scene.kind = "av-conference";
        }
        for name in &NAMES[..count] {
            let mut program = scene.begin(Folder::new(), name);
            if is_brought && *name == "Olga" {
                let listening = program.event("listening");
                scene.url = listening["hub"].as_str().expect("an address").to_owned();
            }
            scene.people.insert(name, program);
            thread::sleep(chance.within(&(0..400)));
        }
        scene
    }

    /// Chooses who is killed; the host more often than the others, for the hub is there too.
    fn victim(&self, chance: &mut Chance) -> Victim {
        let guests = self.people.len() as u64 - 1;
        if self.is_brought && (chance.below(2) == 0 || self.is_for_good()) {
            return Victim::Host;
        }
        if self.is_brought {
            return Victim::Person(NAMES[1 + chance.below(guests) as usize]);
        }
        match chance.below(guests + 2) as usize {
            0 if !self.is_for_good() => Victim::Hub,
            one => Victim::Person(NAMES[one.max(1) - 1]),
        }
    }

    /// Starts that person's program.
    fn begin(&self, home: Folder, name: &str) -> Program {
        let task = match name {
            "Olga" => vec!["open", "--kind", self.kind, "--id", "room"],
            _ => vec!["join", "room"],
        };
        let hub = if self.is_brought && name == "Olga" {
            ["--listen", self.address()]
        } else {
            ["--hub", &self.url]
        };
        let task = [&task[..], &hub, &["--camera", "pattern:160x90@10"]].concat();
        Program::start_in(home, &person(&self.url, name, &task), &[])
    }

    /// The hub dies, and another takes its place later.
    fn hub_dies(&mut self, chance: &mut Chance) {
        self.hub.take().expect("it runs").program.kill();
        // Who opens does not wait for a hub: it fails, or had opened before the hub died.
        let olga = self.people.get_mut("Olga").expect("she runs");
        olga.until("an answer", |seen| ["opened", "ended"].iter().any(|end| has(seen, end)));
        let failed = !has(olga.seen(), "opened");
        if failed {
            let end = self.people.remove("Olga").expect("she ran").end();
            assert_eq!(end.code, Some(3), "seed {}: {:#?}", self.seed, end.events);
        }
        let left_alone = self.miss_the_hub();
        thread::sleep(chance.within(&OUTAGE));
        self.hub = Some(Hub::start_on(self.address()));
        self.find_the_hub(left_alone);
        if failed {
            let olga = self.begin(Folder::new(), "Olga");
            self.people.insert("Olga", olga);
        }
    }

    /// A person dies, with the hub if it was brought along, and comes back or is gone.
    fn person_dies(&mut self, name: &'static str, chance: &mut Chance) {
        let mut dead = self.people.remove(name).expect("it runs");
        dead.until("what it said", |_| true);
        let has_opened = has(dead.seen(), "opened");
        let home = dead.kill();
        let takes_hub = self.is_brought && name == "Olga";
        let left_alone = if takes_hub { self.miss_the_hub() } else { vec![] };
        // Without a session there is nothing for the others to go on with.
        let comes_back = chance.below(2) == 0 || (name == "Olga" && !has_opened);
        if comes_back && !self.is_for_good() {
            thread::sleep(chance.within(&OUTAGE));
            let back = self.begin(home, name);
            self.people.insert(name, back);
            self.find_the_hub(left_alone);
        } else if takes_hub {
            self.is_over = true;
            return self.misses_only(name);
        }
        self.settles(&format!("after {name} died"));
    }

    /// Waits until whoever is in the session has lost the hub; they are returned.
    fn miss_the_hub(&mut self) -> Vec<&'static str> {
        let mut left_alone = vec![];
        for (name, program) in &mut self.people {
            if has_come(program.seen()) {
                program.event("hub-lost");
                left_alone.push(*name);
            }
        }
        left_alone
    }

    /// Waits until those have found the hub again.
    fn find_the_hub(&mut self, left_alone: Vec<&'static str>) {
        for name in left_alone {
            self.program(name).event("hub-back");
        }
    }

    /// Waits until that person is out for everybody, and everybody else live or out too: whose
    /// connection was not made yet needs the hub that is gone.
    fn misses_only(&mut self, dead: &str) {
        let seed = self.seed;
        for (name, program, _) in self.everybody() {
            program.until(&format!("{dead} out for {name}, the hub too, seed {seed}"), |seen| {
                present(seen).iter().all(|(other, state)| *other != dead && *state == "live")
            });
        }
    }

    /// Waits until everybody sees all whom the session links it to, live, and nobody else: who is
    /// gone is no ghost, and who came back is seen once.
    fn settles(&mut self, when: &str) {
        let seed = self.seed;
        for (name, program, others) in self.everybody() {
            let what = format!("{others:?} and nobody else live for {name} {when}, seed {seed}");
            let wanted: Vec<_> = others.iter().map(|other| (*other, "live")).collect();
            program.until(&what, |seen| has_come(seen) && present(seen) == wanted);
        }
    }

    /// Waits until media goes on, from everybody to everybody whom the session has it sent to.
    fn media_goes_on(&mut self) {
        let (seed, one_way, is_over) = (self.seed, self.is_one_way(), self.is_over);
        for (name, program, mut others) in self.everybody() {
            others.retain(|other| !one_way || *other == "Olga");
            // Without a hub nobody else comes.
            others.retain(|other| !is_over || present(program.seen()).contains(&(*other, "live")));
            let first = program.wait_next("statistics", |event| event["event"] == "stats");
            program.until(&format!("media of {others:?} at {name}, seed {seed}"), |seen| {
                let last = seen.iter().rfind(|event| event["event"] == "stats");
                others.iter().all(|other| {
                    let (before, now) =
                        (received(&first, other), received(last.expect("there is one"), other));
                    now.0 > before.0 + 40 && now.1 > before.1 + 5
                })
            });
        }
    }

    /// Nobody whose program ran all the time was taken for lost by whom it was connected to.
    fn nobody_was_disturbed(&self, before: &Pairs) {
        for ((name, other), count) in before {
            let (Some(program), true) = (self.people.get(name), self.people.contains_key(other))
            else {
                continue;
            };
            let since = &states(program.seen(), other)[*count..];
            assert!(
                since.iter().all(|state| *state == "live"),
                "seed {}: {other} became {since:?} for {name}:\n{}",
                self.seed,
                program.transcript()
            );
        }
    }

    /// Waits until nobody keeps a seat for who is dead: the hub gives it up, and where that died
    /// too, each of the others.
    fn seat_is_given_up(&mut self, dead: &str) {
        // A seat is kept for 60 s, longer than anything else is waited for.
        thread::sleep(Duration::from_secs(40));
        let seed = self.seed;
        for (name, program, _) in self.everybody() {
            program.until(&format!("seat of {dead} given up at {name}, seed {seed}"), |seen| {
                states(seen, dead).ends_with(&["gone", "left"])
                    && people(seen).values().all(|(_, state)| *state != "gone")
            });
        }
    }

    /// Interrupts everybody: all are done, but who was not in yet when the hub was gone for good,
    /// and who was in and never connected to anybody.
    fn ends(self) {
        for (name, program) in self.people {
            let end = program.interrupt();
            let was_connected = end.all("participant").iter().any(|one| one["state"] == "live");
            let wanted = match has_come(&end.events) {
                true if was_connected => &[0][..],
                true => &[0, 8],
                false => &[3, 6],
            };
            let is_right = end.code.is_some_and(|code| wanted.contains(&code));
            assert!(is_right, "seed {}, {name}: {:?}, {:#?}", self.seed, end.code, end.events);
        }
    }

    /// Who is connected to whom, both ways, now.
    fn connected(&mut self) -> Pairs {
        let mut pairs = Pairs::new();
        for (name, program, others) in self.everybody() {
            program.until("what it said", |_| true);
            for other in others {
                let states = states(program.seen(), other);
                if states.last() == Some(&"live") {
                    pairs.insert((name, other), states.len());
                }
            }
        }
        let one_way = pairs.clone();
        pairs.retain(|(name, other), _| one_way.contains_key(&(*other, *name)));
        pairs
    }

    /// Everybody's name and program, and whom the session links it to.
    fn everybody(
        &mut self,
    ) -> impl Iterator<Item = (&'static str, &mut Program, Vec<&'static str>)> {
        let names: Vec<_> = self.people.keys().copied().collect();
        let one_way = self.is_one_way();
        self.people.iter_mut().map(move |(name, program)| {
            let others = names.iter().copied().filter(|other| other != name);
            let linked = |other: &&str| !one_way || [name, *other].contains(&"Olga");
            (*name, program, others.filter(linked).collect())
        })
    }

    fn program(&mut self, name: &str) -> &mut Program {
        self.people.get_mut(name).expect("it runs")
    }

    /// Where the hub listens.
    fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Whether who is killed stays dead until nobody keeps a seat.
    fn is_for_good(&self) -> bool {
        FOR_GOOD.contains(&(self.seed % 10))
    }

    fn is_one_way(&self) -> bool {
        self.kind == "av-broadcast"
    }
}

/// Whether a program said that.
fn has(seen: &[Value], name: &str) -> bool {
    seen.iter().any(|event| event["event"] == name)
}

/// Whether a program is in its session.
fn has_come(seen: &[Value]) -> bool {
    has(seen, "opened") || has(seen, "joined")
}

/// Everybody whom a program was told of, by id: the name, and the newest state.
fn people(seen: &[Value]) -> BTreeMap<&str, (&str, &str)> {
    let told = seen.iter().filter(|event| event["event"] == "participant");
    told.filter_map(|event| {
        let of = |key: &str| event[key].as_str();
        Some((of("participant")?, (of("name")?, of("state")?)))
    })
    .collect()
}

/// Who is in the session as a program was told, by name: all but those who left or are gone.
fn present(seen: &[Value]) -> Vec<(&str, &str)> {
    let mut present: Vec<_> = people(seen).into_values().collect();
    present.retain(|(_, state)| !["left", "gone"].contains(state));
    present.sort_unstable();
    present
}

/// The states that somebody was told to be in, in order.
fn states<'a>(seen: &'a [Value], name: &str) -> Vec<&'a str> {
    let of = seen.iter().filter(|event| event["event"] == "participant" && event["name"] == name);
    of.filter_map(|event| event["state"].as_str()).collect()
}

/// Packets of sound and decoded pictures of somebody.
fn received(stats: &Value, name: &str) -> (u64, u64) {
    let participants = list(stats, "sessions/0/participants").iter();
    let of = |path| {
        let mine = participants.clone().filter(|one| one["name"] == name);
        mine.filter_map(|one| one.pointer(path)?.as_u64()).max().unwrap_or_default()
    };
    (of("/audio/packets"), of("/video/decoded"))
}
