//! The receiving end as the sender sees it: this program once more, in a process of its own, that
//! says a word a line.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::BenchError;
use crate::{media::Worker, model::SessionLink};

/// Words that wait at most; the sender reads them as they come, but for the seconds in which it
/// measures: more than the longest measurement has.
const WORDS: usize = 4096;

/// What the viewers' process says, a JSON object a line.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub(super) enum Word {
    /// A viewer sees its first picture.
    FirstFrame {
        /// Milliseconds since it asked to join.
        ms: u64,
        /// Whether no other viewer came in the half second before.
        alone: bool,
    },
    /// How it stands, every second once all have come.
    Figures(ViewerFigures),
}

/// What the viewers have received since they came.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(super) struct ViewerFigures {
    /// Whole pictures of each viewer: all packets there, from first to marked last.
    pub(super) received: Vec<u64>,
    /// From capture to shown picture, the 50th and 95th of 100 in milliseconds, of the first
    /// viewer, if it decodes.
    pub(super) latency_ms: Option<(f64, f64)>,
    /// Pictures that the first viewer decoded.
    pub(super) decoded: u64,
    /// Processor time of their process, user and system, in seconds.
    pub(super) cpu_seconds: f64,
    /// Memory of their process, in bytes.
    pub(super) pss: Option<u64>,
}

/// The viewers' process; killed when dropped.
pub(super) struct Audience {
    /// Before its reader, which ends with it.
    _process: Process,
    words: mpsc::Receiver<Word>,
    _reader: Worker,
}

impl Audience {
    /// Starts the process, whose viewers join the sessions by turns.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(super) fn seat(
        links: &[SessionLink],
        peers: usize,
        decode: bool,
    ) -> Result<Self, BenchError> {
        let failed = |what| move |source| BenchError::Viewers { what, source };
        let program = env::current_exe().map_err(failed("cannot be found"))?;
        let mut command = Command::new(program);
        command.args(["bench", "view", "--peers", &peers.to_string()]);
        command.args(decode.then_some("--decode"));
        command.args(links.iter().map(ToString::to_string));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process(command.spawn().map_err(failed("cannot be started"))?);
        let out = process.0.stdout.take().expect("it is piped");
        let (tell, words) = mpsc::channel(WORDS);
        let reader = Worker::spawn("viewers' words", move |_| read(out, &tell))
            .map_err(failed("cannot be heard"))?;
        Ok(Self { _process: process, words, _reader: reader })
    }

    /// What it says next.
    ///
    /// # Errors
    /// If it has ended.
    pub(super) async fn word(&mut self) -> Result<Word, BenchError> {
        self.words.recv().await.ok_or(BenchError::Gone)
    }

    /// How it stands now, not what waited to be read.
    ///
    /// # Errors
    /// If it has ended.
    pub(super) async fn figures(&mut self) -> Result<ViewerFigures, BenchError> {
        while self.words.try_recv().is_ok() {}
        loop {
            if let Word::Figures(figures) = self.word().await? {
                return Ok(figures);
            }
        }
    }
}

/// Passes words on until the process ends or says something else.
fn read(out: ChildStdout, tell: &mpsc::Sender<Word>) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let Ok(word) = serde_json::from_str(&line) else {
            return tracing::error!("the viewers said something else");
        };
        // Words beyond the longest measurement tell nothing new.
        let _ = tell.try_send(word);
    }
}

/// A process that is killed with its value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
