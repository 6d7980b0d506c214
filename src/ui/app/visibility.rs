//! Which remote and local media the window needs now.

use std::collections::BTreeSet;

use crate::{
    engine::VideoRef,
    model::{DeviceKind, DeviceState, Media, MediaTime, ParticipantState, Snapshot},
    ui::{media_feeds::VisibleMedia, remote_tiles},
};

/// The videos that are visible and the streams whose audio level is shown. The local video is not
/// taken while the camera is muted, unless the camera menu previews it.
pub(super) fn visible_media(
    snapshot: &Snapshot,
    visible: &BTreeSet<VideoRef>,
    menu: Option<DeviceKind>,
) -> VisibleMedia {
    let mut media = VisibleMedia {
        microphone: menu == Some(DeviceKind::MICROPHONE),
        ..VisibleMedia::default()
    };
    let shows_own_video = visible.contains(&VideoRef::Local) && snapshot.enabled.sources.camera;
    if shows_own_video || menu == Some(DeviceKind::CAMERA) {
        media.video.insert(VideoRef::Local);
    }
    if snapshot.devices.sources.microphone == DeviceState::Running {
        media.levels.insert(VideoRef::Local);
    }
    for tile in remote_tiles::all(snapshot, MediaTime::default()) {
        if !visible.contains(&tile.source) {
            continue;
        }
        if tile.has_video {
            media.video.insert(tile.source);
        }
        let audible = tile.kind.media.has(Media::Audio) && !tile.muted;
        if audible && tile.state == ParticipantState::Live {
            media.levels.insert(tile.source);
        }
    }
    media
}
