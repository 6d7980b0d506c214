//! A one-way session that can be attacked, and the measurement of its frame rate and costs.

use std::thread;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::rig::{
    process::{Exit, Hub, Program, at, lower_priority},
    resource_usage::ResourceUsage,
};

/// The arguments of the opener; `busy` is 1280x720@30.
const OPEN_ARGS: [&str; 7] =
    ["open", "--kind", "audio+video+data/one-way", "--id", "show", "--camera", "busy"];

/// The length of a measurement, in `stats` events, which come every second.
const WINDOW_SECONDS: usize = 2;

/// The number of measurements before the test fails.
const MAX_WINDOWS: usize = 7;

/// The frame rate of the control viewer, of 30, below which a measurement says nothing: this machine is
/// too busy, and the work of an attack decides who gets its processor.
const MIN_CONTROL_FPS: f64 = 20.0;

/// An opener that sends video, audio and data one way, and an honest viewer.
pub(crate) struct Broadcast {
    /// The hub of the session.
    pub(crate) hub: Hub,
    /// The opener, unless it runs the hub itself.
    opener: Option<Program>,
    viewer: Program,
}

/// A measurement of some seconds of a broadcast.
#[derive(Debug)]
pub(crate) struct Measurement {
    /// Frames per second that the viewer received.
    fps: f64,
    /// Processor time of the opener, in seconds per second.
    cores: f64,
    /// Resident memory of the opener.
    pub(crate) resident_mib: usize,
}

impl Broadcast {
    /// Starts a broadcast at a hub in a process of its own.
    pub(crate) fn start() -> Self {
        let hub = via_loopback(Hub::start_on("0.0.0.0:0"));
        let opener = hub.start_participant("Olga", &OPEN_ARGS);
        Self { viewer: hub.start_participant("Vera", &["join", "show"]), hub, opener: Some(opener) }
            .wait_for_video()
    }

    /// Starts a broadcast at a hub in the opener's own process.
    pub(crate) fn with_embedded_hub() -> Self {
        let hub = ["--listen", "0.0.0.0:0", "--name", "Olga"];
        let media = ["--microphone", "tone:440", "--speaker", "none"];
        let mut program = Program::start(&[&OPEN_ARGS[..], &hub, &media].concat());
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        let hub = via_loopback(Hub { program, url });
        Self { viewer: hub.start_participant("Vera", &["join", "show"]), hub, opener: None }
            .wait_for_video()
    }

    fn wait_for_video(mut self) -> Self {
        self.opener().event("opened");
        self.viewer.event("first-frame");
        self
    }

    /// The program that opened the session and sends.
    pub(crate) fn opener(&mut self) -> &mut Program {
        self.opener.as_mut().unwrap_or(&mut self.hub.program)
    }

    /// Ends the broadcast: the exits of the viewer and the opener.
    fn finish(self) -> [Exit; 2] {
        let Self { hub, opener, viewer } = self;
        let viewer = viewer.terminate();
        match opener {
            Some(opener) => [viewer, opener.terminate()],
            None => [viewer, hub.program.terminate()],
        }
    }

    /// Marks the start of a measurement: the number of events that the viewer and the opener have
    /// printed.
    fn mark(&mut self) -> [usize; 2] {
        let Self { hub, opener, viewer } = self;
        [viewer, opener.as_mut().unwrap_or(&mut hub.program)].map(|program| {
            program.wait_until("the events printed so far", |_| true);
            program.seen().len()
        })
    }

    /// Measures from the mark on, for at least [`WINDOW_SECONDS`].
    fn measure(&mut self, [viewer, opener]: [usize; 2]) -> Measurement {
        let received = "sessions/0/participants/0/video/received";
        Measurement {
            fps: rate_per_second(&mut self.viewer, viewer, received),
            cores: rate_per_second(self.opener(), opener, "cpu_seconds"),
            resident_mib: ResourceUsage::of_process(self.opener().process_id()).resident_kib / 1024,
        }
    }
}

/// The hub with its loopback URL for the honest programs. Attackers use another address.
fn via_loopback(hub: Hub) -> Hub {
    let port = hub.url.rsplit_once(':').expect("an address and a port").1.to_owned();
    Hub { url: format!("http://127.0.0.1:{port}"), ..hub }
}

/// A broadcast under attack, and a control broadcast without attacks that is measured at the same
/// time. Other load on this machine affects both alike.
pub(crate) struct Broadcasts {
    pub(crate) attacked: Broadcast,
    pub(crate) control: Broadcast,
}

impl Broadcasts {
    /// Measures both broadcasts until the attacked viewer gets at least half the frame rate of the
    /// control viewer, and panics after [`MAX_WINDOWS`] measurements.
    ///
    /// An encoder that adapts to the worst viewer, or a sender that waits for it, would give far
    /// less than half. A short overload of the machine spoils one measurement, the effect of an
    /// attack shows in all of them. On a machine that is always too busy, the attacked viewer must get
    /// video at all.
    pub(crate) fn compare(&mut self, what: &str) -> Measurement {
        let mut is_comparable = false;
        let mut newest = None;
        for _ in 0..MAX_WINDOWS {
            let marks = [self.attacked.mark(), self.control.mark()];
            let attacked = self.attacked.measure(marks[0]);
            let control = self.control.measure(marks[1]);
            let Measurement { fps, cores, resident_mib } = attacked;
            let (control_fps, control_cores) = (control.fps, control.cores);
            println!(
                "{what}: {fps:.1} fps (control {control_fps:.1}), opener {cores:.2} core \
                 (control {control_cores:.2}), {resident_mib} MiB"
            );
            if fps * 2.0 >= control_fps {
                return attacked;
            }
            is_comparable |= control_fps >= MIN_CONTROL_FPS;
            newest = Some(attacked).filter(|attacked| attacked.fps > 0.0);
        }
        if let (false, Some(newest)) = (is_comparable, newest) {
            println!("{what}: this machine is too busy to compare frame rates");
            return newest;
        }
        panic!("{what}: the viewer gets less than half the frame rate of the control viewer");
    }

    /// Ends both broadcasts. Returns `others` and the exits of the attacked viewer and opener, and
    /// asserts that all of them were successful.
    ///
    /// A lost hub connection is excused if the control broadcast lost its connection as well: then
    /// the machine was overloaded.
    pub(crate) fn finish(self, others: Vec<Exit>) -> Vec<Exit> {
        let exits: Vec<Exit> = others.into_iter().chain(self.attacked.finish()).collect();
        let lost =
            |exits: &[Exit]| exits.iter().any(|exit| !exit.events_named("hub-lost").is_empty());
        let is_excused = lost(&self.control.finish());
        for exit in &exits {
            assert_eq!(exit.code, Some(0));
            assert!(exit.events_named("error").is_empty(), "{:#?}", exit.events);
            assert!(is_excused || exit.events_named("hub-lost").is_empty(), "{:#?}", exit.events);
        }
        exits
    }
}

/// How much a value of the `stats` events grows per second, from the event with index `first` on.
fn rate_per_second(program: &mut Program, first: usize, path: &str) -> f64 {
    let stats_in = |seen: &[Value]| -> Vec<Value> {
        seen[first..].iter().filter(|event| event["event"] == "stats").cloned().collect()
    };
    program.wait_until("statistics", |seen| stats_in(seen).len() > WINDOW_SECONDS);
    let stats = stats_in(program.seen());
    let growth = |path: &str| {
        let value = |index: usize| at(&stats[index], path).as_f64().expect("a number");
        value(stats.len() - 1) - value(0)
    };
    growth(path) * 1000.0 / growth("t_ms")
}

/// A runtime for attackers whose threads run at the lowest priority, because a real attacker does
/// not use this machine's processor.
pub(crate) fn low_priority_runtime() -> Runtime {
    let build = || {
        lower_priority();
        Runtime::new().expect("a runtime starts")
    };
    let thread = thread::Builder::new().spawn(build).expect("a thread starts");
    thread.join().expect("the runtime is built")
}
