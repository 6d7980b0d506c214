//! A hostile guest in a call of two honest participants, which send and receive.

use std::time::Duration;

use serde_json::Value;
use tokio::{runtime::Runtime, time::Instant};

use super::{
    guest::{self, HostileGuest},
    pictures,
    stage::elsewhere,
    wire::Manners,
};
use crate::rig::{
    held::Held,
    process::{End, Hub, Program, alone, at, list},
};

/// The camera of each honest participant.
const CAMERA: &str = "pattern:640x360@15";

/// The frame rate of [`CAMERA_SPEC`].
const SENT: f64 = 15.0;

/// The session kinds in which a guest is paired with a receiving participant, and the number of
/// participants it is paired with.
const KINDS: [(&str, usize); 2] = [("audio+video/many-to-many", 2), ("audio+video/one-to-many", 1)];

/// The share of the control call's frame rate that the attacked call must keep.
const KEPT: f64 = 0.93;

/// The length of a measurement, in `stats` events, which come every second.
const COUNTED: usize = 5;

/// The number of measurements before the test fails.
const WINDOWS: usize = 8;

/// Packets that the victim of a redirection may get from one program in [`ATTACK_TIME`].
const SCATTERED: usize = 1000;

/// How long the redirection of media and the flood of signalling messages last.
const SCATTERING: Duration = Duration::from_secs(10);

/// The time within which a guest that answers no connectivity check stops getting packets.
const CONSENT: Duration = Duration::from_secs(30);

/// Packets to send, each of a different unannounced stream. A program that kept 254 bytes for each
/// stream would need 12 MiB.
const STREAMS: u64 = 50_000;

/// Memory in MiB that decoding 1080p video with its reference frames may cost. Sixteen reference
/// frames would cost 75 MiB more.
const PICTURE_MIB: usize = 48;

/// Memory in MiB that the unannounced streams may cost; most of it is overhead of the allocator.
const MEMORY_MIB: usize = 6;

/// A call of two honest participants at a hub of its own.
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

    /// Marks the start of a measurement: the number of events that each participant has printed.
    fn mark(&mut self) -> [usize; 2] {
        self.people.each_mut().map(|participant| {
            participant.until("the events printed so far", |_| true);
            participant.seen().len()
        })
    }

    /// The frames that the two received from each other since the mark, and the seconds, both
    /// summed over the two.
    fn pictures(&mut self, marks: [usize; 2]) -> (f64, f64) {
        let [olga, vera] = &mut self.people;
        let by_olga = pictures(olga, marks[0], "Vera");
        let by_vera = pictures(vera, marks[1], "Olga");
        (by_olga.0 + by_vera.0, by_olga.1 + by_vera.1)
    }

    /// The resident memory of the larger of the two programs.
    fn resident_mib(&self) -> usize {
        let memory = |program: &Program| Held::by(program.id()).resident_kib / 1024;
        self.people.iter().map(memory).max().unwrap_or_default()
    }

    /// Ends the call and asserts that neither program had an error or lost the other one.
    fn end(self) {
        let Self { people: [olga, vera], .. } = self;
        for exit in [vera.interrupt(), olga.interrupt()] {
            let End { code, events, .. } = &exit;
            assert_eq!(*code, Some(0));
            assert!(exit.all("error").is_empty(), "{events:#?}");
            let lost = |event: &&Value| event["name"] != "Stranger" && event["state"] == "gone";
            let honest = ["Olga", "Vera"];
            let gone = exit.all("participant").into_iter().filter(lost);
            let gone: Vec<_> = gone.filter(|event| honest.contains(&name(event))).collect();
            // Vera leaves first, so Olga sees her go.
            assert!(gone.len() <= 1, "{gone:#?}");
        }
    }
}

fn name(event: &Value) -> &str {
    event["name"].as_str().unwrap_or_default()
}

/// The frames that a program received from a participant, from the event with index `first` on,
/// and the seconds in which it received them.
fn pictures(program: &mut Program, first: usize, participant: &str) -> (f64, f64) {
    let counts = |seen: &[Value]| -> Vec<(f64, f64)> {
        let stats = seen[first..].iter().filter(|event| event["event"] == "stats");
        let known = stats.filter_map(|stats| {
            let participants = list(stats, "sessions/0/participants");
            let entry = participants.iter().find(|entry| entry["name"] == participant)?;
            let number = |value: &Value| value.as_f64().expect("a number");
            Some((number(at(entry, "video/received")), number(&stats["t_ms"]) / 1000.0))
        });
        known.collect()
    };
    program.until("statistics", |seen| counts(seen).len() > COUNTED);
    let counts = counts(program.seen());
    let (first, last) = (counts[0], counts[counts.len() - 1]);
    (last.0 - first.0, last.1 - first.1)
}

/// A call with a hostile guest, and a control call without one that is measured at the same time.
/// Other load on this machine affects both alike.
struct Circles {
    attacked: Circle,
    spared: Circle,
}

impl Circles {
    /// Measures both calls until the attacked one keeps [`MIN_KEPT_SHARE`] of the control call's
    /// frame rate, in one measurement or over all of them; panics after [`MAX_WINDOWS`].
    ///
    /// On a busy machine either call gets fewer frames for a moment and more of them later. The
    /// effect of an attack shows in all measurements.
    fn watch(&mut self, what: &str) {
        let mut sums = [(0.0, 0.0); 2];
        for _ in 0..WINDOWS {
            let marks = [self.attacked.mark(), self.spared.mark()];
            let counted = [self.attacked.pictures(marks[0]), self.spared.pictures(marks[1])];
            for (sum, (frames, seconds)) in sums.iter_mut().zip(counted) {
                *sum = (sum.0 + frames, sum.1 + seconds);
            }
            let rates =
                |counted: [(f64, f64); 2]| counted.map(|(frames, seconds)| frames / seconds);
            let is_kept = |[attacked, control]: [f64; 2]| attacked >= KEPT * control.min(SENT);
            let (now, all) = (rates(counted), rates(sums));
            println!("{what}: {:.2} fps (control {:.2})", now[0], now[1]);
            if is_kept(now) || is_kept(all) {
                return;
            }
        }
        panic!("{what}: the attacked call keeps less than {KEPT} of the control's frame rate");
    }
}

#[test]
fn no_guest_reduces_the_frame_rate_of_others_or_floods_third_parties() {
    let _turn = alone();
    for (kind, paired) in KINDS {
        println!("{kind}");
        let mut calls = Circles { attacked: Circle::begin(kind), spared: Circle::begin(kind) };
        let runtime = elsewhere();
        calls.watch("no attack");
        scatter(&mut calls, &runtime, paired);
        refuse_to_answer(&mut calls, &runtime, paired);
        send_streams(&mut calls, &runtime, paired);
        want_references(&mut calls, &runtime, paired);
        flood_the_hub(&mut calls, &runtime);
        calls.attacked.end();
        calls.spared.end();
    }
}

/// The guest joins again and again, with a third party's address in its candidates.
fn scatter(calls: &mut Circles, runtime: &Runtime, paired: usize) {
    let victim = guest::victim();
    let target = victim.try_clone().expect("the socket can be cloned");
    let counting = runtime.spawn(guest::suffered(victim, SCATTERING));
    let joins =
        runtime.block_on(guest::scatter(&calls.attacked.hub, "circle", &target, SCATTERING));
    let packets = runtime.block_on(counting).expect("the counter does not panic");
    println!("redirected media in {joins} joins: the victim got {packets} packets");
    assert!(joins > 1 && packets > 0, "the attack did not take place");
    assert!(packets <= SCATTERED * paired, "{packets} packets");
    calls.watch("media redirected");
}

/// The guest sends connectivity checks and answers none.
fn refuse_to_answer(calls: &mut Circles, runtime: &Runtime, paired: usize) {
    let joining = HostileGuest::join((&calls.attacked.hub, "circle"), Manners::Mute, None, paired);
    let hostile = runtime.block_on(joining);
    let received = || {
        let traffic = hostile.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        traffic.new + traffic.repeated
    };
    calls.watch("checks not answered");
    let begun = Instant::now();
    let mut before = received();
    assert!(before > 0, "the guest received no packet");
    loop {
        std::thread::sleep(Duration::from_secs(3));
        let now = received();
        if now == before {
            break;
        }
        assert!(begun.elapsed() < CONSENT, "the guest received {} packets in 3 s", now - before);
        before = now;
    }
    println!("checks not answered: {before} packets in total");
    calls.watch("consent expired");
    runtime.block_on(hostile.leave());
}

/// The guest sends unencrypted packets, each of a new stream.
fn send_streams(calls: &mut Circles, runtime: &Runtime, paired: usize) {
    let before = calls.attacked.resident_mib();
    let joining =
        HostileGuest::join((&calls.attacked.hub, "circle"), Manners::Streams, None, paired);
    let hostile = runtime.block_on(joining);
    calls.watch("unknown streams");
    let sent = || hostile.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner).fired;
    let deadline = Instant::now() + Duration::from_secs(120);
    while sent() < STREAMS * paired as u64 {
        assert!(Instant::now() < deadline, "the guest sent only {} packets", sent());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (after, control) = (calls.attacked.resident_mib(), calls.spared.resident_mib());
    println!("unknown streams: {} packets, {before} MiB, then {after} (control {control})", sent());
    assert!(after <= before + MEMORY_MIB, "{after} MiB, it was {before}");
    runtime.block_on(hostile.leave());
}

/// The guest sends video that declares sixteen reference frames.
fn want_references(calls: &mut Circles, runtime: &Runtime, paired: usize) {
    let before = calls.attacked.resident_mib();
    let keyframe = Some(pictures::of_sixteen_references());
    let session = (&calls.attacked.hub, "circle");
    let joining = HostileGuest::join(session, Manners::Good, keyframe, paired);
    let hostile = runtime.block_on(joining);
    calls.watch("reference frames");
    let after = calls.attacked.resident_mib();
    println!("reference frames: {before} MiB, then {after}");
    assert!(after <= before + PICTURE_MIB, "{after} MiB, it was {before}");
    runtime.block_on(hostile.leave());
}

/// The guest floods a participant with signalling messages through the hub.
fn flood_the_hub(calls: &mut Circles, runtime: &Runtime) {
    let marks = calls.attacked.mark();
    let flooding = guest::flood(&calls.attacked.hub, "circle", SCATTERING);
    let refused = runtime.block_on(flooding);
    println!("signalling flooded: the hub refused messages {refused} times");
    assert!(refused > 0, "the hub refused no message");
    calls.watch("signalling flooded");
    for (participant, first) in calls.attacked.people.iter().zip(marks) {
        let is_lost = |event: &Value| event["event"] == "hub-lost";
        assert!(!participant.seen()[first..].iter().any(is_lost), "{}", participant.transcript());
    }
}
