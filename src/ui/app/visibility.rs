//! Which remote and local media the window needs now.

use std::{collections::BTreeSet, sync::Arc};

use eframe::egui::Context;

use super::App;
use crate::{
    engine::TrackRef,
    model::{DeviceKind, DeviceState, Media, MediaTime, ParticipantState, Snapshot, Source},
    ui::{media_feeds::VisibleMedia, notices::participants::Change, remote_tiles},
};

impl App {
    /// Shows a notice for each participant whose video has just stopped.
    pub(super) fn notify_frozen_video(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let snapshot = Arc::clone(&self.snapshot);
        for tile in self.stream_panels.newly_frozen((&snapshot, now), &self.feeds) {
            let session = &snapshot.sessions[tile.session_index].session;
            let participant = (tile.participant, tile.name);
            self.notices.participant_toast(
                Change::VideoFrozen,
                participant,
                (&snapshot, session),
                now,
            );
            ctx.request_repaint();
        }
    }
}

/// The videos that are visible and the streams whose audio level is shown. The local video is not
/// taken while the camera is muted, unless the camera menu previews it.
pub(super) fn visible_media(
    snapshot: &Snapshot,
    visible: &BTreeSet<TrackRef>,
    menu: Option<DeviceKind>,
) -> VisibleMedia {
    let mut media = VisibleMedia {
        microphone: menu == Some(DeviceKind::MICROPHONE),
        ..VisibleMedia::default()
    };
    let shows_own_video = visible.contains(&TrackRef::CAMERA) && snapshot.enabled.sources.camera;
    if shows_own_video || menu == Some(DeviceKind::CAMERA) {
        media.video.insert(TrackRef::CAMERA);
    }
    if snapshot.devices.sources.microphone == DeviceState::Running {
        media.levels.insert(TrackRef::MICROPHONE);
    }
    for tile in remote_tiles::all(snapshot, MediaTime::default()) {
        if !visible.contains(&tile.track) {
            continue;
        }
        if tile.has_video {
            media.video.insert(tile.track);
        }
        let audible = tile.kind.media.has(Media::Audio) && !tile.muted;
        if audible && tile.state == ParticipantState::Live {
            media.levels.insert(tile.track.beside(Source::Microphone));
        }
    }
    media
}
