//! Those who are to be hurt, and what can be seen of it.

use std::{fs, process::Command, thread};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::rig::{
    held::Held,
    process::{End, Hub, Program, at},
};

/// What the opener sends: `busy` is 1280x720@30.
const OPEN: [&str; 7] =
    ["open", "--kind", "audio+video+data/one-way", "--id", "show", "--camera", "busy"];

/// How long pictures are counted, in seconds of the figures.
const COUNTED: usize = 4;

/// How often that is done before the viewer is said to be hurt.
const WINDOWS: usize = 5;

/// An opener who sends pictures, sound and words one way, and a viewer who wishes it well.
pub(crate) struct Show {
    /// Its hub.
    pub(crate) hub: Hub,
    /// The opener, if it did not bring the hub.
    opener: Option<Program>,
    viewer: Program,
}

/// What some seconds of a show were like.
#[derive(Debug)]
pub(crate) struct Figures {
    /// Pictures a second that the viewer got.
    fps: f64,
    /// Seconds of processor time a second of the opener.
    cores: f64,
    /// Memory of the opener.
    pub(crate) resident_mib: usize,
}

impl Show {
    /// At a hub in a process of its own.
    pub(crate) fn begin() -> Self {
        let hub = by_loopback(Hub::start_on("0.0.0.0:0"));
        let opener = hub.person("Olga", &OPEN);
        Self { viewer: hub.person("Vera", &["join", "show"]), hub, opener: Some(opener) }.seen()
    }

    /// At the hub that its opener brings.
    pub(crate) fn with_its_hub() -> Self {
        let brings = ["--listen", "0.0.0.0:0", "--name", "Olga"];
        let sends = ["--microphone", "tone:440", "--speaker", "none"];
        let mut program = Program::start(&[&OPEN[..], &brings, &sends].concat());
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        let hub = by_loopback(Hub { program, url });
        Self { viewer: hub.person("Vera", &["join", "show"]), hub, opener: None }.seen()
    }

    fn seen(mut self) -> Self {
        self.opener().event("opened");
        self.viewer.event("first-frame");
        self
    }

    /// The program that sends.
    pub(crate) fn opener(&mut self) -> &mut Program {
        self.opener.as_mut().unwrap_or(&mut self.hub.program)
    }

    /// Ends it: how the viewer and the opener did.
    fn end(self) -> [End; 2] {
        let Self { hub, opener, viewer } = self;
        let viewer = viewer.interrupt();
        match opener {
            Some(opener) => [viewer, opener.interrupt()],
            None => [viewer, hub.program.interrupt()],
        }
    }

    /// Marks the time from which [`Show::figures`] are taken.
    fn mark(&mut self) -> [usize; 2] {
        let Self { hub, opener, viewer } = self;
        [viewer, opener.as_mut().unwrap_or(&mut hub.program)].map(|program| {
            program.until("what was printed so far", |_| true);
            program.seen().len()
        })
    }

    /// What it was like since that mark, for some seconds at least.
    fn figures(&mut self, [viewer, opener]: [usize; 2]) -> Figures {
        let received = "sessions/0/participants/0/video/received";
        Figures {
            fps: a_second(&mut self.viewer, viewer, received),
            cores: a_second(self.opener(), opener, "cpu_seconds"),
            resident_mib: Held::by(self.opener().id()).resident_kib / 1024,
        }
    }
}

/// The hub as this machine's own programs reach it: who attacks it comes from elsewhere.
fn by_loopback(hub: Hub) -> Hub {
    let port = hub.url.rsplit_once(':').expect("an address and a port").1.to_owned();
    Hub { url: format!("http://127.0.0.1:{port}"), ..hub }
}

/// A show, and another one that nobody attacks and that is watched meanwhile: whatever else this
/// machine does, it does to both.
pub(crate) struct Stages {
    pub(crate) attacked: Show,
    pub(crate) spared: Show,
}

impl Stages {
    /// Watches both until the viewer is not worse off than the spared one: half as many pictures
    /// are far more than an encoder makes that follows the worst viewer, or a sender that waits
    /// for it. Where nobody gets enough to tell, the next seconds tell; harm is there in all.
    pub(crate) fn watch(&mut self, what: &str) -> Figures {
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

    /// Ends both: how the viewer and the opener did who were attacked, and `others` beside them.
    /// All did well; where some of the spared lost their hub as well, the machine stood still.
    pub(crate) fn end(self, others: Vec<End>) -> Vec<End> {
        let ends: Vec<End> = others.into_iter().chain(self.attacked.end()).collect();
        let lost = |ends: &[End]| ends.iter().any(|end| !end.all("hub-lost").is_empty());
        let is_excused = lost(&self.spared.end());
        for end in &ends {
            assert_eq!(end.code, Some(0));
            assert!(end.all("error").is_empty(), "{:#?}", end.events);
            assert!(is_excused || end.all("hub-lost").is_empty(), "{:#?}", end.events);
        }
        ends
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
pub(crate) fn elsewhere() -> Runtime {
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
