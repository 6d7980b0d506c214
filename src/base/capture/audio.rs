//! Audio capture: runs the one audio source on its own thread.

use std::path::Path;

use super::{
    Notify, SourceSpec, SpecError,
    detached::DetachedSource,
    microphone::{Microphone, MicrophoneError},
    source::{self, SourceError},
    tone::Tone,
    wav::WavFile,
};
use crate::{
    devices::{AudioDirection, Device, audio_host, find_audio_device, list_audio_devices},
    media::{AudioBlock, Stop, Worker},
    model::{AudioContent, DeviceState},
};

/// An audio source that runs on its own thread until it is dropped.
///
/// Dropping waits about 50 ms at most. It does not wait for a microphone driver that hangs or a
/// file that does not respond: their threads end later by themselves.
#[derive(Debug)]
pub struct AudioCapture {
    _worker: Option<Worker>,
}

impl AudioCapture {
    /// Starts the capture. Music is captured in stereo if the source has two channels, a voice in mono.
    /// `sink` is called with each block of 10 ms on the source's thread. It blocks that thread, so it must
    /// return in less than 10 ms.
    ///
    /// A source that fails is reported to `notify` and opened again every two seconds; the sink
    /// gets nothing meanwhile. [`SourceSpec::None`] captures nothing and reports nothing.
    pub fn start(
        spec: &SourceSpec,
        content: AudioContent,
        mut sink: Box<dyn FnMut(&AudioBlock) + Send>,
        notify: Notify,
    ) -> Self {
        if *spec == SourceSpec::None {
            return Self { _worker: None };
        }
        let (spec, report) = (spec.clone(), notify.clone());
        let on_panic = source::report_panic(&notify);
        // Two channels of a voice would cost the sound server twice as much.
        let channels = if content == AudioContent::Music { 2 } else { 1 };
        let work = move |stop: &Stop| run((&spec, channels), &mut *sink, &report, stop);
        let worker = Worker::spawn_supervised("microphone", work, on_panic);
        let worker = worker.inspect_err(|error| {
            let message = format!("no thread is left for the microphone: {error}");
            notify(DeviceState::Failed { message });
        });
        Self { _worker: worker.ok() }
    }
}

/// The microphones that can be chosen, the default one first.
///
/// Blocks while the audio system answers: do not call it on the window's thread.
pub fn microphones() -> Vec<Device> {
    list_audio_devices(AudioDirection::Input)
}

/// Checks that a microphone is present or an audio file can be read, without opening the device.
///
/// Takes up to two seconds for a device and may block forever for a file: call it on a detached
/// thread.
///
/// # Errors
/// The message that the capture would fail with.
pub fn check_microphone(spec: &SourceSpec) -> Result<(), String> {
    let checked = match spec {
        SourceSpec::File(path) => WavFile::open(path).map(drop).map_err(SourceError::from),
        SourceSpec::Device(wanted) => {
            find_audio_device(&audio_host(), AudioDirection::Input, Some(wanted))
                .map(drop)
                .map_err(|error| SourceError::from(MicrophoneError::Choice(error)))
        }
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Pattern { .. }
        | SourceSpec::NoisePattern { .. }
        | SourceSpec::Tone { .. } => Ok(()),
    };
    checked.map_err(|error| error.to_string())
}

fn run(
    (spec, channels): (&SourceSpec, u16),
    sink: &mut dyn FnMut(&AudioBlock),
    notify: &Notify,
    stop: &Stop,
) {
    let deliver = |block: AudioBlock| sink(&block);
    match spec {
        SourceSpec::Default => {
            source::run(stop, notify, || Ok(Microphone::open(None, channels)?), deliver);
        }
        SourceSpec::Device(wanted) => {
            let open = || Ok(Microphone::open(Some(wanted), channels)?);
            source::run(stop, notify, open, deliver);
        }
        SourceSpec::Tone { hz } => source::run(stop, notify, || Ok(Tone::new(*hz)), deliver),
        SourceSpec::File(path) => {
            source::run(stop, notify, || DetachedSource::open(path, open_wav), deliver);
        }
        SourceSpec::Pattern { .. } | SourceSpec::NoisePattern { .. } => {
            let refuse = || Err::<Tone, _>(not_a_microphone(spec));
            source::run(stop, notify, refuse, deliver);
        }
        SourceSpec::None => {}
    }
}

fn open_wav(path: &Path) -> Result<WavFile, SourceError> {
    Ok(WavFile::open(path)?)
}

fn not_a_microphone(spec: &SourceSpec) -> SourceError {
    SpecError::NotAMicrophone { text: spec.to_string() }.into()
}
