//! A camera, by way of nokhwa.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nokhwa::{
    Buffer, Camera as Device, NokhwaError,
    utils::{
        ApiBackend, CameraFormat, CameraInfo, FrameFormat, RequestedFormat, RequestedFormatType,
        Resolution,
    },
};

use super::{
    camera_format::{CONVERTIBLE, best_format},
    camera_list::{FoundCamera, Node, grouped, place},
    pixels::Pixels,
    source::{NAP, Next, Source, SourceError},
};
use crate::{
    media::{ChoiceError, DeviceRef, Slot, Stop, VideoFrame, Worker, choose, now},
    model::MediaTime,
};

/// How long a camera may send nothing before a person is told.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a busy camera is tried again before a person is told: a program that is closing, or
/// our own last capture, lets go within that.
const BUSY: Duration = Duration::from_secs(1);

/// Why a camera cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CameraError {
    #[error("there is no camera; connect one")]
    None,
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("camera {name:?} is in use by another program; close it there, or pick another")]
    Busy { name: String },
    #[error(
        "camera {name:?} may not be used: permission denied; allow it in the system's settings \
         (on Linux: add yourself to the group \"video\"), or pick another"
    )]
    Refused { name: String },
    #[error("camera {name:?} is gone; it is used again when it is plugged in")]
    Gone { name: String },
    #[error("camera {name:?} sends no pictures; plug it in again, or pick another")]
    Silent { name: String },
    #[error("camera {name:?} offers no picture format that can be used; pick another")]
    Format { name: String },
    #[error("camera {name:?} failed: {reason}; pick another")]
    Failed { name: String, reason: String },
    #[error("no thread is left for the camera: {reason}")]
    NoThread { reason: String },
}

/// A camera whose driver runs on a thread of its own: waiting for a picture may take for ever
/// there, so that thread is never waited for.
pub(super) struct Camera {
    frames: Arc<Slot<VideoFrame>>,
    /// Told once the device is chosen.
    name: mpsc::Receiver<String>,
    known_as: String,
    /// Answers when the thread has ended.
    end: mpsc::Receiver<CameraError>,
    worker: Option<Worker>,
    heard: MediaTime,
}

impl Camera {
    /// Starts to open that camera, or the first one that works.
    pub(super) fn open(wanted: Option<&DeviceRef>) -> Result<Self, CameraError> {
        let frames = Arc::new(Slot::default());
        // One name and one end are all that is ever said.
        let (say_name, name) = mpsc::sync_channel(1);
        let (say_end, end) = mpsc::sync_channel(1);
        let (slot, wanted) = (Arc::clone(&frames), wanted.cloned());
        let known_as = wanted.as_ref().map_or("default", |wanted| wanted.name.as_str()).to_owned();
        let worker = Worker::spawn("camera", move |stop| {
            let ended = drive(wanted.as_ref(), &slot, &say_name, stop);
            if let Err(error) = ended {
                say_end.try_send(error).ok();
            }
        })
        .map_err(|error| CameraError::NoThread { reason: error.to_string() })?;
        Ok(Self { frames, name, known_as, end, worker: Some(worker), heard: now() })
    }
}

impl Source<VideoFrame> for Camera {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        if let Some(frame) = self.frames.wait(NAP) {
            self.heard = now();
            return Ok(Next::Ready(frame));
        }
        if let Ok(name) = self.name.try_recv() {
            self.known_as = name;
        }
        match self.end.try_recv() {
            Ok(error) => return Err(error.into()),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => {
                let reason = "its driver stopped".to_owned();
                return Err(CameraError::Failed { name: self.known_as.clone(), reason }.into());
            }
        }
        if now().since(self.heard) < SILENCE {
            return Ok(Next::NotYet);
        }
        // It is not closed: its driver's thread still holds it, and an unplugged one says so.
        Ok(Next::Silent(CameraError::Silent { name: self.known_as.clone() }.into()))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
    }
}

/// The cameras to choose from, the default one first.
pub(super) fn devices() -> Vec<crate::media::Device> {
    let found = guarded("camera", find_cameras).unwrap_or_default();
    found.into_iter().map(|camera| camera.device).collect()
}

/// Looks whether that camera is there.
pub(super) fn look_for(wanted: &DeviceRef) -> Result<(), CameraError> {
    guarded(&wanted.name, || nodes_of(&find_cameras()?, Some(wanted))).map(drop)
}

/// Opens the camera and puts its pictures into the slot until told to stop.
fn drive(
    wanted: Option<&DeviceRef>,
    slot: &Slot<VideoFrame>,
    say_name: &mpsc::SyncSender<String>,
    stop: &Stop,
) -> Result<(), CameraError> {
    let shown = wanted.map_or("default", |wanted| wanted.name.as_str()).to_owned();
    guarded(&shown, || {
        ask_for_permission()?;
        let candidates = nodes_of(&find_cameras()?, wanted)?;
        let (mut device, name) = open_first(&candidates, stop)?;
        say_name.try_send(name.clone()).ok();
        let mut pixels = Pixels::default();
        while !stop.is_set() {
            let buffer = device.frame().map_err(|error| device_error(&name, &error))?;
            // A camera's first picture is often cut short: one that cannot be read is skipped.
            match convert(&mut pixels, &buffer) {
                Ok(frame) => slot.put(frame),
                Err(error) => tracing::debug!(%error, "a camera picture was skipped"),
            }
        }
        Ok(())
    })
}

/// Runs code of the camera library, whose panics are failures of that camera only.
fn guarded<T>(name: &str, work: impl FnOnce() -> Result<T, CameraError>) -> Result<T, CameraError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let reason = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let reason = reason.unwrap_or("its driver crashed").to_owned();
        Err(CameraError::Failed { name: name.to_owned(), reason })
    })
}

/// Asks the person for permission where the system wants that (macOS), for a minute.
fn ask_for_permission() -> Result<(), CameraError> {
    if !cfg!(target_os = "macos") || nokhwa::nokhwa_check() {
        return Ok(());
    }
    let (say, answer) = mpsc::sync_channel(1);
    nokhwa::nokhwa_initialize(move |is_granted| {
        say.try_send(is_granted).ok();
    });
    match answer.recv_timeout(Duration::from_secs(60)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(CameraError::Refused { name: "default".to_owned() }),
    }
}

/// All cameras, in the system's order.
fn find_cameras() -> Result<Vec<FoundCamera>, CameraError> {
    let mut nodes = nokhwa::query(ApiBackend::Auto).map_err(|error| CameraError::Failed {
        name: "default".to_owned(),
        reason: error.to_string(),
    })?;
    nodes.sort_by_key(|node| node.index().as_index().unwrap_or(u32::MAX));
    Ok(grouped(nodes.into_iter().map(Node::of).collect()))
}

/// The nodes to try, best first: of one camera Linux lists several, and only opening tells which
/// one has the pictures.
fn nodes_of(
    cameras: &[FoundCamera],
    wanted: Option<&DeviceRef>,
) -> Result<Vec<CameraInfo>, CameraError> {
    let all = || cameras.iter().flat_map(|camera| &camera.nodes);
    let Some(wanted) = wanted else {
        return if cameras.is_empty() {
            Err(CameraError::None)
        } else {
            Ok(all().cloned().collect())
        };
    };
    let is_node = |node: &&CameraInfo| {
        let (name, place) = (node.human_name(), place(node));
        wanted.name == place || wanted.name == format!("{name} ({place})")
    };
    if wanted.id.is_none()
        && let Some(node) = all().find(is_node)
    {
        return Ok(vec![node.clone()]);
    }
    let devices: Vec<_> = cameras.iter().map(|camera| camera.device.clone()).collect();
    let found = choose(&devices, wanted, "camera")?;
    Ok(cameras[found].nodes.clone())
}

/// Opens the first candidate that gives pictures; else says what is most worth knowing.
fn open_first(candidates: &[CameraInfo], stop: &Stop) -> Result<(Device, String), CameraError> {
    let give_up = now() + BUSY;
    loop {
        let mut worst: Option<CameraError> = None;
        for candidate in candidates {
            match open_one(candidate) {
                Ok(device) => return Ok((device, candidate.human_name())),
                Err(error) => {
                    if worst.as_ref().is_none_or(|worst| weight(&error) > weight(worst)) {
                        worst = Some(error);
                    }
                }
            }
        }
        match worst {
            Some(CameraError::Busy { .. }) if now() < give_up && !stop.is_set() => {
                thread::sleep(NAP);
            }
            Some(error) => return Err(error),
            None => return Err(CameraError::None),
        }
    }
}

/// How much a person can do about it.
fn weight(error: &CameraError) -> u8 {
    match error {
        CameraError::Busy { .. } => 4,
        CameraError::Refused { .. } => 3,
        CameraError::Failed { .. } => 2,
        CameraError::Gone { .. } | CameraError::Silent { .. } => 1,
        CameraError::Format { .. }
        | CameraError::None
        | CameraError::Choice(_)
        | CameraError::NoThread { .. } => 0,
    }
}

/// Opens a camera in its best format and starts it.
fn open_one(camera: &CameraInfo) -> Result<Device, CameraError> {
    let name = camera.human_name();
    let mut last = CameraError::Format { name: name.clone() };
    for request in requests() {
        let wanted = RequestedFormat::with_formats(request, CONVERTIBLE);
        let mut device = match Device::new(camera.index().clone(), wanted) {
            Ok(device) => device,
            Err(error) => {
                tracing::debug!(%error, ?request, "a camera was not opened");
                last = device_error(&name, &error);
                if matches!(last, CameraError::Format { .. }) {
                    continue;
                }
                return Err(last);
            }
        };
        let formats = device.compatible_camera_formats().unwrap_or_default();
        if let Some(best) = best_format(&formats)
            && best != device.camera_format()
            && let Err(error) = device.set_camera_requset(exactly(best))
        {
            // What it was opened with is good enough.
            tracing::debug!(%error, %best, "a camera's format was not set");
            device.refresh_camera_format().map_err(|error| device_error(&name, &error))?;
        }
        device.open_stream().map_err(|error| device_error(&name, &error))?;
        tracing::info!(format = %device.camera_format(), "camera opened");
        return Ok(device);
    }
    Err(last)
}

fn exactly(format: CameraFormat) -> RequestedFormat<'static> {
    RequestedFormat::with_formats(RequestedFormatType::Exact(format), CONVERTIBLE)
}

/// What to ask for, one after the other: any format that can be converted, to see what there is;
/// then, for drivers that cannot list theirs, the usual ones.
fn requests() -> impl Iterator<Item = RequestedFormatType> {
    let usual = [(1280, 720), (640, 480), (1920, 1080)].into_iter().flat_map(|(width, height)| {
        [FrameFormat::YUYV, FrameFormat::MJPEG, FrameFormat::NV12].map(|format| {
            let format = CameraFormat::new(Resolution::new(width, height), format, 30);
            RequestedFormatType::Exact(format)
        })
    });
    std::iter::once(RequestedFormatType::None).chain(usual)
}

/// What the library's words mean. It has no kinds of error, only the system's texts in its own.
fn device_error(name: &str, error: &NokhwaError) -> CameraError {
    let (name, text) = (name.to_owned(), error.to_string());
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["os error 16)", "busy", "in use", "0xC00D3704"]) {
        CameraError::Busy { name }
    } else if says(&["os error 13)", "os error 1)", "denied", "0x80070005"]) {
        CameraError::Refused { name }
    } else if says(&["os error 19)", "os error 2)", "os error 6)", "No such device"]) {
        CameraError::Gone { name }
    } else if says(&["Fufill", "Rejected", "FrameFormat", "os error 22)", "os error 25)"]) {
        CameraError::Format { name }
    } else {
        CameraError::Failed { name, reason: text }
    }
}

fn convert(pixels: &mut Pixels, buffer: &Buffer) -> Result<VideoFrame, super::pixels::PixelError> {
    let resolution = buffer.resolution();
    let size = (resolution.width(), resolution.height());
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = captured_at(buffer.capture_timestamp(), now(), wall);
    pixels.convert(buffer.source_frame_format().into(), size, buffer.buffer(), time)
}

/// The driver's time of a picture (Unix time) on our clock, where it is `now` and `wall`; now, if
/// the driver has none that can be true.
fn captured_at(stamp: Option<Duration>, now: MediaTime, wall: Duration) -> MediaTime {
    let age = stamp.and_then(|stamp| wall.checked_sub(stamp)).unwrap_or_default();
    if age > MAX_AGE {
        return now;
    }
    MediaTime::from_micros(now.as_micros().saturating_sub(age.as_micros() as u64))
}

/// The oldest that a picture can be when it arrives: the driver's four buffers at 15 a second.
const MAX_AGE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use nokhwa::utils::CameraIndex;

    use super::*;
    use crate::media::Device;

    #[test]
    fn all_nodes_of_a_camera_are_tried_and_all_cameras_where_none_is_named() {
        let node =
            |name: &str, index: u32| CameraInfo::new(name, "", "", CameraIndex::Index(index));
        let camera = |name: &str, id: &str, nodes: &[u32]| FoundCamera {
            device: Device { id: id.to_owned(), name: name.to_owned(), is_default: false },
            nodes: nodes.iter().map(|index| node(name, *index)).collect(),
        };
        let cameras = [
            camera("HD Webcam Pro", "usb-1", &[0]),
            camera("HD Webcam", "usb-2", &[2, 3]),
            camera("HD Webcam", "usb-3", &[5]),
        ];
        let chosen = |wanted: Option<DeviceRef>| {
            let nodes = nodes_of(&cameras, wanted.as_ref())?;
            let places = nodes.iter().map(|node| node.index().as_index().unwrap());
            Ok::<Vec<_>, CameraError>(places.collect())
        };
        let typed = |text: &str| Some(DeviceRef::typed(text));
        assert_eq!(chosen(None), Ok(vec![0, 2, 3, 5]));
        assert_eq!(chosen(typed("pro")), Ok(vec![0]));
        assert_eq!(chosen(Some(DeviceRef::from(&cameras[1].device))), Ok(vec![2, 3]));
        assert_eq!(chosen(typed("usb-3")), Ok(vec![5]));
        let several = chosen(typed("HD Webcam")).unwrap_err().to_string();
        let listed = "2 cameras are called \"HD Webcam\"; give the id of one: \"usb-2\", \"usb-3\"";
        assert_eq!(several, listed);
        if cfg!(target_os = "linux") {
            assert_eq!(chosen(typed("/dev/video3")), Ok(vec![3]));
            assert_eq!(
                chosen(typed("HD Webcam (/dev/video5)")),
                Ok(vec![5]),
                "as it was listed once"
            );
        }
        let error = chosen(typed("Nikon")).unwrap_err().to_string();
        assert!(error.contains("\"HD Webcam Pro\", \"HD Webcam\"; connect it"), "{error}");
        assert_eq!(nodes_of(&[], None), Err(CameraError::None));
    }

    #[test]
    fn the_librarys_words_become_causes() {
        let cause = |text: &str| device_error("X", &NokhwaError::OpenStreamError(text.to_owned()));
        let name = || "X".to_owned();
        for (text, wanted) in [
            ("Device or resource busy (os error 16)", CameraError::Busy { name: name() }),
            ("Permission denied (os error 13)", CameraError::Refused { name: name() }),
            ("No such device (os error 19)", CameraError::Gone { name: name() }),
            ("Failed to Fufill", CameraError::Format { name: name() }),
        ] {
            assert_eq!(cause(text), wanted, "{text}");
        }
        assert!(matches!(cause("Cosmic ray (os error 133)"), CameraError::Failed { .. }));
    }

    #[test]
    fn a_drivers_time_is_believed_if_it_can_be_true() {
        let (now, wall) = (MediaTime::from_micros(9_000_000), Duration::from_secs(1_790_000_000));
        let captured = |stamp| captured_at(stamp, now, wall).as_micros();
        assert_eq!(captured(Some(wall - Duration::from_millis(40))), 8_960_000);
        for impossible in [None, Some(Duration::ZERO), Some(wall + Duration::from_secs(9))] {
            assert_eq!(captured(impossible), 9_000_000, "{impossible:?}");
        }
    }

    #[test]
    fn a_panicking_driver_is_a_failure_of_that_camera() {
        let made = guarded::<()>("X", || panic!("Device list"));
        let reason = "Device list".to_owned();
        assert_eq!(made, Err(CameraError::Failed { name: "X".to_owned(), reason }));
    }
}
