//! Video capture: runs the one video source on its own thread.

use std::path::Path;

use super::{
    Notify, SourceSpec, SpecError,
    camera::{self, Camera},
    detached::DetachedSource,
    noise_pattern::NoisePattern,
    pattern::Pattern,
    source::{self, SourceError},
    y4m::Y4mFile,
};
use crate::{
    devices::Device,
    media::{Stop, Tee, VideoFrame, Worker},
    model::DeviceState,
};

/// A video source that runs on its own thread until it is dropped.
///
/// Dropping waits about 50 ms at most. It does not wait for a camera driver that hangs or a file
/// that does not respond: their threads end later by themselves.
#[derive(Debug)]
pub struct VideoCapture {
    _worker: Option<Worker>,
}

impl VideoCapture {
    /// Starts the capture; each frame goes to every slot of `frames`. A test pattern carries
    /// `name` in its burnt-in strip.
    ///
    /// A source that fails is reported to `notify` and opened again every two seconds.
    /// [`SourceSpec::None`] captures nothing and reports nothing.
    pub fn start(spec: &SourceSpec, name: &str, frames: Tee<VideoFrame>, notify: Notify) -> Self {
        if *spec == SourceSpec::None {
            return Self { _worker: None };
        }
        let (spec, name, report) = (spec.clone(), name.to_owned(), notify.clone());
        let on_panic = source::report_panic(&notify);
        let work = move |stop: &Stop| run(&spec, &name, &frames, &report, stop);
        let worker = Worker::spawn_supervised("camera", work, on_panic);
        let worker = worker.inspect_err(|error| {
            let message = format!("no thread is left for the camera: {error}");
            notify(DeviceState::Failed { message });
        });
        Self { _worker: worker.ok() }
    }
}

/// The cameras that can be chosen; the first one is the one that `default` tries first.
///
/// Blocks while the operating system answers: do not call it on the window's thread.
pub fn cameras() -> Vec<Device> {
    camera::devices()
}

/// Checks that a camera is present or a video file can be read, without opening the device.
///
/// Takes up to a second for a device and may block forever for a file: call it on a detached
/// thread.
///
/// # Errors
/// The message that the capture would fail with.
pub fn check_camera(spec: &SourceSpec) -> Result<(), String> {
    let checked = match spec {
        SourceSpec::File(path) => Y4mFile::open(path).map(drop).map_err(SourceError::from),
        SourceSpec::Device(wanted) => camera::check_present(wanted).map_err(SourceError::from),
        SourceSpec::Default
        | SourceSpec::None
        | SourceSpec::Pattern { .. }
        | SourceSpec::NoisePattern { .. }
        | SourceSpec::Tone { .. } => Ok(()),
    };
    checked.map_err(|error| error.to_string())
}

fn run(spec: &SourceSpec, name: &str, frames: &Tee<VideoFrame>, notify: &Notify, stop: &Stop) {
    let deliver = |frame: VideoFrame| frames.put(&frame);
    match spec {
        SourceSpec::Default => source::run(stop, notify, || Ok(Camera::open(None)?), deliver),
        SourceSpec::Device(wanted) => {
            source::run(stop, notify, || Ok(Camera::open(Some(wanted))?), deliver);
        }
        SourceSpec::Pattern { size, fps } => {
            source::run(stop, notify, || Ok(Pattern::new(*size, *fps, name)), deliver);
        }
        SourceSpec::NoisePattern { size, fps } => {
            source::run(stop, notify, || Ok(NoisePattern::new(*size, *fps, name)), deliver);
        }
        SourceSpec::File(path) => {
            source::run(stop, notify, || DetachedSource::open(path, open_y4m), deliver);
        }
        SourceSpec::Tone { .. } => {
            let refuse = || Err::<Camera, _>(not_a_camera(spec));
            source::run(stop, notify, refuse, deliver);
        }
        SourceSpec::None => {}
    }
}

fn open_y4m(path: &Path) -> Result<Y4mFile, SourceError> {
    Ok(Y4mFile::open(path)?)
}

fn not_a_camera(spec: &SourceSpec) -> SourceError {
    SpecError::NotACamera { text: spec.to_string() }.into()
}
