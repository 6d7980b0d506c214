//! Runs a task without a window and returns its exit code.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};

use super::{
    args::{Common, Task},
    commands,
    event_printer::EventPrinter,
    exit_reason::ExitReason,
    preflight::{MissingSource, Preflight},
    rtp_dump,
    serve::{self, CLOSE_TIMEOUT, until_end},
    stdin_lines::{StdinLines, chat_sessions},
    trace,
};
use crate::{
    bench, capture,
    devices::{DEFAULT_SUFFIX, Device},
    engine::{CoreTrace, Engine, EngineOptions, Handle, TraceEnd, fresh_session_id},
    media,
    model::{
        ChatText, Command, ConnectionFault, DataUse, DeviceKind, DeviceState, EndReason, Event,
        Failure, FailureCause, FailureCode, Media, ParticipantState, Role, SessionId, SessionKind,
        Snapshot, Stats, TextError,
    },
    playback,
    process::{Output, Signals},
};

/// Carries out a task. Returns when it is done, when the time is up, or on Ctrl-C, SIGTERM or
/// SIGHUP, after leaving every session properly. Its output may not be written yet: see
/// [`Output::finish`].
///
/// # Errors
/// Fails for errors that cannot be reported as events, such as a system without threads.
pub async fn run(mut task: Task) -> anyhow::Result<ExitReason> {
    let with_links = tokio::task::spawn_blocking(move || task.read_links().map(|()| task));
    let task = match with_links.await? {
        Ok(task) => task,
        Err(error) => return Ok(usage_error(&error)),
    };
    match &task {
        Task::Open { common, .. } | Task::Join { common, .. } => {
            let commands = match task.commands(fresh_session_id) {
                Ok(commands) => commands,
                Err(error) => return Ok(usage_error(&error)),
            };
            run_sessions(common, commands).await
        }
        Task::Serve(options) => serve::run(options).await,
        Task::Bench { bench } => {
            bench::run(bench).await?;
            Ok(ExitReason::Done)
        }
        Task::Devices { json } => {
            list_devices(EventPrinter::new(*json), *json);
            Ok(ExitReason::Done)
        }
        Task::Trace { task: replay } => {
            trace::run(replay)?;
            Ok(ExitReason::Done)
        }
    }
}

/// Carries out the commands of `open` or `join`, and stays until the end.
async fn run_sessions(common: &Common, commands: Vec<Command>) -> anyhow::Result<ExitReason> {
    let mut headless = HeadlessRun {
        printer: EventPrinter::new(common.json),
        active: BTreeSet::new(),
        pending: BTreeMap::new(),
        missing_devices: BTreeSet::new(),
        unconnected: BTreeMap::new(),
        sends_stdin: common.say,
        outcome: ExitReason::Done,
    };
    let mut preflight = Preflight::start(common.named_sources(), common.speaker.clone());
    headless.run_preflight(&mut preflight).await;
    let signals = Signals::listen()?;
    let (options, trace_end) = match engine_options(common).await {
        Ok(options) => options,
        Err(reason) => return Ok(reason),
    };
    let (handle, events) = Engine::start(options)?;
    for command in commands {
        if let Some(session) = command.session() {
            headless.active.insert(session.clone());
            headless.pending.insert(session.clone(), ExitReason::StillWaiting);
        }
        let choices =
            [save_command(&command, common.data_use.choice()), common.priority.command(&command)];
        handle.send(command).await;
        for command in choices.into_iter().flatten() {
            handle.send(command).await;
        }
    }
    let input = StdinUse {
        chat: common.say.then(StdinLines::start).transpose()?,
        commands: common.commands.then(StdinLines::start).transpose()?,
    };
    let end = until_end(common.time, signals);
    let result = headless.run((handle, events), input, (preflight, end)).await;
    if let Some(trace) = trace_end {
        trace.wait().await;
    }
    result
}

/// Returns the command that limits the data of the session that another command opens or joins.
fn save_command(command: &Command, data_use: DataUse) -> Option<Command> {
    let session = command.session().filter(|_| data_use != DataUse::Full)?.clone();
    Some(Command::SetDataUse { session, data_use })
}

/// Prints what is wrong with a command line.
fn usage_error(error: &anyhow::Error) -> ExitReason {
    Output::stderr().write_line(&format!("quintet: {error:#}; see `quintet --help`"));
    ExitReason::Usage
}

/// Returns the options of the engine, with the RTP dump and the trace started. Prints why one of
/// them cannot be, if so.
async fn engine_options(common: &Common) -> Result<(EngineOptions, Option<TraceEnd>), ExitReason> {
    let fails = |option: &str, error: anyhow::Error| {
        Output::stderr().write_line(&format!("quintet: {option}: {error:#}"));
        ExitReason::Device
    };
    let mut options = common.engine_options();
    if let Some(path) = &common.rtp_dump {
        let dump = rtp_dump::start(path.clone()).await;
        options.rtp_dump = Some(dump.map_err(|error| fails("--rtp-dump", error))?);
    }
    let Some(wanted) = common.trace.options() else { return Ok((options, None)) };
    let trace = CoreTrace::start(wanted).await;
    let (trace, end) = trace.map_err(|error| fails("--trace", error.into()))?;
    options.trace = Some(trace);
    Ok((options, Some(end)))
}

/// How long opening sessions waits for the check of the sources. Files answer in far less; a later
/// answer is reported later.
pub(super) const PREFLIGHT_WAIT: Duration = Duration::from_millis(500);

/// How the lines of standard input are used.
struct StdinUse {
    /// They are sent to the chats.
    chat: Option<StdinLines>,
    /// They are commands.
    commands: Option<StdinLines>,
}

/// The state of `open` and `join`: the sessions of this run, and its result so far.
struct HeadlessRun {
    printer: EventPrinter,
    /// The sessions that have not ended.
    active: BTreeSet<SessionId>,
    /// Those of them that are neither opened nor joined yet, and the result if they stay so.
    pending: BTreeMap<SessionId, ExitReason>,
    /// Devices that the preflight check found missing.
    missing_devices: BTreeSet<DeviceKind>,
    /// Joined sessions in which no participant has been connected, and whether a failed connection
    /// was reported.
    unconnected: BTreeMap<SessionId, bool>,
    /// Whether standard input is sent to the chats.
    sends_stdin: bool,
    outcome: ExitReason,
}

impl HeadlessRun {
    /// Reports named sources that cannot be used, before they are needed. Sources that take long to
    /// answer are reported later. All are tried again when they are needed.
    async fn run_preflight(&mut self, preflight: &mut Preflight) {
        let reported = async {
            while let Some(missing) = preflight.next().await {
                self.on_missing_source(missing);
            }
        };
        // After the timeout, the remaining checks continue in the background.
        timeout(PREFLIGHT_WAIT, reported).await.ok();
    }

    fn on_missing_source(&mut self, (kind, message): MissingSource) {
        self.missing_devices.insert(kind);
        let cause = FailureCause::Device { device: kind, reason: message };
        self.printer.print_event(&Event::Failed(Failure { cause, session: None }));
    }

    /// Prints events and statistics until all sessions have ended, `end` is ready or the output
    /// fails; then leaves every session and returns the result.
    async fn run(
        mut self,
        (handle, mut events): (Handle, mpsc::Receiver<Event>),
        mut input: StdinUse,
        (mut preflight, end): (Preflight, impl Future<Output = ()>),
    ) -> anyhow::Result<ExitReason> {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.tick().await;
        let mut end = std::pin::pin!(end);
        while !self.active.is_empty() && self.printer.write_error().is_none() {
            let sessions = chat_sessions(&handle.snapshot());
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.on_event(&event),
                    None => return Err(engine_stopped(&handle).await),
                },
                _ = seconds.tick(), if self.printer.prints_stats() => {
                    if let Some(stats) = handle.stats().await {
                        self.printer.print_stats(stats, media::now());
                    }
                }
                text = StdinLines::next_chat_text(&mut input.chat), if !sessions.is_empty() => {
                    self.send_chat(text, sessions, &handle).await;
                }
                line = StdinLines::next_line(&mut input.commands) => self.handle_command_line(&line, &handle).await,
                missing = preflight.next(), if !preflight.is_done() => {
                    missing.into_iter().for_each(|missing| self.on_missing_source(missing));
                }
                () = &mut end => break,
            }
        }
        // Sources that answer only now are also reported.
        self.run_preflight(&mut preflight).await;
        if self.printer.write_error().is_none() {
            for reason in std::mem::take(&mut self.pending).into_values() {
                self.raise_exit_code(reason);
            }
        }
        self.check_devices(&handle.snapshot());
        let stats = timeout(CLOSE_TIMEOUT, handle.close()).await.unwrap_or_else(|_| {
            tracing::warn!("the engine did not leave its sessions in time");
            Stats::default()
        });
        while let Ok(event) = events.try_recv() {
            self.on_event(&event);
        }
        self.check_connections();
        self.printer.print_summary(&stats);
        finish_output().await;
        match self.printer.write_error() {
            // The reader has closed the pipe, as `head` does.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(self.outcome),
            Some(error) => anyhow::bail!("standard output cannot be written: {error}"),
            None => Ok(self.outcome),
        }
    }

    /// Carries out a command from standard input.
    async fn handle_command_line(&mut self, line: &str, handle: &Handle) {
        if line.trim().is_empty() {
            return;
        }
        match commands::parse_command(line, &handle.snapshot()) {
            Ok(command) => handle.send(command).await,
            Err(message) => {
                let cause = FailureCause::Other { code: FailureCode::Command, message };
                self.on_event(&Event::Failed(Failure { cause, session: None }));
            }
        }
    }

    /// Sends a text to the chats of these sessions.
    async fn send_chat(
        &mut self,
        text: Result<ChatText, TextError>,
        sessions: Vec<SessionId>,
        handle: &Handle,
    ) {
        match text {
            Ok(text) => {
                for session in sessions {
                    handle.send(Command::SendMessage { session, text: text.clone() }).await;
                }
            }
            Err(error) => {
                let (code, message) = (FailureCode::Chat, error.to_string());
                let cause = FailureCause::Other { code, message };
                self.on_event(&Event::Failed(Failure { cause, session: None }));
            }
        }
    }

    /// Prints an event and updates the result.
    fn on_event(&mut self, event: &Event) {
        self.printer.print_event(event);
        match event {
            Event::Opened { session, kind, .. } => {
                self.pending.remove(session);
                self.warn_without_chat(session, (*kind, Role::Opener));
            }
            Event::Joined { session, kind } => {
                self.pending.remove(session);
                self.unconnected.insert(session.clone(), false);
                self.warn_without_chat(session, (*kind, Role::Guest));
            }
            Event::Failed(failure) => self.on_failure(failure),
            Event::Ended { session, reason } => {
                self.active.remove(session);
                let reason_so_far = self.pending.remove(session);
                match reason {
                    EndReason::Ejected | EndReason::Replaced => {
                        self.raise_exit_code(ExitReason::Ended);
                    }
                    EndReason::Failed => {
                        self.raise_exit_code(reason_so_far.unwrap_or(ExitReason::Refused))
                    }
                    EndReason::Left | EndReason::OpenerLeft | EndReason::Closed => {}
                }
            }
            Event::Participant { session, state: ParticipantState::Live, .. } => {
                self.unconnected.remove(session);
            }
            // A session that was joined waits again when its opener is lost.
            Event::Waiting { session, .. } => {
                self.pending.entry(session.clone()).or_insert(ExitReason::StillWaiting);
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubRestored { .. }
            | Event::Participant { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::MicrophoneSilent
            | Event::ActiveSpeaker { .. }
            | Event::SpeakingWhileMuted
            | Event::EncoderLate
            | Event::UploadFull
            | Event::UploadOk
            | Event::MessageReceived { .. }
            | Event::MessageSent { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Reports that `--say` has no effect in a session, so that the user does not wait for answers.
    fn warn_without_chat(&mut self, session: &SessionId, (kind, role): (SessionKind, Role)) {
        let has_chat = kind.media.has(Media::Data);
        if !self.sends_stdin || (has_chat && kind.may_chat(role)) {
            return;
        }
        let message = if has_chat {
            format!(
                "a guest of session \"{session}\" only reads its chat: --say has no effect there"
            )
        } else {
            format!(
                "session \"{session}\" has no chat, so --say has no effect there; a session opened \
                 with --kind {}+data/{} has one",
                kind.media,
                kind.topology.name()
            )
        };
        let cause = FailureCause::Other { code: FailureCode::Chat, message };
        let session = Some(session.clone());
        self.printer.print_event(&Event::Failed(Failure { cause, session }));
    }

    /// Notes a failure. A failure of a pending session counts only if the session never opens: it
    /// may still succeed.
    fn on_failure(&mut self, failure: &Failure) {
        let reason = match failure.code() {
            FailureCode::Hub(_) => ExitReason::Refused,
            FailureCode::HubUnreachable => ExitReason::HubUnreachable,
            FailureCode::AlreadyHere => return self.raise_exit_code(ExitReason::Refused),
            FailureCode::Connection(_) => {
                let session = failure.session.as_ref();
                if let Some(is_reported) = session.and_then(|id| self.unconnected.get_mut(id)) {
                    *is_reported = true;
                }
                return;
            }
            FailureCode::Device(_)
            | FailureCode::Chat
            | FailureCode::Command
            | FailureCode::Rename => return,
        };
        if let Some(pending) = failure.session.as_ref().and_then(|id| self.pending.get_mut(id)) {
            *pending = reason;
        }
    }

    /// Sets the result if a device cannot be used at the end, or was missing and is still not in
    /// use.
    fn check_devices(&mut self, end: &Snapshot) {
        for (kind, state) in end.devices.iter() {
            let is_bad = match state {
                DeviceState::Failed { .. } => true,
                DeviceState::Running => false,
                DeviceState::Idle | DeviceState::Opening => self.missing_devices.contains(&kind),
            };
            if is_bad {
                self.raise_exit_code(ExitReason::Device);
            }
        }
    }

    /// Sets the result if a session was joined and no participant in it was ever connected.
    fn check_connections(&mut self) {
        for (session, is_reported) in std::mem::take(&mut self.unconnected) {
            self.raise_exit_code(ExitReason::NeverConnected);
            if !is_reported {
                let code = FailureCode::Connection(ConnectionFault::NotAgreed);
                let message = format!(
                    "no participant of session \"{session}\" was connected before it ended; stay \
                     longer, or check that somebody is in it"
                );
                let (cause, session) = (FailureCause::Other { code, message }, Some(session));
                self.printer.print_event(&Event::Failed(Failure { cause, session }));
            }
        }
    }

    fn raise_exit_code(&mut self, reason: ExitReason) {
        self.outcome = self.outcome.max(reason);
    }
}

/// Why the engine ended, although nobody closed it.
async fn engine_stopped(handle: &Handle) -> anyhow::Error {
    let panic = handle.ended().await.map_or_else(String::new, |panicked| panicked.message);
    anyhow::anyhow!("Quintet's engine stopped unexpectedly ({panic}); start the program again")
}

/// Prints the cameras, microphones and speakers.
fn list_devices(printer: EventPrinter, json: bool) {
    let lists = [
        ("camera", capture::cameras(), "--camera pattern or file:PATH.y4m"),
        ("microphone", capture::microphones(), "--microphone tone or file:PATH.wav"),
        ("speaker", playback::speakers(), "--speaker none or file:PATH.wav"),
    ];
    if json {
        let mut object = json!({"event": "devices", "devices": []});
        for (kind, list, _) in &lists {
            let names: Vec<_> = list.iter().map(device_label).collect();
            object[format!("{kind}s")] = json!(names);
        }
        let all = lists.iter().flat_map(|(kind, list, _)| {
            list.iter().map(move |device| {
                let Device { id, name, is_default } = device;
                json!({"kind": kind, "id": id, "name": name, "default": is_default})
            })
        });
        object["devices"] = all.collect();
        return printer.print_object(object);
    }
    for (kind, list, alternative) in lists {
        printer.print_line(&format!("{kind}s"));
        for device in &list {
            printer.print_line(&format!("  {}  [{}]", device_label(device), device.id));
        }
        if list.is_empty() {
            printer.print_line(&format!("  none found; {alternative} works without any"));
        }
    }
}

/// Returns a device's name, marked if it is the default one.
fn device_label(device: &Device) -> String {
    let mark = if device.is_default { DEFAULT_SUFFIX } else { "" };
    format!("{}{mark}", device.name)
}

/// Waits until all output is written, or its reader has stalled.
async fn finish_output() {
    let finish = || Output::stdout().finish();
    if let Err(error) = tokio::task::spawn_blocking(finish).await {
        tracing::warn!(%error, "the last lines may not be written");
    }
}
