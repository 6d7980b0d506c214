//! The two stream panels: the local one and the remote one.

use std::collections::BTreeSet;

use eframe::egui::{self, Align, Color32, Label, Layout, Rect, RichText, ScrollArea, Ui, Vec2};

use super::{
    action::Action,
    call_bar,
    devices::{self, device_kinds},
    focus,
    icons::{Icon, IconState, icon_button},
    labels,
    media_feeds::MediaFeeds,
    remote_tiles::{self, DisconnectedParticipant, RemoteTile},
    session_card,
    sessions::split_row,
    theme::{LARGE, OVERLAY_TEXT, Palette},
    tile::{self, Tile},
    tile_layout::{ASPECT, TileCounts, TileLayout},
    view_state::ViewState,
};
use crate::{
    engine::TrackRef,
    model::{
        CallQuality, DeviceKind, DeviceState, Media, MediaTime, ParticipantState, PerDevice,
        QualityLevel, Role, SessionKind, SessionState, SessionStatus, Snapshot,
    },
};

/// Seconds after which a device that is still opening gets a text and a way out.
const SLOW_OPEN_SECONDS: f64 = 0.7;

/// The stream panels.
#[derive(Debug, Default)]
pub(crate) struct StreamPanels {
    /// The source whose tile is pinned, and therefore large.
    pub(crate) pinned: Option<TrackRef>,
    /// Whether the remote streams fill the window.
    pub(crate) full_screen: bool,
    /// The sources whose tiles are visible in this frame.
    pub(crate) visible: BTreeSet<TrackRef>,
    /// The sources whose video is frozen.
    frozen: BTreeSet<TrackRef>,
    /// When each kind of device started to open, in seconds of egui's clock.
    opening_since: PerDevice<Option<f64>>,
}

impl StreamPanels {
    /// Draws the local video and the problems of the devices.
    pub(crate) fn draw_local(
        &mut self,
        ui: &mut Ui,
        view: ViewState<'_>,
        feeds: &MediaFeeds,
    ) -> Option<Action> {
        let snapshot = view.snapshot;
        let mut action = None;
        split_row(ui, |ui| heading(ui, "You", "Local Media Streams"), |_| {});
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            let space = ui.available_size();
            let width = space.x.min((space.y - 36.0).max(90.0) * ASPECT);
            let (rect, _) =
                ui.allocate_exact_size(Vec2::new(width, width / ASPECT), egui::Sense::hover());
            let camera_failed =
                matches!(snapshot.devices.sources.camera, DeviceState::Failed { .. });
            let note = own_tile_note(view);
            self.mark_visible(ui, rect, TrackRef::CAMERA);
            let tile = Tile {
                track: TrackRef::CAMERA,
                label: match &note {
                    Some(note) => format!("Your picture: {note}"),
                    None => "Your picture".to_owned(),
                },
                name: "You",
                session_mark: None,
                is_active_speaker: false,
                has_video: !camera_failed && snapshot.enabled.sources.camera,
                mirrored: view.settings.mirrors_preview(),
                muted: !snapshot.enabled.sources.microphone,
                camera_off: !snapshot.enabled.sources.camera,
                note: note.as_deref(),
                poor: None,
                figures: view.tile_figures.own(),
                is_disconnected: false,
                pinned: None,
            };
            tile.ui(ui, rect, feeds);
            action = action.take().or(self.device_problems(ui, view));
            if let Some(text) = sending_status(snapshot) {
                ui.label(RichText::new(text).small().weak());
            }
            focus::scroll_to_focused(ui);
        });
        action
    }

    /// Draws the remote tiles.
    pub(crate) fn draw_remote(
        &mut self,
        ui: &mut Ui,
        view: ViewState<'_>,
        feeds: &MediaFeeds,
    ) -> Option<Action> {
        let tiles = remote_tiles::all(view.snapshot, view.now);
        if !tiles.iter().any(|tile| Some(tile.track) == self.pinned) {
            self.pinned = None;
        }
        let label = if self.full_screen { "Exit full screen" } else { "Full screen" };
        let (_, screen) = split_row(
            ui,
            |ui| {
                let counted = |title: &str| match tiles.len() {
                    0 => title.to_owned(),
                    count => format!("{title} · {count}"),
                };
                heading(ui, &counted("People"), &counted("Remote Media Streams"))
            },
            |ui| {
                if self.full_screen {
                    // The call bar with the on-air badge is not drawn.
                    call_bar::on_air(ui, view.snapshot);
                }
                let button = icon_button(ui, Icon::FullScreen, label, IconState::Plain);
                button.clicked().then_some(Action::ToggleFullScreen)
            },
        );
        let missing = remote_tiles::disconnected(view.snapshot, view.now);
        if tiles.is_empty() && missing.is_empty() {
            empty_panel(ui, view.snapshot);
            return screen;
        }
        screen.or(self.draw_tiles(ui, (tiles, missing), (view, feeds)))
    }

    fn draw_tiles(
        &mut self,
        ui: &mut Ui,
        (mut tiles, missing): (Vec<RemoteTile>, Vec<DisconnectedParticipant>),
        (view, feeds): (ViewState<'_>, &MediaFeeds),
    ) -> Option<Action> {
        let large = |tile: &RemoteTile| match self.pinned {
            Some(pinned) => tile.track == pinned,
            None => tile.large,
        };
        tiles.sort_by_key(|tile| !large(tile));
        let first = tiles.iter().filter(|tile| large(tile)).count();
        let counts = TileCounts { large: first, small: tiles.len() - first, chips: missing.len() };
        let bar = ui.spacing().scroll.allocated_width();
        let layout = TileLayout::fit(ui.available_size(), bar, counts);
        let session_mark = |index: usize| {
            let session = &view.snapshot.sessions[index];
            let colour = view.colours.get(&session.session).unwrap_or(OVERLAY_TEXT);
            (colour, session.kind.map_or(Icon::Data, session_card::kind_icon))
        };
        let mut action = None;
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            let size = Vec2::new(ui.available_width(), layout.height);
            let (area, _) = ui.allocate_exact_size(size, egui::Sense::hover());
            for (one, rect) in missing.iter().zip(&layout.chips) {
                let rect = rect.translate(area.min.to_vec2());
                tile::disconnected_chip(
                    ui,
                    rect,
                    (&one.name, &one.label),
                    session_mark(one.session_index),
                );
            }
            for (tile, rect) in tiles.iter().zip(layout.tiles) {
                let rect = rect.translate(area.min.to_vec2());
                self.mark_visible(ui, rect, tile.track);
                let pinned = self.pinned == Some(tile.track);
                let (colour, _) = session_mark(tile.session_index);
                let session = &view.snapshot.sessions[tile.session_index].session;
                let quality = view.call_quality.of(session, &tile.participant);
                let figures = view.tile_figures.of(session, &tile.participant);
                let tile = Tile { pinned: Some(pinned), figures, ..tile_of(tile, colour, quality) };
                if tile.ui(ui, rect, feeds).clicked() {
                    action = Some(Action::Pin(tile.track));
                }
            }
            focus::scroll_to_focused(ui);
        });
        action
    }
}

impl StreamPanels {
    /// Begins a frame: no tile is visible yet.
    pub(crate) fn begin_frame(&mut self) {
        self.visible.clear();
    }

    /// The tiles whose video has frozen since the last call. Disconnected participants and cameras
    /// that are off do not count.
    pub(crate) fn newly_frozen(
        &mut self,
        (snapshot, now): (&Snapshot, f64),
        feeds: &MediaFeeds,
    ) -> Vec<RemoteTile> {
        let is_frozen = |tile: &RemoteTile| {
            let is_live = tile.has_video && tile.state == ParticipantState::Live;
            is_live && feeds.is_frozen(tile.track, now)
        };
        let tiles = remote_tiles::all(snapshot, MediaTime::default()).into_iter().filter(is_frozen);
        let tiles: Vec<_> = tiles.collect();
        let stopped = tiles.iter().map(|tile| tile.track).collect();
        let before = std::mem::replace(&mut self.frozen, stopped);
        tiles.into_iter().filter(|tile| !before.contains(&tile.track)).collect()
    }

    /// Marks a track as visible if any part of its tile is.
    fn mark_visible(&mut self, ui: &Ui, rect: Rect, track: TrackRef) {
        if ui.is_rect_visible(rect) {
            self.visible.insert(track);
        }
    }

    /// Draws the problems of the devices: what, why, and the way out.
    fn device_problems(&mut self, ui: &mut Ui, view: ViewState<'_>) -> Option<Action> {
        let mut action = None;
        let is_missing = |device: &DeviceKind| {
            view.snapshot.devices[*device] == DeviceState::Idle
                && view.missing_devices[*device]
                && view.settings.device(*device).is_spec("default")
        };
        let missing: Vec<_> = device_kinds().filter(is_missing).collect();
        if !missing.is_empty() {
            warning(ui, &missing_devices_text(&missing));
        }
        for device in device_kinds() {
            let state = &view.snapshot.devices[device];
            let is_slow = self.is_slow(ui, device, state);
            if let DeviceState::Failed { message } = state {
                warning(ui, &labels::sentence(message));
                action = action.or(without_device_button(ui, device));
            } else if is_slow {
                ui.horizontal_wrapped(|ui| {
                    let text = labels::starting(&devices::display_name(device, view.settings));
                    ui.label(RichText::new(text).small());
                    let label = format!("Go on without a {}", device.name());
                    if ui.button(label).clicked() {
                        action = Some(Action::UseDevice(device, "none".into()));
                    }
                });
            }
        }
        action
    }

    /// Whether a device takes so long to open that the user should be told.
    fn is_slow(&mut self, ui: &Ui, device: DeviceKind, state: &DeviceState) -> bool {
        let since = &mut self.opening_since[device];
        if *state != DeviceState::Opening {
            *since = None;
            return false;
        }
        let now = ui.input(|input| input.time);
        let left = *since.get_or_insert(now) + SLOW_OPEN_SECONDS - now;
        if left > 0.0 {
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(left));
        }
        left <= 0.0
    }
}

/// Draws a heading. `name` is its accessibility label.
fn heading(ui: &mut Ui, text: &str, name: &str) -> egui::Response {
    let label = Label::new(RichText::new(text).heading()).truncate();
    let response = ui.add(label);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, name));
    response
}

fn warning(ui: &mut Ui, text: &str) {
    let text = RichText::new(text).small().color(Palette::of(ui).warn);
    ui.add(Label::new(text).wrap());
}

/// One sentence with the missing devices and what works without them.
fn missing_devices_text(missing: &[DeviceKind]) -> String {
    let names: Vec<_> = missing.iter().map(|device| device.name()).collect();
    let names = match &names[..] {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        names => names.concat(),
    };
    let without = match missing {
        [DeviceKind::Speaker] => "You can join, but you will hear nothing.",
        [DeviceKind::CAMERA] => "You can join without one.",
        _ if missing.contains(&DeviceKind::Speaker) => "You can join to watch.",
        _ => "You can join to watch and listen.",
    };
    format!("No {names} found. {without}")
}

/// Draws a button that switches to working without the device.
fn without_device_button(ui: &mut Ui, device: DeviceKind) -> Option<Action> {
    let label = format!("Go on without a {}", device.name());
    ui.button(label).clicked().then(|| Action::UseDevice(device, "none".into()))
}

fn tile_of(tile: &RemoteTile, colour: Color32, quality: CallQuality) -> Tile<'_> {
    let note = match tile.state {
        ParticipantState::Live => None,
        ParticipantState::Connecting
        | ParticipantState::Unreachable
        | ParticipantState::Reconnecting
        | ParticipantState::Gone
        | ParticipantState::Left => Some(tile.state_label.as_str()),
    };
    let poor = (note.is_none() && quality.level == QualityLevel::Poor)
        .then(|| labels::poor_quality(&tile.name, quality));
    Tile {
        track: tile.track,
        label: match &poor {
            Some(sentence) => format!("{}. {sentence}", tile.label()),
            None => tile.label(),
        },
        name: &tile.name,
        session_mark: Some((colour, session_card::kind_icon(tile.kind))),
        is_active_speaker: tile.is_active_speaker,
        has_video: tile.has_video,
        mirrored: false,
        muted: tile.muted,
        camera_off: tile.camera_off,
        note,
        poor,
        figures: &[],
        is_disconnected: tile.state == ParticipantState::Reconnecting,
        pinned: None,
    }
}

fn own_tile_note(view: ViewState<'_>) -> Option<String> {
    let note = match &view.snapshot.devices.sources.camera {
        _ if !view.snapshot.enabled.sources.camera => "Camera off",
        _ if view.settings.camera.is_spec("none") => "No camera chosen",
        DeviceState::Idle | DeviceState::Opening => {
            return Some(labels::starting(&devices::display_name(
                DeviceKind::CAMERA,
                view.settings,
            )));
        }
        DeviceState::Failed { .. } => "No camera",
        DeviceState::Running => return None,
    };
    Some(note.to_owned())
}

/// Whether a kind of session has audio or video.
const fn has_streams(kind: SessionKind) -> bool {
    kind.media.has(Media::Audio) || kind.media.has(Media::Video)
}

/// A text with the number of sessions that the captured media are sent to, such as "Sending to 5
/// sessions".
fn sending_status(snapshot: &Snapshot) -> Option<String> {
    let sending = || {
        snapshot.sessions.iter().filter(|session| {
            let sends = session
                .kind
                .is_some_and(|kind| has_streams(kind) && kind.direction(session.role).sends());
            sends && !labels::is_over(&session.state)
        })
    };
    let taking = sending().filter(|session| session.sending.any()).count();
    let has_participants = sending().any(|session| labels::present_count(session) > 0);
    let text = match (sending().count(), taking) {
        (0, _) if snapshot.devices.sources.camera != DeviceState::Running => return None,
        (0, _) => "Only you see this".to_owned(),
        (_, 0) if has_participants => "Not sending".to_owned(),
        (_, 0) => "Ready, nobody is here yet".to_owned(),
        (1, 1) => "Sending to 1 session".to_owned(),
        (count, taking) if count == taking => format!("Sending to {count} sessions"),
        (count, taking) => format!("Sending to {taking} of {count} sessions"),
    };
    Some(text)
}

fn empty_panel(ui: &mut Ui, snapshot: &Snapshot) {
    let open = || snapshot.sessions.iter().filter(|session| !labels::is_over(&session.state));
    let only_data = |session: &SessionStatus| session.kind.is_some_and(|kind| !has_streams(kind));
    let in_chats = open().next().is_some() && open().all(|session| only_data(session));
    let (title, text) = if in_chats {
        ("Chat only", "There is no sound or video here. Open the chat in the list of sessions.")
    } else if open().any(|session| session.role == Role::Opener) {
        ("Nobody is here yet", "Copy a session's link and send it to people. They show up here.")
    } else if open().any(|session| matches!(session.state, SessionState::HostLost { .. })) {
        ("The host lost connection", "Waiting for them to come back…")
    } else if open().next().is_some() {
        ("Nobody is here", "People show up here when they join.")
    } else {
        ("Paste a link to join, or open a session", "People show up here.")
    };
    let space = ui.available_size();
    ui.allocate_ui_with_layout(space, Layout::top_down(Align::Center), |ui| {
        ui.add_space((space.y / 2.0 - 40.0).max(0.0));
        ui.label(RichText::new(title).font(LARGE));
        ui.label(RichText::new(text).weak());
    });
}
