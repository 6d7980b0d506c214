//! A virtual screen (Xvfb), and the program's window on it, driven by mouse and keyboard.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{TempFolder, process::write_hub_identity};

/// How long a test waits for anything before it fails: many times what an idle machine needs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How often the screen and the program are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Red, green and blue, each from 0 to 255.
pub(crate) type Colour = [u8; 3];

/// An X server without a monitor (Xvfb). Stopped when dropped.
pub(crate) struct Screen {
    server: Child,
    display: String,
    folder: TempFolder,
}

impl Screen {
    /// Starts a screen of 1280 by 800 pixels on a free display.
    pub(crate) fn start() -> Self {
        Self::start_without(&[])
    }

    /// Starts a screen without these X extensions.
    pub(crate) fn start_without(extensions: &[&str]) -> Self {
        // X servers that start at the same time and look for a free display themselves may choose
        // the same one. The display is derived from the process id, so that tests do not collide.
        let first = 5 * (std::process::id() % 10_000);
        let displays = (100 + first..).take(5);
        let screens = displays.filter_map(|display| Self::try_start(display, extensions));
        let mut working =
            screens.filter(|screen| screen.xdotool(&["getdisplaygeometry"]).status.success());
        working.next().expect("one of five X servers answers")
    }

    fn try_start(display: u32, without: &[&str]) -> Option<Self> {
        let folder = TempFolder::new();
        let mut command = Command::new("Xvfb");
        let display = format!(":{display}");
        command.args([&display, "-displayfd", "1", "-screen", "0", "1280x800x24"]);
        // Without `-noreset` the server would restart when the last client disconnects, and refuse
        // connections meanwhile.
        command.args(["-nolisten", "tcp", "-noreset"]);
        command.arg("-fbdir").arg(folder.path());
        command.args(without.iter().flat_map(|extension| ["-extension", extension]));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap_or_else(|error| missing("Xvfb", &error));
        let stdout = server.stdout.take().expect("standard output is piped");
        // Xvfb prints its display when it is ready, and nothing if the display is taken.
        let printed = BufReader::new(stdout).read_line(&mut String::new());
        let screen = Self { server, display, folder };
        (printed.expect("Xvfb's output can be read") > 0).then_some(screen)
    }

    /// Runs `xdotool`, which simulates keyboard, mouse and window manager.
    pub(crate) fn xdotool(&self, args: &[&str]) -> Output {
        let mut command = Command::new("xdotool");
        let output = command.args(args).env("DISPLAY", &self.display).output();
        output.unwrap_or_else(|error| missing("xdotool", &error))
    }

    /// Kills the X server, as a crash or a lost connection would.
    pub(crate) fn kill(&self) {
        let killed = Command::new("kill").args(["-KILL", &self.server.id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    }

    /// The text on the clipboard; empty if there is none.
    pub(crate) fn clipboard(&self) -> String {
        let mut command = Command::new("xclip");
        command.args(["-o", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        let output = command.output().unwrap_or_else(|error| missing("xclip", &error));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Puts a text on the clipboard.
    pub(crate) fn set_clipboard(&self, text: &str) {
        let mut command = Command::new("xclip");
        command.args(["-i", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        // xclip stays in the background and provides the text until another program replaces it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| missing("xclip", &error));
        let mut input = child.stdin.take().expect("standard input is piped");
        input.write_all(text.as_bytes()).expect("xclip reads");
        drop(input);
        assert!(child.wait().expect("xclip forks into the background").success());
    }

    /// Puts a text on the clipboard and stops the program that owns it, so that reading the
    /// clipboard hangs until the returned value is dropped.
    pub(crate) fn set_clipboard_and_hang(&self, text: &str) -> HungClipboardOwner {
        let mut command = Command::new("xclip");
        command.args(["-quiet", "-i", "-selection", "clipboard"]).env("DISPLAY", &self.display);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap_or_else(|error| missing("xclip", &error));
        let mut input = child.stdin.take().expect("standard input is piped");
        input.write_all(text.as_bytes()).expect("xclip reads");
        drop(input);
        let hung = HungClipboardOwner(child);
        let deadline = Instant::now() + TIMEOUT;
        while self.clipboard() != text {
            assert!(Instant::now() < deadline, "xclip does not own the clipboard");
            thread::sleep(POLL_INTERVAL);
        }
        let id = hung.0.id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().expect("kill runs").success());
        hung
    }

    /// Takes a screenshot.
    pub(crate) fn screenshot(&self) -> Screenshot {
        // Xvfb keeps the screen in a file of the format that `xwd` writes: a header of big-endian
        // words, a table of colours, then rows of pixels (blue, green, red, one unused byte).
        let file = fs::read(self.folder.file("Xvfb_screen0")).expect("Xvfb writes this file");
        let word = |index: usize| {
            let bytes = file[4 * index..4 * index + 4].try_into().expect("four bytes");
            u32::from_be_bytes(bytes) as usize
        };
        let (width, height, row) = (word(4), word(5), word(12));
        assert_eq!((word(7), word(11)), (0, 32), "little-endian, 32 bits per pixel");
        let start = word(0) + 12 * word(19);
        let rows = file[start..].chunks(row).take(height);
        let pixels = rows.flat_map(|row| row[..4 * width].chunks(4).map(|p| [p[2], p[1], p[0]]));
        Screenshot { width, pixels: pixels.collect() }
    }
}

/// A stopped program that owns the clipboard and does not answer. Killed when dropped.
pub(crate) struct HungClipboardOwner(Child);

impl Drop for HungClipboardOwner {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // After SIGTERM the X server removes its lock file.
        let id = self.server.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        if !sent.is_ok_and(|status| status.success()) {
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

/// The pixels of the screen at one time.
pub(crate) struct Screenshot {
    width: usize,
    pixels: Vec<Colour>,
}

impl Screenshot {
    /// The smallest rectangle around all pixels of this colour in a range of columns.
    pub(crate) fn bounding_box(
        &self,
        colour: Colour,
        columns: std::ops::Range<usize>,
    ) -> Option<PixelRect> {
        let mut bounds: Option<PixelRect> = None;
        for (index, pixel) in self.pixels.iter().enumerate() {
            let (x, y) = (index % self.width, index / self.width);
            if *pixel != colour || !columns.contains(&x) {
                continue;
            }
            let rect = bounds.get_or_insert(PixelRect { left: x, top: y, right: x, bottom: y });
            rect.left = rect.left.min(x);
            (rect.right, rect.bottom) = (rect.right.max(x), rect.bottom.max(y));
        }
        bounds
    }

    /// How many pixels from the column `from` on differ from those of another screenshot.
    pub(crate) fn changed_pixels(&self, other: &Self, from: usize) -> usize {
        let pairs = self.pixels.iter().zip(&other.pixels).enumerate();
        pairs.filter(|(index, (one, two))| index % self.width >= from && one != two).count()
    }
}

/// A rectangle of pixels; its edges are included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PixelRect {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) right: usize,
    pub(crate) bottom: usize,
}

impl PixelRect {
    /// The centre of the rectangle: x and y.
    pub(crate) fn centre(self) -> (usize, usize) {
        (usize::midpoint(self.left, self.right), usize::midpoint(self.top, self.bottom))
    }
}

/// The program's window. The program is killed when it is dropped.
pub(crate) struct Window<'a> {
    program: Child,
    screen: &'a Screen,
    home: TempFolder,
}

/// Prepares the start of a window. Its home folder is new, so that it finds no other instance.
pub(crate) struct WindowLauncher {
    home: TempFolder,
    command: Command,
}

impl WindowLauncher {
    /// A window with these settings on this screen.
    pub(crate) fn new(screen: &Screen, settings: &str) -> Self {
        let home = TempFolder::new();
        let folder = home.file("config").join("quintet");
        fs::create_dir_all(&folder).expect("the settings folder can be created");
        fs::write(folder.join("settings.toml"), settings).expect("the settings can be written");
        let command = Self::command(&home, screen);
        Self { home, command }
    }

    fn command(home: &TempFolder, screen: &Screen) -> Command {
        // Under `nohup` the tests ignore SIGHUP, and the program would inherit that.
        let mut command = Command::new("env");
        command.args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_quintet")]);
        command.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.file("config"));
        write_hub_identity(home);
        command.env("XDG_STATE_HOME", home.file("state")).env("DISPLAY", &screen.display);
        command.env("XDG_RUNTIME_DIR", home.path()).env_remove("WAYLAND_SOCKET");
        command.env_remove("WAYLAND_DISPLAY").env_remove("DBUS_SESSION_BUS_ADDRESS");
        command.env("LIBGL_ALWAYS_SOFTWARE", "1").stdin(Stdio::null());
        // Error messages are tested as the user sees them, without a backtrace.
        command.env_remove("RUST_BACKTRACE");
        command
    }

    /// The program's home folder.
    pub(crate) fn home(&self) -> &TempFolder {
        &self.home
    }

    /// Adds arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts the program where no window can be opened, and waits until it ends. Returns its exit
    /// code and its standard error.
    pub(crate) fn run_to_failure(mut self) -> (Option<i32>, String) {
        let output = self.command.output().expect("the program starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Opens the window and waits until it has the keyboard focus.
    pub(crate) fn open(mut self, screen: &Screen) -> Window<'_> {
        let program = self.command.spawn().expect("the program starts");
        let mut window = Window { program, screen, home: self.home };
        window.focus();
        window
    }
}

impl<'a> Window<'a> {
    /// Opens a window with these settings and a new home folder, and waits until it has the
    /// keyboard focus.
    pub(crate) fn open(screen: &'a Screen, settings: &str) -> Self {
        WindowLauncher::new(screen, settings).open(screen)
    }

    /// Waits until the window is shown and has the keyboard focus. Returns its X window id.
    pub(crate) fn focus(&mut self) -> String {
        let pid = self.program.id().to_string();
        let id = self.wait("a window named Quintet", |window| {
            let named = ["search", "--all", "--onlyvisible", "--pid", &pid, "--name", "^Quintet"];
            let found = window.screen.xdotool(&named);
            let id = String::from_utf8_lossy(&found.stdout).trim().to_owned();
            (!id.is_empty()).then_some(id)
        });
        self.wait("the keyboard focus", |window| {
            window.screen.xdotool(&["windowfocus", &id]);
            let focused = window.screen.xdotool(&["getwindowfocus"]);
            (String::from_utf8_lossy(&focused.stdout).trim() == id).then_some(())
        });
        id
    }

    /// Starts the program once more with the same home folder and screen, and waits until it ends.
    /// Returns its exit code.
    pub(crate) fn launch_again(&self, args: &[&str]) -> Option<i32> {
        let status = WindowLauncher::command(&self.home, self.screen).args(args).status();
        status.expect("the program starts").code()
    }

    /// Resizes the window.
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

    /// Waits until the program has ended. Returns its exit code.
    pub(crate) fn wait_for_exit(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.program.try_wait().expect("the process can be queried") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program does not end");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// The path of the settings file.
    pub(crate) fn settings_path(&self) -> PathBuf {
        self.home.file("config").join("quintet").join("settings.toml")
    }

    /// The program's process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.program.id()
    }

    /// Whether the program has a thread of this name.
    pub(crate) fn has_thread(&self, thread: &str) -> bool {
        let folder = format!("/proc/{}/task", self.program.id());
        let tasks = fs::read_dir(folder).expect("the program's threads are listed");
        // A thread may end between the listing and the reading of its name.
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim_end() == thread)
    }

    /// Calls `poll` until it returns a value. Panics if the program ends or time runs out.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        mut poll: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(value) = poll(self) {
                return value;
            }
            let ended = self.program.try_wait().expect("the process can be queried");
            assert!(ended.is_none(), "the window ended before there was {what}: {ended:?}");
            assert!(Instant::now() < deadline, "there is no {what}");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Clicks at a position on the screen.
    pub(crate) fn click(&self, (x, y): (usize, usize)) {
        let (x, y) = (x.to_string(), y.to_string());
        self.screen.xdotool(&["mousemove", &x, &y, "click", "1"]);
    }

    /// Presses keys, given by their `xdotool` names.
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
