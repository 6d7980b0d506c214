//! Checks named sources before they are needed, so that a misspelt name is reported before guests
//! join.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    capture::{self, SourceSpec},
    files::{FileError, SourceClaim},
    media::Worker,
    model::{DeviceKind, Media},
    playback::{self, SpeakerSpec},
};

/// How long a device or a file may take to answer before it is reported. Sound servers take two
/// seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The most answers: one for each kind of source.
const MAX_SOURCES: usize = 3;

/// A named source that cannot be used, and the reason.
pub(super) type MissingSource = (DeviceKind, String);

/// The running checks of named sources, each on its own thread that is never joined.
pub(super) struct Preflight {
    answers: mpsc::Receiver<(DeviceKind, Result<(), String>)>,
    /// The sources that have not answered yet, and the message if they never do.
    pending: BTreeMap<DeviceKind, String>,
    deadline: Instant,
    /// Claims on the files of the sources: the file of the speaker is compared with them.
    _claims: Vec<SourceClaim>,
}

impl Preflight {
    /// Starts the checks; never waits.
    pub(super) fn start(sources: Vec<(DeviceKind, SourceSpec)>, speaker: SpeakerSpec) -> Self {
        let claims = sources.iter().filter_map(claim_file).collect();
        let (sender, answers) = mpsc::channel(MAX_SOURCES);
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut this = Self { answers, pending: BTreeMap::new(), deadline, _claims: claims };
        for (kind, spec) in sources {
            let hung = if let SourceSpec::File(path) = &spec {
                FileError::NotResponding { path: path.clone() }.to_string()
            } else {
                format!("the {} {spec} does not answer; pick another", kind.name())
            };
            this.check(kind, hung, &sender, move || match kind {
                DeviceKind::Source(source) if source.media() == Media::Audio => {
                    capture::check_microphone(&spec)
                }
                DeviceKind::Source(_) => capture::check_camera(&spec),
                DeviceKind::Speaker => Ok(()),
            });
        }
        if let SpeakerSpec::File(path) = &speaker {
            let hung = FileError::NotResponding { path: path.clone() }.to_string();
            let check = move || playback::preflight_speaker(&speaker);
            this.check(DeviceKind::Speaker, hung, &sender, check);
        }
        this
    }

    /// Runs a check on its own thread; `hung` is the message if it never returns.
    fn check(
        &mut self,
        kind: DeviceKind,
        hung: String,
        answers: &mpsc::Sender<(DeviceKind, Result<(), String>)>,
        check: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        let answers = answers.clone();
        let worker = Worker::spawn("preflight", move |_| {
            answers.try_send((kind, check())).ok();
        });
        match worker {
            Ok(worker) => {
                // Not joined: a drive or a driver may never answer.
                worker.abandon();
                self.pending.insert(kind, hung);
            }
            Err(error) => tracing::error!(%error, ?kind, "no thread to check a source"),
        }
    }

    /// Returns the next source that is missing or does not answer; `None` once all have answered.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<MissingSource> {
        while !self.is_done() {
            tokio::select! {
                answer = self.answers.recv() => {
                    let Some((kind, result)) = answer else { return self.pending.pop_first() };
                    // A source that answers late was already reported.
                    if self.pending.remove(&kind).is_some() && let Err(message) = result {
                        return Some((kind, message));
                    }
                }
                () = sleep_until(self.deadline) => return self.pending.pop_first(),
            }
        }
        None
    }

    /// Returns whether all sources have answered or were reported as not answering.
    pub(super) fn is_done(&self) -> bool {
        self.pending.is_empty()
    }
}

fn claim_file((kind, spec): &(DeviceKind, SourceSpec)) -> Option<SourceClaim> {
    Some(SourceClaim::new(spec.file()?, kind.name()))
}
