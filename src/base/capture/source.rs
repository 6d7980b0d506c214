//! The source trait, and the loop that opens a source, runs it and opens it again after a failure.

use std::{sync::Arc, thread, time::Duration};

use super::SpecError;
use crate::{
    files::FileError,
    media::{Stop, now},
    model::{DeviceState, MediaTime},
    supervision::Panicked,
};

/// The callback for state changes of a source: opening, running, failed. Called on the source's
/// thread; it must not block.
pub type Notify = Arc<dyn Fn(DeviceState) + Send + Sync>;

/// A source of `T`: video frames (camera, file, pattern) or audio blocks (microphone, file, tone).
///
/// It is opened, used and dropped on the same thread.
pub(super) trait Source<T> {
    /// Waits for the next frame or block, not much longer than [`POLL_INTERVAL`].
    fn next(&mut self) -> Result<Next<T>, SourceError>;
}

/// The result of waiting for the next frame or block.
#[derive(Debug)]
pub(super) enum Next<T> {
    /// A frame or block.
    Ready(T),
    /// Nothing arrived in time.
    NotYet,
    /// Nothing has arrived for so long that the source has failed; it may recover by itself.
    Stalled(SourceError),
}

/// Why a source cannot be used. The text names the source, the fault and the way out.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// A camera.
    #[error(transparent)]
    Camera(#[from] super::camera::CameraError),
    /// A microphone.
    #[error(transparent)]
    Microphone(#[from] super::microphone::MicrophoneError),
    /// A file, whatever its format.
    #[error(transparent)]
    File(#[from] FileError),
    /// A Y4M video file.
    #[error(transparent)]
    Y4m(#[from] super::y4m::Y4mError),
    /// A WAV audio file.
    #[error(transparent)]
    Wav(#[from] super::wav::WavError),
    /// A spec of the wrong medium; callers refuse it earlier.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

/// The longest wait of a source's thread. It bounds how long dropping a capture takes.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How long after a failure a source is opened again.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Runs a source until `stop` is set: opens it, passes its items to `deliver`, and opens it again
/// [`RETRY_DELAY`] after a failure. Reports each change of state once.
pub(super) fn run<T, S: Source<T>>(
    stop: &Stop,
    notify: &Notify,
    mut open: impl FnMut() -> Result<S, SourceError>,
    mut deliver: impl FnMut(T),
) {
    let mut notifier = StateNotifier { notify, last_state: None };
    notifier.report(DeviceState::Opening);
    while !stop.is_set() {
        let ended =
            open().and_then(|mut source| pump(stop, &mut notifier, &mut source, &mut deliver));
        let Err(error) = ended else { return };
        if stop.is_set() {
            return;
        }
        notifier.report(DeviceState::Failed { message: error.to_string() });
        let retry_at = now() + RETRY_DELAY;
        while !stop.is_set() && now() < retry_at {
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Returns a callback that reports a panic of a source's thread as a failure of the source. The
/// thread's supervisor opens the source again.
pub(super) fn report_panic(notify: &Notify) -> impl FnMut(&Panicked) + Send + use<> {
    let notify = Arc::clone(notify);
    move |panicked| {
        notify(DeviceState::Failed { message: format!("{panicked}; it is opened again") })
    }
}

/// Passes items to `deliver` until `stop` is set or the source fails.
fn pump<T>(
    stop: &Stop,
    notifier: &mut StateNotifier<'_>,
    source: &mut impl Source<T>,
    deliver: &mut impl FnMut(T),
) -> Result<(), SourceError> {
    loop {
        let next = source.next()?;
        if stop.is_set() {
            return Ok(());
        }
        match next {
            Next::Ready(item) => {
                notifier.report(DeviceState::Running);
                deliver(item);
            }
            Next::NotYet => {}
            Next::Stalled(error) => {
                notifier.report(DeviceState::Failed { message: error.to_string() });
            }
        }
    }
}

/// Reports a state only if it differs from the last one.
struct StateNotifier<'a> {
    notify: &'a Notify,
    last_state: Option<DeviceState>,
}

impl StateNotifier<'_> {
    fn report(&mut self, state: DeviceState) {
        if self.last_state.as_ref() != Some(&state) {
            match &state {
                DeviceState::Failed { message } => tracing::warn!(message, "source failed"),
                DeviceState::Idle | DeviceState::Opening | DeviceState::Running => {}
            }
            (self.notify)(state.clone());
            self.last_state = Some(state);
        }
    }
}

/// Schedules frames at an exact average rate: frame `n` is due `n` periods after the first one,
/// however long earlier frames took.
#[derive(Clone, Debug)]
pub(super) struct FrameClock {
    start: MediaTime,
    index: u64,
    /// The number of frames in `seconds` seconds.
    frames: u64,
    seconds: u64,
    /// How late a frame may be; later frames are skipped.
    max_lateness: Duration,
}

impl FrameClock {
    /// A clock for `frames` frames in every `seconds` seconds, the first one due at `start`.
    pub(super) fn new(start: MediaTime, frames: u64, seconds: u64, max_lateness: Duration) -> Self {
        Self { start, index: 0, frames, seconds, max_lateness }
    }

    /// When the next frame is due. Skips the frames that are already too late.
    pub(super) fn due(&mut self, now: MediaTime) -> MediaTime {
        let due = self.time_of(self.index);
        if now.since(due) <= self.max_lateness {
            return due;
        }
        let elapsed = u128::from(now.since(self.start).as_micros() as u64);
        self.index =
            (elapsed * u128::from(self.frames) / (u128::from(self.seconds) * 1_000_000)) as u64;
        self.time_of(self.index)
    }

    /// Proceeds to the next frame.
    pub(super) fn advance(&mut self) {
        self.index += 1;
    }

    fn time_of(&self, index: u64) -> MediaTime {
        let micros = u128::from(index) * u128::from(self.seconds) * 1_000_000;
        self.start + Duration::from_micros((micros / u128::from(self.frames)) as u64)
    }

    /// Sleeps until the next frame is due and returns its time, or `None` if it is not due within
    /// [`POLL_INTERVAL`].
    pub(super) fn wait(&mut self) -> Option<MediaTime> {
        let current = now();
        let due = self.due(current);
        let left = due.since(current);
        if left > POLL_INTERVAL {
            thread::sleep(POLL_INTERVAL);
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
        let mut clock = FrameClock::new(at(7), 30_000, 1001, Duration::from_millis(100));
        for _ in 0..30_000 {
            let due = clock.due(at(0));
            let late = due + Duration::from_millis(90);
            assert_eq!(clock.due(late), due, "a slightly late frame is kept");
            clock.advance();
        }
        assert_eq!(clock.due(at(0)), at(1_001_007));
    }

    #[test]
    fn frames_that_are_too_late_are_skipped_and_the_schedule_stays() {
        let mut clock = FrameClock::new(at(0), 10, 1, Duration::from_millis(150));
        clock.advance();
        assert_eq!(clock.due(at(250)), at(100));
        assert_eq!(clock.due(at(1070)), at(1000));
        clock.advance();
        assert_eq!(clock.due(at(1070)), at(1100));
    }

    /// Returns the given results one by one, then fails.
    struct ScriptedSource(Vec<Next<u32>>);

    impl Source<u32> for ScriptedSource {
        fn next(&mut self) -> Result<Next<u32>, SourceError> {
            if self.0.is_empty() { Err(SpecError::Empty.into()) } else { Ok(self.0.remove(0)) }
        }
    }

    #[test]
    fn a_source_whose_thread_panics_is_reported_and_opened_again() {
        let (sender, states) = std::sync::mpsc::channel();
        let notify: Notify = Arc::new(move |state| drop(sender.send(state)));
        let spec = crate::capture::SourceSpec::Tone { hz: 440.0 };
        let mut blocks = 0;
        let sink = Box::new(move |_: &crate::media::AudioBlock| {
            blocks += 1;
            assert_ne!(blocks, 2, "planted");
        });
        let _capture = crate::capture::AudioCapture::start(
            &spec,
            crate::model::AudioContent::Speech,
            sink,
            notify,
        );
        let next = || states.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!((next(), next()), (DeviceState::Opening, DeviceState::Running));
        let message = "the microphone stopped unexpectedly; it is opened again".to_owned();
        assert_eq!(next(), DeviceState::Failed { message });
        assert_eq!((next(), next()), (DeviceState::Opening, DeviceState::Running));
    }

    #[test]
    fn every_change_of_state_is_reported_once() {
        let reported = Arc::new(Mutex::new(vec![]));
        let delivered = Arc::new(Mutex::new(vec![]));
        let (states, frames) = (Arc::clone(&reported), Arc::clone(&delivered));
        let worker = Worker::spawn("test", move |stop| {
            let notify: Notify = Arc::new(move |state| states.lock().unwrap().push(state));
            let stalled = || Next::Stalled(SpecError::FpsOutOfRange { fps: 0 }.into());
            let mut scripts = vec![
                vec![Next::Ready(1), Next::Ready(2), stalled(), stalled(), Next::Ready(3)],
                vec![Next::NotYet],
            ];
            run(
                stop,
                &notify,
                || Ok(ScriptedSource(scripts.remove(0))),
                |frame| frames.lock().unwrap().push(frame),
            );
        });
        while reported.lock().unwrap().len() < 5 {
            thread::yield_now();
        }
        drop(worker);
        let states: Vec<_> = reported
            .lock()
            .unwrap()
            .iter()
            .map(|state| match state {
                DeviceState::Idle => "idle".to_owned(),
                DeviceState::Opening => "opening".to_owned(),
                DeviceState::Running => "running".to_owned(),
                DeviceState::Failed { message } => message[..8].to_owned(),
            })
            .collect();
        assert_eq!(states, ["opening", "running", "0 pictur", "running", "a source"]);
        assert_eq!(*delivered.lock().unwrap(), [1, 2, 3]);
    }
}
