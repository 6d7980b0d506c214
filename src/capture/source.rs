//! What every source is, and the loop that opens it, runs it and opens it again.

use std::{sync::Arc, thread, time::Duration};

use super::SpecError;
use crate::{
    files::FileError,
    media::{Stop, now},
    model::{MediaTime, SourceState},
};

/// Told how a source is: opening, running, failed. Called from the source's thread, when it
/// changes; it must not block.
pub type Notify = Arc<dyn Fn(SourceState) + Send + Sync>;

/// A source of `T`: pictures (camera, file, pattern) or blocks of sound (microphone, file, tone).
///
/// It is opened, used and dropped on one thread.
pub(super) trait Source<T> {
    /// The next one, waited for not much longer than [`NAP`].
    fn next(&mut self) -> Result<Next<T>, SourceError>;
}

/// What came of waiting for the next frame.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// A frame.
    Ready(T),
    /// Nothing yet.
    NotYet,
    /// Nothing for so long that something is wrong; it may come by itself.
    Silent(SourceError),
}

/// Why a source cannot be used, for a person: the thing, what is wrong with it, the way out.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// A camera.
    #[error(transparent)]
    Camera(#[from] super::camera::CameraError),
    /// A microphone.
    #[error(transparent)]
    Microphone(#[from] super::microphone::MicrophoneError),
    /// Any file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of pictures.
    #[error(transparent)]
    Y4m(#[from] super::y4m::Y4mError),
    /// A file of sound.
    #[error(transparent)]
    Wav(#[from] super::wav::WavError),
    /// A spec that does not fit; refused before it comes here.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The longest wait of a source's thread, so that it stops soon when it is dropped.
pub(super) const NAP: Duration = Duration::from_millis(50);

/// How long after a failure a source is opened again.
const RETRY: Duration = Duration::from_secs(2);

/// Runs a source until told to stop: opens it, hands over its frames, and opens it again two
/// seconds after a failure. Tells each change of its state once.
pub(super) fn run<T, S: Source<T>>(
    stop: &Stop,
    notify: &Notify,
    mut open: impl FnMut() -> Result<S, SourceError>,
    mut take: impl FnMut(T),
) {
    let mut teller = Teller { notify, told: None };
    teller.tell(SourceState::Opening);
    while !stop.is_set() {
        let failed = open().and_then(|mut source| pump(stop, &mut teller, &mut source, &mut take));
        let Err(error) = failed else { return };
        if stop.is_set() {
            return;
        }
        teller.tell(SourceState::Failed { message: error.to_string() });
        let retry_at = now() + RETRY;
        while !stop.is_set() && now() < retry_at {
            thread::sleep(NAP);
        }
    }
}

/// Hands over frames until told to stop.
fn pump<T>(
    stop: &Stop,
    teller: &mut Teller<'_>,
    source: &mut impl Source<T>,
    take: &mut impl FnMut(T),
) -> Result<(), SourceError> {
    loop {
        let next = source.next()?;
        if stop.is_set() {
            return Ok(());
        }
        match next {
            Next::Ready(frame) => {
                teller.tell(SourceState::Running);
                take(frame);
            }
            Next::NotYet => {}
            Next::Silent(error) => {
                teller.tell(SourceState::Failed { message: error.to_string() });
            }
        }
    }
}

/// Tells a state only if it differs from the last one.
struct Teller<'a> {
    notify: &'a Notify,
    told: Option<SourceState>,
}

impl Teller<'_> {
    fn tell(&mut self, state: SourceState) {
        if self.told.as_ref() != Some(&state) {
            match &state {
                SourceState::Failed { message } => tracing::warn!(message, "a source failed"),
                SourceState::Idle | SourceState::Opening | SourceState::Running => {}
            }
            (self.notify)(state.clone());
            self.told = Some(state);
        }
    }
}

/// Frames at an exact average rate: frame `n` is due `n` periods after the first, whatever the
/// ones before it cost.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    start: MediaTime,
    index: u64,
    /// Frames in `seconds` seconds.
    frames: u64,
    seconds: u64,
    /// How late a frame may be made; later ones are left out.
    slack: Duration,
}

impl Pace {
    /// `frames` in every `seconds` seconds, the first one due at `start`.
    pub(super) fn new(start: MediaTime, frames: u64, seconds: u64, slack: Duration) -> Self {
        Self { start, index: 0, frames, seconds, slack }
    }

    /// When the next frame is due. Frames that are too late by now are left out.
    pub(super) fn due(&mut self, now: MediaTime) -> MediaTime {
        let due = self.time_of(self.index);
        if now.since(due) <= self.slack {
            return due;
        }
        let elapsed = u128::from(now.since(self.start).as_micros() as u64);
        self.index =
            (elapsed * u128::from(self.frames) / (u128::from(self.seconds) * 1_000_000)) as u64;
        self.time_of(self.index)
    }

    /// Goes on to the next frame.
    pub(super) fn advance(&mut self) {
        self.index += 1;
    }

    fn time_of(&self, index: u64) -> MediaTime {
        let micros = u128::from(index) * u128::from(self.seconds) * 1_000_000;
        self.start + Duration::from_micros((micros / u128::from(self.frames)) as u64)
    }

    /// Sleeps until the next frame is due; its time, or `None` after a [`NAP`].
    pub(super) fn wait(&mut self) -> Option<MediaTime> {
        let current = now();
        let due = self.due(current);
        let left = due.since(current);
        if left > NAP {
            thread::sleep(NAP);
            return None;
        }
        if !left.is_zero() {
            thread::sleep(left);
        }
        self.advance();
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::media::Worker;

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    #[test]
    fn frames_are_due_at_the_exact_average_rate() {
        let mut pace = Pace::new(at(7), 30_000, 1001, Duration::from_millis(100));
        for _ in 0..30_000 {
            let due = pace.due(at(0));
            assert_eq!(pace.due(due + Duration::from_millis(90)), due, "a late one is made");
            pace.advance();
        }
        assert_eq!(pace.due(at(0)), at(1_001_007));
    }

    #[test]
    fn frames_that_are_too_late_are_left_out_and_the_grid_stays() {
        let mut pace = Pace::new(at(0), 10, 1, Duration::from_millis(150));
        pace.advance();
        assert_eq!(pace.due(at(250)), at(100));
        assert_eq!(pace.due(at(1070)), at(1000));
        pace.advance();
        assert_eq!(pace.due(at(1070)), at(1100));
    }

    /// Gives the frames of a script, then fails.
    struct Script(Vec<Next<u32>>);

    impl Source<u32> for Script {
        fn next(&mut self) -> Result<Next<u32>, SourceError> {
            if self.0.is_empty() { Err(SpecError::Empty.into()) } else { Ok(self.0.remove(0)) }
        }
    }

    #[test]
    fn every_change_of_state_is_told_once() {
        let told = Arc::new(Mutex::new(vec![]));
        let taken = Arc::new(Mutex::new(vec![]));
        let (seen, got) = (Arc::clone(&told), Arc::clone(&taken));
        let worker = Worker::spawn("test", move |stop| {
            let notify: Notify = Arc::new(move |state| seen.lock().unwrap().push(state));
            let silent = || Next::Silent(SpecError::Fps { fps: 0 }.into());
            let mut scripts = vec![
                vec![Next::Ready(1), Next::Ready(2), silent(), silent(), Next::Ready(3)],
                vec![Next::NotYet],
            ];
            run(
                stop,
                &notify,
                || Ok(Script(scripts.remove(0))),
                |frame| got.lock().unwrap().push(frame),
            );
        });
        while told.lock().unwrap().len() < 5 {
            thread::yield_now();
        }
        drop(worker);
        let states: Vec<_> = told
            .lock()
            .unwrap()
            .iter()
            .map(|state| match state {
                SourceState::Idle => "idle".to_owned(),
                SourceState::Opening => "opening".to_owned(),
                SourceState::Running => "running".to_owned(),
                SourceState::Failed { message } => message[..8].to_owned(),
            })
            .collect();
        assert_eq!(states, ["opening", "running", "0 pictur", "running", "a source"]);
        assert_eq!(*taken.lock().unwrap(), [1, 2, 3]);
    }
}
