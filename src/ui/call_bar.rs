//! The bar at the bottom: what holds for all sessions.

use eframe::egui::{self, Button, Label, Popup, RichText, Sense, Ui, Vec2};

use super::{
    devices::{DeviceKind, DeviceLists},
    icons::{Icon, Mark, icon_button},
    pictures::Pictures,
    sessions::{pill, two_ended},
    settings::Settings,
    theme::{GRID, Palette, SMALL},
    tile::bars,
    want::Want,
};
use crate::{
    engine::Picture,
    model::{Command, Gate, Snapshot},
};

/// How high the bar is, in points.
pub(crate) const HEIGHT: f32 = 56.0;

/// How wide a menu of devices is, in points.
const MENU: f32 = 280.0;

/// Draws the bar. `busy`: the engine's queue is full, so nothing can be asked for now.
pub(crate) fn ui(
    ui: &mut Ui,
    (snapshot, busy): (&Snapshot, bool),
    pictures: &Pictures,
    (settings, devices): (&Settings, &mut DeviceLists),
) -> Option<Want> {
    let (right, left) = ui
        .add_enabled_ui(!busy, |ui| {
            two_ended(
                ui,
                |ui| deeds(ui, snapshot),
                |ui| {
                    let mut want = None;
                    ui.spacing_mut().item_spacing.x = GRID / 2.0;
                    for device in DeviceKind::ALL {
                        want = want.take().or(switch(ui, device, snapshot));
                        if device == DeviceKind::Microphone {
                            level(ui, pictures.loudness(Picture::Local), snapshot.gates.microphone);
                        }
                        want = want.or(menu(ui, device, settings, devices));
                        ui.add_space(GRID);
                    }
                    on_air(ui, snapshot);
                    want
                },
            )
        })
        .inner;
    right.or(left)
}

fn switch(ui: &mut Ui, device: DeviceKind, snapshot: &Snapshot) -> Option<Want> {
    let gates = snapshot.gates;
    let (gate, open, icon, label) = match device {
        DeviceKind::Microphone => (
            Gate::Microphone,
            gates.microphone,
            Icon::Microphone,
            if gates.microphone { "Mute all (M)" } else { "Unmute all (M)" },
        ),
        DeviceKind::Camera => (
            Gate::Camera,
            gates.camera,
            Icon::Camera,
            if gates.camera { "Camera off (V)" } else { "Camera on (V)" },
        ),
        DeviceKind::Speaker => (
            Gate::Listening,
            gates.listening,
            Icon::Speaker,
            if gates.listening { "Deafen (D)" } else { "Listen again (D)" },
        ),
    };
    let mark = if open { Mark::On } else { Mark::Off };
    let command = Command::SetGate { session: None, gate, open: !open };
    icon_button(ui, icon, label, mark).clicked().then(|| command.into())
}

fn level(ui: &mut Ui, loudness: f32, open: bool) {
    let palette = Palette::of(ui);
    let (rect, _) = ui.allocate_exact_size(Vec2::new(28.0, 18.0), Sense::hover());
    let colour = if open { palette.text } else { palette.muted };
    bars(ui.painter(), rect, loudness, colour);
}

/// The devices of a kind, to choose from.
fn menu(
    ui: &mut Ui,
    device: DeviceKind,
    settings: &Settings,
    devices: &mut DeviceLists,
) -> Option<Want> {
    let label = format!("Choose {}", device.name());
    let button = icon_button(ui, Icon::More, &label, Mark::Deed);
    let chosen = match device {
        DeviceKind::Camera => &settings.camera,
        DeviceKind::Microphone => &settings.microphone,
        DeviceKind::Speaker => &settings.speaker,
    };
    let shown = Popup::menu(&button).show(|ui| {
        ui.set_width(MENU);
        let mut want = None;
        for (text, spec) in device.choices() {
            if choice(ui, text, spec == chosen).clicked() {
                want = Some(Want::Use(device, (*spec).to_owned()));
            }
        }
        ui.separator();
        match devices.known(device, ui.ctx()) {
            None => {
                ui.label(RichText::new("looking for devices…").weak());
            }
            Some([]) => {
                ui.label(RichText::new(format!("no {} found", device.name())).weak());
            }
            Some(names) => {
                for name in names {
                    if choice(ui, name, name == chosen).clicked() {
                        want = Some(Want::Use(device, name.clone()));
                    }
                }
            }
        }
        want
    });
    match shown {
        Some(shown) => shown.inner,
        None => {
            devices.forget(device);
            None
        }
    }
}

fn choice(ui: &mut Ui, text: &str, chosen: bool) -> egui::Response {
    let mark = if chosen { "•" } else { " " };
    let text = format!("{mark}  {text}");
    let size = Vec2::new(ui.available_width(), 28.0);
    let button = Button::new(&text).frame_when_inactive(false).truncate().min_size(size);
    let response = ui.add(button);
    response
        .widget_info(|| egui::WidgetInfo::selected(egui::Role::RadioButton, true, chosen, &text));
    response
}

/// Where we are heard or seen now, in one mark.
fn on_air(ui: &mut Ui, snapshot: &Snapshot) {
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
        (heard, 0) => format!("heard in {heard}"),
        (0, seen) => format!("seen in {seen}"),
        (heard, seen) => format!("heard in {heard}, seen in {seen}"),
    };
    ui.add(Label::new(RichText::new(text).font(SMALL).color(palette.muted)).truncate());
}

fn deeds(ui: &mut Ui, snapshot: &Snapshot) -> Option<Want> {
    let mut want = None;
    if !snapshot.sessions.is_empty() && ui.button("Leave all").clicked() {
        want = Some(Command::LeaveAll.into());
    }
    if icon_button(ui, Icon::Settings, "Settings", Mark::Deed).clicked() {
        want = Some(Want::ShowSettings);
    }
    if icon_button(ui, Icon::Help, "Keys (?)", Mark::Deed).clicked() {
        want = Some(Want::ShowHelp);
    }
    want
}
