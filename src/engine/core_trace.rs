//! The trace of the core that `--trace` writes, and the core that writes it.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::oneshot, time::timeout};
use tracing::{Level, Span};

use super::uplink::class_and_precedence;
use crate::{
    bandwidth::{Precedence, PriorityClass},
    conference::{Conference, Deadline, Effect, HubRef, Input, TraceFormat, TraceHeader},
    files::{FileError, PrivateRecording},
    media,
    model::{MediaTime, ParticipantId, PeerId, SessionId, Snapshot},
    process::{BackgroundFile, FileFormat},
};

/// The queue has room for 80 connections that are established at once: each makes about a hundred
/// lines.
const FORMAT: FileFormat =
    FileFormat { name: "trace", queue: 8192, gap: |lost| TraceFormat::gap(lost).into_bytes() };

/// The target of the log records of the core, which itself logs nothing.
const LOG_TARGET: &str = "quintet::conference";

/// How long the start waits for the file. A drive that answers later gets the first lines then.
const OPEN_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the end waits for the disk.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// What is traced, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceOptions {
    /// The file. It is replaced, and only the user can read it.
    pub path: PathBuf,
    /// Whether the text of chat messages is in it.
    pub with_chat: bool,
}

/// A file with one line for each input, effect and timer of the core of one engine, as
/// [`conference::replay`](crate::conference::replay) reads it. A thread of its own writes it, for
/// which nobody waits.
#[derive(Clone, Debug)]
pub struct CoreTrace {
    file: BackgroundFile,
    format: TraceFormat,
}

/// The end of a trace.
#[derive(Debug)]
pub struct TraceEnd(oneshot::Receiver<()>);

/// Why a trace cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system cannot create a thread.
    #[error("the system starts no thread: {0}")]
    Thread(#[from] io::Error),
}

impl CoreTrace {
    /// Starts a trace. Waits half a second at most for the file.
    ///
    /// # Errors
    /// If the file cannot be written, or there is no thread left.
    pub async fn start(options: TraceOptions) -> Result<(Self, TraceEnd), TraceError> {
        let TraceOptions { path, with_chat } = options;
        let format = TraceFormat { with_chat };
        let header = format.header(header()).into_bytes();
        let open = move || PrivateRecording::open(&path);
        let started = BackgroundFile::start(FORMAT, header, open)?;
        if let Ok(Ok(opened)) = timeout(OPEN_TIMEOUT, started.opened).await {
            opened?;
        }
        Ok((Self { file: started.file, format }, TraceEnd(started.ended)))
    }

    fn write(&self, line: String) {
        self.file.write(line.into_bytes());
    }
}

impl TraceEnd {
    /// Waits until everything is written, two seconds at most. The engine must have ended.
    pub async fn wait(self) {
        if timeout(END_TIMEOUT, self.0).await.is_err() {
            tracing::warn!("the trace lacks its end, because the disk is too slow");
        }
    }
}

/// The first line of a trace that starts now.
fn header() -> TraceHeader {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TraceHeader {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        unix_us: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        at: media::now(),
    }
}

/// The core, and the trace of everything that goes in and comes out, if there is one.
pub(super) struct TracedCore {
    core: Conference,
    trace: Option<CoreTrace>,
    /// The time of the last call.
    now: MediaTime,
}

impl TracedCore {
    /// A core without sessions.
    pub(super) fn new(trace: Option<CoreTrace>) -> Self {
        Self { core: Conference::new(), trace, now: MediaTime::default() }
    }

    /// Like [`Conference::handle`].
    pub(super) fn handle(&mut self, input: Input, now: MediaTime) {
        self.now = now;
        self.record(|format| format.input(&input, now));
        self.core.handle(input, now);
    }

    /// Like [`Conference::handle_timeout`].
    pub(super) fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        let due = self.core.poll_timeout().filter(|next| next.at <= now);
        if let Some(Deadline { timer, .. }) = due {
            self.record(|format| format.timer(timer, now));
        }
        self.core.handle_timeout(now);
    }

    /// Like [`Conference::poll_effect`].
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.core.poll_effect()?;
        self.record(|format| format.effect(&effect, self.now));
        Some(effect)
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn next_deadline(&self) -> Option<MediaTime> {
        self.core.poll_timeout().map(|next| next.at)
    }

    /// Writes a line to the trace, and to the log if that is wanted as `quintet::conference=debug`.
    /// A line of a trace with chat is not logged: the log never has chat text.
    fn record(&self, line: impl FnOnce(TraceFormat) -> String) {
        let is_logged = tracing::enabled!(target: LOG_TARGET, Level::DEBUG);
        if self.trace.is_none() && !is_logged {
            return;
        }
        let format = self.trace.as_ref().map_or_else(TraceFormat::default, |trace| trace.format);
        let line = line(format);
        if is_logged && !format.with_chat {
            tracing::debug!(target: LOG_TARGET, "{}", line.trim_end());
        }
        if let Some(trace) = &self.trace {
            trace.write(line);
        }
    }

    /// The span of a peer connection, inside that of its session; none if it is not open.
    pub(super) fn peer_span(&self, peer: PeerId) -> Span {
        let Some((session, participant)) = self.core.session_of_peer(peer) else {
            return Span::none();
        };
        let generation = self.core.generation_of_peer(peer);
        let PeerId(id) = peer;
        let session = tracing::warn_span!("session", id = %session);
        tracing::warn_span!(parent: &session, "peer", id, %participant, generation)
    }

    /// Like [`Conference::snapshot`].
    pub(super) fn snapshot(&self) -> std::sync::Arc<Snapshot> {
        self.core.snapshot()
    }

    /// Like [`Conference::session_of_peer`].
    pub(super) fn session_of_peer(&self, peer: PeerId) -> Option<(SessionId, ParticipantId)> {
        self.core.session_of_peer(peer)
    }

    /// Whose turn a session is when the uplink is divided.
    pub(super) fn priority(&self, session: &SessionId) -> (PriorityClass, Precedence) {
        let priority = self.core.priority_of_session(session);
        priority.map_or((PriorityClass::OneWay, Precedence::Usual), class_and_precedence)
    }

    /// Like [`Conference::hub_of_peer`].
    pub(super) fn hub_of_peer(&self, peer: PeerId) -> Option<(HubRef, ParticipantId)> {
        self.core.hub_of_peer(peer)
    }
}
