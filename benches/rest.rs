//! Measures how fast the built program starts, and its CPU use while idle: `cargo bench --bench
//! rest`. Needs Linux and what the tests need.

#[cfg(target_os = "linux")]
#[path = "../tests/rig/mod.rs"]
mod rig;

fn main() {
    #[cfg(target_os = "linux")]
    rest::measure();
    #[cfg(not(target_os = "linux"))]
    println!("CPU time is read from /proc, on Linux only");
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

    /// How long an idle program is measured.
    const MEASURE_TIME: Duration = Duration::from_secs(30);

    /// How long to wait before measuring: the start itself is not measured.
    const SETTLE_TIME: Duration = Duration::from_secs(3);

    /// The number of starts of each kind.
    const STARTS: usize = 9;

    /// The clock ticks of /proc per second (proc(5)): 100 on all current Linux systems.
    const TICKS_PER_SECOND: f64 = 100.0;

    /// The colour of the "Open all five" button in the dark theme.
    const ACCENT: Colour = [0x4F, 0x8C, 0xFF];

    pub(super) fn measure() {
        // The argument `--bench` of cargo is ignored.
        hub_starts();
        five_sessions_rest();
        window();
    }

    /// Measures the time from the start of the process to its first event.
    fn hub_starts() {
        let starts = (0..STARTS).map(|_| {
            let start = Instant::now();
            let mut hub = Program::start(&["serve", "--listen", "127.0.0.1:0"]);
            hub.event("listening");
            start.elapsed()
        });
        print_times("`quintet serve` to `listening`", starts.collect());
    }

    fn five_sessions_rest() {
        let hub = ["--listen", "127.0.0.1:0"];
        let sources = ["--camera", "busy", "--microphone", "tone:440", "--speaker", "none"];
        let start = Instant::now();
        let mut opener = Program::start(&[&["open", "--five"], &hub[..], &sources].concat());
        opener.events("opened", 5);
        println!("`quintet open --five` to the fifth link: {} ms", start.elapsed().as_millis());
        println!("  then, without guests: {:.4} core", cores(opener.process_id()));
    }

    fn window() {
        let settings = "camera = \"none\"\nmicrophone = \"none\"\nspeaker = \"none\"\n";
        let screen = Screen::start();
        let find_button = |window: &mut Window<'_>| {
            window.wait("the accent button", |_| screen.screenshot().bounding_box(ACCENT, 0..300))
        };
        let starts = (0..STARTS).map(|_| {
            let start = Instant::now();
            let mut window = Window::open(&screen, settings);
            find_button(&mut window);
            start.elapsed()
        });
        print_times("the window to its first frame, with the keyboard focus", starts.collect());
        let mut window = Window::open(&screen, settings);
        let button = find_button(&mut window);
        println!("  then, while nothing moves: {:.4} core", cores(window.process_id()));
        window.click(button.centre());
        println!("  and with five sessions open: {:.4} core", cores(window.process_id()));
    }

    fn print_times(what: &str, mut times: Vec<Duration>) {
        times.sort_unstable();
        let (median, max) =
            (times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis());
        println!("{what}: {median} ms, all {} within {max} ms", times.len());
    }

    /// Returns the CPU use of an idle process, in cores.
    fn cores(process: u32) -> f64 {
        thread::sleep(SETTLE_TIME);
        let (before, start) = (ticks(process), Instant::now());
        thread::sleep(MEASURE_TIME);
        (ticks(process) - before) as f64 / TICKS_PER_SECOND / start.elapsed().as_secs_f64()
    }

    /// Returns the CPU time of all threads of a process, user and system, in clock ticks.
    fn ticks(process: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
        // The fields follow the name, which ends with the last bracket; the first one is the state.
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let fields = fields.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<u64>().expect("a number")).sum()
    }
}
