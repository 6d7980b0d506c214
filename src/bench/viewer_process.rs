//! The viewers as the sender sees them: this program in a second process, which prints one message
//! per line.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::BenchError;
use crate::{media::Worker, model::SessionLink};

/// The most messages that wait. The sender does not read them while it measures: there is one per
/// second, and this is more than the longest measurement has.
const MESSAGE_QUEUE: usize = 4096;

/// A message of the viewers' process, one JSON object per line.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub(super) enum ViewerMessage {
    /// A viewer has received its first frame.
    FirstFrame {
        /// Milliseconds since it requested to join.
        ms: u64,
        /// Whether no other viewer joined in the half second before.
        alone: bool,
    },
    /// The statistics, every second once all viewers receive video.
    Figures(ViewerStats),
    /// What the viewer of `bench network` has received, every quarter of a second from its start.
    Received(ReceivedSoFar),
}

/// What the viewers have received since they joined.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(super) struct ViewerStats {
    /// Complete frames of each viewer: all packets received, from the first to the one with the
    /// marker bit.
    pub(super) received: Vec<u64>,
    /// The time from capture to display at the first viewer, if it decodes: 50th and 95th
    /// percentile in milliseconds.
    pub(super) latency_ms: Option<(f64, f64)>,
    /// Frames that the first viewer decoded.
    pub(super) decoded: u64,
    /// CPU time of their process, user and system, in seconds.
    pub(super) cpu_seconds: f64,
    /// Memory of their process (PSS), in bytes.
    pub(super) pss: Option<u64>,
}

/// What the viewer of `bench network` has received since it requested to join.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ReceivedSoFar {
    /// Milliseconds since the request.
    pub(super) ms: u64,
    /// Milliseconds from the request to the first frame, once there is one.
    pub(super) first_frame_ms: Option<u64>,
    /// Frames that were decoded.
    pub(super) decoded: u64,
    /// Milliseconds for which the video was frozen.
    pub(super) frozen_ms: u64,
    /// The longest freeze in milliseconds.
    pub(super) longest_freeze_ms: u64,
    /// Milliseconds of audio that were concealed.
    pub(super) concealed_ms: u64,
}

/// The viewers' process; killed when dropped.
pub(super) struct ViewerProcess {
    /// Dropped before the reader, which ends when the process ends.
    _process: KillOnDrop,
    messages: mpsc::Receiver<ViewerMessage>,
    _reader: Worker,
}

impl ViewerProcess {
    /// Starts the process; its viewers are distributed over the sessions in turn.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub(super) fn start(
        links: &[SessionLink],
        peers: usize,
        decode: bool,
    ) -> Result<Self, BenchError> {
        let peers = peers.to_string();
        let options = ["view", "--peers", &peers].into_iter().chain(decode.then_some("--decode"));
        Self::run(options.map(str::to_owned).chain(links.iter().map(ToString::to_string)))
    }

    /// Starts a process with one viewer that hears, too, and impairs what it sends.
    ///
    /// # Errors
    /// Fails if it cannot be started.
    pub(super) fn start_receiver(
        links: &[SessionLink],
        impairment: &str,
    ) -> Result<Self, BenchError> {
        let options = ["receive", "--impair", impairment].map(str::to_owned);
        Self::run(options.into_iter().chain(links.iter().map(ToString::to_string)))
    }

    /// Runs `quintet bench` with these arguments.
    fn run(arguments: impl Iterator<Item = String>) -> Result<Self, BenchError> {
        let failed = |what| move |source| BenchError::Viewers { what, source };
        let program = env::current_exe().map_err(failed("cannot be found"))?;
        let mut command = Command::new(program);
        command.arg("bench").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = KillOnDrop(command.spawn().map_err(failed("cannot be started"))?);
        let out = process.0.stdout.take().expect("it is piped");
        let (sender, messages) = mpsc::channel(MESSAGE_QUEUE);
        let reader = Worker::spawn("viewers", move |_| forward_messages(out, &sender))
            .map_err(failed("cannot be read"))?;
        Ok(Self { _process: process, messages, _reader: reader })
    }

    /// Returns the next message.
    ///
    /// # Errors
    /// Fails if the process has ended.
    pub(super) async fn next_message(&mut self) -> Result<ViewerMessage, BenchError> {
        self.messages.recv().await.ok_or(BenchError::ViewersEnded)
    }

    /// Returns the next statistics; those that are queued already are discarded.
    ///
    /// # Errors
    /// Fails if the process has ended.
    pub(super) async fn next_stats(&mut self) -> Result<ViewerStats, BenchError> {
        while self.messages.try_recv().is_ok() {}
        loop {
            if let ViewerMessage::Figures(figures) = self.next_message().await? {
                return Ok(figures);
            }
        }
    }
}

/// Forwards messages until the process ends or prints an invalid line.
fn forward_messages(out: ChildStdout, messages: &mpsc::Sender<ViewerMessage>) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str(&line) else {
            return tracing::error!("invalid line from the viewers' process");
        };
        // A full queue holds more than the longest measurement needs.
        let _ = messages.try_send(message);
    }
}

/// A process that is killed on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
