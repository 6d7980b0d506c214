//! Resizable panels by keyboard: Tab focuses a panel's edge, and the arrow keys move it.

use eframe::egui::{
    Event, EventFilter, Id, IdSalt, InnerResponse, Key, Panel, Stroke, Ui,
    accesskit::{Action, ActionRequest, TreeId},
};

use super::theme::Palette;

/// The side of the window that a panel is attached to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Its edge is on its right.
    Left,
    /// Its edge is on its left.
    Right,
    /// Its edge is at its bottom.
    Top,
}

impl Side {
    /// The arrow key that enlarges the panel, and the one that shrinks it.
    const fn arrows(self) -> (Key, Key) {
        match self {
            Self::Left => (Key::ArrowRight, Key::ArrowLeft),
            Self::Right => (Key::ArrowLeft, Key::ArrowRight),
            Self::Top => (Key::ArrowDown, Key::ArrowUp),
        }
    }
}

/// Draws a resizable panel. Returns whether its edge was moved by keyboard or by assistive
/// technology. `name` is the panel's id; the edge is labelled "Resize" and `label`.
///
/// egui lets Tab focus the edge, but moves it only by pointer and by AccessKit actions. So arrow
/// keys are turned into AccessKit actions.
pub(crate) fn show_resizable<R>(
    (panel, side): (Panel, Side),
    ui: &mut Ui,
    (name, label): (&str, &str),
    contents: impl FnOnce(&mut Ui) -> R,
) -> (InnerResponse<R>, bool) {
    // egui's id of the edge.
    let edge = ui.scope_id().with_salt(IdSalt::new(name)).with("__resize");
    if ui.memory(|memory| memory.has_focus(edge)) {
        arrows_to_resize_actions(ui, edge, side);
    }
    let actions = [Action::Increment, Action::Decrement, Action::SetValue];
    let is_moved = ui.input(|input| {
        actions.into_iter().any(|action| input.has_accesskit_action_request(edge, action))
    });
    let drawn = panel.show(ui, contents);
    ui.ctx().accesskit_node_builder(edge, |node| node.set_label(format!("Resize {label}")));
    if ui.memory(|memory| memory.has_focus(edge)) {
        let ring = Stroke::new(2.0, Palette::of(ui).accent);
        let rect = drawn.response.rect;
        match side {
            Side::Left => ui.painter().vline(rect.right(), rect.y_range(), ring),
            Side::Right => ui.painter().vline(rect.left(), rect.y_range(), ring),
            Side::Top => ui.painter().hline(rect.x_range(), rect.bottom(), ring),
        };
    }
    (drawn, is_moved)
}

/// Turns pressed arrow keys into actions on the edge. Otherwise they would move the focus.
fn arrows_to_resize_actions(ui: &Ui, edge: Id, side: Side) {
    let arrows =
        EventFilter { horizontal_arrows: true, vertical_arrows: true, ..EventFilter::default() };
    ui.memory_mut(|memory| memory.set_focus_lock_filter(edge, arrows));
    let (larger, smaller) = side.arrows();
    ui.input_mut(|input| {
        for event in &mut input.events {
            let Event::Key { key, pressed: true, modifiers, .. } = event else { continue };
            let is_arrow = modifiers.is_none() && (*key == larger || *key == smaller);
            if !is_arrow {
                continue;
            }
            let action = if *key == larger { Action::Increment } else { Action::Decrement };
            *event = Event::AccessKitActionRequest(ActionRequest {
                action,
                target_tree: TreeId::ROOT,
                target_node: edge.accesskit_id(),
                data: None,
            });
        }
    });
}
