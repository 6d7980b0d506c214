//! Looks for the sources that were named before anybody wants them: a name that is misspelt is to
//! be known before the guests come.

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

/// How long a device or a file may take to answer before a person is told. Sound servers take two
/// seconds.
const ANSWER: Duration = Duration::from_secs(5);

/// One answer for each kind of source.
const ANSWERS: usize = 3;

/// A source that was named and cannot be used, and why.
pub(super) type Missing = (SourceKind, String);

/// Named sources that are being looked for, each on a thread of its own that nobody waits for.
pub(super) struct Preflight {
    answers: mpsc::Receiver<(SourceKind, Result<(), String>)>,
    /// Those that have not answered yet, and what is said if they never do.
    awaited: BTreeMap<SourceKind, String>,
    deadline: Instant,
    /// The speaker's file is compared with these.
    _claims: Vec<SourceClaim>,
}

impl Preflight {
    /// Starts to look; never waits.
    pub(super) fn begin(sources: Vec<(SourceKind, SourceSpec)>, speaker: SpeakerSpec) -> Self {
        let claims = sources.iter().filter_map(claim).collect();
        let (say, answers) = mpsc::channel(ANSWERS);
        let deadline = Instant::now() + ANSWER;
        let mut this = Self { answers, awaited: BTreeMap::new(), deadline, _claims: claims };
        for (kind, spec) in sources {
            let hung = if let SourceSpec::File(path) = &spec {
                FileError::Hung { path: path.clone() }.to_string()
            } else {
                format!("the {} {spec} does not answer; pick another", noun(kind))
            };
            this.look(kind, hung, &say, move || match kind {
                SourceKind::Camera => capture::look_for_camera(&spec),
                SourceKind::Microphone => capture::look_for_microphone(&spec),
                SourceKind::Speaker => Ok(()),
            });
        }
        if let SpeakerSpec::File(path) = &speaker {
            let hung = FileError::Hung { path: path.clone() }.to_string();
            let look = move || playback::look_for_speaker(&speaker);
            this.look(SourceKind::Speaker, hung, &say, look);
        }
        this
    }

    fn look(
        &mut self,
        kind: SourceKind,
        hung: String,
        say: &mpsc::Sender<(SourceKind, Result<(), String>)>,
        look: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        let say = say.clone();
        let worker = Worker::spawn("preflight", move |_| {
            say.try_send((kind, look())).ok();
        });
        match worker {
            Ok(worker) => {
                // Not joined: a drive or a driver may never answer.
                worker.abandon();
                self.awaited.insert(kind, hung);
            }
            Err(error) => tracing::error!(%error, ?kind, "no thread to look for a source"),
        }
    }

    /// The next source that is missing or does not answer; `None` once all have answered. Nothing
    /// is lost when it is not waited for to the end.
    pub(super) async fn next(&mut self) -> Option<Missing> {
        while !self.is_over() {
            tokio::select! {
                answer = self.answers.recv() => {
                    let Some((kind, found)) = answer else { return self.awaited.pop_first() };
                    // Who answers late was told of already.
                    if self.awaited.remove(&kind).is_some() && let Err(message) = found {
                        return Some((kind, message));
                    }
                }
                () = sleep_until(self.deadline) => return self.awaited.pop_first(),
            }
        }
        None
    }

    /// Whether all have answered, or were given up.
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
