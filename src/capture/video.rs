//! The one capture of pictures.

use std::path::Path;

use super::{
    Notify, SourceSpec, SpecError,
    busy::Busy,
    camera::{self, Camera},
    detached::Detached,
    pattern::Pattern,
    source::{self, SourceError},
    y4m::Y4mFile,
};
use crate::{
    media::{Device, Stop, Tee, VideoFrame, Worker},
    model::SourceState,
};

/// A source of pictures on its own thread, until dropped.
///
/// Dropping waits at most some 50 ms: a camera whose driver hangs, or a file that
/// does not answer, is left to itself.
#[derive(Debug)]
pub struct VideoCapture {
    _worker: Option<Worker>,
}

impl VideoCapture {
    /// Starts to capture; each picture goes to every slot of `frames`. `who` is written into a
    /// pattern's strip.
    ///
    /// What cannot be used is told to `notify` and tried again every two seconds.
    /// [`SourceSpec::None`] captures nothing and tells nothing.
    pub fn start(spec: &SourceSpec, who: &str, frames: Tee<VideoFrame>, notify: Notify) -> Self {
        if *spec == SourceSpec::None {
            return Self { _worker: None };
        }
        let (spec, who, told) = (spec.clone(), who.to_owned(), notify.clone());
        let worker = Worker::spawn("capture video", move |stop| {
            run(&spec, &who, &frames, &told, stop);
        });
        let worker = worker.inspect_err(|error| {
            let message = format!("no thread is left for the camera: {error}");
            notify(SourceState::Failed { message });
        });
        Self { _worker: worker.ok() }
    }
}

/// The cameras that can be chosen, the one that `default` tries first at the head. Asks the system:
/// not for the window's thread.
pub fn cameras() -> Vec<Device> {
    camera::devices()
}

/// Looks whether a camera is there, or a film can be read, without opening the device. May take
/// a second, and with a file for ever: ask on a thread that nobody waits for.
///
/// # Errors
/// The sentence that capturing would fail with.
pub fn look_for_camera(spec: &SourceSpec) -> Result<(), String> {
    let found = match spec {
        SourceSpec::File(path) => Y4mFile::open(path).map(drop).map_err(SourceError::from),
        SourceSpec::Device(wanted) => camera::look_for(wanted).map_err(SourceError::from),
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Pattern { .. }
        | SourceSpec::Busy { .. }
        | SourceSpec::Tone { .. } => Ok(()),
    };
    found.map_err(|error| error.to_string())
}

fn run(spec: &SourceSpec, who: &str, frames: &Tee<VideoFrame>, notify: &Notify, stop: &Stop) {
    let take = |frame: VideoFrame| frames.put(&frame);
    match spec {
        SourceSpec::Default => source::run(stop, notify, || Ok(Camera::open(None)?), take),
        SourceSpec::Device(wanted) => {
            source::run(stop, notify, || Ok(Camera::open(Some(wanted))?), take);
        }
        SourceSpec::Pattern { size, fps } => {
            source::run(stop, notify, || Ok(Pattern::new(*size, *fps, who)), take);
        }
        SourceSpec::Busy { size, fps } => {
            source::run(stop, notify, || Ok(Busy::new(*size, *fps, who)), take);
        }
        SourceSpec::File(path) => {
            source::run(stop, notify, || Detached::open(path, open_y4m), take);
        }
        SourceSpec::Tone { .. } => {
            let refuse = || Err::<Camera, _>(not_a_camera(spec));
            source::run(stop, notify, refuse, take);
        }
        SourceSpec::None => {}
    }
}

fn open_y4m(path: &Path) -> Result<Y4mFile, SourceError> {
    Ok(Y4mFile::open(path)?)
}

fn not_a_camera(spec: &SourceSpec) -> SourceError {
    SpecError::NoCamera { text: spec.to_string() }.into()
}
