//! The bar at the bottom: what holds for all sessions.

use eframe::egui::{
    self, Align, Color32, Key, Label, Layout, Popup, PopupCloseBehavior, Rect, RichText, Sense,
    Stroke, Ui, Vec2,
};

use super::{
    bindings::Bindable,
    chosen::{Chosen, kind_of, labels},
    devices::{DeviceKind, DeviceLists},
    icons::{Icon, Mark, icon_button, icon_switch},
    pictures::Pictures,
    scene::Scene,
    sessions::{pill, two_ended},
    theme::{CORNER, GRID, ICON_BUTTON, Palette, SMALL, SMALL_CORNER},
    tile::{letterbox, wave},
    want::Want,
    words,
    yuv::Shown,
};
use crate::{
    engine::Picture,
    model::{Command, Gate, Snapshot, SourceState},
};

/// How high the bar is, in points.
pub(crate) const HEIGHT: f32 = 56.0;

/// How wide a menu of devices is, in points.
const MENU: f32 = 280.0;

/// Draws the bar.
pub(crate) fn ui(
    ui: &mut Ui,
    scene: Scene<'_>,
    pictures: &Pictures,
    devices: &mut DeviceLists,
) -> Option<Want> {
    let snapshot = scene.snapshot;
    devices.open = None;
    let switches = |ui: &mut Ui| {
        let mut want = None;
        ui.spacing_mut().item_spacing.x = GRID / 2.0;
        for device in DeviceKind::ALL {
            want = want.take().or(switch(ui, device, scene));
            if device == DeviceKind::Microphone {
                level(ui, pictures.loudness(Picture::Local), snapshot.gates.microphone);
            }
            want = want.or(menu(ui, device, scene, (pictures, &mut *devices)));
            ui.add_space(GRID);
        }
        on_air(ui, snapshot);
        want
    };
    ui.add_space((HEIGHT - ICON_BUTTON) / 2.0);
    let line = |ui: &mut Ui| two_ended(ui, switches, |ui| deeds(ui, scene));
    let (left, right) = ui.add_enabled_ui(!scene.busy, line).inner;
    left.or(right)
}

fn switch(ui: &mut Ui, device: DeviceKind, scene: Scene<'_>) -> Option<Want> {
    let gates = scene.snapshot.gates;
    let (gate, open, icon, name, key) = match device {
        DeviceKind::Microphone => {
            (Gate::Microphone, gates.microphone, Icon::Microphone, "Microphone", Bindable::Mute)
        }
        DeviceKind::Camera => {
            (Gate::Camera, gates.camera, Icon::Camera, "Camera", Bindable::Camera)
        }
        DeviceKind::Speaker => {
            (Gate::Listening, gates.listening, Icon::Speaker, "Sound", Bindable::Deafen)
        }
    };
    let mark = if open { Mark::On } else { Mark::Off };
    let command = Command::SetGate { session: None, gate, open: !open };
    let key = scene.settings.keys.shown(key);
    let label = format!("{name} ({key})");
    let tip = format!("{} everywhere ({key})", words::switch(gate, open));
    icon_switch(ui, icon, (&label, &tip), mark).clicked().then(|| command.into())
}

fn level(ui: &mut Ui, loudness: f32, open: bool) {
    let palette = Palette::of(ui);
    let (rect, _) = ui.allocate_exact_size(Vec2::new(28.0, 18.0), Sense::hover());
    let colour = if open { palette.text } else { palette.muted };
    wave(ui.painter(), rect, loudness, colour);
}

/// The devices of a kind, to choose from.
fn menu(
    ui: &mut Ui,
    device: DeviceKind,
    scene: Scene<'_>,
    (pictures, devices): (&Pictures, &mut DeviceLists),
) -> Option<Want> {
    let label = format!("Choose {}", device.name());
    let button = icon_button(ui, Icon::More, &label, Mark::Deed);
    let chosen = device.chosen(scene.settings);
    // It stays open when something was chosen: what comes of it is shown in it.
    let popup = Popup::menu(&button).close_behavior(PopupCloseBehavior::CloseOnClickOutside);
    let shown = popup.show(|ui| {
        ui.set_width(MENU);
        let mut want = live(ui, device, scene, pictures);
        for (text, spec) in device.choices() {
            let is_chosen = matches!(chosen, Chosen::Spec(_)) && kind_of(spec) == chosen.kind();
            if choice(ui, text, is_chosen).clicked() {
                want = Some(Want::Use(device, (*spec).into()));
            }
        }
        ui.separator();
        want = want.take().or(found(ui, device, chosen, devices));
        if device == DeviceKind::Camera && scene.settings.has_camera() {
            ui.separator();
            want = want.or(mirror(ui, scene.settings.mirror));
        }
        want
    });
    match shown {
        Some(shown) => {
            devices.open = Some(device);
            if ui.input(|input| input.key_pressed(Key::Escape)) {
                // Escape closes the menu, and who was in it goes on where it was opened.
                button.request_focus();
            }
            shown.inner
        }
        None => {
            devices.forget(device);
            None
        }
    }
}

/// How the own picture is shown to oneself.
fn mirror(ui: &mut Ui, mut is_on: bool) -> Option<Want> {
    let switch = ui.checkbox(&mut is_on, "Mirror my picture");
    let switch = switch.on_hover_text("Only you see it mirrored");
    switch.changed().then_some(Want::Mirror(is_on))
}

/// The devices that the system has.
fn found(
    ui: &mut Ui,
    device: DeviceKind,
    chosen: &Chosen,
    devices: &mut DeviceLists,
) -> Option<Want> {
    let Some(found) = devices.known(device, ui.ctx()) else {
        ui.label(RichText::new("Looking for devices…").weak());
        return None;
    };
    if found.is_empty() {
        ui.label(RichText::new(format!("No {} found", device.name())).weak());
    }
    let mut want = None;
    let place = chosen.place_in(found);
    for (index, (one, label)) in found.iter().zip(labels(found)).enumerate() {
        let mut line = choice(ui, &label, place == Some(index));
        if found.iter().filter(|other| other.name == one.name).count() > 1 {
            line = line.on_hover_text(&one.id);
        }
        if line.clicked() {
            want = Some(Want::Use(device, one.into()));
        }
    }
    if let (None, Chosen::Device { name, .. }) = (place, chosen) {
        choice(ui, &format!("{name}: not connected"), true);
    }
    want
}

/// What of the device is seen or heard now, so that the right one can be chosen before anybody
/// hears or sees it; and how it is, with a way out while it opens.
fn live(ui: &mut Ui, device: DeviceKind, scene: Scene<'_>, pictures: &Pictures) -> Option<Want> {
    let state = device.state(scene.snapshot);
    match device {
        DeviceKind::Microphone => wide_level(ui, pictures.loudness(Picture::Local)),
        DeviceKind::Camera => preview(ui, scene, pictures),
        DeviceKind::Speaker => {}
    }
    let words = match state {
        _ if device.chosen(scene.settings).is("none") => format!("No {} chosen", device.name()),
        SourceState::Failed { message } => words::sentence(message),
        SourceState::Opening => words::starting(&device.called(scene.settings)),
        SourceState::Running => match device {
            DeviceKind::Microphone => "Your level".to_owned(),
            DeviceKind::Camera => "What your camera sees".to_owned(),
            DeviceKind::Speaker => "In use".to_owned(),
        },
        SourceState::Idle => "Not in use".to_owned(),
    };
    let palette = Palette::of(ui);
    let is_bad = matches!(state, SourceState::Failed { .. });
    let colour = if is_bad { palette.warn } else { palette.muted };
    // Menus stretch what they hold, and with it the spaces between words.
    let words = Label::new(RichText::new(words).font(SMALL).color(colour)).wrap();
    ui.with_layout(Layout::top_down(Align::Min), |ui| ui.add(words));
    let stop = *state == SourceState::Opening
        && ui
            .button("Cancel")
            .on_hover_text(format!("Go on without a {}", device.name()))
            .clicked();
    ui.separator();
    stop.then(|| Want::Use(device, "none".into()))
}

fn wide_level(ui: &mut Ui, loudness: f32) {
    let palette = Palette::of(ui);
    let size = Vec2::new(ui.available_width(), GRID);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    let percent = f64::from((loudness * 100.0).round());
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::labeled(egui::Role::Meter, true, "Microphone level");
        info.value = Some(percent);
        info
    });
    ui.painter().rect_filled(rect, 4.0, palette.control);
    let lit = Rect::from_min_size(rect.min, Vec2::new(rect.width() * loudness, rect.height()));
    ui.painter().rect_filled(lit, 4.0, palette.accent);
}

fn preview(ui: &mut Ui, scene: Scene<'_>, pictures: &Pictures) {
    let width = ui.available_width();
    let size = Vec2::new(width, (width * 9.0 / 16.0).round());
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Image, true, "What your camera sees")
    });
    ui.painter().rect_filled(rect, CORNER, Palette::of(ui).stage);
    if let Some((frame, number, _)) = pictures.newest(Picture::Local) {
        let inside = letterbox(rect, frame.size);
        let of = (Picture::Local, number);
        let shown = Shown { light: 1.0, mirrored: scene.settings.mirrors() };
        ui.painter().add(pictures.painter().shape(inside, of, frame.clone(), shown));
    }
}

/// A line of a menu, with a dot if it is the chosen one.
fn choice(ui: &mut Ui, text: &str, chosen: bool) -> egui::Response {
    let palette = Palette::of(ui);
    let size = Vec2::new(ui.available_width(), ICON_BUTTON);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    response
        .widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, chosen, text));
    let ground = if response.hovered() { palette.control_hover } else { Color32::TRANSPARENT };
    let ring = if response.has_focus() { Stroke::new(2.0, palette.accent) } else { Stroke::NONE };
    ui.painter().rect(rect, SMALL_CORNER, ground, ring, egui::StrokeKind::Inside);
    if chosen {
        let at = rect.left_center() + Vec2::new(12.0, 0.0);
        ui.painter().circle_filled(at, 3.0, palette.accent);
    }
    // No label, which screen readers would read a second time.
    let cut = Some(egui::TextWrapMode::Truncate);
    let words = egui::WidgetText::from(text);
    let words = words.into_galley(ui, cut, rect.width() - 24.0, egui::TextStyle::Body);
    let at = rect.left_center() + Vec2::new(24.0, -words.size().y / 2.0);
    let is_cut = words.elided;
    ui.painter().galley(at, words, palette.text);
    if is_cut { response.on_hover_text(text) } else { response }
}

/// Where we are heard or seen now, in one mark.
pub(crate) fn on_air(ui: &mut Ui, snapshot: &Snapshot) {
    let palette = Palette::of(ui);
    let count = |heard_or_seen: fn(&crate::model::SessionStatus) -> bool| {
        snapshot.sessions.iter().filter(|session| heard_or_seen(session)).count()
    };
    let heard = count(|session| session.heard);
    let seen = count(|session| session.seen);
    let any = count(|session| session.heard || session.seen);
    if any == 0 {
        return;
    }
    pill(ui, "ON AIR", palette.on_air, palette.on_on_air);
    let text = match (heard, seen) {
        (heard, 0) => format!("Heard in {heard}"),
        (0, seen) => format!("Seen in {seen}"),
        (heard, seen) => format!("Heard in {heard} · seen in {seen}"),
    };
    ui.add(Label::new(RichText::new(text).font(SMALL).color(palette.muted)).truncate());
}

fn deeds(ui: &mut Ui, scene: Scene<'_>) -> Option<Want> {
    let mut want = None;
    let keys = format!("Keyboard shortcuts ({})", scene.settings.keys.shown(Bindable::Help));
    if icon_button(ui, Icon::Help, &keys, Mark::Deed).clicked() {
        want = Some(Want::ShowHelp);
    }
    if icon_button(ui, Icon::Settings, "Settings", Mark::Deed).clicked() {
        want = Some(Want::ShowSettings);
    }
    if !scene.snapshot.sessions.is_empty() && ui.button("Leave all").clicked() {
        want = Some(Want::AskLeaveAll);
    }
    want
}
