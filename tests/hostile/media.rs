//! One who is let in, and turns on the one who sends to all.

use std::{fs, process::Command, thread};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{
    assault::{Attack, LONGEST, Sent},
    rig::{
        held::Held,
        process::{Hub, Program, alone, at},
    },
    viewer::HostileViewer,
};

/// How long pictures are counted, in seconds of the figures.
const COUNTED: usize = 4;

/// How often that is done before the viewer is said to be hurt.
const WINDOWS: usize = 5;

/// Keyframes that are forced in a second at most, whoever asks.
const FORCED: f64 = 2.0;

/// Packets that are repeated for one viewer beyond one for each new one.
const REPEAT_BURST: u64 = 128;

/// Memory that all attacks together may cost the opener: what its allocator keeps of the 4 MiB
/// that one connection may hold of words, and of as much on their way.
const MEMORY_MIB: usize = 64;

/// An opener who sends pictures, sound and words one way, and a viewer who wishes it well.
struct Show {
    hub: Hub,
    opener: Program,
    viewer: Program,
}

/// What some seconds of a show were like.
#[derive(Debug)]
struct Figures {
    /// Pictures a second that the viewer got.
    fps: f64,
    /// Seconds of processor time a second of the opener.
    cores: f64,
    /// Memory of the opener.
    resident_mib: usize,
}

impl Show {
    fn begin() -> Self {
        let hub = Hub::start();
        let kind = "audio+video+data/one-way";
        let open = ["open", "--kind", kind, "--id", "show", "--camera", "busy"];
        let mut opener = hub.person("Olga", &open);
        opener.event("opened");
        let mut viewer = hub.person("Vera", &["join", "show"]);
        viewer.event("first-frame");
        Self { hub, opener, viewer }
    }

    /// Marks the time from which [`Show::figures`] are taken.
    fn mark(&mut self) -> [usize; 2] {
        [&mut self.viewer, &mut self.opener].map(|program| {
            program.until("what was printed so far", |_| true);
            program.seen().len()
        })
    }

    /// What it was like since that mark, for some seconds at least.
    fn figures(&mut self, [viewer, opener]: [usize; 2]) -> Figures {
        let received = "sessions/0/participants/0/video/received";
        Figures {
            fps: a_second(&mut self.viewer, viewer, received),
            cores: a_second(&mut self.opener, opener, "cpu_seconds"),
            resident_mib: Held::by(self.opener.id()).resident_kib / 1024,
        }
    }
}

/// A show, and another one that nobody attacks and that is watched meanwhile: whatever else this
/// machine does, it does to both.
struct Stages {
    attacked: Show,
    spared: Show,
}

impl Stages {
    /// Watches both until the viewer is not worse off than the spared one: half as many pictures
    /// are far more than an encoder makes that follows the worst viewer, or a sender that waits
    /// for it. Where nobody gets enough to tell, the next seconds tell; harm is there in all.
    fn watch(&mut self, what: &str) -> Figures {
        for _ in 0..WINDOWS {
            let marks = [self.attacked.mark(), self.spared.mark()];
            let attacked = self.attacked.figures(marks[0]);
            let spared = self.spared.figures(marks[1]);
            let Figures { fps, cores, resident_mib } = attacked;
            let (others, calm) = (spared.fps, spared.cores);
            println!(
                "{what}: {fps:.1} pictures a second (spared {others:.1}), opener {cores:.2} core \
                 (spared {calm:.2}), {resident_mib} MiB"
            );
            if fps * 2.0 >= others {
                return attacked;
            }
        }
        panic!("{what}: whoever is attacked gets less than half of what the spared get");
    }
}

/// How fast a figure grows a second from that event on.
fn a_second(program: &mut Program, begun: usize, path: &str) -> f64 {
    let of = |seen: &[Value]| -> Vec<Value> {
        seen[begun..].iter().filter(|event| event["event"] == "stats").cloned().collect()
    };
    program.until("figures", |seen| of(seen).len() > COUNTED);
    let stats = of(program.seen());
    let between = |path: &str| {
        let value = |index: usize| at(&stats[index], path).as_f64().expect("a number");
        value(stats.len() - 1) - value(0)
    };
    between(path) * 1000.0 / between("t_ms")
}

/// A runtime whose threads take only the processor time that nobody else wants: an attacker has a
/// machine of its own.
fn elsewhere() -> Runtime {
    let build = || {
        let own = fs::read_link("/proc/thread-self").expect("Linux has it");
        let id = own.file_name().expect("a number").to_owned();
        let nice = Command::new("renice").args(["-n", "19", "-p"]).arg(id).output();
        assert!(nice.expect("renice runs").status.success());
        Runtime::new().expect("a runtime starts")
    };
    let thread = thread::Builder::new().spawn(build).expect("a thread starts");
    thread.join().expect("it is built")
}

#[test]
fn no_viewer_hurts_another() {
    let _turn = alone();
    let mut stages = Stages { attacked: Show::begin(), spared: Show::begin() };
    let elsewhere = elsewhere();
    let before = stages.watch("Peace").resident_mib;
    for attack in [
        Attack::Mute,
        Attack::Deaf,
        Attack::Keyframes,
        Attack::Losses,
        Attack::Modest,
        Attack::Garbage,
        Attack::Words(LONGEST),
        Attack::Words(1 << 20),
        Attack::Channels,
    ] {
        let viewer = HostileViewer::join(&stages.attacked.hub, "show", attack);
        let hostile = elsewhere.block_on(viewer);
        stages.watch(&format!("{attack:?}"));
        // Longer words than are agreed on are dropped by the library, which then takes no more.
        if let Attack::Words(LONGEST) | Attack::Channels = attack {
            elsewhere.block_on(hostile.cut_off());
        }
        judge(attack, &elsewhere.block_on(hostile.leave()));
    }
    let stopped = stages.attacked.hub.person("Stan", &["join", "show"]);
    stages.attacked.opener.participant("Stan", "live");
    stopped.signal("STOP");
    let after = stages.watch("Stopped").resident_mib;
    assert!(after < before + MEMORY_MIB, "{after} MiB, it was {before}");
    for end in [stages.attacked.viewer.interrupt(), stages.attacked.opener.interrupt()] {
        assert_eq!(end.code, Some(0));
        assert!(end.all("error").is_empty() && end.all("hub-lost").is_empty(), "{:#?}", end.events);
        let lost = |event: &&Value| event["name"] == "Vera" && event["state"] == "gone";
        assert_eq!(end.all("participant").into_iter().filter(lost).count(), 0);
    }
}

/// What holds however fast this machine is: of keyframes, repetitions and pictures.
fn judge(attack: Attack, sent: &Sent) {
    let (seconds, keyframes) = (sent.seconds(), sent.keyframes.len());
    let Sent { new, repeated, bytes, fired, .. } = sent;
    println!(
        "    was sent {new} packets and {repeated} again, {} KiB, {keyframes} keyframes in \
         {seconds:.1} s; fired {fired}",
        bytes / 1024,
    );
    assert!(keyframes as f64 <= FORCED * seconds + 2.0, "{keyframes} keyframes in {seconds} s");
    assert!(*repeated <= new + REPEAT_BURST, "{repeated} of {new} packets were repeated");
    match attack {
        Attack::Keyframes => assert!(keyframes > 2, "nobody heard it ask"),
        Attack::Losses => assert!(*repeated > 0, "nobody heard it ask"),
        Attack::Modest
        | Attack::Garbage
        | Attack::Mute
        | Attack::Deaf
        | Attack::Words(_)
        | Attack::Channels => {}
    }
}
