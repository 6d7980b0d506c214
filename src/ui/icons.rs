//! Icons drawn as lines of one weight on a grid of 16, so that they are sharp at any scale and in
//! any colour.

use eframe::egui::{
    self, Color32, Painter, Pos2, Rect, Response, Sense, Shape, Stroke, Ui, Vec2, WidgetInfo,
    epaint::PathShape,
};

use super::bidi;
use super::theme::{ICON_BUTTON, Palette, SMALL_CORNER};

/// An icon of a thing or an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Icon {
    /// A microphone: the audio source.
    Microphone,
    /// A camera: the video source.
    Camera,
    /// A loudspeaker: the audio output.
    Speaker,
    /// A one-way session.
    Broadcast,
    /// A chat.
    Data,
    /// Two links of a chain: copies a session link.
    Link,
    /// A QR code.
    Code,
    /// Two heads: the participants.
    People,
    /// A cross: closes something.
    Close,
    /// The power symbol: ends a session for everyone.
    End,
    /// A head and an arrow away from it: ejects a participant.
    Eject,
    /// An arrow out of a door: leaves a session.
    Leave,
    /// A pin: the tile is pinned.
    Pin,
    /// Four corners: full screen.
    FullScreen,
    /// Three sliders: the settings.
    Settings,
    /// A question mark: the help.
    Help,
    /// A chevron that points down: opens a menu.
    More,
    /// A clock: the video is frozen.
    Clock,
    /// Waves from a point: the connection.
    Wave,
    /// Bars that rise from left to right, all but the first one empty: a poor connection.
    Bars,
}

/// The state that an icon button shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IconState {
    /// A plain button without a state.
    Plain,
    /// A switch that is on.
    On,
    /// A switch that is off: struck through, in the warning colour.
    Off,
    /// A switch that is on but has no effect, because the global switch is off: struck through,
    /// pale, and underlined.
    Overruled,
}

impl Icon {
    /// Draws the icon into `rect`, as a square of its shorter side.
    pub(crate) fn paint(self, painter: &Painter, rect: Rect, colour: Color32) {
        let pen = Pen::new(painter, rect, colour);
        match self {
            Self::Microphone => {
                pen.rounded(5.5, 1.5, 10.5, 9.5, 2.5);
                pen.arc(8.0, 7.5, 5.0, 0.0, 180.0);
                pen.line(&[(8.0, 12.5), (8.0, 15.0)]);
            }
            Self::Camera => {
                pen.rounded(1.0, 4.0, 10.5, 12.0, 2.0);
                pen.line(&[(10.5, 7.0), (15.0, 4.5), (15.0, 11.5), (10.5, 9.0)]);
            }
            Self::Speaker => {
                pen.outline(&[
                    (1.5, 6.0),
                    (4.5, 6.0),
                    (8.5, 2.5),
                    (8.5, 13.5),
                    (4.5, 10.0),
                    (1.5, 10.0),
                ]);
                pen.arc(8.5, 8.0, 3.0, -50.0, 50.0);
                pen.arc(8.5, 8.0, 6.0, -50.0, 50.0);
            }
            Self::Broadcast => {
                pen.dot(8.0, 8.0, 1.6);
                for radius in [4.0, 6.8] {
                    pen.arc(8.0, 8.0, radius, -50.0, 50.0);
                    pen.arc(8.0, 8.0, radius, 130.0, 230.0);
                }
            }
            Self::Data => {
                pen.rounded(1.5, 2.5, 14.5, 11.0, 2.0);
                pen.line(&[(4.5, 11.0), (4.5, 14.0), (8.0, 11.0)]);
            }
            Self::Link => {
                pen.rounded(1.0, 5.5, 9.0, 10.5, 2.5);
                pen.rounded(7.0, 5.5, 15.0, 10.5, 2.5);
            }
            Self::Code => pen.code(),
            Self::People => {
                pen.circle(6.0, 5.0, 2.6);
                pen.arc(6.0, 14.0, 4.8, 180.0, 360.0);
                pen.arc(10.5, 5.0, 2.6, -80.0, 80.0);
                pen.arc(10.5, 14.0, 4.5, -70.0, 0.0);
            }
            Self::Close => {
                pen.line(&[(4.0, 4.0), (12.0, 12.0)]);
                pen.line(&[(12.0, 4.0), (4.0, 12.0)]);
            }
            Self::End => {
                pen.arc(8.0, 8.5, 5.8, -55.0, 235.0);
                pen.line(&[(8.0, 1.5), (8.0, 8.0)]);
            }
            Self::Eject => {
                pen.circle(6.0, 5.0, 2.6);
                pen.arc(6.0, 14.0, 4.8, 180.0, 270.0);
                pen.line(&[(8.0, 11.5), (15.0, 11.5)]);
                pen.line(&[(12.5, 9.0), (15.0, 11.5), (12.5, 14.0)]);
            }
            Self::Leave => {
                pen.line(&[(9.0, 2.0), (2.5, 2.0), (2.5, 14.0), (9.0, 14.0)]);
                pen.line(&[(6.5, 8.0), (14.5, 8.0)]);
                pen.line(&[(11.5, 5.0), (14.5, 8.0), (11.5, 11.0)]);
            }
            Self::Pin => {
                pen.line(&[(5.0, 2.0), (11.0, 2.0)]);
                pen.outline(&[
                    (6.0, 2.0),
                    (10.0, 2.0),
                    (10.5, 7.0),
                    (13.0, 9.5),
                    (3.0, 9.5),
                    (5.5, 7.0),
                ]);
                pen.line(&[(8.0, 9.5), (8.0, 15.0)]);
            }
            Self::FullScreen => pen.corners(),
            Self::Settings => pen.sliders(),
            Self::Help => {
                pen.arc(8.0, 5.5, 3.5, 180.0, 400.0);
                pen.line(&[(10.6, 7.7), (8.0, 9.6), (8.0, 11.0)]);
                pen.dot(8.0, 13.8, 1.1);
            }
            Self::More => pen.line(&[(4.0, 6.0), (8.0, 10.0), (12.0, 6.0)]),
            Self::Clock => {
                pen.circle(8.0, 8.0, 6.2);
                pen.line(&[(8.0, 4.5), (8.0, 8.0), (11.0, 9.5)]);
            }
            Self::Bars => {
                pen.rounded(1.5, 10.5, 4.5, 14.5, 0.5);
                pen.line(&[(3.0, 11.0), (3.0, 14.0)]);
                pen.rounded(6.5, 6.5, 9.5, 14.5, 0.5);
                pen.rounded(11.5, 2.5, 14.5, 14.5, 0.5);
            }
            Self::Wave => {
                pen.dot(8.0, 12.5, 1.4);
                pen.arc(8.0, 13.0, 5.0, 220.0, 320.0);
                pen.arc(8.0, 13.0, 9.0, 220.0, 320.0);
            }
        }
    }

    /// Strikes an icon through: the thing is off.
    pub(crate) fn strike_through(
        painter: &Painter,
        rect: Rect,
        colour: Color32,
        background: Color32,
    ) {
        let halo = Pen { stroke: Stroke::new(4.0, background), ..Pen::new(painter, rect, colour) };
        halo.line(&[(2.0, 2.0), (14.0, 14.0)]);
        Pen::new(painter, rect, colour).line(&[(1.5, 1.5), (14.5, 14.5)]);
    }
}

/// A square icon button. `label` is its accessibility label and its tooltip.
pub(crate) fn icon_button(ui: &mut Ui, icon: Icon, label: &str, state: IconState) -> Response {
    icon_switch(ui, icon, (label, label), state)
}

/// The same with a tooltip that says what a click does now. The label names what is switched, and
/// screen readers add whether it is on.
pub(crate) fn icon_switch(
    ui: &mut Ui,
    icon: Icon,
    (label, tip): (&str, &str),
    state: IconState,
) -> Response {
    let palette = Palette::of(ui);
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(ICON_BUTTON), Sense::click());
    let enabled = ui.is_enabled();
    response.widget_info(|| match state {
        IconState::Plain => WidgetInfo::labeled(egui::Role::Button, enabled, label),
        IconState::On | IconState::Overruled => {
            WidgetInfo::selected(egui::Role::CheckBox, enabled, true, label)
        }
        IconState::Off => WidgetInfo::selected(egui::Role::CheckBox, enabled, false, label),
    });
    if ui.is_rect_visible(rect) {
        let background = match (state, response.hovered()) {
            (IconState::Plain, false) => Color32::TRANSPARENT,
            (IconState::On | IconState::Off | IconState::Overruled, false) => palette.control,
            (_, true) => palette.control_hover,
        };
        let colour = match state {
            IconState::Off => palette.warn,
            IconState::Overruled => palette.muted,
            IconState::On | IconState::Plain => palette.text,
        };
        let colour = if enabled { colour } else { palette.muted.gamma_multiply(0.5) };
        let ring =
            if response.has_focus() { Stroke::new(2.0, palette.accent) } else { Stroke::NONE };
        let painter = ui.painter();
        painter.rect(rect, SMALL_CORNER, background, ring, egui::StrokeKind::Inside);
        let inner = rect.shrink(6.0);
        icon.paint(painter, inner, colour);
        if matches!(state, IconState::Off | IconState::Overruled) {
            let halo = if background == Color32::TRANSPARENT { palette.panel } else { background };
            Icon::strike_through(painter, inner, colour, halo);
        }
        if state == IconState::Overruled {
            let y = rect.bottom() - 3.0;
            painter.hline(inner.x_range(), y, Stroke::new(2.0, palette.warn));
        }
    }
    bidi::hover_text(response, tip)
}

/// Draws on the grid of 16 units.
struct Pen<'a> {
    painter: &'a Painter,
    origin: Pos2,
    scale: f32,
    stroke: Stroke,
}

impl<'a> Pen<'a> {
    fn new(painter: &'a Painter, rect: Rect, colour: Color32) -> Self {
        let side = rect.width().min(rect.height());
        let origin = rect.center() - Vec2::splat(side / 2.0);
        let scale = side / 16.0;
        Self { painter, origin, scale, stroke: Stroke::new((1.4 * scale).max(1.2), colour) }
    }

    fn at(&self, x: f32, y: f32) -> Pos2 {
        self.origin + Vec2::new(x, y) * self.scale
    }

    fn line(&self, points: &[(f32, f32)]) {
        let points = points.iter().map(|(x, y)| self.at(*x, *y)).collect();
        self.painter.add(Shape::Path(PathShape::line(points, self.stroke)));
    }

    fn outline(&self, points: &[(f32, f32)]) {
        let points = points.iter().map(|(x, y)| self.at(*x, *y)).collect();
        self.painter.add(Shape::Path(PathShape::closed_line(points, self.stroke)));
    }

    fn rounded(&self, left: f32, top: f32, right: f32, bottom: f32, radius: f32) {
        let rect = Rect::from_min_max(self.at(left, top), self.at(right, bottom));
        let kind = egui::StrokeKind::Middle;
        self.painter.rect_stroke(rect, radius * self.scale, self.stroke, kind);
    }

    fn circle(&self, x: f32, y: f32, radius: f32) {
        self.painter.circle_stroke(self.at(x, y), radius * self.scale, self.stroke);
    }

    fn dot(&self, x: f32, y: f32, radius: f32) {
        self.painter.circle_filled(self.at(x, y), radius * self.scale, self.stroke.color);
    }

    /// Angles are in degrees, clockwise from the right.
    fn arc(&self, x: f32, y: f32, radius: f32, from: f32, to: f32) {
        const STEPS: u8 = 16;
        let points = (0..=STEPS).map(|step| {
            let angle = (from + (to - from) * f32::from(step) / f32::from(STEPS)).to_radians();
            self.at(x + radius * angle.cos(), y + radius * angle.sin())
        });
        self.painter.add(Shape::Path(PathShape::line(points.collect(), self.stroke)));
    }

    fn code(&self) {
        for (x, y) in [(1.5, 1.5), (9.5, 1.5), (1.5, 9.5)] {
            self.rounded(x, y, x + 5.0, y + 5.0, 0.5);
            self.dot(x + 2.5, y + 2.5, 0.9);
        }
        for (x, y) in [(10.0, 10.0), (14.0, 10.0), (12.0, 12.0), (10.0, 14.0), (14.0, 14.0)] {
            self.dot(x, y, 1.0);
        }
    }

    fn corners(&self) {
        self.line(&[(6.0, 2.0), (2.0, 2.0), (2.0, 6.0)]);
        self.line(&[(10.0, 2.0), (14.0, 2.0), (14.0, 6.0)]);
        self.line(&[(14.0, 10.0), (14.0, 14.0), (10.0, 14.0)]);
        self.line(&[(6.0, 14.0), (2.0, 14.0), (2.0, 10.0)]);
    }

    fn sliders(&self) {
        for (y, knob) in [(3.5, 10.5), (8.0, 5.0), (12.5, 9.0)] {
            self.line(&[(1.5, y), (knob - 1.8, y)]);
            self.line(&[(knob + 1.8, y), (14.5, y)]);
            self.circle(knob, y, 1.8);
        }
    }
}
