//! The edges between panels by the keyboard: Tab reaches them, arrows move them.

use eframe::egui::{
    Event, EventFilter, Id, IdSalt, InnerResponse, Key, Panel, Stroke, Ui,
    accesskit::{Action, ActionRequest, TreeId},
};

use super::theme::Palette;

/// The side of the window that a panel clings to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Its edge is at its right.
    Left,
    /// Its edge is at its left.
    Right,
    /// Its edge is at its foot.
    Top,
}

impl Side {
    /// The arrow that makes the panel larger, and that which makes it smaller.
    const fn arrows(self) -> (Key, Key) {
        match self {
            Self::Left => (Key::ArrowRight, Key::ArrowLeft),
            Self::Right => (Key::ArrowLeft, Key::ArrowRight),
            Self::Top => (Key::ArrowDown, Key::ArrowUp),
        }
    }
}

/// Draws a panel that can be made larger; whether its edge is moved now otherwise than by the
/// pointer. `name` is the panel's own, `called` what its edge resizes.
///
/// The library lets Tab reach the edge but moves it only for pointers and screen readers, so an
/// arrow becomes what a screen reader would ask for.
pub(crate) fn show<R>(
    (panel, side): (Panel, Side),
    ui: &mut Ui,
    (name, called): (&str, &str),
    contents: impl FnOnce(&mut Ui) -> R,
) -> (InnerResponse<R>, bool) {
    // The library's own name for it.
    let edge = ui.scope_id().with_salt(IdSalt::new(name)).with("__resize");
    if ui.memory(|memory| memory.has_focus(edge)) {
        by_arrows(ui, edge, side);
    }
    let asks = [Action::Increment, Action::Decrement, Action::SetValue];
    let is_moved = ui.input(|input| {
        asks.into_iter().any(|action| input.has_accesskit_action_request(edge, action))
    });
    let drawn = panel.show(ui, contents);
    ui.ctx().accesskit_node_builder(edge, |node| node.set_label(format!("Resize {called}")));
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

/// Makes the arrows that were pressed the edge's, which else take the focus elsewhere.
fn by_arrows(ui: &Ui, edge: Id, side: Side) {
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
