//! The camera source, on top of nokhwa.

use std::{
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
    camera_list::{FoundCamera, Node, group_nodes, node_path},
    pixels::PixelConverter,
    source::{Next, POLL_INTERVAL, Source, SourceError},
};
use crate::{
    devices::{ChoiceError, DeviceRef, choose},
    media::{Slot, Stop, VideoFrame, Worker, now},
    model::MediaTime,
    supervision::catch,
};

/// How long a camera may send no frame before it is reported as stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long opening a busy camera is retried before the failure is reported.
///
/// A program that is closing, or our own previous capture, releases the camera within this time.
const BUSY_RETRY_TIME: Duration = Duration::from_secs(1);

/// Why a camera cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum CameraError {
    #[error("there is no camera; connect one")]
    NoCamera,
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    #[error("camera {name:?} is in use by another program; close it there, or pick another")]
    Busy { name: String },
    #[error(
        "camera {name:?} may not be used: permission denied; allow it in the system's settings \
         (on Linux: add yourself to the group \"video\"), or pick another"
    )]
    PermissionDenied { name: String },
    #[error("camera {name:?} is gone; it is used again when it is plugged in")]
    Disconnected { name: String },
    #[error("camera {name:?} sends no pictures; plug it in again, or pick another")]
    Stalled { name: String },
    #[error("camera {name:?} offers no picture format that can be used; pick another")]
    NoUsableFormat { name: String },
    #[error("camera {name:?} failed: {reason}; pick another")]
    Failed { name: String, reason: String },
    #[error("no thread is left for the camera: {reason}")]
    NoThread { reason: String },
}

/// A camera whose driver runs on its own thread.
///
/// A driver may block forever while it waits for a frame, so the thread is never joined.
pub(super) struct Camera {
    frames: Arc<Slot<VideoFrame>>,
    /// Gets the device's name once a device is open.
    opened_name: mpsc::Receiver<String>,
    name: String,
    /// Gets the error that ended the thread.
    failure: mpsc::Receiver<CameraError>,
    worker: Option<Worker>,
    last_frame_at: MediaTime,
}

impl Camera {
    /// Starts to open the wanted camera, or the first one that works. Does not block.
    pub(super) fn open(wanted: Option<&DeviceRef>) -> Result<Self, CameraError> {
        let frames = Arc::new(Slot::default());
        // The thread sends at most one name and one error.
        let (name_sender, name) = mpsc::sync_channel(1);
        let (failure_sender, end) = mpsc::sync_channel(1);
        let (slot, wanted) = (Arc::clone(&frames), wanted.cloned());
        let known_as = wanted.as_ref().map_or("default", |wanted| wanted.name.as_str()).to_owned();
        let worker = Worker::spawn("camera", move |stop| {
            if let Err(error) = capture_frames(wanted.as_ref(), &slot, &name_sender, stop) {
                failure_sender.try_send(error).ok();
            }
        })
        .map_err(|error| CameraError::NoThread { reason: error.to_string() })?;
        Ok(Self {
            frames,
            opened_name: name,
            name: known_as,
            failure: end,
            worker: Some(worker),
            last_frame_at: now(),
        })
    }
}

impl Source<VideoFrame> for Camera {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        if let Some(frame) = self.frames.wait(POLL_INTERVAL) {
            self.last_frame_at = now();
            return Ok(Next::Ready(frame));
        }
        if let Ok(name) = self.opened_name.try_recv() {
            self.name = name;
        }
        match self.failure.try_recv() {
            Ok(error) => return Err(error.into()),
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => {
                let reason = "its driver stopped".to_owned();
                return Err(CameraError::Failed { name: self.name.clone(), reason }.into());
            }
        }
        if now().since(self.last_frame_at) < STALL_TIMEOUT {
            return Ok(Next::NotYet);
        }
        // The camera is not closed: its driver's thread still holds it, and the driver reports an
        // unplugged camera by an error.
        Ok(Next::Stalled(CameraError::Stalled { name: self.name.clone() }.into()))
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.abandon();
        }
    }
}

/// The cameras that can be chosen, the default one first.
pub(super) fn devices() -> Vec<crate::devices::Device> {
    let cameras = catch_driver_panic("camera", find_cameras).unwrap_or_default();
    cameras.into_iter().map(|camera| camera.device).collect()
}

/// Checks that the wanted camera is present.
pub(super) fn check_present(wanted: &DeviceRef) -> Result<(), CameraError> {
    catch_driver_panic(&wanted.name, || candidate_nodes(&find_cameras()?, Some(wanted))).map(drop)
}

/// Opens the camera and puts its frames into the slot until `stop` is set.
fn capture_frames(
    wanted: Option<&DeviceRef>,
    slot: &Slot<VideoFrame>,
    name_sender: &mpsc::SyncSender<String>,
    stop: &Stop,
) -> Result<(), CameraError> {
    let wanted_name = wanted.map_or("default", |wanted| wanted.name.as_str()).to_owned();
    catch_driver_panic(&wanted_name, || {
        request_permission()?;
        let candidates = candidate_nodes(&find_cameras()?, wanted)?;
        let (mut device, name) = open_first_working(&candidates, stop)?;
        name_sender.try_send(name.clone()).ok();
        let mut pixels = PixelConverter::default();
        while !stop.is_set() {
            let buffer = device.frame().map_err(|error| device_error(&name, &error))?;
            // A camera's first frame is often truncated: a frame that cannot be read is skipped.
            match convert(&mut pixels, &buffer) {
                Ok(frame) => slot.put(frame),
                Err(error) => tracing::debug!(%error, "camera frame skipped"),
            }
        }
        Ok(())
    })
}

/// Runs nokhwa code and turns a panic in it into a failure of this camera only.
fn catch_driver_panic<T>(
    name: &str,
    work: impl FnOnce() -> Result<T, CameraError>,
) -> Result<T, CameraError> {
    catch("camera driver", work).unwrap_or_else(|panicked| {
        Err(CameraError::Failed { name: name.to_owned(), reason: panicked.message })
    })
}

/// Asks the user for permission where the system requires it (macOS). Waits one minute at most.
fn request_permission() -> Result<(), CameraError> {
    if !cfg!(target_os = "macos") || nokhwa::nokhwa_check() {
        return Ok(());
    }
    let (sender, answer) = mpsc::sync_channel(1);
    nokhwa::nokhwa_initialize(move |is_granted| {
        sender.try_send(is_granted).ok();
    });
    match answer.recv_timeout(Duration::from_secs(60)) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(CameraError::PermissionDenied { name: "default".to_owned() }),
    }
}

/// All cameras, in the system's order.
fn find_cameras() -> Result<Vec<FoundCamera>, CameraError> {
    let mut nodes = nokhwa::query(ApiBackend::Auto).map_err(|error| CameraError::Failed {
        name: "default".to_owned(),
        reason: error.to_string(),
    })?;
    nodes.sort_by_key(|node| node.index().as_index().unwrap_or(u32::MAX));
    Ok(group_nodes(nodes.into_iter().map(Node::query).collect()))
}

/// The device nodes to try, best first.
///
/// Linux lists several nodes for one camera, and only opening a node shows whether it has video.
fn candidate_nodes(
    cameras: &[FoundCamera],
    wanted: Option<&DeviceRef>,
) -> Result<Vec<CameraInfo>, CameraError> {
    let all = || cameras.iter().flat_map(|camera| &camera.nodes);
    let Some(wanted) = wanted else {
        return if cameras.is_empty() {
            Err(CameraError::NoCamera)
        } else {
            Ok(all().cloned().collect())
        };
    };
    let is_node = |node: &&CameraInfo| {
        let (name, path) = (node.human_name(), node_path(node));
        wanted.name == path || wanted.name == format!("{name} ({path})")
    };
    if wanted.id.is_none()
        && let Some(node) = all().find(is_node)
    {
        return Ok(vec![node.clone()]);
    }
    let devices: Vec<_> = cameras.iter().map(|camera| camera.device.clone()).collect();
    let index = choose(&devices, wanted, "camera")?;
    Ok(cameras[index].nodes.clone())
}

/// Opens the first candidate that has video; if none has, returns the error with the highest
/// priority.
fn open_first_working(
    candidates: &[CameraInfo],
    stop: &Stop,
) -> Result<(Device, String), CameraError> {
    let deadline = now() + BUSY_RETRY_TIME;
    loop {
        let mut worst: Option<CameraError> = None;
        for candidate in candidates {
            match open_node(candidate) {
                Ok(device) => return Ok((device, candidate.human_name())),
                Err(error) => {
                    if worst
                        .as_ref()
                        .is_none_or(|worst| error_priority(&error) > error_priority(worst))
                    {
                        worst = Some(error);
                    }
                }
            }
        }
        match worst {
            Some(CameraError::Busy { .. }) if now() < deadline && !stop.is_set() => {
                thread::sleep(POLL_INTERVAL);
            }
            Some(error) => return Err(error),
            None => return Err(CameraError::NoCamera),
        }
    }
}

/// The priority of an error: higher where the user can do more about it.
fn error_priority(error: &CameraError) -> u8 {
    match error {
        CameraError::Busy { .. } => 4,
        CameraError::PermissionDenied { .. } => 3,
        CameraError::Failed { .. } => 2,
        CameraError::Disconnected { .. } | CameraError::Stalled { .. } => 1,
        CameraError::NoUsableFormat { .. }
        | CameraError::NoCamera
        | CameraError::Choice(_)
        | CameraError::NoThread { .. } => 0,
    }
}

/// Opens a camera in its best format and starts it.
fn open_node(camera: &CameraInfo) -> Result<Device, CameraError> {
    let name = camera.human_name();
    let mut last = CameraError::NoUsableFormat { name: name.clone() };
    for request in format_requests() {
        let wanted = RequestedFormat::with_formats(request, CONVERTIBLE);
        let mut device = match Device::new(camera.index().clone(), wanted) {
            Ok(device) => device,
            Err(error) => {
                tracing::debug!(%error, ?request, "camera format request failed");
                last = device_error(&name, &error);
                if matches!(last, CameraError::NoUsableFormat { .. }) {
                    continue;
                }
                return Err(last);
            }
        };
        let formats = device.compatible_camera_formats().unwrap_or_default();
        if let Some(best) = best_format(&formats)
            && best != device.camera_format()
            && let Err(error) = device.set_camera_requset(exact_request(best))
        {
            // The format that the camera was opened with is good enough.
            tracing::debug!(%error, %best, "camera format not set");
            device.refresh_camera_format().map_err(|error| device_error(&name, &error))?;
        }
        device.open_stream().map_err(|error| device_error(&name, &error))?;
        tracing::info!(format = %device.camera_format(), "camera opened");
        return Ok(device);
    }
    Err(last)
}

fn exact_request(format: CameraFormat) -> RequestedFormat<'static> {
    RequestedFormat::with_formats(RequestedFormatType::Exact(format), CONVERTIBLE)
}

/// The format requests to try, in this order: first any format that can be converted, to list the
/// camera's formats; then common formats, for drivers that cannot list theirs.
fn format_requests() -> impl Iterator<Item = RequestedFormatType> {
    let common = [(1280, 720), (640, 480), (1920, 1080)].into_iter().flat_map(|(width, height)| {
        [FrameFormat::YUYV, FrameFormat::MJPEG, FrameFormat::NV12].map(|format| {
            let format = CameraFormat::new(Resolution::new(width, height), format, 30);
            RequestedFormatType::Exact(format)
        })
    });
    std::iter::once(RequestedFormatType::None).chain(common)
}

/// Maps an error of nokhwa to its cause.
///
/// nokhwa has no error codes: it embeds the operating system's text in its own, so the text is
/// searched.
fn device_error(name: &str, error: &NokhwaError) -> CameraError {
    let (name, text) = (name.to_owned(), error.to_string());
    let contains = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    if contains(&["os error 16)", "busy", "in use", "0xC00D3704"]) {
        CameraError::Busy { name }
    } else if contains(&["os error 13)", "os error 1)", "denied", "0x80070005"]) {
        CameraError::PermissionDenied { name }
    } else if contains(&["os error 19)", "os error 2)", "os error 6)", "No such device"]) {
        CameraError::Disconnected { name }
    } else if contains(&["Fufill", "Rejected", "FrameFormat", "os error 22)", "os error 25)"]) {
        CameraError::NoUsableFormat { name }
    } else {
        CameraError::Failed { name, reason: text }
    }
}

fn convert(
    pixels: &mut PixelConverter,
    buffer: &Buffer,
) -> Result<VideoFrame, super::pixels::PixelError> {
    let resolution = buffer.resolution();
    let size = (resolution.width(), resolution.height());
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = capture_time(buffer.capture_timestamp(), now(), wall);
    pixels.convert(buffer.source_frame_format().into(), size, buffer.buffer(), time)
}

/// The capture time of a frame on the media clock.
///
/// `stamp` is the driver's Unix time of the frame; `now` and `wall` are the current media and Unix
/// time. Returns `now` if the driver gives no stamp or an implausible one.
fn capture_time(stamp: Option<Duration>, now: MediaTime, wall: Duration) -> MediaTime {
    let age = stamp.and_then(|stamp| wall.checked_sub(stamp)).unwrap_or_default();
    if age > MAX_FRAME_AGE {
        return now;
    }
    MediaTime::from_micros(now.as_micros().saturating_sub(age.as_micros() as u64))
}

/// The greatest plausible age of a frame when it arrives: the driver's four buffers at 15 fps.
const MAX_FRAME_AGE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use nokhwa::utils::CameraIndex;

    use super::*;
    use crate::devices::Device;

    #[test]
    fn all_nodes_of_the_named_camera_are_tried_or_those_of_all_cameras() {
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
            let nodes = candidate_nodes(&cameras, wanted.as_ref())?;
            let indices = nodes.iter().map(|node| node.index().as_index().unwrap());
            Ok::<Vec<_>, CameraError>(indices.collect())
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
                "the form that earlier versions listed"
            );
        }
        let error = chosen(typed("Nikon")).unwrap_err().to_string();
        assert!(error.contains("\"HD Webcam Pro\", \"HD Webcam\"; connect it"), "{error}");
        assert_eq!(candidate_nodes(&[], None), Err(CameraError::NoCamera));
    }

    #[test]
    fn nokhwa_errors_are_mapped_to_causes() {
        let cause = |text: &str| device_error("X", &NokhwaError::OpenStreamError(text.to_owned()));
        let name = || "X".to_owned();
        for (text, wanted) in [
            ("Device or resource busy (os error 16)", CameraError::Busy { name: name() }),
            ("Permission denied (os error 13)", CameraError::PermissionDenied { name: name() }),
            ("No such device (os error 19)", CameraError::Disconnected { name: name() }),
            ("Failed to Fufill", CameraError::NoUsableFormat { name: name() }),
        ] {
            assert_eq!(cause(text), wanted, "{text}");
        }
        assert!(matches!(cause("Cosmic ray (os error 133)"), CameraError::Failed { .. }));
    }

    #[test]
    fn a_drivers_timestamp_is_used_only_if_it_is_plausible() {
        let (now, wall) = (MediaTime::from_micros(9_000_000), Duration::from_secs(1_790_000_000));
        let captured = |stamp| capture_time(stamp, now, wall).as_micros();
        assert_eq!(captured(Some(wall - Duration::from_millis(40))), 8_960_000);
        for implausible in [None, Some(Duration::ZERO), Some(wall + Duration::from_secs(9))] {
            assert_eq!(captured(implausible), 9_000_000, "{implausible:?}");
        }
    }

    #[test]
    fn a_panicking_driver_is_a_failure_of_that_camera() {
        let result = catch_driver_panic::<()>("X", || panic!("Device list"));
        let reason = "Device list".to_owned();
        assert_eq!(result, Err(CameraError::Failed { name: "X".to_owned(), reason }));
    }
}
