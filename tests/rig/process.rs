//! Runs the built program as a process: starts it, reads its events, terminates and kills it.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use quintet::process::{create_private, create_private_folder};
use serde_json::Value;

use super::TempFolder;

/// How long a test waits for anything before it fails: many times what an idle machine needs.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A small test pattern: the `--camera` of most tests.
pub(crate) const PATTERN: &str = "pattern:320x180@15";

/// A running `quintet … --json`. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    /// The program's standard input. Only present if it was started with `--say`.
    input: Option<ChildStdin>,
    receiver: Receiver<Value>,
    seen: Vec<Value>,
    /// The program's home folder; [`Program::kill`] returns it for the next program.
    home: Option<TempFolder>,
}

/// The file in a program's home folder that gets its standard error.
const STDERR_FILE: &str = "stderr.txt";

/// Writes the hub identity that all programs of the tests share, as programs of one user do: they
/// then accept each other's hubs as their own. An existing identity is kept.
pub(crate) fn write_hub_identity(home: &TempFolder) {
    let folder = home.file("state").join("quintet");
    create_private_folder(&folder).expect("the home folder is writable");
    let file = folder.join("hub-identity");
    if !file.exists() {
        let mut file = create_private(&file).expect("the home folder is writable");
        file.write_all("5e".repeat(32).as_bytes()).expect("the home folder is writable");
    }
}

/// The exit code and the output of a program that has ended.
pub(crate) struct Exit {
    /// The exit code; `None` if a signal ended the program.
    pub(crate) code: Option<i32>,
    /// All events that the program printed.
    pub(crate) events: Vec<Value>,
    /// All text on standard error.
    pub(crate) stderr: String,
}

impl Program {
    /// Starts `quintet ARGS --json` with a new home folder.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(TempFolder::new(), args, &[])
    }

    /// Starts `quintet ARGS --json` with this home folder and environment.
    pub(crate) fn start_in(home: TempFolder, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_quintet")), home, args, environment)
    }

    /// Starts `COMMAND quintet ARGS --json`. The command changes the program's surroundings and
    /// then executes it, as `nsenter` does.
    pub(crate) fn start_wrapped(mut command: Command, args: &[&str]) -> Self {
        command.arg(env!("CARGO_BIN_EXE_quintet"));
        Self::spawn(command, TempFolder::new(), args, &[])
    }

    fn spawn(
        mut command: Command,
        home: TempFolder,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let reads_input = args.contains(&"--say");
        let input = if reads_input { Stdio::piped() } else { Stdio::null() };
        command.args(args).arg("--json").stdin(input).stdout(Stdio::piped());
        command.stderr(File::create(home.file(STDERR_FILE)).expect("the home folder is writable"));
        command.env("HOME", home.path()).env("XDG_STATE_HOME", home.file("state"));
        write_hub_identity(&home);
        command.envs(environment.iter().copied());
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, receiver) = channel();
        thread::Builder::new()
            .name("program-output".into())
            .spawn(move || {
                for line in stdout.lines().map_while(Result::ok) {
                    let value = serde_json::from_str(&line)
                        .unwrap_or_else(|error| panic!("{line:?} is not JSON: {error}"));
                    if sender.send(value).is_err() {
                        return;
                    }
                }
            })
            .expect("a thread starts");
        let input = child.stdin.take();
        Self { child, input, receiver, seen: vec![], home: Some(home) }
    }

    /// Writes to the program's standard input. It must have been started with `--say`.
    pub(crate) fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("the program was started with --say");
        input.write_all(text.as_bytes()).expect("the program still reads its input");
    }

    /// The first event that matches `wanted`, among those already seen and those to come.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(event) = self.seen.iter().find(|event| wanted(event)) {
            return event.clone();
        }
        self.wait_next(what, wanted)
    }

    /// Waits for the first event from now on that matches `wanted`.
    pub(crate) fn wait_next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let event = self.next_before(deadline, what);
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next event. Panics if it does not come before the deadline.
    fn next_before(&mut self, deadline: Instant, what: &str) -> Value {
        match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(event) => {
                self.seen.push(event.clone());
                event
            }
            Err(RecvTimeoutError::Timeout) => panic!("no {what} in:\n{}", self.transcript()),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("ended before {what}:\n{}", self.transcript())
            }
        }
    }

    /// The first event of this name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.wait(name, |event| event["event"] == name)
    }

    /// The first `count` events of this name, in order.
    pub(crate) fn events(&mut self, name: &str, count: usize) -> Vec<Value> {
        let of_name = |seen: &[Value]| -> Vec<Value> {
            seen.iter().filter(|event| event["event"] == name).cloned().collect()
        };
        while of_name(&self.seen).len() < count {
            self.wait_next(name, |event| event["event"] == name);
        }
        of_name(&self.seen)
    }

    /// Reads events until all those seen so far match the condition.
    pub(crate) fn wait_until(&mut self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        self.seen.extend(self.receiver.try_iter());
        while !holds(&self.seen) {
            self.next_before(deadline, what);
        }
    }

    /// The events that were read so far.
    pub(crate) fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// The folder for the program's secrets and its state.
    pub(crate) fn state_folder(&self) -> std::path::PathBuf {
        let home = self.home.as_ref().expect("the program runs in a home folder");
        home.file("state").join("quintet")
    }

    /// The program's process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a participant of this name is in this state.
    pub(crate) fn participant(&mut self, name: &str, state: &str) -> Value {
        self.wait(&format!("{name} {state}"), |event| {
            event["event"] == "participant" && event["name"] == name && event["state"] == state
        })
    }

    /// The events read so far, one per line, followed by standard error.
    pub(crate) fn transcript(&self) -> String {
        self.seen.iter().map(|event| format!("{event}\n")).chain([self.stderr()]).collect()
    }

    /// The text on standard error so far.
    fn stderr(&self) -> String {
        let home = self.home.as_ref().map(|home| home.file(STDERR_FILE));
        home.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    }

    /// Asserts that no task or thread of the program has panicked.
    fn assert_no_panic(&self) {
        let stderr = self.stderr();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }

    /// Sends SIGTERM and waits until the program has ended.
    ///
    /// SIGINT would not do: if the tests run in the background of a script, all their child
    /// processes ignore it.
    pub(crate) fn terminate(self) -> Exit {
        self.signal("TERM");
        self.wait_for_exit()
    }

    /// Kills the program at once (`kill -9`). Returns its home folder for the next program.
    pub(crate) fn kill(mut self) -> TempFolder {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("the process ends");
        self.assert_no_panic();
        self.home.take().expect("the program is killed only once")
    }

    /// Sends the program a signal, given by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until the program ends by itself.
    pub(crate) fn wait_for_exit(mut self) -> Exit {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.seen.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("did not end:\n{}", self.transcript()),
            }
        }
        let code = self.child.wait().expect("the process ends").code();
        self.assert_no_panic();
        Exit { code, events: std::mem::take(&mut self.seen), stderr: self.stderr() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Exit {
    /// The last `summary` event.
    pub(crate) fn summary(&self) -> &Value {
        self.events_named("summary")
            .last()
            .unwrap_or_else(|| panic!("no summary in {:#?}", self.events))
    }

    /// The events of this name.
    pub(crate) fn events_named(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == name).collect()
    }
}

/// A hub in a process of its own (`quintet serve`).
pub(crate) struct Hub {
    /// The process.
    pub(crate) program: Program,
    /// The hub's URL.
    pub(crate) url: String,
}

impl Hub {
    /// Starts a hub on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts a hub that listens at this address.
    pub(crate) fn start_on(address: &str) -> Self {
        let mut program = Program::start(&["serve", "--listen", address]);
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        Self { program, url }
    }

    /// Starts `quintet TASK…` at this hub as a participant of this name; see
    /// [`participant_args`].
    pub(crate) fn start_participant(&self, name: &str, task: &[&str]) -> Program {
        self.start_participant_in(TempFolder::new(), name, task)
    }

    /// Starts a participant as [`Hub::start_participant`] does, with this home folder.
    pub(crate) fn start_participant_in(
        &self,
        home: TempFolder,
        name: &str,
        task: &[&str],
    ) -> Program {
        Program::start_in(home, &participant_args(&self.url, name, task), &[])
    }

    /// Opens a session of this kind as "Olga".
    pub(crate) fn open_session(&self, kind: &str, id: &str) -> Program {
        let mut program = self.start_participant("Olga", &["open", "--kind", kind, "--id", id]);
        program.event("opened");
        program
    }
}

/// The arguments of a task, completed with defaults: this hub and name, a small test pattern, a
/// tone of 440 Hz and no speaker.
///
/// An option in `task` replaces its default, and `--listen`, which starts an own hub, replaces
/// `--hub`.
pub(crate) fn participant_args<'a>(hub: &'a str, name: &'a str, task: &[&'a str]) -> Vec<&'a str> {
    let defaults = [
        ("--hub", hub),
        ("--name", name),
        ("--camera", PATTERN),
        ("--microphone", "tone:440"),
        ("--speaker", "none"),
    ];
    let is_given =
        |option| task.contains(&option) || option == "--hub" && task.contains(&"--listen");
    let missing = defaults.into_iter().filter(|(option, _)| !is_given(option));
    task.iter().copied().chain(missing.flat_map(|(option, value)| [option, value])).collect()
}

/// The value at a path of keys and indices, such as `sessions/0/kind`.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

/// The right to run, until it is dropped.
#[must_use]
pub(crate) struct Turn {
    _files: Vec<File>,
}

/// How many tests may share a turn on a machine that is not busy. Each runs about four programs.
const SHARES: usize = 4;

/// On a busy machine a thread that computes gets less of a core than this.
const BUSY_SHARE: f64 = 0.5;

/// How long a thread computes to find out what it gets of a core.
const PROBE: Duration = Duration::from_millis(50);

/// Waits for the right to be the only test that has a [`Turn`]: for tests that measure, or need most
/// of two cores.
pub(crate) fn take_turn() -> Turn {
    let file = lock_file("turn");
    file.lock().expect("a file can be locked");
    Turn { _files: vec![file] }
}

/// Waits until no test has a turn of its own, and lets none begin: for tests whose programs mostly
/// wait, so that [`SHARES`] of these tests can run at a time. On a busy machine they run one at a time.
pub(crate) fn share_turn() -> Turn {
    let shares: Vec<_> = (0..SHARES).map(|number| lock_file(&format!("share-{number}"))).collect();
    let share = loop {
        match shares.iter().position(|share| share.try_lock().is_ok()) {
            Some(free) if free == 0 || !is_busy() => break free,
            Some(free) => {
                shares[free].unlock().expect("a file can be unlocked");
                thread::sleep(Duration::from_secs(1));
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    let turn = lock_file("turn");
    turn.lock_shared().expect("a file can be locked");
    Turn { _files: shares.into_iter().nth(share).into_iter().chain([turn]).collect() }
}

/// Whether a thread that computes now gets little of a core; `false` where the system does not tell.
/// Threads of low priority do not matter for that, as they do for the system's load.
fn is_busy() -> bool {
    let on_core = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    let (begun, before) = (Instant::now(), on_core());
    while begun.elapsed() < PROBE {
        std::hint::spin_loop();
    }
    let elapsed = begun.elapsed();
    let Some(used) = on_core().zip(before).map(|(now, before)| now.saturating_sub(before)) else {
        return false;
    };
    used.as_secs_f64() < BUSY_SHARE * elapsed.as_secs_f64()
}

/// Opens a file whose lock orders the tests. Each opening has a lock of its own, so it orders the
/// threads of a process, and also processes: cargo-nextest runs each test in one of its own.
fn lock_file(name: &str) -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.lock"));
    File::create(path).expect("the folder for the tests' files can be written")
}

/// The list at a path of keys and indices.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().unwrap_or_else(|| panic!("no list at {path} in {value:#}"))
}

/// Gives this thread, and those that it starts from now on, the lowest priority: for computations, and
/// for attackers, which do not use the processor of the attacked machine. On Linux only.
pub(crate) fn lower_priority() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let own = std::fs::read_link("/proc/thread-self").expect("Linux has this link");
    let id = own.file_name().expect("a number");
    let nice = Command::new("renice").args(["-n", "19", "-p"]).arg(id).output();
    assert!(nice.expect("renice runs").status.success());
}

/// Runs an async test with [`share_turn`], for tests that use sockets themselves.
pub(crate) fn run_async(test: impl Future<Output = ()>) {
    let _turn = share_turn();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(test);
}
