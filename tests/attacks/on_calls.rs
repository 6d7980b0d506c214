//! A hostile guest in a call of two honest participants, which send and receive.

use std::{sync::PoisonError, thread, time::Duration};

use serde_json::Value;
use tokio::{runtime::Runtime, time::Instant};

use super::{
    broadcast::low_priority_runtime,
    crafted_video,
    hostile_guest::{self, HostileGuest},
    hostile_runtime::SocketBehaviour,
};
use crate::rig::{
    process::{Exit, Hub, Program, at, list, take_turn},
    resource_usage::ResourceUsage,
};

/// The camera of each honest participant.
const CAMERA_SPEC: &str = "pattern:640x360@15";

/// The frame rate of [`CAMERA_SPEC`].
const SENT_FPS: f64 = 15.0;

/// The session kinds in which a guest is paired with a receiving participant, and the number of
/// participants it is paired with.
const KINDS: [(&str, usize); 2] = [("audio+video/many-to-many", 2), ("audio+video/one-to-many", 1)];

/// The share of the control call's frame rate that the attacked call must keep.
const MIN_KEPT_SHARE: f64 = 0.93;

/// The length of a measurement, in `stats` events, which come every second.
const WINDOW_SECONDS: usize = 4;

/// The number of measurements before the test fails.
const MAX_WINDOWS: usize = 10;

/// Packets that the victim of a redirection may get from one program in [`ATTACK_TIME`].
const MAX_VICTIM_PACKETS: usize = 600;

/// How long the redirection of media and the flood of signalling messages last: longer than a
/// measurement, which takes place meanwhile.
const ATTACK_TIME: Duration = Duration::from_secs(6);

/// The time within which a guest that answers no connectivity check stops getting packets.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a guest gets no packet whose connection is closed. A live one gets 65 each second.
const SILENCE: Duration = Duration::from_millis(1500);

/// Packets to send, each of a different unannounced stream. A program that kept 254 bytes for each
/// stream would need 12 MiB.
const FLOODED_STREAMS: u64 = 50_000;

/// Memory in MiB that decoding 1080p video with its reference frames may cost. Sixteen reference
/// frames would cost 75 MiB more.
const REFERENCE_MEMORY_MIB: usize = 48;

/// Memory in MiB that the unannounced streams may cost; most of it is overhead of the allocator.
const STREAM_MEMORY_MIB: usize = 6;

/// A call of two honest participants at a hub of its own.
struct Call {
    hub: Hub,
    participants: [Program; 2],
}

impl Call {
    fn start(kind: &str) -> Self {
        let hub = Hub::start();
        let open = ["open", "--kind", kind, "--id", "circle", "--camera", CAMERA_SPEC];
        let mut olga = hub.start_participant("Olga", &open);
        olga.event("opened");
        let mut vera = hub.start_participant("Vera", &["join", "circle", "--camera", CAMERA_SPEC]);
        vera.participant("Olga", "live");
        olga.participant("Vera", "live");
        Self { hub, participants: [olga, vera] }
    }

    /// Marks the start of a measurement: the number of events that each participant has printed.
    fn mark(&mut self) -> [usize; 2] {
        self.participants.each_mut().map(|participant| {
            participant.wait_until("the events printed so far", |_| true);
            participant.seen().len()
        })
    }

    /// The frames that the two received from each other since the mark, and the seconds, both
    /// summed over the two.
    fn frames_received(&mut self, marks: [usize; 2]) -> (f64, f64) {
        let [olga, vera] = &mut self.participants;
        let by_olga = received_video(olga, marks[0], "Vera");
        let by_vera = received_video(vera, marks[1], "Olga");
        (by_olga.0 + by_vera.0, by_olga.1 + by_vera.1)
    }

    /// The resident memory of the larger of the two programs.
    fn resident_mib(&self) -> usize {
        let memory =
            |program: &Program| ResourceUsage::of_process(program.process_id()).resident_kib / 1024;
        self.participants.iter().map(memory).max().unwrap_or_default()
    }

    /// Ends the call and asserts that neither program had an error or lost the other one.
    fn finish(self) {
        let Self { participants: [olga, vera], .. } = self;
        for exit in [vera.terminate(), olga.terminate()] {
            let Exit { code, events, .. } = &exit;
            assert_eq!(*code, Some(0));
            assert!(exit.events_named("error").is_empty(), "{events:#?}");
            let lost = |event: &&Value| event["name"] != "Stranger" && event["state"] == "gone";
            let honest = ["Olga", "Vera"];
            let gone = exit.events_named("participant").into_iter().filter(lost);
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
fn received_video(program: &mut Program, first: usize, participant: &str) -> (f64, f64) {
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
    program.wait_until("statistics", |seen| counts(seen).len() > WINDOW_SECONDS);
    let counts = counts(program.seen());
    let (first, last) = (counts[0], counts[counts.len() - 1]);
    (last.0 - first.0, last.1 - first.1)
}

/// A call with a hostile guest, and a control call without one that is measured at the same time.
/// Other load on this machine affects both alike.
struct Calls {
    kind: &'static str,
    attacked: Call,
    control: Call,
}

impl Calls {
    /// Measures both calls until the attacked one keeps [`MIN_KEPT_SHARE`] of the control call's
    /// frame rate, in one measurement or over all of them; panics after [`MAX_WINDOWS`].
    ///
    /// On a busy machine either call gets fewer frames for a moment and more of them later. The
    /// effect of an attack shows in all measurements.
    fn compare(&mut self, what: &str) {
        let mut sums = [(0.0, 0.0); 2];
        for _ in 0..MAX_WINDOWS {
            let marks = [self.attacked.mark(), self.control.mark()];
            let counted =
                [self.attacked.frames_received(marks[0]), self.control.frames_received(marks[1])];
            for (sum, (frames, seconds)) in sums.iter_mut().zip(counted) {
                *sum = (sum.0 + frames, sum.1 + seconds);
            }
            let rates =
                |counted: [(f64, f64); 2]| counted.map(|(frames, seconds)| frames / seconds);
            let is_kept =
                |[attacked, control]: [f64; 2]| attacked >= MIN_KEPT_SHARE * control.min(SENT_FPS);
            let (now, all) = (rates(counted), rates(sums));
            println!("{}, {what}: {:.2} fps (control {:.2})", self.kind, now[0], now[1]);
            if is_kept(now) || is_kept(all) {
                return;
            }
        }
        panic!(
            "{what}: the attacked call keeps less than {MIN_KEPT_SHARE} of the control's frame rate"
        );
    }
}

#[test]
fn no_guest_reduces_the_frame_rate_of_others_or_floods_third_parties() {
    let _turn = take_turn();
    // The attacks of one kind mostly wait, so both kinds run at the same time.
    thread::scope(|scope| {
        for (kind, paired) in KINDS {
            scope.spawn(move || attack_calls(kind, paired));
        }
    });
}

fn attack_calls(kind: &'static str, paired: usize) {
    let (attacked, control) = (Call::start(kind), Call::start(kind));
    let mut calls = Calls { kind, attacked, control };
    let runtime = low_priority_runtime();
    calls.compare("no attack");
    let silent = join_without_responses(&calls, &runtime, paired);
    redirect_media_to_victim(&mut calls, &runtime, paired);
    flood_unknown_streams(&mut calls, &runtime, paired);
    demand_references(&mut calls, &runtime, paired);
    flood_the_hub(&mut calls, &runtime);
    wait_until_consent_expires(&silent);
    runtime.block_on(silent.leave());
    calls.attacked.finish();
    calls.control.finish();
}

/// The guest joins again and again, with a third party's address in its candidates.
fn redirect_media_to_victim(calls: &mut Calls, runtime: &Runtime, paired: usize) {
    let victim = hostile_guest::bind_victim();
    let target = victim.try_clone().expect("the socket can be cloned");
    let counting = runtime.spawn(hostile_guest::count_packets(victim, ATTACK_TIME));
    let hub = calls.attacked.hub.url.clone();
    let joins = thread::scope(|scope| {
        let attack = || {
            let (session, time) = ("circle", ATTACK_TIME);
            runtime.block_on(hostile_guest::rejoin_with_victim_candidates(
                &hub, session, &target, time,
            ))
        };
        let joining = scope.spawn(attack);
        calls.compare("media redirected, checks not answered");
        joining.join().expect("the guest does not panic")
    });
    let packets = runtime.block_on(counting).expect("the counter does not panic");
    println!("redirected media in {joins} joins: the victim got {packets} packets");
    assert!(joins > 1 && packets > 0, "the attack did not take place");
    assert!(packets <= MAX_VICTIM_PACKETS * paired, "{packets} packets");
}

/// Joins as a guest that sends connectivity checks and answers none.
fn join_without_responses(calls: &Calls, runtime: &Runtime, paired: usize) -> HostileGuest {
    let session = (&calls.attacked.hub, "circle");
    let guest = HostileGuest::join(session, SocketBehaviour::NoStunResponses, None, paired);
    runtime.block_on(guest)
}

/// Waits until nothing is sent to a guest that answers no connectivity checks.
fn wait_until_consent_expires(guest: &HostileGuest) {
    let received = || {
        let traffic = guest.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.new_packets + traffic.retransmitted
    };
    let begun = Instant::now();
    let mut before = received();
    assert!(before > 0, "the guest received no packet");
    loop {
        thread::sleep(SILENCE);
        let now = received();
        if now == before {
            return println!("checks not answered: {before} packets in total");
        }
        let packets = now - before;
        assert!(begun.elapsed() < CONSENT_TIMEOUT, "the guest received {packets} more packets");
        before = now;
    }
}

/// The guest sends unencrypted packets, each of a new stream.
fn flood_unknown_streams(calls: &mut Calls, runtime: &Runtime, paired: usize) {
    let before = calls.attacked.resident_mib();
    let joining = HostileGuest::join(
        (&calls.attacked.hub, "circle"),
        SocketBehaviour::FloodStreams,
        None,
        paired,
    );
    let hostile = runtime.block_on(joining);
    calls.compare("unknown streams");
    let sent = || hostile.traffic.lock().unwrap_or_else(PoisonError::into_inner).attack_packets;
    let deadline = Instant::now() + Duration::from_secs(120);
    while sent() < FLOODED_STREAMS * paired as u64 {
        assert!(Instant::now() < deadline, "the guest sent only {} packets", sent());
        thread::sleep(Duration::from_millis(100));
    }
    let (after, control) = (calls.attacked.resident_mib(), calls.control.resident_mib());
    println!("unknown streams: {} packets, {before} MiB, then {after} (control {control})", sent());
    assert!(after <= before + STREAM_MEMORY_MIB, "{after} MiB, it was {before}");
    runtime.block_on(hostile.leave());
}

/// The guest sends video that declares sixteen reference frames.
fn demand_references(calls: &mut Calls, runtime: &Runtime, paired: usize) {
    let before = calls.attacked.resident_mib();
    let keyframe = Some(crafted_video::keyframe_with_sixteen_references());
    let session = (&calls.attacked.hub, "circle");
    let joining = HostileGuest::join(session, SocketBehaviour::Normal, keyframe, paired);
    let hostile = runtime.block_on(joining);
    calls.compare("reference frames");
    let after = calls.attacked.resident_mib();
    println!("reference frames: {before} MiB, then {after}");
    assert!(after <= before + REFERENCE_MEMORY_MIB, "{after} MiB, it was {before}");
    runtime.block_on(hostile.leave());
}

/// The guest floods a participant with signalling messages through the hub.
fn flood_the_hub(calls: &mut Calls, runtime: &Runtime) {
    let marks = calls.attacked.mark();
    let hub = calls.attacked.hub.url.clone();
    let refused = thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            runtime.block_on(hostile_guest::flood_signalling(&hub, "circle", ATTACK_TIME))
        });
        calls.compare("signalling flooded");
        flooding.join().expect("the guest does not panic")
    });
    println!("signalling flooded: the hub refused messages {refused} times");
    assert!(refused > 0, "the hub refused no message");
    for (participant, first) in calls.attacked.participants.iter().zip(marks) {
        let is_lost = |event: &Value| event["event"] == "hub-lost";
        assert!(!participant.seen()[first..].iter().any(is_lost), "{}", participant.transcript());
    }
}
