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
    model::SourceKind,
    playback::{self, SpeakerSpec},
};

/// How long a device or a file may take to answer before it is reported. Sound servers take two
/// seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// The most answers: one for each kind of source.
const ANSWERS: usize = 3;

/// A named source that cannot be used, and the reason.
pub(super) type Missing = (SourceKind, String);

/// The running checks of named sources, each on its own thread that is never joined.
pub(super) struct Preflight {
    answers: mpsc::Receiver<(SourceKind, Result<(), String>)>,
    /// The sources that have not answered yet, and the message if they never do.
    awaited: BTreeMap<SourceKind, String>,
    deadline: Instant,
    /// Claims on the files of the sources: the file of the speaker is compared with them.
    _claims: Vec<SourceClaim>,
}

impl Preflight {
    /// Starts the checks; never waits.
    pub(super) fn begin(sources: Vec<(SourceKind, SourceSpec)>, speaker: SpeakerSpec) -> Self {
        let claims = sources.iter().filter_map(claim).collect();
        let (sender, answers) = mpsc::channel(ANSWERS);
        let deadline = Instant::now() + ANSWER;
        let mut this = Self { answers, awaited: BTreeMap::new(), deadline, _claims: claims };
        for (kind, spec) in sources {
            let hung = if let SourceSpec::File(path) = &spec {
                FileError::Hung { path: path.clone() }.to_string()
            } else {
                format!("the {} {spec} does not answer; pick another", noun(kind))
            };
            this.look(kind, hung, &sender, move || match kind {
                SourceKind::Camera => capture::look_for_camera(&spec),
                SourceKind::Microphone => capture::look_for_microphone(&spec),
                SourceKind::Speaker => Ok(()),
            });
        }
        if let SpeakerSpec::File(path) = &speaker {
            let hung = FileError::Hung { path: path.clone() }.to_string();
            let check = move || playback::look_for_speaker(&speaker);
            this.look(SourceKind::Speaker, hung, &sender, check);
        }
        this
    }

    /// Runs a check on its own thread; `hung` is the message if it never returns.
    fn look(
        &mut self,
        kind: SourceKind,
        hung: String,
        answers: &mpsc::Sender<(SourceKind, Result<(), String>)>,
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
                self.awaited.insert(kind, hung);
            }
            Err(error) => tracing::error!(%error, ?kind, "no thread to check a source"),
        }
    }

    /// Returns the next source that is missing or does not answer; `None` once all have answered.
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Missing> {
        while !self.is_over() {
            tokio::select! {
                answer = self.answers.recv() => {
                    let Some((kind, result)) = answer else { return self.awaited.pop_first() };
                    // A source that answers late was already reported.
                    if self.awaited.remove(&kind).is_some() && let Err(message) = result {
                        return Some((kind, message));
                    }
                }
                () = sleep_until(self.deadline) => return self.awaited.pop_first(),
            }
        }
        None
    }

    /// Returns whether all sources have answered or were reported as not answering.
    pub(super) fn is_over(&self) -> bool {
        self.awaited.is_empty()
    }
}

fn claim((kind, spec): &(SourceKind, SourceSpec)) -> Option<SourceClaim> {
    Some(SourceClaim::new(spec.file()?, noun(*kind)))
}

const fn noun(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Camera => "camera",
        SourceKind::Microphone => "microphone",
        SourceKind::Speaker => "speaker",
    }
}
