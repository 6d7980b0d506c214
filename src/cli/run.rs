//! Runs a task to its end and says how it went.

use std::{collections::BTreeSet, future::pending, process::ExitCode, time::Duration};

use serde_json::json;
use tokio::{
    signal,
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};

use super::{
    args::{Listen, Task},
    lines::Lines,
};
use crate::{
    capture,
    engine::{Engine, Handle, fresh_session_id},
    model::{EndReason, Event, FailureCode, HubUrl, SessionId, SourceState},
    playback,
    signalling::{Hub, HubOptions},
};

/// How a run went, as its exit code tells; the greatest that applies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExitReason {
    /// What was asked for happened.
    Done = 0,
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
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason as u8)
    }
}

/// Carries out what the command line asks for; returns when it is over, the time is up, or on
/// Ctrl-C (or SIGTERM), after leaving every session properly.
///
/// # Errors
/// What cannot be told as an event: a hub that cannot listen, a machine without threads.
pub async fn run(task: Task) -> anyhow::Result<ExitReason> {
    match &task {
        Task::Open { common, .. } | Task::Join { common, .. } => {
            let lines = Lines::new(common.json);
            let commands = task.commands(fresh_session_id)?;
            let (handle, events) = Engine::start(common.engine())?;
            let mut asked = BTreeSet::new();
            for command in commands {
                asked.extend(command.session().cloned());
                handle.send(command).await;
            }
            let stay = Stay { lines, waited: asked.clone(), asked, outcome: ExitReason::Done };
            Ok(stay.until_the_end(handle, events, common.time).await)
        }
        Task::Serve { listen, public, json, time } => {
            serve(*listen, public.clone(), &Lines::new(*json), *time).await?;
            Ok(ExitReason::Done)
        }
        Task::Devices { json } => {
            devices(&Lines::new(*json), *json);
            Ok(ExitReason::Done)
        }
    }
}

/// A stay in sessions.
struct Stay {
    lines: Lines,
    /// The sessions that are not over.
    asked: BTreeSet<SessionId>,
    /// Those of them that are neither open nor joined yet.
    waited: BTreeSet<SessionId>,
    outcome: ExitReason,
}

impl Stay {
    async fn until_the_end(
        mut self,
        handle: Handle,
        mut events: mpsc::Receiver<Event>,
        time: Option<Duration>,
    ) -> ExitReason {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.tick().await;
        let mut end = std::pin::pin!(end_of(time));
        while !self.asked.is_empty() {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.note(&event),
                    None => break,
                },
                _ = seconds.tick() => {
                    if let Some(stats) = handle.stats().await {
                        self.lines.stats(&stats);
                    }
                }
                () = &mut end => break,
            }
        }
        if !self.waited.is_empty() {
            self.worsen(ExitReason::StillWaiting);
        }
        let snapshot = handle.snapshot();
        let stats = handle.close().await;
        while let Ok(event) = events.try_recv() {
            self.note(&event);
        }
        for state in [&snapshot.camera, &snapshot.microphone, &snapshot.speaker] {
            if matches!(state, SourceState::Failed { .. }) {
                self.worsen(ExitReason::Device);
            }
        }
        self.lines.summary(&stats);
        self.outcome
    }

    fn note(&mut self, event: &Event) {
        self.lines.event(event);
        match event {
            Event::Opened { session, .. } | Event::Joined { session, .. } => {
                self.waited.remove(session);
            }
            Event::Failed(failure) => match failure.code {
                FailureCode::Hub(_) | FailureCode::AlreadyHere => {
                    self.worsen(ExitReason::Refused);
                }
                FailureCode::HubUnreachable if failure.session.is_some() => {
                    self.worsen(ExitReason::HubUnreachable);
                }
                FailureCode::HubUnreachable | FailureCode::Connection | FailureCode::Device => {}
            },
            Event::Ended { session, reason } => {
                self.asked.remove(session);
                self.waited.remove(session);
                match reason {
                    EndReason::OpenerLost | EndReason::Ejected | EndReason::Replaced => {
                        self.worsen(ExitReason::Ended);
                    }
                    EndReason::Left
                    | EndReason::OpenerLeft
                    | EndReason::Closed
                    | EndReason::Failed => {}
                }
            }
            Event::Listening { .. }
            | Event::Waiting { .. }
            | Event::Participant { .. }
            | Event::FirstFrame { .. } => {}
        }
    }

    fn worsen(&mut self, reason: ExitReason) {
        self.outcome = self.outcome.max(reason);
    }
}

/// Runs a hub alone.
async fn serve(
    listen: Listen,
    public: Option<HubUrl>,
    lines: &Lines,
    time: Option<Duration>,
) -> anyhow::Result<()> {
    let next_free_port = !listen.port_given;
    let hub = Hub::start(HubOptions { listen: listen.address, next_free_port, public }).await?;
    lines.event(&Event::Listening { hub: hub.link_base().clone() });
    end_of(time).await;
    hub.close().await;
    Ok(())
}

fn devices(lines: &Lines, json: bool) {
    let lists = [
        ("cameras", capture::cameras()),
        ("microphones", capture::microphones()),
        ("speakers", playback::speakers()),
    ];
    if json {
        let mut object = json!({"event": "devices"});
        for (name, list) in lists {
            object[name] = json!(list);
        }
        return lines.object(object);
    }
    for (name, list) in lists {
        lines.line(name);
        for device in &list {
            lines.line(&format!("  {device}"));
        }
        if list.is_empty() {
            lines.line("  none found; pattern, tone and file:PATH work without any");
        }
    }
}

/// When the time is up, or somebody presses Ctrl-C or sends SIGTERM.
async fn end_of(time: Option<Duration>) {
    let time_is_up = async {
        match time {
            Some(time) => sleep_until(Instant::now() + time).await,
            None => pending().await,
        }
    };
    let interrupted = async {
        if let Err(error) = signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C cannot be heard");
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = time_is_up => {}
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    match signal::unix::signal(signal::unix::SignalKind::terminate()) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be heard");
            pending().await
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    pending().await
}
