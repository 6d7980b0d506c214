//! The two panels of streams: ours, and everybody else's.

use std::collections::BTreeSet;

use eframe::egui::{self, Align, Color32, Label, Layout, Rect, RichText, ScrollArea, Ui, Vec2};

use super::{
    call_bar,
    devices::DeviceKind,
    faces::{self, Face, Missing},
    focus,
    icons::{Icon, Mark, icon_button},
    lane,
    pictures::Pictures,
    scene::Scene,
    sessions::two_ended,
    theme::{GRID, INK, LARGE, Palette},
    tile::{self, Tile},
    want::Want,
    words,
};
use crate::{
    engine::Picture,
    model::{
        Media, MediaTime, ParticipantState, Role, SessionKind, SessionState, SessionStatus,
        Snapshot, SourceState,
    },
};

/// The narrowest tile, on which a name can be read; with more people the panel scrolls.
const LEAST_WIDTH: f32 = 132.0;

/// After so many seconds a device that opens is worth words and a way out.
const SLOW: f64 = 0.7;

/// Tiles may be so much of the greatest width there could be if their rows are full then.
const FULLER: f32 = 0.9;

/// The pictures' proportions, unless one says otherwise.
const ASPECT: f32 = 16.0 / 9.0;

/// The panels of streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// What was clicked to be large.
    pub(crate) pinned: Option<Picture>,
    /// The remote streams have the window for themselves.
    pub(crate) full_screen: bool,
    /// What can be seen now of all that is drawn.
    pub(crate) looked_at: BTreeSet<Picture>,
    /// Whose picture has stopped.
    stopped: BTreeSet<Picture>,
    /// Since when devices open, in seconds of the window's clock.
    opening: [Option<f64>; DeviceKind::ALL.len()],
}

impl Streams {
    /// Draws our own picture and what is wrong with our devices.
    pub(crate) fn local(
        &mut self,
        ui: &mut Ui,
        scene: Scene<'_>,
        pictures: &Pictures,
    ) -> Option<Want> {
        let snapshot = scene.snapshot;
        let mut want = None;
        two_ended(ui, |ui| heading(ui, "You", "Local Media Streams"), |_| {});
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            let space = ui.available_size();
            let width = space.x.min((space.y - 36.0).max(90.0) * ASPECT);
            let (rect, _) =
                ui.allocate_exact_size(Vec2::new(width, width / ASPECT), egui::Sense::hover());
            let camera_failed = matches!(snapshot.camera, SourceState::Failed { .. });
            let note = local_note(scene);
            self.look(ui, rect, Picture::Local);
            let tile = Tile {
                picture: Picture::Local,
                label: match &note {
                    Some(note) => format!("Your picture: {note}"),
                    None => "Your picture".to_owned(),
                },
                name: "You",
                lane: None,
                video: !camera_failed && snapshot.gates.camera,
                mirrored: scene.settings.mirrors(),
                muted: !snapshot.gates.microphone,
                camera_off: !snapshot.gates.camera,
                note: note.as_deref(),
                is_lost: false,
                pinned: None,
            };
            tile.ui(ui, rect, pictures);
            want = want.take().or(self.troubles(ui, scene));
            if let Some(said) = captures(snapshot) {
                ui.label(RichText::new(said).small().weak());
            }
            focus::follow(ui);
        });
        want
    }

    /// Draws everybody who sends to us.
    pub(crate) fn remote(
        &mut self,
        ui: &mut Ui,
        scene: Scene<'_>,
        pictures: &Pictures,
    ) -> Option<Want> {
        let faces = faces::remote(scene.snapshot, scene.now);
        if !faces.iter().any(|face| Some(face.picture) == self.pinned) {
            self.pinned = None;
        }
        let label = if self.full_screen { "Exit full screen" } else { "Full screen" };
        let (_, screen) = two_ended(
            ui,
            |ui| {
                let counted = |title: &str| match faces.len() {
                    0 => title.to_owned(),
                    count => format!("{title} · {count}"),
                };
                heading(ui, &counted("People"), &counted("Remote Media Streams"))
            },
            |ui| {
                if self.full_screen {
                    // The bar that says so else is not there.
                    call_bar::on_air(ui, scene.snapshot);
                }
                let button = icon_button(ui, Icon::FullScreen, label, Mark::Deed);
                button.clicked().then_some(Want::FullScreen)
            },
        );
        let missing = faces::missing(scene.snapshot, scene.now);
        if faces.is_empty() && missing.is_empty() {
            nobody(ui, scene.snapshot);
            return screen;
        }
        screen.or(self.grid(ui, (faces, missing), (scene, pictures)))
    }

    fn grid(
        &mut self,
        ui: &mut Ui,
        (mut faces, missing): (Vec<Face>, Vec<Missing>),
        (scene, pictures): (Scene<'_>, &Pictures),
    ) -> Option<Want> {
        let large = |face: &Face| match self.pinned {
            Some(pinned) => face.picture == pinned,
            None => face.large,
        };
        faces.sort_by_key(|face| !large(face));
        let first = faces.iter().filter(|face| large(face)).count();
        let counts = Counts { large: first, small: faces.len() - first, chips: missing.len() };
        let bar = ui.spacing().scroll.allocated_width();
        let stage = Stage::of(ui.available_size(), bar, counts);
        let lane = |index: usize| {
            let session = &scene.snapshot.sessions[index];
            let colour = scene.colours.of(&session.session).unwrap_or(INK);
            (colour, session.kind.map_or(Icon::Data, lane::kind_icon))
        };
        let mut want = None;
        ScrollArea::vertical().auto_shrink([false, false]).show(ui, |ui| {
            let size = Vec2::new(ui.available_width(), stage.height);
            let (area, _) = ui.allocate_exact_size(size, egui::Sense::hover());
            for (one, rect) in missing.iter().zip(&stage.chips) {
                let rect = rect.translate(area.min.to_vec2());
                tile::chip(ui, rect, (&one.name, &one.label), lane(one.lane));
            }
            for (face, rect) in faces.iter().zip(stage.tiles) {
                let rect = rect.translate(area.min.to_vec2());
                self.look(ui, rect, face.picture);
                let pinned = self.pinned == Some(face.picture);
                let (colour, _) = lane(face.lane);
                if remote_tile(face, colour, pinned).ui(ui, rect, pictures).clicked() {
                    want = Some(Want::Pin(face.picture));
                }
            }
            focus::follow(ui);
        });
        want
    }
}

impl Streams {
    /// Begins a drawing: nothing is looked at yet.
    pub(crate) fn begin(&mut self) {
        self.looked_at.clear();
    }

    /// The people whose picture has stopped since the last call, and where in the snapshot their
    /// sessions are. Whoever is lost or off is none of them.
    pub(crate) fn newly_stopped(
        &mut self,
        scene: (&Snapshot, f64),
        pictures: &Pictures,
    ) -> Vec<Face> {
        let (snapshot, now) = scene;
        let is_still = |face: &Face| {
            let is_live = face.video && face.state == ParticipantState::Live;
            is_live && pictures.is_still(face.picture, now)
        };
        let faces = faces::remote(snapshot, MediaTime::default()).into_iter().filter(is_still);
        let faces: Vec<_> = faces.collect();
        let stopped = faces.iter().map(|face| face.picture).collect();
        let before = std::mem::replace(&mut self.stopped, stopped);
        faces.into_iter().filter(|face| !before.contains(&face.picture)).collect()
    }

    /// Looks at what is drawn there, if any of it can be seen.
    fn look(&mut self, ui: &Ui, rect: Rect, picture: Picture) {
        if ui.is_rect_visible(rect) {
            self.looked_at.insert(picture);
        }
    }

    /// What does not work here, or not yet: what, why, and the way out.
    fn troubles(&mut self, ui: &mut Ui, scene: Scene<'_>) -> Option<Want> {
        let mut want = None;
        let is_missing = |device: &DeviceKind| {
            *device.state(scene.snapshot) == SourceState::Idle
                && scene.missing[*device as usize]
                && device.chosen(scene.settings).is("default")
        };
        let missing: Vec<_> = DeviceKind::ALL.into_iter().filter(is_missing).collect();
        if !missing.is_empty() {
            warning(ui, &not_found(&missing));
        }
        for device in DeviceKind::ALL {
            let state = device.state(scene.snapshot);
            let is_slow = self.is_slow(ui, device, state);
            if let SourceState::Failed { message } = state {
                warning(ui, &words::sentence(message));
                want = want.or(ways_out(ui, device));
            } else if is_slow {
                ui.horizontal_wrapped(|ui| {
                    let text = words::starting(&device.called(scene.settings));
                    ui.label(RichText::new(text).small());
                    let label = format!("Go on without a {}", device.name());
                    if ui.button(label).clicked() {
                        want = Some(Want::Use(device, "none".into()));
                    }
                });
            }
        }
        want
    }

    /// Whether a device takes so long to open that a person wants to know.
    fn is_slow(&mut self, ui: &Ui, device: DeviceKind, state: &SourceState) -> bool {
        let since = &mut self.opening[device as usize];
        if *state != SourceState::Opening {
            *since = None;
            return false;
        }
        let now = ui.input(|input| input.time);
        let left = *since.get_or_insert(now) + SLOW - now;
        if left > 0.0 {
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(left));
        }
        left <= 0.0
    }
}

/// A heading; `name` is what screen readers call it.
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

/// The devices that the system does not have, in one sentence, and what works without them.
fn not_found(missing: &[DeviceKind]) -> String {
    let names: Vec<_> = missing.iter().map(|device| device.name()).collect();
    let names = match &names[..] {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        names => names.concat(),
    };
    let without = match missing {
        [DeviceKind::Speaker] => "You can join, but you will hear nothing.",
        [DeviceKind::Camera] => "You can join without one.",
        _ => "You can join to watch and listen.",
    };
    format!("No {names} found. {without}")
}

/// What works without the device, one click away.
fn ways_out(ui: &mut Ui, device: DeviceKind) -> Option<Want> {
    let label = format!("Go on without a {}", device.name());
    ui.button(label).clicked().then(|| Want::Use(device, "none".into()))
}

fn remote_tile(face: &Face, colour: Color32, pinned: bool) -> Tile<'_> {
    let note = match face.state {
        ParticipantState::Live => None,
        ParticipantState::Connecting
        | ParticipantState::Unreachable
        | ParticipantState::Reconnecting
        | ParticipantState::Gone
        | ParticipantState::Left => Some(face.state_words.as_str()),
    };
    Tile {
        picture: face.picture,
        label: face.label(),
        name: &face.name,
        lane: Some((colour, lane::kind_icon(face.kind))),
        video: face.video,
        mirrored: false,
        muted: face.muted,
        camera_off: face.camera_off,
        note,
        is_lost: face.state == ParticipantState::Reconnecting,
        pinned: Some(pinned),
    }
}

/// How many people are to be shown, and how.
#[derive(Clone, Copy, Debug)]
struct Counts {
    large: usize,
    small: usize,
    /// Those who are lost while their seat is kept.
    chips: usize,
}

/// Where everybody stands, from the top left of the panel, in points.
#[derive(Debug)]
struct Stage {
    /// The large tiles, then the small ones.
    tiles: Vec<Rect>,
    /// The chips, in rows below the tiles.
    chips: Vec<Rect>,
    /// How high all is; more than the panel is scrolled.
    height: f32,
}

impl Stage {
    /// Everybody in a space of that size, of which a scroll bar of that width takes its part only
    /// if there is one.
    fn of(space: Vec2, bar: f32, counts: Counts) -> Self {
        let stage = Self::in_space(space, counts);
        if stage.height <= space.y {
            return stage;
        }
        Self::in_space(Vec2::new(space.x - bar, space.y), counts)
    }

    fn in_space(space: Vec2, Counts { large, small, chips }: Counts) -> Self {
        let pitch = tile::CHIP + Vec2::splat(GRID);
        let columns = ((space.x + GRID) / pitch.x).floor().max(1.0) as usize;
        let foot = chips.div_ceil(columns) as f32 * pitch.y;
        if large + small == 0 {
            return Self { tiles: vec![], chips: chip_rects(chips, columns, 0.0), height: foot };
        }
        let (tiles, height) = arrange(Vec2::new(space.x, space.y - foot), large, small);
        let chips = chip_rects(chips, columns, height + GRID);
        Self { tiles, chips, height: height + foot }
    }
}

/// Chips in rows of so many, from that height on.
fn chip_rects(count: usize, columns: usize, top: f32) -> Vec<Rect> {
    let pitch = tile::CHIP + Vec2::splat(GRID);
    let at = |index: usize| {
        let (row, column) = (index / columns, index % columns);
        egui::pos2(column as f32 * pitch.x, top + row as f32 * pitch.y)
    };
    (0..count).map(|index| Rect::from_min_size(at(index), tile::CHIP)).collect()
}

/// Where the large and then the small tiles go in a space of that size, and how high all is.
fn arrange(space: Vec2, large: usize, small: usize) -> (Vec<Rect>, f32) {
    let origin = egui::Pos2::ZERO;
    let all = Rect::from_min_size(origin, space);
    if large == 0 || small == 0 {
        return grid(all, large.max(small));
    }
    // Two thirds for those who are looked at.
    let line = (space.y * 2.0 / 3.0).round();
    let above = Rect::from_min_max(origin, egui::pos2(space.x, line - GRID / 2.0));
    let (mut rects, height) = grid(above, large);
    let top = height.max(line) + GRID / 2.0;
    let rest = (space.y - top).max(LEAST_WIDTH / ASPECT);
    let below = Rect::from_min_size(egui::pos2(0.0, top), Vec2::new(space.x, rest));
    let (others, height) = grid(below, small);
    rects.extend(others);
    (rects, top + height)
}

/// `count` tiles in as many columns as make them greatest, or nearly so with fuller rows, each row
/// centred; and how high all is.
fn grid(area: Rect, count: usize) -> (Vec<Rect>, f32) {
    let (columns, width) = columns_of(area, count.max(1));
    let (columns, width) = if width >= LEAST_WIDTH {
        (columns, width)
    } else {
        let columns = ((area.width() + GRID) / (LEAST_WIDTH + GRID)).floor().max(1.0);
        (columns as usize, (area.width() - GRID * (columns - 1.0)) / columns)
    };
    let tile = Vec2::new(width.floor(), (width / ASPECT).floor());
    let rows = count.div_ceil(columns);
    let height = rows as f32 * (tile.y + GRID) - GRID;
    let top = area.top() + ((area.height() - height) / 2.0).max(0.0).floor();
    let rects = (0..count).map(|index| {
        let (row, column) = (index / columns, index % columns);
        let in_row = (count - row * columns).min(columns) as f32;
        let row_width = in_row * (tile.x + GRID) - GRID;
        let left = area.left() + ((area.width() - row_width) / 2.0).max(0.0).floor();
        let x = left + column as f32 * (tile.x + GRID);
        Rect::from_min_size(egui::pos2(x, top + row as f32 * (tile.y + GRID)), tile)
    });
    (rects.collect(), height.max(area.height()))
}

/// In how many columns that many tiles stand, and how wide each is.
fn columns_of(area: Rect, count: usize) -> (usize, f32) {
    let width = |columns: usize| {
        let rows = count.div_ceil(columns);
        let across = (area.width() - GRID * (columns - 1) as f32) / columns as f32;
        let down = (area.height() - GRID * (rows - 1) as f32) / rows as f32;
        across.min(down * ASPECT)
    };
    let all = || (1..=count).map(|columns| (columns, width(columns)));
    let greatest = all().map(|(_, width)| width).fold(0.0, f32::max);
    let empty = |columns: usize| count.div_ceil(columns) * columns - count;
    let good = all().filter(|(_, width)| *width >= FULLER * greatest);
    let best = good.min_by(|(one, wide), (other, wider)| {
        empty(*one).cmp(&empty(*other)).then(wider.total_cmp(wide))
    });
    best.unwrap_or((1, area.width()))
}

fn local_note(scene: Scene<'_>) -> Option<String> {
    let note = match &scene.snapshot.camera {
        _ if !scene.snapshot.gates.camera => "Camera off",
        _ if scene.settings.camera.is("none") => "No camera chosen",
        SourceState::Idle | SourceState::Opening => {
            return Some(words::starting(&DeviceKind::Camera.called(scene.settings)));
        }
        SourceState::Failed { .. } => "No camera",
        SourceState::Running => return None,
    };
    Some(note.to_owned())
}

/// Whether a session of that kind has sound or pictures.
const fn has_streams(kind: SessionKind) -> bool {
    kind.media.has(Media::Audio) || kind.media.has(Media::Video)
}

/// How many sessions take what is captured: "Sending to 5 sessions", and what else is true.
fn captures(snapshot: &Snapshot) -> Option<String> {
    let sending = || {
        snapshot.sessions.iter().filter(|session| {
            let sends = session
                .kind
                .is_some_and(|kind| has_streams(kind) && kind.direction(session.role).sends());
            sends && !words::is_over(&session.state)
        })
    };
    let taking = sending().filter(|session| session.heard || session.seen).count();
    let is_anybody_there = sending().any(|session| words::present(session) > 0);
    let said = match (sending().count(), taking) {
        (0, _) if snapshot.camera != SourceState::Running => return None,
        (0, _) => "Only you see this".to_owned(),
        (_, 0) if is_anybody_there => "Not sending".to_owned(),
        (_, 0) => "Ready, nobody is here yet".to_owned(),
        (1, 1) => "Sending to 1 session".to_owned(),
        (count, taking) if count == taking => format!("Sending to {count} sessions"),
        (count, taking) => format!("Sending to {taking} of {count} sessions"),
    };
    Some(said)
}

fn nobody(ui: &mut Ui, snapshot: &Snapshot) {
    let open = || snapshot.sessions.iter().filter(|session| !words::is_over(&session.state));
    let only_data = |session: &SessionStatus| session.kind.is_some_and(|kind| !has_streams(kind));
    let in_chats = open().next().is_some() && open().all(only_data);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_never_overlap_nor_leave_the_panels_width() {
        for (width, height) in [(700.0, 640.0), (500.0, 280.0), (200.0, 900.0), (90.0, 40.0)] {
            for (large, small) in [(0, 1), (0, 5), (0, 25), (1, 0), (1, 24), (2, 3), (3, 9)] {
                let (rects, all) = arrange(Vec2::new(width, height), large, small);
                assert_eq!(rects.len(), large + small);
                for (index, rect) in rects.iter().enumerate() {
                    assert!(rect.left() >= 0.0 && rect.right() <= width + 0.01, "{rect:?}");
                    assert!(rect.top() >= 0.0 && rect.bottom() <= all + 0.01, "{rect:?} in {all}");
                    let clear = |other: &Rect| !rect.shrink(0.5).intersects(*other);
                    assert!(rects[index + 1..].iter().all(clear), "{rects:?}");
                }
            }
        }
    }

    #[test]
    fn nine_tiles_stand_in_three_full_rows_where_that_costs_little() {
        let (rects, _) = arrange(Vec2::new(672.0, 684.0), 0, 9);
        let mut rows: Vec<_> = rects.iter().map(|rect| rect.top() as i32).collect();
        rows.dedup();
        assert_eq!(rows.len(), 3, "{rects:?}");
    }

    #[test]
    fn a_pinned_tile_is_the_greatest() {
        let (rects, _) = arrange(Vec2::new(700.0, 600.0), 1, 8);
        assert!(rects[1..].iter().all(|rect| rect.area() < rects[0].area() / 2.0));
    }

    /// The panel of people in a window of each size, with the chat open and closed, as the layout
    /// leaves it.
    const PANELS: [(&str, f32, f32); 5] = [
        ("640x480", 316.0, 174.0),
        ("800x600", 476.0, 294.0),
        ("1280x800", 664.0, 672.0),
        ("1280x800 with the chat", 352.0, 672.0),
        ("1920x1080", 1304.0, 952.0),
    ];

    #[test]
    fn no_tile_is_cut_by_the_scroll_bar_and_on_each_a_name_can_be_read() {
        let bar = 6.0;
        for (size, width, height) in PANELS {
            for people in [1, 2, 3, 4, 6, 9, 16, 24, 100] {
                for chips in [0, 1, 5] {
                    let counts = Counts { large: 0, small: people, chips };
                    let stage = Stage::of(Vec2::new(width, height), bar, counts);
                    let what = format!("{people} people and {chips} chips in {size}: {stage:?}");
                    let scrolls = stage.height > height;
                    let right = if scrolls { width - bar } else { width };
                    assert_eq!((stage.tiles.len(), stage.chips.len()), (people, chips), "{what}");
                    for rect in stage.tiles.iter().chain(&stage.chips) {
                        assert!(rect.left() >= 0.0 && rect.right() <= right + 0.01, "{what}");
                        assert!(rect.bottom() <= stage.height + 0.01, "{what}");
                        assert!(rect.width() >= LEAST_WIDTH - 1.0, "{what}");
                    }
                    let lowest = stage.tiles.iter().map(|rect| rect.bottom()).fold(0.0, f32::max);
                    assert!(stage.chips.iter().all(|chip| chip.top() >= lowest), "{what}");
                }
            }
        }
    }

    #[test]
    fn people_have_the_numbers_of_the_design_in_each_window() {
        let columns = |width: f32, height: f32, people: usize| {
            let counts = Counts { large: 0, small: people, chips: 0 };
            let stage = Stage::of(Vec2::new(width, height), 6.0, counts);
            let top = stage.tiles[0].top();
            stage.tiles.iter().filter(|rect| rect.top() == top).count()
        };
        for ((size, width, height), wanted) in PANELS.into_iter().zip([
            [1, 2, 2, 2],
            [1, 2, 3, 3],
            [1, 2, 3, 4],
            [1, 1, 2, 2],
            [1, 2, 3, 4],
        ]) {
            assert_eq!(
                [1, 4, 9, 24].map(|people| columns(width, height, people)),
                wanted,
                "{size}"
            );
        }
    }

    #[test]
    fn those_who_are_lost_alone_stand_at_the_top() {
        let counts = Counts { large: 0, small: 0, chips: 3 };
        let stage = Stage::of(Vec2::new(300.0, 200.0), 6.0, counts);
        assert_eq!(stage.chips[0].min, egui::Pos2::ZERO);
        assert_eq!(stage.chips[2].min, egui::pos2(0.0, tile::CHIP.y + GRID));
    }
}
