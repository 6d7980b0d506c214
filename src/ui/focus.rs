//! The focus of the keyboard stays in sight.

use eframe::egui::Ui;

/// Scrolls to the control that got the focus just now, if it is in this scrolled area.
///
/// To be called inside the area, after its controls: the library moves the focus to controls that
/// are scrolled out, but does not scroll.
pub(crate) fn follow(ui: &Ui) {
    let Some(id) = ui.memory(|memory| memory.focused()) else { return };
    let Some(control) = ui.ctx().read_response(id) else { return };
    let is_here = control.layer_id == ui.layer_id() && ui.min_rect().contains_rect(control.rect);
    if is_here && control.gained_focus() {
        control.scroll_to_me(None);
    }
}
