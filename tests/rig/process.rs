//! The built program as a process: started, listened to, interrupted, killed.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use quintet::process::{create_private, create_private_folder};
use serde_json::Value;

use super::Folder;

/// How long anything may take before a test gives up: many times what it takes when idle.
const PATIENCE: Duration = Duration::from_secs(40);

/// A small picture and a tone: `--camera` and `--microphone` of most tests.
pub(crate) const PATTERN: &str = "pattern:320x180@15";

/// A running `quintet … --json`. Killed when dropped.
pub(crate) struct Program {
    child: Child,
    /// Its standard input; closed at once unless it says what it reads there.
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    /// Taken out when it is killed, for the next one.
    home: Option<Folder>,
}

/// The file of a program's home that its standard error goes to.
const ERRORS: &str = "stderr.txt";

/// Makes the program one of the user whom all programs of the tests belong to, whose hubs then
/// prove to be their own; a home that has an identity keeps it.
pub(crate) fn give_identity(home: &Folder) {
    let folder = home.file("state").join("quintet");
    create_private_folder(&folder).expect("a home can be written to");
    let file = folder.join("hub-identity");
    if !file.exists() {
        let mut file = create_private(&file).expect("a home can be written to");
        file.write_all("5e".repeat(32).as_bytes()).expect("a home can be written to");
    }
}

/// How a program ended.
pub(crate) struct End {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// All it printed.
    pub(crate) events: Vec<Value>,
    /// All it said on standard error.
    pub(crate) errors: String,
}

impl Program {
    /// Starts `quintet ARGS --json` with a home of its own.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_in(Folder::new(), args, &[])
    }

    /// Starts `quintet ARGS --json` with that home and environment.
    pub(crate) fn start_in(home: Folder, args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_quintet")), home, args, environment)
    }

    /// Starts `COMMAND quintet ARGS --json`: the command changes what is around the program and
    /// becomes it, as `nsenter` does.
    pub(crate) fn start_through(mut command: Command, args: &[&str]) -> Self {
        command.arg(env!("CARGO_BIN_EXE_quintet"));
        Self::start_by(command, Folder::new(), args, &[])
    }

    fn start_by(
        mut command: Command,
        home: Folder,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let says = args.contains(&"--say");
        let input = if says { Stdio::piped() } else { Stdio::null() };
        command.args(args).arg("--json").stdin(input).stdout(Stdio::piped());
        command.stderr(File::create(home.file(ERRORS)).expect("a home can be written to"));
        command.env("HOME", home.path()).env("XDG_STATE_HOME", home.file("state"));
        give_identity(&home);
        command.envs(environment.iter().copied());
        let mut child = command.spawn().expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = channel();
        thread::Builder::new()
            .name("program-output".into())
            .spawn(move || {
                for line in out.lines().map_while(Result::ok) {
                    let value = serde_json::from_str(&line)
                        .unwrap_or_else(|error| panic!("{line:?} is not JSON: {error}"));
                    if sender.send(value).is_err() {
                        return;
                    }
                }
            })
            .expect("a thread starts");
        let input = child.stdin.take();
        Self { child, input, lines, seen: vec![], home: Some(home) }
    }

    /// Writes to its standard input; it was started with `--say`.
    pub(crate) fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("it reads its input");
        input.write_all(text.as_bytes()).expect("it reads on");
    }

    /// The first event that `wanted` takes, among those already seen and those to come.
    pub(crate) fn wait(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(event) = self.seen.iter().find(|event| wanted(event)) {
            return event.clone();
        }
        self.wait_next(what, wanted)
    }

    /// The first event from now on that `wanted` takes.
    pub(crate) fn wait_next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let event = self.next_before(end, what);
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next event, which must come before that time.
    fn next_before(&mut self, end: Instant, what: &str) -> Value {
        match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
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

    /// The first event of that name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.wait(name, |event| event["event"] == name)
    }

    /// The first `count` events of that name, in order.
    pub(crate) fn events(&mut self, name: &str, count: usize) -> Vec<Value> {
        let of_name = |seen: &[Value]| -> Vec<Value> {
            seen.iter().filter(|event| event["event"] == name).cloned().collect()
        };
        while of_name(&self.seen).len() < count {
            self.wait_next(name, |event| event["event"] == name);
        }
        of_name(&self.seen)
    }

    /// Waits until what it printed so far, and prints meanwhile, is as it should be.
    pub(crate) fn until(&mut self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let end = Instant::now() + PATIENCE;
        self.seen.extend(self.lines.try_iter());
        while !holds(&self.seen) {
            self.next_before(end, what);
        }
    }

    /// What it printed, as far as it was looked at.
    pub(crate) fn seen(&self) -> &[Value] {
        &self.seen
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a participant of that name is in that state.
    pub(crate) fn participant(&mut self, name: &str, state: &str) -> Value {
        self.wait(&format!("{name} {state}"), |event| {
            event["event"] == "participant" && event["name"] == name && event["state"] == state
        })
    }

    /// What was printed so far, one line each.
    pub(crate) fn transcript(&self) -> String {
        self.seen.iter().map(|event| format!("{event}\n")).chain([self.errors()]).collect()
    }

    /// What it said on standard error so far.
    fn errors(&self) -> String {
        let home = self.home.as_ref().map(|home| home.file(ERRORS));
        home.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    }

    /// No test makes a program panic, in any of its tasks and threads.
    fn assert_sound(&self) {
        let errors = self.errors();
        assert!(!errors.contains("panicked"), "{errors}");
    }

    /// Asks it to end and waits until it has. Not by Ctrl-C: where tests run in the background of a
    /// script, that is ignored by all they start.
    pub(crate) fn interrupt(self) -> End {
        self.signal("TERM");
        self.end()
    }

    /// Kills it at once (`kill -9`); its home stays for the next one.
    pub(crate) fn kill(mut self) -> Folder {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
        self.assert_sound();
        self.home.take().expect("it is killed once")
    }

    /// Sends it a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits until it ends by itself.
    pub(crate) fn end(mut self) -> End {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => self.seen.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end of:\n{}", self.transcript()),
            }
        }
        let code = self.child.wait().expect("it ends").code();
        self.assert_sound();
        End { code, events: std::mem::take(&mut self.seen), errors: self.errors() }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    /// The summary it printed.
    pub(crate) fn summary(&self) -> &Value {
        self.all("summary").last().unwrap_or_else(|| panic!("no summary in {:#?}", self.events))
    }

    /// The events of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == name).collect()
    }
}

/// A hub of its own (`quintet serve`), and its address.
pub(crate) struct Hub {
    /// The program.
    pub(crate) program: Program,
    /// Its address.
    pub(crate) url: String,
}

impl Hub {
    /// One on a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// One that listens there.
    pub(crate) fn start_on(address: &str) -> Self {
        let mut program = Program::start(&["serve", "--listen", address]);
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        Self { program, url }
    }

    /// Starts `quintet TASK…` at this hub for that person, see [`person`].
    pub(crate) fn person(&self, name: &str, task: &[&str]) -> Program {
        self.person_in(Folder::new(), name, task)
    }

    /// Starts it with that home.
    pub(crate) fn person_in(&self, home: Folder, name: &str, task: &[&str]) -> Program {
        Program::start_in(home, &person(&self.url, name, task), &[])
    }

    /// Opens one session of that kind as "Olga".
    pub(crate) fn open(&self, kind: &str, id: &str) -> Program {
        let mut program = self.person("Olga", &["open", "--kind", kind, "--id", id]);
        program.event("opened");
        program
    }
}

/// The arguments of a task for somebody of that name at that hub, who sends a small picture and
/// a tone of 440 Hz and plays nothing, unless the task's own options say otherwise: with `--listen`
/// the hub is the person's own.
pub(crate) fn person<'a>(hub: &'a str, name: &'a str, task: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        ("--hub", hub),
        ("--name", name),
        ("--camera", PATTERN),
        ("--microphone", "tone:440"),
        ("--speaker", "none"),
    ];
    let is_said =
        |option| task.contains(&option) || option == "--hub" && task.contains(&"--listen");
    let missing = usual.into_iter().filter(|(option, _)| !is_said(option));
    task.iter().copied().chain(missing.flat_map(|(option, value)| [option, value])).collect()
}

/// The value at a path of keys and indices such as `sessions/0/kind`.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    value.pointer(&format!("/{path}")).unwrap_or_else(|| panic!("no {path} in {value:#}"))
}

/// One test at a time: each starts many processes, and there may be two cores.
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// The list at a path of keys and indices.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().unwrap_or_else(|| panic!("no list at {path} in {value:#}"))
}

/// Runs a test that talks to sockets itself, one at a time like all others.
pub(crate) fn alone_with_sockets(test: impl Future<Output = ()>) {
    let _turn = alone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(test);
}
