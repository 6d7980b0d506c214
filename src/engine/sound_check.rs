//! Checks of the user's own sound: records the microphone for three seconds, and plays it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::mpsc, task::AbortHandle, time::sleep};

use super::{event_loop::EngineEvent, local_media::LocalMedia, remote_media::RemoteMedia};
use crate::{
    audio::{fade_ends, test_sound},
    conference::Input,
    media::{AUDIO_RATE, AudioBlock},
    model::{SoundCheck, SoundCheckStage},
};

/// How much is recorded, in samples: three seconds.
const LOOP_SAMPLES: usize = 3 * AUDIO_RATE as usize;

/// The length of the fades of the recording in samples: 10 ms.
const FADE_SAMPLES: usize = AUDIO_RATE as usize / 100;

/// The longest time of a check. A microphone may give nothing, and a speaker may not open.
const LIMIT: Duration = Duration::from_secs(12);

/// Runs one check after another.
#[derive(Debug)]
pub(super) struct SoundChecks {
    events: mpsc::Sender<EngineEvent>,
    /// Ends the check that takes too long.
    limit: Option<AbortHandle>,
}

impl SoundChecks {
    pub(super) const fn new(events: mpsc::Sender<EngineEvent>) -> Self {
        Self { events, limit: None }
    }

    /// Starts a check. Must be called in a Tokio runtime.
    pub(super) fn start(
        &mut self,
        check: SoundCheck,
        (local, remote): (&LocalMedia, &mut RemoteMedia),
    ) {
        let (events, recorder) = (self.events.clone(), local.recorder().clone());
        let limit = async move {
            sleep(LIMIT).await;
            recorder.stop();
            report(&events, None);
        };
        self.stop_limit();
        self.limit = Some(tokio::spawn(limit).abort_handle());
        match check {
            SoundCheck::HearYourself => {
                let events = self.events.clone();
                let on_full = move |samples| {
                    let _ = events.try_send(EngineEvent::Recorded(samples));
                };
                local.recorder().start(Box::new(on_full));
            }
            SoundCheck::TestSound => self.play(test_sound(), remote),
        }
    }

    /// Plays what was recorded.
    pub(super) fn play_back(&mut self, mut samples: Vec<f32>, remote: &mut RemoteMedia) {
        fade_ends(&mut samples, FADE_SAMPLES);
        report(&self.events, Some(SoundCheckStage::PlayingBack));
        self.play(samples, remote);
    }

    fn play(&self, samples: Vec<f32>, remote: &mut RemoteMedia) {
        let (events, limit) = (self.events.clone(), self.limit.clone());
        let on_end = move || {
            limit.iter().for_each(AbortHandle::abort);
            report(&events, None);
        };
        remote.play_clip(samples, Box::new(on_end));
    }

    fn stop_limit(&mut self) {
        if let Some(limit) = self.limit.take() {
            limit.abort();
        }
    }
}

impl Drop for SoundChecks {
    fn drop(&mut self) {
        self.stop_limit();
    }
}

/// Tells the core what the check does. Such messages are rare: the queue is not full.
fn report(events: &mpsc::Sender<EngineEvent>, stage: Option<SoundCheckStage>) {
    let _ = events.try_send(EngineEvent::Core(Input::SoundCheck(stage)));
}

/// Records what the microphone gives after its processing, when it is asked to. Clones share one
/// recording.
#[derive(Clone, Debug, Default)]
pub(super) struct LoopRecorder(Arc<Mutex<Option<Recording>>>);

struct Recording {
    samples: Vec<f32>,
    on_full: OnFull,
}

type OnFull = Box<dyn FnOnce(Vec<f32>) + Send>;

impl LoopRecorder {
    /// Records the next three seconds. `on_full` gets them, on the thread of the microphone.
    pub(super) fn start(&self, on_full: OnFull) {
        *self.lock() = Some(Recording { samples: Vec::with_capacity(LOOP_SAMPLES), on_full });
    }

    /// Records no more.
    pub(super) fn stop(&self) {
        *self.lock() = None;
    }

    /// Takes a block. It is not called on a real-time thread.
    pub(super) fn push(&self, block: &AudioBlock) {
        let mut recording = self.lock();
        let Some(current) = &mut *recording else { return };
        current.samples.extend_from_slice(&block.samples);
        if current.samples.len() >= LOOP_SAMPLES
            && let Some(full) = recording.take()
        {
            (full.on_full)(full.samples);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recording>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} samples)", self.samples.len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::{media::BLOCK_SAMPLES, model::MediaTime};

    #[test]
    fn three_seconds_are_recorded_once_and_only_when_asked() {
        let (recorder, (sender, recorded)) = (LoopRecorder::default(), channel());
        let push = |blocks: usize, value: f32| {
            for _ in 0..blocks {
                let samples = [value; BLOCK_SAMPLES];
                recorder.push(&AudioBlock::mono(MediaTime::default(), samples));
            }
        };
        push(10, 0.1);
        recorder.start(Box::new(move |samples| sender.send(samples).unwrap()));
        push(299, 0.2);
        assert!(recorded.try_recv().is_err());
        push(10, 0.2);
        let samples = recorded.recv().unwrap();
        assert!(samples.len() == LOOP_SAMPLES && samples.iter().all(|sample| *sample == 0.2));
        assert!(recorded.recv().is_err(), "once");
        let (sender, stopped) = channel();
        recorder.start(Box::new(move |samples| sender.send(samples).unwrap()));
        recorder.stop();
        push(400, 0.3);
        assert!(stopped.recv().is_err());
    }
}
