//! Shared test support.
//!
//! Programs, hubs and measurements have modules of their own. This file has the devices: a fake
//! camera below the real V4L2 client, and a real sound server without hardware. Each belongs to
//! one child process and touches nothing outside a temporary folder.
#![allow(dead_code, reason = "each test file compiles this module and uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a rig that fails is a test that fails")]

pub(crate) mod engine_client;
pub(crate) mod in_process_hub;
pub(crate) mod process;
pub(crate) mod raw_client;
pub(crate) mod resource_usage;
pub(crate) mod screen;
pub(crate) mod wav_analysis;

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a sound server may take to answer, and a child process to end.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    /// Creates an empty folder.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // The path is short because a socket's path has at most 107 bytes.
        let path = env::temp_dir().join(format!("quintet-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// The path of a file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A child process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts the process. [`Process::finish`] returns its output.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match child.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{name:?} cannot be started: {error}; install its package"),
        }
    }

    /// Waits until the process has ended. Returns its standard output followed by its standard
    /// error.
    pub(crate) fn finish(mut self) -> String {
        let mut stderr = self.0.stderr.take().unwrap();
        let reader = thread::Builder::new().spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).ok();
            text
        });
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let deadline = Instant::now() + TIMEOUT;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "a child process does not end; it printed:\n{text}");
            thread::sleep(Duration::from_millis(10));
        }
        text + &reader.unwrap().join().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Runs one ignored test of this test program in a process of its own.
///
/// `module` is the `module_path!()` of the test.
pub(crate) fn ignored_test_command(module: &str, test: &str) -> Command {
    let (_, module) = module.split_once("::").expect("a path begins with its crate");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([
        &format!("{module}::{test}"),
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
}

/// The path of the library to preload for a fake camera. `tests/rig/v4l2_shim.c` documents the
/// environment variables that control it.
pub(crate) fn camera_shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let library = folder.join(format!("v4l2_shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/v4l2_shim.c");
        let built = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-O1", "-shared", "-fPIC"])
            .arg("-o")
            .args([&library, &source])
            .arg("-ldl")
            .output()
            .expect("the C compiler `cc` cannot be started: install build-essential");
        let errors = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "tests/rig/v4l2_shim.c does not compile:\n{errors}");
        library
    })
}

/// A private sound server with a fake microphone and a fake speaker.
///
/// The default source is "Fake Microphone": it records what [`SoundServer::play`] plays into the
/// sink `mic`. The default sink is `spk`, "Fake Speaker".
///
/// The server is PulseAudio if that is installed, else PipeWire, which replaces it on newer
/// desktops. If both are installed, `QUINTET_SOUND_SERVER=pipewire` selects PipeWire.
#[derive(Debug)]
pub(crate) struct SoundServer {
    /// The server's programs in the order of their start. They are stopped in reverse order.
    programs: Vec<Process>,
    folder: TempFolder,
    kind: SoundServerKind,
}

#[derive(Clone, Copy, Debug)]
enum SoundServerKind {
    PulseAudio,
    PipeWire,
}

impl SoundServerKind {
    /// The sound server that is installed.
    fn installed() -> Self {
        let has_all = |programs: &[&str]| programs.iter().all(|program| is_on_path(program));
        let pipewire = has_all(&["dbus-daemon", "pipewire", "wireplumber", "pipewire-pulse"]);
        let prefers_pipewire =
            env::var("QUINTET_SOUND_SERVER").is_ok_and(|preferred| preferred == "pipewire");
        match (has_all(&["pulseaudio"]), pipewire) {
            (true, false) => Self::PulseAudio,
            (true, true) if !prefers_pipewire => Self::PulseAudio,
            (_, true) => Self::PipeWire,
            (false, false) => {
                panic!("there is no sound server: `bash .ci/setup --tests` installs one")
            }
        }
    }
}

impl SoundServer {
    /// Starts the server and waits until its devices are ready.
    pub(crate) fn start() -> Self {
        let kind = SoundServerKind::installed();
        let mut server = Self { programs: vec![], folder: TempFolder::new(), kind };
        server.restart();
        server
    }

    /// Kills the server, as a crash would.
    pub(crate) fn kill(&mut self) {
        while self.programs.pop().is_some() {}
    }

    /// Starts the server again on the same socket.
    pub(crate) fn restart(&mut self) {
        self.kill();
        match self.kind {
            SoundServerKind::PulseAudio => self.start_pulseaudio(),
            SoundServerKind::PipeWire => self.start_pipewire(),
        }
        self.wait_until("answers", |server| server.pactl(&["info"]));
        let named = |kind: &str, name: &str| format!("{kind}_properties=device.description={name}");
        // PipeWire adds two channels where PulseAudio averages them, so its source is mono.
        let mono: &[&str] = match self.kind {
            SoundServerKind::PulseAudio => &[],
            SoundServerKind::PipeWire => {
                &["channels=1", "channel_map=mono", "master_channel_map=front-left", "remix=no"]
            }
        };
        let microphone = [
            "module-remap-source",
            "source_name=vmic",
            "master=mic.monitor",
            &named("source", "Fake_Microphone"),
        ];
        for module in [
            &["module-null-sink", "sink_name=spk", "rate=48000", &named("sink", "Fake_Speaker")][..],
            &["module-null-sink", "sink_name=mic", "rate=48000"],
            &[&microphone, mono].concat(),
        ] {
            assert!(self.pactl(&[&["load-module"], module].concat()), "{module:?}");
        }
        self.wait_until("has its devices", |server| {
            server.pactl(&["set-default-source", "vmic"])
                && server.pactl(&["set-default-sink", "spk"])
                && server.reports(&["get-default-source"], "vmic")
                && server.reports(&["get-default-sink"], "spk")
        });
    }

    fn start_pulseaudio(&mut self) {
        let socket = self.socket();
        fs::remove_file(&socket).ok();
        let mut command = Command::new("pulseaudio");
        command.args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "-L"]);
        let protocol = "module-native-protocol-unix auth-anonymous=1";
        command.arg(format!("{protocol} socket={}", socket.display()));
        self.programs.push(Process::start(self.configure(&mut command)));
    }

    fn start_pipewire(&mut self) {
        fs::create_dir_all(self.folder.file("pulse")).unwrap();
        // WirePlumber exits without a session bus.
        let bus = self.folder.file("bus");
        fs::remove_file(&bus).ok();
        let address = format!("unix:path={}", bus.display());
        let mut daemon = Command::new("dbus-daemon");
        daemon.args(["--session", "--nofork", "--address", &address]);
        self.programs.push(Process::start(self.configure(&mut daemon)));
        self.wait_until("has a bus", |_| bus.exists());
        for program in ["pipewire", "wireplumber", "pipewire-pulse"] {
            let mut command = Command::new(program);
            command.env("DBUS_SESSION_BUS_ADDRESS", &address);
            self.programs.push(Process::start(self.configure(&mut command)));
            if program == "pipewire" {
                let socket = self.folder.file("pipewire-0");
                self.wait_until("has a socket", |_| socket.exists());
            }
        }
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !holds(self) {
            assert!(Instant::now() < deadline, "the sound server never {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the server moves a recording whose source disappears to the default source, so that
    /// the recording program is not notified.
    pub(crate) fn moves_recordings(&self) -> bool {
        matches!(self.kind, SoundServerKind::PipeWire)
    }

    fn socket(&self) -> PathBuf {
        self.folder.file(match self.kind {
            SoundServerKind::PulseAudio => "native",
            SoundServerKind::PipeWire => "pulse/native",
        })
    }

    /// The address of the server's socket, for `PULSE_SERVER`.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    /// The value for `XDG_RUNTIME_DIR` that hides all other servers.
    pub(crate) fn runtime_folder(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Makes a command use this server and no other audio device.
    pub(crate) fn configure<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let folder = self.folder.path();
        command
            .env("PULSE_SERVER", self.address())
            .env("XDG_RUNTIME_DIR", folder)
            .env("HOME", folder)
            .env_remove("PULSE_SOURCE")
            .env_remove("PULSE_SINK")
    }

    /// Plays a WAV file into the microphone until the returned process is dropped.
    pub(crate) fn play(&self, file: &Path) -> Process {
        let mut command = Command::new("paplay");
        Process::start(
            self.configure(&mut command).args(["-d", "mic", "--latency-msec=20"]).arg(file),
        )
    }

    /// Records what the speaker plays into a WAV file until the returned process is dropped.
    pub(crate) fn record(&self, file: &Path) -> Process {
        let mut command = Command::new("parec");
        let format = ["--file-format=wav", "--format=float32le", "--rate=48000", "--channels=1"];
        self.configure(&mut command).args(["-d", "spk.monitor", "--latency-msec=10"]).args(format);
        Process::start(command.arg(file))
    }

    /// Sends the server a command. Returns whether it succeeded.
    pub(crate) fn pactl(&self, arguments: &[&str]) -> bool {
        self.run_pactl(arguments).status.success()
    }

    /// Whether the server's answer to a query is this text.
    fn reports(&self, arguments: &[&str], text: &str) -> bool {
        self.run_pactl(arguments).stdout.trim_ascii_end() == text.as_bytes()
    }

    fn run_pactl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("pactl");
        let output = self.configure(&mut command).args(arguments).output();
        output.expect("`pactl` is missing: `bash .ci/setup --tests` installs it")
    }
}

/// Whether a program of this name is in one of the folders of `PATH`.
fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The peak amplitude of a tone in mono audio of 48 kHz.
pub(crate) fn tone_amplitude(samples: &[f32], hz: f64) -> f64 {
    let parts = samples.iter().enumerate().map(|(n, sample)| {
        let angle = std::f64::consts::TAU * hz * n as f64 / 48_000.0;
        (f64::from(*sample) * angle.cos(), f64::from(*sample) * angle.sin())
    });
    let (real, imaginary) = parts.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    f64::hypot(real, imaginary) * 2.0 / samples.len() as f64
}

/// Writes a sine as a WAV file: 48 kHz, 16 bit, stereo.
pub(crate) fn write_tone_wav(path: &Path, hz: f64, seconds: u32, peak: f64) {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(path, spec).unwrap();
    for n in 0..seconds * 48_000 {
        let sine = (std::f64::consts::TAU * hz * f64::from(n) / 48_000.0).sin();
        (0..2).for_each(|_| file.write_sample((sine * peak * 32_767.0) as i16).unwrap());
    }
    file.finalize().unwrap();
}
