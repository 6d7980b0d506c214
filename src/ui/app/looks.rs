//! Which remote and local media the window needs now.

use std::collections::BTreeSet;

use crate::{
    engine::Picture,
    model::{Media, MediaTime, ParticipantState, Snapshot, SourceState},
    ui::{devices::DeviceKind, faces, pictures::Wanted},
};

/// The videos that are visible and the streams whose audio level is shown. The local video is not
/// taken while the camera is muted, unless the camera menu previews it.
pub(super) fn wanted(
    snapshot: &Snapshot,
    visible: &BTreeSet<Picture>,
    menu: Option<DeviceKind>,
) -> Wanted {
    let mut media =
        Wanted { microphone: menu == Some(DeviceKind::Microphone), ..Wanted::default() };
    let shows_own_video = visible.contains(&Picture::Local) && snapshot.gates.camera;
    if shows_own_video || menu == Some(DeviceKind::Camera) {
        media.seen.insert(Picture::Local);
    }
    if snapshot.microphone == SourceState::Running {
        media.heard.insert(Picture::Local);
    }
    for tile in faces::remote(snapshot, MediaTime::default()) {
        if !visible.contains(&tile.picture) {
            continue;
        }
        if tile.video {
            media.seen.insert(tile.picture);
        }
        let audible = tile.kind.media.has(Media::Audio) && !tile.muted;
        if audible && tile.state == ParticipantState::Live {
            media.heard.insert(tile.picture);
        }
    }
    media
}
