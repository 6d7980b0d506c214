//! The menu of a session: how much data it may use, and whether it comes first.

use eframe::egui::{Key, Popup, PopupCloseBehavior, Ui};

use super::{
    action::Action,
    icons::{Icon, IconState, icon_button},
    labels,
    radio_item::radio_item,
};
use crate::model::{Command, DataUse, Media, SessionStatus};

/// Width of the menu, in points.
const WIDTH: f32 = 240.0;

/// Draws the menu button of a session that has video, and its open menu.
pub(crate) fn ui(ui: &mut Ui, session: &SessionStatus, session_name: &str) -> Option<Action> {
    if labels::is_over(&session.state) || !session.kind?.media.has(Media::Video) {
        return None;
    }
    let label = format!("Data use of {session_name}");
    let button = icon_button(ui, Icon::More, &label, IconState::Plain);
    // The menu stays open after a choice, to show its effect.
    let popup = Popup::menu(&button).close_behavior(PopupCloseBehavior::CloseOnClickOutside);
    let shown = popup.show(|ui| {
        ui.set_width(WIDTH);
        let mut action = None;
        for data_use in DataUse::ALL {
            let (text, tip) = labels::data_use(data_use);
            let item = radio_item(ui, text, session.data_use == data_use).on_hover_text(tip);
            if item.clicked() {
                let session = session.session.clone();
                action = Some(Command::SetDataUse { session, data_use }.into());
            }
        }
        ui.separator();
        action.or(send_first_checkbox(ui, session))
    })?;
    if ui.input(|input| input.key_pressed(Key::Escape)) {
        // Escape closes the menu. The focus returns to its button.
        button.request_focus();
    }
    shown.inner
}

/// A checkbox that raises the session while the upload is full.
fn send_first_checkbox(ui: &mut Ui, session: &SessionStatus) -> Option<Action> {
    let mut raised = session.is_raised;
    let switch = ui.checkbox(&mut raised, "Send first");
    let switch = switch.on_hover_text(
        "While your upload is full, this session gets video before others of its kind",
    );
    let session = session.session.clone();
    switch.changed().then(|| Command::SetPriority { session, raised }.into())
}
