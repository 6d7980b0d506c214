//! Lists the cameras. Linux has several nodes for one device, and two devices may have one name.

use std::path::{Path, PathBuf};

use nokhwa::utils::{CameraIndex, CameraInfo};

use crate::devices::Device;

/// A camera, and the device nodes that may have its video.
#[derive(Clone, Debug)]
pub(super) struct FoundCamera {
    pub(super) device: Device,
    pub(super) nodes: Vec<CameraInfo>,
}

/// What the operating system reports about one device node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    info: CameraInfo,
    /// The device that the node belongs to, if the system reports it.
    device: Option<PathBuf>,
    /// Names that the system keeps stable, best first: the name of the device itself, then the
    /// name of the port that it is plugged into.
    stable_ids: [Option<String>; 2],
}

impl Node {
    /// Queries the operating system about a node.
    pub(super) fn query(info: CameraInfo) -> Self {
        if !cfg!(target_os = "linux") {
            // macOS and Windows give each camera one node and an id.
            let id = Some(info.misc()).filter(|id| !id.is_empty());
            return Self { info, device: None, stable_ids: [id, None] };
        }
        let path = PathBuf::from(node_path(&info));
        let node = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let class = Path::new("/sys/class/video4linux").join(node.unwrap_or_default());
        let device = class.join("device").canonicalize().ok();
        let stable = ["/dev/v4l/by-id", "/dev/v4l/by-path"].map(|folder| symlink_to(folder, &path));
        Self { info, device, stable_ids: stable }
    }
}

/// Groups nodes into cameras, in the order of the nodes; the first camera is the default one.
pub(super) fn group_nodes(nodes: Vec<Node>) -> Vec<FoundCamera> {
    let mut cameras: Vec<(Node, Vec<CameraInfo>)> = vec![];
    for node in nodes {
        let same = |first: &Node| node.device.is_some() && first.device == node.device;
        match cameras.iter_mut().find(|(first, _)| same(first)) {
            Some((_, nodes)) => nodes.push(node.info),
            None => cameras.push((node.clone(), vec![node.info])),
        }
    }
    let firsts: Vec<_> = cameras.iter().map(|(first, _)| first.clone()).collect();
    let found = cameras.into_iter().enumerate().map(|(index, (first, nodes))| {
        let (id, name) = (id_of(&first, &firsts), first.info.human_name());
        FoundCamera { device: Device { id, name, is_default: index == 0 }, nodes }
    });
    found.collect()
}

/// The path of a camera node: `/dev/video0` on Linux, elsewhere its number or its id.
pub(super) fn node_path(camera: &CameraInfo) -> String {
    match camera.index() {
        CameraIndex::Index(index) if cfg!(target_os = "linux") => format!("/dev/video{index}"),
        CameraIndex::Index(index) => format!("number {index}"),
        CameraIndex::String(text) => text.clone(),
    }
}

/// The id by which a camera is found again.
///
/// The system's name for the device stays the same on another port, but cameras of one model
/// without a serial number share it. All cameras of such a model get the name of their port
/// instead.
fn id_of(camera: &Node, all: &[Node]) -> String {
    let name = camera.info.human_name();
    let [of_device, of_port] = &camera.stable_ids;
    let of_device = of_device.clone().filter(|_| {
        let mut same_model = all.iter().filter(|other| other.info.human_name() == name);
        same_model.all(|other| other.stable_ids[0].is_some())
    });
    of_device.or_else(|| of_port.clone()).unwrap_or_else(|| node_path(&camera.info))
}

/// The symbolic link in a folder that leads to a node; the first by name if there are several.
fn symlink_to(folder: &str, node: &Path) -> Option<String> {
    let node = node.canonicalize().ok()?;
    let links = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut matching: Vec<_> =
        links.filter(|link| link.canonicalize().is_ok_and(|to| to == node)).collect();
    matching.sort();
    matching.first().map(|link| link.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, index: u32, device: &str, stable: [Option<&str>; 2]) -> Node {
        Node {
            info: CameraInfo::new(name, "", "", CameraIndex::Index(index)),
            device: Some(PathBuf::from(device)).filter(|path| !path.as_os_str().is_empty()),
            stable_ids: stable.map(|id| id.map(str::to_owned)),
        }
    }

    fn listed(nodes: Vec<Node>) -> Vec<(String, String, bool, usize)> {
        let found = group_nodes(nodes).into_iter();
        found
            .map(|one| (one.device.name, one.device.id, one.device.is_default, one.nodes.len()))
            .collect()
    }

    #[test]
    fn the_nodes_of_one_device_form_one_camera() {
        let nodes = vec![
            node("HD Webcam", 0, "usb1", [Some("id/hd"), Some("path/1")]),
            node("HD Webcam", 1, "usb1", [Some("id/hd-meta"), Some("path/1-meta")]),
            node("Capture", 2, "usb2", [None, Some("path/2")]),
        ];
        let camera =
            |name: &str, id: &str, default, nodes| (name.into(), id.into(), default, nodes);
        let found = [camera("HD Webcam", "id/hd", true, 2), camera("Capture", "path/2", false, 1)];
        assert_eq!(listed(nodes), found);
    }

    #[test]
    fn two_cameras_of_one_model_have_different_ids() {
        let ids = |nodes| listed(nodes).into_iter().map(|(_, id, ..)| id).collect::<Vec<_>>();
        // Without a serial number both cameras share one link, and only one of them has it.
        let without_serial = vec![
            node("Cam", 0, "usb1", [Some("id/cam"), Some("path/1")]),
            node("Cam", 2, "usb2", [None, Some("path/2")]),
        ];
        assert_eq!(ids(without_serial), ["path/1", "path/2"]);
        let with_serial = vec![
            node("Cam", 0, "usb1", [Some("id/cam-a"), Some("path/1")]),
            node("Cam", 2, "usb2", [Some("id/cam-b"), Some("path/2")]),
        ];
        assert_eq!(ids(with_serial), ["id/cam-a", "id/cam-b"]);
        let without_ids = vec![node("Cam", 0, "", [None, None]), node("Cam", 1, "", [None, None])];
        let found = ids(without_ids);
        assert!(found.len() == 2 && found[0] != found[1], "{found:?}");
    }
}
