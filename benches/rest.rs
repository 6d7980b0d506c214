//! How soon the program is there, and what it costs while nothing happens: the built program,
//! watched from outside. `cargo bench --bench rest`; with what the tests need, on Linux.

#[cfg(target_os = "linux")]
#[path = "../tests/rig/mod.rs"]
mod rig;

fn main() {
    #[cfg(target_os = "linux")]
    rest::measure();
    #[cfg(not(target_os = "linux"))]
    println!("processor time is read from /proc, on Linux only");
}

#[cfg(target_os = "linux")]
mod rest {
    use std::{
        fs, thread,
        time::{Duration, Instant},
    };

    use super::rig::{
        process::Program,
        screen::{Colour, Screen, Window},
    };

    /// How long a program that rests is watched.
    const WATCH: Duration = Duration::from_secs(30);

    /// What starts and opens costs once: not watched.
    const SETTLE: Duration = Duration::from_secs(3);

    /// Starts of each kind.
    const STARTS: usize = 9;

    /// A clock tick of /proc (proc(5)): a hundredth of a second on every Linux of today.
    const TICKS: f64 = 100.0;

    /// The button that invites, in the dark theme.
    const ACCENT: Colour = [0x4F, 0x8C, 0xFF];

    pub(super) fn measure() {
        // What a harness passes on, `--bench`, means nothing here.
        hub_starts();
        five_sessions_rest();
        window();
    }

    /// From the start of the process to its first word.
    fn hub_starts() {
        let starts = (0..STARTS).map(|_| {
            let start = Instant::now();
            let mut hub = Program::start(&["serve", "--listen", "127.0.0.1:0"]);
            hub.event("listening");
            start.elapsed()
        });
        tell("`quintet serve` to `listening`", starts.collect());
    }

    fn five_sessions_rest() {
        let hub = ["--listen", "127.0.0.1:0"];
        let sources = ["--camera", "busy", "--microphone", "tone:440", "--speaker", "none"];
        let start = Instant::now();
        let mut opener = Program::start(&[&["open", "--five"], &hub[..], &sources].concat());
        opener.events("opened", 5);
        println!("`quintet open --five` to the fifth link: {} ms", start.elapsed().as_millis());
        println!("  then, while nobody is there: {:.4} core", cores(opener.id()));
    }

    fn window() {
        let settings = "camera = \"none\"\nmicrophone = \"none\"\nspeaker = \"none\"\n";
        let screen = Screen::start();
        let invites = |window: &mut Window<'_>| {
            window.wait("a button that invites", |_| screen.shot().around(ACCENT, 0..300))
        };
        let starts = (0..STARTS).map(|_| {
            let start = Instant::now();
            let mut window = Window::open(&screen, settings);
            invites(&mut window);
            start.elapsed()
        });
        tell("the window to its first picture, with the keyboard", starts.collect());
        let mut window = Window::open(&screen, settings);
        let button = invites(&mut window);
        println!("  then, while nothing moves: {:.4} core", cores(window.id()));
        window.click(button.middle());
        println!("  and with five sessions open: {:.4} core", cores(window.id()));
    }

    fn tell(what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let (middle, last) =
            (times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis());
        println!("{what}: {middle} ms, all {} within {last} ms", times.len());
    }

    /// What a process costs a second, once it has settled.
    fn cores(process: u32) -> f64 {
        thread::sleep(SETTLE);
        let (before, start) = (ticks(process), Instant::now());
        thread::sleep(WATCH);
        (ticks(process) - before) as f64 / TICKS / start.elapsed().as_secs_f64()
    }

    /// Processor time of all its threads, user and system.
    fn ticks(process: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
        // After the name, which ends with the last bracket: state is the first field.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let fields = fields.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().expect("a number")).sum()
    }
}
