//! The call bar at the bottom: the controls for all sessions.

use eframe::egui::{
    self, Align, Key, Label, Layout, Popup, PopupCloseBehavior, Rect, RichText, Sense, Ui, Vec2,
};

use super::{
    action::Action,
    bindings::Bindable,
    device_choice::{DeviceChoice, device_labels, spec_kind},
    devices::{self, DeviceLists, device_kinds},
    icons::{Icon, IconState, icon_button, icon_switch},
    labels,
    media_feeds::MediaFeeds,
    radio_item::{action_item, radio_item},
    sessions::{badge, split_row},
    switches::{SwitchStyle, switch_of},
    theme::{CORNER, GRID, ICON_BUTTON, Palette, SMALL},
    tile::{letterbox, wave},
    view_state::ViewState,
    yuv_painter::VideoStyle,
};
use crate::{
    engine::TrackRef,
    model::{
        AudioContent, Command, DeviceKind, DeviceState, Processing, Snapshot, SoundCheck,
        SoundCheckStage, VoiceProcessing,
    },
    wording,
};

/// Height of the bar, in points.
pub(crate) const BAR_HEIGHT: f32 = 56.0;

/// Width of a device menu, in points.
const MENU_WIDTH: f32 = 280.0;

/// Draws the bar. Returns the action of the user.
pub(crate) fn ui(
    ui: &mut Ui,
    view: ViewState<'_>,
    feeds: &MediaFeeds,
    devices: &mut DeviceLists,
) -> Option<Action> {
    let snapshot = view.snapshot;
    devices.open_menu = None;
    let switches = |ui: &mut Ui| {
        let mut action = None;
        ui.spacing_mut().item_spacing.x = GRID / 2.0;
        for device in device_kinds() {
            action = action.take().or(mute_switch(ui, device, view));
            if device == DeviceKind::MICROPHONE {
                level_meter(
                    ui,
                    feeds.loudness(TrackRef::MICROPHONE),
                    snapshot.enabled.sources.microphone,
                );
            }
            action = action.or(device_menu(ui, device, view, (feeds, &mut *devices)));
            ui.add_space(GRID);
        }
        on_air(ui, snapshot);
        action
    };
    ui.add_space((BAR_HEIGHT - ICON_BUTTON) / 2.0);
    let row = |ui: &mut Ui| split_row(ui, switches, |ui| bar_buttons(ui, view));
    let (left, right) = ui.add_enabled_ui(!view.is_busy, row).inner;
    left.or(right)
}

fn mute_switch(ui: &mut Ui, device: DeviceKind, view: ViewState<'_>) -> Option<Action> {
    let switch = switch_of(device);
    let (open, style) = (view.snapshot.enabled.has(switch), SwitchStyle::of(switch));
    let mark = if open { IconState::On } else { IconState::Off };
    let command = Command::SetEnabled { session: None, switch, enabled: !open };
    let key = view.settings.keys.key_name(style.key);
    let label = format!("{} ({key})", style.name);
    let tip = format!("{} everywhere ({key})", style.action(open));
    icon_switch(ui, style.icon, (&label, &tip), mark).clicked().then(|| command.into())
}

fn level_meter(ui: &mut Ui, loudness: f32, open: bool) {
    let palette = Palette::of(ui);
    let (rect, _) = ui.allocate_exact_size(Vec2::new(28.0, 18.0), Sense::hover());
    let colour = if open { palette.text } else { palette.muted };
    wave(ui.painter(), rect, loudness, colour);
}

/// Draws the menu button of a kind of device, and its open menu.
fn device_menu(
    ui: &mut Ui,
    device: DeviceKind,
    view: ViewState<'_>,
    (feeds, devices): (&MediaFeeds, &mut DeviceLists),
) -> Option<Action> {
    let label = format!("Choose {}", device.name());
    let button = icon_button(ui, Icon::More, &label, IconState::Plain);
    let current = view.settings.device(device);
    // The menu stays open after a choice, to show its effect.
    let popup = Popup::menu(&button).close_behavior(PopupCloseBehavior::CloseOnClickOutside);
    let shown = popup.show(|ui| {
        ui.set_width(MENU_WIDTH);
        let mut action = live_view(ui, device, view, feeds);
        for (text, spec) in devices::choices(device) {
            let is_chosen =
                matches!(current, DeviceChoice::Spec(_)) && spec_kind(spec) == current.kind();
            if radio_item(ui, text, is_chosen).clicked() {
                action = Some(Action::UseDevice(device, (*spec).into()));
            }
        }
        ui.separator();
        action = action.take().or(device_list(ui, device, current, devices));
        if device == DeviceKind::CAMERA && view.settings.has_camera() {
            ui.separator();
            action = action.or(mirror_checkbox(ui, view.settings.mirror));
        }
        if device == DeviceKind::MICROPHONE && view.settings.has_microphone() {
            ui.separator();
            action = action.or(voice_switches(ui, view.snapshot.voice_processing));
        }
        action = action.or(sound_check_button(ui, device, view));
        action
    });
    match shown {
        Some(shown) => {
            devices.open_menu = Some(device);
            if ui.input(|input| input.key_pressed(Key::Escape)) {
                // Escape closes the menu. The focus returns to its button.
                button.request_focus();
            }
            shown.inner
        }
        None => {
            devices.invalidate(device);
            None
        }
    }
}

/// A checkbox that mirrors the preview of the local video.
fn mirror_checkbox(ui: &mut Ui, mut is_on: bool) -> Option<Action> {
    let switch = ui.checkbox(&mut is_on, "Mirror my picture");
    let switch = switch.on_hover_text("Only you see it mirrored");
    switch.changed().then_some(Action::SetMirror(is_on))
}

/// A button that lets the user hear the microphone or the speaker, and what the check does.
fn sound_check_button(ui: &mut Ui, device: DeviceKind, view: ViewState<'_>) -> Option<Action> {
    let is_none = view.settings.device(device).is_spec("none");
    let (check, text, tip) = match device {
        _ if is_none => return None,
        DeviceKind::MICROPHONE => (
            SoundCheck::HearYourself,
            "Hear yourself",
            "Records you for three seconds and plays it. Nobody else hears you meanwhile",
        ),
        DeviceKind::Speaker => (SoundCheck::TestSound, "Play a test sound", "Only you hear it"),
        DeviceKind::CAMERA => return None,
    };
    ui.separator();
    let text = match view.snapshot.sound_check {
        Some(SoundCheckStage::Recording) => "Say something…",
        Some(SoundCheckStage::PlayingBack) => "This is how you sound…",
        Some(SoundCheckStage::PlayingTestSound) => "Playing the test sound…",
        None => text,
    };
    let is_idle = view.snapshot.sound_check.is_none();
    let item = ui.add_enabled_ui(is_idle, |ui| action_item(ui, text)).inner.on_hover_text(tip);
    item.clicked().then(|| Command::StartSoundCheck(check).into())
}

/// Checkboxes for what is done to the sound of the microphone.
fn voice_switches(ui: &mut Ui, mut chosen: VoiceProcessing) -> Option<Action> {
    let mut has_changed = false;
    let mut is_music = chosen.content == AudioContent::Music;
    let tip = "The original sound, at a higher rate and without the changes below";
    if ui.checkbox(&mut is_music, "Music").on_hover_text(tip).changed() {
        chosen.content = if is_music { AudioContent::Music } else { AudioContent::Speech };
        has_changed = true;
    }
    let mut switch = |text: &str, tip: &str, processing: &mut Processing| {
        let mut is_on = processing.is_on();
        let checkbox = egui::Checkbox::new(&mut is_on, text);
        if ui.add_enabled(!is_music, checkbox).on_hover_text(tip).changed() {
            *processing = Processing::of_switch(is_on);
            has_changed = true;
        }
    };
    let echo = "Others do not hear themselves from your speaker";
    switch("Remove echo", echo, &mut chosen.echo_cancellation);
    switch("Reduce noise", "Fans, traffic and the like", &mut chosen.noise_suppression);
    switch("Even out my volume", "Quiet speech becomes louder", &mut chosen.auto_gain_control);
    has_changed.then_some(Action::SetVoiceProcessing(chosen))
}

/// Draws the devices of the system. An unplugged device stays in the list while it is chosen.
fn device_list(
    ui: &mut Ui,
    device: DeviceKind,
    current: &DeviceChoice,
    devices: &mut DeviceLists,
) -> Option<Action> {
    let Some(found) = devices.get(device, ui.ctx()) else {
        ui.label(RichText::new("Looking for devices…").weak());
        return None;
    };
    if found.is_empty() {
        ui.label(RichText::new(format!("No {} found", device.name())).weak());
    }
    let mut action = None;
    let chosen_index = current.index_in(found);
    for (index, (one, label)) in found.iter().zip(device_labels(found)).enumerate() {
        let mut item = radio_item(ui, &label, chosen_index == Some(index));
        if found.iter().filter(|other| other.name == one.name).count() > 1 {
            item = item.on_hover_text(&one.id);
        }
        if item.clicked() {
            action = Some(Action::UseDevice(device, one.into()));
        }
    }
    if let (None, DeviceChoice::Device { name, .. }) = (chosen_index, current) {
        radio_item(ui, &format!("{name}: not connected"), true);
    }
    action
}

/// Shows a live preview or level of the device, so that the user can pick the right one before
/// others see or hear it. Below it is the device's state, with a button to cancel while it opens.
fn live_view(
    ui: &mut Ui,
    device: DeviceKind,
    view: ViewState<'_>,
    feeds: &MediaFeeds,
) -> Option<Action> {
    let state = &view.snapshot.devices[device];
    match device {
        DeviceKind::MICROPHONE => wide_level_meter(ui, feeds.loudness(TrackRef::MICROPHONE)),
        DeviceKind::CAMERA => camera_preview(ui, view, feeds),
        DeviceKind::Speaker => {}
    }
    let text = match state {
        _ if view.settings.device(device).is_spec("none") => format!("No {} chosen", device.name()),
        DeviceState::Failed { message } => labels::sentence(message),
        DeviceState::Opening => labels::starting(&devices::display_name(device, view.settings)),
        DeviceState::Running => match device {
            DeviceKind::MICROPHONE if view.snapshot.is_microphone_silent => {
                labels::sentence(wording::MICROPHONE_SILENT)
            }
            DeviceKind::MICROPHONE => "Your level".to_owned(),
            DeviceKind::CAMERA if view.snapshot.is_encoder_late => {
                labels::sentence(wording::ENCODER_LATE)
            }
            DeviceKind::CAMERA if view.snapshot.is_upload_full => {
                labels::sentence(wording::UPLOAD_FULL)
            }
            DeviceKind::CAMERA => "What your camera sees".to_owned(),
            DeviceKind::Speaker => "In use".to_owned(),
        },
        DeviceState::Idle => "Not in use".to_owned(),
    };
    let palette = Palette::of(ui);
    let is_silent = device == DeviceKind::MICROPHONE && view.snapshot.is_microphone_silent;
    let is_bad = is_silent || matches!(state, DeviceState::Failed { .. });
    let colour = if is_bad { palette.warn } else { palette.muted };
    // Menus justify their content, which would stretch the spaces between words.
    let text = Label::new(RichText::new(text).font(SMALL).color(colour)).wrap();
    ui.with_layout(Layout::top_down(Align::Min), |ui| ui.add(text));
    let stop = *state == DeviceState::Opening
        && ui
            .button("Cancel")
            .on_hover_text(format!("Go on without a {}", device.name()))
            .clicked();
    ui.separator();
    stop.then(|| Action::UseDevice(device, "none".into()))
}

fn wide_level_meter(ui: &mut Ui, loudness: f32) {
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
    let filled = Rect::from_min_size(rect.min, Vec2::new(rect.width() * loudness, rect.height()));
    ui.painter().rect_filled(filled, 4.0, palette.accent);
}

fn camera_preview(ui: &mut Ui, view: ViewState<'_>, feeds: &MediaFeeds) {
    let width = ui.available_width();
    let size = Vec2::new(width, (width * 9.0 / 16.0).round());
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::Image, true, "What your camera sees")
    });
    ui.painter().rect_filled(rect, CORNER, Palette::of(ui).video_background);
    if let Some((frame, number, _)) = feeds.latest_frame(TrackRef::CAMERA) {
        let inside = letterbox(rect, frame.size);
        let of = (TrackRef::CAMERA, number);
        let shown = VideoStyle { brightness: 1.0, mirrored: view.settings.mirrors_preview() };
        ui.painter().add(feeds.painter().shape(inside, of, frame.clone(), shown));
    }
}

/// Draws the on-air badge, and in how many sessions others hear or see the user.
pub(crate) fn on_air(ui: &mut Ui, snapshot: &Snapshot) {
    let palette = Palette::of(ui);
    let count = |heard_or_seen: fn(&crate::model::SessionStatus) -> bool| {
        snapshot.sessions.iter().filter(|session| heard_or_seen(session)).count()
    };
    let heard = count(|session| session.sending.microphone);
    let seen = count(|session| session.sending.camera);
    let any = count(|session| session.sending.any());
    if any == 0 {
        return;
    }
    badge(ui, "ON AIR", palette.on_air, palette.on_on_air);
    let text = match (heard, seen) {
        (heard, 0) => format!("Heard in {heard}"),
        (0, seen) => format!("Seen in {seen}"),
        (heard, seen) => format!("Heard in {heard} · seen in {seen}"),
    };
    ui.add(Label::new(RichText::new(text).font(SMALL).color(palette.muted)).truncate());
}

fn bar_buttons(ui: &mut Ui, view: ViewState<'_>) -> Option<Action> {
    let mut action = None;
    let keys = format!("Keyboard shortcuts ({})", view.settings.keys.key_name(Bindable::Help));
    if icon_button(ui, Icon::Help, &keys, IconState::Plain).clicked() {
        action = Some(Action::ShowHelp);
    }
    if icon_button(ui, Icon::Settings, "Settings", IconState::Plain).clicked() {
        action = Some(Action::ShowSettings);
    }
    if !view.snapshot.sessions.is_empty() && ui.button("Leave all").clicked() {
        action = Some(Action::ConfirmLeaveAll);
    }
    action
}
