//! The landmarks that tests of the built window look for are where the window draws them.

use super::*;
use crate::ui::landmarks::{COLOUR_BARS, COPY_LINK_COLUMN, REMOTE_TILES_LEFT};

/// How far the harness moves everything to the right: it draws inside a frame of its own.
const HARNESS_MARGIN: f32 = 8.0;

#[test]
fn the_landmarks_are_where_the_window_draws_them() {
    let kind = SessionKind::FIVE[0];
    let window = window(LARGE, snapshot_of(vec![session_status("a", kind, Role::Opener, 2)]));
    let rect = |label: &str| window.get_by_label(label).rect();
    let column =
        |x: usize| f32::from(u16::try_from(x).expect("a column of the screen")) + HARNESS_MARGIN;
    let button = rect("Copy link to Conference");
    assert!(button.x_range().contains(column(COPY_LINK_COLUMN)), "{button}");
    let colour = crate::ui::theme::SESSION_COLOURS[0];
    let bar = window.output().shapes.iter().find_map(|one| {
        let egui::Shape::Rect(bar) = &one.shape else { return None };
        (bar.fill == colour && bar.rect.width() == 4.0).then_some(bar.rect)
    });
    let bar = bar.expect("the card has a colour bar");
    let bars = column(COLOUR_BARS.start)..=column(COLOUR_BARS.end);
    assert!(bars.contains(&bar.left()) && bars.contains(&bar.right()), "{bar}");
    let (local, remote) =
        (window.get_by_label_contains("Your picture").rect(), rect("Person 0 in Conference"));
    let left = column(REMOTE_TILES_LEFT);
    assert!(local.right() < left && left <= remote.left(), "{local} {remote}");
}
