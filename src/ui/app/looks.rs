//! What the window looks at and listens to, of all that there is.

use std::collections::BTreeSet;

use crate::{
    engine::Picture,
    model::{Media, MediaTime, ParticipantState, Snapshot, SourceState},
    ui::{devices::DeviceKind, faces, pictures::Wanted},
};

/// What of all that can be seen is to be looked at, and whose level is to be read. Of ourselves
/// nothing is taken while our camera is off, unless its menu shows what it sees.
pub(super) fn wanted(
    snapshot: &Snapshot,
    looked_at: &BTreeSet<Picture>,
    menu: Option<DeviceKind>,
) -> Wanted {
    let mut wanted =
        Wanted { microphone: menu == Some(DeviceKind::Microphone), ..Wanted::default() };
    let own = looked_at.contains(&Picture::Local) && snapshot.gates.camera;
    if own || menu == Some(DeviceKind::Camera) {
        wanted.seen.insert(Picture::Local);
    }
    if snapshot.microphone == SourceState::Running {
        wanted.heard.insert(Picture::Local);
    }
    for face in faces::remote(snapshot, MediaTime::default()) {
        if !looked_at.contains(&face.picture) {
            continue;
        }
        if face.video {
            wanted.seen.insert(face.picture);
        }
        let audible = face.kind.media.has(Media::Audio) && !face.muted;
        if audible && face.state == ParticipantState::Live {
            wanted.heard.insert(face.picture);
        }
    }
    wanted
}
