//! Scrolls to the widget that has the keyboard focus.

use eframe::egui::Ui;

/// Scrolls to the widget that has just got the focus, if it is in this scroll area.
///
/// Must be called inside the area, after its widgets: egui moves the focus to widgets outside the
/// visible part, but does not scroll.
pub(crate) fn scroll_to_focused(ui: &Ui) {
    let Some(id) = ui.memory(|memory| memory.focused()) else { return };
    let Some(control) = ui.ctx().read_response(id) else { return };
    let is_here = control.layer_id == ui.layer_id() && ui.min_rect().contains_rect(control.rect);
    if is_here && control.gained_focus() {
        control.scroll_to_me(None);
    }
}
