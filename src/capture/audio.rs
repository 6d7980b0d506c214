//! The one capture of sound.

use std::path::Path;

use super::{
    Notify, SourceSpec, SpecError,
    detached::Detached,
    microphone::{Microphone, MicrophoneError},
    source::{self, SourceError},
    tone::Tone,
    wav::WavFile,
};
use crate::{
    media::{
        AudioBlock, Device, SoundEnd, Stop, Worker, find_sound_device, sound_devices, sound_host,
    },
    model::SourceState,
};

/// A source of sound on its own thread, until dropped.
///
/// Dropping waits at most some 50 ms: a microphone whose driver hangs, or a
/// file that does not answer, is left to itself.
#[derive(Debug)]
pub struct AudioCapture {
    _worker: Option<Worker>,
}

impl AudioCapture {
    /// Starts to capture; `sink` gets each block of 10 ms, on the source's thread, which waits
    /// for it: it must take less than a block's time.
    ///
    /// What cannot be used is told to `notify` and tried again every two seconds; meanwhile the
    /// sink gets nothing. [`SourceSpec::None`] captures nothing and tells nothing.
    pub fn start(
        spec: &SourceSpec,
        mut sink: Box<dyn FnMut(&AudioBlock) + Send>,
        notify: Notify,
    ) -> Self {
        if *spec == SourceSpec::None {
            return Self { _worker: None };
        }
        let (spec, told) = (spec.clone(), notify.clone());
        let worker = Worker::spawn("capture sound", move |stop| {
            run(&spec, &mut *sink, &told, stop);
        });
        let worker = worker.inspect_err(|error| {
            let message = format!("no thread is left for the microphone: {error}");
            notify(SourceState::Failed { message });
        });
        Self { _worker: worker.ok() }
    }
}

/// The microphones that can be chosen, the default one first. Asks the sound system: not for the
/// window's thread.
pub fn microphones() -> Vec<Device> {
    sound_devices(SoundEnd::Input)
}

/// Looks whether a microphone is there, or a sound file can be read, without opening the device.
/// May take two seconds, and with a file for ever: ask on a thread that nobody waits for.
///
/// # Errors
/// The sentence that capturing would fail with.
pub fn look_for_microphone(spec: &SourceSpec) -> Result<(), String> {
    let found = match spec {
        SourceSpec::File(path) => WavFile::open(path).map(drop).map_err(SourceError::from),
        SourceSpec::Device(wanted) => {
            find_sound_device(&sound_host(), SoundEnd::Input, Some(wanted))
                .map(drop)
                .map_err(|error| SourceError::from(MicrophoneError::Choice(error)))
        }
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Pattern { .. }
        | SourceSpec::Busy { .. }
        | SourceSpec::Tone { .. } => Ok(()),
    };
    found.map_err(|error| error.to_string())
}

fn run(spec: &SourceSpec, sink: &mut dyn FnMut(&AudioBlock), notify: &Notify, stop: &Stop) {
    let take = |block: AudioBlock| sink(&block);
    match spec {
        SourceSpec::Default => source::run(stop, notify, || Ok(Microphone::open(None)?), take),
        SourceSpec::Device(wanted) => {
            source::run(stop, notify, || Ok(Microphone::open(Some(wanted))?), take);
        }
        SourceSpec::Tone { hz } => source::run(stop, notify, || Ok(Tone::new(*hz)), take),
        SourceSpec::File(path) => {
            source::run(stop, notify, || Detached::open(path, open_wav), take);
        }
        SourceSpec::Pattern { .. } | SourceSpec::Busy { .. } => {
            let refuse = || Err::<Tone, _>(not_a_microphone(spec));
            source::run(stop, notify, refuse, take);
        }
        SourceSpec::None => {}
    }
}

fn open_wav(path: &Path) -> Result<WavFile, SourceError> {
    Ok(WavFile::open(path)?)
}

fn not_a_microphone(spec: &SourceSpec) -> SourceError {
    SpecError::NoMicrophone { text: spec.to_string() }.into()
}
