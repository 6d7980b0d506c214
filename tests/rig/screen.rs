//! A screen without a monitor, and the program's window on it, driven as a person would.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Folder, process::give_identity};

/// How long anything may take before a test gives up: many times what it takes when idle.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at the screen.
const BREATH: Duration = Duration::from_millis(100);

/// A red, green and blue of 0 to 255.
pub(crate) type Colour = [u8; 3];

/// An X server that shows nothing. Ended when dropped.
pub(crate) struct Screen {
    server: Child,
    display: String,
    folder: Folder,
}

impl Screen {
    /// One of 1280 by 800 pixels, on a display that is free.
    pub(crate) fn start() -> Self {
        Self::start_without(&[])
    }

    /// One that lacks these extensions.
    pub(crate) fn start_without(extensions: &[&str]) -> Self {
        // Servers that start at once and look for a free display themselves may take the same one,
        // but no two tests' programs have the same number.
        let own = 5 * (std::process::id() % 10_000);
        let screens = (100 + own..).take(5);
        let screens = screens.filter_map(|display| Self::try_start(display, extensions));
        let mut good =
            screens.filter(|screen| screen.xdotool(&["getdisplaygeometry"]).status.success());
        good.next().expect("one of five X servers answers")
    }

    fn try_start(display: u32, without: &[&str]) -> Option<Self> {
        let folder = Folder::new();
        let mut command = Command::new("Xvfb");
        let display = format!(":{display}");
        command.args([&display, "-displayfd", "1", "-screen", "0", "1280x800x24"]);
        // It would begin anew when the last client goes, and refuse who comes meanwhile.
        command.args(["-nolisten", "tcp", "-noreset"]);
        command.arg("-fbdir").arg(folder.path());
        command.args(without.iter().flat_map(|extension| ["-extension", extension]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap_or_else(|error| missing("Xvfb", &error));
        let out = server.stdout.take().expect("its output is piped");
        // It tells its display when it is ready, and nothing if the display is taken.
        let told = BufReader::new(out).read_line(&mut String::new());
        let screen = Self { server, display, folder };
        (told.expect("Xvfb's output is read") > 0).then_some(screen)
    }

    /// Has something done by the keyboard, the mouse or the window manager's hand.
    pub(crate) fn xdotool(&self, args: &[&str]) -> Output {
        let mut command = Command::new("xdotool");
        let done = command.args(args).env("DISPLAY", &self.display).output();
        done.unwrap_or_else(|error| missing("xdotool", &error))
    }

    /// Ends at once, as a crash or a lost connection would have it.
    pub(crate) fn vanish(&self) {
        let ended = Command::new("kill").args(["-KILL", &self.server.id().to_string()]).status();
        assert!(ended.expect("kill runs").success());
    }

    /// What is on the clipboard; empty if nothing is.
    pub(crate) fn clipboard(&self) -> String {
        let mut command = Command::new("xclip");
        command.args(["-o", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        let said = command.output().unwrap_or_else(|error| missing("xclip", &error));
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// Puts a text on the clipboard.
    pub(crate) fn copy(&self, text: &str) {
        let mut command = Command::new("xclip");
        command.args(["-i", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        // It stays behind to hand the text out, until the next one does.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| missing("xclip", &error));
        let mut input = child.stdin.take().expect("its input is piped");
        input.write_all(text.as_bytes()).expect("xclip reads");
        drop(input);
        assert!(child.wait().expect("xclip hands over to its child").success());
    }

    /// Puts a text on the clipboard for a program that then hangs; until the program is dropped.
    pub(crate) fn copy_and_hang(&self, text: &str) -> Hung {
        let mut command = Command::new("xclip");
        command.args(["-quiet", "-i", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| missing("xclip", &error));
        let mut input = child.stdin.take().expect("its input is piped");
        input.write_all(text.as_bytes()).expect("xclip reads");
        drop(input);
        let hung = Hung(child);
        let end = Instant::now() + PATIENCE;
        while self.clipboard() != text {
            assert!(Instant::now() < end, "xclip takes no clipboard");
            thread::sleep(BREATH);
        }
        let id = hung.0.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().expect("kill runs").success());
        hung
    }

    /// What is on the screen now.
    pub(crate) fn shot(&self) -> Shot {
        // Xvfb keeps the screen in a file of the form that `xwd` writes: a header of big-endian
        // words, a table of colours, then rows of blue, green, red and nothing.
        let file = fs::read(self.folder.file("Xvfb_screen0")).expect("Xvfb keeps its screen");
        let word = |index: usize| {
            let bytes = file[4 * index..4 * index + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes) as usize
        };
        let (width, height, row) = (word(4), word(5), word(12));
        assert_eq!((word(7), word(11)), (0, 32), "the least byte first, 32 bits a pixel");
        let start = word(0) + 12 * word(19);
        let rows = file[start..].chunks(row).take(height);
        let pixels = rows.flat_map(|row| row[..4 * width].chunks(4).map(|p| [p[2], p[1], p[0]]));
        Shot { width, pixels: pixels.collect() }
    }
}

/// A program that has the clipboard and does not answer. Ended when dropped.
pub(crate) struct Hung(Child);

impl Drop for Hung {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Asked politely, it takes its lock away.
        let id = self.server.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &id]).status();
        if !asked.is_ok_and(|status| status.success()) {
            self.server.kill().ok();
        }
        self.server.wait().ok();
    }
}

fn missing<T>(program: &str, error: &std::io::Error) -> T {
    panic!(
        "{program} cannot be started ({error}): install xvfb, xdotool and xclip, as \
         `bash .ci/setup --tests` does"
    )
}

/// What was on the screen.
pub(crate) struct Shot {
    width: usize,
    pixels: Vec<Colour>,
}

impl Shot {
    /// The smallest rectangle around all pixels of that colour between two columns: left, top,
    /// right, bottom.
    pub(crate) fn around(&self, colour: Colour, columns: std::ops::Range<usize>) -> Option<Place> {
        let mut found: Option<Place> = None;
        for (index, pixel) in self.pixels.iter().enumerate() {
            let (x, y) = (index % self.width, index / self.width);
            if *pixel != colour || !columns.contains(&x) {
                continue;
            }
            let place = found.get_or_insert(Place { left: x, top: y, right: x, bottom: y });
            place.left = place.left.min(x);
            (place.right, place.bottom) = (place.right.max(x), place.bottom.max(y));
        }
        found
    }

    /// How many pixels right of that column differ from another shot's.
    pub(crate) fn changed(&self, other: &Self, from: usize) -> usize {
        let pairs = self.pixels.iter().zip(&other.pixels).enumerate();
        pairs.filter(|(index, (one, two))| index % self.width >= from && one != two).count()
    }
}

/// A rectangle of pixels, its edges included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) right: usize,
    pub(crate) bottom: usize,
}

impl Place {
    /// Its middle, as `xdotool` wants it.
    pub(crate) fn middle(self) -> (usize, usize) {
        (usize::midpoint(self.left, self.right), usize::midpoint(self.top, self.bottom))
    }
}

/// The program's window. The program is killed when it is dropped.
pub(crate) struct Window<'a> {
    program: Child,
    screen: &'a Screen,
    home: Folder,
}

/// How a window is started: in a home of its own, so that it meets no other.
pub(crate) struct Start {
    home: Folder,
    command: Command,
}

impl Start {
    /// With these settings, on that screen.
    pub(crate) fn new(screen: &Screen, settings: &str) -> Self {
        let home = Folder::new();
        let folder = home.file("config").join("quintet");
        fs::create_dir_all(&folder).expect("a folder for the settings");
        fs::write(folder.join("settings.toml"), settings).expect("the settings are written");
        let command = Self::command(&home, screen);
        Self { home, command }
    }

    fn command(home: &Folder, screen: &Screen) -> Command {
        // Under `nohup` the tests would hand on that a closed terminal is ignored.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_quintet")]);
        command.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.file("config"));
        give_identity(home);
        command.env("XDG_STATE_HOME", home.file("state")).env("DISPLAY", &screen.display);
        command.env("XDG_RUNTIME_DIR", home.path()).env_remove("WAYLAND_SOCKET");
        command.env_remove("WAYLAND_DISPLAY").env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.env("LIBGL_ALWAYS_SOFTWARE", "1").stdin(Stdio::null());
        // What it says is for a person, not for us.
        command.env_remove("RUST_BACKTRACE");
        command
    }

    /// Its home.
    pub(crate) fn home(&self) -> &Folder {
        &self.home
    }

    /// With these arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// In this environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it where no window can be opened, and waits for the end: its exit code, and what it
    /// said on standard error.
    pub(crate) fn fail(mut self) -> (Option<i32>, String) {
        let ended = self.command.output().expect("the program starts");
        (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
    }

    /// Opens the window and waits until it has the keyboard.
    pub(crate) fn open(mut self, screen: &Screen) -> Window<'_> {
        let program = self.command.spawn().expect("the program starts");
        let mut window = Window { program, screen, home: self.home };
        window.focus();
        window
    }
}

impl<'a> Window<'a> {
    /// Opens it with these settings, in a home of its own, and waits until it has the keyboard.
    pub(crate) fn open(screen: &'a Screen, settings: &str) -> Self {
        Start::new(screen, settings).open(screen)
    }

    /// Waits until it is there and has the keyboard; its number.
    pub(crate) fn focus(&mut self) -> String {
        let pid = self.program.id().to_string();
        let id = self.wait("a window named Quintet", |window| {
            let named = ["search", "--all", "--onlyvisible", "--pid", &pid, "--name", "^Quintet"];
            let found = window.screen.xdotool(&named);
            let id = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            (!id.is_empty()).then_some(id)
        });
        self.wait("the keyboard", |window| {
            window.screen.xdotool(&["windowfocus", &id]);
            let focused = window.screen.xdotool(&["getwindowfocus"]);
            (String::from_utf8_lossy(&focused.stdout).trim() == id).then_some(())
        });
        id
    }

    /// Starts the program once more, for the same person on the same screen; its exit code.
    pub(crate) fn start_again(&self, args: &[&str]) -> Option<i32> {
        let again = Start::command(&self.home, self.screen).args(args).status();
        again.expect("the program starts").code()
    }

    /// Makes it so large.
    pub(crate) fn resize(&mut self, width: u16, height: u16) {
        let id = self.focus();
        let (width, height) = (width.to_string(), height.to_string());
        assert!(
            self.screen.xdotool(&["windowsize", "--sync", &id, &width, &height]).status.success()
        );
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.program.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until the program has ended; its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(ended) = self.program.try_wait().expect("the program can be asked") {
                return ended.code();
            }
            assert!(Instant::now() < end, "the program does not end");
            thread::sleep(BREATH);
        }
    }

    /// Where it keeps its settings.
    pub(crate) fn settings(&self) -> PathBuf {
        self.home.file("config").join("quintet").join("settings.toml")
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.program.id()
    }

    /// Whether the program has a thread of that name.
    pub(crate) fn runs(&self, thread: &str) -> bool {
        let folder = format!("/proc/{}/task", self.program.id());
        let tasks = fs::read_dir(folder).expect("the program's threads are listed");
        // A thread may end between two looks.
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim_end() == thread)
    }

    /// Asks again and again until there is an answer; gives up when the program has ended.
    pub(crate) fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            let ended = self.program.try_wait().expect("the program can be asked");
            assert!(ended.is_none(), "the window ended before there was {what}: {ended:?}");
            assert!(Instant::now() < end, "there is no {what}");
            thread::sleep(BREATH);
        }
    }

    /// Clicks there.
    pub(crate) fn click(&self, (x, y): (usize, usize)) {
        let (x, y) = (x.to_string(), y.to_string());
        self.screen.xdotool(&["mousemove", &x, &y, "click", "1"]);
    }

    /// Presses keys, as `xdotool` calls them.
    pub(crate) fn key(&self, keys: &str) {
        assert!(self.screen.xdotool(&["key", keys]).status.success(), "{keys} is pressed");
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
    }
}
