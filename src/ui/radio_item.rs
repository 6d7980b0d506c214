//! Items of menus: those of which one is chosen, and those that do something.

use eframe::egui::{self, Color32, Sense, Stroke, Ui, Vec2, WidgetInfo};

use super::theme::{ICON_BUTTON, Palette, SMALL_CORNER};

/// Draws an item of a menu, with a dot if it is chosen.
pub(crate) fn radio_item(ui: &mut Ui, text: &str, chosen: bool) -> egui::Response {
    let response = item(ui, text, chosen);
    response.widget_info(|| WidgetInfo::selected(egui::Role::RadioButton, true, chosen, text));
    response
}

/// Draws an item of a menu that does something, its text aligned with those of other items.
pub(crate) fn action_item(ui: &mut Ui, text: &str) -> egui::Response {
    let response = item(ui, text, false);
    let is_enabled = ui.is_enabled();
    response.widget_info(|| WidgetInfo::labeled(egui::Role::Button, is_enabled, text));
    response
}

fn item(ui: &mut Ui, text: &str, has_dot: bool) -> egui::Response {
    let palette = Palette::of(ui);
    let size = Vec2::new(ui.available_width(), ICON_BUTTON);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let background = if response.hovered() { palette.control_hover } else { Color32::TRANSPARENT };
    let ring = if response.has_focus() { Stroke::new(2.0, palette.accent) } else { Stroke::NONE };
    ui.painter().rect(rect, SMALL_CORNER, background, ring, egui::StrokeKind::Inside);
    if has_dot {
        let at = rect.left_center() + Vec2::new(12.0, 0.0);
        ui.painter().circle_filled(at, 3.0, palette.accent);
    }
    // Painted text instead of a label: screen readers would read a label a second time.
    let cut = Some(egui::TextWrapMode::Truncate);
    let galley = egui::WidgetText::from(text);
    let galley = galley.into_galley(ui, cut, rect.width() - 24.0, egui::TextStyle::Body);
    let at = rect.left_center() + Vec2::new(24.0, -galley.size().y / 2.0);
    let is_cut = galley.elided;
    ui.painter().galley(at, galley, palette.text);
    if is_cut { response.on_hover_text(text) } else { response }
}
