//! Runs a task to its end and says how it went.

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

/// How long others are told goodbye, at most: the engine's own bounds, and some more.
const FAREWELL: Duration = Duration::from_secs(4);

/// How a run went, as its exit code tells; the greatest that applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExitReason {
    /// What was asked for happened.
    Done = 0,
    /// The command line asks for what there cannot be.
    WrongLine = 2,
    /// The hub cannot be reached.
    HubUnreachable = 3,
    /// A session was refused.
    Refused = 4,
    /// A session ended against our will.
    Ended = 5,
    /// A session was still awaited at the end.
    StillWaiting = 6,
    /// A device or file that was wanted could not be used.
    Device = 7,
    /// A session was joined, and nobody in it was ever connected.
    NeverConnected = 8,
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason as u8)
    }
}

/// Carries out what the command line asks for; returns when it is over, the time is up, or on
/// Ctrl-C, SIGTERM or SIGHUP, after leaving every session properly. What it prints may still be
/// under way: see [`Output::finish`].
///
/// # Errors
/// What cannot be told as an event: a hub that cannot listen, a machine without threads.
pub async fn run(mut task: Task) -> anyhow::Result<ExitReason> {
    let read = tokio::task::spawn_blocking(move || task.read_links().map(|()| task));
    let task = match read.await? {
        Ok(task) => task,
        Err(error) => return Ok(wrong_line(&error)),
    };
    match &task {
        Task::Open { common, .. } | Task::Join { common, .. } => {
            let commands = match task.commands(fresh_session_id) {
                Ok(commands) => commands,
                Err(error) => return Ok(wrong_line(&error)),
            };
            let mut stay = Stay {
                lines: Lines::new(common.json),
                asked: BTreeSet::new(),
                waited: BTreeMap::new(),
                missing: BTreeSet::new(),
                unconnected: BTreeMap::new(),
                says: common.say,
                outcome: ExitReason::Done,
            };
            let mut preflight = Preflight::begin(common.sources(), common.speaker.clone());
            stay.look_for(&mut preflight).await;
            let signals = Signals::listen()?;
            let (handle, events) = Engine::start(common.engine())?;
            for command in commands {
                if let Some(session) = command.session() {
                    stay.asked.insert(session.clone());
                    stay.waited.insert(session.clone(), ExitReason::StillWaiting);
                }
                handle.send(command).await;
            }
            let input = Input {
                speech: common.say.then(Speech::begin).transpose()?,
                commands: common.commands.then(Speech::begin).transpose()?,
            };
            let end = end_of(common.time, signals);
            stay.until_the_end((handle, events), input, (preflight, end)).await
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

/// Tells what is wrong with a command line.
fn wrong_line(error: &anyhow::Error) -> ExitReason {
    Output::stderr().line(&format!("quintet: {error:#}; `quintet --help` tells more"));
    ExitReason::WrongLine
}

/// How long sources are looked for before sessions are opened: files answer in far less, and what
/// does not is told of later.
const FIRST_LOOK: Duration = Duration::from_millis(500);

/// What the lines of standard input are taken for.
struct Input {
    /// They are said in the chats.
    speech: Option<Speech>,
    /// They are commands.
    commands: Option<Speech>,
}

/// A stay in sessions.
struct Stay {
    lines: Lines,
    /// The sessions that are not over.
    asked: BTreeSet<SessionId>,
    /// Those of them that are neither open nor joined yet, and what it means if they stay so.
    waited: BTreeMap<SessionId, ExitReason>,
    /// Devices that were found missing before anybody wanted them.
    missing: BTreeSet<SourceKind>,
    /// Sessions that were joined and in which nobody has been connected, and whether that was told.
    unconnected: BTreeMap<SessionId, bool>,
    /// Standard input is said in the chats.
    says: bool,
    outcome: ExitReason,
}

impl Stay {
    /// Tells of named sources that are not there before anybody wants them. Those that take long
    /// to answer are told of later. They are tried again when wanted.
    async fn look_for(&mut self, preflight: &mut Preflight) {
        let told = async {
            while let Some(missing) = preflight.next().await {
                self.note_missing(missing);
            }
        };
        // Over or not, it goes on.
        timeout(FIRST_LOOK, told).await.ok();
    }

    fn note_missing(&mut self, (kind, message): Missing) {
        self.missing.insert(kind);
        let (code, session) = (FailureCode::Device(kind), None);
        self.lines.event(&Event::Failed(Failure { code, message, session }));
    }

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
            let audience = audience(&handle.snapshot());
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
                text = Speech::next(&mut input.speech), if !audience.is_empty() => {
                    self.say(text, audience, &handle).await;
                }
                line = Speech::line(&mut input.commands) => self.obey(&line, &handle).await,
                missing = preflight.next(), if !preflight.is_over() => {
                    missing.into_iter().for_each(|missing| self.note_missing(missing));
                }
                () = &mut end => break,
            }
        }
        // Those that were to answer just now.
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
            // Whoever read had enough: `| head`.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(self.outcome),
            Some(error) => anyhow::bail!("standard output cannot be written: {error}"),
            None => Ok(self.outcome),
        }
    }

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

    async fn say(
        &mut self,
        text: Result<ChatText, TextError>,
        audience: Vec<SessionId>,
        handle: &Handle,
    ) {
        match text {
            Ok(text) => {
                for session in audience {
                    handle.send(Command::Say { session, text: text.clone() }).await;
                }
            }
            Err(error) => {
                let (code, message) = (FailureCode::Chat, error.to_string());
                self.note(&Event::Failed(Failure { code, message, session: None }));
            }
        }
    }

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
                let unmet = self.waited.remove(session);
                match reason {
                    EndReason::Ejected | EndReason::Replaced => {
                        self.worsen(ExitReason::Ended);
                    }
                    EndReason::Failed => self.worsen(unmet.unwrap_or(ExitReason::Refused)),
                    EndReason::Left | EndReason::OpenerLeft | EndReason::Closed => {}
                }
            }
            Event::Participant { session, state: ParticipantState::Live, .. } => {
                self.unconnected.remove(session);
            }
            // Its opener may have been lost after we were in it.
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

    /// Tells that --say says nothing in a session, before somebody waits for an answer.
    fn tell_mute(&mut self, session: &SessionId, (kind, role): (SessionKind, Role)) {
        let has_chat = kind.media.has(Media::Data);
        if !self.says || (has_chat && kind.may_write(role)) {
            return;
        }
        let message = if has_chat {
            format!("who joins session \"{session}\" only reads its chat: --say says nothing there")
        } else {
            format!(
                "session \"{session}\" has no chat, so --say says nothing there; one opened with \
             --kind {}+data/{} has one",
                kind.media,
                kind.topology.name()
            )
        };
        let (code, session) = (FailureCode::Chat, Some(session.clone()));
        self.lines.event(&Event::Failed(Failure { code, message, session }));
    }

    /// What went wrong may yet be mended; it counts if the session never comes about.
    fn note_failure(&mut self, failure: &Failure) {
        let reason = match failure.code {
            FailureCode::Hub(_) => ExitReason::Refused,
            FailureCode::HubUnreachable => ExitReason::HubUnreachable,
            FailureCode::AlreadyHere => return self.worsen(ExitReason::Refused),
            FailureCode::Connection(_) => {
                let session = failure.session.as_ref();
                if let Some(told) = session.and_then(|id| self.unconnected.get_mut(id)) {
                    *told = true;
                }
                return;
            }
            FailureCode::Device(_)
            | FailureCode::Chat
            | FailureCode::Command
            | FailureCode::Rename => return,
        };
        if let Some(waited) = failure.session.as_ref().and_then(|id| self.waited.get_mut(id)) {
            *waited = reason;
        }
    }

    /// A device that cannot be used at the end, or was missing and is still not in use.
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

    /// Sessions that were joined for nothing: no media could come from anybody.
    fn judge_connections(&mut self) {
        for (session, is_told) in std::mem::take(&mut self.unconnected) {
            self.worsen(ExitReason::NeverConnected);
            if !is_told {
                let code = FailureCode::Connection(ConnectionFault::NotAgreed);
                let message = format!(
                    "nobody in session \"{session}\" was connected before it ended; stay longer, \
                     or look whether anybody is in it"
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

/// Runs a hub alone.
async fn serve(
    options: HubOptions,
    mut lines: Lines,
    time: Option<Duration>,
) -> anyhow::Result<ExitReason> {
    let signals = Signals::listen()?;
    let hub = match Hub::start(options).await {
        Ok(hub) => hub,
        Err(error) => {
            let (code, session) = (FailureCode::HubUnreachable, None);
            let message = error.to_string();
            lines.event(&Event::Failed(Failure { code, message, session }));
            return Ok(ExitReason::HubUnreachable);
        }
    };
    let mut link_bases = hub.link_bases();
    let mut end = std::pin::pin!(end_of(time, signals));
    loop {
        let hub = link_bases.borrow_and_update().clone();
        lines.event(&Event::Listening { hub });
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

fn devices(lines: Lines, json: bool) {
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
        return lines.object(object);
    }
    for (kind, list, instead) in lists {
        lines.line(&format!("{kind}s"));
        for device in &list {
            lines.line(&format!("  {}  [{}]", listed(device), device.id));
        }
        if list.is_empty() {
            lines.line(&format!("  none found; {instead} works without any"));
        }
    }
}

/// A device's name, marked if it is the default one.
fn listed(device: &Device) -> String {
    let mark = if device.is_default { DEFAULT_MARK } else { "" };
    format!("{}{mark}", device.name)
}

/// When the time is up, or the program is asked to end.
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

/// Waits until everything is written that can be.
async fn finish_output() {
    let finish = || Output::stdout().finish();
    if let Err(error) = tokio::task::spawn_blocking(finish).await {
        tracing::warn!(%error, "the last lines were not waited for");
    }
}
