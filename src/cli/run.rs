//! Runs a task without a window and returns its exit code.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    process::ExitCode,
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, interval, sleep_until, timeout},
};

use super::{
    args::Task,
    commands,
    lines::Lines,
    preflight::{Missing, Preflight},
    speech::{Speech, audience},
};
use crate::{
    bench, capture,
    engine::{Engine, Handle, fresh_session_id},
    media::{DEFAULT_MARK, Device},
    model::{
        ChatText, Command, ConnectionFault, EndReason, Event, Failure, FailureCode, Media,
        ParticipantState, Role, SessionId, SessionKind, Snapshot, SourceKind, SourceState, Stats,
        TextError,
    },
    playback,
    process::{Output, Signals},
    signalling::{Hub, HubIdentity, HubOptions},
};

/// How long leaving the sessions may take: longer than the timeouts of the engine together.
const FAREWELL: Duration = Duration::from_secs(4);

/// The result of a run, and its exit code. If several apply, the greatest one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExitReason {
    /// The task was carried out.
    Done = 0,
    /// The command line is wrong.
    WrongLine = 2,
    /// The hub cannot be reached.
    HubUnreachable = 3,
    /// A session was refused.
    Refused = 4,
    /// We were ejected from a session, or replaced in it.
    Ended = 5,
    /// A session was not open yet at the end.
    StillWaiting = 6,
    /// A device or file could not be used.
    Device = 7,
    /// A session was joined, and no participant in it was ever connected.
    NeverConnected = 8,
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason as u8)
    }
}

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
        Err(error) => return Ok(wrong_line(&error)),
    };
    match &task {
        Task::Open { common, .. } | Task::Join { common, .. } => {
            let commands = match task.commands(fresh_session_id) {
                Ok(commands) => commands,
                Err(error) => return Ok(wrong_line(&error)),
            };
            let mut headless = Stay {
                lines: Lines::new(common.json),
                asked: BTreeSet::new(),
                waited: BTreeMap::new(),
                missing: BTreeSet::new(),
                unconnected: BTreeMap::new(),
                says: common.say,
                outcome: ExitReason::Done,
            };
            let mut preflight = Preflight::begin(common.sources(), common.speaker.clone());
            headless.look_for(&mut preflight).await;
            let signals = Signals::listen()?;
            let (handle, events) = Engine::start(common.engine())?;
            for command in commands {
                if let Some(session) = command.session() {
                    headless.asked.insert(session.clone());
                    headless.waited.insert(session.clone(), ExitReason::StillWaiting);
                }
                handle.send(command).await;
            }
            let input = Input {
                speech: common.say.then(Speech::begin).transpose()?,
                commands: common.commands.then(Speech::begin).transpose()?,
            };
            let end = end_of(common.time, signals);
            headless.until_the_end((handle, events), input, (preflight, end)).await
        }
        Task::Serve { listen, public_url, trusted_proxy, json, time } => {
            let options = HubOptions {
                public: public_url.clone(),
                trusted_proxies: trusted_proxy.clone(),
                next_free_port: !listen.port_given,
                identity: HubIdentity::of_this_user(),
                ..HubOptions::at(listen.at)
            };
            serve(options, Lines::new(*json), *time).await
        }
        Task::Bench { bench } => {
            bench::run(bench).await?;
            Ok(ExitReason::Done)
        }
        Task::Devices { json } => {
            devices(Lines::new(*json), *json);
            Ok(ExitReason::Done)
        }
    }
}

/// Prints what is wrong with a command line.
fn wrong_line(error: &anyhow::Error) -> ExitReason {
    Output::stderr().line(&format!("quintet: {error:#}; see `quintet --help`"));
    ExitReason::WrongLine
}

/// How long opening sessions waits for the check of the sources. Files answer in far less; a later
/// answer is reported later.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// How the lines of standard input are used.
struct Input {
    /// They are sent to the chats.
    speech: Option<Speech>,
    /// They are commands.
    commands: Option<Speech>,
}

/// The state of `open` and `join`: the sessions of this run, and its result so far.
struct Stay {
    lines: Lines,
    /// The sessions that have not ended.
    asked: BTreeSet<SessionId>,
    /// Those of them that are neither opened nor joined yet, and the result if they stay so.
    waited: BTreeMap<SessionId, ExitReason>,
    /// Devices that the preflight check found missing.
    missing: BTreeSet<SourceKind>,
    /// Joined sessions in which no participant has been connected, and whether a failed connection
    /// was reported.
    unconnected: BTreeMap<SessionId, bool>,
    /// Whether standard input is sent to the chats.
    says: bool,
    outcome: ExitReason,
}

impl Stay {
    /// Reports named sources that cannot be used, before they are needed. Sources that take long to
    /// answer are reported later. All are tried again when they are needed.
    async fn look_for(&mut self, preflight: &mut Preflight) {
        let reported = async {
            while let Some(missing) = preflight.next().await {
                self.note_missing(missing);
            }
        };
        // After the timeout, the remaining checks continue in the background.
        timeout(FIRST_LOOK, reported).await.ok();
    }

    fn note_missing(&mut self, (kind, message): Missing) {
        self.missing.insert(kind);
        let (code, session) = (FailureCode::Device(kind), None);
        self.lines.event(&Event::Failed(Failure { code, message, session }));
    }

    /// Prints events and statistics until all sessions have ended, `end` is ready or the output
    /// fails; then leaves every session and returns the result.
    async fn until_the_end(
        mut self,
        (handle, mut events): (Handle, mpsc::Receiver<Event>),
        mut input: Input,
        (mut preflight, end): (Preflight, impl Future<Output = ()>),
    ) -> anyhow::Result<ExitReason> {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.tick().await;
        let mut end = std::pin::pin!(end);
        while !self.asked.is_empty() && self.lines.broken().is_none() {
            let sessions = audience(&handle.snapshot());
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.note(&event),
                    None => anyhow::bail!("the engine ended unexpectedly"),
                },
                _ = seconds.tick() => {
                    if let Some(stats) = handle.stats().await {
                        self.lines.stats(&stats);
                    }
                }
                text = Speech::next(&mut input.speech), if !sessions.is_empty() => {
                    self.say(text, sessions, &handle).await;
                }
                line = Speech::line(&mut input.commands) => self.obey(&line, &handle).await,
                missing = preflight.next(), if !preflight.is_over() => {
                    missing.into_iter().for_each(|missing| self.note_missing(missing));
                }
                () = &mut end => break,
            }
        }
        // Sources that answer only now are also reported.
        self.look_for(&mut preflight).await;
        if self.lines.broken().is_none() {
            for reason in std::mem::take(&mut self.waited).into_values() {
                self.worsen(reason);
            }
        }
        self.judge_devices(&handle.snapshot());
        let stats = timeout(FAREWELL, handle.close()).await.unwrap_or_else(|_| {
            tracing::warn!("the engine did not leave its sessions in time");
            Stats::default()
        });
        while let Ok(event) = events.try_recv() {
            self.note(&event);
        }
        self.judge_connections();
        self.lines.summary(&stats);
        finish_output().await;
        match self.lines.broken() {
            // The reader has closed the pipe, as `head` does.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(self.outcome),
            Some(error) => anyhow::bail!("standard output cannot be written: {error}"),
            None => Ok(self.outcome),
        }
    }

    /// Carries out a command from standard input.
    async fn obey(&mut self, line: &str, handle: &Handle) {
        if line.trim().is_empty() {
            return;
        }
        match commands::command(line, &handle.snapshot()) {
            Ok(command) => handle.send(command).await,
            Err(message) => {
                let (code, session) = (FailureCode::Command, None);
                self.note(&Event::Failed(Failure { code, message, session }));
            }
        }
    }

    /// Sends a text to the chats of these sessions.
    async fn say(
        &mut self,
        text: Result<ChatText, TextError>,
        sessions: Vec<SessionId>,
        handle: &Handle,
    ) {
        match text {
            Ok(text) => {
                for session in sessions {
                    handle.send(Command::Say { session, text: text.clone() }).await;
                }
            }
            Err(error) => {
                let (code, message) = (FailureCode::Chat, error.to_string());
                self.note(&Event::Failed(Failure { code, message, session: None }));
            }
        }
    }

    /// Prints an event and updates the result.
    fn note(&mut self, event: &Event) {
        self.lines.event(event);
        match event {
            Event::Opened { session, kind, .. } => {
                self.waited.remove(session);
                self.tell_mute(session, (*kind, Role::Opener));
            }
            Event::Joined { session, kind } => {
                self.waited.remove(session);
                self.unconnected.insert(session.clone(), false);
                self.tell_mute(session, (*kind, Role::Guest));
            }
            Event::Failed(failure) => self.note_failure(failure),
            Event::Ended { session, reason } => {
                self.asked.remove(session);
                let reason_so_far = self.waited.remove(session);
                match reason {
                    EndReason::Ejected | EndReason::Replaced => {
                        self.worsen(ExitReason::Ended);
                    }
                    EndReason::Failed => self.worsen(reason_so_far.unwrap_or(ExitReason::Refused)),
                    EndReason::Left | EndReason::OpenerLeft | EndReason::Closed => {}
                }
            }
            Event::Participant { session, state: ParticipantState::Live, .. } => {
                self.unconnected.remove(session);
            }
            // A session that was joined waits again when its opener is lost.
            Event::Waiting { session, .. } => {
                self.waited.entry(session.clone()).or_insert(ExitReason::StillWaiting);
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Participant { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. } => {}
        }
    }

    /// Reports that `--say` has no effect in a session, so that the user does not wait for answers.
    fn tell_mute(&mut self, session: &SessionId, (kind, role): (SessionKind, Role)) {
        let has_chat = kind.media.has(Media::Data);
        if !self.says || (has_chat && kind.may_write(role)) {
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
        let (code, session) = (FailureCode::Chat, Some(session.clone()));
        self.lines.event(&Event::Failed(Failure { code, message, session }));
    }

    /// Notes a failure. A failure of a pending session counts only if the session never opens: it
    /// may still succeed.
    fn note_failure(&mut self, failure: &Failure) {
        let reason = match failure.code {
            FailureCode::Hub(_) => ExitReason::Refused,
            FailureCode::HubUnreachable => ExitReason::HubUnreachable,
            FailureCode::AlreadyHere => return self.worsen(ExitReason::Refused),
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
        if let Some(pending) = failure.session.as_ref().and_then(|id| self.waited.get_mut(id)) {
            *pending = reason;
        }
    }

    /// Sets the result if a device cannot be used at the end, or was missing and is still not in
    /// use.
    fn judge_devices(&mut self, end: &Snapshot) {
        let states = [
            (SourceKind::Camera, &end.camera),
            (SourceKind::Microphone, &end.microphone),
            (SourceKind::Speaker, &end.speaker),
        ];
        for (kind, state) in states {
            let is_bad = match state {
                SourceState::Failed { .. } => true,
                SourceState::Running => false,
                SourceState::Idle | SourceState::Opening => self.missing.contains(&kind),
            };
            if is_bad {
                self.worsen(ExitReason::Device);
            }
        }
    }

    /// Sets the result if a session was joined and no participant in it was ever connected.
    fn judge_connections(&mut self) {
        for (session, is_reported) in std::mem::take(&mut self.unconnected) {
            self.worsen(ExitReason::NeverConnected);
            if !is_reported {
                let code = FailureCode::Connection(ConnectionFault::NotAgreed);
                let message = format!(
                    "no participant of session \"{session}\" was connected before it ended; stay \
                     longer, or check that somebody is in it"
                );
                let session = Some(session);
                self.lines.event(&Event::Failed(Failure { code, message, session }));
            }
        }
    }

    fn worsen(&mut self, reason: ExitReason) {
        self.outcome = self.outcome.max(reason);
    }
}

/// Runs a hub without an engine.
async fn serve(
    options: HubOptions,
    mut printer: Lines,
    time: Option<Duration>,
) -> anyhow::Result<ExitReason> {
    let signals = Signals::listen()?;
    let hub = match Hub::start(options).await {
        Ok(hub) => hub,
        Err(error) => {
            let (code, session) = (FailureCode::HubUnreachable, None);
            let message = error.to_string();
            printer.event(&Event::Failed(Failure { code, message, session }));
            return Ok(ExitReason::HubUnreachable);
        }
    };
    let mut link_bases = hub.link_bases();
    let mut end = std::pin::pin!(end_of(time, signals));
    loop {
        let hub = link_bases.borrow_and_update().clone();
        printer.event(&Event::Listening { hub });
        tokio::select! {
            Ok(()) = link_bases.changed() => {}
            () = &mut end => break,
        }
    }
    if timeout(FAREWELL, hub.close()).await.is_err() {
        tracing::warn!("the hub did not close its connections in time");
    }
    Ok(ExitReason::Done)
}

/// Prints the cameras, microphones and speakers.
fn devices(printer: Lines, json: bool) {
    let lists = [
        ("camera", capture::cameras(), "--camera pattern or file:PATH.y4m"),
        ("microphone", capture::microphones(), "--microphone tone or file:PATH.wav"),
        ("speaker", playback::speakers(), "--speaker none or file:PATH.wav"),
    ];
    if json {
        let mut object = json!({"event": "devices", "devices": []});
        for (kind, list, _) in &lists {
            let names: Vec<_> = list.iter().map(listed).collect();
            object[format!("{kind}s")] = json!(names);
        }
        let all = lists.iter().flat_map(|(kind, list, _)| {
            list.iter().map(move |device| {
                let Device { id, name, is_default } = device;
                json!({"kind": kind, "id": id, "name": name, "default": is_default})
            })
        });
        object["devices"] = all.collect();
        return printer.object(object);
    }
    for (kind, list, alternative) in lists {
        printer.line(&format!("{kind}s"));
        for device in &list {
            printer.line(&format!("  {}  [{}]", listed(device), device.id));
        }
        if list.is_empty() {
            printer.line(&format!("  none found; {alternative} works without any"));
        }
    }
}

/// Returns a device's name, marked if it is the default one.
fn listed(device: &Device) -> String {
    let mark = if device.is_default { DEFAULT_MARK } else { "" };
    format!("{}{mark}", device.name)
}

/// Returns when the time is up, or when a signal asks the program to end.
async fn end_of(time: Option<Duration>, mut signals: Signals) {
    let time_is_up = async {
        match time {
            Some(time) => sleep_until(Instant::now() + time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = time_is_up => {}
        () = signals.asked() => {}
    }
}

/// Waits until all output is written, or its reader has stalled.
async fn finish_output() {
    let finish = || Output::stdout().finish();
    if let Err(error) = tokio::task::spawn_blocking(finish).await {
        tracing::warn!(%error, "the last lines may not be written");
    }
}
