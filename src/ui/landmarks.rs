//! What a program that sees only the window's pixels can look for. The tests of the built window
//! use these; `app/tests/landmarks.rs` compares them with what is drawn.

use std::ops::Range;

use eframe::egui::Color32;

use super::theme::{self, Palette};

/// A colour as red, green and blue.
pub type Rgb = [u8; 3];

/// The accent colour of the dark theme, which marks the primary button.
pub const ACCENT: Rgb = rgb(Palette::DARK.accent);

/// The colours of the first five session cards, from the top.
pub const SESSION_COLOURS: [Rgb; 5] = {
    let [a, b, c, d, e] = theme::SESSION_COLOURS;
    [rgb(a), rgb(b), rgb(c), rgb(d), rgb(e)]
};

/// The columns with the colour bars of the session cards, in pixels of a window that is 1280 points
/// wide, at scale 1. The columns below are of the same window.
pub const COLOUR_BARS: Range<usize> = 0..24;

/// A column inside the button that copies a session's link, in the middle row of its card.
pub const COPY_LINK_COLUMN: usize = 239;

/// A column between the local video on the left and the remote tiles on the right.
pub const REMOTE_TILES_LEFT: usize = 620;

const fn rgb(colour: Color32) -> Rgb {
    [colour.r(), colour.g(), colour.b()]
}
