//! Colours, sizes and text styles: the two themes, and the colours of the sessions.

use eframe::egui::{
    self, Color32, Context, CornerRadius, FontFamily, FontId, Margin, Stroke, TextStyle, Theme, Ui,
    Vec2, Visuals, style::WidgetVisuals,
};

/// The unit of all distances, in points.
pub(crate) const GRID: f32 = 8.0;

/// Side of an icon button, in points.
pub(crate) const ICON_BUTTON: f32 = 28.0;

/// Below this window width, in points, the local panel is above the remote one.
pub(crate) const NARROW: f32 = 900.0;

/// Corner radius of panels and cards.
pub(crate) const CORNER: CornerRadius = CornerRadius::same(8);

/// Corner radius of small controls.
pub(crate) const SMALL_CORNER: CornerRadius = CornerRadius::same(6);

/// The colours of a theme. Text has a contrast of at least 4.5 on each of its backgrounds; icons,
/// focus rings and boxes have at least 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Palette {
    /// The window's background.
    pub(crate) base: Color32,
    /// Panels and session cards.
    pub(crate) panel: Color32,
    /// Controls.
    pub(crate) control: Color32,
    /// Controls under the pointer.
    pub(crate) control_hover: Color32,
    /// Check boxes and knobs.
    pub(crate) knob: Color32,
    /// Borders.
    pub(crate) line: Color32,
    /// Text.
    pub(crate) text: Color32,
    /// Secondary text.
    pub(crate) muted: Color32,
    /// The accent colour, for the primary button and the focus.
    pub(crate) accent: Color32,
    /// Text on the accent.
    pub(crate) on_accent: Color32,
    /// The on-air badge: others hear or see the user.
    pub(crate) on_air: Color32,
    /// Text on the on-air colour.
    pub(crate) on_on_air: Color32,
    /// Warnings.
    pub(crate) warn: Color32,
    /// The background of video.
    pub(crate) video_background: Color32,
}

impl Palette {
    /// The dark theme's colours.
    pub(crate) const DARK: Self = Self {
        base: Color32::from_rgb(0x15, 0x17, 0x1C),
        panel: Color32::from_rgb(0x1E, 0x21, 0x28),
        control: Color32::from_rgb(0x2A, 0x2E, 0x37),
        control_hover: Color32::from_rgb(0x36, 0x3B, 0x47),
        knob: Color32::from_rgb(0x6B, 0x72, 0x80),
        line: Color32::from_rgb(0x2A, 0x2E, 0x37),
        text: Color32::from_rgb(0xE8, 0xEA, 0xF0),
        muted: Color32::from_rgb(0x9A, 0xA3, 0xB2),
        accent: Color32::from_rgb(0x4F, 0x8C, 0xFF),
        on_accent: Color32::from_rgb(0x0B, 0x0E, 0x14),
        on_air: Color32::from_rgb(0xE5, 0x48, 0x4D),
        on_on_air: Color32::from_rgb(0x12, 0x04, 0x05),
        warn: Color32::from_rgb(0xF2, 0xB8, 0x4B),
        video_background: Color32::from_rgb(0x0D, 0x0E, 0x12),
    };

    /// The light theme's colours.
    pub(crate) const LIGHT: Self = Self {
        base: Color32::from_rgb(0xEE, 0xF0, 0xF4),
        panel: Color32::from_rgb(0xFF, 0xFF, 0xFF),
        control: Color32::from_rgb(0xDE, 0xE3, 0xEB),
        control_hover: Color32::from_rgb(0xCF, 0xD6, 0xE1),
        knob: Color32::from_rgb(0x7E, 0x87, 0x97),
        line: Color32::from_rgb(0xD6, 0xDA, 0xE2),
        text: Color32::from_rgb(0x1A, 0x1D, 0x24),
        muted: Color32::from_rgb(0x54, 0x5D, 0x6D),
        accent: Color32::from_rgb(0x24, 0x5F, 0xD8),
        on_accent: Color32::WHITE,
        on_air: Color32::from_rgb(0xC8, 0x24, 0x2A),
        on_on_air: Color32::WHITE,
        warn: Color32::from_rgb(0x8A, 0x5A, 0x00),
        video_background: Color32::from_rgb(0x16, 0x18, 0x1E),
    };

    /// The colours of the current theme.
    pub(crate) fn of(ui: &Ui) -> Self {
        if ui.visuals().dark_mode { Self::DARK } else { Self::LIGHT }
    }
}

/// The colours of sessions (Okabe and Ito), which colour-blind users can distinguish. More than
/// five sessions share them, so icons and texts identify a session, and the colour only helps.
pub(crate) const SESSION_COLOURS: [Color32; 5] = [
    Color32::from_rgb(0xE6, 0x9F, 0x00),
    Color32::from_rgb(0x56, 0xB4, 0xE9),
    Color32::from_rgb(0x00, 0x9E, 0x73),
    Color32::from_rgb(0xD5, 0x5E, 0x00),
    Color32::from_rgb(0xCC, 0x79, 0xA7),
];

/// Text over video, which is light on dark in both themes.
pub(crate) const OVERLAY_TEXT: Color32 = Color32::from_rgb(0xF2, 0xF4, 0xF8);
/// The background of text over video.
pub(crate) const OVERLAY_BACKGROUND: Color32 = Color32::from_black_alpha(0xB0);

/// The small font; the type scale is 12, 14, 16 and 20 points.
pub(crate) const SMALL: FontId = FontId::new(12.0, FontFamily::Proportional);
/// The font of titles.
pub(crate) const TITLE: FontId = FontId::new(16.0, FontFamily::Proportional);
/// The font of the text in an empty panel.
pub(crate) const LARGE: FontId = FontId::new(20.0, FontFamily::Proportional);

/// Installs both themes. Called once per context.
pub(crate) fn install(ctx: &Context) {
    for (theme, palette) in [(Theme::Dark, Palette::DARK), (Theme::Light, Palette::LIGHT)] {
        ctx.style_mut_of(theme, |style| {
            style.visuals = visuals(theme, palette);
            style.text_styles = [
                (TextStyle::Small, SMALL),
                (TextStyle::Body, FontId::new(14.0, FontFamily::Proportional)),
                (TextStyle::Button, FontId::new(14.0, FontFamily::Proportional)),
                (TextStyle::Heading, TITLE),
                (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
            ]
            .into();
            style.spacing.item_spacing = Vec2::splat(GRID);
            style.spacing.button_padding = Vec2::new(12.0, 6.0);
            style.spacing.interact_size = Vec2::new(ICON_BUTTON, ICON_BUTTON);
            style.spacing.window_margin = Margin::same(16);
            style.spacing.menu_margin = Margin::same(8);
            style.spacing.scroll = egui::style::ScrollStyle::thin();
            // No animations: what is drawn must be the current state.
            style.animation_time = 0.0;
        });
    }
}

fn visuals(theme: Theme, palette: Palette) -> Visuals {
    let mut visuals = match theme {
        Theme::Dark => Visuals::dark(),
        Theme::Light => Visuals::light(),
    };
    let widget = |fill: Color32, edge: Stroke| WidgetVisuals {
        bg_fill: fill,
        weak_bg_fill: fill,
        bg_stroke: edge,
        corner_radius: SMALL_CORNER,
        fg_stroke: Stroke::new(1.0, palette.text),
        expansion: 0.0,
    };
    let widgets = &mut visuals.widgets;
    widgets.noninteractive = widget(palette.panel, Stroke::new(1.0, palette.line));
    widgets.inactive = widget(palette.control, Stroke::NONE);
    widgets.hovered = widget(palette.control_hover, Stroke::NONE);
    // egui draws focused widgets as active, so the focus ring is set here.
    widgets.active = widget(palette.control_hover, Stroke::new(2.0, palette.accent));
    widgets.open = widget(palette.control_hover, Stroke::NONE);
    for widget in [&mut widgets.inactive, &mut widgets.hovered, &mut widgets.active] {
        widget.bg_fill = palette.knob;
    }
    visuals.selection.bg_fill = palette.accent.gamma_multiply(0.35);
    visuals.selection.stroke = Stroke::new(2.0, palette.accent);
    visuals.weak_text_color = Some(palette.muted);
    visuals.hyperlink_color = palette.accent;
    visuals.faint_bg_color = palette.control;
    visuals.extreme_bg_color = palette.base;
    visuals.text_edit_bg_color = Some(palette.base);
    visuals.error_fg_color = palette.on_air;
    visuals.warn_fg_color = palette.warn;
    visuals.panel_fill = palette.panel;
    visuals.window_fill = palette.panel;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CORNER;
    visuals.menu_corner_radius = CORNER;
    visuals
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (WCAG 2.1).
    fn luminance(colour: Color32) -> f64 {
        let part = |byte: u8| {
            let value = f64::from(byte) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(colour.r()) + 0.7152 * part(colour.g()) + 0.0722 * part(colour.b())
    }

    fn contrast(one: Color32, other: Color32) -> f64 {
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    /// The colour of `over` blended on `ground`.
    fn blended(over: Color32, ground: Color32) -> Color32 {
        let [red, green, blue, _] = over.to_array();
        let left = 255 - u16::from(over.a());
        let part = |over: u8, ground: u8| over + (u16::from(ground) * left / 255) as u8;
        Color32::from_rgb(part(red, ground.r()), part(green, ground.g()), part(blue, ground.b()))
    }

    /// A name, a colour, and the named backgrounds that it is drawn on.
    type Row<'a> = (&'a str, Color32, &'a [(&'a str, Color32)]);

    fn assert_contrast(minimum: f64, palette: Palette, rows: &[Row<'_>]) {
        for (name, colour, grounds) in rows {
            for (ground_name, ground) in *grounds {
                let contrast = contrast(*colour, *ground);
                assert!(
                    contrast >= minimum,
                    "{name} on {ground_name}: {contrast:.2} in {palette:?}"
                );
            }
        }
    }

    #[test]
    fn text_has_the_contrast_of_wcag_aa_in_both_themes() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            let (base, panel) = (("base", palette.base), ("panel", palette.panel));
            let control = ("a control", palette.control);
            let lit = ("a lit control", palette.control_hover);
            let selected = ("selected", blended(palette.accent.gamma_multiply(0.35), palette.base));
            assert_contrast(
                4.5,
                palette,
                &[
                    ("text", palette.text, &[base, panel, control, lit, selected]),
                    ("muted text", palette.muted, &[base, panel, control]),
                    ("warnings", palette.warn, &[base, panel]),
                    ("links and our own name", palette.accent, &[base, panel]),
                    ("the primary button", palette.on_accent, &[("accent", palette.accent)]),
                    ("the on-air mark", palette.on_on_air, &[("its fill", palette.on_air)]),
                ],
            );
        }
    }

    #[test]
    fn icons_rings_and_badges_have_the_contrast_of_wcag_aa_in_both_themes() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            let (base, panel) = (("base", palette.base), ("panel", palette.panel));
            let control = ("a control", palette.control);
            let lit = ("a lit control", palette.control_hover);
            let stage = ("the background of video", palette.video_background);
            let knob = ("a box", palette.knob);
            assert_contrast(
                3.0,
                palette,
                &[
                    ("icons", palette.text, &[base, panel, control, lit]),
                    ("icons at rest", palette.muted, &[base, panel]),
                    ("struck icons", palette.warn, &[base, panel, control, lit]),
                    ("focus rings", palette.accent, &[base, panel, control, lit, stage]),
                    ("the primary button's ring", palette.text, &[base, panel]),
                    ("the primary button", palette.accent, &[base, panel]),
                    ("boxes", palette.knob, &[base, panel]),
                    ("ticks", palette.text, &[knob]),
                    ("the on-air mark", palette.on_air, &[base, panel]),
                ],
            );
            // Session colours carry no information alone, but the ring of a speaking participant
            // must be visible.
            for (index, session_colour) in SESSION_COLOURS.into_iter().enumerate() {
                let ring = format!("the ring of session colour {index}");
                assert_contrast(3.0, palette, &[(&ring, session_colour, &[stage])]);
            }
        }
    }

    #[test]
    fn text_over_video_is_readable_even_on_white() {
        let ground = blended(OVERLAY_BACKGROUND, Color32::WHITE);
        assert!(
            contrast(OVERLAY_TEXT, ground) >= 4.5
                && contrast(OVERLAY_TEXT, Palette::DARK.control) >= 4.5
        );
        assert!(contrast(Palette::DARK.warn, ground) >= 3.0, "struck icons");
        for session_colour in SESSION_COLOURS {
            assert!(
                contrast(
                    session_colour,
                    blended(OVERLAY_BACKGROUND, Palette::DARK.video_background)
                ) >= 3.0
            );
        }
    }
}
